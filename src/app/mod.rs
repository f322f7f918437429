//! What the user declares: an app and how it is to be run. Pure data and rules; reading files,
//! looking at scripts and resolving users is the client's work, running it the daemon's.

mod alert;
mod changes;
mod container;
pub mod cron;
pub mod dates;
pub mod declaration;
mod depends;
pub mod dotenv;
pub mod dump;
mod environment;
pub mod health;
mod hook;
pub mod interpreter;
mod kill_mode;
pub mod limits;
pub mod line;
pub mod logs;
pub mod nearest;
mod notify;
pub mod plan;
mod restart;
pub mod rotation;
mod stdin;
pub mod stop;
mod text;
mod triggers;
pub mod units;
pub mod variables;
pub mod words;
pub mod zone;

pub use alert::{
    Alert, Alerts, Delivery, MODULE as ALERTS, Occasion, Url, Way, variables as variables_of_alert,
};
pub use changes::Changes;
pub use container::{Container, ExitOn, Format, NOT_EXECUTABLE, NOT_FOUND};
pub use dates::DateFormat;
pub use depends::{Condition, Dependency};
pub use environment::{Channel, Identity, Join, environment, is_of_one_child, unique_id, without_preload};
pub use health::Health;
pub use hook::{HOOK_TIMEOUT, Hooks};
pub use kill_mode::KillMode;
pub use limits::{Limits, Privileges};
pub use logs::{Combined, Full, LogChanges, Logs};
pub use notify::{Notify, Readiness};
pub use restart::{Budget, RESTART_WINDOW, RestartPolicy};
pub use rotation::Rotation;
pub use stdin::Stdin;
pub use stop::{Notice, Step, Stop};
pub use text::{Env, SharedEnv, Text};
pub use triggers::{Overlap, TriggerChanges, Triggers, Watch, Watched, pattern};
pub use variables::{Filter, Variables};

use std::path::PathBuf;

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
    /// What of that shell gets through, and what differs between instances.
    #[serde(skip_serializing_if = "Variables::is_usual")]
    pub variables: Variables,
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
    /// Where its process id is written, as declared; see [`App::pid_path`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<Text>,
    /// What becomes of its output.
    #[serde(skip_serializing_if = "Logs::is_usual")]
    pub logs: Logs,
    /// The app says itself when it is ready, by the message `"ready"` on its channel.
    pub wait_ready: bool,
    /// What is expected of a child's own word.
    pub notify: Notify,
    /// How its health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Health>>,
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
    /// Whom the stop signal goes to.
    pub kill_mode: KillMode,
    /// What it reads from.
    #[serde(default)]
    pub stdin: Stdin,
    /// How it is told to end, beyond that signal.
    pub stop: Stop,
    /// What it waits for before it is started.
    pub depends_on: Vec<Dependency>,
    /// What is run before and after it.
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Who is told, or what is run, when something happens to it.
    #[serde(skip_serializing_if = "Alerts::is_empty")]
    pub on: Alerts,
    /// Lines for a shell, run when its directory is at another commit and before it is reloaded for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_update: Vec<String>,
    /// Started when it is added; else it is added as stopped.
    pub autostart: bool,
    /// When a child ends by itself: what then.
    pub restart: RestartPolicy,
    /// What else calls for a new one.
    pub triggers: Triggers,
    /// Run as somebody else (only a root daemon can).
    pub user: Option<User>,
    /// What its processes may use.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What they may do beyond their user's rights.
    #[serde(skip_serializing_if = "Privileges::is_empty")]
    pub privileges: Privileges,
    /// Its end ends the container, with `--exit-on critical`.
    #[serde(default)]
    pub critical: bool,
    /// The file mode creation mask of the shell that declared it.
    pub umask: u32,
    /// The declaration file that it came from, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Text>,
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
    /// The shell that runs a command beside the program of an app: no channel.
    Hook,
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
            variables: Variables::default(),
            instances: Instances::Count(1),
            mode: Mode::Auto,
            balance: Balance::default(),
            out_file: None,
            error_file: None,
            merge_logs: false,
            pid_file: None,
            logs: Logs::default(),
            wait_ready: false,
            notify: Notify::default(),
            health: None,
            listen_timeout: LISTEN_TIMEOUT,
            bake_time: BAKE_TIME,
            drain_timeout: DRAIN_TIMEOUT,
            kill_timeout: KILL_TIMEOUT,
            stop_signal: STOP_SIGNAL,
            kill_mode: KillMode::default(),
            stdin: Stdin::default(),
            stop: Stop::default(),
            depends_on: Vec::new(),
            hooks: Hooks::default(),
            on: Alerts::default(),
            post_update: Vec::new(),
            autostart: true,
            restart: RestartPolicy::default(),
            triggers: Triggers::default(),
            user: None,
            limits: Limits::default(),
            privileges: Privileges::default(),
            critical: false,
            umask: 0o022,
            file: None,
            unknown: serde_json::Map::new(),
        }
    }
}

/// The longest name of an app, in bytes.
pub const NAME_LIMIT: usize = 128;
/// The most instances of one app.
pub const INSTANCES_LIMIT: u32 = 10_000;

impl App {
    /// The declared file that holds the process id of process `id` while it runs: as in pm2 it has the id in its
    /// name, however many instances there are.
    pub fn pid_path(&self, id: u32) -> Option<PathBuf> {
        let path = self.cwd.path().join(self.pid_file.as_ref()?.path());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        Some(path.with_file_name(format!("{stem}-{id}{extension}")))
    }

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
        } else if self.notify.ready == Some(Readiness::Listening) && !self.may_cluster() {
            Some("ready: only a Node program that shares its ports tells when it listens".to_string())
        } else if let Some(step) = self.stop.sequence.iter().find(|step| !(1..=64).contains(&step.signal)) {
            Some(format!("{} is not a signal", step.signal))
        } else if self.stop.sequence.len() > stop::STEPS_LIMIT {
            Some(format!("a stop sequence of more than {} steps", stop::STEPS_LIMIT))
        } else {
            self.triggers
                .fault(self)
                .or_else(|| self.variables.fault())
                .or_else(|| self.health.as_ref().and_then(|health| health.check().err()))
        };
        fault.map_or(Ok(()), |fault| Err(format!("start {:?}: {fault}", self.name)))
    }

    /// Whether its instances are Node cluster workers from their first instruction. What a launcher
    /// starts shows only when it listens.
    pub fn is_cluster(&self) -> bool {
        self.mode == Mode::Cluster && self.command.runtime == Runtime::Node
    }

    /// When a child counts as ready, if it was declared.
    pub fn declared_readiness(&self) -> Option<Readiness> {
        self.notify.ready.or(self.wait_ready.then_some(Readiness::Message))
    }

    /// Whether its instances are Node cluster workers from the start or may become ones.
    pub fn may_cluster(&self) -> bool {
        self.mode != Mode::Fork && matches!(self.command.runtime, Runtime::Node | Runtime::Launcher)
    }
}
