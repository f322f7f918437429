//! Sweeps: an ordinary day of a daemon, lived again and again, each time with one fault at another place (B11).
//!
//! `b11_1` has a system call fail, by strace: of the keeper, of the daemon, or of a child of theirs on its way to
//! its program. A run of the tests takes a sample, which is always the same one. With `PMX_TEST_SWEEP=all` every case
//! is taken, which lasts about an hour; `PMX_TEST_SWEEP=serve:openat` takes those whose names begin like that, as a
//! failure tells them.
//!
//! `b11_2` has the daemon abort at the n-th of the places that it passes whenever it changes something (src/sys/failpoint.rs):
//! some of them, or all of them with `PMX_TEST_SWEEP=all`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::probe;
use crate::support::{DEADLINE, Home, Ran, is_alive, signal, wait_until};

/// Days that are lived at a time: most of one is waiting.
const AT_A_TIME: usize = 4;
/// Cases of a usual run.
const SAMPLE: usize = 32;
const EARLY: u32 = 5;
/// So long a fault may keep an app from being as it is declared; then the tracer goes away and takes it along.
const PATIENCE: Duration = Duration::from_secs(3);

/// What system calls fail with for reasons that are not ours to prevent: a signal, a resource that is short, a device,
/// a sandbox. (EAGAIN only where it tells that something is short: as "nothing there" it would be a lie, and
/// epoll would rightly never tell of what is there.)
const ERRORS: &[(&str, &[&str])] = &[
    ("accept4", &["EINTR", "EMFILE", "ENOMEM", "EPERM"]),
    ("bind", &["ENOMEM", "ENOSPC", "EIO", "EPERM"]),
    ("brk", &["ENOMEM"]),
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
    ("fchmod", &["EIO", "EPERM"]),
    ("fcntl", &["EINTR", "EMFILE", "EPERM"]),
    ("flock", &["EINTR", "ENOMEM"]),
    ("ftruncate", &["EINTR", "EIO", "EPERM"]),
    ("getpeername", &["ENOMEM", "EPERM"]),
    ("getdents64", &["ENOMEM", "EIO"]),
    ("getrandom", &["EINTR", "EAGAIN", "ENOSYS"]),
    ("getsockopt", &["ENOMEM", "EPERM"]),
    ("ioctl", &["EIO"]),
    ("kill", &["EPERM"]),
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
    ("socket", &["EMFILE", "ENOMEM", "EPERM"]),
    ("socketpair", &["EMFILE", "ENOMEM", "EPERM"]),
    ("statx", &["ENOMEM", "EIO", "EPERM", "ENOSYS"]),
    ("unlink", &["EIO", "EPERM"]),
    ("unlinkat", &["EIO", "EPERM"]),
    ("wait4", &["EINTR"]),
    ("waitid", &["EINTR"]),
    ("write", &["EINTR", "ENOSPC", "EIO"]),
];

/// Calls that cannot fail for any of these reasons; those of the loader and of libc before `main`; and close(2),
/// which closes even when it fails: where strace has it fail, it closes nothing.
const SURE: &[&str] = &[
    "access",
    "arch_prctl",
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
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "tgkill",
    "umask",
];

/// When strace is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// From the keeper's first call until the daemon serves, and for a short while then.
    Start,
    /// While a daemon serves.
    Serve,
    /// When another daemon takes over from one that was killed.
    Succeed,
    /// When everything ends.
    End,
}

const STAGES: [(Stage, &str); 4] =
    [(Stage::Start, "start"), (Stage::Serve, "serve"), (Stage::Succeed, "succeed"), (Stage::End, "end")];

/// One fault: the `when`-th time that a process makes this call, it fails. (strace counts by process: it
/// is the daemon's, the keeper's, and that of every child.)
#[derive(Clone, Debug)]
struct Case {
    stage: Stage,
    call: String,
    when: u32,
    error: &'static str,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = STAGES.iter().find(|(stage, _)| *stage == self.stage).map_or("", |(_, name)| name);
        write!(f, "{name}:{}:{}:{}", self.call, self.when, self.error)
    }
}

/// A tracer. What it traced lives on without it.
struct Trace {
    strace: Option<Child>,
    /// It started what it traces: then it would take it along when it was asked to go.
    is_parent: bool,
    log: PathBuf,
}

impl Trace {
    /// Its options: what it traces and what it has fail.
    fn command(home: &Home, case: Option<&Case>) -> (Command, PathBuf) {
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
    fn attach(home: &Home, case: Option<&Case>, pids: &[i32]) -> Trace {
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

    fn end(&mut self) {
        if let Some(mut strace) = self.strace.take() {
            let number = if self.is_parent { libc::SIGKILL } else { libc::SIGTERM };
            signal(strace.id() as i32, number);
            strace.wait().unwrap();
        }
    }

    /// How often it had a call fail.
    fn injected(&self) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("(INJECTED)").count()
    }

    /// How often each call was made, at most by one process.
    fn calls(&self) -> BTreeMap<String, u32> {
        let log = std::fs::read(&self.log).unwrap();
        let mut by_process: BTreeMap<(String, String), u32> = BTreeMap::new();
        for line in String::from_utf8_lossy(&log).lines() {
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

/// A day.
struct Day {
    trace: Option<Trace>,
    home: Home,
    /// The processes that there were before: there are many, and each look takes its time.
    before: BTreeSet<i32>,
}

/// The keeper, which may have failed to take its name.
fn keeper_of(home: &Home) -> i32 {
    probe::stat(home.daemon_pid().unwrap()).unwrap()[1].parse().unwrap()
}

fn pids(list: &[Value]) -> Vec<i32> {
    let mut pids: Vec<i32> = list.iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    pids.retain(|pid| *pid != 0);
    pids.sort();
    pids
}

/// Names and statuses.
fn statuses(list: &[Value]) -> Vec<(&str, &str)> {
    list.iter()
        .map(|process| (process["name"].as_str().unwrap(), process["pm2_env"]["status"].as_str().unwrap()))
        .collect()
}

fn is(list: &[Value], name: &str, status: &str, count: usize) -> bool {
    statuses(list).iter().filter(|(known, is)| *known == name && *is == status).count() == count
        && statuses(list).iter().filter(|(known, _)| *known == name).count() == count
}

/// It failed, and said why as it should.
#[track_caller]
fn assert_told(args: &[&str], ran: &Ran) {
    assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
    let reasons: Vec<&str> = ran.err.lines().filter(|line| !line.starts_with("    ")).collect();
    assert!((1..=3).contains(&reasons.len()), "{args:?}: {ran:?}");
    for line in reasons {
        assert!(line.len() > 10 && line.len() < 400 && line.contains(' '), "{args:?}: {ran:?}");
        assert!(!line.contains("os error") && !line.contains("panicked"), "{args:?}: {ran:?}");
    }
}

impl Day {
    fn new() -> Day {
        let home = Home::new();
        for name in ["web", "job", "tick"] {
            home.file(&format!("{name}.sh"), "#!/bin/sh\nexec sleep 1000\n");
        }
        Day { trace: None, home, before: probe::pids().into_iter().collect() }
    }

    /// The processes of apps, whatever the daemon knows of them. It knows of those that are `listed`.
    fn living(&self, listed: &[i32]) -> Vec<i32> {
        let mark = format!("PMX_HOME={}", self.home.path().display());
        let is_app = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.clone().any(|v| v == mark.as_bytes()) && variables.any(|v| v.starts_with(b"pm_id="))
        };
        let mut pids = probe::pids();
        pids.retain(|pid| !self.before.contains(pid) || listed.contains(pid));
        pids.retain(is_app);
        pids.sort();
        pids
    }

    fn end_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.end();
        }
    }

    /// A command. It may fail, and says why; then it is given again, at last without a fault.
    fn tell(&mut self, args: &[&str], is_done: impl Fn(&[Value]) -> bool) {
        for attempt in 0..4 {
            if attempt == 2 {
                self.end_trace();
            }
            let ran = self.home.pmx(args);
            if ran.code == 0 {
                return;
            }
            assert_told(args, &ran);
            let list = self.home.pmx(&["jlist"]);
            if list.code != 0 {
                continue;
            }
            let list: Vec<Value> = serde_json::from_str(&list.out).unwrap();
            if is_done(&list) {
                return;
            }
            // What was begun and failed is there, and started by its name.
            if args[0] == "start" {
                let name = args[1].trim_end_matches(".sh");
                if statuses(&list).iter().any(|(known, _)| *known == name) {
                    return self.tell(&["restart", name], is_done);
                }
            }
        }
        panic!("{args:?} fails without a fault as well");
    }

    /// What lives is what is declared, and that is as it should be; soon, or once there is no fault.
    fn settles(&mut self, what: &str, is_right: impl Fn(&[Value]) -> bool) {
        let mut seen = String::new();
        for patience in [PATIENCE, DEADLINE] {
            let until = Instant::now() + patience;
            while Instant::now() < until {
                let ran = self.home.pmx(&["jlist"]);
                let list: Vec<Value> = serde_json::from_str(&ran.out).unwrap_or_default();
                let living = self.living(&pids(&list));
                if ran.code == 0 && living == pids(&list) && is_right(&list) {
                    return;
                }
                seen = format!("{:?}, listed {:?}, living {living:?}", statuses(&list), pids(&list));
                std::thread::sleep(Duration::from_millis(5));
            }
            self.end_trace();
        }
        panic!("{what}: {seen}");
    }

    fn start(&mut self, web: usize) {
        let count = web.to_string();
        self.tell(&["start", "web.sh", "-i", &count], |list| is(list, "web", "online", web));
        self.tell(&["start", "job.sh"], |list| is(list, "job", "online", 1));
        self.tell(&["start", "tick.sh"], |list| is(list, "tick", "online", 1));
        self.settles("start", |list| pids(list).len() == web + 2);
    }

    /// A keeper and a daemon that are traced from birth.
    fn trace_start(&mut self, case: Option<&Case>) {
        let (mut command, log) = Trace::command(&self.home, case);
        let said = std::fs::File::create(self.home.dir().join("said")).unwrap();
        command.args([env!("CARGO_BIN_EXE_pmx"), "daemon", "--foreground"]).stderr(said);
        command.env("PMX_HOME", self.home.path()).env_remove("NODE_OPTIONS").current_dir("/");
        command.process_group(0);
        let strace = command.spawn().unwrap();
        self.trace = Some(Trace { strace: Some(strace), is_parent: true, log });
    }

    fn attach(&mut self, case: Option<&Case>, pids: &[i32]) {
        self.trace = Some(Trace::attach(&self.home, case, pids));
    }

    /// Whether somebody listens.
    fn is_open(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.home.path().join("pmx.sock")).is_ok()
    }

    /// Lives through a stage.
    fn live(&mut self, stage: Stage, case: Option<&Case>) {
        match stage {
            Stage::Start => {
                self.trace_start(case);
                let mut over = false;
                wait_until("a daemon, or its end", || {
                    let strace = self.trace.as_mut().and_then(|trace| trace.strace.as_mut());
                    over = strace.is_some_and(|strace| strace.try_wait().unwrap().is_some());
                    over || self.is_open()
                });
                if over {
                    // It could not start: it said why, and left nobody behind.
                    let said = std::fs::read_to_string(self.home.dir().join("said")).unwrap();
                    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("strace: ")).collect();
                    assert!(!said.is_empty(), "it said nothing");
                    assert!(said.iter().all(|line| !line.contains("os error")), "{said:?}");
                    assert_eq!(probe::daemons(&self.home), [0; 0]);
                    self.end_trace();
                }
                self.start(1);
            }
            Stage::Serve => {
                self.home.pmx(&["list"]).ok();
                let daemon = self.home.daemon_pid().unwrap();
                self.attach(case, &[keeper_of(&self.home), daemon]);
                self.start(2);
                self.tell(&["restart", "web"], |_| false);
                self.settles("restart", |list| is(list, "web", "online", 2) && pids(list).len() == 4);
                let tick = |list: &[Value]| pids_of(list, "tick");
                let before = tick(&self.home.list());
                signal(before[0], libc::SIGKILL);
                self.settles("crash", |list| is(list, "tick", "online", 1) && tick(list) != before);
                self.tell(&["stop", "job"], |list| is(list, "job", "stopped", 1));
                self.settles("stop", |list| is(list, "job", "stopped", 1) && pids(list).len() == 3);
                self.tell(&["save"], |_| false);
                self.tell(&["list"], |_| false);
                self.tell(&["delete", "web"], |list| is(list, "web", "online", 0));
                self.settles("delete", |list| pids(list).len() == 1 && list.len() == 2);
            }
            Stage::Succeed => {
                self.start(2);
                let (daemon, before) = (self.home.daemon_pid().unwrap(), pids(&self.home.list()));
                self.attach(case, &[keeper_of(&self.home)]);
                signal(daemon, libc::SIGKILL);
                self.settles("succession", |list| pids(list) == before);
                self.tell(&["restart", "job"], |_| false);
                self.end_trace();
                if self.home.pmx(&["restart", "tick"]).err.contains("safe mode") {
                    self.home.pmx(&["update"]).ok();
                }
            }
            Stage::End => {
                self.start(1);
                let daemon = self.home.daemon_pid().unwrap();
                let keeper = keeper_of(&self.home);
                self.attach(case, &[keeper, daemon]);
                let ran = self.home.pmx(&["kill"]);
                if ran.code != 0 {
                    assert_told(&["kill"], &ran);
                    self.end_trace();
                    self.home.pmx(&["kill"]).ok();
                }
                wait_until("its end", || {
                    !is_alive(daemon) && !is_alive(keeper) && self.living(&[]).is_empty()
                });
                self.end_trace();
                self.start(1);
            }
        }
    }

    /// It is a whole daemon, and at its end nothing is left. Returns how many fds it has without any app.
    fn finish(&mut self, fds: Option<usize>) -> usize {
        self.end_trace();
        self.home.pmx(&["ping"]).ok();
        self.home.pmx(&["restart", "all"]).ok();
        self.settles("restart all", |list| list.len() == pids(list).len());
        self.home.pmx(&["delete", "all"]).ok();
        self.settles("delete all", |list| list.is_empty());
        if let Some(fds) = fds {
            let open = |home: &Home| probe::fds(home.daemon_pid().unwrap());
            let until = Instant::now() + DEADLINE;
            while probe::idle_fds(&self.home) > fds {
                assert!(Instant::now() < until, "more fds than {fds}: {:?}", open(&self.home));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let fds = probe::idle_fds(&self.home);
        let family = [self.home.daemon_pid().unwrap(), keeper_of(&self.home)];
        self.home.pmx(&["kill"]).ok();
        wait_until("the end of both", || !family.into_iter().any(is_alive));
        assert_eq!(self.living(&[]), [0; 0]);
        for left in ["pmx.sock", "pmx.pid"] {
            assert!(!self.home.path().join(left).exists(), "{left} is left");
        }
        fds
    }
}

fn pids_of(list: &[Value], name: &str) -> Vec<i32> {
    let named: Vec<Value> = list.iter().filter(|process| process["name"] == name).cloned().collect();
    pids(&named)
}

/// Whether there is strace. If not, that is said, loudly.
fn can_trace() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!(
            "\n!!! SKIPPED: strace is not installed (.ci/run brings it); failing calls are NOT tested\n"
        );
    }
    there
}

/// Which cases are asked for.
fn wanted() -> Option<String> {
    let wanted = std::env::var("PMX_TEST_SWEEP").ok()?;
    Some(if wanted == "all" { String::new() } else { wanted })
}

/// FNV-1a: for a choice that is the same in every run.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn b11_1_every_system_call_may_fail() {
    if !can_trace() {
        return;
    }
    let began = Instant::now();
    let mut cases: Vec<Case> = Vec::new();
    let mut fds = BTreeMap::new();
    for (stage, name) in STAGES {
        let mut day = Day::new();
        day.live(stage, None);
        let calls = day.trace.as_ref().unwrap().calls();
        fds.insert(stage, day.finish(None));
        let total: u32 = calls.values().sum();
        println!("{name}: {total} calls of {} kinds", calls.len());
        for (call, count) in calls {
            if SURE.contains(&call.as_str()) {
                continue;
            }
            let errors = ERRORS.iter().find(|(known, _)| *known == call).map(|(_, errors)| *errors);
            let errors =
                errors.unwrap_or_else(|| panic!("the sweep knows nothing of {call}: give it errors"));
            for when in 1..=count {
                let case = |error: &&'static str| Case { stage, call: call.clone(), when, error };
                cases.extend(errors.iter().map(case));
            }
        }
    }
    println!("{} cases in all", cases.len());
    match wanted() {
        Some(prefix) => cases.retain(|case| case.to_string().starts_with(&prefix)),
        None => {
            // The first calls of a kind are made in every run: so the sample is always the same one.
            cases.retain(|case| case.when <= EARLY);
            cases.sort_by_key(|case| hash(&case.to_string()));
            cases.truncate(SAMPLE);
        }
    }
    let (next, injected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let lived = std::panic::catch_unwind(|| {
                        let mut day = Day::new();
                        day.live(case.stage, Some(case));
                        let count = day.trace.as_ref().map_or(0, Trace::injected);
                        day.finish(Some(fds[&case.stage]));
                        count
                    });
                    match lived {
                        Ok(count) => drop(injected.fetch_add(usize::from(count > 0), Relaxed)),
                        Err(_) => {
                            eprintln!("!!! {case}");
                            failures.lock().unwrap().push(case.to_string());
                        }
                    }
                }
            });
        }
    });
    let injected = injected.into_inner();
    println!("{} cases, {injected} with a fault, in {:?}", cases.len(), began.elapsed());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed: {failures:#?}", failures.len());
}

/// Another day, with a cluster, whose daemon aborts at the n-th step of it. False: it has fewer.
#[cfg(feature = "load")]
fn dies_at(step: u32) -> bool {
    let mut day = Day::new();
    let port = crate::support::free_port();
    let (text, point) = (port.to_string(), format!("*:{step}"));
    let (node, app) = (crate::support::node(20), crate::support::server::app("hello.cjs"));
    let start = ["start", app.to_str().unwrap(), "-n", "app", "-i", "2", "--balance", "rr"];
    let options = ["--interpreter", node.to_str().unwrap(), "--listen-timeout", "20000", "--bake-time", "50"];
    let env = [("PMX_FAILPOINT", point.as_str()), ("PORT", &text)];
    let start = [&start[..], &options].concat();
    let ran = day.home.pmx_with(&env, &start);
    let never_began = ran.code != 0;
    if never_began {
        // It died before it served anybody: that is said, and the next one is another one.
        assert_told(&start, &ran);
        day.home.pmx_with(&env[1..], &start).ok();
    }
    let first = day.is_declared(step, "start", 2);
    wait_until("an answer", || crate::support::get(port, "/").is_ok());
    day.home.pmx(&["reload", "app"]).ok();
    let second = day.is_declared(step, "reload", 2);
    assert!(first.iter().all(|pid| !second.contains(pid)), "{step}: {first:?} {second:?}");
    wait_until("an answer", || crate::support::get(port, "/").is_ok());
    day.home.pmx(&["restart", "0"]).ok();
    let third = day.is_declared(step, "restart", 2);
    signal(third[0], libc::SIGKILL);
    wait_until("another one", || {
        let list = day.home.list();
        !pids(&list).contains(&third[0]) && is(&list, "app", "online", 2)
    });
    day.is_declared(step, "crash", 2);
    for (to, count) in [("3", 3), ("1", 1)] {
        day.home.pmx(&["scale", "app", to]).ok();
        day.is_declared(step, to, count);
    }
    wait_until("an answer", || crate::support::get(port, "/").is_ok());
    day.home.pmx(&["stop", "app"]).ok();
    day.is_declared(step, "stop", 0);
    day.home.pmx(&["start", "app"]).ok();
    day.is_declared(step, "start again", 1);
    day.home.pmx(&["delete", "all"]).ok();
    day.is_declared(step, "delete", 0);
    let log = std::fs::read_to_string(day.home.path().join("pmx.log")).unwrap();
    let died = log.contains("failpoint");
    assert!(never_began || died == log.contains("took over"), "{step}: {log}");
    died
}

#[cfg(feature = "load")]
impl Day {
    /// So many workers live, and they are what is declared.
    fn is_declared(&mut self, step: u32, what: &str, count: usize) -> Vec<i32> {
        self.settles(&format!("step {step}, {what}"), |list| {
            pids(list).len() == count && (count == 0 || is(list, "app", "online", count))
        });
        pids(&self.home.list())
    }
}

#[cfg(feature = "load")]
#[test]
fn b11_2_every_step_may_be_the_last_one() {
    let began = Instant::now();
    let all = wanted().is_some();
    // In a usual run ever fewer, the later they are: 1, 2, 3, 5, 8, 12, 18 ...
    let next = |step: u32| if all { step + 1 } else { step + step / 2 + 1 };
    let (at, deaths) = (Mutex::new(1), AtomicUsize::new(0));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let step = {
                        let mut at = at.lock().unwrap();
                        let step = *at;
                        *at = next(step);
                        step
                    };
                    match dies_at(step) {
                        true => drop(deaths.fetch_add(1, Relaxed)),
                        false => over.store(true, Relaxed),
                    }
                }
            });
        }
    });
    let (deaths, last) = (deaths.into_inner(), at.into_inner().unwrap());
    println!("{deaths} deaths at steps up to {last}, in {:?}", began.elapsed());
    assert!(deaths >= 10, "only {deaths}");
}
