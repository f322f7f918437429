//! pmx in the place of pm2: called by its name, and driven by pm2's own client and command line from npm.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{
    Home, Ran, finish, free_port, get, is_alive, node_modules, signal, wait_for, wait_until,
};

/// A home of pmx that is pm2's. Its front ends with the daemon.
struct AsPm2 {
    home: Home,
}

impl AsPm2 {
    fn new() -> AsPm2 {
        AsPm2 { home: Home::below(".pm2") }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("PM2_HOME", self.home.path()).env("NODE_PATH", node_modules());
        command.env("PM2_DISCRETE_MODE", "true");
        command.env_remove("PMX_HOME").env_remove("NODE_OPTIONS").current_dir(self.home.dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// pmx under the name of pm2.
    #[track_caller]
    fn pmx(&self, args: &[&str]) -> Ran {
        let link = self.home.dir().join("pm2");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pmx"), &link).unwrap();
        }
        finish(self.command(link, args).spawn().unwrap())
    }

    /// pm2's own command line.
    #[track_caller]
    fn pm2(&self, args: &[&str]) -> Ran {
        finish(self.pm2_command(args).spawn().unwrap())
    }

    fn pm2_command(&self, args: &[&str]) -> Command {
        let program = node_modules().join("pm2/bin/pm2");
        assert!(program.exists(), "{} is missing: tests/run brings it", program.display());
        let words: Vec<&str> = [program.to_str().unwrap()].into_iter().chain(args.iter().copied()).collect();
        self.command("node", &words)
    }

    /// A script that has pm2's client at hand; it prints JSON.
    #[track_caller]
    fn script(&self, body: &str) -> Value {
        let text = format!("const pm2 = require('pm2');\n{body}");
        let path = self.home.file("client.js", &text);
        let ran = finish(self.command("node", &[path.to_str().unwrap()]).spawn().unwrap()).ok();
        serde_json::from_str(ran.out.trim()).unwrap_or_else(|_| panic!("{ran:?}"))
    }

    #[track_caller]
    fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.pmx(&["jlist"]).ok().out).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for AsPm2 {
    fn drop(&mut self) {
        let _ = finish(self.home.command(&["kill"]).spawn().unwrap());
        if !std::thread::panicking() {
            wait_until("the front to leave", || !self.path("rpc.sock").exists());
        }
    }
}

const TALKER: &str = "console.log('out line'); console.error('err line');\n\
                      setInterval(() => console.log('tick'), 50);";

#[test]
fn called_pm2_it_uses_its_home_its_names_and_its_words() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    let started = pm2.pmx(&["start", "app.js"]).ok().out;
    assert!(started.contains("[PM2] [app](0) ✓"), "{started}");
    let list = pm2.list();
    assert_eq!(list[0]["pm2_env"]["exec_mode"], "fork_mode");
    wait_until("the log", || {
        std::fs::read_to_string(pm2.path("logs/app-out.log")).is_ok_and(|t| t.contains("out line"))
    });
    let pid = list[0]["pid"].as_i64().unwrap() as i32;
    let noted = || std::fs::read_to_string(pm2.path("pids/app-0.pid")).ok();
    wait_until("the pid file", || noted() == Some(pid.to_string()));
    let daemon: i32 = std::fs::read_to_string(pm2.path("pm2.pid")).unwrap().trim().parse().unwrap();
    assert!(is_alive(daemon));
    assert!(std::fs::read_to_string(pm2.path("pm2.log")).unwrap().contains("app(0)"));
    use std::os::unix::fs::PermissionsExt;
    for name in ["rpc.sock", "pub.sock"] {
        assert_eq!(std::fs::metadata(pm2.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let restarted = pm2.pmx(&["restart", "app"]).ok().out;
    assert!(
        restarted
            .contains("[PM2] Applying action restartProcessId on app [app](ids: [ 0 ])\n[PM2] [app](0) ✓\n"),
        "{restarted}"
    );
    let unknown = pm2.pmx(&["stop", "nobody"]).failed().err;
    assert_eq!(unknown.trim(), "[PM2][ERROR] Process or Namespace nobody not found");
    pm2.pmx(&["stop", "app"]).ok();
    wait_until("no pid file", || noted().is_none());
    // Several instances are a cluster, and tell their ids.
    pm2.pmx(&["start", "app.js", "-i", "2", "--name", "two"]).ok();
    assert!(
        pm2.list().iter().filter(|p| p["name"] == "two").all(|p| p["pm2_env"]["exec_mode"] == "cluster_mode")
    );
    assert!(pm2.path("logs/two-out-1.log").exists());
}

#[test]
fn pm2s_own_client_connects_lists_starts_restarts_stops_and_deletes() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.pmx(&["ping"]);
    pm2.pmx(&["list"]).ok();
    let found = pm2.script(
        r#"
        const call = (name, ...args) => new Promise((good, bad) =>
            pm2[name](...args, (error, value) => error ? bad(error) : good(value)));
        (async () => {
            const said = {};
            await call('connect');
            said.version = await call('getVersion');
            const started = await call('start', { script: 'app.js', name: 'api', args: ['--x', 'a b'],
                env: { COLOR: 'blue' } });
            said.started = started.map(p => [p.pm2_env.pm_id, p.pm2_env.status]);
            const list = await call('list');
            said.list = list.map(p => [p.name, p.pm_id, p.pm2_env.status, p.pid > 0, p.pm2_env.args,
                p.pm2_env.COLOR || p.pm2_env.env.COLOR]);
            const before = list[0].pid;
            const restarted = await call('restart', 'api');
            said.restarted = restarted.map(p => [p.name, p.status]);
            said.moved = (await call('list'))[0].pid !== before;
            await call('sendSignalToProcessName', 'SIGCONT', 'api');
            said.stopped = (await call('stop', 'api')).map(p => p.status);
            said.wrong = await call('stop', 'nobody').then(() => 'fine', error => String(error.message || error));
            said.deleted = (await call('delete', 'api')).length;
            said.left = (await call('list')).length;
            pm2.disconnect();
            console.log(JSON.stringify(said));
        })().catch(error => { console.error(error); process.exit(1); });
        "#,
    );
    assert_eq!(found["version"], "7.0.4");
    assert_eq!(found["started"], serde_json::json!([[0, "online"]]));
    let listed = serde_json::json!([["api", 0, "online", true, ["--x", "a b"], "blue"]]);
    assert_eq!(found["list"], listed);
    assert_eq!(found["restarted"], serde_json::json!([["api", "online"]]));
    assert_eq!((&found["moved"], &found["stopped"]), (&true.into(), &serde_json::json!(["stopped"])));
    assert_eq!((&found["deleted"], &found["left"]), (&1.into(), &0.into()));
    assert!(found["wrong"].as_str().unwrap().contains("not found"), "{found}");
    assert!(pm2.list().is_empty());
}

#[test]
fn pm2s_own_client_receives_the_bus() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.home.file("quiet.js", "setInterval(() => {}, 1000)");
    pm2.pmx(&["start", "quiet.js"]).ok();
    let found = pm2.script(
        r#"
        const seen = {};
        const wanted = ['process:event start', 'process:event online', 'process:event exit',
            'process:event restart', 'log:out', 'log:err'];
        pm2.connect(() => pm2.launchBus((error, bus) => {
            const done = () => {
                if (!wanted.every(name => name in seen)) return;
                console.log(JSON.stringify(seen));
                process.exit(0);
            };
            bus.on('process:event', p => { seen['process:event ' + p.event] = p.process.name; done(); });
            bus.on('log:out', p => { seen['log:out'] = seen['log:out'] || p.process.name + ' ' + p.data; done(); });
            bus.on('log:err', p => { seen['log:err'] = p.process.name + ' ' + p.data; done(); });
            setTimeout(() => pm2.start({ script: 'app.js' }, () => pm2.restart('app', () => {})), 300);
        }));
        setTimeout(() => { console.error(seen); process.exit(1); }, 25000);
        "#,
    );
    assert_eq!(found["log:out"], "app out line\n");
    assert_eq!(found["log:err"], "app err line\n");
    assert_eq!(found["process:event restart"], "app");
}

#[test]
fn pm2s_own_command_line_works() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.pmx(&["start", "app.js"]).ok();
    let daemon = pm2.home.daemon_pid();
    let shown = pm2.pm2(&["ls"]).ok();
    assert!(shown.out.contains("online") && !shown.out.contains("out-of-date"), "{shown:?}");
    let list: Vec<Value> = serde_json::from_str(&pm2.pm2(&["jlist"]).ok().out).unwrap();
    let (before, env) = (list[0]["pid"].as_i64(), &list[0]["pm2_env"]);
    // What exporters and pm2-logrotate read.
    for key in [
        "status",
        "pm_uptime",
        "created_at",
        "restart_time",
        "unstable_restarts",
        "exec_mode",
        "instances",
        "NODE_APP_INSTANCE",
        "name",
        "namespace",
        "version",
        "node_version",
        "pm_id",
        "pm_exec_path",
        "pm_cwd",
        "args",
        "node_args",
        "exec_interpreter",
        "pm_out_log_path",
        "pm_err_log_path",
        "pm_pid_path",
        "watch",
        "autorestart",
        "exit_code",
        "username",
        "unique_id",
        "axm_monitor",
        "axm_actions",
        "axm_options",
        "axm_dynamic",
        "merge_logs",
        "treekill",
        "km_link",
        "vizion_running",
        "windowsHide",
        "instance_var",
    ] {
        assert!(env.get(key).is_some(), "pm2_env.{key}");
    }
    assert!(env["axm_options"].is_object() && list[0]["monit"]["memory"].as_u64() > Some(0));
    let restarted = pm2.pm2(&["restart", "app"]).ok();
    assert!(restarted.out.contains("[app](0) ✓"), "{restarted:?}");
    assert_ne!(pm2.list()[0]["pid"].as_i64(), before);
    let mut logs = Lines::of(pm2.pm2_command(&["logs", "--lines", "2"]));
    logs.until(|line| line.contains("0|app") && line.contains("tick"));
    // What was not written yet comes over the bus.
    pm2.home.file("late.js", "console.log('late line'); setInterval(() => {}, 1000)");
    pm2.pm2(&["start", "late.js"]).ok();
    logs.until(|line| line.contains("late line"));
    pm2.pm2(&["delete", "late"]).ok();
    let described = pm2.pm2(&["describe", "app"]).ok().out;
    assert!(described.contains("app-out.log"), "{described}");
    assert_eq!(pm2.home.daemon_pid(), daemon, "pm2 has started no daemon of its own");
    drop(logs);
    pm2.pm2(&["kill"]).ok();
    wait_until("the daemon to end", || daemon.is_none_or(|pid| !is_alive(pid)));
}

#[test]
fn options_of_a_restart_by_pm2_take_effect() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.pmx(&["start", "app.js"]).ok();
    let seen = |name: &str| {
        let pid = pm2.list()[0]["pid"].as_i64().unwrap();
        let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let start = format!("{name}=");
        let found = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        found.filter_map(|line| Some(line.strip_prefix(&start)?.to_string())).next()
    };
    // What its client sends without being asked changes nothing.
    let before = pm2.list()[0]["pm2_env"].clone();
    pm2.pm2(&["restart", "app"]).ok();
    let after = pm2.list()[0]["pm2_env"].clone();
    for key in ["name", "merge_logs", "watch", "instance_var", "filter_env", "env", "kill_timeout"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    pm2.pm2(&["restart", "app", "--name", "new", "--max-memory-restart", "300M", "--watch"]).ok();
    let env = pm2.list()[0]["pm2_env"].clone();
    assert_eq!(
        (&env["name"], &env["max_memory_restart"], &env["watch"]),
        (&"new".into(), &(300 << 20).into(), &true.into())
    );
    // The caller's environment only if it is to be taken over.
    let with_variable = |args: &[&str]| {
        let mut command = pm2.pm2_command(args);
        finish(command.env("LATE", "yes").spawn().unwrap()).ok();
    };
    with_variable(&["restart", "new"]);
    assert_eq!(seen("LATE"), None);
    with_variable(&["restart", "new", "--update-env"]);
    assert_eq!(seen("LATE").as_deref(), Some("yes"));
    let env = pm2.list()[0]["pm2_env"]["env"].clone();
    assert!(env.get("LATE").is_none(), "it is not declared: {env}");
    for (verb, value) in [("restart", "1"), ("reload", "2")] {
        let text = format!(
            r#"{{"apps": [{{"name": "new", "script": "app.js", "env": {{"A": {value}}}, "kill_timeout": {value}234}}]}}"#
        );
        pm2.home.file("eco.json", &text);
        pm2.pm2(&[verb, "eco.json"]).ok();
        assert_eq!(seen("A").as_deref(), Some(value), "{verb}");
        let env = pm2.list()[0]["pm2_env"].clone();
        assert_eq!(env["kill_timeout"].to_string(), format!("{value}234"));
        assert_eq!(env["env"]["A"], value);
    }
    let refused = pm2.pm2(&["restart", "new", "--cron-restart", "never"]);
    assert!((refused.out.clone() + &refused.err).contains("cron"), "{refused:?}");
}

/// An exporter of the Prometheus world reads the list by pm2's client.
#[test]
fn a_prometheus_exporter_reads_the_list() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.pmx(&["start", "app.js", "-i", "2"]).ok();
    let port = free_port();
    // It takes its port from the wrong argument.
    let script = format!("process.argv[1] = '{port}'; require('pm2-prometheus-exporter/exporter.js');");
    pm2.home.file("exporter.js", &script);
    pm2.pmx(&["start", "exporter.js"]).ok();
    let text =
        wait_for("metrics", || Some(get(port, "/metrics").ok()?.body).filter(|t| t.contains("pm2_up")));
    for instance in [0, 1] {
        let of = |metric: &str| -> f64 {
            let wanted = format!("pm2_{metric}{{name=\"app\",instance=\"{instance}\"}} ");
            let found = text.lines().find_map(|line| line.strip_prefix(&wanted));
            found.unwrap_or_else(|| panic!("{wanted} in {text}")).parse().unwrap()
        };
        assert_eq!((of("up"), of("instances"), of("restarts")), (1.0, 2.0, 0.0));
        assert!(of("memory") > 1e6 && of("uptime") < 100.0, "{text}");
    }
}

/// pm2's own module for rotation, as an app of ours, with what `pm2 set` says.
#[test]
fn pm2_logrotate_finds_the_logs_and_rotates_them() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", "console.log('x'.repeat(5000)); setInterval(() => console.log('tick'), 50);");
    pm2.pmx(&["start", "app.js"]).ok();
    for (key, value) in [("max_size", "1K"), ("workerInterval", "1"), ("retain", "2")] {
        pm2.pmx(&["set", &format!("pm2-logrotate:{key}"), value]).ok();
    }
    let module = node_modules().join("pm2-logrotate/app.js");
    pm2.pmx(&["start", module.to_str().unwrap(), "--name", "pm2-logrotate"]).ok();
    let rotated = || {
        let logs = std::fs::read_dir(pm2.path("logs")).unwrap().flatten();
        let mut names = logs.map(|file| file.file_name().into_string().unwrap());
        names.find(|name| name.starts_with("app-out__"))
    };
    let name = wait_for("a rotated log", rotated);
    // It copies first and empties the log then.
    let text = || std::fs::read_to_string(pm2.path("logs").join(&name)).unwrap();
    wait_until("all of it", || text().contains(&"x".repeat(5000)));
    let metric = || Some(pm2.list().pop()?["pm2_env"]["axm_monitor"]["Files count"]["value"].clone());
    wait_until("its own metric", || metric().is_some_and(|count| count.as_u64() > Some(0)));
    // The app writes on.
    let log = || std::fs::read_to_string(pm2.path("logs/app-out.log")).unwrap_or_default();
    wait_until("new lines", || log().contains("tick") && !log().contains("xxx"));
}

#[test]
fn the_front_outlives_a_killed_daemon() {
    let pm2 = AsPm2::new();
    pm2.home.file("app.js", TALKER);
    pm2.pmx(&["start", "app.js"]).ok();
    let pid = pm2.list()[0]["pid"].as_i64();
    let daemon = pm2.home.daemon_pid().unwrap();
    signal(daemon, 9);
    wait_until("the next daemon", || pm2.home.daemon_pid().is_some_and(|pid| pid != daemon));
    let list: Vec<Value> = serde_json::from_str(&pm2.pm2(&["jlist"]).ok().out).unwrap();
    assert_eq!(list[0]["pid"].as_i64(), pid);
}

/// What a program prints, line by line. It ends with this.
struct Lines {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Lines {
    fn of(mut command: Command) -> Lines {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).all(|line| send.send(line).is_ok());
        });
        Lines { child, lines }
    }

    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        wait_for("a line", || self.lines.try_iter().find(|line| wanted(line)))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
