//! The commands before and after a child. Each is a child of its own, in the place of the one that it is for.

use super::action::Action;
use super::process::{After, Beside, Process, State};
use super::{ChildId, End, ProcId, Supervisor, TimerKey};
use crate::app::App;
use crate::time::Mono;

impl Process {
    /// Whether a child of it is such a command. One that was told to end is a child like others.
    pub(super) fn is_hook(&self, child: ChildId) -> bool {
        let current = match self.state {
            State::Preparing { child, .. } | State::Cleaning { child, .. } => Some(child),
            _ => None,
        };
        let beside = matches!(self.beside, Some(Beside::Preparing { child: other, .. }) if other == child);
        current == Some(child) || beside
    }
}

impl Supervisor {
    /// Runs the command before the start of a child.
    pub(super) fn prepare(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let (app, instance) = (process.app.clone(), process.instance);
        let Some(line) = &app.hooks.pre_start else { return };
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.desired = super::Desired::Up;
        process.queued = None;
        process.reason = process.reason.take().filter(|_| process.state != State::Blocked);
        process.state = State::Preparing { child, since: now };
        self.stop_waiting(id);
        self.timers.arm(TimerKey::Launch(id), now + app.hooks.timeout);
        self.actions.push_back(Action::Spawn {
            child,
            process: id,
            app: app.hook(line),
            instance,
            hold: false,
        });
    }

    /// It succeeded.
    pub(super) fn prepared(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Stopped;
        self.spawn_child(now, id);
    }

    /// The same for the candidate of a reload.
    pub(super) fn prepare_candidate(&mut self, now: Mono, id: ProcId, app: std::sync::Arc<App>) {
        let Some(line) = &app.hooks.pre_start else { return self.spawn_candidate(now, id, app) };
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let hook = app.hook(line);
        self.timers.arm(TimerKey::Replacement(id), now + app.hooks.timeout);
        let instance = process.instance;
        process.beside = Some(Beside::Preparing { child, since: now, app });
        self.actions.push_back(Action::Spawn { child, process: id, app: hook, instance, hold: false });
    }

    /// The child in its place is gone. What follows comes after the command for that, if there is one.
    pub(super) fn clean(&mut self, now: Mono, id: ProcId, after: After) {
        self.timers.cancel(TimerKey::Launch(id));
        let Some(process) = self.processes.get(&id) else { return };
        let replaced = matches!(process.beside, Some(Beside::Preparing { .. } | Beside::Candidate { .. }));
        let takes_over = replaced && after != After::Stop;
        let (app, instance) = (process.app.clone(), process.instance);
        let due = self.latest.unwrap_or(Mono(u64::MAX)).min(now + app.hooks.timeout);
        let Some(line) = app.hooks.post_stop.as_ref().filter(|_| !takes_over && due > now) else {
            return self.go_on(now, id, after);
        };
        let child = self.new_child(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Cleaning { child, after: Box::new(after) };
        self.timers.arm(TimerKey::Launch(id), due);
        self.actions.push_back(Action::Spawn {
            child,
            process: id,
            app: app.hook(line),
            instance,
            hold: false,
        });
    }

    /// The command after an end is over, however it ended.
    pub(super) fn cleaned(&mut self, now: Mono, id: ProcId) {
        self.timers.cancel(TimerKey::Launch(id));
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let State::Cleaning { after, .. } = std::mem::replace(&mut process.state, State::Stopped) {
            self.go_on(now, id, *after);
        }
    }

    fn go_on(&mut self, now: Mono, id: ProcId, after: After) {
        match after {
            After::Stop => self.stopped(now, id),
            After::End { lived, end, was_launching } => self.ended(now, id, lived, end, was_launching),
        }
    }

    /// How such a command ended, in words that say which it was.
    pub(super) fn hook_end(&self, now: Mono, id: ProcId, child: ChildId, end: End) -> End {
        let Some(process) = self.processes.get(&id) else { return end };
        let (what, since, timeout) = match (&process.state, &process.beside) {
            (_, Some(Beside::Preparing { child: other, since, app })) if *other == child => {
                ("pre_start", Some(*since), app.hooks.timeout)
            }
            (State::Preparing { since, .. }, _) => ("pre_start", Some(*since), process.app.hooks.timeout),
            _ => ("post_stop", None, process.app.hooks.timeout),
        };
        let late = since.is_some_and(|since| now.since(since) >= timeout) && end.code != Some(0);
        let text = match late {
            true => format!("{what}: not done within {} ms", timeout.0),
            false => format!("{what}: {}", end.text),
        };
        // It says nothing about the program.
        End { code: end.code.filter(|code| *code == 0), text, ..end }
    }
}
