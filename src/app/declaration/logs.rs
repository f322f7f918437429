//! The types of the fields about log files.

use serde_json::{Value, json};

use super::is_effective;
use super::kind::{self, Other};
use crate::app::logs::TIME;
use crate::app::{Combined, Rotation, Text};

/// A date before each line.
pub const DATE_FORMAT: Other = Other {
    expected: "a date format such as \"YYYY-MM-DD HH:mm:ss\"",
    schema: r#"{"type": ["string", "boolean"]}"#,
    set: |app, value| {
        let text = match is_effective(value) {
            true => kind::text(value)?,
            false => String::new(),
        };
        app.changes.logs.date = Some(text);
        Ok(())
    },
    get: |app| app.changes.logs.date.as_ref().map(|text| json!(text)),
};

/// The usual date before each line; a format says more, wherever it stands.
pub const TIME_FLAG: Other = Other {
    expected: "true or false",
    schema: r#"{"enum": [true, false, "true", "false"]}"#,
    set: |app, value| {
        if kind::flag(value)? && app.changes.logs.date.as_ref().is_none_or(String::is_empty) {
            app.changes.logs.date = Some(TIME.to_string());
        }
        Ok(())
    },
    // It is the date format by then.
    get: |_| None,
};

/// A file for both streams.
pub const COMBINED: Other = Other {
    expected: "a path, or true for the usual one",
    schema: r#"{"type": ["string", "boolean"]}"#,
    set: |app, value| {
        app.changes.logs.combined = Some(match value {
            Value::Bool(true) => Combined::Usual,
            value if !is_effective(value) => Combined::None,
            value => Combined::File(Text::from(kind::text(value)?)),
        });
        Ok(())
    },
    get: |app| {
        app.changes.logs.combined.as_ref().map(|combined| match combined {
            Combined::None => Value::Bool(false),
            Combined::Usual => Value::Bool(true),
            Combined::File(path) => kind::written(path),
        })
    },
};

/// When another file begins, and which old ones are kept.
pub const ROTATION: Other = Other {
    expected: "true, false, or an object of options of rotation",
    schema: r#"{"type": ["boolean", "object"], "additionalProperties": {"type": ["string", "number", "boolean"]}}"#,
    set: |app, value| {
        app.changes.logs.rotation = Some(Rotation::read(value)?);
        Ok(())
    },
    get: |app| app.changes.logs.rotation.as_ref().map(Rotation::written),
};
