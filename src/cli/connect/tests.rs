use super::*;
use crate::cli::testing::{FakeDaemon, TestHome, write_program};
use std::os::unix::fs::PermissionsExt;

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(60)
}

fn pong() -> Answer {
    Answer::Pong { version: "9.9.9".to_string(), pid: 7 }
}

#[test]
fn a_request_gets_its_progress_and_its_answer() {
    let home = TestHome::new("request");
    let daemon = FakeDaemon::start(&home.home, |request, answers| {
        let progress = r#"{"outcome": {"id": 3, "name": "api"}, "settled": 1, "total": 2}"#;
        answers.push(format!(r#"{{"progress": {{"id": {}, "progress": {progress}}}}}"#, request.id));
        answers.push(format!(r#"{{"progress": {{"id": {}, "progress": {progress}}}}}"#, request.id + 50));
        Message::Done { id: request.id, answer: pong() }
    });
    let mut connection = Connection::open(&home.home, &home.caller).unwrap();
    let mut settled = Vec::new();
    for _ in 0..2 {
        let answer = connection.request(Verb::Ping, &mut |progress| settled.push(progress.outcome.id));
        assert_eq!(answer, Ok(pong()));
    }
    assert_eq!(settled, [3, 3]);
    drop(connection);
    let verbs = daemon.requests();
    assert_eq!(verbs.iter().map(|request| request.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_the_daemon_refuses_and_what_it_cannot_take() {
    let home = TestHome::new("refuse");
    let _daemon = FakeDaemon::start(&home.home, |_, _| Message::Error { id: 0, error: "no".to_string() });
    let mut connection = Connection::open(&home.home, &home.caller).unwrap();
    let refused = connection.request(Verb::Ping, &mut |_| {});
    assert_eq!(refused, Err(RequestError::Refused("no".to_string())));
    let targets = vec!["x".repeat(FRAME_LIMIT)];
    match connection.request(Verb::Stop { targets }, &mut |_| {}) {
        Err(RequestError::TooLong(bytes)) => assert!(bytes > FRAME_LIMIT),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_daemon_that_vanishes_is_an_error() {
    let home = TestHome::new("vanish");
    let listener = std::os::unix::net::UnixListener::bind(home.home.socket()).unwrap();
    let thread = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let mut connection = Connection::existing(&home.home).unwrap().unwrap();
    thread.join().unwrap();
    match connection.request(Verb::Ping, &mut |_| {}) {
        Err(RequestError::Lost(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_there_is_not_an_error_by_itself() {
    let home = TestHome::new("nobody");
    assert!(Connection::existing(&home.home).unwrap().is_none());
    drop(std::os::unix::net::UnixListener::bind(home.home.socket()).unwrap());
    assert!(Connection::existing(&home.home).unwrap().is_none(), "a stale socket");
}

#[test]
fn a_lock_that_is_held_without_a_socket_is_waited_for_and_then_reported() {
    let home = TestHome::new("held");
    let held = lock::open(&home.home.lock()).unwrap();
    assert!(lock::try_lock(&held).unwrap());
    let error = open_by(&home.home, &home.caller, soon()).unwrap_err();
    assert!(error.starts_with("a daemon holds ") && error.contains("does not answer"), "{error}");
    // As soon as the other one serves, the same call succeeds.
    let socket = home.home.clone();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        FakeDaemon::start(&socket, |request, _| Message::Done { id: request.id, answer: pong() })
    });
    let mut connection = Connection::open(&home.home, &home.caller).unwrap();
    assert_eq!(connection.request(Verb::Ping, &mut |_| {}), Ok(pong()));
    drop(connection);
    drop(late.join().unwrap());
}

/// A daemon that is a shell script: `$3` is the lock's fd, `$5` the ready pipe.
fn script(home: &TestHome, body: &str) -> Caller {
    let exe = home.home.path.join("daemon.sh");
    write_program(&exe, &format!("#!/bin/sh\n{body}\n"));
    Caller { exe, ..home.caller.clone() }
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = TestHome::new("cannot");
    let later = || Instant::now() + START_DEADLINE;
    for (body, sentence, deadline) in [
        ("echo 'bind: no space' >/proc/self/fd/$5", "start the daemon: bind: no space", later()),
        ("exit 1", "start the daemon: it ended before it was ready (see ", later()),
        ("exec sleep 1", "start the daemon: it was not ready within 10 s (see ", soon()),
    ] {
        let caller = script(&home, body);
        let error = open_by(&home.home, &caller, deadline).unwrap_err();
        assert!(error.starts_with(sentence), "{body}: {error}");
    }
    let missing = Caller { exe: "/nonexistent/pmx".into(), ..home.caller.clone() };
    let other = TestHome::new("missing-exe");
    let error = open_by(&other.home, &missing, soon()).unwrap_err();
    assert!(error.starts_with("start the daemon: no such file"), "{error}");
}

#[test]
fn a_new_daemon_gets_the_lock_the_pipe_a_log_and_nothing_of_the_callers() {
    let home = TestHome::new("spawned");
    // It says where it is, holds the lock for a while, and claims to be ready without a socket.
    let caller = script(
        &home,
        "echo \"$1 $2 $4 $(pwd) $PMX_HOME $(readlink /proc/self/fd/0)\"; ls /proc/self/fd/$3 >/dev/null && \
         echo locked; echo ok >/proc/self/fd/$5",
    );
    let error = open_by(&home.home, &caller, Instant::now() + START_DEADLINE).unwrap_err();
    assert!(error.starts_with("the daemon was started and does not answer on "), "{error}");
    let log = std::fs::read_to_string(home.home.log()).unwrap();
    let expected = format!("daemon --lock-fd --ready-fd / {} /dev/null\nlocked\n", home.home.path.display());
    assert_eq!(log, expected);
    assert_eq!(std::fs::metadata(home.home.log()).unwrap().permissions().mode() & 0o777, 0o600);
}
