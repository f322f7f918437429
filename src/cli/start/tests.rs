use crate::app::{Instances, Mode, Runtime, Text};
use crate::cli::testing::{FakeDaemon, TestHome, done, run_line, view};
use crate::protocol::{Answer, Existing, Failure, Message, Outcome, Status, Verb};

fn daemon(home: &TestHome) -> FakeDaemon {
    FakeDaemon::start(&home.home, |request, _| {
        let answer = match &request.verb {
            Verb::List => {
                Answer::List(vec![view(0, "api", Status::Online), view(3, "api.v2", Status::Stopped)])
            }
            Verb::Start { apps, .. } => {
                Answer::Outcomes(apps.iter().zip(7..).map(|(app, id)| done(id, &app.name)).collect())
            }
            _ => Answer::Outcomes(vec![done(0, "api")]),
        };
        Message::Done { id: request.id, answer }
    })
}

fn write(home: &TestHome, name: &str, text: &str) {
    std::fs::write(home.home.path.join(name), text).unwrap();
}

fn verbs(daemon: &FakeDaemon) -> Vec<Verb> {
    daemon.requests().into_iter().map(|request| request.verb).collect()
}

#[test]
fn a_script_is_resolved_here_and_started_there() {
    let home = TestHome::new("start-script");
    write(&home, "run.sh", "echo hi\n");
    let daemon = daemon(&home);
    let line = ["start", "run.sh", "-i", "2", "-n", "web", "--", "--x"];
    let (code, out, err) = run_line(&home.caller, &line);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "start web(7): online\n", ""));
    // A word with a dot that is a file is no process: nobody is asked for it.
    let [Verb::Start { apps, inherit, existing }] = &verbs(&daemon)[..] else {
        panic!("{:?}", verbs(&daemon))
    };
    assert_eq!((apps.len(), *existing), (1, Existing::Refuse));
    assert_eq!((apps[0].name.as_str(), apps[0].mode), ("web", Mode::Cluster));
    assert_eq!((apps[0].instances, apps[0].command.runtime), (Instances::Count(2), Runtime::Launcher));
    assert_eq!(apps[0].command.args, [Text::from("--x")]);
    assert!(inherit.0.get("PATH").is_some() && apps[0].inherit.0.0.is_empty());
}

#[test]
fn a_word_that_exists_is_restarted() {
    let home = TestHome::new("start-word");
    let daemon = daemon(&home);
    for word in ["api", "default", "3", "api.v2"] {
        let (code, out, err) = run_line(&home.caller, &["start", word, "--update-env"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "start api(0): online\n", ""), "{word}");
        match verbs(&daemon).pop() {
            Some(Verb::Restart { targets, changes }) => {
                assert_eq!(targets, [word]);
                assert!(changes.inherit.is_some());
            }
            other => panic!("{other:?}"),
        }
    }
    let (code, _, err) = run_line(&home.caller, &["start", "nothing-of-the-kind"]);
    assert_eq!((code, err.as_str()), (1, "start nothing-of-the-kind: no such file\n"));
}

#[test]
fn what_is_wrong_starts_no_daemon() {
    let home = TestHome::new("start-wrong");
    write(&home, "bad.json", r#"[{"script": "a.sh"}, {"name": "b", "script": "gone.sh"}]"#);
    write(&home, "a.sh", "");
    write(&home, "watch.json", r#"{"name": "w", "script": "a.sh", "watch": "gone"}"#);
    for (line, sentence) in [
        (&["start"][..], "start: nothing given, and no ecosystem.config.js or processes.json is here"),
        (&["start", "api.js"], "start api.js: no such file"),
        (&["start", "api"], "start api: no such file"),
        (&["start", "bad.json"], "bad.json:1: app \"b\": gone.sh: no such file"),
        (&["start", "watch.json"], "watch.json:1: app \"w\": a.sh: watch gone: no such file or directory"),
        (&["start", "none.json"], "start none.json: no such file"),
        (&["start", "bad.json", "--only", "zzz"], "bad.json: --only zzz: no such app in it"),
        (&["start", "a.sh", "--only", "a"], "start a.sh: --only chooses from a declaration file"),
        (&["start", "a.sh", "a.sh", "--name", "x"], "start a.sh: one --name cannot be given to 2 apps"),
        (&["start", "x.yml"], "start x.yml: no such file"),
        (&["stop"], "stop needs <all|id|name|namespace|/regex/|script|file.json>... (see pmx help stop)"),
        (&["list", "x"], "list does not take \"x\" (see pmx help list)"),
        (
            &["scale", "api", "many"],
            "scale: expected a number of instances such as 3, +2 or -1, got \"many\"",
        ),
        (&["sendSignal", "SIGFOO", "api"], "sendSignal: unknown signal \"SIGFOO\""),
        (&["restart", "api", "--cwd", "/nonexistent"], "working directory /nonexistent: no such directory"),
    ] {
        let (code, out, err) = run_line(&home.caller, line);
        assert_eq!((code, out.as_str(), err.trim_end()), (1, "", sentence), "{line:?}");
    }
    assert!(!home.home.lock().exists(), "nobody took the lock");
}

#[test]
fn a_file_starts_what_is_missing_and_restarts_the_rest() {
    let home = TestHome::new("start-file");
    write(&home, "a.sh", "");
    write(
        &home,
        "apps.json",
        r#"{"apps": [{"name": "one", "script": "a.sh", "color": "red"}, {"name": "two", "script": "a.sh", "instances": 2}]}"#,
    );
    let daemon = daemon(&home);
    let (code, out, err) = run_line(&home.caller, &["start", "apps.json", "--kill-timeout", "9"]);
    assert_eq!((code, out.as_str()), (0, "start one(7): online\nstart two(8): online\n"));
    assert_eq!(err, "apps.json:1: app \"one\": color is no option: it becomes an environment variable\n");
    match &verbs(&daemon)[..] {
        [Verb::Start { apps, existing: Existing::Restart, .. }] => {
            assert_eq!(apps.iter().map(|app| app.kill_timeout.0).collect::<Vec<_>>(), [9, 9]);
            assert_eq!(apps[0].env.get("color"), Some(&Text::from("red")));
            assert!(!apps[0].merge_logs && !apps[1].merge_logs);
        }
        other => panic!("{other:?}"),
    }
    let (code, out, _) = run_line(&home.caller, &["restart", "apps.json", "--only", "two"]);
    assert_eq!((code, out.as_str()), (0, "restart two(7): online\n"));
    let (code, ..) = run_line(&home.caller, &["delete", "apps.json", "other"]);
    assert_eq!(code, 0);
    let targets = ["one", "two", "other"].map(String::from).to_vec();
    assert_eq!(verbs(&daemon).pop(), Some(Verb::Delete { targets }));
}

#[test]
fn too_much_for_one_request_becomes_several() {
    let home = TestHome::new("start-split");
    write(&home, "a.sh", "");
    let big = "x".repeat(300_000);
    let app = |name: &str| format!(r#"{{"name": "{name}", "script": "a.sh", "env": {{"BIG": "{big}"}}}}"#);
    write(&home, "big.json", &format!("[{}]", ["a", "b", "c", "d"].map(app).join(",")));
    let daemon = daemon(&home);
    let (code, out, err) = run_line(&home.caller, &["start", "big.json", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let outcomes: Vec<Outcome> = serde_json::from_str(&out).unwrap();
    assert_eq!(outcomes.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(verbs(&daemon).len(), 2);
    let bigger = "x".repeat(2_000_000);
    write(&home, "huge.json", &format!(r#"{{"name": "huge", "script": "a.sh", "args": ["{bigger}"]}}"#));
    let (code, _, err) = run_line(&home.caller, &["start", "huge.json"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("start huge: the request is 2") && err.contains("at most 1048576"), "{err}");
}

#[test]
fn a_failure_is_told_with_the_last_words_and_exit_code_one() {
    let home = TestHome::new("act-fail");
    let failure = Failure {
        reason: "it ended before it was ready: exit code 1".to_string(),
        last_lines: vec!["Error: boom".to_string(), "\x1b[31mat x.js\x1b[0m".to_string()],
    };
    let _daemon = FakeDaemon::start(&home.home, move |request, _| {
        let failed = Outcome { failure: Some(failure.clone()), ..done(3, "api") };
        Message::Done { id: request.id, answer: Answer::Outcomes(vec![done(2, "api"), failed]) }
    });
    let (code, out, err) = run_line(&home.caller, &["reload", "api"]);
    assert_eq!((code, out.as_str()), (1, "reload api(2): online\n"));
    assert_eq!(
        err,
        "reload api(3): it ended before it was ready: exit code 1\n    Error: boom\n    \\x1b[31mat x.js\\x1b[0m\n"
    );
    let (code, out, err) = run_line(&home.caller, &["reload", "api", "--json"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.contains("\"reason\":\"it ended before"), "{out}");
    let (code, out, _) = run_line(&home.caller, &["reload", "api", "-s"]);
    assert_eq!((code, out.as_str()), (1, ""));
}

#[test]
fn what_takes_long_is_told_as_it_happens() {
    let home = TestHome::new("act-progress");
    let _daemon = FakeDaemon::start(&home.home, |request, lines| {
        std::thread::sleep(super::super::act::PATIENCE);
        let progress = r#"{"outcome": {"id": 3, "name": "api"}, "settled": 1, "total": 2}"#;
        lines.push(format!(r#"{{"progress": {{"id": {}, "progress": {progress}}}}}"#, request.id));
        Message::Done { id: request.id, answer: Answer::Outcomes(vec![done(3, "api"), done(4, "api")]) }
    });
    let (code, out, _) = run_line(&home.caller, &["reload", "api"]);
    assert_eq!((code, out.as_str()), (0, "reload api(3): online (1/2)\nreload api(4): online\n"));
}

#[test]
fn scale_tells_what_came_and_what_went() {
    let home = TestHome::new("scale");
    let daemon = FakeDaemon::start(&home.home, |request, _| {
        let answer = match &request.verb {
            Verb::Scale { .. } => Answer::Outcomes(vec![done(0, "api"), done(9, "api")]),
            _ => Answer::List(vec![view(0, "api", Status::Online)]),
        };
        Message::Done { id: request.id, answer }
    });
    let (code, out, _) = run_line(&home.caller, &["scale", "api", "-1"]);
    assert_eq!((code, out.as_str()), (0, "scale api(0): online\nscale api(9): removed\n"));
    let to = crate::protocol::Scale::Remove(1);
    assert_eq!(verbs(&daemon)[0], Verb::Scale { name: "api".to_string(), to });
}

#[test]
fn ping_and_kill_start_nothing() {
    let home = TestHome::new("ping");
    let (code, out, err) = run_line(&home.caller, &["ping"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("no daemon runs in "), "{err}");
    let (code, out, err) = run_line(&home.caller, &["kill"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("no daemon runs in "), "{out}");
    let (code, out, _) = run_line(&home.caller, &["-v"]);
    assert_eq!((code, out.as_str()), (0, concat!(env!("CARGO_PKG_VERSION"), "\n")));
    assert_eq!(run_line(&home.caller, &[]).0, 1);
    assert_eq!(run_line(&home.caller, &["help", "start"]).1, run_line(&home.caller, &["start", "-h"]).1);
    assert!(!home.home.lock().exists());
}
