//! Where output goes: lines for people and machines on stdout, diagnostics on stderr. A reader that
//! goes away (`pmx logs | head`) ends the command without an error.

use std::borrow::Cow;
use std::io::{self, Write};

/// Why a command ends early.
#[derive(Debug, PartialEq)]
pub enum Fail {
    /// One sentence, still to be printed.
    Sentence(String),
    /// One sentence, still to be printed, and an exit code of its own.
    Code(u8, String),
    /// It failed, and the reasons have been printed.
    Said,
    /// Nobody reads the output any more: not an error.
    Closed,
}

impl From<String> for Fail {
    fn from(sentence: String) -> Fail {
        Fail::Sentence(sentence)
    }
}

/// Colours, by the terminal's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Cyan = 36,
    Gray = 90,
}

/// The two streams and what they can show.
pub struct Screen<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// Columns of the terminal on stdout; `None`: it is none.
    pub width: Option<usize>,
    pub color: bool,
    pub silent: bool,
}

impl Screen<'_> {
    /// A line for people: what was done.
    pub fn line(&mut self, text: &str) -> Result<(), Fail> {
        if self.silent { Ok(()) } else { self.data(&[text.as_bytes(), b"\n"].concat()) }
    }

    /// What was asked for: it is printed even when silence is.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        closed(self.out.write_all(bytes))
    }

    /// A value for machines, on one line.
    pub fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) -> Result<(), Fail> {
        let mut text =
            serde_json::to_vec(value).map_err(|error| Fail::Sentence(format!("write JSON: {error}")))?;
        text.push(b'\n');
        self.data(&text)
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> Result<(), Fail> {
        closed(self.out.flush())
    }

    /// A line on stderr, after all that was printed so far. When nobody reads even that, there is
    /// nobody left to tell.
    pub fn complain(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{text}");
    }

    /// The text in a colour, where there are colours.
    pub fn paint(&self, color: Color, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[39m", color as u8) } else { text.to_string() }
    }
}

fn closed(result: io::Result<()>) -> Result<(), Fail> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Fail::Closed,
        _ => Fail::Sentence(format!("write the output: {}", crate::sys::reason(&error))),
    })
}

/// Text from elsewhere made safe for a terminal: control characters are written as `\x1b`, and those that turn the
/// direction of text as `\u{202e}`.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            safe.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else if turns(c) {
            safe.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether a character changes the order in which others are shown.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON made safe for a terminal: it says the same. (What is left of control characters stands in strings.)
pub fn escaped_json(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| (c.is_control() && c != '\t') || turns(c);
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escaped("a\tb\x1b[2Jc\u{9b}d\u{7f}\r"), "a\tb\\x1b[2Jc\\x9bd\\x7f\\x0d");
        assert_eq!(escaped("plain é ✓"), "plain é ✓");
        assert_eq!(escaped("a\u{202e}b"), "a\\u{202e}b");
        let json = serde_json::to_string("a\t\u{1b}\u{9b}\u{7f}\u{202e}é").unwrap();
        let safe = escaped_json(&json);
        assert_eq!(safe, r#""a\t\u001b\u009b\u007f\u202eé""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), "a\t\u{1b}\u{9b}\u{7f}\u{202e}é");
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_errors() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut err = Vec::new();
        let mut screen = Screen { out: &mut writer, err: &mut err, width: None, color: false, silent: false };
        assert_eq!(screen.line("x"), Err(Fail::Closed));
        screen.silent = true;
        assert_eq!(screen.line("x"), Ok(()));
        assert_eq!(screen.data(b"x"), Err(Fail::Closed));
    }
}
