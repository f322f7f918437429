//! What the supervisor wants done. The shell performs it, in order, and reports back by inputs.

use std::sync::Arc;

use super::{ChildId, OpId, ProcId};
use crate::app::{App, Notice, Occasion};
use crate::protocol::{Cause, EventKind, Outcome, Progress};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a child; answered by `Spawned` or `SpawnFailed` before anything else.
    Spawn {
        /// The new child.
        child: ChildId,
        /// The process it is for.
        process: ProcId,
        /// What to run.
        app: Arc<App>,
        /// Its place among the instances of its app.
        instance: u32,
        /// It is the candidate of a reload: it must not accept connections before `Promote`.
        hold: bool,
    },
    /// The candidate takes over: it may accept connections.
    Promote {
        /// Which one.
        child: ChildId,
    },
    /// Tell the child to accept no more and to finish what it has; answered by `Drained` or `Exited`.
    Drain {
        /// Which one.
        child: ChildId,
    },
    /// Tell the child, and those of its processes that its app says, to end.
    Stop {
        /// Which one.
        child: ChildId,
        /// By what.
        notice: Notice,
    },
    /// SIGKILL to the child and what it brought about.
    Kill {
        /// Which one.
        child: ChildId,
    },
    /// It got SIGKILL long ago: answered by `Unkillable`, unless nothing of it is left.
    Examine {
        /// Which one.
        child: ChildId,
    },
    /// Send the signal to the child alone; nothing is expected of it.
    Signal {
        /// Which one.
        child: ChildId,
        /// The signal.
        signal: i32,
    },
    /// Check the health of the child as its app declares; answered by `Checked`, unless `EndCheck` comes first.
    Check {
        /// Which one.
        child: ChildId,
        /// What it runs.
        app: Arc<App>,
    },
    /// Give up the check of the child that is under way.
    EndCheck {
        /// Which one.
        child: ChildId,
    },
    /// Tell subscribers.
    Publish {
        /// The process.
        process: ProcId,
        /// Its name: it may be gone by the time that this is performed.
        name: String,
        /// What happened.
        kind: EventKind,
        /// Details.
        detail: String,
    },
    /// Tell whom the app declares for this.
    Alert {
        /// The process.
        process: ProcId,
        /// What happened.
        occasion: Occasion,
        /// Why a child took the place of another.
        cause: Option<Cause>,
        /// For people.
        reason: String,
    },
    /// Nothing of this app is up or wanted up: close what it listened on.
    Release {
        /// Any process of the app; it may be gone from the table already.
        app: Arc<App>,
    },
    /// The process was removed from the table.
    Forget {
        /// Which one.
        process: ProcId,
    },
    /// A step of an operation.
    Progress {
        /// Which operation.
        op: OpId,
        /// The step.
        progress: Progress,
    },
    /// The answer of an operation.
    Answer {
        /// Which operation.
        op: OpId,
        /// `Err`: the command as a whole was refused.
        outcome: Result<Vec<Outcome>, String>,
    },
    /// Every child is gone: end the daemon.
    Exit,
}
