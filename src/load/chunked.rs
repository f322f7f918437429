//! Where a body in chunks ends. Only the framing is read; data, extensions and trailers are skipped.

use super::response::{MAX_HEAD, Malformed};

/// More digits than any chunk needs, and few enough for a u64.
const MAX_SIZE_DIGITS: usize = 15;

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    LastLineFeed,
    Complete,
}

/// The state of the framing between two pieces.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    /// The size of the chunk so far, then what is left of its data.
    left: u64,
    digits: usize,
    /// Bytes of this chunk's extension, or of the trailers, which have no use and therefore a limit.
    skipped: usize,
}

impl Chunked {
    pub(super) fn is_complete(&self) -> bool {
        self.at == At::Complete
    }

    /// How many of the bytes belong to the body: all of them, unless it is complete now.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Complete {
            if self.at == At::Data {
                let data = (bytes.len() - used).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= data as u64;
                used += data;
                if self.left == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            self.at = self.step(bytes[used])?;
            used += 1;
        }
        Ok(used)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                self.digits += 1;
                if self.digits > MAX_SIZE_DIGITS { Err(Malformed) } else { Ok(At::Size) }
            }
            (At::Size, _) if self.digits == 0 => Err(Malformed),
            (At::Size | At::Extension, b'\r') => Ok(At::SizeLineFeed),
            (At::Size, b';' | b' ' | b'\t') | (At::Extension, _) => self.skip(At::Extension),
            (At::SizeLineFeed, b'\n') => {
                self.digits = 0;
                self.skipped = 0;
                Ok(if self.left == 0 { At::TrailerStart } else { At::Data })
            }
            (At::DataReturn, b'\r') => Ok(At::DataLineFeed),
            (At::DataLineFeed, b'\n') => Ok(At::Size),
            (At::TrailerStart, b'\r') => Ok(At::LastLineFeed),
            (At::Trailer, b'\n') => Ok(At::TrailerStart),
            (At::TrailerStart | At::Trailer, _) => self.skip(At::Trailer),
            (At::LastLineFeed, b'\n') => Ok(At::Complete),
            (At::Size | At::SizeLineFeed | At::DataReturn | At::DataLineFeed | At::LastLineFeed, _) => {
                Err(Malformed)
            }
            (At::Data | At::Complete, _) => Err(Malformed),
        }
    }

    fn skip(&mut self, at: At) -> Result<At, Malformed> {
        self.skipped += 1;
        if self.skipped > MAX_HEAD { Err(Malformed) } else { Ok(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(text: &str) -> Result<(usize, bool), Malformed> {
        let mut chunked = Chunked::default();
        chunked.feed(text.as_bytes()).map(|used| (used, chunked.is_complete()))
    }

    #[test]
    fn the_body_ends_after_the_last_chunk() {
        assert_eq!(feed("0\r\n\r\nrest"), Ok((5, true)));
        let body = "00A ; x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n";
        assert_eq!(feed(&(body.to_owned() + "rest")), Ok((body.len(), true)));
        assert_eq!(feed("1\r\na\r\n0\r\n"), Ok((9, false)));
        assert_eq!(feed("ffff\r\nabc"), Ok((9, false)));
    }

    #[test]
    fn broken_framing_is_malformed() {
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "1x\r\n",
            "1\rx",
            "1\r\naa",
            "1\r\na\rx",
            "0\r\n\rx",
            "1000000000000000\r\n",
        ] {
            assert_eq!(feed(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_limit() {
        let (extension, trailer) = ("1;".to_owned(), "0\r\n".to_owned());
        for start in [extension, trailer] {
            assert!(feed(&(start.clone() + &"x".repeat(MAX_HEAD - 1))).is_ok());
            assert_eq!(feed(&(start + &"x".repeat(MAX_HEAD + 1))), Err(Malformed));
        }
    }
}
