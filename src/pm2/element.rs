//! A process as pm2's `jlist` shows it. Its readers find their field names; of the environment only what was
//! declared is there.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::app::declaration::filter;
use crate::app::units::Memory;
use crate::app::{App, Instances, KillMode, Text, unique_id};
use crate::protocol::{Detail, Watching};

/// Where pm2 would note the pid of a process, below its home.
pub fn pid_file(home: &Path, name: &str, id: u32) -> PathBuf {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' };
    let name: String = name.chars().map(safe).collect();
    home.join("pids").join(format!("{name}-{id}.pid"))
}

/// One element as pm2 would print it. `pid_file` is where pm2 would note its pid, and where it is noted when pmx
/// stands for pm2.
pub fn element(detail: &Detail, pid_file: &Path) -> Value {
    let view = &detail.view;
    let cpu = view.cpu.map_or(0.0, |cpu| (f64::from(cpu) * 10.0).round() / 10.0);
    json!({
        "pid": view.pid,
        "name": view.name,
        "pm_id": view.id,
        "monit": { "memory": view.memory.unwrap_or(0), "cpu": cpu },
        "pm2_env": pm2_env(detail, pid_file),
    })
}

/// pm2's bag of everything. Its readers expect the `axm_*` keys to exist.
fn pm2_env(detail: &Detail, pid_file: &Path) -> Value {
    let Detail { view, app, .. } = detail;
    let strings = |texts: &[Text]| texts.iter().map(|text| text.lossy().into_owned()).collect::<Vec<_>>();
    let env: Map<String, Value> =
        app.env.0.iter().map(|(name, value)| (name.lossy().into_owned(), json!(value.lossy()))).collect();
    let instances = match app.instances {
        Instances::Count(count) => i64::from(count),
        Instances::CpusLess(less) => -i64::from(less),
    };
    // What pm2 has and pmx does not, as pm2 has it when nobody asked for it.
    let usual = [
        ("version", json!("N/A")),
        ("unique_id", json!(unique_id(view.id, detail.created))),
        ("pmx_module", json!(false)),
        ("pmx", json!(false)),
        ("automation", json!(false)),
        ("windowsHide", json!(true)),
        ("treekill", json!(true)),
        ("vizion", json!(false)),
        ("vizion_running", json!(false)),
        ("km_link", json!(false)),
        ("kill_retry_time", json!(100)),
        ("prev_restart_delay", json!(0)),
        ("_pm2_version", json!(env!("CARGO_PKG_VERSION"))),
        ("pm_pid_path", json!(pid_file)),
    ];
    let fields = [
        ("name", json!(view.name)),
        ("namespace", json!(view.namespace)),
        ("pm_id", json!(view.id)),
        ("status", json!(view.status.word())),
        ("pm_uptime", json!(view.since.map(|since| since.0))),
        ("created_at", json!(detail.created.0)),
        ("restart_time", json!(view.restarts)),
        ("unstable_restarts", json!(view.unstable)),
        ("exec_mode", json!(if view.cluster { "cluster_mode" } else { "fork_mode" })),
        ("exec_interpreter", json!(app.command.interpreter.as_ref().map_or("none".into(), Text::lossy))),
        ("pm_exec_path", json!(app.command.script.lossy())),
        ("pm_cwd", json!(app.cwd.lossy())),
        ("args", json!(strings(&app.command.args))),
        ("node_args", json!(strings(&app.command.interpreter_args))),
        ("instances", json!(instances)),
        ("NODE_APP_INSTANCE", json!(view.instance)),
        ("instance_var", json!(app.variables.instance())),
        ("increment_var", json!(app.variables.increment)),
        ("filter_env", filter::written(&app.variables.filter)),
        ("pm_out_log_path", json!(detail.out_file)),
        ("pm_err_log_path", json!(detail.error_file)),
        ("log_lines_lost", json!(detail.lines_lost)),
        ("log_bytes", json!(detail.log_bytes)),
        ("pm_log_path", json!(detail.log_file)),
        ("log_date_format", json!(app.logs.date)),
        ("log_type", json!(app.logs.format.word())),
        ("disable_logs", json!(app.logs.disabled)),
        ("merge_logs", json!(app.merge_logs)),
        ("autorestart", json!(app.restart.autorestart)),
        ("max_restarts", json!(app.restart.max_restarts)),
        ("restart_window", json!(app.restart.restart_window.0)),
        ("restart_budget_left", json!(view.budget_left)),
        ("restart_in", json!(view.retry_in.map(|retry| retry.0))),
        ("reason", json!(view.reason)),
        ("min_uptime", json!(app.restart.min_uptime.0)),
        ("restart_delay", json!(app.restart.restart_delay.0)),
        ("exp_backoff_restart_delay", json!(app.restart.exp_backoff.0)),
        ("stop_exit_codes", json!(app.restart.stop_exit_codes)),
        ("stop_signal", json!(app.stop_signal)),
        ("stop_sequence", json!(app.stop.sequence)),
        ("shutdown_with_message", json!(app.stop.with_message)),
        ("stdin", json!(app.stdin)),
        ("kill_mode", json!(app.kill_mode)),
        ("treekill", json!(app.kill_mode != KillMode::Process)),
        ("autostart", json!(app.autostart)),
        ("kill_timeout", json!(app.kill_timeout.0)),
        ("listen_timeout", json!(app.listen_timeout.0)),
        ("wait_ready", json!(app.wait_ready)),
        ("health", json!(view.health)),
        ("leak", json!(view.leak)),
        ("accepted", json!(view.accepted)),
        ("queues", json!(detail.queues)),
        ("open_files", json!(detail.fds)),
        ("threads", json!(view.threads)),
        ("says", json!(view.says)),
        ("watch", json!(!matches!(view.watching, Watching::Off))),
        ("watching", json!(view.watching.word())),
        ("max_memory_restart", json!(memory_limit(app))),
        ("cron_restart", json!(app.triggers.cron)),
        ("schedule", json!(app.triggers.schedule)),
        ("last_run", json!(view.last_run)),
        ("next_run", json!(view.next_run)),
        ("exit_code", json!(detail.exits.last().and_then(|exit| exit.code))),
        ("username", json!(view.user)),
        ("uid", json!(app.user.as_ref().map(|user| user.uid))),
        ("gid", json!(app.user.as_ref().map(|user| user.gid))),
        ("node_version", json!(detail.node_version)),
        ("env", Value::Object(env)),
        ("axm_actions", json!(detail.axm.actions)),
        ("axm_monitor", json!(detail.axm.monitor)),
        ("axm_options", json!(detail.axm.options)),
        ("axm_dynamic", json!({})),
    ];
    Value::Object(usual.into_iter().chain(fields).map(|(name, value)| (name.to_string(), value)).collect())
}

/// In bytes, or as a share of what there is.
fn memory_limit(app: &App) -> Option<Value> {
    app.triggers.max_memory.map(|memory| match memory {
        Memory::Bytes(bytes) => json!(bytes),
        Memory::Percent(percent) => json!(format!("{percent}%")),
    })
}
