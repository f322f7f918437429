//! What the options mean: the second stage, from words to values.

use std::ffi::OsStr;
use std::os::fd::RawFd;

use super::parse::Typed;
use super::table::{Flag, Opt};
use crate::app::words::words;
use crate::app::{Balance, Changes, ExitOn, Format, Mode, Text, units};
use crate::time::Millis;

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
    /// Of a declaration file, only these.
    pub only: Option<Vec<String>>,
    pub parallel: Option<u32>,
    pub lines: Option<u64>,
    pub nostream: bool,
    pub raw: bool,
    pub streams: Streams,
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
    /// Whose daemon is started at boot.
    pub boot_user: Option<String>,
    /// The directory with the `.pmx` of that daemon.
    pub user_home: Option<Text>,
    pub service_name: Option<String>,
    pub json: bool,
    pub silent: bool,
    pub no_color: bool,
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
                let count = units::instances(&text(value)?);
                changes.instances = Some(count.ok_or("a number of instances, or max")?);
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
            Opt::MergeLogs => changes.merge_logs = Some(true),
            Opt::WaitReady => changes.wait_ready = Some(true),
            Opt::ListenTimeout => changes.listen_timeout = Some(millis(value)?),
            Opt::BakeTime => changes.bake_time = Some(millis(value)?),
            Opt::DrainTimeout => changes.drain_timeout = Some(millis(value)?),
            Opt::KillTimeout => changes.kill_timeout = Some(millis(value)?),
            Opt::MaxRestarts => changes.max_restarts = Some(number(value, "a number")?),
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
            Opt::Uid => self.user = Some(text(value)?),
            Opt::Gid => self.group = Some(text(value)?),
            Opt::UpdateEnv => self.update_env = true,
            Opt::Balance => {
                let named = Balance::named(&text(value)?);
                changes.balance = Some(named.ok_or("reuseport, rr or shared")?);
            }
            Opt::Force => self.force = true,
            Opt::Only => self.only.get_or_insert_default().extend(list(value)?),
            Opt::Parallel => {
                let parallel = number(value, "a number above 0")?;
                self.parallel = Some(parallel).filter(|&n| n > 0);
                self.parallel.ok_or("a number above 0")?;
            }
            Opt::Lines => self.lines = Some(number(value, "a number of lines")?),
            Opt::NoStream => self.nostream = true,
            Opt::Raw => {
                self.raw = true;
                self.format = Format::Raw;
            }
            Opt::Err => self.stream(Streams::Err),
            Opt::Out => self.stream(Streams::Out),
            Opt::Foreground => self.foreground = true,
            Opt::Resurrect => self.resurrect = true,
            Opt::LockFd => self.lock_fd = Some(fd(value)?),
            Opt::ReadyFd => self.ready_fd = Some(fd(value)?),
            Opt::Json => {
                self.json = true;
                self.format = Format::Json;
            }
            Opt::Format => {
                self.format = Format::named(&text(value)?).ok_or("raw or json")?;
            }
            Opt::ExitOn => {
                self.exit_on = Some(ExitOn::named(&text(value)?).ok_or("any, all or critical")?);
            }
            Opt::Grace => self.grace = Some(millis(value)?),
            Opt::DrainDelay => self.drain_delay = Some(millis(value)?),
            Opt::Restart => self.restart = true,
            Opt::App => self.app = Some(text(value)?),
            Opt::Resume => self.resume = Some(fd(value)?),
            Opt::CheckState => self.check_state = Some(fd(value)?),
            Opt::Sweep => self.sweep = true,
            Opt::Auto => self.auto = true,
            Opt::Autosave => self.autosave = true,
            Opt::BootUser => self.boot_user = Some(text(value)?),
            Opt::UserHome => self.user_home = Some(path(value)?),
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

fn text(value: &OsStr) -> Result<String, String> {
    match value.to_str() {
        Some("") => Err("something that is not empty".to_string()),
        Some(text) => Ok(text.to_string()),
        None => Err("UTF-8".to_string()),
    }
}

fn path(value: &OsStr) -> Result<Text, String> {
    if value.is_empty() { Err("a path".to_string()) } else { Ok(Text::from(value)) }
}

fn number<T: std::str::FromStr>(value: &OsStr, expected: &str) -> Result<T, String> {
    value.to_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| expected.to_string())
}

fn millis(value: &OsStr) -> Result<Millis, String> {
    let length = value.to_str().and_then(units::millis);
    length.ok_or_else(|| "milliseconds, or a length of time such as 10s".to_string())
}

/// Beyond the three that are stdin, stdout and stderr.
fn fd(value: &OsStr) -> Result<RawFd, String> {
    let fd = number(value, "an fd above 2")?;
    Some(fd).filter(|&fd| fd > 2).ok_or_else(|| "an fd above 2".to_string())
}

/// Separated by commas or blanks.
fn list(value: &OsStr) -> Result<Vec<String>, String> {
    let text = text(value)?;
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    Ok(words.map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::app::Instances;
    use std::ffi::OsString;

    fn options(line: &[&str]) -> Result<Options, String> {
        Options::of(&parse(line.iter().map(OsString::from)).unwrap())
    }

    #[test]
    fn every_option_of_an_app_arrives() {
        let found = options(&[
            "start",
            "a.js",
            "-n",
            "api",
            "--namespace",
            "web",
            "-i",
            "-1",
            "-x",
            "--interpreter",
            "none",
            "--node-args",
            "--a 'b c'",
            "--cwd",
            "/srv",
            "-o",
            "o",
            "-e",
            "e",
            "--merge-logs",
            "--wait-ready",
            "--listen-timeout",
            "1s",
            "--bake-time",
            "2",
            "--drain-timeout",
            "3",
            "-k",
            "4",
            "--max-restarts",
            "5",
            "--min-uptime",
            "6",
            "--restart-delay",
            "7",
            "--exp-backoff-restart-delay",
            "8",
            "--no-autorestart",
            "--stop-exit-codes",
            "0,3",
            "--stop-exit-codes",
            "4 5",
            "--uid",
            "www",
            "--gid",
            "33",
            "-a",
            "--balance",
            "rr",
            "-f",
            "--only",
            "a,b c",
            "--",
            "x",
            "-y",
        ])
        .unwrap();
        let texts = |words: &[&str]| Some(words.iter().map(Text::from).collect::<Vec<_>>());
        let expected = Changes {
            name: Some("api".to_string()),
            namespace: Some("web".to_string()),
            interpreter_args: texts(&["--a", "b c"]),
            args: texts(&["x", "-y"]),
            cwd: Some(Text::from("/srv")),
            inherit: None,
            instances: Some(Instances::CpusLess(1)),
            mode: Some(Mode::Fork),
            balance: Some(Balance::Rr),
            out_file: Some(Text::from("o")),
            error_file: Some(Text::from("e")),
            merge_logs: Some(true),
            wait_ready: Some(true),
            listen_timeout: Some(Millis(1000)),
            bake_time: Some(Millis(2)),
            drain_timeout: Some(Millis(3)),
            kill_timeout: Some(Millis(4)),
            autorestart: Some(false),
            stop_exit_codes: Some(vec![0, 3, 4, 5]),
            min_uptime: Some(Millis(6)),
            max_restarts: Some(5),
            restart_delay: Some(Millis(7)),
            exp_backoff: Some(Millis(8)),
            user: None,
        };
        assert_eq!(found.changes, expected);
        let mut overlaid = Changes::default();
        overlaid.overlay(&expected);
        overlaid.overlay(&Changes::default());
        assert_eq!(overlaid, expected);
        assert_eq!((found.user.as_deref(), found.group.as_deref()), (Some("www"), Some("33")));
        assert_eq!(found.only, Some(["a", "b", "c"].map(String::from).to_vec()));
        assert!(found.force && found.update_env);
        assert_eq!(found.interpreter.as_deref(), Some("none"));
    }

    #[test]
    fn streams_and_numbers() {
        assert_eq!(options(&["logs"]).unwrap().streams, Streams::Both);
        assert_eq!(options(&["logs", "--err"]).unwrap().streams, Streams::Err);
        assert_eq!(options(&["logs", "--out", "--out"]).unwrap().streams, Streams::Out);
        assert_eq!(options(&["logs", "--out", "--err"]).unwrap().streams, Streams::Both);
        assert_eq!(options(&["reload", "all", "--parallel", "4"]).unwrap().parallel, Some(4));
        assert_eq!(options(&["daemon", "--lock-fd", "3"]).unwrap().lock_fd, Some(3));
    }

    #[test]
    fn a_wrong_value_is_one_sentence() {
        for (line, sentence) in [
            (
                &["start", "a", "-i", "two"][..],
                "--instances: expected a number of instances, or max, got \"two\"",
            ),
            (
                &["start", "a", "-k", "soon"],
                "--kill-timeout: expected milliseconds, or a length of time such as 10s, got \"soon\"",
            ),
            (&["start", "a", "--balance", "x"], "--balance: expected reuseport, rr or shared, got \"x\""),
            (&["start", "a", "--name", ""], "--name: expected something that is not empty, got \"\""),
            (
                &["start", "a", "--stop-exit-codes", "300"],
                "--stop-exit-codes: expected exit codes, separated by commas, got \"300\"",
            ),
            (
                &["start", "a", "--node-args", "'x"],
                "--interpreter-args: expected arguments (a quote ' is not closed), got \"'x\"",
            ),
            (&["reload", "a", "--parallel", "0"], "--parallel: expected a number above 0, got \"0\""),
            (&["logs", "--lines", "-3"], "--lines: expected a number of lines, got \"-3\""),
            (&["daemon", "--lock-fd", "1"], "--lock-fd: expected an fd above 2, got \"1\""),
        ] {
            assert_eq!(options(line).unwrap_err(), sentence);
        }
    }
}
