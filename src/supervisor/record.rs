//! What must outlive the process that decides: the whole of the supervisor, told piece by piece as it
//! changes, and put together again from the pieces.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::operation::Operation;
use super::process::{Beside, Leaving, Phase, Process, State};
use super::restart::Pace;
use super::{ChildId, Ending, OpId, ProcId, Supervisor, TimerKey};
use crate::protocol::Outcome;
use crate::time::Mono;

/// One piece, as it is now. `None`: it is no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A process.
    Process(ProcId, Option<Box<Process>>),
    /// A deadline.
    Timer(TimerKey, Option<Mono>),
    /// A request in progress.
    Operation(OpId, Option<Operation>),
    /// What became of one process of it.
    Settled(OpId, Outcome),
    /// The rest.
    Counters(Counters),
}

/// What is next, and whether the daemon is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    next_process: u32,
    next_child: u64,
    ending: Ending,
    pace: Pace,
    latest: Option<Mono>,
}

impl Change {
    /// The same for a daemon that is not on its way out, whatever the last one was.
    pub fn stay(&mut self) {
        if let Change::Counters(counters) = self {
            counters.ending = Ending::No;
            counters.latest = None;
        }
    }

    /// Whether it is a deadline of this process.
    pub fn is_about(&self, id: ProcId) -> bool {
        let keys =
            [TimerKey::Launch(id), TimerKey::Replacement(id), TimerKey::Restart(id), TimerKey::Turn(id)];
        matches!(self, Change::Timer(key, _) if keys.contains(key))
    }
}

impl Supervisor {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            next_process: self.next_process,
            next_child: self.next_child,
            ending: self.ending,
            pace: self.pace,
            latest: self.latest,
        }
    }

    /// What changed since the last call, or everything.
    pub fn take_changes(&mut self, everything: bool, mut tell: impl FnMut(Change)) {
        let mut processes = self.processes.take_changed();
        let mut timers = self.timers.take_changed();
        let mut operations = std::mem::take(&mut self.changed_operations);
        if everything {
            processes.extend(self.processes.keys());
            timers.extend(self.timers.keys());
            operations.extend(self.operations.keys());
            self.recorded = None;
        }
        for id in processes {
            tell(Change::Process(id, self.processes.get(&id).cloned().map(Box::new)));
        }
        for key in timers {
            tell(Change::Timer(key, self.timers.deadline(key)));
        }
        for (op, outcome) in std::mem::take(&mut self.settled) {
            // One that is told as a whole knows it already.
            if !operations.contains(&op) {
                tell(Change::Settled(op, outcome));
            }
        }
        for op in operations {
            tell(Change::Operation(op, self.operations.get(&op).cloned()));
        }
        let counters = self.counters();
        if self.recorded != Some(counters) {
            self.recorded = Some(counters);
            tell(Change::Counters(counters));
        }
    }

    /// Whether nothing changed since the last [`Self::take_changes`].
    pub fn is_recorded(&self) -> bool {
        self.recorded == Some(self.counters())
            && !self.processes.has_changed()
            && !self.timers.has_changed()
            && self.changed_operations.is_empty()
            && self.settled.is_empty()
    }

    /// Takes in one piece.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Process(id, Some(process)) => self.processes.insert(id, *process),
            Change::Process(id, None) => self.processes.remove(&id),
            Change::Timer(key, Some(at)) => self.timers.arm(key, at),
            Change::Timer(key, None) => self.timers.cancel(key),
            Change::Operation(op, Some(operation)) => {
                self.operations.insert(op, operation);
            }
            Change::Operation(op, None) => {
                self.operations.remove(&op);
            }
            Change::Settled(op, outcome) => self.restore_outcome(op, outcome),
            Change::Counters(Counters { next_process, next_child, ending, pace, latest }) => {
                self.next_process = next_process;
                self.next_child = next_child;
                self.ending = ending;
                self.pace = pace;
                self.latest = latest;
            }
        }
    }

    /// After all pieces: finds what was decided and never done, and has it done. `living` are the children
    /// that there are, `told` those of them that got their stop signal.
    pub fn resume(&mut self, living: &BTreeSet<ChildId>, told: &BTreeSet<ChildId>) {
        self.owners.clear();
        self.forget_running_checks();
        let mut actions = Vec::new();
        self.blocked = self.processes.values().filter(|p| p.state == State::Blocked).map(|p| p.id).collect();
        for process in self.processes.values() {
            let (id, instance) = (process.id, process.instance);
            let mut expect = |child: ChildId, app: &std::sync::Arc<crate::app::App>, hold: bool| {
                if !living.contains(&child) {
                    actions.push(Action::Spawn { child, process: id, app: app.clone(), instance, hold });
                }
            };
            match &process.state {
                State::Launching { child, .. } => expect(*child, &process.app, false),
                State::Preparing { child, .. } => {
                    let line = process.app.hooks.pre_start.as_deref().unwrap_or_default();
                    expect(*child, &process.app.hook(line), false);
                }
                State::Cleaning { child, .. } => {
                    let line = process.app.hooks.post_stop.as_deref().unwrap_or_default();
                    expect(*child, &process.app.hook(line), false);
                }
                State::Online { .. }
                | State::Stopping(_)
                | State::Stopped
                | State::Waiting
                | State::Blocked
                | State::Errored => {}
            }
            if let Some(Beside::Candidate { child, app, .. }) = &process.beside {
                expect(*child, app, true);
            }
            if let Some(Beside::Preparing { child, app, .. }) = &process.beside {
                expect(*child, &app.hook(app.hooks.pre_start.as_deref().unwrap_or_default()), false);
            }
            let app = &process.app;
            let mut leave = |leaving: &Leaving| {
                let child = leaving.child;
                match leaving.phase {
                    Phase::Draining => actions.push(Action::Drain { child }),
                    Phase::Stopping if !told.contains(&child) => {
                        if let Some((notice, _)) = app.stop_step(leaving.step) {
                            actions.push(Action::Stop { child, notice });
                        }
                    }
                    Phase::Killed => actions.push(Action::Kill { child }),
                    Phase::Stopping => {}
                }
            };
            if let State::Stopping(leaving) = &process.state {
                leave(leaving);
            }
            if let Some(Beside::Rejected { leaving, .. } | Beside::Retiring(leaving)) = &process.beside {
                leave(leaving);
            }
            for child in process.child().into_iter().chain(process.beside.as_ref().map(Beside::child)) {
                self.owners.insert(child, id);
            }
        }
        if self.ending == Ending::Done {
            actions.push(Action::Exit);
        }
        self.actions.extend(actions);
    }

    /// Whether a child is about to be started.
    pub fn is_to_spawn(&self, wanted: ChildId) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Spawn { child, .. } if *child == wanted))
    }

    /// Children that the supervisor believes in.
    pub fn children(&self) -> impl Iterator<Item = ChildId> + '_ {
        self.owners.keys().copied()
    }
}
