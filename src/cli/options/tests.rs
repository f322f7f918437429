use std::ffi::OsString;

use super::{Options, Streams};
use crate::app::{
    Balance, Budget, Changes, Combined, Filter, Format, Instances, KillMode, LogChanges, Mode, Overlap,
    Stdin, Text, TriggerChanges, Watched, logs, stop, units,
};
use crate::cli::parse::parse;
use crate::time::Millis;

fn options(line: &[&str]) -> Result<Options, String> {
    Options::of(&parse(line.iter().map(OsString::from)).unwrap())
}

#[test]
fn every_option_of_an_app_arrives() {
    let found = options(&[
        "start",
        "a.js",
        "-n",
        "api",
        "--namespace",
        "web",
        "-i",
        "-1",
        "-x",
        "--interpreter",
        "none",
        "--node-args",
        "--a 'b c'",
        "--cwd",
        "/srv",
        "-o",
        "o",
        "-e",
        "e",
        "-p",
        "p",
        "--merge-logs",
        "-l",
        "both",
        "--time",
        "--log-type",
        "json",
        "--disable-logs",
        "--stdin",
        "pipe",
        "--wait-ready",
        "--listen-timeout",
        "1s",
        "--bake-time",
        "2",
        "--drain-timeout",
        "3",
        "-k",
        "4",
        "--stop-signal",
        "term",
        "--stop-sequence",
        "TERM 1s, INT 2s",
        "--shutdown-with-message",
        "--kill-mode",
        "group",
        "--no-autostart",
        "--max-restarts",
        "5",
        "--restart-window",
        "9",
        "--min-uptime",
        "6",
        "--restart-delay",
        "7",
        "--exp-backoff-restart-delay",
        "8",
        "--no-autorestart",
        "--stop-exit-codes",
        "0,3",
        "--stop-exit-codes",
        "4 5",
        "--max-memory-restart",
        "300M",
        "-c",
        "0 3 * * *",
        "--schedule",
        "0",
        "--cron-timezone",
        "Europe/Berlin",
        "--overlap",
        "queue",
        "--watch=src,lib",
        "--ignore-watch",
        "*.log tmp",
        "--ext",
        "js",
        "--watch-delay",
        "9",
        "--uid",
        "www",
        "--gid",
        "33",
        "-a",
        "--filter-env",
        "AWS_",
        "--filter-env",
        "*_KEY",
        "--balance",
        "rr",
        "-f",
        "--only",
        "a,b c",
        "--",
        "x",
        "-y",
    ])
    .unwrap();
    let texts = |words: &[&str]| Some(words.iter().map(Text::from).collect::<Vec<_>>());
    let expected = Changes {
        name: Some("api".to_string()),
        namespace: Some("web".to_string()),
        interpreter_args: texts(&["--a", "b c"]),
        args: texts(&["x", "-y"]),
        cwd: Some(Text::from("/srv")),
        env: None,
        inherit: None,
        filter_env: Some(Filter::Named(vec!["AWS_*".to_string(), "*_KEY".to_string()])),
        instance_var: None,
        increment_var: None,
        instances: Some(Instances::CpusLess(1)),
        mode: Some(Mode::Fork),
        balance: Some(Balance::Rr),
        out_file: Some(Text::from("o")),
        error_file: Some(Text::from("e")),
        merge_logs: Some(true),
        logs: LogChanges {
            date: Some(logs::TIME.to_string()),
            format: Some(Format::Json),
            combined: Some(Combined::File(Text::from("both"))),
            disabled: Some(true),
            ..LogChanges::default()
        },
        pid_file: Some(Text::from("p")),
        wait_ready: Some(true),
        ready: None,
        watchdog: None,
        health: None,
        listen_timeout: Some(Millis(1000)),
        bake_time: Some(Millis(2)),
        drain_timeout: Some(Millis(3)),
        kill_timeout: Some(Millis(4)),
        stop_signal: Some(15),
        stop_sequence: stop::sequence("15 1s,2 2s"),
        shutdown_with_message: Some(true),
        kill_mode: Some(KillMode::Group),
        depends_on: None,
        stdin: Some(Stdin::Pipe),
        pre_start: None,
        post_stop: None,
        hook_timeout: None,
        on: None,
        post_update: None,
        autostart: Some(false),
        autorestart: Some(false),
        stop_exit_codes: Some(vec![0, 3, 4, 5]),
        min_uptime: Some(Millis(6)),
        max_restarts: Some(Budget::Ends(5)),
        restart_window: Some(Millis(9)),
        restart_delay: Some(Millis(7)),
        exp_backoff: Some(Millis(8)),
        triggers: TriggerChanges {
            max_memory: Some(units::Memory::Bytes(300 << 20)),
            cron: Some("0 3 * * *".to_string()),
            schedule: Some(String::new()),
            zone: Some("Europe/Berlin".to_string()),
            overlap: Some(Overlap::Queue),
            watch: Some(Watched::Paths(vec![Text::from("src"), Text::from("lib")])),
            ignore: Some(vec!["*.log".to_string(), "tmp".to_string()]),
            extensions: Some(vec!["js".to_string()]),
            delay: Some(Millis(9)),
        },
        user: None,
        limits: None,
        umask: None,
        no_new_privs: None,
        capabilities: None,
    };
    assert_eq!(found.changes, expected);
    let mut overlaid = Changes::default();
    overlaid.overlay(&expected);
    overlaid.overlay(&Changes::default());
    assert_eq!(overlaid, expected);
    assert_eq!((found.user.as_deref(), found.group.as_deref()), (Some("www"), Some("33")));
    assert_eq!(found.only, Some(["a", "b", "c"].map(String::from).to_vec()));
    assert!(found.force && found.update_env);
    assert_eq!(found.interpreter.as_deref(), Some("none"));
}

#[test]
fn streams_and_numbers() {
    assert_eq!(options(&["logs"]).unwrap().streams, Streams::Both);
    assert_eq!(options(&["logs", "--err"]).unwrap().streams, Streams::Err);
    assert_eq!(options(&["logs", "--out", "--out"]).unwrap().streams, Streams::Out);
    assert_eq!(options(&["logs", "--out", "--err"]).unwrap().streams, Streams::Both);
    assert_eq!(options(&["reload", "all", "--parallel", "4"]).unwrap().parallel, Some(4));
    assert_eq!(options(&["daemon", "--lock-fd", "3"]).unwrap().lock_fd, Some(3));
}

#[test]
fn a_wrong_value_is_one_sentence() {
    for (line, sentence) in [
        (
            &["start", "a", "-i", "two"][..],
            "--instances: expected a number of instances, or max, got \"two\"",
        ),
        (
            &["start", "a", "-k", "soon"],
            "--kill-timeout: expected milliseconds, or a length of time such as 10s, got \"soon\"",
        ),
        (&["start", "a", "--balance", "x"], "--balance: expected reuseport, rr or shared, got \"x\""),
        (&["start", "a", "--name", ""], "--name: expected something that is not empty, got \"\""),
        (
            &["start", "a", "--stop-exit-codes", "300"],
            "--stop-exit-codes: expected exit codes, separated by commas, got \"300\"",
        ),
        (
            &["start", "a", "--node-args", "'x"],
            "--interpreter-args: expected arguments (a quote ' is not closed), got \"'x\"",
        ),
        (&["reload", "a", "--parallel", "0"], "--parallel: expected a number above 0, got \"0\""),
        (&["logs", "--lines", "-3"], "--lines: expected a number of lines, got \"-3\""),
        (&["daemon", "--lock-fd", "1"], "--lock-fd: expected an fd above 2, got \"1\""),
    ] {
        assert_eq!(options(line).unwrap_err(), sentence);
    }
}
