//! What the kernel tells about another process in /proc/<pid>/stat.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::pidfd;

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R` running, `S` sleeping, `D` waiting for a disk, `T` stopped, `Z` zombie, and rarer ones.
    pub state: char,
    /// The process that will reap it.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Processor time it has used, user and kernel, in ms. Without that of its children.
    pub cpu_ms: u64,
    /// The same of those of its children that it has reaped, and of theirs.
    pub children_cpu_ms: u64,
    /// How many threads it has.
    pub threads: u32,
    /// Memory it has resident, in bytes.
    pub rss_bytes: u64,
    /// When it started, in clock ticks since boot: with the pid and the boot id, who it is.
    pub start_ticks: u64,
}

impl Stat {
    /// When it started, in ms since boot.
    pub fn started_ms(&self) -> u64 {
        self.start_ticks.saturating_mul(1_000) / Units::of_system().ticks_per_second
    }
}

/// The clock tick in which a process started that did so between two moments of [`clock::boot_nanos`], if they lie in
/// one: as the kernel counts (proc_pid_stat(5), starttime), and far cheaper than to ask it.
///
/// [`clock::boot_nanos`]: super::clock::boot_nanos
pub fn start_tick(since: u64, until: u64) -> Option<u64> {
    let tick = |nanos: u64| nanos / (1_000_000_000 / Units::of_system().ticks_per_second).max(1);
    (since > 0 && tick(since) == tick(until)).then(|| tick(since))
}

/// The longest line the kernel writes is well below this: 52 numbers and a name of at most 64 bytes.
const LONGEST: usize = 1536;

/// Looks at process `pid`; `None` if there is none (or no /proc). A zombie is there, and is `Z`.
pub fn stat(pid: i32) -> Option<Stat> {
    look(pid).ok()
}

/// The same, and why not.
fn look(pid: i32) -> io::Result<Stat> {
    let mut path = String::with_capacity("/proc/2147483648/stat".len());
    let _ = write!(path, "/proc/{pid}/stat");
    let mut buffer = [0; LONGEST];
    // The kernel writes it all into one read.
    let count = File::open(path)?.read(&mut buffer)?;
    parse(&buffer[..count], Units::of_system()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Finds the process again that was started with this pid at this tick of this boot, as the child `id` of the
/// daemon of `home`: as far as the kernel and its environment tell. `None`: it has ended.
///
/// # Errors
/// It cannot be told, or it lives and cannot be held.
pub fn find_child(pid: i32, start_ticks: u64, home: &Path, id: u32) -> io::Result<Option<OwnedFd>> {
    // The pidfd first: what is true of the pid after that is true of it.
    let held = pidfd::open(pid);
    if matches!(&held, Err(error) if error.raw_os_error() == Some(libc::ESRCH)) {
        return Ok(None);
    }
    let stat = match look(pid) {
        Ok(stat) => stat,
        Err(error) => {
            let is_gone = held.as_ref().is_ok_and(|pidfd| pidfd::has_ended(pidfd.as_fd()));
            // Without a pidfd: as far as one may see.
            let is_absent = held.is_err() && error.kind() == io::ErrorKind::NotFound;
            return if is_gone || is_absent { Ok(None) } else { Err(error) };
        }
    };
    let is_it = !matches!(stat.state, 'Z' | 'X')
        && stat.start_ticks == start_ticks
        && start_ticks != 0
        && says_it_is(pid, home, id);
    if is_it { held.map(Some) } else { Ok(None) }
}

fn says_it_is(pid: i32, home: &Path, id: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let value = |name: &[u8]| {
        environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name))
            .map(<[u8]>::to_vec)
    };
    // Programs may write over their environment; one that says otherwise is somebody else.
    value(b"PMX_HOME=").is_none_or(|found| found == home.as_os_str().as_bytes())
        && value(b"pm_id=").is_none_or(|found| found == id.to_string().as_bytes())
}

/// The value of a variable in the environment that process `pid` was started with, if we may see it and it has not
/// been written over.
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// Memory of process `pid` in bytes, where what it shares with others counts for it in part: what it would free
/// if they all ended, in sum. Dear: the kernel walks its page tables.
pub fn proportional_memory(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// How many files process `pid` has open; `None` if we may not know.
pub fn open_files(pid: i32) -> Option<u32> {
    let path = format!("/proc/{pid}/fd");
    // Kernels from 6.2 on tell by the size of the folder.
    let count = match std::fs::metadata(&path).ok()?.len() {
        0 => std::fs::read_dir(&path).ok()?.count() as u64,
        count => count,
    };
    Some(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A process and all that descend from it by way of living parents; `None` where the kernel does not list
/// children. It costs as much as there are of them, however many processes there are beside.
pub fn descendants(pid: i32) -> Option<Vec<i32>> {
    /// More than any program has that is not out of hand.
    const MOST: usize = 1 << 16;
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        at += 1;
        // Each thread has its own.
        let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            match std::fs::read_to_string(thread.path().join("children")) {
                Ok(text) => {
                    found.extend(text.split_ascii_whitespace().filter_map(|id| id.parse::<i32>().ok()))
                }
                Err(error) if parent == pid && error.kind() == std::io::ErrorKind::NotFound => return None,
                Err(_) => {}
            }
        }
        if found.len() > MOST {
            break;
        }
    }
    Some(found)
}

/// The name of this boot; empty without /proc.
pub fn boot_id() -> io::Result<String> {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => Ok(text.trim().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// What the numbers are counted in.
#[derive(Clone, Copy)]
struct Units {
    ticks_per_second: u64,
    page_bytes: u64,
}

impl Units {
    fn of_system() -> Units {
        let read = |what, usual| match sysconf(what) {
            Ok(Some(value)) if value > 0 => value as u64,
            _ => usual,
        };
        Units {
            ticks_per_second: read(SysconfVar::CLK_TCK, 100),
            page_bytes: read(SysconfVar::PAGE_SIZE, 4096),
        }
    }
}

fn parse(line: &[u8], units: Units) -> Option<Stat> {
    // A name may hold anything, ") " included; what follows it does not.
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(line.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
    // Counted as in proc(5), where the state is field 3.
    let state = fields.next()?.chars().next()?;
    let mut id = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (id()?, id()?, id()?);
    let mut number = |skip: usize| fields.nth(skip)?.parse::<u64>().ok();
    let user = number(14 - 7)?;
    let system = number(0)?;
    let of_children = number(0)?.saturating_add(number(0)?);
    let threads = number(20 - 18)?;
    let start_ticks = number(22 - 21)?;
    let pages = number(24 - 23)?;
    let ms = |ticks: u64| ticks.saturating_mul(1_000) / units.ticks_per_second;
    Some(Stat {
        state,
        parent,
        group,
        session,
        cpu_ms: ms(user.saturating_add(system)),
        children_cpu_ms: ms(of_children),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        rss_bytes: pages.saturating_mul(units.page_bytes),
        start_ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::send;
    use crate::sys::reap::reap_one;
    use crate::sys::testing::{shell, wait_until};

    const UNITS: Units = Units { ticks_per_second: 100, page_bytes: 4096 };

    #[test]
    fn whatever_the_name_the_fields_are_found() {
        let rest = "S 7 12 12 0 -1 4194304 95 0 0 0 150 25 9 9 20 0 1 0 123456 8388608 300 \
                    18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
        let expected = Stat {
            state: 'S',
            parent: 7,
            group: 12,
            session: 12,
            cpu_ms: 1_750,
            children_cpu_ms: 180,
            threads: 1,
            rss_bytes: 300 * 4096,
            start_ticks: 123_456,
        };
        for name in ["sh", "a b", ") R 1 1 1", "))) ((", "\u{fffd}", ""] {
            assert_eq!(parse(format!("12 ({name}) {rest}\n").as_bytes(), UNITS), Some(expected), "{name}");
        }
        let mut bytes = b"12 (\xff\xfe) ".to_vec();
        bytes.extend_from_slice(rest.as_bytes());
        assert_eq!(parse(&bytes, UNITS), Some(expected));
        for cut in 0..90 {
            let whole = format!("12 (sh) {rest}");
            let text = &whole[..cut.min(whole.len())];
            // Whatever is cut off, no panic; and nothing is made up before the last field that counts.
            assert!(parse(text.as_bytes(), UNITS).is_none() || cut > 74, "{text}");
        }
    }

    #[test]
    fn who_descends_is_found_and_nobody_else() {
        let child = shell("sleep 1000 & sh -c 'sleep 1000 & wait' & wait");
        let found = wait_until("four of them", || descendants(child.pid).filter(|found| found.len() == 4));
        assert_eq!(found[0], child.pid);
        for pid in &found[1..] {
            assert!(found.contains(&stat(*pid).unwrap().parent), "{found:?}");
        }
        assert!(
            proportional_memory(child.pid).is_some_and(|bytes| bytes < stat(child.pid).unwrap().rss_bytes)
        );
        for pid in found.into_iter().rev() {
            // The shells end by themselves when their last one does.
            let _ = send(None, pid, libc::SIGKILL);
        }
        wait_until("an end", || reap_one(child.pid));
        assert_eq!(descendants(0), Some(vec![0]));
    }

    #[test]
    fn open_files_are_counted() {
        let child = shell(
            "exec 0</dev/null 1>/dev/null 2>/dev/null 5</dev/null 7</dev/null; echo $$ >&2; sleep 1000",
        );
        let listed =
            || std::fs::read_dir(format!("/proc/{}/fd", child.pid)).map_or(0, Iterator::count) as u32;
        wait_until("its files", || {
            let count = open_files(child.pid)?;
            (count >= 5 && count == listed()).then_some(())
        });
        for pid in descendants(child.pid).unwrap().into_iter().rev() {
            send(None, pid, libc::SIGKILL).unwrap();
        }
        wait_until("an end", || reap_one(child.pid));
        assert_eq!(open_files(child.pid), None);
    }

    #[test]
    fn a_real_child_with_an_awkward_name() {
        let own = std::process::id() as i32;
        let me = stat(own).unwrap();
        assert!(me.rss_bytes > 1 << 20 && me.start_ticks > 0, "{me:?}");
        // The name comes from /proc/self/comm; the loop uses processor time, of which it has 5 s, so that
        // a test that fails leaves nothing behind.
        let child = shell("ulimit -t 5; printf ') Z 0 (' > /proc/$$/comm; while :; do :; done");
        let busy = wait_until("processor time", || stat(child.pid).filter(|stat| stat.cpu_ms >= 30));
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", child.pid)).unwrap();
        assert_eq!(comm, ") Z 0 (\n");
        assert_eq!((busy.state, busy.parent), ('R', own));
        assert!(busy.start_ticks >= me.start_ticks);
        assert!((100_000..100_000_000).contains(&busy.rss_bytes), "{busy:?}");
        send(None, child.pid, libc::SIGKILL).unwrap();
        wait_until("a zombie", || (stat(child.pid)?.state == 'Z').then_some(()));
        assert_eq!(stat(child.pid).unwrap().start_ticks, busy.start_ticks);
        wait_until("an end", || reap_one(child.pid));
        assert_eq!(stat(child.pid), None);
        assert_eq!(stat(0), None);
        assert_eq!(stat(-1), None);
    }
}
