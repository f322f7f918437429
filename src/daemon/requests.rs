//! What clients ask for: answered at once where it is only a question, else handed to the supervisor.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use super::event_loop::Daemon;
use super::record::Asked;
use super::triggers::calendar::zone_of;
use super::views::Sight;
use crate::app::{App, Instances, SharedEnv};
use crate::protocol::{Answer, Begin, Message, Outcome, Request, Revived, Verb, topic_fault};
use crate::supervisor::{Command, Input, OpId};
use crate::sys::census::Census;
use crate::sys::{clock, failpoint, limits};

impl Daemon {
    /// Takes one request of a client.
    pub(super) fn request(&mut self, client: u64, request: Request) {
        let id = request.id;
        if self.is_safe() && !request.verb.only_looks() {
            let error = "refused: pmx is in safe mode, because it died again and again (see pmx.log and the \
                         quarantine files in its home); pmx update leaves it";
            return self.control.send(client, &Message::Error { id, error: error.to_string() });
        }
        let command = match request.verb {
            Verb::Ping => return self.done(client, id, self.pong()),
            Verb::Subscribe => {
                self.control.subscribe(client);
                return self.done(client, id, self.pong());
            }
            Verb::Listen { patterns } => {
                let listens = self.control.listen(client, patterns);
                return self.answer(client, id, listens.map(|()| self.pong()));
            }
            Verb::Tell { targets, message } => {
                let told = self.give(&targets, &message);
                return self.answer(client, id, told.map(Answer::Outcomes));
            }
            Verb::Input { targets, line } => {
                let fed = self.feed(&targets, &line);
                return self.answer(client, id, fed.map(Answer::Outcomes));
            }
            Verb::Publish { topic, data } => {
                if let Some(fault) = topic_fault(&topic) {
                    let error = format!("publish {topic:?}: {fault}");
                    return self.control.send(client, &Message::Error { id, error });
                }
                self.pass_on_message(topic, data, None);
                return self.done(client, id, self.pong());
            }
            Verb::List => {
                let list = self.sight().list();
                self.note_views(list.iter());
                return self.done(client, id, Answer::List(list));
            }
            Verb::Health { app } => {
                let health = self.health(app.as_deref());
                return self.answer(client, id, health.map(|()| Answer::Healthy));
            }
            Verb::Describe { targets } => {
                let details = self.details(&targets);
                if let Ok(details) = &details
                    && targets == ["all"]
                {
                    self.note_views(details.iter().map(|detail| &detail.view));
                }
                return self.answer(client, id, details.map(Answer::Details));
            }
            Verb::History { name } => {
                let events = self.history.of(name.as_deref());
                return self.done(client, id, Answer::History(events));
            }
            Verb::Flush { targets } => {
                let flushed = self.flush_logs(&targets);
                return self.answer(client, id, flushed.map(Answer::Outcomes));
            }
            Verb::ReloadLogs => {
                self.reopen_logs();
                return self.done(client, id, self.pong());
            }
            Verb::Start { apps, inherit, existing } => match self.checked(apps, inherit) {
                Ok(apps) => Command::Start(apps, existing),
                Err(error) => return self.control.send(client, &Message::Error { id, error }),
            },
            Verb::Dump => {
                let saved = self.saved().map(Iterator::collect);
                return self.answer(client, id, saved.map(Answer::Dump));
            }
            Verb::Resurrect { processes } => match self.revivable(processes) {
                Ok(saved) => Command::Resurrect(saved),
                Err(error) => return self.control.send(client, &Message::Error { id, error }),
            },
            Verb::Stop { targets } => Command::Stop(targets),
            Verb::Restart { targets, changes } => Command::Restart(targets, changes),
            Verb::Reload { targets, changes, parallel } => {
                Command::Reload(targets, changes, parallel.unwrap_or(1))
            }
            Verb::Scale { name, to } => Command::Scale(name, to),
            Verb::Delete { targets } => Command::Delete(targets),
            Verb::Reset { targets } => {
                for process in self.supervisor.select(&targets).unwrap_or_default() {
                    self.memories.begin(process, clock::wall());
                }
                Command::Reset(targets)
            }
            Verb::Signal { targets, signal } => Command::Signal(targets, signal),
            Verb::Kill => Command::Shutdown,
            Verb::Update { program } => return self.update(client, id, program),
        };
        let op = self.new_op();
        let shutdown = command == Command::Shutdown;
        if shutdown {
            self.autosave_last();
            self.manager.ending(self.now);
        }
        self.asked.insert(op, Asked { client, id, shutdown, answer: None });
        self.changed_asked.insert(op);
        failpoint::reach("asked");
        self.supervisor.handle(self.now, Input::Command { op, command });
        failpoint::reach("decided");
    }

    /// Whether too many daemons died too soon: then nothing is changed.
    pub(super) fn is_safe(&self) -> bool {
        self.board.safe.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// A number for an operation.
    pub(super) fn new_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn done(&mut self, client: u64, id: u64, answer: Answer) {
        self.control.send(client, &Message::Done { id, answer });
    }

    fn answer(&mut self, client: u64, id: u64, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) => self.done(client, id, answer),
            Err(error) => self.control.send(client, &Message::Error { id, error }),
        }
    }

    fn pong(&self) -> Answer {
        Answer::Pong { version: env!("CARGO_PKG_VERSION").to_string(), pid: std::process::id() }
    }

    fn sight(&mut self) -> Sight<'_> {
        Sight {
            supervisor: &self.supervisor,
            children: &mut self.children,
            primary: &self.primary,
            memories: &self.memories,
            home: &self.home,
            us: &self.us,
            now: self.now,
            triggers: &self.triggers,
            census: Census::default(),
        }
    }

    fn details(&mut self, targets: &[String]) -> Result<Vec<crate::protocol::Detail>, String> {
        let ids = match targets {
            [all] if all == "all" => self.supervisor.processes().map(|process| process.id).collect(),
            _ => self.supervisor.select(targets)?,
        };
        let mut sight = self.sight();
        let supervisor = sight.supervisor;
        Ok(ids.iter().filter_map(|id| supervisor.process(*id)).map(|process| sight.detail(process)).collect())
    }

    /// The apps of a start, with what only the daemon knows: how many CPUs there are, and that many of
    /// them come from the same shell.
    pub(super) fn checked(&self, apps: Vec<App>, inherit: SharedEnv) -> Result<Vec<(Arc<App>, u32)>, String> {
        let mut known = self.supervisor.processes().map(|process| &process.app.inherit);
        let inherit = known.find(|env| **env == inherit).cloned().unwrap_or(inherit);
        let mut checked = Vec::new();
        for mut app in apps {
            app.check()?;
            app.inherit = inherit.clone();
            if app.triggers.pattern().is_some() {
                zone_of(&app).map_err(|error| format!("start {:?}: {error}", app.name))?;
            }
            let count = match app.instances {
                Instances::Count(count) => count.max(1),
                Instances::CpusLess(less) => limits::cpus().saturating_sub(less).max(1),
            };
            checked.push((Arc::new(app), count));
        }
        Ok(checked)
    }

    /// The processes of a saved list. Many of them come from the same shell.
    fn revivable(&self, processes: Vec<Revived>) -> Result<Vec<(Arc<App>, u32, Begin)>, String> {
        let mut shells: Vec<SharedEnv> = Vec::new();
        let mut checked = Vec::new();
        for Revived { mut app, instance, begin } in processes {
            app.check()?;
            match shells.iter().find(|env| **env == app.inherit) {
                Some(known) => app.inherit = known.clone(),
                None => shells.push(app.inherit.clone()),
            }
            checked.push((Arc::new(app), instance, begin));
        }
        Ok(checked)
    }

    /// Empties log files. Children go on writing at their ends, which are the beginnings now.
    fn flush_logs(&mut self, targets: &[String]) -> Result<Vec<Outcome>, String> {
        let ids = match targets {
            [] => self.supervisor.processes().map(|process| process.id).collect(),
            _ => self.supervisor.select(targets)?,
        };
        let mut outcomes = Vec::new();
        if targets.is_empty() {
            truncate(&self.home.log())?;
        }
        for process in ids.iter().filter_map(|id| self.supervisor.process(*id)) {
            for path in self.home.log_files(&process.app, process.id.0) {
                truncate(&path)?;
            }
            outcomes.push(Outcome::done(process.id.0, &process.app.name));
        }
        Ok(outcomes)
    }
}

fn truncate(path: &std::path::Path) -> Result<(), String> {
    // A FIFO that nobody reads would block us.
    match OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("empty {}: {}", path.display(), crate::sys::reason(&error)))
        }
        _ => Ok(()),
    }
}
