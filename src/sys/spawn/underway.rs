//! A child that shares our memory, while we go on.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Acquire};

/// How long to sleep at a time. Old kernels do not tell of a child that was killed.
const LOOK: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Its drop waits until the child has left.
pub(super) struct Underway<'a> {
    pid: i32,
    inside: &'a AtomicU32,
}

impl Underway<'_> {
    /// A child that is there until `inside` is 0.
    pub(super) fn new(pid: i32, inside: &AtomicU32) -> Underway<'_> {
        Underway { pid, inside }
    }

    /// Whether it is a zombie.
    fn is_dead(&self) -> bool {
        // SAFETY: all zero is a `siginfo_t` that nobody filled in.
        let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: waitid writes one `siginfo_t`, a local, and leaves the child to be waited for.
        let done = unsafe { libc::waitid(libc::P_PID, self.pid as libc::id_t, &mut told, flags) };
        // SAFETY: of a child, or none, waitid fills in the pid.
        done < 0 || unsafe { told.si_pid() } == self.pid
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        while self.inside.load(Acquire) != 0 {
            let (at, wait) = (self.inside.as_ptr(), libc::FUTEX_WAIT);
            // SAFETY: the kernel reads 4 bytes of an atomic and the time. Not the private kind: who wakes us is another
            // process.
            unsafe { libc::syscall(libc::SYS_futex, at, wait, 1, &LOOK, ptr::null::<u32>(), 0) };
            if self.inside.load(Acquire) != 0 && self.is_dead() {
                break;
            }
        }
    }
}
