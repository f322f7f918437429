//! The supervisor dies, in every way there is, and nobody notices. `PMX_TEST_DEATHS=20` makes it die more often, with a
//! hundred children.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::probe::{self, Client, daemons, keeper_pid, kill_both};
use crate::support::server::{Background, Server, app};
use crate::support::{Home, finish, is_alive, node, signal, wait_until};

/// How often the daemon dies in one test.
fn deaths(usual: u32) -> u32 {
    std::env::var("PMX_TEST_DEATHS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// How many children print their lines meanwhile.
fn children(usual: usize) -> usize {
    if std::env::var_os("PMX_TEST_DEATHS").is_some() { 100 } else { usual }
}

/// Prints numbered lines, many a second.
const COUNTER: &str = "$| = 1; my $n = 0;
while (1) { print 'line ', ++$n, \"\\n\"; select(undef, undef, undef, 0.02); }\n";

/// What must not change when the daemon does.
fn facts(home: &Home) -> BTreeMap<u64, (i64, u64, String, u64)> {
    let facts = home.list().into_iter().map(|process| {
        let env = &process["pm2_env"];
        let uptime = env["pm_uptime"].as_u64().unwrap_or(0);
        let restarts = env["restart_time"].as_u64().unwrap();
        let status = env["status"].as_str().unwrap().to_string();
        (process["pm_id"].as_u64().unwrap(), (process["pid"].as_i64().unwrap(), restarts, status, uptime))
    });
    facts.collect()
}

/// The numbered lines of every log are contiguous, from 1.
fn assert_contiguous(home: &Home, ids: std::ops::Range<usize>) {
    for id in ids {
        let log = home.log(&format!("count-out-{id}.log"));
        let numbers: Vec<u64> = log.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(numbers.len() > 10, "{id}: {} lines", numbers.len());
        for (at, number) in numbers.iter().enumerate() {
            assert_eq!(*number, at as u64 + 1, "the log of {id}, line {at}");
        }
    }
}

/// A daemon with counters, cluster workers on four listeners and some load, which dies again and again.
fn dies_and_nobody_notices(
    counters: usize,
    times: u32,
    env: &[(&str, &str)],
    die: impl Fn(&Home, u32),
) -> Home {
    let home = Home::new();
    let script = home.file("count.pl", COUNTER);
    let count = counters.to_string();
    let start = ["start", script.to_str().unwrap(), "-n", "count", "-i", &count];
    home.pmx_with(env, &start).ok();
    let mut servers = Vec::new();
    for (name, balance) in [("a", "reuseport"), ("b", "rr"), ("c", "shared"), ("d", "reuseport")] {
        let server = Server { home: &home, port: crate::support::free_port() };
        server.launch(20, &app("hello.cjs"), &["-n", name, "-i", "2", "--balance", balance]).ok();
        wait_until("an answer", || server.answers());
        servers.push(server);
    }
    let before = facts(&home);
    let fds = probe::idle_fds(&home);
    let keeper = keeper_pid(&home);
    let plan = |(at, server): (usize, &Server)| {
        let keep_alive = at % 2 == 0;
        Background::start(pmx::load::Plan { rate: Some(125.0), ..server.plan(keep_alive) })
    };
    let loads: Vec<Background> = servers.iter().enumerate().map(plan).collect();
    let mut slowest = Duration::ZERO;
    for death in 0..times {
        let daemon = home.daemon_pid().unwrap();
        let pause = 100 + u64::from(death) * 7_919 % 900;
        let until = Instant::now() + Duration::from_millis(pause);
        wait_until("the moment", || Instant::now() >= until);
        die(&home, death);
        let began = Instant::now();
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        let ping = home.pmx(&["ping"]);
        assert_eq!(ping.code, 0, "{ping:?}");
        slowest = slowest.max(began.elapsed());
    }
    assert_eq!(facts(&home), before, "pids, restarts, states, uptimes");
    for (server, load) in servers.iter().zip(loads) {
        let report = load.stop();
        assert_eq!(report.failures.total(), 0, "port {}: {}", server.port, report.failures);
        assert!(report.ok > 50, "{}", report.ok);
    }
    // What it takes on a quiet machine is printed below; here it shares two cores with other tests.
    assert!(slowest < Duration::from_secs(3), "control was back after {slowest:?}");
    assert_contiguous(&home, 0..counters);
    wait_until("as many fds as before", || probe::idle_fds(&home) == fds);
    assert_eq!((daemons(&home).len(), keeper_pid(&home)), (1, keeper));
    println!("{times} deaths, control was back within {slowest:?}");
    // And it is a whole supervisor still.
    let victim = home.pid(0);
    signal(victim, libc::SIGKILL);
    wait_until("a restart", || home.pid(0) != victim && home.status(0) == "online");
    home.pmx(&["reload", "b"]).ok();
    home.pmx(&["stop", "all"]).ok();
    home
}

#[test]
fn r01_killed_again_and_again() {
    dies_and_nobody_notices(children(30), deaths(6), &[], |home, _| {
        signal(home.daemon_pid().unwrap(), libc::SIGKILL)
    });
}

#[test]
fn r01_segmentation_faults() {
    dies_and_nobody_notices(children(5), deaths(3), &[], |home, _| {
        signal(home.daemon_pid().unwrap(), libc::SIGSEGV)
    });
}

#[test]
fn r01_panics() {
    let env = [("PMX_PANIC_AT", "usr2")];
    dies_and_nobody_notices(children(5), deaths(3), &env, |home, _| {
        signal(home.daemon_pid().unwrap(), libc::SIGUSR2)
    });
}

#[test]
fn r01_aborts_and_runs_out_of_time() {
    dies_and_nobody_notices(children(5), deaths(2), &[], |home, death| {
        let number = if death % 2 == 0 { libc::SIGABRT } else { libc::SIGALRM };
        signal(home.daemon_pid().unwrap(), number);
    });
}

/// Takes all memory away from the daemon but what it has, and has it want more.
fn starve(home: &Home) {
    let daemon = home.daemon_pid().unwrap();
    let limit = format!("--as={}", probe::status(daemon, "VmSize") << 10);
    let prlimit = Command::new("prlimit").args(["--pid", &daemon.to_string(), &limit]).status().unwrap();
    assert!(prlimit.success());
    let mut client = Client::connect(home);
    let nobody = "x".repeat(900 << 10);
    client.ask(1, serde_json::json!({ "verb": "describe", "targets": [nobody] }));
}

#[test]
fn r10_the_daemon_runs_out_of_memory() {
    let home = dies_and_nobody_notices(5, deaths(3), &[], |home, _| starve(home));
    let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert!(log.contains("memory allocation of "), "{log}");
    // The next one has what its keeper has.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", home.daemon_pid().unwrap())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max address space")).unwrap();
    assert!(limit.contains("unlimited"), "{limit}");
}

/// The memory of a process: what is mapped, and what is in the heap and in the variables of its program and
/// libraries. (A stack changes, and so does what belongs to a thread, as errno.)
fn own_memory(pid: i32) -> Vec<(String, Vec<u8>)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let is_variable = words[1] == "rw-p" && words.get(5).is_some_and(|name| *name != "[stack]");
        let mut bytes = vec![0; if is_variable { (to - from) as usize } else { 0 }];
        memory.read_exact_at(&mut bytes, from).unwrap();
        found.push((line.to_string(), bytes));
    }
    found
}

/// One that allocates may fail to, when it is needed most. An allocator keeps its books in the memory that it deals
/// out: were it asked but once, some byte would differ.
#[test]
fn r10_the_keeper_allocates_nothing() {
    if !probe::is_root() {
        return println!("skipped: only root may look into the memory of a process that is not a child");
    }
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-i", "3"]).ok();
    let keeper = keeper_pid(&home).unwrap();
    let before = own_memory(keeper);
    assert!(before.iter().any(|(map, bytes)| map.ends_with("[heap]") && !bytes.is_empty()));
    for death in 0..deaths(20) {
        let daemon = home.daemon_pid().unwrap();
        match death % 4 {
            0 => starve(&home),
            1 => signal(daemon, libc::SIGKILL),
            2 => signal(daemon, libc::SIGSEGV),
            // A child of an earlier daemon is the keeper's to reap, a signal to it the daemon's to get.
            _ => {
                signal(keeper, libc::SIGHUP);
                let child = home.pid(0);
                signal(child, libc::SIGKILL);
                wait_until("a restart", || home.pid(0) != child && home.status(0) == "online");
                signal(daemon, libc::SIGKILL);
            }
        }
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        home.pmx(&["ping"]).ok();
    }
    assert_eq!(keeper_pid(&home), Some(keeper));
    for (before, after) in before.iter().zip(&own_memory(keeper)) {
        assert_eq!(before.0, after.0, "what is mapped");
        let at = before.1.iter().zip(&after.1).position(|(one, other)| one != other);
        assert_eq!(at, None, "{}: a byte differs", before.0);
    }
    assert_eq!(before.len(), own_memory(keeper).len());
}

/// No process can be made: the keeper waits, and tries again.
#[test]
fn r10_there_is_no_room_for_the_next_daemon() {
    if !probe::is_root() {
        return println!("skipped: a limit on processes counts all of one user's");
    }
    let home = Home::new();
    // Somebody whom no other process belongs to, and whom the limit binds.
    let user = 2_000_000 + std::process::id();
    let own =
        format!("setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all --bounding-set=-all");
    std::os::unix::fs::chown(home.dir(), Some(user), Some(user)).unwrap();
    let as_user = |line: &str| finish(home.shell(&format!("exec {own} {line}")).spawn().unwrap());
    // Not by us: a child of another test would hold it open for writing, and it could not be executed.
    finish(home.shell("cp $PMX pmx").spawn().unwrap()).ok();
    as_user("./pmx start /bin/sleep -x -i 2 -- 1000").ok();
    let pids = || -> Vec<i64> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&as_user("./pmx jlist").ok().out).unwrap();
        list.iter().map(|process| process["pid"].as_i64().unwrap()).collect()
    };
    let before = pids();
    let (daemon, keeper) = (home.daemon_pid().unwrap(), keeper_pid(&home).unwrap());
    let limit = |most: &str| {
        let nproc = format!("--nproc={most}:");
        as_user(&format!("prlimit --pid {keeper} {nproc}")).ok();
    };
    let limits = std::fs::read_to_string(format!("/proc/{keeper}/limits")).unwrap();
    let processes = limits.lines().find_map(|line| line.strip_prefix("Max processes")).unwrap();
    let most = processes.split_whitespace().nth(1).unwrap();
    limit("1");
    signal(daemon, libc::SIGKILL);
    wait_until("its end", || !is_alive(daemon));
    // It does not try all the time.
    let busy = || pmx::sys::proc::stat(keeper).unwrap().cpu_ms;
    let (used, until) = (busy(), Instant::now() + Duration::from_millis(1_500));
    wait_until("a moment", || Instant::now() >= until);
    assert!(home.daemon_pid() == Some(daemon) && busy() - used < 50, "{} ms", busy() - used);
    limit(most);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!(pids(), before);
    as_user("./pmx kill").ok();
    assert!(before.iter().all(|pid| !is_alive(*pid as i32)));
}

#[test]
fn r03_the_keeper_is_killed_and_the_daemon_takes_its_place() {
    let home = Home::new();
    let script = home.file("count.pl", COUNTER);
    let script = script.to_str().unwrap();
    home.pmx(&["start", script, "-n", "count", "-i", "3", "--max-restarts", "100"]).ok();
    let server = Server { home: &home, port: crate::support::free_port() };
    server.launch(20, &app("hello.cjs"), &["-i", "2"]).ok();
    wait_until("an answer", || server.answers());
    // Some children are the keeper's, some the daemon's.
    signal(home.daemon_pid().unwrap(), libc::SIGKILL);
    let child = home.pid(2);
    signal(child, libc::SIGKILL);
    wait_until("a restart", || home.pid(2) != child && home.status(2) == "online");
    let before = facts(&home);
    let load = Background::start(server.plan(true));
    for _ in 0..3 {
        let (daemon, keeper) = (home.daemon_pid().unwrap(), keeper_pid(&home).unwrap());
        signal(keeper, libc::SIGKILL);
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        assert_eq!(keeper_pid(&home), Some(daemon), "the daemon became the keeper");
        assert_eq!(facts(&home), before);
        // The new keeper keeps.
        let daemon = home.daemon_pid().unwrap();
        signal(daemon, libc::SIGKILL);
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        assert_eq!(facts(&home), before);
    }
    let report = load.stop();
    assert_eq!(report.failures.total(), 0, "{}", report.failures);
    // Ends of children whose parent is nobody we know are seen as well.
    for id in [0, 2, 3] {
        let child = home.pid(id);
        signal(child, libc::SIGKILL);
        wait_until("a restart", || home.pid(id) != child && home.status(id) == "online");
    }
    wait_until("an answer", || server.answers());
}

#[test]
fn r06_a_stopped_daemon_goes_on() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let (pid, daemon) = (home.pid(0), home.daemon_pid().unwrap());
    for _ in 0..3 {
        signal(daemon, libc::SIGSTOP);
        probe::assert_prompt(&home);
    }
    assert_eq!(home.pid(0), pid);
}

/// Dies at each step of a start, a restart, a stop and a delete; each command is answered, and what lives
/// is what is declared.
#[test]
fn r05_whatever_was_under_way_is_finished_or_undone() {
    let points = [
        "before-spawn:1",
        "after-spawn:1",
        "after-spawn:3",
        "before-commit:4",
        "after-commit:4",
        "before-stop:1",
        "after-stop:1",
        "reaped:1",
        "gone:1",
        "gone:2",
        "before-commit:9",
        "after-commit:12",
    ];
    for point in points {
        let home = Home::new();
        let mark = format!("mark-{}-{}", std::process::id(), point.replace(':', "-"));
        let script = format!("#!/bin/sh\n: {mark}\nwhile :; do sleep 1; done\n");
        let file = home.file(&format!("{mark}.sh"), &script);
        let file = file.to_str().unwrap();
        home.pmx_with(&[("PMX_FAILPOINT", point)], &["start", file, "-i", "2"]).ok();
        let living = || -> Vec<i32> {
            let is_ours = |pid: &i32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&mark)
                    && probe::stat(*pid).is_some_and(|s| s[0] != "Z")
            };
            let mut pids: Vec<i32> = probe::pids().into_iter().filter(is_ours).collect();
            pids.retain(|pid| *pid != std::process::id() as i32);
            pids
        };
        let declared = || {
            let mut pids: Vec<i32> = home.list().iter().map(|p| p["pid"].as_i64().unwrap() as i32).collect();
            pids.retain(|pid| *pid != 0);
            pids.sort();
            pids
        };
        let same = |step: &str| {
            wait_until(&format!("{point}, {step}: what lives to be what is declared"), || {
                living() == declared()
            })
        };
        same("start");
        assert_eq!(declared().len(), 2, "{point}");
        home.pmx(&["restart", "all"]).ok();
        same("restart");
        assert_eq!(declared().len(), 2, "{point}");
        signal(declared()[0], libc::SIGKILL);
        wait_until("both online", || (0..2).all(|id| home.status(id) == "online"));
        same("crash");
        home.pmx(&["stop", "0"]).ok();
        same("stop");
        assert_eq!(declared().len(), 1, "{point}");
        home.pmx(&["delete", "all"]).ok();
        same("delete");
        let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
        assert!(log.contains("failpoint"), "{point} was never reached");
        assert!(log.contains("took over"), "{point}");
    }
}

/// The same for a reload.
#[test]
fn r05_a_reload_goes_on_or_leaves_the_old_ones() {
    for point in ["after-spawn:3", "before-promote:1", "after-promote:1", "before-drain:1", "gone:1"] {
        let home = Home::new();
        let server = Server { home: &home, port: crate::support::free_port() };
        let port = server.port.to_string();
        let (node, app) = (node(20), app("hello.cjs"));
        let args = ["start", app.to_str().unwrap(), "-n", "app", "-i", "2"];
        let env = [("PMX_FAILPOINT", point), ("PORT", &port)];
        home.pmx_with(&env, &[&args[..], &["--interpreter", node.to_str().unwrap()]].concat()).ok();
        wait_until("an answer", || server.answers());
        let old = server.listed();
        let plan = pmx::load::Plan { rate: Some(100.0), ..server.plan(true) };
        let (ran, report) = server.under_load(plan, || home.pmx(&["reload", "app"]));
        assert_eq!(report.failures.total(), 0, "{point}: {}", report.failures);
        assert_eq!(ran.code, 0, "{point}: {ran:?}");
        let new = server.listed();
        assert!(old.iter().all(|pid| !new.contains(pid)), "{point}: {old:?} {new:?}");
        wait_until("the old ones to be gone", || !old.iter().any(|pid| is_alive(*pid)));
        assert_eq!(server.statuses(), ["online", "online"], "{point}");
    }
}

/// A request in progress is answered by the next daemon, on the same connection; events go on.
#[test]
fn u06_clients_keep_their_connections() {
    let home = Home::new();
    home.file("stubborn.sh", "#!/bin/sh\ntrap '' INT\necho up\nwhile :; do sleep 1; done\n");
    home.pmx(&["start", "stubborn.sh", "--kill-timeout", "1500"]).ok();
    wait_until("its trap", || home.log("stubborn-out-0.log") == "up\n");
    let mut listener = Client::connect(&home);
    listener.ask(1, serde_json::json!({ "verb": "subscribe" }));
    listener.answer(1);
    let mut stop = home.command(&["stop", "stubborn"]).spawn().unwrap();
    wait_until("the stop", || home.status(0) == "stopping");
    signal(home.daemon_pid().unwrap(), libc::SIGKILL);
    assert!(stop.wait().unwrap().success());
    assert_eq!(home.status(0), "stopped");
    let mut seen = Vec::new();
    while !seen.contains(&"stopped".to_string()) {
        let message = listener.message().unwrap();
        seen.extend(message["event"]["kind"].as_str().map(String::from));
    }
    assert!(seen.contains(&"exited".to_string()), "{seen:?}");
}

#[test]
fn r01_a_home_that_somebody_took_away_keeps_nothing_from_going_on() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho $$ >> starts\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let (pid, daemon) = (home.pid(0), home.daemon_pid().unwrap());
    let aside = home.dir().join("aside");
    std::fs::rename(home.path(), &aside).unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || daemons(&home).iter().any(|found| *found != daemon));
    signal(pid, libc::SIGKILL);
    let starts = || std::fs::read_to_string(home.dir().join("starts")).unwrap().lines().count();
    wait_until("another child", || starts() == 2);
    // What was made there meanwhile.
    let _ = std::fs::remove_dir_all(home.path());
    std::fs::rename(&aside, home.path()).unwrap();
    assert_eq!(home.status(0), "online");
    assert_ne!(home.pid(0), pid);
}

/// The daemon is killed, and its keeper with it, when it has taken output from a pipe and has not written it, or only
/// the beginning of a line.
#[test]
fn r04_both_are_killed_and_what_was_on_its_way_to_a_log_is_in_it_once() {
    let script = "#!/bin/sh\nuntil [ -e go ]; do sleep 0.01; done\nprintf 'one\\nhalf'\n\
                  until [ -e more ]; do sleep 0.01; done\necho ' and half'\nexec sleep 1000\n";
    for (at, form) in
        [("output-read", ""), ("output-written", ""), ("output-read", "[at]"), ("output-written", "[at]")]
    {
        let home = Home::new();
        home.file("app.sh", script);
        let declared = json!({"name": "app", "script": "./app.sh", "log_date_format": form});
        home.file("app.json", &declared.to_string());
        home.pmx_with(&[("PMX_STOP_AT", at)], &["start", "app.json"]).ok();
        let (pid, daemon) = (home.pid(0), home.daemon_pid().unwrap());
        // It would have a stopped daemon go on.
        signal(keeper_pid(&home).unwrap(), libc::SIGSTOP);
        home.file("go", "");
        wait_until("the daemon to stop", || probe::stat(daemon).is_some_and(|stat| stat[0] == "T"));
        kill_both(&home);
        home.file("more", "");
        assert_eq!(home.pid(0), pid, "{at}");
        let mark = if form.is_empty() { "" } else { "at: " };
        let whole = format!("{mark}one\n{mark}half and half\n");
        wait_until("all of it", || home.log("app-out-0.log").ends_with("and half\n"));
        assert_eq!(home.log("app-out-0.log"), whole, "{at}");
    }
}

#[test]
fn r04_both_are_killed_and_the_next_command_finds_the_children() {
    let home = Home::new();
    let script = home.file("count.pl", COUNTER);
    let script = script.to_str().unwrap();
    home.pmx(&["start", script, "-n", "count", "-i", "3"]).ok();
    home.file("once.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "once.sh", "--no-autorestart"]).ok();
    let before = facts(&home);
    let once = home.pid(3);
    kill_both(&home);
    // One of them ends while nobody watches; the others go on writing.
    signal(once, libc::SIGKILL);
    wait_until("its end", || !is_alive(once));
    let living: Vec<i64> = (0..3).map(|id| before[&id].0).collect();
    assert!(living.iter().all(|pid| is_alive(*pid as i32)));
    let after = facts(&home);
    for id in 0..3 {
        assert_eq!(after[&id], before[&id], "the same child");
    }
    assert_eq!((after[&3].0, after[&3].2.as_str()), (0, "stopped"));
    let detail = home.pmx(&["describe", "once"]).ok();
    assert!(detail.out.contains("it was gone when pmx came back"), "{detail:?}");
    assert_eq!(daemons(&home).len(), 1);
    let lines = || home.log("count-out-0.log").lines().count();
    let had = lines();
    wait_until("more of its lines", || lines() > had + 20);
    assert_contiguous(&home, 0..3);
    // They are ours again: their ends are seen, they are restarted and stopped.
    let child = home.pid(1);
    signal(child, libc::SIGKILL);
    wait_until("a restart", || home.pid(1) != child && home.status(1) == "online");
    home.pmx(&["stop", "0"]).ok();
    assert!(!is_alive(living[0] as i32));
    // A second time, and once more both.
    kill_both(&home);
    let again = facts(&home);
    assert_eq!(again[&2], before[&2]);
    assert_eq!(again[&0].2, "stopped");
}

/// What another boot, another process under the same pid, or nonsense left behind is nobody's.
#[test]
fn r04_what_is_not_beyond_doubt_is_left_alone() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let child = home.pid(0);
    let directory = home.state();
    let (state, other) = (directory.join("state-a"), directory.join("state-b"));
    let read = || [&state, &other].map(|path| std::fs::read_to_string(path).unwrap());
    let journal = read();
    kill_both(&home);
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let text = journal.iter().find(|text| !text.is_empty()).unwrap();
    let pid = format!("\"pid\":{child}");
    assert!(text.contains(&pid));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let forgeries = [
        text.replace(&pid, &format!("\"pid\":{}", stranger.id())),
        text.replace(boot.trim(), "another-boot"),
        text.chars().take(text.len() / 2).collect(),
        "nonsense\n".repeat(9),
        String::new(),
    ];
    for forged in forgeries {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(&state, &forged).unwrap();
        std::fs::write(&other, "").unwrap();
        let list = home.list();
        let pids: Vec<i64> = list.iter().map(|process| process["pid"].as_i64().unwrap()).collect();
        assert!(!pids.contains(&i64::from(stranger.id())) && !pids.contains(&i64::from(child)), "{pids:?}");
        assert!(is_alive(child) && stranger.try_wait().unwrap().is_none());
        home.pmx(&["kill"]).ok();
        assert!(is_alive(child) && stranger.try_wait().unwrap().is_none());
    }
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    signal(child, libc::SIGKILL);
}

/// An entry that every daemon dies of is put aside, and its app with the others runs on.
#[test]
fn r07_a_poisoned_entry_ends_in_safe_mode_and_harms_no_app() {
    let home = Home::new();
    home.file("good.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.file("poison.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx_with(&[("PMX_PANIC_AT", "restore-poison")], &["start", "good.sh", "poison.sh"]).ok();
    let (good, poison) = (home.pid(0), home.pid(1));
    signal(home.daemon_pid().unwrap(), libc::SIGKILL);
    wait_until("an answer", || home.pmx(&["ping"]).code == 0);
    assert_eq!(home.list().len(), 1);
    assert_eq!((home.pid(0), home.status(0).as_str()), (good, "online"));
    assert!(is_alive(good) && is_alive(poison));
    for refused in [&["restart", "good"][..], &["start", "good.sh", "-f"], &["stop", "all"]] {
        let ran = home.pmx(refused).failed();
        assert!(ran.err.contains("safe mode"), "{ran:?}");
    }
    let aside: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("quarantine-"))
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .collect();
    assert!(aside.len() == 1 && aside[0].contains("poison"), "{aside:?}");
    // What was put aside is in no later daemon's way, and none harms it.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    wait_until("an answer", || home.pmx(&["ping"]).code == 0);
    assert!(is_alive(good) && is_alive(poison));
    home.pmx(&["update"]).ok();
    home.pmx(&["restart", "good"]).ok();
    assert!(!is_alive(good) && is_alive(poison));
    signal(poison, libc::SIGKILL);
}
