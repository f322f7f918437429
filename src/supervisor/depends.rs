//! Apps that wait for others: who starts when, and in which order they are stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::operation::{Settled, failure};
use super::process::{Desired, Process, State};
use super::{OpId, ProcId, Supervisor};
use crate::app::{App, Condition, Dependency};
use crate::protocol::EventKind;
use crate::time::Mono;

/// The longest chain of apps that wait for each other that is looked along.
const MAX_STEPS: u32 = 64;

/// Why an app is not started yet.
pub struct Unmet {
    /// One sentence.
    reason: String,
    /// Nothing is under way that could change it.
    needs_help: bool,
}

impl Supervisor {
    /// Whether apps that are about to be added wait for what is there or comes with them, and not for each
    /// other.
    pub(super) fn check_dependencies(&self, apps: &[(Arc<App>, u32)]) -> Result<(), String> {
        if apps.iter().all(|(app, _)| app.depends_on.is_empty()) {
            return Ok(());
        }
        // What is declared anew counts as it will be.
        let mut known: BTreeMap<(&str, &str), &App> = BTreeMap::new();
        let present = self.processes.values().filter(|process| process.desired != Desired::Gone);
        for app in present.map(|process| &process.app).chain(apps.iter().map(|(app, _)| app)) {
            known.insert((&app.name, &app.namespace), app);
        }
        let meant = |app: &App, name: &str| -> Vec<&App> {
            let near = known.get(&(name, app.namespace.as_str()));
            let all = known.range((name, "")..).take_while(|((other, _), _)| *other == name);
            near.map_or_else(|| all.map(|(_, app)| *app).collect(), |near| vec![*near])
        };
        for (app, _) in apps {
            for on in &app.depends_on {
                let others = meant(app, &on.app);
                if others.is_empty() {
                    return Err(format!(
                        "start {}: it depends on {}, which is neither in the list nor started with it",
                        app.name, on.app
                    ));
                }
                if on.condition == Condition::Completed && others.iter().any(|other| !can_complete(other)) {
                    return Err(format!(
                        "start {}: it waits for {} to be completed, which starts again whenever it ends \
                         (autorestart: false)",
                        app.name, on.app
                    ));
                }
            }
            // Along each way until it ends, or comes back.
            let step =
                |app: &App| app.depends_on.iter().flat_map(|on| meant(app, &on.app)).collect::<Vec<_>>();
            let mut ahead = step(app);
            let mut seen = BTreeSet::new();
            while let Some(other) = ahead.pop() {
                if (&other.name, &other.namespace) == (&app.name, &app.namespace) {
                    return Err(format!(
                        "start {}: it depends on itself, by way of what it depends on",
                        app.name
                    ));
                }
                if seen.insert((&other.name, &other.namespace)) {
                    ahead.extend(step(other));
                }
            }
        }
        Ok(())
    }

    /// The same processes, each after those that it depends on.
    pub(super) fn in_order(&self, mut rest: Vec<ProcId>) -> Vec<ProcId> {
        let mut ordered = Vec::new();
        while rest.iter().any(|id| self.depends(*id)) {
            let names = self.names(&rest);
            let waits = |id: &ProcId| {
                let app = self.processes.get(id).map(|process| &process.app);
                app.is_some_and(|app| app.depends_on.iter().any(|on| names.contains(&on.app)))
            };
            let (later, now): (Vec<ProcId>, Vec<ProcId>) = rest.iter().partition(|id| waits(id));
            if now.is_empty() {
                break;
            }
            ordered.extend(now);
            rest = later;
        }
        ordered.extend(rest);
        ordered
    }

    /// Those of `waiting` on which nothing of `waiting` or `active` depends: they are stopped first.
    pub(super) fn undepended<'a>(
        &self,
        waiting: impl Iterator<Item = &'a ProcId> + Clone,
        active: impl Iterator<Item = &'a ProcId>,
    ) -> Vec<ProcId> {
        let apps = waiting.clone().chain(active).filter_map(|id| self.processes.get(id));
        let needed: BTreeSet<&str> =
            apps.flat_map(|process| &process.app.depends_on).map(|on| on.app.as_str()).collect();
        let is_free = |id: &&ProcId| {
            self.processes.get(id).is_none_or(|process| !needed.contains(process.app.name.as_str()))
        };
        waiting.filter(is_free).copied().collect()
    }

    /// Whether a process depends on others.
    pub(super) fn depends(&self, id: ProcId) -> bool {
        self.processes.get(&id).is_some_and(|process| !process.app.depends_on.is_empty())
    }

    fn names(&self, ids: &[ProcId]) -> BTreeSet<String> {
        ids.iter().filter_map(|id| Some(self.processes.get(id)?.app.name.clone())).collect()
    }

    /// Why `app` cannot be started now.
    pub(super) fn unmet(&self, app: &App) -> Option<Unmet> {
        self.unmet_after(app, 0)
    }

    /// What it waits for may wait itself, and so on; only a list that was written by hand goes in circles.
    fn unmet_after(&self, app: &App, steps: u32) -> Option<Unmet> {
        app.depends_on.iter().find_map(|on| self.unmet_by(app, on, steps))
    }

    fn unmet_by(&self, app: &App, on: &Dependency, steps: u32) -> Option<Unmet> {
        let named = || self.processes.values().filter(|p| p.app.name == on.app && p.desired != Desired::Gone);
        let near = || named().filter(|p| p.app.namespace == app.namespace);
        let of: Vec<&Process> = if near().next().is_some() { near().collect() } else { named().collect() };
        if of.is_empty() {
            let reason = format!("waits for {}, which is not in the list", on.app);
            return Some(Unmet { reason, needs_help: true });
        }
        let process = of.into_iter().find(|process| !meets(process, on.condition))?;
        let is = process.status().word();
        let reason = format!("waits for {} to be {}; it is {is}", on.app, on.condition.word());
        let needs_help = match process.state {
            // A job may be long in coming.
            State::Stopped | State::Errored => {
                process.desired != Desired::Up || process.app.triggers.is_job()
            }
            State::Launching { overdue, .. } => overdue,
            State::Blocked => {
                steps >= MAX_STEPS
                    || self.unmet_after(&process.app, steps + 1).is_some_and(|unmet| unmet.needs_help)
            }
            State::Preparing { .. }
            | State::Online { .. }
            | State::Stopping(_)
            | State::Cleaning { .. }
            | State::Waiting => false,
        };
        Some(Unmet { reason, needs_help })
    }

    /// Has a process wait for what it depends on.
    pub(super) fn block(&mut self, now: Mono, id: ProcId, unmet: Unmet) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let is_news = process.state != State::Blocked || process.reason.as_ref() != Some(&unmet.reason);
        process.desired = Desired::Up;
        process.state = State::Blocked;
        process.queued = None;
        process.reason = Some(unmet.reason.clone());
        self.blocked.insert(id);
        if is_news {
            self.publish(id, EventKind::Waiting, unmet.reason.as_str());
        }
        if unmet.needs_help {
            self.settle(now, id, Settled::NotUp(failure(unmet.reason)));
        }
    }

    /// Starts what has waited for long enough.
    pub(super) fn unblock(&mut self, now: Mono) {
        let mut again = !self.blocked.is_empty();
        while again {
            again = false;
            for id in self.blocked.iter().copied().collect::<Vec<_>>() {
                let Some(Process { state: State::Blocked, app, .. }) = self.processes.get(&id) else {
                    self.blocked.remove(&id);
                    continue;
                };
                let app = app.clone();
                match self.unmet(&app) {
                    Some(unmet) => self.block(now, id, unmet),
                    None => {
                        self.blocked.remove(&id);
                        self.start_child(now, id);
                        again = true;
                    }
                }
            }
        }
    }

    /// Stops or deletes `targets`, each after those that depend on it.
    pub(super) fn stop_in_order(&mut self, now: Mono, op: OpId, targets: Vec<ProcId>, how: (Desired, bool)) {
        if targets.iter().any(|id| self.depends(*id)) {
            self.open_stop(now, op, &targets, how);
        } else {
            self.open_stop_at_once(op, &targets, how);
            for id in targets {
                self.bring_down(now, id, how.0, how.1);
            }
        }
        self.close_if_done(op);
    }
}

/// Whether an end with code 0 is for good.
fn can_complete(app: &App) -> bool {
    let once = !app.restart.autorestart || app.restart.stop_exit_codes.contains(&0);
    once && !app.triggers.is_job()
}

/// Whether a process has come so far.
fn meets(process: &Process, condition: Condition) -> bool {
    match (&process.state, condition) {
        (State::Launching { .. } | State::Online { .. }, Condition::Started) => true,
        (State::Online { .. }, Condition::Ready) => true,
        (State::Online { .. }, Condition::Healthy) => process.is_healthy(),
        (State::Stopped, Condition::Started | Condition::Completed) => process.record.completed,
        (
            State::Stopped
            | State::Preparing { .. }
            | State::Launching { .. }
            | State::Online { .. }
            | State::Stopping(_)
            | State::Cleaning { .. }
            | State::Waiting
            | State::Blocked
            | State::Errored,
            _,
        ) => false,
    }
}
