//! `bus`, `publish`, `trigger`: messages of apps, between apps, and to apps.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Session;
use super::act;
use super::connect::Connection;
use super::screen::{Fail, escaped};
use crate::protocol::{Answer, Detail, Event, EventKind, Message, Verb};

/// How long apps may take to answer an action.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// `pmx bus`: one message a line, as JSON, until nobody reads them.
pub fn bus(session: &mut Session<'_, '_>, patterns: &[String]) -> Result<(), Fail> {
    let patterns = if patterns.is_empty() { vec!["#".to_string()] } else { patterns.to_vec() };
    let (connection, screen) = session.connected()?;
    connection.request(Verb::Listen { patterns }, &mut |_| {}).map_err(String::from)?;
    loop {
        let stdout = std::io::stdout();
        match connection.next_message(None, Some(stdout.as_fd()))? {
            Some(Message::Bus(message)) => {
                screen.json(&message)?;
                screen.flush()?;
            }
            Some(_) => {}
            None => return Err(Fail::Closed),
        }
    }
}

/// `pmx publish`.
pub fn publish(session: &mut Session<'_, '_>, topic: &str, data: &str) -> Result<(), Fail> {
    let data: Value = serde_json::from_str(data)
        .map_err(|error| format!("publish {topic}: {data:?} is not JSON: {error}"))?;
    let (connection, _) = session.connected()?;
    let verb = Verb::Publish { topic: topic.to_string(), data };
    match connection.request(verb, &mut |_| {}).map_err(String::from)? {
        Answer::Pong { .. } => Ok(()),
        other => Err(Fail::Sentence(act::unexpected(&other))),
    }
}

/// `pmx trigger`: has apps do something that they have told they can, and prints what they answer.
pub fn trigger(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let [target, action, params @ ..] = operands else {
        return Err(Fail::Sentence("trigger needs <target> <action>".to_string()));
    };
    let targets = act::targets(session, "trigger", std::slice::from_ref(target))?;
    let details = act::details(session, &targets)?;
    let able = |detail: &&Detail| detail.axm.names().any(|name| name == action);
    let mut waiting: Vec<&Detail> = details.iter().filter(able).collect();
    if waiting.is_empty() {
        let mut known: Vec<&str> = details.iter().flat_map(|detail| detail.axm.names()).collect();
        known.sort_unstable();
        known.dedup();
        let known = if known.is_empty() { "it has none".to_string() } else { known.join(", ") };
        return Err(Fail::Sentence(format!("trigger {target} {action}: no such action ({known})")));
    }
    // Before anybody can answer. What comes on a connection while a request waits is not kept.
    let Some(mut events) = Connection::existing(&session.home)? else {
        return Err(Fail::Sentence(format!("trigger {target} {action}: the daemon is gone")));
    };
    events.request(Verb::Subscribe, &mut |_| {}).map_err(String::from)?;
    let message = match params {
        [] => json!(action),
        [one] => json!({"msg": action, "opts": one}),
        all => json!({"msg": action, "opts": all}),
    };
    let targets = waiting.iter().map(|detail| detail.view.id.to_string()).collect();
    let (connection, screen) = session.connected()?;
    let verb = Verb::Tell { targets, message };
    let answer = connection.request(verb, &mut |_| {}).map_err(String::from)?;
    let Answer::Outcomes(outcomes) = answer else {
        return Err(Fail::Sentence(act::unexpected(&answer)));
    };
    let mut has_failed = false;
    let mut fail = |screen: &mut super::screen::Screen<'_>, detail: &Detail, reason: &str| {
        let name = escaped(&detail.view.name);
        screen.complain(&format!("trigger {name}({}) {action}: {}", detail.view.id, escaped(reason)));
        has_failed = true;
    };
    waiting.retain(|detail| {
        let outcome = outcomes.iter().find(|outcome| outcome.id == detail.view.id);
        let failure = outcome.and_then(|outcome| outcome.failure.as_ref());
        if let Some(failure) = failure {
            fail(screen, detail, &failure.reason);
        }
        failure.is_none()
    });
    let deadline = Instant::now() + REPLY_DEADLINE;
    while !waiting.is_empty() {
        let Some(message) = events.next_message(Some(deadline), None)? else {
            for detail in waiting {
                fail(screen, detail, "no answer within 10 s");
            }
            break;
        };
        let Message::Event(event) = message else { continue };
        let Some(at) = waiting.iter().position(|detail| detail.view.id == event.id) else { continue };
        match event.kind {
            EventKind::Message => {
                if let Some(reply) = reply(&event, action) {
                    let view = &waiting.remove(at).view;
                    let who = format!("[{}:{}:{}]", view.name, view.id, view.namespace);
                    screen.data(format!("{}={reply}\n", escaped(&who)).as_bytes())?;
                    screen.flush()?;
                }
            }
            EventKind::Exited => fail(screen, waiting.remove(at), "it ended before it answered"),
            _ => {}
        }
    }
    if has_failed { Err(Fail::Said) } else { Ok(()) }
}

/// What an app answered to an action.
fn reply(event: &Event, action: &str) -> Option<Value> {
    let mut message: Value = serde_json::from_str(&event.detail).ok()?;
    let is_reply = message.get("type")? == "axm:reply" && message.pointer("/data/action_name")? == action;
    is_reply.then(|| message.pointer_mut("/data/return").map(Value::take).unwrap_or_default())
}
