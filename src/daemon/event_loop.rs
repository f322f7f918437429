//! The loop. It reads the clock once per round, visits what is ready in a fixed order and within budgets,
//! lets the supervisor decide, performs, and sleeps until the next event or deadline. It has no way to
//! fail: an error belongs to one child, one client or one file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mio::{Events, Interest, Poll};

use super::channel::{Channel, Received};
use super::children::{Children, LINGER_LOOK, stream_source};
use super::control::Control;
use super::home::{Home, Stream};
use super::log;
use super::primary::Primary;
use super::source::{Progress, Source};
use super::views::Memories;
use crate::node::{self, FromWorker};
use crate::protocol::{EventKind, Request};
use crate::supervisor::{Action, ChildId, Command, Input, OpId, Supervisor};
use crate::sys::reap::{self, ExitStatus, Reaped};
use crate::sys::signals::{Signal, Signals};
use crate::sys::{clock, limits};
use crate::time::Mono;

/// Children started in one round: starting takes long, and others wait.
const SPAWNS: usize = 16;
/// Messages taken from a child that has ended: more than its channel can hold, unless others write to it.
const LAST_MESSAGES: usize = 1 << 16;
/// Events taken from the kernel in one round.
const EVENTS: usize = 256;

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    pub(super) poll: Poll,
    pub(super) home: Home,
    pub(super) supervisor: Supervisor,
    pub(super) children: Children,
    pub(super) primary: Primary,
    pub(super) control: Control,
    pub(super) memories: Memories,
    signals: Signals,
    /// The name of the user we are.
    pub(super) us: String,
    /// Who waits for an operation: a client, and the id it gave its request.
    pub(super) asked: BTreeMap<OpId, (u64, u64)>,
    pub(super) next_op: u64,
    /// The operations of clients that end the daemon.
    pub(super) shutdowns: BTreeSet<OpId>,
    /// Everything is down: clients have until then to take their last answers.
    pub(super) ending: Option<Mono>,
    /// Decided, and left for the next round.
    has_actions: bool,
    pub(super) now: Mono,
    /// To be visited, in the order of `Source`.
    ready: BTreeSet<Source>,
    /// Busy pipes that gather.
    resting: BTreeSet<(Mono, Source)>,
    buffer: Vec<u8>,
}

impl Daemon {
    /// Takes hold of everything the loop needs. The caller holds the lock of the home.
    pub fn set_up(home: Home) -> Result<Daemon, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {}", crate::sys::reason(&error));
        let poll = Poll::new().map_err(|error| failed("make an epoll", error))?;
        let mut signals = Signals::install().map_err(|error| failed("catch signals", error))?;
        poll.registry()
            .register(&mut signals, Source::Signals.token(), Interest::READABLE)
            .map_err(|error| failed("watch signals", error))?;
        let mut children = Children::default();
        match limits::raise_open_files() {
            Ok(soft) => children.nofile_soft = Some(soft),
            Err(error) => ::log::warn!("raise the limit of open files: {error}"),
        }
        let socket = home.socket();
        // The only look into a user database, before the loop begins.
        let uid = nix::unistd::geteuid();
        let us = nix::unistd::User::from_uid(uid).ok().flatten().map_or(uid.to_string(), |user| user.name);
        let control = Control::open(poll.registry(), &socket, uid.as_raw())
            .map_err(|error| failed(&format!("open {}", socket.display()), error))?;
        Ok(Daemon {
            poll,
            home,
            supervisor: Supervisor::default(),
            children,
            primary: Primary::default(),
            control,
            memories: Memories::default(),
            signals,
            us,
            asked: BTreeMap::new(),
            next_op: 0,
            shutdowns: BTreeSet::new(),
            ending: None,
            has_actions: false,
            now: clock::mono(),
            // A signal may have come before it was watched.
            ready: BTreeSet::from([Source::Signals]),
            resting: BTreeSet::new(),
            buffer: log::buffer(),
        })
    }

    /// Runs until everything was told to end.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    ::log::error!("wait for events: {error}");
                }
                _ => {}
            }
            self.now = clock::mono();
            self.gather(&events);
            for source in std::mem::take(&mut self.ready) {
                match self.visit(source) {
                    Progress::Drained => {}
                    Progress::More => {
                        self.ready.insert(source);
                    }
                    Progress::Rest(until) => {
                        self.resting.insert((until, source));
                    }
                }
            }
            self.supervisor.handle_timers(self.now);
            self.look_at_groups();
            self.control.expire(self.poll.registry(), self.now);
            self.perform_actions();
            self.primary.tidy(self.poll.registry(), self.now);
            self.control.flush(self.poll.registry());
            if self.ending.is_some_and(|until| self.control.is_flushed() || self.now >= until) {
                return;
            }
        }
    }

    /// How long the kernel may let us sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.has_actions {
            return Some(Duration::ZERO);
        }
        let groups = self.children.is_lingering().then(|| self.now + LINGER_LOOK);
        let resting = self.resting.first().map(|(until, _)| *until);
        let deadlines = [
            self.supervisor.next_deadline(),
            self.control.deadline(),
            self.primary.deadline(),
            groups,
            resting,
            self.ending,
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.since(clock::mono()).0))
    }

    /// Notes what became ready. What rests stays at rest: its bytes do not run away.
    fn gather(&mut self, events: &Events) {
        for source in events.iter().filter_map(|event| Source::from_token(event.token())) {
            if !self.resting.iter().any(|(_, resting)| *resting == source) {
                self.ready.insert(source);
            }
        }
        while let Some(&(until, source)) = self.resting.first()
            && until <= self.now
        {
            self.resting.pop_first();
            self.ready.insert(source);
        }
    }

    fn visit(&mut self, source: Source) -> Progress {
        match source {
            Source::Stdout(child) => self.move_output(child, Stream::Stdout),
            Source::Stderr(child) => self.move_output(child, Stream::Stderr),
            Source::Channel(child) => self.read_channel(child, Channel::budget()),
            Source::Signals => self.take_signals(),
            Source::Listener(listener) => {
                self.primary.visit(self.poll.registry(), &mut self.children, listener)
            }
            Source::Control => self.control.accept(self.poll.registry(), self.now),
            Source::Client(client) => self.serve(client),
        }
    }

    fn move_output(&mut self, child: ChildId, stream: Stream) -> Progress {
        self.children.move_output(self.poll.registry(), child, stream, self.now, &mut self.buffer)
    }

    fn serve(&mut self, client: u64) -> Progress {
        let mut heard: Vec<Request> = Vec::new();
        let progress = self.control.visit(self.poll.registry(), client, self.now, &mut heard);
        for request in heard {
            self.request(client, request);
        }
        progress
    }

    fn take_signals(&mut self) -> Progress {
        for signal in self.signals.drain().iter() {
            match signal {
                Signal::Child => {
                    while let Some(reaped) = reap::reap() {
                        self.reaped(&reaped);
                    }
                }
                Signal::Terminate | Signal::Interrupt | Signal::Quit => {
                    ::log::info!("{signal:?}: stopping everything");
                    let op = self.new_op();
                    self.supervisor.handle(self.now, Input::Command { op, command: Command::Shutdown });
                }
                Signal::Hangup | Signal::User2 => {}
            }
        }
        Progress::Drained
    }

    /// A process is gone. Its last words and messages are taken before its end is told.
    fn reaped(&mut self, reaped: &Reaped) {
        let Some(child) = self.children.find(reaped.pid) else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            // At most what a pipe can hold, several times over: others may go on writing to it.
            let drained = (0..16).any(|_| self.move_output(child, stream) != Progress::More);
            if !drained {
                self.ready.insert(stream_source(child, stream));
            }
        }
        let _ = self.read_channel(child, LAST_MESSAGES);
        if let Some((living, end)) = self.children.ended(child, reaped) {
            self.gone(child, living, end, Some(reaped.status));
        }
    }

    /// A child is over, and its process group if it was told to stop.
    fn gone(
        &mut self,
        id: ChildId,
        child: super::children::Child,
        end: crate::supervisor::End,
        status: Option<ExitStatus>,
    ) {
        let registry = self.poll.registry();
        if let Some(channel) = &child.channel {
            super::children::unwatch(registry, channel.fd());
        }
        self.primary.gone(registry, &mut self.children, id);
        let signal = match status {
            Some(ExitStatus::Signal { number, .. }) => Some(number),
            _ => None,
        };
        self.memories.ended(child.process, &child, &end, signal, clock::wall(), self.now);
        let claim = self.home.claim(&child.app, id.0);
        if child.app.command.runtime == crate::app::Runtime::Launcher {
            let _ = std::fs::remove_file(claim);
        }
        self.supervisor.handle(self.now, Input::Exited { child: id, end });
    }

    /// Groups whose leader has ended, of children that were told to stop.
    fn look_at_groups(&mut self) {
        if self.children.is_lingering() {
            for (id, child, end) in self.children.take_gone() {
                self.gone(id, child, end, None);
            }
        }
    }

    fn read_channel(&mut self, child: ChildId, budget: usize) -> Progress {
        let mut buffer = std::mem::take(&mut self.buffer);
        let progress = self.converse(child, budget, &mut buffer);
        self.buffer = buffer;
        progress
    }

    fn converse(&mut self, child: ChildId, budget: usize, buffer: &mut [u8]) -> Progress {
        for _ in 0..budget {
            let registry = self.poll.registry();
            if self.children.flush(registry, child) {
                self.primary.caught_up(registry, &mut self.children, child);
            }
            let Some(channel) = self.children.channel(child) else { return Progress::Drained };
            match channel.receive(buffer) {
                Received::Message(message) => self.message(child, message),
                Received::Nothing => return Progress::Drained,
                Received::Closed => {
                    self.children.close_channel(self.poll.registry(), child);
                    self.supervisor.handle(self.now, Input::Drained { child });
                    return Progress::Drained;
                }
            }
        }
        Progress::More
    }

    /// A worker said something.
    fn message(&mut self, child: ChildId, message: FromWorker) {
        let registry = self.poll.registry();
        let children = &mut self.children;
        match message {
            FromWorker::QueryServer { seq, query } => {
                self.primary.query_server(registry, children, child, seq, &query);
            }
            FromWorker::Listening => {
                self.primary.listening(registry, children, child);
                self.supervisor.handle(self.now, Input::Listening { child });
            }
            FromWorker::Close { key } => self.primary.close(registry, children, child, &key),
            FromWorker::ExitedAfterDisconnect { seq } => {
                children.send(registry, child, node::ack(seq), None);
            }
            FromWorker::Ack { seq, accepted } => {
                self.primary.acknowledged(registry, children, child, seq, accepted);
            }
            FromWorker::AppHandle => {
                children.send(registry, child, node::handle_ack(), None);
            }
            FromWorker::Hello { node, .. } => {
                if let Some(child) = children.get_mut(child) {
                    child.node_version = Some(node).filter(|version| version.len() <= 32);
                }
            }
            FromWorker::Drained => self.supervisor.handle(self.now, Input::Drained { child }),
            FromWorker::Ready => self.supervisor.handle(self.now, Input::Ready { child }),
            FromWorker::App(value) => {
                if let Some(process) = self.supervisor.owner(child)
                    && let Some(name) = self.supervisor.process(process).map(|p| p.app.name.clone())
                {
                    self.publish(process, name, EventKind::Message, value.to_string());
                }
            }
            FromWorker::Online | FromWorker::Ignored => {}
        }
    }

    /// Performs what was decided, as much as one round allows.
    fn perform_actions(&mut self) {
        let mut spawns = 0;
        self.has_actions = false;
        while let Some(action) = self.supervisor.next_action() {
            spawns += usize::from(matches!(action, Action::Spawn { .. }));
            if let Some(input) = self.perform(action) {
                self.supervisor.handle(self.now, input);
            }
            if spawns == SPAWNS {
                self.has_actions = true;
                return;
            }
        }
    }
}
