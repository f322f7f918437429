//! The control protocol, shared by the daemon and its clients: one JSON object per line, both ways.
//!
//! A client sends a [`Request`]; the daemon answers with any number of [`Progress`] messages and then
//! exactly one `done` or `error`, all under the request's id. After `subscribe`, events follow.
//! Adding an optional field is free; anything else raises [`VERSION`].

mod frame;
mod view;

pub use frame::{FRAME_LIMIT, FrameError, Frames};
pub use view::{Child, Detail, Exit, Status, View};

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
    /// Is everything online, and not about to end? Answered by [`Answer::Healthy`], or the reason why not.
    Health {
        /// Only this app.
        #[serde(default)]
        app: Option<String>,
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
            Verb::Kill | Verb::Update { .. } | Verb::Health { .. } => true,
            Verb::Start { .. } | Verb::Stop { .. } | Verb::Restart { .. } | Verb::Reload { .. } => false,
            Verb::Scale { .. } | Verb::Delete { .. } | Verb::Reset { .. } | Verb::Signal { .. } => false,
            Verb::Flush { .. } | Verb::Resurrect { .. } => false,
        }
    }
}

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
    /// What is worth knowing besides: what had to give way, what goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Outcome {
    /// Done as asked.
    pub fn done(id: u32, name: &str) -> Outcome {
        Outcome { id, name: name.to_string(), failure: None, note: None }
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
    /// A message that the app sent on its channel; the detail is its JSON.
    Message,
}
