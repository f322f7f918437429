//! When a child ends by itself: what then.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// When a child ends by itself: what then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// Restart it at all.
    pub autorestart: bool,
    /// Exit codes that mean "done": no restart.
    pub stop_exit_codes: Vec<i32>,
    /// A child that lived shorter than this ended unstable.
    pub min_uptime: Millis,
    /// Ends after which the process is given up as errored: so many unstable ones in a row, or so many
    /// unstable ones and crashes within the window.
    pub max_restarts: Budget,
    /// The window.
    pub restart_window: Millis,
    /// A fixed delay before each restart.
    pub restart_delay: Millis,
    /// First delay of an exponential back-off (factor 1.5, at most 15 s); zero: none.
    pub exp_backoff: Millis,
}

/// How many ends are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub enum Budget {
    /// So many; none is the same as one.
    Ends(u32),
    /// No number is.
    Unlimited,
}

/// The default of [`RestartPolicy::restart_window`].
pub const RESTART_WINDOW: Millis = Millis(60_000);

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            autorestart: true,
            stop_exit_codes: Vec::new(),
            min_uptime: Millis(1_000),
            max_restarts: Budget::Ends(16),
            restart_window: RESTART_WINDOW,
            restart_delay: Millis(0),
            exp_backoff: Millis(0),
        }
    }
}

impl Budget {
    /// The number at which it is spent.
    pub fn limit(self) -> Option<u32> {
        match self {
            Budget::Ends(ends) => Some(ends.max(1)),
            Budget::Unlimited => None,
        }
    }
}

/// As people write it: a number, or `unlimited`, or -1 for that.
impl std::str::FromStr for Budget {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Budget, Self::Err> {
        match text {
            "unlimited" | "-1" => Ok(Budget::Unlimited),
            text => text.parse().map(Budget::Ends),
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Budget::Ends(ends) => ends.fmt(f),
            Budget::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl From<i64> for Budget {
    fn from(number: i64) -> Budget {
        match u32::try_from(number) {
            Ok(ends) => Budget::Ends(ends),
            Err(_) if number < 0 => Budget::Unlimited,
            Err(_) => Budget::Ends(u32::MAX),
        }
    }
}

impl From<Budget> for i64 {
    fn from(budget: Budget) -> i64 {
        match budget {
            Budget::Ends(ends) => i64::from(ends),
            Budget::Unlimited => -1,
        }
    }
}
