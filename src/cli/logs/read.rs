//! What is there already: the last lines of each log, or all lines that are asked for, of all logs in the order of
//! their times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::time::Duration;

use super::Source;
use super::follow::Followed;
use super::print::Printer;
use crate::cli::screen::{Color, Fail, escaped};
use crate::logs::follow;
use crate::logs::history::{History, Links, Old, fault};
use crate::logs::scan::{self, BLOCK, Query, Scan};
use crate::logs::tail::{self, Lines};
use crate::logs::times::{Times, of_system};
use crate::sys::poll::{self, Until};
use crate::time::Wall;

/// What all logs together may have in memory, about.
const MEMORY: usize = 32 << 20;
/// The least that a log is looked through with.
const LEAST: usize = 64 << 10;
/// What the last lines may have that are wanted of those that were found.
const KEPT: usize = 64 << 20;
/// So often, in blocks, it is looked whether anybody reads what is printed.
const PAUSE: u32 = 16;

/// Prints the end of one log and hands on the place where following begins.
pub fn last_lines(
    printer: &mut Printer<'_, '_>,
    source: Source,
    count: u64,
    nostream: bool,
) -> Result<Followed, Fail> {
    let mut log = follow::Followed::new(&source.path, Links::Followed);
    let (mut start, mut end, mut found) = end_of(&log, count)?;
    let mut before = Vec::new();
    if found < count {
        // It may have been rotated since it was opened: what is looked at is of one moment.
        let history = History::of(&source.path, Links::Followed);
        log = follow::Followed::after(&history);
        (start, end, found) = end_of(&log, count)?;
        before = lines_before(printer, history.old, count - found);
    }
    let failed = |error| Fail::Sentence(escaped(&fault("read", &source.path, &error)));
    if printer.form == super::print::Form::Usual && (start < end || !before.is_empty()) {
        let path = escaped(&source.path.to_string_lossy());
        let title = printer.screen.paint(Color::Gray, &format!("{path} last {count} lines:"));
        printer.screen.line(&title)?;
    }
    let mut lines = Lines::default();
    let mut aged = Aged::new(&source, printer.is_timed());
    for (old, skipped) in before {
        let Ok(content) = old.content() else { continue };
        aged.file(of_system(old.written()));
        let (mut skipped, mut content) = (skipped, BufReader::with_capacity(64 << 10, content));
        // What is wrong with it was told when its lines were counted.
        let _ = feed(&mut lines, &mut content, &mut |line| {
            if skipped > 0 {
                skipped -= 1;
                return Ok(());
            }
            aged.print(printer, &source, line)
        })?;
        lines.finish(&mut |line| aged.print(printer, &source, line))?;
    }
    if let Some(file) = &log.file {
        let written = file.metadata().and_then(|found| found.modified()).map_or(Wall(0), of_system);
        aged.file(written);
        let mut content = reader(file, start, end).map_err(failed)?;
        feed(&mut lines, &mut content, &mut |line| aged.print(printer, &source, line))?.map_err(failed)?;
        if nostream {
            lines.finish(&mut |line| aged.print(printer, &source, line))?;
        }
    }
    log.position = end;
    log.lines = lines;
    Ok(Followed { source, log })
}

/// Where the last lines of the current file begin and end, and how many there are, which may be fewer than wanted.
fn end_of(log: &follow::Followed, count: u64) -> Result<(u64, u64, u64), Fail> {
    let Some(file) = &log.file else { return Ok((0, 0, 0)) };
    let looked = || {
        let end = file.metadata()?.len();
        let start = tail::start_of_last(file, end, count, 0)?;
        let found = if start > 0 { count } else { tail::count_lines(&mut reader(file, 0, end)?).0 };
        Ok((start, end, found))
    };
    looked().map_err(|error| Fail::Sentence(escaped(&fault("read", log.path(), &error))))
}

fn reader(file: &File, start: u64, end: u64) -> std::io::Result<BufReader<std::io::Take<&File>>> {
    let mut reader = file;
    reader.seek(SeekFrom::Start(start))?;
    Ok(BufReader::with_capacity(64 << 10, reader.take(end.saturating_sub(start))))
}

/// Hands on all lines of a file. Within is what came of reading.
fn feed(
    lines: &mut Lines,
    from: &mut impl BufRead,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<std::io::Result<()>, Fail> {
    loop {
        let chunk = match from.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Err(error)),
        };
        if chunk.is_empty() {
            return Ok(Ok(()));
        }
        let taken = chunk.len();
        lines.feed(chunk, emit)?;
        from.consume(taken);
    }
}

/// The old files that hold the last `count` lines, oldest first, and how many lines of each are to be skipped.
fn lines_before(printer: &mut Printer<'_, '_>, mut old: Vec<Old>, count: u64) -> Vec<(Old, u64)> {
    let (mut found, mut missing) = (Vec::new(), count);
    while missing > 0
        && let Some(file) = old.pop()
    {
        let (lines, error) = match file.content() {
            Ok(content) => tail::count_lines(&mut BufReader::with_capacity(64 << 10, content)),
            Err(error) => (0, Some(error)),
        };
        if let Some(error) = error {
            printer.screen.complain(&escaped(&fault("read", &file.path, &error)));
        }
        found.push((file, lines.saturating_sub(missing)));
        missing = missing.saturating_sub(lines);
    }
    found.reverse();
    found
}

/// The times of lines that come one after the other.
struct Aged {
    times: Times,
    last: Wall,
    is_timed: bool,
}

impl Aged {
    fn new(source: &Source, is_timed: bool) -> Aged {
        Aged { times: source.times.clone(), last: Wall(0), is_timed }
    }

    /// A file begins that was last written at this time.
    fn file(&mut self, written: Wall) {
        self.times.of_file(written);
        self.last = written;
    }

    fn print(&mut self, printer: &mut Printer<'_, '_>, source: &Source, line: &[u8]) -> Result<(), Fail> {
        if self.is_timed {
            self.last = self.times.of(line).unwrap_or(self.last);
        }
        printer.print(source, &self.times, line, self.last)
    }
}

/// Prints all lines that are asked for, or the last `count` of them, in the order of their times, and hands on the
/// places where following begins.
pub fn search(
    printer: &mut Printer<'_, '_>,
    sources: Vec<Source>,
    query: &Query,
    count: Option<u64>,
    nostream: bool,
) -> Result<Vec<Followed>, Fail> {
    let block = (MEMORY / sources.len().max(1)).clamp(LEAST, BLOCK);
    let is_timed = sources.len() > 1 || query.since.is_some() || query.until.is_some() || printer.is_timed();
    let (mut followed, mut scans, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        let history = History::of(&source.path, Links::Followed);
        for fault in &history.faults {
            printer.screen.complain(&escaped(fault));
        }
        let end =
            history.current.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        // First, because it reads from the same open files.
        let log = follow::Followed::after(&history);
        let parts = scan::parts(&history, end, &source.times, query);
        let scan = Scan::new(parts, source.stream, source.times.clone(), block, !nostream);
        followed.push(Followed { source, log });
        scans.push(if is_timed { scan } else { scan.without_times() });
        ends.push(end);
    }
    let mut last = Last { count, lines: VecDeque::new(), bytes: 0, lost: 0 };
    let mut heap = BinaryHeap::new();
    let mut blocks = 0;
    let mut advance = |printer: &mut Printer<'_, '_>, scans: &mut [Scan], at: usize| {
        let mut pause = || {
            blocks += 1;
            if blocks % PAUSE == 0 { look(printer) } else { Ok(()) }
        };
        let found = scans[at].next(query, &mut pause);
        for fault in scans[at].faults.drain(..) {
            printer.screen.complain(&escaped(&fault));
        }
        Ok::<_, Fail>(found?.then(|| Reverse((scans[at].time, at))))
    };
    for at in 0..scans.len() {
        heap.extend(advance(printer, &mut scans, at)?);
    }
    while let Some(Reverse((time, at))) = heap.pop() {
        let (source, scan) = (&followed[at].source, &scans[at]);
        match last.count {
            None => printer.print(source, &source.times, scan.found(), time)?,
            Some(_) => last.keep(at, time, scan.found()),
        }
        heap.extend(advance(printer, &mut scans, at)?);
    }
    if last.lost > 0 {
        let text = format!(
            "logs: of the last lines {} more are left out, because they are too long together",
            last.lost
        );
        printer.screen.complain(&text);
    }
    for (at, time, line) in last.lines {
        let source = &followed[at].source;
        printer.print(source, &source.times, &line, time)?;
    }
    for ((followed, scan), end) in followed.iter_mut().zip(&scans).zip(ends) {
        followed.log.position = end - scan.rest() as u64;
    }
    Ok(followed)
}

/// Hands on what was found so far, and ends if nobody reads it any more.
fn look(printer: &mut Printer<'_, '_>) -> Result<(), Fail> {
    printer.screen.flush()?;
    let stdout = std::io::stdout();
    match poll::wait(&[(stdout.as_fd(), Until::Closed)], Some(Duration::ZERO)) {
        Ok(ready) if ready[0] => Err(Fail::Closed),
        _ => Ok(()),
    }
}

/// The last of the lines that were found.
struct Last {
    count: Option<u64>,
    lines: VecDeque<(usize, Wall, Vec<u8>)>,
    bytes: usize,
    /// So many of them were too much.
    lost: u64,
}

impl Last {
    fn keep(&mut self, at: usize, time: Wall, line: &[u8]) {
        let count = self.count.unwrap_or(u64::MAX);
        self.bytes += line.len();
        self.lines.push_back((at, time, line.to_vec()));
        while self.lines.len() as u64 > count || self.bytes > KEPT && self.lines.len() > 1 {
            let is_wanted = self.lines.len() as u64 <= count;
            if let Some((_, _, gone)) = self.lines.pop_front() {
                self.bytes -= gone.len();
            }
            // Once one is left out, all that come before it would be.
            self.lost = if is_wanted { self.lost + 1 } else { self.lost };
        }
        self.lost = self.lost.min(count.saturating_sub(self.lines.len() as u64));
    }
}

#[cfg(test)]
mod tests;
