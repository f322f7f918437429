//! What a child brings about ends with it, wherever it went, and is held to what was declared: with control
//! groups and without.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::probe::{self, is_root};
use crate::support::{Home, WAYS, finish, is_alive, node, signal, wait_for, wait_until};

/// The variable that switches control groups off.
const SWITCH: &str = "PMX_CGROUP";

/// The groups that a process is in, of those that pmx makes.
fn groups(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = |line: &str| line.splitn(3, ':').nth(2).map(PathBuf::from);
    text.lines().filter(|line| line.contains("/pmx-")).filter_map(path).collect()
}

/// Whether this machine has groups that we may use. (Where it has not, the first way is the second.)
fn has_groups() -> bool {
    let has = is_root() && Path::new("/sys/fs/cgroup").exists();
    if !has {
        eprintln!("\n!!! SKIPPED: no control groups here; containment by them is NOT tested\n");
    }
    has
}

/// All processes that a home's daemon brought about, itself and its keeper left out.
fn family(home: &Home) -> Vec<i32> {
    let mark = format!("PMX_HOME={}", home.path().display());
    let is_ours = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environ.split(|byte| *byte == 0);
        variables.clone().any(|variable| variable == mark.as_bytes())
            && variables.any(|variable| variable.starts_with(b"PMX_INSTANCE="))
    };
    probe::pids().into_iter().filter(|pid| is_alive(*pid)).filter(is_ours).collect()
}

/// What is known of its only process.
fn detail(home: &Home) -> Value {
    let ran = home.pmx(&["describe", "0", "--json"]).ok();
    serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
}

/// Pids that a script of the home wrote, one to a line.
fn pids(home: &Home, file: &str) -> Vec<i32> {
    let text = fs::read_to_string(home.dir().join(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn declare(home: &Home, app: &Value) {
    home.file("app.json", &app.to_string());
    home.pmx(&["start", "app.json"]).ok();
}

/// It leaves its group, its session and its parents, in every way there is; one is stopped.
const ESCAPES: &str = "#!/bin/sh
sleep 1000 & echo $! >> pids
setsid sh -c 'echo $$ >> pids; exec sleep 1001' &
(setsid sh -c '(sh -c \"echo \\$\\$ >> pids; exec sleep 1002\" &) ' &) &
(setsid sh -c 'echo $$ >> pids; kill -STOP $$; sleep 1003' &) &
exec sleep 1004
";

#[test]
fn p05_whoever_leaves_group_session_and_parents_ends_with_the_app() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", ESCAPES);
        for verb in [&["stop", "app"][..], &["restart", "app"], &["delete", "app"], &["kill"]] {
            home.file("pids", "");
            home.pmx(&["start", "app.sh", "--kill-timeout", "300"]).ok();
            let left = wait_for("all of it", || Some(pids(&home, "pids")).filter(|pids| pids.len() == 4));
            wait_until("one to be stopped", || {
                left.iter().any(|pid| probe::stat(*pid).is_some_and(|stat| stat[0] == "T"))
            });
            // One that is just executing shows no environment, and those between are gone soon.
            let all = wait_for("its family", || Some(family(&home)).filter(|all| all.len() == 5));
            if way == "on" && has_groups() {
                assert!(all.iter().all(|pid| !groups(*pid).is_empty()), "{all:?}");
            } else {
                assert!(all.iter().all(|pid| groups(*pid).is_empty()), "{all:?}");
            }
            let group = groups(home.pid(0));
            home.pmx(verb).ok();
            let survivors: Vec<i32> = all.iter().copied().filter(|pid| is_alive(*pid)).collect();
            assert!(survivors.is_empty(), "{way}, {verb:?}: {survivors:?}");
            for group in group {
                assert!(!find_group(&group), "{} is there", group.display());
            }
            if verb[0] == "restart" {
                home.pmx(&["delete", "app"]).ok();
            }
        }
    }
}

/// Where a group is, whatever hierarchy it is in.
fn directory_of(group: &Path) -> Option<PathBuf> {
    let name = group.strip_prefix("/").unwrap();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let points = mounts.lines().filter(|line| line.split(' ').nth(2).unwrap().starts_with("cgroup"));
    let mut places = points.map(|line| Path::new(line.split(' ').nth(1).unwrap()).join(name));
    places.find(|place| place.exists())
}

fn find_group(group: &Path) -> bool {
    directory_of(group).is_some()
}

#[test]
fn p05_what_a_dead_leader_left_ends_before_the_next_one_starts() {
    for way in WAYS {
        let home = Home::contained(way);
        let script = "#!/bin/sh
            for pid in $(cat left); do kill -0 $pid 2>/dev/null && echo collision; done
            echo begun
            (setsid sh -c 'echo $$ >> left; exec sleep 1000' &) &
            n=$(wc -l < runs); echo >> runs
            while [ $(wc -l < left) -le $n ]; do sleep 0.01; done
            [ $n -lt 3 ] && exit 1
            exec sleep 1001\n";
        home.file("left", "");
        home.file("runs", "");
        home.file("app.sh", script);
        home.pmx(&["start", "app.sh"]).ok();
        wait_until("four starts", || pids(&home, "left").len() == 4);
        assert_eq!(home.log("app-out-0.log"), "begun\n".repeat(4), "{way}");
        let left = pids(&home, "left");
        assert_eq!(left.iter().filter(|pid| is_alive(**pid)).count(), 1, "{way}: the last one");
        home.pmx(&["stop", "app"]).ok();
        assert!(!left.iter().any(|pid| is_alive(*pid)), "{way}");
    }
}

#[test]
fn p05_a_kill_mode_says_whom_a_stop_is_for() {
    let script = "#!/bin/sh
        setsid env --default-signal=INT sh -c 'trap \"echo far >> heard; exit\" INT; echo $$ >> pids; while :; do sleep 0.02; done' &
        env --default-signal=INT sh -c 'trap \"echo near >> heard; exit\" INT; echo $$ >> pids; while :; do sleep 0.02; done' &
        trap 'echo leader >> heard; exit' INT
        echo $$ >> pids; while :; do sleep 0.02; done\n";
    for way in WAYS {
        for (mode, heard, left) in [
            ("tree", &["far", "leader", "near"][..], 0),
            ("group", &["leader", "near"], 0),
            ("process", &["leader"], 2),
        ] {
            let home = Home::contained(way);
            home.file("app.sh", script);
            declare(
                &home,
                &json!({"name": "app", "script": "./app.sh", "kill_mode": mode, "kill_timeout": 5000}),
            );
            let all = wait_for("all of it", || Some(pids(&home, "pids")).filter(|pids| pids.len() == 3));
            // Their traps are set before their pids are written, but for the leader, whose is the last.
            let page = home.pmx(&["describe", "app"]).ok().out;
            assert!(page.contains("kill mode") && page.contains(mode), "{page}");
            home.pmx(&["stop", "app"]).ok();
            let text = fs::read_to_string(home.dir().join("heard")).unwrap();
            let mut words: Vec<&str> = text.lines().collect();
            words.sort_unstable();
            let alive: Vec<i32> = all.into_iter().filter(|pid| is_alive(*pid)).collect();
            alive.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
            assert_eq!(words, heard, "{way}, {mode}");
            assert_eq!(alive.len(), left, "{way}, {mode}");
        }
    }
}

#[test]
fn p02_p03_the_deaf_are_killed_in_time_and_the_stopped_may_say_goodbye() {
    for way in WAYS {
        let home = Home::contained(way);
        let deaf = "#!/bin/sh\ntrap '' INT\n(setsid sh -c 'echo $$ >> deaf; exec sleep 1000' &) &\n\
                    while [ ! -s deaf ]; do sleep 0.01; done; echo up\nexec sleep 1001\n";
        home.file("deaf.sh", deaf);
        home.pmx(&["start", "deaf.sh", "--kill-timeout", "700"]).ok();
        wait_until("it", || home.log("deaf-out-0.log") == "up\n");
        let all = wait_for("both", || Some(family(&home)).filter(|all| all.len() == 2));
        let began = Instant::now();
        home.pmx(&["stop", "deaf"]).ok();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(690), "{way}: {took:?}");
        assert!(!all.into_iter().any(is_alive), "{way}");
        let polite = "#!/bin/sh\n(setsid env --default-signal=INT sh -c 'trap \"echo bye >> said; exit\" INT; echo $$ >> stopped; \
                      while :; do sleep 0.02; done' &) &\ntrap exit INT\nwhile :; do sleep 0.02; done\n";
        home.file("polite.sh", polite);
        home.pmx(&["start", "polite.sh", "--kill-timeout", "20s"]).ok();
        let stopped = wait_for("it", || pids(&home, "stopped").pop());
        signal(stopped, libc::SIGSTOP);
        wait_until("it to be stopped", || probe::stat(stopped).unwrap()[0] == "T");
        home.pmx(&["stop", "polite"]).ok();
        assert_eq!(fs::read_to_string(home.dir().join("said")).unwrap(), "bye\n", "{way}");
        assert!(!is_alive(stopped));
    }
}

/// A group of version 1 whose processes the kernel holds, SIGKILL or not.
struct Frozen(PathBuf);

impl Frozen {
    fn hold(pid: i32) -> Option<Frozen> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/freezer/test-{}-{pid}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let frozen = Frozen(group);
        fs::write(frozen.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(frozen.0.join("freezer.state"), "FROZEN").unwrap();
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        let until = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn p04_one_that_the_kernel_holds_is_told_and_keeps_its_place() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", "#!/bin/sh\necho up\nexec sleep 1000\n");
        home.pmx(&["start", "app.sh", "--kill-timeout", "100"]).ok();
        wait_until("it", || home.log("app-out-0.log") == "up\n");
        let pid = home.pid(0);
        let Some(frozen) = Frozen::hold(pid) else {
            return eprintln!("\n!!! SKIPPED: no freezer here; an unkillable process is NOT tested\n");
        };
        let began = Instant::now();
        let ran = home.pmx(&["restart", "app"]).failed();
        assert!(ran.err.contains("still alive after SIGKILL (state D)"), "{way}: {ran:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{way}: after a bound");
        assert!(is_alive(pid) && home.pid(0) == pid, "{way}: no other one in its place");
        assert_eq!(home.log("app-out-0.log"), "up\n", "{way}: started once");
        let page = home.pmx(&["describe", "app"]).ok().out;
        assert!(page.contains("still alive after SIGKILL (state D)"), "{page}");
        drop(frozen);
        wait_until("the next one", || home.log("app-out-0.log") == "up\nup\n");
        assert!(!is_alive(pid));
    }
}

/// Processes come and go in a space of 400 numbers, while an app is started and stopped.
#[test]
fn p06_no_stranger_is_signalled_whose_number_was_a_childs() {
    if !is_root() {
        return eprintln!("\n!!! SKIPPED: only root can have a pid namespace; reuse of pids is NOT tested\n");
    }
    let strangers = "import os, sys
bad = 0
for n in range(4000):
    pid = os.posix_spawn('/bin/true', ['true'], {})
    if os.waitpid(pid, 0)[1] != 0: bad += 1
open('strangers', 'w').write(str(bad))
";
    let script = "echo 400 > /proc/sys/kernel/pid_max || exit 77
        $PMX start app.sh --kill-timeout 20 -s || exit 1
        python3 strangers.py &
        while [ ! -e strangers ]; do $PMX restart app -s || exit 2; done
        wait; $PMX kill -s; cat strangers";
    for way in WAYS {
        let home = Home::new();
        home.file("strangers.py", strangers);
        home.file("app.sh", "#!/bin/sh\n(setsid sleep 1000 &) &\nsleep 1001 &\nexec sleep 1002\n");
        let mut command = Command::new("unshare");
        command.args(["-mpf", "--mount-proc", "--kill-child", "sh", "-c", script]);
        command.env("PMX", env!("CARGO_BIN_EXE_pmx")).env("PMX_HOME", home.path()).env(SWITCH, way);
        command.current_dir(home.dir()).env_remove("NODE_OPTIONS");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let ran = finish(command.spawn().unwrap());
        if ran.code == 77 {
            return eprintln!("\n!!! SKIPPED: pid_max is the machine's; reuse of pids is NOT tested\n");
        }
        assert_eq!((ran.code, ran.out.as_str()), (0, "0"), "{way}: {ran:?}");
    }
}

/// To make a group takes the kernel long, so there is one for the next child already.
#[test]
fn a_group_waits_for_the_next_child_and_none_piles_up() {
    if !has_groups() {
        return;
    }
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-i", "2", "--min-uptime", "1"]).ok();
    let (mut last, other) = (home.pid(0), home.pid(1));
    let ours = directory_of(&groups(last)[0]).unwrap().parent().unwrap().to_path_buf();
    let names = || {
        let entries = fs::read_dir(&ours).into_iter().flatten().flatten();
        let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        entries.filter(is_group).map(|entry| entry.path()).collect::<BTreeSet<PathBuf>>()
    };
    for round in 0..3 {
        let mut waiting = names();
        for pid in [last, other] {
            assert!(waiting.remove(&ours.join(groups(pid)[0].file_name().unwrap())), "{waiting:?}");
        }
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        signal(last, libc::SIGKILL);
        last = wait_for("another one", || Some(home.pid(0)).filter(|pid| *pid > 0 && *pid != last));
        assert_eq!(groups(last)[0].file_name(), waiting.pop_first().unwrap().file_name(), "round {round}");
        if round == 1 {
            // Of the group that waits only its name tells.
            signal(home.daemon_pid().unwrap(), libc::SIGKILL);
        }
        wait_until("the group of the last one to go", || home.list().len() == 2 && names().len() == 3);
    }
    home.pmx(&["delete", "all"]).ok();
    assert_eq!(names(), BTreeSet::new());
}

#[test]
fn p16_a_grandchild_that_is_left_to_itself_keeps_the_pipe_and_holds_nothing_up() {
    for way in WAYS {
        let home = Home::contained(way);
        // It leaves the group, so that nothing but the pipe connects it with the app.
        home.file(
            "app.sh",
            "#!/bin/sh\n[ -e first ] && exec sleep 1000\ntouch first\n\
             setsid sh -c 'echo $$ > late; n=0; while [ ! -e go ] && [ $n -lt 2000 ]; do sleep 0.02; n=$((n+1)); done; echo late' &\n\
             while [ ! -s late ]; do sleep 0.02; done\nexit 1\n",
        );
        declare(&home, &json!({"name": "app", "script": "./app.sh", "treekill": false}));
        wait_until("the restart", || {
            home.process(0)["pm2_env"]["restart_time"] == 1 && home.status(0) == "online"
        });
        let late = wait_for("its pid", || pids(&home, "late").pop());
        let group = groups(late);
        assert!(is_alive(late), "{way}");
        assert_eq!(home.log("app-out-0.log"), "");
        home.file("go", "");
        wait_until("its late line", || home.log("app-out-0.log") == "late\n");
        wait_until("its end", || !is_alive(late));
        // Its group goes with the next one that is over.
        home.pmx(&["stop", "app"]).ok();
        assert!(!group.iter().any(|group| find_group(group)), "{way}: {group:?}");
    }
}

#[test]
fn p05_npm_start_is_one_app_whose_memory_is_the_trees_and_one_stop_leaves_nothing() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file(
            "package.json",
            r#"{"name": "site", "scripts": {"start": "sh -c 'echo first && node server.js; :'"}}"#,
        );
        home.file(
            "server.js",
            "const {fork} = require('child_process');
             if (process.argv[2]) { setInterval(() => {}, 1000); global.b = Buffer.alloc(40 << 20, 1); process.send('up'); }
             else { for (const n of [1, 2]) fork(__filename, ['worker']).on('message', () => console.log('up')); }\n",
        );
        let path = format!("{}:{}", node(20).parent().unwrap().display(), std::env::var("PATH").unwrap());
        let env = [("PATH", path.as_str()), ("npm_config_update_notifier", "false")];
        home.pmx_with(&env, &["start", "npm", "-n", "app", "--", "start"]).ok();
        wait_until("its workers", || home.log("app-out-0.log").matches("up\n").count() == 2);
        let all = wait_for("its family", || Some(family(&home)).filter(|all| all.len() >= 4));
        // The leader alone has no such memory.
        let memory = home.process(0)["monit"]["memory"].as_u64().unwrap() >> 10;
        let sum: u64 = all.iter().map(|pid| probe::rss(*pid)).sum();
        assert!(memory > 80 << 10 && memory * 10 > sum * 8 && memory * 8 < sum * 10, "{way}: {memory} {sum}");
        let ran = home.pmx(&["describe", "app", "--json"]).ok();
        let detail = serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone();
        assert_eq!(detail["processes"], all.len(), "{way}");
        assert!(detail["threads"].as_u64().unwrap() > all.len() as u64, "{way}");
        home.pmx(&["stop", "app"]).ok();
        let survivors: Vec<i32> = all.into_iter().filter(|pid| is_alive(*pid)).collect();
        assert!(survivors.is_empty(), "{way}: {survivors:?}");
    }
}

#[test]
fn the_processor_time_of_all_counts() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", "#!/bin/sh\nsetsid sh -c 'while :; do :; done' &\nexec sleep 1000\n");
        home.pmx(&["start", "app.sh"]).ok();
        wait_until("it to be seen", || home.process(0)["monit"]["cpu"].as_f64().unwrap() >= 5.0);
        home.pmx(&["stop", "app"]).ok();
    }
}

#[test]
fn who_is_in_a_group_that_an_app_made_itself_counts_and_ends_with_it() {
    if !has_groups() {
        return;
    }
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nsetsid sleep 1000 &\necho $! >> pids\nexec sleep 1001\n");
    home.pmx(&["start", "app.sh"]).ok();
    wait_until("its child", || pids(&home, "pids").len() == 1);
    let child = pids(&home, "pids")[0];
    let processes = || detail(&home)["processes"].as_u64().unwrap();
    wait_until("both to be seen", || processes() == 2);
    let Some(group) = groups(child).iter().find_map(|group| directory_of(group)) else {
        eprintln!("\n!!! SKIPPED: pmx can make no control groups here; groups below them are NOT tested\n");
        return;
    };
    fs::create_dir(group.join("inner")).unwrap();
    fs::write(group.join("inner/cgroup.procs"), child.to_string()).unwrap();
    assert_eq!(processes(), 2);
    home.pmx(&["stop", "app"]).ok();
    assert!(!is_alive(child));
    wait_until("its groups to be removed", || !group.exists());
}

#[test]
fn r01_the_next_daemon_knows_what_a_child_brought_about() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", ESCAPES);
        home.pmx(&["start", "app.sh", "--kill-timeout", "300"]).ok();
        let left = wait_for("all of it", || Some(pids(&home, "pids")).filter(|pids| pids.len() == 4));
        let daemon = home.daemon_pid().unwrap();
        signal(daemon, libc::SIGKILL);
        wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon && is_alive(pid)));
        assert!(left.iter().all(|pid| is_alive(*pid)), "{way}: nothing happened to it");
        home.pmx(&["stop", "app"]).ok();
        assert!(!left.into_iter().any(is_alive), "{way}");
        assert!(family(&home).is_empty(), "{way}");
    }
}

#[test]
fn r04_what_is_on_no_record_is_left_alone_and_named() {
    if !has_groups() {
        return;
    }
    let home = Home::contained("on");
    home.file("app.sh", ESCAPES);
    home.pmx(&["start", "app.sh"]).ok();
    let left = wait_for("all of it", || Some(pids(&home, "pids")).filter(|pids| pids.len() == 4));
    let first = home.pid(0);
    let group = groups(first);
    let daemon = home.daemon_pid().unwrap();
    let keeper: i32 = probe::stat(daemon).unwrap()[1].parse().unwrap();
    // Both at once, and what they had written down with them.
    signal(keeper, libc::SIGSTOP);
    signal(daemon, libc::SIGKILL);
    signal(keeper, libc::SIGKILL);
    wait_until("their end", || !is_alive(daemon) && !is_alive(keeper));
    fs::remove_dir_all(home.state()).unwrap();
    assert!(left.iter().all(|pid| is_alive(*pid)));
    home.pmx(&["list"]).ok();
    let log = fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert!(left.iter().all(|pid| is_alive(*pid)), "{log}");
    assert!(log.contains("processes of an earlier daemon are on no record and left alone"), "{log}");
    assert!(left.iter().all(|pid| log.contains(&pid.to_string())), "{log}");
    // The group goes with the last of them.
    left.iter().chain([&first]).for_each(|pid| signal(*pid, libc::SIGKILL));
    home.pmx(&["kill"]).ok();
    home.pmx(&["list"]).ok();
    wait_until("the end of their group", || !group.iter().any(|group| find_group(group)));
}

/// What a probe of the app itself said about the process.
fn status(home: &Home) -> String {
    wait_until("its report", || home.dir().join("done").exists());
    fs::read_to_string(home.dir().join("status")).unwrap()
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

const REPORT: &str = "#!/bin/sh
cat /proc/self/status > status; cat /proc/self/limits > limits; umask > umask
cat /proc/self/oom_score_adj > oom; cut -d' ' -f19 /proc/self/stat > nice
touch done; exec sleep 1000
";

fn everybody_may(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).unwrap();
}

#[test]
fn p11_a_child_is_held_to_its_limits() {
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", REPORT);
        let limits = json!({
            "nofile": "512:1024", "nproc": "4000:5000", "core": "1M:unlimited", "fsize": "8M", "stack": "4M:8M", "as": "2G",
            "memlock": 65536, "cpu_time": "50:60", "data": "1G", "msgqueue": 4096, "sigpending": 77,
            "nice": 7, "oom_score_adj": 300,
        });
        // Only root may set a hard limit above its own.
        let limits =
            if is_root() { limits } else { json!({"nofile": "512:1024", "nice": 7, "oom_score_adj": 300}) };
        declare(&home, &json!({"name": "app", "script": "./app.sh", "limits": limits, "umask": "0137"}));
        status(&home);
        let read = |file: &str| fs::read_to_string(home.dir().join(file)).unwrap();
        let limit = |name: &str| {
            let text = read("limits");
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string();
            line.split_whitespace().take(2).collect::<Vec<_>>().join(":")
        };
        assert_eq!(limit("Max open files"), "512:1024");
        assert_eq!((read("nice").trim(), read("oom").trim(), read("umask").trim()), ("7", "300", "0137"));
        if is_root() {
            for (name, expected) in [
                ("Max processes", "4000:5000"),
                ("Max core file size", "1048576:unlimited"),
                ("Max file size", "8388608:8388608"),
                ("Max stack size", "4194304:8388608"),
                ("Max address space", "2147483648:2147483648"),
                ("Max locked memory", "65536:65536"),
                ("Max cpu time", "50:60"),
                ("Max data size", "1073741824:1073741824"),
                ("Max msgqueue size", "4096:4096"),
                ("Max pending signals", "77:77"),
            ] {
                assert_eq!(limit(name), expected, "{name}");
            }
        }
        let page = home.pmx(&["describe", "app"]).ok().out;
        assert!(page.contains("limit of nofile") && page.contains("512:1024"), "{page}");
        // What the kernel refuses is said, and nothing runs.
        if !is_root() {
            let beyond = json!({"name": "beyond", "script": "./app.sh", "limits": {"nofile": "unlimited"}});
            home.file("beyond.json", &beyond.to_string());
            let ran = home.pmx(&["start", "beyond.json"]).failed();
            assert!(ran.err.contains("set a limit of a resource: operation not permitted"), "{ran:?}");
        }
    }
}

#[test]
fn p11_another_user_gets_no_new_privileges_and_only_the_capabilities_that_are_declared() {
    if !is_root() {
        return eprintln!("\n!!! SKIPPED: only root can become somebody else\n");
    }
    for (declared, nnp, capabilities) in [
        (json!({}), "1", "0000000000000000"),
        (json!({"no_new_privs": false}), "0", "0000000000000000"),
        (json!({"capabilities": ["net_bind_service", "CAP_CHOWN"]}), "1", "0000000000000401"),
    ] {
        let home = Home::new();
        everybody_may(home.dir());
        everybody_may(&home.file("app.sh", REPORT));
        let mut app = json!({"name": "app", "script": "./app.sh", "user": "nobody"});
        app.as_object_mut().unwrap().extend(declared.as_object().unwrap().clone());
        declare(&home, &app);
        let text = status(&home);
        assert_eq!(field(&text, "NoNewPrivs"), nnp, "{app}");
        assert_eq!(field(&text, "Uid"), "65534 65534 65534 65534", "{app}");
        assert_eq!(field(&text, "CapEff"), capabilities, "{app}");
        assert_eq!(field(&text, "CapPrm"), capabilities, "{app}");
        assert_eq!(field(&text, "CapAmb"), capabilities, "{app}");
        if capabilities.ends_with("401") {
            assert_eq!(field(&text, "CapBnd"), capabilities, "{app}: nothing gives it more");
        }
    }
    // Root without what it does not need, and by no program back to it.
    let home = Home::new();
    home.file("app.sh", REPORT);
    let app = json!({"name": "app", "script": "./app.sh", "capabilities": ["chown"], "no_new_privs": true});
    declare(&home, &app);
    let text = status(&home);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&text, set), "0000000000000001", "{set}");
    }
    assert_eq!(field(&text, "NoNewPrivs"), "1");
    let page = home.pmx(&["describe", "app"]).ok().out;
    assert!(page.contains("capabilities") && page.contains("chown"), "{page}");
}

#[test]
fn a_port_below_1024_without_root() {
    if !is_root() {
        return eprintln!("\n!!! SKIPPED: only root can become somebody else\n");
    }
    let home = Home::new();
    everybody_may(home.dir());
    let script = "import socket, time\ns = socket.socket()\ntry:\n    s.bind(('127.0.0.83', 83))\n    print('bound', flush=True)\n\
                  except PermissionError:\n    print('refused', flush=True)\ntime.sleep(1000)\n";
    everybody_may(&home.file("app.py", script));
    for (file, name, capabilities, said) in [
        ("a.json", "with", json!(["net_bind_service"]), "bound\n"),
        ("b.json", "without", json!([]), "refused\n"),
    ] {
        let app = json!({"name": name, "script": "./app.py", "interpreter": "/usr/bin/python3", "user": "nobody",
                         "capabilities": capabilities, "out_file": format!("{name}.log")});
        home.file(file, &app.to_string());
        home.pmx(&["start", file]).ok();
        let log = home.dir().join(format!("{name}.log"));
        wait_until(said, || fs::read_to_string(&log).is_ok_and(|text| text == said));
    }
}

/// Whether a controller of either version can be had here.
fn controls(controller: &str) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let v1 = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        words[2] == "cgroup" && words[3].split(',').any(|option| option == controller)
    };
    has_groups() && mounts.lines().any(v1)
}

#[test]
fn limits_of_all_together_hold_or_the_start_is_refused() {
    for (name, limits, script, ends) in [
        (
            "memory",
            json!({"memory": "64M"}),
            // A child of it takes more than that; the kernel ends it.
            "#!/bin/sh\npython3 -c 'b = bytearray(200 << 20)'; echo \"ended $?\"\nexec sleep 1000\n",
            "ended 137\n",
        ),
        (
            "pids",
            json!({"pids": 4}),
            "#!/bin/sh\nfor n in 1 2 3 4 5 6 7 8; do sleep 1000 & done 2>/dev/null\necho never\n",
            "",
        ),
        (
            "cpu",
            json!({"cpu": "20%"}),
            "#!/bin/sh\nuntil [ -e enough ]; do :; done & until [ -e enough ]; do :; done & wait\n",
            "",
        ),
    ] {
        let home = Home::contained("off");
        home.file("app.sh", script);
        home.file("app.json", &json!({"name": "app", "script": "./app.sh", "limits": limits}).to_string());
        let ran = home.pmx(&["start", "app.json"]).failed();
        let sentence =
            format!("limit the {name} of its processes: no {name} controller of control groups is ours");
        assert!(ran.err.contains(&sentence), "{ran:?}");
        assert!(family(&home).is_empty(), "nothing runs unlimited");
        drop(home);
        if !controls(name) {
            eprintln!("\n!!! SKIPPED: no {name} controller; its limit is NOT tested\n");
            continue;
        }
        let home = Home::contained("on");
        home.file("app.sh", script);
        home.file("app.json", &json!({"name": "app", "script": "./app.sh", "limits": limits}).to_string());
        home.pmx(&["start", "app.json"]).ok();
        match name {
            "memory" => wait_until("its end", || home.log("app-out-0.log") == ends),
            "pids" => {
                wait_until("all that may be", || family(&home).len() == 4);
                std::thread::sleep(Duration::from_millis(100));
                assert!(family(&home).len() <= 4);
            }
            _ => {
                let used = |home: &Home| -> u64 {
                    family(home).into_iter().filter_map(pmx::sys::proc::stat).map(|stat| stat.cpu_ms).sum()
                };
                wait_until("some time", || used(&home) >= 50);
                let (began, before) = (Instant::now(), used(&home));
                wait_until("more time", || used(&home) >= before + 200);
                let share = 200.0 / began.elapsed().as_millis() as f64;
                // Ticks are 10 ms, and a period of 100 ms may begin with what it may use.
                assert!(share < 0.35, "{share}");
            }
        }
        let held = groups(home.pid(0));
        assert!(held.len() >= 2 || controls("memory"), "{held:?}");
        home.pmx(&["delete", "app"]).ok();
        assert!(family(&home).is_empty());
        assert!(!held.iter().any(|group| find_group(group)), "{held:?}");
    }
}

#[test]
fn the_memory_above_which_it_is_slowed_down() {
    let app = json!({"name": "app", "script": "./app.sh", "limits": {"memory_high": "64M"}});
    for way in WAYS {
        let home = Home::contained(way);
        home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
        home.file("app.json", &app.to_string());
        if way == "off" {
            let ran = home.pmx(&["start", "app.json"]).failed();
            assert!(ran.err.contains("limit the memory of its processes"), "{ran:?}");
            continue;
        }
        if !controls("memory") {
            eprintln!("\n!!! SKIPPED: no memory controller; its limit is NOT tested\n");
            continue;
        }
        home.pmx(&["start", "app.json"]).ok();
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let points = mounts.lines().map(|line| line.split(' ').nth(1).unwrap());
        let files = ["memory.high", "memory.soft_limit_in_bytes"];
        let written = points
            .flat_map(|point| {
                groups(home.pid(0))
                    .into_iter()
                    .map(move |group| Path::new(point).join(group.strip_prefix("/").unwrap()))
            })
            .flat_map(|group| files.map(|file| fs::read_to_string(group.join(file)).unwrap_or_default()));
        assert!(written.into_iter().any(|text| text.trim() == (64 << 20).to_string()));
    }
}
