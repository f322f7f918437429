//! The supervisor in a virtual world: seeded random commands, children with random manners, a clock that
//! jumps from event to event. After each step the invariants of the design are checked.
//!
//! `PMX_SIM_SEEDS` (how many) and `PMX_SIM_SEED` (the first) widen or repeat a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pmx::app::health::OnFail;
use pmx::app::{
    App, Budget, Changes, Condition, DRAIN_TIMEOUT, Dependency, Health, Mode, Overlap, Readiness,
    RestartPolicy, Runtime, Text,
};
use pmx::protocol::{Begin, Cause, Existing, Scale};
use pmx::supervisor::{
    Action, BACKOFF_CAP, Beside, ChildId, Command, Desired, End, Input, Notice, OpId, Phase, ProcId, Process,
    Said, State, Supervisor, TimerKey, Verdict, Vitals, Why,
};
use pmx::time::{Millis, Mono};

const STEPS_PER_SEED: u32 = 5_000;
const SEEDS: u64 = 220;
/// The most time that a child asks for at once.
const EXTENSION: u64 = 500;
/// The most time that a command before or after a child gets.
const HOOK_TIMEOUT: u64 = 700;
/// A drain that lasts longer than anybody waits for it.
const LONG_DRAIN: Millis = Millis(25_000);

/// splitmix64: small, seeded, good enough to wander.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `percent` of all cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A living child of the virtual world.
#[derive(Debug)]
struct Child {
    process: ProcId,
    born: Mono,
    listening: bool,
    ready_at: Option<Mono>,
    /// Since when its checks have passed.
    healthy_at: Option<Mono>,
    told_to_stop: bool,
    killed: bool,
}

/// What the world has in store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Listens(ChildId),
    SaysReady(ChildId),
    Drains(ChildId),
    Notifies(ChildId, Notice),
    /// The check with this number is over.
    Checked(ChildId, u64, bool),
    Dies(ChildId, i32),
}

/// What happened, for the report of a failure.
#[derive(Debug)]
#[allow(dead_code, reason = "read by Debug only")]
enum Note {
    In(Input),
    Out(Action),
    Timers,
}

struct World {
    seed: u64,
    random: Random,
    now: Mono,
    supervisor: Supervisor,
    children: BTreeMap<ChildId, Child>,
    fates: BTreeSet<(Mono, u64, Fate)>,
    next_fate: u64,
    next_op: u64,
    unanswered: BTreeSet<OpId>,
    /// Checks under way, by number.
    checking: BTreeMap<ChildId, u64>,
    next_check: u64,
    /// Unstable ends in a row, counted from outside.
    unstable: BTreeMap<ProcId, u32>,
    exited: bool,
    log: VecDeque<(Mono, Note)>,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            seed,
            random: Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0xabcd),
            now: Mono(1_000),
            supervisor: Supervisor::default(),
            children: BTreeMap::new(),
            fates: BTreeSet::new(),
            next_fate: 0,
            next_op: 0,
            unanswered: BTreeSet::new(),
            checking: BTreeMap::new(),
            next_check: 0,
            unstable: BTreeMap::new(),
            exited: false,
            log: VecDeque::new(),
        }
    }

    fn note(&mut self, note: Note) {
        if self.log.len() >= 60 {
            self.log.pop_front();
        }
        self.log.push_back((self.now, note));
    }

    #[track_caller]
    fn require(&self, condition: bool, what: impl Fn() -> String) {
        if condition {
            return;
        }
        let line = |(at, note): &(Mono, Note)| {
            format!("{:>8} {note:?}", at.0).chars().take(160).chain(['\n']).collect::<String>()
        };
        panic!("seed {}: {}\n{}", self.seed, what(), self.log.iter().map(line).collect::<String>());
    }

    fn tell(&mut self, input: Input) {
        self.note(Note::In(input.clone()));
        self.supervisor.handle(self.now, input);
    }

    fn schedule(&mut self, after: u64, fate: Fate) {
        self.fates.insert((self.now + Millis(after), self.next_fate, fate));
        self.next_fate += 1;
    }

    fn random_app(&mut self) -> App {
        let random = &mut self.random;
        let name = random.pick(&["api", "web", "job"]);
        let mut app = App { name: name.to_string(), ..App::default() };
        app.command.script = Text::from(&format!("/srv/{name}.js"));
        app.command.runtime = random.pick(&[Runtime::Node, Runtime::Node, Runtime::Other]);
        app.mode = random.pick(&[Mode::Auto, Mode::Cluster, Mode::Cluster, Mode::Fork]);
        app.wait_ready = random.chance(20);
        if random.chance(15) {
            let declared = [Readiness::Notified, Readiness::Notified, Readiness::Uptime, Readiness::Spawned];
            app.notify.ready = Some(random.pick(&declared));
        }
        app.notify.watchdog = Millis(random.pick(&[0, 0, 0, 700]));
        if random.chance(30) {
            app.health = Some(Box::new(Health {
                interval: Millis(random.pick(&[300, 5_000])),
                timeout: Millis(random.pick(&[100, 2_000])),
                retries: random.pick(&[1, 3]),
                start_period: Millis(random.pick(&[0, 1_000])),
                on_fail: random.pick(&[OnFail::Reload, OnFail::Reload, OnFail::Restart, OnFail::None]),
                ..Health::default()
            }));
        }
        app.autostart = !random.chance(10);
        let others: &[&str] = if name == "web" { &["api", "job"] } else { &["api"] };
        if name != "api" && random.chance(25) {
            let condition = random.pick(&Condition::ALL);
            app.depends_on = vec![Dependency { app: random.pick(others).to_string(), condition }];
        }
        app.hooks.pre_start = random.chance(15).then(|| "prepare".to_string());
        app.hooks.post_stop = random.chance(15).then(|| "clean".to_string());
        app.hooks.timeout = Millis(HOOK_TIMEOUT);
        app.stop.with_message = random.chance(10);
        if random.chance(20) {
            app.kill_timeout = Millis(400);
            app.stop.sequence = pmx::app::stop::sequence("TERM 500ms, INT 600ms").expect("two steps");
        }
        if name == "job" && random.chance(50) {
            app.triggers.schedule = Some("* * * * *".to_string());
            app.triggers.overlap = random.pick(&[Overlap::Skip, Overlap::Queue, Overlap::Kill]);
        }
        app.drain_timeout = random.pick(&[DRAIN_TIMEOUT, LONG_DRAIN]);
        app.restart = RestartPolicy {
            autorestart: !random.chance(10),
            stop_exit_codes: if random.chance(20) { vec![0] } else { Vec::new() },
            max_restarts: random.pick(&[
                Budget::Ends(1),
                Budget::Ends(3),
                Budget::Ends(16),
                Budget::Unlimited,
            ]),
            restart_window: Millis(random.pick(&[0, 5_000, 60_000])),
            restart_delay: Millis(random.pick(&[0, 0, 200])),
            exp_backoff: Millis(random.pick(&[0, 100, 20_000])),
            ..RestartPolicy::default()
        };
        app
    }

    fn random_target(&mut self) -> String {
        let id = self.random.below(8).to_string();
        let words = ["all", "api", "web", "job", "default", "nothing"];
        if self.random.chance(50) { id } else { self.random.pick(&words).to_string() }
    }

    fn random_command(&mut self) {
        let targets = vec![self.random_target()];
        // In some worlds lists are put back.
        let kinds = if self.seed.is_multiple_of(20) { 17 } else { 16 };
        let command = match self.random.below(kinds) {
            0..=3 => {
                let app = Arc::new(self.random_app());
                let count = 1 + self.random.below(3) as u32;
                let existing = self.random.pick(&[
                    Existing::Refuse,
                    Existing::Force,
                    Existing::Restart,
                    Existing::Reload,
                ]);
                let existing = if self.children.len() > 12 { Existing::Restart } else { existing };
                Command::Start(vec![(app, count)], existing)
            }
            4..=5 => Command::Stop(targets),
            6..=7 => Command::Restart(targets, Box::default()),
            8..=11 => {
                let mut changes = Changes::default();
                if self.random.chance(20) {
                    changes.wait_ready = Some(self.random.chance(50));
                }
                Command::Reload(targets, Box::new(changes), 1 + self.random.below(3) as u32)
            }
            12 => {
                let to = match self.random.below(3) {
                    0 => Scale::To(self.random.below(5) as u32),
                    1 => Scale::Add(1),
                    _ => Scale::Remove(1),
                };
                Command::Scale(targets[0].clone(), to)
            }
            13 => Command::Delete(targets),
            14 => Command::Reset(targets),
            16 => {
                let count = if self.children.len() > 12 { 0 } else { 1 + self.random.below(3) };
                let one = |world: &mut Self| {
                    let reason = "a reason".to_string();
                    let begin = [Begin::Up, Begin::Up, Begin::Stopped, Begin::Errored(reason)];
                    let begin = begin[world.random.below(4) as usize].clone();
                    (Arc::new(world.random_app()), world.random.below(4) as u32, begin)
                };
                Command::Resurrect((0..count).map(|_| one(self)).collect())
            }
            _ => Command::Signal(targets, 10),
        };
        self.command(command);
    }

    /// Something calls for a new child of a process, or of one that is no more.
    fn trigger(&mut self) {
        let process = ProcId(self.random.below(8) as u32);
        let causes = [Cause::Memory, Cause::Cron, Cause::Watch, Cause::Unhealthy, Cause::Watchdog];
        let why = Why { cause: self.random.pick(&causes), reason: "a reason".to_string() };
        if self.supervisor.process(process).is_some_and(|p| p.app.triggers.is_job()) {
            return self.due(process, why);
        }
        let living: Vec<ChildId> = self.children.keys().copied().collect();
        let about = match why.cause {
            Cause::Cron | Cause::Watch => None,
            _ if living.is_empty() => Some(ChildId(0)),
            _ => Some(self.random.pick(&living)),
        };
        let is_stopped = self.supervisor.process(process).is_none_or(|p| p.desired != Desired::Up);
        let revives = self.supervisor.process(process).is_some_and(|p| p.state == State::Errored);
        let before = self.supervisor.clone();
        self.tell(Input::Trigger { process, about, why });
        self.require(!is_stopped || revives || self.supervisor == before, || {
            format!("{process:?} is not wanted up, and was triggered")
        });
        self.unstable_again();
    }

    /// The date of a job has come.
    fn due(&mut self, process: ProcId, why: Why) {
        let is_armed = self.supervisor.process(process).is_some_and(Process::is_armed);
        let is_wanted = self.supervisor.process(process).is_some_and(|p| p.desired == Desired::Up);
        let before = self.supervisor.clone();
        self.tell(Input::Due { process, why });
        self.require(is_wanted || self.supervisor == before, || {
            format!("{process:?} is stopped, and was run")
        });
        let runs = self
            .supervisor
            .process(process)
            .is_some_and(|p| p.child().is_some() || p.state == State::Blocked);
        self.require(!is_armed || runs, || format!("{process:?} waited for its date, and does not run"));
    }

    /// From outside a restart of any kind begins a new count of unstable ends.
    fn unstable_again(&mut self) {
        for process in self.supervisor.processes() {
            // An end counts once the command after it is over.
            if process.record.unstable == 0 && !matches!(process.state, State::Cleaning { .. }) {
                self.unstable.remove(&process.id);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.unanswered.insert(op);
        self.tell(Input::Command { op, command });
        self.unstable_again();
    }

    /// Performs what the supervisor wants; `all`: to the end, else perhaps only a part.
    fn perform(&mut self, all: bool) {
        while all || !self.random.chance(20) {
            let Some(action) = self.supervisor.next_action() else { return };
            self.note(Note::Out(action.clone()));
            match action {
                Action::Spawn { child, process, app, .. } => self.spawn(child, process, &app),
                Action::Drain { child } => {
                    self.check_replacement(child);
                    if self.children.contains_key(&child) && !self.random.chance(20) {
                        let after = self.random.below(3_000);
                        self.schedule(after, Fate::Drains(child));
                        if self.random.chance(50) {
                            self.schedule(after + 1, Fate::Dies(child, 0));
                        }
                    }
                }
                Action::Stop { child, .. } => {
                    self.check_replacement(child);
                    if let Some(living) = self.children.get_mut(&child) {
                        living.told_to_stop = true;
                        if !self.random.chance(20) {
                            let after = self.random.below(1_000);
                            self.schedule(after, Fate::Dies(child, 0));
                        }
                    }
                }
                Action::Kill { child } => {
                    let told = self.children.get(&child).is_none_or(|c| c.told_to_stop);
                    self.require(told, || format!("{child:?} was killed without a stop signal before"));
                    let after = if self.random.chance(3) { 7_000 } else { self.random.below(5) };
                    self.schedule(after, Fate::Dies(child, -9));
                    if let Some(living) = self.children.get_mut(&child) {
                        living.killed = true;
                    }
                }
                Action::Examine { child } => {
                    let killed = self.children.get(&child).is_none_or(|c| c.killed);
                    self.require(killed, || format!("{child:?} was examined before it got SIGKILL"));
                    if self.children.contains_key(&child) {
                        self.tell(Input::Unkillable { child, state: "D".into() });
                    }
                }
                Action::Answer { op, .. } => {
                    let known = self.unanswered.remove(&op);
                    self.require(known, || format!("{op:?} was answered twice, or never asked"));
                }
                Action::Exit => {
                    self.require(self.children.is_empty(), || "the daemon ended before its children".into());
                    self.exited = true;
                }
                Action::Forget { process } => {
                    self.unstable.remove(&process);
                    let alive = self.children.values().any(|c| c.process == process);
                    self.require(!alive, || format!("{process:?} was forgotten with a living child"));
                }
                Action::Check { child, app } => self.begin_check(child, &app),
                Action::EndCheck { child } => {
                    // It may have ended since that was decided.
                    self.checking.remove(&child);
                }
                Action::Promote { .. }
                | Action::Signal { .. }
                | Action::Publish { .. }
                | Action::Alert { .. }
                | Action::Release { .. }
                | Action::Progress { .. } => {}
            }
        }
    }

    fn spawn(&mut self, child: ChildId, process: ProcId, app: &App) {
        if self.random.chance(4) {
            let transient = self.random.chance(50);
            return self.tell(Input::SpawnFailed { child, reason: "no such file".into(), transient });
        }
        let living = Child {
            process,
            born: self.now,
            listening: false,
            ready_at: None,
            healthy_at: None,
            // Whatever may not take long is killed when it does.
            told_to_stop: app.command.runtime == Runtime::Hook,
            killed: false,
        };
        self.children.insert(child, living);
        if app.command.runtime == Runtime::Hook {
            let after = self.random.below(HOOK_TIMEOUT * 5 / 4);
            let code = i32::from(self.random.chance(20));
            self.schedule(after, Fate::Dies(child, code));
            return self.tell(Input::Spawned { child });
        }
        if app.command.runtime == Runtime::Node && app.mode != Mode::Fork && !self.random.chance(15) {
            let after = self.random.below(3_300);
            self.schedule(after, Fate::Listens(child));
        }
        if app.wait_ready && !self.random.chance(15) {
            let after = self.random.below(3_300);
            self.schedule(after, Fate::SaysReady(child));
        }
        if app.notify.ready == Some(Readiness::Notified) && !self.random.chance(15) {
            let after = self.random.below(3_300);
            self.schedule(after, Fate::Notifies(child, Notice::Ready));
        }
        if app.notify.watchdog > Millis(0) {
            // Until it hangs.
            for beat in 0..self.random.below(20) {
                self.schedule(beat * 300, Fate::Notifies(child, Notice::Alive));
            }
        }
        if self.random.chance(20) {
            let after = self.random.below(5_000);
            let extension = Notice::Extend(Millis(self.random.below(EXTENSION)));
            let notices = [
                Notice::Reloading,
                Notice::Stopping,
                Notice::Trigger,
                Notice::Watchdog(None),
                Notice::Watchdog(Some(Millis(900))),
                extension,
                extension,
            ];
            let notice = self.random.pick(&notices);
            self.schedule(after, Fate::Notifies(child, notice));
        }
        let life = match self.random.below(10) {
            0..=1 => Some(self.random.below(900)),
            2 => Some(1_000 + self.random.below(5_000)),
            3 => Some(40_000),
            _ => None,
        };
        if let Some(life) = life {
            let code = self.random.pick(&[0, 1, -9]);
            self.schedule(life, Fate::Dies(child, code));
        }
        self.tell(Input::Spawned { child });
    }

    fn begin_check(&mut self, child: ChildId, app: &App) {
        let owner = self.supervisor.owner(child).and_then(|id| self.supervisor.process(id));
        let served = owner.is_some_and(|process| {
            let candidate =
                matches!(&process.beside, Some(Beside::Candidate { child: c, .. }) if *c == child);
            candidate || matches!(process.state, State::Online { child: c, .. } if c == child)
        });
        // By the time that it is performed the child may be on its way out, and the check ended behind it.
        self.require(app.health.is_some(), || format!("{child:?} is checked, and nothing is declared"));
        let number = self.next_check;
        self.next_check += 1;
        let before = self.checking.insert(child, number);
        self.require(before.is_none(), || format!("{child:?} is checked twice at a time"));
        if served && !self.random.chance(5) {
            let after = self.random.below(300);
            // Some are ill for ever.
            let passes = child.0 % 7 != 3 && !self.random.chance(10);
            self.schedule(after, Fate::Checked(child, number, passes));
        }
    }

    /// A child that a reload replaces may only be told to leave when the new one has proved itself.
    fn check_replacement(&self, child: ChildId) {
        let Some(owner) = self.supervisor.owner(child) else { return };
        let Some(process) = self.supervisor.process(owner) else { return };
        if !matches!(&process.beside, Some(Beside::Retiring(leaving)) if leaving.child == child && leaving.phase == Phase::Draining)
        {
            return;
        }
        let State::Online { child: new, .. } = process.state else { return };
        let old_served = self.children.get(&child).is_some_and(|c| c.listening);
        let proved = self.children.get(&new).is_some_and(|c| {
            let baked = |at: Option<Mono>| at.is_some_and(|at| self.now.since(at) >= process.app.bake_time);
            !old_served || baked(c.ready_at) && (process.app.health.is_none() || baked(c.healthy_at))
        });
        self.require(proved, || format!("{child:?} was drained for {new:?}, which has not proved itself"));
    }

    /// A fact about a child that is gone, as it may come late: nobody may act on it.
    fn haunt(&mut self, child: ChildId) {
        let input = match self.random.below(6) {
            4 => Input::Notified { child, notice: Notice::Trigger },
            5 => Input::Checked { child, result: Err("a stale check".into()) },
            0 => Input::Listening { child },
            1 => Input::Ready { child },
            2 => Input::Drained { child },
            _ => Input::Exited { child, end: End::default() },
        };
        let before = self.supervisor.clone();
        self.tell(input);
        self.require(self.supervisor == before, || format!("{child:?} is gone, and was heeded"));
    }

    fn happen(&mut self, fate: Fate) {
        let (Fate::Listens(child)
        | Fate::SaysReady(child)
        | Fate::Drains(child)
        | Fate::Notifies(child, _)
        | Fate::Checked(child, ..)
        | Fate::Dies(child, _)) = fate;
        if let Fate::Checked(child, number, _) = fate
            && self.checking.get(&child) != Some(&number)
        {
            // Its check was ended; nobody tells of it any more.
            return;
        }
        if !self.children.contains_key(&child) {
            return self.haunt(child);
        }
        match fate {
            Fate::Listens(child) => {
                let now = self.now;
                let Some(living) = self.children.get_mut(&child) else { return };
                living.listening = true;
                living.ready_at = living.ready_at.or(Some(now));
                self.tell(Input::Listening { child });
            }
            Fate::SaysReady(child) => {
                let now = self.now;
                let Some(living) = self.children.get_mut(&child) else { return };
                living.ready_at = living.ready_at.or(Some(now));
                self.tell(Input::Ready { child });
            }
            Fate::Drains(child) => {
                if self.children.contains_key(&child) {
                    self.tell(Input::Drained { child });
                }
            }
            Fate::Notifies(child, notice) => {
                let now = self.now;
                if matches!(notice, Notice::Extend(_)) && self.supervisor.is_shutting_down() {
                    return;
                }
                if notice == Notice::Ready
                    && let Some(living) = self.children.get_mut(&child)
                {
                    living.ready_at = living.ready_at.or(Some(now));
                }
                self.tell(Input::Notified { child, notice });
            }
            Fate::Checked(child, _, passes) => {
                self.checking.remove(&child);
                if let Some(living) = self.children.get_mut(&child).filter(|_| passes) {
                    living.healthy_at = living.healthy_at.or(Some(self.now));
                }
                let result = if passes { Ok(()) } else { Err("it is ill".to_string()) };
                self.tell(Input::Checked { child, result });
            }
            Fate::Dies(child, code) => {
                let Some(dead) = self.children.remove(&child) else { return };
                self.count_end(child, &dead, code);
                let code = (code >= 0).then_some(code);
                let end = End { code, text: format!("exit {code:?}"), ..End::default() };
                self.tell(Input::Exited { child, end });
            }
        }
    }

    /// Counts unstable ends of current children that nobody asked for.
    fn count_end(&mut self, child: ChildId, dead: &Child, code: i32) {
        let Some(process) = self.supervisor.process(dead.process) else { return };
        let current = match process.state {
            State::Launching { child: c, .. } | State::Online { child: c, .. } => c == child,
            State::Preparing { child: c, .. } => c == child && code != 0,
            _ => false,
        };
        if !current || matches!(process.beside, Some(Beside::Preparing { .. } | Beside::Candidate { .. })) {
            return;
        }
        // With a command after its end the supervisor counts later, and perhaps never.
        let is_late = process.app.hooks.post_stop.is_some();
        if self.now.since(dead.born) < process.app.restart.min_uptime {
            *self.unstable.entry(dead.process).or_default() += 1;
        } else if !is_late {
            self.unstable.remove(&dead.process);
        }
    }

    /// What must hold whenever nothing is left to perform.
    fn check(&self) {
        let mut expected = BTreeSet::new();
        for process in self.supervisor.processes() {
            let id = process.id;
            let living: BTreeSet<ChildId> =
                self.children.iter().filter(|(_, c)| c.process == id).map(|(child, _)| *child).collect();
            let known: BTreeSet<ChildId> =
                process.child().into_iter().chain(process.beside.as_ref().map(Beside::child)).collect();
            self.require(living == known, || format!("{id:?}: {living:?} live, {known:?} are known"));
            let limit = if process.beside.is_some() { 2 } else { 1 };
            self.require(living.len() <= limit, || format!("{id:?} has {} children", living.len()));
            if process.desired != Desired::Up {
                let down = matches!(
                    process.state,
                    State::Stopped | State::Errored | State::Stopping(_) | State::Cleaning { .. }
                );
                self.require(down, || format!("{id:?} is wanted down and is {:?}", process.state));
            }
            self.require(process.pending.is_none() || process.beside.is_some(), || {
                format!("{id:?} waits for the end of a second child that it has not")
            });
            let waits =
                process.is_armed() || process.state == State::Stopped && process.desired == Desired::Up;
            self.require(waits == process.is_armed(), || {
                format!("{id:?} is wanted up, and is down for ever")
            });
            self.require(process.queued.is_none() || process.child().is_some(), || {
                format!("{id:?} is down with a run in the queue")
            });
            let counted: u32 = process.record.by_cause.values().sum();
            self.require(counted == process.record.restarts, || {
                format!("{id:?}: {:?} make not {}", process.record.by_cause, process.record.restarts)
            });
            let leaving = |phase: Phase, child| match phase {
                Phase::Draining => TimerKey::Drain(child),
                Phase::Stopping | Phase::Killed => TimerKey::Kill(child),
            };
            let current = process.child().filter(|_| !matches!(process.state, State::Stopping(_)));
            if let Some(child) = current {
                self.expect_vitals(child, &process.vitals, &mut expected);
                let waits = process.vitals.said != Said::Stopping;
                if process.vitals.watchdog.is_some() && waits && matches!(process.state, State::Online { .. })
                {
                    expected.insert(TimerKey::Watchdog(child));
                }
            }
            match &process.state {
                State::Launching { overdue: false, .. } => {
                    expected.insert(TimerKey::Launch(id));
                }
                State::Preparing { child, .. } | State::Cleaning { child, .. } => {
                    // One that took too long got SIGKILL.
                    if self.children.get(child).is_some_and(|c| !c.killed) {
                        expected.insert(TimerKey::Launch(id));
                    }
                }
                State::Waiting => {
                    let turn = TimerKey::Turn(id);
                    let waits = self.supervisor.timers().deadline(turn).is_some();
                    expected.insert(if waits { turn } else { TimerKey::Restart(id) });
                }
                State::Stopping(l) => {
                    expected.insert(leaving(l.phase, l.child));
                }
                State::Blocked
                | State::Launching { .. }
                | State::Stopped
                | State::Online { .. }
                | State::Errored => {}
            }
            match &process.beside {
                Some(Beside::Preparing { .. }) => {
                    expected.insert(TimerKey::Replacement(id));
                }
                Some(Beside::Candidate { child, baking, vitals, .. }) => {
                    self.expect_vitals(*child, vitals, &mut expected);
                    if *baking || vitals.checks.is_none() {
                        expected.insert(TimerKey::Replacement(id));
                    }
                }
                Some(Beside::Rejected { leaving: l, .. } | Beside::Retiring(l)) => {
                    expected.insert(leaving(l.phase, l.child));
                }
                None => {}
            }
            // Whoever asked for a reload waits for its old child, for a while.
            if let Some(Beside::Retiring(_)) = &process.beside
                && let Some(due) = self.supervisor.timers().deadline(TimerKey::Replacement(id))
            {
                self.require(due <= self.now + DRAIN_TIMEOUT, || {
                    format!("{id:?}: a reload waits for a drain")
                });
                expected.insert(TimerKey::Replacement(id));
            }
            if let Some(due) = self.supervisor.timers().deadline(TimerKey::Restart(id)) {
                let cap = BACKOFF_CAP.max(process.app.restart.restart_delay);
                self.require(due <= self.now + cap, || format!("{id:?} waits longer than the cap"));
            }
            let counted = self.unstable.get(&id).copied().unwrap_or(0);
            // A reload may begin a new count at any time, which the world does not see.
            let unstable = process.record.unstable;
            self.require(unstable <= counted, || {
                format!("{id:?} counts {unstable} unstable ends, there were {counted}")
            });
            let policy = &process.app.restart;
            let of_window = process.record.ends.iter().map(|(_, ends)| *ends).sum::<u32>();
            let spent = process.state == State::Errored
                && process.reason.as_ref().is_some_and(|r| r.contains("too many"));
            let budget = policy.max_restarts.limit().unwrap_or(u32::MAX);
            let ended = unstable.max(of_window);
            // `reset` clears the counters of what was given up, and time those of the window.
            self.require(!spent || ended == budget || ended == 0, || {
                format!("{id:?} was given up after {unstable} and {of_window} of {budget}")
            });
            let left = process.record.budget_left(policy, self.now);
            let trying = matches!(process.state, State::Launching { .. } | State::Waiting);
            let autorestart = process.app.restart.autorestart;
            self.require(!trying || !autorestart || left != Some(0), || {
                format!("{id:?} goes on after {unstable} and {of_window} of {budget}")
            });
        }
        let armed: BTreeSet<TimerKey> = self.supervisor.timers().keys().collect();
        self.require(armed == expected, || format!("armed: {armed:?}\nneeded: {expected:?}"));
        self.require(self.supervisor.operations() == self.unanswered.len(), || {
            format!("{} operations for {:?}", self.supervisor.operations(), self.unanswered)
        });
    }

    /// The checks of a child that has begun them go on for ever.
    fn expect_vitals(&self, child: ChildId, vitals: &Vitals, expected: &mut BTreeSet<TimerKey>) {
        let Some(checks) = &vitals.checks else { return };
        expected.insert(TimerKey::Check(child));
        let passed = self.children.get(&child).is_some_and(|living| living.healthy_at.is_some());
        self.require(checks.verdict != Verdict::Healthy || passed, || {
            format!("{child:?} is called healthy and has passed no check")
        });
    }

    /// The state survives being written down and read again.
    fn rebirth(&mut self) {
        let text = serde_json::to_string(&self.supervisor).expect("the state can be written");
        let again: Supervisor = serde_json::from_str(&text).expect("the state can be read");
        self.require(again == self.supervisor, || "the state changed on its way through JSON".into());
        self.supervisor = again;
    }

    /// Lets time go on to the next thing that happens.
    fn advance(&mut self) -> bool {
        let next = |world: &Self| {
            let fate = world.fates.first().map(|(at, ..)| *at);
            let timer = world.supervisor.next_deadline();
            (fate, timer, fate.into_iter().chain(timer).min())
        };
        if next(self).2.is_none_or(|at| at > self.now) {
            // Nobody sleeps with something left to do.
            self.perform(true);
        }
        let (fate, timer, Some(next)) = next(self) else { return false };
        self.now = self.now.max(next);
        // At the same instant either may come first, as in the real loop.
        if fate.is_some_and(|at| at <= self.now)
            && (timer.is_none_or(|at| at > self.now) || self.random.chance(50))
        {
            if let Some((_, _, fate)) = self.fates.pop_first() {
                self.happen(fate);
            }
        } else {
            self.note(Note::Timers);
            self.supervisor.handle_timers(self.now);
        }
        true
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.random.chance(12) || !self.advance() {
                if self.random.chance(20) { self.trigger() } else { self.random_command() }
            }
            let all = self.random.chance(90);
            self.perform(all);
            if all {
                self.check();
                if self.random.below(1_000) < 3 {
                    self.rebirth();
                }
            }
        }
        self.perform(true);
        let gently = self.random.chance(50);
        self.command(if gently { Command::ShutdownGently } else { Command::Shutdown });
        self.perform(true);
        self.check();
        let begun = self.now;
        // Those on whom others depend wait for them.
        let mut patience = Millis(3 * (1_600 + HOOK_TIMEOUT + if gently { LONG_DRAIN.0 } else { 0 }));
        while !self.exited {
            // Only a child that the kernel holds may take longer than a kill timeout.
            let (held, before) = (self.children.values().any(|c| c.killed), self.now);
            let more = self.advance();
            if held {
                patience.0 += self.now.since(before).0;
            }
            self.require(more, || "nothing will happen any more, and the daemon has not ended".into());
            self.perform(true);
            if self.random.chance(10) {
                let shorter = Millis(self.random.below(2_000));
                self.command(Command::Hasten(shorter));
                self.perform(true);
                self.check();
                patience = patience.min(Millis(self.now.since(begun).0 + shorter.0));
            }
            self.require(self.now.since(begun) <= Millis(patience.0 + EXTENSION + 10), || {
                "the shutdown takes too long".into()
            });
        }
        self.require(self.unanswered.is_empty(), || format!("never answered: {:?}", self.unanswered));
        self.require(self.supervisor.next_deadline().is_none(), || "a timer outlived the daemon".into());
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn p13_invariants_hold_over_many_seeds() {
    let first = from_env("PMX_SIM_SEED", 1);
    let count = from_env("PMX_SIM_SEEDS", SEEDS);
    let seeds = first..first + count;
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mine = || Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds.end);
                while let Some(seed) = mine() {
                    World::new(seed).run(STEPS_PER_SEED);
                }
            });
        }
    });
}
