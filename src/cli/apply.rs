//! `apply`: makes what runs what a file declares, and shows before what that takes.

use super::Session;
use super::act::{self, Action};
use super::connect::Connection;
use super::screen::{Color, Fail, escaped};
use super::{save, start};
use crate::app::plan::{self, Change, Difference, Present, Step, Wanted};
use crate::app::{App, Instances, Text};
use crate::protocol::{Detail, Existing, Outcome, Scale, Status, Verb, by_id};
use crate::sys::limits;

const APPLY: Action = Action { verb: "apply", done: "online" };
const PRUNE: Action = Action { verb: "apply", done: "deleted" };

/// `pmx apply`.
pub fn apply(session: &mut Session<'_, '_>, file: &str) -> Result<(), Fail> {
    let prune = prunes(session, file)?;
    let wanted = wanted(session, file)?;
    let present = present(session)?;
    let steps =
        plan::plan(&wanted, &present, prune.as_ref()).map_err(|fault| format!("apply {file}: {fault}"))?;
    if steps.is_empty() {
        let apps = if wanted.len() == 1 { "app is" } else { "apps are" };
        return session
            .screen
            .line(&format!("apply {file}: nothing to do, {} {apps} as declared", wanted.len()));
    }
    for step in &steps {
        tell(session, &wanted, step)?;
    }
    if session.options.dry_run {
        return Ok(());
    }
    take(session, wanted, steps)
}

/// The file whose former apps are to go.
fn prunes(session: &Session<'_, '_>, file: &str) -> Result<Option<Text>, Fail> {
    if !session.options.prune {
        return Ok(None);
    }
    if session.options.only.is_some() {
        return Err(Fail::Sentence("apply: --prune and --only contradict each other".to_string()));
    }
    match start::origin(session.caller, file) {
        None => Err(Fail::Sentence("apply -: --prune needs a file that has a name".to_string())),
        origin => Ok(origin),
    }
}

fn wanted(session: &mut Session<'_, '_>, file: &str) -> Result<Vec<Wanted>, Fail> {
    let cpus = limits::cpus();
    let found = start::resolved("apply", session, file)?;
    let wanted = found.into_iter().map(|(changes, app)| Wanted {
        count: match app.instances {
            Instances::Count(count) => count.max(1),
            Instances::CpusLess(less) => cpus.saturating_sub(less).max(1),
        },
        has_umask: changes.umask.is_some(),
        app,
    });
    Ok(wanted.collect())
}

/// What is there. To learn that there is nothing no daemon is started.
fn present(session: &mut Session<'_, '_>) -> Result<Vec<Present>, Fail> {
    if session.connection.is_none() {
        session.connection = Connection::existing(&session.home)?;
    }
    if session.connection.is_none() {
        return Ok(Vec::new());
    }
    let mut details = act::details(session, &["all".to_string()])?;
    details.sort_by_key(|detail| detail.view.id);
    // What may be secret is not in them.
    if details.iter().any(|detail| !detail.app.on.is_empty()) {
        let (connection, _) = session.connected()?;
        for saved in save::list(connection)? {
            let is_it = |detail: &&mut Detail| {
                (&detail.app.name, &detail.app.namespace, detail.view.instance)
                    == (&saved.app.name, &saved.app.namespace, saved.instance)
            };
            details.iter_mut().filter(is_it).for_each(|detail| detail.app.on.clone_from(&saved.app.on));
        }
    }
    let present = |detail: Detail| Present {
        id: detail.view.id,
        is_down: matches!(detail.view.status, Status::Stopped | Status::Errored),
        app: detail.app,
    };
    Ok(details.into_iter().map(present).collect())
}

/// One step for people, as in a diff.
fn tell(session: &mut Session<'_, '_>, wanted: &[Wanted], step: &Step) -> Result<(), Fail> {
    let name = |app: &usize| escaped(&wanted[*app].app.name);
    let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let (color, text) = match step {
        Step::Start { app } => {
            let Wanted { app: App { command, .. }, count, .. } = &wanted[*app];
            let instances = if *count == 1 { String::new() } else { format!("{count} instances of ") };
            (Color::Green, format!("+ {}: start {instances}{}", name(app), escaped(&command.script.lossy())))
        }
        Step::Reload { app, differences } => {
            // Another script is another app, with other ports.
            let is_other = differences.iter().any(|difference| difference.field == "script");
            let how = if is_other { "restart" } else { "reload" };
            (Color::Yellow, format!("~ {}: {how}", name(app)))
        }
        Step::Wake { app, ids: down } => {
            (Color::Green, format!("+ {}: start {} again", name(app), ids(down)))
        }
        Step::Scale { app, from, to } => {
            (Color::Yellow, format!("~ {}: scale from {from} to {to}", name(app)))
        }
        Step::Delete { name, ids: old } => (Color::Red, format!("- {}: delete {}", escaped(name), ids(old))),
    };
    let line = session.screen.paint(color, &text);
    session.screen.line(&line)?;
    let Step::Reload { differences, .. } = step else { return Ok(()) };
    for Difference { field, change } in differences {
        let line = match change {
            Change::Values(from, to) => {
                format!("    {}: {} -> {}", escaped(field), escaped(from), escaped(to))
            }
            Change::Hidden(what) => format!("    {} {what}", escaped(field)),
        };
        session.screen.line(&line)?;
    }
    Ok(())
}

/// Takes the steps: what starts and what is reloaded first, what goes last.
fn take(session: &mut Session<'_, '_>, wanted: Vec<Wanted>, steps: Vec<Step>) -> Result<(), Fail> {
    let (mut started, mut reloaded) = (Vec::new(), Vec::new());
    let (mut woken, mut scaled, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Start { app } => started.push(wanted[app].app.clone()),
            Step::Reload { app, .. } => reloaded.push(wanted[app].app.clone()),
            Step::Wake { ids, .. } => woken.extend(ids.into_iter().map(by_id)),
            Step::Scale { app, to, .. } => scaled.push((wanted[app].app.name.clone(), to)),
            Step::Delete { ids, .. } => deleted.extend(ids.into_iter().map(by_id)),
        }
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    if !started.is_empty() {
        outcomes.extend(start::send(session, APPLY, started, Existing::Reload)?);
    }
    // Each by itself: a reload that fails ends its request, and is no reason to leave the other apps as they are.
    for app in reloaded {
        outcomes.extend(start::send(session, APPLY, vec![app], Existing::Reload)?);
    }
    if !woken.is_empty() {
        let verb = Verb::Restart { targets: woken, changes: Box::default() };
        outcomes.extend(act::perform(session, APPLY, verb)?);
    }
    for (name, to) in scaled {
        outcomes.extend(session.scaled(&name, Scale::To(to))?);
    }
    if !deleted.is_empty() {
        outcomes.extend(act::perform(session, PRUNE, Verb::Delete { targets: deleted })?);
    }
    act::finish(session, APPLY, &outcomes)
}

#[cfg(test)]
mod tests;
