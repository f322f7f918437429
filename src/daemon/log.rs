//! From a child's pipe to its log file: raw bytes, in large batches, in bounded memory.
//!
//! A pipe that is written to all the time is left alone for a moment and drained in one go: with short lines
//! that costs a third of a wake-up per write (DESIGN: batching beats splice).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::source::Progress;
use crate::sys::pipe::{self, Read};
use crate::time::{Millis, Mono};

/// How much of one pipe one visit moves.
const BUDGET: usize = 256 << 10;
/// The size of one read.
const CHUNK: usize = 64 << 10;
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
    pipe: OwnedFd,
    file: Option<File>,
    last_visit: Mono,
    grown: bool,
    /// Bytes that could not be written.
    lost: u64,
}

impl Output {
    /// Reads from `pipe`, which is nonblocking, and appends to `file`; without a file the bytes are dropped.
    pub fn new(pipe: OwnedFd, file: Option<File>) -> Output {
        Output { pipe, file, last_visit: Mono(0), grown: false, lost: 0 }
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Moves what is there, within the budget. `None`: the pipe is closed.
    pub fn visit(&mut self, now: Mono, buffer: &mut [u8], tail: &mut Tail) -> Option<Progress> {
        let mut moved = 0;
        while moved < BUDGET {
            match pipe::read(self.pipe.as_fd(), buffer) {
                Ok(Read::Bytes(count)) => {
                    moved += count;
                    tail.push(&buffer[..count]);
                    self.write(&buffer[..count]);
                }
                Ok(Read::Empty) => return Some(self.rest(now, moved)),
                Ok(Read::Closed) => return None,
                Err(error) => {
                    log::warn!("read a child's output: {error}");
                    return None;
                }
            }
        }
        self.last_visit = now;
        Some(Progress::More)
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
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(bytes) {
            if self.lost == 0 {
                log::error!("write a log file: {error}; bytes are lost until there is room");
            }
            self.lost += bytes.len() as u64;
        } else if self.lost > 0 {
            log::error!("{} bytes of a log file were lost", self.lost);
            self.lost = 0;
        }
    }
}

/// A buffer for [`Output::visit`], shared by all outputs.
pub fn buffer() -> Vec<u8> {
    vec![0; CHUNK]
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
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            options.open(path).map(Some)
        }
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(output: &mut Output, now: u64, tail: &mut Tail) -> Option<Progress> {
        output.visit(Mono(now), &mut buffer(), tail)
    }

    #[test]
    fn a_flood_is_moved_in_budgets_and_a_quiet_pipe_is_not_kept_waiting() {
        let (read, write) = pipe::pipe().unwrap();
        let path = std::env::temp_dir().join(format!("pmx-log-{}", std::process::id()));
        let mut output = Output::new(read, open(&path).unwrap());
        let mut tail = Tail::default();
        let mut writer = File::from(write);
        writer.write_all(b"quiet\n").unwrap();
        assert_eq!(visit(&mut output, 10, &mut tail), Some(Progress::Drained));
        assert_eq!(fs::read(&path).unwrap(), b"quiet\n", "written within the same visit");
        writer.write_all(&[b'x'; 40 << 10]).unwrap();
        assert_eq!(visit(&mut output, 1_000, &mut tail), Some(Progress::Rest(Mono(1_000) + GATHER)));
        writer.write_all(b"\nlast\n").unwrap();
        drop(writer);
        assert_eq!(visit(&mut output, 2_000, &mut tail), None, "closed");
        assert_eq!(fs::metadata(&path).unwrap().len(), 6 + (40 << 10) + 6);
        assert_eq!(tail.lines().last().unwrap(), "last");
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
