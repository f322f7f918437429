//! argv decides: the command line, the web front, or a keeper and its daemon, which in a container runs apps by
//! itself.

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::process::ExitCode;

use pmx::cli::{self, DaemonRun, Run, WebRun};
use pmx::keeper::{self, Role};
use pmx::sys::inherit;
use pmx::sys::notify::Notify;
use pmx::{daemon, sys};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Run::Exit(code) => ExitCode::from(code),
        Run::CheckState(fd) => {
            let state = inherit::take(fd).map_err(|error| format!("read the state: {}", sys::reason(&error)));
            match state.and_then(daemon::check_state) {
                Ok(()) => {
                    println!("{}{}", daemon::CAN_GO_ON, env!("CARGO_PKG_VERSION"));
                    ExitCode::SUCCESS
                }
                Err(reason) => {
                    eprintln!("{reason}");
                    ExitCode::FAILURE
                }
            }
        }
        Run::Daemon(run) => match keep(run) {
            Ok(code) => code,
            Err(reason) => {
                eprintln!("pmx: {reason}");
                ExitCode::FAILURE
            }
        },
        Run::Web(run) => {
            let Err(reason) = serve(run);
            eprintln!("pmx: {reason}");
            ExitCode::FAILURE
        }
        Run::Runtime(run) => {
            inherit::close_others(&[]);
            match keeper::start(None) {
                // What is to run is in the keeper's memory, and so in that of each daemon.
                Ok(Role::Daemon(shared)) => daemon::runtime::main(&run.homes, run.container, shared),
                Ok(Role::Over(code)) => ExitCode::from(code),
                Err(reason) => {
                    eprintln!("pmx: {reason}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

#[cfg(feature = "web")]
fn serve(run: WebRun) -> Result<Infallible, String> {
    let WebRun { home, socket, token, address, hosts } = run;
    pmx::web::main(pmx::web::Options { home, socket, token, address, hosts })
}

#[cfg(not(feature = "web"))]
fn serve(_: WebRun) -> Result<Infallible, String> {
    Err("web: this pmx was built without the feature web".to_string())
}

fn keep(run: DaemonRun) -> Result<ExitCode, String> {
    // What the environment of a client says of a service manager is not meant for the daemon it starts.
    let by_client = run.lock_fd.is_some() || run.ready_fd.is_some();
    let mut passed = Vec::new();
    let board = match run.resume {
        // What a process left that became this one is all wanted.
        Some(fd) => {
            Some(inherit::take(fd).map_err(|error| format!("take over the board: {}", sys::reason(&error)))?)
        }
        None => {
            passed = inherit::passed();
            passed.retain(|_| !by_client);
            let ours = [run.lock_fd, run.ready_fd].into_iter().flatten();
            inherit::close_others(&ours.chain(passed.iter().map(|(_, fd)| *fd)).collect::<Vec<RawFd>>());
            None
        }
    };
    // It opens a socket: after that. A manager whom we cannot tell that we are ready gives us up: rather say
    // why at once.
    let notify = if by_client { Ok(Notify::default()) } else { Notify::of_process() };
    let notify = notify.map_err(|error| format!("reach the service manager: {}", sys::reason(&error)))?;
    if !run.foreground && board.is_none() {
        // Who leads a group already is not reached by the signals of a shell's job anyway.
        let _ = sys::users::new_session();
    }
    match keeper::start(board)? {
        Role::Daemon(shared) => {
            let DaemonRun { home, lock_fd: lock, ready_fd: ready, resurrect, .. } = run;
            Ok(daemon::main(daemon::Options { home, lock, ready, resurrect, notify, passed }, shared))
        }
        Role::Over(code) => {
            // A daemon that could not begin has closed it, in the table that we have in common.
            std::mem::forget(notify);
            Ok(ExitCode::from(code))
        }
    }
}
