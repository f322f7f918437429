//! The saved list is pm2's file: checked by pm2 itself, both ways.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::pm2::Pm2;
use crate::support::{Home, free_port, get, node_modules, wait_for, wait_until};

fn summary(list: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let one = |p: &Value| {
        let env = &p["pm2_env"];
        (text(&p["name"]), text(&env["status"]), text(&env["exec_mode"]))
    };
    let mut all: Vec<_> = list.iter().map(one).collect();
    all.sort();
    all
}

fn expected(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect()
}

const SERVER: &str = "require('http').createServer((q, r) => r.end(`${process.env.DECLARED} ${process.argv.slice(2)}`)).listen(+process.env.PORT);";

#[test]
fn pm2_resurrects_what_pmx_saved_and_saves_it_again() {
    let home = Home::new();
    let Some(pm2) = Pm2::of(&home) else { return };
    let port = free_port();
    home.file("web.js", SERVER);
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    let apps = format!(
        r#"[{{"name": "web", "script": "web.js", "instances": 2, "args": ["a", "b c"], "max_restarts": 7,
            "env": {{"DECLARED": "told", "PORT": "{port}"}}}}]"#
    );
    home.file("apps.json", &apps);
    home.pmx(&["start", "apps.json"]).ok();
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["start", "sleep 1000", "--name", "line"]).ok();
    home.pmx(&["stop", "app"]).ok();
    home.pmx(&["save"]).ok();
    home.pmx(&["kill"]).ok();
    fs::copy(home.path().join("dump.pm2"), pm2.home.join("dump.pm2")).unwrap();

    pm2.run(&["resurrect"]).ok();
    let rows = expected(&[
        ("app", "stopped", "fork_mode"),
        ("line", "online", "fork_mode"),
        ("web", "online", "cluster_mode"),
        ("web", "online", "cluster_mode"),
    ]);
    assert_eq!(summary(&pm2.list()), rows);
    let body = wait_for("an answer", || get(port, "/").ok()).body;
    assert_eq!(body, "told a,b c");

    // What pm2 made of it is read again, with what pm2 changed.
    pm2.run(&["save"]).ok();
    pm2.run(&["kill"]).ok();
    home.pmx(&["resurrect", "pm2-home/dump.pm2"]).ok();
    assert_eq!(summary(&home.list()), rows);
    let web = home.list().into_iter().find(|p| p["name"] == "web").unwrap();
    assert_eq!(web["pm2_env"]["max_restarts"], 7);
    let body = wait_for("an answer", || get(port, "/").ok()).body;
    assert_eq!(body, "told a,b c");
}

#[test]
fn pmx_resurrects_what_pm2_saved() {
    let home = Home::new();
    let Some(pm2) = Pm2::of(&home) else { return };
    let port = free_port();
    home.file("web.js", SERVER);
    home.file("app.sh", "#!/bin/sh\necho \"$DECLARED\"\nexec sleep 1000\n");
    let apps = format!(
        r#"{{"apps": [
            {{"name": "web", "script": "./web.js", "instances": 2, "exec_mode": "cluster", "args": "a 'b c'",
              "env": {{"DECLARED": "told", "PORT": "{port}"}}, "kill_timeout": 777, "min_uptime": "5s"}},
            {{"name": "app", "script": "./app.sh", "env": {{"DECLARED": "told"}}, "stop_exit_codes": [3],
              "max_memory_restart": "1G"}}]}}"#
    );
    home.file("apps.json", &apps);
    pm2.run(&["start", "apps.json"]).ok();
    pm2.run(&["start", "sleep 1000", "--name", "line"]).ok();
    pm2.run(&["stop", "line"]).ok();
    pm2.run(&["save"]).ok();
    pm2.run(&["kill"]).ok();

    // In its place, as somebody would copy it.
    fs::create_dir(home.path()).unwrap();
    fs::copy(pm2.home.join("dump.pm2"), home.path().join("dump.pm2")).unwrap();
    let ran = home.pmx(&["resurrect"]).ok();
    assert_eq!(ran.err, "", "there is nothing in it that pmx does not have");
    let rows = expected(&[
        ("app", "online", "fork_mode"),
        ("line", "stopped", "fork_mode"),
        ("web", "online", "cluster_mode"),
        ("web", "online", "cluster_mode"),
    ]);
    assert_eq!(summary(&home.list()), rows, "{ran:?}");
    let body = wait_for("an answer", || get(port, "/").ok()).body;
    assert_eq!(body, "told a,b c");
    let list = home.list();
    let find = |name: &str| list.iter().find(|p| p["name"] == name).unwrap()["pm2_env"].clone();
    assert_eq!((&find("web")["kill_timeout"], &find("web")["min_uptime"]), (&777.into(), &5000.into()));
    assert_eq!(find("app")["stop_exit_codes"], serde_json::json!([3]));
    assert_eq!(find("app")["max_memory_restart"], 1 << 30);
    let log = PathBuf::from(find("app")["pm_out_log_path"].as_str().unwrap());
    assert_eq!(log.parent(), Some(&*home.path().join("logs")), "pm2's own logs are not ours");
    wait_until("its line", || fs::read_to_string(&log).is_ok_and(|text| text == "told\n"));
    // Saved by pmx it is pmx's, and pm2's is a generation.
    home.pmx(&["save"]).ok();
    let is_ours = |path: &Path| fs::read(path).unwrap().starts_with(b"[{\"_pmx\":");
    assert!(is_ours(&home.path().join("dump.pm2")) && !is_ours(&home.path().join("dump.pm2.bak")));
}

#[test]
fn import_takes_over_a_running_pm2_and_no_app_runs_twice() {
    let home = Home::new();
    let Some(pm2) = Pm2::of(&home) else { return };
    home.file("app.js", "setInterval(() => {}, 1000)");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", node_modules().join(".bin").display());
    let pm2_home = pm2.home.display().to_string();
    let import = |args: &[&str]| home.pmx_with(&[("PATH", &path), ("PM2_HOME", &pm2_home)], args);
    let none = import(&["import", "pm2"]).failed().err;
    assert!(none.contains("dump.pm2: no such file (pm2 save writes it)"), "{none}");
    pm2.run(&["start", "app.js", "--name", "moved"]).ok();
    let before = pm2.list()[0]["pid"].as_i64().unwrap() as i32;
    // Refused as long as it would run twice; nothing is touched.
    let refused = import(&["import", "pm2"]).failed().err;
    assert!(refused.contains("its apps would run twice"), "{refused}");
    assert!(crate::support::is_alive(before));
    import(&["import", "pm2", "--take-over"]).ok();
    assert!(!crate::support::is_alive(before));
    let list = home.list();
    assert_eq!((&list[0]["name"], &list[0]["pm2_env"]["status"]), (&"moved".into(), &"online".into()));
    // Again: pm2 is gone, and what is there is left as it is.
    let pid = home.pid(0);
    import(&["import", "pm2"]).ok();
    assert_eq!(home.pid(0), pid);
}
