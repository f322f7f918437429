//! What clients notice when workers die. `PMX_TEST_KILLS=50` makes the measurement of the restart longer.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use pmx::load::{Failure, Load};

use crate::support::server::{Server, app, pids};
use crate::support::{Home, free_port, get, is_alive, node, signal, wait_for, wait_until};

const STOP: i32 = 19;
const KILL: i32 = 9;

/// Only what a killed worker had in progress may fail, and nobody waits long.
fn kills_under_load(policy: &str) {
    const KILLS: u64 = 4;
    let home = Home::new();
    let server = Server::start(
        &home,
        20,
        &app("hello.cjs"),
        &["-i", "2", "--balance", policy, "--max-restarts", "1000"],
    );
    server.answering(2);
    let (slowest, report) = server.under_load(server.plan(false), || {
        let replaced = (0..KILLS).map(|kill| {
            let id = (kill % 2) as u32;
            let pid = home.pid(id);
            let death = Instant::now();
            signal(pid, KILL);
            wait_until("another worker", || {
                let process = home.process(id);
                process["pid"] != pid && process["pm2_env"]["status"] == "online"
            });
            death.elapsed()
        });
        replaced.max().unwrap()
    });
    let failures = &report.failures;
    let longest = report.latency.max();
    println!(
        "{policy}: {} requests, {KILLS} kills: {failures}, {longest:?}, replaced in {slowest:?}",
        report.ok
    );
    let broken = failures.of(Failure::Reset) + failures.of(Failure::ClosedEarly);
    assert_eq!(failures.total(), broken, "{policy}: {failures}");
    assert!(broken <= KILLS * 16, "{policy}: {failures}");
    // Some wait for a replacement, and that takes as long as the machine needs to start Node.
    assert!(longest < 3 * slowest + Duration::from_secs(5), "{longest:?}, replaced in {slowest:?}");
    assert!(report.ok > 100, "{}", report.ok);
}

#[test]
fn a_killed_worker_fails_only_what_it_had_in_progress() {
    kills_under_load("reuseport");
}

#[test]
fn a_killed_worker_under_rr_fails_only_what_it_had_in_progress() {
    kills_under_load("rr");
}

/// Connections with a request each, to be answered later.
fn queue(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        })
        .collect()
}

#[track_caller]
fn all_answered(streams: Vec<TcpStream>) {
    let count = streams.len();
    let answered = streams
        .into_iter()
        .filter_map(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.starts_with("HTTP/1.1 200").then_some(())
        })
        .count();
    assert_eq!(answered, count);
}

/// An app of which one slot is filled and the other is given up after its first end.
fn with_a_slot_to_lose<'a>(home: &'a Home, policy: &str) -> Server<'a> {
    let options = ["-i", "2", "--balance", policy, "--max-restarts", "1", "--min-uptime", "600000"];
    let server = Server::start(home, 20, &app("hello.cjs"), &options);
    server.answering(2);
    server
}

#[test]
fn what_was_handed_to_a_dead_worker_goes_to_the_other() {
    for policy in ["rr", "reuseport"] {
        let home = Home::new();
        let server = with_a_slot_to_lose(&home, policy);
        let frozen = home.pid(0);
        signal(frozen, STOP);
        let waiting = queue(server.port, 60);
        signal(frozen, KILL);
        all_answered(waiting);
        wait_until("the slot to be given up", || home.status(0) == "errored");
        assert_eq!(home.status(1), "online");
    }
}

/// Forged acknowledgements of an app do not touch the connections of another.
#[test]
fn only_the_worker_that_was_handed_a_connection_acknowledges_it() {
    let home = Home::new();
    let server = with_a_slot_to_lose(&home, "rr");
    let frozen = home.pid(0);
    signal(frozen, STOP);
    let waiting = queue(server.port, 60);
    let forger = home.file(
        "forger.cjs",
        "for (let seq = 0; seq < 2000; seq++) process.send({ cmd: 'NODE_CLUSTER', ack: seq, accepted: true });
         process.send('ready');
         setInterval(() => {}, 1000);",
    );
    let node = node(20);
    let args =
        ["start", forger.to_str().unwrap(), "-x", "--wait-ready", "--interpreter", node.to_str().unwrap()];
    home.pmx(&args).ok();
    signal(frozen, KILL);
    all_answered(waiting);
}

#[test]
fn a_slot_that_was_given_up_holds_nobody_up() {
    for policy in ["rr", "reuseport", "shared"] {
        let home = Home::new();
        let server = with_a_slot_to_lose(&home, policy);
        signal(home.pid(0), KILL);
        wait_until("the slot to be given up", || home.status(0) == "errored");
        for keep_alive in [false, true] {
            let mut load = Load::new(server.plan(keep_alive)).unwrap();
            load.run_requests(300).unwrap();
            let report = load.take_report();
            assert_eq!((report.ok, report.failures.total()), (300, 0), "{policy}: {}", report.failures);
            assert!(pids(&report).into_iter().eq([home.pid(1)]));
        }
        // And back again.
        home.pmx(&["restart", "0"]).ok();
        assert_eq!(server.answering(2).len(), 2, "{policy}");
    }
}

#[test]
fn connections_wait_for_the_only_worker() {
    for options in [&["-i", "1"][..], &["-i", "1", "--balance", "rr"], &[]] {
        let home = Home::new();
        let server = Server::start(&home, 20, &app("hello.cjs"), options);
        let old = home.pid(0);
        signal(old, KILL);
        wait_until("its end", || !is_alive(old));
        all_answered(queue(server.port, 20));
    }
}

#[test]
fn a_worker_that_ends_by_itself_is_replaced() {
    let home = Home::new();
    let port = free_port();
    let script = home.file(
        "app.cjs",
        "require('http').createServer((q, s) => { s.end(String(process.pid)); if (q.url === '/die') setImmediate(() => process.exit(3)); }).listen(process.env.PORT);",
    );
    let server = Server { home: &home, port };
    server.launch(20, &script, &["-i", "2"]).ok();
    for round in 1..=3 {
        let old = get(port, "/die").unwrap().body.parse().unwrap();
        wait_until("its end", || !is_alive(old));
        wait_until("both online", || {
            let list = home.list();
            list.iter().all(|p| p["pm2_env"]["status"] == "online" && p["pid"] != old)
        });
        let restarts: i64 = home.list().iter().map(|p| p["pm2_env"]["restart_time"].as_i64().unwrap()).sum();
        assert_eq!(restarts, round);
    }
}

/// From the death of a process to the first instruction of its successor, against fork and exec alone.
#[test]
fn a_dead_process_is_replaced_at_once() {
    let kills = std::env::var("PMX_TEST_KILLS").map_or(9, |count| count.parse().unwrap());
    let home = Home::new();
    let fifo = home.dir().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // To open and to write is all that the shell does before it tells.
    let script = home.file("app.sh", &format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", fifo.display()));
    let both_ways = File::options().read(true).write(true).open(&fifo).unwrap();
    let mut births = BufReader::new(both_ways).lines();
    let mut birth = || (births.next().unwrap().unwrap().parse::<i32>().unwrap(), Instant::now());

    let mut bare: Vec<Duration> = (0..kills)
        .map(|_| {
            let before = Instant::now();
            let mut child = Command::new("/bin/sh").arg(&script).spawn().unwrap();
            let (_, born) = birth();
            child.kill().unwrap();
            child.wait().unwrap();
            born - before
        })
        .collect();

    let interpreter = ["--interpreter", "/bin/sh", "--min-uptime", "1", "--max-restarts", "100000"];
    home.pmx(&[&["start", script.to_str().unwrap()][..], &interpreter].concat()).ok();
    let (mut pid, mut born) = birth();
    let mut took = Vec::new();
    for _ in 0..kills {
        wait_until("its shortest stable life", || born.elapsed() > Duration::from_millis(20));
        let death = Instant::now();
        signal(pid, KILL);
        (pid, born) = birth();
        took.push(born - death);
    }
    took.sort();
    bare.sort();
    let (median, limit) = (took[took.len() / 2], bare[bare.len() / 2]);
    println!(
        "death to exec, {kills} kills: median {median:?} max {:?}; fork and exec alone {limit:?}",
        took[took.len() - 1]
    );
    assert!(median < 20 * limit + Duration::from_millis(20), "{median:?} against {limit:?}");
    wait_for("the list to know", || (home.pid(0) == pid).then_some(()));
}
