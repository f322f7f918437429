//! Which processes a command means, and the verbs that start or reload.

use std::fs;
use std::io::{BufRead, BufReader};

use crate::support::{Home, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

#[cfg(feature = "regex")]
fn pids(home: &Home) -> Vec<i32> {
    home.list().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect()
}

#[cfg(feature = "regex")]
#[test]
fn processes_are_selected_by_a_pattern() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    for name in ["http-1", "http-2", "worker"] {
        home.pmx(&["start", "app.sh", "-n", name]).ok();
    }
    let before = pids(&home);
    home.pmx(&["restart", "/^http-[0-9]$/"]).ok();
    let after = pids(&home);
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
    home.pmx(&["stop", "/http/", "worker"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["stopped"; 3]);
    home.pmx(&["start", "/http/"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["online", "online", "stopped"]);
    let ran = home.pmx(&["stop", "/nothing/"]).failed();
    assert_eq!(ran.err, "stop /nothing/: no process has such a name\n");
    let ran = home.pmx(&["stop", "/(/"]).failed();
    assert!(ran.err.starts_with("stop /(/: ") && ran.err.lines().count() == 1, "{ran:?}");
    home.pmx(&["delete", "/.*/"]).ok();
    assert!(home.list().is_empty());
}

#[test]
fn a_number_is_a_name_first() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh", "-n", "1"]).ok();
    home.pmx(&["start", "app.sh", "-n", "b"]).ok();
    home.pmx(&["stop", "1"]).ok();
    assert_eq!([0, 1].map(|id| home.status(id)), ["stopped", "online"]);
    home.pmx(&["stop", "0"]).ok();
    home.pmx(&["delete", "./app.sh"]).ok();
    assert!(home.list().is_empty(), "by the path of what they run");
}

#[test]
fn start_or_reload_starts_what_is_missing_and_declares_the_rest_anew() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"$0 $COLOUR\" >> ran\nexec sleep 1000\n");
    let declare = |colour: &str, more: &str| {
        let first = format!(r#"{{ "name": "a", "script": "app.sh", "env": {{ "COLOUR": "{colour}" }} }}"#);
        home.file("apps.json", &format!("[{first}{more}]"));
    };
    let ran = || fs::read_to_string(home.dir().join("ran")).unwrap_or_default();
    let lines = |count: usize| wait_until("the app to run", || ran().lines().count() == count);
    declare("red", "");
    home.pmx(&["startOrReload", "apps.json"]).ok();
    lines(1);
    let first = home.pid(0);
    declare("blue", r#", { "name": "b", "script": "app.sh", "env": { "COLOUR": "grey" } }"#);
    for (verb, count) in [("startOrGracefulReload", 3), ("startOrRestart", 5), ("reload", 7)] {
        home.pmx(&[verb, "apps.json"]).ok();
        lines(count);
        assert_eq!(home.list().len(), 2);
    }
    assert!(home.pid(0) != first);
    assert_eq!(ran().lines().filter(|line| line.ends_with(" blue")).count(), 3);
    home.pmx(&["gracefulReload", "all"]).ok();
    lines(9);
    home.pmx(&["startOrReload", "a"]).ok();
    lines(10);
}

#[test]
fn the_list_has_an_order_and_a_small_form() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    for name in ["b", "a"] {
        home.pmx(&["start", "app.sh", "-n", name]).ok();
    }
    let ids = |line: &[&str]| {
        let out = home.pmx(line).ok().out;
        out.lines()
            .skip(3)
            .filter_map(|line| line.split_whitespace().nth(1).map(String::from))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&["list"]), ["1", "0"]);
    assert_eq!(ids(&["list", "--sort", "id"]), ["0", "1"]);
    assert_eq!(ids(&["ls", "--sort", "name:desc"]), ["0", "1"]);
    let err = home.pmx(&["list", "--sort", "colour"]).failed().err;
    assert!(err.starts_with("--sort: expected name, namespace, pid"), "{err}");
    let out = home.pmx(&["stop", "a", "-m"]).ok().out;
    let (pid, error_log) = (home.pid(0), home.path().join("logs/b-error-0.log"));
    let shown = |name: &str, id: u32, pid: i32, status: &str| {
        format!(
            "+--- {name}\nnamespace : default\npid : {pid}\npm2 id : {id}\nstatus : {status}\nmode : fork\n"
        )
    };
    assert!(out.starts_with(&format!("stop a(1): stopped\n{}", shown("a", 1, 0, "stopped"))), "{out}");
    assert!(out.contains(&shown("b", 0, pid, "online")), "{out}");
    assert!(out.contains(&format!("error log : {}\nwatching : disabled\n\n", error_log.display())), "{out}");
    let out = home.pmx(&["list", "-m", "--sort", "id"]).ok().out;
    assert!(out.starts_with("+--- b\n") && out.contains("\n+--- a\n"), "{out}");
}

#[test]
fn an_app_is_started_and_its_logs_are_followed() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"line of $1\"\nexec sleep 1000\n");
    for line in [
        &["start", "app.sh", "--attach", "--", "start"][..],
        &["restart", "app", "--attach", "--", "restart"],
    ] {
        let mut child = home.command(line).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let expected = format!("line of {}", line[0]);
        let seen: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.ends_with(&expected)).collect();
        assert!(seen.iter().any(|line| line.contains("last 15 lines for [0] processes")), "{seen:?}");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it goes on until it is ended");
        assert_eq!(home.status(0), "online");
    }
    home.pmx(&["start", "missing.sh", "--attach"]).failed();
}

#[test]
fn what_pm2s_scripts_say_is_understood() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"$@\" >> ran\nexec sleep 1000\n");
    home.pmx(&[
        "start",
        "app.sh",
        "--no-vizion",
        "--no-pmx",
        "--no-automation",
        "--disable-source-map-support",
    ])
    .ok();
    let first = home.pid(0);
    let err = home.pmx(&["reload", "app", "--force", "--trace"]).ok().err;
    assert!(err.ends_with("--trace is of pm2 and has no effect here\n"), "{err}");
    home.pmx(&["restart", "app", "-f", "-p", "run/app.pid"]).ok();
    let file = home.dir().join("run/app-0.pid");
    wait_until("its pid in a file", || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim() == home.pid(0).to_string())
    });
    home.pmx(&["stopAll"]).ok();
    assert_eq!(home.status(0), "stopped");
    home.pmx(&["restartAll"]).ok();
    assert!(home.status(0) == "online" && home.pid(0) != first);
    home.pmx(&["startOrReload", "app", "--", "x", "-y"]).ok();
    let ran = || fs::read_to_string(home.dir().join("ran")).unwrap_or_default();
    wait_until("its arguments", || ran().ends_with("\nx -y\n"));
    for (line, sentence) in [
        (&["link"][..], "link is of pm2: it is for the service pm2.io"),
        (&["deepUpdate"], "deepUpdate is of pm2: install another pmx, then pmx update goes over to it"),
        (
            &["start", "app.sh", "--no-daemon"],
            "--no-daemon is of pm2: pmx runtime runs apps in the foreground",
        ),
    ] {
        let err = home.pmx(line).failed().err;
        assert!(err.starts_with(sentence) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn what_was_said_on_a_command_line_is_written_down() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"$@\" >> ran\nexec sleep 1000\n");
    let line = [
        "start",
        "app.sh",
        "-n",
        "api",
        "-w",
        "-k",
        "500",
        "-i",
        "2",
        "-x",
        "--stop-signal",
        "TERM",
        "--",
        "x",
        "y z",
    ];
    let out = home.pmx(&line).ok().out;
    assert!(out.starts_with("start api: api-pm2.json is written\n"), "{out}");
    let text = fs::read_to_string(home.dir().join("api-pm2.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    let app = &written["apps"][0];
    for (field, value) in [
        ("name", "api".into()),
        ("script", "app.sh".into()),
        ("args", serde_json::json!(["x", "y z"])),
        ("kill_timeout", 500.into()),
        ("instances", 2.into()),
        ("exec_mode", "fork".into()),
    ] {
        assert_eq!(app[field], value, "{field}: {text}");
    }
    let describe = |home: &Home| {
        let mut app = home.process(1)["pm2_env"].clone();
        for told_by_time in ["pm_uptime", "created_at", "unique_id", "reason"] {
            app[told_by_time].take();
        }
        app
    };
    let before = describe(&home);
    home.pmx(&["delete", "all"]).ok();
    home.pmx(&["start", "api-pm2.json"]).ok();
    assert_eq!(describe(&home), before, "the file says the same");
    let err = home.pmx(&["start", "api-pm2.json", "-w"]).failed().err;
    assert!(err.contains("it is declared in a file already"), "{err}");
    let err = home.pmx(&["start", "api", "-w"]).failed().err;
    assert!(err.contains("only what is started anew is written down"), "{err}");
}
