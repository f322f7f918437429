//! Writing down: after each round the pieces that changed go into the journal, all of them or none. Only
//! then does what they stand for leave the places where the next daemon would find it again.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::event_loop::Daemon;
use super::journal::Journal;
use super::record::{self, Common, Entry, FORMAT, Head, Next};
use super::share::ShareRecord;
use super::source::Source;
use super::store::Owner;
use super::update;
use crate::app::{App, Env, SharedEnv, Text};
use crate::supervisor::{Change, ChildId};
use crate::sys::{clock, failpoint, family, kept, proc};
use crate::time::Millis;

/// The journal, and what it knows.
#[derive(Debug)]
pub struct Memo {
    journal: Journal,
    /// The board, for whoever this process becomes.
    board: OwnedFd,
    envs: Common<Env>,
    apps: Common<App>,
    /// The name of this boot; empty: not known.
    boot: String,
    serial: u64,
    /// Lines of later versions, kept.
    strange: Vec<Vec<u8>>,
    /// Fds of processes that were left out.
    spared: Vec<RawFd>,
    next: Next,
    updating: Option<update::Asked>,
}

impl Memo {
    /// Over a journal that is at its beginning, or as a daemon left it.
    pub fn new(
        journal: Journal,
        board: OwnedFd,
        head: Head,
        strange: Vec<Vec<u8>>,
        spared: Vec<RawFd>,
    ) -> Memo {
        let (envs, apps, next) = (Common::default(), Common::default(), Next::default());
        let (serial, mut boot) = (head.serial, head.boot);
        if boot.is_empty() {
            boot = proc::boot_id().unwrap_or_else(|error| {
                let reason = crate::sys::reason(&error);
                log::error!(
                    "read the name of this boot: {reason}; who finds our children could not know them"
                );
                String::new()
            });
        }
        Memo { journal, board, envs, apps, boot, serial, strange, spared, next, updating: None }
    }

    /// The whole of what is on record.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        self.journal.read()
    }

    /// Puts on record that the daemon ends in order to become another program.
    pub fn updating(&mut self, asked: Option<update::Asked>) {
        self.updating = asked;
    }

    /// The number of an app, which is on record from now on.
    fn app(&mut self, app: &Arc<App>) -> u64 {
        let (number, new) = self.apps.number(app);
        if new {
            let env = self.env(&app.inherit);
            let app = App { inherit: SharedEnv::default(), ..(**app).clone() };
            self.journal.put(&Entry::App(number, Box::new(app), env));
        }
        number
    }

    /// The same of an environment. 0: the empty one.
    fn env(&mut self, env: &SharedEnv) -> u64 {
        if env.0.0.is_empty() {
            return 0;
        }
        let (number, new) = self.envs.number(&env.0);
        if new {
            self.journal.put(&Entry::Env(number, (*env.0).clone()));
        }
        number
    }
}

impl Daemon {
    /// Puts everything on record anew.
    pub(super) fn record_everything(&mut self) {
        self.memo.journal.begin_again();
        self.record();
    }

    /// Puts on record what this round changed.
    pub(super) fn record(&mut self) {
        let everything = self.memo.journal.wants_snapshot();
        if everything {
            self.memo.envs.begin();
            self.memo.apps.begin();
            self.memo.serial += 1;
            let keeper = self.board.keeper.load(std::sync::atomic::Ordering::SeqCst);
            self.memo.journal.put(&Entry::Head(Head {
                format: FORMAT,
                version: env!("CARGO_PKG_VERSION").to_string(),
                boot: self.memo.boot.clone(),
                home: Text::from(self.home.path()),
                serial: self.memo.serial,
                pids: [keeper, std::process::id() as i32],
            }));
            for line in &self.memo.strange {
                self.memo.journal.put_line(line);
            }
            self.memo.journal.put(&Entry::Updating(self.memo.updating.clone()));
            self.memo.journal.put(&Entry::Spared(self.memo.spared.clone()));
        }
        self.put_decisions(everything);
        self.put_children(everything);
        self.put_rest(everything);
        self.manager.store_less();
        failpoint::reach("before-commit");
        self.memo.journal.commit();
        failpoint::reach("after-commit");
        self.children.recorded_output(&mut self.desk);
        self.manager.store_more(self.now);
        self.settle();
        failpoint::reach("settled");
    }

    /// What a stream owes its file is on record before other output is on its way: it is in no pipe any more, and in no
    /// file yet.
    pub(super) fn record_owed(&mut self) {
        if let Some(of) = self.desk.held() {
            self.memo.journal.add(&Entry::Output(of.0, of.1, self.children.output_record(of)));
            self.children.recorded_output(&mut self.desk);
        }
    }

    /// A manager may know nothing of what we have.
    pub(super) fn store_everything(&mut self) {
        if !self.manager.stores() {
            return;
        }
        for (id, child) in self.children.ids().filter_map(|id| Some((id, self.children.record(id)?))) {
            self.manager.keep(Owner::Child(id), child.socket());
        }
        for (id, share) in self.primary.shares().filter_map(|id| Some((id, self.primary.record(id)?))) {
            self.manager.keep(Owner::Share(id), share.sockets());
        }
    }

    fn put_decisions(&mut self, everything: bool) {
        if !everything && self.supervisor.is_recorded() {
            return;
        }
        let memo = &mut self.memo;
        self.supervisor.take_changes(everything, |change| match change {
            Change::Process(id, process) => {
                let process = process.map(|process| record::process(process, |app| memo.app(app)));
                memo.journal.put(&Entry::Process(id, process));
            }
            other => memo.journal.put(&Entry::Decision(other)),
        });
    }

    fn put_children(&mut self, everything: bool) {
        let mut changed = std::mem::take(&mut self.children.changed);
        let mut workers = std::mem::take(&mut self.primary.changed_workers);
        let mut outputs = std::mem::take(&mut self.children.changed_outputs);
        if everything {
            changed.extend(self.children.ids());
            workers.extend(self.children.ids());
            outputs.extend(self.children.output_ids());
        }
        for id in &changed {
            let app = self.children.get(*id).map(|child| self.memo.app(&child.app));
            let child = app.zip(self.children.record(*id)).map(|(app, child)| Box::new((child, app)));
            if child.is_none() {
                workers.insert(*id);
            }
            if self.manager.stores() {
                let socket = child.as_ref().and_then(|child| child.0.socket());
                self.manager.keep(Owner::Child(*id), socket);
            }
            self.memo.journal.put(&Entry::Child(*id, child));
        }
        for id in workers {
            self.memo.journal.put(&Entry::Worker(id, self.primary.worker(id)));
        }
        for of in outputs {
            self.memo.journal.put(&Entry::Output(of.0, of.1, self.children.output_record(of)));
        }
    }

    fn put_rest(&mut self, everything: bool) {
        let mut shares = std::mem::take(&mut self.primary.changed);
        let mut memories = std::mem::take(&mut self.memories.changed);
        let mut dates = std::mem::take(&mut self.triggers.calendar.changed);
        let mut clients = std::mem::take(&mut self.control.changed);
        let mut asked = std::mem::take(&mut self.changed_asked);
        if everything {
            shares.extend(self.primary.shares());
            memories.extend(self.memories.processes());
            dates.extend(self.triggers.calendar.processes());
            clients.extend(self.control.clients());
            asked.extend(self.asked.keys());
        }
        let journal = &mut self.memo.journal;
        for id in shares {
            let share = self.primary.record(id);
            if self.manager.stores() {
                self.manager.keep(Owner::Share(id), share.iter().flat_map(ShareRecord::sockets));
            }
            journal.put(&Entry::Share(id, share));
        }
        for id in memories {
            journal.put(&Entry::Memory(id, self.memories.get(id).cloned()));
        }
        let events = self.history.take_record(everything);
        if !events.is_empty() {
            journal.put(&Entry::Happened(events));
        }
        for id in dates {
            journal.put(&Entry::Schedule(id, self.triggers.calendar.record(id)));
        }
        for id in clients {
            journal.put(&Entry::Client(id, self.control.record(id)));
        }
        for op in asked {
            journal.put(&Entry::Asked(op, self.asked.get(&op).cloned()));
        }
        if std::mem::take(&mut self.primary.changed_adopted) || everything {
            journal.put(&Entry::Adopted(self.primary.adopted()));
        }
        if std::mem::take(&mut self.ears.changed) || everything {
            journal.put(&Entry::Ears(self.ears.record()));
        }
        if let Some(record) = self.runtime.as_mut().and_then(|runtime| runtime.take_record(everything)) {
            journal.put(&Entry::Container(record));
        }
        let next = Next { op: self.next_op, share: self.primary.next_share() };
        if everything || next != self.memo.next {
            self.memo.next = next;
            journal.put(&Entry::Next(next));
        }
    }

    /// What is on record leaves the places where the next daemon would look for what is not.
    fn settle(&mut self) {
        let [left, own] = std::mem::take(&mut self.exits);
        if left > 0 {
            failpoint::reach("before-exits-left");
            self.board.left.forget(left);
            failpoint::reach("after-exits-left");
        }
        if own > 0 {
            failpoint::reach("before-exits-own");
            self.board.reaped.forget(own);
            failpoint::reach("after-exits-own");
        }
        for number in self.heeded.drain(..) {
            self.board.clear_signal(number);
        }
        if kept::any() {
            failpoint::reach("before-close");
            kept::close();
            failpoint::reach("after-close");
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let more: Vec<ChildId> = self.children.settle(&mut buffer);
        self.buffer = buffer;
        self.ready.extend(more.into_iter().map(Source::Channel));
    }

    /// So that what is in memory alone is found even if our keeper dies with us.
    pub fn keep_memory(&self) {
        self.home.keep_memory(self.memo.board.as_fd(), self.desk.shelf.file());
    }

    /// All fds that the next daemon must have.
    pub(super) fn heirlooms(&self) -> BTreeSet<RawFd> {
        let mut fds: BTreeSet<RawFd> = self.board.fds().collect();
        fds.insert(self.memo.board.as_raw_fd());
        fds.extend(&self.memo.spared);
        for record in self.children.ids().filter_map(|id| self.children.record(id)) {
            fds.extend(record.fds());
        }
        for output in self.children.output_ids().filter_map(|of| self.children.output_record(of)) {
            fds.extend(output.fds());
        }
        for share in self.primary.shares().filter_map(|id| self.primary.record(id)) {
            fds.extend(share.sockets.iter().map(|(_, fd, _)| *fd));
        }
        fds.extend(self.primary.connections());
        fds.extend(self.primary.adopted());
        fds.extend(self.ears.record().iter().map(|ear| ear.fd));
        fds.extend(self.control.clients().filter_map(|id| self.control.record(id)).map(|client| client.fd));
        fds
    }

    /// Has everything that the next daemon needs survive an exec, and nothing else.
    pub(super) fn pass_on(&self, yes: bool) {
        for fd in self.heirlooms() {
            if let Err(error) = family::pass_on(fd, yes) {
                log::error!("pass on fd {fd}: {error}");
            }
        }
    }

    /// Becomes the keeper: the same program from its beginning, with everything in place. Returns only with
    /// the reason why not.
    pub(super) fn become_keeper(&mut self) -> String {
        self.control.part(self.poll.registry());
        self.record();
        self.pass_on(true);
        let board = self.memo.board.as_raw_fd().to_string();
        clock::die_after_busy(Millis(0));
        let arguments = family::Arguments::new(&["pmx", "daemon", "--resume", &board]);
        family::block_signals();
        let errno = family::become_program(c"/proc/self/exe", &arguments);
        self.pass_on(false);
        family::unblock_signals();
        crate::sys::errno_reason(errno)
    }
}
