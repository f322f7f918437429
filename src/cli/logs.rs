//! `logs`: the last lines of log files, then what is appended to them. The files are read directly,
//! so nothing of this passes through the daemon.

mod follow;
mod tail;

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Session;
use super::act::details;
use super::grid::columns_of;
use super::options::Streams;
use super::screen::{Color, Fail, Screen, escaped};
use follow::Followed;
use tail::Lines;

/// How many lines `logs` begins with.
const LINES: u64 = 15;
/// pm2's width of the prefix in front of the last lines.
const PREFIX: usize = 10;

/// One log file.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    path: PathBuf,
    /// `0|api`, or `pmx` for the daemon's own log.
    label: String,
    stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
    Daemon,
}

/// How lines are printed.
struct Printer<'a, 's> {
    screen: &'a mut Screen<'s>,
    raw: bool,
    width: usize,
}

/// `pmx logs`.
pub fn logs(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let all = ["all".to_string()];
    let targets = if operands.is_empty() { &all[..] } else { operands };
    let sources = sources(session, targets)?;
    // The files are all that is needed from here on, for hours perhaps.
    session.connection = None;
    let options = &session.options;
    let (count, raw, nostream) = (options.lines.unwrap_or(LINES), options.raw, options.nostream);
    if !raw {
        let whose = escaped(&targets.join(", "));
        session.screen.line(&format!(
            "[TAILING] Tailing last {count} lines for [{whose}] processes (change the value with --lines option)"
        ))?;
    }
    let width = sources.iter().map(|source| columns_of(&source.label)).max().unwrap_or(0);
    let mut printer = Printer { screen: session.screen, raw, width: width.max(PREFIX) };
    let mut followed = Vec::new();
    for source in sources {
        followed.push(last_lines(&mut printer, source, count, nostream)?);
    }
    printer.screen.flush()?;
    if nostream {
        return Ok(());
    }
    printer.width = width;
    follow::follow(&mut printer, followed)
}

/// The files of the addressed processes by name and id, each once: instances may share theirs.
fn sources(session: &mut Session<'_, '_>, targets: &[String]) -> Result<Vec<Source>, Fail> {
    let mut sources: Vec<Source> = Vec::new();
    let streams = session.options.streams;
    if targets == ["all"] && streams == Streams::Both {
        sources.push(Source { path: session.home.log(), label: "pmx".to_string(), stream: Stream::Daemon });
    }
    let targets = if targets.iter().any(|target| target == "all") { &["all".to_string()] } else { targets };
    let targets = super::act::targets(session, "logs", targets)?;
    for detail in details(session, &targets)? {
        let label = format!("{}|{}", detail.view.id, escaped(&detail.view.name));
        let files =
            [(Stream::Out, &detail.out_file, Streams::Err), (Stream::Err, &detail.error_file, Streams::Out)];
        for (stream, path, unwanted) in files {
            let path = PathBuf::from(path);
            if streams != unwanted && !sources.iter().any(|source| source.path == path) {
                sources.push(Source { path, label: label.clone(), stream });
            }
        }
    }
    Ok(sources)
}

/// Prints the end of one file and hands on the place where following begins.
fn last_lines(
    printer: &mut Printer<'_, '_>,
    source: Source,
    count: u64,
    nostream: bool,
) -> Result<Followed, Fail> {
    let mut followed = Followed::new(source);
    let failed = |path: &Path, error| {
        Fail::Sentence(format!("read {}: {}", path.display(), crate::sys::reason(&error)))
    };
    let Some(file) = &followed.file else { return Ok(followed) };
    let source = &followed.source;
    let end = file.metadata().map_err(|error| failed(&source.path, error))?.len();
    let start = tail::start_of_last(file, end, count).map_err(|error| failed(&source.path, error))?;
    if !printer.raw && start < end {
        let path = escaped(&source.path.to_string_lossy());
        let title = printer.screen.paint(Color::Gray, &format!("{path} last {count} lines:"));
        printer.screen.line(&title)?;
    }
    let mut lines = Lines::default();
    let mut reader = file;
    reader.seek(SeekFrom::Start(start)).map_err(|error| failed(&source.path, error))?;
    let mut reader = BufReader::with_capacity(64 << 10, reader.take(end - start));
    loop {
        let chunk = reader.fill_buf().map_err(|error| failed(&source.path, error))?;
        if chunk.is_empty() {
            break;
        }
        let taken = chunk.len();
        lines.feed(chunk, &mut |line| printer.print(source, line))?;
        reader.consume(taken);
    }
    if nostream {
        lines.finish(&mut |line| printer.print(source, line))?;
    }
    followed.position = end;
    followed.lines = lines;
    Ok(followed)
}

impl Printer<'_, '_> {
    fn print(&mut self, source: &Source, line: &[u8]) -> Result<(), Fail> {
        if self.raw {
            if source.stream != Stream::Err {
                self.screen.data(line)?;
                return self.screen.data(b"\n");
            }
            // In order with what went to stdout before it.
            self.screen.flush()?;
            let _ = self.screen.err.write_all(&[line, b"\n"].concat());
            return Ok(());
        }
        let color = match source.stream {
            Stream::Out => Color::Green,
            Stream::Err => Color::Red,
            Stream::Daemon => Color::Blue,
        };
        let blanks = " ".repeat(self.width.saturating_sub(columns_of(&source.label)));
        let prefix = self.screen.paint(color, &format!("{}{blanks} |", source.label));
        let text = escaped(&String::from_utf8_lossy(line));
        self.screen.data(format!("{prefix} {text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests;
