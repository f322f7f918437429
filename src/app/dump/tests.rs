use serde_json::{Value, json};

use super::*;
use crate::app::units::Memory;
use crate::app::{Budget, Combined, Instances, Mode, Runtime};
use crate::time::Millis;

fn env(pairs: &[(&str, &str)]) -> Env {
    let mut env = Env::default();
    for (name, value) in pairs {
        env.set(*name, *value);
    }
    env
}

fn saved(name: &str, instance: u32) -> Saved {
    let mut app = App { name: name.to_string(), instances: Instances::Count(2), ..App::default() };
    app.cwd = Text::from("/srv");
    app.command.script = Text::from("/srv/app.js");
    app.command.interpreter = Some(Text::from("node"));
    app.command.args = vec![Text::from(b"\xff raw".to_vec()), Text::from("a b")];
    app.command.runtime = Runtime::Node;
    app.mode = Mode::Cluster;
    app.bake_time = Millis(77);
    app.restart.stop_exit_codes = vec![3];
    app.env = env(&[("TOKEN", "declared")]);
    app.inherit = SharedEnv(env(&[("PATH", "/bin"), ("LC_ALL", "C")]).into());
    Saved {
        app,
        instance,
        up: instance == 0,
        out_file: Text::from("/l/o"),
        error_file: Text::from("/l/e"),
        pid_file: Text::from("/l/p"),
        user: None,
        group: None,
    }
}

#[test]
fn what_is_written_is_read_again() {
    for list in [vec![], vec![saved("api", 0)], vec![saved("api", 0), saved("api", 1), saved("web", 7)]] {
        let bytes = write(&list);
        assert_eq!(read(&bytes), Ok(List { saved: list }));
        assert!(serde_json::from_slice::<Value>(&bytes).unwrap().is_array());
    }
}

#[test]
fn only_what_was_declared_is_written_and_a_few_names_more() {
    let mut one = saved("api", 0);
    let secrets = [("DB_PASSWORD", "hunter2"), ("PATH", "/bin"), ("LC_TIME", "C"), ("LCX", "hunter2")];
    one.app.inherit = SharedEnv(env(&secrets).into());
    let bytes = write(&[one]);
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(
        !text.contains("hunter2") && !text.contains("DB_PASSWORD") && text.contains("declared"),
        "{text}"
    );
    let inherit = read(&bytes).unwrap().saved[0].app.inherit.clone();
    assert_eq!(*inherit.0, env(&[("PATH", "/bin"), ("LC_TIME", "C")]));
}

#[test]
fn pm2_finds_its_fields() {
    let value: Value = serde_json::from_slice(&write(&[saved("api", 0), saved("api", 1)])).unwrap();
    for (pointer, expected) in [
        ("/0/name", json!("api")),
        ("/0/pm_exec_path", json!("/srv/app.js")),
        ("/0/exec_mode", json!("cluster_mode")),
        ("/0/env", json!({"LC_ALL": "C", "PATH": "/bin", "TOKEN": "declared"})),
        ("/0/status", json!("online")),
        ("/1/status", json!("stopped")),
        ("/1/NODE_APP_INSTANCE", json!(1)),
        ("/0/stop_exit_codes", json!([3])),
        ("/0/pm_out_log_path", json!("/l/o")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    // Each entry would become so many processes, or be taken for another one.
    for absent in ["instances", "pm_id", "restart_delay", "exp_backoff_restart_delay", "uid"] {
        assert_eq!(value[0].get(absent), None, "{absent}");
    }
}

#[test]
fn what_a_newer_or_an_older_pmx_wrote() {
    let whole = String::from_utf8(write(&[saved("api", 0)])).unwrap();
    let sealed = |text: &str| {
        let content = &text.as_bytes()[..text.len() - TAIL];
        [content, SUM, format!("{:016x}", crc64(content)).as_bytes(), END].concat()
    };
    assert_eq!(sealed(&whole), whole.as_bytes());
    let newer = whole.replace("\"format\":1", "\"format\":2").replace("\"bake_time\":77", "\"bake_time\":{}");
    assert_eq!(read(&sealed(&newer)), Err(Fault::Newer(2)));
    let older = whole.replace("\"bake_time\":77,", "").replace("\"min_uptime\":1000,", "\"later\":[],");
    assert_ne!(older, whole);
    let found = read(&sealed(&older)).unwrap().saved.remove(0);
    assert_eq!(found.app.bake_time, crate::app::BAKE_TIME);
    assert_eq!(found.app.restart.min_uptime, Millis(1000));
}

/// What must not happen: a damaged list that is taken for a whole one.
#[test]
fn s02_every_truncation_is_noticed_and_every_changed_bit() {
    let whole = write(&[saved("api", 0), saved("api", 1)]);
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "cut off after {end} of {} bytes", whole.len());
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn s02_ten_thousand_random_corruptions() {
    let mut state = 1_u64;
    let mut below = |limit: usize| {
        // xorshift64: the same corruptions every time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let whole = write(&[saved("api", 0), saved("web", 1)]);
    let other = write(&[saved("other", 0)]);
    for round in 0..10_000 {
        let mut bytes = whole.clone();
        for _ in 0..=below(3) {
            let (a, b) = (below(bytes.len() + 1), below(bytes.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            match below(8) {
                0 => bytes.truncate(from),
                1 => drop(bytes.drain(from..to)),
                2 => bytes[from..to].fill(0),
                3 => bytes[from..to].fill(b' '),
                4 => bytes[from..to].reverse(),
                5 => bytes[from..to].iter_mut().for_each(|byte| *byte = below(256) as u8),
                6 => bytes.splice(from..from, whole[..below(64)].iter().copied()).for_each(drop),
                _ => bytes.splice(from..to, other.iter().copied()).for_each(drop),
            }
        }
        match read(&bytes) {
            Err(Fault::Damaged(_)) => {}
            // A whole list put in the place of everything is no corruption.
            found => assert!(bytes == whole || bytes == other, "round {round}: {found:?}"),
        }
    }
}

/// As pm2 7.0.4 writes it, less what nobody reads.
fn of_pm2() -> Value {
    json!([
        {
            "name": "web", "namespace": "shop", "args": ["--a", "b c"], "pmx": true,
            "env": {
                "PATH": "/bin", "HOME": "/root", "PM2_HOME": "/root/.pm2", "PM2_USAGE": "CLI", "_": "/x/pm2",
                "SHLVL": "1", "web": "{}", "unique_id": "0c5a", "DB_URL": "declared or not", "PORT": 80,
                "nested": {}, "DEBUG": true
            },
            "restart_delay": 100, "max_restarts": 5, "stop_exit_codes": 3, "min_uptime": 5000,
            "autorestart": false, "watch": false, "instance_var": "NODE_APP_INSTANCE", "node_args": ["--x"],
            "pm_exec_path": "/srv/app.js", "pm_cwd": "/srv", "exec_interpreter": "node",
            "exec_mode": "cluster_mode", "pm_out_log_path": "/root/.pm2/logs/web-out-0.log",
            "pm_err_log_path": "/var/log/web.err", "NODE_APP_INSTANCE": 1, "status": "online",
            "DB_URL": "declared or not", "unique_id": "0c5a", "version": "N/A", "km_link": false
        },
        {
            "name": "line", "args": ["-c", "sleep 2000"], "pm_exec_path": "/usr/bin/bash", "pm_cwd": "/",
            "exec_interpreter": "none", "exec_mode": "fork_mode", "status": "stopped", "merge_logs": true,
            "max_memory_restart": 1000, "log_date_format": "x", "cron_restart": "* * * * *", "uid": "www-data",
            "pm_out_log_path": "/root/.pm2/logs/line-out.log", "NODE_APP_INSTANCE": 0
        },
        { "name": "line", "pm_exec_path": "/usr/bin/bash", "pm_cwd": "/", "status": "errored" }
    ])
}

#[test]
fn pm2s_own_file_is_read() {
    let list = read(serde_json::to_string_pretty(&of_pm2()).unwrap().as_bytes()).unwrap();
    let [web, line, last] = &list.saved[..] else { panic!("{list:?}") };
    let app = &web.app;
    assert_eq!((app.name.as_str(), app.namespace.as_str()), ("web", "shop"));
    assert_eq!((web.instance, web.up, app.mode), (1, true, Mode::Cluster));
    assert_eq!(app.command.runtime, Runtime::Node);
    assert_eq!(app.command.args, ["--a", "b c"].map(Text::from));
    assert_eq!(app.command.interpreter_args, [Text::from("--x")]);
    assert_eq!(app.env, env(&[("DB_URL", "declared or not"), ("DEBUG", "true"), ("PORT", "80")]));
    assert_eq!(*app.inherit.0, env(&[("PATH", "/bin"), ("HOME", "/root")]));
    assert_eq!((app.restart.max_restarts, app.restart.min_uptime), (Budget::Ends(5), Millis(5000)));
    assert_eq!((app.restart.restart_delay, app.restart.autorestart), (Millis(100), false));
    assert_eq!(app.restart.stop_exit_codes, [3]);
    assert_eq!((&app.out_file, &app.error_file), (&None, &Some(Text::from("/var/log/web.err"))));
    assert_eq!((line.up, line.instance, line.user.as_deref()), (false, 0, Some("www-data")));
    assert_eq!((&line.app.command.interpreter, line.app.command.runtime), (&None, Runtime::Launcher));
    assert_eq!((&line.app.out_file, line.app.mode), (&None, Mode::Auto));
    // Of two with one number the second gets the next; what was given up is tried again.
    assert_eq!((last.instance, last.up), (1, true));
    let triggers = &line.app.triggers;
    assert_eq!(
        (triggers.cron.as_deref(), triggers.max_memory),
        (Some("* * * * *"), Some(Memory::Bytes(1000)))
    );
    assert_eq!((line.app.logs.date.as_deref(), &line.app.logs.combined), (Some("x"), &Combined::None));
}

#[test]
fn what_pm2_knows_of_variables_comes_over_and_goes_back() {
    // pm2 gives one number to several forks; their ports are what they are all the same.
    let fork = |port: &str| {
        json!({
            "name": "web", "pm_exec_path": "/srv/a.js", "pm_cwd": "/srv", "instance_var": "WORKER", "WORKER": 0,
            "increment_var": "PORT", "filter_env": ["AWS_"], "env": {"PORT": port},
        })
    };
    let list = read(json!([fork("3000"), fork("3001"), fork("x")]).to_string().as_bytes()).unwrap();
    for (saved, port) in list.saved.iter().zip(["3000", "3000", "x"]) {
        assert_eq!(saved.app.env, env(&[("PORT", port)]));
        assert_eq!(saved.app.variables.instance(), "WORKER");
        assert!(!saved.app.variables.filter.passes("AWS_KEY"));
    }
    assert_eq!(list.saved[1].app.variables.increment.as_deref(), Some("PORT"));
    assert_eq!(list.saved[2].app.variables.increment, None);
    let written: Value = serde_json::from_slice(&write(&list.saved)).unwrap();
    for (at, port) in ["3000", "3001", "x"].iter().enumerate() {
        assert_eq!((&written[at]["env"]["PORT"], &written[at]["WORKER"]), (&json!(port), &json!(at)));
        assert_eq!(written[at]["instance_var"], "WORKER");
    }
    assert_eq!(read(&write(&list.saved)).unwrap().saved[1].app, list.saved[1].app);
}

#[test]
fn what_pm2_made_of_our_file_is_pm2s() {
    let mut value: Value = serde_json::from_slice(&write(&[saved("api", 0)])).unwrap();
    value[0]["max_restarts"] = json!(99);
    let bytes = serde_json::to_vec_pretty(&value).unwrap();
    assert_eq!(read(&bytes).unwrap().saved[0].app.restart.max_restarts, Budget::Ends(99));
}

#[test]
fn what_is_no_list_is_refused_with_a_reason() {
    for (text, reason) in [
        ("", "it is empty"),
        ("{}", "it is not a list of processes"),
        ("[1]", "entry 0 of it is not a process"),
        ("[{}]", "entry 0 of it has no name"),
        ("[{\"name\":\"a/b\"}]", "entry 0 of it is called \"a/b\": a name cannot hold a /"),
        ("[{\"name\":\"a\",\"pm_exec_path\":\"/x\"}]", "entry 0 of it (a) has no pm_cwd"),
    ] {
        assert_eq!(read(text.as_bytes()), Err(Fault::Damaged(reason.to_string())), "{text}");
    }
    assert!(read(b"\0\0\0").unwrap_err().to_string().starts_with("it is not JSON: "));
    assert_eq!(read(b"[]\n").unwrap().saved, []);
}
