//! Who may come in. The host keeps out names that somebody else's DNS points at us, the origin keeps out other
//! pages in our user's browser, and the token everybody who may not act for our user.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::http::Head;
use crate::protocol::{Admission, Token};
use crate::sys::secret;
use crate::time::Wall;

/// What the gate goes by.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Where we listen.
    pub address: SocketAddr,
    /// Names that we are called by, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Where the token is.
    pub token: PathBuf,
}

/// Who may ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it says nothing of what runs here.
    Anybody,
    /// Anybody on this machine; where others can reach us, who has the token.
    Local,
    /// Who has the token.
    Token,
}

/// Why somebody stays outside: the status and a sentence.
pub type Closed = (u16, &'static str);

impl Gate {
    /// Whether others than the users of this machine can reach us.
    fn is_exposed(&self) -> bool {
        !self.address.ip().is_loopback() || !self.hosts.is_empty()
    }

    /// Whether it is meant for us, and comes from us if it comes from a page. To be asked before anything else.
    pub fn lets_pass(&self, head: &Head) -> Result<(), Closed> {
        if !self.is_ours(&head.host) {
            return Err((421, "this host is not served here (pmx web --allow-host adds a name)"));
        }
        if let Some(origin) = &head.origin {
            let ours = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            if ours != Some(&head.host) {
                return Err((403, "another page may not ask for this"));
            }
        }
        // A link may lead here; nothing else of another page may.
        let is_foreign = matches!(head.site.as_deref(), Some("cross-site" | "same-site"));
        if is_foreign && head.mode.as_deref() != Some("navigate") {
            return Err((403, "another page may not ask for this"));
        }
        Ok(())
    }

    /// Whether who asks may have what takes this much.
    pub fn admits(&self, head: &Head, access: Access, now: Wall) -> Result<(), Closed> {
        match access {
            Access::Anybody => return Ok(()),
            Access::Local if !self.is_exposed() => return Ok(()),
            Access::Local | Access::Token => {}
        }
        let Some(given) = &head.token else {
            return Err((401, "this takes the token, as Authorization: Bearer ..."));
        };
        // Read each time: a token that was replaced is worth nothing from that moment on.
        let token = secret::read(&self.token).ok().and_then(|text| Token::read(&text));
        match token.map(|token| token.admits(given, now)) {
            Some(Admission::Admitted) => Ok(()),
            Some(Admission::Expired) => Err((401, "the token has expired (pmx web --new-token makes one)")),
            Some(Admission::Wrong) => Err((401, "this is not the token")),
            None => Err((401, "there is no token here (pmx web --new-token makes one)")),
        }
    }

    /// An address cannot be pointed elsewhere, so any will do; a name must be known.
    fn is_ours(&self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, rest)) => {
                (inside, rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "0" } else { "" }))
            }
            None => host.split_once(':').unwrap_or((host, "0")),
        };
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_known = name == "localhost" || name.parse::<IpAddr>().is_ok();
        is_port && (is_known || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(address: &str, hosts: &[&str]) -> Gate {
        let hosts = hosts.iter().map(|host| host.to_string()).collect();
        Gate { address: address.parse().unwrap(), hosts, token: PathBuf::from("/nowhere") }
    }

    fn head(lines: &str) -> Head {
        super::super::http::read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_name_that_is_not_ours_is_turned_away() {
        let gate = gate("127.0.0.1:9615", &["pmx.example"]);
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:9615", true),
            ("127.0.0.1:9615", true),
            ("10.0.0.7:80", true),
            ("[::1]:9615", true),
            ("[::1]", true),
            ("pmx.example:1", true),
            ("evil.example:9615", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost:", false),
            ("localhost:9615:1", false),
            ("[::1]x", false),
            ("", false),
        ] {
            let found = gate.lets_pass(&head(&format!("Host: {host}\r\n")));
            assert_eq!(found.is_ok(), expected, "{host}: {found:?}");
        }
    }

    #[test]
    fn another_page_may_not_ask() {
        let gate = gate("127.0.0.1:9615", &[]);
        for (lines, expected) in [
            ("Origin: http://localhost:9615\r\n", true),
            ("Origin: https://localhost:9615\r\n", true),
            ("Origin: http://localhost:3000\r\n", false),
            ("Origin: http://evil.example\r\n", false),
            ("Origin: null\r\n", false),
            ("Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n", true),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", false),
            ("Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n", false),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", true),
            ("Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", true),
        ] {
            let found = gate.lets_pass(&head(&format!("Host: localhost:9615\r\n{lines}")));
            assert_eq!(found.is_ok(), expected, "{lines}: {found:?}");
        }
    }

    #[test]
    fn where_others_reach_us_looking_takes_the_token_too() {
        let any = head("Host: localhost\r\n");
        let now = Wall(0);
        let closed = gate("127.0.0.1:9615", &[]);
        assert_eq!(closed.admits(&any, Access::Local, now), Ok(()));
        assert!(closed.admits(&any, Access::Token, now).is_err());
        for exposed in [gate("0.0.0.0:9615", &[]), gate("127.0.0.1:9615", &["pmx.example"])] {
            assert_eq!(exposed.admits(&any, Access::Anybody, now), Ok(()));
            assert!(exposed.admits(&any, Access::Local, now).is_err());
        }
        let with = head("Host: localhost\r\nAuthorization: Bearer x\r\n");
        assert!(closed.admits(&with, Access::Token, now).is_err(), "no token, so none fits");
    }
}
