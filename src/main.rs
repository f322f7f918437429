//! argv decides: the daemon, or the command line.

use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;

use pmx::cli::{self, DaemonRun, Run};
use pmx::daemon;
use pmx::sys::inherit;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().skip(1)) {
        Run::Exit(code) => ExitCode::from(code),
        Run::Daemon(run) => match options(run) {
            Ok(options) => daemon::main(options),
            Err(error) => {
                eprintln!("pmx: take over what was passed on: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn options(run: DaemonRun) -> std::io::Result<daemon::Options> {
    let passed: Vec<RawFd> = [run.lock_fd, run.ready_fd].into_iter().flatten().collect();
    inherit::close_others(&passed);
    let take = |fd: Option<RawFd>| -> std::io::Result<Option<OwnedFd>> { fd.map(inherit::take).transpose() };
    Ok(daemon::Options {
        home: run.home,
        foreground: run.foreground,
        lock: take(run.lock_fd)?,
        ready: take(run.ready_fd)?,
    })
}
