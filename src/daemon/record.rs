//! The pieces of the journal, and how they come together: what the daemon writes down after each round, and what
//! a next daemon reads. It is also what one version hands to the next, so: what a reader does not know it
//! keeps, what it misses has a default, and `tests/handover` holds a file of every released version.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::children::{ChildRecord, OutputRecord};
use super::control::ClientRecord;
use super::home::{Home, Stream};
use super::notify::EarRecord;
use super::primary::Worker;
use super::runtime::ContainerRecord;
use super::share::ShareRecord;
use super::triggers::calendar::Scheduled;
use super::update;
use super::views::Memory;
use crate::app::{App, Env, SharedEnv, Text};
use crate::protocol::{Event, Message};
use crate::supervisor::{Beside, Change, ChildId, OpId, ProcId, Process, Supervisor};
use crate::sys::pipe;

/// The format, raised when a line changes its meaning. A reader takes this and every earlier one.
/// 1: processes and children held their apps whole, and beside them the numbers of their environments.
pub const FORMAT: u32 = 2;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// Who wrote this; the first line.
    Head(Head),
    /// An environment that processes share, under a number.
    Env(u64, Env),
    /// An app that processes and children run, under a number, and the number of its environment.
    App(u64, Box<App>, u64),
    /// A process.
    Process(ProcId, Option<ProcessRecord>),
    /// A deadline, an operation, a counter.
    Decision(Change),
    /// A child, with the number of its app.
    Child(ChildId, Option<Box<(ChildRecord, u64)>>),
    /// A child in its part as a worker.
    Worker(ChildId, Option<Worker>),
    /// A stream of a child.
    Output(ChildId, Stream, Option<OutputRecord>),
    /// An address that workers share.
    Share(u64, Option<ShareRecord>),
    /// What is remembered of a process.
    Memory(ProcId, Option<Memory>),
    /// What happened, oldest first.
    Happened(Vec<Event>),
    /// When a process is due.
    Schedule(ProcId, Option<Scheduled>),
    /// A client.
    Client(u64, Option<ClientRecord>),
    /// Who waits for an operation.
    Asked(OpId, Option<Asked>),
    /// Numbers that are never used again below these.
    Next(Next),
    /// Listening sockets that the service manager passed on.
    Adopted(Vec<RawFd>),
    /// The daemon ended in order to become another program.
    Updating(Option<update::Asked>),
    /// How far a container is from its end.
    Container(ContainerRecord),
    /// The sockets of sd_notify.
    Ears(Vec<EarRecord>),
    /// Fds of processes that were left out: they stay open, for ever.
    Spared(Vec<RawFd>),
}

/// The kinds of entries that this version knows.
const KNOWN: [&str; 20] = [
    "head",
    "env",
    "app",
    "process",
    "decision",
    "child",
    "worker",
    "output",
    "share",
    "memory",
    "happened",
    "schedule",
    "client",
    "asked",
    "next",
    "adopted",
    "updating",
    "container",
    "ears",
    "spared",
];

/// Who wrote a journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// [`FORMAT`]
    pub format: u32,
    /// The version of pmx.
    pub version: String,
    /// The boot that all of it belongs to.
    pub boot: String,
    /// The home.
    pub home: Text,
    /// Counts up with every snapshot.
    pub serial: u64,
    /// The keeper and the daemon.
    pub pids: [i32; 2],
}

/// A process, with the numbers of its app and of its candidate's.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessRecord {
    process: Box<Process>,
    #[serde(default)]
    app: u64,
    #[serde(default)]
    candidate: u64,
    /// Of format 1, as the next.
    #[serde(default, skip_serializing)]
    env: u64,
    #[serde(default, skip_serializing)]
    candidate_env: u64,
}

/// Who waits for an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The client.
    pub client: u64,
    /// What it called its request.
    pub id: u64,
    /// It asked for the end of the daemon.
    #[serde(default)]
    pub shutdown: bool,
    /// The answer, once there is one: it is on record before it is sent, and what it says with it.
    #[serde(default)]
    pub answer: Option<Message>,
}

/// See [`Entry::Next`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Next {
    /// Of operations.
    pub op: u64,
    /// Of shares.
    pub share: u64,
}

/// What many have in common and is in the journal once: environments, apps. What is in it stays as it is: whoever
/// wants to change it gets a copy.
#[derive(Debug)]
pub struct Common<T> {
    known: HashMap<*const T, (Arc<T>, u64)>,
    next: u64,
}

impl<T> Default for Common<T> {
    fn default() -> Common<T> {
        Common { known: HashMap::new(), next: 0 }
    }
}

impl<T> Common<T> {
    /// The number of one, from 1; the second is true when it must be written down first.
    pub fn number(&mut self, one: &Arc<T>) -> (u64, bool) {
        if let Some((_, number)) = self.known.get(&Arc::as_ptr(one)) {
            return (*number, false);
        }
        self.next += 1;
        self.known.insert(Arc::as_ptr(one), (one.clone(), self.next));
        (self.next, true)
    }

    /// A snapshot begins: nothing is written down.
    pub fn begin(&mut self) {
        self.known.clear();
    }
}

/// A process for the journal, its apps apart from it, under their numbers.
pub fn process(mut process: Box<Process>, mut number: impl FnMut(&Arc<App>) -> u64) -> ProcessRecord {
    let mut apart = |app: &mut Arc<App>| number(&std::mem::replace(app, Process::elsewhere()));
    let app = apart(&mut process.app);
    let candidate = match &mut process.beside {
        Some(Beside::Preparing { app, .. } | Beside::Candidate { app, .. }) => apart(app),
        Some(Beside::Rejected { .. } | Beside::Retiring(_)) | None => 0,
    };
    ProcessRecord { process, app, candidate, env: 0, candidate_env: 0 }
}

/// Everything that a journal says.
#[derive(Debug, Default)]
pub struct Left {
    /// Who wrote it.
    pub head: Head,
    envs: BTreeMap<u64, SharedEnv>,
    apps: BTreeMap<u64, Arc<App>>,
    processes: BTreeMap<ProcId, ProcessRecord>,
    decisions: Vec<Change>,
    /// Children, and the numbers of their apps.
    pub children: BTreeMap<ChildId, (ChildRecord, u64)>,
    /// Workers.
    pub workers: BTreeMap<ChildId, Worker>,
    /// Streams.
    pub outputs: BTreeMap<(ChildId, Stream), OutputRecord>,
    /// Shares.
    pub shares: BTreeMap<u64, ShareRecord>,
    /// Memories.
    pub memories: BTreeMap<ProcId, Memory>,
    /// What happened.
    pub happened: Vec<Event>,
    /// Dates.
    pub schedules: BTreeMap<ProcId, Scheduled>,
    /// Clients.
    pub clients: BTreeMap<u64, ClientRecord>,
    /// Who waits for what.
    pub asked: BTreeMap<OpId, Asked>,
    /// Numbers.
    pub next: Next,
    /// Sockets that were passed on.
    pub adopted: Vec<RawFd>,
    /// Fds of processes that were left out.
    pub spared: Vec<RawFd>,
    /// Why it ended, if it was to become another program.
    pub updating: Option<update::Asked>,
    /// How far the container is from its end.
    pub container: Option<ContainerRecord>,
    /// The sockets of sd_notify.
    pub ears: Vec<EarRecord>,
    /// Lines of kinds that this version does not know, newest last.
    pub strange: Vec<Vec<u8>>,
    whole: bool,
}

/// A line that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The line.
    pub line: Vec<u8>,
    /// Why.
    pub reason: String,
}

impl Left {
    /// Reads a journal. Lines that cannot be read are handed back, and the rest counts.
    pub fn read(text: &[u8]) -> (Left, Vec<Unreadable>) {
        let mut left = Left::default();
        let mut unreadable = Vec::new();
        // What comes after the last newline was never finished.
        let end = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for line in text[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(entry) => left.take(entry),
                Err(_) if is_strange(line) => left.strange.push(line.to_vec()),
                Err(error) => unreadable.push(Unreadable { line: line.to_vec(), reason: error.to_string() }),
            }
        }
        (left, unreadable)
    }

    fn take(&mut self, entry: Entry) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        match entry {
            Entry::Head(head) => self.head = head,
            Entry::Env(number, env) => {
                self.envs.insert(number, SharedEnv(Arc::new(env)));
            }
            Entry::App(number, app, env) => {
                let app = App { inherit: self.env(env), ..*app };
                self.apps.insert(number, Arc::new(app));
            }
            Entry::Process(id, process) => put(&mut self.processes, id, process),
            Entry::Decision(change) => self.decisions.push(change),
            Entry::Child(id, child) => put(&mut self.children, id, child.map(|child| *child)),
            Entry::Worker(id, worker) => put(&mut self.workers, id, worker),
            Entry::Output(child, stream, output) => put(&mut self.outputs, (child, stream), output),
            Entry::Share(id, share) => put(&mut self.shares, id, share),
            Entry::Memory(id, memory) => put(&mut self.memories, id, memory),
            Entry::Happened(events) => self.happened.extend(events),
            Entry::Schedule(id, dates) => put(&mut self.schedules, id, dates),
            Entry::Client(id, client) => put(&mut self.clients, id, client),
            Entry::Asked(op, asked) => put(&mut self.asked, op, asked),
            Entry::Next(next) => {
                self.next = next;
                // It is the last line of a snapshot.
                self.whole = true;
            }
            Entry::Adopted(fds) => self.adopted = fds,
            Entry::Updating(asked) => self.updating = asked,
            Entry::Container(container) => self.container = Some(container),
            Entry::Ears(ears) => self.ears = ears,
            Entry::Spared(fds) => self.spared = fds,
        }
    }

    /// An environment by its number.
    fn env(&self, number: u64) -> SharedEnv {
        self.envs.get(&number).cloned().unwrap_or_default()
    }

    /// An app by its number; in format 1 it is there `whole`, and the number is that of its environment.
    pub fn app(&self, number: u64, whole: Option<App>) -> Arc<App> {
        match whole {
            Some(app) => Arc::new(App { inherit: self.env(number), ..app }),
            None => self.apps.get(&number).cloned().unwrap_or_else(Process::elsewhere),
        }
    }

    /// The decisions, put together. They are taken out.
    pub fn supervisor(&mut self) -> Supervisor {
        let mut supervisor = Supervisor::default();
        for (id, record) in std::mem::take(&mut self.processes) {
            let process = self.whole(record);
            if Process::is_elsewhere(&process.app) {
                ::log::error!("{id:?}: the journal does not say what it runs");
                continue;
            }
            supervisor.restore(Change::Process(id, Some(process)));
        }
        for change in std::mem::take(&mut self.decisions) {
            supervisor.restore(change);
        }
        let children: BTreeSet<ChildId> = self.children.keys().copied().collect();
        let told = self.children.iter().filter(|(_, (child, _))| child.told_to_stop).map(|(id, _)| *id);
        supervisor.resume(&children, &told.collect());
        supervisor
    }

    /// Forgets who waits for what was decided and not told before its daemon died: nothing will tell it. Whoever it
    /// is asks again.
    pub fn forget_what_is_over(&mut self) {
        let mut open = BTreeSet::new();
        for change in &self.decisions {
            match change {
                Change::Operation(op, Some(_)) => drop(open.insert(*op)),
                Change::Operation(op, None) => drop(open.remove(op)),
                _ => {}
            }
        }
        self.asked.retain(|op, asked| asked.answer.is_some() || asked.shutdown || open.contains(op));
    }

    /// A process with its apps.
    fn whole(&self, record: ProcessRecord) -> Box<Process> {
        let mut process = record.process;
        let set = |app: &mut Arc<App>, number: u64, env: u64| match Process::is_elsewhere(app) {
            true => *app = self.app(number, None),
            false => Arc::make_mut(app).inherit = self.env(env),
        };
        set(&mut process.app, record.app, record.env);
        if let Some(Beside::Preparing { app, .. } | Beside::Candidate { app, .. }) = &mut process.beside {
            set(app, record.candidate, record.candidate_env);
        }
        process
    }

    /// A process that is left out, with its children, and what was written about it. The fds of its children
    /// stay open, for ever: nothing shall happen to them.
    pub fn leave_out(&mut self, id: ProcId) -> Option<Box<Process>> {
        let record = self.processes.remove(&id)?;
        let mut process = self.whole(record);
        // Secrets may be in it.
        Arc::make_mut(&mut process.app).inherit = SharedEnv::default();
        let spared = &mut self.spared;
        self.children.retain(|_, (child, _)| {
            let stays = child.process != id;
            if !stays {
                spared.extend(child.fds());
            }
            stays
        });
        self.decisions.retain(|change| !change.is_about(id));
        Some(process)
    }

    /// After the daemon and its keeper died together: what of this can be had again. Nobody waits for anything
    /// any more, and nothing but children is left to find, and the sockets that were `stored` elsewhere, by inode.
    ///
    /// # Errors
    /// Of one it cannot be told whether it lives: its process would be started a second time.
    pub fn find_again(&mut self, home: &Home, stored: &mut BTreeMap<u64, OwnedFd>) -> Result<(), String> {
        self.clients.clear();
        self.asked.clear();
        self.adopted.clear();
        self.ears.clear();
        self.spared.clear();
        self.updating = None;
        self.decisions.retain(|change| !matches!(change, Change::Operation(..)));
        self.decisions.iter_mut().for_each(Change::stay);
        let mut gone = Vec::new();
        for (id, (child, _)) in &mut self.children {
            if !child.find_again(home.path(), stored)? {
                gone.push(*id);
            }
        }
        for id in gone {
            self.children.remove(&id);
        }
        let (children, apps, nobody) = (&self.children, &self.apps, App::default());
        let is_there = |id: ChildId| children.get(&id).is_some_and(|(child, _)| child.has_channel());
        self.shares.retain(|_, share| share.find_again(stored, is_there));
        self.workers.retain(|id, _| is_there(*id));
        self.outputs.retain(|(id, stream), output| {
            let Some((child, app)) = children.get(id) else { return false };
            let number = if *stream == Stream::Stderr { 2 } else { 1 };
            let Ok(pipe) = pipe::reopen(child.pid, number, output.inode) else { return false };
            output.pipe = pipe.into_raw_fd();
            let app = child.whole().unwrap_or_else(|| apps.get(app).map_or(&nobody, |app| app));
            output.open_anew(home, app, child.process.0, *stream);
            true
        });
        Ok(())
    }

    /// Whether it is whole: written to its end by one who did.
    pub fn is_whole(&self) -> bool {
        self.head.format > 0 && self.whole
    }

    /// All fds that it names.
    pub fn fds(&self) -> BTreeSet<RawFd> {
        let children = self.children.values().flat_map(|(child, _)| child.fds());
        let outputs = self.outputs.values().flat_map(OutputRecord::fds);
        let sockets = self.shares.values().flat_map(|share| share.sockets.iter().map(|(_, fd, _)| *fd));
        let clients = self.clients.values().map(|client| client.fd);
        let others = self.adopted.iter().chain(&self.spared).copied();
        let ears = self.ears.iter().map(|ear| ear.fd);
        children.chain(outputs).chain(sockets).chain(clients).chain(others).chain(ears).collect()
    }
}

/// Whether a line is of a kind that this version does not know.
fn is_strange(line: &[u8]) -> bool {
    let value: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(line);
    value.is_ok_and(|entry| entry.len() == 1 && !entry.keys().any(|kind| KNOWN.contains(&kind.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_is_over() {
        let asked = |shutdown, answer| Asked { client: 1, id: 1, shutdown, answer };
        let answer = Message::Error { id: 1, error: "refused".to_string() };
        let mut left = Left::default();
        left.asked.insert(OpId(1), asked(false, None));
        left.asked.insert(OpId(2), asked(false, Some(answer)));
        left.asked.insert(OpId(3), asked(true, None));
        left.decisions.push(Change::Operation(OpId(1), None));
        left.forget_what_is_over();
        assert_eq!(left.asked.keys().collect::<Vec<_>>(), [&OpId(2), &OpId(3)]);
    }
}
