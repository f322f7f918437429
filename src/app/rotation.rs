//! How log files are rotated: pm2-logrotate's options and some more, for all apps and for each. Pure; who renames and
//! removes files asks here what to do.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Text;
use super::cron::Cron;
use super::units::{self, Memory};
use crate::time::Millis;

/// pm2-logrotate's defaults.
const MAX_SIZE: u64 = 10 << 20;
const RETAIN: u32 = 30;
const EVERY: &str = "0 0 * * *";
/// What an old file is called after if nothing else is said.
pub const DATE_FORMAT: &str = "YYYY-MM-DD_HH-mm-ss";
/// All logs together may have this share of their disk, and no more than so much.
const BUDGET: (u64, u64) = (10, 4 << 30);
/// This share of a disk is left to others, and no more than so much.
const KEEP_FREE: (u64, u64) = (2, 512 << 20);

/// What was said about rotation. `None`: nothing, so that what holds for all apps holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// Whether there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A file that has so many bytes is full; 0: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// So many old files are kept; `u32::MAX`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<u32>,
    /// None that is older is kept; 0: any age will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_age: Option<Millis>,
    /// So many bytes of them are kept; 0: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_size: Option<u64>,
    /// Old files are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
    /// What an old file is called after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_format: Option<String>,
    /// When a file is full however long it is: a cron pattern, or its age; empty: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The time zone of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What is to be done, nothing left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// See [`Rotation::max_size`]; `None`: by size never.
    pub max_size: Option<u64>,
    /// See [`Rotation::retain`]
    pub retain: u32,
    /// See [`Rotation::retain_age`]
    pub retain_age: Option<Millis>,
    /// See [`Rotation::retain_size`]
    pub retain_size: Option<u64>,
    /// See [`Rotation::compress`]
    pub compress: bool,
    /// See [`Rotation::date_format`]
    pub date_format: String,
    /// When a file is full however long it is.
    pub every: Every,
    /// See [`Rotation::zone`]
    pub zone: Option<String>,
}

/// When a file is full however long it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Every {
    /// At no time.
    Never,
    /// At these.
    Pattern(String),
    /// So long after it was begun.
    Age(Millis),
}

/// What holds for all logs of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// What holds for apps that say nothing else.
    pub rotation: Rotation,
    /// What all logs together may have; `None`: a share of the disk.
    pub budget: Option<Memory>,
    /// What is left to others of each disk; `None`: a share of it.
    pub keep_free: Option<Memory>,
}

/// What a helper is to do with old logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Logs that were rotated, and how.
    pub turned: Vec<(Text, Rule)>,
    /// All logs that there are.
    pub logs: Vec<Text>,
    /// See [`Global::budget`]
    pub budget: Option<Memory>,
    /// See [`Global::keep_free`]
    pub keep_free: Option<Memory>,
}

impl Rotation {
    /// `true`, `false`, or an object of options. The error is what is wrong with it, or empty.
    pub fn read(value: &Value) -> Result<Rotation, String> {
        match value {
            Value::Bool(enabled) => Ok(Rotation { enabled: Some(*enabled), ..Rotation::default() }),
            Value::Object(options) => {
                let mut rotation = Rotation::default();
                for (name, value) in options {
                    rotation.set(name, value)?;
                }
                Ok(rotation)
            }
            _ => Err(String::new()),
        }
    }

    /// Takes in one option by pm2-logrotate's name or ours. The error says what was expected.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let text = match value {
            Value::String(text) => text.trim().to_string(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("{name}: a text, a number, or true or false")),
        };
        let is_off = matches!(text.as_str(), "" | "0" | "false" | "none" | "never");
        let expected = |what: &str| format!("{name}: expected {what}, got {text:?}");
        let flag = || text.parse::<bool>().map_err(|_| expected("true or false"));
        let bytes = || match units::memory(&text) {
            Some(Memory::Bytes(bytes)) => Ok(bytes),
            _ if is_off => Ok(0),
            _ => Err(expected("bytes, or an amount such as \"10M\"")),
        };
        let time = || match units::millis(&text) {
            Some(time) => Ok(time),
            None if is_off => Ok(Millis(0)),
            None => Err(expected("a length of time such as \"30d\"")),
        };
        match name {
            "enabled" => self.enabled = Some(flag()?),
            "max_size" | "maxSize" => self.max_size = Some(bytes()?),
            "retain" if text == "all" => self.retain = Some(u32::MAX),
            "retain" => self.retain = Some(text.parse().map_err(|_| expected("a number, or \"all\""))?),
            "retain_age" | "retainAge" => self.retain_age = Some(time()?),
            "retain_size" | "retainSize" => self.retain_size = Some(bytes()?),
            "compress" => self.compress = Some(flag()?),
            "dateFormat" | "date_format" => {
                let is_name = !text.is_empty() && !text.contains(['/', '\0']);
                self.date_format =
                    Some(Some(text.clone()).filter(|_| is_name).ok_or_else(|| expected("a date format"))?);
            }
            "rotateInterval" | "rotate_interval" => {
                let is_time = units::millis(&text).is_some_and(|time| time >= Millis(1_000));
                if !is_off && !is_time {
                    Cron::parse(&text).map_err(|what| expected(&format!("a cron pattern with {what}")))?;
                }
                self.every = Some(if is_off { String::new() } else { text });
            }
            "TZ" | "tz" => self.zone = Some(text),
            // A size is looked at with each write, and there are no modules.
            "workerInterval" | "worker_interval" | "rotateModule" | "rotate_module" => {}
            _ => return Err(format!("{name}: there is no such option of rotation")),
        }
        Ok(())
    }

    /// As it would be declared.
    pub fn written(&self) -> Value {
        if *self == (Rotation { enabled: self.enabled, ..Rotation::default() }) {
            return Value::Bool(self.enabled.unwrap_or(true));
        }
        let mut options = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                options.insert(name.to_string(), value);
            }
        };
        put("enabled", self.enabled.map(Value::from));
        put("max_size", self.max_size.map(Value::from));
        let retain = |count| if count == u32::MAX { Value::from("all") } else { Value::from(count) };
        put("retain", self.retain.map(retain));
        put("retain_age", self.retain_age.map(|age| Value::from(age.0)));
        put("retain_size", self.retain_size.map(Value::from));
        put("compress", self.compress.map(Value::from));
        put("dateFormat", self.date_format.clone().map(Value::from));
        put("rotateInterval", self.every.clone().map(Value::from));
        put("TZ", self.zone.clone().map(Value::from));
        Value::Object(options)
    }

    /// What holds where `self` has the first word and `below` the second; `None`: no rotation.
    pub fn rule(&self, below: &Rotation) -> Option<Rule> {
        if !self.enabled.or(below.enabled).unwrap_or(true) {
            return None;
        }
        let every = self.every.as_deref().or(below.every.as_deref()).unwrap_or(EVERY);
        let every = match (every, units::millis(every)) {
            ("", _) => Every::Never,
            (_, Some(age)) => Every::Age(age),
            (pattern, None) => Every::Pattern(pattern.to_string()),
        };
        let some = |value: u64| Some(value).filter(|value| *value > 0);
        let date_format = self.date_format.as_deref().or(below.date_format.as_deref());
        Some(Rule {
            max_size: some(self.max_size.or(below.max_size).unwrap_or(MAX_SIZE)),
            retain: self.retain.or(below.retain).unwrap_or(RETAIN),
            retain_age: self.retain_age.or(below.retain_age).filter(|age| age.0 > 0),
            retain_size: some(self.retain_size.or(below.retain_size).unwrap_or(0)),
            compress: self.compress.or(below.compress).unwrap_or(false),
            date_format: date_format.unwrap_or(DATE_FORMAT).to_string(),
            every,
            zone: self
                .zone
                .clone()
                .or(below.zone.clone())
                .filter(|zone| !zone.is_empty() && zone != "system"),
        })
    }
}

impl Global {
    /// From `module_conf.json`, as `pmx set pm2-logrotate:max_size 50M` writes it. What cannot be read says nothing,
    /// and is handed back in a sentence.
    pub fn read(conf: &Value) -> (Global, Vec<String>) {
        let (mut global, mut faults) = (Global::default(), Vec::new());
        let options = conf.get(MODULE).and_then(Value::as_object);
        for (name, value) in options.into_iter().flatten() {
            if let Err(fault) = global.set(name, value) {
                faults.push(format!("{MODULE}:{fault}"));
            }
        }
        (global, faults)
    }

    /// Takes in one option.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let amount = || {
            let text = value.as_str().map_or_else(|| value.to_string(), String::from);
            units::memory(&text)
                .ok_or_else(|| format!("{name}: expected an amount such as \"2G\" or \"10%\", got {text:?}"))
        };
        match name {
            "budget" => self.budget = Some(amount()?),
            "keep_free" | "keepFree" => self.keep_free = Some(amount()?),
            name => self.rotation.set(name, value)?,
        }
        Ok(())
    }

    /// What all logs together may have on a disk of this size; `None`: no bound.
    pub fn budget(&self, disk: u64) -> Option<u64> {
        match self.budget {
            Some(amount) => Some(amount.of(disk)).filter(|bytes| *bytes > 0),
            None => Some((disk / 100 * BUDGET.0).min(BUDGET.1)),
        }
    }

    /// What is left to others on a disk of this size.
    pub fn keep_free(&self, disk: u64) -> u64 {
        self.keep_free.map_or((disk / 100 * KEEP_FREE.0).min(KEEP_FREE.1), |amount| amount.of(disk))
    }
}

/// What pm2 users call it.
pub const MODULE: &str = "pm2-logrotate";

/// What a file of this name is called when it is old: `api-out.log` is `api-out__<date>.log`, and `<date>-1` if there is
/// one.
pub fn old_name(name: &str, date: &str, again: u32) -> String {
    let (stem, extension) = split(name);
    let again = if again == 0 { String::new() } else { format!("-{again}") };
    format!("{stem}__{}{again}{extension}", date.replace('/', "-"))
}

/// Whether `candidate` is the name of an old file of this one, compressed or not.
pub fn is_old(name: &str, candidate: &str) -> bool {
    let (stem, extension) = split(name);
    let candidate = candidate.strip_suffix(".gz").unwrap_or(candidate);
    let rest = candidate.strip_prefix(stem).and_then(|rest| rest.strip_prefix("__"));
    rest.and_then(|rest| rest.strip_suffix(extension)).is_some_and(|date| !date.is_empty())
}

/// A name and its extension, with the dot.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pm2_logrotates_eight_options_have_its_defaults_and_are_read_as_it_reads_them() {
        let usual = Rotation::default().rule(&Rotation::default()).unwrap();
        assert_eq!((usual.max_size, usual.retain, usual.compress), (Some(10 << 20), 30, false));
        assert_eq!(usual.date_format, "YYYY-MM-DD_HH-mm-ss");
        assert_eq!((usual.every, usual.zone), (Every::Pattern("0 0 * * *".to_string()), None));
        // As `pmx set` writes them.
        let (global, faults) = Global::read(&json!({"pm2-logrotate": {
            "max_size": "1K", "retain": "all", "compress": "true", "dateFormat": "YYYY", "workerInterval": "30",
            "rotateInterval": "*/5 * * * *", "rotateModule": "true", "TZ": "Europe/Berlin"
        }}));
        assert!(faults.is_empty(), "{faults:?}");
        let rule = Rotation::default().rule(&global.rotation).unwrap();
        assert_eq!((rule.max_size, rule.retain, rule.compress), (Some(1 << 10), u32::MAX, true));
        assert_eq!((rule.date_format.as_str(), rule.zone.as_deref()), ("YYYY", Some("Europe/Berlin")));
        assert_eq!(rule.every, Every::Pattern("*/5 * * * *".to_string()));
        // An app has the first word.
        let own =
            Rotation::read(&json!({"max_size": 5, "rotateInterval": "6h", "retain": 2, "retain_age": "1d"}));
        let own = own.unwrap();
        let rule = own.rule(&global.rotation).unwrap();
        assert_eq!((rule.max_size, rule.retain, rule.compress), (Some(5), 2, true));
        assert_eq!(
            (rule.every, rule.retain_age),
            (Every::Age(Millis(6 * 3_600_000)), Some(Millis(86_400_000)))
        );
        assert_eq!(Rotation::read(&own.written()), Ok(own));
    }

    #[test]
    fn it_can_be_switched_off_as_a_whole_and_in_part() {
        let off = Rotation::read(&json!(false)).unwrap();
        assert_eq!(off.rule(&Rotation::default()), None);
        assert_eq!(Rotation::default().rule(&off), None);
        assert!(Rotation::read(&json!(true)).unwrap().rule(&off).is_some());
        assert_eq!(off.written(), json!(false));
        let never = json!({"max_size": 0, "rotateInterval": "", "retain_size": "0"});
        let rule = Rotation::read(&never).unwrap().rule(&Rotation::default()).unwrap();
        assert_eq!((rule.max_size, rule.every, rule.retain_size), (None, Every::Never, None));
    }

    #[test]
    fn what_cannot_be_meant_says_what_was_expected() {
        for (options, fault) in [
            (
                json!({"max_size": "10X"}),
                "max_size: expected bytes, or an amount such as \"10M\", got \"10X\"",
            ),
            (
                json!({"max_size": "10%"}),
                "max_size: expected bytes, or an amount such as \"10M\", got \"10%\"",
            ),
            (json!({"retain": "many"}), "retain: expected a number, or \"all\", got \"many\""),
            (json!({"compress": "gzip"}), "compress: expected true or false, got \"gzip\""),
            (json!({"dateFormat": "YYYY/MM"}), "dateFormat: expected a date format, got \"YYYY/MM\""),
            (
                json!({"rotateInterval": "0 25 * * *"}),
                "rotateInterval: expected a cron pattern with a hour from 0 to 23, not \"25\", got \"0 25 * * *\"",
            ),
            (
                json!({"retain_age": "old"}),
                "retain_age: expected a length of time such as \"30d\", got \"old\"",
            ),
            (json!({"maxsize": 1}), "maxsize: there is no such option of rotation"),
            (json!({"max_size": [1]}), "max_size: a text, a number, or true or false"),
        ] {
            assert_eq!(Rotation::read(&options), Err(fault.to_string()));
        }
        let (global, faults) =
            Global::read(&json!({"pm2-logrotate": {"retain": "x", "max_size": "1M", "budget": "5%"}}));
        assert_eq!(faults, ["pm2-logrotate:retain: expected a number, or \"all\", got \"x\""]);
        assert_eq!((global.rotation.max_size, global.rotation.retain), (Some(1 << 20), None));
        assert_eq!(global.budget(1_000), Some(50));
        assert_eq!(Global::default().budget(1 << 50), Some(4 << 30));
        assert_eq!(Global::default().keep_free(1 << 30), (1 << 30) / 100 * 2);
        assert_eq!(Global::read(&json!({"pm2-logrotate": 3})), (Global::default(), vec![]));
    }

    #[test]
    fn an_old_file_is_known_by_its_name() {
        for (name, old) in [
            ("api-out-0.log", "api-out-0__D.log"),
            ("out", "out__D"),
            (".log", ".log__D"),
            ("a.b.c", "a.b__D.c"),
        ] {
            assert_eq!(old_name(name, "D", 0), old);
            assert!(is_old(name, old) && is_old(name, &format!("{old}.gz")), "{old}");
            assert!(is_old(name, &old_name(name, "D/E", 3)));
        }
        assert_eq!(old_name("x.log", "D", 2), "x__D-2.log");
        for candidate in
            ["api-out-0.log", "api-out-0__.log", "api-out-0.log.gz", "api-out-01__D.log", "api-out-0__D.txt"]
        {
            assert!(!is_old("api-out-0.log", candidate), "{candidate}");
        }
    }
}
