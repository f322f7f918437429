//! Writing to a stdout or stderr that others share: without waiting for its reader, and without making it
//! nonblocking for them, since that is a property of what is open and not of the fd.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// A pipe that poll calls writable takes so much at once (PIPE_BUF); a terminal takes some of it.
const PIECE: usize = 4096;

/// One such fd.
#[derive(Debug)]
pub struct SharedOut {
    file: File,
    way: Way,
}

/// How it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It never waits: a file, or a pipe or terminal that we opened anew for ourselves.
    Plain,
    /// A socket: each call may say that it does not wait.
    Socket,
    /// Asked before each piece.
    Polled,
}

impl SharedOut {
    /// Of an fd that stays with its owner.
    pub fn of(fd: BorrowedFd) -> io::Result<SharedOut> {
        let file = File::from(fd.try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(SharedOut { file, way: Way::Plain });
        }
        if kind.is_socket() {
            return Ok(SharedOut { file, way: Way::Socket });
        }
        // Another user's pipe may not be opened, and there may be no /proc.
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        match options.open(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
            Ok(own) => Ok(SharedOut { file: own, way: Way::Plain }),
            Err(_) => Ok(SharedOut { file, way: Way::Polled }),
        }
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Writes what is taken at once; `WouldBlock` when nothing is.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Plain => (&self.file).write(bytes),
            Way::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(self.file.as_raw_fd(), bytes, flags)?)
            }
            Way::Polled if self.has_room(PollTimeout::ZERO) => {
                (&self.file).write(&bytes[..bytes.len().min(PIECE)])
            }
            Way::Polled => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits so many milliseconds for room. For who is about to end and has nothing else to do.
    pub fn wait(&self, ms: u16) -> bool {
        self.has_room(PollTimeout::from(ms))
    }

    fn has_room(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, timeout) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            // Then the write says what is wrong.
            Err(_) => true,
        }
    }
}

/// A pipe whose writer is gone: a stdin at its end, where there is no /dev/null.
pub fn ended_input() -> io::Result<OwnedFd> {
    let (read, _) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Writes until nothing more is taken.
    fn fill(out: &SharedOut) -> usize {
        let mut sum = 0;
        loop {
            match out.write(&[b'x'; 10_000]) {
                Ok(count) => sum += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return sum;
                }
            }
        }
    }

    fn is_blocking(fd: impl AsFd) -> bool {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        flags & libc::O_NONBLOCK == 0
    }

    #[test]
    fn l08_a_full_pipe_is_not_waited_for_and_stays_blocking_for_others() {
        for polled in [false, true] {
            let (mut read, write) = io::pipe().unwrap();
            let mut out = SharedOut::of(write.as_fd()).unwrap();
            assert_eq!(out.way, Way::Plain);
            if polled {
                out = SharedOut {
                    file: File::from(write.as_fd().try_clone_to_owned().unwrap()),
                    way: Way::Polled,
                };
            }
            let taken = fill(&out);
            assert!(taken >= 60_000 && !out.wait(1), "{taken}");
            let mut some = vec![0; taken];
            read.read_exact(&mut some).unwrap();
            assert!(out.wait(1) && out.write(b"more").unwrap() == 4);
            assert!(is_blocking(&write));
        }
    }

    #[test]
    fn l08_a_full_socket_is_not_waited_for() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let out = SharedOut::of(theirs.as_fd()).unwrap();
        assert_eq!(out.way, Way::Socket);
        assert!(fill(&out) > 0);
        assert!(is_blocking(&theirs));
        drop(ours);
        assert_eq!(out.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_is_written_at_the_place_that_all_share() {
        let path = std::env::temp_dir().join(format!("pmx-shared-out-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one ").unwrap();
        assert_eq!(SharedOut::of(file.as_fd()).unwrap().write(b"two ").unwrap(), 4);
        file.write_all(b"three").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two three");
        std::fs::remove_file(path).unwrap();
        let mut nothing = Vec::new();
        File::from(ended_input().unwrap()).read_to_end(&mut nothing).unwrap();
        assert_eq!(nothing, b"");
    }
}
