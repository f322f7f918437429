//! The one table of commands and options. Parsing (`parse.rs`), help (`help.rs`) and suggestions
//! (`nearest.rs`) read it; what an option means is decided in `options.rs`.

mod commands;
mod options;

pub use commands::{COMMANDS, EVERYWHERE, UNBUILT_COMMANDS};
pub use options::{FLAGS, UNBUILT_FLAGS};

/// A command that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmd {
    Start,
    Stop,
    Restart,
    Reload,
    Scale,
    Delete,
    List,
    Jlist,
    Describe,
    Logs,
    Flush,
    Pid,
    Id,
    SendSignal,
    Reset,
    Save,
    Resurrect,
    Cleardump,
    Update,
    Startup,
    Unstartup,
    Ping,
    Kill,
    Daemon,
    Runtime,
    Healthcheck,
    Version,
    Help,
}

/// An option that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    Name,
    Namespace,
    Instances,
    ExecuteCommand,
    Interpreter,
    InterpreterArgs,
    Cwd,
    Output,
    Error,
    MergeLogs,
    WaitReady,
    ListenTimeout,
    BakeTime,
    DrainTimeout,
    KillTimeout,
    MaxRestarts,
    MinUptime,
    RestartDelay,
    ExpBackoff,
    NoAutorestart,
    StopExitCodes,
    Uid,
    Gid,
    UpdateEnv,
    Balance,
    Force,
    Only,
    Parallel,
    Lines,
    NoStream,
    Raw,
    Err,
    Out,
    Foreground,
    Resurrect,
    LockFd,
    ReadyFd,
    ExitOn,
    Grace,
    DrainDelay,
    Format,
    Restart,
    App,
    Resume,
    CheckState,
    Sweep,
    Auto,
    Autosave,
    BootUser,
    UserHome,
    ServiceName,
    Json,
    Silent,
    NoColor,
    Help,
    Version,
}

/// One command: its first name is the one that help and messages use.
pub struct Command {
    pub cmd: Cmd,
    pub names: &'static [&'static str],
    pub operands: &'static str,
    pub about: &'static str,
    pub options: &'static [&'static [Opt]],
}

/// One option: its first long name is the one that help and messages use.
pub struct Flag {
    pub opt: Opt,
    pub longs: &'static [&'static str],
    pub shorts: &'static [char],
    /// What its value is called, when it takes one.
    pub value: Option<&'static str>,
    pub about: &'static str,
}

impl Command {
    /// The table's entry for `cmd`.
    pub fn of(cmd: Cmd) -> &'static Command {
        COMMANDS.iter().find(|command| command.cmd == cmd).expect("every command is in the table")
    }

    /// The entry that is called `name`.
    pub fn named(name: &str) -> Option<&'static Command> {
        COMMANDS.iter().find(|command| command.names.contains(&name))
    }

    /// What messages call it.
    pub fn name(&self) -> &'static str {
        self.names[0]
    }

    /// Whether it takes `opt`.
    pub fn takes(&self, opt: Opt) -> bool {
        self.own_options().any(|own| own == opt) || EVERYWHERE.contains(&opt)
    }

    /// The options that not every command takes.
    pub fn own_options(&self) -> impl Iterator<Item = Opt> + '_ {
        self.options.iter().flat_map(|group| group.iter().copied())
    }
}

impl Flag {
    /// The table's entry for `opt`.
    pub fn of(opt: Opt) -> &'static Flag {
        FLAGS.iter().find(|flag| flag.opt == opt).expect("every option is in the table")
    }

    /// The entry with this long name.
    pub fn long(name: &str) -> Option<&'static Flag> {
        FLAGS.iter().find(|flag| flag.longs.contains(&name))
    }

    /// The entry with this letter.
    pub fn short(letter: char) -> Option<&'static Flag> {
        FLAGS.iter().find(|flag| flag.shorts.contains(&letter))
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        format!("--{}", self.longs[0])
    }
}

#[cfg(test)]
mod tests;
