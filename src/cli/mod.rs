//! The command line: parse what was typed, work out what it means, talk to the daemon, print.

mod act;
mod alert;
mod apply;
mod bus;
mod caller;
mod completion;
mod conf;
mod connect;
mod deploy;
mod describe;
mod doctor;
mod environment;
mod format;
mod front;
mod grid;
mod help;
mod home;
mod import;
mod init;
mod inspect;
mod jlist;
mod list;
mod logs;
mod man;
#[cfg(feature = "monit")]
mod monit;
mod options;
mod parse;
mod past;
mod report;
mod resolve;
mod resurrect;
mod revision;
mod runtime;
mod save;
mod screen;
mod serve;
mod source;
mod start;
mod startup;
mod store;
mod system;
mod table;
#[cfg(test)]
mod testing;
mod tidy;
mod web;
mod why;

use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::app::Container;
use crate::protocol::{Answer, Outcome, Verb};
use crate::sys::{signals, terminal, users};
use act::Action;
use caller::Caller;
use connect::{Connection, RequestError};
use home::Home;
use options::Options;
use parse::Typed;
use revision::Move;
use screen::{Color, Fail, Screen};
use table::{Cmd, Command, Opt};
pub use web::WebRun;

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
    /// Be the web front.
    Web(WebRun),
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

const SCALE: Action = Action { verb: "scale", done: "done" };

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
    let mut args = args.into_iter().peekable();
    let is_pm2 = args.peek().is_some_and(|name| caller::is_called_pm2(name));
    let args = runtime::words(args);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut err = std::io::stderr().lock();
    let width = terminal::width(std::io::stdout());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = width.is_some() && std::io::stderr().is_terminal() && !plain;
    let mut screen = Screen { out: &mut out, err: &mut err, width, color, silent: false };
    let caller = Caller::of_process().map(|mut caller| {
        if is_pm2 {
            caller.env.set("PMX_COMPAT", "pm2");
        }
        caller
    });
    match caller {
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
        Err(Fail::Sentence(sentence)) if caller.is_pm2() => fail(screen, &in_pm2s_words(&sentence)),
        Err(Fail::Sentence(sentence)) => fail(screen, &sentence),
        Err(Fail::Code(code, sentence)) => {
            fail(screen, &sentence);
            Run::Exit(code)
        }
    }
}

/// What scripts look for in pm2's errors.
fn in_pm2s_words(sentence: &str) -> String {
    if sentence == "no process found" {
        return "[PM2][WARN] No process found".to_string();
    }
    match sentence.strip_prefix("process or namespace ") {
        Some(rest) => format!("[PM2][ERROR] Process or Namespace {rest}"),
        None => format!("[PM2][ERROR] {sentence}"),
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
    for name in &options.foreign {
        screen.complain(&format!("--{name} is of pm2 and has no effect here"));
    }
    if cmd == Cmd::Runtime {
        return runtime::runtime(caller, &options, &operands, screen);
    }
    if cmd == Cmd::ServeFiles {
        return Ok(serve::app(caller).map(|()| DONE)?);
    }
    if cmd == Cmd::Alert && options.deliver {
        return alert::deliver().map(|()| DONE);
    }
    if cmd == Cmd::WebServer {
        return Ok(web::app(caller)?);
    }
    let home = Home::of(caller)?;
    if cmd == Cmd::Daemon {
        if let Some(state) = options.check_state {
            return Ok(Run::CheckState(state));
        }
        if options.keep {
            return startup::sweep::keep(caller).map(|()| DONE);
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
        Cmd::StartOrReload => (1, usize::MAX),
        Cmd::Stop | Cmd::Restart | Cmd::Reload | Cmd::Delete | Cmd::Describe | Cmd::Reset | Cmd::Why => {
            (1, usize::MAX)
        }
        Cmd::SendSignal => (2, usize::MAX),
        Cmd::Scale => (2, 2),
        Cmd::Logs | Cmd::Flush | Cmd::Runtime => (0, usize::MAX),
        Cmd::Pid | Cmd::Resurrect | Cmd::Help | Cmd::Update | Cmd::Startup | Cmd::Unstartup => (0, 1),
        Cmd::History | Cmd::Get => (0, 1),
        Cmd::Set | Cmd::Send => (2, 2),
        Cmd::Serve => (0, 2),
        Cmd::Web => (0, 1),
        Cmd::ServeFiles | Cmd::WebServer => (0, 0),
        Cmd::Attach | Cmd::Forward | Cmd::Backward => (1, 1),
        Cmd::Pull => (1, 2),
        Cmd::Deploy => (0, usize::MAX),
        Cmd::Conf => (0, 2),
        Cmd::Multiset | Cmd::Unset | Cmd::Completion => (1, 1),
        Cmd::Man | Cmd::Doctor | Cmd::Monit | Cmd::ReloadLogs => (0, 0),
        Cmd::Schema => (0, 0),
        Cmd::Init => (0, 1),
        Cmd::Apply | Cmd::EnvOf => (1, 1),
        Cmd::Id | Cmd::Import => (1, 1),
        Cmd::Bus => (0, usize::MAX),
        Cmd::Publish => (2, 2),
        Cmd::Trigger => (2, usize::MAX),
        Cmd::Alert => (0, 2),
        Cmd::Version => (0, usize::MAX),
        Cmd::List | Cmd::Jlist | Cmd::Ping | Cmd::Kill | Cmd::Front | Cmd::Daemon | Cmd::Healthcheck => {
            (0, 0)
        }
        Cmd::Save | Cmd::Cleardump | Cmd::Prettylist | Cmd::Slist | Cmd::Report => (0, 0),
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
        self.carry_out(cmd, operands)?;
        // As with pm2: after the action, whatever it was.
        if self.options.mini_list && cmd != Cmd::List { list::mini(self) } else { Ok(()) }
    }

    fn carry_out(&mut self, cmd: Cmd, operands: &[String]) -> Result<(), Fail> {
        match cmd {
            Cmd::Start => start::start(self, operands),
            Cmd::Restart => start::restart(self, operands),
            Cmd::StartOrReload => start::start_or_reload(self, operands),
            Cmd::Stop => self.act(act::STOP, operands, |targets| Verb::Stop { targets }),
            Cmd::Delete => self.act(act::DELETE, operands, |targets| Verb::Delete { targets }),
            Cmd::Reset => self.act(act::RESET, operands, |targets| Verb::Reset { targets }),
            Cmd::Flush if self.options.tidy => tidy::tidy(self),
            Cmd::Flush => self.act(act::FLUSH, operands, |targets| Verb::Flush { targets }),
            Cmd::ReloadLogs => self.reload_logs(),
            Cmd::SendSignal => {
                let signal = signal(&operands[0])?;
                self.act(act::SIGNAL, &operands[1..], |targets| Verb::Signal { targets, signal })
            }
            Cmd::Send => {
                let line = crate::app::Text::from(operands[1].as_str());
                self.act(act::SEND, &operands[..1], |targets| Verb::Input { targets, line })
            }
            Cmd::Pull => revision::update(self, Move::Pull, operands),
            Cmd::Forward => revision::update(self, Move::Forward, operands),
            Cmd::Backward => revision::update(self, Move::Backward, operands),
            Cmd::Deploy => deploy::deploy(self, operands),
            Cmd::Serve => serve::serve(self, operands),
            Cmd::Web => web::web(self, operands),
            Cmd::Attach => logs::attach(self, operands),
            Cmd::Reload => start::reload(self, operands),
            Cmd::Scale => self.scale(&operands[0], act::scale(&operands[1])?),
            Cmd::Apply => apply::apply(self, &operands[0]),
            Cmd::EnvOf => environment::env(self, &operands[0]),
            Cmd::Schema => init::schema(self),
            Cmd::Init => init::init(self, operands.first()),
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
            Cmd::Prettylist => report::prettylist(self),
            Cmd::Slist => report::slist(self),
            Cmd::Report => report::report(self),
            Cmd::Describe => describe::describe(self, operands),
            Cmd::Why => why::why(self, operands),
            Cmd::Doctor => doctor::doctor(self),
            Cmd::Get => conf::get(self, operands.first()),
            Cmd::Set => conf::set(self, "set", &[(operands[0].clone(), operands[1].clone())]),
            Cmd::Multiset => conf::multiset(self, &operands[0]),
            Cmd::Unset => conf::unset(self, &operands[0]),
            Cmd::Conf => conf::conf(self, operands),
            Cmd::Completion => completion::completion(self, &operands[0]),
            Cmd::Man => man::man(self),
            Cmd::History => why::history(self, operands.first()),
            Cmd::Logs => logs::logs(self, operands),
            #[cfg(feature = "monit")]
            Cmd::Monit => monit::monit(self),
            #[cfg(not(feature = "monit"))]
            Cmd::Monit => Err(Fail::Sentence("monit: this pmx was built without it".to_string())),
            Cmd::Id => self.ids(&operands[0]),
            Cmd::Pid => self.pids(operands.first()),
            Cmd::Healthcheck => self.healthcheck(),
            Cmd::Bus => bus::bus(self, operands),
            Cmd::Publish => bus::publish(self, &operands[0], &operands[1]),
            Cmd::Trigger => bus::trigger(self, operands),
            Cmd::Alert => alert::alert(self, operands),
            Cmd::Import => import::import(self, &operands[0]),
            Cmd::Front => Ok(front::front(&self.home)?),
            Cmd::Daemon | Cmd::Runtime | Cmd::ServeFiles | Cmd::WebServer | Cmd::Version | Cmd::Help => {
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
        let outcomes = self.scaled(name, to)?;
        act::finish(self, SCALE, &outcomes)
    }

    /// As `scale`, and not finished yet.
    fn scaled(&mut self, name: &str, to: crate::protocol::Scale) -> Result<Vec<Outcome>, Fail> {
        let silent = std::mem::replace(&mut self.screen.silent, true);
        let outcomes = act::perform(self, SCALE, Verb::Scale { name: name.to_string(), to });
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
        Ok(outcomes)
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

    /// Where no daemon runs no file is open.
    fn reload_logs(&mut self) -> Result<(), Fail> {
        let Some(mut connection) = Connection::existing(&self.home)? else {
            return Err(Fail::Sentence(format!("no daemon runs in {}", self.home.path.display())));
        };
        match connection.request(Verb::ReloadLogs, &mut |_| {}).map_err(String::from)? {
            Answer::Pong { .. } => self.screen.line("reloadLogs: done"),
            other => Err(Fail::Sentence(act::unexpected(&other))),
        }
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
