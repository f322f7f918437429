//! What processes use, noted for later: each minute while anything runs, and more often when it is looked at anyway;
//! and with it what the machine does. From the minutes follows whose memory grows without end. With nothing to note
//! nothing wakes us.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::alert::Happened;
use super::event_loop::Daemon;
use super::host::Looks;
use super::segments::Segments;
use super::views::Usage;
use crate::app::{App, Occasion};
use crate::protocol::samples::{self, Pace, Record, name_of};
use crate::protocol::{EventKind, Leak, View};
use crate::supervisor::{ChildId, Process, State};
use crate::sys::census::Census;
use crate::sys::{clock, limits, proc};
use crate::time::{Millis, Mono, Wall};

/// How often samples are taken; [`VARIABLE`] sets another time, in ms.
const EVERY: Millis = Millis(60_000);
const VARIABLE: &str = "PMX_HISTORY_INTERVAL";
/// Children that are looked at in one round: others wait.
const BATCH: usize = 64;
/// With more children than this, those of each are found one by one, and not all processes are looked at in one go.
const MANY: usize = 1_000;
/// What is looked at anyway is noted so often at most, and so often where only a memory limit is watched over.
const LOOKED: Millis = Millis(1_000);
const GUARDED: Millis = Millis(10_000);
/// How far back the samples are read from which a daemon that took over learns whose memory grows.
const REPLAY: Millis = Millis(4 * 3_600_000);

/// When samples are taken, and where they go.
#[derive(Debug)]
pub struct Sampling {
    every: Millis,
    next: Option<Mono>,
    /// It was switched off; it is looked at again when something happens.
    rests: bool,
    round: Option<Round>,
    /// `None`: there are no files.
    files: Option<Files>,
    /// Children came from a daemon before us.
    inherited: bool,
}

#[derive(Debug)]
struct Files {
    minutes: Segments,
    seconds: Segments,
    host: Looks,
    home: PathBuf,
    /// It was said that these cannot be written.
    complained: Option<Pace>,
}

impl Files {
    /// `every`: how far apart looks at the machine are at most.
    fn write(&mut self, pace: Pace, now: Mono, every: Millis, records: &[Record]) {
        let host = self.host.look(pace, now, every, &self.home);
        let at = clock::wall();
        let segments = match pace {
            Pace::Minutes => &mut self.minutes,
            Pace::Seconds => &mut self.seconds,
        };
        match segments.append(at, records, &host) {
            Ok(()) if self.complained == Some(pace) => {
                self.complained = None;
                log::info!("write the history: it works again");
            }
            Err(error) if self.complained.is_none() => {
                self.complained = Some(pace);
                let reason = crate::sys::reason(&error);
                log::warn!("write the history: {reason}; it has a gap from here on");
            }
            _ => {}
        }
    }
}

/// A round of samples that goes on.
#[derive(Debug)]
struct Round {
    left: Vec<ChildId>,
    census: Census,
    records: Vec<Record>,
}

impl Sampling {
    /// Of the daemon that lives at `home`; without, nothing is written.
    pub fn new(home: Option<&Path>, inherited: bool) -> Sampling {
        let every = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let every = every.map_or(EVERY, |ms: u64| Millis(ms.clamp(1, 86_400_000)));
        // As many samples as a day has minutes, however far apart.
        let span = Millis(Pace::Minutes.span().0 / EVERY.0 * every.0);
        let files = home.map(|home| Files {
            minutes: Segments::of(home, Pace::Minutes, span),
            seconds: Segments::of(home, Pace::Seconds, Pace::Seconds.span()),
            host: Looks::default(),
            home: home.to_path_buf(),
            complained: None,
        });
        Sampling { every, next: None, rests: false, round: None, files, inherited }
    }

    /// When it wants to be visited next.
    pub fn deadline(&self) -> Option<Mono> {
        if self.round.is_some() { Some(Mono(0)) } else { self.next }
    }

    /// Something happened, or somebody looks: if it was switched off, it may be on again.
    pub fn wake(&mut self) {
        self.rests = false;
    }

    fn is_off(&self) -> bool {
        let Some(files) = &self.files else { return false };
        let conf = fs::read(files.home.join("module_conf.json")).ok();
        let conf = conf.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        conf.is_some_and(|conf| conf["history"] == "off")
    }

    /// Notes what was found anyway, unless it was just noted.
    fn note(&mut self, now: Mono, apart: Millis, records: Vec<Record>) {
        let at = clock::wall();
        let is_due = |files: &Files| !records.is_empty() && files.seconds.is_due(at, apart, records.len());
        if self.files.as_ref().is_some_and(is_due)
            && !self.is_off()
            && let Some(files) = &mut self.files
        {
            files.write(Pace::Seconds, now, self.every, &records);
        }
    }
}

impl Daemon {
    /// Takes the samples that are due, as many as one round allows.
    pub(super) fn sample_if_due(&mut self) {
        let sampling = &mut self.sampling;
        if self.children.living.is_empty() || sampling.rests {
            (sampling.next, sampling.round) = (None, None);
            return;
        }
        let due = *sampling.next.get_or_insert(self.now + sampling.every);
        if sampling.round.is_none() {
            if due > self.now {
                return;
            }
            sampling.next = Some(self.now + sampling.every);
            if sampling.is_off() {
                (sampling.next, sampling.rests) = (None, true);
                return;
            }
            let mut left: Vec<ChildId> = self.children.ids().collect();
            left.reverse();
            sampling.round = Some(Round { left, census: Census::default(), records: Vec::new() });
            if std::mem::take(&mut sampling.inherited) {
                self.learn();
            }
        }
        let Some(mut round) = self.sampling.round.take() else { return };
        for _ in 0..BATCH {
            let Some(child) = round.left.pop() else { break };
            let record = self.sample(child, &round.census);
            round.records.extend(record);
        }
        if !round.left.is_empty() {
            self.sampling.round = Some(round);
            return;
        }
        let every = self.sampling.every;
        if let Some(files) = &mut self.sampling.files {
            let at = clock::wall();
            if files.minutes.is_due(at, every, round.records.len()) {
                files.write(Pace::Minutes, self.now, every, &round.records);
            }
        }
    }

    /// What a current child uses.
    fn sample(&mut self, id: ChildId, census: &Census) -> Option<Record> {
        let pids = self.close_members(id, census);
        let usage = Usage::of(&pids);
        let fds = pids.iter().filter_map(|pid| proc::open_files(*pid)).reduce(|all, more| all + more);
        let (every, now) = (self.sampling.every, self.now);
        let child = self.children.get_mut(id)?;
        let process = self.supervisor.process(child.process).filter(|process| process.child() == Some(id))?;
        if usage.processes == 0 {
            return None;
        }
        let before = child.sampled.replace((now, usage.cpu_ms));
        let cpu = before.map(|(at, before)| {
            let thousandths = usage.cpu_ms.saturating_sub(before) * 1_000 / now.since(at).0.max(1);
            u32::try_from(thousandths).unwrap_or(u32::MAX)
        });
        let memory_kb = kilobytes(usage.rss_bytes);
        let is_online = matches!(process.state, State::Online { .. });
        let is_new = is_online && child.leak.sample(now.since(child.since), every, memory_kb);
        let record = Record {
            cpu,
            fds: fds.map(|fds| u16::try_from(fds).unwrap_or(u16::MAX)),
            threads: u16::try_from(usage.threads).unwrap_or(u16::MAX),
            ..record_of(process, memory_kb)
        };
        if is_new && let Some(rate) = child.leak.rate() {
            let leak = leak(&process.app, rate, usage.rss_bytes, child.group.is_some());
            let (process, name) = (process.id, process.app.name.clone());
            self.publish(process, name, EventKind::Leak, leak.text());
            let numbers = json!(leak);
            self.alert(process, &Happened { numbers, ..Happened::new(Occasion::Leak, leak.text()) });
        }
        Some(record)
    }

    /// The processes of a child, at a cost that does not grow with the number of all.
    fn close_members(&self, id: ChildId, census: &Census) -> Vec<i32> {
        let Some(child) = self.children.get(id) else { return Vec::new() };
        if child.group.is_none() && self.children.living.len() > MANY {
            return proc::descendants(child.pid).unwrap_or_default();
        }
        self.children.pids(id, census)
    }

    /// Notes a list that somebody looked at.
    pub(super) fn note_views<'a>(&mut self, views: impl Iterator<Item = &'a View>) {
        self.sampling.wake();
        let record = |view: &View| {
            let memory_kb = kilobytes(view.memory?);
            Some(Record {
                id: view.id,
                name: name_of(&view.namespace, &view.name),
                cpu: view.cpu.map(|cpu| (cpu * 10.0) as u32),
                memory_kb,
                fds: None,
                threads: u16::try_from(view.threads).unwrap_or(u16::MAX),
                restarts: view.restarts,
            })
        };
        let records = views.filter_map(record).collect();
        self.sampling.note(self.now, LOOKED, records);
    }

    /// Notes the memory that was looked at because it has a limit.
    pub(super) fn note_memory(&mut self, used: &[(ChildId, u64)]) {
        let process = |child| self.supervisor.process(self.supervisor.owner(child)?);
        let record = |(child, bytes): &(ChildId, u64)| Some(record_of(process(*child)?, kilobytes(*bytes)));
        let records = used.iter().filter_map(record).collect();
        self.sampling.note(self.now, GUARDED, records);
    }

    /// What the daemon before us knew of growing memory is read from what it wrote.
    fn learn(&mut self) {
        let Some(files) = &self.sampling.files else { return };
        let recent = files.minutes.recent();
        let wanted: BTreeMap<u32, (ChildId, Wall, u32)> = self
            .children
            .ids()
            .filter_map(|id| {
                let child = self.children.get(id).filter(|child| child.sampled.is_none())?;
                let name = name_of(&child.app.namespace, &child.app.name);
                Some((child.process.0, (id, child.since_wall, name)))
            })
            .collect();
        let names = wanted.iter().map(|(id, (_, _, name))| (*id, *name)).collect();
        let since = Wall(clock::wall().0.saturating_sub(REPLAY.0));
        for (id, points) in samples::series(&recent, since, &names) {
            let Some((child, since)) = wanted.get(&id).map(|(child, since, _)| (*child, *since)) else {
                continue;
            };
            let Some(child) = self.children.get_mut(child) else { continue };
            for (at, record) in points.iter().filter(|(at, _)| *at > since) {
                child.leak.sample(Millis(at.0 - since.0), self.sampling.every, record.memory_kb);
            }
        }
    }
}

fn kilobytes(bytes: u64) -> u32 {
    u32::try_from(bytes >> 10).unwrap_or(u32::MAX)
}

fn record_of(process: &Process, memory_kb: u32) -> Record {
    let name = name_of(&process.app.namespace, &process.app.name);
    Record { id: process.id.0, name, memory_kb, restarts: process.record.restarts, ..Record::default() }
}

/// A leak, and when it comes to an end.
pub fn leak(app: &App, rate: u64, memory: u64, has_group: bool) -> Leak {
    let own = app.triggers.max_memory.map(|limit| limit.of(limits::memory()));
    let limit = own.into_iter().chain(app.limits.memory.filter(|_| has_group)).min();
    let reached_in = limit.map(|limit| {
        let ms = u128::from(limit.saturating_sub(memory)) * 3_600_000 / u128::from(rate.max(1));
        Millis(u64::try_from(ms).unwrap_or(u64::MAX))
    });
    Leak { rate, limit, reached_in }
}
