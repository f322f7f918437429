//! Commands before the start and after the end of an app.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Home, finish, is_alive, signal, wait_for, wait_until};

/// Notes what happens, in order.
const APP: &str =
    "#!/bin/sh\ntrap 'echo end >> order; exit 0' INT\necho app >> order\nwhile :; do sleep 0.02; done\n";

fn start(home: &Home, app: Value) -> crate::support::Ran {
    home.file("app.json", &app.to_string());
    home.pmx(&["start", "app.json"])
}

fn order(home: &Home) -> String {
    fs::read_to_string(home.dir().join("order")).unwrap_or_default()
}

fn pid(path: &Path) -> i32 {
    wait_for("a pid", || fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn detail(home: &Home) -> Value {
    let ran = home.pmx(&["describe", "app", "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

#[test]
fn they_run_before_each_start_and_after_each_end_as_the_app_does() {
    let home = Home::new();
    home.file("app.sh", APP);
    start(
        &home,
        json!({"name": "app", "script": "app.sh", "env": {"WHO": "me"},
               "pre_start": "echo \"$PWD $WHO $name\" > here; echo pre >> order; echo prepared", "post_stop": "echo post >> order"}),
    )
    .ok();
    wait_until("the app", || order(&home) == "pre\napp\n");
    let here = fs::read_to_string(home.dir().join("here")).unwrap();
    assert_eq!(here, format!("{} me app\n", home.dir().canonicalize().unwrap().display()));
    assert_eq!(
        (home.log("app-error-0.log").as_str(), home.log("app-out-0.log").as_str()),
        ("prepared\n", "")
    );
    home.pmx(&["restart", "app"]).ok();
    wait_until("the app", || order(&home) == "pre\napp\nend\npost\npre\napp\n");
    // A crash is an end, too.
    signal(home.pid(0), libc::SIGKILL);
    wait_until("the app", || order(&home).ends_with("app\npost\npre\napp\n"));
    wait_until("it to be online", || home.status(0) == "online");
    // Who waits for the stop waits for all of it.
    home.pmx(&["stop", "app"]).ok();
    assert!(order(&home).ends_with("app\nend\npost\n"), "{}", order(&home));
    let exits = detail(&home)["exits"].as_array().unwrap().len();
    assert_eq!(exits, 3, "what went well is not told");
}

#[test]
fn one_that_fails_is_a_failed_start() {
    let home = Home::new();
    home.file("app.sh", APP);
    let app = json!({"name": "app", "script": "app.sh", "max_restarts": 2, "pre_start": "echo the port is taken; exit 7"});
    let ran = start(&home, app).failed();
    assert!(ran.err.contains("pre_start: exit code 7") && ran.err.contains("the port is taken"), "{ran:?}");
    wait_until("it to be given up", || home.status(0) == "errored");
    let page = home.pmx(&["describe", "app"]).ok().out;
    assert!(page.contains("too many unstable restarts (2), the last one: pre_start: exit code 7"), "{page}");
    assert_eq!(home.log("app-error-0.log"), "the port is taken\n".repeat(2));
    assert_eq!(order(&home), "", "the app itself never ran");
}

#[test]
fn one_that_takes_too_long_is_ended_and_holds_nothing_up() {
    let home = Home::new();
    home.file("app.sh", APP);
    let app = json!({"name": "app", "script": "app.sh", "max_restarts": 1, "hook_timeout": "300ms",
                     "pre_start": "trap '' INT TERM; setsid sleep 1000 & echo $! > pid; wait; sleep 1000"});
    home.file("app.json", &app.to_string());
    let start = home.command(&["start", "app.json"]).spawn().unwrap();
    let sleeper = pid(&home.dir().join("pid"));
    assert_eq!(home.status(0), "launching");
    let ran = finish(start).failed();
    assert!(ran.err.contains("pre_start: not done within 300 ms"), "{ran:?}");
    assert!(!is_alive(sleeper), "nor does anything that it started live on");
    // The same after an end: then it is over.
    let app = json!({"name": "after", "script": "app.sh", "hook_timeout": "300ms", "post_stop": "echo $$ > pid2; exec sleep 1000"});
    self::start(&home, app).ok();
    home.pmx(&["stop", "after"]).ok();
    assert!(!is_alive(pid(&home.dir().join("pid2"))));
    assert_eq!(home.status(1), "stopped");
}

#[test]
fn a_stop_ends_what_is_run_before_the_start() {
    let home = Home::new();
    home.file("app.sh", APP);
    let app = json!({"name": "app", "script": "app.sh", "pre_start": "echo $$ > pid; exec sleep 1000", "post_stop": "echo post >> order"});
    home.file("app.json", &app.to_string());
    let start = home.command(&["start", "app.json"]).spawn().unwrap();
    let hook = pid(&home.dir().join("pid"));
    home.pmx(&["stop", "app"]).ok();
    assert!(finish(start).failed().err.contains("given up: a stop was asked for meanwhile"));
    assert!(!is_alive(hook));
    assert_eq!((home.status(0).as_str(), order(&home).as_str()), ("stopped", "post\n"));
}

#[test]
fn the_daemons_death_in_the_middle_of_either_is_survived() {
    let home = Home::new();
    home.file("app.sh", APP);
    let wait = |what: &str| {
        format!("echo $$ > {what}.pid; while [ ! -e {what}.go ]; do sleep 0.02; done; echo {what} >> order")
    };
    let app = json!({"name": "app", "script": "app.sh", "pre_start": wait("pre"), "post_stop": wait("post")});
    home.file("app.json", &app.to_string());
    let kill_daemon = || {
        let daemon = home.daemon_pid().unwrap();
        signal(daemon, libc::SIGKILL);
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    };
    let mut start = home.command(&["start", "app.json"]).spawn().unwrap();
    let pre = pid(&home.dir().join("pre.pid"));
    // An answer says that it is on record; one that is not is ended and run again.
    assert_eq!(home.status(0), "launching");
    kill_daemon();
    assert_eq!(home.status(0), "launching");
    assert_eq!((home.pid(0), is_alive(pre)), (pre, true));
    home.file("pre.go", "");
    wait_until("the app", || home.status(0) == "online" && order(&home) == "pre\napp\n");
    let _ = start.kill();
    let _ = start.wait();
    let mut stop = home.command(&["stop", "app"]).spawn().unwrap();
    let post = pid(&home.dir().join("post.pid"));
    assert_eq!(home.status(0), "stopping");
    kill_daemon();
    assert_eq!((home.status(0).as_str(), is_alive(post)), ("stopping", true));
    home.file("post.go", "");
    wait_until("its end", || home.status(0) == "stopped");
    assert_eq!(order(&home), "pre\napp\nend\npost\n");
    let _ = stop.kill();
    let _ = stop.wait();
    assert_eq!(home.process(0)["pm2_env"]["restart_time"], 0);
}

#[cfg(feature = "load")]
#[test]
fn in_a_reload_the_old_child_serves_on_until_it_has_succeeded() {
    let home = Home::new();
    let port = crate::support::free_port();
    home.file(
        "app.js",
        &format!("require('http').createServer((q, s) => s.end(String(process.pid))).listen({port})"),
    );
    let node = crate::support::node(20);
    let app = json!({"name": "app", "script": "app.js", "interpreter": node, "instances": 1, "exec_mode": "cluster",
                     "pre_start": "echo pre >> order; [ ! -e broken ]", "post_stop": "echo post >> order"});
    start(&home, app).ok();
    let serves = || crate::support::get(port, "/").unwrap().body.parse::<i32>().unwrap();
    let first = serves();
    home.file("broken", "");
    let ran = home.pmx(&["reload", "app"]).failed();
    assert!(ran.err.contains("pre_start: exit code 1; the old child serves on"), "{ran:?}");
    assert_eq!((serves(), home.pid(0)), (first, first));
    fs::remove_file(home.dir().join("broken")).unwrap();
    home.pmx(&["reload", "app"]).ok();
    assert_ne!(serves(), first);
    assert_eq!(order(&home), "pre\npre\npre\n", "nothing ended that no other had replaced");
}
