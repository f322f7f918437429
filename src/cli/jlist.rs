//! `jlist`: all processes as JSON under pm2's field names, for the scripts and exporters that read
//! them. Of the environment only what was declared is shown.

use serde_json::{Map, Value, json};

use super::Session;
use super::act::details;
use super::screen::Fail;
use crate::app::words::quote;
use crate::app::{Instances, Text};
use crate::protocol::Detail;

/// `pmx jlist`.
pub fn jlist(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let details = details(session, &["all".to_string()])?;
    let elements: Vec<Value> = details.iter().map(element).collect();
    // pm2 prints no newline; its readers do not mind one.
    session.screen.json(&elements)
}

/// One element as pm2 would print it.
fn element(detail: &Detail) -> Value {
    let view = &detail.view;
    let cpu = view.cpu.map_or(0.0, |cpu| (f64::from(cpu) * 10.0).round() / 10.0);
    json!({
        "pid": view.pid,
        "name": view.name,
        "pm_id": view.id,
        "monit": { "memory": view.memory.unwrap_or(0), "cpu": cpu },
        "pm2_env": pm2_env(detail),
    })
}

/// pm2's bag of everything. Its readers expect the `axm_*` keys to exist.
fn pm2_env(detail: &Detail) -> Value {
    let Detail { view, app, .. } = detail;
    let strings = |texts: &[Text]| texts.iter().map(|text| text.lossy().into_owned()).collect::<Vec<_>>();
    let env: Map<String, Value> =
        app.env.0.iter().map(|(name, value)| (name.lossy().into_owned(), json!(value.lossy()))).collect();
    let instances = match app.instances {
        Instances::Count(count) => i64::from(count),
        Instances::CpusLess(less) => -i64::from(less),
    };
    let fields = [
        ("name", json!(view.name)),
        ("namespace", json!(view.namespace)),
        ("pm_id", json!(view.id)),
        ("status", json!(view.status.word())),
        ("pm_uptime", json!(view.since.map(|since| since.0))),
        ("created_at", json!(detail.created.0)),
        ("restart_time", json!(view.restarts)),
        ("unstable_restarts", json!(view.unstable)),
        ("exec_mode", json!(if view.cluster { "cluster_mode" } else { "fork_mode" })),
        ("exec_interpreter", json!(app.command.interpreter.as_ref().map_or("none".into(), Text::lossy))),
        ("pm_exec_path", json!(app.command.script.lossy())),
        ("pm_cwd", json!(app.cwd.lossy())),
        ("args", json!(strings(&app.command.args))),
        ("node_args", json!(strings(&app.command.interpreter_args))),
        ("instances", json!(instances)),
        ("NODE_APP_INSTANCE", json!(view.instance)),
        ("instance_var", json!("NODE_APP_INSTANCE")),
        ("pm_out_log_path", json!(detail.out_file)),
        ("pm_err_log_path", json!(detail.error_file)),
        ("merge_logs", json!(app.merge_logs)),
        ("autorestart", json!(app.restart.autorestart)),
        ("max_restarts", json!(app.restart.max_restarts)),
        ("min_uptime", json!(app.restart.min_uptime.0)),
        ("restart_delay", json!(app.restart.restart_delay.0)),
        ("exp_backoff_restart_delay", json!(app.restart.exp_backoff.0)),
        ("stop_exit_codes", json!(app.restart.stop_exit_codes)),
        ("kill_timeout", json!(app.kill_timeout.0)),
        ("listen_timeout", json!(app.listen_timeout.0)),
        ("wait_ready", json!(app.wait_ready)),
        ("watch", json!(false)),
        ("exit_code", json!(detail.exits.last().and_then(|exit| exit.code))),
        ("username", json!(view.user)),
        ("uid", json!(app.user.as_ref().map(|user| user.uid))),
        ("gid", json!(app.user.as_ref().map(|user| user.gid))),
        ("node_version", json!(detail.node_version)),
        ("env", Value::Object(env)),
        ("axm_actions", json!([])),
        ("axm_monitor", json!({})),
        ("axm_options", json!({})),
        ("axm_dynamic", json!({})),
    ];
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

/// Arguments on one line, quoted where a shell would need it.
pub fn joined(texts: &[Text]) -> String {
    texts.iter().map(|text| quote(&text.lossy())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub mod tests {
    use super::super::testing::{FakeDaemon, TestHome, run_line, view};
    use super::*;
    use crate::app::App;
    use crate::protocol::{Answer, Exit, Message, Status, Verb, View};
    use crate::time::{Millis, Wall};

    /// A process with something in every field.
    pub fn detail() -> Detail {
        let mut app = App { name: "api".to_string(), ..App::default() };
        app.command.script = Text::from("/srv/app.js");
        app.command.interpreter = Some(Text::from("node"));
        app.command.args = vec![Text::from("--port"), Text::from("a b")];
        app.env.set("TOKEN", "declared");
        app.inherit.0 = std::sync::Arc::new([("SECRET".into(), "of the shell".into())].into_iter().collect());
        let text = "exit code 1".to_string();
        Detail {
            view: View { cluster: true, ..view(3, "api", Status::Online) },
            app,
            out_file: "/logs/api-out.log".to_string(),
            error_file: "/logs/api-error.log".to_string(),
            created: Wall(5_000),
            exits: vec![Exit {
                at: Wall(9_000),
                pid: 99,
                lived: Millis(3_000),
                code: Some(1),
                signal: None,
                text,
            }],
            last_lines: vec!["Error: \x1b[31mboom".to_string()],
            beside: None,
            listens: vec!["0.0.0.0:3000".to_string()],
            node_version: Some("20.1.0".to_string()),
        }
    }

    #[test]
    fn pm2s_readers_find_their_fields_and_no_secrets() {
        let home = TestHome::new("jlist");
        let _daemon = FakeDaemon::start(&home.home, |request, _| {
            let answer = match request.verb {
                Verb::List => Answer::List(vec![detail().view]),
                _ => Answer::Details(vec![detail()]),
            };
            Message::Done { id: request.id, answer }
        });
        let (code, out, _) = run_line(&home.caller, &["jlist", "-s"]);
        assert_eq!(code, 0);
        assert!(!out.contains("of the shell"));
        let list: Value = serde_json::from_str(&out).unwrap();
        let one = &list[0];
        for (pointer, expected) in [
            ("/pid", json!(4003)),
            ("/pm_id", json!(3)),
            ("/monit", json!({"memory": 53_267_661, "cpu": 0.5})),
            ("/pm2_env/status", json!("online")),
            ("/pm2_env/exec_mode", json!("cluster_mode")),
            ("/pm2_env/pm_uptime", json!(1000)),
            ("/pm2_env/exit_code", json!(1)),
            ("/pm2_env/args", json!(["--port", "a b"])),
            ("/pm2_env/env", json!({"TOKEN": "declared"})),
            ("/pm2_env/axm_options", json!({})),
            ("/pm2_env/axm_actions", json!([])),
            ("/pm2_env/pm_out_log_path", json!("/logs/api-out.log")),
            ("/pm2_env/exec_interpreter", json!("node")),
        ] {
            assert_eq!(one.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn an_empty_list_is_an_empty_array() {
        let home = TestHome::new("jlist-empty");
        let _daemon = FakeDaemon::start(&home.home, |request, _| match request.verb {
            Verb::List => Message::Done { id: request.id, answer: Answer::List(Vec::new()) },
            _ => Message::Error { id: request.id, error: "no process found".to_string() },
        });
        assert_eq!(run_line(&home.caller, &["jlist"]), (0, "[]\n".to_string(), String::new()));
    }
}
