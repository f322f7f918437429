//! pmx as the first process of a pid namespace, as in a container.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{DEADLINE, Home, Ran, finish, signal, wait_for};

/// A pid namespace and its first process. Dropping it kills all that is in it.
pub struct Container {
    child: Option<Child>,
    /// Outside of the namespace.
    pub init: i32,
}

impl Container {
    /// `pmx runtime` with these words.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(home: &Home, words: &[S]) -> Container {
        Container::of(Container::command(home, "exec \"$@\"", words))
    }

    /// The command: a shell with this script becomes `pmx runtime` with these words by `exec "$@"`.
    pub fn command<S: AsRef<std::ffi::OsStr>>(home: &Home, script: &str, words: &[S]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-mpf", "--mount-proc", "--kill-child", "sh", "-c", script, "sh"]);
        command.args([env!("CARGO_BIN_EXE_pmx"), "runtime"]).args(words);
        command.env("PMX_HOME", home.path()).env_remove("NODE_OPTIONS").current_dir(home.dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    pub fn of(mut command: Command) -> Container {
        let mut child = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let init = wait_for("the first process", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
            // A short life may be over by now.
            pid.or_else(|| child.try_wait().unwrap().map(|_| 0))
        });
        Container { child: Some(child), init }
    }

    /// It answers in this home. (Most commands would start a daemon there if it did not yet.)
    #[track_caller]
    pub fn serves(&self, home: &Home) {
        let answers = |ran: Ran| ran.code == 0 || !ran.err.starts_with("no daemon");
        super::wait_until("an answer", || answers(home.pmx(&["healthcheck"])));
    }

    /// The first process is the keeper by now.
    #[track_caller]
    pub fn ready(&self) {
        wait_for("the keeper", || self.is_ready().then_some(()));
    }

    /// Whether the first process is the keeper by now.
    pub fn is_ready(&self) -> bool {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.init)).unwrap_or_default();
        name.trim() == "pmx-keeper"
    }

    /// The process that serves, below the first one, as it is called outside.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        wait_for("a daemon", || self.children().into_iter().find(|pid| name(*pid).trim() == "pmx"))
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, number: i32) {
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(self.init, number) }, 0, "signal {number}");
    }

    /// Its children, zombies included, as they are called outside.
    pub fn children(&self) -> Vec<i32> {
        children_of(self.init)
    }

    /// Its stdout, to be read line by line while it runs; each line has its deadline.
    pub fn out(&mut self) -> impl Iterator<Item = std::io::Result<String>> + use<> {
        let lines = BufReader::new(self.child.as_mut().unwrap().stdout.take().unwrap()).lines();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(|line| sender.send(line).ok()).for_each(drop));
        std::iter::from_fn(move || receiver.recv_timeout(DEADLINE).ok())
    }

    /// Its end.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        finish(self.child.take().unwrap())
    }

    /// A pmx command in its namespaces, with no environment but PATH.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Ran {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-p", "-m", env!("CARGO_BIN_EXE_pmx")]).args(words);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap())
    }
}

/// The children of a process, zombies included.
pub fn children_of(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if self.init > 0 {
            signal(self.init, libc::SIGKILL);
        }
        let until = std::time::Instant::now() + DEADLINE;
        while child.try_wait().ok().flatten().is_none() {
            assert!(std::time::Instant::now() < until, "the container does not end");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
