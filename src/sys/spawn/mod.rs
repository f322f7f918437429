//! Starting a program. What is to be done is plain data; the part that runs between clone and exec is `child`, which
//! makes its system calls by `bare`; `clone3` makes the process, and `underway` waits for it to leave our memory. Which
//! program, user and fds these are is for the caller to decide.

mod bare;
mod child;
mod clone3;
mod underway;

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::lift::{LOW, lift};
use super::{clock, proc};
use child::{Failure, Plan};
use underway::Underway;

/// One program to start. The child leads a new session (with a shared terminal only a new group), has every
/// signal at its default and none blocked, and has no file descriptor but those in `fds`.
#[derive(Default)]
pub struct Spawn<'a> {
    /// Absolute paths, tried in order as execvp does: the next one on ENOENT, ENOTDIR and EACCES.
    /// A file that the kernel cannot execute but that looks like text is given to `/bin/sh`.
    pub programs: &'a [CString],
    /// The arguments, the name of the program first.
    pub argv: &'a [CString],
    /// The whole environment, each entry `NAME=value`.
    pub env: &'a [CString],
    /// One more variable, whose value is the process id of the child.
    pub env_pid: Option<&'a CStr>,
    /// The working directory; entered as the user the program runs as.
    pub cwd: &'a CStr,
    /// The file mode creation mask.
    pub umask: u32,
    /// What the child inherits: (our fd, its number in the child). Numbers in the child are distinct;
    /// any overlap with ours is fine.
    pub fds: &'a [(RawFd, i32)],
    /// Run as somebody else.
    pub user: Option<Credentials<'a>>,
    /// The limits of open files to restore, soft and hard (the daemon raises its own).
    pub nofile: Option<[u64; 2]>,
    /// The inclination to be killed when memory is short, to restore (the daemon lowers its own). With it, or a user, the
    /// calling thread can do nothing meanwhile.
    pub oom_score_adj: Option<i32>,
    /// A terminal to become the foreground of.
    pub terminal: Option<Terminal>,
    /// The control groups that it is in before it does anything else: fds of their directories.
    pub groups: &'a [RawFd],
    /// What it is held to.
    pub bounds: Bounds<'a>,
}

/// What a program is held to. What cannot be done fails the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds<'a> {
    /// Limits of resources (`RLIMIT_*`), soft and hard, each of [`UNLIMITED`] or below.
    pub limits: &'a [(u32, [u64; 2])],
    /// How much it gives way to others.
    pub nice: Option<i32>,
    /// The inclination to be killed when memory is short, as declared.
    pub oom_score_adj: Option<i32>,
    /// No program that it executes gives it more rights.
    pub no_new_privs: bool,
    /// All capabilities that it and what it executes can ever have, as a set of bits.
    pub capabilities: Option<u64>,
}

/// No limit of a resource.
pub const UNLIMITED: u64 = u64::MAX;

/// How a child comes by its terminal, which is one of our own fds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It controls our own session already: the child stays in that, leads a group, and the group becomes
    /// the terminal's foreground.
    Shared(RawFd),
    /// The session of the child takes it, if no session has it.
    Taken(RawFd),
}

/// Who a child runs as.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids; all others are dropped.
    pub groups: &'a [u32],
}

/// A child that has executed its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, also the id of its process group and, without a shared terminal, of its session.
    pub pid: i32,
    /// What it is signalled by; `None` where the kernel has no pidfds.
    pub pidfd: Option<OwnedFd>,
    /// The clock tick in which it started, as in [`proc::Stat`](super::proc::Stat), if that is certain.
    pub start_tick: Option<u64>,
}

/// What a spawn was about to do when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the process.
    Clone,
    /// Get a table of file descriptors of its own.
    Table,
    /// Put it into its control group.
    Group,
    /// Start a session.
    Session,
    /// Give it its file descriptors.
    Fds,
    /// Restore its limit of open files.
    OpenFiles,
    /// Set a limit of a resource.
    Limit,
    /// Set its niceness.
    Nice,
    /// Set its inclination to be killed.
    OomScore,
    /// Set the supplementary groups.
    Groups,
    /// Set the group.
    Gid,
    /// Set the user.
    Uid,
    /// See to it that it gets no more rights.
    NoNewPrivs,
    /// Set its capabilities.
    Capabilities,
    /// Read back who it has become.
    Verify,
    /// Enter the working directory.
    Chdir,
    /// Execute the program.
    Exec,
    /// Execute what the first line of the script, or the program header, asks for.
    Interpreter,
}

/// Why there is no child. Nothing is left of it: a process that got as far as existing is reaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was attempted.
    pub step: Step,
    /// Why it failed.
    pub errno: i32,
    /// The directory or the program it failed on; where no candidate exists, their common name.
    pub path: Option<PathBuf>,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            Step::Clone => "create a process",
            Step::Table => "leave our file descriptors",
            Step::Group => "enter its control group",
            Step::Session => "start a session",
            Step::Fds => "place file descriptors",
            Step::OpenFiles => "set the limit of open files",
            Step::Limit => "set a limit of a resource",
            Step::Nice => "set its niceness",
            Step::OomScore => "set oom_score_adj",
            Step::Groups => "set supplementary groups",
            Step::Gid => "set the group",
            Step::Uid => "set the user",
            Step::NoNewPrivs => "give up new privileges",
            Step::Capabilities => "set capabilities",
            Step::Verify => "verify the user and its privileges",
            Step::Chdir => "change directory to",
            Step::Exec => "execute",
            Step::Interpreter => "execute the interpreter of",
        })?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        write!(f, ": {}", super::errno_reason(self.errno))
    }
}

impl std::error::Error for SpawnError {}

/// Starts a program, and returns when it has been executed or when that has failed. The calling
/// thread waits for the child to get there: microseconds, but a slow file system counts.
pub fn spawn(wanted: &Spawn) -> Result<Spawned, SpawnError> {
    spawn_while(wanted, || ()).0
}

/// As [`spawn`]. While the child gets there, the calling thread does something else if it can, or else after that.
pub fn spawn_while<T>(wanted: &Spawn, other: impl FnOnce() -> T) -> (Result<Spawned, SpawnError>, T) {
    let low_table = LOW_TABLE.load(Relaxed);
    spawn_with(wanted, Features { pidfd: true, close_range: true, low_table, clone3: true }, other)
}

/// Whether it can be told whose memory a process has.
pub fn knows_memory() -> bool {
    let us = std::process::id() as i32;
    compares_memory(us, us) == Some(true)
}

/// Waits until a child that was started has a memory of its own. It has left ours when its start is told, but for a
/// moment the kernel still counts it among those that share it.
pub fn wait_for_own_memory(pid: i32) {
    const NAP: std::time::Duration = std::time::Duration::from_millis(1);
    let us = std::process::id() as i32;
    for _ in 0..1_000 {
        match compares_memory(us, pid) {
            Some(true) => std::thread::yield_now(),
            Some(false) => return,
            // It is somebody else by now. (Or it has ended.)
            None => return std::thread::sleep(NAP),
        }
    }
}

/// Whether two processes share their memory (kcmp(2)); `None`: the kernel does not say.
fn compares_memory(one: i32, other: i32) -> Option<bool> {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: kcmp takes integers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) } {
        0 => Some(true),
        1..=3 => Some(false),
        _ => None,
    }
}

/// Gives back the stacks of children of this thread, if no more will be started soon.
pub fn forget_stacks() {
    drop(STACKS.take());
}

/// False once the kernel has refused to make a table of fds of the low part of ours.
static LOW_TABLE: AtomicBool = AtomicBool::new(true);

/// Newer calls that a kernel or a sandbox may refuse; tests switch them off to run the fallbacks.
#[derive(Clone, Copy)]
struct Features {
    pidfd: bool,
    close_range: bool,
    low_table: bool,
    clone3: bool,
}

fn spawn_with<T>(
    wanted: &Spawn,
    features: Features,
    other: impl FnOnce() -> T,
) -> (Result<Spawned, SpawnError>, T) {
    let failed_before = |error: io::Error| SpawnError {
        step: Step::Clone,
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
        path: None,
    };
    let stack = match Stack::take() {
        Ok(stack) => stack,
        Err(error) => return (Err(failed_before(error)), other()),
    };
    let is_low = |fd: RawFd| fd < LOW;
    let low_table = features.low_table && wanted.fds.iter().all(|(fd, _)| is_low(*fd));
    let mut plan = Plan::new(wanted, features.close_range, low_table);
    let inside = AtomicU32::new(0);
    let dumpable = wanted.user.is_some() && is_dumpable();
    let sent = (features.clone3 && features.pidfd).then(|| send_off(&stack, &mut plan, &inside)).flatten();
    let mut cloned = sent.map_or_else(|| clone(&stack, &mut plan, features.pidfd), Ok);
    if features.pidfd && matches!(&cloned, Err(e) if refused(e)) {
        cloned = clone(&stack, &mut plan, false);
    }
    // Until it is dropped the child may be there, and nothing that it has is touched.
    let underway = cloned.as_ref().ok().map(|(pid, _)| Underway::new(*pid, &inside));
    let told = other();
    drop(underway);
    if let (Ok((pid, pidfd)), Some(Failure { step: Step::Table, .. })) = (&cloned, plan.failure) {
        LOW_TABLE.store(false, Relaxed);
        reap(*pid);
        plan.low_table = false;
        plan.born_in = 0;
        plan.failure = None;
        cloned = clone(&stack, &mut plan, pidfd.is_some());
    }
    stack.put_back();
    if dumpable {
        // A child that shares our memory and changes its user makes this memory undumpable: right
        // until it has left, wrong for a daemon whose crash should leave a core.
        set_dumpable();
    }
    let done = cloned.map_err(failed_before).and_then(|(pid, pidfd)| match plan.failure {
        None => {
            let start_tick = proc::start_tick(plan.cloned, plan.began);
            Ok(Spawned { pid, pidfd: pidfd.map(lift), start_tick })
        }
        Some(failure) => {
            reap(pid);
            Err(explain(wanted, failure))
        }
    });
    (done, told)
}

/// Whether a kernel or a sandbox turned down the call itself.
fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

fn explain(wanted: &Spawn, failure: Failure) -> SpawnError {
    let path = |text: &CStr| PathBuf::from(OsStr::from_bytes(text.to_bytes()));
    let path = match failure.step {
        Step::Chdir => Some(path(wanted.cwd)),
        Step::Exec | Step::Interpreter => wanted.programs.get(failure.program).map(|program| {
            let absent = matches!(failure.errno, libc::ENOENT | libc::ENOTDIR);
            let program = path(program);
            match program.file_name() {
                Some(name) if absent && wanted.programs.len() > 1 => Path::new(name).to_path_buf(),
                _ => program,
            }
        }),
        _ => None,
    };
    SpawnError { step: failure.step, errno: failure.errno, path }
}

/// What the child shares with us.
fn flags(plan: &Plan) -> libc::c_int {
    // A copy of the whole table would cost more than all the rest, for a daemon of thousands.
    let files = if plan.low_table { libc::CLONE_FILES } else { 0 };
    libc::CLONE_VM | files
}

/// A process id, and the fd of the process.
type Cloned = (i32, Option<OwnedFd>);

/// As [`clone`], with the child in the first of its groups from its birth; and where that can be, it returns at once:
/// as long as `inside` is not 0 the child uses the plan and the stack. `None`: it is not to be had, and nothing has
/// happened. (Version 1 of control groups does not know of births, nor do old kernels; a sandbox may hide the call.)
fn send_off(stack: &Stack, plan: &mut Plan, inside: &AtomicU32) -> Option<Cloned> {
    let group = plan.first_group();
    let mut pidfd: libc::c_int = -1;
    let mut arguments = clone3::Arguments::new(flags(plan), &mut pidfd, stack.base, Stack::WHOLE);
    if bare::IS_BARE && plan.leaves_parent_alone() {
        inside.store(1, Relaxed);
        arguments.tell_when_left(inside);
    } else {
        arguments.wait_until_left();
    }
    if let Some(group) = group {
        arguments.enter_group(group);
        plan.born_in = 1;
    }
    plan.signals = child::ignored_signals();
    let blocked = BlockedSignals::new();
    plan.cloned = clock::boot_nanos();
    // SAFETY: the child runs `child::run` on a stack of its own and shares our memory. It is done with it when `inside`
    // is 0, and whoever called us leaves `plan` and `stack` alone until then; `pidfd` is the kernel's, and written when
    // this returns. With all signals blocked no handler of ours runs in the child. `child::run` neither allocates,
    // locks, panics, returns into our frames nor uses what belongs to our thread.
    let born = unsafe { clone3::clone3(&arguments, child::run, ptr::from_mut(plan).cast()) };
    drop(blocked);
    let Ok(pid) = born else {
        inside.store(0, Relaxed);
        plan.born_in = 0;
        return None;
    };
    // SAFETY: the kernel has just opened this fd for us alone; nothing else knows its number.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Some((pid, pidfd))
}

/// One clone on `stack`; when it returns, the child has executed its program or is a zombie.
fn clone(stack: &Stack, plan: &mut Plan, with_pidfd: bool) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = flags(plan) | libc::CLONE_VFORK | libc::SIGCHLD;
    if with_pidfd {
        flags |= libc::CLONE_PIDFD;
    }
    plan.signals = child::ALL_SIGNALS;
    let blocked = BlockedSignals::new();
    plan.cloned = clock::boot_nanos();
    // SAFETY: as above, but CLONE_VFORK suspends this thread until the child has executed or exited.
    let pid = unsafe {
        libc::clone(child::run, stack.top(), flags, ptr::from_mut(plan).cast(), ptr::from_mut(&mut pidfd))
    };
    let failed = io::Error::last_os_error();
    drop(blocked);
    if pid < 0 {
        return Err(failed);
    }
    // A kernel that does not know CLONE_PIDFD leaves the number alone.
    // SAFETY: the kernel has just opened this fd for us alone; nothing else knows its number.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((pid, pidfd))
}

/// Takes the exit of a child that never became the program.
fn reap(pid: i32) {
    // SAFETY: waitpid may be given a null status; `pid` is a child of ours that nobody else waits for yet.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
}

fn is_dumpable() -> bool {
    // SAFETY: PR_GET_DUMPABLE takes no further arguments.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

fn set_dumpable() {
    // SAFETY: PR_SET_DUMPABLE takes an integer. It fails only on other values than 0 and 1.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong) };
}

thread_local! {
    static STACKS: Cell<Vec<Stack>> = const { Cell::new(Vec::new()) };
}

/// A stack for one child, with a guard page below.
struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    const SIZE: usize = 64 * 1024;
    /// The largest page size of the architectures Linux runs on.
    const GUARD: usize = 64 * 1024;
    const WHOLE: usize = Stack::SIZE + Stack::GUARD;

    /// That of a child that needs it no more, if there is one.
    fn take() -> io::Result<Stack> {
        let mut left = STACKS.take();
        let last = left.pop();
        STACKS.set(left);
        last.map_or_else(Stack::new, Ok)
    }

    /// Kept for another child: to make one takes as long as all other preparations.
    fn put_back(self) {
        let mut left = STACKS.take();
        left.push(self);
        STACKS.set(left);
    }

    fn new() -> io::Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { libc::mmap(ptr::null_mut(), Stack::WHOLE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base };
        // SAFETY: the range is the upper part of the mapping just made, which nobody uses yet.
        let opened = unsafe {
            libc::mprotect(base.byte_add(Stack::GUARD), Stack::SIZE, libc::PROT_READ | libc::PROT_WRITE)
        };
        if opened < 0 { Err(io::Error::last_os_error()) } else { Ok(stack) }
    }

    /// Where it begins: stacks grow down on every architecture we build for.
    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping, 16-byte aligned because it ends on a page.
        unsafe { self.base.byte_add(Stack::WHOLE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and its only user, the child, has left it.
        unsafe { libc::munmap(self.base, Stack::WHOLE) };
    }
}

/// Every signal blocked in this thread, until dropped.
struct BlockedSignals {
    before: u64,
}

impl BlockedSignals {
    fn new() -> BlockedSignals {
        let mut before = 0;
        child::set_signal_mask(u64::MAX, Some(&mut before));
        BlockedSignals { before }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        child::set_signal_mask(self.before, None);
    }
}

#[cfg(test)]
mod tests;
