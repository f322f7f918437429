//! Numbers as pm2 prints them.

use crate::time::Wall;

/// How long ago: a unit is used from two of it on, so 119 s is `119s` and two minutes are `2m`.
pub fn age(since: Wall, now: Wall) -> String {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    const UNITS: [(u64, &str); 5] =
        [(365 * 86_400, "Y"), (30 * 86_400, "M"), (86_400, "D"), (3_600, "h"), (60, "m")];
    let unit = UNITS.iter().find(|(length, _)| seconds / length > 1);
    match unit {
        Some((length, letter)) => format!("{}{letter}", seconds / length),
        None => format!("{seconds}s"),
    }
}

/// Bytes in units of 1024 with one decimal: `50.8mb`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["b", "kb", "mb", "gb", "tb"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}b") } else { format!("{value:.1}{}", UNITS[unit]) }
}

/// Percent of one core: `0%`, `12.3%`.
pub fn percent(value: f32) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    if rounded.fract() == 0.0 { format!("{rounded:.0}%") } else { format!("{rounded:.1}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2D"),
            (5_184_000, "2M"),
            (63_072_000, "2Y"),
        ] {
            assert_eq!(age(Wall(5_000), Wall(5_999 + seconds * 1000)), expected, "{seconds}");
        }
        assert_eq!(age(Wall(9_000), Wall(1_000)), "0s", "a clock that went back");
    }

    #[test]
    fn sizes_and_shares() {
        for (count, expected) in [
            (0, "0b"),
            (1023, "1023b"),
            (1024, "1.0kb"),
            (53_267_661, "50.8mb"),
            (3 << 30, "3.0gb"),
            (u64::MAX, "16777216.0tb"),
        ] {
            assert_eq!(bytes(count), expected);
        }
        for (value, expected) in [(0.0, "0%"), (0.04, "0%"), (12.34, "12.3%"), (100.0, "100%")] {
            assert_eq!(percent(value), expected);
        }
    }
}
