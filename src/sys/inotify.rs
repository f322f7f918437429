//! Files that change while they are followed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Something that happened in a directory that [`Watches::tree`] watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The directory's number; meaningless if changes were lost.
    pub directory: i32,
    /// What.
    pub what: What,
    /// It happened to a directory.
    pub is_dir: bool,
    /// To which file.
    pub name: OsString,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A name appeared.
    Came,
    /// A name is gone.
    Went,
    /// Somebody wrote, and is done.
    Written,
    /// The directory is no longer watched: it is gone.
    Unwatched,
    /// There were too many to remember.
    Lost,
}

/// What the kernel allows of it, for messages: `max_user_watches`, `max_user_instances`.
pub fn limit(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() { "unknown".to_string() } else { text.to_string() }
}

/// A set of watched files and directories.
#[derive(Debug)]
pub struct Watches(Inotify);

impl Watches {
    /// An empty set.
    pub fn new() -> io::Result<Watches> {
        Ok(Watches(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?))
    }

    /// Watches what is written to a file, and its truncation.
    pub fn file(&self, path: &Path) -> io::Result<()> {
        self.0.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        Ok(())
    }

    /// Watches what appears in a directory under a new name.
    pub fn directory(&self, path: &Path) -> io::Result<()> {
        self.0.add_watch(path, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        Ok(())
    }

    /// Watches what becomes of the files of a directory: the number stands for it in changes.
    pub fn tree(&self, path: &Path) -> io::Result<i32> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        Ok(self.0.add_watch(path, flags)?.as_raw())
    }

    /// Takes some of the pending changes; none: there is none.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let events = match self.0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let change = |event: nix::sys::inotify::InotifyEvent| {
            let has = |flag| event.mask.contains(flag);
            let what = if has(AddWatchFlags::IN_Q_OVERFLOW) {
                What::Lost
            } else if has(AddWatchFlags::IN_IGNORED) {
                What::Unwatched
            } else if has(AddWatchFlags::IN_CREATE) || has(AddWatchFlags::IN_MOVED_TO) {
                What::Came
            } else if has(AddWatchFlags::IN_DELETE) || has(AddWatchFlags::IN_MOVED_FROM) {
                What::Went
            } else {
                What::Written
            };
            let is_dir = has(AddWatchFlags::IN_ISDIR);
            Change { directory: event.wd.as_raw(), what, is_dir, name: event.name.unwrap_or_default() }
        };
        Ok(events.into_iter().map(change).collect())
    }

    /// Takes all pending events; true if there were any. Which ones is of no use: a queue that
    /// overflowed has lost some, so whoever follows must look at every file anyway.
    pub fn drain(&self) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.0.read_events() {
                Ok(events) if events.is_empty() => return Ok(any),
                Ok(_) => any = true,
                Err(Errno::EAGAIN) => return Ok(any),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_truncating_and_creating_are_seen() {
        let home = std::env::temp_dir().join(format!("pmx-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let file = home.join("a.log");
        std::fs::write(&file, "one\n").unwrap();
        let watches = Watches::new().unwrap();
        watches.file(&file).unwrap();
        watches.directory(&home).unwrap();
        assert!(!watches.drain().unwrap());
        std::fs::write(&file, "two\n").unwrap();
        assert!(watches.drain().unwrap());
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
        assert!(watches.drain().unwrap(), "truncated");
        std::fs::write(home.join("b.log"), "").unwrap();
        assert!(watches.drain().unwrap(), "created");
        assert!(!watches.drain().unwrap());
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_becomes_of_files_is_told_by_name() {
        let home = std::env::temp_dir().join(format!("pmx-inotify-tree-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let watches = Watches::new().unwrap();
        let directory = watches.tree(&home).unwrap();
        let file = home.join("a");
        std::fs::write(&file, "one").unwrap();
        std::fs::rename(&file, home.join("b")).unwrap();
        std::fs::create_dir(home.join("c")).unwrap();
        std::fs::remove_file(home.join("b")).unwrap();
        let mut found = Vec::new();
        loop {
            let some = watches.changes().unwrap();
            if some.is_empty() {
                break;
            }
            found.extend(some);
        }
        let expected = [
            (What::Came, false, "a"),
            (What::Written, false, "a"),
            (What::Went, false, "a"),
            (What::Came, false, "b"),
            (What::Came, true, "c"),
            (What::Went, false, "b"),
        ];
        let expected =
            expected.map(|(what, is_dir, name)| Change { directory, what, is_dir, name: name.into() });
        assert_eq!(found, expected);
        std::fs::remove_dir_all(&home).unwrap();
        // It is over once nobody holds the directory any more, for a moment.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !watches.changes().unwrap().iter().any(|change| change.what == What::Unwatched) {
            assert!(std::time::Instant::now() < until, "told that it is watched no more");
        }
        assert!(limit("max_user_watches").parse::<u64>().is_ok());
    }
}
