//! How a program becomes a worker, or does not: fork mode, by itself at its first `listen`, and behind
//! npm, npx, tsx and shells.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::{printed, start};
use crate::support::server::{Server, app};
use crate::support::{Home, NODES, free_port, get, is_alive, node, node_modules, wait_until};

// ---- fork mode and the channel ----

#[test]
fn fork_mode_has_a_channel_and_ports_of_its_own() {
    for major in NODES {
        let home = Home::new();
        let script = "
            const { isPrimary, isMaster } = require('cluster');
            process.on('message', () => {});
            process.send({ hello: 1 }, (error) => console.log(isPrimary, process.connected, error));
            require('http').createServer((q, s) => s.end('x')).listen(0, () => console.log('listening'));";
        start(&home, major, script, &["-x"]).ok();
        wait_until("its lines", || printed(&home, 1).lines().count() == 2);
        let printed = printed(&home, 1);
        assert!(printed.contains("true true null") && printed.contains("listening"), "{printed}");
        let process = home.process(0);
        assert_eq!(process["pm2_env"]["exec_mode"], "fork_mode");
    }
}

#[test]
fn ready_is_waited_for_in_both_modes() {
    for options in [&["-x"][..], &["-i", "2"], &[]] {
        let home = Home::new();
        let script =
            "console.log('up'); setTimeout(() => process.send('ready'), 300); setInterval(() => {}, 1000);";
        let before = std::time::Instant::now();
        start(&home, 20, script, &[options, &["--wait-ready"]].concat()).ok();
        assert!(before.elapsed() >= Duration::from_millis(300), "{options:?}");
        assert_eq!(home.status(0), "online");
    }
}

#[test]
fn an_app_that_is_never_ready_stays_launching_and_fails_the_start() {
    for options in [&["-x"][..], &["-i", "1"]] {
        let home = Home::new();
        let script = "setInterval(() => {}, 1000);";
        let ran = start(&home, 20, script, &[options, &["--wait-ready", "--listen-timeout", "300"]].concat());
        let ran = ran.failed();
        assert!(ran.err.contains("not ready within 300 ms"), "{ran:?}");
        assert_eq!(home.status(0), "launching");
        assert!(is_alive(home.pid(0)));
    }
}

#[test]
fn a_script_that_just_ends_ends() {
    let home = Home::new();
    for (name, script, code) in
        [("zero", "console.log('done')", 0), ("three", "setTimeout(() => process.exit(3), 100)", 3)]
    {
        let path = home.file(&format!("{name}.cjs"), script);
        let node = node(20);
        let node = node.to_str().unwrap();
        home.pmx(&["start", path.to_str().unwrap(), "--interpreter", node, "--no-autorestart"]).ok();
        let find = || home.list().into_iter().find(|p| p["name"] == name).unwrap();
        wait_until("its end", || find()["pm2_env"]["status"] == "stopped");
        assert_eq!(find()["pm2_env"]["exit_code"], code);
    }
}

#[test]
fn a_script_that_listens_becomes_a_worker_by_itself() {
    for major in NODES {
        let home = Home::new();
        let server = Server::start(&home, major, &app("express.cjs"), &[]);
        wait_until("the list to know", || home.process(0)["pm2_env"]["exec_mode"] == "cluster_mode");
        let old = home.pid(0);
        let (ran, report) = server.under_load(server.plan(true), || home.pmx(&["reload", "app"]));
        ran.ok();
        assert_eq!(report.failures.total(), 0, "node {major}: {}", report.failures);
        assert_ne!(home.pid(0), old);
    }
}

#[test]
fn an_app_with_a_cluster_of_its_own_is_left_alone() {
    for options in [&["-x"][..], &[]] {
        let home = Home::new();
        let port = free_port();
        let script = format!(
            "const cluster = require('cluster');
             if (cluster.isPrimary) {{
               for (let i = 0; i < 2; i++) cluster.fork();
               let up = 0;
               cluster.on('listening', () => ++up === 2 && console.log('both up'));
             }} else {{
               require('http').createServer((q, s) => s.end(String(cluster.worker.id))).listen({port});
             }}"
        );
        start(&home, 20, &script, options).ok();
        wait_until("its own workers", || printed(&home, 1).contains("both up"));
        let mut seen = BTreeSet::new();
        wait_until("answers of both", || {
            seen.insert(get(port, "/").unwrap().body);
            seen.len() == 2
        });
        let pid = home.pid(0);
        home.pmx(&["delete", "app"]).ok();
        assert!(!is_alive(pid));
        wait_until("its workers to end", || get(port, "/").is_err());
    }
}

// ---- launchers ----

/// A package whose `start` script and bin run the plain server.
fn package(home: &Home) -> PathBuf {
    home.file(
        "package.json",
        r#"{ "name": "site", "bin": { "site": "./server.js" }, "scripts": { "start": "node server.js" } }"#,
    );
    let plain = std::fs::read_to_string(app("hello.cjs")).unwrap();
    let server = home.file("server.js", &format!("#!/usr/bin/env node\n{plain}"));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(home.dir().join("node_modules/.bin")).unwrap();
    std::os::unix::fs::symlink("../../server.js", home.dir().join("node_modules/.bin/site")).unwrap();
    server
}

/// However it is launched, `server.js` answers from so many workers and is reloaded without a failed request.
fn launched(command: &[&str], instances: usize) {
    let home = Home::new();
    package(&home);
    let server = Server { home: &home, port: free_port() };
    let path = format!("{}:{}", node(20).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let count = instances.to_string();
    let mut args = vec!["start", command[0], "-n", "app", "--listen-timeout", "20000", "--bake-time", "50"];
    if instances > 1 {
        args.extend(["-i", &count]);
    }
    if command.len() > 1 {
        args.push("--");
        args.extend(&command[1..]);
    }
    let port = server.port.to_string();
    home.pmx_with(&[("PORT", &port), ("PATH", &path), ("npm_config_update_notifier", "false")], &args).ok();
    wait_until("an answer", || server.answers());
    let old = server.answering(instances);
    let (ran, report) = server.under_load(server.plan(false), || home.pmx(&["reload", "app"]));
    ran.ok();
    assert_eq!(report.failures.total(), 0, "{command:?}: {}", report.failures);
    let new = server.answering(instances);
    assert!(new.is_disjoint(&old), "{command:?} -i {instances}: {old:?} {new:?}");
    home.pmx(&["delete", "app"]).ok();
    for pid in new.into_iter().chain(old) {
        wait_until("the server to end", || !is_alive(pid));
    }
}

#[test]
fn npm_start_is_clustered() {
    launched(&["npm", "start"], 2);
    launched(&["npm", "start"], 1);
}

#[test]
fn npx_is_clustered() {
    launched(&["npx", "site"], 2);
    launched(&["npx", "site"], 1);
}

#[test]
fn a_bin_and_a_shell_line_are_clustered() {
    launched(&["./node_modules/.bin/site"], 2);
    launched(&["sh -c 'echo first && node server.js'"], 2);
    launched(&["sh -c 'echo first && node server.js'"], 1);
}

#[test]
fn tsx_is_clustered() {
    let tsx = node_modules().join(".bin/tsx");
    let typed = app("typed.ts");
    launched(&[tsx.to_str().unwrap(), typed.to_str().unwrap()], 2);
    launched(&[tsx.to_str().unwrap(), typed.to_str().unwrap()], 1);
}
