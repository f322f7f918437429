//! The `filter_env` of a declaration.

use serde_json::{Value, json};

use super::is_effective;
use super::kind;
use crate::app::Filter;

/// Its JSON Schema.
pub const SCHEMA: &str =
    r#"{"type": ["boolean", "string", "array"], "items": {"type": "string", "minLength": 1}}"#;

/// Reads it. A string is a name, as in pm2; an array has beginnings of names. The error is empty.
pub fn read(value: &Value) -> Result<Filter, String> {
    let mut filter = Filter::None;
    match value {
        value if !is_effective(value) => {}
        Value::Bool(_) => filter = Filter::All,
        Value::Array(values) => {
            for value in values {
                filter.add(&kind::text(value)?);
            }
        }
        value => filter = Filter::Named(vec![kind::text(value)?]),
    }
    Ok(filter)
}

/// As it would be declared.
pub fn written(filter: &Filter) -> Value {
    match filter {
        Filter::None => json!([]),
        Filter::All => json!(true),
        // One that is a name would become a beginning in an array.
        Filter::Named(patterns) => match &patterns[..] {
            [one] if !one.contains('*') => json!(one),
            patterns => json!(patterns),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for (value, name, passes) in [
            (json!([]), "A", true),
            (json!(true), "A", false),
            (json!("SECRET"), "SECRET_KEY", true),
            (json!("SECRET"), "SECRET", false),
            (json!(["SECRET*", "*_KEY"]), "API_KEY", false),
        ] {
            let filter = read(&value).unwrap();
            assert_eq!((filter.passes(name), written(&filter)), (passes, value.clone()), "{value}");
        }
        assert!(read(&json!(false)).unwrap().passes("A"));
        assert!(!read(&json!(["SECRET"])).unwrap().passes("SECRET_KEY"));
        for value in [json!([1]), json!({"a": 1}), json!([""]), json!(3)] {
            assert!(read(&value).is_err(), "{value}");
        }
    }
}
