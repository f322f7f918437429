//! The lock that makes a daemon the only one of its home: `flock` on an inherited fd.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Opens the lock file, made private if it is new.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes the lock without waiting; false when somebody else holds it. It belongs to the open file
/// description: closing this `File` keeps it as long as a child that inherited the fd lives.
/// (nix's `Flock` unlocks when it is dropped, for the child too.)
pub fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        // SAFETY: flock reads no memory; the fd is open as long as `file` is borrowed.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// Lets children of this process inherit `fd` under the same number.
pub fn keep_over_exec(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_belongs_to_the_description_and_not_to_the_handle() {
        let path = std::env::temp_dir().join(format!("pmx-lock-{}", std::process::id()));
        let held = open(&path).unwrap();
        let other = open(&path).unwrap();
        assert!(try_lock(&held).unwrap());
        assert!(!try_lock(&other).unwrap());
        let inherited = held.try_clone().unwrap();
        drop(held);
        assert!(!try_lock(&other).unwrap(), "a duplicate still holds it");
        drop(inherited);
        assert!(try_lock(&other).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
