//! Dates as `log_date_format` and the names of rotated logs have them: the tokens of dayjs. Pure: the clock is
//! read elsewhere.

use super::cron::day_of;
use super::line::Stamp;
use crate::time::Local;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The tokens, a longer one before those that it begins with.
const TOKENS: &[(&str, Token)] = &[
    ("YYYY", Token::Year),
    ("YY", Token::ShortYear),
    ("MMMM", Token::MonthName),
    ("MMM", Token::ShortMonthName),
    ("MM", Token::Month(2)),
    ("M", Token::Month(1)),
    ("DD", Token::Date(2)),
    ("D", Token::Date(1)),
    ("dddd", Token::DayName(usize::MAX)),
    ("ddd", Token::DayName(3)),
    ("dd", Token::DayName(2)),
    ("d", Token::Day),
    ("HH", Token::Hour(2)),
    ("H", Token::Hour(1)),
    ("hh", Token::Hour12(2)),
    ("h", Token::Hour12(1)),
    ("mm", Token::Minute(2)),
    ("m", Token::Minute(1)),
    ("ss", Token::Second(2)),
    ("s", Token::Second(1)),
    ("SSS", Token::Milli),
    ("ZZ", Token::Offset("")),
    ("Z", Token::Offset(":")),
    ("A", Token::Half(true)),
    ("a", Token::Half(false)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Year,
    ShortYear,
    MonthName,
    ShortMonthName,
    Month(usize),
    Date(usize),
    DayName(usize),
    Day,
    Hour(usize),
    Hour12(usize),
    Minute(usize),
    Second(usize),
    Milli,
    Offset(&'static str),
    Half(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Token(Token),
}

/// How a date is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DateFormat(Vec<Piece>);

impl DateFormat {
    /// What `text` means. Everything means something: what is no token stands for itself, and so does what is in
    /// brackets.
    pub fn new(text: &str) -> DateFormat {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let escaped = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            if let Some((word, after)) = escaped.filter(|(word, _)| !word.is_empty()) {
                literal(&mut pieces, word);
                rest = after;
            } else if let Some((name, token)) = TOKENS.iter().find(|(name, _)| rest.starts_with(name)) {
                pieces.push(Piece::Token(*token));
                rest = &rest[name.len()..];
            } else {
                let (one, after) = rest.split_at(first.len_utf8());
                literal(&mut pieces, one);
                rest = after;
            }
        }
        DateFormat(pieces)
    }

    /// Whether two moments of one second look different.
    pub fn has_millis(&self) -> bool {
        self.0.contains(&Piece::Token(Token::Milli))
    }

    /// The date of a moment.
    pub fn write(&self, local: &Local, millis: u64, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Token(token) => token.write(local, millis, out),
            }
        }
    }

    /// Reads a date that was written so, at the beginning of `text`, and tells how long it is. `None`: it is none, or
    /// tells too little to know the day.
    pub fn read(&self, text: &[u8]) -> Option<(Stamp, usize)> {
        let mut found = Found::default();
        let mut rest = text;
        for piece in &self.0 {
            rest = match piece {
                Piece::Text(text) => rest.strip_prefix(text.as_bytes())?,
                Piece::Token(token) => token.read(rest, &mut found)?,
            };
        }
        Some((found.stamp()?, text.len() - rest.len()))
    }

    /// The same as text.
    pub fn text(&self, local: &Local, millis: u64) -> String {
        let mut out = Vec::new();
        self.write(local, millis, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(before)) => before.push_str(text),
        _ => pieces.push(Piece::Text(text.to_string())),
    }
}

impl Token {
    fn write(self, local: &Local, millis: u64, out: &mut Vec<u8>) {
        let number = |value: u32, width: usize| format!("{value:0width$}");
        let month = MONTHS[(local.month as usize).saturating_sub(1) % 12];
        let hour12 = (local.hour + 11) % 12 + 1;
        let text = match self {
            Token::Year => format!("{:04}", local.year),
            Token::ShortYear => format!("{:02}", local.year.rem_euclid(100)),
            Token::MonthName => month.to_string(),
            Token::ShortMonthName => month[..3].to_string(),
            Token::Month(width) => number(local.month, width),
            Token::Date(width) => number(local.date, width),
            Token::DayName(length) => {
                let name = DAYS[local.weekday as usize % 7];
                name[..length.min(name.len())].to_string()
            }
            Token::Day => number(local.weekday, 1),
            Token::Hour(width) => number(local.hour, width),
            Token::Hour12(width) => number(hour12, width),
            Token::Minute(width) => number(local.minute, width),
            Token::Second(width) => number(local.second, width),
            Token::Milli => format!("{:03}", millis % 1_000),
            Token::Offset(between) => {
                let sign = if local.offset < 0 { '-' } else { '+' };
                let minutes = local.offset.unsigned_abs() / 60;
                format!("{sign}{:02}{between}{:02}", minutes / 60, minutes % 60)
            }
            Token::Half(upper) => match (local.hour < 12, upper) {
                (true, true) => "AM".to_string(),
                (true, false) => "am".to_string(),
                (false, true) => "PM".to_string(),
                (false, false) => "pm".to_string(),
            },
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// What was read of a date.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<u32>,
    date: Option<u32>,
    hour: i64,
    minute: i64,
    second: i64,
    millis: u16,
    /// Whether the hour is one of the afternoon, where it is counted to twelve.
    is_late: Option<bool>,
    offset: Option<i64>,
}

impl Found {
    fn stamp(&self) -> Option<Stamp> {
        let day = day_of(self.year?, self.month?, self.date?);
        let hour = self.is_late.map_or(self.hour, |is_late| self.hour % 12 + if is_late { 12 } else { 0 });
        let second = day * 86_400 + hour * 3_600 + self.minute * 60 + self.second;
        Some(Stamp { second, millis: self.millis, offset: self.offset })
    }
}

/// A number of at most so many digits, and what follows it.
fn number(text: &[u8], most: usize) -> Option<(i64, &[u8])> {
    let length = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    std::str::from_utf8(digits).ok()?.parse().ok().map(|number| (number, rest))
}

impl Token {
    /// Reads one, and hands back what follows it.
    fn read<'a>(self, text: &'a [u8], found: &mut Found) -> Option<&'a [u8]> {
        let small = |limit: i64| {
            let (value, rest) = number(text, 2)?;
            (value <= limit).then_some((value, rest))
        };
        let name = |names: &[&str], length: usize| {
            names.iter().enumerate().find_map(|(at, name)| {
                let rest = text.strip_prefix(&name.as_bytes()[..length.min(name.len())])?;
                Some((at as u32, rest))
            })
        };
        Some(match self {
            Token::Year => {
                let (year, rest) = number(text, 4)?;
                found.year = Some(year);
                rest
            }
            Token::ShortYear => {
                let (year, rest) = number(text, 2)?;
                found.year = Some(2_000 + year);
                rest
            }
            Token::MonthName | Token::ShortMonthName => {
                let length = if self == Token::MonthName { usize::MAX } else { 3 };
                let (at, rest) = name(&MONTHS, length)?;
                found.month = Some(at + 1);
                rest
            }
            Token::Month(_) => {
                let (month, rest) = small(12)?;
                found.month = Some(month as u32).filter(|month| *month > 0);
                rest
            }
            Token::Date(_) => {
                let (date, rest) = small(31)?;
                found.date = Some(date as u32).filter(|date| *date > 0);
                rest
            }
            Token::DayName(length) => name(&DAYS, length)?.1,
            Token::Day => number(text, 1)?.1,
            Token::Hour(_) | Token::Hour12(_) => {
                let (hour, rest) = small(24)?;
                found.hour = hour;
                rest
            }
            Token::Minute(_) => {
                let (minute, rest) = small(59)?;
                found.minute = minute;
                rest
            }
            Token::Second(_) => {
                let (second, rest) = small(60)?;
                found.second = second;
                rest
            }
            Token::Milli => {
                let (millis, rest) = number(text, 3)?;
                found.millis = millis as u16;
                rest
            }
            Token::Offset(between) => {
                let (sign, rest) = text.split_first()?;
                let sign = if *sign == b'-' { -1 } else { 1 };
                let (hours, rest) = number(rest, 2)?;
                let (minutes, rest) = number(rest.strip_prefix(between.as_bytes())?, 2)?;
                found.offset = Some(sign * (hours * 3_600 + minutes * 60));
                rest
            }
            Token::Half(_) => {
                let half = text.get(..2)?.to_ascii_lowercase();
                found.is_late = Some(half == b"pm").filter(|is_late| *is_late || half == b"am");
                found.is_late?;
                &text[2..]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let local = Local {
            year: 2026,
            month: 3,
            date: 5,
            hour: 13,
            minute: 7,
            second: 9,
            weekday: 4,
            offset: -12_600,
        };
        let second = day_of(2026, 3, 5) * 86_400 + 13 * 3_600 + 7 * 60 + 9;
        for (format, second, millis, offset) in [
            ("YYYY-MM-DDTHH:mm:ss", second, 0, None),
            ("YYYY-MM-DD HH:mm:ss.SSS Z", second, 42, Some(-12_600)),
            ("dddd, D. MMMM YY, h:mm:ss a ZZ", second, 0, Some(-12_600)),
            ("[on] DD/MMM/YYYY hh-mm-ss-A", second, 0, None),
            ("YYYYMMDD", second / 86_400 * 86_400, 0, None),
        ] {
            let format = DateFormat::new(format);
            let text = format!("{}: x", format.text(&local, 1_042));
            assert_eq!(
                format.read(text.as_bytes()),
                Some((Stamp { second, millis, offset }, text.len() - 3)),
                "{text}"
            );
        }
        for (format, text) in [
            ("HH:mm", "13:07"),
            ("YYYY-MM-DD", "2026-13-05"),
            ("YYYY-MM-DD", "2026-00-05"),
            ("YYYY A", "2026 xx"),
            ("YYYY-MM-DD", "2026-1"),
        ] {
            assert_eq!(DateFormat::new(format).read(text.as_bytes()), None, "{format} {text}");
        }
    }

    #[test]
    fn tokens_are_those_of_dayjs() {
        let local = Local {
            year: 2026,
            month: 3,
            date: 5,
            hour: 0,
            minute: 7,
            second: 9,
            weekday: 4,
            offset: -(3 * 3_600 + 1_800),
        };
        for (format, expected) in [
            ("YYYY-MM-DDTHH:mm:ss", "2026-03-05T00:07:09"),
            ("YYYY-MM-DD HH:mm Z", "2026-03-05 00:07 -03:30"),
            ("YYYY-MM-DD HH:mm:ss.SSS ZZ", "2026-03-05 00:07:09.042 -0330"),
            ("YY M D H m s", "26 3 5 0 7 9"),
            ("MMM MMMM", "Mar March"),
            ("d dd ddd dddd", "4 Th Thu Thursday"),
            ("h hh A a", "12 12 AM am"),
            ("[YYYY] YYYY", "YYYY 2026"),
            ("[] x", "[] x"),
            ("[open YYYY", "[open 2026"),
            ("\u{e9}t\u{e9} YYYY", "\u{e9}t\u{e9} 2026"),
            ("YYYY-MM-DD_HH-mm-ss", "2026-03-05_00-07-09"),
            ("", ""),
        ] {
            let read = DateFormat::new(format);
            assert_eq!(read.text(&local, 1_042), expected, "{format}");
            assert_eq!(read.has_millis(), format.contains("SSS"));
        }
        let evening = Local { hour: 13, offset: 7_200, ..local };
        assert_eq!(DateFormat::new("hh A Z").text(&evening, 0), "01 PM +02:00");
        assert_eq!(DateFormat::new("h a").text(&Local { hour: 12, ..local }, 0), "12 pm");
    }

    #[test]
    fn whatever_the_bytes_there_is_no_panic() {
        let mut seed = 11u64;
        let alphabet: Vec<char> = "YMDdHhmsSZAa[]-: \u{e9}\u{1f600}".chars().collect();
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..10 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            let format = DateFormat::new(&text);
            let written = format.text(&Local::default(), 0);
            let _ = format.read(written.as_bytes()).zip(format.read(text.as_bytes()));
        }
    }
}
