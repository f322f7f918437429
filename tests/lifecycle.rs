//! What becomes of a process: kept alive, stopped, given up, and everything that its child is given.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::probe::{self, is_root};
use crate::support::{Home, WAYS, finish, free_port, is_alive, node, signal, wait_for, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

fn env(home: &Home, id: u32, field: &str) -> Value {
    home.process(id)["pm2_env"][field].clone()
}

fn restarts(home: &Home, id: u32) -> u64 {
    env(home, id, "restart_time").as_u64().unwrap()
}

fn detail(home: &Home, id: u32) -> Value {
    let ran = home.pmx(&["describe", &id.to_string(), "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

/// Processes whose parent is `parent`.
fn children_of(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    let is_child = |pid: &i32| probe::stat(*pid).is_some_and(|stat| stat[1] == parent);
    probe::pids().into_iter().filter(is_child).collect()
}

#[test]
fn what_ends_is_started_again() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh", "--min-uptime", "0"]).ok();
    for count in 1..=5 {
        let pid = home.pid(0);
        signal(pid, libc::SIGKILL);
        wait_until("another child", || home.pid(0) != pid && home.pid(0) != 0);
        assert!(!is_alive(pid));
        assert_eq!(restarts(&home, 0), count);
    }
    let exits = detail(&home, 0)["exits"].clone();
    assert_eq!(exits.as_array().unwrap().len(), 5);
    assert_eq!(
        (exits[4]["signal"].as_i64(), exits[4]["text"].as_str()),
        (Some(9), Some("killed by SIGKILL"))
    );
    home.pmx(&["reset", "app"]).ok();
    assert_eq!(restarts(&home, 0), 0);
}

#[test]
fn what_dies_at_once_is_given_up_after_its_budget() {
    let home = Home::new();
    home.file("bad.sh", "#!/bin/sh\necho start >> starts\necho trouble ahead >&2\nexit 3\n");
    for (budget, starts) in [("1", 1), ("5", 5), ("16", 16)] {
        home.pmx(&["start", "bad.sh", "--max-restarts", budget]).ok();
        wait_until("it to be given up", || home.status(0) == "errored");
        let ran = fs::read_to_string(home.dir().join("starts")).unwrap().lines().count();
        assert_eq!(ran, starts, "as often as the budget says");
        assert_eq!(restarts(&home, 0), starts as u64 - 1);
        assert_eq!(env(&home, 0, "exit_code"), 3);
        assert_eq!(home.pid(0), 0);
        let page = home.pmx(&["describe", "bad"]).ok().out;
        assert!(page.contains(&format!("too many unstable restarts ({budget})")), "{page}");
        assert!(page.contains("exit code 3") && page.contains("trouble ahead"), "{page}");
        home.pmx(&["delete", "bad"]).ok();
        fs::remove_file(home.dir().join("starts")).unwrap();
    }
}

#[test]
fn a_life_longer_than_min_uptime_is_stable() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho start >> starts\nsleep 0.15\nexit 1\n");
    // Crashes count all the same, if they come together.
    let line = ["start", "app.sh", "--max-restarts", "2", "--min-uptime", "100", "--restart-window"];
    home.pmx(&[&line[..], &["100"]].concat()).ok();
    let starts = || fs::read_to_string(home.dir().join("starts")).unwrap_or_default().lines().count();
    wait_until("more starts than the budget", || starts() > 4);
    assert_eq!(env(&home, 0, "unstable_restarts"), 0);
    home.pmx(&["delete", "app"]).ok();
    home.pmx(&[&line[..], &["1h"]].concat()).ok();
    wait_until("it to be given up", || home.status(0) == "errored");
    let reason = env(&home, 0, "reason");
    assert_eq!(reason, "too many restarts (2 within 3600000 ms), the last one: exit code 1");
    assert_eq!(env(&home, 0, "unstable_restarts"), 0);
    home.pmx(&["delete", "app"]).ok();
    home.pmx(&["start", "app.sh", "--max-restarts", "2", "--min-uptime", "10s"]).ok();
    wait_until("it to be given up", || home.status(0) == "errored");
}

#[test]
fn a_clean_end_costs_nothing() {
    let home = Home::new();
    home.file("job.sh", "#!/bin/sh\necho start >> starts\nsleep 0.05\n");
    home.pmx(&["start", "job.sh", "--max-restarts", "2", "--min-uptime", "10"]).ok();
    let starts = || fs::read_to_string(home.dir().join("starts")).unwrap_or_default().lines().count();
    wait_until("more starts than the budget", || starts() > 6);
    assert_eq!((env(&home, 0, "restart_budget_left"), home.status(0) == "errored"), (json!(2), false));
}

/// Processor time of a process so far.
fn cpu_ms(pid: i32) -> u64 {
    pmx::sys::proc::stat(pid).unwrap().cpu_ms
}

#[test]
fn p09_a_crash_loop_without_end_slows_down_and_tells_when_it_goes_on() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("bad.sh", "#!/bin/sh\necho start >> starts\nexit 3\n");
        let began = Instant::now();
        home.pmx(&["start", "bad.sh", "--max-restarts", "unlimited"]).ok();
        let starts = || fs::read_to_string(home.dir().join("starts")).unwrap_or_default().lines().count();
        wait_until("more than pm2's budget", || starts() > 16);
        let (before, daemon) = (Instant::now(), home.daemon_pid().unwrap());
        let used = cpu_ms(daemon);
        // 15 delays of 10 ms, growing by half up to 2 s, come to more than 5 s.
        assert!(before - began > Duration::from_secs(5), "{:?}", before - began);
        assert_eq!(env(&home, 0, "restart_budget_left"), json!(null));
        wait_until("every start to be counted", || env(&home, 0, "unstable_restarts") == json!(starts()));
        wait_until("a delay to be told", || {
            home.pmx(&["list"]).ok().out.contains("bad(0): exit code 3; next start in ")
        });
        wait_until("two more", || starts() > 18);
        let (used, wall) = (cpu_ms(daemon) - used, before.elapsed().as_millis() as u64);
        assert!(used * 10 <= wall, "{used} ms of processor time in {wall} ms");
        let delay = wait_for("a delay", || env(&home, 0, "restart_in").as_u64());
        assert!(delay <= 2_000, "{delay}");
    }
}

#[test]
fn p10_many_that_crash_together_do_not_start_again_together_and_none_is_forgotten() {
    const MANY: usize = 200;
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", "#!/bin/sh\necho start >> starts\nexec sleep 1000\n");
        home.pmx(&["start", "app.sh", "-x", "-i", &MANY.to_string(), "--min-uptime", "1"]).ok();
        let starts = || fs::read_to_string(home.dir().join("starts")).unwrap_or_default().lines().count();
        wait_until("all of them", || starts() == MANY);
        let (pids, daemon) = (home.list(), home.daemon_pid().unwrap());
        let (began, used) = (Instant::now(), cpu_ms(daemon));
        for process in &pids {
            signal(process["pid"].as_i64().unwrap() as i32, libc::SIGKILL);
        }
        wait_until("a few at once", || starts() >= MANY + 16);
        let early = starts() - MANY;
        wait_until("all of them again", || starts() == 2 * MANY);
        let (took, used) = (began.elapsed(), cpu_ms(daemon) - used);
        println!(
            "{MANY} came back within {took:?}; {early} at first; the daemon used {used} ms of processor time"
        );
        assert!(took >= Duration::from_millis(4_100), "{took:?}");
        let share = used as f64 * 100.0 / took.as_millis() as f64;
        // What is not optimized takes longer.
        assert!(share <= if cfg!(debug_assertions) { 20.0 } else { 5.0 }, "{share} %");
        let list = home.list();
        for (before, after) in pids.iter().zip(&list) {
            assert!(after["pid"] != before["pid"] && after["pm2_env"]["restart_time"] == 1, "{after}");
        }
    }
}

#[test]
fn delays_are_kept_and_told() {
    let home = Home::new();
    home.file("bad.sh", "#!/bin/sh\ndate +%s%N >> starts\nexit 1\n");
    home.pmx(&["start", "bad.sh", "--restart-delay", "300", "--max-restarts", "3"]).ok();
    wait_until("it to wait", || home.status(0) == "waiting restart");
    let retry = wait_for("a countdown", || detail(&home, 0)["retry_in"].as_u64());
    assert!(retry <= 300, "{retry}");
    wait_until("it to be given up", || home.status(0) == "errored");
    let starts = |home: &Home| -> Vec<u64> {
        let text = fs::read_to_string(home.dir().join("starts")).unwrap();
        text.lines().map(|line| line.parse::<u64>().unwrap() / 1_000_000).collect()
    };
    let found = starts(&home);
    let gaps: Vec<u64> = found.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| (295..2_000).contains(gap)), "{gaps:?}");
    home.pmx(&["delete", "all"]).ok();
    fs::remove_file(home.dir().join("starts")).unwrap();
    let line = ["start", "bad.sh", "--exp-backoff-restart-delay", "100", "--max-restarts", "5"];
    home.pmx(&line).ok();
    wait_until("it to be given up", || home.status(0) == "errored");
    let gaps: Vec<u64> = starts(&home).windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, least) in gaps.iter().zip([100, 150, 225, 337]) {
        assert!((least - 5..least + 1_500).contains(gap), "{gaps:?}");
    }
    assert_eq!(gaps.len(), 4);
    // One that waits can be stopped and started.
    home.pmx(&["delete", "all"]).ok();
    home.pmx(&["start", "bad.sh", "--restart-delay", "1h"]).ok();
    wait_until("it to wait", || home.status(0) == "waiting restart");
    assert!(home.pmx(&["list"]).ok().out.contains("waiting"));
    home.pmx(&["restart", "bad"]).ok();
    wait_until("it to wait again", || home.status(0) == "waiting restart");
    home.pmx(&["stop", "bad"]).ok();
    assert_eq!(home.status(0), "stopped");
}

#[test]
fn an_end_can_be_the_end() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nsleep 0.1\nexit $1\n");
    home.pmx(&["start", "app.sh", "-n", "zero", "--stop-exit-codes", "0,7", "--", "0"]).ok();
    home.pmx(&["start", "app.sh", "-n", "seven", "--stop-exit-codes", "0,7", "--", "7"]).ok();
    home.pmx(&["start", "app.sh", "-n", "once", "--no-autorestart", "--", "9"]).ok();
    home.pmx(&["start", "app.sh", "-n", "again", "--stop-exit-codes", "0,7", "--", "8"]).ok();
    for (id, code) in [(0, 0), (1, 7), (2, 9)] {
        wait_until("it to stop", || home.status(id) == "stopped");
        assert_eq!((env(&home, id, "exit_code"), restarts(&home, id)), (json!(code), 0));
    }
    wait_until("the other to be restarted", || restarts(&home, 3) > 0);
}

#[test]
fn p02_stop_is_a_request_first_and_sigkill_at_last() {
    let home = Home::new();
    home.file("polite.sh", "#!/bin/sh\ntrap 'echo bye; exit 0' INT\necho up\nwhile :; do sleep 0.05; done\n");
    home.file("stubborn.sh", "#!/bin/sh\ntrap 'echo no' INT\necho up\nwhile :; do sleep 0.05; done\n");
    home.pmx(&["start", "polite.sh"]).ok();
    home.pmx(&["start", "stubborn.sh", "--kill-timeout", "700"]).ok();
    let up = |file: &str| wait_until("its trap to be set", || home.log(file) == "up\n");
    up("polite-out-0.log");
    up("stubborn-out-1.log");
    home.pmx(&["stop", "polite"]).ok();
    assert_eq!(home.log("polite-out-0.log"), "up\nbye\n");
    assert_eq!(env(&home, 0, "exit_code"), 0);
    let began = Instant::now();
    home.pmx(&["stop", "stubborn"]).ok();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert_eq!(home.log("stubborn-out-1.log"), "up\nno\n");
    assert_eq!(detail(&home, 1)["exits"][0]["text"], "killed by SIGKILL");
}

#[test]
fn p03_one_that_was_stopped_by_a_signal_stops_gracefully() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\ntrap 'echo bye; exit 0' INT\necho up\nwhile :; do sleep 0.05; done\n");
    home.pmx(&["start", "app.sh", "--kill-timeout", "20s"]).ok();
    wait_until("its trap to be set", || home.log("app-out-0.log") == "up\n");
    let pid = home.pid(0);
    signal(pid, libc::SIGSTOP);
    wait_until("it to be stopped", || probe::stat(pid).unwrap()[0] == "T");
    assert_eq!(home.status(0), "online");
    home.pmx(&["stop", "app"]).ok();
    assert_eq!(home.log("app-out-0.log"), "up\nbye\n");
}

#[test]
fn nothing_of_its_group_survives_a_stop() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nsleep 1000 &\nsh -c 'trap \"\" INT; sleep 1001 & wait' &\nwait\n");
    for stop in ["stop", "restart", "delete"] {
        home.pmx(&["start", "app.sh", "--kill-timeout", "300"]).ok();
        let pid = home.pid(0);
        let family = wait_for("its children", || {
            let children = children_of(pid);
            let grandchildren: Vec<i32> = children.iter().flat_map(|pid| children_of(*pid)).collect();
            (children.len() == 2 && grandchildren.len() == 1).then(|| [children, grandchildren].concat())
        });
        home.pmx(&[stop, "app"]).ok();
        assert!(!is_alive(pid));
        assert!(!family.iter().copied().any(is_alive), "{stop}: {family:?}");
        if stop == "restart" {
            home.pmx(&["stop", "app"]).ok();
        }
    }
}

#[test]
fn restart_delete_and_ids() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh", "-n", "a"]).ok();
    home.pmx(&["start", "app.sh", "-n", "b", "--namespace", "web"]).ok();
    home.pmx(&["start", "app.sh", "-n", "c", "--namespace", "web"]).ok();
    let pids = [home.pid(0), home.pid(1), home.pid(2)];
    home.pmx(&["restart", "web"]).ok();
    assert_eq!(home.pid(0), pids[0]);
    assert!(home.pid(1) != pids[1] && home.pid(2) != pids[2]);
    assert_eq!([0, 1, 2].map(|id| restarts(&home, id)), [0, 1, 1]);
    home.pmx(&["stop", "all"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["stopped"; 3]);
    home.pmx(&["start", "a"]).ok();
    home.pmx(&["start", "1"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["online", "online", "stopped"]);
    home.pmx(&["delete", "0", "2"]).ok();
    assert_eq!(home.list().len(), 1);
    home.pmx(&["start", "app.sh", "-n", "d"]).ok();
    assert_eq!(home.process(3)["name"], "d", "an id is not used twice while there are others");
    home.pmx(&["delete", "all"]).ok();
    home.pmx(&["start", "app.sh"]).ok();
    assert_eq!(home.status(0), "online", "counted from 0 again");
    // Twice is a mistake, unless it is said.
    let ran = home.pmx(&["start", "app.sh"]).failed();
    assert!(ran.err.contains("-f starts one more"), "{ran:?}");
    assert_eq!(home.list().len(), 1);
    home.pmx(&["start", "app.sh", "-f"]).ok();
    assert_eq!(home.list().len(), 2);
}

#[test]
fn scale_and_signals() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\ntrap 'echo usr' USR2\necho up\nwhile :; do sleep 0.05; done\n");
    home.pmx(&["start", "app.sh", "-x", "-i", "2"]).ok();
    let instances = || {
        let list = home.list();
        list.iter().map(|p| p["pm2_env"]["NODE_APP_INSTANCE"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = home.pid(0);
    for (to, expected) in [("4", 4), ("+1", 5), ("-3", 2), ("2", 2), ("1", 1), ("+2", 3)] {
        home.pmx(&["scale", "app", to]).ok();
        assert_eq!(instances(), (0..expected).collect::<Vec<_>>(), "scale {to}");
        assert_eq!(home.pid(0), first);
    }
    for id in home.list().iter().map(|p| p["pm_id"].as_u64().unwrap()) {
        wait_until("its trap to be set", || home.log(&format!("app-out-{id}.log")).contains("up\n"));
    }
    home.pmx(&["sendSignal", "USR2", "app"]).ok();
    for id in home.list().iter().map(|p| p["pm_id"].as_u64().unwrap()) {
        wait_until("its answer", || home.log(&format!("app-out-{id}.log")).ends_with("usr\n"));
    }
    assert_eq!(home.pid(0), first);
    home.pmx(&["sendSignal", "SIGKILL", "0"]).ok();
    wait_until("a restart", || restarts(&home, 0) == 1 && home.status(0) == "online");
}

#[test]
fn declarations_of_scripts_in_the_spelling_of_the_first_pm2() {
    let home = Home::new();
    home.file(
        "examples/worker.py",
        "import sys\nprint('worker', sys.argv[1:])\nimport time\ntime.sleep(1000)\n",
    );
    home.file("examples/ticker.sh", "#!/bin/sh\necho \"tick $PORT $port $COLOUR $#: $1\"\nexec sleep 1000\n");
    home.file(
        "processes.json",
        r#"[{ "name": "worker", "script": "./examples/worker.py", "exec_mode": "fork_mode",
              "args": "['--toto=heya coco', '-d', '1']", "min_uptime": "100", "max_restarts": "400" },
            { "name": "ticker", "script": "./examples/ticker.sh", "exec_mode": "fork_mode", "port": 9005,
              "instances": "2", "cron_restart": "0", "args": ["one two"], "env": { "COLOUR": "blue" } }]"#,
    );
    home.pmx(&["start", "processes.json"]).ok();
    assert_eq!(home.list().len(), 3);
    wait_until("python's line", || home.log("worker-out-0.log").ends_with('\n'));
    assert_eq!(home.log("worker-out-0.log"), "worker ['--toto=heya coco', '-d', '1']\n");
    for id in [1, 2] {
        let file = format!("ticker-out-{id}.log");
        wait_until("the shell's line", || !home.log(&file).is_empty());
        assert_eq!(home.log(&file), "tick 9005 9005 blue 1: one two\n");
    }
    assert_eq!(env(&home, 0, "max_restarts"), 400);
    assert_eq!(env(&home, 0, "min_uptime"), 100);
    // Started again: restarted, not doubled.
    let pids = [home.pid(0), home.pid(1), home.pid(2)];
    home.pmx(&["start", "processes.json", "--only", "worker"]).ok();
    assert_eq!(home.list().len(), 3);
    assert!(home.pid(0) != pids[0] && home.pid(1) == pids[1]);
    home.pmx(&["stop", "processes.json"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["stopped"; 3]);
    home.pmx(&["restart", "processes.json"]).ok();
    assert_eq!([0, 1, 2].map(|id| home.status(id)), ["online"; 3]);
    home.pmx(&["delete", "processes.json"]).ok();
    assert!(home.list().is_empty());
}

#[test]
fn e02_arguments_reach_the_app_as_they_are() {
    let home = Home::new();
    let python = "import os,sys,time\nopen('args','wb').write(b'\\0'.join(map(os.fsencode,sys.argv[1:])))\n";
    home.file("app.py", &format!("{python}time.sleep(1000)\n"));
    let arguments: Vec<OsString> = [
        &b"plain"[..],
        b"two words",
        b"",
        b"'single' \"double\"",
        b"back\\slash $HOME `id` $(id) *",
        b"new\nline\ttab",
        "caf\u{e9} \u{1f680}".as_bytes(),
        b"\xff\xfe not utf-8",
        b"--watch",
        b"--",
        b"-n",
    ]
    .iter()
    .map(|bytes| OsString::from_vec(bytes.to_vec()))
    .collect();
    let line: Vec<OsString> =
        ["start", "app.py", "--"].iter().map(OsString::from).chain(arguments.clone()).collect();
    let expected = arguments.iter().map(|word| word.as_bytes()).collect::<Vec<_>>().join(&0);
    home.pmx(&line).ok();
    let seen = || fs::read(home.dir().join("args")).unwrap_or_default();
    wait_until("the arguments to arrive", || seen() == expected);
    // They are those of the app from now on.
    fs::remove_file(home.dir().join("args")).unwrap();
    home.pmx(&["restart", "app"]).ok();
    wait_until("the arguments to arrive again", || seen() == expected);
}

#[test]
fn p11_a_child_is_given_what_it_should_have_and_nothing_else() {
    for way in WAYS {
        let home = Home::contained(way);
        let script = "#!/bin/sh\nls -l /proc/self/fd | awk 'NF>8{print $9}' > fds\numask > umask\npwd > cwd\n\
                      cat /proc/$$/environ > environ\nexec sleep 1000\n";
        home.file("work/app.sh", script);
        // The caller has fds open, a umask, and variables that are nobody else's business.
        let mut shell =
            home.shell("umask 027; unset OLDPWD; exec 7</etc/passwd; exec $PMX start app.sh -n api -x");
        let pmx = shell.get_envs().find(|(name, _)| *name == "PMX").unwrap().1.unwrap().to_owned();
        shell.env_clear().env("PMX", &pmx).env("PMX_HOME", home.path());
        shell.env("PATH", std::env::var_os("PATH").unwrap());
        shell.env("HOME", home.dir()).env("SECRET", "of the caller").env("EMPTY", "").env("PWD", "/wrong");
        shell
            .env("PMX_CGROUP", way)
            .env("NODE_UNIQUE_ID", "3")
            .env("NODE_CHANNEL_FD", "3")
            .env("LISTEN_FDS", "1");
        shell.env("NOTIFY_SOCKET", "/run/x").env("LISTEN_PID", "1").env("INVOCATION_ID", "x");
        let work = home.dir().join("work");
        finish(shell.current_dir(&work).spawn().unwrap()).ok();
        let pid = home.pid(0);
        // Shells block signals of their own now and then.
        let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        wait_until("the end of its report", || comm() == "sleep\n");
        let read = |file: &str| fs::read_to_string(work.join(file)).unwrap();
        // 3 is the directory that ls reads.
        assert_eq!(read("fds").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        assert_eq!(read("umask"), "0027\n");
        assert_eq!(read("cwd"), format!("{}\n", work.display()));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_string()
        };
        assert_eq!(field("SigBlk:"), "0000000000000000");
        assert_eq!(field("SigIgn:"), "0000000000000000");
        let stat = probe::stat(pid).unwrap();
        assert_eq!((&stat[2], &stat[3]), (&pid.to_string(), &pid.to_string()), "leads its group and session");
        let environ = fs::read(work.join("environ")).unwrap();
        let mut found: Vec<String> = environ
            .split(|byte| *byte == 0)
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .filter(|entry| !entry.is_empty())
            .collect();
        found.sort();
        let mut expected = [
            ("EMPTY", String::new()),
            ("HOME", home.dir().display().to_string()),
            ("NODE_APP_INSTANCE", "0".to_string()),
            ("NOTIFY_SOCKET", home.path().join("run/notify").display().to_string()),
            ("PMX", pmx.to_string_lossy().into_owned()),
            ("PMX_CGROUP", way.to_string()),
            ("PATH", std::env::var("PATH").unwrap()),
            ("PM2_HOME", home.path().display().to_string()),
            ("PMX_HOME", home.path().display().to_string()),
            ("PWD", work.display().to_string()),
            ("SECRET", "of the caller".to_string()),
            ("exec_mode", "fork_mode".to_string()),
            ("name", "api".to_string()),
            ("namespace", "default".to_string()),
            ("pm_cwd", work.display().to_string()),
            ("pm_exec_path", work.join("app.sh").display().to_string()),
            ("pm_id", "0".to_string()),
        ]
        .map(|(name, value)| format!("{name}={value}"))
        .to_vec();
        expected.sort();
        // What a shell sets by itself is the shell's.
        found.retain(|entry| !["OLDPWD=", "SHLVL=", "_="].iter().any(|name| entry.starts_with(name)));
        // Who it is, in a word that nobody else has.
        let mark = found.iter().position(|entry| entry.starts_with("PMX_INSTANCE=")).unwrap();
        let mark = found.remove(mark);
        assert_eq!(mark.rsplit('-').nth(1), Some("0"), "{mark}");
        let unique = found.iter().position(|entry| entry.starts_with("unique_id=")).unwrap();
        let unique = found.remove(unique);
        assert!(unique.starts_with("unique_id=00000000-0000-4000-8000-"), "{unique}");
        assert_eq!(found, expected);
        // A shell's variables are shown to nobody.
        for line in [&["jlist"][..], &["describe", "api"], &["describe", "api", "--json"]] {
            assert!(!home.pmx(line).ok().out.contains("of the caller"), "{line:?}");
        }
    }
}

#[test]
fn a_restart_keeps_its_environment_until_told_otherwise() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"colour $COLOUR\"\nexec sleep 1000\n");
    home.pmx_with(&[("COLOUR", "red")], &["start", "app.sh"]).ok();
    let last = || home.log("app-out-0.log").lines().last().unwrap_or_default().to_string();
    wait_until("red", || last() == "colour red");
    home.pmx_with(&[("COLOUR", "blue")], &["restart", "app"]).ok();
    wait_until("a second line", || home.log("app-out-0.log").lines().count() == 2);
    assert_eq!(last(), "colour red");
    home.pmx_with(&[("COLOUR", "blue")], &["restart", "app", "--update-env"]).ok();
    wait_until("blue", || last() == "colour blue");
}

#[test]
fn another_user_with_all_its_groups() {
    if !is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let home = Home::new();
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(home.dir());
    open(&home.file("app.sh", "#!/bin/sh\nid -u; id -g; id -G; echo $USER; echo $HOME\nexec sleep 1000\n"));
    home.pmx(&["start", "app.sh", "-n", "both", "--uid", "daemon", "--gid", "games"]).ok();
    home.pmx(&["start", "app.sh", "-n", "number", "--uid", "65534"]).ok();
    let lines = |file: &str| home.log(file).lines().map(String::from).collect::<Vec<_>>();
    wait_until("both to report", || {
        lines("both-out-0.log").len() == 5 && lines("number-out-1.log").len() == 5
    });
    let id = |args: &[&str]| {
        let out = Command::new("id").args(args).output().unwrap().stdout;
        String::from_utf8(out).unwrap().trim().to_string()
    };
    let games = fs::read_to_string("/etc/group").unwrap();
    let games = games.lines().find_map(|line| line.strip_prefix("games:x:")?.split(':').next()).unwrap();
    let both = lines("both-out-0.log");
    assert_eq!((&both[0], both[1].as_str(), both[3].as_str()), (&id(&["-u", "daemon"]), games, "daemon"));
    let mut groups: Vec<&str> = both[2].split(' ').collect();
    groups.sort_unstable();
    assert!(groups.contains(&games), "{groups:?}");
    assert!(!groups.contains(&"0"), "root's groups are dropped: {groups:?}");
    let number = lines("number-out-1.log");
    assert_eq!((number[0].as_str(), number[1].as_str()), ("65534", &*id(&["-g", "nobody"])));
    assert_eq!(home.list()[0]["pm2_env"]["username"], "daemon");
    home.pmx(&["stop", "all"]).ok();
}

#[test]
fn p07_every_way_to_end_is_shown_as_it_was() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("code.sh", "#!/bin/sh\nexit $NODE_APP_INSTANCE\n");
        home.file("signal.sh", "#!/bin/sh\nulimit -c 0\nkill -$NODE_APP_INSTANCE $$\nsleep 1000\n");
        home.pmx(&["start", "code.sh", "-i", "256", "-x", "--no-autorestart"]).ok();
        home.pmx(&["start", "signal.sh", "-i", "32", "-x", "--no-autorestart"]).ok();
        // 0 is no signal, a shell ignores 3, and the others do not end what they are sent to.
        let others = [0, 3, 17, 18, 19, 20, 21, 22, 23, 28];
        wait_until("all to end", || {
            let alive = home.list().into_iter().filter(|p| p["pm2_env"]["status"] != "stopped").count();
            alive == others.len()
        });
        let details: Vec<Value> =
            serde_json::from_str(&home.pmx(&["describe", "all", "--json"]).ok().out).unwrap();
        for process in details {
            let instance = process["instance"].as_i64().unwrap();
            let end = &process["exits"][0];
            if process["name"] == "code" {
                assert_eq!((end["code"].as_i64(), end["signal"].as_i64()), (Some(instance), None), "{end}");
                assert_eq!(end["text"], format!("exit code {instance}"));
            } else if !others.contains(&instance) {
                assert_eq!((end["code"].as_i64(), end["signal"].as_i64()), (None, Some(instance)), "{end}");
                let text = end["text"].as_str().unwrap();
                assert!(text.starts_with("killed by SIG"), "{text}");
            }
        }
        home.pmx(&["delete", "all"]).ok();
    }
}

#[test]
fn p08_what_cannot_be_executed_fails_with_one_sentence_and_no_loop() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("mode.bin", "no program\n");
        home.file("shebang", "#!/no/such/interpreter\n");
        home.file("ok.sh", SLEEPER);
        let executable = |name: &str| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(home.dir().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        executable("shebang");
        for (line, expected) in [
            (&["start", "missing.sh"][..], "missing.sh"),
            (&["start", "./mode.bin"], "mode.bin"),
            (&["start", "./mode.bin", "--interpreter", "none"], "mode.bin"),
            (&["start", "./shebang"], "execute the interpreter of /"),
            (&["start", "ok.sh", "--interpreter", "/no/such/program"], "/no/such/program"),
            (&["start", "ok.sh", "--cwd", "/no/such/directory"], "/no/such/directory"),
            (&["start", "ok.sh", "--uid", "nobody-knows"], "nobody-knows"),
        ] {
            let ran = home.pmx(line).failed();
            assert_eq!(ran.err.trim_end().lines().count(), 1, "{line:?}: {ran:?}");
            assert!(ran.err.contains(expected), "{line:?}: {ran:?}");
            for process in home.list() {
                assert_eq!(process["pm2_env"]["status"], "errored", "{line:?}");
                assert_eq!(process["pm2_env"]["restart_time"], 0, "{line:?}");
            }
            home.pmx(&["delete", "all"]);
        }
        // Gone between one start and the next.
        home.file("here/app.sh", SLEEPER);
        home.pmx(&["start", "here/app.sh", "--cwd", "here", "-n", "cwd"]);
        home.pmx(&["start", "../ok.sh", "--cwd", "here", "-n", "moved"]).ok();
        let pid = home.list().iter().find(|p| p["name"] == "moved").unwrap()["pid"].as_i64().unwrap() as i32;
        fs::remove_dir_all(home.dir().join("here")).unwrap();
        signal(pid, libc::SIGKILL);
        let find = || home.list().into_iter().find(|p| p["name"] == "moved").unwrap();
        wait_until("it to be given up", || find()["pm2_env"]["status"] == "errored");
        assert_eq!(find()["pm2_env"]["restart_time"], 1);
        let page = home.pmx(&["describe", "moved"]).ok().out;
        assert!(page.contains("change directory to") && page.contains("no such file or directory"), "{page}");
    }
}

/// The simulation goes through all of this by the thousand; here it is done to processes.
#[test]
fn p13_a_stop_and_a_delete_come_in_at_any_moment() {
    let script = "#!/bin/sh\ntrap 'while [ ! -e go ]; do sleep 0.02; done; exit' INT\n(setsid env --default-signal=INT sleep 1000 &) &\n\
                  echo $$ >> pids\nwhile :; do sleep 0.02; done\n";
    for (way, last) in WAYS.into_iter().flat_map(|way| [(way, "stop"), (way, "delete"), (way, "restart")]) {
        let home = Home::contained(way);
        home.file("app.sh", script);
        home.file("bad.sh", "#!/bin/sh\nexit 1\n");
        home.file(
            "apps.json",
            r#"[{ "name": "app", "script": "./app.sh", "kill_timeout": "20s", "ready": "notify", "listen_timeout": "20s" },
                { "name": "bad", "script": "./bad.sh", "restart_delay": "1h" }]"#,
        );
        let pids = || -> Vec<i32> {
            let text = fs::read_to_string(home.dir().join("pids")).unwrap_or_default();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        // While one starts and the other waits for its next start.
        let start = home.command(&["start", "apps.json"]).spawn().unwrap();
        wait_until("both", || {
            pids().len() == 1 && home.list().iter().any(|p| p["pm2_env"]["status"] == "waiting restart")
        });
        let mut client = probe::Client::connect(&home);
        client.ask(1, json!({ "verb": "stop", "targets": ["all"] }));
        wait_until("the stop to begin", || home.status(0) == "stopping");
        assert_eq!((home.status(1).as_str(), home.pid(0)), ("stopped", pids()[0]));
        // And while it stops: the last word counts.
        client.ask(2, json!({ "verb": last, "targets": ["app"] }));
        home.file("go", "");
        let _ = client.answer(if last == "restart" { 1 } else { 2 });
        assert!(finish(start).failed().err.contains("was asked for meanwhile"), "{way}, {last}");
        match last {
            "restart" => {
                wait_until("another child", || pids().len() == 2 && home.pid(0) == pids()[1]);
                assert_eq!(home.status(0), "launching");
            }
            "delete" => assert_eq!(home.list().len(), 1, "{way}"),
            _ => assert_eq!(home.status(0), "stopped", "{way}"),
        }
        assert!(!is_alive(pids()[0]), "{way}, {last}");
        home.pmx(&["delete", "all"]).ok();
        assert!(!pids().into_iter().any(is_alive) && home.list().is_empty(), "{way}, {last}");
    }
}

#[test]
fn p17_who_has_a_port_is_told_and_an_app_that_cannot_have_it_is_given_up() {
    // Not we: what other tests start has for a moment, between fork and exec, all that is open here.
    let script = "import socket, sys\ns = socket.create_server(('127.0.0.1', 0))\n\
                  print(s.getsockname()[1], flush=True)\nsys.stdin.read()";
    let mut stranger = Command::new("python3");
    stranger.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut stranger = stranger.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let pid = stranger.id();
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let by_stranger =
        format!("listen on tcp 127.0.0.1:{port}: address already in use by process {pid} ({})", comm.trim());
    let server = |port: u16| {
        format!(
            "require('fs').appendFileSync('starts', 'x');
             require('http').createServer((q, s) => s.end('x')).listen({port}, '127.0.0.1');"
        )
    };
    let start = |home: &Home, name: &str, fields: &Value| {
        let mut app =
            json!({ "name": name, "interpreter": node(20), "max_restarts": 3, "listen_timeout": "20s" });
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        home.file(&format!("{name}.json"), &app.to_string());
        home.pmx(&["start", &format!("{name}.json")])
    };
    let given_up = |home: &Home, id: u32, sentence: &str| {
        wait_until("it to be given up", || home.status(id) == "errored");
        assert_eq!(fs::read_to_string(home.dir().join("starts")).unwrap(), "xxx");
        let page = home.pmx(&["describe", &id.to_string()]).ok().out;
        assert!(page.contains(sentence), "{sentence}: {page}");
    };
    for way in WAYS {
        for fields in [
            json!({ "script": "./app.js", "exec_mode": "cluster" }),
            json!({ "script": "./app.js", "exec_mode": "cluster", "instances": 1, "balance": "rr" }),
            // It becomes a worker when it listens.
            json!({ "script": "./app.js" }),
        ] {
            let home = Home::contained(way);
            home.file("app.js", &server(port));
            let ran = start(&home, "app", &fields);
            given_up(&home, 0, &by_stranger);
            if fields["exec_mode"] == "cluster" {
                let ran = ran.failed();
                assert!(ran.err.contains(&by_stranger), "{way}, {fields}: {by_stranger}: {ran:?}");
            }
        }
        // Of any other program its own words are shown.
        let home = Home::contained(way);
        let python = format!(
            "import socket\nopen('starts', 'a').write('x')\ns = socket.socket()\ns.bind(('127.0.0.1', {port}))\n"
        );
        home.file("app.py", &python);
        start(&home, "other", &json!({ "script": "./app.py", "interpreter": "python3" }));
        given_up(&home, 0, "Address already in use");
        fs::remove_file(home.dir().join("starts")).unwrap();
        // It is one of ours that has it.
        let ours = free_port();
        home.file("app.js", &server(ours));
        let fields = json!({ "script": "./app.js", "exec_mode": "cluster" });
        start(&home, "first", &fields).ok();
        fs::remove_file(home.dir().join("starts")).unwrap();
        let ran = start(&home, "second", &fields).failed();
        let sentence = format!("tcp 127.0.0.1:{ours}: address already in use by the app first");
        assert!(ran.err.contains(&sentence), "{ran:?}");
        given_up(&home, 2, &sentence);
        // It has nothing to do with a later end.
        home.pmx(&["delete", "first"]).ok();
        home.pmx(&["restart", "second"]).ok();
        signal(home.pid(2), libc::SIGKILL);
        let last = || detail(&home, 2)["exits"].as_array().unwrap().last().unwrap()["text"].clone();
        wait_until("its end", || last() == "killed by SIGKILL");
    }
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
}

#[test]
fn where_open_files_are_short_more_can_run_whose_words_nobody_keeps() {
    let home = Home::new();
    let app = json!({
        "name": "app", "script": "sleep", "args": "1000", "interpreter": "none", "exec_mode": "fork",
        "instances": 80, "out_file": "NULL", "error_file": "NULL",
    });
    home.file("apps.json", &json!({ "apps": [app] }).to_string());
    home.pmx(&["list"]).ok();
    let daemon = home.daemon_pid().unwrap();
    let limit = ["--pid", &daemon.to_string(), "--nofile=200:200"];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    // Three files for each would be too many.
    home.pmx(&["start", "apps.json"]).ok();
    let are_online = || home.list().iter().all(|process| process["pm2_env"]["status"] == "online");
    assert!(are_online());
    let leads_to = |id: u32| fs::read_link(format!("/proc/{}/fd/1", home.pid(id))).unwrap();
    assert!(leads_to(0).to_string_lossy().starts_with("pipe:"), "{:?}", leads_to(0));
    assert_eq!(leads_to(79), PathBuf::from("/dev/null"));
    let before: Vec<i32> =
        home.list().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    let after: Vec<i32> = home.list().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    assert_eq!(after, before);
    signal(home.pid(79), libc::SIGKILL);
    wait_until("another child", || home.pid(79) != before[79] && home.pid(79) != 0 && are_online());
}

#[test]
fn signals_of_a_terminal_do_not_reach_what_runs() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let mut command = home.command(&["start", "app.sh"]);
    command.process_group(0);
    let child = command.spawn().unwrap();
    let group = child.id() as i32;
    finish(child).ok();
    let (app, daemon) = (home.pid(0), home.daemon_pid().unwrap());
    // As Ctrl-C would: to the whole group of the command that started it all.
    let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGINT);
    assert_eq!((home.pid(0), home.daemon_pid().unwrap()), (app, daemon));
    assert!(is_alive(app));
}
