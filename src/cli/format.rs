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

/// A point in time in UTC: `2025-01-31T12:00:00Z`.
pub fn stamp(at: Wall) -> String {
    let seconds = at.0 / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, counted in 400-year eras that start on 1 March (Howard Hinnant's method).
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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

    #[test]
    fn stamps() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(stamp(Wall(seconds * 1000 + 999)), expected);
        }
    }
}
