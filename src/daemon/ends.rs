//! Whose end is told by the kernel, by the keeper or by nobody but a pidfd, and what follows from it.

use std::sync::atomic::Ordering::SeqCst;

use super::alert::Happened;
use super::children::{Child, stream_source};
use super::conversation::LAST_MESSAGES;
use super::event_loop::Daemon;
use super::home::Stream;
use super::notify::Reach;
use super::source::{Progress, Source};
use super::watch::unwatch;
use crate::app::{Occasion, Runtime};
use crate::supervisor::{ChildId, End, Input};
use crate::sys::board::{NOBODY, Slot};
use crate::sys::reap::{self, ExitStatus, Reaped};
use crate::sys::signals::{self, Signal};
use crate::sys::{clock, failpoint, family};
use crate::time::Millis;

/// How long the kernel is asked how an orphan ended, and how often: its parent may be slow to reap it.
const ORPHAN_PATIENCE: Millis = Millis(3_000);
const ORPHAN_LOOK: Millis = Millis(50);

impl Daemon {
    /// Takes the exits of our own children. Each is on the board before the kernel forgets it.
    pub(super) fn reap(&mut self) -> Progress {
        while let Some(ended) = family::peek() {
            if self.children.find(ended.pid).is_none() {
                if let Some(reaped) = reap::reap_one(ended.pid) {
                    self.reaped(&reaped);
                }
                continue;
            }
            if !self.board.reaped.has_room() {
                self.has_exits = true;
                return Progress::More;
            }
            failpoint::reach("ended");
            self.board.reaped.push(&ended);
            failpoint::reach("reaped");
            let reaped = reap::reap_one(ended.pid).unwrap_or(ended);
            failpoint::reach("forgotten");
            self.reaped(&reaped);
            self.exits[1] += 1;
        }
        Progress::Drained
    }

    /// The keeper has something: exits of children that earlier daemons started, or signals.
    pub(super) fn take_wake(&mut self) -> Progress {
        if let Some(wake) = self.board.fd(Slot::Wake) {
            family::woken(wake);
        }
        let left: Vec<_> = self.board.left.waiting().skip(self.exits[0]).collect();
        for reaped in left {
            self.reaped(&reaped);
            self.exits[0] += 1;
        }
        for number in self.board.take_signals() {
            self.heeded.push(number);
            match number {
                _ if self.runtime.is_some() => self.container_signal(Signal::numbered(number)),
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                    self.stop_everything(&signals::name(number));
                }
                libc::SIGUSR2 => self.reopen_logs(),
                _ => {}
            }
        }
        Progress::Drained
    }

    /// A child that has no parent we know: its pidfd tells that it ended, and the kernel may tell how, once
    /// whoever is its parent has reaped it.
    pub(super) fn look_at_orphan(&mut self, child: ChildId) -> Progress {
        let Some(reaped) = self.children.orphan_ended(child) else { return Progress::Drained };
        let since = *self.orphans_ended.entry(child).or_insert(self.now);
        if reaped.status == ExitStatus::Unknown && self.now.since(since) < ORPHAN_PATIENCE {
            return Progress::Rest(self.now + ORPHAN_LOOK);
        }
        self.orphans_ended.remove(&child);
        self.children.unwatch_orphan(self.poll.registry(), child);
        self.reaped(&reaped);
        Progress::Drained
    }

    /// A process is gone. Its last words and messages are taken before its end is told. What they say may be
    /// put on record in between, so an exit counts as known only after this.
    pub(super) fn reaped(&mut self, reaped: &Reaped) {
        if self.checked_by(reaped)
            || self.manager.reaped(reaped, self.now)
            || self.tidy.reaped(reaped)
            || self.dispatch.reaped(reaped)
        {
            return;
        }
        if let Some(over) = self.checks.reaped(reaped) {
            return self.supervisor.handle(self.now, over);
        }
        let Some(child) = self.children.find(reaped.pid) else {
            return self.autosave.reaped(reaped);
        };
        self.busy_with(child);
        for stream in [Stream::Stdout, Stream::Stderr] {
            // At most what a pipe can hold, several times over: others may go on writing to it.
            let mut progress = Progress::More;
            for _ in 0..16 {
                progress = self.move_output(child, stream);
                if progress != Progress::More {
                    break;
                }
            }
            self.come_back(stream_source(child, stream), progress);
            self.children.flush_output((child, stream), self.now, &mut self.desk);
            self.record_owed();
        }
        let _ = self.read_channel(child, LAST_MESSAGES);
        for reach in [Reach::Own, Reach::All] {
            let progress = self.hear(reach);
            self.come_back(Source::Notify(reach), progress);
        }
        failpoint::reach("last-words");
        if self.children.succeed(self.poll.registry(), child) {
            return;
        }
        self.container_ended(child, reaped.status.number());
        if let Some((living, end)) = self.children.ended(child, reaped, self.now) {
            self.gone(child, living, end, Some(reaped.status));
        }
    }

    /// A child is over, and its process group if it was told to stop.
    fn gone(&mut self, id: ChildId, child: Child, end: End, status: Option<ExitStatus>) {
        let registry = self.poll.registry();
        if let Some(channel) = &child.channel {
            unwatch(registry, channel.fd());
        }
        self.primary.gone(registry, &mut self.children, id);
        self.orphans_ended.remove(&id);
        let signal = match status {
            Some(ExitStatus::Signal { number, .. }) => Some(number),
            _ => None,
        };
        let why = self.supervisor.why_told_to_end(id);
        self.memories.ended(&child, &end, signal, why, (clock::wall(), self.now));
        let claim = self.home.claim(&child.app, id.0);
        failpoint::reach("gone");
        if child.app.command.runtime == Runtime::Launcher {
            let _ = std::fs::remove_file(claim);
        }
        let oom = end.out_of_memory.then(|| Happened {
            numbers: serde_json::json!({"by": "kernel", "limit": child.app.limits.memory}),
            ..Happened::new(Occasion::Oom, end.text.as_str())
        });
        self.supervisor.handle(self.now, Input::Exited { child: id, end });
        if let Some(happened) = oom {
            self.alert(child.process, &happened);
        }
    }

    /// Children whose leader has ended, and groups whose child is over.
    pub(super) fn look_at_groups(&mut self) {
        self.board.busy_with.store(NOBODY, SeqCst);
        self.children.forget_census();
        if self.children.is_lingering() {
            for (id, child, end) in self.children.take_gone(self.now) {
                self.gone(id, child, end, None);
            }
        }
    }
}
