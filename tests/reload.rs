//! Reload loses nothing: not a request, not a connection that waits, not the old version when the new one
//! is bad. `PMX_TEST_RELOADS=20` makes the runs longer and the load as hard as it can be;
//! `PMX_TEST_NODES=18,26` chooses the versions.

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pmx::load::{Failure, Plan};
use serde_json::json;

use crate::support::container::children_of;
use crate::support::server::{Background, Server, app};
use crate::support::{DEADLINE, Home, WAYS, finish, free_port, get, is_alive, probe, wait_for, wait_until};

fn reloads() -> Option<u32> {
    std::env::var("PMX_TEST_RELOADS").ok().map(|count| count.parse().unwrap())
}

fn nodes() -> Vec<u32> {
    let chosen = std::env::var("PMX_TEST_NODES").unwrap_or_else(|_| "18,20,24".to_string());
    chosen.split(',').map(|major| major.parse().unwrap()).collect()
}

/// In a long run the load is as hard as it can be.
fn plan(server: &Server, keep_alive: bool) -> Plan {
    let plan = server.plan(keep_alive);
    Plan { rate: plan.rate.filter(|_| reloads().is_none()), ..plan }
}

/// Reloads in a row, with short and with kept-alive connections at the same time: no request fails.
fn reloads_are_lossless(options: &[&str], instances: usize) {
    for major in nodes() {
        let home = Home::new();
        let server = Server::start(&home, major, &app("hello.cjs"), options);
        let mut old = server.answering(instances);
        let loads = [false, true].map(|keep_alive| Background::start(plan(&server, keep_alive)));
        for _ in 0..reloads().unwrap_or(3) {
            home.pmx(&["reload", "app"]).ok();
            let new: BTreeSet<i32> = server.listed().into_iter().collect();
            assert!(new.len() == instances && new.is_disjoint(&old), "{old:?} {new:?}");
            old = new;
        }
        for (load, mode) in loads.into_iter().zip(["close", "keep-alive"]) {
            let report = load.stop();
            println!(
                "node {major} {options:?} {mode}: {} requests, {} failed, max {:?}",
                report.requests(),
                report.failures,
                report.latency.max()
            );
            assert_eq!(report.failures.total(), 0, "node {major} {options:?} {mode}: {}", report.failures);
            assert!(report.ok > 100);
        }
    }
}

#[test]
fn one_worker_is_reloaded_without_loss() {
    reloads_are_lossless(&["-i", "1"], 1);
}

#[test]
fn two_workers_are_reloaded_without_loss() {
    reloads_are_lossless(&["-i", "2"], 2);
}

#[test]
fn a_server_that_nobody_called_one_is_reloaded_without_loss() {
    reloads_are_lossless(&[], 1);
}

#[test]
fn two_workers_under_rr_are_reloaded_without_loss() {
    reloads_are_lossless(&["-i", "2", "--balance", "rr"], 2);
}

#[test]
fn two_workers_on_one_socket_are_reloaded_without_loss() {
    reloads_are_lossless(&["-i", "2", "--balance", "shared"], 2);
}

#[test]
fn p15_requests_in_progress_are_finished() {
    let cases = [&["-i", "1"][..], &["-i", "2", "--balance", "rr"], &[], &["-i", "2"]];
    for (options, way) in cases.into_iter().zip(WAYS.into_iter().cycle()) {
        let home = Home::contained(way);
        let server = Server::start(&home, 20, &app("hello.cjs"), options);
        let port = server.port;
        let slow: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
                stream
            })
            .collect();
        home.pmx(&["reload", "app"]).ok();
        for mut stream in slow {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.ends_with("slow\n"), "{options:?}: {text:?}");
        }
    }
}

#[test]
fn a_connection_kept_alive_over_a_reload_gets_its_answer_and_is_closed() {
    for major in nodes() {
        let home = Home::new();
        let server = Server::start(&home, major, &app("hello.cjs"), &["-i", "1"]);
        let old = home.pid(0);
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut ask = || {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        assert!(ask().to_lowercase().contains("keep-alive"));
        let reload = home.command(&["reload", "app"]).spawn().unwrap();
        wait_until("the new worker", || home.pid(0) != old);
        let last = ask();
        assert!(last.starts_with("HTTP/1.1 200") && last.contains("Connection: close"), "{major}: {last}");
        assert!(last.contains(&format!("x-worker: {old}")));
        finish(reload).ok();
        assert!(!is_alive(old));
    }
}

#[test]
fn a_request_that_takes_for_ever_has_the_drain_timeout() {
    let home = Home::new();
    let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "1", "--drain-timeout", "200"]);
    let old = home.pid(0);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    home.pmx(&["reload", "app"]).ok();
    assert!(!is_alive(old));
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert_eq!(text, "");
}

// ---- a bad new version ----

/// A server that does what the file beside it says, in every new process.
const VERSIONED: &str = "
    const version = require('fs').readFileSync(__dirname + '/version', 'utf8');
    console.error('this is ' + version);
    if (version === 'throws') throw new Error('boom at boot');
    const server = require('http').createServer((request, response) => {
      response.setHeader('x-worker', process.pid);
      response.end(version);
    });
    if (version === 'mute') setInterval(() => {}, 1000);
    else setTimeout(() => server.listen(process.env.PORT, () => {
      if (version === 'dies') setTimeout(() => { console.error('last words'); process.exit(7); }, 100);
      if (version !== 'unready') process.send('ready');
    }), version === 'late' ? 700 : 0);";

fn versioned<'a>(home: &'a Home, options: &[&str]) -> Server<'a> {
    home.file("version", "good");
    Server::start(home, 20, &home.file("app.cjs", VERSIONED), &[&["--bake-time", "400"], options].concat())
}

/// With each of these options, by turns with control groups and without.
fn bad_versions(version: &str, cases: &[&[&str]], reason: &str, last_line: &str) {
    for (options, way) in cases.iter().zip(WAYS.into_iter().cycle()) {
        bad_version(way, version, options, reason, last_line);
    }
}

/// The reload fails, says why, and nobody who asks notices.
fn bad_version(way: &'static str, version: &str, options: &[&str], reason: &str, last_line: &str) {
    let home = Home::contained(way);
    let server = versioned(&home, options);
    let before = server.listed();
    home.file("version", version);
    let (ran, report) = server.under_load(plan(&server, true), || home.pmx(&["reload", "app"]));
    let ran = ran.failed();
    assert!(ran.err.contains(reason), "{version} {options:?}: {ran:?}");
    assert!(ran.err.contains(last_line), "{version} {options:?}: {ran:?}");
    assert_eq!(report.failures.total(), 0, "{version} {options:?}: {}", report.failures);
    assert_eq!(server.listed(), before, "{version} {options:?}");
    assert!(server.statuses().iter().all(|status| status == "online"));
    assert_eq!(get(server.port, "/").unwrap().body, "good");
    let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert_eq!(log.matches("Spawned: replacement").count(), 1, "the other slots are left alone");
    wait_until("the candidate to be gone", || children(&home) == before.len());
    home.file("version", "good");
    home.pmx(&["reload", "app"]).ok();
}

/// How many children the daemon has, without its own, such as the one that saves the list a second after a change.
fn children(home: &Home) -> usize {
    let is_own = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| matches!(name.trim(), "pmx" | "exe"))
    };
    children_of(home.daemon_pid().unwrap()).into_iter().filter(|pid| !is_own(pid)).count()
}

#[test]
fn p14_a_version_that_throws_at_boot_changes_nothing() {
    let cases = [&["-i", "2"][..], &["-i", "1"], &[]];
    bad_versions("throws", &cases, "ended before it was ready: exit code 1", "boom at boot");
}

#[test]
fn p14_a_version_that_never_listens_changes_nothing() {
    let cases = [&["-i", "2", "--listen-timeout", "5000"][..], &["--listen-timeout", "5000"]];
    bad_versions("mute", &cases, "does not listen within 5000 ms", "this is mute");
}

/// Longer than it can take a process on a busy machine to do what is due in 100 ms.
const BAKED: &str = "--bake-time=3000";

#[test]
fn p14_a_version_that_dies_after_it_listened_changes_nothing() {
    let cases = [&["-i", "2", BAKED][..], &["-i", "2", "--balance", "rr", BAKED], &[BAKED]];
    bad_versions("dies", &cases, "ended right after it was ready: exit code 7", "last words");
}

#[test]
fn p14_a_version_that_is_never_ready_changes_nothing() {
    let case = &["-i", "2", "--wait-ready", "--listen-timeout", "5000"][..];
    bad_versions("unready", &[case, case], "was not ready within 5000 ms", "this is unready");
}

// ---- reloads and other commands ----

#[test]
fn in_parallel_all_new_workers_come_up_at_once() {
    let home = Home::new();
    let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "2"]);
    let old = server.answering(2);
    let reload = || home.pmx(&["reload", "app", "--parallel", "2"]);
    let (ran, report) = server.under_load(plan(&server, true), reload);
    ran.ok();
    assert_eq!(report.failures.total(), 0, "{}", report.failures);
    assert!(server.answering(2).is_disjoint(&old));
    let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
    let before_the_first = log.split("Online: replaced").next().unwrap();
    assert_eq!(before_the_first.matches("Spawned: replacement").count(), 2, "{log}");
}

/// Begins a reload of a version that takes its time, and does `command` in the middle of it.
fn during_a_reload(command: &[&str]) -> (Home, crate::support::Ran, crate::support::Ran) {
    let home = Home::new();
    versioned(&home, &["-i", "2"]);
    home.file("version", "late");
    let reload = home.command(&["reload", "app"]).spawn().unwrap();
    wait_until("the candidate", || children(&home) == 3);
    let ran = home.pmx(command);
    let reload = finish(reload);
    (home, ran, reload)
}

#[test]
fn a_second_reload_is_refused() {
    let (home, second, first) = during_a_reload(&["reload", "app"]);
    assert!(second.failed().err.contains("a reload of it is already under way"));
    first.ok();
    assert_eq!((home.list().len(), children(&home)), (2, 2));
}

/// A server whose answers never end.
const STREAM: &str = "require('http').createServer((request, response) => {
  response.setHeader('x-worker', process.pid);
  if (request.url === '/') return response.end('hello\\n');
  response.write('data: first\\n\\n');
}).listen(process.env.PORT);
";

/// Each old worker has a client that stays, and ten minutes for it. The next reload goes through all the same:
/// it evicts who drains, says so, and nothing piles up.
#[test]
fn u04_a_reload_does_not_wait_for_workers_that_drain() {
    const RELOADS: usize = 50;
    let home = Home::new();
    let script = home.file("stream.cjs", STREAM);
    let options = ["-i", "1", "--drain-timeout", "600000", "--bake-time", "1"];
    let server = Server::start(&home, 20, &script, &options);
    let daemon = home.daemon_pid().unwrap();
    let mut asking = probe::Client::connect(&home);
    let mut serving = || {
        asking.ask(1, json!({ "verb": "list" }));
        let list = &asking.answer(1)["done"]["answer"]["list"];
        assert_eq!(list[0]["status"], "online", "{list}");
        list[0]["pid"].as_i64().unwrap() as i32
    };
    let began = Instant::now();
    let mut last: Option<std::process::Child> = None;
    let mut clients: VecDeque<(i32, TcpStream)> = VecDeque::new();
    let mut fds = Vec::new();
    for reload in 0..RELOADS {
        let old = serving();
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"first\n\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        clients.push_back((old, client));
        let now = home.command(&["reload", "app"]).spawn().unwrap();
        wait_until("the new worker", || serving() != old);
        fds.push(probe::fds(daemon).len());
        assert!(is_alive(old), "it has a client, and ten minutes");
        // The one before has had its time; its client sees the end.
        if let Some(before) = last.replace(now) {
            let ran = finish(before).ok();
            assert_eq!(ran.out.contains("was told to stop"), reload > 1, "{reload}: {ran:?}");
            let (evicted, mut client) = clients.pop_front().unwrap();
            assert!(!is_alive(evicted));
            let _ = client.read_to_end(&mut Vec::new());
        }
        assert_eq!(children(&home), 2, "one serves, one drains");
    }
    println!("{RELOADS} reloads in {:?}, fds: {fds:?}", began.elapsed());
    let (first, most) = (fds[1], *fds.iter().max().unwrap());
    assert!(most <= first + 8, "fds pile up: {fds:?}");
    assert_eq!(home.daemon_pid(), Some(daemon));
    let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert_eq!(log.matches("app(0) Evicted: ").count(), RELOADS - 1);
    // A stop waits for nobody.
    home.pmx(&["stop", "app"]).ok();
    finish(last.unwrap()).failed();
    assert_eq!(children(&home), 0);
}

#[test]
fn other_commands_end_a_reload_cleanly() {
    for (command, instances, running) in [
        (&["stop", "app"][..], 2, 0),
        (&["delete", "app"], 0, 0),
        (&["restart", "app"], 2, 2),
        (&["scale", "app", "3"], 3, 3),
        (&["scale", "app", "1"], 1, 1),
    ] {
        let (home, ran, reload) = during_a_reload(command);
        ran.ok();
        if command[0] != "scale" {
            let reload = reload.failed();
            assert!(reload.err.contains("was asked for meanwhile"), "{command:?}: {reload:?}");
        }
        wait_until(&format!("{running} children after {command:?}"), || children(&home) == running);
        let list = home.list();
        assert_eq!(list.len(), instances, "{command:?}");
        let status = if running == 0 { "stopped" } else { "online" };
        assert!(list.iter().all(|process| process["pm2_env"]["status"] == status), "{command:?} {list:?}");
        if command[0] == "stop" {
            home.pmx(&["restart", "app"]).ok();
        }
    }
}

#[test]
fn a_restart_refuses_nobody() {
    for options in [&["-i", "2"][..], &["-i", "2", "--balance", "rr"], &["-i", "1"], &[]] {
        let home = Home::new();
        let server = Server::start(&home, 20, &app("hello.cjs"), options);
        let old = server.listed();
        let (_, report) = server.under_load(plan(&server, false), || {
            home.pmx(&["restart", "app"]).ok();
            wait_until("new pids to answer", || {
                get(server.port, "/").is_ok_and(|r| !old.iter().any(|pid| r.head.contains(&pid.to_string())))
            });
        });
        let failures = &report.failures;
        for kind in [Failure::ConnectRefused, Failure::ConnectTimeout, Failure::RequestTimeout] {
            assert_eq!(failures.of(kind), 0, "{options:?}: {failures}");
        }
        // What the old workers had begun dies with them.
        assert!(failures.total() <= 16, "{options:?}: {failures}");
        assert!(report.ok > 100);
    }
}

#[test]
fn scaling_down_and_up_loses_nothing() {
    for policy in ["reuseport", "rr", "shared"] {
        let home = Home::new();
        let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "3", "--balance", policy]);
        server.answering(3);
        let loads = [false, true].map(|keep_alive| Background::start(plan(&server, keep_alive)));
        home.pmx(&["scale", "app", "1"]).ok();
        assert_eq!(home.list().len(), 1);
        home.pmx(&["scale", "app", "+1"]).ok();
        assert_eq!(home.list().len(), 2);
        for load in loads {
            let report = load.stop();
            assert_eq!(report.failures.total(), 0, "{policy}: {}", report.failures);
        }
        assert_eq!(server.answering(2).len(), 2);
    }
}

#[test]
fn what_shares_no_port_is_restarted() {
    let home = Home::new();
    let shell = home.file("tick.sh", "#!/bin/sh\necho up\nexec sleep 1000\n");
    let python = home.file("tock.py", "import time\nprint('up', flush=True)\ntime.sleep(1000)\n");
    for (id, script) in [(0, shell), (1, python)] {
        home.pmx(&["start", script.to_str().unwrap()]).ok();
        let old = home.pid(id);
        home.pmx(&["reload", &id.to_string()]).ok();
        assert_ne!(home.pid(id), old);
        assert!(!is_alive(old));
        assert_eq!(home.status(id), "online");
        assert_eq!(home.process(id)["pm2_env"]["restart_time"], 1);
    }
    assert_eq!(children(&home), 2);
}

/// An app in fork mode binds for itself, so its port cannot be served twice.
#[test]
fn fork_mode_is_restarted() {
    let home = Home::new();
    let server = Server { home: &home, port: free_port() };
    server.launch(20, &app("hello.cjs"), &["-x"]).ok();
    wait_until("an answer", || server.answers());
    let old = home.pid(0);
    home.pmx(&["reload", "app"]).ok();
    assert!(!is_alive(old));
    let new = wait_for("its successor", || get(server.port, "/").ok());
    assert!(new.head.contains(&format!("x-worker: {}", home.pid(0))));
}
