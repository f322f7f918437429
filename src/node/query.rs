//! Where a worker wants to listen: Node's `queryServer` fields and what they mean.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One `queryServer`.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What Node's own primary would name the listener; unique within an app.
    pub key: String,
    /// What is to be bound.
    pub place: Place,
    /// Anything the first worker of a key sends and all others must get (TLS ticket keys).
    pub data: Value,
    /// The length of the accept queue that the app asked for.
    pub backlog: Option<u32>,
}

/// What is to be bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Place {
    /// A TCP port. `ip` `None`: any address, both families where the system has both.
    Tcp {
        /// The address.
        ip: Option<IpAddr>,
        /// The port; 0: any free one, the same for all workers.
        port: u16,
        /// For IPv6: not IPv4 as well.
        v6only: bool,
    },
    /// A unix socket.
    Unix {
        /// Its path.
        path: String,
        /// Everybody may read.
        readable_all: bool,
        /// Everybody may write.
        writable_all: bool,
    },
    /// A UDP port.
    Udp {
        /// The address; `None`: any of the family.
        ip: Option<IpAddr>,
        /// The family.
        family: Family,
        /// The port; 0: any free one.
        port: u16,
        /// For IPv6: not IPv4 as well.
        v6only: bool,
        /// SO_REUSEADDR, as the app asked.
        reuse_addr: bool,
    },
    /// A descriptor of the primary, or an address we cannot read: never to be had.
    Unavailable,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (kind, ip, port) = match self {
            Place::Tcp { ip, port, .. } => ("tcp", ip, port),
            Place::Udp { ip, port, .. } => ("udp", ip, port),
            Place::Unix { path, .. } => return write!(f, "unix {path}"),
            Place::Unavailable => return f.write_str("an address that is not to be had"),
        };
        match ip {
            Some(ip) => write!(f, "{kind} {}", SocketAddr::new(*ip, *port)),
            None => write!(f, "{kind} port {port}"),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// libuv's `UV_TCP_IPV6ONLY` and `UV_UDP_IPV6ONLY`.
const IPV6_ONLY: u64 = 1;
/// libuv's `UV_UDP_REUSEADDR`.
const UDP_REUSE_ADDR: u64 = 4;

impl Query {
    /// Reads the fields of a `queryServer` message; `None` if they make no sense.
    pub fn from_message(message: &Value) -> Option<Query> {
        let field = |name: &str| message.get(name).filter(|value| !value.is_null());
        let address = match field("address") {
            None => None,
            Some(value) => Some(value.as_str()?),
        };
        let port = match field("port") {
            None => None,
            Some(value) => Some(value.as_i64()?),
        };
        let kind = field("addressType");
        let flags = field("flags").and_then(Value::as_u64).unwrap_or(0);
        let flag = |name: &str| field(name).and_then(Value::as_bool).unwrap_or(false);
        let word = |value: Option<&Value>| value.map_or("null".to_string(), plain);
        // The key of Node's primary (lib/internal/cluster/primary.js): the index only counts for port 0.
        let mut key = format!(
            "{}:{}:{}:{}",
            word(field("address")),
            word(field("port")),
            word(kind),
            word(field("fd"))
        );
        let index = field("index").and_then(Value::as_u64).unwrap_or(0);
        if port == Some(0) {
            key = format!("{key}:{index}");
        }
        let data = message.get("data").cloned().unwrap_or(Value::Null);
        let backlog = field("backlog")
            .and_then(Value::as_u64)
            .filter(|n| *n > 0)
            .map(|n| n.min(u32::MAX as u64) as u32);

        let place = match (kind, port) {
            (Some(Value::String(udp)), Some(port)) => {
                let family = match udp.as_str() {
                    "udp4" => Family::V4,
                    "udp6" => Family::V6,
                    _ => return None,
                };
                let ip = match address.map(str::parse) {
                    None => None,
                    Some(Ok(ip)) => Some(ip),
                    Some(Err(_)) => return Some(Query { key, place: Place::Unavailable, data, backlog }),
                };
                Place::Udp {
                    ip,
                    family,
                    port: port.try_into().ok()?,
                    v6only: flags & IPV6_ONLY != 0,
                    reuse_addr: flags & UDP_REUSE_ADDR != 0,
                }
            }
            (Some(kind), Some(-1)) if kind.as_i64() == Some(-1) => Place::Unix {
                path: address?.to_string(),
                readable_all: flag("readableAll"),
                writable_all: flag("writableAll"),
            },
            (_, Some(port)) => match (address.map(str::parse), u16::try_from(port)) {
                (None, Ok(port)) => Place::Tcp { ip: None, port, v6only: flags & IPV6_ONLY != 0 },
                (Some(Ok(ip)), Ok(port)) => Place::Tcp { ip: Some(ip), port, v6only: flags & IPV6_ONLY != 0 },
                _ => Place::Unavailable,
            },
            (_, None) => Place::Unavailable,
        };
        Some(Query { key, place, data, backlog })
    }
}

/// A value as JavaScript prints it within a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(fields: Value) -> Query {
        Query::from_message(&fields).unwrap()
    }

    #[test]
    fn the_places_of_node_are_understood() {
        let any = query(json!({"index":0,"data":null,"address":null,"port":3000,"addressType":4,"fd":null}));
        assert_eq!(any.key, "null:3000:4:null");
        assert_eq!(any.place, Place::Tcp { ip: None, port: 3000, v6only: false });

        let v6 = query(json!({"address":"::1","port":0,"addressType":6,"index":2,"flags":1,"backlog":600}));
        assert_eq!(v6.key, "::1:0:6:null:2");
        let ip = Some("::1".parse().unwrap());
        assert_eq!(v6.place, Place::Tcp { ip, port: 0, v6only: true });
        assert_eq!(v6.backlog, Some(600));

        let unix = query(json!({"address":"/tmp/x","port":-1,"addressType":-1,"readableAll":true}));
        let path = "/tmp/x".to_string();
        assert_eq!(unix.place, Place::Unix { path, readable_all: true, writable_all: false });

        let udp = query(json!({"address":null,"port":53,"addressType":"udp4","fd":-1,"flags":4}));
        let expected = Place::Udp { ip: None, family: Family::V4, port: 53, v6only: false, reuse_addr: true };
        assert_eq!(udp.place, expected);
    }

    #[test]
    fn what_cannot_be_bound_is_said_to_be_so() {
        for fields in [
            json!({"address":null,"port":null,"addressType":null,"fd":7}),
            json!({"address":"no-ip","port":80,"addressType":4}),
            json!({"address":null,"port":70000,"addressType":4}),
        ] {
            assert_eq!(query(fields).place, Place::Unavailable);
        }
        for nonsense in [json!({"address":5,"port":1}), json!({"address":null,"port":"80"})] {
            assert_eq!(Query::from_message(&nonsense), None, "{nonsense}");
        }
    }
}
