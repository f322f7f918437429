//! A declaration as a document: its value, and the lines on which its parts stand.

mod json;
#[cfg(feature = "yaml")]
mod yaml;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Values may stand this deep within each other.
const DEPTH_LIMIT: usize = 128;
/// Lines are known down to this depth: `/apps/0/env/NAME`.
const LINES_DEPTH: usize = 4;

/// What a file says, whatever it is written in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// All of it.
    pub value: Value,
    lines: Lines,
}

impl Document {
    /// A value that was computed: nobody knows where its parts stand.
    pub fn computed(value: Value) -> Document {
        Document { value, lines: Lines::default() }
    }

    /// Reads JSON, with what JSON5 allows besides: comments, bare names, single quotes, commas at the end.
    pub fn json(text: &str) -> Result<Document, Fault> {
        json::read(text)
    }

    /// Reads YAML.
    #[cfg(feature = "yaml")]
    pub fn yaml(text: &str) -> Result<Document, Fault> {
        yaml::read(text)
    }

    /// The line of what stands at `path` (`/apps/0/script`), or else of what is around it.
    pub fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            match self.lines.0.get(path) {
                Some(line) => return Some(*line),
                None => path = &path[..path.rfind('/')?],
            }
        }
    }
}

/// Why a text is no document, and where that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The character in it, from 1.
    pub column: usize,
    /// What is wrong there.
    pub what: String,
}

/// Follows the name of the file and a colon.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// Where the parts of a document stand, by their paths.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lines(BTreeMap<String, usize>);

/// The part that is being read.
#[derive(Default)]
struct Trace {
    path: String,
    depth: usize,
    lines: Lines,
}

impl Trace {
    /// Takes down where all of it begins.
    fn begin(&mut self, line: usize) {
        self.lines.0.insert(String::new(), line);
    }

    /// Goes into a part that begins on `line`. What it returns is given back to [`Trace::leave`].
    fn enter(&mut self, name: impl fmt::Display, line: usize) -> usize {
        let before = self.path.len();
        self.depth += 1;
        if self.depth <= LINES_DEPTH {
            self.path.push_str(&format!("/{name}"));
            self.lines.0.insert(self.path.clone(), line);
        }
        before
    }

    fn leave(&mut self, before: usize) {
        self.depth -= 1;
        self.path.truncate(before);
    }
}
