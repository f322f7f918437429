//! Time zones: what the clock on the wall shows at an instant, from a file of the zoneinfo database (TZif) or
//! a rule as in `TZ`. Pure: the bytes are handed in.

use super::cron::{Cron, civil, day_of};
use crate::time::{Local, Wall};

/// Offsets from UTC in seconds, and when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Before the first change.
    first: i64,
    /// The instants at which an offset begins.
    changes: Vec<(i64, i64)>,
    /// What holds after the last of them.
    rule: Option<Rule>,
}

/// `CET-1CEST,M3.5.0,M10.5.0/3`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    standard: i64,
    /// The other offset, and when in a year it begins and ends, on its own clock.
    summer: Option<(i64, Day, Day)>,
}

/// A second of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// `Jn`: leap days do not count.
    Julian(i64, i64),
    /// `n`: from 0, leap days count.
    Zero(i64, i64),
    /// `Mm.w.d`
    Month(u32, i64, i64, i64),
}

impl Zone {
    /// A file of the zoneinfo database.
    pub fn read(bytes: &[u8]) -> Option<Zone> {
        let (skipped, _) = Block::sizes(bytes)?;
        let second = bytes.get(skipped..)?;
        let (length, block) = Block::sizes_v2(second)?;
        let mut zone = block.zone(second)?;
        let footer = second.get(length..)?.strip_prefix(b"\n")?;
        let line = footer.split(|byte| *byte == b'\n').next()?;
        zone.rule = std::str::from_utf8(line).ok().and_then(Rule::parse);
        Some(zone)
    }

    /// A rule as `TZ` may hold it: `UTC0`, `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub fn rule(text: &str) -> Option<Zone> {
        let rule = Rule::parse(text)?;
        Some(Zone { first: rule.standard, changes: Vec::new(), rule: Some(rule) })
    }

    /// What its clocks show at a moment.
    pub fn local(&self, at: Wall) -> Local {
        let instant = (at.0 / 1_000) as i64;
        let (offset, _) = self.at(instant);
        let shifted = instant + offset;
        let (day, second) = (shifted.div_euclid(86_400), shifted.rem_euclid(86_400) as u32);
        let (year, month, date) = civil(day);
        Local {
            year,
            month,
            date,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
            // 1970-01-01 was a Thursday.
            weekday: (day + 4).rem_euclid(7) as u32,
            offset,
        }
    }

    /// The offset at an instant, and the next instant at which it may change.
    fn at(&self, instant: i64) -> (i64, Option<i64>) {
        let after = self.changes.partition_point(|(begin, _)| *begin <= instant);
        if let Some((next, _)) = self.changes.get(after) {
            let offset = if after == 0 { self.first } else { self.changes[after - 1].1 };
            return (offset, Some(*next));
        }
        match &self.rule {
            Some(rule) => rule.at(instant),
            None => (self.changes.last().map_or(self.first, |(_, offset)| *offset), None),
        }
    }

    /// The first instant after `after` at which `cron` is due, in seconds since 1970. A time that the clock
    /// skips is due when it goes on; one that it shows twice is due once, unless every hour is.
    pub fn next(&self, cron: &Cron, after: i64) -> Option<i64> {
        /// More changes than there are in the longest gap between two dates of a pattern.
        const CHANGES: usize = 400;
        let (mut offset, mut until) = self.at(after);
        let mut local = after + offset;
        for _ in 0..CHANGES {
            let found = cron.next(local)?;
            let Some(end) = until.filter(|end| found - offset >= *end) else { return Some(found - offset) };
            let (next, next_until) = self.at(end);
            let (was, is) = (end + offset, end + next);
            local = if cron.is_hourly() {
                is - 1
            } else if found < is {
                // It lies in what is skipped.
                return Some(end);
            } else {
                // What is shown again has been.
                was.max(is) - 1
            };
            (offset, until) = (next, next_until);
        }
        None
    }
}

/// The counts in the header of a TZif block.
struct Block {
    times: usize,
    types: usize,
    width: usize,
}

impl Block {
    fn header(bytes: &[u8], width: usize) -> Option<(usize, Block)> {
        if bytes.get(..4)? != b"TZif" {
            return None;
        }
        let count = |at: usize| -> Option<usize> {
            let field: [u8; 4] = bytes.get(20 + 4 * at..24 + 4 * at)?.try_into().ok()?;
            Some(u32::from_be_bytes(field) as usize)
        };
        let (ut, std, leap, times, types, chars) =
            (count(0)?, count(1)?, count(2)?, count(3)?, count(4)?, count(5)?);
        if times > 10_000 || types > 256 || types == 0 || leap > 1_000 || chars > 10_000 {
            return None;
        }
        let length = 44 + times * (width + 1) + types * 6 + chars + leap * (width + 4) + std + ut;
        Some((length, Block { times, types, width }))
    }

    fn sizes(bytes: &[u8]) -> Option<(usize, Block)> {
        // Version 1 has 32-bit times alone: nobody writes it any more.
        if *bytes.get(4)? < b'2' {
            return None;
        }
        Block::header(bytes, 4)
    }

    fn sizes_v2(bytes: &[u8]) -> Option<(usize, Block)> {
        Block::header(bytes, 8)
    }

    fn zone(&self, bytes: &[u8]) -> Option<Zone> {
        let indices = 44 + self.times * self.width;
        let types = indices + self.times;
        let offset = |of: usize| -> Option<i64> {
            let field: [u8; 4] = bytes.get(types + 6 * of..types + 6 * of + 4)?.try_into().ok()?;
            Some(i64::from(i32::from_be_bytes(field))).filter(|_| of < self.types)
        };
        let mut changes = Vec::with_capacity(self.times);
        for n in 0..self.times {
            let at = 44 + n * self.width;
            let time: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
            changes.push((i64::from_be_bytes(time), offset(usize::from(*bytes.get(indices + n)?))?));
        }
        changes.is_sorted().then_some(Zone { first: offset(0)?, changes, rule: None })
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let mut text = text;
        name(&mut text)?;
        // Written as what is to be added to get UTC.
        let standard = -time(&mut text)?;
        if text.is_empty() {
            return Some(Rule { standard, summer: None });
        }
        name(&mut text)?;
        let summer = if text.starts_with(',') { standard + 3_600 } else { -time(&mut text)? };
        let begin = Day::parse(&mut text)?;
        let end = Day::parse(&mut text)?;
        text.is_empty().then_some(Rule { standard, summer: Some((summer, begin, end)) })
    }

    fn at(&self, instant: i64) -> (i64, Option<i64>) {
        let Some((summer, begin, end)) = self.summer else { return (self.standard, None) };
        let (year, ..) = civil(instant.div_euclid(86_400));
        let mut changes: Vec<(i64, i64)> = (year - 1..=year + 1)
            .flat_map(|year| {
                [(begin.of(year) - self.standard, summer), (end.of(year) - summer, self.standard)]
            })
            .collect();
        changes.sort_unstable();
        let after = changes.partition_point(|(begin, _)| *begin <= instant);
        let offset = changes[..after].last().map_or(self.standard, |(_, offset)| *offset);
        (offset, changes.get(after).map(|(begin, _)| *begin))
    }
}

impl Day {
    fn parse(text: &mut &str) -> Option<Day> {
        *text = text.strip_prefix(',')?;
        let kind = text.chars().next()?;
        let day = if kind == 'M' {
            *text = &text[1..];
            let month = digits(text)?;
            *text = text.strip_prefix('.')?;
            let week = digits(text)?;
            *text = text.strip_prefix('.')?;
            let weekday = digits(text)?;
            if !(1..=12).contains(&month) || !(1..=5).contains(&week) || weekday > 6 {
                return None;
            }
            Day::Month(month as u32, week, weekday, 7_200)
        } else if kind == 'J' {
            *text = &text[1..];
            Day::Julian(digits(text)?, 7_200)
        } else {
            Day::Zero(digits(text)?, 7_200)
        };
        let Some(rest) = text.strip_prefix('/') else { return Some(day) };
        *text = rest;
        let at = time(text)?;
        Some(match day {
            Day::Month(month, week, weekday, _) => Day::Month(month, week, weekday, at),
            Day::Julian(n, _) => Day::Julian(n, at),
            Day::Zero(n, _) => Day::Zero(n, at),
        })
    }

    /// In a year, as the clock shows it.
    fn of(self, year: i64) -> i64 {
        let first = day_of(year, 1, 1);
        let (day, time) = match self {
            Day::Julian(n, time) => {
                let leap = day_of(year, 3, 1) - first == 60;
                (first + n - 1 + i64::from(leap && n >= 60), time)
            }
            Day::Zero(n, time) => (first + n, time),
            Day::Month(month, week, weekday, time) => {
                let begin = day_of(year, month, 1);
                let next = if month == 12 { day_of(year + 1, 1, 1) } else { day_of(year, month + 1, 1) };
                let first = begin + (weekday - (begin + 4)).rem_euclid(7);
                let mut day = first + (week - 1) * 7;
                while day >= next {
                    day -= 7;
                }
                (day, time)
            }
        };
        day * 86_400 + time
    }
}

/// `CET`, `<+03>`
fn name(text: &mut &str) -> Option<()> {
    let length = if text.starts_with('<') {
        text.find('>')? + 1
    } else {
        text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len())
    };
    *text = &text[length..];
    (length >= 3).then_some(())
}

/// `[+-]h[:m[:s]]` in seconds.
fn time(text: &mut &str) -> Option<i64> {
    let negative = text.starts_with('-');
    if text.starts_with(['-', '+']) {
        *text = &text[1..];
    }
    let mut seconds = digits(text)? * 3_600;
    for unit in [60, 1] {
        if let Some(rest) = text.strip_prefix(':') {
            *text = rest;
            seconds += digits(text)? * unit;
        }
    }
    Some(if negative { -seconds } else { seconds })
}

fn digits(text: &mut &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    if number.len() > 4 { None } else { number.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn at(text: &str) -> i64 {
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        let day = day_of(number(0..4), number(5..7) as u32, number(8..10) as u32);
        day * 86_400 + number(11..13) * 3_600 + number(14..16) * 60
    }

    fn runs(zone: &Zone, pattern: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(pattern).unwrap();
        let mut now = at(after);
        let mut found = Vec::new();
        for _ in 0..count {
            now = zone.next(&cron, now).unwrap();
            found.push(crate::time::Wall(now as u64 * 1_000).to_string()[..16].replace('T', " "));
        }
        found
    }

    #[test]
    fn a_skipped_time_is_due_when_the_clock_goes_on_and_a_repeated_one_once() {
        let zone = Zone::rule(BERLIN).unwrap();
        let found = runs(&zone, "30 2 * * *", "2024-03-29 12:00", 3);
        assert_eq!(found, ["2024-03-30 01:30", "2024-03-31 01:00", "2024-04-01 00:30"]);
        let found = runs(&zone, "30 2 * * *", "2024-10-26 12:00", 2);
        assert_eq!(found, ["2024-10-27 00:30", "2024-10-28 01:30"]);
        // Every half hour goes on through the hour that comes twice, and through the one that is missing.
        let found = runs(&zone, "0,30 * * * *", "2024-10-26 23:59", 5);
        let expected = ["00:00", "00:30", "01:00", "01:30", "02:00"].map(|time| format!("2024-10-27 {time}"));
        assert_eq!(found, expected);
        let found = runs(&zone, "0,30 * * * *", "2024-03-31 00:01", 3);
        assert_eq!(found, ["2024-03-31 00:30", "2024-03-31 01:00", "2024-03-31 01:30"]);
    }

    #[test]
    fn clocks_show_the_date_where_they_are() {
        let zone = Zone::rule(BERLIN).unwrap();
        let local = zone.local(Wall(1_711_846_800_000 - 1_000));
        assert_eq!((local.year, local.month, local.date, local.weekday), (2024, 3, 31, 0));
        assert_eq!((local.hour, local.minute, local.second, local.offset), (1, 59, 59, 3_600));
        assert_eq!(zone.local(Wall(1_711_846_800_000)).hour, 3, "an hour is skipped");
    }

    #[test]
    fn rules_of_every_kind() {
        for (rule, instant, offset) in [
            ("UTC0", "2024-07-01 00:00", 0),
            (BERLIN, "2024-01-01 00:00", 3_600),
            (BERLIN, "2024-07-01 00:00", 7_200),
            ("EST5EDT,M3.2.0,M11.1.0", "2024-07-01 00:00", -14_400),
            ("EST5EDT,M3.2.0,M11.1.0", "2024-12-01 00:00", -18_000),
            // South of the equator, with minutes, and a name in brackets.
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2024-01-01 00:00", 39_600),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2024-07-01 00:00", 37_800),
            ("XXX3YYY,J60/0,300/-1", "2024-03-01 03:00", -7_200),
            ("XXX3YYY,J60/0,300/-1", "2024-03-01 02:59", -10_800),
        ] {
            assert_eq!(Zone::rule(rule).unwrap().at(at(instant)).0, offset, "{rule} {instant}");
        }
        for bad in
            ["", "C", "CET", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "1", "CET-1 "]
        {
            assert_eq!(Zone::rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_of_the_database_are_read() {
        let Ok(bytes) = std::fs::read("/usr/share/zoneinfo/Europe/Berlin") else {
            println!("skipped: there is no zoneinfo here");
            return;
        };
        let zone = Zone::read(&bytes).unwrap();
        for (instant, offset) in [
            ("1941-01-01 00:00", 7_200),
            ("1975-07-01 00:00", 3_600),
            ("1999-07-01 00:00", 7_200),
            ("2024-01-01 00:00", 3_600),
            ("2090-07-01 00:00", 7_200),
        ] {
            assert_eq!(zone.at(at(instant)).0, offset, "{instant}");
        }
        let by_rule = Zone::rule(BERLIN).unwrap();
        let after = "2031-01-01 00:00";
        assert_eq!(runs(&zone, "30 2 * * *", after, 400), runs(&by_rule, "30 2 * * *", after, 400));
        for cut in 0..bytes.len() {
            let _ = Zone::read(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _ = Zone::read(&broken);
        }
    }
}
