//! Output of children: every byte in its file, whatever it costs them and nobody else.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::probe::{self, keeper_pid, ping, rss};
use crate::support::{Home, finish, signal, wait_until};

/// How much a flood is, in MiB.
fn flood() -> u64 {
    std::env::var("PMX_TEST_FLOOD_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Watches the daemon until `done`: the most memory it had in kB, and the longest ping.
fn watch(home: &Home, mut done: impl FnMut() -> bool) -> (u64, Duration) {
    let daemon = home.daemon_pid().unwrap();
    let (mut most, mut longest) = (0, Duration::ZERO);
    wait_until("the flood to end", || {
        most = most.max(rss(daemon));
        longest = longest.max(ping(home));
        done()
    });
    (most, longest)
}

#[test]
fn l01_a_flood_without_a_newline_costs_no_memory_and_loses_nothing() {
    let home = Home::new();
    let bytes = flood() << 20;
    home.file("flood.sh", &format!("#!/bin/sh\nhead -c {bytes} /dev/zero | tr '\\0' x\nprintf end\n"));
    home.pmx(&["set", "pm2-logrotate:retain", "all"]).ok();
    home.pmx(&["start", "flood.sh", "--no-autorestart"]).ok();
    let began = Instant::now();
    let (most, longest) = watch(&home, || home.status(0) == "stopped");
    println!("{} MiB in {:?}: at most {most} kB, longest ping {longest:?}", flood(), began.elapsed());
    assert!(most < 32 << 10, "{most} kB");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    // It was rotated meanwhile, as all logs are.
    let (mut found, mut last) = (0, 0);
    for path in rotated(&home.path().join("logs/flood-out-0.log")) {
        let bytes = fs::read(path).unwrap();
        let end = if bytes.ends_with(b"end") { 3 } else { 0 };
        assert!(bytes[..bytes.len() - end].iter().all(|byte| *byte == b'x'));
        found += bytes.len() as u64;
        last += end;
    }
    assert_eq!((found, last), (bytes + 3, 3));
}

/// All files that a log ever had, it itself last.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let stem = format!("{}__", log.file_stem().unwrap().to_string_lossy());
    let entries = fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let mut old: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    old.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(&stem));
    old.push(log.to_path_buf());
    old
}

#[test]
fn l05_one_that_floods_does_not_hold_up_fifty_quiet_ones() {
    const QUIET: usize = 50;
    let home = Home::new();
    // About 8 bytes a line.
    let lines = flood() << 17;
    home.file("flood.sh", &format!("#!/bin/sh\nseq 10000000 {}\n", 10_000_000 + lines - 1));
    let perl = "$| = 1; while (1) { printf \"%.3f\\n\", time; select undef, undef, undef, 0.2 }";
    home.file("quiet.sh", &format!("#!/bin/sh\nexec perl -MTime::HiRes=time -e '{perl}'\n"));
    home.pmx(&["set", "pm2-logrotate:retain", "all"]).ok();
    home.pmx(&["start", "quiet.sh", "-x", "-i", &QUIET.to_string()]).ok();
    let file = |id: usize| format!("quiet-out-{id}.log");
    wait_until("all to write", || (0..QUIET).all(|id| !home.log(&file(id)).is_empty()));
    home.pmx(&["start", "flood.sh", "--no-autorestart"]).ok();
    let mut oldest = 0.0_f64;
    let began = Instant::now();
    let (most, longest) = watch(&home, || {
        for id in 0..QUIET {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
            let text = home.log(&file(id));
            let complete = &text[..text.rfind('\n').unwrap()];
            let last: f64 = complete.rsplit('\n').next().unwrap().parse().unwrap();
            oldest = oldest.max(now - last);
        }
        home.status(QUIET as u32) == "stopped"
    });
    println!(
        "{lines} lines in {:?}: at most {most} kB, longest ping {longest:?}, oldest quiet line {oldest:.3} s",
        began.elapsed()
    );
    assert!(most < 32 << 10, "{most} kB");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    assert!(oldest < 1.2, "a quiet line was {oldest} s late");
    // Whole lines in each file, and each once.
    let mut files: Vec<Vec<u64>> = Vec::new();
    for path in rotated(&home.path().join(format!("logs/flood-out-{QUIET}.log"))) {
        let lines = BufReader::new(File::open(path).unwrap()).lines();
        files.push(lines.map(|line| line.unwrap().parse().unwrap()).collect());
    }
    files.sort();
    let mut next = 10_000_000_u64;
    for number in files.into_iter().flatten() {
        assert_eq!(number, next);
        next += 1;
    }
    assert_eq!(next, 10_000_000 + lines);
}

#[test]
fn l07_last_words_are_kept() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nprintf 'no newline'\nprintf 'nor here' >&2\nexit 1\n");
    for round in 0..20 {
        home.pmx(&["start", "app.sh", "--no-autorestart"]).ok();
        wait_until("its end", || home.status(0) == "stopped");
        assert_eq!(home.log("app-out-0.log"), "no newline", "round {round}");
        assert_eq!(home.log("app-error-0.log"), "nor here", "round {round}");
        home.pmx(&["delete", "all"]).ok();
        fs::remove_file(home.path().join("logs/app-out-0.log")).unwrap();
        fs::remove_file(home.path().join("logs/app-error-0.log")).unwrap();
    }
}

/// Its last words come, and its end with them, after the round has looked at its pipe, and before it looks who is gone.
#[test]
fn l07_a_pipe_is_given_up_however_much_its_writer_left_in_it() {
    let home = Home::new();
    home.file("first.sh", "#!/bin/sh\nexec sleep 1000\n");
    let script = "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.02; done\nhead -c 40000 /dev/zero | tr '\\0' x\n";
    home.file("last.sh", script);
    let start = ["start", "first.sh", "last.sh", "--no-autorestart"];
    home.pmx_with(&[("PMX_STOP_AT", "ended")], &start).ok();
    let (first, last, daemon) = (home.pid(0), home.pid(1), home.daemon_pid().unwrap());
    let keeper = keeper_pid(&home).unwrap();
    let is = |pid: i32, state: &str| probe::stat(pid).is_none_or(|stat| stat[0] == state);
    // It would have a stopped daemon go on.
    signal(keeper, libc::SIGSTOP);
    signal(first, libc::SIGKILL);
    wait_until("the daemon to stop", || is(daemon, "T"));
    home.file("go", "");
    wait_until("the end of the other one", || is(last, "Z"));
    wait_until("the daemon to go on", || {
        signal(daemon, libc::SIGCONT);
        probe::stat(last).is_none()
    });
    signal(keeper, libc::SIGCONT);
    wait_until("both to be over", || (0..2).all(|id| home.status(id) == "stopped"));
    assert_eq!(home.log("last-out-1.log").len(), 40_000);
    let is_pipe = |(_, path): &(i32, PathBuf)| path.to_string_lossy().starts_with("pipe:");
    wait_until("their pipes to be closed", || !probe::fds(daemon).iter().any(is_pipe));
}

/// A home with an app that has written ten lines to each stream.
fn ten_lines() -> Home {
    let home = Home::new();
    let script = "#!/bin/sh\nfor n in 1 2 3 4 5 6 7 8 9 10; do echo out $n; echo err $n >&2; done\n\
                  printf '\\033[31mred\\n'\ntrap 'echo more' USR1\nwhile :; do sleep 0.02; done\n";
    home.file("app.sh", script);
    home.pmx(&["start", "app.sh"]).ok();
    wait_until("its lines", || {
        home.log("app-out-0.log").lines().count() == 11 && home.log("app-error-0.log").lines().count() == 10
    });
    home
}

#[test]
fn logs_shows_what_was_asked_for() {
    let home = ten_lines();
    let run = |line: &[&str]| home.pmx(&[&["logs", "app", "--nostream"], line].concat()).ok();
    let ran = run(&["--lines", "2", "--raw", "--out"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out 10\n\u{1b}[31mred\n", ""));
    let ran = run(&["--lines", "3", "--raw", "--err"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "err 8\nerr 9\nerr 10\n"));
    let ran = run(&["--lines", "1"]);
    assert!(ran.out.contains("0|app      | \\"), "what would colour the terminal is shown: {}", ran.out);
    assert!(ran.out.contains("0|app      | err 10\n"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "{:?}", ran.out);
    let ran = run(&["--lines", "0", "--raw"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    let ran = run(&["--lines", "1000", "--raw"]);
    assert_eq!((ran.out.lines().count(), ran.err.lines().count()), (11, 10));
    let ran = home.pmx(&["logs", "--nostream", "--lines", "1"]).ok();
    assert!(ran.out.contains("pmx.log"), "the daemon's own: {}", ran.out);
}

#[test]
fn logs_follows_and_ends_with_its_reader() {
    let home = ten_lines();
    let mut logs = home.command(&["logs", "app", "--raw", "--out", "--lines", "1"]).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "\u{1b}[31mred");
    signal(home.pid(0), libc::SIGUSR1);
    assert_eq!(lines.next().unwrap().unwrap(), "more");
    // Emptied, and written to again.
    home.pmx(&["flush", "app"]).ok();
    assert_eq!(home.log("app-out-0.log"), "");
    signal(home.pid(0), libc::SIGUSR1);
    assert_eq!(lines.next().unwrap().unwrap(), "more");
    assert_eq!(home.log("app-out-0.log"), "more\n", "no hole where the old bytes were");
    // The reader goes: so does the follower, without a word.
    drop(lines);
    let ran = finish(logs);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let mut command = home.command(&["logs", "app", "--nostream", "--lines", "5"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = finish(child);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn log_files_are_made_where_they_are_wanted_or_it_is_said_why_not() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho out\necho err >&2\nexec sleep 1000\n");
    home.file("file", "");
    nix::unistd::mkfifo(&home.dir().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    home.pmx(&["start", "app.sh", "-n", "deep", "-o", "a/b/out.log", "-e", "a/c/err.log"]).ok();
    let read = |file: &str| fs::read_to_string(home.dir().join(file)).unwrap_or_default();
    wait_until("its logs", || read("a/b/out.log") == "out\n" && read("a/c/err.log") == "err\n");
    home.pmx(&["start", "app.sh", "-n", "null", "-o", "NULL", "-e", "/dev/null"]).ok();
    for (path, expected) in [
        ("file/out.log", "not a directory"),
        (".", "is a directory"),
        ("/proc/nowhere/out.log", "no such file or directory"),
        // One that nobody reads must not hold up the daemon.
        ("fifo", "no such device or address"),
    ] {
        let ran = home.pmx(&["start", "app.sh", "-n", "bad", "-o", path]).failed();
        assert_eq!(ran.err.trim_end().lines().count(), 1, "{ran:?}");
        assert!(ran.err.contains("open /") && ran.err.contains(expected), "{path}: {ran:?}");
        crate::support::probe::assert_prompt(&home);
        home.pmx(&["delete", "bad"]).ok();
    }
    assert_eq!([home.status(0), home.status(1)], ["online", "online"]);
}

#[test]
fn what_was_started_goes_on_without_a_log_that_cannot_be_opened() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho one $$\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-o", "logs/app.log", "--min-uptime", "0"]).ok();
    let (logs, moved) = (home.dir().join("logs"), home.dir().join("moved"));
    let said = |pid: i32| fs::read_to_string(logs.join("app.log")).unwrap().contains(&format!("one {pid}"));
    fs::rename(&logs, &moved).unwrap();
    // No directory, and none can be made.
    fs::write(&logs, "").unwrap();
    let pid = home.pid(0);
    signal(pid, libc::SIGKILL);
    wait_until("another child", || home.pid(0) != pid && home.status(0) == "online");
    // Who asks is told.
    let ran = home.pmx(&["restart", "app"]).failed();
    assert!(ran.err.contains("app.log: not a directory"), "{ran:?}");
    fs::remove_file(&logs).unwrap();
    fs::rename(&moved, &logs).unwrap();
    home.pmx(&["restart", "app"]).ok();
    wait_until("its words", || said(home.pid(0)));
    let own = fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert!(own.contains("app.log: not a directory; its bytes are lost until it can be"), "{own}");
}

#[test]
fn instances_write_to_files_of_their_own_unless_they_share_one() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho instance $NODE_APP_INSTANCE\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-n", "own", "-x", "-i", "2"]).ok();
    home.pmx(&["start", "app.sh", "-n", "shared", "-x", "-i", "2", "--merge-logs"]).ok();
    home.pmx(&["start", "app.sh", "-n", "named", "-x", "-i", "2", "-o", "named.log"]).ok();
    wait_until("their own", || {
        home.log("own-out-0.log") == "instance 0\n" && home.log("own-out-1.log") == "instance 1\n"
    });
    wait_until("the shared one", || home.log("shared-out.log").lines().count() == 2);
    let read = |file: &str| fs::read_to_string(home.dir().join(file)).unwrap_or_default();
    wait_until("the named ones", || {
        read("named-4.log") == "instance 0\n" && read("named-5.log") == "instance 1\n"
    });
}

/// Declares apps, and starts them.
fn declare(home: &Home, apps: &Value) {
    home.file("apps.json", &apps.to_string());
    home.pmx(&["start", "apps.json"]).ok();
}

/// An app that writes pieces of lines, each when it was told that the one before has arrived.
fn pieces(home: &Home) {
    let script = "#!/bin/sh\nfor piece in 'one ' 'two\\nthr' 'ee\\n' '\\n' 'last'; do\n\
                  printf \"$piece\"; printf 'x\\n' >&2; sleep 0.05; done\n";
    home.file("pieces.sh", script);
}

#[test]
fn l07_one_record_a_line_whatever_the_pieces() {
    let home = Home::new();
    pieces(&home);
    let app = |name: &str, more: Value| {
        let mut app = json!({"name": name, "script": "./pieces.sh", "autorestart": false});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app
    };
    let apps = json!([
        app("raw", json!({})),
        app("date", json!({"log_date_format": "[at] YYYY"})),
        app("time", json!({"time": true})),
        app("json", json!({"log_type": "json"})),
        app("both", json!({"log_file": true, "log_date_format": "[b]"})),
        app("none", json!({"disable_logs": true})),
        app("merged", json!({"merge_logs": true, "instances": 3, "exec_mode": "fork"})),
    ]);
    declare(&home, &apps);
    wait_until("their ends", || home.list().iter().all(|p| p["pm2_env"]["status"] == "stopped"));
    assert_eq!(home.log("raw-out-0.log"), "one two\nthree\n\nlast");
    let lines = ["one two", "three", "", "last"];
    let dated = |date: &str| lines.map(|line| format!("{date}: {line}\n")).concat();
    let year = &home.log("date-out-1.log")[3..7];
    assert_eq!(home.log("date-out-1.log"), dated(&format!("at {year}")));
    for (line, expected) in home.log("time-out-2.log").lines().zip(lines) {
        let (date, text) = line.split_at(19);
        assert_eq!((&date[4..5], &date[10..11], &date[16..17]), ("-", "T", ":"), "{line}");
        assert_eq!(text, format!(": {expected}"));
    }
    let records: Vec<Value> =
        home.log("json-out-3.log").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), lines.len());
    for (record, line) in records.iter().zip(lines) {
        let expected = json!({"message": line, "type": "out", "process_id": 3, "app_name": "json",
            "timestamp": record["timestamp"]});
        assert_eq!(*record, expected);
    }
    assert!(home.log("json-error-3.log").contains("\"type\":\"err\""));
    // Both streams, each in its order, and whole lines of each.
    let both = home.log("both-4.log");
    let of = |is_out: bool| both.lines().filter(|line| (*line != "b: x") == is_out).collect::<Vec<_>>();
    assert_eq!(of(true), lines.map(|line| format!("b: {line}")));
    assert_eq!(of(false).len(), 5);
    assert_eq!(home.log("both-out-4.log"), dated("b"));
    assert!(!home.path().join("logs/none-out-5.log").exists());
    let merged = home.log("merged-out.log");
    let mut found: Vec<&str> = merged.lines().collect();
    found.sort_unstable();
    assert_eq!(
        found,
        ["", "", "", "last", "last", "last", "one two", "one two", "one two", "three", "three", "three"]
    );
    let jlist = home.process(4);
    assert!(jlist["pm2_env"]["pm_log_path"].as_str().unwrap().ends_with("logs/both-4.log"), "{jlist}");
    // Emptied like the others.
    home.pmx(&["flush", "both"]).ok();
    assert_eq!(home.log("both-4.log"), "");
}

#[test]
fn l07_a_question_is_in_the_log_before_its_answer() {
    let home = Home::new();
    home.file("ask.sh", "#!/bin/sh\nprintf 'name? '\nread name\necho \"$name\"\nexec sleep 1000\n");
    home.pmx(&["start", "ask.sh", "--stdin", "pipe", "--log-date-format", "[q]", "-n", "ask"]).ok();
    wait_until("the question", || home.log("ask-out-0.log") == "q: name? \n");
    home.pmx(&["send", "ask", "joe"]).ok();
    wait_until("the answer", || home.log("ask-out-0.log") == "q: name? \nq: ... joe\n");
}

#[test]
fn l01_a_line_without_an_end_is_cut_into_marked_records() {
    let home = Home::new();
    let bytes = 8 << 20;
    home.file("long.sh", &format!("#!/bin/sh\nhead -c {bytes} /dev/zero | tr '\\0' x\necho end\n"));
    home.pmx(&["start", "long.sh", "--no-autorestart", "--log-type", "json"]).ok();
    let (most, _) = watch(&home, || home.status(0) == "stopped");
    assert!(most < 32 << 10, "{most} kB");
    let mut found = 0;
    for (n, line) in home.log("long-out-0.log").lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        let message = record["message"].as_str().unwrap();
        assert_eq!(record.get("continued").is_some(), n > 0);
        assert!(
            message.len() <= 64 << 10 && message.trim_end_matches("end").bytes().all(|byte| byte == b'x')
        );
        found += message.len();
    }
    assert_eq!(found, bytes + 3);
}

/// A home with an app that writes a line each 10 ms, numbered.
fn counting(args: &[&str]) -> Home {
    let home = Home::new();
    let script =
        "#!/usr/bin/perl\n$| = 1; while (1) { print ++$n, \"\\n\"; select undef, undef, undef, 0.01 }\n";
    home.file("count.pl", script);
    home.pmx(&[&["start", "count.pl", "-n", "count"][..], args].concat()).ok();
    wait_until("a line", || !home.log("count-out-0.log").is_empty());
    home
}

/// The numbers in `text`, one a line, the last of which may be on its way.
fn numbers(text: &str) -> Vec<u64> {
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    text[..whole].lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn l03_a_log_that_was_moved_deleted_or_replaced_goes_on_under_its_name() {
    let home = counting(&[]);
    let path = home.path().join("logs/count-out-0.log");
    let aside = |n: u32| home.path().join(format!("logs/aside-{n}"));
    let mut all = Vec::new();
    let mut moved = |n: u32, told: &dyn Fn()| {
        let began = Instant::now();
        fs::rename(&path, aside(n)).unwrap();
        told();
        wait_until("a new file with lines", || !home.log("count-out-0.log").is_empty());
        all.push(aside(n));
        began.elapsed()
    };
    let alone = moved(1, &|| {});
    assert!(alone < Duration::from_millis(1_500), "noticed after {alone:?}");
    moved(2, &|| {
        home.pmx(&["reloadLogs"]).ok();
    });
    moved(3, &|| signal(home.daemon_pid().unwrap(), libc::SIGUSR2));
    // Nothing was lost, nothing is there twice.
    let read = |path: &std::path::PathBuf| numbers(&fs::read_to_string(path).unwrap());
    let mut found: Vec<u64> = all.iter().flat_map(read).collect();
    found.extend(numbers(&home.log("count-out-0.log")));
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    // Deleted: what is written until it is noticed goes with it. Truncated: it goes on at the beginning.
    fs::remove_file(&path).unwrap();
    wait_until("another file", || !home.log("count-out-0.log").is_empty());
    File::create(&path).unwrap();
    wait_until("lines in it", || home.log("count-out-0.log").lines().count() > 2);
    assert!(!fs::read(&path).unwrap().contains(&0), "no hole where the old bytes were");
    // A directory in its place: what is said goes on into the old file, and into a new one when it is gone.
    fs::rename(&path, aside(4)).unwrap();
    fs::create_dir(&path).unwrap();
    let before = fs::metadata(aside(4)).unwrap().len();
    wait_until("more in the old one", || fs::metadata(aside(4)).unwrap().len() > before + 300);
    fs::remove_dir(&path).unwrap();
    wait_until("a file again", || !home.log("count-out-0.log").is_empty());
    let mut both = read(&aside(4));
    both.extend(numbers(&home.log("count-out-0.log")));
    assert!(both.windows(2).all(|pair| pair[1] == pair[0] + 1), "{both:?}");
    // Root follows nobody's symlink.
    let target = home.file("target", "precious\n");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    home.pmx(&["reloadLogs"]).ok();
    let ran = home.pmx(&["start", "count.pl", "-n", "other", "-o", path.to_str().unwrap()]);
    if nix::unistd::geteuid().is_root() {
        assert!(ran.failed().err.contains("too many levels of symbolic links"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious\n");
    } else {
        ran.ok();
        wait_until("lines in it", || fs::read_to_string(&target).unwrap().lines().count() > 2);
    }
}

#[test]
fn reload_logs_needs_a_daemon() {
    let home = Home::new();
    assert!(home.pmx(&["reloadLogs"]).failed().err.contains("no daemon runs in"));
}

#[test]
fn l04_what_is_no_text_is_in_the_file_as_it_was_and_in_json_as_json() {
    let home = Home::new();
    let bytes = "nul \\000 bad \\377 esc \\033 c1 \\302\\233 osc \\033]52;c;x\\a bidi \\342\\200\\256\\n";
    home.file("odd.sh", &format!("#!/bin/sh\nprintf '{bytes}'\n"));
    home.pmx(&["start", "odd.sh", "--no-autorestart", "-n", "raw"]).ok();
    home.pmx(&["start", "odd.sh", "--no-autorestart", "-n", "json", "--log-type", "json", "-f"]).ok();
    wait_until("both", || !home.log("raw-out-0.log").is_empty() && !home.log("json-out-1.log").is_empty());
    let expected = b"nul \0 bad \xff esc \x1b c1 \xc2\x9b osc \x1b]52;c;x\x07 bidi \xe2\x80\xae\n";
    assert_eq!(fs::read(home.path().join("logs/raw-out-0.log")).unwrap(), expected);
    let record: Value = serde_json::from_str(&home.log("json-out-1.log")).unwrap();
    let message = String::from_utf8_lossy(&expected[..expected.len() - 1]).into_owned();
    assert_eq!(record["message"], message);
}

#[test]
fn the_beginning_of_a_line_outlives_the_daemon() {
    let home = Home::new();
    home.file("ask.sh", "#!/bin/sh\nwhile read line; do printf \"$line\"; done\n");
    home.pmx(&["start", "ask.sh", "--stdin", "pipe", "--log-date-format", "[q]", "-n", "ask"]).ok();
    let send = |text: &str| {
        home.pmx(&["send", "ask", text]).ok();
    };
    // The daemon is killed, or becomes another one, while the beginning of a line is with it.
    for (n, replace) in [true, false, true, false].into_iter().enumerate() {
        send(&format!("half of {n}"));
        let daemon = home.daemon_pid().unwrap();
        if replace {
            signal(daemon, libc::SIGKILL);
            wait_until("the next one", || home.daemon_pid().is_some_and(|pid| pid != daemon));
        } else {
            home.pmx(&["update"]).ok();
        }
        send("and the rest\\\\n");
        let whole = |text: String| text.replace("\nq: ... ", "");
        wait_until("the line", || whole(home.log("ask-out-0.log")).lines().count() == n + 1);
        let text = whole(home.log("ask-out-0.log"));
        assert_eq!(text.lines().last(), Some(format!("q: half of {n}and the rest").as_str()), "{text}");
    }
}
