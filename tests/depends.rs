//! Apps that wait for others.

use std::fs;

use serde_json::json;

use crate::support::{Home, finish, signal, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";
/// Tells when it is stopped.
const TELLER: &str = "#!/bin/sh\ntrap 'echo \"$name\" >> ended; exit 0' INT\nwhile :; do sleep 0.05; done\n";

fn reason(home: &Home, id: u32) -> String {
    home.process(id)["pm2_env"]["reason"].as_str().unwrap_or_default().to_string()
}

#[test]
fn what_is_declared_first_waits_for_what_it_depends_on() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("job.sh", "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\nexit 0\n");
    home.file(
        "apps.json",
        r#"[{ "name": "web", "script": "app.sh", "depends_on": { "job": "completed", "db": { "condition": "healthy" } } },
            { "name": "job", "script": "job.sh", "autorestart": false, "depends_on": ["db"] },
            { "name": "db", "script": "app.sh" }]"#,
    );
    let start = home.command(&["start", "apps.json"]).spawn().unwrap();
    wait_until("the job to run", || home.list().len() == 3 && home.status(1) == "online");
    assert_eq!((home.status(0).as_str(), home.pid(0)), ("waiting", 0));
    assert_eq!(reason(&home, 0), "waits for job to be completed; it is online");
    assert!(home.pmx(&["list"]).ok().out.contains("web(0): waits for job to be completed; it is online"));
    home.file("go", "");
    finish(start).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["online", "stopped", "online"]);
    assert_eq!(home.process(0)["pm2_env"]["reason"], json!(null));
}

#[test]
fn what_is_down_is_not_started_for_another_and_its_start_is_noticed() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("db.json", r#"{ "name": "db", "script": "app.sh" }"#);
    home.file("web.json", r#"{ "name": "web", "script": "app.sh", "depends_on": "db" }"#);
    let ran = home.pmx(&["start", "web.json"]).failed();
    assert!(
        ran.err.contains("it depends on db, which is neither in the list nor started with it"),
        "{ran:?}"
    );
    assert!(home.list().is_empty(), "nothing of it was begun");
    home.pmx(&["start", "db.json"]).ok();
    home.pmx(&["stop", "db"]).ok();
    let ran = home.pmx(&["start", "web.json"]).failed();
    assert!(ran.err.contains("waits for db to be ready; it is stopped"), "{ran:?}");
    assert_eq!([0, 1].map(|id| home.status(id)), ["stopped", "waiting"]);
    // A killed daemon forgets nobody.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    home.pmx(&["start", "db"]).ok();
    wait_until("it to be started", || home.status(1) == "online");
    // One that waits can be stopped.
    home.pmx(&["stop", "all"]).ok();
    home.pmx(&["start", "web"]).failed();
    home.pmx(&["stop", "web"]).ok();
    assert_eq!(home.status(1), "stopped");
}

#[test]
fn a_circle_is_refused() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "apps.json",
        r#"[{ "name": "a", "script": "app.sh", "depends_on": ["b"] },
            { "name": "b", "script": "app.sh", "depends_on": { "c": "started" } },
            { "name": "c", "script": "app.sh", "depends_on": [{ "app": "a", "condition": "ready" }] }]"#,
    );
    let ran = home.pmx(&["start", "apps.json"]).failed();
    assert!(ran.err.contains("start a: it depends on itself, by way of what it depends on"), "{ran:?}");
    assert!(home.list().is_empty());
}

#[test]
fn a_stop_begins_with_those_on_whom_nobody_depends() {
    let home = Home::new();
    home.file("app.sh", TELLER);
    home.file(
        "apps.json",
        r#"[{ "name": "db", "script": "app.sh", "kill_timeout": "20s" },
            { "name": "api", "script": "app.sh", "depends_on": ["db"], "kill_timeout": "20s" },
            { "name": "web", "script": "app.sh", "depends_on": ["api"], "kill_timeout": "20s" }]"#,
    );
    let ended = || fs::read_to_string(home.dir().join("ended")).unwrap_or_default();
    for line in [&["stop", "all"][..], &["delete", "all"], &["kill"]] {
        home.pmx(&["start", "apps.json"]).ok();
        wait_until("their traps", || {
            let set = |p: &serde_json::Value| {
                let status = fs::read_to_string(format!("/proc/{}/status", p["pid"])).unwrap_or_default();
                status.lines().any(|line| line.starts_with("SigCgt:") && line.ends_with('2'))
            };
            home.list().iter().all(set)
        });
        home.pmx(line).ok();
        assert_eq!(ended(), "web\napi\ndb\n", "{line:?}");
        fs::remove_file(home.dir().join("ended")).unwrap();
    }
}

/// What waits to be stopped by one command may be deleted by the next.
#[test]
fn a_delete_that_comes_while_a_stop_waits_is_a_delete() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\ntrap : INT\nwhile :; do sleep 0.1; done\n");
    home.file(
        "apps.json",
        r#"[{ "name": "db", "script": "app.sh", "kill_timeout": "100ms" },
            { "name": "web", "script": "app.sh", "depends_on": ["db"], "kill_timeout": "2s" }]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    let stop = home.command(&["stop", "all"]).spawn().unwrap();
    wait_until("the stop", || home.status(1) == "stopping");
    home.pmx(&["delete", "all"]).ok();
    finish(stop).ok();
    assert!(home.list().is_empty());
}

#[test]
fn what_can_never_be_completed_is_not_waited_for() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "apps.json",
        r#"[{ "name": "web", "script": "app.sh", "depends_on": { "job": "completed" } },
            { "name": "job", "script": "app.sh" }]"#,
    );
    let ran = home.pmx(&["start", "apps.json"]).failed();
    assert!(
        ran.err.contains("it waits for job to be completed, which starts again whenever it ends"),
        "{ran:?}"
    );
    assert!(home.list().is_empty());
}

#[test]
fn one_that_fails_holds_back_those_behind_it_and_nobody_waits_for_ever() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("db.sh", "#!/bin/sh\n[ -e well ] && exec sleep 1000\necho out of order >&2\nexit 3\n");
    home.file(
        "apps.json",
        r#"[{ "name": "web", "script": "app.sh", "depends_on": ["api"] },
            { "name": "api", "script": "app.sh", "depends_on": ["db"] },
            { "name": "db", "script": "db.sh", "max_restarts": 1, "ready": "uptime", "min_uptime": "500ms" }]"#,
    );
    let ran = home.pmx(&["start", "apps.json"]).failed();
    assert!(ran.err.contains("exit code 3") && ran.err.contains("out of order"), "{ran:?}");
    assert!(ran.err.contains("api(1): waits for db to be ready; it is errored"), "{ran:?}");
    assert!(ran.err.contains("web(0): waits for api to be ready; it is waiting"), "{ran:?}");
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["waiting", "waiting", "errored"]);
    let page = home.pmx(&["describe", "api"]).ok().out;
    assert!(page.contains("depends on") && page.contains("db (ready)"), "{page}");
    home.file("well", "");
    home.pmx(&["restart", "db"]).ok();
    wait_until("all of them", || (0..3).all(|id| home.status(id) == "online"));
}

#[test]
fn a_restart_of_what_others_need_leaves_them_alone_and_one_of_all_goes_in_order() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("db.sh", "#!/bin/sh\nwhile [ -e hold ]; do sleep 0.02; done\nexec sleep 1000\n");
    home.file(
        "apps.json",
        r#"[{ "name": "web", "script": "app.sh", "depends_on": { "db": "ready" } },
            { "name": "db", "script": "db.sh", "ready": "uptime", "min_uptime": "300ms" }]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    let web = home.pid(0);
    home.pmx(&["restart", "db"]).ok();
    assert_eq!(home.pid(0), web);
    // A crash of it while what it needs is not there.
    let restart = home.command(&["restart", "all"]).spawn().unwrap();
    // First for its end, for which the restart of both has asked.
    wait_until("it to wait", || reason(&home, 0) == "waits for db to be ready; it is launching");
    finish(restart).ok();
    assert_eq!([0, 1].map(|id| home.status(id)), ["online", "online"]);
}

#[test]
fn the_order_of_a_stop_outlives_the_daemon() {
    let home = Home::new();
    home.file("app.sh", TELLER);
    home.file(
        "web.sh",
        "#!/bin/sh\ntrap 'touch told; while [ ! -e go ]; do sleep 0.02; done; echo web >> ended; exit 0' INT\n\
         touch trapped\nwhile :; do sleep 0.02; done\n",
    );
    home.file(
        "apps.json",
        r#"[{ "name": "db", "script": "app.sh", "kill_timeout": "20s" },
            { "name": "web", "script": "web.sh", "depends_on": ["db"], "kill_timeout": "20s" }]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    wait_until("its trap", || home.dir().join("trapped").exists());
    let mut stop = home.command(&["stop", "all"]).spawn().unwrap();
    wait_until("the first to be told", || home.dir().join("told").exists());
    assert_eq!([0, 1].map(|id| home.status(id)), ["online", "stopping"]);
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!([0, 1].map(|id| home.status(id)), ["online", "stopping"]);
    home.file("go", "");
    wait_until("both to be down", || (0..2).all(|id| home.status(id) == "stopped"));
    assert_eq!(fs::read_to_string(home.dir().join("ended")).unwrap(), "web\ndb\n");
    let _ = stop.kill();
    let _ = stop.wait();
}

#[test]
fn what_is_started_meanwhile_is_not_stopped_after_all() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "web.sh",
        "#!/bin/sh\ntrap 'touch told; while [ ! -e go ]; do sleep 0.02; done; exit 0' INT\n\
         touch trapped\nwhile :; do sleep 0.02; done\n",
    );
    home.file(
        "apps.json",
        r#"[{ "name": "db", "script": "app.sh" },
            { "name": "web", "script": "web.sh", "depends_on": ["db"], "kill_timeout": "20s" }]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    wait_until("its trap", || home.dir().join("trapped").exists());
    let stop = home.command(&["stop", "all"]).spawn().unwrap();
    wait_until("the first to be told", || home.dir().join("told").exists());
    home.pmx(&["restart", "db"]).ok();
    home.file("go", "");
    let ran = finish(stop).failed();
    assert!(ran.err.contains("db(0): given up: a restart was asked for meanwhile"), "{ran:?}");
    assert_eq!([0, 1].map(|id| home.status(id)), ["online", "stopped"]);
}
