//! The daemon's own life: when there is one, that there is one only, what it takes hold of and lets go.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

use crate::support::probe::{self, Client, daemons, fds, idle_fds, keeper_pid, ping};
use crate::support::{DEADLINE, Home, WAYS, finish, is_alive, signal, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// How often what depends on timing is repeated.
fn rounds() -> usize {
    std::env::var("PMX_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn s04_twenty_first_commands_start_one_daemon() {
    for _ in 0..rounds() {
        let home = Home::new();
        let commands: Vec<_> = (0..20).map(|_| home.command(&["jlist"]).spawn().unwrap()).collect();
        for command in commands {
            assert_eq!(finish(command).ok().out, "[]\n");
        }
        let found = daemons(&home);
        assert_eq!(found, [home.daemon_pid().unwrap()]);
    }
}

#[test]
fn what_only_asks_starts_no_daemon() {
    let home = Home::new();
    for line in [
        &["--version"][..],
        &["version"],
        &["help"],
        &["help", "start"],
        &["start", "--help"],
        &["--help"],
        &["kill"],
    ] {
        home.pmx(line).ok();
        assert!(!home.path().exists(), "{line:?}");
    }
    let ran = home.pmx(&["ping"]).failed();
    assert!(ran.err.contains("no daemon runs in"), "{ran:?}");
    home.pmx(&["start", "missing.js"]).failed();
    home.pmx(&["start", "--frobnicate"]).failed();
    assert!(!home.path().exists());
    assert!(daemons(&home).is_empty());
}

fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = if metadata.is_dir() { 'd' } else { '-' };
    found.push((format!("{kind} {}", path.display()), metadata.mode() & 0o7777));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            modes(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn s06_the_home_is_private_whatever_the_umask() {
    for umask in ["000", "022", "077", "0177"] {
        let home = Home::new();
        home.file("app.sh", "#!/bin/sh\necho out\necho err >&2\nexec sleep 1000\n");
        let line = format!("umask {umask}; exec $PMX start app.sh");
        finish(home.shell(&line).spawn().unwrap()).ok();
        wait_until("its logs", || home.log("app-error-0.log") == "err\n");
        let mut found = Vec::new();
        modes(&home.path(), &mut found);
        assert!(found.len() > 7, "{found:?}");
        for (path, mode) in found {
            let expected = if path.starts_with('d') { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "umask {umask}: {path}");
        }
        let socket = fs::metadata(home.path().join("pmx.sock")).unwrap();
        assert!(socket.file_type().is_socket());
    }
}

#[test]
fn a_daemon_in_the_foreground_is_the_only_one_and_ends_on_sigterm() {
    let home = Home::new();
    let first = home.command(&["daemon", "--foreground"]).spawn().unwrap();
    let pid = first.id() as i32;
    wait_until("an answer", || home.command(&["ping"]).output().unwrap().status.success());
    assert_eq!(keeper_pid(&home), Some(pid));
    let daemon = home.daemon_pid();
    let second = home.pmx(&["daemon", "--foreground"]).failed();
    assert!(second.err.contains("a daemon already serves"), "{second:?}");
    let third = home.pmx(&["daemon"]).failed();
    assert!(third.err.contains("a daemon already serves"), "{third:?}");
    assert_eq!(home.daemon_pid(), daemon, "the pid file is still the first one's");
    ping(&home);
    signal(pid, libc::SIGTERM);
    let ran = finish(first).ok();
    assert!(ran.err.contains("SIGTERM: stopping everything"), "{ran:?}");
    assert!(!home.path().join("pmx.sock").exists());
    assert!(!home.path().join("pmx.pid").exists());
}

#[test]
fn a_daemon_leaves_everything_of_its_starter_behind() {
    let home = Home::new();
    // As a script would that has files open of its own.
    finish(home.shell("exec 7</etc/passwd 9>mine; exec $PMX jlist").spawn().unwrap()).ok();
    let pid = home.daemon_pid().unwrap();
    let stat = probe::stat(pid).unwrap();
    let keeper = keeper_pid(&home).unwrap().to_string();
    assert_eq!((stat[2].as_str(), stat[3].as_str()), (&*keeper, &*keeper), "group, session");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let leaked: Vec<_> = fds(pid)
        .into_iter()
        .filter(|(_, path)| {
            let path = path.to_string_lossy();
            let within = |dir: &Path| path.starts_with(&*dir.to_string_lossy());
            let ours = within(&home.path()) || within(&home.state());
            let kernel = ["socket:", "anon_inode:", "/dev/null"].iter().any(|kind| path.starts_with(kind));
            // The pipe through which its own signals come.
            !ours
                && !kernel
                && !path.starts_with("pipe:")
                // Memory that had no name when it was made: the board, and the beginnings of lines.
                && !path.starts_with("/dev/shm/#")
                // Its directory among the control groups.
                && !path.starts_with("/sys/fs/cgroup")
        })
        .collect();
    assert_eq!(leaked, []);
    let (zero, path) = &fds(pid)[0];
    assert_eq!((*zero, path.as_path()), (0, Path::new("/dev/null")));
    assert!(fds(pid).len() <= 24, "{:?}", fds(pid));
}

#[test]
fn kill_answers_when_everything_is_down_and_the_next_start_finds_no_trace() {
    let home = Home::new();
    home.file("stubborn.sh", "#!/bin/sh\ntrap '' INT TERM\necho up\nwhile :; do sleep 1; done\n");
    home.file("sleeper.sh", SLEEPER);
    for _ in 0..rounds() {
        home.pmx(&["start", "stubborn.sh", "sleeper.sh", "--kill-timeout", "100"]).ok();
        let pids = [home.pid(0), home.pid(1), home.daemon_pid().unwrap()];
        let ran = home.pmx(&["kill"]).ok();
        assert_eq!(ran.out, "kill: 2 processes stopped, the daemon ended\n");
        assert_eq!(pids.map(is_alive), [false; 3]);
        assert!(!home.path().join("pmx.sock").exists());
        assert!(!home.path().join("pmx.pid").exists());
    }
}

#[test]
fn all_who_kill_wait_for_the_same_end() {
    let home = Home::new();
    home.file("stubborn.sh", "#!/bin/sh\ntrap '' INT TERM\necho up\nwhile :; do sleep 1; done\n");
    home.pmx(&["start", "stubborn.sh", "--kill-timeout", "500"]).ok();
    wait_until("its trap to be set", || home.log("stubborn-out-0.log") == "up\n");
    let pid = home.pid(0);
    let mut client = Client::connect(&home);
    client.ask(1, serde_json::json!({ "verb": "kill" }));
    let second = home.pmx(&["kill"]).ok();
    assert!(second.out.contains("the daemon ended"), "{second:?}");
    assert!(!is_alive(pid));
    assert_eq!(client.answer(1)["done"]["answer"]["killed"]["stopped"], 1);
}

#[test]
fn sigterm_to_the_daemon_stops_everything() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let home = Home::new();
        home.file("app.sh", "#!/bin/sh\nsleep 1000 &\nwait\n");
        home.pmx(&["start", "app.sh", "-i", "3", "-x"]).ok();
        let mut pids: Vec<i32> = (0..3).map(|id| home.pid(id)).collect();
        let daemon = home.daemon_pid().unwrap();
        let grandchildren = |parents: &[i32]| {
            let is_child = |pid: &i32| {
                probe::stat(*pid).is_some_and(|stat| parents.iter().any(|p| stat[1] == p.to_string()))
            };
            probe::pids().into_iter().filter(is_child).collect::<Vec<i32>>()
        };
        wait_until("their children", || grandchildren(&pids).len() == 3);
        pids.extend(grandchildren(&pids));
        signal(daemon, number);
        wait_until("the daemon's end", || !is_alive(daemon));
        assert!(!pids.iter().copied().any(is_alive));
        assert!(!home.path().join("pmx.sock").exists());
    }
}

#[test]
fn c10_what_a_dead_daemon_left_behind_is_in_nobodys_way() {
    let home = Home::new();
    home.pmx(&["list"]).ok();
    let dead = home.daemon_pid().unwrap();
    probe::kill_both(&home);
    assert!(home.path().join("pmx.sock").exists() && home.daemon_pid() == Some(dead));
    let ping = home.pmx(&["ping"]).failed();
    assert!(ping.err.contains("no daemon runs"), "{ping:?}");
    let kill = home.pmx(&["kill"]).ok();
    assert!(kill.out.contains("no daemon runs"), "{kill:?}");
    home.pmx(&["list"]).ok();
    let pid = home.daemon_pid().unwrap();
    assert_ne!(pid, dead);
    assert_eq!(daemons(&home), [pid]);
}

#[test]
fn c09_a_long_path_is_a_home_like_any_other() {
    let home = Home::below(format!("{}/{}", "x".repeat(200), "y".repeat(100)));
    home.file("app.sh", SLEEPER);
    home.pmx(&["start", "app.sh"]).ok();
    assert_eq!(home.status(0), "online");
    home.pmx(&["ping"]).ok();
    assert_eq!(home.pmx(&["kill"]).ok().out, "kill: 1 process stopped, the daemon ended\n");
}

/// The roots of two file systems have the same inode number.
#[test]
fn two_homes_of_one_inode_number_keep_apart() {
    if !probe::is_root() {
        println!("skipped: only root can mount");
        return;
    }
    let home = Home::new();
    home.file("one.sh", SLEEPER);
    home.file("two.sh", SLEEPER);
    let script = r#"
        for home in one two; do
            mkdir $home
            mount -t tmpfs -o mode=700 none $home
            PMX_HOME=$PWD/$home $PMX start $home.sh
        done
        daemon=$(cat one/pmx.pid)
        keeper=$(cut -d ' ' -f 4 /proc/$daemon/stat)
        kill -STOP $keeper
        kill -KILL $daemon $keeper
        for pid in $daemon $keeper; do
            while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.01; done
        done
        for home in one two; do PMX_HOME=$PWD/$home $PMX list; done
        for home in one two; do PMX_HOME=$PWD/$home $PMX kill; done"#;
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-ec", script]);
    command.env("PMX", env!("CARGO_BIN_EXE_pmx")).current_dir(home.dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(command.spawn().unwrap()).ok();
    let listed: Vec<&str> = ran.out.lines().filter(|line| line.contains(" online ")).collect();
    assert!(matches!(listed[..], [one, two] if one.contains(" one ") && two.contains(" two ")), "{ran:?}");
}

#[test]
fn a_client_that_dies_in_the_middle_of_its_request_harms_nobody() {
    let home = Home::new();
    home.file("stubborn.sh", "#!/bin/sh\ntrap '' INT\necho up\nwhile :; do sleep 1; done\n");
    home.pmx(&["start", "stubborn.sh", "--kill-timeout", "800"]).ok();
    // What the first child brings about stays: the socket on which all of them may speak sd_notify.
    home.pmx(&["stop", "stubborn"]).ok();
    let open = idle_fds(&home);
    let before = home.log("stubborn-out-0.log").len();
    home.pmx(&["restart", "stubborn"]).ok();
    wait_until("its trap to be set", || home.log("stubborn-out-0.log").len() > before);
    let pid = home.pid(0);
    let mut client = home.command(&["stop", "stubborn"]).spawn().unwrap();
    wait_until("the stop to begin", || home.status(0) == "stopping");
    client.kill().unwrap();
    client.wait().unwrap();
    ping(&home);
    wait_until("the stop to be completed", || home.status(0) == "stopped");
    assert!(!is_alive(pid));
    wait_until("its connection to be gone", || idle_fds(&home) <= open);
}

#[test]
fn p12_a_daemon_does_not_care_what_state_it_was_started_in() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", "#!/bin/sh\necho up\nexec sleep 1000\n");
        let mut command = home.command(&["daemon", "--foreground"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made: sigaction, sigprocmask, close.
        unsafe {
            command.pre_exec(|| {
                nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn)?;
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
                for fd in 0..3 {
                    libc::close(fd);
                }
                Ok(())
            });
        }
        let mut daemon = command.spawn().unwrap();
        let began = Instant::now();
        while !home.command(&["ping"]).output().unwrap().status.success() {
            assert!(began.elapsed() < DEADLINE, "no answer");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        home.pmx(&["start", "app.sh"]).ok();
        wait_until("its line", || home.log("app-out-0.log") == "up\n");
        let app = home.pid(0);
        // The shell, too, has its ways with signals until it is another program.
        wait_until("its program", || {
            fs::read_to_string(format!("/proc/{app}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        let mask = fs::read_to_string(format!("/proc/{app}/status")).unwrap();
        assert!(mask.contains("SigBlk:\t0000000000000000"), "{mask}");
        assert!(mask.contains("SigIgn:\t0000000000000000"), "{mask}");
        signal(app, libc::SIGKILL);
        wait_until("a restart", || home.pid(0) != app && home.status(0) == "online");
        signal(daemon.id() as i32, libc::SIGTERM);
        assert!(daemon.wait().unwrap().success());
    }
}
