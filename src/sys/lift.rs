//! Fds that are kept for long get high numbers. The low ones are left to what lives for a moment, as what a child
//! is given does: its table of fds is then made of the low part of ours alone, however many we have.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

/// The lowest of the high numbers. The kernel copies tables in pieces of so many.
pub const LOW: RawFd = 64;

/// The same under a high number; under the one that it has, where no other can be had.
pub fn lift(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= LOW {
        return fd;
    }
    duplicate(fd.as_fd(), LOW).unwrap_or(fd)
}

/// Another number for what `fd` leads to, the lowest free one from `least` on. It closes on exec.
pub fn duplicate(fd: BorrowedFd, least: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel has just opened this number for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_is_lifted_is_the_same_and_leaves_its_number() {
        let (mut file, twin) =
            (File::open("/proc/self/status").unwrap(), File::open("/proc/self/maps").unwrap());
        let lifted = lift(twin.into());
        assert!(lifted.as_raw_fd() >= LOW);
        let again = lifted.as_raw_fd();
        assert_eq!(lift(lifted).as_raw_fd(), again, "once is enough");
        // Its position, too, is that of the one it was.
        let mut line = [0; 5];
        io::Read::read_exact(&mut file, &mut line).unwrap();
        let mut file = File::from(lift(file.into()));
        io::Read::read_exact(&mut file, &mut line[..1]).unwrap();
        assert_eq!(&line, b"\tame:");
    }
}
