//! `max_memory_restart`: what the whole tree of a child uses, looked at each second while some app has a limit.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Daemon;
use crate::app::Occasion;
use crate::app::units::amount;
use crate::daemon::alert::Happened;
use crate::protocol::Cause;
use crate::supervisor::{ChildId, ProcId, State, Why};
use crate::sys::census::Census;
use crate::sys::{limits, proc};
use crate::time::{Millis, Mono};

/// How often memory is looked at.
const LOOK: Millis = Millis(1_000);
/// Every so many looks it is looked at all processes of the machine. Where no control group holds them, those
/// whose parents have ended are found in no other way.
const CENSUS: u32 = 30;
/// A child that could not be replaced is let be for so long.
const AGAIN: Millis = Millis(30_000);

/// Who has a limit.
#[derive(Debug, Default)]
pub struct Guard {
    limited: BTreeMap<ProcId, u64>,
    next: Option<Mono>,
    looks: u32,
    /// Children for which a new one was asked, and when.
    asked: BTreeMap<ChildId, Mono>,
    /// The sum of limits of which its owner was told that there is not so much.
    told: u64,
}

impl Guard {
    /// When it looks next.
    pub fn deadline(&self) -> Option<Mono> {
        self.next
    }
}

impl Daemon {
    /// Notes the limit of a process while it is to run.
    pub(super) fn guard_memory(&mut self, id: ProcId) {
        let process = self.supervisor.process(id).filter(|process| process.child().is_some());
        let limit = process.and_then(|process| process.app.triggers.max_memory);
        let guard = &mut self.triggers.guard;
        let Some(limit) = limit else {
            if guard.limited.remove(&id).is_some() && guard.limited.is_empty() {
                guard.next = None;
                guard.asked.clear();
            }
            return;
        };
        let all = limits::memory();
        if guard.limited.insert(id, limit.of(all)) == Some(limit.of(all)) {
            return;
        }
        guard.next.get_or_insert(self.now + LOOK);
        let sum = guard.limited.values().fold(0u64, |sum, limit| sum.saturating_add(*limit));
        if sum > all && sum != guard.told {
            guard.told = sum;
            log::warn!(
                "max_memory_restart: {} in sum over {} processes, and there are {}",
                amount(sum),
                guard.limited.len(),
                amount(all)
            );
        }
    }

    /// Looks at those that have a limit.
    pub(super) fn look_at_memory(&mut self) {
        if self.triggers.guard.next.is_none_or(|next| next > self.now) {
            return;
        }
        self.triggers.guard.next = Some(self.now + LOOK);
        let wide = self.triggers.guard.looks % CENSUS == CENSUS - 1;
        self.triggers.guard.looks = self.triggers.guard.looks.wrapping_add(1);
        let census = Census::default();
        let mut alive = BTreeSet::new();
        let mut over = Vec::new();
        let mut seen = Vec::new();
        for (&id, &limit) in &self.triggers.guard.limited {
            let Some(process) = self.supervisor.process(id) else { continue };
            let (State::Launching { child, .. } | State::Online { child, .. }) = process.state else {
                continue;
            };
            alive.insert(child);
            if self.triggers.guard.asked.get(&child).is_some_and(|asked| self.now.since(*asked) < AGAIN) {
                continue;
            }
            let used = self.memory_of(child, limit, &census, wide);
            seen.push((child, used));
            if used > limit {
                over.push((id, child, used, limit));
            }
        }
        self.note_memory(&seen);
        self.triggers.guard.asked.retain(|child, _| alive.contains(child));
        for (id, child, used, limit) in over {
            self.triggers.guard.asked.insert(child, self.now);
            let reason = format!("memory {} over the limit of {}", amount(used), amount(limit));
            let numbers = json!({"by": "max_memory_restart", "used": used, "limit": limit});
            self.alert(id, &Happened { numbers, ..Happened::new(Occasion::Oom, reason.as_str()) });
            self.trigger(id, Some(child), Why { cause: Cause::Memory, reason });
        }
    }

    /// The memory of a child and all that it brought about. What several of them share counts once, but is
    /// counted so only where it matters.
    fn memory_of(&self, child: ChildId, limit: u64, census: &Census, wide: bool) -> u64 {
        let close = self.children.get(child).filter(|child| !wide && child.group.is_none());
        let close = close.and_then(|child| proc::descendants(child.pid));
        let members: Vec<i32> = close.unwrap_or_else(|| {
            self.children.members(child, census).iter().map(|member| member.pid).collect()
        });
        let resident: u64 = members.iter().filter_map(|pid| Some(proc::stat(*pid)?.rss_bytes)).sum();
        if resident <= limit || members.len() < 2 {
            return resident;
        }
        let shares = members.iter().map(|pid| proc::proportional_memory(*pid));
        // One that may not be looked into so closely, or has just ended.
        shares.collect::<Option<Vec<u64>>>().map_or(resident, |shares| shares.iter().sum())
    }
}
