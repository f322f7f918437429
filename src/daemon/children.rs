//! The living children: starting them, signalling them, and what is known of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use serde::{Deserialize, Serialize};

use super::channel::{Channel, Unsent};
use super::home::{Home, Stream};
use super::log::{self as output, Desk, Output, Tail};
use super::runtime::Runtime as Container;
use super::sink::Sink;
use super::source::{Progress, Source};
use super::watch::{rewatch, unwatch, watch};
use crate::app::{self, App, Format, Identity, Join, Mode, Runtime, Text};
use crate::node;
use crate::supervisor::{ChildId, End, ProcId};
use crate::sys::kept::Kept;
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::spawn::{self, Credentials, Spawn};
use crate::sys::{failpoint, inherit, pidfd, pipe, proc, shared_out, signals, socket, terminal};
use crate::time::{Millis, Mono, Wall};

/// How often a process group is looked at whose leader has ended and which was told to stop.
pub const LINGER_LOOK: Millis = Millis(20);

/// One living child.
#[derive(Debug)]
pub struct Child {
    /// The process it is for.
    pub process: ProcId,
    /// Its process id, which is also that of its group and session.
    pub pid: i32,
    /// What it runs.
    pub app: Arc<App>,
    /// Its place among the instances of its app.
    pub instance: u32,
    /// When it was spawned.
    pub since: Mono,
    /// The same for people.
    pub since_wall: Wall,
    /// Its channel, while it is open.
    pub channel: Option<Channel>,
    /// The runtime's version, where its preload told us.
    pub node_version: Option<String>,
    /// Processor time at the last look, and when that was.
    pub cpu_seen: Option<(Mono, u64)>,
    pidfd: Option<Kept<OwnedFd>>,
    tail: Tail,
    told_to_stop: bool,
    /// Its leader has ended; its group has not.
    ended: Option<End>,
    /// Which daemon of this keeper started it.
    generation: u32,
    /// Its parent is neither we nor our keeper: its end is seen by its pidfd.
    orphan: bool,
    /// When it started, in ticks of this boot.
    start_ticks: u64,
}

/// A child for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChildRecord {
    pub(super) process: ProcId,
    pub(super) pid: i32,
    /// In format 1.
    #[serde(default, skip_serializing)]
    app: Option<App>,
    instance: u32,
    since: Mono,
    since_wall: Wall,
    #[serde(default)]
    channel: Option<RawFd>,
    /// Of the channel, for when its number has lost its meaning.
    #[serde(default)]
    channel_inode: u64,
    #[serde(default)]
    unsent: Vec<Unsent>,
    #[serde(default)]
    node_version: Option<String>,
    #[serde(default)]
    pub(super) pidfd: Option<RawFd>,
    #[serde(default)]
    pub(super) told_to_stop: bool,
    #[serde(default)]
    ended: Option<End>,
    #[serde(default)]
    generation: u32,
    #[serde(default)]
    orphan: bool,
    #[serde(default)]
    start_ticks: u64,
}

impl ChildRecord {
    /// After our keeper died with us: finds the child again, beyond doubt, or not at all.
    pub fn find_again(&mut self, home: &Path, stored: &mut BTreeMap<u64, OwnedFd>) -> bool {
        // A channel that nobody kept ended with the daemon that had it, and so did what was on its way.
        let is_cut = self.unsent.iter().any(|unsent| unsent.rider().is_some());
        let channel = stored.remove(&self.channel_inode).filter(|_| !is_cut);
        if channel.is_none() {
            self.unsent.clear();
        }
        self.channel = channel.map(IntoRawFd::into_raw_fd);
        self.orphan = true;
        self.generation = 0;
        // The pidfd first: what is true of the pid after that is true of it.
        let Ok(found) = pidfd::open(self.pid) else { return false };
        if self.ended.is_some() || !proc::is_child(self.pid, self.start_ticks, home, self.process.0) {
            return false;
        }
        self.pidfd = Some(found.into_raw_fd());
        true
    }

    /// Its app, where it is on record with it.
    pub fn whole(&self) -> Option<&App> {
        self.app.as_ref()
    }

    /// The same, taken out.
    pub fn take_whole(&mut self) -> Option<App> {
        self.app.take()
    }

    /// Whether it has a channel.
    pub fn has_channel(&self) -> bool {
        self.channel.is_some()
    }

    /// Its channel, by inode and fd.
    pub fn socket(&self) -> Option<(u64, RawFd)> {
        self.channel.map(|fd| (self.channel_inode, fd))
    }

    /// The fds that it stands for.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let riders = self.unsent.iter().filter_map(Unsent::rider);
        self.pidfd.into_iter().chain(self.channel).chain(riders)
    }
}

/// A stream of a child for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutputRecord {
    /// The pipe, our end.
    pub pipe: RawFd,
    /// The log file.
    #[serde(default)]
    pub file: Option<RawFd>,
    /// In a container, what goes to our own stdout or stderr: of which process, and its app's name.
    #[serde(default)]
    pub whose: Option<(u32, String)>,
    /// What tells the pipe from others.
    #[serde(default)]
    pub inode: u64,
}

/// All living children and the pipes of those that are gone.
#[derive(Debug, Default)]
pub struct Children {
    living: BTreeMap<ChildId, Child>,
    by_pid: HashMap<i32, ChildId>,
    /// Pipes live on as long as anybody holds them, which may be longer than the child.
    outputs: BTreeMap<(ChildId, Stream), Output>,
    lingering: BTreeSet<ChildId>,
    /// Where output goes in a container.
    sink: Option<Sink>,
    /// In a container: there is but one child, which gets stdin, stdout and the terminal as they are.
    is_single: bool,
    /// The limits of open files, soft and hard, that children get back.
    pub nofile: Option<[u64; 2]>,
    /// The inclination to be killed for want of memory that children get back.
    pub oom_score_adj: Option<i32>,
    /// How many daemons this keeper had before us.
    pub generation: u32,
    /// Children that changed since the journal was last told.
    pub changed: BTreeSet<ChildId>,
    /// The same of outputs.
    pub changed_outputs: BTreeSet<(ChildId, Stream)>,
    /// Channels from which something was taken that is not on record.
    unsettled: BTreeSet<ChildId>,
}

/// What a spawn is asked to start.
pub struct Request<'a> {
    /// The new child.
    pub child: ChildId,
    /// The process it is for.
    pub process: ProcId,
    /// What to run.
    pub app: Arc<App>,
    /// Its place among the instances of its app.
    pub instance: u32,
    /// It may not accept before it is promoted.
    pub hold: bool,
    /// The home.
    pub home: &'a Home,
    /// Now.
    pub now: Mono,
    /// The same for people.
    pub wall: Wall,
}

/// Where a stream of a child leads.
enum Way {
    /// To our own of the same number.
    Straight,
    /// By way of us.
    Piped { output: Output, child_end: OwnedFd },
}

impl Way {
    /// The fd that the child gets.
    fn number(&self, own: RawFd) -> RawFd {
        match self {
            Way::Straight => own,
            Way::Piped { child_end, .. } => child_end.as_raw_fd(),
        }
    }
}

/// Why there is no child.
pub struct Refused {
    /// One sentence.
    pub reason: String,
    /// It may pass by itself.
    pub transient: bool,
    /// The system's number for it.
    pub errno: i32,
}

impl From<(&str, io::Error)> for Refused {
    fn from((what, error): (&str, io::Error)) -> Refused {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = format!("{what}: {}", crate::sys::reason(&error));
        Refused { reason, transient: is_transient(errno), errno }
    }
}

impl Children {
    /// Starts a child and watches its pipes.
    pub fn spawn(&mut self, registry: &Registry, request: &Request) -> Result<(), Refused> {
        let app = &request.app;
        let out = self.open_output(request, Stream::Stdout)?;
        let err = self.open_output(request, Stream::Stderr)?;
        let no_input = if self.is_single { None } else { Some(no_input()?) };
        let input = no_input.as_ref().map_or(0, AsRawFd::as_raw_fd);
        let mut fds: Vec<(RawFd, i32)> = vec![(input, 0), (out.number(1), 1), (err.number(2), 2)];
        let channel = match channel_fd(app) {
            None => None,
            Some(number) => {
                let (ours, theirs) = socket::pair().map_err(|e| Refused::from(("make a channel", e)))?;
                fds.push((theirs.as_raw_fd(), number));
                Some((ours, theirs))
            }
        };
        failpoint::reach("opened");
        let env = environment(request);
        let programs = programs(app, &env)?;
        let argv = argv(app)?;
        let env = c_strings(env.0.iter().map(|(name, value)| [name.bytes(), b"=", value.bytes()].concat()))?;
        let cwd = c_string(app.cwd.bytes().to_vec())?;
        let user = app.user.as_ref();
        let spawned = spawn::spawn(&Spawn {
            programs: &programs,
            argv: &argv,
            env: &env,
            cwd: &cwd,
            umask: app.umask,
            fds: &fds,
            user: user.map(|u| Credentials { uid: u.uid, gid: u.gid, groups: &u.groups }),
            nofile: self.nofile,
            oom_score_adj: self.oom_score_adj,
            terminal: if self.is_single { terminal::of_input() } else { None },
        })
        .map_err(|error| Refused {
            reason: error.to_string(),
            transient: is_transient(error.errno),
            errno: error.errno,
        })?;

        failpoint::reach("spawned");
        let id = request.child;
        self.by_pid.insert(spawned.pid, id);
        for (stream, way) in [(Stream::Stdout, out), (Stream::Stderr, err)] {
            let Way::Piped { output, .. } = way else { continue };
            watch(registry, output.fd(), stream_source(id, stream), Interest::READABLE);
            self.changed_outputs.insert((id, stream));
            self.outputs.insert((id, stream), output);
        }
        self.changed.insert(id);
        let channel = channel.map(|(ours, _)| {
            watch(registry, ours.as_raw_fd(), Source::Channel(id), Interest::READABLE);
            Channel::new(ours)
        });
        self.living.insert(
            id,
            Child {
                process: request.process,
                pid: spawned.pid,
                app: app.clone(),
                instance: request.instance,
                since: request.now,
                since_wall: request.wall,
                channel,
                node_version: None,
                cpu_seen: None,
                pidfd: spawned.pidfd.map(Kept::from),
                tail: Tail::default(),
                told_to_stop: false,
                ended: None,
                generation: self.generation,
                orphan: false,
                start_ticks: proc::stat(spawned.pid).map_or(0, |stat| stat.start_ticks),
            },
        );
        Ok(())
    }

    /// From now on output goes where a container's does.
    pub fn enter_container(&mut self, registry: &Registry, container: &Container) {
        let sink = container.sink().clone();
        for (number, stream) in [(1, Stream::Stdout), (2, Stream::Stderr)] {
            let fd = sink.outlet(stream).fd();
            // A regular file cannot be watched, and always has room.
            if let Err(error) =
                registry.register(&mut SourceFd(&fd), Source::Sink(number).token(), Interest::WRITABLE)
            {
                log::debug!("watch {stream:?}: {error}");
            }
        }
        self.is_single = container.is_single();
        self.sink = Some(sink);
    }

    /// Where a new child's stdout or stderr leads: to its file, or in a container, if none was asked for,
    /// to our own.
    fn open_output(&self, request: &Request, stream: Stream) -> Result<Way, Refused> {
        let app = &request.app;
        let declared = match stream {
            Stream::Stdout => &app.out_file,
            Stream::Stderr => &app.error_file,
        };
        let sink = self.sink.as_ref().filter(|_| declared.is_none());
        if sink.is_some_and(|sink| self.is_single && sink.format() == Format::Raw) {
            return Ok(Way::Straight);
        }
        let file = match sink {
            None => open_log(&request.home.log_file(app, request.process.0, stream))?,
            Some(_) => None,
        };
        let (read, child_end) = pipe::for_output().map_err(|e| Refused::from(("make a pipe", e)))?;
        let output = match sink {
            None => Output::new(read, file),
            Some(sink) => Output::to_lines(read, sink.lines(stream, request.process.0, &app.name)),
        };
        Ok(Way::Piped { output, child_end })
    }

    /// All living children.
    pub fn ids(&self) -> impl Iterator<Item = ChildId> + '_ {
        self.living.keys().copied()
    }

    /// All open outputs.
    pub fn output_ids(&self) -> impl Iterator<Item = (ChildId, Stream)> + '_ {
        self.outputs.keys().copied()
    }

    /// A child for the journal.
    pub fn record(&self, id: ChildId) -> Option<ChildRecord> {
        let child = self.living.get(&id)?;
        Some(ChildRecord {
            process: child.process,
            pid: child.pid,
            app: None,
            instance: child.instance,
            since: child.since,
            since_wall: child.since_wall,
            channel: child.channel.as_ref().map(Channel::fd),
            channel_inode: child.channel.as_ref().map_or(0, Channel::inode),
            unsent: child.channel.as_ref().map_or(Vec::new(), Channel::unsent),
            node_version: child.node_version.clone(),
            pidfd: child.pidfd.as_ref().map(|pidfd| pidfd.as_raw_fd()),
            told_to_stop: child.told_to_stop,
            ended: child.ended.clone(),
            generation: child.generation,
            orphan: child.orphan,
            start_ticks: child.start_ticks,
        })
    }

    /// A stream for the journal.
    pub fn output_record(&self, of: (ChildId, Stream)) -> Option<OutputRecord> {
        let output = self.outputs.get(&of)?;
        let (pipe, file) = output.fds();
        let whose = output.whose().map(|(process, name)| (process, name.to_string()));
        Some(OutputRecord { pipe, file, whose, inode: output.inode() })
    }

    /// Takes over a child of a daemon before us.
    pub fn restore(&mut self, registry: &Registry, id: ChildId, record: ChildRecord, app: Arc<App>) {
        failpoint::panic_on("restore", &app.name);
        let take = |fd: Option<RawFd>| fd.and_then(|fd| inherit::take(fd).ok());
        let channel = take(record.channel).map(|socket| {
            watch(registry, socket.as_raw_fd(), Source::Channel(id), Interest::READABLE);
            let mut channel = Channel::new(socket);
            channel.send_later(record.unsent);
            attend(registry, id, &mut channel);
            channel
        });
        let pidfd = take(record.pidfd).map(Kept::from);
        if record.orphan {
            match &pidfd {
                Some(pidfd) => watch(registry, pidfd.as_raw_fd(), Source::Orphan(id), Interest::READABLE),
                None => log::error!("{} of {}: nobody will tell of its end", record.pid, app.name),
            }
        }
        if record.ended.is_some() {
            self.lingering.insert(id);
        } else {
            self.by_pid.insert(record.pid, id);
        }
        self.living.insert(
            id,
            Child {
                process: record.process,
                pid: record.pid,
                app,
                instance: record.instance,
                since: record.since,
                since_wall: record.since_wall,
                channel,
                node_version: record.node_version,
                cpu_seen: None,
                pidfd,
                tail: Tail::default(),
                told_to_stop: record.told_to_stop,
                ended: record.ended,
                generation: record.generation,
                orphan: record.orphan,
                start_ticks: record.start_ticks,
            },
        );
    }

    /// Takes over a stream of a daemon before us.
    pub fn restore_output(&mut self, registry: &Registry, of: (ChildId, Stream), record: OutputRecord) {
        let pipe = match inherit::take(record.pipe) {
            Ok(pipe) => pipe,
            Err(error) => return log::error!("take over a pipe of {of:?}: {error}"),
        };
        let file = record.file.and_then(|fd| inherit::take(fd).ok()).map(std::fs::File::from);
        let output = match (&self.sink, record.whose) {
            (Some(sink), Some((process, name))) => Output::to_lines(pipe, sink.lines(of.1, process, &name)),
            _ => Output::new(pipe, file),
        };
        watch(registry, output.fd(), stream_source(of.0, of.1), Interest::READABLE);
        self.outputs.insert(of, output);
    }

    /// Writes what the daemon before us had read and not written.
    pub fn finish_output(&mut self, desk: &mut Desk) {
        if let Some(of) = desk.left() {
            match self.outputs.get_mut(&of) {
                Some(output) => output.finish(desk),
                None => desk.clear(),
            }
        }
    }

    /// The log file of a stream was emptied.
    pub fn emptied(&mut self, process: ProcId) {
        let Children { living, outputs, .. } = self;
        for ((child, _), output) in outputs {
            if living.get(child).is_none_or(|child| child.process == process) {
                output.emptied();
            }
        }
    }

    /// The keeper is gone: children that earlier daemons started have no parent that we know.
    pub fn orphan(&mut self) {
        for (id, child) in &mut self.living {
            if child.generation != self.generation {
                child.orphan = true;
                self.changed.insert(*id);
            }
        }
    }

    /// How an orphan ended: unknown where the kernel does not say. `None`: it lives.
    pub fn orphan_ended(&self, id: ChildId) -> Option<Reaped> {
        let child = self.living.get(&id).filter(|child| child.ended.is_none())?;
        let pidfd = child.pidfd.as_ref()?.as_fd();
        if !pidfd::has_ended(pidfd) {
            return None;
        }
        let status = pidfd::exit_status(pidfd).unwrap_or(ExitStatus::Unknown);
        Some(Reaped { pid: child.pid, status, user_ms: 0, system_ms: 0, max_rss_kb: 0 })
    }

    /// It ended, and its pidfd tells nothing more.
    pub fn unwatch_orphan(&mut self, registry: &Registry, id: ChildId) {
        if let Some(pidfd) = self.living.get(&id).and_then(|child| child.pidfd.as_ref()) {
            unwatch(registry, pidfd.as_raw_fd());
        }
    }

    /// What was taken from channels is on record. Tells which may have more.
    pub fn settle(&mut self, buffer: &mut [u8]) -> Vec<ChildId> {
        let unsettled = std::mem::take(&mut self.unsettled);
        let settle = |id: &ChildId| self.channel(*id).is_some_and(|channel| channel.settle(buffer));
        unsettled.into_iter().filter(settle).collect()
    }

    /// Something was taken from the channel of a child.
    pub fn took(&mut self, id: ChildId) {
        self.unsettled.insert(id);
    }

    /// A living child.
    pub fn get(&self, id: ChildId) -> Option<&Child> {
        self.living.get(&id)
    }

    /// A living child.
    pub fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.living.get_mut(&id)
    }

    /// The channel of a living child.
    pub fn channel(&mut self, id: ChildId) -> Option<&mut Channel> {
        self.living.get_mut(&id)?.channel.as_mut()
    }

    /// Sends a line to a child, and `rider` with it. False: it is gone, or has read nothing for so long that
    /// it is given up.
    pub fn send(
        &mut self,
        registry: &Registry,
        id: ChildId,
        message: node::ToWorker,
        rider: Option<BorrowedFd>,
    ) -> bool {
        let Some(channel) = self.channel(id) else { return false };
        let sent = channel.send(message, rider);
        attend(registry, id, channel);
        if !channel.is_clear() {
            self.changed.insert(id);
        }
        sent
    }

    /// Sends what waits for a child that reads again. True: it has caught up.
    pub fn flush(&mut self, registry: &Registry, id: ChildId) -> bool {
        let Some(channel) = self.channel(id).filter(|channel| !channel.is_clear()) else { return false };
        channel.flush();
        attend(registry, id, channel);
        let clear = channel.is_clear();
        self.changed.insert(id);
        clear
    }

    /// Sends the stop signal to a child's group.
    pub fn stop(&mut self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get_mut(&id) else { return };
        child.told_to_stop = true;
        self.changed.insert(id);
        send_group(child.pid, signal);
        failpoint::reach("signalled");
        if signal != libc::SIGKILL {
            // One that was stopped could not react.
            send_group(child.pid, libc::SIGCONT);
        }
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get(&id).filter(|child| child.ended.is_none()) else { return };
        if let Err(error) = pidfd::send(child.pidfd.as_ref().map(AsFd::as_fd), child.pid, signal) {
            log::warn!("send {} to {}: {error}", signals::name(signal), child.pid);
        }
    }

    /// Moves output of a child. True when its pipe is closed, and gone.
    pub fn move_output(
        &mut self,
        registry: &Registry,
        id: ChildId,
        stream: Stream,
        now: Mono,
        desk: &mut Desk,
    ) -> Progress {
        let Some(output) = self.outputs.get_mut(&(id, stream)) else { return Progress::Drained };
        let mut nobody = Tail::default();
        let tail = self.living.get_mut(&id).map_or(&mut nobody, |child| &mut child.tail);
        if let Some(progress) = output.visit(now, (id, stream), desk, tail) {
            return progress;
        }
        unwatch(registry, output.fd());
        self.outputs.remove(&(id, stream));
        self.changed_outputs.insert((id, stream));
        Progress::Drained
    }

    /// Closes the channel of a child; the event loop forgets it first.
    pub fn close_channel(&mut self, registry: &Registry, id: ChildId) {
        if let Some(channel) = self.living.get_mut(&id).and_then(|child| child.channel.take()) {
            unwatch(registry, channel.fd());
            self.changed.insert(id);
        }
    }

    /// The child that a reaped process was.
    pub fn find(&self, pid: i32) -> Option<ChildId> {
        self.by_pid.get(&pid).copied()
    }

    /// Takes in the end of a child. `Some`: it is over. `None`: it was told to stop, and other members of
    /// its group live on; they have until the kill timeout.
    pub fn ended(&mut self, id: ChildId, reaped: &Reaped) -> Option<(Child, End)> {
        let child = self.living.get_mut(&id)?;
        self.by_pid.remove(&reaped.pid);
        self.changed.insert(id);
        let code = match reaped.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal { .. } | ExitStatus::Unknown => None,
        };
        let end = End { code, text: describe(reaped.status), last_lines: child.tail.lines() };
        if child.told_to_stop && pidfd::group_alive(child.pid) {
            child.ended = Some(end);
            self.lingering.insert(id);
            return None;
        }
        self.living.remove(&id).map(|child| (child, end))
    }

    /// Whether any process group is being waited for.
    pub fn is_lingering(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// Those whose group is gone by now.
    pub fn take_gone(&mut self) -> Vec<(ChildId, Child, End)> {
        let gone: Vec<ChildId> =
            self.lingering.iter().copied().filter(|id| self.group_is_gone(*id)).collect();
        let mut ends = Vec::new();
        for id in gone {
            self.lingering.remove(&id);
            self.changed.insert(id);
            if let Some(mut child) = self.living.remove(&id)
                && let Some(end) = child.ended.take()
            {
                ends.push((id, child, end));
            }
        }
        ends
    }

    fn group_is_gone(&self, id: ChildId) -> bool {
        self.living.get(&id).is_none_or(|child| !pidfd::group_alive(child.pid))
    }
}

/// The source of a child's stream.
pub fn stream_source(id: ChildId, stream: Stream) -> Source {
    match stream {
        Stream::Stdout => Source::Stdout(id),
        Stream::Stderr => Source::Stderr(id),
    }
}

/// A channel is only watched for room to write while something waits for that: the kernel would wake us
/// each time its worker reads.
fn attend(registry: &Registry, id: ChildId, channel: &mut Channel) {
    if let Some(interest) = channel.changed_interest() {
        rewatch(registry, channel.fd(), Source::Channel(id), interest);
    }
}

/// `exit code 1`, `killed by SIGSEGV (core dumped)`.
pub fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal { number, core } => {
            format!("killed by {}{}", signals::name(number), if core { " (core dumped)" } else { "" })
        }
        ExitStatus::Unknown => "ended, nobody knows how: its keeper was killed".to_string(),
    }
}

fn send_group(pid: i32, signal: i32) {
    if let Err(error) = pidfd::send_group(pid, signal)
        && error.raw_os_error() != Some(libc::ESRCH)
    {
        log::warn!("send {} to the group of {pid}: {error}", signals::name(signal));
    }
}

fn is_transient(errno: i32) -> bool {
    matches!(
        errno,
        libc::EAGAIN
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::ETXTBSY
            | libc::ENOSPC
            | libc::EINTR
    )
}

/// A stdin that is at its end. An empty container has no /dev/null.
fn no_input() -> Result<OwnedFd, Refused> {
    match std::fs::File::open("/dev/null") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            shared_out::ended_input().map_err(|error| Refused::from(("make a pipe", error)))
        }
        opened => Ok(opened.map_err(|error| Refused::from(("open /dev/null", error)))?.into()),
    }
}

fn open_log(path: &Path) -> Result<Option<std::fs::File>, Refused> {
    match output::open(path) {
        Ok(file) => Ok(file),
        // An app runs without its log rather than not at all.
        Err(error) if is_transient(error.raw_os_error().unwrap_or(0)) => {
            log::error!("open {}: {error}; its bytes are lost", path.display());
            Ok(None)
        }
        Err(error) => Err(Refused::from((format!("open {}", path.display()).as_str(), error))),
    }
}

/// The number of the channel in the child, if it gets one.
fn channel_fd(app: &App) -> Option<i32> {
    match app.command.runtime {
        Runtime::Node | Runtime::Bun => Some(node::CHANNEL_FD),
        Runtime::Launcher if app.mode != Mode::Fork => Some(node::LAUNCHER_CHANNEL_FD),
        Runtime::Launcher | Runtime::Other => None,
    }
}

fn environment(request: &Request) -> app::Env {
    let app = &request.app;
    let identity = Identity {
        id: request.process.0,
        instance: request.instance,
        home: request.home.path(),
        cluster: app.is_cluster(),
    };
    let join = || {
        let preload = request.home.preload(app).filter(|_| app.may_cluster())?;
        let at_start = app.is_cluster();
        Some(Join { worker: request.child.0 + 1, at_start, hold: request.hold, preload })
    };
    let claim = request.home.claim(app, request.child.0);
    let channel = match (app.command.runtime, channel_fd(app)) {
        (_, None) => None,
        (Runtime::Launcher, Some(fd)) => {
            join().map(|join| app::Channel::Launcher { fd, claim: &claim, join })
        }
        (_, Some(fd)) => Some(app::Channel::Node { fd, join: join() }),
    };
    app::environment(app, &identity, channel.as_ref())
}

/// The files to try: the interpreter's, searched in the app's own PATH each time, or the script.
fn programs(app: &App, env: &app::Env) -> Result<Vec<CString>, Refused> {
    let command = &app.command;
    let program = command.interpreter.as_ref().unwrap_or(&command.script);
    let at = |directory: &Path| c_string(Text::from(&directory.join(program.path())).bytes().to_vec());
    if program.bytes().contains(&b'/') {
        return Ok(vec![at(app.cwd.path())?]);
    }
    let path = env.get("PATH").cloned().unwrap_or_else(|| Text::from("/usr/local/bin:/usr/bin:/bin"));
    let directories = std::env::split_paths(&path).map(|directory| app.cwd.path().join(directory));
    directories.map(|directory| at(&directory)).collect()
}

fn argv(app: &App) -> Result<Vec<CString>, Refused> {
    let command = &app.command;
    let before = command.interpreter.iter().chain(&command.interpreter_args);
    let words = before.chain(std::iter::once(&command.script)).chain(&command.args);
    c_strings(words.map(|word| word.bytes().to_vec()))
}

fn c_strings(words: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>, Refused> {
    words.map(c_string).collect()
}

fn c_string(word: Vec<u8>) -> Result<CString, Refused> {
    CString::new(word).map_err(|error| Refused {
        reason: format!("an argument holds a NUL byte: {:?}", String::from_utf8_lossy(&error.into_vec())),
        transient: false,
        errno: libc::EINVAL,
    })
}
