//! The living children: starting them, signalling them, and what is known of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::channel::Channel;
use super::home::{Home, Stream};
use super::log::{self as output, Output, Tail};
use super::source::{Progress, Source};
use crate::app::{self, App, Identity, Join, Mode, Runtime, Text};
use crate::node;
use crate::supervisor::{ChildId, End, ProcId};
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::spawn::{self, Credentials, Spawn};
use crate::sys::{pidfd, pipe, signals, socket};
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
    pidfd: Option<OwnedFd>,
    tail: Tail,
    told_to_stop: bool,
    /// Its leader has ended; its group has not.
    ended: Option<End>,
}

/// All living children and the pipes of those that are gone.
#[derive(Debug, Default)]
pub struct Children {
    living: BTreeMap<ChildId, Child>,
    by_pid: HashMap<i32, ChildId>,
    /// Pipes live on as long as anybody holds them, which may be longer than the child.
    outputs: BTreeMap<(ChildId, Stream), Output>,
    lingering: BTreeSet<ChildId>,
    /// The open file limit that children get back.
    pub nofile_soft: Option<u64>,
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

/// Why there is no child.
pub struct Refused {
    /// One sentence.
    pub reason: String,
    /// It may pass by itself.
    pub transient: bool,
}

impl From<(&str, io::Error)> for Refused {
    fn from((what, error): (&str, io::Error)) -> Refused {
        Refused {
            reason: format!("{what}: {}", crate::sys::reason(&error)),
            transient: is_transient(error.raw_os_error().unwrap_or(0)),
        }
    }
}

impl Children {
    /// Starts a child and watches its pipes.
    pub fn spawn(&mut self, registry: &Registry, request: &Request) -> Result<(), Refused> {
        let app = &request.app;
        let out_file = open_log(&request.home.log_file(app, request.process.0, Stream::Stdout))?;
        let err_file = open_log(&request.home.log_file(app, request.process.0, Stream::Stderr))?;
        let null = std::fs::File::open("/dev/null").map_err(|e| Refused::from(("open /dev/null", e)))?;
        let (out_read, out_write) = pipe::pipe().map_err(|e| Refused::from(("make a pipe", e)))?;
        let (err_read, err_write) = pipe::pipe().map_err(|e| Refused::from(("make a pipe", e)))?;
        let mut fds: Vec<(RawFd, i32)> =
            vec![(null.as_raw_fd(), 0), (out_write.as_raw_fd(), 1), (err_write.as_raw_fd(), 2)];
        let channel = match channel_fd(app) {
            None => None,
            Some(number) => {
                let (ours, theirs) = socket::pair().map_err(|e| Refused::from(("make a channel", e)))?;
                fds.push((theirs.as_raw_fd(), number));
                Some((ours, theirs))
            }
        };
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
            nofile_soft: self.nofile_soft,
        })
        .map_err(|error| Refused { reason: error.to_string(), transient: is_transient(error.errno) })?;

        let id = request.child;
        self.by_pid.insert(spawned.pid, id);
        let outputs = [(Stream::Stdout, out_read, out_file), (Stream::Stderr, err_read, err_file)];
        for (stream, pipe, file) in outputs {
            let output = Output::new(pipe, file);
            watch(registry, output.fd(), stream_source(id, stream), Interest::READABLE);
            self.outputs.insert((id, stream), output);
        }
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
                pidfd: spawned.pidfd,
                tail: Tail::default(),
                told_to_stop: false,
                ended: None,
            },
        );
        Ok(())
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
        sent
    }

    /// Sends what waits for a child that reads again. True: it has caught up.
    pub fn flush(&mut self, registry: &Registry, id: ChildId) -> bool {
        let Some(channel) = self.channel(id).filter(|channel| !channel.is_clear()) else { return false };
        channel.flush();
        attend(registry, id, channel);
        channel.is_clear()
    }

    /// Sends the stop signal to a child's group.
    pub fn stop(&mut self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get_mut(&id) else { return };
        child.told_to_stop = true;
        send_group(child.pid, signal);
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
        buffer: &mut [u8],
    ) -> Progress {
        let Some(output) = self.outputs.get_mut(&(id, stream)) else { return Progress::Drained };
        let mut nobody = Tail::default();
        let tail = self.living.get_mut(&id).map_or(&mut nobody, |child| &mut child.tail);
        if let Some(progress) = output.visit(now, buffer, tail) {
            return progress;
        }
        unwatch(registry, output.fd());
        self.outputs.remove(&(id, stream));
        Progress::Drained
    }

    /// Closes the channel of a child; the event loop forgets it first.
    pub fn close_channel(&mut self, registry: &Registry, id: ChildId) {
        if let Some(channel) = self.living.get_mut(&id).and_then(|child| child.channel.take()) {
            unwatch(registry, channel.fd());
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
        let code = match reaped.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal { .. } => None,
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

/// Has the event loop watch an fd. It can only fail for want of memory or when the fd cannot be watched;
/// then it is deaf, which is said.
pub fn watch(registry: &Registry, fd: RawFd, source: Source, interest: Interest) {
    if let Err(error) = registry.register(&mut SourceFd(&fd), source.token(), interest) {
        log::error!("watch {source:?}: {error}");
    }
}

/// A channel is only watched for room to write while something waits for that: the kernel would wake us
/// each time its worker reads.
fn attend(registry: &Registry, id: ChildId, channel: &mut Channel) {
    if let Some(interest) = channel.changed_interest()
        && let Err(error) =
            registry.reregister(&mut SourceFd(&channel.fd()), Source::Channel(id).token(), interest)
    {
        log::error!("watch the channel of {id:?}: {error}");
    }
}

/// Has the event loop forget an fd. Before its close: a duplicate elsewhere would keep its events coming.
pub fn unwatch(registry: &Registry, fd: RawFd) {
    if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
        log::debug!("forget an fd: {error}");
    }
}

/// `exit code 1`, `killed by SIGSEGV (core dumped)`.
pub fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal { number, core } => {
            format!("killed by {}{}", signals::name(number), if core { " (core dumped)" } else { "" })
        }
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
    })
}
