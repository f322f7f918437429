//! How the environment of an app's children is made up, beyond what was declared: what of the shell's gets
//! through, and what differs from instance to instance.

use serde::{Deserialize, Serialize};

use super::Env;

/// What an app said about variables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variables {
    /// Which variables of the shell do not get through.
    pub filter: Filter,
    /// The variable that holds the number of the instance; `None`: [`INSTANCE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The variable, a number, that grows by one from instance to instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub increment: Option<String>,
}

/// The variable that holds the number of the instance, if no other one was declared.
pub const INSTANCE: &str = "NODE_APP_INSTANCE";

/// Which variables of the shell do not get through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// All get through.
    #[default]
    None,
    /// Only what a program needs to run at all does.
    All,
    /// Those that one of these covers do not; `*` in them stands for anything.
    Named(Vec<String>),
}

impl Variables {
    /// Whether nothing was said.
    pub fn is_usual(&self) -> bool {
        *self == Variables::default()
    }

    /// The name of the variable with the number of the instance.
    pub fn instance(&self) -> &str {
        self.instance.as_deref().unwrap_or(INSTANCE)
    }

    /// Lets the variable grow that does.
    pub fn increment(&self, env: &mut Env, instance: u32) {
        let Some(name) = &self.increment else { return };
        if let Some(first) = env.get(name).and_then(number) {
            env.set(name, first.saturating_add(i64::from(instance)).to_string());
        }
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let named = [("instance_var", &self.instance), ("increment_var", &self.increment)];
        let bad = |name: &String| name.is_empty() || name.contains(['=', '\0']);
        let (field, name) = named
            .into_iter()
            .find_map(|(field, name)| Some((field, name.as_ref()?)).filter(|(_, name)| bad(name)))?;
        Some(format!("{field}: {name:?} cannot be the name of an environment variable"))
    }
}

/// The value of a variable that may grow.
pub fn number(value: &super::Text) -> Option<i64> {
    value.lossy().trim().parse().ok()
}

impl Filter {
    /// Whether a variable of this name gets through.
    pub fn passes(&self, name: &str) -> bool {
        const NEEDED: [&str; 9] =
            ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];
        match self {
            Filter::None => true,
            Filter::All => NEEDED.contains(&name) || name.starts_with("LC_"),
            Filter::Named(patterns) => !patterns.iter().any(|pattern| covers(pattern, name)),
        }
    }

    /// One more that does not get through, and neither does what begins like it. (pm2 documents that, and drops
    /// whatever contains it.)
    pub fn add(&mut self, beginning: &str) {
        let pattern = if beginning.contains('*') { beginning.to_string() } else { format!("{beginning}*") };
        match self {
            Filter::All => {}
            Filter::None => *self = Filter::Named(vec![pattern]),
            Filter::Named(patterns) => patterns.push(pattern),
        }
    }
}

/// Whether `pattern` stands for all of `name`.
fn covers(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Text;

    #[test]
    fn patterns_cover_names() {
        for (pattern, name, expected) in [
            ("A", "A", true),
            ("A", "AB", false),
            ("A*", "AB", true),
            ("A*", "BA", false),
            ("*_KEY", "API_KEY", true),
            ("*_KEY", "API_KEYS", false),
            ("*", "", true),
            ("A*B*C", "AxBxC", true),
            ("A*B*C", "ABC", true),
            ("A*B*C", "AC", false),
            ("A*A", "A", false),
            ("*B*B", "B", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_does_not_get_through() {
        let mut filter = Filter::default();
        assert!(filter.passes("AWS_KEY"));
        filter.add("AWS_");
        filter.add("*TOKEN");
        for (name, passes) in
            [("AWS_KEY", false), ("MY_AWS_KEY", true), ("GH_TOKEN", false), ("TOKENS", true), ("PATH", true)]
        {
            assert_eq!(filter.passes(name), passes, "{name}");
        }
        for (name, passes) in [("PATH", true), ("LC_ALL", true), ("NODE_ENV", false), ("SECRET", false)] {
            assert_eq!(Filter::All.passes(name), passes, "{name}");
        }
    }

    #[test]
    fn a_variable_grows_if_it_is_a_number() {
        let variables = Variables { increment: Some("PORT".to_string()), ..Variables::default() };
        for (value, expected) in
            [("3000", "3002"), ("x", "x"), ("9223372036854775807", "9223372036854775807")]
        {
            let mut env = Env::default();
            env.set("PORT", value);
            variables.increment(&mut env, 2);
            assert_eq!(env.get("PORT"), Some(&Text::from(expected)));
        }
        assert!(variables.fault().is_none());
        let bad = Variables { instance: Some("A=B".to_string()), ..Variables::default() };
        assert_eq!(
            bad.fault().unwrap(),
            "instance_var: \"A=B\" cannot be the name of an environment variable"
        );
    }
}
