//! Looks through the files of one log, in large blocks and bounded memory, for the lines that are wanted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::Stream;
use super::history::{Content, History, Old, fault};
use super::pattern::Pattern;
use super::tail::LINE_LIMIT;
use super::times::{Times, of_system};
use crate::app::line::{Level, fields};
use crate::sys::find;
use crate::time::Wall;

/// What one look at a file takes in.
pub const BLOCK: usize = 256 << 10;
/// If so much of the beginning of a file tells no time, the file tells none.
pub(super) const UNTIMED: usize = 64 << 10;
/// A line may be written so much later than it says.
const LATE: u64 = 60_000;

/// Which lines are wanted.
#[derive(Default)]
pub struct Query {
    /// Written at this time or later.
    pub since: Option<Wall>,
    /// At this time or earlier.
    pub until: Option<Wall>,
    /// This one, or a graver one.
    pub level: Option<Level>,
    /// Lines that match it.
    pub pattern: Option<Pattern>,
}

impl Query {
    /// Whether not all lines are wanted.
    pub fn asks(&self) -> bool {
        self.since.is_some() || self.until.is_some() || self.level.is_some() || self.pattern.is_some()
    }

    /// Whether a line is, whenever it was written.
    pub fn wants(&self, line: &[u8], stream: Stream, is_json: bool) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(line))
            && self.is_grave(line, stream, is_json)
    }

    fn is_grave(&self, line: &[u8], stream: Stream, is_json: bool) -> bool {
        self.level.is_none_or(|least| level(line, stream, is_json) >= least)
    }

    /// Whether all that was written from then on is later than what is asked for.
    pub fn is_over(&self, begun: Wall) -> bool {
        self.until.is_some_and(|until| Wall(begun.0.saturating_sub(LATE)) > until)
    }

    fn is_within(&self, at: Wall) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }
}

/// How grave a line is.
fn level(line: &[u8], stream: Stream, is_json: bool) -> Level {
    let usual = if stream == Stream::Err { Level::Error } else { Level::Info };
    // The record is pmx's, and what it holds the app's.
    let message = || serde_json::from_slice::<String>(fields::field(line, &["message"])?).ok();
    let found = match is_json.then(message).flatten() {
        Some(message) => Level::of(message.as_bytes()),
        None => Level::of(line),
    };
    found.unwrap_or(usual)
}

/// A file to look through.
pub struct Part {
    /// Its name.
    pub path: PathBuf,
    /// What is in it.
    pub content: io::Result<Content>,
    /// When it was last written.
    pub ended: Wall,
}

/// What of a log may hold lines that are wanted, up to this length of the current file, oldest first.
pub fn parts(history: &History, end: u64, times: &Times, query: &Query) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let mut begun = Wall(0);
    for old in &history.old {
        let ended = of_system(old.written());
        if query.since.is_none_or(|since| ended >= since) && !query.is_over(begun) {
            parts.push_back(Part { path: old.path.clone(), content: old.content(), ended });
        }
        begun = earliest_end(old, times).min(ended);
    }
    if let Some(file) = &history.current {
        let ended = file.metadata().and_then(|found| found.modified()).map_or(Wall(0), of_system);
        if query.since.is_none_or(|since| ended >= since) {
            let path = history.path.clone();
            parts.push_back(Part { path, content: from_start(file, end), ended });
        }
    }
    parts
}

/// Where a look through a log has come to.
pub struct Scan {
    stream: Stream,
    times: Times,
    /// Whether the times of lines are wanted.
    timed: bool,
    parts: VecDeque<Part>,
    content: Option<Content>,
    path: PathBuf,
    /// Bytes, in lower case too if that is looked at. Those before `at` are done, those before `whole` are whole lines.
    bytes: Vec<u8>,
    folded: Vec<u8>,
    at: usize,
    whole: usize,
    filled: usize,
    block: usize,
    /// When the line before was written; `None`: the file tells no times, and was last written at `ended`.
    last: Option<Wall>,
    ended: Wall,
    is_begun: bool,
    /// Keeps the beginning of a line at the end of the last file back.
    keeps_rest: bool,
    /// What went wrong, and is to be told.
    pub faults: Vec<String>,
    /// The line that was found.
    pub line: (usize, usize),
    /// When it was written.
    pub time: Wall,
}

impl Scan {
    /// Through these parts of a log. `rest`: the beginning of a line at the end of the last is no line yet.
    pub fn new(parts: VecDeque<Part>, stream: Stream, times: Times, block: usize, rest: bool) -> Scan {
        Scan {
            stream,
            times,
            timed: true,
            parts,
            content: None,
            path: PathBuf::new(),
            bytes: vec![0; block],
            folded: Vec::new(),
            at: 0,
            whole: 0,
            filled: 0,
            block,
            last: None,
            ended: Wall(0),
            is_begun: false,
            keeps_rest: rest,
            faults: Vec::new(),
            line: (0, 0),
            time: Wall(0),
        }
    }

    /// Nobody wants to know when lines were written.
    pub fn without_times(mut self) -> Scan {
        self.timed = false;
        self
    }

    /// The line that was found.
    pub fn found(&self) -> &[u8] {
        &self.bytes[self.line.0..self.line.1]
    }

    /// How many bytes at the end were kept back.
    pub fn rest(&self) -> usize {
        self.filled - self.whole
    }

    /// Goes on to the next line that is wanted. False: there is none. `pause` is called from block to block.
    pub fn next<E>(&mut self, query: &Query, pause: &mut dyn FnMut() -> Result<(), E>) -> Result<bool, E> {
        loop {
            if self.at >= self.whole {
                pause()?;
                if !self.fill(query) {
                    return Ok(false);
                }
                continue;
            }
            let text = &self.bytes[self.at..self.whole];
            let found = match &query.pattern {
                Some(pattern) => {
                    let folded = if pattern.folds { &self.folded[self.at..self.whole] } else { &[][..] };
                    pattern.find(text, folded)
                }
                None => Some((0, find::byte(b'\n', text).unwrap_or(text.len()))),
            };
            let Some((begin, end)) = found else {
                self.learn(self.whole);
                self.at = self.whole;
                continue;
            };
            let (begin, end) = (self.at + begin, self.at + end);
            let next = (end + 1).min(self.whole);
            self.learn(next);
            self.at = next;
            self.line = (begin, end);
            self.time = self.last.unwrap_or(self.ended);
            let is_json = self.times.is_json();
            if query.is_within(self.time) && query.is_grave(&self.bytes[begin..end], self.stream, is_json) {
                return Ok(true);
            }
        }
    }

    /// Learns the time of the last line before `end` that tells one.
    fn learn(&mut self, end: usize) {
        if !self.timed || self.last.is_none() {
            return;
        }
        let mut end = end;
        while end > self.at {
            let text = &self.bytes[self.at..end - 1];
            let begin = find::last(b'\n', text).map_or(self.at, |newline| self.at + newline + 1);
            if let Some(time) = self.times.of(&self.bytes[begin..end]) {
                self.last = Some(time);
                return;
            }
            end = begin;
        }
    }

    /// Reads more whole lines. False: there are none.
    fn fill(&mut self, query: &Query) -> bool {
        loop {
            if self.content.is_none() && !self.begin() {
                return false;
            }
            self.bytes.copy_within(self.whole..self.filled, 0);
            (self.at, self.filled, self.whole) = (0, self.filled - self.whole, 0);
            let known = self.filled;
            let mut size = self.block.max(self.bytes.len());
            let mut is_over = false;
            loop {
                self.bytes.resize(size, 0);
                is_over |= self.read();
                if let Some(newline) = find::last(b'\n', &self.bytes[known..self.filled]) {
                    self.whole = known + newline + 1;
                    break;
                }
                // What is longer than a line may be is taken in pieces.
                if is_over || size >= LINE_LIMIT {
                    self.whole = if is_over { 0 } else { self.filled };
                    break;
                }
                size = (size * 2).min(LINE_LIMIT);
            }
            if is_over {
                self.content = None;
                if !(self.keeps_rest && self.parts.is_empty()) {
                    self.whole = self.filled;
                }
            }
            if query.pattern.as_ref().is_some_and(|pattern| pattern.folds) {
                self.folded.clear();
                self.folded.extend_from_slice(&self.bytes[..self.whole]);
                self.folded.make_ascii_lowercase();
            }
            if self.timed && !self.is_begun && self.whole > 0 {
                self.is_begun = true;
                let head = &self.bytes[..self.whole.min(UNTIMED)];
                let mut lines = head.split(|byte| *byte == b'\n');
                // What comes before the first line that tells its time is as old as that.
                self.last = lines.find_map(|line| self.times.of(line));
            }
            if self.whole > 0 {
                return true;
            }
        }
    }

    /// Fills the block. True: the file is over.
    fn read(&mut self) -> bool {
        while self.filled < self.bytes.len() {
            let Some(content) = &mut self.content else { return true };
            match content.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return true,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.tell(&error);
                    return true;
                }
            }
        }
        false
    }

    /// Begins with the next file.
    fn begin(&mut self) -> bool {
        while let Some(part) = self.parts.pop_front() {
            self.path = part.path;
            (self.ended, self.is_begun) = (part.ended, false);
            self.times.of_file(part.ended);
            match part.content {
                Ok(content) => {
                    self.content = Some(content);
                    return true;
                }
                Err(error) => self.tell(&error),
            }
        }
        false
    }

    fn tell(&mut self, error: &io::Error) {
        self.faults.push(fault("read", &self.path, error));
    }
}

/// A file from its beginning to this length, through an open file of its own.
fn from_start(file: &File, end: u64) -> io::Result<Content> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Content::Plain(file.take(end)))
}

/// No line of what follows an old file is older than this: when it was last written, or rotated, as its name tells,
/// if somebody has touched it since.
fn earliest_end(old: &Old, times: &Times) -> Wall {
    let written = of_system(old.written());
    let named = old.stem().rsplit_once("__").and_then(|(_, date)| {
        let date = crate::app::DateFormat::new(crate::app::rotation::DATE_FORMAT).read(date.as_bytes())?;
        Some(times.wall(date.0))
    });
    named.map_or(written, |named| named.min(written))
}

#[cfg(test)]
mod tests;
