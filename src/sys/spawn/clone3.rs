//! clone3(2), for what clone(2) cannot do: a child that is born in its control group. Whoever enters a group later has
//! the kernel wait until every processor has passed through a quiet state: ten milliseconds and more, in which nobody
//! else is served.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;

use libc::{c_int, c_void};

/// The kernel's `struct clone_args`, in its version of 88 bytes (Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl Arguments {
    /// Flags of clone(2), where the pidfd goes, and the child's stack: its lowest address and its bytes. No signal has a
    /// handler in the child.
    pub(super) fn new(flags: c_int, pidfd: *mut c_int, stack: *mut c_void, stack_size: usize) -> Arguments {
        Arguments {
            flags: (flags | libc::CLONE_PIDFD) as u64 | CLEAR_SIGHAND,
            pidfd: pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack as u64,
            stack_size: stack_size as u64,
            ..Default::default()
        }
    }

    /// The parent is suspended until the child has left its memory.
    pub(super) fn wait_until_left(&mut self) {
        self.flags |= libc::CLONE_VFORK as u64;
    }

    /// The child is born in the group of version 2 whose directory this is.
    pub(super) fn enter_group(&mut self, directory: RawFd) {
        self.flags |= INTO_CGROUP;
        self.cgroup = directory as u64;
    }

    /// Where the kernel writes zero, and wakes who waits for that, when the child has left our memory.
    pub(super) fn tell_when_left(&mut self, inside: &AtomicU32) {
        self.flags |= libc::CLONE_CHILD_CLEARTID as u64;
        self.child_tid = inside.as_ptr() as u64;
    }
}

/// `CLONE_CLEAR_SIGHAND`: in the child what has a handler is at its default. As the next one, it does not fit into the
/// flags of clone(2).
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP`.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Has the child run `child(data)` on the stack of `arguments`. The pid.
///
/// # Safety
/// As for clone(2): `child` does not return, the stack is the child's alone, and what it is given outlives it.
pub(super) unsafe fn clone3(
    arguments: &Arguments,
    child: extern "C" fn(*mut c_void) -> c_int,
    data: *mut c_void,
) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    let pid = unsafe { enter(arguments, child, data) };
    if pid < 0 { Err(io::Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
}

/// The call itself. It returns twice, and the child has another stack then, so that no function can do it: the pid, or
/// an errno below zero, in the parent only.
///
/// # Safety
/// As for [`clone3`].
#[cfg(target_arch = "x86_64")]
unsafe fn enter(
    arguments: &Arguments,
    child: extern "C" fn(*mut c_void) -> c_int,
    data: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the kernel reads `arguments`. In the parent only the registers of the call change. The child finds all
    // others as they were; it begins on a stack of its own, aligned, and never comes out of the call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<Arguments>(),
            in("r12") child,
            in("r13") data,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// The same.
///
/// # Safety
/// As for [`clone3`].
#[cfg(target_arch = "aarch64")]
unsafe fn enter(
    arguments: &Arguments,
    child: extern "C" fn(*mut c_void) -> c_int,
    data: *mut c_void,
) -> isize {
    let result;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "brk 1",
            "2:",
            inlateout("x0") std::ptr::from_ref(arguments) as isize => result,
            in("x1") size_of::<Arguments>(),
            in("x8") libc::SYS_clone3,
            in("x20") child,
            in("x21") data,
        );
    }
    result
}

/// Not written for this machine: whoever asks goes the slow way.
///
/// # Safety
/// As for [`clone3`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn enter(_: &Arguments, _: extern "C" fn(*mut c_void) -> c_int, _: *mut c_void) -> isize {
    -libc::ENOSYS as isize
}
