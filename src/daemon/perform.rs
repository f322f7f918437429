//! Carries out what the supervisor decides.

use super::alert::Happened;
use super::check::Ask;
use super::event_loop::Daemon;
use super::record::Asked;
use super::starts::Wanted;
use crate::app::Notice;
use crate::protocol::{Answer, Event, EventKind, Message};
use crate::supervisor::{Action, Input, ProcId};
use crate::sys::{clock, failpoint};
use crate::time::Millis;

/// How long connections that are idle stay open while a worker drains: long enough for the next request
/// on a connection that is in use, which is then told to close; well below Node's keep-alive timeout of 5 s.
const IDLE_GRACE: Millis = Millis(2_000);
/// How long a daemon that ends waits for clients that do not read.
const LAST_ANSWERS: Millis = Millis(1_000);
/// The same for alerts that are not sent yet: the end of a container may be what they are about.
const LAST_ALERTS: Millis = Millis(2_000);

impl Daemon {
    /// Performs one action. What the supervisor must know of it comes back as an input.
    pub(super) fn perform(&mut self, action: Action) -> Option<Input> {
        let registry = self.poll.registry();
        match action {
            Action::Spawn { child, process, app, instance, hold } => {
                self.start(Wanted { child, process, app, instance, hold });
            }
            Action::Promote { child } => {
                failpoint::reach("before-promote");
                self.primary.promote(registry, &mut self.children, child);
                failpoint::reach("after-promote");
            }
            Action::Drain { child } => {
                let timeout = self.children.get(child).map_or(Millis(0), |child| child.app.drain_timeout);
                failpoint::reach("before-drain");
                let grace = IDLE_GRACE.min(Millis(timeout.0 / 2)).0;
                let drains = self.primary.drain(registry, &mut self.children, child, grace);
                failpoint::reach("after-drain");
                if !drains {
                    return Some(Input::Drained { child });
                }
            }
            Action::Stop { child, notice } => {
                failpoint::reach("before-stop");
                match notice {
                    Notice::Signal(signal) => self.children.stop(child, signal),
                    Notice::Message { or } => self.children.ask_to_stop(registry, child, or),
                }
                failpoint::reach("after-stop");
            }
            Action::Kill { child } => {
                failpoint::reach("before-kill");
                self.children.kill(child);
            }
            Action::Examine { child } => {
                return self.children.survivors(child).map(|state| Input::Unkillable { child, state });
            }
            Action::Signal { child, signal } => self.children.signal(child, signal),
            Action::Check { child, app } => {
                let process = self.children.get(child).map(|child| child.process);
                let memory = process.and_then(|process| self.memories.get(process));
                let created = memory.map_or(clock::wall(), |memory| memory.created);
                let ask = Ask { child, app: &app, created, home: &self.home };
                return self.checks.begin(registry, &mut self.children, &mut self.primary, &ask);
            }
            Action::EndCheck { child } => self.checks.end(registry, child),
            Action::Publish { process, name, kind, detail } => self.publish(process, name, kind, detail),
            Action::Alert { process, occasion, cause, reason } => {
                self.alert(process, &Happened { cause, ..Happened::new(occasion, reason) });
            }
            Action::Release { app } => self.primary.release(registry, &app),
            Action::Forget { process } => {
                self.memories.forget(process);
                self.children.forget_counts(process);
            }
            Action::Progress { op, progress } => {
                if let Some(Asked { client, id, .. }) = self.asked.get(&op) {
                    let (client, id) = (*client, *id);
                    self.control.send(client, &Message::Progress { id, progress });
                }
            }
            Action::Answer { op, outcome } => {
                self.autosave.touch(self.now);
                if let Some(asked) = self.asked.get_mut(&op) {
                    let Asked { client, id, shutdown, .. } = *asked;
                    self.changed_asked.insert(op);
                    let message = match outcome {
                        Ok(outcomes) if shutdown => {
                            let answer = Answer::Killed { stopped: outcomes.len() as u32 };
                            Message::Done { id, answer }
                        }
                        Ok(outcomes) => Message::Done { id, answer: Answer::Outcomes(outcomes) },
                        Err(error) => Message::Error { id, error },
                    };
                    failpoint::reach("before-answer");
                    self.control.send(client, &message);
                    asked.answer = Some(message);
                    failpoint::reach("after-answer");
                }
            }
            Action::Exit => {
                let last = if self.dispatch.is_idle() { LAST_ANSWERS } else { LAST_ALERTS };
                self.ending = Some(self.now + last);
            }
        }
        None
    }

    /// Tells subscribers, and the daemon's own log.
    pub(super) fn publish(&mut self, process: ProcId, name: String, kind: EventKind, detail: String) {
        let at = clock::wall();
        if kind == EventKind::Added {
            self.memories.begin(process, at);
            self.autosave.begun();
        }
        self.triggers.touch(process, &name);
        self.sampling.wake();
        if kind != EventKind::Message {
            self.autosave.touch(self.now);
            let comma = if detail.is_empty() { "" } else { ": " };
            // That it was spawned for no particular reason goes without saying: it comes up, or fails.
            let is_said = kind == EventKind::Spawned && detail.is_empty();
            let level = if is_said { log::Level::Debug } else { log::Level::Info };
            log::log!(level, "{name}({}) {kind:?}{comma}{detail}", process.0);
        }
        let event = Event { at, kind, id: process.0, name, detail };
        if kind != EventKind::Message {
            self.history.add(&event);
            self.deliver_event(&event);
            self.alert_of_event(process, event.kind, &event.detail);
        }
        self.control.publish(event);
    }
}
