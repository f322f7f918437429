//! Bytes and file descriptors over a unix stream socket.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The most fds the kernel lets one message carry (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

const FD_BYTES: usize = mem::size_of::<RawFd>();
// SAFETY: CMSG_SPACE is arithmetic on its argument.
const SPACE_ONE: usize = unsafe { libc::CMSG_SPACE(FD_BYTES as u32) } as usize;
// SAFETY: CMSG_SPACE is arithmetic on its argument.
const SPACE_MAX: usize = unsafe { libc::CMSG_SPACE((MAX_FDS * FD_BYTES) as u32) } as usize;

/// Memory for control messages, aligned as their headers want it.
#[repr(C)]
union Control<const BYTES: usize> {
    _align: libc::cmsghdr,
    bytes: [u8; BYTES],
}

/// Sends bytes, and with the first of them a duplicate of `pass`. Never blocks and never raises SIGPIPE;
/// returns how many bytes went. If that is not zero, the fd went too: send the rest without it.
///
/// `WouldBlock` also stands for "too many fds in flight" (ETOOMANYREFS): no event tells when that is over,
/// it is when a receiver reads.
pub fn send(fd: BorrowedFd, bytes: &[u8], pass: Option<BorrowedFd>) -> io::Result<usize> {
    debug_assert!(!bytes.is_empty(), "an fd needs a byte to ride on");
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control::<SPACE_ONE> { bytes: [0; SPACE_ONE] };
    let mut message = message(&mut part);
    if let Some(pass) = pass {
        message.msg_control = ptr::from_mut(&mut control).cast();
        message.msg_controllen = SPACE_ONE as _;
        // SAFETY: `message` has a control buffer with room for exactly one header and one fd, aligned by
        // the union, so the first header is there and its data has room for the fd.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(pass.as_raw_fd());
        }
    }
    let sent = retry(|| {
        // SAFETY: `message` points to `bytes` and `control`, both alive and of the lengths it states; the
        // kernel only reads them.
        unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) }
    });
    match sent {
        Err(e) if e.raw_os_error() == Some(libc::ETOOMANYREFS) => Err(io::ErrorKind::WouldBlock.into()),
        sent => sent,
    }
}

/// Receives bytes, and the fds that came with them, each owned and close-on-exec. Never blocks.
/// No bytes: the peer has closed. One call never takes the fds of two sends; fds that this process has no
/// room for (EMFILE) are dropped by the kernel.
pub fn recv(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive(fd, buffer, 0)
}

/// As [`recv`], and what was read stays to be read again; the fds are further duplicates.
pub fn peek(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive(fd, buffer, libc::MSG_PEEK)
}

fn receive(fd: BorrowedFd, buffer: &mut [u8], how: libc::c_int) -> io::Result<(usize, Vec<OwnedFd>)> {
    debug_assert!(!buffer.is_empty());
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = MaybeUninit::<Control<SPACE_MAX>>::uninit();
    let mut message = message(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = SPACE_MAX as _;
    let received = retry(|| {
        // SAFETY: `message` points to `buffer` and `control`, both alive, writable and of the lengths it states.
        unsafe {
            libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT | how)
        }
    })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has written `msg_controllen` bytes of whole headers into `control`, which is
    // aligned for them, and CMSG_FIRSTHDR and CMSG_NXTHDR stay within that. An SCM_RIGHTS header is
    // followed by the fds its length counts, new ones that nobody else owns; each is taken once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(current) = header.as_ref() {
            if current.cmsg_level == libc::SOL_SOCKET && current.cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::unnecessary_cast, reason = "musl has 32 bits here")]
                let bytes = current.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend(
                    (0..bytes / FD_BYTES).map(|i| OwnedFd::from_raw_fd(first.add(i).read_unaligned())),
                );
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok((received, fds))
}

fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a msghdr is integers and pointers, for which zero is "none".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSlice, Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;
    use crate::sys::pipe::memfd;
    use crate::sys::testing::alone;

    fn content(fd: OwnedFd) -> String {
        let mut file = File::from(fd);
        file.rewind().unwrap();
        std::io::read_to_string(file).unwrap()
    }

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn an_fd_rides_on_the_first_byte() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = memfd("passed", b"content").unwrap();
        assert_eq!(send(ours.as_fd(), b"with", Some(file.as_fd())).unwrap(), 4);
        assert_eq!(send(ours.as_fd(), b"without", None).unwrap(), 7);
        let mut buffer = [0; 64];
        // The kernel ends a read behind the bytes that an fd came with, unless plain ones follow.
        let (mut count, mut fds) = recv(theirs.as_fd(), &mut buffer[..1]).unwrap();
        assert_eq!((count, fds.len()), (1, 1));
        let fd = fds.pop().unwrap();
        assert_ne!(fcntl(&fd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, 0);
        assert_eq!(content(fd), "content");
        while count < 11 {
            let (more, fds) = recv(theirs.as_fd(), &mut buffer[count..]).unwrap();
            assert!(more > 0 && fds.is_empty());
            count += more;
        }
        assert_eq!(&buffer[..count], b"withwithout");
    }

    #[test]
    fn fds_of_two_sends_are_never_taken_together() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for name in ["a", "b", "c"] {
            let file = memfd(name, name.as_bytes()).unwrap();
            assert_eq!(send(ours.as_fd(), name.as_bytes(), Some(file.as_fd())).unwrap(), 1);
        }
        for name in ["a", "b", "c"] {
            let mut buffer = [0; 64];
            let (count, mut fds) = recv(theirs.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..count], fds.len()), (name.as_bytes(), 1));
            assert_eq!(content(fds.pop().unwrap()), name);
        }
    }

    #[test]
    fn nothing_blocks_and_nothing_raises_sigpipe() {
        alone("sys::fdpass::tests::nothing_blocks_and_nothing_raises_sigpipe", || {
            // SAFETY: this process runs nothing but this test.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut buffer = [0; 8];
            assert_eq!(kind(recv(ours.as_fd(), &mut buffer)), io::ErrorKind::WouldBlock);
            while send(ours.as_fd(), &[0; 4096], None).is_ok() {}
            assert_eq!(kind(send(ours.as_fd(), b"x", None)), io::ErrorKind::WouldBlock);
            assert_eq!(kind(send(ours.as_fd(), b"x", Some(ours.as_fd()))), io::ErrorKind::WouldBlock);
            drop(theirs);
            assert_eq!(kind(send(ours.as_fd(), b"x", None)), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn a_peer_that_is_gone_reads_as_no_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(recv(ours.as_fd(), &mut [0; 8]).unwrap().0, 0);
    }

    #[test]
    fn c06_as_many_fds_as_a_message_takes_are_all_closed() {
        alone("sys::fdpass::tests::c06_as_many_fds_as_a_message_takes_are_all_closed", || {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = open();
            for cut in [64, 1] {
                let fds = [ours.as_raw_fd(); MAX_FDS];
                let rights = [ControlMessage::ScmRights(&fds)];
                let bytes = [IoSlice::new(b"hi")];
                sendmsg::<()>(ours.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
                let (count, fds) = recv(theirs.as_fd(), &mut [0; 64][..cut]).unwrap();
                assert_eq!((count, fds.len()), (cut.min(2), MAX_FDS));
                assert_eq!(open(), before + MAX_FDS);
                drop(fds);
                assert_eq!(open(), before);
            }
            assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 1);
        });
    }

    #[test]
    fn more_fds_than_we_have_room_for_are_dropped_and_the_bytes_kept() {
        alone("sys::fdpass::tests::more_fds_than_we_have_room_for_are_dropped_and_the_bytes_kept", || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            for _ in 0..2 {
                send(ours.as_fd(), b"x", Some(ours.as_fd())).unwrap();
            }
            let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
            let (_, hard) = nix::sys::resource::getrlimit(limit).unwrap();
            // No fd above the highest one open, so that none can be received.
            nix::sys::resource::setrlimit(limit, theirs.as_raw_fd() as u64 + 1, hard).unwrap();
            let (count, fds) = recv(theirs.as_fd(), &mut [0; 8]).unwrap();
            assert_eq!((count, fds.len()), (1, 0));
            nix::sys::resource::setrlimit(limit, hard, hard).unwrap();
            let (count, fds) = recv(theirs.as_fd(), &mut [0; 8]).unwrap();
            assert_eq!((count, fds.len()), (1, 1));
            (&ours).write_all(b"still usable").unwrap();
        });
    }

    #[test]
    fn too_many_fds_in_flight_is_would_block() {
        alone("sys::fdpass::tests::too_many_fds_in_flight_is_would_block", || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
            nix::sys::resource::setrlimit(limit, 64, 64).unwrap();
            // Root may have any number in flight.
            if nix::unistd::geteuid().is_root() {
                nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
            }
            let mut sent = 0;
            let error = loop {
                match send(ours.as_fd(), b"x", Some(ours.as_fd())) {
                    Ok(_) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!((60..70).contains(&sent), "the limit of open files, not the buffer: {sent}");
            recv(theirs.as_fd(), &mut [0; 8]).unwrap();
            send(ours.as_fd(), b"x", Some(ours.as_fd())).unwrap();
        });
    }
}
