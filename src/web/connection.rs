//! A client's connection: what it has sent, what it is sent, and what its request is at.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::http::{BODY_LIMIT, HEAD_LIMIT, Head, Refused};
use super::logs::Followed;
use super::reply::Reply;
use super::routes::Route;
use super::work::Work;
use crate::time::{Millis, Mono};

/// How long a client may take for a whole head, and then for a whole body.
pub const REQUEST_TIME: Millis = Millis(10_000);
/// How often an answer without an end says that it goes on.
pub const HEARTBEAT: Millis = Millis(15_000);
/// How long it may keep a connection without asking for anything.
const IDLE_TIME: Millis = Millis(60_000);
/// How long it may take for any part of an answer.
pub const STALL: Millis = Millis(30_000);
const CHUNK: usize = 16 << 10;
/// Reads from one connection in one visit.
const READS: usize = 16;

/// A request that is whole.
#[derive(Debug)]
pub struct Asked {
    pub route: &'static Route,
    pub target: String,
    pub head: Head,
}

/// Where a connection has come to.
pub enum Phase {
    /// A head is expected, or under way.
    Head,
    /// So many bytes of a body are expected.
    Body(Box<Asked>),
    /// The daemon was asked.
    Waits(Box<Asked>),
    /// The same, and each step is told.
    Steps,
    /// What the daemon said is worked on, step by step.
    Works(Box<Asked>, Work),
    /// It is shown what happens.
    Views,
    /// It is shown what is logged by these.
    Follows(Vec<String>, Vec<Followed>),
    /// It is told what is published under topics like this.
    Listens(String),
    /// All is said; what it still sends is thrown away.
    Farewell,
}

/// A client.
pub struct Connection {
    pub stream: TcpStream,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub sent: usize,
    pub phase: Phase,
    /// When it is cut off.
    pub deadline: Mono,
    /// The next `: ` of an answer without an end.
    pub heartbeat: Mono,
    /// Once the output is sent, it is over.
    pub closing: bool,
    /// Nothing more comes from it.
    pub ended: bool,
}

impl Connection {
    /// From a client that has not said anything yet.
    pub fn new(stream: TcpStream, now: Mono) -> Connection {
        Connection {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            phase: Phase::Head,
            deadline: now + REQUEST_TIME,
            heartbeat: now,
            closing: false,
            ended: false,
        }
    }

    /// How much was said and not sent.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether it is shown log lines.
    pub fn follows(&self) -> bool {
        matches!(self.phase, Phase::Follows(..))
    }

    /// Whether its answer has no end.
    pub fn is_endless(&self) -> bool {
        matches!(self.phase, Phase::Views | Phase::Follows(..) | Phase::Listens(_))
    }

    /// From now on its answer goes on without end.
    pub fn views(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.heartbeat = now + HEARTBEAT;
        self.deadline = now + STALL;
        self.closing = false;
    }

    /// More of an answer.
    pub fn say(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// A whole answer.
    pub fn reply(&mut self, reply: &Reply, head_only: bool, keep_alive: bool, now: Mono) {
        self.output.extend(reply.bytes(head_only, keep_alive));
        self.phase = Phase::Head;
        self.closing = !keep_alive;
        self.deadline = now + STALL;
    }

    /// An answer to what makes no sense: the last one.
    pub fn refuse(&mut self, Refused(status, why): Refused, now: Mono) {
        self.input.clear();
        self.reply(&Reply::error(status, why), false, false, now);
    }

    /// Sends what can be sent; false: nobody is there.
    pub fn flush(&mut self, now: Mono) -> bool {
        let before = self.unsent();
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if before == 0 {
            return true;
        }
        if self.unsent() == 0 {
            self.output = Vec::new();
            self.sent = 0;
        }
        if self.unsent() < before {
            self.deadline = match self.phase {
                Phase::Head if self.unsent() == 0 => now + IDLE_TIME,
                Phase::Waits(_) | Phase::Works(..) | Phase::Body(_) | Phase::Farewell => self.deadline,
                Phase::Head | Phase::Steps | Phase::Views | Phase::Follows(..) | Phase::Listens(_) => {
                    now + STALL
                }
            };
        }
        true
    }

    /// Takes in what has come, as far as there is room for it; true if there may be more.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        for _ in 0..READS {
            if self.ended || self.input.len() >= HEAD_LIMIT + BODY_LIMIT {
                return Ok(false);
            }
            match self.stream.read(&mut chunk) {
                // Whoever asked may close its half and wait; nobody looks on like that.
                Ok(0) if self.is_endless() || matches!(self.phase, Phase::Farewell) => {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Ok(0) => self.ended = true,
                Ok(_) if matches!(self.phase, Phase::Farewell) => {}
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
