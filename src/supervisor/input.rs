//! What the supervisor is told: commands of clients and facts about children.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{ChildId, Notice, OpId, ProcId, Why};
use crate::app::{App, Changes};
use crate::protocol::{Begin, Existing, Scale};
use crate::time::Millis;

/// A command or a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client asks for something; it is answered once, under `op`.
    Command {
        /// Chosen by the shell, never reused.
        op: OpId,
        /// What is asked for.
        command: Command,
    },
    /// The child executes its program.
    Spawned {
        /// Which one.
        child: ChildId,
    },
    /// There is no child: it could not be started.
    SpawnFailed {
        /// The attempt.
        child: ChildId,
        /// One sentence.
        reason: String,
        /// The cause may pass by itself (no memory, too many processes).
        transient: bool,
    },
    /// The child listens on a shared port.
    Listening {
        /// Which one.
        child: ChildId,
    },
    /// The child said that it is ready.
    Ready {
        /// Which one.
        child: ChildId,
    },
    /// The child said something by sd_notify.
    Notified {
        /// Which one.
        child: ChildId,
        /// What.
        notice: Notice,
    },
    /// The health check of the child came to its end.
    Checked {
        /// Which one.
        child: ChildId,
        /// It passed, or a sentence on why not.
        result: Result<(), String>,
    },
    /// The child closed its channel: its connections are finished.
    Drained {
        /// Which one.
        child: ChildId,
    },
    /// The child outlives SIGKILL.
    Unkillable {
        /// Which one.
        child: ChildId,
        /// The states of its processes, as the kernel's letters: `D`, it waits for a device and can do nothing else.
        state: String,
    },
    /// The child is gone and was reaped, and so is what it brought about, unless that is to be left to itself.
    Exited {
        /// Which one.
        child: ChildId,
        /// How.
        end: End,
    },
    /// Something calls for a new child: its memory, the calendar, a changed file, a check that failed.
    /// A process that is stopped stays so.
    Trigger {
        /// Of which process.
        process: ProcId,
        /// It is true of this child only, and means nothing once another has taken its place.
        about: Option<ChildId>,
        /// Why.
        why: Why,
    },
    /// A job is to run now.
    Due {
        /// Which.
        process: ProcId,
        /// Why.
        why: Why,
    },
}

/// How a child ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Its exit code, when it exited.
    pub code: Option<i32>,
    /// A sentence for people: `exit code 1`, `killed by SIGKILL`.
    pub text: String,
    /// The kernel brought it about for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// The last lines it wrote.
    pub last_lines: Vec<String>,
}

/// A command, with everything resolved that needs the outside world.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Add apps, each with its number of instances, and start them.
    Start(Vec<(Arc<App>, u32)>, Existing),
    /// Add what is missing of a saved list: apps, their instance numbers, and how each begins.
    Resurrect(Vec<(Arc<App>, u32, Begin)>),
    /// Stop and keep.
    Stop(Vec<String>),
    /// Stop and start.
    Restart(Vec<String>, Box<Changes>),
    /// Replace without a gap, so many slots at a time.
    Reload(Vec<String>, Box<Changes>, u32),
    /// Change the number of instances.
    Scale(String, Scale),
    /// Stop and forget.
    Delete(Vec<String>),
    /// Set counters to zero.
    Reset(Vec<String>),
    /// Send a signal to the current children.
    Signal(Vec<String>, i32),
    /// Stop all and end.
    Shutdown,
    /// The same, and who serves a shared port finishes its connections first.
    ShutdownGently,
    /// What is on its way out has so long until SIGKILL at the most.
    Hasten(Millis),
}
