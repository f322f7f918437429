//! Deadlines by name. A name has at most one deadline; arming it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ChildId, ProcId};
use crate::time::Mono;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TimerKey {
    /// The current child should be ready by now.
    Launch(ProcId),
    /// The replacement should be ready by now, or has stayed alive long enough; or whoever asked for it has
    /// waited long enough for the old child to drain.
    Replacement(ProcId),
    /// The back-off is over.
    Restart(ProcId),
    /// It is its turn among many that start again.
    Turn(ProcId),
    /// The child should have finished its connections.
    Drain(ChildId),
    /// The child should be dead.
    Kill(ChildId),
    /// The child should have shown a sign of life.
    Watchdog(ChildId),
    /// The health of the child is to be checked, or its check should be over.
    Check(ChildId),
}

/// All armed deadlines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(TimerKey, Mono)>", into = "Vec<(TimerKey, Mono)>")]
pub struct Timers {
    by_key: BTreeMap<TimerKey, Mono>,
    by_time: BTreeSet<(Mono, TimerKey)>,
    /// Armed, moved or cancelled since the journal was last told.
    changed: BTreeSet<TimerKey>,
}

impl PartialEq for Timers {
    fn eq(&self, other: &Timers) -> bool {
        self.by_key == other.by_key
    }
}

impl Timers {
    /// Sets the deadline of `key`.
    pub fn arm(&mut self, key: TimerKey, at: Mono) {
        self.cancel(key);
        self.changed.insert(key);
        self.by_key.insert(key, at);
        self.by_time.insert((at, key));
    }

    /// Removes the deadline of `key`, if it has one.
    pub fn cancel(&mut self, key: TimerKey) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
            self.changed.insert(key);
        }
    }

    /// Those that were armed, moved or cancelled since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<TimerKey> {
        std::mem::take(&mut self.changed)
    }

    /// Whether any was armed, moved or cancelled since [`Self::take_changed`].
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// When `key` is due.
    pub fn deadline(&self, key: TimerKey) -> Option<Mono> {
        self.by_key.get(&key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Mono> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Takes one timer that is due, the earliest first.
    pub fn pop_due(&mut self, now: Mono) -> Option<TimerKey> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }

    /// What is armed, for the simulation's invariants.
    pub fn keys(&self) -> impl Iterator<Item = TimerKey> + '_ {
        self.by_key.keys().copied()
    }
}

impl From<Vec<(TimerKey, Mono)>> for Timers {
    fn from(list: Vec<(TimerKey, Mono)>) -> Timers {
        let mut timers = Timers::default();
        for (key, at) in list {
            timers.arm(key, at);
        }
        timers
    }
}

impl From<Timers> for Vec<(TimerKey, Mono)> {
    fn from(timers: Timers) -> Vec<(TimerKey, Mono)> {
        timers.by_key.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_latest_deadline() {
        let mut timers = Timers::default();
        timers.arm(TimerKey::Restart(ProcId(1)), Mono(10));
        timers.arm(TimerKey::Restart(ProcId(1)), Mono(30));
        timers.arm(TimerKey::Kill(ChildId(7)), Mono(20));
        assert_eq!(timers.next(), Some(Mono(20)));
        assert_eq!(timers.pop_due(Mono(19)), None);
        assert_eq!(timers.pop_due(Mono(40)), Some(TimerKey::Kill(ChildId(7))));
        assert_eq!(timers.pop_due(Mono(40)), Some(TimerKey::Restart(ProcId(1))));
        assert_eq!(timers.pop_due(Mono(40)), None);
    }
}
