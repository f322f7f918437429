//! The list of processes on disk: bytes to values and back. The file is what pm2 calls `dump.pm2`, a JSON
//! array of its `pm2_env` objects, and pm2 can resurrect it. What only pmx knows stands first in each
//! object, under `_pmx` (pm2 has a switch of its own that is called `pmx`); the last key of the file is a
//! checksum over everything before it. A file that neither begins nor ends like this is pm2's.
//!
//! `instances`, `pm_id` and counters are left out as pm2 leaves them out: an entry is one process.

mod checksum;
mod foreign;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{App, Env, KillMode, SharedEnv, Text};
pub use checksum::crc64;
pub use foreign::process as of_pm2;

/// The version of what stands under `_pmx`. Adding an optional field is free; anything else raises it.
const FORMAT: u32 = 1;
const HEAD: &[u8] = b"[{\"_pmx\":";
const SUM: &[u8] = b",\"_pmx_sum\":\"";
const END: &[u8] = b"\"}]\n";
/// From the comma before the checksum to the end of the file.
const TAIL: usize = SUM.len() + 16 + END.len();

/// Of the environment that an app inherited from a shell, only these are written down (and `LC_*`):
/// what a program needs to run at all, and nothing that is anybody's secret. What else an app needs
/// is to be declared.
pub const KEPT: [&str; 12] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NODE_ENV",
    "PATH",
    "SHELL",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// One process of the list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// What was declared; of what it inherits only [`KEPT`].
    pub app: App,
    /// Its place among the instances of its app.
    pub instance: u32,
    /// It is to run; else it was stopped, or had finished.
    pub up: bool,
    /// Where stdout goes, for pm2.
    #[serde(default)]
    pub out_file: Text,
    /// Where stderr goes, for pm2.
    #[serde(default)]
    pub error_file: Text,
    /// Where pm2 may write a pid: it does not start without one.
    #[serde(default)]
    pub pid_file: Text,
    /// A user that pm2 named, not looked up yet.
    #[serde(default)]
    pub user: Option<String>,
    /// A group that pm2 named, not looked up yet.
    #[serde(default)]
    pub group: Option<String>,
}

/// What a file holds.
#[derive(Debug, PartialEq)]
pub struct List {
    /// The processes, in the order of their ids.
    pub saved: Vec<Saved>,
}

/// Why a file is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not what was written; how that shows.
    Damaged(String),
    /// A newer pmx has written it.
    Newer(u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Damaged(how) => f.write_str(how),
            Fault::Newer(format) => {
                write!(f, "a newer pmx wrote it (format {format}, this one reads up to {FORMAT})")
            }
        }
    }
}

/// Of an inherited environment, what may be written down.
pub fn kept(inherited: &SharedEnv) -> SharedEnv {
    let kept = |name: &Text| {
        let name = name.lossy();
        KEPT.contains(&&*name) || name.starts_with("LC_")
    };
    let variables = inherited.0.0.iter().filter(|(name, _)| kept(name));
    SharedEnv(Env(variables.map(|(name, value)| (name.clone(), value.clone())).collect()).into())
}

/// The file of an empty list.
pub const EMPTY: &[u8] = b"[]\n";

/// The bytes of a file. What must not be in it is taken out here, whoever calls.
pub fn write<S: Borrow<Saved>>(list: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for saved in list {
        let saved = saved.borrow();
        bytes.extend_from_slice(if bytes.is_empty() { b"[" } else { b",\n" });
        let mut app = saved.app.clone();
        app.inherit = kept(&app.inherit);
        let own = Own { format: FORMAT, instance: saved.instance, up: saved.up, app };
        serde_json::to_writer(&mut bytes, &Element::of(&own, saved)).expect("it has no map with odd keys");
    }
    if bytes.is_empty() {
        return EMPTY.to_vec();
    }
    // The closing brace and bracket come after the checksum.
    bytes.pop();
    let sum = crc64(&bytes);
    bytes.extend_from_slice(SUM);
    bytes.extend_from_slice(format!("{sum:016x}").as_bytes());
    bytes.extend_from_slice(END);
    bytes
}

/// Reads a file of ours or of pm2.
pub fn read(bytes: &[u8]) -> Result<List, Fault> {
    let damaged = |how: &str| Err(Fault::Damaged(how.to_string()));
    if bytes.is_empty() {
        return damaged("it is empty");
    }
    let tail = &bytes[bytes.len().saturating_sub(TAIL + 8)..];
    let ends_like_ours = tail.windows(SUM.len()).any(|part| part == SUM);
    if !bytes.starts_with(HEAD) && !ends_like_ours {
        return foreign::read(bytes).map_err(Fault::Damaged);
    }
    if !bytes.ends_with(END) || bytes.len() < TAIL {
        return damaged("its end is missing");
    }
    let (content, tail) = bytes.split_at(bytes.len() - TAIL);
    let expected = [SUM, format!("{:016x}", crc64(content)).as_bytes(), END].concat();
    if tail != expected {
        return damaged("its checksum does not fit its content");
    }
    // What is in it is what was written; a newer pmx may have written what this one cannot read.
    let versions: Vec<Version> = parse(bytes)?;
    if let Some(newer) = versions.iter().find(|version| version._pmx.format > FORMAT) {
        return Err(Fault::Newer(newer._pmx.format));
    }
    let entries: Vec<Entry> = parse(bytes)?;
    Ok(List { saved: entries.into_iter().map(Entry::into_saved).collect() })
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Damaged(format!("it cannot be read: {error}")))
}

/// What stands under `_pmx`.
#[derive(Serialize, Deserialize)]
struct Own {
    format: u32,
    instance: u32,
    up: bool,
    app: App,
}

#[derive(Deserialize)]
struct Version {
    _pmx: Format,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Entry {
    _pmx: Own,
    #[serde(default)]
    pm_out_log_path: Text,
    #[serde(default)]
    pm_err_log_path: Text,
    #[serde(default)]
    pm_pid_path: Text,
}

impl Entry {
    fn into_saved(self) -> Saved {
        let Own { instance, up, app, .. } = self._pmx;
        Saved {
            app,
            instance,
            up,
            out_file: self.pm_out_log_path,
            error_file: self.pm_err_log_path,
            pid_file: self.pm_pid_path,
            user: None,
            group: None,
        }
    }
}

/// One object of the file. Of the texts pm2 sees a UTF-8 form; the bytes are under `_pmx`.
#[derive(Serialize)]
struct Element<'a> {
    _pmx: &'a Own,
    name: &'a str,
    namespace: &'a str,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    pm_exec_path: String,
    pm_cwd: String,
    exec_interpreter: String,
    node_args: Vec<String>,
    exec_mode: &'static str,
    instance_var: &'a str,
    /// Under that name.
    #[serde(flatten)]
    instance: BTreeMap<&'a str, u32>,
    pm_out_log_path: &'a Text,
    pm_err_log_path: &'a Text,
    pm_pid_path: &'a Text,
    merge_logs: bool,
    autostart: bool,
    autorestart: bool,
    watch: bool,
    vizion: bool,
    treekill: bool,
    shutdown_with_message: bool,
    max_restarts: u32,
    min_uptime: u64,
    kill_timeout: u64,
    listen_timeout: u64,
    wait_ready: bool,
    #[serde(skip_serializing_if = "is_zero")]
    restart_delay: u64,
    // pm2 takes even a zero for a wish.
    #[serde(skip_serializing_if = "is_zero")]
    exp_backoff_restart_delay: u64,
    #[serde(skip_serializing_if = "<[i32]>::is_empty")]
    stop_exit_codes: &'a [i32],
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    status: &'static str,
    axm_actions: [(); 0],
    axm_monitor: BTreeMap<(), ()>,
    axm_options: BTreeMap<(), ()>,
    axm_dynamic: BTreeMap<(), ()>,
}

impl<'a> Element<'a> {
    fn of(own: &'a Own, saved: &'a Saved) -> Element<'a> {
        let app = &own.app;
        let text = |text: &Text| text.lossy().into_owned();
        let texts = |all: &[Text]| all.iter().map(text).collect();
        let mut variables = (*app.inherit.0).clone();
        variables.0.extend(app.env.0.clone());
        app.variables.increment(&mut variables, own.instance);
        Element {
            _pmx: own,
            name: &app.name,
            namespace: &app.namespace,
            args: texts(&app.command.args),
            env: variables.0.iter().map(|(name, value)| (text(name), text(value))).collect(),
            pm_exec_path: text(&app.command.script),
            pm_cwd: text(&app.cwd),
            exec_interpreter: app.command.interpreter.as_ref().map_or("none".to_string(), text),
            node_args: texts(&app.command.interpreter_args),
            exec_mode: if app.is_cluster() { "cluster_mode" } else { "fork_mode" },
            instance_var: app.variables.instance(),
            instance: [(app.variables.instance(), own.instance)].into(),
            pm_out_log_path: &saved.out_file,
            pm_err_log_path: &saved.error_file,
            pm_pid_path: &saved.pid_file,
            merge_logs: app.merge_logs,
            autostart: app.autostart,
            autorestart: app.restart.autorestart,
            watch: false,
            vizion: false,
            treekill: app.kill_mode != KillMode::Process,
            shutdown_with_message: app.stop.with_message,
            // Of pm2 every number is one.
            max_restarts: u32::try_from(i64::from(app.restart.max_restarts)).unwrap_or(u32::MAX),
            min_uptime: app.restart.min_uptime.0,
            kill_timeout: app.kill_timeout.0,
            listen_timeout: app.listen_timeout.0,
            wait_ready: app.wait_ready,
            restart_delay: app.restart.restart_delay.0,
            exp_backoff_restart_delay: app.restart.exp_backoff.0,
            stop_exit_codes: &app.restart.stop_exit_codes,
            uid: app.user.as_ref().map(|user| user.uid),
            gid: app.user.as_ref().map(|user| user.gid),
            status: if own.up { "online" } else { "stopped" },
            axm_actions: [],
            axm_monitor: BTreeMap::new(),
            axm_options: BTreeMap::new(),
            axm_dynamic: BTreeMap::new(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
