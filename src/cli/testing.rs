//! For tests: a home of their own, and a daemon that answers what the test says.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::caller::Caller;
use super::home::Home;
use crate::protocol::{Message, Request};

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
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.home.socket()) {
            let _ = stream.write_all(b"end\n");
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
