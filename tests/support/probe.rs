//! Looking at a daemon from outside: its /proc entries, and its socket without a client in between.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Home;

/// A number of `/proc/<pid>/status`, such as `VmRSS` (in kB).
pub fn status(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Resident memory in KiB.
pub fn rss(pid: i32) -> u64 {
    status(pid, "VmRSS")
}

/// The open fds: number and what it leads to.
pub fn fds(pid: i32) -> Vec<(i32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let number = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut found: Vec<(i32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry)?, std::fs::read_link(entry.path()).ok()?)))
        .collect();
    found.sort();
    found
}

/// How many fds a daemon has while nobody is connected to it.
pub fn idle_fds(home: &Home) -> usize {
    // When this one is answered, whoever left before it came has been forgotten.
    let mut client = Client::connect(home);
    client.ask(1, json!({ "verb": "ping" }));
    client.answer(1);
    fds(home.daemon_pid().unwrap()).len() - 1
}

/// Fields of `/proc/<pid>/stat` after the name: 0 is the state, 1 the parent, 3 the session.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(String::from).collect())
}

/// All processes there are.
pub fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The daemons of a home, however many there are.
pub fn daemons(home: &Home) -> Vec<i32> {
    let mark = format!("PMX_HOME={}", home.path().display());
    let is_daemon = |pid: &i32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let environment = read("environ");
        let line = read("cmdline");
        let mut words = line.split(|byte| *byte == 0);
        let is_keeper = read("comm") == b"pmx-keeper\n";
        words.nth(1) == Some(b"daemon")
            && !is_keeper
            && environment.split(|b| *b == 0).any(|v| v == mark.as_bytes())
    };
    pids().into_iter().filter(is_daemon).collect()
}

/// The keeper of a home's daemon.
pub fn keeper_pid(home: &Home) -> Option<i32> {
    let parent = stat(home.daemon_pid()?)?[1].parse().ok()?;
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    (comm == "pmx-keeper\n").then_some(parent)
}

/// Kills the daemon and its keeper, so that neither can help the other.
pub fn kill_both(home: &Home) {
    let (daemon, keeper) = (home.daemon_pid().unwrap(), keeper_pid(home).unwrap());
    for (pid, number) in [(keeper, libc::SIGSTOP), (daemon, libc::SIGKILL), (keeper, libc::SIGKILL)] {
        super::signal(pid, number);
    }
    super::wait_until("the end of both", || !super::is_alive(daemon) && !super::is_alive(keeper));
}

pub fn is_root() -> bool {
    pmx::sys::users::effective_uid() == 0
}

/// A client that says what it likes.
pub struct Client {
    pub stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Drop for Client {
    /// Who is forked off by another test has a copy of this connection until it executes its program: a close would
    /// be heard of only then.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Client {
    pub fn connect(home: &Home) -> Client {
        let stream = UnixStream::connect(home.path().join("pmx.sock")).unwrap();
        stream.set_read_timeout(Some(super::DEADLINE)).unwrap();
        stream.set_write_timeout(Some(super::DEADLINE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client { stream, reader }
    }

    pub fn send(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Sends a request; `rest` is its verb and what belongs to it.
    pub fn ask(&mut self, id: u64, rest: Value) {
        let mut request = json!({ "v": 1, "id": id });
        request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        self.send(&request.to_string());
    }

    /// The next message; `None` at the end.
    pub fn message(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            // A daemon that takes over ends the line of the last one first.
            Ok(_) if line == "\n" => self.message(),
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("read an answer: {error}"),
        }
    }

    /// The message that ends the request `id`.
    pub fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.message().expect("an answer before the end");
            for kind in ["done", "error"] {
                if message[kind]["id"] == id {
                    return message;
                }
            }
        }
    }
}

/// How long a ping takes on a connection of its own.
pub fn ping(home: &Home) -> Duration {
    let began = Instant::now();
    let mut client = Client::connect(home);
    client.ask(1, json!({ "verb": "ping" }));
    assert!(client.answer(1)["done"]["answer"]["pong"]["pid"].is_u64());
    began.elapsed()
}

/// Asserts that the daemon answers at once. A machine that stands still for a moment is not the daemon's fault: of a
/// few tries one is enough.
#[track_caller]
pub fn assert_prompt(home: &Home) {
    let mut took = Vec::new();
    while took.len() < 5 {
        took.push(ping(home));
        if took.last() < Some(&Duration::from_millis(500)) {
            return;
        }
    }
    panic!("pings took {took:?}");
}
