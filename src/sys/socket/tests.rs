//! Against the real kernel, on loopback and in a directory of each test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;

use super::*;
use crate::sys::testing::{alone, wait_until};

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn port(fd: &OwnedFd) -> u16 {
    match local_addr(fd.as_fd()).unwrap() {
        LocalAddr::Inet(addr) => addr.port(),
        LocalAddr::Unix(path) => panic!("{path:?}"),
    }
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pmx-socket-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    path
}

/// (nonblocking, close-on-exec)
fn flags(fd: impl AsFd) -> (bool, bool) {
    let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).unwrap());
    (status.contains(OFlag::O_NONBLOCK), fcntl(&fd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0)
}

fn accepted(listener: &OwnedFd) -> OwnedFd {
    wait_until("a connection", || accept(listener.as_fd()).unwrap())
}

#[test]
fn a_first_socket_keeps_strangers_out_and_lets_its_like_join() {
    let first = bind_tcp(loopback(0), None, false).unwrap();
    let addr = loopback(port(&first));
    assert_eq!(flags(&first), (true, true));
    allow_reuseport(first.as_fd()).unwrap();
    let second = bind_tcp(addr, None, true).unwrap();
    let third = bind_tcp(addr, None, true).unwrap();
    listen(first.as_fd(), 511).unwrap();
    listen(second.as_fd(), 511).unwrap();
    listen(third.as_fd(), 511).unwrap();
    // A stranger without it is refused.
    assert_eq!(errno(bind_tcp(addr, None, false)), Some(libc::EADDRINUSE));
    assert_eq!(errno(std::net::TcpListener::bind(addr)), Some(libc::EADDRINUSE));
    // They form one group: the kernel hands each connection to one of them.
    let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let count = |fd: &OwnedFd| std::iter::from_fn(|| accept(fd.as_fd()).unwrap()).count();
    let mut counts = [0; 3];
    wait_until("all to arrive", || {
        for (sum, fd) in counts.iter_mut().zip([&first, &second, &third]) {
            *sum += count(fd);
        }
        (counts.iter().sum::<usize>() == clients.len()).then_some(())
    });
    assert!(counts.iter().all(|&n| n > 5), "{counts:?}");
}

#[test]
fn a_first_socket_does_not_join_strangers() {
    // Another program shares its port with anybody of the same user; we ask for it as ours alone.
    let stranger = bind_tcp(loopback(0), None, true).unwrap();
    let addr = loopback(port(&stranger));
    listen(stranger.as_fd(), 8).unwrap();
    assert_eq!(errno(bind_tcp(addr, None, false)), Some(libc::EADDRINUSE));
    bind_tcp(addr, None, true).unwrap();
    // And the other way round: until we set the option, nobody joins us.
    let ours = bind_tcp(loopback(0), None, false).unwrap();
    let addr = loopback(port(&ours));
    listen(ours.as_fd(), 8).unwrap();
    assert_eq!(errno(bind_tcp(addr, None, true)), Some(libc::EADDRINUSE));
    allow_reuseport(ours.as_fd()).unwrap();
    bind_tcp(addr, None, true).unwrap();
}

#[test]
fn an_address_is_free_once_listening_is_ended_whoever_has_a_copy() {
    let first = bind_tcp(loopback(0), None, false).unwrap();
    let addr = loopback(port(&first));
    allow_reuseport(first.as_fd()).unwrap();
    let second = bind_tcp(addr, None, true).unwrap();
    let copies = [first.try_clone().unwrap(), second.try_clone().unwrap()];
    for fd in [&first, &second] {
        listen(fd.as_fd(), 8).unwrap();
        end_listening(fd.as_fd());
    }
    let again = bind_tcp(addr, None, false).unwrap();
    listen(again.as_fd(), 8).unwrap();
    TcpStream::connect(addr).unwrap();
    accepted(&again);
    drop((first, second, copies));
}

#[test]
fn a_bound_socket_refuses_connections_until_it_listens() {
    let fd = bind_tcp(loopback(0), None, false).unwrap();
    let addr = loopback(port(&fd));
    assert_eq!(errno(TcpStream::connect(addr)), Some(libc::ECONNREFUSED));
    listen(fd.as_fd(), u32::MAX).unwrap();
    assert!(accept(fd.as_fd()).unwrap().is_none());
    let client = TcpStream::connect(addr).unwrap();
    let connection = accepted(&fd);
    assert_eq!(flags(&connection), (true, true));
    assert_eq!(local_addr(connection.as_fd()).unwrap(), LocalAddr::Inet(client.peer_addr().unwrap()));
    // We closed first, so that our side is in TIME_WAIT; the port can be bound all the same.
    drop(connection);
    drop(client);
    drop(fd);
    // (A child that another test is just starting may still hold a copy of the listener.)
    wait_until("the port", || bind_tcp(addr, None, false).ok());
}

#[test]
fn two_binds_without_listening_meet_at_listen() {
    // SO_REUSEADDR on both lets both bind as long as neither listens; the second to listen fails. So a
    // worker may get EADDRINUSE from the listen on a socket that we could bind, as it can without us.
    let ours = bind_tcp(loopback(0), None, false).unwrap();
    let stranger = bind_tcp(loopback(port(&ours)), None, false).unwrap();
    listen(ours.as_fd(), 1).unwrap();
    assert_eq!(errno(listen(stranger.as_fd(), 1)), Some(libc::EADDRINUSE));
}

#[test]
fn v6only_decides_whether_ipv4_gets_in() {
    let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let Ok(both) = bind_tcp(any(0), Some(false), false) else { return };
    listen(both.as_fd(), 8).unwrap();
    TcpStream::connect(loopback(port(&both))).unwrap();
    let six = bind_tcp(any(0), Some(true), false).unwrap();
    listen(six.as_fd(), 8).unwrap();
    assert_eq!(errno(TcpStream::connect(loopback(port(&six)))), Some(libc::ECONNREFUSED));
    assert!(matches!(local_addr(six.as_fd()).unwrap(), LocalAddr::Inet(SocketAddr::V6(_))));
}

#[test]
fn udp_receives_from_its_bind_on() {
    let fd = bind_udp(loopback(0), None, false).unwrap();
    assert_eq!(flags(&fd), (true, true));
    let addr = loopback(port(&fd));
    assert_eq!(errno(bind_udp(addr, None, false)), Some(libc::EADDRINUSE));
    UdpSocket::bind(loopback(0)).unwrap().send_to(b"hello", addr).unwrap();
    let socket = UdpSocket::from(fd);
    let mut buffer = [0; 8];
    assert_eq!(wait_until("a datagram", || socket.recv(&mut buffer).ok()), 5);
    let shared = bind_udp(loopback(0), None, true).unwrap();
    bind_udp(loopback(port(&shared)), None, true).unwrap();
}

#[test]
fn unix_sockets_have_paths_and_abstract_names() {
    let dir = directory("unix");
    let path = dir.join("app.sock");
    let fd = bind_unix(&path).unwrap();
    assert_eq!(flags(&fd), (true, true));
    assert_eq!(local_addr(fd.as_fd()).unwrap(), LocalAddr::Unix(path.clone()));
    listen(fd.as_fd(), 8).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    accepted(&fd);
    drop(fd);
    assert_eq!(errno(bind_unix(&path)), Some(libc::EADDRINUSE), "never unlinked behind an app's back");
    assert_eq!(errno(bind_unix(&dir.join("no/such"))), Some(libc::ENOENT));
    assert_eq!(errno(bind_unix(&dir.join("x".repeat(108)))), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(bind_unix(Path::new(""))), Some(libc::EINVAL));
    let name = PathBuf::from(format!("\0pmx-test-{}", std::process::id()));
    let fd = bind_unix(&name).unwrap();
    assert_eq!(local_addr(fd.as_fd()).unwrap(), LocalAddr::Unix(name));
    let (unbound, _) = pair().unwrap();
    assert_eq!(local_addr(unbound.as_fd()).unwrap(), LocalAddr::Unix(PathBuf::new()));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_pair_is_nonblocking_on_our_side_only() {
    let (ours, theirs) = pair().unwrap();
    assert_eq!(flags(&ours), (true, true));
    assert_eq!(flags(&theirs), (false, true));
    let (mut ours, mut theirs) = (UnixStream::from(ours), UnixStream::from(theirs));
    ours.write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
    let own = (nix::unistd::getuid().as_raw(), std::process::id() as i32);
    assert_eq!(peer_uid(&ours).unwrap(), own);
    assert_eq!(peer_uid(&theirs).unwrap(), own);
}

#[test]
fn the_control_socket_is_private_whatever_the_umask() {
    alone("sys::socket::tests::the_control_socket_is_private_whatever_the_umask", || {
        let dir = directory("control");
        for umask in [0o000, 0o022, 0o777] {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
            let path = dir.join(format!("{umask:o}.sock"));
            let listener = UnixListener::from(bind_control(&path).unwrap());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
            assert_eq!(flags(&listener), (true, true));
            let mut client = connect_control(&path).unwrap();
            assert_eq!(flags(&client), (false, true));
            let (server, _) = wait_until("a client", || listener.accept().ok());
            assert_eq!(peer_uid(&server).unwrap().1, std::process::id() as i32);
            client.write_all(b"x").unwrap();
            assert_eq!(errno(bind_control(&path)), Some(libc::EADDRINUSE));
        }
        // What closes the moment between bind and chmod: a socket's file is born with the socket's mode.
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let fd = socket::socket(AddressFamily::Unix, SockType::Stream, FLAGS, None).unwrap();
        nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let path = dir.join("born.sock");
        socket::bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
fn c09_a_home_of_any_length_has_a_control_socket() {
    let top = directory("long");
    let dir = (0..20).fold(top.clone(), |dir, _| dir.join("x".repeat(100)));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("control.sock");
    let listener = UnixListener::from(bind_control(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    connect_control(&path).unwrap();
    wait_until("a client", || listener.accept().ok());
    drop(listener);
    // A child that another test starts has it, too, until it executes its program.
    let refused = || errno(connect_control(&path)) == Some(libc::ECONNREFUSED);
    wait_until("nobody to listen", || refused().then_some(()));
    assert_eq!(errno(connect_control(&dir.join("absent"))), Some(libc::ENOENT));
    // On both sides of the limit.
    for length in [106, 107, 108, 109] {
        let path = top.join("y".repeat(length - top.as_os_str().len() - 1));
        let _listener = bind_control(&path).unwrap();
        connect_control(&path).unwrap();
    }
    fs::remove_dir_all(top).unwrap();
}

#[test]
fn the_kernel_tells_how_many_wait_in_a_queue() {
    let listener = bind_tcp(loopback(0), None, false).unwrap();
    assert_eq!(accept_queue(listener.as_fd()), None, "it does not listen");
    listen(listener.as_fd(), 7).unwrap();
    assert_eq!(accept_queue(listener.as_fd()), Some((0, 7)));
    let callers: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(loopback(port(&listener))).unwrap()).collect();
    wait_until("three that wait", || (accept_queue(listener.as_fd()) == Some((3, 7))).then_some(()));
    accept(listener.as_fd()).unwrap().unwrap();
    assert_eq!(accept_queue(listener.as_fd()), Some((2, 7)));
    assert_eq!(accept_queue(callers[0].as_fd()), None, "a connection has no queue");
    let directory = directory("queue");
    let unix = bind_unix(&directory.join("s")).unwrap();
    listen(unix.as_fd(), 7).unwrap();
    assert_eq!(accept_queue(unix.as_fd()), None, "of these it does not tell");
    fs::remove_dir_all(directory).unwrap();
}
