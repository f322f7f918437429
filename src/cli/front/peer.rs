//! A client of pm2's kind: its calls come in, answers and events go out.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::pm2::{Call, Frames};
use crate::sys::socket;

/// How much may wait for a client that made calls.
const ANSWERS_LIMIT: usize = 64 << 20;
/// The same of events: beyond it whole ones are lost.
const EVENTS_LIMIT: usize = 1 << 20;

/// What a client came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To call.
    Calls,
    /// To listen.
    Events,
}

/// Whether there will be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Open,
    Over,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    pub side: Side,
    /// The process at the other end.
    pub pid: i32,
    /// Which processes are to be watched when it restarts them.
    pub to_watch: BTreeSet<u32>,
    frames: Frames,
    outbox: Vec<u8>,
    lost: u64,
    gone: bool,
}

impl Peer {
    pub fn new(mut stream: UnixStream, side: Side, registry: &Registry, token: Token) -> io::Result<Peer> {
        let (_, pid) = socket::peer_uid(&stream)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let frames = Frames::default();
        let (to_watch, outbox) = (BTreeSet::new(), Vec::new());
        Ok(Peer { stream, side, pid, to_watch, frames, outbox, lost: 0, gone: false })
    }

    /// Reads until there is nothing more at present.
    pub fn read(&mut self, calls: &mut Vec<Call>) -> Heard {
        let mut chunk = vec![0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Heard::Over,
                // Who listens has nothing to say.
                Ok(_) if self.side == Side::Events => {}
                Ok(count) => {
                    self.frames.push(&chunk[..count]);
                    loop {
                        match self.frames.next_frame() {
                            Ok(Some(arguments)) => calls.extend(Call::of(arguments)),
                            Ok(None) => break,
                            Err(fault) => {
                                eprintln!("pmx: a client of {:?}: {fault:?}; it is closed", self.side);
                                return Heard::Over;
                            }
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Open,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Over,
            }
        }
    }

    /// An answer; one that reads none of them is given up.
    pub fn push(&mut self, frame: &[u8]) {
        if self.outbox.len() + frame.len() > ANSWERS_LIMIT {
            self.gone = true;
            return;
        }
        self.outbox.extend_from_slice(frame);
    }

    /// An event, if the client keeps up.
    pub fn offer(&mut self, frame: &[u8]) {
        if self.outbox.len() + frame.len() > EVENTS_LIMIT {
            self.lost += 1;
        } else {
            self.outbox.extend_from_slice(frame);
        }
    }

    pub fn is_flushed(&self) -> bool {
        self.gone || self.outbox.is_empty()
    }

    /// Sends what waits; false: the client is gone.
    pub fn flush(&mut self, registry: &Registry) -> bool {
        while !self.gone && !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
        if self.outbox.is_empty() && self.lost > 0 {
            eprintln!("pmx: a listener did not keep up: {} events were not for it", self.lost);
            self.lost = 0;
        }
        if self.gone {
            let _ = registry.deregister(&mut self.stream);
        }
        !self.gone
    }

    pub fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }
}
