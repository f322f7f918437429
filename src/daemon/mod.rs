//! The shell around the decisions: one thread, one epoll. It performs what the supervisor decides and tells
//! it what happened.
//!
//! `event_loop` is the loop; `source` what can become ready; `perform` carries actions out, `starts` those that start children; `children` and
//! `channel` are the living processes, `conversation` is what workers say, `ends` what follows from an end; `log` moves their output; `primary` shares ports among Node
//! workers, `share` is one such port; `manager` is the service manager above us; `control` and `requests` serve
//! clients; `views` is what those see; `memo` writes down what must outlive this process, `record` is what it
//! says, `update` hands it to another program, `journal` where it stands, `resume` how the next one begins;
//! `watch` has the kernel tell what is ready; `helper` starts what would hold up the loop; `tidy` has old logs looked after; `alert` tells whom an app names for what
//! happens to it; `autosave` has what was declared written to disk; `pid_files` tell others of process ids; `sampling`
//! notes what processes use, in `segments`; `runtime` is what is different in a container, and `sink`
//! where its output goes.

mod alert;
mod autosave;
mod bounds;
mod bus;
mod channel;
mod check;
mod children;
mod containment;
mod control;
mod conversation;
mod ends;
mod event_loop;
mod helper;
mod history;
mod home;
mod host;
mod journal;
mod log;
mod manager;
mod memo;
mod notify;
mod own_log;
mod perform;
mod pid_files;
mod primary;
mod record;
mod requests;
mod resume;
pub mod runtime;
mod sampling;
mod segments;
mod share;
mod sink;
mod source;
mod starts;
mod store;
mod tidy;
mod triggers;
mod update;
mod views;
mod watch;

use std::fs::File;
use std::io::Write;
use std::os::fd::{IntoRawFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;

pub use update::{CAN_GO_ON, check_state};

use control::Control;
use event_loop::{Beginning, Daemon, Instruments};
use home::Home;
use journal::Journal;
use manager::Manager;
use own_log::OwnLog;

use crate::sys::board::{NOT_NOW, Phase, Shared, Slot};
use crate::sys::notify::Notify;
use crate::sys::{clock, failpoint, inherit, lock, memory};

/// How a daemon is started.
#[derive(Debug, Default)]
pub struct Options {
    /// The home.
    pub home: PathBuf,
    /// The lock of the home, if whoever started us holds it and passes it on.
    pub lock: Option<RawFd>,
    /// Where to say `ok` once clients are served, or why not.
    pub ready: Option<RawFd>,
    /// Start the saved apps, before the service manager hears that we are ready.
    pub resurrect: bool,
    /// The service manager that started us.
    pub notify: Notify,
    /// What it passed on, by name.
    pub passed: Vec<(String, RawFd)>,
}

/// Runs a daemon until it is told to end: a first one, or the next one after another, of which `shared` tells.
pub fn main(mut options: Options, shared: Shared) -> ExitCode {
    log_to_stderr(options.home.join("pmx.log"));
    abort_on_panic();
    memory::return_large();
    let board = shared.board;
    let first = board.journal.load(SeqCst) == 0;
    failpoint::born(board.generation.load(SeqCst).max(u32::from(!first)));
    let mut ready = options.ready.filter(|_| first).and_then(|fd| inherit::take(fd).ok()).map(File::from);
    let mut tell = |line: &str| {
        if let Some(mut ready) = ready.take()
            && let Err(error) = writeln!(ready, "{line}")
        {
            ::log::debug!("tell who started us: {error}");
        }
    };
    let resurrect = options.resurrect && first;
    let notify = std::mem::take(&mut options.notify);
    if let Some(fd) = notify.fd() {
        board.set_fd(Slot::Notify, fd);
    }
    let manager = Manager::new(notify, clock::mono());
    let begun = match first {
        true => set_up(options, manager, shared),
        false => resume::resume(options.home, manager, shared),
    };
    match begun {
        Ok((mut daemon, home)) => {
            board.set_phase(Phase::Serving);
            tell("ok");
            ::log::info!("pmx {} serves {}", env!("CARGO_PKG_VERSION"), home.path().display());
            daemon.keep_memory();
            daemon.run(resurrect);
            daemon.end_outputs();
            daemon.children.leave(&daemon.home, clock::mono());
            board.set_phase(Phase::Ending);
            // In this order: who finds the lock free finds no trace of us.
            daemon.leave();
            if let Ok(Some(state)) = home.state() {
                let _ = std::fs::remove_dir_all(state);
            }
            ::log::info!("ended");
            // What is still open is closed with the table, when the keeper has ended too.
            std::process::exit(0)
        }
        Err(reason) => {
            ::log::error!("{reason}");
            tell(&reason);
            // It has touched nothing that the next one needs.
            std::process::exit(if first { 1 } else { NOT_NOW })
        }
    }
}

fn set_up(options: Options, manager: Manager, shared: Shared) -> Result<(Daemon, Home), String> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let home = options.home;
    std::fs::create_dir_all(&home)
        .map_err(|error| format!("create {}: {}", home.display(), crate::sys::reason(&error)))?;
    let path = home.join("pmx.lock");
    let lock = match options.lock {
        Some(fd) => File::from(
            inherit::take(fd)
                .map_err(|error| format!("take over the lock: {}", crate::sys::reason(&error)))?,
        ),
        None => {
            let lock = lock::open(&path)
                .map_err(|error| format!("open {}: {}", path.display(), crate::sys::reason(&error)))?;
            match lock::try_lock(&lock) {
                Ok(true) => lock,
                Ok(false) => return Err(format!("a daemon already serves {}", home.display())),
                Err(error) => return Err(format!("lock {}: {}", path.display(), crate::sys::reason(&error))),
            }
        }
    };
    // It is held by the table, as long as there is a keeper or a daemon.
    shared.board.set_fd(Slot::Lock, lock.into_raw_fd());
    let home = Home::prepare(home)?;
    begin_in(&home, options.passed, manager, shared).map(|daemon| (daemon, home.clone())).inspect_err(|_| {
        home.leave();
        // What children of an earlier daemon are known by stays for the next one.
        if let Ok(Some(state)) = home.state() {
            let _ = std::fs::remove_dir(state);
        }
    })
}

fn begin_in(
    home: &Home,
    passed: Vec<(String, RawFd)>,
    mut manager: Manager,
    mut shared: Shared,
) -> Result<Daemon, String> {
    write_pid(home);
    let instruments = Instruments::new(false)?;
    let control = Control::open(&home.socket())?;
    let state = home.state()?;
    let mut left = match &state {
        Some(state) => resume::find_again(home, state)?.unwrap_or_default(),
        None => record::Left::default(),
    };
    let take = |(name, fd): (String, RawFd)| Some((name, inherit::take(fd).ok()?));
    let mut passed = passed.into_iter().filter_map(take).collect();
    let mut stored = store::stored(&mut passed);
    left.find_again(home, &mut stored)?;
    manager.give_up(stored.into_keys());
    if !left.children.is_empty() {
        ::log::info!(
            "the last daemon and its keeper were killed: {} of its children live",
            left.children.len()
        );
        resume::find_output_again(home, &mut shared);
    }
    let journal = Journal::create(shared.board, state.as_deref())
        .map_err(|error| format!("begin a journal: {}", crate::sys::reason(&error)))?;
    let found = Vec::new();
    let control = Some(control);
    let beginning = Beginning { instruments, shared, left, control, found, journal, manager, runtime: None };
    let mut daemon = Daemon::begin_with(home.clone(), beginning);
    daemon.adopt(passed);
    daemon.catch_up();
    Ok(daemon)
}

fn write_pid(home: &Home) {
    if let Err(error) = home.write_pid(std::process::id()) {
        ::log::warn!("write {}: {error}", home.pid_file().display());
    }
}

/// A panic must not unwind: that would close what the next daemon needs.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        ::log::error!("{panic}");
        std::process::abort();
    }));
}

fn log_to_stderr(file: PathBuf) {
    let own = OwnLog::new(file);
    let started = env_logger::Builder::new()
        .filter_level(::log::LevelFilter::Info)
        .parse_env("PMX_LOG")
        .format(move |line, record| {
            if let Some(fault) = own.look() {
                writeln!(line, "{} WARN: {fault}", clock::wall())?;
            }
            writeln!(line, "{} {}: {}", clock::wall(), record.level(), record.args())
        })
        .try_init();
    if let Err(error) = started {
        eprintln!("pmx: start logging: {error}");
    }
}
