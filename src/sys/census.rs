//! Which processes there are, and which of them belong to one child: its descendants, its session and group,
//! and those that carry its mark in their environment. What /proc tells at one moment; before anything is done
//! to a process that was found, it is looked at again.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use super::{pidfd, proc};

/// The variable that tells whose process one is.
pub const MARK: &str = "PMX_INSTANCE";

/// A process that a child brought about, or the child itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its process id.
    pub pid: i32,
    /// When it started, in ticks of this boot.
    pub start_ticks: u64,
}

/// The child whose processes are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The leader of its session and group.
    pub pid: i32,
    /// When that started; 0: nobody knows.
    pub start_ticks: u64,
    /// What [`MARK`] says in all that it starts.
    pub mark: &'a str,
}

/// One look at all processes, taken when somebody first asks.
#[derive(Debug, Default)]
pub struct Census {
    found: OnceCell<BTreeMap<i32, proc::Stat>>,
    marks: OnceCell<BTreeMap<i32, String>>,
}

impl Census {
    fn found(&self) -> &BTreeMap<i32, proc::Stat> {
        self.found.get_or_init(|| {
            let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            pids.filter_map(|pid| Some((pid, proc::stat(pid)?))).collect()
        })
    }

    /// The memory of all processes of the child whose first one this is, where what they share with others counts in
    /// part. Dear: the kernel walks the page tables of each.
    pub fn proportional_memory(&self, pid: i32) -> Option<u64> {
        let mark = proc::variable(pid, MARK)?;
        let root = Root { pid, start_ticks: proc::stat(pid)?.start_ticks, mark: &mark };
        self.members(&root, &[]).iter().map(|member| proc::proportional_memory(member.pid)).sum()
    }

    /// The processes of a child, zombies left out. `strangers` are ours: the daemon and its keeper.
    pub fn members(&self, root: &Root, strangers: &[i32]) -> Vec<Member> {
        let found = self.found();
        let leader = found.get(&root.pid);
        // Its number is its own while it is there; afterwards it may be anybody's.
        let leads = leader.is_some_and(|stat| root.start_ticks == 0 || stat.start_ticks == root.start_ticks);
        let is_own = |pid: i32, stat: &proc::Stat| {
            leads && (pid == root.pid || stat.session == root.pid || stat.group == root.pid)
                || stat.start_ticks >= root.start_ticks && self.is_marked(pid, root.mark)
        };
        let mut members: BTreeSet<i32> =
            found.iter().filter(|(pid, stat)| is_own(**pid, stat)).map(|(pid, _)| *pid).collect();
        strangers.iter().for_each(|pid| {
            members.remove(pid);
        });
        loop {
            let is_new = |pid: &i32, stat: &proc::Stat| {
                members.contains(&stat.parent) && !members.contains(pid) && !strangers.contains(pid)
            };
            let more: Vec<i32> =
                found.iter().filter(|(pid, stat)| is_new(pid, stat)).map(|(pid, _)| *pid).collect();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        let member = |pid: i32| {
            let stat = found.get(&pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
            Some(Member { pid, start_ticks: stat.start_ticks })
        };
        members.into_iter().filter_map(member).collect()
    }

    fn is_marked(&self, pid: i32, mark: &str) -> bool {
        self.marks.get_or_init(|| self.read_marks()).get(&pid).is_some_and(|found| found == mark)
    }

    fn read_marks(&self) -> BTreeMap<i32, String> {
        // A process without memory is the kernel's, or has ended.
        let alive = self.found().iter().filter(|(_, stat)| stat.rss_bytes > 0);
        alive.filter_map(|(pid, _)| Some((*pid, proc::variable(*pid, MARK)?))).collect()
    }
}

/// Takes hold of those of `members` that are still who they were.
pub fn hold(members: &[Member]) -> Vec<(Member, OwnedFd)> {
    let hold = |member: &Member| {
        let held = pidfd::open(member.pid).ok()?;
        // What holds after it was opened holds for what was opened.
        let same = proc::stat(member.pid)?.start_ticks == member.start_ticks;
        same.then_some((*member, held))
    };
    members.iter().filter_map(hold).collect()
}

/// Sends a signal to those of `members` that are still who they were. Those that cannot be signalled are told.
pub fn signal(members: &[Member], number: i32) -> Vec<(Member, std::io::Error)> {
    let mut failed = Vec::new();
    for (member, held) in hold(members) {
        if let Err(error) = pidfd::send_held(held.as_fd(), number)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            failed.push((member, error));
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::reap::reap_one;
    use crate::sys::spawn::{Spawn, Spawned, spawn};
    use crate::sys::testing::{c, wait_until};

    fn start(script: &str, mark: &str) -> Spawned {
        let wanted = Spawn {
            programs: &[c("/bin/sh")],
            argv: &[c("sh"), c("-c"), c(script)],
            env: &[c("PATH=/usr/bin:/bin"), c(&format!("{MARK}={mark}"))],
            env_pid: None,
            cwd: c"/",
            umask: 0o022,
            fds: &[],
            ..Spawn::default()
        };
        spawn(&wanted).unwrap()
    }

    #[test]
    fn p05_whoever_a_child_brought_about_is_found_and_nobody_else() {
        let own = std::process::id() as i32;
        let mark = format!("test-{own}");
        // In the group; in a session of its own; and one whose parents are gone, by its mark.
        let script = "sleep 60 & setsid sleep 60 & (setsid sh -c 'sleep 60 & exit' &) & exec sleep 60";
        let child = start(script, &mark);
        let other = start("exec sleep 60", &format!("{mark}-other"));
        let start_ticks = proc::stat(child.pid).unwrap().start_ticks;
        let root = Root { pid: child.pid, start_ticks, mark: &mark };
        let is_sleep = |pid: i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        let members = wait_until("four sleepers", || {
            let found = Census::default().members(&root, &[own]);
            (found.len() == 4 && found.iter().all(|member| is_sleep(member.pid))).then_some(found)
        });
        assert!(members.iter().any(|member| member.pid == child.pid));
        assert!(members.iter().all(|member| member.pid != other.pid));
        let stranger = Root { start_ticks: start_ticks + 1, mark: "nobody", ..root };
        assert_eq!(Census::default().members(&stranger, &[own]), [], "p06: another one has its number");
        let reused = members.iter().map(|m| Member { start_ticks: m.start_ticks + 1, ..*m });
        assert!(hold(&reused.collect::<Vec<_>>()).is_empty());
        assert!(signal(&members, libc::SIGKILL).is_empty());
        wait_until("their end", || Census::default().members(&root, &[own]).is_empty().then_some(()));
        wait_until("the child's end", || reap_one(child.pid));
        assert!(reap_one(other.pid).is_none(), "it lives");
        pidfd::send(None, other.pid, libc::SIGKILL).unwrap();
        wait_until("the other's end", || reap_one(other.pid));
    }
}
