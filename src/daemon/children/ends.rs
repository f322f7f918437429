//! How children end: a leader that is reaped, one whose parent we do not know, and one that another takes the place of.

use std::os::fd::{AsFd, AsRawFd};

use mio::{Interest, Registry};

use super::{Child, Children};
use crate::daemon::source::Source;
use crate::daemon::watch::{unwatch, watch};
use crate::protocol::Used;
use crate::supervisor::{ChildId, End};
use crate::sys::cgroup::Group;
use crate::sys::kept::Kept;
use crate::sys::lift::lift;
use crate::sys::reap::{ExitStatus, Reaped};
use crate::sys::{pidfd, proc, signals};
use crate::time::Mono;

impl Children {
    /// Takes in the end of a child. `Some`: it is over. `None`: others that it brought about live on.
    pub fn ended(&mut self, id: ChildId, reaped: &Reaped, now: Mono) -> Option<(Child, End)> {
        let child = self.living.get_mut(&id)?;
        self.by_pid.remove(&reaped.pid);
        self.changed.insert(id);
        // Where nobody tells there are zeroes.
        child.used = Some(Used {
            user_ms: reaped.user_ms,
            system_ms: reaped.system_ms,
            max_rss_kb: reaped.max_rss_kb,
        })
        .filter(|used| used.max_rss_kb > 0);
        let code = match reaped.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal { .. } | ExitStatus::Unknown => None,
        };
        let mut text = describe(reaped.status);
        if let Some(refused) = child.refused.take().filter(|_| code != Some(0) && !child.told_to_stop) {
            text = format!("{text} ({refused})");
        }
        let may_be_victim = !child.told_to_stop && (code.is_none() || child.app.limits.memory.is_some());
        let lacked_memory = |group: &Group| self.containment.has_lacked_memory(group);
        let out_of_memory = may_be_victim && child.group.as_ref().is_some_and(lacked_memory);
        if out_of_memory {
            text.push_str(" (out of memory)");
        }
        let end = End { code, text, out_of_memory, last_lines: child.tail.lines() };
        self.leader_ended(id, end, now)
    }

    /// The leader has ended. If it said which other process is the main one (`MAINPID=` of sd_notify(3)), that one is the
    /// leader from now on; false: there is none.
    pub fn succeed(&mut self, registry: &Registry, id: ChildId) -> bool {
        let Some(child) = self.living.get_mut(&id) else { return false };
        let main = child.words.main_pid.filter(|pid| *pid != child.pid);
        let Some(pid) = main.filter(|_| !child.told_to_stop && child.ended.is_none()) else { return false };
        // First held, then looked at: so it is this one that is held.
        let Ok(pidfd) = pidfd::open(pid) else { return false };
        let lives = |stat: &proc::Stat| !matches!(stat.state, 'Z' | 'X');
        let Some(stat) = proc::stat(pid).filter(lives) else { return false };
        if stat.start_ticks != child.words.main_since {
            return false;
        }
        log::info!("{}({}): {pid} goes on in place of {}", child.app.name, child.process.0, child.pid);
        self.by_pid.remove(&child.pid);
        self.by_pid.insert(pid, id);
        let pidfd = lift(pidfd);
        watch(registry, pidfd.as_raw_fd(), Source::Orphan(id), Interest::READABLE);
        (child.pid, child.start_ticks, child.orphan) = (pid, stat.start_ticks, true);
        child.pidfd = Some(Kept::from(pidfd));
        self.changed.insert(id);
        true
    }

    /// The keeper is gone: children that earlier daemons started have no parent that we know.
    pub fn orphan(&mut self) {
        for (id, child) in &mut self.living {
            if child.generation != self.generation {
                child.orphan = true;
                self.changed.insert(*id);
            }
        }
    }

    /// How an orphan ended: unknown where the kernel does not say. `None`: it lives.
    pub fn orphan_ended(&self, id: ChildId) -> Option<Reaped> {
        let child = self.living.get(&id).filter(|child| child.ended.is_none())?;
        let pidfd = child.pidfd.as_ref()?.as_fd();
        if !pidfd::has_ended(pidfd) {
            return None;
        }
        let status = pidfd::exit_status(pidfd).unwrap_or(ExitStatus::Unknown);
        Some(Reaped { pid: child.pid, status, user_ms: 0, system_ms: 0, max_rss_kb: 0 })
    }

    /// It ended, and its pidfd tells nothing more.
    pub fn unwatch_orphan(&mut self, registry: &Registry, id: ChildId) {
        if let Some(pidfd) = self.living.get(&id).and_then(|child| child.pidfd.as_ref()) {
            unwatch(registry, pidfd.as_raw_fd());
        }
    }
}

/// `exit code 1`, `killed by SIGSEGV (core dumped)`.
pub fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal { number, core } => {
            format!("killed by {}{}", signals::name(number), if core { " (core dumped)" } else { "" })
        }
        ExitStatus::Unknown => "ended, nobody knows how: its keeper was killed".to_string(),
    }
}
