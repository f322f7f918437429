//! How children are started: while one gets to execute its program, the next is made ready, and so on.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use mio::Registry;

use super::children::{Children, Ready, Refused, Request};
use super::event_loop::Daemon;
use super::home::Home;
use super::notify::Ears;
use super::views::Memories;
use crate::app::App;
use crate::supervisor::{Action, ChildId, Input, ProcId, Supervisor};
use crate::sys::board::Board;
use crate::sys::spawn::{self, Spawned};
use crate::sys::{clock, failpoint, limits};
use crate::time::Mono;

/// Children started in one round: starting takes long, and others wait.
const A_ROUND: u32 = 16;

/// How many more children this round may start.
#[derive(Debug, Default)]
pub struct Starts(u32);

impl Starts {
    /// Another round.
    pub(super) fn begin(&mut self) {
        self.0 = A_ROUND;
    }

    /// Whether this round has started enough.
    pub(super) fn are_enough(&self) -> bool {
        self.0 == 0
    }
}

/// A child that is to be started.
pub(super) struct Wanted {
    pub(super) child: ChildId,
    pub(super) process: ProcId,
    pub(super) app: Arc<App>,
    pub(super) instance: u32,
    /// It may not accept before it is promoted.
    pub(super) hold: bool,
}

/// What became of it.
struct Started {
    wanted: Wanted,
    outcome: Result<(Ready, Spawned), Refused>,
}

/// What it takes to start children.
struct Starter<'a> {
    supervisor: &'a mut Supervisor,
    starts: &'a mut Starts,
    children: &'a Children,
    ears: &'a mut Ears,
    memories: &'a Memories,
    registry: &'a Registry,
    home: &'a Home,
    board: &'a Board,
    now: Mono,
    /// The last one first.
    started: Vec<Started>,
}

impl Starter<'_> {
    /// Starts a child, and all that are to be started next as well, as far as the round goes.
    fn start(&mut self, wanted: Wanted) {
        self.starts.0 = self.starts.0.saturating_sub(1);
        let outcome = match self.make_ready(&wanted) {
            Ok(mut ready) => {
                let spawned = self.children.execute(&mut ready, || self.start_next()).0;
                spawned.map(|spawned| (ready, spawned))
            }
            Err(refused) => {
                self.start_next();
                Err(refused)
            }
        };
        self.started.push(Started { wanted, outcome });
    }

    fn start_next(&mut self) {
        if !self.starts.are_enough()
            && matches!(self.supervisor.coming(), Some(Action::Spawn { .. }))
            && let Some(Action::Spawn { child, process, app, instance, hold }) = self.supervisor.next_action()
        {
            self.start(Wanted { child, process, app, instance, hold });
        }
    }

    fn make_ready(&mut self, wanted: &Wanted) -> Result<Ready, Refused> {
        // If we die of it, the next daemon knows.
        self.board.busy_with.store(u64::from(wanted.process.0) + 1, SeqCst);
        failpoint::reach("before-spawn");
        let wall = clock::wall();
        let notify = self.ears.path(self.registry, self.home, &wanted.app);
        self.children.make_ready(&Request {
            child: wanted.child,
            process: wanted.process,
            app: wanted.app.clone(),
            instance: wanted.instance,
            hold: wanted.hold,
            created: self.memories.get(wanted.process).map_or(wall, |memory| memory.created),
            home: self.home,
            unattended: !self.supervisor.is_awaited(wanted.process),
            notify,
            now: self.now,
            wall,
        })
    }
}

impl Daemon {
    /// Starts a child, and what comes next to be started. The supervisor is told what became of each.
    pub(super) fn start(&mut self, wanted: Wanted) {
        if self.is_safe() {
            let reason = "pmx is in safe mode".to_string();
            let failed = Input::SpawnFailed { child: wanted.child, reason, transient: true };
            return self.supervisor.handle(self.now, failed);
        }
        let stepped_back = self.step_back();
        let mut starter = Starter {
            supervisor: &mut self.supervisor,
            starts: &mut self.starts,
            children: &self.children,
            ears: &mut self.ears,
            memories: &self.memories,
            registry: self.poll.registry(),
            home: &self.home,
            board: self.board,
            now: self.now,
            started: Vec::new(),
        };
        starter.start(wanted);
        let started = starter.started;
        self.step_forward(stepped_back, &started);
        for Started { wanted, outcome } in started.into_iter().rev() {
            let Wanted { child, process, app, hold, .. } = wanted;
            self.busy_with(child);
            let input = match outcome {
                Ok((ready, spawned)) => {
                    failpoint::reach("spawned");
                    self.children.begin(self.poll.registry(), ready, spawned, &mut self.desk);
                    failpoint::reach("after-spawn");
                    self.primary.join(child, hold);
                    Input::Spawned { child }
                }
                Err(Refused { reason, transient, errno }) => {
                    log::error!("{}({}): {reason}", app.name, process.0);
                    self.container_failed(process, errno);
                    Input::SpawnFailed { child, reason, transient }
                }
            };
            self.supervisor.handle(self.now, input);
        }
    }

    /// As likely to die when memory is short as what we start, so that it need not change anything about that: as long
    /// as it shares our memory, the kernel would do the same to us, and look at all processes for that. What held.
    fn step_back(&mut self) -> Option<(i32, i32)> {
        let (own, theirs) = (self.children.own_oom_score?, self.children.oom_score_adj?);
        if !spawn::knows_memory() {
            return None;
        }
        if let Err(error) = limits::set_oom_score(theirs) {
            // Each child does it for itself then.
            log::debug!("take the children's part when memory is short: {error}");
            return None;
        }
        self.children.oom_score_adj = None;
        Some((own, theirs))
    }

    fn step_forward(&mut self, held: Option<(i32, i32)>, started: &[Started]) {
        let Some((own, theirs)) = held else { return };
        // Or else the kernel would do the same to them.
        for (_, spawned) in started.iter().filter_map(|started| started.outcome.as_ref().ok()) {
            spawn::wait_for_own_memory(spawned.pid);
        }
        self.children.oom_score_adj = Some(theirs);
        if let Err(error) = limits::set_oom_score(own) {
            log::warn!("ask again to be spared when memory is short: {}", crate::sys::reason(&error));
        }
    }
}
