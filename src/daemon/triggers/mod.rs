//! What calls for new children without being asked: memory, the calendar, files. Facts are gathered here, and
//! only while some app wants them; what follows from them the supervisor decides.

pub mod calendar;
mod memory;
pub mod watch;

use std::collections::BTreeSet;

use super::event_loop::Daemon;
use crate::app::Watched;
use crate::protocol::Watching;
use crate::supervisor::{ChildId, Input, ProcId, Why};
use crate::time::{Mono, Wall};
use calendar::Calendar;
use memory::Guard;
use watch::Watcher;

/// Everything that is watched for.
#[derive(Debug, Default)]
pub struct Triggers {
    guard: Guard,
    pub(super) calendar: Calendar,
    pub(super) watcher: Watcher,
    /// Processes of which something changed, and the names that they had.
    touched: BTreeSet<(ProcId, String)>,
}

impl Triggers {
    /// When it wants to be visited next. (The calendar has a timer of its own.)
    pub fn deadline(&self) -> Option<Mono> {
        self.guard.deadline().into_iter().chain(self.watcher.deadline()).min()
    }

    /// Something happened to a process.
    pub fn touch(&mut self, process: ProcId, name: &str) {
        self.touched.insert((process, name.to_string()));
    }

    /// When a process was last started by the calendar, and when it will be next.
    pub fn runs(&self, process: ProcId) -> (Option<Wall>, Option<Wall>) {
        self.calendar.runs(process)
    }

    /// Whether the files of an app are watched.
    pub fn watching(&self, name: &str) -> Watching {
        self.watcher.watching(name)
    }
}

impl Daemon {
    /// Looks at everything anew: what was left by the daemon before us.
    pub(super) fn begin_triggers(&mut self) {
        for process in self.supervisor.processes() {
            self.triggers.touch(process.id, &process.app.name);
        }
        self.update_triggers();
    }

    /// Watches for what the processes that changed want now.
    pub(super) fn update_triggers(&mut self) {
        let touched = std::mem::take(&mut self.triggers.touched);
        if touched.is_empty() {
            return;
        }
        let mut names = BTreeSet::new();
        for (id, name) in touched {
            self.guard_memory(id);
            self.keep_calendar(id);
            self.keep_pid_file(id);
            // Of thousands that watch nothing, nothing is looked for.
            let app = self.supervisor.process(id).map(|process| &process.app);
            let watching = app.filter(|app| app.triggers.watch.what != Watched::Off);
            names.extend(watching.map(|app| app.name.clone()));
            names.extend(Some(name).filter(|name| self.triggers.watcher.knows(name)));
        }
        self.watch_files(&names);
    }

    /// Tells the supervisor what is due.
    pub(super) fn look_at_triggers(&mut self) {
        if self.triggers.deadline().is_none_or(|due| due > self.now) {
            return;
        }
        self.look_at_memory();
        self.look_at_files();
    }

    /// Something calls for a new child.
    fn trigger(&mut self, process: ProcId, about: Option<ChildId>, why: Why) {
        self.supervisor.handle(self.now, Input::Trigger { process, about, why });
    }
}
