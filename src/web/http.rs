//! Requests as HTTP/1.1 writes them. Pure: bytes in, meaning out.

/// The longest head of a request, in bytes.
pub const HEAD_LIMIT: usize = 8 << 10;
/// The longest body.
pub const BODY_LIMIT: usize = 256 << 10;
/// The most header lines.
const LINES: usize = 64;

/// What can be done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Look at it.
    Get,
    /// Act on it.
    Post,
    /// End it.
    Delete,
}

impl Method {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// What is to be done; `None`: a word that nothing here answers to.
    pub method: Option<Method>,
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    /// The parts of the path between its slashes, decoded; none has a slash or a control character in it.
    pub path: Vec<String>,
    /// The pairs of the query, decoded.
    pub query: Vec<(String, String)>,
    /// Whom it is meant for: a name or an address, with a port perhaps.
    pub host: String,
    /// The page that it comes from, if a browser says so.
    pub origin: Option<String>,
    /// How that page and we belong together, in a browser's word (`same-origin`, `cross-site` ...).
    pub site: Option<String>,
    /// Why the browser wants it (`navigate`, `cors` ...).
    pub mode: Option<String>,
    /// After `Bearer `.
    pub token: Option<String>,
    /// The media types that the answer may have.
    pub accept: String,
    /// The body is said to be JSON.
    pub is_json: bool,
    /// So many bytes of a body follow.
    pub length: usize,
    /// The connection may go on afterwards.
    pub keep_alive: bool,
}

/// Why there is no request: the status to answer with, and a sentence. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u16, pub &'static str);

/// Reads a head from the beginning of what came: it and its length, or `None` until it is whole.
pub fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refused> {
    let mut lines = [httparse::EMPTY_HEADER; LINES];
    let mut parsed = httparse::Request::new(&mut lines);
    let end = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end <= HEAD_LIMIT => end,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => return Ok(None),
        Ok(_) => return Err(Refused(431, "the head of the request is too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused(431, "too many header lines")),
        Err(httparse::Error::Version) => return Err(Refused(505, "only HTTP/1.1 is spoken here")),
        Err(_) => return Err(Refused(400, "this is no HTTP request")),
    };
    let is_old = parsed.version == Some(0);
    let method = parsed.method.unwrap_or_default();
    let mut head = Head {
        method: match method {
            "GET" | "HEAD" => Some(Method::Get),
            "POST" => Some(Method::Post),
            "DELETE" => Some(Method::Delete),
            _ => None,
        },
        head_only: method == "HEAD",
        path: Vec::new(),
        query: Vec::new(),
        host: String::new(),
        origin: None,
        site: None,
        mode: None,
        token: None,
        accept: String::new(),
        is_json: false,
        length: 0,
        keep_alive: !is_old,
    };
    let (mut hosts, mut lengths) = (0, 0);
    for line in parsed.headers.iter() {
        let value = std::str::from_utf8(line.value).map_err(|_| Refused(400, "a header is not UTF-8"))?;
        let value = value.trim();
        match line.name.to_ascii_lowercase().as_str() {
            "host" => {
                hosts += 1;
                head.host = value.to_ascii_lowercase();
            }
            "origin" => head.origin = Some(value.to_ascii_lowercase()),
            "sec-fetch-site" => head.site = Some(value.to_string()),
            "sec-fetch-mode" => head.mode = Some(value.to_string()),
            "accept" => head.accept = value.to_ascii_lowercase(),
            "authorization" => {
                let word = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                head.token = word.map(|(_, word)| word.trim().to_string());
            }
            "content-type" => {
                let kind = value.split(';').next().unwrap_or_default().trim();
                head.is_json = kind.eq_ignore_ascii_case("application/json");
            }
            "content-length" => {
                lengths += 1;
                let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number {
                    return Err(Refused(400, "the content length is no number"));
                }
                head.length = value.parse().unwrap_or(usize::MAX);
            }
            // Two readers who see two ends of a body can be played off against each other: there is one way.
            "transfer-encoding" => return Err(Refused(411, "a body needs its length")),
            "connection" if value.eq_ignore_ascii_case("close") => head.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => head.keep_alive = true,
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && !is_old) {
        return Err(Refused(400, "a request names one host"));
    }
    if lengths > 1 {
        return Err(Refused(400, "a request has one content length"));
    }
    if head.length > BODY_LIMIT {
        return Err(Refused(413, "the body is too long"));
    }
    let target = parsed.path.unwrap_or_default();
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Nothing that exists has such an address.
    let nowhere = Refused(404, "there is nothing at this address");
    for part in path.strip_prefix('/').ok_or(nowhere)?.split('/') {
        let part = decoded(part, false).ok_or(nowhere)?;
        if part == "." || part == ".." || part.contains(['/', '\\']) || part.chars().any(char::is_control) {
            return Err(nowhere);
        }
        head.path.push(part);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let pair = decoded(name, true).zip(decoded(value, true));
        head.query.push(pair.ok_or(Refused(400, "the query is not written as one"))?);
    }
    Ok(Some((head, end)))
}

/// Without its percent signs; in a query a plus is a blank.
fn decoded(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

impl Head {
    /// The value of a name in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether an answer of this media type is asked for by name.
    pub fn accepts(&self, kind: &str) -> bool {
        self.accept.split(',').any(|part| part.split(';').next().unwrap_or_default().trim() == kind)
    }
}

/// What a status is called.
pub fn name(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str, lines: &str) -> Result<Head, Refused> {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        read(bytes.as_bytes()).map(|found| found.expect("it is whole").0)
    }

    #[test]
    fn a_path_is_parts_and_cannot_climb() {
        for (target, expected) in [
            ("/", Ok(&[""][..])),
            ("/api/v1/processes/a%20b/stop?x=1", Ok(&["api", "v1", "processes", "a b", "stop"])),
            ("/%C3%A9", Ok(&["é"])),
            ("/..", Err(404)),
            ("/api/%2e%2E/x", Err(404)),
            ("/api/..%2f..%2fetc%2fpasswd", Err(404)),
            ("/api/..%5cx", Err(404)),
            ("/a%00", Err(404)),
            ("/%013", Err(404)),
            ("/a%zz", Err(404)),
            ("/a%f", Err(404)),
            ("/%ff", Err(404)),
            ("http://evil/", Err(404)),
            ("*", Err(404)),
        ] {
            let found = get(target, "").map(|head| head.path).map_err(|Refused(status, _)| status);
            assert_eq!(found, expected.map(|parts| parts.iter().map(|part| part.to_string()).collect()));
        }
    }

    #[test]
    fn what_is_ambiguous_or_too_long_is_refused() {
        for (bytes, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET /?a=%z HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\u{1}\r\n\r\n", 400),
        ] {
            assert_eq!(read(bytes.as_bytes()).map_err(|Refused(status, _)| status), Err(status), "{bytes:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert!(matches!(read(long.as_bytes()), Err(Refused(431, _))));
        assert!(matches!(read(&long.as_bytes()[..HEAD_LIMIT - 1]), Ok(None)));
        assert!(matches!(get("/", &"a: b\r\n".repeat(LINES)), Err(Refused(431, _))));
    }

    #[test]
    fn what_matters_of_a_head_is_read() {
        let head = get(
            "/x?name=a+b&q=%26&c",
            "authorization: bearer abc\r\nOrigin: HTTP://A\r\nConnection: close\r\n\
             Accept: text/html, application/json;q=0.5\r\nContent-Type: application/json; charset=x\r\n",
        )
        .unwrap();
        assert_eq!(
            (head.query("name"), head.query("q"), head.query("c")),
            (Some("a b"), Some("&"), Some(""))
        );
        assert_eq!((head.token.as_deref(), head.origin.as_deref()), (Some("abc"), Some("http://a")));
        assert!(head.accepts("application/json") && head.accepts("text/html") && !head.accepts("text/plain"));
        assert!(head.is_json && !head.keep_alive);
    }

    #[test]
    fn random_bytes_never_panic() {
        let pieces = [
            "GET ",
            "/",
            "%",
            "2e",
            "\r\n",
            "Host: a",
            ": ",
            "HTTP/1.1",
            "\u{e9}",
            "?",
            "&",
            "Content-Length: ",
        ];
        let mut state = 1u64;
        for _ in 0..50_000 {
            let mut text = String::from("GET /");
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = read(text.as_bytes());
            let _ = read(format!("{text} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        }
    }
}
