//! `prettylist`, `slist`, and `report`: a text to be pasted into an issue, so nothing of it comes out of an
//! environment or from the arguments of an app.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::Session;
use super::act::{self, details};
use super::connect::Connection;
use super::format::{age, bytes, percent};
use super::inspect::inspect;
use super::jlist;
use super::list::now;
use super::screen::{Fail, escaped};
use super::system;
use crate::protocol::{Answer, Detail, Verb};
use crate::sys::{limits, proc, users};
use crate::time::Wall;

/// Lines of the daemon's own log.
const LOG_LINES: u64 = 20;
/// The end of the log that is read at most.
const LOG_BYTES: u64 = 64 << 10;

/// `pmx prettylist`.
pub fn prettylist(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let details = details(session, &["all".to_string()])?;
    let elements: Vec<Value> = details.iter().map(|detail| jlist::element(detail, &session.home)).collect();
    // As pm2: no newline.
    session.screen.data(inspect(&Value::Array(elements)).as_bytes())
}

/// `pmx slist`: the machine in numbers. It needs no daemon.
pub fn slist(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let metrics = metrics(&session.home.path);
    if session.options.tree {
        for (name, metric) in &metrics {
            let unit = metric["unit"].as_str().unwrap_or_default();
            session.screen.data(format!("{name}: {} {unit}", metric["value"]).trim_end().as_bytes())?;
            session.screen.data(b"\n")?;
        }
        return Ok(());
    }
    session.screen.data((inspect(&Value::Object(metrics)) + "\n").as_bytes())
}

fn metrics(home: &Path) -> Map<String, Value> {
    let mut metrics = Map::new();
    let mut put = |name: &str, value: Option<f64>, unit: &str| {
        let Some(value) = value else { return };
        let rounded = (value * 100.0).round() / 100.0;
        let value = if rounded.fract() == 0.0 { json!(rounded as u64) } else { json!(rounded) };
        metrics.insert(name.to_string(), json!({ "value": value, "unit": unit }));
    };
    let megabytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let (usable, present) = system::processors();
    put("CPU Usage", system::busy(), "%");
    put("CPUs", Some(present as f64), "");
    put("CPUs Usable", Some(f64::from(usable)), "");
    for (at, minutes) in [1, 5, 15].into_iter().enumerate() {
        put(&format!("Load {minutes} min"), system::load().map(|load| load[at]), "");
    }
    let (total, available) = (system::memory("MemTotal"), system::memory("MemAvailable"));
    put("Memory Total", megabytes(total), "MB");
    put("Memory Available", megabytes(available), "MB");
    let used = total.zip(available).map(|(total, free)| (total - free) as f64 * 100.0 / total as f64);
    put("Memory Usage", used, "%");
    let swap = system::memory("SwapTotal").zip(system::memory("SwapFree"));
    put("Swap Used", megabytes(swap.map(|(total, free)| total - free)), "MB");
    let disk = system::disk(home).or_else(|| system::disk(Path::new("/")));
    put("Disk Free", megabytes(disk.map(|disk| disk.0)), "MB");
    put("Disk Usage", disk.map(|(free, all)| (all - free) as f64 * 100.0 / all.max(1) as f64), "%");
    let network = system::network();
    put("Network In", megabytes(network.map(|network| network.0)), "MB");
    put("Network Out", megabytes(network.map(|network| network.1)), "MB");
    put("Uptime", system::uptime(), "s");
    metrics
}

/// `pmx report`. No daemon is started for it.
pub fn report(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let mut text = String::from("pmx report (it holds no environment and no arguments)\n");
    daemon(session, &mut text)?;
    section(&mut text, "Command line");
    row(&mut text, "version", env!("CARGO_PKG_VERSION"));
    let exe = std::env::current_exe().map(|path| path.display().to_string());
    row(&mut text, "program", &exe.unwrap_or_default());
    row(&mut text, "user", &users::name_of(users::effective_uid()));
    row(&mut text, "as pm2", &session.caller.is_pm2().to_string());
    row(&mut text, "node", &node(session).unwrap_or_else(|| "none on PATH".to_string()));
    machine(&mut text);
    if session.connection.is_some() {
        let details = details(session, &["all".to_string()])?;
        section(&mut text, &format!("Processes ({})", details.len()));
        for detail in &details {
            process(&mut text, detail, now());
        }
    }
    let log = session.home.log();
    section(&mut text, &format!("Last {LOG_LINES} lines of {}", log.display()));
    for line in last_lines(&log, LOG_LINES) {
        let _ = writeln!(text, "{}", escaped(&line));
    }
    session.screen.data(text.as_bytes())
}

fn section(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n--- {} ---", escaped(title));
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<14} {}", escaped(value));
}

fn daemon(session: &mut Session<'_, '_>, text: &mut String) -> Result<(), Fail> {
    section(text, "Daemon");
    row(text, "home", &session.home.path.display().to_string());
    session.connection = Connection::existing(&session.home)?;
    let Some(connection) = session.connection.as_mut() else {
        row(text, "runs", "no");
        return Ok(());
    };
    let (version, pid) = match connection.request(Verb::Ping, &mut |_| {}).map_err(String::from)? {
        Answer::Pong { version, pid } => (version, pid),
        other => return Err(Fail::Sentence(act::unexpected(&other))),
    };
    row(text, "version", &version);
    row(text, "pid", &pid.to_string());
    let stat = proc::stat(pid as i32);
    if let Some((started, up)) = stat.and_then(|stat| Some((stat.started_ms(), system::uptime()?))) {
        row(text, "uptime", &age(Wall(started), Wall((up * 1_000.0) as u64)));
    }
    if let Some(stat) = stat {
        row(text, "memory", &bytes(stat.rss_bytes));
    }
    if let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) {
        row(text, "open files", &fds.count().to_string());
    }
    if let Some(group) = system::line(&format!("/proc/{pid}/cgroup")) {
        row(text, "control group", &group.replace('\n', " "));
    }
    Ok(())
}

fn machine(text: &mut String) {
    section(text, "System");
    let mut known = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            row(text, name, &value);
        }
    };
    known("kernel", system::line("/proc/sys/kernel/osrelease"));
    known("distribution", system::distribution());
    known("architecture", Some(std::env::consts::ARCH.to_string()));
    let (usable, present) = system::processors();
    known("processors", Some(format!("{present}, of which {usable} may be used")));
    known("load", system::line("/proc/loadavg"));
    known("memory", system::memory("MemTotal").map(bytes));
    known("available", system::memory("MemAvailable").map(bytes));
    known("limit", Some(bytes(limits::memory())));
    known("first process", system::line("/proc/1/comm"));
}

fn process(text: &mut String, detail: &Detail, now: Wall) {
    let Detail { view, app, .. } = detail;
    let mode = if view.cluster { "cluster" } else { "fork" };
    let up = view.since.filter(|_| view.pid != 0).map_or("0".to_string(), |since| age(since, now));
    let _ = writeln!(
        text,
        "{} {} [{}] {mode} {}: pid {}, up {up}, {} restarts, {}, {}, {} processes",
        view.id,
        escaped(&view.name),
        escaped(&view.namespace),
        view.status.word(),
        view.pid,
        view.restarts,
        view.cpu.map_or("-".to_string(), percent),
        view.memory.map_or("-".to_string(), bytes),
        view.processes,
    );
    let interpreter = app.command.interpreter.as_ref().map_or("none".into(), |name| name.lossy());
    let version = detail.node_version.as_ref().map_or(String::new(), |version| format!(" {version}"));
    let script = app.command.script.lossy();
    let _ = writeln!(text, "    {} by {}{}", escaped(&script), escaped(&interpreter), escaped(&version));
    if let Some(reason) = &view.reason {
        let _ = writeln!(text, "    {}", escaped(reason));
    }
    for exit in &detail.exits {
        let lived = age(Wall(0), Wall(exit.lived.0));
        let _ = writeln!(text, "    {} after {lived}: {}", exit.at, escaped(&exit.text));
    }
}

/// What the Node on PATH says of itself.
fn node(session: &Session<'_, '_>) -> Option<String> {
    let path = session.caller.var("PATH")?;
    let program =
        std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file())?;
    let ran =
        Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(format!("{} ({})", String::from_utf8_lossy(&ran.stdout).trim(), program.display()))
}

/// The last lines of a file, as far as they are within its last [`LOG_BYTES`].
pub fn last_lines(path: &Path, count: u64) -> Vec<String> {
    use std::os::unix::fs::FileExt;
    let read = || {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        let start =
            crate::logs::tail::start_of_last(&file, end, count, 0)?.max(end.saturating_sub(LOG_BYTES));
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(String::from).collect()
}
