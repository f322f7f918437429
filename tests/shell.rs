//! What a shell gets: values that are set, completion, the manual page.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Home, Ran, finish};

#[test]
fn values_are_set_in_pm2s_file_and_nobody_else_reads_them() {
    let home = Home::new();
    home.pmx(&["set", "pm2-logrotate:max_size", "10M"]).ok();
    home.pmx(&["set", "pm2-logrotate.retain", "30"]).ok();
    home.pmx(&["multiset", "a:b 'x y' a:c.d 2"]).ok();
    assert_eq!(home.pmx(&["get", "pm2-logrotate:max_size"]).ok().out, "10M\n");
    assert_eq!(home.pmx(&["conf", "pm2-logrotate"]).ok().out, "max_size 10M\nretain 30\n");
    assert_eq!(
        home.pmx(&["get"]).ok().out,
        "a:b x y\na:c.d 2\npm2-logrotate:max_size 10M\npm2-logrotate:retain 30\n"
    );
    let path = home.path().join("module_conf.json");
    let stored: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(stored["pm2-logrotate"], serde_json::json!({"max_size": "10M", "retain": "30"}));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    home.pmx(&["unset", "a:b"]).ok();
    assert_eq!(home.pmx(&["get", "a:b"]).failed().err, "get a:b: it is not set\n");
    home.pmx(&["unset", "a:b"]).failed();
    home.pmx(&["set", "a", "1"]).failed();
    home.pmx(&["set", "a::b", "1"]).failed();
    home.pmx(&["multiset", "a:x 1 a:y"]).failed();
    assert_eq!(home.pmx(&["get", "a"]).ok().out, "c.d 2\n");
    home.pmx(&["unset", "all"]).ok();
    assert_eq!(home.pmx(&["get", "--json"]).ok().out, "{}\n");
    assert!(home.daemon_pid().is_none());
    fs::write(&path, "{").unwrap();
    assert!(home.pmx(&["set", "a:b", "1"]).failed().err.starts_with("set: read "));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{");
}

/// What bash offers after these words, by the function that `complete` knows for pmx.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let script = home.dir().join("completion.bash");
    fs::write(&script, home.pmx(&["completion", "bash"]).ok().out).unwrap();
    let bin = home.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pmx"), bin.join("pmx"));
    let line = "source completion.bash; spec=$(complete -p pmx) || exit 9; name=${spec#complete -F }; \
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); ${name% pmx}; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", line, "bash"]).args(words).current_dir(home.dir());
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    bash.env("PATH", path).env("PMX_HOME", home.path());
    bash.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(bash.spawn().unwrap()).ok();
    assert_eq!(ran.err, "", "{words:?}");
    ran.out.lines().map(String::from).collect()
}

#[test]
fn bash_completes_commands_options_and_names() {
    let home = Home::new();
    let ran = finish(home.shell("$PMX completion bash > c && bash -n c").spawn().unwrap()).ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    assert_eq!(offered(&home, &["pmx", "rel"]), ["reload", "reloadLogs", "reload-logs"]);
    assert_eq!(offered(&home, &["pmx", "logs", "--no"]), ["--nostream", "--no-color"]);
    assert_eq!(offered(&home, &["pmx", "startup", "sy"]), ["systemd", "sysv"]);
    assert_eq!(offered(&home, &["pmx", "--name", "x", "cleard"]), ["cleardump"]);
    assert_eq!(offered(&home, &["pmx", "stop", "web"]), [""], "no daemon was started for that");
    assert!(home.daemon_pid().is_none());
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    for name in ["web-1", "$(touch stolen)", "web 2"] {
        home.pmx(&["start", "app.sh", "-n", name, "--namespace", "front"]).ok();
    }
    assert_eq!(offered(&home, &["pmx", "logs", "web"]), ["web\\ 2", "web-1"]);
    assert_eq!(offered(&home, &["pmx", "restart", "fro"]), ["front"]);
    assert_eq!(offered(&home, &["pmx", "logs", "$"]), ["\\$\\(touch\\ stolen\\)"]);
    assert!(!home.dir().join("stolen").exists(), "a name is not run");
    assert!(offered(&home, &["pmx", "start", "app"]).contains(&"app.sh".to_string()));
    home.pmx(&["completion", "tcsh"]).failed();
}

#[test]
fn other_shells_read_their_completion() {
    let home = Home::new();
    for shell in ["zsh", "fish"] {
        let text = home.pmx(&["completion", shell]).ok().out;
        assert!(text.contains("startOrReload") && text.contains("max-memory-restart"), "{shell}");
        let file = home.file(shell, &text);
        match Command::new(shell).arg("-n").arg(&file).output() {
            Err(_) => println!("skipped: there is no {shell}"),
            Ok(ran) => assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}"),
        }
    }
}

#[test]
fn the_manual_page_is_one() {
    let home = Home::new();
    let page = home.pmx(&["man"]).ok().out;
    home.file("pmx.1", &page);
    let ran: Ran = match Command::new("man").arg("--version").output() {
        Ok(_) => {
            finish(home.shell("MANWIDTH=100 man -E UTF-8 -P cat --warnings -l ./pmx.1").spawn().unwrap()).ok()
        }
        Err(_) => return println!("skipped: there is no man"),
    };
    assert_eq!(ran.err, "", "no warnings");
    let text: String = ran.out.chars().filter(|c| *c != '\u{8}').collect();
    for part in ["startOrReload", "--max-memory-restart", "print the last log lines", "PMX_HOME"] {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{part}: {text}");
    }
}
