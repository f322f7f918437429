//! Rotation: old logs under other names, as many as are wanted, and every line once, whatever happens meanwhile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Home, finish, signal, wait_until};

/// An app that writes numbered lines: so many and no more, or without end.
fn counter(home: &Home, lines: Option<u32>) {
    let end = lines.map_or("0".to_string(), |lines| format!("$n >= {lines}"));
    home.file(
        "count.pl",
        &format!(
            "#!/usr/bin/perl\n$| = 1; $n = 0; until ({end}) {{ printf \"%09d\\n\", ++$n; \
             select undef, undef, undef, 0.001 unless $n % 10 }}\n"
        ),
    );
}

/// Starts it, with these options of rotation.
fn start(home: &Home, env: &[(&str, &str)], rotation: &Value, more: Value) {
    let mut app =
        json!({"name": "count", "script": "./count.pl", "autorestart": false, "log_rotate": rotation});
    app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    home.file("apps.json", &json!([app]).to_string());
    home.pmx_with(env, &["start", "apps.json"]).ok();
}

/// The old files of a log, oldest first.
fn old(log: &Path) -> Vec<PathBuf> {
    let stem = log.file_stem().unwrap().to_string_lossy().into_owned();
    let is_old = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&format!("{stem}__")) && !name.ends_with(".part")
    };
    let entries = fs::read_dir(log.parent().unwrap()).unwrap();
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_old).collect();
    // Many have the same date; what they hold tells which is older.
    found.sort_by_key(|path| text(path).lines().next().map(String::from));
    found
}

fn text(path: &Path) -> String {
    if path.extension().is_some_and(|extension| extension == "gz") {
        let ran = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
        // One that is too old may be gone by now.
        assert!(
            ran.status.success() || !path.exists(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&ran.stderr)
        );
        return String::from_utf8(ran.stdout).unwrap();
    }
    fs::read_to_string(path).unwrap_or_default()
}

/// All that a log ever held, if it is all there.
fn all(log: &Path) -> String {
    old(log).iter().map(|path| text(path)).collect::<String>() + &text(log)
}

/// Every line is there, once and in order.
#[track_caller]
fn assert_whole(log: &Path, lines: u32) {
    let found = all(log);
    let mut next = 1;
    for line in found.lines() {
        let number: u32 = line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(number, next, "of {:?}", old(log));
        next += 1;
    }
    assert_eq!(next, lines + 1);
}

#[test]
fn l06_a_log_that_is_full_gets_another_name_and_no_line_is_lost() {
    for more in [json!({}), json!({"log_date_format": "HH:mm"}), json!({"log_file": true})] {
        let home = Home::new();
        counter(&home, Some(3_000));
        start(&home, &[], &json!({"max_size": 2_000, "retain": "all"}), more.clone());
        wait_until("its end", || home.status(0) == "stopped");
        let log = home.path().join("logs/count-out-0.log");
        assert_whole(&log, 3_000);
        let old = old(&log);
        assert!(old.len() > 5, "{old:?}");
        for path in &old {
            let (size, text) = (fs::metadata(path).unwrap().len(), text(path));
            assert!(size >= 2_000 && text.ends_with('\n'), "{}: {size}", path.display());
        }
        if more.get("log_file").is_some() {
            assert_whole(&home.path().join("logs/count-0.log"), 3_000);
        }
    }
}

#[cfg(feature = "gzip")]
#[test]
fn l06_as_many_old_logs_stay_as_are_wanted_and_they_are_compressed() {
    let home = Home::new();
    counter(&home, Some(3_000));
    // As pm2's users do it, before anything runs.
    for (option, value) in
        [("max_size", "2000"), ("retain", "3"), ("compress", "true"), ("dateFormat", "[d]-SSS")]
    {
        home.pmx(&["set", &format!("pm2-logrotate:{option}"), value]).ok();
    }
    let ran = home.pmx(&["set", "pm2-logrotate:max_size", "much"]).failed();
    assert!(ran.err.contains("pm2-logrotate:max_size: expected bytes"), "{ran:?}");
    start(&home, &[], &json!({}), json!({}));
    wait_until("its end", || home.status(0) == "stopped");
    let log = home.path().join("logs/count-out-0.log");
    let is_packed = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    // The last helper may have come while there was one at work, and leaves what came after it to the next rotation.
    wait_until("old logs to be looked after", || {
        let old = old(&log);
        old.len() <= 5 && old.iter().filter(|path| is_packed(path)).count() >= 3
    });
    let found = all(&log);
    let numbers: Vec<u32> = found.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&3_000));
    assert!(old(&log).iter().all(|path| path.to_string_lossy().contains("__d-")), "{:?}", old(&log));
}

#[test]
fn l06_rotation_by_the_calendar_by_age_and_not_at_all() {
    let home = Home::new();
    counter(&home, None);
    start(&home, &[], &json!({"rotateInterval": "* * * * * *", "retain": "all"}), json!({"name": "second"}));
    start(&home, &[], &json!({"rotateInterval": "1s", "retain": "all"}), json!({"name": "age"}));
    start(&home, &[], &json!(true), json!({"name": "never", "log_rotate": false}));
    let old = |name: &str, id: u32| old(&home.path().join(format!("logs/{name}-out-{id}.log"))).len();
    wait_until("old logs", || old("second", 0) >= 3 && old("age", 1) >= 3);
    assert_eq!(old("never", 2), 0);
    // What is quiet has its turn too, once.
    home.file("once.sh", "#!/bin/sh\necho once\nexec sleep 1000\n");
    let quiet = json!({"name": "quiet", "script": "./once.sh"});
    start(&home, &[], &json!({"rotateInterval": "* * * * * *"}), quiet);
    wait_until("an old log", || old("quiet", 3) == 1 && home.log("quiet-out-3.log").is_empty());
    wait_until("others to go on", || old("second", 0) >= 5);
    assert_eq!(old("quiet", 3), 1, "an empty log is not rotated");
}

#[test]
fn l06_rules_that_change_hold_for_what_runs() {
    let home = Home::new();
    counter(&home, None);
    home.pmx(&["set", "pm2-logrotate:max_size", "1G"]).ok();
    home.pmx(&["start", "count.pl", "-n", "count", "-x"]).ok();
    let log = home.path().join("logs/count-out-0.log");
    wait_until("some lines", || fs::metadata(&log).is_ok_and(|found| found.len() > 20_000));
    assert!(old(&log).is_empty());
    home.pmx(&["set", "pm2-logrotate:max_size", "10K"]).ok();
    wait_until("an old log", || !old(&log).is_empty());
}

#[test]
fn l06_instances_that_share_a_log_go_on_in_the_new_one_together() {
    let home = Home::new();
    counter(&home, Some(1_500));
    let shared = json!({"merge_logs": true, "instances": 4, "exec_mode": "fork"});
    start(&home, &[], &json!({"max_size": 3_000, "retain": "all"}), shared);
    wait_until("their ends", || home.list().iter().all(|p| p["pm2_env"]["status"] == "stopped"));
    let log = home.path().join("logs/count-out.log");
    let mut numbers: Vec<u32> = all(&log).lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    let expected: Vec<u32> = (1..=1_500).flat_map(|n| [n; 4]).collect();
    assert_eq!(numbers, expected);
    assert!(old(&log).len() > 5);
}

/// The daemon dies at each step of a rotation, again and again; the next one goes on.
#[test]
fn l06_a_rotation_that_is_interrupted_at_any_step_loses_and_repeats_no_line() {
    let steps = ["rotate", "rotate-renamed", "rotate-opened", "output-put", "output-read", "output-written"];
    let more = ["output-flush", "output-flushed", "before-tidy"];
    for step in steps.iter().chain(&more) {
        for at in [1, 2, 7] {
            for kind in [json!({}), json!({"log_date_format": "HH:mm"})] {
                let home = Home::new();
                counter(&home, Some(1_200));
                let point = format!("{step}:{at}");
                let rotation = json!({"max_size": 1_000, "retain": "all"});
                start(&home, &[("PMX_FAILPOINT", &point)], &rotation, kind.clone());
                wait_until("its end", || home.status(0) == "stopped");
                assert_whole(&home.path().join("logs/count-out-0.log"), 1_200);
            }
        }
    }
}

#[test]
fn l06_a_daemon_that_is_killed_or_replaced_loses_and_repeats_no_line() {
    let home = Home::new();
    counter(&home, Some(20_000));
    start(&home, &[], &json!({"max_size": 1_000, "retain": "all"}), json!({"log_date_format": "HH:mm"}));
    let log = home.path().join("logs/count-out-0.log");
    for round in 0..6 {
        let daemon = home.daemon_pid().unwrap();
        if round % 2 == 0 {
            signal(daemon, libc::SIGKILL);
            wait_until("the next one", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        } else {
            home.pmx(&["update"]).ok();
        }
    }
    wait_until("its end", || home.status(0) == "stopped");
    assert_whole(&log, 20_000);
}

#[cfg(feature = "watch")]
#[test]
fn a_watched_directory_may_hold_the_logs() {
    let home = Home::new();
    counter(&home, None);
    let more = json!({"watch": true, "out_file": "count.log", "autorestart": true});
    start(&home, &[], &json!({"max_size": 2_000, "retain": 2, "compress": true}), more);
    let log = home.dir().join("count.log");
    wait_until("old logs", || old(&log).len() >= 2);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(home.process(0)["pm2_env"]["restart_time"], 0);
}

/// Runs a test of this binary again where it is root and nothing that is mounted is seen by others.
fn in_a_world_of_its_own(test: &str) -> bool {
    const MARK: &str = "PMX_TEST_UNSHARED";
    if std::env::var(MARK).as_deref() == Ok(test) {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["-Ur"]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(MARK, test).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = finish(command.spawn().unwrap());
    assert!(ran.code == 0 && ran.out.contains("1 passed"), "{}\n{}", ran.out, ran.err);
    false
}

/// Mounts a file system in memory of this size for logs.
fn mount(home: &Home, options: &str) -> PathBuf {
    let path = home.dir().join("disk");
    fs::create_dir_all(&path).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).status().unwrap();
    assert!(mounted.success());
    path
}

/// A home whose app logs to a disk of its own, a part of which is taken by others.
fn short(home: &Home, env: &[(&str, &str)], disk: &Path, more: Value) {
    home.pmx_with(env, &["set", "pm2-logrotate:keep_free", "0"]).ok();
    fs::write(disk.join("others"), vec![0; 900 << 10]).unwrap();
    let mut app = json!({"out_file": disk.join("count.log"), "error_file": "/dev/null"});
    app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    start(home, env, &json!(false), app);
}

#[test]
fn who_has_no_room_for_its_log_is_told() {
    if !in_a_world_of_its_own("rotation::who_has_no_room_for_its_log_is_told") {
        return;
    }
    for (keep_free, reason) in
        [("0", "log lines found no room: "), ("512K", "the disk of its log is almost full")]
    {
        let home = Home::new();
        counter(&home, Some(20_000));
        let disk = mount(&home, "size=1M");
        let on = json!({"disk": {"command": "cat >> told", "min_interval": 0}});
        fs::write(disk.join("others"), vec![0; 900 << 10]).unwrap();
        home.pmx(&["set", "pm2-logrotate:keep_free", keep_free]).ok();
        let log = disk.join("count.log");
        start(&home, &[], &json!(false), json!({"out_file": log, "error_file": "/dev/null", "on": on}));
        let told = || fs::read_to_string(home.dir().join("told")).unwrap_or_default();
        wait_until("it to be told", || told().contains(&format!("\"reason\":\"{reason}")));
        let event = told().lines().find(|line| line.contains(reason)).unwrap().to_string();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&event["event"], &event["app"]), (&json!("disk"), &json!("count")));
        let numbers = &event["numbers"];
        if keep_free == "0" {
            assert!(numbers["lines_lost"].as_u64().unwrap() > 0, "{event}");
        } else {
            assert_eq!(numbers["file"], log.to_str().unwrap());
            assert!(numbers["free"].as_u64().unwrap() < 512 << 10, "{event}");
        }
        unmount(home, &disk);
    }
}

#[test]
fn x04_a_full_disk_holds_up_nobody_and_what_is_lost_is_counted_and_told() {
    if !in_a_world_of_its_own(
        "rotation::x04_a_full_disk_holds_up_nobody_and_what_is_lost_is_counted_and_told",
    ) {
        return;
    }
    let home = Home::new();
    // 20,000 lines of 10 bytes find 124 KiB.
    counter(&home, Some(20_000));
    let disk = mount(&home, "size=1M");
    short(&home, &[], &disk, json!({}));
    // It never waits: it comes to its end.
    wait_until("its end", || home.status(0) == "stopped");
    let lost = || home.process(0)["pm2_env"]["log_lines_lost"].as_u64().unwrap();
    let log = disk.join("count.log");
    let found = text(&log);
    assert!(found.ends_with('\n'), "cut at a line");
    let kept = found.lines().count() as u64;
    assert_eq!(kept + lost(), 20_000);
    assert!(home.pmx(&["describe", "count"]).ok().out.contains("log lines lost"));
    fs::remove_file(disk.join("others")).unwrap();
    // The next start of it finds room.
    home.pmx(&["restart", "count"]).ok();
    wait_until("more lines", || text(&log).lines().count() as u64 >= kept + 20_000);
    crate::support::probe::assert_prompt(&home);
    unmount(home, &disk);
}

/// The daemon must have let go of it.
fn unmount(home: Home, disk: &Path) {
    home.pmx(&["kill"]).ok();
    assert!(Command::new("umount").arg("-l").arg(disk).status().unwrap().success());
}

#[test]
fn x04_it_is_told_in_the_log_once_there_is_room() {
    if !in_a_world_of_its_own("rotation::x04_it_is_told_in_the_log_once_there_is_room") {
        return;
    }
    let home = Home::new();
    counter(&home, None);
    let disk = mount(&home, "size=1M");
    short(&home, &[], &disk, json!({"log_date_format": "[d]"}));
    let lost = || home.process(0)["pm2_env"]["log_lines_lost"].as_u64().unwrap();
    wait_until("losses", || lost() > 100);
    fs::remove_file(disk.join("others")).unwrap();
    let log = disk.join("count.log");
    wait_until("the report", || text(&log).contains(" lost: "));
    wait_until("what comes after", || text(&log).lines().last().is_some_and(|line| !line.contains("lost")));
    home.pmx(&["stop", "count"]).ok();
    let (found, total) = (text(&log), lost());
    let mut told = 0;
    let mut next = 1;
    for line in found.lines() {
        if let Some(rest) = line.strip_prefix("d: pmx: ") {
            let (lines, why) = rest.split_once(' ').unwrap();
            assert!(why.ends_with("lost: no space left on device"), "{line}");
            told += lines.parse::<u64>().unwrap();
            next += lines.parse::<u64>().unwrap();
            continue;
        }
        assert_eq!(line, format!("d: {next:09}"));
        next += 1;
    }
    assert!(told > 100 && told == total, "{told} of {total}");
    unmount(home, &disk);
}

/// Between the moment at which there is no room and the one at which that is on record, and when there is some again.
#[test]
fn x04_what_waits_for_room_outlives_a_death_at_any_step() {
    if !in_a_world_of_its_own("rotation::x04_what_waits_for_room_outlives_a_death_at_any_step") {
        return;
    }
    let steps = [
        "output-held",
        "output-recorded",
        "output-pay",
        "output-paid",
        "output-held:2",
        "output-recorded:2",
        "output-released",
    ];
    for (step, more) in
        steps.iter().flat_map(|step| [(step, json!({})), (step, json!({"log_date_format": "[d]"}))])
    {
        let home = Home::new();
        // Hardly ever does a piece end with a line.
        home.file(
            "count.pl",
            "#!/usr/bin/perl\nmy $all = join '', map { sprintf \"%09d\\n\", $_ } 1 .. 16000;\n\
             for (my $at = 0; $at < length $all; $at += 997) {\n\
             syswrite STDOUT, substr $all, $at, 997; select undef, undef, undef, 0.004 }\n",
        );
        let disk = mount(&home, "size=1M");
        let mut app = json!({"log_full": "block"});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        short(&home, &[("PMX_FAILPOINT", step)], &disk, app);
        let log = disk.join("count.log");
        let size = || fs::metadata(&log).map_or(0, |found| found.len());
        let told = || fs::read_to_string(home.path().join("pmx.log")).unwrap();
        wait_until("a full disk", || told().contains("it waits for room"));
        // Room for a part of it.
        let before = size();
        let remount = |size: &str| {
            let mut command = Command::new("mount");
            assert!(
                command.args(["-o", &format!("remount,size={size}")]).arg(&disk).status().unwrap().success()
            );
        };
        remount("1028K");
        wait_until("some of what waits", || size() > before);
        remount("8M");
        // It need not have waited: a pipe holds what is left.
        wait_until("its end", || home.status(0) == "stopped" && all(&log).lines().count() >= 16_000);
        assert_whole(&log, 16_000);
        let told = fs::read_to_string(home.path().join("pmx.log")).unwrap();
        assert!(told.contains(&format!("failpoint {}: aborting", step.split(':').next().unwrap())), "{step}");
        unmount(home, &disk);
    }
}

#[test]
fn x04_who_would_rather_wait_loses_nothing() {
    if !in_a_world_of_its_own("rotation::x04_who_would_rather_wait_loses_nothing") {
        return;
    }
    for more in [json!({"log_full": "block"}), json!({"log_full": "block", "log_date_format": "[d]"})] {
        let home = Home::new();
        counter(&home, Some(60_000));
        let disk = mount(&home, "size=1M");
        short(&home, &[], &disk, more);
        let log = disk.join("count.log");
        wait_until("a full disk", || fs::metadata(&log).is_ok_and(|found| found.len() > 100 << 10));
        // Others go on, and so does pmx, whoever it is by now.
        home.pmx(&["update"]).ok();
        signal(home.daemon_pid().unwrap(), libc::SIGKILL);
        crate::support::probe::assert_prompt(&home);
        assert_eq!(home.status(0), "online");
        assert!(Command::new("mount").args(["-o", "remount,size=8M"]).arg(&disk).status().unwrap().success());
        wait_until("its end", || home.status(0) == "stopped");
        assert_whole(&log, 60_000);
        unmount(home, &disk);
    }
}

#[test]
fn x06_a_log_that_cannot_be_made_for_want_of_inodes_is_made_when_it_can() {
    if !in_a_world_of_its_own(
        "rotation::x06_a_log_that_cannot_be_made_for_want_of_inodes_is_made_when_it_can",
    ) {
        return;
    }
    let home = Home::new();
    counter(&home, None);
    // The root, the file of others, and a directory.
    let disk = mount(&home, "size=4M,nr_inodes=3");
    fs::create_dir(disk.join("taken")).unwrap();
    short(&home, &[], &disk, json!({}));
    let lost = || home.process(0)["pm2_env"]["log_lines_lost"].as_u64().unwrap();
    wait_until("losses", || lost() > 100);
    assert_eq!(home.status(0), "online");
    fs::remove_dir(disk.join("taken")).unwrap();
    let log = disk.join("count.log");
    wait_until("the log", || text(&log).lines().count() > 100);
    assert!(text(&log).starts_with("pmx: "), "{}", &text(&log)[..80]);
    unmount(home, &disk);
}

#[test]
fn an_almost_full_disk_is_left_to_others() {
    if !in_a_world_of_its_own("rotation::an_almost_full_disk_is_left_to_others") {
        return;
    }
    let home = Home::new();
    counter(&home, None);
    let disk = mount(&home, "size=2M");
    home.pmx(&["set", "pm2-logrotate:keep_free", "1M"]).ok();
    let app = json!({"out_file": disk.join("count.log"), "error_file": "/dev/null"});
    start(&home, &[], &json!({"max_size": "128K", "retain": "all"}), app);
    let log = disk.join("count.log");
    // Old logs go, so that half of it stays free.
    wait_until("old logs to be removed", || {
        let old = old(&log);
        !old.is_empty() && !text(&old[0]).starts_with("000000001\n")
    });
    let free = || {
        let found = nix::sys::statvfs::statvfs(&disk).unwrap();
        found.blocks_available() * found.fragment_size()
    };
    assert!(free() > 512 << 10, "{}", free());
    // Where that does not help, because others take it all, nothing more is written.
    let mut others = fs::File::create(disk.join("others")).unwrap();
    let mut taken = 0;
    wait_until("others to have it", || {
        taken += others.write(&[0; 64 << 10]).unwrap_or(0);
        taken >= 1_600 << 10
    });
    let lost = || home.process(0)["pm2_env"]["log_lines_lost"].as_u64().unwrap();
    wait_until("losses", || lost() > 0);
    assert!(free() > 0);
    drop(others);
    fs::remove_file(disk.join("others")).unwrap();
    wait_until("the report", || text(&log).contains("lost: the disk is almost full"));
    unmount(home, &disk);
}

#[test]
fn all_logs_together_keep_within_their_budget() {
    let home = Home::new();
    counter(&home, None);
    home.pmx(&["set", "pm2-logrotate:budget", "60K"]).ok();
    home.pmx(&["set", "pm2-logrotate:max_size", "4K"]).ok();
    home.pmx(&["set", "pm2-logrotate:retain", "all"]).ok();
    home.pmx(&["start", "count.pl", "-n", "a", "-x"]).ok();
    home.pmx(&["start", "count.pl", "-n", "b", "-x", "-f"]).ok();
    let logs = home.path().join("logs");
    let first = |name: &str, id: u32| {
        let old = old(&logs.join(format!("{name}-out-{id}.log")));
        old.first().is_some_and(|path| !text(path).starts_with("000000001\n"))
    };
    wait_until("the oldest of both to be removed", || first("a", 0) && first("b", 1));
    home.pmx(&["stop", "all"]).ok();
    let sizes =
        || -> u64 { fs::read_dir(&logs).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum() };
    assert!(sizes() < 200 << 10, "{}", sizes());
}

#[test]
fn the_daemons_own_log_is_kept_short() {
    let home = Home::new();
    home.pmx(&["list"]).ok();
    let log = home.path().join("pmx.log");
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all("x".repeat(1023).as_bytes()).unwrap();
    let long = "y".repeat(1023) + "\n";
    for _ in 0..8 << 10 {
        file.write_all(long.as_bytes()).unwrap();
    }
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let old = fs::read_to_string(home.path().join("pmx.log.1")).unwrap();
    assert!(old.contains("serves") && old.len() > 8 << 20 && !old.contains("app(0)"));
    let new = fs::read_to_string(&log).unwrap();
    assert!(new.len() < 4096 && new.contains("app(0)"), "{} bytes", new.len());
    // The keeper and the next daemon go on in the same file.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    wait_until("its words", || fs::read_to_string(&log).unwrap().contains("serves"));
    assert_eq!(fs::read_to_string(home.path().join("pmx.log.1")).unwrap(), old);
}

/// All have written before the daemon looks, so that it finds them in one round: whoever comes second finds the log full and
/// rotates it, and the third has it open yet.
#[test]
fn l06_who_shares_a_log_writes_to_the_new_one_as_soon_as_it_is_rotated() {
    let home = Home::new();
    home.file(
        "app.pl",
        "#!/usr/bin/perl\n$| = 1; print \"begun\\n\"; select undef, undef, undef, 0.01 until -e 'go'; \
         syswrite STDOUT, \"from $ENV{pm_id}\\n\" x 500; open F, '>', \"done$ENV{pm_id}\"; close F; sleep 1000\n",
    );
    let app = json!({
        "name": "app", "script": "./app.pl", "instances": 3, "exec_mode": "fork", "merge_logs": true,
        "log_rotate": {"max_size": 1_000, "retain": "all", "dateFormat": "YYYY"},
    });
    home.file("apps.json", &json!([app]).to_string());
    home.pmx(&["start", "apps.json"]).ok();
    // Where a log is has just been looked at, then.
    wait_until("all to have begun", || home.log("app-out.log").lines().count() == 3);
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGSTOP);
    home.file("go", "");
    wait_until("all to have written", || (0..3).all(|id| home.dir().join(format!("done{id}")).exists()));
    signal(daemon, libc::SIGCONT);
    let logs = || {
        let entries = fs::read_dir(home.path().join("logs")).unwrap().flatten();
        let out = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("app-out"));
        out.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect::<Vec<String>>()
    };
    wait_until("all lines", || logs().iter().map(|log| log.lines().count()).sum::<usize>() == 1_503);
    for log in logs() {
        let all_wrote = (0..3).all(|id| log.contains(&format!("from {id}")));
        assert!(!all_wrote, "the last one wrote to what was rotated");
    }
    let told = fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert!(!told.contains("another file by now"), "{told}");
}
