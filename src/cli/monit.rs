//! `monit`: the processes, their logs and the host on a full screen, until it is left. A client like any other: the
//! daemon answers a list each second, and the facts of one process; all else is worked out here.

mod draw;
mod host;
mod state;
mod tails;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::Session;
use super::connect::{Connection, RequestError};
use super::home::Home;
use super::screen::Fail;
use crate::protocol::{Answer, Verb, by_id};
use crate::sys::clock;
use crate::sys::poll::{self, Until};
use state::{Deed, State, Step};

/// How often everything is looked at anew.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon a signal, or the end of a command, is noticed.
const PATIENCE: Duration = Duration::from_millis(200);

/// `pmx monit`.
pub fn monit(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Fail::Sentence("monit: this is no terminal (pmx list prints what there is)".to_string()));
    }
    let failed = |what: &str, error: std::io::Error| format!("monit: {what}: {}", crate::sys::reason(&error));
    let told_to_end = Arc::new(AtomicBool::new(false));
    // SIGHUP ends us at once: the terminal that would be given back is gone.
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let registered = signal_hook::flag::register(signal, told_to_end.clone());
        registered.map_err(|error| failed("catch signals", error))?;
    }
    let mut daemon = Daemon { home: &session.home, connection: session.connection.take() };
    let mut state = State::new(session.screen.color);
    // The first look, before the screen is taken: what is wrong now is said where it can be read later.
    daemon.look(&mut state)?;
    let terminal = ratatui::try_init().map_err(|error| failed("take the terminal", error));
    let mut screen = Taken(terminal?);
    let mut deeds: Vec<(Deed, Child)> = Vec::new();
    let mut looked = Instant::now();
    while !told_to_end.load(Relaxed) {
        if looked.elapsed() >= PERIOD {
            looked = Instant::now();
            if let Err(reason) = daemon.look(&mut state) {
                state.problem(reason);
            }
        }
        deeds.retain_mut(|(deed, child)| match ended(child) {
            None => true,
            Some(outcome) => {
                state.done(deed, outcome);
                false
            }
        });
        state.tails.read();
        screen.0.draw(|frame| draw::draw(frame, &mut state)).map_err(|error| failed("draw", error))?;
        let patience = PATIENCE.min(PERIOD.saturating_sub(looked.elapsed()));
        // It is not crossterm that waits: from a terminal that is gone it would read for ever.
        let input = stdin();
        let look = |until, patience| {
            let found = poll::wait(&[(input.as_fd(), until)], Some(patience));
            found.map(|found| found[0]).map_err(|error| failed("wait for keys", error))
        };
        look(Until::Readable, patience)?;
        if look(Until::Closed, Duration::ZERO)? {
            return Err(Fail::Closed);
        }
        // All that was typed is taken in before the next picture.
        let mut is_there = event::poll(Duration::ZERO).map_err(|error| failed("wait for keys", error))?;
        while is_there {
            let step = match event::read().map_err(|error| failed("read a key", error))? {
                Event::Key(key) if key.kind != KeyEventKind::Release => state.key(key),
                _ => None,
            };
            match step {
                None => {}
                Some(Step::Leave) => return Ok(()),
                Some(Step::Look) => {
                    if let Err(reason) = daemon.facts(&mut state) {
                        state.problem(reason);
                    }
                }
                Some(Step::Do(deed)) => match begin(&deed, &session.home) {
                    Ok(child) => deeds.push((deed, child)),
                    Err(error) => state.done(&deed, Err(crate::sys::reason(&error))),
                },
            }
            is_there = event::poll(Duration::ZERO).map_err(|error| failed("wait for keys", error))?;
        }
    }
    Ok(())
}

/// The terminal is given back however this ends, but for SIGKILL.
struct Taken(ratatui::DefaultTerminal);

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The way to a daemon that may be replaced while we look. None is started for it.
struct Daemon<'a> {
    home: &'a Home,
    connection: Option<Connection>,
}

impl Daemon<'_> {
    fn ask(&mut self, verb: Verb) -> Result<Answer, String> {
        if self.connection.is_none() {
            self.connection = Connection::existing(self.home)?;
        }
        let connection = self.connection.as_mut().ok_or("no daemon runs (any pmx start begins one)")?;
        connection.request(verb, &mut |_| {}).map_err(|error| {
            if matches!(error, RequestError::Lost(_)) {
                self.connection = None;
            }
            String::from(error)
        })
    }

    fn look(&mut self, state: &mut State) -> Result<(), String> {
        state.host.look(self.home);
        match self.ask(Verb::List)? {
            Answer::List(views) => state.views(views, clock::wall()),
            other => return Err(super::act::unexpected(&other)),
        }
        self.facts(state)
    }

    /// What else is shown of the selected process.
    fn facts(&mut self, state: &mut State) -> Result<(), String> {
        let Some(id) = state.selected() else {
            state.detail(None);
            return Ok(());
        };
        match self.ask(Verb::Describe { targets: vec![by_id(id)] })? {
            Answer::Details(mut details) => state.detail(details.pop()),
            other => return Err(super::act::unexpected(&other)),
        }
        Ok(())
    }
}

/// What is done to processes is done by commands of their own: none of them stops the picture.
fn begin(deed: &Deed, home: &Home) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(&deed.words).env("PMX_HOME", &home.path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// How a command ended, if it has.
fn ended(child: &mut Child) -> Option<Result<(), String>> {
    let status = child.try_wait().ok()??;
    if status.success() {
        return Some(Ok(()));
    }
    let mut said = String::new();
    if let Some(mut err) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut err, &mut said);
    }
    Some(Err(said.lines().next().unwrap_or("it failed").to_string()))
}
