//! Where the last lines of a file begin, and bytes put together to lines.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;

/// The longest line that is held in memory; a longer one is printed in pieces of this size.
pub const LINE_LIMIT: usize = 1 << 20;

/// Where the last `count` lines of the first `end` bytes begin, or those of them that begin behind `least`. The file
/// is read backwards, and as far as needed: it does not matter how long it is, nor how long its lines are.
pub fn start_of_last(file: &File, end: u64, count: u64, least: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    if count == 0 || end == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK as usize];
    let mut newlines = 0;
    let mut start = end;
    // The newline at the very end closes the last line and begins no other.
    let mut upper = end - 1;
    while upper > least {
        let lower = upper.saturating_sub(BLOCK).max(least);
        let bytes = &mut block[..(upper - lower) as usize];
        match file.read_exact_at(bytes, lower) {
            Ok(()) => {}
            // Truncated since we looked: what is left is new.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            newlines += 1;
            start = lower + at as u64 + 1;
            if newlines == count {
                return Ok(start);
            }
        }
        upper = lower;
    }
    Ok(if least == 0 { 0 } else { start })
}

/// How many lines a file holds, as far as it can be read, and why it cannot be read further.
pub fn count_lines(from: &mut impl BufRead) -> (u64, Option<io::Error>) {
    let (mut count, mut is_partial) = (0, false);
    let error = loop {
        match from.fill_buf() {
            Ok([]) => break None,
            Ok(chunk) => {
                count += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
                is_partial = chunk.last() != Some(&b'\n');
                let taken = chunk.len();
                from.consume(taken);
            }
            Err(error) => break Some(error),
        }
    };
    (count + u64::from(is_partial), error)
}

/// Puts chunks together to lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes a chunk in and gives out the lines that it completes, without their newlines.
    pub fn feed<E>(
        &mut self,
        mut chunk: &[u8],
        emit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !chunk.is_empty() {
            let room = LINE_LIMIT - self.partial.len();
            let newline = chunk.iter().take(room).position(|&byte| byte == b'\n');
            let end = newline.unwrap_or(chunk.len().min(room));
            let (piece, rest) = chunk.split_at(end);
            chunk = if newline.is_some() { &rest[1..] } else { rest };
            let is_cut = newline.is_none() && piece.len() == room;
            if newline.is_none() && !is_cut {
                self.partial.extend_from_slice(piece);
            } else if self.partial.is_empty() {
                emit(piece)?;
            } else {
                self.partial.extend_from_slice(piece);
                emit(&std::mem::take(&mut self.partial))?;
            }
        }
        Ok(())
    }

    /// Gives out what no newline has ended yet.
    pub fn finish<E>(&mut self, emit: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.partial.is_empty() { Ok(()) } else { emit(&std::mem::take(&mut self.partial)) }
    }

    /// Whether a line has begun.
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("pmx-tail-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn the_last_lines_are_found_exactly() {
        for (text, count, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\nb\nc", 1, "c"),
            ("a\nb\nc", 2, "b\nc"),
            ("\n\n\n", 2, "\n\n"),
            ("one", 1, "one"),
            ("\n", 1, "\n"),
        ] {
            let start = start_of_last(&file("exact", text.as_bytes()), text.len() as u64, count, 0).unwrap();
            assert_eq!(&text[start as usize..], expected, "{text:?} {count}");
        }
    }

    #[test]
    fn lines_that_begin_too_far_back_are_left_out() {
        let text = b"one\ntwo\nthree\n";
        for (least, count, expected) in
            [(0, 9, 0), (1, 9, 4), (3, 9, 4), (4, 9, 8), (8, 9, 14), (1, 1, 8), (13, 9, 14), (14, 9, 14)]
        {
            let found = start_of_last(&file("least", text), 14, count, least).unwrap();
            assert_eq!(found, expected, "{least} {count}");
        }
    }

    #[test]
    fn long_lines_and_many_blocks_are_no_exception() {
        // pm2 looks at 200 bytes a line and loses these.
        let mut text = Vec::new();
        for line in 0..50 {
            text.extend(vec![b'a' + line % 26; usize::from(line) * 7_001]);
            text.push(b'\n');
        }
        let file = file("long", &text);
        for count in [1, 2, 10, 49, 50, 51] {
            let start = start_of_last(&file, text.len() as u64, count, 0).unwrap() as usize;
            let found = text[start..].iter().filter(|&&byte| byte == b'\n').count() as u64;
            assert_eq!(found, count.min(50));
            assert!(start == 0 || text[start - 1] == b'\n');
        }
        assert_eq!(start_of_last(&file, text.len() as u64 + 10, 1, 0).unwrap(), 0, "truncated meanwhile");
    }

    #[test]
    fn lines_come_out_whole_whatever_the_chunks_and_never_longer_than_the_limit() {
        let text = b"one\n\ntwo\nthree\nrest";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut emit = |line: &[u8]| {
                found.push(String::from_utf8(line.to_vec()).unwrap());
                Ok::<_, std::convert::Infallible>(())
            };
            for chunk in text.chunks(size) {
                lines.feed(chunk, &mut emit).unwrap();
            }
            assert!(lines.is_partial());
            lines.finish(&mut emit).unwrap();
            assert_eq!(found, ["one", "", "two", "three", "rest"]);
        }
        let mut lengths = Vec::new();
        let mut lines = Lines::default();
        let mut emit = |line: &[u8]| {
            lengths.push(line.len());
            Ok::<_, std::convert::Infallible>(())
        };
        let long = vec![b'x'; LINE_LIMIT * 2 + 5];
        for chunk in long.chunks(70_001) {
            lines.feed(chunk, &mut emit).unwrap();
        }
        lines.feed(b"\n", &mut emit).unwrap();
        assert_eq!(lengths, [LINE_LIMIT, LINE_LIMIT, 5]);
    }
}
