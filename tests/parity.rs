//! The same scenarios against pmx and against pm2 itself (`PMX_UNDER_TEST=pm2`): our tests are checked by the
//! original, and where we differ on purpose, it is written down here, seen on both, and shown in `tests/parity.md`
//! (`PMX_PARITY=write` writes that anew).

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::pm2::Pm2;
use crate::support::{Home, Ran, finish, free_port, get, is_alive, signal, wait_for, wait_until};

/// One scenario.
struct Scenario {
    name: &'static str,
    run: fn(&Subject) -> Vec<String>,
    /// What is seen with pmx.
    pmx: &'static [&'static str],
    /// What is seen with pm2 where that is something else, and why pmx does not do the same.
    differs: Option<(&'static [&'static str], &'static str)>,
}

/// Who is under test.
enum Subject {
    Pmx(Home),
    // In this order: pm2 ends before its files go.
    Pm2(Pm2, Home),
}

impl Subject {
    fn of() -> Option<Subject> {
        let home = Home::new();
        match std::env::var("PMX_UNDER_TEST").as_deref() {
            Ok("pm2") => Pm2::of(&home).map(|pm2| Subject::Pm2(pm2, home)),
            _ => Some(Subject::Pmx(home)),
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Subject::Pmx(home) | Subject::Pm2(_, home) => home.dir(),
        }
    }

    /// Where it keeps its own files.
    fn state(&self) -> PathBuf {
        match self {
            Subject::Pmx(home) => home.path(),
            Subject::Pm2(pm2, _) => pm2.home.clone(),
        }
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.dir().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = match self {
            Subject::Pmx(home) => home.command(args),
            Subject::Pm2(pm2, _) => pm2.command(args),
        };
        finish(command.envs(env.iter().copied()).spawn().unwrap())
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(&[], args)
    }

    fn ok(&self, args: &[&str]) -> Ran {
        self.run(args).ok()
    }

    /// A command and its exit code.
    fn code(&self, args: &[&str]) -> String {
        format!("{}: exit {}", args.join(" "), self.run(args).code)
    }

    fn list(&self) -> Vec<Value> {
        match self {
            Subject::Pmx(home) => home.list(),
            Subject::Pm2(pm2, _) => pm2.list(),
        }
    }

    fn of_id(&self, id: u64) -> Value {
        self.list().into_iter().find(|process| process["pm_id"] == id).unwrap_or(Value::Null)
    }

    fn status(&self, id: u64) -> String {
        self.of_id(id)["pm2_env"]["status"].as_str().unwrap_or("not there").to_string()
    }

    fn pid(&self, id: u64) -> i32 {
        self.of_id(id)["pid"].as_i64().unwrap_or(0) as i32
    }

    fn wait_status(&self, id: u64, status: &str) {
        wait_until(&format!("{id} to be {status}"), || self.status(id) == status);
    }

    /// `name(id) status` of each, by id.
    fn shown(&self) -> String {
        let mut list = self.list();
        list.sort_by_key(|process| process["pm_id"].as_u64());
        let one = |p: &Value| {
            let (name, status) = (p["name"].as_str().unwrap(), p["pm2_env"]["status"].as_str().unwrap());
            format!("{name}({}) {status}", p["pm_id"])
        };
        list.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn restarts(&self, id: u64) -> u64 {
        self.of_id(id)["pm2_env"]["restart_time"].as_u64().unwrap()
    }

    /// The content of a log that the list names, once it has something.
    fn log(&self, id: u64, key: &str) -> String {
        let path = self.of_id(id)["pm2_env"][key].as_str().unwrap().to_string();
        wait_for("a line in a log", || {
            std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
        })
    }
}

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";
/// Answers with its pid.
const SERVER: &str =
    "require('http').createServer((q, r) => r.end(String(process.pid))).listen(+process.env.PORT);\n";

macro_rules! scenarios {
    ($($name:ident: $run:expr, $pmx:expr $(, differs: $pm2:expr, $why:expr)?;)*) => {
        const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            run: $run,
            pmx: &$pmx,
            #[allow(unused_assignments, unused_mut)]
            differs: { let mut differs: Option<(&'static [&'static str], &'static str)> = None; $(differs = Some((&$pm2, $why));)? differs },
        }),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

fn check(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let Some(subject) = Subject::of() else { return };
    let seen = (scenario.run)(&subject);
    let expected = match (&subject, scenario.differs) {
        (Subject::Pm2(..), Some((pm2, _))) => pm2,
        _ => scenario.pmx,
    };
    assert_eq!(seen, expected, "{name}");
}

scenarios! {
    a_script_is_started: |s| {
        s.file("app.sh", SLEEPER);
        let code = s.code(&["start", "app.sh"]);
        let env = &s.of_id(0)["pm2_env"];
        vec![code, s.shown(), format!("{} {}", env["exec_mode"], env["restart_time"]), format!("pid {}", is_alive(s.pid(0)))]
    }, ["start app.sh: exit 0", "app(0) online", "\"fork_mode\" 0", "pid true"];

    a_second_start_of_the_same_is_refused_and_forced: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh"]);
        let refused = s.code(&["start", "app.sh"]);
        vec![refused, s.code(&["start", "app.sh", "-f"]), s.shown()]
    }, ["start app.sh: exit 1", "start app.sh -f: exit 0", "app(0) online, app(1) online"];

    what_is_not_there_is_an_error: |s| {
        let verbs: [&[&str]; 7] = [&["start", "none.js"], &["stop", "none"], &["restart", "none"], &["delete", "none"],
            &["reload", "none"], &["describe", "none"], &["scale", "none", "2"]];
        verbs.iter().map(|args| s.code(args)).collect()
    }, ["start none.js: exit 1", "stop none: exit 1", "restart none: exit 1", "delete none: exit 1",
        "reload none: exit 1", "describe none: exit 1", "scale none 2: exit 1"];

    a_stopped_process_stays_in_the_list: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh"]);
        let stopped = s.code(&["stop", "app"]);
        let pid = format!("pid {}", s.pid(0));
        vec![stopped, s.shown(), pid, s.code(&["stop", "app"]), s.code(&["start", "app"]), s.shown()]
    }, ["stop app: exit 0", "app(0) stopped", "pid 0", "stop app: exit 0", "start app: exit 0", "app(0) online"];

    a_restart_counts_and_a_start_of_a_stopped_one_does_not: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh"]);
        let pid = s.pid(0);
        s.ok(&["restart", "app"]);
        let first = format!("{} {}", s.restarts(0), pid != s.pid(0));
        s.ok(&["stop", "app"]);
        s.ok(&["restart", "app"]);
        let second = format!("{} {}", s.restarts(0), s.status(0));
        s.ok(&["reset", "app"]);
        vec![first, second, s.restarts(0).to_string()]
    }, ["1 true", "1 online", "0"];

    ids_begin_anew_when_the_list_is_empty: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh", "-n", "a"]);
        s.ok(&["start", "app.sh", "-n", "b"]);
        s.ok(&["delete", "a"]);
        s.ok(&["start", "app.sh", "-n", "c"]);
        let some = s.shown();
        s.ok(&["delete", "all"]);
        s.ok(&["start", "app.sh", "-n", "d"]);
        vec![some, s.shown()]
    }, ["b(1) online, c(2) online", "d(0) online"];

    what_dies_at_once_is_given_up_after_sixteen: |s| {
        s.file("app.sh", "#!/bin/sh\nexit 7\n");
        s.run(&["start", "app.sh"]);
        s.wait_status(0, "errored");
        vec![s.shown(), s.of_id(0)["pm2_env"]["exit_code"].to_string()]
    }, ["app(0) errored", "7"];

    what_is_killed_is_started_again: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh"]);
        let pid = s.pid(0);
        wait_until("a stable life", || std::fs::metadata(format!("/proc/{pid}")).unwrap().modified().unwrap().elapsed().unwrap().as_millis() > 1_200);
        signal(pid, libc::SIGKILL);
        wait_until("another one", || s.pid(0) != pid && s.status(0) == "online");
        vec![s.restarts(0).to_string(), s.of_id(0)["pm2_env"]["unstable_restarts"].to_string()]
    }, ["1", "0"];

    what_shall_not_restart_stays_down: |s| {
        s.file("once.sh", "#!/bin/sh\nexit 3\n");
        s.run(&["start", "once.sh", "--no-autorestart"]);
        s.file("done.sh", "#!/bin/sh\nexit 4\n");
        s.run(&["start", "done.sh", "--stop-exit-codes", "4"]);
        s.wait_status(0, "stopped");
        s.wait_status(1, "stopped");
        vec![s.shown(), format!("{} {}", s.restarts(0), s.restarts(1))]
    }, ["once(0) stopped, done(1) stopped", "0 0"];

    arguments_and_environment_reach_the_app: |s| {
        s.file("app.sh", "#!/bin/bash\necho \"$1|$2|$name|$pm_id|$NODE_APP_INSTANCE|$FROM_SHELL\"\nexec sleep 1000\n");
        s.run_with(&[("FROM_SHELL", "yes")], &["start", "app.sh", "-n", "web", "--", "-a", "two words"]).ok();
        vec![s.log(0, "pm_out_log_path")]
    }, ["-a|two words|web|0|0|yes\n"];

    each_stream_has_its_file: |s| {
        s.file("app.sh", "#!/bin/sh\necho out\necho err >&2\nexec sleep 1000\n");
        s.ok(&["start", "app.sh"]);
        vec![s.log(0, "pm_out_log_path"), s.log(0, "pm_err_log_path")]
    }, ["out\n", "err\n"];

    a_log_file_of_ones_own: |s| {
        s.file("app.sh", "#!/bin/sh\necho out\nexec sleep 1000\n");
        s.ok(&["start", "app.sh", "-o", "mine.log", "-e", "mine-too.log"]);
        vec![wait_for("a line", || std::fs::read_to_string(s.dir().join("mine.log")).ok().filter(|text| !text.is_empty()))]
    }, ["out\n"];

    a_node_script_is_clustered_by_instances: |s| {
        s.file("app.js", SERVER);
        let port = free_port();
        s.run_with(&[("PORT", &port.to_string())], &["start", "app.js", "-i", "2"]).ok();
        wait_until("an answer", || get(port, "/").is_ok());
        let both = s.list().iter().map(|p| format!("{} {}", p["pm2_env"]["exec_mode"], p["pm2_env"]["NODE_APP_INSTANCE"])).collect::<Vec<_>>();
        let mut both = both;
        both.sort();
        both.push(s.shown());
        both
    }, ["\"cluster_mode\" 0", "\"cluster_mode\" 1", "app(0) online, app(1) online"];

    a_cluster_is_scaled: |s| {
        s.file("app.js", "setInterval(() => {}, 1000)\n");
        s.ok(&["start", "app.js", "-i", "2"]);
        let up = s.code(&["scale", "app", "+1"]);
        let three = s.list().len().to_string();
        let down = s.code(&["scale", "app", "1"]);
        wait_until("one", || s.list().len() == 1);
        vec![up, three, down, s.code(&["scale", "app", "1"])]
    }, ["scale app +1: exit 0", "3", "scale app 1: exit 0", "scale app 1: exit 0"],
    differs: ["scale app +1: exit 0", "3", "scale app 1: exit 0", "scale app 1: exit 1"],
    "asking for what is there is no failure: scripts may repeat themselves";

    a_declaration_starts_and_then_restarts: |s| {
        s.file("app.sh", SLEEPER);
        s.file("apps.json", r#"{"apps": [{"name": "a", "script": "app.sh"}, {"name": "b", "script": "./app.sh", "env": {"X": 1}}]}"#);
        let first = s.code(&["start", "apps.json"]);
        let second = s.code(&["start", "apps.json"]);
        let counts = format!("{} {}", s.restarts(0), s.restarts(1));
        vec![first, second, s.shown(), counts, s.code(&["stop", "apps.json"]), s.code(&["delete", "apps.json"]), s.shown()]
    }, ["start apps.json: exit 0", "start apps.json: exit 0", "a(0) online, b(1) online", "1 1",
        "stop apps.json: exit 0", "delete apps.json: exit 0", ""];

    only_chooses_from_a_declaration: |s| {
        s.file("app.sh", SLEEPER);
        s.file("apps.json", r#"{"apps": [{"name": "a", "script": "app.sh"}, {"name": "b", "script": "app.sh"}]}"#);
        s.ok(&["start", "apps.json", "--only", "b"]);
        vec![s.shown()]
    }, ["b(0) online"];

    a_namespace_is_addressed_as_one: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh", "-n", "a", "--namespace", "ns"]);
        s.ok(&["start", "app.sh", "-n", "b", "--namespace", "ns"]);
        s.ok(&["start", "app.sh", "-n", "c"]);
        s.ok(&["stop", "ns"]);
        vec![s.shown()]
    }, ["a(0) stopped, b(1) stopped, c(2) online"];

    stop_is_sigint_and_then_sigkill: |s| {
        s.file("soft.sh", "#!/bin/bash\ntrap 'echo asked; exit 0' INT\necho up\nwhile :; do sleep 0.05; done\n");
        s.file("deaf.sh", "#!/bin/bash\ntrap '' INT TERM\necho up\nwhile :; do sleep 0.05; done\n");
        s.ok(&["start", "soft.sh"]);
        s.ok(&["start", "deaf.sh", "--kill-timeout", "500"]);
        s.log(0, "pm_out_log_path");
        s.log(1, "pm_out_log_path");
        let pid = s.pid(1);
        s.ok(&["stop", "all"]);
        let said = wait_for("its last word", || Some(s.log(0, "pm_out_log_path")).filter(|text| text.contains("asked")));
        vec![said, s.shown(), format!("alive {}", is_alive(pid))]
    }, ["up\nasked\n", "soft(0) stopped, deaf(1) stopped", "alive false"];

    a_signal_is_sent: |s| {
        s.file("app.sh", "#!/bin/bash\ntrap 'echo heard' USR2\necho up\nwhile :; do sleep 0.05; done\n");
        s.ok(&["start", "app.sh"]);
        s.log(0, "pm_out_log_path");
        s.ok(&["sendSignal", "SIGUSR2", "app"]);
        vec![wait_for("its word", || Some(s.log(0, "pm_out_log_path")).filter(|text| text.contains("heard"))), s.shown()]
    }, ["up\nheard\n", "app(0) online"];

    a_list_is_saved_and_comes_back: |s| {
        s.file("app.sh", SLEEPER);
        s.ok(&["start", "app.sh", "-n", "a"]);
        s.ok(&["start", "app.sh", "-n", "b"]);
        s.ok(&["stop", "b"]);
        let saved = s.code(&["save"]);
        let killed = s.code(&["kill"]);
        s.ok(&["resurrect"]);
        vec![saved, killed, s.shown()]
    }, ["save: exit 0", "kill: exit 0", "a(0) online, b(1) stopped"];

    the_dump_is_private: |s| {
        s.file("app.sh", SLEEPER);
        s.run_with(&[("A_SECRET", "hunter2")], &["start", "app.sh"]).ok();
        s.ok(&["save"]);
        let path = s.state().join("dump.pm2");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let text = std::fs::read_to_string(path).unwrap();
        vec![format!("mode {mode:o}"), format!("holds what the shell exported: {}", text.contains("hunter2"))]
    }, ["mode 600", "holds what the shell exported: false"],
    differs: ["mode 644", "holds what the shell exported: true"],
    "secrets of a shell do not belong into a file, and a file about them into nobody else's hands";

    unknown_names_have_no_ids_and_no_pids: |s| {
        let id = s.run(&["id", "none"]);
        vec![format!("{} {}", id.code, id.out.lines().last().unwrap_or_default().trim().replace("[ ]", "[]"))]
    }, ["0 []"];

    a_version_that_fails_at_boot_is_reloaded: |s| {
        s.file("app.js", SERVER);
        let port = free_port();
        let start = ["start", "app.js", "-i", "2", "--max-restarts", "2"];
        s.run_with(&[("PORT", &port.to_string())], &start).ok();
        wait_until("an answer", || get(port, "/").is_ok());
        s.file("app.js", "throw new Error('broken');\n");
        let code = s.code(&["reload", "app"]);
        if matches!(s, Subject::Pm2(..)) {
            wait_until("the end", || s.status(0) == "errored" && s.status(1) == "errored");
        }
        vec![code, s.shown(), format!("answers {}", get(port, "/").is_ok())]
    }, ["reload app: exit 1", "app(0) online, app(1) online", "answers true"],
    differs: ["reload app: exit 0", "app(0) errored, app(1) errored", "answers false"],
    "a reload is a transaction: if the new version fails, the old one stays, and the command says so";

    a_file_without_extension_is_run_by_its_first_line: |s| {
        s.file("app", "#!/bin/sh\necho sh\nexec sleep 1000\n");
        s.run(&["start", "./app", "--max-restarts", "2"]);
        if matches!(s, Subject::Pm2(..)) {
            s.wait_status(0, "errored");
            return vec![s.shown()];
        }
        vec![s.log(0, "pm_out_log_path"), s.shown()]
    }, ["sh\n", "app(0) online"],
    differs: ["app(0) errored"], "a file says in its first line who runs it; pm2 gives it to Node";

    a_delay_and_a_limit_end_in_errored: |s| {
        s.file("app.sh", "#!/bin/sh\nexit 1\n");
        s.run(&["start", "app.sh", "--restart-delay", "20", "--max-restarts", "3"]);
        let last = |s: &Subject| (s.status(0), s.restarts(0));
        if matches!(s, Subject::Pm2(..)) {
            wait_until("the limit", || s.of_id(0)["pm2_env"]["restart_time"] == 2);
            let mut seen = last(s);
            wait_until("it to stay as it is", || {
                let (now, before) = (last(s), seen.clone());
                seen = now.clone();
                now == before
            });
            return vec![s.status(0)];
        }
        s.wait_status(0, "errored");
        vec![s.status(0)]
    }, ["errored"], differs: ["waiting restart"], "pm2 says for ever that it is about to restart";

    a_look_starts_no_daemon: |s| {
        let seen = [&["-v"][..], &["kill"]].map(|args| {
            let code = s.run(args).code;
            format!("{}: exit {code}", args.join(" "))
        });
        let log = if matches!(s, Subject::Pmx(_)) { "pmx.log" } else { "pm2.log" };
        let mut seen = seen.to_vec();
        seen.push(format!("a daemon was started: {}", s.state().join(log).exists()));
        seen
    }, ["-v: exit 0", "kill: exit 0", "a daemon was started: false"],
    differs: ["-v: exit 0", "kill: exit 0", "a daemon was started: true"], "a question is not an order";

    the_list_has_the_keys_that_others_read: |s| {
        s.file("app.js", "setInterval(() => {}, 1000)\n");
        s.ok(&["start", "app.js"]);
        let process = s.of_id(0);
        let keys = ["status", "pm_uptime", "created_at", "restart_time", "unstable_restarts", "exec_mode", "name",
            "namespace", "pm_id", "pm_exec_path", "pm_cwd", "exec_interpreter", "pm_out_log_path", "pm_err_log_path",
            "autorestart", "merge_logs", "username", "axm_monitor", "axm_actions", "axm_options", "node_args",
            "NODE_APP_INSTANCE", "watch"];
        let missing: Vec<&str> = keys.into_iter().filter(|key| process["pm2_env"][key].is_null()).collect();
        let monit = process["monit"]["memory"].is_number() && process["monit"]["cpu"].is_number();
        vec![format!("missing: {missing:?}"), format!("monit: {monit}")]
    }, ["missing: []", "monit: true"];
}

/// What can be seen on both, as a table for people.
fn table() -> String {
    let cell = |facts: &[&str]| {
        let facts: Vec<String> =
            facts.iter().map(|fact| fact.replace('\n', "⏎").replace('|', "\\|")).collect();
        facts.join("<br>")
    };
    let mut text = String::from(
        "# pmx and pm2, side by side\n\nGenerated from `tests/parity.rs`, whose scenarios run against pmx and, with \
         `PMX_UNDER_TEST=pm2`, against pm2 7.\nWrite it anew: `PMX_PARITY=write cargo test --test all parity`.\n\n",
    );
    let (same, different): (Vec<_>, Vec<_>) =
        SCENARIOS.iter().partition(|scenario| scenario.differs.is_none());
    let words = |name: &str| name.replace('_', " ");
    let _ = writeln!(text, "## The same ({})\n\n| scenario | what is seen |\n|---|---|", same.len());
    for scenario in same {
        let _ = writeln!(text, "| {} | {} |", words(scenario.name), cell(scenario.pmx));
    }
    let _ = writeln!(
        text,
        "\n## Different on purpose ({})\n\n| scenario | pmx | pm2 | why |\n|---|---|---|---|",
        different.len()
    );
    for scenario in different {
        let (pm2, why) = scenario.differs.unwrap();
        let _ =
            writeln!(text, "| {} | {} | {} | {why} |", words(scenario.name), cell(scenario.pmx), cell(pm2));
    }
    text
}

#[test]
fn the_table_shows_what_the_scenarios_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity.md");
    if std::env::var("PMX_PARITY").is_ok_and(|what| what == "write") {
        std::fs::write(&path, table()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), table(), "PMX_PARITY=write writes it anew");
}
