//! Commands that explain: the list as pm2 prints it, reports, how processes ended, what happened.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Home, finish, signal, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

#[test]
fn prettylist_is_what_node_prints_of_jlist() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "apps.json",
        r#"[{"name": "it's", "script": "app.sh", "args": ["a b", "c"], "env": {"A-B": "1"}}]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    let script = "const list = JSON.parse(process.argv[1]); for (const p of list) p.monit = {}; \
        process.stdout.write(require('util').inspect(list, false, null, false))";
    // What is measured differs from look to look.
    let monit = regex_free(&home.pmx(&["prettylist"]).ok().out);
    let list = home.pmx(&["jlist"]).ok().out;
    let node = Command::new("node").args(["-e", script, &list]).output().unwrap();
    assert_eq!(monit, String::from_utf8(node.stdout).unwrap());
    home.pmx(&["delete", "all"]).ok();
    assert_eq!(home.pmx(&["prettylist"]).ok().out, "[]");
}

/// Without the measured part, which stands on one line.
fn regex_free(text: &str) -> String {
    let start = text.find("    monit: {").unwrap();
    let end = start + text[start..].find('}').unwrap();
    format!("{}    monit: {{{}", &text[..start], &text[end..])
}

#[test]
fn a_report_holds_no_value_of_an_environment_and_no_argument() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "apps.json",
        r#"[{"name": "api", "script": "app.sh", "args": ["--token", "hush-argument"], "env": {"KEY": "hush-declared"}}]"#,
    );
    let start = home.command(&["start", "apps.json"]).env("SHELL_KEY", "hush-inherited").spawn().unwrap();
    finish(start).ok();
    let report = home.pmx_with(&[("CLI_KEY", "hush-caller")], &["report"]).ok().out;
    assert!(!report.contains("hush-"), "{report}");
    for part in ["--- Daemon ---", "--- System ---", "0 api [default] fork online", "app.sh", "Last 20 lines"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
    let daemon = home.daemon_pid().unwrap().to_string();
    assert!(report.lines().any(|line| line.starts_with("pid ") && line.ends_with(&daemon)), "{report}");
}

#[test]
fn a_report_and_the_machines_numbers_need_no_daemon() {
    let home = Home::new();
    let report = home.pmx(&["report"]).ok().out;
    assert!(report.contains("runs           no\n"), "{report}");
    let list = home.pmx(&["slist"]).ok().out;
    assert!(list.starts_with("{\n") && list.contains("'Memory Total': { unit: 'MB', value: "), "{list}");
    let tree = home.pmx(&["sysinfos", "--tree"]).ok().out;
    assert!(tree.lines().any(|line| line.starts_with("Uptime: ") && line.ends_with(" s")), "{tree}");
    assert!(home.daemon_pid().is_none());
}

fn why(home: &Home, name: &str) -> Value {
    let all: Value = serde_json::from_str(&home.pmx(&["why", name, "--json"]).ok().out).unwrap();
    all[0].clone()
}

fn exits(home: &Home, name: &str) -> Vec<Value> {
    why(home, name)["exits"].as_array().unwrap().clone()
}

#[test]
fn why_tells_how_processes_ended_what_they_used_and_what_comes_next() {
    let home = Home::new();
    let work = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
    home.file("crash.sh", &format!("#!/bin/sh\n{work}\necho went wrong >&2\nexit 3\n"));
    home.pmx(&["start", "crash.sh", "-n", "api", "--restart-delay", "600000"]).ok();
    wait_until("an exit", || !exits(&home, "api").is_empty());
    let told = why(&home, "api");
    let exit = &told["exits"][0];
    assert_eq!((exit["code"].as_i64(), exit["why"].as_str()), (Some(3), None), "{told}");
    assert!(exit["used"]["user_ms"].as_u64().unwrap() >= 5, "{told}");
    assert!((200..200_000).contains(&exit["used"]["max_rss_kb"].as_u64().unwrap()), "{told}");
    assert_eq!(told["error_lines"], serde_json::json!(["went wrong"]));
    assert!((500_000..=600_000).contains(&told["retry_in"].as_u64().unwrap()), "{told}");
    let page = home.pmx(&["why", "api"]).ok().out;
    for part in ["waiting restart", "next start in ", "exit code 3", "by itself", " ms ", "    went wrong\n"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    home.pmx(&["why", "nobody"]).failed();
}

#[test]
fn why_tells_who_asked_for_an_end() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh", "-n", "api"]).ok();
    let last = || exits(&home, "api").pop().unwrap();
    home.pmx(&["restart", "api"]).ok();
    assert_eq!(last()["why"], "restart: on request");
    signal(home.pid(0), 9);
    wait_until("the crash", || exits(&home, "api").len() == 2);
    assert_eq!((&last()["why"], &last()["signal"]), (&Value::Null, &Value::from(9)));
    home.pmx(&["stop", "api"]).ok();
    assert_eq!(last()["why"], "stopped on request");
    // As many as are kept, and no more.
    for _ in 0..8 {
        home.pmx(&["restart", "api"]).ok();
    }
    assert_eq!(exits(&home, "api").len(), 8);
    home.file("web.js", "require('http').createServer((q, s) => s.end()).listen(0);");
    home.pmx(&["start", "web.js", "-n", "web", "-i", "1"]).ok();
    home.pmx(&["reload", "web"]).ok();
    wait_until("the old one to go", || !exits(&home, "web").is_empty());
    assert_eq!(exits(&home, "web")[0]["why"], "replaced on request");
}

fn happened(home: &Home, name: &[&str]) -> Vec<String> {
    let args: Vec<&str> = ["history", "--json"].iter().chain(name).copied().collect();
    let events: Vec<Value> = serde_json::from_str(&home.pmx(&args).ok().out).unwrap();
    let text = |event: &Value| {
        format!("{} {} {}", event["name"].as_str().unwrap(), event["kind"].as_str().unwrap(), event["detail"])
    };
    events.iter().map(text).collect()
}

#[test]
fn the_history_outlives_the_daemon_an_update_and_the_process() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh", "-n", "a"]).ok();
    home.pmx(&["start", "app.sh", "-n", "b"]).ok();
    signal(home.pid(0), 9);
    let has = |name: &[&str], line: &str| happened(&home, name).iter().any(|found| found.starts_with(line));
    wait_until("the crash", || has(&["a"], "a exited \"killed by SIGKILL\""));
    home.pmx(&["restart", "b"]).ok();
    home.pmx(&["scale", "b", "2"]).ok();
    home.pmx(&["delete", "b"]).ok();
    let before = happened(&home, &[]);
    for line in ["a added", "a spawned", "b stopping \"on request\"", "b deleted"] {
        assert!(before.iter().any(|found| found.starts_with(line)), "{line}: {before:#?}");
    }
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!(happened(&home, &[])[..before.len()], before[..]);
    home.pmx(&["update"]).ok();
    assert_eq!(happened(&home, &[])[..before.len()], before[..]);
    assert!(happened(&home, &["0"]).iter().all(|found| found.starts_with("a ")));
    let text = home.pmx(&["history", "b"]).ok().out;
    assert!(text.lines().any(|line| line.ends_with("b(1) stopping: on request")), "{text}");
    assert_eq!(
        home.pmx(&["history", "c"]).failed().err,
        "history c: nothing is remembered of such a process\n"
    );
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let told = home.pmx(&["doctor"]).ok().out;
    assert!(told.contains("ok    home") && told.contains("will be made by the first command"), "{told}");
    assert!(home.daemon_pid().is_none() && !home.path().exists(), "it only looks");
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh"]).ok();
    let told = home.pmx(&["doctor"]).ok().out;
    let line = |check: &str| told.lines().find(|line| line[6..].starts_with(check)).unwrap_or_default();
    for check in ["home", "permissions", "daemon", "keeper", "open files", "node", "disk", "kernel", "clock"]
    {
        assert!(
            line(check).starts_with("ok ") || check == "open files" || check == "disk",
            "{check}: {told}"
        );
    }
    assert!(line("daemon").ends_with(&format!("pid {}", home.daemon_pid().unwrap())), "{told}");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.path().join("dump.pm2"), "[]").unwrap();
    fs::set_permissions(home.path().join("dump.pm2"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = home.pmx(&["doctor"]).ok().out;
    assert!(told.contains("warn  permissions") && told.contains("chmod go-rwx"), "{told}");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let told = home.pmx(&["doctor"]).failed().out;
    assert!(told.contains("wrong home") && told.contains("chmod go-w"), "{told}");
    let told: Value = serde_json::from_str(&home.pmx(&["doctor", "--json"]).failed().out).unwrap();
    assert_eq!((&told[0]["check"], &told[0]["state"]), (&Value::from("home"), &Value::from("wrong")));
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let told = home.pmx_with(&[("PATH", "/nowhere")], &["doctor"]).ok().out;
    assert!(told.contains("warn  node"), "{told}");
}

#[test]
fn a_watched_list_is_drawn_again_and_again() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh"]).ok();
    let mut child = home.command(&["list", "--watch"]).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut until = |wanted: &str| {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            let read = std::io::BufRead::read_line(&mut out, &mut line).unwrap();
            assert!(read > 0, "it ended before it said {wanted}");
        }
    };
    until("online");
    home.pmx(&["stop", "app"]).ok();
    until("stopped");
    // A list into a pipe is no screen, and has no commands for one.
    until("stopped");
    child.kill().unwrap();
    child.wait().unwrap();
}
