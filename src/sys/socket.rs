//! Sockets: the listeners that the daemon binds for its apps, the channels to its children, and the
//! control socket.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, sockopt,
};

const FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

/// A TCP socket bound to `addr`, nonblocking and close-on-exec, not listening. `v6only` is set on IPv6
/// sockets, `None` leaves the system's choice. With `reuseport` it joins sockets of this user that have the
/// option; so a first socket is bound without, given the option afterwards ([`allow_reuseport`]), and then
/// joined by its like, while strangers still get EADDRINUSE and so do we from theirs.
///
/// A socket that somebody bound but that does not listen yet is no obstacle: EADDRINUSE then comes from
/// the second `listen`.
pub fn bind_tcp(addr: SocketAddr, v6only: Option<bool>, reuseport: bool) -> io::Result<OwnedFd> {
    let fd = inet(addr, SockType::Stream, v6only)?;
    // A port whose last connections are still in TIME_WAIT can be bound.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if reuseport {
        allow_reuseport(fd.as_fd())?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(fd)
}

/// Lets further sockets of this user join a bound one on its address, if they have the option too.
pub fn allow_reuseport(fd: BorrowedFd) -> io::Result<()> {
    Ok(socket::setsockopt(&fd, sockopt::ReusePort, &true)?)
}

/// A UDP socket bound to `addr`, nonblocking and close-on-exec; `v6only` as for [`bind_tcp`]. With
/// `reuse_addr` several may share a multicast port.
pub fn bind_udp(addr: SocketAddr, v6only: Option<bool>, reuse_addr: bool) -> io::Result<OwnedFd> {
    let fd = inet(addr, SockType::Datagram, v6only)?;
    if reuse_addr {
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(fd)
}

fn inet(addr: SocketAddr, kind: SockType, v6only: Option<bool>) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket::socket(family, kind, FLAGS, None)?;
    if let (true, Some(v6only)) = (addr.is_ipv6(), v6only) {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &v6only)?;
    }
    Ok(fd)
}

/// A unix stream socket bound to `path`, nonblocking and close-on-exec, not listening. A path that begins
/// with a NUL byte is an abstract name. An existing file is EADDRINUSE, stale or not; more than 107 bytes
/// are ENAMETOOLONG.
pub fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    let addr = match path.as_os_str().as_bytes().split_first() {
        Some((0, name)) => UnixAddr::new_abstract(name)?,
        Some(_) => UnixAddr::new(path)?,
        // The kernel would choose an abstract name of its own.
        None => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    socket::bind(fd.as_raw_fd(), &addr)?;
    Ok(fd)
}

/// Starts listening; the kernel cuts `backlog` to its own limit.
pub fn listen(fd: BorrowedFd, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX).min(libc::SOMAXCONN);
    Ok(socket::listen(&fd, Backlog::new(backlog)?)?)
}

/// Ends listening on a TCP socket at once, whoever else has copies of it: its address can be bound again by sockets
/// with SO_REUSEADDR, as [`bind_tcp`] makes them.
pub fn end_listening(fd: BorrowedFd) {
    // ENOTCONN: it does not listen, and there is nothing to end.
    let _ = socket::shutdown(fd.as_raw_fd(), socket::Shutdown::Read);
}

/// How many connections wait in the queue of a listening TCP socket, and how many may; `None`: it is none.
pub fn accept_queue(fd: BorrowedFd) -> Option<(u32, u32)> {
    /// Of a socket that listens, in the kernel's numbers.
    const LISTENS: u8 = 10;
    // SAFETY: all zeroes is a value of it: it consists of numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let into = (&raw mut info).cast::<libc::c_void>();
    // SAFETY: the kernel writes at most `length` bytes to a local of that size.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut length) };
    // Of a listening socket these two fields have another meaning.
    (done == 0 && info.tcpi_state == LISTENS).then_some((info.tcpi_unacked, info.tcpi_sacked))
}

/// Whether this is one end of a stream, and not a listening socket.
pub fn is_connection(fd: BorrowedFd) -> bool {
    socket::getsockopt(&fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream)
        && socket::getsockopt(&fd, sockopt::AcceptConn).is_ok_and(|listens| !listens)
        && socket::getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()
}

/// Whether the other end of a stream is closed, or cannot write any more.
pub fn has_hung_up(fd: BorrowedFd) -> bool {
    let mut look = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one pollfd, a local; it does not wait.
    unsafe { libc::poll(&mut look, 1, 0) > 0 }
}

/// What a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddr {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A path; an abstract name with its leading NUL byte; empty if unbound.
    Unix(PathBuf),
}

/// What `fd` is bound to, if it is a stream socket that listens. From now on it does not block: it may come
/// from somebody who left that to us.
pub fn listening(fd: BorrowedFd) -> io::Result<Option<LocalAddr>> {
    match socket::getsockopt(&fd, sockopt::AcceptConn) {
        Ok(true) => {}
        Ok(false) | Err(nix::Error::ENOTSOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    local_addr(fd).map(Some)
}

/// What `fd` is bound to.
pub fn local_addr(fd: BorrowedFd) -> io::Result<LocalAddr> {
    let addr: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
    if let Some(&v4) = addr.as_sockaddr_in() {
        return Ok(LocalAddr::Inet(SocketAddr::V4(v4.into())));
    }
    if let Some(&v6) = addr.as_sockaddr_in6() {
        return Ok(LocalAddr::Inet(SocketAddr::V6(v6.into())));
    }
    let Some(AddressFamily::Unix) = addr.family() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let unix: UnixAddr = socket::getsockname(fd.as_raw_fd())?;
    let path = match (unix.path(), unix.as_abstract()) {
        (Some(path), _) => path.to_path_buf(),
        (None, Some(name)) => {
            let bytes: Vec<u8> = std::iter::once(0).chain(name.iter().copied()).collect();
            PathBuf::from(std::ffi::OsString::from_vec(bytes))
        }
        (None, None) => PathBuf::new(),
    };
    Ok(LocalAddr::Unix(path))
}

/// The next connection, nonblocking and close-on-exec; `None` if there is none at present. A connection
/// that failed while it waited is passed over; EMFILE and its like are errors, and the connection waits.
pub fn accept(fd: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    loop {
        match socket::accept4(fd.as_raw_fd(), FLAGS) {
            // SAFETY: the kernel has just opened this fd for us alone; nothing else knows its number.
            Ok(connection) => return Ok(Some(unsafe { OwnedFd::from_raw_fd(connection) })),
            Err(nix::Error::EAGAIN) => return Ok(None),
            // Linux reports errors of the connection as those of accept (accept(2), "Error handling").
            Err(
                nix::Error::EINTR
                | nix::Error::ECONNABORTED
                | nix::Error::EPROTO
                | nix::Error::ENETDOWN
                | nix::Error::ENETUNREACH
                | nix::Error::EHOSTDOWN
                | nix::Error::EHOSTUNREACH,
            ) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Who connected to a unix socket, as the kernel knows it: (user id, process id). The pid is that of the
/// moment of connecting.
pub fn peer_uid(stream: impl AsFd) -> io::Result<(u32, i32)> {
    let peer = socket::getsockopt(&stream, sockopt::PeerCredentials)?;
    Ok((peer.uid(), peer.pid()))
}

/// A nonblocking, close-on-exec connection on its way to `addr`.
pub fn connect_tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let fd = inet(addr, SockType::Stream, None)?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// How long the kernel may take for a connection within itself, in ms.
const LOOPBACK: i32 = 100;

/// Both ends of a TCP connection over the loopback, nonblocking and close-on-exec: that of the client, that of
/// the server.
pub fn loopback_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = inet(any, SockType::Stream, None)?;
    socket::bind(listener.as_raw_fd(), &SockaddrStorage::from(any))?;
    listen(listener.as_fd(), 1)?;
    let LocalAddr::Inet(addr) = local_addr(listener.as_fd())? else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let client = connect_tcp(addr)?;
    let mut look = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, a local.
    unsafe { libc::poll(&mut look, 1, LOOPBACK) };
    let server = accept(listener.as_fd())?.ok_or(io::ErrorKind::TimedOut)?;
    // Somebody else may have been quicker.
    let peer: SockaddrStorage = socket::getpeername(server.as_raw_fd())?;
    let ours: SockaddrStorage = socket::getsockname(client.as_raw_fd())?;
    if peer != ours {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok((client, server))
}

/// A channel to a child: our end, nonblocking, and the child's, blocking (Node sets its own). Both close
/// on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok((super::lift::lift(ours), theirs))
}

/// How many clients may wait to be accepted.
const CONTROL_BACKLOG: u32 = 128;

/// The daemon's control socket at `path`, however long, for its owner alone (mode 0600) from its first
/// moment and whatever the umask. An existing file is EADDRINUSE: who holds the home's lock may remove it.
pub fn bind_control(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    // The file gets the mode of the socket, less the umask.
    nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let short = ShortPath::new(path)?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(&short.path)?)?;
    fs::set_permissions(&short.path, Permissions::from_mode(0o600))?;
    listen(fd.as_fd(), CONTROL_BACKLOG)?;
    Ok(fd)
}

/// Connects to the control socket at `path`, however long. The stream blocks.
pub fn connect_control(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(ShortPath::new(path)?.path)
}

/// A name that fits into a socket address: the path itself, or one by way of its open directory.
struct ShortPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    /// `sun_path` without its NUL byte.
    const LONGEST: usize = 107;

    fn new(path: &Path) -> io::Result<ShortPath> {
        if path.as_os_str().len() <= ShortPath::LONGEST {
            return Ok(ShortPath { path: path.to_path_buf(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let mut options = OpenOptions::new();
        let directory = options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(ShortPath { path, _directory: Some(directory) })
    }
}

#[cfg(test)]
mod tests;
