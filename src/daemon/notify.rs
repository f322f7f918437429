//! What children say by sd_notify(3): the sockets that their `NOTIFY_SOCKET` names, and who may speak on them.
//!
//! One socket for all children of our own user, in the home's private directory, and one in a place of its own
//! for children of other users, who cannot look into the home: an abstract name would be open to everybody and
//! to every other home, and a socket for each child would cost an fd for each. The kernel tells who sent a
//! datagram; it counts if that is a child of ours or a descendant of one.
//!
//! A datagram is read where it lies, and leaves the socket when what it led to is on record.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use mio::{Interest, Registry};
use serde::{Deserialize, Serialize};

use super::event_loop::Daemon;
use super::home::Home;
use super::source::{Progress, Source};
use crate::app::{App, Text};
use crate::supervisor::{ChildId, Input, Notice};
use crate::sys::census::Census;
use crate::sys::datagram::{self, Datagram};
use crate::sys::kept::Kept;
use crate::sys::{inherit, proc};
use crate::time::Millis;

/// The longest message that is understood: systemd's limit.
const LONGEST: usize = 4096;
/// Datagrams of one visit.
const BUDGET: usize = 64;
/// The longest text that is shown.
const STATUS_LIMIT: usize = 512;
/// How far above a sender a child of ours is looked for.
const GENERATIONS: usize = 64;

/// Who can reach a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// Our own user.
    Own,
    /// Every user.
    All,
}

/// One socket.
#[derive(Debug)]
struct Ear {
    reach: Reach,
    path: PathBuf,
    fd: Kept<OwnedFd>,
}

/// One socket for the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EarRecord {
    reach: Reach,
    path: Text,
    /// The socket.
    pub fd: RawFd,
}

/// The sockets.
#[derive(Debug, Default)]
pub struct Ears {
    ears: Vec<Ear>,
    /// One could not be made: it is said once.
    failed: bool,
    /// Datagrams of strangers.
    strangers: u64,
    /// There are more of them than the journal says.
    pub changed: bool,
}

/// One thing that a child said.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    /// It decides something.
    Decides(Notice),
    /// A line for people.
    Status(String),
    /// Which process is the main one.
    MainPid(i32),
}

/// What is remembered of a child's words for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Words {
    /// `STATUS=`
    pub status: Option<String>,
    /// `MAINPID=`
    pub main_pid: Option<i32>,
    /// When that process started, in ticks of this boot: what tells it from a later one of its number.
    pub main_since: u64,
}

impl Ears {
    /// The socket for a child of this app, made when it is first needed.
    pub fn path(&mut self, registry: &Registry, home: &Home, app: &App) -> Option<&Path> {
        if home.is_nowhere() {
            return None;
        }
        let reach = if app.user.is_some() { Reach::All } else { Reach::Own };
        if !self.ears.iter().any(|ear| ear.reach == reach) {
            match home.notify_socket(reach).and_then(|path| {
                let mode = if reach == Reach::All { 0o666 } else { 0o600 };
                let fd = datagram::bind(&path, mode)?;
                Ok(Ear { reach, path, fd: fd.into() })
            }) {
                Ok(ear) => {
                    ear.watch(registry);
                    self.ears.push(ear);
                    self.changed = true;
                }
                Err(error) if !std::mem::replace(&mut self.failed, true) => {
                    let reason = crate::sys::reason(&error);
                    log::error!("make the notify socket: {reason}; apps do without NOTIFY_SOCKET");
                }
                Err(_) => {}
            }
        }
        self.ears.iter().find(|ear| ear.reach == reach).map(|ear| ear.path.as_path())
    }

    /// For the journal.
    pub fn record(&self) -> Vec<EarRecord> {
        let record = |ear: &Ear| EarRecord {
            reach: ear.reach,
            path: Text::from(ear.path.as_path()),
            fd: ear.fd.as_raw_fd(),
        };
        self.ears.iter().map(record).collect()
    }

    /// Takes over the sockets of a daemon before us.
    pub fn restore(&mut self, registry: &Registry, records: Vec<EarRecord>) {
        for record in records {
            match inherit::take(record.fd) {
                Ok(fd) => {
                    let path = record.path.path().to_path_buf();
                    let ear = Ear { reach: record.reach, path, fd: fd.into() };
                    ear.watch(registry);
                    self.ears.push(ear);
                }
                Err(error) => log::error!("take over the notify socket {}: {error}", record.path),
            }
        }
    }

    /// Removes what only this daemon can have made.
    pub fn leave(&self) {
        for ear in &self.ears {
            let _ = std::fs::remove_file(&ear.path);
        }
    }

    fn ear(&self, reach: Reach) -> Option<&Ear> {
        self.ears.iter().find(|ear| ear.reach == reach)
    }

    fn refuse(&mut self, sender: &Datagram) {
        self.strangers += 1;
        // Whoever floods us does not fill the log.
        if self.strangers.is_power_of_two() {
            log::warn!(
                "process {} of user {} wrote to the notify socket and belongs to no app: ignored ({} so far)",
                sender.pid,
                sender.uid,
                self.strangers
            );
        }
    }
}

impl Ear {
    fn watch(&self, registry: &Registry) {
        super::watch::watch(registry, self.fd.as_raw_fd(), Source::Notify(self.reach), Interest::READABLE);
    }
}

impl Daemon {
    /// Takes what children have said.
    pub(super) fn hear(&mut self, reach: Reach) -> Progress {
        let mut buffer = [0; LONGEST];
        for _ in 0..BUDGET {
            let Some(ear) = self.ears.ear(reach) else { return Progress::Drained };
            let seen = match datagram::peek(ear.fd.as_fd(), &mut buffer) {
                Ok(Some(seen)) => seen,
                Ok(None) => return Progress::Drained,
                Err(error) => {
                    log::error!("read the notify socket: {error}");
                    return Progress::Drained;
                }
            };
            match self.member(seen.pid) {
                None => self.ears.refuse(&seen),
                Some(child) if seen.is_whole => {
                    self.busy_with(child);
                    let heard = parse(&buffer[..seen.len]);
                    if self.heard(child, heard) {
                        self.record();
                    }
                }
                Some(_) => log::debug!("{}: more than {LONGEST} bytes by sd_notify", seen.pid),
            }
            if let Some(ear) = self.ears.ear(reach)
                && let Err(error) = datagram::discard(ear.fd.as_fd())
            {
                log::error!("read the notify socket: {error}");
            }
        }
        Progress::More
    }

    /// The child that a process is, or descends from.
    pub(super) fn member(&self, pid: i32) -> Option<ChildId> {
        let mut pid = pid;
        for _ in 0..GENERATIONS {
            if pid <= 1 {
                return None;
            }
            if let Some(child) = self.children.find(pid) {
                return Some(child);
            }
            let stat = proc::stat(pid)?;
            // Nobody can enter the session of another process; one whose parent has ended is still in it.
            if let Some(child) = self.children.find(stat.session) {
                return Some(child);
            }
            pid = stat.parent;
        }
        None
    }

    /// When a process of a child started.
    fn member_since(&self, child: ChildId, pid: i32) -> Option<u64> {
        let since = proc::stat(pid)?.start_ticks;
        // One that left for the background has lost its parent, and may have a session of its own.
        let is_kept =
            || self.children.members(child, &Census::default()).iter().any(|member| member.pid == pid);
        (self.member(pid) == Some(child) || is_kept()).then_some(since)
    }

    /// Whether anything of it must be on record.
    fn heard(&mut self, child: ChildId, heard: Vec<Said>) -> bool {
        let mut lasts = false;
        for said in heard {
            match said {
                Said::Decides(notice) => {
                    lasts |= notice != Notice::Alive;
                    self.supervisor.handle(self.now, Input::Notified { child, notice });
                }
                Said::Status(text) => {
                    let text = Some(text).filter(|text| !text.is_empty());
                    lasts |= self.children.say(child, |words| words.status = text);
                }
                Said::MainPid(pid) => match self.member_since(child, pid) {
                    Some(since) => {
                        lasts |= self.children.say(child, |words| {
                            (words.main_pid, words.main_since) = (Some(pid), since);
                        });
                    }
                    None => log::info!("MAINPID={pid} is no process of the app that says so"),
                },
            }
        }
        lasts
    }
}

/// Understands a message, as far as it says something here.
fn parse(message: &[u8]) -> Vec<Said> {
    let message = message.strip_suffix(b"\0").unwrap_or(message);
    let Ok(text) = std::str::from_utf8(message) else { return Vec::new() };
    if text.contains('\0') {
        return Vec::new();
    }
    text.split('\n').filter_map(line).collect()
}

fn line(line: &str) -> Option<Said> {
    let (name, value) = line.split_once('=')?;
    let micros = || value.parse::<u64>().ok();
    // Rounded up: a millisecond is the shortest time here.
    let millis = |micros: u64| Millis(micros.div_ceil(1_000));
    Some(match (name, value) {
        ("READY", "1") => Said::Decides(Notice::Ready),
        ("RELOADING", "1") => Said::Decides(Notice::Reloading),
        ("STOPPING", "1") => Said::Decides(Notice::Stopping),
        ("WATCHDOG", "1") => Said::Decides(Notice::Alive),
        ("WATCHDOG", "trigger") => Said::Decides(Notice::Trigger),
        ("WATCHDOG_USEC", _) => {
            let every = micros()?;
            Said::Decides(Notice::Watchdog((every > 0 && every < u64::MAX).then(|| millis(every))))
        }
        ("EXTEND_TIMEOUT_USEC", _) => Said::Decides(Notice::Extend(millis(micros()?))),
        ("MAINPID", _) => Said::MainPid(value.parse().ok().filter(|pid| *pid > 1)?),
        ("STATUS", _) => {
            let end = (0..=STATUS_LIMIT.min(value.len())).rev().find(|at| value.is_char_boundary(*at))?;
            Said::Status(value[..end].to_string())
        }
        // BARRIER=1 is answered by closing what rides on it; ERRNO, MONOTONIC_USEC and the like say nothing here.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood_as_systemd_does() {
        let notice = |text: &str| match parse(text.as_bytes()).as_slice() {
            [Said::Decides(notice)] => Some(*notice),
            [] => None,
            other => panic!("{text}: {other:?}"),
        };
        for (text, expected) in [
            ("READY=1", Some(Notice::Ready)),
            ("READY=1\n", Some(Notice::Ready)),
            ("READY=1\0", Some(Notice::Ready)),
            ("READY=0", None),
            ("READY", None),
            (" READY=1", None),
            ("", None),
            ("\n\n", None),
            ("RELOADING=1\nMONOTONIC_USEC=12", Some(Notice::Reloading)),
            ("STOPPING=1\nERRNO=2\nEXIT_STATUS=3\nBARRIER=1\nX_MINE=4", Some(Notice::Stopping)),
            ("WATCHDOG=1", Some(Notice::Alive)),
            ("WATCHDOG=trigger", Some(Notice::Trigger)),
            ("WATCHDOG_USEC=1500", Some(Notice::Watchdog(Some(Millis(2))))),
            ("WATCHDOG_USEC=0", Some(Notice::Watchdog(None))),
            ("WATCHDOG_USEC=18446744073709551615", Some(Notice::Watchdog(None))),
            ("WATCHDOG_USEC=-1", None),
            ("EXTEND_TIMEOUT_USEC=5000000", Some(Notice::Extend(Millis(5_000)))),
            (
                "EXTEND_TIMEOUT_USEC=18446744073709551615",
                Some(Notice::Extend(Millis(18_446_744_073_709_552))),
            ),
            ("EXTEND_TIMEOUT_USEC=x", None),
            ("READY=1\0STATUS=x", None),
        ] {
            assert_eq!(notice(text), expected, "{text:?}");
        }
        assert_eq!(parse(b"READY=1\xff"), []);
        let both = [Said::Status("half é".into()), Said::Decides(Notice::Ready)];
        assert_eq!(parse("STATUS=half é\nREADY=1".as_bytes()), both);
        assert_eq!(parse(b"MAINPID=77"), [Said::MainPid(77)]);
        assert_eq!(parse(b"MAINPID=1"), []);
        assert_eq!(parse(b"STATUS="), [Said::Status(String::new())]);
    }

    #[test]
    fn a_status_is_cut_between_characters() {
        let long = format!("STATUS=x{}", "é".repeat(STATUS_LIMIT));
        let cut = format!("x{}", "é".repeat(STATUS_LIMIT / 2 - 1));
        assert_eq!(parse(long.as_bytes()), [Said::Status(cut)]);
    }

    #[test]
    fn random_bytes_harm_nothing() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.extend(match state >> 60 {
                    0..4 => vec![(state >> 32) as u8],
                    4..8 => b"STATUS=".to_vec(),
                    8..11 => b"\n".to_vec(),
                    11..13 => b"WATCHDOG_USEC=".to_vec(),
                    _ => (state >> 40).to_string().into_bytes(),
                });
            }
            let _ = parse(&bytes);
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }
}
