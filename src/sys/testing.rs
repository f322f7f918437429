//! What the tests of this folder share.

use std::ffi::CString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::spawn::{Spawn, Spawned, spawn};

const MARK: &str = "PMX_TEST_ALONE";
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs `body` in a process of its own, of this very test binary: for what a whole process shares
/// (children, dispositions, limits, fds 0 to 2), while the other tests run in parallel. `test` is the
/// full name of the test that calls this.
pub(crate) fn alone(test: &str, body: fn()) {
    if std::env::var(MARK).as_deref() == Ok(test) {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .stdin(Stdio::null())
        .output()
        .expect("run the test binary");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{test}, alone: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{test} is not the name of a test");
}

/// Asks until there is an answer.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

/// Starts a shell with no fds at all. The caller reaps it.
pub(crate) fn shell(script: &str) -> Spawned {
    let argv = [c("sh"), c("-c"), c(script)];
    spawn(&Spawn {
        programs: &[c("/bin/sh")],
        argv: &argv,
        env: &[c("PATH=/usr/bin:/bin")],
        env_pid: None,
        cwd: c"/",
        umask: 0o022,
        fds: &[],
        ..Spawn::default()
    })
    .expect("start a shell")
}
