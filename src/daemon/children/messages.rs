//! What goes over the channels of children: sent at once or kept until they read, and taken once it is on record.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use mio::{Interest, Registry};

use super::Children;
use crate::daemon::channel::{Channel, Unsent};
use crate::daemon::source::Source;
use crate::daemon::watch::{rewatch, unwatch, watch};
use crate::node::ToWorker;
use crate::supervisor::ChildId;

impl Children {
    /// The channel of a living child.
    pub fn channel(&mut self, id: ChildId) -> Option<&mut Channel> {
        self.living.get_mut(&id)?.channel.as_mut()
    }

    /// Sends a line to a child, and `rider` with it. False: it is gone, or has read nothing for so long that
    /// it is given up.
    pub fn send(
        &mut self,
        registry: &Registry,
        id: ChildId,
        message: ToWorker,
        rider: Option<BorrowedFd>,
    ) -> bool {
        self.with_channel(registry, id, |channel| channel.send(message, rider)).unwrap_or(false)
    }

    /// Sends a message that may be lost, if the child does not read. False: it is.
    pub fn offer(&mut self, registry: &Registry, id: ChildId, message: ToWorker) -> bool {
        let offered = self.with_channel(registry, id, |channel| channel.offer(message));
        if offered == Some(false)
            && let Some(child) = self.living.get_mut(&id)
        {
            if child.lost == 0 {
                log::warn!("{}: it does not read its messages: they are lost", child.app.name);
            }
            child.lost += 1;
        }
        offered.unwrap_or(false)
    }

    /// Sends what waits for a child that reads again. True: it has caught up.
    pub fn flush(&mut self, registry: &Registry, id: ChildId) -> bool {
        if self.channel(id).is_none_or(|channel| channel.is_clear()) {
            return false;
        }
        let flush = |channel: &mut Channel| {
            channel.flush();
            channel.is_clear()
        };
        self.with_channel(registry, id, flush).unwrap_or(false)
    }

    /// Does something with a channel. What waits to be sent is on record.
    fn with_channel<T>(
        &mut self,
        registry: &Registry,
        id: ChildId,
        act: impl FnOnce(&mut Channel) -> T,
    ) -> Option<T> {
        let channel = self.channel(id)?;
        let was_clear = channel.is_clear();
        let done = act(channel);
        attend(registry, id, channel);
        if !was_clear || !channel.is_clear() {
            self.changed.insert(id);
        }
        Some(done)
    }

    /// Something was taken from the channel of a child.
    pub fn took(&mut self, id: ChildId) {
        self.unsettled.insert(id);
    }

    /// What was taken from channels is on record. Tells which may have more.
    pub fn settle(&mut self, buffer: &mut [u8]) -> Vec<ChildId> {
        let unsettled = std::mem::take(&mut self.unsettled);
        let settle = |id: &ChildId| self.channel(*id).is_some_and(|channel| channel.settle(buffer));
        unsettled.into_iter().filter(settle).collect()
    }

    /// Closes the channel of a child; the event loop forgets it first.
    pub fn close_channel(&mut self, registry: &Registry, id: ChildId) {
        if let Some(channel) = self.living.get_mut(&id).and_then(|child| child.channel.take()) {
            unwatch(registry, channel.fd());
            self.changed.insert(id);
        }
    }
}

/// Our end of a new channel, or of one that a daemon before us had, with what that did not get sent.
pub(super) fn open(registry: &Registry, id: ChildId, socket: OwnedFd, unsent: Vec<Unsent>) -> Channel {
    watch(registry, socket.as_raw_fd(), Source::Channel(id), Interest::READABLE);
    let mut channel = Channel::new(socket);
    channel.send_later(unsent);
    attend(registry, id, &mut channel);
    channel
}

/// A channel is only watched for room to write while something waits for that: the kernel would wake us
/// each time its worker reads.
fn attend(registry: &Registry, id: ChildId, channel: &mut Channel) {
    if let Some(interest) = channel.changed_interest() {
        rewatch(registry, channel.fd(), Source::Channel(id), interest);
    }
}
