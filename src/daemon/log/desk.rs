//! The place over which output passes on its way from pipe to file. It outlives us: a daemon that dies between the
//! read and the end of the write leaves there what the next one needs to finish it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use super::form::Clock;
use super::rules::Rules;
use super::shelf::Shelf;
use crate::app::rotation::Rule;
use crate::daemon::home::Stream;
use crate::supervisor::ChildId;
use crate::sys::board::{self, Board};
use crate::sys::failpoint;
use crate::sys::pipe::{self, Read};
use crate::time::Wall;

/// In no encoding of text do these bytes begin a line.
const MARK: u64 = 0xfffe_fdfc_fbfa_f9f8;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    copy: &'static board::Copy,
    work: &'static board::Work,
    /// What was read.
    pub bytes: &'static mut [u8],
    /// Where the beginnings of lines lie.
    pub shelf: Shelf,
    /// When.
    pub clock: Clock,
    /// Room to put pieces of a line together.
    pub joined: Vec<u8>,
    /// Room to make records in.
    pub records: Vec<u8>,
    /// What holds for all logs.
    pub rules: Rules,
    /// Files that were rotated, and by which rule: their old ones have to be looked after.
    pub turned: Vec<(PathBuf, Rule)>,
    /// Files on whose disks there is little room.
    pub short: Vec<PathBuf>,
    /// The stream whose work is done but for the record of what it still owes. Until that is written, what is on its
    /// way stays here.
    held: Option<(ChildId, Stream)>,
}

/// A piece of work: everything of which it depends what it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Its number.
    pub turn: u64,
    /// What is done.
    pub kind: Kind,
    /// How long the files were before.
    pub before: [u64; 2],
    /// What tells them from others; 0: unknown.
    pub inodes: [u64; 2],
}

/// What is done with output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is written, as much as can be.
    Write = 0,
    /// Whole lines are written: another file begins after them.
    Lines = 1,
    /// What was kept for a whole line is written as it is.
    Flush = 2,
    /// What found no room before is written.
    Pay = 3,
}

impl Desk {
    /// On a board, with the file for beginnings of lines that a daemon before us had.
    pub fn new(board: &'static Board, bytes: &'static mut [u8], shelf: Shelf, rules: Rules) -> Desk {
        Desk::of(&board.copy, &board.work, bytes, shelf, rules)
    }

    /// On its parts.
    pub(super) fn of(
        copy: &'static board::Copy,
        work: &'static board::Work,
        bytes: &'static mut [u8],
        shelf: Shelf,
        rules: Rules,
    ) -> Desk {
        Desk {
            copy,
            work,
            bytes,
            shelf,
            clock: Clock::default(),
            joined: Vec::new(),
            records: Vec::new(),
            rules,
            turned: Vec::new(),
            short: Vec::new(),
            held: None,
        }
    }

    /// Whose output was on its way when the daemon before us died.
    pub fn left(&self) -> Option<(ChildId, Stream)> {
        let child = self.copy.child.load(SeqCst).checked_sub(1)?;
        let stream = if self.copy.stream.load(SeqCst) == 2 { Stream::Stderr } else { Stream::Stdout };
        Some((ChildId(child), stream))
    }

    /// The same work, and how many bytes were read for it; `None`: nothing was.
    pub fn left_work(&mut self) -> Option<(Work, usize)> {
        let load = |inode: &std::sync::atomic::AtomicU64| inode.load(SeqCst);
        let kind = match self.work.kind.load(SeqCst) {
            1 => Kind::Lines,
            2 => Kind::Flush,
            3 => Kind::Pay,
            _ => Kind::Write,
        };
        self.clock.set(Wall(self.work.wall.load(SeqCst)));
        let len = (self.copy.len.load(SeqCst) as usize).min(self.bytes.len());
        let mark = self.copy.mark.load(SeqCst).to_be_bytes();
        let seen = len.min(mark.len());
        let was_read = matches!(kind, Kind::Flush | Kind::Pay) || self.bytes[..seen] != mark[..seen];
        let work = Work {
            turn: load(&self.work.turn),
            kind,
            before: [self.copy.file.load(SeqCst), load(&self.work.second)],
            inodes: [load(&self.work.inodes[0]), load(&self.work.inodes[1])],
        };
        was_read.then_some((work, len))
    }

    /// Nothing is on its way.
    pub fn clear(&self) {
        self.copy.child.store(0, SeqCst);
    }

    /// Work is done, but what the stream owes is to be on record before anything else begins.
    pub fn hold(&mut self, of: (ChildId, Stream)) {
        failpoint::reach("output-held");
        self.held = Some(of);
    }

    /// Whose that is.
    pub fn held(&self) -> Option<(ChildId, Stream)> {
        self.held
    }

    /// It is on record.
    pub fn release(&mut self) {
        if self.held.take().is_some() {
            failpoint::reach("output-recorded");
            self.clear();
            failpoint::reach("output-released");
        }
    }

    /// The number of the next piece of work.
    pub fn next_turn(&self) -> u64 {
        self.work.turn.load(SeqCst) + 1
    }

    /// Work begins: it is on its way from now on.
    pub fn begin(&mut self, of: (ChildId, Stream), work: &Work, len: usize) {
        debug_assert!(self.held.is_none(), "what is owed is on record first");
        self.held = None;
        // Of the number what differs from turn to turn, and is no text.
        let mark = MARK ^ (work.turn & 0x0303_0303) << 32;
        self.bytes[..8].copy_from_slice(&mark.to_be_bytes());
        self.copy.mark.store(mark, SeqCst);
        self.copy.len.store(len as u32, SeqCst);
        self.copy.file.store(work.before[0], SeqCst);
        self.work.second.store(work.before[1], SeqCst);
        self.work.wall.store(self.clock.wall.0, SeqCst);
        self.work.kind.store(work.kind as u32, SeqCst);
        self.work.turn.store(work.turn, SeqCst);
        for (to, inode) in self.work.inodes.iter().zip(work.inodes) {
            to.store(inode, SeqCst);
        }
        self.copy.stream.store(if of.1 == Stream::Stderr { 2 } else { 1 }, SeqCst);
        self.copy.child.store(of.0.0 + 1, SeqCst);
    }

    /// Reads what is there for work that has begun. Exactly `len` bytes wait in the pipe, at least: nobody else reads
    /// from it.
    pub fn read(&mut self, pipe: BorrowedFd, len: usize) -> io::Result<usize> {
        match pipe::read(pipe, &mut self.bytes[..len]) {
            Ok(Read::Bytes(count)) => {
                self.copy.len.store(count as u32, SeqCst);
                Ok(count)
            }
            Ok(Read::Empty | Read::Closed) => {
                self.clear();
                Ok(0)
            }
            Err(error) => {
                self.clear();
                Err(error)
            }
        }
    }
}
