//! `doctor`: whether all is there that pmx needs, and what to do where it is not. It changes nothing and starts
//! no daemon.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use super::Session;
use super::connect::Connection;
use super::format::bytes;
use super::home::Home;
use super::screen::{Color, Fail, escaped};
use super::system;
use crate::protocol::{Answer, Verb};
use crate::sys::cgroup::Tree;
use crate::sys::{clock, proc, users};
use crate::time::Wall;

/// Fewer open files than this are soon too few: each process takes three, each connection that pmx deals out one.
const OPEN_FILES: u64 = 65_536;
/// Less free space than this is nearly none, or will soon be.
const NO_SPACE: u64 = 100 << 20;
const LITTLE_SPACE: u64 = 1 << 30;
/// A log file of this size wants to be emptied.
const LONG_LOG: u64 = 1 << 30;
/// The journal of many processes, several times over.
const JOURNAL: u64 = 16 << 20;
/// The oldest Node and kernel that are tested or written for.
const NODE: u32 = 18;
const KERNEL: (u32, u32) = (5, 4);
/// No clock is right that shows a time before this program was written: 2025.
const WRITTEN: Wall = Wall(1_735_689_600_000);

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    /// It works, and could work better.
    Warn,
    /// It does not work.
    Wrong,
}

/// One line.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// What was found, and what to do about it.
    text: String,
}

/// `pmx doctor`.
pub fn doctor(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let home = session.home.clone();
    let daemon = Connection::existing(&home);
    let peer = daemon.as_ref().ok().and_then(|daemon| daemon.as_ref()?.pid());
    let found = [
        ("home", check_home(&home)),
        ("permissions", permissions(&home)),
        ("daemon", check_daemon(&home, daemon)),
        ("keeper", keeper(peer)),
        ("open files", open_files(peer)),
        ("control group", control_group()),
        ("node", node(session)),
        ("disk", disk(&home)),
        ("logs", logs(&home)),
        ("journal", journal()),
        ("kernel", kernel()),
        ("clock", check_clock(clock::wall())),
    ];
    let findings: Vec<Finding> =
        found.into_iter().map(|(check, (state, text))| Finding { check, state, text }).collect();
    if session.options.json {
        session.screen.json(&findings)?;
    } else {
        for finding in &findings {
            let (word, color) = match finding.state {
                State::Ok => ("ok   ", Color::Green),
                State::Warn => ("warn ", Color::Yellow),
                State::Wrong => ("wrong", Color::Red),
            };
            let word = session.screen.paint(color, word);
            let line = format!("{word} {:<14} {}\n", finding.check, escaped(&finding.text));
            session.screen.data(line.as_bytes())?;
        }
    }
    if findings.iter().any(|finding| finding.state == State::Wrong) { Err(Fail::Said) } else { Ok(()) }
}

type Found = (State, String);

fn ok(text: impl Into<String>) -> Found {
    (State::Ok, text.into())
}

fn warn(text: impl Into<String>) -> Found {
    (State::Warn, text.into())
}

fn wrong(text: impl Into<String>) -> Found {
    (State::Wrong, text.into())
}

/// The first of these that exists: where a file would be made.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

fn check_home(home: &Home) -> Found {
    let path = home.path.display();
    let Ok(found) = fs::metadata(&home.path) else {
        let above = existing(&home.path);
        return match access(&above, AccessFlags::W_OK) {
            Ok(()) => ok(format!("{path} will be made by the first command")),
            Err(_) => wrong(format!(
                "{path} cannot be made in {}: set PMX_HOME to a place of yours",
                above.display()
            )),
        };
    };
    let us = users::effective_uid();
    match () {
        () if !found.is_dir() => wrong(format!("{path} is not a directory: move it away")),
        () if found.uid() != us => {
            wrong(format!("{path} belongs to uid {}, and we are uid {us}: set PMX_HOME", found.uid()))
        }
        () if found.mode() & 0o022 != 0 => wrong(format!("others may write to {path}: chmod go-w {path}")),
        () if access(&home.path, AccessFlags::W_OK).is_err() => {
            wrong(format!("{path} cannot be written to: is its file system read-only?"))
        }
        () => ok(path.to_string()),
    }
}

/// Environments are in the lists, and whatever apps say in their logs.
fn permissions(home: &Home) -> Found {
    let names = ["dump.pm2", "dump.pm2.bak", "autosave.json", "module_conf.json", "pmx.log", "logs", "run"];
    let is_open = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|found| !found.is_symlink() && found.mode() & 0o077 != 0)
    };
    let files = names.iter().map(|name| home.path.join(name));
    let open: Vec<String> = files.filter(is_open).map(|path| path.display().to_string()).collect();
    match open.is_empty() {
        true => ok("nobody else reads lists and logs"),
        // A closed door in front of it is enough.
        false if fs::metadata(&home.path).is_ok_and(|found| found.mode() & 0o077 == 0) => {
            ok(format!("{} would be open to others, but {} is not", open.join(" "), home.path.display()))
        }
        false => warn(format!("others may read {0}: chmod go-rwx {0}", open.join(" "))),
    }
}

fn check_daemon(home: &Home, daemon: Result<Option<Connection>, String>) -> Found {
    let mut connection = match daemon {
        Ok(Some(connection)) => connection,
        Ok(None) if home.socket().exists() => {
            return ok("none runs; the socket that the last one left is replaced by the next one");
        }
        Ok(None) => return ok("none runs; the next command that needs one starts it"),
        Err(error) => return wrong(format!("{error}: pmx kill ends it")),
    };
    let ours = env!("CARGO_PKG_VERSION");
    match connection.request(Verb::Ping, &mut |_| {}) {
        Ok(Answer::Pong { version, pid }) if version == ours => ok(format!("pmx {version}, pid {pid}")),
        Ok(Answer::Pong { version, .. }) => {
            warn(format!("it is pmx {version}, and this is {ours}: pmx update makes it the same"))
        }
        Ok(other) => wrong(super::act::unexpected(&other)),
        Err(error) => wrong(String::from(error)),
    }
}

/// The parent of the daemon, which starts the next one.
fn keeper(daemon: Option<i32>) -> Found {
    let Some(pid) = daemon else { return ok("no daemon runs") };
    let parent = proc::stat(pid).map_or(0, |stat| stat.parent);
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    match (parent, program(parent)) {
        (0, _) => warn("the daemon's parent cannot be seen from here"),
        (parent, Some(of)) if Some(&of) == program(pid).as_ref() => ok(format!("pid {parent}")),
        (parent, None) if parent != 1 => warn(format!("pid {parent}, of which the program cannot be seen")),
        _ => warn("gone: nobody starts the daemon again if it dies: pmx update gets a new one"),
    }
}

fn open_files(daemon: Option<i32>) -> Found {
    let advice = "raise the hard limit (LimitNOFILE= in the unit, /etc/security/limits.conf)";
    let limit = match daemon.and_then(limit_of) {
        Some(limit) => Some(limit),
        None => getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
    };
    match limit {
        None => warn("the limit is not known"),
        Some(limit) if limit < OPEN_FILES => {
            warn(format!("at most {limit}, for some {} processes: {advice}", limit / 4))
        }
        Some(limit) => ok(format!("at most {limit}")),
    }
}

/// The hard limit of open files of a process.
fn limit_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1).map(|hard| hard.parse().unwrap_or(u64::MAX))
}

fn control_group() -> Found {
    let tree = Tree::find(&format!("pmx-doctor-{}", std::process::id()));
    let is_there = tree.is_there();
    tree.remove();
    match is_there {
        true => ok("apps get groups of their own: nothing escapes, and limits of memory, cpu and pids hold"),
        false => warn(
            "none is ours: processes are held by their marks, and limits of memory, cpu and pids do not hold; \
             pmx startup user, or Delegate=yes in the unit, gives us one",
        ),
    }
}

fn node(session: &Session<'_, '_>) -> Found {
    let path = session.caller.var("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file());
    let Some(program) = program else {
        return warn("not on PATH: apps in JavaScript cannot be started, all others can");
    };
    let shown = program.display();
    let ran = Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let version = match ran {
        Ok(ran) if ran.status.success() => String::from_utf8_lossy(&ran.stdout).trim().to_string(),
        Ok(_) => return wrong(format!("{shown} --version fails: install it anew")),
        Err(error) => return wrong(format!("run {shown}: {}", crate::sys::reason(&error))),
    };
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < NODE => {
            warn(format!("{version} ({shown}): pmx is tested with {NODE} and newer"))
        }
        _ => ok(format!("{version} ({shown})")),
    }
}

fn disk(home: &Home) -> Found {
    let path = existing(&home.path.join("logs"));
    let Some((free, all)) = system::disk(&path) else { return warn("the free space is not known") };
    let text = format!("{} of {} are free in {}", bytes(free), bytes(all), path.display());
    match free {
        free if free < NO_SPACE => {
            wrong(format!("{text}: what apps write will be lost; pmx flush empties the logs"))
        }
        free if free < LITTLE_SPACE => warn(format!("{text}: pmx flush empties the logs")),
        _ => ok(text),
    }
}

fn logs(home: &Home) -> Found {
    let folder = home.path.join("logs");
    let files = fs::read_dir(&folder).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.file_name())));
    let (mut sum, mut longest) = (0, None);
    for (size, name) in sizes {
        sum += size;
        longest = longest.max(Some((size, name)));
    }
    match longest {
        Some((size, name)) if size >= LONG_LOG => warn(format!(
            "{} is {} long: pmx flush empties it, logrotate keeps it short",
            folder.join(name).display(),
            bytes(size)
        )),
        _ => ok(format!("{} in {}", bytes(sum), folder.display())),
    }
}

/// What the daemon notes in memory, so that the next one goes on where it died.
fn journal() -> Found {
    let path = Path::new("/dev/shm");
    let lost = "if keeper and daemon are killed together, the apps are not found again";
    match system::disk(path) {
        Some(_) if access(path, AccessFlags::W_OK).is_err() => {
            warn(format!("/dev/shm cannot be written to: {lost}"))
        }
        Some((free, _)) if free < JOURNAL => warn(format!("/dev/shm has {} left: {lost}", bytes(free))),
        Some((free, _)) => ok(format!("/dev/shm has {} left", bytes(free))),
        None => warn(format!("there is no /dev/shm: {lost}")),
    }
}

fn kernel() -> Found {
    let Some(release) = system::line("/proc/sys/kernel/osrelease") else {
        return warn("there is no /proc: usage of memory and processor is not known");
    };
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    match version {
        Some(version) if version < KERNEL => wrong(format!("{release}: pmx needs 5.4 or newer")),
        _ => ok(release),
    }
}

fn check_clock(now: Wall) -> Found {
    match now {
        now if now < WRITTEN => wrong(format!("it shows {now}: set it, or cron and logs are wrong")),
        now => ok(now.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_wrong() {
        assert_eq!(check_clock(Wall(0)).0, State::Wrong);
        assert_eq!(check_clock(clock::wall()).0, State::Ok);
    }
}
