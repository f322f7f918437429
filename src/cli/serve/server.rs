//! The server: one thread, one poll, and a limit for everything that a client can make long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::files::{self, Found};
use super::request::{self, Part, Refused, Request};
use crate::sys::clock;
use crate::time::Wall;

/// Connections at a time; others wait in the backlog.
const CONNECTIONS: usize = 1_024;
/// The longest head of a request.
const HEAD: usize = 8 << 10;
/// How long a client may take for a whole head, and until it begins the next one.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long it may take for so many bytes of an answer.
const STALL: Duration = Duration::from_secs(30);
const STALL_BYTES: u64 = 64 << 10;
/// What one connection may move before it is another one's turn.
const BUDGET: usize = 1 << 20;
const CHUNK: usize = 64 << 10;
/// How long what a client still sends is thrown away, so that it can read why.
const FAREWELL: Duration = Duration::from_secs(2);
/// How soon it is tried again to accept, when there was no room for another file.
const RETRY: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(usize::MAX);

/// What is served, and to whom.
#[derive(Debug, Default)]
pub struct Site {
    /// The folder.
    pub root: PathBuf,
    /// The file for `/`.
    pub homepage: PathBuf,
    /// What is missing is one page that finds its way by itself.
    pub spa: bool,
    /// The word after `Basic` that opens the door.
    pub credentials: Option<String>,
}

struct Connection {
    stream: TcpStream,
    /// What was read and is no answer's yet.
    input: Vec<u8>,
    answer: Option<Answer>,
    /// All is said.
    closing: bool,
    deadline: Instant,
}

struct Answer {
    head: Vec<u8>,
    sent: usize,
    body: Option<Body>,
    close: bool,
    /// Since the deadline was set.
    moved: u64,
}

/// So much of a file is still to be sent.
struct Body {
    file: File,
    at: u64,
    end: u64,
}

/// What becomes of a connection after a visit.
enum Visit {
    Waits,
    More,
    Over,
}

/// Serves until the process is ended.
pub fn serve(address: SocketAddr, site: &Site) -> io::Result<std::convert::Infallible> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("serving {} on {}", site.root.display(), listener.local_addr()?);
    let mut events = Events::with_capacity(256);
    let mut connections: BTreeMap<usize, Connection> = BTreeMap::new();
    let mut ready: BTreeSet<usize> = BTreeSet::new();
    let mut next = 0;
    // Told once, so whoever could not be accepted is remembered.
    let mut waiting = false;
    let mut chunk = vec![0; CHUNK];
    loop {
        let now = Instant::now();
        let due = connections.values().map(|connection| connection.deadline).min();
        let mut timeout = due.map(|due| due.saturating_duration_since(now));
        if waiting && connections.len() < CONNECTIONS {
            timeout = Some(timeout.map_or(RETRY, |timeout| timeout.min(RETRY)));
        }
        if !ready.is_empty() {
            timeout = Some(Duration::ZERO);
        }
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => waiting = true,
                Token(number) => {
                    ready.insert(number);
                }
            }
        }
        let now = Instant::now();
        while waiting && connections.len() < CONNECTIONS {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if poll.registry().register(&mut stream, Token(next), interest).is_ok() {
                        let deadline = now + HEAD_TIME;
                        let connection =
                            Connection { stream, input: Vec::new(), answer: None, closing: false, deadline };
                        connections.insert(next, connection);
                        next += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => waiting = false,
                // Gone before we came, which is no reason to stop.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    eprintln!("accept: {}", crate::sys::reason(&error));
                    break;
                }
            }
        }
        for number in std::mem::take(&mut ready) {
            let Some(connection) = connections.get_mut(&number) else { continue };
            match connection.visit(site, &mut chunk, now) {
                Visit::Waits => {}
                Visit::More => {
                    ready.insert(number);
                }
                Visit::Over => {
                    connections.remove(&number);
                }
            }
        }
        connections.retain(|_, connection| connection.deadline > now);
    }
}

impl Connection {
    fn visit(&mut self, site: &Site, chunk: &mut [u8], now: Instant) -> Visit {
        let mut moved = 0;
        while moved < BUDGET {
            let step = match self.answer.is_some() {
                true => self.write(chunk, now),
                false => self.read(site, chunk, now),
            };
            match step {
                Ok(0) => return Visit::Over,
                Ok(count) => moved += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Visit::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Visit::Over,
            }
        }
        Visit::More
    }

    /// One step towards a request. 0: there will be none.
    fn read(&mut self, site: &Site, chunk: &mut [u8], now: Instant) -> io::Result<usize> {
        if self.closing {
            return self.stream.read(chunk);
        }
        if let Some(end) = request::end_of_head(&self.input) {
            let head: Vec<u8> = self.input.drain(..end).collect();
            self.answer = Some(answer(site, request::read(&head)));
            self.deadline = now + STALL;
            return Ok(1);
        }
        if self.input.len() >= HEAD {
            self.input.clear();
            self.answer = Some(answer(site, Err(Refused(431))));
            self.deadline = now + STALL;
            return Ok(1);
        }
        let count = self.stream.read(&mut chunk[..HEAD])?;
        self.input.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// One step of an answer. 0: it was the last one.
    fn write(&mut self, chunk: &mut [u8], now: Instant) -> io::Result<usize> {
        let Some(answer) = &mut self.answer else { return Ok(1) };
        let count = if answer.sent < answer.head.len() {
            let count = self.stream.write(&answer.head[answer.sent..])?;
            answer.sent += count;
            count
        } else if let Some(Body { file, at, end }) = &mut answer.body
            && at < end
        {
            let most = chunk.len().min(usize::try_from(*end - *at).unwrap_or(usize::MAX));
            // A file that has become shorter: what was promised cannot be kept.
            let count = file.read_at(&mut chunk[..most], *at)?;
            let count = if count == 0 { 0 } else { self.stream.write(&chunk[..count])? };
            *at += count as u64;
            count
        } else {
            let close = answer.close;
            self.answer = None;
            self.deadline = now + HEAD_TIME;
            if close {
                self.stream.shutdown(std::net::Shutdown::Write)?;
                self.closing = true;
                self.deadline = now + FAREWELL;
            }
            return Ok(1);
        };
        answer.moved += count as u64;
        if answer.moved >= STALL_BYTES {
            answer.moved = 0;
            self.deadline = now + STALL;
        }
        Ok(count)
    }
}

/// What there is to say to a request.
fn answer(site: &Site, request: Result<Request, Refused>) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(Refused(status)) => {
            // What comes after it is not looked at.
            let request = Request { close: true, ..Request::default() };
            return told(&request, status, "");
        }
    };
    if let Some(word) = &site.credentials
        && !request.credentials.as_ref().is_some_and(|given| same(given.as_bytes(), word.as_bytes()))
    {
        return told(&request, 401, "WWW-Authenticate: Basic realm=\"pmx\", charset=\"UTF-8\"\r\n");
    }
    let mut path = request.path.clone();
    if path.as_os_str().is_empty() {
        path = site.homepage.clone();
    }
    let mut found = files::find(&site.root, &path);
    if matches!(found, Found::Folder) {
        if !request.is_folder {
            return told(&request, 301, &format!("Location: {}\r\n", encoded(&path)));
        }
        path.push("index.html");
        found = files::find(&site.root, &path);
    }
    if let (Found::Nothing, true) = (&found, site.spa) {
        // As pm2: what a page below asks for by a relative path, then the page.
        let name = request.path.file_name().map(PathBuf::from);
        for other in name.into_iter().chain([PathBuf::from("index.html")]) {
            found = files::find(&site.root, &other);
            path = other;
            if matches!(found, Found::File(..)) {
                break;
            }
        }
    }
    match found {
        Found::File(file, metadata) => sent(&request, &path, file, &metadata, 200),
        Found::Forbidden => told(&request, 403, ""),
        Found::Folder | Found::Nothing => {
            let page = Path::new("404.html");
            match files::find(&site.root, page) {
                Found::File(file, metadata) => sent(&request, page, file, &metadata, 404),
                _ => told(&request, 404, ""),
            }
        }
    }
}

/// A file, or the part of it that is wanted.
fn sent(request: &Request, path: &Path, file: File, metadata: &Metadata, status: u16) -> Answer {
    let length = metadata.len();
    let changed = Wall(metadata.mtime().max(0) as u64 * 1_000);
    let tag = format!("\"{:x}-{length:x}\"", changed.0.wrapping_add(metadata.mtime_nsec() as u64));
    let kind = files::media_type(path);
    let about = format!("ETag: {tag}\r\nLast-Modified: {}\r\n", date(changed));
    let knows = |known: &String| known == "*" || known.split(',').any(|known| known.trim() == tag);
    if status == 200 && request.known.as_ref().is_some_and(knows) {
        return Answer::new(request, 304, &about, None);
    }
    let (mut status, mut at, mut end) = (status, 0, length);
    let mut lines = format!("{about}Content-Type: {kind}\r\nAccept-Ranges: bytes\r\n");
    if let Some(part) = request.range.filter(|_| status == 200) {
        match part {
            Part::From(from, to) => {
                at = from;
                end = to.map_or(length, |to| to.saturating_add(1)).min(length);
            }
            Part::Last(count) => at = length - count.min(length),
        }
        if at >= end {
            return told(request, 416, &format!("Content-Range: bytes */{length}\r\n"));
        }
        status = 206;
        lines.push_str(&format!("Content-Range: bytes {at}-{}/{length}\r\n", end - 1));
    }
    lines.push_str(&format!("Content-Length: {}\r\n", end - at));
    Answer::new(request, status, &lines, Some(Body { file, at, end }))
}

/// A status and its name.
fn told(request: &Request, status: u16, lines: &str) -> Answer {
    let text = format!("{status} {}\n", name(status));
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let lines = format!("{lines}{allow}Content-Type: text/plain\r\nContent-Length: {}\r\n", text.len());
    let mut answer = Answer::new(request, status, &lines, None);
    if !request.head_only {
        answer.head.extend_from_slice(text.as_bytes());
    }
    answer
}

impl Answer {
    fn new(request: &Request, status: u16, lines: &str, body: Option<Body>) -> Answer {
        let connection = if request.close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nDate: {}\r\n{lines}Access-Control-Allow-Origin: *\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\r\n",
            name(status),
            date(clock::wall()),
        );
        let body = body.filter(|_| !request.head_only);
        Answer { head: head.into_bytes(), sent: 0, body, close: request.close, moved: 0 }
    }
}

fn name(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// As long for a right guess as for a wrong one.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The address of a folder, which begins with one slash and ends with one.
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for part in path {
        text.push('/');
        for byte in part.as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(*byte));
                }
                byte => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text + "/"
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn date(at: Wall) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = at.to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    let day = DAYS[(at.0 / 86_400_000 % 7) as usize];
    format!("{day}, {} {} {} {} GMT", &text[8..10], MONTHS[month - 1], &text[..4], &text[11..19])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_addresses_are_written_as_http_wants_them() {
        assert_eq!(date(Wall(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(Wall(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(encoded(Path::new("evil.com/a b")), "/evil.com/a%20b/");
        assert!(same(b"ab", b"ab") && !same(b"ab", b"ac") && !same(b"ab", b"abc"));
    }
}
