//! The seed's checklist: each of its lines by the names of the tests that show it. Those below have no other
//! place.

use std::fs;
use std::path::Path;

use crate::support::{Home, free_port, get, node, wait_for, wait_until};

/// A line, and the tests of it.
const LINES: [(&str, &[&str]); 12] = [
    ("start with -i, --name, -x, arguments, -e and -o", &["seed_start_with_its_options"]),
    ("start of scripts in other languages", &["seed_scripts_of_other_languages"]),
    ("logs by name and id", &["logs_shows_what_was_asked_for"]),
    ("stop, restart, delete by all, id, name", &["restart_delete_and_ids", "a_number_is_a_name_first"]),
    (
        "reload without losing queries",
        &["one_worker_is_reloaded_without_loss", "two_workers_are_reloaded_without_loss"],
    ),
    ("monit", &["every_key_does_what_the_help_says"]),
    ("web", &["pm2s_readers_find_their_shape_and_nobody_finds_a_secret"]),
    ("startup", &["the_sysv_script_starts_tells_reloads_and_stops"]),
    ("processes.json", &["declarations_of_scripts_in_the_spelling_of_the_first_pm2"]),
    (
        "min_uptime and max_restarts",
        &["what_dies_at_once_is_given_up_after_its_budget", "a_life_longer_than_min_uptime_is_stable"],
    ),
    (
        "keep alive, uncaught exceptions in the error log",
        &["what_ends_is_started_again", "seed_an_uncaught_exception_is_in_the_error_log"],
    ),
    ("dump and resurrect", &["resurrect_brings_back_what_is_missing_as_it_was"]),
];

#[test]
fn every_line_has_its_tests() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "rs"));
    let text: String = files.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect();
    for (line, tests) in LINES {
        for test in tests {
            assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "{line}: no test {test}");
        }
    }
}

#[test]
fn seed_start_with_its_options() {
    let home = Home::new();
    let port = free_port().to_string();
    home.file("app.js", "console.log(process.argv.slice(2).join(' ')); console.error('e');\nrequire('http').createServer((q, s) => s.end('hi')).listen(+process.env.PORT);");
    let node = node(20).display().to_string();
    let line = [
        "start",
        "app.js",
        "-i",
        "2",
        "--name",
        "web",
        "-e",
        "err.log",
        "-o",
        "out.log",
        "--interpreter",
        &node,
        "--",
        "-a",
        "23",
    ];
    home.pmx_with(&[("PORT", &port)], &line).ok();
    wait_for("an answer", || get(port.parse().unwrap(), "/").ok());
    let list = home.list();
    assert!(
        list.len() == 2
            && list.iter().all(|p| p["name"] == "web" && p["pm2_env"]["exec_mode"] == "cluster_mode")
    );
    wait_until("its output", || {
        fs::read_to_string(home.dir().join("out.log")).is_ok_and(|text| text == "-a 23\n-a 23\n")
            || fs::read_to_string(home.dir().join("out-0.log")).is_ok_and(|text| text == "-a 23\n")
    });
    home.pmx(&["delete", "all"]).ok();
    home.pmx_with(&[("PORT", &port)], &["start", "app.js", "-x", "--interpreter", &node]).ok();
    assert_eq!(home.list()[0]["pm2_env"]["exec_mode"], "fork_mode");
}

#[test]
fn seed_scripts_of_other_languages() {
    let home = Home::new();
    // Stand-ins for what is not on every machine: they say who was asked, and for what.
    for name in ["php", "ruby", "coffee"] {
        let path = home.file(
            &format!("bin/{name}"),
            &format!("#!/bin/sh\necho {name} \"${{1##*/}}\"\nexec sleep 1000\n"),
        );
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", home.dir().join("bin").display(), std::env::var("PATH").unwrap());
    for (id, (file, text, said)) in [
        ("echo.php", "", "php echo.php\n"),
        ("echo.rb", "", "ruby echo.rb\n"),
        ("echo.coffee", "", "coffee echo.coffee\n"),
        ("echo.sh", "echo shell; exec sleep 1000", "shell\n"),
        ("echo.py", "import time\nprint('python', flush=True)\ntime.sleep(1000)\n", "python\n"),
    ]
    .into_iter()
    .enumerate()
    {
        home.file(file, text);
        let name = format!("app{id}");
        home.pmx_with(&[("PATH", &path)], &["start", file, "-n", &name]).ok();
        wait_until(said, || home.log(&format!("{name}-out-{id}.log")) == said);
    }
}

#[test]
fn seed_an_uncaught_exception_is_in_the_error_log() {
    let home = Home::new();
    home.file("app.js", "setTimeout(() => { throw new Error('nobody catches it') }, 50);");
    let node = node(20).display().to_string();
    home.pmx(&["start", "app.js", "--interpreter", &node, "--restart-delay", "10000"]).ok();
    wait_until("its words", || home.log("app-error-0.log").contains("Error: nobody catches it"));
    wait_until("its restart", || home.process(0)["pm2_env"]["restart_time"] == 1);
}
