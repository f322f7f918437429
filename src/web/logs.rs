//! Log files: their lines, old ones too, and what is appended. They are read here, so nothing of this passes through
//! the daemon, and a viewer that is slow holds up nobody but itself.

use std::collections::VecDeque;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::logs::Stream;
use crate::logs::follow::{self, Look};
use crate::logs::history::{self, History, Links};
use crate::logs::scan::{self, Part, Query, Scan};
use crate::logs::times::Times;
use crate::protocol::Detail;
use crate::sys::inotify::Watches;
use crate::sys::users;
use crate::time::{Millis, Mono, Wall};

/// The most old lines of one answer, or of one file.
pub const LINES_LIMIT: u64 = 10_000;
/// What the old lines of an answer may have in memory, about, and what those of one file have at least.
const KEPT: usize = 8 << 20;
const LEAST: usize = 64 << 10;
/// A longer line is shown in pieces.
const LINE_LIMIT: usize = 16 << 10;
/// How much of one file is read in one visit while it is followed.
const BUDGET: usize = 128 << 10;
/// Old lines are looked for in blocks of this size, so many in one visit.
const BLOCK: usize = 64 << 10;
const BLOCKS: u32 = 4;
/// Of a long file the end is looked through first, and so much at a time.
const PIECE: u64 = 4 << 20;
/// The most sentences about what went wrong in one answer.
const FAULTS: usize = 100;

/// One line.
#[derive(Debug, PartialEq, Serialize)]
pub struct Line {
    /// The processes that write to its file.
    ids: Vec<u32>,
    name: String,
    /// `out` or `error`.
    stream: &'static str,
    /// When it was written, as far as it or its file tells.
    at: Wall,
    text: String,
}

/// Whose a log is.
struct Source {
    ids: Vec<u32>,
    name: String,
    stream: Stream,
    path: PathBuf,
    times: Times,
}

/// A log that is followed.
pub struct Followed {
    source: Source,
    log: follow::Followed,
}

/// Which lines are wanted.
pub struct Wanted {
    /// So many: of each file where all lines will do, or of all that are found.
    pub count: u64,
    /// Of only one of the two.
    pub stream: Option<Stream>,
    /// Which.
    pub query: Query,
}

/// The files of processes, each once: instances may share theirs.
fn sources(details: &[Detail], wanted: Option<Stream>, now: Wall) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for detail in details {
        for (stream, path) in [(Stream::Out, &detail.out_file), (Stream::Err, &detail.error_file)] {
            let path = PathBuf::from(path);
            if wanted.is_some_and(|wanted| wanted != stream) {
                continue;
            }
            if let Some(known) = sources.iter_mut().find(|known| known.path == path) {
                if !known.ids.contains(&detail.view.id) {
                    known.ids.push(detail.view.id);
                }
                continue;
            }
            let (ids, name) = (vec![detail.view.id], detail.view.name.clone());
            sources.push(Source { ids, name, stream, path, times: Times::new(&detail.app.logs, now) });
        }
    }
    sources
}

/// Root follows no link to where it was not meant to go.
fn links() -> Links {
    if users::effective_uid() == 0 { Links::Refused } else { Links::Followed }
}

/// Adds to files that are followed those of processes that are not among them, from their beginning.
pub fn join(files: &mut Vec<Followed>, details: &[Detail], now: Wall) {
    for source in sources(details, None, now) {
        match files.iter_mut().find(|known| known.source.path == source.path) {
            Some(known) => known.source.ids = source.ids,
            None => {
                let log = follow::Followed::new(&source.path, links());
                files.push(Followed { source, log });
            }
        }
    }
}

impl Source {
    fn push(&self, lines: &mut Vec<Line>, line: &[u8], at: Wall) {
        let stream = if self.stream == Stream::Err { "error" } else { "out" };
        let mut rest = line;
        loop {
            let (piece, more) = rest.split_at(rest.len().min(LINE_LIMIT));
            let text = String::from_utf8_lossy(piece).trim_end_matches('\r').to_string();
            lines.push(Line { ids: self.ids.clone(), name: self.name.clone(), stream, at, text });
            if more.is_empty() {
                return;
            }
            rest = more;
        }
    }
}

impl Followed {
    /// Adds what is new, within the budget.
    pub fn look(&mut self, lines: &mut Vec<Line>, now: Wall) -> Look {
        let source = &self.source;
        let mut emit = |line: &[u8]| {
            source.push(lines, line, source.times.of(line).unwrap_or(now));
            Ok::<_, String>(())
        };
        let look = self.log.look(BUDGET, &mut emit);
        look.unwrap_or_else(|fault| {
            self.log.faults.push(fault);
            Look::Idle
        })
    }

    /// What went wrong since this was asked before.
    pub fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.faults)
    }

    /// Has it told when there is more.
    pub fn watch(&self, watches: &Watches) {
        // What cannot be watched is looked at with the next change of another one.
        self.log.watch(watches);
    }
}

/// A line that was found.
struct Found {
    at: Wall,
    line: Vec<u8>,
}

/// Lines that were found, the last of them, in bounded memory.
#[derive(Default)]
struct Last {
    lines: VecDeque<Found>,
    bytes: usize,
    /// There were more of them.
    is_cut: bool,
}

impl Last {
    fn keep(&mut self, found: Found, count: usize, room: usize) {
        self.bytes += found.line.len();
        self.lines.push_back(found);
        while self.lines.len() > count || self.bytes > room && self.lines.len() > 1 {
            self.is_cut = true;
            self.bytes -= self.lines.pop_front().map_or(0, |gone| gone.line.len());
        }
    }

    fn append(&mut self, mut later: Last) {
        self.lines.append(&mut later.lines);
        self.bytes += later.bytes;
        self.is_cut |= later.is_cut;
    }
}

/// A look through logs, one after the other, and each from its newest lines on, until there are as many as are wanted,
/// or it is late. In small steps: there may be gigabytes of them, and others wait.
pub struct Search {
    wanted: Wanted,
    /// What is found is of one moment, and what comes after that is followed.
    is_followed: bool,
    /// What the lines of each log may have in memory.
    room: usize,
    /// Each with its place; the last of them is next.
    waiting: Vec<(usize, Source)>,
    reading: Option<Reading>,
    done: Vec<(usize, Followed, Last)>,
    deadline: Mono,
    /// Not all that was written until then was looked at.
    unread: Option<Wall>,
    faults: Vec<String>,
}

/// The log that is looked through.
struct Reading {
    place: usize,
    followed: Followed,
    /// What was not looked at yet, oldest first.
    parts: VecDeque<Part>,
    /// A look at a part, and when the last of that was written.
    scan: Option<(Scan, Wall)>,
    /// What was found in the part that is looked at, and in those after it.
    found: Last,
    later: Last,
    /// The end of the current file, if that is not behind us.
    end: Option<u64>,
    /// Then it is the turn of others.
    deadline: Mono,
}

/// What was found.
pub struct End {
    /// Of one log after the other, or if not all lines are wanted in the order of their times.
    pub lines: Vec<Line>,
    /// The logs, from where that ends.
    pub files: Vec<Followed>,
    /// All that was written after this time was looked at, and not all before it. `None`: all that is wanted is found.
    pub read_back_to: Option<Wall>,
    /// What could not be read, and why.
    pub faults: Vec<String>,
}

impl Search {
    /// Through the logs of processes, and no longer than until the deadline.
    pub fn new(details: &[Detail], wanted: Wanted, is_followed: bool, now: Wall, deadline: Mono) -> Search {
        Search::through(sources(details, wanted.stream, now), wanted, is_followed, deadline)
    }

    fn through(sources: Vec<Source>, wanted: Wanted, is_followed: bool, deadline: Mono) -> Search {
        let mut waiting: Vec<(usize, Source)> = sources.into_iter().enumerate().rev().collect();
        if wanted.query.asks() && waiting.len() > 1 {
            // If the time is too short for all, then it is for the longest.
            let paths: Vec<_> = waiting.iter().map(|(_, source)| source.path.as_path()).collect();
            let lengths = history::lengths(&paths, links());
            let mut all: Vec<_> = lengths.into_iter().zip(waiting).collect();
            all.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
            waiting = all.into_iter().map(|(_, waiting)| waiting).collect();
        }
        let room = (KEPT / waiting.len().max(1)).max(LEAST);
        let (reading, done, unread, faults) = (None, Vec::new(), None, Vec::new());
        Search { wanted, is_followed, room, waiting, reading, done, deadline, unread, faults }
    }

    /// Looks on for a while. True: it is over.
    pub fn step(&mut self, now: Mono) -> bool {
        let mut blocks = BLOCKS;
        while blocks > 0 {
            let reading = self.reading.take().or_else(|| {
                blocks -= 1;
                self.begin(now)
            });
            let Some(mut reading) = reading else { return true };
            let unread = match reading.deadline <= now {
                true => reading.unread().max(reading.cut()),
                false if self.read(&mut reading, &mut blocks) => reading.cut(),
                false => {
                    self.reading = Some(reading);
                    continue;
                }
            };
            self.unread = self.unread.max(unread);
            let Reading { place, followed, mut found, later, .. } = reading;
            found.append(later);
            self.done.push((place, followed, found));
        }
        false
    }

    fn begin(&mut self, now: Mono) -> Option<Reading> {
        let left = self.deadline.since(now).0 / self.waiting.len().max(1) as u64;
        let (place, source) = self.waiting.pop()?;
        let history = History::of(&source.path, links());
        let end = history.current.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |it| it.len());
        // First, because it reads from the same open files.
        let mut log = follow::Followed::after(&history);
        log.position = end;
        let parts = scan::parts(&history, end, &source.times, &self.wanted.query);
        self.faults.extend(history.faults);
        let (scan, found, later) = (None, Last::default(), Last::default());
        let end = history.current.is_some().then_some(end);
        let (followed, deadline) = (Followed { source, log }, now + Millis(left));
        Some(Reading { place, followed, parts, scan, found, later, end, deadline })
    }

    /// True: all of this log is found that is wanted, or that there is room for.
    fn read(&mut self, reading: &mut Reading, blocks: &mut u32) -> bool {
        let Wanted { count, query, .. } = &self.wanted;
        let Reading { followed, parts, found, later, end, .. } = reading;
        let (missing, room) = (*count as usize - later.lines.len(), self.room.saturating_sub(later.bytes));
        let (mut scan, ended) = match reading.scan.take() {
            Some(scan) => scan,
            None if missing == 0 || later.is_cut => return true,
            None => {
                let Some(mut part) = parts.pop_back() else { return true };
                let (stream, times) = (followed.source.stream, followed.source.times.clone());
                found.is_cut = false;
                if query.asks() {
                    let (front, begun) = part.split(PIECE, &times);
                    parts.extend(front);
                    // It is looked at in two places for that.
                    *blocks = blocks.saturating_sub(2);
                    if begun.is_some_and(|begun| query.is_over(begun)) {
                        return false;
                    }
                } else if let Ok(content) = &mut part.content {
                    // If that fails, so does what comes next, and tells why.
                    let skipped = content.skip_to_last(missing as u64, room as u64);
                    found.is_cut = skipped.is_ok_and(|skipped| skipped > 0);
                }
                let ended = part.ended;
                let keeps_rest = self.is_followed && end.is_some();
                (Scan::new(VecDeque::from([part]), stream, times, BLOCK, keeps_rest), ended)
            }
        };
        let mut pause = || {
            if *blocks == 0 {
                return Err(());
            }
            *blocks -= 1;
            Ok(())
        };
        loop {
            match scan.next(query, &mut pause) {
                Ok(true) => found.keep(Found { at: scan.time, line: scan.found().to_vec() }, missing, room),
                Ok(false) => break,
                Err(()) => {
                    reading.scan = Some((scan, ended));
                    return false;
                }
            }
        }
        if let Some(end) = end.take() {
            followed.log.position = end - scan.rest() as u64;
        }
        self.faults.append(&mut scan.faults);
        let mut all = std::mem::take(found);
        // Fewer than are wanted: there was no room.
        all.is_cut &= all.lines.len() < missing;
        all.append(std::mem::take(later));
        *later = all;
        false
    }

    /// What was found.
    pub fn end(mut self) -> End {
        let mut found: Vec<(Wall, usize, Found)> = Vec::new();
        let mut files = Vec::new();
        self.done.sort_by_key(|(place, ..)| *place);
        for (at, (_, followed, last)) in self.done.into_iter().enumerate() {
            // The lines of one log stay in their order, whatever times they tell.
            let mut time = Wall(0);
            found.extend(last.lines.into_iter().map(|line| {
                time = time.max(line.at);
                (time, at, line)
            }));
            files.push(followed);
        }
        let mut read_back_to = self.unread;
        if self.wanted.query.asks() {
            let count = self.wanted.count as usize;
            found.sort_by_key(|(time, at, _)| (*time, *at));
            found.drain(..found.len().saturating_sub(count));
            // What was not looked at is older than all that is wanted.
            let is_all =
                |unread: &Wall| found.len() == count && found.first().is_some_and(|(at, ..)| at > unread);
            let is_asked = |unread: &Wall| self.wanted.query.since.is_none_or(|since| *unread >= since);
            read_back_to = read_back_to.filter(|unread| is_asked(unread) && !is_all(unread));
        }
        let mut lines = Vec::new();
        for (_, at, Found { at: time, line }) in found {
            files[at].source.push(&mut lines, &line, time);
        }
        // Each piece of a file may have told the same.
        self.faults.dedup();
        self.faults.truncate(FAULTS);
        End { lines, files, read_back_to, faults: self.faults }
    }
}

impl Reading {
    /// Until when that was written which was not looked at.
    fn unread(&self) -> Option<Wall> {
        let waits = || self.parts.back().map(|part| part.ended);
        self.scan.as_ref().map(|(_, ended)| *ended).or_else(waits)
    }

    /// Until when that was written which there was no room for.
    fn cut(&self) -> Option<Wall> {
        self.later.lines.front().filter(|_| self.later.is_cut).map(|line| line.at)
    }
}

impl End {
    /// For whoever asked.
    pub fn json(&self) -> Value {
        let mut json = json!({
            "lines": self.lines,
            "complete": self.read_back_to.is_none(),
            "faults": self.faults,
        });
        if let Some(time) = self.read_back_to {
            // Such as a request takes it.
            json["read_back_to"] = json!(time.to_string());
        }
        json
    }
}

#[cfg(test)]
mod tests;
