//! The saved list on disk: whatever goes wrong while it is written or read, no list is lost.
//! (A reboot between save and crash, S08, is approached by the order of the writer's system calls.)

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, setrlimit};
use pmx::app::dump::{self, Saved};
use pmx::app::{App, Text, User};
use serde_json::Value;

use crate::support::probe::is_root;
use crate::support::{Home, finish, signal, wait_for, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

fn saved(name: &str, script: &Path) -> Saved {
    let mut app = App { name: name.to_string(), ..App::default() };
    app.command.script = Text::from(script);
    let [out_file, error_file, pid_file] = [Text::default(), Text::default(), Text::default()];
    Saved { app, instance: 0, up: true, out_file, error_file, pid_file, user: None, group: None }
}

/// The names in a list, with a `-` before what is stopped.
fn names(bytes: &[u8]) -> Vec<String> {
    let list = dump::read(bytes).unwrap();
    let name = |saved: Saved| format!("{}{}", if saved.up { "" } else { "-" }, saved.app.name);
    list.saved.into_iter().map(name).collect()
}

/// The names in a file of the home; none while there is no such file.
fn names_in(home: &Home, file: &str) -> Vec<String> {
    fs::read(home.path().join(file)).map_or(Vec::new(), |bytes| names(&bytes))
}

/// Names and statuses, by id.
fn listed(home: &Home) -> Vec<(String, String)> {
    let mut list = home.list();
    list.sort_by_key(|process| process["pm_id"].as_u64());
    let text = |value: &Value| value.as_str().unwrap().to_string();
    list.iter().map(|p| (text(&p["name"]), text(&p["pm2_env"]["status"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, status)| (name.to_string(), status.to_string())).collect()
}

/// Runs the writer on `content`, as the daemon does. `None`: a signal ended it.
fn write(home: &Home, content: &[u8], prepare: impl FnOnce(&mut Command)) -> Option<i32> {
    let mut command = home.command(&["save", "--autosave"]);
    prepare(&mut command);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // It may have ended before it read anything.
    let _ = child.stdin.take().unwrap().write_all(content);
    child.wait().unwrap().code()
}

/// A traced writer. The tracer may end by the signal that it was told to inject.
fn traced(home: &Home, content: &[u8], options: &[&str]) -> Option<i32> {
    let mut command = Command::new("strace");
    command.args(options).arg(env!("CARGO_BIN_EXE_pmx")).args(["save", "--autosave"]);
    command.env("PMX_HOME", home.path()).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("strace is needed");
    let _ = child.stdin.take().unwrap().write_all(content);
    let status = child.wait().unwrap();
    if status.signal().is_some() { None } else { status.code() }
}

/// A usual run takes a part of the bytes; with `PMX_TEST_SWEEP` it takes each.
#[test]
fn s01_a_crash_after_any_byte_leaves_the_old_list() {
    let home = Home::new();
    let script = home.file("app.sh", SLEEPER);
    let old = dump::write(&[saved("old", &script)]);
    let new = dump::write(&[saved("new", &script), saved("more", &script)]);
    fs::create_dir(home.path()).unwrap();
    assert_eq!(write(&home, &old, |_| {}), Some(0));
    let file = home.path().join("autosave.json");
    let end = new.len() as u64;
    let step = if std::env::var_os("PMX_TEST_SWEEP").is_some() { 1 } else { 13 };
    for bytes in (0..end).step_by(step).chain(end - 3..=end) {
        let limit = move || {
            // The kernel takes so many bytes, and ends whoever writes one more.
            setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
            Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
        };
        let code = write(&home, &new, |command| {
            // SAFETY: setrlimit is async-signal-safe.
            unsafe { command.pre_exec(limit) };
        });
        let found = fs::read(&file).unwrap();
        if bytes < end {
            assert_eq!(code, None, "after {bytes} bytes");
            assert!(found == old, "after {bytes} bytes");
        } else {
            assert_eq!(code, Some(0));
            assert!(found == new, "after all of {bytes} bytes");
        }
    }
    let backup = fs::read(home.path().join("autosave.json.bak")).unwrap();
    assert!(backup == old, "the old list is a generation now");
}

#[test]
fn s01_a_crash_at_any_system_call_leaves_a_whole_list() {
    // As different architectures call them.
    let calls = [
        "?open,openat",
        "?unlink,unlinkat",
        "write",
        "?chmod,fchmod,fchmodat",
        "fsync",
        "?link,linkat",
        "?rename,?renameat,renameat2",
        "close",
        "flock",
    ];
    let home = Home::new();
    let script = home.file("app.sh", SLEEPER);
    fs::create_dir(home.path()).unwrap();
    let mut killed = 0;
    let mut number = 0;
    let mut before: Vec<u8> = dump::write(&[saved("first", &script)]);
    assert_eq!(write(&home, &before, |_| {}), Some(0));
    for call in calls {
        for when in 1.. {
            number += 1;
            let new = dump::write(&[saved(&format!("n{number}"), &script)]);
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let trace = format!("trace={call}");
            let code = traced(&home, &new, &["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
            let found = fs::read(home.path().join("autosave.json")).unwrap();
            assert!(found == before || found == new, "{call}, call {when}");
            if code == Some(0) {
                assert!(found == new, "{call}, call {when}: it said that it was written");
                // What was left behind by those before is tidied up.
                let left: Vec<_> = fs::read_dir(home.path())
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .filter(|name| name.ends_with(".new"))
                    .collect();
                assert_eq!(left, [""; 0], "{call}");
            } else {
                killed += 1;
            }
            before = found;
            // Every generation that is there is whole.
            for file in ["autosave.json.bak", "autosave.json.bak2", "autosave.json.bak3"] {
                names_in(&home, file);
            }
            if code == Some(0) {
                break;
            }
            assert!(when < 100, "{call}");
        }
    }
    assert!(killed >= 20, "it was killed {killed} times only");
}

/// What a power failure may leave is decided by this order: the content is on the disk before it has the
/// name, and the names are before anybody is told so.
#[test]
fn s08_the_content_is_durable_before_the_name_and_the_name_before_the_answer() {
    let home = Home::new();
    let script = home.file("app.sh", SLEEPER);
    fs::create_dir(home.path()).unwrap();
    for name in ["a", "b"] {
        let log = home.dir().join("trace");
        let content = dump::write(&[saved(name, &script)]);
        let trace = "trace=openat,write,fsync,?link,linkat,?rename,?renameat,renameat2,exit_group";
        let options = ["-f", "-y", "-o", log.to_str().unwrap(), "-e", trace];
        assert_eq!(traced(&home, &content, &options), Some(0));
        let trace = fs::read_to_string(log).unwrap();
        let at = |words: &[&str]| {
            let found = trace.lines().position(|line| words.iter().all(|word| line.contains(word)));
            found.unwrap_or_else(|| panic!("no {words:?} in\n{trace}"))
        };
        let home_path = home.path().display().to_string();
        let mut order = vec![
            at(&["openat(", "autosave.json.new", "O_EXCL"]),
            at(&["write(", "autosave.json.new>"]),
            at(&["fsync(", "autosave.json.new>", "= 0"]),
        ];
        if name == "b" {
            order.push(at(&["link", "autosave.json.bak.new"]));
        }
        order.push(at(&["rename", "autosave.json.new"]));
        order.push(at(&["fsync(", &format!("{home_path}>"), "= 0"]));
        order.push(at(&["exit_group"]));
        assert!(order.is_sorted(), "{order:?} in\n{trace}");
    }
}

#[test]
fn s02_a_damaged_list_is_kept_and_the_one_before_it_is_read() {
    let home = Home::new();
    home.file("one.sh", SLEEPER);
    home.file("two.sh", SLEEPER);
    home.pmx(&["start", "one.sh"]).ok();
    home.pmx(&["save"]).ok();
    home.pmx(&["start", "two.sh"]).ok();
    let ran = home.pmx(&["save"]).ok();
    assert!(ran.out.starts_with("save: 2 processes in "), "{ran:?}");
    home.pmx(&["kill"]).ok();
    let dump = home.path().join("dump.pm2");
    let whole = fs::read(&dump).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x20;
    fs::write(&dump, &damaged).unwrap();

    let ran = home.pmx(&["resurrect"]).ok();
    let expected = "dump.pm2: its checksum does not fit its content; it is kept as dump.pm2.bad-1\n";
    assert!(ran.err.contains(expected), "{ran:?}");
    assert!(ran.err.contains("dump.pm2.bak: the newest that is whole"), "{ran:?}");
    assert_eq!(listed(&home), pairs(&[("one", "online")]));
    assert_eq!(fs::read(home.path().join("dump.pm2.bad-1")).unwrap(), damaged);

    // A save finds another one: it does not become a generation, and the good one stays.
    fs::write(&dump, &whole[..10]).unwrap();
    let ran = home.pmx(&["save"]).ok();
    assert!(ran.err.contains("it is kept as dump.pm2.bad-2"), "{ran:?}");
    assert_eq!(names_in(&home, "dump.pm2"), ["one"]);
    assert_eq!(names_in(&home, "dump.pm2.bak"), ["one"]);
    assert_eq!(fs::read(home.path().join("dump.pm2.bad-1")).unwrap(), damaged);
    assert_eq!(fs::read(home.path().join("dump.pm2.bad-2")).unwrap(), &whole[..10]);

    // Nothing is left that can be read: that is said, and nothing is thrown away.
    home.pmx(&["kill"]).ok();
    for file in ["dump.pm2", "dump.pm2.bak", "autosave.json", "autosave.json.bak"] {
        fs::write(home.path().join(file), "").unwrap();
    }
    let _ = fs::remove_file(home.path().join("autosave.json.bak2"));
    let _ = fs::remove_file(home.path().join("autosave.json.bak3"));
    let ran = home.pmx(&["resurrect"]).failed();
    assert!(ran.err.ends_with("resurrect: no saved list can be read\n"), "{ran:?}");
    assert_eq!(fs::read(home.path().join("dump.pm2.bad-1")).unwrap(), damaged);
}

#[test]
fn s03_a_failed_fsync_is_told_and_the_old_list_stays() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["save"]).ok();
    let old = fs::read(home.path().join("dump.pm2")).unwrap();
    home.pmx(&["start", "app.sh", "-f", "--name", "two"]).ok();
    let save = |when: u32| {
        let inject = format!("inject=fsync:error=EIO:when={when}");
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &inject, env!("CARGO_BIN_EXE_pmx"), "save"]);
        command.env("PMX_HOME", home.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("strace is needed"))
    };
    let ran = save(1).failed();
    assert!(ran.err.starts_with("save: write "), "{ran:?}");
    assert!(ran.err.ends_with("dump.pm2.new: input/output error\n"), "{ran:?}");
    assert!(fs::read(home.path().join("dump.pm2")).unwrap() == old);
    assert!(!home.path().join("dump.pm2.new").exists() && !home.path().join("dump.pm2.bak").exists());
    // The content is safe and the name may not be: an error all the same, and the old list is kept.
    let ran = save(2).failed();
    assert!(ran.err.starts_with("save: make the new names last in "), "{ran:?}");
    assert!(fs::read(home.path().join("dump.pm2.bak")).unwrap() == old);
    home.pmx(&["save"]).ok();
    assert_eq!(names_in(&home, "dump.pm2"), ["app", "two"]);
}

/// Runs a script in a mount namespace of its own, in which `$PMX` is pmx.
fn in_namespace(home: &Home, script: &str) -> crate::support::Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-ec", script]);
    command.env("PMX", env!("CARGO_BIN_EXE_pmx")).env("PMX_HOME", home.path()).current_dir(home.dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

#[test]
fn s05_a_home_that_cannot_be_used_is_told_in_a_sentence() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let ran = home.pmx(&["resurrect"]).ok();
    assert!(ran.out.starts_with("resurrect: nothing is saved in "), "{ran:?}");
    assert!(!home.path().exists(), "it was only asked about");
    let ran = home.pmx(&["save"]).ok();
    assert!(ran.out.starts_with("save: 0 processes in "), "{ran:?}");
    assert_eq!(fs::read_to_string(home.path().join("dump.pm2")).unwrap(), "[]\n");
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["save"]).ok();
    if !is_root() {
        println!("skipped: only root can mount and give away");
        return;
    }
    let read_only = "mount --bind $PMX_HOME $PMX_HOME; mount -o remount,ro,bind $PMX_HOME";
    let ran =
        in_namespace(&home, &format!("{read_only}; ! $PMX save; ! $PMX cleardump; $PMX resurrect")).ok();
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    for (line, verb) in lines.iter().zip(["save", "cleardump"]) {
        assert!(line.starts_with(&format!("{verb}: open ")), "{ran:?}");
        assert!(line.ends_with("save.lock: read-only file system"), "{ran:?}");
    }
    assert!(ran.out.contains("1 left as it was"), "{ran:?}");

    let theirs = Home::new();
    fs::create_dir(theirs.path()).unwrap();
    std::os::unix::fs::chown(theirs.path(), Some(65_534), None).unwrap();
    for verb in ["save", "resurrect", "cleardump"] {
        let ran = theirs.pmx(&[verb]).failed();
        assert!(ran.err.contains("it belongs to uid 65534, and we are uid 0"), "{verb}: {ran:?}");
    }
}

#[test]
fn s06_saved_lists_are_private_whatever_the_umask() {
    for umask in ["000", "077", "777"] {
        let home = Home::new();
        home.file("app.sh", SLEEPER);
        home.pmx(&["start", "app.sh"]).ok();
        // As pm2 leaves it.
        let dump = home.path().join("dump.pm2");
        fs::write(&dump, "[]").unwrap();
        fs::set_permissions(&dump, fs::Permissions::from_mode(0o644)).unwrap();
        let line = format!("umask {umask}; $PMX save && $PMX cleardump && exec $PMX save");
        finish(home.shell(&line).spawn().unwrap()).ok();
        wait_until("the list kept by itself", || names_in(&home, "autosave.json") == ["app"]);
        for file in ["dump.pm2", "dump.pm2.bak", "dump.pm2.bak2", "dump.pm2.bak3", "autosave.json"] {
            let found = fs::metadata(home.path().join(file)).unwrap();
            assert_eq!(found.mode() & 0o7777, 0o600, "umask {umask}: {file}");
        }
    }
}

fn holds(path: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(holds(&entry.path(), word));
        } else if let Ok(bytes) = fs::read(entry.path())
            && bytes.windows(word.len()).any(|part| part == word.as_bytes())
        {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn s06_what_a_shell_exports_is_in_no_file() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"$DECLARED ${#DB_PASSWORD} $HOME\"\nexec sleep 1000\n");
    home.file("apps.json", r#"[{"name": "api", "script": "app.sh", "env": {"DECLARED": "told"}}]"#);
    let secret = [("DB_PASSWORD", "hunter2hunter2"), ("HOME", "/tmp")];
    home.pmx_with(&secret, &["start", "apps.json"]).ok();
    wait_until("its line", || home.log("api-out-0.log") == "told 14 /tmp\n");
    home.pmx_with(&secret, &["save"]).ok();
    wait_until("the list kept by itself", || names_in(&home, "autosave.json") == ["api"]);
    assert_eq!(holds(&home.path(), "hunter2hunter2"), [""; 0]);
    assert!(holds(&home.path(), "DECLARED=told").len() >= 2);
    home.pmx(&["kill"]).ok();
    home.pmx_with(&[("HOME", "/elsewhere")], &["resurrect"]).ok();
    wait_until("its line", || home.log("api-out-0.log").ends_with("\ntold 0 /tmp\n"));
}

#[test]
fn s07_what_cannot_run_any_more_is_errored_and_the_others_run() {
    let home = Home::new();
    home.file("gone/app.py", "import time; time.sleep(1000)");
    home.file("place/keep", "");
    home.file("good.sh", SLEEPER);
    home.pmx(&["start", "gone/app.py", "--name", "script"]).ok();
    home.pmx(&["start", "good.sh", "--name", "place", "--cwd", "place", "--interpreter", "sh"]).failed();
    home.pmx(&[
        "start",
        &home.dir().join("good.sh").display().to_string(),
        "--name",
        "place",
        "--cwd",
        "place",
    ])
    .ok();
    home.pmx(&["start", "sleep 1000", "--name", "line"]).ok();
    home.pmx(&["start", "good.sh", "-f"]).ok();
    home.pmx(&["save"]).ok();
    home.pmx(&["kill"]).ok();
    fs::remove_dir_all(home.dir().join("gone")).unwrap();
    fs::remove_dir_all(home.dir().join("place")).unwrap();

    let ran = home.pmx(&["resurrect"]).failed();
    let expected =
        pairs(&[("script", "errored"), ("place", "errored"), ("line", "online"), ("good", "online")]);
    assert_eq!(listed(&home), expected, "{ran:?}");
    assert!(ran.out.contains("2 started, 2 failed"), "{ran:?}");
    let dir = home.dir().display();
    for (name, reason) in [
        ("script", format!("script {dir}/gone/app.py: no such file")),
        ("place", format!("working directory {dir}/place: no such directory")),
    ] {
        assert!(ran.err.contains(&format!("resurrect {name}: {reason}\n")), "{ran:?}");
        let describe = home.pmx(&["describe", name]).ok().out;
        assert!(describe.contains(&reason), "{describe}");
    }
    // What could not run is saved as what is to run.
    home.pmx(&["save"]).ok();
    assert_eq!(names_in(&home, "dump.pm2"), ["script", "place", "line", "good"]);
}

#[test]
fn s07_a_user_that_is_gone_or_another_one_now() {
    let home = Home::new();
    let script = home.file("good.sh", SLEEPER);
    let user = |name: &str, uid| {
        let (gid, groups, home) = (uid, Vec::new(), None);
        Some(User { name: name.to_string(), uid, gid, groups, home })
    };
    let mut list = [saved("gone", &script), saved("other", &script), saved("good", &script)];
    for (one, user) in list.iter_mut().zip([user("no-such-user", 4711), user("nobody", 4711), None]) {
        one.app.command.interpreter = Some(Text::from("/bin/sh"));
        one.app.user = user;
    }
    fs::write(home.dir().join("list"), dump::write(&list)).unwrap();
    let ran = home.pmx(&["resurrect", "list"]).failed();
    assert!(ran.err.contains("resurrect gone: unknown user no-such-user\n"), "{ran:?}");
    let other = "resurrect other: user nobody has uid 65534, and had 4711 when it was saved\n";
    assert!(ran.err.contains(other), "{ran:?}");
    assert_eq!(listed(&home), pairs(&[("gone", "errored"), ("other", "errored"), ("good", "online")]));
}

#[test]
fn x05_a_full_disk_leaves_the_old_list() {
    if !is_root() {
        println!("skipped: only root can mount");
        return;
    }
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    fs::create_dir(home.path()).unwrap();
    let script = r#"
        mount -t tmpfs -o size=512k,mode=700 tmpfs "$PMX_HOME"
        trap '$PMX kill >/dev/null; umount -l "$PMX_HOME"' EXIT
        $PMX start app.sh -s
        $PMX save -s
        cp "$PMX_HOME/dump.pm2" before
        for n in 1 2 3; do $PMX start app.sh -f -s --name "a-longer-name-$n"; done
        dd if=/dev/zero of="$PMX_HOME/full" bs=512 2>/dev/null || true
        if $PMX save; then echo "it said that it was saved"; fi
        cmp before "$PMX_HOME/dump.pm2" && echo intact
        ls "$PMX_HOME" | grep '\.new$' || echo tidy
        rm "$PMX_HOME/full"
        $PMX save
        cmp before "$PMX_HOME/dump.pm2.bak" && echo kept
    "#;
    let ran = in_namespace(&home, script).ok();
    assert!(ran.err.contains("dump.pm2.new: no space left on device\n"), "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[..2], ["intact", "tidy"], "{ran:?}");
    assert!(lines[2].starts_with("save: 4 processes in ") && lines[3] == "kept", "{ran:?}");
}

#[test]
fn an_empty_list_takes_no_place_by_accident() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["save"]).ok();
    home.pmx(&["delete", "all"]).ok();
    let ran = home.pmx(&["dump"]).failed();
    assert!(ran.err.starts_with("save: the list is empty, and 1 process is in "), "{ran:?}");
    home.pmx(&["kill"]).ok();
    let ran = home.pmx(&["save"]).failed();
    assert!(ran.err.starts_with("save: no daemon runs, so the list is empty, and 1 process"), "{ran:?}");
    assert!(home.daemon_pid().is_none(), "nothing was started to learn that");
    assert_eq!(names_in(&home, "dump.pm2"), ["app"]);
    home.pmx(&["save", "--force"]).ok();
    assert_eq!(names_in(&home, "dump.pm2"), [""; 0]);
    assert_eq!(names_in(&home, "dump.pm2.bak"), ["app"]);
    home.pmx(&["cleardump"]).ok();
    let ran = home.pmx(&["resurrect"]).ok();
    assert!(ran.out.starts_with("resurrect: 0 started ("), "{ran:?}");
}

#[test]
fn resurrect_brings_back_what_is_missing_as_it_was() {
    let home = Home::new();
    home.file("web.js", "require('http').createServer((q, r) => r.end()).listen(0)");
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "web.js", "-i", "3"]).ok();
    home.pmx(&["start", "app.sh", "--kill-timeout", "777"]).ok();
    home.pmx(&["start", "app.sh", "-f", "--name", "down"]).ok();
    home.pmx(&["stop", "down"]).ok();
    home.pmx(&["save"]).ok();
    let whole = pairs(&[
        ("web", "online"),
        ("web", "online"),
        ("web", "online"),
        ("app", "online"),
        ("down", "stopped"),
    ]);
    assert_eq!(listed(&home), whole);
    home.pmx(&["kill"]).ok();
    let ran = home.pmx(&["resurrect"]).ok();
    assert!(ran.out.contains("resurrect: 4 started, 1 added as stopped ("), "{ran:?}");
    assert_eq!(listed(&home), whole);
    let app = home.process(3);
    assert_eq!(app["pm2_env"]["kill_timeout"], 777);
    let instances: Vec<u64> =
        (0..3).map(|id| home.process(id)["pm2_env"]["NODE_APP_INSTANCE"].as_u64().unwrap()).collect();
    assert_eq!(instances, [0, 1, 2]);
    assert_eq!(home.process(1)["pm2_env"]["exec_mode"], "cluster_mode");

    // What is there is left alone; of a cluster the missing instance comes back.
    let pids: Vec<i32> = [0, 2, 3].map(|id| home.pid(id)).into();
    home.pmx(&["delete", "1"]).ok();
    home.pmx(&["stop", "app"]).ok();
    let ran = home.pmx(&["resurrect"]).ok();
    assert!(ran.out.contains("resurrect web(5): online\n"), "{ran:?}");
    assert!(ran.out.contains("resurrect: 1 started, 4 left as it was ("), "{ran:?}");
    assert_eq!(home.process(5)["pm2_env"]["NODE_APP_INSTANCE"], 1);
    assert_eq!([home.pid(0), home.pid(2)], [pids[0], pids[1]]);
    assert_eq!(home.status(3), "stopped");
}

#[test]
fn more_processes_than_one_request_holds_come_back() {
    let home = Home::new();
    let script = home.file("app.sh", SLEEPER);
    let mut list: Vec<Saved> = (0..700).map(|n| saved(&format!("{n:0>100}"), &script)).collect();
    for one in &mut list {
        one.up = false;
        one.app.env.set("PADDING", "x".repeat(1_000));
    }
    fs::write(home.dir().join("list"), dump::write(&list)).unwrap();
    let ran = home.pmx(&["resurrect", "list"]).ok();
    assert!(ran.out.contains("resurrect: 0 started, 700 added as stopped ("), "{ran:?}");
    let ran = home.pmx(&["resurrect", "list"]).ok();
    assert!(ran.out.contains("resurrect: 0 started, 700 left as it was ("), "{ran:?}");
    let ids: Vec<String> = listed(&home).into_iter().map(|(name, _)| name).collect();
    assert_eq!(ids.first().map(|name| name.trim_start_matches('0')), Some(""));
    assert!(ids.is_sorted() && ids.len() == 700);
}

#[test]
fn the_list_is_kept_by_itself() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh"]).ok();
    home.pmx(&["start", "app.sh", "-f", "--name", "two"]).ok();
    let kept = |expected: &[&str]| {
        wait_for("the list", || (names_in(&home, "autosave.json") == expected).then_some(()));
    };
    kept(&["app", "two"]);
    home.pmx(&["stop", "two"]).ok();
    kept(&["app", "-two"]);
    // What changed last is written before the end, and that everything stopped is not.
    home.pmx(&["start", "app.sh", "-f", "--name", "three"]).ok();
    let daemon = home.daemon_pid().unwrap();
    signal(daemon, libc::SIGTERM);
    wait_until("its end", || !crate::support::is_alive(daemon));
    assert_eq!(names_in(&home, "autosave.json"), ["app", "-two", "three"]);
    let whole = pairs(&[("app", "online"), ("two", "stopped"), ("three", "online")]);
    home.pmx(&["resurrect"]).ok();
    assert_eq!(listed(&home), whole);
    home.pmx(&["scale", "app", "2"]).ok();
    home.pmx(&["kill"]).ok();
    assert_eq!(names_in(&home, "autosave.json"), ["app", "-two", "three", "app"]);
    // A daemon that has nothing to save writes nothing over it.
    home.pmx(&["list"]).ok();
    home.pmx(&["kill"]).ok();
    assert_eq!(names_in(&home, "autosave.json"), ["app", "-two", "three", "app"]);
    // What was saved by hand comes first, unless the other one is asked for.
    home.pmx(&["start", "app.sh", "--name", "byhand"]).ok();
    home.pmx(&["save"]).ok();
    home.pmx(&["delete", "all"]).ok();
    home.pmx(&["kill"]).ok();
    assert_eq!(names_in(&home, "autosave.json"), [""; 0]);
    home.pmx(&["resurrect", "--auto"]).ok();
    assert_eq!(listed(&home), []);
    home.pmx(&["resurrect"]).ok();
    assert_eq!(listed(&home), pairs(&[("byhand", "online")]));
}

/// Constant change is written now and then, and what changes nothing is not.
#[test]
fn an_app_that_crashes_all_the_time_does_not_wear_out_the_disk() {
    let home = Home::new();
    home.file("crash.sh", "#!/bin/sh\nsleep 0.05\nexit 1\n");
    home.pmx(&["start", "crash.sh", "--max-restarts", "unlimited", "--min-uptime", "1"]).ok();
    let file = home.path().join("autosave.json");
    wait_until("the list", || file.exists());
    let written = || {
        let found = fs::metadata(&file).unwrap();
        (found.ino(), found.mtime(), found.mtime_nsec())
    };
    let first = written();
    let restarts = || home.process(0)["pm2_env"]["restart_time"].as_u64().unwrap();
    let until = restarts() + 120;
    wait_until("many restarts", || restarts() >= until);
    assert_eq!(written(), first, "it was written again");
}
