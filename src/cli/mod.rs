//! The command line: parse what was typed, work out what it means, talk to the daemon, print.

mod act;
mod caller;
mod connect;
mod describe;
mod format;
mod grid;
mod help;
mod home;
mod jlist;
mod list;
mod logs;
mod nearest;
mod options;
mod parse;
mod resolve;
mod resurrect;
mod runtime;
mod save;
mod screen;
mod start;
mod startup;
mod store;
mod table;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::app::Container;
use crate::protocol::{Answer, Verb};
use crate::sys::{signals, terminal, users};
use act::Action;
use caller::Caller;
use connect::{Connection, RequestError};
use home::Home;
use options::Options;
use parse::Typed;
use screen::{Color, Fail, Screen};
use table::{Cmd, Command, Opt};

/// What a command line came to.
#[derive(Debug, PartialEq)]
pub enum Run {
    /// The command is done; this is its exit code.
    Exit(u8),
    /// Say whether this program could go on from the state on this fd.
    CheckState(RawFd),
    /// Be the daemon: `main` hands this on, because the command line may not know it.
    Daemon(DaemonRun),
    /// Be the first process of a container.
    Runtime(RuntimeRun),
}

/// How a container is to run.
#[derive(Debug, PartialEq)]
pub struct RuntimeRun {
    /// Where its control socket may be: the first place that can be used.
    pub homes: Vec<PathBuf>,
    /// Its apps, and how they end.
    pub container: Container,
}

/// How the daemon is to run.
#[derive(Debug, PartialEq)]
pub struct DaemonRun {
    /// Its home, an existing private directory.
    pub home: PathBuf,
    /// Log to stderr; no client waits for it.
    pub foreground: bool,
    /// Start the saved apps.
    pub resurrect: bool,
    /// The locked `pmx.lock`, when a client took the lock and handed it down.
    pub lock_fd: Option<RawFd>,
    /// Where to write `ok\n` once it serves, or a sentence why it cannot.
    pub ready_fd: Option<RawFd>,
    /// The board of the process that became this one.
    pub resume: Option<RawFd>,
}

/// One command and all it needs.
struct Session<'a, 's> {
    caller: &'a Caller,
    home: Home,
    options: Options,
    screen: &'a mut Screen<'s>,
    connection: Option<Connection>,
}

/// Runs a command line, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Run {
    let args = runtime::words(args);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut err = std::io::stderr().lock();
    let width = terminal::width(std::io::stdout());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = width.is_some() && std::io::stderr().is_terminal() && !plain;
    let mut screen = Screen { out: &mut out, err: &mut err, width, color, silent: false };
    match Caller::of_process() {
        Ok(caller) => run_with(args, &caller, &mut screen),
        Err(sentence) => fail(&mut screen, &sentence),
    }
}

/// The exit code is decided here and nowhere else.
fn run_with(args: impl IntoIterator<Item = OsString>, caller: &Caller, screen: &mut Screen<'_>) -> Run {
    let result = parse::parse(args).map_err(Fail::from).and_then(|typed| dispatch(typed, caller, screen));
    let result = result.and_then(|run| screen.flush().map(|()| run));
    match result {
        Ok(run) => run,
        Err(Fail::Closed) => Run::Exit(0),
        Err(Fail::Said) => {
            let _ = screen.flush();
            Run::Exit(1)
        }
        Err(Fail::Sentence(sentence)) => fail(screen, &sentence),
        Err(Fail::Code(code, sentence)) => {
            fail(screen, &sentence);
            Run::Exit(code)
        }
    }
}

fn fail(screen: &mut Screen<'_>, sentence: &str) -> Run {
    let sentence = screen.paint(Color::Red, &screen::escaped(sentence));
    screen.complain(&sentence);
    Run::Exit(1)
}

fn dispatch(typed: Typed, caller: &Caller, screen: &mut Screen<'_>) -> Result<Run, Fail> {
    const DONE: Run = Run::Exit(0);
    let help = typed.has(Opt::Help);
    let cmd = match typed.cmd {
        _ if typed.has(Opt::Version) => Cmd::Version,
        Some(cmd) if help && cmd != Cmd::Help => {
            screen.data(help::page(Command::of(cmd)).as_bytes())?;
            return Ok(DONE);
        }
        Some(cmd) => cmd,
        None if help => Cmd::Help,
        None => {
            screen.complain(help::overview().trim_end());
            return Ok(Run::Exit(1));
        }
    };
    if !matches!(cmd, Cmd::Daemon | Cmd::Runtime) {
        // Those two catch them first.
        signals::unblock();
    }
    let operands = operands(cmd, &typed)?;
    match cmd {
        Cmd::Version => {
            screen.data(concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes())?;
            return Ok(DONE);
        }
        Cmd::Help => {
            let page = match operands.first() {
                Some(name) => help::page(parse::command(name.as_ref())?),
                None => help::overview(),
            };
            screen.data(page.as_bytes())?;
            return Ok(DONE);
        }
        _ => {}
    }
    let options = Options::of(&typed)?;
    screen.silent = options.silent;
    screen.color &= !options.no_color;
    if cmd == Cmd::Runtime {
        return runtime::runtime(caller, &options, &operands, screen);
    }
    let home = Home::of(caller)?;
    if cmd == Cmd::Daemon {
        if let Some(state) = options.check_state {
            return Ok(Run::CheckState(state));
        }
        if options.sweep {
            return startup::sweep::sweep(caller).map(|()| DONE);
        }
        home.prepare()?;
        let Options { foreground, resurrect, lock_fd, ready_fd, resume, .. } = options;
        if lock_fd.is_some() {
            // Started by a client: Ctrl-C in its terminal is not for us. (A daemon in the foreground
            // of a terminal or of a supervisor stays where it is.)
            users::new_session()
                .map_err(|error| format!("start a session: {}", crate::sys::reason(&error)))?;
        }
        let run = DaemonRun { home: home.path, foreground, resurrect, lock_fd, ready_fd, resume };
        return Ok(Run::Daemon(run));
    }
    let mut session = Session { caller, home, options, screen, connection: None };
    session.command(cmd, &operands)?;
    Ok(DONE)
}

/// The operands as text, in the number that the command takes.
fn operands(cmd: Cmd, typed: &Typed) -> Result<Vec<String>, Fail> {
    let command = Command::of(cmd);
    let (least, most) = match cmd {
        Cmd::Start => (0, usize::MAX),
        Cmd::Stop | Cmd::Restart | Cmd::Reload | Cmd::Delete | Cmd::Describe | Cmd::Reset => (1, usize::MAX),
        Cmd::SendSignal => (2, usize::MAX),
        Cmd::Scale => (2, 2),
        Cmd::Logs | Cmd::Flush | Cmd::Runtime => (0, usize::MAX),
        Cmd::Pid | Cmd::Resurrect | Cmd::Help | Cmd::Update | Cmd::Startup | Cmd::Unstartup => (0, 1),
        Cmd::Id => (1, 1),
        Cmd::Version => (0, usize::MAX),
        Cmd::List | Cmd::Jlist | Cmd::Ping | Cmd::Kill | Cmd::Daemon | Cmd::Healthcheck => (0, 0),
        Cmd::Save | Cmd::Cleardump => (0, 0),
    };
    if typed.operands.len() < least {
        return Err(Fail::Sentence(format!(
            "{0} needs {1} (see pmx help {0})",
            command.name(),
            command.operands
        )));
    }
    if typed.operands.len() > most {
        let extra = typed.operands[most].to_string_lossy();
        return Err(Fail::Sentence(format!(
            "{0} does not take {extra:?} (see pmx help {0})",
            command.name()
        )));
    }
    let text = |word: &OsString| match word.to_str() {
        Some("") => Err(Fail::Sentence(format!("{}: an empty name", command.name()))),
        Some(text) => Ok(text.to_string()),
        None => Err(Fail::Sentence(format!("{}: {word:?} is not UTF-8", command.name()))),
    };
    typed.operands.iter().map(text).collect()
}

impl<'s> Session<'_, 's> {
    /// The daemon, started if need be, and the screen to report on.
    fn connected(&mut self) -> Result<(&mut Connection, &mut Screen<'s>), Fail> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.home, self.caller)?);
        }
        Ok((self.connection.as_mut().expect("it was just opened"), self.screen))
    }

    fn command(&mut self, cmd: Cmd, operands: &[String]) -> Result<(), Fail> {
        match cmd {
            Cmd::Start => start::start(self, operands),
            Cmd::Restart => start::restart(self, operands),
            Cmd::Stop => self.act(act::STOP, operands, |targets| Verb::Stop { targets }),
            Cmd::Delete => self.act(act::DELETE, operands, |targets| Verb::Delete { targets }),
            Cmd::Reset => self.act(act::RESET, operands, |targets| Verb::Reset { targets }),
            Cmd::Flush => self.act(act::FLUSH, operands, |targets| Verb::Flush { targets }),
            Cmd::SendSignal => {
                let signal = signal(&operands[0])?;
                self.act(act::SIGNAL, &operands[1..], |targets| Verb::Signal { targets, signal })
            }
            Cmd::Reload => {
                if let Some(file) =
                    operands.iter().find(|operand| operand.ends_with(".json") || *operand == "-")
                {
                    return Err(Fail::Sentence(format!(
                        "reload {file}: reloading a declaration file is not built yet (start {file} restarts its apps)"
                    )));
                }
                let changes = start::changes(self)?;
                let parallel = self.options.parallel;
                self.act(act::RELOAD, operands, |targets| Verb::Reload { targets, changes, parallel })
            }
            Cmd::Scale => self.scale(&operands[0], act::scale(&operands[1])?),
            Cmd::Startup => startup::startup(self, operands),
            Cmd::Unstartup => startup::unstartup(self, operands),
            Cmd::Ping => self.ping(),
            Cmd::Update => self.update(operands.first()),
            Cmd::Kill => self.kill(),
            Cmd::Save => save::save(self),
            Cmd::Resurrect => resurrect::resurrect(self, operands.first()),
            Cmd::Cleardump => save::cleardump(self),
            Cmd::List => list::list(self),
            Cmd::Jlist => jlist::jlist(self),
            Cmd::Describe => describe::describe(self, operands),
            Cmd::Logs => logs::logs(self, operands),
            Cmd::Id => self.ids(&operands[0]),
            Cmd::Pid => self.pids(operands.first()),
            Cmd::Healthcheck => self.healthcheck(),
            Cmd::Daemon | Cmd::Runtime | Cmd::Version | Cmd::Help => {
                unreachable!("dispatch has dealt with {cmd:?}")
            }
        }
    }

    fn act(
        &mut self,
        action: Action,
        operands: &[String],
        verb: impl FnOnce(Vec<String>) -> Verb,
    ) -> Result<(), Fail> {
        let targets = act::targets(self, action.verb, operands)?;
        let outcomes = act::perform(self, action, verb(targets))?;
        act::finish(self, action, &outcomes)
    }

    /// The answer names the instances that came and went; which is which only the list knows.
    fn scale(&mut self, name: &str, to: crate::protocol::Scale) -> Result<(), Fail> {
        let silent = std::mem::replace(&mut self.screen.silent, true);
        let action = Action { verb: "scale", done: "done" };
        let outcomes = act::perform(self, action, Verb::Scale { name: name.to_string(), to });
        self.screen.silent = silent;
        let outcomes = outcomes?;
        if !self.options.json {
            let views = self.views()?;
            for outcome in outcomes.iter().filter(|outcome| outcome.failure.is_none()) {
                let view = views.iter().find(|view| view.id == outcome.id);
                let status = view.map_or("removed", |view| view.status.word());
                self.screen.line(&format!("scale {}({}): {status}", outcome.name, outcome.id))?;
            }
        }
        act::finish(self, action, &outcomes)
    }

    /// The processes by name, then id.
    fn views(&mut self) -> Result<Vec<crate::protocol::View>, Fail> {
        let (connection, _) = self.connected()?;
        match connection.request(Verb::List, &mut |_| {}).map_err(String::from)? {
            Answer::List(mut views) => {
                views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
                Ok(views)
            }
            other => Err(Fail::Sentence(act::unexpected(&other))),
        }
    }

    /// As pm2 prints them: a JavaScript array, empty for an unknown name.
    fn ids(&mut self, name: &str) -> Result<(), Fail> {
        let views = self.views()?;
        let ids: Vec<_> =
            views.iter().filter(|view| view.name == name).map(|view| view.id.to_string()).collect();
        let text = if ids.is_empty() { "[]\n".to_string() } else { format!("[ {} ]\n", ids.join(", ")) };
        self.screen.data(text.as_bytes())
    }

    /// As pm2 prints them: one a line, 0 for what is down, a blank line for an unknown name.
    fn pids(&mut self, name: Option<&String>) -> Result<(), Fail> {
        let views = self.views()?;
        let chosen = views
            .iter()
            .filter(|view| name.is_none_or(|name| view.name == *name || view.id.to_string() == *name));
        let pids: Vec<_> = chosen.map(|view| view.pid.to_string()).collect();
        self.screen.data((pids.join("\n") + "\n").as_bytes())
    }

    fn ping(&mut self) -> Result<(), Fail> {
        let Some(mut connection) = Connection::existing(&self.home)? else {
            return Err(Fail::Sentence(format!("no daemon runs in {}", self.home.path.display())));
        };
        match connection.request(Verb::Ping, &mut |_| {}).map_err(String::from)? {
            Answer::Pong { version, pid } => self
                .screen
                .line(&format!("pong: pmx {version}, pid {pid}, home {}", self.home.path.display())),
            other => Err(Fail::Sentence(act::unexpected(&other))),
        }
    }

    fn healthcheck(&mut self) -> Result<(), Fail> {
        let Some(mut connection) = Connection::existing(&self.home)? else {
            return Err(Fail::Sentence(format!("no daemon runs in {}", self.home.path.display())));
        };
        let app = self.options.app.clone();
        match connection.request(Verb::Health { app }, &mut |_| {}).map_err(String::from)? {
            Answer::Healthy => self.screen.line("healthy"),
            other => Err(Fail::Sentence(act::unexpected(&other))),
        }
    }

    /// Has the daemon become another program: this one, if none is named.
    fn update(&mut self, program: Option<&String>) -> Result<(), Fail> {
        let program = match program {
            Some(path) => caller::absolute(&self.caller.cwd, std::path::Path::new(path)),
            None => std::env::current_exe()
                .map_err(|error| format!("update: find this program: {}", crate::sys::reason(&error)))?,
        };
        let Some(mut connection) = Connection::existing(&self.home)? else {
            return Err(Fail::Sentence(format!("update: no daemon runs in {}", self.home.path.display())));
        };
        let verb = Verb::Update { program: (&program).into() };
        match connection.request(verb, &mut |_| {}).map_err(String::from)? {
            Answer::Updated { from, to, pid, kept } => {
                let processes = if kept == 1 { "process" } else { "processes" };
                self.screen
                    .line(&format!("update: pmx {from} became pmx {to}, pid {pid}; {kept} {processes} kept"))
            }
            other => Err(Fail::Sentence(act::unexpected(&other))),
        }
    }

    fn kill(&mut self) -> Result<(), Fail> {
        let Some(mut connection) = Connection::existing(&self.home)? else {
            return self.screen.line(&format!("no daemon runs in {}", self.home.path.display()));
        };
        let daemon = connection.peer();
        match connection.request(Verb::Kill, &mut |_| {}) {
            Ok(Answer::Killed { stopped }) => {
                connect::wait_until_gone(&self.home, daemon)?;
                let processes = if stopped == 1 { "process" } else { "processes" };
                self.screen.line(&format!("kill: {stopped} {processes} stopped, the daemon ended"))
            }
            Ok(other) => Err(Fail::Sentence(act::unexpected(&other))),
            // It may have been on its way out when we came.
            Err(RequestError::Lost(sentence)) => {
                connect::wait_until_gone(&self.home, daemon).map_err(|_| sentence)?;
                self.screen.line("kill: the daemon ended")
            }
            Err(error) => Err(Fail::Sentence(error.into())),
        }
    }
}

/// A signal's number, from its number or its name with or without SIG.
fn signal(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = match text.parse::<i32>() {
        Ok(number) => Some(number).filter(|&number| (1..=libc::SIGRTMAX()).contains(&number)),
        Err(_) => Signal::from_str(&name).ok().map(|signal| signal as i32),
    };
    number.ok_or_else(|| format!("sendSignal: unknown signal {text:?}"))
}
