use serde_json::{Map, Value, json};

use super::*;
use crate::app::declaration::fields::{FIELDS, camel};
use crate::app::declaration::{self, Document, accepts};
use crate::cli::resolve::resolve;
use crate::cli::testing::TestHome;

/// Numbers that follow from the first one.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values of fields, each of which may stand beside any of the others.
fn values() -> Vec<(&'static str, Vec<Value>)> {
    let lengths = || vec![json!(0), json!(1500), json!("10s"), json!("5m"), json!(null)];
    let flags = || vec![json!(true), json!(false), json!("true"), json!("false")];
    vec![
        ("name_prefix", vec![json!("shop")]),
        ("namespace", vec![json!("web"), json!("default")]),
        ("cwd", vec![json!("."), json!("sub")]),
        ("args", vec![json!([]), json!(["a b", 3]), json!("--x 'y z'"), json!("['q']")]),
        ("interpreter_args", vec![json!("-e"), json!(["-u"])]),
        ("exec_mode", vec![json!("fork"), json!("cluster_mode")]),
        ("execute_command", flags()),
        ("instances", vec![json!(1), json!("3"), json!("max"), json!(-1), json!(0)]),
        ("balance", vec![json!("rr"), json!("reuseport")]),
        ("env", vec![json!({}), json!({"A": 1, "B": {"c": [true]}}), json!({"PORT": "3000"})]),
        ("env_file", vec![json!("a.env"), json!(["a.env"])]),
        ("env_production", vec![json!({"A": 2}), json!({})]),
        ("port", vec![json!(8080), json!("9005")]),
        ("filter_env", vec![json!(true), json!(false), json!(["AWS_"]), json!("SECRET")]),
        ("instance_var", vec![json!("WORKER")]),
        ("append_env_to_name", flags()),
        ("out_file", vec![json!("out.log"), json!("/dev/null"), json!("NULL")]),
        ("error_file", vec![json!("err.log")]),
        ("merge_logs", flags()),
        ("pid_file", vec![json!("run/app.pid"), json!("/run/app.pid")]),
        ("post_update", vec![json!("npm install"), json!(["a", "b c"]), json!([])]),
        ("autorestart", flags()),
        ("autostart", flags()),
        ("stop_exit_codes", vec![json!(3), json!([0, "4"]), json!([])]),
        ("min_uptime", lengths()),
        ("max_restarts", vec![json!(3), json!("unlimited"), json!("400"), json!(-1)]),
        ("restart_window", lengths()),
        ("restart_delay", lengths()),
        ("exp_backoff_restart_delay", lengths()),
        ("kill_timeout", lengths()),
        ("stop_signal", vec![json!("SIGTERM"), json!(15), json!("usr1")]),
        (
            "stop_sequence",
            vec![json!("SIGTERM 10s, SIGINT 5s"), json!([{"signal": 2, "wait": 3}]), json!([])],
        ),
        ("shutdown_with_message", flags()),
        ("kill_mode", vec![json!("tree"), json!("group"), json!("process")]),
        ("treekill", vec![json!(true), json!(false)]),
        ("limits", vec![json!({"nofile": "100:200", "nice": 5}), json!({})]),
        ("umask", vec![json!("027"), json!("0")]),
        ("no_new_privs", flags()),
        ("wait_ready", flags()),
        ("ready", vec![json!("message"), json!("notify"), json!("uptime")]),
        ("watchdog", lengths()),
        ("health", vec![json!({"tcp": 80, "interval": "1s"}), json!({"exec": "true", "on_fail": "none"})]),
        ("listen_timeout", lengths()),
        ("bake_time", lengths()),
        ("drain_timeout", lengths()),
        ("max_memory_restart", vec![json!("300M"), json!(1_000_000), json!("80%"), json!(false)]),
        ("cron_restart", vec![json!("0 3 * * *"), json!("@daily"), json!(0)]),
        ("overlap", vec![json!("queue"), json!("skip")]),
        ("cron_timezone", vec![json!("Europe/Berlin")]),
        ("watch", vec![json!(true), json!(false), json!("sub"), json!(["sub", "app.sh"])]),
        ("ignore_watch", vec![json!("*.log"), json!(["tmp", "a/**"])]),
        ("watch_delay", lengths()),
        ("ext", vec![json!("js,json"), json!(["ts"])]),
        ("critical", flags()),
        ("log_type", vec![json!("raw"), json!("json")]),
        ("log_file", vec![json!("both.log"), json!(true), json!(false), json!("NULL")]),
        ("log_date_format", vec![json!("YYYY [x]"), json!(""), json!(false)]),
        ("time", flags()),
        ("disable_logs", flags()),
        (
            "log_rotate",
            vec![json!(true), json!(false), json!({"max_size": "1M", "retain": "all", "TZ": "UTC"})],
        ),
        ("log_full", vec![json!("drop"), json!("block")]),
        ("greeting", vec![json!("hello"), json!(3), json!(true)]),
        ("vizion", flags()),
        ("trace", flags()),
    ]
}

/// A declaration of some apps, in one of the spellings of each field.
fn generated(random: &mut Random, values: &[(&'static str, Vec<Value>)]) -> Value {
    let mut apps = Vec::new();
    for n in 0..1 + random.below(4) {
        let mut app = Map::new();
        app.insert(
            random.of(&["script", "exec", "cmd"]).to_string(),
            json!(random.of(&["./app.sh", "app.sh"])),
        );
        app.insert("name".to_string(), json!(format!("app-{n}")));
        for _ in 0..random.below(12) {
            let (name, choices) = random.of(values);
            let spellings = FIELDS.iter().find(|field| field.names.contains(name)).map(|field| field.names);
            let spelling = random.of(spellings.unwrap_or(&[name])).to_string();
            let spelling =
                if random.below(2) == 0 && spellings.is_some() { camel(&spelling) } else { spelling };
            // Of two spellings of one field the order would decide.
            let is_said = |key: &String| declaration::fields::snake(key) == *name || key == &spelling;
            let said =
                |key: &String| spellings.is_some_and(|all| all.contains(&&*declaration::fields::snake(key)));
            if !app.keys().any(|key| is_said(key) || said(key)) {
                app.insert(spelling, random.of(choices).clone());
            }
        }
        apps.push(Value::Object(app));
    }
    match random.below(3) {
        0 => Value::Array(apps),
        1 if apps.len() == 1 => apps.remove(0),
        _ => json!({ "apps": apps }),
    }
}

fn wanted(home: &TestHome, value: &Value, random: &mut Random) -> Vec<Wanted> {
    // Through the text, as from a file.
    let document = Document::json(&serde_json::to_string_pretty(value).unwrap()).unwrap();
    assert_eq!(document.value, *value);
    assert!(accepts(value), "the schema refuses {value:#}");
    let mut found =
        declaration::read("f.json", &document).unwrap_or_else(|error| panic!("{error}: {value:#}"));
    if random.below(3) == 0 {
        found.choose_env("f.json", "production");
    }
    let resolved = found.apps.iter().map(|declared| {
        let app = resolve(declared, &home.caller).unwrap_or_else(|error| panic!("{error}: {value:#}")).app;
        let count = match app.instances {
            Instances::Count(count) => count.max(1),
            Instances::CpusLess(less) => 4u32.saturating_sub(less).max(1),
        };
        let app = App { file: Some(Text::from("/f.json")), ..app };
        Wanted { app, count, has_umask: declared.changes.umask.is_some() }
    });
    resolved.collect()
}

/// What the daemon would make of a plan. What it is told goes over the wire, and what it tells comes back so.
fn carry_out(wanted: &[Wanted], present: &mut Vec<Present>, steps: Vec<Step>, next: &mut u32) {
    let over_the_wire =
        |app: &App| -> App { serde_json::from_str(&serde_json::to_string(app).unwrap()).unwrap() };
    let mut add = |present: &mut Vec<Present>, app: &App, count: u32| {
        for _ in 0..count {
            present.push(Present { id: *next, app: over_the_wire(app), is_down: !app.autostart });
            *next += 1;
        }
    };
    let is = |there: &Present, app: &App| there.app.name == app.name && there.app.namespace == app.namespace;
    for step in steps {
        match step {
            Step::Start { app } => add(present, &wanted[app].app, wanted[app].count),
            Step::Reload { app, .. } => {
                let app = &wanted[app].app;
                for there in present.iter_mut().filter(|there| is(there, app)) {
                    there.app = over_the_wire(app);
                    there.is_down = false;
                }
            }
            Step::Wake { ids, .. } => {
                present
                    .iter_mut()
                    .filter(|there| ids.contains(&there.id))
                    .for_each(|there| there.is_down = false);
            }
            Step::Scale { app, from, to } => {
                let app = &wanted[app].app;
                add(present, app, to.saturating_sub(from));
                let surplus = from.saturating_sub(to) as usize;
                let last: Vec<u32> = present
                    .iter()
                    .rev()
                    .filter(|there| is(there, app))
                    .take(surplus)
                    .map(|there| there.id)
                    .collect();
                present.retain(|there| !last.contains(&there.id));
            }
            Step::Delete { ids, .. } => present.retain(|there| !ids.contains(&there.id)),
        }
    }
}

#[test]
fn a_thousand_declarations_are_read_applied_and_then_there_is_nothing_to_do() {
    let home = TestHome::new("apply-random");
    std::fs::create_dir(home.home.path.join("sub")).unwrap();
    for file in ["app.sh", "sub/app.sh", "sub/a.env", "a.env"] {
        std::fs::write(
            home.home.path.join(file),
            if file.ends_with("env") { "FROM=file\n" } else { "#!/bin/sh\n" },
        )
        .unwrap();
    }
    std::fs::create_dir(home.home.path.join("sub/sub")).unwrap();
    let values = values();
    let origin = Text::from("/f.json");
    let mut random = Random(11);
    let (mut present, mut next) = (Vec::new(), 0);
    let (mut started, mut reloaded, mut scaled, mut deleted, mut woken) = (0, 0, 0, 0, 0);
    let mut value = Value::Null;
    for round in 0..1_000 {
        // Now and then the same file once more.
        if value.is_null() || random.below(4) > 0 {
            value = generated(&mut random, &values);
        }
        let wanted = wanted(&home, &value, &mut random);
        // Somebody stops something in between.
        if random.below(3) == 0 && !present.is_empty() {
            let at = random.below(present.len());
            let there: &mut Present = &mut present[at];
            there.is_down = true;
        }
        let steps = match plan::plan(&wanted, &present, Some(&origin)) {
            Ok(steps) => steps,
            // The name is in two namespaces for as long as the old one is there.
            Err(_) => {
                present.clear();
                plan::plan(&wanted, &present, Some(&origin)).unwrap()
            }
        };
        for step in &steps {
            match step {
                Step::Start { .. } => started += 1,
                Step::Reload { .. } => reloaded += 1,
                Step::Wake { .. } => woken += 1,
                Step::Scale { .. } => scaled += 1,
                Step::Delete { .. } => deleted += 1,
            }
        }
        carry_out(&wanted, &mut present, steps, &mut next);
        assert_eq!(plan::plan(&wanted, &present, Some(&origin)), Ok(vec![]), "round {round}: {value:#}");
        let sum: u32 = wanted.iter().map(|one| one.count).sum();
        assert_eq!(present.len() as u32, sum, "round {round}: {value:#}");
        assert!(present.iter().all(|there| wanted.iter().any(|one| one.app.name == there.app.name)));
    }
    let all = [started, reloaded, scaled, deleted, woken];
    assert!(all.iter().all(|count| *count > 20), "each kind of step was tried: {all:?}");
}
