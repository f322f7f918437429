//! The `health` of a declaration: an object with one check and its numbers.

use serde_json::{Map, Value, json};

use super::kind;
use crate::app::Text;
use crate::app::health::{Address, Check, Health, OnFail};
use crate::time::Millis;

/// Its JSON Schema.
pub const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "http": {"type": "string", "pattern": "^(/|http://)"},
        "tcp": {"type": ["integer", "string", "boolean"]},
        "exec": {"type": "string", "minLength": 1},
        "expect": {"type": ["integer", "string"]},
        "interval": {"type": ["integer", "string"]},
        "timeout": {"type": ["integer", "string"]},
        "retries": {"type": ["integer", "string"]},
        "start_period": {"type": ["integer", "string"]},
        "on_fail": {"enum": ["reload", "restart", "none"]}
    },
    "oneOf": [{"required": ["http"]}, {"required": ["tcp"]}, {"required": ["exec"]}]
}"#;

/// Reads it. The error is what is wrong, or empty if it is none at all.
pub fn read(value: &Value) -> Result<Health, String> {
    let Value::Object(map) = value else { return Err(String::new()) };
    let mut health = Health { check: check(map)?, ..Health::default() };
    for (key, value) in map {
        let said = match key.as_str() {
            "http" | "tcp" | "exec" => Ok(()),
            "expect" => expect(value, &mut health.check),
            "interval" => millis(value).map(|interval| health.interval = interval),
            "timeout" => millis(value).map(|timeout| health.timeout = timeout),
            "retries" => kind::number(value)
                .map(|retries| health.retries = retries)
                .map_err(|_| "a number".to_string()),
            "start_period" | "startPeriod" => millis(value).map(|period| health.start_period = period),
            "on_fail" | "onFail" => on_fail(value).map(|on_fail| health.on_fail = on_fail),
            _ => {
                return Err(format!(
                    "http, tcp or exec, expect, interval, timeout, retries, start_period, on_fail, not {key:?}"
                ));
            }
        };
        said.map_err(|expected| format!("{key}: {expected}"))?;
    }
    health.check().map(|()| health)
}

fn check(map: &Map<String, Value>) -> Result<Check, String> {
    let kinds = ["http", "tcp", "exec"].map(|kind| Some((kind, map.get(kind)?)));
    let mut kinds = kinds.into_iter().flatten();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else { return Err(String::new()) };
    let check = match kind {
        "http" => kind::text(value).and_then(|text| Check::http(&text)),
        // The port that it shares.
        "tcp" if *value == Value::Bool(true) => Ok(Check::Tcp { address: Address::default() }),
        "tcp" => kind::scalar(value).and_then(|text| Check::tcp(&text)),
        _ => kind::text(value).map(|text| Check::Exec { command: Text::from(text) }),
    };
    check.map_err(|why| match (kind, why.as_str()) {
        ("http", "") => "http: a path or a URL".to_string(),
        ("tcp", "") => "tcp: a port".to_string(),
        (_, "") => "exec: a command".to_string(),
        (kind, why) => format!("{kind}: {why}"),
    })
}

fn millis(value: &Value) -> Result<Millis, String> {
    kind::length(value).map_err(|_| "milliseconds, or a length of time such as \"10s\"".to_string())
}

/// `200`, `"200-299"`.
fn expect(value: &Value, check: &mut Check) -> Result<(), String> {
    let expected = "a status of HTTP or a range of them such as \"200-299\"";
    let Check::Http { expect, .. } = check else { return Err("only http has a status".to_string()) };
    let range = kind::scalar(value).map_err(|_| expected)?;
    let (from, to) = range.split_once('-').unwrap_or((&range, &range));
    let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
    let (Some(from), Some(to)) = (status(from), status(to)) else { return Err(expected.to_string()) };
    *expect = (from, to);
    Ok(())
}

fn on_fail(value: &Value) -> Result<OnFail, String> {
    let named = value.as_str().and_then(OnFail::named);
    named.ok_or_else(|| "\"reload\", \"restart\" or \"none\"".to_string())
}

/// As it would be declared.
pub fn written(health: &Health) -> Value {
    let mut value = match &health.check {
        Check::Http { expect, .. } => {
            json!({"http": health.check.declared(), "expect": format!("{}-{}", expect.0, expect.1)})
        }
        Check::Tcp { address } if *address == Address::default() => json!({"tcp": true}),
        Check::Tcp { .. } => json!({"tcp": health.check.declared()}),
        Check::Exec { .. } => json!({"exec": health.check.declared()}),
    };
    value["interval"] = health.interval.0.into();
    value["timeout"] = health.timeout.0.into();
    value["retries"] = health.retries.into();
    value["start_period"] = health.start_period.0.into();
    value["on_fail"] = health.on_fail.word().into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_and_nonsense_is_refused() {
        let found = read(&json!({
            "http": "/up", "expect": "200-204", "interval": "2s", "timeout": 100, "retries": "2",
            "start_period": 0, "on_fail": "none",
        }))
        .unwrap();
        let expected = Health {
            check: Check::Http { address: Address::default(), path: "/up".into(), expect: (200, 204) },
            interval: Millis(2_000),
            timeout: Millis(100),
            retries: 2,
            start_period: Millis(0),
            on_fail: OnFail::None,
            ..Health::default()
        };
        assert_eq!(found, expected);
        for (value, reason) in [
            (json!("/up"), ""),
            (json!({}), ""),
            (json!({"http": "/", "tcp": 1}), ""),
            (json!({"http": "/", "retry": 1}), "start_period, on_fail, not \"retry\""),
            (json!({"http": "up"}), "http: a path"),
            (json!({"tcp": 0}), "tcp: a port"),
            (json!({"tcp": 80, "expect": 200}), "expect: only http"),
            (json!({"http": "/", "expect": "20"}), "expect: a status"),
            (json!({"http": "/", "interval": "soon"}), "interval: milliseconds"),
            (json!({"http": "/", "on_fail": "pray"}), "on_fail: \"reload\""),
            (json!({"http": "/", "retries": 0}), "at least 1"),
            (json!({"exec": ""}), "exec: a command"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
        for value in [
            json!({"tcp": true}),
            json!({"tcp": "[::1]:300{instance}"}),
            json!({"http": "http://127.0.0.1:80/x", "on_fail": "restart"}),
            json!({"http": "/x"}),
            json!({"exec": "a 'b c'"}),
        ] {
            let health = read(&value).unwrap();
            assert_eq!(read(&written(&health)), Ok(health), "{value}");
        }
    }
}
