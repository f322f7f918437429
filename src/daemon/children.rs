//! The living children, and what is known of each.
//!
//! `start` starts them, `messages` is what goes over their channels, `outputs` what they write, `ends` how they end;
//! `record` is what of all this the journal holds, and how a next daemon goes on from there. What they bring about is
//! held together in `containment`.

mod ends;
mod messages;
mod outputs;
mod record;
mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::channel::Channel;
use super::containment::Containment;
use super::home::Stream;
use super::log::{Counts, Output, Tail};
use super::notify::Words;
use super::sink::Sink;
use crate::app::App;
use crate::protocol::{Axm, Used};
use crate::supervisor::{ChildId, End, Leak, ProcId};
use crate::sys::cgroup::Group;
use crate::sys::kept::Kept;
use crate::sys::{pidfd, signals};
use crate::time::{Millis, Mono, Wall};

pub use ends::describe;
pub use outputs::stream_source;
pub use record::{ChildRecord, OutputRecord};
pub use start::{Ready, Refused, Request, c_environment, c_string};

/// How often it is looked whether what a child left has ended.
pub const LINGER_LOOK: Millis = Millis(20);

/// One living child.
#[derive(Debug)]
pub struct Child {
    /// The process it is for.
    pub process: ProcId,
    /// The process id of its leader, which is also that of its group and session, if it did not take the place of another
    /// one.
    pub pid: i32,
    /// What it runs.
    pub app: Arc<App>,
    /// Its place among the instances of its app.
    pub instance: u32,
    /// When it was spawned.
    pub since: Mono,
    /// The same for people.
    pub since_wall: Wall,
    /// Its channel, while it is open.
    pub channel: Option<Channel>,
    /// The runtime's version, where its preload told us.
    pub node_version: Option<String>,
    /// What it told about itself.
    pub axm: Axm,
    /// The messages it wants, by their topics.
    pub topics: Vec<String>,
    /// So many messages were lost on it.
    pub lost: u64,
    /// What it said by sd_notify, for people.
    pub words: Words,
    /// Why it could not have the address on which it wanted to listen last.
    pub refused: Option<String>,
    /// Processor time at the last look, and when that was.
    pub cpu_seen: Option<(Mono, u64)>,
    /// The same at the last sample; `None`: it was started by a daemon before us, and there was none yet.
    pub sampled: Option<(Mono, u64)>,
    /// Whether its memory grows.
    pub leak: Leak,
    pub(super) pidfd: Option<Kept<OwnedFd>>,
    tail: Tail,
    pub(super) told_to_stop: bool,
    /// All that is left of it got SIGKILL.
    pub(super) killed: bool,
    /// The inode of its stdin, if that is a pipe of ours.
    pub stdin: Option<u64>,
    /// What it used, once its leader has ended.
    pub used: Option<Used>,
    /// Its leader has ended; others of it have not.
    pub(super) ended: Option<End>,
    /// Which daemon of this keeper started it.
    generation: u32,
    /// Its parent may be neither we nor our keeper: its end is seen by its pidfd.
    orphan: bool,
    /// When it started, in ticks of this boot.
    pub(super) start_ticks: u64,
    /// By which its processes are known.
    pub(super) mark: String,
    /// The control groups that hold them.
    pub(super) group: Option<Group>,
}

/// All living children and the pipes of those that are gone.
#[derive(Debug, Default)]
pub struct Children {
    /// Boxed, as all of which there are many: the nodes of a map are half empty.
    pub(super) living: BTreeMap<ChildId, Box<Child>>,
    pub(super) by_pid: HashMap<i32, ChildId>,
    /// Pipes live on as long as anybody holds them, which may be longer than the child.
    outputs: BTreeMap<(ChildId, Stream), Box<Output>>,
    pub(super) lingering: BTreeSet<ChildId>,
    /// Whose output found no room since the last round, and how many lines of it.
    pub(super) losing: BTreeMap<ProcId, u64>,
    pub(super) containment: Containment,
    /// Where output goes in a container.
    sink: Option<Sink>,
    /// In a container: there is but one child, which gets stdin, stdout and the terminal as they are.
    is_single: bool,
    /// The limits of open files, soft and hard, that children get back.
    pub nofile: Option<[u64; 2]>,
    /// The inclination to be killed for want of memory that children get back.
    pub oom_score_adj: Option<i32>,
    /// Our own.
    pub own_oom_score: Option<i32>,
    /// How many daemons this keeper had before us.
    pub generation: u32,
    /// Outputs that want to be looked at, whatever happens.
    due: BTreeSet<(Mono, (ChildId, Stream))>,
    counts: HashMap<ProcId, Counts>,
    /// Children that changed since the journal was last told.
    pub changed: BTreeSet<ChildId>,
    /// The same of outputs.
    pub changed_outputs: BTreeSet<(ChildId, Stream)>,
    /// Channels from which something was taken that is not on record.
    unsettled: BTreeSet<ChildId>,
}

impl Child {
    /// The last lines it wrote.
    pub fn last_lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// By which its processes are known.
    pub fn mark(&self) -> &str {
        &self.mark
    }
}

impl Children {
    /// All living children.
    pub fn ids(&self) -> impl Iterator<Item = ChildId> + '_ {
        self.living.keys().copied()
    }

    /// A living child.
    pub fn get(&self, id: ChildId) -> Option<&Child> {
        self.living.get(&id).map(Box::as_ref)
    }

    /// A living child.
    pub fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.living.get_mut(&id).map(Box::as_mut)
    }

    /// The child that a reaped process was.
    pub fn find(&self, pid: i32) -> Option<ChildId> {
        self.by_pid.get(&pid).copied()
    }

    /// A child said something for people. Tells whether that is new.
    pub fn say(&mut self, id: ChildId, say: impl FnOnce(&mut Words)) -> bool {
        let Some(child) = self.living.get_mut(&id) else { return false };
        let before = child.words.clone();
        say(&mut child.words);
        let is_new = child.words != before;
        if is_new {
            self.changed.insert(id);
        }
        is_new
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, id: ChildId, signal: i32) {
        let Some(child) = self.living.get(&id).filter(|child| child.ended.is_none()) else { return };
        if let Err(error) = pidfd::send(child.pidfd.as_ref().map(AsFd::as_fd), child.pid, signal) {
            log::warn!("send {} to {}: {error}", signals::name(signal), child.pid);
        }
    }
}
