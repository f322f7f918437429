//! Sweeps: an ordinary day of a daemon, lived again and again, each time with one fault at another place (B11).
//!
//! `b11_1` (here) has a system call fail, by strace: of the keeper, of the daemon, or of a child of theirs on its way to
//! its program. `b11_2` (in `steps`) has the daemon abort at one of the places that it passes whenever it changes
//! something. A run of the tests takes a sample, which is always the same one. With `PMX_TEST_SWEEP=all` every
//! case is taken, which lasts an hour or two; `PMX_TEST_SWEEP=serve:openat` takes those with that in their names, as a
//! failure tells them.

mod calls;
#[cfg(feature = "load")]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::probe::{self, Client};
use crate::support::{DEADLINE, Home, Ran, finish, is_alive, pause, signal, wait_for, wait_until};
use calls::{Trace, errors};

/// Days that are lived at a time, beside other tests, and alone: most of one is waiting.
const AT_A_TIME: [usize; 2] = [4, 16];
/// Cases of a usual run, beside those that once found something.
const SAMPLE: usize = 32;
/// Which are always taken.
const FOUND: &[&str] = &[
    "end:epoll_ctl:1:ENOMEM",
    "succeed:epoll_create1:1:EMFILE",
    "succeed:epoll_ctl:1:ENOSPC",
    "find:epoll_create1:1:EMFILE",
    "start:getdents64:1:EIO",
    "find:openat:8:EIO",
    "find:openat:14:EIO",
    "succeed:write:1:EIO",
];
/// What tells of a daemon.
const LEFT: [&str; 2] = ["pmx.sock", "pmx.pid"];
/// So long a fault may keep an app from being as it is declared; then the tracer goes away and takes it along.
const PATIENCE: Duration = Duration::from_secs(3);

/// When strace is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// From the keeper's first call until the daemon serves, and for a short while then.
    Start,
    /// While a daemon serves.
    Serve,
    /// When another daemon takes over from one that was killed.
    Succeed,
    /// When a daemon and its keeper were killed and others find what they left.
    Find,
    /// When everything ends.
    End,
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::Start, "start"),
    (Stage::Serve, "serve"),
    (Stage::Succeed, "succeed"),
    (Stage::Find, "find"),
    (Stage::End, "end"),
];

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

/// A day.
struct Day {
    trace: Option<Trace>,
    home: Home,
    /// The processes that there were before: there are many, and each look takes its time.
    before: BTreeSet<i32>,
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

    /// A command. While no daemon can begin, it waits; then the fault goes away.
    fn ask(&mut self, args: &[&str]) -> Ran {
        let mut command = self.home.command(args).spawn().unwrap();
        let until = Instant::now() + PATIENCE;
        while command.try_wait().unwrap().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if command.try_wait().unwrap().is_none() {
            self.end_trace();
        }
        finish(command)
    }

    /// The processes. It may be this connection that fails.
    fn list(&mut self) -> Vec<Value> {
        let mut answered = || Some(self.ask(&["jlist"])).filter(|ran| ran.code == 0);
        serde_json::from_str(&wait_for("a list", &mut answered).out).unwrap()
    }

    /// A command. It may fail, and says why; then it is given again, at last without a fault.
    fn tell(&mut self, args: &[&str], is_done: impl Fn(&[Value]) -> bool) {
        let mut last = None;
        for attempt in 0..4 {
            if attempt == 2 {
                self.end_trace();
            }
            let ran = self.ask(args);
            if ran.code == 0 {
                return;
            }
            assert_told(args, &ran);
            last = Some(ran);
            let list = self.ask(&["jlist"]);
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
        panic!("{args:?} fails without a fault as well: {last:?}");
    }

    /// What lives is what is declared, and that is as it should be; soon, or once there is no fault.
    fn settles(&mut self, what: &str, is_right: impl Fn(&[Value]) -> bool) {
        let mut seen = String::new();
        for patience in [PATIENCE, DEADLINE] {
            let began = Instant::now();
            while began.elapsed() < patience {
                let ran = self.ask(&["jlist"]);
                let list: Vec<Value> = serde_json::from_str(&ran.out).unwrap_or_default();
                let living = self.living(&pids(&list));
                if ran.code == 0 && living == pids(&list) && is_right(&list) {
                    return;
                }
                seen = format!("{:?}, listed {:?}, living {living:?}", statuses(&list), pids(&list));
                pause(began.elapsed());
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
        let mut over = false;
        wait_until("a daemon, or its end", || {
            let strace = self.trace.as_mut().and_then(|trace| trace.strace.as_mut());
            over = strace.is_some_and(|strace| strace.try_wait().unwrap().is_some());
            over || UnixStream::connect(self.home.path().join("pmx.sock")).is_ok()
        });
        if over {
            // It could not start: it said why, and left nothing behind.
            self.end_trace();
            let said = std::fs::read_to_string(self.home.dir().join("said")).unwrap();
            let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("strace: ")).collect();
            assert!(!said.is_empty(), "it said nothing");
            assert!(said.iter().all(|line| !line.contains("os error")), "{said:?}");
            assert_eq!(probe::daemons(&self.home), [0; 0]);
            self.assert_clean();
        }
    }

    fn assert_clean(&self) {
        for left in LEFT {
            assert!(!self.home.path().join(left).exists(), "{left} is left");
        }
    }

    fn attach(&mut self, case: Option<&Case>, pids: &[i32]) {
        self.trace = Some(Trace::attach(&self.home, case, pids));
    }

    /// The keeper and the daemon. (The pid file may be what failed, and the keeper's name.)
    fn family(&self) -> [i32; 2] {
        // It may be on its way out.
        wait_for("a daemon", || {
            let daemon = pong(&mut Client::connect(&self.home));
            Some([probe::stat(daemon)?[1].parse().unwrap(), daemon])
        })
    }

    /// How many fds the daemon has while this is its only client.
    fn fds(&self) -> usize {
        wait_for("the daemon's fds", || {
            // When the second one is answered, the first one has been forgotten.
            let _ = pong(&mut Client::connect(&self.home));
            let mut client = Client::connect(&self.home);
            // It may be on its way out.
            let mut fds = probe::fds(pong(&mut client));
            // Rust's library keeps it open, where getrandom(2) is not to be had.
            fds.retain(|(_, of)| of != "/dev/urandom");
            fds.len().checked_sub(1)
        })
    }

    /// Lives through a stage.
    fn live(&mut self, stage: Stage, case: Option<&Case>) {
        match stage {
            Stage::Start => {
                self.trace_start(case);
                self.start(1);
            }
            Stage::Serve => {
                self.home.pmx(&["list"]).ok();
                self.attach(case, &self.family());
                self.start(2);
                self.tell(&["restart", "web"], |_| false);
                self.settles("restart", |list| is(list, "web", "online", 2) && pids(list).len() == 4);
                let tick = |list: &[Value]| pids_of(list, "tick");
                let before = tick(&self.list());
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
                let before = pids(&self.home.list());
                let [keeper, daemon] = self.family();
                self.attach(case, &[keeper]);
                signal(daemon, libc::SIGKILL);
                self.settles("succession", |list| pids(list) == before);
                if self.ask(&["restart", "tick"]).err.contains("safe mode") {
                    self.end_trace();
                    self.home.pmx(&["update"]).ok();
                }
                self.tell(&["restart", "job"], |_| false);
            }
            Stage::Find => {
                self.start(2);
                let before = pids(&self.home.list());
                let [keeper, daemon] = self.family();
                for (pid, number) in
                    [(keeper, libc::SIGSTOP), (daemon, libc::SIGKILL), (keeper, libc::SIGKILL)]
                {
                    signal(pid, number);
                }
                wait_until("the end of both", || !is_alive(daemon) && !is_alive(keeper));
                for left in LEFT {
                    let _ = std::fs::remove_file(self.home.path().join(left));
                }
                self.trace_start(case);
                self.settles("finding", |list| pids(list) == before);
                self.tell(&["restart", "job"], |_| false);
            }
            Stage::End => {
                self.start(1);
                let [keeper, daemon] = self.family();
                self.attach(case, &[keeper, daemon]);
                let ran = self.ask(&["kill"]);
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

    /// It is a whole daemon, and at its end nothing is left.
    fn finish(&mut self, fds: Option<usize>) -> usize {
        self.end_trace();
        self.home.pmx(&["ping"]).ok();
        self.home.pmx(&["restart", "all"]).ok();
        self.settles("restart all", |list| list.len() == pids(list).len());
        self.home.pmx(&["delete", "all"]).ok();
        self.end(fds)
    }

    /// Ends a daemon that has no app any more, and had no more fds than that. Returns how many.
    fn end(&mut self, fds: Option<usize>) -> usize {
        self.settles("an empty list", |list| list.is_empty());
        if let Some(fds) = fds {
            let until = Instant::now() + DEADLINE;
            while self.fds() > fds {
                let [_, daemon] = self.family();
                assert!(Instant::now() < until, "more fds than {fds}: {:?}", probe::fds(daemon));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let (fds, [keeper, daemon]) = (self.fds(), self.family());
        self.home.pmx(&["kill"]).ok();
        wait_until("the end of both", || !is_alive(keeper) && !is_alive(daemon));
        assert_eq!(self.living(&[]), [0; 0]);
        self.assert_clean();
        fds
    }
}

/// The pid of the daemon that answers, which may be another one than was asked.
fn pong(client: &mut Client) -> i32 {
    client.ask(1, serde_json::json!({ "verb": "ping" }));
    loop {
        let message = client.message().unwrap();
        if message.get("resumed").is_some() {
            client.ask(1, serde_json::json!({ "verb": "ping", "again": true }));
        }
        if let Some(pid) = message["done"]["answer"]["pong"]["pid"].as_i64() {
            return pid as i32;
        }
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

/// Lives through all of `cases`, several at a time, and fails with the names of those that did not go well.
fn sweep<T: fmt::Display + Sync>(cases: &[T], live: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME[usize::from(wanted().is_some())] {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let lived = std::panic::AssertUnwindSafe(|| live(case));
                    if std::panic::catch_unwind(lived).is_err() {
                        eprintln!("!!! {case}");
                        failures.lock().unwrap().push(case.to_string());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} failed: {failures:#?}", failures.len(), cases.len());
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
        let total: u32 = calls.values().map(|(_, count)| count).sum();
        println!("{name}: {total} calls of {} kinds", calls.len());
        for (call, (before_main, count)) in calls {
            for when in before_main + 1..=count {
                let case = |error: &&'static str| Case { stage, call: call.clone(), when, error };
                cases.extend(errors(&call).iter().map(case));
            }
        }
    }
    let all = cases.len();
    match wanted() {
        Some(part) => cases.retain(|case| case.to_string().contains(&part)),
        None => {
            let has_found = |case: &Case| FOUND.contains(&case.to_string().as_str());
            cases.sort_by_key(|case| (!has_found(case), hash(&case.to_string())));
            cases.truncate(SAMPLE + FOUND.len());
        }
    }
    println!("{} of {all} cases", cases.len());
    let injected = AtomicUsize::new(0);
    sweep(&cases, |case| {
        let mut day = Day::new();
        day.live(case.stage, Some(case));
        let count = day.trace.as_ref().map_or(0, Trace::injected);
        day.finish(Some(fds[&case.stage]));
        injected.fetch_add(usize::from(count > 0), Relaxed);
    });
    let injected = injected.into_inner();
    println!("{} cases, {injected} with a fault, in {:?}", cases.len(), began.elapsed());
    // Whether a call is made as often as on the day that was counted, is up to the machine as well.
    assert!(injected * 10 >= cases.len() * 7, "only {injected} of {}", cases.len());
}
