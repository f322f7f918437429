//! What a client sees of a process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Axm;
use crate::app::App;
use crate::app::units::amount;
use crate::time::{Millis, Wall};

/// pm2's status words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Down, as wanted.
    #[serde(rename = "stopped")]
    Stopped,
    /// Spawned, not ready yet.
    #[serde(rename = "launching")]
    Launching,
    /// Up.
    #[serde(rename = "online")]
    Online,
    /// On its way down.
    #[serde(rename = "stopping")]
    Stopping,
    /// Down until its next start.
    #[serde(rename = "waiting restart")]
    Waiting,
    /// A job that waits for its date.
    #[serde(rename = "scheduled")]
    Scheduled,
    /// Not started until what it depends on has come far enough.
    #[serde(rename = "waiting")]
    Blocked,
    /// Given up.
    #[serde(rename = "errored")]
    Errored,
}

impl Status {
    /// As pm2 writes it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Stopped => "stopped",
            Status::Launching => "launching",
            Status::Online => "online",
            Status::Stopping => "stopping",
            Status::Waiting => "waiting restart",
            Status::Scheduled => "scheduled",
            Status::Blocked => "waiting",
            Status::Errored => "errored",
        }
    }
}

/// Why a child took the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It ended by itself.
    Crash,
    /// A client asked for it: a restart, a reload.
    Manual,
    /// It used more memory than it may.
    Memory,
    /// The calendar.
    Cron,
    /// A file changed.
    Watch,
    /// It failed its health check.
    Unhealthy,
    /// It did not tell in time that it is alive.
    Watchdog,
}

impl Cause {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Crash => "crash",
            Cause::Manual => "manual",
            Cause::Memory => "memory",
            Cause::Cron => "cron",
            Cause::Watch => "watch",
            Cause::Unhealthy => "unhealthy",
            Cause::Watchdog => "watchdog",
        }
    }
}

/// Whether the files of an app are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watching {
    /// No.
    #[default]
    Off,
    /// Yes.
    On,
    /// Not for a while, and why.
    Paused(String),
    /// It was asked for and cannot be done, and why.
    Failed(String),
}

impl Watching {
    /// As the list shows it; pm2 has the first two.
    pub fn word(&self) -> &'static str {
        match self {
            Watching::Off => "disabled",
            Watching::On => "enabled",
            Watching::Paused(_) => "paused",
            Watching::Failed(_) => "failed",
        }
    }
}

/// One line of `pmx list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// pm2's `pm_id`.
    pub id: u32,
    /// The app's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether its child is (or would be) a cluster worker.
    pub cluster: bool,
    /// Its place among the instances of its app, from 0.
    pub instance: u32,
    /// pm2's status.
    pub status: Status,
    /// The current child's process id; 0 when there is none.
    pub pid: u32,
    /// When the current child was spawned.
    #[serde(default)]
    pub since: Option<Wall>,
    /// How often a child was replaced, for whatever reason.
    pub restarts: u32,
    /// Unstable ends in a row.
    pub unstable: u32,
    /// CPU of all its processes in percent of one core since the last look (or since the start).
    #[serde(default)]
    pub cpu: Option<f32>,
    /// Resident memory of all its processes in bytes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// How many processes the current child and all that it brought about are.
    #[serde(default)]
    pub processes: u32,
    /// How many threads these have.
    #[serde(default)]
    pub threads: u32,
    /// When the calendar last started or restarted it.
    #[serde(default)]
    pub last_run: Option<Wall>,
    /// When it will next.
    #[serde(default)]
    pub next_run: Option<Wall>,
    /// Whether files are watched for it.
    #[serde(default)]
    pub watching: Watching,
    /// Who it runs as.
    pub user: String,
    /// How many more unstable ends or crashes it may have before it is given up; `None`: any number.
    #[serde(default)]
    pub budget_left: Option<u32>,
    /// While it waits: milliseconds until its next start.
    #[serde(default)]
    pub retry_in: Option<Millis>,
    /// Why it is not online, when there is something to say.
    #[serde(default)]
    pub reason: Option<String>,
    /// What its health checks say, if it has any.
    #[serde(default)]
    pub health: Option<Health>,
    /// What it says of itself by sd_notify (`STATUS=`).
    #[serde(default)]
    pub says: Option<String>,
    /// Its memory grows steadily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leak: Option<Leak>,
    /// So many connections its child was handed and took; `None`: the kernel deals them out, or there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
}

/// Memory that grows steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// By so many bytes per hour.
    pub rate: u64,
    /// The limit that it will reach, in bytes: `max_memory_restart`, or that of its control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When, if it goes on like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_in: Option<Millis>,
}

impl Leak {
    /// `memory grows by 12 MiB per hour, and reaches its limit of 300 MiB in 5 h`.
    pub fn text(&self) -> String {
        let grows = format!("memory grows by {} per hour", amount(self.rate));
        let (Some(limit), Some(Millis(ms))) = (self.limit, self.reached_in) else { return grows };
        let time = match ms / 60_000 {
            0 => "less than a minute".to_string(),
            minutes if minutes < 120 => format!("{minutes} min"),
            minutes if minutes < 2 * 1_440 => format!("{} h", minutes / 60),
            minutes => format!("{} days", minutes / 1_440),
        };
        format!("{grows}, and reaches its limit of {} in {time}", amount(limit))
    }
}

/// How full the queue of a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Where it listens.
    pub address: String,
    /// Connections that nobody has accepted yet.
    pub waiting: u32,
    /// How many there may be.
    pub most: u32,
}

/// What health checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// None has passed yet.
    Starting,
    /// The last ones passed.
    Healthy,
    /// So many failed in a row that it counts.
    Unhealthy,
}

impl Health {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// All that `describe` and `jlist` show. The app comes without the environment it inherits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The list's line.
    #[serde(flatten)]
    pub view: View,
    /// What was declared.
    pub app: App,
    /// Where stdout goes.
    pub out_file: String,
    /// Where stderr goes.
    pub error_file: String,
    /// Where both go, beside that.
    #[serde(default)]
    pub log_file: Option<String>,
    /// So many lines of its output found no room since the daemon began.
    #[serde(default)]
    pub lines_lost: u64,
    /// So many bytes of output it has written in that time.
    #[serde(default)]
    pub log_bytes: u64,
    /// When it was added or last reset.
    pub created: Wall,
    /// How often a child took the place of another, by cause.
    #[serde(default)]
    pub by_cause: BTreeMap<Cause, u32>,
    /// Dates of a job that were left out, because it ran.
    #[serde(default)]
    pub skipped: u32,
    /// Why the last one did.
    #[serde(default)]
    pub last_restart: Option<String>,
    /// The last ends of children, newest last, at most [`Detail::EXITS`].
    pub exits: Vec<Exit>,
    /// The last lines of the child that ended last, when it ended by itself.
    #[serde(default)]
    pub last_lines: Vec<String>,
    /// A child on its way in or out beside the current one.
    #[serde(default)]
    pub beside: Option<Child>,
    /// Addresses its workers share.
    #[serde(default)]
    pub listens: Vec<String>,
    /// The queues that its child accepts from, as far as they are TCP; those of `rr` and `shared` are its siblings' too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<Queue>,
    /// How many files its processes have open, as far as we may look.
    #[serde(default)]
    pub fds: Option<u32>,
    /// How the last health check failed, unless it passed.
    #[serde(default)]
    pub health_error: Option<String>,
    /// What it said last by sd_notify: `ready`, `reloading`, `stopping`; `silent`: its watchdog waits in vain.
    #[serde(default)]
    pub said: Option<String>,
    /// How long it may be silent.
    #[serde(default)]
    pub watchdog: Option<Millis>,
    /// Its main process, if it told of another than the one that was started.
    #[serde(default)]
    pub main_pid: Option<i32>,
    /// The runtime's own version, where it told us (Node).
    #[serde(default)]
    pub node_version: Option<String>,
    /// What its child has told by axm messages.
    #[serde(default, skip_serializing_if = "Axm::is_empty")]
    pub axm: Axm,
    /// Messages that were not for its child, because it did not read.
    #[serde(default)]
    pub lost: u64,
}

impl Detail {
    /// How many ends of children are remembered.
    pub const EXITS: usize = 8;
}

/// A child beside the current one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// Its process id.
    pub pid: u32,
    /// `starting`, `baking`, `draining`, `stopping`, `killed`.
    pub phase: String,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// When.
    pub at: Wall,
    /// Its process id.
    pub pid: u32,
    /// How long it lived.
    pub lived: Millis,
    /// Its exit code, when it exited.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that killed it, when one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// A sentence: `exit code 1`, `killed by SIGKILL`, `could not be started: …`.
    pub text: String,
    /// Why it was told to end; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it used, where the kernel told us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// What a child used in its life, with those of its children that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time in its own code, in ms.
    pub user_ms: u64,
    /// The same in the kernel.
    pub system_ms: u64,
    /// The most memory that it, or one of them, had resident, in KiB.
    pub max_rss_kb: u64,
}
