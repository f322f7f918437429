//! Waiting for file descriptors, for the command line (the daemon has its event loop).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What [`wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// There is something to read, or the other end is gone.
    Readable,
    /// The other end is gone.
    Closed,
}

/// Waits until one of `sources` is ready, for at most `timeout`. Tells which ones are.
pub fn wait(sources: &[(BorrowedFd<'_>, Until)], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let timeout = match timeout {
        // Rounded up: a deadline must have passed when we say so.
        Some(time) => PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    let mut fds: Vec<PollFd<'_>> = sources
        .iter()
        .map(|&(fd, until)| match until {
            Until::Readable => PollFd::new(fd, PollFlags::POLLIN),
            // Errors and hang-ups are reported without being asked for.
            Until::Closed => PollFd::new(fd, PollFlags::empty()),
        })
        .collect();
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
        Err(Errno::EINTR) => Ok(vec![false; sources.len()]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn data_and_hang_ups_are_seen_and_time_runs_out() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let short = Some(Duration::from_millis(1));
        assert_eq!(wait(&[(reader.as_fd(), Until::Readable)], short).unwrap(), [false]);
        writer.write_all(b"x").unwrap();
        let both = [(reader.as_fd(), Until::Readable), (writer.as_fd(), Until::Closed)];
        assert_eq!(wait(&both, None).unwrap(), [true, false]);
        drop(reader);
        assert_eq!(wait(&[(writer.as_fd(), Until::Closed)], None).unwrap(), [true]);
    }
}
