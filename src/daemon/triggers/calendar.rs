//! `cron_restart` and jobs: when each is due next. The wall clock is looked at here and nowhere else: a timer of
//! the kernel fires at the time of day, or when somebody sets the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};

use serde::{Deserialize, Serialize};

use super::super::event_loop::Daemon;
use super::super::source::{Progress, Source};
use super::super::watch::{unwatch, watch};
use crate::app::App;
use crate::app::cron::Cron;
use crate::app::zone::Zone;
use crate::protocol::Cause;
use crate::supervisor::{Desired, Input, ProcId, Process, State, Why};
use crate::sys::clock::{self, WallTimer};
use crate::sys::zone;
use crate::time::{Millis, Wall};

/// What was due while no daemon was there is made up for so long.
const MISSED: Millis = Millis(60_000);
/// A clock that is set back by less than this shows hours again that have been; nothing is due in them again.
const SET_BACK: i64 = 3 * 3_600_000;

/// All that is due some time.
#[derive(Debug, Default)]
pub struct Calendar {
    timer: Option<WallTimer>,
    entries: BTreeMap<ProcId, Entry>,
    /// What a daemon before us knew.
    restored: BTreeMap<ProcId, Scheduled>,
    /// Processes whose dates changed since the journal was last told.
    pub changed: BTreeSet<ProcId>,
    /// The wall clock less the monotonic one, at the last look.
    offset: i64,
}

/// The calendar of one process.
#[derive(Debug)]
struct Entry {
    cron: Cron,
    zone: Zone,
    dates: Scheduled,
}

/// The dates of a process, for the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduled {
    /// By this pattern,
    pattern: String,
    /// in this zone,
    zone: Option<String>,
    /// it is due then.
    due: Wall,
    /// And was last.
    last: Option<Wall>,
}

impl Calendar {
    /// What a daemon before us knew.
    pub fn restore(&mut self, process: ProcId, dates: Option<Scheduled>) {
        match dates {
            Some(dates) => self.restored.insert(process, dates),
            None => self.restored.remove(&process),
        };
    }

    /// The dates of a process, for the journal.
    pub fn record(&self, process: ProcId) -> Option<Scheduled> {
        self.entries.get(&process).map(|entry| entry.dates.clone())
    }

    /// All that have dates.
    pub fn processes(&self) -> impl Iterator<Item = ProcId> + '_ {
        self.entries.keys().copied()
    }

    /// The last and the next.
    pub fn runs(&self, process: ProcId) -> (Option<Wall>, Option<Wall>) {
        let dates = self.entries.get(&process).map(|entry| &entry.dates);
        (dates.and_then(|dates| dates.last), dates.map(|dates| dates.due))
    }

    /// Notices a clock that was set back far: what is due then is due much earlier. Set forward it makes due
    /// what is past, once.
    fn notice_clock(&mut self, now: Wall, mono: u64) {
        let offset = now.0 as i64 - mono as i64;
        let moved = offset - std::mem::replace(&mut self.offset, offset);
        if moved < -SET_BACK {
            for (id, entry) in &mut self.entries {
                if let Some(due) = next(&entry.cron, &entry.zone, now) {
                    entry.dates.due = due;
                    self.changed.insert(*id);
                }
            }
        }
    }
}

fn next(cron: &Cron, zone: &Zone, after: Wall) -> Option<Wall> {
    let next = zone.next(cron, (after.0 / 1_000) as i64)?;
    Some(Wall(u64::try_from(next).ok()?.saturating_mul(1_000)))
}

/// The zone of an app's calendar: the one that was declared, the `TZ` of the app, the machine's.
pub fn zone_of(app: &App) -> Result<Zone, String> {
    let tz = app.env.get("TZ").or(app.inherit.0.get("TZ")).map(|text| text.lossy().into_owned());
    let tz = tz.map(|text| text.trim_start_matches(':').to_string()).filter(|text| !text.is_empty());
    let (name, declared) = match (&app.triggers.zone, tz) {
        (Some(name), _) => (Some(name.clone()), true),
        (None, tz) => (tz, false),
    };
    let read = zone::file(name.as_deref());
    let found = read.as_ref().ok().and_then(|bytes| Zone::read(bytes));
    let found = found.or_else(|| name.as_deref().and_then(Zone::rule));
    match (found, name) {
        (Some(zone), _) => Ok(zone),
        // A machine without a zone is on UTC, and so is who names one in TZ that nobody knows, as in the C library.
        (None, None) => Ok(Zone::default()),
        (None, Some(name)) if !declared => {
            log::warn!(
                "{}: the time zone {name:?} of TZ is not known here; its calendar is that of UTC",
                app.name
            );
            Ok(Zone::default())
        }
        (None, Some(name)) => {
            let reason = match read {
                Err(error) => crate::sys::reason(&error),
                Ok(_) => "not a file of time zones".to_string(),
            };
            Err(format!("time zone {name:?}: {reason} (is tzdata installed?)"))
        }
    }
}

impl Daemon {
    /// Brings the calendar of a process up to date.
    pub(super) fn keep_calendar(&mut self, id: ProcId) {
        let is_wanted =
            |process: &&Process| process.desired == Desired::Up || process.state == State::Errored;
        let process = self.supervisor.process(id).filter(is_wanted);
        let calendar = &mut self.triggers.calendar;
        let pattern = process.and_then(|process| process.app.triggers.pattern());
        let (Some(process), Some(pattern)) = (process, pattern) else {
            calendar.restored.remove(&id);
            if calendar.entries.remove(&id).is_some() {
                calendar.changed.insert(id);
                self.arm_calendar();
            }
            return;
        };
        let zone = process.app.triggers.zone.clone();
        if calendar
            .entries
            .get(&id)
            .is_some_and(|entry| entry.dates.pattern == pattern && entry.dates.zone == zone)
        {
            return;
        }
        let read = Cron::parse(pattern).and_then(|cron| Ok((cron, zone_of(&process.app)?)));
        let (cron, found) = match read {
            Ok(read) => read,
            Err(error) => return log::error!("{}({}): {error}", process.app.name, id.0),
        };
        let now = clock::wall();
        let Some(due) = next(&cron, &found, now) else { return };
        let mut dates = Scheduled { pattern: pattern.to_string(), zone, due, last: None };
        if let Some(before) = calendar.restored.remove(&id) {
            dates.last = before.last;
            let same = (&before.pattern, &before.zone) == (&dates.pattern, &dates.zone);
            // What was due while nobody was there is late, or too late.
            if same && before.due.0 + MISSED.0 >= now.0 {
                dates.due = before.due.min(dates.due);
            } else if same {
                log::warn!("{}({}): not run at {}: pmx was not there", process.app.name, id.0, before.due);
            }
        } else if let Some(before) = calendar.entries.get(&id) {
            dates.last = before.dates.last;
        }
        calendar.entries.insert(id, Entry { cron, zone: found, dates });
        calendar.changed.insert(id);
        self.arm_calendar();
    }

    /// Sets the timer to the next date, or gives it up.
    fn arm_calendar(&mut self) {
        let registry = self.poll.registry();
        let calendar = &mut self.triggers.calendar;
        let next = calendar.entries.values().map(|entry| entry.dates.due).min();
        if next.is_none() {
            if let Some(timer) = calendar.timer.take() {
                unwatch(registry, timer.as_fd().as_raw_fd());
            }
            return;
        }
        if calendar.timer.is_none() {
            match WallTimer::new() {
                Ok(timer) => {
                    watch(registry, timer.as_fd().as_raw_fd(), Source::Calendar, mio::Interest::READABLE);
                    calendar.offset = clock::wall().0 as i64 - clock::mono().0 as i64;
                    calendar.timer = Some(timer);
                }
                Err(error) => return log::error!("make a timer: {}", crate::sys::reason(&error)),
            }
        }
        if let Some(timer) = &calendar.timer
            && let Err(error) = timer.arm(next)
        {
            log::error!("set a timer: {}", crate::sys::reason(&error));
        }
    }

    /// It is time for something, or the clock was set. Whatever was due in between is due once.
    pub(in super::super) fn take_calendar(&mut self) -> Progress {
        let Some(timer) = &self.triggers.calendar.timer else { return Progress::Drained };
        timer.drain();
        let now = clock::wall();
        let calendar = &mut self.triggers.calendar;
        calendar.notice_clock(now, clock::mono().0);
        let mut due = Vec::new();
        for (id, entry) in &mut calendar.entries {
            if entry.dates.due > now {
                continue;
            }
            entry.dates.last = Some(now);
            entry.dates.due = next(&entry.cron, &entry.zone, now).unwrap_or(Wall(u64::MAX / 2));
            due.push((*id, entry.dates.pattern.clone()));
        }
        for (id, pattern) in due {
            calendar.changed.insert(id);
            let is_job = self.supervisor.process(id).is_some_and(|process| process.app.triggers.is_job());
            let why = Why { cause: Cause::Cron, reason: format!("cron {pattern}") };
            let input = match is_job {
                true => Input::Due { process: id, why },
                false => Input::Trigger { process: id, about: None, why },
            };
            self.supervisor.handle(self.now, input);
        }
        self.arm_calendar();
        Progress::Drained
    }
}
