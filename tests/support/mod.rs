//! What the end-to-end tests share: a home of their own, a deadline for everything, and no process, socket
//! or file left behind.

#![allow(dead_code)]

pub mod container;
pub mod pm2;
pub mod probe;
#[cfg(feature = "load")]
pub mod server;
pub mod systemd;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `look` finds something, looking every few milliseconds: the longer it has waited, the fewer others are
/// disturbed.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = began.elapsed();
        assert!(waited < DEADLINE, "waited {DEADLINE:?} for {what}");
        pause(waited);
    }
}

/// Between two looks at something that has been waited for so long.
pub fn pause(waited: Duration) {
    std::thread::sleep((waited / 20).clamp(Duration::from_millis(5), Duration::from_millis(40)));
}

/// Waits until `look` is true.
#[track_caller]
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The command, which must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The command, which must have failed as the command line documents it.
    #[track_caller]
    pub fn failed(self) -> Ran {
        assert_eq!(self.code, 1, "{self:?}");
        self
    }
}

/// A directory with a pmx home in it. Dropping it ends the daemon and all it runs, and removes it.
pub struct Home {
    dir: PathBuf,
    path: PathBuf,
    /// What its daemon is told of control groups, if anything.
    groups: Option<&'static str>,
}

/// With control groups and without: what a daemon can be told of them. (Where there are none to be had, the first way is
/// the second.)
pub const WAYS: [&str; 2] = ["on", "off"];

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Home {
    pub fn new() -> Home {
        Home::below("home")
    }

    /// With the daemon's home at a path of its own below the directory.
    pub fn below(path: impl AsRef<Path>) -> Home {
        let unique = format!("pmx-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(path);
        Home { dir, path, groups: None }
    }

    /// One of [`WAYS`].
    pub fn contained(way: &'static str) -> Home {
        let mut home = Home::new();
        home.groups = Some(way);
        home
    }

    /// The directory, for the test's own files; the working directory of its commands.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon's home.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Writes a file of the test's own.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A pmx command in this home, not started yet.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmx"));
        command.args(args).env("PMX_HOME", self.path()).env_remove("NODE_OPTIONS").current_dir(&self.dir);
        command.envs(self.groups.map(|way| ("PMX_CGROUP", way)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A line for a shell, in which `$PMX` is pmx.
    pub fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).env("PMX", env!("CARGO_BIN_EXE_pmx")).env("PMX_HOME", &self.path);
        shell.env_remove("NODE_OPTIONS").current_dir(&self.dir);
        shell.envs(self.groups.map(|way| ("PMX_CGROUP", way)));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }

    /// Runs a pmx command to its end.
    #[track_caller]
    pub fn pmx<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// As `pmx`, with one more environment variable.
    #[track_caller]
    pub fn pmx_with<S: AsRef<std::ffi::OsStr>>(&self, env: &[(&str, &str)], args: &[S]) -> Ran {
        finish(self.command(args).envs(env.iter().copied()).spawn().unwrap())
    }

    /// The processes as `jlist` shows them.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.pmx(&["jlist"]).ok().out).unwrap()
    }

    /// One process of the list.
    #[track_caller]
    pub fn process(&self, id: u32) -> Value {
        self.list().into_iter().find(|p| p["pm_id"] == id).unwrap_or_else(|| panic!("no process {id}"))
    }

    #[track_caller]
    pub fn status(&self, id: u32) -> String {
        self.process(id)["pm2_env"]["status"].as_str().unwrap().to_string()
    }

    #[track_caller]
    pub fn pid(&self, id: u32) -> i32 {
        self.process(id)["pid"].as_i64().unwrap() as i32
    }

    /// The content of a log file, empty while there is none.
    pub fn log(&self, file: &str) -> String {
        let bytes = std::fs::read(self.path().join("logs").join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its daemon keeps its journal.
    pub fn state(&self) -> PathBuf {
        Home::state_of(&self.path)
    }

    /// The same for a home at any path.
    pub fn state_of(home: &Path) -> PathBuf {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(home).unwrap();
        Path::new("/dev/shm").join(format!("pmx-{}-{:x}.{:x}", found.uid(), found.dev(), found.ino()))
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(self.path().join("pmx.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        format!("the daemon's last lines, newest first:\n{}", tail.join("\n"))
    }

    /// The daemon's pid, while it runs.
    pub fn daemon_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.path().join("pmx.pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let pid = self.daemon_pid();
        if let Ok(child) = self.command(&["kill"]).spawn() {
            let ran = finish(child);
            if ran.code != 0 && !std::thread::panicking() {
                panic!("the daemon did not end: {ran:?}\n{}", self.last_lines());
            }
        }
        if let Some(pid) = pid {
            let gone = Instant::now() + DEADLINE;
            while is_alive(pid) && Instant::now() < gone {
                std::thread::sleep(Duration::from_millis(5));
            }
            if is_alive(pid) {
                signal(pid, 9);
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
        if self.path.exists() {
            let state = self.state();
            let _ = std::fs::remove_dir_all(&state);
            remove_groups(&format!("{}-", state.file_name().unwrap().display()));
        }
        // A helper of a daemon that was killed may write its last file meanwhile.
        let until = Instant::now() + DEADLINE;
        while std::fs::remove_dir_all(&self.dir).is_err() && self.dir.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Removes the control groups that a daemon left which was killed, and its keeper with it.
fn remove_groups(beginning: &str) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (mounts, own) = (read("/proc/mounts"), read("/proc/self/cgroup"));
    let points = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    for point in points.filter(|words| words[2].starts_with("cgroup")) {
        let paths: BTreeSet<_> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
        for path in paths {
            let ours = Path::new(point[1]).join(path.trim_start_matches('/'));
            let groups = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
            for left in groups(&ours).filter(|left| left.file_name().to_string_lossy().starts_with(beginning))
            {
                for group in groups(&left.path()) {
                    let _ = std::fs::remove_dir(group.path());
                }
                let _ = std::fs::remove_dir(left.path());
            }
        }
    }
}

/// Waits for a command, with a deadline.
#[track_caller]
pub fn finish(mut child: Child) -> Ran {
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(out.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let err = read(err.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            panic!("a command did not end within two minutes");
        }
        std::thread::sleep((began.elapsed() / 20).clamp(Duration::from_millis(1), Duration::from_millis(10)));
    };
    let code = std::os::unix::process::ExitStatusExt::signal(&status)
        .map_or(status.code().unwrap_or(-1), |s| 128 + s);
    Ran { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

/// A port that is free, and that nobody is given by chance before the test has it: it is none of those which
/// the kernel chooses, and each test gets another.
pub fn free_port() -> u16 {
    free_ports(1, 0)
}

/// The first of ten such ports, and a number that ends with 0.
pub fn ten_free_ports() -> u16 {
    // Among nineteen there are ten that begin so.
    free_ports(19, 9) / 10 * 10
}

/// So many such ports in a row. What comes is the one so far behind the first.
fn free_ports(count: u16, at: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    let first = std::process::id() as u16;
    let candidate =
        || PORTS.start + first.wrapping_add(NEXT.fetch_add(count, Ordering::Relaxed)) % PORTS.len() as u16;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    std::iter::repeat_with(candidate)
        .take(PORTS.len())
        .find(|port| (*port..port + count).all(is_free))
        .unwrap()
        + at
}

/// One response to one request on a connection of its own.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// `GET path` on the loopback.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Response { status, head: head.to_string(), body: body.to_string() })
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: i32, number: i32) {
    let signal = nix::sys::signal::Signal::try_from(number).unwrap();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Whether there is such a process, other than as a zombie.
pub fn is_alive(pid: i32) -> bool {
    pmx::sys::proc::stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// A Node of the given major version, as `tests/run` installs them.
#[track_caller]
pub fn node(major: u32) -> PathBuf {
    let path = node_modules().join(format!("node{major}/bin/node"));
    assert!(path.exists(), "{} is missing: tests/run brings it", path.display());
    path
}

/// Where `tests/run` installs what comes from npm.
pub fn node_modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node_modules")
}

/// The versions of Node that everything must work on.
pub const NODES: [u32; 4] = [18, 20, 22, 24];
