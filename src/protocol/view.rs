//! What a client sees of a process.

use serde::{Deserialize, Serialize};

use crate::app::App;
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
            Status::Errored => "errored",
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
    /// CPU in percent of one core since the last look (or since the start).
    #[serde(default)]
    pub cpu: Option<f32>,
    /// Resident memory in bytes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Who it runs as.
    pub user: String,
    /// While it waits: milliseconds until its next start.
    #[serde(default)]
    pub retry_in: Option<Millis>,
    /// Why it is not online, when there is something to say.
    #[serde(default)]
    pub reason: Option<String>,
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
    /// When it was added or last reset.
    pub created: Wall,
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
    /// The runtime's own version, where it told us (Node).
    #[serde(default)]
    pub node_version: Option<String>,
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
}
