//! What the user declares: an app and how it is to be run. Pure data and rules; reading files,
//! looking at scripts and resolving users is the client's work, running it the daemon's.

mod changes;
mod container;
pub mod declaration;
pub mod dump;
mod environment;
pub mod interpreter;
mod text;
pub mod units;
pub mod words;

pub use changes::Changes;
pub use container::{Container, ExitOn, Format, NOT_EXECUTABLE, NOT_FOUND};
pub use environment::{Channel, Identity, Join, environment};
pub use text::{Env, SharedEnv, Text};

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// One app, validated: everything the daemon needs to run any number of instances of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
// What an older pmx wrote down lacks the fields that came later.
#[serde(default)]
pub struct App {
    /// What people call it; unique within its namespace unless forced.
    pub name: String,
    /// A group of apps that commands can address together.
    pub namespace: String,
    /// What to execute.
    pub command: Command,
    /// The working directory, as given (a symlink stays one and is resolved at each spawn).
    pub cwd: Text,
    /// Variables the user declared for this app. They win over all others.
    pub env: Env,
    /// The environment of the shell that declared it. Where many apps share one, it travels apart.
    #[serde(default, skip_serializing_if = "SharedEnv::is_empty")]
    pub inherit: SharedEnv,
    /// How many instances were asked for.
    pub instances: Instances,
    /// Whether its instances share their ports.
    pub mode: Mode,
    /// How connections are shared out among the instances of a cluster.
    pub balance: Balance,
    /// Log file names; `None` is `logs/<name>-out[-<id>].log` under the home.
    pub out_file: Option<Text>,
    /// As `out_file`, for stderr.
    pub error_file: Option<Text>,
    /// All instances write to one pair of files, without the id in their names.
    pub merge_logs: bool,
    /// The app says itself when it is ready, by the message `"ready"` on its channel.
    pub wait_ready: bool,
    /// How long a new child may take until it listens or says that it is ready.
    pub listen_timeout: Millis,
    /// How long a replacement must stay alive after it became ready before the old child drains.
    pub bake_time: Millis,
    /// How long a child may take to finish its connections once it was told to drain.
    pub drain_timeout: Millis,
    /// From the stop signal to SIGKILL.
    pub kill_timeout: Millis,
    /// The number of the stop signal.
    pub stop_signal: i32,
    /// When a child ends by itself: what then.
    pub restart: RestartPolicy,
    /// Run as somebody else (only a root daemon can).
    pub user: Option<User>,
    /// Its end ends the container, with `--exit-on critical`.
    #[serde(default)]
    pub critical: bool,
    /// The file mode creation mask of the shell that declared it.
    pub umask: u32,
    /// What a later version declared and this one does not know: kept for when it comes back.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// What to execute: `[interpreter, interpreter_args.., ] script, args..`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Command {
    /// The absolute path of a file, or the line for a shell.
    pub script: Text,
    /// A path, or a name that is searched in the app's `PATH` at each spawn. `None`: the script
    /// is executed itself.
    pub interpreter: Option<Text>,
    /// Arguments before the script.
    pub interpreter_args: Vec<Text>,
    /// Arguments after the script.
    pub args: Vec<Text>,
    /// What kind of program this starts, as far as it matters for the channel.
    pub runtime: Runtime,
}

/// What kind of program a command starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// `node` itself: it takes the channel on fd 3.
    Node,
    /// Bun: it takes the channel on fd 3, but shares ports in its own way.
    Bun,
    /// A program that may start Node in turn (npm, npx, tsx, a shell): the channel is offered on
    /// a high fd that survives the programs in between.
    Launcher,
    /// Anything else: no channel.
    #[default]
    Other,
}

/// How many instances an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instances {
    /// Exactly so many, at least one.
    Count(u32),
    /// One per CPU that the daemon may use, less so many, at least one.
    CpusLess(u32),
}

/// Whether instances share ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A Node script joins the cluster of its app at its first `listen`; anything else is `Fork`.
    #[default]
    Auto,
    /// Every instance is on its own.
    Fork,
    /// Node workers from their first instruction.
    Cluster,
}

/// How connections are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One SO_REUSEPORT listener per instance; the kernel hashes connections over them.
    #[default]
    Reuseport,
    /// The daemon accepts and passes each connection to the next worker.
    Rr,
    /// One listener for all: whoever accepts first.
    Shared,
}

impl Balance {
    /// As people write it.
    pub fn named(name: &str) -> Option<Balance> {
        [Balance::Reuseport, Balance::Rr, Balance::Shared].into_iter().find(|balance| balance.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Balance::Reuseport => "reuseport",
            Balance::Rr => "rr",
            Balance::Shared => "shared",
        }
    }
}

/// When a child ends by itself: what then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// Restart it at all.
    pub autorestart: bool,
    /// Exit codes that mean "done": no restart.
    pub stop_exit_codes: Vec<i32>,
    /// A child that lived shorter than this ended unstable.
    pub min_uptime: Millis,
    /// Unstable ends in a row after which the process is given up as errored.
    pub max_restarts: u32,
    /// A fixed delay before each restart.
    pub restart_delay: Millis,
    /// First delay of an exponential back-off (factor 1.5, at most 15 s); zero: none.
    pub exp_backoff: Millis,
}

/// Who a child runs as, resolved by the client: the daemon never asks a user database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name as given, for people.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`, where the user database has one.
    #[serde(default)]
    pub home: Option<Text>,
}

/// The default of [`App::listen_timeout`].
pub const LISTEN_TIMEOUT: Millis = Millis(3_000);
/// The default of [`App::bake_time`].
pub const BAKE_TIME: Millis = Millis(300);
/// The default of [`App::drain_timeout`].
pub const DRAIN_TIMEOUT: Millis = Millis(10_000);
/// The default of [`App::kill_timeout`].
pub const KILL_TIMEOUT: Millis = Millis(1_600);
/// The default of [`App::stop_signal`]: SIGINT, as in pm2.
pub const STOP_SIGNAL: i32 = 2;
/// The default namespace.
pub const NAMESPACE: &str = "default";

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            autorestart: true,
            stop_exit_codes: Vec::new(),
            min_uptime: Millis(1_000),
            max_restarts: 16,
            restart_delay: Millis(0),
            exp_backoff: Millis(0),
        }
    }
}

impl Default for App {
    /// An app without a command; a declaration fills it in.
    fn default() -> App {
        App {
            name: String::new(),
            namespace: NAMESPACE.to_string(),
            command: Command::default(),
            cwd: Text::from("/"),
            env: Env::default(),
            inherit: SharedEnv::default(),
            instances: Instances::Count(1),
            mode: Mode::Auto,
            balance: Balance::default(),
            out_file: None,
            error_file: None,
            merge_logs: false,
            wait_ready: false,
            listen_timeout: LISTEN_TIMEOUT,
            bake_time: BAKE_TIME,
            drain_timeout: DRAIN_TIMEOUT,
            kill_timeout: KILL_TIMEOUT,
            stop_signal: STOP_SIGNAL,
            restart: RestartPolicy::default(),
            user: None,
            critical: false,
            umask: 0o022,
            unknown: serde_json::Map::new(),
        }
    }
}

/// The longest name of an app, in bytes.
pub const NAME_LIMIT: usize = 128;
/// The most instances of one app.
pub const INSTANCES_LIMIT: u32 = 10_000;

impl App {
    /// Refuses what can never run, whoever sent it.
    pub fn check(&self) -> Result<(), String> {
        let fault = if self.name.is_empty() || self.name.len() > NAME_LIMIT {
            Some(format!("a name has 1 to {NAME_LIMIT} bytes"))
        } else if self.name.chars().chain(self.namespace.chars()).any(char::is_control) {
            Some("a name cannot hold control characters".to_string())
        } else if self.namespace.is_empty() || self.namespace.len() > NAME_LIMIT {
            Some(format!("a namespace has 1 to {NAME_LIMIT} bytes"))
        } else if self.command.script.bytes().is_empty() {
            Some("there is nothing to execute".to_string())
        } else if !self.cwd.path().is_absolute() {
            Some(format!("the working directory {} is not absolute", self.cwd))
        } else if matches!(self.instances, Instances::Count(n) if n > INSTANCES_LIMIT) {
            Some(format!("more than {INSTANCES_LIMIT} instances"))
        } else if !(1..=64).contains(&self.stop_signal) {
            Some(format!("{} is not a signal", self.stop_signal))
        } else {
            None
        };
        fault.map_or(Ok(()), |fault| Err(format!("start {:?}: {fault}", self.name)))
    }

    /// Whether its instances are Node cluster workers from their first instruction. What a launcher
    /// starts shows only when it listens.
    pub fn is_cluster(&self) -> bool {
        self.mode == Mode::Cluster && self.command.runtime == Runtime::Node
    }

    /// Whether its instances are Node cluster workers from the start or may become ones.
    pub fn may_cluster(&self) -> bool {
        self.mode != Mode::Fork && matches!(self.command.runtime, Runtime::Node | Runtime::Launcher)
    }
}
