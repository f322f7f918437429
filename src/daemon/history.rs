//! What happened to processes of late, for people; nothing is decided by it. It is bounded twice: one app that
//! crashes all the time does not push out what happened to the others.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::Event;

/// Events of all processes together.
const ALL: usize = 2_000;
/// Events of one process.
const OF_ONE: usize = 50;
/// The longest detail, in bytes.
const DETAIL: usize = 400;

/// The events, oldest first.
#[derive(Debug, Default)]
pub struct History {
    events: VecDeque<Event>,
    /// How many there are of each process. A number that was given anew counts on.
    counts: BTreeMap<u32, usize>,
    /// What the journal was not told yet.
    unrecorded: Vec<Event>,
}

impl History {
    /// Takes an event in.
    pub fn add(&mut self, event: &Event) {
        let mut event = event.clone();
        if event.detail.len() > DETAIL {
            let end = (0..=DETAIL).rev().find(|at| event.detail.is_char_boundary(*at)).unwrap_or(0);
            event.detail.truncate(end);
            event.detail.push('…');
        }
        self.unrecorded.push(event.clone());
        self.restore(event);
    }

    /// Takes an event in that is on record.
    pub fn restore(&mut self, event: Event) {
        let count = self.counts.entry(event.id).or_default();
        *count += 1;
        if *count > OF_ONE {
            if let Some(at) = self.events.iter().position(|old| old.id == event.id) {
                self.forget(at);
            }
        } else if self.events.len() >= ALL {
            self.forget(0);
        }
        self.events.push_back(event);
    }

    fn forget(&mut self, at: usize) {
        let Some(event) = self.events.remove(at) else { return };
        if let Some(count) = self.counts.get_mut(&event.id) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&event.id);
            }
        }
    }

    /// Those of a name, or all.
    pub fn of(&self, name: Option<&str>) -> Vec<Event> {
        self.events.iter().filter(|event| name.is_none_or(|name| event.name == name)).cloned().collect()
    }

    /// What the journal is to be told: all, or what is new.
    pub fn take_record(&mut self, everything: bool) -> Vec<Event> {
        let new = std::mem::take(&mut self.unrecorded);
        if everything { self.of(None) } else { new }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::EventKind;
    use crate::time::Wall;

    fn event(at: u64, id: u32) -> Event {
        Event { at: Wall(at), kind: EventKind::Exited, id, name: format!("app-{id}"), detail: String::new() }
    }

    #[test]
    fn it_is_bounded_and_fair() {
        let mut history = History::default();
        history.add(&event(0, 1));
        for at in 0..10_000 {
            history.add(&event(at, 7));
        }
        let noisy = history.of(Some("app-7"));
        assert_eq!((noisy.len(), noisy[0].at, noisy[49].at), (OF_ONE, Wall(9_950), Wall(9_999)));
        assert_eq!(history.of(Some("app-1")).len(), 1, "one that crashes does not push out the others");
        for id in 0..10_000 {
            history.add(&event(20_000, id));
        }
        assert_eq!((history.of(None).len(), history.counts.len()), (ALL, ALL));
        assert_eq!(history.counts.values().sum::<usize>(), ALL);
    }

    #[test]
    fn what_is_on_record_makes_the_same_history() {
        let mut history = History::default();
        let mut next = History::default();
        for at in 0..200 {
            history.add(&event(at, at as u32 % 3));
            if at == 120 {
                next = History::default();
                history.take_record(true).into_iter().for_each(|event| next.restore(event));
            } else if at % 7 == 0 {
                history.take_record(false).into_iter().for_each(|event| next.restore(event));
            }
        }
        history.take_record(false).into_iter().for_each(|event| next.restore(event));
        assert_eq!(next.of(None), history.of(None));
        let long = Event { detail: "é".repeat(900), ..event(0, 0) };
        history.add(&long);
        assert!(history.of(None).pop().is_some_and(|event| event.detail.len() <= DETAIL + 3));
    }
}
