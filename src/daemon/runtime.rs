//! The daemon as the first process of a container: it starts its apps by itself, hands signals on, knows when
//! the container is over, and with which exit code.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;

use nix::unistd::{Pid, setpgid};
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::event_loop::{Beginning, Daemon, Instruments};
use super::home::{Home, Stream};
use super::journal::Journal;
use super::manager::Manager;
use super::record::Left;
use super::resume::{self, Found};
use super::sink::{self, Sink};
use super::source::Progress;
use crate::app::{App, Container, ExitOn, Format, NOT_EXECUTABLE, NOT_FOUND, Text};
use crate::protocol::{Existing, Status};
use crate::supervisor::{Command, Input, ProcId, Process, State, same_app};
use crate::sys::board::{self, Shared, Slot};
use crate::sys::signals::{self, Signal};
use crate::sys::{clock, failpoint, lock, memory, users};
use crate::time::{Millis, Mono};

/// So much of the grace period is ours, to end in.
const MARGIN: Millis = Millis(1_000);
/// What a second signal leaves to those that have not ended.
const HURRY: Millis = Millis(1_000);

/// What the daemon knows as the first process of a container.
#[derive(Debug)]
pub struct Runtime {
    container: Container,
    is_single: bool,
    sink: Sink,
    /// Something ended since the exit policy was asked last.
    has_news: bool,
    is: ContainerRecord,
    /// That changed since the journal was last told.
    has_changed: bool,
}

/// How far the container is from its end: what one daemon leaves to the next. What was declared is in the
/// memory of each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRecord {
    /// The place that was found; empty: there is none.
    home: Text,
    /// The apps were started.
    begun: bool,
    phase: Phase,
    /// The last end of each process.
    ends: BTreeMap<ProcId, Ended>,
    /// The signal that asked for the end.
    asked_by: Option<i32>,
    /// What the exit policy came to.
    decided: Option<u8>,
}

/// How far the container is from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    #[default]
    Serving,
    /// Told to end, and serving on while the word spreads.
    Delaying { until: Mono, deadline: Mono },
    /// All apps were told to stop.
    Stopping { deadline: Mono },
    /// And what is left of them is killed any moment.
    Hurrying,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ended {
    /// The how-manieth end of all.
    order: usize,
    code: u8,
    /// It had been told to.
    asked: bool,
}

/// Runs a container until it is over: its first daemon, or the next one after another, of which `shared` tells.
pub fn main(homes: &[PathBuf], container: Container, shared: Shared) -> ExitCode {
    let board = shared.board;
    let over = |code: u8| -> ! {
        board.set_phase(board::Phase::Ending);
        // What is still open is closed with the table, when the keeper has ended too.
        std::process::exit(i32::from(code))
    };
    let first = board.journal.load(SeqCst) == 0;
    let give_up = || -> ! {
        if !first && !board.safe.load(SeqCst) {
            // It may pass: the keeper starts another one.
            std::process::exit(1);
        }
        over(1)
    };
    let sink = match Sink::open(container.format) {
        Ok(sink) => sink,
        Err(error) => {
            eprintln!("pmx: use stdout and stderr: {}", crate::sys::reason(&error));
            give_up()
        }
    };
    log_to(&sink, container.is_single());
    super::abort_on_panic();
    memory::return_large();
    // A terminal sends its signals to a whole group: the keeper gets them for us.
    if let Err(error) = setpgid(Pid::from_raw(0), Pid::from_raw(0)) {
        ::log::debug!("lead a group: {error}");
    }
    let begun = if first {
        set_up(homes, container, sink.clone(), shared)
    } else if board.safe.load(SeqCst) {
        // Whoever runs the container starts it anew, which is more than we could do.
        Err("too many daemons died too soon: the container ends".to_string())
    } else {
        go_on(container, sink.clone(), shared)
    };
    let code = match begun {
        Ok((mut daemon, home)) => {
            board.set_phase(board::Phase::Serving);
            daemon.run(false);
            daemon.children.leave(&daemon.home, clock::mono());
            if !home.is_nowhere() {
                daemon.leave();
            }
            daemon.exit_code()
        }
        Err(reason) => {
            ::log::error!("{reason}");
            sink.finish();
            give_up()
        }
    };
    sink.finish();
    over(code)
}

fn set_up(
    homes: &[PathBuf],
    container: Container,
    sink: Sink,
    shared: Shared,
) -> Result<(Daemon, Home), String> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let instruments = Instruments::new(true)?;
    let home = match settle(homes) {
        Some((home, lock)) => {
            // It is held by the table, as long as there is a keeper or a daemon.
            shared.board.set_fd(Slot::Lock, lock.into_raw_fd());
            home
        }
        None => Home::nowhere(),
    };
    let control = if home.is_nowhere() { None } else { Some(Control::open(&home.socket())?) };
    // In memory: when the keeper ends, nothing is left to go on with.
    let journal = Journal::create(shared.board, None)
        .map_err(|error| format!("begin a journal: {}", crate::sys::reason(&error)))?;
    let is = ContainerRecord { home: Text::from(home.path()), ..ContainerRecord::default() };
    let runtime = Some(Runtime::new(container, sink, is));
    let (left, found) = (Left::default(), Vec::new());
    let manager = Manager::default();
    let beginning = Beginning { instruments, shared, left, control, found, journal, manager, runtime };
    let mut daemon = Daemon::begin_with(home.clone(), beginning);
    daemon.catch_up();
    Ok((daemon, home))
}

fn go_on(container: Container, sink: Sink, shared: Shared) -> Result<(Daemon, Home), String> {
    failpoint::born(shared.board.generation.load(SeqCst).max(1));
    let mut found = match Found::look(shared.board, true) {
        Ok(found) => found,
        Err(reason) => {
            // It is the next one's as well.
            std::mem::forget(shared);
            return Err(reason);
        }
    };
    for line in &found.unreadable {
        ::log::error!("{}: {}", line.reason, String::from_utf8_lossy(&line.line));
    }
    let is = found.left.container.take().ok_or("the journal does not tell of a container")?;
    let home = match is.home.bytes() {
        [] => Home::nowhere(),
        _ => match Home::resume(is.home.path().to_path_buf()) {
            Ok(home) => home,
            Err(reason) => {
                std::mem::forget((found, shared));
                return Err(reason);
            }
        },
    };
    let runtime = Some(Runtime::new(container, sink, is));
    let above = resume::Above { manager: Manager::default(), runtime };
    let daemon = resume::go_on(found, &home, shared, above);
    Ok((daemon, home))
}

/// What a single app writes is all that people expect to see.
fn log_to(sink: &Sink, quiet: bool) {
    let level = if quiet { ::log::LevelFilter::Warn } else { ::log::LevelFilter::Info };
    let format = sink.format();
    let started = env_logger::Builder::new()
        .filter_level(level)
        .parse_env("PMX_LOG")
        .target(env_logger::Target::Pipe(Box::new(sink.outlet(Stream::Stderr).clone())))
        .format(move |line, record| {
            let (at, level, text) = (clock::wall(), record.level(), record.args());
            match format {
                Format::Raw => writeln!(line, "{at} {level}: pmx: {text}"),
                Format::Json => {
                    let text = format!("{level}: {text}");
                    line.write_all(&sink::record(&text, &at.to_string(), "pmx", None, "pmx"))
                }
            }
        })
        .try_init();
    if let Err(error) = started {
        eprintln!("pmx: start logging: {error}");
    }
}

/// The first directory that can be ours, and its lock. What an earlier life of the container left in it
/// does not matter: the lock died with it.
fn settle(homes: &[PathBuf]) -> Option<(Home, File)> {
    for path in homes {
        match settle_in(path) {
            Ok(found) => return Some(found),
            Err(reason) => ::log::debug!("not in {}: {reason}", path.display()),
        }
    }
    let tried: Vec<_> = homes.iter().map(|path| path.display().to_string()).collect();
    ::log::warn!(
        "no place for a control socket (tried {}): commands such as pmx list do not work",
        tried.join(", ")
    );
    None
}

fn settle_in(path: &Path) -> Result<(Home, File), String> {
    let failed = |error: std::io::Error| crate::sys::reason(&error);
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // A link could lead anywhere: some of these places are open to everybody.
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() || found.uid() != users::effective_uid() {
        return Err("it is not a directory of ours".to_string());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    let lock = lock::open(&path.join("pmx.lock")).map_err(failed)?;
    if !lock::try_lock(&lock).map_err(failed)? {
        return Err("a daemon serves it".to_string());
    }
    let home = Home::bare(path.to_path_buf())?;
    if let Err(error) = home.write_pid(std::process::id()) {
        ::log::debug!("write {}: {error}", home.pid_file().display());
    }
    Ok((home, lock))
}

impl Runtime {
    fn new(container: Container, sink: Sink, is: ContainerRecord) -> Runtime {
        // The daemon before us may not have come to ask.
        Runtime { is_single: container.is_single(), container, sink, has_news: true, is, has_changed: true }
    }

    /// How far we are, to be changed.
    fn change(&mut self) -> &mut ContainerRecord {
        self.has_changed = true;
        &mut self.is
    }

    /// For the journal: what changed since it was last told, or all of it.
    pub fn take_record(&mut self, everything: bool) -> Option<ContainerRecord> {
        let has_changed = std::mem::take(&mut self.has_changed);
        (has_changed || everything).then(|| self.is.clone())
    }

    /// Where the output of children goes.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Whether there is but one process, to which stdin, stdout and the terminal belong.
    pub fn is_single(&self) -> bool {
        self.is_single
    }

    /// When the loop must look again.
    pub fn deadline(&self) -> Option<Mono> {
        match self.is.phase {
            Phase::Serving | Phase::Hurrying => None,
            Phase::Delaying { until, deadline } => Some(until.min(deadline)),
            Phase::Stopping { deadline } => Some(deadline),
        }
    }

    fn note(&mut self, process: ProcId, code: u8, asked: bool) {
        let order = self.is.ends.values().map(|end| end.order + 1).max().unwrap_or(0);
        self.change().ends.insert(process, Ended { order, code, asked });
    }

    /// The exit code of the container, once everything is down.
    fn exit_code(&self) -> u8 {
        if let Some(code) = self.is.decided {
            return code;
        }
        // Several apps that were told to end have no code in common.
        if self.container.apps.len() > 1 {
            return 0;
        }
        let mut ends: Vec<&Ended> = self.is.ends.values().collect();
        ends.sort_by_key(|end| end.order);
        match (ends.iter().find(|end| end.code != 0), self.is.asked_by) {
            (Some(end), _) => end.code,
            (None, Some(signal)) if ends.is_empty() => 128 + signal as u8,
            (None, _) => 0,
        }
    }
}

/// The fate of one app, as far as it came down by itself.
struct Over<'a> {
    app: &'a App,
    order: usize,
    code: u8,
}

/// What the exit policy says: `None` as long as the container goes on. An app is over when each of its
/// processes ended by itself and stays down; one that was stopped by a command is not.
fn verdict(processes: &[&Process], ends: &BTreeMap<ProcId, Ended>, exit_on: ExitOn) -> Option<u8> {
    let over = |process: &&Process| ends.get(&process.id).filter(|end| process.is_down() && !end.asked);
    let mut overs: Vec<Over> = Vec::new();
    let mut is_all = true;
    for process in processes {
        if overs.iter().any(|seen| same_app(seen.app, &process.app)) {
            continue;
        }
        let siblings = processes.iter().filter(|other| other.is_sibling_of(&process.app));
        let Some(mut ended) = siblings.map(over).collect::<Option<Vec<&Ended>>>() else {
            is_all = false;
            continue;
        };
        ended.sort_by_key(|end| end.order);
        let code = ended.iter().map(|end| end.code).find(|code| *code != 0).unwrap_or(0);
        overs.push(Over { app: &process.app, order: ended.last()?.order, code });
    }
    overs.sort_by_key(|app| app.order);
    let first = match exit_on {
        ExitOn::Any => overs.first(),
        ExitOn::Critical => overs.iter().find(|over| over.app.critical),
        ExitOn::All => None,
    };
    match first {
        Some(first) => Some(first.code),
        None if is_all && !overs.is_empty() => {
            Some(overs.iter().map(|over| over.code).find(|code| *code != 0).unwrap_or(0))
        }
        None => None,
    }
}

impl Daemon {
    /// Starts the apps of the container. A signal to end that came before that is heeded instead.
    pub(super) fn begin(&mut self) {
        if self.runtime.is_none() {
            return;
        }
        let _ = self.take_wake();
        let _ = self.take_signals();
        let Some(runtime) = &mut self.runtime else { return };
        if runtime.is.phase != Phase::Serving || runtime.is.begun {
            return;
        }
        runtime.change().begun = true;
        let apps = std::mem::take(&mut runtime.container.apps);
        let inherit = std::mem::take(&mut runtime.container.inherit);
        runtime.container.apps.clone_from(&apps);
        match self.checked(apps, inherit) {
            Ok(apps) => {
                self.decide(Command::Start(apps, Existing::Force));
            }
            Err(reason) => {
                ::log::error!("{reason}");
                self.finish(1);
            }
        }
    }

    fn decide(&mut self, command: Command) {
        let op = self.new_op();
        self.supervisor.handle(self.now, Input::Command { op, command });
    }

    /// A signal to the first process of a container.
    pub(super) fn container_signal(&mut self, signal: Signal) {
        let Some(runtime) = &self.runtime else { return };
        match signal {
            Signal::Terminate => self.wind_down(libc::SIGTERM),
            Signal::Interrupt => self.wind_down(libc::SIGINT),
            Signal::Quit => self.wind_down(libc::SIGQUIT),
            Signal::Hangup if runtime.is_single => self.forward(libc::SIGHUP),
            Signal::Hangup => {
                ::log::info!("SIGHUP: reloading all apps");
                self.decide(Command::Reload(vec!["all".to_string()], Box::default(), 1));
            }
            Signal::User1 => self.forward(libc::SIGUSR1),
            Signal::User2 => self.forward(libc::SIGUSR2),
            Signal::Window => self.forward(libc::SIGWINCH),
            Signal::Other(number) => ::log::warn!("{} is ignored", signals::name(number)),
            Signal::Child => {}
        }
    }

    fn forward(&mut self, signal: i32) {
        self.decide(Command::Signal(vec!["all".to_string()], signal));
    }

    /// Each signal to end goes one step further.
    fn wind_down(&mut self, signal: i32) {
        let Some(runtime) = &mut self.runtime else { return };
        let name = signals::name(signal);
        if runtime.is.asked_by.is_none() {
            runtime.change().asked_by = Some(signal);
        }
        match runtime.is.phase {
            Phase::Serving => {
                let deadline = self.now + Millis(runtime.container.grace.0.saturating_sub(MARGIN.0));
                let delay = runtime.container.drain_delay;
                if delay == Millis(0) || self.supervisor.processes().next().is_none() {
                    ::log::info!("{name}: stopping everything");
                    return self.stop_all(deadline);
                }
                ::log::info!("{name}: serving on for {} ms, then stopping everything", delay.0);
                runtime.change().phase = Phase::Delaying { until: self.now + delay, deadline };
            }
            Phase::Delaying { deadline, .. } => {
                ::log::info!("{name} again: stopping everything now");
                self.stop_all(deadline);
            }
            Phase::Stopping { .. } => {
                ::log::info!("{name} again: what is left has {} ms", HURRY.0);
                runtime.change().phase = Phase::Hurrying;
                self.decide(Command::Hasten(HURRY));
            }
            Phase::Hurrying => self.decide(Command::Hasten(Millis(0))),
        }
    }

    fn stop_all(&mut self, deadline: Mono) {
        if let Some(runtime) = &mut self.runtime {
            runtime.change().phase = Phase::Stopping { deadline };
        }
        self.decide(Command::ShutdownGently);
    }

    /// The container is over: what still runs is stopped, and this is its exit code.
    fn finish(&mut self, code: u8) {
        let Some(runtime) = &mut self.runtime else { return };
        runtime.change().decided = Some(code);
        let deadline = match runtime.is.phase {
            Phase::Delaying { deadline, .. } => deadline,
            _ => self.now + Millis(runtime.container.grace.0.saturating_sub(MARGIN.0)),
        };
        self.stop_all(deadline);
    }

    /// A child of a process is gone.
    pub(super) fn container_ended(&mut self, child: crate::supervisor::ChildId, code: i32) {
        let Some(runtime) = &mut self.runtime else { return };
        runtime.has_news = true;
        let process = self.supervisor.owner(child).and_then(|id| self.supervisor.process(id));
        if let Some(process) = process.filter(|process| process.child() == Some(child)) {
            let asked = match process.state {
                // What ended is not its program.
                State::Cleaning { .. } => return,
                State::Preparing { .. } if code == 0 => return,
                State::Stopping(_) => true,
                _ => false,
            };
            runtime.note(process.id, code as u8, asked);
        }
    }

    /// A child of a process could not be started.
    pub(super) fn container_failed(&mut self, process: ProcId, errno: i32) {
        let Some(runtime) = &mut self.runtime else { return };
        runtime.has_news = true;
        let absent = matches!(errno, libc::ENOENT | libc::ENOTDIR);
        runtime.note(process, if absent { NOT_FOUND } else { NOT_EXECUTABLE }, false);
    }

    /// What is due, and what the ends of this round mean. True: there is more to perform.
    pub(super) fn look_at_container(&mut self) -> bool {
        let Some(runtime) = &mut self.runtime else { return false };
        match runtime.is.phase {
            Phase::Delaying { until, deadline } if until.min(deadline) <= self.now => {
                ::log::info!("stopping everything");
                self.stop_all(deadline);
                true
            }
            Phase::Stopping { deadline } if deadline <= self.now => {
                ::log::warn!("the grace period is over: what is left is killed");
                runtime.change().phase = Phase::Hurrying;
                self.decide(Command::Hasten(Millis(0)));
                self.supervisor.handle_timers(self.now);
                true
            }
            Phase::Serving | Phase::Delaying { .. } if std::mem::take(&mut runtime.has_news) => {
                let processes: Vec<&Process> = self.supervisor.processes().collect();
                let Some(code) = verdict(&processes, &runtime.is.ends, runtime.container.exit_on) else {
                    return false;
                };
                ::log::info!("the container is over, with exit code {code}");
                self.finish(code);
                true
            }
            _ => false,
        }
    }

    /// The daemon's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        self.runtime.as_ref().map_or(0, Runtime::exit_code)
    }

    /// Our own stdout or stderr takes more.
    pub(super) fn flush_sink(&mut self, stream: Stream) -> Progress {
        if let Some(lost) = self.runtime.as_ref().and_then(|runtime| runtime.sink.flush(stream)) {
            ::log::warn!("{lost} bytes for {stream:?} were lost: nobody took them in time");
        }
        Progress::Drained
    }

    /// Whether the apps serve, and will for a while: a sentence if not.
    pub(super) fn health(&self, app: Option<&str>) -> Result<(), String> {
        let is_ending = self.runtime.as_ref().is_some_and(|runtime| runtime.is.phase != Phase::Serving);
        if is_ending || self.supervisor.is_shutting_down() {
            return Err("the container is stopping".to_string());
        }
        let targets = [app.unwrap_or("all").to_string()];
        for process in self.supervisor.select(&targets)?.iter().filter_map(|id| self.supervisor.process(*id))
        {
            let status = process.status();
            if !matches!(status, Status::Online | Status::Scheduled) {
                let reason = process.reason.as_ref().map(|reason| format!(" ({reason})"));
                return Err(format!(
                    "{}({}) is {}{}",
                    process.app.name,
                    process.id.0,
                    status.word(),
                    reason.unwrap_or_default()
                ));
            }
            if !process.is_healthy() {
                let checks = process.vitals.checks.as_ref();
                let error = checks.and_then(|checks| checks.error.as_deref()).unwrap_or("not checked yet");
                return Err(format!("{}({}) is not healthy: {error}", process.app.name, process.id.0));
            }
        }
        Ok(())
    }
}
