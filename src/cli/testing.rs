//! For tests: a home of their own, and a daemon that answers what the test says.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::Run;
use super::caller::Caller;
use super::home::Home;
use super::screen::Screen;
use crate::protocol::{Message, Outcome, Request, Status, View};
use crate::time::Wall;

/// A directory that goes away with its test.
pub struct TestHome {
    pub home: Home,
    pub caller: Caller,
}

impl TestHome {
    pub fn new(name: &str) -> TestHome {
        let path = std::env::temp_dir().join(format!("pmx-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let home = Home { path: path.clone() };
        home.prepare().unwrap();
        let mut caller =
            Caller { cwd: path.clone(), exe: PathBuf::from("/nonexistent"), ..Caller::default() };
        caller.env.set("PMX_HOME", path.as_os_str());
        caller.env.set("PATH", std::env::var_os("PATH").unwrap_or_default());
        TestHome { home, caller }
    }
}

/// Writes a program. By another process: a thread of this one that forks in between would keep the
/// file open for writing, and nobody could execute it then (ETXTBSY).
pub fn write_program(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    let installed = std::process::Command::new("install").args(["-m", "755"]).arg(&draft).arg(path).status();
    assert!(installed.unwrap().success());
}

impl Drop for TestHome {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home.path);
    }
}

/// A daemon that speaks the protocol in a thread until it is dropped.
pub struct FakeDaemon {
    home: Home,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// `answer` may push lines that are sent before the message that it returns.
    pub fn start(
        home: &Home,
        mut answer: impl FnMut(&Request, &mut Vec<String>) -> Message + Send + 'static,
    ) -> FakeDaemon {
        let listener = UnixListener::bind(home.socket()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { break };
                    if line == "end" {
                        return;
                    }
                    let request: Request = serde_json::from_str(&line).unwrap();
                    let mut lines = Vec::new();
                    let message = answer(&request, &mut lines);
                    lines.push(serde_json::to_string(&message).unwrap());
                    seen.lock().unwrap().push(request);
                    if stream.write_all((lines.join("\n") + "\n").as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        FakeDaemon { home: home.clone(), requests, thread: Some(thread) }
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        // A test that failed may still hold its connection, and would wait here for ever.
        if std::thread::panicking() {
            return;
        }
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.home.socket()) {
            let _ = stream.write_all(b"end\n");
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a command line as it was typed. Gives its exit code, stdout and stderr.
pub fn run_line(caller: &Caller, line: &[&str]) -> (u8, String, String) {
    run_line_in(caller, line, None)
}

/// What a command line came to, for one that is not over with it.
pub fn run_to(caller: &Caller, line: &[&str]) -> Run {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen { out: &mut out, err: &mut err, width: None, color: false, silent: false };
    super::run_with(line.iter().map(std::ffi::OsString::from), caller, &mut screen)
}

/// As [`run_line`], on a terminal of this width.
pub fn run_line_in(caller: &Caller, line: &[&str], width: Option<usize>) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen { out: &mut out, err: &mut err, width, color: false, silent: false };
    let run = super::run_with(line.iter().map(std::ffi::OsString::from), caller, &mut screen);
    let Run::Exit(code) = run else { panic!("{line:?}: {run:?}") };
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A process as the list shows it.
pub fn view(id: u32, name: &str, status: Status) -> View {
    let up = matches!(status, Status::Online | Status::Launching | Status::Stopping);
    View {
        id,
        name: name.to_string(),
        namespace: "default".to_string(),
        cluster: false,
        instance: 0,
        status,
        pid: if up { 4000 + id } else { 0 },
        since: up.then_some(Wall(1_000)),
        restarts: 0,
        unstable: 0,
        cpu: up.then_some(0.5),
        memory: up.then_some(53_267_661),
        processes: 0,
        threads: 0,
        last_run: None,
        next_run: None,
        watching: Default::default(),
        user: "ann".to_string(),
        budget_left: Some(16),
        retry_in: None,
        reason: None,
        health: None,
        says: None,
        leak: None,
        accepted: None,
    }
}

/// The outcome of a success.
pub fn done(id: u32, name: &str) -> Outcome {
    Outcome::done(id, name)
}
