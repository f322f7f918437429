//! What systemd runs when the service is over (`ExecStopPost`). It leaves the processes of the service alone,
//! so that apps outlive a daemon that died; hence who is left of a service that ended has to be ended here.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cli::caller::Caller;
use crate::cli::screen::Fail;
use crate::sys::pidfd;

/// What systemd says of a service whose main process did not end by itself, and which it starts again.
const DEATHS: [&str; 4] = ["signal", "core-dump", "watchdog", "oom-kill"];
/// What the two processes of pmx are called.
const OWN: [&str; 2] = ["pmx-keeper", "pmx"];
/// The group that systemd puts this very process into.
const CONTROL: &str = ".control";
/// How long processes may take to go once they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends what is left of the service: after a death what is left of pmx, which the next one replaces; else all.
pub fn sweep(caller: &Caller) -> Result<(), Fail> {
    let result = caller.var("SERVICE_RESULT").map(|text| text.to_string_lossy().into_owned());
    let Some(result) = result else {
        return Err(Fail::Sentence("sweep: only for systemd, when a service is over".to_string()));
    };
    let group = own_group().ok_or_else(|| {
        Fail::Sentence("sweep: end what is left of the service: it has no cgroup of its own".to_string())
    })?;
    let died = DEATHS.contains(&result.as_str());
    let until = Instant::now() + PATIENCE;
    loop {
        let mut left = processes(&group);
        if died {
            left.retain(|pid| is_pmx(*pid));
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Fail::Sentence(format!("sweep: {left:?} cannot be ended")));
        }
        for pid in left {
            // Who has ended by now is what is wanted.
            let _ = pidfd::send(None, pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The directory of the service's group.
fn own_group() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let places = [
        ("0::", ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]),
        ("1:name=systemd:", ["/sys/fs/cgroup/systemd"; 2]),
    ];
    for (kind, mounts) in places {
        let Some(path) = text.lines().find_map(|line| line.strip_prefix(kind)) else { continue };
        let path = path.strip_suffix(&format!("/{CONTROL}")).unwrap_or(path);
        // Never the group of a session or of the whole machine.
        if !path.ends_with(".service") {
            continue;
        }
        let found = mounts.into_iter().map(|mount| PathBuf::from(format!("{mount}{path}")));
        if let Some(group) = found.into_iter().find(|group| group.join("cgroup.procs").exists()) {
            return Some(group);
        }
    }
    None
}

/// The processes in a group and in those below it, those that systemd runs for the service excepted.
fn processes(group: &std::path::Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id() as i32;
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    // 0 is a process of another pid namespace.
    found.retain(|pid| *pid > 0 && *pid != own);
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    for directory in
        below.filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name != CONTROL))
    {
        found.extend(processes(&directory));
    }
    found
}

fn is_pmx(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| OWN.contains(&name.trim_end()))
}
