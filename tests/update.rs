//! `pmx update`: another program goes on where this one ended.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::probe::{self, daemons, keeper_pid};
use crate::support::server::{Background, Server, app};
use crate::support::{Home, Ran, finish, is_alive, node, signal, wait_until};

const PMX: &str = env!("CARGO_BIN_EXE_pmx");

fn updates(usual: u32) -> u32 {
    std::env::var("PMX_TEST_UPDATES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

#[test]
fn u01_updates_under_load_lose_nothing() {
    let home = Home::new();
    let script = home.file(
        "count.pl",
        "$| = 1; my $n = 0;\nwhile (1) { print ++$n, \"\\n\"; select(undef, undef, undef, 0.01); }\n",
    );
    home.pmx(&["start", script.to_str().unwrap(), "-n", "count", "-i", "4"]).ok();
    let mut servers = Vec::new();
    for (name, balance) in [("a", "reuseport"), ("b", "rr")] {
        let server = Server { home: &home, port: crate::support::free_port() };
        server.launch(20, &app("hello.cjs"), &["-n", name, "-i", "2", "--balance", balance]).ok();
        wait_until("an answer", || server.answers());
        servers.push(server);
    }
    let pids = servers[0].listed();
    let (fds, keeper) = (probe::idle_fds(&home), keeper_pid(&home));
    let plan = |server: &Server| pmx::load::Plan { rate: Some(250.0), ..server.plan(false) };
    let loads: Vec<Background> = servers.iter().map(|server| Background::start(plan(server))).collect();
    let mut follow = home.command(&["logs", "count", "--raw", "--lines", "0"]).spawn().unwrap();
    for _ in 0..updates(8) {
        let until = Instant::now() + Duration::from_millis(50);
        wait_until("the moment", || Instant::now() >= until);
        let ran = home.pmx(&["update"]).ok();
        assert!(ran.out.contains("8 processes kept"), "{ran:?}");
    }
    assert_eq!(servers[0].listed(), pids);
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures.total(), 0, "{}", report.failures);
    }
    for id in 0..4 {
        let log = home.log(&format!("count-out-{id}.log"));
        assert!(log.lines().enumerate().all(|(at, line)| line == (at + 1).to_string()), "log {id}");
    }
    wait_until("as many fds as before", || probe::idle_fds(&home) == fds);
    assert_eq!((keeper_pid(&home), daemons(&home).len()), (keeper, 1));
    assert!(follow.try_wait().unwrap().is_none(), "logs goes on");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

/// Whatever is wrong with the new program, the old one goes on and says what it was.
#[test]
fn u02_a_program_that_cannot_go_on_is_refused() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let (pid, daemon) = (home.pid(0), home.daemon_pid());
    let script = |name: &str, text: &str, mode: u32| {
        let path = home.file(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let mut foreign = std::fs::read(PMX).unwrap();
    // The machine of an ELF file: another one.
    foreign[18] ^= 0xff;
    let elf = home.dir().join("foreign");
    std::fs::write(&elf, foreign).unwrap();
    std::fs::set_permissions(&elf, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        (home.dir().join("missing").display().to_string(), "no such file"),
        (script("plain", "#!/bin/sh\n", 0o644), "permission denied"),
        (elf.display().to_string(), ""),
        (
            script("rejects", "#!/bin/sh\necho 'I cannot read this' >&2; exit 3\n", 0o755),
            "I cannot read this",
        ),
        (script("dies", "#!/bin/sh\nkill -SEGV $$\n", 0o755), "SIGSEGV"),
        (script("silent", "#!/bin/sh\nexit 0\n", 0o755), "exit code 0"),
        ("/bin/true".to_string(), "cannot go on"),
        (home.dir().display().to_string(), "permission denied"),
    ];
    for (program, why) in cases {
        let ran = home.pmx(&["update", &program]).failed();
        assert!(
            ran.err.contains(&format!("update to {program}: ")) && ran.err.contains(why),
            "{why}: {ran:?}"
        );
        assert_eq!((home.pid(0), home.daemon_pid()), (pid, daemon));
    }
    let hangs = script("hangs", "#!/bin/sh\nexec sleep 60\n", 0o755);
    let ran = home.pmx(&["update", &hangs]).failed();
    assert!(ran.err.contains("said nothing within 10 s"), "{ran:?}");
    // It says that it can, and cannot: the keeper goes back to what it was.
    let lies = "#!/bin/sh\ncase $2 in --check-state) echo can go on: pmx 9.9.9;; *) exit 1;; esac\n";
    assert_eq!(home.pid(0), pid);
    let lies = script("lies", lies, 0o755);
    assert!(Path::new(&lies).exists());
    // The next signal and the next update work.
    home.pmx(&["update"]).ok();
    assert_eq!(home.pid(0), pid);
    home.pmx(&["sendSignal", "SIGKILL", "app"]).ok();
    wait_until("a restart", || home.pid(0) != pid && home.status(0) == "online");
}

/// A journal as it is written in one format: kept as a file, of which every later version makes sense.
fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/handover").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn check(state: &str) -> Ran {
    let mut file = tempfile();
    file.1.write_all(state.as_bytes()).unwrap();
    let line = format!("exec \"$PMX\" daemon --check-state 3 3<{}", file.0.display());
    let child = Command::new("sh")
        .args(["-c", &line])
        .env("PMX", PMX)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = finish(child);
    std::fs::remove_file(file.0).unwrap();
    ran
}

fn tempfile() -> (PathBuf, std::fs::File) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("pmx-state-{}-{number}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    (path, file)
}

#[test]
fn u03_state_of_every_released_version_and_of_the_next_is_understood() {
    for (name, format) in [("0.1.0.jsonl", 1), ("0.1.0-format-2.jsonl", 2)] {
        is_understood(&golden(name), format);
    }
}

fn is_understood(golden: &str, format: u32) {
    let ran = check(golden).ok();
    assert!(ran.out.starts_with("can go on: pmx "), "{ran:?}");
    // The next version: fields and kinds of lines that we do not know.
    let mut newer = String::new();
    for line in golden.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        add_everywhere(&mut value);
        newer += &format!("{value}\n");
    }
    newer += "{\"weather\":[1,{\"sun\":true}]}\n";
    check(&newer).ok();
    // What the one before us did not write yet has a default.
    let optional =
        ["unsent", "node_version", "orphan", "generation", "start_ticks", "inode", "beside", "reason"];
    let mut older = String::new();
    for line in golden.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        remove_everywhere(&mut value, &optional);
        older += &format!("{value}\n");
    }
    assert_ne!(older, golden);
    check(&older).ok();
    let end = r#""ended":{"code":null,"text":"killed by SIGKILL (out of memory)","last_lines":[]}"#;
    let ended = golden.replacen(r#""ended":null"#, end, 1);
    assert_ne!(ended, golden);
    check(&ended).ok();
    // And what cannot be understood is refused, with the reason.
    for (state, why) in [
        (golden.replacen(&format!("\"format\":{format}"), "\"format\":99", 1), "format 99"),
        (golden.replacen("\"online\"", "\"flying\"", 1).replacen("\"Online\"", "\"Flying\"", 1), "Flying"),
        (String::new(), "no beginning"),
        ("\u{0}\u{1}nonsense\n".to_string(), ""),
    ] {
        let ran = check(&state);
        assert!(ran.code == 1 && ran.err.contains(why), "{why}: {ran:?}");
    }
}

fn add_everywhere(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(add_everywhere);
            // An enum is an object of one key: that is no place for another.
            if map.len() > 1 {
                map.insert("not_known_yet".to_string(), serde_json::json!({ "a": [1, 2] }));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(add_everywhere),
        _ => {}
    }
}

fn remove_everywhere(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !names.contains(&name.as_str()));
            map.values_mut().for_each(|value| remove_everywhere(value, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| remove_everywhere(value, names)),
        _ => {}
    }
}

/// Names, statuses and environments with whatever bytes are the same afterwards, and nothing else is.
#[test]
fn u07_awkward_values_come_through_unchanged() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nprintf '%s|' \"$@\" > arguments\nexec sleep 1000\n");
    let big = "v".repeat(100_000);
    let env = [("ODD", "a\nb={\"process\":[0,null]}\n=\t\u{1}"), ("BIG", big.as_str())];
    let name = "a=b \\ \"q\" {x} \u{fffd}é";
    home.pmx_with(&env, &["start", "app.sh", "-n", name, "--", "x\ny", "{\"head\":{}}"]).ok();
    let seen = |home: &Home| {
        let pid = home.pid(0);
        let line = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        // The shell itself lacks the variables that it adds for what it becomes.
        wait_until("the shell becomes sleep", || line().starts_with(b"sleep\0"));
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        (
            home.list()[0]["name"].clone(),
            environ,
            std::fs::read_to_string(home.dir().join("arguments")).unwrap(),
        )
    };
    let before = seen(&home);
    assert_eq!(before.0, name);
    for _ in 0..2 {
        home.pmx(&["update"]).ok();
        signal(home.daemon_pid().unwrap(), libc::SIGKILL);
        assert_eq!(seen(&home).0, name);
    }
    // The environment is what the next child gets as well.
    home.pmx(&["restart", "0"]).ok();
    let after = seen(&home);
    let variables = |environ: &[u8]| {
        let mut list: Vec<Vec<u8>> = environ.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        // These are about one child.
        list.retain(|variable| {
            let of_one: [&[u8]; 3] = [b"PMX_CLAIM=", b"PMX_WORKER_ID=", b"PMX_INSTANCE="];
            !of_one.iter().any(|name| variable.starts_with(name))
        });
        list.sort();
        list
    };
    assert!(variables(&after.1) == variables(&before.1), "the environment changed");
    assert_eq!(before.2, "x\ny|{\"head\":{}}|");
    assert_eq!(after.2, before.2);
    assert_eq!(home.list().len(), 1);
}

#[test]
fn u05_a_child_that_ends_in_the_middle_is_reaped() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-i", "4", "--max-restarts", "100"]).ok();
    for round in 0..6 {
        let id = round % 4;
        let pid = home.pid(id);
        let mut update = home.command(&["update"]).spawn().unwrap();
        let until = Instant::now() + Duration::from_millis(u64::from(round) * 3);
        wait_until("the moment", || Instant::now() >= until);
        signal(pid, libc::SIGKILL);
        assert!(update.wait().unwrap().success());
        wait_until("another child", || home.pid(id) != pid && home.status(id) == "online");
        wait_until("no zombie", || probe::stat(pid).is_none());
    }
}

/// An update in the middle of a start, a stop, a restart and a reload: each is answered, and nothing is lost or
/// there twice.
#[test]
fn u08_an_update_in_the_middle_of_anything() {
    let home = Home::new();
    let server = Server { home: &home, port: crate::support::free_port() };
    let port = server.port.to_string();
    let (node, hello) = (node(20), app("hello.cjs"));
    let start = ["start", hello.to_str().unwrap(), "-n", "app", "-i", "2"];
    let start = [&start[..], &["--interpreter", node.to_str().unwrap()]].concat();
    let mut begun = home.command(&start).env("PORT", &port).spawn().unwrap();
    wait_until("a process", || home.pmx(&["ping"]).code == 0 && !home.list().is_empty());
    home.pmx(&["update"]).ok();
    assert!(begun.wait().unwrap().success());
    wait_until("an answer", || server.answers());
    for (words, until) in
        [(&["reload", "app"][..], "online"), (&["restart", "app"], "online"), (&["stop", "app"], "stopped")]
    {
        for pause in [0, 30, 90, 200] {
            let mut command = home.command(words).spawn().unwrap();
            let moment = Instant::now() + Duration::from_millis(pause);
            wait_until("the moment", || Instant::now() >= moment);
            home.pmx(&["update"]).ok();
            let status = command.wait().unwrap();
            assert!(status.success(), "{words:?} after {pause} ms: {status:?}");
            assert_eq!(server.statuses(), [until, until], "{words:?}");
            let listed = server.listed();
            let children = || {
                let ours = |pid: &i32| {
                    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                    let mark = format!("PMX_HOME={}", home.path().display());
                    String::from_utf8_lossy(&line).contains("hello.cjs")
                        && String::from_utf8_lossy(&environ).contains(&mark)
                        && is_alive(*pid)
                };
                probe::pids().into_iter().filter(ours).collect::<Vec<_>>()
            };
            let mut expected: Vec<i32> = listed.into_iter().filter(|pid| *pid != 0).collect();
            expected.sort();
            wait_until("only what is listed to live", || {
                let mut living = children();
                living.retain(|pid| probe::stat(*pid).is_some_and(|stat| stat[0] != "Z"));
                // A command line of pmx itself names the script too.
                living.retain(|pid| !probe::stat(*pid).is_some_and(|_| is_pmx(*pid)));
                living == expected
            });
        }
    }
}

/// What ends in the same moment as the check of the new program is dealt with before that takes over.
#[test]
fn u08_what_was_decided_just_before_the_new_one_takes_over_is_told() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx_with(&[("PMX_STOP_AT", "update-checked")], &["start", "app.sh"]).ok();
    let (pid, daemon, keeper) = (home.pid(0), home.daemon_pid().unwrap(), keeper_pid(&home).unwrap());
    // It would have a stopped daemon go on.
    signal(keeper, libc::SIGSTOP);
    let mut client = probe::Client::connect(&home);
    let stop = json!({ "v": 1, "id": 1, "verb": "stop", "targets": ["app"] });
    let update = json!({ "v": 1, "id": 2, "verb": "update", "program": PMX });
    client.stream.write_all(format!("{stop}\n{update}\n").as_bytes()).unwrap();
    let has_ended = |pid: i32| probe::stat(pid).is_none_or(|stat| stat[0] == "Z");
    wait_until("the daemon to stop", || probe::stat(daemon).is_some_and(|stat| stat[0] == "T"));
    signal(pid, libc::SIGKILL);
    wait_until("the end of both", || {
        let children = crate::support::container::children_of(daemon);
        children.contains(&pid) && children.len() >= 2 && children.into_iter().all(has_ended)
    });
    signal(daemon, libc::SIGCONT);
    signal(keeper, libc::SIGCONT);
    // In whichever order they were reaped.
    let mut told = Vec::new();
    while told.len() < 2 {
        let message = client.message().expect("both answers");
        told.extend(message["done"]["id"].as_u64());
        assert!(message["error"].is_null(), "{message}");
    }
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    assert_eq!(home.status(0), "stopped");
}

fn is_pmx(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == Path::new(PMX))
}
