//! Answers: what the daemon said, as HTTP. What of a process is shown is listed here, one by one: what is not
//! listed, above all its environment and its arguments, is shown nowhere.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::control::Failed;
use super::host::{Disk, Host};
use super::http::{Head, name};
use super::routes::Name;
use super::{metrics, openapi, past};
use crate::pm2;
use crate::protocol::{Answer, Detail, EventKind, Outcome};
use crate::sys::clock;

const JSON: &str = "application/json";
const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/dashboard.css");
const SCRIPT: &str = include_str!("page/dashboard.js");

/// Sent with everything. Nobody may keep it, frame it, or read it from elsewhere.
const ALWAYS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
     Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
     Cross-Origin-Opener-Policy: same-origin\r\n";
/// The page gets everything from us and sends everything to us.
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'\r\nPermissions-Policy: camera=(), microphone=(), geolocation=()\r\n";
/// Anything else shows nothing and runs nothing.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    kind: &'static str,
    /// Header lines beside the usual ones.
    pub lines: String,
    body: Vec<u8>,
}

impl Reply {
    /// A value.
    pub fn json(status: u16, value: &impl Serialize) -> Reply {
        let body = serde_json::to_vec(value).unwrap_or_default();
        Reply { status, kind: JSON, lines: String::new(), body }
    }

    /// One sentence on what went wrong.
    pub fn error(status: u16, sentence: &str) -> Reply {
        let mut reply = Reply::json(status, &json!({ "error": sentence }));
        if status == 401 {
            reply.lines.push_str("WWW-Authenticate: Bearer realm=\"pmx\"\r\n");
        }
        reply
    }

    fn text(kind: &'static str, text: impl Into<Vec<u8>>) -> Reply {
        Reply { status: 200, kind, lines: String::new(), body: text.into() }
    }

    /// As it is sent.
    pub fn bytes(&self, head_only: bool, keep_alive: bool) -> Vec<u8> {
        let policy = if self.kind.starts_with("text/html") { PAGE_POLICY } else { POLICY };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{ALWAYS}{policy}{}Connection: {}\r\n\r\n",
            self.status,
            name(self.status),
            self.kind,
            self.body.len(),
            self.lines,
            if keep_alive { "keep-alive" } else { "close" },
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// The head of an answer that has no end.
pub fn stream_head() -> Vec<u8> {
    let line = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    format!("{line}{ALWAYS}{POLICY}Connection: close\r\n\r\n").into_bytes()
}

/// One event of such an answer.
pub fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    // JSON has no newlines of its own.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// What can be answered without the daemon.
pub fn alone(name: Name, head: &Head, home: &Path) -> Option<Reply> {
    match name {
        Name::Front if head.accepts("text/html") => {
            let mut reply = Reply::text("text/html; charset=utf-8", PAGE);
            reply.lines.push_str("Vary: Accept\r\n");
            Some(reply)
        }
        Name::Page => Some(Reply::text("text/html; charset=utf-8", PAGE)),
        Name::Style => Some(Reply::text("text/css; charset=utf-8", STYLE)),
        Name::Script => Some(Reply::text("text/javascript; charset=utf-8", SCRIPT)),
        Name::Alive => Some(Reply::json(200, &json!({ "alive": true }))),
        Name::Description => Some(Reply::json(200, &openapi::document())),
        Name::Host => Some(Reply::json(200, &Host::look().json())),
        Name::HostPast => Some(match past::span(head) {
            Ok(span) => Reply::json(200, &past::of_host(home, span, clock::wall())),
            Err(sentence) => Reply::error(422, &sentence),
        }),
        Name::Front
        | Name::Ready
        | Name::Metrics
        | Name::Daemon
        | Name::Kill
        | Name::Update
        | Name::Health => None,
        Name::List | Name::Start | Name::Describe | Name::Delete | Name::Begin | Name::Stop => None,
        Name::Restart | Name::Reload | Name::Scale | Name::Reset | Name::Flush | Name::Signal => None,
        Name::Send | Name::Message | Name::Logs | Name::Past | Name::History | Name::Publish => None,
        Name::Listen | Name::Events | Name::FollowLogs => None,
    }
}

/// What the daemon said, for who asked.
pub fn of(route: Name, head: &Head, home: &Path, said: Result<Answer, Failed>) -> Reply {
    let answer = match said {
        Ok(answer) => answer,
        Err(Failed::Refused(sentence)) => return Reply::error(refusal(route, &sentence), &sentence),
        Err(Failed::Lost(sentence)) => return Reply::error(503, &sentence),
    };
    match answer {
        Answer::Pong { .. } if route == Name::Ready => Reply::json(200, &json!({ "ready": true })),
        Answer::Pong { version, pid } => Reply::json(200, &json!({ "version": version, "pid": pid })),
        Answer::List(views) => Reply::json(200, &views),
        Answer::Details(details) => match route {
            Name::Front => {
                let (info, monit) = Host::look().pm2();
                let processes: Vec<Value> = details.iter().map(|detail| as_pm2(detail, home)).collect();
                let all = json!({ "system_info": info, "monit": monit, "processes": processes });
                let mut reply = Reply::json(200, &all);
                reply.lines.push_str("Vary: Accept\r\n");
                reply
            }
            Name::Metrics => {
                let text = metrics::text(&details, &Host::look(), Disk::of(home));
                let mut reply = match head.accept.contains("application/openmetrics-text") {
                    true => Reply::text("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
                    false => Reply::text("text/plain; version=0.0.4; charset=utf-8", metrics::plain(&text)),
                };
                reply.lines.push_str("Vary: Accept\r\n");
                reply
            }
            Name::Past => match past::span(head) {
                Ok(span) => Reply::json(200, &past::of(home, &details, span, clock::wall())),
                Err(sentence) => Reply::error(422, &sentence),
            },
            _ => of_details(&details, &[]),
        },
        // What an app told in confidence is not for everybody who looks.
        Answer::History(mut events) => {
            events.retain(|event| event.kind != EventKind::Message);
            Reply::json(200, &events)
        }
        Answer::Outcomes(outcomes) => of_outcomes(&outcomes),
        Answer::Healthy => Reply::json(200, &json!({ "healthy": true })),
        // It is not asked for: it holds environments.
        Answer::Dump(_) => Reply::error(503, "the daemon answered something else"),
        Answer::Updated { from, to, pid, kept } => {
            Reply::json(200, &json!({ "from": from, "to": to, "pid": pid, "kept": kept }))
        }
        Answer::Killed { stopped } => Reply::json(200, &json!({ "stopped": stopped })),
    }
}

/// All that is shown of processes, and their proportional memory where that was asked for.
pub fn of_details(details: &[Detail], shares: &[Option<u64>]) -> Reply {
    let mut values: Vec<Value> = details.iter().map(detail).collect();
    for (value, share) in values.iter_mut().zip(shares) {
        value["pss"] = json!(share);
    }
    Reply::json(200, &values)
}

fn of_outcomes(outcomes: &[Outcome]) -> Reply {
    let failed = outcomes.iter().find_map(|outcome| Some((outcome, outcome.failure.as_ref()?)));
    match failed {
        None => Reply::json(200, &json!({ "outcomes": outcomes })),
        Some((outcome, failure)) => {
            let error = format!("{}({}): {}", outcome.name, outcome.id, failure.reason);
            Reply::json(409, &json!({ "error": error, "outcomes": outcomes }))
        }
    }
}

/// The status of a refusal.
fn refusal(route: Name, sentence: &str) -> u16 {
    match route {
        _ if sentence.starts_with("process or namespace ") || sentence.starts_with("no process ") => 404,
        Name::Health | Name::Ready => 503,
        Name::Scale if sentence.contains("not found") || sentence.contains("no such") => 404,
        _ => 409,
    }
}

/// A process as pm2 shows it, without what is nobody's business.
fn as_pm2(detail: &Detail, home: &Path) -> Value {
    let declared = detail.app.pid_path(detail.view.id);
    let mut element = pm2::element(
        detail,
        &declared.unwrap_or_else(|| pm2::pid_file(home, &detail.view.name, detail.view.id)),
    );
    for (name, nothing) in [("env", json!({})), ("args", json!([])), ("node_args", json!([]))] {
        element["pm2_env"][name] = nothing;
    }
    element
}

/// All that is shown of a process.
fn detail(detail: &Detail) -> Value {
    let app = &detail.app;
    let mut value = serde_json::to_value(&detail.view).unwrap_or_default();
    for (name, fact) in [
        ("script", json!(app.command.script.lossy())),
        ("interpreter", json!(app.command.interpreter.as_ref().map(|text| text.lossy()))),
        ("cwd", json!(app.cwd.lossy())),
        ("balance", json!(app.balance)),
        ("out_file", json!(detail.out_file)),
        ("error_file", json!(detail.error_file)),
        ("created", json!(detail.created)),
        ("by_cause", json!(detail.by_cause)),
        ("skipped", json!(detail.skipped)),
        ("last_restart", json!(detail.last_restart)),
        ("exits", json!(detail.exits)),
        ("last_lines", json!(detail.last_lines)),
        ("beside", json!(detail.beside)),
        ("listens", json!(detail.listens)),
        ("queues", json!(detail.queues)),
        ("fds", json!(detail.fds)),
        ("log_bytes", json!(detail.log_bytes)),
        ("lines_lost", json!(detail.lines_lost)),
        ("health_error", json!(detail.health_error)),
        ("node_version", json!(detail.node_version)),
        ("lost", json!(detail.lost)),
    ] {
        value[name] = fact;
    }
    value
}
