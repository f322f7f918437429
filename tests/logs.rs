//! Output of children: every byte in its file, whatever it costs them and nobody else.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use crate::support::probe::{ping, rss};
use crate::support::{Home, finish, is_alive, signal, wait_for, wait_until};

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
    home.pmx(&["start", "flood.sh", "--no-autorestart"]).ok();
    let began = Instant::now();
    let (most, longest) = watch(&home, || home.status(0) == "stopped");
    println!("{} MiB in {:?}: at most {most} kB, longest ping {longest:?}", flood(), began.elapsed());
    assert!(most < 32 << 10, "{most} kB");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    let mut file = File::open(home.path().join("logs/flood-out-0.log")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), bytes + 3);
    let mut chunk = vec![0; 1 << 20];
    let mut left = bytes as usize;
    while left > 0 {
        let want = chunk.len().min(left);
        file.read_exact(&mut chunk[..want]).unwrap();
        assert!(chunk[..want].iter().all(|byte| *byte == b'x'));
        left -= want;
    }
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end");
}

#[test]
fn l05_one_that_floods_does_not_hold_up_twenty_quiet_ones() {
    const QUIET: usize = 20;
    let home = Home::new();
    // About 8 bytes a line.
    let lines = flood() << 17;
    home.file("flood.sh", &format!("#!/bin/sh\nseq 10000000 {}\n", 10_000_000 + lines - 1));
    let perl = "$| = 1; while (1) { printf \"%.3f\\n\", time; select undef, undef, undef, 0.2 }";
    home.file("quiet.sh", &format!("#!/bin/sh\nexec perl -MTime::HiRes=time -e '{perl}'\n"));
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
    let file = BufReader::new(File::open(home.path().join(format!("logs/flood-out-{QUIET}.log"))).unwrap());
    let mut next = 10_000_000_u64;
    for line in file.lines() {
        assert_eq!(line.unwrap().parse::<u64>().unwrap(), next);
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

#[test]
fn p16_a_grandchild_that_keeps_the_pipe_holds_nothing_up() {
    let home = Home::new();
    // It leaves the group, so that nothing but the pipe connects it with the app.
    home.file(
        "app.sh",
        "#!/bin/sh\n[ -e first ] && exec sleep 1000\ntouch first\n\
         setsid sh -c 'echo $$ > late; n=0; while [ ! -e go ] && [ $n -lt 2000 ]; do sleep 0.02; n=$((n+1)); done; echo late' &\n\
         while [ ! -s late ]; do sleep 0.02; done\nexit 1\n",
    );
    home.pmx(&["start", "app.sh"]).ok();
    wait_until("the restart", || {
        home.process(0)["pm2_env"]["restart_time"] == 1 && home.status(0) == "online"
    });
    let late: i32 =
        wait_for("its pid", || fs::read_to_string(home.dir().join("late")).ok()?.trim().parse().ok());
    assert!(is_alive(late));
    assert_eq!(home.log("app-out-0.log"), "");
    home.file("go", "");
    wait_until("its late line", || home.log("app-out-0.log") == "late\n");
    wait_until("its end", || !is_alive(late));
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
