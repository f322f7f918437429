//! The service manager that started us, if one did: it is told when we serve, that we live, and that we end.
//! Before we say that we serve, the saved apps are started, by a client of ours that we start for it.

use std::os::fd::{AsFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use super::children::describe;
use super::store::{Owner, Store};
use crate::sys::notify::Notify;
use crate::sys::pidfd;
use crate::sys::reap::{ExitStatus, Reaped};
use crate::time::{Millis, Mono};

/// When to try again what a manager that is behind did not take.
const AGAIN: Millis = Millis(100);

/// The manager, and what it is owed.
#[derive(Debug, Default)]
pub struct Manager {
    notify: Notify,
    /// Half of what its watchdog waits, and when the next sign of life is due.
    ping: Option<(Millis, Mono)>,
    /// What it did not take yet, and when to try again.
    unsent: Option<(String, Mono)>,
    /// What it keeps for us, and when to try again to tell it.
    store: Store,
    behind: Option<Mono>,
    /// The client that starts the saved apps.
    helper: Option<i32>,
    ending: bool,
    complained: bool,
}

impl Manager {
    /// The manager behind `notify`.
    pub fn new(notify: Notify, now: Mono) -> Manager {
        let ping = notify.watchdog().map(|timeout| (Millis((timeout.0 / 2).max(1)), now));
        Manager { notify, ping, ..Manager::default() }
    }

    /// Whether somebody keeps sockets for us.
    pub fn stores(&self) -> bool {
        self.notify.is_heard() && !self.ending
    }

    /// What is to be kept for an owner from now on, as inodes and fds.
    pub fn keep(&mut self, owner: Owner, sockets: impl IntoIterator<Item = (u64, RawFd)>) {
        self.store.keep(owner, sockets);
    }

    /// Has what an earlier daemon stored, and we do not know, be given up.
    pub fn give_up(&mut self, inodes: impl IntoIterator<Item = u64>) {
        inodes.into_iter().for_each(|inode| self.store.give_up(inode));
    }

    /// To be called before it is on record that sockets are gone.
    pub fn store_less(&mut self) {
        let _ = self.store.tell_given_up(&self.notify);
    }

    /// To be called when it is on record which sockets there are.
    pub fn store_more(&mut self, now: Mono) {
        if !self.store.is_behind() {
            return;
        }
        let told = self.store.tell(&self.notify);
        self.behind = self.store.is_behind().then_some(now + AGAIN);
        if let Err(error) = told
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            self.complain(&error);
        }
    }

    /// The daemon serves clients. With `resurrect`, ready is what it is once the saved apps were started.
    pub fn serving(&mut self, home: &Path, resurrect: bool, now: Mono) {
        if !resurrect {
            return self.ready("", now);
        }
        match helper(home) {
            Ok(pid) => {
                self.helper = Some(pid);
                self.say("STATUS=starting the saved apps".to_string(), now);
            }
            Err(error) => {
                let failure = format!("start the saved apps: {}", crate::sys::reason(&error));
                ::log::error!("{failure}");
                self.ready(&failure, now);
            }
        }
    }

    /// Takes the end of a process; false: it is none of ours.
    pub fn reaped(&mut self, reaped: &Reaped, now: Mono) -> bool {
        if self.helper != Some(reaped.pid) {
            return false;
        }
        self.helper = None;
        if self.ending {
            return true;
        }
        let mut failure = String::new();
        if reaped.status != ExitStatus::Code(0) {
            failure = format!("start the saved apps: {}", describe(reaped.status));
            ::log::error!("{failure}");
        }
        self.ready(&failure, now);
        true
    }

    fn ready(&mut self, failure: &str, now: Mono) {
        let status = if failure.is_empty() { "serving" } else { failure };
        self.say(format!("READY=1\nSTATUS={status}"), now);
    }

    /// Everything is being stopped, because we were told to end.
    pub fn ending(&mut self, now: Mono) {
        if std::mem::replace(&mut self.ending, true) {
            return;
        }
        // Not reaped yet, so the pid is still its own. It must not start anything any more, least of all
        // a new daemon.
        if let Some(pid) = self.helper
            && let Err(error) = pidfd::send(None, pid, libc::SIGKILL)
        {
            ::log::warn!("end what starts the saved apps: {error}");
        }
        self.say("STOPPING=1\nSTATUS=stopping everything".to_string(), now);
    }

    /// When there is something to tell.
    pub fn deadline(&self) -> Option<Mono> {
        let again = self.unsent.as_ref().map(|(_, again)| *again);
        [self.ping.map(|(_, due)| due), again, self.behind].into_iter().flatten().min()
    }

    /// Tells what is due.
    pub fn tick(&mut self, now: Mono) {
        if self.behind.is_some_and(|again| again <= now) {
            self.store_more(now);
        }
        if let Some((_, again)) = &self.unsent
            && *again <= now
            && let Some((lines, _)) = self.unsent.take()
        {
            self.say(lines, now);
        }
        if let Some((half, due)) = self.ping
            && due <= now
        {
            self.ping = Some((half, now + half));
            if let Err(error) = self.notify.send("WATCHDOG=1") {
                self.complain(&error);
            }
        }
    }

    fn say(&mut self, lines: String, now: Mono) {
        match self.notify.send(&lines) {
            Ok(()) => self.unsent = None,
            Err(error) => {
                self.complain(&error);
                if error.kind() == std::io::ErrorKind::WouldBlock {
                    self.unsent = Some((lines, now + AGAIN));
                }
            }
        }
    }

    /// Once: it would be said twice a minute else.
    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            ::log::warn!("tell the service manager: {}", crate::sys::reason(error));
        }
    }
}

/// Starts `pmx resurrect`, of this very program. Whoever reaps sees its end.
fn helper(home: &Path) -> std::io::Result<i32> {
    use std::os::unix::process::CommandExt;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let child = Command::new("/proc/self/exe")
        .arg0("pmx")
        .arg("resurrect")
        .env("PMX_HOME", home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stderr.try_clone()?)
        .stderr(stderr)
        .spawn()?;
    Ok(child.id() as i32)
}
