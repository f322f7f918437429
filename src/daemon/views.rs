//! What clients see of the processes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::children::{Child, Children};
use super::home::{Home, Stream};
use super::primary::Primary;
use crate::protocol::{self, Detail, Exit, View};
use crate::supervisor::{Beside, End, Phase, ProcId, Process, State, Supervisor, TimerKey};
use crate::sys::proc;
use crate::time::{Mono, Wall};

/// What is remembered of a process for people; nothing is decided by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    created: Wall,
    exits: VecDeque<Exit>,
    last_lines: Vec<String>,
}

/// The memories, by process.
#[derive(Debug, Default)]
pub struct Memories {
    memories: BTreeMap<ProcId, Memory>,
    /// Changed since the journal was last told.
    pub changed: BTreeSet<ProcId>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { created: Wall(0), exits: VecDeque::new(), last_lines: Vec::new() }
    }
}

impl Memories {
    /// For the journal.
    pub fn get(&self, process: ProcId) -> Option<&Memory> {
        self.memories.get(&process)
    }

    /// All processes that something is remembered of.
    pub fn processes(&self) -> impl Iterator<Item = ProcId> + '_ {
        self.memories.keys().copied()
    }

    /// What a daemon before us remembered.
    pub fn restore(&mut self, process: ProcId, memory: Option<Memory>) {
        match memory {
            Some(memory) => self.memories.insert(process, memory),
            None => self.memories.remove(&process),
        };
    }

    /// A new process, or one whose counters were reset.
    pub fn begin(&mut self, process: ProcId, at: Wall) {
        let fresh = Memory { created: at, exits: VecDeque::new(), last_lines: Vec::new() };
        self.changed.insert(process);
        self.memories.entry(process).and_modify(|memory| memory.created = at).or_insert(fresh);
    }

    /// A process that was deleted.
    pub fn forget(&mut self, process: ProcId) {
        self.changed.insert(process);
        self.memories.remove(&process);
    }

    /// The end of a child.
    pub fn ended(
        &mut self,
        process: ProcId,
        child: &Child,
        end: &End,
        signal: Option<i32>,
        at: Wall,
        now: Mono,
    ) {
        let Some(memory) = self.memories.get_mut(&process) else { return };
        self.changed.insert(process);
        if memory.exits.len() == Detail::EXITS {
            memory.exits.pop_front();
        }
        let lived = now.since(child.since);
        let pid = child.pid as u32;
        memory.exits.push_back(Exit { at, pid, lived, code: end.code, signal, text: end.text.clone() });
        memory.last_lines.clone_from(&end.last_lines);
    }
}

/// Everything that views are made from.
pub struct Sight<'a> {
    /// The decisions.
    pub supervisor: &'a Supervisor,
    /// The living.
    pub children: &'a mut Children,
    /// The listeners.
    pub primary: &'a Primary,
    /// The past.
    pub memories: &'a Memories,
    /// Where files are.
    pub home: &'a Home,
    /// Who the daemon is.
    pub us: &'a str,
    /// Now.
    pub now: Mono,
}

impl Sight<'_> {
    /// One line of the list.
    pub fn view(&mut self, process: &Process) -> View {
        let app = &process.app;
        let id = process.child();
        let mut cluster = app.is_cluster();
        let mut view = View {
            id: process.id.0,
            name: app.name.clone(),
            namespace: app.namespace.clone(),
            cluster,
            instance: process.instance,
            status: process.status(),
            pid: 0,
            since: None,
            restarts: process.record.restarts,
            unstable: process.record.unstable,
            cpu: None,
            memory: None,
            user: app.user.as_ref().map_or(self.us, |user| user.name.as_str()).to_string(),
            retry_in: None,
            reason: process.reason.clone(),
        };
        if let Some(due) = self.supervisor.timers().deadline(TimerKey::Restart(process.id)) {
            view.retry_in = Some(due.since(self.now));
        }
        if let Some(id) = id {
            cluster |= self.primary.is_serving(id);
            view.cluster = cluster;
            if let Some(child) = self.children.get_mut(id) {
                view.pid = child.pid as u32;
                view.since = Some(child.since_wall);
                (view.cpu, view.memory) = look(child, self.now);
            }
        }
        view
    }

    /// All facts of a process.
    pub fn detail(&mut self, process: &Process) -> Detail {
        let view = self.view(process);
        let memory = self.memories.get(process.id);
        let mut app = (*process.app).clone();
        app.inherit = Default::default();
        let path = |stream| self.home.log_file(&process.app, process.id.0, stream).display().to_string();
        let beside = process.beside.as_ref().and_then(|beside| {
            let pid = self.children.get(beside.child())?.pid as u32;
            Some(protocol::Child { pid, phase: phase(beside).to_string() })
        });
        let child = process.child();
        Detail {
            view,
            out_file: path(Stream::Stdout),
            error_file: path(Stream::Stderr),
            app,
            created: memory.map_or(Wall(0), |memory| memory.created),
            exits: memory.map_or(Vec::new(), |memory| memory.exits.iter().cloned().collect()),
            last_lines: match (memory, &process.state) {
                (
                    Some(memory),
                    State::Stopped | State::Errored | State::Waiting | State::Launching { .. },
                ) => memory.last_lines.clone(),
                _ => Vec::new(),
            },
            beside,
            listens: child.map_or(Vec::new(), |child| self.primary.addresses(child)),
            node_version: child.and_then(|child| self.children.get(child)?.node_version.clone()),
        }
    }

    /// The short list.
    pub fn list(&mut self) -> Vec<View> {
        let supervisor = self.supervisor;
        supervisor.processes().map(|process| self.view(process)).collect()
    }
}

/// CPU in percent of one core since the last look, or since the start; resident memory.
fn look(child: &mut Child, now: Mono) -> (Option<f32>, Option<u64>) {
    let Some(stat) = proc::stat(child.pid) else { return (None, None) };
    let (since, before) = child.cpu_seen.unwrap_or((child.since, 0));
    let elapsed = now.since(since).0;
    // Ticks are 10 ms: a shorter look says nothing.
    if elapsed < 100 {
        let lived = now.since(child.since).0.max(1);
        return (Some(stat.cpu_ms as f32 * 100.0 / lived as f32), Some(stat.rss_bytes));
    }
    child.cpu_seen = Some((now, stat.cpu_ms));
    let used = stat.cpu_ms.saturating_sub(before) as f32 * 100.0 / elapsed as f32;
    (Some(used), Some(stat.rss_bytes))
}

fn phase(beside: &Beside) -> &'static str {
    match beside {
        Beside::Candidate { baking: false, .. } => "starting",
        Beside::Candidate { baking: true, .. } => "baking",
        Beside::Rejected { leaving, .. } | Beside::Retiring(leaving) => match leaving.phase {
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Killed => "killed",
        },
    }
}
