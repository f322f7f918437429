//! `resurrect`: what a saved list holds and the daemon does not is put back. Whether it can run is looked
//! at here, with the eyes of the person who typed the command; what cannot comes back as errored.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::Session;
use super::act;
use super::caller::absolute;
use super::connect::RequestError;
use super::resolve;
use super::save;
use super::screen::{Fail, escaped};
use super::store::{self, Bad, Found, Which};
use crate::app::App;
use crate::app::dump::{Fault, Saved};
use crate::protocol::{Begin, Outcome, Revived, Verb};
use crate::sys::users;

/// `pmx resurrect`.
pub fn resurrect(session: &mut Session<'_, '_>, file: Option<&String>) -> Result<(), Fail> {
    let found = match file {
        Some(file) => named(session, file)?,
        None => newest(session)?,
    };
    let Some(Found { list, file }) = found else {
        return session
            .screen
            .line(&format!("resurrect: nothing is saved in {}", session.home.path.display()));
    };
    let present = save::list(session.connected()?.0)?;
    let saved = list.saved.len();
    let missing = missing(session, list.saved, &present);
    let there = saved - missing.len();
    let revived: Vec<Revived> = missing.into_iter().map(revive).collect();
    let stopped = revived.iter().filter(|one| one.begin == Begin::Stopped).count();
    let mut failures = Vec::new();
    for Revived { app, begin, .. } in &revived {
        if let Begin::Errored(reason) = begin {
            failures.push(format!("resurrect {}: {reason}", app.name));
        }
    }
    let outcomes = if revived.is_empty() { Vec::new() } else { send(session, revived)? };
    for failure in &failures {
        session.screen.complain(&escaped(failure));
    }
    if session.options.json {
        session.screen.json(&outcomes)?;
    } else {
        let started = outcomes.iter().filter(|outcome| outcome.failure.is_none()).count();
        let failed = failures.len() + outcomes.len() - started;
        let mut text = format!("resurrect: {started} started");
        for (count, word) in [(stopped, "added as stopped"), (failed, "failed"), (there, "left as it was")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        session.screen.line(&format!("{text} ({})", file.display()))?;
    }
    let has_failed = !failures.is_empty() || outcomes.iter().any(|outcome| outcome.failure.is_some());
    if has_failed { Err(Fail::Said) } else { Ok(()) }
}

/// A file that was named: pm2's own, for example. It is read and not touched.
fn named(session: &Session<'_, '_>, file: &str) -> Result<Option<Found>, Fail> {
    let path = absolute(&session.caller.cwd, Path::new(file));
    match store::read(&path) {
        None => Err(Fail::Sentence(format!("resurrect {file}: no such file"))),
        Some(Err(fault)) => Err(Fail::Sentence(format!("resurrect {file}: {fault}"))),
        Some(Ok(list)) => Ok(Some(Found { list, file: path })),
    }
}

/// The list that was saved, else the one that was kept by itself. Of each the newest that can be read.
fn newest(session: &mut Session<'_, '_>) -> Result<Option<Found>, Fail> {
    if !session.home.path.exists() {
        return Ok(None);
    }
    session.home.prepare()?;
    // Whoever writes meanwhile moves the generations. In a home that cannot be written to nobody does.
    let lock = store::lock(&session.home);
    let mut has_bad = false;
    let lists: &[Which] =
        if session.options.auto { &[Which::Autosave] } else { &[Which::Dump, Which::Autosave] };
    for which in lists {
        let path = store::path(&session.home, *which);
        let (found, bad) = store::newest(&path);
        has_bad |= !bad.is_empty();
        for Bad { file, fault } in &bad {
            if let Fault::Newer(_) = fault {
                return Err(Fail::Sentence(format!("resurrect: {}: {fault}", file.display())));
            }
            let kept = match lock.as_ref().map_err(String::clone).and_then(|_| store::keep_aside(file)) {
                Ok(aside) => format!("it is kept as {}", store::name(&aside)),
                Err(error) => error,
            };
            session.screen.complain(&format!("{}: {fault}; {kept}", file.display()));
        }
        if let Some(found) = found {
            if has_bad || found.file != path {
                let why = if has_bad { "the newest that is whole" } else { "there is no newer one" };
                session.screen.complain(&format!("resurrect: reading {}: {why}", found.file.display()));
            }
            return Ok(Some(found));
        }
    }
    match has_bad {
        true => Err(Fail::Sentence("resurrect: no saved list can be read".to_string())),
        false => Ok(None),
    }
}

/// What is not there. As in pm2 a name counts: an app that was started again from elsewhere since is not
/// started from its old place beside that.
fn missing(session: &mut Session<'_, '_>, saved: Vec<Saved>, present: &[Saved]) -> Vec<Saved> {
    let mut missing = Vec::new();
    for one in saved {
        let called =
            |other: &&Saved| other.app.name == one.app.name && other.app.namespace == one.app.namespace;
        let named: Vec<&Saved> = present.iter().filter(called).collect();
        let same = |other: &&&Saved| other.app.command.script == one.app.command.script;
        match named.iter().find(same) {
            Some(_) if named.iter().filter(same).any(|other| other.instance == one.instance) => {}
            None if !named.is_empty() => {
                let now = &named[0].app.command.script;
                let text = format!("resurrect {}: it is there and runs {now}", one.app.name);
                session.screen.complain(&escaped(&text));
            }
            _ => missing.push(one),
        }
    }
    missing
}

fn revive(saved: Saved) -> Revived {
    let Saved { mut app, instance, up, user, group, .. } = saved;
    let looked_up = resolve::user(user.as_deref(), group.as_deref());
    if let Ok(Some(user)) = &looked_up {
        app.user = Some(user.clone());
    }
    let fault = looked_up.err().or_else(|| fault(&app));
    let begin = match fault {
        Some(reason) if up => Begin::Errored(reason),
        _ if up => Begin::Up,
        _ => Begin::Stopped,
    };
    Revived { app, instance, begin }
}

/// Why an app cannot run that could when it was saved. What only its own user can tell is left to the
/// attempt.
fn fault(app: &App) -> Option<String> {
    if let Some(user) = &app.user {
        match users::user(&user.name) {
            Ok(None) => return Some(format!("unknown user {}", user.name)),
            Ok(Some(entry)) if entry.uid != user.uid => {
                let (now, then) = (entry.uid, user.uid);
                return Some(format!("user {} has uid {now}, and had {then} when it was saved", user.name));
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }
    let is_missing = |path: &Path| {
        let looked = fs::metadata(path);
        looked.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    };
    if is_missing(app.cwd.path()) {
        return Some(format!("working directory {}: no such directory", app.cwd));
    }
    // A line for a shell is no file.
    let is_line = app.command.interpreter_args.last().is_some_and(|arg| arg.bytes() == b"-c");
    if !is_line && is_missing(&app.cwd.path().join(app.command.script.path())) {
        return Some(format!("script {}: no such file", app.command.script));
    }
    None
}

/// Sends processes, in as many requests as their size needs.
fn send(session: &mut Session<'_, '_>, mut processes: Vec<Revived>) -> Result<Vec<Outcome>, Fail> {
    let verb = Verb::Resurrect { processes: processes.clone() };
    match act::request(session, act::RESURRECT, verb)? {
        Err(RequestError::TooLong(_)) if processes.len() > 1 => {
            let second = processes.split_off(processes.len() / 2);
            let mut outcomes = send(session, processes)?;
            outcomes.extend(send(session, second)?);
            Ok(outcomes)
        }
        Err(error) => Err(Fail::Sentence(format!("resurrect: {}", String::from(error)))),
        Ok(outcomes) => Ok(outcomes),
    }
}
