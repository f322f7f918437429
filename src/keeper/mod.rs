//! The process above the daemon. It holds what must outlive a daemon and starts the next one: the same fd
//! table, so that nothing has to be handed over, and the children, which become its own when their daemon
//! dies. It takes in no message, parses nothing, and allocates nothing once it has begun.
//!
//! The daemon is a copy of it (clone without exec, with CLONE_FILES), so whatever a daemon dies of (SIGKILL, a
//! panic, SIGSEGV, no memory) the next one begins with clean memory, the fds of the last one under their
//! numbers, and the journal that it kept. In a container the keeper is PID 1.
//!
//! A later duty has its place in [`Keeper::keep`]: while there is no daemon, to answer a bind(2) that waits
//! on a seccomp notify fd, which is in the table too.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::sys::board::{CRASHED, NOT_NOW, Phase, Shared, Slot};
use crate::sys::clock;
use crate::sys::family::{self, Arguments, Look};
use crate::sys::memory;
use crate::sys::reap::{self, ExitStatus};
use crate::time::{Millis, Mono};

/// So many daemons in a row that died of themselves, young: the next one starts in safe mode.
const DEATHS: u32 = 5;
/// A daemon that lived so long does not die of what it was handed. (SIGKILL comes from outside at any age.)
const YOUNG: Millis = Millis(250);
/// How long the keeper waits before it starts another one when even safe mode does not live, or when something is
/// wanting.
const LAST_RESORT: Duration = Duration::from_secs(1);
/// How soon the keeper looks again at children that it had no room to report.
const NO_ROOM: Duration = Duration::from_millis(10);

/// What [`start`] made of the calling process.
#[derive(Debug)]
pub enum Role {
    /// A daemon, with what its keeper and it share.
    Daemon(Shared),
    /// The keeper, whose daemon has ended for good, with this exit code.
    Over(u8),
}

/// Makes the calling process a keeper and starts a daemon under it. Returns once in every daemon that is ever
/// started, and in the keeper when all is over. `left` is the board of a process that became this one.
///
/// Only while there is one thread, and before any signal handler is installed.
pub fn start(left: Option<OwnedFd>) -> Result<Role, String> {
    family::block_signals();
    let failed = |what: &str, error: std::io::Error| format!("{what}: {}", crate::sys::reason(&error));
    family::adopt_orphans().map_err(|error| failed("become the reaper of orphans", error))?;
    let shared = match left {
        Some(fd) => Shared::adopt(fd).map_err(|error| failed("take over the board", error))?,
        None => Shared::create().map_err(|error| failed("make a board", error))?,
    };
    if shared.board.fd(Slot::Wake).is_none() {
        let wake = family::eventfd().map_err(|error| failed("make an eventfd", error))?;
        // It belongs to the table now, and is closed with it.
        shared.board.set_fd(Slot::Wake, std::os::fd::IntoRawFd::into_raw_fd(wake));
    }
    shared.board.keeper.store(std::process::id() as i32, SeqCst);
    let again = ["pmx", "daemon", "--resume", &shared.fd.as_raw_fd().to_string()].map(String::from);
    let keeper =
        Keeper { arguments: Arguments::new(&again.each_ref().map(String::as_str)), shared, deaths: 0 };
    Ok(keeper.keep())
}

#[derive(Debug)]
struct Keeper {
    shared: Shared,
    /// For the program that the keeper may become.
    arguments: Arguments,
    /// Daemons in a row that died young.
    deaths: u32,
}

impl Keeper {
    /// Keeps a daemon alive until it ends of its own accord.
    fn keep(mut self) -> Role {
        loop {
            family::set_name(c"pmx-keeper");
            let daemon = match family::fork_with_fds() {
                Ok(None) => {
                    family::set_name(c"pmx");
                    return Role::Daemon(self.shared);
                }
                Ok(Some(pid)) => pid,
                // No memory or no pid: there will be.
                Err(_) => {
                    let _ = family::wait_signal(Some(LAST_RESORT)).map(|number| self.pass_on(number));
                    continue;
                }
            };
            let born = clock::mono();
            memory::forget_code();
            let status = self.watch(daemon);
            match self.shared.board.phase() {
                Phase::Ending => return self.over(status),
                // It could not even begin, and has said why.
                Phase::Starting if self.shared.board.journal.load(SeqCst) == 0 => {
                    return self.over(status);
                }
                Phase::Updating => {
                    self.shared.board.set_phase(Phase::Starting);
                    let path = self.shared.board.program();
                    let errno = family::become_program(path, &self.arguments);
                    self.shared.board.update_errno.store(errno, SeqCst);
                }
                Phase::Starting | Phase::Serving if self.shared.board.unproven.load(SeqCst) => self.go_back(),
                phase @ (Phase::Starting | Phase::Serving) => self.died(born, phase, status),
            }
            self.shared.board.generation.fetch_add(1, SeqCst);
        }
    }

    /// All is over. What is in the table may be closed by now: it is not for us to close.
    fn over(self, status: ExitStatus) -> Role {
        std::mem::forget(self.shared.fd);
        Role::Over(status.number() as u8)
    }

    /// Waits until the daemon ends. Meanwhile it reports the children that earlier daemons left, and passes
    /// signals on.
    fn watch(&self, daemon: i32) -> ExitStatus {
        loop {
            match family::look(daemon) {
                Look::Alive => {}
                // Whoever stopped it did not mean to stop the supervision of everything.
                Look::Stopped => family::send(daemon, libc::SIGCONT),
                Look::Ended(status) => return status,
                Look::Gone => return ExitStatus::Unknown,
            }
            let all = self.report(daemon);
            match family::wait_signal((!all).then_some(NO_ROOM)) {
                Some(libc::SIGCHLD) | None => {}
                Some(number) => self.pass_on(number),
            }
        }
    }

    /// Reaps children other than the daemon, and tells it. False: there was no room for all.
    fn report(&self, daemon: i32) -> bool {
        let board = self.shared.board;
        let mut reported = false;
        let all = loop {
            // The daemon's own end is found by its pid, not here.
            let Some(ended) = family::peek().filter(|ended| ended.pid != daemon) else { break true };
            if !board.left.has_room() {
                break false;
            }
            if let Some(reaped) = reap::reap_one(ended.pid) {
                board.left.push(&reaped);
                reported = true;
            }
        };
        if reported {
            self.wake();
        }
        all
    }

    /// A signal to the keeper is meant for the daemon, and waits on the board if there is none at present.
    fn pass_on(&self, number: i32) {
        if number != libc::SIGCHLD {
            self.shared.board.note_signal(number);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(wake) = self.shared.board.fd(Slot::Wake) {
            family::wake(wake);
        }
    }

    /// The first daemon of a new program died: we become again what we were.
    fn go_back(&self) {
        let board = self.shared.board;
        board.unproven.store(false, SeqCst);
        board.update_errno.store(CRASHED, SeqCst);
        if let Some(own) = board.fd(Slot::Program) {
            let mut path = *b"/proc/self/fd/0000000000\0";
            let digits = path.len() - 11;
            let mut number = own as u32;
            for at in (digits..digits + 10).rev() {
                path[at] = b'0' + (number % 10) as u8;
                number /= 10;
            }
            // Leading zeroes are no number to the kernel: the digits move to the front.
            let zeroes = path[digits..digits + 9].iter().take_while(|byte| **byte == b'0').count();
            path.copy_within(digits + zeroes.., digits);
            family::pass_on_all();
            if let Ok(path) = CStr::from_bytes_until_nul(&path) {
                family::become_program(path, &self.arguments);
            }
        }
    }

    /// A daemon died by accident. Too many of them, too young: then the next ones change nothing, until one
    /// that was told to update begins anew.
    fn died(&mut self, born: Mono, phase: Phase, status: ExitStatus) {
        if status == ExitStatus::Code(NOT_NOW) {
            let _ = family::wait_signal(Some(LAST_RESORT)).map(|number| self.pass_on(number));
            return;
        }
        let killed = matches!(status, ExitStatus::Signal { number: libc::SIGKILL, .. });
        if clock::mono().since(born) >= YOUNG || killed && phase == Phase::Serving {
            self.deaths = 0;
            return;
        }
        self.deaths += 1;
        if self.deaths >= DEATHS
            && self.shared.board.safe.swap(true, SeqCst)
            && let Some(number) = family::wait_signal(Some(LAST_RESORT))
        {
            self.pass_on(number);
        }
    }
}
