//! What load to make: the target, the request, how many clients, back to back or at a rate.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Client connections at most; each holds an fd while it is busy.
pub const MAX_CLIENTS: usize = 16_384;
const MAX_RATE: f64 = 10_000_000.0;
const MAX_REQUEST: usize = 64 * 1024;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A load to be made. All clients send the same GET request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to ask.
    pub target: Target,
    /// The request target, with its query.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// Further request headers.
    pub headers: Vec<(String, String)>,
    /// Connections that may be busy at the same time.
    pub clients: usize,
    /// Many requests per connection; otherwise each request asks for `Connection: close` on its own connection.
    pub keep_alive: bool,
    /// Requests per second over all clients, sent on time whether or not earlier ones were answered, as long as a
    /// client is free. Latency counts from the intended time, so a stall of the server shows in every request that it delayed.
    /// `None`: each client sends its next request when it has the answer to its last.
    pub rate: Option<f64>,
    /// For one request, its connection included. Noticed within some 10 ms.
    pub timeout: Duration,
    /// Count answers by the value of this response header.
    pub tally_header: Option<String>,
}

impl Plan {
    /// 16 clients back to back over kept-alive connections, `GET /`, 5 seconds of patience.
    pub fn new(target: Target) -> Plan {
        let host = match &target {
            Target::Tcp(address) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        };
        Plan {
            target,
            path: "/".to_owned(),
            host,
            headers: Vec::new(),
            clients: 16,
            keep_alive: true,
            rate: None,
            timeout: Duration::from_secs(5),
            tally_header: None,
        }
    }

    /// The bytes of the request, after the whole plan was checked.
    pub(super) fn request(&self) -> io::Result<Vec<u8>> {
        let refuse = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if !(1..=MAX_CLIENTS).contains(&self.clients) {
            return refuse(format!("clients: {} is not in 1..={MAX_CLIENTS}", self.clients));
        }
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= MAX_RATE)
        {
            return refuse(format!("rate: {rate} is not above 0 and up to {MAX_RATE}"));
        }
        if self.timeout.is_zero() {
            return refuse("timeout: must be more than zero".to_owned());
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(format!("path: {:?} is not a path of an HTTP request", self.path));
        }
        let own = ("Host".to_owned(), self.host.clone());
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let mut request = format!("GET {} HTTP/1.1\r\n", self.path);
        for (name, value) in std::iter::once(&own).chain(&self.headers) {
            let name_fits =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            if !name_fits || value.bytes().any(|byte| byte.is_ascii_control()) {
                return refuse(format!("header: {name:?}: {value:?} cannot be sent"));
            }
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Connection: {connection}\r\n\r\n");
        if request.len() > MAX_REQUEST {
            return refuse(format!("request: {} bytes are more than {MAX_REQUEST}", request.len()));
        }
        Ok(request.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(Target::Tcp(([127, 0, 0, 1], 3000).into()))
    }

    #[test]
    fn the_request_is_what_was_planned() {
        let headers = vec![("Accept".to_owned(), "*/*".to_owned())];
        let plan = Plan { path: "/a?b=c".to_owned(), keep_alive: false, headers, ..plan() };
        let expected =
            "GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(plan.request().unwrap(), expected.as_bytes());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_name() {
        let smuggled = vec![("X".to_owned(), "1\r\nY: 2".to_owned())];
        let unnamed = vec![("X:".to_owned(), "1".to_owned())];
        let huge = vec![("X".to_owned(), "y".repeat(MAX_REQUEST))];
        let cases = [
            ("clients", Plan { clients: 0, ..plan() }),
            ("clients", Plan { clients: MAX_CLIENTS + 1, ..plan() }),
            ("rate", Plan { rate: Some(0.0), ..plan() }),
            ("rate", Plan { rate: Some(f64::NAN), ..plan() }),
            ("rate", Plan { rate: Some(f64::INFINITY), ..plan() }),
            ("timeout", Plan { timeout: Duration::ZERO, ..plan() }),
            ("path", Plan { path: "a".to_owned(), ..plan() }),
            ("path", Plan { path: "/a b".to_owned(), ..plan() }),
            ("header", Plan { host: "a\nb".to_owned(), ..plan() }),
            ("header", Plan { headers: smuggled, ..plan() }),
            ("header", Plan { headers: unnamed, ..plan() }),
            ("request", Plan { headers: huge, ..plan() }),
        ];
        for (what, plan) in cases {
            let message = plan.request().expect_err(what).to_string();
            assert!(message.starts_with(what), "{message}");
        }
    }
}
