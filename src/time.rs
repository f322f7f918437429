//! Points in time as plain numbers. Nothing here reads a clock: the event loop does, once per round,
//! and hands the number down, so decisions can be tested and deadlines survive a re-exec.

use serde::{Deserialize, Serialize};

/// Milliseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch, for people; it may jump, so nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Mono {
    /// The time `self - earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Millis> for Mono {
    type Output = Mono;
    fn add(self, length: Millis) -> Mono {
        Mono(self.0.saturating_add(length.0))
    }
}
