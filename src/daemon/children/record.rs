//! What of a child is on record, and how a next daemon goes on from there: with all of it, or after our keeper died with
//! us with what can be found again.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use mio::{Interest, Registry};
use serde::{Deserialize, Serialize};

use super::outputs::plan;
use super::{Child, Children, messages};
use crate::app::{App, Text};
use crate::daemon::channel::{Channel, Unsent};
use crate::daemon::home::{Home, Stream};
use crate::daemon::log::{self as output, Shelf, Tail, To, Writer, WriterRecord};
use crate::daemon::notify::Words;
use crate::daemon::source::Source;
use crate::daemon::watch::watch;
use crate::protocol::{Axm, Used};
use crate::supervisor::{ChildId, End, Leak, ProcId};
use crate::sys::kept::Kept;
use crate::sys::{failpoint, inherit, proc};
use crate::time::{Mono, Wall};

/// A child for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChildRecord {
    pub(in super::super) process: ProcId,
    pub(in super::super) pid: i32,
    /// In format 1.
    #[serde(default, skip_serializing)]
    app: Option<App>,
    instance: u32,
    since: Mono,
    since_wall: Wall,
    #[serde(default)]
    channel: Option<RawFd>,
    /// Of the channel, for when its number has lost its meaning.
    #[serde(default)]
    channel_inode: u64,
    #[serde(default)]
    unsent: Vec<Unsent>,
    #[serde(default)]
    node_version: Option<String>,
    #[serde(default)]
    axm: Axm,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    words: Words,
    #[serde(default)]
    pidfd: Option<RawFd>,
    #[serde(default)]
    pub(in super::super) told_to_stop: bool,
    #[serde(default)]
    stdin: Option<u64>,
    #[serde(default)]
    used: Option<Used>,
    #[serde(default)]
    ended: Option<End>,
    #[serde(default)]
    generation: u32,
    #[serde(default)]
    orphan: bool,
    #[serde(default)]
    start_ticks: u64,
    #[serde(default)]
    mark: String,
    #[serde(default)]
    group: Vec<Text>,
    #[serde(default)]
    killed: bool,
}

impl ChildRecord {
    /// After our keeper died with us: finds the child again, beyond doubt. False: it has ended.
    ///
    /// # Errors
    /// That cannot be told, or it lives and cannot be held.
    pub fn find_again(&mut self, home: &Path, stored: &mut BTreeMap<u64, OwnedFd>) -> Result<bool, String> {
        // A channel that nobody kept ended with the daemon that had it, and so did what was on its way.
        let is_cut = self.unsent.iter().any(|unsent| unsent.rider().is_some());
        let channel = stored.remove(&self.channel_inode).filter(|_| !is_cut);
        if channel.is_none() {
            self.unsent.clear();
        }
        self.channel = channel.map(IntoRawFd::into_raw_fd);
        self.orphan = true;
        self.generation = 0;
        if self.ended.is_some() {
            return Ok(false);
        }
        let found = proc::find_child(self.pid, self.start_ticks, home, self.process.0).map_err(|error| {
            let (pid, id) = (self.pid, self.process.0);
            format!("find process {pid} of an earlier daemon again (id {id}): {}", crate::sys::reason(&error))
        })?;
        self.pidfd = found.map(IntoRawFd::into_raw_fd);
        Ok(self.pidfd.is_some())
    }

    /// Its app, where it is on record with it.
    pub fn whole(&self) -> Option<&App> {
        self.app.as_ref()
    }

    /// The same, taken out.
    pub fn take_whole(&mut self) -> Option<App> {
        self.app.take()
    }

    /// Whether it has a channel.
    pub fn has_channel(&self) -> bool {
        self.channel.is_some()
    }

    /// Its channel, by inode and fd.
    pub fn socket(&self) -> Option<(u64, RawFd)> {
        self.channel.map(|fd| (self.channel_inode, fd))
    }

    /// The fds that it stands for.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let riders = self.unsent.iter().filter_map(Unsent::rider);
        self.pidfd.into_iter().chain(self.channel).chain(riders)
    }
}

/// A stream of a child for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutputRecord {
    /// The pipe, our end.
    pub pipe: RawFd,
    /// The log file.
    #[serde(default)]
    pub file: Option<RawFd>,
    /// In a container, what goes to our own stdout or stderr: of which process, and its app's name.
    #[serde(default)]
    pub whose: Option<(u32, String)>,
    /// What tells the pipe from others.
    #[serde(default)]
    pub inode: u64,
    /// How its files are written; `None` in a container, and in what earlier versions wrote.
    #[serde(default)]
    writer: Option<WriterRecord>,
}

impl OutputRecord {
    /// The fds that it stands for.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        let combined = self.writer.as_ref().and_then(|writer| writer.combined);
        [Some(self.pipe), self.file, combined].into_iter().flatten()
    }

    /// After our keeper died with us: opens the files.
    pub fn open_anew(&mut self, home: &Home, app: &App, process: u32, stream: Stream) {
        let plan = plan(home, app, process, stream);
        self.file = plan.path.as_ref().and_then(|path| output::open_fd(path.path()));
        self.writer = Some(WriterRecord::new(plan));
    }
}

impl Children {
    /// A child for the journal.
    pub fn record(&self, id: ChildId) -> Option<ChildRecord> {
        let child = self.living.get(&id)?;
        Some(ChildRecord {
            process: child.process,
            pid: child.pid,
            app: None,
            instance: child.instance,
            since: child.since,
            since_wall: child.since_wall,
            channel: child.channel.as_ref().map(Channel::fd),
            channel_inode: child.channel.as_ref().map_or(0, Channel::inode),
            unsent: child.channel.as_ref().map_or(Vec::new(), Channel::unsent),
            node_version: child.node_version.clone(),
            axm: Axm { monitor: Default::default(), ..child.axm.clone() },
            topics: child.topics.clone(),
            words: child.words.clone(),
            pidfd: child.pidfd.as_ref().map(|pidfd| pidfd.as_raw_fd()),
            told_to_stop: child.told_to_stop,
            stdin: child.stdin,
            used: child.used,
            ended: child.ended.clone(),
            generation: child.generation,
            orphan: child.orphan,
            start_ticks: child.start_ticks,
            mark: child.mark.clone(),
            group: child.group.iter().flat_map(|group| &group.paths).map(Text::from).collect(),
            killed: child.killed,
        })
    }

    /// A stream for the journal.
    pub fn output_record(&self, of: (ChildId, Stream)) -> Option<OutputRecord> {
        let output = self.outputs.get(&of)?;
        let (pipe, file) = output.fds();
        let whose = output.whose().map(|(process, name)| (process, name.to_string()));
        let writer = output.writer().map(Writer::record);
        Some(OutputRecord { pipe, file, whose, inode: output.inode(), writer })
    }

    /// Takes over a child of a daemon before us.
    pub fn restore(&mut self, registry: &Registry, id: ChildId, record: ChildRecord, app: Arc<App>) {
        failpoint::panic_on("restore", &app.name);
        let take = |fd: Option<RawFd>| fd.and_then(|fd| inherit::take(fd).ok());
        let channel = take(record.channel).map(|socket| messages::open(registry, id, socket, record.unsent));
        let pidfd = take(record.pidfd).map(Kept::from);
        let paths = record.group.iter().map(|path| path.path().to_path_buf()).collect();
        let group = self.containment.restore(paths);
        if record.orphan {
            match &pidfd {
                Some(pidfd) => watch(registry, pidfd.as_raw_fd(), Source::Orphan(id), Interest::READABLE),
                None => log::error!("{} of {}: nobody will tell of its end", record.pid, app.name),
            }
        }
        if record.ended.is_some() {
            self.lingering.insert(id);
        } else {
            self.by_pid.insert(record.pid, id);
        }
        self.living.insert(
            id,
            Box::new(Child {
                process: record.process,
                pid: record.pid,
                app,
                instance: record.instance,
                since: record.since,
                since_wall: record.since_wall,
                channel,
                node_version: record.node_version,
                axm: record.axm,
                topics: record.topics,
                lost: 0,
                words: record.words,
                refused: None,
                cpu_seen: None,
                sampled: None,
                leak: Leak::default(),
                pidfd,
                tail: Tail::default(),
                told_to_stop: record.told_to_stop,
                killed: record.killed,
                stdin: record.stdin,
                used: record.used,
                ended: record.ended,
                generation: record.generation,
                orphan: record.orphan,
                start_ticks: record.start_ticks,
                mark: record.mark,
                group,
            }),
        );
    }

    /// Takes over a stream of a daemon before us.
    pub fn restore_output(
        &mut self,
        registry: &Registry,
        of: (ChildId, Stream),
        record: OutputRecord,
        shelf: &mut Shelf,
        now: Mono,
    ) {
        let pipe = match inherit::take(record.pipe) {
            Ok(pipe) => pipe,
            Err(error) => return log::error!("take over a pipe of {of:?}: {error}"),
        };
        let to = match (&self.sink, record.whose) {
            (Some(sink), Some((process, name))) => To::Lines(sink.lines(of.1, process, &name)),
            _ => {
                let writer = record.writer.unwrap_or_default();
                To::Files(Box::new(Writer::restore(of.1, record.file, writer, shelf, now)))
            }
        };
        self.add_output(registry, of, pipe, to);
        self.look_later(of);
    }
}
