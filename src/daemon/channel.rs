//! One end of a Node channel: lines in, lines out, an fd riding on some of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mio::Interest;
use serde::{Deserialize, Serialize};

use crate::node::{self, FromWorker, MESSAGE_LIMIT, ToWorker};
use crate::sys::kept::Kept;
use crate::sys::{fdpass, inherit, pipe, socket};

/// How much may wait for a worker that does not read.
const OUTBOX_LIMIT: usize = 8 << 20;
/// The same for messages of other apps and of people: what follows is lost.
const OFFERS_LIMIT: usize = 256 << 10;
/// How many messages one visit takes.
const BUDGET: usize = 64;

/// The daemon's end of one child's channel.
#[derive(Debug)]
pub struct Channel {
    socket: Kept<OwnedFd>,
    inbox: Inbox,
    outbox: VecDeque<Waiting>,
    queued: usize,
    closed: bool,
    /// The event loop tells when there is room to write.
    watches_room: bool,
}

/// What came and is not dealt with. Messages are read where they lie and leave the socket only when what
/// they led to is on record: a daemon that dies in between leaves them to the next one.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// So many of them have left the socket: the beginning of a message that is longer than a buffer.
    out: usize,
    /// So many of them are dealt with.
    handled: usize,
}

/// A line that did not go out yet, or only in part.
#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    sent: usize,
    rider: Option<Kept<OwnedFd>>,
}

/// A line that did not go out yet, for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unsent {
    line: String,
    rider: Option<RawFd>,
}

/// What reading brought.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// One message.
    Message(FromWorker),
    /// Nothing more at present.
    Nothing,
    /// What was taken must be settled before there is more.
    Unsettled,
    /// The other end is closed, and everything it sent was taken.
    Closed,
}

impl Channel {
    /// Takes our end, which is nonblocking.
    pub fn new(socket: OwnedFd) -> Channel {
        let inbox = Inbox::default();
        Channel {
            socket: socket.into(),
            inbox,
            outbox: VecDeque::new(),
            queued: 0,
            closed: false,
            watches_room: false,
        }
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What the kernel calls it, whatever number it has.
    pub fn inode(&self) -> u64 {
        pipe::inode(self.socket.as_fd())
    }

    /// Whether the worker keeps up with what it is sent.
    pub fn is_clear(&self) -> bool {
        self.outbox.is_empty() && !self.closed
    }

    /// What the event loop shall watch for, if that is not what it does.
    pub fn changed_interest(&mut self) -> Option<Interest> {
        let wanted = !self.outbox.is_empty();
        if wanted == self.watches_room {
            return None;
        }
        self.watches_room = wanted;
        Some(if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE })
    }

    /// Sends a line, now or as soon as the worker reads; `rider` goes with it. False: the worker has read
    /// nothing for so long that it is given up, or is gone.
    pub fn send(&mut self, message: ToWorker, rider: Option<BorrowedFd>) -> bool {
        if self.closed || self.queued + message.line.len() > OUTBOX_LIMIT {
            return false;
        }
        let mut sent = 0;
        let mut needs_rider = rider.is_some();
        if self.outbox.is_empty() {
            match self.transmit(&message.line, rider) {
                Ok(count) => {
                    sent = count;
                    needs_rider = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What it sent before it died is still to be read.
                Err(_) => return false,
            }
        }
        if sent == message.line.len() {
            return true;
        }
        let rider = match rider.filter(|_| needs_rider).map(|fd| fd.try_clone_to_owned()).transpose() {
            Ok(rider) => rider.map(Kept::from),
            Err(error) => {
                log::warn!("keep a connection for a worker that is behind: {error}");
                return false;
            }
        };
        self.queued += message.line.len();
        self.outbox.push_back(Waiting { line: message.line, sent, rider });
        true
    }

    /// Sends a message that may be lost: false if it is.
    pub fn offer(&mut self, message: ToWorker) -> bool {
        self.queued + message.line.len() <= OFFERS_LIMIT && self.send(message, None)
    }

    fn transmit(&self, bytes: &[u8], rider: Option<BorrowedFd>) -> io::Result<usize> {
        fdpass::send(self.socket.as_fd(), bytes, rider)
    }

    /// Sends what waits, as far as the worker reads.
    pub fn flush(&mut self) {
        while let Some(first) = self.outbox.front() {
            let rider = first.rider.as_ref().map(AsFd::as_fd);
            match self.transmit(&first.line[first.sent..], rider) {
                Ok(count) => {
                    let Some(first) = self.outbox.front_mut() else { return };
                    first.sent += count;
                    first.rider = None;
                    if first.sent < first.line.len() {
                        continue;
                    }
                    self.queued -= first.line.len();
                    self.outbox.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.outbox.clear();
                    self.queued = 0;
                    return;
                }
            }
        }
    }

    /// The next message. Fds that an app sends are closed: there is nobody to give them to.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            if let Some(line) = self.inbox.next_line() {
                match node::parse(line) {
                    Some(message) => return Received::Message(message),
                    None => log::debug!("a worker wrote a line that is not JSON on its channel"),
                }
                continue;
            }
            if self.inbox.bytes.len() > self.inbox.out {
                if self.inbox.handled > 0 {
                    return Received::Unsettled;
                }
                let part = self.inbox.bytes.len() - self.inbox.out;
                if part < buffer.len() {
                    // It is looked at again when there is more of it.
                    self.inbox.bytes.truncate(self.inbox.out);
                    self.closed |= socket::has_hung_up(self.socket.as_fd());
                    return if self.closed { Received::Closed } else { Received::Nothing };
                }
                self.discard(part, buffer);
                self.inbox.out = self.inbox.bytes.len();
                if self.inbox.out > MESSAGE_LIMIT {
                    log::warn!("a worker's channel: a message is longer than {MESSAGE_LIMIT} bytes");
                    self.closed = true;
                }
            }
            if self.closed {
                return Received::Closed;
            }
            match fdpass::peek(self.socket.as_fd(), buffer) {
                Ok((0, _)) => self.closed = true,
                Ok((count, _riders)) => self.inbox.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                // A worker that died with unread messages resets the channel: the same as closed.
                Err(_) => self.closed = true,
            }
        }
    }

    /// What was received is dealt with and on record. True: there may be more.
    pub fn settle(&mut self, buffer: &mut [u8]) -> bool {
        let Inbox { out, handled, .. } = self.inbox;
        if handled == 0 {
            return false;
        }
        self.discard(handled.saturating_sub(out), buffer);
        if handled >= out {
            self.inbox = Inbox::default();
        } else {
            self.inbox.bytes.truncate(out);
            self.inbox.bytes.drain(..handled);
            self.inbox.out = out - handled;
            self.inbox.handled = 0;
        }
        true
    }

    /// Takes bytes off the socket that were looked at before.
    fn discard(&self, mut count: usize, buffer: &mut [u8]) {
        while count > 0 {
            let most = count.min(buffer.len());
            match fdpass::recv(self.socket.as_fd(), &mut buffer[..most]) {
                Ok((0, _)) | Err(_) => return,
                Ok((read, _riders)) => count -= read,
            }
        }
    }

    /// What waits to be sent, for the journal.
    pub fn unsent(&self) -> Vec<Unsent> {
        let unsent = |waiting: &Waiting| Unsent {
            line: String::from_utf8_lossy(&waiting.line[waiting.sent..]).into_owned(),
            rider: waiting.rider.as_ref().map(|rider| rider.as_raw_fd()),
        };
        self.outbox.iter().map(unsent).collect()
    }

    /// Takes over what a daemon before us did not get sent.
    pub fn send_later(&mut self, unsent: Vec<Unsent>) {
        for Unsent { line, rider } in unsent {
            let rider = rider.and_then(|fd| inherit::take(fd).ok()).map(Kept::from);
            self.queued += line.len();
            self.outbox.push_back(Waiting { line: line.into_bytes(), sent: 0, rider });
        }
    }

    /// How many messages one visit takes.
    pub const fn budget() -> usize {
        BUDGET
    }
}

impl Unsent {
    /// The fd that goes with it.
    pub fn rider(&self) -> Option<RawFd> {
        self.rider
    }
}

impl Inbox {
    fn next_line(&mut self) -> Option<&[u8]> {
        let from = self.handled;
        let end = from + self.bytes[from..].iter().position(|byte| *byte == b'\n')?;
        self.handled = end + 1;
        Some(&self.bytes[from..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = socket::pair().unwrap();
        (Channel::new(ours), UnixStream::from(theirs))
    }

    #[test]
    fn what_a_worker_sent_before_it_died_is_still_taken() {
        let (mut channel, mut worker) = pair();
        channel.send(node::go(), None);
        worker.write_all(b"\"ready\"\n{\"cmd\":\"NODE_CLUSTER\",\"ack\":1,\"accepted\":true}\n").unwrap();
        drop(worker);
        let mut buffer = [0; 4096];
        assert!(!channel.send(node::go(), None), "nobody is there any more");
        assert_eq!(channel.receive(&mut buffer), Received::Message(FromWorker::Ready));
        let ack = FromWorker::Ack { seq: 1, accepted: true };
        assert_eq!(channel.receive(&mut buffer), Received::Message(ack));
        assert_eq!(channel.receive(&mut buffer), Received::Unsettled);
        assert!(channel.settle(&mut buffer));
        assert_eq!(channel.receive(&mut buffer), Received::Closed);
        assert_eq!(channel.receive(&mut buffer), Received::Closed);
    }

    #[test]
    fn a_message_stays_in_the_socket_until_it_is_settled() {
        let (ours, theirs) = socket::pair().unwrap();
        let heir = ours.try_clone().unwrap();
        let (mut channel, mut worker) = (Channel::new(ours), UnixStream::from(theirs));
        let mut buffer = [0; 64];
        worker.write_all(b"\"ready\"\n\"ready\"\n\"rea").unwrap();
        assert_eq!(channel.receive(&mut buffer), Received::Message(FromWorker::Ready));
        // The daemon dies here, or rather the next one looks at the same socket.
        let mut next = Channel::new(heir);
        assert_eq!(next.receive(&mut buffer), Received::Message(FromWorker::Ready));
        assert_eq!(next.receive(&mut buffer), Received::Message(FromWorker::Ready));
        assert_eq!(next.receive(&mut buffer), Received::Unsettled);
        assert!(next.settle(&mut buffer) && !next.settle(&mut buffer));
        assert_eq!(next.receive(&mut buffer), Received::Nothing, "half a message");
        assert_eq!(next.receive(&mut buffer), Received::Nothing);
        // One that is longer than the buffer, by then.
        let long = format!("dy\"\n\"{}\"\n\"ready\"\n\"half", "x".repeat(1_000));
        worker.write_all(long.as_bytes()).unwrap();
        let mut seen = Vec::new();
        loop {
            match next.receive(&mut buffer) {
                Received::Message(message) => seen.push(message),
                Received::Unsettled => assert!(next.settle(&mut buffer)),
                Received::Nothing => break,
                Received::Closed => panic!("it is open"),
            }
        }
        let text = serde_json::Value::String("x".repeat(1_000));
        assert_eq!(seen, [FromWorker::Ready, FromWorker::App(text), FromWorker::Ready]);
        drop(worker);
        assert_eq!(next.receive(&mut buffer), Received::Closed, "the other half never comes");
    }

    #[test]
    fn a_worker_that_does_not_read_has_a_bounded_queue_and_gets_all_of_it_in_order() {
        let (mut channel, mut worker) = pair();
        let line = |n: u64| node::ack(n);
        let mut accepted = 0;
        while channel.send(line(accepted), None) {
            accepted += 1;
        }
        assert!(channel.queued <= OUTBOX_LIMIT && accepted > 10_000);
        assert!(!channel.is_clear());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            worker.read_to_string(&mut text).unwrap();
            text
        });
        while !channel.is_clear() {
            channel.flush();
            std::thread::yield_now();
        }
        drop(channel);
        crate::sys::kept::close();
        let text = reader.join().unwrap();
        let expected: String = (0..accepted).map(|n| String::from_utf8(line(n).line).unwrap()).collect();
        assert!(text == expected);
    }
}
