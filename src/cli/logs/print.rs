//! How lines are printed.

use std::borrow::Cow;

use super::Source;
use crate::app::DateFormat;
use crate::app::line::fields;
use crate::cli::grid::columns_of;
use crate::cli::screen::{Color, Fail, Screen, escaped, escaped_json};
use crate::logs::Stream;
use crate::logs::times::Times;
use crate::sys::clock;
use crate::time::Wall;

/// pm2's date where none is given.
pub const DATE: &str = "YYYY-MM-DD-HH:mm:ss";

/// What is printed of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Whose it is, and the line made safe for a terminal.
    #[default]
    Usual,
    /// The line as it is, on the stream that it came from.
    Raw,
    /// One object a line, with pm2's names.
    Json,
    /// The same as `name=value`.
    Fields,
}

/// Prints lines.
pub struct Printer<'a, 's> {
    pub screen: &'a mut Screen<'s>,
    pub form: Form,
    pub width: usize,
    /// The time before each line.
    pub date: Option<DateFormat>,
    /// What is made to stand out.
    pub highlight: Option<String>,
}

impl Printer<'_, '_> {
    /// Whether the times of lines are printed.
    pub fn is_timed(&self) -> bool {
        self.date.is_some() || matches!(self.form, Form::Json | Form::Fields)
    }

    /// Prints a line that was written at this time.
    pub fn print(&mut self, source: &Source, times: &Times, line: &[u8], at: Wall) -> Result<(), Fail> {
        match self.form {
            Form::Raw if source.stream != Stream::Err => {
                self.screen.data(line)?;
                self.screen.data(b"\n")
            }
            Form::Raw => {
                // In order with what went to stdout before it.
                self.screen.flush()?;
                let _ = self.screen.err.write_all(&[line, b"\n"].concat());
                Ok(())
            }
            Form::Json => self.json(source, times, line, at),
            Form::Fields => self.fields(source, times, line, at),
            Form::Usual => self.usual(source, line, at),
        }
    }

    fn usual(&mut self, source: &Source, line: &[u8], at: Wall) -> Result<(), Fail> {
        let color = match source.stream {
            Stream::Out => Color::Green,
            Stream::Err => Color::Red,
            Stream::Daemon => Color::Blue,
        };
        let blanks = " ".repeat(self.width.saturating_sub(columns_of(&source.label)));
        let prefix = self.screen.paint(color, &format!("{}{blanks} |", source.label));
        let date =
            self.date.as_ref().map(|date| date.text(&clock::local(at), at.0) + ": ").unwrap_or_default();
        let text = escaped(&String::from_utf8_lossy(line));
        let text = match self.highlight.as_ref().filter(|_| self.screen.color) {
            Some(word) => text.replace(word.as_str(), &format!("\x1b[7m{word}\x1b[27m")),
            None => text,
        };
        self.screen.data(format!("{prefix} {}{text}\n", escaped(&date)).as_bytes())
    }

    fn json(&mut self, source: &Source, times: &Times, line: &[u8], at: Wall) -> Result<(), Fail> {
        // It is that already.
        if times.is_json()
            && fields::field(line, &["message"]).is_some()
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
            && let Ok(line) = std::str::from_utf8(line)
        {
            return self.screen.data(format!("{}\n", escaped_json(line)).as_bytes());
        }
        let message = String::from_utf8_lossy(times.without_date(line));
        let record = serde_json::json!({
            "message": message,
            "timestamp": self.shown(at, None),
            "type": kind(source.stream),
            "process_id": source.id,
            "app_name": source.name,
        });
        self.screen.data(format!("{}\n", escaped_json(&record.to_string())).as_bytes())
    }

    fn fields(&mut self, source: &Source, times: &Times, line: &[u8], at: Wall) -> Result<(), Fail> {
        let record = times.is_json().then(|| fields::field(line, &["message"])).flatten();
        let message = match record.and_then(|value| serde_json::from_slice::<String>(value).ok()) {
            Some(message) => Cow::Owned(message),
            None => String::from_utf8_lossy(times.without_date(line)),
        };
        let kind = if source.stream == Stream::Err { "error" } else { kind(source.stream) };
        let text = format!(
            "timestamp={} app={} id={} type={kind} message={}\n",
            escaped(&self.shown(at, Some("YYYY-MM-DD-HH:mm:ssZ"))),
            escaped(&source.name),
            source.id.map_or_else(String::new, |id| id.to_string()),
            escaped(&message)
        );
        self.screen.data(text.as_bytes())
    }

    /// A time as it was asked for, or else in this format, or else in ISO 8601.
    fn shown(&self, at: Wall, usual: Option<&str>) -> String {
        let usual = usual.map(DateFormat::new);
        match self.date.as_ref().or(usual.as_ref()) {
            Some(date) => date.text(&clock::local(at), at.0),
            None => at.to_string(),
        }
    }
}

/// pm2's word for it.
fn kind(stream: Stream) -> &'static str {
    match stream {
        Stream::Out => "out",
        Stream::Err => "err",
        Stream::Daemon => "PM2",
    }
}
