//! What is asked of the daemon for pm2's clients, and what becomes of its answers.

use std::io::{ErrorKind, Read, Write};

use serde_json::Value;

use super::{Front, failed};
use crate::pm2;
use crate::protocol::{Answer, Event, FRAME_LIMIT, Message, Request, VERSION, Verb};
use crate::sys::pidfd;

/// Who waits for what of the daemon.
#[derive(Debug)]
pub(super) struct Pending {
    verb: Verb,
    pub(super) then: Then,
}

/// A call: who made it, and what they call it.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) peer: usize,
    pub(super) call: String,
}

#[derive(Debug)]
pub(super) enum Then {
    /// Answer with all processes.
    List(Whose),
    /// Ask for what came of the processes, and answer with the first of them, or all.
    Look(Whose, Many),
    /// Answer with what is told of them.
    Tell(Whose, Many),
    /// Answer with this.
    Value(Whose, Value),
    /// Find out which app this is, and start one more of it.
    Duplicate(Whose),
    /// Everything ended; this client is told by a signal.
    Killed(Whose, Option<i32>),
    /// Publish the event with the process as it is now.
    Publish(Box<Event>),
    /// Follow the log files of these.
    Follow,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    All,
}

impl Front<'_> {
    pub(super) fn ask(&mut self, verb: Verb, then: Then) {
        self.last_id += 1;
        let id = self.last_id;
        let sentence = match self.send(id, &verb, false) {
            Ok(()) => {
                self.pending.insert(id, Pending { verb, then });
                return;
            }
            Err(sentence) => sentence,
        };
        if let Then::Look(to, _) | Then::Value(to, _) = then {
            self.refuse(&to, &sentence);
        }
    }

    pub(super) fn send(&mut self, id: u64, verb: &Verb, again: bool) -> Result<(), String> {
        let request = Request { v: VERSION, id, again, verb: verb.clone() };
        let line = serde_json::to_vec(&request).map_err(|error| format!("write a request: {error}"))?;
        if line.len() > FRAME_LIMIT {
            return Err(format!("the request is {} bytes long; the daemon takes {FRAME_LIMIT}", line.len()));
        }
        self.requests.extend_from_slice(&line);
        self.requests.push(b'\n');
        Ok(())
    }

    pub(super) fn flush_requests(&mut self) -> Result<(), String> {
        while !self.requests.is_empty() {
            match self.daemon.write(&self.requests) {
                Ok(count) => drop(self.requests.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Its end is read.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes in what the daemon says; false: it is gone.
    pub(super) fn hear_daemon(&mut self) -> Result<bool, String> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let open = match self.daemon.read(&mut chunk) {
                Ok(0) => false,
                Ok(count) => {
                    self.answers.push(&chunk[..count]);
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => false,
            };
            while let Some(line) = self.answers.next_line().map_err(|error| error.to_string())? {
                // What a daemon left in the middle when it died is followed by one that says so.
                if let Ok(message) = serde_json::from_slice(line) {
                    self.message(message);
                }
            }
            if !open {
                return Ok(false);
            }
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.event(event),
            Message::Progress { .. } | Message::Bus(_) => {}
            Message::Resumed { pending } => {
                let lost: Vec<u64> =
                    self.pending.keys().copied().filter(|id| !pending.contains(id)).collect();
                for id in lost {
                    if let Some(verb) = self.pending.get(&id).map(|pending| pending.verb.clone()) {
                        let _ = self.send(id, &verb, true);
                    }
                }
            }
            Message::Done { id, answer } => {
                if let Some(Pending { then, .. }) = self.pending.remove(&id) {
                    self.done(then, answer);
                }
            }
            Message::Error { id, error } => match self.pending.remove(&id).map(|pending| pending.then) {
                Some(
                    Then::List(to)
                    | Then::Look(to, _)
                    | Then::Tell(to, _)
                    | Then::Value(to, _)
                    | Then::Duplicate(to)
                    | Then::Killed(to, _),
                ) => self.refuse(&to, &error),
                Some(Then::Publish(event)) => {
                    let last = self.seen.get(&event.id).cloned();
                    self.tell(&event, last.as_ref());
                }
                Some(Then::Follow | Then::Nothing) | None => {}
            },
        }
    }

    fn done(&mut self, then: Then, answer: Answer) {
        match (then, answer) {
            (Then::List(to), Answer::Details(details)) => {
                let list = self.elements(&details);
                self.reply(&to, true, Value::Array(list));
            }
            (Then::Look(to, many), Answer::Outcomes(outcomes)) => match failed(&outcomes) {
                Some(sentence) => self.refuse(&to, &sentence),
                None => {
                    let targets = outcomes.iter().map(|outcome| outcome.id.to_string()).collect();
                    self.ask(Verb::Describe { targets }, Then::Tell(to, many));
                }
            },
            (Then::Tell(to, many), Answer::Details(details)) => {
                let mut list = self.elements(&details);
                let value = match many {
                    Many::All => Value::Array(list),
                    Many::One if list.is_empty() => Value::Null,
                    Many::One => list.swap_remove(0),
                };
                self.reply(&to, true, value);
            }
            (Then::Value(to, value), Answer::Outcomes(outcomes)) => match failed(&outcomes) {
                Some(sentence) => self.refuse(&to, &sentence),
                None => self.reply(&to, true, value),
            },
            (Then::Duplicate(to), Answer::Details(details)) => {
                if let Some(name) = details.into_iter().next().map(|detail| detail.view.name) {
                    self.ask(pm2::duplicate(name), Then::Look(to, Many::One));
                }
            }
            // pm2's client waits for the signal, and breaks over an answer.
            (Then::Killed(_, Some(pid)), Answer::Killed { .. }) => {
                let _ = pidfd::send(None, pid, libc::SIGQUIT);
            }
            (Then::Publish(event), Answer::Details(details)) => {
                let now = self.elements(&details).pop();
                for detail in &details {
                    self.note_pid(detail);
                    self.bus.follow(detail);
                }
                self.tell(&event, now.as_ref());
            }
            (Then::Follow, Answer::Details(details)) => {
                let _ = self.elements(&details);
                for detail in &details {
                    self.note_pid(detail);
                    self.bus.follow(detail);
                }
            }
            _ => {}
        }
    }
}
