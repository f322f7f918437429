//! Pipes that carry a child's output to us, and memory files that carry text to a child.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statfs;
use nix::unistd::pipe2;

use super::lift::lift;

/// A pipe: our end to read, nonblocking, and the child's end to write, blocking. Both close on exec.
/// Ours alone is nonblocking: a program whose stdout is nonblocking loses output.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// A pipe for a child's output. The child's end can read as well: so as long as the child has it open, the pipe
/// does not break if we die, and can be [opened again](reopen). Without /proc it is an ordinary one.
pub fn for_output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    let both = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let write = nix::fcntl::open(path.as_str(), both, nix::sys::stat::Mode::empty()).unwrap_or(write);
    Ok((lift(read), write))
}

/// So much is written to a pipe as a whole or not at all.
pub const ATOMIC: usize = libc::PIPE_BUF;

/// A pipe for a child's input: the end that it reads, and its inode. The child's end can write as well, so the pipe
/// has no end as long as the child has it, whoever dies, and nobody need hold the other one: [`feed`] opens it each
/// time.
pub fn for_input() -> io::Result<(OwnedFd, u64)> {
    let (read, _write) = pipe2(OFlag::O_CLOEXEC)?;
    let both = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    let both = nix::fcntl::open(path.as_str(), both, nix::sys::stat::Mode::empty())?;
    let inode = inode(both.as_fd());
    Ok((both, inode))
}

/// Writes at most [`ATOMIC`] bytes to the stdin of process `pid`, if it is the pipe with this inode. `WouldBlock`: it is
/// full.
pub fn feed(pid: i32, inode: u64, bytes: &[u8]) -> io::Result<()> {
    debug_assert!(bytes.len() <= ATOMIC);
    // Only looked at first: to open what the child may have put there could do anything.
    let look = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let path = format!("/proc/{pid}/fd/0");
    let found = nix::fcntl::open(path.as_str(), look, nix::sys::stat::Mode::empty())?;
    if self::inode(found.as_fd()) != inode {
        return Err(io::Error::other("its stdin is another one by now"));
    }
    let how = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let pipe = nix::fcntl::open(path.as_str(), how, nix::sys::stat::Mode::empty())?;
    loop {
        match nix::unistd::write(&pipe, bytes) {
            Err(nix::Error::EINTR) => {}
            written => return Ok(written.map(|_| ())?),
        }
    }
}

/// Opens the pipe that process `pid` has as `fd`, to read from it, if it is the one with this inode.
pub fn reopen(pid: i32, fd: i32, inode: u64) -> io::Result<OwnedFd> {
    let how = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let path = format!("/proc/{pid}/fd/{fd}");
    let pipe = nix::fcntl::open(path.as_str(), how, nix::sys::stat::Mode::empty())?;
    if self::inode(pipe.as_fd()) == inode {
        Ok(pipe)
    } else {
        Err(io::Error::other("it is another one by now"))
    }
}

/// What tells an open pipe from all others.
pub fn inode(fd: BorrowedFd) -> u64 {
    nix::sys::stat::fstat(fd).map_or(0, |found| found.st_ino)
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

/// How many bytes wait in a pipe.
pub fn waiting(pipe: BorrowedFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to where it is told to.
    if unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, std::ptr::from_mut(&mut count)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(count as usize)
}

/// Whether there is something to read, or nobody left who could write.
pub fn state(pipe: BorrowedFd) -> io::Result<State> {
    let mut look = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, a local; it does not wait.
    while unsafe { libc::poll(&mut look, 1, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(match look.revents {
        bits if bits & libc::POLLIN != 0 => State::Readable,
        0 => State::Empty,
        _ => State::Closed,
    })
}

/// What [`state`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There are bytes, or, for a socket, its end.
    Readable,
    /// Nothing at present.
    Empty,
    /// Nothing, for ever.
    Closed,
}

/// An empty file in memory that closes on exec.
pub fn memory(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}

/// Where files in memory can have names. It lasts no longer than this boot.
pub const MEMORY: &str = "/dev/shm";

/// The same with `bytes` of it in place, which can be [given a name](name) where the machine has a file system in
/// memory that has room.
pub fn nameable(what: &str, bytes: usize) -> io::Result<OwnedFd> {
    let how = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let made = || -> io::Result<OwnedFd> {
        let file = nix::fcntl::open(MEMORY, how, Mode::S_IRUSR | Mode::S_IWUSR)?;
        if statfs::fstatfs(&file)?.filesystem_type() != statfs::TMPFS_MAGIC {
            return Err(io::Error::other("not in memory"));
        }
        if bytes > 0 {
            // What is mapped must be there: the kernel ends whoever touches what finds no room.
            nix::fcntl::posix_fallocate(&file, 0, bytes as i64)?;
        }
        Ok(file)
    };
    made().or_else(|_| {
        let file = memory(what)?;
        nix::unistd::ftruncate(&file, bytes as i64)?;
        Ok(file)
    })
}

/// Gives what [`nameable`] made a name, in place of whatever has it.
pub fn name(file: BorrowedFd, path: &Path) -> io::Result<()> {
    let is_named = |at: &Path| std::fs::symlink_metadata(at).is_ok_and(|found| found.ino() == inode(file));
    if is_named(path) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let fd = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, fd.as_str(), AT_FDCWD, &fresh, AtFlags::AT_SYMLINK_FOLLOW)?;
    std::fs::rename(&fresh, path)
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

    #[test]
    fn a_line_comes_whole_or_not_at_all() {
        let (end, inode) = for_input().unwrap();
        let mut reader = std::process::Command::new("sleep").arg("1000").stdin(end).spawn().unwrap();
        let pid = reader.id() as i32;
        let line = [b'x'; ATOMIC];
        let mut sent = 0;
        let full = loop {
            match feed(pid, inode, &line) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((full.kind(), sent), (io::ErrorKind::WouldBlock, 16));
        assert!(feed(pid, inode + 1, b"x").is_err());
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(feed(pid, inode, b"x").is_err());
    }

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
