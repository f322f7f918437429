//! `start` and its relatives: what the operand is (a declaration file, a process that exists, a
//! script), resolved completely before anything is sent.

use std::collections::BTreeSet;
use std::path::Path;

use super::Session;
use super::act::{self, Action};
use super::caller::{Caller, absolute};
use super::conf;
use super::connect::{Connection, RequestError};
use super::logs;
use super::options::Options;
use super::resolve::{self, Resolved};
use super::screen::Fail;
use super::source;
use crate::app::declaration::{self, Declarations, Declared};
use crate::app::{App, Changes, SharedEnv, Text, interpreter};
use crate::protocol::{Answer, Existing, Outcome, Verb, View, by_id};

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
    /// The same, without a gap.
    Reload {
        target: String,
    },
}

impl Step {
    /// What runs is reloaded.
    fn gently(self) -> Step {
        match self {
            Step::Start { apps, existing: Existing::Refuse | Existing::Restart } => {
                Step::Start { apps, existing: Existing::Reload }
            }
            Step::Restart { target } => Step::Reload { target },
            other => other,
        }
    }
}

/// `pmx start`.
pub fn start(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let usual: Vec<String>;
    let operands = if operands.is_empty() {
        usual = source::usual(session.caller).into_iter().collect();
        if usual.is_empty() {
            return Err(Fail::Sentence(
                "start: nothing given, and no ecosystem.config.js or processes.json is here".to_string(),
            ));
        }
        &usual
    } else {
        operands
    };
    let mut steps = Vec::new();
    for operand in operands {
        steps.extend(self::steps(session, operand, operands.len())?);
    }
    run(session, act::START, steps)
}

/// Starts one app as it is declared.
pub fn one(session: &mut Session<'_, '_>, declared: &Declared) -> Result<(), Fail> {
    let app = resolve(declared, session).map_err(|error| format!("start {}: {error}", declared.script))?.app;
    let existing = if session.options.force { Existing::Force } else { Existing::Refuse };
    run(session, act::START, vec![Step::Start { apps: vec![app], existing }])
}

/// `pmx startOrReload`.
pub fn start_or_reload(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let mut steps = Vec::new();
    for operand in operands {
        steps.extend(self::steps(session, operand, operands.len())?.into_iter().map(Step::gently));
    }
    run(session, act::RELOAD, steps)
}

/// `pmx reload`: targets, and declaration files, of which what is missing is started.
pub fn reload(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let (files, names): (Vec<_>, Vec<_>) =
        operands.iter().cloned().partition(|operand| source::is_declaration(operand));
    let mut steps = Vec::new();
    for file in &files {
        steps.push(file_step(session, "reload", file)?.gently());
    }
    if files.is_empty() || !names.is_empty() {
        let targets = act::targets(session, "reload", &names)?;
        steps.extend(targets.into_iter().map(|target| Step::Reload { target }));
    }
    run(session, act::RELOAD, steps)
}

/// `pmx restart`: targets, and declaration files that are started again.
pub fn restart(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let (files, names): (Vec<_>, Vec<_>) =
        operands.iter().cloned().partition(|operand| source::is_declaration(operand));
    let mut steps = Vec::new();
    for file in &files {
        steps.push(file_step(session, "restart", file)?);
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
    if let Some(name) = &options.env {
        return Err(Fail::Sentence(format!(
            "--env {name}: it chooses from a declaration file, and none was given"
        )));
    }
    if options.write {
        let why = "--write: only what is started anew is written down";
        return Err(Fail::Sentence(why.to_string()));
    }
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
    if let Some(combined) = &mut changes.logs.combined {
        resolve::combined(&cwd, combined);
    }
    if let Some(file) = &mut changes.pid_file {
        *file = Text::from(&absolute(&cwd, file.path()));
    }
    if let Some(what) = &mut changes.triggers.watch {
        resolve::watched(&cwd, what)?;
    }
    if options.update_env {
        changes.inherit = Some(SharedEnv(session.caller.inheritable().into()));
    }
    changes.user = resolve::user(options.user.as_deref(), options.group.as_deref())?;
    Ok(Box::new(changes))
}

/// What one operand asks for: one thing, unless it is a pattern.
fn steps(session: &mut Session<'_, '_>, operand: &str, operands: usize) -> Result<Vec<Step>, Fail> {
    if let Some(pattern) = act::pattern(session, operand) {
        let found = act::matching(session, "start", operand, pattern)?;
        return Ok(found.into_iter().map(|target| Step::Restart { target }).collect());
    }
    Ok(vec![step(session, operand, operands)?])
}

fn step(session: &mut Session<'_, '_>, operand: &str, operands: usize) -> Result<Step, Fail> {
    if source::is_declaration(operand) {
        return file_step(session, "start", operand);
    }
    if session.options.env.is_some() {
        return Err(Fail::Sentence(format!("start {operand}: --env chooses from a declaration file")));
    }
    if session.options.only.is_some() {
        return Err(Fail::Sentence(format!("start {operand}: --only chooses from a declaration file")));
    }
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
    let found = resolve(&declared, session).map_err(|error| format!("start {operand}: {error}"))?;
    for note in &found.notes {
        session.screen.complain(note);
    }
    if session.options.write {
        write(session, &found.app.name, &declared)?;
    }
    let existing = if session.options.force { Existing::Force } else { Existing::Refuse };
    Ok(Step::Start { apps: vec![found.app], existing })
}

/// pm2's `--write`: what the command line says about a script, as a declaration file that says the same.
fn write(session: &mut Session<'_, '_>, name: &str, declared: &Declared) -> Result<(), Fail> {
    let file = format!("{name}-pm2.json");
    let mut app = declaration::written(declared);
    app["name"] = name.into();
    let text = serde_json::to_string_pretty(&serde_json::json!({ "apps": [app] }));
    let text = text.map_err(|error| format!("write {file}: {error}"))?;
    std::fs::write(session.caller.cwd.join(&file), text + "\n")
        .map_err(|error| format!("write {file}: {}", crate::sys::reason(&error)))?;
    session.screen.line(&format!("start {name}: {file} is written"))
}

fn resolve(declared: &Declared, session: &Session<'_, '_>) -> Result<Resolved, String> {
    let mut found = resolve::resolve(declared, session.caller)?;
    conf::give(session, &mut found.app)?;
    Ok(found)
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
    let document = source::read(caller, file).map_err(|error| format!("{verb} {error}"))?;
    let mut found = declaration::read(file, &document)?;
    choose(&mut found, options.only.as_deref(), file)?;
    if let Some(name) = &options.env {
        found.choose_env(file, name);
    }
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
fn file_step(session: &mut Session<'_, '_>, verb: &str, file: &str) -> Result<Step, Fail> {
    if session.options.write {
        return Err(Fail::Sentence(format!("{verb} {file}: --write: it is declared in a file already")));
    }
    let apps = resolved(verb, session, file)?.into_iter().map(|(_, app)| app).collect();
    let existing = if session.options.force { Existing::Force } else { Existing::Restart };
    Ok(Step::Start { apps, existing })
}

/// Where a declaration file is, as its apps remember it.
pub fn origin(caller: &Caller, file: &str) -> Option<Text> {
    (file != "-").then(|| Text::from(&absolute(&caller.cwd, Path::new(file))))
}

/// All apps of a file, each with what was said about it.
pub fn resolved(verb: &str, session: &mut Session<'_, '_>, file: &str) -> Result<Vec<(Changes, App)>, Fail> {
    let declarations = self::file(verb, session.caller, &session.options, file)?;
    let origin = origin(session.caller, file);
    let mut apps = Vec::new();
    let mut notes = declarations.warnings;
    for declared in declarations.apps {
        let found = resolve(&declared, session).map_err(|error| {
            format!("{}: app {:?}: {}: {error}", declared.place(file), declared.name(), declared.script)
        })?;
        notes.extend(found.notes);
        if found.app.on.need_tls() && source::program(session.caller, "curl").is_none() {
            notes.push(format!("app {:?}: on: https needs curl, which is not in your PATH", found.app.name));
        }
        apps.push((declared.changes, App { file: origin.clone(), ..found.app }));
    }
    for note in notes {
        session.screen.complain(&note);
    }
    Ok(apps)
}

fn run(session: &mut Session<'_, '_>, action: Action, steps: Vec<Step>) -> Result<(), Fail> {
    let mut outcomes = Vec::new();
    let (mut targets, mut reloaded) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Reload { target } => reloaded.push(target),
            Step::Start { apps, existing } => outcomes.extend(send(session, action, apps, existing)?),
            Step::Restart { target } => targets.push(target),
        }
    }
    if !targets.is_empty() {
        let changes = changes(session)?;
        outcomes.extend(act::perform(session, action, Verb::Restart { targets, changes })?);
    }
    if !reloaded.is_empty() {
        let (changes, parallel) = (changes(session)?, session.options.parallel);
        let verb = Verb::Reload { targets: reloaded, changes, parallel };
        outcomes.extend(act::perform(session, action, verb)?);
    }
    act::finish(session, action, &outcomes)?;
    if !session.options.attach {
        return Ok(());
    }
    let ids: BTreeSet<u32> = outcomes.iter().map(|outcome| outcome.id).collect();
    let targets: Vec<String> = ids.into_iter().map(by_id).collect();
    logs::logs(session, &targets)
}

/// Sends apps, in as many requests as their size needs.
pub fn send(
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

/// Leaves only the named apps; a name that the file does not hold is a mistake.
pub fn choose(found: &mut Declarations, only: Option<&[String]>, file: &str) -> Result<(), Fail> {
    let Some(only) = only else { return Ok(()) };
    if let Some(missing) = only.iter().find(|name| !found.apps.iter().any(|app| app.name() == **name)) {
        return Err(Fail::Sentence(format!("{file}: --only {missing}: no such app in it")));
    }
    found.apps.retain(|app| only.contains(&app.name()));
    Ok(())
}

#[cfg(test)]
mod tests;
