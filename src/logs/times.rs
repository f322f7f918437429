//! When the lines of one log were written, as far as they tell.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::line::{Stamp, fields};
use crate::app::{DateFormat, Format, Logs};
use crate::sys::clock;
use crate::time::Wall;

/// For so many seconds clocks are the same far ahead of UTC: no zone changes in between.
const QUARTER: i64 = 900;

/// Tells the times of the lines of one log.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// How pmx writes dates into it.
    date: Option<DateFormat>,
    is_json: bool,
    /// How far our clocks are ahead, and when.
    ahead: Cell<Option<(i64, i64)>>,
    /// Dates without a year are the last before this.
    near: i64,
}

impl Times {
    /// Of a log that is written so, read now.
    pub fn new(logs: &Logs, now: Wall) -> Times {
        let is_json = logs.format == Format::Json;
        let near = (now.0 / 1_000) as i64;
        Times { date: logs.date.as_deref().map(DateFormat::new), is_json, ahead: Cell::new(None), near }
    }

    /// From now on, of a file that was last written at this time.
    pub fn of_file(&mut self, written: Wall) {
        self.near = (written.0 / 1_000) as i64;
    }

    /// Whether its lines are objects of JSON by pmx.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// What a line says.
    pub fn of(&self, line: &[u8]) -> Option<Wall> {
        let stamp = self.by_format(line).or_else(|| Stamp::of(line, self.near))?;
        Some(self.wall(stamp))
    }

    /// The line without the date that pmx put before it.
    pub fn without_date<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let date = self.date.as_ref().filter(|_| !self.is_json).and_then(|date| date.read(line));
        date.and_then(|(_, length)| line[length..].strip_prefix(b": ")).unwrap_or(line)
    }

    fn by_format(&self, line: &[u8]) -> Option<Stamp> {
        let date = self.date.as_ref()?;
        if !self.is_json {
            return date.read(line).map(|(stamp, _)| stamp);
        }
        let value = fields::field(line, &["timestamp"]).and_then(fields::text)?;
        date.read(value).map(|(stamp, _)| stamp)
    }

    /// The moment that is meant.
    pub fn wall(&self, stamp: Stamp) -> Wall {
        stamp.wall(|shown| match self.ahead.get() {
            Some((quarter, ahead)) if quarter == shown.div_euclid(QUARTER) => ahead,
            _ => {
                let ahead = clock::ahead_when(shown);
                self.ahead.set(Some((shown.div_euclid(QUARTER), ahead)));
                ahead
            }
        })
    }
}

/// A time of a file.
pub fn of_system(time: SystemTime) -> Wall {
    Wall(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pmx_writes_is_understood_however_it_is_written() {
        let at = Wall(1_772_712_429_000);
        let text = |format: &str| DateFormat::new(format).text(&clock::local(at), at.0);
        let logs =
            |date: Option<&str>, format| Logs { date: date.map(String::from), format, ..Logs::default() };
        for format in ["YYYY-MM-DDTHH:mm:ss", "D.M.YYYY h:mm:ss a", "YYYY-MM-DD HH:mm:ss Z"] {
            let times = Times::new(&logs(Some(format), Format::Raw), Wall(0));
            let line = format!("{}: hello", text(format));
            assert_eq!(times.of(line.as_bytes()), Some(at), "{line}");
            assert_eq!(times.without_date(line.as_bytes()), b"hello");
            let times = Times::new(&logs(Some(format), Format::Json), Wall(0));
            let line = format!("{{\"message\":\"2020-01-01 00:00:00\",\"timestamp\":\"{}\"}}", text(format));
            assert_eq!(times.of(line.as_bytes()), Some(at), "{line}");
        }
        let times = Times::new(&logs(None, Format::Json), Wall(0));
        assert_eq!(times.of(b"{\"message\":\"x\",\"timestamp\":\"2026-03-05T12:07:09.000Z\"}"), Some(at));
        let times = Times::new(&logs(None, Format::Raw), at);
        assert_eq!(times.of(format!("{} x", text("YYYY-MM-DD HH:mm:ss")).as_bytes()), Some(at));
        assert_eq!(times.of(b"no date"), None);
    }
}
