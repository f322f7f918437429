//! How a child is started: its files, its arguments, its environment, and why there is none.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use mio::Registry;

use super::outputs::Way;
use super::{Child, Children, messages};
use crate::app::{self, App, Identity, Join, Mode, Runtime, Stdin, Text};
use crate::daemon::bounds;
use crate::daemon::home::{Home, Stream};
use crate::daemon::log::{Desk, Tail};
use crate::daemon::notify::Words;
use crate::node;
use crate::protocol::Axm;
use crate::supervisor::{ChildId, Leak, ProcId};
use crate::sys::cgroup::Group;
use crate::sys::kept::Kept;
use crate::sys::spawn::{self, Spawn, Spawned, Step};
use crate::sys::{failpoint, pipe, proc, shared_out, socket, terminal};
use crate::time::{Millis, Mono, Wall};

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
    /// When the process was added.
    pub created: Wall,
    /// The home.
    pub home: &'a Home,
    /// Nobody waits for it.
    pub unattended: bool,
    /// Where it may say how it is.
    pub notify: Option<&'a Path>,
    /// Now.
    pub now: Mono,
    /// The same for people.
    pub wall: Wall,
}

/// Why there is no child.
#[derive(Debug)]
pub struct Refused {
    /// One sentence.
    pub reason: String,
    /// It may pass by itself.
    pub transient: bool,
    /// The system's number for it.
    pub errno: i32,
}

impl Refused {
    /// What was to be done, and why the system would not.
    pub(super) fn new(what: &str, error: &io::Error) -> Refused {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = format!("{what}: {}", crate::sys::reason(error));
        Refused { reason, transient: is_transient(errno), errno }
    }

    /// The same of what we need whatever is declared: it is tried again in any case.
    pub(super) fn means(what: &str, error: &io::Error) -> Refused {
        Refused { transient: true, ..Refused::new(what, error) }
    }

    /// What it is told to run can never be run.
    fn invalid(reason: String) -> Refused {
        Refused { reason, transient: false, errno: libc::EINVAL }
    }
}

/// A child that needs only be executed: all that it takes is open and laid out.
#[derive(Debug)]
pub struct Ready {
    child: ChildId,
    process: ProcId,
    app: Arc<App>,
    instance: u32,
    since: Mono,
    since_wall: Wall,
    mark: String,
    out: Way,
    err: Way,
    input: Option<(OwnedFd, Option<u64>)>,
    channel: Option<(OwnedFd, OwnedFd)>,
    programs: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    group: Option<Group>,
    directories: Vec<OwnedFd>,
}

impl Children {
    /// Makes a child ready.
    pub fn make_ready(&self, request: &Request) -> Result<Ready, Refused> {
        let app = &request.app;
        let out = self.open_output(request, Stream::Stdout)?;
        let err = self.open_output(request, Stream::Stderr)?;
        let input = if self.is_single { None } else { Some(open_input(app.stdin)?) };
        let channel = channel_fd(app).map(|_| socket::pair()).transpose();
        let channel = channel.map_err(|e| Refused::means("make a channel", &e))?;
        failpoint::reach("opened");
        let mark = request.home.mark(request.child.0, request.wall);
        let env = environment(request, &mark);
        let programs = programs(app, &env).map_err(Refused::invalid)?;
        let argv = argv(app).map_err(Refused::invalid)?;
        let env = c_environment(&env).map_err(Refused::invalid)?;
        let cwd = c_string(app.cwd.bytes()).map_err(Refused::invalid)?;
        let group = self.containment.enter(request, &mark)?;
        let directories = match group.as_ref().map(Group::directories).transpose() {
            Ok(directories) => directories.unwrap_or_default(),
            Err(error) if app.limits.need_group() => {
                if let Some(group) = &group {
                    group.remove();
                }
                return Err(Refused::new("open its control group", &error));
            }
            Err(error) => {
                // It is known by its mark then.
                log::warn!("{}({}): open its control group: {error}", app.name, request.process.0);
                Vec::new()
            }
        };
        Ok(Ready {
            child: request.child,
            process: request.process,
            app: app.clone(),
            instance: request.instance,
            since: request.now,
            since_wall: request.wall,
            mark,
            out,
            err,
            input,
            channel,
            programs,
            argv,
            env,
            cwd,
            group,
            directories,
        })
    }

    /// Executes its program, in a control group of its own where one can be had, and does something else meanwhile.
    pub fn execute<T>(&self, ready: &mut Ready, other: impl FnOnce() -> T) -> (Result<Spawned, Refused>, T) {
        let app = &ready.app;
        let input = ready.input.as_ref().map_or(0, |(end, _)| end.as_raw_fd());
        let mut fds: Vec<(RawFd, i32)> = vec![(input, 0), (ready.out.number(1), 1), (ready.err.number(2), 2)];
        fds.extend(ready.channel.iter().map(|(_, theirs)| theirs.as_raw_fd()).zip(channel_fd(app)));
        let has_watchdog = app.notify.watchdog > Millis(0) && app.command.runtime != Runtime::Launcher;
        let limits = bounds::limits(&app.limits);
        let groups: Vec<RawFd> = ready.directories.iter().map(AsRawFd::as_raw_fd).collect();
        let wanted = Spawn {
            programs: &ready.programs,
            argv: &ready.argv,
            env: &ready.env,
            // A launcher's is not that of the program that it starts.
            env_pid: has_watchdog.then_some(c"WATCHDOG_PID"),
            cwd: &ready.cwd,
            fds: &fds,
            terminal: if self.is_single { terminal::of_input() } else { None },
            groups: &groups,
            ..bounds::spawn(app, &limits, self)
        };
        let (mut spawned, told) = spawn::spawn_while(&wanted, other);
        let mut is_grouped = !groups.is_empty();
        if let Err(error) = &spawned
            && error.step == Step::Group
            && !app.limits.need_group()
        {
            // It is known by its mark then.
            log::warn!("{}({}): {error}", app.name, ready.process.0);
            is_grouped = false;
            spawned = spawn::spawn(&Spawn { groups: &[], ..wanted });
        }
        is_grouped &= spawned.is_ok();
        if !is_grouped && let Some(group) = ready.group.take() {
            group.remove();
        }
        let spawned = spawned.map_err(|error| Refused {
            reason: error.to_string(),
            transient: is_transient(error.errno),
            errno: error.errno,
        });
        (spawned, told)
    }

    /// From now on a child that was executed is one of ours.
    pub fn begin(&mut self, registry: &Registry, ready: Ready, spawned: Spawned, desk: &mut Desk) {
        let Ready { child: id, process, app, instance, since, since_wall, mark, out, err, .. } = ready;
        self.by_pid.insert(spawned.pid, id);
        self.begin_output(registry, (id, Stream::Stdout), out, &mut desk.shelf);
        self.begin_output(registry, (id, Stream::Stderr), err, &mut desk.shelf);
        self.changed.insert(id);
        self.living.insert(
            id,
            Box::new(Child {
                process,
                pid: spawned.pid,
                app,
                instance,
                since,
                since_wall,
                channel: ready.channel.map(|(ours, _)| messages::open(registry, id, ours, Vec::new())),
                node_version: None,
                axm: Axm::default(),
                topics: Vec::new(),
                lost: 0,
                words: Words::default(),
                refused: None,
                cpu_seen: None,
                sampled: Some((since, 0)),
                leak: Leak::default(),
                pidfd: spawned.pidfd.map(Kept::from),
                tail: Tail::default(),
                told_to_stop: false,
                killed: false,
                stdin: ready.input.and_then(|(_, inode)| inode),
                used: None,
                ended: None,
                generation: self.generation,
                orphan: false,
                start_ticks: spawned
                    .start_tick
                    .or_else(|| Some(proc::stat(spawned.pid)?.start_ticks))
                    .unwrap_or(0),
                mark,
                group: ready.group,
            }),
        );
    }
}

/// Whether it may pass by itself.
pub(super) fn is_transient(errno: i32) -> bool {
    matches!(
        errno,
        libc::EAGAIN
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::ETXTBSY
            | libc::ENOSPC
            | libc::EINTR
            | libc::EIO
    )
}

/// Its stdin, and the inode if that is a pipe of ours.
fn open_input(stdin: Stdin) -> Result<(OwnedFd, Option<u64>), Refused> {
    match stdin {
        Stdin::Null => Ok((no_input()?, None)),
        Stdin::Pipe => {
            let made = pipe::for_input();
            let (end, inode) = made.map_err(|e| Refused::means("make a pipe for its stdin", &e))?;
            Ok((end, Some(inode)))
        }
    }
}

/// A stdin that is at its end. An empty container has no /dev/null.
fn no_input() -> Result<OwnedFd, Refused> {
    match std::fs::File::open("/dev/null") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            shared_out::ended_input().map_err(|e| Refused::means("make a pipe", &e))
        }
        opened => Ok(opened.map_err(|e| Refused::means("open /dev/null", &e))?.into()),
    }
}

/// The number of the channel in the child, if it gets one.
fn channel_fd(app: &App) -> Option<i32> {
    match app.command.runtime {
        Runtime::Node | Runtime::Bun => Some(node::CHANNEL_FD),
        Runtime::Launcher if app.mode != Mode::Fork => Some(node::LAUNCHER_CHANNEL_FD),
        Runtime::Launcher | Runtime::Hook | Runtime::Other => None,
    }
}

fn environment(request: &Request, mark: &str) -> app::Env {
    let app = &request.app;
    let identity = Identity {
        id: request.process.0,
        instance: request.instance,
        created: request.created,
        home: request.home.path(),
        notify: request.notify,
        cluster: app.is_cluster(),
        mark,
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
fn programs(app: &App, env: &app::Env) -> Result<Vec<CString>, String> {
    let command = &app.command;
    let program = command.interpreter.as_ref().unwrap_or(&command.script);
    let at = |directory: &Path| c_string(directory.join(program.path()).into_os_string().into_vec());
    if program.bytes().contains(&b'/') {
        return Ok(vec![at(app.cwd.path())?]);
    }
    let path = env.get("PATH").cloned().unwrap_or_else(|| Text::from("/usr/local/bin:/usr/bin:/bin"));
    let directories = std::env::split_paths(&path).map(|directory| app.cwd.path().join(directory));
    directories.map(|directory| at(&directory)).collect()
}

fn argv(app: &App) -> Result<Vec<CString>, String> {
    let command = &app.command;
    let before = command.interpreter.iter().chain(&command.interpreter_args);
    let words = before.chain(std::iter::once(&command.script)).chain(&command.args);
    words.map(|word| c_string(word.bytes())).collect()
}

/// A whole environment, each entry `NAME=value`.
pub fn c_environment(env: &app::Env) -> Result<Vec<CString>, String> {
    let entry = |(name, value): (&Text, &Text)| {
        // With room for the NUL.
        let mut entry = Vec::with_capacity(name.bytes().len() + value.bytes().len() + 2);
        entry.extend_from_slice(name.bytes());
        entry.push(b'=');
        entry.extend_from_slice(value.bytes());
        c_string(entry)
    };
    env.0.iter().map(entry).collect()
}

/// A word as the kernel takes it.
pub fn c_string(word: impl Into<Vec<u8>>) -> Result<CString, String> {
    CString::new(word).map_err(|error| {
        format!("an argument holds a NUL byte: {:?}", String::from_utf8_lossy(&error.into_vec()))
    })
}
