//! The types of fields: how a value is read, in which words it is asked for, how it is written back, and
//! what a JSON Schema says of it.

use std::str::FromStr;

use serde_json::{Value, json};

use super::{Declared, variable};
use crate::app::words::words;
use crate::app::{Instances, Text, units};
use crate::time::Millis;

/// Where the value of a field is kept: it is written there, and read back from there.
pub type Place<T> = fn(&mut Declared) -> &mut Option<T>;

/// The type of a field.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string that is not empty; what it is, in words.
    Text(&'static str, Place<String>),
    /// A name or a number; what it is, in words.
    Scalar(&'static str, Place<String>),
    /// A path, not yet made absolute.
    Path(Place<Text>),
    /// Strings, or one that is split as a shell would.
    Words(Place<Vec<Text>>),
    /// `true` or `false`.
    Flag(Place<bool>),
    /// A number from 0; what it counts, in words.
    Count(&'static str, Place<u32>),
    /// A length of time.
    Length(Place<Millis>),
    /// One of these words.
    Choice(&'static [&'static str], fn(&mut Declared, &str), fn(&Declared) -> Option<&'static str>),
    /// Anything else.
    Other(Other),
    /// Says nothing that could matter here.
    Ignored,
    /// pm2 has it and it means nothing here: whoever asks for something by it is told.
    Foreign,
}

/// A type of one field only.
#[derive(Clone, Copy)]
pub struct Other {
    /// What is expected, in words.
    pub expected: &'static str,
    /// Its JSON Schema.
    pub schema: &'static str,
    /// Takes a value in. The error is what is wrong with it beyond not being what was expected, or empty.
    pub set: fn(&mut Declared, &Value) -> Result<(), String>,
    /// The value as it would be declared, for `--write`.
    pub get: fn(&Declared) -> Option<Value>,
}

impl Kind {
    /// What a value has to be, in words.
    pub fn expected(&self) -> String {
        match self {
            Kind::Text(what, _) | Kind::Scalar(what, _) | Kind::Count(what, _) => what.to_string(),
            Kind::Path(_) => "a path".to_string(),
            Kind::Words(_) => "an array of strings, or one string that is split as a shell would".to_string(),
            Kind::Flag(_) => "true or false".to_string(),
            Kind::Length(_) => "milliseconds, or a length of time such as \"10s\"".to_string(),
            Kind::Choice(names, ..) => alternatives(names),
            Kind::Other(other) => other.expected.to_string(),
            Kind::Ignored | Kind::Foreign => "anything".to_string(),
        }
    }

    /// Takes `value` in. The error continues a sentence that begins with the field's name and a colon.
    pub fn set(&self, value: &Value, declared: &mut Declared) -> Result<(), String> {
        let taken = match *self {
            Kind::Text(_, place) => text(value).map(|text| *place(declared) = Some(text)),
            Kind::Scalar(_, place) => scalar(value).map(|text| *place(declared) = Some(text)),
            Kind::Path(place) => text(value).map(|text| *place(declared) = Some(Text::from(text))),
            Kind::Words(place) => list(value).map(|words| *place(declared) = Some(words)),
            Kind::Flag(place) => flag(value).map(|on| *place(declared) = Some(on)),
            Kind::Count(_, place) => number(value).map(|count| *place(declared) = Some(count)),
            Kind::Length(place) => length(value).map(|length| *place(declared) = Some(length)),
            Kind::Choice(names, set, _) => match value.as_str().filter(|word| names.contains(word)) {
                Some(word) => {
                    set(declared, word);
                    Ok(())
                }
                None => Err(String::new()),
            },
            Kind::Other(other) => (other.set)(declared, value),
            Kind::Ignored | Kind::Foreign => Ok(()),
        };
        taken.map_err(|detail| {
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            format!("expected {}{detail}, got {}", self.expected(), super::shown(value))
        })
    }

    /// The value as it would be declared, if it was.
    pub fn get(&self, declared: &mut Declared) -> Option<Value> {
        match *self {
            Kind::Text(_, place) | Kind::Scalar(_, place) => place(declared).clone().map(Value::String),
            Kind::Path(place) => place(declared).as_ref().map(written),
            Kind::Words(place) => {
                place(declared).as_ref().map(|words| Value::Array(words.iter().map(written).collect()))
            }
            Kind::Flag(place) => place(declared).map(Value::Bool),
            Kind::Count(_, place) => place(declared).map(Value::from),
            Kind::Length(place) => place(declared).map(|length| Value::from(length.0)),
            Kind::Choice(_, _, get) => get(declared).map(Value::from),
            Kind::Other(other) => (other.get)(declared),
            Kind::Ignored | Kind::Foreign => None,
        }
    }

    /// Its JSON Schema.
    pub fn schema(&self) -> Value {
        match self {
            Kind::Text(..) | Kind::Path(_) => json!({"type": "string", "minLength": 1}),
            Kind::Scalar(..) => json!({"type": ["string", "number"]}),
            Kind::Words(_) => json!({"type": ["array", "string"], "items": {"type": ["string", "number"]}}),
            Kind::Flag(_) => json!({"enum": [true, false, "true", "false"]}),
            Kind::Count(..) => {
                json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^ *[0-9]+ *$"})
            }
            Kind::Length(_) => json!({
                "type": ["integer", "string"], "minimum": 0, "pattern": "^ *[0-9]+ *(ms|s|m|h|d)? *$",
            }),
            Kind::Choice(names, ..) => json!({"enum": names}),
            Kind::Other(other) => serde_json::from_str(other.schema).unwrap_or(Value::Bool(true)),
            Kind::Ignored | Kind::Foreign => Value::Bool(true),
        }
    }
}

/// `"a", "b" or "c"`.
fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// As a JSON string; what is not UTF-8 cannot be declared in a file anyway.
pub fn written(text: &Text) -> Value {
    Value::String(text.lossy().into_owned())
}

/// A string or a number, as text.
pub fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::Bool(_) => Err(String::new()),
        value => variable(value).filter(|text| !text.contains('\0')).ok_or_else(String::new),
    }
}

/// A string that says something.
pub fn text(value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| !text.trim().is_empty() && !text.contains('\0'));
    text.map(String::from).ok_or_else(String::new)
}

/// A number, which may be written as a string.
pub fn number<T: FromStr>(value: &Value) -> Result<T, String> {
    scalar(value)?.trim().parse().map_err(|_| String::new())
}

/// A length of time.
pub fn length(value: &Value) -> Result<Millis, String> {
    units::millis(&scalar(value)?).ok_or_else(String::new)
}

/// `true` or `false`, which may be written as a string.
pub fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(on) => Ok(*on),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(String::new()),
    }
}

/// Strings, or one that is split as a shell would.
pub fn list(value: &Value) -> Result<Vec<Text>, String> {
    match value {
        Value::Array(values) => values.iter().map(|value| scalar(value).map(Text::from)).collect(),
        value => Ok(words(&scalar(value)?)?.into_iter().map(Text::from).collect()),
    }
}

/// A number of instances.
pub fn instances(value: &Value) -> Result<Instances, String> {
    units::instances(&scalar(value)?).ok_or_else(String::new)
}
