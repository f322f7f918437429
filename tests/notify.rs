//! What a service of systemd's `Type=notify` says by sd_notify(3), and who may say it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::probe::{self, is_root};
use crate::support::{Home, WAYS, finish, is_alive, signal, wait_for, wait_until};

/// A service that says what it is told to.
struct Service {
    home: Home,
    commands: PathBuf,
}

impl Service {
    /// Declared with these fields, not started.
    fn new(fields: Value) -> Service {
        let home = Home::new();
        let commands = home.file("commands", "");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/notify.py");
        let mut app = json!({
            "name": "app", "script": script, "interpreter": "python3", "args": [commands], "listen_timeout": 20_000,
            "kill_timeout": 20_000, "min_uptime": 0,
        });
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        home.file("app.json", &app.to_string());
        Service { home, commands }
    }

    /// Started, and ready if that is declared.
    #[track_caller]
    fn start(fields: Value) -> Service {
        let service = Service::new(fields);
        service.home.pmx(&["start", "app.json"]).ok();
        service
    }

    /// Has it do something.
    fn tell(&self, line: &str) {
        let mut file = OpenOptions::new().append(true).open(&self.commands).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Has it do something, and waits until the daemon has dealt with all that it said.
    #[track_caller]
    fn tell_and_wait(&self, line: &str) {
        let before = self.said("barrier");
        self.tell(line);
        self.tell("barrier");
        wait_until("the barrier", || self.said("barrier") > before);
        assert!(!self.home.log("app-out-0.log").contains("barrier False"));
    }

    /// How many lines of its output begin so.
    fn said(&self, word: &str) -> usize {
        let log = self.home.log("app-out-0.log");
        log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.starts_with(word)).count()
    }

    #[track_caller]
    fn detail(&self) -> Value {
        let ran = self.home.pmx(&["describe", "0", "--json"]).ok();
        serde_json::from_str::<Value>(&ran.out).unwrap()[0].clone()
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/notify")
    }
}

#[test]
fn a_service_is_online_when_it_says_so() {
    let service = Service::new(json!({ "ready": "notify" }));
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    wait_until("it launches", || service.home.daemon_pid().is_some() && !service.home.list().is_empty());
    service.tell_and_wait("say STATUS=half way");
    assert_eq!(service.home.status(0), "launching");
    assert_eq!(service.detail()["says"], "half way");
    service.tell("say STATUS=serving\\nREADY=1");
    finish(start).ok();
    assert_eq!(service.home.status(0), "online");
    let detail = service.detail();
    assert_eq!((&detail["says"], &detail["said"]), (&json!("serving"), &json!("ready")));
    assert!(service.home.pmx(&["describe", "0"]).ok().out.contains("serving"));
}

#[test]
fn a_service_that_does_not_say_so_is_not_called_ready() {
    let service = Service::new(json!({ "ready": "notify", "listen_timeout": 400 }));
    let ran = service.home.pmx(&["start", "app.json"]).failed();
    assert!(ran.err.contains("not ready within 400 ms"), "{ran:?}");
    assert_eq!(service.home.status(0), "launching");
    service.tell_and_wait("say READY=1");
    assert_eq!(service.home.status(0), "online");
}

#[test]
fn more_time_to_start_is_given_to_who_asks() {
    let service = Service::new(json!({ "ready": "notify", "listen_timeout": 4_000 }));
    service.tell("say EXTEND_TIMEOUT_USEC=60000000");
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    wait_until("the launch", || service.home.daemon_pid().is_some() && !service.home.list().is_empty());
    let began = std::time::Instant::now();
    wait_until("its first time is over", || began.elapsed().as_millis() > 5_000);
    service.tell("say READY=1");
    finish(start).ok();
}

#[test]
fn more_time_to_stop_is_given_to_who_asks() {
    let service = Service::start(json!({ "ready": "spawned", "kill_timeout": 700 }));
    // Its stop signal is answered by this, and with nothing else.
    service.tell_and_wait("ignore 60000000");
    let pid = service.home.pid(0);
    let stop = service.home.command(&["stop", "0"]).spawn().unwrap();
    wait_until("it stops", || service.home.status(0) == "stopping");
    let began = std::time::Instant::now();
    wait_until("its first time is over", || began.elapsed().as_millis() > 2_000);
    assert!(is_alive(pid), "killed before its time");
    service.tell("exit 0");
    finish(stop).ok();
    assert_eq!(service.home.process(0)["pm2_env"]["exit_code"], 0);
}

#[test]
fn a_watchdog_that_is_fed_is_content_and_one_that_is_not_bites() {
    let service = Service::start(json!({ "ready": "notify", "watchdog": 3_000 , "args": [] }));
    assert_eq!(service.detail()["watchdog"], 3_000);
    assert_eq!(service.detail()["main_pid"], service.home.pid(0));
    drop(service);

    let service = Service::new(json!({ "ready": "notify", "watchdog": 5_000 }));
    service.tell("say READY=1");
    service.home.pmx(&["start", "app.json"]).ok();
    let pid = service.home.pid(0);
    let began = std::time::Instant::now();
    wait_until("it has lived for longer than its watchdog", || began.elapsed().as_millis() > 6_000);
    assert_eq!(service.home.pid(0), pid, "it feeds its watchdog");
    service.tell("env WATCHDOG_USEC");
    wait_until("its environment", || service.said("env") == 1);
    assert!(service.home.log("app-out-0.log").contains(&format!("env 5000000 {pid}\n")));
    service.tell("hang");
    service.tell("say STATUS=hangs");
    wait_until("another child", || ![0, pid].contains(&service.home.pid(0)));
    let detail = service.detail();
    assert_eq!(detail["exits"][0]["signal"], libc::SIGABRT, "{detail}");
    assert_eq!(detail["by_cause"]["watchdog"], 1, "{detail}");
    assert!(
        detail["last_restart"].as_str().unwrap().contains("watchdog heard nothing for 5000 ms"),
        "{detail}"
    );
}

#[test]
fn a_service_sets_its_watchdog_and_gives_itself_up() {
    let service = Service::start(json!({}));
    let pid = service.home.pid(0);
    service.tell_and_wait("say WATCHDOG_USEC=600000000");
    assert_eq!((service.home.pid(0), &service.detail()["watchdog"]), (pid, &json!(600_000)));
    service.tell_and_wait("say WATCHDOG_USEC=0");
    assert_eq!(service.detail()["watchdog"], Value::Null);
    service.tell("say WATCHDOG=trigger");
    wait_until("another child", || ![0, pid].contains(&service.home.pid(0)));
    let detail = service.detail();
    assert_eq!(detail["by_cause"]["watchdog"], 1, "{detail}");
    assert_eq!(detail["exits"][0]["signal"], libc::SIGABRT, "{detail}");
}

#[test]
fn what_a_service_is_doing_is_shown() {
    let service = Service::start(json!({ "watchdog": 60_000 }));
    let pid = service.home.pid(0);
    service.tell_and_wait("say RELOADING=1\\nMONOTONIC_USEC=1\\nSTATUS=reading");
    let detail = service.detail();
    assert_eq!((&detail["said"], &detail["says"]), (&json!("reloading"), &json!("reading")));
    service.tell_and_wait("say READY=1\\nSTATUS=");
    let detail = service.detail();
    assert_eq!((&detail["said"], &detail["says"]), (&json!("ready"), &Value::Null));
    // A process of its own it may call its main one, and no other.
    service.tell_and_wait(&format!("say MAINPID={}", std::process::id()));
    assert_eq!(service.detail()["main_pid"], Value::Null);
    service.tell_and_wait(&format!("say MAINPID={pid}"));
    assert_eq!(service.detail()["main_pid"], pid);
    service.tell_and_wait("say STOPPING=1\\nERRNO=2\\nEXIT_STATUS=3");
    assert_eq!((service.home.status(0).as_str(), service.home.pid(0)), ("stopping", pid));
    assert_eq!(service.detail()["said"], "stopping");
    let rest = service.home.command(&["stop", "0"]).spawn().unwrap();
    finish(rest).ok();
    assert_eq!(service.home.status(0), "stopped");
}

#[test]
fn a_descendant_speaks_for_its_service() {
    let service = Service::start(json!({ "ready": "notify", "listen_timeout": 20_000, "args": [] }));
    drop(service);
    let service = Service::new(json!({ "ready": "notify" }));
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    service.tell("child READY=1\\nSTATUS=by my child");
    finish(start).ok();
    assert_eq!(service.detail()["says"], "by my child");
}

#[test]
fn c08_what_a_stranger_says_is_ignored() {
    let service = Service::new(json!({ "ready": "notify" }));
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    wait_until("it launches", || service.home.daemon_pid().is_some() && !service.home.list().is_empty());
    wait_until("the socket", || service.socket().exists());
    let stranger = UnixDatagram::unbound().unwrap();
    for message in ["READY=1", "READY=1\nSTATUS=a lie", "STOPPING=1", "WATCHDOG=trigger", ""] {
        stranger.send_to(message.as_bytes(), service.socket()).unwrap();
    }
    // Our own child is none of its.
    let lie = "import os,socket;s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.sendto(b'READY=1',os.environ['S'])";
    let child = Command::new("python3").args(["-c", lie]).env("S", service.socket()).status().unwrap();
    assert!(child.success());
    service.tell_and_wait("say STATUS=the truth");
    assert_eq!(service.home.status(0), "launching");
    let detail = service.detail();
    assert_eq!((&detail["says"], &detail["said"]), (&json!("the truth"), &Value::Null));
    service.tell("say READY=1");
    finish(start).ok();
    let log = std::fs::read_to_string(service.home.path().join("pmx.log")).unwrap();
    assert!(log.contains(&format!("process {} of user", std::process::id())), "{log}");
    assert!(log.contains("belongs to no app: ignored (4 so far)"), "{log}");
}

#[test]
fn c08_what_makes_no_sense_harms_nothing() {
    let service = Service::start(json!({}));
    let (pid, daemon) = (service.home.pid(0), service.home.daemon_pid().unwrap());
    let fds = || std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
    service.tell_and_wait("say STATUS=begins");
    let before = fds();
    for line in [
        "bytes ",
        "bytes 00",
        "bytes ff00ff0a3d3d0a",
        "bytes 52454144593d310053544154",
        "long 5000",
        "long 60000",
        "say =\\n==\\nREADY\\nREADY=2\\nWATCHDOG_USEC=x\\nEXTEND_TIMEOUT_USEC=-1\\nMAINPID=0\\nMAINPID=x",
        "say WATCHDOG_USEC=18446744073709551615\\nEXTEND_TIMEOUT_USEC=18446744073709551615",
        "say BARRIER=1",
        "fds 200",
    ] {
        service.tell_and_wait(line);
    }
    assert_eq!(service.detail()["says"], "fds", "it is still heard");
    assert_eq!((service.home.pid(0), service.home.daemon_pid()), (pid, Some(daemon)));
    wait_until("what rode along is closed", || fds() == before);
}

#[test]
fn c08_a_flood_of_a_stranger_keeps_nobody_waiting() {
    let service = Service::start(json!({}));
    let socket = service.socket();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = stop.clone();
    let flood = std::thread::spawn(move || {
        let stranger = UnixDatagram::unbound().unwrap();
        let mut sent = 0_u64;
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            sent += u64::from(stranger.send_to(b"READY=1", &socket).is_ok());
        }
        sent
    });
    for _ in 0..20 {
        probe::assert_prompt(&service.home);
    }
    service.tell_and_wait("say STATUS=heard");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(flood.join().unwrap() > 100);
    assert_eq!(service.detail()["says"], "heard");
}

#[test]
fn what_is_said_while_the_daemon_is_dead_is_heard_by_the_next() {
    let service = Service::new(json!({ "ready": "notify" }));
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    wait_until("it launches", || service.home.daemon_pid().is_some() && !service.home.list().is_empty());
    service.tell_and_wait("say STATUS=before");
    let daemon = service.home.daemon_pid().unwrap();
    let keeper = probe::keeper_pid(&service.home).unwrap();
    signal(keeper, libc::SIGSTOP);
    signal(daemon, libc::SIGKILL);
    service.tell("say READY=1\\nSTATUS=while you were away");
    // It goes on when it has said that: its count of commands tells.
    service.tell("nothing");
    let count = || std::fs::read_to_string(service.commands.with_extension("done")).unwrap_or_default();
    let all = std::fs::read_to_string(&service.commands).unwrap().lines().count().to_string();
    wait_until("it has said that", || count() == all);
    signal(keeper, libc::SIGCONT);
    finish(start).ok();
    wait_until("the next one", || service.home.daemon_pid().is_some_and(|pid| pid != daemon));
    assert_eq!(service.home.status(0), "online");
    assert_eq!(service.detail()["says"], "while you were away");
    // And the words that the last one had heard survive an update.
    service.home.pmx(&["update"]).ok();
    assert_eq!(service.detail()["says"], "while you were away");
    service.tell_and_wait("say STATUS=after");
    assert_eq!(service.detail()["says"], "after");
}

#[test]
fn a_daemon_that_was_killed_with_its_keeper_listens_where_it_did() {
    let service = Service::start(json!({}));
    service.tell_and_wait("say STATUS=before");
    probe::kill_both(&service.home);
    let pid = wait_for("the child again", || Some(service.home.pid(0)).filter(|pid| *pid != 0));
    service.tell_and_wait("say STATUS=after");
    assert_eq!((service.home.pid(0), &service.detail()["says"]), (pid, &json!("after")));
}

#[test]
fn a_service_of_another_user_is_heard_by_a_way_of_its_own() {
    if !is_root() {
        return;
    }
    let service = Service::new(json!({ "ready": "notify", "user": "nobody", "cwd": "/" }));
    let home = service.home.path();
    for path in [service.home.dir().to_path_buf(), service.commands.clone()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    }
    let start = service.home.command(&["start", "app.json"]).spawn().unwrap();
    service.tell("env NOTIFY_SOCKET");
    service.tell("say STATUS=from nobody\\nREADY=1");
    finish(start).ok();
    assert_eq!(service.detail()["says"], "from nobody");
    assert!(!home.join("run/notify").exists(), "nobody needs it");
    wait_until("its environment", || service.said("env") == 1);
    let log = service.home.log("app-out-0.log");
    let socket = log.split(' ').nth(1).unwrap().to_string();
    assert!(socket.starts_with("/run/pmx/sockets/"), "{socket}");
    // Everybody can reach that; strangers of any user are ignored.
    UnixDatagram::unbound().unwrap().send_to(b"STATUS=from root", &socket).unwrap();
    service.tell_and_wait("say READY=1");
    assert_eq!(service.detail()["says"], "from nobody");
    drop(service);
    assert!(!std::path::Path::new(&socket).exists());
}

/// The clients that people use, where they are installed (`.ci/run` installs them).
#[test]
fn the_clients_that_people_use_are_understood() {
    let clients = [
        ("systemd", "from systemd import daemon\ndaemon.notify('READY=1\\nSTATUS=by systemd')"),
        (
            "sdnotify",
            "import sdnotify\nsdnotify.SystemdNotifier(debug=True).notify('READY=1\\nSTATUS=by sdnotify')",
        ),
    ];
    for (module, said) in clients {
        let home = Home::new();
        // Where apt installs them, whatever else is called python3.
        let python = "/usr/bin/python3";
        let there = Command::new(python).args(["-c", &format!("import {module}")]).output();
        if !there.is_ok_and(|there| there.status.success()) {
            eprintln!("{python} has no {module}: not tried");
            continue;
        }
        home.file("app.py", &format!("import time\n{said}\ntime.sleep(1000)\n"));
        let app = json!({ "name": "app", "script": "app.py", "interpreter": python, "ready": "notify",
            "listen_timeout": 20_000 });
        home.file("app.json", &app.to_string());
        home.pmx(&["start", "app.json"]).ok();
        let detail: Value = serde_json::from_str(&home.pmx(&["describe", "0", "--json"]).ok().out).unwrap();
        assert_eq!(detail[0]["says"], format!("by {module}"));
    }
}

#[test]
fn systemd_notify_is_understood() {
    let service = Home::new();
    service.file("app.sh", "#!/bin/sh\nsystemd-notify --ready --status='by a shell' && exec sleep 1000\n");
    let app = json!({ "name": "app", "script": "app.sh", "ready": "notify", "listen_timeout": 20_000 });
    service.file("app.json", &app.to_string());
    service.pmx(&["start", "app.json"]).ok();
    let detail: Value = serde_json::from_str(&service.pmx(&["describe", "0", "--json"]).ok().out).unwrap();
    assert_eq!(detail[0]["says"], "by a shell");
}

#[test]
fn a_child_does_not_get_the_socket_of_whoever_started_us() {
    let service = Service::new(json!({}));
    let env = [("NOTIFY_SOCKET", "/run/somebody"), ("WATCHDOG_USEC", "1"), ("WATCHDOG_PID", "1")];
    service.home.pmx_with(&env, &["start", "app.json"]).ok();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        service.tell(&format!("env {name}"));
    }
    wait_until("its environment", || service.said("env") == 3);
    let log = service.home.log("app-out-0.log");
    let values: Vec<&str> = log.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(values, [service.socket().to_str().unwrap(), "None", "None"]);
}

#[test]
fn a_service_that_only_lives_is_ready_after_its_min_uptime() {
    let service = Service::new(json!({ "ready": "uptime", "min_uptime": 1_500 }));
    let began = std::time::Instant::now();
    service.home.pmx(&["start", "app.json"]).ok();
    assert!(began.elapsed().as_millis() >= 1_500, "{:?}", began.elapsed());
    assert_eq!(service.home.status(0), "online");
}

/// What a child says at its end may be put on record before the end itself is, and the daemon may die between.
#[test]
fn r05_an_exit_is_known_to_the_next_daemon_whatever_was_recorded_before_it() {
    if !is_root() {
        return eprintln!(
            "\n!!! SKIPPED: only root can have a longer queue; an exit that is known is NOT tested\n"
        );
    }
    let home = Home::new();
    let app = json!({
        "name": "app", "script": "./app.py", "interpreter": "python3", "ready": "notify", "autorestart": false,
        "env": {"PYTHONUNBUFFERED": "1"},
    });
    home.file("app.json", &app.to_string());
    // More than are heard at a time.
    home.file(
        "app.py",
        "import os, socket, time\n\
         sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         sock.connect(os.environ['NOTIFY_SOCKET'])\n\
         sock.send(b'READY=1')\n\
         while not os.path.exists('go'): time.sleep(0.01)\n\
         for n in range(100): sock.send(b'STATUS=%d' % n)\n\
         os._exit(7)\n",
    );
    // The queue of a socket is short by default; how long it is, is a network namespace's.
    let mut start = home.shell(
        "exec unshare -n sh -c 'echo 512 > /proc/sys/net/unix/max_dgram_qlen; exec \"$PMX\" start app.json'",
    );
    finish(start.env("PMX_FAILPOINT", "last-words").spawn().unwrap()).ok();
    let (pid, daemon, keeper) = (home.pid(0), home.daemon_pid().unwrap(), probe::keeper_pid(&home).unwrap());
    // The keeper first: it has a stopped daemon go on.
    signal(keeper, libc::SIGSTOP);
    signal(daemon, libc::SIGSTOP);
    home.file("go", "");
    wait_until("its end", || probe::stat(pid).is_some_and(|stat| stat[0] == "Z"));
    signal(daemon, libc::SIGCONT);
    signal(keeper, libc::SIGCONT);
    wait_until("its end to be known", || home.status(0) == "stopped");
    let log = std::fs::read_to_string(home.path().join("pmx.log")).unwrap();
    assert!(log.contains("failpoint last-words: aborting"), "{log}");
    assert!(log.contains("app(0) Exited: exit code 7"), "{log}");
}

/// As daemons of old do: what was started forks, says who goes on, and ends.
#[test]
fn who_goes_on_in_the_background_is_kept_alive() {
    for way in WAYS {
        let home = Home::contained(way);
        let app = json!({"name": "app", "script": "./app.py", "interpreter": "python3", "ready": "notify", "min_uptime": 0});
        home.file("app.json", &app.to_string());
        home.file(
            "app.py",
            "import os, socket, time\n\
             sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
             sock.connect(os.environ['NOTIFY_SOCKET'])\n\
             reader, writer = os.pipe()\n\
             if os.fork():\n    \
                 os.close(writer)\n    \
                 main = int(os.read(reader, 100))\n    \
                 sock.send(b'READY=1\\nMAINPID=%d' % main)\n    \
                 os._exit(3)\n\
             os.setsid()\n\
             if os.fork(): os._exit(0)\n\
             os.write(writer, b'%d' % os.getpid())\n\
             os.close(writer)\n\
             os.write(1, b'main %d\\n' % os.getpid())\n\
             while True: time.sleep(1000)\n",
        );
        home.pmx(&["start", "app.json"]).ok();
        let said = || -> Vec<i32> {
            let log = home.log("app-out-0.log");
            log.lines().map(|line| line.strip_prefix("main ").unwrap().parse().unwrap()).collect()
        };
        let is_followed = |starts: usize| {
            wait_until("the one that goes on to be followed", || {
                said().len() == starts && home.pid(0) == *said().last().unwrap()
            });
            assert_eq!(home.status(0), "online");
        };
        is_followed(1);
        assert_eq!(home.process(0)["pm2_env"]["restart_time"], 0);
        // The next daemon, and the next keeper, know it too.
        for round in 0..2 {
            let (daemon, keeper) = (home.daemon_pid().unwrap(), probe::keeper_pid(&home).unwrap());
            signal(if round == 0 { daemon } else { keeper }, libc::SIGKILL);
            wait_until("another daemon", || home.daemon_pid().is_some_and(|pid| pid != daemon));
            is_followed(1);
        }
        home.pmx(&["update"]).ok();
        is_followed(1);
        signal(said()[0], libc::SIGKILL);
        is_followed(2);
        let detail = home.pmx(&["describe", "app"]).ok().out;
        assert!(detail.contains("SIGKILL"), "{detail}");
        home.pmx(&["stop", "app"]).ok();
        assert!(said().iter().all(|pid| !is_alive(*pid)));
        assert_eq!(home.status(0), "stopped");
    }
}
