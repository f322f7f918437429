//! Commands with a limit, temporary homes, and what /proc tells about a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Outcome;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(2);

/// A directory of our own, gone with its owner.
pub struct Home(pub PathBuf);

impl Home {
    /// A new, empty one.
    pub fn new() -> Outcome<Home> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pmx-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("mkdir {}: {error}", path.display()))?;
        Ok(Home(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A command of a manager under way. Its output goes to a file: a daemon that it starts may hold on to a pipe.
pub struct Running {
    child: Child,
    output: PathBuf,
    started: Instant,
    /// From start to end, once it has ended.
    pub took: Option<Duration>,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts it.
    pub fn spawn(command: &mut Command, home: &Path) -> Outcome<Running> {
        let output = home.join("command-output");
        let stdout = File::create(&output).map_err(|error| error.to_string())?;
        let stderr = stdout.try_clone().map_err(|error| error.to_string())?;
        let started = Instant::now();
        let child = command.stdout(stdout).stderr(stderr).spawn().map_err(|error| error.to_string())?;
        Ok(Running { child, output, started, took: None, status: None })
    }

    /// Whether it is still under way; one that takes too long is ended.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_some() {
            return false;
        }
        self.status = self.child.try_wait().ok().flatten();
        if self.status.is_none() && self.started.elapsed() > COMMAND_LIMIT {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        if self.status.is_some() {
            self.took = Some(self.started.elapsed());
        }
        self.status.is_none()
    }

    /// Waits for its end. The error is its last line that says something.
    pub fn wait(&mut self) -> Outcome<()> {
        while self.is_running() {
            sleep(STEP);
        }
        let Some(status) = self.status.filter(|status| !status.success()) else { return Ok(()) };
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        let last = output.lines().map(str::trim).rfind(|line| line.contains(char::is_alphanumeric));
        Err(last.map_or_else(|| status.to_string(), |line| format!("{line} ({status})")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The fields of /proc/<pid>/stat from the state on; none if there is no such process.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may hold anything, but the last parenthesis is its end.
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The parent's pid; none for what has exited, reaped or not.
pub fn parent_of(pid: u32) -> Option<u32> {
    let fields = stat(pid).filter(|fields| fields[0] != "Z")?;
    fields.get(1)?.parse().ok()
}

/// All processes with this parent.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// User and system time of the process, all threads; nothing for what is gone.
pub fn cpu_time(pid: u32) -> Duration {
    let ticks = |fields: Vec<String>| {
        let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        field(11) + field(12)
    };
    // The kernel tells it in hundredths of a second, on all architectures.
    Duration::from_millis(stat(pid).map_or(0, ticks) * 10)
}
