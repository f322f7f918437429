//! One client: at most one connection and one request on it, as a state machine over readiness events.
//! It records what happened to each request; when the next one starts is up to the loop.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Poll, Token};

use super::clock::Clock;
use super::plan::{Plan, Target};
use super::report::{Failure, Report};
use super::response::Response;

/// How long a client rests after a failed request, so that a dead server is asked often but not in a spin.
const REST: Duration = Duration::from_millis(10);
/// How long a server that has answered may take to close, before we do. It goes first so that the port is
/// free again at once: the side that closes first keeps it in TIME_WAIT.
const LINGER: Duration = Duration::from_millis(100);

/// What all clients share.
pub(super) struct Context {
    pub plan: Plan,
    pub request: Vec<u8>,
    pub poll: Poll,
    pub clock: Clock,
    pub report: Report,
    /// Where every read goes: no client needs its own.
    pub buffer: Box<[u8]>,
}

/// ```text
///           ┌────────────── start ──────────────┐
///   Free ───┤ no stream                  stream ├──► Sending ──► Receiving ──► Free (stream kept)
///     ▲     └► Connecting ◄─► Queueing          │                   │
///     │            └──────────► Sending ────────┘                   └─► Lingering ──► Free (no stream)
///     └──────────── Resting ◄── any failure
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No request; perhaps a kept-alive stream.
    Free,
    /// The backlog of a unix listener is full: connect again soon.
    Queueing,
    Connecting,
    Sending {
        written: usize,
    },
    Receiving,
    /// The request is done; the server is about to close.
    Lingering,
    Resting,
}

pub(super) struct Client {
    token: Token,
    state: State,
    stream: Option<Stream>,
    /// Whether the stream has carried an earlier request.
    kept: bool,
    response: Response,
    intended: Duration,
    /// When the state ends at the latest; without meaning in `Free`.
    deadline: Duration,
}

impl Client {
    pub(super) fn new(token: Token) -> Client {
        Client {
            token,
            state: State::Free,
            stream: None,
            kept: false,
            response: Response::new(),
            intended: Duration::ZERO,
            deadline: Duration::ZERO,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    pub(super) fn has_request(&self) -> bool {
        match self.state {
            State::Queueing | State::Connecting | State::Sending { .. } | State::Receiving => true,
            State::Free | State::Lingering | State::Resting => false,
        }
    }

    /// Starts a request, whose latency counts from `intended`. The client must be free, and is not free after this.
    pub(super) fn start(&mut self, context: &mut Context, now: Duration, intended: Duration) {
        debug_assert!(self.is_free());
        self.intended = intended;
        self.deadline = now + context.plan.timeout;
        self.response.restart();
        if self.stream.is_some() {
            self.kept = true;
            self.state = State::Sending { written: 0 };
            self.write(context);
        } else {
            self.connect(context);
        }
    }

    /// `hung_up`: the kernel said that the peer's end of the stream is already here, behind the data.
    pub(super) fn on_event(&mut self, context: &mut Context, hung_up: bool) {
        if matches!(self.state, State::Connecting | State::Sending { .. }) {
            self.write(context);
        }
        match self.state {
            // What we waited for; there is nothing left to read.
            State::Lingering if hung_up => self.close(),
            State::Free | State::Receiving | State::Lingering => self.read(context, hung_up),
            State::Queueing | State::Connecting | State::Sending { .. } | State::Resting => {}
        }
    }

    /// Ends what has lasted too long. Called every few milliseconds.
    pub(super) fn on_time(&mut self, context: &mut Context, now: Duration) {
        let late = now >= self.deadline;
        match self.state {
            State::Free => {}
            State::Queueing | State::Connecting if late => self.fail(context, Failure::ConnectTimeout),
            State::Queueing => self.connect(context),
            State::Sending { .. } | State::Receiving if late => self.fail(context, Failure::RequestTimeout),
            State::Lingering | State::Resting if late => self.close(),
            State::Connecting
            | State::Sending { .. }
            | State::Receiving
            | State::Lingering
            | State::Resting => {}
        }
    }

    fn connect(&mut self, context: &mut Context) {
        self.state = State::Connecting;
        self.kept = false;
        match Stream::connect(&context.plan.target) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.state = State::Queueing;
                return;
            }
            Err(error) => return self.fail(context, connect_failure(&error)),
        }
        context.report.connections += 1;
        // On loopback the connection is there at once, and the request leaves before the first poll.
        self.write(context);
        let interest = match self.state {
            State::Connecting | State::Sending { .. } => Interest::READABLE | Interest::WRITABLE,
            State::Receiving => Interest::READABLE,
            State::Free | State::Queueing | State::Lingering | State::Resting => return,
        };
        self.register(context, interest, false);
    }

    fn register(&mut self, context: &mut Context, interest: Interest, again: bool) {
        let (registry, token) = (context.poll.registry(), self.token);
        let Some(stream) = &mut self.stream else {
            return;
        };
        let source = stream.source();
        let outcome = match again {
            true => source.reregister(registry, token, interest),
            false => source.register(registry, token, interest),
        };
        if outcome.is_err() {
            self.fail(context, Failure::ConnectOther);
        }
    }

    fn write(&mut self, context: &mut Context) {
        let mut written = if let State::Sending { written } = self.state { written } else { 0 };
        while written < context.request.len() {
            let Some(stream) = &mut self.stream else {
                return;
            };
            match stream.write(&context.request[written..]) {
                Ok(0) => return self.fail(context, Failure::Reset),
                Ok(count) => {
                    written += count;
                    self.state = State::Sending { written };
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => {
                        // A kept stream waits for answers only.
                        if self.kept {
                            self.register(context, Interest::READABLE | Interest::WRITABLE, true);
                        }
                        return;
                    }
                    _ if self.state == State::Connecting => {
                        return self.fail(context, connect_failure(&error));
                    }
                    // Found closed before a byte of the request was taken: not a failure of the request.
                    _ if self.kept && written == 0 => {
                        context.report.reconnects += 1;
                        self.stream = None;
                        return self.connect(context);
                    }
                    _ => return self.fail(context, Failure::Reset),
                },
            }
        }
        self.state = State::Receiving;
    }

    fn read(&mut self, context: &mut Context, hung_up: bool) {
        while let Some(stream) = &mut self.stream {
            let count = match stream.read(&mut context.buffer) {
                Ok(count) => count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => return,
                    ErrorKind::TimedOut => return self.on_end(context, Failure::RequestTimeout),
                    _ => return self.on_end(context, Failure::Reset),
                },
            };
            if count == 0 {
                return self.on_end(context, Failure::ClosedEarly);
            }
            context.report.bytes += count as u64;
            match self.state {
                State::Receiving => self.on_bytes(context, count),
                // Nobody asked: whatever it is, the connection is of no use any more.
                State::Free => return self.on_end(context, Failure::Malformed),
                State::Lingering | State::Resting => {}
                State::Queueing | State::Connecting | State::Sending { .. } => return,
            }
            if hung_up && self.state == State::Lingering {
                return self.close();
            }
            // A short read has emptied the socket, and what comes later is a new event. Only the end of the stream
            // may have been announced already.
            if count < context.buffer.len() && !hung_up {
                return;
            }
        }
    }

    fn on_bytes(&mut self, context: &mut Context, count: usize) {
        let tally_header = context.plan.tally_header.as_deref();
        match self.response.feed(&context.buffer[..count], tally_header) {
            Ok(false) => {}
            Ok(true) => self.answered(context, self.response.closes() || !context.plan.keep_alive),
            Err(_) => self.fail(context, Failure::Malformed),
        }
    }

    /// The stream has ended; `failure` is what that means for a response that is not complete.
    fn on_end(&mut self, context: &mut Context, failure: Failure) {
        match self.state {
            State::Receiving if failure == Failure::ClosedEarly && self.response.ends_with_stream() => {
                self.answered(context, true);
                self.close();
            }
            State::Receiving => self.fail(context, failure),
            State::Free => {
                context.report.reconnects += 1;
                self.close();
            }
            State::Lingering => self.close(),
            State::Queueing | State::Connecting | State::Sending { .. } | State::Resting => {}
        }
    }

    fn answered(&mut self, context: &mut Context, closes: bool) {
        let now = context.clock.now();
        let latency = now.saturating_sub(self.intended);
        context.report.answer(self.response.status(), latency, self.response.tag());
        if closes {
            self.state = State::Lingering;
            self.deadline = now + LINGER;
        } else {
            self.state = State::Free;
        }
    }

    fn fail(&mut self, context: &mut Context, failure: Failure) {
        context.report.fail(failure);
        self.close();
        self.state = State::Resting;
        self.deadline = context.clock.now() + REST;
    }

    /// Nothing else holds the fd, so closing it also takes it out of the poll.
    fn close(&mut self) {
        self.stream = None;
        self.state = State::Free;
    }
}

fn connect_failure(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::ConnectRefused,
        ErrorKind::TimedOut => Failure::ConnectTimeout,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Reset,
        _ => Failure::ConnectOther,
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(target: &Target) -> io::Result<Stream> {
        match target {
            Target::Tcp(address) => TcpStream::connect(*address).map(Stream::Tcp),
            Target::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}
