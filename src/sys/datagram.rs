//! A unix datagram socket whose senders the kernel vouches for (SCM_CREDENTIALS). What rides on a datagram
//! never becomes an fd of ours.

use std::fs::{self, Permissions};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};

/// Room for the credentials and for nothing else: the kernel puts them first, and closes fds for which there
/// is no room.
// SAFETY: CMSG_SPACE is arithmetic on its argument.
const SPACE: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;

/// Memory for control messages, aligned as their headers want it.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [u8; SPACE],
}

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of it are in the buffer.
    pub len: usize,
    /// There is no more of it.
    pub is_whole: bool,
    /// Who sent it, as the kernel knows it: process id (0: in a namespace that we do not see) and user id.
    pub pid: i32,
    /// See `pid`.
    pub uid: u32,
}

/// The longest path of a socket, without its NUL byte.
pub const LONGEST_PATH: usize = 107;

/// Binds a socket at `path`, in the place of a file that may be there, for whom `mode` lets write to it.
pub fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    socket::setsockopt(&fd, sockopt::PassCred, &true)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(fd)
}

/// Looks at the next datagram, which stays. `None`: there is none at present.
pub fn peek(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    receive(fd, buffer, libc::MSG_PEEK)
}

/// Takes the next datagram away, and closes what rides on it.
pub fn discard(fd: BorrowedFd) -> io::Result<()> {
    receive(fd, &mut [0], 0).map(|_| ())
}

fn receive(fd: BorrowedFd, buffer: &mut [u8], how: libc::c_int) -> io::Result<Option<Datagram>> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = MaybeUninit::<Control>::uninit();
    // SAFETY: a msghdr is integers and pointers, for which zero is "none".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | how;
    let len = loop {
        // SAFETY: `message` points to `buffer` and `control`, both alive, writable and of the lengths it states.
        let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
        if let Ok(len) = usize::try_from(received) {
            break len;
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(error),
        }
    };
    let is_whole = message.msg_flags & libc::MSG_TRUNC == 0;
    let mut datagram = Datagram { len, is_whole, pid: 0, uid: u32::MAX };
    // SAFETY: the kernel has written `msg_controllen` bytes of whole headers into `control`, which is aligned
    // for them. The first header is of credentials, if it says so, and then a `ucred` follows it.
    unsafe {
        if let Some(header) = libc::CMSG_FIRSTHDR(&raw const message).as_ref()
            && header.cmsg_level == libc::SOL_SOCKET
            && header.cmsg_type == libc::SCM_CREDENTIALS
        {
            let sender = libc::CMSG_DATA(ptr::from_ref(header)).cast::<libc::ucred>().read_unaligned();
            (datagram.pid, datagram.uid) = (sender.pid, sender.uid);
        }
    }
    Ok(Some(datagram))
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;
    use crate::sys::testing::alone;

    #[test]
    fn who_sent_a_datagram_is_known_and_what_rides_on_it_is_closed() {
        alone("sys::datagram::tests::who_sent_a_datagram_is_known_and_what_rides_on_it_is_closed", || {
            let path = std::env::temp_dir().join(format!("pmx-datagram-{}", std::process::id()));
            fs::write(&path, "in the way").unwrap();
            let ours = bind(&path, 0o600).unwrap();
            let mut buffer = [0; 8];
            assert_eq!(peek(ours.as_fd(), &mut buffer).unwrap(), None);
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(&path).unwrap();
            let (mut reader, writer) = UnixStream::pair().unwrap();
            let fds = [writer.as_raw_fd(); 3];
            let rights = [ControlMessage::ScmRights(&fds)];
            let send = |bytes: &[u8]| {
                let part = [IoSlice::new(bytes)];
                sendmsg::<UnixAddr>(sender.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
            };
            let open = || fs::read_dir("/proc/self/fd").unwrap().count();
            send(b"READY=1");
            send(b"");
            send(&[7; 70_000]);
            drop(writer);
            let before = open();
            let us = (std::process::id() as i32, nix::unistd::geteuid().as_raw());
            for (len, is_whole) in [(7, true), (0, true), (8, false)] {
                for _ in 0..2 {
                    let seen = peek(ours.as_fd(), &mut buffer).unwrap().unwrap();
                    assert_eq!((seen.len, seen.is_whole), (len, is_whole));
                    assert_eq!((seen.pid, seen.uid), us);
                }
                assert_eq!(open(), before, "nothing became an fd of ours");
                discard(ours.as_fd()).unwrap();
            }
            assert_eq!(peek(ours.as_fd(), &mut buffer).unwrap(), None);
            assert_eq!(reader.read(&mut buffer).unwrap(), 0, "the last copy of the other end is closed");
            fs::remove_file(&path).unwrap();
        });
    }
}
