//! The description of the API, made from the table of routes.

use serde_json::{Map, Value, json};

use super::gate::Access;
use super::http::name;
use super::routes::{Kind, Name, ROUTES, Route, body};

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.word().to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pmx",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What runs here, and what to do with it. No answer holds an environment.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let word = format!("{:?}", route.name);
    let mut parameters: Vec<Value> = Vec::new();
    if route.path.contains("{target}") {
        let about = if route.name == Name::Scale {
            "the name of an app"
        } else {
            "all, an id, a name or a namespace"
        };
        let schema = json!({"type": "string", "minLength": 1});
        parameters.push(
            json!({"name": "target", "in": "path", "required": true, "description": about, "schema": schema}),
        );
    }
    for (name, kind, about) in route.query {
        let schema = match *kind {
            "integer" => json!({"type": "integer", "minimum": 1, "maximum": 10_000}),
            "moment" => json!({"type": "string", "anyOf": [
                {"pattern": "^[0-9]{1,6}(s|m|h|d)$"},
                {"pattern": "^(19[7-9][0-9]|20[0-9]{2})-", "format": "date"},
                {"pattern": "^(19[7-9][0-9]|20[0-9]{2})-", "format": "date-time"},
            ]}),
            words if words.contains('|') => {
                json!({"type": "string", "enum": words.split('|').collect::<Vec<_>>()})
            }
            kind => json!({"type": kind}),
        };
        parameters.push(json!({"name": name, "in": "query", "description": about, "schema": schema}));
    }
    let mut operation = json!({
        "operationId": format!("{}{}", word[..1].to_lowercase(), &word[1..]),
        "summary": route.about,
        "parameters": parameters,
        "responses": answers(route),
    });
    operation["security"] = match route.access {
        Access::Anybody => json!([]),
        Access::Local => json!([{}, {"token": []}]),
        Access::Token => json!([{"token": []}]),
    };
    if let Some(schema) = body(route.name) {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn answers(route: &Route) -> Value {
    let of = |schema: &str| json!({"$ref": format!("#/components/schemas/{schema}")});
    let json_of = |schema: Value| json!({"application/json": {"schema": schema}});
    let text = |kind: &str| json!({kind: {"schema": {"type": "string"}}});
    let events =
        json!({"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}});
    let items = match route.name {
        Name::List | Name::Describe => "Process",
        _ => "Event",
    };
    let content = match route.kind {
        Kind::Html => text("text/html"),
        Kind::Css => text("text/css"),
        Kind::JavaScript => text("text/javascript"),
        Kind::OpenMetrics => json!({
            "application/openmetrics-text": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
        }),
        Kind::Events => json!({"text/event-stream": {"schema": events}}),
        Kind::Object if route.name == Name::Past => json_of(of("Past")),
        Kind::Object if route.name == Name::HostPast => json_of(of("HostPast")),
        Kind::Object if route.name == Name::Logs => json_of(of("Lines")),
        Kind::Object => json_of(json!({"type": "object"})),
        Kind::Array => json_of(json!({"type": "array", "items": of(items)})),
        Kind::Outcomes => json!({
            "application/json": {"schema": of("Outcomes")},
            "text/event-stream": {"schema": events},
        }),
        Kind::Front => json!({
            "application/json": {"schema": of("Front")},
            "text/html": {"schema": {"type": "string"}},
        }),
    };
    let mut statuses = vec![400, 403, 404, 408, 411, 413, 421, 431, 505];
    if route.access != Access::Anybody {
        statuses.push(401);
    }
    if route.kind == Kind::Outcomes
        || matches!(route.name, Name::Kill | Name::Update | Name::Publish | Name::Listen)
    {
        statuses.push(409);
    }
    if body(route.name).is_some() {
        statuses.push(415);
    }
    if body(route.name).is_some() || !route.query.is_empty() {
        statuses.push(422);
    }
    if !matches!(route.kind, Kind::Html | Kind::Css | Kind::JavaScript) {
        statuses.push(503);
    }
    let mut answers =
        Map::from_iter([("200".to_string(), json!({"description": "done", "content": content}))]);
    for status in statuses {
        let answer = json!({"description": name(status), "content": json_of(of("Error"))});
        answers.insert(status.to_string(), answer);
    }
    Value::Object(answers)
}

fn schemas() -> Value {
    let outcome = json!({
        "type": "object",
        "required": ["id", "name"],
        "properties": {
            "id": {"type": "integer"},
            "name": {"type": "string"},
            "failure": {"type": ["object", "null"], "required": ["reason"], "properties": {"reason": {"type": "string"}}},
        },
    });
    json!({
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}, "outcomes": {"type": "array", "items": outcome}},
        },
        "Outcomes": {
            "type": "object",
            "required": ["outcomes"],
            "properties": {"outcomes": {"type": "array", "items": outcome}},
        },
        "Process": {
            "type": "object",
            "required": ["id", "name", "namespace", "status", "pid", "restarts"],
            "properties": {
                "id": {"type": "integer"},
                "name": {"type": "string"},
                "namespace": {"type": "string"},
                "status": {"enum": ["stopped", "launching", "online", "stopping", "waiting restart", "scheduled", "waiting", "errored"]},
                "pid": {"type": "integer"},
                "restarts": {"type": "integer"},
                "cpu": {"type": ["number", "null"], "description": "percent of one core"},
                "memory": {"type": ["integer", "null"], "description": "bytes"},
                "pss": {"type": ["integer", "null"], "description": "bytes of memory, where what it shares counts in part; missing where nobody asked"},
                "accepted": {"type": "integer", "description": "connections that it was handed and took; missing where the kernel deals them out"},
                "leak": {
                    "type": "object",
                    "description": "its memory grows steadily",
                    "required": ["rate"],
                    "properties": {
                        "rate": {"type": "integer", "description": "bytes per hour"},
                        "limit": {"type": "integer", "description": "bytes"},
                        "reached_in": {"type": "integer", "description": "ms"},
                    },
                },
            },
        },
        "Past": {
            "type": "object",
            "required": ["since", "until", "step", "processes"],
            "properties": {
                "since": {"type": "integer", "description": "ms since 1970"},
                "until": {"type": "integer"},
                "step": {"type": "integer", "description": "ms from one value to the next; those that nobody noted are missing"},
                "processes": {"type": "array", "items": {
                    "type": "object",
                    "required": ["id", "name", "namespace", "at", "cpu", "memory", "fds", "threads", "restarts"],
                    "properties": {
                        "id": {"type": "integer"},
                        "name": {"type": "string"},
                        "namespace": {"type": "string"},
                        "at": {"type": "array", "items": {"type": "integer"}},
                        "cpu": {"type": "array", "items": {"type": ["number", "null"]}, "description": "percent of one core"},
                        "memory": {"type": "array", "items": {"type": "integer"}, "description": "bytes"},
                        "fds": {"type": "array", "items": {"type": ["integer", "null"]}},
                        "threads": {"type": "array", "items": {"type": "integer"}},
                        "restarts": {"type": "array", "items": {"type": "integer"}},
                    },
                }},
            },
        },
        "HostPast": {
            "type": "object",
            "required": ["since", "until", "step", "at", "cpu", "memory", "load", "disk", "received", "sent"],
            "properties": {
                "since": {"type": "integer", "description": "ms since 1970"},
                "until": {"type": "integer"},
                "step": {"type": "integer", "description": "ms from one value to the next; those that nobody noted are missing"},
                "at": {"type": "array", "items": {"type": "integer"}},
                "cpu": {"type": "array", "items": {"type": ["number", "null"]}, "description": "percent of all processors"},
                "memory": {"type": "array", "items": {"type": ["integer", "null"]}, "description": "bytes in use"},
                "load": {"type": "array", "items": {"type": ["number", "null"]}, "description": "on average of a minute"},
                "disk": {"type": "array", "items": {"type": ["number", "null"]}, "description": "percent of the file system of pmx's home"},
                "received": {"type": "array", "items": {"type": ["integer", "null"]}, "description": "bytes per second, but for loopback"},
                "sent": {"type": "array", "items": {"type": ["integer", "null"]}, "description": "bytes per second, but for loopback"},
            },
        },
        "Lines": {
            "type": "object",
            "required": ["lines", "complete", "faults"],
            "properties": {
                "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
                "complete": {"type": "boolean", "description": "whether all that was asked for is here; not if it took too long, or was too much"},
                "read_back_to": {
                    "type": "string",
                    "format": "date-time",
                    "description": "where it is not complete: all that was logged after this time is here. To go on, ask again with until=<this>; lines of this time and older ones come again",
                },
                "faults": {"type": "array", "items": {"type": "string"}, "description": "which files could not be read, and why: one sentence each"},
            },
        },
        "Line": {
            "type": "object",
            "required": ["ids", "name", "stream", "at", "text"],
            "properties": {
                "ids": {"type": "array", "items": {"type": "integer"}},
                "name": {"type": "string"},
                "stream": {"enum": ["out", "error"]},
                "at": {"type": "integer", "description": "ms since 1970, as far as it or its file tells"},
                "text": {"type": "string"},
            },
        },
        "Event": {
            "type": "object",
            "required": ["at", "kind", "id", "name"],
            "properties": {
                "at": {"type": "integer", "description": "ms since 1970"},
                "kind": {"type": "string"},
                "id": {"type": "integer"},
                "name": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
        "Front": {
            "type": "object",
            "required": ["system_info", "monit", "processes"],
            "properties": {
                "system_info": {"type": "object"},
                "monit": {"type": "object"},
                "processes": {"type": "array", "items": {"type": "object"}},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_once() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let operations: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, ROUTES.len());
        let names: std::collections::BTreeSet<String> = paths
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
            .map(|o| o["operationId"].to_string())
            .collect();
        assert_eq!(names.len(), ROUTES.len());
    }
}
