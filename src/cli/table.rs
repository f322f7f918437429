//! The one table of commands and options. Parsing (`parse.rs`), help (`help.rs`) and suggestions
//! (`app::nearest`) read it; what an option means is decided in `options.rs`.

mod commands;
mod options;

pub use commands::{COMMANDS, EVERYWHERE, FOREIGN_COMMANDS, WHOLE_COMMANDS};
pub use options::{FLAGS, FOREIGN_FLAGS};

/// A command that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmd {
    Start,
    StartOrReload,
    Apply,
    EnvOf,
    Schema,
    Init,
    Stop,
    Restart,
    Reload,
    Scale,
    Delete,
    List,
    Jlist,
    Prettylist,
    Slist,
    Report,
    Describe,
    Why,
    History,
    Logs,
    Monit,
    Flush,
    ReloadLogs,
    Pid,
    Id,
    SendSignal,
    Send,
    Serve,
    Pull,
    Forward,
    Backward,
    Deploy,
    ServeFiles,
    Web,
    WebServer,
    Attach,
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
    Front,
    Import,
    Get,
    Set,
    Multiset,
    Unset,
    Conf,
    Completion,
    Man,
    Doctor,
    Bus,
    Publish,
    Trigger,
    Alert,
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
    PidFile,
    MergeLogs,
    Log,
    LogDateFormat,
    Time,
    LogType,
    DisableLogs,
    WaitReady,
    ListenTimeout,
    BakeTime,
    DrainTimeout,
    KillTimeout,
    StopSignal,
    StopSequence,
    ShutdownWithMessage,
    KillMode,
    NoTreekill,
    Stdin,
    Port,
    Spa,
    AuthUser,
    AuthPassword,
    Address,
    AllowHost,
    NewToken,
    TokenLifetime,
    NoAutostart,
    MaxRestarts,
    RestartWindow,
    MinUptime,
    RestartDelay,
    ExpBackoff,
    NoAutorestart,
    StopExitCodes,
    MaxMemoryRestart,
    CronRestart,
    CronTimezone,
    Schedule,
    Overlap,
    Watch,
    NoWatch,
    IgnoreWatch,
    WatchDelay,
    Ext,
    Uid,
    Gid,
    UpdateEnv,
    FilterEnv,
    OfPm2,
    Foreign,
    Balance,
    Force,
    Only,
    DryRun,
    Prune,
    Diff,
    Env,
    Parallel,
    Lines,
    NoStream,
    Raw,
    Err,
    Out,
    Since,
    Until,
    Grep,
    Fixed,
    IgnoreCase,
    Level,
    Timestamp,
    Highlight,
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
    Tidy,
    Deliver,
    TakeOver,
    Tree,
    Sort,
    MiniList,
    Write,
    Attach,
    BootUser,
    UserHome,
    ServiceName,
    WaitIp,
    Keep,
    Json,
    Pss,
    Host,
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
