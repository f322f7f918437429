//! Node's wire formats: the IPC channel and the cluster messages on it, as measured over Node 12 to 26,
//! and the script that every managed Node process preloads. Bytes to values and back; no fd here.
//!
//! One JSON value per line. Objects whose `cmd` starts with `NODE_` are between the runtimes; everything else
//! is the app's own message.

mod message;
mod query;
mod said;

pub use message::{FromWorker, parse};
pub use query::{Family, Place, Query};
pub use said::{Said, said};

use serde_json::{Value, json};

/// Loaded by `NODE_OPTIONS=--require` in every Node process of a managed app. It is idle until its
/// markers are in the environment, and does what Node cannot: join the cluster at the first
/// `listen`, hold the accepts of a reload's candidate, drain keep-alive connections.
pub const PRELOAD: &str = include_str!("preload.cjs");

/// The fd of the channel in a child that is `node` itself. libuv closes fds 3..15 on exec, so it does
/// not leak into what the app starts.
pub const CHANNEL_FD: i32 = 3;

/// The fd of the channel in a launcher (npm, a shell): above what libuv closes, so that it reaches
/// the Node process at the end of the chain.
pub const LAUNCHER_CHANNEL_FD: i32 = 100;

/// Longest message taken from a worker.
pub const MESSAGE_LIMIT: usize = 16 << 20;

/// A line for a worker. With `Some(kind)` exactly one fd must ride on it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToWorker {
    /// The JSON and its newline.
    pub line: Vec<u8>,
}

/// The two kinds of handles that a primary passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// TCP or unix stream, listening or connected.
    Stream,
    /// UDP.
    Datagram,
}

fn line(value: &Value) -> ToWorker {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    ToWorker { line }
}

fn with_handle(kind: Handle, message: Value) -> ToWorker {
    let kind = match kind {
        Handle::Stream => "net.Native",
        Handle::Datagram => "dgram.Native",
    };
    line(&json!({"cmd": "NODE_HANDLE", "type": kind, "msg": message}))
}

/// The answer to `queryServer` with the listening socket itself; the fd rides on it.
pub fn shared_handle(kind: Handle, ack: u64, key: &str, data: &Value) -> ToWorker {
    with_handle(kind, json!({"cmd": "NODE_CLUSTER", "errno": 0, "key": key, "ack": ack, "data": data}))
}

/// The answer to `queryServer` when connections will be handed over one by one. `address` is absent for
/// unix paths.
pub fn faux_handle(ack: u64, key: &str, data: &Value, address: Option<std::net::SocketAddr>) -> ToWorker {
    let mut message = json!({"cmd": "NODE_CLUSTER", "errno": null, "key": key, "ack": ack, "data": data});
    if let Some(address) = address {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        message["sockname"] =
            json!({"address": address.ip().to_string(), "family": family, "port": address.port()});
    }
    line(&message)
}

/// The answer to `queryServer` that the address cannot be had; `errno` is positive here, negative on the wire.
pub fn listen_error(ack: u64, key: &str, data: &Value, errno: i32) -> ToWorker {
    line(&json!({"cmd": "NODE_CLUSTER", "errno": -errno, "key": key, "ack": ack, "data": data}))
}

/// A connection for the server `key`; the fd rides on it. The worker answers with `ack: seq`.
pub fn new_connection(key: &str, seq: u64) -> ToWorker {
    // By hand: this is written for every connection.
    let key = Value::from(key);
    let line = format!(
        concat!(
            r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":"#,
            r#"{{"cmd":"NODE_CLUSTER","act":"newconn","key":{},"seq":{}}}}}"#,
            "\n"
        ),
        key, seq
    );
    ToWorker { line: line.into_bytes() }
}

/// Close all servers, finish their connections, then close the channel.
pub fn disconnect(seq: u64) -> ToWorker {
    line(&json!({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": seq}))
}

/// The answer to `exitedAfterDisconnect`, without which the worker hangs.
pub fn ack(seq: u64) -> ToWorker {
    line(&json!({"cmd": "NODE_CLUSTER", "ack": seq}))
}

/// The answer to a handle that an app sent. Never send it unasked: the worker dies of it.
pub fn handle_ack() -> ToWorker {
    line(&json!({"cmd": "NODE_HANDLE_ACK"}))
}

/// A message to the app itself.
pub fn to_app(message: &Value) -> ToWorker {
    line(message)
}

/// To the preload: answer the next request on each kept-alive connection with `Connection: close`,
/// and close what is still idle after `grace` milliseconds.
pub fn drain(grace: u64) -> ToWorker {
    line(&json!({"cmd": "NODE_PMX", "act": "drain", "grace": grace}))
}

/// pm2's request to end.
pub fn shutdown() -> ToWorker {
    line(&Value::from("shutdown"))
}

/// To the preload of a candidate: begin to accept.
pub fn go() -> ToWorker {
    line(&json!({"cmd": "NODE_PMX", "act": "go"}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_one_line_each() {
        let address = Some("127.0.0.1:80".parse().unwrap());
        let data = json!({"ticketKeys": "a\nb"});
        for message in [
            shared_handle(Handle::Stream, 1, "k", &data),
            shared_handle(Handle::Datagram, 1, "k", &data),
            faux_handle(1, "k", &Value::Null, address),
            listen_error(1, "k", &Value::Null, 98),
            new_connection("k", 9),
            disconnect(3),
            ack(3),
            handle_ack(),
            drain(5),
            go(),
            shutdown(),
        ] {
            let newlines = message.line.iter().filter(|b| **b == b'\n').count();
            assert_eq!((newlines, message.line.last()), (1, Some(&b'\n')));
        }
    }

    #[test]
    fn a_connection_is_announced_as_json() {
        let line = new_connection("a\"b\n:0", 9).line;
        let expected = json!({"cmd": "NODE_HANDLE", "type": "net.Native",
            "msg": {"cmd": "NODE_CLUSTER", "act": "newconn", "key": "a\"b\n:0", "seq": 9}});
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn errors_are_negative_on_the_wire() {
        let text = String::from_utf8(listen_error(7, "k", &Value::Null, 98).line).unwrap();
        assert!(text.contains(r#""errno":-98"#), "{text}");
    }
}
