//! The `static` of a declaration: folders that are served, each by an app of its own (pm2 5 and later). What it
//! serves is in its environment, under pm2's names.

use serde_json::{Map, Value, json};

use super::{Changes, Declared, Document, Env, kind, kind::scalar, place, shown};
use crate::app::Text;
use crate::app::nearest::nearest;

/// The script of an app that serves a folder.
pub const SCRIPT: &str = "serve";
/// The port of a folder for which none is said, as in pm2.
pub const PORT: u16 = 8080;

/// A folder's fields, and the variables that they become.
const FIELDS: &[(&str, &str)] = &[
    ("path", "PM2_SERVE_PATH"),
    ("port", "PM2_SERVE_PORT"),
    ("host", "PM2_SERVE_HOST"),
    ("homepage", "PM2_SERVE_HOMEPAGE"),
    ("spa", "PM2_SERVE_SPA"),
];
/// What is no variable, and what pm2 has beside.
const OTHERS: &[&str] = &["name", "basic_auth", "directory", "ftp", "monitor"];

/// What an app is called that serves a folder on this port.
pub fn default_name(port: &str) -> String {
    format!("static-page-server-{port}")
}

/// The JSON Schema of the whole.
pub fn schema() -> Value {
    let text = json!({ "type": "string" });
    let site = json!({
        "type": "object",
        "properties": {
            "name": text, "path": text, "host": text, "homepage": text,
            "port": { "type": ["integer", "string"] },
            "spa": { "type": "boolean" },
            "basic_auth": {
                "type": "object",
                "required": ["username", "password"],
                "properties": { "username": text, "password": text },
                "additionalProperties": false
            },
            "directory": { "description": "no effect here" },
            "ftp": { "description": "no effect here" },
            "monitor": { "description": "no effect here" },
        },
        "additionalProperties": false
    });
    json!({ "type": ["array", "null"], "items": site })
}

/// The apps of the folders that a file has served.
pub fn read(file: &str, document: &Document, warnings: &mut Vec<String>) -> Result<Vec<Declared>, String> {
    let Some(sites) = document.value.get("static").filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let fault = |what: String| format!("{}: static: {what}", place(file, document.line("/static")));
    let Value::Array(sites) = sites else {
        return Err(fault(format!("expected an array of folders to serve, got {}", kind(sites))));
    };
    let read = |(index, value): (usize, &Value)| {
        let path = format!("/static/{index}");
        let line = document.line(&path);
        let fault = |key: &str, what: String| {
            let line = document.line(&format!("{path}/{key}")).or(line);
            format!("{}: static {}: {what}", place(file, line), index + 1)
        };
        let Value::Object(map) = value else {
            return Err(fault("", format!("expected an object, got {}", kind(value))));
        };
        let mut app = site(map).map_err(|(key, what)| fault(&key, format!("{key}: {what}")))?;
        app.line = line;
        for key in ["directory", "ftp", "monitor"] {
            if map.get(key).is_some_and(super::is_effective) {
                warnings.push(fault(key, format!("{key} is of pm2 and has no effect here")));
            }
        }
        Ok(app)
    };
    sites.iter().enumerate().map(read).collect()
}

/// One folder. The error is the field and what is wrong with it.
fn site(map: &Map<String, Value>) -> Result<Declared, (String, String)> {
    let mut env = Env::default();
    let mut name = None;
    for (key, value) in map {
        let fault = |what: String| (key.clone(), what);
        if value.is_null() {
            continue;
        }
        let text = || scalar(value).map_err(|_| fault(format!("expected a string, got {}", shown(value))));
        match key.as_str() {
            "name" => name = Some(text()?),
            "port" => {
                let port = text()?;
                port.parse::<u16>().map_err(|_| fault(format!("expected a port, got {}", shown(value))))?;
                env.set("PM2_SERVE_PORT", port);
            }
            "spa" => match value {
                Value::Bool(on) => env.set("PM2_SERVE_SPA", on.to_string()),
                other => return Err(fault(format!("expected true or false, got {}", shown(other)))),
            },
            "basic_auth" => {
                let part = |part: &str| value.get(part).and_then(Value::as_str);
                let (Some(user), Some(password)) = (part("username"), part("password")) else {
                    return Err(fault("expected an object of username and password".to_string()));
                };
                env.set("PM2_SERVE_BASIC_AUTH", "true");
                env.set("PM2_SERVE_BASIC_AUTH_USERNAME", user);
                env.set("PM2_SERVE_BASIC_AUTH_PASSWORD", password);
            }
            other => match FIELDS.iter().find(|(name, _)| *name == other) {
                Some((_, variable)) => env.set(*variable, text()?),
                None if OTHERS.contains(&other) => {}
                None => return Err(fault(unknown(other))),
            },
        }
    }
    let port = env.get("PM2_SERVE_PORT").map_or(PORT.to_string(), |port| port.lossy().into_owned());
    let changes = Changes { name: Some(name.unwrap_or_else(|| default_name(&port))), ..Changes::default() };
    Ok(Declared { script: Text::from(SCRIPT), env, changes, ..Declared::default() })
}

fn unknown(key: &str) -> String {
    let names = FIELDS.iter().map(|(name, _)| *name).chain(OTHERS.iter().copied());
    match nearest(key, names) {
        Some(meant) => format!("no such field: did you mean {meant}?"),
        None => "no such field".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;

    fn sites(text: &str) -> Result<(Vec<Declared>, Vec<String>), String> {
        let mut warnings = Vec::new();
        let document = Document::json(text).unwrap();
        read("f.json", &document, &mut warnings).map(|apps| (apps, warnings))
    }

    #[test]
    fn folders_become_apps() {
        let (apps, warnings) = sites(
            r#"{"static": [{"path": "a"},
                {"name": "b", "port": "81", "spa": true, "basic_auth": {"username": "u", "password": "p"},
                 "monitor": true}]}"#,
        )
        .unwrap();
        assert_eq!(apps[0].name(), "static-page-server-8080");
        assert_eq!((apps[1].name(), apps[1].script.lossy().as_ref()), ("b".to_string(), "serve"));
        for (name, value) in
            [("PORT", "81"), ("SPA", "true"), ("BASIC_AUTH", "true"), ("BASIC_AUTH_PASSWORD", "p")]
        {
            assert_eq!(apps[1].env.get(&format!("PM2_SERVE_{name}")).unwrap().lossy(), value);
        }
        assert_eq!(warnings, ["f.json:3: static 2: monitor is of pm2 and has no effect here"]);
        assert_eq!(sites(r#"{"static": null}"#).unwrap().0, []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            (r#"{"static": {}}"#, "f.json:1: static: expected an array of folders to serve, got an object"),
            (r#"{"static": [1]}"#, "f.json:1: static 1: expected an object, got a number"),
            (
                "{\"static\": [\n{\"prot\": 1}]}",
                "f.json:2: static 1: prot: no such field: did you mean port?",
            ),
            (r#"{"static": [{"port": 99999}]}"#, "f.json:1: static 1: port: expected a port, got 99999"),
            (r#"{"static": [{"spa": 1}]}"#, "f.json:1: static 1: spa: expected true or false, got 1"),
            (
                r#"{"static": [{"basic_auth": {"username": "u"}}]}"#,
                "f.json:1: static 1: basic_auth: expected an object of username and password",
            ),
        ] {
            assert_eq!(sites(text).unwrap_err(), expected);
        }
    }
}
