//! Carries out what the supervisor decides.

use super::children::Request;
use super::event_loop::Daemon;
use super::record::Asked;
use crate::protocol::{Answer, Event, EventKind, Message};
use crate::supervisor::{Action, Input, ProcId};
use crate::sys::{clock, failpoint};
use crate::time::Millis;

/// How long connections that are idle stay open while a worker drains: long enough for the next request
/// on a connection that is in use, which is then told to close; well below Node's keep-alive timeout of 5 s.
const IDLE_GRACE: Millis = Millis(2_000);
/// How long a daemon that ends waits for clients that do not read.
const LAST_ANSWERS: Millis = Millis(1_000);

impl Daemon {
    /// Performs one action. What the supervisor must know of it comes back as an input.
    pub(super) fn perform(&mut self, action: Action) -> Option<Input> {
        let registry = self.poll.registry();
        match action {
            Action::Spawn { child, process, app, instance, hold } => {
                let home = &self.home;
                let (now, wall) = (self.now, clock::wall());
                let request = Request { child, process, app, instance, hold, home, now, wall };
                if self.is_safe() {
                    let reason = "pmx is in safe mode".to_string();
                    return Some(Input::SpawnFailed { child, reason, transient: true });
                }
                self.busy_with(child);
                failpoint::reach("before-spawn");
                match self.children.spawn(registry, &request) {
                    Ok(()) => {
                        failpoint::reach("after-spawn");
                        self.primary.join(child, hold);
                        return Some(Input::Spawned { child });
                    }
                    Err(refused) => {
                        log::error!("{}({}): {}", request.app.name, process.0, refused.reason);
                        self.container_failed(process, refused.errno);
                        let (reason, transient) = (refused.reason, refused.transient);
                        return Some(Input::SpawnFailed { child, reason, transient });
                    }
                }
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
            Action::Stop { child, signal } => {
                failpoint::reach("before-stop");
                self.children.stop(child, signal);
                failpoint::reach("after-stop");
            }
            Action::Kill { child } => {
                failpoint::reach("before-kill");
                self.children.stop(child, libc::SIGKILL);
            }
            Action::Signal { child, signal } => self.children.signal(child, signal),
            Action::Publish { process, name, kind, detail } => self.publish(process, name, kind, detail),
            Action::Release { app } => self.primary.release(registry, &app),
            Action::Forget { process } => self.memories.forget(process),
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
            Action::Exit => self.ending = Some(self.now + LAST_ANSWERS),
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
        if kind != EventKind::Message {
            self.autosave.touch(self.now);
            let comma = if detail.is_empty() { "" } else { ": " };
            log::info!("{name}({}) {kind:?}{comma}{detail}", process.0);
        }
        self.control.publish(Event { at, kind, id: process.0, name, detail });
    }
}
