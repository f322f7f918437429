//! The child between clone and exec. It shares the parent's memory, and the parent may not wait: nothing here
//! allocates, locks, panics or calls what is not a bare syscall; the parent has laid out everything it needs.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::OnceLock;

use libc::{c_char, c_int, c_long, c_void};

use super::bare::{call, errno};
use super::{LOW, Spawn, Step, Terminal};
use crate::sys::clock;

/// All that the child works with, laid out before the clone.
pub(super) struct Plan<'a> {
    wanted: &'a Spawn<'a>,
    /// NULL-terminated, pointing into `wanted`.
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// `NAME=` and room for the digits of a pid: the child's own, which it writes there.
    env_pid: Vec<u8>,
    /// `/bin/sh`, a place for the script, the arguments.
    shell_argv: Vec<*const c_char>,
    /// By rising target.
    moves: Vec<Move>,
    close_range: bool,
    /// The table of fds is the parent's at first; what is needed of it is below [`LOW`].
    pub(super) low_table: bool,
    /// In how many of its groups it is already.
    pub(super) born_in: usize,
    /// The signals whose dispositions it sets back, a bit for each.
    pub(super) signals: u64,
    /// As the kernel reads it.
    oom_score_adj: Option<String>,
    /// The same as declared.
    oom_score_wanted: Option<String>,
    /// When the clone was made and when the child began, of [`clock::boot_nanos`].
    pub(super) cloned: u64,
    pub(super) began: u64,
    /// Written by the child if it never became the program.
    pub(super) failure: Option<Failure>,
}

/// A file descriptor on its way to its number in the child.
#[derive(Clone, Copy)]
struct Move {
    source: c_int,
    target: c_int,
}

/// What went wrong in the child.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
    /// Index of the candidate.
    pub(super) program: usize,
}

/// The most digits of a pid.
const PID_DIGITS: usize = 10;

const SHELL: &CStr = c"/bin/sh";

impl<'a> Plan<'a> {
    pub(super) fn new(wanted: &'a Spawn<'a>, close_range: bool, low_table: bool) -> Plan<'a> {
        let mut moves: Vec<Move> =
            wanted.fds.iter().map(|&(source, target)| Move { source, target }).collect();
        moves.sort_by_key(|m| m.target);
        debug_assert!(moves.windows(2).all(|pair| pair[0].target < pair[1].target), "one fd per number");
        let mut shell_argv = vec![SHELL.as_ptr(), ptr::null()];
        shell_argv.extend(wanted.argv.iter().skip(1).map(|argument| argument.as_ptr()));
        shell_argv.push(ptr::null());
        let argv = pointers(wanted.argv);
        let oom_score_adj = wanted.oom_score_adj.map(|number| number.to_string());
        let mut env = pointers(wanted.env);
        let mut env_pid = Vec::new();
        if let Some(name) = wanted.env_pid {
            env_pid = [name.to_bytes(), b"=", &[0; PID_DIGITS + 1]].concat();
            env.insert(0, env_pid.as_ptr().cast());
        }
        let oom_score_wanted = wanted.bounds.oom_score_adj.map(|number| number.to_string());
        Plan {
            wanted,
            argv,
            env,
            env_pid,
            shell_argv,
            moves,
            close_range,
            low_table,
            born_in: 0,
            signals: ALL_SIGNALS,
            oom_score_adj,
            oom_score_wanted,
            cloned: 0,
            began: 0,
            failure: None,
        }
    }

    /// Whether the parent may go on: nothing is changed that the kernel takes for a matter of the shared memory.
    /// An inclination to be killed becomes that of all who share it. And who becomes somebody else may be looked into
    /// by others of that user, our memory with it, should a second child undo what the first one brought about.
    pub(super) fn leaves_parent_alone(&self) -> bool {
        self.wanted.user.is_none() && self.oom_score_adj.is_none() && self.oom_score_wanted.is_none()
    }

    /// The directory of the first of its groups.
    pub(super) fn first_group(&self) -> Option<c_int> {
        self.wanted.groups.first().copied()
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Where the child starts, on a stack of its own; `plan` is a `Plan`.
pub(super) extern "C" fn run(plan: *mut c_void) -> c_int {
    // SAFETY: the parent passes its `Plan` by unique reference and leaves it alone while this runs.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.began = clock::boot_nanos();
    let Err(failure) = become_program(plan);
    plan.failure = Some(failure);
    // SAFETY: _exit ends this process at once and runs none of the handlers we share with the parent.
    unsafe { libc::_exit(127) }
}

fn become_program(plan: &mut Plan) -> Result<Infallible, Failure> {
    if plan.low_table {
        leave_table()?;
    }
    enter_groups(plan.wanted.groups.iter().skip(plan.born_in))?;
    reset_dispositions(plan.signals);
    lead(plan.wanted.terminal)?;
    place_fds(&mut plan.moves)?;
    close_others(&plan.moves, plan.close_range);
    // SAFETY: umask takes an integer, touches no memory and cannot fail.
    unsafe { call!(libc::SYS_umask, plan.wanted.umask as c_long) };
    if let Some(limits) = plan.wanted.nofile {
        limit_open_files(limits)?;
    }
    let bounds = &plan.wanted.bounds;
    for (resource, limits) in bounds.limits {
        resource_limit(Step::Limit, *resource, Some(limits))?;
    }
    if let Some(nice) = bounds.nice {
        // SAFETY: setpriority takes three integers; process 0 is this one.
        check(Step::Nice, unsafe { call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) })?;
    }
    match (&plan.oom_score_wanted, &plan.oom_score_adj) {
        (Some(text), _) => set_oom_score_adj(text)?,
        // A process whose score cannot be restored runs all the same: there may be no /proc.
        (None, Some(text)) => drop(set_oom_score_adj(text)),
        (None, None) => {}
    }
    if bounds.capabilities.is_some() {
        // What it may keep outlives the change of the user, until it executes.
        prctl(Step::Capabilities, libc::PR_SET_KEEPCAPS, 1, 0)?;
    }
    if let Some(user) = plan.wanted.user {
        // The groups while we still may, the user last. The bare calls, because libc's ask all
        // threads of the process to follow, and those are the parent's.
        // SAFETY: the pointer and the length are those of one slice of 32-bit ids, which is only read.
        let done = unsafe { call!(number::SETGROUPS, user.groups.len(), user.groups.as_ptr()) };
        check(Step::Groups, done)?;
        // SAFETY: setresgid takes three integers and touches no memory.
        check(Step::Gid, unsafe { call!(number::SETRESGID, user.gid, user.gid, user.gid) })?;
        // SAFETY: setresuid takes three integers and touches no memory.
        check(Step::Uid, unsafe { call!(number::SETRESUID, user.uid, user.uid, user.uid) })?;
    }
    if bounds.no_new_privs {
        prctl(Step::NoNewPrivs, libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    }
    if let Some(mask) = bounds.capabilities {
        let is_root = plan.wanted.user.is_some_and(|user| user.uid == 0);
        keep_capabilities(mask, !is_root)?;
    }
    verify(plan.wanted)?;
    // SAFETY: `cwd` is a C string that the parent keeps alive.
    check(Step::Chdir, unsafe { call!(libc::SYS_chdir, plan.wanted.cwd.as_ptr()) })?;
    write_pid(&mut plan.env_pid);
    set_signal_mask(0, None);
    execute(plan)
}

/// Until here the table of fds was the parent's. From now on it is a copy of the low part of that.
fn leave_table() -> Result<(), Failure> {
    let (from, to) = (LOW as u32, u32::MAX);
    // SAFETY: close_range takes integers. What it closes is in the copy, and this process does not use it; where it
    // does not know how to copy, it does nothing.
    let done = unsafe { call!(libc::SYS_close_range, from, to, libc::CLOSE_RANGE_UNSHARE) };
    check(Step::Table, done).map(|_| ())
}

/// Leads a session, or with a terminal that our own session has, a group in its foreground. SIGTTOU,
/// which that would bring, is blocked as yet.
fn lead(terminal: Option<Terminal>) -> Result<(), Failure> {
    let fd = match terminal {
        Some(Terminal::Shared(fd)) => {
            // SAFETY: setpgid takes two integers and touches no memory.
            check(Step::Session, unsafe { call!(libc::SYS_setpgid, 0, 0) })?;
            fd
        }
        None | Some(Terminal::Taken(_)) => {
            // SAFETY: setsid takes nothing and touches no memory.
            check(Step::Session, unsafe { call!(libc::SYS_setsid) })?;
            let Some(Terminal::Taken(fd)) = terminal else { return Ok(()) };
            // SAFETY: TIOCSCTTY takes an integer; 0: from nobody else. Whose it is keeps it, and the child
            // does without.
            if unsafe { call!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0) } < 0 {
                return Ok(());
            }
            fd
        }
    };
    // SAFETY: getpid takes nothing. The group has the id of its leader.
    let group = unsafe { call!(libc::SYS_getpid) } as libc::pid_t;
    // SAFETY: TIOCSPGRP reads one pid_t, which `group` is. A terminal that hung up has no foreground.
    unsafe { call!(libc::SYS_ioctl, fd, libc::TIOCSPGRP, &group) };
    Ok(())
}

/// Fills in our process id behind the name of its variable.
fn write_pid(variable: &mut [u8]) {
    let Some(at) = variable.len().checked_sub(PID_DIGITS + 1) else { return };
    variable[at..].fill(0);
    // SAFETY: getpid takes nothing.
    let mut pid = unsafe { call!(libc::SYS_getpid) };
    let mut digits = [0; PID_DIGITS];
    let mut count = 0;
    while pid > 0 && count < PID_DIGITS {
        digits[count] = b'0' + (pid % 10) as u8;
        pid /= 10;
        count += 1;
    }
    for (to, digit) in variable[at..].iter_mut().zip(digits[..count].iter().rev()) {
        *to = *digit;
    }
}

/// Before anything else, so that all that the child does and brings about counts.
fn enter_groups<'a>(directories: impl Iterator<Item = &'a c_int>) -> Result<(), Failure> {
    for directory in directories {
        let (name, flags) = (c"cgroup.procs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        // SAFETY: `name` is a C string constant.
        let door = unsafe { call!(libc::SYS_openat, *directory, name, flags) };
        let door = check(Step::Group, door)? as c_int;
        // SAFETY: one byte of a constant is read. `0` is whoever writes it: this process, not the parent.
        let entered = unsafe { call!(libc::SYS_write, door, b"0".as_ptr(), 1) };
        let entered = check(Step::Group, entered);
        close(door);
        entered?;
    }
    Ok(())
}

fn prctl(step: Step, what: c_int, value: c_long, more: c_long) -> Result<c_long, Failure> {
    // SAFETY: the calls made by way of this take integers and touch no memory.
    check(step, unsafe { call!(libc::SYS_prctl, what, value, more, 0, 0) })
}

/// The kernel's view of the three sets, each as its lower and upper half.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The version of [`Half`] that has two of them, and process 0: this one.
const CAPABILITIES_OF_SELF: [u32; 2] = [0x2008_0522, 0];

fn capabilities() -> Result<[Half; 2], Failure> {
    let mut halves = [Half::default(); 2];
    let header = CAPABILITIES_OF_SELF;
    // SAFETY: the kernel reads the header and writes two halves, as its version says.
    check(Step::Capabilities, unsafe { call!(libc::SYS_capget, &header, &mut halves) })?;
    Ok(halves)
}

fn set_capabilities(halves: &[Half; 2]) -> Result<(), Failure> {
    let header = CAPABILITIES_OF_SELF;
    // SAFETY: the kernel reads the header and two halves, as its version says. Its own call is for this thread.
    check(Step::Capabilities, unsafe { call!(libc::SYS_capset, &header, halves) }).map(|_| ())
}

/// Has nothing but `mask` be had, now and by whatever is executed. Root gets it by being root, others as ambient.
fn keep_capabilities(mask: u64, as_ambient: bool) -> Result<(), Failure> {
    // A change of the user left what is permitted, but not in effect.
    let mut halves = capabilities()?;
    for half in &mut halves {
        half.effective = half.permitted;
    }
    set_capabilities(&halves)?;
    for number in 0..64 {
        let known = prctl(Step::Capabilities, libc::PR_CAPBSET_READ, number, 0);
        if known.is_err() {
            break;
        }
        if mask >> number & 1 == 0 && matches!(known, Ok(1)) {
            prctl(Step::Capabilities, libc::PR_CAPBSET_DROP, number, 0)?;
        }
    }
    let half = |bits: u32| Half { effective: bits, permitted: bits, inheritable: bits };
    set_capabilities(&[half(mask as u32), half((mask >> 32) as u32)])?;
    prctl(Step::Capabilities, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.into(), 0)?;
    for number in (0..64).filter(|number| as_ambient && mask >> number & 1 == 1) {
        prctl(Step::Capabilities, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.into(), number)?;
    }
    Ok(())
}

/// Whether it has become who it should be: what was said to succeed is read back.
fn verify(wanted: &Spawn) -> Result<(), Failure> {
    let differs = Err(Failure { step: Step::Verify, errno: libc::EPERM, program: 0 });
    if let Some(user) = wanted.user {
        let mut ids = [0u32; 3];
        for (call, expected) in [(number::GETRESUID, user.uid), (number::GETRESGID, user.gid)] {
            let [real, effective, saved] = &mut ids;
            // SAFETY: the kernel writes one 32-bit id to each of three places.
            check(Step::Verify, unsafe { call!(call, real, effective, saved) })?;
            if ids != [expected; 3] {
                return differs;
            }
        }
        // SAFETY: with no room for any, the kernel tells how many groups there are and writes none.
        let groups = unsafe { call!(number::GETGROUPS, 0, ptr::null_mut::<u32>()) };
        if check(Step::Verify, groups)? != user.groups.len() as c_long {
            return differs;
        }
    }
    if wanted.bounds.no_new_privs && prctl(Step::Verify, libc::PR_GET_NO_NEW_PRIVS, 0, 0)? != 1 {
        return differs;
    }
    if let Some(mask) = wanted.bounds.capabilities {
        let [low, high] = capabilities()?;
        let has = |half: Half, bits: u32| half.permitted == bits && half.inheritable == bits;
        if !has(low, mask as u32) || !has(high, (mask >> 32) as u32) {
            return differs;
        }
    }
    Ok(())
}

fn set_oom_score_adj(text: &str) -> Result<(), Failure> {
    let path = crate::sys::limits::OOM_SCORE_ADJ.as_ptr();
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: `path` is a C string constant.
    let fd = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path, flags) };
    let fd = check(Step::OomScore, fd)? as c_int;
    // SAFETY: the pointer and the length are those of `text`, which the parent keeps alive.
    let written = unsafe { call!(libc::SYS_write, fd, text.as_ptr(), text.len()) };
    let written = check(Step::OomScore, written);
    close(fd);
    written.map(|_| ())
}

/// Ids are 32 bits wide; on some old architectures the plain names take 16.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
mod number {
    pub(super) use libc::{
        SYS_getgroups as GETGROUPS, SYS_getresgid as GETRESGID, SYS_getresuid as GETRESUID,
        SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID,
    };
}
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
mod number {
    pub(super) use libc::{
        SYS_getgroups32 as GETGROUPS, SYS_getresgid32 as GETRESGID, SYS_getresuid32 as GETRESUID,
        SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
    };
}

fn check(step: Step, result: c_long) -> Result<c_long, Failure> {
    errno(result).map_or(Ok(result), |errno| Err(Failure { step, errno, program: 0 }))
}

/// The kernel's own count of signals; its masks are 64 bits wide.
const SIGNALS: c_int = 64;
const MASK_BYTES: usize = 8;

/// Every signal, as a set.
pub(super) const ALL_SIGNALS: u64 = u64::MAX;

/// An exec resets what is handled but keeps what is ignored, and Rust ignores SIGPIPE.
fn reset_dispositions(signals: u64) {
    // The kernel's sigaction, whose layout differs between architectures: all zero is "default".
    let default = [0u64; 8];
    for signal in (1..=SIGNALS).filter(|signal| signals >> (signal - 1) & 1 == 1) {
        // SAFETY: the kernel reads its sigaction, at most 32 bytes, from `default` and writes nothing.
        // The table of dispositions is the child's own (no CLONE_SIGHAND). SIGKILL and SIGSTOP fail: fine.
        unsafe { call!(libc::SYS_rt_sigaction, signal, &default, ptr::null::<c_void>(), MASK_BYTES) };
    }
}

/// The signals that this process ignores, as a set: what it was started with, and SIGPIPE. Nothing in pmx ignores one
/// later. (Only for machines where the kernel's sigaction begins with the handler: see `clone3`.)
pub(super) fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    let is_ignored = |signal: &c_int| {
        let mut action = [0u64; 8];
        // SAFETY: the kernel reads nothing, and writes its sigaction, at most 32 bytes, to `action`.
        let done =
            unsafe { call!(libc::SYS_rt_sigaction, *signal, ptr::null::<c_void>(), &mut action, MASK_BYTES) };
        done == 0 && action[0] == libc::SIG_IGN as u64
    };
    let set = || (1..=SIGNALS).filter(is_ignored).map(|signal| 1 << (signal - 1)).sum();
    *IGNORED.get_or_init(set)
}

/// Sets which signals are blocked in this thread, all 64 of them: libc's own call leaves out those it uses.
pub(super) fn set_signal_mask(mask: u64, before: Option<&mut u64>) {
    let before: *mut u64 = before.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the kernel reads 8 bytes of `mask` and writes 8 to `before` unless that is null.
    unsafe { call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &mask, before, MASK_BYTES) };
}

/// Gives every fd its number, whatever the overlap: first all out of the way, then each into its place.
fn place_fds(moves: &mut [Move]) -> Result<(), Failure> {
    let above = moves.last().map_or(0, |m| m.target.saturating_add(1));
    for m in moves.iter_mut().filter(|m| m.source < above) {
        // SAFETY: fcntl with an integer touches no memory; the child's table of fds is its own.
        let moved = unsafe { call!(libc::SYS_fcntl, m.source, libc::F_DUPFD_CLOEXEC, above) };
        m.source = check(Step::Fds, moved)? as c_int;
    }
    for m in moves.iter() {
        // SAFETY: as above. Source and target differ by now, so the copy is made and is inheritable.
        check(Step::Fds, unsafe { call!(libc::SYS_dup3, m.source, m.target, 0) })?;
    }
    Ok(())
}

/// Closes all that is not a target.
fn close_others(moves: &[Move], close_range: bool) {
    if close_range && close_gaps(moves) {
        return;
    }
    // Linux before 5.9, or a sandbox that predates the call.
    if close_listed(moves).is_none() {
        close_counted(moves);
    }
}

fn close_gaps(moves: &[Move]) -> bool {
    let mut from: u32 = 0;
    let mut done = true;
    let mut close = |from: u32, to: u32| {
        // SAFETY: close_range takes integers. The fds are the child's own copies, which it does not use.
        done &= unsafe { call!(libc::SYS_close_range, from, to, 0) } == 0;
    };
    for target in moves.iter().map(|m| m.target as u32) {
        if target > from {
            close(from, target.wrapping_sub(1));
        }
        from = target.wrapping_add(1);
    }
    close(from, u32::MAX);
    done
}

fn is_target(moves: &[Move], fd: c_int) -> bool {
    moves.iter().any(|m| m.target == fd)
}

fn close(fd: c_int) {
    // SAFETY: the fd is the child's own copy, which it does not use.
    unsafe { call!(libc::SYS_close, fd) };
}

/// Closes what /proc lists as open; `None` where there is no /proc.
fn close_listed(moves: &[Move]) -> Option<()> {
    let path = c"/proc/self/fd";
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `path` is a C string constant.
    let dir = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) } as c_int;
    if dir < 0 {
        return None;
    }
    let mut buffer = [0u8; 2048];
    loop {
        // SAFETY: the pointer and the length are those of `buffer`; the kernel asks for no alignment.
        let read = unsafe { call!(libc::SYS_getdents64, dir, buffer.as_mut_ptr(), buffer.len()) };
        let Some(mut entries) = usize::try_from(read).ok().and_then(|read| buffer.get(..read)) else {
            break;
        };
        if entries.is_empty() {
            break;
        }
        // Each entry: inode (8 bytes), offset (8), its own length (2), type (1), name.
        while let (Some(&[low, high]), Some(name)) = (entries.get(16..18), entries.get(19..)) {
            if let Some(fd) = leading_number(name).filter(|&fd| fd != dir && !is_target(moves, fd)) {
                close(fd);
            }
            entries = entries.get(usize::from(u16::from_ne_bytes([low, high]))..).unwrap_or(&[]);
        }
    }
    close(dir);
    Some(())
}

fn leading_number(name: &[u8]) -> Option<c_int> {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0i32, |n, d| n.wrapping_mul(10).wrapping_add(i32::from(d.wrapping_sub(b'0'))));
    name.first().is_some_and(u8::is_ascii_digit).then_some(number)
}

/// The last resort: every number there could be.
fn close_counted(moves: &[Move]) {
    const AT_LEAST: u64 = 65_536;
    const AT_MOST: u64 = 1 << 20;
    let open_files = open_file_limit(None).map_or(AT_LEAST, |[soft, _]| soft).clamp(AT_LEAST, AT_MOST);
    for fd in (0..open_files as c_int).filter(|&fd| !is_target(moves, fd)) {
        close(fd);
    }
}

/// Never above what holds: a limit can be lowered by everybody.
fn limit_open_files([soft, hard]: [u64; 2]) -> Result<(), Failure> {
    let [_, highest] = open_file_limit(None)?;
    let hard = hard.min(highest);
    open_file_limit(Some(&[soft.min(hard), hard])).map(|_| ())
}

fn open_file_limit(new: Option<&[u64; 2]>) -> Result<[u64; 2], Failure> {
    // The C libraries differ in the type.
    #[allow(clippy::unnecessary_cast)]
    resource_limit(Step::OpenFiles, libc::RLIMIT_NOFILE as u32, new)
}

/// Reads a limit, soft and hard, and sets it to `new` if given.
fn resource_limit(step: Step, resource: u32, new: Option<&[u64; 2]>) -> Result<[u64; 2], Failure> {
    let mut old = [0u64; 2];
    let new: *const [u64; 2] = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: prlimit64 has two 64-bit numbers on every architecture; it reads `new` unless that is null
    // and writes `old`. Process 0 is this one.
    let done = unsafe { call!(libc::SYS_prlimit64, 0, resource, new, &mut old) };
    check(step, done).map(|_| old)
}

/// Tries each candidate as execvp does; returns only if none could be executed.
fn execute(plan: &mut Plan) -> Result<Infallible, Failure> {
    let mut best: Option<Failure> = None;
    for (index, program) in plan.wanted.programs.iter().enumerate() {
        let program = program.as_ptr();
        let mut errno = execve(program, &plan.argv, &plan.env);
        if errno == libc::ENOEXEC && is_text(program) {
            if let Some(script) = plan.shell_argv.get_mut(1) {
                *script = program;
            }
            errno = execve(SHELL.as_ptr(), &plan.shell_argv, &plan.env);
        }
        // A file that is there and yet not found names an interpreter that is not.
        let interpreter = errno == libc::ENOENT && exists(program);
        let step = if interpreter { Step::Interpreter } else { Step::Exec };
        let failure = Failure { step, errno, program: index };
        match errno {
            libc::ENOENT | libc::ENOTDIR if !interpreter => best = best.or(Some(failure)),
            libc::ENOENT | libc::EACCES => match best {
                Some(Failure { step: Step::Interpreter, .. } | Failure { errno: libc::EACCES, .. }) => {}
                _ => best = Some(failure),
            },
            _ => return Err(failure),
        }
    }
    Err(best.unwrap_or(Failure { step: Step::Exec, errno: libc::ENOENT, program: 0 }))
}

/// Returns the errno; if it succeeds, it does not return.
fn execve(program: *const c_char, argv: &[*const c_char], env: &[*const c_char]) -> i32 {
    // SAFETY: `program` is a C string, `argv` and `env` are NULL-terminated arrays of C strings, all kept
    // alive by the parent; the kernel only reads them.
    let result = unsafe { call!(libc::SYS_execve, program, argv.as_ptr(), env.as_ptr()) };
    errno(result).unwrap_or(0)
}

fn exists(path: *const c_char) -> bool {
    // SAFETY: `path` is a C string kept alive by the parent.
    unsafe { call!(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) == 0 }
}

/// Whether a file may be a script: a shell refuses what has a NUL byte at its beginning, and so a
/// binary for another machine is reported as what it is.
fn is_text(path: *const c_char) -> bool {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: `path` is a C string kept alive by the parent.
    let fd = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path, flags) } as c_int;
    if fd < 0 {
        // Executable but not readable: the shell could not read it either.
        return false;
    }
    let mut buffer = [0u8; 128];
    // SAFETY: the pointer and the length are those of `buffer`.
    let read = unsafe { call!(libc::SYS_read, fd, buffer.as_mut_ptr(), buffer.len()) };
    close(fd);
    let start = usize::try_from(read).ok().and_then(|read| buffer.get(..read));
    start.is_some_and(|start| !start.contains(&0))
}
