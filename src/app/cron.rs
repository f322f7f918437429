//! The grammar of cron, as pm2's users write it: five fields, or six with the seconds first; lists, ranges,
//! steps and names; `L` (last), `W` (the working day nearest to a date) and `#` (the nth weekday of a month).
//! Pure: it is asked for the next time after another, both as the clock on the wall shows them.

/// Days are searched for so long: the longest gap is that between the leap days around a year like 2100, on
/// one weekday.
const HORIZON_DAYS: i64 = 366 * 60;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: Days,
    months: u64,
    weekdays: Weekdays,
}

/// Days of the month.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Days {
    /// `*`: the weekdays alone decide.
    any: bool,
    dates: u64,
    last: bool,
    /// Dates of which the nearest working day is meant.
    near: u64,
    last_working: bool,
}

/// Days of the week, 0 is Sunday.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weekdays {
    any: bool,
    every: u64,
    /// By weekday: bit n is the nth of the month.
    nth: [u8; 7],
    /// By weekday: bit 0 is the last of the month.
    last: [bool; 7],
}

impl Cron {
    /// Reads a pattern. The error says what was expected.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let text = text.trim();
        let spelled = match text.to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => text,
        };
        let fields: Vec<&str> = spelled.split_ascii_whitespace().collect();
        let (seconds, rest) = match fields.len() {
            5 => ("0", &fields[..]),
            6 => (fields[0], &fields[1..]),
            _ => return Err("five fields, or six with the seconds first".to_string()),
        };
        let cron = Cron {
            seconds: bits(seconds, "second", 0, 59, &[])?,
            minutes: bits(rest[0], "minute", 0, 59, &[])?,
            hours: bits(rest[1], "hour", 0, 23, &[])?,
            days: Days::parse(rest[2])?,
            months: bits(rest[3], "month", 1, 12, &MONTHS)?,
            weekdays: Weekdays::parse(rest[4])?,
        };
        // 2000-01-01: within the horizon after it lies every kind of day.
        if cron.next(946_684_800).is_none() {
            return Err("a day that exists".to_string());
        }
        Ok(cron)
    }

    /// Whether it is due in every hour of its days: then an hour that the clock shows twice is two hours.
    pub fn is_hourly(&self) -> bool {
        self.hours == span(0, 23, 1)
    }

    /// The first time after `after` at which it is due. Both are seconds since 1970, as the clock on the wall
    /// shows them.
    pub fn next(&self, after: i64) -> Option<i64> {
        let from = after + 1;
        let (mut day, mut of_day) = (from.div_euclid(86_400), from.rem_euclid(86_400));
        let end = day + HORIZON_DAYS;
        while day <= end {
            if self.is_on(day)
                && let Some(time) = self.time_from(of_day)
            {
                return Some(day * 86_400 + time);
            }
            day += 1;
            of_day = 0;
        }
        None
    }

    /// The first second of a day that is due, not before `from`.
    fn time_from(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = (from / 3_600, from / 60 % 60, from % 60);
        for h in hour..24 {
            if self.hours >> h & 1 == 0 {
                continue;
            }
            for m in (if h == hour { minute } else { 0 })..60 {
                if self.minutes >> m & 1 == 0 {
                    continue;
                }
                let first = if (h, m) == (hour, minute) { second } else { 0 };
                if let Some(s) = (first..60).find(|s| self.seconds >> s & 1 == 1) {
                    return Some(h * 3_600 + m * 60 + s);
                }
            }
        }
        None
    }

    /// Whether it is due on a day, counted from 1970-01-01.
    fn is_on(&self, day: i64) -> bool {
        let (year, month, date) = civil(day);
        if self.months >> month & 1 == 0 {
            return false;
        }
        // As ever since Vixie: if both are restricted, either will do.
        let of_month = || self.days.include(year, month, date, day);
        let of_week = || self.weekdays.include(year, month, date, day);
        match (self.days.any, self.weekdays.any) {
            (true, true) => true,
            (true, false) => of_week(),
            (false, true) => of_month(),
            (false, false) => of_month() || of_week(),
        }
    }
}

impl Days {
    fn parse(text: &str) -> Result<Days, String> {
        let mut days = Days { any: is_any(text), dates: 0, last: false, near: 0, last_working: false };
        for part in text.split(',') {
            match part.to_ascii_uppercase().as_str() {
                "L" => days.last = true,
                "LW" | "WL" => days.last_working = true,
                word if word.ends_with('W') => {
                    days.near |= 1 << number(&word[..word.len() - 1], "day of the month", 1, 31, &[])?;
                }
                _ => days.dates |= bits(part, "day of the month", 1, 31, &[])?,
            }
        }
        Ok(days)
    }

    fn include(&self, year: i64, month: u32, date: u32, day: i64) -> bool {
        let length = month_length(year, month);
        let weekday = weekday(day);
        let nearest = |wanted: u32| {
            // Never out of the month.
            let wanted = wanted.min(length);
            let of = self::weekday(day - i64::from(date) + i64::from(wanted));
            let moved = match (of, wanted) {
                (6, 1) => 3,
                (6, _) => wanted - 1,
                (0, last) if last == length => wanted - 2,
                (0, _) => wanted + 1,
                _ => wanted,
            };
            moved == date
        };
        self.dates >> date & 1 == 1
            || self.last && date == length
            || self.last_working && (1..=5).contains(&weekday) && nearest(length)
            || (1..=31).any(|wanted| self.near >> wanted & 1 == 1 && wanted <= length && nearest(wanted))
    }
}

impl Weekdays {
    fn parse(text: &str) -> Result<Weekdays, String> {
        let mut days = Weekdays { any: is_any(text), every: 0, nth: [0; 7], last: [false; 7] };
        let what = "day of the week";
        for part in text.split(',') {
            let upper = part.to_ascii_uppercase();
            if let Some((day, nth)) = upper.split_once('#') {
                let day = number(day, what, 0, 7, &WEEKDAYS)? % 7;
                match nth {
                    "L" => days.last[day as usize] = true,
                    nth => days.nth[day as usize] |= 1 << number(nth, "1 to 5 after #", 1, 5, &[])?,
                }
            } else if upper == "L" {
                days.every |= 1 << 6;
            } else if let Some(day) = upper.strip_suffix('L') {
                days.last[(number(day, what, 0, 7, &WEEKDAYS)? % 7) as usize] = true;
            } else {
                let found = bits(part, what, 0, 7, &WEEKDAYS)?;
                // 7 is Sunday too.
                days.every |= found & 0x7f | found >> 7 & 1;
            }
        }
        Ok(days)
    }

    fn include(&self, year: i64, month: u32, date: u32, day: i64) -> bool {
        let weekday = weekday(day);
        let nth = (date - 1) / 7 + 1;
        self.every >> weekday & 1 == 1
            || self.nth[weekday as usize] >> nth & 1 == 1
            || self.last[weekday as usize] && date + 7 > month_length(year, month)
    }
}

fn is_any(text: &str) -> bool {
    matches!(text, "*" | "?")
}

/// The numbers of a field: lists of ranges with steps.
fn bits(text: &str, what: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    let mut found = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step, &format!("step of a {what}"), 1, high, &[])?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if is_any(range) => (low, high),
            Some((from, to)) => (number(from, what, low, high, names)?, number(to, what, low, high, names)?),
            None => {
                let one = number(range, what, low, high, names)?;
                (one, if step.is_some() { high } else { one })
            }
        };
        if from > to {
            return Err(format!("a {what} range that goes up, not {part:?}"));
        }
        found |= span(from, to, step.unwrap_or(1));
    }
    Ok(found)
}

fn span(from: u32, to: u32, step: u32) -> u64 {
    (from..=to).step_by(step as usize).fold(0, |bits, n| bits | 1 << n)
}

fn number(text: &str, what: &str, low: u32, high: u32, names: &[&str]) -> Result<u32, String> {
    let named = names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|at| at as u32 + low);
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = named.or_else(|| text.parse().ok().filter(|_| is_number));
    value
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| format!("a {what} from {low} to {high}, not {text:?}"))
}

/// 0 is Sunday; 1970-01-01 was a Thursday.
fn weekday(day: i64) -> u32 {
    (day + 4).rem_euclid(7) as u32
}

fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of the month of a day counted from 1970-01-01 (Howard Hinnant's civil_from_days).
pub fn civil(day: i64) -> (i64, u32, u32) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let date = (of_year - (153 * march + 2) / 5 + 1) as u32;
    let month = if march < 10 { march + 3 } else { march - 9 } as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, date)
}

/// The day, counted from 1970-01-01, of a date.
pub fn day_of(year: i64, month: u32, date: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let march = i64::from((month + 9) % 12);
    let of_year = (153 * march + 2) / 5 + i64::from(date) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        let day = day_of(number(0..4), number(5..7) as u32, number(8..10) as u32);
        day * 86_400 + number(11..13) * 3_600 + number(14..16) * 60 + number(17..19)
    }

    fn shown(time: i64) -> String {
        let text = crate::time::Wall(time as u64 * 1_000).to_string();
        text[..19].replace('T', " ")
    }

    #[test]
    fn the_next_time_of_a_pattern() {
        // The first of February 2023 was a Wednesday.
        for (pattern, after, expected) in [
            ("* * * * *", "2023-02-01 10:00:00", "2023-02-01 10:01:00"),
            ("* * * * * *", "2023-02-01 10:00:00", "2023-02-01 10:00:01"),
            ("*/5 * * * *", "2023-02-01 10:57:30", "2023-02-01 11:00:00"),
            ("7/20 * * * *", "2023-02-01 10:00:00", "2023-02-01 10:07:00"),
            ("30 10-12/2 * * *", "2023-02-01 10:30:00", "2023-02-01 12:30:00"),
            ("0 3 * * *", "2023-02-01 03:00:00", "2023-02-02 03:00:00"),
            ("59 59 23 31 DEC *", "2023-02-01 00:00:00", "2023-12-31 23:59:59"),
            ("0 0 29 2 *", "2023-02-01 00:00:00", "2024-02-29 00:00:00"),
            ("0 0 29 2 *", "2096-02-29 00:00:00", "2104-02-29 00:00:00"),
            ("0 0 L * *", "2023-02-01 00:00:00", "2023-02-28 00:00:00"),
            ("0 0 L,15 * ?", "2023-02-20 00:00:00", "2023-02-28 00:00:00"),
            // A Saturday, a Sunday, and the first of a month that is one.
            ("0 0 4W * *", "2023-02-01 00:00:00", "2023-02-03 00:00:00"),
            ("0 0 5W * *", "2023-02-01 00:00:00", "2023-02-06 00:00:00"),
            ("0 0 1W 4 *", "2023-02-01 00:00:00", "2023-04-03 00:00:00"),
            ("0 0 31W 12 *", "2023-02-01 00:00:00", "2023-12-29 00:00:00"),
            ("0 0 LW * *", "2023-04-01 00:00:00", "2023-04-28 00:00:00"),
            ("0 0 * * MON", "2023-02-01 00:00:00", "2023-02-06 00:00:00"),
            ("0 0 * * 7", "2023-02-01 00:00:00", "2023-02-05 00:00:00"),
            ("0 0 * * mon-fri", "2023-02-03 12:00:00", "2023-02-06 00:00:00"),
            ("0 0 * * 5#2", "2023-02-01 00:00:00", "2023-02-10 00:00:00"),
            ("0 0 * * 5L", "2023-02-01 00:00:00", "2023-02-24 00:00:00"),
            ("0 0 * * FRI#L", "2023-02-01 00:00:00", "2023-02-24 00:00:00"),
            // Both restricted: either.
            ("0 0 13 * 5", "2023-02-01 00:00:00", "2023-02-03 00:00:00"),
            ("0 0 2 * 5", "2023-02-01 00:00:00", "2023-02-02 00:00:00"),
            ("@daily", "2023-02-01 00:00:00", "2023-02-02 00:00:00"),
            ("@hourly", "2023-02-01 00:10:00", "2023-02-01 01:00:00"),
        ] {
            let cron = Cron::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(cron.next(at(after)).map(shown).as_deref(), Some(expected), "{pattern} after {after}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_what_was_expected() {
        for (pattern, expected) in [
            ("", "five fields, or six with the seconds first"),
            ("* * * *", "five fields, or six with the seconds first"),
            ("60 * * * *", "a minute from 0 to 59, not \"60\""),
            ("* 24 * * *", "a hour from 0 to 23, not \"24\""),
            ("* * 0 * *", "a day of the month from 1 to 31, not \"0\""),
            ("* * * FOO *", "a month from 1 to 12, not \"FOO\""),
            ("* * * * 8", "a day of the week from 0 to 7, not \"8\""),
            ("* * * * 5#6", "a 1 to 5 after # from 1 to 5, not \"6\""),
            ("5-1 * * * *", "a minute range that goes up, not \"5-1\""),
            ("*/0 * * * *", "a step of a minute from 1 to 59, not \"0\""),
            ("1, * * * *", "a minute from 0 to 59, not \"\""),
            ("+1 * * * *", "a minute from 0 to 59, not \"+1\""),
            ("0 0 30 2 *", "a day that exists"),
        ] {
            assert_eq!(Cron::parse(pattern), Err(expected.to_string()), "{pattern}");
        }
    }

    #[test]
    fn dates_lead_to_days_and_back() {
        for day in (-200_000..200_000).step_by(17) {
            let (year, month, date) = civil(day);
            assert_eq!(day_of(year, month, date), day);
        }
        assert_eq!((civil(0), civil(19_782)), ((1970, 1, 1), (2024, 2, 29)));
    }

    #[test]
    fn whatever_the_bytes_there_is_no_panic() {
        let mut seed = 7u64;
        let alphabet = b"0123456789*,-/?LW#@ MONJAN+";
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(seed >> 33) as usize % alphabet.len()] as char);
            }
            let _ = Cron::parse(&text);
        }
    }
}
