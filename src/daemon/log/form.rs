//! What lines become on their way to a file: one record each, whatever the pieces in which they come.

use serde::Serialize;

use super::LINE;
use crate::app::DateFormat;
use crate::sys::{clock, find};
use crate::time::{Local, Wall};

/// What goes before a record that goes on with a line of which a part is in the file already.
const CONTINUED: &[u8] = b"... ";

/// The clock of a piece of work: what it shows is looked up once a second.
#[derive(Debug, Default)]
pub struct Clock {
    /// Now.
    pub wall: Wall,
    second: u64,
    local: Local,
}

impl Clock {
    /// It is now this time.
    pub fn set(&mut self, wall: Wall) {
        self.wall = wall;
        let second = wall.0 / 1_000 + 1;
        if self.second != second {
            self.second = second;
            self.local = clock::local(wall);
        }
    }

    /// What it shows.
    pub fn local(&self) -> &Local {
        &self.local
    }
}

/// What a line becomes.
#[derive(Debug)]
pub struct Form {
    date: Option<DateFormat>,
    label: Option<Label>,
    /// What is the same for all records of a moment: before the line, and after it.
    moment: Option<u64>,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// What JSON says about each line.
#[derive(Debug)]
pub struct Label {
    /// `out` or `err`.
    pub kind: &'static str,
    /// The process.
    pub process: u32,
    /// Its app.
    pub name: String,
}

/// What comes after the message, with the names that pm2 gives it.
#[derive(Serialize)]
struct Rest<'a> {
    timestamp: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    process_id: u32,
    app_name: &'a str,
}

impl Form {
    /// With a date, or as JSON, which has one in any case.
    pub fn new(date: Option<&str>, label: Option<Label>) -> Form {
        let date = date.map(DateFormat::new);
        Form { date, label, moment: None, before: Vec::new(), after: Vec::new() }
    }

    /// Makes records of the lines in `input`, as many as are whole, and tells how much of it that is. `continued`: its
    /// first line goes on with one of which something is written, or, at the end, what is left of it does. What is too
    /// long for a record becomes several.
    pub fn write(&mut self, input: &[u8], continued: &mut bool, clock: &Clock, out: &mut Vec<u8>) -> usize {
        self.set(clock);
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match find::byte(b'\n', &rest[..rest.len().min(LINE + 1)]) {
                Some(end) => {
                    // Of a line that was written and then ended nothing is left to say.
                    if end > 0 || !*continued {
                        self.record(&rest[..end], *continued, out);
                    }
                    *continued = false;
                    at += end + 1;
                }
                None if rest.len() > LINE => {
                    self.record(&rest[..LINE], *continued, out);
                    *continued = true;
                    at += LINE;
                }
                None => return at,
            }
        }
    }

    /// Makes a record of what is no whole line.
    pub fn flush(&mut self, rest: &[u8], continued: &mut bool, clock: &Clock, out: &mut Vec<u8>) {
        self.set(clock);
        if !rest.is_empty() {
            self.record(rest, *continued, out);
            *continued = true;
        }
    }

    fn set(&mut self, clock: &Clock) {
        let has_millis = match &self.date {
            Some(date) => date.has_millis(),
            None => self.label.is_some(),
        };
        let moment = if has_millis { clock.wall.0 } else { clock.wall.0 / 1_000 };
        if self.moment == Some(moment) {
            return;
        }
        self.moment = Some(moment);
        self.before.clear();
        self.after.clear();
        let date = self.date.as_ref().map(|date| date.text(clock.local(), clock.wall.0));
        let Some(label) = &self.label else {
            if let Some(date) = date {
                self.before.extend_from_slice(date.as_bytes());
                self.before.extend_from_slice(b": ");
            }
            return self.after.push(b'\n');
        };
        let timestamp = date.unwrap_or_else(|| clock.wall.to_string());
        let rest = Rest {
            timestamp: &timestamp,
            kind: label.kind,
            process_id: label.process,
            app_name: &label.name,
        };
        self.before.extend_from_slice(b"{\"message\":");
        // Strings and a number: there is nothing in it that JSON cannot say. Without its first brace.
        let rest = serde_json::to_vec(&rest).unwrap_or_default();
        self.after.push(b',');
        self.after.extend_from_slice(rest.get(1..).unwrap_or_default());
        self.after.push(b'\n');
    }

    fn record(&self, line: &[u8], continued: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        if self.label.is_none() {
            if continued {
                out.extend_from_slice(CONTINUED);
            }
            out.extend_from_slice(line);
            return out.extend_from_slice(&self.after);
        }
        let message = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut *out, &*message);
        if continued {
            out.extend_from_slice(b",\"continued\":true");
        }
        out.extend_from_slice(&self.after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { kind: "err", process: 7, name: "a\"b".to_string() }
    }

    /// Writes `pieces` one after another, as a writer does, and what is left at the end.
    fn written(form: &mut Form, pieces: &[&[u8]]) -> String {
        let mut clock = Clock::default();
        clock.set(Wall(1_700_000_000_123));
        let (mut held, mut out, mut continued) = (Vec::new(), Vec::new(), false);
        for piece in pieces {
            held.extend_from_slice(piece);
            let done = form.write(&held, &mut continued, &clock, &mut out);
            held.drain(..done);
            assert!(held.len() <= LINE);
        }
        form.flush(&held, &mut continued, &clock, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_record_a_line_whatever_the_pieces() {
        let mut form = Form::new(Some("[t]"), None);
        for pieces in [
            &[&b"one\ntwo\n"[..], b"\nfour"][..],
            &[b"o", b"ne", b"\n", b"two\n\nfo", b"ur"],
            &[b"one\ntwo\n\nfour"],
        ] {
            assert_eq!(written(&mut form, pieces), "t: one\nt: two\nt: \nt: four\n");
        }
        let mut plain = Form::new(None, None);
        assert_eq!(written(&mut plain, &[b"a", b"b\nc\r\n"]), "ab\nc\r\n");
    }

    #[test]
    fn a_long_line_is_several_records_and_the_later_ones_say_so() {
        let mut form = Form::new(Some("[t]"), None);
        let long = vec![b'x'; LINE + 5];
        let whole = |n: usize| "x".repeat(n);
        let expected = format!("t: {}\nt: ... xxxxx\nt: end\n", whole(LINE));
        assert_eq!(written(&mut form, &[&long, b"\nend\n"]), expected);
        // One that fits just so is one.
        assert_eq!(written(&mut form, &[&long[..LINE], b"\nend\n"]), format!("t: {}\nt: end\n", whole(LINE)));
        let mut json = Form::new(None, Some(label()));
        let text = written(&mut json, &[&long, b"\n"]);
        let records: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((records.len(), &records[1]["message"]), (2, &"xxxxx".into()));
        assert_eq!(
            (&records[0]["continued"], &records[1]["continued"]),
            (&serde_json::Value::Null, &true.into())
        );
    }

    #[test]
    fn what_was_flushed_goes_on_or_ends_without_a_word() {
        let mut form = Form::new(None, None);
        let clock = Clock::default();
        let (mut out, mut continued) = (Vec::new(), false);
        form.flush(b"name? ", &mut continued, &clock, &mut out);
        assert!(continued);
        assert_eq!(form.write(b"\nnext\n", &mut continued, &clock, &mut out), 6);
        form.flush(b"name? ", &mut continued, &clock, &mut out);
        assert_eq!(form.write(b"joe\nx", &mut continued, &clock, &mut out), 4);
        assert_eq!(out, b"name? \nnext\nname? \n... joe\n");
    }

    #[test]
    fn json_has_pm2s_fields_and_the_line_as_it_was() {
        let mut form = Form::new(None, Some(label()));
        let text = written(&mut form, &[b"caf\xc3\xa9 \xff\x1b[31m \0\r\n\nlast"]);
        let records: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<&str> = records.iter().map(|r| r["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["caf\u{e9} \u{fffd}\u{1b}[31m \0", "", "last"]);
        for record in &records {
            assert_eq!((&record["type"], &record["app_name"]), (&"err".into(), &"a\"b".into()));
            assert_eq!(
                (&record["process_id"], &record["timestamp"]),
                (&7.into(), &"2023-11-14T22:13:20.123Z".into())
            );
            assert_eq!(record.as_object().unwrap().len(), 5);
        }
        let mut dated = Form::new(Some("YYYY"), Some(label()));
        assert!(written(&mut dated, &[b"x\n"]).contains("\"timestamp\":\"2023\""));
    }
}
