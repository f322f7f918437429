//! Started at boot: what `startup` writes, and what the real systemd makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::systemd::{Machine, can_boot};
use crate::support::{Home, Ran, finish, free_port, get, is_alive, node, signal, wait_for, wait_until};

const UNIT: &str = "pmx-root.service";
/// The uid of a user called deploy.
#[cfg(feature = "load")]
const DEPLOY: u32 = 4321;

/// A machine with the unit set up and started.
struct Booted {
    // In this order: the machine ends before its files go.
    machine: Machine,
    home: Home,
    /// Whose pmx it is, if not root's.
    user: Option<u32>,
}

impl Booted {
    fn new(home: Home) -> Booted {
        Booted { machine: Machine::boot(home.dir()), home, user: None }
    }

    /// The daemon of a home at such a path, set up by `startup` and not started.
    fn set_up(home: Home) -> Booted {
        let booted = Booted::new(home);
        let ran = booted.pmx(&["startup"]).ok();
        assert!(ran.out.contains("wrote and verified /etc/systemd/system/pmx-root.service"), "{ran:?}");
        assert_eq!(booted.machine.show(UNIT, "UnitFileState"), "enabled");
        booted
    }

    /// That of a user, whose home it is in; not set up.
    #[cfg(feature = "load")]
    fn of_user() -> Booted {
        let home = Home::below("deploy/.pmx");
        let mut booted = Booted::new(home);
        booted.user = Some(DEPLOY);
        booted.machine.add_user("deploy", DEPLOY, booted.home.path().parent().unwrap());
        booted
    }

    fn start(home: Home) -> Booted {
        let booted = Booted::set_up(home);
        booted.machine.systemctl(&["start", UNIT]).ok();
        assert_eq!(booted.state(), "active");
        booted
    }

    /// A pmx command in the machine.
    fn pmx(&self, args: &[&str]) -> Ran {
        self.pmx_with(&[], args)
    }

    fn pmx_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        let dir = self.home.dir().to_str().unwrap();
        let pmx = self.found(Path::new(env!("CARGO_BIN_EXE_pmx")));
        let line = ["sh", "-c", "cd \"$0\" && exec \"$@\"", dir, pmx.to_str().unwrap()];
        let mut command = self.machine.command_as(self.user, &[&line[..], args].concat());
        match self.user {
            None => command.env("PMX_HOME", self.home.path()),
            // By itself.
            Some(_) => command.env_remove("PMX_HOME").env("HOME", self.home.path().parent().unwrap()),
        };
        command.env_remove("NODE_OPTIONS");
        finish(command.envs(env.iter().copied()).spawn().unwrap())
    }

    /// Where pmx's user finds a file.
    fn found(&self, file: &Path) -> PathBuf {
        self.user.map_or(file.to_path_buf(), |_| self.machine.public(file))
    }

    fn state(&self) -> String {
        self.machine.show(UNIT, "ActiveState")
    }

    /// Runs a shell script as an app of the daemon.
    fn start_script(&self, name: &str, script: &str, options: &[&str]) {
        self.home.file(name, script);
        self.pmx(&[&["start", name], options].concat()).ok();
    }

    /// Two workers of a server, which answers on this port, and a script that counts.
    #[cfg(feature = "load")]
    fn serve_and_count(&self) -> u16 {
        let (port, node, hello) = (free_port(), node(20), crate::support::server::app("hello.cjs"));
        let (node, hello) = (self.found(&node), self.found(&hello));
        let start = [
            "start",
            hello.to_str().unwrap(),
            "-n",
            "app",
            "-i",
            "2",
            "--interpreter",
            node.to_str().unwrap(),
        ];
        self.pmx_with(&[("PORT", &port.to_string())], &start).ok();
        let counter = "#!/bin/sh\nn=0\nwhile :; do n=$((n + 1)); echo $n; sleep 0.02; done\n";
        self.start_script("counter.sh", counter, &[]);
        wait_until("an answer", || get(port, "/").is_ok_and(|response| response.status == 200));
        port
    }

    /// The pids of all processes, and how often each was restarted.
    #[cfg(feature = "load")]
    fn apps(&self) -> Vec<(i64, u64)> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&self.pmx(&["jlist"]).ok().out).unwrap();
        list.iter()
            .map(|p| (p["pid"].as_i64().unwrap(), p["pm2_env"]["restart_time"].as_u64().unwrap()))
            .collect()
    }

    /// Every line that the script counted is there once.
    #[cfg(feature = "load")]
    #[track_caller]
    fn assert_counted(&self) {
        let lines = self.home.log("counter-out-2.log");
        let numbers: Vec<usize> = lines.lines().map(|line| line.parse().unwrap()).collect();
        assert!(!numbers.is_empty() && numbers.iter().copied().eq(1..=numbers.len()), "{lines}");
    }

    /// Restarts of this unit, which is to be started, are noticed neither by its apps nor by their clients; a
    /// stop ends all.
    #[cfg(feature = "load")]
    #[track_caller]
    fn assert_kept(&self, unit: &str) {
        use crate::support::server::Background;
        use pmx::load::{Plan, Target};

        let machine = &self.machine;
        machine.systemctl(&["start", unit]).ok();
        let port = self.serve_and_count();
        let before = self.apps();
        let target = Target::Tcp(([127, 0, 0, 1], port).into());
        let load = Background::start(Plan { rate: Some(300.0), ..Plan::new(target) });
        for round in 0..3 {
            let main = machine.main_pid(unit);
            let verb = if round == 2 { "try-restart" } else { "restart" };
            machine.systemctl(&[verb, unit]).ok();
            assert_ne!(machine.main_pid(unit), main);
            let state = machine.show(unit, "ActiveState");
            assert_eq!((self.apps(), state.as_str()), (before.clone(), "active"), "round {round}");
        }
        let report = load.stop();
        assert_eq!(report.failures.total(), 0, "{}", report.failures);
        self.assert_counted();
        // A stop is a stop.
        let all = machine.processes(unit);
        machine.systemctl(&["stop", unit]).ok();
        assert_eq!(machine.show(unit, "Result"), "success");
        assert!(!all.is_empty() && all.iter().all(|pid| !is_alive(*pid)), "{all:?}");
    }

    /// How often systemd has started it again.
    fn restarts(&self) -> u32 {
        self.machine.show(UNIT, "NRestarts").parse().unwrap()
    }

    /// A daemon that could not be killed before it became a keeper is in the way of the first attempt.
    fn wait_active_again(&self, restarts: u32) {
        wait_until("another life", || self.restarts() > restarts && self.state() == "active");
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // Its processes end with the machine; the home must not look for a daemon that is out of sight.
        let _ = fs::remove_file(self.home.path().join("pmx.pid"));
    }
}

#[test]
fn a_unit_is_written_verified_enabled_and_taken_away_again() {
    if !can_boot() {
        return;
    }
    // Everything that a unit file, a specifier or a shell would take for its own.
    let booted = Booted::start(Home::below("50%h of $HOME \"a\" 'b' \\x41/h"));
    let machine = &booted.machine;
    let pid = machine.main_pid(UNIT);
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let home = format!("PMX_HOME={}", booted.home.path().display());
    assert!(environ.split(|byte| *byte == 0).any(|var| var == home.as_bytes()), "{home}");
    assert!(booted.pmx(&["ping"]).ok().out.contains("pong"));
    assert_eq!(machine.show(UNIT, "NotifyAccess"), "all");
    assert_eq!(machine.show(UNIT, "WatchdogUSec"), "30s");
    let text = machine.run(&["cat", "/etc/systemd/system/pmx-root.service"]).ok().out;
    booted.pmx(&["startup", "systemd", "-u", "root"]).ok();
    assert_eq!(machine.run(&["cat", "/etc/systemd/system/pmx-root.service"]).ok().out, text);
    // It was checked by systemd before it was put there.
    booted.pmx(&["startup", "systemd", "-u", "root", "--wait-ip"]).ok();
    for what in ["Wants", "After"] {
        let shown = machine.show(UNIT, what);
        assert!(shown.split(' ').any(|unit| unit == "network-online.target"), "{what}={shown}");
    }
    let ls = machine.run(&["ls", "-A", "/etc/systemd/system"]).ok().out;
    assert_eq!(ls, "multi-user.target.wants\npmx-root.service\n");
    booted.pmx(&["unstartup"]).ok();
    assert!(!is_alive(pid));
    let ls = machine.run(&["find", "/etc/systemd/system", "-name", "*pmx*"]).ok().out;
    assert_eq!(ls, "");
    let again = booted.pmx(&["unstartup"]).ok();
    assert!(again.out.contains("there is no"), "{again:?}");
}

#[test]
fn a_unit_that_does_not_verify_is_not_put_in_place() {
    if !can_boot() {
        return;
    }
    let home = Home::new();
    let booted = Booted::new(home);
    // A systemd that knows less than ours; what it does not know, it ignores.
    let older =
        "#!/bin/sh\necho \"$3:20: Unknown key name 'OOMPolicy' in section 'Service', ignoring.\" >&2\n";
    let bin = booted.home.file("bin/systemd-analyze", older).parent().unwrap().display().to_string();
    booted.machine.run(&["chmod", "755", &format!("{bin}/systemd-analyze")]).ok();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let ran = booted.pmx_with(&[("PATH", &path)], &["startup"]).failed();
    assert!(ran.err.contains("verify pmx-root.service: ") && ran.err.contains("OOMPolicy"), "{ran:?}");
    assert_eq!(booted.machine.run(&["ls", "-A", "/etc/systemd/system"]).ok().out, "");
}

#[test]
fn r08_stop_leaves_nothing_whatever_the_apps_do() {
    if !can_boot() {
        return;
    }
    let booted = Booted::set_up(Home::new());
    booted.machine.drop_in(UNIT, "[Service]\nTimeoutStopSec=2");
    booted.machine.systemctl(&["start", UNIT]).ok();
    let deaf = "#!/bin/sh\ntrap '' TERM INT HUP\necho up\nwhile :; do sleep 1; done\n";
    booted.start_script("deaf.sh", deaf, &["--kill-timeout", "600s"]);
    // One that leaves its session and its parents, and hears nothing.
    let stray = "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM INT HUP; (setsid sleep 1000 & setsid sleep 1001 &) ; sleep 1002' &\necho up\nexec sleep 1003\n";
    booted.start_script("stray.sh", stray, &[]);
    wait_until("all of them", || {
        let of = |n: &str| {
            booted.machine.processes(UNIT).iter().any(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line == format!("sleep\0{n}\0").as_bytes())
            })
        };
        booted.home.log("deaf-out-0.log") == "up\n" && ["1000", "1001", "1002", "1003"].iter().all(|n| of(n))
    });
    let all = booted.machine.processes(UNIT);
    assert!(all.len() >= 7, "{all:?}");
    booted.machine.systemctl(&["stop", UNIT]);
    assert_eq!(booted.machine.processes(UNIT), [0; 0]);
    assert!(all.iter().all(|pid| !is_alive(*pid)), "{all:?}");

    // And when everything hears: in order, and as a success.
    booted.machine.systemctl(&["reset-failed", UNIT]);
    booted.pmx(&["cleardump"]);
    fs::remove_file(booted.home.path().join("autosave.json")).unwrap();
    booted.machine.systemctl(&["start", UNIT]).ok();
    booted.start_script("good.sh", "#!/bin/sh\nexec sleep 1000\n", &[]);
    booted.machine.systemctl(&["stop", UNIT]).ok();
    assert_eq!(
        (booted.state().as_str(), booted.machine.show(UNIT, "Result").as_str()),
        ("inactive", "success")
    );
    assert_eq!(booted.machine.processes(UNIT), [0; 0]);
}

#[cfg(feature = "load")]
#[test]
fn r08_a_restart_with_keep_restarts_nothing() {
    if !can_boot() {
        return;
    }
    let booted = Booted::set_up(Home::new());
    booted.pmx(&["startup", "--keep"]).ok();
    booted.assert_kept(UNIT);
}

#[cfg(feature = "load")]
#[test]
fn r08_a_restart_with_keep_restarts_nothing_of_a_user() {
    if !can_boot() {
        return;
    }
    let booted = Booted::of_user();
    let ran = booted.pmx(&["startup", "systemd", "--keep"]).failed();
    let line = ran.out.strip_prefix("sudo ").expect("what root is to run");
    let ran = booted.machine.script(line, &[]);
    assert!(ran.err.contains("--keep: without D-Bus, which does not run here, deploy cannot "), "{ran:?}");
    booted.machine.start_bus();
    assert_eq!(booted.machine.script(line, &[]).err, "");
    booted.assert_kept("pmx-deploy.service");
}

#[cfg(feature = "load")]
#[test]
fn r08_a_restart_with_keep_restarts_nothing_of_a_users_own_unit() {
    if !can_boot() {
        return;
    }
    let mut booted = Booted::of_user();
    booted.machine.start_manager(DEPLOY);
    booted.pmx(&["startup", "user", "--keep"]).ok();
    booted.assert_kept("pmx.service");
}

#[test]
fn restart_reload_and_kill_do_what_they_say() {
    if !can_boot() {
        return;
    }
    let booted = Booted::start(Home::new());
    let machine = &booted.machine;
    let first = machine.main_pid(UNIT);
    machine.systemctl(&["restart", UNIT]).ok();
    let second = machine.main_pid(UNIT);
    assert!(second != first && !is_alive(first));
    booted.start_script("app.sh", "#!/bin/sh\nexec sleep 1000\n", &[]);
    let before = machine.processes(UNIT);
    for pid in &before {
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        // Where root may not spare itself, as in some containers, systemd cannot either.
        let expected = if *pid == second { ["-500", "0"] } else { ["0"; 2] };
        assert!(expected.contains(&score.trim()), "r09: apps go first: {score}");
    }
    machine.systemctl(&["reload", UNIT]).ok();
    assert_eq!(machine.main_pid(UNIT), second);
    assert_ne!(machine.processes(UNIT), before, "the app was replaced");
    // Whoever says kill means it.
    booted.pmx(&["kill"]).ok();
    wait_until("the unit's end", || booted.state() == "inactive");
    assert_eq!(machine.show(UNIT, "NRestarts"), "0");
}

#[test]
fn r02_a_killed_daemon_comes_back() {
    if !can_boot() {
        return;
    }
    let booted = Booted::start(Home::new());
    let first = booted.machine.main_pid(UNIT);
    signal(first, libc::SIGKILL);
    booted.wait_active_again(0);
    assert_ne!(booted.machine.main_pid(UNIT), first);
    booted.pmx(&["ping"]).ok();
}

/// The daemon dies again and again under the unit that `startup` wrote: systemd sees nothing of it, and nor do the
/// clients of four clusters. `PMX_TEST_DEATHS=20` makes it die more often, with a hundred children.
#[cfg(feature = "load")]
#[test]
fn r02_a_daemon_that_dies_under_systemd_is_not_missed() {
    use crate::support::server::{Background, app};
    use pmx::load::{Plan, Target};

    if !can_boot() {
        return;
    }
    let booted = Booted::start(Home::new());
    let deaths = std::env::var("PMX_TEST_DEATHS").ok().and_then(|n| n.parse::<usize>().ok());
    let counters = if deaths.is_some() { 100 } else { 5 };
    let counter = "$| = 1; my $n = 0; while (1) { print ++$n, qq(\n); select(undef, undef, undef, 0.02); }\n";
    booted.start_script("count.pl", counter, &["-n", "count", "-i", &counters.to_string()]);
    let (node, hello) = (node(20), app("hello.cjs"));
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    for (port, balance) in ports.iter().zip(["reuseport", "rr", "shared", "reuseport"]) {
        let (port, name) = (port.to_string(), format!("app{port}"));
        let start = ["start", hello.to_str().unwrap(), "-n", &name, "-i", "2", "--balance", balance];
        let with = ["--interpreter", node.to_str().unwrap()];
        booted.pmx_with(&[("PORT", &port)], &[&start[..], &with].concat()).ok();
    }
    let answers = |port: &u16| get(*port, "/").is_ok_and(|response| response.status == 200);
    wait_until("answers", || ports.iter().all(answers));
    let main = booted.machine.main_pid(UNIT);
    let daemon = || {
        let is_daemon = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "pmx\n")
                && crate::support::probe::stat(*pid).is_some_and(|stat| stat[1] == main.to_string())
        };
        booted.machine.processes(UNIT).into_iter().find(is_daemon)
    };
    let facts = || -> Vec<(i64, i64, u64, u64, String)> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&booted.pmx(&["jlist"]).ok().out).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let fact = |process: &serde_json::Value| {
            let env = &process["pm2_env"];
            let (id, pid) = (process["pm_id"].as_i64().unwrap(), process["pid"].as_i64().unwrap());
            let status = env["status"].as_str().unwrap().to_string();
            (id, pid, number(&env["restart_time"]), number(&env["pm_uptime"]), status)
        };
        list.iter().map(fact).collect()
    };
    let before = facts();
    assert_eq!(before.len(), counters + 8);
    let target = |port: &u16| Target::Tcp(([127, 0, 0, 1], *port).into());
    let plan = |port: &u16| Plan { rate: Some(125.0), ..Plan::new(target(port)) };
    let loads: Vec<Background> = ports.iter().map(|port| Background::start(plan(port))).collect();
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..deaths.unwrap_or(4) {
        let old = wait_for("a daemon", daemon);
        signal(old, libc::SIGKILL);
        let began = std::time::Instant::now();
        wait_until("another daemon", || daemon().is_some_and(|pid| pid != old));
        booted.pmx(&["ping"]).ok();
        slowest = slowest.max(began.elapsed());
    }
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures.total(), 0, "{}", report.failures);
        assert!(report.ok > 50, "{}", report.ok);
    }
    assert_eq!((booted.machine.main_pid(UNIT), facts()), (main, before));
    assert_eq!((booted.state().as_str(), booted.machine.show(UNIT, "NRestarts").as_str()), ("active", "0"));
    for id in 0..counters {
        let log = booted.home.log(&format!("count-out-{id}.log"));
        assert!(log.lines().enumerate().all(|(at, line)| line == (at + 1).to_string()), "log {id}");
    }
    println!("{} deaths under systemd, control was back within {slowest:?}", deaths.unwrap_or(4));
}

/// Keeper and daemon die together, or the keeper alone. Systemd starts the next one, and hands it the sockets that
/// it kept: neither workers nor their clients notice.
#[cfg(feature = "load")]
#[test]
fn r02_keeper_and_daemon_die_under_systemd_and_no_request_is_lost() {
    use crate::support::server::Background;
    use pmx::load::{Plan, Target};

    if !can_boot() {
        return;
    }
    let booted = Booted::start(Home::new());
    let port = booted.serve_and_count();
    let stored = || booted.machine.show(UNIT, "NFileDescriptorStore");
    // Two listeners, the channels of two workers, and that of a shell, which may become one.
    wait_until("what systemd keeps", || stored() == "5");
    let before = booted.apps();
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    let load = Background::start(Plan { rate: Some(300.0), ..Plan::new(target.clone()) });
    for round in 0..3 {
        let main = booted.machine.main_pid(UNIT);
        let mut own = vec![main];
        // The last time the daemon lives on, for a moment.
        own.extend(crate::support::container::children_of(main).into_iter().filter(|_| round < 2));
        let restarts = booted.restarts();
        own.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
        booted.wait_active_again(restarts);
        assert_eq!(booted.apps(), before, "round {round}");
        assert_eq!(stored(), "5");
    }
    let report = load.stop();
    assert_eq!(report.failures.total(), 0, "{}", report.failures);
    // They are workers like any other: what reload replaces is replaced without loss.
    let load = Background::start(Plan { rate: Some(300.0), ..Plan::new(target) });
    booted.pmx(&["reload", "app"]).ok();
    let report = load.stop();
    assert_eq!(report.failures.total(), 0, "{}", report.failures);
    assert_eq!(stored(), "5");
    booted.assert_counted();
    // A stop is a stop.
    let all = booted.machine.processes(UNIT);
    booted.machine.systemctl(&["stop", UNIT]).ok();
    assert!(all.iter().all(|pid| !is_alive(*pid)), "{all:?}");
}

/// A start that fails, because the home is held or for whatever reason, is followed by another one: no app pays for it.
#[test]
fn r02_a_start_that_fails_costs_no_app() {
    if !can_boot() {
        return;
    }
    let booted = Booted::start(Home::new());
    booted.start_script("app.sh", "#!/bin/sh\nexec sleep 1000\n", &[]);
    let app =
        || {
            booted.machine.processes(UNIT).into_iter().find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
            })
        };
    let before = wait_for("the app", app);
    let main = booted.machine.main_pid(UNIT);
    let (restarts, own) = (booted.restarts(), crate::support::container::children_of(main));
    [main].into_iter().chain(own).for_each(|pid| signal(pid, libc::SIGKILL));
    let lock = wait_for("the home to be ours", || {
        let file = fs::File::open(booted.home.path().join("pmx.lock")).unwrap();
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).ok()
    });
    wait_until("starts that fail", || booted.restarts() >= restarts + 3);
    assert_eq!(app(), Some(before));
    drop(lock);
    wait_until("a start that succeeds", || booted.state() == "active");
    wait_until("the next daemon", || booted.pmx(&["ping"]).code == 0);
    let list: Vec<serde_json::Value> = serde_json::from_str(&booted.pmx(&["jlist"]).ok().out).unwrap();
    assert_eq!(list[0]["pm2_env"]["restart_time"], 0);
    assert_eq!(app(), Some(before), "the same one");
}

#[test]
fn r06_a_daemon_that_hangs_is_restarted() {
    if !can_boot() {
        return;
    }
    let booted = Booted::set_up(Home::new());
    booted.machine.drop_in(UNIT, "[Service]\nWatchdogSec=2");
    booted.machine.systemctl(&["start", UNIT]).ok();
    let first = booted.machine.main_pid(UNIT);
    // It lives on for as long as it is heard of: well beyond what the watchdog waits.
    let began = std::time::Instant::now();
    wait_until("three times the watchdog", || began.elapsed().as_secs() >= 6);
    assert_eq!(booted.machine.main_pid(UNIT), first);
    // The keeper first, which would wake the daemon.
    let all = booted.machine.processes(UNIT);
    assert_eq!(all.len(), 2, "{all:?}");
    booted.start_script("app.sh", "#!/bin/sh\nexec sleep 1000\n", &[]);
    let app = booted.machine.processes(UNIT).into_iter().find(|pid| !all.contains(pid)).unwrap();
    all.iter().for_each(|pid| signal(*pid, libc::SIGSTOP));
    booted.wait_active_again(0);
    assert!(is_alive(app) && booted.machine.processes(UNIT).contains(&app));
    assert_eq!(booted.machine.processes(UNIT).len(), 3);
    assert!(booted.machine.log().contains("Watchdog timeout"), "{}", booted.machine.log());
    assert!(!is_alive(first));
}

#[test]
fn a_socket_of_systemd_is_the_one_that_the_app_listens_on() {
    if !can_boot() {
        return;
    }
    let booted = Booted::set_up(Home::new());
    let port = free_port().to_string();
    let socket = format!("[Socket]\nListenStream=127.0.0.1:{port}\nService={UNIT}\n");
    let line = r#"printf '%s' "$1" >/etc/systemd/system/web.socket"#;
    booted.machine.run(&["sh", "-ec", line, "sh", &socket]).ok();
    booted.machine.systemctl(&["daemon-reload"]).ok();
    booted.machine.systemctl(&["start", "web.socket"]).ok();
    booted.machine.systemctl(&["start", UNIT]).ok();
    booted.home.file(
        "app.js",
        "require('http').createServer((q, r) => r.end(`${process.pid} ${Object.keys(process.env).filter((n) => /^(LISTEN|WATCHDOG)_/.test(n))}${/systemd/.exec(process.env.NOTIFY_SOCKET) || ''}`)).listen(+process.env.PORT, '127.0.0.1');",
    );
    let interpreter = node(20).display().to_string();
    let start = ["start", "app.js", "-i", "2", "--interpreter", &interpreter];
    booted.pmx_with(&[("PORT", &port)], &start).ok();
    let ask = || get(port.parse().unwrap(), "/").unwrap().body;
    let first = ask();
    wait_until("the other worker", || ask() != first);
    assert!(first.ends_with(' '), "nothing of the daemon's manager is passed on: {first}");
    // Another app may not have it, too.
    let other = booted.pmx_with(
        &[("PORT", &port)],
        &["start", "app.js", "-n", "other", "-i", "1", "--interpreter", &interpreter],
    );
    assert_eq!(other.code, 1, "{other:?}");
}

/// A script for the old init, run by a shell in a machine without systemd: namespaces of its own all the same.
const OLD: &str = r#"
mount -t tmpfs tmpfs "$DIR"
mkdir "$DIR/up" "$DIR/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$DIR/up,workdir=$DIR/work" overlay /etc
mount -t tmpfs tmpfs /run
mkdir /run/lock
if ! [ /var/lock -ef /run/lock ]; then mount -t tmpfs tmpfs /var/lock; fi
mkdir /var/lock/subsys
eval "$SCRIPT"
"#;

fn on_an_old_machine(home: &Home, script: &str) -> Ran {
    let dir = home.dir().join("old");
    fs::create_dir_all(&dir).unwrap();
    let mut unshare = home.command(&[""; 0]);
    unshare = {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "-mpf",
            "--propagation",
            "private",
            "--kill-child=KILL",
            "--mount-proc",
            "sh",
            "-ec",
            OLD,
        ]);
        command.envs(unshare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .current_dir(home.dir())
            .env("DIR", &dir)
            .env("SCRIPT", script)
            .env("PMX", env!("CARGO_BIN_EXE_pmx"));
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    finish(unshare.spawn().unwrap())
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("\n!!! SKIPPED: only root can make namespaces for this\n");
    }
    root
}

#[test]
fn the_sysv_script_starts_tells_reloads_and_stops() {
    if !is_root() {
        return;
    }
    let home = Home::below("a home of 'x'/h");
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    let ran = on_an_old_machine(
        &home,
        r#"
        "$PMX" startup sysv -u root --service-name my-pmx
        sh -n /etc/init.d/my-pmx
        ls /etc/rc2.d | grep -q 'S[0-9]*my-pmx'
        ls /etc/rc0.d | grep -q 'K[0-9]*my-pmx'
        run() { echo "> $1"; code=0; env -i PATH=/bin:/usr/bin /etc/init.d/my-pmx "$1" 2>&1 || code=$?; echo "= $code"; }
        run status
        run start
        test -e /var/lock/subsys/my-pmx
        run start
        run status
        "$PMX" start app.sh -s
        run reload
        run restart
        run status
        run stop
        test ! -e /var/lock/subsys/my-pmx
        run status
        run nonsense
        run start
        "$PMX" unstartup sysv --service-name my-pmx
        test ! -e /etc/init.d/my-pmx
        ls /etc/rc2.d | grep my-pmx || true
        "#,
    )
    .ok();
    let codes: Vec<&str> = ran.out.lines().filter(|line| line.starts_with(['>', '='])).collect();
    let expected = [
        ("status", "3"),
        ("start", "0"),
        ("start", "0"),
        ("status", "0"),
        ("reload", "0"),
        ("restart", "0"),
        ("status", "0"),
        ("stop", "0"),
        ("status", "3"),
        ("nonsense", "2"),
        ("start", "0"),
    ];
    let expected: Vec<String> =
        expected.iter().flat_map(|(verb, code)| [format!("> {verb}"), format!("= {code}")]).collect();
    assert_eq!(codes, expected, "{}\n{}", ran.out, ran.err);
}

#[test]
fn the_sysv_script_serves_a_user_who_is_not_root() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    home.file("x", "");
    let ran = on_an_old_machine(
        &home,
        r#"
        chmod 755 "$DIR" ; mkdir "$DIR/bin" "$DIR/nobody"; chown nobody "$DIR/nobody"
        cp "$PMX" "$DIR/bin/pmx"
        unset PMX_HOME
        "$DIR/bin/pmx" startup sysv -u nobody --hp "$DIR/nobody"
        /etc/init.d/pmx-nobody start
        stat -c '%U %a' "$DIR/nobody/.pmx" "$DIR/nobody/.pmx/pmx.sock"
        ps -o user=,args= -C pmx
        /etc/init.d/pmx-nobody stop
        "#,
    )
    .ok();
    assert!(ran.out.contains("nobody 700\nnobody 600\n"), "{ran:?}");
    assert!(ran.out.contains("nobody   pmx daemon") || ran.out.contains("pmx daemon --resurrect"), "{ran:?}");
}

#[test]
fn the_openrc_script_is_one_that_a_shell_can_read() {
    if !is_root() {
        return;
    }
    let home = Home::below("a home of 'x'/h");
    // No OpenRC here: what it would be told is written down.
    let ran = on_an_old_machine(
        &home,
        r#"
        mkdir "$DIR/bin"; printf '#!/bin/sh\necho "rc-update $*"\n' >"$DIR/bin/rc-update"; chmod 755 "$DIR/bin/rc-update"
        PATH=$DIR/bin:$PATH "$PMX" startup openrc
        sh -n /etc/init.d/pmx-root
        . /etc/init.d/pmx-root
        eval "printf '%s\n' $command $command_args $error_log $PMX_HOME_CHECK"
        printf '%s\n' "$PMX_HOME"
        "#,
    )
    .ok();
    let home = home.path().display().to_string();
    let expected = format!("\ndaemon\n--foreground\n--resurrect\n{home}/pmx.log\n");
    assert!(ran.out.contains(&expected) && ran.out.ends_with(&format!("{home}\n")), "{}", ran.out);
}

#[test]
fn a_user_has_a_unit_of_their_own_without_root() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let ran = on_an_old_machine(
        &home,
        r#"
        export HOME=$DIR/me XDG_RUNTIME_DIR=$DIR/run; mkdir "$HOME" "$XDG_RUNTIME_DIR"
        "$PMX" startup user
        ls -A "$HOME/.config/systemd/user" "$HOME/.config/systemd/user/default.target.wants"
        ! grep -E '^(User|OOMScoreAdjust)=' "$HOME/.config/systemd/user/pmx.service"
        "$PMX" unstartup user
        find "$HOME/.config/systemd" -name '*pmx*'
        "#,
    )
    .ok();
    assert!(
        ran.out.contains("wrote and verified ") && ran.out.contains("loginctl enable-linger root"),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("default.target.wants:\npmx.service\nunstartup: stopped and removed "),
        "{ran:?}"
    );
}

/// Runs pmx as somebody who is not root.
fn as_nobody(home: &Home, args: &[&str]) -> Ran {
    let pmx: PathBuf = home.dir().join("pmx");
    // Not by us: a child of another test would hold it open for writing, and it could not be executed.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_pmx")).arg(&pmx).status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", pmx.to_str().unwrap()])
        .args(args);
    command.env("HOME", "/home/some one").env_remove("PMX_HOME").current_dir(Path::new("/"));
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(command.spawn().unwrap())
}

#[test]
fn who_is_not_root_is_told_the_command() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let pmx = home.dir().join("pmx").display().to_string();
    let ran = as_nobody(&home, &["startup", "systemd", "--hp", "/home/some one"]).failed();
    assert_eq!(
        ran.out,
        format!("sudo env PATH=\"$PATH\" {pmx} startup systemd -u nobody --hp '/home/some one'\n")
    );
    let ran = as_nobody(&home, &["unstartup", "sysv", "-u", "root", "--service-name", "x"]).failed();
    assert_eq!(
        ran.out,
        format!("sudo env PATH=\"$PATH\" {pmx} unstartup sysv -u root --hp /root --service-name x\n")
    );
    let ran = as_nobody(&home, &["startup", "systemd", "--hp", "/x", "--wait-ip"]).failed();
    assert!(ran.out.ends_with(" --hp /x --wait-ip\n"), "{ran:?}");
    for (args, sentence) in [
        (
            &["startup", "user", "--wait-ip"][..],
            "only a unit of the system's systemd can wait for it, not user",
        ),
        (&["startup", "sysv", "--keep"], "is for root"),
        (&["startup", "launchd"][..], "unknown platform \"launchd\""),
        (&["startup", "-u", "no such user"], "there is no user no such user"),
        (&["startup", "user", "-u", "root"], "a unit of root's own is for root to set up"),
    ] {
        let ran = as_nobody(&home, args).failed();
        assert!(ran.err.contains(sentence), "{ran:?}");
    }
    let ran = home.pmx(&["startup", "sysv", "--service-name", "a b"]).failed();
    assert!(ran.err.contains("cannot be the name of a service"), "{ran:?}");
    let taken = wait_for("a home of somebody else", || {
        let path = home.dir().join("theirs/.pmx");
        fs::create_dir_all(&path).ok()?;
        Some(path)
    });
    let hp = taken.parent().unwrap().display().to_string();
    let ran = home.pmx(&["startup", "sysv", "-u", "nobody", "--hp", &hp]).failed();
    assert!(ran.err.contains("belongs to uid 0, and nobody is uid 65534"), "{ran:?}");
}
