//! Commands that act on processes: what they say while it lasts, and what came of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Session;
use super::caller::absolute;
use super::screen::{Color, Fail, Screen, escaped};
use crate::app::declaration::{self, Declared};
use crate::protocol::{Answer, Detail, Outcome, Progress, Scale, Verb, by_id};

/// A command that takes longer tells what it has done so far.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a command is called, and what its processes are afterwards.
#[derive(Clone, Copy)]
pub struct Action {
    pub verb: &'static str,
    pub done: &'static str,
}

pub const START: Action = Action { verb: "start", done: "online" };
pub const STOP: Action = Action { verb: "stop", done: "stopped" };
pub const RESTART: Action = Action { verb: "restart", done: "online" };
pub const RELOAD: Action = Action { verb: "reload", done: "online" };
pub const RESURRECT: Action = Action { verb: "resurrect", done: "online" };
pub const DELETE: Action = Action { verb: "delete", done: "deleted" };
pub const RESET: Action = Action { verb: "reset", done: "counters at zero" };
pub const SIGNAL: Action = Action { verb: "sendSignal", done: "sent" };
pub const SEND: Action = Action { verb: "send", done: "sent" };
pub const FLUSH: Action = Action { verb: "flush", done: "log files emptied" };

/// Sends one request and prints a line for each process; all outcomes are handed back.
pub fn perform(session: &mut Session<'_, '_>, action: Action, verb: Verb) -> Result<Vec<Outcome>, Fail> {
    let outcomes = request(session, action, verb)?.map_err(String::from)?;
    Ok(outcomes)
}

/// As [`perform`], with the request's own failure left to the caller.
pub fn request(
    session: &mut Session<'_, '_>,
    action: Action,
    verb: Verb,
) -> Result<Result<Vec<Outcome>, super::connect::RequestError>, Fail> {
    let began = Instant::now();
    // As pm2 it is said in pm2's words, at the end.
    let quiet = session.options.json || session.caller.is_pm2();
    let (connection, screen) = session.connected()?;
    let mut said = BTreeSet::new();
    let mut unsaid = Vec::new();
    let mut closed = Ok(());
    let answer = connection.request(verb, &mut |progress| {
        unsaid.push(progress.clone());
        if quiet || closed.is_err() || began.elapsed() < PATIENCE {
            return;
        }
        for Progress { outcome, settled, total } in unsaid.drain(..) {
            if closed.is_ok() && said.insert(outcome.id) {
                let count = format!(" ({settled}/{total})");
                closed = tell(screen, action, &outcome, &count).and_then(|()| screen.flush());
            }
        }
    });
    closed?;
    let outcomes = match answer {
        Ok(Answer::Outcomes(outcomes)) => outcomes,
        Ok(other) => return Err(Fail::Sentence(unexpected(&other))),
        Err(error) => return Ok(Err(error)),
    };
    for outcome in outcomes.iter().filter(|outcome| !quiet && !said.contains(&outcome.id)) {
        tell(screen, action, outcome, "")?;
    }
    Ok(Ok(outcomes))
}

/// The end of an action: the answer as JSON where that was asked for, and failure if anything failed.
pub fn finish(session: &mut Session<'_, '_>, action: Action, outcomes: &[Outcome]) -> Result<(), Fail> {
    if session.options.json {
        session.screen.json(outcomes)?;
    } else if session.caller.is_pm2() {
        tell_as_pm2(session, action, outcomes)?;
    } else if outcomes.is_empty() {
        session.screen.line(&format!("{}: done", action.verb))?;
    }
    if outcomes.iter().any(|outcome| outcome.failure.is_some()) { Err(Fail::Said) } else { Ok(()) }
}

/// What scripts look for in pm2's output, and its list.
fn tell_as_pm2(session: &mut Session<'_, '_>, action: Action, outcomes: &[Outcome]) -> Result<(), Fail> {
    let mut names: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !names.contains(&outcome.name.as_str()) {
            names.push(&outcome.name);
        }
    }
    for name in names {
        let of_app = || outcomes.iter().filter(|outcome| outcome.name == name);
        let ids: Vec<String> = of_app().map(|outcome| outcome.id.to_string()).collect();
        let method = match action.verb {
            "sendSignal" => "sendSignalToProcessId".to_string(),
            "reset" => "resetMetaProcessId".to_string(),
            verb => format!("{verb}ProcessId"),
        };
        let name = escaped(name);
        session
            .screen
            .line(&format!("[PM2] Applying action {method} on app [{name}](ids: [ {} ])", ids.join(", ")))?;
        for outcome in of_app() {
            match &outcome.failure {
                None => session.screen.line(&format!("[PM2] [{name}]({}) ✓", outcome.id))?,
                Some(failure) => session.screen.complain(&format!(
                    "[PM2][ERROR] [{name}]({}): {}",
                    outcome.id,
                    escaped(&failure.reason)
                )),
            }
        }
    }
    let shows_list = !session.screen.silent && !matches!(action.verb, "reload" | "sendSignal" | "flush");
    if shows_list { super::list::list(session) } else { Ok(()) }
}

/// One line for one process; on stderr, with its last words, when it failed.
fn tell(screen: &mut Screen<'_>, action: Action, outcome: &Outcome, count: &str) -> Result<(), Fail> {
    let who = format!("{} {}({})", action.verb, escaped(&outcome.name), outcome.id);
    let note = outcome.note.as_ref().map_or(String::new(), |note| format!(" ({})", escaped(note)));
    let Some(failure) = &outcome.failure else {
        let done = match &outcome.instead {
            Some(instead) => escaped(instead),
            None => screen.paint(Color::Green, action.done),
        };
        return screen.line(&format!("{who}: {done}{note}{count}"));
    };
    let reason = screen.paint(Color::Red, &escaped(&failure.reason));
    let mut text = format!("{who}: {reason}{note}{count}");
    for line in &failure.last_lines {
        text.push_str("\n    ");
        text.push_str(&escaped(line));
    }
    screen.complain(&text);
    Ok(())
}

/// An answer to another question than ours: the two ends do not fit together.
pub fn unexpected(answer: &Answer) -> String {
    let kind = match answer {
        Answer::Pong { .. } => "a pong",
        Answer::List(_) => "a list",
        Answer::Details(_) => "details",
        Answer::History(_) => "a history",
        Answer::Outcomes(_) => "outcomes",
        Answer::Healthy => "its health",
        Answer::Dump(_) => "a dump",
        Answer::Updated { .. } => "an update",
        Answer::Killed { .. } => "a farewell",
    };
    format!(
        "the daemon answered with {kind}, which was not asked for (is it of another version? pmx kill ends it)"
    )
}

/// What the operands address: a script's path becomes the ids that run it, a declaration file the
/// names in it; anything else is the daemon's to find.
pub fn targets(session: &mut Session<'_, '_>, verb: &str, operands: &[String]) -> Result<Vec<String>, Fail> {
    let mut targets = Vec::new();
    let mut has_file = false;
    for operand in operands {
        let path = absolute(&session.caller.cwd, Path::new(operand));
        if super::source::is_declaration(operand) {
            has_file = true;
            targets.extend(names(session, verb, operand)?);
        } else if let Some(pattern) = pattern(session, operand) {
            targets.extend(matching(session, verb, operand, pattern)?);
        } else if operand.contains(['/', '.']) && path.is_file() {
            let found = details(session, &["all".to_string()])?;
            let by_name = |one: &&Detail| one.view.name == *operand || one.view.namespace == *operand;
            if found.iter().any(|one| by_name(&one)) {
                targets.push(operand.clone());
                continue;
            }
            let ids = found.iter().filter(|one| one.app.command.script.path() == path);
            let before = targets.len();
            targets.extend(ids.map(|one| by_id(one.view.id)));
            if targets.len() == before {
                return Err(Fail::Sentence(format!("{verb} {operand}: no process runs it")));
            }
        } else {
            targets.push(operand.clone());
        }
    }
    if session.options.only.is_some() && !has_file {
        return Err(Fail::Sentence("--only chooses from a declaration file, and none was given".to_string()));
    }
    if let Some(name) = session.options.env.as_ref().filter(|_| !has_file) {
        return Err(Fail::Sentence(format!(
            "--env {name}: it chooses from a declaration file, and none was given"
        )));
    }
    Ok(targets)
}

/// What stands between the slashes of `/regex/`, unless it is the path of something.
pub fn pattern<'a>(session: &Session<'_, '_>, operand: &'a str) -> Option<&'a str> {
    let pattern = operand.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())?;
    let path = absolute(&session.caller.cwd, Path::new(operand));
    (!path.exists()).then_some(pattern)
}

/// The ids of the processes whose name matches. The daemon never reads a pattern of its users.
#[cfg(feature = "regex")]
pub fn matching(
    session: &mut Session<'_, '_>,
    verb: &str,
    operand: &str,
    pattern: &str,
) -> Result<Vec<String>, Fail> {
    let regex = regex_lite::Regex::new(pattern).map_err(|error| format!("{verb} {operand}: {error}"))?;
    let views = session.views()?;
    let named = views.iter().filter(|view| regex.is_match(&view.name));
    let ids: Vec<String> = named.map(|view| by_id(view.id)).collect();
    match ids.is_empty() {
        true => Err(Fail::Sentence(format!("{verb} {operand}: no process has such a name"))),
        false => Ok(ids),
    }
}

/// As it is without the crate that knows regular expressions.
#[cfg(not(feature = "regex"))]
pub fn matching(_: &mut Session<'_, '_>, verb: &str, operand: &str, _: &str) -> Result<Vec<String>, Fail> {
    Err(Fail::Sentence(format!("{verb} {operand}: this pmx was built without the feature regex")))
}

/// The names that a declaration file would start its apps under.
fn names(session: &mut Session<'_, '_>, verb: &str, file: &str) -> Result<Vec<String>, Fail> {
    let document = super::source::read(session.caller, file).map_err(|error| format!("{verb} {error}"))?;
    let mut declarations = declaration::read(file, &document)?;
    super::start::choose(&mut declarations, session.options.only.as_deref(), file)?;
    if let Some(name) = &session.options.env {
        declarations.choose_env(file, name);
    }
    Ok(declarations.apps.iter().map(Declared::name).collect())
}

/// All facts about the addressed processes. An empty list has no details and is no error.
pub fn details(session: &mut Session<'_, '_>, targets: &[String]) -> Result<Vec<Detail>, Fail> {
    let (connection, _) = session.connected()?;
    if targets == ["all"] {
        match connection.request(Verb::List, &mut |_| {}).map_err(String::from)? {
            Answer::List(views) if views.is_empty() => return Ok(Vec::new()),
            _ => {}
        }
    }
    match connection
        .request(Verb::Describe { targets: targets.to_vec() }, &mut |_| {})
        .map_err(String::from)?
    {
        Answer::Details(mut details) => {
            details.sort_by(|a, b| (&a.view.name, a.view.id).cmp(&(&b.view.name, b.view.id)));
            Ok(details)
        }
        other => Err(Fail::Sentence(unexpected(&other))),
    }
}

/// `3`, `+2`, `-1`.
pub fn scale(text: &str) -> Result<Scale, String> {
    let parse = |digits: &str| digits.parse::<u32>().ok();
    let scale = match text.as_bytes().first() {
        Some(b'+') => parse(&text[1..]).map(Scale::Add),
        Some(b'-') => parse(&text[1..]).map(Scale::Remove),
        _ => parse(text).map(Scale::To),
    };
    scale.ok_or_else(|| format!("scale: expected a number of instances such as 3, +2 or -1, got {text:?}"))
}
