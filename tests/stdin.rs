//! Lines for the stdin of processes that were declared with a pipe.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::support::{Home, finish, signal, wait_for, wait_until};

const ECHO: &str = "#!/bin/sh\nwhile read -r line; do echo \"got $line\"; done\necho ended\n";

#[test]
fn a_line_arrives_whoever_has_died_meanwhile() {
    let home = Home::new();
    home.file("echo.sh", ECHO);
    home.file("apps.json", r#"[{"name": "echo", "script": "echo.sh", "stdin": "pipe"}]"#);
    home.pmx(&["start", "apps.json"]).ok();
    let log = || home.log("echo-out-0.log");
    assert_eq!(home.pmx(&["send", "0", "one two"]).ok().out, "send echo(0): sent\n");
    wait_until("the line", || log() == "got one two\n");
    let pid = home.pid(0);
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    home.pmx(&["send", "echo", "$(three) \\n"]).ok();
    home.pmx(&["update"]).ok();
    home.pmx(&["send", "echo", "four"]).ok();
    wait_until("all lines", || log() == "got one two\ngot $(three) \\n\ngot four\n");
    assert_eq!(home.pid(0), pid, "it never saw an end");
    let long = "x".repeat(4096);
    assert_eq!(home.pmx(&["send", "echo", &long]).failed().err, "send: a line of more than 4095 bytes\n");
    home.pmx(&["stop", "echo"]).ok();
    assert_eq!(home.pmx(&["send", "echo", "x"]).failed().err, "send echo(0): it is not running\n");
}

#[test]
fn who_does_not_read_gets_nothing_and_holds_up_nobody() {
    let home = Home::new();
    home.file("sleep.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "sleep.sh", "-n", "deaf", "--stdin", "pipe"]).ok();
    home.pmx(&["start", "sleep.sh", "-n", "closed"]).ok();
    let err = home.pmx(&["send", "closed", "x"]).failed().err;
    assert!(err.starts_with("send closed(1): its stdin is no pipe"), "{err}");
    let line = "x".repeat(4095);
    for _ in 0..16 {
        home.pmx(&["send", "deaf", &line]).ok();
    }
    let err = home.pmx(&["send", "deaf", &line]).failed().err;
    assert_eq!(err, "send deaf(0): it does not read its stdin\n");
    home.pmx(&["restart", "closed", "--stdin", "pipe"]).ok();
    home.pmx(&["send", "closed", "x"]).ok();
    home.pmx(&["start", "sleep.sh", "--stdin", "tty"]).failed();
}

#[test]
fn attach_sends_what_is_typed_and_prints_what_comes() {
    let home = Home::new();
    home.file("echo.sh", ECHO);
    home.pmx(&["start", "echo.sh", "-n", "echo", "--stdin", "pipe"]).ok();
    home.pmx(&["start", "echo.sh", "-n", "deaf"]).ok();
    let err = home.pmx(&["attach", "deaf"]).failed().err;
    assert!(err.contains("its stdin is no pipe"), "{err}");
    // Whoever runs the tests in the background ignores SIGINT for us.
    let plain = home.command(&["attach", "echo"]);
    let mut attach = std::process::Command::new("env");
    attach.arg("--default-signal=INT").arg(plain.get_program()).args(plain.get_args());
    attach.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut attach = attach.spawn().unwrap();
    let mut keys = attach.stdin.take().unwrap();
    let mut lines = BufReader::new(attach.stdout.take().unwrap()).lines();
    keys.write_all(b"hel").unwrap();
    keys.write_all(b"lo\nagain\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got hello");
    assert_eq!(lines.next().unwrap().unwrap(), "got again");
    // ^C lets go, and the process stays.
    signal(attach.id() as i32, 2);
    wait_for("the end of attach", || attach.try_wait().unwrap());
    let mut err = String::new();
    attach.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(err, "attached to echo(0); ^C lets go of it\n");
    assert_eq!(home.status(0), "online");
    // The end of what is typed lets go, too, once all of it is sent.
    let mut attach = home.command(&["attach", "0"]).stdin(Stdio::piped()).spawn().unwrap();
    attach.stdin.take().unwrap().write_all(b"last").unwrap();
    finish(attach).ok();
    wait_until("the last line", || home.log("echo-out-0.log").ends_with("got last\n"));
}
