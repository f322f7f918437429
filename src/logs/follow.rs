//! Following one log: what is appended, what happens when it is emptied (`flush`), made anew, or rotated, perhaps more
//! than once while nobody looked.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::history::{self, Content, History, Identity, Links, Old, fault};
use super::tail::{self, Lines};
use crate::sys::inotify::Watches;

/// Who shares a log may write to the one that was rotated for so long.
pub const LATE: Duration = Duration::from_secs(1);
/// How coarse the times of files may be.
const COARSE: Duration = Duration::from_millis(100);
/// What is read at once.
const CHUNK: usize = 64 << 10;

/// A log and how far it has been read.
pub struct Followed {
    path: PathBuf,
    links: Links,
    /// `None`: it does not exist, or is no regular file.
    pub file: Option<File>,
    /// So much of it was read.
    pub position: u64,
    /// The beginning of a line that has no end yet.
    pub lines: Lines,
    /// Those before it that may be written to for a while.
    left: Vec<Left>,
    /// Those before it that came and went unseen, oldest first: what they hold comes before what it holds.
    unseen: VecDeque<Unseen>,
    /// What was read of the old files that may be as old as the current one.
    read: Vec<Identity>,
    /// What is older was read.
    since: SystemTime,
    /// What went wrong with old files, and is to be told.
    pub faults: Vec<String>,
}

/// A file that was rotated.
struct Left {
    file: File,
    position: u64,
    /// How long it was when another took its place: so much comes before what is in that.
    owed: u64,
    lines: Lines,
    until: Instant,
}

/// A file that came and went unseen.
struct Unseen {
    path: PathBuf,
    content: io::Result<Content>,
}

/// What came of a look at a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// All is read.
    Idle,
    /// There is more.
    More,
    /// There is more, in another file, which nobody watches yet.
    Moved,
}

impl Followed {
    /// From its beginning.
    pub fn new(path: &Path, links: Links) -> Followed {
        let file = history::open(path, links);
        // Its times tell it from those before, unless it was just made.
        let found = file.as_ref().and_then(|file| file.metadata().ok());
        let is_new = found.is_none_or(|found| match (found.created(), found.modified()) {
            (Ok(created), Ok(modified)) => modified < created + Duration::from_secs(1),
            _ => true,
        });
        if is_new {
            return Followed::after(&History::of(path, links));
        }
        let path = path.to_path_buf();
        Followed::after(&History { path, links, current: file, old: Vec::new(), faults: Vec::new() })
    }

    /// From the beginning of the current file; all old ones were read.
    pub fn after(history: &History) -> Followed {
        let since = written(history.current.as_ref()).unwrap_or_else(|| SystemTime::now() - COARSE);
        let recent = history.old.iter().filter(|old| old.written() >= since);
        Followed {
            path: history.path.clone(),
            links: history.links,
            file: history.current.as_ref().and_then(|file| file.try_clone().ok()),
            position: 0,
            lines: Lines::default(),
            left: Vec::new(),
            unseen: VecDeque::new(),
            read: recent.filter_map(Old::identity).collect(),
            since,
            faults: Vec::new(),
        }
    }

    /// The log's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file that was rotated may still be written to.
    pub fn is_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Gives out what is new, about as much as the budget, and goes on to the next file where this one is over, by way
    /// of all that came and went since.
    pub fn look<E: From<String>>(
        &mut self,
        budget: usize,
        emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Look, E> {
        if self.read(budget, emit)? {
            return Ok(Look::More);
        }
        if !history::is_another(&self.path, self.file.as_ref(), self.links) {
            return Ok(Look::Idle);
        }
        self.go_on();
        Ok(Look::Moved)
    }

    /// True if there is more.
    fn read<E: From<String>>(
        &mut self,
        budget: usize,
        emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let path = &self.path;
        let failed = |error| E::from(fault("read", path, &error));
        for left in &mut self.left {
            read_on(&left.file, &mut left.position, &mut left.lines, budget, emit)?.map_err(failed)?;
            if left.position < left.owed.min(length(&left.file)) {
                return Ok(true);
            }
        }
        let now = Instant::now();
        for mut left in self.left.extract_if(.., |left| left.until <= now) {
            left.lines.finish(emit)?;
            self.read.extend(history::identity(&left.file));
        }
        if let Some(unseen) = self.unseen.front_mut() {
            // What has not ended before it goes on nowhere.
            for left in &mut self.left {
                left.lines.finish(emit)?;
            }
            let more = read_through(unseen, &mut self.lines, budget, emit)?;
            if !matches!(more, Ok(true)) {
                self.lines.finish(emit)?;
                self.faults.extend(more.err().map(|error| fault("read", &unseen.path, &error)));
                self.unseen.pop_front();
            }
            return Ok(true);
        }
        let Some(file) = &self.file else { return Ok(false) };
        if file.metadata().map_err(failed)?.len() < self.position {
            // It was emptied.
            self.position = 0;
        }
        read_on(file, &mut self.position, &mut self.lines, budget, emit)?.map_err(failed)
    }

    /// Leaves a file that was read to its end for the one that stands under the name now.
    fn go_on(&mut self) {
        let history = History::of(&self.path, self.links);
        self.since = written(self.file.as_ref()).unwrap_or(self.since);
        let known = || self.left.iter().map(|left| &left.file).chain(&self.file);
        self.read.extend(known().filter_map(history::identity));
        let inode = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let known: Vec<_> =
            known().filter_map(|file| file.metadata().ok()).map(|found| inode(&found)).collect();
        let since = self.since;
        self.read.retain(|identity| identity.is_since(since));
        for old in history.old.into_iter().filter(|old| old.written() >= since) {
            let identity = old.identity();
            if known.contains(&inode(&old.metadata))
                || identity.as_ref().is_some_and(|identity| self.read.contains(identity))
            {
                continue;
            }
            self.since = self.since.max(old.written());
            self.read.extend(identity);
            self.unseen.push_back(Unseen { content: old.content(), path: old.path });
        }
        let (position, until) = (self.position, Instant::now() + LATE);
        // What was written until it was replaced; what comes after that does so soon.
        self.left.extend(self.file.take().map(|file| {
            let lines = std::mem::take(&mut self.lines);
            Left { position, owed: length(&file), lines, until, file }
        }));
        self.file = history.current;
        self.position = 0;
    }

    /// Gives out lines that nothing has ended yet.
    pub fn finish<E>(&mut self, emit: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for left in &mut self.left {
            left.lines.finish(emit)?;
        }
        self.lines.finish(emit)
    }

    /// How much of the current file is not read yet.
    pub fn behind(&self) -> u64 {
        self.file.as_ref().map_or(0, length).saturating_sub(self.position)
    }

    /// Goes to where the last lines of the current file begin, of what so many bytes at its end hold, and leaves out
    /// all before them.
    pub fn skip_to_last(&mut self, count: u64, most: u64) {
        let Some(file) = &self.file else { return };
        let end = length(file);
        self.position = tail::start_of_last(file, end, count, end.saturating_sub(most)).unwrap_or(end);
        self.lines = Lines::default();
        self.left.clear();
        self.unseen.clear();
    }

    /// Watches the file and its directory; adding what is watched already changes nothing. True if the directory is
    /// not there to be watched.
    pub fn watch(&self, watches: &Watches) -> bool {
        if self.file.is_some() {
            // Gone again: its directory tells when it comes back.
            let _ = watches.file(&self.path);
        }
        self.path.parent().is_some_and(|directory| watches.directory(directory).is_err())
    }
}

fn written(file: Option<&File>) -> Option<SystemTime> {
    file?.metadata().ok()?.modified().ok()
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |found| found.len())
}

/// Reads what is behind a position, about as much as the budget. Within is what came of reading: true if there is more.
fn read_on<E>(
    file: &File,
    position: &mut u64,
    lines: &mut Lines,
    budget: usize,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<io::Result<bool>, E> {
    let mut read = |chunk: &mut [u8]| {
        let count = file.read_at(chunk, *position)?;
        *position += count as u64;
        Ok(count)
    };
    feed(&mut read, lines, budget, emit)
}

/// The same of a file that came and went unseen.
fn read_through<E>(
    unseen: &mut Unseen,
    lines: &mut Lines,
    budget: usize,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<io::Result<bool>, E> {
    let mut read = |chunk: &mut [u8]| match &mut unseen.content {
        Ok(content) => content.read(chunk),
        Err(error) => Err(std::mem::replace(error, io::ErrorKind::Other.into())),
    };
    feed(&mut read, lines, budget, emit)
}

fn feed<E>(
    read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    lines: &mut Lines,
    budget: usize,
    emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<io::Result<bool>, E> {
    let mut chunk = vec![0; CHUNK];
    let mut fed = 0;
    while fed < budget {
        let count = match read(&mut chunk) {
            Ok(0) => return Ok(Ok(false)),
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        fed += count;
        lines.feed(&chunk[..count], emit)?;
    }
    Ok(Ok(true))
}

#[cfg(test)]
mod tests;
