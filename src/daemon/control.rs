//! The control socket: clients, their buffers and deadlines. Who may speak is decided before a byte is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry};
use serde::{Deserialize, Serialize};

use super::bus::PATTERNS;
use super::source::{Progress, Source};
use super::watch::{unwatch, watch};
use crate::protocol::{
    BusMessage, Event, FRAME_LIMIT, Frames, Message, Request, VERSION, matches, pattern_fault,
};
use crate::sys::kept::Kept;
use crate::sys::{failpoint, inherit, socket};
use crate::time::{Millis, Mono};

/// Clients at a time; more are turned away.
const CLIENTS: usize = 1_024;
/// Requests taken from one client in one visit.
const REQUESTS: usize = 16;
/// Accepts in one visit.
const ACCEPTS: usize = 64;
/// How long a client may take from the first byte of a request to its newline.
const FRAME_DEADLINE: Millis = Millis(10_000);
/// How much may wait for a client that reads slowly.
const OUTBOX_LIMIT: usize = 64 << 20;
/// The same for events: a subscriber that sleeps is cut off early.
const EVENTS_LIMIT: usize = 1 << 20;
/// A client to whom so much is unsent is not read from: it may ask again once it has listened.
const UNHEARD: usize = 1 << 20;
/// So many requests are remembered that may come again.
const HEARD: usize = 64;
/// What was sent is dropped from the outbox in pieces of at least so much.
const SENT_PIECE: usize = 256 << 10;
/// How long accepting rests after an error that is not the client's: no fd, no memory.
const ACCEPT_REST: Millis = Millis(100);

/// The socket and everybody connected to it.
#[derive(Debug)]
pub struct Control {
    /// `None`: there is no place for a socket.
    listener: Option<UnixListener>,
    clients: BTreeMap<u64, Client>,
    next: u64,
    our_uid: u32,
    /// Clients that came, went or subscribed since the journal was last told.
    pub changed: BTreeSet<u64>,
}

/// A client for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Its connection.
    pub fd: RawFd,
    #[serde(default)]
    subscribed: bool,
    #[serde(default)]
    patterns: Vec<String>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: Frames,
    outbox: Vec<u8>,
    sent: usize,
    subscribed: bool,
    /// The topics it listens to, and how many messages it has lost since it last got one.
    patterns: Vec<String>,
    lost: u64,
    /// When the rest of a begun request is due.
    due: Option<Mono>,
    /// Requests that it made and that are not answered.
    owed: u32,
    /// What it asked of us since it was told that we took over, if it was.
    heard: Option<Vec<u64>>,
    end: End,
}

/// How far a client is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It may ask.
    Open,
    /// It asks no more, and gets what it is owed.
    Leaving,
    /// It gets nothing more: it went away, or does not read.
    Gone,
}

impl Control {
    /// Opens the socket. Only the holder of the home's lock may call it: a file that is there is stale.
    pub fn open(path: &Path) -> Result<OwnedFd, String> {
        let listener = match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => socket::bind_control(path),
        };
        listener.map_err(|error| format!("open {}: {}", path.display(), crate::sys::reason(&error)))
    }

    fn listening(registry: &Registry, listener: UnixListener, our_uid: u32) -> Control {
        watch(registry, listener.as_raw_fd(), Source::Control, Interest::READABLE);
        Control { listener: Some(listener), ..Control::closed(our_uid) }
    }

    /// No socket, and so no clients.
    pub fn closed(our_uid: u32) -> Control {
        Control { listener: None, clients: BTreeMap::new(), next: 0, our_uid, changed: BTreeSet::new() }
    }

    /// The socket, and the clients of a daemon before us. Each of them is told which of its requests are still owed
    /// (`owed`, by client): what else it asked for was lost with that daemon, or never reached it.
    pub fn resume(
        registry: &Registry,
        listener: OwnedFd,
        our_uid: u32,
        clients: BTreeMap<u64, ClientRecord>,
        owed: &BTreeMap<u64, Vec<u64>>,
    ) -> Control {
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(listener));
        let mut control = Control::listening(registry, listener, our_uid);
        for (id, ClientRecord { fd, subscribed, patterns }) in clients {
            control.next = control.next.max(id + 1);
            let Ok(stream) = inherit::take(fd) else { continue };
            let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(stream));
            let pending = owed.get(&id).cloned().unwrap_or_default();
            let count = pending.len() as u32;
            control.add(registry, id, stream);
            if let Some(client) = control.clients.get_mut(&id) {
                client.subscribed = subscribed;
                client.patterns = patterns;
                client.owed = count;
                client.resume(pending);
            }
        }
        control
    }

    /// A client that the daemon before us let in, and did not come to write down.
    pub fn adopt(&mut self, registry: &Registry, connection: OwnedFd) {
        let id = self.next;
        let stream = std::os::unix::net::UnixStream::from(connection);
        self.admit(registry, UnixStream::from_std(stream));
        if let Some(client) = self.clients.get_mut(&id) {
            client.resume(Vec::new());
        }
    }

    /// For the journal.
    pub fn fd(&self) -> Option<RawFd> {
        self.listener.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// All clients.
    pub fn clients(&self) -> impl Iterator<Item = u64> + '_ {
        self.clients.keys().copied()
    }

    /// A client for the journal. One that was sent only part of an answer is not taken along: it comes back.
    pub fn record(&self, id: u64) -> Option<ClientRecord> {
        let client = self.clients.get(&id).filter(|client| client.end == End::Open)?;
        let (subscribed, patterns) = (client.subscribed, client.patterns.clone());
        Some(ClientRecord { fd: client.stream.as_raw_fd(), subscribed, patterns })
    }

    /// Closes those that are in the middle of an answer: the next daemon could not go on with it.
    pub fn part(&mut self, registry: &Registry) {
        let cut: Vec<u64> = self.clients.iter().filter(|(_, c)| c.unsent() > 0).map(|(id, _)| *id).collect();
        for id in cut {
            if let Some(client) = self.clients.get_mut(&id) {
                client.end = End::Gone;
            }
            self.close_if_over(registry, id);
        }
    }

    /// Lets new clients in.
    pub fn accept(&mut self, registry: &Registry, now: Mono) -> Progress {
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return Progress::Drained };
            match listener.accept() {
                Ok((stream, _)) => self.admit(registry, stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Drained,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    // It waits on, and nothing would tell of it again.
                    log::warn!("accept a client: {error}");
                    return Progress::Rest(now + ACCEPT_REST);
                }
            }
        }
        Progress::More
    }

    fn admit(&mut self, registry: &Registry, mut stream: UnixStream) {
        let refusal = match socket::peer_uid(&stream) {
            Ok((uid, _)) if uid == self.our_uid || uid == 0 => None,
            Ok((uid, _)) => Some(format!("this daemon serves uid {}, not uid {uid}", self.our_uid)),
            Err(error) => Some(format!("learn who connects: {}", crate::sys::reason(&error))),
        };
        let refusal = refusal.or_else(|| {
            (self.clients.len() >= CLIENTS).then(|| format!("more than {CLIENTS} clients at a time"))
        });
        if let Some(error) = refusal {
            log::warn!("refuse a client: {error}");
            // The socket's buffer is empty, so this fits or nobody is there.
            let _ = stream.write_all(&line(&Message::Error { id: 0, error }));
            return;
        }
        failpoint::reach("let-in");
        let id = self.next;
        self.next += 1;
        self.add(registry, id, stream);
    }

    fn add(&mut self, registry: &Registry, id: u64, stream: UnixStream) {
        self.changed.insert(id);
        watch(registry, stream.as_raw_fd(), Source::Client(id), Interest::READABLE | Interest::WRITABLE);
        let client = Client {
            stream,
            inbox: Frames::new(FRAME_LIMIT),
            outbox: Vec::new(),
            sent: 0,
            subscribed: false,
            patterns: Vec::new(),
            lost: 0,
            due: None,
            owed: 0,
            heard: None,
            end: End::Open,
        };
        self.clients.insert(id, client);
    }

    /// Reads from a client. What it asks for is pushed to `heard`.
    pub fn visit(&mut self, registry: &Registry, id: u64, now: Mono, heard: &mut Vec<Request>) -> Progress {
        let Some(client) = self.clients.get_mut(&id) else { return Progress::Drained };
        client.flush();
        if client.end != End::Open {
            self.close_if_over(registry, id);
            return Progress::Drained;
        }
        if client.unsent() > UNHEARD {
            // Its next read makes the socket writable, and brings us back.
            return Progress::Drained;
        }
        let asked = heard.len();
        let progress = client.read(now, heard);
        client.owed += (heard.len() - asked) as u32;
        client.flush();
        match progress {
            Ok(progress) => progress,
            Err(Over::Finished) => {
                client.leave();
                self.close_if_over(registry, id);
                Progress::Drained
            }
            Err(Over::Lost) => {
                client.end = End::Gone;
                self.close_if_over(registry, id);
                Progress::Drained
            }
            Err(Over::Refused(error)) => {
                log::warn!("a client: {error}");
                self.send_away(registry, id, error);
                Progress::Drained
            }
        }
    }

    /// Tells a client why it is closed, and closes it: what its socket does not take now is not for it.
    fn send_away(&mut self, registry: &Registry, id: u64, error: String) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.push(&Message::Error { id: 0, error });
            client.flush();
            client.end = End::Gone;
        }
        self.close_if_over(registry, id);
    }

    /// Sends a message to a client, if it is still there.
    pub fn send(&mut self, id: u64, message: &Message) {
        if let Some(client) = self.clients.get_mut(&id) {
            if matches!(message, Message::Done { .. } | Message::Error { .. }) {
                client.owed = client.owed.saturating_sub(1);
            }
            client.push(message);
        }
    }

    /// Sends an event to whoever subscribed.
    pub fn publish(&mut self, event: Event) {
        if !self.clients.values().any(|client| client.subscribed) {
            return;
        }
        let line = line(&Message::Event(event));
        for client in self.clients.values_mut().filter(|client| client.subscribed) {
            if client.unsent() + line.len() > EVENTS_LIMIT {
                log::warn!("a subscriber does not read: it is cut off");
                client.end = End::Gone;
            } else {
                client.outbox.extend_from_slice(&line);
            }
        }
    }

    /// Whether anybody listens to topics.
    pub fn is_listened_to(&self) -> bool {
        self.clients.values().any(|client| !client.patterns.is_empty())
    }

    /// Sends a message of the bus to whoever listens to its topic, and keeps up.
    pub fn deliver(&mut self, mut message: BusMessage) {
        let topic = message.topic.clone();
        let wants = |client: &&mut Client| client.patterns.iter().any(|pattern| matches(pattern, &topic));
        let mut usual: Option<Vec<u8>> = None;
        for client in self.clients.values_mut().filter(wants) {
            let fresh;
            let bytes = if client.lost > 0 {
                message.lost = client.lost;
                fresh = line(&Message::Bus(message.clone()));
                &fresh
            } else {
                message.lost = 0;
                usual.get_or_insert_with(|| line(&Message::Bus(message.clone())))
            };
            if client.unsent() + bytes.len() > EVENTS_LIMIT {
                client.lost += 1;
            } else {
                client.lost = 0;
                client.outbox.extend_from_slice(bytes);
            }
        }
    }

    /// From now on the client gets messages whose topics these cover.
    pub fn listen(&mut self, id: u64, patterns: Vec<String>) -> Result<(), String> {
        if patterns.len() > PATTERNS {
            return Err(format!("listen: more than {PATTERNS} patterns"));
        }
        if let Some(fault) = patterns.iter().find_map(|pattern| pattern_fault(pattern)) {
            return Err(format!("listen: {fault}"));
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.patterns = patterns;
            self.changed.insert(id);
        }
        Ok(())
    }

    /// From now on the client gets events.
    pub fn subscribe(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.subscribed = true;
            self.changed.insert(id);
        }
    }

    /// Writes what waits for clients, and closes those that are finished.
    pub fn flush(&mut self, registry: &Registry) {
        let mut over = Vec::new();
        for (&id, client) in &mut self.clients {
            if client.sent < client.outbox.len() {
                failpoint::reach("before-sent");
                client.flush();
                failpoint::reach("after-sent");
            }
            if client.end != End::Open {
                over.push(id);
            }
        }
        for id in over {
            self.close_if_over(registry, id);
        }
    }

    /// Whether every client has everything.
    pub fn is_flushed(&self) -> bool {
        self.clients.values().all(|client| client.unsent() == 0)
    }

    /// When the next client is due with the rest of a request.
    pub fn deadline(&self) -> Option<Mono> {
        self.clients.values().filter_map(|client| client.due).min()
    }

    /// Turns away clients that owe the rest of a request for too long.
    pub fn expire(&mut self, registry: &Registry, now: Mono) {
        let late: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, c)| c.due.is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let error = format!("read a request: its end did not come within {} s", FRAME_DEADLINE.0 / 1_000);
            self.send_away(registry, id, error);
        }
    }

    fn close_if_over(&mut self, registry: &Registry, id: u64) {
        let over = self.clients.get(&id).is_some_and(|client| match client.end {
            End::Open => false,
            End::Leaving => client.owed == 0 && client.unsent() == 0,
            End::Gone => true,
        });
        if over && let Some(client) = self.clients.remove(&id) {
            self.changed.insert(id);
            failpoint::reach("left");
            unwatch(registry, client.stream.as_raw_fd());
            let stream = std::os::unix::net::UnixStream::from(client.stream);
            drop(Kept::from(stream));
        }
    }
}

/// Why nothing more is read from a client.
enum Over {
    /// It closed its side.
    Finished,
    /// The connection broke.
    Lost,
    /// It is sent away, and told why.
    Refused(String),
}

impl Client {
    fn read(&mut self, now: Mono, heard: &mut Vec<Request>) -> Result<Progress, Over> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..REQUESTS {
            if let Some(line) = self.inbox.next_line().map_err(|error| Over::Refused(error.to_string()))? {
                let line = line.to_vec();
                self.due = None;
                self.hear(&line, heard);
                continue;
            }
            if !self.inbox.is_partial() {
                self.due = None;
            } else if self.due.is_none() {
                self.due = Some(now + FRAME_DEADLINE);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Over::Finished),
                Ok(count) => self.inbox.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Over::Lost),
            }
        }
        Ok(Progress::More)
    }

    fn hear(&mut self, line: &[u8], heard: &mut Vec<Request>) {
        match serde_json::from_slice::<Request>(line) {
            Ok(request) if request.v == VERSION => {
                if let Some(known) = &mut self.heard {
                    if request.again && known.contains(&request.id) {
                        return;
                    }
                    known.push(request.id);
                    let surplus = known.len().saturating_sub(HEARD);
                    known.drain(..surplus);
                }
                heard.push(request);
            }
            Ok(request) => {
                let error = format!(
                    "the client speaks version {} of the protocol, the daemon version {VERSION}",
                    request.v
                );
                self.push(&Message::Error { id: request.id, error });
            }
            Err(error) => {
                let id = serde_json::from_slice::<serde_json::Value>(line)
                    .ok()
                    .and_then(|value| value.get("id")?.as_u64())
                    .unwrap_or(0);
                self.push(&Message::Error { id, error: format!("read a request: {error}") });
            }
        }
    }

    fn push(&mut self, message: &Message) {
        let line = line(message);
        if self.unsent() + line.len() > OUTBOX_LIMIT {
            log::warn!("a client does not read: it is cut off");
            self.end = End::Gone;
            return;
        }
        self.outbox.extend_from_slice(&line);
    }

    /// Tells it that we are another daemon. The last one may have left it in the middle of a line.
    fn resume(&mut self, pending: Vec<u64>) {
        self.heard = Some(pending.clone());
        self.outbox.push(b'\n');
        self.push(&Message::Resumed { pending });
    }

    fn unsent(&self) -> usize {
        if self.end == End::Gone { 0 } else { self.outbox.len() - self.sent }
    }

    /// It has asked its last; a request that it has begun is none.
    fn leave(&mut self) {
        self.due = None;
        if self.end == End::Open {
            self.end = End::Leaving;
        }
    }

    fn flush(&mut self) {
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end = End::Gone;
                    break;
                }
            }
        }
        if self.end == End::Gone {
            self.sent = self.outbox.len();
        }
        if self.sent < self.outbox.len() {
            // One that reads slowly and never catches up does not pile up what it has read.
            if self.sent >= SENT_PIECE {
                self.outbox.drain(..self.sent);
                self.sent = 0;
            }
            return;
        }
        self.outbox = Vec::new();
        self.sent = 0;
    }
}

fn line(message: &Message) -> Vec<u8> {
    // A message is made of strings and numbers: there is nothing in it that JSON cannot say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
