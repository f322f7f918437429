//! From a child's pipe to its log file: raw bytes, in large batches, in bounded memory.
//!
//! A pipe that is written to all the time is left alone for a moment and drained in one go: with short lines
//! that costs a third of a wake-up per write (DESIGN: batching beats splice).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::home::Stream;
use super::sink::Lines;
use super::source::Progress;
use crate::supervisor::ChildId;
use crate::sys::board::{self, Board, COPY};
use crate::sys::failpoint;
use crate::sys::kept::Kept;
use crate::sys::lift::lift;
use crate::sys::pipe::{self, Read, State};
use crate::time::{Millis, Mono};

/// How much of one pipe one visit moves.
const BUDGET: usize = 256 << 10;
/// A visit that moved so much, or that came so soon after the last one, finds a busy pipe.
const BUSY_BYTES: usize = 8 << 10;
const BUSY_GAP: Millis = Millis(1);
/// How long a busy pipe gathers. At this pace a line is on disk before anybody can look.
const GATHER: Millis = Millis(3);
/// What a busy pipe may gather. Unprivileged users have 16 MiB of pipes in all, so one that is refused
/// stays as it is.
const BUSY_PIPE: usize = 256 << 10;
/// How much of a child's last words is kept.
const TAIL: usize = 2 << 10;
/// How many lines of it are shown.
const TAIL_LINES: usize = 10;

/// One stream of one child.
#[derive(Debug)]
pub struct Output {
    pipe: Kept<OwnedFd>,
    file: Option<Kept<File>>,
    /// Where it goes in a container, instead of a file.
    lines: Option<Lines>,
    /// How long the file is, as far as we wrote it.
    at: u64,
    last_visit: Mono,
    grown: bool,
    /// Bytes that could not be written.
    lost: u64,
}

/// The place over which output passes on its way from pipe to file. It outlives us: a daemon that dies between
/// the read and the end of the write leaves there what the next one needs to finish it.
#[derive(Debug)]
pub struct Desk {
    copy: &'static board::Copy,
    bytes: &'static mut [u8],
    turn: u64,
}

impl Desk {
    /// On a board.
    pub fn new(board: &'static Board, bytes: &'static mut [u8]) -> Desk {
        Desk { copy: &board.copy, bytes, turn: 0 }
    }

    /// Whose output was on its way when the daemon before us died.
    pub fn left(&self) -> Option<(ChildId, Stream)> {
        let child = self.copy.child.load(SeqCst).checked_sub(1)?;
        let stream = if self.copy.stream.load(SeqCst) == 2 { Stream::Stderr } else { Stream::Stdout };
        Some((ChildId(child), stream))
    }

    /// Nothing is on its way.
    pub fn clear(&self) {
        self.copy.child.store(0, SeqCst);
    }

    /// Reads what is there, which is then on its way to the file. Exactly `len` bytes wait in the pipe, at
    /// least: nobody else reads from it.
    fn take(&mut self, output: &Output, of: (ChildId, Stream), len: usize) -> io::Result<usize> {
        // In no encoding of text do these bytes begin a line.
        self.turn = self.turn.wrapping_add(1);
        let mark = MARK ^ (self.turn & 0x0303_0303) << 32;
        self.bytes[..8].copy_from_slice(&mark.to_be_bytes());
        self.copy.mark.store(mark, SeqCst);
        self.copy.len.store(len as u32, SeqCst);
        self.copy.file.store(output.at, SeqCst);
        self.copy.stream.store(if of.1 == Stream::Stderr { 2 } else { 1 }, SeqCst);
        self.copy.child.store(of.0.0 + 1, SeqCst);
        let read = pipe::read(output.pipe.as_fd(), &mut self.bytes[..len]);
        match read {
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

/// See [`Desk::take`].
const MARK: u64 = 0xfffe_fdfc_fbfa_f9f8;

impl Output {
    /// Reads from `pipe`, which is nonblocking, and appends to `file`; without a file the bytes are dropped.
    pub fn new(pipe: OwnedFd, file: Option<File>) -> Output {
        let at = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        let (pipe, file) = (pipe.into(), file.map(Kept::from));
        Output { pipe, file, lines: None, at, last_visit: Mono(0), grown: false, lost: 0 }
    }

    /// Hands what it reads from `pipe` on to our own stdout or stderr.
    pub fn to_lines(pipe: OwnedFd, lines: Lines) -> Output {
        Output { lines: Some(lines), ..Output::new(pipe, None) }
    }

    /// For the journal: the pipe and the file.
    pub fn fds(&self) -> (RawFd, Option<RawFd>) {
        (self.pipe.as_raw_fd(), self.file.as_ref().map(|file| file.as_raw_fd()))
    }

    /// For the journal: whose lines go to our own stdout or stderr.
    pub fn whose(&self) -> Option<(u32, &str)> {
        self.lines.as_ref().map(Lines::whose)
    }

    /// What tells its pipe from others.
    pub fn inode(&self) -> u64 {
        pipe::inode(self.pipe.as_fd())
    }

    /// The file was emptied.
    pub fn emptied(&mut self) {
        self.at = 0;
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Moves what is there, within the budget. `None`: the pipe is closed.
    pub fn visit(
        &mut self,
        now: Mono,
        of: (ChildId, Stream),
        desk: &mut Desk,
        tail: &mut Tail,
    ) -> Option<Progress> {
        let mut moved = 0;
        while moved < BUDGET {
            let step = pipe::waiting(self.pipe.as_fd()).and_then(|waiting| match waiting {
                0 => pipe::state(self.pipe.as_fd()),
                waiting => {
                    let count = desk.take(self, of, waiting.min(COPY))?;
                    moved += count;
                    tail.push(&desk.bytes[..count]);
                    failpoint::reach("output-read");
                    self.write(&desk.bytes[..count]);
                    failpoint::reach("output-written");
                    desk.clear();
                    // More of it is known to wait, or it may be closed.
                    if waiting > COPY { Ok(State::Readable) } else { pipe::state(self.pipe.as_fd()) }
                }
            });
            match step {
                Ok(State::Readable) => {}
                Ok(State::Empty) => return Some(self.rest(now, moved)),
                Ok(State::Closed) => return None,
                Err(error) => {
                    log::warn!("read a child's output: {error}");
                    return None;
                }
            }
        }
        self.last_visit = now;
        Some(Progress::More)
    }

    /// Finishes what the daemon before us had read: writes what of it is not in the file.
    pub fn finish(&mut self, desk: &mut Desk) {
        let len = (desk.copy.len.load(SeqCst) as usize).min(COPY);
        let mark = desk.copy.mark.load(SeqCst).to_be_bytes();
        let bytes = &desk.bytes[..len];
        let seen = len.min(mark.len());
        if bytes[..seen] != mark[..seen] {
            // What a sink was handed, nobody can tell: rather once too often than never.
            let unwritten = if self.lines.is_some() { 0 } else { len };
            let written = self
                .file
                .as_ref()
                .map_or(unwritten, |file| already(file, desk.copy.file.load(SeqCst), bytes));
            if written < len {
                self.write(&bytes[written..]);
            }
        }
        desk.clear();
    }

    fn rest(&mut self, now: Mono, moved: usize) -> Progress {
        let soon = now.since(self.last_visit) <= BUSY_GAP && self.last_visit != Mono(0);
        self.last_visit = now;
        if moved < BUSY_BYTES && !(soon && moved > 0) {
            return Progress::Drained;
        }
        if !self.grown {
            self.grown = true;
            if let Err(error) = pipe::grow(self.pipe.as_fd(), BUSY_PIPE) {
                log::debug!("grow a pipe: {error}");
            }
        }
        // The next visit belongs to this rest, so it does not count as soon.
        self.last_visit = now + GATHER;
        Progress::Rest(now + GATHER)
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(lines) = &mut self.lines {
            return lines.write(bytes);
        }
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(bytes) {
            if self.lost == 0 {
                log::error!("write a log file: {error}; bytes are lost until there is room");
            }
            self.lost += bytes.len() as u64;
            return;
        }
        self.at += bytes.len() as u64;
        if self.lost > 0 {
            log::error!("{} bytes of a log file were lost", self.lost);
            self.lost = 0;
        }
    }
}

/// How many of `bytes`, which were to be appended to a file that was `before` long, are in it.
fn already(file: &File, before: u64, bytes: &[u8]) -> usize {
    let len = match file.metadata() {
        // A pipe or a terminal: nobody knows.
        Ok(found) if !found.is_file() => return bytes.len(),
        Ok(found) => found.len(),
        Err(_) => return 0,
    };
    let reader = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let ends_with = |part: &[u8], at: u64| {
        let mut found = vec![0; part.len()];
        let read = reader.as_ref().is_ok_and(|reader| reader.read_exact_at(&mut found, at).is_ok());
        if reader.is_ok() { read && found == part } else { at == before }
    };
    let grown = len.saturating_sub(before);
    if len >= before && grown <= bytes.len() as u64 && ends_with(&bytes[..grown as usize], before) {
        return grown as usize;
    }
    // It was cut short or written to by others meanwhile. The whole of it at the end is no coincidence.
    let whole = len.checked_sub(bytes.len() as u64).is_some_and(|at| ends_with(bytes, at));
    if whole { bytes.len() } else { 0 }
}

/// The last words of a child.
#[derive(Debug, Default)]
pub struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(TAIL);
        self.0.drain(..surplus);
        self.0.extend(bytes);
    }

    /// The last lines, oldest first; the first one may have lost its beginning.
    pub fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines[from..].iter().map(|line| line.to_string()).collect()
    }
}

/// Opens a log file to append to, with its directories, private. `NULL` and `/dev/null` mean none. It never
/// blocks: a FIFO that nobody reads is an error (ENXIO), and what a full one does not take is lost.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    if path.as_os_str() == "/dev/null" || path.file_name().is_some_and(|name| name == "NULL") {
        return Ok(None);
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            options.open(path)?
        }
        opened => opened?,
    };
    Ok(Some(File::from(lift(file.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: (ChildId, Stream) = (ChildId(3), Stream::Stdout);

    fn desk() -> Desk {
        let copy = Box::leak(Box::new(board::Copy::default()));
        Desk { copy, bytes: Box::leak(vec![0; COPY].into_boxed_slice()), turn: 0 }
    }

    #[test]
    fn a_flood_is_moved_in_budgets_and_a_quiet_pipe_is_not_kept_waiting() {
        let (read, write) = pipe::pipe().unwrap();
        let path = std::env::temp_dir().join(format!("pmx-log-{}", std::process::id()));
        let mut output = Output::new(read, open(&path).unwrap());
        let (mut tail, mut desk) = (Tail::default(), desk());
        let mut visit = |output: &mut Output, now| output.visit(Mono(now), OF, &mut desk, &mut tail);
        let mut writer = File::from(write);
        writer.write_all(b"quiet\n").unwrap();
        assert_eq!(visit(&mut output, 10), Some(Progress::Drained));
        assert_eq!(fs::read(&path).unwrap(), b"quiet\n", "written within the same visit");
        writer.write_all(&[b'x'; 40 << 10]).unwrap();
        assert_eq!(visit(&mut output, 1_000), Some(Progress::Rest(Mono(1_000) + GATHER)));
        writer.write_all(b"\nlast\n").unwrap();
        drop(writer);
        assert_eq!(visit(&mut output, 2_000), None, "closed");
        assert_eq!(fs::metadata(&path).unwrap().len(), 6 + (40 << 10) + 6);
        assert_eq!(tail.lines().last().unwrap(), "last");
        assert_eq!(desk.left(), None);
        fs::remove_file(&path).unwrap();
    }

    /// A daemon dies at every point between the read and the end of the write; the next one finishes it.
    #[test]
    fn what_a_dead_daemon_had_read_is_in_the_file_once() {
        let path = std::env::temp_dir().join(format!("pmx-log-finish-{}", std::process::id()));
        let line = b"a line that was on its way\n";
        for before in [&b""[..], b"earlier\n", line] {
            for written in 0..=line.len() {
                fs::write(&path, before).unwrap();
                let (read, write) = pipe::pipe().unwrap();
                let mut output = Output::new(read, open(&path).unwrap());
                let mut desk = desk();
                File::from(write).write_all(line).unwrap();
                assert_eq!(desk.take(&output, OF, line.len()).unwrap(), line.len());
                output.file.as_mut().unwrap().write_all(&line[..written]).unwrap();
                // The next daemon: other values, the same file and the same desk.
                let (pipe, file) = (output.pipe.try_clone().unwrap(), open(&path).unwrap());
                let mut next = Output::new(pipe, file);
                assert_eq!(desk.left(), Some(OF));
                next.finish(&mut desk);
                assert_eq!(desk.left(), None);
                assert_eq!(fs::read(&path).unwrap(), [before, line].concat(), "{written}");
            }
        }
        // It died before the read: the pipe still has it.
        fs::write(&path, "").unwrap();
        let (read, write) = pipe::pipe().unwrap();
        let mut output = Output::new(read, open(&path).unwrap());
        File::from(write).write_all(line).unwrap();
        let mut desk = desk();
        let empty = Output::new(pipe::pipe().unwrap().0, None);
        let _ = desk.take(&empty, OF, line.len());
        desk.copy.child.store(OF.0.0 + 1, SeqCst);
        output.finish(&mut desk);
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert_eq!(output.visit(Mono(9), OF, &mut desk, &mut Tail::default()), None);
        assert_eq!(fs::read(&path).unwrap(), line);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_tail_keeps_the_last_lines_in_bounded_memory() {
        let mut tail = Tail::default();
        for n in 0..1_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        assert_eq!(tail.lines().len(), TAIL_LINES);
        assert_eq!(tail.lines().last().unwrap(), "line 999");
        tail.push(&[b'y'; 100_000]);
        assert_eq!(tail.0.len(), TAIL);
    }

    #[test]
    fn null_is_no_file() {
        assert!(open(Path::new("/dev/null")).unwrap().is_none());
        assert!(open(Path::new("/any/NULL")).unwrap().is_none());
    }
}
