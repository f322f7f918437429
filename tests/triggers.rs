//! What replaces a process without being asked: memory, the calendar, files that change.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Home, is_alive, signal, wait_for, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

fn detail(home: &Home, id: u32) -> Value {
    let ran = home.pmx(&["describe", &id.to_string(), "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

fn by_cause(home: &Home, id: u32, cause: &str) -> u64 {
    detail(home, id)["by_cause"][cause].as_u64().unwrap_or(0)
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Uses so many MiB, from the second start on only a little.
const GLUTTON: &str = "
import os, sys, time
first = not os.path.exists('started')
open('started', 'a').write('x')
size = int(sys.argv[1]) if first else 1
if len(sys.argv) > 2 and first and os.fork() == 0:
    hoard = bytearray(os.urandom(1 << 20) * size)
    time.sleep(1000)
hoard = bytearray(os.urandom(1 << 20) * (1 if len(sys.argv) > 2 else size))
time.sleep(1000)
";

#[test]
fn who_uses_more_memory_than_its_limit_is_replaced() {
    for (limit, tree) in [("60M", false), ("62914560", true)] {
        let home = Home::new();
        home.file("app.py", GLUTTON);
        let mut line = vec!["start", "app.py", "--max-memory-restart", limit, "--", "100"];
        line.extend(tree.then_some("fork"));
        home.pmx(&line).ok();
        wait_until("a restart", || by_cause(&home, 0, "memory") == 1);
        wait_until("it to be online", || home.status(0) == "online");
        let reason = detail(&home, 0)["last_restart"].as_str().unwrap().to_string();
        assert!(
            reason.starts_with("memory ") && reason.ends_with("MiB over the limit of 60 MiB"),
            "{reason}"
        );
        let page = home.pmx(&["describe", "0"]).ok().out;
        assert!(page.contains("1 (1 memory)"), "{page}");
        assert_eq!(home.process(0)["pm2_env"]["max_memory_restart"], 60 << 20);
    }
}

#[test]
fn n09_a_limit_is_a_share_of_what_there_is_and_more_than_there_is_is_told() {
    let home = Home::new();
    home.file("app.py", GLUTTON);
    home.pmx(&["start", "app.py", "--max-memory-restart", "80%", "-i", "2", "--", "1"]).ok();
    let log = || fs::read_to_string(home.path().join("pmx.log")).unwrap();
    wait_until("a warning", || log().contains("in sum over 2 processes, and there are"));
    assert_eq!(home.process(0)["pm2_env"]["max_memory_restart"], "80%");
    home.pmx(&["restart", "app", "--max-memory-restart", "0"]).ok();
    assert!(home.process(0)["pm2_env"]["max_memory_restart"].is_null());
}

#[test]
fn a_cron_restart_is_on_time_and_leaves_alone_what_is_stopped() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("apps.json", r#"{ "name": "app", "script": "app.sh", "cron_restart": "* * * * * *" }"#);
    home.pmx(&["start", "apps.json"]).ok();
    let pid = home.pid(0);
    wait_until("two restarts", || by_cause(&home, 0, "cron") >= 2);
    assert!(!is_alive(pid));
    let shown = detail(&home, 0);
    assert_eq!(shown["last_restart"], "cron * * * * * *");
    assert!(shown["next_run"].as_u64().unwrap() > shown["last_run"].as_u64().unwrap());
    home.pmx(&["stop", "app"]).ok();
    let log = || fs::read_to_string(home.path().join("pmx.log")).unwrap();
    let (before, began) = (log(), Instant::now());
    // It would have been due twice.
    wait_until("two seconds", || began.elapsed() > Duration::from_millis(2_100));
    assert_eq!((home.status(0).as_str(), log() == before), ("stopped", true));
    assert!(home.process(0)["pm2_env"]["next_run"].is_null());
    home.pmx(&["restart", "app", "--cron-restart", "0"]).ok();
    assert!(home.process(0)["pm2_env"]["cron_restart"].is_null());
}

#[test]
fn a_cron_pattern_or_zone_that_is_wrong_is_refused() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    for (line, sentence) in [
        (
            &["--cron-restart", "61 * * * *"][..],
            "--cron-restart: expected a cron pattern with a minute from 0 to 59, not \"61\"",
        ),
        (&["--cron-restart", "@daily", "--cron-timezone", "Mars/Olympus"], "time zone \"Mars/Olympus\""),
        (&["--cron-restart", "@daily", "--schedule", "@daily"], "it cannot be both"),
        (&["--overlap", "never"], "--overlap: expected skip, queue or kill"),
    ] {
        let ran = home.pmx(&[&["start", "app.sh"], line].concat()).failed();
        assert!(ran.err.contains(sentence), "{ran:?}");
    }
}

#[test]
fn a_zone_moves_the_calendar() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    // Twenty hours apart.
    for (name, zone) in [("east", "XXX-10"), ("west", "YYY10")] {
        home.pmx(&["start", "app.sh", "-n", name, "--cron-restart", "0 12 * * *", "--cron-timezone", zone])
            .ok();
    }
    let next = |id| home.process(id)["pm2_env"]["next_run"].as_u64().unwrap();
    let apart = next(0).abs_diff(next(1)) / 3_600_000;
    assert!(apart == 20 || apart == 4, "{apart}");
    assert_eq!(next(0) / 3_600_000 % 24, 2);
}

/// A job that notes its runs and takes as long as the file `long` says.
const JOB: &str = "#!/bin/sh\ndate +%s%N >> runs\n[ -e long ] && exec sleep 1000\nexit 7\n";

#[test]
fn a_job_runs_when_it_is_due_and_is_down_in_between() {
    let home = Home::new();
    home.file("job.sh", JOB);
    home.pmx(&["start", "job.sh", "--schedule", "*/2 * * * * *"]).ok();
    let runs = home.dir().join("runs");
    wait_until("three runs", || lines(&runs) >= 3);
    wait_until("it to wait", || home.status(0) == "scheduled");
    let shown = detail(&home, 0);
    assert_eq!((&shown["restarts"], &shown["reason"]), (&0.into(), &"the last run: exit code 7".into()));
    assert!(shown["exits"].as_array().unwrap().len() >= 2, "{shown}");
    assert_eq!(shown["next_run"].as_u64().unwrap() % 2_000, 0);
    assert!(home.pmx(&["list"]).ok().out.contains("next run"));
    let times: Vec<u64> =
        fs::read_to_string(&runs).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    for pair in times.windows(2) {
        assert_eq!((pair[1] / 1_000_000_000) - (pair[0] / 1_000_000_000), 2, "{times:?}");
    }
    home.pmx(&["stop", "job"]).ok();
    assert_eq!(home.status(0), "stopped");
    home.pmx(&["start", "job"]).ok();
    assert_eq!(home.status(0), "scheduled");
}

#[test]
fn a_job_that_is_due_while_it_runs_is_left_out_or_queued_or_run_anew() {
    let home = Home::new();
    for overlap in ["skip", "queue", "kill"] {
        home.file(&format!("{overlap}/job.sh"), JOB);
        home.file(&format!("{overlap}/long"), "");
        let dir = home.dir().join(overlap);
        let line = ["start", "job.sh", "-n", overlap, "--cwd", dir.to_str().unwrap()];
        home.pmx(&[&line[..], &["--schedule", "* * * * * *", "--overlap", overlap]].concat()).ok();
    }
    let runs = |overlap: &str| lines(&home.dir().join(overlap).join("runs"));
    wait_until("dates left out", || detail(&home, 0)["skipped"].as_u64().unwrap() >= 2);
    wait_until("three runs", || runs("kill") >= 3);
    assert_eq!((runs("skip"), runs("queue")), (1, 1));
    assert!(by_cause(&home, 2, "cron") >= 2);
    fs::remove_file(home.dir().join("queue/long")).unwrap();
    signal(home.pid(1), libc::SIGKILL);
    wait_until("the queued run", || runs("queue") >= 2);
}

#[test]
fn a_job_loses_no_run_and_has_none_twice_when_the_daemon_is_killed() {
    let home = Home::new();
    home.file("job.sh", JOB);
    home.pmx(&["start", "job.sh", "--schedule", "*/3 * * * * *"]).ok();
    let runs = home.dir().join("runs");
    for round in 1..=3 {
        wait_until("a run", || lines(&runs) >= round);
        // Once it answers, the run is on record: one that it has no word of would come again.
        home.pmx(&["ping"]).ok();
        let daemon = home.daemon_pid().unwrap();
        signal(daemon, libc::SIGKILL);
        wait_for("another daemon", || home.daemon_pid().filter(|pid| *pid != daemon));
    }
    wait_until("more runs", || lines(&runs) >= 5);
    home.pmx(&["stop", "job"]).ok();
    let text = fs::read_to_string(&runs).unwrap();
    // A start takes its time under load, but not so long that it falls into the three seconds after its own.
    let dates: Vec<u64> = text.lines().map(|line| line.parse::<u64>().unwrap() / 3_000_000_000).collect();
    let (first, last) = (dates[0], dates[dates.len() - 1]);
    assert!(dates.iter().copied().eq(first..=last), "{dates:?}");
}

#[cfg(feature = "watch")]
mod watch {
    use super::*;

    const NOTED: &str = "#!/bin/sh\necho start >> ../starts\nexec sleep 1000\n";

    /// An app in a directory of its own, which notes its starts outside.
    fn start(home: &Home, options: &[&str]) -> std::path::PathBuf {
        home.file("app/app.sh", NOTED);
        home.file("app/src/a.js", "1");
        home.file("app/logs/x.log", "");
        let dir = home.dir().join("app");
        let line = ["start", "app.sh", "--cwd", dir.to_str().unwrap()];
        home.pmx(&[&line[..], options].concat()).ok();
        wait_until("it to be online", || {
            home.status(0) == "online" && lines(&home.dir().join("starts")) == 1
        });
        // The directories are looked into in the rounds after that.
        let daemon = home.daemon_pid().unwrap();
        let least = if options[0] == "--watch" { 3 } else { 2 };
        wait_until("inotify watches", || watches(daemon) >= least);
        dir
    }

    /// How many directories the process watches.
    fn watches(pid: i32) -> usize {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts
            .map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_changed_file_restarts_the_app_once_and_says_which() {
        let home = Home::new();
        let dir = start(&home, &["--watch", "--ignore-watch", "logs *.tmp"]);
        let starts = home.dir().join("starts");
        wait_until("the first start", || lines(&starts) == 1);
        // What does not matter, and then many files at once that do.
        for quiet in ["logs/x.log", "b.tmp", ".hidden", "node_modules/x"] {
            fs::create_dir_all(dir.join(quiet).parent().unwrap()).unwrap();
            fs::write(dir.join(quiet), "2").unwrap();
        }
        // By a shell: a file that we had open might for a moment be open in a child of another test as well, and then
        // it is closed, which is what counts, after those that came later.
        let script = "i=0; while [ $i -lt 50 ]; do echo 2 > src/$i.js; i=$((i+1)); done; echo 2 > src/a.js";
        let wrote = std::process::Command::new("sh").args(["-c", script]).current_dir(&dir).status().unwrap();
        assert!(wrote.success());
        wait_until("a restart", || by_cause(&home, 0, "watch") >= 1);
        // More than one only if they took longer to write than the app is waited for: the last one is named.
        wait_until("the last to be named", || detail(&home, 0)["last_restart"] == "watch: src/a.js changed");
        let restarts = by_cause(&home, 0, "watch");
        assert!(restarts <= 3, "{restarts}");
        wait_until("a start", || lines(&starts) as u64 == 1 + restarts);
        // Directories that come later are watched as well.
        fs::create_dir_all(dir.join("new/deep")).unwrap();
        wait_until("a restart", || by_cause(&home, 0, "watch") == restarts + 1);
        let daemon = home.daemon_pid().unwrap();
        wait_until("the new ones to be watched", || watches(daemon) >= 5);
        fs::write(dir.join("new/deep/b.js"), "1").unwrap();
        wait_until("a restart", || detail(&home, 0)["last_restart"] == "watch: new/deep/b.js changed");
        assert_eq!(home.process(0)["pm2_env"]["watch"], true);
        assert!(home.pmx(&["list"]).ok().out.contains("enabled"));
    }

    #[test]
    fn stop_pauses_it_and_restart_sets_it() {
        let home = Home::new();
        let dir = start(&home, &["--watch=src", "--watch-delay", "200", "--ext", "js,json"]);
        home.pmx(&["stop", "app"]).ok();
        wait_until("no watches", || watches(home.daemon_pid().unwrap()) == 0);
        fs::write(dir.join("src/a.js"), "2").unwrap();
        home.pmx(&["start", "app"]).ok();
        wait_until("watches", || watches(home.daemon_pid().unwrap()) > 0);
        fs::write(dir.join("src/a.txt"), "3").unwrap();
        let wrote = Instant::now();
        fs::write(dir.join("src/a.js"), "3").unwrap();
        wait_until("a restart", || by_cause(&home, 0, "watch") == 1);
        assert!(wrote.elapsed() >= Duration::from_millis(200));
        for _ in 0..2 {
            home.pmx(&["restart", "app", "--watch"]).ok();
            assert_eq!(home.process(0)["pm2_env"]["watch"], true);
        }
        home.pmx(&["restart", "app", "--no-watch"]).ok();
        assert_eq!(home.process(0)["pm2_env"]["watch"], false);
        wait_until("no watches", || watches(home.daemon_pid().unwrap()) == 0);
    }

    #[test]
    fn an_app_that_restarts_itself_is_let_be_and_the_file_is_named() {
        let home = Home::new();
        home.file("app/app.sh", "#!/bin/sh\necho x >> made-by-itself\nexec sleep 1000\n");
        let dir = home.dir().join("app");
        home.pmx(&["start", "app.sh", "--cwd", dir.to_str().unwrap(), "--watch"]).ok();
        // Its first change may have come before anybody watched.
        let daemon = home.daemon_pid().unwrap();
        wait_until("inotify watches", || watches(daemon) >= 2);
        fs::write(dir.join("made-by-itself"), "").unwrap();
        wait_until("a pause", || home.process(0)["pm2_env"]["watching"] == "paused");
        assert_eq!(by_cause(&home, 0, "watch"), 10);
        let page = home.pmx(&["describe", "0"]).ok().out;
        assert!(
            page.contains("paused: 10 restarts within a minute, the last because made-by-itself changed"),
            "{page}"
        );
        assert!(home.pmx(&["list"]).ok().out.contains("paused"));
        // A new beginning is one.
        home.pmx(&["stop", "app"]).ok();
        home.pmx(&["start", "app"]).ok();
        assert_eq!(home.process(0)["pm2_env"]["watching"], "enabled");
    }

    #[test]
    fn what_has_no_end_or_is_not_there_is_refused() {
        let home = Home::new();
        home.file("app.sh", SLEEPER);
        for (paths, sentence) in [
            ("/", "/ cannot be watched"),
            ("/proc", "/proc cannot be watched"),
            ("/sys/kernel", "/sys/kernel cannot be watched"),
            ("nowhere", "watch nowhere: no such file or directory"),
        ] {
            let ran = home.pmx(&["start", "app.sh", &format!("--watch={paths}")]).failed();
            assert!(ran.err.contains(sentence), "{ran:?}");
        }
        let elsewhere = r#"{ "script": "app.sh", "watch": true, "watch_options": { "cwd": "src" } }"#;
        home.file("bad.json", elsewhere);
        let refused = home.pmx(&["start", "bad.json"]).failed().err;
        assert!(refused.contains("cwd: what is to be watched is below the app's own cwd"), "{refused}");
        home.file("bad.json", r#"{ "script": "app.sh", "watch": true, "watch_options": { "depth": 3 } }"#);
        assert!(home.pmx(&["start", "bad.json"]).failed().err.contains("depth is not one"));
    }

    #[test]
    fn all_instances_are_restarted_for_one_change_and_given_up_ones_come_back() {
        let home = Home::new();
        home.file("app/app.sh", "#!/bin/sh\n[ -e broken ] && exit 1\nexec sleep 1000\n");
        home.file("app/broken", "");
        let dir = home.dir().join("app");
        let line =
            ["start", "app.sh", "--cwd", dir.to_str().unwrap(), "--watch", "-i", "2", "--max-restarts", "2"];
        home.pmx(&line);
        wait_until("both to be given up", || (0..2).all(|id| home.status(id) == "errored"));
        fs::remove_file(dir.join("broken")).unwrap();
        wait_until("both to be online", || (0..2).all(|id| home.status(id) == "online"));
        fs::write(dir.join("a.js"), "").unwrap();
        wait_until("both to be restarted", || (0..2).all(|id| by_cause(&home, id, "watch") == 2));
    }
}
