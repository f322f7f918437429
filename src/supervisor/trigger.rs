//! Replacements that nobody typed: a child outgrew its memory, the calendar, a changed file, a check that
//! failed. A child that shares its ports is reloaded, any other restarted; a reload that fails leaves the
//! old child, as one that a client asked for does.

use serde::{Deserialize, Serialize};

use super::operation::Settled;
use super::process::{Beside, Desired, State};
use super::{ChildId, Ending, ProcId, Supervisor};
use crate::app::{Changes, Overlap};
use crate::protocol::{Cause, EventKind};
use crate::time::Mono;

/// Why a child takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// As it is counted.
    pub cause: Cause,
    /// For people: `memory 512 MiB over the limit of 300 MiB`.
    pub reason: String,
}

impl Why {
    /// A client asked for it.
    pub fn asked() -> Why {
        Why { cause: Cause::Manual, reason: "on request".to_string() }
    }
}

impl Supervisor {
    /// Something calls for a new child. What is stopped stays so. `about`: it is true of this child only,
    /// and means nothing once another has taken its place.
    pub(super) fn trigger(&mut self, now: Mono, id: ProcId, about: Option<ChildId>, why: Why) {
        // Whoever waits in a reload's queue is replaced anyway.
        if self.ending != Ending::No || self.is_queued(id) {
            return;
        }
        let Some(process) = self.processes.get(&id) else { return };
        if about.is_some() && about != process.child() {
            return;
        }
        match (&process.state, &process.beside) {
            (State::Stopped | State::Stopping(_) | State::Cleaning { .. } | State::Blocked, _) => {}
            // The new child is on its way, and is the answer to everything but a file that changed since
            // it began.
            (_, Some(Beside::Preparing { .. } | Beside::Candidate { .. })) if why.cause != Cause::Watch => {}
            (_, Some(_)) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.pending = Some(why);
                }
            }
            (State::Online { .. }, None) => {
                self.begin_replacement(now, id, None, why, &Changes::default());
            }
            (State::Preparing { .. } | State::Launching { .. } | State::Waiting | State::Errored, None) => {
                self.try_anew(now, id, why)
            }
        }
    }

    /// A job is to run now. What runs already goes on, or is run again, or anew.
    pub(super) fn due(&mut self, now: Mono, id: ProcId, why: Why) {
        if self.ending != Ending::No {
            return;
        }
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.desired == Desired::Up)
        else {
            return;
        };
        match (&process.state, process.app.triggers.overlap) {
            (State::Stopped, _) => {
                process.reason = None;
                process.record.last_restart = Some(why.reason);
                self.start_child(now, id);
            }
            (
                State::Preparing { .. }
                | State::Launching { .. }
                | State::Online { .. }
                | State::Cleaning { .. }
                | State::Stopping(_),
                Overlap::Skip,
            ) => {
                process.record.skipped += 1;
            }
            (
                State::Preparing { .. }
                | State::Launching { .. }
                | State::Online { .. }
                | State::Cleaning { .. }
                | State::Stopping(_),
                Overlap::Queue,
            ) => {
                process.queued = Some(why);
            }
            (State::Preparing { .. } | State::Launching { .. } | State::Online { .. }, Overlap::Kill) => {
                self.begin_anew(now, id, why)
            }
            (State::Cleaning { .. } | State::Stopping(_), Overlap::Kill) => {}
            // It tries again to start by itself.
            (State::Waiting | State::Blocked | State::Errored, _) => {}
        }
    }

    /// A job begins to wait for its next date. That is all that is asked of it.
    pub(super) fn await_date(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.desired = Desired::Up;
        process.state = State::Stopped;
        self.publish(id, EventKind::Waiting, "for its date");
        self.came_down(now, id);
        self.settle(now, id, Settled::Online);
    }

    /// A run of a job is over. Another may have become due meanwhile.
    pub(super) fn run_ended(&mut self, now: Mono, id: ProcId, text: &str) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Stopped;
        process.reason = Some(format!("the last run: {text}"));
        self.publish(id, EventKind::Stopped, text);
        match self.processes.get_mut(&id).and_then(|process| process.queued.take()) {
            Some(why) => self.due(now, id, why),
            None => self.came_down(now, id),
        }
    }

    /// The child beside the current one is gone: what had to wait for that is begun.
    pub(super) fn serve_pending(&mut self, now: Mono, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.beside.is_some() {
            return;
        }
        if process.pending.is_some()
            && let Some(process) = self.processes.get_mut(&id)
            && let Some(why) = process.pending.take()
        {
            self.trigger(now, id, None, why);
        }
        self.begin_waiting(now, id);
    }

    /// Starts a child in the place of one that does not serve. New files are a new program: how the old
    /// one failed does not count; and what was given up gets its whole budget.
    fn try_anew(&mut self, now: Mono, id: ProcId, why: Why) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let given_up = process.state == State::Errored;
        if given_up || why.cause == Cause::Watch {
            process.record.begin_again();
        }
        if given_up {
            self.count(id, why.clone());
        }
        self.begin_anew(now, id, why);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Action, Command, End, Input, OpId, Process};
    use super::*;
    use crate::app::{App, Mode, Occasion, Runtime};
    use crate::protocol::Existing;

    const ID: ProcId = ProcId(0);

    /// One process, in a world where every child comes up and nothing else happens by itself.
    struct World {
        supervisor: Supervisor,
        now: Mono,
        ops: u64,
        answers: Vec<Option<String>>,
        stopped: Vec<ChildId>,
        told: Vec<(Occasion, Option<Cause>)>,
    }

    impl World {
        fn start(cluster: bool) -> World {
            let supervisor = Supervisor::default();
            let mut world = World {
                supervisor,
                now: Mono(0),
                ops: 0,
                answers: Vec::new(),
                stopped: Vec::new(),
                told: Vec::new(),
            };
            let mut app = App { name: "api".to_string(), ..App::default() };
            app.restart.max_restarts = crate::app::Budget::Ends(1);
            if cluster {
                (app.mode, app.command.runtime) = (Mode::Cluster, Runtime::Node);
            }
            world.command(Command::Start(vec![(Arc::new(app), 1)], Existing::Refuse));
            if cluster {
                world.listens();
            }
            world
        }

        fn tell(&mut self, input: Input) {
            self.supervisor.handle(self.now, input);
            while let Some(action) = self.supervisor.next_action() {
                match action {
                    Action::Spawn { child, .. } => {
                        self.supervisor.handle(self.now, Input::Spawned { child });
                    }
                    Action::Stop { child, .. } => self.stopped.push(child),
                    Action::Alert { occasion, cause, .. } => self.told.push((occasion, cause)),
                    Action::Drain { child } => {
                        self.supervisor.handle(self.now, Input::Drained { child });
                    }
                    Action::Answer { outcome, .. } => {
                        let failures = outcome.map(|all| all.into_iter().find_map(|one| one.failure));
                        self.answers.push(failures.map_or_else(Some, |one| one.map(|it| it.reason)));
                    }
                    _ => {}
                }
            }
        }

        fn command(&mut self, command: Command) {
            self.ops += 1;
            self.tell(Input::Command { op: OpId(self.ops), command });
        }

        fn trigger(&mut self, about: Option<ChildId>, cause: Cause) {
            let why = Why { cause, reason: format!("because of {}", cause.word()) };
            self.tell(Input::Trigger { process: ID, about, why });
        }

        fn process(&self) -> &Process {
            self.supervisor.process(ID).expect("it is there")
        }

        /// The newest child listens.
        fn listens(&mut self) {
            let newest = self.supervisor.children().max().expect("a child");
            self.tell(Input::Listening { child: newest });
        }

        fn exits(&mut self, child: ChildId) {
            let end = End { code: Some(1), text: "exit code 1".to_string(), ..End::default() };
            self.tell(Input::Exited { child, end });
        }

        fn time_goes_on(&mut self) {
            self.now = self.supervisor.next_deadline().expect("a deadline");
            self.supervisor.handle_timers(self.now);
            self.tell(Input::Ready { child: ChildId(1 << 40) });
        }
    }

    #[test]
    fn a_worker_is_replaced_and_anything_else_restarted() {
        for cause in [Cause::Memory, Cause::Cron, Cause::Watch, Cause::Unhealthy, Cause::Watchdog] {
            let about = (cause != Cause::Watch).then_some(ChildId(0));
            let mut worker = World::start(true);
            worker.trigger(about, cause);
            assert!(worker.stopped.is_empty(), "the old child serves until the new one does");
            worker.listens();
            worker.time_goes_on();
            assert_eq!(
                (worker.process().child(), &worker.stopped[..]),
                (Some(ChildId(1)), &[ChildId(0)][..])
            );
            let mut other = World::start(false);
            other.trigger(about, cause);
            assert_eq!(other.stopped, [ChildId(0)]);
            other.exits(ChildId(0));
            for world in [worker, other] {
                assert_eq!(world.told, [(Occasion::Restart, Some(cause))]);
                let process = world.process();
                assert_eq!(process.child(), Some(ChildId(1)));
                let record = &process.record;
                assert_eq!((record.restarts, record.by_cause.clone()), (1, [(cause, 1)].into()));
                let because = format!("because of {}", cause.word());
                assert_eq!(record.last_restart.as_deref(), Some(because.as_str()));
            }
        }
    }

    #[test]
    fn what_is_stopped_or_another_child_is_left_alone() {
        let mut world = World::start(false);
        world.trigger(Some(ChildId(7)), Cause::Memory);
        assert!(world.stopped.is_empty());
        world.command(Command::Stop(vec!["all".to_string()]));
        world.trigger(None, Cause::Cron);
        world.exits(ChildId(0));
        world.trigger(None, Cause::Cron);
        world.trigger(None, Cause::Watch);
        assert_eq!((world.process().child(), world.process().record.restarts), (None, 0));
        assert_eq!(world.told, []);
    }

    #[test]
    fn new_files_give_what_was_given_up_another_chance() {
        let mut world = World::start(false);
        world.exits(ChildId(0));
        assert_eq!(world.process().state, State::Errored);
        world.trigger(None, Cause::Watch);
        let told = [(Occasion::Crash, None), (Occasion::Restart, Some(Cause::Watch))];
        assert_eq!(world.told, told);
        assert_eq!((world.process().child(), world.process().record.unstable), (Some(ChildId(1)), 0));
        assert_eq!(world.process().record.by_cause, [(Cause::Watch, 1)].into());
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_child_and_says_so() {
        let mut world = World::start(true);
        world.trigger(None, Cause::Cron);
        world.exits(ChildId(1));
        let process = world.process();
        assert_eq!((process.child(), process.record.restarts, &process.why), (Some(ChildId(0)), 0, &None));
        let reason = "not replaced (because of cron): the new child ended before it was ready: exit code 1; \
                      the old one serves on";
        assert_eq!(process.reason.as_deref(), Some(reason));
        assert!(world.stopped.is_empty());
    }

    #[test]
    fn a_file_that_changes_while_a_new_child_comes_calls_for_another() {
        let mut world = World::start(true);
        world.trigger(None, Cause::Watch);
        world.trigger(None, Cause::Cron);
        assert_eq!(world.process().pending, None, "for the calendar the new child will do");
        world.trigger(None, Cause::Watch);
        world.listens();
        world.time_goes_on();
        assert_eq!(world.supervisor.children().max(), Some(ChildId(1)), "never three children");
        world.exits(ChildId(0));
        world.listens();
        world.time_goes_on();
        world.exits(ChildId(1));
        assert_eq!((world.process().child(), world.process().record.restarts), (Some(ChildId(2)), 2));
        assert_eq!(world.process().pending, None);
    }

    #[test]
    fn a_reload_waits_for_a_replacement_that_is_under_way() {
        let mut world = World::start(true);
        world.answers.clear();
        world.trigger(None, Cause::Memory);
        world.command(Command::Reload(vec!["api".to_string()], Box::default(), 1));
        world.listens();
        world.time_goes_on();
        world.exits(ChildId(0));
        assert_eq!((world.answers.len(), world.supervisor.children().max()), (0, Some(ChildId(2))));
        world.listens();
        world.time_goes_on();
        world.exits(ChildId(1));
        assert_eq!((world.answers, world.supervisor.operations()), (vec![None], 0));
    }
}
