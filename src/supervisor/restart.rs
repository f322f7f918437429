//! The restart policy: what happens when a child ends by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::End;
use super::{ProcId, Why};
use crate::app::RestartPolicy;
use crate::protocol::Cause;
use crate::time::{Millis, Mono};

/// The longest back-off (pm2's).
pub const BACKOFF_CAP: Millis = Millis(15_000);
/// A child that lived so long ends the back-off (pm2's).
pub const BACKOFF_RESET: Millis = Millis(30_000);
/// The delay after a start that failed for want of a resource, doubled by nothing: it is the
/// system that is short, and each attempt is cheap.
pub const TRANSIENT_DELAY: Millis = Millis(1_000);
/// Where nobody asked for a delay: the first one, after the second unstable end in a row, and the longest. A
/// program that dies at once shall not burn a processor, however many restarts it may have.
const BRAKE: Millis = Millis(10);
const BRAKE_CAP: Millis = Millis(2_000);
/// Ends are kept by slots: so many of them make a window.
const SLOTS: u64 = 32;

/// How a process has fared so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Children that took the place of another, for whatever reason.
    pub restarts: u32,
    /// The same by cause.
    pub by_cause: BTreeMap<Cause, u32>,
    /// Why the last of them happened.
    pub last_restart: Option<String>,
    /// Dates of a job that were left out, because it ran.
    pub skipped: u32,
    /// Unstable ends in a row.
    pub unstable: u32,
    /// The last delay of the exponential back-off; zero: none is under way.
    pub backoff: Millis,
    /// Its last child ended with code 0, for good.
    pub completed: bool,
    /// Unstable ends and crashes within the window: since when, and how many from then on in one slot.
    pub ends: Vec<(Mono, u32)>,
}

impl Record {
    /// One more child takes the place of another.
    pub fn count(&mut self, why: Why) {
        self.restarts += 1;
        *self.by_cause.entry(why.cause).or_default() += 1;
        self.last_restart = Some(why.reason);
    }

    /// Somebody asked for a new beginning.
    pub fn begin_again(&mut self) {
        self.unstable = 0;
        self.backoff = Millis(0);
        self.ends.clear();
    }

    /// How many more ends the process may have; `None`: any number.
    pub fn budget_left(&self, policy: &RestartPolicy, now: Mono) -> Option<u32> {
        let spent = self.unstable.max(self.counted(policy, now));
        policy.max_restarts.limit().map(|limit| limit.saturating_sub(spent))
    }

    /// Unstable ends and crashes within the window.
    fn counted(&self, policy: &RestartPolicy, now: Mono) -> u32 {
        let within = self.ends.iter().filter(|(at, _)| *at + policy.restart_window > now);
        within.map(|(_, ends)| *ends).sum()
    }

    fn count_end(&mut self, policy: &RestartPolicy, now: Mono) {
        self.ends.retain(|(at, _)| *at + policy.restart_window > now);
        match self.ends.last_mut() {
            Some((at, ends)) if *at + Millis(policy.restart_window.0 / SLOTS) > now => *ends += 1,
            _ => self.ends.push((now, 1)),
        }
    }
}

/// What to do after an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Stay,
    /// Start another after so long.
    Restart(Millis),
    /// The budget is spent; the sentence says how.
    GiveUp(String),
}

/// Decides after a child of `id` that lived for `lived` ended by itself. The record is brought up to date.
pub fn after_exit(
    policy: &RestartPolicy,
    record: &mut Record,
    (now, id): (Mono, ProcId),
    lived: Millis,
    end: &End,
) -> Verdict {
    let is_unstable = lived < policy.min_uptime;
    record.unstable = if is_unstable { record.unstable.saturating_add(1) } else { 0 };
    if is_unstable || end.code != Some(0) {
        record.count_end(policy, now);
    }
    if lived >= BACKOFF_RESET {
        record.backoff = Millis(0);
    }
    let done = end.code.is_some_and(|code| policy.stop_exit_codes.contains(&code));
    if done || !policy.autorestart {
        return Verdict::Stay;
    }
    if let Some(limit) = policy.max_restarts.limit() {
        let counted = record.counted(policy, now);
        if record.unstable >= limit {
            return Verdict::GiveUp(format!("too many unstable restarts ({limit})"));
        } else if counted >= limit {
            let window = policy.restart_window.0;
            return Verdict::GiveUp(format!("too many restarts ({limit} within {window} ms)"));
        }
    }
    if policy.restart_delay > Millis(0) {
        return Verdict::Restart(policy.restart_delay);
    }
    let (first, cap, previous) = match policy.exp_backoff {
        // A first mishap costs no time.
        Millis(0) if record.unstable < 2 => {
            record.backoff = Millis(0);
            return Verdict::Restart(Millis(0));
        }
        Millis(0) => (BRAKE, BRAKE_CAP, record.backoff),
        backoff => (backoff, BACKOFF_CAP, record.backoff),
    };
    let next = match previous {
        Millis(0) => first,
        Millis(previous) => Millis(previous.saturating_mul(3) / 2),
    };
    record.backoff = next.min(cap);
    Verdict::Restart(jittered(record.backoff, cap, id, record.restarts))
}

/// Up to a quarter more, or at the cap less: those that failed together are not to try again together. The same
/// process has the same luck each time it is asked.
fn jittered(delay: Millis, cap: Millis, id: ProcId, count: u32) -> Millis {
    let mut mixed = (u64::from(id.0) << 32 | u64::from(count)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = (mixed ^ (mixed >> 31)) % 256;
    let more = delay.0.saturating_mul(share) / 1024;
    match delay.0 + more {
        later if later <= cap.0 => Millis(later),
        later => Millis(cap.0 - (later - cap.0)),
    }
}

/// Restarts of many processes are spread: a few at once, the others one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// When everything that was let through is paid for.
    paid: Mono,
    /// Who was let through last. One that ends again and again is slowed by its own budget, not by this.
    last: Option<ProcId>,
}

impl Pace {
    /// So many may start at once.
    pub const BURST: u64 = 32;
    /// From one to the next after that.
    pub const STEP: Millis = Millis(25);

    /// When the restart of `id` that is due now has its turn.
    pub fn turn(&mut self, now: Mono, id: ProcId) -> Mono {
        if self.last.replace(id) == Some(id) {
            return now;
        }
        let paid = self.paid.max(now);
        self.paid = paid + Pace::STEP;
        now.max(Mono(paid.0.saturating_sub((Pace::BURST - 1) * Pace::STEP.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Budget;

    const ID: ProcId = ProcId(7);

    fn code(code: i32) -> End {
        End { code: Some(code), ..End::default() }
    }

    /// Lives that follow one another after the delays of the policy, each with the code at its end.
    fn run(policy: &RestartPolicy, lives: &[(u64, i32)]) -> Vec<Verdict> {
        let mut record = Record::default();
        let mut now = Mono(0);
        let live = |&(lived, exit): &(u64, i32)| {
            now = now + Millis(lived);
            let verdict = after_exit(policy, &mut record, (now, ID), Millis(lived), &code(exit));
            assert!(record.ends.len() as u64 <= SLOTS + 1);
            if let Verdict::Restart(delay) = verdict {
                now = now + delay;
                record.restarts += 1;
            }
            verdict
        };
        lives.iter().map(live).collect()
    }

    fn ends(ends: u32) -> RestartPolicy {
        RestartPolicy { max_restarts: Budget::Ends(ends), ..RestartPolicy::default() }
    }

    fn unlimited() -> RestartPolicy {
        RestartPolicy { max_restarts: Budget::Unlimited, ..RestartPolicy::default() }
    }

    fn delays(verdicts: &[Verdict]) -> Vec<u64> {
        let delay = |verdict: &Verdict| match verdict {
            Verdict::Restart(delay) => delay.0,
            other => panic!("{other:?}"),
        };
        verdicts.iter().map(delay).collect()
    }

    fn gives_up(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::GiveUp(_))
    }

    #[test]
    fn sixteen_quick_deaths_are_too_many_whatever_their_pace() {
        for delay in [0, 10_000] {
            let policy = RestartPolicy { restart_delay: Millis(delay), ..RestartPolicy::default() };
            let verdicts = run(&policy, &[(10, 0); 16]);
            assert!(verdicts[..15].iter().all(|verdict| !gives_up(verdict)), "{verdicts:?}");
            assert!(gives_up(&verdicts[15]), "{verdicts:?}");
        }
    }

    #[test]
    fn crashes_within_the_window_are_too_many_and_clean_ends_are_not() {
        let last = |policy: &RestartPolicy, lives: &[(u64, i32)]| run(policy, lives).pop().unwrap();
        assert!(gives_up(&last(&ends(16), &[(3_000, 1); 16])));
        assert!(!gives_up(&last(&ends(16), &[(3_000, 1); 15])));
        assert!(!gives_up(&last(&ends(16), &[(5_000, 1); 99])), "they never meet within a minute");
        assert!(!gives_up(&last(&ends(16), &[(1_000, 0); 99])));
        assert!(gives_up(&last(&ends(2), &[(10, 0), (1_000, 1)])));
        let wide = RestartPolicy { restart_window: Millis(3_600_000), ..ends(16) };
        assert!(gives_up(&last(&wide, &[(60_000, 1); 16])));
        let none = RestartPolicy { restart_window: Millis(0), ..ends(2) };
        assert!(!gives_up(&last(&none, &[(1_000, 1); 9])), "only those in a row count");
    }

    #[test]
    fn a_stable_life_ends_the_row_and_needs_no_delay() {
        let policy = RestartPolicy { restart_window: Millis(0), ..ends(3) };
        let verdicts = run(&policy, &[(10, 1), (10, 1), (1_000, 1), (10, 1), (10, 1), (10, 1)]);
        assert_eq!(verdicts[2], Verdict::Restart(Millis(0)));
        assert!(!gives_up(&verdicts[4]) && gives_up(&verdicts[5]));
    }

    #[test]
    fn the_budget_left_is_told() {
        let policy = ends(3);
        let mut record = Record::default();
        for (at, left) in [(0, 2), (10_000, 1)] {
            after_exit(&policy, &mut record, (Mono(at), ID), Millis(10_000), &code(1));
            assert_eq!(record.budget_left(&policy, Mono(at)), Some(left));
        }
        assert_eq!(record.budget_left(&policy, Mono(60_000)), Some(2), "the first one is forgotten");
        assert_eq!(record.budget_left(&policy, Mono(70_000)), Some(3));
        assert_eq!(record.budget_left(&unlimited(), Mono(0)), None);
    }

    #[test]
    fn a_loop_slows_down_by_itself() {
        let found = delays(&run(&unlimited(), &[(1, 1); 40]));
        assert_eq!(found[0], 0, "a first mishap costs no time");
        let mut base = 10;
        for (at, delay) in found[1..].iter().enumerate() {
            assert!(
                (base..=base + base / 4).contains(delay) || base == 2_000 && *delay >= 1_500,
                "{at}: {delay}"
            );
            base = (base * 3 / 2).min(2_000);
        }
        assert!(found[20..].iter().all(|delay| (1_500..=2_000).contains(delay)), "{found:?}");
        let all: u64 = delays(&run(&unlimited(), &[(1, 1); 15])).iter().sum();
        assert!(all < 10_000, "who has pm2's budget is given up soon: {all}");
    }

    #[test]
    fn backoff_grows_by_half_to_its_cap_and_ends_after_a_long_life() {
        let policy = RestartPolicy { exp_backoff: Millis(100), ..unlimited() };
        let found = delays(&run(&policy, &[(1, 1), (1, 1), (1, 1), (30_000, 1)]));
        for (delay, least) in found.iter().zip([100, 150, 225, 100]) {
            assert!((least..=least + least / 4).contains(delay), "{found:?}");
        }
        let cap = BACKOFF_CAP.0;
        assert!((cap * 3 / 4..=cap).contains(&delays(&run(&policy, &[(1, 1); 30]))[29]));
        let huge = RestartPolicy { exp_backoff: Millis(u64::MAX), ..policy };
        assert!((cap * 3 / 4..=cap).contains(&delays(&run(&huge, &[(1, 1); 2]))[1]));
    }

    #[test]
    fn those_that_failed_together_do_not_try_again_together() {
        let luck = |id| jittered(Millis(1_000), BACKOFF_CAP, ProcId(id), 3);
        let all: std::collections::BTreeSet<Millis> = (0..200).map(luck).collect();
        assert!(all.len() > 100, "{}", all.len());
        assert_eq!(luck(1), luck(1));
    }

    #[test]
    fn a_fixed_delay_wins_and_the_budget_still_counts() {
        let policy = RestartPolicy { restart_delay: Millis(500), exp_backoff: Millis(1), ..ends(2) };
        let verdicts = run(&policy, &[(1, 1), (1, 1)]);
        assert_eq!(verdicts[0], Verdict::Restart(Millis(500)));
        assert!(gives_up(&verdicts[1]));
    }

    #[test]
    fn done_means_done() {
        let mut record = Record::default();
        let mut after = |policy, exit| after_exit(policy, &mut record, (Mono(0), ID), Millis(9), &code(exit));
        let policy = RestartPolicy { stop_exit_codes: vec![0, 3], ..RestartPolicy::default() };
        assert_eq!(after(&policy, 3), Verdict::Stay);
        let once = RestartPolicy { autorestart: false, ..RestartPolicy::default() };
        assert_eq!(after(&once, 1), Verdict::Stay);
    }

    #[test]
    fn restarts_of_many_are_spread_and_of_one_are_not() {
        let mut pace = Pace::default();
        let turns: Vec<u64> = (0..200).map(|id| pace.turn(Mono(1_000), ProcId(id)).0).collect();
        assert!(turns[..32].iter().all(|turn| *turn == 1_000));
        let expected: Vec<u64> = (1..=168).map(|step| 1_000 + step * Pace::STEP.0).collect();
        assert_eq!(turns[32..], expected);
        // Paid for after a while.
        assert_eq!(pace.turn(Mono(1_000 + 200 * Pace::STEP.0), ProcId(1)), Mono(1_000 + 200 * Pace::STEP.0));
        for at in 0..1_000 {
            assert_eq!(pace.turn(Mono(10_000 + at), ProcId(2)), Mono(10_000 + at));
        }
    }
}
