//! The restart policy: what happens when a child ends by itself.

use serde::{Deserialize, Serialize};

use super::input::End;
use crate::app::RestartPolicy;
use crate::time::Millis;

/// The longest back-off (pm2's).
pub const BACKOFF_CAP: Millis = Millis(15_000);
/// A child that lived so long ends the back-off (pm2's).
pub const BACKOFF_RESET: Millis = Millis(30_000);
/// The delay after a start that failed for want of a resource, doubled by nothing: it is the
/// system that is short, and each attempt is cheap.
pub const TRANSIENT_DELAY: Millis = Millis(1_000);

/// How a process has fared so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Children that took the place of another, for whatever reason.
    pub restarts: u32,
    /// Unstable ends in a row.
    pub unstable: u32,
    /// The last delay of the exponential back-off; zero: none is under way.
    pub backoff: Millis,
}

/// What to do after an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Stay,
    /// Start another after so long.
    Restart(Millis),
    /// The budget is spent.
    GiveUp,
}

/// Decides after a child that lived for `lived` ended by itself. `Record::unstable` and
/// `Record::backoff` are brought up to date.
pub fn after_exit(policy: &RestartPolicy, record: &mut Record, lived: Millis, end: &End) -> Verdict {
    if lived >= policy.min_uptime {
        record.unstable = 0;
    } else {
        record.unstable += 1;
    }
    if lived >= BACKOFF_RESET {
        record.backoff = Millis(0);
    }
    let done = end.code.is_some_and(|code| policy.stop_exit_codes.contains(&code));
    if done || !policy.autorestart {
        return Verdict::Stay;
    }
    if record.unstable >= policy.max_restarts.max(1) {
        return Verdict::GiveUp;
    }
    if policy.restart_delay > Millis(0) {
        return Verdict::Restart(policy.restart_delay);
    }
    if policy.exp_backoff > Millis(0) {
        let next = match record.backoff {
            Millis(0) => policy.exp_backoff,
            Millis(previous) => Millis(previous.saturating_mul(3) / 2),
        };
        record.backoff = next.min(BACKOFF_CAP);
        return Verdict::Restart(record.backoff);
    }
    Verdict::Restart(Millis(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(policy: &RestartPolicy, lives: &[u64]) -> Vec<Verdict> {
        let mut record = Record::default();
        let end = End { code: Some(1), ..End::default() };
        lives.iter().map(|&ms| after_exit(policy, &mut record, Millis(ms), &end)).collect()
    }

    #[test]
    fn sixteen_unstable_ends_in_a_row_are_the_budget() {
        let policy = RestartPolicy::default();
        let verdicts = run(&policy, &[10; 16]);
        assert!(verdicts[..15].iter().all(|v| *v == Verdict::Restart(Millis(0))));
        assert_eq!(verdicts[15], Verdict::GiveUp);
    }

    #[test]
    fn a_stable_life_resets_the_budget() {
        let policy = RestartPolicy { max_restarts: 3, ..RestartPolicy::default() };
        let verdicts = run(&policy, &[10, 10, 1_000, 10, 10, 10]);
        assert_eq!(verdicts[4], Verdict::Restart(Millis(0)));
        assert_eq!(verdicts[5], Verdict::GiveUp);
    }

    #[test]
    fn backoff_grows_by_half_to_its_cap_and_ends_after_a_long_life() {
        let policy = RestartPolicy { exp_backoff: Millis(100), max_restarts: 99, ..RestartPolicy::default() };
        let delays = run(&policy, &[1, 1, 1, 30_000]);
        let expected = [100, 150, 225, 100].map(|ms| Verdict::Restart(Millis(ms)));
        assert_eq!(delays, expected);
        assert_eq!(run(&policy, &[1; 30])[29], Verdict::Restart(BACKOFF_CAP));
        let huge = RestartPolicy { exp_backoff: Millis(u64::MAX), ..policy };
        assert_eq!(run(&huge, &[1, 1])[1], Verdict::Restart(BACKOFF_CAP));
    }

    #[test]
    fn a_fixed_delay_wins_and_the_budget_still_counts() {
        let policy = RestartPolicy {
            restart_delay: Millis(500),
            exp_backoff: Millis(1),
            max_restarts: 2,
            ..RestartPolicy::default()
        };
        assert_eq!(run(&policy, &[1, 1]), [Verdict::Restart(Millis(500)), Verdict::GiveUp]);
    }

    #[test]
    fn done_means_done() {
        let mut record = Record::default();
        let end = |code| End { code: Some(code), ..End::default() };
        let policy = RestartPolicy { stop_exit_codes: vec![0, 3], ..RestartPolicy::default() };
        assert_eq!(after_exit(&policy, &mut record, Millis(9), &end(3)), Verdict::Stay);
        assert_eq!(after_exit(&policy, &mut record, Millis(9), &end(1)), Verdict::Restart(Millis(0)));
        let once = RestartPolicy { autorestart: false, ..RestartPolicy::default() };
        assert_eq!(after_exit(&once, &mut record, Millis(9), &end(1)), Verdict::Stay);
    }
}
