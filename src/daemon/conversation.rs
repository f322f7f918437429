//! What workers say on their channels, and who hears it.

use super::channel::Received;
use super::event_loop::Daemon;
use super::source::Progress;
use crate::node::{self, FromWorker};
use crate::protocol::EventKind;
use crate::supervisor::{ChildId, Input};
use crate::sys::{failpoint, kept};

/// Messages taken from a child that has ended: more than its channel can hold, unless others write to it.
pub(super) const LAST_MESSAGES: usize = 1 << 16;

impl Daemon {
    /// Takes so many messages of a child.
    pub(super) fn read_channel(&mut self, child: ChildId, budget: usize) -> Progress {
        let mut buffer = std::mem::take(&mut self.buffer);
        let progress = self.converse(child, budget, &mut buffer);
        self.buffer = buffer;
        progress
    }

    fn converse(&mut self, child: ChildId, budget: usize, buffer: &mut [u8]) -> Progress {
        for _ in 0..budget {
            // An address that was given up is free once that is on record: who asks waits for the next round.
            if kept::any() && budget != LAST_MESSAGES {
                return Progress::More;
            }
            let registry = self.poll.registry();
            if self.children.flush(registry, child) {
                self.primary.caught_up(registry, &mut self.children, child);
            }
            let Some(channel) = self.children.channel(child) else { return Progress::Drained };
            match channel.receive(buffer) {
                Received::Message(message) => {
                    self.children.took(child);
                    failpoint::reach("before-message");
                    self.message(child, message);
                    failpoint::reach("after-message");
                }
                // Within the round only of a child that is gone: whatever it said counts now.
                Received::Unsettled if budget == LAST_MESSAGES => {
                    let _ = channel.settle(buffer);
                }
                Received::Unsettled => {
                    self.children.took(child);
                    return Progress::More;
                }
                Received::Nothing => return Progress::Drained,
                Received::Closed => {
                    self.children.close_channel(self.poll.registry(), child);
                    self.supervisor.handle(self.now, Input::Drained { child });
                    return Progress::Drained;
                }
            }
        }
        Progress::More
    }

    /// A worker said something.
    fn message(&mut self, child: ChildId, message: FromWorker) {
        self.busy_with(child);
        let registry = self.poll.registry();
        let children = &mut self.children;
        match message {
            FromWorker::QueryServer { seq, query } => {
                self.primary.query_server(registry, children, child, seq, &query);
            }
            FromWorker::Listening => {
                self.primary.listening(registry, children, child);
                self.supervisor.handle(self.now, Input::Listening { child });
            }
            FromWorker::Close { key } => self.primary.close(registry, children, child, &key),
            FromWorker::ExitedAfterDisconnect { seq } => {
                children.send(registry, child, node::ack(seq), None);
            }
            FromWorker::Ack { seq, accepted } => {
                let over = self.checks.acknowledged(registry, child, seq, accepted);
                self.primary.acknowledged(registry, children, child, seq, accepted);
                self.tell(over);
            }
            FromWorker::AppHandle => {
                children.send(registry, child, node::handle_ack(), None);
            }
            FromWorker::Hello { node, .. } => {
                if let Some(child) = children.get_mut(child) {
                    child.node_version = Some(node).filter(|version| version.len() <= 32);
                }
            }
            FromWorker::Drained => self.supervisor.handle(self.now, Input::Drained { child }),
            FromWorker::Ready => self.supervisor.handle(self.now, Input::Ready { child }),
            FromWorker::App(value) => {
                if self.app_said(child, &value)
                    && let Some(process) = self.supervisor.owner(child)
                    && let Some(name) = self.supervisor.process(process).map(|p| p.app.name.clone())
                {
                    self.publish(process, name, EventKind::Message, value.to_string());
                }
            }
            FromWorker::Online | FromWorker::Ignored => {}
        }
    }
}
