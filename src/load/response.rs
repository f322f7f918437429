//! One HTTP/1 response, fed in pieces as they arrive: bytes in, "complete" or "malformed" out.
//! The body is measured, not kept.

use super::chunked::Chunked;

/// Bytes of one response head.
pub(super) const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// The server does not speak HTTP/1 as we know it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug)]
enum Part {
    Head,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Complete,
}

/// A response in the making; reused for the next one on the same client.
#[derive(Debug)]
pub(super) struct Response {
    part: Part,
    /// The beginning of a head that did not arrive in one piece.
    head: Vec<u8>,
    status: u16,
    closes: bool,
    tag: Vec<u8>,
}

impl Response {
    pub(super) fn new() -> Response {
        Response { part: Part::Head, head: Vec::new(), status: 0, closes: false, tag: Vec::new() }
    }

    /// Forgets the last response, keeps its buffers.
    pub(super) fn restart(&mut self) {
        self.part = Part::Head;
        self.head.clear();
        self.tag.clear();
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Whether the server closes the connection after this response.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// The value of the tally header, empty if there was none.
    pub(super) fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// Whether the end of the stream is the end of the response.
    pub(super) fn ends_with_stream(&self) -> bool {
        matches!(self.part, Part::UntilClose | Part::Complete)
    }

    /// Takes the next bytes; `Ok(true)` when the response is complete. Bytes beyond its end are an error: we sent one request.
    pub(super) fn feed(&mut self, mut bytes: &[u8], tally_header: Option<&str>) -> Result<bool, Malformed> {
        loop {
            match &mut self.part {
                Part::Head => match self.feed_head(bytes, tally_header)? {
                    Some(used) => bytes = &bytes[used..],
                    None => return Ok(false),
                },
                Part::Length(left) => {
                    let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= used as u64;
                    if *left > 0 {
                        return Ok(false);
                    }
                    bytes = &bytes[used..];
                    self.part = Part::Complete;
                }
                Part::Chunked(chunked) => {
                    let used = chunked.feed(bytes)?;
                    if !chunked.is_complete() {
                        return Ok(false);
                    }
                    bytes = &bytes[used..];
                    self.part = Part::Complete;
                }
                // A switch of protocols: what follows is not HTTP, and no use to us.
                Part::UntilClose => return Ok(self.status == 101),
                Part::Complete => {
                    return if bytes.is_empty() { Ok(true) } else { Err(Malformed) };
                }
            }
        }
    }

    /// How many of these bytes belong to the head, once it is complete; until then they are kept.
    fn feed_head(&mut self, bytes: &[u8], tally_header: Option<&str>) -> Result<Option<usize>, Malformed> {
        let before = self.head.len();
        // The usual head arrives in one piece and is read where it lies.
        let used = if before == 0 {
            self.parse(bytes, tally_header)?
        } else {
            let room = (MAX_HEAD - before).min(bytes.len());
            self.head.extend_from_slice(&bytes[..room]);
            let head = std::mem::take(&mut self.head);
            let used = self.parse(&head, tally_header);
            self.head = head;
            used?.map(|length| length.saturating_sub(before))
        };
        match used {
            Some(used) => {
                self.head.clear();
                Ok(Some(used))
            }
            None => {
                if before == 0 {
                    self.head.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD)]);
                }
                if self.head.len() >= MAX_HEAD { Err(Malformed) } else { Ok(None) }
            }
        }
    }

    /// The length of the head, if all of it is there; sets `part` to what follows it.
    fn parse(&mut self, bytes: &[u8], tally_header: Option<&str>) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Complete(_)) | Err(_) => return Err(Malformed),
            Ok(httparse::Status::Partial) => return Ok(None),
        };
        self.status = head.code.ok_or(Malformed)?;
        self.closes = head.version == Some(0);
        self.tag.clear();
        let mut content_length = None;
        let mut transfer_coding = None;
        for header in head.headers.iter() {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                let value = parse_length(header.value)?;
                if content_length.replace(value).is_some_and(|other| other != value) {
                    return Err(Malformed);
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                transfer_coding = Some(tokens(header.value).last().unwrap_or_default());
            } else if name.eq_ignore_ascii_case("connection") {
                for token in tokens(header.value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        self.closes = true;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        self.closes = false;
                    }
                }
            }
            if tally_header.is_some_and(|wanted| name.eq_ignore_ascii_case(wanted)) {
                self.tag.clear();
                self.tag.extend_from_slice(header.value.trim_ascii());
            }
        }
        self.part = match (self.status, transfer_coding, content_length) {
            (100 | 102..=199, _, _) => Part::Head,
            (204 | 304, _, _) => Part::Complete,
            (200.., Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => {
                Part::Chunked(Chunked::default())
            }
            (200.., None, Some(length)) => Part::Length(length),
            (_, _, _) => {
                self.closes = true;
                Part::UntilClose
            }
        };
        Ok(Some(length))
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn parse_length(value: &[u8]) -> Result<u64, Malformed> {
    let value = value.trim_ascii();
    // str::parse would also take a sign.
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nX-Worker: 7\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
                           5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n";

    /// Feeds the text in pieces of `size` bytes; the outcome, and whether it came with the very last byte.
    fn feed_in_pieces(text: &[u8], size: usize) -> (Result<bool, Malformed>, Response) {
        let mut response = Response::new();
        let mut outcome = Ok(false);
        for piece in text.chunks(size) {
            assert_ne!(outcome, Ok(true), "complete before the last byte");
            outcome = response.feed(piece, Some("x-worker"));
            if outcome.is_err() {
                break;
            }
        }
        (outcome, response)
    }

    #[test]
    fn any_split_gives_the_same_response() {
        // (text, complete by itself, status, closes, tag)
        let cases: [(&str, bool, u16, bool, &str); 9] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-worker:  12 \r\n\r\nhello", true, 200, false, "12"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Foo, CLOSE\r\n\r\n", true, 200, true, ""),
            (CHUNKED, true, 200, false, "7"),
            ("HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\n!", true, 404, true, ""),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n!", true, 200, false, ""),
            (
                "HTTP/1.1 103 Early Hints\r\nX-Worker: 1\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
                true,
                204,
                false,
                "",
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\n",
                true,
                101,
                true,
                "",
            ),
            ("HTTP/1.1 503 Busy\r\n\r\nuntil the end", false, 503, true, ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabcdef",
                false,
                200,
                true,
                "",
            ),
        ];
        for (text, complete, status, closes, tag) in cases {
            for size in 1..=text.len() {
                let (outcome, response) = feed_in_pieces(text.as_bytes(), size);
                assert_eq!(outcome, Ok(complete), "{text:?} in pieces of {size}");
                assert!(response.ends_with_stream(), "{text:?}");
                assert_eq!((response.status(), response.closes()), (status, closes), "{text:?}");
                assert_eq!(response.tag(), tag.as_bytes(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_cut_response_is_never_complete() {
        for text in [CHUNKED, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"] {
            for end in 1..text.len() {
                let (outcome, response) = feed_in_pieces(&text.as_bytes()[..end], 3);
                assert_eq!(outcome, Ok(false), "{end} bytes of {text:?}");
                assert!(!response.ends_with_stream(), "{end} bytes of {text:?}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        let cases = [
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20x OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!",
            &long,
            &many,
        ];
        for text in cases {
            for size in [1, 7, text.len()] {
                // In small pieces the surplus byte comes after the end, where `feed` must not be called again.
                if size < text.len() && text.ends_with('!') {
                    continue;
                }
                let (outcome, _) = feed_in_pieces(text.as_bytes(), size);
                assert_eq!(outcome, Err(Malformed), "{text:.80?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let mut text = CHUNKED.as_bytes().to_vec();
            for _ in 0..random() % 6 {
                let at = random() as usize % text.len();
                text[at] = random() as u8;
            }
            let size = 1 + random() as usize % text.len();
            let mut response = Response::new();
            for piece in text.chunks(size) {
                if response.feed(piece, Some("x-worker")) != Ok(false) {
                    break;
                }
            }
        }
    }
}
