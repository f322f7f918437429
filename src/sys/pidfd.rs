//! Signalling a child without hitting a stranger who got its pid.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::reap::ExitStatus;

/// Sends `signal` to one child. With a pidfd it can only ever reach that child; without one (old kernel,
/// sandbox) it goes to the pid, which is safe as long as the child has not been reaped.
/// ESRCH: it has been reaped. A zombie takes any signal and does nothing.
pub fn send(pidfd: Option<BorrowedFd>, pid: i32, signal: i32) -> io::Result<()> {
    if let Some(pidfd) = pidfd {
        match send_flagged(pidfd, signal, 0) {
            // Refused as a call; a refusal of this very signal will be repeated by kill.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            done => return done,
        }
    }
    kill(pid, signal)
}

/// As [`send`], by the pidfd alone.
pub fn send_held(pidfd: BorrowedFd, signal: i32) -> io::Result<()> {
    send_flagged(pidfd, signal, 0)
}

/// Sends `signal` to every member of the process group that the process behind `pidfd` leads or led, and to nobody
/// else, whoever has its number by now. EINVAL: the kernel cannot (before 6.9).
pub fn send_group_held(pidfd: BorrowedFd, signal: i32) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    send_flagged(pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP)
}

fn send_flagged(pidfd: BorrowedFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal takes integers and a null info, and touches no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, flags) })
}

/// Sends `signal` to every member of the process group that child `pid` leads. Only while the leader is
/// unreaped or another member is known to live: a group id is free again with its last member.
/// ESRCH: the group is empty.
pub fn send_group(pid: i32, signal: i32) -> io::Result<()> {
    kill(-pid, signal)
}

/// Whether the process group that `pid` led has members, an unreaped leader included.
pub fn group_alive(pid: i32) -> bool {
    // Members of another user are members.
    !matches!(kill(-pid, 0), Err(e) if e.raw_os_error() == Some(libc::ESRCH))
}

/// Whether the process behind a pidfd has ended, reaped or not.
pub fn has_ended(pidfd: BorrowedFd) -> bool {
    !matches!(super::pipe::state(pidfd), Ok(super::pipe::State::Empty))
}

/// A pidfd of a process that is no child of ours.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check(fd)?;
    // SAFETY: the kernel has just opened this fd for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The process that a pidfd is about, as long as it is not reaped; `None` when `fd` is something else.
pub fn pid_of(fd: BorrowedFd) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

/// How a process ended that was somebody else's child, once its parent has reaped it. `None`: the kernel
/// does not say (it does from 6.15 on), or not yet.
pub fn exit_status(pidfd: BorrowedFd) -> Option<ExitStatus> {
    /// The kernel's `struct pidfd_info`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const GET_INFO: libc::c_ulong = 0xc000_ff0b | (size_of::<Info>() as libc::c_ulong) << 16;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request says how long the structure is, and the kernel writes no more than that.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, std::ptr::from_mut(&mut info)) };
    if asked < 0 || info.mask & EXIT == 0 {
        return None;
    }
    ExitStatus::from_wait(info.exit_code)
}

fn kill(target: i32, signal: i32) -> io::Result<()> {
    // 0, 1 and -1 are "my group", init and "everybody": never a child of ours.
    if (-1..=1).contains(&target) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two integers and touches no memory.
    check(unsafe { libc::kill(target, signal) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::reap::{Reaped, reap_one};
    use crate::sys::testing::{shell, wait_until};

    fn end(pid: i32) -> Reaped {
        wait_until("the child to end", || reap_one(pid))
    }

    fn errno(result: io::Result<()>) -> Option<i32> {
        result.err().and_then(|e| e.raw_os_error())
    }

    #[test]
    fn a_signal_reaches_the_child_and_never_its_successor() {
        let child = shell("sleep 60");
        let pidfd = child.pidfd.as_ref().map(AsFd::as_fd);
        assert!(pidfd.is_some());
        send(pidfd, child.pid, 0).unwrap();
        send(pidfd, child.pid, libc::SIGUSR1).unwrap();
        assert_eq!(end(child.pid).status, ExitStatus::Signal { number: libc::SIGUSR1, core: false });
        // The pid passed here is our own: only the fallback would use it, and we would die.
        let own = std::process::id() as i32;
        assert_eq!(errno(send(pidfd, own, libc::SIGKILL)), Some(libc::ESRCH));
    }

    #[test]
    fn e05_without_a_pidfd_the_pid_is_used() {
        let child = shell("sleep 60");
        send(None, child.pid, libc::SIGTERM).unwrap();
        assert_eq!(end(child.pid).status, ExitStatus::Signal { number: libc::SIGTERM, core: false });
        assert_eq!(errno(send(None, child.pid, 0)), Some(libc::ESRCH));
    }

    #[test]
    fn a_group_outlives_its_leader_and_dies_as_one() {
        // The leader ends; a grandchild keeps the group.
        let child = shell("sleep 60 & exit 3");
        assert_eq!(end(child.pid).status, ExitStatus::Code(3));
        assert!(group_alive(child.pid));
        send_group(child.pid, libc::SIGKILL).unwrap();
        wait_until("the group to vanish", || (!group_alive(child.pid)).then_some(()));
        assert_eq!(errno(send_group(child.pid, libc::SIGKILL)), Some(libc::ESRCH));
    }

    #[test]
    fn an_unreaped_leader_counts_as_a_member() {
        let child = shell("exit 0");
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
        wait_until("a zombie", || stat().contains(") Z ").then_some(()));
        assert!(group_alive(child.pid));
        end(child.pid);
        assert!(!group_alive(child.pid));
    }

    #[test]
    fn nobody_and_everybody_are_not_children() {
        for target in [-1, 0, 1] {
            assert_eq!(errno(send(None, target, 0)), Some(libc::ESRCH));
            assert_eq!(errno(send_group(target, 0)), Some(libc::ESRCH));
        }
    }
}
