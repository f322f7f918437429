//! The decisions. Pure: no clock, no fd, no process; it is told facts and commands, and answers with
//! actions. The shell (`daemon`) performs them in order and reports what became of them.
//!
//! `process` holds the states, `lifecycle` what moves a process between them, `reload` how one child
//! replaces another, `trigger` what makes it do so unasked, `leak` what is told of memory that grows, `restart` the policy after an end, `vitals` the signs
//! of life of children, `operation` the requests in progress, `command` what clients may ask for, `record` what
//! must outlive the process.

mod action;
mod command;
mod depends;
mod hooks;
mod input;
mod leak;
mod lifecycle;
mod operation;
mod process;
mod record;
mod reload;
mod restart;
mod table;
mod timers;
mod trigger;
mod vitals;

pub use action::Action;
pub use input::{Command, End, Input};
pub use leak::Leak;
pub use operation::Operation;
pub use process::{After, Beside, Desired, Leaving, Phase, Process, State, same_app};
pub use record::{Change, Counters};
pub use restart::{BACKOFF_CAP, Pace, Record};
pub use timers::{TimerKey, Timers};
pub use trigger::Why;
pub use vitals::{Checks, EXTENSION, Notice, Said, Verdict, Vitals};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::app::Occasion;
use crate::protocol::{Cause, EventKind, Outcome};
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
    pace: Pace,
    /// On its way out: what is run after an end has so long.
    #[serde(default)]
    latest: Option<Mono>,
    /// Those that wait for others.
    #[serde(default)]
    blocked: BTreeSet<ProcId>,
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
            Input::Ready { child } => self.reached(now, child, process::Readiness::Message),
            Input::Drained { child } => self.drained(now, child),
            Input::Notified { child, notice } => self.notified(now, child, notice),
            Input::Checked { child, result } => self.checked(now, child, result),
            Input::Unkillable { child, state } => self.unkillable(now, child, &state),
            Input::Exited { child, end } => self.exited(now, child, end),
            Input::Due { process, why } => self.due(now, process, why),
            Input::Trigger { process, about, why } => self.trigger(now, process, about, why),
        }
        self.unblock(now);
        self.finish_shutdown();
    }

    /// Fires every timer that is due.
    pub fn handle_timers(&mut self, now: Mono) {
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                TimerKey::Launch(process) => self.launch_overdue(now, process),
                TimerKey::Replacement(process) => self.replacement_due(now, process),
                TimerKey::Restart(process) => self.restart_due(now, process),
                TimerKey::Turn(process) => self.turn_due(now, process),
                TimerKey::Drain(child) => self.drained(now, child),
                TimerKey::Kill(child) => self.kill_due(now, child),
                TimerKey::Watchdog(child) => self.watchdog_due(now, child),
                TimerKey::Check(child) => self.check_due(now, child),
            }
        }
        self.unblock(now);
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

    /// What will be the next thing to do, unless nothing is.
    pub fn coming(&self) -> Option<&Action> {
        self.actions.front()
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

    /// Whether a child has a number that is not given out yet: nobody decided that there be one.
    pub fn is_new(&self, child: ChildId) -> bool {
        child.0 >= self.next_child
    }

    /// The number that the next child gets.
    pub fn next_child(&self) -> ChildId {
        ChildId(self.next_child)
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

    /// A child takes the place of another: counts it, and tells about it if nobody asked for it.
    fn count(&mut self, id: ProcId, why: Why) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if why.cause != Cause::Manual {
            self.actions.push_back(Action::Alert {
                process: id,
                occasion: Occasion::Restart,
                cause: Some(why.cause),
                reason: why.reason.clone(),
            });
        }
        process.record.count(why);
    }

    fn new_child(&mut self, owner: ProcId) -> ChildId {
        let child = ChildId(self.next_child);
        self.next_child += 1;
        self.owners.insert(child, owner);
        child
    }
}
