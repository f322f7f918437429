//! `apply`, `init`, `schema` and `env`, on real processes.

use serde_json::Value;

use crate::support::{Home, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Name, pid and status of each process, by id.
fn all(home: &Home) -> Vec<(String, i64, String)> {
    let mut list = home.list();
    list.sort_by_key(|process| process["pm_id"].as_u64());
    let one = |process: Value| {
        let status = process["pm2_env"]["status"].as_str().unwrap().to_string();
        (process["name"].as_str().unwrap().to_string(), process["pid"].as_i64().unwrap(), status)
    };
    list.into_iter().map(one).collect()
}

fn pids(home: &Home, name: &str) -> Vec<i64> {
    all(home).into_iter().filter(|process| process.0 == name).map(|process| process.1).collect()
}

#[test]
fn what_runs_becomes_what_is_declared_and_the_plan_is_shown() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.file(
        "a.json",
        "[{ name: 'web', script: './app.sh', instances: 2 }, { name: 'api', script: './app.sh', env: { TOKEN: 's1' } },
          { name: 'old', script: './app.sh' }]",
    );
    let script = home.dir().join("app.sh").display().to_string();
    let shown =
        format!("+ web: start 2 instances of {script}\n+ api: start {script}\n+ old: start {script}\n");
    // Only shown: not even a daemon is started.
    assert_eq!(home.pmx(&["apply", "a.json", "--dry-run"]).ok().out, shown);
    assert_eq!(home.daemon_pid(), None);
    let ran = home.pmx(&["apply", "a.json"]).ok();
    assert!(ran.out.starts_with(&shown) && ran.out.contains("apply web(1): online"), "{ran:?}");
    let nothing = "apply a.json: nothing to do, 3 apps are as declared\n";
    assert_eq!(home.pmx(&["apply", "a.json"]).ok().out, nothing);
    // From another shell it is the same.
    assert_eq!(home.pmx_with(&[("OTHER", "1"), ("NODE_ENV", "x")], &["apply", "a.json"]).ok().out, nothing);
    let line = "umask 077; $PMX apply a.json";
    assert_eq!(crate::support::finish(home.shell(line).spawn().unwrap()).ok().out, nothing);

    home.pmx(&["start", "app.sh", "--name", "by-hand"]).ok();
    home.pmx(&["stop", "web"]).ok();
    let (web, api) = (pids(&home, "web"), pids(&home, "api"));
    home.file(
        "a.json",
        "[{ name: 'web', script: './app.sh', instances: 3 },
          { name: 'api', script: './app.sh', env: { TOKEN: 's2' }, kill_timeout: '2s', args: 'x y' },
          { name: 'new', script: './app.sh' }]",
    );
    let shown = format!(
        "+ web: start 0, 1 again\n~ web: scale from 2 to 3\n~ api: reload\n    env.TOKEN changed\n    \
         args: [] -> [\"x\",\"y\"]\n    kill_timeout: 1600 -> 2000\n+ new: start {script}\n"
    );
    assert_eq!(home.pmx(&["apply", "a.json", "--dry-run"]).ok().out, shown);
    assert_eq!((pids(&home, "web"), pids(&home, "api")), (web, api.clone()));
    home.pmx(&["apply", "a.json"]).ok();
    assert_eq!(pids(&home, "web").len(), 3);
    assert_ne!(pids(&home, "api"), api);
    assert_eq!(home.pmx(&["apply", "a.json"]).ok().out, nothing);
    // What is gone goes only if that is asked for, and what came from elsewhere never.
    let before = all(&home);
    assert!(before.iter().any(|process| process.0 == "old"), "{before:?}");
    let shown = "- old: delete 3\n";
    assert_eq!(home.pmx(&["apply", "a.json", "--prune", "--dry-run"]).ok().out, shown);
    home.pmx(&["apply", "a.json", "--prune"]).ok();
    let after = all(&home);
    assert_eq!(after, before.into_iter().filter(|process| process.0 != "old").collect::<Vec<_>>());
    assert!(after.iter().any(|process| process.0 == "by-hand"));
    assert_eq!(home.pmx(&["apply", "a.json", "--prune"]).ok().out, nothing);
    home.pmx(&["scale", "web", "1"]).ok();
    assert_eq!(home.pmx(&["apply", "a.json"]).ok().out.lines().next(), Some("~ web: scale from 1 to 3"));
    // So does a daemon that was updated meanwhile.
    home.pmx(&["update"]).ok();
    assert_eq!(home.pmx(&["apply", "a.json", "--prune"]).ok().out, nothing);
}

#[test]
fn what_fails_is_told_and_tried_again() {
    let home = Home::new();
    home.file("good.sh", SLEEPER);
    home.file("server.js", "require('http').createServer((q, s) => s.end('x')).listen(0)");
    home.file(
        "a.json",
        "[{ name: 'web', script: './server.js', instances: 1 }, { name: 'b', script: './good.sh' }]",
    );
    home.pmx(&["apply", "a.json"]).ok();
    let before = all(&home);
    home.file("server.js", "throw new Error('boom')");
    let broken = "[{ name: 'web', script: './server.js', instances: 1, bake_time: 301 }, { name: 'b', script: './good.sh', umask: '077' }]";
    home.file("a.json", broken);
    for _ in 0..2 {
        let ran = home.pmx(&["apply", "a.json"]).failed();
        assert!(ran.err.contains("boom") && ran.out.contains("bake_time: 300 -> 301"), "{ran:?}");
        assert_eq!(all(&home)[0], before[0], "the old one serves on");
    }
    assert_ne!(all(&home)[1], before[1]);
    home.file("a.json", "[{ name: 'b', script: './other.sh', umask: '077' }]");
    home.file("other.sh", SLEEPER);
    let shown = home.pmx(&["apply", "a.json"]).ok().out;
    assert!(shown.starts_with("~ b: restart\n    script: "), "{shown}");
    for (line, sentence) in [
        (&["apply", "gone.json"][..], "apply gone.json: no such file"),
        (&["apply", "a.json", "--prune", "--only", "b"], "--prune and --only contradict each other"),
        (&["apply", "-", "--prune"], "--prune needs a file that has a name"),
        (&["apply"], "apply needs <file.json|->"),
    ] {
        let ran = home.pmx(line).failed();
        assert!(ran.err.contains(sentence), "{line:?}: {}", ran.err);
    }
}

/// The same numbers give the same declarations on every machine.
#[test]
fn generated_declarations_are_applied_to_real_processes_once() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let mut state = 5u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let fields = [
        "kill_timeout: '1s'",
        "args: '-a b'",
        "env: { A: 1, B: 'x' }",
        "instances: 2",
        "autostart: false",
        "autorestart: false",
        "max_restarts: 'unlimited'",
        "stop_signal: 'SIGTERM'",
        "filter_env: true",
        "increment_var: 'PORT', port: 3000",
        "umask: '027'",
        "max_memory_restart: '300M'",
        "cron_restart: '0 3 * * *'",
        #[cfg(feature = "watch")]
        "watch: true",
        "limits: { nofile: 512 }",
        "namespace: 'web'",
    ];
    for round in 0..6 {
        let apps: Vec<String> = (0..1 + random(3))
            .map(|n| {
                let said: std::collections::BTreeSet<_> =
                    (0..random(5)).map(|_| fields[random(fields.len())]).collect();
                let said: Vec<_> = said.into_iter().map(|field| format!(", {field}")).collect();
                format!("{{ script: './app.sh', name: 'app-{round}-{n}'{} }}", said.concat())
            })
            .collect();
        let text = format!("[{}]", apps.join(",\n"));
        home.file("a.json", &text);
        home.pmx(&["apply", "a.json", "--prune"]).ok();
        let said = home.pmx(&["apply", "a.json", "--prune"]).ok().out;
        assert!(said.contains("nothing to do"), "{text}: {said}");
        assert!(all(&home).iter().all(|process| process.0.starts_with(&format!("app-{round}-"))));
    }
}

#[test]
fn init_writes_a_file_that_can_be_started_and_overwrites_none() {
    let home = Home::new();
    home.file("app.js", "setInterval(() => {}, 1000)");
    for (line, name) in [
        (&["init"][..], "ecosystem.config.js"),
        (&["init", "b.json5"], "b.json5"),
        #[cfg(feature = "yaml")]
        (&["ecosystem", "c.yaml"], "c.yaml"),
    ] {
        home.pmx(line).ok();
        let text = std::fs::read_to_string(home.dir().join(name)).unwrap();
        assert!(text.contains("kill_timeout: 1600"), "{text}");
        home.pmx(&["start", name]).ok();
        assert_eq!(home.status(0), "online");
        let said = home.pmx(line).failed();
        assert!(said.err.contains("it is there already, and stays as it is"), "{}", said.err);
        assert_eq!(std::fs::read_to_string(home.dir().join(name)).unwrap(), text);
        home.pmx(&["delete", name]).ok();
    }
    std::fs::remove_file(home.dir().join("ecosystem.config.js")).unwrap();
    home.pmx(&["init", "simple"]).ok();
    assert!(std::fs::read_to_string(home.dir().join("ecosystem.config.js")).unwrap().lines().count() < 12);
    let said = home.pmx(&["init", "a.toml"]).failed();
    assert!(said.err.contains("expected a name that ends in"), "{}", said.err);
}

#[test]
fn the_schema_is_json() {
    let home = Home::new();
    let schema: Value = serde_json::from_str(&home.pmx(&["schema"]).ok().out).unwrap();
    assert_eq!(schema.pointer("/$defs/app/properties/kill_timeout/default"), Some(&Value::from(1600)));
    assert_eq!(home.daemon_pid(), None);
}

#[test]
fn env_shows_what_a_process_was_given_and_what_would_change() {
    let home = Home::new();
    home.file("app.js", "setInterval(() => {}, 1000)");
    home.file("a.json", "[{ script: './app.js', env: { A: 'declared' } }]");
    let shell = [("OLD", "1"), ("SAME", "1"), ("VALUE", "a\u{1b}[1m"), ("NODE_OPTIONS", "--no-warnings")];
    home.pmx_with(&shell, &["start", "a.json"]).ok();
    wait_until("it is there", || home.pmx(&["env", "0"]).ok().out.contains("PMX_INSTANCE: "));
    let shown = home.pmx(&["env", "0"]).ok().out;
    for line in ["A: declared", "OLD: 1", "pm_id: 0", "name: app", "VALUE: a\\x1b[1m"] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let shown: Value = serde_json::from_str(&home.pmx(&["env", "app", "--json"]).ok().out).unwrap();
    assert_eq!(shown["VALUE"], "a\u{1b}[1m");
    let same = home.pmx_with(&shell, &["env", "0", "--diff"]).ok().out;
    assert_eq!(same, "env: a restart with this shell's environment would change nothing\n");
    let other =
        [("NEW", "2"), ("SAME", "1"), ("VALUE", "b"), ("NODE_OPTIONS", "--trace-warnings"), ("A", "shell")];
    let diff = home.pmx_with(&other, &["env", "0", "--diff"]).ok().out;
    let expected =
        "~ NODE_OPTIONS: --no-warnings -> --trace-warnings\n- OLD: 1\n~ VALUE: a\\x1b[1m -> b\n+ NEW: 2\n";
    assert_eq!(diff, expected);
    home.pmx_with(&other, &["restart", "0", "--update-env"]).ok();
    wait_until("nothing differs", || {
        home.pmx_with(&other, &["env", "0", "--diff"]).ok().out.contains("nothing")
    });
    home.pmx(&["scale", "app", "2"]).ok();
    let said = home.pmx(&["env", "app"]).failed();
    assert!(said.err.contains("it has 2 processes; choose one of 0, 1"), "{}", said.err);
    home.pmx(&["stop", "0"]).ok();
    let said = home.pmx(&["env", "0"]).failed();
    assert!(said.err.contains("it does not run"), "{}", said.err);
    home.pmx(&["env", "nobody"]).failed();
}
