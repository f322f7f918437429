//! Fields of a line that is a JSON object, found without reading more of it than is needed.

/// The value of the first of these fields that the object has at its top, as it is written. `None`: it has none of
/// them before the line stops being JSON.
pub fn field<'a>(line: &'a [u8], names: &[&str]) -> Option<&'a [u8]> {
    let mut rest = trimmed(line).strip_prefix(b"{")?;
    loop {
        rest = trimmed(rest);
        let (name, after) = string(rest)?;
        let value = trimmed(trimmed(after).strip_prefix(b":")?);
        let end = value_end(value)?;
        if names.iter().any(|wanted| wanted.as_bytes() == name) {
            return Some(&value[..end]);
        }
        rest = trimmed(&value[end..]).strip_prefix(b",")?;
    }
}

/// What stands between the quotes of a value that is a string, its escapes as they are written.
pub fn text(value: &[u8]) -> Option<&[u8]> {
    string(value).map(|(text, _)| text)
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

/// A string and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += inner[at..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if inner[at] == b'"' {
            return Some((&inner[..at], &inner[at + 1..]));
        }
        at += 2;
        if at > inner.len() {
            return None;
        }
    }
}

/// Where a value ends.
fn value_end(value: &[u8]) -> Option<usize> {
    match value.first()? {
        b'"' => string(value).map(|(text, _)| text.len() + 2),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0usize, 0);
            while at < value.len() {
                match value[at] {
                    b'"' => at += string(&value[at..])?.0.len() + 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            None
        }
        _ => Some(value.iter().position(|byte| b",}] \t".contains(byte)).unwrap_or(value.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_object_itself_are_found_whatever_lies_between() {
        let line =
            br#" { "a":"x\"time\":1\\", "b":{"time":[1,{"c":"]"}]}, "n":-1.5e3 , "time" : 17 , "t":true}"#;
        for (names, expected) in [
            (&["time"][..], Some("17")),
            (&["t"], Some("true")),
            (&["n", "time"], Some("-1.5e3")),
            (&["b"], Some(r#"{"time":[1,{"c":"]"}]}"#)),
            (&["a"], Some(r#""x\"time\":1\\""#)),
            (&["c"], None),
        ] {
            assert_eq!(field(line, names), expected.map(str::as_bytes), "{names:?}");
        }
        assert_eq!(text(br#""a b" "#), Some(&b"a b"[..]));
        for bad in ["", "{", "x", "{}", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":\"\\", "{\"a\":[1", "{a:1}"]
        {
            assert_eq!(field(bad.as_bytes(), &["time"]), None, "{bad}");
        }
        assert_eq!(field(b"{\"time\":1", &["time"]), Some(&b"1"[..]), "cut short, and said before");
    }

    #[test]
    fn whatever_the_bytes_there_is_no_panic() {
        let mut seed = 7u64;
        for _ in 0..50_000 {
            let mut line = Vec::new();
            for _ in 0..24 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                line.push(b"{}[]\":,\\ a1t"[(seed >> 33) as usize % 12]);
            }
            let _ = field(&line, &["t"]);
            let _ = field(&[b"{", &line[..]].concat(), &["t"]);
        }
    }
}
