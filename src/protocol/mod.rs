//! The control protocol, shared by the daemon and its clients: one JSON object per line, both ways.
//!
//! A client sends a [`Request`]; the daemon answers with any number of [`Progress`] messages and then
//! exactly one `done` or `error`, all under the request's id. After `subscribe`, events follow.
//! Adding an optional field is free; anything else raises [`VERSION`].

mod axm;
mod frame;
pub mod samples;
mod token;
mod topic;
mod view;

pub use axm::Axm;
pub use frame::{FRAME_LIMIT, FrameError, Frames};
pub use token::{Admission, TOKEN_FILE, Token};
pub use topic::{RESERVED, TOPIC_LIMIT, matches, pattern_fault, topic_fault};
pub use view::{Cause, Child, Detail, Exit, Health, Leak, Queue, Status, Used, View, Watching};

use serde::{Deserialize, Serialize};

use crate::app::dump::Saved;
use crate::app::{App, Changes, SharedEnv, Text};
use crate::time::Wall;

/// The version that both ends must speak.
pub const VERSION: u32 = 1;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The protocol version of the client, [`VERSION`].
    pub v: u32,
    /// Chosen by the client; repeated in every answer.
    pub id: u64,
    /// Sent a second time, after [`Message::Resumed`]: it is ignored if the first one arrived after all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// What is asked for.
    #[serde(flatten)]
    pub verb: Verb,
}

/// Everything that can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// Are you there?
    Ping,
    /// All processes, short form. Answered by [`Answer::List`].
    List,
    /// The addressed processes, all facts. Answered by [`Answer::Details`].
    Describe {
        /// Which ones; see [`Verb::Stop`].
        targets: Vec<String>,
    },
    /// What happened to processes of late, those that were deleted included. Answered by [`Answer::History`].
    History {
        /// Only to those of this name.
        #[serde(default)]
        name: Option<String>,
    },
    /// Add apps and start them. Answered by [`Answer::Outcomes`] once each instance is online.
    Start {
        /// The apps; all are checked before the first is started.
        apps: Vec<App>,
        /// [`App::inherit`] of each of them, sent once.
        #[serde(default)]
        inherit: SharedEnv,
        /// What to do about a process with the same name and script.
        existing: Existing,
    },
    /// Everything that was declared, as it is written to disk. Answered by [`Answer::Dump`].
    Dump,
    /// Put back what is missing of a saved list. What is there is left as it is. Answered by
    /// [`Answer::Outcomes`] for what was started, once it is online.
    Resurrect {
        /// The processes; all are checked before the first is started.
        processes: Vec<Revived>,
    },
    /// Stop, and keep in the list. Each target is `all`, an id, a name or a namespace.
    Stop {
        /// Which ones.
        targets: Vec<String>,
    },
    /// Stop, then start again.
    Restart {
        /// Which ones.
        targets: Vec<String>,
        /// Options to apply first.
        #[serde(default)]
        changes: Box<Changes>,
    },
    /// Replace each child by a new one; the old one leaves only when the new one serves.
    Reload {
        /// Which ones.
        targets: Vec<String>,
        /// Options to apply first.
        #[serde(default)]
        changes: Box<Changes>,
        /// How many slots to replace at a time; `None`: one.
        #[serde(default)]
        parallel: Option<u32>,
    },
    /// Change the number of instances of an app.
    Scale {
        /// The app's name.
        name: String,
        /// To how many.
        to: Scale,
    },
    /// Stop, and forget.
    Delete {
        /// Which ones.
        targets: Vec<String>,
    },
    /// Set the restart counters to zero.
    Reset {
        /// Which ones.
        targets: Vec<String>,
    },
    /// Send a signal to the process of each target.
    Signal {
        /// Which ones.
        targets: Vec<String>,
        /// The signal's number.
        signal: i32,
    },
    /// Truncate log files. No targets: those of every process and the daemon's own.
    Flush {
        /// Which ones.
        targets: Vec<String>,
    },
    /// Open log files anew that are not what stands under their names: somebody has moved them.
    ReloadLogs,
    /// Is everything online, and not about to end? Answered by [`Answer::Healthy`], or the reason why not.
    Health {
        /// Only this app.
        #[serde(default)]
        app: Option<String>,
    },
    /// Give a message to the present child of each target, on its channel.
    Tell {
        /// Which ones.
        targets: Vec<String>,
        /// The message.
        message: serde_json::Value,
    },
    /// Write a line to the stdin of each target, which was declared to be a pipe.
    Input {
        /// Which ones.
        targets: Vec<String>,
        /// The line, without its newline.
        line: Text,
    },
    /// Give a message to everybody who subscribed to its topic.
    Publish {
        /// The topic.
        topic: String,
        /// What is said.
        data: serde_json::Value,
    },
    /// From now on send the messages of the bus whose topics these patterns cover, see [`matches`].
    Listen {
        /// The patterns; `pmx.#` are our own events.
        patterns: Vec<String>,
    },
    /// From now on send events on this connection.
    Subscribe,
    /// Stop every process and end the daemon. Answered when all are gone.
    Kill,
    /// Become another program, or the same anew, with everything as it is. Answered by [`Answer::Updated`],
    /// on the same connection.
    Update {
        /// The path of the program.
        program: Text,
    },
}

impl Verb {
    /// Whether it changes nothing, or leads out of a daemon that may change nothing.
    pub fn only_looks(&self) -> bool {
        match self {
            Verb::Ping | Verb::List | Verb::Describe { .. } | Verb::Subscribe | Verb::Dump => true,
            Verb::Listen { .. } | Verb::History { .. } => true,
            Verb::Tell { .. } | Verb::Publish { .. } | Verb::Input { .. } => false,
            Verb::Kill | Verb::Update { .. } | Verb::Health { .. } => true,
            Verb::Start { .. } | Verb::Stop { .. } | Verb::Restart { .. } | Verb::Reload { .. } => false,
            Verb::Scale { .. } | Verb::Delete { .. } | Verb::Reset { .. } | Verb::Signal { .. } => false,
            Verb::Flush { .. } | Verb::Resurrect { .. } | Verb::ReloadLogs => false,
        }
    }
}

/// The target that means the process with this id, also where a process is called by a number. No name
/// begins like this, because names hold no control characters.
pub fn by_id(id: u32) -> String {
    format!("{ID}{id}")
}

/// What a target by id begins with.
pub const ID: char = '\u{1}';

/// What `start` does about a process that has the same name and script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Refuse while it runs; start it again when it is down.
    Refuse,
    /// Start one more.
    Force,
    /// Restart it with the new declaration (a declaration file is started again).
    Restart,
    /// Reload it with the new declaration, one at a time.
    Reload,
}

/// One process of a saved list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revived {
    /// What it runs.
    pub app: App,
    /// Its place among the instances of its app: it is missing if nobody has that.
    pub instance: u32,
    /// How it comes back.
    pub begin: Begin,
}

/// How a process of a saved list comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Begin {
    /// Started.
    Up,
    /// In the list, and not started.
    Stopped,
    /// In the list as errored: it cannot run, and this is why.
    Errored(String),
}

/// A new number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Exactly so many.
    To(u32),
    /// So many more.
    Add(u32),
    /// So many fewer.
    Remove(u32),
}

/// What the daemon sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// Something happened on the way to the answer.
    Progress {
        /// The request's id.
        id: u64,
        /// What happened.
        progress: Progress,
    },
    /// The answer.
    Done {
        /// The request's id.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// The request as a whole was refused or failed.
    Error {
        /// The request's id; 0 when the request could not be read.
        id: u64,
        /// One sentence: what was attempted, on what, why it failed.
        error: String,
    },
    /// Somebody published something; only after [`Verb::Listen`].
    Bus(BusMessage),
    /// Something happened to a process; only after [`Verb::Subscribe`].
    Event(Event),
    /// Another daemon has taken over, on the same connection. Requests that are not among these are lost,
    /// and are to be sent again.
    Resumed {
        /// The requests that it will answer.
        pending: Vec<u64>,
    },
}

/// One step of an operation that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The process it is about.
    pub outcome: Outcome,
    /// How many of the operation's processes are settled.
    pub settled: u32,
    /// How many it has in all.
    pub total: u32,
}

/// The answers, by verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Verb::Ping`], [`Verb::Subscribe`].
    Pong {
        /// The daemon's package version.
        version: String,
        /// The daemon's process id.
        pid: u32,
    },
    /// To [`Verb::List`].
    List(Vec<View>),
    /// To [`Verb::Describe`].
    Details(Vec<Detail>),
    /// To [`Verb::History`], oldest first.
    History(Vec<Event>),
    /// To everything that acts on processes: one entry per process.
    Outcomes(Vec<Outcome>),
    /// To [`Verb::Health`].
    Healthy,
    /// To [`Verb::Dump`], by id.
    Dump(Vec<Saved>),
    /// To [`Verb::Update`].
    Updated {
        /// The version that was.
        from: String,
        /// The version that is.
        to: String,
        /// The new daemon's process id.
        pid: u32,
        /// How many children it took over.
        kept: u32,
    },
    /// To [`Verb::Kill`]: how many processes were stopped.
    Killed {
        /// So many.
        stopped: u32,
    },
}

/// What became of one process in an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The process.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// `None`: done as asked.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// What was done instead of what such a command usually does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// What is worth knowing besides: what had to give way, what goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Outcome {
    /// Done as asked.
    pub fn done(id: u32, name: &str) -> Outcome {
        Outcome { id, name: name.to_string(), failure: None, instead: None, note: None }
    }
}

/// Why an operation failed for one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence, lower case, no full stop.
    pub reason: String,
    /// The last lines the failed child wrote, oldest first.
    #[serde(default)]
    pub last_lines: Vec<String>,
}

/// A message of the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusMessage {
    /// When.
    pub at: Wall,
    /// Under what.
    pub topic: String,
    /// What.
    pub data: serde_json::Value,
    /// Which process published it, as pmx knows it; `None`: a client, or pmx itself (`pmx.…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
    /// How many messages before this one were lost, because their receiver did not keep up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who published a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// The process.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// What.
    pub kind: EventKind,
    /// The process.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Details for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl EventKind {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            EventKind::Added => "added",
            EventKind::Spawned => "started",
            EventKind::Online => "online",
            EventKind::Stopping => "stopping",
            EventKind::Stopped => "stopped",
            EventKind::Exited => "exited",
            EventKind::Waiting => "waiting",
            EventKind::Reloaded => "reloaded",
            EventKind::ReloadFailed => "reload failed",
            EventKind::Evicted => "evicted",
            EventKind::Errored => "errored",
            EventKind::Deleted => "deleted",
            EventKind::Healthy => "healthy",
            EventKind::Unhealthy => "unhealthy",
            EventKind::Leak => "leak",
            EventKind::Message => "message",
        }
    }
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Added to the list.
    Added,
    /// A child was spawned.
    Spawned,
    /// It serves.
    Online,
    /// A stop was asked for.
    Stopping,
    /// It is down on request, or done.
    Stopped,
    /// A child ended; the detail says how.
    Exited,
    /// It waits for its next start; the detail says how long.
    Waiting,
    /// A reload replaced its child.
    Reloaded,
    /// A reload failed; the old child serves on.
    ReloadFailed,
    /// An old child that still drained was told to stop: its place is wanted.
    Evicted,
    /// The restart budget is spent.
    Errored,
    /// It was removed from the list.
    Deleted,
    /// Its health checks pass.
    Healthy,
    /// Its health checks fail; the detail says how.
    Unhealthy,
    /// Its memory grows steadily; the detail says how fast.
    Leak,
    /// A message that the app sent on its channel; the detail is its JSON.
    Message,
}
