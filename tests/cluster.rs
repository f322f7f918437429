//! pmx as the primary of Node's cluster, with real Node processes that know nothing of it: every kind of
//! server, every way to start one, and apps that misbehave.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::server::{Server, app};
use crate::support::{Home, NODES, finish, free_port, get, is_alive, node, signal, wait_for, wait_until};

/// Both workers answer, are listed as a cluster, write their logs, and are replaced without a failed request.
fn clusters(major: u32, script: &str) {
    let home = Home::new();
    let server = Server::start(&home, major, &app(script), &["-i", "2"]);
    let old = server.answering(2);
    assert_eq!(old, server.listed().into_iter().collect());
    for process in home.list() {
        let env = &process["pm2_env"];
        assert_eq!((&env["exec_mode"], &env["status"]), (&"cluster_mode".into(), &"online".into()));
        assert!(env["node_version"].as_str().unwrap().starts_with(&format!("v{major}.")), "{env}");
    }
    wait_until("both logs", || (0..2).all(|id| home.log(&format!("app-out-{id}.log")).contains("listening")));
    let (ran, report) = server.under_load(server.plan(true), || home.pmx(&["reload", "app"]));
    ran.ok();
    assert_eq!(report.failures.total(), 0, "{script} on {major}: {}", report.failures);
    assert!(server.answering(2).is_disjoint(&old));
}

#[test]
fn express_clusters_on_every_node() {
    NODES.iter().for_each(|major| clusters(*major, "express.cjs"));
}

#[test]
fn express_as_a_module_clusters_on_every_node() {
    NODES.iter().for_each(|major| clusters(*major, "express.mjs"));
}

#[test]
fn fastify_clusters_on_every_node() {
    for major in NODES {
        // Fastify 5 supports Node 20 and later; it runs on 18 all the same.
        clusters(major, "fastify.cjs");
    }
}

#[test]
fn fastify_as_a_module_clusters_on_every_node() {
    NODES.iter().for_each(|major| clusters(*major, "fastify.mjs"));
}

#[test]
fn every_policy_shares_the_port() {
    for policy in ["reuseport", "rr", "shared"] {
        let home = Home::new();
        let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "2", "--balance", policy]);
        assert_eq!(server.answering(2).len(), 2, "{policy}");
    }
}

#[test]
fn round_robin_is_even() {
    let home = Home::new();
    let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "2", "--balance", "rr"]);
    server.answering(2);
    let answers: Vec<Option<String>> = (0..20)
        .map(|_| {
            let head = get(server.port, "/").unwrap().head;
            head.lines().find_map(|line| line.strip_prefix("x-worker: ").map(String::from))
        })
        .collect();
    let turns = answers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(turns, 19, "{answers:?}");
}

// ---- kinds of servers ----

/// A certificate for localhost.
fn certificate(home: &Home) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]);
    let quiet = openssl.current_dir(home.dir()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(quiet.status().unwrap().success());
}

/// What the workers of `everything.cjs` say they listen on, each its own list of (name, address).
fn announced(home: &Home, id: u32) -> Vec<(String, Value)> {
    wait_for("the addresses of a worker", || {
        let lines: Vec<Value> = home
            .log(&format!("app-out-{id}.log"))
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let mut named: Vec<(String, Value)> = lines
            .iter()
            .map(|line| (line["name"].as_str().unwrap().to_string(), line["address"].clone()))
            .collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        (named.len() == 10).then_some(named)
    })
}

/// `Connection: close`, whatever the stream.
fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text.lines().find_map(|line| line.strip_prefix("x-worker: ")).unwrap().to_string()
}

/// Asks until two different workers have answered.
#[track_caller]
fn both(what: &str, mut ask: impl FnMut() -> String) {
    let mut seen = BTreeSet::new();
    wait_until(&format!("{what} from both workers"), || {
        seen.insert(ask());
        seen.len() == 2
    });
}

/// Runs one of our client scripts and returns what it printed.
fn client(script: &str, port: u16) -> String {
    let mut command = Command::new(node(20));
    command.arg(app(script)).arg(port.to_string()).stdin(Stdio::null());
    let ran = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).ok();
    ran.out.trim().to_string()
}

fn every_kind_of_server(major: u32, policy: &str) {
    let home = Home::new();
    certificate(&home);
    let dir = home.dir().to_str().unwrap().to_string();
    let port = free_port();
    let (script, node) = (app("everything.cjs"), node(major));
    home.pmx_with(
        &[("PORT", &port.to_string()), ("DIR", &dir)],
        &[
            "start",
            script.to_str().unwrap(),
            "-n",
            "app",
            "-i",
            "2",
            "--balance",
            policy,
            "--interpreter",
            node.to_str().unwrap(),
        ],
    )
    .ok();
    let addresses = announced(&home, 0);
    assert_eq!(addresses, announced(&home, 1), "port 0 is the same port for all workers");
    let of = |name: &str| &addresses.iter().find(|(n, _)| n == name).unwrap().1;
    let port_of = |name: &str| of(name)["port"].as_u64().unwrap() as u16;
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).unwrap();
    let connect6 = |port: u16| TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();

    assert_eq!(of("dual")["address"], "::");
    assert_eq!(port_of("dual"), port);
    both("IPv4 on the default host", || ask(connect(port)));
    both("IPv6 on the default host", || ask(connect6(port)));
    assert_eq!(of("v4")["address"], "127.0.0.1");
    both("IPv4", || ask(connect(port_of("v4"))));
    assert_eq!(of("v6")["address"], "::1");
    both("IPv6", || ask(connect6(port_of("v6"))));
    assert_ne!(port_of("free"), port_of("free too"));
    both("a free port", || ask(connect(port_of("free"))));
    both("another free port", || ask(connect(port_of("free too"))));

    let path = home.dir().join("web.sock");
    assert_eq!(of("unix"), path.to_str().unwrap());
    ask(UnixStream::connect(&path).unwrap());

    both("a net server", || {
        let mut text = String::new();
        connect(port_of("net")).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("pid "), "{text}");
        text
    });

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..20 {
        udp.send_to(b"?", ("127.0.0.1", port_of("udp"))).unwrap();
        let mut buffer = [0; 64];
        let count = udp.recv(&mut buffer).unwrap();
        assert!(buffer[..count].starts_with(b"pid "));
    }

    assert!(client("http2.cjs", port_of("h2c")).starts_with("200 "));
    let resumed = client("resume.cjs", port_of("https"));
    assert_eq!(resumed, r#"{"workers":2,"refused":0}"#, "a TLS session is good for every worker");

    home.pmx(&["reload", "app"]).ok();
    assert_eq!(addresses, announced_again(&home), "ports are kept over a reload");
    ask(UnixStream::connect(&path).unwrap());
    both("IPv4 after a reload", || ask(connect(port_of("v4"))));
    home.pmx(&["delete", "app"]).ok();
    assert!(!path.exists(), "the socket's path is removed with its app");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// The last ten addresses that worker 0 announced.
fn announced_again(home: &Home) -> Vec<(String, Value)> {
    wait_for("the addresses of the new worker", || {
        let lines: Vec<Value> =
            home.log("app-out-0.log").lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut named: Vec<(String, Value)> = lines
            .iter()
            .skip(10)
            .map(|line| (line["name"].as_str().unwrap().to_string(), line["address"].clone()))
            .collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        (named.len() == 10).then_some(named)
    })
}

#[test]
fn every_kind_of_server_is_shared_on_node_18() {
    every_kind_of_server(18, "reuseport");
}

#[test]
fn every_kind_of_server_is_shared_on_node_20() {
    every_kind_of_server(20, "reuseport");
}

#[test]
fn every_kind_of_server_is_shared_on_node_24() {
    every_kind_of_server(24, "reuseport");
}

#[test]
fn every_kind_of_server_is_dealt_round() {
    every_kind_of_server(22, "rr");
}

// ---- what apps see ----

/// Starts a script of the test's own, called `app`.
#[track_caller]
pub fn start(home: &Home, major: u32, script: &str, options: &[&str]) -> crate::support::Ran {
    let path = home.file("app.cjs", script);
    let node = node(major);
    let mut args = vec!["start", path.to_str().unwrap(), "-n", "app"];
    args.extend(["--interpreter", node.to_str().unwrap(), "--listen-timeout", "20000"]);
    args.extend(options);
    home.pmx(&args)
}

/// Everything that the instances of the app printed.
pub fn printed(home: &Home, instances: u32) -> String {
    (0..instances).map(|id| home.log(&format!("app-out-{id}.log"))).collect()
}

/// Prints how a listen ended, with all that Node tells of an error.
fn listen_script(what: &str) -> String {
    format!(
        "const server = require('http').createServer((q, s) => s.end('hello'));
         server.on('error', (e) => console.log('error', JSON.stringify([e.message, e.code, e.errno, e.syscall, e.address, e.port])));
         server.on('listening', () => console.log('listening'));
         setInterval(() => {{}}, 1000);
         server.listen({what});
        "
    )
}

#[test]
fn a_taken_address_is_reported_as_node_reports_it() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let stranger6 = TcpListener::bind("[::]:0").unwrap();
    let port6 = stranger6.local_addr().unwrap().port();
    let taken = Home::new();
    let path = taken.file("taken.sock", "");
    let places = [
        format!("{port}, '127.0.0.1'"),
        port6.to_string(),
        format!("{{ path: '{}' }}", path.display()),
        "{ path: '/no/such/directory/x.sock' }".to_string(),
        "9, '192.0.2.1'".to_string(),
    ];
    for major in [18, 24] {
        let mut script = String::new();
        for place in &places {
            script += &format!("{{ {} }}\n", listen_script(place));
        }
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(String::from).collect();
            lines.sort();
            (lines.len() == places.len()).then_some(lines)
        };
        // In a cluster that was asked for, the error is that of Node's cluster; else that of plain node.
        let run = |main: String| {
            let dir = Home::new();
            dir.file("app.cjs", &script);
            let (main, out) = (dir.file("main.cjs", &main), dir.dir().join("out"));
            let mut bare = Command::new(node(major))
                .arg(main)
                .stdout(std::fs::File::create(&out).unwrap())
                .spawn()
                .unwrap();
            let errors = wait_for("node's errors", || lines(&std::fs::read_to_string(&out).unwrap()));
            bare.kill().unwrap();
            bare.wait().unwrap();
            assert!(errors.iter().all(|line| line.starts_with("error")), "{errors:?}");
            errors
        };
        let plain = run("require('./app.cjs')".into());
        let clustered = run(
            "const cluster = require('cluster'); cluster.isPrimary ? cluster.fork() : require('./app.cjs')"
                .into(),
        );
        assert_ne!(plain, clustered);
        for (options, expected) in [
            (&["-i", "1"][..], &clustered),
            (&["-i", "1", "--balance", "rr"], &clustered),
            (&["-i", "1", "--balance", "shared"], &clustered),
            (&["-x"], &plain),
            (&[], &plain),
        ] {
            let home = Home::new();
            start(&home, major, &script, &[options, &["--listen-timeout", "200"]].concat()).ok();
            let seen = wait_for("the app's errors", || lines(&printed(&home, 1)));
            assert_eq!(seen, *expected, "node {major} {options:?}");
        }
    }
}

#[test]
fn an_exclusive_port_is_for_the_first() {
    let home = Home::new();
    let script = listen_script(&format!("{{ port: {}, host: '127.0.0.1', exclusive: true }}", free_port()));
    start(&home, 20, &script, &["-i", "2", "--listen-timeout", "200"]).ok();
    wait_until("both to know", || printed(&home, 2).lines().count() == 2);
    let printed = printed(&home, 2);
    assert_eq!(printed.lines().filter(|line| *line == "listening").count(), 1, "{printed}");
    assert_eq!(printed.lines().filter(|line| line.contains("EADDRINUSE")).count(), 1, "{printed}");
}

#[test]
fn a_descriptor_of_the_primary_is_not_to_be_had() {
    let home = Home::new();
    start(&home, 20, &listen_script("{ fd: 99 }"), &["-i", "1", "--listen-timeout", "200"]).ok();
    wait_until("an error", || printed(&home, 1).contains("error"));
    assert!(printed(&home, 1).contains("EINVAL"), "{}", printed(&home, 1));
    assert_eq!(home.status(0), "online");
}

#[test]
fn a_server_is_closed_and_opened_again() {
    for policy in ["reuseport", "rr", "shared"] {
        let home = Home::new();
        let port = free_port();
        let script = format!(
            "const server = require('http').createServer((q, s) => s.end('hello'));
             let rounds = 0;
             server.on('listening', () => ++rounds < 5 ? server.close(() => server.listen({port})) : console.log('done'));
             server.listen({port});"
        );
        start(&home, 20, &script, &["-i", "2", "--balance", policy]).ok();
        wait_until("five rounds", || printed(&home, 2).matches("done").count() == 2);
        assert_eq!(get(port, "/").unwrap().body, "hello", "{policy}");
    }
}

/// Two workers give an address up, each a while after it decided to, and want it again at once.
#[test]
fn a_server_that_is_slow_to_close_does_not_keep_another_from_opening() {
    for policy in ["reuseport", "shared"] {
        let home = Home::new();
        let port = free_port();
        let script = format!(
            "const {{ TCP }} = process.binding('tcp_wrap');
             const close = TCP.prototype.close;
             TCP.prototype.close = function(...args) {{
               for (const end = Date.now() + 100; Date.now() < end;);
               return close.apply(this, args);
             }};
             const server = require('http').createServer((q, s) => s.end('hello'));
             server.once('listening', () => setTimeout(() => {{
               server.close(() => server.listen({port}, () => console.log('done')));
             }}, 300));
             server.on('error', (e) => console.log(e.code, 'done'));
             server.listen({port});"
        );
        start(&home, 20, &script, &["-i", "2", "--balance", policy]).ok();
        wait_until("both to be open again", || printed(&home, 2).matches("done").count() == 2);
        assert_eq!(get(port, "/").unwrap().body, "hello", "{policy}");
        assert_eq!(printed(&home, 2).matches("EADDRINUSE").count(), 0, "{policy}");
    }
}

#[test]
fn a_closed_port_is_free_for_others() {
    let home = Home::new();
    let port = free_port();
    let script = format!(
        "const server = require('http').createServer((q, s) => {{ s.end('hello'); server.close(() => console.log('closed')); }});
         server.listen({port}, '127.0.0.1');
         setInterval(() => {{}}, 1000);"
    );
    start(&home, 20, &script, &["-i", "1"]).ok();
    get(port, "/").unwrap();
    wait_until("the close", || printed(&home, 1).contains("closed"));
    wait_until("a free port", || TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_port_that_a_new_version_left_is_free_for_others() {
    for command in ["reload", "restart"] {
        let home = Home::new();
        let old = free_port();
        let server = Server { home: &home, port: old };
        server.launch(20, &app("hello.cjs"), &["-i", "2"]).ok();
        assert_eq!(get(old, "/").unwrap().status, 200);
        let new = free_port();
        home.pmx_with(&[("PORT", &new.to_string())], &[command, "app", "--update-env"]).ok();
        assert_eq!(get(new, "/").unwrap().status, 200);
        wait_until(&format!("the old port to be free after a {command}"), || {
            TcpListener::bind(("127.0.0.1", old)).is_ok()
        });
    }
}

// ---- leaving, and misbehaving ----

/// The app does `what` half a second into its life; the worker ends and is replaced.
fn leaves(what: &str) {
    let home = Home::new();
    let port = free_port();
    let script = format!(
        "const cluster = require('cluster');
         require('http').createServer((q, s) => {{
           s.end(String(process.pid));
           if (q.url === '/leave') setImmediate(() => {{ {what} }});
         }}).listen({port});"
    );
    start(&home, 20, &script, &["-i", "1"]).ok();
    let old = home.pid(0);
    assert_eq!(get(port, "/leave").unwrap().body, old.to_string());
    wait_until(&format!("the end after {what}"), || !is_alive(old));
    wait_until("its replacement", || get(port, "/").is_ok_and(|r| r.body != old.to_string()));
}

#[test]
fn a_worker_may_leave_on_its_own_account() {
    leaves("process.disconnect()");
    leaves("cluster.worker.disconnect()");
    leaves("cluster.worker.kill()");
}

#[test]
fn forged_messages_harm_nobody() {
    let home = Home::new();
    let victim = Server::start(&home, 20, &app("hello.cjs"), &["-i", "2", "--balance", "rr"]);
    let path = home.file(
        "forger.cjs",
        "const cluster = require('cluster');
         const http = require('http');
         const send = (message) => process.send(message, () => {});
         const port = Number(process.env.FORGED);
         http.createServer((q, s) => s.end('alive')).listen(port, () => {
           for (let seq = 0; seq < 1200; seq++) {
             send({ cmd: 'NODE_CLUSTER', act: 'queryServer', seq, index: seq, address: null, port: 0, addressType: 4 });
             if (seq >= 100) continue;
             send({ cmd: 'NODE_CLUSTER', ack: seq, accepted: seq % 2 === 0 });
             send({ cmd: 'NODE_CLUSTER', act: 'close', key: '127.0.0.1:' + seq + ':4:null' });
             send({ cmd: 'NODE_CLUSTER', act: 'listening', seq });
             send({ cmd: 'NODE_CLUSTER', act: 'queryServer', seq, port: 'x', address: {} });
             send({ cmd: 'NODE_CLUSTER', act: 'newconn', key: 'x', seq });
             send({ cmd: 'NODE_PMX', act: 'hello', pid: 1, node: 'x'.repeat(1000) });
             send({ cmd: 'NODE_PMX', act: 'drain' });
             send({ cmd: 'NODE_HANDLE_NACK' });
             send(['NODE_CLUSTER', null, seq]);
           }
           require('fs').writeSync(3, 'no json\\n\\n{}{}\\n' + 'x'.repeat(100000) + '\\n');
           send('x'.repeat(1 << 20));
           console.log('forged');
         });",
    );
    let forged = free_port();
    let node = node(20);
    let args = ["start", path.to_str().unwrap(), "-i", "2", "--interpreter", node.to_str().unwrap()];
    home.pmx_with(&[("FORGED", &forged.to_string())], &args).ok();
    wait_until("the forgeries", || {
        (2..4).all(|id| home.log(&format!("forger-out-{id}.log")).contains("forged"))
    });
    wait_until("the limit of addresses", || {
        let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
        log.contains("listen on tcp port 0: too many open files")
    });
    let mut load = pmx::load::Load::new(victim.plan(false)).unwrap();
    load.run_requests(500).unwrap();
    let report = load.take_report();
    assert_eq!((report.failures.total(), report.tally.len()), (0, 2), "{}", report.failures);
    assert_eq!(home.list().len(), 4);
    assert!(home.list().iter().all(|p| p["pm2_env"]["status"] == "online"));
    home.pmx(&["restart", "forger"]).ok();
}

#[test]
fn a_handle_that_an_app_sends_is_acknowledged() {
    let home = Home::new();
    let port = free_port();
    // Until a handle is acknowledged, Node holds back all that is sent after it.
    let script = format!(
        "const net = require('net');
         net.createServer((socket) => {{
           process.send('mine', socket, {{ keepOpen: true }}, () => {{}});
           process.send('after', (error) => {{ console.log('sent', error); }});
           for (let i = 0; i < 5; i++) process.send(i, socket, {{ keepOpen: true }});
           process.send({{ last: 1 }}, () => socket.end('all sent'));
         }}).listen({port});"
    );
    for options in [&["-i", "1"][..], &["-x"]] {
        start(&home, 20, &script, options).ok();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = wait_for("a connection", || TcpStream::connect(addr).ok());
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "all sent", "{options:?}");
        home.pmx(&["delete", "app"]).ok();
    }
}

#[test]
fn a_stopped_worker_does_not_hold_up_its_sibling() {
    let home = Home::new();
    let server = Server::start(&home, 20, &app("hello.cjs"), &["-i", "2", "--balance", "rr"]);
    server.answering(2);
    let frozen = home.pid(0);
    signal(frozen, 19);
    // What was handed to the frozen one waits for it; everybody else is served.
    let patient: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("an answer of the other", || {
        get(server.port, "/").is_ok_and(|r| r.head.contains(&format!("x-worker: {}", home.pid(1))))
    });
    signal(frozen, 18);
    for mut stream in patient {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"));
    }
}
