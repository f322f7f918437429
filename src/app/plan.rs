//! From what runs to what is declared: the steps between them. Pure; `pmx apply` shows and takes them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Alerts, App, Env, Occasion, SharedEnv, Text};

/// An app as it is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What was declared, resolved.
    pub app: App,
    /// How many instances that is on this machine.
    pub count: u32,
    /// The umask is its own, and not that of the shell.
    pub has_umask: bool,
}

/// A process as it is.
#[derive(Clone, Debug)]
pub struct Present {
    /// Its id.
    pub id: u32,
    /// What it runs.
    pub app: App,
    /// It was given up, or stopped by somebody.
    pub is_down: bool,
}

/// A difference in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// How it differs.
    pub change: Change,
}

/// How a field differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// As it is and as it is to be.
    Values(String, String),
    /// The same is not shown, because it may be a secret; what became of it.
    Hidden(&'static str),
}

/// One thing to do. `app` is the place of the app among the wanted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none of it.
    Start {
        /// The app.
        app: usize,
    },
    /// It is declared otherwise.
    Reload {
        /// The app.
        app: usize,
        /// In what.
        differences: Vec<Difference>,
    },
    /// It is there and does not run.
    Wake {
        /// The app.
        app: usize,
        /// Which of its processes.
        ids: Vec<u32>,
    },
    /// It has another number of instances.
    Scale {
        /// The app.
        app: usize,
        /// As it is.
        from: u32,
        /// As it is to be.
        to: u32,
    },
    /// It came from this file and is not in it any more.
    Delete {
        /// Its name.
        name: String,
        /// Its processes.
        ids: Vec<u32>,
    },
}

/// What has to be done so that `present` becomes `wanted`. With `prune` what came from this file and is not in
/// it any more goes. The error is one sentence.
pub fn plan(wanted: &[Wanted], present: &[Present], prune: Option<&Text>) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (app, one) in wanted.iter().enumerate() {
        let here: Vec<&Present> = present.iter().filter(|there| is_called_as(&there.app, &one.app)).collect();
        if here.is_empty() {
            steps.push(Step::Start { app });
            continue;
        }
        let mut differences: Vec<Difference> = Vec::new();
        for there in &here {
            for difference in self::differences(&there.app, one) {
                if !differences.iter().any(|known| known.field == difference.field) {
                    differences.push(difference);
                }
            }
        }
        if !differences.is_empty() {
            steps.push(Step::Reload { app, differences });
        } else {
            let runs = one.app.autostart && one.app.restart.autorestart;
            // What ends with one of these codes is done.
            let runs = runs && one.app.restart.stop_exit_codes.is_empty();
            let ids: Vec<u32> =
                here.iter().filter(|there| there.is_down && runs).map(|there| there.id).collect();
            if !ids.is_empty() {
                steps.push(Step::Wake { app, ids });
            }
        }
        let from = here.len() as u32;
        if from != one.count {
            if present
                .iter()
                .any(|other| other.app.name == one.app.name && !is_called_as(&other.app, &one.app))
            {
                return Err(format!(
                    "{}: it is to have {} instances, and another namespace has an app of this name, too",
                    one.app.name, one.count
                ));
            }
            steps.push(Step::Scale { app, from, to: one.count });
        }
    }
    let Some(file) = prune else { return Ok(steps) };
    let mut gone: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for there in present.iter().filter(|there| there.app.file.as_ref() == Some(file)) {
        if !wanted.iter().any(|one| is_called_as(&there.app, &one.app)) {
            gone.entry((&there.app.name, &there.app.namespace)).or_default().push(there.id);
        }
    }
    steps.extend(gone.into_iter().map(|((name, _), ids)| Step::Delete { name: name.to_string(), ids }));
    Ok(steps)
}

fn is_called_as(a: &App, b: &App) -> bool {
    a.name == b.name && a.namespace == b.namespace
}

/// In what an app that is there differs. What only the shell of its start decided does not count.
fn differences(present: &App, wanted: &Wanted) -> Vec<Difference> {
    let mut found = Vec::new();
    variables(&present.env, &wanted.app.env, &mut found);
    alerts(&present.on, &wanted.app.on, &mut found);
    let bare = |app: &App| {
        let mut app = app.clone();
        app.env = Env::default();
        app.on = Alerts::default();
        app.inherit = SharedEnv::default();
        app.instances = wanted.app.instances;
        app.file = None;
        app.unknown.clear();
        if !wanted.has_umask {
            app.umask = 0;
        }
        let mut fields = BTreeMap::new();
        // An app is a struct, and so an object.
        flatten("", &serde_json::to_value(&app).unwrap_or_default(), &mut fields);
        fields
    };
    let (is, to_be) = (bare(present), bare(&wanted.app));
    let names = is.keys().chain(to_be.keys().filter(|name| !is.contains_key(*name)));
    for name in names.filter(|name| is.get(*name) != to_be.get(*name)) {
        let shown = |fields: &BTreeMap<String, Value>| match fields.get(name) {
            None | Some(Value::Null) => "-".to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let field = GROUPS.iter().find_map(|group| name.strip_prefix(group)).unwrap_or(name);
        found
            .push(Difference { field: field.to_string(), change: Change::Values(shown(&is), shown(&to_be)) });
    }
    found
}

/// Parts of an app that a declaration does not know as such.
const GROUPS: [&str; 8] =
    ["command.", "logs.", "notify.", "privileges.", "restart.", "stop.", "triggers.", "variables."];

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, into);
            }
        }
        value => {
            into.insert(path.to_string(), value.clone());
        }
    }
}

/// Their values may be secrets.
fn variables(present: &Env, wanted: &Env, found: &mut Vec<Difference>) {
    let added = wanted.0.keys().filter(|name| !present.0.contains_key(*name));
    for name in present.0.keys().chain(added) {
        let what = match (present.0.get(name), wanted.0.get(name)) {
            (Some(is), Some(to_be)) if is == to_be => continue,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            (None, _) => "added",
        };
        found.push(Difference { field: format!("env.{name}"), change: Change::Hidden(what) });
    }
}

/// They may hold secrets, too.
fn alerts(present: &Alerts, wanted: &Alerts, found: &mut Vec<Difference>) {
    for occasion in Occasion::ALL {
        let what = match (present.of(occasion), wanted.of(occasion)) {
            (is, to_be) if is == to_be => continue,
            (_, []) => "removed",
            ([], _) => "added",
            _ => "changed",
        };
        let field = format!("on.{}", occasion.word());
        found.push(Difference { field, change: Change::Hidden(what) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Instances, Step as StopStep};
    use crate::time::Millis;

    fn app(name: &str) -> App {
        let mut app = App { name: name.to_string(), file: Some(Text::from("/f")), ..App::default() };
        app.command.script = Text::from(&format!("/srv/{name}"));
        app
    }

    fn wanted(name: &str, count: u32) -> Wanted {
        let app = App { instances: Instances::Count(count), ..app(name) };
        Wanted { app, count, has_umask: false }
    }

    fn present(id: u32, name: &str) -> Present {
        Present { id, app: app(name), is_down: false }
    }

    #[test]
    fn nothing_is_to_be_done_about_what_is_as_it_is_to_be() {
        let mut there = [present(0, "a"), present(1, "a")];
        there[0].app.umask = 0o77;
        there[0].app.inherit = SharedEnv([("A".into(), "1".into())].into_iter().collect::<Env>().into());
        there[1].app.instances = Instances::CpusLess(0);
        there[1].app.file = None;
        assert_eq!(plan(&[wanted("a", 2)], &there, None), Ok(vec![]));
        let own = Wanted { has_umask: true, ..wanted("a", 2) };
        assert!(matches!(&plan(&[own], &there, None).unwrap()[..], [Step::Reload { app: 0, .. }]));
    }

    #[test]
    fn every_kind_of_step() {
        let mut changed = wanted("b", 2);
        changed.app.kill_timeout = Millis(5);
        changed.app.restart.max_restarts = crate::app::Budget::Ends(3);
        changed.app.stop.sequence = vec![StopStep { signal: 15, wait: Millis(1) }];
        changed.app.env.set("TOKEN", "secret");
        changed.app.env.set("SAME", "1");
        changed.app.env.set("NEW", "secret");
        let mut there =
            vec![present(0, "b"), present(1, "b"), present(2, "c"), present(3, "d"), present(4, "e")];
        for one in &mut there[..2] {
            one.app.env.set("SAME", "1");
        }
        there[1].app.env.set("TOKEN", "old");
        there[0].app.env.set("GONE", "x");
        there[2].is_down = true;
        let steps =
            plan(&[wanted("a", 1), changed, wanted("c", 3)], &there, Some(&Text::from("/f"))).unwrap();
        let [Step::Start { app: 0 }, Step::Reload { app: 1, differences }, rest @ ..] = &steps[..] else {
            panic!("{steps:?}")
        };
        let mut shown: Vec<String> = Vec::new();
        for Difference { field, change } in differences {
            shown.push(match change {
                Change::Values(from, to) => format!("{field}: {from} -> {to}"),
                Change::Hidden(what) => format!("{field} {what}"),
            });
        }
        let expected = [
            "env.GONE removed",
            "env.NEW added",
            "env.TOKEN added",
            "kill_timeout: 1600 -> 5",
            "max_restarts: 16 -> 3",
            "sequence: [] -> [{\"signal\":15,\"wait\":1}]",
        ];
        assert_eq!(shown, expected);
        assert!(!shown.concat().contains("secret"));
        assert_eq!(
            rest,
            [
                Step::Wake { app: 2, ids: vec![2] },
                Step::Scale { app: 2, from: 1, to: 3 },
                Step::Delete { name: "d".to_string(), ids: vec![3] },
                Step::Delete { name: "e".to_string(), ids: vec![4] },
            ]
        );
    }

    #[test]
    fn what_is_done_or_came_from_elsewhere_is_left_alone() {
        let mut there = present(0, "job");
        there.is_down = true;
        for change in [
            (|app: &mut App| app.autostart = false) as fn(&mut App),
            |app| app.restart.autorestart = false,
            |app| app.restart.stop_exit_codes = vec![0],
        ] {
            let mut job = wanted("job", 1);
            change(&mut job.app);
            let mut there = there.clone();
            change(&mut there.app);
            assert_eq!(plan(&[job], &[there], None), Ok(vec![]));
        }
        let elsewhere = Present { app: App { file: None, ..app("x") }, ..present(1, "x") };
        let here = [present(0, "a"), elsewhere, present(2, "gone")];
        assert_eq!(plan(&[wanted("a", 1)], &here, None), Ok(vec![]));
        let prune = plan(&[wanted("a", 1)], &here, Some(&Text::from("/f"))).unwrap();
        assert_eq!(prune, [Step::Delete { name: "gone".to_string(), ids: vec![2] }]);
    }

    #[test]
    fn a_name_in_two_namespaces_is_not_scaled_by_mistake() {
        let other = Present { app: App { namespace: "other".to_string(), ..app("a") }, ..present(1, "a") };
        let here = [present(0, "a"), other];
        assert_eq!(plan(&[wanted("a", 1)], &here, None), Ok(vec![]));
        let error = plan(&[wanted("a", 2)], &here, None).unwrap_err();
        assert!(error.starts_with("a: it is to have 2 instances"), "{error}");
    }
}
