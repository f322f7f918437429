//! Keeps the list on disk without being told to: `autosave.json`. The daemon decides when, and hands the
//! content to a helper (`pmx save --autosave`), so that no fsync ever holds up the loop. What changes
//! nothing is not written.

use std::path::{Path, PathBuf};

use super::event_loop::Daemon;
use super::helper;
use super::home::Stream;
use crate::app::Text;
use crate::app::dump::{self, Saved};
use crate::supervisor::Desired;
use crate::sys::failpoint;
use crate::sys::reap::{ExitStatus, Reaped};
use crate::time::{Millis, Mono};

/// After a change it waits for more of them so long.
const QUIET: Millis = Millis(1_000);
/// The shortest time between two writes.
const PACE: Millis = Millis(5_000);

/// When the list is to be written, and who writes.
#[derive(Debug)]
pub struct Autosave {
    home: PathBuf,
    /// Something may have changed: first and last.
    touched: Option<(Mono, Mono)>,
    /// When a helper was last started.
    written: Option<Mono>,
    /// The checksum of what was last given to a helper, unless it failed. A new daemon has an empty list:
    /// that one is not worth writing over what was there before it.
    content: Option<u64>,
    helper: Option<i32>,
    /// The last content of all, while another helper is at work.
    queued: Option<Vec<u8>>,
    /// The daemon is on its way out, and everything is going down: that is nobody's wish.
    closed: bool,
}

impl Autosave {
    /// Of the daemon that lives at `home`.
    pub fn new(home: &Path) -> Autosave {
        Autosave {
            home: home.to_path_buf(),
            touched: None,
            written: None,
            content: Some(dump::crc64(dump::EMPTY)),
            helper: None,
            queued: None,
            closed: false,
        }
    }

    /// For who keeps no list on disk.
    pub fn none() -> Autosave {
        Autosave { closed: true, ..Autosave::new(Path::new("")) }
    }

    /// Something happened that may have changed what is declared.
    pub fn touch(&mut self, now: Mono) {
        if !self.closed {
            let first = self.touched.map_or(now, |(first, _)| first);
            self.touched = Some((first, now));
        }
    }

    /// A process was added: from now on even an empty list says something.
    pub fn begun(&mut self) {
        self.content = None;
    }

    /// When it wants to be visited. A helper at work is waited for: its end is an event.
    pub fn deadline(&self) -> Option<Mono> {
        let (first, last) = self.touched.filter(|_| self.helper.is_none())?;
        let quiet = (last + QUIET).min(first + PACE);
        Some(self.written.map_or(quiet, |written| quiet.max(written + PACE)))
    }

    /// Whether a helper is at work, or about to be.
    pub fn is_writing(&self) -> bool {
        self.helper.is_some() || self.queued.is_some()
    }

    /// A process that belongs to no app has ended.
    pub fn reaped(&mut self, reaped: &Reaped) {
        if self.helper != Some(reaped.pid) {
            return;
        }
        self.helper = None;
        if !matches!(reaped.status, ExitStatus::Code(0)) {
            // It has told why in our log. The next change tries again, whatever it changes.
            log::warn!("autosave: the list was not written");
            self.content = None;
        }
        if let Some(queued) = self.queued.take() {
            self.begin(queued);
        }
    }

    /// Has `content` written.
    fn begin(&mut self, content: Vec<u8>) {
        if self.helper.is_some() {
            self.queued = Some(content);
            return;
        }
        failpoint::reach("before-autosave");
        match start(&self.home, &content) {
            Ok(pid) => {
                failpoint::reach("after-autosave");
                self.helper = Some(pid);
                self.content = Some(dump::crc64(&content));
            }
            Err(error) => {
                log::warn!("autosave: start a helper: {error}");
                self.content = None;
            }
        }
    }
}

impl Daemon {
    /// Has the list written, if it is time and if it changed.
    pub(super) fn autosave_if_due(&mut self) {
        if self.autosave.deadline().is_some_and(|due| due <= self.now) {
            self.autosave.touched = None;
            self.autosave_now();
        }
    }

    /// Before everything goes down: what is declared now is what a reboot brings back.
    pub(super) fn autosave_last(&mut self) {
        if !self.autosave.closed {
            self.autosave.touched = None;
            self.autosave_now();
        }
        self.autosave.closed = true;
    }

    fn autosave_now(&mut self) {
        // One process at a time: a long list is not held twice.
        let Ok(saved) = self.saved() else { return };
        let content = dump::write(saved);
        if self.autosave.content != Some(dump::crc64(&content)) {
            self.autosave.written = Some(self.now);
            self.autosave.begin(content);
        }
    }

    /// The list as it is written to disk.
    pub(super) fn saved(&self) -> Result<impl Iterator<Item = Saved>, String> {
        if self.supervisor.is_shutting_down() {
            return Err("the daemon is shutting down".to_string());
        }
        let processes = self.supervisor.processes().filter(|process| process.desired != Desired::Gone);
        Ok(processes.map(|process| {
            let mut app = (*process.app).clone();
            app.inherit = dump::kept(&app.inherit);
            let file = |stream| Text::from(&self.home.log_file(&process.app, process.id.0, stream));
            Saved {
                instance: process.instance,
                up: process.is_meant_to_run(),
                out_file: file(Stream::Stdout),
                error_file: file(Stream::Stderr),
                pid_file: Text::from(&self.home.path().join(format!("run/pm2-{}.pid", process.id.0))),
                user: None,
                group: None,
                app,
            }
        }))
    }
}

/// Starts a helper. The content lies in memory until it has read it, whatever becomes of us.
fn start(home: &Path, content: &[u8]) -> Result<i32, String> {
    helper::start(home, [c"save", c"--autosave"], "pmx-list", content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_a_quiet_second_and_keeps_its_pace() {
        let mut autosave = Autosave::new(Path::new("/h"));
        assert_eq!(autosave.deadline(), None);
        autosave.touch(Mono(10_000));
        autosave.touch(Mono(10_400));
        assert_eq!(autosave.deadline(), Some(Mono(11_400)), "a second after the last change");
        autosave.touch(Mono(14_900));
        assert_eq!(autosave.deadline(), Some(Mono(15_000)), "and five after the first, whatever happens");
        autosave.touched = None;
        autosave.written = Some(Mono(15_000));
        autosave.touch(Mono(15_100));
        assert_eq!(autosave.deadline(), Some(Mono(20_000)), "and five after the write before");
        autosave.touch(Mono(19_800));
        assert_eq!(autosave.deadline(), Some(Mono(20_100)));
        autosave.helper = Some(7);
        assert_eq!(autosave.deadline(), None, "one helper at a time");
        let reaped = |pid, status| Reaped { pid, status, user_ms: 0, system_ms: 0, max_rss_kb: 0 };
        autosave.reaped(&reaped(8, ExitStatus::Code(0)));
        assert!(autosave.is_writing());
        autosave.reaped(&reaped(7, ExitStatus::Code(0)));
        assert!(!autosave.is_writing() && autosave.content.is_some());
        autosave.helper = Some(9);
        autosave.reaped(&reaped(9, ExitStatus::Code(1)));
        assert_eq!(autosave.content, None, "what failed is tried again");
        autosave.closed = true;
        autosave.touched = None;
        autosave.touch(Mono(30_000));
        assert_eq!(autosave.deadline(), None, "what goes down at the end is not saved");
    }
}
