//! How a child is told to end, and what is not started.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Home, is_alive, node, signal, wait_until};

const STUBBORN: &str = "#!/bin/sh\nfor name in TERM INT USR1; do trap \"echo $name\" $name; done\necho up\n\
                        while :; do sleep 0.05; done\n";

#[test]
fn a_stop_goes_through_its_steps() {
    let home = Home::new();
    home.file("app.sh", STUBBORN);
    home.file(
        "apps.json",
        r#"[{ "name": "object", "script": "app.sh",
              "stop_sequence": [{ "signal": "SIGTERM", "wait": "300ms" }, { "signal": "usr1", "wait": 400 }] }]"#,
    );
    home.pmx(&["start", "apps.json"]).ok();
    home.pmx(&["start", "app.sh", "-n", "line", "--stop-sequence", "TERM 300, USR1 400ms"]).ok();
    for (id, name) in [(0, "object"), (1, "line")] {
        let log = format!("{name}-out-{id}.log");
        wait_until("its traps", || home.log(&log) == "up\n");
        let page = home.pmx(&["describe", name]).ok().out;
        assert!(page.contains("SIGTERM, after 300 ms SIGUSR1, after 400 ms SIGKILL"), "{page}");
        let began = Instant::now();
        home.pmx(&["stop", name]).ok();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(700), "{took:?}");
        assert_eq!(home.log(&log), "up\nTERM\nUSR1\n");
        assert_eq!(home.process(id)["pm2_env"]["exit_code"], json!(null), "killed");
    }
}

#[test]
fn a_step_goes_on_where_a_killed_daemon_was() {
    let home = Home::new();
    home.file("app.sh", STUBBORN);
    home.pmx(&["start", "app.sh", "--stop-sequence", "TERM 2s, USR1 1s"]).ok();
    wait_until("its traps", || home.log("app-out-0.log") == "up\n");
    let pid = home.pid(0);
    let stop = home.command(&["stop", "app"]).spawn().unwrap();
    wait_until("the first step", || home.log("app-out-0.log") == "up\nTERM\n");
    signal(home.daemon_pid().unwrap(), libc::SIGKILL);
    crate::support::finish(stop).ok();
    assert_eq!(home.log("app-out-0.log"), "up\nTERM\nUSR1\n");
    assert!(!is_alive(pid));
}

#[test]
fn the_stop_signal_is_the_apps() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\ntrap 'echo told; exit 0' QUIT\necho up\nwhile :; do sleep 0.05; done\n");
    home.pmx(&["start", "app.sh", "--stop-signal", "quit", "--kill-timeout", "20s"]).ok();
    wait_until("its trap", || home.log("app-out-0.log") == "up\n");
    home.pmx(&["restart", "app"]).ok();
    wait_until("its trap again", || home.log("app-out-0.log") == "up\ntold\nup\n");
    assert_eq!(home.process(0)["pm2_env"]["stop_signal"], 3);
}

#[test]
fn shutdown_with_message() {
    let home = Home::new();
    home.file(
        "app.js",
        "process.on('SIGINT', () => console.log('a signal'));
         process.on('message', (m) => { if (m === 'shutdown') { console.log('asked'); process.exit(0); } });
         console.log('up');
         setInterval(() => {}, 1000);",
    );
    home.file(
        "app.sh",
        "#!/bin/sh\ntrap 'echo a signal; exit 0' INT\necho up\nwhile :; do sleep 0.05; done\n",
    );
    let node = node(20);
    let options = ["--shutdown-with-message", "--kill-timeout", "20s"];
    let interpreter = ["--interpreter", node.to_str().unwrap()];
    home.pmx(&[&["start", "app.js", "-n", "node"][..], &interpreter, &options].concat()).ok();
    home.pmx(&[&["start", "app.sh", "-n", "sh", "-x"][..], &options].concat()).ok();
    wait_until("both", || home.log("node-out-0.log") == "up\n" && home.log("sh-out-1.log") == "up\n");
    home.pmx(&["stop", "all"]).ok();
    assert_eq!(home.log("node-out-0.log"), "up\nasked\n");
    assert_eq!(home.log("sh-out-1.log"), "up\na signal\n", "it has no channel");
}

#[test]
fn what_is_not_to_be_started_is_in_the_list() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.file(
        "apps.json",
        r#"[{ "name": "later", "script": "app.sh", "autostart": false }, { "name": "now", "script": "app.sh" }]"#,
    );
    let ran = home.pmx(&["start", "apps.json"]).ok();
    assert!(ran.out.contains("start later(0): added, not started"), "{ran:?}");
    assert_eq!((home.status(0).as_str(), home.status(1).as_str()), ("stopped", "online"));
    let ran = home.pmx(&["start", "app.sh", "-n", "option", "--no-autostart"]).ok();
    assert!(ran.out.contains("added, not started"), "{ran:?}");
    assert_eq!((home.status(2).as_str(), home.pid(2)), ("stopped", 0));
    home.pmx(&["start", "later"]).ok();
    assert_eq!(
        (home.status(0), home.process(0)["pm2_env"]["autostart"].clone()),
        ("online".into(), json!(false))
    );
}
