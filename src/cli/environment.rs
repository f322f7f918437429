//! `env`: what a process was given of variables, and what a restart with this shell's would change.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::Session;
use super::act;
use super::screen::{Color, Fail, escaped};
use crate::app::{self, App, Env, Identity, SharedEnv, Text};
use crate::protocol::Detail;

/// What a shell changes with every command or directory.
const OF_SHELLS: [&str; 4] = ["OLDPWD", "PWD", "SHLVL", "_"];

/// `pmx env`.
pub fn env(session: &mut Session<'_, '_>, target: &str) -> Result<(), Fail> {
    let details = act::details(session, &[target.to_string()])?;
    let detail = match &details[..] {
        [] => return Err(Fail::Sentence(format!("env {target}: no such process"))),
        [one] => one,
        several => {
            let ids: Vec<String> = several.iter().map(|detail| detail.view.id.to_string()).collect();
            let (count, ids) = (ids.len(), ids.join(", "));
            return Err(Fail::Sentence(format!(
                "env {target}: it has {count} processes; choose one of {ids}"
            )));
        }
    };
    if detail.view.pid == 0 {
        return Err(Fail::Sentence(format!(
            "env {target}: it does not run; what is declared for it stands in pmx describe {target}"
        )));
    }
    let path = format!("/proc/{}/environ", detail.view.pid);
    let bytes = fs::read(&path)
        .map_err(|error| format!("env {target}: read {path}: {}", crate::sys::reason(&error)))?;
    let given = parse(&bytes);
    if session.options.diff {
        return diff(session, detail, &given);
    }
    if session.options.json {
        let shown =
            given.0.iter().map(|(name, value)| (name.lossy().into_owned(), Value::from(value.lossy())));
        return session.screen.json(&Value::Object(shown.collect()));
    }
    for (name, value) in &given.0 {
        let line = format!("{}: {}\n", escaped(&name.lossy()), escaped(&value.lossy()));
        session.screen.data(line.as_bytes())?;
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Env {
    let mut env = BTreeMap::new();
    for pair in bytes.split(|byte| *byte == 0) {
        if let Some(at) = pair.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) {
            env.insert(Text::from(pair[..at].to_vec()), Text::from(pair[at + 1..].to_vec()));
        }
    }
    Env(env)
}

/// What `restart --update-env` would change.
fn diff(session: &mut Session<'_, '_>, detail: &Detail, given: &Env) -> Result<(), Fail> {
    let next = next(session, detail);
    let counts = |name: &&Text| {
        let name = name.lossy();
        !app::is_of_one_child(&name) && !OF_SHELLS.contains(&&*name)
    };
    let options = |value: &Text| app::without_preload(&value.lossy());
    let added = next.0.keys().filter(|name| !given.0.contains_key(*name));
    let mut is_same = true;
    for name in given.0.keys().chain(added).filter(counts) {
        let (old, new) = match name.lossy() == "NODE_OPTIONS" {
            false => (given.0.get(name).cloned(), next.0.get(name).cloned()),
            // What is ours in it comes again by itself.
            true => {
                let own = |env: &Env| env.0.get(name).map(options).filter(|text| !text.is_empty());
                (own(given).map(Text::from), own(&next).map(Text::from))
            }
        };
        let shown = |value: &Text| escaped(&value.lossy()).to_string();
        let (color, line) = match (&old, &new) {
            (old, new) if old == new => continue,
            (Some(old), Some(new)) => (Color::Yellow, format!("~ {name}: {} -> {}", shown(old), shown(new))),
            (Some(old), None) => (Color::Red, format!("- {name}: {}", shown(old))),
            (None, Some(new)) => (Color::Green, format!("+ {name}: {}", shown(new))),
            (None, None) => continue,
        };
        is_same = false;
        let line = session.screen.paint(color, &line);
        session.screen.data(format!("{line}\n").as_bytes())?;
    }
    if is_same {
        session.screen.line("env: a restart with this shell's environment would change nothing")?;
    }
    Ok(())
}

fn next(session: &Session<'_, '_>, detail: &Detail) -> Env {
    let inherit = SharedEnv(session.caller.inheritable().into());
    let app = App { inherit, ..detail.app.clone() };
    let identity = Identity {
        id: detail.view.id,
        instance: detail.view.instance,
        created: detail.created,
        home: &session.home.path,
        notify: None,
        cluster: detail.view.cluster,
        mark: "",
    };
    app::environment(&app, &identity, None)
}
