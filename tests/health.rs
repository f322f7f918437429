//! Health checks: what they find, what follows, and that nothing is lost meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::server::{Server, app, pids};
use crate::support::{Home, WAYS, free_port, is_alive, node, probe, signal, wait_for, wait_until};

/// Servers whose health the test decides.
struct Clinic {
    home: Home,
    port: u16,
}

impl Clinic {
    #[track_caller]
    fn start(fields: Value, health: Value) -> Clinic {
        Clinic::start_in(Home::new(), fields, health)
    }

    #[track_caller]
    fn start_in(home: Home, fields: Value, health: Value) -> Clinic {
        let clinic = Clinic { home, port: free_port() };
        clinic.declare(fields, health);
        clinic.home.pmx(&["start", "app.json"]).ok();
        clinic
    }

    /// Writes the declaration. Checks come quickly, and say at once what they find.
    fn declare(&self, fields: Value, health: Value) {
        let mut quick = json!({ "interval": 150, "timeout": 4_000, "retries": 2, "start_period": 0 });
        merge(&mut quick, health);
        let mut app = json!({
            "name": "app", "script": app("health.cjs"), "interpreter": node(20), "health": quick,
            "env": { "PORT": self.port.to_string(), "DIR": self.home.dir() },
            "listen_timeout": 20_000, "bake_time": 50, "kill_timeout": 500, "drain_timeout": 1_000,
        });
        merge(&mut app, fields);
        self.home.file("app.json", &app.to_string());
    }

    fn server(&self) -> Server<'_> {
        Server { home: &self.home, port: self.port }
    }

    #[track_caller]
    fn details(&self) -> Vec<Value> {
        serde_json::from_str(&self.home.pmx(&["describe", "app", "--json"]).ok().out).unwrap()
    }

    #[track_caller]
    fn healths(&self) -> Vec<String> {
        self.details().iter().map(|one| one["health"].as_str().unwrap_or("none").to_string()).collect()
    }

    #[track_caller]
    fn all_healthy(&self, count: usize) {
        wait_until("health", || self.healths() == vec!["healthy"; count]);
    }

    /// Who was asked, and by whom.
    fn asked(&self) -> BTreeSet<i32> {
        let text = std::fs::read_to_string(self.home.dir().join("asked")).unwrap_or_default();
        text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        self.home.file(name, content)
    }
}

fn merge(into: &mut Value, more: Value) {
    for (key, value) in more.as_object().unwrap() {
        match into.get_mut(key) {
            Some(Value::Object(_)) if value.is_object() => merge(&mut into[key], value.clone()),
            _ => into[key] = value.clone(),
        }
    }
}

#[test]
fn every_worker_is_asked_itself_whatever_the_policy() {
    for balance in ["reuseport", "rr", "shared"] {
        let fields = json!({ "exec_mode": "cluster", "instances": 3, "balance": balance });
        let clinic = Clinic::start(fields, json!({ "http": "/health", "on_fail": "none" }));
        clinic.all_healthy(3);
        let workers: BTreeSet<i32> = clinic.server().listed().into_iter().collect();
        assert_eq!(clinic.asked(), workers, "{balance}");
        let text = std::fs::read_to_string(clinic.home.dir().join("asked")).unwrap();
        assert!(text.lines().all(|line| line.ends_with("127.0.0.1")), "{balance}: {text}");
        // One that is ill is found, and no other.
        let ill = *workers.first().unwrap();
        clinic.file("ill", &ill.to_string());
        wait_until("ill health", || clinic.healths().iter().any(|health| health == "unhealthy"));
        for one in clinic.details() {
            let expected = if one["pid"] == ill { "unhealthy" } else { "healthy" };
            assert_eq!(one["health"], expected, "{balance}: {one}");
        }
        let table = clinic.home.pmx(&["list"]).ok().out;
        assert_eq!(
            (table.matches("online (unhealthy)").count(), table.matches("online (healthy)").count()),
            (1, 2)
        );
        assert!(clinic.home.pmx(&["describe", "app"]).ok().out.contains("it answered 503"));
        let ran = clinic.home.pmx(&["healthcheck"]).failed();
        assert!(ran.err.contains("is not healthy: it answered 503"), "{ran:?}");
        clinic.file("ill", "");
        clinic.all_healthy(3);
        clinic.home.pmx(&["healthcheck"]).ok();
        assert_eq!(
            clinic.server().listed().into_iter().collect::<BTreeSet<_>>(),
            workers,
            "nobody was replaced"
        );
    }
}

#[test]
fn a_worker_that_hangs_is_replaced_and_the_others_fail_nobody() {
    for (balance, on_fail) in [("reuseport", "reload"), ("rr", "reload"), ("reuseport", "restart")] {
        let fields = json!({ "exec_mode": "cluster", "instances": 3, "balance": balance });
        let clinic = Clinic::start(
            fields,
            json!({ "http": "/health", "on_fail": on_fail, "start_period": 20_000, "timeout": 4_000 }),
        );
        clinic.all_healthy(3);
        let server = clinic.server();
        let before: BTreeSet<i32> = server.answering(3);
        let hung = *before.first().unwrap();
        let (after, report) = server.under_load(server.plan(false), || {
            clinic.file("hang", &hung.to_string());
            wait_for("another worker in its place", || {
                let now: BTreeSet<i32> = server.listed().into_iter().filter(|pid| *pid != 0).collect();
                (now.len() == 3 && !now.contains(&hung) && clinic.healths() == ["healthy"; 3]).then_some(now)
            })
        });
        assert!(after.intersection(&before).count() == 2, "{balance} {on_fail}: {before:?} {after:?}");
        assert_eq!(report.failures.total(), 0, "{balance} {on_fail}: {}", report.failures);
        // What waited for the hung one is answered too; those that stay answered all along.
        let answered = pids(&report);
        assert!(before.iter().filter(|pid| **pid != hung).all(|pid| answered.contains(pid)), "{answered:?}");
        wait_until("its end", || !is_alive(hung));
        let detail = clinic.details().into_iter().find(|one| one["by_cause"]["unhealthy"] == 1);
        let detail = detail.unwrap_or_else(|| panic!("{balance} {on_fail}: {:?}", clinic.details()));
        assert!(
            detail["last_restart"].as_str().unwrap().contains("not healthy: no answer within 4000 ms"),
            "{detail}"
        );
    }
}

#[test]
fn p14_a_new_version_that_listens_and_fails_its_check_changes_nothing() {
    for (balance, way) in ["reuseport", "rr"].into_iter().zip(WAYS) {
        let fields = json!({ "exec_mode": "cluster", "instances": 2, "balance": balance });
        // Longer than a worker that is well may have to wait for a processor among other tests.
        let clinic = Clinic::start_in(Home::contained(way), fields, json!({ "http": "/health" }));
        clinic.all_healthy(2);
        let server = clinic.server();
        let before = server.answering(2);
        // It listens, answers everything, and says that it is ill.
        let ((), report) = server.under_load(server.plan(false), || {
            let ran = clinic.home.pmx_with(&[("ILL", "1")], &["reload", "app", "--update-env"]).failed();
            assert!(
                ran.err.contains("the new child is not healthy: it answered 503; the old one serves on"),
                "{ran:?}"
            );
        });
        assert_eq!(report.failures.total(), 0, "{balance}: {}", report.failures);
        assert_eq!(pids(&report), before, "{balance}: nobody else ever answered");
        assert_eq!(server.answering(2), before);
        assert_eq!(clinic.healths(), ["healthy"; 2]);
        // The same without that replaces both.
        clinic.home.pmx(&["reload", "app"]).ok();
        assert!(server.answering(2).is_disjoint(&before), "{balance}");
        clinic.all_healthy(2);
    }
}

#[test]
fn a_server_that_nobody_called_one_is_asked_by_its_own_connection() {
    let clinic = Clinic::start(json!({}), json!({ "http": "/health", "start_period": 20_000 }));
    clinic.all_healthy(1);
    assert_eq!(clinic.asked(), clinic.server().listed().into_iter().collect());
    let before = clinic.home.pid(0);
    clinic.file("ill", &before.to_string());
    wait_until("another", || ![0, before].contains(&clinic.home.pid(0)));
    clinic.all_healthy(1);
}

#[test]
fn a_connection_is_enough_for_tcp_and_a_worker_must_take_it() {
    let fields = json!({ "exec_mode": "cluster", "instances": 2 });
    let clinic = Clinic::start(fields, json!({ "tcp": true, "timeout": 500 }));
    clinic.all_healthy(2);
    let hung = clinic.home.pid(1);
    signal(hung, libc::SIGSTOP);
    wait_until("another", || ![0, hung].contains(&clinic.home.pid(1)));
    clinic.all_healthy(2);
    wait_until("its end", || !is_alive(hung));
}

/// `python3 -m http.server`, or what else is said.
fn python(fields: Value, health: Value, code: &str) -> Home {
    let home = Home::new();
    home.file("app.py", code);
    let mut quick = json!({ "interval": 150, "timeout": 4_000, "retries": 2, "start_period": 0 });
    merge(&mut quick, health);
    let mut app = json!({ "name": "app", "script": "app.py", "health": quick, "kill_timeout": 500 });
    merge(&mut app, fields);
    home.file("app.json", &app.to_string());
    home.pmx(&["start", "app.json"]).ok();
    home
}

fn health(home: &Home, id: u32) -> Value {
    let ran = home.pmx(&["describe", &id.to_string(), "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

const SERVER: &str = "
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = self.path.encode()
        self.send_response(200 if self.path == '/up?x' else 404)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port = int(os.environ['BASE']) + int(os.environ['NODE_APP_INSTANCE'])
http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()
";

#[test]
fn any_program_is_asked_at_its_own_port() {
    // A port that ends with 0, so that the instance can be its last digit.
    let base = crate::support::ten_free_ports();
    let stem = base / 10;
    let url = |path: &str| json!({ "http": format!("http://127.0.0.1:{stem}{{instance}}{path}"), "start_period": 20_000, "retries": 1_000 });
    let fields = json!({ "instances": 3, "env": { "BASE": base.to_string() } });
    let home = python(fields.clone(), url("/up?x"), SERVER);
    for id in 0..3 {
        wait_until("health", || health(&home, id)["health"] == "healthy");
    }
    drop(home);
    let home = python(fields.clone(), url("/nothing"), SERVER);
    wait_until("an answer", || health(&home, 2)["health_error"] == "it answered 404");
    assert_eq!(health(&home, 2)["health"], "starting");
    drop(home);
    let mut expected = url("/nothing");
    merge(&mut expected, json!({ "expect": "404" }));
    let home = python(fields, expected, SERVER);
    wait_until("health", || health(&home, 2)["health"] == "healthy");
    drop(home);
    let home = python(
        json!({ "env": { "BASE": base.to_string() } }),
        json!({ "tcp": base, "start_period": 20_000 }),
        SERVER,
    );
    wait_until("health", || health(&home, 0)["health"] == "healthy");
}

const SLEEPER: &str = "import time\ntime.sleep(1000)\n";

#[test]
fn who_listens_nowhere_is_refused_with_a_reason() {
    let port = free_port();
    let home =
        python(json!({}), json!({ "http": format!("http://127.0.0.1:{port}/"), "on_fail": "none" }), SLEEPER);
    wait_until("ill health", || health(&home, 0)["health"] == "unhealthy");
    assert_eq!(health(&home, 0)["health_error"], "connection refused");
    drop(home);
    let home = python(json!({}), json!({ "http": "/", "on_fail": "none" }), SLEEPER);
    wait_until("ill health", || health(&home, 0)["health"] == "unhealthy");
    assert_eq!(health(&home, 0)["health_error"], "it does not listen on a port that pmx knows of");
}

#[test]
fn a_command_decides_by_its_exit_code() {
    let check = "test \"$NODE_APP_INSTANCE$name$MINE\" = 0appx || exit 9; test -e well || { echo it is ill >&2; exit 3; }";
    let home = Home::new();
    home.file("well", "");
    home.file("app.py", SLEEPER);
    let declaration = json!({
        "name": "app", "script": "app.py", "env": { "MINE": "x" }, "kill_timeout": 500,
        "health": { "exec": check, "interval": 100, "retries": 3, "start_period": 0 },
    });
    home.file("app.json", &declaration.to_string());
    home.pmx(&["start", "app.json"]).ok();
    wait_until("health", || health(&home, 0)["health"] == "healthy");
    let pid = home.pid(0);
    std::fs::remove_file(home.dir().join("well")).unwrap();
    // It shares no port, so it is restarted.
    wait_until("another", || ![0, pid].contains(&home.pid(0)));
    let detail = health(&home, 0);
    assert!(
        detail["last_restart"].as_str().unwrap().contains("not healthy: exit code 3: it is ill"),
        "{detail}"
    );
    home.file("well", "");
    wait_until("health", || health(&home, 0)["health"] == "healthy");
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
    let home = Home::new();
    home.file("app.py", SLEEPER);
    let declaration = json!({
        "name": "app", "script": "app.py",
        "health": {
            "exec": "echo $$ >> pids; sleep 1000 & echo $! >> pids; wait", "interval": 100, "timeout": 300,
            "retries": 2, "start_period": 0, "on_fail": "none",
        },
    });
    home.file("app.json", &declaration.to_string());
    home.pmx(&["start", "app.json"]).ok();
    wait_until("ill health", || health(&home, 0)["health"] == "unhealthy");
    assert_eq!(health(&home, 0)["health_error"], "no answer within 300 ms");
    home.pmx(&["stop", "app"]).ok();
    let pids = std::fs::read_to_string(home.dir().join("pids")).unwrap();
    assert!(pids.lines().count() >= 4);
    for pid in pids.lines().map(|pid| pid.parse().unwrap()) {
        wait_until("its end", || !is_alive(pid));
    }
}

#[test]
fn failures_at_the_start_do_not_count_for_a_while() {
    let clinic = Clinic { home: Home::new(), port: free_port() };
    clinic.file("ill", "all");
    clinic.declare(
        json!({}),
        json!({ "http": "/health", "start_period": "60s", "retries": 1, "on_fail": "restart" }),
    );
    clinic.home.pmx(&["start", "app.json"]).ok();
    let pid = clinic.home.pid(0);
    wait_until("many failures", || {
        std::fs::read_to_string(clinic.home.dir().join("asked")).unwrap_or_default().lines().count() > 5
    });
    assert_eq!((clinic.healths(), clinic.home.pid(0)), (vec!["starting".to_string()], pid));
    clinic.file("ill", "");
    clinic.all_healthy(1);
    // Once it was well the next failure does.
    clinic.file("ill", &pid.to_string());
    wait_until("another", || ![0, pid].contains(&clinic.home.pid(0)));
}

#[test]
fn checks_go_on_after_the_death_of_the_daemon_and_its_update() {
    let clinic = Clinic::start(
        json!({ "exec_mode": "cluster", "instances": 2 }),
        json!({ "http": "/health", "on_fail": "none" }),
    );
    clinic.all_healthy(2);
    let workers = clinic.server().listed();
    let daemon = clinic.home.daemon_pid().unwrap();
    signal(daemon, libc::SIGKILL);
    wait_until("the next one", || clinic.home.daemon_pid().is_some_and(|pid| pid != daemon));
    clinic.file("ill", &workers[0].to_string());
    wait_until("ill health", || clinic.healths() == ["unhealthy", "healthy"]);
    clinic.home.pmx(&["update"]).ok();
    assert_eq!(clinic.healths(), ["unhealthy", "healthy"], "what was found is known");
    clinic.file("ill", "");
    clinic.all_healthy(2);
    assert_eq!(clinic.server().listed(), workers);
    probe::assert_prompt(&clinic.home);
}
