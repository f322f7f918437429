//! `logs`: the last lines of logs, or those that are asked for, then what is appended to them. The files are read
//! directly, so nothing of this passes through the daemon.
//!
//! `read` puts together what several logs hold, `follow` what comes, and `print` shows it.

mod follow;
mod keys;
mod print;
mod read;
mod wanted;

use std::path::PathBuf;

use super::Session;
use super::act::details;
use super::grid::columns_of;
use super::options::Streams;
use super::screen::{Fail, escaped};
use crate::app::{DateFormat, Logs, Stdin};
use crate::logs::Stream;
use crate::logs::scan::Query;
use crate::logs::times::Times;
use crate::protocol::{ID, by_id};
use crate::sys::{clock, limits};
use keys::Keys;
use print::Printer;
pub use print::{DATE, Form};
pub use wanted::Wanted;

/// How many lines `logs` begins with.
const LINES: u64 = 15;
/// pm2's width of the prefix in front of the last lines.
const PREFIX: usize = 10;

/// One log.
#[derive(Clone)]
pub struct Source {
    path: PathBuf,
    /// `0|api`, or `pmx` for the daemon's own log.
    label: String,
    name: String,
    id: Option<u32>,
    stream: Stream,
    /// How its lines tell when they were written.
    times: Times,
}

/// `pmx logs`.
pub fn logs(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let all = ["all".to_string()];
    let targets = if operands.is_empty() { &all[..] } else { operands };
    let sources = sources(session, targets)?;
    // The files are all that is needed from here on, for hours perhaps.
    session.connection = None;
    let options = &mut session.options;
    let wanted = std::mem::take(&mut options.wanted);
    let query = wanted.query(clock::wall())?;
    let form = match () {
        () if options.json => Form::Json,
        () if wanted.fields => Form::Fields,
        () if options.raw => Form::Raw,
        () => Form::Usual,
    };
    let (lines, nostream) = (options.lines, options.nostream || query.until.is_some());
    let count = lines.unwrap_or(LINES);
    if form == Form::Usual && !query.asks() {
        let whose: Vec<&str> = targets.iter().map(|target| target.trim_start_matches(ID)).collect();
        let whose = escaped(&whose.join(", "));
        session.screen.line(&format!(
            "[TAILING] Tailing last {count} lines for [{whose}] processes (change the value with --lines option)"
        ))?;
    }
    let width = sources.iter().map(|source| columns_of(&source.label)).max().unwrap_or(0);
    let date = wanted.date.as_deref().map(DateFormat::new);
    let mut printer =
        Printer { screen: session.screen, form, width: width.max(PREFIX), date, highlight: wanted.highlight };
    // All files of all logs are open while we read.
    let _ = limits::raise_open_files();
    let followed = if query.asks() {
        read::search(&mut printer, sources, &query, lines, nostream)?
    } else {
        let mut followed = Vec::new();
        for source in sources {
            followed.push(read::last_lines(&mut printer, source, count, nostream)?);
        }
        followed
    };
    printer.screen.flush()?;
    if nostream {
        return Ok(());
    }
    printer.width = width;
    follow::follow(&mut printer, followed, &query, None)
}

/// `pmx attach`.
pub fn attach(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let targets = super::act::targets(session, "attach", operands)?;
    let found = details(session, &targets)?;
    let [detail] = &found[..] else {
        return Err(Fail::Sentence(format!("attach {}: more than one process", operands.join(" "))));
    };
    let who = format!("{}({})", escaped(&detail.view.name), detail.view.id);
    if detail.app.stdin != Stdin::Pipe {
        let advice = "its stdin is no pipe (pmx restart --stdin pipe, or stdin: \"pipe\")";
        return Err(Fail::Sentence(format!("attach {who}: {advice}")));
    }
    let target = by_id(detail.view.id);
    let sources = sources(session, std::slice::from_ref(&target))?;
    let connection = session.connection.take().ok_or_else(|| "attach: the daemon is gone".to_string())?;
    let keys = Keys::new(connection, target)?;
    let count = session.options.lines.unwrap_or(0);
    let mut printer =
        Printer { screen: session.screen, form: Form::Raw, width: 0, date: None, highlight: None };
    let mut followed = Vec::new();
    for source in sources {
        followed.push(read::last_lines(&mut printer, source, count, false)?);
    }
    printer.screen.complain(&format!("attached to {who}; ^C lets go of it"));
    follow::follow(&mut printer, followed, &Query::default(), Some(keys))
}

/// The files of the addressed processes by name and id, each once: instances may share theirs.
fn sources(session: &mut Session<'_, '_>, targets: &[String]) -> Result<Vec<Source>, Fail> {
    let mut sources: Vec<Source> = Vec::new();
    let streams = session.options.streams;
    let now = clock::wall();
    if targets == ["all"] && streams == Streams::Both {
        let (name, times) = ("pmx".to_string(), Times::new(&Logs::default(), now));
        let (path, label) = (session.home.log(), name.clone());
        sources.push(Source { path, label, name, id: None, stream: Stream::Daemon, times });
    }
    let targets = if targets.iter().any(|target| target == "all") { &["all".to_string()] } else { targets };
    let targets = super::act::targets(session, "logs", targets)?;
    for detail in details(session, &targets)? {
        let times = Times::new(&detail.app.logs, now);
        let label = format!("{}|{}", detail.view.id, escaped(&detail.view.name));
        let files =
            [(Stream::Out, &detail.out_file, Streams::Err), (Stream::Err, &detail.error_file, Streams::Out)];
        for (stream, path, unwanted) in files {
            let path = PathBuf::from(path);
            if streams != unwanted && !sources.iter().any(|source| source.path == path) {
                let (label, name, times) = (label.clone(), detail.view.name.clone(), times.clone());
                sources.push(Source { path, label, name, id: Some(detail.view.id), stream, times });
            }
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests;
