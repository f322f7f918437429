//! What a child reads from.

use serde::{Deserialize, Serialize};

/// What the standard input of an app is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    /// At its end.
    #[default]
    Null,
    /// A pipe that clients send lines to. It never ends.
    Pipe,
}

impl Stdin {
    /// As people write it.
    pub fn named(name: &str) -> Option<Stdin> {
        [Stdin::Null, Stdin::Pipe].into_iter().find(|stdin| stdin.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Stdin::Null => "null",
            Stdin::Pipe => "pipe",
        }
    }
}
