//! What clients may ask for: which processes are meant, and what is begun on each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::Action;
use super::operation::{Goal, Settled};
use super::process::{Beside, Desired, Leaving, Phase, Process, State, same_app};
use super::restart::Record;
use super::vitals::{EXTENSION, Vitals};
use super::{Command, Ending, OpId, ProcId, Supervisor, TimerKey, Why};
use crate::app::{App, Changes};
use crate::protocol::{Begin, EventKind, Existing, ID, Outcome, Scale};
use crate::time::{Millis, Mono};

/// The most processes one daemon manages.
pub const MAX_PROCESSES: usize = 100_000;

impl Supervisor {
    /// Begins a command. It is answered exactly once, now or when the last of its processes settles.
    pub(super) fn command(&mut self, now: Mono, op: OpId, command: Command) {
        let refused = match command {
            Command::Shutdown | Command::ShutdownGently => {
                self.shut_down(now, op, command == Command::ShutdownGently);
                Ok(())
            }
            Command::Hasten(patience) => {
                self.hasten(now, patience);
                self.answer_at_once(op, &[]);
                Ok(())
            }
            _ if self.ending != Ending::No => Err("the daemon is shutting down".to_string()),
            Command::Start(apps, existing) => self.start(now, op, apps, existing),
            Command::Resurrect(saved) => self.resurrect(now, op, saved),
            Command::Stop(targets) => self.stop(now, op, &targets, Desired::Down),
            Command::Delete(targets) => self.stop(now, op, &targets, Desired::Gone),
            Command::Restart(targets, changes) => self.restart(now, op, &targets, &changes),
            Command::Reload(targets, changes, parallel) => self.reload(now, op, &targets, changes, parallel),
            Command::Scale(name, to) => self.scale(now, op, &name, to),
            Command::Reset(targets) => self.reset(op, &targets),
            Command::Signal(targets, signal) => self.signal(op, &targets, signal),
        };
        if let Err(reason) = refused {
            self.actions.push_back(Action::Answer { op, outcome: Err(reason) });
        }
    }

    /// The processes that `targets` mean. As in pm2: a name first, then a namespace, then an id.
    pub fn select(&self, targets: &[String]) -> Result<Vec<ProcId>, String> {
        let mut found = Vec::new();
        for target in targets {
            let ids: Vec<ProcId> = if target == "all" {
                self.ids(|_| true)
            } else if let Some(id) = target.strip_prefix(ID) {
                self.ids(|p| id.parse() == Ok(p.id.0))
            } else {
                let named = self.ids(|p| p.app.name == *target || p.app.command.script.0 == **target);
                let spaced = if named.is_empty() { self.ids(|p| p.app.namespace == *target) } else { named };
                match target.parse() {
                    Ok(id) if spaced.is_empty() => self.ids(|p| p.id == ProcId(id)),
                    _ => spaced,
                }
            };
            if ids.is_empty() {
                return Err(match target.as_str() {
                    "all" => "no process found".to_string(),
                    _ => format!("process or namespace {} not found", target.trim_start_matches(ID)),
                });
            }
            found.extend(ids);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn ids(&self, wanted: impl Fn(&Process) -> bool) -> Vec<ProcId> {
        there(self.processes.values().filter(|p| wanted(p)))
    }

    /// The processes of an app, by id.
    pub(super) fn instances<'a>(&'a mut self, app: &'a App) -> impl DoubleEndedIterator<Item = &'a Process> {
        self.processes.named(&app.name).filter(|process| same_app(&process.app, app))
    }

    fn start(
        &mut self,
        now: Mono,
        op: OpId,
        apps: Vec<(Arc<App>, u32)>,
        existing: Existing,
    ) -> Result<(), String> {
        if existing == Existing::Refuse {
            for (app, _) in &apps {
                if let Some(p) = self.instances(app).find(|p| !p.is_down()) {
                    return Err(format!(
                        "start {}: it is already {} as id {} (-f starts one more)",
                        app.name,
                        p.status().word(),
                        p.id.0
                    ));
                }
            }
        }
        let wanted: usize = apps.iter().map(|(_, count)| *count as usize).sum();
        if self.processes.len() + wanted > MAX_PROCESSES {
            return Err(format!("start: more than {MAX_PROCESSES} processes"));
        }
        self.check_dependencies(&apps)?;
        let mut targets = Vec::new();
        let mut idle = BTreeSet::new();
        let mut reloaded = BTreeMap::new();
        for (app, count) in apps {
            let present = match existing {
                Existing::Force => Vec::new(),
                Existing::Refuse => there(self.instances(&app)),
                Existing::Restart | Existing::Reload => {
                    there(self.processes.named(&app.name).filter(|p| p.app.namespace == app.namespace))
                }
            };
            for &id in &present {
                match existing {
                    Existing::Reload => {
                        reloaded.insert(id, app.clone());
                    }
                    _ => self.redeclare(id, app.clone()),
                }
            }
            let missing = if present.is_empty() { count } else { 0 };
            targets.extend(present);
            let added = self.add(&app, missing);
            targets.extend(&added);
            if !app.autostart {
                idle.extend(added);
            }
        }
        if !reloaded.is_empty() {
            self.open_redeclaration(now, op, &targets, reloaded.clone());
        } else {
            self.open(op, Goal::Up, &targets);
        }
        for id in self.in_order(targets).into_iter().filter(|id| !reloaded.contains_key(id)) {
            match idle.contains(&id) {
                true => self.settle(now, id, Settled::Added),
                false => self.restart_process(now, id, op),
            }
        }
        self.close_if_done(op);
        Ok(())
    }

    /// Adds what is missing of a saved list, in its order. Asking twice changes nothing: an app and an
    /// instance number are one process, whatever became of it.
    fn resurrect(&mut self, now: Mono, op: OpId, saved: Vec<(Arc<App>, u32, Begin)>) -> Result<(), String> {
        if self.processes.len() + saved.len() > MAX_PROCESSES {
            return Err(format!("resurrect: more than {MAX_PROCESSES} processes"));
        }
        let mut started = Vec::new();
        for (app, instance, begin) in saved {
            if self.instances(&app).any(|p| p.instance == instance) {
                continue;
            }
            let id = self.add_as(app, instance);
            match begin {
                Begin::Up => started.push(id),
                Begin::Stopped => {}
                Begin::Errored(reason) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.state = State::Errored;
                        process.reason = Some(reason.clone());
                    }
                    self.publish(id, EventKind::Errored, reason);
                }
            }
        }
        self.open(op, Goal::Up, &started);
        for id in self.in_order(started) {
            self.restart_process(now, id, op);
        }
        self.close_if_done(op);
        Ok(())
    }

    /// Adds processes of `app`, down, with the lowest free instance numbers.
    fn add(&mut self, app: &Arc<App>, count: u32) -> Vec<ProcId> {
        let taken: BTreeSet<u32> = self.instances(app).map(|p| p.instance).collect();
        let free = (0..).filter(|n| !taken.contains(n)).take(count as usize);
        free.map(|instance| self.add_as(app.clone(), instance)).collect()
    }

    fn add_as(&mut self, app: Arc<App>, instance: u32) -> ProcId {
        let id = ProcId(self.next_process);
        self.next_process += 1;
        let process = Process {
            id,
            app,
            instance,
            desired: Desired::Down,
            state: State::Stopped,
            beside: None,
            record: Record::default(),
            vitals: Vitals::default(),
            reason: None,
            why: None,
            pending: None,
            queued: None,
            unknown: serde_json::Map::new(),
        };
        self.processes.insert(id, process);
        self.publish(id, EventKind::Added, "");
        id
    }

    /// Gives a process another declaration, which its next child runs. An app that nobody runs any
    /// more lets go of its ports.
    pub(super) fn redeclare(&mut self, id: ProcId, app: Arc<App>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let old = std::mem::replace(&mut process.app, app);
        if self.instances(&old).next().is_none() {
            self.actions.push_back(Action::Release { app: old });
        }
    }

    /// Stops what runs of a process and starts it anew, its counters of failure at zero.
    pub(super) fn restart_process(&mut self, now: Mono, id: ProcId, by: OpId) {
        self.settle(now, id, Settled::Restarting(by));
        self.take_from_stops(now, id);
        self.clear_beside(now, id, "a restart");
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.record.begin_again();
        self.begin_anew(now, id, Why::asked());
    }

    /// Stops what runs of a process and starts it anew.
    pub(super) fn begin_anew(&mut self, now: Mono, id: ProcId, why: Why) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.desired = Desired::Up;
        process.reason = None;
        process.why = Some(why);
        process.pending = None;
        process.queued = None;
        match process.state {
            // A job runs when it is due; one that runs is run anew.
            State::Stopped | State::Errored | State::Waiting | State::Blocked
                if process.app.triggers.is_job() =>
            {
                self.stop_waiting(id);
                self.await_date(now, id);
            }
            State::Stopped | State::Errored | State::Waiting | State::Blocked => self.start_child(now, id),
            State::Preparing { .. }
            | State::Launching { .. }
            | State::Online { .. }
            | State::Cleaning { .. }
            | State::Stopping(_) => {
                self.stop_child(now, id, false);
            }
        }
    }

    fn stop(&mut self, now: Mono, op: OpId, targets: &[String], desired: Desired) -> Result<(), String> {
        let targets = self.select(targets)?;
        self.stop_in_order(now, op, targets, (desired, false));
        Ok(())
    }

    /// Begins to stop a process for good.
    pub(super) fn bring_down(&mut self, now: Mono, id: ProcId, desired: Desired, drain: bool) {
        let by = if desired == Desired::Gone { "a delete" } else { "a stop" };
        let Some(process) = self.processes.get_mut(&id) else { return };
        // What is to be deleted stays to be deleted.
        if process.desired != Desired::Gone {
            process.desired = desired;
        }
        process.pending = None;
        process.queued = None;
        self.settle(now, id, Settled::Stopping(by));
        self.clear_beside(now, id, by);
        self.stop_child(now, id, drain);
    }

    fn restart(&mut self, now: Mono, op: OpId, targets: &[String], changes: &Changes) -> Result<(), String> {
        let targets = self.select(targets)?;
        if *changes != Changes::default() {
            for &id in &targets {
                let Some(process) = self.processes.get(&id) else { continue };
                let mut app = process.app.clone();
                changes.apply(Arc::make_mut(&mut app));
                self.redeclare(id, app);
            }
        }
        self.open(op, Goal::Up, &targets);
        for id in self.in_order(targets) {
            self.restart_process(now, id, op);
        }
        self.close_if_done(op);
        Ok(())
    }

    fn reload(
        &mut self,
        now: Mono,
        op: OpId,
        targets: &[String],
        changes: Box<Changes>,
        parallel: u32,
    ) -> Result<(), String> {
        let targets = self.select(targets)?;
        let renames = |process: &Process| {
            changes.name.as_ref().is_some_and(|name| *name != process.app.name)
                || changes.namespace.as_ref().is_some_and(|space| *space != process.app.namespace)
        };
        if targets.iter().filter_map(|id| self.processes.get(id)).any(renames) {
            return Err("reload: the name and the namespace of an app cannot change while it serves".into());
        }
        for &id in &targets {
            if self.is_being_replaced(id) {
                let name = self.processes.get(&id).map_or("", |p| p.app.name.as_str());
                return Err(format!("reload {name}({}): a reload of it is already under way", id.0));
            }
        }
        self.take_from_others(now, &targets);
        self.open_reload(now, op, &targets, parallel, changes);
        Ok(())
    }

    fn scale(&mut self, now: Mono, op: OpId, name: &str, to: Scale) -> Result<(), String> {
        let mut ids = self.ids(|p| p.app.name == name && p.desired != Desired::Gone);
        let Some(first) = ids.first().and_then(|id| self.processes.get(id)) else {
            return Err(format!("scale {name}: no such app"));
        };
        let app = first.app.clone();
        let have = ids.len() as u32;
        let want = match to {
            Scale::To(count) => count,
            Scale::Add(more) => have.saturating_add(more),
            Scale::Remove(fewer) => have.saturating_sub(fewer),
        };
        if want == 0 {
            return Err(format!("scale {name}: at least one instance must stay (use stop or delete)"));
        }
        if want as usize > MAX_PROCESSES {
            return Err(format!("scale {name}: more than {MAX_PROCESSES} processes"));
        }
        if want >= have {
            let added = self.add(&app, want - have);
            self.open(op, Goal::Up, &added);
            for id in added {
                self.restart_process(now, id, op);
            }
        } else {
            // The highest instances go, so that those that stay are numbered from 0 without a gap.
            ids.sort_by_key(|id| self.processes.get(id).map_or(0, |p| p.instance));
            let surplus = ids.split_off(want as usize);
            self.open(op, Goal::Gone, &surplus);
            for id in surplus {
                self.bring_down(now, id, Desired::Gone, true);
            }
        }
        self.close_if_done(op);
        Ok(())
    }

    fn reset(&mut self, op: OpId, targets: &[String]) -> Result<(), String> {
        let targets = self.select(targets)?;
        for id in &targets {
            if let Some(process) = self.processes.get_mut(id) {
                process.record = Record::default();
            }
        }
        self.answer_at_once(op, &targets);
        Ok(())
    }

    fn signal(&mut self, op: OpId, targets: &[String], signal: i32) -> Result<(), String> {
        let targets = self.select(targets)?;
        for id in &targets {
            if let Some(child) = self.processes.get(id).and_then(Process::child) {
                self.actions.push_back(Action::Signal { child, signal });
            }
        }
        self.answer_at_once(op, &targets);
        Ok(())
    }

    fn answer_at_once(&mut self, op: OpId, targets: &[ProcId]) {
        let outcomes = targets.iter().filter_map(|id| self.processes.get(id));
        let outcomes = outcomes.map(|process| Outcome::done(process.id.0, &process.app.name)).collect();
        self.actions.push_back(Action::Answer { op, outcome: Ok(outcomes) });
    }

    fn shut_down(&mut self, now: Mono, op: OpId, drain: bool) {
        let all: Vec<ProcId> = self.processes.keys().copied().collect();
        if self.ending == Ending::No {
            self.ending = Ending::Under(op);
        }
        // Whoever asks for it a second time waits for the same end.
        self.stop_in_order(now, op, all, (Desired::Down, drain));
    }

    fn hasten(&mut self, now: Mono, patience: Millis) {
        self.forget_order(now);
        let latest = now + patience;
        self.latest = Some(self.latest.map_or(latest, |earlier| earlier.min(latest)));
        let leaving = self.processes.values().flat_map(|process| {
            let current = match process.state {
                State::Stopping(leaving) => Some(leaving),
                _ => None,
            };
            let beside = match process.beside {
                Some(Beside::Rejected { leaving, .. } | Beside::Retiring(leaving)) => Some(leaving),
                Some(Beside::Preparing { .. } | Beside::Candidate { .. }) | None => None,
            };
            // One that got SIGKILL has a deadline of another kind.
            current.into_iter().chain(beside).filter(|leaving| leaving.phase != Phase::Killed)
        });
        let leaving: Vec<Leaving> = leaving.collect();
        let cleaning = self.processes.values().filter(|p| matches!(p.state, State::Cleaning { .. }));
        for key in cleaning.map(|process| TimerKey::Launch(process.id)).collect::<Vec<_>>() {
            if self.timers.deadline(key).is_some_and(|due| due > latest) {
                self.timers.arm(key, latest);
            }
        }
        for Leaving { child, .. } in leaving {
            self.drained(now, child);
            self.last_step(child);
            if let Some(process) = self.owned(child) {
                // Nor may it ask for more.
                process.vitals.extended = EXTENSION;
            }
            let key = TimerKey::Kill(child);
            if self.timers.deadline(key).is_some_and(|due| due > now + patience) {
                self.timers.arm(key, now + patience);
            }
        }
    }

    /// Once everything is down, the daemon ends.
    pub(super) fn finish_shutdown(&mut self) {
        let Ending::Under(op) = self.ending else { return };
        if !self.operations.contains_key(&op) && !self.processes.values().any(Process::is_alive) {
            self.ending = Ending::Done;
            self.actions.push_back(Action::Exit);
        }
    }
}

/// Those that are there for who asks: not what is being deleted.
fn there<'a>(processes: impl Iterator<Item = &'a Process>) -> Vec<ProcId> {
    processes.filter(|p| p.desired != Desired::Gone).map(|p| p.id).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::*;
    use crate::protocol::Status;

    fn app(name: &str, script: &str) -> Arc<App> {
        let mut app = App { name: name.to_string(), ..App::default() };
        app.command.script = script.into();
        Arc::new(app)
    }

    /// Sends a command and lets every child come up. Gives the answer.
    fn tell(supervisor: &mut Supervisor, command: Command) -> Result<Vec<u32>, String> {
        let op = OpId(supervisor.next_child + 1000);
        let mut answer = None;
        supervisor.handle(Mono(0), Input::Command { op, command });
        while let Some(action) = supervisor.next_action() {
            match action {
                Action::Spawn { child, .. } => supervisor.handle(Mono(0), Input::Spawned { child }),
                Action::Answer { outcome, .. } => answer = Some(outcome),
                _ => {}
            }
        }
        answer.expect("an answer").map(|outcomes| outcomes.iter().map(|outcome| outcome.id).collect())
    }

    #[test]
    fn resurrect_adds_what_is_missing_and_nothing_else() {
        use Begin::{Errored, Stopped, Up};
        use Status::Online;
        let gone = || Errored("script /a: no such file".to_string());
        type Row =
            (Vec<(&'static str, &'static str, u32, Begin)>, Vec<u32>, Vec<(&'static str, u32, Status)>);
        let rows: [Row; 5] = [
            (vec![], vec![], vec![]),
            // In the order of the list, each as it was.
            (
                vec![("b", "/b", 1, Up), ("a", "/a", 0, Stopped), ("c", "/c", 0, gone())],
                vec![0],
                vec![("b", 1, Online), ("a", 0, Status::Stopped), ("c", 0, Status::Errored)],
            ),
            // Twice the same is one process, whatever became of it.
            (
                vec![("a", "/a", 0, Up), ("a", "/a", 0, Up), ("a", "/a", 1, Up)],
                vec![0, 1],
                vec![("a", 0, Online), ("a", 1, Online)],
            ),
            (vec![("a", "/a", 0, Stopped), ("a", "/a", 0, Up)], vec![], vec![("a", 0, Status::Stopped)]),
            // Two apps of one name, as `start -f` makes them.
            (
                vec![("a", "/a", 0, Up), ("a", "/b", 0, Up)],
                vec![0, 1],
                vec![("a", 0, Online), ("a", 0, Online)],
            ),
        ];
        for (list, started, expected) in rows {
            let mut supervisor = Supervisor::default();
            let command = || {
                let list = list.iter().map(|(name, script, n, begin)| (app(name, script), *n, begin.clone()));
                Command::Resurrect(list.collect())
            };
            let shown = |supervisor: &Supervisor| {
                let shown = supervisor.processes().map(|p| (p.app.name.clone(), p.instance, p.status()));
                shown.collect::<Vec<_>>()
            };
            let expected: Vec<_> =
                expected.into_iter().map(|(name, n, s)| (name.to_string(), n, s)).collect();
            assert_eq!(tell(&mut supervisor, command()), Ok(started), "{list:?}");
            assert_eq!(shown(&supervisor), expected, "{list:?}");
            assert_eq!(tell(&mut supervisor, command()), Ok(vec![]), "{list:?} again");
            assert_eq!(shown(&supervisor), expected, "{list:?} again");
            for process in supervisor.processes().filter(|p| p.status() == Status::Errored) {
                assert_eq!(process.reason.as_deref(), Some("script /a: no such file"));
                assert!(process.is_meant_to_run(), "it is tried again after the next reboot");
            }
        }
    }
}
