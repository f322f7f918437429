//! JSON as Node's `util.inspect` prints it, because pm2's `prettylist` and `slist` do.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

use super::grid::columns_of;

/// Columns of a line.
const BREAK: usize = 128;
/// The innermost levels that may share a line.
const COMPACT: usize = 3;
/// A shorter string is never split.
const SPLIT_LEAST: usize = 16;
/// Elements of an array that are shown, and UTF-16 units of a string.
const ELEMENTS: usize = 100;
const STRING: usize = 10_000;
/// Longer arrays are laid out in columns, of which there are at most so many.
const ROW: usize = 6;
const COLUMNS: usize = 15;

/// The value, of any depth, without a newline at its end.
pub fn inspect(value: &Value) -> String {
    Inspector::default().value(value, 0)
}

#[derive(Default)]
struct Inspector {
    indent: usize,
    /// The depth of the last object or array that was begun.
    deepest: usize,
}

impl Inspector {
    fn value(&mut self, value: &Value, depth: usize) -> String {
        match value {
            Value::Null => "null".to_string(),
            Value::Bool(is) => is.to_string(),
            Value::Number(number) => self::number(number),
            Value::String(text) => self.string(text),
            Value::Array(elements) if elements.is_empty() => "[]".to_string(),
            Value::Array(elements) => self.array(elements, depth),
            Value::Object(fields) if fields.is_empty() => "{}".to_string(),
            Value::Object(fields) => self.object(fields, depth),
        }
    }

    fn string(&self, text: &str) -> String {
        let units = text.encode_utf16().count();
        let (shown, more) = match units.saturating_sub(STRING) {
            0 => (text, String::new()),
            1 => (cut(text), "... 1 more character".to_string()),
            more => (cut(text), format!("... {more} more characters")),
        };
        let units = units.min(STRING);
        if units <= SPLIT_LEAST || units + self.indent + 4 <= BREAK {
            return quoted(shown) + &more;
        }
        let pieces: Vec<String> = shown.split_inclusive('\n').map(quoted).collect();
        pieces.join(&format!(" +\n{:indent$}", "", indent = self.indent + 2)) + &more
    }

    fn array(&mut self, elements: &[Value], depth: usize) -> String {
        self.deepest = depth;
        let mut entries: Vec<String> = Vec::new();
        for element in elements.iter().take(ELEMENTS) {
            entries.push(self.below(element, depth));
        }
        let shown = entries.len();
        let more = elements.len() - shown;
        if more > 0 {
            entries.push(format!("... {more} more item{}", if more > 1 { "s" } else { "" }));
        }
        let count = entries.len();
        if count > ROW {
            let numbers = elements.iter().take(count).all(Value::is_number);
            entries = self.in_columns(entries, shown, numbers);
        }
        self.joined(&entries, ['[', ']'], depth, entries.len() == count)
    }

    fn object(&mut self, fields: &Map<String, Value>, depth: usize) -> String {
        self.deepest = depth;
        let index = |key: &String| key.parse::<u32>().ok().filter(|n| n.to_string() == *key && *n < u32::MAX);
        let mut order: Vec<(&String, &Value)> = fields.iter().collect();
        // As JavaScript keeps them: numbers first, the rest as it came.
        order.sort_by_key(|(key, _)| index(key).unwrap_or(u32::MAX));
        let entry = |(key, value): (&String, &Value)| format!("{}: {}", name(key), self.below(value, depth));
        let entries: Vec<String> = order.into_iter().map(entry).collect();
        self.joined(&entries, ['{', '}'], depth, true)
    }

    fn below(&mut self, value: &Value, depth: usize) -> String {
        self.indent += 2;
        let text = self.value(value, depth + 1);
        self.indent -= 2;
        text
    }

    fn joined(&self, entries: &[String], brackets: [char; 2], depth: usize, may_share: bool) -> String {
        let [open, close] = brackets;
        if may_share && self.deepest - depth < COMPACT {
            let length: usize = entries.iter().map(|entry| entry.encode_utf16().count()).sum();
            let fits = length + 2 * entries.len() + self.indent + 1 + 10 <= BREAK;
            if fits && !entries.iter().any(|entry| entry.contains('\n')) {
                return format!("{open} {} {close}", entries.join(", "));
            }
        }
        let line = format!("\n{:indent$}", "", indent = self.indent);
        format!("{open}{line}  {}{line}{close}", entries.join(&format!(",{line}  ")))
    }

    /// The first `shown` entries in columns; what is behind them keeps its line.
    fn in_columns(&self, entries: Vec<String>, shown: usize, numbers: bool) -> Vec<String> {
        const SEPARATOR: usize = 2;
        let widths: Vec<usize> = entries[..shown].iter().map(|entry| columns_of(entry)).collect();
        let total: usize = widths.iter().map(|width| width + SEPARATOR).sum();
        let longest = widths.iter().copied().max().unwrap_or(0);
        let cell = longest + SEPARATOR;
        let alike = total as f64 / cell as f64 > 5.0 || longest <= 6;
        if cell * 3 + self.indent >= BREAK || !alike {
            return entries;
        }
        // A square, when a character is two and a half times as high as it is wide.
        let bias = (cell as f64 - total as f64 / entries.len() as f64).sqrt();
        let biased = (cell as f64 - 3.0 - bias).max(1.0);
        let square = ((2.5 * biased * shown as f64).sqrt() / biased).round() as usize;
        let columns = square.min((BREAK - self.indent) / cell).min(COMPACT * 4).min(COLUMNS);
        if columns <= 1 {
            return entries;
        }
        let column =
            |at: usize| widths.iter().skip(at).step_by(columns).max().map_or(0, |max| max + SEPARATOR);
        let columns: Vec<usize> = (0..columns).map(column).collect();
        let mut rows: Vec<String> = Vec::new();
        for (row, cells) in entries[..shown].chunks(columns.len()).enumerate() {
            let mut line = String::new();
            for (at, entry) in cells.iter().enumerate() {
                let is_last = at + 1 == cells.len();
                let text = if is_last { entry.clone() } else { format!("{entry}, ") };
                let mut room = columns[at] - widths[row * columns.len() + at] - SEPARATOR;
                if is_last && !numbers {
                    room = 0;
                }
                let _ = match numbers {
                    true => write!(line, "{:room$}{text}", ""),
                    false => write!(line, "{text}{:room$}", ""),
                };
            }
            rows.push(line);
        }
        rows.extend_from_slice(&entries[shown..]);
        rows
    }
}

/// The first [`STRING`] units.
fn cut(text: &str) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > STRING
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

fn name(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match key.chars().next() {
        _ if key == "__proto__" => "['__proto__']".to_string(),
        Some(first) if !first.is_ascii_digit() && key.chars().all(is_plain) => key.to_string(),
        _ => quoted(key),
    }
}

fn quoted(text: &str) -> String {
    let quote = match text.contains('\'') {
        true if !text.contains('"') => '"',
        true if !text.contains('`') && !text.contains("${") => '`',
        _ => '\'',
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        let _ = match c {
            '\'' if quote == '\'' => write!(out, "\\'"),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            '\r' => write!(out, "\\r"),
            '\u{8}' => write!(out, "\\b"),
            '\u{c}' => write!(out, "\\f"),
            c if c.is_control() => write!(out, "\\x{:02X}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out.push(quote);
    out
}

/// As JavaScript writes it.
fn number(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let value = number.as_f64().unwrap_or(0.0);
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_string();
    }
    if (1e-6..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use serde_json::json;

    #[test]
    fn what_fits_a_line_stands_on_one() {
        for (value, expected) in [
            (json!([]), "[]"),
            (json!({"a": 1, "b-c": null, "7": true}), "{ '7': true, a: 1, 'b-c': null }"),
            (json!(["it's", "a \"b\" c'", "\u{1b}\n"]), r#"[ "it's", `a "b" c'`, '\x1B\n' ]"#),
            (json!([-0.0, 0.5, 1e300, 1e-9]), "[ -0, 0.5, 1e+300, 1e-9 ]"),
        ] {
            assert_eq!(inspect(&value), expected);
        }
        let deep = json!({"a": {"b": {"c": {"d": 1}}}});
        assert_eq!(inspect(&deep), "{\n  a: { b: { c: { d: 1 } } }\n}");
    }

    /// The original decides: random values, all printed by one Node.
    #[test]
    fn node_prints_the_same() {
        let mut random = Random(7);
        let values: Vec<Value> = (0..600).map(|_| random.value(0)).collect();
        let script = "const out = JSON.parse(require('fs').readFileSync(0, 'utf8')).map(v => \
            require('util').inspect(v, {depth: null, breakLength: 128, compact: 3, colors: false})); \
            process.stdout.write(JSON.stringify(out))";
        let file = std::env::temp_dir().join(format!("pmx-inspect-{}", std::process::id()));
        std::fs::write(&file, serde_json::to_vec(&values).unwrap()).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let Ok(ran) = Command::new("node").args(["-e", script]).stdin(input).output() else {
            return println!("skipped: there is no node");
        };
        let theirs: Vec<String> = serde_json::from_slice(&ran.stdout).unwrap();
        for (value, theirs) in values.iter().zip(theirs) {
            assert_eq!(inspect(value), theirs, "{value}");
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn text(&mut self) -> String {
            let letters =
                ["a", "B", "7", "'", "\"", "`", "\n", "\\", " ", "é", "\u{7f}", "$", "{", "_", "word"];
            let length = [0, 1, 3, 8, 20, 60, 200][self.below(7) as usize];
            (0..length).map(|_| letters[self.below(letters.len() as u64) as usize]).collect()
        }

        fn value(&mut self, depth: u64) -> Value {
            let length = [0, 1, 2, 3, 5, 7, 9, 30, 120][self.below(if depth < 2 { 9 } else { 6 }) as usize];
            match self.below(if depth < 5 { 9 } else { 6 }) {
                0 => Value::Null,
                1 => json!(self.below(2) == 0),
                2 => json!(self.below(1_000_000)),
                3 => json!(self.below(1_000_000) as f64 / 128.0 - 999.0),
                4 | 5 => json!(self.text()),
                6 => (0..length).map(|n| json!(n * length)).collect(),
                7 => (0..length).map(|_| self.value(depth + 1)).collect(),
                _ => {
                    Value::Object((0..length.min(12)).map(|_| (self.text(), self.value(depth + 1))).collect())
                }
            }
        }
    }
}
