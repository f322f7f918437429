//! What a keeper needs of the kernel: a child that shares its fd table, the children that others leave
//! behind, signals taken one by one, and becoming another program.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::lift;
use super::reap::{ExitStatus, Reaped};

/// Children of ours whose parents die become ours, and their children too.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// The fd numbers for which a shared table has room from the beginning: those of 800 apps. 32 KiB of the kernel's.
const ROOM: u64 = 4_096;

/// Has our fd table grow while it is ours alone. One that is shared is replaced by a larger one only when no processor
/// can be looking at it any more (expand_fdtable in the kernel's fs/file.c): tens of milliseconds, each time it doubles.
fn make_room() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let most = hard.min(ROOM);
    let raised = soft < most && setrlimit(Resource::RLIMIT_NOFILE, most, hard).is_ok();
    if let (Ok(root), Ok(last)) = (File::open("/"), RawFd::try_from(most.saturating_sub(1))) {
        drop(lift::duplicate(root.as_fd(), last));
    }
    if raised {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

/// A copy of this process that shares the fd table with it: what one opens or closes, the other has open or
/// closed, and the table lives as long as either. `None`: we are the copy.
///
/// Only while there is one thread.
pub fn fork_with_fds() -> io::Result<Option<i32>> {
    make_room();
    // The C library remembers the thread's id, for raise() and abort(); the kernel tells where, and writes
    // the new one there.
    let mut tid: *mut libc::c_int = ptr::null_mut();
    // SAFETY: PR_GET_TID_ADDRESS writes one pointer to where it is told to.
    let known = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, ptr::from_mut(&mut tid)) } == 0;
    let mut flags = libc::CLONE_FILES | libc::SIGCHLD;
    if known && !tid.is_null() {
        flags |= libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    } else {
        tid = ptr::null_mut();
    }
    // SAFETY: without CLONE_VM this is a fork: the copy has memory of its own and goes on here, on a copy of
    // this stack. There is one thread, so no lock is held by another. `tid` is where the C library keeps
    // this thread's id, in the copy as here. The order of the last two arguments differs between
    // architectures, and only one of them is used.
    #[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, 0, tid, 0) };
    // SAFETY: as above.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "riscv64")))]
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, 0, 0, tid) };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid as i32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks every signal: none is lost, each waits for [`wait_signal`]. SIGCHLD gets back its meaning, if a
/// parent had it ignored; and so do the faults that Rust's runtime catches: it lets one pass that did not
/// come from an instruction.
pub fn block_signals() {
    // SAFETY: a sigset_t may be all zeroes, and is filled by sigfillset; the calls take pointers to it, and
    // SIG_DFL is a disposition.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut());
        for number in [libc::SIGCHLD, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(number, libc::SIG_DFL);
        }
    }
}

/// Blocks no signal.
pub fn unblock_signals() {
    // SAFETY: as in `block_signals`.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// The next signal, which must be blocked; `None` when the time is over, or for no reason.
pub fn wait_signal(timeout: Option<Duration>) -> Option<i32> {
    let timeout = timeout.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: as in `block_signals`; the timeout is a local or null, and no information is asked for.
    let number = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigtimedwait(&all, ptr::null_mut(), timeout)
    };
    (number > 0).then_some(number)
}

/// What one look at a child brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It runs.
    Alive,
    /// It was stopped, by SIGSTOP or its like.
    Stopped,
    /// It has ended, and is reaped.
    Ended(ExitStatus),
    /// It is no child of ours.
    Gone,
}

/// Looks at one child.
pub fn look(pid: i32) -> Look {
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG | libc::WUNTRACED) } {
        0 => Look::Alive,
        found if found == pid && libc::WIFSTOPPED(status) => Look::Stopped,
        found if found == pid => ExitStatus::from_wait(status).map_or(Look::Alive, Look::Ended),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => Look::Alive,
        _ => Look::Gone,
    }
}

/// A child that has ended, which stays a zombie until it is reaped: who it is, and how it ended.
pub fn peek() -> Option<Reaped> {
    // SAFETY: a siginfo_t is integers and pointers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: the pointer is to a local of the right type.
        if unsafe { libc::waitid(libc::P_ALL, 0, &mut info, how) } == 0 {
            break;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
    // SAFETY: waitid has filled in what these read, or left the zeroes.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    let status = match info.si_code {
        libc::CLD_EXITED => ExitStatus::Code(value),
        libc::CLD_KILLED => ExitStatus::Signal { number: value, core: false },
        libc::CLD_DUMPED => ExitStatus::Signal { number: value, core: true },
        _ => return None,
    };
    (pid > 0).then_some(Reaped { pid, status, user_ms: 0, system_ms: 0, max_rss_kb: 0 })
}

/// Sends a signal to our own child or parent, which cannot be anybody else yet.
pub fn send(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(pid, signal) };
    }
}

/// The name by which `ps` and `top` list this process; at most 15 bytes.
pub fn set_name(name: &CStr) {
    if let Err(error) = nix::sys::prctl::set_name(name) {
        log::debug!("set a name: {error}");
    }
}

/// The process that started this one.
pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Becomes the program at `path`. Returns only with the reason why not.
/// Fds that do not close on exec stay open; the signal mask stays as it is. It allocates nothing.
pub fn become_program(path: &CStr, arguments: &Arguments) -> i32 {
    // SAFETY: `path` is a C string; the arguments are C strings and a null at their end, owned by `arguments`;
    // the environment is the process's own, and there is one thread.
    unsafe {
        unsafe extern "C" {
            static environ: *const *const libc::c_char;
        }
        libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environ);
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Arguments for [`become_program`], made before they are needed.
#[derive(Debug)]
pub struct Arguments {
    _words: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Arguments {
    /// The words, the program's name first; they hold no NUL.
    pub fn new(words: &[&str]) -> Arguments {
        let words: Vec<CString> = words.iter().filter_map(|word| CString::new(*word).ok()).collect();
        let pointers = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
        Arguments { _words: words, pointers }
    }
}

/// Whether an fd is passed on by exec.
pub fn pass_on(fd: RawFd, yes: bool) -> io::Result<()> {
    // SAFETY: the fd is only asked to change its flags; if it is not open, that is the error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(if yes { FdFlag::empty() } else { FdFlag::FD_CLOEXEC }))?;
    Ok(())
}

/// Has every fd be passed on by exec. It allocates nothing.
pub fn pass_on_all() {
    let mut limit = libc::rlimit { rlim_cur: 1 << 16, rlim_max: 0 };
    // SAFETY: getrlimit writes to a local; F_SETFD reads no memory, and of an fd that is not open it is an
    // error that changes nothing.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        for fd in 3..limit.rlim_cur.min(1 << 20) as RawFd {
            libc::fcntl(fd, libc::F_SETFD, 0);
        }
    }
}

/// All fds that are open, but 0, 1 and 2.
pub fn open_fds() -> Vec<RawFd> {
    let listed = || -> io::Result<Vec<RawFd>> {
        let entries = std::fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    };
    if let Ok(mut open) = listed() {
        // The list's own fd is among them, and closed by the time anybody looks.
        open.retain(|fd| *fd > 2 && is_open(*fd));
        return open;
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let limit = limit.map_or(1 << 16, |(soft, _)| soft.min(1 << 20)) as RawFd;
    (3..limit).filter(|fd| is_open(*fd)).collect()
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EBADF)
}

/// An eventfd: something to be woken by.
pub fn eventfd() -> io::Result<std::os::fd::OwnedFd> {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into())
}

/// So often a call is made that must not fail.
const TRIES: usize = 3;

/// Wakes whoever waits for an eventfd. It allocates nothing.
pub fn wake(fd: RawFd) {
    let one = 1u64;
    // Nobody else would tell what it is told then: a refusal that passes is waited out.
    for _ in 0..TRIES {
        // SAFETY: eight bytes of a local are read.
        let written = unsafe { libc::write(fd, ptr::from_ref(&one).cast(), 8) };
        // A full counter means that it is awake already.
        if written >= 0 || Errno::last() == Errno::EAGAIN {
            return;
        }
    }
}

/// Takes the wake-ups of an eventfd.
pub fn woken(fd: RawFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes of a local are written; the fd is nonblocking.
    unsafe { libc::read(fd, ptr::from_mut(&mut count).cast(), 8) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::alone;

    #[test]
    fn a_table_has_room_before_it_is_shared() {
        alone("sys::family::tests::a_table_has_room_before_it_is_shared", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = open();
            make_room();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            assert!(size.trim().parse::<u64>().unwrap() >= hard.min(ROOM), "{size}");
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (100, hard));
            assert_eq!(open(), before);
        });
    }
}
