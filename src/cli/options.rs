//! What the options mean: the second stage, from words to values.

mod values;

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::fd::RawFd;

use super::logs::{DATE, Wanted};
use super::parse::Typed;
use super::table::{Flag, Opt};
use super::web::Web;
use crate::app::line::Level;
use crate::app::words::words;
use crate::app::{
    Balance, Changes, Combined, ExitOn, Format, KillMode, Mode, Overlap, Stdin, Text, Watched, logs, stop,
    units,
};
use crate::logs::moment::Moment;
use crate::time::Millis;
use values::{cron, fd, list, millis, number, path, read, text};

/// What is said about a folder that is served.
#[derive(Debug, Default, PartialEq)]
pub struct Serve {
    pub port: Option<String>,
    pub spa: bool,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Everything that options can say, with its defaults.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// What is said about the app; paths as typed, without user and environment.
    pub changes: Changes,
    pub interpreter: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub update_env: bool,
    pub force: bool,
    /// Of a declaration file, the overlay of this environment.
    pub env: Option<String>,
    /// Of a declaration file, only these.
    pub only: Option<Vec<String>>,
    pub dry_run: bool,
    pub prune: bool,
    /// Of an environment, what would change.
    pub diff: bool,
    pub parallel: Option<u32>,
    pub lines: Option<u64>,
    pub nostream: bool,
    pub raw: bool,
    pub streams: Streams,
    pub wanted: Wanted,
    pub foreground: bool,
    pub resurrect: bool,
    pub lock_fd: Option<RawFd>,
    pub ready_fd: Option<RawFd>,
    pub exit_on: Option<ExitOn>,
    pub grace: Option<Millis>,
    pub drain_delay: Option<Millis>,
    pub format: Format,
    /// A single app of a container is restarted too.
    pub restart: bool,
    /// Of a health check.
    pub app: Option<String>,
    pub resume: Option<RawFd>,
    pub check_state: Option<RawFd>,
    pub sweep: bool,
    pub auto: bool,
    pub autosave: bool,
    pub tidy: bool,
    pub deliver: bool,
    pub take_over: bool,
    pub serve: Serve,
    pub web: Web,
    pub tree: bool,
    pub sort: Option<Sort>,
    /// Options of pm2 that were given in vain.
    pub foreign: Vec<String>,
    /// What is said about a script is written down.
    pub write: bool,
    /// When an action is done, the small list follows.
    pub mini_list: bool,
    /// And the logs of what it was about.
    pub attach: bool,
    /// Whose daemon is started at boot.
    pub boot_user: Option<String>,
    /// The directory with the `.pmx` of that daemon.
    pub user_home: Option<Text>,
    pub service_name: Option<String>,
    /// The network is to be there first.
    pub wait_ip: bool,
    /// A restart of the service is none of its apps.
    pub keep: bool,
    pub json: bool,
    /// Memory is to be looked at closely.
    pub pss: bool,
    /// It is about the machine.
    pub host: bool,
    pub silent: bool,
    pub no_color: bool,
}

/// The order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub by: SortBy,
    pub descending: bool,
}

/// What it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Name,
    Namespace,
    Pid,
    Id,
    Cpu,
    Memory,
    Uptime,
    Status,
}

impl Sort {
    /// `memory`, `memory:asc` or `memory:desc`.
    fn named(text: &str) -> Option<Sort> {
        let (field, descending) = match text.split_once(':') {
            None => (text, false),
            Some((field, "asc")) => (field, false),
            Some((field, "desc")) => (field, true),
            Some(_) => return None,
        };
        let by = match field {
            "name" => SortBy::Name,
            "namespace" => SortBy::Namespace,
            "pid" => SortBy::Pid,
            "id" => SortBy::Id,
            "cpu" => SortBy::Cpu,
            "memory" => SortBy::Memory,
            "uptime" => SortBy::Uptime,
            "status" => SortBy::Status,
            _ => return None,
        };
        Some(Sort { by, descending })
    }
}

/// Which of an app's streams `logs` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    #[default]
    Both,
    Out,
    Err,
}

impl Options {
    /// Reads the values of what was typed. The error is one sentence.
    pub fn of(typed: &Typed) -> Result<Options, String> {
        let mut options = Options::default();
        for (opt, value) in &typed.given {
            options.set(*opt, value).map_err(|expected| {
                format!("{}: expected {expected}, got {:?}", Flag::of(*opt).name(), value.to_string_lossy())
            })?;
        }
        if let Some(rest) = &typed.rest {
            options.changes.args = Some(rest.iter().map(Text::from).collect());
        }
        Ok(options)
    }

    fn set(&mut self, opt: Opt, value: &OsStr) -> Result<(), String> {
        let changes = &mut self.changes;
        match opt {
            Opt::Name => changes.name = Some(text(value)?),
            Opt::Namespace => changes.namespace = Some(text(value)?),
            Opt::Instances => {
                let count = read(value, units::instances, "a number of instances, or max")?;
                changes.instances = Some(count);
            }
            Opt::ExecuteCommand => changes.mode = Some(Mode::Fork),
            Opt::Interpreter => self.interpreter = Some(text(value)?),
            Opt::InterpreterArgs => {
                let words = words(&text(value)?).map_err(|fault| format!("arguments ({fault})"))?;
                changes.interpreter_args = Some(words.into_iter().map(Text::from).collect());
            }
            Opt::Cwd => changes.cwd = Some(path(value)?),
            Opt::Output => changes.out_file = Some(path(value)?),
            Opt::Error => changes.error_file = Some(path(value)?),
            Opt::PidFile => changes.pid_file = Some(path(value)?),
            Opt::MergeLogs => changes.merge_logs = Some(true),
            Opt::Log => changes.logs.combined = Some(Combined::File(path(value)?)),
            Opt::LogDateFormat => changes.logs.date = Some(text(value)?),
            Opt::Time => {
                changes.logs.date.get_or_insert_with(|| logs::TIME.to_string());
            }
            Opt::LogType => changes.logs.format = Some(read(value, Format::named, "raw or json")?),
            Opt::DisableLogs => changes.logs.disabled = Some(true),
            Opt::WaitReady => changes.wait_ready = Some(true),
            Opt::ListenTimeout => changes.listen_timeout = Some(millis(value)?),
            Opt::BakeTime => changes.bake_time = Some(millis(value)?),
            Opt::DrainTimeout => changes.drain_timeout = Some(millis(value)?),
            Opt::KillTimeout => changes.kill_timeout = Some(millis(value)?),
            Opt::StopSignal => {
                let signal = read(value, stop::signal, "the name or number of a signal")?;
                changes.stop_signal = Some(signal);
            }
            Opt::StopSequence => {
                let steps = read(value, stop::sequence, "steps such as 'SIGTERM 10s, SIGINT 5s'")?;
                changes.stop_sequence = Some(steps);
            }
            Opt::ShutdownWithMessage => changes.shutdown_with_message = Some(true),
            Opt::KillMode => {
                changes.kill_mode = Some(read(value, KillMode::named, "tree, group or process")?);
            }
            Opt::Port => self.serve.port = Some(text(value)?),
            Opt::Spa => self.serve.spa = true,
            Opt::AuthUser => self.serve.username = Some(text(value)?),
            Opt::AuthPassword => self.serve.password = Some(text(value)?),
            Opt::Address => self.web.address = Some(text(value)?),
            Opt::AllowHost => self.web.hosts.push(text(value)?),
            Opt::NewToken => self.web.new_token = true,
            Opt::TokenLifetime => self.web.token_lifetime = Some(millis(value)?),
            Opt::Stdin => changes.stdin = Some(read(value, Stdin::named, "null or pipe")?),
            Opt::NoTreekill => changes.kill_mode = Some(KillMode::Process),
            Opt::NoAutostart => changes.autostart = Some(false),
            Opt::MaxRestarts => changes.max_restarts = Some(number(value, "a number or unlimited")?),
            Opt::RestartWindow => changes.restart_window = Some(millis(value)?),
            Opt::MinUptime => changes.min_uptime = Some(millis(value)?),
            Opt::RestartDelay => changes.restart_delay = Some(millis(value)?),
            Opt::ExpBackoff => changes.exp_backoff = Some(millis(value)?),
            Opt::NoAutorestart => changes.autorestart = Some(false),
            Opt::StopExitCodes => {
                let codes = changes.stop_exit_codes.get_or_insert_default();
                for code in list(value)? {
                    let code: u8 = code.parse().map_err(|_| "exit codes, separated by commas".to_string())?;
                    codes.push(i32::from(code));
                }
            }
            Opt::MaxMemoryRestart => {
                changes.triggers.max_memory = Some(read(value, units::memory, "bytes, 300M, or 80%")?);
            }
            Opt::CronRestart => changes.triggers.cron = Some(cron(value)?),
            Opt::Schedule => changes.triggers.schedule = Some(cron(value)?),
            Opt::CronTimezone => changes.triggers.zone = Some(text(value)?),
            Opt::Overlap => {
                changes.triggers.overlap = Some(read(value, Overlap::named, "skip, queue or kill")?);
            }
            Opt::Watch => {
                let paths: Vec<Text> = list(value).unwrap_or_default().iter().map(Text::from).collect();
                changes.triggers.watch =
                    Some(if paths.is_empty() { Watched::Cwd } else { Watched::Paths(paths) });
            }
            Opt::NoWatch => changes.triggers.watch = Some(Watched::Off),
            Opt::IgnoreWatch => changes.triggers.ignore.get_or_insert_default().extend(list(value)?),
            Opt::WatchDelay => changes.triggers.delay = Some(millis(value)?),
            Opt::Ext => changes.triggers.extensions = Some(list(value)?),
            Opt::Uid => self.user = Some(text(value)?),
            Opt::Gid => self.group = Some(text(value)?),
            Opt::UpdateEnv => self.update_env = true,
            Opt::FilterEnv => {
                let filter = changes.filter_env.get_or_insert_default();
                list(value)?.iter().for_each(|beginning| filter.add(beginning));
            }
            Opt::Balance => {
                changes.balance = Some(read(value, Balance::named, "reuseport, rr or shared")?);
            }
            Opt::Force => self.force = true,
            Opt::Env => self.env = Some(text(value)?),
            Opt::Only => self.only.get_or_insert_default().extend(list(value)?),
            Opt::DryRun => self.dry_run = true,
            Opt::Prune => self.prune = true,
            Opt::Diff => self.diff = true,
            Opt::Parallel => {
                let parallel: NonZeroU32 = number(value, "a number above 0")?;
                self.parallel = Some(parallel.get());
            }
            Opt::Lines => self.lines = Some(number(value, "a number of lines")?),
            Opt::NoStream => self.nostream = true,
            Opt::Raw => {
                self.raw = true;
                self.format = Format::Raw;
            }
            Opt::Since => self.wanted.since = Some(Moment::read(value)?),
            Opt::Until => self.wanted.until = Some(Moment::read(value)?),
            Opt::Level => {
                let named = |text: &str| Level::named(text.as_bytes());
                self.wanted.level = Some(read(value, named, "trace, debug, info, warn, error or fatal")?);
            }
            Opt::Grep => {
                let text = Some(text(value)?).filter(|text| !text.contains('\n'));
                self.wanted.grep = Some(text.ok_or("what is in one line")?);
            }
            Opt::Fixed => self.wanted.fixed = true,
            Opt::IgnoreCase => self.wanted.ignore_case = true,
            Opt::Timestamp => {
                let format = Some(value).filter(|value| !value.is_empty()).map(text).transpose()?;
                self.wanted.date = Some(format.unwrap_or_else(|| DATE.to_string()));
            }
            Opt::Highlight => self.wanted.highlight = Some(text(value)?),
            Opt::Err => self.stream(Streams::Err),
            Opt::Out => self.stream(Streams::Out),
            Opt::Foreground => self.foreground = true,
            Opt::Resurrect => self.resurrect = true,
            Opt::LockFd => self.lock_fd = Some(fd(value)?),
            Opt::ReadyFd => self.ready_fd = Some(fd(value)?),
            Opt::Pss => self.pss = true,
            Opt::Host => self.host = true,
            Opt::Json => {
                self.json = true;
                self.format = Format::Json;
            }
            // Of logs it has no value.
            Opt::Format if value.is_empty() => self.wanted.fields = true,
            Opt::Format => self.format = read(value, Format::named, "raw or json")?,
            Opt::ExitOn => self.exit_on = Some(read(value, ExitOn::named, "any, all or critical")?),
            Opt::Grace => self.grace = Some(millis(value)?),
            Opt::DrainDelay => self.drain_delay = Some(millis(value)?),
            Opt::Restart => self.restart = true,
            Opt::App => self.app = Some(text(value)?),
            Opt::Resume => self.resume = Some(fd(value)?),
            Opt::CheckState => self.check_state = Some(fd(value)?),
            Opt::Sweep => self.sweep = true,
            Opt::Auto => self.auto = true,
            Opt::Autosave => self.autosave = true,
            Opt::Tidy => self.tidy = true,
            Opt::Deliver => self.deliver = true,
            Opt::TakeOver => self.take_over = true,
            Opt::Tree => self.tree = true,
            Opt::Sort => {
                let expected = "name, namespace, pid, id, cpu, memory, uptime or status, perhaps with :desc";
                self.sort = Some(read(value, Sort::named, expected)?);
            }
            Opt::MiniList => self.mini_list = true,
            Opt::Write => self.write = true,
            Opt::Attach => self.attach = true,
            Opt::Foreign => self.foreign.push(text(value)?),
            Opt::OfPm2 => {}
            Opt::BootUser => self.boot_user = Some(text(value)?),
            Opt::UserHome => self.user_home = Some(path(value)?),
            Opt::Keep => self.keep = true,
            Opt::WaitIp => self.wait_ip = true,
            Opt::ServiceName => self.service_name = Some(text(value)?),
            Opt::Silent => self.silent = true,
            Opt::NoColor => self.no_color = true,
            Opt::Help | Opt::Version => {}
        }
        Ok(())
    }

    /// `--err --out` asks for both.
    fn stream(&mut self, stream: Streams) {
        let other = self.streams != Streams::Both && self.streams != stream;
        self.streams = if other { Streams::Both } else { stream };
    }
}

#[cfg(test)]
mod tests;
