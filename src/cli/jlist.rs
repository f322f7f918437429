//! `jlist`: all processes as JSON under pm2's field names, for the scripts and exporters that read
//! them. Of the environment only what was declared is shown.

use serde_json::Value;

use super::Session;
use super::act::details;
use super::home::Home;
use super::screen::Fail;
use crate::app::Text;
use crate::app::words::quote;
use crate::pm2;
use crate::protocol::Detail;

/// `pmx jlist`.
pub fn jlist(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let details = details(session, &["all".to_string()])?;
    let elements: Vec<Value> = details.iter().map(|detail| element(detail, &session.home)).collect();
    // pm2 prints no newline; its readers do not mind one.
    session.screen.json(&elements)
}

/// One element as pm2 would print it.
pub fn element(detail: &Detail, home: &Home) -> Value {
    let declared = detail.app.pid_path(detail.view.id);
    pm2::element(detail, &declared.unwrap_or_else(|| home.pid_file(&detail.view.name, detail.view.id)))
}

/// Arguments on one line, quoted where a shell would need it.
pub fn joined(texts: &[Text]) -> String {
    texts.iter().map(|text| quote(&text.lossy())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub mod tests {
    use super::super::testing::{FakeDaemon, TestHome, run_line, view};
    use serde_json::json;

    use super::*;
    use crate::app::App;
    use crate::protocol::{Answer, Cause, Exit, Message, Status, Verb, View};
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
            log_file: None,
            lines_lost: 0,
            log_bytes: 0,
            created: Wall(5_000),
            exits: vec![Exit {
                at: Wall(9_000),
                pid: 99,
                lived: Millis(3_000),
                code: Some(1),
                signal: None,
                text,
                why: None,
                used: None,
            }],
            last_lines: vec!["Error: \x1b[31mboom".to_string()],
            beside: None,
            by_cause: [(Cause::Crash, 2), (Cause::Memory, 1)].into(),
            skipped: 0,
            last_restart: Some("memory 512 MiB over the limit of 300 MiB".to_string()),
            listens: vec!["0.0.0.0:3000".to_string()],
            queues: Vec::new(),
            fds: Some(21),
            health_error: None,
            said: None,
            watchdog: None,
            main_pid: None,
            node_version: Some("20.1.0".to_string()),
            axm: Default::default(),
            lost: 0,
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
