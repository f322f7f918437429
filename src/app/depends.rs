//! What an app waits for before it is started.

use serde::{Deserialize, Serialize};

/// Another app, and how far it must have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other app's name: of the same namespace, or where that has none of it, of any.
    pub app: String,
    /// How far.
    #[serde(default)]
    pub condition: Condition,
}

/// How far all processes of an app must have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// They execute their program.
    Started,
    /// They are online.
    #[default]
    Ready,
    /// They are online, and healthy where that is checked.
    Healthy,
    /// They ended with code 0, for good.
    Completed,
}

impl Condition {
    /// Every one of them.
    pub const ALL: [Condition; 4] =
        [Condition::Started, Condition::Ready, Condition::Healthy, Condition::Completed];

    /// As people write it.
    pub fn named(name: &str) -> Option<Condition> {
        Condition::ALL.into_iter().find(|condition| condition.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Started => "started",
            Condition::Ready => "ready",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        }
    }
}
