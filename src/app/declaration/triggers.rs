//! The types of the fields about memory, the calendar and files.

use serde_json::{Value, json};

use super::kind::{self, Other};
use super::{Declared, is_effective};
use crate::app::units::{self, Memory};
use crate::app::{Text, Watched, pattern};
use crate::time::Millis;

/// An amount of memory.
pub const MAX_MEMORY: Other = Other {
    expected: "bytes, an amount such as \"300M\", or a share such as \"80%\"",
    schema: r#"{"type": ["integer", "string", "boolean"], "minimum": 0}"#,
    set: |app, value| {
        let amount = match is_effective(value) {
            true => units::memory(&kind::scalar(value)?).ok_or_else(String::new)?,
            false => Memory::Bytes(0),
        };
        app.changes.triggers.max_memory = Some(amount);
        Ok(())
    },
    get: |app| {
        app.changes.triggers.max_memory.map(|memory| match memory {
            Memory::Bytes(bytes) => Value::from(bytes),
            Memory::Percent(percent) => Value::from(format!("{percent}%")),
        })
    },
};

const PATTERN: &str = r#"{"type": ["string", "integer", "boolean"]}"#;

/// When it is restarted.
pub const CRON_RESTART: Other = Other {
    expected: "a cron pattern",
    schema: PATTERN,
    set: |app, value| cron(value).map(|pattern| app.changes.triggers.cron = Some(pattern)),
    get: |app| app.changes.triggers.cron.as_ref().map(|pattern| json!(pattern)),
};

/// When it is started.
pub const SCHEDULE: Other = Other {
    expected: "a cron pattern",
    schema: PATTERN,
    set: |app, value| cron(value).map(|pattern| app.changes.triggers.schedule = Some(pattern)),
    get: |app| app.changes.triggers.schedule.as_ref().map(|pattern| json!(pattern)),
};

/// Which files are watched.
pub const WATCH: Other = Other {
    expected: "true, a path or an array of paths",
    schema: r#"{"type": ["boolean", "string", "array", "integer", "null"], "items": {"type": "string", "minLength": 1}}"#,
    set: |app, value| {
        app.changes.triggers.watch = Some(match value {
            value if !is_effective(value) => Watched::Off,
            Value::Bool(_) => Watched::Cwd,
            Value::String(text) if text == "true" => Watched::Cwd,
            value => Watched::Paths(strings(value)?.into_iter().map(Text::from).collect()),
        });
        Ok(())
    },
    get: |app| {
        Some(match app.changes.triggers.watch.as_ref()? {
            Watched::Off => Value::Bool(false),
            Watched::Cwd => Value::Bool(true),
            Watched::Paths(paths) => Value::Array(paths.iter().map(kind::written).collect()),
        })
    },
};

/// Which of them do not matter.
pub const IGNORE_WATCH: Other = Other {
    expected: "a pattern or an array of them",
    schema: r#"{"type": ["string", "array"], "items": {"type": "string", "minLength": 1}}"#,
    set: |app, value| strings(value).map(|patterns| app.changes.triggers.ignore = Some(patterns)),
    get: |app| app.changes.triggers.ignore.as_ref().map(|patterns| json!(patterns)),
};

/// Which of them matter by their names.
pub const EXT: Other = Other {
    expected: "extensions such as \"js,json\", or an array of them",
    schema: r#"{"type": ["string", "array"], "items": {"type": "string", "minLength": 1}}"#,
    set: |app, value| {
        let words = strings(value)?;
        let words = words.iter().flat_map(|text| text.split(|c: char| c == ',' || c.is_whitespace()));
        let words = words.filter(|word| !word.is_empty()).map(String::from);
        app.changes.triggers.extensions = Some(words.collect());
        Ok(())
    },
    get: |app| app.changes.triggers.extensions.as_ref().map(|words| json!(words)),
};

/// What of chokidar's options means something here. Those that say how it is to find out what changed do not:
/// the kernel tells.
pub const WATCH_OPTIONS: Other = Other {
    expected: "an object with options of chokidar that pmx has",
    schema: r#"{"type": "object", "properties": {"ignored": {"type": ["string", "array"]}, "awaitWriteFinish": {"type": ["boolean", "object"]}}}"#,
    set: watch_options,
    // They have become other fields by then.
    get: |_| None,
};

fn watch_options(app: &mut Declared, value: &Value) -> Result<(), String> {
    let options = value.as_object().ok_or_else(String::new)?;
    let said = &mut app.changes.triggers;
    for (name, value) in options {
        match name.as_str() {
            "ignored" => said.ignore = Some(strings(value).map_err(|_| "ignored: patterns".to_string())?),
            "usePolling"
            | "interval"
            | "binaryInterval"
            | "persistent"
            | "ignoreInitial"
            | "alwaysStat"
            | "ignorePermissionErrors"
            | "atomic"
            | "useFsEvents"
            | "disableGlobbing" => {}
            "cwd" => {
                return Err("cwd: what is to be watched is below the app's own cwd, or named whole".into());
            }
            "followSymlinks" if *value == Value::Bool(false) => {}
            "awaitWriteFinish" => {
                let threshold = value.get("stabilityThreshold").map(kind::length).transpose();
                let threshold = threshold.map_err(|_| "stabilityThreshold: milliseconds".to_string())?;
                let usual = Millis(if *value == Value::Bool(false) { 0 } else { 2_000 });
                said.delay = said.delay.max(Some(threshold.unwrap_or(usual)));
            }
            other => return Err(format!("{other} is not one")),
        }
    }
    Ok(())
}

fn cron(value: &Value) -> Result<String, String> {
    if !is_effective(value) {
        return Ok(String::new());
    }
    pattern(&kind::scalar(value)?)
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) => values.iter().map(kind::text).collect(),
        value => Ok(vec![kind::text(value)?]),
    }
}
