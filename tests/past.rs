//! What processes used, kept for later: in files that outlive the daemon, and whose memory grows without end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pmx::protocol::samples::host::Host;
use pmx::protocol::samples::{Blocks, Pace, Record};
use serde_json::{Value, json};

use crate::support::container::Container;
use crate::support::probe::{Client, is_root, status};
use crate::support::{Home, finish, signal, wait_for, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";
/// As often as a test would have samples taken.
const OFTEN: [(&str, &str); 1] = [("PMX_HISTORY_INTERVAL", "100")];

fn file(home: &Home, pace: Pace, segment: usize) -> PathBuf {
    home.path().join("history").join(pace.file(segment))
}

/// The times and records of a segment.
fn blocks(home: &Home, pace: Pace) -> Vec<(u64, Vec<Record>)> {
    let bytes = fs::read(file(home, pace, 0)).unwrap_or_default();
    Blocks::of(&bytes).map(|block| (block.at.0, block.records().collect())).collect()
}

fn minutes(home: &Home) -> Vec<(u64, Vec<Record>)> {
    blocks(home, Pace::Minutes)
}

/// Waits until so many more blocks are there.
#[track_caller]
fn more(home: &Home, count: usize) -> Vec<(u64, Vec<Record>)> {
    let before = minutes(home).len();
    wait_until("more samples", || minutes(home).len() >= before + count);
    minutes(home)
}

fn start(home: &Home, more: &[&str]) {
    home.file("app.sh", SLEEPER);
    let args: Vec<&str> = ["start", "app.sh"].iter().chain(more).copied().collect();
    home.pmx_with(&OFTEN, &args).ok();
}

#[test]
fn the_past_is_kept_over_a_killed_daemon_and_an_update() {
    let home = Home::new();
    start(&home, &["-n", "api"]);
    let before = more(&home, 3);
    assert!(before.iter().all(|(_, records)| records.len() == 1 && records[0].memory_kb > 100), "{before:?}");
    let (_, last) = before.last().unwrap();
    assert!(
        last[0].cpu.is_some() && last[0].fds.is_some_and(|fds| fds >= 3) && last[0].threads == 1,
        "{last:?}"
    );
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(home.path().join("history")), mode(file(&home, Pace::Minutes, 0))), (0o700, 0o600));

    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    let after = more(&home, 2);
    assert_eq!(after[..before.len()], before[..], "nothing of what was is lost");
    home.pmx(&["update"]).ok();
    let updated = more(&home, 2);
    assert_eq!(updated[..after.len()], after[..]);
    assert!(!file(&home, Pace::Minutes, 1).exists(), "it went on in the same file");

    // Torn in the middle of a block: readers skip it, and so does whoever writes next.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 19);
    let path = file(&home, Pace::Minutes, 0);
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 10).unwrap();
    let torn = minutes(&home);
    signal(daemon, 9);
    signal(daemon, 18);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!(more(&home, 2)[..torn.len()], torn[..]);
    home.pmx(&["kill"]).ok();
    assert!(minutes(&home).len() > torn.len(), "it is there without a daemon");
}

#[test]
fn the_past_of_the_machine_is_kept_with_that_of_its_processes() {
    let home = Home::new();
    let host = || -> Vec<Host> {
        let bytes = fs::read(file(&home, Pace::Minutes, 0)).unwrap_or_default();
        Blocks::of(&bytes).map(|block| block.host()).collect()
    };
    assert!(home.pmx(&["history", "--host"]).failed().err.contains("nothing was noted"));
    start(&home, &["-n", "api"]);
    more(&home, 5);
    let before = host();
    let last = before.last().unwrap();
    assert!(
        last.cpu.is_some_and(|cpu| cpu <= 1_000) && last.disk.is_some_and(|disk| disk <= 1_000),
        "{last:?}"
    );
    assert!(last.load.is_some() && last.network.is_some(), "{last:?}");
    assert!(last.memory.is_some_and(|memory| memory > 1 << 20), "{last:?}");
    assert!(before[0].cpu.is_none() && before[0].memory.is_some(), "there was no look before the first");
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    more(&home, 2);
    assert_eq!(host()[..before.len()], before[..], "nothing of what was is lost");
    // Who looks at processes has it noted as well.
    home.pmx(&["list"]).ok();
    let bytes = fs::read(file(&home, Pace::Seconds, 0)).unwrap();
    assert!(Blocks::of(&bytes).all(|block| block.host().memory.is_some()));

    home.pmx(&["kill"]).ok();
    let count = host().len();
    let page = home.pmx(&["history", "--host"]).ok().out;
    for name in ["cpu", "memory", "load", "disk", "network in", "network out"] {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}, last hour ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {page}"));
        assert!(line.contains(" to "), "{line}");
    }
    let told: Value = serde_json::from_str(&home.pmx(&["history", "--host", "--json"]).ok().out).unwrap();
    let hour = told["hour"].as_array().unwrap();
    assert!(hour.iter().any(|part| part["cpu"].is_f64() && part["memory"].is_u64()), "{told}");
    assert!(home.pmx(&["history", "api", "--host"]).failed().err.contains("takes no name"));
    assert!(home.daemon_pid().is_none() && host().len() == count, "nothing was started for it");
}

#[test]
fn the_past_is_readable_while_it_is_written() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx_with(&OFTEN, &["start", "app.sh", "-x", "-i", "4"]).ok();
    let mut seen: Vec<(u64, Vec<Record>)> = Vec::new();
    wait_until("many samples", || {
        let now = minutes(&home);
        assert!(now.len() >= seen.len() && now[..seen.len()] == seen[..], "what was read once is read again");
        // Whoever has just been started has no more than its record.
        assert!(now.iter().all(|(_, records)| records.len() <= 4));
        seen = now;
        seen.len() >= 30
    });
}

#[test]
fn the_past_is_bounded() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    // At this pace a day is seven seconds long.
    home.pmx_with(&[("PMX_HISTORY_INTERVAL", "5")], &["start", "app.sh"]).ok();
    let times = |segment: usize| -> Vec<u64> {
        let bytes = fs::read(file(&home, Pace::Minutes, segment)).unwrap_or_default();
        Blocks::of(&bytes).map(|block| block.at.0).collect()
    };
    wait_until("the first segment", || !times(0).is_empty());
    let first = times(0)[0];
    wait_until("the first one to make room", || {
        let (one, other) = (times(0), times(1));
        assert!(one.len() <= 1_500 && other.len() <= 1_500, "a day in each");
        assert!(fs::read_dir(home.path().join("history")).unwrap().count() <= 2);
        one.first().is_some_and(|begun| *begun > first) && !other.is_empty()
    });
}

#[test]
fn seconds_are_noted_only_when_somebody_looks_or_a_limit_is_watched() {
    let home = Home::new();
    start(&home, &["-n", "api"]);
    more(&home, 3);
    assert!(blocks(&home, Pace::Seconds).is_empty(), "nobody looked");
    home.pmx(&["list"]).ok();
    let seen = blocks(&home, Pace::Seconds);
    assert!(seen.len() == 1 && seen[0].1[0].memory_kb > 100 && seen[0].1[0].cpu.is_some(), "{seen:?}");
    home.pmx(&["list"]).ok();
    wait_until("another look, a second later", || {
        home.pmx(&["list"]).ok();
        blocks(&home, Pace::Seconds).len() >= 2
    });
    let seen = blocks(&home, Pace::Seconds);
    assert!(seen.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 900), "{seen:?}");
    let home = Home::new();
    start(&home, &["-n", "api", "--max-memory-restart", "1G"]);
    wait_until("what was looked at because of the limit", || !blocks(&home, Pace::Seconds).is_empty());
    assert!(blocks(&home, Pace::Seconds)[0].1[0].memory_kb > 100);
}

/// Waits until a process has not been woken for a second.
fn sleeps(pid: i32) {
    let mut last = (0, std::time::Instant::now());
    wait_until("it to sleep", || {
        let wakes = status(pid, "voluntary_ctxt_switches");
        if wakes != last.0 {
            last = (wakes, std::time::Instant::now());
        }
        last.1.elapsed() > std::time::Duration::from_secs(1)
    });
}

#[test]
fn switched_off_there_is_no_past_and_nothing_wakes_for_it() {
    let home = Home::new();
    assert!(home.pmx(&["set", "history", "sometimes"]).failed().err.contains("expected on or off"));
    home.pmx(&["set", "history", "off"]).ok();
    start(&home, &["-n", "api"]);
    sleeps(home.daemon_pid().unwrap());
    home.pmx(&["list"]).ok();
    sleeps(home.daemon_pid().unwrap());
    assert!(!home.path().join("history").exists());
    home.pmx(&["set", "history", "on"]).ok();
    home.pmx(&["list"]).ok();
    more(&home, 2);
    home.pmx(&["stop", "api"]).ok();
    sleeps(home.daemon_pid().unwrap());
    let last = minutes(&home).len();
    sleeps(home.daemon_pid().unwrap());
    assert_eq!(minutes(&home).len(), last, "nothing runs, and nothing is noted");
}

#[test]
fn a_place_for_the_past_that_cannot_be_had_is_told_once() {
    let home = Home::new();
    home.pmx(&["list"]).ok();
    home.pmx(&["kill"]).ok();
    fs::write(home.path().join("history"), "in the way").unwrap();
    start(&home, &["-n", "api"]);
    let told = || fs::read_to_string(home.path().join("pmx.log")).unwrap_or_default();
    let count = || told().lines().filter(|line| line.contains("it has a gap")).count();
    wait_until("a word about it", || count() > 0);
    for _ in 0..3 {
        home.pmx(&["restart", "api"]).ok();
    }
    assert_eq!(home.status(0), "online");
    fs::remove_file(home.path().join("history")).unwrap();
    more(&home, 3);
    assert!(count() == 1 && told().contains("it works again"), "{}", told());
}

#[test]
fn a_full_disk_is_told_once_and_tears_nothing() {
    if !is_root() {
        eprintln!("not root: nobody has filled a disk");
        return;
    }
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let line = "mkdir -m 700 $PMX_HOME $PMX_HOME/history; mount -t tmpfs -o size=16k none $PMX_HOME/history; \
                exec $PMX start app.sh -n api";
    let mut shell = home.shell("exec unshare -m sh -c \"$LINE\"");
    finish(shell.env("LINE", line).env("PMX_HISTORY_INTERVAL", "5").spawn().unwrap()).ok();
    let daemon = home.daemon_pid().unwrap();
    let folder = format!("/proc/{daemon}/root{}/history", home.path().display());
    let told = || fs::read_to_string(home.path().join("pmx.log")).unwrap_or_default();
    let count = || told().lines().filter(|line| line.contains("it has a gap")).count();
    wait_until("a full disk", || count() > 0);
    let bytes = fs::read(format!("{folder}/minutes.0")).unwrap();
    let records: usize = Blocks::of(&bytes).map(|block| block.records().count()).sum();
    assert!(records > 100 && bytes.len() == records * 104, "{records} whole blocks in {} bytes", bytes.len());
    home.pmx(&["restart", "api"]).ok();
    assert_eq!((home.status(0).as_str(), home.daemon_pid(), count()), ("online", Some(daemon), 1));
    fs::remove_file(format!("{folder}/minutes.0")).unwrap();
    wait_until("room", || told().contains("it works again"));
    assert!(told().to_lowercase().contains("no space left"), "{}", told());
}

#[test]
fn pmx_runtime_keeps_no_past() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let mut command = Container::command(&home, "exec \"$@\"", &["app.sh"]);
    command.envs(OFTEN);
    let container = Container::of(command);
    container.serves(&home);
    wait_until("the app", || home.status(0) == "online");
    for _ in 0..3 {
        home.pmx(&["list"]).ok();
    }
    assert!(!home.path().join("history").exists(), "there are no files unless they are asked for");
    container.signal(libc::SIGTERM);
    container.end();
}

#[test]
fn why_and_describe_draw_what_was_used() {
    let home = Home::new();
    start(&home, &["-n", "api"]);
    more(&home, 3);
    let page = home.pmx(&["why", "api"]).ok().out;
    for name in ["memory, last hour", "cpu, last hour"] {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{page}"));
        assert!(line.contains('█') || line.contains('▁'), "{line}");
        assert!(line.contains(" to "), "{line}");
    }
    assert!(!page.contains("last day"), "there is nothing older: {page}");
    let told: Value = serde_json::from_str(&home.pmx(&["why", "api", "--json"]).ok().out).unwrap();
    assert!(told[0]["past"]["hour"][0]["memory"].as_u64().unwrap() > 100_000, "{told}");
    let page = home.pmx(&["describe", "api", "--pss"]).ok().out;
    for row in ["memory, last hour", "cpu, last hour", "memory, shared in part", " open files"] {
        assert!(page.contains(row), "{row}: {page}");
    }
    let told: Value =
        serde_json::from_str(&home.pmx(&["describe", "api", "--pss", "--json"]).ok().out).unwrap();
    let (share, all) = (told[0]["pss"].as_u64().unwrap(), told[0]["memory"].as_u64().unwrap());
    assert!(0 < share && share < all, "a shell and sleep share their libraries: {share} of {all}");
    assert!(told[0]["fds"].as_u64().unwrap() >= 3, "{told}");
    // `history` tells what happened, as ever.
    assert!(home.pmx(&["history", "api"]).ok().out.contains("api(0) online"));
}

/// Grows by eight megabytes a second once it is told to, and rests when it is told that.
const LEAK: &str = "
let since = 0, before = 0; const kept = [];
process.on('message', ({ grow }) => { if (grow) since = Date.now(); else { before = kept.length; since = 0; } });
setInterval(() => {
  const wanted = since ? before + (Date.now() - since) : before;
  while (kept.length < wanted) kept.push(Buffer.alloc(8192, 1));
}, 5);
";

#[test]
fn a_leak_is_told_once_with_its_rate_and_when_it_ends() {
    let home = Home::new();
    home.file("leak.js", LEAK);
    home.pmx(&["set", "on:leak", "cat >> leaks"]).ok();
    home.pmx_with(
        &[("PMX_HISTORY_INTERVAL", "50")],
        &["start", "leak.js", "-x", "-n", "leak", "--max-memory-restart", "60G"],
    )
    .ok();
    let leak = || home.process(0)["pm2_env"]["leak"].clone();
    more(&home, 30);
    assert_eq!(leak(), Value::Null, "a warm-up is none");
    let grow = |yes: bool| {
        let mut client = Client::connect(&home);
        client.ask(1, json!({"verb": "tell", "targets": ["leak"], "message": {"grow": yes}}));
        assert!(client.answer(1)["done"].is_object());
    };
    let mut bus = Client::connect(&home);
    bus.ask(1, json!({"verb": "listen", "patterns": ["pmx.process.leak"]}));
    bus.answer(1);
    grow(true);
    let found = wait_for("the leak", || Some(leak()).filter(|leak| !leak.is_null()));
    let heard = bus.message().unwrap()["bus"].clone();
    assert_eq!(
        (&heard["topic"], &heard["data"]["name"]),
        (&json!("pmx.process.leak"), &json!("leak")),
        "{heard}"
    );
    // 8 MB a second are 27 GiB an hour.
    let rate = found["rate"].as_u64().unwrap() as f64 / 1e9 / 3.6 / 8.192;
    assert!((0.6..1.6).contains(&rate), "{rate} of what it is: {found}");
    assert_eq!(found["limit"].as_u64(), Some(60 << 30));
    let left = found["reached_in"].as_u64().unwrap();
    assert!((3_600_000..4 * 3_600_000).contains(&left), "{found}");
    let told = || {
        let events: Value = serde_json::from_str(&home.pmx(&["history", "leak", "--json"]).ok().out).unwrap();
        events.as_array().unwrap().iter().filter(|event| event["kind"] == "leak").cloned().collect::<Vec<_>>()
    };
    assert!(told()[0]["detail"].as_str().unwrap().contains(" per hour, and reaches its limit of 60 GiB in "));
    for (args, part) in [
        (&["list"][..], "leak(0): memory grows by "),
        (&["describe", "leak"], "memory grows by "),
        (&["why", "leak"], "memory grows by "),
        (&["prettylist"], "leak: {"),
    ] {
        let out = home.pmx(args).ok().out;
        assert!(out.contains(part), "{args:?}: {out}");
    }
    let list: Value = serde_json::from_str(&home.pmx(&["jlist"]).ok().out).unwrap();
    assert!(list[0]["pm2_env"]["leak"]["rate"].is_u64(), "{list}");
    let alerts = || std::fs::read_to_string(home.dir().join("leaks")).unwrap_or_default();
    let alert: Value = wait_for("an alert", || serde_json::from_str(&alerts()).ok());
    assert!(alert["event"] == "leak" && alert["reason"].as_str().unwrap().contains(" per hour"), "{alert}");
    assert!(alert["numbers"]["rate"].is_u64() && alert["numbers"]["limit"] == 60u64 << 30, "{alert}");
    // The next daemon knows it from the files, and does not tell it again.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    more(&home, 2);
    assert!(leak()["rate"].is_u64(), "it is known at once");
    more(&home, 10);
    assert_eq!(told().len(), 1, "{:?}", told());
    grow(false);
    wait_until("its end", || leak().is_null());
    assert_eq!(alerts().lines().count(), 1);
    assert_eq!(told().len(), 1);
}
