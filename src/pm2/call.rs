//! Calls of pm2's client, and what each of them comes to in our own protocol.

use serde_json::{Map, Value, json};

use super::VERSION;
use super::amp::{Arg, frame};
use crate::app::Changes;
use crate::protocol::{Scale, Verb};

/// A call that can be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Chosen by the client; the answer repeats it.
    pub id: String,
    /// What is called; `None`: which methods are there?
    pub method: Option<String>,
    /// With what.
    pub args: Vec<Value>,
}

impl Call {
    /// `None`: it is no call.
    pub fn of(arguments: Vec<Arg>) -> Option<Call> {
        let mut arguments = arguments.into_iter();
        let (Some(Arg::Json(mut call)), Some(Arg::Text(id))) = (arguments.next(), arguments.next()) else {
            return None;
        };
        let args = match call.get_mut("args").map(Value::take) {
            Some(Value::Array(args)) => args,
            _ => Vec::new(),
        };
        match call.get("type").and_then(Value::as_str)? {
            "methods" => Some(Call { id, method: None, args }),
            "call" => {
                let method = Some(call.get("method")?.as_str()?.to_string());
                Some(Call { id, method, args })
            }
            _ => None,
        }
    }
}

/// What to do about a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Answer it at once.
    Say(Value),
    /// It cannot be done.
    Refuse(String),
    /// Answer with all processes.
    List,
    /// Start one more of the app of this process, and answer with it.
    Duplicate(u32),
    /// Start what this object describes, and answer with the new processes.
    Start(Map<String, Value>),
    /// Ask the daemon, and answer.
    Ask(Verb, Reply),
    /// Send a signal, which is called so, and answer.
    Signal(String, String),
    /// Answer, and have this process watched when this client restarts it.
    Watch(u32),
    /// Tell who listens that everything ends.
    Farewell,
    /// End the daemon, and have the client that is this process know by a signal.
    Kill(Option<i32>),
}

/// How a call is answered once the daemon has done what was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// With the process.
    Process,
    /// With the process as it was last seen.
    Gone(u32),
    /// With this.
    Value(Value),
}

/// The methods that there are.
const METHODS: [&str; 34] = [
    "ping",
    "getVersion",
    "getMonitorData",
    "getSystemData",
    "getReport",
    "prepare",
    "startProcessId",
    "stopProcessId",
    "restartProcessId",
    "reloadProcessId",
    "softReloadProcessId",
    "deleteProcessId",
    "duplicateProcessId",
    "resetMetaProcessId",
    "sendSignalToProcessId",
    "sendSignalToProcessName",
    "sendDataToProcessId",
    "msgProcess",
    "reloadLogs",
    "notifyKillPM2",
    "killMe",
    "monitor",
    "unmonitor",
    "notifyByProcessId",
    "stopWatch",
    "startWatch",
    "toggleWatch",
    "findByName",
    "findByProcessId",
    "restartProcessName",
    "stopProcessName",
    "deleteProcessName",
    "stopAll",
    "deleteAll",
];

/// What a call comes to.
pub fn plan(call: &Call) -> Plan {
    let Some(method) = &call.method else {
        let methods = METHODS.map(|name| (name.to_string(), json!({"name": name, "params": []})));
        return Plan::Say(Value::Object(Map::from_iter(methods)));
    };
    let first = call.args.first().unwrap_or(&Value::Null);
    let process = || match first {
        Value::Object(fields) => fields.get("id").and_then(number),
        other => number(other),
    };
    let field = |name: &str| match first.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let acts = |verb: fn(Vec<String>) -> Verb| match process() {
        Some(id) => Plan::Ask(verb(vec![id.to_string()]), Reply::Process),
        None => Plan::Refuse(format!("{method}: which process?")),
    };
    let changed = |verb: fn(Vec<String>, Changes) -> Verb| {
        let none = Map::new();
        let env = first.get("env").and_then(Value::as_object).unwrap_or(&none);
        match (process(), super::restart::changes(env)) {
            (Some(id), Ok(changes)) => Plan::Ask(verb(vec![id.to_string()], changes), Reply::Process),
            (None, _) => Plan::Refuse(format!("{method}: which process?")),
            (_, Err(sentence)) => Plan::Refuse(format!("{method}: {sentence}")),
        }
    };
    let named = |verb: fn(Vec<String>) -> Verb| match first.as_str() {
        Some(name) => Plan::Ask(verb(vec![name.to_string()]), Reply::Value(json!([]))),
        None => Plan::Refuse(format!("{method}: which process?")),
    };
    match method.as_str() {
        "ping" => Plan::Say(json!({"msg": "pong"})),
        "getVersion" => Plan::Say(json!(VERSION)),
        "getMonitorData" => Plan::List,
        "getSystemData" => Plan::Say(json!({})),
        "getReport" => Plan::Say(json!({"pm2_version": VERSION})),
        "prepare" => match first {
            Value::Object(fields) => Plan::Start(fields.clone()),
            _ => Plan::Refuse("prepare: what is to be started?".to_string()),
        },
        "startProcessId" => acts(restart),
        "restartProcessId" => {
            changed(|targets, changes| Verb::Restart { targets, changes: Box::new(changes) })
        }
        "restartProcessName" => named(restart),
        "stopProcessId" => acts(|targets| Verb::Stop { targets }),
        "stopProcessName" => named(|targets| Verb::Stop { targets }),
        "stopAll" => Plan::Ask(Verb::Stop { targets: vec!["all".to_string()] }, Reply::Value(json!([]))),
        "deleteAll" => Plan::Ask(Verb::Delete { targets: vec!["all".to_string()] }, Reply::Value(json!([]))),
        "deleteProcessName" => named(|targets| Verb::Delete { targets }),
        "reloadProcessId" | "softReloadProcessId" => {
            changed(|targets, changes| Verb::Reload { targets, changes: Box::new(changes), parallel: None })
        }
        "deleteProcessId" => match process() {
            Some(id) => Plan::Ask(Verb::Delete { targets: vec![id.to_string()] }, Reply::Gone(id)),
            None => Plan::Refuse(format!("{method}: which process?")),
        },
        "duplicateProcessId" => match process() {
            Some(id) => Plan::Duplicate(id),
            None => Plan::Refuse(format!("{method}: which process?")),
        },
        "resetMetaProcessId" => acts(|targets| Verb::Reset { targets }),
        "sendSignalToProcessId" | "sendSignalToProcessName" => {
            match (field("process_id").or_else(|| field("process_name")), field("signal")) {
                (Some(target), Some(signal)) => Plan::Signal(target, signal),
                _ => Plan::Refuse(format!("{method}: which process, and which signal?")),
            }
        }
        "sendDataToProcessId" => match (process(), first.get("data")) {
            (Some(id), Some(data)) => {
                let reply = json!({"success": true, "data": data});
                let mut message = first.clone();
                if let Value::Object(fields) = &mut message {
                    fields.entry("type").or_insert_with(|| json!("process:msg"));
                }
                Plan::Ask(Verb::Tell { targets: vec![id.to_string()], message }, Reply::Value(reply))
            }
            _ => Plan::Refuse(format!("{method}: which process, and what?")),
        },
        "msgProcess" => match (field("id").or_else(|| field("name")), first.get("msg")) {
            (Some(target), Some(msg)) => {
                let has_more = first.get("opts").is_some_and(|opts| !opts.is_null());
                let message = if has_more { first.clone() } else { msg.clone() };
                let reply = json!({"process_count": 1, "success": true});
                Plan::Ask(Verb::Tell { targets: vec![target], message }, Reply::Value(reply))
            }
            _ => Plan::Refuse(format!("{method}: which process, and what?")),
        },
        "notifyKillPM2" => Plan::Farewell,
        "killMe" => Plan::Kill(first.get("pid").and_then(Value::as_i64).and_then(|pid| pid.try_into().ok())),
        "reloadLogs" => Plan::Ask(Verb::ReloadLogs, Reply::Value(json!({}))),
        // Nothing here is metered; pm2's client calls some of these before it does what it was asked for.
        "monitor" | "unmonitor" | "notifyByProcessId" => Plan::Say(json!({})),
        // So its command line says `restart --watch`, which here means that it is watched afterwards.
        "toggleWatch" | "startWatch" => {
            match call.args.get(1).and_then(|with| with.get("id")).and_then(number) {
                Some(id) => Plan::Watch(id),
                None => Plan::Refuse(format!("{method}: which process?")),
            }
        }
        // What is stopped is not watched anyway.
        "stopWatch" => Plan::Say(json!({"success": true})),
        "findByName" | "findByProcessId" => Plan::List,
        other => Plan::Refuse(format!("{other}: pmx does not have this method of pm2")),
    }
}

/// `duplicateProcessId`, for the app of that name.
pub fn duplicate(name: String) -> Verb {
    Verb::Scale { name, to: Scale::Add(1) }
}

fn restart(targets: Vec<String>) -> Verb {
    Verb::Restart { targets, changes: Box::default() }
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Whether a call is answered with which methods there are.
pub fn calls(call: &Call) -> bool {
    call.method.is_some()
}

/// The answer to a call.
pub fn reply(call_id: &str, is_call: bool, value: Value) -> Vec<u8> {
    let body = if is_call { json!({"args": [value]}) } else { json!({"methods": value}) };
    frame(&[Arg::Json(body), Arg::Text(call_id.to_string())])
}

/// The answer that it failed.
pub fn error(call_id: &str, sentence: &str) -> Vec<u8> {
    let body = json!({"error": sentence, "stack": sentence});
    frame(&[Arg::Json(body), Arg::Text(call_id.to_string())])
}

/// An event for whoever listens.
pub fn event(name: &str, payload: Value) -> Vec<u8> {
    frame(&[Arg::Text(name.to_string()), Arg::Json(payload)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(value: Value) -> Option<Call> {
        Call::of(vec![Arg::Json(value), Arg::Text("7:1".into())])
    }

    #[test]
    fn calls_become_requests_and_what_is_no_call_is_refused() {
        let plan_of = |method: &str, args: Value| {
            plan(&call(json!({"type": "call", "method": method, "args": args})).unwrap())
        };
        assert_eq!(plan_of("getVersion", json!([{}])), Plan::Say(json!(VERSION)));
        let stop = Verb::Stop { targets: vec!["3".to_string()] };
        assert_eq!(plan_of("stopProcessId", json!([3])), Plan::Ask(stop, Reply::Process));
        let restarted = plan_of("restartProcessId", json!([{"id": "4", "env": {}}]));
        assert_eq!(restarted, Plan::Ask(restart(vec!["4".to_string()]), Reply::Process));
        assert_eq!(plan_of("killMe", json!([{"pid": 9}])), Plan::Kill(Some(9)));
        assert_eq!(plan_of("duplicateProcessId", json!([2])), Plan::Duplicate(2));
        for (method, args) in [
            ("stopProcessId", json!([])),
            ("restartProcessId", json!([{"id": -1}])),
            ("prepare", json!(["app.js"])),
            ("sendSignalToProcessId", json!([{"process_id": 1}])),
            ("profileCPU", json!([])),
        ] {
            assert!(matches!(plan_of(method, args), Plan::Refuse(_)), "{method}");
        }
        for value in [json!(1), json!({"type": "call"}), json!({"type": "call", "method": 1})] {
            assert_eq!(call(value), None);
        }
        assert_eq!(Call::of(Vec::new()), None);
    }
}
