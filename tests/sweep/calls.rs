//! Having system calls fail: which, how, and the tracer that does it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Case;
use crate::support::{Home, signal};

/// What system calls fail with for reasons that are not ours to prevent: a signal, a resource that is short, a device,
/// a sandbox. (EAGAIN only where it tells that something is short: as "nothing there" it would be a lie, and
/// epoll would rightly never tell of what is there.)
const ERRORS: &[(&str, &[&str])] = &[
    ("accept4", &["EINTR", "EMFILE", "ENOMEM", "EPERM"]),
    ("bind", &["ENOMEM", "ENOSPC", "EIO", "EPERM"]),
    ("chdir", &["ENOMEM", "EIO", "EPERM"]),
    ("chmod", &["EIO", "EPERM"]),
    ("clone", &["EAGAIN", "ENOMEM", "EPERM", "ENOSYS"]),
    ("clone3", &["ENOSYS"]),
    ("close_range", &["EMFILE", "ENOMEM", "EPERM", "ENOSYS"]),
    ("connect", &["EAGAIN", "EPERM"]),
    ("dup3", &["EINTR", "EMFILE"]),
    ("epoll_create1", &["EMFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE", "ENOMEM"]),
    ("execve", &["EAGAIN", "ENOMEM", "EMFILE", "EIO", "EPERM"]),
    ("fallocate", &["EINTR", "ENOSPC", "EOPNOTSUPP"]),
    ("fchmod", &["EIO", "EPERM"]),
    ("fcntl", &["EMFILE"]),
    ("flock", &["EINTR", "ENOMEM"]),
    ("fstatfs", &["EIO", "ENOSYS"]),
    ("ftruncate", &["EINTR", "EIO", "EPERM"]),
    ("futex", &["EINTR", "EAGAIN", "ENOSYS"]),
    ("getpeername", &["ENOMEM", "EPERM"]),
    ("getdents64", &["ENOMEM", "EIO"]),
    ("getrandom", &["EINTR", "EAGAIN", "ENOSYS"]),
    ("getsockopt", &["ENOMEM", "EPERM"]),
    ("ioctl", &["EIO"]),
    ("kcmp", &["EPERM", "ENOSYS"]),
    ("kill", &["EPERM"]),
    ("linkat", &["EPERM", "ENOSPC", "EIO"]),
    ("listen", &["EPERM"]),
    ("lseek", &["EIO"]),
    ("madvise", &["EAGAIN", "ENOMEM"]),
    ("memfd_create", &["EMFILE", "ENOMEM", "EPERM", "ENOSYS"]),
    ("mkdir", &["ENOMEM", "ENOSPC", "EIO", "EPERM"]),
    ("mmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("newfstatat", &["ENOMEM", "EIO"]),
    ("openat", &["EINTR", "ENOMEM", "EMFILE", "ENOSPC", "EIO", "EPERM"]),
    ("pidfd_open", &["EMFILE", "ENOMEM", "EPERM", "ENOSYS"]),
    ("pidfd_send_signal", &["EPERM", "ENOSYS"]),
    ("pipe2", &["EMFILE", "ENOMEM"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("prctl", &["EPERM", "ENOSYS"]),
    ("pread64", &["EINTR", "EIO"]),
    ("prlimit64", &["EPERM", "ENOSYS"]),
    ("pwrite64", &["EINTR", "ENOSPC", "EIO"]),
    ("read", &["EINTR", "ENOMEM", "EIO"]),
    ("recvfrom", &["EINTR", "ENOMEM", "EIO"]),
    ("recvmsg", &["EINTR", "ENOMEM"]),
    ("rename", &["ENOMEM", "ENOSPC", "EIO", "EPERM"]),
    ("rmdir", &["EIO", "EPERM"]),
    ("rt_sigtimedwait", &["EINTR", "EAGAIN"]),
    ("sched_getaffinity", &["EPERM", "ENOSYS"]),
    ("sendmsg", &["EINTR", "ENOMEM"]),
    ("sendto", &["EINTR", "ENOMEM", "EIO"]),
    ("setitimer", &["EPERM", "ENOSYS"]),
    ("setsid", &["EPERM"]),
    ("setsockopt", &["ENOMEM", "EPERM"]),
    ("socket", &["EMFILE", "ENOMEM", "EPERM"]),
    ("socketpair", &["EMFILE", "ENOMEM", "EPERM"]),
    ("statfs", &["EIO", "EPERM", "ENOSYS"]),
    ("statx", &["ENOMEM", "EIO", "EPERM", "ENOSYS"]),
    ("unlink", &["EIO", "EPERM"]),
    ("unlinkat", &["EIO", "EPERM"]),
    ("wait4", &["EINTR"]),
    ("waitid", &["EINTR"]),
    ("write", &["EINTR", "ENOSPC", "EIO"]),
];

/// Calls that cannot fail for any of these reasons, and those whose failure strace cannot feign: close(2) closes even
/// when it fails, and brk(2) tells of a failure by no error.
const SURE: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "close",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "getcwd",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getsockname",
    "gettid",
    "getuid",
    "munmap",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "tgkill",
    "umask",
];

/// What a call may fail with.
pub fn errors(call: &str) -> &'static [&'static str] {
    if SURE.contains(&call) {
        return &[];
    }
    let errors = ERRORS.iter().find(|(known, _)| *known == call).map(|(_, errors)| *errors);
    errors.unwrap_or_else(|| panic!("the sweep knows nothing of {call}: give it errors"))
}

/// A tracer. What it traced lives on without it.
pub struct Trace {
    pub strace: Option<Child>,
    /// It started what it traces: then it would take it along when it was asked to go.
    pub is_parent: bool,
    pub log: PathBuf,
}

impl Trace {
    /// Its options: what it traces and what it has fail.
    pub fn command(home: &Home, case: Option<&Case>) -> (Command, PathBuf) {
        let log = home.dir().join("strace.log");
        let mut command = Command::new("strace");
        // Not those that became another program.
        command.args(["-f", "-b", "execve", "-o", log.to_str().unwrap()]);
        if let Some(Case { call, when, error, .. }) = case {
            let inject = format!("inject={call}:error={error}:when={when}");
            command.args(["-e", &format!("trace={call}"), "-e", &inject]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        (command, log)
    }

    /// Of processes that run.
    pub fn attach(home: &Home, case: Option<&Case>, pids: &[i32]) -> Trace {
        let (mut command, log) = Trace::command(home, case);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        let mut strace = command.spawn().unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        for _ in pids {
            let line = lines.next().unwrap().unwrap();
            assert!(line.ends_with(" attached"), "{line}");
        }
        // It goes on telling whom it follows.
        std::thread::spawn(move || lines.for_each(drop));
        Trace { strace: Some(strace), is_parent: false, log }
    }

    pub fn end(&mut self) {
        if let Some(mut strace) = self.strace.take() {
            let number = if self.is_parent { libc::SIGKILL } else { libc::SIGTERM };
            signal(strace.id() as i32, number);
            strace.wait().unwrap();
        }
    }

    /// How often it had a call fail.
    pub fn injected(&self) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("(INJECTED)").count()
    }

    /// How often each call was made, at most by one process; and how often before `main`, by the loader and the
    /// runtimes of C and Rust, which may end a process without a word.
    pub fn calls(&self) -> BTreeMap<String, (u32, u32)> {
        let log = std::fs::read(&self.log).unwrap();
        let log = String::from_utf8_lossy(&log);
        let begins_anew = log.lines().next().is_some_and(|line| line.contains("execve("));
        // The last that Rust's does is to set up a stack for its handlers.
        let main = if begins_anew { log.find("sigaltstack({").unwrap_or(0) } else { 0 };
        let before_main = Trace::most(&log[..main]);
        let most = Trace::most(&log);
        let before = |call: &str| before_main.get(call).copied().unwrap_or(0);
        most.into_iter().map(|(call, count)| (call.clone(), (before(&call), count))).collect()
    }

    fn most(log: &str) -> BTreeMap<String, u32> {
        let mut by_process: BTreeMap<(String, String), u32> = BTreeMap::new();
        for line in log.lines() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                *by_process.entry((pid.to_string(), call.to_string())).or_default() += 1;
            }
        }
        let mut calls = BTreeMap::new();
        for ((_, call), count) in by_process {
            let most = calls.entry(call).or_insert(0);
            *most = count.max(*most);
        }
        calls
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.end();
    }
}
