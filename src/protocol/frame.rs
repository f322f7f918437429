//! Newline framing with a limit: bytes in, lines out.

use std::fmt;

/// The longest line a daemon accepts, in bytes.
pub const FRAME_LIMIT: usize = 1 << 20;

/// Collects bytes and gives out complete lines.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// How far the search for its newline has come.
    searched: usize,
    limit: usize,
}

/// A line grew past the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The limit in bytes.
    pub limit: usize,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read a message: it is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for FrameError {}

impl Frames {
    /// An empty buffer that refuses lines longer than `limit` bytes.
    pub fn new(limit: usize) -> Frames {
        Frames { bytes: Vec::new(), start: 0, searched: 0, limit }
    }

    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete line without its newline, if there is one.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let newline = self.bytes[self.searched..].iter().position(|&b| b == b'\n');
        let end = newline.map_or(self.bytes.len(), |at| self.searched + at);
        if end - self.start > self.limit {
            return Err(FrameError { limit: self.limit });
        }
        if newline.is_none() {
            self.searched = end;
            if self.start == end {
                self.release();
            }
            return Ok(None);
        }
        let line = self.start..end;
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(&self.bytes[line]))
    }

    /// Whether part of a line has arrived: its sender owes the rest.
    pub fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// Gives the memory of an empty buffer back: an idle peer costs nothing.
    fn release(&mut self) {
        self.bytes = Vec::new();
        self.start = 0;
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(frames: &mut Frames) -> Vec<String> {
        let mut found = Vec::new();
        while let Ok(Some(line)) = frames.next_line() {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        found
    }

    #[test]
    fn lines_come_out_however_the_bytes_went_in() {
        let stream = b"one\n\ntwo\nthree and more\npartial";
        for chunk in 1..stream.len() {
            let mut frames = Frames::new(64);
            let mut found = Vec::new();
            for bytes in stream.chunks(chunk) {
                frames.push(bytes);
                found.extend(lines(&mut frames));
            }
            assert_eq!(found, ["one", "", "two", "three and more"], "chunks of {chunk}");
            assert!(frames.is_partial());
        }
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_over_it_does_not() {
        let mut frames = Frames::new(4);
        frames.push(b"1234\n");
        assert_eq!(lines(&mut frames), ["1234"]);
        frames.push(b"12345");
        assert_eq!(frames.next_line(), Err(FrameError { limit: 4 }));
        let mut frames = Frames::new(4);
        frames.push(b"12345\n");
        assert_eq!(frames.next_line(), Err(FrameError { limit: 4 }));
    }

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let mut frames = Frames::new(64);
        frames.push(b"line\n");
        assert_eq!(lines(&mut frames), ["line"]);
        assert_eq!(frames.bytes.capacity(), 0);
        assert!(!frames.is_partial());
    }
}
