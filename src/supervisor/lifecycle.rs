//! What moves a process from state to state: starts, readiness, ends, stops.

use super::action::Action;
use super::operation::{Settled, failure};
use super::process::{After, Beside, Desired, Leaving, Phase, Process, Readiness, State};
use super::restart::{self, Verdict};
use super::vitals::{Said, Vitals};
use super::{ChildId, End, Ending, ProcId, STUCK, Supervisor, TimerKey, Why};
use crate::app::{App, Notice, Occasion};
use crate::protocol::{Cause, EventKind, Failure};
use crate::time::{Millis, Mono};

/// SIGABRT: what a child gets that hangs, so that it leaves a core.
const ABORT: i32 = 6;

impl Supervisor {
    /// Starts a child for a process that has no current one, when what it depends on has come far enough and
    /// the command before its start has succeeded.
    pub(super) fn start_child(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        if let Some(unmet) = self.unmet(&process.app) {
            self.stop_waiting(id);
            return self.block(now, id, unmet);
        }
        if process.app.hooks.pre_start.is_some() {
            return self.prepare(now, id);
        }
        self.spawn_child(now, id);
    }

    /// Spawns a child for a process that has no current one.
    pub(super) fn spawn_child(&mut self, now: Mono, id: ProcId) {
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        debug_assert!(process.child().is_none(), "a process never has two current children");
        process.desired = Desired::Up;
        let is_blocked = process.state == State::Blocked;
        process.state = State::Launching { child, since: now, overdue: false };
        process.why = None;
        process.vitals = Vitals::default();
        process.queued = None;
        process.record.completed = false;
        process.reason = process.reason.take().filter(|_| !is_blocked);
        let app = process.app.clone();
        let instance = process.instance;
        self.stop_waiting(id);
        self.timers.arm(TimerKey::Launch(id), now + Self::launch_patience(&app));
        self.actions.push_back(Action::Spawn { child, process: id, app, instance, hold: false });
    }

    /// How long a child may launch. One that is ready by living on for so long cannot be late with it.
    pub(super) fn launch_patience(app: &App) -> Millis {
        match Process::readiness(app) {
            Readiness::Uptime => app.restart.min_uptime,
            Readiness::Spawned | Readiness::Listening | Readiness::Message | Readiness::Notified => {
                app.listen_timeout
            }
        }
    }

    /// The child executes its program.
    pub(super) fn spawned(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        if process.is_hook(child) {
            return;
        }
        let id = process.id;
        let app = process.app.clone();
        match &process.beside {
            Some(Beside::Candidate { child: candidate, .. }) if *candidate == child => {
                self.publish(id, EventKind::Spawned, "replacement");
                self.candidate_spawned(now, id);
            }
            _ => {
                self.publish(id, EventKind::Spawned, "");
                if Process::readiness(&app) == Readiness::Spawned {
                    self.online(now, id);
                }
            }
        }
    }

    /// There is no child. A cause that does not pass by itself is not tried again.
    pub(super) fn spawn_failed(&mut self, now: Mono, child: ChildId, reason: String, transient: bool) {
        let Some(process) = self.disown(child) else { return };
        let id = process.id;
        self.timers.cancel(TimerKey::Kill(child));
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.beside.as_ref().is_some_and(|b| b.child() == child) {
            return self.beside_ended(now, id, &End { text: reason, ..End::default() });
        }
        if matches!(process.state, State::Stopping(_)) {
            return self.stopped(now, id);
        }
        if matches!(process.state, State::Cleaning { .. }) {
            process.reason = Some(reason);
            return self.cleaned(now, id);
        }
        process.reason = Some(reason.clone());
        self.timers.cancel(TimerKey::Launch(id));
        if process.app.triggers.is_job() {
            // It is tried again at its next date.
            self.run_ended(now, id, &reason);
        } else if transient {
            self.wait(now, id, restart::TRANSIENT_DELAY);
        } else {
            self.settle_at(now, id, State::Errored, EventKind::Errored, &reason);
        }
        self.settle(now, id, Settled::NotUp(failure(reason)));
    }

    /// The current child serves.
    pub(super) fn online(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let State::Launching { child, since, .. } = process.state else { return };
        process.state = State::Online { child, since, listening: false };
        process.reason = None;
        self.timers.cancel(TimerKey::Launch(id));
        self.begin_vitals(now, id);
        self.publish(id, EventKind::Online, "");
        self.settle(now, id, Settled::Online);
    }

    /// A worker listens on a shared port.
    pub(super) fn listening(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        if let Some(Beside::Candidate { child: candidate, listening, .. }) = &mut process.beside
            && *candidate == child
        {
            *listening = true;
            return self.candidate_progress(now, id, Readiness::Listening);
        }
        if matches!(process.state, State::Launching { child: current, .. } if current == child)
            && matches!(process.app.declared_readiness(), None | Some(Readiness::Listening))
        {
            self.online(now, id);
        }
        if let Some(process) = self.processes.get_mut(&id)
            && let State::Online { child: current, listening, .. } = &mut process.state
            && *current == child
            && !std::mem::replace(listening, true)
        {
            self.old_child_listens(now, id);
        }
    }

    /// A child said that it is ready, on its channel or by sd_notify.
    pub(super) fn reached(&mut self, now: Mono, child: ChildId, readiness: Readiness) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let declared = process.app.declared_readiness();
        match (&process.beside, &process.state) {
            (Some(Beside::Candidate { child: candidate, .. }), _) if *candidate == child => {
                self.candidate_progress(now, id, readiness);
            }
            (_, State::Launching { child: current, .. })
                if *current == child && declared == Some(readiness) =>
            {
                self.online(now, id);
            }
            _ => {}
        }
    }

    /// The first child of a start took its time. A cluster worker that never listens is still one; an
    /// app that promised to say when it is ready stays `launching` until it does.
    pub(super) fn launch_overdue(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let State::Preparing { child, .. } | State::Cleaning { child, .. } = process.state {
            return self.actions.push_back(Action::Kill { child });
        }
        let State::Launching { overdue, .. } = &mut process.state else { return };
        let promised = [Readiness::Listening, Readiness::Message, Readiness::Notified].map(Some);
        if promised.contains(&process.app.declared_readiness()) {
            *overdue = true;
            let reason = format!("not ready within {} ms", process.app.listen_timeout.0);
            process.reason = Some(reason.clone());
            self.settle(now, id, Settled::NotUp(failure(format!("{reason}; it is left running"))));
        } else {
            self.online(now, id);
        }
    }

    /// A child is gone.
    pub(super) fn exited(&mut self, now: Mono, child: ChildId, end: End) {
        if let Some(id) = self.owner(child) {
            self.end_vitals(id, child);
        }
        let Some(process) = self.disown(child) else { return };
        let id = process.id;
        self.timers.cancel(TimerKey::Kill(child));
        self.timers.cancel(TimerKey::Drain(child));
        let Some(process) = self.processes.get_mut(&id) else { return };
        let end = if process.is_hook(child) { self.hook_end(now, id, child, end) } else { end };
        self.publish(id, EventKind::Exited, end.text.as_str());
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.beside.as_ref().is_some_and(|b| b.child() == child) {
            return self.beside_ended(now, id, &end);
        }
        match process.state {
            State::Preparing { .. } if end.code == Some(0) => self.prepared(now, id),
            State::Cleaning { .. } => self.cleaned(now, id),
            State::Stopping(_) => self.clean(now, id, After::Stop),
            State::Preparing { since, .. } | State::Launching { since, .. } => {
                self.crashed(id, &end);
                self.clean(now, id, After::End { lived: now.since(since), end, was_launching: true });
            }
            State::Online { since, .. } => {
                self.crashed(id, &end);
                self.clean(now, id, After::End { lived: now.since(since), end, was_launching: false });
            }
            State::Stopped | State::Waiting | State::Blocked | State::Errored => {
                debug_assert!(false, "an owned child is current or beside");
            }
        }
    }

    /// The current child ended, and was not told to: tells about it, unless it is done.
    fn crashed(&mut self, id: ProcId, end: &End) {
        let Some(process) = self.processes.get(&id) else { return };
        let policy = &process.app.restart;
        let may_be_done = !policy.autorestart || process.app.triggers.is_job();
        let is_done = |code: i32| (code == 0 && may_be_done) || policy.stop_exit_codes.contains(&code);
        if end.code.is_some_and(is_done) {
            return;
        }
        self.actions.push_back(Action::Alert {
            process: id,
            occasion: Occasion::Crash,
            cause: None,
            reason: end.text.clone(),
        });
    }

    fn beside_ended(&mut self, now: Mono, id: ProcId, end: &End) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        match process.beside.take() {
            Some(Beside::Preparing { app, .. }) => {
                self.timers.cancel(TimerKey::Replacement(id));
                if end.code == Some(0) {
                    return self.spawn_candidate(now, id, app);
                }
                let reason = format!("{}; the old child serves on", end.text);
                self.reload_failed(now, id, Failure { reason, last_lines: end.last_lines.clone() });
            }
            Some(candidate @ Beside::Candidate { .. }) => {
                process.beside = Some(candidate);
                self.candidate_ended(now, id, end);
            }
            Some(Beside::Rejected { reason, .. }) => {
                self.reload_failed(now, id, Failure { reason, last_lines: end.last_lines.clone() });
            }
            Some(Beside::Retiring(_)) => {
                self.timers.cancel(TimerKey::Replacement(id));
                let why = self.processes.get(&id).and_then(|process| process.record.last_restart.clone());
                self.publish(id, EventKind::Reloaded, why.unwrap_or_default());
                self.settle(now, id, Settled::Replaced);
            }
            None => {}
        }
        self.came_down(now, id);
        self.serve_pending(now, id);
    }

    /// The current child ended by itself.
    pub(super) fn ended(&mut self, now: Mono, id: ProcId, lived: Millis, end: End, was_launching: bool) {
        self.timers.cancel(TimerKey::Launch(id));
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.reason = Some(end.text.clone());
        if self.candidate_takes_over(now, id) {
            return self.serve_pending(now, id);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.app.triggers.is_job() {
            self.run_ended(now, id, &end.text);
            return self.settle(now, id, Settled::Online);
        }
        process.queued = None;
        let policy = process.app.restart.clone();
        let verdict = restart::after_exit(&policy, &mut process.record, (now, id), lived, &end);
        match &verdict {
            Verdict::Stay => {
                process.record.completed = end.code == Some(0);
                process.desired = Desired::Down;
                self.settle_at(now, id, State::Stopped, EventKind::Stopped, &end.text);
            }
            Verdict::Restart(Millis(0)) => {
                process.state = State::Stopped;
                self.count(id, crash(end.text.as_str()));
                self.start_in_turn(now, id);
            }
            Verdict::Restart(delay) => {
                self.count(id, crash(end.text.as_str()));
                self.wait(now, id, *delay);
            }
            Verdict::GiveUp(why) => {
                let reason = format!("{why}, the last one: {}", end.text);
                process.reason = Some(reason.clone());
                self.settle_at(now, id, State::Errored, EventKind::Errored, &reason);
            }
        }
        if verdict == Verdict::Stay && end.code == Some(0) {
            // It did what it was started for, and is done.
            self.settle(now, id, Settled::Online);
        } else if was_launching {
            let reason = format!("{} before it was ready", end.text);
            self.settle(now, id, Settled::NotUp(Failure { reason, last_lines: end.last_lines }));
        }
    }

    /// The child that was told to stop is gone.
    pub(super) fn stopped(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Stopped;
        if process.desired == Desired::Up {
            self.settle(now, id, Settled::Down);
            if let Some(process) = self.processes.get_mut(&id) {
                let why = process.why.take().unwrap_or_else(Why::asked);
                self.count(id, why);
            }
            return self.start_child(now, id);
        }
        process.why = None;
        self.publish(id, EventKind::Stopped, "");
        self.came_down(now, id);
    }

    /// Waits before the next start.
    fn wait(&mut self, now: Mono, id: ProcId, delay: Millis) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Waiting;
        self.timers.arm(TimerKey::Restart(id), now + delay);
        self.publish(id, EventKind::Waiting, format!("{} ms", delay.0));
    }

    /// The back-off is over.
    pub(super) fn restart_due(&mut self, now: Mono, id: ProcId) {
        if matches!(self.processes.get(&id), Some(Process { state: State::Waiting, .. })) {
            self.start_in_turn(now, id);
        }
    }

    /// Starts a process again by itself, when it is its turn among the others that do.
    fn start_in_turn(&mut self, now: Mono, id: ProcId) {
        let turn = self.pace.turn(now, id);
        if turn <= now {
            return self.start_child(now, id);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Waiting;
        self.timers.arm(TimerKey::Turn(id), turn);
        self.publish(id, EventKind::Waiting, format!("{} ms", turn.since(now).0));
    }

    /// It is the turn of one of many.
    pub(super) fn turn_due(&mut self, now: Mono, id: ProcId) {
        if matches!(self.processes.get(&id), Some(Process { state: State::Waiting, .. })) {
            self.start_child(now, id);
        }
    }

    pub(super) fn stop_waiting(&mut self, id: ProcId) {
        self.timers.cancel(TimerKey::Restart(id));
        self.timers.cancel(TimerKey::Turn(id));
    }

    /// Enters a state without a child.
    fn settle_at(&mut self, now: Mono, id: ProcId, state: State, kind: EventKind, detail: &str) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.desired = Desired::Down;
        process.state = state;
        self.publish(id, kind, detail);
        self.came_down(now, id);
    }

    /// If nothing of the process is left: whoever waited for that learns it, a deleted process is
    /// forgotten, and an app without any process up lets go of its ports.
    pub(super) fn came_down(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        if !process.is_down() {
            return;
        }
        let app = process.app.clone();
        self.settle(now, id, Settled::Down);
        if self.processes.get(&id).is_some_and(|p| p.desired == Desired::Gone) {
            self.publish(id, EventKind::Deleted, "");
            self.settle(now, id, Settled::Gone);
            self.processes.remove(&id);
            self.actions.push_back(Action::Forget { process: id });
            if self.processes.is_empty() {
                // pm2 counts from 0 again, and its users' scripts rely on it.
                self.next_process = 0;
            }
        }
        // They come down in their order, more or less: who is left is found from the end.
        if self.instances(&app).rev().all(Process::is_down) {
            self.actions.push_back(Action::Release { app });
        }
    }

    /// Tells the current child to stop. What follows depends on what is wanted.
    pub(super) fn stop_child(&mut self, now: Mono, id: ProcId, drain: bool) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let app = process.app.clone();
        let hung = process.vitals.said == Said::Silent;
        let (child, listening) = match process.state {
            State::Preparing { child, .. } | State::Launching { child, .. } => (child, false),
            State::Online { child, listening, .. } => (child, listening && !hung),
            State::Cleaning { ref mut after, .. } => {
                **after = After::Stop;
                return;
            }
            State::Waiting | State::Blocked => {
                process.state = State::Stopped;
                self.stop_waiting(id);
                return self.came_down(now, id);
            }
            State::Errored => {
                process.state = State::Stopped;
                return self.came_down(now, id);
            }
            State::Stopping(Leaving { child, phase: Phase::Draining, .. }) if !drain => (child, false),
            State::Stopped => return self.came_down(now, id),
            State::Stopping(_) => return,
        };
        self.timers.cancel(TimerKey::Launch(id));
        self.end_vitals(id, child);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.vitals.extended = Millis(0);
        if !matches!(process.state, State::Stopping(_)) {
            let why = process.why.as_ref().map_or(String::new(), |why| why.reason.clone());
            self.publish(id, EventKind::Stopping, why);
        }
        let phase = if drain && listening {
            self.timers.arm(TimerKey::Drain(child), now + app.drain_timeout);
            self.actions.push_back(Action::Drain { child });
            Phase::Draining
        } else {
            self.send_first(now, child, &app, hung)
        };
        if let Some(process) = self.processes.get_mut(&id) {
            process.state = State::Stopping(Leaving { child, phase, step: first_step(hung) });
        }
    }

    /// Takes the first step. One that hangs gets SIGABRT, which may leave a core, and SIGKILL after that.
    pub(super) fn send_first(&mut self, now: Mono, child: ChildId, app: &App, hung: bool) -> Phase {
        if !hung {
            return self.send_stop(now, child, app, 0);
        }
        self.timers.cancel(TimerKey::Drain(child));
        self.timers.arm(TimerKey::Kill(child), now + app.kill_timeout);
        self.actions.push_back(Action::Stop { child, notice: Notice::Signal(ABORT) });
        Phase::Stopping
    }

    /// Takes a step towards the end of a child and arms what follows it.
    pub(super) fn send_stop(&mut self, now: Mono, child: ChildId, app: &App, step: u8) -> Phase {
        self.timers.cancel(TimerKey::Drain(child));
        let Some((notice, patience)) = app.stop_step(step) else {
            self.timers.arm(TimerKey::Kill(child), now + STUCK);
            self.actions.push_back(Action::Kill { child });
            return Phase::Killed;
        };
        self.timers.arm(TimerKey::Kill(child), now + patience);
        self.actions.push_back(Action::Stop { child, notice });
        Phase::Stopping
    }

    /// A leaving child has finished its connections, or has had its time for it.
    pub(super) fn drained(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let app = process.app.clone();
        let Some(leaving) = leaving_of(process, child) else { return };
        if leaving.phase == Phase::Draining {
            leaving.phase = Phase::Stopping;
            self.send_stop(now, child, &app, 0);
        }
    }

    /// A child did not heed what it was told: the next step.
    pub(super) fn kill_due(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let app = process.app.clone();
        let Some(leaving) = leaving_of(process, child) else { return };
        leaving.step = leaving.step.saturating_add(1);
        let (was, step) = (leaving.phase, leaving.step);
        let phase = match was {
            Phase::Killed => self.send_stop(now, child, &app, u8::MAX),
            Phase::Draining | Phase::Stopping => self.send_stop(now, child, &app, step),
        };
        if let Some(leaving) = self.owned(child).and_then(|process| leaving_of(process, child)) {
            leaving.phase = phase;
        }
        if was == Phase::Killed {
            self.actions.push_back(Action::Examine { child });
        }
    }

    /// A child outlives SIGKILL. It keeps its place: nothing else is started there.
    pub(super) fn unkillable(&mut self, now: Mono, child: ChildId, state: &str) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let reason = format!("still alive after SIGKILL (state {state})");
        process.reason = Some(reason.clone());
        self.settle(now, id, Settled::Stuck(failure(reason)));
    }

    /// No step but SIGKILL is left to a child.
    pub(super) fn last_step(&mut self, child: ChildId) {
        if let Some(leaving) = self.owned(child).and_then(|process| leaving_of(process, child)) {
            leaving.step = u8::MAX;
        }
    }

    /// Why a living child was told to end; `None`: it was not.
    pub fn why_told_to_end(&self, child: ChildId) -> Option<String> {
        let process = self.process(self.owner(child)?)?;
        let reason = match (&process.beside, &process.state) {
            (Some(Beside::Rejected { leaving, reason }), _) if leaving.child == child => reason.clone(),
            (Some(Beside::Retiring(leaving)), _) if leaving.child == child => {
                format!("replaced {}", process.record.last_restart.as_deref().unwrap_or_default())
            }
            (_, State::Stopping(leaving)) if leaving.child == child => {
                match (process.desired, &process.why) {
                    _ if self.ending != Ending::No => "pmx ended".to_string(),
                    (Desired::Up, Some(why)) => format!("restart: {}", why.reason),
                    (Desired::Up, None) => "restart".to_string(),
                    (Desired::Down, _) => "stopped on request".to_string(),
                    (Desired::Gone, _) => "deleted".to_string(),
                }
            }
            _ => return None,
        };
        Some(reason.trim_end().to_string())
    }

    /// The process a living child belongs to.
    pub(super) fn owned(&mut self, child: ChildId) -> Option<&mut Process> {
        let id = self.owners.get(&child)?;
        self.processes.get_mut(id)
    }

    /// As [`Self::owned`], and the child is no more: facts about it that come later find no owner.
    fn disown(&mut self, child: ChildId) -> Option<&mut Process> {
        let id = self.owners.remove(&child)?;
        self.processes.get_mut(&id)
    }
}

/// Nothing but SIGKILL comes after the first step to one that hangs.
pub fn first_step(hung: bool) -> u8 {
    if hung { u8::MAX } else { 0 }
}

fn crash(text: &str) -> Why {
    Why { cause: Cause::Crash, reason: text.to_string() }
}

/// The place where a leaving child of `process` stands.
fn leaving_of(process: &mut Process, child: ChildId) -> Option<&mut Leaving> {
    let here = match (&mut process.state, &mut process.beside) {
        (State::Stopping(leaving), _) if leaving.child == child => leaving,
        (_, Some(Beside::Rejected { leaving, .. } | Beside::Retiring(leaving))) if leaving.child == child => {
            leaving
        }
        _ => return None,
    };
    Some(here)
}
