//! Signs of life: what a child tells of itself by sd_notify, its watchdog, and what its health checks find.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::process::{Beside, Leaving, Phase, Process, Readiness, State};
use super::{ChildId, ProcId, Supervisor, TimerKey, Why};
use crate::app::health::OnFail;
use crate::protocol::{Cause, EventKind};
use crate::time::{Millis, Mono};

/// How much longer than declared a child may make its start, or its end, by asking for it.
pub const EXTENSION: Millis = Millis(3_600_000);

/// What a child said by sd_notify, as far as it decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `RELOADING=1`
    Reloading,
    /// `STOPPING=1`
    Stopping,
    /// `WATCHDOG=1`
    Alive,
    /// `WATCHDOG=trigger`: it gives itself up.
    Trigger,
    /// `WATCHDOG_USEC=`; `None`: its watchdog is off.
    Watchdog(Option<Millis>),
    /// `EXTEND_TIMEOUT_USEC=`
    Extend(Millis),
}

/// What a child said last of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Nothing.
    #[default]
    Nothing,
    /// It is ready.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It ends of its own accord.
    Stopping,
    /// Its watchdog has waited in vain.
    Silent,
}

/// What is known of a child's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// What it said last.
    pub said: Said,
    /// How long it may be silent, once it is online.
    pub watchdog: Option<Millis>,
    /// How much more time than declared it was given since it was started or told to stop.
    pub extended: Millis,
    /// What its checks found, from when they began.
    pub checks: Option<Checks>,
}

/// What the health checks of a child found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// When they began.
    since: Mono,
    /// One is under way; its timer says until when.
    running: bool,
    /// What they say.
    pub verdict: Verdict,
    /// Failures in a row that count.
    pub failures: u32,
    /// How the last one failed, unless it passed.
    #[serde(default)]
    pub error: Option<String>,
}

/// What health checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// None has passed yet.
    Starting,
    /// The last ones passed.
    Healthy,
    /// So many failed in a row that it counts.
    Unhealthy,
}

impl Vitals {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Vitals::default()
    }
}

impl Process {
    /// Whether it serves and its checks, if there are any, say so.
    pub fn is_healthy(&self) -> bool {
        let checked = match &self.vitals.checks {
            Some(checks) => checks.verdict == Verdict::Healthy,
            None => self.app.health.is_none(),
        };
        matches!(self.state, State::Online { .. }) && checked
    }

    /// The vitals of a child that is current or on its way in, and what it runs.
    fn vitals_of(&mut self, child: ChildId) -> Option<(&mut Vitals, &std::sync::Arc<crate::app::App>)> {
        match &mut self.beside {
            Some(Beside::Candidate { child: candidate, vitals, app, .. }) if *candidate == child => {
                return Some((vitals, app));
            }
            _ => {}
        }
        match self.state {
            State::Launching { child: current, .. } | State::Online { child: current, .. }
                if current == child =>
            {
                Some((&mut self.vitals, &self.app))
            }
            _ => None,
        }
    }
}

impl Supervisor {
    /// A child is online: from now on it must show signs of life.
    pub(super) fn begin_vitals(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let State::Online { child, .. } = process.state else { return };
        let declared = process.app.notify.watchdog;
        if process.vitals.watchdog.is_none() && declared > Millis(0) {
            process.vitals.watchdog = Some(declared);
        }
        self.wind_watchdog(now, child);
        self.begin_checks(now, child);
    }

    /// A child is no longer expected to be well.
    pub(super) fn end_vitals(&mut self, id: ProcId, child: ChildId) {
        self.timers.cancel(TimerKey::Watchdog(child));
        self.timers.cancel(TimerKey::Check(child));
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Some((vitals, _)) = process.vitals_of(child)
            && let Some(checks) = vitals.checks.take()
            && checks.running
        {
            self.actions.push_back(Action::EndCheck { child });
        }
    }

    /// A child said something by sd_notify.
    pub(super) fn notified(&mut self, now: Mono, child: ChildId, notice: Notice) {
        if let Notice::Extend(length) = notice {
            return self.extend(now, child, length);
        }
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let Some((vitals, _)) = process.vitals_of(child) else { return };
        match notice {
            Notice::Ready => {
                vitals.said = Said::Ready;
                self.wind_watchdog(now, child);
                self.reached(now, child, Readiness::Notified);
            }
            Notice::Reloading => vitals.said = Said::Reloading,
            Notice::Stopping => {
                vitals.said = Said::Stopping;
                if process.child() == Some(child) {
                    self.end_vitals(id, child);
                } else {
                    let reason = "the new child says that it stops; the old one serves on".to_string();
                    self.reject_candidate(now, id, reason);
                }
            }
            Notice::Alive => {
                if vitals.said == Said::Silent {
                    vitals.said = Said::Ready;
                }
                self.wind_watchdog(now, child);
            }
            Notice::Trigger => self.hangs(now, child, "it gave itself up to its watchdog".to_string()),
            Notice::Watchdog(length) => {
                vitals.watchdog = length;
                self.wind_watchdog(now, child);
            }
            Notice::Extend(_) => {}
        }
    }

    /// The watchdog of an online child begins to wait anew.
    fn wind_watchdog(&mut self, now: Mono, child: ChildId) {
        self.timers.cancel(TimerKey::Watchdog(child));
        let Some(process) = self.owned(child) else { return };
        let is_current = matches!(process.state, State::Online { child: current, .. } if current == child);
        let waits = is_current && process.vitals.said != Said::Stopping;
        if let Some(length) = process.vitals.watchdog.filter(|_| waits) {
            self.timers.arm(TimerKey::Watchdog(child), now + length);
        }
    }

    /// The watchdog of a child has waited in vain.
    pub(super) fn watchdog_due(&mut self, now: Mono, child: ChildId) {
        let waited = self.owned(child).and_then(|process| process.vitals.watchdog).unwrap_or_default();
        self.hangs(now, child, format!("its watchdog heard nothing for {} ms", waited.0));
    }

    /// The current child hangs.
    fn hangs(&mut self, now: Mono, child: ChildId, reason: String) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        if !matches!(process.state, State::Online { child: current, .. } if current == child) {
            return;
        }
        process.vitals.said = Said::Silent;
        // What is done about it may fail: then it is done again.
        self.wind_watchdog(now, child);
        self.trigger(now, id, Some(child), Why { cause: Cause::Watchdog, reason });
    }

    /// A child asks for more time to start or to end.
    fn extend(&mut self, now: Mono, child: ChildId, length: Millis) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let leaves = |leaving: &Leaving| leaving.child == child && leaving.phase != Phase::Killed;
        let of_phase = |leaving: &Leaving| match leaving.phase {
            Phase::Draining => TimerKey::Drain(child),
            Phase::Stopping | Phase::Killed => TimerKey::Kill(child),
        };
        let key = match (&process.state, &process.beside) {
            (State::Launching { child: current, .. }, _) if *current == child => TimerKey::Launch(id),
            (State::Stopping(leaving), _) if leaves(leaving) => of_phase(leaving),
            (_, Some(Beside::Candidate { child: candidate, baking: false, .. })) if *candidate == child => {
                TimerKey::Replacement(id)
            }
            (_, Some(Beside::Rejected { leaving, .. } | Beside::Retiring(leaving))) if leaves(leaving) => {
                of_phase(leaving)
            }
            _ => return,
        };
        let Some(due) = self.timers.deadline(key) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        let vitals = match &mut process.beside {
            Some(Beside::Candidate { child: candidate, vitals, .. }) if *candidate == child => vitals,
            _ => &mut process.vitals,
        };
        let more = (now + length).since(due).min(Millis(EXTENSION.0.saturating_sub(vitals.extended.0)));
        vitals.extended.0 += more.0;
        self.timers.arm(key, due + more);
    }

    /// Checks of a child begin, if there are any to make.
    pub(super) fn begin_checks(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let Some((vitals, app)) = process.vitals_of(child) else { return };
        if vitals.checks.is_none() && app.health.is_some() && vitals.said != Said::Stopping {
            let verdict = Verdict::Starting;
            vitals.checks = Some(Checks { since: now, running: false, verdict, failures: 0, error: None });
            self.timers.arm(TimerKey::Check(child), now);
        }
    }

    /// Whoever made the checks that are under way is gone. Each is made again when its time is over.
    pub(super) fn forget_running_checks(&mut self) {
        let ids: Vec<ProcId> = self.processes.keys().copied().collect();
        for id in ids {
            let is_running = |vitals: &Vitals| vitals.checks.as_ref().is_some_and(|checks| checks.running);
            let Some(process) = self.processes.get(&id) else { continue };
            let beside = match &process.beside {
                Some(Beside::Candidate { vitals, .. }) => is_running(vitals),
                Some(Beside::Preparing { .. } | Beside::Rejected { .. } | Beside::Retiring(_)) | None => {
                    false
                }
            };
            if !is_running(&process.vitals) && !beside {
                continue;
            }
            let Some(process) = self.processes.get_mut(&id) else { continue };
            let mut vitals = vec![&mut process.vitals];
            if let Some(Beside::Candidate { vitals: of_candidate, .. }) = &mut process.beside {
                vitals.push(of_candidate);
            }
            for checks in vitals.into_iter().filter_map(|vitals| vitals.checks.as_mut()) {
                checks.running = false;
            }
        }
    }

    /// It is time for a check, or a check has taken too long.
    pub(super) fn check_due(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let Some((vitals, app)) = process.vitals_of(child) else { return };
        let app = app.clone();
        let Some(checks) = &mut vitals.checks else { return };
        let Some(health) = &app.health else {
            // Declared anew, and without them.
            return self.end_vitals(id, child);
        };
        if checks.running {
            self.actions.push_back(Action::EndCheck { child });
            let reason = format!("no answer within {} ms", health.timeout.0);
            return self.checked(now, child, Err(reason));
        }
        checks.running = true;
        self.timers.arm(TimerKey::Check(child), now + health.timeout);
        self.actions.push_back(Action::Check { child, app });
    }

    /// A check came to its end.
    pub(super) fn checked(&mut self, now: Mono, child: ChildId, result: Result<(), String>) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let Some((vitals, app)) = process.vitals_of(child) else { return };
        let (Some(checks), Some(health)) = (&mut vitals.checks, app.health.clone()) else { return };
        if !std::mem::replace(&mut checks.running, false) {
            return;
        }
        let before = checks.verdict;
        let passed = result.is_ok();
        match result {
            Ok(()) => {
                checks.verdict = Verdict::Healthy;
                checks.failures = 0;
                checks.error = None;
            }
            Err(error) => {
                checks.error = Some(error);
                let is_starting = before == Verdict::Starting && now < checks.since + health.start_period;
                checks.failures += u32::from(!is_starting);
                if checks.failures >= health.retries {
                    checks.verdict = Verdict::Unhealthy;
                }
            }
        }
        let (verdict, error) = (checks.verdict, checks.error.clone().unwrap_or_default());
        let fails = checks.failures >= health.retries;
        if fails {
            // What it leads to may fail too: it is tried again after as many failures more.
            checks.failures = 0;
        }
        let counts = now >= checks.since + health.start_period;
        let is_candidate = matches!(&process.beside, Some(Beside::Candidate { child: c, .. }) if *c == child);
        let has_beside = process.beside.is_some();
        let waits = health.pace(verdict == Verdict::Healthy || verdict == Verdict::Unhealthy);
        let waits = if counts && !is_candidate { health.interval } else { waits };
        self.timers.arm(TimerKey::Check(child), now + waits);
        if verdict != before {
            match verdict {
                Verdict::Healthy => self.publish(id, EventKind::Healthy, ""),
                Verdict::Unhealthy => self.publish(id, EventKind::Unhealthy, error.as_str()),
                Verdict::Starting => {}
            }
        }
        if is_candidate && passed {
            self.candidate_is_healthy(now, id);
        } else if is_candidate && fails {
            let reason = format!("the new child is not healthy: {error}; the old one serves on");
            self.reject_candidate(now, id, reason);
        } else if fails {
            match health.on_fail {
                OnFail::None => {}
                OnFail::Reload => self.trigger(now, id, Some(child), unhealthy(error)),
                // Another one is on its way in or out, which must be over first.
                OnFail::Restart if has_beside => self.trigger(now, id, Some(child), unhealthy(error)),
                OnFail::Restart => self.begin_anew(now, id, unhealthy(error)),
            }
        }
    }
}

fn unhealthy(error: String) -> Why {
    Why { cause: Cause::Unhealthy, reason: format!("not healthy: {error}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Command, End, Input, OpId};
    use super::*;
    use crate::app::{self, App, Health, Mode, Runtime};
    use crate::protocol::Existing;

    /// What was done to children: `check 0`, `stop 0 by 6`.
    type Done = Vec<String>;

    /// One process in a world where every child comes up, and drains at once.
    struct World {
        supervisor: Supervisor,
        now: Mono,
        done: Done,
    }

    impl World {
        fn start(cluster: bool, declare: impl FnOnce(&mut App)) -> World {
            let mut world = World { supervisor: Supervisor::default(), now: Mono(0), done: Vec::new() };
            let mut app = App { name: "api".to_string(), ..App::default() };
            if cluster {
                (app.mode, app.command.runtime) = (Mode::Cluster, Runtime::Node);
            }
            declare(&mut app);
            let command = Command::Start(vec![(Arc::new(app), 1)], Existing::Refuse);
            world.tell(Input::Command { op: OpId(0), command });
            if cluster {
                world.tell(Input::Listening { child: ChildId(0) });
            }
            world
        }

        fn tell(&mut self, input: Input) {
            self.supervisor.handle(self.now, input);
            while let Some(action) = self.supervisor.next_action() {
                match action {
                    Action::Spawn { child, .. } => self.supervisor.handle(self.now, Input::Spawned { child }),
                    Action::Drain { child } => {
                        self.done.push(format!("drain {}", child.0));
                        self.supervisor.handle(self.now, Input::Drained { child });
                    }
                    Action::Stop { child, notice } => {
                        let (app::Notice::Signal(signal) | app::Notice::Message { or: signal }) = notice;
                        self.done.push(format!("stop {} by {signal}", child.0));
                    }
                    Action::Kill { child } => self.done.push(format!("kill {}", child.0)),
                    Action::Check { child, .. } => self.done.push(format!("check {}", child.0)),
                    Action::EndCheck { child } => self.done.push(format!("end check {}", child.0)),
                    _ => {}
                }
            }
        }

        fn says(&mut self, child: u64, notice: Notice) {
            self.tell(Input::Notified { child: ChildId(child), notice });
        }

        /// Lets time pass, deadline by deadline.
        fn pass(&mut self, length: u64) {
            let until = self.now + Millis(length);
            while let Some(due) = self.supervisor.next_deadline().filter(|due| *due <= until) {
                self.now = due.max(self.now);
                self.supervisor.handle_timers(self.now);
                // Performs what came of it.
                self.tell(Input::Drained { child: ChildId(u64::MAX) });
            }
            self.now = until;
        }

        fn take(&mut self) -> Done {
            std::mem::take(&mut self.done)
        }

        fn process(&self) -> &Process {
            self.supervisor.processes().next().expect("a process")
        }
    }

    fn checked(app: &mut App) {
        let (interval, start_period) = (Millis(1_000), Millis(0));
        app.health = Some(Box::new(Health { interval, start_period, retries: 2, ..Health::default() }));
    }

    #[test]
    fn a_worker_that_hangs_is_replaced_first_and_then_aborted_without_draining() {
        let mut world = World::start(true, |app| app.notify.watchdog = Millis(500));
        for _ in 0..5 {
            world.pass(400);
            world.says(0, Notice::Alive);
        }
        assert_eq!(world.process().child(), Some(ChildId(0)));
        world.pass(500);
        assert_eq!(world.take(), Done::new(), "nobody serves in its place yet");
        world.tell(Input::Listening { child: ChildId(1) });
        world.pass(300);
        assert_eq!(world.process().child(), Some(ChildId(1)));
        assert_eq!(world.take(), ["stop 0 by 6"]);
        assert_eq!(world.process().record.by_cause, [(Cause::Watchdog, 1)].into());
    }

    #[test]
    fn one_that_comes_round_while_its_replacement_fails_serves_on() {
        let mut world = World::start(true, |app| app.notify.watchdog = Millis(500));
        world.pass(500);
        let end = End { code: Some(1), text: "exit code 1".to_string(), ..End::default() };
        world.tell(Input::Exited { child: ChildId(1), end });
        world.says(0, Notice::Alive);
        assert_eq!((world.process().child(), world.process().vitals.said), (Some(ChildId(0)), Said::Ready));
        // Silent again: it is tried again.
        world.pass(500);
        assert!(world.process().beside.is_some());
    }

    #[test]
    fn the_watchdog_waits_for_nobody_who_stops_or_launches() {
        let mut world = World::start(false, |app| {
            app.notify.ready = Some(Readiness::Notified);
            app.notify.watchdog = Millis(500);
        });
        world.pass(2_000);
        assert_eq!(world.take(), Done::new());
        world.says(0, Notice::Ready);
        world.says(0, Notice::Stopping);
        world.pass(2_000);
        assert_eq!((world.take(), world.process().status().word()), (Done::new(), "stopping"));
    }

    #[test]
    fn time_is_given_up_to_an_hour_in_all() {
        let mut world = World::start(false, |app| app.kill_timeout = Millis(1_000));
        world.tell(Input::Command { op: OpId(1), command: Command::Stop(vec!["api".to_string()]) });
        assert_eq!(world.take(), ["stop 0 by 2"]);
        // A shorter time than it has takes nothing away.
        world.says(0, Notice::Extend(Millis(10)));
        for _ in 0..61 {
            assert_eq!(world.take(), Done::new(), "{:?}", world.now);
            world.says(0, Notice::Extend(Millis(60_000)));
            world.pass(59_000);
        }
        world.pass(60_000);
        let due = Mono(1_000) + EXTENSION;
        assert!(world.now > due && world.take().contains(&"kill 0".to_string()));
    }

    #[test]
    fn checks_follow_each_other_and_a_slow_one_is_a_failure() {
        let mut world = World::start(false, checked);
        world.pass(0);
        assert_eq!(world.take(), ["check 0"]);
        world.pass(4_999);
        assert_eq!(world.take(), Done::new());
        world.pass(1);
        assert_eq!(world.take(), ["end check 0"]);
        assert!(!world.process().is_healthy());
        world.pass(1_000);
        assert_eq!(world.take(), ["check 0"]);
        world.tell(Input::Checked { child: ChildId(0), result: Ok(()) });
        assert!(world.process().is_healthy());
        // Nobody asked for that.
        world.tell(Input::Checked { child: ChildId(0), result: Err("late".into()) });
        assert!(world.process().is_healthy());
        for _ in 0..2 {
            world.pass(1_000);
            world.tell(Input::Checked { child: ChildId(0), result: Err("it is ill".into()) });
        }
        assert_eq!(world.take(), ["check 0", "check 0", "stop 0 by 2"]);
        assert_eq!(world.process().record.last_restart, None, "it is counted when it is gone");
    }

    #[test]
    fn a_candidate_takes_over_when_it_has_passed() {
        for passes in [true, false] {
            let mut world = World::start(true, checked);
            world.pass(0);
            world.tell(Input::Checked { child: ChildId(0), result: Ok(()) });
            world.take();
            let command = Command::Reload(vec!["api".to_string()], Box::default(), 1);
            world.tell(Input::Command { op: OpId(1), command });
            world.tell(Input::Listening { child: ChildId(1) });
            world.pass(0);
            assert_eq!(world.take(), ["check 1"]);
            world.pass(900);
            let result = if passes { Ok(()) } else { Err("it is ill".to_string()) };
            world.tell(Input::Checked { child: ChildId(1), result: result.clone() });
            world.pass(300);
            if passes {
                assert_eq!(world.process().child(), Some(ChildId(1)));
                assert_eq!(world.take().last().map(String::as_str), Some("stop 0 by 2"));
                assert!(world.process().is_healthy());
                continue;
            }
            assert_eq!(world.process().child(), Some(ChildId(0)));
            world.pass(1_000);
            world.tell(Input::Checked { child: ChildId(1), result });
            assert_eq!(world.take().last().map(String::as_str), Some("stop 1 by 2"));
            assert_eq!(world.process().child(), Some(ChildId(0)));
        }
    }
}
