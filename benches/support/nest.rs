//! Around every bench: a process that takes in whatever the bench leaves behind, and ends it. Managers leave the
//! process that started them on purpose; as the subreaper above them all we meet them again.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::{self, program_of};

/// The first argument of the bench proper.
const NESTED: &str = "--nested";
/// What a manager that was told to end may take after the bench.
const GRACE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);

/// In the bench proper: nothing, and it goes on. In the process around it: how that ended.
pub fn enter() -> Option<ExitCode> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == NESTED) {
        // Should the process around us be killed, we end what is ours ourselves.
        let _ = prctl::set_pdeathsig(Signal::SIGTERM);
        return None;
    }
    arguments.insert(0, NESTED.into());
    let told_to_end = Arc::new(AtomicBool::new(false));
    for signal in [nix::libc::SIGINT, nix::libc::SIGTERM] {
        let _ = signal_hook::flag::register(signal, told_to_end.clone());
    }
    if let Err(error) = prctl::set_child_subreaper(true) {
        println!("take in what is left behind: {error}");
    }
    let own = std::env::current_exe();
    let bench = match own.and_then(|own| Command::new(own).args(arguments).spawn()) {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => {
            println!("start the bench: {error}");
            return Some(ExitCode::FAILURE);
        }
    };
    let code = loop {
        if told_to_end.swap(false, Ordering::Relaxed) {
            let _ = kill(bench, Signal::SIGTERM);
        }
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == bench => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == bench => {
                println!("the bench was ended by {signal}");
                break 1;
            }
            // What came to us is reaped at once: a manager's zombies are counted.
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {}
            _ => sleep(STEP),
        }
    };
    end_the_rest();
    process::remove_homes(bench.as_raw() as u32);
    let _ = std::io::stdout().flush();
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn end_the_rest() {
    let began = Instant::now();
    let own = std::process::id();
    let mut told = false;
    loop {
        while matches!(
            waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
        ) {}
        let rest: Vec<u32> = process::tree(&[own]).into_iter().filter(|pid| *pid != own).collect();
        if rest.is_empty() || began.elapsed() > LIMIT {
            return;
        }
        if began.elapsed() > GRACE {
            if !told {
                told = true;
                let names: Vec<String> = rest.iter().take(10).map(|pid| program_of(*pid)).collect();
                println!("left behind, and ended now: {} processes ({} …)", rest.len(), names.join(", "));
            }
            for pid in rest {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
        sleep(STEP);
    }
}
