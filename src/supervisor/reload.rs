//! A reload is a transaction: new child → ready → alive for a bake time → only then does it take
//! over, and the old one drains. If the new one fails, the old one never noticed. A drain that takes longer
//! than usual holds up neither who asked for the reload nor the next reload, which evicts who drains.

use std::sync::Arc;

use super::action::Action;
use super::lifecycle::first_step;
use super::operation::Settled;
use super::process::{Beside, Leaving, Phase, Process, Readiness, State, same_app};
use super::vitals::Said;
use super::{ChildId, End, OpId, ProcId, Supervisor, TimerKey, Why};
use crate::app::{App, Changes, DRAIN_TIMEOUT};
use crate::protocol::{Cause, EventKind, Failure};
use crate::time::{Millis, Mono};

impl Supervisor {
    /// Begins to replace the child of one process, which has no second one. Where nothing serves, or the program shares no
    /// port, two at a time would gain nothing or collide: it is restarted.
    pub(super) fn begin_replacement(
        &mut self,
        now: Mono,
        id: ProcId,
        by: Option<OpId>,
        why: Why,
        changes: &Changes,
    ) {
        let Some(process) = self.processes.get(&id) else { return };
        let mut app = process.app.clone();
        if *changes != Changes::default() {
            changes.apply(Arc::make_mut(&mut app));
        }
        self.replace_by(now, id, by, why, app);
    }

    /// As [`Self::begin_replacement`], by what a process is declared as from now on. Another script is another
    /// app, with other ports: it is restarted.
    pub(super) fn redeclare_gently(&mut self, now: Mono, id: ProcId, op: OpId, app: Arc<App>) {
        let Some(process) = self.processes.get(&id) else { return };
        if same_app(&process.app, &app) {
            return self.replace_by(now, id, Some(op), Why::asked(), app);
        }
        self.redeclare(id, app);
        self.restart_process(now, id, op);
    }

    fn replace_by(&mut self, now: Mono, id: ProcId, by: Option<OpId>, why: Why, app: Arc<App>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let clustered = app.is_cluster();
        let serves = matches!(process.state, State::Online { listening, .. } if listening || clustered);
        debug_assert!(process.beside.is_none(), "a process never has three children");
        if serves {
            process.why = Some(why);
            return self.prepare_candidate(now, id, app);
        }
        process.app = app;
        match by {
            Some(op) => self.restart_process(now, id, op),
            None => self.begin_anew(now, id, why),
        }
    }

    pub(super) fn spawn_candidate(&mut self, now: Mono, id: ProcId, app: Arc<App>) {
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        self.timers.arm(TimerKey::Replacement(id), now + app.listen_timeout);
        let spawn =
            Action::Spawn { child, process: id, app: app.clone(), instance: process.instance, hold: true };
        process.beside = Some(Beside::Candidate {
            child,
            since: now,
            app,
            baking: false,
            listening: false,
            vitals: Box::default(),
        });
        self.actions.push_back(spawn);
    }

    /// What the candidate must do before it counts as ready: as much as the old child did.
    fn candidate_readiness(process: &Process, app: &App) -> Readiness {
        let declared = app.declared_readiness();
        match (declared, &process.state) {
            (Some(Readiness::Message | Readiness::Notified), _) => declared.unwrap_or(Readiness::Spawned),
            (_, State::Online { listening: true, .. }) => Readiness::Listening,
            _ => declared.unwrap_or(Readiness::Spawned),
        }
    }

    /// The candidate executes its program.
    pub(super) fn candidate_spawned(&mut self, now: Mono, id: ProcId) {
        self.candidate_progress(now, id, Readiness::Spawned);
    }

    /// The candidate reached something; if it is what was waited for, it bakes.
    pub(super) fn candidate_progress(&mut self, now: Mono, id: ProcId, reached: Readiness) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(Beside::Candidate { child, app, baking: false, vitals, .. }) = &process.beside else {
            return;
        };
        let bake_time = match Self::candidate_readiness(process, app) {
            Readiness::Uptime if reached == Readiness::Spawned => app.bake_time.max(app.restart.min_uptime),
            wanted if wanted == reached && vitals.checks.is_none() => app.bake_time,
            _ => return,
        };
        if app.health.is_some() {
            let child = *child;
            self.timers.cancel(TimerKey::Replacement(id));
            return self.begin_checks(now, child);
        }
        self.bake(now, id, bake_time);
    }

    /// The checks of the candidate pass: if that is what was waited for, it bakes.
    pub(super) fn candidate_is_healthy(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(Beside::Candidate { app, baking: false, .. }) = &process.beside else { return };
        let bake_time = match Self::candidate_readiness(process, app) {
            Readiness::Uptime => app.bake_time.max(app.restart.min_uptime),
            _ => app.bake_time,
        };
        self.bake(now, id, bake_time);
    }

    /// The candidate reached everything, and must stay alive for a little.
    fn bake(&mut self, now: Mono, id: ProcId, bake_time: Millis) {
        let due = now + bake_time;
        if let Some(process) = self.processes.get_mut(&id)
            && let Some(Beside::Candidate { baking, .. }) = &mut process.beside
        {
            *baking = true;
            self.timers.arm(TimerKey::Replacement(id), due);
        }
    }

    /// The candidate's time is over: it has baked, or it was too slow.
    pub(super) fn replacement_due(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let (baking, app) = match &process.beside {
            Some(Beside::Preparing { app, .. }) => {
                let late = app.hooks.timeout.0;
                let reason = format!("pre_start: not done within {late} ms; the old child serves on");
                return self.reject_candidate(now, id, reason);
            }
            Some(Beside::Candidate { baking, app, .. }) => (*baking, app),
            Some(Beside::Retiring(Leaving { child, phase: Phase::Draining, .. })) => {
                let due = self.timers.deadline(TimerKey::Drain(*child)).unwrap_or(now);
                return self.settle(now, id, Settled::Drains(due.since(now)));
            }
            Some(Beside::Retiring(_) | Beside::Rejected { .. }) | None => return,
        };
        if baking {
            return self.take_over(now, id);
        }
        let what = match Self::candidate_readiness(process, app) {
            Readiness::Spawned | Readiness::Uptime => "was not started",
            Readiness::Listening => "does not listen",
            Readiness::Message | Readiness::Notified => "was not ready",
        };
        let reason =
            format!("the new child {what} within {} ms; the old one serves on", app.listen_timeout.0);
        self.reject_candidate(now, id, reason);
    }

    /// The old child began to listen only now. What bakes, or proves its health, has to as well, and to bake
    /// from then on.
    pub(super) fn old_child_listens(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(Beside::Candidate { child, app, baking, listening, since, vitals }) = &process.beside else {
            return;
        };
        let begun = *baking || vitals.checks.is_some();
        if !begun || Self::candidate_readiness(process, app) != Readiness::Listening {
            return;
        }
        let (bakes, due) = match listening {
            true if !baking => return,
            true => (true, now + app.bake_time),
            false => (false, *since + app.listen_timeout),
        };
        let child = *child;
        if !bakes {
            self.end_vitals(id, child);
        }
        self.timers.arm(TimerKey::Replacement(id), due);
        if let Some(process) = self.processes.get_mut(&id)
            && let Some(Beside::Candidate { baking, .. }) = &mut process.beside
        {
            *baking = bakes;
        }
    }

    /// The candidate becomes the current child, and the old one drains.
    fn take_over(&mut self, now: Mono, id: ProcId) {
        let old = self.processes.get(&id).and_then(Process::child);
        if let Some(old) = old {
            self.end_vitals(id, old);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(Beside::Candidate { child, since, app, listening, vitals, .. }) = process.beside.take()
        else {
            return;
        };
        self.timers.cancel(TimerKey::Replacement(id));
        // The old one may have begun only now, in the place of one that was restarted meanwhile.
        self.timers.cancel(TimerKey::Launch(id));
        let hung = process.vitals.said == Said::Silent;
        let old_listens = matches!(process.state, State::Online { listening: true, .. }) && !hung;
        let drain_timeout = process.app.drain_timeout;
        let old_app = std::mem::replace(&mut process.app, app);
        process.vitals = *vitals;
        process.vitals.extended = Millis(0);
        process.state = State::Online { child, since, listening };
        process.record.begin_again();
        let why = process.why.take().unwrap_or_else(Why::asked);
        process.reason = None;
        self.count(id, why);
        self.actions.push_back(Action::Promote { child });
        self.begin_vitals(now, id);
        self.publish(id, EventKind::Online, "replaced");
        let Some(old) = old else { return self.settle(now, id, Settled::Replaced) };
        let phase = if old_listens {
            self.timers.arm(TimerKey::Drain(old), now + drain_timeout);
            if drain_timeout > DRAIN_TIMEOUT {
                // Nobody waits longer than usual for what may take so long.
                self.timers.arm(TimerKey::Replacement(id), now + DRAIN_TIMEOUT);
            }
            self.actions.push_back(Action::Drain { child: old });
            Phase::Draining
        } else {
            self.send_first(now, old, &old_app, hung)
        };
        if let Some(process) = self.processes.get_mut(&id) {
            process.beside = Some(Beside::Retiring(Leaving { child: old, phase, step: first_step(hung) }));
        }
    }

    /// The current child died while a candidate is on its way in: that is its replacement. Says
    /// whether there was one.
    pub(super) fn candidate_takes_over(&mut self, now: Mono, id: ProcId) -> bool {
        let Some(process) = self.processes.get_mut(&id) else { return false };
        if let Some(Beside::Preparing { child, since, app }) = &process.beside {
            process.state = State::Preparing { child: *child, since: *since };
            let due = *since + app.hooks.timeout;
            process.app = app.clone();
            process.beside = None;
            process.record.begin_again();
            let why = process.why.take().unwrap_or_else(Why::asked);
            self.count(id, why);
            self.timers.cancel(TimerKey::Replacement(id));
            self.timers.arm(TimerKey::Launch(id), due);
            return true;
        }
        if !matches!(process.beside, Some(Beside::Candidate { .. })) {
            return false;
        }
        let Some(Beside::Candidate { child, since, app, baking, listening, vitals }) = process.beside.take()
        else {
            return false;
        };
        process.record.begin_again();
        let why = process.why.take().unwrap_or_else(Why::asked);
        process.vitals = *vitals;
        // One that only has to prove its health serves better than none.
        let is_ready = baking || process.vitals.checks.is_some();
        process.state = if is_ready {
            State::Online { child, since, listening }
        } else {
            State::Launching { child, since, overdue: false }
        };
        let due = now + Self::launch_patience(&app);
        process.app = app;
        self.count(id, why);
        self.timers.cancel(TimerKey::Replacement(id));
        self.actions.push_back(Action::Promote { child });
        if is_ready {
            self.begin_vitals(now, id);
            self.publish(id, EventKind::Online, "replaced");
            self.settle(now, id, Settled::Replaced);
        } else {
            self.timers.arm(TimerKey::Launch(id), due);
        }
        true
    }

    /// The candidate died, or could not even be started.
    pub(super) fn candidate_ended(&mut self, now: Mono, id: ProcId, end: &End) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(Beside::Candidate { baking, .. }) = process.beside.take() else { return };
        self.timers.cancel(TimerKey::Replacement(id));
        let when = if baking { "right after it was ready" } else { "before it was ready" };
        let reason = format!("the new child ended {when}: {}; the old one serves on", end.text);
        self.reload_failed(now, id, Failure { reason, last_lines: end.last_lines.clone() });
    }

    /// Gives a candidate up. Whoever waits learns it when the candidate is gone.
    pub(super) fn reject_candidate(&mut self, now: Mono, id: ProcId, reason: String) {
        if let Some(child) = self.processes.get(&id).and_then(|p| p.beside.as_ref()).map(Beside::child) {
            self.end_vitals(id, child);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(Beside::Preparing { child, app, .. } | Beside::Candidate { child, app, .. }) =
            process.beside.take()
        else {
            return;
        };
        process.vitals.extended = Millis(0);
        self.timers.cancel(TimerKey::Replacement(id));
        let phase = self.send_stop(now, child, &app, 0);
        if let Some(process) = self.processes.get_mut(&id) {
            process.beside = Some(Beside::Rejected { leaving: Leaving { child, phase, step: 0 }, reason });
        }
    }

    /// The old child, if it still lives, serves on.
    pub(super) fn reload_failed(&mut self, now: Mono, id: ProcId, failure: Failure) {
        self.publish(id, EventKind::ReloadFailed, failure.reason.as_str());
        if let Some(process) = self.processes.get_mut(&id)
            && let Some(why) = process.why.take()
            && why.cause != Cause::Manual
        {
            // Nobody waits for an answer.
            process.reason = Some(format!("not replaced ({}): {}", why.reason, failure.reason));
        }
        self.settle(now, id, Settled::NotReplaced(failure));
    }

    /// Hurries a leaving second child along, and gives a candidate up.
    pub(super) fn clear_beside(&mut self, now: Mono, id: ProcId, why: &str) {
        let Some(process) = self.processes.get(&id) else { return };
        let hurried: Option<ChildId> = match &process.beside {
            Some(Beside::Retiring(leaving)) => Some(leaving.child),
            Some(Beside::Preparing { .. } | Beside::Candidate { .. }) => {
                self.reject_candidate(now, id, format!("given up: {why} was asked for meanwhile"));
                None
            }
            Some(Beside::Rejected { .. }) | None => None,
        };
        if let Some(child) = hurried {
            self.drained(now, child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::EVICTED;
    use super::super::{Command, Input};
    use super::*;
    use crate::app::{Mode, Runtime};
    use crate::protocol::{Existing, Outcome};
    use crate::time::Millis;

    /// A supervisor whose children do as they are told, except that no worker ever finishes its connections.
    #[derive(Default)]
    struct World {
        supervisor: Supervisor,
        now: Mono,
        living: Vec<ChildId>,
        answers: Vec<(OpId, Result<Vec<Outcome>, String>)>,
    }

    impl World {
        /// An app that is reloaded without a pause.
        fn of(instances: u32) -> World {
            let mut app = App { name: "web".to_string(), mode: Mode::Cluster, ..App::default() };
            app.command.runtime = Runtime::Node;
            app.drain_timeout = Millis(600_000);
            let mut world = World { now: Mono(1_000), ..World::default() };
            world.tell(1, Command::Start(vec![(Arc::new(app), instances)], Existing::Refuse));
            assert!(world.answered(1).is_some_and(|answer| answer.is_ok()));
            world
        }

        fn tell(&mut self, op: u64, command: Command) {
            self.supervisor.handle(self.now, Input::Command { op: OpId(op), command });
            self.perform();
        }

        fn reload(&mut self, op: u64, target: &str) {
            self.tell(op, Command::Reload(vec![target.to_string()], Box::default(), 1));
        }

        fn perform(&mut self) {
            while let Some(action) = self.supervisor.next_action() {
                let told: &[Input] = match action {
                    Action::Spawn { child, .. } => {
                        self.living.push(child);
                        &[Input::Spawned { child }, Input::Listening { child }]
                    }
                    Action::Stop { child, .. } => {
                        self.living.retain(|living| *living != child);
                        &[Input::Exited { child, end: End::default() }]
                    }
                    Action::Answer { op, outcome } => {
                        self.answers.push((op, outcome));
                        &[]
                    }
                    _ => &[],
                };
                for input in told {
                    self.supervisor.handle(self.now, input.clone());
                }
            }
        }

        /// Lets time go on.
        fn wait(&mut self, time: u64) {
            let until = self.now + Millis(time);
            while let Some(due) = self.supervisor.next_deadline().filter(|due| *due <= until) {
                self.now = due;
                self.supervisor.handle_timers(due);
                self.perform();
            }
            self.now = until;
        }

        fn answered(&self, op: u64) -> Option<&Result<Vec<Outcome>, String>> {
            self.answers.iter().find(|(of, _)| *of == OpId(op)).map(|(_, outcome)| outcome)
        }

        /// What an operation said of each process: how it failed, and the note.
        fn said(&self, op: u64) -> Vec<(String, String)> {
            let outcomes = self.answered(op).and_then(|answer| answer.as_ref().ok()).expect("an answer");
            let reason = |outcome: &Outcome| outcome.failure.as_ref().map_or("", |f| &f.reason).to_string();
            outcomes.iter().map(|one| (reason(one), one.note.clone().unwrap_or_default())).collect()
        }
    }

    #[test]
    fn nobody_waits_for_a_long_drain_longer_than_usual() {
        let mut world = World::of(2);
        world.reload(2, "all");
        world.wait(9_000);
        assert_eq!((world.answered(2), world.living.len()), (None, 3), "the first slot drains");
        world.wait(20_000);
        assert_eq!(world.living.len(), 4);
        let note = || "its old child still drains, 590 s at most".to_string();
        assert_eq!(world.said(2), [(String::new(), note()), (String::new(), note())]);
        world.wait(600_000);
        assert_eq!(world.living.len(), 2);
        assert_eq!(world.supervisor.next_deadline(), None);
    }

    #[test]
    fn a_reload_evicts_who_drains_since_the_one_before() {
        let mut world = World::of(1);
        for reload in 2..50 {
            world.reload(reload, "web");
            world.wait(1_000);
            assert_eq!(world.living.len(), 2, "one serves, one drains");
            // The reload before is done: its new child had taken over, and its old one is gone.
            if reload > 3 {
                assert_eq!(world.said(reload - 1), [(String::new(), EVICTED.to_string())]);
            }
            assert_eq!(world.answered(reload), None);
        }
    }

    #[test]
    fn a_later_reload_takes_over_what_an_earlier_one_has_not_begun() {
        let mut world = World::of(3);
        world.reload(2, "all");
        world.wait(100);
        world.reload(3, "all");
        let refused = world.answered(3).and_then(|answer| answer.as_ref().err()).expect("a refusal");
        assert!(refused.contains("already under way"), "a candidate is on its way in: {refused}");
        world.wait(1_000);
        world.reload(4, "2");
        world.wait(1_000);
        assert_eq!(world.living.len(), 5, "0 drains for the first, 2 for the second");
        world.wait(60_000);
        let left = "left to a reload that was asked for later".to_string();
        let said: Vec<String> = world.said(2).into_iter().map(|(failure, _)| failure).collect();
        assert_eq!(said, [String::new(), String::new(), left]);
        assert_eq!(world.said(4).len(), 1);
    }
}
