//! From a child's pipe to its log files: in large batches, in bounded memory.
//!
//! A pipe that is written to all the time is left alone for a moment and drained in one go: of short lines that takes a
//! tenth of the processor time of a read and a write each (batching beats splice).
//!
//! `desk` is where output lies on its way, `writer` brings it to its files, `form` makes records of lines, `shelf` keeps
//! the beginnings of lines, `file` is one file, `tail` the last words, `pace` how long a pipe is left alone.

mod desk;
mod file;
mod form;
mod pace;
mod rules;
mod shelf;
mod tail;
mod writer;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

pub use desk::Desk;
pub use file::LogFile;
pub use rules::Rules;
pub use shelf::Shelf;
pub use tail::Tail;
pub use writer::{Counts, Plan, Writer, WriterRecord, open, open_fd, share};

use desk::{Kind, Work};
use pace::Pace;
use writer::Wrote;

use super::home::Stream;
use super::sink::Lines;
use super::source::Progress;
use crate::supervisor::ChildId;
use crate::sys::board::COPY;
use crate::sys::kept::Kept;
use crate::sys::pipe::{self, State};
use crate::sys::{clock, failpoint};
use crate::time::{Millis, Mono};

/// How much of one pipe one visit moves.
const BUDGET: usize = 256 << 10;
/// How long a line may be; a longer one comes in pieces.
const LINE: usize = 64 << 10;
/// How long a pipe is left alone whose output waits for room.
const NO_ROOM: Millis = Millis(250);

/// One stream of one child.
#[derive(Debug)]
pub struct Output {
    pipe: Kept<OwnedFd>,
    to: To,
    pace: Pace,
    /// The event loop is told of its bytes. Of a pipe that gathers it would be at each write, and for nothing.
    pub watched: bool,
    /// When it wants to be looked at, as the children know it.
    pub due: Option<Mono>,
}

/// Where a stream goes.
#[derive(Debug)]
pub enum To {
    /// To files, or nowhere, which is no file.
    Files(Box<Writer>),
    /// In a container, to our own stdout or stderr.
    Lines(Lines),
}

impl Output {
    /// Reads from `pipe`, which is nonblocking.
    pub fn new(pipe: OwnedFd, to: To) -> Output {
        Output { pipe: pipe.into(), to, pace: Pace::default(), watched: true, due: None }
    }

    /// For the journal: the pipe and the file.
    pub fn fds(&self) -> (RawFd, Option<RawFd>) {
        let file = match &self.to {
            To::Files(writer) => writer.fd(),
            To::Lines(_) => None,
        };
        (self.pipe.as_raw_fd(), file)
    }

    /// For the journal: whose lines go to our own stdout or stderr.
    pub fn whose(&self) -> Option<(u32, &str)> {
        match &self.to {
            To::Lines(lines) => Some(lines.whose()),
            To::Files(_) => None,
        }
    }

    /// Who writes its files.
    pub fn writer(&self) -> Option<&Writer> {
        match &self.to {
            To::Files(writer) => Some(writer),
            To::Lines(_) => None,
        }
    }

    /// The same, to change it.
    pub fn writer_mut(&mut self) -> Option<&mut Writer> {
        match &mut self.to {
            To::Files(writer) => Some(writer),
            To::Lines(_) => None,
        }
    }

    /// What tells its pipe from others.
    pub fn inode(&self) -> u64 {
        pipe::inode(self.pipe.as_fd())
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Moves what is there, within the budget. The second is true when what the journal says of it has changed.
    pub fn visit(
        &mut self,
        now: Mono,
        of: (ChildId, Stream),
        desk: &mut Desk,
        tail: &mut Tail,
    ) -> (Visit, bool) {
        desk.clock.set(clock::wall());
        if self.writer().is_some_and(Writer::owes) {
            return (Visit::Open(Progress::Rest(now + NO_ROOM)), false);
        }
        let mut sofar = Sofar::default();
        while sofar.moved < BUDGET {
            match self.step(&mut sofar, now, of, desk, tail) {
                Ok(State::Readable) => {}
                Ok(State::Empty) if self.writer().is_some_and(Writer::owes) => {
                    return (Visit::Open(Progress::Rest(now + NO_ROOM)), true);
                }
                Ok(State::Empty) => {
                    let progress = self.pace.rest(now, sofar.moved);
                    if let Some(room) = self.pace.asks() {
                        match pipe::grow(self.pipe.as_fd(), room) {
                            Ok(room) => self.pace.holds(room),
                            Err(error) => log::debug!("grow a pipe: {error}"),
                        }
                    }
                    return (Visit::Open(progress), sofar.changed);
                }
                Ok(State::Closed) => return (Visit::Closed, sofar.changed),
                Err(error) => {
                    log::warn!("read a child's output: {error}");
                    return (Visit::Closed, sofar.changed);
                }
            }
        }
        self.pace.go_on(now);
        (Visit::Open(Progress::More), sofar.changed)
    }

    /// Moves a piece of what is there. `Empty`: nothing is, or it may gather.
    fn step(
        &mut self,
        sofar: &mut Sofar,
        now: Mono,
        of: (ChildId, Stream),
        desk: &mut Desk,
        tail: &mut Tail,
    ) -> io::Result<State> {
        if sofar.known == 0 {
            sofar.known = pipe::waiting(self.pipe.as_fd())?;
            match sofar.known {
                0 => return pipe::state(self.pipe.as_fd()),
                found if sofar.moved == 0 => self.pace.found(found),
                found if self.pace.is_enough(sofar.moved, Some(found)) => return Ok(State::Empty),
                _ => {}
            }
        }
        let took = self.take(now, of, sofar.known.min(COPY), desk, tail)?;
        sofar.moved += took.count;
        sofar.changed |= took.changed;
        // Who reads it, too, may have taken it.
        sofar.known = if took.count > 0 { sofar.known - took.count } else { 0 };
        if took.wrote == Wrote::Owes {
            return Ok(State::Empty);
        }
        match sofar.known {
            0 if self.pace.is_enough(sofar.moved, None) => Ok(State::Empty),
            0 => pipe::state(self.pipe.as_fd()),
            _ => Ok(State::Readable),
        }
    }

    /// Takes what is there, once.
    fn take(
        &mut self,
        now: Mono,
        of: (ChildId, Stream),
        len: usize,
        desk: &mut Desk,
        tail: &mut Tail,
    ) -> io::Result<Took> {
        let nothing = Work { turn: desk.next_turn(), kind: Kind::Write, before: [0; 2], inodes: [0; 2] };
        let (work, changed) = match &mut self.to {
            To::Files(writer) => writer.plan_work(Kind::Write, now, desk),
            To::Lines(_) => (nothing, false),
        };
        desk.begin(of, &work, len);
        let count = desk.read(self.pipe.as_fd(), len)?;
        if count == 0 {
            return Ok(Took { count, changed, wrote: Wrote::All });
        }
        tail.push(&desk.bytes[..count]);
        failpoint::reach("output-read");
        let wrote = match &mut self.to {
            To::Files(writer) => writer.write(&work, count, now, desk),
            To::Lines(lines) => {
                lines.write(&desk.bytes[..count]);
                Wrote::All
            }
        };
        failpoint::reach("output-written");
        leave(of, wrote, desk);
        let mut changed = changed;
        if work.kind == Kind::Lines
            && let To::Files(writer) = &mut self.to
        {
            writer.turn(now, desk);
            changed = true;
        }
        Ok(Took { count, changed, wrote })
    }

    /// What it owes is on record.
    pub fn recorded(&mut self, desk: &mut Desk) {
        if let To::Files(writer) = &mut self.to {
            writer.shelve(&mut desk.shelf);
        }
        desk.release();
    }

    /// Finishes what the daemon before us had begun.
    pub fn finish(&mut self, now: Mono, of: (ChildId, Stream), desk: &mut Desk) {
        let mut wrote = Wrote::All;
        if let Some((work, len)) = desk.left_work() {
            match &mut self.to {
                To::Files(writer) => wrote = writer.finish(&work, len, now, desk),
                // What a sink was handed, nobody can tell: rather once too often than never.
                To::Lines(lines) => lines.write(&desk.bytes[..len]),
            }
        }
        leave(of, wrote, desk);
    }

    /// It is time: the beginning of a line is written as it is, and it is looked whether there is room again. True:
    /// what the journal says of it has changed.
    pub fn on_time(&mut self, now: Mono, of: (ChildId, Stream), desk: &mut Desk) -> bool {
        let To::Files(writer) = &mut self.to else { return false };
        desk.clock.set(clock::wall());
        if writer.is_overdue(now) && !writer.owes() {
            return self.flush(now, of, desk);
        }
        if writer.is_to_turn(now) {
            writer.turn(now, desk);
        }
        if writer.owes() {
            let (work, _) = writer.plan_work(Kind::Pay, now, desk);
            desk.begin(of, &work, 0);
            failpoint::reach("output-pay");
            writer.pay(&work, now, desk);
            failpoint::reach("output-paid");
            desk.hold(of);
        } else {
            writer.tell_lost(now, desk);
        }
        true
    }

    /// Writes the beginning of a line as it is.
    pub fn flush(&mut self, now: Mono, of: (ChildId, Stream), desk: &mut Desk) -> bool {
        let To::Files(writer) = &mut self.to else { return false };
        // What it owes comes first.
        if !writer.holds() || writer.owes() {
            return false;
        }
        desk.clock.set(clock::wall());
        let (work, changed) = writer.plan_work(Kind::Flush, now, desk);
        desk.begin(of, &work, 0);
        failpoint::reach("output-flush");
        let wrote = writer.write(&work, 0, now, desk);
        failpoint::reach("output-flushed");
        leave(of, wrote, desk);
        changed || wrote == Wrote::Owes
    }

    /// The pipe is closed, and the child is gone.
    pub fn end(&mut self, now: Mono, of: (ChildId, Stream), desk: &mut Desk) {
        if self.writer().is_some_and(Writer::owes) {
            // There may be room by now, for what waits in the pipe as well.
            self.on_time(now, of, desk);
            desk.release();
            let _ = self.visit(now, of, desk, &mut Tail::default());
            desk.release();
        }
        self.flush(now, of, desk);
        // What it owes now it owes for ever.
        desk.release();
        if let To::Files(writer) = &mut self.to {
            writer.end(&mut desk.shelf);
        }
    }
}

/// Work is done.
fn leave(of: (ChildId, Stream), wrote: Wrote, desk: &mut Desk) {
    match wrote {
        Wrote::All => desk.clear(),
        Wrote::Owes => desk.hold(of),
    }
}

/// What a visit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Somebody can still write.
    Open(Progress),
    /// Nobody can, and everything was read.
    Closed,
}

/// How far a visit is.
#[derive(Default)]
struct Sofar {
    moved: usize,
    /// So much is known to wait still: to ask is to wait for who is just writing.
    known: usize,
    /// What the journal says of it has changed.
    changed: bool,
}

/// What was taken at once.
struct Took {
    count: usize,
    changed: bool,
    wrote: Wrote,
}

#[cfg(test)]
mod tests;
