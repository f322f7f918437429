//! What an app that speaks pm2's axm messages tells about itself: actions, metrics, options. All of it is the
//! app's word, and all of it is bounded.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many actions of one child are kept, and how many metrics and options.
pub const ACTIONS: usize = 64;
const NAMES: usize = 256;
/// The longest of each, as JSON.
const LONGEST: usize = 2 << 10;

/// What one child has told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Axm {
    /// `{action_name, action_type, arity, opts}` each.
    pub actions: Vec<Value>,
    /// By name, `{value, unit, type, historic}` each.
    pub monitor: Map<String, Value>,
    /// What its library is configured to do.
    pub options: Map<String, Value>,
}

impl Axm {
    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.monitor.is_empty() && self.options.is_empty()
    }

    /// Takes an action in; false: it is none, or there are too many.
    pub fn action(&mut self, action: Value) -> bool {
        let Some(name) = action.get("action_name").and_then(Value::as_str).map(String::from) else {
            return false;
        };
        if name.is_empty() || is_long(&action) {
            return false;
        }
        match self.actions.iter().position(|known| known["action_name"] == *name) {
            Some(at) => self.actions[at] = action,
            None if self.actions.len() < ACTIONS => self.actions.push(action),
            None => return false,
        }
        true
    }

    /// The names of its actions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter_map(|action| action.get("action_name")?.as_str())
    }

    /// Takes metrics in, over those of the same names.
    pub fn measured(&mut self, metrics: Map<String, Value>) {
        merge(&mut self.monitor, metrics);
    }

    /// Takes options in, over those of the same names.
    pub fn configured(&mut self, options: Map<String, Value>) {
        merge(&mut self.options, options);
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, value) in from {
        let has_room = into.len() < NAMES || into.contains_key(&name);
        if has_room && name.len() <= LONGEST && !is_long(&value) {
            into.insert(name, value);
        }
    }
}

fn is_long(value: &Value) -> bool {
    value.to_string().len() > LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_app_tells_is_kept_up_to_a_limit() {
        let mut axm = Axm::default();
        for n in 0..2 * ACTIONS {
            axm.action(json!({"action_name": format!("a{n}"), "arity": 0}));
        }
        assert_eq!(axm.actions.len(), ACTIONS);
        assert!(axm.action(json!({"action_name": "a0", "arity": 1})), "one that is known may change");
        assert_eq!((axm.actions.len(), &axm.actions[0]["arity"]), (ACTIONS, &json!(1)));
        assert!(!axm.action(json!({"name": "x"})) && !axm.action(json!("x")));
        for n in 0..2 * NAMES {
            axm.measured(Map::from_iter([(format!("m{n}"), json!({"value": n}))]));
        }
        axm.measured(Map::from_iter([("m0".to_string(), json!("x".repeat(LONGEST)))]));
        assert_eq!((axm.monitor.len(), &axm.monitor["m0"]["value"]), (NAMES, &json!(0)));
    }
}
