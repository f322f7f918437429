//! The fields of an app in a declaration file: their names, aliases and types.

use serde_json::Value;

use super::{Declared, is_effective, variable};
use crate::app::words::words;
use crate::app::{Balance, Instances, Mode, Text, units};
use crate::time::Millis;

/// What a key of a declaration means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field {
    Script,
    Name,
    Namespace,
    Cwd,
    Args,
    Interpreter,
    InterpreterArgs,
    ExecMode,
    ExecuteCommand,
    Instances,
    Env,
    Port,
    User,
    Group,
    OutFile,
    ErrorFile,
    MergeLogs,
    Autorestart,
    StopExitCodes,
    MinUptime,
    MaxRestarts,
    RestartDelay,
    ExpBackoff,
    KillTimeout,
    WaitReady,
    ListenTimeout,
    BakeTime,
    DrainTimeout,
    Balance,
    Critical,
    /// Says nothing that could matter here.
    Ignored,
    /// pm2 has it and pmx does not: refused unless it is set to what happens anyway.
    Unbuilt(Default),
}

/// The value of an unbuilt field that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// `false`, `0` or empty.
    Off,
    /// `true`: naming it asks for nothing, `false` would.
    On,
    /// This word.
    Word(&'static str),
}

/// What must wait until all fields are read.
#[derive(Debug, std::default::Default)]
pub struct Said {
    pub env: Vec<(String, String)>,
    pub port: Option<String>,
    pub mode: Option<Mode>,
}

const FIELDS: &[(Field, &[&str])] = &[
    (Field::Script, &["script", "exec", "cmd", "command"]),
    (Field::Name, &["name"]),
    (Field::Namespace, &["namespace"]),
    (Field::Cwd, &["cwd"]),
    (Field::Args, &["args"]),
    (Field::Interpreter, &["exec_interpreter", "interpreter"]),
    (Field::InterpreterArgs, &["node_args", "interpreter_args"]),
    (Field::ExecMode, &["exec_mode"]),
    (Field::ExecuteCommand, &["execute_command"]),
    (Field::Instances, &["instances"]),
    (Field::Env, &["env"]),
    (Field::Port, &["port"]),
    (Field::User, &["uid", "user"]),
    (Field::Group, &["gid"]),
    (Field::OutFile, &["out_file", "out", "output", "out_log"]),
    (Field::ErrorFile, &["error_file", "error", "err", "err_file", "err_log"]),
    (Field::MergeLogs, &["merge_logs", "combine_logs"]),
    (Field::Autorestart, &["autorestart"]),
    (Field::StopExitCodes, &["stop_exit_codes"]),
    (Field::MinUptime, &["min_uptime"]),
    (Field::MaxRestarts, &["max_restarts"]),
    (Field::RestartDelay, &["restart_delay"]),
    (Field::ExpBackoff, &["exp_backoff_restart_delay"]),
    (Field::KillTimeout, &["kill_timeout"]),
    (Field::WaitReady, &["wait_ready"]),
    (Field::ListenTimeout, &["listen_timeout"]),
    (Field::BakeTime, &["bake_time"]),
    (Field::DrainTimeout, &["drain_timeout"]),
    (Field::Balance, &["balance"]),
    (Field::Critical, &["critical"]),
    // `max` is of pm2 0.x; `force` of a file never did anything, because a file restarts; the rest
    // switches parts of pm2 that pmx has no counterpart of.
    (
        Field::Ignored,
        &[
            "max",
            "force",
            "username",
            "vizion",
            "pmx",
            "automation",
            "source_map_support",
            "disable_source_map_support",
            "windows_hide",
            "kill_retry_time",
            "disable_trace",
            "km_link",
            "deploy",
        ],
    ),
    (Field::Unbuilt(Default::On), &["autostart", "treekill"]),
    (Field::Unbuilt(Default::Word("raw")), &["log_type"]),
    (Field::Unbuilt(Default::Word("NODE_APP_INSTANCE")), &["instance_var"]),
    (
        Field::Unbuilt(Default::Off),
        &[
            "append_env_to_name",
            "cron",
            "cron_restart",
            "deep_monitoring",
            "disable_logs",
            "env_file",
            "event_loop_inspector",
            "filter_env",
            "ignore_watch",
            "increment_var",
            "install_url",
            "io",
            "log",
            "log_date_format",
            "log_file",
            "max_memory_restart",
            "name_prefix",
            "pid",
            "pid_file",
            "post_update",
            "shutdown_with_message",
            "time",
            "trace",
            "v8",
            "watch",
            "watch_delay",
            "watch_options",
            "write",
        ],
    ),
];

impl Default {
    /// Whether `value` asks for something else than what happens anyway.
    pub fn differs_from(self, value: &Value) -> bool {
        match self {
            Default::Off => is_effective(value),
            Default::On => *value != Value::Bool(true) && value != "true",
            Default::Word(word) => is_effective(value) && value != word,
        }
    }
}

impl Field {
    /// The field that `key` names, in snake case or camel case.
    pub fn named(key: &str) -> Option<Field> {
        let snake = snake(key);
        // Overlays for `--env`, which is refused where it could choose one.
        if snake.strip_prefix("env_").is_some_and(|name| !name.is_empty()) && snake != "env_file" {
            return Some(Field::Ignored);
        }
        FIELDS.iter().find(|(_, names)| names.contains(&snake.as_str())).map(|(field, _)| *field)
    }

    /// Takes `value` in. The error says what was expected.
    pub fn set(self, value: &Value, declared: &mut Declared, said: &mut Said) -> Result<(), String> {
        let changes = &mut declared.changes;
        match self {
            Field::Script => declared.script = Text::from(text(value, "the path of a script or a command")?),
            Field::Name => changes.name = Some(text(value, "a name")?),
            Field::Namespace => changes.namespace = Some(text(value, "a name")?),
            Field::Cwd => changes.cwd = Some(path(value)?),
            Field::Args => changes.args = Some(list(value)?),
            Field::Interpreter => declared.interpreter = Some(text(value, "the name or path of a program")?),
            Field::InterpreterArgs => changes.interpreter_args = Some(list(value)?),
            Field::ExecMode => said.mode = Some(mode(value)?),
            Field::ExecuteCommand => {
                if boolean(value)? {
                    said.mode = Some(Mode::Fork);
                }
            }
            Field::Instances => changes.instances = Some(instances(value)?),
            Field::Env => said.env = env(value)?,
            Field::Port => said.port = Some(number::<u16>(value, "a port number")?.to_string()),
            Field::User => declared.user = Some(scalar(value, "a user's name or number")?),
            Field::Group => declared.group = Some(scalar(value, "a group's name or number")?),
            Field::OutFile => changes.out_file = Some(path(value)?),
            Field::ErrorFile => changes.error_file = Some(path(value)?),
            Field::MergeLogs => changes.merge_logs = Some(boolean(value)?),
            Field::Autorestart => changes.autorestart = Some(boolean(value)?),
            Field::StopExitCodes => changes.stop_exit_codes = Some(codes(value)?),
            Field::MinUptime => changes.min_uptime = Some(millis(value)?),
            Field::MaxRestarts => changes.max_restarts = Some(number(value, "a number")?),
            Field::RestartDelay => changes.restart_delay = Some(millis(value)?),
            Field::ExpBackoff => changes.exp_backoff = Some(millis(value)?),
            Field::KillTimeout => changes.kill_timeout = Some(millis(value)?),
            Field::WaitReady => changes.wait_ready = Some(boolean(value)?),
            Field::ListenTimeout => changes.listen_timeout = Some(millis(value)?),
            Field::BakeTime => changes.bake_time = Some(millis(value)?),
            Field::DrainTimeout => changes.drain_timeout = Some(millis(value)?),
            Field::Balance => changes.balance = Some(balance(value)?),
            Field::Critical => declared.critical = boolean(value)?,
            Field::Ignored | Field::Unbuilt(_) => {}
        }
        Ok(())
    }
}

/// `maxRestarts` as `max_restarts`; what is no camel case stays as it is.
fn snake(key: &str) -> String {
    let mut snake = String::new();
    let mut after_lower = false;
    for c in key.chars() {
        if c.is_ascii_uppercase() && after_lower {
            snake.push('_');
            snake.push(c.to_ascii_lowercase());
        } else {
            snake.push(c);
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    snake
}

fn scalar(value: &Value, expected: &str) -> Result<String, String> {
    match value {
        Value::Bool(_) => Err(expected.to_string()),
        value => variable(value).filter(|text| !text.contains('\0')).ok_or_else(|| expected.to_string()),
    }
}

fn text(value: &Value, expected: &str) -> Result<String, String> {
    let text = value.as_str().filter(|text| !text.trim().is_empty() && !text.contains('\0'));
    text.map(String::from).ok_or_else(|| expected.to_string())
}

fn path(value: &Value) -> Result<Text, String> {
    text(value, "a path").map(Text::from)
}

fn number<T: std::str::FromStr>(value: &Value, expected: &str) -> Result<T, String> {
    let text = scalar(value, expected)?;
    text.trim().parse().map_err(|_| expected.to_string())
}

fn millis(value: &Value) -> Result<Millis, String> {
    let expected = "milliseconds, or a length of time such as \"10s\"";
    units::millis(&scalar(value, expected)?).ok_or_else(|| expected.to_string())
}

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(on) => Ok(*on),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err("true or false".to_string()),
    }
}

fn list(value: &Value) -> Result<Vec<Text>, String> {
    let expected = "an array of strings, or one string that is split as a shell would";
    match value {
        Value::Array(values) => values.iter().map(|value| scalar(value, expected).map(Text::from)).collect(),
        value => {
            let words = words(&scalar(value, expected)?).map_err(|fault| format!("{expected} ({fault})"))?;
            Ok(words.into_iter().map(Text::from).collect())
        }
    }
}

fn codes(value: &Value) -> Result<Vec<i32>, String> {
    let expected = "an exit code or an array of them";
    let code = |value: &Value| number::<u8>(value, expected).map(i32::from);
    match value {
        Value::Array(values) => values.iter().map(code).collect(),
        value => Ok(vec![code(value)?]),
    }
}

fn instances(value: &Value) -> Result<Instances, String> {
    let expected = "a number of instances, or \"max\"";
    units::instances(&scalar(value, expected)?).ok_or_else(|| expected.to_string())
}

fn mode(value: &Value) -> Result<Mode, String> {
    match value.as_str() {
        Some("fork" | "fork_mode") => Ok(Mode::Fork),
        Some("cluster" | "cluster_mode") => Ok(Mode::Cluster),
        _ => Err("\"fork\" or \"cluster\"".to_string()),
    }
}

fn balance(value: &Value) -> Result<Balance, String> {
    let named = value.as_str().and_then(Balance::named);
    named.ok_or_else(|| "\"reuseport\", \"rr\" or \"shared\"".to_string())
}

fn env(value: &Value) -> Result<Vec<(String, String)>, String> {
    let Value::Object(map) = value else {
        return Err("an object of variables".to_string());
    };
    let set = map.iter().filter(|(_, value)| !value.is_null());
    // Objects and arrays become JSON text, as in pm2.
    Ok(set
        .map(|(name, value)| (name.clone(), variable(value).unwrap_or_else(|| value.to_string())))
        .collect())
}
