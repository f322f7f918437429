//! What a child sees of variables: everything, compared with what was written down; and what becomes of it when
//! the declaration or the shell changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Home, finish, node, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// The whole environment of a running process.
fn environment(home: &Home, id: u32) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    wait_until("the child has its environment", || {
        let bytes = fs::read(format!("/proc/{}/environ", home.pid(id))).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        found = pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        found.contains_key("PMX_INSTANCE")
    });
    found
}

fn variable(home: &Home, id: u32, name: &str) -> Option<String> {
    environment(home, id).remove(name)
}

/// What differs from run to run is made the same.
fn shown(home: &Home, id: u32) -> String {
    let mut text = format!("# {}\n", home.process(id)["name"].as_str().unwrap());
    let dir = home.dir().to_str().unwrap();
    // bash adds these; whether it does is its own business.
    let of_bash = |name: &str| ["OLDPWD", "PWD", "SHLVL", "_"].contains(&name);
    for (name, value) in environment(home, id).into_iter().filter(|(name, _)| !of_bash(name)) {
        let value = value.replace(dir, "DIR");
        let value = match &*name {
            "PMX_INSTANCE" => "MARK".to_string(),
            "unique_id" => format!("{}-...", &value[..8]),
            "WATCHDOG_PID" => "PID".to_string(),
            "NOTIFY_SOCKET" => "SOCKET".to_string(),
            "PATH" => "PATH".to_string(),
            _ => value,
        };
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

/// A command with an environment of which everything is known.
fn start(home: &Home, more: &[(&str, &str)], line: &[&str]) {
    let mut command = home.command(line);
    let path = format!("{}:{}", node(20).parent().unwrap().display(), std::env::var("PATH").unwrap());
    command.env_clear().env("PMX_HOME", home.path()).env("PATH", path);
    command.env("HOME", "/home/ann").env("LANG", "C").env("TZ", "UTC").env("AWS_KEY", "secret");
    // What other managers and another app of ours have left in the shell.
    for name in [
        "NODE_APP_INSTANCE",
        "NODE_UNIQUE_ID",
        "PMX_INSTANCE",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "pm_id",
        "name",
    ] {
        command.env(name, "stale");
    }
    finish(command.envs(more.iter().copied()).spawn().unwrap()).ok();
}

#[test]
fn what_a_child_sees_is_what_is_written_down() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("app.js", "setInterval(() => {}, 1000)");
    home.file("a.env", "FROM_FILE=1\nBOTH=file\n");
    home.file("b.env", "export FROM_FILE='2 # not a comment'\n");
    home.file(
        "apps.json",
        "[{ name: 'plain', script: './app.sh' },
          { name: 'full', script: './app.sh', instances: 2, namespace: 'web', watchdog: '1h',
            env_file: ['a.env', 'b.env'], env: { BOTH: 'env', name: 'mine', COUNT: '7' }, port: 3000,
            filter_env: ['AWS_'], instance_var: 'WORKER', increment_var: 'PORT', append_env_to_name: true,
            env_test: { COUNT: 8 }, greeting: 'hello' },
          { name: 'alone', script: './app.sh', filter_env: true },
          { name: 'node', script: './app.js', exec_mode: 'fork' },
          { name: 'worker', script: './app.js', instances: 1, ready: 'spawned' }]",
    );
    start(&home, &[], &["start", "apps.json", "--env", "test"]);
    let found: String = (0..6).map(|id| shown(&home, id)).collect::<Vec<_>>().join("\n");
    let written = include_str!("environment.txt");
    assert!(found == written, "tests/environment.txt differs from:\n{found}");
}

#[test]
fn what_was_taken_out_is_gone_after_the_next_start() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let declare = |env: &str| home.file("a.json", &format!("{{ script: './app.sh', env: {env} }}"));
    declare("{ OLD: 1, KEPT: 1 }");
    start(&home, &[("SHELL_OLD", "1"), ("SHELL_KEPT", "1")], &["start", "a.json"]);
    assert_eq!(variable(&home, 0, "OLD").as_deref(), Some("1"));
    // Out of the shell. Without the option everything stays.
    start(&home, &[("SHELL_KEPT", "2")], &["restart", "app"]);
    assert_eq!(variable(&home, 0, "SHELL_OLD").as_deref(), Some("1"));
    start(&home, &[("SHELL_KEPT", "2")], &["restart", "app", "--update-env"]);
    assert_eq!(variable(&home, 0, "SHELL_OLD"), None);
    assert_eq!(variable(&home, 0, "SHELL_KEPT").as_deref(), Some("2"));
    assert_eq!(variable(&home, 0, "OLD").as_deref(), Some("1"));
    // Out of the declaration.
    declare("{ KEPT: 2 }");
    for verb in ["restart", "reload"] {
        start(&home, &[("SHELL_NEW", "1")], &[verb, "a.json", "--update-env"]);
        assert_eq!(variable(&home, 0, "OLD"), None, "{verb}");
        assert_eq!(variable(&home, 0, "KEPT").as_deref(), Some("2"), "{verb}");
        assert_eq!(variable(&home, 0, "SHELL_KEPT"), None, "{verb}");
        declare("{ KEPT: 2, OLD: 3 }");
        start(&home, &[], &["restart", "a.json"]);
        assert_eq!(variable(&home, 0, "OLD").as_deref(), Some("3"));
        declare("{ KEPT: 2 }");
    }
}

#[test]
fn instances_are_told_apart_by_variables() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("a.json", "{ script: './app.sh', instances: 3, increment_var: 'PORT', env: { PORT: 4000 } }");
    start(&home, &[], &["start", "a.json"]);
    let ports = || {
        let ids = home.list().iter().map(|p| p["pm_id"].as_u64().unwrap() as u32).collect::<Vec<_>>();
        ids.into_iter().map(|id| variable(&home, id, "PORT").unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ports(), ["4000", "4001", "4002"]);
    // A place that became free is taken again.
    home.pmx(&["delete", "1"]).ok();
    home.pmx(&["scale", "app", "4"]).ok();
    assert_eq!(ports(), ["4000", "4002", "4001", "4003"]);
    home.pmx(&["restart", "app"]).ok();
    assert_eq!(ports(), ["4000", "4002", "4001", "4003"]);
}

#[test]
fn an_option_filters_too_and_a_restart_changes_it() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let shell = [("API_KEY", "x"), ("AWS_REGION", "y"), ("OTHER", "z")];
    start(&home, &shell, &["start", "app.sh", "--filter-env", "AWS_", "--filter-env", "*_KEY"]);
    let seen = |names: [&str; 3]| names.map(|name| variable(&home, 0, name).is_some());
    assert_eq!(seen(["API_KEY", "AWS_REGION", "OTHER"]), [false, false, true]);
    assert_eq!(home.process(0)["pm2_env"]["filter_env"], serde_json::json!(["AWS_*", "*_KEY"]));
    start(&home, &shell, &["restart", "app", "--filter-env", "OTHER"]);
    assert_eq!(seen(["API_KEY", "AWS_REGION", "OTHER"]), [true, true, false]);
}

#[test]
fn what_is_wrong_with_variables_starts_nothing() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("bad.env", "A=1\nB\n");
    for (fields, sentence) in [
        ("env_file: 'bad.env'", "env_file bad.env:2: expected NAME=value"),
        ("env_file: 'gone.env'", "env_file gone.env: no such file"),
        ("env_file: [3]", "env_file: expected a path or an array of paths"),
        ("increment_var: 'PORT'", "increment_var PORT: it is not set"),
        ("increment_var: 'PORT', env: { PORT: 'x' }", "increment_var PORT: its value \"x\" is no number"),
        ("instance_var: 'A=B'", "instance_var: \"A=B\" cannot be the name of an environment variable"),
        ("filter_env: [1]", "filter_env: expected true, a name, or an array"),
        ("append_env_to_name: 3", "append_env_to_name: expected true or false"),
    ] {
        home.file(
            "a.json",
            &format!("[{{ script: './app.sh', name: 'x' }}, {{ script: './app.sh', {fields} }}]"),
        );
        let said = home.pmx(&["start", "a.json"]).failed();
        assert!(said.err.contains(sentence), "{fields}: {}", said.err);
    }
    assert!(home.list().is_empty());
}

#[test]
fn the_name_of_an_environment_is_part_of_the_apps() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("a.json", "{ script: './app.sh', append_env_to_name: true, env_test: { A: 1 } }");
    home.pmx(&["start", "a.json", "--env", "test"]).ok();
    home.pmx(&["start", "a.json"]).ok();
    let names: Vec<_> = home.list().iter().map(|p| p["name"].as_str().unwrap().to_string()).collect();
    assert_eq!(names, ["app", "app-test"]);
    home.pmx(&["stop", "a.json", "--env", "test"]).ok();
    assert_eq!([0, 1].map(|id| home.status(id)), ["stopped", "online"]);
    home.pmx(&["reload", "a.json", "--env", "test"]).ok();
    assert_eq!(home.status(0), "online");
    let said = home.pmx(&["stop", "app", "--env", "test"]).failed();
    assert!(said.err.contains("it chooses from a declaration file"), "{}", said.err);
    assert!(Path::new(&format!("/proc/{}", home.pid(0))).exists());
}
