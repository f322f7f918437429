//! Tells whom an app declares for what happens to it (`on`): by helpers of ours (`pmx alert --deliver`), a few at a time,
//! so that nobody who is slow or gone holds up the loop. Each helper keeps its own time: one whose daemon dies
//! finishes what it has, and what waits then is lost.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::bounds;
use super::children::{Children, c_environment, c_string};
use super::event_loop::Daemon;
use super::home::Home;
use crate::app::{self, App, Delivery, Identity, Occasion, Way};
use crate::protocol::{Cause, EventKind};
use crate::supervisor::{ProcId, Process};
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::spawn::{self, Spawn};
use crate::sys::{clock, failpoint, pidfd, pipe, proc};
use crate::time::{Millis, Mono, Wall};

/// The version of what is told. A new key is free; anything else raises it.
const VERSION: u32 = 1;
/// Helpers at a time.
const HELPERS: usize = 4;
/// Alerts that wait for one.
const WAITING: usize = 100;
/// Alerts of all apps in a minute.
const A_MINUTE: u32 = 60;
const MINUTE: Millis = Millis(60_000);
/// Alerts of which it is remembered when they were last sent, and for how long where there are more.
const REMEMBERED: usize = 1_000;
const LONG_AGO: Millis = Millis(3_600_000);
/// So much later than it should be done a helper is ended.
const GRACE: Millis = Millis(2_000);
/// What a webhook gets of the environment of its app: how to find curl, and how that finds its way.
const OF_WEB: [&str; 12] = [
    "PATH",
    "HOME",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
];

/// Something that happened to a process.
#[derive(Debug)]
pub struct Happened {
    /// What.
    pub occasion: Occasion,
    /// Why a child took the place of another.
    pub cause: Option<Cause>,
    /// For people.
    pub reason: String,
    /// What can be measured of it: an object, or nothing.
    pub numbers: Value,
}

impl Happened {
    /// Nothing more is to be said of it.
    pub fn new(occasion: Occasion, reason: impl Into<String>) -> Happened {
        Happened { occasion, cause: None, reason: reason.into(), numbers: Value::Null }
    }
}

/// What there is to be told, and who tells it.
#[derive(Debug, Default)]
pub struct Dispatch {
    waiting: VecDeque<Waiting>,
    /// What each helper tells, and when it is ended.
    running: BTreeMap<i32, (String, Mono)>,
    /// When an alert was last sent, and how many were left out since.
    sent: HashMap<Key, (Option<Mono>, u64)>,
    /// The begin of this minute, and how many there were in it.
    minute: (Mono, u32),
}

/// An alert of an app.
type Key = (String, String, Occasion, usize);

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    app: Arc<App>,
    id: u32,
    instance: u32,
    created: Wall,
}

impl Dispatch {
    /// When a helper must be ended.
    pub fn deadline(&self) -> Option<Mono> {
        self.running.values().map(|(_, until)| *until).min()
    }

    /// Whether all is told.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// A process that belongs to no app has ended. True: it was a helper.
    pub fn reaped(&mut self, reaped: &Reaped) -> bool {
        let Some((about, _)) = self.running.remove(&reaped.pid) else { return false };
        if !matches!(reaped.status, ExitStatus::Code(_)) {
            log::warn!("alert {about}: {}", super::children::describe(reaped.status));
        }
        true
    }

    /// Whether an alert is sent now: if so, how many were left out since the last one.
    fn admit(&mut self, key: Key, min_interval: Millis, now: Mono) -> Option<u64> {
        if now.since(self.minute.0) >= MINUTE {
            self.minute = (now, 0);
        }
        if self.sent.len() >= REMEMBERED && !self.sent.contains_key(&key) {
            self.sent.retain(|_, (sent, _)| sent.is_some_and(|sent| now.since(sent) < LONG_AGO));
            if self.sent.len() >= REMEMBERED {
                self.sent.clear();
            }
        }
        let (sent, left_out) = self.sent.entry(key).or_default();
        let is_soon = sent.is_some_and(|sent| now.since(sent) < min_interval);
        if is_soon || self.waiting.len() >= WAITING || self.minute.1 >= A_MINUTE {
            *left_out += 1;
            if !is_soon && self.minute.1 == A_MINUTE {
                self.minute.1 += 1;
                log::warn!("more than {A_MINUTE} alerts in a minute: some are left out");
            }
            return None;
        }
        self.minute.1 += 1;
        *sent = Some(now);
        Some(std::mem::take(left_out))
    }

    /// Ends helpers whose time is over, or all of them.
    fn end(&mut self, now: Option<Mono>) {
        for (pid, (about, until)) in &self.running {
            if now.is_some_and(|now| *until > now) {
                continue;
            }
            log::warn!("alert {about}: given up");
            // Not reaped yet, so the pid is still its own. It is a subreaper: whoever left its group is below it.
            for below in proc::descendants(*pid).unwrap_or_default() {
                let _ = pidfd::send(None, below, libc::SIGKILL);
            }
            let _ = pidfd::send_group(*pid, libc::SIGKILL);
        }
    }
}

impl Daemon {
    /// Something happened to a process: tells whom its app, or the settings of the home, name for that.
    pub(super) fn alert(&mut self, id: ProcId, happened: &Happened) {
        let Some(process) = self.supervisor.process(id) else { return };
        let occasion = happened.occasion;
        self.desk.rules.look(self.now);
        let of_all = self.desk.rules.alerts.of(occasion);
        if self.board.safe.load(std::sync::atomic::Ordering::SeqCst)
            || (process.app.on.of(occasion).is_empty() && of_all.is_empty())
        {
            return;
        }
        let app = process.app.clone();
        let mut event = None;
        // Those of all are told apart from its own.
        let of_all = of_all.iter().enumerate().map(|(at, alert)| (usize::MAX - at, alert));
        for (at, alert) in app.on.of(occasion).iter().enumerate().chain(of_all) {
            let key = (app.namespace.clone(), app.name.clone(), occasion, at);
            let Some(suppressed) = self.dispatch.admit(key, alert.min_interval, self.now) else { continue };
            let mut event = event.get_or_insert_with(|| self.event(process, happened)).clone();
            event["suppressed"] = suppressed.into();
            let about = format!("{} of {}({})", occasion.word(), app.name, id.0);
            self.dispatch.waiting.push_back(Waiting {
                delivery: Delivery { about, alert: alert.clone(), event },
                app: app.clone(),
                id: id.0,
                instance: process.instance,
                created: self.memories.get(id).map_or(Wall(0), |memory| memory.created),
            });
        }
    }

    /// What the bus hears, for those who are to be told of it.
    pub(super) fn alert_of_event(&mut self, id: ProcId, kind: EventKind, detail: &str) {
        if let Some(occasion) = occasion(kind) {
            self.alert(id, &Happened::new(occasion, detail));
        }
    }

    /// Logs found no room since the last round, and files are on disks with little room.
    pub(super) fn alert_of_room(&mut self, short: &[PathBuf]) {
        for (id, lost) in std::mem::take(&mut self.children.losing) {
            let total = self.children.log_counts(id).lost;
            let reason = format!("log lines found no room: {lost}");
            let numbers = json!({"lines_lost": total});
            self.alert(id, &Happened { numbers, ..Happened::new(Occasion::Disk, reason) });
        }
        if short.is_empty() {
            return;
        }
        let files = |process: &Process| {
            let mut files = self.home.log_files(&process.app, process.id.0);
            files.find(|file| short.contains(file)).map(|file| (process.id, file))
        };
        let concerned: Vec<_> = self.supervisor.processes().filter_map(files).collect();
        for (id, file) in concerned {
            let free = nix::sys::statvfs::statvfs(&file)
                .map(|found| found.blocks_available() * found.fragment_size())
                .ok();
            let reason = "the disk of its log is almost full: old logs are removed";
            let numbers = json!({
                "lines_lost": self.children.log_counts(id).lost, "file": file.to_string_lossy(), "free": free,
            });
            self.alert(id, &Happened { numbers, ..Happened::new(Occasion::Disk, reason) });
        }
    }

    /// What is told.
    fn event(&self, process: &Process, happened: &Happened) -> Value {
        let memory = self.memories.get(process.id);
        // An end that the reason does not speak of is another one.
        let exit = memory.and_then(|memory| memory.last_exit());
        let exit = exit.filter(|exit| happened.reason.contains(&exit.text));
        let child = process.child().and_then(|child| self.children.get(child));
        let lines = match (memory, child) {
            (Some(memory), _) if exit.is_some() || happened.occasion == Occasion::ReloadFailed => {
                memory.last_lines().to_vec()
            }
            (_, Some(child)) => child.last_lines(),
            _ => Vec::new(),
        };
        let pid = exit.map(|exit| u64::from(exit.pid)).or(child.map(|child| child.pid as u64));
        json!({
            "version": VERSION,
            "event": happened.occasion.word(),
            "time": clock::wall().to_string(),
            "host": host(),
            "app": process.app.name,
            "namespace": process.app.namespace,
            "id": process.id.0,
            "instance": process.instance,
            "pid": pid,
            "status": process.status().word(),
            "reason": happened.reason,
            "cause": happened.cause.map(Cause::word),
            "exit_code": exit.and_then(|exit| exit.code),
            "signal": exit.and_then(|exit| exit.signal).map(crate::sys::signals::name),
            "restarts": process.record.restarts,
            "numbers": happened.numbers,
            "lines": lines,
        })
    }

    /// Starts helpers for what waits, and ends those that are late.
    pub(super) fn send_alerts(&mut self) {
        if self.dispatch.deadline().is_some_and(|until| until <= self.now) {
            self.dispatch.end(Some(self.now));
            // It is gone when it is reaped; until then it is waited for again.
            let again = self.now + GRACE;
            self.dispatch.running.values_mut().for_each(|(_, until)| *until = (*until).max(again));
        }
        while self.dispatch.running.len() < HELPERS
            && let Some(waiting) = self.dispatch.waiting.pop_front()
        {
            let about = waiting.delivery.about.clone();
            let until = self.now + waiting.delivery.alert.timeout + GRACE;
            failpoint::reach("before-alert");
            match start(&self.home, &self.children, &waiting) {
                Ok(pid) => {
                    self.dispatch.running.insert(pid, (about, until));
                }
                Err(error) => log::warn!("alert {about}: start a helper: {error}"),
            }
            failpoint::reach("after-alert");
        }
    }

    /// The daemon ends: nobody is told any more.
    pub(super) fn end_alerts(&mut self) {
        for waiting in std::mem::take(&mut self.dispatch.waiting) {
            log::warn!("alert {}: given up", waiting.delivery.about);
        }
        self.dispatch.end(None);
    }
}

/// What has the name of an event is told when that is published; a leak is told with its numbers by who finds it.
fn occasion(kind: EventKind) -> Option<Occasion> {
    let is_it = |occasion: &Occasion| {
        kind != EventKind::Leak && occasion.word().split('_').eq(kind.word().split(' '))
    };
    Occasion::ALL.into_iter().find(is_it)
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_string()
}

/// Starts a helper. What it is to do lies in memory until it has read it, whatever becomes of us. A command runs
/// as the app does; a webhook is our own, so that nobody else sees what is secret in it.
fn start(home: &Home, children: &Children, waiting: &Waiting) -> Result<i32, String> {
    let Waiting { delivery, app, .. } = waiting;
    let text = serde_json::to_vec(delivery).map_err(|error| error.to_string())?;
    let order = pipe::memfd("pmx-alert", &text).map_err(|error| crate::sys::reason(&error))?;
    let identity = Identity {
        id: waiting.id,
        instance: waiting.instance,
        created: waiting.created,
        home: home.path(),
        notify: None,
        cluster: app.is_cluster(),
        mark: "",
    };
    let is_web = matches!(delivery.alert.way, Way::Url { .. });
    let mut env = app::environment(app, &identity, None);
    // It is none of the app's own processes.
    env.0.remove(&app::Text::from("PMX_INSTANCE"));
    if is_web {
        env.0.retain(|name, _| OF_WEB.contains(&&*name.lossy()));
    } else {
        for (name, value) in app::variables_of_alert(&delivery.event) {
            env.set(name, value);
        }
    }
    let limits = bounds::limits(&app.limits);
    let (cwd, runs_as) = match is_web {
        true => {
            let (nofile, oom_score_adj) = (children.nofile, children.oom_score_adj);
            (c"/".to_owned(), Spawn { umask: 0o077, nofile, oom_score_adj, ..Spawn::default() })
        }
        false => (c_string(app.cwd.bytes())?, bounds::spawn(app, &limits, children)),
    };
    let spawned = spawn::spawn(&Spawn {
        programs: &[c"/proc/self/exe".to_owned()],
        argv: &[c"pmx", c"alert", c"--deliver"].map(CStr::to_owned),
        env: &c_environment(&env)?,
        cwd: &cwd,
        // What it has to complain about is for our log.
        fds: &[(order.as_raw_fd(), 0), (2, 1), (2, 2)],
        ..runs_as
    })
    .map_err(|error| error.to_string())?;
    Ok(spawned.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: usize) -> Key {
        (String::new(), app.to_string(), Occasion::Crash, 0)
    }

    #[test]
    fn events_are_told_by_their_names() {
        for (kind, expected) in [
            (EventKind::Errored, Some(Occasion::Errored)),
            (EventKind::ReloadFailed, Some(Occasion::ReloadFailed)),
            (EventKind::Unhealthy, Some(Occasion::Unhealthy)),
            (EventKind::Exited, None),
            (EventKind::Reloaded, None),
        ] {
            assert_eq!(occasion(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_comes_too_soon_is_left_out_and_counted() {
        let mut dispatch = Dispatch::default();
        let mut admit = |at| dispatch.admit(key(0), Millis(10_000), Mono(at));
        assert_eq!(admit(100), Some(0));
        assert_eq!((admit(101), admit(10_099)), (None, None));
        assert_eq!((admit(10_100), admit(20_100)), (Some(2), Some(0)));
        let other = (String::new(), "0".to_string(), Occasion::Oom, 0);
        assert_eq!(dispatch.admit(other, Millis(10_000), Mono(20_101)), Some(0));
    }

    #[test]
    fn there_are_so_many_in_a_minute_and_so_many_are_remembered() {
        let mut dispatch = Dispatch::default();
        let start = 1_000_000;
        let sent = (0..2_000).filter(|app| dispatch.admit(key(*app), Millis(0), Mono(start)).is_some());
        assert_eq!(sent.count(), A_MINUTE as usize);
        assert!(dispatch.sent.len() <= REMEMBERED);
        assert_eq!(dispatch.admit(key(1_999), Millis(0), Mono(start + 60_000)), Some(1));
        // However many come one after the other.
        for app in 0..5_000 {
            dispatch.admit(key(app), Millis(0), Mono(start + 61_000 * app as u64));
        }
        assert!(dispatch.sent.len() <= REMEMBERED, "{}", dispatch.sent.len());
    }
}
