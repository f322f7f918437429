//! Following files: what is appended, what happens when one is emptied (`flush`) or made anew.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use super::tail::Lines;
use super::{Printer, Source};
use crate::cli::screen::Fail;
use crate::sys::inotify::Watches;
use crate::sys::poll::{self, Until};

/// How much of one file is printed before the next has its turn.
const BUDGET: usize = 256 << 10;
/// After this time a line that is not ended is printed as it is: it may be a question.
const UNFINISHED: Duration = Duration::from_millis(500);
/// How often a directory that does not exist yet is looked for.
const MISSING: Duration = Duration::from_secs(1);

/// A file and how far it has been read.
pub struct Followed {
    pub source: Source,
    /// `None`: it does not exist, or is no regular file.
    pub file: Option<File>,
    pub position: u64,
    pub lines: Lines,
}

impl Followed {
    /// From its beginning.
    pub fn new(source: Source) -> Followed {
        let mut followed = Followed { source, file: None, position: 0, lines: Lines::default() };
        followed.open();
        followed
    }

    fn open(&mut self) {
        // Looked at first: opening a FIFO would block.
        let is_file = fs::metadata(&self.source.path).is_ok_and(|found| found.is_file());
        self.file = if is_file { File::open(&self.source.path).ok() } else { None };
        self.position = 0;
    }

    /// Whether another file stands under the name now.
    fn was_replaced(&self) -> bool {
        let Ok(now) = fs::metadata(&self.source.path) else { return false };
        let known = self.file.as_ref().and_then(|file| file.metadata().ok());
        known.is_none_or(|known| (known.dev(), known.ino()) != (now.dev(), now.ino()))
    }

    /// Prints what is new, within the budget; true if there is more.
    fn read(&mut self, printer: &mut Printer<'_, '_>) -> Result<bool, Fail> {
        let Some(file) = &self.file else { return Ok(false) };
        let failed = |error| {
            Fail::Sentence(format!("read {}: {}", self.source.path.display(), crate::sys::reason(&error)))
        };
        if file.metadata().map_err(failed)?.len() < self.position {
            self.position = 0;
        }
        let mut chunk = vec![0; 64 << 10];
        let mut read = 0;
        while read < BUDGET {
            let count = file.read_at(&mut chunk, self.position).map_err(failed)?;
            if count == 0 {
                return Ok(false);
            }
            self.position += count as u64;
            read += count;
            self.lines.feed(&chunk[..count], &mut |line| printer.print(&self.source, line))?;
        }
        Ok(true)
    }

    fn finish(&mut self, printer: &mut Printer<'_, '_>) -> Result<(), Fail> {
        self.lines.finish(&mut |line| printer.print(&self.source, line))
    }
}

/// Prints what is appended to the files until nobody reads it any more.
pub fn follow(printer: &mut Printer<'_, '_>, mut files: Vec<Followed>) -> Result<(), Fail> {
    let failed = |error| Fail::Sentence(format!("watch the log files: {}", crate::sys::reason(&error)));
    let watches = Watches::new().map_err(failed)?;
    let mut rescan = true;
    let mut is_missing = false;
    loop {
        if rescan {
            is_missing = watch(&watches, &files);
        }
        let mut more = false;
        rescan = false;
        for file in &mut files {
            more |= file.read(printer)?;
            if !more && file.was_replaced() {
                file.finish(printer)?;
                file.open();
                rescan = true;
                more = true;
            }
        }
        printer.screen.flush()?;
        if more {
            continue;
        }
        let is_partial = files.iter().any(|file| file.lines.is_partial());
        let timeout = match (is_partial, is_missing) {
            (true, _) => Some(UNFINISHED),
            (false, true) => Some(MISSING),
            (false, false) => None,
        };
        let stdout = std::io::stdout();
        let ready =
            poll::wait(&[(watches.as_fd(), Until::Readable), (stdout.as_fd(), Until::Closed)], timeout)
                .map_err(failed)?;
        if ready[1] {
            return Err(Fail::Closed);
        }
        let changed = watches.drain().map_err(failed)?;
        rescan = is_missing;
        if !changed && is_partial {
            for file in &mut files {
                file.finish(printer)?;
            }
        }
    }
}

/// Watches files and their directories; adding what is watched already changes nothing. True if a
/// directory is not there to be watched.
fn watch(watches: &Watches, files: &[Followed]) -> bool {
    let mut is_missing = false;
    for file in files {
        if file.file.is_some() {
            // Gone again: its directory tells when it comes back.
            let _ = watches.file(&file.source.path);
        }
        let directory = file.source.path.parent();
        is_missing |= directory.is_some_and(|directory| watches.directory(directory).is_err());
    }
    is_missing
}
