use super::*;
use crate::app::{Changes, Instances};
use crate::cli::testing::{TestHome, write_program};

/// A directory with scripts of all kinds, and a PATH with stand-ins for every interpreter.
fn bench(name: &str) -> TestHome {
    let mut bench = TestHome::new(name);
    let root = bench.home.path.clone();
    let write = |path: &str, text: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for program in ["node", "python3", "bash", "sh", "ruby", "php", "perl", "tool"] {
        write(&format!("bin/{program}"), b"\x7fELF\0", 0o755);
    }
    write("bin/npm", b"#!/usr/bin/env node\n", 0o755);
    for script in
        ["app.js", "app.mjs", "app.py", "run.sh", "app.rb", "app.php", "app.pl", "plain", "app.lua", "a b.js"]
    {
        write(script, b"text\n", 0o644);
    }
    write("app.tsx", b"x", 0o644);
    write("app.ts", b"x", 0o644);
    write("server", b"\x7fELF\0", 0o755);
    write("locked", b"\x7fELF\0", 0o644);
    write("www", b"#!/usr/bin/env node\n", 0o755);
    write("www-text", b"#!/usr/bin/env node --harmony\n", 0o644);
    write("shell", b"#!/bin/sh\n", 0o755);
    write("snake", b"#!/usr/bin/env python3\n", 0o755);
    fs::create_dir(root.join("dir")).unwrap();
    bench.caller.env.set("PATH", root.join("bin").as_os_str());
    bench
}

fn declared(script: &str) -> Declared {
    Declared { script: Text::from(script), ..Declared::default() }
}

#[test]
fn every_kind_of_script_finds_its_interpreter() {
    let bench = bench("resolve-kinds");
    for (script, interpreter, args, runtime, name) in [
        ("app.js", Some("node"), "", Runtime::Node, "app"),
        ("./app.mjs", Some("node"), "", Runtime::Node, "app"),
        ("app.py", Some("python3"), "", Runtime::Other, "app"),
        ("run.sh", Some("bash"), "", Runtime::Launcher, "run"),
        ("app.rb", Some("ruby"), "", Runtime::Other, "app"),
        ("app.php", Some("php"), "", Runtime::Other, "app"),
        ("app.pl", Some("perl"), "", Runtime::Other, "app"),
        ("plain", Some("node"), "", Runtime::Node, "plain"),
        ("server", None, "", Runtime::Other, "server"),
        ("www", None, "", Runtime::Node, "www"),
        ("www-text", Some("node"), "--harmony", Runtime::Node, "www-text"),
        ("shell", None, "", Runtime::Launcher, "shell"),
        ("snake", None, "", Runtime::Other, "snake"),
        ("a b.js", Some("node"), "", Runtime::Node, "a b"),
    ] {
        let app =
            resolve(&declared(script), &bench.caller).unwrap_or_else(|error| panic!("{script}: {error}")).app;
        let found: Vec<_> = app.command.interpreter_args.iter().map(|arg| arg.lossy()).collect();
        assert_eq!(app.command.interpreter, interpreter.map(Text::from), "{script}");
        assert_eq!(
            (found.join(" ").as_str(), app.command.runtime, app.name.as_str()),
            (args, runtime, name),
            "{script}"
        );
        assert_eq!(app.command.script, Text::from(&bench.home.path.join(script.trim_start_matches("./"))));
        assert_eq!(app.cwd, Text::from(&bench.caller.cwd));
        let unbuffered = script.ends_with(".py") || script == "snake";
        assert_eq!(app.env.get("PYTHONUNBUFFERED").is_some(), unbuffered, "{script}");
        assert!(!app.merge_logs, "{script}");
    }
}

#[test]
fn commands_and_lines() {
    let bench = bench("resolve-lines");
    let tool = resolve(&declared("tool"), &bench.caller).unwrap().app;
    assert_eq!(tool.command.script, Text::from(&bench.home.path.join("bin/tool")));
    assert_eq!(tool.command.interpreter, None);
    let npm = resolve(&declared("npm"), &bench.caller).unwrap().app;
    assert_eq!((npm.command.interpreter, npm.command.runtime), (None, Runtime::Launcher));
    let mut line = declared("npm run start");
    line.changes.args = Some(vec![Text::from("--port"), Text::from("a b")]);
    let app = resolve(&line, &bench.caller).unwrap().app;
    assert_eq!(app.name, "npm");
    assert_eq!(app.command.script, Text::from("npm run start --port 'a b'"));
    assert_eq!(app.command.interpreter, Some(Text::from("bash")));
    assert_eq!(app.command.interpreter_args, [Text::from("-c")]);
    assert_eq!((app.command.args.len(), app.command.runtime), (0, Runtime::Launcher));
    fs::remove_file(bench.home.path.join("bin/bash")).unwrap();
    let app = resolve(&line, &bench.caller).unwrap().app;
    assert_eq!(app.command.interpreter, Some(Text::from("sh")));
}

#[test]
fn typescript_needs_a_runner() {
    let bench = bench("resolve-ts");
    let node = bench.home.path.join("bin/node");
    let be = |version: &str| write_program(&node, &format!("#!/bin/sh\necho {version}\n"));
    be("v20.1.0");
    let error = resolve(&declared("app.ts"), &bench.caller).unwrap_err();
    assert!(error.starts_with("it needs bun, tsx, or node 22.18 or newer (this node is "), "{error}");
    if Path::new("/usr/bin/awk").exists() {
        be("v22.18.0");
        let found = resolve(&declared("app.ts"), &bench.caller).unwrap();
        assert_eq!(found.app.command.runtime, Runtime::Node);
        assert!(
            found.notes[0].ends_with("run by node v22.18.0, which strips the types"),
            "{:?}",
            found.notes
        );
    }
    let error = resolve(&declared("app.tsx"), &bench.caller).unwrap_err();
    assert!(error.starts_with("it needs bun or tsx"), "{error}");
    let local = bench.home.path.join("node_modules/.bin/tsx");
    fs::create_dir_all(local.parent().unwrap()).unwrap();
    fs::copy(bench.home.path.join("bin/tool"), &local).unwrap();
    let app = resolve(&declared("app.tsx"), &bench.caller).unwrap().app;
    assert_eq!(app.command.interpreter, Some(Text::from(&local)));
    assert_eq!(app.command.runtime, Runtime::Launcher);
}

#[test]
fn modes_logs_and_names_follow_what_was_said() {
    let bench = bench("resolve-modes");
    let with = |script: &str, changes: Changes| {
        resolve(&Declared { changes, ..declared(script) }, &bench.caller).map(|found| found.app)
    };
    let two = || Some(Instances::Count(2));
    let app = with("app.js", Changes { instances: two(), ..Changes::default() }).unwrap();
    assert_eq!((app.mode, app.merge_logs, app.instances), (Mode::Cluster, false, Instances::Count(2)));
    let app =
        with("app.js", Changes { instances: two(), mode: Some(Mode::Fork), ..Changes::default() }).unwrap();
    assert_eq!((app.mode, app.merge_logs), (Mode::Fork, false));
    let app =
        with("app.py", Changes { instances: two(), merge_logs: Some(true), ..Changes::default() }).unwrap();
    assert_eq!((app.mode, app.merge_logs), (Mode::Auto, true));
    let app = with("app.js", Changes::default()).unwrap();
    assert_eq!((app.mode, app.merge_logs), (Mode::Auto, false));
    let changes = Changes {
        out_file: Some(Text::from("logs/o.log")),
        error_file: Some(Text::from("NULL")),
        cwd: Some(Text::from("dir")),
        ..Changes::default()
    };
    let app = with("../app.js", changes).unwrap();
    assert_eq!(app.cwd, Text::from(&bench.home.path.join("dir")));
    assert_eq!(app.command.script, Text::from(&bench.home.path.join("app.js")));
    assert_eq!(app.out_file, Some(Text::from(&bench.home.path.join("dir/logs/o.log"))));
    assert_eq!(app.error_file, Some(Text::from("/dev/null")));
}

#[test]
fn every_fault_is_one_sentence() {
    let bench = bench("resolve-faults");
    let name = |name: &str| Changes { name: Some(name.to_string()), ..Changes::default() };
    let cwd = |cwd: &str| Changes { cwd: Some(Text::from(cwd)), ..Changes::default() };
    for (script, interpreter, changes, sentence) in [
        ("api.js", None, Changes::default(), "no such file"),
        ("./tool", None, Changes::default(), "no such file"),
        ("nosuchtool", None, Changes::default(), "no such file"),
        ("dir", None, Changes::default(), "not a file"),
        ("app.js/x", None, Changes::default(), "Not a directory (os error 20)"),
        ("app.js", Some("deno"), Changes::default(), "interpreter deno: not found in PATH"),
        ("app.js", Some("./deno"), Changes::default(), "interpreter ./deno: no such file"),
        ("app.js", Some("./app.py"), Changes::default(), "interpreter ./app.py: not executable"),
        ("app.js", Some("none"), Changes::default(), "not executable: chmod +x it, or give --interpreter"),
        ("locked", None, Changes::default(), "not executable: chmod +x it, or give --interpreter"),
        ("app.lua", None, Changes::default(), "no interpreter is known for .lua: give --interpreter"),
        ("app.js", None, name("a/b"), "a name cannot hold a /"),
        ("app.js", None, name("all"), "\"all\" means every process and cannot be a name"),
        ("app.js", None, cwd("/nonexistent"), "working directory /nonexistent: no such directory"),
    ] {
        let declared = Declared { interpreter: interpreter.map(String::from), changes, ..declared(script) };
        assert_eq!(resolve(&declared, &bench.caller).unwrap_err(), sentence, "{script}");
    }
}

#[test]
fn users_are_resolved_by_root_only() {
    let bench = bench("resolve-users");
    let declared = Declared { user: Some("root".to_string()), ..declared("app.js") };
    if users::effective_uid() == 0 {
        let user = resolve(&declared, &bench.caller).unwrap().app.user.unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str()), (0, 0, "root"));
        assert!(user.groups.contains(&0) && user.home.is_some());
        let nobody = Declared { user: Some("no-such-user".to_string()), ..declared.clone() };
        assert_eq!(resolve(&nobody, &bench.caller).unwrap_err(), "unknown user no-such-user");
        let nogroup = Declared { group: Some("no-such-group".to_string()), ..declared };
        assert_eq!(resolve(&nogroup, &bench.caller).unwrap_err(), "unknown group no-such-group");
    } else {
        assert_eq!(
            resolve(&declared, &bench.caller).unwrap_err(),
            "run as another user or group: only root can"
        );
    }
}
