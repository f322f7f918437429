//! Files of variables: `NAME=value` a line, as the many programs that read `.env` files agree on it. Nothing
//! is expanded: a `$` is a `$`.

use super::Env;

/// Reads such a file. The error says on which line, and what is wrong there.
pub fn read(text: &str) -> Result<Env, (usize, String)> {
    let mut env = Env::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut rest = text.as_str();
    let mut line = 1;
    while !rest.is_empty() {
        let (statement, _) = rest.split_once('\n').unwrap_or((rest, ""));
        let content = statement.trim();
        let content = content.strip_prefix("export ").map_or(content, str::trim_start);
        if content.is_empty() || content.starts_with('#') {
            rest = after(rest, statement.len());
            line += 1;
            continue;
        }
        let Some((name, _)) = content.split_once('=') else {
            return Err((line, "expected NAME=value".to_string()));
        };
        let name = name.trim_end();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
            return Err((line, format!("{name:?} cannot be the name of a variable")));
        }
        let at = statement.find('=').map_or(0, |at| at + 1);
        let (value, length) = value(&rest[at..]).map_err(|what| (line, format!("{name}: {what}")))?;
        if value.contains('\0') {
            return Err((line, format!("{name} cannot hold a NUL character")));
        }
        line += rest[..at + length].matches('\n').count() + 1;
        rest = after(rest, at + length);
        env.set(name, value);
    }
    Ok(env)
}

/// What follows a statement of this length and the end of its line.
fn after(text: &str, length: usize) -> &str {
    text.get(length + 1..).unwrap_or("")
}

/// The value at the beginning of `text`, and how long its spelling is, up to the end of its line.
fn value(text: &str) -> Result<(String, usize), String> {
    let blank = text.len() - text.trim_start_matches([' ', '\t']).len();
    let spelled = &text[blank..];
    let Some(quote) = spelled.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else {
        let line = text.split('\n').next().unwrap_or("");
        // A # begins a comment where a blank stands before it.
        let comment = line.char_indices().find(|&(at, c)| c == '#' && line[..at].ends_with([' ', '\t']));
        let value = comment.map_or(line, |(at, _)| &line[..at]);
        return Ok((value.trim().to_string(), line.len()));
    };
    let mut value = String::new();
    let mut chars = spelled.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                let tail = spelled[at + 1..].split('\n').next().unwrap_or("");
                let comment = tail.trim();
                if !comment.is_empty() && !comment.starts_with('#') {
                    return Err(format!("{comment:?} stands after the quote"));
                }
                return Ok((value, blank + at + 1 + tail.len()));
            }
            '\\' if quote == '"' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\' | '$')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err(format!("a quote {quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_such_files_hold() {
        let text = "\u{feff}# a comment\r\n\nA=1\nexport B = two words  # told\n C='it is # $A' # x\n\
            D=\"a\\n\\\"b\\\"\\\\ \\x\"\nE=\nF=a#b=c\nPEM=\"-----\nline\n-----\"\nG=`x\"'`\nA=last";
        let env = read(text).unwrap();
        let found: Vec<_> =
            env.0.iter().map(|(name, value)| format!("{}={}", name.lossy(), value.lossy())).collect();
        let expected = [
            "A=last",
            "B=two words",
            "C=it is # $A",
            "D=a\n\"b\"\\ \\x",
            "E=",
            "F=a#b=c",
            "G=x\"'",
            "PEM=-----\nline\n-----",
        ];
        assert_eq!(found, expected);
        assert_eq!(read(""), Ok(Env::default()));
    }

    #[test]
    fn a_fault_says_on_which_line() {
        for (text, line, what) in [
            ("A=1\nnothing", 2, "expected NAME=value"),
            ("=x", 1, "\"\" cannot be the name of a variable"),
            ("A B=x", 1, "\"A B\" cannot be the name of a variable"),
            ("A=\"x\ny\"\nB='x\n", 3, "B: a quote ' is not closed"),
            ("A='x' y", 1, "A: \"y\" stands after the quote"),
            ("A=\"x\\", 1, "A: a quote \" is not closed"),
            ("\n\nA=x\0", 3, "A cannot hold a NUL character"),
        ] {
            assert_eq!(read(text), Err((line, what.to_string())), "{text:?}");
        }
    }

    #[test]
    fn random_text_never_panics() {
        let mut state = 7u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let parts = ["A", "=", "\"", "'", "`", "\\", "\n", "\r\n", " ", "#", "é", "\0", "export ", "n"];
        for _ in 0..10_000 {
            let text: String = (0..random(20)).map(|_| parts[random(parts.len())]).collect();
            let _ = read(&text);
        }
    }
}
