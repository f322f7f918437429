//! The full screen, driven in a real terminal.

use std::process::Command;

use crate::support::{Home, is_alive, wait_for, wait_until};

/// A terminal of tmux with a shell that runs `monit` and tells how the terminal was before and is after it.
struct Screen {
    home: Home,
}

impl Screen {
    fn new(home: Home) -> Screen {
        let screen = Screen { home };
        let text = format!(
            "stty -g > before; PMX_HOME={} {} monit 2> err; echo left $? > left; stty -g > after; cat\n",
            screen.home.path().display(),
            env!("CARGO_BIN_EXE_pmx")
        );
        screen.home.file("run.sh", &text);
        screen.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "TERM=screen sh run.sh",
        ]);
        screen
    }

    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.home.dir().join("tmux");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(socket).args(args).current_dir(self.home.dir()).env_remove("TMUX");
        let ran = command.env("LANG", "C.UTF-8").output().expect("tmux is there: .ci/run brings it");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    fn picture(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        wait_until(text, || self.picture().contains(text));
    }

    fn pid(&self) -> i32 {
        let shell = self.tmux(&["list-panes", "-F", "#{pane_pid}"]);
        let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.trim())).ok();
        wait_for("monit", || children()?.split_whitespace().next()?.parse().ok())
    }

    /// Waits for its end, and whether the terminal is as it was.
    #[track_caller]
    fn left(&self, said: &str) {
        let read = |name: &str| std::fs::read_to_string(self.home.dir().join(name)).unwrap_or_default();
        wait_until("its end", || !read("after").is_empty());
        assert_eq!((read("left").trim(), read("after")), (said, read("before")), "{}", read("err"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn home() -> Home {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\necho \"$name is up\"; exec sleep 1000\n");
    for name in ["one", "two", "three"] {
        home.pmx(&["start", "app.sh", "-n", name, "-f"]).ok();
    }
    home
}

#[test]
fn every_key_does_what_the_help_says() {
    let screen = Screen::new(home());
    let home = &screen.home;
    screen.shows("3/3 online");
    screen.shows("one is up");
    screen.keys(&["j", "Up", "Down"]);
    screen.shows("logs of two(1)");
    screen.keys(&["r"]);
    screen.shows("restart two(1): done");
    assert_eq!(home.process(1)["pm2_env"]["restart_time"], 1);
    screen.keys(&["l"]);
    screen.shows("reload two(1): done");
    screen.keys(&["s"]);
    wait_until("a stop", || home.status(1) == "stopped");
    screen.shows("2/3 online");
    screen.keys(&["G", "+"]);
    screen.shows("scale three +1: done");
    wait_until("an instance more", || home.list().len() == 4);
    screen.keys(&["-"]);
    wait_until("an instance less", || home.list().len() == 3);
    screen.keys(&["=", "2", "Enter"]);
    screen.shows("scale three 2: done");
    screen.keys(&["g", "d", "n"]);
    screen.shows("logs of one(0)");
    screen.keys(&["d", "y"]);
    wait_until("a deletion", || !home.list().iter().any(|process| process["name"] == "one"));
    screen.keys(&["/", "t", "w", "o", "Enter"]);
    screen.shows("processes by id, /two");
    screen.shows("logs of two(1)");
    screen.keys(&["f", "n", "o", "t", "h", "e", "r", "e", "Enter"]);
    screen.shows(", with nothere");
    wait_until("no line", || !screen.picture().contains("two is up"));
    screen.keys(&["Escape"]);
    screen.shows("two is up");
    screen.keys(&["o"]);
    screen.shows("processes by name");
    screen.keys(&["?"]);
    screen.shows("delete it, after a y");
    screen.keys(&["x"]);
    screen.tmux(&["resize-window", "-x", "160", "-y", "50"]);
    screen.shows("namespace");
    screen.keys(&["q"]);
    screen.left("left 0");
}

#[test]
fn logs_that_are_rotated_while_somebody_looks_are_shown_whole() {
    use std::fs::{OpenOptions, rename};
    use std::io::Write;

    let screen = Screen::new(home());
    screen.shows("one is up");
    let log = screen.home.path().join("logs/one-out-0.log");
    // All of it between two pictures, most of the time.
    for n in 0..3 {
        let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        writeln!(file, "line of file {n}").unwrap();
        if n < 2 {
            rename(&log, log.with_file_name(format!("one-out-0__2026-01-01_00-00-0{n}.log"))).unwrap();
        }
    }
    screen.shows("line of file 2");
    let picture = screen.picture();
    for n in 0..3 {
        let text = format!("line of file {n}");
        assert_eq!(picture.matches(&text).count(), 1, "{text} in {picture}");
    }
}

#[test]
fn the_terminal_is_given_back_and_nothing_else_is_touched() {
    let screen = Screen::new(home());
    screen.shows("3/3 online");
    crate::support::signal(screen.pid(), libc::SIGTERM);
    screen.left("left 0");
    // The daemon ends and comes back: the picture says so and goes on.
    let screen = Screen::new(home());
    screen.shows("3/3 online");
    screen.home.pmx(&["kill"]).ok();
    screen.shows("no daemon runs");
    screen.home.pmx(&["start", "app.sh", "-n", "again"]).ok();
    screen.shows("again");
    let app = screen.home.pid(0);
    crate::support::signal(screen.pid(), libc::SIGKILL);
    wait_until("its end", || screen.home.dir().join("left").exists());
    assert!(is_alive(app) && screen.home.status(0) == "online");
    // One whose terminal is gone does not go on.
    let screen = Screen::new(home());
    screen.shows("3/3 online");
    let pid = screen.pid();
    screen.tmux(&["kill-server"]);
    wait_until("its end", || !is_alive(pid));
    // Not at a terminal it says what to do.
    let ran = screen.home.pmx(&["monit"]).failed();
    assert_eq!(ran.err, "monit: this is no terminal (pmx list prints what there is)\n");
}
