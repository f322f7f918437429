//! What a child brings about: kept together from its start, found again, told to stop, and ended. A control group
//! holds it where one can be had; else its session and group, its descendants and the mark in their environment
//! tell who belongs to it, and the keeper gets whoever lost a parent.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use mio::Registry;

use super::children::{Child, Children, Refused, Request};
use super::home::Home;
use crate::app::{KillMode, Limits};
use crate::node;
use crate::supervisor::{ChildId, End};
use crate::sys::census::{self, Census, Member, Root};
use crate::sys::cgroup::{self, Group, Tree};
use crate::sys::{family, pidfd, proc, signals};
use crate::time::{Millis, Mono, Wall};

/// `off`: no control groups.
const SWITCH: &str = "PMX_CGROUP";
/// How long it is looked often whether a group whose child is over is empty; later only when another one is over.
const PATIENCE: Millis = Millis(5_000);
/// How often processes without a control group are looked for in a row, while there are new ones.
const PASSES: usize = 8;
/// The end of a group's name whose processes are left to themselves.
const LEFT: &str = "-left";

/// Where the processes of children are kept together.
#[derive(Debug, Default)]
pub struct Containment {
    tree: Tree,
    /// To make a group and to remove one takes the kernel a good part of the time between an end and the start after it.
    /// So one waits for the next child, ...
    spare: RefCell<Option<Spare>>,
    /// ... and those whose child is over go after that; until when it is looked often whether they can.
    leaving: Vec<(Group, Option<Mono>)>,
    /// Groups whose child is over, and until when it is looked often.
    litter: Vec<(Group, Option<Mono>)>,
    /// A look at all processes that serves for one round.
    census: Census,
}

/// A group without limits, made ahead.
#[derive(Debug)]
struct Spare {
    /// Whose it is to be. Its name tells, should we die before that one is on record.
    child: ChildId,
    /// `None`: it could not be made.
    group: Option<Group>,
}

impl Containment {
    /// The groups for a new child. The error is about a declared limit that cannot be had.
    pub fn enter(&self, request: &Request, mark: &str) -> Result<Option<Group>, Refused> {
        let left = if request.app.kill_mode == KillMode::Process { LEFT } else { "" };
        let limits = together(&request.app.limits);
        if left.is_empty()
            && limits == cgroup::Limits::default()
            && let Some(spare) = self.spare.borrow_mut().take_if(|spare| spare.child == request.child)
            && spare.group.is_some()
        {
            return Ok(spare.group);
        }
        let made = self.tree.create(&format!("{}{left}", group_name(mark)), &limits);
        made.map_err(|reason| Refused { reason, transient: false, errno: 0 })
    }

    /// Has a group wait for the next child, or none. One that waited for another child is removed.
    fn keep_spare(&mut self, next: Option<ChildId>, home: &Home, wall: Wall) {
        let spare = self.spare.get_mut();
        if spare.as_ref().map(|spare| spare.child) == next {
            return;
        }
        let unused = spare.take().and_then(|spare| spare.group);
        *spare = next.map(|child| {
            let made = self.tree.create(group_name(&home.mark(child.0, wall)), &cgroup::Limits::default());
            Spare { child, group: made.unwrap_or_default() }
        });
        self.dispose(unused, None);
    }

    /// Whether the kernel has killed anybody in a group for want of memory.
    pub fn has_lacked_memory(&self, group: &Group) -> bool {
        self.tree.has_lacked_memory(group)
    }

    /// Those of recorded groups that are ours.
    pub fn restore(&self, paths: Vec<PathBuf>) -> Option<Group> {
        let is_ours = !paths.is_empty() && paths.iter().all(|path| self.tree.owns(path));
        is_ours.then_some(Group { paths })
    }

    fn remove_leaving(&mut self) {
        for (group, until) in std::mem::take(&mut self.leaving) {
            self.dispose(Some(group), until);
        }
    }

    fn dispose(&mut self, group: Option<Group>, until: Option<Mono>) {
        if let Some(group) = group.filter(|group| !group.remove()) {
            self.litter.push((group, until));
        }
    }

    fn tidy(&mut self, now: Mono) {
        self.litter.retain_mut(|(group, until)| {
            *until = until.filter(|until| *until > now);
            !group.remove()
        });
    }
}

/// What the group of a child is called that has this mark.
fn group_name(mark: &str) -> &str {
    mark.split_once('-').map_or(mark, |(_, name)| name)
}

/// What a control group is to limit.
fn together(limits: &Limits) -> cgroup::Limits {
    cgroup::Limits {
        cpu_us: limits.cpu.map(|percent| u64::from(percent) * cgroup::CPU_PERIOD_US / 100),
        memory: limits.memory,
        memory_high: limits.memory_high,
        pids: limits.pids,
    }
}

impl Children {
    /// From now on children get groups of their own, where there can be such.
    pub fn contain(&mut self, home: &Home) {
        if std::env::var_os(SWITCH).is_some_and(|value| value == "off") {
            return;
        }
        self.containment.tree = Tree::find(&home.group());
        if !self.containment.tree.is_there() {
            log::info!("there are no control groups for us to use: processes are known by their marks");
        }
    }

    /// Ends what daemons before us started and did not write down (`is_ours` tells by the number of the child), names
    /// what else there is, and has the groups of those that are over removed.
    pub fn sweep(&mut self, now: Mono, is_ours: impl Fn(ChildId) -> bool) {
        let known: BTreeSet<PathBuf> = self
            .living
            .values()
            .filter_map(|child| Some(child.group.as_ref()?.paths.clone()))
            .flatten()
            .collect();
        for group in self.containment.tree.left(&known) {
            let name = group.paths.first().and_then(|path| path.file_name()?.to_str()).unwrap_or_default();
            let number = name.split('-').next().and_then(|number| number.parse().ok());
            // Others than these were left on purpose.
            if !name.ends_with(LEFT) && !group.is_empty() {
                if number.is_some_and(|number| is_ours(ChildId(number))) {
                    log::warn!("processes were started and are not on record: they are ended ({name})");
                    group.kill();
                } else {
                    let pids = group.pids();
                    log::warn!(
                        "processes of an earlier daemon are on no record and left alone: {pids:?} ({name})"
                    );
                }
            }
            self.containment.dispose(Some(group), Some(now + PATIENCE));
        }
    }

    /// What was begun in this round is done: what could wait follows, and a group is made for the child after the last
    /// one, whose number is `next`.
    pub fn end_round(&mut self, next: ChildId, home: &Home, wall: Wall) {
        self.containment.remove_leaving();
        let is_used = self.containment.tree.is_there() && !self.living.is_empty();
        self.containment.keep_spare(is_used.then_some(next), home, wall);
    }

    /// Nothing is to be started any more: our directories go.
    pub fn leave(&mut self, home: &Home, now: Mono) {
        self.containment.remove_leaving();
        self.containment.keep_spare(None, home, Wall(0));
        self.containment.tidy(now);
        self.containment.tree.remove();
    }

    /// All processes of a living child: itself and what it brought about. Of many children with one look.
    pub fn members(&self, id: ChildId, census: &Census) -> Vec<Member> {
        let Some(child) = self.living.get(&id) else { return Vec::new() };
        match &child.group {
            Some(group) => group.pids().into_iter().filter_map(alive).collect(),
            None => {
                let root = Root { pid: child.pid, start_ticks: child.start_ticks, mark: &child.mark };
                census.members(&root, &[std::process::id() as i32, family::parent()])
            }
        }
    }

    /// The same, by their pids, where some may have ended: at the least cost.
    pub fn pids(&self, id: ChildId, census: &Census) -> Vec<i32> {
        match self.living.get(&id).and_then(|child| child.group.as_ref()) {
            Some(group) => self.containment.tree.pids(group),
            None => self.members(id, census).iter().map(|member| member.pid).collect(),
        }
    }

    /// Sends the stop signal of a child to whom it is for.
    pub fn stop(&mut self, id: ChildId, signal: i32) {
        if signal == libc::SIGKILL {
            return self.kill(id);
        }
        let Some(child) = self.living.get_mut(&id) else { return };
        child.told_to_stop = true;
        self.changed.insert(id);
        let mode = child.app.kill_mode;
        // One that was stopped could not react.
        for number in [signal, libc::SIGCONT] {
            match mode {
                KillMode::Process => self.signal(id, number),
                KillMode::Group => self.signal_group(id, number),
                KillMode::Tree => {
                    self.signal_group(id, number);
                    self.signal_others(id, number);
                }
            }
        }
    }

    /// Asks a child by message to end; by the signal, where it has no channel.
    pub fn ask_to_stop(&mut self, registry: &Registry, id: ChildId, or: i32) {
        if !self.send(registry, id, node::shutdown(), None) {
            return self.stop(id, or);
        }
        let Some(child) = self.living.get_mut(&id) else { return };
        child.told_to_stop = true;
        self.changed.insert(id);
        // One that was stopped could not read it.
        self.signal_group(id, libc::SIGCONT);
    }

    /// Ends a child, and what it brought about.
    pub fn kill(&mut self, id: ChildId) {
        let Some(child) = self.living.get_mut(&id) else { return };
        child.told_to_stop = true;
        child.killed = true;
        self.changed.insert(id);
        match child.app.kill_mode {
            KillMode::Process => self.signal(id, libc::SIGKILL),
            KillMode::Group | KillMode::Tree => self.end_all(id),
        }
    }

    /// In which states those processes of a child are that should have ended: `D` is one that the kernel holds.
    pub fn survivors(&self, id: ChildId) -> Option<String> {
        let mut members = self.members(id, &Census::default());
        let child = self.living.get(&id)?;
        if child.app.kill_mode == KillMode::Process {
            members.retain(|member| member.pid == child.pid);
        }
        let states = members.iter().filter_map(|member| Some(proc::stat(member.pid)?.state));
        let states: BTreeSet<char> = states.collect();
        (!states.is_empty()).then(|| states.into_iter().collect())
    }

    /// Takes in the end of a leader, which is `end`. `Some`: the child is over. `None`: others of it live. Those that
    /// were told to stop have until the kill timeout.
    pub(super) fn leader_ended(&mut self, id: ChildId, end: End, now: Mono) -> Option<(Child, End)> {
        let child = self.living.get_mut(&id)?;
        if child.app.kill_mode == KillMode::Process || !self.has_left(id) {
            return self.over(id, now).map(|child| (child, end));
        }
        let child = self.living.get_mut(&id)?;
        child.ended = Some(end);
        if !child.told_to_stop {
            log::info!("{}({}): what it left is ended", child.app.name, child.process.0);
        }
        self.lingering.insert(id);
        self.press(id);
        None
    }

    /// Whether any processes are being waited for.
    pub fn is_lingering(&self) -> bool {
        !self.lingering.is_empty() || self.containment.litter.iter().any(|(_, until)| until.is_some())
    }

    /// A round is over: who was there need not be there any more.
    pub fn forget_census(&mut self) {
        self.containment.census = Census::default();
    }

    /// Those children of which nothing is left by now. The others are pressed on.
    pub fn take_gone(&mut self, now: Mono) -> Vec<(ChildId, Child, End)> {
        let mut ends = Vec::new();
        for id in self.lingering.iter().copied().collect::<Vec<_>>() {
            if self.has_left(id) {
                self.press(id);
                continue;
            }
            self.lingering.remove(&id);
            if let Some(mut child) = self.over(id, now)
                && let Some(end) = child.ended.take()
            {
                ends.push((id, child, end));
            }
        }
        self.containment.tidy(now);
        ends
    }

    fn over(&mut self, id: ChildId, now: Mono) -> Option<Child> {
        self.changed.insert(id);
        let mut child = self.living.remove(&id)?;
        let until = (child.app.kill_mode != KillMode::Process).then_some(now + PATIENCE);
        self.containment.tidy(now);
        self.containment.leaving.extend(child.group.take().map(|group| (group, until)));
        Some(*child)
    }

    /// The leader has ended and others have not: ends them, unless they have time yet.
    fn press(&mut self, id: ChildId) {
        let Some(child) = self.living.get_mut(&id) else { return };
        let has_time = match child.app.kill_mode {
            _ if child.killed || !child.told_to_stop => false,
            KillMode::Group => group_alive(child),
            KillMode::Tree | KillMode::Process => true,
        };
        if !has_time {
            child.killed = true;
            self.end_all(id);
        }
    }

    /// Whether anybody but the leader, which has ended, is left of a child.
    fn has_left(&self, id: ChildId) -> bool {
        let Some(child) = self.living.get(&id) else { return false };
        if let Some(group) = &child.group {
            return !group.is_empty();
        }
        if group_alive(child) {
            return true;
        }
        // Whoever lost a parent is our keeper's child by now: if there is none, a look at all is spared.
        if adopted().is_some_and(|pids| pids.iter().all(|pid| self.by_pid.contains_key(pid))) {
            return false;
        }
        let members = self.members(id, &self.containment.census);
        members.into_iter().any(|member| member.pid != child.pid && alive(member.pid) == Some(member))
    }

    /// SIGKILL to all processes of a child.
    fn end_all(&self, id: ChildId) {
        let Some(child) = self.living.get(&id) else { return };
        self.signal_group(id, libc::SIGKILL);
        if let Some(group) = &child.group {
            return group.kill();
        }
        let mut seen: BTreeSet<Member> = BTreeSet::new();
        for pass in 0..PASSES {
            let fresh = Census::default();
            let mut members = self.members(id, if pass == 0 { &self.containment.census } else { &fresh });
            members.retain(|member| seen.insert(*member));
            if members.is_empty() {
                return;
            }
            for (member, error) in census::signal(&members, libc::SIGKILL) {
                log::warn!("end {} of {}: {}", member.pid, child.app.name, crate::sys::reason(&error));
            }
        }
    }

    /// Sends a signal to the process group that a child leads or led.
    fn signal_group(&self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get(&id) else { return };
        if let Err(error) = to_group(child, signal)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            log::warn!("send {} to the group of {}: {error}", signals::name(signal), child.pid);
        }
    }

    /// Sends a signal to those processes of a child that left its group.
    fn signal_others(&self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get(&id) else { return };
        let is_in_group = |pid: i32| proc::stat(pid).is_none_or(|stat| stat.group == child.pid);
        match &child.group {
            Some(group) => group.signal(signal, is_in_group),
            None => {
                let mut members = self.members(id, &self.containment.census);
                members.retain(|member| !is_in_group(member.pid));
                for (member, error) in census::signal(&members, signal) {
                    let (name, reason) = (signals::name(signal), crate::sys::reason(&error));
                    log::warn!("send {name} to {} of {}: {reason}", member.pid, child.app.name);
                }
            }
        }
    }
}

/// A process, if it has not ended.
fn alive(pid: i32) -> Option<Member> {
    let stat = proc::stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
    Some(Member { pid, start_ticks: stat.start_ticks })
}

/// By the pidfd, which is the group's own even when the leader's number is another's by now. Kernels before 6.9
/// cannot; there the number serves, which is the group's as long as it has a member.
fn to_group(child: &Child, signal: i32) -> std::io::Result<()> {
    let Some(held) = &child.pidfd else { return pidfd::send_group(child.pid, signal) };
    match pidfd::send_group_held(held.as_fd(), signal) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) => {
            pidfd::send_group(child.pid, signal)
        }
        sent => sent,
    }
}

fn group_alive(child: &Child) -> bool {
    // Members of another user are members.
    !matches!(to_group(child, 0), Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}

/// The children of our keeper but ourselves; `None`: the kernel does not tell, or it is not our keeper any more.
fn adopted() -> Option<Vec<i32>> {
    let keeper = family::parent();
    let text = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
    let own = std::process::id() as i32;
    Some(text.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own).collect())
}
