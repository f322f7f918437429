//! What pm2's client wants changed of a process that it restarts or reloads.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::app::declaration::{Document, is_field, read};
use crate::app::{Changes, Env, SharedEnv};

/// What pm2 settles when a process is started first, and what its client sends along without being asked.
const NOT_CHANGED: [&str; 20] = [
    "script",
    "cwd",
    "exec_interpreter",
    "interpreter",
    "exec_mode",
    "instances",
    "user",
    "uid",
    "gid",
    "group",
    "username",
    "out_file",
    "output",
    "out",
    "error_file",
    "error",
    "err",
    "pid_file",
    "pid",
    "km_link",
];

/// `env` of a call `{id, env: {...variables, current_conf: {...attributes}}}`, which its client always has: what
/// of it says something. The error is a sentence.
pub fn changes(env: &Map<String, Value>) -> Result<Changes, String> {
    let none = Map::new();
    let conf = env.get("current_conf").and_then(Value::as_object).unwrap_or(&none);
    let mut app: Map<String, Value> =
        conf.iter().filter(|(key, value)| is_said(key, value)).map(|(k, v)| (k.clone(), v.clone())).collect();
    // How its client writes `--watch` without a path.
    if app.get("watch") == Some(&json!([])) {
        app.insert("watch".to_string(), json!(true));
    }
    app.insert("script".to_string(), json!("app"));
    let read = read("restart", &Document::computed(Value::Object(app)))?;
    let Some(declared) = read.apps.into_iter().next() else { return Ok(Changes::default()) };
    let mut changes = declared.changes;
    // All of the caller's environment stands beside the attributes, if it is to be taken over.
    let mut inherit = Env::default();
    for (name, value) in env {
        let is_declared = declared.env.get(name).is_some();
        if let (Value::String(text), false) = (value, is_declared || conf.contains_key(name)) {
            inherit.set(name.as_str(), text.as_str());
        }
    }
    changes.inherit = (!inherit.0.is_empty()).then(|| SharedEnv(Arc::new(inherit)));
    changes.env = (!declared.env.0.is_empty()).then_some(declared.env);
    Ok(changes)
}

/// Whether an attribute was meant by somebody: pm2's client fills in what it takes for usual.
fn is_said(key: &str, value: &Value) -> bool {
    let is_usual = match key {
        "filter_env" => *value == json!([]),
        "merge_logs" => *value == json!(true),
        "instance_var" => *value == json!("NODE_APP_INSTANCE"),
        "namespace" => *value == json!("default"),
        _ => false,
    };
    is_field(key) && !NOT_CHANGED.contains(&key) && !is_usual
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(env: Value) -> Result<Changes, String> {
        changes(env.as_object().unwrap())
    }

    #[test]
    fn what_nobody_asked_for_changes_nothing() {
        let sent = json!({"app": {}, "current_conf": {"filter_env": [], "env": {}, "merge_logs": true,
            "instance_var": "NODE_APP_INSTANCE", "username": "root", "windowsHide": true,
            "kill_retry_time": 100, "km_link": false}});
        assert_eq!(of(sent).unwrap(), Changes::default());
        assert_eq!(of(json!({})).unwrap(), Changes::default());
    }

    #[test]
    fn attributes_variables_and_the_callers_environment_are_told_apart() {
        let sent = json!({"PATH": "/bin", "A": "1", "current_conf": {"env": {"A": 1}, "script": "app.js",
            "name": "new", "max_memory_restart": 1000, "watch": [], "autorestart": true}});
        let found = of(sent).unwrap();
        assert_eq!(found.name.as_deref(), Some("new"));
        assert_eq!(found.env.unwrap().get("A").unwrap().lossy(), "1");
        let inherit = found.inherit.unwrap();
        assert_eq!((inherit.0.0.len(), inherit.0.get("PATH").is_some()), (1, true));
        assert!(found.triggers.watch.is_some() && found.triggers.max_memory.is_some());
        assert_eq!(found.autorestart, Some(true));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let error = of(json!({"current_conf": {"max_restarts": "many"}})).unwrap_err();
        assert!(error.contains("max_restarts"), "{error}");
    }
}
