//! pmx as the first process of a container: each test has a pid namespace of its own.

use std::time::{Duration, Instant};

use crate::support::container::{Container, children_of};
use crate::support::{DEADLINE, Home, Ran, free_port, probe, wait_for, wait_until};

/// Runs a container to its end.
#[track_caller]
fn run(home: &Home, words: &[&str]) -> Ran {
    Container::run(home, words).end()
}

/// The lines of the apps, without those of pmx.
fn words(ran: &Ran) -> Vec<&str> {
    ran.out.split_whitespace().collect()
}

/// Kills the daemon and waits for the next one.
#[track_caller]
fn kill_daemon(container: &Container) {
    let daemon = container.daemon();
    crate::support::signal(daemon, libc::SIGKILL);
    wait_until("another daemon", || !crate::support::is_alive(daemon) && container.daemon() != daemon);
}

#[test]
fn n11_the_daemon_dies_and_the_container_goes_on_to_the_same_end() {
    let home = Home::new();
    let line = "trap 'exit 3' USR1; echo up; while :; do sleep 0.05; done";
    // Straight, by way of pmx, and as one of several; with a control socket and without.
    for more in [&[][..], &["--json"], &["trap '' USR1; sleep 1000", "--exit-on", "any", "--no-autorestart"]]
    {
        let mut container = Container::run(&home, &[&[line][..], more].concat());
        let mut lines = container.out();
        assert!(lines.next().unwrap().unwrap().contains("up"));
        container.serves(&home);
        let pids = |home: &Home| home.list().iter().map(|p| p["pid"].clone()).collect::<Vec<_>>();
        let before = pids(&home);
        for _ in 0..3 {
            kill_daemon(&container);
            wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
            assert_eq!(pids(&home), before);
        }
        // It comes to the keeper, and is handed on.
        container.signal(libc::SIGUSR1);
        let ran = container.end();
        assert_eq!(ran.code, 3, "{more:?}: {ran:?}");
    }
}

#[test]
fn n11_nothing_can_be_written_and_the_daemon_dies() {
    let home = Home::new();
    let quiet = "for d in /run /dev/shm; do mount -t tmpfs -o ro none $d; done; \
        mount --bind / / && mount -o remount,bind,ro / && exec env -i PATH=/usr/bin:/bin setpriv --reuid 12345 --regid 54321 --clear-groups \"$@\"";
    let words = ["--", "sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.05; done"];
    let bin = home.dir().join("pmx");
    // Not by us: a child of another test would hold it open for writing, and it could not be executed.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_pmx")).arg(&bin).status();
    assert!(copied.unwrap().success());
    std::process::Command::new("chmod")
        .args(["755", "."])
        .arg(&bin)
        .current_dir(home.dir())
        .status()
        .unwrap();
    let script = format!("shift; set -- ./pmx \"$@\"; {quiet}");
    let mut container = Container::of(Container::command(&home, &script, &words));
    assert_eq!(container.out().next().unwrap().unwrap(), "up");
    // The app may be faster than the daemon: one that is on no record yet would be ended and started again.
    wait_until("the daemon to sleep", || probe::stat(container.daemon()).is_some_and(|stat| stat[0] == "S"));
    kill_daemon(&container);
    container.signal(libc::SIGUSR1);
    let ran = container.end();
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("no place for a control socket"), "{ran:?}");
}

#[test]
fn n11_the_daemon_dies_on_the_way_to_the_end_which_comes_in_time() {
    let home = Home::new();
    for stubborn in [false, true] {
        let trap = if stubborn { "trap '' TERM" } else { "trap 'sleep 1; exit 7' TERM" };
        let line = format!("{trap}; echo up; while :; do sleep 0.05; done");
        for delay in ["0", "700"] {
            let words = [&line[..], "--grace", "3s", "--drain-delay", delay];
            let mut container = Container::run(&home, &words);
            assert_eq!(container.out().next().unwrap().unwrap(), "up");
            container.serves(&home);
            let since = Instant::now();
            container.signal(libc::SIGTERM);
            wait_until("it is stopping", || home.pmx(&["healthcheck"]).code == 1);
            for _ in 0..3 {
                kill_daemon(&container);
            }
            let ran = container.end();
            let took = since.elapsed().as_millis();
            assert_eq!(ran.code, if stubborn { 137 } else { 7 }, "{ran:?}");
            let (least, most) = if stubborn { (1_900, 2_990) } else { (1_000, 2_990) };
            assert!((least..most).contains(&took), "{stubborn} {delay}: {took}");
        }
    }
}

#[test]
fn n11_a_signal_that_comes_while_there_is_no_daemon_is_heeded_once() {
    let home = Home::new();
    let line = "n=0; trap 'exit 3' USR2; trap 'n=$((n + 1)); echo heard-$n-' USR1; echo up;
        while :; do sleep 0.05; done";
    let mut container = Container::run(&home, &[line, "--json"]);
    let mut lines = container.out();
    assert!(lines.next().unwrap().unwrap().contains("up"));
    for round in 1..=10 {
        crate::support::signal(container.daemon(), libc::SIGKILL);
        container.signal(libc::SIGUSR1);
        // A line that a daemon had written when it was killed, and not yet recorded, comes again.
        let before = if round == 1 { r#""up""#.to_string() } else { format!("heard-{}-", round - 1) };
        let expected = format!("heard-{round}-");
        let mut line = lines.next().unwrap().unwrap();
        while line.contains(&before) {
            line = lines.next().unwrap().unwrap();
        }
        assert!(line.contains(&expected), "{line}");
    }
    container.signal(libc::SIGUSR2);
    assert_eq!(container.end().code, 3);
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().all(|line| line.contains("heard-10-")), "{rest:?}");
}

const ORPHANS: &str = r#"
import os, sys, time
for round in range(20):
    if os.fork() == 0:
        r, w = os.pipe()
        for n in range(500):
            if os.fork() == 0:
                os.close(w)
                os.read(r, 1)
                os._exit(0)
        os._exit(0)
    os.wait()
    print("more", flush=True)
print("done", flush=True)
time.sleep(1000)
"#;

#[test]
fn n01_ten_thousand_orphans_leave_no_zombie() {
    let home = Home::new();
    home.file("orphans.py", ORPHANS);
    let mut container = Container::run(&home, &["orphans.py"]);
    // To make them takes longer than to reap them: each line of a round has its deadline.
    let rounds = container.out().map_while(Result::ok).take_while(|line| line != "done").count();
    assert_eq!(rounds, 20);
    let since = Instant::now();
    let daemon = container.daemon();
    wait_until("nobody but the daemon and the app", || {
        container.children() == [daemon] && children_of(daemon).len() == 1
    });
    println!("the last orphans were gone after {:?}", since.elapsed());
    // The pids tell that they have been there.
    let ran = container.exec(&["pid"]);
    assert_eq!(ran.code, 1, "no place was declared for commands: {ran:?}");
    home.pmx(&["healthcheck"]).ok();
    container.signal(libc::SIGTERM);
    assert_eq!(container.end().code, 143);
}

/// Says which signals it gets, and ends at SIGTERM; at first it tries the two that nobody can handle.
const LISTENER: &str = r#"
import os, signal, sys
for number in (9, 19):
    os.kill(1, number)
def heard(number, _):
    # It comes with each stop signal, in no order that is promised.
    if number == 18:
        return
    # print could interrupt itself.
    os.write(1, b"%d\n" % number)
    if number == 15:
        sys.exit(7)
for number in range(1, 65):
    try:
        signal.signal(number, heard)
    except (OSError, ValueError):
        pass
print("listening", flush=True)
while True:
    signal.pause()
"#;

#[test]
fn n02_each_signal_does_what_the_table_says() {
    let home = Home::new();
    home.file("listener.py", LISTENER);
    let forwarded = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
    for last in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
        let mut container = Container::run(&home, &["listener.py"]);
        let mut lines = container.out();
        assert_eq!(lines.next().unwrap().unwrap(), "listening");
        let ends = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
        let unheard = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
        for number in (1..=64).filter(|n| !ends.contains(n) && !unheard.contains(n)) {
            container.signal(number);
        }
        let heard = lines.by_ref().map_while(Result::ok).take(4);
        let mut heard: Vec<i32> = heard.map(|line| line.parse().unwrap()).collect();
        heard.sort();
        if heard != forwarded {
            panic!("{heard:?}: {:?}", container.end());
        }
        home.pmx(&["healthcheck"]).ok();
        container.signal(last);
        assert_eq!(lines.next().unwrap().unwrap(), "15", "the app's own stop signal");
        let ran = container.end();
        assert_eq!(ran.code, 7, "{ran:?}");
        for name in ["SIGALRM", "SIGTSTP", "SIGPWR", "SIGRTMIN", "SIGRTMIN+30"] {
            assert!(ran.err.contains(&format!("{name} is ignored\n")), "{name}: {}", ran.err);
        }
    }
}

#[test]
fn n02_with_several_apps_a_hangup_reloads_and_the_rest_is_for_all() {
    let home = Home::new();
    home.file("listener.py", LISTENER);
    home.file("other.py", LISTENER);
    let mut container = Container::run(&home, &["listener.py", "other.py"]);
    let mut lines = container.out();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!([next(), next()], ["listening"; 2]);
    container.signal(libc::SIGUSR2);
    assert_eq!([next(), next()], ["12"; 2]);
    let before = [home.pid(0), home.pid(1)];
    container.signal(libc::SIGHUP);
    wait_until("two new ones", || home.pid(0) != before[0] && home.pid(1) != before[1]);
    wait_until("both online", || home.pmx(&["healthcheck"]).code == 0);
    container.signal(libc::SIGTERM);
    let ran = container.end();
    assert_eq!(ran.code, 0, "several apps, told to end: {ran:?}");
}

#[test]
fn n03_the_exit_code_is_that_of_the_app() {
    let home = Home::new();
    home.file("lost", "#!/no/such/interpreter\n");
    home.file("plain.bin", "\0");
    std::process::Command::new("chmod").args(["+x", "lost"]).current_dir(home.dir()).status().unwrap();
    for (words, code) in [
        (&["--", "sh", "-c", "exit 0"][..], 0),
        (&["--", "sh", "-c", "exit 3"], 3),
        (&["--", "sh", "-c", "exit 255"], 255),
        (&["--", "sh", "-c", "kill -9 $$"], 137),
        (&["--", "sh", "-c", "kill -TERM $$"], 143),
        (&["exit 6"], 6),
        (&["no-such-program"], 127),
        (&["./no/such/file"], 127),
        (&["./lost"], 127),
        (&["./plain.bin"], 126),
        (&["--json", "--", "sh", "-c", "exit 5"], 5),
        (&["exit 8", "-i", "2", "-x", "--no-autorestart"], 8),
    ] {
        let ran = run(&home, words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
    }
    let ran = run(&home, &["echo life; exit 4", "--restart", "--max-restarts", "3"]);
    assert_eq!((ran.code, words(&ran).len()), (4, 3), "{ran:?}");
    // What is restarted and then fails to start ends as such.
    home.file("once", "#!/bin/sh\nrm \"$0\"\nexit 1\n");
    std::process::Command::new("chmod").args(["+x", "once"]).current_dir(home.dir()).status().unwrap();
    assert_eq!(run(&home, &["./once", "--restart"]).code, 127);
}

#[test]
fn n03_of_several_apps_the_policy_says_whose_end_counts() {
    let home = Home::new();
    // `last` outlives the others by far, unless it is stopped.
    home.file(
        "apps.json",
        r#"[
            {"name": "first", "script": "exit 3", "autorestart": false},
            {"name": "second", "script": "sleep 0.3; exit 4", "autorestart": false, "critical": true},
            {"name": "last", "script": "trap 'exit 9' TERM; sleep 1 & wait; exit 0", "autorestart": false}
        ]"#,
    );
    for (policy, code, shortest) in [("any", 3, 0), ("critical", 4, 300), ("all", 3, 1_000)] {
        let since = Instant::now();
        let ran = run(&home, &["apps.json", "--exit-on", policy]);
        assert_eq!(ran.code, code, "{policy}: {ran:?}");
        assert!(since.elapsed() >= Duration::from_millis(shortest), "{policy}: {:?}", since.elapsed());
    }
    // Without a policy, the last one ends it.
    assert_eq!(run(&home, &["exit 0", "sleep 0.2; exit 5", "--no-autorestart"]).code, 5);
}

#[test]
fn n03_what_a_command_stops_does_not_end_the_container() {
    let home = Home::new();
    let container = Container::run(&home, &["--", "sh", "-c", "exec sleep 1000"]);
    wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
    home.pmx(&["stop", "sh"]).ok();
    let ran = home.pmx(&["healthcheck"]).failed();
    assert_eq!(ran.err, "sh(0) is stopped\n");
    home.pmx(&["restart", "sh"]).ok();
    home.pmx(&["healthcheck"]).ok();
    home.pmx(&["kill"]).ok();
    assert_eq!(container.end().code, 143);
}

#[test]
fn n04_a_signal_that_comes_before_any_handler_is_not_lost() {
    let home = Home::new();
    for round in 0..40 {
        let container = Container::run(&home, &["--", "sleep", "1000"]);
        // It blocks them before main, and long before it has handlers.
        let status = format!("/proc/{}/status", container.init);
        let until = Instant::now() + DEADLINE;
        while !blocks(&std::fs::read_to_string(&status).unwrap(), libc::SIGTERM) && !container.is_ready() {
            assert!(Instant::now() < until);
        }
        // Some into the very beginning, some into what follows.
        let later = Instant::now() + Duration::from_micros(100 * round);
        while Instant::now() < later {}
        container.signal(libc::SIGTERM);
        let ran = container.end();
        assert_eq!(ran.code, 143, "round {round}: {ran:?}");
    }
}

#[test]
fn n04_signals_are_held_back_before_anything_else_is_done() {
    let home = Home::new();
    home.file("apps.json", r#"{"script": "sleep", "args": "1000"}"#);
    // The first call of Rust's own set-up, before main; then of main, of the keeper, and to make a daemon.
    for call in ["poll,ppoll", "getcwd", "eventfd2", "clone"] {
        // The tracer is a child of the first process, whose end it does not outlive.
        let script = format!("exec strace -D -qq -o /dev/null -e inject={call}:signal=TERM:when=1 \"$@\"");
        let ran = Container::of(Container::command(&home, &script, &["apps.json"])).end();
        assert_eq!(ran.code, 143, "{call}: {ran:?}");
    }
}

/// Whether it is pmx already, and blocks a signal.
fn blocks(status: &str, number: i32) -> bool {
    if !status.starts_with("Name:\tpmx") {
        return false;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or("0").trim();
    u64::from_str_radix(line, 16).unwrap_or(0) & 1 << (number - 1) != 0
}

/// Nine apps that end when they are told to, and one that does not.
fn ten_apps(home: &Home, more: &[&str]) -> Container {
    let apps: Vec<String> = (0..10)
        .map(|n| {
            let what = if n == 4 { "trap '' TERM" } else { "trap 'exit 0' TERM" };
            format!(r#"{{"name": "app{n}", "script": "{what}; echo up; while :; do sleep 0.05; done"}}"#)
        })
        .collect();
    home.file("apps.json", &format!("[{}]", apps.join(",")));
    let mut container = Container::run(home, &[&["apps.json"], more].concat());
    let mut lines = container.out();
    for _ in 0..10 {
        assert_eq!(lines.next().unwrap().unwrap(), "up");
    }
    // Nobody reads on.
    container
}

#[test]
fn n05_all_apps_stop_at_once_and_the_stubborn_one_in_time() {
    let home = Home::new();
    let container = ten_apps(&home, &["--grace", "6s"]);
    let since = Instant::now();
    container.signal(libc::SIGTERM);
    wait_until("one is left", || {
        let up = home.list().iter().filter(|p| p["pid"] != 0).count();
        up == 1
    });
    assert!(since.elapsed() < Duration::from_millis(4_800), "they were stopped in parallel");
    assert_eq!(container.end().code, 0);
    let took = since.elapsed();
    assert!((4_900..5_990).contains(&took.as_millis()), "a second before the grace is over: {took:?}");
}

#[test]
fn n05_a_second_signal_is_faster_and_a_third_immediate() {
    let home = Home::new();
    let container = ten_apps(&home, &["--grace", "60s"]);
    let since = Instant::now();
    container.signal(libc::SIGTERM);
    wait_until("it is stopping", || home.pmx(&["healthcheck"]).code == 1);
    container.signal(libc::SIGTERM);
    assert_eq!(container.end().code, 0);
    let took = since.elapsed();
    assert!((1_000..5_000).contains(&took.as_millis()), "{took:?}");
    let container = ten_apps(&home, &["--grace", "60s"]);
    let since = Instant::now();
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGINT] {
        container.signal(number);
        // Signals of one kind coalesce; each must be seen by itself.
        let at = Instant::now();
        wait_until("it to be taken", || at.elapsed() > Duration::from_millis(50));
    }
    assert_eq!(container.end().code, 0);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

const SERVER: &str = "
require('http').createServer((request, response) => {
    console.log('asked');
    setTimeout(() => response.end('slow'), 700);
}).listen(process.env.PORT, () => console.log('up'));
";

#[test]
fn n05_requests_in_flight_are_answered() {
    let home = Home::new();
    home.file("server.js", SERVER);
    let port = free_port();
    let mut command = Container::command(&home, "exec \"$@\"", &["server.js", "-i", "2"]);
    command.env("PORT", port.to_string());
    let mut container = Container::of(command);
    let mut lines = container.out();
    assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["up", "up"]);
    let request = std::thread::spawn(move || crate::support::get(port, "/"));
    assert_eq!(lines.next().unwrap().unwrap(), "asked");
    container.signal(libc::SIGTERM);
    assert_eq!(request.join().unwrap().unwrap().body, "slow");
    let ran = container.end();
    assert!(ran.code == 0 || ran.code == 143, "{ran:?}");
}

#[test]
fn n05_the_health_check_fails_at_once_while_apps_serve_on() {
    let home = Home::new();
    home.file("listener.py", LISTENER);
    let mut container = Container::run(&home, &["listener.py", "--drain-delay", "4000", "--grace", "20s"]);
    let mut lines = container.out();
    assert_eq!(lines.next().unwrap().unwrap(), "listening");
    assert_eq!(home.pmx(&["healthcheck"]).ok().out, "healthy\n");
    let since = Instant::now();
    container.signal(libc::SIGTERM);
    let ran = wait_for("a negative answer", || Some(home.pmx(&["healthcheck"])).filter(|ran| ran.code == 1));
    assert_eq!(ran.err, "the container is stopping\n");
    assert!(since.elapsed() < Duration::from_millis(3_900), "{:?}", since.elapsed());
    assert_eq!(home.status(0), "online", "it serves on");
    home.pmx(&["sendSignal", "SIGUSR1", "all"]).ok();
    assert_eq!(lines.next().unwrap().unwrap(), "10");
    assert_eq!(lines.next().unwrap().unwrap(), "15");
    assert!(since.elapsed() >= Duration::from_millis(3_900), "{:?}", since.elapsed());
    assert_eq!(container.end().code, 7);
}

/// What a person at a terminal sees and does: first a shell with job control, then the end.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios, time

if sys.argv[1] == "nobody":
    # A terminal that controls no session.
    master, slave = pty.openpty()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for fd in range(3):
            os.dup2(slave, fd)
    else:
        os.close(slave)
else:
    pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen = b""

def until(wanted):
    global seen
    deadline = time.time() + 20
    while wanted not in seen:
        if time.time() > deadline:
            sys.exit("no %r in %r" % (wanted, seen))
        if select.select([master], [], [], 0.1)[0]:
            try:
                seen += os.read(master, 4096)
            except OSError:
                sys.exit("it ended: %r" % seen)
    seen = seen[seen.index(wanted) + len(wanted):]

def type(line):
    os.write(master, line)

until(b"READY> ")
if b"job control" in seen:
    sys.exit("%r" % seen)
type(b"echo flags=$-\n"); until(b"flags="); until(b"m"); until(b"READY> ")
type(b"sleep 100\n"); time.sleep(0.3); type(b"\x03"); until(b"READY> ")
type(b"echo code=$?\n"); until(b"code=130"); until(b"READY> ")
type(b"sleep 100\n"); time.sleep(0.3); type(b"\x1a"); until(b"Stopped"); until(b"READY> ")
type(b"kill %1; wait; echo go''ne\n"); until(b"gone"); until(b"READY> ")
type(b"trap 'echo res''ized' WINCH; echo trap'ped'\n"); until(b"trapped"); until(b"READY> ")
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
type(b"\n"); until(b"resized"); until(b"READY> ")
type(b"stty size\n"); until(b"33 77"); until(b"READY> ")
type(b"(exit 5)\n"); until(b"READY> ")
type(b"\x04")
_, status = os.waitpid(pid, 0)
print("exit", os.waitstatus_to_exitcode(status))
"#;

#[test]
fn n06_a_shell_at_a_terminal_has_job_control() {
    let home = Home::new();
    home.file("terminal.py", TERMINAL);
    home.file("rc", "PS1='READY> '\n");
    let bash = ["--", "bash", "--rcfile", "rc", "-i"];
    // The terminal is that of pmx's own session, as container engines arrange it; of a session around it;
    // and of nobody.
    for (whose, script) in
        [("ours", "exec setsid -c \"$@\""), ("another", "exec \"$@\""), ("nobody", "exec \"$@\"")]
    {
        let inner = Container::command(&home, script, &bash);
        let mut command = std::process::Command::new("python3");
        command.args(["terminal.py", whose]).arg(inner.get_program()).args(inner.get_args());
        command.env("PMX_HOME", home.path());
        command.current_dir(home.dir()).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let ran = crate::support::finish(command.spawn().unwrap());
        assert_eq!((ran.code, ran.out.as_str()), (0, "exit 5\n"), "{whose}: {ran:?}");
    }
}

#[test]
fn n07_what_an_earlier_life_left_does_not_matter() {
    let home = Home::new();
    for _ in 0..2 {
        let container = Container::run(&home, &["--", "sleep", "1000"]);
        wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
        // As an engine kills it: socket, lock and pid file stay.
        drop(container);
        assert!(home.path().join("pmx.sock").exists() && home.path().join("pmx.lock").exists());
    }
    std::fs::write(home.path().join("pmx.pid"), "1\n").unwrap();
    std::fs::write(home.path().join("run/claim-0"), "").unwrap();
    std::fs::remove_file(home.path().join("pmx.sock")).unwrap();
    std::fs::write(home.path().join("pmx.sock"), "not a socket").unwrap();
    let container = Container::run(&home, &["--", "sleep", "1000"]);
    wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
    container.signal(libc::SIGTERM);
    assert_eq!(container.end().code, 143);
    assert!(!home.path().join("pmx.sock").exists() && !home.path().join("pmx.pid").exists());
}

#[test]
fn n08_max_is_what_the_container_may_use() {
    let home = Home::new();
    let all = std::thread::available_parallelism().unwrap().get();
    let quota = |text: &str| vec![("cpu.max", text.to_string())];
    let v1 = |quota: &str| {
        vec![
            ("cpu/cpu.cfs_quota_us", quota.to_string()),
            ("cpu/cpu.cfs_period_us", "100000".to_string()),
            ("cpu/cpu.shares", "2".to_string()),
        ]
    };
    for (name, files, cpus, expected) in [
        ("half", quota("50000 100000"), "", 1),
        ("more", quota("150000 100000"), "", all.min(2)),
        ("none", quota("max 100000"), "", all),
        ("weight", vec![("cpu.weight", "1".to_string())], "", all),
        ("one", quota("150000 100000"), "taskset -c 0", 1),
        ("v1", v1("100000"), "", 1),
        ("v1-none", v1("-1"), "", all),
    ] {
        for (file, text) in files {
            home.file(&format!("cgroup-{name}/{file}"), &format!("{text}\n"));
        }
        let script = format!("mount --bind cgroup-{name} /sys/fs/cgroup && exec {cpus} \"$@\"");
        let command = Container::command(&home, &script, &["exec sleep 1000", "-i", "max", "-x"]);
        let container = Container::of(command);
        wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
        assert_eq!(home.list().len(), expected, "{name}");
        container.signal(libc::SIGTERM);
        assert_eq!(container.end().code, 143);
    }
}

#[test]
fn n10_an_app_that_was_given_up_fails_the_health_check_or_ends_the_container() {
    let home = Home::new();
    home.file(
        "apps.json",
        r#"[
            {"name": "good", "script": "trap 'exit 0' TERM; while :; do sleep 0.05; done"},
            {"name": "bad", "script": "exit 6", "max_restarts": 3, "critical": true}
        ]"#,
    );
    let container = Container::run(&home, &["apps.json"]);
    container.serves(&home);
    wait_until("the end of the bad one", || home.status(1) == "errored");
    let ran = home.pmx(&["healthcheck"]).failed();
    let reason = "bad(1) is errored (too many unstable restarts (3), the last one: exit code 6)\n";
    assert_eq!(ran.err, reason);
    assert_eq!(home.pmx(&["healthcheck", "--app", "bad"]).failed().err, reason);
    home.pmx(&["healthcheck", "--app", "good"]).ok();
    let ran = home.pmx(&["healthcheck", "--app", "nobody"]).failed();
    assert_eq!(ran.err, "process or namespace nobody not found\n");
    container.signal(libc::SIGTERM);
    assert_eq!(container.end().code, 0);
    for policy in ["any", "critical"] {
        assert_eq!(run(&home, &["apps.json", "--exit-on", policy]).code, 6, "{policy}");
    }
}

#[test]
fn l08_a_reader_that_sleeps_holds_up_nothing() {
    let home = Home::new();
    home.file(
        "flood.py",
        "import os\nline = b'x' * 99 + b'\\n'\nfor n in range(10**9):\n    os.write(1, line * 300)\n    n or open('wrote', 'w').close()\n",
    );
    for format in ["raw", "json"] {
        let _ = std::fs::remove_file(home.dir().join("wrote"));
        let container = Container::run(&home, &["flood.py", "exec sleep 1000", "--format", format]);
        // Nobody reads its stdout.
        wait_until("health", || home.pmx(&["healthcheck"]).code == 0);
        wait_until("its output", || home.dir().join("wrote").exists());
        let daemon = container.daemon();
        let rss = || crate::support::probe::rss(daemon);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            crate::support::probe::assert_prompt(&home);
        }
        assert!(rss() < 40_000, "{} KiB", rss());
        container.signal(libc::SIGTERM);
        let since = Instant::now();
        let ran = container.end();
        assert_eq!(ran.code, 0);
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        let mut lines: Vec<&str> = ran.out.lines().collect();
        // The app may have been stopped in the middle of its last one.
        lines.pop();
        let is_whole = |line: &&str| line.len() == 99 || line.starts_with('{') && line.ends_with('}');
        let broken = lines.iter().position(|line| !is_whole(line));
        assert!(lines.len() > 600 && broken.is_none(), "{} lines, {broken:?}", lines.len());
    }
}

#[test]
fn e08_nothing_is_needed_but_a_kernel() {
    let home = Home::new();
    // Read-only everywhere, no /proc, nobody's uid, no home, no variable.
    let quiet = "for d in /run /dev/shm; do mount -t tmpfs -o ro none $d; done; \
        cp \"$1\" ./pmx && shift && mount --bind / / && mount -o remount,bind,ro / && while umount -l /proc 2>&-; do :; done; \
        exec env -i PATH=/usr/bin:/bin setpriv --reuid 12345 --regid 54321 --clear-groups ./pmx \"$@\"";
    let words = ["--", "sh", "-c", "id -u; echo ${PMX_HOME-none}; ls /proc; touch /tmp/x || exit 5"];
    let ran = Container::of(Container::command(&home, quiet, &words)).end();
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(ran.out, "12345\nnone\n");
    assert!(ran.err.contains("no place for a control socket"), "{ran:?}");
    assert!(!home.path().exists());
}

#[test]
fn e08_a_place_is_found_and_commands_find_it_too() {
    let home = Home::new();
    let tmpfs = "for d in /run /dev/shm; do mount -t tmpfs none $d; done; \
        exec env -i PATH=/usr/bin:/bin";
    let container =
        Container::of(Container::command(&home, &format!("{tmpfs} \"$@\""), &["--", "sleep", "1000"]));
    container.ready();
    let uid = nix::unistd::geteuid();
    let ran = wait_for("health", || Some(container.exec(&["healthcheck"])).filter(|ran| ran.code == 0));
    assert_eq!(ran.out, "healthy\n");
    let place = format!("/proc/{}/root/run/pmx-{uid}", container.init);
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(&place), mode(&format!("{place}/pmx.sock"))), (0o700, 0o600));
    let files: Vec<_> = std::fs::read_dir(&place).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name == "logs" || name == "pmx.log"), "{files:?}");
    assert!(container.exec(&["list"]).ok().out.contains("sleep"));
    container.exec(&["stop", "all"]).ok();
    // A directory that is somebody else's is passed over.
    container.signal(libc::SIGTERM);
    assert_eq!(container.end().code, 143);
    let trap = "mkdir -m 777 /run/pmx-0; chown 12345 /run/pmx-0;";
    let script =
        format!("{} {trap} exec env -i PATH=/usr/bin:/bin \"$@\"", tmpfs.rsplit_once("exec").unwrap().0);
    let container = Container::of(Container::command(&home, &script, &["--", "sleep", "1000"]));
    wait_until("health", || container.exec(&["healthcheck"]).code == 0);
    assert!(!std::path::Path::new(&format!("{place}/pmx.sock")).exists());
}

#[test]
fn the_names_of_pm2_and_its_options_are_understood() {
    let home = Home::new();
    home.file("app.sh", "echo out; echo err >&2; exit 3\n");
    for name in ["pmx-runtime", "pm2-runtime", "pm2-docker"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pmx"), home.dir().join(name)).unwrap();
        let script = format!("shift 2; exec ./{name} \"$@\"");
        let ran = Container::of(Container::command(&home, &script, &["start", "app.sh", "--json"])).end();
        assert_eq!(ran.code, 3, "{ran:?}");
        let line: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&line["message"], &line["type"]), (&"out".into(), &"out".into()));
        assert_eq!((&line["app_name"], &line["process_id"]), (&"app".into(), &0.into()));
    }
}
