//! How the health of an app is checked, and what follows when it fails.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Text;
use crate::time::Millis;

/// The default of [`Health::interval`].
pub const INTERVAL: Millis = Millis(10_000);
/// The default of [`Health::timeout`].
pub const TIMEOUT: Millis = Millis(5_000);
/// The default of [`Health::retries`].
pub const RETRIES: u32 = 3;
/// The default of [`Health::start_period`].
pub const START_PERIOD: Millis = Millis(10_000);
/// While nothing has passed yet, checks come at least this often.
pub const EAGER: Millis = Millis(1_000);

/// A check and its policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// What is checked.
    pub check: Check,
    /// From the end of one check to the next.
    pub interval: Millis,
    /// How long one may take.
    pub timeout: Millis,
    /// So many failures in a row are ill health.
    pub retries: u32,
    /// Failures of a child that has not passed yet do not count for so long.
    pub start_period: Millis,
    /// What ill health leads to.
    pub on_fail: OnFail,
    /// What a later version declared and this one does not know.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// What is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// `GET` of a path is answered with a status within a range.
    Http {
        /// Who is asked; see [`Address`].
        address: Address,
        /// The path, and the query.
        path: String,
        /// The lowest and the highest status that passes.
        expect: (u16, u16),
    },
    /// A connection is accepted.
    Tcp {
        /// By whom.
        address: Address,
    },
    /// A line for a shell ends with 0.
    Exec {
        /// The line.
        command: Text,
    },
}

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// The host; `None` is this machine, and where the child is a worker that shares the port: this worker.
    pub ip: Option<IpAddr>,
    /// The port, in which `{instance}` stands for the child's place among its instances; empty: the one that
    /// the child shares with others.
    pub port: String,
}

/// What ill health leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFail {
    /// Another child takes its place before it goes, where they share their ports; else a restart.
    #[default]
    Reload,
    /// It is stopped and started.
    Restart,
    /// It is shown.
    None,
}

impl OnFail {
    /// As people write it.
    pub fn named(name: &str) -> Option<OnFail> {
        [OnFail::Reload, OnFail::Restart, OnFail::None].into_iter().find(|on_fail| on_fail.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            OnFail::Reload => "reload",
            OnFail::Restart => "restart",
            OnFail::None => "none",
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            check: Check::Tcp { address: Address::default() },
            interval: INTERVAL,
            timeout: TIMEOUT,
            retries: RETRIES,
            start_period: START_PERIOD,
            on_fail: OnFail::default(),
            unknown: serde_json::Map::new(),
        }
    }
}

impl Health {
    /// How long until the next check of a child that has passed one, or not.
    pub fn pace(&self, has_passed: bool) -> Millis {
        if has_passed { self.interval } else { self.interval.min(EAGER) }
    }

    /// Refuses what can never pass, whoever sent it.
    pub fn check(&self) -> Result<(), String> {
        if self.interval == Millis(0) || self.timeout == Millis(0) || self.retries == 0 {
            return Err("the interval, the timeout and the retries of a health check are at least 1".into());
        }
        match &self.check {
            Check::Http { address, path, expect } => {
                address.check()?;
                if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                    return Err(format!(
                        "the path {path:?} of a health check begins with / and has no spaces"
                    ));
                }
                if expect.0 > expect.1 {
                    return Err(format!("no status is from {} to {}", expect.0, expect.1));
                }
                Ok(())
            }
            Check::Tcp { address } => address.check(),
            Check::Exec { command } if command.bytes().is_empty() || command.bytes().contains(&0) => {
                Err("the command of a health check is empty".into())
            }
            Check::Exec { .. } => Ok(()),
        }
    }
}

impl Check {
    /// From `"/path"`, or a URL.
    pub fn http(text: &str) -> Result<Check, String> {
        let expected = "a path such as \"/health\", or a URL of an address such as \"http://127.0.0.1:80/\"";
        if text.starts_with('/') {
            return Ok(Check::Http { address: Address::default(), path: text.into(), expect: (200, 399) });
        }
        let rest = match (text.strip_prefix("http://"), text.starts_with("https://")) {
            (Some(rest), _) => rest,
            (None, true) => return Err(format!("{expected}: https is not spoken, check it by tcp or exec")),
            (None, false) => return Err(expected.into()),
        };
        let (host, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let mut address = Address::named(host).map_err(|_| expected.to_string())?;
        if address.port.is_empty() {
            address.port = "80".into();
        }
        Ok(Check::Http { address, path, expect: (200, 399) })
    }

    /// From a port, or `host:port`.
    pub fn tcp(text: &str) -> Result<Check, String> {
        let named = if text.contains(':') { text.to_string() } else { format!(":{text}") };
        let address = Address::named(&named)
            .map_err(|_| "a port, or an address such as \"127.0.0.1:80\"".to_string())?;
        Ok(Check::Tcp { address })
    }

    /// As it is declared: a path or a URL, a port or an address, a command.
    pub fn declared(&self) -> String {
        match self {
            Check::Http { address, path, .. } if *address == Address::default() => path.clone(),
            Check::Http { address, path, .. } => format!("http://{}{path}", address.text()),
            Check::Tcp { address } => address.text(),
            Check::Exec { command } => command.lossy().into_owned(),
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        match self {
            Check::Http { address, path, .. } if *address == Address::default() => format!("GET {path}"),
            Check::Http { address, path, .. } => format!("GET http://{}{path}", address.text()),
            Check::Tcp { address } => format!("tcp {}", address.text()),
            Check::Exec { command } => command.lossy().into_owned(),
        }
    }
}

impl Address {
    fn named(text: &str) -> Result<Address, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("no ]")?;
                (host, port.strip_prefix(':').unwrap_or(""))
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        // The daemon asks no name server.
        let ip = match host {
            "" | "localhost" => None,
            host => Some(host.parse().map_err(|_| format!("{host:?} is not an address"))?),
        };
        let address = Address { ip, port: port.into() };
        address.check().map(|()| address)
    }

    fn check(&self) -> Result<(), String> {
        if self.port.is_empty() || self.at(0).is_some_and(|addr| addr.port() != 0) {
            Ok(())
        } else {
            Err(format!("{:?} is not a port", self.port))
        }
    }

    /// Where that is, for the child with this place among its instances. `None`: no port is named.
    pub fn at(&self, instance: u32) -> Option<SocketAddr> {
        let ip = self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let port = self.port.replace("{instance}", &instance.to_string()).parse().ok()?;
        Some(SocketAddr::new(ip, port))
    }

    fn text(&self) -> String {
        let port = &self.port;
        match self.ip {
            None if port.is_empty() => "the port it shares".to_string(),
            None => format!("localhost:{port}"),
            Some(IpAddr::V4(ip)) => format!("{ip}:{port}"),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_read_as_it_is_written() {
        for (text, expected) in [
            ("/health?x=1", Ok("GET /health?x=1")),
            ("http://localhost:80", Ok("GET http://localhost:80/")),
            ("http://127.0.0.1/x", Ok("GET http://127.0.0.1:80/x")),
            ("http://[::1]:8080/x", Ok("GET http://[::1]:8080/x")),
            ("http://127.0.0.1:300{instance}/", Ok("GET http://127.0.0.1:300{instance}/")),
            ("http://example.com/", Err("a path")),
            ("https://localhost/", Err("a path such as \"/health\"")),
            ("http://127.0.0.1:0/", Err("a path")),
            ("health", Err("a path")),
            ("", Err("a path")),
        ] {
            match (Check::http(text), expected) {
                (Ok(check), Ok(expected)) => assert_eq!(check.text(), expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        for (text, expected) in [
            ("3000", Some("tcp localhost:3000")),
            ("[::1]:3000", Some("tcp [::1]:3000")),
            ("127.0.0.1:3000", Some("tcp 127.0.0.1:3000")),
            ("70000", None),
            ("x", None),
            ("", Some("tcp the port it shares")),
        ] {
            assert_eq!(Check::tcp(text).ok().map(|check| check.text()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_instance_has_a_port_of_its_own() {
        let Ok(Check::Tcp { address }) = Check::tcp("300{instance}") else { panic!() };
        assert_eq!(address.at(7).map(|addr| addr.port()), Some(3007));
        assert_eq!(Address::default().at(7), None);
    }

    #[test]
    fn what_can_never_pass_is_refused() {
        let http =
            |path: &str, expect| Check::Http { address: Address::default(), path: path.into(), expect };
        let refused = [
            Health { retries: 0, ..Health::default() },
            Health { timeout: Millis(0), ..Health::default() },
            Health { check: http("/a b", (200, 399)), ..Health::default() },
            Health { check: http("/a\r\nX: y", (200, 399)), ..Health::default() },
            Health { check: http("/", (300, 200)), ..Health::default() },
            Health { check: Check::Exec { command: Text::from("") }, ..Health::default() },
        ];
        for health in refused {
            assert!(health.check().is_err(), "{health:?}");
        }
        assert_eq!(Health::default().check(), Ok(()));
    }
}
