//! Reading logs: old ones included, by time, text and level, of several apps in their order, while they are written,
//! rotated, compressed and removed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::probe::{assert_prompt, rss};
use crate::support::{Home, finish, signal, wait_until};

/// A home with an app that has said nothing yet, in files of its own.
fn quiet(names: &[&str]) -> Home {
    let home = Home::new();
    home.file("quiet.sh", "#!/bin/sh\nexec sleep 1000\n");
    for name in names {
        home.pmx(&["start", "quiet.sh", "-n", name, "-f"]).ok();
    }
    home
}

/// Writes a file of a log that was last written so many seconds ago.
fn put(home: &Home, name: &str, text: &str, ago: u64) -> PathBuf {
    let path = home.path().join("logs").join(name);
    let written = SystemTime::now() - Duration::from_secs(ago);
    let plain = path.with_file_name(name.trim_end_matches(".gz"));
    fs::write(&plain, text).unwrap();
    File::options().write(true).open(&plain).unwrap().set_modified(written).unwrap();
    if plain != path {
        assert!(Command::new("gzip").arg(&plain).status().unwrap().success());
    }
    path
}

/// A date as a log has it.
fn date(ago: u64) -> String {
    let at = SystemTime::now() - Duration::from_secs(ago);
    let ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    pmx::time::Wall(ms).to_string()
}

/// What `logs` prints without following, as it is.
#[track_caller]
fn raw(home: &Home, args: &[&str]) -> Vec<String> {
    let ran = home.pmx(&[&["logs", "--nostream", "--raw", "--out"], args].concat()).ok();
    assert_eq!(ran.err, "");
    ran.out.lines().map(String::from).collect()
}

#[cfg(feature = "gzip")]
#[test]
fn old_logs_are_part_of_the_log() {
    let home = quiet(&["api"]);
    put(&home, "api-out-0__1.log.gz", "one\ntwo x\n", 400);
    put(&home, "api-out-0__2.log.gz", "three x\n", 300);
    put(&home, "api-out-0__3.log", "four x\nfive", 200);
    put(&home, "api-out-0.log", "six x\nseven", 100);
    let all = ["one", "two x", "three x", "four x", "five", "six x", "seven"];
    for count in 0..8 {
        let expected = &all[all.len() - count.min(7)..];
        assert_eq!(raw(&home, &["api", "--lines", &count.to_string()]), expected, "{count}");
    }
    assert_eq!(raw(&home, &["api"]), all, "fifteen are more than the last file has");
    assert_eq!(raw(&home, &["api", "--grep", "x"]), ["two x", "three x", "four x", "six x"]);
    assert_eq!(raw(&home, &["api", "--grep", "x", "--lines", "2"]), ["four x", "six x"]);
    // No line tells its time: files are in or out as wholes.
    assert_eq!(raw(&home, &["api", "--since", "250s"]), ["four x", "five", "six x", "seven"]);
    assert_eq!(raw(&home, &["api", "--since", "350s", "--until", "150s"]), ["three x", "four x", "five"]);
    assert_eq!(raw(&home, &["api", "--grep", "O", "--ignore-case"]), ["one", "two x", "four x"]);
    assert_eq!(raw(&home, &["0", "--grep", "o.x", "--fixed"]), [""; 0]);
    let found = raw(&home, &["/^a/", "--grep", "^(two|four).x$"]);
    assert_eq!(found, if cfg!(feature = "regex") { &["two x", "four x"][..] } else { &[] });
    // One that is damaged, one that is cut short: what can be read is, and it is said.
    let packed = fs::read(home.path().join("logs/api-out-0__2.log.gz")).unwrap();
    let cut = home.path().join("logs/api-out-0__2.log.gz");
    fs::write(&cut, &packed[..packed.len() - 3]).unwrap();
    let written = SystemTime::now() - Duration::from_secs(300);
    File::options().write(true).open(&cut).unwrap().set_modified(written).unwrap();
    for args in [&["--grep", "x"][..], &["--lines", "100"]] {
        let ran = home.pmx(&[&["logs", "api", "--nostream", "--raw"], args].concat()).ok();
        assert!(
            ran.err.starts_with("read /") && ran.err.ends_with("2.log.gz: it ends in the middle\n"),
            "{ran:?}"
        );
        assert!(ran.out.contains("two x\nthree x\nfour x\n"), "{ran:?}");
    }
}

#[test]
fn by_time_and_of_several_apps_in_the_order_of_their_times() {
    let home = quiet(&["api", "web"]);
    let line = |ago: u64, text: &str| format!("{} {text}\n", date(ago));
    put(&home, "api-out-0__1.log", &(line(900, "a") + &line(700, "c")), 700);
    put(&home, "api-out-0.log", &(line(500, "e") + "  goes on\n" + &line(100, "g")), 100);
    put(&home, "api-error-0.log", &(line(600, "d") + &line(50, "h")), 50);
    let pino = |ago: u64, text: &str| {
        let at = SystemTime::now() - Duration::from_secs(ago);
        let ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        format!("{{\"level\":50,\"time\":{ms},\"msg\":\"{text}\"}}\n")
    };
    put(&home, "web-out-1.log", &(pino(800, "b") + &pino(400, "f")), 400);
    let run = |args: &[&str]| {
        let ran = home.pmx(&[&["logs", "--nostream", "api", "web"], args].concat()).ok();
        let lines = ran.out.lines().map(|line| line.trim_end_matches("\"}").to_string());
        lines.filter_map(|line| line.chars().last()).collect::<String>()
    };
    assert_eq!(run(&["--since", "1h"]), "abcdenfgh");
    assert_eq!(run(&["--since", "650s", "--until", "450s"]), "den");
    assert_eq!(run(&["--since", &date(650)]), "denfgh");
    assert_eq!(run(&["--since", "1h", "--lines", "3"]), "fgh");
    assert_eq!(run(&["--level", "error"]), "bdfh", "stderr and pino's 50");
    let ran = home.pmx(&["logs", "--nostream", "api", "web", "--since", "1h", "--grep", "level"]).ok();
    assert!(ran.out.lines().all(|line| line.starts_with("1|web      | {")), "{}", ran.out);
    // For machines.
    let ran = home.pmx(&["logs", "--nostream", "api", "--since", "550s", "--json"]).ok();
    let records: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 4);
    assert_eq!(
        records[0]["timestamp"].as_str().unwrap()[..19],
        records[0]["message"].as_str().unwrap()[..19]
    );
    assert_eq!(records[1]["timestamp"], records[0]["timestamp"], "as old as the line before");
    assert_eq!(
        (&records[3]["type"], &records[3]["process_id"], &records[3]["app_name"]),
        (&"err".into(), &0.into(), &"api".into())
    );
    let ran = home.pmx(&["logs", "--nostream", "api", "--since", "70s", "--format"]).ok();
    assert!(
        ran.out.contains(" app=api id=0 type=error message=") && ran.out.starts_with("timestamp=20"),
        "{ran:?}"
    );
    let ran = home.pmx(&["logs", "--nostream", "api", "--out", "--lines", "2", "--timestamp=[at] YYYY"]).ok();
    assert!(ran.out.contains(&format!("0|api      | at {}: ", &date(100)[..4])), "{ran:?}");
    for (args, reason) in [
        (["--since", "yesterday"], "--since: expected a length of time such as 10m, or a date"),
        (["--until", "10"], "--until: expected a length of time"),
        (["--level", "loud"], "--level: expected trace, debug, info, warn, error or fatal"),
    ] {
        let ran = home.pmx(&[&["logs", "api"], &args[..]].concat()).failed();
        assert!(ran.err.contains(reason), "{ran:?}");
    }
    if cfg!(feature = "regex") {
        let ran = home.pmx(&["logs", "api", "--grep", "("]).failed();
        assert!(ran.err.contains("--grep (: ") && ran.err.lines().count() == 1, "{ran:?}");
        assert_eq!(run(&["--grep", "(", "--fixed"]), "");
    }
}

#[test]
fn dates_that_pmx_wrote_are_understood() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho one\necho two >&2\nexec sleep 1000\n");
    let apps = json!([
        {"name": "dated", "script": "./app.sh", "log_date_format": "D.M.YYYY h:mm:ss.SSS a"},
        {"name": "json", "script": "./app.sh", "log_type": "json"},
    ]);
    home.file("apps.json", &apps.to_string());
    home.pmx(&["start", "apps.json"]).ok();
    wait_until("lines", || {
        ["dated-error-0.log", "dated-out-0.log", "json-out-1.log", "json-error-1.log"]
            .iter()
            .all(|file| !home.log(file).is_empty())
    });
    let tail = |args: &[&str]| home.pmx(&[&["logs", "--nostream", "dated", "json"], args].concat()).ok().out;
    assert_eq!(tail(&["--since", "1h"]).lines().count(), 4);
    assert_eq!(tail(&["--since", "1h", "--until", "30m"]), "");
    // It is the lines that tell, and not the file.
    for file in ["dated-out-0.log", "json-out-1.log"] {
        let old = home.log(file).replacen(&date(0)[..4], "2020", 1);
        assert!(old.contains("2020"), "{old}");
        put(&home, file, &old, 0);
    }
    assert_eq!(tail(&["--since", "1h"]).lines().count(), 2);
    assert_eq!(tail(&["--until", "2021-01-01"]).lines().count(), 2);
    for file in ["dated-out-0.log", "json-out-1.log"] {
        let old = home.log(file);
        put(&home, file, &(old.clone() + &old.replacen("2020", &date(0)[..4], 1)), 0);
    }
    let records: Vec<Value> =
        tail(&["--json", "--since", "1h"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = records.iter().map(|record| record["message"].as_str().unwrap()).collect();
    assert_eq!(messages.iter().filter(|message| **message == "one").count(), 2, "{messages:?}");
    assert!(records.iter().all(|record| record["timestamp"].as_str().unwrap().ends_with('Z')), "{records:?}");
}

/// Whether old files can be compressed.
const PACKS: bool = cfg!(feature = "gzip");

/// What would do something to a terminal.
const ODD: &str =
    "nul \\000 bad \\377 esc \\033[2J c1 \\302\\233 osc \\033]52;c;x\\a del \\177 bidi \\342\\200\\256 end";

#[test]
fn l04_whatever_is_in_a_log_does_nothing_to_a_terminal() {
    let home = Home::new();
    home.file("odd.sh", &format!("#!/bin/sh\nprintf '{ODD}\\n'\nprintf '{ODD}\\n' >&2\nexec sleep 1000\n"));
    home.pmx(&["start", "odd.sh", "-n", "odd"]).ok();
    home.pmx(&["start", "odd.sh", "-n", "json", "--log-type", "json", "-f"]).ok();
    wait_until("lines", || {
        (0..2).all(|id| {
            let name = if id == 0 { "odd" } else { "json" };
            ["out", "error"].iter().all(|stream| !home.log(&format!("{name}-{stream}-{id}.log")).is_empty())
        })
    });
    let out = home.path().join("logs/odd-out-0.log");
    fs::copy(&out, home.path().join("logs/odd-out-0__old.log")).unwrap();
    let is_safe = |text: &str| {
        let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        text.contains("end") && !text.chars().any(|c| (c.is_control() && c != '\n') || turns(c))
    };
    for args in [
        &[][..],
        &["--lines", "100"],
        &["--grep", "end"],
        &["--since", "1h", "--timestamp"],
        &["--level", "error"],
        &["--highlight", "end"],
        &["--json"],
        &["--json", "--grep", "osc"],
        &["--format"],
    ] {
        let ran = home.pmx(&[&["logs", "all", "--nostream"], args].concat()).ok();
        assert!(is_safe(&ran.out) && ran.err.is_empty(), "{args:?} {ran:?}");
        if args.contains(&"--json") {
            let apps = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let text = "nul \0 bad \u{fffd} esc \u{1b}[2J c1 \u{9b} osc \u{1b}]52;c;x\u{7} del \u{7f} bidi \u{202e} end";
            assert!(
                apps.filter(|record| record["app_name"] != "pmx").all(|record| record["message"] == text)
            );
        }
    }
    // And what follows.
    let mut logs = home.command(&["logs", "odd", "--lines", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("[TAILING]"));
    home.pmx(&["restart", "odd"]).ok();
    let line = lines.next().unwrap().unwrap();
    assert!(is_safe(&line), "{line:?}");
    drop(lines);
    finish(logs);
    // As it is, where that is asked for.
    let command =
        home.command(&["logs", "odd", "--nostream", "--raw", "--out", "--grep", "end"]).output().unwrap();
    assert!(command.stdout.starts_with(b"nul \0 bad \xff esc \x1b[2J c1 \xc2\x9b"), "{command:?}");
}

#[test]
fn l02_a_reader_that_stops_reading_costs_nobody_anything() {
    let home = Home::new();
    let script = "#!/usr/bin/perl\n$| = 1; while (1) { print ++$n, \" \", \"x\" x 200, \"\\n\" for 1 .. 50; \
                  select undef, undef, undef, 0.001 }\n";
    home.file("flood.pl", script);
    home.pmx(&["set", "pm2-logrotate:max_size", "1M"]).ok();
    home.pmx(&["set", "pm2-logrotate:retain", "2"]).ok();
    home.pmx(&["start", "flood.pl", "-n", "flood", "-x"]).ok();
    let daemon = home.daemon_pid().unwrap();
    let mut stuck = home.command(&["logs", "flood", "--raw"]).spawn().unwrap();
    let mut reader = stuck.stdout.take().unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    let before = rss(daemon);
    // It reads no more, and the flood goes on.
    let written = || {
        let text = home.log("flood-out-0.log");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.rsplit('\n').next().and_then(|line| line.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let first = written();
    wait_until("20,000 lines more", || written() > first + 20_000);
    assert_prompt(&home);
    assert!(rss(daemon) < before + 4_096, "{} kB, {before} kB before", rss(daemon));
    assert!(rss(stuck.id() as i32) < 64 << 10, "{} kB", rss(stuck.id() as i32));
    // Somebody else reads on meanwhile.
    let mut other = home.command(&["logs", "flood", "--raw", "--lines", "1"]).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    for _ in 0..1_000 {
        lines.next().unwrap().unwrap();
    }
    drop(lines);
    assert_eq!(finish(other).code, 0);
    drop(reader);
    assert_eq!(finish(stuck).code, 0);
}

#[test]
fn a_reader_that_has_enough_ends_it_at_once() {
    let home = quiet(&["api"]);
    let text: String = (0..300_000).map(|n| format!("line {n} of a log that is long\n")).collect();
    put(&home, "api-out-0__1.log", &text, 50);
    put(&home, "api-out-0.log", &text, 10);
    for args in
        ["--grep line --nostream", "--grep line", "--since 1h", "--lines 1000000", "--raw --lines 1000"]
    {
        let began = Instant::now();
        let ran = finish(
            home.shell(&format!("{{ $PMX logs api {args}; echo $? >&2; }} | head -n 2")).spawn().unwrap(),
        );
        assert_eq!((ran.out.lines().count(), ran.err.as_str()), (2, "0\n"), "{args} {ran:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{args} {:?}", began.elapsed());
    }
}

/// Apps that write numbered lines, so many, a few each millisecond, perhaps into one log.
fn counter(home: &Home, lines: u32, rotation: &Value, instances: u32) {
    let script = format!(
        "#!/usr/bin/perl\n$| = 1; $n = 0; until ($n >= {lines}) {{ printf \"%09d\\n\", ++$n; \
         select undef, undef, undef, 0.001 unless $n % 10 }}\n"
    );
    home.file("count.pl", &script);
    let mut app =
        json!({"name": "count", "script": "./count.pl", "autorestart": false, "log_rotate": rotation});
    if instances > 1 {
        let shared = json!({"merge_logs": true, "instances": instances, "exec_mode": "fork"});
        app.as_object_mut().unwrap().extend(shared.as_object().unwrap().clone());
    }
    home.file("apps.json", &json!([app]).to_string());
    home.pmx(&["start", "apps.json"]).ok();
}

/// Ends a follower, whatever becomes of the test.
struct Follower(std::process::Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many times a log was rotated, where old files are called after the year.
fn newest(log: &Path) -> u32 {
    let entries = fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let name =
        |path: PathBuf| path.file_name().unwrap().to_string_lossy().replace(".log", "").replace(".gz", "");
    let names = entries.map(|entry| name(entry.path())).filter(|name| name.contains("__"));
    names.filter_map(|name| name.rsplit_once('-')?.1.parse().ok()).max().unwrap_or(0)
}

#[test]
fn l06_who_follows_sees_every_line_once_through_rotation_and_the_death_of_the_daemon() {
    const LINES: u32 = 20_000;
    for search in [false, true] {
        let home = Home::new();
        // Old files are compressed, and the oldest removed, while it is followed.
        counter(
            &home,
            LINES,
            &json!({"max_size": 5_000, "retain": 40, "compress": PACKS, "dateFormat": "YYYY"}),
            1,
        );
        let log = home.path().join("logs/count-out-0.log");
        wait_until("its log", || log.exists());
        let args: &[&str] = if search { &["--grep", "0"] } else { &["--lines", "1000000"] };
        let command = [&["logs", "count", "--raw", "--out"][..], args].concat();
        let mut logs = Follower(home.command(&command).spawn().unwrap());
        let mut lines = BufReader::new(logs.0.stdout.take().unwrap()).lines();
        let first: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        let (mut next, mut deaths) = (first + 1, 0);
        while next <= LINES {
            let line = lines.next().unwrap().unwrap();
            assert_eq!(line.parse::<u32>().unwrap(), next, "{search} after {deaths} deaths");
            next += 1;
            if next % 3_000 == 0 {
                // It sees nothing of what happens meanwhile, and finds it compressed.
                let before = newest(&log);
                signal(logs.0.id() as i32, libc::SIGSTOP);
                wait_until("rotations", || newest(&log) > before + 2 || home.status(0) == "stopped");
                signal(logs.0.id() as i32, libc::SIGCONT);
            }
            if next % 4_000 == 0 {
                let daemon = home.daemon_pid().unwrap();
                signal(daemon, libc::SIGKILL);
                deaths += 1;
            }
        }
        assert!(deaths >= 4 && first < LINES / 2, "{first}");
        let files = fs::read_dir(home.path().join("logs")).unwrap().flatten().map(|entry| entry.path());
        let packed = files.filter(|path| path.extension().is_some_and(|end| end == "gz")).count();
        assert!(!PACKS || packed > 2, "{packed}");
    }
}

#[test]
fn l06_who_follows_a_log_that_several_share_sees_every_line_once() {
    const LINES: u32 = 3_000;
    let home = Home::new();
    counter(&home, LINES, &json!({"max_size": 3_000, "retain": "all"}), 4);
    let command = ["logs", "count", "--raw", "--out", "--lines", "1000000"];
    wait_until("the log", || home.path().join("logs/count-out.log").exists());
    let mut logs = Follower(home.command(&command).spawn().unwrap());
    let lines = BufReader::new(logs.0.stdout.take().unwrap()).lines();
    let mut numbers: Vec<u32> = Vec::new();
    for line in lines.take(4 * LINES as usize) {
        numbers.push(line.unwrap().parse().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=LINES).flat_map(|n| [n; 4]).collect::<Vec<_>>());
}

#[test]
fn l06_who_reads_while_old_logs_are_compressed_sees_every_line_once() {
    const LINES: u32 = 10_000;
    let home = Home::new();
    counter(&home, LINES, &json!({"max_size": 2_000, "retain": "all", "compress": PACKS}), 1);
    let mut runs = 0;
    loop {
        let is_over = home.status(0) == "stopped";
        for args in [&["--grep", "0"][..], &["--lines", "1000000"], &["--since", "1h"]] {
            let found = raw(&home, &[&["count"], args].concat());
            // What is written right now may have no end yet.
            let whole = if is_over { &found[..] } else { &found[..found.len().saturating_sub(1)] };
            let numbers: Vec<u32> = whole.iter().map(|line| line.parse().unwrap()).collect();
            let expected: Vec<u32> = (1..=numbers.len() as u32).collect();
            assert!(
                numbers == expected,
                "{args:?} {:?}",
                numbers.windows(2).find(|pair| pair[1] != pair[0] + 1)
            );
            assert!(!is_over || numbers.len() as u32 == LINES, "{args:?}: {}", numbers.len());
        }
        runs += 1;
        if is_over {
            break;
        }
    }
    assert!(runs > 1);
}

#[test]
fn who_follows_sees_only_what_is_asked_for() {
    let home = quiet(&["api"]);
    let log = home.path().join("logs/api-out-0.log");
    let append = |path: &Path, text: &str| {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append(&log, "old x\nold y\n");
    let command = ["logs", "api", "--grep", "X", "--ignore-case", "--level", "warn", "--format"];
    let mut logs = Follower(home.command(&command).stderr(Stdio::inherit()).spawn().unwrap());
    let mut lines = BufReader::new(logs.0.stdout.take().unwrap()).lines();
    wait_until("it to follow", || {
        append(&log, "x without a level\nERROR y\n");
        append(&home.path().join("logs/api-error-0.log"), "x of stderr\n");
        fs::read_dir(format!("/proc/{}/fd", logs.0.id())).unwrap().flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().contains("inotify"))
        })
    });
    append(&log, "ERROR x here\n");
    let line = lines.by_ref().map(|line| line.unwrap()).find(|line| !line.contains("x of stderr")).unwrap();
    assert!(line.ends_with("app=api id=0 type=out message=ERROR x here"), "{line}");
    let shown = &line["timestamp=".len()..][..16];
    assert!(shown.starts_with("20"), "{line}");
}
