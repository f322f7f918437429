use super::{read as read_document, *};
use crate::app::{Balance, Budget, Instances, Mode};
use crate::time::Millis;

fn read(file: &str, text: &str) -> Result<Declarations, String> {
    let document = Document::json(text).map_err(|fault| format!("{file}:{fault}"))?;
    read_document(file, &document)
}

fn one(text: &str) -> Declared {
    let mut found = read("a.json", text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!((found.apps.len(), found.warnings.len()), (1, 0), "{:?}", found.warnings);
    Declared { line: None, ..found.apps.remove(0) }
}

fn texts(words: &[&str]) -> Option<Vec<Text>> {
    Some(words.iter().map(Text::from).collect())
}

/// The example of pm2 0.x, with the array around it that its own documentation lost.
const SEED: &str = r#"[{
    "name"         : "echo",
    "script"       : "./examples/args.js",
    "args"         : "['--toto=heya coco', '-d', '1']",
    "instances"    : "4",
    "exec_mode"    : "cluster_mode",
    "error_file"   : "./examples/child-err.log",
    "out_file"     : "./examples/child-out.log",
    "min_uptime"   : "100",
    "max_restarts" : "400",
    "max"          : "10",
    "cron_restart" : "0",
    "port"         : 9005
}, {
    "name"      : "api",
    "script"    : "./examples/child.js",
    "instances" : "max",
    "exec_mode" : "fork_mode",
    "greeting"  : "hello",
    "DEBUG"     : true
}]"#;

#[test]
fn the_example_of_the_first_pm2_is_understood() {
    let found = read("processes.json", SEED).unwrap();
    let [echo, api] = &found.apps[..] else { panic!("{found:?}") };
    assert_eq!(echo.script, Text::from("./examples/args.js"));
    assert_eq!(echo.changes.name.as_deref(), Some("echo"));
    assert_eq!(echo.changes.args, texts(&["--toto=heya coco", "-d", "1"]));
    assert_eq!(echo.changes.instances, Some(Instances::Count(4)));
    assert_eq!(echo.changes.mode, Some(Mode::Cluster));
    assert_eq!(echo.changes.error_file, Some(Text::from("./examples/child-err.log")));
    assert_eq!(echo.changes.out_file, Some(Text::from("./examples/child-out.log")));
    assert_eq!(echo.changes.min_uptime, Some(Millis(100)));
    assert_eq!(echo.changes.max_restarts, Some(Budget::Ends(400)));
    assert_eq!(echo.env.get("PORT"), Some(&Text::from("9005")));
    assert_eq!(echo.env.get("port"), Some(&Text::from("9005")));
    assert_eq!(echo.env.0.len(), 2);
    assert_eq!(api.changes.instances, Some(Instances::CpusLess(0)));
    assert_eq!(api.changes.mode, Some(Mode::Fork));
    assert_eq!(api.env.get("greeting"), Some(&Text::from("hello")));
    assert_eq!(api.env.get("DEBUG"), Some(&Text::from("true")));
    assert_eq!(
        found.warnings,
        ["processes.json:20: app \"api\": DEBUG, greeting are no options: they become environment variables"]
    );
}

#[test]
fn apps_stand_in_any_of_the_known_places() {
    for text in [
        r#"{"script": "a.js"}"#,
        r#"[{"script": "a.js"}]"#,
        r#"{"apps": [{"script": "a.js"}]}"#,
        r#"{"apps": {"script": "a.js"}, "deploy": {"production": {}}}"#,
        r#"{"name": "package", "version": "1.0.0", "pm2": [{"script": "a.js"}]}"#,
        "\u{feff}{\"script\": \"a.js\"}",
    ] {
        assert_eq!(one(text).script, Text::from("a.js"), "{text}");
    }
}

#[test]
fn every_spelling_of_a_field_is_the_same_field() {
    let plain = one(
        r#"{"script": "a.js", "max_restarts": 3, "kill_timeout": 500, "wait_ready": true, "interpreter": "none",
            "out_file": "o", "error_file": "e", "node_args": ["--x"], "uid": "www", "gid": 33, "balance": "rr",
            "exp_backoff_restart_delay": 100, "merge_logs": true, "stop_exit_codes": [0, "3"], "instances": -1,
            "min_uptime": "10s", "autorestart": false, "env": {"A": 1, "B": "x", "C": {"d": [1]}, "E": null}}"#,
    );
    let other = one(
        r#"{"cmd": "a.js", "maxRestarts": "3", "killTimeout": "500", "waitReady": "true", "execInterpreter": "none",
            "output": "o", "errLog": "e", "interpreterArgs": "--x", "user": "www", "gid": "33", "balance": "rr",
            "expBackoffRestartDelay": "100", "combineLogs": "true", "stopExitCodes": [0, 3], "instances": "-1",
            "minUptime": 10000, "autorestart": "false", "env": {"A": "1", "B": "x", "C": "{\"d\":[1]}"}}"#,
    );
    assert_eq!(plain, other);
    assert_eq!(plain.changes.max_restarts, Some(Budget::Ends(3)));
    assert_eq!(plain.changes.balance, Some(Balance::Rr));
    assert_eq!(plain.changes.stop_exit_codes, Some(vec![0, 3]));
    assert_eq!(plain.changes.instances, Some(Instances::CpusLess(1)));
    assert_eq!(plain.group.as_deref(), Some("33"));
    assert_eq!(plain.env.0.len(), 3);
    assert_eq!(plain.env.get("C"), Some(&Text::from(r#"{"d":[1]}"#)));
    let forked = one(r#"{"script": "a.js", "exec_mode": "cluster", "execute_command": false}"#);
    assert_eq!(forked.changes.mode, Some(Mode::Cluster));
}

#[test]
fn a_field_that_asks_for_nothing_passes() {
    let quiet = one(r#"{"script": "a.js",
            "vizion": false, "pmx": false, "time": false, "watchOptions": {},
            "restart_delay": null}"#);
    assert_eq!(quiet, Declared { script: Text::from("a.js"), ..Declared::default() });
}

#[test]
fn what_has_no_effect_here_is_said_and_a_prefix_is_part_of_the_name() {
    let text = r#"[{"script": "a.js", "name": "x", "trace": true, "io": {"a": 1}, "v8": false, "windows_hide": true},
        {"script": "a.js", "name_prefix": "shop", "deepMonitoring": "true"}]"#;
    let found = read("f.json", text).unwrap();
    assert_eq!(
        found.warnings,
        [
            "f.json:1: app \"x\": io, trace are of pm2 and have no effect here",
            "f.json:2: app 2: deepMonitoring is of pm2 and has no effect here"
        ]
    );
    assert_eq!(found.apps[1].name(), "shop:a");
}

#[test]
fn every_fault_is_one_sentence_that_says_where() {
    for (text, sentence) in [
        ("{\n  \"script\": }", "f.json:2:13: expected a value, got '}'"),
        ("", "f.json:1:1: expected a value, got the end"),
        ("3", "f.json: expected an object or an array of apps, got a number"),
        ("[]", "f.json: it declares no apps"),
        ("[3]", "f.json:1: app 1: expected an object, got a number"),
        (r#"{"apps": "x"}"#, "f.json:1: apps: expected an array of apps, got a string"),
        (r#"{"apps": [], "static": []}"#, "f.json: it declares no apps"),
        (r#"{"name": "x"}"#, "f.json:1: app \"x\": script is missing"),
        (r#"[{"script": "a"}, {"x": 1}]"#, "f.json:1: app 2: script is missing"),
        (r#"{"script": 3}"#, "f.json:1: app 1: script: expected the path of a script or a command, got 3"),
        (
            r#"{"name": "x", "script": "a", "instances": "two"}"#,
            "f.json:1: app \"x\": instances: expected a number of instances, or \"max\", got \"two\"",
        ),
        (
            r#"{"script": "a", "min_uptime": "soon"}"#,
            "f.json:1: app 1: min_uptime: expected milliseconds, or a length of time such as \"10s\", got \"soon\"",
        ),
        (
            r#"{"script": "a", "maxRestarts": []}"#,
            "f.json:1: app 1: maxRestarts: expected a number or \"unlimited\", got an array",
        ),
        (
            r#"{"script": "a", "max_restarts": -2}"#,
            "f.json:1: app 1: max_restarts: expected a number or \"unlimited\", got -2",
        ),
        (r#"{"script": "a", "port": 70000}"#, "f.json:1: app 1: port: expected a port number, got 70000"),
        (r#"{"script": "a", "merge_logs": 1}"#, "f.json:1: app 1: merge_logs: expected true or false, got 1"),
        (
            r#"{"script": "a", "exec_mode": "threads"}"#,
            "f.json:1: app 1: exec_mode: expected \"fork\", \"cluster\", \"fork_mode\" or \"cluster_mode\", got \"threads\"",
        ),
        (
            r#"{"script": "a", "balance": "best"}"#,
            "f.json:1: app 1: balance: expected \"reuseport\", \"rr\" or \"shared\", got \"best\"",
        ),
        (
            r#"{"script": "a", "env": "A=1"}"#,
            "f.json:1: app 1: env: expected an object of variables, got \"A=1\"",
        ),
        (
            r#"{"script": "a", "env": {"A=B": "1"}}"#,
            "f.json:1: app 1: env: expected an object of variables (\"A=B\" cannot be the name of an environment variable), got an object",
        ),
        (
            r#"{"script": "a", "stop_exit_codes": [256]}"#,
            "f.json:1: app 1: stop_exit_codes: expected an exit code or an array of them, got an array",
        ),
        (r#"{"script": "a", "out_file": false}"#, "f.json:1: app 1: out_file: expected a path, got false"),
        (
            r#"{"script": "a", "args": "['x"}"#,
            "f.json:1: app 1: args: expected an array of strings, or one string that is split as a shell would (a quote ' is not closed), got \"['x\"",
        ),
        (
            r#"{"script": "a", "watch": [1]}"#,
            "f.json:1: app 1: watch: expected true, a path or an array of paths, got an array",
        ),
        (
            r#"{"script": "a", "cron_restart": "0 25 * * *"}"#,
            "f.json:1: app 1: cron_restart: expected a cron pattern (a hour from 0 to 23, not \"25\"), got \"0 25 * * *\"",
        ),
        (
            r#"{"script": "a", "max_memory_restart": "much"}"#,
            "f.json:1: app 1: max_memory_restart: expected bytes, an amount such as \"300M\", or a share such as \"80%\", got \"much\"",
        ),
        (
            r#"{"script": "a", "log_type": "xml"}"#,
            "f.json:1: app 1: log_type: expected \"raw\" or \"json\", got \"xml\"",
        ),
        (
            r#"{"script": "a", "log_file": 3}"#,
            "f.json:1: app 1: log_file: expected a path, or true for the usual one, got 3",
        ),
        (
            r#"{"script": "a", "nested": {"x": 1}}"#,
            "f.json:1: app 1: nested: no such field, and not a value that could be an environment variable",
        ),
    ] {
        match read("f.json", text) {
            Err(error) => assert_eq!(error, sentence, "{text}"),
            Ok(found) => panic!("{text}: {found:?}"),
        }
    }
}

#[test]
fn a_name_is_taken_once() {
    for (text, sentence) in [
        (
            "[{\"script\": \"a.js\"},\n {\"script\": \"b\",\n  \"name\": \"a\"}]",
            "f.json:2: app 2: the name \"a\" is that of app 1 on line 1 already",
        ),
        (
            r#"{"apps": [{"script": "x"}, {"script": "npm start"}, {"script": "npm test"}]}"#,
            "f.json:1: app 3: the name \"npm\" is that of app 2 on line 1 already",
        ),
    ] {
        assert_eq!(read("f.json", text).unwrap_err(), sentence);
        let computed = Document::computed(Document::json(text).unwrap().value);
        let error = read_document("f.config.js", &computed).unwrap_err();
        assert!(error.starts_with("f.config.js: app ") && !error.contains("line"), "{error}");
    }
    let text = r#"[{"script": "a"}, {"script": "a", "namespace": "other"}]"#;
    assert_eq!(read("f.json", text).unwrap().apps.len(), 2);
}

#[test]
fn random_documents_never_panic() {
    let mut state = 3u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let keys =
        ["script", "args", "instances", "env", "watch", "port", "min_uptime", "autostart", "uid", "éÉ", ""];
    let values =
        ["1", "-1", "\"max\"", "\"['\"", "null", "true", "{}", "[1,\"x\",null]", "1e300", "\"\\u0000\""];
    for _ in 0..5_000 {
        let fields: Vec<_> = (0..4)
            .map(|_| format!("\"{}\": {}", keys[random(keys.len())], values[random(values.len())]))
            .collect();
        let _ = read("f.json", &format!("{{{}}}", fields.join(", ")));
    }
}

#[test]
fn the_example_that_ships_with_pmx_is_valid() {
    let found = read("processes.json", include_str!("../../../examples/processes.json")).unwrap();
    assert_eq!((found.apps.len(), found.warnings.len()), (3, 0));
}

#[test]
fn no_name_of_a_field_is_taken_twice() {
    let mut names: Vec<_> = fields::FIELDS.iter().flat_map(|field| field.names).collect();
    names.sort();
    let doubled: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(doubled.is_empty(), "twice in the table: {doubled:?}");
    for name in names {
        assert_eq!(fields::snake(name), **name);
    }
}

#[test]
fn what_is_said_to_be_a_default_is_one() {
    use crate::app::App;
    let mut tried = 0;
    for field in fields::FIELDS.iter().filter(|field| !field.default.is_empty()) {
        let declared = one(&format!("{{\"script\": \"a\", {:?}: {}}}", field.names[0], field.default));
        let mut app = App::default();
        declared.changes.apply(&mut app);
        assert_eq!(app, App::default(), "{}", field.names[0]);
        tried += 1;
    }
    assert!(tried > 15);
}

#[test]
fn every_schema_is_json_and_every_value_is_written_as_it_is_read() {
    for field in fields::FIELDS {
        assert!(
            field.kind.schema().is_object() || matches!(field.kind, Kind::Ignored | Kind::Foreign),
            "{:?}",
            field.names
        );
        if !field.default.is_empty() {
            let mut declared =
                one(&format!("{{\"script\": \"a\", {:?}: {}}}", field.names[0], field.default));
            if let Some(written) = field.kind.get(&mut declared) {
                assert_eq!(written.to_string(), field.default, "{}", field.names[0]);
            }
        }
    }
}

#[test]
fn a_slip_is_no_variable() {
    for (key, meant) in
        [("max_restart", "max_restarts"), ("maxRestart", "max_restarts"), ("scirpt", "script")]
    {
        assert_eq!(
            read("f.json", &format!(r#"{{"script": "a", "{key}": 3}}"#)).unwrap_err(),
            format!(
                "f.json:1: app 1: {key}: no such field: did you mean {meant}? (a variable of this name goes under env)"
            )
        );
    }
    let found = read("f.json", r#"{"script": "a", "NAMES": 3, "greeting": "hello"}"#).unwrap();
    assert_eq!(found.apps[0].env.0.len(), 2);
}
