//! Sends an event to a webhook: over plain HTTP by a small client of our own, over TLS by curl, which gets all that may be
//! secret on its stdin. A redirect is not followed: what is meant for one is not for another.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::serve::base64;
use super::Told;
use crate::app::Url;

/// From the first attempt to the second and last one.
const PAUSE: Duration = Duration::from_secs(1);
/// So much of an answer is read at the most, and for so long once its first line is there.
const ANSWER: usize = 64 << 10;
const REST: Duration = Duration::from_millis(500);

/// Sends `event`. It is tried twice, if there is time.
pub fn post(url: &str, headers: &BTreeMap<String, String>, event: &str, timeout: Duration) -> Told {
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(fault) => return (String::new(), Err(fault)),
    };
    let deadline = Instant::now() + timeout;
    let attempt = || match parsed.is_https {
        true => by_curl(url, headers, event, deadline),
        false => send(&parsed, headers, event, deadline).and_then(verdict),
    };
    let mut result = attempt();
    if let Err(Failed { may_pass: true, .. }) = result
        && Instant::now() + PAUSE < deadline
    {
        std::thread::sleep(PAUSE);
        result = attempt();
    }
    (String::new(), result.map_err(|failed| failed.reason))
}

/// Why an attempt failed.
#[derive(Debug, PartialEq)]
struct Failed {
    reason: String,
    /// It may do better the next time.
    may_pass: bool,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_string(),
            _ => crate::sys::reason(&error),
        };
        Failed { reason, may_pass: true }
    }
}

/// What a status of HTTP means for us.
fn verdict(status: u16) -> Result<(), Failed> {
    match status {
        200..=299 => Ok(()),
        status => {
            Err(Failed { reason: format!("it answered {status}"), may_pass: status >= 500 || status == 429 })
        }
    }
}

/// One request; the status of its answer.
fn send(
    url: &Url,
    headers: &BTreeMap<String, String>,
    event: &str,
    deadline: Instant,
) -> Result<u16, Failed> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut refused = io::Error::other(format!("{} has no address", url.host));
    let mut connected = None;
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => refused = error,
        }
    }
    let mut stream = connected.ok_or(refused)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request(url, headers, event).as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let mut status = None;
    while answer.len() < ANSWER {
        let patience = if status.is_some() { left()?.min(REST) } else { left()? };
        stream.set_read_timeout(Some(patience))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The rest of it is a courtesy.
            Err(_) if status.is_some() => break,
            Err(error) => return Err(error.into()),
        }
        status = self::status(&answer);
    }
    status.ok_or_else(|| Failed { reason: "what it answered is no HTTP".to_string(), may_pass: true })
}

/// The status of an answer, once that is there.
fn status(answer: &[u8]) -> Option<u16> {
    let code = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(code).ok()?.parse().ok().filter(|code| (200..=599).contains(code))
}

fn request(url: &Url, headers: &BTreeMap<String, String>, event: &str) -> String {
    let has = |name: &str| headers.keys().any(|header| header.eq_ignore_ascii_case(name));
    let mut text = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", url.path, url.authority());
    if !has("content-type") {
        text.push_str("Content-Type: application/json\r\n");
    }
    if !has("user-agent") {
        text.push_str("User-Agent: pmx\r\n");
    }
    if let Some(user) = url.user.as_ref().filter(|_| !has("authorization")) {
        text.push_str(&format!("Authorization: Basic {}\r\n", base64(&decoded(user))));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n{event}", event.len()));
    text
}

/// `%41` as `A`.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Has curl send it. What may be secret is in no argument, which anybody can see.
fn by_curl(
    url: &str,
    headers: &BTreeMap<String, String>,
    event: &str,
    deadline: Instant,
) -> Result<(), Failed> {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut command = Command::new("curl");
    // In this order: nobody's own settings count.
    command.args(["-q", "--config", "-"]);
    let (said, result) = super::run(command, config(url, headers, event).as_bytes(), left);
    match result {
        Ok(()) => {
            let status = said.lines().last().and_then(|line| line.trim().parse().ok());
            verdict(status.ok_or(Failed { reason: "curl told no status".to_string(), may_pass: false })?)
        }
        Err(reason) if reason.starts_with("run curl: ") => {
            Err(Failed { reason: format!("{reason} (https needs curl)"), may_pass: false })
        }
        Err(ended) => {
            // What it complains about stands before the status.
            let reason = said.lines().find(|line| line.starts_with("curl: ")).map_or(ended, String::from);
            // Only who could not be reached may be so later.
            let may_pass =
                ["(5)", "(6)", "(7)", "(28)", "(52)", "(56)"].iter().any(|code| reason.contains(code));
            Err(Failed { reason, may_pass })
        }
    }
}

fn config(url: &str, headers: &BTreeMap<String, String>, event: &str) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from(
        "silent\nshow-error\ngloboff\nproto = \"=https\"\nrequest = \"POST\"\noutput = \"/dev/null\"\n\
         write-out = \"\\n%{http_code}\\n\"\nuser-agent = \"pmx\"\n",
    );
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
        text.push_str("header = \"Content-Type: application/json\"\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("header = {}\n", quoted(&format!("{name}: {value}"))));
    }
    text.push_str(&format!("url = {}\ndata-raw = {}\n", quoted(url), quoted(event)));
    text
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers in this way each time, and what it was asked.
    fn server(answers: Vec<&'static str>) -> (u16, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.ends_with(b"{}") {
                    let count = stream.read(&mut buffer).unwrap();
                    request.extend_from_slice(&buffer[..count]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                asked.push(String::from_utf8(request).unwrap());
            }
            asked
        };
        (port, thread::spawn(serve))
    }

    fn post(url: &str, timeout: u64) -> Result<(), String> {
        let headers = [("X-Key".to_string(), "k".to_string())].into();
        super::post(url, &headers, "{}", Duration::from_millis(timeout)).1
    }

    #[test]
    fn an_event_is_posted_and_tried_once_more() {
        let (port, server) = server(vec!["HTTP/1.1 503 x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"]);
        assert_eq!(post(&format!("http://u%41:p@127.0.0.1:{port}/a?b#c"), 20_000), Ok(()));
        let asked = server.join().unwrap();
        let expected = format!(
            "POST /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nUser-Agent: pmx\r\n\
             Authorization: Basic dUE6cA==\r\nX-Key: k\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        assert_eq!(asked, [expected.clone(), expected]);
    }

    #[test]
    fn a_redirect_is_not_followed_and_silence_is_told() {
        let (port, server) = server(vec!["HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"]);
        assert_eq!(post(&format!("http://127.0.0.1:{port}"), 20_000), Err("it answered 302".to_string()));
        server.join().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        assert_eq!(post(&format!("http://127.0.0.1:{port}"), 300), Err("it does not answer".to_string()));
        // Nobody listens there; on the port of before a child of another test may, for a moment.
        let refused = post("http://127.0.0.1:1", 300).unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }

    #[test]
    fn curl_reads_what_is_secret_in_a_file_of_settings() {
        let text =
            config("https://a/b", &[("K".to_string(), "a\"b\\c".to_string())].into(), "{\"a\":\"b\\n\"}");
        assert!(text.contains("header = \"K: a\\\"b\\\\c\"\n"), "{text}");
        assert!(text.contains("data-raw = \"{\\\"a\\\":\\\"b\\\\n\\\"}\"\n"), "{text}");
    }
}
