//! How apps run when pmx is the first process of a container.

use serde::{Deserialize, Serialize};

use super::{App, SharedEnv};
use crate::time::Millis;

/// What `pmx runtime` was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The apps, at least one.
    pub apps: Vec<App>,
    /// [`App::inherit`] of each of them.
    pub inherit: SharedEnv,
    /// Whose end ends the container.
    pub exit_on: ExitOn,
    /// How long everything may take from the first signal on, the drain delay included.
    pub grace: Millis,
    /// How long apps serve on after the first signal, while the health check fails already.
    pub drain_delay: Millis,
    /// What the output of the apps becomes.
    pub format: Format,
}

/// Whose end ends the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitOn {
    /// The first app that is down for good.
    Any,
    /// The last one.
    All,
    /// The first one that is marked as critical.
    Critical,
}

impl ExitOn {
    /// As people write it.
    pub fn named(name: &str) -> Option<ExitOn> {
        match name {
            "any" => Some(ExitOn::Any),
            "all" => Some(ExitOn::All),
            "critical" => Some(ExitOn::Critical),
            _ => None,
        }
    }
}

/// What the output of apps becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// It stays as it is.
    #[default]
    Raw,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// As people write it.
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "raw" => Some(Format::Raw),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Json => "json",
        }
    }
}

/// The exit code of a command that is not there, as shells have it.
pub const NOT_FOUND: u8 = 127;
/// The exit code of a command that is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;

impl Container {
    /// Whether it is a single process, to which everything belongs: stdin, stdout, the terminal, signals.
    pub fn is_single(&self) -> bool {
        matches!(&self.apps[..], [app] if app.instances == super::Instances::Count(1))
    }
}
