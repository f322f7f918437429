//! `start` and its relatives: what the operand is (a declaration file, a process that exists, a
//! script), resolved completely before anything is sent.

use std::io::Read;
use std::path::Path;

use super::Session;
use super::act::{self, Action};
use super::caller::{Caller, absolute};
use super::connect::{Connection, RequestError};
use super::options::Options;
use super::resolve;
use super::screen::Fail;
use crate::app::declaration::{self, Declarations, Declared};
use crate::app::{App, Changes, SharedEnv, Text, interpreter};
use crate::protocol::{Answer, Existing, Outcome, Verb, View};

/// The longest declaration that is read.
const DECLARATION_LIMIT: u64 = 16 << 20;

/// One thing to do.
enum Step {
    Start {
        apps: Vec<App>,
        existing: Existing,
    },
    /// It exists already.
    Restart {
        target: String,
    },
}

/// `pmx start`.
pub fn start(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    if operands.is_empty() {
        return Err(Fail::Sentence(
            "start: nothing given (looking for ecosystem.config.js or processes.json is not built yet: name the file)"
                .to_string(),
        ));
    }
    let mut steps = Vec::new();
    for operand in operands {
        steps.push(step(session, operand, operands.len())?);
    }
    run(session, act::START, steps)
}

/// `pmx restart`: targets, and declaration files that are started again.
pub fn restart(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let (files, names): (Vec<_>, Vec<_>) =
        operands.iter().cloned().partition(|operand| is_declaration(operand));
    let mut steps = Vec::new();
    for file in &files {
        steps.push(file_step(session, file)?);
    }
    if files.is_empty() || !names.is_empty() {
        for target in act::targets(session, "restart", &names)? {
            steps.push(Step::Restart { target });
        }
    }
    run(session, act::RESTART, steps)
}

/// What the options say about apps that exist, ready to be sent.
pub fn changes(session: &Session<'_, '_>) -> Result<Box<Changes>, Fail> {
    let options = &session.options;
    let mut changes = options.changes.clone();
    for name in [&changes.name, &changes.namespace].into_iter().flatten() {
        if let Some(fault) = interpreter::name_fault(name) {
            return Err(Fail::Sentence(fault.to_string()));
        }
    }
    let cwd = match &changes.cwd {
        Some(cwd) => absolute(&session.caller.cwd, cwd.path()),
        None => session.caller.cwd.clone(),
    };
    if let Some(given) = &mut changes.cwd {
        if !cwd.is_dir() {
            return Err(Fail::Sentence(format!("working directory {}: no such directory", cwd.display())));
        }
        *given = Text::from(&cwd);
    }
    for file in [&mut changes.out_file, &mut changes.error_file].into_iter().flatten() {
        *file = resolve::log_file(&cwd, file);
    }
    if options.update_env {
        changes.inherit = Some(SharedEnv(session.caller.inheritable().into()));
    }
    changes.user = resolve::user(options.user.as_deref(), options.group.as_deref())?;
    Ok(Box::new(changes))
}

fn step(session: &mut Session<'_, '_>, operand: &str, operands: usize) -> Result<Step, Fail> {
    if is_declaration(operand) {
        return file_step(session, operand);
    }
    if session.options.only.is_some() {
        return Err(Fail::Sentence(format!("start {operand}: --only chooses from a declaration file")));
    }
    refuse_unbuilt("start", operand)?;
    // pm2 asks for bare words only, so a name with a dot could never be started again; it can here
    // as long as no such file is in the way.
    let file = absolute(&session.caller.cwd, Path::new(operand));
    let may_exist = !operand.contains('/') && (!operand.contains('.') || !file.is_file());
    if may_exist && !session.options.force && exists(session, operand)? {
        return Ok(Step::Restart { target: operand.to_string() });
    }
    let options = &session.options;
    if options.changes.name.is_some() && operands > 1 {
        return Err(Fail::Sentence(format!(
            "start {operand}: one --name cannot be given to {operands} apps"
        )));
    }
    let declared = script(options, operand);
    let found =
        resolve::resolve(&declared, session.caller).map_err(|error| format!("start {operand}: {error}"))?;
    for note in &found.notes {
        session.screen.complain(note);
    }
    let existing = if session.options.force { Existing::Force } else { Existing::Refuse };
    Ok(Step::Start { apps: vec![found.app], existing })
}

/// Declarations of kinds that pm2 reads and pmx does not.
pub fn refuse_unbuilt(verb: &str, operand: &str) -> Result<(), Fail> {
    const UNBUILT: [&str; 7] =
        [".yml", ".yaml", ".json5", ".toml", ".config.js", ".config.cjs", ".config.mjs"];
    match UNBUILT.iter().find(|kind| operand.ends_with(**kind)) {
        Some(kind) => {
            Err(Fail::Sentence(format!("{verb} {operand}: {kind} declarations are not built yet, .json is")))
        }
        None => Ok(()),
    }
}

/// What the command line says about a script.
pub fn script(options: &Options, operand: &str) -> Declared {
    Declared {
        script: Text::from(operand),
        interpreter: options.interpreter.clone(),
        user: options.user.clone(),
        group: options.group.clone(),
        changes: options.changes.clone(),
        ..Declared::default()
    }
}

/// All apps of a file that are wanted, under the options of the command line.
pub fn file(verb: &str, caller: &Caller, options: &Options, file: &str) -> Result<Declarations, Fail> {
    let text = read_declaration(caller, file).map_err(|error| format!("{verb} {error}"))?;
    let mut found = declaration::read(file, &text)?;
    choose(&mut found, options.only.as_deref(), file)?;
    if options.changes.name.is_some() && found.apps.len() > 1 {
        return Err(Fail::Sentence(format!(
            "{file}: one --name cannot be given to {} apps",
            found.apps.len()
        )));
    }
    for declared in &mut found.apps {
        declared.changes.overlay(&options.changes);
        declared.interpreter = options.interpreter.clone().or(declared.interpreter.take());
        if options.user.is_some() || options.group.is_some() {
            declared.user.clone_from(&options.user);
            declared.group.clone_from(&options.group);
        }
    }
    Ok(found)
}

/// All apps of a file; none of them if one is wrong.
fn file_step(session: &mut Session<'_, '_>, file: &str) -> Result<Step, Fail> {
    let declarations = self::file("start", session.caller, &session.options, file)?;
    let mut apps = Vec::new();
    let mut notes = declarations.warnings;
    for declared in declarations.apps {
        let name = name_of(&declared);
        let found = resolve::resolve(&declared, session.caller)
            .map_err(|error| format!("{file}: app {name:?}: {}: {error}", declared.script))?;
        notes.extend(found.notes);
        apps.push(found.app);
    }
    for note in notes {
        session.screen.complain(&note);
    }
    let existing = if session.options.force { Existing::Force } else { Existing::Restart };
    Ok(Step::Start { apps, existing })
}

fn run(session: &mut Session<'_, '_>, action: Action, steps: Vec<Step>) -> Result<(), Fail> {
    let mut outcomes = Vec::new();
    let mut targets = Vec::new();
    for step in steps {
        match step {
            Step::Start { apps, existing } => outcomes.extend(send(session, action, apps, existing)?),
            Step::Restart { target } => targets.push(target),
        }
    }
    if !targets.is_empty() {
        let changes = changes(session)?;
        outcomes.extend(act::perform(session, action, Verb::Restart { targets, changes })?);
    }
    act::finish(session, action, &outcomes)
}

/// Sends apps, in as many requests as their size needs.
fn send(
    session: &mut Session<'_, '_>,
    action: Action,
    mut apps: Vec<App>,
    existing: Existing,
) -> Result<Vec<Outcome>, Fail> {
    let inherit = SharedEnv(session.caller.inheritable().into());
    match act::request(session, action, Verb::Start { apps: apps.clone(), inherit, existing })? {
        Err(RequestError::TooLong(_)) if apps.len() > 1 => {
            let second = apps.split_off(apps.len() / 2);
            let mut outcomes = send(session, action, apps, existing)?;
            outcomes.extend(send(session, action, second, existing)?);
            Ok(outcomes)
        }
        Err(error @ RequestError::TooLong(_)) => {
            Err(Fail::Sentence(format!("start {}: {}", apps[0].name, String::from(error))))
        }
        Err(error) => Err(Fail::Sentence(error.into())),
        Ok(outcomes) => Ok(outcomes),
    }
}

/// Whether a process, a namespace or an id is called `word`. Without a daemon nothing exists, and
/// none is started to learn that.
fn exists(session: &mut Session<'_, '_>, word: &str) -> Result<bool, Fail> {
    if session.connection.is_none() {
        session.connection = Connection::existing(&session.home)?;
    }
    let Some(connection) = &mut session.connection else { return Ok(false) };
    let called = |view: &View| view.name == word || view.namespace == word || view.id.to_string() == word;
    match connection.request(Verb::List, &mut |_| {}).map_err(String::from)? {
        Answer::List(views) => Ok(views.iter().any(called)),
        other => Err(Fail::Sentence(act::unexpected(&other))),
    }
}

/// Whether an operand is a declaration file, or stdin with one.
pub fn is_declaration(operand: &str) -> bool {
    operand == "-" || operand.ends_with(".json")
}

/// The text of a declaration file, or of stdin.
pub fn read_declaration(caller: &Caller, file: &str) -> Result<String, String> {
    let mut text = Vec::new();
    let read = if file == "-" {
        std::io::stdin().take(DECLARATION_LIMIT + 1).read_to_end(&mut text)
    } else {
        let opened = std::fs::File::open(absolute(&caller.cwd, Path::new(file)));
        opened.and_then(|opened| opened.take(DECLARATION_LIMIT + 1).read_to_end(&mut text))
    };
    match read {
        Ok(_) if text.len() as u64 > DECLARATION_LIMIT => {
            Err(format!("{file}: longer than {} MiB", DECLARATION_LIMIT >> 20))
        }
        Ok(_) => String::from_utf8(text).map_err(|_| format!("{file}: not UTF-8")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("{file}: no such file")),
        Err(error) => Err(format!("{file}: {}", crate::sys::reason(&error))),
    }
}

/// Leaves only the named apps; a name that the file does not hold is a mistake.
pub fn choose(found: &mut Declarations, only: Option<&[String]>, file: &str) -> Result<(), Fail> {
    let Some(only) = only else { return Ok(()) };
    if let Some(missing) = only.iter().find(|name| !found.apps.iter().any(|app| name_of(app) == **name)) {
        return Err(Fail::Sentence(format!("{file}: --only {missing}: no such app in it")));
    }
    found.apps.retain(|app| only.contains(&name_of(app)));
    Ok(())
}

/// What an app will be called.
pub fn name_of(declared: &Declared) -> String {
    let script = declared.script.lossy();
    let by_script = || match script.contains(char::is_whitespace) {
        true => interpreter::line_name(&script),
        false => interpreter::default_name(&script),
    };
    declared.changes.name.clone().unwrap_or_else(by_script)
}

#[cfg(test)]
mod tests;
