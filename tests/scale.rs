//! A thousand of them, and none: what the daemon costs, and that it forgets nothing and keeps nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::probe::{fds, idle_fds, keeper_pid, ping, rss, stat, status};
use crate::support::{Home, WAYS, signal, wait_until};

const COUNT: usize = 1_000;

fn statuses(home: &Home) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for process in home.list() {
        *found.entry(process["pm2_env"]["status"].as_str().unwrap().to_string()).or_default() += 1;
    }
    found
}

fn pids(home: &Home) -> Vec<i32> {
    home.list().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect()
}

/// The children of the daemon that nobody has reaped.
fn zombies(daemon: i32) -> usize {
    let of_daemon = |stat: Vec<String>| stat[0] == "Z" && stat[1] == daemon.to_string();
    crate::support::probe::pids().into_iter().filter_map(stat).filter(|stat| of_daemon(stat.clone())).count()
}

#[test]
fn p01_a_thousand_die_at_once_and_every_end_is_known() {
    for way in WAYS {
        let home = Home::contained(way);
        let apps = serde_json::json!({
            "name": "app", "script": "/bin/sleep", "args": ["1000"], "instances": COUNT, "exec_mode": "fork",
            "autorestart": false, "merge_logs": true,
        });
        home.file("apps.json", &apps.to_string());
        // What the first child brings about stays.
        home.pmx(&["start", "/bin/sleep", "--", "1000"]).ok();
        home.pmx(&["delete", "sleep"]).ok();
        let daemon = home.daemon_pid().unwrap();
        let open = idle_fds(&home);
        let mut kept = Vec::new();
        for round in 0..2 {
            let began = Instant::now();
            home.pmx(&["start", "apps.json"]).ok();
            println!("{COUNT} started in {:?}", began.elapsed());
            assert_eq!(statuses(&home), BTreeMap::from([("online".to_string(), COUNT)]));
            println!("rss with {COUNT}: {} kB, {} fds", rss(daemon), fds(daemon).len());
            for pid in pids(&home) {
                signal(pid, libc::SIGKILL);
            }
            println!("a ping after {COUNT} ends: {:?}", ping(&home));
            wait_until("all to be stopped", || statuses(&home).get("stopped") == Some(&COUNT));
            // Whoever saves the list ends at any time.
            wait_until("no zombie", || zombies(daemon) == 0);
            let text = home.pmx(&["describe", "all", "--json"]).ok().out;
            let details: Vec<Value> = serde_json::from_str(&text).unwrap();
            for process in &details {
                let exits = process["exits"].as_array().unwrap();
                assert_eq!(
                    (exits.len(), exits[0]["signal"].as_i64()),
                    (1, Some(9)),
                    "round {round}: {process}"
                );
            }
            home.pmx(&["delete", "all"]).ok();
            assert!(home.list().is_empty());
            assert_eq!(idle_fds(&home), open);
            // Without the pages of its program, which come and go.
            kept.push(status(daemon, "RssAnon"));
        }
        println!("memory after delete: {kept:?} kB");
        assert!(kept[1] <= kept[0] + kept[0] / 20 + 512, "it grows: {kept:?}");
    }
}

#[test]
fn p01_hundreds_die_at_once_and_all_are_back() {
    // Starts are spread: of a thousand the last one comes after 20 seconds.
    const MANY: usize = 400;
    for way in WAYS {
        let home = Home::contained(way);
        let many = MANY.to_string();
        home.pmx(&["start", "/bin/sleep", "-x", "-i", &many, "--merge-logs", "--", "1000"]).ok();
        let before = pids(&home);
        assert_eq!(before.len(), MANY);
        let began = Instant::now();
        for &pid in &before {
            signal(pid, libc::SIGKILL);
        }
        wait_until("all to be back", || {
            // Each look at hundreds takes the daemon's time.
            std::thread::sleep(Duration::from_millis(500));
            let list = home.list();
            let is_back = |process: &Value| {
                process["pm2_env"]["status"] == "online" && process["pm2_env"]["restart_time"] == 1
            };
            list.len() == MANY && list.iter().all(is_back)
        });
        println!("{MANY} back in {:?}", began.elapsed());
        wait_until("no zombie", || zombies(home.daemon_pid().unwrap()) == 0);
        let began = Instant::now();
        home.pmx(&["kill"]).ok();
        println!("{MANY} stopped in {:?}", began.elapsed());
    }
}

/// How many processes a test of scale starts. What the catalogue of faults asks for is meant for 10 000, of a release
/// build, where root may raise the limit of open files.
fn many() -> usize {
    std::env::var("PMX_TEST_APPS").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

/// Runs a command and says how long it took.
#[track_caller]
fn timed(home: &Home, args: &[&str]) {
    let began = Instant::now();
    home.pmx(args).ok();
    println!("pmx {}: {:?}", args.join(" "), began.elapsed());
}

/// What the daemon and its keeper hold in memory, without the pages of the program, which are many where it is not
/// optimised. The allowance is what they hold without processes, and 6 kB for each; 10 000 may take 60 MB.
#[track_caller]
fn assert_lean(home: &Home, count: usize, when: &str) {
    let (daemon, keeper) = (home.daemon_pid().unwrap(), keeper_pid(home).unwrap());
    let of = |pid| rss(pid) - status(pid, "RssFile");
    let both = || of(daemon) + of(keeper);
    let all = rss(daemon) + rss(keeper);
    println!("{when}: {all} kB resident, {} kB without the program; {} fds", both(), fds(daemon).len());
    // What was needed to start them is given back when nothing happens any more.
    wait_until("memory to be given back", || both() <= 3_000 + 6 * count as u64);
    println!("then: {} kB without the program", both());
}

/// Starts what is declared, looks at it, kills its daemon, and stops it all by `end`.
fn scale(home: &Home, declaration: &str, count: usize, end: &[&str]) {
    home.file("apps.json", declaration);
    timed(home, &["start", "apps.json"]);
    let facts = |list: &[Value]| -> Vec<(i64, String, u64)> {
        let fact = |process: &Value| {
            let env = &process["pm2_env"];
            let (status, restarts) = (env["status"].as_str().unwrap(), env["restart_time"].as_u64().unwrap());
            (process["pid"].as_i64().unwrap(), status.to_string(), restarts)
        };
        list.iter().map(fact).collect()
    };
    let before = facts(&home.list());
    assert_eq!(before.len(), count);
    assert!(before.iter().all(|(pid, status, _)| *pid > 0 && status == "online"));
    for _ in 0..3 {
        timed(home, &["list"]);
    }
    let daemon = home.daemon_pid().unwrap();
    assert_lean(home, count, "started");
    let cpu = pmx::sys::proc::stat(daemon).unwrap().cpu_ms;
    println!("the daemon has used {cpu} ms of processor time");
    signal(daemon, libc::SIGKILL);
    let began = Instant::now();
    ping(home);
    println!("control was back {:?} after SIGKILL", began.elapsed());
    assert_eq!(facts(&home.list()), before, "the same children, none of them started anew");
    let daemon = home.daemon_pid().unwrap();
    assert_quiet(daemon, &format!("{count} processes, after a death"));
    assert_lean(home, count, "after a death");
    timed(home, end);
    let is_left = |(pid, ..): &&(i64, String, u64)| crate::support::is_alive(*pid as i32);
    assert_eq!(before.iter().filter(is_left).count(), 0);
}

#[test]
fn b10_many_apps() {
    let home = Home::new();
    let app = |number: usize| serde_json::json!({ "name": format!("app-{number}"), "script": "/bin/sleep", "args": ["100000"], "exec_mode": "fork" });
    let apps: Vec<Value> = (0..many()).map(app).collect();
    scale(&home, &Value::from(apps).to_string(), many(), &["kill"]);
}

#[test]
fn b10_many_instances_of_one_app() {
    let home = Home::new();
    let app = serde_json::json!({
        "name": "app", "script": "/bin/sleep", "args": ["100000"], "exec_mode": "fork", "instances": many(),
    });
    scale(&home, &app.to_string(), many(), &["stop", "all"]);
}

#[test]
fn nothing_wakes_an_idle_daemon() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["list"]).ok();
    let daemon = home.daemon_pid().unwrap();
    for count in ["0", "100"] {
        if count != "0" {
            home.pmx(&["start", "app.sh", "-x", "-i", count]).ok();
        }
        assert_quiet(daemon, &format!("{count} processes"));
    }
}

#[test]
fn code_that_is_not_needed_is_given_back() {
    let home = Home::new();
    home.pmx(&["list"]).ok();
    let daemon = home.daemon_pid().unwrap();
    let held = || status(daemon, "RssFile");
    // While it is asked things it holds what it takes to answer.
    let asked = || {
        home.pmx(&["jlist"]).ok();
        held()
    };
    let busy = (0..10).map(|_| asked()).max().unwrap();
    wait_until("it to be given back", || held() < busy * 4 / 5);
}

/// Waits until the daemon rests, and asserts that nothing wakes it then.
#[track_caller]
fn assert_quiet(daemon: i32, what: &str) {
    let wakes = || status(daemon, "voluntary_ctxt_switches") + status(daemon, "nonvoluntary_ctxt_switches");
    // The last client has gone when it has been forgotten, and the list is saved after a second, or five seconds
    // after it was saved before.
    let mut last = (wakes(), Instant::now());
    wait_until("it to be quiet", || {
        let now = wakes();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(5_500)
    });
    // What is observed is that for two seconds nothing happens.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(wakes(), last.0, "woken with {what}");
}
