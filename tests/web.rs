//! The web front, over real connections to a real one with a real daemon behind it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use pmx::protocol::samples::block;
use pmx::protocol::samples::host::Host;
use serde_json::{Value, json};

use crate::support::{DEADLINE, Home, Response, free_port, signal, wait_for, wait_until};

/// A web front and its token.
struct Web {
    port: u16,
    token: String,
}

impl Web {
    fn start(home: &Home) -> Web {
        Web::start_with(home, &[])
    }

    fn start_with(home: &Home, more: &[&str]) -> Web {
        Web::start_in(home, &[], more)
    }

    fn start_in(home: &Home, environment: &[(&str, &str)], more: &[&str]) -> Web {
        let port = free_port();
        let port_text = port.to_string();
        let args: Vec<&str> = ["web", &port_text].iter().chain(more).copied().collect();
        let said = home.pmx_with(environment, &args).ok().out;
        let token = said.lines().find_map(|line| line.strip_prefix("token: ")).expect(&said).to_string();
        wait_until("the web front", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Web { port, token }
    }

    /// Bytes as they are, and what comes back until the server closes.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Response {
        let length = body.len();
        let host = if lines.to_lowercase().starts_with("host:") { "" } else { "Host: localhost\r\n" };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}{kind}Content-Length: {length}\r\nConnection: close\r\n{lines}\r\n"
        );
        let text = self.raw(format!("{head}{body}").as_bytes());
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_string(), body: body.to_string() }
    }

    /// With the token.
    fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.ask(method, &format!("/api/v1{path}"), &self.bearer(), body);
        let value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{method} {path}: {answer:?}"));
        (answer.status, value)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// A stream of events, from its first byte on.
    fn stream(&self, method: &str, path: &str) -> Stream {
        let mut stream = self.connect();
        let bearer = self.bearer();
        let accept = "Accept: text/event-stream\r\n";
        write!(stream, "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n{accept}{bearer}\r\n").unwrap();
        Stream { stream, text: String::new() }
    }
}

struct Stream {
    stream: TcpStream,
    text: String,
}

impl Stream {
    /// Reads on until there is an event of this kind that fits, and tells its data.
    #[track_caller]
    fn event(&mut self, kind: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let until = Instant::now() + DEADLINE;
        let mut chunk = [0; 4096];
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_string();
                self.text = rest.to_string();
                let Some((_, data)) = event.split_once(&format!("event: {kind}\ndata: ")) else { continue };
                let data = serde_json::from_str(data).unwrap();
                if fits(&data) {
                    return data;
                }
            }
            assert!(Instant::now() < until, "waited for {kind}: {:?}", self.text);
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the stream ended before {kind}: {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    }
}

/// A program that does nothing for long.
fn sleeper(home: &Home, name: &str, more: &[&str]) {
    let args: Vec<&str> = ["start", "sleep 600", "--name", name].iter().chain(more).copied().collect();
    home.pmx(&args).ok();
}

#[test]
fn the_token_is_made_private_and_shown_once() {
    let home = Home::new();
    let web = Web::start(&home);
    assert_eq!(web.token.len(), 64);
    let path = home.path().join("web.token");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), web.token);
    assert_eq!(home.process(0)["name"], "pmx-web");
    assert!(home.pmx(&["web"]).failed().err.contains("it runs already as id 0"));
    let again = home.pmx(&["web", "--new-token"]).ok().out;
    assert!(again.contains("token: ") && !again.contains(&web.token), "{again}");
    assert_eq!(web.api("GET", "/processes", "").0, 401, "the old one is worth nothing at once");
    let token = std::fs::read_to_string(&path).unwrap().trim().to_string();
    let web = Web { token, ..web };
    assert_eq!(web.api("GET", "/processes", "").0, 200);
    home.pmx(&["delete", "pmx-web"]).ok();
    let port = free_port().to_string();
    let kept = home.pmx(&["web", &port]).ok().out;
    assert!(!kept.contains(&web.token) && kept.contains("web.token"), "{kept}");
    for wrong in [&["web", "x"][..], &["web", "--address", "here"], &["web", "--allow-host", "a:1"]] {
        home.pmx(wrong).failed();
    }
}

#[test]
fn a_token_expires() {
    let home = Home::new();
    let web = Web::start_with(&home, &["--token-lifetime", "1500"]);
    assert_eq!(web.api("GET", "/daemon", "").0, 200);
    let answer =
        wait_for("its end", || Some(web.api("GET", "/daemon", "")).filter(|(status, _)| *status != 200));
    assert_eq!(
        (answer.0, &answer.1["error"]),
        (401, &json!("the token has expired (pmx web --new-token makes one)"))
    );
}

#[test]
fn each_verb_has_its_route() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "one", &["--stdin", "pipe"]);
    let (status, daemon) = web.api("GET", "/daemon", "");
    assert_eq!((status, daemon["pid"].as_i64().unwrap() as i32), (200, home.daemon_pid().unwrap()));
    let (_, list) = web.api("GET", "/processes", "");
    assert_eq!((&list[1]["name"], &list[1]["status"]), (&json!("one"), &json!("online")));
    let (_, found) = web.api("GET", "/processes/1", "");
    assert_eq!((&found[0]["name"], &found[0]["script"]), (&json!("one"), &json!("sleep 600")));
    let pid = home.pid(1);
    assert_eq!(web.api("POST", "/processes/one/restart", "").1["outcomes"][0]["id"], 1);
    assert_ne!(home.pid(1), pid);
    assert_eq!(web.api("POST", "/processes/one/stop", "").0, 200);
    assert_eq!(home.status(1), "stopped");
    assert_eq!(web.api("GET", "/health", "").0, 503);
    assert_eq!(web.api("POST", "/processes/1/start", "").0, 200);
    assert_eq!(home.status(1), "online");
    assert_eq!(web.api("GET", "/health?app=one", "").1, json!({"healthy": true}));
    assert_eq!(web.api("POST", "/processes/one/reload?parallel=2", "").0, 200);
    assert_eq!(web.api("POST", "/processes/one/scale", r#"{"to":2}"#).0, 200);
    assert_eq!(home.list().len(), 3);
    assert_eq!(web.api("POST", "/processes/one/reset", "").0, 200);
    assert_eq!(web.api("POST", "/processes/one/flush", "").0, 200);
    assert_eq!(web.api("POST", "/processes/1/send", r#"{"line":"hello"}"#).0, 200);
    assert_eq!(web.api("POST", "/processes/1/message", r#"{"message":1}"#).0, 200);
    assert_eq!(web.api("POST", "/messages", r#"{"topic":"a","data":1}"#).0, 200);
    let (_, history) = web.api("GET", "/history?name=one", "");
    assert!(history.as_array().unwrap().iter().any(|event| event["kind"] == "online"), "{history}");
    assert!(web.api("GET", "/host", "").1["memory"].as_u64().unwrap() > 0);
    let pid = home.pid(1);
    assert_eq!(web.api("POST", "/processes/1/signal", r#"{"signal":"SIGKILL"}"#).0, 200);
    wait_until("another child", || home.pid(1) != pid && home.status(1) == "online");
    assert_eq!(web.api("DELETE", "/processes/one", "").0, 200);
    let app =
        json!({"apps": [{"name": "new", "cwd": "/", "command": {"script": "/bin/sleep", "args": ["600"]}}]});
    let (status, answer) = web.api("POST", "/processes", &app.to_string());
    assert_eq!((status, &answer["outcomes"][0]["name"]), (200, &json!("new")), "{answer}");
    assert_eq!(web.api("POST", "/processes", &app.to_string()).0, 409);
    assert_eq!(web.api("GET", "/processes/nobody", "").0, 404);
    assert_eq!(web.api("POST", "/processes/nobody/scale", r#"{"to":2}"#).0, 404);
    for (path, body) in [
        ("/processes/new/scale", "{}"),
        ("/processes/new/signal", r#"{"signal":"SIGNONE"}"#),
        ("/processes/new/reload?parallel=x", ""),
        ("/processes", "{"),
    ] {
        assert_eq!(web.api("POST", path, body).0, 422, "{path}");
    }
    let bearer = web.bearer();
    let plain = web.raw(
        format!("POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}Content-Length: 2\r\n\r\n{{}}")
            .as_bytes(),
    );
    assert!(plain.starts_with("HTTP/1.1 415 "), "{plain}");
    let other = web.ask("PUT", "/api/v1/processes", &bearer, "");
    assert!(other.status == 405 && other.head.contains("Allow: GET, HEAD, POST"), "{other:?}");
    let head = web.ask("HEAD", "/healthz", "", "");
    assert!(head.status == 200 && head.body.is_empty(), "{head:?}");
    // Two requests on one connection, the second one with a body in pieces.
    let mut stream = web.connect();
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: a.b\r\n\r\n").unwrap();
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    write!(
        stream,
        "{bearer}Connection: close\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n"
    )
    .unwrap();
    for byte in br#"{"topic":"a","data":1}"# {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let statuses: Vec<&str> = text.matches("HTTP/1.1 ").map(|_| "").collect();
    assert_eq!(statuses.len(), 3, "{text}");
    assert!(text.contains("HTTP/1.1 421") && text.contains("{\"alive\":true}HTTP/1.1 200"), "{text}");
}

#[test]
fn pm2s_readers_find_their_shape_and_nobody_finds_a_secret() {
    let home = Home::new();
    let web = Web::start(&home);
    let secret = "s3cret-of-the-database";
    let file = json!({"apps": [{
        "name": "db", "script": "db.sh", "args": ["--password", secret],
        "env": {"DB_PASSWORD": secret},
    }]});
    home.file("db.sh", "exec sleep 600\n");
    home.file("apps.json", &file.to_string());
    home.pmx_with(&[("SHELL_SECRET", secret)], &["start", "apps.json"]).ok();
    let front = web.ask("GET", "/", "", "");
    let all: Value = serde_json::from_str(&front.body).unwrap();
    assert!(all["system_info"]["hostname"].is_string() && all["system_info"]["uptime"].is_number());
    let monit = &all["monit"];
    assert!(monit["total_mem"].as_u64() > monit["free_mem"].as_u64(), "{monit}");
    assert!(
        monit["loadavg"].as_array().unwrap().len() == 3 && monit["interfaces"]["lo"][0]["internal"] == true
    );
    assert!(monit["cpu"][0]["times"]["user"].is_number(), "{monit}");
    let db = all["processes"].as_array().unwrap().iter().find(|one| one["name"] == "db").unwrap();
    assert_eq!((&db["pm2_env"]["status"], &db["pm2_env"]["env"]), (&json!("online"), &json!({})));
    let page = web.ask("GET", "/", "Accept: text/html,application/xhtml+xml\r\n", "");
    assert!(
        page.head.contains("Content-Type: text/html") && page.body.starts_with("<!doctype html>"),
        "{page:?}"
    );
    assert!(page.head.contains("default-src 'none'") && !page.head.contains("unsafe"), "{}", page.head);
    // Everything that can be looked at.
    let described: Value = serde_json::from_str(&web.ask("GET", "/openapi.json", "", "").body).unwrap();
    let mut looked = 0;
    for (path, operations) in described["paths"].as_object().unwrap() {
        if operations.get("get").is_none()
            || ["/api/v1/events", "/api/v1/logs", "/api/v1/messages"].contains(&path.as_str())
        {
            continue;
        }
        let answer = web.ask("GET", &path.replace("{target}", "all"), &web.bearer(), "");
        let shown = format!("{}{}", answer.head, answer.body);
        assert!(answer.status == 200, "{path}: {answer:?}");
        assert!(!shown.contains(secret) && !shown.contains("DB_PASSWORD"), "{path}: {shown}");
        assert!(!answer.head.to_lowercase().contains("access-control"), "{path}: {}", answer.head);
        looked += 1;
    }
    assert!(looked >= 14, "{looked}");
    let mut events = web.stream("GET", "/events");
    let shown = events.event("processes", |_| true).to_string();
    assert!(shown.contains("\"db\"") && !shown.contains(secret) && !shown.contains("DB_PASSWORD"), "{shown}");
    let done = web.ask("POST", "/api/v1/processes/db/restart", &web.bearer(), "");
    assert!(!done.body.contains(secret), "{done:?}");
}

/// C11: what hostile pages and clients try.
#[test]
fn c11_hostile_requests() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "one", &[]);
    let bearer = web.bearer();
    let status = |method: &str, path: &str, lines: &str| {
        let answer = web.ask(method, path, lines, "");
        assert!(!answer.head.to_lowercase().contains("access-control"), "{}", answer.head);
        answer.status
    };
    // A name that somebody else's DNS points here.
    for host in ["evil.example", "evil.example:9615", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        for path in ["/", "/metrics", "/healthz", "/api/v1/processes"] {
            assert_eq!(status("GET", path, &format!("Host: {host}\r\n{bearer}")), 421, "{host} {path}");
        }
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:2"] {
        assert_eq!(status("GET", "/api/v1/processes", &format!("Host: {host}\r\n{bearer}")), 200, "{host}");
    }
    // Another page.
    let stop = "/api/v1/processes/one/stop";
    for lines in [
        "Origin: http://evil.example\r\n",
        "Origin: http://localhost:1\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n",
    ] {
        assert_eq!(status("POST", stop, &format!("{lines}{bearer}")), 403, "{lines}");
        assert_eq!(status("GET", "/", lines), 403, "{lines}");
    }
    assert_eq!(status("OPTIONS", stop, "Access-Control-Request-Method: POST\r\n"), 405);
    // Nobody, or somebody else.
    let wrong = "f".repeat(64);
    for lines in [
        String::new(),
        "Authorization: Bearer\r\n".to_string(),
        format!("Authorization: Bearer {wrong}\r\n"),
        format!("Authorization: Bearer {}\r\n", &web.token[1..]),
        format!("Authorization: Basic {}\r\n", web.token),
        format!("Cookie: token={}\r\n", web.token),
    ] {
        assert_eq!(status("POST", stop, &lines), 401, "{lines}");
        assert_eq!(status("GET", "/api/v1/processes", &lines), 401, "{lines}");
    }
    assert_eq!(status("POST", &format!("{stop}?token={}", web.token), ""), 401);
    // Where there are no files there is no way out; it is tried all the same.
    for path in [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/api/v1/processes/..%2f..%2fx/logs",
        "/%2e%2e/x",
        "/.git",
    ] {
        let answer = web.ask("GET", path, &bearer, "");
        assert!(answer.status == 404 && !answer.body.contains("root:"), "{path}: {answer:?}");
    }
    // Too much.
    let raw = |text: String| web.raw(text.as_bytes()).split(' ').nth(1).unwrap_or_default().to_string();
    assert_eq!(raw(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(9_000))), "431");
    assert_eq!(raw(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(100))), "431");
    assert_eq!(raw(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(9_000))), "431");
    assert_eq!(
        raw(format!("POST {stop} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")),
        "413"
    );
    assert_eq!(
        raw(format!(
            "POST {stop} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )),
        "411"
    );
    assert_eq!(raw("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n".to_string()), "400");
    assert_eq!(raw("\x16\x03\x01\r\n\r\n".to_string()), "400");
    assert_eq!(home.status(1), "online", "after all of this");
}

/// C11: clients that take their time, and many of them.
#[test]
fn c11_slow_and_many_clients() {
    let home = Home::new();
    let web = Web::start(&home);
    // Drop by drop: the time for a whole head does not grow with it.
    let mut slow = web.connect();
    slow.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    write!(slow, "GET / HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let mut body = web.connect();
    let head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 100";
    write!(body, "POST /api/v1/messages HTTP/1.1\r\n{head}\r\n{}\r\n{{", web.bearer()).unwrap();
    let mut text = Vec::new();
    wait_until("the end of patience", || {
        let _ = slow.write_all(b"X: y\r\n");
        let mut chunk = [0; 512];
        match slow.read(&mut chunk) {
            Ok(0) => true,
            Ok(count) => {
                text.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    });
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    let mut text = String::new();
    let _ = body.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    // More than have a place here, and each of them silent or in the middle of a head.
    let mut many = Vec::new();
    for number in 0..10_000 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", web.port)) else { break };
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
        }
        many.push(stream);
        if number % 1_000 == 999 {
            assert_eq!(web.api("GET", "/daemon", "").0, 200, "beside {number} others");
        }
        // What the test itself may have open.
        if many.len() >= 700 {
            many.drain(..350);
        }
    }
    let pid = home.pid(0);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 600, "{open} open");
    drop(many);
    assert_eq!(web.api("GET", "/daemon", "").0, 200);
    assert_eq!(home.process(0)["pm2_env"]["restart_time"], 0);
}

/// C12: where others could put something of theirs in the place of ours, nothing is kept.
#[test]
fn c12_a_place_that_is_not_ours_alone_is_refused() {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    let home = Home::new();
    let refused = |path: &str, because: &str| {
        let place = home.dir().join(path);
        let ran = home.pmx_with(&[("PMX_HOME", place.to_str().unwrap())], &["web", "1"]).failed();
        assert!(ran.err.contains(because), "{path}: {ran:?}");
    };
    let with_mode = |path: &str, mode: u32| {
        create_dir(home.dir().join(path)).unwrap();
        set_permissions(home.dir().join(path), Permissions::from_mode(mode)).unwrap();
    };
    with_mode("open", 0o777);
    refused("open/home", "anybody may write to");
    with_mode("theirs-too", 0o770);
    refused("theirs-too", "others may write to it");
    // A token that is a link, or that others can read, is none, and is not written through.
    with_mode("planted", 0o700);
    home.file("victim", "precious");
    symlink(home.dir().join("victim"), home.dir().join("planted/web.token")).unwrap();
    if nix::unistd::geteuid().is_root() {
        with_mode("group", 0o770);
        chown(home.dir().join("group"), None, Some(12_345)).unwrap();
        refused("group/home", "group 12345 may write to");
        with_mode("hostile", 0o755);
        chown(home.dir().join("hostile"), Some(12_345), None).unwrap();
        refused("hostile/home", "belongs to uid 12345");
        refused("hostile", "belongs to uid 12345");
        with_mode("target", 0o700);
        symlink(home.dir().join("target"), home.dir().join("link")).unwrap();
        lchown(home.dir().join("link"), Some(12_345), None).unwrap();
        refused("link", "is a link that uid 12345 has made");
        refused("link/home", "is a link that uid 12345 has made");
    }
    // A sticky directory is open to all and safe; and so is a link of our own.
    with_mode("sticky", 0o1777);
    symlink(home.dir().join("sticky"), home.dir().join("ours")).unwrap();
    for path in ["sticky/home", "ours/other", "planted"] {
        let place = home.dir().join(path);
        let env = [("PMX_HOME", place.to_str().unwrap())];
        let port = free_port().to_string();
        let ran = home.pmx_with(&env, &["web", &port]);
        let done = home.pmx_with(&env, &["kill"]);
        if path == "planted" {
            assert!(ran.failed().err.contains("web.token"), "a link is no token");
            let port = free_port().to_string();
            home.pmx_with(&env, &["web", &port, "--new-token"]).ok();
            home.pmx_with(&env, &["kill"]).ok();
            assert!(!std::fs::symlink_metadata(place.join("web.token")).unwrap().is_symlink());
            assert_eq!(std::fs::read_to_string(home.dir().join("victim")).unwrap(), "precious");
        } else {
            ran.ok();
        }
        done.ok();
        let _ = std::fs::remove_dir_all(Home::state_of(&place));
    }
}

#[test]
fn what_happens_is_told_as_it_happens() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "one", &[]);
    let mut events = web.stream("GET", "/events");
    let all = events.event("processes", |_| true);
    assert_eq!(all["processes"].as_array().unwrap().len(), 2, "{all}");
    assert!(all["host"]["processors"].as_u64().unwrap() > 0);
    home.pmx(&["stop", "one"]).ok();
    assert_eq!(events.event("process", |event| event["kind"] == "stopped")["name"], "one");
    let down =
        |all: &Value| all["processes"].as_array().unwrap().iter().any(|one| one["status"] == "stopped");
    events.event("processes", down);
    // The steps of what is asked for.
    home.pmx(&["scale", "one", "3"]).ok();
    let mut steps = web.stream("POST", "/processes/one/restart");
    let step = steps.event("progress", |_| true);
    assert_eq!((&step["total"], &step["outcome"]["name"]), (&json!(3), &json!("one")));
    let done = steps.event("done", |_| true);
    assert_eq!(done["outcomes"].as_array().unwrap().len(), 3);
    let mut refused = web.stream("POST", "/processes/nobody/restart");
    assert!(refused.event("failed", |_| true)["error"].as_str().unwrap().contains("not found"));
    // A daemon that is replaced, and one that dies: the stream goes on.
    let pid = home.daemon_pid().unwrap();
    signal(pid, 9);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|now| now != pid));
    home.pmx(&["delete", "one"]).ok();
    events.event("process", |event| event["kind"] == "deleted");
    let bad = web.ask("GET", "/api/v1/events", "", "");
    assert_eq!(bad.status, 401);
}

#[test]
fn who_listens_is_told_what_is_published() {
    let home = Home::new();
    let web = Web::start(&home);
    let (mut orders, mut all) =
        (web.stream("GET", "/messages?topic=orders.*"), web.stream("GET", "/messages"));
    // They listen once their heads have come.
    for stream in [&mut orders, &mut all] {
        let mut chunk = [0; 1024];
        let count = stream.stream.read(&mut chunk).unwrap();
        assert!(chunk.starts_with(b"HTTP/1.1 200 ") && count > 0);
    }
    home.pmx(&["publish", "stock.low", r#"{"left":1}"#]).ok();
    assert_eq!(web.api("POST", "/messages", r#"{"topic":"orders.new","data":7}"#).0, 200);
    assert_eq!(all.event("message", |message| message["topic"] == "stock.low")["data"], json!({"left": 1}));
    assert_eq!(all.event("message", |message| message["topic"] == "orders.new")["data"], 7);
    assert_eq!(orders.event("message", |_| true)["data"], 7, "and nothing else before it");
    // One leaves, the other goes on.
    drop(all);
    wait_until("what is published then", || {
        home.pmx(&["publish", "orders.old", "8"]).ok();
        orders.event("message", |_| true)["data"] == 8
    });
    assert_eq!(web.ask("GET", "/api/v1/messages?topic=", &web.bearer(), "").status, 409);
}

#[test]
fn log_lines_are_shown_as_they_are_written() {
    let home = Home::new();
    let web = Web::start(&home);
    home.file("say.sh", "echo one; echo two >&2; while read line; do echo \"heard $line\"; done\n");
    home.pmx(&["start", "say.sh", "--name", "say", "--stdin", "pipe"]).ok();
    let has_said = |stream: &str, word| home.log(&format!("say-{stream}-1.log")).contains(word);
    wait_until("its first words", || has_said("out", "one") && has_said("error", "two"));
    let (status, told) = web.api("GET", "/processes/say/logs?lines=5", "");
    let lines = &told["lines"];
    assert_eq!((&told["complete"], &told["faults"]), (&json!(true), &json!([])), "{told}");
    assert_eq!((status, &lines[0]["text"], &lines[0]["ids"]), (200, &json!("one"), &json!([1])), "{lines}");
    let at = lines[1]["at"].as_u64().unwrap();
    assert_eq!(lines[1], json!({"ids": [1], "name": "say", "stream": "error", "at": at, "text": "two"}));
    assert_eq!(web.api("GET", "/processes/say/logs?lines=0", "").0, 422);
    let has = |text: &'static str| {
        move |lines: &Value| lines.as_array().unwrap().iter().any(|line| line["text"] == text)
    };
    let mut stream = web.stream("GET", "/logs?target=say");
    stream.event("lines", has("one"));
    home.pmx(&["send", "say", "first"]).ok();
    stream.event("lines", has("heard first"));
    // Emptied, and then replaced.
    home.pmx(&["flush", "say"]).ok();
    home.pmx(&["send", "say", "second"]).ok();
    stream.event("lines", has("heard second"));
    let path = home.path().join("logs/say-out-1.log");
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    std::fs::write(&path, "in a new file\n").unwrap();
    stream.event("lines", has("in a new file"));
    // One that is added while somebody looks.
    let mut all = web.stream("GET", "/logs");
    all.event("lines", has("in a new file"));
    home.pmx(&["start", "say.sh", "--name", "more", "--stdin", "pipe"]).ok();
    all.event("lines", |lines| lines[0]["name"] == "more");
}

#[test]
fn old_logs_are_searched_and_nobody_waits_for_it() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "say", &[]);
    let log = home.path().join("logs/say-out-1.log");
    let old = |n: u32| log.with_file_name(format!("say-out-1__2026-01-01_00-00-0{n}.log"));
    let day = |day: u32, text: &str| format!("2026-01-0{day}T00:00:00Z {text}\n");
    std::fs::write(old(1), day(1, "the first needle") + &day(2, "hay")).unwrap();
    std::fs::write(old(2), day(3, "ERROR another Needle") + &day(4, "hay")).unwrap();
    std::fs::write(&log, day(5, "needle of today") + &day(6, "the end")).unwrap();
    let texts = |query: &str| {
        let (status, told) = web.api("GET", &format!("/processes/say/logs?{query}"), "");
        assert_eq!((status, &told["complete"]), (200, &json!(true)), "{query}: {told}");
        let text = |line: &Value| line["text"].as_str().unwrap()[21..].to_string();
        told["lines"].as_array().unwrap().iter().map(text).collect::<Vec<_>>()
    };
    let all = ["the first needle", "hay", "ERROR another Needle", "hay", "needle of today", "the end"];
    assert_eq!(texts(""), all);
    assert_eq!(texts("lines=5"), all[1..]);
    assert_eq!(texts("search=needle"), [all[0], all[2], all[4]]);
    assert_eq!(texts("search=needle&lines=2"), [all[2], all[4]]);
    assert_eq!(texts("since=2026-01-02&until=2026-01-03T00:00Z"), all[1..3]);
    assert_eq!(texts("level=warn"), all[2..3]);
    assert_eq!(texts("stream=error"), [""; 0]);
    for bad in ["since=yesterday", "until=10", "level=loud", "stream=in", "lines=0"] {
        assert_eq!(web.api("GET", &format!("/processes/say/logs?{bad}"), "").0, 422, "{bad}");
    }
    // Whoever begins to follow is shown the old ones first.
    let mut stream = web.stream("GET", "/logs?target=say&lines=3");
    assert_eq!(stream.event("lines", |_| true).as_array().unwrap().len(), 3);
    // A gigabyte without a needle: it takes a while, and all others are answered meanwhile.
    let file = std::fs::File::create(old(3)).unwrap();
    file.set_len(1 << 30).unwrap();
    let asked = Instant::now();
    let mut long = web.connect();
    let bearer = web.bearer();
    let path = "/api/v1/processes/say/logs?search=nowhere";
    write!(long, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}\r\n").unwrap();
    let mut answered = 0;
    let mut first = [0; 1];
    long.set_nonblocking(true).unwrap();
    while long.read(&mut first).is_err() {
        assert_eq!(web.api("GET", "/processes", "").0, 200);
        answered += 1;
        assert!(asked.elapsed() < DEADLINE, "it has an end");
    }
    assert!(answered > 3, "{answered} were answered meanwhile");
    // Only so many are looked for at a time, even where all come at once.
    let ask = |_| {
        let mut client = web.connect();
        write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}\r\n")
            .unwrap();
        client.set_nonblocking(true).unwrap();
        (client, Vec::new())
    };
    let mut clients: Vec<(_, Vec<u8>)> = (0..40).map(ask).collect();
    let refused = |said: &[u8]| String::from_utf8_lossy(said).contains("too many are answered already");
    wait_until("some to be refused", || {
        for (client, said) in &mut clients {
            let _ = client.read_to_end(said);
        }
        clients.iter().filter(|(_, said)| refused(said)).count() >= 40 - 16
    });
}

#[test]
fn a_search_that_takes_too_long_tells_what_it_found_and_what_it_could_not_read() {
    let home = Home::new();
    let web = Web::start_in(&home, &[("PMX_WEB_WORK_TIME", "500")], &[]);
    sleeper(&home, "say", &[]);
    let log = home.path().join("logs/say-out-1.log");
    let old = |n: u32| log.with_file_name(format!("say-out-1__2026-01-01_00-00-0{n}.log"));
    std::fs::write(&log, "2026-01-05T00:00:00Z the needle of today\n").unwrap();
    // More than anybody can read, and what nobody can.
    let file = std::fs::File::create(old(1)).unwrap();
    file.set_len(64 << 30).unwrap();
    let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_312_000);
    file.set_modified(written).unwrap();
    std::os::unix::fs::symlink(old(2), old(2)).unwrap();
    let (status, told) = web.api("GET", "/processes/say/logs?search=needle", "");
    assert_eq!((status, &told["complete"]), (200, &json!(false)), "{told}");
    assert_eq!(told["lines"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["lines"][0]["text"], "2026-01-05T00:00:00Z the needle of today");
    assert_eq!(told["read_back_to"], "2026-01-02T00:00:00.000Z");
    let fault = told["faults"][0].as_str().unwrap();
    assert!(fault.starts_with(&format!("open {}: ", old(2).display())), "{told}");
    let (status, _) = web.api("GET", "/processes/say/logs?search=needle&until=2026-01-02T00:00:00.000Z", "");
    assert_eq!(status, 200, "it can be asked for as it was told");
    // Whoever follows is told, too.
    let mut stream = web.stream("GET", "/logs?target=say");
    stream.event("faults", |faults| faults[0] == fault);
}

#[test]
fn logs_that_are_rotated_while_somebody_looks_come_whole() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "say", &[]);
    let log = home.path().join("logs/say-out-1.log");
    std::fs::write(&log, "at first\n").unwrap();
    let mut stream = web.stream("GET", "/logs?target=say");
    let mut texts = Vec::new();
    let mut until = |last: &str, texts: &mut Vec<String>| {
        stream.event("lines", |lines| {
            texts.extend(
                lines.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_string()),
            );
            texts.last().is_some_and(|text| text == last)
        });
    };
    until("at first", &mut texts);
    // Several files come and go between two looks; some are longer than what is read in one.
    let mut expected = vec!["at first".to_string()];
    for round in 0..5 {
        for n in 0..3 {
            let long = if n == 1 { 20_000 } else { 2 };
            let lines: Vec<String> = (0..long).map(|line| format!("{round} {n} {line:010}")).collect();
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
            file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
            expected.extend(lines);
            if n < 2 {
                let old = format!("say-out-1__2026-01-01_00-0{round}-0{n}.log");
                std::fs::rename(&log, log.with_file_name(old)).unwrap();
            }
        }
        until(expected.last().unwrap(), &mut texts);
    }
    assert!(texts == expected, "{} of {}", texts.len(), expected.len());
}

#[test]
fn memory_that_is_shared_is_told_on_demand() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "one", &[]);
    let (status, told) = web.api("GET", "/processes/one?pss=true", "");
    assert_eq!(status, 200, "{told}");
    let pss = told[0]["pss"].as_u64().unwrap();
    assert!(pss > 4_096 && told[0]["name"] == "one", "{told}");
    for path in ["/processes/one", "/processes/one?pss=false"] {
        assert!(web.api("GET", path, "").1[0].get("pss").is_none(), "{path}");
    }
    home.pmx(&["stop", "one"]).ok();
    assert!(web.api("GET", "/processes/one?pss=true", "").1[0]["pss"].is_null());
    assert_eq!(web.api("GET", "/processes/one?pss=yes", "").0, 422);
}

#[test]
fn metrics_are_what_openmetrics_says() {
    let home = Home::new();
    let web = Web::start(&home);
    sleeper(&home, "a\"b\\c", &[]);
    home.pmx(&["restart", "1"]).ok();
    let answer = web.ask("GET", "/metrics", OPENMETRICS, "");
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.status == 200 && answer.head.contains(kind), "{answer:?}");
    assert!(
        answer.body.contains("pmx_process_up{id=\"1\",name=\"a\\\"b\\\\c\",namespace=\"default\""),
        "{answer:?}"
    );
    let restarts =
        answer.body.lines().find(|line| line.starts_with("pmx_process_restarts_total{id=\"1\"")).unwrap();
    assert!(restarts.contains("cause=\"manual\"") && restarts.ends_with(" 1"), "{restarts}");
    is_openmetrics(&answer.body);
    // Who does not ask for it gets the format before it.
    let plain = web.ask("GET", "/metrics", "", "");
    assert!(plain.head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{plain:?}");
    for line in ["# TYPE pmx_build_info gauge", "# TYPE pmx_process_restarts_total counter"] {
        assert!(plain.body.lines().any(|found| found == line), "{line}: {plain:?}");
    }
    for family in text_families(&plain.body) {
        assert!(["counter", "gauge"].contains(&family), "{family}");
    }
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples(&plain.body), samples(&answer.body));
}

const OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0, text/plain; q=0.5\r\n";

/// The kinds that a text names.
fn text_families(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("# TYPE")).filter_map(|line| line.split(' ').nth(3)).collect()
}

/// Its own parser reads it, as `.ci/run` installs it.
#[track_caller]
fn is_openmetrics(text: &str) {
    let python = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read; \
                  print(len(list(read(sys.stdin.read()))))";
    let mut parser = std::process::Command::new("python3");
    parser.args(["-c", "import prometheus_client.openmetrics.parser"]).stderr(std::process::Stdio::null());
    if !parser.status().is_ok_and(|status| status.success()) {
        eprintln!("prometheus_client is not installed: its parser has not seen the metrics");
        return;
    }
    let mut parser = std::process::Command::new("python3");
    parser.args(["-c", python]).stdin(std::process::Stdio::piped());
    parser.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut parser = parser.spawn().unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ran = crate::support::finish(parser).ok();
    assert!(ran.out.trim().parse::<usize>().unwrap() >= 12, "{ran:?}");
}

#[test]
fn metrics_tell_what_processes_hold_took_wrote_and_told() {
    let home = Home::new();
    let web = Web::start(&home);
    home.file(
        "shop.js",
        "require('http').createServer((q, s) => { console.log('got', q.url); s.end('ok'); }).listen(process.env.PORT);
         setInterval(() => process.send({ type: 'axm:monitor', data: { 'Event Loop Latency': { value: '2.5', unit: 'ms' },
             'Used Heap Size': { value: '12.5', unit: 'MiB' }, 'Heap Size': { value: 'none' } } }), 20);",
    );
    let ports = [free_port(), free_port()];
    for (port, name, balance) in [(ports[0], "dealt", "rr"), (ports[1], "spread", "reuseport")] {
        let port = port.to_string();
        home.pmx_with(&[("PORT", &port)], &["start", "shop.js", "-n", name, "-i", "2", "--balance", balance])
            .ok();
    }
    for _ in 0..10 {
        for port in ports {
            assert_eq!(crate::support::get(port, "/").unwrap().status, 200);
        }
    }
    let metrics = || web.ask("GET", "/metrics", OPENMETRICS, "").body;
    let values = |text: &str, family: &str, name: &str| -> Vec<f64> {
        let mark = format!("name=\"{name}\"");
        let lines =
            text.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(&mark));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    wait_until("what was accepted, logged and told", || {
        let text = metrics();
        values(&text, "pmx_process_accepted_connections_total", "dealt") == [5.0, 5.0]
            && values(&text, "pmx_process_log_bytes_total", "dealt").iter().sum::<f64>() == 60.0
            && values(&text, "pmx_node_event_loop_delay_seconds", "spread") == [0.0025; 2]
    });
    let text = metrics();
    is_openmetrics(&text);
    assert!(
        values(&text, "pmx_process_accepted_connections_total", "spread").is_empty(),
        "the kernel knows: {text}"
    );
    assert_eq!(values(&text, "pmx_node_heap_used_bytes", "dealt"), [12.5 * 1048576.0; 2]);
    assert!(values(&text, "pmx_node_heap_bytes", "dealt").is_empty(), "what is no number is left out");
    assert_eq!(values(&text, "pmx_process_log_lost_lines_total", "dealt"), [0.0; 2]);
    assert!(values(&text, "pmx_process_open_fds", "dealt").iter().all(|fds| *fds >= 3.0), "{text}");
    for name in ["dealt", "spread"] {
        assert_eq!(values(&text, "pmx_process_listen_queue_connections", name), [0.0; 2]);
        assert_eq!(values(&text, "pmx_process_listen_backlog_connections", name), [511.0; 2]);
    }
    for family in [
        "pmx_host_cpu_seconds_total{mode=\"user\"}",
        "pmx_host_disk_bytes ",
        "pmx_host_network_sent_bytes_total{",
    ] {
        assert!(text.lines().any(|line| line.starts_with(family)), "{family}: {text}");
    }
    let list = home.list();
    let of = |name: &str| {
        list.iter()
            .filter(|one| one["name"] == name)
            .map(|one| one["pm2_env"]["accepted"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!((of("dealt"), of("spread")), (vec![json!(5); 2], vec![Value::Null; 2]));
    // Workers that do not accept leave connections in their queues.
    let pids: Vec<i32> = list
        .iter()
        .filter(|one| one["name"] == "spread")
        .map(|one| one["pid"].as_i64().unwrap() as i32)
        .collect();
    pids.iter().for_each(|pid| signal(*pid, libc::SIGSTOP));
    let _callers: Vec<TcpStream> =
        (0..6).map(|_| TcpStream::connect(("127.0.0.1", ports[1])).unwrap()).collect();
    wait_until("a queue", || {
        values(&metrics(), "pmx_process_listen_queue_connections", "spread").iter().sum::<f64>() == 6.0
    });
    pids.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
    wait_until("no queue", || {
        values(&metrics(), "pmx_process_listen_queue_connections", "spread") == [0.0; 2]
    });
}

#[test]
fn the_past_of_processes_is_told_from_the_files() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 600\n");
    home.pmx_with(&[("PMX_HISTORY_INTERVAL", "100")], &["start", "app.sh", "-n", "api", "-x", "-i", "2"])
        .ok();
    let web = Web::start(&home);
    wait_until("samples", || {
        web.api("GET", "/processes/api/history", "").1["processes"][1]["at"][0].is_u64()
    });
    for (path, step) in [
        ("/processes/api/history", 10_000),
        ("/processes/0/history?span=hour", 10_000),
        ("/processes/api/history?span=day", 180_000),
    ] {
        let (status, told) = web.api("GET", path, "");
        assert_eq!((status, &told["step"]), (200, &json!(step)), "{told}");
        let one = &told["processes"][0];
        assert_eq!(
            (&one["id"], &one["name"], &one["namespace"]),
            (&json!(0), &json!("api"), &json!("default"))
        );
        let length = one["at"].as_array().unwrap().len();
        for column in ["cpu", "memory", "fds", "threads", "restarts"] {
            assert_eq!(one[column].as_array().unwrap().len(), length, "{column}: {told}");
        }
        assert!(one["memory"][0].as_u64().unwrap() > 100_000 && one["threads"][0] == 1, "{told}");
        assert!(told["until"].as_u64().unwrap() >= one["at"][length - 1].as_u64().unwrap(), "{told}");
    }
    assert_eq!(web.api("GET", "/processes/api/history?span=week", "").0, 422);
    // And that of the machine, which has rates from the second sample on.
    let known = |told: &Value| {
        let columns = ["cpu", "memory", "load", "disk", "received", "sent"];
        columns.iter().all(|name| told[name].as_array().unwrap().iter().any(|value| !value.is_null()))
    };
    wait_until("rates", || known(&web.api("GET", "/host/history", "").1));
    for (path, step) in [("/host/history?span=hour", 10_000), ("/host/history?span=day", 180_000)] {
        let (status, told) = web.api("GET", path, "");
        assert_eq!((status, &told["step"]), (200, &json!(step)), "{told}");
        let length = told["at"].as_array().unwrap().len();
        for (column, most) in [("cpu", 100.0), ("memory", 1e15), ("load", 1e6), ("disk", 100.0)] {
            let values = told[column].as_array().unwrap();
            let is_sane = |value: &Value| value.as_f64().is_none_or(|value| (0.0..=most).contains(&value));
            assert!(values.len() == length && values.iter().all(is_sane), "{column}: {told}");
        }
        assert!(told["memory"][0].as_u64().unwrap() > 1 << 20, "{told}");
    }
    assert_eq!(web.api("GET", "/host/history?span=week", "").0, 422);
    assert_eq!(web.ask("GET", "/api/v1/host/history", "", "").status, 401);
    assert_eq!(web.api("GET", "/processes/nobody/history", "").0, 404);
    assert_eq!(web.ask("GET", "/api/v1/processes/api/history", "", "").status, 401);
}

#[test]
fn readiness_is_the_daemons() {
    let home = Home::new();
    let port = free_port();
    let mut command = home.command(&["web-server"]);
    command.env("PMX_WEB_PORT", port.to_string()).env("PMX_WEB_ADDRESS", "127.0.0.1");
    let mut server = command.spawn().unwrap();
    let web = Web { port, token: String::new() };
    wait_until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let status = |path: &str| web.ask("GET", path, "", "").status;
    assert_eq!(
        (status("/healthz"), status("/readyz"), status("/"), status("/api/v1/daemon")),
        (200, 503, 503, 401)
    );
    sleeper(&home, "one", &[]);
    assert_eq!((status("/healthz"), status("/readyz"), status("/")), (200, 200, 200));
    home.pmx(&["kill"]).ok();
    assert_eq!((status("/healthz"), status("/readyz")), (200, 503));
    server.kill().unwrap();
    server.wait().unwrap();
}

/// The dashboard in a real browser: see `browser/dashboard.cjs`. A reload that is clicked under load loses nothing.
#[test]
fn the_dashboard_in_a_browser() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let browsers = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let modules = crate::support::node_modules();
    if !browsers.iter().any(|path| std::path::Path::new(path).exists())
        || !modules.join("playwright-core").exists()
    {
        eprintln!("no chromium or no playwright-core: nobody has looked at the dashboard");
        return;
    }
    let home = Home::new();
    let web = Web::start_in(&home, &[("PMX_WEB_WORK_TIME", "2000")], &[]);
    let port = free_port();
    home.file(
        "shop.js",
        "let n = 0; require('http').createServer((q, s) => { console.log(++n % 7 ? `got ${q.url}` : 'a needle'); \
         s.end('ok'); }).listen(process.env.PORT); console.error('\\x1b[31mready\\x1b[0m');",
    );
    home.pmx_with(&[("PORT", &port.to_string())], &["start", "shop.js", "-i", "2"]).ok();
    let old = home.path().join("logs/shop-out-1__2026-01-01_00-00-00.log");
    std::fs::write(&old, "an old needle\n").unwrap();
    // And before that more than anybody can read.
    let file = std::fs::File::create(old.with_file_name("shop-out-1__2025-01-01_00-00-00.log")).unwrap();
    file.set_len(64 << 30).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_735_689_600)).unwrap();
    // Half a day ago the machine was seen once.
    let then = pmx::time::Wall(pmx::sys::clock::wall().0 - 12 * 3_600_000);
    let host = Host { cpu: Some(500), load: Some(100), memory: Some(1 << 30), ..Host::default() };
    std::fs::create_dir_all(home.path().join("history")).unwrap();
    std::fs::write(home.path().join("history/minutes.1"), block(then, &[], &host)).unwrap();
    let (over, failed, served) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match crate::support::get(port, "/") {
                    Ok(answer) if answer.status == 200 => served.fetch_add(1, Ordering::Relaxed),
                    _ => failed.fetch_add(1, Ordering::Relaxed),
                };
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dashboard.cjs");
        let mut browser = Command::new("node");
        browser.arg(script).arg(format!("http://127.0.0.1:{}", web.port)).arg(&web.token);
        browser.arg(home.path().join("web.token")).arg("shop").env("NODE_PATH", &modules);
        browser.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut browser = browser.spawn().unwrap();
        let (mut stdin, stdout) = (browser.stdin.take().unwrap(), browser.stdout.take().unwrap());
        let lines: Vec<String> = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .inspect(|line| {
                if line == "reloaded" {
                    over.store(true, Ordering::Relaxed);
                    let _ = stdin.write_all(b"go on\n");
                }
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        let ran = crate::support::finish(browser);
        (ran, lines)
    });
    let (ran, lines) = told;
    assert!(ran.code == 0, "{lines:?}\n{}", ran.err);
    assert_eq!(lines, ["reload", "reloaded", "done"]);
    let (failed, served) = (failed.into_inner(), served.into_inner());
    assert!(failed == 0 && served > 50, "{failed} of {} failed", failed + served);
}
