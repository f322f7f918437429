//! When a line was written, as it says itself: the dates that loggers and servers begin their lines with, and the
//! fields that JSON has for it.

use super::{Level, fields};
use crate::app::cron::{civil, day_of};
use crate::time::Wall;

/// A moment as some clock showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The seconds from the beginning of 1970 on that clock.
    pub second: i64,
    /// What is beyond the second.
    pub millis: u16,
    /// How many seconds that clock is ahead of UTC; `None`: it is the clock of this machine.
    pub offset: Option<i64>,
}

/// Where JSON has it.
const FIELDS: [&str; 7] = ["time", "timestamp", "ts", "@timestamp", "date", "t", "datetime"];
/// So near to the beginning a date is that of its line.
const NEAR: usize = 96;
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

impl Stamp {
    /// The same moment, where `ahead` tells how far the clock of this machine is ahead of UTC when it shows so many
    /// seconds.
    pub fn wall(self, ahead: impl FnOnce(i64) -> i64) -> Wall {
        let second = self.second - self.offset.unwrap_or_else(|| ahead(self.second));
        Wall(u64::try_from(second).unwrap_or(0).saturating_mul(1_000) + u64::from(self.millis))
    }

    /// ISO 8601 as a person writes it: a date, perhaps with a time, perhaps with a zone; nothing else.
    pub fn named(text: &str) -> Option<Stamp> {
        let text = text.trim().as_bytes();
        if let Some((stamp, length)) = iso(text)
            && length == text.len()
        {
            return Some(stamp);
        }
        let day = date(text).filter(|(_, length)| *length == text.len())?.0;
        Some(Stamp { second: day * 86_400, millis: 0, offset: None })
    }

    /// What a line says of itself. A date without a year is the last one before `near`, in seconds from 1970 on.
    pub fn of(line: &[u8], near: i64) -> Option<Stamp> {
        let mut rest = undecorated(line);
        // A level or a word in brackets may come first.
        for _ in 0..3 {
            if let Some(stamp) = at_start(rest, near) {
                return Some(stamp);
            }
            let end = rest.iter().take(NEAR).position(|byte| b" \t]:".contains(byte)).unwrap_or(rest.len());
            let is_bracketed = rest.get(end) == Some(&b']');
            if !is_bracketed && Level::named(&rest[..end]).is_none() {
                break;
            }
            rest = undecorated(&rest[end..]);
        }
        // `::1 - - [10/Oct/2026:13:55:36 +0200] "GET /"`
        let head = &line[..line.len().min(NEAR)];
        let bracket = head.iter().position(|byte| *byte == b'[')?;
        common_log(&line[bracket + 1..])
    }
}

/// Without what may stand before a date.
fn undecorated(mut bytes: &[u8]) -> &[u8] {
    loop {
        match bytes.first() {
            Some(b'[' | b'(' | b'"' | b' ' | b'\t' | b']' | b':' | b'<' | b'|') => bytes = &bytes[1..],
            Some(0x1b) => {
                let Some(letter) = bytes[1..].iter().take(16).position(u8::is_ascii_alphabetic) else {
                    return bytes;
                };
                bytes = &bytes[letter + 2..];
            }
            _ => return bytes,
        }
    }
}

fn at_start(bytes: &[u8], near: i64) -> Option<Stamp> {
    match bytes.first()? {
        b'{' => json(bytes),
        b'0'..=b'9' => iso(bytes).map(|(stamp, _)| stamp).or_else(|| common_log(bytes)),
        b'A'..=b'Z' => named_month(bytes, near),
        b't' => {
            let value = bytes.strip_prefix(b"time=").or_else(|| bytes.strip_prefix(b"ts="))?;
            iso(value.strip_prefix(b"\"").unwrap_or(value)).map(|(stamp, _)| stamp)
        }
        _ => None,
    }
}

/// What JSON says: a date, or a number of seconds, milliseconds, microseconds or nanoseconds.
fn json(line: &[u8]) -> Option<Stamp> {
    let value = fields::field(line, &FIELDS)?;
    if let Some(text) = fields::text(value) {
        return iso(text).map(|(stamp, _)| stamp);
    }
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok().filter(|number| *number > 0.0)?;
    let millis = match number {
        ..1e11 => number * 1e3,
        1e11..1e14 => number,
        1e14..1e17 => number / 1e3,
        _ => number / 1e6,
    } as u64;
    Some(Stamp { second: (millis / 1_000) as i64, millis: (millis % 1_000) as u16, offset: Some(0) })
}

/// A number of exactly so many digits at a place.
fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    let digits = bytes.get(at..at + count)?;
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// `2026-01-31` or `2026/01/31`: its day from 1970 on, and how long it is.
fn date(bytes: &[u8]) -> Option<(i64, usize)> {
    let (year, month, date) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    let is_date = matches!((bytes[4], bytes[7]), (b'-', b'-') | (b'/', b'/'));
    day(year, month, date).filter(|_| is_date).map(|day| (day, 10))
}

fn day(year: i64, month: i64, date: i64) -> Option<i64> {
    let is_one = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&date);
    is_one.then(|| day_of(year, month as u32, date as u32))
}

/// `12:30`, `12:30:15`, `12:30:15.123`: its second of the day, milliseconds, and how long it is.
fn time(bytes: &[u8]) -> Option<(i64, u16, usize)> {
    let (hour, minute) = (digits(bytes, 0, 2)?, digits(bytes, 3, 2)?);
    if bytes[2] != b':' || hour > 24 || minute > 59 {
        return None;
    }
    let second = if bytes.get(5) == Some(&b':') { digits(bytes, 6, 2) } else { None };
    let Some(second) = second.filter(|second| *second <= 60) else {
        return Some((hour * 3_600 + minute * 60, 0, 5));
    };
    let (mut millis, mut length) = (0, 8);
    if matches!(bytes.get(8), Some(b'.' | b',')) {
        let fraction = bytes[9..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let of =
            |place: usize| bytes.get(9 + place).filter(|_| place < fraction).map_or(0, |byte| byte - b'0');
        millis = u16::from(of(0)) * 100 + u16::from(of(1)) * 10 + u16::from(of(2));
        length += if fraction > 0 { fraction + 1 } else { 0 };
    }
    Some((hour * 3_600 + minute * 60 + second, millis, length))
}

/// `Z`, `+02:00`, `+0200`, perhaps after a blank: seconds east of UTC, and how long it is.
fn zone(bytes: &[u8]) -> Option<(i64, usize)> {
    let blank = usize::from(bytes.first() == Some(&b' '));
    let sign = match bytes.get(blank)? {
        b'Z' | b'z' if blank == 0 => return Some((0, 1)),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = digits(bytes, blank + 1, 2)?;
    let colon = usize::from(bytes.get(blank + 3) == Some(&b':'));
    let minutes = digits(bytes, blank + 3 + colon, 2);
    // After a blank two digits may be anything.
    if minutes.is_none() && blank > 0 {
        return None;
    }
    let length = blank + 3 + minutes.map_or(0, |_| colon + 2);
    Some((sign * (hours * 3_600 + minutes.unwrap_or(0) * 60), length))
}

/// A date, `T` or a blank, and a time, perhaps with a zone.
fn iso(bytes: &[u8]) -> Option<(Stamp, usize)> {
    let (day, mut length) = date(bytes)?;
    if !matches!(bytes.get(length), Some(b'T' | b't' | b' ' | b'_')) {
        return None;
    }
    length += 1;
    let (second, millis, taken) = time(&bytes[length..])?;
    length += taken;
    let zone = zone(&bytes[length..]);
    length += zone.map_or(0, |(_, taken)| taken);
    Some((Stamp { second: day * 86_400 + second, millis, offset: zone.map(|(offset, _)| offset) }, length))
}

fn month(bytes: &[u8]) -> Option<i64> {
    let name = bytes.get(..3)?;
    MONTHS.iter().position(|month| *month == name).map(|at| at as i64 + 1)
}

/// `10/Oct/2026:13:55:36 +0200`
fn common_log(bytes: &[u8]) -> Option<Stamp> {
    if bytes.get(2) != Some(&b'/') || bytes.get(6) != Some(&b'/') || bytes.get(11) != Some(&b':') {
        return None;
    }
    let day = day(digits(bytes, 7, 4)?, month(&bytes[3..])?, digits(bytes, 0, 2)?)?;
    let (second, millis, taken) = time(&bytes[12..])?;
    let offset = zone(&bytes[12 + taken..]).map(|(offset, _)| offset);
    Some(Stamp { second: day * 86_400 + second, millis, offset })
}

/// `Jan  2 15:04:05` as syslog has it, `Fri Jan  2 15:04:05 2026` as ctime.
fn named_month(bytes: &[u8], near: i64) -> Option<Stamp> {
    let has_day = bytes.get(3) == Some(&b' ') && month(bytes).is_none() && bytes.get(4)?.is_ascii_uppercase();
    let bytes = if has_day { &bytes[4..] } else { bytes };
    let month = month(bytes)?;
    if bytes.get(3) != Some(&b' ') {
        return None;
    }
    let date = digits(bytes, 4, 2).or_else(|| digits(bytes, 5, 1).filter(|_| bytes[4] == b' '))?;
    let (second, millis, taken) = time(bytes.get(7..)?).filter(|_| bytes[6] == b' ')?;
    let year = digits(bytes, 7 + taken + 1, 4).filter(|_| bytes.get(7 + taken) == Some(&b' '));
    let of = |year: i64| day(year, month, date).map(|day| day * 86_400 + second);
    let second = match year.and_then(of) {
        Some(second) => second,
        None => {
            // A day more, because clocks show different dates in different places.
            let (year, ..) = civil(near.div_euclid(86_400) + 1);
            of(year).filter(|second| *second <= near + 86_400).or_else(|| of(year - 1))?
        }
    };
    Some(Stamp { second, millis, offset: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-05T12:07:09Z
    const NOW: i64 = 1_772_712_429;

    fn shown(stamp: Option<Stamp>) -> Option<String> {
        // An hour ahead where nothing is said.
        stamp.map(|stamp| stamp.wall(|_| 3_600).to_string())
    }

    #[test]
    fn the_dates_that_lines_begin_with() {
        for (line, expected) in [
            ("2026-03-05T12:07:09: what pmx writes", "2026-03-05T11:07:09.000Z"),
            ("2026-03-05 12:07:09.042 +0100: with a zone", "2026-03-05T11:07:09.042Z"),
            ("2026-03-05T12:07:09.123456Z x", "2026-03-05T12:07:09.123Z"),
            ("[2026-03-05T12:07:09Z INFO  app] x", "2026-03-05T12:07:09.000Z"),
            ("\u{1b}[2m2026-03-05T12:07:09.5-03:30\u{1b}[0m x", "2026-03-05T15:37:09.500Z"),
            ("2026/03/05 12:07:09 go's log", "2026-03-05T11:07:09.000Z"),
            ("INFO 2026-03-05 12:07:09,123 log4j", "2026-03-05T11:07:09.123Z"),
            ("[warn] 2026-03-05 12:07 - x", "2026-03-05T11:07:00.000Z"),
            ("127.0.0.1 - joe [05/Mar/2026:12:07:09 +0200] \"GET /\" 200", "2026-03-05T10:07:09.000Z"),
            ("::1 - - [05/Mar/2026:12:07:09 +0000] \"GET /\"", "2026-03-05T12:07:09.000Z"),
            ("Mar  5 12:07:08 host app[1]: syslog", "2026-03-05T11:07:08.000Z"),
            ("Dec 31 23:59:59 host app[1]: of the year before", "2025-12-31T22:59:59.000Z"),
            ("Thu Mar  5 12:07:09 2020 ctime", "2020-03-05T11:07:09.000Z"),
            (r#"{"level":30,"time":1772712429123,"msg":"pino"}"#, "2026-03-05T12:07:09.123Z"),
            (r#"{"level":"info","ts":1772712429.25,"msg":"zap"}"#, "2026-03-05T12:07:09.250Z"),
            (r#"{"ts":1772712429123456789}"#, "2026-03-05T12:07:09.123Z"),
            (
                r#"{"message":"{\"time\":1}","timestamp":"2026-03-05T12:07:09.001Z","type":"out"}"#,
                "2026-03-05T12:07:09.001Z",
            ),
            ("time=\"2026-03-05T12:07:09Z\" level=info", "2026-03-05T12:07:09.000Z"),
        ] {
            assert_eq!(shown(Stamp::of(line.as_bytes(), NOW)).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "",
            "x",
            "    at foo (a.js:1:2)",
            "20260305",
            "2026-13-05T12:07:09",
            "2026-03-05",
            "2026-03-05Txx",
            "user joined on 2026-03-05 12:07:09",
            "Mar 5",
            "[x] y",
            "{\"msg\":1}",
            "12:07:09 x",
            "1.5 2026",
            "Error: 2026",
        ] {
            assert_eq!(Stamp::of(line.as_bytes(), NOW), None, "{line}");
        }
    }

    #[test]
    fn what_people_write() {
        for (text, expected) in [
            ("2026-03-05", Some("2026-03-04T23:00:00.000Z")),
            ("2026-03-05T12:07", Some("2026-03-05T11:07:00.000Z")),
            (" 2026-03-05 12:07:09 ", Some("2026-03-05T11:07:09.000Z")),
            ("2026-03-05T12:07:09.5Z", Some("2026-03-05T12:07:09.500Z")),
            ("2026-03-05T12:07:09+02", Some("2026-03-05T10:07:09.000Z")),
            ("2026-03-05T12:07:09 x", None),
            ("2026-3-5", None),
            ("now", None),
        ] {
            assert_eq!(shown(Stamp::named(text)).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn whatever_the_bytes_there_is_no_panic() {
        let mut seed = 3u64;
        let parts = [
            "2026", "-", "03", "/", "05", "T", " ", ":", "12", ".", "Z", "+", "Mar", "[", "{\"ts\":", "9",
            "\u{1b}[", "m", "\u{e9}", "}",
        ];
        for _ in 0..100_000 {
            let mut line = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                line.push_str(parts[(seed >> 33) as usize % parts.len()]);
            }
            let bytes = &line.as_bytes()[..(seed >> 40) as usize % (line.len() + 1)];
            let _ = Stamp::of(bytes, NOW).map(|stamp| stamp.wall(|_| 0));
            let _ = Stamp::named(&line);
        }
    }
}
