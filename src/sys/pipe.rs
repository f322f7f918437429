//! Pipes that carry a child's output to us, and memory files that carry text to a child.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;

/// A pipe: our end to read, nonblocking, and the child's end to write, blocking. Both close on exec.
/// Ours alone is nonblocking: a program whose stdout is nonblocking loses output.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Asks for a buffer of so many bytes; the kernel rounds up, and refuses more than an unprivileged user
/// may have (EPERM). Returns the size it has now.
pub fn grow(pipe: BorrowedFd, bytes: usize) -> io::Result<usize> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    Ok(fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes))? as usize)
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one; there may be more.
    Bytes(usize),
    /// Nothing at present: wait for an event.
    Empty,
    /// Nobody can write any more.
    Closed,
}

/// One read of a nonblocking pipe or socket into a buffer that is not empty.
pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<Read> {
    debug_assert!(!buffer.is_empty());
    loop {
        match nix::unistd::read(fd, buffer) {
            Ok(0) => return Ok(Read::Closed),
            Ok(count) => return Ok(Read::Bytes(count)),
            Err(nix::Error::EAGAIN) => return Ok(Read::Empty),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A file in memory with this content, which nobody can change any more: children may share it. It is
/// at its beginning, closes on exec, and is read by name as `/proc/self/fd/<n>`.
pub fn memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all_at(bytes, 0)?;
    file.flush()?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    debug_assert!(file.as_raw_fd() > 2, "0 to 2 are open for the life of the process");
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::testing::wait_until;

    fn flags(fd: &OwnedFd) -> (bool, bool) {
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        (status.contains(OFlag::O_NONBLOCK), fcntl(fd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0)
    }

    #[test]
    fn only_our_end_is_nonblocking_and_both_close_on_exec() {
        let (read, write) = pipe().unwrap();
        assert_eq!(flags(&read), (true, true));
        assert_eq!(flags(&write), (false, true));
    }

    #[test]
    fn a_read_tells_bytes_from_nothing_from_the_end() {
        let (ours, theirs) = pipe().unwrap();
        let mut buffer = [0; 4];
        assert_eq!(read(ours.as_fd(), &mut buffer).unwrap(), Read::Empty);
        nix::unistd::write(&theirs, b"seven b").unwrap();
        assert_eq!(read(ours.as_fd(), &mut buffer).unwrap(), Read::Bytes(4));
        assert_eq!(read(ours.as_fd(), &mut buffer).unwrap(), Read::Bytes(3));
        assert_eq!(&buffer[..3], b"n b");
        assert_eq!(read(ours.as_fd(), &mut buffer).unwrap(), Read::Empty);
        drop(theirs);
        // A child that another test is just starting may still hold a copy.
        wait_until("the end", || (read(ours.as_fd(), &mut buffer).unwrap() == Read::Closed).then_some(()));
    }

    #[test]
    fn a_pipe_can_grow() {
        let (ours, _theirs) = pipe().unwrap();
        assert_eq!(grow(ours.as_fd(), 200_000).unwrap(), 262_144);
        assert!(grow(ours.as_fd(), usize::MAX).is_err());
    }

    #[test]
    fn a_memory_file_is_read_by_name_and_cannot_be_changed() {
        let fd = memfd("text", b"hello").unwrap();
        assert_eq!(flags(&fd), (false, true));
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert!(File::from(fd).write_all_at(b"J", 0).is_err());
        let fd = memfd("empty", b"").unwrap();
        assert_eq!(io::read_to_string(File::from(fd)).unwrap(), "");
    }
}
