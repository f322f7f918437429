//! Commands with a limit, temporary homes, and what /proc tells about a process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pmx::sys::proc;

use super::Outcome;

const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(2);

/// A directory of our own, gone with its owner.
pub struct Home(pub PathBuf);

impl Home {
    /// A new, empty one.
    pub fn new() -> Outcome<Home> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{}{number}", home_prefix(std::process::id())));
        fs::create_dir(&path).map_err(|error| format!("mkdir {}: {error}", path.display()))?;
        Ok(Home(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn home_prefix(bench: u32) -> String {
    format!("pmx-bench-{bench}-")
}

/// Removes what homes a bench has left that could not do so itself.
pub fn remove_homes(bench: u32) {
    let prefix = home_prefix(bench);
    let is_its = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten().filter(is_its) {
        let _ = fs::remove_dir_all(entry.path());
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

/// The parent's pid; none for what has exited, reaped or not.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = proc::stat(pid as i32).filter(|stat| stat.state != 'Z')?;
    u32::try_from(stat.parent).ok()
}

/// All processes with this parent.
pub fn children_of(parent: u32) -> Vec<u32> {
    pids().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The roots, as far as they live, and everything below them. A parent comes before its children.
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let mut below: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(parent) = parent_of(pid) {
            below.entry(parent).or_default().push(pid);
        }
    }
    let mut found: Vec<u32> = roots.iter().copied().filter(|pid| parent_of(*pid).is_some()).collect();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(below.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The file name of the program that a process runs; empty for what is gone.
pub fn program_of(pid: u32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A program that was built anew while it runs.
    name.trim_end_matches(" (deleted)").to_owned()
}

/// User and system time of the process, all threads; nothing for what is gone.
pub fn cpu_time(pid: u32) -> Duration {
    // The kernel tells it in hundredths of a second, on all architectures.
    Duration::from_millis(proc::stat(pid as i32).map_or(0, |stat| stat.cpu_ms))
}

/// What some processes hold at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Memory resident, in KB; what is shared counts in each.
    pub rss: u64,
    /// The same, with what is shared divided among those who share it.
    pub pss: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// How often their threads went to sleep so far: once per wake-up.
    pub sleeps: u64,
}

/// Summed over processes.
pub fn held(pids: &[u32]) -> Held {
    let mut sum = Held::default();
    for pid in pids {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        sum.rss += number(&read("status"), "VmRSS:");
        sum.pss += number(&read("smaps_rollup"), "Pss:");
        sum.fds += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            sum.sleeps += number(&status, "voluntary_ctxt_switches:");
        }
    }
    sum
}

/// The number after a word at the beginning of a line.
fn number(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or("");
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Asks `ready` until it says yes.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Outcome<()> {
    let end = Instant::now() + limit;
    while !ready() {
        if Instant::now() > end {
            return Err(format!("{what}: not within {} s", limit.as_secs_f32()));
        }
        sleep(STEP);
    }
    Ok(())
}

/// Ends processes for good, and waits until they are gone. They may have been reaped and their numbers given
/// away: what started after `known` were noted is spared by its start time.
pub fn end_all(known: &[(u32, u64)]) {
    let mut left = known.to_vec();
    let end = Instant::now() + Duration::from_secs(5);
    while !left.is_empty() && Instant::now() < end {
        left.retain(|(pid, start)| started(*pid) == Some(*start));
        for (pid, _) in &left {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        sleep(STEP);
    }
}

/// Who a process is together with its pid: when it started, in clock ticks since boot. None for zombies.
pub fn started(pid: u32) -> Option<u64> {
    Some(proc::stat(pid as i32).filter(|stat| stat.state != 'Z')?.start_ticks)
}
