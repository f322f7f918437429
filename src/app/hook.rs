//! Commands beside the program of an app: one before each start, one after each end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{App, Command, Mode, Notify, Runtime, Text};
use crate::time::Millis;

/// How long such a command may take, if nothing else was declared.
pub const HOOK_TIMEOUT: Millis = Millis(30_000);

/// The commands of an app, as lines for a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Before each child: without its success there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_start: Option<String>,
    /// After the end of each child whose place no other has taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_stop: Option<String>,
    /// How long each may take.
    pub timeout: Millis,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks { pre_start: None, post_stop: None, timeout: HOOK_TIMEOUT }
    }
}

impl Hooks {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == Hooks::default()
    }
}

impl App {
    /// What runs `line` as the app's program is run: as its user, in its directory, with its environment and
    /// limits. All its output is in the error log.
    pub fn hook(&self, line: &str) -> Arc<App> {
        let command = Command {
            script: Text::from("/bin/sh"),
            args: vec![Text::from("-c"), Text::from(&format!("exec >&2\n{line}"))],
            runtime: Runtime::Hook,
            ..Command::default()
        };
        Arc::new(App {
            command,
            mode: Mode::Fork,
            health: None,
            notify: Notify::default(),
            wait_ready: false,
            stdin: super::Stdin::default(),
            hooks: Hooks::default(),
            on: super::Alerts::default(),
            ..self.clone()
        })
    }
}
