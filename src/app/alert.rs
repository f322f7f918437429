//! What is run or told when something happens to an app: `on`, of an app or of all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::nearest::nearest;
use super::units;
use crate::time::Millis;

/// How long an alert may take, if nothing else was declared.
pub const TIMEOUT: Millis = Millis(10_000);
/// The longest that can be declared: it holds up others.
const LONGEST: Millis = Millis(600_000);
/// From one alert of an app about an event to the next, if nothing else was declared.
pub const MIN_INTERVAL: Millis = Millis(10_000);
/// The most alerts of one event.
const MOST: usize = 8;
/// The name that settings for all apps have among those of modules.
pub const MODULE: &str = "on";
/// In the place of what is nobody's business.
const HIDDEN: &str = "***";

/// What happens to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A child ended, and nobody had asked for that.
    Crash,
    /// It was given up, or cannot be started.
    Errored,
    /// A child took the place of another, and nobody had asked for that.
    Restart,
    /// A reload failed; the old child serves on.
    ReloadFailed,
    /// Its health checks fail.
    Unhealthy,
    /// It was killed for want of memory, or replaced for using too much.
    Oom,
    /// It uses more and more memory.
    Leak,
    /// Its log files find no room.
    Disk,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Occasion; 8] = [
        Occasion::Crash,
        Occasion::Errored,
        Occasion::Restart,
        Occasion::ReloadFailed,
        Occasion::Unhealthy,
        Occasion::Oom,
        Occasion::Leak,
        Occasion::Disk,
    ];

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Occasion::Crash => "crash",
            Occasion::Errored => "errored",
            Occasion::Restart => "restart",
            Occasion::ReloadFailed => "reload_failed",
            Occasion::Unhealthy => "unhealthy",
            Occasion::Oom => "oom",
            Occasion::Leak => "leak",
            Occasion::Disk => "disk",
        }
    }

    /// By its name, in either spelling. The error names what was meant, or all there is.
    pub fn named(name: &str) -> Result<Occasion, String> {
        let name = if name == "reloadFailed" { "reload_failed" } else { name };
        if let Some(found) = Occasion::ALL.into_iter().find(|occasion| occasion.word() == name) {
            return Ok(found);
        }
        let words = Occasion::ALL.map(Occasion::word);
        Err(match nearest(name, words.into_iter()) {
            Some(meant) => format!("{name}: no such event: did you mean {meant}?"),
            None => format!("{name}: no such event (there are {})", words.join(", ")),
        })
    }
}

/// How somebody is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A line for a shell.
    Line(String),
    /// A program and its arguments.
    Words(Vec<String>),
    /// A request of HTTP.
    Url {
        /// To where.
        url: String,
        /// What it says beside its content.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
}

/// What it says may be a secret.
impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// How somebody is told.
    pub way: Way,
    /// How long that may take.
    pub timeout: Millis,
    /// What comes sooner after the last one is left out, and counted.
    pub min_interval: Millis,
}

/// The alerts, by event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Alerts(pub BTreeMap<Occasion, Vec<Alert>>);

/// What a helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// `crash of api(0)`
    pub about: String,
    /// How.
    pub alert: Alert,
    /// What happened.
    pub event: Value,
}

impl Alerts {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// Those of an event.
    pub fn of(&self, occasion: Occasion) -> &[Alert] {
        self.0.get(&occasion).map_or(&[], Vec::as_slice)
    }

    /// Reads an object of events. The error is what is wrong with it, or empty.
    pub fn read(value: &Value) -> Result<Alerts, String> {
        let Value::Object(events) = value else { return Err(String::new()) };
        let mut found = Alerts::default();
        for (name, value) in events {
            let occasion = Occasion::named(name)?;
            let alerts = several(value).map_err(|fault| format!("{name}: {fault}"))?;
            if !alerts.is_empty() {
                found.0.insert(occasion, alerts);
            }
        }
        Ok(found)
    }

    /// As it would be declared.
    pub fn written(&self) -> Value {
        let written = |alerts: &[Alert]| match alerts {
            [one] => one.written(),
            all => Value::Array(all.iter().map(Alert::written).collect()),
        };
        let events = self.0.iter().map(|(occasion, all)| (occasion.word().to_string(), written(all)));
        Value::Object(events.collect())
    }

    /// Without what may be a secret: headers, and of addresses all but the host.
    pub fn hidden(&self) -> Alerts {
        let hide = |alert: &Alert| {
            let way = match &alert.way {
                Way::Url { url, headers } => Way::Url {
                    url: shown(url),
                    headers: headers.keys().map(|name| (name.clone(), HIDDEN.to_string())).collect(),
                },
                way => way.clone(),
            };
            Alert { way, ..alert.clone() }
        };
        let hidden = |(occasion, all): (&Occasion, &Vec<Alert>)| (*occasion, all.iter().map(hide).collect());
        Alerts(self.0.iter().map(hidden).collect())
    }

    /// Those of all apps, as the settings of the home have them. What cannot be read is none; and why not.
    pub fn of_settings(settings: &Value) -> (Alerts, Option<String>) {
        match settings.get(MODULE).map(Alerts::read) {
            None => (Alerts::default(), None),
            Some(Ok(alerts)) => (alerts, None),
            Some(Err(fault)) => (Alerts::default(), Some(format!("{MODULE}: {fault}"))),
        }
    }

    /// Whether one of them needs TLS.
    pub fn need_tls(&self) -> bool {
        let is_https = |alert: &Alert| matches!(&alert.way, Way::Url { url, .. } if is_https(url));
        self.0.values().flatten().any(is_https)
    }
}

impl Way {
    /// For people, without what may be a secret.
    pub fn text(&self) -> String {
        match self {
            Way::Line(line) => line.clone(),
            Way::Words(words) => {
                words.iter().map(|word| super::words::quote(word)).collect::<Vec<_>>().join(" ")
            }
            Way::Url { url, .. } => format!("POST {}", shown(url)),
        }
    }
}

impl Alert {
    fn new(way: Way) -> Alert {
        Alert { way, timeout: TIMEOUT, min_interval: MIN_INTERVAL }
    }

    fn written(&self) -> Value {
        let mut object = match &self.way {
            Way::Line(line) => json!({"command": line}),
            Way::Words(words) => json!({"command": words}),
            Way::Url { url, headers } => json!({"url": url, "headers": headers}),
        };
        object["timeout"] = self.timeout.0.into();
        object["min_interval"] = self.min_interval.0.into();
        object
    }
}

/// Strings alone are the words of one command; what else is in an array is an alert each.
fn several(value: &Value) -> Result<Vec<Alert>, String> {
    match value {
        Value::Null | Value::Bool(false) => Ok(Vec::new()),
        Value::Array(all) if all.iter().any(|one| !one.is_string()) => {
            if all.len() > MOST {
                return Err(format!("at most {MOST} alerts"));
            }
            all.iter().map(one).collect()
        }
        Value::Array(all) if all.is_empty() => Ok(Vec::new()),
        value => Ok(vec![one(value)?]),
    }
}

fn one(value: &Value) -> Result<Alert, String> {
    let Value::Object(parts) = value else { return Ok(Alert::new(way(value)?)) };
    let mut alert = match (parts.get("command"), parts.get("url")) {
        (Some(command), None) => Alert::new(command_of(command)?),
        (None, Some(url)) => Alert::new(address(url, parts.get("headers"))?),
        _ => return Err("it has either command or url".to_string()),
    };
    for (name, value) in parts {
        let length = || {
            length(value).ok_or_else(|| format!("{name}: milliseconds, or a length of time such as \"10s\""))
        };
        match name.as_str() {
            "command" | "url" => {}
            "headers" if matches!(alert.way, Way::Url { .. }) => {}
            "timeout" => alert.timeout = length()?,
            "min_interval" | "minInterval" => alert.min_interval = length()?,
            _ => return Err(format!("command or url, headers, timeout, min_interval, not {name:?}")),
        }
    }
    if alert.timeout == Millis(0) || alert.timeout > LONGEST {
        return Err(format!("timeout: 1 ms to {} minutes", LONGEST.0 / 60_000));
    }
    Ok(alert)
}

/// What is written as a mere string or array.
fn way(value: &Value) -> Result<Way, String> {
    match value.as_str().map(str::trim) {
        Some(text) if text.starts_with("http://") || text.starts_with("https://") => {
            address(&Value::from(text), None)
        }
        _ => command_of(value),
    }
}

fn command_of(value: &Value) -> Result<Way, String> {
    let expected =
        || "a command, an array of words, an object with command or url, or an array of these".to_string();
    let says = |text: &str| !text.trim().is_empty() && !text.contains('\0');
    match value {
        Value::String(line) if says(line) => Ok(Way::Line(line.clone())),
        Value::Array(words) => {
            let words: Option<Vec<String>> = words
                .iter()
                .map(|word| word.as_str().filter(|word| !word.contains('\0')).map(String::from))
                .collect();
            words
                .filter(|words| words.first().is_some_and(|first| says(first)))
                .map(Way::Words)
                .ok_or_else(expected)
        }
        _ => Err(expected()),
    }
}

/// No error repeats the address: it may be a secret.
fn address(url: &Value, headers: Option<&Value>) -> Result<Way, String> {
    let url = url.as_str().unwrap_or_default().trim();
    Url::parse(url)?;
    let mut found = BTreeMap::new();
    let none = Map::new();
    let headers = match headers {
        None | Some(Value::Null) => &none,
        Some(Value::Object(headers)) => headers,
        Some(_) => return Err("headers: an object of texts".to_string()),
    };
    for (name, value) in headers {
        let value = value.as_str().ok_or_else(|| format!("headers: {name}: a text"))?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(format!("headers: {name:?} cannot be the name of one"));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("headers: {name}: it holds a control character"));
        }
        if ["content-length", "host", "connection", "transfer-encoding"]
            .contains(&name.to_lowercase().as_str())
        {
            return Err(format!("headers: {name} is not yours to set"));
        }
        found.insert(name.clone(), value.to_string());
    }
    Ok(Way::Url { url: url.to_string(), headers: found })
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// Of an address what anybody may know.
fn shown(url: &str) -> String {
    let Ok(found) = Url::parse(url) else { return HIDDEN.to_string() };
    let scheme = if found.is_https { "https" } else { "http" };
    let rest = if found.path == "/" { "" } else { HIDDEN };
    format!("{scheme}://{}/{rest}", found.authority())
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Over TLS.
    pub is_https: bool,
    /// `user:password`, as it stands there.
    pub user: Option<String>,
    /// A name or an address; one of IPv6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is asked for, with its query.
    pub path: String,
}

impl Url {
    /// Reads it. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let fault = || "url: an address such as \"https://example.org/path\"".to_string();
        let (is_https, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(fault()),
        };
        if !text.chars().all(|c| c.is_ascii_graphic()) || text.contains(['"', '\\', '<', '>']) {
            return Err("url: it holds a character that must be written as %xx".to_string());
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_string()), place),
            None => (None, authority),
        };
        let usual = if is_https { 443 } else { 80 };
        let (host, port) = match place.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']').ok_or_else(fault)?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or_else(fault)?)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let port = if port.is_empty() { usual } else { port.parse().map_err(|_| fault())? };
        if host.is_empty() || port == 0 {
            return Err(fault());
        }
        Ok(Url { is_https, user, host: host.to_string(), port, path })
    }

    /// The host, and the port if it is not the usual one.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// The variables that a command has beside those of its app. None of them holds a NUL.
pub fn variables(event: &Value) -> impl Iterator<Item = (&'static str, String)> + '_ {
    let names = [
        ("PMX_EVENT", "event"),
        ("PMX_APP", "app"),
        ("PMX_ID", "id"),
        ("PMX_PID", "pid"),
        ("PMX_REASON", "reason"),
    ];
    names.into_iter().map(|(name, key)| {
        let text = match &event[key] {
            Value::String(text) => text.replace('\0', ""),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        (name, text)
    })
}

/// A length of time, as a number or a text.
fn length(value: &Value) -> Option<Millis> {
    match value {
        Value::Number(number) => units::millis(&number.to_string()),
        Value::String(text) => units::millis(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Alerts, String> {
        Alerts::read(&value)
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        let alerts = read(json!({
            "crash": "mail -s crash root",
            "reloadFailed": ["notify", "a b"],
            "oom": {"url": "https://u:p@example.org:8443/T/x?y", "headers": {"X-Key": "k"}, "timeout": "2s"},
            "disk": [{"command": "df", "min_interval": 0}, "http://127.0.0.1:9/", ["a", "b"]],
            "leak": false,
        }))
        .unwrap();
        assert_eq!(alerts.of(Occasion::Crash)[0].way, Way::Line("mail -s crash root".into()));
        assert_eq!(alerts.of(Occasion::ReloadFailed)[0].way, Way::Words(vec!["notify".into(), "a b".into()]));
        assert_eq!(alerts.of(Occasion::Oom)[0].timeout, Millis(2_000));
        let disk = alerts.of(Occasion::Disk);
        assert_eq!((disk.len(), disk[0].min_interval, disk[1].min_interval), (3, Millis(0), MIN_INTERVAL));
        assert!(matches!(disk[1].way, Way::Url { .. }) && matches!(disk[2].way, Way::Words(_)));
        assert!(alerts.of(Occasion::Leak).is_empty() && alerts.need_tls());
        assert_eq!(read(alerts.written()).as_ref(), Ok(&alerts));
        let stored = serde_json::to_value(&alerts).unwrap();
        assert_eq!(serde_json::from_value::<Alerts>(stored).unwrap(), alerts);
    }

    #[test]
    fn nonsense_is_refused_without_a_secret_in_the_words() {
        for (value, reason) in [
            (json!("crash"), ""),
            (json!({"crsh": "x"}), "crsh: no such event: did you mean crash?"),
            (json!({"boredom": "x"}), "there are crash, errored"),
            (json!({"crash": ""}), "crash: a command"),
            (json!({"crash": 3}), "crash: a command"),
            (json!({"crash": ["", "x"]}), "crash: a command"),
            (json!({"crash": {}}), "either command or url"),
            (json!({"crash": {"command": "x", "url": "http://x"}}), "either command or url"),
            (json!({"crash": {"command": "x", "headers": {}}}), "not \"headers\""),
            (json!({"crash": {"command": "x", "interval": 1}}), "min_interval, not \"interval\""),
            (json!({"crash": {"command": "x", "timeout": 0}}), "timeout: 1 ms"),
            (json!({"crash": {"command": "x", "timeout": "soon"}}), "timeout: milliseconds"),
            (json!({"crash": {"url": "ftp://secret"}}), "url: an address"),
            (json!({"crash": {"url": "http://"}}), "url: an address"),
            (json!({"crash": {"url": "http://a:b/secret"}}), "url: an address"),
            (json!({"crash": {"url": "http://a/ secret"}}), "%xx"),
            (json!({"crash": {"url": "http://a", "headers": {"a b": "secret"}}}), "cannot be the name"),
            (json!({"crash": {"url": "http://a", "headers": {"a": "secret\r\nB: c"}}}), "control character"),
            (json!({"crash": {"url": "http://a", "headers": {"Host": "secret"}}}), "not yours"),
            (json!({"crash": vec![json!({"command": "x"}); 9]}), "at most 8"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(reason) && !error.contains("secret"), "{value}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_no_secret() {
        let way = |url: &str| json!({"url": url, "headers": {"Authorization": "secret"}});
        for (url, expected) in [
            ("https://u:secret@example.org/secret?secret", "https://example.org/***"),
            ("http://example.org:81?secret", "http://example.org:81/***"),
            ("http://[::1]:81/", "http://[::1]:81/"),
            ("http://example.org", "http://example.org/"),
        ] {
            let alerts = read(json!({"crash": way(url)})).unwrap();
            let hidden = serde_json::to_string(&alerts.hidden()).unwrap();
            assert!(!hidden.contains("secret") && hidden.contains(expected), "{hidden}");
            assert!(hidden.contains("Authorization"));
            assert!(!format!("{alerts:?}").contains("secret"));
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let parts = |text| Url::parse(text).map(|url| (url.is_https, url.user, url.host, url.port, url.path));
        assert_eq!(parts("http://a"), Ok((false, None, "a".into(), 80, "/".into())));
        assert_eq!(
            parts("https://u:p@a.b:1/c?d#e"),
            Ok((true, Some("u:p".into()), "a.b".into(), 1, "/c?d".into()))
        );
        assert_eq!(parts("https://[::1]?q"), Ok((true, None, "::1".into(), 443, "/?q".into())));
        for fault in ["", "a", "http://:80", "http://[::1", "http://[::1]x", "http://a:0", "http://a:99999"] {
            assert!(Url::parse(fault).is_err(), "{fault}");
        }
    }
}
