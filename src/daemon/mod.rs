//! The shell around the decisions: one thread, one epoll. It performs what the supervisor decides and tells
//! it what happened.
//!
//! `event_loop` is the loop; `source` what can become ready; `perform` carries actions out; `children` and
//! `channel` are the living processes; `log` moves their output; `primary` shares ports among Node
//! workers, `share` is one such port; `control` and `requests` serve clients; `views` is what those see.

mod channel;
mod children;
mod control;
mod event_loop;
mod home;
mod log;
mod perform;
mod primary;
mod requests;
mod share;
mod source;
mod views;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use event_loop::Daemon;
use home::Home;

use crate::sys::{clock, lock};

/// How a daemon is started.
#[derive(Debug, Default)]
pub struct Options {
    /// The home.
    pub home: PathBuf,
    /// Stay in the session of whoever started us.
    pub foreground: bool,
    /// The lock of the home, if whoever started us holds it and passes it on.
    pub lock: Option<OwnedFd>,
    /// Where to say `ok` once clients are served, or why not.
    pub ready: Option<OwnedFd>,
}

/// Runs a daemon until it is told to end.
pub fn main(options: Options) -> ExitCode {
    log_to_stderr();
    if !options.foreground
        && let Err(error) = nix::unistd::setsid()
    {
        // We lead a group already: then a terminal's signals do not reach us by way of a shell's job.
        ::log::debug!("start a session: {error}");
    }
    let mut ready = options.ready.map(File::from);
    let mut tell = |line: &str| {
        if let Some(mut ready) = ready.take()
            && let Err(error) = writeln!(ready, "{line}")
        {
            ::log::debug!("tell who started us: {error}");
        }
    };
    match set_up(options.home, options.lock) {
        Ok((daemon, home, lock)) => {
            tell("ok");
            ::log::info!("pmx {} serves {}", env!("CARGO_PKG_VERSION"), home.path().display());
            daemon.run();
            // In this order: who finds the lock free finds no trace of us.
            let _ = std::fs::remove_file(home.socket());
            let _ = std::fs::remove_file(home.pid_file());
            ::log::info!("ended");
            drop(lock);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            ::log::error!("{reason}");
            tell(&reason);
            ExitCode::FAILURE
        }
    }
}

fn set_up(home: PathBuf, passed: Option<OwnedFd>) -> Result<(Daemon, Home, File), String> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    std::fs::create_dir_all(&home)
        .map_err(|error| format!("create {}: {}", home.display(), crate::sys::reason(&error)))?;
    let path = home.join("pmx.lock");
    let lock = match passed {
        Some(lock) => File::from(lock),
        None => {
            let lock = lock::open(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
            match lock::try_lock(&lock) {
                Ok(true) => lock,
                Ok(false) => return Err(format!("a daemon already serves {}", home.display())),
                Err(error) => return Err(format!("lock {}: {error}", path.display())),
            }
        }
    };
    let home = Home::prepare(home)?;
    if let Err(error) = home.write_pid(std::process::id()) {
        ::log::warn!("write {}: {error}", home.pid_file().display());
    }
    let daemon = Daemon::set_up(home.clone())?;
    Ok((daemon, home, lock))
}

fn log_to_stderr() {
    let started = env_logger::Builder::new()
        .filter_level(::log::LevelFilter::Info)
        .parse_env("PMX_LOG")
        .format(|line, record| writeln!(line, "{} {}: {}", clock::wall(), record.level(), record.args()))
        .try_init();
    if let Err(error) = started {
        eprintln!("pmx: start logging: {error}");
    }
}
