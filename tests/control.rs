//! Clients that do not keep to the protocol: each is its own problem and nobody else's.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::json;

use crate::support::probe::{Client, assert_prompt, fds, idle_fds, is_root, rss};
use crate::support::{Home, finish, wait_until};

/// A home with a daemon, and its pid.
fn served() -> (Home, i32) {
    let home = Home::new();
    home.pmx(&["list"]).ok();
    let pid = home.daemon_pid().unwrap();
    // Everything that is made at the first request is made.
    idle_fds(&home);
    (home, pid)
}

#[test]
fn c02_a_message_without_end_is_cut_at_the_limit() {
    let (home, pid) = served();
    let before = rss(pid);
    for head in ["", "{\"v\":1,\"id\":1,\"verb\":\"stop\",\"targets\":[\""] {
        let mut client = Client::connect(&home);
        client.stream.write_all(head.as_bytes()).unwrap();
        let chunk = vec![b'x'; 64 << 10];
        let mut written = 0;
        let refused = loop {
            match client.stream.write(&chunk) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
            assert!(written < 8 << 20, "it takes in everything");
            assert_prompt(&home);
        };
        assert!(matches!(refused.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
    }
    assert!(rss(pid) < before + 4096, "from {before} kB to {} kB", rss(pid));
    // One that listens is told why.
    let mut client = Client::connect(&home);
    client.stream.write_all(&vec![b'x'; (1 << 20) + 1]).unwrap();
    let answer = client.message().unwrap();
    assert_eq!(answer["error"]["error"], "read a message: it is longer than 1048576 bytes");
    assert_eq!(client.message(), None);
}

#[test]
fn c03_random_bytes_are_answered_or_closed() {
    let (home, pid) = served();
    let open = idle_fds(&home);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..400 {
        let mut client = Client::connect(&home);
        let length = random() % 5_000;
        let mut bytes: Vec<u8> = (0..length).map(|_| (random() >> 32) as u8).collect();
        if round % 3 == 0 {
            // Nearly a request.
            let mut line = br#"{"v":1,"id":7,"verb":"describe","targets":["all"]}"#.to_vec();
            let at = (random() % line.len() as u64) as usize;
            line[at] = random() as u8;
            bytes.extend([b"\n", &line[..], b"\n"].concat());
        }
        // It may close in the middle.
        let _ = client.stream.write_all(&bytes);
        if round % 2 == 0 {
            let _ = client.stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = client.stream.read_to_end(&mut answer);
        }
        if round % 20 == 0 {
            assert_prompt(&home);
        }
    }
    assert_eq!(home.daemon_pid(), Some(pid));
    wait_until("all of them to be forgotten", || fds(pid).len() == open);
}

#[test]
fn c01_a_message_that_stops_halfway_has_ten_seconds() {
    let (home, _) = served();
    let mut client = Client::connect(&home);
    client.stream.write_all(br#"{"v":1,"id":1,"ver"#).unwrap();
    let began = Instant::now();
    let answer = client.message().unwrap();
    let took = began.elapsed();
    assert_eq!(answer["error"]["error"], "read a request: its end did not come within 10 s");
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
    assert_eq!(client.message(), None);
    assert_prompt(&home);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let (home, pid) = served();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-x", "-i", "20"]).ok();
    let before = rss(pid);
    let mut client = Client::connect(&home);
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut asked = 0;
    let mut bytes = Vec::new();
    let mut sent = 0;
    // Until the daemon takes no more.
    loop {
        if sent == bytes.len() {
            asked += 1;
            assert!(asked < 100_000, "it takes in everything");
            bytes = format!("{}\n", json!({ "v": 1, "id": asked, "verb": "list" })).into_bytes();
            sent = 0;
        }
        match client.stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("after {asked}: {error}"),
        }
    }
    assert_prompt(&home);
    assert!(rss(pid) < before + (8 << 10), "from {before} kB to {} kB", rss(pid));
    // Once it reads, it gets every answer.
    let whole = if sent == 0 { asked - 1 } else { asked };
    let rest = bytes.split_off(sent);
    let mut writer = client.stream.try_clone().unwrap();
    let finisher = std::thread::spawn(move || {
        writer.set_write_timeout(None).unwrap();
        if rest.len() < 60 { writer.write_all(&rest) } else { Ok(()) }
    });
    for id in 1..=whole {
        assert_eq!(client.answer(id)["done"]["id"], id);
    }
    finisher.join().unwrap().unwrap();
}

#[test]
fn a_client_that_does_not_read_cannot_keep_a_daemon_alive() {
    let (home, pid) = served();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-x", "-i", "20"]).ok();
    let mut client = Client::connect(&home);
    client.stream.set_nonblocking(true).unwrap();
    let lists = format!("{}\n", json!({ "v": 1, "id": 1, "verb": "list" })).repeat(1_000);
    let _ = client.stream.write(lists.as_bytes());
    let subscriber = Client::connect(&home);
    assert_prompt(&home);
    let began = Instant::now();
    home.pmx(&["kill"]).ok();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(!crate::support::is_alive(pid));
    drop((client, subscriber));
}

#[test]
fn c06_passed_fds_are_closed() {
    let (home, pid) = served();
    let open = idle_fds(&home);
    let file = std::fs::File::open("/dev/null").unwrap();
    let passed = [file.as_raw_fd(); 253];
    let clients: Vec<Client> = (0..8)
        .map(|id| {
            let mut client = Client::connect(&home);
            let line = format!("{}\n", json!({ "v": 1, "id": id, "verb": "ping" }));
            let rights = [ControlMessage::ScmRights(&passed)];
            let data = [IoSlice::new(line.as_bytes())];
            let fd = client.stream.as_raw_fd();
            sendmsg::<()>(fd, &data, &rights, MsgFlags::empty(), None).unwrap();
            assert!(client.answer(id)["done"]["answer"]["pong"].is_object());
            client
        })
        .collect();
    assert_eq!(fds(pid).len(), open + clients.len());
    assert_prompt(&home);
    drop(clients);
    wait_until("the clients to be forgotten", || fds(pid).len() == open);
}

#[test]
fn c05_another_user_is_refused_before_a_byte_is_read() {
    if !is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let (home, pid) = served();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(home.dir(), 0o755);
    open(&home.path(), 0o755);
    open(&home.path().join("pmx.sock"), 0o666);
    let program = r#"use Socket; $SIG{PIPE} = 'IGNORE'; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
        connect($s, pack_sockaddr_un($ARGV[0])) or die "connect: $!"; $s->autoflush(1);
        print $s "{\"v\":1,\"id\":5,\"verb\":\"kill\"}\n"; print while <$s>;"#;
    let mut stranger = Command::new("perl");
    stranger.args(["-MIO::Handle", "-e", program]).arg(home.path().join("pmx.sock"));
    stranger.uid(65534).gid(65534).current_dir("/");
    stranger.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(stranger.spawn().unwrap());
    assert!(ran.out.contains("this daemon serves uid 0, not uid 65534"), "{ran:?}");
    assert!(ran.out.contains("\"id\":0"), "its request was read: {ran:?}");
    assert_eq!(home.daemon_pid(), Some(pid));
    assert_prompt(&home);
    open(&home.path(), 0o700);
}

#[test]
fn what_cannot_be_understood_is_said_and_the_connection_goes_on() {
    let (home, _) = served();
    let mut client = Client::connect(&home);
    for (line, id, start) in [
        (r#"{"v":99,"id":3,"verb":"ping"}"#, 3, "the client speaks version 99 of the protocol, the daemon"),
        (r#"{"v":1,"id":4,"verb":"frobnicate"}"#, 4, "read a request: unknown variant `frobnicate`"),
        (r#"{"v":1,"id":5,"verb":"stop"}"#, 5, "read a request: missing field `targets`"),
        (r#"{"v":1,"id":6,"verb":"stop","targets":"api"}"#, 6, "read a request: invalid type"),
        (r#"{"v":1,"id":-1,"verb":"ping"}"#, 0, "read a request: "),
        ("[]", 0, "read a request: "),
        ("", 0, "read a request: "),
        ("\u{0}", 0, "read a request: "),
        (r#"{"v":1,"id":7,"verb":"stop","targets":["nobody"]}"#, 7, "process or namespace nobody not found"),
        (r#"{"v":1,"id":8,"verb":"signal","targets":["all"],"signal":9}"#, 8, "no process found"),
    ] {
        client.send(line);
        let answer = client.message().unwrap();
        assert_eq!(answer["error"]["id"], id, "{line}: {answer}");
        assert!(answer["error"]["error"].as_str().unwrap().starts_with(start), "{line}: {answer}");
    }
    // Deeply nested, and an app that no client would send.
    for head in ["", r#"{"v":1,"id":1,"verb":"stop","targets":"#] {
        client.send(&format!("{head}{}", "[".repeat(100_000)));
        assert!(client.message().unwrap()["error"].is_object());
    }
    client.ask(9, json!({ "verb": "start", "apps": [], "existing": "refuse" }));
    assert_eq!(client.answer(9)["done"]["answer"]["outcomes"], json!([]));
    client.ask(10, json!({ "verb": "ping" }));
    assert!(client.answer(10)["done"]["answer"]["pong"].is_object());
}

#[test]
fn c07_who_has_asked_its_last_gets_its_answers() {
    let (home, pid) = served();
    home.file("stubborn.sh", "#!/bin/sh\ntrap '' INT\necho up\nwhile :; do sleep 1; done\n");
    home.pmx(&["start", "stubborn.sh", "--kill-timeout", "300"]).ok();
    wait_until("its trap to be set", || home.log("stubborn-out-0.log") == "up\n");
    let open = idle_fds(&home);
    let mut client = Client::connect(&home);
    client.ask(1, json!({ "verb": "ping" }));
    client.ask(2, json!({ "verb": "stop", "targets": ["stubborn"] }));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.answer(1)["done"]["answer"]["pong"].is_object());
    assert_eq!(client.answer(2)["done"]["answer"]["outcomes"][0]["failure"], json!(null));
    assert_eq!(client.message(), None, "closed when nothing is owed any more");
    // One that closes without having asked anything, or in the middle of a word.
    for said in ["", "{\"v\":1"] {
        let mut client = Client::connect(&home);
        client.stream.write_all(said.as_bytes()).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.message(), None);
    }
    wait_until("all of them to be forgotten", || fds(pid).len() <= open - 2);
}

#[test]
fn c01_hundreds_of_idle_clients_cost_little() {
    let (home, pid) = served();
    let (before, open) = (rss(pid), idle_fds(&home));
    let clients: Vec<Client> = (0..400).map(|_| Client::connect(&home)).collect();
    wait_until("all of them to be let in", || fds(pid).len() == open + clients.len());
    assert_prompt(&home);
    assert!(rss(pid) < before + 2048, "from {before} kB to {} kB", rss(pid));
    drop(clients);
    wait_until("all of them to be forgotten", || fds(pid).len() == open);
    // More than the daemon admits: those beyond are told so.
    let clients: Vec<Client> = (0..1_024).map(|_| Client::connect(&home)).collect();
    wait_until("the house to be full", || fds(pid).len() == open + clients.len());
    let mut surplus = Client::connect(&home);
    assert_eq!(surplus.message().unwrap()["error"]["error"], "more than 1024 clients at a time");
    drop(clients);
    wait_until("all of them to be forgotten", || fds(pid).len() == open);
    assert_prompt(&home);
}

#[test]
fn subscribers_get_events_in_their_order() {
    let (home, _) = served();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    let mut subscriber = Client::connect(&home);
    subscriber.ask(1, json!({ "verb": "subscribe" }));
    subscriber.answer(1);
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["restart", "app"]).ok();
    home.pmx(&["delete", "app"]).ok();
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "deleted") {
        let event = subscriber.message().unwrap();
        assert_eq!(event["event"]["name"], "app", "{event}");
        kinds.push(event["event"]["kind"].as_str().unwrap().to_string());
    }
    let expected = [
        "added", "spawned", "online", "stopping", "exited", "spawned", "online", "stopping", "exited",
        "stopped", "deleted",
    ];
    assert_eq!(kinds, expected);
}
