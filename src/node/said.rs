//! What an app says to its process manager: pm2's axm messages, and messages for the bus. Everything else is
//! for whoever listens to this app.

use serde_json::{Map, Value};

/// A message of an app, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It can be told to do this.
    Action(Value),
    /// Its metrics.
    Monitor(Map<String, Value>),
    /// How its library is set.
    Options(Map<String, Value>),
    /// It wants messages whose topics these patterns cover.
    Subscribe(Vec<String>),
    /// It wants them no more.
    Unsubscribe(Vec<String>),
    /// For whoever subscribed to the topic.
    Publish {
        /// Under what.
        topic: String,
        /// What.
        data: Value,
    },
    /// Something of its own.
    Other,
}

/// What a message of an app means to us.
pub fn said(message: &Value) -> Said {
    let (Some(kind), Some(data)) = (message.get("type").and_then(Value::as_str), message.get("data")) else {
        return Said::Other;
    };
    let topics = || match data.get("topics").unwrap_or(data) {
        Value::String(topic) => vec![topic.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(String::from).collect(),
        _ => Vec::new(),
    };
    match (kind, data) {
        ("axm:action", _) => Said::Action(data.clone()),
        ("axm:monitor", Value::Object(metrics)) => Said::Monitor(metrics.clone()),
        ("axm:option:configuration", Value::Object(options)) => Said::Options(options.clone()),
        ("axm:option:setPID", _) => Said::Options(Map::new()),
        ("pmx:subscribe", _) => Said::Subscribe(topics()),
        ("pmx:unsubscribe", _) => Said::Unsubscribe(topics()),
        ("process:msg", _) => match message.get("topic").and_then(Value::as_str) {
            Some(topic) => Said::Publish { topic: topic.to_string(), data: data.clone() },
            None => Said::Other,
        },
        // What an app calls otherwise can be listened to by that name.
        (kind, _) if !kind.starts_with("axm:") => {
            Said::Publish { topic: kind.to_string(), data: data.clone() }
        }
        _ => Said::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_told_apart() {
        let of = |message: Value| said(&message);
        assert_eq!(
            of(json!({"type": "axm:action", "data": {"action_name": "x"}})),
            Said::Action(json!({"action_name": "x"}))
        );
        assert!(matches!(of(json!({"type": "axm:monitor", "data": {"a": 1}})), Said::Monitor(_)));
        assert_eq!(of(json!({"type": "axm:monitor", "data": 1})), Said::Other);
        assert_eq!(of(json!({"type": "axm:reply", "data": {}})), Said::Other);
        assert_eq!(
            of(json!({"type": "process:msg", "topic": "a.b", "data": 1})),
            Said::Publish { topic: "a.b".into(), data: json!(1) }
        );
        assert_eq!(of(json!({"type": "process:msg", "data": 1})), Said::Other);
        assert_eq!(
            of(json!({"type": "pmx:subscribe", "data": {"topics": ["a", 1]}})),
            Said::Subscribe(vec!["a".into()])
        );
        assert_eq!(of(json!({"type": "pmx:unsubscribe", "data": "a"})), Said::Unsubscribe(vec!["a".into()]));
        assert_eq!(of(json!("ready")), Said::Other);
    }
}
