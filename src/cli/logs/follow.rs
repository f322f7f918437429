//! Following logs: what is appended to them is printed, until nobody reads it any more.

use std::os::fd::AsFd;
use std::time::Duration;

use super::Source;
use super::keys::Keys;
use super::print::Printer;
use crate::cli::screen::{Fail, escaped};
use crate::logs::follow::{LATE, Look};
use crate::logs::scan::Query;
use crate::sys::clock;
use crate::sys::inotify::Watches;
use crate::sys::poll::{self, Until};

/// How much of one file is printed before the next has its turn.
const BUDGET: usize = 256 << 10;
/// After this time a line that is not ended is printed as it is: it may be a question.
const UNFINISHED: Duration = Duration::from_millis(500);
/// How often a directory that does not exist yet is looked for.
const MISSING: Duration = Duration::from_secs(1);

/// A log and how far it was printed.
pub struct Followed {
    pub source: Source,
    pub log: crate::logs::follow::Followed,
}

impl Followed {
    /// Prints what is new.
    fn look(&mut self, printer: &mut Printer<'_, '_>, query: &Query) -> Result<Look, Fail> {
        let source = &self.source;
        let look = self.log.look(BUDGET, &mut |line| print(printer, query, source, line))?;
        for fault in self.log.faults.drain(..) {
            printer.screen.complain(&escaped(&fault));
        }
        Ok(look)
    }
}

/// Prints a line that was written just now, if it is wanted.
fn print(printer: &mut Printer<'_, '_>, query: &Query, source: &Source, line: &[u8]) -> Result<(), Fail> {
    if !query.wants(line, source.stream, source.times.is_json()) {
        return Ok(());
    }
    let time = if printer.is_timed() { source.times.of(line) } else { None };
    printer.print(source, &source.times, line, time.unwrap_or_else(clock::wall))
}

/// Prints what is appended to the logs until nobody reads it any more, or nothing is typed any more.
pub fn follow(
    printer: &mut Printer<'_, '_>,
    mut files: Vec<Followed>,
    query: &Query,
    mut keys: Option<Keys>,
) -> Result<(), Fail> {
    let failed = |error| Fail::Sentence(format!("watch the log files: {}", crate::sys::reason(&error)));
    let watches = Watches::new().map_err(failed)?;
    let mut rescan = true;
    let mut is_missing = false;
    loop {
        if rescan {
            // All of them, whatever becomes of the first.
            is_missing = files.iter().filter(|file| file.log.watch(&watches)).count() > 0;
        }
        let mut more = false;
        rescan = false;
        for file in &mut files {
            let look = file.look(printer, query)?;
            more |= look != Look::Idle;
            rescan |= look == Look::Moved;
        }
        printer.screen.flush()?;
        let stdout = std::io::stdout();
        let mut sources = vec![(watches.as_fd(), Until::Readable), (stdout.as_fd(), Until::Closed)];
        sources.extend(keys.as_ref().map(|keys| (keys.fd(), Until::Readable)));
        let is_partial = files.iter().any(|file| file.log.lines.is_partial());
        let is_left = files.iter().any(|file| file.log.is_left());
        let timeout = match () {
            // A flood holds up neither who types nor the end.
            () if more => Some(Duration::ZERO),
            () if is_partial => Some(UNFINISHED),
            () if is_missing => Some(MISSING),
            () if is_left => Some(LATE),
            () => None,
        };
        let ready = poll::wait(&sources, timeout).map_err(failed)?;
        if ready[1] {
            return Err(Fail::Closed);
        }
        if let Some(keys) = keys.as_mut()
            && ready[2]
            && !keys.take(printer.screen)?
        {
            return Ok(());
        }
        if more {
            continue;
        }
        let changed = watches.drain().map_err(failed)?;
        rescan = is_missing;
        if !changed && is_partial {
            for file in &mut files {
                let source = &file.source;
                file.log.finish(&mut |line| print(printer, query, source, line))?;
            }
        }
    }
}
