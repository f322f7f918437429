//! The way to the daemon: connect, or start one first. Requests go out and answers come back on one
//! blocking socket.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::front;
use super::home::Home;
use crate::protocol::{Answer, FRAME_LIMIT, Frames, Message, Progress, Request, VERSION, Verb};
use crate::sys::{lock, poll, proc, reason, socket};

/// How long a daemon may take until it serves, whoever started it.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How often a client looks again while another one starts the daemon.
const RETRY: Duration = Duration::from_millis(3);
/// How often a request is sent again to a daemon that has just taken over.
const AGAIN: u32 = 2;
/// The longest answer a client takes in.
const ANSWER_LIMIT: usize = 64 << 20;
/// The longest reason for not starting that is read from a new daemon.
const REASON_LIMIT: u64 = 4096;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    frames: Frames,
    last_id: u64,
}

/// Why a request has no answer.
#[derive(Debug, PartialEq)]
pub enum RequestError {
    /// It is longer than a daemon reads: so many bytes.
    TooLong(usize),
    /// The daemon's own sentence.
    Refused(String),
    /// The connection failed; one sentence.
    Lost(String),
}

impl From<RequestError> for String {
    fn from(error: RequestError) -> String {
        match error {
            RequestError::TooLong(bytes) => {
                format!("the request is {bytes} bytes long; the daemon takes at most {FRAME_LIMIT}")
            }
            RequestError::Refused(sentence) | RequestError::Lost(sentence) => sentence,
        }
    }
}

/// The process at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pid: i32,
    start_ticks: u64,
}

impl Connection {
    /// The daemon, while it lives.
    pub fn peer(&self) -> Option<Peer> {
        let (_, pid) = socket::peer_uid(&self.stream).ok()?;
        Some(Peer { pid, start_ticks: proc::stat(pid)?.start_ticks })
    }

    /// Its process id.
    pub fn pid(&self) -> Option<i32> {
        socket::peer_uid(&self.stream).ok().map(|(_, pid)| pid)
    }

    /// To a daemon that runs; `None` when there is none.
    pub fn existing(home: &Home) -> Result<Option<Connection>, String> {
        match socket::connect_control(&home.socket()) {
            Ok(stream) => Ok(Some(Connection { stream, frames: Frames::new(ANSWER_LIMIT), last_id: 0 })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(format!("connect to {}: {}", home.socket().display(), reason(&error))),
        }
    }

    /// To the daemon, which is started if none runs. Any number of clients may do this at once: the
    /// lock lets one of them start it, and the others wait for its socket.
    pub fn open(home: &Home, caller: &Caller) -> Result<Connection, String> {
        if !caller.is_pm2() {
            return open_by(home, caller, Instant::now() + START_DEADLINE);
        }
        front::refuse_pm2(home)?;
        let connection = open_by(home, caller, Instant::now() + START_DEADLINE)?;
        front::ensure(home, caller)?;
        Ok(connection)
    }

    /// Sends a request and waits for its answer, however long that takes.
    pub fn request(
        &mut self,
        verb: Verb,
        on_progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer, RequestError> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = Request { v: VERSION, id, again: false, verb };
        let first = line(&request)?;
        // A daemon that refuses us may close before it has read everything: its answer counts.
        let sent = self.stream.write_all(&first);
        let mut again = 0;
        loop {
            match self.message() {
                Ok(Message::Progress { id: of, progress }) if of == id => on_progress(&progress),
                Ok(Message::Done { id: of, answer }) if of == id => return Ok(answer),
                // 0: it could not even read whose request it was.
                Ok(Message::Error { id: of, error }) if of == id || of == 0 => {
                    return Err(RequestError::Refused(error));
                }
                // The daemon was replaced. What the new one does not know of, it is asked for again.
                Ok(Message::Resumed { pending }) if !pending.contains(&id) => {
                    if again == AGAIN {
                        let sentence = "the daemon died again and again when it was asked this";
                        return Err(RequestError::Lost(sentence.to_string()));
                    }
                    again += 1;
                    request.again = true;
                    let sent = self.stream.write_all(&line(&request)?);
                    sent.map_err(|error| RequestError::Lost(format!("ask again: {}", reason(&error))))?;
                }
                Ok(_) => {}
                Err(lost) => {
                    return Err(RequestError::Lost(match sent {
                        Err(error) => format!("send the request: {}", reason(&error)),
                        Ok(()) => lost,
                    }));
                }
            }
        }
    }

    /// The next message that comes by itself, until a deadline, or until nobody reads `reader` any more.
    pub fn next_message(
        &mut self,
        until: Option<Instant>,
        reader: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Message>, String> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            while let Some(line) = self.frames.next_line().map_err(|error| error.to_string())? {
                // What a daemon left in the middle when it died is followed by one that says so.
                if let Ok(message) = serde_json::from_slice(line) {
                    return Ok(Some(message));
                }
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let mut sources = vec![(self.stream.as_fd(), poll::Until::Readable)];
            sources.extend(reader.map(|fd| (fd, poll::Until::Closed)));
            let ready =
                poll::wait(&sources, left).map_err(|error| format!("wait for the daemon: {error}"))?;
            if ready.get(1) == Some(&true) {
                return Ok(None);
            }
            if !ready[0] {
                continue;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the daemon went away".to_string()),
                Ok(count) => self.frames.push(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("read what the daemon says: {error}")),
            }
        }
    }

    fn message(&mut self) -> Result<Message, String> {
        let mut chunk = vec![0; 64 << 10];
        let mut broken = None;
        loop {
            if let Some(line) = self.frames.next_line().map_err(|error| error.to_string())? {
                if line.is_empty() {
                    continue;
                }
                match (serde_json::from_slice(line), broken.take()) {
                    // A daemon that died in the middle of a line is followed by one that says so.
                    (Ok(message @ Message::Resumed { .. }), _) => return Ok(message),
                    (_, Some(error)) => return Err(error),
                    (Ok(message), None) => return Ok(message),
                    (Err(error), None) => {
                        broken = Some(format!(
                            "read the daemon's answer: {error} (is it of another version? pmx kill ends it)"
                        ));
                    }
                }
                continue;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(broken.unwrap_or_else(|| {
                        "the daemon went away before it answered (see pmx.log in its home)".to_string()
                    }));
                }
                Ok(count) => self.frames.push(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("read the daemon's answer: {}", reason(&error))),
            }
        }
    }
}

fn line(request: &Request) -> Result<Vec<u8>, RequestError> {
    let mut line = serde_json::to_vec(request)
        .map_err(|error| RequestError::Lost(format!("write the request: {error}")))?;
    if line.len() > FRAME_LIMIT {
        return Err(RequestError::TooLong(line.len()));
    }
    line.push(b'\n');
    Ok(line)
}

/// Waits until `daemon` has ended and let go of its home: the next command meets no trace of it.
pub fn wait_until_gone(home: &Home, daemon: Option<Peer>) -> Result<(), String> {
    let is_there = |peer: Peer| {
        proc::stat(peer.pid).is_some_and(|stat| stat.start_ticks == peer.start_ticks && stat.state != 'Z')
    };
    let path = home.lock();
    let deadline = Instant::now() + START_DEADLINE;
    let failed = |error| format!("lock {}: {}", path.display(), reason(&error));
    while daemon.is_some_and(is_there)
        || !lock::try_lock(&lock::open(&path).map_err(failed)?).map_err(failed)?
    {
        if Instant::now() >= deadline {
            return Err(format!("the daemon does not end (see {})", home.log().display()));
        }
        std::thread::sleep(RETRY);
    }
    Ok(())
}

fn open_by(home: &Home, caller: &Caller, deadline: Instant) -> Result<Connection, String> {
    if let Some(connection) = Connection::existing(home)? {
        return Ok(connection);
    }
    home.prepare()?;
    loop {
        let path = home.lock();
        let lock =
            lock::open(&path).map_err(|error| format!("open {}: {}", path.display(), reason(&error)))?;
        let ours =
            lock::try_lock(&lock).map_err(|error| format!("lock {}: {}", path.display(), reason(&error)))?;
        if ours {
            start(home, caller, lock, deadline)?;
        }
        if let Some(connection) = Connection::existing(home)? {
            return Ok(connection);
        }
        let socket = home.socket();
        if ours {
            return Err(format!("the daemon was started and does not answer on {}", socket.display()));
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "a daemon holds {} and does not answer on {} (see {})",
                path.display(),
                socket.display(),
                home.log().display()
            ));
        }
        std::thread::sleep(RETRY);
    }
}

/// Starts the daemon, which inherits `lock` and tells through a pipe that it serves, or why not.
fn start(home: &Home, caller: &Caller, lock: File, deadline: Instant) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("start the daemon: {}", reason(&error));
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(home.log());
    let log = log.map_err(|error| format!("open {}: {}", home.log().display(), reason(&error)))?;
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    lock::keep_over_exec(&lock).map_err(failed)?;
    lock::keep_over_exec(&writer).map_err(failed)?;
    let mut command = Command::new(&caller.exe);
    command
        .arg0("pmx")
        .args(["daemon", "--lock-fd", &lock.as_raw_fd().to_string()])
        .args(["--ready-fd", &writer.as_raw_fd().to_string()])
        .env("PMX_HOME", &home.path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    if caller.is_pm2() {
        command.env("PMX_COMPAT", "pm2").env("PM2_HOME", &home.path);
    }
    // Not waited for: it outlives us, and belongs to init then.
    command.spawn().map_err(failed)?;
    // Our ends must go, or we would never see the daemon's close.
    drop((lock, writer));
    let said = until_newline(reader, deadline).map_err(failed)?;
    match said.as_deref() {
        Some("ok") => Ok(()),
        Some("") => {
            Err(format!("start the daemon: it ended before it was ready (see {})", home.log().display()))
        }
        Some(reason) => Err(format!("start the daemon: {reason}")),
        None => Err(format!(
            "start the daemon: it was not ready within {} s (see {})",
            START_DEADLINE.as_secs(),
            home.log().display()
        )),
    }
}

/// The first line that comes, or what came until the end; `None` when time ran out.
fn until_newline(reader: PipeReader, deadline: Instant) -> std::io::Result<Option<String>> {
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        if !poll::wait(&[(reader.as_fd(), poll::Until::Readable)], Some(left))?[0] {
            continue;
        }
        let mut byte = [0];
        let got = (&reader).take(1).read(&mut byte)?;
        if got == 0 || byte[0] == b'\n' || said.len() as u64 >= REASON_LIMIT {
            return Ok(Some(String::from_utf8_lossy(&said).trim().to_string()));
        }
        said.push(byte[0]);
    }
}

#[cfg(test)]
mod tests;
