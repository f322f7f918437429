//! Files that change while they are followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

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
}
