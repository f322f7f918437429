//! `on`: who is told what happens to an app, and that telling it holds up nobody.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::container::Container;
use crate::support::{Home, free_port, get, is_alive, probe, signal, wait_for, wait_until};

/// Notes what is told, one JSON object a line, and how often.
const NOTE: &str = "cat >> told";

fn note() -> Value {
    json!({"command": NOTE, "min_interval": 0})
}

fn start(home: &Home, app: &Value) -> crate::support::Ran {
    home.file("app.json", &app.to_string());
    home.pmx(&["start", "app.json"])
}

/// What was told so far.
fn told(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.dir().join("told")).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))).collect()
}

/// The first of these events, once it is told.
fn event(home: &Home, name: &str) -> Value {
    wait_for(name, || told(home).into_iter().find(|event| event["event"] == name))
}

fn log(home: &Home) -> String {
    fs::read_to_string(home.path().join("pmx.log")).unwrap_or_default()
}

fn pid(path: PathBuf) -> i32 {
    wait_for("a pid", || fs::read_to_string(&path).ok()?.trim().parse().ok())
}

/// One request of HTTP, whole, and the stream for the answer.
fn asked(listener: &TcpListener) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return (text, stream);
            }
        }
        assert!(count > 0, "{text}");
    }
}

#[test]
fn a_crash_each_restart_and_the_end_of_the_budget_are_told() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"I am $$\"\nexit 4\n");
    let variables = json!({"command": ["sh", "-c", "env >> variables; pwd >> variables"]});
    let app = json!({
        "name": "app", "namespace": "shop", "script": "./app.sh", "max_restarts": 2, "env": {"WHO": "me"},
        "on": {"crash": [note(), variables], "restart": note(), "errored": note()},
    });
    start(&home, &app);
    let errored = event(&home, "errored");
    let events = wait_for("all events", || Some(told(&home)).filter(|told| told.len() == 4));
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let count = |name: &str| names.iter().filter(|one| **one == name).count();
    assert_eq!((count("crash"), count("restart"), count("errored")), (2, 1, 1), "{names:?}");
    let crash = event(&home, "crash");
    let pid = crash["pid"].as_u64().unwrap();
    for (key, value) in [
        ("version", json!(1)),
        ("app", json!("app")),
        ("namespace", json!("shop")),
        ("id", json!(0)),
        ("instance", json!(0)),
        ("reason", json!("exit code 4")),
        ("exit_code", json!(4)),
        ("signal", Value::Null),
        ("cause", Value::Null),
        ("lines", json!([format!("I am {pid}")])),
        ("suppressed", json!(0)),
    ] {
        assert_eq!(crash[key], value, "{key} of {crash}");
    }
    let time = crash["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(crash["host"], host.trim());
    let restart = event(&home, "restart");
    assert_eq!((&restart["cause"], &restart["reason"]), (&json!("crash"), &json!("exit code 4")));
    // In the words of the list.
    let reason = "too many unstable restarts (2), the last one: exit code 4";
    assert_eq!((&errored["reason"], &errored["restarts"]), (&json!(reason), &json!(1)));
    assert!(home.pmx(&["describe", "app"]).ok().out.contains(reason));
    // It runs as the app does.
    let variables = wait_for("variables", || {
        fs::read_to_string(home.dir().join("variables")).ok().filter(|text| text.ends_with('\n'))
    });
    let here = home.dir().canonicalize().unwrap().display().to_string();
    for line in ["WHO=me", "PMX_EVENT=crash", "PMX_APP=app", "PMX_ID=0", "PMX_REASON=exit code 4", &here] {
        assert!(variables.lines().any(|one| one == line), "{line} is not in\n{variables}");
    }
    assert!(!variables.contains("PMX_INSTANCE"), "it is none of the app's processes");
}

#[test]
fn what_was_asked_for_is_no_crash_and_neither_is_what_is_done() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.file("done.sh", "#!/bin/sh\nexit 0\n");
    let on = json!({"crash": note(), "restart": note(), "errored": note()});
    let apps = json!([
        {"name": "app", "script": "./app.sh", "on": on},
        {"name": "done", "script": "./done.sh", "autorestart": false, "on": on},
        {"name": "five", "script": "exit 5", "stop_exit_codes": [5], "on": on},
    ]);
    start(&home, &apps).ok();
    wait_until("the ends", || home.status(1) == "stopped" && home.status(2) == "stopped");
    home.pmx(&["restart", "app"]).ok();
    home.pmx(&["reload", "app"]).ok();
    home.pmx(&["stop", "app"]).ok();
    home.pmx(&["start", "app"]).ok();
    signal(home.pid(0), libc::SIGKILL);
    let first = event(&home, "crash");
    assert_eq!(
        (&first["reason"], &first["signal"], &first["exit_code"]),
        (&json!("killed by SIGKILL"), &json!("SIGKILL"), &Value::Null)
    );
    wait_until("the restart", || told(&home).len() == 2);
    assert!(told(&home).iter().all(|event| event["app"] == "app"), "{:?}", told(&home));
}

#[test]
fn who_uses_too_much_memory_is_told_with_the_numbers() {
    let home = Home::new();
    home.file("app.py", "b = bytearray(64 << 20)\nimport time\ntime.sleep(1000)\n");
    let app = json!({
        "name": "app", "script": "./app.py", "interpreter": "python3", "max_memory_restart": "40M",
        "on": {"oom": note(), "restart": note(), "crash": note()},
    });
    start(&home, &app).ok();
    let oom = event(&home, "oom");
    let numbers = &oom["numbers"];
    assert_eq!((&numbers["by"], &numbers["limit"]), (&json!("max_memory_restart"), &json!(40 << 20)));
    assert!(numbers["used"].as_u64().unwrap() > 64 << 20, "{oom}");
    let restart = event(&home, "restart");
    assert_eq!((&restart["cause"], &restart["reason"]), (&json!("memory"), &oom["reason"]));
    assert!(restart["reason"].as_str().unwrap().starts_with("memory "), "{restart}");
    assert!(told(&home).iter().all(|event| event["event"] != "crash"));
}

#[test]
fn whom_the_kernel_kills_for_want_of_memory_is_told() {
    let home = Home::contained("on");
    home.file("app.py", "import time\ntime.sleep(0.2)\nb = bytearray(300 << 20)\ntime.sleep(1000)\n");
    let app = json!({
        "name": "app", "script": "./app.py", "interpreter": "python3", "limits": {"memory": "64M"},
        "max_restarts": 1, "on": {"oom": note(), "crash": note()},
    });
    let ran = start(&home, &app);
    if ran.err.contains("no memory controller") {
        eprintln!("\n!!! SKIPPED: no memory controller; the kernel's killer is NOT tested\n");
        return;
    }
    let oom = event(&home, "oom");
    assert_eq!(oom["numbers"], json!({"by": "kernel", "limit": 64 << 20}), "{oom}");
    assert_eq!(
        (&oom["reason"], &oom["signal"]),
        (&json!("killed by SIGKILL (out of memory)"), &json!("SIGKILL"))
    );
    assert_eq!(event(&home, "crash")["reason"], oom["reason"]);
}

#[test]
fn a_reload_to_a_version_that_throws_is_told_with_its_words() {
    let home = Home::new();
    let port = free_port();
    home.file("server.js", SERVER);
    let declared = json!({
        "name": "app", "script": "./server.js", "interpreter": "node", "exec_mode": "cluster",
        "env": {"PORT": port.to_string()}, "on": {"reload_failed": note(), "crash": note(), "restart": note()},
    });
    start(&home, &declared).ok();
    wait_until("an answer", || get(port, "/").is_ok_and(|answer| answer.status == 200));
    home.file("server.js", "throw new Error('a bad version')\n");
    let ran = home.pmx(&["reload", "app"]).failed();
    let failed = event(&home, "reload_failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.starts_with("the new child ended before it was ready: exit code 1"), "{reason}");
    assert!(ran.err.contains(reason), "{ran:?}");
    assert!(failed["lines"].to_string().contains("a bad version"), "{failed}");
    assert_eq!(failed["exit_code"], 1);
    assert_eq!(told(&home).len(), 1, "nobody crashed, and nobody was replaced");
}

const SERVER: &str =
    "require('http').createServer((_, answer) => answer.end('good')).listen(process.env.PORT)\n";

#[test]
fn who_falls_ill_is_told_once_with_the_answer_of_the_check() {
    let home = Home::new();
    let app = json!({
        "name": "app", "script": "exec sleep 1000",
        "health": {"exec": "[ ! -e ill ] || { echo the database is away >&2; exit 1; }", "interval": "50ms",
                   "start_period": 0, "retries": 2, "on_fail": "none"},
        "on": {"unhealthy": note()},
    });
    start(&home, &app).ok();
    let is_well = || home.process(0)["pm2_env"]["health"] == "healthy";
    wait_until("its health", is_well);
    home.file("ill", "");
    let ill = event(&home, "unhealthy");
    assert_eq!(ill["reason"], "exit code 1: the database is away");
    assert_eq!(ill["pid"].as_i64(), Some(i64::from(home.pid(0))));
    fs::remove_file(home.dir().join("ill")).unwrap();
    wait_until("its health", is_well);
    home.file("ill", "");
    wait_until("the second time", || told(&home).len() == 2);
}

#[test]
fn a_webhook_gets_the_event_and_nobody_else_its_secrets() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    home.file("app.sh", "#!/bin/sh\n[ -e once ] && exec sleep 1000\n: > once\nexit 3\n");
    let url = format!("http://user:hush1@127.0.0.1:{port}/services/hush2?token=hush3");
    let webhook = |key: &str| json!({"url": url, "headers": {"X-Key": key}});
    let declared = |key: &str| json!({"name": "app", "script": "./app.sh", "on": {"crash": webhook(key)}});
    start(&home, &declared("hush4")).ok();
    let (request, mut stream) = asked(&listener);
    stream.write_all(b"HTTP/1.1 500 hush5\r\n\r\n").unwrap();
    drop(stream);
    assert!(request.starts_with("POST /services/hush2?token=hush3 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\nX-Key: hush4\r\n") && request.contains("\r\nAuthorization: Basic "),
        "{request}"
    );
    let body = request.split_once("\r\n\r\n").unwrap().1;
    let crash: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&crash["event"], &crash["exit_code"]), (&json!("crash"), &json!(3)));
    // Once more after a failure, and no more.
    let (again, mut stream) = asked(&listener);
    assert_eq!(again, request);
    stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
    drop(stream);
    let complaint = format!("alert crash of app(0): POST http://127.0.0.1:{port}/***: it answered 404");
    wait_until("the complaint", || log(&home).contains(&complaint));
    let shown = [
        home.pmx(&["jlist"]).ok().out,
        home.pmx(&["describe", "app"]).ok().out,
        home.pmx(&["describe", "app", "--json"]).ok().out,
        home.pmx(&["list"]).ok().out,
        home.pmx(&["prettylist"]).ok().out,
        home.pmx(&["history"]).ok().out,
        log(&home),
    ];
    for text in &shown {
        assert!(!text.contains("hush"), "{text}");
    }
    assert!(shown[1].contains(&format!("POST http://127.0.0.1:{port}/***")), "{}", shown[1]);
    // What is declared otherwise is seen, and not shown.
    let file = home.file("app.json", &declared("hush4").to_string());
    let file = file.to_str().unwrap();
    assert!(home.pmx(&["apply", file]).ok().out.contains("nothing to do"));
    home.file("app.json", &declared("hush6").to_string());
    let plan = home.pmx(&["apply", file, "--dry-run"]).ok().out;
    assert!(plan.contains("on.crash changed") && !plan.contains("hush"), "{plan}");
    // The list on disk has it, for who comes back.
    home.pmx(&["save"]).ok();
    home.pmx(&["kill"]).ok();
    home.pmx(&["resurrect"]).ok();
    let try_it = home.command(&["alert", "app", "crash"]).spawn().unwrap();
    let (request, mut stream) = asked(&listener);
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    drop(stream);
    assert!(request.contains("X-Key: hush4") && request.contains("\"test\":true"), "{request}");
    let ran = crate::support::finish(try_it).ok();
    assert!(ran.out.ends_with("/***: done\n") && !ran.out.contains("hush"), "{ran:?}");
}

#[test]
fn a_webhook_that_never_answers_holds_up_nobody() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let webhook = json!({"url": format!("http://127.0.0.1:{port}"), "timeout": "1s"});
    let app = json!({"name": "app", "script": "exit 3", "max_restarts": 1, "on": {"errored": webhook}});
    start(&home, &app);
    let (_, stream) = asked(&listener);
    probe::assert_prompt(&home);
    wait_until("the complaint", || log(&home).contains("/: it does not answer"));
    drop(stream);
    probe::assert_prompt(&home);
}

/// It answers every request with 204, and notes what it is told.
const SERVER_OF_TLS: &str = "import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        open('heard', 'wb').write(self.headers['X-Key'].encode() + b' ' + body + b'\\n')
        self.send_response(204)
        self.end_headers()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

#[test]
fn a_server_that_proves_nothing_is_refused() {
    let have = |program: &str| Command::new(program).arg("version").output().is_ok();
    if !have("curl") || !have("openssl") {
        eprintln!("\n!!! SKIPPED: no curl or no openssl; https is NOT tested\n");
        return;
    }
    let home = Home::new();
    let port = free_port();
    let key = home.shell("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost").output().unwrap();
    assert!(key.status.success(), "{key:?}");
    home.file("server.py", SERVER_OF_TLS);
    let mut server = Command::new("python3")
        .args(["server.py", &port.to_string()])
        .current_dir(home.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("https://localhost:{port}/hush");
    let app = json!({"name": "app", "script": "exec sleep 1000",
        "on": {"errored": {"url": url, "headers": {"X-Key": "hush"}}}});
    start(&home, &app).ok();
    let refused = home.pmx(&["alert", "app", "errored"]).failed();
    // Whom it trusts is told of it.
    let trusted = [("CURL_CA_BUNDLE", "cert.pem")];
    let answered = home.pmx_with(&trusted, &["alert", "app", "errored"]);
    server.kill().unwrap();
    server.wait().unwrap();
    let complaint = format!("alert app errored: POST https://localhost:{port}/***: curl: (60)");
    assert!(refused.err.contains(&complaint) && !refused.err.contains("hush"), "{refused:?}");
    assert_eq!(answered.code, 0, "{answered:?}");
    let heard = fs::read_to_string(home.dir().join("heard")).unwrap();
    assert!(heard.starts_with("hush {") && heard.contains("\"event\":\"errored\""), "{heard}");
    let gone = home.pmx(&["alert", "app", "errored"]).failed();
    assert!(gone.err.contains("curl: (7)"), "{gone:?}");
}

#[test]
fn an_alert_is_tried_by_hand() {
    let home = Home::new();
    let app = json!({
        "name": "app", "script": "exec sleep 1000",
        "on": {"crash": ["sh", "-c", "cat; echo $PMX_EVENT of $PMX_APP"], "disk": "echo no mail; exit 7",
               "leak": {"command": "cat; exit 1", "timeout": "10s"}},
    });
    start(&home, &app).ok();
    let ran = home.pmx(&["alert", "app", "crash"]).ok();
    let lines: Vec<&str> = ran.out.lines().collect();
    let event: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&event["test"], &event["event"]), (&json!(true), &json!("crash")));
    assert_eq!(lines[1], "crash of app");
    assert!(lines[2].starts_with("alert app crash: sh -c ") && lines[2].ends_with(": done"), "{ran:?}");
    let ran = home.pmx(&["alert", "0", "disk"]).failed();
    assert!(ran.err.contains("exit code 7: no mail") && ran.out == "no mail\n", "{ran:?}");
    let ran = home.pmx(&["alert", "app", "leak"]).failed();
    assert!(ran.out.contains("\"event\":\"leak\""), "{ran:?}");
    for (words, reason) in [
        (&["alert", "app", "oom"][..], "nothing is declared for it"),
        (&["alert", "app", "crush"], "did you mean crash?"),
        (&["alert", "nobody", "crash"], "nobody"),
        (&["alert", "app"], "alert needs"),
    ] {
        let ran = home.pmx(words).failed();
        assert!(ran.err.contains(reason), "{ran:?}");
    }
    // What holds for all apps holds for this one.
    home.pmx(&["set", "on:oom", "echo for all; cat >> told"]).ok();
    assert!(home.pmx(&["alert", "app", "oom"]).ok().out.starts_with("for all\n"));
    assert!(home.pmx(&["set", "on:ooom", "x"]).failed().err.contains("did you mean oom?"));
    home.pmx(&["set", "on:crash", NOTE]).ok();
    fs::remove_file(home.dir().join("told")).unwrap();
    signal(home.pid(0), libc::SIGKILL);
    assert_eq!(self::event(&home, "crash")["signal"], "SIGKILL");
}

#[test]
fn what_comes_too_soon_is_left_out_and_counted_in_the_next() {
    let home = Home::new();
    let on = json!({"crash": {"command": NOTE, "min_interval": "1500ms"}});
    let app = json!({"name": "app", "script": "exec sleep 1000", "min_uptime": 0, "max_restarts": "unlimited",
                     "restart_delay": 10, "on": on});
    start(&home, &app).ok();
    let mut killed = Vec::new();
    wait_until("the second one", || {
        let pid = home.pid(0);
        if pid > 0 && killed.last() != Some(&pid) {
            killed.push(pid);
            signal(pid, libc::SIGKILL);
        }
        told(&home).len() >= 2
    });
    let told = told(&home);
    let second = told[1]["pid"].as_i64().unwrap();
    let between = killed.iter().position(|pid| i64::from(*pid) == second).unwrap() - 1;
    assert!(between > 0, "{killed:?} {told:?}");
    assert_eq!((&told[0]["suppressed"], &told[1]["suppressed"]), (&json!(0), &json!(between)), "{told:?}");
}

#[test]
fn a_storm_of_crashes_starts_few_helpers_at_a_time() {
    let home = Home::new();
    let command = "echo + >> order; sleep 0.1; echo - >> order";
    let on = json!({"crash": {"command": command, "min_interval": 0}});
    let app = |n| json!({"name": format!("app-{n}"), "script": "exit 1", "max_restarts": 3, "on": on});
    let apps: Vec<Value> = (0..50).map(app).collect();
    let begun = Instant::now();
    start(&home, &json!(apps));
    probe::assert_prompt(&home);
    wait_until("the end of the storm", || {
        home.list().iter().all(|one| one["pm2_env"]["status"] == "errored")
    });
    let order = || fs::read_to_string(home.dir().join("order")).unwrap_or_default();
    let count = |sign: &str| order().matches(sign).count();
    wait_until("the alerts", || log(&home).contains("more than 60 alerts in a minute") && count("-") >= 60);
    let mut running = 0_i32;
    for sign in order().lines() {
        running += if sign == "+" { 1 } else { -1 };
        assert!((0..=4).contains(&running), "{running} at a time");
    }
    if begun.elapsed() < Duration::from_secs(50) {
        assert_eq!(count("+"), 60, "in a minute");
    }
    probe::assert_prompt(&home);
}

#[test]
fn a_helper_keeps_its_time_whoever_has_died_meanwhile() {
    let home = Home::new();
    let slow = "echo $$ > slow.pid; while [ ! -e go ]; do sleep 0.02; done; echo told > done";
    let stuck = "echo $$ > stuck.pid; trap '' TERM; setsid sleep 1000 & echo $! > left.pid; sleep 1000";
    let on = json!({"errored": [{"command": slow}, {"command": stuck, "timeout": "1500ms"}]});
    start(&home, &json!({"name": "app", "script": "exit 1", "max_restarts": 1, "on": on}));
    let pids = ["slow", "stuck", "left"].map(|name| pid(home.dir().join(format!("{name}.pid"))));
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!(home.status(0), "errored");
    home.file("go", "");
    wait_until("what was on its way", || home.dir().join("done").exists());
    wait_until("the end of all", || pids.iter().all(|pid| !is_alive(*pid)));
    wait_until("the complaint", || log(&home).contains("not done within 1500 ms"));
    assert_eq!(probe::daemons(&home).len(), 1);
    // The next daemon tells as the first one did.
    home.pmx(&["restart", "app"]);
    wait_until("another one", || pid(home.dir().join("slow.pid")) != pids[0]);
}

#[test]
fn a_helper_that_lost_its_time_is_ended() {
    let home = Home::new();
    let command = "echo $PPID > helper.pid; echo $$ > command.pid; exec sleep 1000";
    let on = json!({"errored": {"command": command, "timeout": "500ms"}});
    start(&home, &json!({"name": "app", "script": "exit 1", "max_restarts": 1, "on": on}));
    let pids = ["helper", "command"].map(|name| pid(home.dir().join(format!("{name}.pid"))));
    signal(pids[0], libc::SIGSTOP);
    wait_until("the end of both", || pids.iter().all(|pid| !is_alive(*pid)));
    assert!(log(&home).contains("alert errored of app(0): given up"), "{}", log(&home));
}

#[test]
fn when_the_daemon_ends_nobody_is_left() {
    let home = Home::new();
    let stuck = "echo $$ > stuck.pid; trap '' TERM; setsid sleep 1000 & echo $! > left.pid; sleep 1000";
    let on = json!({"errored": vec![json!({"command": stuck, "timeout": "10m"}); 8]});
    start(&home, &json!({"name": "app", "script": "exit 1", "max_restarts": 1, "on": on}));
    let pids = ["stuck", "left"].map(|name| pid(home.dir().join(format!("{name}.pid"))));
    let begun = Instant::now();
    home.pmx(&["kill"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_until("the end of all", || pids.iter().all(|pid| !is_alive(*pid)));
    let mark = format!("PMX_HOME={}", home.path().display());
    let is_ours = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    wait_until("the end of what the others started", || !probe::pids().iter().any(is_ours));
}

#[test]
fn a_container_that_ends_tells_why() {
    let home = Home::new();
    let app = json!({"name": "app", "script": "sleep 0.2; exit 6", "max_restarts": 1,
                     "on": {"errored": note(), "crash": note()}});
    home.file("apps.json", &json!([app]).to_string());
    let container = Container::run(&home, &["apps.json", "--exit-on", "any"]);
    assert_eq!(container.end().code, 6);
    let mut events: Vec<String> = told(&home).iter().map(|event| event["event"].to_string()).collect();
    events.sort();
    assert_eq!(events, ["\"crash\"", "\"errored\""]);
}
