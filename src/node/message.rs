//! What workers send. Every line is hostile: an app can write what it likes on its channel.

use serde_json::Value;

use super::query::Query;

/// One line of a worker, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// The worker's runtime is up.
    Online,
    /// A server wants to listen; to be answered with `ack: seq`.
    QueryServer {
        /// To be repeated in the answer.
        seq: u64,
        /// Where.
        query: Box<Query>,
    },
    /// A server listens.
    Listening,
    /// A server was closed.
    Close {
        /// Its key.
        key: String,
    },
    /// The worker leaves on its own account; to be answered with `ack: seq`.
    ExitedAfterDisconnect {
        /// To be repeated in the answer.
        seq: u64,
    },
    /// A connection arrived.
    Ack {
        /// The `seq` it was sent with.
        seq: u64,
        /// False: give it to another.
        accepted: bool,
    },
    /// The app sent a handle, which rides on this line; to be answered with a handle ack.
    AppHandle,
    /// The preload is there.
    Hello {
        /// The pid of the process that serves, which in a launcher is not the child itself.
        pid: u32,
        /// It holds its accepts until told to go.
        holds: bool,
        /// `process.version`.
        node: String,
    },
    /// All connections are finished.
    Drained,
    /// The app sent `"ready"`.
    Ready,
    /// The app sent something else.
    App(Value),
    /// Between the runtimes, and of no concern.
    Ignored,
}

/// Understands one line. `None`: it is not JSON.
pub fn parse(line: &[u8]) -> Option<FromWorker> {
    if let Some(message) = acknowledgement(line) {
        return Some(message);
    }
    // Bun marks its internal lines with this byte.
    let line = line.strip_prefix(b"\x02").unwrap_or(line);
    let value: Value = serde_json::from_slice(line).ok()?;
    if value.as_str() == Some("ready") {
        return Some(FromWorker::Ready);
    }
    let message = match value.get("cmd").and_then(Value::as_str) {
        Some("NODE_CLUSTER") => cluster(&value),
        Some("NODE_PMX") => preload(&value),
        Some("NODE_HANDLE") => FromWorker::AppHandle,
        Some(cmd) if cmd.len() > 5 && cmd.starts_with("NODE_") => FromWorker::Ignored,
        _ => FromWorker::App(value),
    };
    Some(message)
}

/// The two lines that come for every connection, in the very form in which Node writes them.
fn acknowledgement(line: &[u8]) -> Option<FromWorker> {
    if line == br#"{"cmd":"NODE_HANDLE_ACK"}"# {
        return Some(FromWorker::Ignored);
    }
    let rest = line.strip_prefix(br#"{"cmd":"NODE_CLUSTER","ack":"#)?;
    let (seq, rest) = number(rest)?;
    let rest = rest.strip_prefix(br#","accepted":"#)?;
    let (accepted, rest) = match rest.strip_prefix(b"true") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b"false")?),
    };
    let (_, rest) = number(rest.strip_prefix(br#","seq":"#)?)?;
    (rest == b"}").then_some(FromWorker::Ack { seq, accepted })
}

/// The digits at the start, and what follows them.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

fn cluster(message: &Value) -> FromWorker {
    let seq = message.get("seq").and_then(Value::as_u64);
    if let Some(ack) = message.get("ack").and_then(Value::as_u64) {
        let accepted = message.get("accepted").and_then(Value::as_bool).unwrap_or(false);
        return FromWorker::Ack { seq: ack, accepted };
    }
    match (message.get("act").and_then(Value::as_str), seq) {
        (Some("online"), _) => FromWorker::Online,
        (Some("queryServer"), Some(seq)) => match Query::from_message(message) {
            Some(query) => FromWorker::QueryServer { seq, query: Box::new(query) },
            None => FromWorker::Ignored,
        },
        (Some("listening"), _) => FromWorker::Listening,
        (Some("close"), _) => match message.get("key").and_then(Value::as_str) {
            Some(key) => FromWorker::Close { key: key.to_string() },
            None => FromWorker::Ignored,
        },
        (Some("exitedAfterDisconnect" | "suicide"), Some(seq)) => FromWorker::ExitedAfterDisconnect { seq },
        _ => FromWorker::Ignored,
    }
}

fn preload(message: &Value) -> FromWorker {
    match message.get("act").and_then(Value::as_str) {
        Some("hello") => FromWorker::Hello {
            pid: message.get("pid").and_then(Value::as_u64).and_then(|p| p.try_into().ok()).unwrap_or(0),
            holds: message.get("hold").and_then(Value::as_bool).unwrap_or(false),
            node: message.get("node").and_then(Value::as_str).unwrap_or_default().to_string(),
        },
        Some("drained") => FromWorker::Drained,
        _ => FromWorker::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let parse = |text: &str| parse(text.as_bytes());
        assert_eq!(parse(r#""ready""#), Some(FromWorker::Ready));
        assert_eq!(parse("42"), Some(FromWorker::App(42.into())));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse(r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#), Some(FromWorker::Online));
        assert_eq!(parse("\u{2}{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}"), Some(FromWorker::Online));
        assert_eq!(
            parse(r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":9}"#),
            Some(FromWorker::Ack { seq: 4, accepted: true })
        );
        assert_eq!(parse(r#"{"cmd":"NODE_HANDLE_ACK"}"#), Some(FromWorker::Ignored));
        assert_eq!(
            parse(r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}"#),
            Some(FromWorker::AppHandle)
        );
        assert_eq!(parse(r#"{"cmd":"mine"}"#), Some(FromWorker::App(serde_json::json!({"cmd":"mine"}))));
        assert_eq!(
            parse(r#"{"cmd":"NODE_PMX","act":"hello","hold":true,"pid":7,"node":"v20.1.0"}"#),
            Some(FromWorker::Hello { pid: 7, holds: true, node: "v20.1.0".into() })
        );
    }

    #[test]
    fn acknowledgements_mean_the_same_in_every_form() {
        for (text, expected) in [
            (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":9}"#, Some((4, true))),
            (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":false,"seq":9}"#, Some((4, false))),
            (r#"{"cmd":"NODE_CLUSTER","ack": 4,"accepted":true,"seq":9}"#, Some((4, true))),
            (r#"{"accepted":true,"seq":9,"ack":4,"cmd":"NODE_CLUSTER"}"#, Some((4, true))),
            (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":9,"x":1}"#, Some((4, true))),
            (r#"{"cmd":"NODE_CLUSTER","ack":,"accepted":true,"seq":9}"#, None),
            (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":9"#, None),
            (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":}"#, None),
        ] {
            let expected = expected.map(|(seq, accepted)| FromWorker::Ack { seq, accepted });
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(acknowledgement(br#"{"cmd":"NODE_CLUSTER","ack":99999999999999999999,"accepted""#), None);
    }

    #[test]
    fn forged_cluster_messages_are_ignored() {
        for text in [
            r#"{"cmd":"NODE_CLUSTER"}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer"}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"port":"x"}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":5}"#,
            r#"{"cmd":"NODE_CLUSTER","act":["online"]}"#,
            r#"{"cmd":"NODE_PMX","act":"go"}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Some(FromWorker::Ignored), "{text}");
        }
    }
}
