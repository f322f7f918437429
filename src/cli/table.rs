//! The one table of commands and options. Parsing (`parse.rs`), help (`help.rs`) and suggestions
//! (`nearest.rs`) read it; what an option means is decided in `options.rs`.

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
    Ping,
    Kill,
    Daemon,
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
    LockFd,
    ReadyFd,
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

/// What a declaration says of an app, as options: for start, and to change it on restart and reload.
const APP: &[Opt] = &[
    Opt::Name,
    Opt::Namespace,
    Opt::ExecuteCommand,
    Opt::InterpreterArgs,
    Opt::Cwd,
    Opt::Output,
    Opt::Error,
    Opt::MergeLogs,
    Opt::WaitReady,
    Opt::ListenTimeout,
    Opt::BakeTime,
    Opt::DrainTimeout,
    Opt::KillTimeout,
    Opt::MaxRestarts,
    Opt::MinUptime,
    Opt::RestartDelay,
    Opt::ExpBackoff,
    Opt::NoAutorestart,
    Opt::StopExitCodes,
    Opt::Uid,
    Opt::Gid,
    Opt::Balance,
    Opt::UpdateEnv,
];
const NEW: &[Opt] = &[Opt::Instances, Opt::Interpreter, Opt::Force];
const JSON: &[Opt] = &[Opt::Json];
const ONLY: &[Opt] = &[Opt::Only];

/// Taken by every command.
pub const EVERYWHERE: &[Opt] = &[Opt::Silent, Opt::NoColor, Opt::Help, Opt::Version];

const TARGETS: &str = "<all|id|name|namespace|script|file.json>...";

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        cmd: Cmd::Start,
        names: &["start", "startOrRestart"],
        operands: "<script|\"line\"|command|file.json|-|name|id>... [-- args]",
        about: "start an app, the apps of a declaration file, or a stopped process",
        options: &[APP, NEW, ONLY, JSON],
    },
    Command {
        cmd: Cmd::Stop,
        names: &["stop"],
        operands: TARGETS,
        about: "stop processes and keep them in the list",
        options: &[ONLY, JSON],
    },
    Command {
        cmd: Cmd::Restart,
        names: &["restart"],
        operands: "<all|id|name|namespace|script|file.json>... [-- args]",
        about: "stop processes and start them again",
        options: &[APP, ONLY, JSON],
    },
    Command {
        cmd: Cmd::Reload,
        names: &["reload"],
        operands: "<all|id|name|namespace|script>... [-- args]",
        about: "replace processes without losing a request",
        options: &[APP, &[Opt::Parallel], JSON],
    },
    Command {
        cmd: Cmd::Scale,
        names: &["scale"],
        operands: "<name> <n|+n|-n>",
        about: "change the number of instances of an app",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Delete,
        names: &["delete", "del"],
        operands: TARGETS,
        about: "stop processes and forget them",
        options: &[ONLY, JSON],
    },
    Command {
        cmd: Cmd::List,
        names: &["list", "ls", "l", "ps", "status"],
        operands: "",
        about: "show all processes",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Jlist,
        names: &["jlist"],
        operands: "",
        about: "print all processes as JSON with pm2's field names",
        options: &[],
    },
    Command {
        cmd: Cmd::Describe,
        names: &["describe", "desc", "show", "info"],
        operands: "<all|id|name|namespace|script>...",
        about: "show everything about processes",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Logs,
        names: &["logs", "log"],
        operands: "[all|id|name|namespace]...",
        about: "print the last log lines and follow",
        options: &[&[Opt::Lines, Opt::NoStream, Opt::Raw, Opt::Err, Opt::Out]],
    },
    Command {
        cmd: Cmd::Flush,
        names: &["flush"],
        operands: "[all|id|name|namespace]...",
        about: "empty log files",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Pid,
        names: &["pid"],
        operands: "[name]",
        about: "print process ids, one a line",
        options: &[],
    },
    Command {
        cmd: Cmd::Id,
        names: &["id"],
        operands: "<name>",
        about: "print the ids of an app",
        options: &[],
    },
    Command {
        cmd: Cmd::SendSignal,
        names: &["sendSignal"],
        operands: "<signal> <all|id|name|namespace>...",
        about: "send a signal to processes",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Reset,
        names: &["reset"],
        operands: "<all|id|name|namespace>...",
        about: "set restart counters to zero",
        options: &[JSON],
    },
    Command {
        cmd: Cmd::Ping,
        names: &["ping"],
        operands: "",
        about: "ask whether the daemon runs",
        options: &[],
    },
    Command {
        cmd: Cmd::Kill,
        names: &["kill"],
        operands: "",
        about: "stop every process and the daemon",
        options: &[],
    },
    Command {
        cmd: Cmd::Daemon,
        names: &["daemon"],
        operands: "",
        about: "be the daemon (commands start it by themselves)",
        options: &[&[Opt::Foreground, Opt::LockFd, Opt::ReadyFd]],
    },
    Command {
        cmd: Cmd::Version,
        names: &["version"],
        operands: "",
        about: "print the version",
        options: &[],
    },
    Command {
        cmd: Cmd::Help,
        names: &["help"],
        operands: "[command]",
        about: "explain pmx, or one command",
        options: &[],
    },
];

const fn flag(
    opt: Opt,
    longs: &'static [&'static str],
    shorts: &'static [char],
    about: &'static str,
) -> Flag {
    Flag { opt, longs, shorts, value: None, about }
}

const fn valued(
    opt: Opt,
    longs: &'static [&'static str],
    shorts: &'static [char],
    value: &'static str,
    about: &'static str,
) -> Flag {
    Flag { opt, longs, shorts, value: Some(value), about }
}

/// Every option.
pub const FLAGS: &[Flag] = &[
    valued(Opt::Name, &["name"], &['n'], "name", "what to call the app (default: the script's name)"),
    valued(Opt::Namespace, &["namespace"], &[], "name", "a group that commands can address together"),
    valued(
        Opt::Instances,
        &["instances"],
        &['i'],
        "n",
        "so many; 0 or max: one per CPU; -n: n fewer than that",
    ),
    flag(Opt::ExecuteCommand, &["execute-command"], &['x'], "fork mode: no cluster, no shared ports"),
    valued(
        Opt::Interpreter,
        &["interpreter"],
        &[],
        "program",
        "what runs the script; none: execute it directly",
    ),
    valued(
        Opt::InterpreterArgs,
        &["interpreter-args", "node-args"],
        &[],
        "args",
        "arguments before the script, split as a shell would",
    ),
    valued(Opt::Cwd, &["cwd"], &[], "path", "working directory; the script is looked for in it"),
    valued(Opt::Output, &["output"], &['o'], "path", "file for stdout"),
    valued(Opt::Error, &["error"], &['e'], "path", "file for stderr"),
    flag(Opt::MergeLogs, &["merge-logs"], &[], "all instances write to one pair of files"),
    flag(Opt::WaitReady, &["wait-ready"], &[], "online only once the app has sent 'ready'"),
    valued(
        Opt::ListenTimeout,
        &["listen-timeout"],
        &[],
        "ms",
        "how long a new process may take until it is ready",
    ),
    valued(
        Opt::BakeTime,
        &["bake-time"],
        &[],
        "ms",
        "how long a replacement must live before the old one leaves",
    ),
    valued(
        Opt::DrainTimeout,
        &["drain-timeout"],
        &[],
        "ms",
        "how long the old one may finish its connections",
    ),
    valued(Opt::KillTimeout, &["kill-timeout"], &['k'], "ms", "from the stop signal to SIGKILL"),
    valued(Opt::MaxRestarts, &["max-restarts"], &[], "n", "unstable restarts in a row until it is given up"),
    valued(Opt::MinUptime, &["min-uptime"], &[], "ms", "a shorter life was unstable (also 10s, 5m, 1h)"),
    valued(Opt::RestartDelay, &["restart-delay"], &[], "ms", "fixed delay before each restart"),
    valued(
        Opt::ExpBackoff,
        &["exp-backoff-restart-delay"],
        &[],
        "ms",
        "first delay, then 1.5 times more, up to 15 s",
    ),
    flag(Opt::NoAutorestart, &["no-autorestart"], &[], "do not restart it when it ends"),
    valued(
        Opt::StopExitCodes,
        &["stop-exit-codes"],
        &[],
        "codes",
        "exit codes after which it is not restarted",
    ),
    valued(Opt::Uid, &["uid"], &[], "user", "run as this user (root only)"),
    valued(Opt::Gid, &["gid"], &[], "group", "run as this group (root only)"),
    valued(Opt::Balance, &["balance"], &[], "how", "share connections by reuseport, rr or shared"),
    flag(Opt::UpdateEnv, &["update-env"], &['a'], "take this shell's environment"),
    flag(Opt::Force, &["force"], &['f'], "start it once more although it runs"),
    valued(Opt::Only, &["only"], &[], "names", "only these apps of the file"),
    valued(Opt::Parallel, &["parallel"], &[], "n", "how many processes at a time"),
    valued(Opt::Lines, &["lines"], &[], "n", "how many lines to begin with (15)"),
    flag(Opt::NoStream, &["nostream"], &[], "do not follow"),
    flag(Opt::Raw, &["raw"], &[], "the lines as they are: no prefix, nothing escaped"),
    flag(Opt::Err, &["err"], &[], "stderr only"),
    flag(Opt::Out, &["out"], &[], "stdout only"),
    flag(Opt::Foreground, &["foreground"], &[], "stay in the foreground, log to stderr"),
    valued(Opt::LockFd, &["lock-fd"], &[], "fd", "the locked pmx.lock, inherited (internal)"),
    valued(Opt::ReadyFd, &["ready-fd"], &[], "fd", "where to say ok, inherited (internal)"),
    flag(Opt::Json, &["json"], &[], "print the answer as JSON"),
    flag(Opt::Silent, &["silent"], &['s'], "print nothing but errors"),
    flag(Opt::NoColor, &["no-color"], &[], "no colours (also NO_COLOR=1)"),
    flag(Opt::Help, &["help"], &['h'], "explain the command"),
    flag(Opt::Version, &["version"], &['v', 'V'], "print the version"),
];

/// Options of pm2 that pmx knows of and does not have: refused by name, never ignored.
pub const UNBUILT_FLAGS: &[(&str, Option<char>)] = &[
    ("attach", None),
    ("container", None),
    ("cron", None),
    ("cron-restart", Some('c')),
    ("daemon", None),
    ("deep-monitoring", None),
    ("disable-logs", None),
    ("disable-source-map-support", None),
    ("disable-trace", None),
    ("dist", None),
    ("env", None),
    ("event-loop-inspector", None),
    ("ext", None),
    ("filter-env", None),
    ("format", None),
    ("fresh", None),
    ("highlight", None),
    ("hp", None),
    ("ignore-watch", None),
    ("image-name", None),
    ("log", Some('l')),
    ("log-date-format", None),
    ("log-type", None),
    ("max-memory-restart", None),
    ("mini-list", Some('m')),
    ("no-automation", None),
    ("no-autostart", None),
    ("no-daemon", None),
    ("no-pmx", None),
    ("no-treekill", None),
    ("no-vizion", None),
    ("node-version", None),
    ("pid", Some('p')),
    ("service-name", None),
    ("shutdown-with-message", None),
    ("sort", None),
    ("source-map-support", None),
    ("time", None),
    ("timestamp", None),
    ("trace", None),
    ("user", Some('u')),
    ("v8", None),
    ("wait-ip", None),
    ("watch", None),
    ("watch-delay", None),
    ("write", Some('w')),
];

/// Commands of pm2 that pmx knows of and does not have.
pub const UNBUILT_COMMANDS: &[&str] = &[
    "attach",
    "autoinstall",
    "backward",
    "cleardump",
    "completion",
    "conf",
    "config",
    "create",
    "dash",
    "dashboard",
    "deepUpdate",
    "deploy",
    "dump",
    "ecosystem",
    "env",
    "examples",
    "expose",
    "forward",
    "generate",
    "get",
    "gracefulReload",
    "imonit",
    "init",
    "inspect",
    "install",
    "install-otel",
    "interact",
    "killInteract",
    "link",
    "login",
    "logout",
    "logrotate",
    "m",
    "module:generate",
    "module:update",
    "monit",
    "monitor",
    "multiset",
    "open",
    "package",
    "plus",
    "prettylist",
    "profile:cpu",
    "profile:mem",
    "publish",
    "pull",
    "register",
    "reloadLogs",
    "report",
    "restartAll",
    "resurrect",
    "save",
    "send",
    "serve",
    "set",
    "slist",
    "startOrGracefulReload",
    "startOrReload",
    "startup",
    "stopAll",
    "sysinfos",
    "trigger",
    "uninstall",
    "uninstall-otel",
    "unlink",
    "unmonitor",
    "unset",
    "unstartup",
    "update",
    "updatePM2",
    "web",
];

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
mod tests {
    use super::*;

    fn assert_unique(mut names: Vec<String>) {
        names.sort();
        let doubled: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(doubled.is_empty(), "twice in the table: {doubled:?}");
    }

    #[test]
    fn no_name_is_taken_twice() {
        let commands = COMMANDS.iter().flat_map(|command| command.names.iter().copied());
        assert_unique(commands.chain(UNBUILT_COMMANDS.iter().copied()).map(String::from).collect());
        let longs = FLAGS.iter().flat_map(|flag| flag.longs.iter().copied());
        assert_unique(longs.chain(UNBUILT_FLAGS.iter().map(|flag| flag.0)).map(String::from).collect());
        let shorts = FLAGS.iter().flat_map(|flag| flag.shorts.iter().copied());
        assert_unique(
            shorts.chain(UNBUILT_FLAGS.iter().filter_map(|flag| flag.1)).map(String::from).collect(),
        );
    }

    #[test]
    fn every_option_of_a_command_is_in_the_table() {
        for command in COMMANDS {
            for opt in command.own_options().chain(EVERYWHERE.iter().copied()) {
                assert_eq!(Flag::of(opt).opt, opt);
            }
        }
        for flag in FLAGS {
            assert!(COMMANDS.iter().any(|command| command.takes(flag.opt)), "nobody takes {}", flag.name());
        }
    }
}
