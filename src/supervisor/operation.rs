//! A client's request in progress: which processes it waits for, and what became of each.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::process::Process;
use super::{OpId, ProcId, Supervisor};
use crate::app::Changes;
use crate::protocol::{Failure, Outcome, Progress};
use crate::time::Mono;

/// What an operation waits for, per process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// A child is online.
    Up,
    /// No child is left.
    Down,
    /// The process is gone from the table.
    Gone,
    /// A new child took over and the old one is gone.
    Replaced,
}

/// Something that happened to a process and may settle an operation on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Settled {
    /// Its child is online.
    Online,
    /// It has no child (it may get one at once).
    Down,
    /// It was removed.
    Gone,
    /// The new child serves and the old one is gone.
    Replaced,
    /// Its child did not come up.
    NotUp(Failure),
    /// The candidate of a reload did not make it.
    NotReplaced(Failure),
    /// A child outlives SIGKILL.
    Stuck,
    /// It is restarted, on behalf of an operation or of none.
    Restarting(Option<OpId>),
    /// It is brought down; the words say by what.
    Stopping(&'static str),
}

/// One request in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    goal: Goal,
    /// Not begun yet.
    queue: VecDeque<ProcId>,
    /// Begun, not settled.
    active: BTreeSet<ProcId>,
    /// How many may be active at a time.
    parallel: usize,
    outcomes: Vec<Outcome>,
    total: u32,
    /// What a reload changes of each app, if the new child proves good.
    changes: Box<Changes>,
}

impl Operation {
    fn settle(&mut self, process: &Process, failure: Option<Failure>) -> Progress {
        self.active.remove(&process.id);
        let outcome = Outcome { id: process.id.0, name: process.app.name.clone(), failure };
        self.outcomes.push(outcome.clone());
        Progress { outcome, settled: self.outcomes.len() as u32, total: self.total }
    }
}

impl Goal {
    /// What an event means for an operation with this goal: `None`: nothing yet; else it is settled,
    /// well or with a failure.
    fn judge(self, op: OpId, settled: &Settled) -> Option<Option<Failure>> {
        match (self, settled) {
            (Goal::Up | Goal::Replaced, Settled::Online) => Some(None),
            (Goal::Replaced, Settled::Replaced) => Some(None),
            (Goal::Down, Settled::Down | Settled::Gone) => Some(None),
            (Goal::Gone, Settled::Gone) => Some(None),
            (Goal::Up | Goal::Replaced, Settled::NotUp(why)) => Some(Some(why.clone())),
            (Goal::Replaced, Settled::NotReplaced(why)) => Some(Some(why.clone())),
            (_, Settled::Stuck) => Some(Some(failure("still alive after SIGKILL: the kernel holds it"))),
            (Goal::Replaced, Settled::Restarting(by)) if *by != Some(op) => {
                Some(Some(failure("given up: a restart was asked for meanwhile")))
            }
            (Goal::Up | Goal::Replaced, Settled::Stopping(by)) => {
                Some(Some(failure(format!("given up: {by} was asked for meanwhile"))))
            }
            (Goal::Up | Goal::Replaced, Settled::Down | Settled::Gone)
            | (Goal::Up, Settled::Replaced | Settled::NotReplaced(_))
            | (Goal::Gone, Settled::Down)
            | (Goal::Down | Goal::Gone, Settled::Online | Settled::Replaced)
            | (Goal::Down | Goal::Gone, Settled::NotUp(_) | Settled::NotReplaced(_) | Settled::Stopping(_))
            | (_, Settled::Restarting(_)) => None,
        }
    }
}

/// A failure without last lines.
pub fn failure(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), last_lines: Vec::new() }
}

impl Supervisor {
    /// Opens an operation on `targets`, all of them at once: the caller begins each.
    pub(super) fn open(&mut self, op: OpId, goal: Goal, targets: &[ProcId]) {
        self.insert(
            op,
            goal,
            VecDeque::new(),
            targets.iter().copied().collect(),
            targets.len(),
            Box::default(),
        );
    }

    /// Opens a reload of `targets`, `parallel` at a time, and begins it.
    pub(super) fn open_reload(
        &mut self,
        now: Mono,
        op: OpId,
        targets: &[ProcId],
        parallel: u32,
        changes: Box<Changes>,
    ) {
        let parallel = parallel.max(1) as usize;
        self.insert(
            op,
            Goal::Replaced,
            targets.iter().copied().collect(),
            BTreeSet::new(),
            parallel,
            changes,
        );
        self.begin_queued(now, op);
        self.close_if_done(op);
    }

    fn insert(
        &mut self,
        op: OpId,
        goal: Goal,
        queue: VecDeque<ProcId>,
        active: BTreeSet<ProcId>,
        parallel: usize,
        changes: Box<Changes>,
    ) {
        let total = (queue.len() + active.len()) as u32;
        let operation = Operation { goal, queue, active, parallel, outcomes: Vec::new(), total, changes };
        self.changed_operations.insert(op);
        let previous = self.operations.insert(op, operation);
        debug_assert!(previous.is_none(), "an operation id was reused");
    }

    /// Answers `op` if nothing of it is left.
    pub(super) fn close_if_done(&mut self, op: OpId) {
        let done = self.operations.get(&op).is_some_and(|o| o.queue.is_empty() && o.active.is_empty());
        if done && let Some(mut operation) = self.operations.remove(&op) {
            self.changed_operations.insert(op);
            operation.outcomes.sort_by_key(|outcome| outcome.id);
            self.actions.push_back(Action::Answer { op, outcome: Ok(operation.outcomes) });
        }
    }

    /// Whether an operation is under way that replaces the child of `process`.
    pub(super) fn is_being_replaced(&self, process: ProcId) -> bool {
        self.operations
            .values()
            .any(|o| o.goal == Goal::Replaced && (o.active.contains(&process) || o.queue.contains(&process)))
    }

    /// Tells every operation that waits for `process` what happened to it.
    pub(super) fn settle(&mut self, now: Mono, id: ProcId, settled: Settled) {
        let Some(process) = self.processes.get(&id) else { return };
        let mut concerned = Vec::new();
        for (&op, operation) in &mut self.operations {
            if matches!(settled, Settled::Stopping(_)) && operation.queue.contains(&id) {
                self.changed_operations.insert(op);
                operation.queue.retain(|queued| *queued != id);
                operation.active.insert(id);
            }
            if !operation.active.contains(&id) {
                continue;
            }
            let Some(failure) = operation.goal.judge(op, &settled) else { continue };
            concerned.push((op, failure.is_some() && operation.goal == Goal::Replaced));
            let progress = operation.settle(process, failure);
            if !self.changed_operations.contains(&op) {
                self.settled.push((op, progress.outcome.clone()));
            }
            self.actions.push_back(Action::Progress { op, progress });
        }
        for (op, reload_failed) in concerned {
            if reload_failed {
                self.abandon_queue(op);
            }
            self.begin_queued(now, op);
            self.close_if_done(op);
        }
    }

    /// Takes in one outcome that is on record.
    pub(super) fn restore_outcome(&mut self, op: OpId, outcome: Outcome) {
        if let Some(operation) = self.operations.get_mut(&op)
            && operation.active.remove(&ProcId(outcome.id))
        {
            operation.outcomes.push(outcome);
        }
    }

    /// A reload stops at the first failure: what was not begun is left as it is.
    fn abandon_queue(&mut self, op: OpId) {
        let Some(operation) = self.operations.get_mut(&op) else { return };
        self.changed_operations.insert(op);
        for id in std::mem::take(&mut operation.queue) {
            if let Some(process) = self.processes.get(&id) {
                operation.settle(process, Some(failure("not reloaded, because another instance failed")));
            }
        }
    }

    /// Begins what a reload's limit allows.
    fn begin_queued(&mut self, now: Mono, op: OpId) {
        while let Some(operation) = self.operations.get_mut(&op)
            && operation.active.len() < operation.parallel
            && let Some(process) = operation.queue.pop_front()
        {
            self.changed_operations.insert(op);
            operation.active.insert(process);
            let changes = operation.changes.clone();
            self.begin_replacement(now, op, process, &changes);
        }
    }
}
