//! Becoming another program without anybody noticing: the new one is first asked, in a process of its own,
//! whether it can read what we would leave to it; then we end in order, and the keeper becomes it. Whatever
//! goes wrong, we or our like go on, and whoever asked is told why.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;

use serde::{Deserialize, Serialize};

use super::children::c_string;
use super::event_loop::Daemon;
use super::record::{FORMAT, Left};
use crate::app::Text;
use crate::protocol::{Answer, Message};
use crate::sys::board::{Phase, Slot};
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::spawn::{self, Spawn};
use crate::sys::{failpoint, pidfd, pipe};
use crate::time::{Millis, Mono};

/// How long the new program may take to say whether it can go on for us.
const PATIENCE: Millis = Millis(10_000);
/// How much of what it says is passed on.
const SAID: u64 = 2_048;

/// An update that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    client: u64,
    id: u64,
    program: Text,
    /// The version that it is to replace.
    from: String,
}

impl Asked {
    /// The client, and what it called its request.
    pub fn who(&self) -> (u64, u64) {
        (self.client, self.id)
    }
}

/// What a program says that can go on; its version follows. Any program may exit with 0.
pub const CAN_GO_ON: &str = "can go on: pmx ";

/// An update under way.
#[derive(Debug)]
pub struct Update {
    asked: Asked,
    /// The new program, which looks at our state.
    checker: i32,
    due: Mono,
    /// What it says.
    said: File,
}

impl Update {
    /// When the new program has had its time.
    pub fn deadline(&self) -> Mono {
        self.due
    }
}

impl Daemon {
    /// Begins an update to `program`.
    pub(super) fn update(&mut self, client: u64, id: u64, program: Text) {
        let from = env!("CARGO_PKG_VERSION").to_string();
        let refused = if self.update.is_some() {
            Err("another update is under way".to_string())
        } else if self.runtime.is_some() {
            Err("a container is updated by a new image".to_string())
        } else if self.supervisor.is_shutting_down() {
            Err("the daemon is shutting down".to_string())
        } else {
            self.check(&program).map_err(|reason| reason.to_string())
        };
        match refused {
            Ok((checker, said)) => {
                let asked = Asked { client, id, program, from };
                self.update = Some(Update { asked, checker, said, due: self.now + PATIENCE });
            }
            Err(reason) => {
                let error = format!("update to {program}: {reason}");
                self.control.send(client, &Message::Error { id, error });
            }
        }
    }

    /// Starts the new program on a copy of what it would be left.
    fn check(&mut self, program: &Text) -> Result<(i32, File), String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {}", crate::sys::reason(&error));
        self.perform_all();
        self.record_everything();
        let state = self.memo.read().map_err(|error| failed("read the journal", error))?;
        let state = pipe::memfd("pmx-state", &state).map_err(|error| failed("copy the journal", error))?;
        let said = pipe::memory("pmx-said").map_err(|error| failed("make a file", error))?;
        let argv = [c"pmx", c"daemon", c"--check-state", c"3"].map(CStr::to_owned);
        let null = File::open("/dev/null").map_err(|error| failed("open /dev/null", error))?;
        let fds =
            [(null.as_raw_fd(), 0), (said.as_raw_fd(), 1), (said.as_raw_fd(), 2), (state.as_raw_fd(), 3)];
        let home = format!("PMX_HOME={}", self.home.path().display());
        let spawned = spawn::spawn(&Spawn {
            programs: &[c_string(program.bytes())?],
            argv: &argv,
            env: &[c_string(home)?],
            cwd: c"/",
            umask: 0o077,
            fds: &fds,
            ..Spawn::default()
        });
        let spawned = spawned.map_err(|error| error.to_string())?;
        failpoint::reach("update-checked");
        Ok((spawned.pid, File::from(said)))
    }

    /// A process that is no child of an app has ended. True: it was the new program, and has had its say.
    pub(super) fn checked_by(&mut self, reaped: &Reaped) -> bool {
        let Some(update) = self.update.take_if(|update| update.checker == reaped.pid) else { return false };
        let mut said = vec![0; SAID as usize];
        let count = update.said.read_at(&mut said, 0).unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..count]).trim().to_string();
        match reaped.status {
            ExitStatus::Code(0) if said.starts_with(CAN_GO_ON) => self.hand_over(update.asked),
            status => {
                let how = super::children::describe(status);
                let reason = if said.is_empty() { how } else { format!("{said} ({how})") };
                self.give_up(&update.asked, &format!("it cannot go on from here: {reason}"));
            }
        }
        true
    }

    /// The new program has had its time.
    pub(super) fn update_if_due(&mut self) {
        if let Some(update) = self.update.take_if(|update| update.due <= self.now) {
            // Not reaped yet, so the pid is its own.
            let _ = pidfd::send(None, update.checker, libc::SIGKILL);
            self.give_up(&update.asked, &format!("it said nothing within {} s", PATIENCE.0 / 1_000));
        }
    }

    fn give_up(&mut self, asked: &Asked, reason: &str) {
        let error = format!("update to {}: {reason}; pmx {} goes on", asked.program, asked.from);
        ::log::error!("{error}");
        self.control.send(asked.client, &Message::Error { id: asked.id, error });
    }

    /// Ends, so that the keeper becomes the new program.
    fn hand_over(&mut self, asked: Asked) {
        let board = self.board;
        let own = File::open("/proc/self/exe").map(IntoRawFd::into_raw_fd);
        if !board.set_program(asked.program.bytes()) {
            return self.give_up(&asked, "the path is too long");
        }
        self.perform_all();
        ::log::info!("becoming {}", asked.program);
        if let Ok(own) = own {
            board.set_fd(Slot::Program, own);
        }
        board.update_errno.store(0, SeqCst);
        board.safe.store(false, SeqCst);
        board.unproven.store(true, SeqCst);
        board.generation.fetch_add(1, SeqCst);
        self.memo.updating(Some(asked));
        self.control.flush(self.poll.registry());
        self.control.part(self.poll.registry());
        self.record_everything();
        self.pass_on(true);
        failpoint::reach("before-hand-over");
        board.set_phase(Phase::Updating);
        std::process::exit(0);
    }

    /// We are what the daemon before us wanted to become, or what it was: tells who asked for it.
    pub(super) fn has_updated(&mut self, asked: Asked) {
        let board = self.board;
        let errno = board.update_errno.swap(0, SeqCst);
        board.unproven.store(false, SeqCst);
        if let Some(own) = board.fd(Slot::Program) {
            // The table's: nobody else owns it.
            drop(crate::sys::inherit::take(own));
            board.set_fd(Slot::Program, -1);
        }
        if errno != 0 {
            let reason = match errno {
                crate::sys::board::CRASHED => "it died when it took over".to_string(),
                errno => crate::sys::errno_reason(errno),
            };
            return self.give_up(&asked, &reason);
        }
        let to = env!("CARGO_PKG_VERSION").to_string();
        ::log::info!("pmx {} became pmx {to}", asked.from);
        let kept = self.children.ids().count() as u32;
        let answer = Answer::Updated { from: asked.from, to, pid: std::process::id(), kept };
        self.control.send(asked.client, &Message::Done { id: asked.id, answer });
    }
}

/// Whether this program could go on from a journal: the dry run of an update.
pub fn check_state(state: std::os::fd::OwnedFd) -> Result<(), String> {
    let mut text = Vec::new();
    let mut file = File::from(state);
    std::io::Seek::rewind(&mut file)
        .and_then(|()| file.read_to_end(&mut text).map(drop))
        .map_err(|error| format!("read the state: {}", crate::sys::reason(&error)))?;
    let (mut left, unreadable) = Left::read(&text);
    if left.head.format > FORMAT {
        return Err(format!(
            "the state is of format {}, and this pmx reads up to {FORMAT}",
            left.head.format
        ));
    }
    if left.head.format == 0 {
        return Err("the state has no beginning".to_string());
    }
    if let Some(line) = unreadable.first() {
        let start: String = String::from_utf8_lossy(&line.line).chars().take(80).collect();
        return Err(format!("read the state: {}: {start}", line.reason));
    }
    let _ = left.supervisor();
    Ok(())
}
