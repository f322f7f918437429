//! `save`, `cleardump`, and what the daemon's autosave is written by. The files are written here, as the
//! person who typed the command, so that what goes wrong is told to that person.

use std::io::Read;

use super::Session;
use super::act;
use super::connect::Connection;
use super::screen::Fail;
use super::store::{self, Which};
use crate::app::dump::{self, Fault, Saved};
use crate::protocol::{Answer, Verb};
use crate::sys::atomic;

/// `pmx save`.
pub fn save(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    if session.options.autosave {
        return autosave(session);
    }
    let mut connection = Connection::existing(&session.home)?;
    let is_running = connection.is_some();
    let saved = connection.as_mut().map_or(Ok(Vec::new()), list)?;
    session.home.prepare()?;
    let _lock = store::lock(&session.home).map_err(|error| format!("save: {error}"))?;
    if saved.is_empty() && !session.options.force {
        refuse_less(session, is_running)?;
    }
    let count = saved.len();
    let path = write(session, Which::Dump, &dump::write(&saved)).map_err(|error| format!("save: {error}"))?;
    let processes = if count == 1 { "process" } else { "processes" };
    session.screen.line(&format!("save: {count} {processes} in {path}"))
}

/// `pmx cleardump`: an empty list is a list, too, and keeps the old one as a generation.
pub fn cleardump(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    session.home.prepare()?;
    let failed = |error| format!("cleardump: {error}");
    let _lock = store::lock(&session.home).map_err(failed)?;
    let path = write(session, Which::Dump, dump::EMPTY).map_err(failed)?;
    session.screen.line(&format!("cleardump: {path} is empty now"))
}

/// What is declared now.
pub fn list(connection: &mut Connection) -> Result<Vec<Saved>, Fail> {
    match connection.request(Verb::Dump, &mut |_| {}).map_err(String::from)? {
        Answer::Dump(saved) => Ok(saved),
        other => Err(Fail::Sentence(act::unexpected(&other))),
    }
}

/// Writes what the daemon put on our stdin.
fn autosave(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let mut content = Vec::new();
    std::io::stdin()
        .read_to_end(&mut content)
        .map_err(|error| format!("autosave: read the list: {}", crate::sys::reason(&error)))?;
    dump::read(&content).map_err(|fault| format!("autosave: the list on stdin: {fault}"))?;
    let failed = |error| format!("autosave: {error}");
    let _lock = store::lock(&session.home).map_err(failed)?;
    write(session, Which::Autosave, &content).map_err(failed)?;
    Ok(())
}

/// An empty list does not take the place of one that is not, or of one that cannot be read.
fn refuse_less(session: &Session<'_, '_>, is_running: bool) -> Result<(), Fail> {
    let path = store::path(&session.home, Which::Dump);
    let there = match store::read(&path) {
        None => return Ok(()),
        Some(Ok(list)) if list.saved.is_empty() => return Ok(()),
        Some(Ok(list)) if list.saved.len() == 1 => "1 process is".to_string(),
        Some(Ok(list)) => format!("{} processes are", list.saved.len()),
        Some(Err(_)) => "something unreadable is".to_string(),
    };
    let why = if is_running { "the list is empty" } else { "no daemon runs, so the list is empty" };
    Err(Fail::Sentence(format!("save: {why}, and {there} in {} (-f saves it all the same)", path.display())))
}

/// Replaces a file. What is damaged of the old ones does not become a generation: it would push out one
/// that is not.
fn write(session: &mut Session<'_, '_>, which: Which, content: &[u8]) -> Result<String, String> {
    let path = store::path(&session.home, which);
    if let Some(Err(Fault::Damaged(how))) = store::read(&path) {
        let aside = store::keep_aside(&path)?;
        let aside = store::name(&aside);
        session.screen.complain(&format!("{}: {how}; it is kept as {aside}", path.display()));
    }
    atomic::replace(&path, content).map_err(|error| error.to_string())?;
    Ok(path.display().to_string())
}
