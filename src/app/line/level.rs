//! How grave a line is: by the level that the common loggers write, or else by a word near its beginning.

use super::fields;

/// From what matters least to what matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For who looks for a fault.
    Debug,
    /// What happens. A line of stdout that says nothing else.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong. A line of stderr that says nothing else.
    Error,
    /// What cannot go on.
    Fatal,
}

/// What loggers call them, in lower case.
const WORDS: [(&str, Level); 25] = [
    ("trace", Level::Trace),
    ("silly", Level::Trace),
    ("debug", Level::Debug),
    ("verbose", Level::Debug),
    ("dbg", Level::Debug),
    ("info", Level::Info),
    ("information", Level::Info),
    ("notice", Level::Info),
    ("log", Level::Info),
    ("http", Level::Info),
    ("warn", Level::Warn),
    ("warning", Level::Warn),
    ("wrn", Level::Warn),
    ("error", Level::Error),
    ("err", Level::Error),
    ("severe", Level::Error),
    ("fail", Level::Error),
    ("fatal", Level::Fatal),
    ("critical", Level::Fatal),
    ("crit", Level::Fatal),
    ("panic", Level::Fatal),
    ("dpanic", Level::Fatal),
    ("alert", Level::Fatal),
    ("emerg", Level::Fatal),
    ("emergency", Level::Fatal),
];
/// Where JSON has it.
const FIELDS: [&str; 6] = ["level", "severity", "lvl", "log.level", "levelname", "loglevel"];
/// So near to the beginning a word is a level.
const NEAR: usize = 96;

impl Level {
    /// By one of its names, whatever the case.
    pub fn named(word: &[u8]) -> Option<Level> {
        let found = WORDS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
        found.map(|(_, level)| *level)
    }

    /// pino's and bunyan's numbers (10 to 60); below that syslog's (0 to 7).
    fn numbered(number: u32) -> Level {
        match number {
            0..=2 => Level::Fatal,
            3 => Level::Error,
            4 => Level::Warn,
            5 | 6 => Level::Info,
            7..=9 => Level::Debug,
            10..=19 => Level::Trace,
            20..=29 => Level::Debug,
            30..=39 => Level::Info,
            40..=49 => Level::Warn,
            50..=59 => Level::Error,
            _ => Level::Fatal,
        }
    }

    /// What a line says of itself.
    pub fn of(line: &[u8]) -> Option<Level> {
        // A date may come first.
        let head = &line[..line.len().min(NEAR)];
        let brace = head.iter().position(|byte| *byte == b'{');
        if let Some(value) = brace.and_then(|at| fields::field(&line[at..], &FIELDS)) {
            let number = || std::str::from_utf8(value).ok()?.parse().ok().map(Level::numbered);
            return fields::text(value).map_or_else(number, Level::named);
        }
        // A text inside an object is no level that stands by itself.
        near(&head[..brace.unwrap_or(head.len())])
    }
}

/// A word that stands as levels do: in capitals, in brackets, before a colon, or after `level=`.
fn near(line: &[u8]) -> Option<Level> {
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            // Colours: up to their letter.
            0x1b => {
                let letter = line[at + 1..].iter().position(u8::is_ascii_alphabetic)?;
                at += letter + 2;
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let length = line[at..].iter().position(|byte| !is_word(byte)).unwrap_or(line.len() - at);
                let word = &line[at..at + length];
                let before = at.checked_sub(1).map(|at| line[at]);
                let after = line.get(at + length).copied();
                if let Some(level) = Level::named(word)
                    && stands_as_level(word, &line[..at], before, after)
                {
                    return Some(level);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

fn stands_as_level(word: &[u8], start: &[u8], before: Option<u8>, after: Option<u8>) -> bool {
    let is_field =
        [&b"level="[..], b"lvl=", b"severity=", b"level=\""].iter().any(|name| start.ends_with(name));
    let is_apart = before.is_none_or(|byte| b" \t[(<|:-m]".contains(&byte));
    let ends = after.is_none_or(|byte| b" \t])>|:-!,\x1b".contains(&byte));
    let is_capital = word.iter().all(u8::is_ascii_uppercase);
    let is_bracketed = matches!((before, after), (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')));
    let has_colon = after == Some(b':');
    is_field || (is_apart && ends && (is_capital || is_bracketed || has_colon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_the_common_loggers() {
        for (line, expected) in [
            (r#"{"level":30,"time":1700000000000,"pid":1,"msg":"error"}"#, Some(Level::Info)),
            (r#"{"level":50,"msg":"x"}"#, Some(Level::Error)),
            (r#"{"name":"bunyan","hostname":"h","pid":1,"level":40,"msg":"x","v":0}"#, Some(Level::Warn)),
            (r#"{"message":"INFO","level":"error","timestamp":"2026-01-01T00:00:00Z"}"#, Some(Level::Error)),
            (r#"{"level":"dpanic","ts":1700000000.5,"caller":"a.go:1"}"#, Some(Level::Fatal)),
            (r#"{"severity":"WARNING","message":"gcp"}"#, Some(Level::Warn)),
            (r#"{"version":"1.1","level":3}"#, Some(Level::Error)),
            (r#"2026-01-01T00:00:00: {"level":"debug"}"#, Some(Level::Debug)),
            (r#"{"level":"unheard"}"#, None),
            (r#"{"msg":"no level, ERROR in the text"}"#, None),
        ] {
            assert_eq!(Level::of(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn words_near_the_beginning_of_plain_lines() {
        for (line, expected) in [
            ("ERROR could not connect", Some(Level::Error)),
            ("2026-01-01 12:00:00,123 WARNING [main] x", Some(Level::Warn)),
            ("[2026-01-01T12:00:00Z INFO  app::x] hello", Some(Level::Info)),
            ("2026/01/01 12:00:00 [error] 12#0: *1 open() failed", Some(Level::Error)),
            ("\u{1b}[32mDEBUG\u{1b}[39m x", Some(Level::Debug)),
            ("error: no such file", Some(Level::Error)),
            ("Error: no such file", Some(Level::Error)),
            ("npm ERR! code 1", Some(Level::Error)),
            ("<crit> x", Some(Level::Fatal)),
            ("time=2026-01-01T12:00:00Z level=warning msg=x", Some(Level::Warn)),
            ("WARNING:root:x", Some(Level::Warn)),
            ("panic: runtime error", Some(Level::Fatal)),
            ("an error occurred", None),
            ("GET /ERROR/log HTTP/1.1", None),
            ("no_ERROR here", None),
            ("terrors: none", None),
            ("", None),
            ("\u{1b}", None),
        ] {
            assert_eq!(Level::of(line.as_bytes()), expected, "{line}");
        }
        let late = format!("{} ERROR", "x ".repeat(NEAR));
        assert_eq!(Level::of(late.as_bytes()), None, "far from the beginning");
        assert!(Level::Trace < Level::Debug && Level::Error < Level::Fatal);
        assert_eq!(Level::named(b"Warn"), Some(Level::Warn));
    }
}
