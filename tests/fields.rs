//! The fields of a declaration: each by the names of the tests that show what it does to a real process. Those below
//! have no other place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::probe::{self, is_root};
use crate::support::{Home, Ran, free_port, get, is_alive, node, wait_until};

/// A field of `pmx schema` (`health.interval` is one of an object), and tests that would fail if it were ignored.
const SHOWN: &[(&str, &[&str])] = &[
    ("script", &["declarations_of_scripts_in_the_spelling_of_the_first_pm2"]),
    ("name", &["declarations_of_scripts_in_the_spelling_of_the_first_pm2"]),
    ("name_prefix", &["what_it_is_called_and_where_its_pid_is"]),
    ("namespace", &["what_a_child_sees_is_what_is_written_down"]),
    ("cwd", &["what_is_executed_and_where"]),
    ("args", &["declarations_of_scripts_in_the_spelling_of_the_first_pm2", "what_is_executed_and_where"]),
    ("interpreter", &["what_is_executed_and_where"]),
    ("interpreter_args", &["what_is_executed_and_where"]),
    ("exec_mode", &["what_a_child_sees_is_what_is_written_down", "modes_decide_who_is_a_worker"]),
    ("execute_command", &["modes_decide_who_is_a_worker"]),
    ("instances", &["instances_are_told_apart_by_variables"]),
    ("balance", &["balance_decides_whose_sockets_listen"]),
    ("env", &["what_a_child_sees_is_what_is_written_down"]),
    ("env_<name>", &["what_a_child_sees_is_what_is_written_down"]),
    ("<variable>", &["what_a_child_sees_is_what_is_written_down"]),
    ("env_file", &["what_a_child_sees_is_what_is_written_down"]),
    ("port", &["what_a_child_sees_is_what_is_written_down"]),
    ("filter_env", &["what_a_child_sees_is_what_is_written_down"]),
    ("instance_var", &["what_a_child_sees_is_what_is_written_down"]),
    ("increment_var", &["instances_are_told_apart_by_variables"]),
    ("append_env_to_name", &["the_name_of_an_environment_is_part_of_the_apps"]),
    (
        "uid",
        &[
            "who_it_runs_as",
            "p11_another_user_gets_no_new_privileges_and_only_the_capabilities_that_are_declared",
        ],
    ),
    ("gid", &["who_it_runs_as"]),
    ("out_file", &["where_its_output_goes"]),
    ("error_file", &["where_its_output_goes"]),
    ("merge_logs", &["where_its_output_goes"]),
    ("pid_file", &["what_it_is_called_and_where_its_pid_is"]),
    ("autorestart", &["what_follows_from_an_end"]),
    ("stop_exit_codes", &["what_follows_from_an_end"]),
    (
        "min_uptime",
        &[
            "how_often_and_how_soon_it_is_started_again",
            "a_service_that_only_lives_is_ready_after_its_min_uptime",
        ],
    ),
    ("max_restarts", &["how_often_and_how_soon_it_is_started_again", "one_that_fails_is_a_failed_start"]),
    ("restart_window", &["how_often_and_how_soon_it_is_started_again"]),
    ("restart_delay", &["how_often_and_how_soon_it_is_started_again"]),
    ("exp_backoff_restart_delay", &["how_often_and_how_soon_it_is_started_again"]),
    ("kill_timeout", &["how_it_is_told_to_end"]),
    ("stop_signal", &["how_it_is_told_to_end"]),
    ("stop_sequence", &["a_stop_goes_through_its_steps"]),
    ("shutdown_with_message", &["how_it_is_told_to_end"]),
    ("kill_mode", &["p05_a_kill_mode_says_whom_a_stop_is_for"]),
    ("stdin", &["a_line_arrives_whoever_has_died_meanwhile"]),
    ("treekill", &["p16_a_grandchild_that_is_left_to_itself_keeps_the_pipe_and_holds_nothing_up"]),
    ("depends_on", &["what_is_declared_first_waits_for_what_it_depends_on"]),
    ("pre_start", &["they_run_before_each_start_and_after_each_end_as_the_app_does"]),
    ("post_stop", &["they_run_before_each_start_and_after_each_end_as_the_app_does"]),
    ("hook_timeout", &["one_that_takes_too_long_is_ended_and_holds_nothing_up"]),
    ("on", &["a_webhook_gets_the_event_and_nobody_else_its_secrets"]),
    ("on.crash", &["a_crash_each_restart_and_the_end_of_the_budget_are_told"]),
    ("on.errored", &["a_crash_each_restart_and_the_end_of_the_budget_are_told"]),
    ("on.restart", &["who_uses_too_much_memory_is_told_with_the_numbers"]),
    ("on.reload_failed", &["a_reload_to_a_version_that_throws_is_told_with_its_words"]),
    ("on.unhealthy", &["who_falls_ill_is_told_once_with_the_answer_of_the_check"]),
    (
        "on.oom",
        &[
            "who_uses_too_much_memory_is_told_with_the_numbers",
            "whom_the_kernel_kills_for_want_of_memory_is_told",
        ],
    ),
    ("on.leak", &["an_alert_is_tried_by_hand"]),
    ("on.disk", &["who_has_no_room_for_its_log_is_told"]),
    ("post_update", &["what_was_declared_is_run_after_a_pull_unless_the_commit_says_otherwise"]),
    ("autostart", &["what_is_not_to_be_started_is_in_the_list"]),
    ("limits", &["p11_a_child_is_held_to_its_limits", "limits_of_all_together_hold_or_the_start_is_refused"]),
    ("limits.as", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.core", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.cpu", &["limits_of_all_together_hold_or_the_start_is_refused"]),
    ("limits.cpu_time", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.data", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.fsize", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.memlock", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.memory", &["limits_of_all_together_hold_or_the_start_is_refused"]),
    ("limits.memory_high", &["the_memory_above_which_it_is_slowed_down"]),
    ("limits.msgqueue", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.nice", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.nofile", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.nproc", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.oom_score_adj", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.pids", &["limits_of_all_together_hold_or_the_start_is_refused"]),
    ("limits.rtprio", &["what_only_a_privileged_user_may_have_is_had_or_refused"]),
    ("limits.sigpending", &["p11_a_child_is_held_to_its_limits"]),
    ("limits.stack", &["p11_a_child_is_held_to_its_limits"]),
    ("umask", &["p11_a_child_is_held_to_its_limits"]),
    (
        "no_new_privs",
        &["p11_another_user_gets_no_new_privileges_and_only_the_capabilities_that_are_declared"],
    ),
    (
        "capabilities",
        &[
            "p11_another_user_gets_no_new_privileges_and_only_the_capabilities_that_are_declared",
            "a_port_below_1024_without_root",
        ],
    ),
    ("wait_ready", &["when_it_is_called_ready"]),
    ("ready", &["a_service_is_online_when_it_says_so"]),
    ("watchdog", &["a_watchdog_that_is_fed_is_content_and_one_that_is_not_bites"]),
    ("health", &["how_health_is_found_out", "a_command_decides_by_its_exit_code"]),
    ("health.http", &["how_health_is_found_out"]),
    ("health.tcp", &["how_health_is_found_out"]),
    ("health.exec", &["how_health_is_found_out"]),
    ("health.expect", &["how_health_is_found_out"]),
    ("health.interval", &["how_health_is_found_out"]),
    ("health.timeout", &["how_health_is_found_out"]),
    ("health.retries", &["how_health_is_found_out"]),
    ("health.start_period", &["how_health_is_found_out"]),
    ("health.on_fail", &["how_health_is_found_out"]),
    ("listen_timeout", &["when_it_is_called_ready", "a_service_that_does_not_say_so_is_not_called_ready"]),
    ("bake_time", &["how_long_a_reload_takes"]),
    ("drain_timeout", &["how_long_a_reload_takes"]),
    ("max_memory_restart", &["what_starts_it_anew"]),
    ("cron_restart", &["a_cron_restart_is_on_time_and_leaves_alone_what_is_stopped"]),
    ("schedule", &["what_starts_it_anew"]),
    ("overlap", &["what_starts_it_anew"]),
    ("cron_timezone", &["what_starts_it_anew"]),
    ("watch", &["which_changes_start_it_anew"]),
    ("ignore_watch", &["which_changes_start_it_anew"]),
    ("watch_delay", &["which_changes_start_it_anew"]),
    ("watch_options", &["which_changes_start_it_anew"]),
    ("watch_options.awaitWriteFinish", &["which_changes_start_it_anew"]),
    ("watch_options.ignored", &["which_changes_start_it_anew"]),
    ("ext", &["which_changes_start_it_anew"]),
    ("log_type", &["l07_one_record_a_line_whatever_the_pieces"]),
    ("disable_logs", &["l07_one_record_a_line_whatever_the_pieces"]),
    ("log_file", &["l07_one_record_a_line_whatever_the_pieces"]),
    ("log_date_format", &["l07_one_record_a_line_whatever_the_pieces"]),
    ("time", &["l07_one_record_a_line_whatever_the_pieces"]),
    ("log_rotate", &["l06_rotation_by_the_calendar_by_age_and_not_at_all"]),
    ("log_full", &["x04_who_would_rather_wait_loses_nothing"]),
    ("critical", &["n03_of_several_apps_the_policy_says_whose_end_counts"]),
];

/// Fields of pm2 that can mean nothing here; the first of those that are one row of the table. Of the first row
/// something is said, the second one asks for nothing that could be missed.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("deep_monitoring", "of pm2's modules and monitoring: without effect here, and that is said"),
    ("max", "of pm2, and without a meaning here"),
];

/// What the schema that pmx prints says of an app.
fn schema(home: &Home) -> Value {
    let schema: Value = serde_json::from_str(&home.pmx(&["schema"]).ok().out).unwrap();
    schema.pointer("/$defs/app").unwrap().clone()
}

/// Its fields, those of objects with a dot, and what is said about them. Other spellings are left out.
fn fields(app: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, field) in app["properties"].as_object().unwrap() {
        if field.get("$ref").is_some() {
            continue;
        }
        for part in [field].into_iter().chain(field["anyOf"].as_array().into_iter().flatten()) {
            let properties = part["properties"].as_object().into_iter().flat_map(|map| map.keys());
            let names = part["propertyNames"]["enum"].as_array().into_iter().flatten();
            for inner in properties.map(String::as_str).chain(names.map(|name| name.as_str().unwrap())) {
                found.insert(format!("{name}.{inner}"), String::new());
            }
        }
        found.insert(name.clone(), field["description"].as_str().unwrap().to_string());
    }
    for (name, rule) in [("env_<name>", "patternProperties"), ("<variable>", "additionalProperties")] {
        if app[rule].is_object() {
            found.insert(name.to_string(), String::new());
        }
    }
    found
}

/// All spellings of a field, or an example of one that has no name of its own.
fn spellings(app: &Value, field: &str) -> Vec<String> {
    match field {
        "env_<name>" => return vec!["env_test".to_string()],
        "<variable>" => return vec!["greeting".to_string()],
        _ => {}
    }
    let target = format!("#/$defs/app/properties/{field}");
    let others = app["properties"].as_object().unwrap().iter();
    let others = others.filter(|(_, found)| found["$ref"] == target.as_str()).map(|(name, _)| name.clone());
    let last = field.rsplit('.').next().unwrap().to_string();
    others.chain([last]).collect()
}

/// The text of a test, whatever file it is in.
fn body<'a>(files: &'a [String], test: &str) -> Option<&'a str> {
    files.iter().find_map(|text| {
        let rest = text.split(&format!("#[test]\nfn {test}() {{\n")).nth(1)?;
        rest.split("\n}\n").next()
    })
}

/// Whether a text has the field as a declaration does: `"name"`, or `name:`. An option of the command line goes another
/// way.
fn declares(text: &str, field: &str) -> bool {
    let is_whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.".contains(c));
    text.contains(&format!("\"{field}\""))
        || text.match_indices(&format!("{field}:")).any(|(at, _)| is_whole(at))
}

#[test]
fn every_field_has_a_test_with_a_process() {
    let home = Home::new();
    let app = schema(&home);
    let fields = fields(&app);
    assert!(fields.len() > 100 && fields.contains_key("health.interval"), "{:?}", fields.keys());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let paths = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let files: Vec<String> = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut faults = Vec::new();
    let mut known = BTreeSet::new();
    let others = WITHOUT_EFFECT.iter().map(|(field, _)| *field);
    for field in SHOWN.iter().map(|(field, _)| *field).chain(others) {
        if !fields.contains_key(field) {
            faults.push(format!("{field}: no such field"));
        }
        if !known.insert(field) {
            faults.push(format!("{field}: named twice"));
        }
    }
    for field in fields.keys().filter(|field| !known.contains(field.as_str())) {
        faults.push(format!("{field}: no test is named"));
    }
    for (field, tests) in SHOWN {
        if tests.is_empty() {
            faults.push(format!("{field}: no test is named"));
        }
        for test in *tests {
            match body(&files, test) {
                None => faults.push(format!("{field}: there is no test {test}")),
                Some(text) if spellings(&app, field).iter().any(|name| declares(text, name)) => {}
                Some(_) => faults.push(format!("{field}: {test} does not declare it")),
            }
        }
    }
    for (field, about) in WITHOUT_EFFECT {
        if fields.get(*field).is_some_and(|found| found != about) {
            faults.push(format!("{field} has an effect: {}", fields[*field]));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_has_no_effect_is_said() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let of_pm2 = r#"{ "name": "app", "script": "app.sh", "deepMonitoring": true, "source_map_support": true, "v8": false,
                      "vizion": false, "windows_hide": true, "kill_retry_time": 100 }"#;
    home.file("app.json", of_pm2);
    let ran = home.pmx(&["start", "app.json"]).ok();
    assert_eq!(
        ran.err,
        "app.json:1: app \"app\": deepMonitoring, source_map_support are of pm2 and have no effect here\n"
    );
    assert_eq!(home.status(0), "online");
}

// ---- what they do ----

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Starts what is declared.
fn start(home: &Home, apps: &Value) -> Ran {
    home.file("apps.json", &apps.to_string());
    home.pmx(&["start", "apps.json"])
}

fn read(home: &Home, file: &str) -> String {
    fs::read_to_string(home.dir().join(file)).unwrap_or_default()
}

#[track_caller]
fn detail(home: &Home, id: u32) -> Value {
    let ran = home.pmx(&["describe", &id.to_string(), "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

/// A variable that a process was started with.
fn variable(pid: i32, name: &str) -> Option<String> {
    wait_until("its environment", || pmx::sys::proc::variable(pid, "PMX_INSTANCE").is_some());
    pmx::sys::proc::variable(pid, name)
}

#[test]
fn what_is_executed_and_where() {
    let home = Home::new();
    // Neither its name nor its mode nor its first line tells what runs it.
    home.file(
        "work/tool",
        "case $- in *u*) echo strict;; esac\npwd\nprintf '<%s>' \"$@\"; echo\nexec sleep 1000\n",
    );
    let app = json!({
        "name": "app", "script": "./tool", "cwd": "work", "interpreter": "/bin/sh", "interpreter_args": ["-u"],
        "args": ["a b", "c"],
    });
    start(&home, &app).ok();
    let work = home.dir().join("work").canonicalize().unwrap();
    let expected = format!("strict\n{}\n<a b><c>\n", work.display());
    wait_until(&expected, || home.log("app-out-0.log") == expected);
    // The same in pm2's other words.
    let app = json!({
        "name": "other", "cmd": "./tool", "cwd": "work", "exec_interpreter": "/bin/sh", "nodeArgs": "-u",
        "args": "'a b' c",
    });
    start(&home, &app).ok();
    wait_until(&expected, || home.log("other-out-1.log") == expected);
}

#[test]
fn what_it_is_called_and_where_its_pid_is() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file("run/keep", "");
    let app = json!({
        "name": "api", "name_prefix": "shop", "script": "./app.sh", "instances": 2, "pid_file": "run/api.pid",
        "watch": cfg!(feature = "watch"), "pre_start": "sleep 0.1",
    });
    start(&home, &app).ok();
    assert!(home.list().iter().all(|process| process["name"] == "shop:api"));
    home.pmx(&["describe", "shop:api"]).ok();
    let noted = |id: u32| read(&home, &format!("run/api-{id}.pid")).trim().parse::<i32>().unwrap_or(0);
    let is_true = || (0..2).all(|id| home.pid(id) > 0 && noted(id) == home.pid(id));
    wait_until("their pids", is_true);
    let path = home.dir().join("run/api-0.pid");
    assert_eq!(home.process(0)["pm2_env"]["pm_pid_path"], path.to_str().unwrap());
    let before = home.pid(0);
    crate::support::signal(before, libc::SIGKILL);
    wait_until("another", || ![0, before].contains(&home.pid(0)) && is_true());
    let daemon = home.daemon_pid().unwrap();
    crate::support::signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    home.pmx(&["restart", "0"]).ok();
    wait_until("their pids", is_true);
    home.pmx(&["stop", "0"]).ok();
    wait_until("the end of one", || !path.exists());
    assert_eq!(noted(1), home.pid(1));
    // Its own files are no reason to start anew.
    assert_eq!(home.process(1)["pm2_env"]["restart_time"], 0);
    home.pmx(&["delete", "all"]).ok();
    wait_until("the end of both", || !home.dir().join("run/api-1.pid").exists());
    // What cannot be written holds nothing up.
    start(&home, &json!({ "name": "x", "script": "./app.sh", "pid": "app.sh/x.pid" })).ok();
    wait_until("a word about it", || {
        fs::read_to_string(home.path().join("pmx.log")).unwrap().contains("app.sh/x-0.pid: not a directory")
    });
}

#[test]
fn modes_decide_who_is_a_worker() {
    let home = Home::new();
    home.file("app.js", "setInterval(() => {}, 1000);");
    let app = |name: &str, fields: Value| {
        let mut app = json!({
            "name": name, "script": "./app.js", "interpreter": node(20), "ready": "spawned", "instances": 1,
        });
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app
    };
    let apps = json!([
        app("cluster", json!({ "exec_mode": "cluster" })),
        app("fork", json!({ "exec_mode": "fork" })),
        app("command", json!({ "exec_mode": "cluster", "execute_command": true })),
    ]);
    start(&home, &apps).ok();
    for (id, is_worker) in [(0, true), (1, false), (2, false)] {
        let pid = home.pid(id);
        assert_eq!(variable(pid, "NODE_UNIQUE_ID").is_some(), is_worker, "{id}");
        let mode = if is_worker { "cluster_mode" } else { "fork_mode" };
        assert_eq!(variable(pid, "exec_mode").as_deref(), Some(mode));
    }
}

#[test]
fn balance_decides_whose_sockets_listen() {
    let home = Home::new();
    home.file(
        "app.js",
        "require('http').createServer((q, s) => s.end('x')).listen(+process.env.PORT, '127.0.0.1');",
    );
    let ports = [free_port(), free_port(), free_port()];
    let apps: Vec<Value> = [("reuseport", ports[0]), ("rr", ports[1]), ("shared", ports[2])]
        .into_iter()
        .map(|(balance, port)| {
            json!({
                "name": balance, "script": "./app.js", "interpreter": node(20), "exec_mode": "cluster", "instances": 2,
                "balance": balance, "port": port, "listen_timeout": "20s",
            })
        })
        .collect();
    start(&home, &Value::from(apps)).ok();
    // Sockets that listen there, by inode.
    let listening = |port: u16| -> BTreeSet<String> {
        let text = fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let here = format!("0100007F:{port:04X}");
        lines.filter(|line| line[1] == here && line[3] == "0A").map(|line| line[9].to_string()).collect()
    };
    let held = |name: &str, sockets: &BTreeSet<String>| -> Vec<usize> {
        let list = home.list();
        let workers = list.iter().filter(|process| process["name"] == name);
        let has = |pid: i32| {
            let fds = probe::fds(pid);
            sockets
                .iter()
                .filter(|inode| {
                    let link = format!("socket:[{inode}]");
                    fds.iter().any(|(_, target)| target.as_os_str() == link.as_str())
                })
                .count()
        };
        workers.map(|process| has(process["pid"].as_i64().unwrap() as i32)).collect()
    };
    for (name, port, count, each) in
        [("reuseport", ports[0], 2, 1), ("rr", ports[1], 1, 0), ("shared", ports[2], 1, 1)]
    {
        let sockets = listening(port);
        assert_eq!((sockets.len(), held(name, &sockets)), (count, vec![each; 2]), "{name}");
        assert_eq!(get(port, "/").unwrap().body, "x");
    }
}

#[test]
fn who_it_runs_as() {
    if !is_root() {
        return eprintln!("\n!!! SKIPPED: only root can become somebody else\n");
    }
    let home = Home::new();
    use std::os::unix::fs::PermissionsExt;
    let path = home.file("app.sh", "#!/bin/sh\necho $(id -un) $(id -gn)\nexec sleep 1000\n");
    for path in [home.dir(), &path] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    start(
        &home,
        &json!([
            { "name": "user", "script": "./app.sh", "uid": "daemon" },
            { "name": "both", "script": "./app.sh", "uid": "daemon", "gid": "games" },
        ]),
    )
    .ok();
    wait_until("both", || {
        home.log("user-out-0.log") == "daemon daemon\n" && home.log("both-out-1.log") == "daemon games\n"
    });
}

#[test]
fn what_only_a_privileged_user_may_have_is_had_or_refused() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    // More than the usual limit, which is 0. Not every root may have it.
    let ran = start(&home, &json!({ "name": "app", "script": "./app.sh", "limits": { "rtprio": 3 } }));
    if ran.code != 0 {
        return assert!(ran.err.contains("set a limit of a resource: operation not permitted"), "{ran:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", home.pid(0))).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max realtime priority")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).collect::<Vec<_>>(), ["3", "3"]);
}

#[test]
fn where_its_output_goes() {
    let home = Home::new();
    home.file(
        "app.sh",
        "#!/bin/sh\necho out $NODE_APP_INSTANCE\necho err $NODE_APP_INSTANCE >&2\nexec sleep 1000\n",
    );
    start(
        &home,
        &json!([
            { "name": "own", "script": "./app.sh", "instances": 2, "out_file": "own/o.log", "error_file": "own/e.log" },
            { "name": "one", "script": "./app.sh", "instances": 2, "out_file": "one/o.log", "error_file": "one/e.log",
              "merge_logs": true },
        ]),
    )
    .ok();
    for (word, stream) in [("out", "o"), ("err", "e")] {
        for instance in 0..2 {
            let line = format!("{word} {instance}\n");
            wait_until(&line, || read(&home, &format!("own/{stream}-{instance}.log")) == line);
        }
        wait_until("both", || {
            let text = read(&home, &format!("one/{stream}.log"));
            text.lines().collect::<BTreeSet<_>>()
                == BTreeSet::from([&*format!("{word} 0"), &*format!("{word} 1")])
        });
    }
}

#[test]
fn what_follows_from_an_end() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexit $1\n");
    start(
        &home,
        &json!([
            { "name": "once", "script": "./app.sh", "args": "9", "autorestart": false },
            { "name": "done", "script": "./app.sh", "args": "7", "stop_exit_codes": [0, 7] },
            { "name": "again", "script": "./app.sh", "args": "8", "stop_exit_codes": [0, 7] },
        ]),
    );
    for (id, code) in [(0, 9), (1, 7)] {
        wait_until("it to stop", || home.status(id) == "stopped");
        let process = home.process(id);
        assert_eq!(
            (&process["pm2_env"]["exit_code"], &process["pm2_env"]["restart_time"]),
            (&json!(code), &json!(0))
        );
    }
    wait_until("a restart", || home.process(2)["pm2_env"]["restart_time"].as_u64() > Some(0));
}

#[test]
fn how_often_and_how_soon_it_is_started_again() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\ndate +%s%N >> $name\nsleep 0.15\nexit 1\n");
    let app = |name: &str, fields: Value| {
        let mut app = json!({ "name": name, "script": "./app.sh" });
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app
    };
    start(
        &home,
        &json!([
            app("unstable", json!({ "min_uptime": "10s", "max_restarts": 2 })),
            app("window", json!({ "min_uptime": 50, "max_restarts": 2, "restart_window": "2h" })),
            app("delay", json!({ "min_uptime": "10s", "max_restarts": 3, "restart_delay": 700 })),
            app(
                "growing",
                json!({ "min_uptime": "10s", "max_restarts": 3, "exp_backoff_restart_delay": 600 })
            ),
        ]),
    );
    let reasons = [
        "too many unstable restarts (2)",
        "too many restarts (2 within 7200000 ms)",
        "too many unstable restarts (3)",
        "too many unstable restarts (3)",
    ];
    for (id, reason) in (0..).zip(reasons) {
        wait_until("it to be given up", || home.status(id) == "errored");
        let found = home.process(id)["pm2_env"]["reason"].as_str().unwrap().to_string();
        assert!(found.starts_with(reason), "{id}: {found}");
    }
    for (name, least) in [("delay", [700, 700]), ("growing", [600, 900])] {
        let text = read(&home, name);
        let starts: Vec<u64> = text.lines().map(|line| line.parse::<u64>().unwrap() / 1_000_000).collect();
        // From start to start, of which it lived 150 ms.
        let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0] - 150).collect();
        assert!(
            gaps.len() == 2 && gaps.iter().zip(least).all(|(gap, least)| *gap + 5 >= least),
            "{name}: {gaps:?}"
        );
    }
}

#[test]
fn how_it_is_told_to_end() {
    let home = Home::new();
    home.file(
        "app.sh",
        "#!/bin/sh\ntrap '' INT\ntrap 'echo told; exit 0' QUIT\necho up\nwhile :; do sleep 0.05; done\n",
    );
    home.file(
        "app.js",
        "process.on('SIGINT', () => console.log('a signal'));
         process.on('message', (m) => { if (m === 'shutdown') { console.log('told'); process.exit(0); } });
         console.log('up');
         setInterval(() => {}, 1000);",
    );
    start(
        &home,
        &json!([
            { "name": "deaf", "script": "./app.sh", "kill_timeout": 2_500 },
            { "name": "signal", "script": "./app.sh", "stop_signal": "SIGQUIT", "kill_timeout": "20s" },
            { "name": "message", "script": "./app.js", "interpreter": node(20), "shutdown_with_message": true,
              "kill_timeout": "20s" },
        ]),
    )
    .ok();
    let log = |id: u32, name: &str| home.log(&format!("{name}-out-{id}.log"));
    for (id, name) in [(0, "deaf"), (1, "signal"), (2, "message")] {
        wait_until("its traps", || log(id, name) == "up\n");
    }
    let began = Instant::now();
    home.pmx(&["stop", "deaf"]).ok();
    // Without a word about it, it is 1.6 s.
    assert!(began.elapsed() >= Duration::from_millis(2_500), "{:?}", began.elapsed());
    home.pmx(&["stop", "signal", "message"]).ok();
    assert_eq!((log(1, "signal").as_str(), log(2, "message").as_str()), ("up\ntold\n", "up\ntold\n"));
}

#[test]
fn when_it_is_called_ready() {
    let home = Home::new();
    home.file("app.js", "setInterval(() => {}, 1000);");
    let app = json!({
        "name": "app", "script": "./app.js", "interpreter": node(20), "exec_mode": "fork", "wait_ready": true,
        "listen_timeout": 300,
    });
    let ran = start(&home, &app).failed();
    assert!(ran.err.contains("not ready within 300 ms"), "{ran:?}");
    assert_eq!(home.status(0), "launching");
}

#[test]
fn how_health_is_found_out() {
    let home = Home::new();
    let server = "import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(418 if self.path == '/tea' else 200)
        self.send_header('Content-Length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";
    home.file("server.py", server);
    home.file("app.sh", "#!/bin/sh\necho start >> order-$name\nexec sleep 1000\n");
    let (port, nobody) = (free_port(), free_port());
    let apps = json!([
        { "name": "ill", "script": "./app.sh", "health": {
            "exec": "echo check >> order-ill; exit 1", "interval": 100, "retries": 20, "start_period": 0 } },
        { "name": "often", "script": "./app.sh", "health": { "exec": "echo check >> order-often", "interval": 100 } },
        { "name": "slow", "script": "./app.sh", "health": {
            "exec": "exec sleep 1000", "timeout": 300, "retries": 1, "start_period": 0, "on_fail": "none" } },
        { "name": "tea", "script": "./server.py", "args": port.to_string(), "health": {
            "http": format!("http://127.0.0.1:{port}/tea"), "expect": 418, "interval": 100 } },
        { "name": "tcp", "script": "./app.sh", "health": {
            "tcp": nobody, "interval": 100, "start_period": 0, "on_fail": "none" } },
    ]);
    start(&home, &apps).ok();
    // So many checks in a row, from the first one on, and some while it ends. By default it were 3, after 10 s.
    let order = || read(&home, "order-ill");
    wait_until("another child", || order().matches("start\n").count() >= 2);
    let checks = order().split("start\n").nth(1).unwrap().matches("check\n").count();
    assert!((20..40).contains(&checks), "{checks}");
    assert!(detail(&home, 0)["last_restart"].as_str().unwrap().contains("not healthy: exit code 1"));
    // By default it is every ten seconds.
    wait_until("many checks", || read(&home, "order-often").lines().count() > 20);
    wait_until("a check that takes too long", || detail(&home, 2)["health"] == "unhealthy");
    assert_eq!(detail(&home, 2)["health_error"], "no answer within 300 ms");
    wait_until("tea", || detail(&home, 3)["health"] == "healthy");
    wait_until("no connection", || detail(&home, 4)["health"] == "unhealthy");
    assert_eq!(detail(&home, 4)["health_error"], "connection refused");
    for id in [2, 4] {
        assert_eq!(home.process(id)["pm2_env"]["restart_time"], 0, "nothing follows from it");
    }
}

#[test]
fn how_long_a_reload_takes() {
    use std::io::{Read, Write};
    let home = Home::new();
    home.file(
        "app.js",
        "require('http').createServer((request, response) => {
           if (request.url === '/') return response.end('x');
           response.write('begun');
           setTimeout(() => response.end('late'), 9000);
         }).listen(+process.env.PORT);",
    );
    let port = free_port();
    let app = json!({
        "name": "app", "script": "./app.js", "interpreter": node(20), "exec_mode": "cluster", "port": port,
        "listen_timeout": "20s", "bake_time": 1_500, "drain_timeout": 300,
    });
    start(&home, &app).ok();
    let old = home.pid(0);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    stream.write_all(b"GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    while !text.contains("begun") {
        let mut bytes = [0; 256];
        let count = stream.read(&mut bytes).unwrap();
        text += &String::from_utf8_lossy(&bytes[..count]);
    }
    let began = Instant::now();
    home.pmx(&["reload", "app"]).ok();
    // Without a word about them, it is 0.3 s for the new one, and 10 s for what the old one has begun.
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("late"));
    assert!(!is_alive(old));
}

#[test]
fn what_starts_it_anew() {
    let home = Home::new();
    home.file(
        "glutton.py",
        "import os, time\nfirst = not os.path.exists('started')\nopen('started', 'a').write('x')\n\
         hoard = bytearray(os.urandom(1 << 20) * (100 if first else 1))\ntime.sleep(1000)\n",
    );
    home.file("app.sh", SLEEPER);
    home.file("job.sh", "#!/bin/sh\necho run >> runs\nexec sleep 1000\n");
    start(
        &home,
        &json!([
            { "name": "glutton", "script": "./glutton.py", "max_memory_restart": "60M" },
            { "name": "job", "script": "./job.sh", "schedule": "* * * * * *", "overlap": "kill" },
            { "name": "east", "script": "./app.sh", "cron_restart": "0 12 * * *", "cron_timezone": "XXX-10" },
        ]),
    )
    .ok();
    wait_until("a restart for its memory", || detail(&home, 0)["by_cause"]["memory"] == 1);
    // By default it would go on with the first one.
    wait_until("three runs", || read(&home, "runs").lines().count() >= 3);
    let next = home.process(2)["pm2_env"]["next_run"].as_u64().unwrap();
    assert_eq!(next / 3_600_000 % 24, 2, "noon there");
}

#[cfg(feature = "watch")]
#[test]
fn which_changes_start_it_anew() {
    let home = Home::new();
    home.file("work/src/a.js", "1");
    home.file("work/app.sh", SLEEPER);
    let app = |name: &str, fields: Value| {
        let mut app = json!({ "name": name, "script": "./app.sh", "cwd": "work", "kill_timeout": 300 });
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app
    };
    let settled = json!({ "awaitWriteFinish": { "stabilityThreshold": 1_500 } });
    let apps = json!([
        app("patient", json!({ "watch": true, "watch_delay": 800 })),
        app("paths", json!({ "watch": ["src"] })),
        app("ignoring", json!({ "watch": true, "ignore_watch": ["*.tmp"] })),
        app("extension", json!({ "watch": true, "ext": "js" })),
        app("ignored", json!({ "watch": true, "watch_options": { "ignored": ["*.tmp"] } })),
        app("settled", json!({ "watch": true, "watch_options": settled })),
        app("none", json!({})),
    ]);
    start(&home, &apps).ok();
    let count = |id: u32| detail(&home, id)["by_cause"]["watch"].as_u64().unwrap_or(0);
    let daemon = home.daemon_pid().unwrap();
    // The directory around it, itself, and the one in it.
    wait_until("three directories to be watched", || {
        let entries = fs::read_dir(format!("/proc/{daemon}/fdinfo")).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.map(|text| text.matches("inotify wd:").count()).max() >= Some(3)
    });
    let wrote = Instant::now();
    home.file("work/x.tmp", "");
    wait_until("one that everything concerns", || count(0) == 1);
    assert!(wrote.elapsed() >= Duration::from_millis(800), "{:?}", wrote.elapsed());
    // The others would have been started anew before it, but for the one that waits longer.
    assert_eq!([1, 2, 3, 4, 6].map(count), [0; 5]);
    wait_until("the one that waits longest", || count(5) == 1);
    assert!(wrote.elapsed() >= Duration::from_millis(1_500), "{:?}", wrote.elapsed());
    home.file("work/src/a.js", "2");
    wait_until("all of them", || [0, 1, 2, 3, 4, 5].map(count) == [2, 1, 1, 1, 1, 2]);
    assert_eq!(detail(&home, 1)["last_restart"], "watch: src/a.js changed");
    assert_eq!(count(6), 0);
}
