//! The way to the daemon: one connection, on which many ask at once. It is opened when somebody asks and outlives
//! the daemon's own death; what is lost on the way is asked again.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::protocol::{
    Answer, BusMessage, Event, FRAME_LIMIT, Frames, Message, Progress, Request, VERSION, Verb,
};
use crate::sys::{reason, socket};

/// The longest answer that is taken in.
const ANSWER_LIMIT: usize = 64 << 20;
/// So much may be asked and not answered.
const PENDING: usize = 1_024;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A connection.
    Connection(usize),
    /// A connection that follows log files: there may be more of them now.
    Follower(usize),
    /// All that are shown the processes.
    Viewers,
    /// Nobody waits for it.
    Nobody,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
pub enum Failed {
    /// The daemon's own sentence.
    Refused(String),
    /// It cannot be reached; one sentence.
    Lost(String),
}

/// What the daemon says.
#[derive(Debug)]
pub enum Heard {
    /// A step towards an answer.
    Progress(Asker, Progress),
    /// An answer.
    Answered(Asker, Result<Answer, Failed>),
    /// Something happened to a process.
    Event(Event),
    /// Somebody published something that is listened to.
    Message(BusMessage),
    /// The daemon is gone, and nothing is listened to any more.
    Gone,
}

/// The connection and what is asked on it.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    token: Token,
    stream: Option<UnixStream>,
    frames: Frames,
    outbox: Vec<u8>,
    next: u64,
    pending: BTreeMap<u64, (Request, Asker)>,
    subscribed: bool,
}

impl Control {
    /// To the socket at `path`, not connected yet.
    pub fn new(path: PathBuf, token: Token) -> Control {
        let frames = Frames::new(ANSWER_LIMIT);
        let (outbox, pending) = (Vec::new(), BTreeMap::new());
        Control { path, token, stream: None, frames, outbox, next: 0, pending, subscribed: false }
    }

    /// Asks the daemon.
    pub fn ask(&mut self, registry: &Registry, verb: Verb, asker: Asker) -> Result<(), Failed> {
        self.connect(registry)?;
        if self.pending.len() >= PENDING {
            return Err(Failed::Lost("the daemon does not answer".to_string()));
        }
        self.next += 1;
        let request = Request { v: VERSION, id: self.next, again: false, verb };
        let line = line(&request)?;
        self.outbox.extend_from_slice(&line);
        self.pending.insert(self.next, (request, asker));
        self.flush();
        Ok(())
    }

    /// From now on events are heard.
    pub fn subscribe(&mut self, registry: &Registry) -> Result<(), Failed> {
        if self.stream.is_none() || !self.subscribed {
            self.ask(registry, Verb::Subscribe, Asker::Nobody)?;
            self.subscribed = true;
        }
        Ok(())
    }

    /// Whether this one waits for an answer.
    pub fn is_asked(&self, asker: Asker) -> bool {
        self.pending.values().any(|(_, pending)| *pending == asker)
    }

    /// Nobody waits for what this one asked any more.
    pub fn forget(&mut self, asker: Asker) {
        for (_, pending) in self.pending.values_mut().filter(|(_, pending)| *pending == asker) {
            *pending = Asker::Nobody;
        }
    }

    /// Events are not wanted any more.
    pub fn unsubscribe(&mut self) {
        if self.subscribed && self.pending.is_empty() {
            self.close();
        }
    }

    fn connect(&mut self, registry: &Registry) -> Result<(), Failed> {
        if self.stream.is_some() {
            return Ok(());
        }
        let opened = socket::connect_control(&self.path).and_then(|stream| {
            stream.set_nonblocking(true)?;
            let mut stream = UnixStream::from_std(stream);
            registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        let lost = |error| Failed::Lost(format!("reach the daemon: {}", reason(&error)));
        self.stream = Some(opened.map_err(lost)?);
        Ok(())
    }

    fn close(&mut self) {
        self.stream = None;
        self.frames = Frames::new(ANSWER_LIMIT);
        self.outbox.clear();
        self.subscribed = false;
    }

    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while !self.outbox.is_empty() {
            match stream.write(&self.outbox) {
                Ok(count) => {
                    self.outbox.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // If it is gone, reading says so.
                Err(_) => return,
            }
        }
    }

    /// Takes in what has come, all of it.
    pub fn visit(&mut self) -> Vec<Heard> {
        self.flush();
        let mut heard = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut chunk) {
                Ok(0) => self.lose(&mut heard),
                Ok(count) => {
                    self.frames.push(&chunk[..count]);
                    self.messages(&mut heard);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lose(&mut heard),
            }
        }
        heard
    }

    fn lose(&mut self, heard: &mut Vec<Heard>) {
        self.close();
        for (_, asker) in std::mem::take(&mut self.pending).into_values() {
            let sentence = "the daemon went away before it answered".to_string();
            heard.push(Heard::Answered(asker, Err(Failed::Lost(sentence))));
        }
        heard.push(Heard::Gone);
    }

    fn messages(&mut self, heard: &mut Vec<Heard>) {
        loop {
            let message = match self.frames.next_line() {
                // What a daemon left in the middle when it died is followed by one that says so.
                Ok(Some(line)) => serde_json::from_slice(line).ok(),
                Ok(None) => return,
                Err(_) => return self.lose(heard),
            };
            match message {
                Some(Message::Progress { id, progress }) => {
                    if let Some((_, asker)) = self.pending.get(&id) {
                        heard.push(Heard::Progress(*asker, progress));
                    }
                }
                Some(Message::Done { id, answer }) => {
                    if let Some((_, asker)) = self.pending.remove(&id) {
                        heard.push(Heard::Answered(asker, Ok(answer)));
                    }
                }
                Some(Message::Error { id, error }) => {
                    if let Some((_, asker)) = self.pending.remove(&id) {
                        heard.push(Heard::Answered(asker, Err(Failed::Refused(error))));
                    }
                }
                Some(Message::Event(event)) => heard.push(Heard::Event(event)),
                Some(Message::Resumed { pending }) => self.resume(&pending),
                Some(Message::Bus(message)) => heard.push(Heard::Message(message)),
                None => {}
            }
        }
    }

    /// Another daemon has taken over, and knows of these requests only.
    fn resume(&mut self, known: &[u64]) {
        for (id, (request, _)) in &mut self.pending {
            if !known.contains(id) {
                request.again = true;
                self.outbox.extend(line(request).unwrap_or_default());
            }
        }
        self.flush();
    }
}

fn line(request: &Request) -> Result<Vec<u8>, Failed> {
    let refused = |sentence: String| Failed::Refused(sentence);
    let mut line = serde_json::to_vec(request).map_err(|error| refused(format!("write it: {error}")))?;
    if line.len() > FRAME_LIMIT {
        return Err(refused(format!("it is {} bytes long; the daemon takes {FRAME_LIMIT}", line.len())));
    }
    line.push(b'\n');
    Ok(line)
}
