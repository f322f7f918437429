//! A list that pm2 wrote. Its objects mix what was declared, what a shell passed on and what pm2 knows;
//! what is not there has pm2's default.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{KEPT, List, Saved};
use crate::app::declaration::filter;
use crate::app::interpreter::{name_fault, runtime};
use crate::app::units;
use crate::app::variables::{self, INSTANCE};
use crate::app::{
    App, Budget, Combined, Command, Env, Format, Instances, KillMode, Logs, Mode, SharedEnv, Text, Triggers,
    Watch, Watched, pattern,
};
use crate::time::Millis;

/// Variables that pm2 or its shell left in an environment and that mean nothing to another child. What
/// begins with `PM2_` is among them.
const NOT_TAKEN: [&str; 10] = [
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "OLDPWD",
    "SHLVL",
    "_",
    "pm_id",
    "unique_id",
    "windowsHide",
];

/// Reads a file of pm2. The error is a clause about the file.
pub fn read(bytes: &[u8]) -> Result<List, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Array(elements) = value else {
        return Err("it is not a list of processes".to_string());
    };
    let mut list = List { saved: Vec::new() };
    for (at, element) in elements.iter().enumerate() {
        let Value::Object(fields) = element else {
            return Err(format!("entry {at} of it is not a process"));
        };
        let saved = process(fields).map_err(|fault| format!("entry {at} of it {fault}"))?;
        list.saved.push(saved);
    }
    number_instances(&mut list.saved);
    for (saved, element) in list.saved.iter_mut().zip(&elements) {
        grown(saved, element.get("increment_var").and_then(Value::as_str));
    }
    Ok(list)
}

/// One process as pm2 describes it, to itself or to its daemon. The error is a clause about it.
pub fn process(fields: &Map<String, Value>) -> Result<Saved, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name").ok_or("has no name")?.to_string();
    if let Some(fault) = name_fault(&name) {
        return Err(format!("is called {name:?}: {fault}"));
    }
    let script = text("pm_exec_path").ok_or_else(|| format!("({name}) has no pm_exec_path"))?;
    let cwd = text("pm_cwd").ok_or_else(|| format!("({name}) has no pm_cwd"))?;
    let interpreter = text("exec_interpreter").filter(|program| *program != "none");
    let mut app = App { name, cwd: Text::from(cwd), ..App::default() };
    app.command = Command {
        script: Text::from(script),
        interpreter: interpreter.map(Text::from),
        interpreter_args: texts(fields.get("node_args")),
        args: texts(fields.get("args")),
        runtime: runtime(interpreter, script),
    };
    if let Some(namespace) = text("namespace") {
        app.namespace = namespace.to_string();
    }
    // In pm2 a fork that listens cannot be reloaded; here it can, as if `pmx start` had been typed.
    app.mode = if text("exec_mode") == Some("cluster_mode") { Mode::Cluster } else { Mode::Auto };
    environment(fields.get("env"), &mut app);

    let flag = |name: &str, default| fields.get(name).and_then(Value::as_bool).unwrap_or(default);
    let millis = |name: &str, default| length(fields.get(name)).unwrap_or(default);
    app.wait_ready = flag("wait_ready", false);
    app.autostart = flag("autostart", true);
    app.stop.with_message = flag("shutdown_with_message", false);
    if !flag("treekill", true) {
        app.kill_mode = KillMode::Process;
    }
    app.listen_timeout = millis("listen_timeout", app.listen_timeout);
    app.kill_timeout = millis("kill_timeout", app.kill_timeout);
    let restart = &mut app.restart;
    restart.autorestart = flag("autorestart", true);
    restart.stop_exit_codes = codes(fields.get("stop_exit_codes"));
    restart.min_uptime = millis("min_uptime", restart.min_uptime);
    restart.restart_delay = millis("restart_delay", restart.restart_delay);
    restart.exp_backoff = millis("exp_backoff_restart_delay", restart.exp_backoff);
    if let Some(most) = number(fields.get("max_restarts")) {
        restart.max_restarts = u32::try_from(most).map_or(Budget::Ends(u32::MAX), Budget::Ends);
    }

    app.triggers = triggers(fields);
    app.logs = Logs {
        date: text("log_date_format").filter(|format| !format.is_empty()).map(String::from),
        format: text("log_type").and_then(Format::named).unwrap_or_default(),
        combined: text("pm_log_path").map_or(Combined::None, |path| Combined::File(Text::from(path))),
        disabled: flag("disable_logs", false),
        ..Logs::default()
    };

    let (out, error) = (text("pm_out_log_path"), text("pm_err_log_path"));
    app.out_file = out.filter(|path| !is_default_log(path, &app.name, "out")).map(Text::from);
    app.error_file = error.filter(|path| !is_default_log(path, &app.name, "error")).map(Text::from);
    // The id of an instance is in its path already, where it is to be.
    app.merge_logs = app.out_file.is_some() || app.error_file.is_some();
    let named = text("instance_var").filter(|name| *name != INSTANCE);
    app.variables.instance = named.map(String::from);
    let instance =
        number(fields.get(named.unwrap_or(INSTANCE))).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    if let Some(filter) = fields.get("filter_env").and_then(|filter| filter::read(filter).ok()) {
        app.variables.filter = filter;
    }
    Ok(Saved {
        instance,
        // What was given up is tried again; what was stopped stays so.
        up: !matches!(text("status"), Some("stopped" | "stopping")),
        out_file: Text::from(out.unwrap_or_default()),
        error_file: Text::from(error.unwrap_or_default()),
        pid_file: Text::from(text("pm_pid_path").unwrap_or_default()),
        user: id(fields.get("uid")),
        group: id(fields.get("gid")),
        app,
    })
}

/// What it says that cannot be read says nothing.
fn triggers(fields: &Map<String, Value>) -> Triggers {
    let text = |name: &str| match fields.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let paths = |value: &Value| match texts(Some(value)) {
        paths if paths.is_empty() => Watched::Cwd,
        paths => Watched::Paths(paths),
    };
    let watched = fields.get("watch").filter(|value| is_set(Some(value)));
    let ignored = texts(fields.get("ignore_watch"));
    Triggers {
        max_memory: text("max_memory_restart").and_then(|text| units::memory(&text)),
        cron: text("cron_restart").and_then(|text| pattern(&text).ok()).filter(|text| !text.is_empty()),
        watch: Watch {
            what: watched.map_or(Watched::Off, paths),
            ignore: ignored.iter().map(|pattern| pattern.lossy().into_owned()).collect(),
            delay: length(fields.get("watch_delay")).unwrap_or_default(),
            ..Watch::default()
        },
        ..Triggers::default()
    }
}

/// What of pm2's mixture the app is to have: what a shell would pass on to anybody is inherited, the rest
/// counts as declared, because nobody can tell any more.
fn environment(env: Option<&Value>, app: &mut App) {
    let mut inherit = Env::default();
    let Some(Value::Object(env)) = env else { return };
    for (name, value) in env {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(is) => is.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        // pm2 keeps settings of its modules under the name of the app.
        let of_module = *name == app.name && value == "{}";
        let impossible = name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        if name.starts_with("PM2_") || NOT_TAKEN.contains(&&**name) || of_module || impossible {
            continue;
        }
        if KEPT.contains(&&**name) || name.starts_with("LC_") || name == "PWD" || name == "TERM" {
            inherit.set(name.as_str(), value);
        } else {
            app.env.set(name.as_str(), value);
        }
    }
    app.inherit = SharedEnv(inherit.into());
}

/// pm2 may give one number to several instances of what it does not cluster; ours are told apart by it.
fn number_instances(list: &mut [Saved]) {
    let key = |saved: &Saved| {
        let app = &saved.app;
        (app.name.clone(), app.namespace.clone(), app.command.script.clone())
    };
    let mut taken: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for saved in &mut *list {
        let taken = taken.entry(key(saved)).or_default();
        if taken.contains(&saved.instance) {
            saved.instance = (0..).find(|n| !taken.contains(n)).unwrap_or_default();
        }
        taken.insert(saved.instance);
    }
    for saved in list {
        saved.app.instances = Instances::Count(taken[&key(saved)].len() as u32);
    }
}

/// In pm2's list a variable that grows from instance to instance has grown already.
fn grown(saved: &mut Saved, name: Option<&str>) {
    let Some(name) = name else { return };
    let Some(value) = saved.app.env.get(name).and_then(variables::number) else { return };
    saved.app.env.set(name, value.saturating_sub(i64::from(saved.instance)).to_string());
    saved.app.variables.increment = Some(name.to_string());
}

fn texts(value: Option<&Value>) -> Vec<Text> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(Text::from).collect(),
        Some(Value::String(line)) => {
            let words = crate::app::words::words(line).unwrap_or_else(|_| vec![line.clone()]);
            words.into_iter().map(Text::from).collect()
        }
        _ => Vec::new(),
    }
}

fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn length(value: Option<&Value>) -> Option<Millis> {
    match value? {
        Value::Number(number) => number.as_u64().map(Millis),
        Value::String(text) => units::millis(text),
        _ => None,
    }
}

fn codes(value: Option<&Value>) -> Vec<i32> {
    let code = |value: &Value| number(Some(value)).and_then(|code| i32::try_from(code).ok());
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(code).collect(),
        Some(one) => code(one).into_iter().collect(),
        None => Vec::new(),
    }
}

fn id(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(name) if !name.is_empty() => Some(name.clone()),
        _ => None,
    }
}

fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// `…/logs/<name>-out.log` or `…/logs/<name>-out-<id>.log`: where pm2 puts what nobody placed.
fn is_default_log(path: &str, name: &str, word: &str) -> bool {
    let Some((folder, file)) = path.rsplit_once('/') else { return false };
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let file: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let rest = file.strip_prefix(&format!("{name}-{word}")).and_then(|rest| rest.strip_suffix("-log"));
    let is_id =
        |rest: &str| rest.is_empty() || rest.strip_prefix('-').is_some_and(|id| id.parse::<u32>().is_ok());
    folder.ends_with("/logs") && rest.is_some_and(is_id)
}
