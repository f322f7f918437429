//! `get`, `set`, `multiset`, `unset`, `conf`: pm2's configuration of modules, words under names, in a file of the
//! home that nobody else may read. Changing it restarts nothing.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Session;
use super::screen::Fail;
use super::store;
use crate::app::rotation::{self, Global};
use crate::app::words::words;
use crate::app::{ALERTS, Alerts, App};
use crate::sys::atomic;

/// How deep names go.
const DEPTH: usize = 8;

/// pm2's name for it.
fn path(session: &Session<'_, '_>) -> PathBuf {
    session.home.path.join("module_conf.json")
}

/// `pmx get [key]`.
pub fn get(session: &mut Session<'_, '_>, key: Option<&String>) -> Result<(), Fail> {
    let all = Value::Object(read(session, "get")?);
    let Some(key) = key else { return show(session, &all) };
    let names = parts("get", key)?;
    let found = names.iter().try_fold(&all, |value, name| value.get(name));
    show(session, found.ok_or_else(|| format!("get {key}: it is not set"))?)
}

/// `pmx conf [key] [value]`.
pub fn conf(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    match operands {
        [key, value] => set(session, "conf", &[(key.clone(), value.clone())]),
        _ => get(session, operands.first()),
    }
}

/// `pmx multiset "key value key value"`.
pub fn multiset(session: &mut Session<'_, '_>, text: &str) -> Result<(), Fail> {
    let words = words(text).map_err(|error| format!("multiset: {error}"))?;
    if words.len() % 2 != 0 {
        return Err(Fail::Sentence(format!("multiset: {:?} has no value", words[words.len() - 1])));
    }
    let pairs: Vec<_> = words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    set(session, "multiset", &pairs)
}

/// Sets all of these, or none.
pub fn set(session: &mut Session<'_, '_>, verb: &str, pairs: &[(String, String)]) -> Result<(), Fail> {
    change(session, verb, |conf| {
        for (key, value) in pairs {
            let names = parts(verb, key)?;
            if let [module, option] = &names[..]
                && module == rotation::MODULE
            {
                let checked = Global::default().set(option, &Value::String(value.clone()));
                checked.map_err(|fault| format!("{verb} {module}:{fault}"))?;
            }
            if let [module, event] = &names[..]
                && module == ALERTS
            {
                let checked = Alerts::read(&json!({event: value}));
                checked.map_err(|fault| format!("{verb} {module}:{fault}"))?;
            }
            if names == ["history"] && !["on", "off"].contains(&value.as_str()) {
                return Err(format!("{verb} history: expected on or off, got {value:?}"));
            }
            let (last, before) = names.split_last().ok_or("a key is empty")?;
            let mut inner = &mut *conf;
            for name in before {
                let next = inner.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                inner = next.as_object_mut().ok_or_else(|| format!("{verb} {key}: {name} is a value"))?;
            }
            if inner.get(last).is_some_and(Value::is_object) {
                return Err(format!("{verb} {key}: it holds other keys (pmx unset {key} removes them)"));
            }
            inner.insert(last.clone(), Value::String(value.clone()));
        }
        Ok(())
    })?;
    for (key, value) in pairs {
        session.screen.line(&format!("{verb}: {key} is {value} now"))?;
    }
    Ok(())
}

/// `pmx unset key`, `pmx unset all`.
pub fn unset(session: &mut Session<'_, '_>, key: &str) -> Result<(), Fail> {
    change(session, "unset", |conf| {
        if key == "all" {
            conf.clear();
            return Ok(());
        }
        let names = parts("unset", key)?;
        match remove(conf, &names) {
            true => Ok(()),
            false => Err(format!("unset {key}: it is not set")),
        }
    })?;
    session.screen.line(&format!("unset: {key} is not set any more"))
}

/// What has become empty by it goes, too.
fn remove(conf: &mut Map<String, Value>, names: &[String]) -> bool {
    let Some((first, rest)) = names.split_first() else { return false };
    if rest.is_empty() {
        return conf.remove(first).is_some();
    }
    let Some(Value::Object(inner)) = conf.get_mut(first) else { return false };
    let removed = remove(inner, rest);
    if inner.is_empty() {
        conf.remove(first);
    }
    removed
}

/// `pm2-logrotate:max_size`: by colons if there is one, else by dots.
fn parts(verb: &str, key: &str) -> Result<Vec<String>, String> {
    let separator = if key.contains(':') { ':' } else { '.' };
    let names: Vec<String> = key.split(separator).map(String::from).collect();
    if names.len() > DEPTH || names.iter().any(String::is_empty) {
        return Err(format!("{verb}: expected a key such as module:key, got {key:?}"));
    }
    Ok(names)
}

fn read(session: &Session<'_, '_>, verb: &str) -> Result<Map<String, Value>, String> {
    let path = path(session);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        read => read.map_err(|e| format!("{verb}: read {}: {}", path.display(), crate::sys::reason(&e)))?,
    };
    serde_json::from_slice(&text).map_err(|error| format!("{verb}: read {}: {error}", path.display()))
}

/// All that is set.
pub fn settings(session: &Session<'_, '_>, verb: &str) -> Result<Value, String> {
    read(session, verb).map(Value::Object)
}

/// What is set under an app's name is in its environment, as with pm2: each value under its key, and all of it, as
/// JSON, under the app's name.
pub fn give(session: &Session<'_, '_>, app: &mut App) -> Result<(), String> {
    let name = app.name.clone();
    let Some(Value::Object(values)) = read(session, "start")?.remove(&name) else { return Ok(()) };
    for (key, value) in &values {
        match value {
            Value::Object(_) | Value::Array(_) => {}
            Value::String(text) => app.env.set(key.as_str(), text.as_str()),
            other => app.env.set(key.as_str(), other.to_string()),
        }
    }
    app.env.set(name.as_str(), Value::Object(values).to_string());
    Ok(())
}

/// One change at a time, whole or not at all.
fn change(
    session: &mut Session<'_, '_>,
    verb: &str,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), String>,
) -> Result<(), Fail> {
    session.home.prepare()?;
    let _lock = store::lock(&session.home).map_err(|error| format!("{verb}: {error}"))?;
    let mut conf = read(session, verb)?;
    change(&mut conf)?;
    let text = serde_json::to_vec_pretty(&conf).map_err(|error| format!("{verb}: {error}"))?;
    atomic::replace(&path(session), &text).map_err(|error| format!("{verb}: {error}"))?;
    Ok(())
}

/// A value alone, or a line for each.
fn show(session: &mut Session<'_, '_>, value: &Value) -> Result<(), Fail> {
    if session.options.json {
        return session.screen.json(value);
    }
    let mut lines = Vec::new();
    flatten(value, &mut String::new(), &mut lines);
    session.screen.data(lines.concat().as_bytes())
}

fn flatten(value: &Value, key: &mut String, lines: &mut Vec<String>) {
    let Value::Object(fields) = value else {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        let key = if key.is_empty() { String::new() } else { format!("{key} ") };
        return lines.push(format!("{key}{text}\n"));
    };
    for (name, inner) in fields {
        let length = key.len();
        if length > 0 {
            key.push(':');
        }
        key.push_str(name);
        flatten(inner, key, lines);
        key.truncate(length);
    }
}
