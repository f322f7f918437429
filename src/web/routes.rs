//! The one table of what can be asked for. The way to an answer, the description (`openapi.rs`) and who may ask
//! come from it.

use std::ffi::OsStr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::gate::Access;
use super::http::{Head, Method};
use super::logs::{LINES_LIMIT, Wanted};
use super::past;
use crate::app::line::Level;
use crate::app::{App, Changes, Env, SharedEnv, Text};
use crate::logs::Stream;
use crate::logs::moment::Moment;
use crate::logs::pattern::Pattern;
use crate::logs::scan::Query;
use crate::protocol::{Existing, Scale, Verb, by_id};
use crate::sys::{clock, signals};
use crate::time::Wall;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Front,
    Page,
    Style,
    Script,
    Alive,
    Ready,
    Metrics,
    Description,
    Daemon,
    Kill,
    Update,
    Health,
    Host,
    HostPast,
    List,
    Start,
    Describe,
    Delete,
    Begin,
    Stop,
    Restart,
    Reload,
    Scale,
    Reset,
    Flush,
    Signal,
    Send,
    Message,
    Logs,
    Past,
    History,
    Publish,
    Listen,
    Events,
    FollowLogs,
}

/// Something that can be asked for.
#[derive(Debug)]
pub struct Route {
    pub name: Name,
    pub method: Method,
    /// With `{target}` where a process is named.
    pub path: &'static str,
    pub access: Access,
    pub about: &'static str,
    /// Of the query: name, `integer` or `string`, what it means.
    pub query: &'static [(&'static str, &'static str, &'static str)],
    pub kind: Kind,
}

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Html,
    Css,
    JavaScript,
    OpenMetrics,
    /// One object, or an array of objects.
    Object,
    Array,
    /// `{"outcomes": [...]}`, or with `Accept: text/event-stream` its steps as events.
    Outcomes,
    /// Events without end.
    Events,
    /// pm2's JSON, or the page for who asks for HTML.
    Front,
}

const fn route(
    name: Name,
    method: Method,
    path: &'static str,
    access: Access,
    kind: Kind,
    about: &'static str,
) -> Route {
    Route { name, method, path, access, about, query: &[], kind }
}

impl Route {
    const fn with(mut self, query: &'static [(&'static str, &'static str, &'static str)]) -> Route {
        self.query = query;
        self
    }
}

use Access::{Anybody, Local, Token};
use Method::{Delete, Get, Post};

/// Everything that can be asked for.
pub const ROUTES: &[Route] = &[
    route(
        Name::Front,
        Get,
        "/",
        Local,
        Kind::Front,
        "pm2's JSON: system_info, monit, processes; the dashboard for a browser",
    ),
    route(Name::Page, Get, "/dashboard", Anybody, Kind::Html, "the dashboard"),
    route(Name::Style, Get, "/dashboard.css", Anybody, Kind::Css, "how it looks"),
    route(Name::Script, Get, "/dashboard.js", Anybody, Kind::JavaScript, "what it does"),
    route(Name::Alive, Get, "/healthz", Anybody, Kind::Object, "whether this server runs"),
    route(Name::Ready, Get, "/readyz", Anybody, Kind::Object, "whether the daemon answers"),
    route(
        Name::Metrics,
        Get,
        "/metrics",
        Local,
        Kind::OpenMetrics,
        "metrics of all processes and of this machine",
    ),
    route(Name::Description, Get, "/openapi.json", Anybody, Kind::Object, "this description"),
    route(Name::Daemon, Get, "/api/v1/daemon", Token, Kind::Object, "the daemon: version and pid"),
    route(
        Name::Update,
        Post,
        "/api/v1/daemon/update",
        Token,
        Kind::Object,
        "make the daemon the pmx that is installed now; all else stays",
    ),
    route(
        Name::Kill,
        Post,
        "/api/v1/daemon/kill",
        Token,
        Kind::Object,
        "stop every process, this server included, and the daemon",
    ),
    route(
        Name::Health,
        Get,
        "/api/v1/health",
        Token,
        Kind::Object,
        "whether every app is online and healthy",
    )
    .with(&[("app", "string", "only this app")]),
    route(Name::Host, Get, "/api/v1/host", Token, Kind::Object, "this machine: load, memory, processors"),
    route(
        Name::HostPast,
        Get,
        "/api/v1/host/history",
        Token,
        Kind::Object,
        "what this machine used in the last hour or day, as far as it was noted: while apps run",
    )
    .with(&[("span", "hour|day", "of how long (hour)")]),
    route(Name::List, Get, "/api/v1/processes", Token, Kind::Array, "all processes, short"),
    route(Name::Start, Post, "/api/v1/processes", Token, Kind::Outcomes, "add apps and start them"),
    route(
        Name::Describe,
        Get,
        "/api/v1/processes/{target}",
        Token,
        Kind::Array,
        "all facts about processes, without environments and arguments",
    )
    .with(&[("pss", "true|false", "their memory where what they share counts in part, too: dear (false)")]),
    route(
        Name::Delete,
        Delete,
        "/api/v1/processes/{target}",
        Token,
        Kind::Outcomes,
        "stop processes and forget them",
    ),
    route(
        Name::Begin,
        Post,
        "/api/v1/processes/{target}/start",
        Token,
        Kind::Outcomes,
        "start processes that are down; those that run are restarted",
    ),
    route(
        Name::Stop,
        Post,
        "/api/v1/processes/{target}/stop",
        Token,
        Kind::Outcomes,
        "stop processes and keep them in the list",
    ),
    route(
        Name::Restart,
        Post,
        "/api/v1/processes/{target}/restart",
        Token,
        Kind::Outcomes,
        "stop processes and start them again",
    ),
    route(
        Name::Reload,
        Post,
        "/api/v1/processes/{target}/reload",
        Token,
        Kind::Outcomes,
        "replace processes without losing a request",
    )
    .with(&[("parallel", "integer", "how many at a time")]),
    route(
        Name::Scale,
        Post,
        "/api/v1/processes/{target}/scale",
        Token,
        Kind::Outcomes,
        "change the number of instances of an app",
    ),
    route(
        Name::Reset,
        Post,
        "/api/v1/processes/{target}/reset",
        Token,
        Kind::Outcomes,
        "set restart counters to zero",
    ),
    route(Name::Flush, Post, "/api/v1/processes/{target}/flush", Token, Kind::Outcomes, "empty log files"),
    route(Name::Signal, Post, "/api/v1/processes/{target}/signal", Token, Kind::Outcomes, "send a signal"),
    route(
        Name::Send,
        Post,
        "/api/v1/processes/{target}/send",
        Token,
        Kind::Outcomes,
        "send a line to the stdin of processes",
    ),
    route(
        Name::Message,
        Post,
        "/api/v1/processes/{target}/message",
        Token,
        Kind::Outcomes,
        "send a message on the channel of processes",
    ),
    route(
        Name::Logs,
        Get,
        "/api/v1/processes/{target}/logs",
        Token,
        Kind::Object,
        "the last lines of the logs of processes, in old files too; or those that are asked for, in the order of their times",
    )
    .with(&[
        ("lines", "integer", "how many of each log, or of all that are found (100, at most 10000)"),
        ("since", "moment", "written since then: 10m, 2h, or a date such as 2026-01-31T12:00:00Z"),
        ("until", "moment", "written until then"),
        ("search", "string", "with this text, whatever the case of its letters"),
        ("level", "trace|debug|info|warn|error|fatal", "as grave as this, or graver"),
        ("stream", "out|error", "of only one of the two (both)"),
    ]),
    route(
        Name::Past,
        Get,
        "/api/v1/processes/{target}/history",
        Token,
        Kind::Object,
        "what processes used in the last hour or day, as far as it was noted",
    )
    .with(&[("span", "hour|day", "of how long (hour)")]),
    route(Name::History, Get, "/api/v1/history", Token, Kind::Array, "what happened of late").with(&[(
        "name",
        "string",
        "only to this app",
    )]),
    route(
        Name::Publish,
        Post,
        "/api/v1/messages",
        Token,
        Kind::Object,
        "give a message to everybody who listens to its topic",
    ),
    route(
        Name::Listen,
        Get,
        "/api/v1/messages",
        Token,
        Kind::Events,
        "messages as they are published (message)",
    )
    .with(&[(
        "topic",
        "string",
        "of topics that this pattern covers: * is one word, # any number of them (#)",
    )]),
    route(
        Name::Events,
        Get,
        "/api/v1/events",
        Token,
        Kind::Events,
        "what happens (process), and all processes each two seconds (processes)",
    ),
    route(Name::FollowLogs, Get, "/api/v1/logs", Token, Kind::Events, "lines as they are logged (lines), and what cannot be read (faults)")
        .with(&[
            ("target", "string", "of these processes (all)"),
            ("lines", "integer", "how many old ones of each log come first (20, at most 10000)"),
        ]),
];

/// Why there is no such thing: 404, or 405 with the methods that there are.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    Path,
    Method(String),
}

/// The route that a head takes, and its target.
pub fn find(head: &Head) -> Result<(&'static Route, Option<&str>), Missing> {
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(target) = target(route.path, &head.path) else { continue };
        if head.method == Some(route.method) {
            return Ok((route, target));
        }
        others.push(if route.method == Get { "GET, HEAD" } else { route.method.word() });
    }
    if others.is_empty() { Err(Missing::Path) } else { Err(Missing::Method(others.join(", "))) }
}

/// Whether a path is that of a pattern, and what stands for `{target}` in it.
fn target<'a>(pattern: &str, path: &'a [String]) -> Option<Option<&'a str>> {
    let mut target = None;
    let mut parts = path.iter();
    for word in pattern[1..].split('/') {
        let part = parts.next()?;
        if word == "{target}" {
            target = Some(part.as_str()).filter(|part| !part.is_empty());
            target?;
        } else if word != part {
            return None;
        }
    }
    parts.next().is_none().then_some(target)
}

/// What a request asks the daemon for. The error is one sentence: the request makes no sense.
pub fn verb(name: Name, target: &str, head: &Head, body: &[u8]) -> Result<Verb, String> {
    let targets = || vec![addressed(target)];
    let changes = Box::<Changes>::default;
    Ok(match name {
        Name::Front | Name::Metrics | Name::Logs | Name::FollowLogs | Name::Describe | Name::Past => {
            wanted(head, 1, clock::wall())?;
            pss(head)?;
            if name == Name::Past {
                past::span(head)?;
            }
            let targets = match name {
                Name::Front | Name::Metrics => vec!["all".to_string()],
                Name::FollowLogs => followed(head),
                _ => targets(),
            };
            Verb::Describe { targets }
        }
        Name::Ready | Name::Daemon => Verb::Ping,
        Name::Kill => Verb::Kill,
        Name::Update => {
            let program = std::env::current_exe()
                .map_err(|error| format!("update: find this program: {}", crate::sys::reason(&error)))?;
            // Its file was replaced by the one that it is to become.
            let text = program.to_string_lossy();
            let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
            Verb::Update { program: Text::from(path) }
        }
        Name::Health => Verb::Health { app: head.query("app").map(String::from) },
        Name::List | Name::Events => Verb::List,
        Name::Start => {
            let Started { apps, existing } = read(body)?;
            if apps.is_empty() {
                return Err("apps: there is none".to_string());
            }
            Verb::Start { apps, inherit: inherited(), existing }
        }
        Name::Delete => Verb::Delete { targets: targets() },
        Name::Begin | Name::Restart => Verb::Restart { targets: targets(), changes: changes() },
        Name::Stop => Verb::Stop { targets: targets() },
        Name::Reload => {
            let parallel = number(head, "parallel", 1..=10_000)?.map(|count| count as u32);
            Verb::Reload { targets: targets(), changes: changes(), parallel }
        }
        Name::Scale => Verb::Scale { name: target.to_string(), to: scale(body)? },
        Name::Reset => Verb::Reset { targets: targets() },
        Name::Flush => Verb::Flush { targets: targets() },
        Name::Signal => {
            let Signalled { signal } = read(body)?;
            let number = signals::parse(&signal).ok_or_else(|| format!("signal: {signal:?} is none"))?;
            Verb::Signal { targets: targets(), signal: number }
        }
        Name::Send => {
            let Sent { line } = read(body)?;
            if line.contains(['\n', '\0']) {
                return Err("line: it is more than one".to_string());
            }
            Verb::Input { targets: targets(), line: Text::from(line.as_str()) }
        }
        Name::Message => Verb::Tell { targets: targets(), message: read::<Told>(body)?.message },
        Name::History => Verb::History { name: head.query("name").map(String::from) },
        Name::Listen => Verb::Listen { patterns: vec![pattern(head).to_string()] },
        Name::Publish => {
            let Published { topic, data } = read(body)?;
            Verb::Publish { topic, data }
        }
        Name::Page | Name::Style | Name::Script | Name::Alive | Name::Description => Verb::Ping,
        Name::Host | Name::HostPast => Verb::Ping,
    })
}

/// A number is an id here, whatever names there are.
fn addressed(target: &str) -> String {
    target.parse().map_or_else(|_| target.to_string(), by_id)
}

/// What an app that is started here finds in its environment beside what was declared: what a program needs to
/// run, and nothing that was meant for us.
fn inherited() -> SharedEnv {
    const NAMES: [&str; 7] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TZ", "USER"];
    let mut env = Env::default();
    for (name, value) in NAMES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))) {
        env.set(name, &value);
    }
    SharedEnv(env.into())
}

/// The topics that are to be listened to.
pub fn pattern(head: &Head) -> &str {
    head.query("topic").unwrap_or("#")
}

/// Whose log files are to be followed.
pub fn followed(head: &Head) -> Vec<String> {
    vec![addressed(head.query("target").unwrap_or("all"))]
}

/// Which lines are wanted; so many where nothing is said.
pub fn wanted(head: &Head, usual: u64, now: Wall) -> Result<Wanted, String> {
    let moment = |name| match head.query(name) {
        None => Ok(None),
        Some(text) => Moment::read(OsStr::new(text))
            .map(|moment| Some(moment.wall(now)))
            .map_err(|expected| format!("{name}: expected {expected}")),
    };
    let level = match head.query("level") {
        None => None,
        Some(word) => {
            let level = Level::named(word.as_bytes());
            Some(level.ok_or_else(|| format!("level: expected one such as warn or error, got {word:?}"))?)
        }
    };
    let stream = match head.query("stream") {
        None => None,
        Some("out") => Some(Stream::Out),
        Some("error") => Some(Stream::Err),
        Some(other) => return Err(format!("stream: expected out or error, got {other:?}")),
    };
    let text = head.query("search").filter(|text| !text.is_empty());
    let (since, until) = (moment("since")?, moment("until")?);
    // Text as it is: nobody can say how long a regular expression of somebody else takes.
    let query = Query { since, until, level, pattern: text.map(|text| Pattern::fixed(text, true)) };
    let count = number(head, "lines", 1..=LINES_LIMIT)?.unwrap_or(usual);
    Ok(Wanted { count, stream, query })
}

/// Whether the memory of processes is to be told where what they share counts in part.
pub fn pss(head: &Head) -> Result<bool, String> {
    match head.query("pss") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("pss: expected true or false, got {other:?}")),
    }
}

/// A number of the query.
fn number(head: &Head, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, String> {
    let Some(text) = head.query(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    number.map(Some).ok_or_else(|| format!("{name}: expected a number from {least} to {most}"))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))
}

/// `{"to": 3}`, `{"add": 1}` or `{"remove": 1}`. JSON knows no difference between 3 and 3.0.
fn scale(body: &[u8]) -> Result<Scale, String> {
    let expected = || r#"the body: expected {"to": n}, {"add": n} or {"remove": n}"#.to_string();
    let fields: Map<String, Value> = read(body)?;
    let mut fields = fields.into_iter();
    let (Some((word, value)), None) = (fields.next(), fields.next()) else { return Err(expected()) };
    let count =
        value.as_f64().filter(|count| count.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(count));
    let count = count.ok_or_else(expected)? as u32;
    match word.as_str() {
        "to" => Ok(Scale::To(count)),
        "add" => Ok(Scale::Add(count)),
        "remove" => Ok(Scale::Remove(count)),
        _ => Err(expected()),
    }
}

#[derive(Deserialize)]
struct Started {
    apps: Vec<App>,
    #[serde(default = "refuse")]
    existing: Existing,
}

fn refuse() -> Existing {
    Existing::Refuse
}

#[derive(Deserialize)]
struct Signalled {
    signal: String,
}

#[derive(Deserialize)]
struct Sent {
    line: String,
}

#[derive(Deserialize)]
struct Told {
    message: Value,
}

#[derive(Deserialize)]
struct Published {
    topic: String,
    data: Value,
}

/// Those that are described; any other name and each number do as well.
const SIGNALS: [&str; 11] = [
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGALRM", "SIGCONT",
    "SIGSTOP", "SIGWINCH",
];

/// What the body of a request must be, if it needs one, as a JSON Schema.
pub fn body(name: Name) -> Option<Value> {
    let object = |required: &[&str], properties: Value| {
        Some(json!({"type": "object", "required": required, "properties": properties}))
    };
    let count = json!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
    match name {
        Name::Start => {
            let command = json!({
                "type": "object",
                "required": ["script"],
                "properties": {
                    "script": {"type": "string", "description": "an absolute path"},
                    "interpreter": {"type": ["string", "null"]},
                    "args": {"type": "array", "items": {"type": "string"}},
                    "runtime": {"enum": ["node", "bun", "launcher", "other"]},
                },
            });
            let app = json!({
                "type": "object",
                "description": "an app as the control protocol has it; what is left out has its default",
                "required": ["name", "command", "cwd"],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 128},
                    "command": command,
                    "cwd": {"type": "string", "description": "an absolute path"},
                    "env": {"type": "array", "items": {"type": "string", "pattern": "^[^=\\u0000]+=[^\\u0000]*$"}},
                },
            });
            object(
                &["apps"],
                json!({
                    "apps": {"type": "array", "minItems": 1, "items": app},
                    "existing": {"enum": ["refuse", "force", "restart", "reload"]},
                }),
            )
        }
        Name::Scale => Some(json!({
            "oneOf": [
                {"type": "object", "required": ["to"], "additionalProperties": false, "properties": {"to": count}},
                {"type": "object", "required": ["add"], "additionalProperties": false, "properties": {"add": count}},
                {"type": "object", "required": ["remove"], "additionalProperties": false, "properties": {"remove": count}},
            ],
        })),
        Name::Signal => object(&["signal"], json!({"signal": {"enum": SIGNALS}})),
        Name::Send => object(&["line"], json!({"line": {"type": "string", "pattern": "^[^\\n\\u0000]*$"}})),
        Name::Message => object(&["message"], json!({"message": {}})),
        Name::Publish => {
            let topic = json!({"type": "string", "minLength": 1, "maxLength": 256});
            object(&["topic", "data"], json!({"topic": topic, "data": {}}))
        }
        Name::Front | Name::Page | Name::Style | Name::Script | Name::Alive | Name::Ready | Name::Metrics => {
            None
        }
        Name::Description | Name::Daemon | Name::Kill | Name::Update | Name::Health => None,
        Name::Host
        | Name::HostPast
        | Name::List
        | Name::Describe
        | Name::Delete
        | Name::Begin
        | Name::Stop
        | Name::Restart => None,
        Name::Reload | Name::Reset | Name::Flush | Name::Logs | Name::Past | Name::History => None,
        Name::Listen | Name::Events | Name::FollowLogs => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str) -> Head {
        let bytes = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        super::super::http::read(bytes.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn requests_find_their_route() {
        for (method, path, expected) in [
            ("GET", "/", Ok((Name::Front, None))),
            ("HEAD", "/metrics", Ok((Name::Metrics, None))),
            ("GET", "/api/v1/processes", Ok((Name::List, None))),
            ("POST", "/api/v1/processes/a%20b/reload?parallel=2", Ok((Name::Reload, Some("a b")))),
            ("DELETE", "/api/v1/processes/3", Ok((Name::Delete, Some("3")))),
            ("GET", "/api/v1/processes/", Err(Missing::Path)),
            ("GET", "/api/v1", Err(Missing::Path)),
            ("GET", "/metrics/", Err(Missing::Path)),
            ("PUT", "/api/v1/processes", Err(Missing::Method("GET, HEAD, POST".to_string()))),
            ("GET", "/api/v1/processes/3/stop", Err(Missing::Method("POST".to_string()))),
            ("OPTIONS", "/", Err(Missing::Method("GET, HEAD".to_string()))),
        ] {
            let head = head(method, path);
            let found = find(&head).map(|(route, target)| (route.name, target));
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn requests_become_what_the_daemon_understands() {
        let ask = |name, target: &str, path: &str, body: &str| {
            verb(name, target, &head("POST", path), body.as_bytes())
        };
        assert_eq!(ask(Name::Stop, "3", "/", ""), Ok(Verb::Stop { targets: vec![by_id(3)] }));
        assert_eq!(ask(Name::Stop, "api", "/", ""), Ok(Verb::Stop { targets: vec!["api".to_string()] }));
        let to = Scale::Add(2);
        assert_eq!(ask(Name::Scale, "3", "/", r#"{"add":2}"#), Ok(Verb::Scale { name: "3".to_string(), to }));
        let to = Scale::To(3);
        assert_eq!(
            ask(Name::Scale, "a", "/", r#"{"to":3.0}"#),
            Ok(Verb::Scale { name: "a".to_string(), to })
        );
        let targets = vec!["all".to_string()];
        assert_eq!(
            ask(Name::Signal, "all", "/", r#"{"signal":"HUP"}"#),
            Ok(Verb::Signal { targets, signal: 1 })
        );
        for (name, path, body) in [
            (Name::Scale, "/", "{}"),
            (Name::Scale, "/", r#"{"to":-1}"#),
            (Name::Signal, "/", r#"{"signal":"NONE"}"#),
            (Name::Send, "/", r#"{"line":"a\nb"}"#),
            (Name::Publish, "/", r#"{"topic":"x"}"#),
            (Name::Scale, "/", r#"{"to":1,"add":1}"#),
            (Name::Scale, "/", r#"{"to":1.5}"#),
            (Name::Start, "/", r#"{"apps":[]}"#),
            (Name::Start, "/", "["),
            (Name::Reload, "/?parallel=0", ""),
            (Name::Reload, "/?parallel=x", ""),
        ] {
            assert!(ask(name, "a", path, body).is_err(), "{name:?} {body}");
        }
    }
}
