//! The format as a JSON Schema, from the table of fields.

use serde_json::{Map, Value, json};

use super::fields::{FIELDS, camel};
use super::kind::Kind;

/// The whole of it.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Apps for pmx",
        "$defs": {
            "app": app(),
            "apps": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/app" } },
            "variables": { "type": ["object", "null"] },
            "deploy": { "type": ["object", "null"], "additionalProperties": super::deploy::schema() },
            "static": super::site::schema(),
        },
        "anyOf": [
            { "$ref": "#/$defs/apps" }, holder("apps"), holder("pm2"), { "$ref": "#/$defs/app" },
            { "type": "object", "required": ["static"], "properties": { "static": { "$ref": "#/$defs/static" } } },
        ],
    })
}

/// An object that has its apps under `key`.
fn holder(key: &str) -> Value {
    let apps = json!({ "anyOf": [{ "$ref": "#/$defs/apps" }, { "$ref": "#/$defs/app" }] });
    let of = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let properties = json!({ key: apps, "deploy": of("deploy"), "static": of("static") });
    json!({ "type": "object", "required": [key], "properties": properties })
}

fn app() -> Value {
    let mut properties = Map::new();
    for field in FIELDS {
        let [first, others @ ..] = field.names else { continue };
        let mut schema = match field.kind {
            Kind::Ignored | Kind::Foreign => json!({}),
            // A null says nothing.
            kind => json!({ "anyOf": [kind.schema(), { "type": "null" }] }),
        };
        schema["description"] = field.about.into();
        if let Ok(default) = serde_json::from_str::<Value>(field.default) {
            schema["default"] = default;
        }
        properties.insert(first.to_string(), schema);
        let same = json!({ "$ref": format!("#/$defs/app/properties/{first}") });
        let spellings =
            others.iter().map(|name| name.to_string()).chain(field.names.iter().map(|name| camel(name)));
        for spelling in spellings {
            properties.entry(spelling).or_insert_with(|| same.clone());
        }
    }
    let of_script =
        FIELDS.iter().find(|field| field.names[0] == "script").map_or(&[][..], |field| field.names);
    let overlays: Vec<&str> = properties.keys().filter_map(|name| name.strip_prefix("env_")).collect();
    let overlay = format!("^env_(?!({})$).", overlays.join("|"));
    json!({
        "type": "object",
        "anyOf": of_script.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>(),
        "patternProperties": { overlay: { "$ref": "#/$defs/variables" } },
        // Those become environment variables.
        "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
        "properties": properties,
    })
}

#[cfg(test)]
pub mod tests {
    use super::super::Document;
    use super::*;

    /// Whether a document is what the schema describes. Only what our schemas use is understood.
    pub fn accepts(value: &Value) -> bool {
        let whole = schema();
        is_valid(&whole, &whole, value)
    }

    fn is_valid(whole: &Value, schema: &Value, value: &Value) -> bool {
        let Value::Object(rules) = schema else { return schema != &Value::Bool(false) };
        rules.iter().all(|(rule, want)| match rule.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" => true,
            "$ref" => {
                let path = want.as_str().unwrap().strip_prefix('#').unwrap();
                is_valid(whole, whole.pointer(path).unwrap_or_else(|| panic!("{want}")), value)
            }
            "anyOf" => want.as_array().unwrap().iter().any(|one| is_valid(whole, one, value)),
            "oneOf" => want.as_array().unwrap().iter().filter(|one| is_valid(whole, one, value)).count() == 1,
            "enum" => want.as_array().unwrap().contains(value),
            "type" => match want {
                Value::Array(types) => types.iter().any(|one| is_of(one.as_str().unwrap(), value)),
                one => is_of(one.as_str().unwrap(), value),
            },
            "minimum" => value.as_f64().is_none_or(|number| number >= want.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= want.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= want.as_u64().unwrap()),
            "minItems" => value.as_array().is_none_or(|all| all.len() as u64 >= want.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|all| all.len() as u64 <= want.as_u64().unwrap()),
            "items" => value.as_array().is_none_or(|all| all.iter().all(|one| is_valid(whole, want, one))),
            "required" => value.as_object().is_none_or(|map| {
                want.as_array().unwrap().iter().all(|name| map.contains_key(name.as_str().unwrap()))
            }),
            "properties" => value.as_object().is_none_or(|map| {
                want.as_object()
                    .unwrap()
                    .iter()
                    .all(|(name, schema)| map.get(name).is_none_or(|value| is_valid(whole, schema, value)))
            }),
            "propertyNames" => value
                .as_object()
                .is_none_or(|map| map.keys().all(|name| is_valid(whole, want, &name.as_str().into()))),
            "patternProperties" => value.as_object().is_none_or(|map| {
                let (_, schema) = want.as_object().unwrap().iter().next().unwrap();
                let own = |name: &str| rules["properties"].get(name).is_some();
                map.iter().all(|(name, value)| {
                    !name.starts_with("env_") || own(name) || is_valid(whole, schema, value)
                })
            }),
            "additionalProperties" => value.as_object().is_none_or(|map| {
                let known = |name: &String| {
                    rules.get("properties").is_some_and(|all| all.get(name).is_some())
                        || rules.contains_key("patternProperties") && name.starts_with("env_")
                };
                map.iter().all(|(name, value)| known(name) || is_valid(whole, want, value))
            }),
            "pattern" => value.as_str().is_none_or(|text| matches(want.as_str().unwrap(), text)),
            other => panic!("{other} is in no schema that was tested"),
        })
    }

    #[cfg(feature = "regex")]
    fn matches(pattern: &str, text: &str) -> bool {
        regex_lite::Regex::new(pattern).unwrap().is_match(text)
    }

    #[cfg(not(feature = "regex"))]
    fn matches(_: &str, _: &str) -> bool {
        true
    }

    fn is_of(kind: &str, value: &Value) -> bool {
        match kind {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{other} is no type"),
        }
    }

    #[test]
    fn it_accepts_what_is_read_and_refuses_what_is_not() {
        for text in [
            include_str!("../../../examples/processes.json"),
            "{script: 'a'}",
            "{apps: {cmd: 'a', maxRestarts: '3', env_file: 'x', env_production: {A: 1}, greeting: 'x'}, deploy: {}}",
            "{pm2: [{exec: 'a', min_uptime: '10s', instances: 'max', watch: ['x'], kill_timeout: null}]}",
            "{script: 'a', health: {http: '/'}, limits: {nofile: 3}, filter_env: true, args: ['x', 1]}",
        ] {
            let document = Document::json(text).unwrap();
            assert!(super::super::read("f", &document).is_ok() && accepts(&document.value), "{text}");
        }
        for text in [
            "3",
            "[]",
            "[3]",
            "{name: 'x'}",
            "{apps: 'x'}",
            "{script: 3}",
            "{script: 'a', maxRestarts: []}",
            "{script: 'a', port: 70000}",
            "{script: 'a', merge_logs: 1}",
            "{script: 'a', exec_mode: 'threads'}",
            "{script: 'a', env: 'A=1'}",
            "{script: 'a', env_production: 3}",
            "{script: 'a', env_file: {}}",
            "{script: 'a', stop_exit_codes: [256]}",
            "{script: 'a', out_file: false}",
            "{script: 'a', nested: {x: 1}}",
            "{script: 'a', health: {}}",
            "{script: 'a', limits: {what: 1}}",
        ] {
            let document = Document::json(text).unwrap();
            assert!(super::super::read("f", &document).is_err() && !accepts(&document.value), "{text}");
        }
    }

    #[test]
    fn every_name_of_every_field_is_in_it() {
        let schema = schema();
        let properties = schema.pointer("/$defs/app/properties").unwrap();
        for name in FIELDS.iter().flat_map(|field| field.names) {
            assert!(properties.get(name).is_some() && properties.get(camel(name)).is_some(), "{name}");
        }
        assert_eq!(properties["kill_timeout"]["default"], 1600);
        assert!(properties["kill_timeout"]["description"].as_str().unwrap().contains("SIGKILL"));
    }
}
