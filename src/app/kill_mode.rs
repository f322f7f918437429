//! Whom a stop is for.

use serde::{Deserialize, Serialize};

/// Whom the stop signal of an app goes to, and what becomes of those of its processes that outlive their leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillMode {
    /// The signal goes to all processes of the instance, wherever they went; SIGKILL to those that are left
    /// when the kill timeout is over, or when the leader ended by itself.
    #[default]
    Tree,
    /// The signal goes to the process group of the leader. Who left that group is killed when it is empty.
    Group,
    /// Signal and SIGKILL go to the leader alone; the others are left to themselves.
    Process,
}

impl KillMode {
    /// As people write it.
    pub fn named(name: &str) -> Option<KillMode> {
        [KillMode::Tree, KillMode::Group, KillMode::Process].into_iter().find(|mode| mode.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            KillMode::Tree => "tree",
            KillMode::Group => "group",
            KillMode::Process => "process",
        }
    }
}
