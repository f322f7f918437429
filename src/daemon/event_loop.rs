//! The loop. It reads the clock once per round, visits what is ready in a fixed order and within budgets,
//! lets the supervisor decide, performs, and sleeps until the next event or deadline. It has no way to
//! fail: an error belongs to one child, one client or one file. What a round changed is on record before the
//! next one begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mio::{Events, Interest, Poll};

use super::alert::Dispatch;
use super::autosave::Autosave;
use super::channel::Channel;
use super::check::Checks;
use super::children::{Children, LINGER_LOOK};
use super::control::Control;
use super::history::History;
use super::home::{Home, Stream};
use super::journal::Journal;
use super::log::{Desk, Rules, Shelf};
use super::manager::Manager;
use super::memo::Memo;
use super::notify::Ears;
use super::pid_files::PidFiles;
use super::primary::Primary;
use super::record::{Asked, Left};
use super::runtime::Runtime;
use super::sampling::Sampling;
use super::source::{Progress, Source};
use super::starts::Starts;
use super::tidy::Tidy;
use super::triggers::Triggers;
use super::update::Update;
use super::views::Memories;
use super::watch::{self, watch};
use crate::protocol::Request;
use crate::supervisor::{ChildId, Command, Input, OpId, Supervisor};
use crate::sys::board::{Board, NOBODY, Shared, Slot};
use crate::sys::reap::ExitStatus;
use crate::sys::signals::{Signal, Signals};
use crate::sys::socket::{self, LocalAddr};
use crate::sys::{clock, failpoint, inherit, kept, limits, memory, pidfd, spawn, users};
use crate::time::{Millis, Mono};

/// So much processor time in one round (and at most [`BUSY_LOOK`] before it) is a loop without end.
const BUSY: Millis = Millis(10_000);
const BUSY_LOOK: Millis = Millis(5_000);
/// The size of one look into a channel.
const BUFFER: usize = 64 << 10;
/// How long what a child closed is left alone, if its end is not told before.
const CLOSED_REST: Millis = Millis(1);
/// So long after the last event the code that it took is given back, if it is so long since the last time.
const QUIET: Millis = Millis(1_000);
const FORGET: Millis = Millis(5_000);
/// Events taken from the kernel in one round.
const EVENTS: usize = 256;

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    pub(super) poll: Poll,
    pub(super) home: Home,
    pub(super) supervisor: Supervisor,
    pub(super) starts: Starts,
    pub(super) children: Children,
    pub(super) primary: Primary,
    pub(super) manager: Manager,
    pub(super) ears: Ears,
    pub(super) checks: Checks,
    pub(super) control: Control,
    pub(super) memories: Memories,
    pub(super) history: History,
    /// What is known beyond that in a container.
    pub(super) runtime: Option<Runtime>,
    pub(super) autosave: Autosave,
    pub(super) triggers: Triggers,
    pub(super) pid_files: PidFiles,
    pub(super) tidy: Tidy,
    pub(super) dispatch: Dispatch,
    pub(super) sampling: Sampling,
    signals: Signals,
    /// The name of the user we are.
    pub(super) us: String,
    /// Who waits for an operation.
    pub(super) asked: BTreeMap<OpId, Asked>,
    pub(super) next_op: u64,
    /// Operations whose askers changed since the journal was last told.
    pub(super) changed_asked: BTreeSet<OpId>,
    pub(super) board: &'static Board,
    pub(super) memo: Memo,
    /// An update under way.
    pub(super) update: Option<Update>,
    /// Our keeper, while it lives.
    keeper: Option<OwnedFd>,
    /// Exits that were taken from the board's rings in this round: the keeper's, our own.
    pub(super) exits: [usize; 2],
    /// Signals that were acted on in this round.
    pub(super) heeded: Vec<i32>,
    /// Everything is down: clients have until then to take their last answers.
    pub(super) ending: Option<Mono>,
    /// Decided, and left for the next round.
    has_actions: bool,
    /// Children have ended for which there was no room on the board.
    pub(super) has_exits: bool,
    pub(super) now: Mono,
    /// To be visited, in the order of `Source`.
    pub(super) ready: BTreeSet<Source>,
    /// Orphans that ended, and since when we ask how.
    pub(super) orphans_ended: BTreeMap<ChildId, Mono>,
    /// Busy pipes that gather.
    resting: BTreeSet<(Mono, Source)>,
    pub(super) desk: Desk,
    pub(super) buffer: Vec<u8>,
}

/// What the loop cannot do without. It is had before anything is touched that a daemon before us left: from then
/// on nothing may fail, because what we let go of is lost to the next one.
pub struct Instruments {
    poll: Poll,
    signals: Signals,
}

impl Instruments {
    /// An epoll, and our signals, which in a container are all that there are.
    pub fn new(in_container: bool) -> Result<Instruments, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {}", crate::sys::reason(&error));
        let poll = Poll::new().map_err(|error| failed("make an epoll", error))?;
        let mut signals = Signals::install(in_container).map_err(|error| failed("catch signals", error))?;
        poll.registry()
            .register(&mut signals, Source::Signals.token(), Interest::READABLE)
            .map_err(|error| failed("watch signals", error))?;
        Ok(Instruments { poll, signals })
    }
}

/// What a daemon begins with.
pub struct Beginning {
    /// What its loop runs on.
    pub instruments: Instruments,
    /// What it shares with its keeper.
    pub shared: Shared,
    /// What the daemon before it left.
    pub left: Left,
    /// The control socket; `None`: there is no place for one.
    pub control: Option<OwnedFd>,
    /// Connections of which it is not known how far they had come.
    pub found: Vec<OwnedFd>,
    /// Where it goes on writing down.
    pub journal: Journal,
    /// The service manager above us.
    pub manager: Manager,
    /// What it knows in a container.
    pub runtime: Option<Runtime>,
}

impl Daemon {
    /// Takes hold of everything. The caller holds the lock of the home.
    pub fn begin_with(home: Home, beginning: Beginning) -> Daemon {
        let Beginning { instruments, shared, mut left, control, found, journal, manager, runtime } =
            beginning;
        let Instruments { poll, signals } = instruments;
        let board = shared.board;
        let generation = board.generation.load(SeqCst);
        let mut children = Children::default();
        children.generation = generation;
        match limits::raise_open_files() {
            Ok(before) => children.nofile = Some(before),
            Err(error) => ::log::warn!("raise the limit of open files: {error}"),
        }
        // Whoever spared us alone (a unit of ours) did not mean the apps; a container means all of it.
        let is_spared = runtime.is_none() && limits::is_oom_protected();
        let usual_oom_score = limits::outlive_others();
        children.oom_score_adj = if is_spared { Some(0) } else { usual_oom_score };
        children.own_oom_score = limits::oom_score();
        let path = home.socket();
        // The only look into a user database, before the loop begins.
        let uid = nix::unistd::geteuid();
        let us = users::name_of(uid.as_raw());
        failpoint::reach("beginning");
        let registry = poll.registry();
        let is_ours = |fd: &OwnedFd| matches!(socket::local_addr(fd.as_fd()), Ok(LocalAddr::Unix(found)) if found == path);
        let (callers, found): (Vec<OwnedFd>, Vec<OwnedFd>) = found.into_iter().partition(is_ours);
        left.forget_what_is_over();
        let mut control = match control {
            Some(listener) => {
                let clients = std::mem::take(&mut left.clients);
                let mut owed: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                for asked in left.asked.values() {
                    owed.entry(asked.client).or_default().push(asked.id);
                }
                if let Some((client, id)) = left.updating.as_ref().map(super::update::Asked::who) {
                    owed.entry(client).or_default().push(id);
                }
                Control::resume(registry, listener, uid.as_raw(), clients, &owed)
            }
            None => Control::closed(uid.as_raw()),
        };
        for connection in callers {
            control.adopt(registry, connection);
        }
        if let Some(fd) = control.fd() {
            board.set_fd(Slot::Control, fd);
        }
        board.recall_signals();
        if let Some(wake) = board.fd(Slot::Wake) {
            watch(registry, wake, Source::Wake, Interest::READABLE);
        }
        let keeper = watch_keeper(registry, board.keeper.load(SeqCst));
        let mut primary = Primary::new(board);
        let shares = std::mem::take(&mut left.shares);
        primary.restore(shares, std::mem::take(&mut left.workers), left.next.share, found);
        for fd in std::mem::take(&mut left.adopted) {
            if let Ok(fd) = inherit::take(fd)
                && let Ok(Some(address)) = socket::listening(fd.as_fd())
            {
                primary.adopt(address, fd);
            }
        }
        let mut memories = Memories::default();
        for (process, memory) in std::mem::take(&mut left.memories) {
            memories.restore(process, Some(memory));
        }
        let mut history = History::default();
        std::mem::take(&mut left.happened).into_iter().for_each(|event| history.restore(event));
        let mut triggers = Triggers::default();
        for (process, dates) in std::mem::take(&mut left.schedules) {
            triggers.calendar.restore(process, Some(dates));
        }
        if let Some(runtime) = &runtime {
            children.enter_container(registry, runtime);
        }
        // While it is known which children there are.
        let supervisor = left.supervisor();
        children.contain(&home);
        let (next_op, asked) = (left.next.op, std::mem::take(&mut left.asked));
        for (id, (mut record, app)) in std::mem::take(&mut left.children) {
            let app = left.app(app, record.take_whole());
            board.busy_with.store(u64::from(record.process.0) + 1, SeqCst);
            children.restore(registry, id, record, app);
        }
        failpoint::reach("restored");
        // What we die of from here on is not of its making.
        board.busy_with.store(NOBODY, SeqCst);
        let lines = board.fd(Slot::Lines).and_then(|fd| inherit::take(fd).ok());
        let mut shelf = Shelf::on(lines.map(File::from));
        if let Some(fd) = shelf.fd() {
            board.set_fd(Slot::Lines, fd);
        }
        for (of, record) in std::mem::take(&mut left.outputs) {
            children.restore_output(registry, of, record, &mut shelf, clock::mono());
        }
        if !board.safe.load(SeqCst) {
            // Where the keeper was killed as well the journal may say less than there was: what it does not name is
            // left alone.
            let is_ours =
                |child| supervisor.is_to_spawn(child) || (generation > 0 && supervisor.is_new(child));
            children.sweep(clock::mono(), is_ours);
        }
        let mut desk = Desk::new(board, shared.bytes, shelf, Rules::of(home.path()));
        children.finish_output(clock::mono(), &mut desk);
        primary.begin_again(registry, &mut children);
        let mut ears = Ears::default();
        ears.restore(registry, std::mem::take(&mut left.ears));
        // Children of a daemon that was killed with its keeper know where they were.
        for app in children.ids().filter_map(|id| children.get(id)).map(|child| &child.app) {
            ears.path(registry, &home, app);
        }
        failpoint::reach("begun");
        let updating = left.updating.take();
        let sampled_at = runtime.is_none().then(|| home.path());
        let sampling = Sampling::new(sampled_at, children.ids().next().is_some());
        let memo = Memo::new(journal, shared.fd, left.head, left.strange, left.spared);
        let mut daemon = Daemon {
            poll,
            autosave: if runtime.is_some() { Autosave::none() } else { Autosave::new(home.path()) },
            home,
            triggers,
            pid_files: PidFiles::default(),
            tidy: Tidy::default(),
            dispatch: Dispatch::default(),
            sampling,
            supervisor,
            starts: Starts::default(),
            children,
            primary,
            manager,
            ears,
            checks: Checks::default(),
            control,
            memories,
            history,
            runtime,
            signals,
            us,
            asked,
            next_op,
            changed_asked: BTreeSet::new(),
            board,
            memo,
            update: None,
            keeper,
            exits: [0; 2],
            heeded: Vec::new(),
            ending: None,
            has_actions: false,
            has_exits: false,
            now: clock::mono(),
            // A signal may have come before it was watched.
            ready: BTreeSet::from([Source::Signals, Source::Wake]),
            orphans_ended: BTreeMap::new(),
            resting: BTreeSet::new(),
            desk,
            buffer: vec![0; BUFFER],
        };
        daemon.store_everything();
        if let Some(asked) = updating {
            daemon.has_updated(asked);
        }
        daemon
    }

    /// What the daemon before us knew and could not have known, before the loop begins: children that are gone.
    pub fn catch_up(&mut self) {
        self.now = clock::mono();
        if self.desk.held().is_some() {
            self.record();
        }
        if self.supervisor.processes().next().is_some() {
            self.autosave.begun();
            self.autosave.touch(self.now);
        }
        let own: Vec<_> = self.board.reaped.waiting().collect();
        for reaped in own {
            self.reaped(&reaped);
            self.exits[1] += 1;
        }
        let is_lost =
            |child: &ChildId| self.children.get(*child).is_none() && !self.supervisor.is_to_spawn(*child);
        let lost: Vec<ChildId> = self.supervisor.children().filter(is_lost).collect();
        for child in lost {
            let text = "it was gone when pmx came back".to_string();
            let end = crate::supervisor::End { text, ..Default::default() };
            self.container_ended(child, ExitStatus::Unknown.number());
            self.supervisor.handle(self.now, Input::Exited { child, end });
        }
        let answered = self.asked.values().filter_map(|asked| Some((asked.client, asked.answer.clone()?)));
        for (client, answer) in answered.collect::<Vec<_>>() {
            self.control.send(client, &answer);
        }
        self.perform_actions();
        self.begin_triggers();
        self.record();
        self.control.flush(self.poll.registry());
        self.forget_answered();
    }

    /// Answers that are on record and sent need not be sent by the next daemon. (If it does, it is heard twice.)
    fn forget_answered(&mut self) {
        if self.asked.values().any(|asked| asked.answer.is_some()) {
            let changed = &mut self.changed_asked;
            self.asked.retain(|op, asked| {
                let keep = asked.answer.is_none();
                if !keep {
                    changed.insert(*op);
                }
                keep
            });
        }
    }

    /// Takes over the listening sockets among what the service manager passed on. The rest is closed.
    pub fn adopt(&mut self, passed: Vec<(String, OwnedFd)>) {
        for (name, fd) in passed {
            match socket::listening(fd.as_fd()) {
                Ok(Some(address)) => {
                    ::log::info!("passed on: {name:?}, listening on {address:?}");
                    self.primary.adopt(address, fd);
                }
                Ok(None) => ::log::warn!("passed on: {name:?}, which listens for nothing; it is closed"),
                Err(error) => ::log::warn!("passed on: {name:?}: {}", crate::sys::reason(&error)),
            }
        }
    }

    /// Removes what tells of a daemon.
    pub fn leave(&self) {
        self.home.leave();
        self.ears.leave();
    }

    /// Runs until everything was told to end. With `resurrect`, the saved apps are started at first.
    pub fn run(&mut self, resurrect: bool) {
        self.manager.serving(self.home.path(), resurrect, self.now);
        let mut events = Events::with_capacity(EVENTS);
        self.begin();
        self.perform_actions();
        self.record();
        self.end_round();
        let mut armed: Option<Mono> = None;
        // When code is given back, and when it was.
        let (mut quiet, mut forgotten) = (Some(self.now + QUIET), Mono(0));
        loop {
            if quiet.is_some_and(|quiet| self.now >= quiet) {
                memory::return_free();
                memory::forget_code();
                spawn::forget_stacks();
                (quiet, forgotten) = (None, self.now);
            }
            // A round that never ends, ends us, and the next daemon goes on.
            if armed.is_none_or(|armed| self.now.since(armed) >= BUSY_LOOK) {
                armed = Some(self.now);
                clock::die_after_busy(BUSY);
            }
            let rest = quiet.map(|quiet| Duration::from_millis(quiet.since(clock::mono()).0));
            match self.poll.poll(&mut events, self.timeout().into_iter().chain(rest).min()) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    // It would be the same for ever; the next daemon has an epoll of its own.
                    ::log::error!("wait for events: {}", crate::sys::reason(&error));
                    std::process::abort();
                }
                _ => {}
            }
            self.now = clock::mono();
            if !events.is_empty() {
                quiet = Some((self.now + QUIET).max(forgotten + FORGET));
            }
            self.gather(&events);
            watch::catch_up(self.poll.registry());
            for source in std::mem::take(&mut self.ready) {
                let progress = self.visit(source);
                self.come_back(source, progress);
            }
            self.supervisor.handle_timers(self.now);
            self.look_at_triggers();
            self.look_at_outputs();
            self.look_after_logs();
            self.sample_if_due();
            self.look_at_groups();
            self.control.expire(self.poll.registry(), self.now);
            self.perform_actions();
            if self.look_at_container() {
                self.perform_actions();
            }
            self.send_alerts();
            self.autosave_if_due();
            self.primary.tidy(self.poll.registry(), self.now);
            self.manager.tick(self.now);
            self.update_if_due();
            self.update_triggers();
            self.record();
            self.end_round();
            self.control.flush(self.poll.registry());
            self.forget_answered();
            let is_over = self.control.is_flushed() && !self.autosave.is_writing() && self.dispatch.is_idle();
            if self.ending.is_some_and(|until| is_over || self.now >= until) {
                return self.end_alerts();
            }
        }
    }

    /// What could wait until all else is done.
    fn end_round(&mut self) {
        self.children.end_round(self.supervisor.next_child(), &self.home, clock::wall());
    }

    /// How long the kernel may let us sleep.
    fn timeout(&self) -> Option<Duration> {
        // What was given up since the record was made is closed by another one.
        if !self.ready.is_empty() || self.has_actions || kept::any() {
            return Some(Duration::ZERO);
        }
        let groups = self.children.is_lingering().then(|| self.now + LINGER_LOOK);
        let resting = self.resting.first().map(|(until, _)| *until);
        let left_out = watch::leaves_out().then(|| self.now + watch::AGAIN);
        let deadlines = [
            self.supervisor.next_deadline(),
            self.control.deadline(),
            self.primary.deadline(),
            self.runtime.as_ref().and_then(Runtime::deadline),
            self.autosave.deadline(),
            self.dispatch.deadline(),
            self.manager.deadline(),
            self.triggers.deadline(),
            self.sampling.deadline(),
            self.children.log_deadline(),
            self.update.as_ref().map(Update::deadline),
            groups,
            resting,
            left_out,
            self.ending,
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.since(clock::mono()).0))
    }

    /// Notes what became ready. What rests stays at rest: its bytes do not run away.
    fn gather(&mut self, events: &Events) {
        for event in events {
            let Some(source) = Source::from_token(event.token()) else { continue };
            if self.resting.iter().any(|(_, resting)| *resting == source) {
                continue;
            }
            if event.is_read_closed() && source.is_of_child() {
                // Who dies closes what it has a moment before we are told of its death. Either it is known by now, and
                // what was closed is looked at with it, or it need not wait for what we do about that.
                self.has_exits = true;
                self.ready.insert(Source::Signals);
                self.resting.insert((self.now + CLOSED_REST, source));
                continue;
            }
            self.ready.insert(source);
        }
        while let Some(&(until, source)) = self.resting.first()
            && until <= self.now
        {
            self.resting.pop_first();
            self.ready.insert(source);
        }
    }

    /// After a visit, whoever made it: nobody else may ever tell of what was left.
    pub(super) fn come_back(&mut self, source: Source, progress: Progress) {
        match progress {
            Progress::Drained => {}
            Progress::More => {
                self.ready.insert(source);
            }
            Progress::Rest(until) => {
                self.resting.insert((until, source));
            }
        }
    }

    fn visit(&mut self, source: Source) -> Progress {
        match source {
            Source::Stdout(child) => self.move_output(child, Stream::Stdout),
            Source::Stderr(child) => self.move_output(child, Stream::Stderr),
            Source::Channel(child) => self.read_channel(child, Channel::budget()),
            Source::Notify(reach) => self.hear(reach),
            Source::Check(child) => {
                let (progress, over) = self.checks.visit(self.poll.registry(), child);
                self.tell(over);
                progress
            }
            Source::Orphan(child) => self.look_at_orphan(child),
            Source::Wake => self.take_wake(),
            Source::Signals => self.take_signals(),
            Source::Keeper => self.succeed_keeper(),
            Source::Listener(listener) => {
                self.primary.visit(self.poll.registry(), &mut self.children, listener)
            }
            Source::Control => self.control.accept(self.poll.registry(), self.now),
            Source::Client(client) => self.serve(client),
            Source::Files => self.take_files(),
            Source::Calendar => self.take_calendar(),
            Source::Sink(1) => self.flush_sink(Stream::Stdout),
            Source::Sink(_) => self.flush_sink(Stream::Stderr),
        }
    }

    pub(super) fn move_output(&mut self, child: ChildId, stream: Stream) -> Progress {
        let progress =
            self.children.move_output(self.poll.registry(), child, stream, self.now, &mut self.desk);
        self.record_owed();
        progress
    }

    fn look_at_outputs(&mut self) {
        // Each once, whatever it says then.
        for of in self.children.due_outputs(self.now) {
            self.children.look_at_output(of, self.now, &mut self.desk);
            self.record_owed();
        }
    }

    fn serve(&mut self, client: u64) -> Progress {
        let mut heard: Vec<Request> = Vec::new();
        let progress = self.control.visit(self.poll.registry(), client, self.now, &mut heard);
        for request in heard {
            self.request(client, request);
        }
        progress
    }

    pub(super) fn take_signals(&mut self) -> Progress {
        let mut children = std::mem::take(&mut self.has_exits);
        for signal in self.signals.drain().iter() {
            match signal {
                Signal::Child => children = true,
                signal if self.runtime.is_some() => self.container_signal(signal),
                Signal::Terminate | Signal::Interrupt | Signal::Quit => {
                    self.stop_everything(&format!("{signal:?}"));
                }
                Signal::Hangup | Signal::User1 | Signal::Window | Signal::Other(_) => {}
                Signal::User2 => self.reopen_logs(),
            }
        }
        if children { self.reap() } else { Progress::Drained }
    }

    /// The end of everything.
    pub fn end_outputs(&mut self) {
        self.children.end_outputs(self.now, &mut self.desk);
    }

    /// Somebody has moved log files.
    pub(super) fn reopen_logs(&mut self) {
        failpoint::panic_at("usr2");
        ::log::info!("opening log files anew");
        self.children.reopen_logs();
    }

    pub(super) fn stop_everything(&mut self, told: &str) {
        ::log::info!("{told}: stopping everything");
        self.autosave_last();
        self.manager.ending(self.now);
        let op = self.new_op();
        self.supervisor.handle(self.now, Input::Command { op, command: Command::Shutdown });
    }

    /// The keeper is gone. We become it, because our children cannot be given to anybody else, and the next
    /// daemon takes our place below us.
    fn succeed_keeper(&mut self) -> Progress {
        if self.ending.is_some() {
            return Progress::Drained;
        }
        if self.runtime.is_some() {
            ::log::error!("the process that was started as pmx runtime is gone");
            self.keeper = None;
            self.container_signal(Signal::Terminate);
            return Progress::Drained;
        }
        ::log::error!("the keeper is gone: taking its place");
        self.children.orphan();
        self.board.generation.fetch_add(1, SeqCst);
        self.perform_all();
        self.record();
        let reason = self.become_keeper();
        ::log::error!("become the keeper: {reason}; if pmx dies now, nobody starts it again");
        self.keeper = None;
        Progress::Drained
    }

    pub(super) fn tell(&mut self, input: Option<Input>) {
        if let Some(input) = input {
            self.supervisor.handle(self.now, input);
        }
    }

    /// Notes whom we are dealing with: if we die of it, the next daemon knows.
    pub(super) fn busy_with(&self, child: ChildId) {
        let owner = self.supervisor.owner(child).map_or(NOBODY, |process| u64::from(process.0) + 1);
        self.board.busy_with.store(owner, SeqCst);
    }

    /// Performs all that was decided: what is on record as decided the next daemon takes for done.
    pub(super) fn perform_all(&mut self) {
        self.perform_actions();
        while self.has_actions {
            self.perform_actions();
        }
    }

    /// Performs what was decided, as much as one round allows.
    fn perform_actions(&mut self) {
        self.starts.begin();
        self.has_actions = false;
        while let Some(action) = self.supervisor.next_action() {
            if let Some(input) = self.perform(action) {
                self.supervisor.handle(self.now, input);
            }
            if self.starts.are_enough() {
                self.has_actions = true;
                return;
            }
        }
    }
}

/// Has the event loop tell when the keeper is gone.
fn watch_keeper(registry: &mio::Registry, pid: i32) -> Option<OwnedFd> {
    if pid <= 1 {
        // PID 1 does not go before us.
        return None;
    }
    match pidfd::open(pid) {
        Ok(keeper) => {
            watch(registry, keeper.as_raw_fd(), Source::Keeper, Interest::READABLE);
            Some(keeper)
        }
        Err(error) => {
            ::log::warn!("watch the keeper: {error}");
            None
        }
    }
}
