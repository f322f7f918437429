//! How a child tells that it is ready and alive.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// When a child counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// As soon as it executes.
    Spawned,
    /// When it has lived for `min_uptime`.
    Uptime,
    /// When it listens.
    Listening,
    /// When it says so on its channel.
    Message,
    /// When it says so to the socket that `$NOTIFY_SOCKET` names.
    Notified,
}

impl Readiness {
    const ALL: [Readiness; 5] = [
        Readiness::Spawned,
        Readiness::Uptime,
        Readiness::Listening,
        Readiness::Message,
        Readiness::Notified,
    ];

    /// As people write it.
    pub fn named(name: &str) -> Option<Readiness> {
        Readiness::ALL.into_iter().find(|readiness| readiness.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Readiness::Spawned => "spawned",
            Readiness::Uptime => "uptime",
            Readiness::Listening => "listen",
            Readiness::Message => "message",
            Readiness::Notified => "notify",
        }
    }
}

/// What is expected of a child's own word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notify {
    /// When it counts as ready, if that was declared.
    pub ready: Option<Readiness>,
    /// How long it may be silent; zero: for ever.
    pub watchdog: Millis,
}
