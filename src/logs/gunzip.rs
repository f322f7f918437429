//! Reading gzip, as a stream: it takes the same little memory however long the file is. What can be read of a file
//! that is damaged or cut short is read, and then it is said that there is something wrong with it.

use std::io::{self, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::gzip::Crc;

/// How much is read at once.
const INPUT: usize = 64 << 10;
/// Where bytes come out: what comes next may repeat any of the last 32 KiB, which therefore stay. A power of two.
const WINDOW: usize = 128 << 10;

/// The content of a file that is compressed.
pub struct Gunzip<R> {
    from: R,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// What lies between was not handed out yet.
    given: usize,
    made: usize,
    crc: Crc,
    length: u32,
    /// Where one begins or has ended there may be another.
    is_between: bool,
    is_first: bool,
    failed: Option<io::Error>,
}

impl<R: Read> Gunzip<R> {
    /// From its beginning.
    pub fn new(from: R) -> Gunzip<R> {
        Gunzip {
            from,
            input: vec![0; INPUT],
            taken: 0,
            filled: 0,
            state: Box::default(),
            window: vec![0; WINDOW],
            given: 0,
            made: 0,
            crc: Crc::default(),
            length: 0,
            is_between: true,
            is_first: true,
            failed: None,
        }
    }

    /// Has something to take, unless the file ends.
    fn fill(&mut self) -> io::Result<bool> {
        while self.taken == self.filled {
            match self.from.read(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(count) => (self.taken, self.filled) = (0, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn byte(&mut self) -> io::Result<u8> {
        if !self.fill()? {
            return Err(cut());
        }
        self.taken += 1;
        Ok(self.input[self.taken - 1])
    }

    fn number(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]))
    }

    /// Reads what comes before the compressed bytes. False: nothing does.
    fn begin(&mut self) -> io::Result<bool> {
        if !self.fill()? {
            return if self.is_first { Err(cut()) } else { Ok(false) };
        }
        let is_gzip = self.byte()? == 0x1f && self.byte()? == 0x8b && self.byte()? == 8;
        if !is_gzip {
            // gzip does not mind what is behind the end either.
            return if self.is_first { Err(io::Error::other("not gzip")) } else { Ok(false) };
        }
        let flags = self.byte()?;
        for _ in 0..6 {
            self.byte()?;
        }
        if flags & 4 != 0 {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            for _ in 0..length {
                self.byte()?;
            }
        }
        // A name and a comment.
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte()? != 0 {}
        }
        if flags & 2 != 0 {
            self.byte()?;
            self.byte()?;
        }
        *self.state = DecompressorOxide::new();
        (self.crc, self.length) = (Crc::default(), 0);
        (self.is_between, self.is_first) = (false, false);
        Ok(true)
    }

    /// Makes more, unless all is read.
    fn make(&mut self) -> io::Result<()> {
        while self.given == self.made {
            if self.is_between && !self.begin()? {
                return Ok(());
            }
            let more = self.fill()?;
            (self.given, self.made) = (self.made % WINDOW, self.made % WINDOW);
            let flags = if more { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let input = &self.input[self.taken..self.filled];
            let (status, taken, made) =
                decompress(&mut self.state, input, &mut self.window, self.made, flags);
            self.taken += taken;
            self.crc.update(&self.window[self.made..self.made + made]);
            self.length = self.length.wrapping_add(made as u32);
            self.made += made;
            match status {
                TINFLStatus::Done => {
                    self.is_between = true;
                    if self.number()? != self.crc.value() || self.number()? != self.length {
                        return Err(io::Error::other("damaged: the checksum is another"));
                    }
                }
                TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput if more => {}
                TINFLStatus::HasMoreOutput if made > 0 => {}
                TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => return Err(cut()),
                _ => return Err(io::Error::other("damaged")),
            }
        }
        Ok(())
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle")
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.made && self.failed.is_none() {
            self.failed = self.make().err();
        }
        if self.given == self.made
            && let Some(error) = self.failed.take()
        {
            // It ends here, whoever asks again.
            self.is_between = true;
            self.is_first = false;
            (self.taken, self.filled) = (0, 0);
            return Err(error);
        }
        let count = buffer.len().min(self.made - self.given);
        buffer[..count].copy_from_slice(&self.window[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn gzip(content: &[u8], level: &str) -> Vec<u8> {
        let mut child = Command::new("gzip")
            .args(["-c", level])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let content = content.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&content));
        let packed = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        packed
    }

    /// All that can be had in pieces of this size, and what is wrong.
    fn unpack(packed: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
        let mut gunzip = Gunzip::new(packed);
        let (mut all, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match gunzip.read(&mut piece) {
                Ok(0) => return (all, None),
                Ok(count) => all.extend_from_slice(&piece[..count]),
                Err(error) => return (all, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn what_gzip_wrote_is_read() {
        let mut seed = 1u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        let random: Vec<u8> = (0..300_000).map(|_| noise()).collect();
        let lines: String =
            (0..20_000).map(|n| format!("2026-01-01T00:00:00: line {n} of a log\n")).collect();
        for content in [Vec::new(), b"x".to_vec(), lines.into_bytes(), random, vec![b'a'; 3 * WINDOW]] {
            for level in ["-1", "-6", "-9"] {
                let packed = gzip(&content, level);
                let (found, error) = unpack(&packed, 70_001);
                assert!(found == content && error.is_none(), "{} {level} {error:?}", content.len());
                // Two in one file are one, and what is behind the end does not matter.
                let twice = [&packed[..], &packed, b"rubbish"].concat();
                let (found, error) = unpack(&twice, 4_096);
                assert!(found == [&content[..], &content].concat() && error.is_none(), "{error:?}");
            }
        }
    }

    #[test]
    fn of_what_is_damaged_or_cut_short_comes_what_can_be_had_and_a_reason() {
        let lines: String =
            (0..20_000).map(|n| format!("line {n} of a log {}\n", n * 7_919 % 10_007)).collect();
        let packed = gzip(lines.as_bytes(), "-6");
        for cut in [0, 5, 12, 1_000, packed.len() / 2, packed.len() - 9, packed.len() - 4, packed.len() - 1] {
            let (found, error) = unpack(&packed[..cut], 4_096);
            assert!(lines.as_bytes().starts_with(&found));
            assert_eq!(error.as_deref(), Some("it ends in the middle"), "{cut}");
            assert!(cut < packed.len() / 2 || found.len() > lines.len() / 3, "{cut}: {}", found.len());
        }
        let mut seed = 5usize;
        for _ in 0..60 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut broken = packed.clone();
            let at = 10 + (seed >> 33) % (packed.len() - 10);
            broken[at] ^= 1 << (seed >> 20 & 7);
            let (_, error) = unpack(&broken, 4_096);
            assert!(error.is_some(), "{at}");
        }
        assert_eq!(unpack(b"plain text", 10).1.as_deref(), Some("not gzip"));
    }
}
