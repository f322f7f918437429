//! Points in time as somebody says them.

use std::ffi::OsStr;

use crate::app::line::Stamp;
use crate::app::units;
use crate::sys::clock;
use crate::time::{Millis, Wall};

/// A time as somebody says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Millis),
    /// At this date.
    At(Stamp),
}

impl Moment {
    /// As it was typed. The error is what was expected.
    pub fn read(value: &OsStr) -> Result<Moment, String> {
        let moment = value.to_str().and_then(|text| Moment::named(text.trim()));
        moment.ok_or_else(|| "a length of time such as 10m, or a date such as 2026-01-31T12:00".to_string())
    }

    fn named(text: &str) -> Option<Moment> {
        // A bare number is neither.
        let is_length = text.ends_with(|c: char| c.is_ascii_alphabetic()) && !text.ends_with(['Z', 'z']);
        let length = if is_length { units::millis(text).map(Moment::Ago) } else { None };
        length.or_else(|| Stamp::named(text).map(Moment::At))
    }

    /// Seen from now.
    pub fn wall(self, now: Wall) -> Wall {
        match self {
            Moment::Ago(length) => Wall(now.0.saturating_sub(length.0)),
            Moment::At(stamp) => stamp.wall(clock::ahead_when),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_lengths_of_time_or_dates() {
        let now = Wall(1_772_712_429_000);
        for (text, ago) in [("90s", 90), ("10m", 600), ("1h", 3_600), ("2d", 172_800)] {
            let moment = Moment::read(OsStr::new(text)).unwrap();
            assert_eq!(moment.wall(now), Wall(now.0 - ago * 1_000), "{text}");
        }
        let at = |text: &str| Moment::read(OsStr::new(text)).map(|moment| moment.wall(now).to_string());
        assert_eq!(at("2026-03-05T12:07:09Z").unwrap(), "2026-03-05T12:07:09.000Z");
        assert_eq!(at("2026-03-05 12:07+02:00").unwrap(), "2026-03-05T10:07:00.000Z");
        let Ok(Moment::At(midnight)) = Moment::read(OsStr::new("2026-03-05")) else { panic!("a date") };
        assert_eq!((midnight.second % 86_400, midnight.offset), (0, None));
        for bad in ["", "10", "10x", "yesterday", "-1h", "2026-03-05T", "12:00"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
