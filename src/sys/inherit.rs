//! File descriptors that whoever started us passed on by number.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes possession of an inherited fd; children do not inherit it in turn. To be called once per
/// number, by `main`, before anything else is open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the fd is only asked for its flags; if it is not open, that is the error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and nobody in this process has opened it: it came from outside.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes what whoever started us left open by accident, all but 0, 1, 2 and `wanted`: a daemon would hold
/// it for years. To be called by `main`, before anything else is open.
pub fn close_others(wanted: &[RawFd]) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    // The list's own fd is among them, and closed with it.
    let open: Vec<RawFd> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !wanted.contains(fd)) {
        // SAFETY: nobody in this process has opened it: it came from outside. One that is closed
        // already is an error that changes nothing, as no other thread opens any.
        unsafe { libc::close(fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_taken() {
        assert!(take(1).is_err());
        assert!(take(60_001).is_err());
    }
}
