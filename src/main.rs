//! argv decides: the daemon, or the command line.

use std::process::ExitCode;

use pmx::cli::{self, Run};

fn main() -> ExitCode {
    match cli::run(std::env::args_os().skip(1)) {
        Run::Exit(code) => ExitCode::from(code),
        Run::Daemon(run) => daemon(&run),
    }
}

/// Stands in for `pmx::daemon::main` until it is here.
fn daemon(_run: &cli::DaemonRun) -> ExitCode {
    eprintln!("the daemon is not built yet");
    ExitCode::FAILURE
}
