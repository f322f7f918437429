//! One process: a slot of an app that is to be kept filled, and where it stands.
//!
//! ```text
//!                    start                 ready               stop
//!   Stopped/Errored ──────▶ Launching ───────────▶ Online ───────────▶ Stopping
//!        ▲   ▲                │    ▲                  │                   │
//!        │   └── budget spent ┤    │ back-off over    │ exit              │ exit
//!        │                    ▼    │                  ▼                   │
//!        │        exit ───▶ Waiting ◀──────── wanted up, delay            │
//!        └──────────────────────────────────────────────── wanted down ───┘
//! ```
//!
//! Beside its current child a process may have one more: the candidate of a reload on its way in, or the
//! child that it replaced on its way out. Never both, so never more than two.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::restart::Record;
use super::vitals::{Said, Vitals};
use super::{ChildId, End, ProcId, Why};
use crate::app::App;
pub use crate::app::Readiness;
use crate::protocol::Status;
use crate::time::{Millis, Mono};

/// What the user wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// Running.
    Up,
    /// Not running.
    Down,
    /// Not running, and forgotten.
    Gone,
}

/// Where the current child stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// There is none, and none is due.
    Stopped,
    /// The command before its start runs.
    Preparing {
        /// The command.
        child: ChildId,
        /// When it was spawned.
        since: Mono,
    },
    /// It was spawned and is not ready.
    Launching {
        /// The child.
        child: ChildId,
        /// When it was spawned.
        since: Mono,
        /// Its time to become ready is over; whoever asked was told so.
        overdue: bool,
    },
    /// It serves.
    Online {
        /// The child.
        child: ChildId,
        /// When it was spawned.
        since: Mono,
        /// It listens on a port that its app shares.
        listening: bool,
    },
    /// It shall end.
    Stopping(Leaving),
    /// The command after its end runs.
    Cleaning {
        /// The command.
        child: ChildId,
        /// What its end was.
        after: Box<After>,
    },
    /// It ended; the next one starts when the timer fires.
    Waiting,
    /// It starts when what it depends on has come far enough.
    Blocked,
    /// It ended too often, or cannot be started at all.
    Errored,
}

/// What comes when the command after an end is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum After {
    /// It was told to stop: another starts if that is wanted.
    Stop,
    /// It ended by itself.
    End {
        /// How long it had lived.
        lived: Millis,
        /// How it ended.
        end: End,
        /// It had not become ready.
        was_launching: bool,
    },
}

/// A child on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The child.
    pub child: ChildId,
    /// How far it was pushed.
    pub phase: Phase,
    /// The step of its stop that is under way, from 0.
    #[serde(default)]
    pub step: u8,
}

/// How far a leaving child was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// It finishes its connections.
    Draining,
    /// It got its stop signal.
    Stopping,
    /// It got SIGKILL.
    Killed,
}

/// The child beside the current one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Beside {
    /// The command before the start of a candidate.
    Preparing {
        /// The command.
        child: ChildId,
        /// When it was spawned.
        since: Mono,
        /// What the candidate is to run.
        #[serde(default = "Process::elsewhere", skip_serializing_if = "Process::is_elsewhere")]
        app: Arc<App>,
    },
    /// On its way in.
    Candidate {
        /// The child.
        child: ChildId,
        /// When it was spawned.
        since: Mono,
        /// What it runs: it becomes the process's app when the candidate takes over.
        #[serde(default = "Process::elsewhere", skip_serializing_if = "Process::is_elsewhere")]
        app: Arc<App>,
        /// It is ready and must stay alive a little.
        baking: bool,
        /// It listens on a port that its app shares.
        listening: bool,
        /// Its signs of life.
        #[serde(default, skip_serializing_if = "is_empty")]
        vitals: Box<Vitals>,
    },
    /// A candidate that failed, on its way out.
    Rejected {
        /// The child.
        leaving: Leaving,
        /// Why.
        reason: String,
    },
    /// The child that was replaced, on its way out.
    Retiring(Leaving),
}

impl Beside {
    /// The child it is about.
    pub fn child(&self) -> ChildId {
        match self {
            Beside::Preparing { child, .. } | Beside::Candidate { child, .. } => *child,
            Beside::Rejected { leaving, .. } | Beside::Retiring(leaving) => leaving.child,
        }
    }
}

/// Boxed, as serde hands it over.
#[allow(clippy::borrowed_box, reason = "serde's signature")]
fn is_empty(vitals: &Box<Vitals>) -> bool {
    vitals.is_empty()
}

/// One slot of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The id that people see.
    pub id: ProcId,
    /// What it runs.
    #[serde(default = "Process::elsewhere", skip_serializing_if = "Process::is_elsewhere")]
    pub app: Arc<App>,
    /// Its place among the instances of its app, from 0.
    pub instance: u32,
    /// What is wanted.
    pub desired: Desired,
    /// What is.
    pub state: State,
    /// The second child, if there is one.
    #[serde(default)]
    pub beside: Option<Beside>,
    /// How it has fared.
    #[serde(default)]
    pub record: Record,
    /// The current child's signs of life.
    #[serde(default, skip_serializing_if = "Vitals::is_empty")]
    pub vitals: Vitals,
    /// Why it is not online, when there is something to say.
    #[serde(default)]
    pub reason: Option<String>,
    /// Why its child is being replaced, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Why it is to be replaced once its second child is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Why>,
    /// A job that runs is to run once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Why>,
    /// What a later version noted and this one does not know.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Process {
    /// In the place of an app that is written down elsewhere, once for all that run it: one without a name,
    /// which no app is.
    pub fn elsewhere() -> Arc<App> {
        static NOBODY: LazyLock<Arc<App>> = LazyLock::new(Arc::default);
        NOBODY.clone()
    }

    /// See [`Self::elsewhere`].
    pub fn is_elsewhere(app: &Arc<App>) -> bool {
        app.name.is_empty()
    }

    /// The current child.
    pub fn child(&self) -> Option<ChildId> {
        match self.state {
            State::Preparing { child, .. }
            | State::Launching { child, .. }
            | State::Online { child, .. }
            | State::Cleaning { child, .. } => Some(child),
            State::Stopping(leaving) => Some(leaving.child),
            State::Stopped | State::Waiting | State::Blocked | State::Errored => None,
        }
    }

    /// Whether a child of it lives, whatever its part.
    pub fn is_alive(&self) -> bool {
        self.child().is_some() || self.beside.is_some()
    }

    /// Nothing lives and nothing is due.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Stopped | State::Errored) && self.beside.is_none()
    }

    /// Whether it is a job that waits for its date.
    pub fn is_armed(&self) -> bool {
        self.state == State::Stopped && self.desired == Desired::Up && self.app.triggers.is_job()
    }

    /// Whether it is to run again after a reboot: it was not stopped and is not done. What was given up
    /// is tried again.
    pub fn is_meant_to_run(&self) -> bool {
        self.desired == Desired::Up || self.state == State::Errored
    }

    /// When the first child of a start counts as ready.
    pub fn readiness(app: &App) -> Readiness {
        let usual = if app.is_cluster() { Readiness::Listening } else { Readiness::Spawned };
        app.declared_readiness().unwrap_or(usual)
    }

    /// pm2's word for it.
    pub fn status(&self) -> Status {
        match self.state {
            State::Stopped if self.beside.is_some() => Status::Stopping,
            State::Stopped if self.is_armed() => Status::Scheduled,
            State::Stopped => Status::Stopped,
            State::Preparing { .. } | State::Launching { .. } => Status::Launching,
            State::Online { .. } if self.vitals.said == Said::Stopping => Status::Stopping,
            State::Online { .. } => Status::Online,
            State::Stopping(_) | State::Cleaning { .. } => Status::Stopping,
            State::Waiting => Status::Waiting,
            State::Blocked => Status::Blocked,
            State::Errored => Status::Errored,
        }
    }

    /// When the current child was spawned, and how long ago that is.
    pub fn uptime(&self, now: Mono) -> Option<Millis> {
        match self.state {
            State::Launching { since, .. } | State::Online { since, .. } => Some(now.since(since)),
            _ => None,
        }
    }

    /// Whether `other` is an instance of the same app: they share listeners and instance numbers.
    pub fn is_sibling_of(&self, other: &App) -> bool {
        same_app(&self.app, other)
    }
}

/// Whether two declarations are of one app.
pub fn same_app(a: &App, b: &App) -> bool {
    std::ptr::eq(a, b)
        || a.name == b.name && a.namespace == b.namespace && a.command.script == b.command.script
}
