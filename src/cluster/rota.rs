//! Whose turn it is: round robin among workers that are not behind with what they were given.

use std::collections::{BTreeMap, VecDeque};

/// The workers of one listener and what each was handed but has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rota {
    order: VecDeque<u64>,
    in_flight: BTreeMap<u64, u32>,
}

impl Rota {
    /// Adds a worker at the end of the line. A worker that is there already stays where it is.
    pub fn join(&mut self, worker: u64) {
        if !self.order.contains(&worker) {
            self.order.push_back(worker);
        }
    }

    /// Takes a worker off; what it has in flight still counts until it is acknowledged or returned.
    pub fn leave(&mut self, worker: u64) {
        self.order.retain(|w| *w != worker);
        if self.in_flight.get(&worker) == Some(&0) {
            self.in_flight.remove(&worker);
        }
    }

    /// The next worker that has fewer than `depth` connections in flight; one more is counted for it
    /// and it goes to the end of the line.
    pub fn take(&mut self, depth: u32) -> Option<u64> {
        let at = self.order.iter().position(|w| self.in_flight.get(w).copied().unwrap_or(0) < depth)?;
        let worker = self.order.remove(at)?;
        self.order.push_back(worker);
        *self.in_flight.entry(worker).or_default() += 1;
        Some(worker)
    }

    /// A connection that `worker` was handed in an earlier life of ours still counts for it.
    pub fn given(&mut self, worker: u64) {
        *self.in_flight.entry(worker).or_default() += 1;
    }

    /// There was nothing to give to the worker that was just taken: it is its turn again.
    pub fn put_back(&mut self, worker: u64) {
        self.done(worker);
        if self.order.back() == Some(&worker) {
            self.order.rotate_right(1);
        }
    }

    /// One connection of `worker` was taken or came back.
    pub fn done(&mut self, worker: u64) {
        if let Some(count) = self.in_flight.get_mut(&worker) {
            *count = count.saturating_sub(1);
            if *count == 0 && !self.order.contains(&worker) {
                self.in_flight.remove(&worker);
            }
        }
    }

    /// Whether the worker takes its turns.
    pub fn is_on(&self, worker: u64) -> bool {
        self.order.contains(&worker)
    }

    /// Whether nobody is there to give anything to.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_and_skip_who_is_behind() {
        let mut rota = Rota::default();
        for worker in [1, 2, 3] {
            rota.join(worker);
        }
        let turns: Vec<_> = (0..6).filter_map(|_| rota.take(2)).collect();
        assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
        assert_eq!(rota.take(2), None, "all have two in flight");
        rota.done(2);
        assert_eq!(rota.take(2), Some(2));
    }

    #[test]
    fn a_turn_for_which_there_was_nothing_is_not_lost() {
        let mut rota = Rota::default();
        rota.join(1);
        rota.join(2);
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.extend(rota.take(9));
            let idle = rota.take(9).unwrap();
            rota.put_back(idle);
        }
        assert_eq!(turns, [1, 2, 1, 2]);
    }

    #[test]
    fn who_leaves_gets_nothing_and_owes_what_it_has() {
        let mut rota = Rota::default();
        rota.join(1);
        assert_eq!(rota.take(1), Some(1));
        rota.leave(1);
        assert!(rota.is_empty() && !rota.is_on(1));
        rota.join(1);
        assert_eq!(rota.take(1), None, "it still owes one");
        rota.done(1);
        assert_eq!(rota.take(1), Some(1));
    }
}
