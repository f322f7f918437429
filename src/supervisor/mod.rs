//! The decisions. Pure: no clock, no fd, no process; it is told facts and commands, and answers with
//! actions. The shell (`daemon`) performs them in order and reports what became of them.
//!
//! `process` holds the states, `lifecycle` what moves a process between them, `reload` how one child
//! replaces another, `restart` the policy after an end, `operation` the requests in progress,
//! `command` what clients may ask for, `record` what must outlive the process.

mod action;
mod command;
mod input;
mod lifecycle;
mod operation;
mod process;
mod record;
mod reload;
mod restart;
mod table;
mod timers;

pub use action::Action;
pub use input::{Command, End, Input};
pub use operation::Operation;
pub use process::{Beside, Desired, Leaving, Phase, Process, State, same_app};
pub use record::{Change, Counters};
pub use restart::{BACKOFF_CAP, Record};
pub use timers::{TimerKey, Timers};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::protocol::{EventKind, Outcome};
use crate::time::{Millis, Mono};
use table::Table;

/// The id that people see (pm2's `pm_id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcId(pub u32);

/// One attempt to start a child; never reused, so a late fact about a dead child finds no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChildId(pub u64);

/// A client's request in progress; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// After SIGKILL a process is gone in no time; if not (uninterruptible sleep), whoever waits is told so
/// after this, and SIGKILL is repeated.
pub const STUCK: Millis = Millis(5_000);

/// Whether the daemon is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Ending {
    #[default]
    No,
    /// This operation brings everything down.
    Under(OpId),
    /// Everything is down, and `Exit` was given out.
    Done,
}

/// All processes, and what is under way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Supervisor {
    processes: Table,
    /// Who a living child belongs to.
    owners: BTreeMap<ChildId, ProcId>,
    operations: BTreeMap<OpId, Operation>,
    timers: Timers,
    next_process: u32,
    next_child: u64,
    ending: Ending,
    #[serde(skip)]
    actions: VecDeque<Action>,
    /// Operations that changed since the journal was last told.
    #[serde(skip)]
    changed_operations: BTreeSet<OpId>,
    /// Outcomes of the same, of operations of which nothing else changed: one of thousands is not told anew
    /// with each.
    #[serde(skip)]
    settled: Vec<(OpId, Outcome)>,
    /// The counters as the journal knows them.
    #[serde(skip)]
    recorded: Option<Counters>,
}

impl PartialEq for Supervisor {
    fn eq(&self, other: &Supervisor) -> bool {
        self.processes == other.processes
            && self.owners == other.owners
            && self.operations == other.operations
            && self.timers == other.timers
            && self.counters() == other.counters()
            && self.actions == other.actions
    }
}

impl Supervisor {
    /// Takes in one input. What is to be done then comes from [`Self::next_action`].
    pub fn handle(&mut self, now: Mono, input: Input) {
        match input {
            Input::Command { op, command } => self.command(now, op, command),
            Input::Spawned { child } => self.spawned(now, child),
            Input::SpawnFailed { child, reason, transient } => {
                self.spawn_failed(now, child, reason, transient);
            }
            Input::Listening { child } => self.listening(now, child),
            Input::Ready { child } => self.ready(now, child),
            Input::Drained { child } => self.drained(now, child),
            Input::Exited { child, end } => self.exited(now, child, end),
        }
        self.finish_shutdown();
    }

    /// Fires every timer that is due.
    pub fn handle_timers(&mut self, now: Mono) {
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                TimerKey::Launch(process) => self.launch_overdue(now, process),
                TimerKey::Replacement(process) => self.replacement_due(now, process),
                TimerKey::Restart(process) => self.restart_due(now, process),
                TimerKey::Drain(child) => self.drained(now, child),
                TimerKey::Kill(child) => self.kill_due(now, child),
            }
        }
        self.finish_shutdown();
    }

    /// When [`Self::handle_timers`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The next thing to do. The shell drains these, reporting back in between.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// All processes, by id.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// One process.
    pub fn process(&self, id: ProcId) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// The process that a living child belongs to.
    pub fn owner(&self, child: ChildId) -> Option<ProcId> {
        self.owners.get(&child).copied()
    }

    /// What is armed.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Requests in progress.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Whether the daemon is on its way out.
    pub fn is_shutting_down(&self) -> bool {
        self.ending != Ending::No
    }

    fn publish(&mut self, process: ProcId, kind: EventKind, detail: impl Into<String>) {
        let name = self.processes.get(&process).map_or(String::new(), |p| p.app.name.clone());
        self.actions.push_back(Action::Publish { process, name, kind, detail: detail.into() });
    }

    fn new_child(&mut self, owner: ProcId) -> ChildId {
        let child = ChildId(self.next_child);
        self.next_child += 1;
        self.owners.insert(child, owner);
        child
    }
}
