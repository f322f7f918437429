//! Messages between apps, from and to clients; custom metrics and actions.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;

use serde_json::{Value, json};

use crate::support::{Home, node_modules, signal, wait_for, wait_until};

/// Prints every message of the bus that it gets, and publishes what `SAY` holds each 20 ms.
const APP: &str = r#"
process.on('message', m => { if (m && m.type === 'process:msg') console.log(JSON.stringify(m)); });
const topics = JSON.parse(process.env.TOPICS || '[]');
if (topics.length) process.send({ type: 'pmx:subscribe', data: { topics } });
const say = JSON.parse(process.env.SAY || '[]');
setInterval(() => { for (const m of say) process.send(m); }, 20);
"#;

fn start(home: &Home, name: &str, topics: Value, say: Value) {
    home.file("app.js", APP);
    let env = json!({"TOPICS": topics.to_string(), "SAY": say.to_string()});
    let file = home
        .file(&format!("{name}.json"), &json!([{"script": "app.js", "name": name, "env": env}]).to_string());
    home.pmx(&["start", file.to_str().unwrap()]).ok();
}

/// `pmx bus`, line by line. It ends with this.
struct Bus {
    child: Child,
    lines: std::sync::mpsc::Receiver<Value>,
}

impl Bus {
    fn of(home: &Home, patterns: &[&str]) -> Bus {
        let args: Vec<&str> = ["bus"].into_iter().chain(patterns.iter().copied()).collect();
        let mut child = home.command(&args).spawn().unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).all(|value| send.send(value).is_ok());
        });
        Bus { child, lines }
    }

    #[track_caller]
    fn next(&self) -> Value {
        wait_for("a message", || self.lines.try_recv().ok())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn orders() -> Value {
    json!([
        {"type": "process:msg", "topic": "orders.new", "data": {"n": 1}},
        {"type": "process:msg", "topic": "invoices.new", "data": 2},
    ])
}

#[test]
fn apps_publish_and_subscribe_by_pattern_and_pmx_says_who_it_was() {
    let home = Home::new();
    start(&home, "reader", json!(["orders.*"]), json!([]));
    start(&home, "writer", json!(["orders.#"]), orders());
    let read = || home.log("reader-out-0.log");
    wait_until("a message", || read().contains("orders.new"));
    let line: Value = serde_json::from_str(read().lines().next().unwrap()).unwrap();
    let expected = json!({"type": "process:msg", "topic": "orders.new", "data": {"n": 1},
        "from": {"id": 1, "name": "writer"}});
    assert_eq!(line, expected);
    assert!(!read().contains("invoices"));
    assert_eq!(home.log("writer-out-1.log"), "", "nobody hears himself");
    // A daemon that dies takes no subscription along.
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
    home.pmx(&["publish", "orders.late", "\"after\""]).ok();
    wait_until("a message of the next daemon", || read().contains("orders.late"));
}

#[test]
fn clients_listen_and_publish_and_other_languages_too() {
    let home = Home::new();
    start(&home, "writer", json!([]), orders());
    let bus = Bus::of(&home, &["orders.#"]);
    let first = bus.next();
    assert_eq!((&first["topic"], &first["from"]["name"]), (&json!("orders.new"), &json!("writer")));
    assert_eq!(bus.next()["topic"], "orders.new");
    drop(bus);
    // Lines on the control socket are all that another language needs.
    let mut socket = UnixStream::connect(home.path().join("pmx.sock")).unwrap();
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    socket
        .write_all(b"{\"v\":1,\"id\":1,\"verb\":\"listen\",\"patterns\":[\"jobs.*\",\"pmx.process.*\"]}\n")
        .unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["done"]["id"], 1);
    home.pmx(&["publish", "jobs.done", "{\"ok\":true}"]).ok();
    let message = lines.next().unwrap();
    assert_eq!(
        (&message["bus"]["topic"], &message["bus"]["data"]),
        (&json!("jobs.done"), &json!({"ok": true}))
    );
    socket
        .write_all(b"{\"v\":1,\"id\":2,\"verb\":\"publish\",\"topic\":\"jobs.more\",\"data\":3}\n")
        .unwrap();
    assert_eq!(lines.next().unwrap()["bus"]["data"], 3);
    assert_eq!(lines.next().unwrap()["done"]["id"], 2);
    // Our own events are there under a name that nobody else can use.
    home.pmx(&["stop", "writer"]).ok();
    assert_eq!(lines.next().unwrap()["bus"]["topic"], "pmx.process.stopping");
    let refused = home.pmx(&["publish", "pmx.process.online", "1"]).failed().err;
    assert!(refused.contains("pmx's own"), "{refused}");
    assert!(home.pmx(&["publish", "a", "{"]).failed().err.contains("is not JSON"));
}

#[test]
fn d22_no_app_forges_an_event_of_pmx_or_another_identity() {
    let home = Home::new();
    let forged = json!([
        {"type": "process:msg", "topic": "pmx.process.errored", "data": {"id": 0}},
        {"type": "pmx.process.errored", "data": {"id": 0}},
        {"type": "process:msg", "topic": "mine", "data": 1, "from": {"id": 0, "name": "victim"}},
    ]);
    start(&home, "liar", json!([]), forged);
    let bus = Bus::of(&home, &["#"]);
    for _ in 0..20 {
        let message = bus.next();
        assert_eq!((&message["topic"], &message["from"]["name"]), (&json!("mine"), &json!("liar")));
    }
}

#[test]
fn a_reader_that_sleeps_loses_whole_messages_and_holds_up_nobody() {
    let home = Home::new();
    let filler = "x".repeat(16 << 10);
    start(&home, "reader", json!(["big"]), json!([]));
    wait_until("its subscription", || {
        home.pmx(&["publish", "big", "0"]).ok();
        !home.log("reader-out-0.log").is_empty()
    });
    let sleeper = home.pid(0);
    signal(sleeper, libc_stop());
    let mut socket = UnixStream::connect(home.path().join("pmx.sock")).unwrap();
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    socket.write_all(b"{\"v\":1,\"id\":1,\"verb\":\"listen\",\"patterns\":[\"big\"]}\n").unwrap();
    let mut publisher = UnixStream::connect(home.path().join("pmx.sock")).unwrap();
    let mut answers = BufReader::new(publisher.try_clone().unwrap()).lines();
    for n in 0..200 {
        let request = json!({"v": 1, "id": n, "verb": "publish", "topic": "big", "data": [n, filler]});
        publisher.write_all(format!("{request}\n").as_bytes()).unwrap();
        assert!(answers.next().unwrap().unwrap().contains("done"));
    }
    signal(sleeper, libc_continue());
    // What comes is whole, in order, and tells how much is missing.
    let describe = || home.pmx(&["describe", "reader"]).ok().out;
    assert!(describe().contains("messages lost"), "{}", describe());
    let mut lines =
        BufReader::new(socket).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["done"]["id"], 1);
    let mut next = 0;
    for message in lines.by_ref() {
        assert_eq!(message["bus"]["data"][0], next);
        next += 1;
        if next == 60 {
            break;
        }
    }
    publisher
        .write_all(b"{\"v\":1,\"id\":900,\"verb\":\"publish\",\"topic\":\"big\",\"data\":[\"last\"]}\n")
        .unwrap();
    let last = lines.find(|message| message["bus"]["data"][0] == "last").unwrap();
    assert!(last["bus"]["lost"].as_u64() > Some(0), "{last}");
}

fn libc_stop() -> i32 {
    nix::sys::signal::Signal::SIGSTOP as i32
}

fn libc_continue() -> i32 {
    nix::sys::signal::Signal::SIGCONT as i32
}

/// What `@pm2/io` sends and answers, by hand.
const AXM: &str = r#"
process.send({ type: 'axm:option:configuration', data: { module_name: 'shop', isModule: false } });
process.send({ type: 'axm:action', data: { action_name: 'greet', action_type: 'custom', arity: 1, opts: null } });
process.send({ type: 'axm:action', data: { action_name: 'die', action_type: 'custom', arity: 0, opts: null } });
setInterval(() => process.send({ type: 'axm:monitor', data: { users: { value: 42, unit: 'people', type: 'metric', historic: true } } }), 20);
process.on('message', m => {
    const name = typeof m === 'string' ? m : m.msg;
    if (name === 'die') process.exit(0);
    if (name === 'greet') {
        const answer = { action_name: name, return: { hello: m.opts || 'world', from: process.env.pm_id } };
        process.send({ type: 'axm:reply', data: answer });
    }
});
"#;

#[test]
fn metrics_are_shown_and_actions_triggered() {
    let home = Home::new();
    home.file("shop.js", AXM);
    home.pmx(&["start", "shop.js", "--no-autorestart"]).ok();
    home.pmx(&["start", "shop.js", "--name", "second"]).ok();
    let env = |id: u32| home.process(id)["pm2_env"].clone();
    wait_until("metrics", || env(0)["axm_monitor"]["users"]["value"] == 42);
    wait_until("the second's", || env(1)["axm_monitor"]["users"]["value"] == 42);
    assert_eq!(env(0)["axm_actions"][0]["action_name"], "greet");
    assert_eq!(env(0)["axm_options"]["module_name"], "shop");
    let shown = home.pmx(&["describe", "shop"]).ok().out;
    assert!(shown.contains("42 people") && shown.contains("greet, die"), "{shown}");
    let answered = home.pmx(&["trigger", "shop", "greet"]).ok().out;
    assert_eq!(answered, "[shop:0:default]={\"from\":\"0\",\"hello\":\"world\"}\n");
    let all = home.pmx(&["trigger", "all", "greet", "you"]).ok().out;
    assert_eq!(all.lines().count(), 2);
    assert!(all.contains("[second:1:default]={\"from\":\"1\",\"hello\":\"you\"}\n"), "{all}");
    let unknown = home.pmx(&["trigger", "shop", "dance"]).failed().err;
    assert!(unknown.contains("no such action (die, greet)"), "{unknown}");
    let died = home.pmx(&["trigger", "shop", "die"]).failed().err;
    assert!(died.contains("it ended before it answered"), "{died}");
    home.pmx(&["trigger", "nobody", "greet"]).failed();
}

#[test]
fn the_library_of_pm2_works_as_it_is() {
    let home = Home::new();
    home.file(
        "io.js",
        "const io = require('@pm2/io');\n\
         io.metric({ name: 'orders', unit: 'per day', value: () => 7 });\n\
         io.action('double', (param, reply) => reply({ twice: 2 * param }));\n\
         setInterval(() => {}, 1000);",
    );
    let modules = node_modules().display().to_string();
    assert!(node_modules().join("@pm2/io").exists(), "tests/run brings it");
    home.pmx_with(&[("NODE_PATH", &modules)], &["start", "io.js"]).ok();
    let env = || home.process(0)["pm2_env"].clone();
    wait_until("its metric", || env()["axm_monitor"]["orders"]["value"] == 7);
    wait_until("its action", || {
        env()["axm_actions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["action_name"] == "double"))
    });
    let answered = home.pmx(&["trigger", "io", "double", "21"]).ok().out;
    assert_eq!(answered, "[io:0:default]={\"twice\":42}\n");
}
