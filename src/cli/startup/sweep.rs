//! What systemd runs when the service is over (`ExecStopPost`), or is about to be (`ExecStop`). It leaves the
//! processes of the service alone, so that apps outlive a daemon that died; hence who is left of a service that
//! ended has to be ended here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::platform::Programs;
use crate::cli::caller::Caller;
use crate::cli::screen::Fail;
use crate::sys::pidfd;

/// What systemd says of a service that did not end because it was to, and which it starts again: its main process
/// died, or could not begin.
const DEATHS: [&str; 7] =
    ["signal", "core-dump", "watchdog", "oom-kill", "exit-code", "protocol", "resources"];
/// What the two processes of pmx are called.
const OWN: [&str; 2] = ["pmx-keeper", "pmx"];
/// What one that becomes the other is called for a moment, by the name of the file that it executes.
const BECOMING: &str = "exe";
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
    end(&group, DEATHS.contains(&result.as_str())).map_err(|error| Fail::Sentence(format!("sweep: {error}")))
}

/// Before a stop: if it is for a restart, pmx dies here, so that nothing ends its apps and the next one finds them.
pub fn keep(caller: &Caller) -> Result<(), Fail> {
    let fail = |what: &str| Fail::Sentence(format!("keep the apps over a restart of the service: {what}"));
    let group = own_group().ok_or_else(|| fail("it has no cgroup of its own"))?;
    let unit = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let program = Programs::of(caller).find("systemctl").ok_or_else(|| fail("there is no systemctl"))?;
    // A service of a user's own is that of another systemd.
    let whose = if group.components().any(|part| is_users(part.as_os_str())) { "--user" } else { "--system" };
    let jobs = Command::new(program)
        .args([whose, "list-jobs", "--no-legend", "--plain"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(&crate::sys::reason(&error)))?;
    if !jobs.status.success() {
        return Err(fail(&format!("systemctl: {}", String::from_utf8_lossy(&jobs.stderr).trim())));
    }
    if !is_restarted(&String::from_utf8_lossy(&jobs.stdout), &unit) {
        return Ok(());
    }
    end(&group, true).map_err(|error| fail(&error))
}

/// Whether this is the directory of the systemd of a user: `user@1000.service`.
fn is_users(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"user@")
}

/// What systemd is about to do, a job a line: its number, unit, kind and state.
fn is_restarted(jobs: &str, unit: &str) -> bool {
    let of_unit = |line: &&str| line.split_whitespace().nth(1) == Some(unit);
    let kind = jobs.lines().find(of_unit).and_then(|line| line.split_whitespace().nth(2));
    kind.is_some_and(|kind| kind.ends_with("restart"))
}

/// Kills those in the group, or only what is of pmx.
fn end(group: &Path, only_pmx: bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut left = processes(group);
        if only_pmx {
            left.retain(|pid| is_pmx(*pid));
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("{left:?} cannot be ended"));
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
fn processes(group: &Path) -> Vec<i32> {
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
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    is_own(name.trim_end(), &program)
}

/// Whether a process is of pmx, by its name and its program.
fn is_own(name: &str, program: &Path) -> bool {
    let file = program.file_name().unwrap_or_default().as_encoded_bytes();
    OWN.contains(&name) || (name == BECOMING && file.starts_with(b"pmx"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_pmx_is_known_even_while_it_becomes_something_else() {
        for name in ["pmx", "pmx-keeper", "exe"] {
            assert!(is_own(name, Path::new("/usr/bin/pmx")), "{name}");
        }
        assert!(is_own("exe", Path::new("/usr/bin/pmx (deleted)")));
        assert!(!is_own("exe", Path::new("/usr/bin/runc")) && !is_own("node", Path::new("/usr/bin/pmx")));
    }

    #[test]
    fn a_restart_is_told_from_a_stop() {
        let jobs = "12 other.service  restart waiting\n 7 pmx-root.service stop    running\n";
        assert!(!is_restarted(jobs, "pmx-root.service") && is_restarted(jobs, "other.service"));
        assert!(is_restarted("7 pmx-root.service try-restart running\n", "pmx-root.service"));
        assert!(!is_restarted("No jobs running.\n", "pmx-root.service") && !is_restarted("", ""));
    }
}
