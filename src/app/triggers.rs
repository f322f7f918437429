//! What, besides its end and a command, calls for a new child of an app: its memory, the calendar, files that
//! change.

use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::units::Memory;
use super::{App, Text};
use crate::time::Millis;

/// What calls for a new child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Triggers {
    /// More than this, in its whole tree, and it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Memory>,
    /// When it is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// When it is started: it is a job, which is down in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of either, as the zoneinfo database calls it; `None`: `TZ`, or the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What a job does that is due while it runs.
    pub overlap: Overlap,
    /// The files.
    pub watch: Watch,
}

/// What a job does that is due while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// This time it is left out.
    #[default]
    Skip,
    /// It runs again as soon as it has ended; at most one run waits.
    Queue,
    /// It is stopped and started.
    Kill,
}

impl Overlap {
    /// As people write it.
    pub fn named(name: &str) -> Option<Overlap> {
        [Overlap::Skip, Overlap::Queue, Overlap::Kill].into_iter().find(|overlap| overlap.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::Kill => "kill",
        }
    }
}

/// Files that, when they change, call for a new child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Which.
    pub what: Watched,
    /// Those of them that do not matter: globs, or names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Only files whose names end so matter; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// How long after the last change.
    pub delay: Millis,
}

/// Which files are watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// None.
    #[default]
    Off,
    /// The working directory.
    Cwd,
    /// These files and directories, absolute.
    Paths(Vec<Text>),
}

/// Trees that never come to rest, or have no end.
const UNWATCHABLE: [&str; 3] = ["/proc", "/sys", "/dev"];

impl Triggers {
    /// What was declared is down between its runs, and each is started by the calendar.
    pub fn is_job(&self) -> bool {
        self.schedule.is_some()
    }

    /// The pattern that either is due by.
    pub fn pattern(&self) -> Option<&str> {
        self.schedule.as_deref().or(self.cron.as_deref())
    }

    /// Refuses what cannot be meant.
    pub(super) fn fault(&self, app: &App) -> Option<String> {
        if self.cron.is_some() && self.schedule.is_some() {
            return Some("cron_restart restarts what runs, schedule starts a job: it cannot be both".into());
        }
        if let Some(pattern) = self.pattern()
            && let Err(expected) = Cron::parse(pattern)
        {
            return Some(format!("the cron pattern {pattern:?}: expected {expected}"));
        }
        let refused = self.watch.roots(app).into_iter().find_map(|root| {
            let path = root.path();
            let is_endless = path.parent().is_none() || UNWATCHABLE.iter().any(|tree| path.starts_with(tree));
            (is_endless || !path.is_absolute()).then(|| format!("{root} cannot be watched"))
        });
        if refused.is_some() {
            return refused;
        }
        (self.watch.what != Watched::Off && !cfg!(feature = "watch"))
            .then(|| "this pmx was built without watching files".to_string())
    }
}

impl Watch {
    /// The files and directories that are watched.
    pub fn roots(&self, app: &App) -> Vec<Text> {
        match &self.what {
            Watched::Off => Vec::new(),
            Watched::Cwd => vec![app.cwd.clone()],
            Watched::Paths(paths) => paths.clone(),
        }
    }

    /// Whether a change matters of a file that is called `below` under `root` and lies in the directory `cwd`.
    /// Hidden files and `node_modules` never do, unless they are `root` itself.
    pub fn matters(&self, below: &str, relative_to_cwd: &str, is_dir: bool) -> bool {
        let hidden = |part: &str| part.starts_with('.') && part != "." && part != "..";
        if below.split('/').any(|part| hidden(part) || part == "node_modules") {
            return false;
        }
        if self
            .ignore
            .iter()
            .any(|pattern| is_ignored(pattern, below) || is_ignored(pattern, relative_to_cwd))
        {
            return false;
        }
        let name = below.rsplit('/').next().unwrap_or(below);
        let has_extension = |extension: &String| {
            name.strip_suffix(extension.trim_start_matches('.')).is_some_and(|stem| stem.ends_with('.'))
        };
        is_dir || self.extensions.is_empty() || self.extensions.iter().any(has_extension)
    }
}

/// Whether a pattern covers a path or a directory above it. One without a slash is a name at any depth, one
/// with a slash is a path.
fn is_ignored(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
    let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    if !pattern.contains('/') {
        return path.split('/').any(|part| is_glob(pattern, part));
    }
    ends.any(|end| is_glob(pattern, &path[..end]))
}

#[cfg(feature = "watch")]
fn is_glob(pattern: &str, text: &str) -> bool {
    pattern == text || fast_glob::glob_match(pattern, text)
}

#[cfg(not(feature = "watch"))]
fn is_glob(pattern: &str, text: &str) -> bool {
    pattern == text
}

/// What was said of it. `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TriggerChanges {
    /// [`Triggers::max_memory`]; no bytes: no limit.
    pub max_memory: Option<Memory>,
    /// [`Triggers::cron`]; empty: never.
    pub cron: Option<String>,
    /// [`Triggers::schedule`]; empty: never.
    pub schedule: Option<String>,
    /// [`Triggers::zone`]; empty: the machine's.
    pub zone: Option<String>,
    /// [`Triggers::overlap`]
    pub overlap: Option<Overlap>,
    /// [`Watch::what`]
    pub watch: Option<Watched>,
    /// [`Watch::ignore`]
    pub ignore: Option<Vec<String>>,
    /// [`Watch::extensions`]
    pub extensions: Option<Vec<String>>,
    /// [`Watch::delay`]
    pub delay: Option<Millis>,
}

impl TriggerChanges {
    /// Takes over what `above` says.
    pub fn overlay(&mut self, above: &TriggerChanges) {
        fn lay<T: Clone>(under: &mut Option<T>, above: &Option<T>) {
            if above.is_some() {
                under.clone_from(above);
            }
        }
        // Exhaustive, so that a new one cannot be forgotten here.
        let TriggerChanges { max_memory, cron, schedule, zone, overlap, watch, ignore, extensions, delay } =
            above;
        lay(&mut self.max_memory, max_memory);
        lay(&mut self.cron, cron);
        lay(&mut self.schedule, schedule);
        lay(&mut self.zone, zone);
        lay(&mut self.overlap, overlap);
        lay(&mut self.watch, watch);
        lay(&mut self.ignore, ignore);
        lay(&mut self.extensions, extensions);
        lay(&mut self.delay, delay);
    }

    /// Lays it over what is.
    pub fn apply(&self, to: &mut Triggers) {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        if let Some(memory) = self.max_memory {
            to.max_memory = Some(memory).filter(|memory| *memory != Memory::Bytes(0));
        }
        if let Some(pattern) = &self.cron {
            to.cron = some(pattern);
        }
        if let Some(pattern) = &self.schedule {
            to.schedule = some(pattern);
        }
        if let Some(zone) = &self.zone {
            to.zone = some(zone);
        }
        to.overlap = self.overlap.unwrap_or(to.overlap);
        let watch = &mut to.watch;
        watch.delay = self.delay.unwrap_or(watch.delay);
        if let Some(what) = &self.watch {
            watch.what.clone_from(what);
        }
        if let Some(ignore) = &self.ignore {
            watch.ignore.clone_from(ignore);
        }
        if let Some(extensions) = &self.extensions {
            watch.extensions.clone_from(extensions);
        }
    }
}

/// A cron pattern as people write it; `0` and `false` are none.
pub fn pattern(text: &str) -> Result<String, String> {
    match text.trim() {
        "" | "0" | "false" | "null" => Ok(String::new()),
        text => Cron::parse(text).map(|_| text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "watch")]
    fn which_files_matter() {
        let watch = |ignore: &[&str], extensions: &[&str]| Watch {
            ignore: ignore.iter().map(|text| text.to_string()).collect(),
            extensions: extensions.iter().map(|text| text.to_string()).collect(),
            ..Watch::default()
        };
        for (ignore, extensions, path, expected) in [
            (&[][..], &[][..], "src/a.js", true),
            (&[], &[], ".env", false),
            (&[], &[], "src/.cache/x", false),
            (&[], &[], "node_modules/x/index.js", false),
            (&["logs"], &[], "logs/a.log", false),
            (&["logs"], &[], "src/logs/a.log", false),
            (&["logs"], &[], "logsy", true),
            (&["./logs"], &[], "logs/a.log", false),
            (&["src/logs/"], &[], "src/logs/deep/a.log", false),
            (&["src/logs"], &[], "other/src/logs/a", true),
            (&["*.log"], &[], "deep/down/a.log", false),
            (&["*.log"], &[], "a.logs", true),
            (&["public/**/*.css"], &[], "public/a/b/c.css", false),
            (&["**/tmp/**"], &[], "a/tmp/b", false),
            (&["{a,b}.txt"], &[], "x/b.txt", false),
            (&["[ab].txt"], &[], "c.txt", true),
            (&[], &["js", ".mjs"], "src/a.js", true),
            (&[], &["js", ".mjs"], "a.mjs", true),
            (&[], &["js"], "a.json", false),
            (&[], &["js"], "js", false),
        ] {
            assert_eq!(
                watch(ignore, extensions).matters(path, path, false),
                expected,
                "{path} {ignore:?} {extensions:?}"
            );
        }
        assert!(watch(&[], &["js"]).matters("src", "src", true), "directories are looked into");
        // A pattern may be meant from the watched directory, or from the working directory.
        assert!(!watch(&["src/gen"], &[]).matters("gen/a", "src/gen/a", false));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let app = |triggers: Triggers| {
            let mut app = App { name: "a".into(), cwd: Text::from("/srv"), triggers, ..App::default() };
            app.command.script = Text::from("/srv/a");
            app.check()
        };
        let cron = |pattern: &str| Some(pattern.to_string());
        assert_eq!(app(Triggers { cron: cron("* * * * *"), ..Triggers::default() }), Ok(()));
        let fault = app(Triggers { cron: cron("* * * *"), ..Triggers::default() }).unwrap_err();
        assert!(fault.contains("the cron pattern \"* * * *\": expected five fields"), "{fault}");
        let both = Triggers { cron: cron("@daily"), schedule: cron("@daily"), ..Triggers::default() };
        assert!(app(both).unwrap_err().contains("it cannot be both"));
        for path in ["/", "/proc", "/proc/1", "/sys/fs", "/dev", "relative"] {
            let what = Watched::Paths(vec![Text::from(path)]);
            let fault = app(Triggers { watch: Watch { what, ..Watch::default() }, ..Triggers::default() })
                .unwrap_err();
            assert!(fault.ends_with(&format!("{path} cannot be watched")), "{fault}");
        }
    }

    #[test]
    fn what_is_said_last_holds_and_nothing_can_be_said() {
        let mut triggers = Triggers::default();
        let said = TriggerChanges {
            max_memory: Some(Memory::Percent(80)),
            cron: Some(pattern("0 3 * * *").unwrap()),
            watch: Some(Watched::Cwd),
            ignore: Some(vec!["x".to_string()]),
            ..TriggerChanges::default()
        };
        let mut below = TriggerChanges { delay: Some(Millis(5)), cron: Some(String::new()), ..said.clone() };
        below.overlay(&said);
        below.apply(&mut triggers);
        assert_eq!(triggers.pattern(), Some("0 3 * * *"));
        assert_eq!((triggers.max_memory, triggers.watch.delay), (Some(Memory::Percent(80)), Millis(5)));
        let off = TriggerChanges {
            max_memory: Some(Memory::Bytes(0)),
            cron: Some(pattern("0").unwrap()),
            watch: Some(Watched::Off),
            ..TriggerChanges::default()
        };
        off.apply(&mut triggers);
        let ignored = Watch { ignore: vec!["x".to_string()], delay: Millis(5), ..Watch::default() };
        assert_eq!(triggers, Triggers { watch: ignored, ..Triggers::default() });
        assert!(pattern("61 * * * *").is_err());
    }
}
