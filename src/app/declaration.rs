//! Declaration files: what a document says about apps, checked field by field. Pure: nothing is
//! looked up on disk; scripts, interpreters and users are resolved by the client afterwards.

mod deploy;
mod document;
pub mod fields;
pub mod filter;
mod health;
mod kind;
mod logs;
mod sample;
mod schema;
pub mod site;
mod triggers;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Changes, Env, Mode, NAMESPACE, Text, interpreter};
pub use deploy::{Deployment, Hooks, deployment, environments};
pub use document::{Document, Fault};
use fields::Field;
use kind::Kind;
pub use sample::{Form, sample};
pub use schema::schema;
#[cfg(test)]
pub use schema::tests::accepts;

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
    /// Files of variables, which are below all of these.
    pub env_files: Vec<Text>,
    /// What `--env` may lay over that, by the name of the environment.
    pub overlays: BTreeMap<String, Env>,
    /// Sets the variables `PORT` and `port`.
    pub port: Option<u16>,
    /// Fork mode, whatever else was said.
    pub fork: Option<bool>,
    /// Goes before its name.
    pub name_prefix: Option<String>,
    /// `--env` makes its name longer.
    pub append_env_to_name: Option<bool>,
    /// [`super::App::critical`]
    pub critical: Option<bool>,
    /// Everything else that was said.
    pub changes: Changes,
    /// The line of its file on which it stands, if that is known.
    pub line: Option<usize>,
}

impl Declared {
    /// What it will be called.
    pub fn name(&self) -> String {
        let script = self.script.lossy();
        let by_script = || match script.contains(char::is_whitespace) {
            true => interpreter::line_name(&script),
            false => interpreter::default_name(&script),
        };
        self.changes.name.clone().unwrap_or_else(by_script)
    }

    /// Where it stands in `file`.
    pub fn place(&self, file: &str) -> String {
        place(file, self.line)
    }
}

/// `file:7`, or `file` where no line is known.
fn place(file: &str, line: Option<usize>) -> String {
    line.map_or(file.to_string(), |line| format!("{file}:{line}"))
}

/// All apps of a file, and what its author should know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declarations {
    /// The apps in the file's order.
    pub apps: Vec<Declared>,
    /// Variables that `deploy` has for an environment: those below all others.
    pub deploy: BTreeMap<String, Env>,
    /// One sentence each.
    pub warnings: Vec<String>,
}

impl Declarations {
    /// Lays the variables of the environment `name` over those of each app, as `--env` asks for.
    pub fn choose_env(&mut self, file: &str, name: &str) {
        let below = self.deploy.get(name).cloned().unwrap_or_default();
        for app in &mut self.apps {
            let above = app.overlays.get(name);
            if above.is_none() && below.0.is_empty() {
                let place = app.place(file);
                self.warnings.push(format!("{place}: app {:?}: it has no env_{name}", app.name()));
            }
            let mut env = below.clone();
            env.0.append(&mut app.env.0);
            env.0.extend(above.cloned().unwrap_or_default().0);
            app.env = env;
            if app.append_env_to_name == Some(true) {
                app.changes.name = Some(format!("{}-{name}", app.name()));
            }
        }
    }
}

/// Whether a key names a field.
pub fn is_field(key: &str) -> bool {
    Field::named(key).is_some()
}

/// An app as a file declares it.
pub fn written(declared: &Declared) -> Value {
    let mut declared = declared.clone();
    let said = |field: &Field| Some((field.names[0].to_string(), field.kind.get(&mut declared)?));
    Value::Object(fields::FIELDS.iter().filter_map(said).collect())
}

/// Reads what `file` says. The error is one sentence that says where.
pub fn read(file: &str, document: &Document) -> Result<Declarations, String> {
    let mut found =
        Declarations { deploy: deploy::variables_of_all(file, document)?, ..Declarations::default() };
    for (index, (path, app)) in apps(file, document)?.into_iter().enumerate() {
        let part = Part { file, document, path, index };
        found.apps.push(declared(&part, app, &mut found.warnings)?);
    }
    found.apps.append(&mut site::read(file, document, &mut found.warnings)?);
    if found.apps.is_empty() {
        return Err(format!("{file}: it declares no apps"));
    }
    one_of_a_name(file, &found.apps)?;
    Ok(found)
}

/// Two apps of one name could not be told apart afterwards.
fn one_of_a_name(file: &str, apps: &[Declared]) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for (index, app) in apps.iter().enumerate() {
        let namespace = app.changes.namespace.clone().unwrap_or_else(|| NAMESPACE.to_string());
        if let Some(first) = known.insert((namespace, app.name()), index) {
            let where_first = apps[first].line.map_or(String::new(), |line| format!(" on line {line}"));
            return Err(format!(
                "{}: app {}: the name {:?} is that of app {}{where_first} already",
                app.place(file),
                index + 1,
                app.name(),
                first + 1
            ));
        }
    }
    Ok(())
}

/// One app's part of a document.
struct Part<'a> {
    file: &'a str,
    document: &'a Document,
    path: String,
    /// Its place among the apps, from 0.
    index: usize,
}

impl Part<'_> {
    fn line(&self, key: &str) -> Option<usize> {
        self.document.line(&format!("{}/{key}", self.path))
    }
}

/// The app objects of a document and their paths, without what is under `static`: itself, its elements, or those under `apps` (or `pm2`).
fn apps<'a>(file: &str, document: &'a Document) -> Result<Vec<(String, &'a Value)>, String> {
    let elements = |path: &str, apps: &'a [Value]| {
        apps.iter().enumerate().map(|(index, app)| (format!("{path}/{index}"), app)).collect()
    };
    let map = match &document.value {
        Value::Array(apps) => return Ok(elements("", apps)),
        Value::Object(map) => map,
        other => return Err(format!("{file}: expected an object or an array of apps, got {}", kind(other))),
    };
    let Some(key) = ["apps", "pm2"].into_iter().find(|key| map.contains_key(*key)) else {
        if map.contains_key("static") && !map.contains_key("script") {
            return Ok(Vec::new());
        }
        return Ok(vec![(String::new(), &document.value)]);
    };
    let path = format!("/{key}");
    match &map[key] {
        Value::Array(apps) => Ok(elements(&path, apps)),
        app @ Value::Object(_) => Ok(vec![(path, app)]),
        other => {
            let place = place(file, document.line(&path));
            Err(format!("{place}: {key}: expected an array of apps, got {}", kind(other)))
        }
    }
}

fn declared(part: &Part, app: &Value, warnings: &mut Vec<String>) -> Result<Declared, String> {
    let line = part.document.line(&part.path);
    let called = match app.get("name") {
        Some(Value::String(name)) => format!("app {name:?}"),
        _ => format!("app {}", part.index + 1),
    };
    let Value::Object(map) = app else {
        let place = place(part.file, line);
        return Err(format!("{place}: {called}: expected an object, got {}", kind(app)));
    };
    let fault =
        |key: &str, what: String| format!("{}: {called}: {key}: {what}", place(part.file, part.line(key)));
    let mut declared = Declared { line, ..Declared::default() };
    let (mut unknown, mut foreign) = (Env::default(), Vec::new());
    for (key, value) in map {
        // A null says nothing, as in pm2.
        if value.is_null() {
            continue;
        }
        if let Some(name) = fields::overlay(key) {
            let env = variables(value).map_err(|detail| fault(key, detail))?;
            declared.overlays.insert(name.to_string(), env);
            continue;
        }
        let Some(field) = Field::named(key) else {
            let value = stray(key, value).map_err(|detail| fault(key, detail))?;
            unknown.set(key, value);
            continue;
        };
        field.kind.set(value, &mut declared).map_err(|detail| fault(key, detail))?;
        if matches!(field.kind, Kind::Foreign) && is_effective(value) {
            foreign.push(key.as_str());
        }
    }
    if declared.script.bytes().is_empty() {
        return Err(format!("{}: {called}: script is missing", place(part.file, line)));
    }
    if let Some(first) = foreign.first() {
        let are = if foreign.len() == 1 { "is of pm2 and has" } else { "are of pm2 and have" };
        let place = place(part.file, part.line(first));
        warnings.push(format!("{place}: {called}: {} {are} no effect here", foreign.join(", ")));
    }
    if !unknown.0.is_empty() {
        let names: Vec<_> = unknown.0.keys().map(|name| name.lossy().into_owned()).collect();
        let are =
            if names.len() == 1 { "is no option: it becomes an" } else { "are no options: they become" };
        let variable = if names.len() == 1 { "environment variable" } else { "environment variables" };
        let place = place(part.file, part.line(&names[0]));
        warnings.push(format!("{place}: {called}: {} {are} {variable}", names.join(", ")));
    }
    if let Some(prefix) = declared.name_prefix.take() {
        declared.changes.name = Some(format!("{prefix}:{}", declared.name()));
    }
    // What stands under env was meant as a variable and wins over a stray key and over port.
    let env = std::mem::replace(&mut declared.env, unknown);
    if let Some(port) = declared.port {
        declared.env.set("PORT", port.to_string());
        declared.env.set("port", port.to_string());
    }
    declared.env.0.extend(env.0);
    if declared.fork == Some(true) {
        declared.changes.mode = Some(Mode::Fork);
    }
    Ok(declared)
}

/// An object of variables outside the table of fields.
fn variables(value: &Value) -> Result<Env, String> {
    fields::variables(value).map_err(|detail| match detail.as_str() {
        "" => format!("expected an object of variables, got {}", shown(value)),
        detail => detail.to_string(),
    })
}

/// What a key that is no field says: a variable, as in pm2 0.x, unless a field was meant.
fn stray(key: &str, value: &Value) -> Result<String, String> {
    if let Some(meant) = Field::meant(key) {
        return Err(format!("no such field: did you mean {meant}? (a variable of this name goes under env)"));
    }
    let value =
        variable(value).ok_or("no such field, and not a value that could be an environment variable")?;
    check_variable(key, &value)?;
    Ok(value)
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains('=') || name.contains('\0') {
        return Err(format!("{name:?} cannot be the name of an environment variable"));
    }
    if value.contains('\0') {
        return Err(format!("the variable {name} cannot hold a NUL character"));
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
