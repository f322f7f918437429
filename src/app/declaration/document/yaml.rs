//! YAML 1.2 with its core schema, and merge keys (`<<`), which are older than that and which people use.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::{DEPTH_LIMIT, Document, Fault, Trace};

/// So many values and characters may be had again by aliases in all: a few lines of them can stand for more
/// than there is memory.
const ALIASED_LIMIT: usize = 4 << 20;

/// Reads a text that holds one document.
pub fn read(text: &str) -> Result<Document, Fault> {
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { parser, trace: Trace::default(), anchors: BTreeMap::new(), aliased: 0 };
    let mut value = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break,
            (Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd, _) => {}
            (_, span) if value.is_some() => return Err(fault(span, "a second document")),
            (event, span) => {
                reader.trace.begin(span.start.line());
                value = Some(reader.value(event, span)?);
            }
        }
    }
    Ok(Document { value: value.unwrap_or_default(), lines: reader.trace.lines })
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    trace: Trace,
    anchors: BTreeMap<usize, Value>,
    /// What anchors and aliases have copied.
    aliased: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(found) => found.map_err(unreadable),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span) -> Result<Value, Fault> {
        if self.trace.depth >= DEPTH_LIMIT {
            return Err(fault(span, "values stand too deep within each other"));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(&text, style, tag.as_deref(), span)?),
            Event::SequenceStart(anchor, tag) => {
                known(tag.as_deref(), "seq", span)?;
                (anchor, self.sequence()?)
            }
            Event::MappingStart(anchor, tag) => {
                known(tag.as_deref(), "map", span)?;
                (anchor, self.mapping()?)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).ok_or_else(|| fault(span, "an alias of nothing"))?;
                let value = value.clone();
                return self.copied(&value, span).map(|()| value);
            }
            _ => return Err(fault(span, "expected a value")),
        };
        if anchor > 0 {
            self.copied(&value, span)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn copied(&mut self, value: &Value, span: Span) -> Result<(), Fault> {
        self.aliased += size(value);
        if self.aliased > ALIASED_LIMIT {
            Err(fault(span, "aliases that stand for too much"))
        } else {
            Ok(())
        }
    }

    fn sequence(&mut self) -> Result<Value, Fault> {
        let mut values = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(values));
            }
            let before = self.trace.enter(values.len(), span.start.line());
            values.push(self.value(event, span)?);
            self.trace.leave(before);
        }
    }

    fn mapping(&mut self) -> Result<Value, Fault> {
        let mut map = Map::new();
        let mut merged = Map::new();
        loop {
            let (name, style, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(name, style, ..), span) => (name, style, span),
                (_, span) => return Err(fault(span, "a name that is no text")),
            };
            if map.contains_key(&*name) {
                return Err(fault(span, &format!("{name} stands there twice")));
            }
            let (event, at) = self.next()?;
            let before = self.trace.enter(&name, span.start.line());
            let value = self.value(event, at)?;
            self.trace.leave(before);
            if name == "<<" && style == ScalarStyle::Plain {
                merge(&mut merged, value, at)?;
            } else {
                map.insert(name.into_owned(), value);
            }
        }
        // What stands there itself wins.
        for (name, value) in merged {
            map.entry(name).or_insert(value);
        }
        Ok(Value::Object(map))
    }
}

/// A mapping, or several of which the first wins.
fn merge(into: &mut Map<String, Value>, value: Value, span: Span) -> Result<(), Fault> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    for value in values {
        let Value::Object(map) = value else { return Err(fault(span, "<< wants a mapping")) };
        for (name, value) in map {
            into.entry(name).or_insert(value);
        }
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Fault> {
    let resolved = match tag {
        None if style != ScalarStyle::Plain => return Ok(text.into()),
        None => plain(text),
        Some(tag) if is_core(tag, "str") || is_plain_string(tag) => return Ok(text.into()),
        Some(tag) if ["null", "bool", "int", "float"].iter().any(|kind| is_core(tag, kind)) => plain(text),
        Some(tag) => return Err(unknown(tag, span)),
    };
    resolved.ok_or_else(|| fault(span, &format!("{text} is no value here")))
}

/// `!`: no tag at all, but that of a string.
fn is_plain_string(tag: &Tag) -> bool {
    tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty()
}

fn is_core(tag: &Tag, kind: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == kind
}

fn known(tag: Option<&Tag>, kind: &str, span: Span) -> Result<(), Fault> {
    match tag {
        Some(tag) if !is_core(tag, kind) => Err(unknown(tag, span)),
        _ => Ok(()),
    }
}

fn unknown(tag: &Tag, span: Span) -> Fault {
    fault(span, &format!("the tag {}{} is not known", tag.handle, tag.suffix))
}

/// What a plain word means by the core schema; `None`: a number that JSON does not have.
fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if [".inf", ".Inf", ".INF"].contains(&unsigned) || [".nan", ".NaN", ".NAN"].contains(&text) {
        return None;
    }
    let radix = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        let number = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
        number.map(Value::from)
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number);
    }
    let starts_as_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let may_be_number =
        unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !(starts_as_number && may_be_number) {
        return Some(text.into());
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = whole.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = whole.parse::<u64>() {
        return Some(number.into());
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Some(Value::Number(number)),
        None => Some(text.into()),
    }
}

/// How many values and characters a value is.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn fault(span: Span, what: &str) -> Fault {
    Fault { line: span.start.line(), column: span.start.col() + 1, what: what.to_string() }
}

fn unreadable(error: ScanError) -> Fault {
    let at = error.marker();
    Fault { line: at.line(), column: at.col() + 1, what: error.info().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_people_write() {
        let text = "
# a comment
apps:
  - name: web          # bare words
    script: 'it''s.js'
    args: [--port, \"8080\", -v]
    instances: 4
    env: &env
      DEBUG: yes
      RATIO: 0.5
      ZIP: \"0123\"
      EMPTY:
      LONG: |
        one
        two
  - <<: {watch: true, name: lost}
    name: api
    script: api.js
    max_memory_restart: 300M
    autorestart: false
    kill_timeout: 0x10
    cron_restart: 0 3 * * *
    env: *env
    env_production:
      <<: *env
      DEBUG: no
      VERSION: !!str 1.10
";
        let env = json!({"DEBUG": "yes", "RATIO": 0.5, "ZIP": "0123", "EMPTY": null, "LONG": "one\ntwo\n"});
        let mut over = env.clone();
        over["DEBUG"] = json!("no");
        over["VERSION"] = json!("1.10");
        let expected = json!({"apps": [
            {"name": "web", "script": "it's.js", "args": ["--port", "8080", "-v"], "instances": 4, "env": env},
            {"watch": true, "name": "api", "script": "api.js", "max_memory_restart": "300M", "autorestart": false,
             "kill_timeout": 16, "cron_restart": "0 3 * * *", "env": env, "env_production": over},
        ]});
        let document = read(text).unwrap();
        assert_eq!(document.value, expected);
        for (path, line) in [("/apps/0", 4), ("/apps/0/env/RATIO", 10), ("/apps/1/kill_timeout", 21)] {
            assert_eq!(document.line(path), Some(line), "{path}");
        }
    }

    #[test]
    fn plain_words_are_what_the_core_schema_says() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("no", json!("no")),
            ("1e3", json!(1000.0)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("010", json!(10)),
            ("0o10", json!(8)),
            ("1.2.3", json!("1.2.3")),
            ("1_000", json!("1_000")),
            ("12:30", json!("12:30")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-", json!([null])),
            ("---\n- 1\n...", json!([1])),
            ("%YAML 1.2\n---\na: 1", json!({"a": 1})),
            ("\u{feff}a: 1", json!({"a": 1})),
        ] {
            assert_eq!(read(text).map(|document| document.value), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn a_fault_says_where_it_shows() {
        for (text, line, what) in [
            ("a: 1\nb: [1, 2", 3, "expected ',' or ']'"),
            ("a: 1\na: 2", 2, "a stands there twice"),
            ("a: 1\n---\nb: 2", 3, "a second document"),
            ("? [x]\n: 1", 1, "a name that is no text"),
            ("a: .inf", 1, ".inf is no value here"),
            ("a: !run ls", 1, "the tag !run is not known"),
            ("a: *b", 1, ""),
            ("<<: 3", 1, "<< wants a mapping"),
            ("a:\n\t- 1", 2, ""),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.line == line && fault.what.contains(what), "{text}: {fault:?}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"- ".repeat(1_000)).unwrap_err().what.contains("too deep"));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for n in 1..30 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(read(&bomb).unwrap_err().what.contains("too much"));
    }
}
