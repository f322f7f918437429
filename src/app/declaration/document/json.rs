//! JSON5, of which JSON is a part. What is beyond that (an expression, a template) is JavaScript's.

use serde_json::{Map, Number, Value};

use super::{DEPTH_LIMIT, Document, Fault, Trace};

/// Reads a text that holds one value.
pub fn read(text: &str) -> Result<Document, Fault> {
    let mut reader = Reader { text, at: 0, trace: Trace::default(), known: (0, 1) };
    reader.blanks()?;
    let line = reader.line();
    reader.trace.begin(line);
    let value = reader.value()?;
    reader.blanks()?;
    if reader.peek().is_some() {
        return Err(reader.fault("nothing more was expected"));
    }
    Ok(Document { value, lines: reader.trace.lines })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    trace: Trace,
    /// A place, and the line that it is on.
    known: (usize, usize),
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        self.fault_at(self.at, what)
    }

    fn fault_at(&self, at: usize, what: impl Into<String>) -> Fault {
        let before = &self.text[..at];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        Fault {
            line: before.matches('\n').count() + 1,
            column: before[line..].chars().count() + 1,
            what: what.into(),
        }
    }

    /// What a fault calls the next character.
    fn next_thing(&self) -> String {
        self.peek().map_or("the end".to_string(), |c| format!("{c:?}"))
    }

    /// Goes on to what is neither a blank nor a comment.
    fn blanks(&mut self) -> Result<(), Fault> {
        loop {
            self.take_while(|c| c.is_whitespace() || c == '\u{feff}');
            let rest = &self.text[self.at..];
            if rest.starts_with("//") {
                self.take_while(|c| !matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}'));
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| self.fault("a comment that has no end"))?;
                self.at += 2 + end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self) -> Result<Value, Fault> {
        self.blanks()?;
        match self.peek() {
            Some('{') => self.object(),
            Some('[') => self.array(),
            Some('"' | '\'') => Ok(Value::String(self.string()?)),
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            Some(c) if is_name(c) => self.word(),
            _ => Err(self.fault(format!("expected a value, got {}", self.next_thing()))),
        }
    }

    fn word(&mut self) -> Result<Value, Fault> {
        let begin = self.at;
        match self.take_while(is_name) {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            word => {
                let what = format!("expected a value, got {word:?}");
                Err(self.fault_at(begin, what))
            }
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let begin = self.at;
        let is_negative = self.peek() == Some('-');
        if matches!(self.peek(), Some('+' | '-')) {
            self.take();
        }
        let from = self.at;
        let mut last = ' ';
        while let Some(c) = self.peek() {
            let exponent = matches!(last, 'e' | 'E') && !self.text[from..].starts_with("0x");
            if !(is_name(c) || c == '.' || matches!(c, '+' | '-') && exponent) {
                break;
            }
            last = c;
            self.take();
        }
        let digits = &self.text[from..self.at];
        let sign = if is_negative { "-" } else { "" };
        let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
        let number: Option<Number> = match hex {
            Some(hex) => {
                let number = i64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-']));
                number.map(|number| if is_negative { -number } else { number }.into())
            }
            // JSON wants a digit on both sides of the point.
            None => {
                let (whole, exponent) = digits.split_at(digits.find(['e', 'E']).unwrap_or(digits.len()));
                let whole = match whole.split_once('.') {
                    Some(("", "")) => String::new(),
                    Some(("", part)) => format!("0.{part}"),
                    Some((whole, "")) => whole.to_string(),
                    _ => whole.to_string(),
                };
                serde_json::from_str(&format!("{sign}{whole}{exponent}")).ok()
            }
        };
        let spelled = &self.text[begin..self.at];
        number.map(Value::Number).ok_or_else(|| self.fault_at(begin, format!("{spelled:?} is no number")))
    }

    fn string(&mut self) -> Result<String, Fault> {
        let begin = self.at;
        let quote = self.take();
        let mut text = String::new();
        loop {
            match self.take() {
                None | Some('\n' | '\r') => return Err(self.fault_at(begin, "a string that has no end")),
                c if c == quote => return Ok(text),
                Some('\\') => text.extend(self.escaped()?),
                Some(c) => text.push(c),
            }
        }
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<Option<char>, Fault> {
        let begin = self.at - 1;
        let c = self.take().ok_or_else(|| self.fault_at(begin, "a string that has no end"))?;
        Ok(Some(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => self.hex(begin, 2).and_then(|code| self.character(begin, code))?,
            'u' => {
                let first = self.hex(begin, 4)?;
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex(begin, 4)?;
                    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    let low = low.ok_or_else(|| self.fault_at(begin, "half of a surrogate pair"))?;
                    self.character(begin, 0x10000 + ((first - 0xd800) << 10) + low)?
                } else {
                    self.character(begin, first)?
                }
            }
            '0' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => '\0',
            '0'..='9' => return Err(self.fault_at(begin, "an octal escape")),
            // The line goes on.
            '\r' => {
                self.take_if('\n');
                return Ok(None);
            }
            '\n' | '\u{2028}' | '\u{2029}' => return Ok(None),
            other => other,
        }))
    }

    fn hex(&mut self, begin: usize, digits: usize) -> Result<u32, Fault> {
        let spelled = self.text.get(self.at..self.at + digits);
        let spelled = spelled.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = spelled.and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += if code.is_some() { digits } else { 0 };
        code.ok_or_else(|| self.fault_at(begin, format!("an escape that needs {digits} hexadecimal digits")))
    }

    fn character(&self, begin: usize, code: u32) -> Result<char, Fault> {
        char::from_u32(code).ok_or_else(|| self.fault_at(begin, "half of a surrogate pair"))
    }

    fn array(&mut self) -> Result<Value, Fault> {
        self.open()?;
        let mut values = Vec::new();
        loop {
            self.blanks()?;
            if self.take_if(']') {
                return Ok(Value::Array(values));
            }
            let line = self.line();
            let before = self.trace.enter(values.len(), line);
            values.push(self.value()?);
            self.trace.leave(before);
            self.separator(']')?;
        }
    }

    fn object(&mut self) -> Result<Value, Fault> {
        self.open()?;
        let mut map = Map::new();
        loop {
            self.blanks()?;
            if self.take_if('}') {
                return Ok(Value::Object(map));
            }
            let line = self.line();
            let name = match self.peek() {
                Some('"' | '\'') => self.string()?,
                Some(c) if is_name(c) && !c.is_ascii_digit() => self.take_while(is_name).to_string(),
                _ => return Err(self.fault(format!("expected a name, got {}", self.next_thing()))),
            };
            self.blanks()?;
            if !self.take_if(':') {
                return Err(self.fault(format!("expected a colon after {name:?}, got {}", self.next_thing())));
            }
            let before = self.trace.enter(&name, line);
            // As in JavaScript the last one of a name counts.
            let value = self.value()?;
            map.insert(name, value);
            self.trace.leave(before);
            self.separator('}')?;
        }
    }

    /// Takes the bracket that begins an array or object.
    fn open(&mut self) -> Result<(), Fault> {
        if self.trace.depth >= DEPTH_LIMIT {
            return Err(self.fault("values stand too deep within each other"));
        }
        self.take();
        Ok(())
    }

    /// A comma, or the end that is left for the next look.
    fn separator(&mut self, end: char) -> Result<(), Fault> {
        self.blanks()?;
        if self.take_if(',') || self.peek() == Some(end) {
            return Ok(());
        }
        Err(self.fault(format!("expected a comma or {end:?}, got {}", self.next_thing())))
    }

    /// The present line.
    fn line(&mut self) -> usize {
        let (at, line) = self.known;
        self.known = (self.at, line + self.text[at..self.at].matches('\n').count());
        self.known.1
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_what_json5_allows_besides() {
        for (text, value) in [
            (
                r#"{"a": [1, -2.5e3, true, false, null, "x\n\u00e9\ud83d\ude00\/"]}"#,
                json!({"a": [1, -2500.0, true, false, null, "x\né😀/"]}),
            ),
            (
                "// one\n{ a: 'it\\'s', $b_1: \"\", /* two */ 'c d': [ , ].x }"
                    .replace("[ , ].x", "[1,],")
                    .as_str(),
                json!({"a": "it's", "$b_1": "", "c d": [1]}),
            ),
            ("[+1, .5, 5., 0x1F, -0x10, 1e2, 1.e2]", json!([1, 0.5, 5, 31, -16, 100.0, 100.0])),
            ("'a\\\nb\\x41\\0\\q'", json!("abA\0q")),
            ("\u{feff}\u{a0}[]//", json!([])),
            ("{a: 1, a: 2}", json!({"a": 2})),
            ("18446744073709551615", json!(u64::MAX)),
            ("{étage: 1, null: 2}", json!({"étage": 1, "null": 2})),
        ] {
            assert_eq!(read(text).map(|document| document.value), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_fault_says_where_it_shows() {
        for (text, fault) in [
            ("", "1:1: expected a value, got the end"),
            ("{\n  \"script\": }", "2:13: expected a value, got '}'"),
            ("{a: x}", "1:5: expected a value, got \"x\""),
            ("[1 2]", "1:4: expected a comma or ']', got '2'"),
            ("[,]", "1:2: expected a value, got ','"),
            ("{a: 1,, b: 2}", "1:7: expected a name, got ','"),
            ("{a 1}", "1:4: expected a colon after \"a\", got '1'"),
            ("{é: 010}", "1:5: \"010\" is no number"),
            ("-", "1:1: \"-\" is no number"),
            ("1.2.3", "1:1: \"1.2.3\" is no number"),
            ("0x", "1:1: \"0x\" is no number"),
            ("NaN", "1:1: expected a value, got \"NaN\""),
            ("-Infinity", "1:1: \"-Infinity\" is no number"),
            ("['a\nb']", "1:2: a string that has no end"),
            ("'\\u12'", "1:2: an escape that needs 4 hexadecimal digits"),
            ("'\\ud800x'", "1:2: half of a surrogate pair"),
            ("'\\ud800\\u0041'", "1:2: half of a surrogate pair"),
            ("'\\1'", "1:2: an octal escape"),
            ("[] /* ", "1:4: a comment that has no end"),
            ("[] []", "1:4: nothing more was expected"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), fault, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).unwrap_err().what.contains("too deep"));
    }

    #[test]
    fn what_serde_json_reads_is_read_the_same() {
        for text in [
            include_str!("../../../../examples/processes.json"),
            r#"{"a": {"b": {"c": [[[]], {"d": 1e-7}]}}, "e": "\b\f\r\t\\"}"#,
            "[0, -0, 1E+2, 123456789012345678901234567890]",
        ] {
            assert_eq!(read(text).unwrap().value, serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn every_part_knows_its_line() {
        let document =
            read("{\n // a comment\n apps: [\n  { script: 'a',\n    env: {\n A: 1 } },\n {}]}").unwrap();
        for (path, line) in [
            ("/apps", 3),
            ("/apps/0", 4),
            ("/apps/0/script", 4),
            ("/apps/0/env", 5),
            ("/apps/0/env/A", 6),
            ("/apps/0/nothing", 4),
            ("/apps/1", 7),
        ] {
            assert_eq!(document.line(path), Some(line), "{path}");
        }
        assert_eq!(document.line("/other"), Some(1));
        assert_eq!(Document::computed(json!({})).line("/apps/0"), None);
    }
}
