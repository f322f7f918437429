//! What a client asks for, as far as files are concerned. Pure: bytes in, meaning out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The most header lines.
const LINES: usize = 100;

/// A request without a body.
#[derive(Debug, Default, PartialEq)]
pub struct Request {
    /// Nothing but the head is wanted.
    pub head_only: bool,
    /// Below the root, without `..` and whatever hides.
    pub path: PathBuf,
    /// Its last character was a slash.
    pub is_folder: bool,
    /// The connection ends with it.
    pub close: bool,
    /// After `Basic `.
    pub credentials: Option<String>,
    /// What the client has already.
    pub known: Option<String>,
    /// A part: from, and up to and including.
    pub range: Option<Part>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From here, up to and including there.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

/// Why there is no request: the status to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u16);

/// Where the head ends, its empty line included.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head that is whole.
pub fn read(head: &[u8]) -> Result<Request, Refused> {
    const BAD: Refused = Refused(400);
    let text = std::str::from_utf8(head).map_err(|_| BAD)?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    let mut request = Request { close: version == "HTTP/1.0", ..Request::default() };
    if !version.starts_with("HTTP/1.") {
        return Err(Refused(505));
    }
    request.head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refused(405)),
    };
    let mut conditional = false;
    for (number, line) in lines.enumerate() {
        let (name, value) = line.split_once(':').ok_or(BAD)?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if number >= LINES || name.is_empty() || !name.chars().all(is_token) {
            return Err(BAD);
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "connection" if value.eq_ignore_ascii_case("close") => request.close = true,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.close = false,
            // There is nothing to be done with a body, and no need to find its end.
            "transfer-encoding" => request.close = true,
            "content-length" if value != "0" => request.close = true,
            "authorization" => {
                let word = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
                request.credentials = word.map(|(_, word)| word.trim().to_string());
            }
            "if-none-match" => request.known = Some(value.to_string()),
            "range" => request.range = part(value),
            "if-range" => conditional = true,
            _ => {}
        }
    }
    // What it has of a file may be of another one by now: it gets the whole.
    request.range = request.range.filter(|_| !conditional);
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    request.path = below_root(path)?;
    request.is_folder = path.ends_with('/');
    Ok(request)
}

/// Decodes a path. It cannot lead out of the root, and what is hidden does not exist.
fn below_root(path: &str) -> Result<PathBuf, Refused> {
    let mut below = PathBuf::new();
    for part in path.strip_prefix('/').ok_or(Refused(400))?.split('/') {
        let name = decoded(part)?;
        match &name[..] {
            b"" | b"." => {}
            b".." => return Err(Refused(403)),
            name if name.iter().any(|byte| matches!(byte, 0 | b'/')) => return Err(Refused(400)),
            name if name.starts_with(b".") && name != b".well-known" => return Err(Refused(404)),
            _ => below.push(OsString::from_vec(name)),
        }
    }
    Ok(below)
}

fn decoded(text: &str) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(Refused(400));
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    Ok(bytes)
}

/// `bytes=0-99`, `bytes=100-`, `bytes=-5`. Anything else asks for the whole.
fn part(text: &str) -> Option<Part> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    match (from, to) {
        ("", to) => Some(Part::Last(number(to)?)),
        (from, "") => Some(Part::From(number(from)?, None)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then_some(Part::From(from, Some(to)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn get(target: &str, lines: &str) -> Result<Request, Refused> {
        read(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn a_path_stays_below_the_root() {
        for (target, expected) in [
            ("/", Ok("")),
            ("/a/./b//c", Ok("a/b/c")),
            ("/a%20b/%C3%A9?x=/../y#z", Ok("a b/é")),
            ("http://a:1/b", Ok("b")),
            ("http://a", Ok("")),
            ("/.well-known/x", Ok(".well-known/x")),
            ("/..", Err(403)),
            ("/a/%2e%2E/b", Err(403)),
            ("/a/.%2e", Err(403)),
            ("/.git/config", Err(404)),
            ("/a/%2eenv", Err(404)),
            ("/a%2Fb", Err(400)),
            ("/a%00b", Err(400)),
            ("/a%0", Err(400)),
            ("/a%zz", Err(400)),
            ("/a%+1", Err(400)),
            ("a", Err(400)),
            ("*", Err(400)),
            ("", Err(400)),
        ] {
            let found = get(target, "").map(|request| request.path);
            assert_eq!(
                found,
                expected.map(|path| Path::new(path).to_path_buf()).map_err(Refused),
                "{target}"
            );
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (head, status) in [
            ("POST / HTTP/1.1\r\n\r\n", 405),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/2\r\n\r\n", 505),
            ("GET / HTTP/1.1 x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ] {
            assert_eq!(read(head.as_bytes()), Err(Refused(status)), "{head}");
        }
        assert_eq!(get("/", &"a: b\r\n".repeat(LINES)), Err(Refused(400)));
        assert_eq!(read(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(Refused(400)));
    }

    #[test]
    fn headers_that_matter_are_read() {
        let found =
            get("/x/", "CONNECTION: Close\r\nauthorization: basic YTpi\r\nRange: bytes=5-\r\n").unwrap();
        assert!(found.close && found.is_folder);
        assert_eq!(found.credentials.as_deref(), Some("YTpi"));
        assert_eq!(found.range, Some(Part::From(5, None)));
        assert_eq!(get("/", "Range: bytes=-5\r\n").unwrap().range, Some(Part::Last(5)));
        for whole in ["bytes=9-5", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=+1-2"] {
            assert_eq!(get("/", &format!("Range: {whole}\r\n")).unwrap().range, None, "{whole}");
        }
        assert_eq!(get("/", "Range: bytes=1-2\r\nIf-Range: \"x\"\r\n").unwrap().range, None);
        assert!(get("/", "Content-Length: 5\r\n").unwrap().close);
        assert!(read(b"GET / HTTP/1.0\r\n\r\n").unwrap().close);
    }

    #[test]
    fn random_bytes_never_panic() {
        let pieces =
            ["GET", " ", "/", "%", "2e", "..", "\r\n", ":", "HTTP/1.1", "\u{e9}", "bytes=", "-", "Range: "];
        let mut state = 1u64;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = read(text.as_bytes());
            let _ = read(format!("GET /{text}").as_bytes());
        }
    }
}
