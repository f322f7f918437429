//! Messages between apps, and from apps to clients. The daemon only passes them on: each receiver has a queue with
//! a limit, and what does not fit is lost for that receiver alone, whole, and counted.

use serde_json::Value;

use super::event_loop::Daemon;
use crate::app::Text;
use crate::node::{self, Said};
use crate::protocol::{
    BusMessage, Event, Failure, From, Outcome, RESERVED, matches, pattern_fault, topic_fault,
};
use crate::supervisor::{ChildId, Process};
use crate::sys::{clock, pipe};

/// How many patterns one child or client may subscribe to.
pub const PATTERNS: usize = 64;

impl Daemon {
    /// Takes what an app said. False: it is of no concern to whoever listens to the app.
    pub(super) fn app_said(&mut self, child: ChildId, value: &Value) -> bool {
        let said = node::said(value);
        if let Said::Publish { topic, data } = said {
            let from = self.sender(child);
            match (topic_fault(&topic), from) {
                (None, Some(from)) => self.pass_on_message(topic, data, Some((child, from))),
                (Some(fault), _) => {
                    log::debug!("{child:?}: publish {topic:?}: {fault}");
                    return false;
                }
                (None, None) => {}
            }
            return true;
        }
        let Some(living) = self.children.get_mut(child) else { return false };
        let is_on_record = match said {
            Said::Action(action) => !living.axm.action(action),
            // They come again each second: the next daemon need not know.
            Said::Monitor(metrics) => {
                living.axm.measured(metrics);
                true
            }
            Said::Options(options) => {
                living.axm.configured(options);
                false
            }
            Said::Subscribe(patterns) => {
                for pattern in patterns {
                    let is_new = !living.topics.contains(&pattern);
                    if is_new && living.topics.len() < PATTERNS && pattern_fault(&pattern).is_none() {
                        living.topics.push(pattern);
                    }
                }
                false
            }
            Said::Unsubscribe(patterns) => {
                living.topics.retain(|topic| !patterns.contains(topic));
                false
            }
            Said::Publish { .. } | Said::Other => return true,
        };
        if !is_on_record {
            self.children.changed.insert(child);
        }
        false
    }

    fn sender(&self, child: ChildId) -> Option<From> {
        let process = self.supervisor.owner(child)?;
        let name = self.supervisor.process(process)?.app.name.clone();
        Some(From { id: process.0, name })
    }

    /// Passes a message on to every child and client that wants it, but not back to its sender.
    pub(super) fn pass_on_message(&mut self, topic: String, data: Value, from: Option<(ChildId, From)>) {
        let (sender, from) = from.map_or((None, None), |(child, from)| (Some(child), Some(from)));
        let message = BusMessage { at: clock::wall(), topic, data, from, lost: 0 };
        let wanted = |topics: &[String]| topics.iter().any(|pattern| matches(pattern, &message.topic));
        let wants = |id: &ChildId| {
            Some(*id) != sender && self.children.get(*id).is_some_and(|child| wanted(&child.topics))
        };
        let receivers: Vec<ChildId> = self.children.ids().filter(wants).collect();
        if !receivers.is_empty() {
            let line = node::to_app(&serde_json::json!({
                "type": "process:msg",
                "topic": message.topic,
                "data": message.data,
                "from": message.from,
            }));
            for child in receivers {
                self.children.offer(self.poll.registry(), child, line.clone());
            }
        }
        self.control.deliver(message);
    }

    /// What happens to a process, for those who listen to topics.
    pub(super) fn deliver_event(&mut self, event: &Event) {
        if !self.control.is_listened_to() {
            return;
        }
        let kind = serde_json::to_value(event.kind).unwrap_or_default();
        let topic = format!("{RESERVED}process.{}", kind.as_str().unwrap_or_default());
        let data = serde_json::json!({"id": event.id, "name": event.name, "detail": event.detail});
        self.control.deliver(BusMessage { at: event.at, topic, data, from: None, lost: 0 });
    }

    /// Writes a line to the stdin of the present child of each target: all of it or nothing.
    pub(super) fn feed(&mut self, targets: &[String], line: &Text) -> Result<Vec<Outcome>, String> {
        let ids = self.supervisor.select(targets)?;
        let bytes = [line.bytes(), b"\n"].concat();
        if bytes.len() > pipe::ATOMIC {
            return Err(format!("send: a line of more than {} bytes", pipe::ATOMIC - 1));
        }
        let mut outcomes = Vec::new();
        for process in ids.into_iter().filter_map(|id| self.supervisor.process(id)) {
            let child = process.child().and_then(|child| self.children.get(child));
            let fed = match child.map(|child| (child, child.stdin)) {
                None => Err("it is not running".to_string()),
                Some((_, None)) => {
                    Err("its stdin is no pipe (pmx restart --stdin pipe, or stdin: \"pipe\")".to_string())
                }
                Some((child, Some(inode))) => {
                    pipe::feed(child.pid, inode, &bytes).map_err(|error| match error.kind() {
                        std::io::ErrorKind::WouldBlock => "it does not read its stdin".to_string(),
                        _ => crate::sys::reason(&error),
                    })
                }
            };
            let failure = fed.err().map(|reason| Failure { reason, last_lines: Vec::new() });
            outcomes.push(Outcome { failure, ..Outcome::done(process.id.0, &process.app.name) });
        }
        Ok(outcomes)
    }

    /// Gives a message to the present child of each target.
    pub(super) fn give(&mut self, targets: &[String], message: &Value) -> Result<Vec<Outcome>, String> {
        let ids = self.supervisor.select(targets)?;
        let line = node::to_app(message);
        let mut outcomes = Vec::new();
        for id in ids {
            let Some(process) = self.supervisor.process(id) else { continue };
            let (name, child) = (process.app.name.clone(), Process::child(process));
            let reason = match child {
                None => Some("it is not running"),
                Some(child) if self.children.channel(child).is_none() => {
                    Some("it has no channel: only Node and Bun apps take messages")
                }
                Some(child) if !self.children.offer(self.poll.registry(), child, line.clone()) => {
                    Some("it does not read its messages")
                }
                Some(_) => None,
            };
            let failure = reason.map(|reason| Failure { reason: reason.to_string(), last_lines: Vec::new() });
            outcomes.push(Outcome { id: id.0, name, failure, instead: None, note: None });
        }
        Ok(outcomes)
    }
}
