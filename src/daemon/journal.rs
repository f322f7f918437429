//! Where the daemon writes down what must outlive it, round by round: lines of JSON in one of two files, of which
//! the board tells how much counts. Later lines replace earlier ones about the same thing; when a file has
//! grown, the other one begins anew with everything as it is.
//!
//! Nothing is synced to a disk: it is for the next daemon of this boot. What must survive a reboot is
//! saved elsewhere.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use serde::Serialize;

use crate::sys::board::{Board, Slot};
use crate::sys::{failpoint, pipe};

/// A file is left for the other when it is so many times as long as what it stands for, and longer than this.
const GROWTH: u64 = 3;
const SMALL: u64 = 256 << 10;
/// The top bit of [`Board::journal`]: the second file counts.
const SECOND: u64 = 1 << 63;

/// The journal of one daemon.
#[derive(Debug)]
pub struct Journal {
    board: &'static Board,
    files: [File; 2],
    /// How long the last snapshot was.
    snapshot: u64,
    /// Put, not committed.
    lines: Vec<u8>,
    /// A commit failed: the next one must be a snapshot.
    broken: bool,
}

/// The names of its files.
pub const FILES: [&str; 2] = ["state-a", "state-b"];

/// Those of a journal below `directory`. What is there counts until there is something new: we may die before that.
fn open(directory: &Path) -> io::Result<[File; 2]> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    Ok([options.open(directory.join(FILES[0]))?, options.open(directory.join(FILES[1]))?])
}

fn in_memory() -> io::Result<[File; 2]> {
    Ok([pipe::memory("pmx-journal")?.into(), pipe::memory("pmx-journal")?.into()])
}

impl Journal {
    /// A new journal, in files below `directory`; in memory, if that takes none or there is none.
    ///
    /// # Errors
    /// There is no memory for it; or an earlier one is in that directory and can neither be used nor removed.
    pub fn create(board: &'static Board, directory: Option<&Path>) -> io::Result<Journal> {
        let files = match directory {
            Some(directory) => open(directory).or_else(|error| {
                // A later daemon would believe it, and it would be old.
                for path in FILES.map(|name| directory.join(name)) {
                    match std::fs::remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                let reason = crate::sys::reason(&error);
                log::warn!("open files in {}: {reason}; the journal is in memory", directory.display());
                in_memory()
            })?,
            None => in_memory()?,
        };
        board.set_fd(Slot::JournalA, files[0].as_raw_fd());
        board.set_fd(Slot::JournalB, files[1].as_raw_fd());
        board.journal.store(0, SeqCst);
        Ok(Journal { board, files, snapshot: 0, lines: Vec::new(), broken: true })
    }

    /// The journal of a daemon before us, and what it says.
    pub fn resume(board: &'static Board) -> io::Result<(Journal, Vec<u8>)> {
        let file = |slot| -> io::Result<File> {
            let fd: RawFd = board.fd(slot).ok_or_else(|| io::Error::other("the board names no journal"))?;
            crate::sys::inherit::take(fd).map(File::from)
        };
        // Whatever fails, they stay open for the next one.
        let first = file(Slot::JournalA)?;
        let files = match file(Slot::JournalB) {
            Ok(second) => [first, second],
            Err(error) => {
                std::mem::forget(first);
                return Err(error);
            }
        };
        let journal = Journal { board, files, snapshot: 0, lines: Vec::new(), broken: true };
        match journal.read() {
            Ok(text) => Ok((journal, text)),
            Err(error) => {
                std::mem::forget(journal);
                Err(error)
            }
        }
    }

    /// What counts.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let (file, len) = self.position();
        let mut text = vec![0; len as usize];
        self.files[file].read_exact_at(&mut text, 0)?;
        Ok(text)
    }

    fn position(&self) -> (usize, u64) {
        let journal = self.board.journal.load(SeqCst);
        (usize::from(journal & SECOND != 0), journal & !SECOND)
    }

    /// Whether the next commit must tell everything.
    pub fn wants_snapshot(&self) -> bool {
        let (_, len) = self.position();
        self.broken || len > SMALL && len > self.snapshot * GROWTH
    }

    /// The next commit is to tell everything.
    pub fn begin_again(&mut self) {
        self.broken = true;
    }

    /// Adds a line to the next commit.
    pub fn put(&mut self, entry: &impl Serialize) {
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, entry) {
            Ok(()) => self.lines.push(b'\n'),
            Err(error) => {
                // Nothing in it that JSON cannot say: not reached.
                log::error!("write down: {error}");
                self.lines.truncate(before);
            }
        }
    }

    /// Adds a line that is one already.
    pub fn put_line(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
    }

    /// From now on this counts as well, before the round is over. If the last commit failed it is in the next one.
    pub fn add(&mut self, entry: &impl Serialize) {
        debug_assert!(self.lines.is_empty(), "a round is put and committed at once");
        if self.broken {
            return;
        }
        self.put(entry);
        let (file, at) = self.position();
        self.commit_at(file, at);
    }

    /// From now on, what was put counts, all of it or nothing.
    pub fn commit(&mut self) {
        let snapshot = self.wants_snapshot();
        if self.lines.is_empty() && !snapshot {
            return;
        }
        let (file, len) = self.position();
        let (file, at) = if snapshot { (1 - file, 0) } else { (file, len) };
        self.commit_at(file, at);
    }

    fn commit_at(&mut self, file: usize, at: u64) {
        let written = self.write(file, at);
        let lines = std::mem::take(&mut self.lines);
        match written {
            Ok(()) => {
                failpoint::reach("written");
                let end = at + lines.len() as u64;
                self.board.journal.store(end | if file == 1 { SECOND } else { 0 }, SeqCst);
                failpoint::reach("committed");
                self.broken = false;
                if at == 0 {
                    self.snapshot = end;
                    // What the other file holds counts no more.
                    let _ = self.files[1 - file].set_len(0);
                }
            }
            Err(error) => {
                if !self.broken {
                    log::error!("write the journal: {error}; if pmx dies now, what changed since is lost");
                }
                self.broken = true;
            }
        }
        // The memory of a round that told much is given back.
        if lines.capacity() <= 64 << 10 {
            self.lines = lines;
            self.lines.clear();
        }
    }

    fn write(&mut self, file: usize, at: u64) -> io::Result<()> {
        if at == 0 {
            self.files[file].set_len(0)?;
        }
        match self.files[file].write_all_at(&self.lines, at) {
            Err(_) if at == 0 => {
                // No room on the disk: there is some in memory.
                let memory: OwnedFd = pipe::memory("pmx-journal")?;
                memory_at(&memory, &self.lines)?;
                let slot = if file == 0 { Slot::JournalA } else { Slot::JournalB };
                self.files[file] = File::from(memory);
                self.board.set_fd(slot, self.files[file].as_raw_fd());
                Ok(())
            }
            done => done,
        }
    }
}

fn memory_at(memory: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let file = File::from(memory.try_clone()?);
    file.write_all_at(bytes, 0)
}
