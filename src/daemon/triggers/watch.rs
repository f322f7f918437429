//! `watch`: the kernel tells what happens in the directories of an app, and once that has settled all its
//! processes are replaced. What changes again and again because of that is given a rest.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use super::super::event_loop::Daemon;
use super::super::source::{Progress, Source};
use super::super::watch::{unwatch, watch};
use crate::app::rotation::is_old;
use crate::app::{App, Watch, Watched};
use crate::protocol::{Cause, Watching};
use crate::supervisor::{Desired, ProcId, Process, State, Why};
use crate::sys::inotify::{self, Change, Watches, What};
use crate::time::{Millis, Mono};

/// After a change it waits for more of them at least so long.
const SETTLE: Millis = Millis(100);
/// Under changes without end it waits so long, or ten times the delay of the app.
const LONGEST: Millis = Millis(5_000);
/// So many restarts within this time are a loop.
const LOOP: (usize, Millis) = (10, Millis(60_000));
/// Directories that are looked into in one round, and batches of changes.
const BUDGET: usize = 64;
/// More directories than this are not watched.
const MOST: usize = 1 << 18;

/// All watched directories.
#[derive(Debug, Default)]
pub struct Watcher {
    watches: Option<Watches>,
    directories: HashMap<i32, PathBuf>,
    /// Not looked into yet.
    pending: VecDeque<PathBuf>,
    /// By the name of the app.
    groups: BTreeMap<String, Group>,
}

/// The processes of one name.
#[derive(Debug)]
struct Group {
    watch: Watch,
    cwd: PathBuf,
    roots: Vec<PathBuf>,
    /// The logs of the app and the home.
    own: Vec<PathBuf>,
    /// The first and the last change, and the file of the last, since the last restart.
    changed: Option<(Mono, Mono, String)>,
    restarts: VecDeque<Mono>,
    /// It restarts itself: since the last change, and of which file.
    paused: Option<(Mono, String)>,
    /// Why it cannot be watched.
    fault: Option<String>,
}

impl Group {
    fn due(&self) -> Option<Mono> {
        if let Some((last, _)) = &self.paused {
            return Some(*last + LOOP.1);
        }
        let (first, last, _) = self.changed.as_ref()?;
        let settle = SETTLE.max(self.watch.delay);
        let longest = LONGEST.max(Millis(self.watch.delay.0.saturating_mul(10)));
        Some((*last + settle).min(*first + longest))
    }

    /// Whether it matters to the app what becomes of a file: `Some`, and what it is called.
    fn concerns(&self, path: &Path, is_dir: bool) -> Option<String> {
        let root = self.roots.iter().find(|root| path.starts_with(root))?;
        if self.own.iter().any(|own| path.starts_with(own) || is_old_log(own, path)) {
            return None;
        }
        let below = path.strip_prefix(root).ok()?.to_string_lossy().into_owned();
        let shown = path.strip_prefix(&self.cwd).unwrap_or(path).to_string_lossy().into_owned();
        (below.is_empty() || self.watch.matters(&below, &shown, is_dir)).then_some(shown)
    }

    fn change(&mut self, shown: String, now: Mono) {
        if let Some((last, _)) = &mut self.paused {
            *last = now;
            return;
        }
        let first = self.changed.as_ref().map_or(now, |(first, ..)| *first);
        self.changed = Some((first, now, shown));
    }
}

impl Watcher {
    /// When it wants to be visited.
    pub fn deadline(&self) -> Option<Mono> {
        self.groups.values().filter_map(Group::due).min()
    }

    /// Whether anything is watched for an app of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// Whether an app is watched.
    pub fn watching(&self, name: &str) -> Watching {
        match self.groups.get(name) {
            None => Watching::Off,
            Some(Group { fault: Some(fault), .. }) => Watching::Failed(fault.clone()),
            Some(Group { paused: Some((_, file)), .. }) => Watching::Paused(format!(
                "{} restarts within a minute, the last because {file} changed; it goes on after a quiet minute",
                LOOP.0
            )),
            Some(_) => Watching::On,
        }
    }

    /// Watches one directory, and remembers those in it for later.
    fn look_into(&mut self, directory: &Path) {
        let Some(watches) = &self.watches else { return };
        let number = match watches.tree(directory) {
            Ok(number) => number,
            Err(error) => {
                let is_gone =
                    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP));
                if !is_gone {
                    self.cannot_watch(directory, &error);
                }
                return;
            }
        };
        let is_new = self.directories.insert(number, directory.to_path_buf()).is_none();
        if self.directories.len() > MOST {
            let error = io::Error::other(format!("more than {MOST} directories"));
            return self.cannot_watch(directory, &error);
        }
        let is_wanted = |path: &Path| {
            self.groups.values().any(|group| {
                group.concerns(path, true).is_some() || group.roots.iter().any(|root| root == path)
            })
        };
        // The directory around a root is watched for the root alone.
        if !is_wanted(directory) && is_new {
            return;
        }
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_wanted(&entry.path()) {
                self.pending.push_back(entry.path());
            }
        }
    }

    fn cannot_watch(&mut self, directory: &Path, error: &io::Error) {
        let reason = match error.raw_os_error() {
            Some(libc::ENOSPC) => format!(
                "the limit of watched directories is reached (fs.inotify.max_user_watches = {}): raise it, or \
                 ignore more of them",
                inotify::limit("max_user_watches")
            ),
            _ => crate::sys::reason(error),
        };
        for (name, group) in &mut self.groups {
            let concerned =
                group.roots.iter().any(|root| directory.starts_with(root) || root.starts_with(directory));
            if concerned && group.fault.is_none() {
                let fault = format!("watch {}: {reason}", directory.display());
                log::error!("{name}: {fault}");
                group.fault = Some(fault);
            }
        }
    }

    fn take(&mut self, change: &Change, now: Mono) {
        match change.what {
            What::Lost => {
                log::warn!(
                    "watch: more changes at once than the kernel remembers; looking at everything anew"
                );
                for group in self.groups.values_mut() {
                    group.change("more than can be told".to_string(), now);
                    self.pending.extend(group.roots.iter().cloned());
                }
                return;
            }
            What::Unwatched => {
                self.directories.remove(&change.directory);
                return;
            }
            What::Came | What::Went | What::Written => {}
        }
        let Some(directory) = self.directories.get(&change.directory) else { return };
        let path = directory.join(&change.name);
        let mut is_wanted = false;
        for group in self.groups.values_mut() {
            if let Some(shown) = group.concerns(&path, change.is_dir) {
                is_wanted = true;
                // With extensions only files can matter.
                if !change.is_dir || group.watch.extensions.is_empty() {
                    group.change(shown, now);
                }
            }
        }
        // What is a link leads to other directories than before.
        if is_wanted && change.what == What::Came {
            self.pending.push_back(path);
        }
    }
}

impl Daemon {
    /// Watches for the apps of these names what they want now, while any of their processes is to run.
    pub(super) fn watch_files(&mut self, names: &BTreeSet<String>) {
        let mut removed = false;
        for name in names {
            let runs = |process: &&Process| {
                process.app.name == *name
                    && (process.desired == Desired::Up || process.state == State::Errored)
                    && process.app.triggers.watch.what != Watched::Off
            };
            let wanted = self.supervisor.processes().find(runs);
            let known = self.triggers.watcher.groups.get(name);
            let same = |process: &Process, group: &Group| {
                group.watch == process.app.triggers.watch && group.cwd == process.app.cwd.path()
            };
            match (wanted, known) {
                (None, None) => {}
                (Some(process), Some(group)) if same(process, group) => {}
                (None, Some(_)) => {
                    self.triggers.watcher.groups.remove(name);
                    removed = true;
                }
                (Some(process), known) => {
                    removed |= known.is_some();
                    let group = self.group(process.id, &process.app.clone());
                    let roots = group.roots.clone();
                    self.triggers.watcher.groups.insert(name.clone(), group);
                    self.add_roots(&roots);
                }
            }
        }
        if removed {
            self.watch_anew();
        }
    }

    fn group(&self, id: ProcId, app: &App) -> Group {
        let mut own = vec![self.home.path().to_path_buf()];
        // What other apps log belongs to nobody's sources either.
        let logs = self.supervisor.processes().map(|process| (process.id, &process.app));
        own.extend(logs.flat_map(|(id, app)| self.home.log_files(app, id.0)));
        own.extend(self.home.log_files(app, id.0));
        own.extend(self.supervisor.processes().filter_map(|process| process.app.pid_path(process.id.0)));
        own.extend(app.pid_path(id.0));
        let watch = app.triggers.watch.clone();
        let roots = watch.roots(app).iter().map(|root| root.path().to_path_buf()).collect();
        Group {
            watch,
            cwd: app.cwd.path().to_path_buf(),
            roots,
            own,
            changed: None,
            restarts: VecDeque::new(),
            paused: None,
            fault: None,
        }
    }

    /// Begins to watch these, in this round and those that follow.
    fn add_roots(&mut self, roots: &[PathBuf]) {
        if self.triggers.watcher.watches.is_none() {
            match Watches::new() {
                Ok(watches) => {
                    let fd = watches.as_fd().as_raw_fd();
                    watch(self.poll.registry(), fd, Source::Files, mio::Interest::READABLE);
                    self.triggers.watcher.watches = Some(watches);
                }
                Err(error) => {
                    let error = match error.raw_os_error() {
                        Some(libc::EMFILE) => io::Error::other(format!(
                            "the limit of inotify instances is reached (fs.inotify.max_user_instances = {})",
                            inotify::limit("max_user_instances")
                        )),
                        _ => error,
                    };
                    for root in roots {
                        self.triggers.watcher.cannot_watch(root, &error);
                    }
                    return;
                }
            }
        }
        for root in roots {
            // A root may be replaced as a whole.
            self.triggers.watcher.pending.extend(root.parent().map(Path::to_path_buf));
            self.triggers.watcher.pending.push_back(root.clone());
        }
        self.ready.insert(Source::Files);
    }

    /// Some directory may be watched for nobody any more.
    fn watch_anew(&mut self) {
        let watcher = &mut self.triggers.watcher;
        if let Some(watches) = watcher.watches.take() {
            unwatch(self.poll.registry(), watches.as_fd().as_raw_fd());
        }
        watcher.directories.clear();
        watcher.pending.clear();
        let roots: Vec<PathBuf> = watcher.groups.values().flat_map(|group| group.roots.clone()).collect();
        if !roots.is_empty() {
            self.add_roots(&roots);
        }
    }

    /// Takes what happened, and looks into more directories.
    pub(in super::super) fn take_files(&mut self) -> Progress {
        let now = self.now;
        let watcher = &mut self.triggers.watcher;
        for _ in 0..BUDGET {
            let Some(directory) = watcher.pending.pop_front() else { break };
            watcher.look_into(&directory);
        }
        for _ in 0..BUDGET {
            let Some(watches) = &watcher.watches else { return Progress::Drained };
            match watches.changes() {
                Ok(changes) if changes.is_empty() => {
                    return if watcher.pending.is_empty() { Progress::Drained } else { Progress::More };
                }
                Ok(changes) => changes.iter().for_each(|change| watcher.take(change, now)),
                Err(error) => {
                    log::error!("watch: {}", crate::sys::reason(&error));
                    return Progress::Drained;
                }
            }
        }
        Progress::More
    }

    /// Replaces the processes whose files have settled.
    pub(super) fn look_at_files(&mut self) {
        let mut changed = Vec::new();
        for (name, group) in &mut self.triggers.watcher.groups {
            if group.due().is_none_or(|due| due > self.now) {
                continue;
            }
            if group.paused.take().is_some() {
                log::info!("{name}: watched again");
                group.restarts.clear();
                continue;
            }
            let Some((_, _, file)) = group.changed.take() else { continue };
            group.restarts.retain(|at| self.now.since(*at) < LOOP.1);
            if group.restarts.len() >= LOOP.0 {
                log::warn!(
                    "{name}: {file} changed after each of {} restarts: not watched for a while",
                    LOOP.0
                );
                group.paused = Some((self.now, file));
                continue;
            }
            group.restarts.push_back(self.now);
            changed.push((name.clone(), file));
        }
        for (name, file) in changed {
            let processes = self.supervisor.processes().filter(|process| process.app.name == name);
            for id in processes.map(|process| process.id).collect::<Vec<_>>() {
                let reason = format!("watch: {file} changed");
                self.trigger(id, None, Why { cause: Cause::Watch, reason });
            }
        }
    }
}
/// Whether a path is that of an old file of a log, or of one that becomes one.
fn is_old_log(log: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let (Some(log_name), Some(name)) = (name(log), name(path)) else { return false };
    log.parent() == path.parent() && is_old(&log_name, name.strip_suffix(".part").unwrap_or(&name))
}
