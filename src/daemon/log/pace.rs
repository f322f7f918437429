//! How long a pipe is left alone: one that is written to all the time gathers for a moment and is drained in one go, which
//! spares a wake-up per write, but not so long that its writer must wait for room.

use super::super::source::Progress;
use crate::time::{Millis, Mono};

/// A visit that moved so much, or that came so soon after the last one, finds a busy pipe.
const BUSY_BYTES: usize = 8 << 10;
const BUSY_GAP: Millis = Millis(1);
/// How long a busy pipe gathers at most. At this pace a line is on disk before anybody can look.
pub(super) const GATHER: Millis = Millis(3);
/// What a pipe holds by default, pipe(7).
const USUAL: usize = 64 << 10;
/// What a busy pipe is to hold, and one that is full within a millisecond: what anybody may ask for. Users without
/// privileges have a limited number of such pipes, so one that is refused stays as it is.
const BUSY: usize = 256 << 10;
const FLOODED: usize = 1 << 20;

/// The pace of one pipe.
#[derive(Debug)]
pub struct Pace {
    last_visit: Mono,
    /// How long it gathers when it is busy. Nothing: each event brings much.
    gather: Millis,
    /// It was left alone since the last visit.
    rested: bool,
    /// What it holds, is to hold, and was asked to hold.
    room: usize,
    wanted: usize,
    asked: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { last_visit: Mono(0), gather: GATHER, rested: false, room: USUAL, wanted: USUAL, asked: USUAL }
    }
}

impl Pace {
    /// A visit finds so many bytes, at first.
    pub fn found(&mut self, waiting: usize) {
        // Short writes leave a little of each page empty.
        let is_full = waiting > self.room - self.room / 8;
        match (is_full, self.rested) {
            // Before we came.
            (true, false) => {
                self.gather = Millis(0);
                self.want(BUSY);
            }
            (true, true) if self.gather == Millis(1) && self.wanted < FLOODED => self.want(FLOODED),
            (true, true) => self.gather = Millis(self.gather.0 / 2),
            (false, true) if waiting < self.room / 4 => self.gather = GATHER.min(Millis(self.gather.0 + 1)),
            (false, _) => {}
        }
        self.rested = false;
    }

    /// Whether a visit that moved so much ends before the pipe is empty. `waiting`: what came meanwhile, if that is known.
    pub fn is_enough(&mut self, moved: usize, waiting: Option<usize>) -> bool {
        if moved >= BUSY_BYTES
            && self.gather == Millis(0)
            && waiting.is_some_and(|bytes| (1..BUSY_BYTES).contains(&bytes))
        {
            self.gather = Millis(1);
        }
        moved >= BUSY_BYTES && self.gather > Millis(0)
    }

    /// A visit ends that moved so much.
    pub fn rest(&mut self, now: Mono, moved: usize) -> Progress {
        let soon = now.since(self.last_visit) <= BUSY_GAP && self.last_visit != Mono(0);
        self.last_visit = now;
        self.rested = false;
        if moved < BUSY_BYTES && !(soon && moved > 0) {
            self.gather = GATHER;
            return Progress::Drained;
        }
        self.want(BUSY);
        if self.gather == Millis(0) {
            if moved >= BUSY_BYTES {
                return Progress::Drained;
            }
            self.gather = Millis(1);
        }
        self.rested = true;
        // The next visit belongs to this rest, so it does not count as soon.
        self.last_visit = now + self.gather;
        Progress::Rest(now + self.gather)
    }

    /// A visit ends since it had its share.
    pub fn go_on(&mut self, now: Mono) {
        self.last_visit = now;
    }

    /// What the pipe is to be asked to hold, once.
    pub fn asks(&mut self) -> Option<usize> {
        (self.wanted > std::mem::replace(&mut self.asked, self.wanted)).then_some(self.wanted)
    }

    /// It holds so much from now on.
    pub fn holds(&mut self, room: usize) {
        self.room = room;
    }

    fn want(&mut self, room: usize) {
        self.wanted = self.wanted.max(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that writes `piece` bytes at a time, so many bytes in a millisecond, for `millis`; we move ten times as
    /// much. Returns the bytes written, the visits, and how long it gathered in the end.
    fn flood(piece: usize, rate: usize, millis: u64, may_grow: bool) -> (usize, usize, Millis) {
        const STEPS: usize = 1_000;
        let mut pace = Pace::default();
        let (mut waiting, mut credit, mut written, mut visits) = (0, 0, 0, 0);
        // When it rests until, or nothing: an event brings us.
        let mut until: Option<Mono> = None;
        // What is left of a visit that goes on.
        let mut moved: Option<usize> = None;
        for step in 0..millis as usize * STEPS {
            let now = Mono(1_000 + (step / STEPS) as u64);
            credit = (credit + rate / STEPS).min(rate);
            while credit >= piece && waiting + piece <= pace.room {
                (waiting, credit, written) = (waiting + piece, credit - piece, written + piece);
            }
            if moved.is_none() && until.map_or(waiting > 0, |until| now >= until) {
                pace.found(waiting);
                (until, moved) = (None, Some(0));
                visits += 1;
            }
            let Some(sofar) = moved else { continue };
            let taken = waiting.min(64 << 10);
            waiting -= taken;
            let sofar = sofar + taken;
            moved = Some(sofar);
            let enough = waiting < 64 << 10 && pace.is_enough(sofar, Some(waiting));
            if enough || waiting == 0 {
                moved = None;
                if let Progress::Rest(rest) = pace.rest(now, sofar) {
                    until = Some(rest);
                }
                if let Some(room) = pace.asks().filter(|_| may_grow) {
                    pace.holds(room);
                }
            }
        }
        (written, visits, pace.gather)
    }

    #[test]
    fn a_busy_pipe_gathers_as_long_as_its_writer_finds_room() {
        for (piece, rate) in
            [(100, 10_000), (100, 60_000), (100, 200_000), (4_096, 500_000), (8_192, 800_000)]
        {
            let (written, visits, _) = flood(piece, rate, 500, true);
            assert!(written > rate * 490, "{piece} {rate}: {written} of {}", rate * 500);
            assert!(visits < 700, "{piece} {rate}: {visits} visits");
        }
        let (_, visits, gather) = flood(100, 10_000, 500, true);
        assert!(visits < 200 && gather == GATHER, "{visits} {gather:?}");
    }

    #[test]
    fn one_that_is_always_full_does_not_rest() {
        let (written, _, gather) = flood(64 << 10, 2_000_000, 500, true);
        assert!(written > 2_000_000 * 490, "{written}");
        assert_eq!(gather, Millis(0));
        // Nor does one that must stay small.
        let (written, ..) = flood(64 << 10, 2_000_000, 500, false);
        assert!(written > 2_000_000 * 490, "{written}");
    }

    #[test]
    fn a_pipe_is_asked_to_grow_once_and_a_calm_one_never() {
        let mut pace = Pace::default();
        pace.found(10);
        assert_eq!((pace.rest(Mono(10), 10), pace.asks()), (Progress::Drained, None));
        pace.found(40 << 10);
        assert_eq!(pace.rest(Mono(1_000), 40 << 10), Progress::Rest(Mono(1_000) + GATHER));
        assert_eq!((pace.asks(), pace.asks()), (Some(BUSY), None));
        // Lines at once after one another are a flood, too; and after it all is as it was.
        assert_eq!(pace.rest(Mono(2_000), 10), Progress::Drained);
        assert_eq!(pace.rest(Mono(2_001), 10), Progress::Rest(Mono(2_001) + GATHER));
        pace.gather = Millis(0);
        assert_eq!(pace.rest(Mono(2_002), 10), Progress::Rest(Mono(2_003)), "its events bring little");
        assert_eq!(pace.rest(Mono(3_000), 10), Progress::Drained);
        assert_eq!(pace.gather, GATHER);
    }
}
