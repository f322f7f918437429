//! Health checks under way: at most one for a child. When one begins and how long it may take is decided
//! elsewhere; this makes it.
//!
//! A worker that shares its port is asked by a connection of our own that is handed to it over its channel, as
//! those of `balance: rr` are. So it is this worker that answers, whatever the policy, even one that may not
//! accept yet; and a worker that does not take the connection fails.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::{Interest, Registry};

use super::bounds;
use super::children::{self, Child, Children, c_environment, c_string};
use super::home::Home;
use super::primary::{Door, Primary};
use super::source::{Progress, Source};
use crate::app::health::{Address, Check};
use crate::app::{self, App, Health, Identity, Text};
use crate::node;
use crate::supervisor::{ChildId, Input};
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::spawn::{self, Spawn};
use crate::sys::{pidfd, pipe, socket};
use crate::time::Wall;

/// As much of an answer is read as is there with its first line.
const ANSWER: usize = 64 << 10;
/// What of a command's words on stderr is looked at.
const WORDS: usize = 4 << 10;

/// The checks under way.
#[derive(Debug, Default)]
pub struct Checks {
    running: BTreeMap<ChildId, Running>,
}

/// One check under way.
#[derive(Debug)]
enum Running {
    /// A request.
    Asked {
        stream: TcpStream,
        handed: Option<u64>,
        request: Vec<u8>,
        sent: usize,
        answer: Vec<u8>,
        expect: (u16, u16),
    },
    /// A connection of its own.
    Connecting { stream: TcpStream },
    /// A connection that a worker shall take.
    Handed { seq: u64, _ours: OwnedFd },
    /// A command.
    Command { pid: i32, _pidfd: Option<OwnedFd>, words: OwnedFd },
}

/// How a check ended.
type Verdict = Result<(), String>;

/// What a check needs to know.
pub struct Ask<'a> {
    /// Whose health.
    pub child: ChildId,
    /// What it runs.
    pub app: &'a App,
    /// When its process was added.
    pub created: Wall,
    /// The home.
    pub home: &'a Home,
}

impl Checks {
    /// Begins a check. `Some`: it is over already.
    pub fn begin(
        &mut self,
        registry: &Registry,
        children: &mut Children,
        primary: &mut Primary,
        ask: &Ask,
    ) -> Option<Input> {
        let child = ask.child;
        let health = ask.app.health.as_ref()?;
        let begun = match children.get(child) {
            None => Err("it has ended".to_string()),
            Some(living) => match &health.check {
                Check::Exec { command } => execute(ask, children, living, command),
                Check::Http { address, .. } | Check::Tcp { address } => {
                    let (instance, address) = (living.instance, address.clone());
                    connect(registry, children, primary, ask, instance, &address, health)
                }
            },
        };
        match begun {
            Ok(running) => {
                if let Some(fd) = running.watched() {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    super::watch::watch(registry, fd, Source::Check(child), interest);
                }
                self.running.insert(child, running);
                None
            }
            Err(reason) => Some(Input::Checked { child, result: Err(reason) }),
        }
    }

    /// Gives a check up.
    pub fn end(&mut self, registry: &Registry, child: ChildId) {
        let Some(running) = self.running.remove(&child) else { return };
        if let Some(fd) = running.watched() {
            super::watch::unwatch(registry, fd);
        }
        if let Running::Command { pid, .. } = running
            && let Err(error) = pidfd::send_group(pid, libc::SIGKILL)
        {
            log::debug!("end a health check: {error}");
        }
    }

    fn over(&mut self, registry: &Registry, child: ChildId, result: Verdict) -> Input {
        self.end(registry, child);
        Input::Checked { child, result }
    }

    /// The connection of a check has something.
    pub fn visit(&mut self, registry: &Registry, child: ChildId) -> (Progress, Option<Input>) {
        let Some(running) = self.running.get_mut(&child) else { return (Progress::Drained, None) };
        let result = running.advance().map(|result| self.over(registry, child, result));
        (Progress::Drained, result)
    }

    /// A worker answered for a connection. `Some`: it was that of its check, which is over.
    pub fn acknowledged(
        &mut self,
        registry: &Registry,
        child: ChildId,
        seq: u64,
        accepted: bool,
    ) -> Option<Input> {
        let result = match self.running.get(&child)? {
            Running::Handed { seq: ours, .. } if *ours == seq && accepted => Ok(()),
            Running::Handed { seq: ours, .. } | Running::Asked { handed: Some(ours), .. }
                if *ours == seq && !accepted =>
            {
                Err("it takes no connection".to_string())
            }
            _ => return None,
        };
        Some(self.over(registry, child, result))
    }

    /// A process ended. `Some`: it was the command of a check, which is over.
    pub fn reaped(&mut self, reaped: &Reaped) -> Option<Input> {
        let is_it = |running: &Running| matches!(running, Running::Command { pid, .. } if *pid == reaped.pid);
        let child = self.running.iter().find(|(_, running)| is_it(running)).map(|(child, _)| *child)?;
        let Some(Running::Command { words, .. }) = self.running.remove(&child) else { return None };
        let result = match reaped.status {
            ExitStatus::Code(0) => Ok(()),
            status => Err(format!("{}{}", children::describe(status), last_words(words))),
        };
        // What it started and left goes with it.
        let _ = pidfd::send_group(reaped.pid, libc::SIGKILL);
        Some(Input::Checked { child, result })
    }
}

impl Running {
    fn watched(&self) -> Option<i32> {
        match self {
            Running::Asked { stream, .. } | Running::Connecting { stream } => Some(stream.as_raw_fd()),
            Running::Handed { .. } | Running::Command { .. } => None,
        }
    }

    /// As far as it goes without waiting.
    fn advance(&mut self) -> Option<Verdict> {
        match self {
            Running::Handed { .. } | Running::Command { .. } => None,
            Running::Connecting { stream } => match stream.take_error() {
                Ok(Some(error)) | Err(error) => Some(Err(refused(&error))),
                Ok(None) => stream.peer_addr().is_ok().then_some(Ok(())),
            },
            Running::Asked { stream, request, sent, answer, expect, .. } => {
                let step = exchange(stream, request, sent, answer);
                match (status(answer), step) {
                    (Some(status), _) if (expect.0..=expect.1).contains(&status) => Some(Ok(())),
                    (Some(status), _) => Some(Err(format!("it answered {status}"))),
                    (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
                    (None, Err(error)) => Some(Err(refused(&error))),
                    (None, Ok(())) => Some(Err("what it answered is no HTTP".to_string())),
                }
            }
        }
    }
}

fn refused(error: &io::Error) -> String {
    crate::sys::reason(error)
}

/// Sends what is left of the request, then reads what there is. `Ok`: there is no more.
fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    sent: &mut usize,
    answer: &mut Vec<u8>,
) -> io::Result<()> {
    while *sent < request.len() {
        *sent += stream.write(&request[*sent..]).map_err(|error| match error.kind() {
            // It is not connected yet.
            io::ErrorKind::NotConnected => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })?;
    }
    let mut buffer = [0; 4096];
    while answer.len() < ANSWER {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The status of an answer, once that is there.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(2..5).filter(|_| rest[0].is_ascii_digit() && rest[1] == b' ')?;
    std::str::from_utf8(code).ok()?.parse().ok().filter(|code| (100..=599).contains(code))
}

fn connect(
    registry: &Registry,
    children: &mut Children,
    primary: &mut Primary,
    ask: &Ask,
    instance: u32,
    address: &Address,
    health: &Health,
) -> Result<Running, String> {
    let at = address.at(instance);
    let is_here = address.ip.is_none_or(|ip| ip.is_loopback());
    let door =
        if is_here { primary.door(ask.app, ask.child, at.map(|at| at.port())) } else { Door::Elsewhere };
    let (stream, handed) = match (door, at) {
        (Door::Own(key), _) => {
            let (ours, theirs) =
                connection().map_err(|error| format!("make a connection: {}", refused(&error)))?;
            let seq = primary.next_seq();
            let message = node::new_connection(&key, seq);
            if !children.send(registry, ask.child, message, Some(theirs.as_fd())) {
                return Err("it does not read its channel".to_string());
            }
            (ours, Some(seq))
        }
        (Door::Closed, _) => return Err("it does not listen".to_string()),
        (Door::Elsewhere, None) => return Err("it does not listen on a port that pmx knows of".to_string()),
        (Door::Elsewhere, Some(at)) => (socket::connect_tcp(at).map_err(|error| refused(&error))?, None),
    };
    match (&health.check, handed) {
        (Check::Http { path, expect, .. }, _) => Ok(Running::Asked {
            stream: stream.into(),
            handed,
            request: request(path, at),
            sent: 0,
            answer: Vec::new(),
            expect: *expect,
        }),
        (_, Some(seq)) => Ok(Running::Handed { seq, _ours: stream }),
        (_, None) => Ok(Running::Connecting { stream: stream.into() }),
    }
}

/// A connection with both of its ends, over the loopback where there is one: apps look at who connects.
fn connection() -> io::Result<(OwnedFd, OwnedFd)> {
    socket::loopback_pair().or_else(|_| socket::pair())
}

fn request(path: &str, at: Option<SocketAddr>) -> Vec<u8> {
    let host = match at {
        None => "localhost".to_string(),
        Some(at) if at.ip() == IpAddr::from([127, 0, 0, 1]) => format!("localhost:{}", at.port()),
        Some(at) => at.to_string(),
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pmx-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Starts the command of a check as the app itself would be started, without its channel.
fn execute(ask: &Ask, children: &Children, living: &Child, command: &Text) -> Result<Running, String> {
    let app = ask.app;
    let identity = Identity {
        id: living.process.0,
        instance: living.instance,
        created: ask.created,
        home: ask.home.path(),
        notify: None,
        cluster: app.is_cluster(),
        mark: living.mark(),
    };
    let env = app::environment(app, &identity, None);
    let failed = |what: &str, error: io::Error| format!("{what}: {}", refused(&error));
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| failed("open /dev/null", error))?;
    let (words, stderr) = pipe::for_output().map_err(|error| failed("make a pipe", error))?;
    let fds = [(null.as_raw_fd(), 0), (null.as_raw_fd(), 1), (stderr.as_raw_fd(), 2)];
    let limits = bounds::limits(&app.limits);
    let spawned = spawn::spawn(&Spawn {
        programs: &[c"/bin/sh".to_owned()],
        argv: &[c"sh".to_owned(), c"-c".to_owned(), c_string(command.bytes())?],
        env: &c_environment(&env)?,
        cwd: &c_string(app.cwd.bytes())?,
        fds: &fds,
        ..bounds::spawn(app, &limits, children)
    })
    .map_err(|error| error.to_string())?;
    Ok(Running::Command { pid: spawned.pid, _pidfd: spawned.pidfd, words })
}

/// The last line of what a command wrote, behind a colon.
fn last_words(words: OwnedFd) -> String {
    let mut bytes = vec![0; WORDS];
    // It does not block: all that there will be is there.
    let count = std::fs::File::from(words).read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .map_or(String::new(), |line| format!(": {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_found_once_it_is_there() {
        for (answer, expected) in [
            (&b""[..], None),
            (b"HTTP/1.1 20", None),
            (b"HTTP/1.1 200", Some(200)),
            (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", Some(503)),
            (b"HTTP/1.1 999 x", None),
            (b"HTTP/1.1  20 x", None),
            (b"HTTP/2 200", None),
            (b"SSH-2.0-x 200", None),
        ] {
            assert_eq!(status(answer), expected, "{:?}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn a_request_is_for_a_host() {
        let line = |at: Option<&str>| {
            let text = String::from_utf8(request("/x?y", at.map(|at| at.parse().unwrap()))).unwrap();
            text.lines().take(2).map(String::from).collect::<Vec<_>>().join("|")
        };
        assert_eq!(line(None), "GET /x?y HTTP/1.1|Host: localhost");
        assert_eq!(line(Some("127.0.0.1:80")), "GET /x?y HTTP/1.1|Host: localhost:80");
        assert_eq!(line(Some("[::1]:80")), "GET /x?y HTTP/1.1|Host: [::1]:80");
    }
}
