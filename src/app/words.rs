//! Lists of words in one string: split as a shell would, or written as a JavaScript array literal
//! (which pm2 0.x evaluated).

/// The words of `text`: an array literal when it stands in brackets, otherwise split at blanks
/// with quotes and backslashes honoured. The error says what is wrong with it.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    match text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => array(inner),
        None => split(text),
    }
}

/// One word for a shell: quoted when it must be.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(|| format!("a quote {c} is not closed"))? {
                        end if end == c => break,
                        '\\' if c == '"' => match chars.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => word.push('\\'),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The elements of an array literal, without its brackets: strings in any quotes, and plain
/// numbers and words of the language.
fn array(inner: &str) -> Result<Vec<String>, String> {
    let mut elements = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (element, after) = match rest.chars().next() {
            Some(c @ ('\'' | '"' | '`')) => string(&rest[1..], c)?,
            _ => {
                let end = rest.find(',').unwrap_or(rest.len());
                let bare = rest[..end].trim_end();
                let is_bare = bare.parse::<f64>().is_ok() || matches!(bare, "true" | "false");
                if !is_bare {
                    return Err(format!("{bare:?} is neither a quoted string nor a number"));
                }
                (bare.to_string(), &rest[end..])
            }
        };
        elements.push(element);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(format!("a comma is missing before {rest:?}")),
        }
    }
    Ok(elements)
}

/// A string literal after its opening quote, and what follows its closing one.
fn string(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(length @ ('x' | 'u')) => {
                    let digits = if length == 'x' { 2 } else { 4 };
                    let code: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    value.push(code.ok_or_else(|| format!("a bad escape \\{length}"))?);
                }
                Some(other) => value.push(other),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err(format!("a quote {quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        for (text, expected) in [
            ("", &[] as &[&str]),
            ("-a 23  --b", &["-a", "23", "--b"]),
            ("'one two' \"three four\"", &["one two", "three four"]),
            (r#"a\ b c"d"'e' "" x"#, &["a b", "cde", "", "x"]),
            (r#""say \"hi\" \n""#, &[r#"say "hi" \n"#]),
            (r"'a\b'", &[r"a\b"]),
            (r"end\", &[r"end\"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        assert_eq!(words("'open").unwrap_err(), "a quote ' is not closed");
    }

    #[test]
    fn a_javascript_array_is_read_and_not_evaluated() {
        for (text, expected) in [
            ("['--toto=heya coco', '-d', '1']", &["--toto=heya coco", "-d", "1"] as &[&str]),
            (r#" ["a", `b`, 'it\'s',] "#, &["a", "b", "it's"]),
            ("[1, -2.5, true]", &["1", "-2.5", "true"]),
            (r"['\x41\u00e9\n']", &["A\u{e9}\n"]),
            ("[]", &[]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        for (text, sentence) in [
            ("[process.exit()]", "\"process.exit()\" is neither a quoted string nor a number"),
            ("['a' 'b']", "a comma is missing before \"'b'\""),
            ("['a]", "a quote ' is not closed"),
            (r"['\u{41}']", r"a bad escape \u"),
            ("[,]", "\"\" is neither a quoted string nor a number"),
        ] {
            assert_eq!(words(text).unwrap_err(), sentence, "{text}");
        }
    }

    #[test]
    fn random_input_never_panics() {
        let pieces =
            ["[", "]", "'", "\"", "`", "\\", ",", " ", "é", "x", "u", "00", "\u{1f600}", "\n", "-1", "true"];
        let mut state = 7u64;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..9 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = words(&text);
            let _ = words(&format!("[{text}]"));
        }
    }

    #[test]
    fn a_quoted_word_is_one_word_again() {
        for word in ["plain", "", "two words", "it's", "$HOME", "a\"b", "--x=1"] {
            assert_eq!(split(&quote(word)).unwrap(), [word], "{word}");
        }
        assert_eq!(quote("--x=1"), "--x=1");
    }
}
