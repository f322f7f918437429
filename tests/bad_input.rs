//! Every mistake on the command line: one clear sentence on stderr, exit code 1, and nothing that runs is
//! harmed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::support::Home;

/// A home in which something runs.
fn busy() -> Home {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.file("plain.txt", "not a program\n");
    home.pmx(&["start", "app.sh", "--name", "api"]).ok();
    home
}

/// Runs a line that must be refused with a sentence that contains `expected`.
#[track_caller]
fn refused<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(home: &Home, line: &[S], expected: &str) {
    let ran = home.pmx(line);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line:?}: {ran:?}");
    assert_eq!(ran.err.trim_end().lines().count(), 1, "{line:?}: {ran:?}");
    assert!(ran.err.contains(expected), "{line:?}: {ran:?}");
    assert!(!ran.err.contains("panicked"), "{line:?}: {ran:?}");
}

#[test]
fn lines_that_make_no_sense() {
    let home = busy();
    let pid = home.pid(0);
    let long = "x".repeat(300);
    for (line, expected) in [
        (&["strat", "app.sh"][..], "unknown command \"strat\": did you mean start?"),
        (&["restrat", "api"], "did you mean restart?"),
        (&["lst"], "did you mean l"),
        (&["frobnicate"], "unknown command \"frobnicate\""),
        (&["start", "app.sh", "--nmae", "x"], "unknown option --nmae: did you mean --name?"),
        (&["start", "app.sh", "--instnaces", "2"], "did you mean --instances?"),
        (&["start", "app.sh", "-Q"], "unknown option -Q"),
        (
            &["start", "app.sh", "--max-memory-restart", "lots"],
            "--max-memory-restart: expected bytes, 300M, or 80%",
        ),
        (&["start", "app.sh", "-c", "0 0 * *"], "--cron-restart: expected a cron pattern with five fields"),
        (&["logrotate"], "logrotate is of pm2: pmx rotates logs itself"),
        (&["start", "app.sh", "--log-type", "xml"], "--log-type: expected raw or json"),
        (&["start"], "nothing given"),
        (&["start", "app.sh", "--name"], "--name needs a value"),
        (&["start", "app.sh", "--name", ""], "--name"),
        (&["start", "app.sh", "--silent=yes"], "--silent takes no value"),
        (&["start", ""], "an empty name"),
        (&["start", "missing.js"], "no such file"),
        (&["start", "/no/such/thing"], "no such file"),
        (&["start", "."], "not a file"),
        (&["start", "apps.yaml"], "apps.yaml: no such file"),
        (&["start", "missing.json"], "missing.json: no such file"),
        (&["stop"], "stop needs"),
        (&["stop", "nobody"], "process or namespace nobody not found"),
        (&["stop", "99"], "process or namespace 99 not found"),
        (&["stop", "-1"], "unknown option -1"),
        (&["restart", "nobody"], "nobody not found"),
        (&["reload", "nobody"], "nobody not found"),
        (&["delete", "nobody"], "nobody not found"),
        (&["delete", "api", "nobody"], "nobody not found"),
        (&["reset", "nobody"], "nobody not found"),
        (&["describe", "nobody"], "nobody not found"),
        (&["logs", "nobody", "--nostream"], "nobody not found"),
        (&["flush", "nobody"], "nobody not found"),
        (&["list", "extra"], "list does not take \"extra\""),
        (&["stop", "api", "--name", "x"], "--name has no meaning for stop"),
        (&["stop", "api", "--", "x"], "stop takes no arguments for an app"),
        (&["scale", "api"], "scale needs"),
        (&["scale", "api", "many"], "expected a number of instances"),
        (&["scale", "api", "0"], "at least one instance must stay"),
        (&["scale", "api", "-5"], "at least one instance must stay"),
        (&["scale", "api", "999999999"], "more than"),
        (&["scale", "api", "+4294967295"], "more than"),
        (&["scale", "api", "99999999999999"], "expected a number of instances"),
        (&["scale", "nobody", "2"], "no such app"),
        (&["sendSignal", "SIGNONE", "api"], "unknown signal \"SIGNONE\""),
        (&["sendSignal", "0", "api"], "unknown signal"),
        (&["sendSignal", "65", "api"], "unknown signal"),
        (&["sendSignal", "SIGUSR1"], "sendSignal needs"),
        (&["sendSignal", "SIGUSR1", "nobody"], "nobody not found"),
        (&["start", "app.sh", "-i", "999999999"], "a number of instances"),
        (&["start", "app.sh", "-i", "two"], "a number of instances"),
        (&["start", "app.sh", "-i", "1.5"], "a number of instances"),
        (&["start", "app.sh", "--kill-timeout", "-1"], "milliseconds"),
        (&["start", "app.sh", "--kill-timeout", "soon"], "milliseconds"),
        (&["start", "app.sh", "--kill-timeout", "99999999999999999999"], "milliseconds"),
        (&["start", "app.sh", "--max-restarts", "-2"], "a number or unlimited"),
        (&["start", "app.sh", "--stop-exit-codes", "256"], "exit codes"),
        (&["start", "app.sh", "--balance", "fair"], "reuseport, rr or shared"),
        (&["logs", "api", "--lines", "ten"], "a number of lines"),
        (&["reload", "api", "--parallel", "0"], "a number above 0"),
        (&["start", "app.sh", "--cwd", "/no/such"], "working directory /no/such: no such directory"),
        (&["start", "app.sh", "--interpreter", "no-such-program"], "no-such-program"),
        (&["start", "app.sh", "--uid", "no-such-user"], "unknown user no-such-user"),
        (&["start", "app.sh", "--uid", "0", "--gid", "no-such-group"], "unknown group no-such-group"),
        (&["start", "app.sh", "--name", "all"], "cannot be a name"),
        (&["start", "app.sh", "--name", "a/b"], "a name cannot hold a /"),
        (&["start", "app.sh", "--name", "a\nb"], "a name cannot hold control characters"),
        (&["start", "app.sh", "--name", "\u{1b}[31mred"], "a name cannot hold control characters"),
        (&["start", "app.sh", "--namespace", "a\tb"], "control characters"),
        (&["start", "app.sh", "--name", &long], "a name has at most 128"),
        (&["start", "app.sh", "--only", "x"], "--only chooses from a declaration file"),
        (&["start", "api2", "--node-args", "'open"], "arguments"),
        (&["restart", "api", "--name", "all"], "cannot be a name"),
        (&["restart", "api", "--cwd", "/no/such"], "no such directory"),
        (&["daemon", "--lock-fd", "1"], "an fd above 2"),
    ] {
        refused(&home, line, expected);
    }
    assert_eq!(home.list().len(), 1, "nothing was started");
    assert_eq!((home.pid(0), home.status(0).as_str()), (pid, "online"));
    assert_eq!(home.process(0)["pm2_env"]["restart_time"], 0);
}

#[test]
fn words_that_are_no_text() {
    let home = busy();
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    refused(&home, &[bytes(b"st\xffop")], "unknown command");
    refused(&home, &[bytes(b"stop"), bytes(b"\xff\xfe")], "is not UTF-8");
    refused(&home, &[bytes(b"start"), bytes(b"app.sh"), bytes(b"--name"), bytes(b"\xff")], "UTF-8");
    refused(&home, &[bytes(b"start"), bytes(b"--\xff")], "unknown option");
    assert_eq!(home.list().len(), 1);
}

#[test]
fn declarations_that_are_wrong() {
    let home = busy();
    let pid = home.pid(0);
    for (text, expected) in [
        ("", "bad.json:1:1: expected a value, got the end"),
        ("{\n  \"script\": \"app.sh\",\n  \"name\" \"x\"\n}", "bad.json:3: SyntaxError: "),
        ("{\"script\": \"app.sh\"} x", "bad.json:1: SyntaxError: "),
        ("\"app.sh\"", "expected an object or an array of apps, got a string"),
        ("[1]", "app 1: expected an object, got a number"),
        ("[]", "it declares no apps"),
        ("{\"apps\": 3}", "apps: expected an array of apps"),
        ("{\"name\": \"x\"}", "app \"x\": script is missing"),
        ("{\"script\": 3}", "script: expected"),
        ("{\"script\": \"app.sh\", \"instances\": \"many\"}", "instances: expected a number of instances"),
        ("{\"script\": \"app.sh\", \"instances\": 1e99}", "instances: expected"),
        ("{\"script\": \"app.sh\", \"kill_timeout\": -1}", "kill_timeout: expected milliseconds"),
        ("{\"script\": \"app.sh\", \"autorestart\": \"maybe\"}", "autorestart: expected true or false"),
        ("{\"script\": \"app.sh\", \"exec_mode\": \"turbo\"}", "exec_mode: expected"),
        ("{\"script\": \"app.sh\", \"env\": []}", "env: expected an object of variables, got an array"),
        (
            "{\"script\": \"app.sh\", \"env\": {\"A=B\": \"1\"}}",
            "cannot be the name of an environment variable",
        ),
        ("{\"script\": \"app.sh\", \"env\": {\"A\": \"\\u0000\"}}", "NUL"),
        ("{\"script\": \"app.sh\", \"args\": {\"a\": 1}}", "args: expected"),
        ("{\"script\": \"app.sh\", \"port\": 70000}", "port: expected a port number"),
        ("{\"script\": \"app.sh\", \"watch\": {}, \"overlap\": \"x\"}", "overlap: expected"),
        ("{\"script\": \"app.sh\", \"name\": \"a\\u0007b\"}", "control characters"),
        ("{\"script\": \"app.sh\", \"odd\": {\"deep\": 1}}", "odd: no such field"),
        ("{\"script\": \"gone.sh\"}", "no such file"),
        ("[{\"script\": \"app.sh\", \"name\": \"good\"}, {\"script\": \"gone.sh\"}]", "no such file"),
    ] {
        home.file("bad.json", text);
        refused(&home, &["start", "bad.json"], expected);
    }
    std::fs::write(home.dir().join("bad.json"), b"{\"script\": \"\xff\"}").unwrap();
    refused(&home, &["start", "bad.json"], "not UTF-8");
    std::fs::create_dir(home.dir().join("dir.json")).unwrap();
    refused(&home, &["start", "dir.json"], "dir.json");
    home.file("bad.json", &format!("{{\"script\": {}", "[".repeat(10_000)));
    refused(&home, &["start", "bad.json"], "RangeError");
    home.file("two.json", "[{\"script\": \"app.sh\", \"name\": \"x\"}]");
    refused(&home, &["start", "two.json", "--only", "y"], "no such app in it");
    assert_eq!(home.list().len(), 1, "all or nothing");
    assert_eq!(home.pid(0), pid);
}
