//! What moves a process from state to state: starts, readiness, ends, stops.

use super::action::Action;
use super::operation::{Settled, failure};
use super::process::{Beside, Desired, Leaving, Phase, Process, Readiness, State, same_app};
use super::restart::{self, Verdict};
use super::{ChildId, End, ProcId, STUCK, Supervisor, TimerKey};
use crate::protocol::{EventKind, Failure};
use crate::time::{Millis, Mono};

impl Supervisor {
    /// Spawns a child for a process that has no current one.
    pub(super) fn start_child(&mut self, now: Mono, id: ProcId) {
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        debug_assert!(process.child().is_none(), "a process never has two current children");
        process.desired = Desired::Up;
        process.state = State::Launching { child, since: now, overdue: false };
        let app = process.app.clone();
        let instance = process.instance;
        self.timers.cancel(TimerKey::Restart(id));
        self.timers.arm(TimerKey::Launch(id), now + app.listen_timeout);
        self.actions.push_back(Action::Spawn { child, process: id, app, instance, hold: false });
    }

    /// The child executes its program.
    pub(super) fn spawned(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
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
        process.reason = Some(reason.clone());
        self.timers.cancel(TimerKey::Launch(id));
        if transient {
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
            && !process.app.wait_ready
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

    /// A child said that it is ready.
    pub(super) fn ready(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        match (&process.beside, &process.state) {
            (Some(Beside::Candidate { child: candidate, .. }), _) if *candidate == child => {
                self.candidate_progress(now, id, Readiness::Message);
            }
            (_, State::Launching { child: current, .. }) if *current == child && process.app.wait_ready => {
                self.online(now, id);
            }
            _ => {}
        }
    }

    /// The first child of a start took its time. A cluster worker that never listens is still one; an
    /// app that promised to say when it is ready stays `launching` until it does.
    pub(super) fn launch_overdue(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let State::Launching { overdue, .. } = &mut process.state else { return };
        if process.app.wait_ready {
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
        let Some(process) = self.disown(child) else { return };
        let id = process.id;
        self.timers.cancel(TimerKey::Kill(child));
        self.timers.cancel(TimerKey::Drain(child));
        self.publish(id, EventKind::Exited, end.text.as_str());
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.beside.as_ref().is_some_and(|b| b.child() == child) {
            return self.beside_ended(now, id, &end);
        }
        match process.state {
            State::Stopping(_) => self.stopped(now, id),
            State::Launching { since, .. } => self.ended(now, id, since, end, true),
            State::Online { since, .. } => self.ended(now, id, since, end, false),
            State::Stopped | State::Waiting | State::Errored => {
                debug_assert!(false, "an owned child is current or beside");
            }
        }
    }

    fn beside_ended(&mut self, now: Mono, id: ProcId, end: &End) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        match process.beside.take() {
            Some(candidate @ Beside::Candidate { .. }) => {
                process.beside = Some(candidate);
                self.candidate_ended(now, id, end);
            }
            Some(Beside::Rejected { reason, .. }) => {
                self.reload_failed(now, id, Failure { reason, last_lines: end.last_lines.clone() });
            }
            Some(Beside::Retiring(_)) => {
                self.timers.cancel(TimerKey::Replacement(id));
                self.publish(id, EventKind::Reloaded, "");
                self.settle(now, id, Settled::Replaced);
            }
            None => {}
        }
        self.came_down(now, id);
        self.begin_waiting(now, id);
    }

    /// The current child ended by itself.
    fn ended(&mut self, now: Mono, id: ProcId, since: Mono, end: End, was_launching: bool) {
        self.timers.cancel(TimerKey::Launch(id));
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.reason = Some(end.text.clone());
        if self.candidate_takes_over(now, id) {
            return;
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        let policy = process.app.restart.clone();
        let verdict = restart::after_exit(&policy, &mut process.record, now.since(since), &end);
        match verdict {
            Verdict::Stay => {
                process.desired = Desired::Down;
                self.settle_at(now, id, State::Stopped, EventKind::Stopped, &end.text);
            }
            Verdict::Restart(Millis(0)) => {
                process.state = State::Stopped;
                process.record.restarts += 1;
                self.start_child(now, id);
            }
            Verdict::Restart(delay) => {
                process.record.restarts += 1;
                self.wait(now, id, delay);
            }
            Verdict::GiveUp => {
                let reason = format!(
                    "too many unstable restarts ({}), the last one: {}",
                    policy.max_restarts, end.text
                );
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
    fn stopped(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Stopped;
        if process.desired == Desired::Up {
            self.settle(now, id, Settled::Down);
            if let Some(process) = self.processes.get_mut(&id) {
                process.record.restarts += 1;
            }
            return self.start_child(now, id);
        }
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
            self.start_child(now, id);
        }
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
        if !self.processes.values().any(|p| !p.is_down() && same_app(&p.app, &app)) {
            self.actions.push_back(Action::Release { app });
        }
    }

    /// Tells the current child to stop. What follows depends on what is wanted.
    pub(super) fn stop_child(&mut self, now: Mono, id: ProcId, drain: bool) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let app = process.app.clone();
        let (child, listening) = match process.state {
            State::Launching { child, .. } => (child, false),
            State::Online { child, listening, .. } => (child, listening),
            State::Waiting => {
                process.state = State::Stopped;
                self.timers.cancel(TimerKey::Restart(id));
                return self.came_down(now, id);
            }
            State::Errored => {
                process.state = State::Stopped;
                return self.came_down(now, id);
            }
            State::Stopping(Leaving { child, phase: Phase::Draining }) if !drain => (child, false),
            State::Stopped => return self.came_down(now, id),
            State::Stopping(_) => return,
        };
        self.timers.cancel(TimerKey::Launch(id));
        if !matches!(process.state, State::Stopping(_)) {
            self.publish(id, EventKind::Stopping, "");
        }
        let phase = if drain && listening {
            self.timers.arm(TimerKey::Drain(child), now + app.drain_timeout);
            self.actions.push_back(Action::Drain { child });
            Phase::Draining
        } else {
            self.send_stop(now, child, app.stop_signal, app.kill_timeout)
        };
        if let Some(process) = self.processes.get_mut(&id) {
            process.state = State::Stopping(Leaving { child, phase });
        }
    }

    /// Sends the stop signal and arms what follows it.
    pub(super) fn send_stop(&mut self, now: Mono, child: ChildId, signal: i32, patience: Millis) -> Phase {
        self.timers.cancel(TimerKey::Drain(child));
        self.timers.arm(TimerKey::Kill(child), now + patience);
        self.actions.push_back(Action::Stop { child, signal });
        Phase::Stopping
    }

    /// A leaving child has finished its connections, or has had its time for it.
    pub(super) fn drained(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let app = process.app.clone();
        let Some(leaving) = leaving(process, child) else { return };
        if leaving.phase == Phase::Draining {
            leaving.phase = Phase::Stopping;
            self.send_stop(now, child, app.stop_signal, app.kill_timeout);
        }
    }

    /// A child did not heed its stop signal.
    pub(super) fn kill_due(&mut self, now: Mono, child: ChildId) {
        let Some(process) = self.owned(child) else { return };
        let id = process.id;
        let Some(leaving) = leaving(process, child) else { return };
        let was = std::mem::replace(&mut leaving.phase, Phase::Killed);
        self.actions.push_back(Action::Kill { child });
        self.timers.arm(TimerKey::Kill(child), now + STUCK);
        if was == Phase::Killed {
            self.settle(now, id, Settled::Stuck);
        }
    }

    /// The process a living child belongs to.
    fn owned(&mut self, child: ChildId) -> Option<&mut Process> {
        let id = self.owners.get(&child)?;
        self.processes.get_mut(id)
    }

    /// As [`Self::owned`], and the child is no more: facts about it that come later find no owner.
    fn disown(&mut self, child: ChildId) -> Option<&mut Process> {
        let id = self.owners.remove(&child)?;
        self.processes.get_mut(&id)
    }
}

/// The place where a leaving child of `process` stands.
fn leaving(process: &mut Process, child: ChildId) -> Option<&mut Leaving> {
    let here = match (&mut process.state, &mut process.beside) {
        (State::Stopping(leaving), _) if leaving.child == child => leaving,
        (_, Some(Beside::Rejected { leaving, .. } | Beside::Retiring(leaving))) if leaving.child == child => {
            leaving
        }
        _ => return None,
    };
    Some(here)
}
