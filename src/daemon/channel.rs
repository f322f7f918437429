//! One end of a Node channel: lines in, lines out, an fd riding on some of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mio::Interest;

use crate::node::{self, FromWorker, MESSAGE_LIMIT, ToWorker};
use crate::protocol::Frames;
use crate::sys::fdpass;

/// How much may wait for a worker that does not read.
const OUTBOX_LIMIT: usize = 8 << 20;
/// How many messages one visit takes.
const BUDGET: usize = 64;

/// The daemon's end of one child's channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    inbox: Frames,
    outbox: VecDeque<Waiting>,
    queued: usize,
    closed: bool,
    /// The event loop tells when there is room to write.
    watches_room: bool,
}

/// A line that did not go out yet, or only in part.
#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    sent: usize,
    rider: Option<OwnedFd>,
}

/// What reading brought.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// One message.
    Message(FromWorker),
    /// Nothing more at present.
    Nothing,
    /// The other end is closed, and everything it sent was taken.
    Closed,
}

impl Channel {
    /// Takes our end, which is nonblocking.
    pub fn new(socket: OwnedFd) -> Channel {
        let inbox = Frames::new(MESSAGE_LIMIT);
        Channel { socket, inbox, outbox: VecDeque::new(), queued: 0, closed: false, watches_room: false }
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
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
            Ok(rider) => rider,
            Err(error) => {
                log::warn!("keep a connection for a worker that is behind: {error}");
                return false;
            }
        };
        self.queued += message.line.len();
        self.outbox.push_back(Waiting { line: message.line, sent, rider });
        true
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
            match self.inbox.next_line() {
                Ok(Some(line)) => match node::parse(line) {
                    Some(message) => return Received::Message(message),
                    None => log::debug!("a worker wrote a line that is not JSON on its channel"),
                },
                Ok(None) if self.closed => return Received::Closed,
                Ok(None) => match fdpass::recv(self.socket.as_fd(), buffer) {
                    Ok((0, _)) => self.closed = true,
                    Ok((count, _riders)) => self.inbox.push(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                    // A worker that died with unread messages resets the channel: the same as closed.
                    Err(_) => self.closed = true,
                },
                Err(error) => {
                    log::warn!("a worker's channel: {error}");
                    self.closed = true;
                    return Received::Closed;
                }
            }
        }
    }

    /// How many messages one visit takes.
    pub const fn budget() -> usize {
        BUDGET
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
        assert_eq!(channel.receive(&mut buffer), Received::Closed);
        assert_eq!(channel.receive(&mut buffer), Received::Closed);
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
        let text = reader.join().unwrap();
        let expected: String = (0..accepted).map(|n| String::from_utf8(line(n).line).unwrap()).collect();
        assert!(text == expected);
    }
}
