//! A client's request in progress: which processes it waits for, and what became of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::process::{Beside, Desired, Leaving, Phase, Process};
use super::{OpId, ProcId, Supervisor, Why};
use crate::app::{App, Changes};
use crate::protocol::{EventKind, Failure, Outcome, Progress};
use crate::time::{Millis, Mono};

/// Said of a reload that found the place of its new child taken.
pub(super) const EVICTED: &str = "a child that still drained since the reload before was told to stop";

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
    /// It is in the list, and not to be started yet.
    Added,
    /// It has no child (it may get one at once).
    Down,
    /// It was removed.
    Gone,
    /// The new child serves and the old one is gone.
    Replaced,
    /// The new child serves; the old one takes its time, so much at most.
    Drains(Millis),
    /// Its child did not come up.
    NotUp(Failure),
    /// The candidate of a reload did not make it.
    NotReplaced(Failure),
    /// A child outlives SIGKILL.
    Stuck(Failure),
    /// It is restarted, on behalf of an operation.
    Restarting(OpId),
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
    /// Its processes are brought down in the order of what depends on what: to what, and whether gently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<(Desired, bool)>,
    /// What its processes were declared anew as, under the same condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    redeclared: BTreeMap<ProcId, Arc<App>>,
    /// Whose places were not free: the children of earlier reloads drained there, and had to go.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    evicted: BTreeSet<ProcId>,
}

impl Operation {
    fn settle(&mut self, process: &Process, failure: Option<Failure>, settled: Option<&Settled>) -> Progress {
        self.active.remove(&process.id);
        let evicted = self.evicted.remove(&process.id).then(|| EVICTED.to_string());
        let drains = match settled {
            Some(Settled::Drains(most)) => {
                Some(format!("its old child still drains, {} s at most", most.0.div_ceil(1_000)))
            }
            _ => None,
        };
        let notes: Vec<String> = evicted.into_iter().chain(drains).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let instead = matches!(settled, Some(Settled::Added)).then(|| "added, not started".to_string());
        let outcome = Outcome { id: process.id.0, name: process.app.name.clone(), failure, instead, note };
        self.outcomes.push(outcome.clone());
        Progress { outcome, settled: self.outcomes.len() as u32, total: self.total }
    }
}

impl Goal {
    fn of(desired: Desired) -> Goal {
        if desired == Desired::Gone { Goal::Gone } else { Goal::Down }
    }

    /// What an event means for an operation with this goal: `None`: nothing yet; else it is settled,
    /// well or with a failure.
    fn judge(self, op: OpId, settled: &Settled) -> Option<Option<Failure>> {
        match (self, settled) {
            (Goal::Up | Goal::Replaced, Settled::Online | Settled::Added) => Some(None),
            (Goal::Replaced, Settled::Replaced | Settled::Drains(_)) => Some(None),
            (Goal::Down, Settled::Down | Settled::Gone) => Some(None),
            (Goal::Gone, Settled::Gone) => Some(None),
            (Goal::Up | Goal::Replaced, Settled::NotUp(why)) => Some(Some(why.clone())),
            (Goal::Replaced, Settled::NotReplaced(why)) => Some(Some(why.clone())),
            (_, Settled::Stuck(why)) => Some(Some(why.clone())),
            (Goal::Replaced, Settled::Restarting(by)) if *by != op => {
                Some(Some(failure("given up: a restart was asked for meanwhile")))
            }
            (Goal::Up | Goal::Replaced, Settled::Stopping(by)) => {
                Some(Some(failure(format!("given up: {by} was asked for meanwhile"))))
            }
            (Goal::Up | Goal::Replaced, Settled::Down | Settled::Gone)
            | (Goal::Up, Settled::Replaced | Settled::Drains(_) | Settled::NotReplaced(_))
            | (Goal::Gone, Settled::Down)
            | (
                Goal::Down | Goal::Gone,
                Settled::Online | Settled::Added | Settled::Replaced | Settled::Drains(_),
            )
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

    /// Opens a stop of `targets` that the caller begins at once.
    pub(super) fn open_stop_at_once(&mut self, op: OpId, targets: &[ProcId], (desired, _): (Desired, bool)) {
        self.open(op, Goal::of(desired), targets);
    }

    /// Opens a stop of `targets`, each after those that depend on it, and begins it.
    pub(super) fn open_stop(&mut self, now: Mono, op: OpId, targets: &[ProcId], how: (Desired, bool)) {
        let queue = targets.iter().copied().collect();
        self.insert(op, Goal::of(how.0), queue, BTreeSet::new(), targets.len(), Box::default());
        if let Some(operation) = self.operations.get_mut(&op) {
            operation.order = Some(how);
        }
        self.begin_queued(now, op);
    }

    /// There is no time for an order any more: what waits to be stopped is stopped.
    pub(super) fn forget_order(&mut self, now: Mono) {
        let ordered = self.operations.iter().filter_map(|(op, operation)| Some((*op, operation.order?)));
        for (op, how) in ordered.collect::<Vec<_>>() {
            let Some(operation) = self.operations.get_mut(&op) else { continue };
            let left: Vec<ProcId> = operation.queue.iter().copied().collect();
            self.begin_stops(now, op, left, how);
        }
    }

    fn begin_stops(&mut self, now: Mono, op: OpId, ids: Vec<ProcId>, (desired, drain): (Desired, bool)) {
        self.changed_operations.insert(op);
        if let Some(operation) = self.operations.get_mut(&op) {
            operation.queue.retain(|id| !ids.contains(id));
            operation.active.extend(&ids);
        }
        for id in ids {
            self.bring_down(now, id, desired, drain);
        }
    }

    /// Opens a start of `targets`. Those that were `redeclared` are reloaded, one at a time; the caller begins
    /// the others.
    pub(super) fn open_redeclaration(
        &mut self,
        now: Mono,
        op: OpId,
        targets: &[ProcId],
        redeclared: BTreeMap<ProcId, Arc<App>>,
    ) {
        let queue = redeclared.keys().copied().collect();
        let others: BTreeSet<ProcId> =
            targets.iter().copied().filter(|id| !redeclared.contains_key(id)).collect();
        // Those that come up meanwhile do not count against it.
        let parallel = others.len() + 1;
        self.insert(op, Goal::Replaced, queue, others, parallel, Box::default());
        if let Some(operation) = self.operations.get_mut(&op) {
            operation.redeclared = redeclared;
        }
        self.begin_queued(now, op);
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
        let operation = Operation {
            goal,
            queue,
            active,
            parallel,
            outcomes: Vec::new(),
            total,
            changes,
            order: None,
            redeclared: BTreeMap::new(),
            evicted: BTreeSet::new(),
        };
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

    /// Whether a reload is under way that has more to do for `process` than to wait for old children.
    pub(super) fn is_being_replaced(&self, process: ProcId) -> bool {
        let drains = |id: &ProcId| {
            let beside = self.processes.get(id).and_then(|process| process.beside.as_ref());
            matches!(beside, Some(Beside::Retiring(_)))
        };
        self.operations.values().filter(|operation| operation.goal == Goal::Replaced).any(|operation| {
            operation.active.contains(&process) && !drains(&process)
                || operation.queue.contains(&process) && !operation.active.iter().all(drains)
        })
    }

    /// A new reload does what earlier ones have not begun.
    pub(super) fn take_from_others(&mut self, now: Mono, targets: &[ProcId]) {
        self.take_from(now, targets, "left to a reload that was asked for later", |_| true);
    }

    /// What is wanted up from now on is not stopped by those that have not come to it.
    pub(super) fn take_from_stops(&mut self, now: Mono, id: ProcId) {
        let why = "given up: a restart was asked for meanwhile";
        self.take_from(now, &[id], why, |operation| operation.order.is_some());
    }

    fn take_from(&mut self, now: Mono, targets: &[ProcId], why: &str, of: impl Fn(&Operation) -> bool) {
        let waiting = self
            .operations
            .iter()
            .filter(|(_, operation)| of(operation) && operation.queue.iter().any(|id| targets.contains(id)));
        for op in waiting.map(|(op, _)| *op).collect::<Vec<_>>() {
            let Some(operation) = self.operations.get_mut(&op) else { continue };
            let queue = std::mem::take(&mut operation.queue).into_iter();
            let (taken, left): (Vec<ProcId>, Vec<ProcId>) = queue.partition(|id| targets.contains(id));
            operation.queue = left.into();
            self.changed_operations.insert(op);
            for process in taken.iter().filter_map(|id| self.processes.get(id)) {
                operation.settle(process, Some(failure(why)), None);
            }
            self.begin_queued(now, op);
            self.close_if_done(op);
        }
    }

    /// Whether a reload has yet to come to `process`.
    pub(super) fn is_queued(&self, process: ProcId) -> bool {
        self.operations.values().any(|operation| operation.queue.contains(&process))
    }

    /// Tells every operation that waits for `process` what happened to it.
    pub(super) fn settle(&mut self, now: Mono, id: ProcId, settled: Settled) {
        let Some(process) = self.processes.get(&id) else { return };
        let needs_others = !process.app.depends_on.is_empty();
        let mut concerned = Vec::new();
        for (&op, operation) in &mut self.operations {
            let is_over = match settled {
                Settled::Stuck(_) | Settled::Gone => true,
                // Another stop may want less of it than this one.
                Settled::Stopping(_) => operation.order.is_none(),
                _ => false,
            };
            if is_over && operation.queue.contains(&id) {
                self.changed_operations.insert(op);
                operation.queue.retain(|queued| *queued != id);
                operation.active.insert(id);
            }
            if !operation.active.contains(&id) {
                continue;
            }
            let Some(failure) = operation.goal.judge(op, &settled) else { continue };
            concerned.push((op, failure.is_some() && operation.goal == Goal::Replaced));
            let progress = operation.settle(process, failure, Some(&settled));
            if !self.changed_operations.contains(&op) {
                self.settled.push((op, progress.outcome.clone()));
            }
            self.actions.push_back(Action::Progress { op, progress });
        }
        for (op, reload_failed) in concerned {
            if reload_failed {
                self.abandon_queue(op);
            }
            // In an ordered stop only those are free now that it needed.
            if needs_others || self.operations.get(&op).is_some_and(|operation| operation.order.is_none()) {
                self.begin_queued(now, op);
            }
            self.close_if_done(op);
        }
    }

    /// Whether an operation is not over before something is known of this process.
    pub fn is_awaited(&self, id: ProcId) -> bool {
        self.operations.values().any(|operation| operation.active.contains(&id))
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
                let why = failure("not reloaded, because another instance failed");
                operation.settle(process, Some(why), None);
            }
        }
    }

    /// Begins what a reload's limit allows. A process of which a second child lives waits for its end.
    fn begin_queued(&mut self, now: Mono, op: OpId) {
        let Some(operation) = self.operations.get(&op) else { return };
        if let Some(how) = operation.order {
            let free = self.undepended(operation.queue.iter(), operation.active.iter());
            if !free.is_empty() {
                self.begin_stops(now, op, free, how);
            }
            return;
        }
        while let Some(operation) = self.operations.get_mut(&op)
            && operation.active.len() < operation.parallel
            && let Some(&process) = operation.queue.front()
        {
            if self.processes.get(&process).is_some_and(|process| process.beside.is_some()) {
                return self.evict(now, op, process);
            }
            self.changed_operations.insert(op);
            operation.queue.pop_front();
            operation.active.insert(process);
            let changes = operation.changes.clone();
            let declared = operation.redeclared.get(&process).cloned();
            match declared {
                Some(app) => self.redeclare_gently(now, process, op, app),
                None => self.begin_replacement(now, process, Some(op), Why::asked(), &changes),
            }
        }
    }

    /// There is one place beside the current child, and the next in the queue wants it. Who drains there is
    /// told to stop; when it is gone, [`Self::begin_waiting`] goes on.
    fn evict(&mut self, now: Mono, op: OpId, id: ProcId) {
        let beside = self.processes.get(&id).and_then(|process| process.beside.as_ref());
        let Some(Beside::Retiring(Leaving { phase, .. })) = beside else {
            // What is on its way in by itself proves good or goes; either is soon.
            return;
        };
        if *phase == Phase::Draining {
            self.publish(id, EventKind::Evicted, EVICTED);
            if let Some(operation) = self.operations.get_mut(&op) {
                operation.evicted.insert(id);
                self.changed_operations.insert(op);
            }
        }
        self.clear_beside(now, id, "a reload");
    }

    /// The place beside the current child is free: whoever waits for it begins.
    pub(super) fn begin_waiting(&mut self, now: Mono, id: ProcId) {
        let waits = self.operations.iter().filter(|(_, operation)| operation.queue.front() == Some(&id));
        for op in waits.map(|(op, _)| *op).collect::<Vec<_>>() {
            self.begin_queued(now, op);
        }
    }
}
