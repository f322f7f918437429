//! Declaration files: what a JSON document says about apps, checked field by field. Pure: nothing is
//! looked up on disk; scripts, interpreters and users are resolved by the client afterwards.

mod fields;

use serde_json::{Map, Value};

use super::{Changes, Env, Text};
use fields::{Field, Said};

/// One app as declared, on a command line or in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// A path, a command, or a line for a shell.
    pub script: Text,
    /// As given; `none` means that the script is executed itself.
    pub interpreter: Option<String>,
    /// A name or number.
    pub user: Option<String>,
    /// A name or number.
    pub group: Option<String>,
    /// Variables for this app.
    pub env: Env,
    /// [`super::App::critical`]
    pub critical: bool,
    /// Everything else that was said.
    pub changes: Changes,
}

/// All apps of a file, and what its author should know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declarations {
    /// The apps in the file's order.
    pub apps: Vec<Declared>,
    /// One sentence each.
    pub warnings: Vec<String>,
}

/// Reads the text of `file`. The error is one sentence that says where.
pub fn read(file: &str, text: &str) -> Result<Declarations, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
        format!("{file}:{}:{}: {what}", error.line(), error.column())
    })?;
    let mut found = Declarations::default();
    for (index, app) in apps(file, &value)?.into_iter().enumerate() {
        let Value::Object(map) = app else {
            return Err(format!("{file}: app {}: expected an object, got {}", index + 1, kind(app)));
        };
        found.apps.push(declared(file, index, map, &mut found.warnings)?);
    }
    if found.apps.is_empty() {
        return Err(format!("{file}: it declares no apps"));
    }
    Ok(found)
}

/// The app objects of a document: itself, its elements, or those under `apps` (or `pm2`).
fn apps<'a>(file: &str, value: &'a Value) -> Result<Vec<&'a Value>, String> {
    let map = match value {
        Value::Array(apps) => return Ok(apps.iter().collect()),
        Value::Object(map) => map,
        other => return Err(format!("{file}: expected an object or an array of apps, got {}", kind(other))),
    };
    if map.get("static").is_some_and(is_effective) {
        return Err(format!("{file}: static is not built yet"));
    }
    match map.get("apps").or_else(|| map.get("pm2")) {
        None => Ok(vec![value]),
        Some(Value::Array(apps)) => Ok(apps.iter().collect()),
        Some(app @ Value::Object(_)) => Ok(vec![app]),
        Some(other) => Err(format!("{file}: apps: expected an array of apps, got {}", kind(other))),
    }
}

fn declared(
    file: &str,
    index: usize,
    map: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Declared, String> {
    let app = match map.get("name") {
        Some(Value::String(name)) => format!("{file}: app {name:?}"),
        _ => format!("{file}: app {}", index + 1),
    };
    let mut declared = Declared::default();
    let mut said = Said::default();
    let mut unknown = Env::default();
    for (key, value) in map {
        let Some(field) = Field::named(key) else {
            let value = variable(value).ok_or_else(|| {
                format!("{app}: {key}: unknown field, and not a value that could be an environment variable")
            })?;
            check_variable(&app, key, &value)?;
            unknown.set(key, value);
            continue;
        };
        // A null says nothing, as in pm2.
        if value.is_null() {
            continue;
        }
        if let Field::Unbuilt(default) = field {
            if default.differs_from(value) {
                return Err(format!("{app}: {key} is not built yet"));
            }
            continue;
        }
        field
            .set(value, &mut declared, &mut said)
            .map_err(|expected| format!("{app}: {key}: expected {expected}, got {}", shown(value)))?;
    }
    if declared.script.bytes().is_empty() {
        return Err(format!("{app}: script is missing"));
    }
    for (name, value) in &said.env {
        check_variable(&app, name, value)?;
    }
    if !unknown.0.is_empty() {
        let names: Vec<_> = unknown.0.keys().map(|name| name.lossy().into_owned()).collect();
        let are =
            if names.len() == 1 { "is no option: it becomes an" } else { "are no options: they become" };
        let variable = if names.len() == 1 { "environment variable" } else { "environment variables" };
        warnings.push(format!("{app}: {} {are} {variable}", names.join(", ")));
    }
    // What stands under env was meant as a variable and wins over a stray key and over port.
    declared.env = unknown;
    if let Some(port) = said.port {
        declared.env.set("PORT", port.as_str());
        declared.env.set("port", port);
    }
    for (name, value) in said.env {
        declared.env.set(name, value);
    }
    declared.changes.mode = said.mode;
    Ok(declared)
}

fn check_variable(app: &str, name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains('=') || name.contains('\0') {
        return Err(format!("{app}: {name:?} cannot be the name of an environment variable"));
    }
    if value.contains('\0') {
        return Err(format!("{app}: {name}: an environment variable cannot hold a NUL character"));
    }
    Ok(())
}

/// A scalar as the text of an environment variable.
fn variable(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a value asks for anything: `false`, `0`, `"0"` and what is empty do not.
fn is_effective(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.trim(), "" | "0" | "false"),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value for an error message: short, and never a whole environment.
fn shown(value: &Value) -> String {
    /// Longer strings are named by their kind.
    const SHOWN: usize = 40;
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).to_string(),
        scalar => match scalar.to_string() {
            text if text.chars().count() <= SHOWN => text,
            _ => kind(value).to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
