//! The declared files that hold the process ids of apps while they run, for people and tools; nothing is decided by
//! them.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::event_loop::Daemon;
use crate::supervisor::{ProcId, State};

/// What was written, by process.
#[derive(Debug, Default)]
pub struct PidFiles(BTreeMap<ProcId, (PathBuf, i32)>);

impl Daemon {
    /// Has the file of a process say what is true of it now.
    pub(super) fn keep_pid_file(&mut self, id: ProcId) {
        let process = self.supervisor.process(id);
        let path = process.and_then(|process| process.app.pid_path(id.0));
        // A command before or after it is not it.
        let child = process.and_then(|process| match process.state {
            State::Launching { child, .. } | State::Online { child, .. } => self.children.get(child),
            State::Stopping(leaving) => self.children.get(leaving.child),
            State::Preparing { .. } | State::Cleaning { .. } => None,
            State::Stopped | State::Waiting | State::Blocked | State::Errored => None,
        });
        let wanted = path.clone().zip(child.map(|child| child.pid));
        let written = self.pid_files.0.get(&id);
        if written == wanted.as_ref() && written.is_some() {
            return;
        }
        // Without a word about it in this daemon it may be of the one before.
        let stale = self.pid_files.0.remove(&id).map(|(path, _)| path).or(path);
        if let Some(stale) = stale.filter(|stale| wanted.as_ref().is_none_or(|(path, _)| path != stale)) {
            let _ = fs::remove_file(stale);
        }
        let Some((path, pid)) = wanted else { return };
        match write(&path, pid) {
            Ok(()) => drop(self.pid_files.0.insert(id, (path, pid))),
            Err(error) => log::warn!("write {}: {}", path.display(), crate::sys::reason(&error)),
        }
    }
}

/// Whoever reads it finds all of it or nothing: it is too short to be written in parts.
fn write(path: &Path, pid: i32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    // Nothing that somebody put in its place is followed, or waited for.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            }
            options.open(path)?
        }
        opened => opened?,
    };
    writeln!(file, "{pid}")
}
