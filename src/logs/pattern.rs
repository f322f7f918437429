//! What `--grep` looks for. A text that each match must hold is looked for in whole blocks, and only the lines that
//! have it are looked at more closely.

use crate::sys::find;

/// What is looked for.
pub struct Pattern {
    /// In lower case where the case does not matter. `None`: there is no text that every match holds.
    needle: Option<Vec<u8>>,
    /// The case of ASCII letters does not matter.
    pub folds: bool,
    #[cfg(feature = "regex")]
    regex: Option<regex_lite::Regex>,
}

impl Pattern {
    /// Text as it is.
    pub fn fixed(text: &str, folds: bool) -> Pattern {
        let needle = if folds { text.to_ascii_lowercase() } else { text.to_string() };
        Pattern {
            needle: Some(needle.into_bytes()),
            folds,
            #[cfg(feature = "regex")]
            regex: None,
        }
    }

    /// A regular expression; where pmx was built without them it is text as well.
    #[cfg(feature = "regex")]
    pub fn new(text: &str, folds: bool) -> Result<Pattern, String> {
        if regex_lite::escape(text) == text {
            return Ok(Pattern::fixed(text, folds));
        }
        let mut builder = regex_lite::RegexBuilder::new(text);
        let regex = builder.case_insensitive(folds).build().map_err(|error| error.to_string())?;
        let needle = required(text).map(|text| if folds { text.to_ascii_lowercase() } else { text });
        Ok(Pattern { needle: needle.map(String::into_bytes), folds, regex: Some(regex) })
    }

    /// The same.
    #[cfg(not(feature = "regex"))]
    pub fn new(text: &str, folds: bool) -> Result<Pattern, String> {
        Ok(Pattern::fixed(text, folds))
    }

    /// Whether one line matches.
    pub fn matches(&self, line: &[u8]) -> bool {
        let has_needle = match &self.needle {
            Some(needle) if self.folds => find::text(needle, &line.to_ascii_lowercase()).is_some(),
            Some(needle) => find::text(needle, line).is_some(),
            None => true,
        };
        has_needle && self.confirms(line)
    }

    /// Where the first line begins and ends that matches. The text is whole lines; where the case does not matter
    /// `folded` is the same in lower case.
    pub fn find(&self, text: &[u8], folded: &[u8]) -> Option<(usize, usize)> {
        let mut at = 0;
        while at < text.len() {
            let hit = match &self.needle {
                Some(needle) => {
                    at + find::text(needle, if self.folds { &folded[at..] } else { &text[at..] })?
                }
                None => at,
            };
            let begin = find::last(b'\n', &text[at..hit]).map_or(at, |newline| at + newline + 1);
            let end = find::byte(b'\n', &text[hit..]).map_or(text.len(), |newline| hit + newline);
            if begin < text.len() && self.confirms(&text[begin..end]) {
                return Some((begin, end));
            }
            at = end + 1;
        }
        None
    }

    #[cfg(feature = "regex")]
    fn confirms(&self, line: &[u8]) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(&String::from_utf8_lossy(line)))
    }

    #[cfg(not(feature = "regex"))]
    fn confirms(&self, _: &[u8]) -> bool {
        true
    }
}

/// The longest text that each match of a regular expression holds. Where that is not plain to see there is none.
#[cfg(feature = "regex")]
fn required(pattern: &str) -> Option<String> {
    // Flags may change what a letter means, and either side of a choice is enough.
    if pattern.contains("(?") || pattern.contains('|') {
        return None;
    }
    let (mut longest, mut run) = (String::new(), String::new());
    let end = |run: &mut String, longest: &mut String| {
        if run.len() > longest.len() {
            longest.clone_from(run);
        }
        run.clear();
    };
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let literal = match c {
            '\\' => match rest.next()? {
                '<' | '>' => None,
                escaped if escaped.is_ascii_punctuation() => Some(escaped),
                // Of these the braces are not text either.
                'x' | 'u' | 'U' | 'b' | 'p' | 'P' if rest.peek() == Some(&'{') => return None,
                'x' | 'u' | 'U' => return None,
                _ => None,
            },
            '[' => {
                skip_class(&mut rest)?;
                None
            }
            '(' => {
                // What is in a group may be optional as a whole.
                skip_group(&mut rest)?;
                None
            }
            '.' | '^' | '$' | ')' => None,
            c => Some(c),
        };
        let mut is_optional = false;
        let mut repeats = false;
        while let Some(quantifier) = rest.next_if(|c| "?*+{".contains(*c)) {
            repeats = true;
            is_optional |= quantifier != '+';
            if quantifier == '{' {
                rest.by_ref().find(|c| *c == '}')?;
            }
        }
        match literal {
            Some(c) if !is_optional => {
                run.push(c);
                if repeats {
                    end(&mut run, &mut longest);
                }
            }
            _ => end(&mut run, &mut longest),
        }
    }
    end(&mut run, &mut longest);
    Some(longest).filter(|longest| !longest.is_empty())
}

#[cfg(feature = "regex")]
type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

#[cfg(feature = "regex")]
fn skip_class(rest: &mut Rest<'_>) -> Option<()> {
    rest.next_if_eq(&'^');
    rest.next_if_eq(&']');
    let mut depth = 1;
    while depth > 0 {
        match rest.next()? {
            '\\' => {
                rest.next()?;
            }
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
    Some(())
}

#[cfg(feature = "regex")]
fn skip_group(rest: &mut Rest<'_>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match rest.next()? {
            '\\' => {
                rest.next()?;
            }
            '[' => skip_class(rest)?,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines that match, by way of blocks.
    fn found(pattern: &Pattern, text: &[u8]) -> Vec<Vec<u8>> {
        let folded = text.to_ascii_lowercase();
        let (mut at, mut lines) = (0, Vec::new());
        while let Some((begin, end)) = pattern.find(&text[at..], &folded[at..]) {
            lines.push(text[at + begin..at + end].to_vec());
            at = (at + end + 1).min(text.len());
        }
        lines
    }

    #[cfg(feature = "regex")]
    #[test]
    fn blocks_find_what_a_look_at_each_line_finds() {
        let mut seed = 9u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let pieces = [
            "a",
            "b",
            "ab",
            "B",
            ".",
            "\\.",
            "a*",
            "b+",
            "a?",
            "[ab]",
            "[^a]",
            "(ab)",
            "(ab)?",
            "b{2}",
            "a{0,1}",
            "^",
            "$",
            "|",
            "\\w",
            "\\d",
            "(?i)",
            "\\n",
            "\\x61",
            "[[:alpha:]]",
            "\\bab",
            "ab+?",
            "(a|b)",
        ];
        let letters = b"abAB.1 \n\n\xff";
        let mut tried = 0;
        for _ in 0..4_000 {
            let pattern: String = (0..1 + random(4)).map(|_| pieces[random(pieces.len())]).collect();
            let text: Vec<u8> = (0..random(60)).map(|_| letters[random(letters.len())]).collect();
            for folds in [false, true] {
                let Ok(ours) = Pattern::new(&pattern, folds) else { continue };
                let naive = regex_lite::RegexBuilder::new(&pattern).case_insensitive(folds).build().unwrap();
                let lines = text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n');
                let lines = lines.filter(|_| !text.is_empty());
                let expected: Vec<Vec<u8>> = lines
                    .filter(|line| naive.is_match(&String::from_utf8_lossy(line)))
                    .map(<[u8]>::to_vec)
                    .collect();
                assert_eq!(
                    found(&ours, &text),
                    expected,
                    "{pattern:?} {folds} {:?}",
                    String::from_utf8_lossy(&text)
                );
                assert!(expected.iter().all(|line| ours.matches(line)));
                tried += 1;
            }
        }
        assert!(tried > 4_000, "{tried}");
    }

    #[cfg(feature = "regex")]
    #[test]
    fn the_text_that_a_match_must_hold() {
        for (pattern, expected) in [
            ("error", Some("error")),
            ("timeout after \\d+ms", Some("timeout after ")),
            ("^GET /api/.* 50[0-9]$", Some("GET /api/")),
            ("colou?r", Some("colo")),
            ("ab*c", Some("a")),
            ("ab+c", Some("ab")),
            ("a\\.b", Some("a.b")),
            ("(abc)?de", Some("de")),
            ("[(]x", Some("x")),
            ("a|b", None),
            ("(?i)abc", None),
            ("\\d+", None),
            ("\\x{61}bc", None),
            ("a{0}bc{2}", Some("b")),
            ("", None),
        ] {
            assert_eq!(required(pattern).as_deref(), expected, "{pattern}");
        }
        assert!(Pattern::new("(", false).is_err());
    }

    #[test]
    fn text_is_found_as_it_is() {
        let text = b"one a.b\ntwo axb\nthree A.B\n\nlast a.b";
        let of = |pattern: &Pattern| {
            let lines = found(pattern, text).into_iter();
            lines.map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(&Pattern::fixed("a.b", false)), ["one a.b", "last a.b"]);
        assert_eq!(of(&Pattern::fixed("A.b", true)), ["one a.b", "three A.B", "last a.b"]);
        assert_eq!(of(&Pattern::fixed("", false)).len(), 5);
        assert!(
            Pattern::fixed("A.b", true).matches(b"xa.B") && !Pattern::fixed("A.b", false).matches(b"xa.B")
        );
    }
}
