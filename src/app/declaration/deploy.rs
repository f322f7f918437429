//! The `deploy` of a declaration: for each environment the hosts that `pmx deploy` brings a repository to, and
//! what is run there. One table of fields, as for apps.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Document, fields, kind, place, shown, variables};
use crate::app::Env;
use crate::app::nearest::nearest;

/// Where an environment lives, and what a deployment to it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// At least one, in the order in which they are deployed to.
    pub hosts: Vec<String>,
    /// Who to be there; else what ssh is configured to.
    pub user: Option<String>,
    /// What is cloned.
    pub repo: String,
    /// The directory there that holds it all.
    pub path: String,
    /// A branch, a tag or a commit.
    pub reference: String,
    /// A private key for ssh.
    pub key: Option<String>,
    /// The port of ssh.
    pub port: Option<u16>,
    /// Each is an `-o` of ssh.
    pub ssh_options: Vec<String>,
    /// Keys are offered there, too.
    pub forward_agent: bool,
    /// Commands there are given a terminal.
    pub needs_tty: bool,
    /// Only the last commits are fetched.
    pub fast: bool,
    /// Lines for a shell.
    pub hooks: Hooks,
    /// Exported before `post-deploy`, in upper case.
    pub env: Env,
}

/// The lines that somebody may have run at the steps of a deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// There, before the first clone; or a local script that is run there.
    pub pre_setup: Option<String>,
    /// There, after it.
    pub post_setup: Option<String>,
    /// Here, before anything else.
    pub pre_deploy_local: Option<String>,
    /// There, before anything is fetched.
    pub pre_deploy: Option<String>,
    /// There, when the new commit is in place.
    pub post_deploy: Option<String>,
}

/// A field of an environment.
struct Field {
    name: &'static str,
    /// What a value has to be, in words.
    expected: &'static str,
    /// Its JSON Schema.
    schema: &'static str,
    about: &'static str,
    /// Takes a value in. The error is what is wrong with it beyond not being what was expected, or empty.
    set: fn(&mut Deployment, &Value) -> Result<(), String>,
}

const WORD: &str = r#"{"type": "string", "minLength": 1}"#;
const LINE: &str = r#"{"type": "string"}"#;
const FLAG: &str = r#"{"enum": [true, false, "true", "false", "yes", "no"]}"#;
const YES: &str = "true or false";
const SHELL: &str = "a line for a shell";

/// These cannot be missing.
const REQUIRED: [&str; 4] = ["host", "repo", "path", "ref"];

const FIELDS: &[Field] = &[
    Field {
        name: "host",
        expected: "a host, or an array of hosts",
        schema: r#"{"type": ["string", "array"], "minLength": 1, "minItems": 1, "items": {"type": "string"}}"#,
        about: "where to deploy to; of several, one after another",
        set: |to, value| {
            put(&mut to.hosts, one_or_more(value, word))?;
            if to.hosts.is_empty() { Err("there is none in it".to_string()) } else { Ok(()) }
        },
    },
    Field {
        name: "user",
        expected: "a user's name",
        schema: WORD,
        about: "who to be there (what ssh is configured to)",
        set: |to, value| put(&mut to.user, word(value).map(Some)),
    },
    Field {
        name: "repo",
        expected: "the address of a git repository",
        schema: WORD,
        about: "what is cloned",
        set: |to, value| put(&mut to.repo, kind::text(value)),
    },
    Field {
        name: "path",
        expected: "a directory",
        schema: WORD,
        about: "where it is put there: absolute, or from the user's home",
        set: |to, value| put(&mut to.path, path(value)),
    },
    Field {
        name: "ref",
        expected: "a branch, a tag or a commit",
        schema: WORD,
        about: "what is deployed: origin/main",
        set: |to, value| put(&mut to.reference, word(value)),
    },
    Field {
        name: "key",
        expected: "the path of a private key",
        schema: WORD,
        about: "the -i of ssh",
        set: |to, value| put(&mut to.key, kind::text(value).map(Some)),
    },
    Field {
        name: "port",
        expected: "a port number",
        schema: r#"{"type": ["integer", "string"], "minimum": 1, "maximum": 65535}"#,
        about: "the -p of ssh",
        set: |to, value| {
            let port = kind::number(value).ok().filter(|&port| port != 0);
            put(&mut to.port, port.map(Some).ok_or_else(String::new))
        },
    },
    Field {
        name: "ssh_options",
        expected: "an option such as \"StrictHostKeyChecking=no\", or an array of them",
        schema: r#"{"type": ["string", "array"], "items": {"type": "string"}}"#,
        about: "each is an -o of ssh",
        set: |to, value| put(&mut to.ssh_options, one_or_more(value, kind::text)),
    },
    Field {
        name: "forward-agent",
        expected: YES,
        schema: FLAG,
        about: "the -A of ssh: keys from here are offered there",
        set: |to, value| put(&mut to.forward_agent, flag(value)),
    },
    Field {
        name: "needs_tty",
        expected: YES,
        schema: FLAG,
        about: "the -t of ssh: commands there are given a terminal",
        set: |to, value| put(&mut to.needs_tty, flag(value)),
    },
    Field {
        name: "fetch",
        expected: "\"fast\" or \"full\"",
        schema: r#"{"enum": ["fast", "full"]}"#,
        about: "fast: only the last five commits are fetched",
        set: |to, value| {
            let fast = match value.as_str() {
                Some("fast") => Ok(true),
                Some("full") => Ok(false),
                _ => Err(String::new()),
            };
            put(&mut to.fast, fast)
        },
    },
    Field {
        name: "pre-setup",
        expected: SHELL,
        schema: LINE,
        about: "run there before the first clone; a local script is run there, too",
        set: |to, value| put(&mut to.hooks.pre_setup, hook(value)),
    },
    Field {
        name: "post-setup",
        expected: SHELL,
        schema: LINE,
        about: "run there after the first clone, in it",
        set: |to, value| put(&mut to.hooks.post_setup, hook(value)),
    },
    Field {
        name: "pre-deploy-local",
        expected: SHELL,
        schema: LINE,
        about: "run here before anything else",
        set: |to, value| put(&mut to.hooks.pre_deploy_local, hook(value)),
    },
    Field {
        name: "pre-deploy",
        expected: SHELL,
        schema: LINE,
        about: "run there before anything is fetched",
        set: |to, value| put(&mut to.hooks.pre_deploy, hook(value)),
    },
    Field {
        name: "post-deploy",
        expected: SHELL,
        schema: LINE,
        about: "run there when the new commit is in place (pmx startOrRestart <file> --env <name>)",
        set: |to, value| put(&mut to.hooks.post_deploy, hook(value)),
    },
    Field {
        name: "env",
        expected: "an object of variables",
        schema: r##"{"$ref": "#/$defs/variables"}"##,
        about: "exported in upper case before post-deploy; with --env also below all other variables of the apps",
        set: |to, value| {
            to.env = fields::variables(value)?;
            let odd = to.env.0.keys().find(|name| !is_identifier(&name.lossy()));
            odd.map_or(Ok(()), |name| Err(format!("no shell can export {name:?}", name = name.lossy())))
        },
    },
];

/// The environment `name` of a document, and what its author should know. The error is one sentence that says
/// where.
pub fn deployment(file: &str, document: &Document, name: &str) -> Result<(Deployment, Vec<String>), String> {
    let fault = |key: &str, what: String| {
        let path = format!("/deploy/{name}/{key}");
        let path = path.trim_end_matches('/');
        let of = if key.is_empty() { String::new() } else { format!("{key}: ") };
        format!("{}: deploy: {name}: {of}{what}", place(file, document.line(path)))
    };
    let found = match document.value.get("deploy") {
        Some(Value::Object(map)) => map,
        None | Some(Value::Null) => return Err(format!("{file}: it has no deploy")),
        Some(other) => {
            let place = place(file, document.line("/deploy"));
            return Err(format!("{place}: deploy: expected an object of environments, got {}", shown(other)));
        }
    };
    let map = match found.get(name) {
        Some(Value::Object(map)) => map,
        Some(other) => return Err(fault("", format!("expected an object, got {}", shown(other)))),
        None => {
            let place = place(file, document.line("/deploy"));
            return Err(format!("{place}: deploy: no environment {name:?}: {}", known(found)));
        }
    };
    let mut deployment = Deployment::default();
    let mut warnings = Vec::new();
    for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let Some(field) = FIELDS.iter().find(|field| field.name == key) else {
            match nearest(key, FIELDS.iter().map(|field| field.name)) {
                Some(near) => return Err(fault(key, format!("no such field: did you mean {near}?"))),
                None => warnings.push(fault(key, "it is no field, and does nothing".to_string())),
            }
            continue;
        };
        (field.set)(&mut deployment, value).map_err(|detail| {
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            fault(key, format!("expected {}{detail}, got {}", field.expected, shown(value)))
        })?;
    }
    for field in FIELDS.iter().filter(|field| REQUIRED.contains(&field.name)) {
        if map.get(field.name).is_none_or(Value::is_null) {
            return Err(fault("", format!("{} is missing: expected {}", field.name, field.expected)));
        }
    }
    Ok((deployment, warnings))
}

/// The environments that a document can be deployed to, in words.
pub fn environments(document: &Document) -> String {
    document.value.get("deploy").and_then(Value::as_object).map_or_else(|| known(&Map::new()), known)
}

fn known(map: &Map<String, Value>) -> String {
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    if names.is_empty() { "it has none".to_string() } else { format!("it has {}", names.join(", ")) }
}

/// The variables under `deploy.<name>.env`, of each environment.
pub fn variables_of_all(file: &str, document: &Document) -> Result<BTreeMap<String, Env>, String> {
    let mut found = BTreeMap::new();
    for (name, target) in document.value.get("deploy").and_then(Value::as_object).into_iter().flatten() {
        if let Some(env) = target.get("env").filter(|env| !env.is_null()) {
            let place = place(file, document.line(&format!("/deploy/{name}/env")));
            let env = variables(env).map_err(|detail| format!("{place}: deploy: {name}: env: {detail}"))?;
            found.insert(name.clone(), env);
        }
    }
    Ok(found)
}

/// Its JSON Schema.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for field in FIELDS {
        let schema: Value = serde_json::from_str(field.schema).unwrap_or(Value::Bool(true));
        let schema = json!({ "anyOf": [schema, { "type": "null" }], "description": field.about });
        properties.insert(field.name.to_string(), schema);
    }
    json!({ "type": "object", "properties": properties })
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// An array of them, or one.
fn one_or_more(value: &Value, read: fn(&Value) -> Result<String, String>) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) => values.iter().map(read).collect(),
        value => Ok(vec![read(value)?]),
    }
}

/// A string that ssh and git take for no option of theirs.
fn word(value: &Value) -> Result<String, String> {
    let text = kind::text(value)?;
    if text.starts_with('-') {
        return Err("it begins with a dash".to_string());
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("without blanks".to_string());
    }
    Ok(text)
}

/// `~` is the home of whoever logs in; of anybody else's nothing is known here.
fn path(value: &Value) -> Result<String, String> {
    let text = kind::text(value)?;
    let of_another = text.starts_with('~') && text != "~" && !text.starts_with("~/");
    if of_another { Err("~ stands for the user's own home only".to_string()) } else { Ok(text) }
}

/// One that is empty asks for nothing: pm2's own sample has such.
fn hook(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Ok(None),
        value => kind::text(value).map(Some),
    }
}

fn flag(value: &Value) -> Result<bool, String> {
    match value.as_str() {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        _ => kind::flag(value),
    }
}

fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::schema::tests::accepts;
    use super::*;

    fn read(text: &str) -> Result<(Deployment, Vec<String>), String> {
        deployment("f.json", &Document::json(text).unwrap(), "production")
    }

    fn one(fields: &str) -> Result<(Deployment, Vec<String>), String> {
        read(&format!(
            "{{script: 'a', deploy: {{production: {{\nhost: 'h', repo: 'r', path: '/p', ref: 'm',\n{fields}}}}}}}"
        ))
    }

    #[test]
    fn every_field_arrives() {
        let text = r#"{"apps": [], "deploy": {"staging": {"host": 3}, "production": {
            "user": "u", "host": ["a", "b"], "repo": "git@x:y.git", "path": "/srv/x", "ref": "origin/main",
            "key": "~/.ssh/k", "port": "2222", "ssh_options": "A=b", "forward-agent": "yes", "needs_tty": true,
            "fetch": "fast", "pre-setup": "1", "post-setup": "2", "pre-deploy-local": "3", "pre-deploy": "4",
            "post-deploy": "5", "env": {"NODE_ENV": "production", "n": 1}, "rubbish": 1}}}"#;
        let (found, warnings) = read(text).unwrap();
        let text = |text: &str| Some(text.to_string());
        let mut env = Env::default();
        env.set("NODE_ENV", "production");
        env.set("n", "1");
        let expected = Deployment {
            hosts: vec!["a".to_string(), "b".to_string()],
            user: text("u"),
            repo: "git@x:y.git".to_string(),
            path: "/srv/x".to_string(),
            reference: "origin/main".to_string(),
            key: text("~/.ssh/k"),
            port: Some(2222),
            ssh_options: vec!["A=b".to_string()],
            forward_agent: true,
            needs_tty: true,
            fast: true,
            hooks: Hooks {
                pre_setup: text("1"),
                post_setup: text("2"),
                pre_deploy_local: text("3"),
                pre_deploy: text("4"),
                post_deploy: text("5"),
            },
            env,
        };
        assert_eq!(found, expected);
        assert_eq!(warnings, ["f.json:5: deploy: production: rubbish: it is no field, and does nothing"]);
    }

    #[test]
    fn what_says_nothing_is_nothing() {
        let (found, warnings) =
            one("user: null, 'forward-agent': 'no', needs_tty: 'false', 'pre-setup': '', fetch: 'full'")
                .unwrap();
        assert_eq!((found.user, found.hooks, warnings.len()), (None, Hooks::default(), 0));
        assert!(!found.forward_agent && !found.needs_tty && !found.fast);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (fields, sentence) in [
            ("port: 0", "f.json:3: deploy: production: port: expected a port number, got 0"),
            ("port: 'x'", "port: expected a port number, got \"x\""),
            ("path: '~bob/x'", "path: expected a directory (~ stands for the user's own home only), got"),
            ("user: ''", "user: expected a user's name, got \"\""),
            ("user: '-oProxyCommand=x'", "user: expected a user's name (it begins with a dash), got "),
            ("fetch: 'slow'", "fetch: expected \"fast\" or \"full\", got \"slow\""),
            ("'post-deploy': ['a']", "post-deploy: expected a line for a shell, got an array"),
            ("needs_tty: 'maybe'", "needs_tty: expected true or false, got \"maybe\""),
            ("ssh_options: {A: 'b'}", "ssh_options: expected an option such as"),
            ("env: {'A-B': 1}", "env: expected an object of variables (no shell can export \"A-B\"), got"),
            ("post_deploy: 'x'", "post_deploy: no such field: did you mean post-deploy?"),
        ] {
            let error = one(fields).unwrap_err();
            assert!(
                error.starts_with("f.json:3: deploy: production: ") && error.contains(sentence),
                "{error}"
            );
        }
        for (text, sentence) in [
            ("{script: 'a'}", "f.json: it has no deploy"),
            ("{deploy: []}", "f.json:1: deploy: expected an object of environments, got an array"),
            ("{deploy: {}}", "f.json:1: deploy: no environment \"production\": it has none"),
            ("{deploy: {a: {}, b: {}}}", "no environment \"production\": it has a, b"),
            ("{deploy: {production: 'x'}}", "f.json:1: deploy: production: expected an object, got \"x\""),
            (
                "{deploy: {production: {host: [], repo: 'r'}}}",
                "host: expected a host, or an array of hosts (there is none in it), got an array",
            ),
            (
                "{deploy: {production: {host: 'h', repo: 'r', path: '/p'}}}",
                "production: ref is missing: expected a branch, a tag or a commit",
            ),
            (
                "{deploy: {production: {host: '-x'}}}",
                "host: expected a host, or an array of hosts (it begins",
            ),
            (
                "{deploy: {production: {ref: 'a b'}}}",
                "ref: expected a branch, a tag or a commit (without blanks)",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("f.json") && error.contains(sentence), "{text}: {error}");
        }
    }

    #[test]
    fn the_schema_knows_every_field() {
        let with = |fields: &str| {
            Document::json(&format!("{{apps: [{{script: 'a'}}], deploy: {{x: {{{fields}}}}}}}"))
                .unwrap()
                .value
        };
        for field in FIELDS {
            assert!(schema()["properties"].get(field.name).is_some(), "{}", field.name);
            assert!(!accepts(&with(&format!("'{}': 3.5", field.name))), "{}", field.name);
        }
        assert!(accepts(&with("host: ['a'], port: 22, env: {A: 1}, 'forward-agent': true, key: null")));
        assert!(!accepts(&with("fetch: 'slow'")));
    }
}
