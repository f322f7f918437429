//! What clients see of the processes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::children::{Child, Children};
use super::home::{Home, Stream};
use super::primary::Primary;
use super::sampling;
use super::triggers::Triggers;
use crate::protocol::{self, Detail, Exit, Health, View};
use crate::supervisor::{Beside, End, Phase, ProcId, Process, Said, State, Supervisor, TimerKey, Verdict};
use crate::sys::census::Census;
use crate::sys::proc;
use crate::time::{Mono, Wall};

/// What is remembered of a process for people; nothing is decided by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub(super) created: Wall,
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

impl Memory {
    /// The last end of a child.
    pub fn last_exit(&self) -> Option<&Exit> {
        self.exits.back()
    }

    /// The last lines of that child.
    pub fn last_lines(&self) -> &[String] {
        &self.last_lines
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
        child: &Child,
        end: &End,
        signal: Option<i32>,
        why: Option<String>,
        (at, now): (Wall, Mono),
    ) {
        let Some(memory) = self.memories.get_mut(&child.process) else { return };
        if child.app.command.runtime == crate::app::Runtime::Hook && end.code == Some(0) {
            // As it should be.
            return;
        }
        self.changed.insert(child.process);
        if memory.exits.len() == Detail::EXITS {
            memory.exits.pop_front();
        }
        let lived = now.since(child.since);
        let pid = child.pid as u32;
        let text = end.text.clone();
        memory.exits.push_back(Exit { at, pid, lived, code: end.code, signal, text, why, used: child.used });
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
    /// What calls for new children.
    pub triggers: &'a Triggers,
    /// Who there is.
    pub census: Census,
}

/// What a child and all that it brought about use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, that of members that have ended included, as far as another one has reaped them.
    pub cpu_ms: u64,
    /// Resident memory, each process by itself: what they share counts for each, as in pm2.
    pub rss_bytes: u64,
    /// How many processes there are.
    pub processes: u32,
    /// How many threads they have.
    pub threads: u32,
}

impl Usage {
    /// That of so many processes, of which some may be zombies.
    pub fn of(pids: &[i32]) -> Usage {
        let mut usage = Usage::default();
        let alive = |stat: &proc::Stat| !matches!(stat.state, 'Z' | 'X');
        for stat in pids.iter().filter_map(|pid| proc::stat(*pid)).filter(alive) {
            usage.cpu_ms += stat.cpu_ms + stat.children_cpu_ms;
            usage.rss_bytes += stat.rss_bytes;
            usage.processes += 1;
            usage.threads += stat.threads;
        }
        usage
    }
}

impl Sight<'_> {
    /// One line of the list.
    pub fn view(&mut self, process: &Process) -> View {
        self.look(process).0
    }

    /// The same, and the processes that it tells of.
    fn look(&mut self, process: &Process) -> (View, Vec<i32>) {
        let mut pids = Vec::new();
        let app = &process.app;
        let id = process.child();
        let mut cluster = app.is_cluster();
        let (last_run, next_run) = self.triggers.runs(process.id);
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
            processes: 0,
            threads: 0,
            last_run,
            next_run,
            watching: self.triggers.watching(&app.name),
            user: app.user.as_ref().map_or(self.us, |user| user.name.as_str()).to_string(),
            budget_left: process.record.budget_left(&app.restart, self.now),
            retry_in: None,
            reason: process.reason.clone(),
            health: None,
            says: None,
            leak: None,
            accepted: None,
        };
        let deadline = |key| self.supervisor.timers().deadline(key);
        let due = deadline(TimerKey::Restart(process.id)).or(deadline(TimerKey::Turn(process.id)));
        view.retry_in = due.map(|due| due.since(self.now));
        view.health = process.vitals.checks.as_ref().map(|checks| match checks.verdict {
            Verdict::Starting => Health::Starting,
            Verdict::Healthy => Health::Healthy,
            Verdict::Unhealthy => Health::Unhealthy,
        });
        if let Some(id) = id {
            cluster |= self.primary.is_serving(id);
            view.cluster = cluster;
            view.accepted = self.primary.accepted(id);
            pids = self.children.pids(id, &self.census);
            let usage = Usage::of(&pids);
            if let Some(child) = self.children.get_mut(id) {
                view.pid = child.pid as u32;
                view.says = child.words.status.clone();
                view.since = Some(child.since_wall);
                if usage.processes > 0 {
                    view.cpu = Some(cpu(child, &usage, self.now));
                    view.memory = Some(usage.rss_bytes);
                }
                let has_group = child.group.is_some();
                let leak = child.leak.rate().filter(|_| usage.processes > 0);
                view.leak = leak.map(|rate| sampling::leak(app, rate, usage.rss_bytes, has_group));
                view.processes = usage.processes;
                view.threads = usage.threads;
            }
        }
        (view, pids)
    }

    /// All facts of a process.
    pub fn detail(&mut self, process: &Process) -> Detail {
        let (view, pids) = self.look(process);
        let memory = self.memories.get(process.id);
        let mut app = (*process.app).clone();
        app.inherit = Default::default();
        app.on = app.on.hidden();
        let path = |stream| self.home.log_file(&process.app, process.id.0, stream).display().to_string();
        let beside = process.beside.as_ref().and_then(|beside| {
            let pid = self.children.get(beside.child())?.pid as u32;
            Some(protocol::Child { pid, phase: phase(beside).to_string() })
        });
        let child = process.child();
        let vitals = &process.vitals;
        let words = child.and_then(|child| self.children.get(child)).map(|child| child.words.clone());
        let counts = self.children.log_counts(process.id);
        Detail {
            view,
            out_file: path(Stream::Stdout),
            error_file: path(Stream::Stderr),
            lines_lost: counts.lost,
            log_bytes: counts.bytes,
            log_file: self
                .home
                .combined_file(&process.app, process.id.0)
                .map(|path| path.display().to_string()),
            app,
            created: memory.map_or(Wall(0), |memory| memory.created),
            exits: memory.map_or(Vec::new(), |memory| memory.exits.iter().cloned().collect()),
            by_cause: process.record.by_cause.clone(),
            skipped: process.record.skipped,
            last_restart: process.record.last_restart.clone(),
            last_lines: match (memory, &process.state) {
                (
                    Some(memory),
                    State::Stopped
                    | State::Errored
                    | State::Waiting
                    | State::Blocked
                    | State::Preparing { .. }
                    | State::Launching { .. },
                ) => memory.last_lines.clone(),
                _ => Vec::new(),
            },
            beside,
            listens: child.map_or(Vec::new(), |child| self.primary.addresses(child)),
            queues: child.map_or(Vec::new(), |child| self.primary.queues(child)),
            fds: pids.iter().filter_map(|pid| proc::open_files(*pid)).reduce(|all, more| all + more),
            health_error: vitals.checks.as_ref().and_then(|checks| checks.error.clone()),
            said: child.and_then(|_| said(vitals.said)),
            watchdog: child.and(vitals.watchdog),
            main_pid: words.and_then(|words| words.main_pid),
            axm: child.and_then(|child| Some(self.children.get(child)?.axm.clone())).unwrap_or_default(),
            lost: child.and_then(|child| Some(self.children.get(child)?.lost)).unwrap_or(0),
            node_version: child.and_then(|child| self.children.get(child)?.node_version.clone()),
        }
    }

    /// The short list.
    pub fn list(&mut self) -> Vec<View> {
        let supervisor = self.supervisor;
        supervisor.processes().map(|process| self.view(process)).collect()
    }
}

/// Processor time in percent of one core since the last look, or since the start.
fn cpu(child: &mut Child, usage: &Usage, now: Mono) -> f32 {
    let (since, before) = child.cpu_seen.unwrap_or((child.since, 0));
    let elapsed = now.since(since).0;
    // Ticks are 10 ms: a shorter look says nothing.
    if elapsed < 100 {
        let lived = now.since(child.since).0.max(1);
        return usage.cpu_ms as f32 * 100.0 / lived as f32;
    }
    child.cpu_seen = Some((now, usage.cpu_ms));
    usage.cpu_ms.saturating_sub(before) as f32 * 100.0 / elapsed as f32
}

fn said(said: Said) -> Option<String> {
    let word = match said {
        Said::Nothing => return None,
        Said::Ready => "ready",
        Said::Reloading => "reloading",
        Said::Stopping => "stopping",
        Said::Silent => "silent",
    };
    Some(word.to_string())
}

fn phase(beside: &Beside) -> &'static str {
    match beside {
        Beside::Preparing { .. } => "preparing",
        Beside::Candidate { baking: false, vitals, .. } if vitals.checks.is_some() => "proving its health",
        Beside::Candidate { baking: false, .. } => "starting",
        Beside::Candidate { baking: true, .. } => "baking",
        Beside::Rejected { leaving, .. } | Beside::Retiring(leaving) => match leaving.phase {
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Killed => "killed",
        },
    }
}
