//! What holds for all logs: the rules that `pmx set` wrote down, as they are now, and the time zones that they name.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::app::Alerts;
use crate::app::cron::Cron;
use crate::app::rotation::{Every, Global, Rule};
use crate::app::zone::Zone;
use crate::sys::zone;
use crate::time::{Millis, Mono, Wall};

/// How often it is looked whether the rules have changed.
const LOOK: Millis = Millis(1_000);
/// A longer file of rules is none.
const LONGEST: u64 = 1 << 20;

/// The rules.
#[derive(Debug, Default)]
pub struct Rules {
    /// Where they are; empty: there are none.
    path: PathBuf,
    /// What tells the file from one that was changed.
    seen: Option<(i64, i64, u64, u64)>,
    looked: Option<Mono>,
    /// What they say.
    pub global: Global,
    /// Who is told about all apps.
    pub alerts: Alerts,
    /// Counts up with every change.
    pub version: u64,
    zones: HashMap<Option<String>, Zone>,
}

impl Rules {
    /// Those of the daemon that lives at `home`, which may be nowhere.
    pub fn of(home: &Path) -> Rules {
        let path = if home.as_os_str().is_empty() { PathBuf::new() } else { home.join("module_conf.json") };
        Rules { path, version: 1, ..Rules::default() }
    }

    /// Reads them again if they have changed, as far as that was not just looked at.
    pub fn look(&mut self, now: Mono) {
        if self.path.as_os_str().is_empty() || self.looked.is_some_and(|looked| now.since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let found = fs::metadata(&self.path).ok().filter(|found| found.is_file() && found.len() <= LONGEST);
        let seen = found.map(|found| (found.mtime(), found.mtime_nsec(), found.len(), found.ino()));
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let conf = fs::read(&self.path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let conf = conf.unwrap_or_default();
        let (global, mut faults) = Global::read(&conf);
        let (alerts, fault) = Alerts::of_settings(&conf);
        self.alerts = alerts;
        faults.extend(fault);
        for fault in faults {
            log::warn!("{}: {fault}", self.path.display());
        }
        if global != self.global {
            self.global = global;
            self.version += 1;
        }
    }

    /// When a file is full that was begun at one moment and last written at another; `None`: at no time.
    pub fn due(&mut self, rule: &Rule, begun: Wall, written: Wall) -> Option<Wall> {
        match &rule.every {
            Every::Never => None,
            Every::Age(age) => Some(Wall(begun.0.saturating_add(age.0))),
            Every::Pattern(pattern) => {
                let cron = Cron::parse(pattern).ok()?;
                let next = self.zone(&rule.zone).next(&cron, (written.0 / 1_000) as i64)?;
                Some(Wall(u64::try_from(next).ok()?.saturating_mul(1_000)))
            }
        }
    }

    /// A moment as an old file is called after it.
    pub fn date(&mut self, rule: &Rule, at: Wall) -> String {
        let local = match &rule.zone {
            None => crate::sys::clock::local(at),
            zone => self.zone(zone).local(at),
        };
        crate::app::DateFormat::new(&rule.date_format).text(&local, at.0)
    }

    fn zone(&mut self, name: &Option<String>) -> &Zone {
        self.zones.entry(name.clone()).or_insert_with(|| {
            let file = zone::file(name.as_deref()).ok().and_then(|bytes| Zone::read(&bytes));
            let found = file.or_else(|| name.as_deref().and_then(Zone::rule));
            if let (None, Some(name)) = (&found, name) {
                log::warn!("rotation: time zone {name:?}: not found (is tzdata installed?); it is UTC");
            }
            found.unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Rotation;
    use serde_json::json;

    #[test]
    fn rules_are_read_again_when_they_change() {
        let home = std::env::temp_dir().join(format!("pmx-rules-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let conf = |text: &str| {
            // As `pmx set` does: whole or not at all.
            fs::write(home.join("new"), text).unwrap();
            fs::rename(home.join("new"), home.join("module_conf.json")).unwrap();
        };
        let mut rules = Rules::of(&home);
        rules.look(Mono(10));
        assert_eq!((rules.version, rules.global.rotation.retain), (1, None));
        conf(r#"{"pm2-logrotate": {"retain": "3"}}"#);
        rules.look(Mono(500));
        assert_eq!(rules.version, 1, "it was just looked at");
        rules.look(Mono(1_010));
        assert_eq!((rules.version, rules.global.rotation.retain), (2, Some(3)));
        conf(r#"{"pm2-logrotate": {"retain": "3"}, "other": {"x": "1"}}"#);
        rules.look(Mono(3_000));
        assert_eq!(rules.version, 2, "what is changed is none of ours");
        conf("no JSON");
        rules.look(Mono(5_000));
        assert_eq!((rules.version, rules.global.rotation.retain), (3, None));
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn a_file_is_due_after_it_was_written_last_or_by_its_age() {
        let mut rules = Rules::of(Path::new(""));
        let rule = |every: &str| {
            let options = json!({"rotateInterval": every, "TZ": "UTC", "dateFormat": "YYYY-MM-DD HH:mm"});
            Rotation::read(&options).unwrap().rule(&Rotation::default()).unwrap()
        };
        let day = 86_400_000;
        let midday = Wall(20_000 * day + day / 2);
        assert_eq!(rules.due(&rule("0 0 * * *"), Wall(0), midday), Some(Wall(20_001 * day)));
        assert_eq!(rules.due(&rule("6h"), midday, Wall(0)), Some(Wall(midday.0 + day / 4)));
        assert_eq!(rules.due(&rule(""), midday, midday), None);
        assert_eq!(rules.date(&rule(""), midday), "2024-10-04 12:00");
    }
}
