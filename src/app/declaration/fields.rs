//! The one table of fields. Reading, error texts, suggestions, `pmx schema`, `pmx init` and `--write` come
//! from it: whoever adds a field adds a row.

use serde_json::{Value, json};

use super::kind::{self, Kind, Other};
use super::{Declared, filter, logs, triggers, variable};
use crate::app::nearest::nearest;
use crate::app::stop::{self, Step};
use crate::app::{
    Alerts, Balance, Condition, Dependency, Env, Format, Full, Instances, KillMode, Limits, Mode, Overlap,
    Privileges, Readiness, Stdin, Text, limits,
};

/// A field of an app.
pub struct Field {
    /// Its names in snake case; the first is the one that pmx writes. Camel case is understood everywhere.
    pub names: &'static [&'static str],
    /// Its type.
    pub kind: Kind,
    /// What holds if it is not declared, as JSON; empty: nothing, or it depends.
    pub default: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
}

const fn field(
    names: &'static [&'static str],
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Field {
    Field { names, kind, default, about }
}

/// Every field, in the order in which people think of them.
pub const FIELDS: &[Field] = &[
    field(
        &["script", "exec", "cmd", "command"],
        Kind::Other(SCRIPT),
        "",
        "path of a script, a command, or a line for a shell",
    ),
    field(
        &["name"],
        Kind::Text("a name", |app| &mut app.changes.name),
        "",
        "what to call the app (its script's name)",
    ),
    field(
        &["name_prefix"],
        Kind::Text("a name", |app| &mut app.name_prefix),
        "",
        "goes before the name, with a colon",
    ),
    field(
        &["namespace"],
        Kind::Text("a name", |app| &mut app.changes.namespace),
        "\"default\"",
        "group of apps that commands can address together",
    ),
    field(&["cwd"], Kind::Path(|app| &mut app.changes.cwd), "", "working directory (the caller's)"),
    field(&["args"], Kind::Words(|app| &mut app.changes.args), "[]", "arguments of the script"),
    field(
        &["interpreter", "exec_interpreter"],
        Kind::Text("the name or path of a program", |app| &mut app.interpreter),
        "",
        "program that runs the script, or none (by extension or #! line)",
    ),
    field(
        &["interpreter_args", "node_args"],
        Kind::Words(|app| &mut app.changes.interpreter_args),
        "[]",
        "arguments before the script",
    ),
    field(
        &["exec_mode"],
        Kind::Choice(&["fork", "cluster", "fork_mode", "cluster_mode"], set_mode, |app| {
            app.changes.mode.map(mode_word)
        }),
        "",
        "whether instances share their ports (cluster) or not (fork)",
    ),
    field(
        &["execute_command"],
        Kind::Flag(|app| &mut app.fork),
        "false",
        "fork mode, whatever exec_mode says",
    ),
    field(
        &["instances"],
        Kind::Other(INSTANCES),
        "1",
        "how many: a number, \"max\" for one per CPU, -1 for one fewer than that",
    ),
    field(
        &["balance"],
        Kind::Choice(
            &["reuseport", "rr", "shared"],
            |app, word| app.changes.balance = Balance::named(word),
            |app| app.changes.balance.map(Balance::word),
        ),
        "\"reuseport\"",
        "how connections are shared out in cluster mode",
    ),
    field(&["env"], Kind::Other(ENV), "{}", "environment variables"),
    field(
        &["env_file"],
        Kind::Other(ENV_FILE),
        "",
        "files of variables, NAME=value a line; env wins over them",
    ),
    field(&["port"], Kind::Other(PORT), "", "sets the variable PORT"),
    field(
        &["filter_env"],
        Kind::Other(FILTER_ENV),
        "[]",
        "variables of the shell that it does not get: how their names begin, \"*_KEY\", or true for all",
    ),
    field(
        &["instance_var"],
        Kind::Text("the name of a variable", |app| &mut app.changes.instance_var),
        "",
        "variable that holds the number of the instance (NODE_APP_INSTANCE)",
    ),
    field(
        &["increment_var"],
        Kind::Text("the name of a variable", |app| &mut app.changes.increment_var),
        "",
        "variable, a number, that grows by one from instance to instance",
    ),
    field(
        &["append_env_to_name"],
        Kind::Flag(|app| &mut app.append_env_to_name),
        "false",
        "with --env production it is called name-production",
    ),
    field(
        &["uid", "user"],
        Kind::Scalar("a user's name or number", |app| &mut app.user),
        "",
        "user to run as (only root can)",
    ),
    field(
        &["gid"],
        Kind::Scalar("a group's name or number", |app| &mut app.group),
        "",
        "group to run as (the user's)",
    ),
    field(
        &["out_file", "out", "output", "out_log"],
        Kind::Path(|app| &mut app.changes.out_file),
        "",
        "log file of stdout",
    ),
    field(
        &["error_file", "error", "err", "err_file", "err_log"],
        Kind::Path(|app| &mut app.changes.error_file),
        "",
        "log file of stderr",
    ),
    field(
        &["merge_logs", "combine_logs"],
        Kind::Flag(|app| &mut app.changes.merge_logs),
        "false",
        "one pair of log files for all instances",
    ),
    field(
        &["pid_file", "pid"],
        Kind::Path(|app| &mut app.changes.pid_file),
        "",
        "file that holds its process id while it runs, with -<id> in its name",
    ),
    field(
        &["log_file", "log"],
        Kind::Other(logs::COMBINED),
        "",
        "one more log file, for stdout and stderr together",
    ),
    field(
        &["log_date_format"],
        Kind::Other(logs::DATE_FORMAT),
        "",
        "date before each line: YYYY MM DD HH mm ss SSS Z and others of dayjs",
    ),
    field(&["time"], Kind::Other(logs::TIME_FLAG), "false", "date before each line: YYYY-MM-DDTHH:mm:ss"),
    field(
        &["log_type"],
        Kind::Choice(
            &["raw", "json"],
            |app, word| app.changes.logs.format = Format::named(word),
            |app| app.changes.logs.format.map(Format::word),
        ),
        "\"raw\"",
        "lines as they are, or each as a JSON object",
    ),
    field(&["disable_logs"], Kind::Flag(|app| &mut app.changes.logs.disabled), "false", "keep no output"),
    field(
        &["log_rotate"],
        Kind::Other(logs::ROTATION),
        "",
        "old log files: max_size, rotateInterval, retain, retain_age, retain_size, compress, dateFormat, TZ",
    ),
    field(
        &["log_full"],
        Kind::Choice(
            &["drop", "block"],
            |app, word| app.changes.logs.full = Full::named(word),
            |app| app.changes.logs.full.map(Full::word),
        ),
        "\"drop\"",
        "while its disk is full: output is counted and lost, or waits, and the app with it",
    ),
    field(
        &["autorestart"],
        Kind::Flag(|app| &mut app.changes.autorestart),
        "true",
        "start it again when it ends",
    ),
    field(
        &["stop_exit_codes"],
        Kind::Other(STOP_EXIT_CODES),
        "[]",
        "exit codes after which it is not started again",
    ),
    field(
        &["min_uptime"],
        Kind::Length(|app| &mut app.changes.min_uptime),
        "1000",
        "what ends earlier ended unstable",
    ),
    field(&["max_restarts"], Kind::Other(MAX_RESTARTS), "16", "unstable ends in a row until it is given up"),
    field(
        &["restart_window"],
        Kind::Length(|app| &mut app.changes.restart_window),
        "60000",
        "length of time in which max_restarts are counted",
    ),
    field(
        &["restart_delay"],
        Kind::Length(|app| &mut app.changes.restart_delay),
        "0",
        "pause before each restart",
    ),
    field(
        &["exp_backoff_restart_delay"],
        Kind::Length(|app| &mut app.changes.exp_backoff),
        "0",
        "first pause of a growing one",
    ),
    field(
        &["kill_timeout"],
        Kind::Length(|app| &mut app.changes.kill_timeout),
        "1600",
        "from the stop signal to SIGKILL",
    ),
    field(&["stop_signal"], Kind::Other(STOP_SIGNAL), "\"SIGINT\"", "what asks it to end"),
    field(
        &["stop_sequence"],
        Kind::Other(STOP_SEQUENCE),
        "[]",
        "signals in turn, each with its time, then SIGKILL: \"SIGTERM 10s, SIGINT 5s\"",
    ),
    field(
        &["shutdown_with_message"],
        Kind::Flag(|app| &mut app.changes.shutdown_with_message),
        "false",
        "ask it to end by the message \"shutdown\" (Node and Bun)",
    ),
    field(
        &["kill_mode"],
        Kind::Choice(
            &["tree", "group", "process"],
            |app, word| app.changes.kill_mode = KillMode::named(word),
            |app| app.changes.kill_mode.map(KillMode::word),
        ),
        "\"tree\"",
        "whom a stop is for: all it started, its process group, or itself",
    ),
    field(
        &["stdin"],
        Kind::Choice(
            &["null", "pipe"],
            |app, word| app.changes.stdin = Stdin::named(word),
            |app| app.changes.stdin.map(Stdin::word),
        ),
        "\"null\"",
        "what it reads from: nothing, or a pipe for pmx send and attach",
    ),
    field(&["treekill"], Kind::Other(TREEKILL), "true", "false is pm2's word for kill_mode process"),
    field(
        &["depends_on"],
        Kind::Other(DEPENDS_ON),
        "[]",
        "apps that must be started, ready, healthy or completed before it is started",
    ),
    field(
        &["pre_start"],
        Kind::Text("a line for a shell", |app| &mut app.changes.pre_start),
        "",
        "command before each start of it; if it fails, the start has failed",
    ),
    field(
        &["post_stop"],
        Kind::Text("a line for a shell", |app| &mut app.changes.post_stop),
        "",
        "command after each end of it",
    ),
    field(
        &["hook_timeout"],
        Kind::Length(|app| &mut app.changes.hook_timeout),
        "30000",
        "how long pre_start and post_stop may take",
    ),
    field(
        &["on"],
        Kind::Other(ON),
        "",
        "what is run or told by crash, errored, restart, reload_failed, unhealthy, oom, leak and disk",
    ),
    field(
        &["post_update"],
        Kind::Other(POST_UPDATE),
        "[]",
        "commands after pull, forward and backward, before its reload",
    ),
    field(
        &["autostart"],
        Kind::Flag(|app| &mut app.changes.autostart),
        "true",
        "start it now, or only put it in the list",
    ),
    field(
        &["limits"],
        Kind::Other(LIMITS),
        "{}",
        "what its processes may use: nofile, memory, cpu, pids, nice and others",
    ),
    field(&["umask"], Kind::Other(UMASK), "", "file mode creation mask, in octal (the caller's)"),
    field(
        &["no_new_privs"],
        Kind::Flag(|app| &mut app.changes.no_new_privs),
        "",
        "no setuid program gives it more rights (true if it runs as another user)",
    ),
    field(&["capabilities"], Kind::Other(CAPABILITIES), "", "all capabilities that it can ever have"),
    field(
        &["wait_ready"],
        Kind::Flag(|app| &mut app.changes.wait_ready),
        "false",
        "it is online when it has sent \"ready\"",
    ),
    field(
        &["ready"],
        Kind::Choice(
            &["notify", "message", "listen", "uptime", "spawned"],
            |app, word| app.changes.ready = Readiness::named(word),
            |app| app.changes.ready.map(Readiness::word),
        ),
        "",
        "what makes it online: READY=1 to $NOTIFY_SOCKET, \"ready\", that it listens, min_uptime, its start",
    ),
    field(
        &["watchdog"],
        Kind::Length(|app| &mut app.changes.watchdog),
        "0",
        "replace it when it says no WATCHDOG=1 to $NOTIFY_SOCKET for so long",
    ),
    field(
        &["health"],
        Kind::Other(HEALTH),
        "",
        "how its health is checked, and what follows when that fails",
    ),
    field(
        &["listen_timeout"],
        Kind::Length(|app| &mut app.changes.listen_timeout),
        "3000",
        "how long it may take to listen or be ready",
    ),
    field(
        &["bake_time"],
        Kind::Length(|app| &mut app.changes.bake_time),
        "300",
        "how long a new child must live before the old one drains",
    ),
    field(
        &["drain_timeout"],
        Kind::Length(|app| &mut app.changes.drain_timeout),
        "10000",
        "how long open requests may take in a reload",
    ),
    field(
        &["max_memory_restart"],
        Kind::Other(triggers::MAX_MEMORY),
        "",
        "replace it above this much memory, of all it started: \"300M\", \"80%\"",
    ),
    field(&["cron_restart", "cron"], Kind::Other(triggers::CRON_RESTART), "", "restart it at these times"),
    field(
        &["schedule"],
        Kind::Other(triggers::SCHEDULE),
        "",
        "a job: start it at these times, down in between",
    ),
    field(
        &["overlap"],
        Kind::Choice(
            &["skip", "queue", "kill"],
            |app, word| app.changes.triggers.overlap = Overlap::named(word),
            |app| app.changes.triggers.overlap.map(Overlap::word),
        ),
        "\"skip\"",
        "what a job does that is due while it runs",
    ),
    field(
        &["cron_timezone", "timezone"],
        Kind::Text("a time zone such as Europe/Berlin", |app| &mut app.changes.triggers.zone),
        "",
        "time zone of cron_restart and schedule (TZ, or the machine's)",
    ),
    field(
        &["watch"],
        Kind::Other(triggers::WATCH),
        "false",
        "restart it when files change: true (its cwd), or paths",
    ),
    field(
        &["ignore_watch"],
        Kind::Other(triggers::IGNORE_WATCH),
        "[]",
        "files whose changes do not matter: names, paths or globs",
    ),
    field(
        &["watch_delay"],
        Kind::Length(|app| &mut app.changes.triggers.delay),
        "0",
        "how long files must be quiet",
    ),
    field(&["watch_options"], Kind::Other(triggers::WATCH_OPTIONS), "", "options of pm2's watcher"),
    field(&["ext"], Kind::Other(triggers::EXT), "", "watch only files with these extensions"),
    field(
        &["critical"],
        Kind::Flag(|app| &mut app.critical),
        "false",
        "its end ends the container, with --exit-on critical",
    ),
    // pm2 has these and pmx does not yet.
    field(
        &[
            "deep_monitoring",
            "event_loop_inspector",
            "install_url",
            "io",
            "source_map_support",
            "trace",
            "v8",
        ],
        Kind::Foreign,
        "",
        "of pm2's modules and monitoring: without effect here, and that is said",
    ),
    // `max` is of pm2 0.x; `force` of a file never did anything, because a file restarts; the rest switches
    // parts of pm2 that pmx has no counterpart of.
    field(
        &[
            "max",
            "force",
            "username",
            "vizion",
            "pmx",
            "automation",
            "disable_source_map_support",
            "windows_hide",
            "kill_retry_time",
            "disable_trace",
            "km_link",
            "deploy",
            "write",
        ],
        Kind::Ignored,
        "",
        "of pm2, and without a meaning here",
    ),
];

const HEALTH: Other = Other {
    expected: "an object with one of http, tcp and exec",
    schema: super::health::SCHEMA,
    set: |app, value| {
        app.changes.health = Some(Box::new(super::health::read(value)?));
        Ok(())
    },
    get: |app| app.changes.health.as_deref().map(super::health::written),
};

const SCRIPT: Other = Other {
    expected: "the path of a script or a command",
    schema: r#"{"type": "string", "minLength": 1}"#,
    set: |app, value| {
        app.script = Text::from(kind::text(value)?);
        Ok(())
    },
    get: |app| Some(kind::written(&app.script)),
};

const INSTANCES: Other = Other {
    expected: "a number of instances, or \"max\"",
    schema: r#"{"type": ["integer", "string"], "pattern": "^ *([+-]?[0-9]+|max) *$"}"#,
    set: |app, value| {
        app.changes.instances = Some(kind::instances(value)?);
        Ok(())
    },
    get: |app| {
        Some(match app.changes.instances? {
            Instances::Count(count) => Value::from(count),
            Instances::CpusLess(0) => Value::from("max"),
            Instances::CpusLess(fewer) => Value::from(-i64::from(fewer)),
        })
    },
};

const ENV: Other = Other {
    expected: "an object of variables",
    schema: r#"{"type": "object"}"#,
    set: |app, value| {
        app.env = variables(value)?;
        Ok(())
    },
    get: |app| {
        let pair = |(name, value): (&Text, &Text)| (name.lossy().into_owned(), kind::written(value));
        let env: serde_json::Map<_, _> = app.env.0.iter().map(pair).collect();
        Some(Value::Object(env)).filter(|_| !app.env.0.is_empty())
    },
};

const ENV_FILE: Other = Other {
    expected: "a path or an array of paths",
    schema: r#"{"type": ["string", "array"], "items": {"type": "string", "minLength": 1}}"#,
    set: |app, value| {
        let path = |value| kind::text(value).map(Text::from);
        app.env_files = match value {
            Value::Array(values) => values.iter().map(path).collect::<Result<_, _>>()?,
            value => vec![path(value)?],
        };
        Ok(())
    },
    get: |app| match &app.env_files[..] {
        [] => None,
        [one] => Some(kind::written(one)),
        files => Some(Value::Array(files.iter().map(kind::written).collect())),
    },
};

const FILTER_ENV: Other = Other {
    expected: "true, a name, or an array of beginnings of names",
    schema: filter::SCHEMA,
    set: |app, value| filter::read(value).map(|filter| app.changes.filter_env = Some(filter)),
    get: |app| app.changes.filter_env.as_ref().map(filter::written),
};

/// The variables of an object. The error is what is wrong with them beyond not being an object, or empty.
pub fn variables(value: &Value) -> Result<Env, String> {
    let Value::Object(map) = value else { return Err(String::new()) };
    let mut env = Env::default();
    for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        // Objects and arrays become JSON text, as in pm2.
        let text = variable(value).unwrap_or_else(|| value.to_string());
        super::check_variable(name, &text)?;
        env.set(name, text);
    }
    Ok(env)
}

const PORT: Other = Other {
    expected: "a port number",
    schema: r#"{"type": ["integer", "string"], "minimum": 0, "maximum": 65535, "pattern": "^ *[0-9]+ *$"}"#,
    set: |app, value| {
        app.port = Some(kind::number(value)?);
        Ok(())
    },
    // It is among the variables by then.
    get: |_| None,
};

const MAX_RESTARTS: Other = Other {
    expected: "a number or \"unlimited\"",
    schema: r#"{"type": ["integer", "string"], "pattern": "^ *([0-9]+|-1|unlimited) *$"}"#,
    set: |app, value| {
        app.changes.max_restarts = Some(kind::number(value)?);
        Ok(())
    },
    get: |app| app.changes.max_restarts.map(|budget| json!(budget)),
};

const STOP_SIGNAL: Other = Other {
    expected: "the name or number of a signal",
    schema: r#"{"type": ["integer", "string"], "minimum": 1, "maximum": 64}"#,
    set: |app, value| {
        app.changes.stop_signal = Some(signal(value)?);
        Ok(())
    },
    get: |app| app.changes.stop_signal.map(stop::written),
};

const STOP_SEQUENCE: Other = Other {
    expected: "up to 8 steps such as \"SIGTERM 10s\" or {\"signal\": \"SIGTERM\", \"wait\": \"10s\"}",
    schema: r#"{"type": ["array", "string"], "maxItems": 8, "items": {"type": ["string", "object"], "required": ["signal", "wait"]}}"#,
    set: |app, value| {
        let line = |value: &Value| {
            let steps = value.as_str().and_then(stop::sequence);
            steps.ok_or_else(String::new)
        };
        let mut steps = Vec::new();
        match value {
            Value::Array(values) => {
                for value in values {
                    match value {
                        Value::Object(step) if step.len() == 2 => {
                            let part = |name: &str| step.get(name).ok_or_else(String::new);
                            let wait = kind::length(part("wait")?)?;
                            steps.push(Step { signal: signal(part("signal")?)?, wait });
                        }
                        value => steps.extend(line(value)?),
                    }
                }
            }
            value => steps = line(value)?,
        }
        if steps.len() > stop::STEPS_LIMIT {
            return Err(String::new());
        }
        app.changes.stop_sequence = Some(steps);
        Ok(())
    },
    get: |app| app.changes.stop_sequence.as_ref().map(|steps| json!(steps)),
};

const DEPENDS_ON: Other = Other {
    expected: "names of apps, or an object of names and started, ready, healthy or completed",
    schema: r#"{"type": ["array", "object", "string"]}"#,
    set: |app, value| {
        let condition = |value: &Value| {
            let word = value.as_str().or(value.get("condition").and_then(Value::as_str));
            word.and_then(Condition::named).ok_or_else(String::new)
        };
        let depends_on: Result<Vec<Dependency>, String> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(app, value)| Ok(Dependency { app: app.clone(), condition: condition(value)? }))
                .collect(),
            Value::Array(values) => values
                .iter()
                .map(|value| match value {
                    Value::Object(_) => serde_json::from_value(value.clone()).map_err(|_| String::new()),
                    name => Ok(Dependency { app: kind::text(name)?, condition: Condition::default() }),
                })
                .collect(),
            name => Ok(vec![Dependency { app: kind::text(name)?, condition: Condition::default() }]),
        };
        app.changes.depends_on = Some(depends_on?);
        Ok(())
    },
    get: |app| app.changes.depends_on.as_ref().map(|on| json!(on)),
};

const POST_UPDATE: Other = Other {
    expected: "a command for a shell or an array of them",
    schema: r#"{"type": ["array", "string"], "items": {"type": "string", "minLength": 1}}"#,
    set: |app, value| {
        let commands = match value {
            Value::Array(values) => values.iter().map(kind::text).collect::<Result<_, _>>()?,
            value => vec![kind::text(value)?],
        };
        app.changes.post_update = Some(commands);
        Ok(())
    },
    get: |app| app.changes.post_update.as_ref().map(|commands| json!(commands)),
};

const ON: Other = Other {
    expected: "an object of events and commands, or addresses",
    schema: r#"{
        "type": "object",
        "propertyNames": {"enum": ["crash", "errored", "restart", "reload_failed", "unhealthy", "oom", "leak", "disk"]},
        "additionalProperties": {"type": ["string", "array", "object", "boolean", "null"]}
    }"#,
    set: |app, value| {
        app.changes.on = Some(Alerts::read(value)?);
        Ok(())
    },
    get: |app| app.changes.on.as_ref().map(Alerts::written),
};

const TREEKILL: Other = Other {
    expected: "true or false",
    schema: r#"{"type": "boolean"}"#,
    set: |app, value| {
        // `kill_mode` says more, and is not undone by it.
        if !kind::flag(value)? {
            app.changes.kill_mode = Some(KillMode::Process);
        }
        Ok(())
    },
    // It is the kill mode by then.
    get: |_| None,
};

fn signal(value: &Value) -> Result<i32, String> {
    let text = variable(value).ok_or_else(String::new)?;
    stop::signal(&text).ok_or_else(String::new)
}

const STOP_EXIT_CODES: Other = Other {
    expected: "an exit code or an array of them",
    schema: r#"{"type": ["array", "integer", "string"], "items": {"type": ["integer", "string"], "minimum": 0, "maximum": 255}}"#,
    set: |app, value| {
        let codes = match value {
            Value::Array(values) => values.iter().map(kind::number::<u8>).collect::<Result<Vec<_>, _>>()?,
            value => vec![kind::number(value)?],
        };
        app.changes.stop_exit_codes = Some(codes.into_iter().map(i32::from).collect());
        Ok(())
    },
    get: |app| app.changes.stop_exit_codes.as_ref().map(|codes| json!(codes)),
};

const LIMITS: Other = Other {
    expected: "an object of limits",
    schema: r#"{"type": "object", "additionalProperties": {"type": ["string", "number"]}, "propertyNames": {"enum": ["as", "core", "cpu", "cpu_time", "data", "fsize", "memlock", "memory", "memory_high", "msgqueue", "nice", "nofile", "nproc", "oom_score_adj", "pids", "rtprio", "sigpending", "stack"]}}"#,
    set: |app, value| {
        app.changes.limits = Some(Limits::declared(value)?);
        Ok(())
    },
    get: |app| {
        let shown = app.changes.limits.as_ref()?.shown();
        Some(Value::Object(shown.into_iter().map(|(name, text)| (name.to_string(), text.into())).collect()))
    },
};

const UMASK: Other = Other {
    expected: "a mask in octal, such as \"027\"",
    schema: r#"{"type": "string", "pattern": "^[0-7]{1,4}$"}"#,
    set: |app, value| {
        app.changes.umask = Some(limits::umask(value).ok_or_else(String::new)?);
        Ok(())
    },
    get: |app| app.changes.umask.map(|mask| Value::from(format!("{mask:03o}"))),
};

const CAPABILITIES: Other = Other {
    expected: "an array of capabilities, such as [\"net_bind_service\"]",
    schema: r#"{"type": "array", "items": {"type": "string"}}"#,
    set: |app, value| {
        app.changes.capabilities = Some(Privileges::capabilities_declared(value)?);
        Ok(())
    },
    get: |app| {
        let privileges =
            Privileges { capabilities: app.changes.capabilities.clone(), ..Privileges::default() };
        privileges.names().map(|names| json!(names))
    },
};

fn set_mode(app: &mut Declared, word: &str) {
    app.changes.mode = Some(if word.starts_with("fork") { Mode::Fork } else { Mode::Cluster });
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::Fork => "fork",
        Mode::Cluster => "cluster",
    }
}

impl Field {
    /// The field that `key` names, in snake case or camel case.
    pub fn named(key: &str) -> Option<&'static Field> {
        let snake = snake(key);
        FIELDS.iter().find(|field| field.names.contains(&snake.as_str()))
    }

    /// The name that was meant by `key`, if it looks like a slip. What begins with a capital is a variable.
    pub fn meant(key: &str) -> Option<&'static str> {
        if key.starts_with(|c: char| !c.is_ascii_lowercase()) {
            return None;
        }
        nearest(&snake(key), FIELDS.iter().flat_map(|field| field.names.iter().copied()))
    }
}

/// The environment that a key such as `env_production` is for.
pub fn overlay(key: &str) -> Option<&str> {
    key.strip_prefix("env_").filter(|name| !name.is_empty() && Field::named(key).is_none())
}

/// `max_restarts` as `maxRestarts`.
pub fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_string();
    for word in words {
        let mut chars = word.chars();
        camel.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    camel
}

/// `maxRestarts` as `max_restarts`; what is no camel case stays as it is.
pub fn snake(key: &str) -> String {
    let mut snake = String::new();
    let mut after_lower = false;
    for c in key.chars() {
        if c.is_ascii_uppercase() && after_lower {
            snake.push('_');
            snake.push(c.to_ascii_lowercase());
        } else {
            snake.push(c);
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    snake
}
