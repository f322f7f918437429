//! The generator against small servers on loopback: every kind of failure under its own name, and nothing else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, UnixAddr, sockopt};

use super::*;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nX-Worker: 1\r\nContent-Length: 5\r\n\r\nhello";
const HELLO_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

/// A thread per connection runs `serve`; all of them end when the clients are gone, so drop the `Load` first.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    fn on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let address = listener.local_addr().unwrap();
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), accepted.clone());
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    scope.spawn(|| serve(stream.unwrap()));
                }
            });
        });
        Server { address, stop, accepted, thread: Some(thread) }
    }

    /// Answers every request of a connection with `answer`.
    fn keeping(answer: &'static [u8]) -> Server {
        Server::start(
            move |mut stream| {
                while read_request(&mut stream) && stream.write_all(answer).is_ok() {}
            },
        )
    }

    /// Answers one request per connection and closes.
    fn closing(answer: &'static [u8]) -> Server {
        Server::start(move |mut stream| {
            if read_request(&mut stream) {
                let _ = stream.write_all(answer);
            }
        })
    }

    fn plan(&self) -> Plan {
        Plan {
            clients: 1,
            timeout: Duration::from_secs(5),
            tally_header: Some("x-worker".to_owned()),
            ..Plan::new(Target::Tcp(self.address))
        }
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let joined = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))));
        }
    }
}

/// Reads one request head; false at the end of the stream.
fn read_request(stream: &mut impl Read) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Has the close of this socket be a reset: it leaves unread bytes behind.
fn reset(stream: TcpStream) {
    let _ = stream.peek(&mut [0]);
}

fn run(plan: Plan, requests: u64) -> Report {
    let mut load = Load::new(plan).unwrap();
    load.run_requests(requests).unwrap();
    load.take_report()
}

/// The report has `count` failures of this kind, none of another, and no answers.
fn assert_only(report: &Report, kind: Failure, count: u64) {
    assert_eq!(report.failures.to_string(), format!("{count} {}", kind.name()));
    assert_eq!(report.ok, 0);
}

#[test]
fn kept_alive_requests_share_their_connections() {
    let server = Server::keeping(HELLO);
    let report = run(Plan { clients: 4, ..server.plan() }, 1000);
    assert_eq!((report.ok, report.failures.to_string().as_str()), (1000, "0"));
    assert_eq!((report.connections, server.accepted(), report.reconnects), (4, 4, 0));
    assert_eq!(report.tally, [("1".to_owned(), 1000)]);
    assert_eq!(report.bytes, 1000 * HELLO.len() as u64);
    assert_eq!(report.latency.count(), 1000);
}

#[test]
fn close_mode_has_a_connection_per_request() {
    let server = Server::closing(HELLO_CLOSE);
    let report = run(Plan { clients: 4, keep_alive: false, ..server.plan() }, 200);
    assert_eq!((report.ok, report.failures.total()), (200, 0));
    assert_eq!((report.connections, server.accepted(), report.reconnects), (200, 200, 0));
    assert_eq!(report.untallied, 200);
}

#[test]
fn an_announced_close_is_no_failure_and_no_reconnect() {
    let server = Server::closing(HELLO_CLOSE);
    let report = run(server.plan(), 20);
    assert_eq!((report.ok, report.failures.total(), report.reconnects, server.accepted()), (20, 0, 0, 20));
}

#[test]
fn a_server_that_does_not_close_is_left() {
    let server = Server::keeping(HELLO_CLOSE);
    let started = Instant::now();
    let report = run(Plan { keep_alive: false, ..server.plan() }, 3);
    assert_eq!((report.ok, report.failures.total(), server.accepted()), (3, 0, 3));
    assert!(report.latency.quantile(0.3) < Duration::from_millis(90), "waiting for the close is no latency");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn bodies_in_chunks_and_bodies_until_the_end() {
    let chunked = Server::start(|mut stream| {
        while read_request(&mut stream) {
            for piece in [
                "HTTP/1.1 200 OK\r\nTransfer-",
                "Encoding: chunked\r\n\r\n5\r",
                "\nhel",
                "lo\r\n0\r\n",
                "\r\n",
            ] {
                stream.write_all(piece.as_bytes()).unwrap();
                stream.flush().unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let report = run(chunked.plan(), 10);
    assert_eq!((report.ok, report.failures.total(), chunked.accepted()), (10, 0, 1));

    let until_close = Server::start(|mut stream| {
        if read_request(&mut stream) {
            let body = vec![b'x'; 3 * BUFFER];
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let report = run(until_close.plan(), 10);
    assert_eq!((report.ok, report.failures.total(), until_close.accepted()), (10, 0, 10));
    assert_eq!(report.bytes, 10 * (19 + 3 * BUFFER as u64));
    assert_eq!(report.reconnects, 0);
}

#[test]
fn a_refused_connection_is_refused_and_asked_again_without_a_spin() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = run(Plan { clients: 2, ..Plan::new(Target::Tcp(free)) }, 20);
    assert_only(&report, Failure::ConnectRefused, 20);
    // Ten each, with a rest of 10 ms after each but the last.
    assert!(report.elapsed >= Duration::from_millis(90), "{:?}", report.elapsed);

    let nowhere = Target::Unix("/nowhere/at/all".into());
    assert_only(&run(Plan::new(nowhere), 3), Failure::ConnectRefused, 3);
}

#[test]
fn a_full_backlog_is_a_connect_timeout() {
    let listener =
        socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let name: SockaddrIn = socket::getsockname(listener.as_raw_fd()).unwrap();
    let address = SocketAddr::from((name.ip(), name.port()));
    let _only_place = TcpStream::connect(address).unwrap();
    let plan = Plan { clients: 2, timeout: Duration::from_millis(50), ..Plan::new(Target::Tcp(address)) };
    assert_only(&run(plan, 4), Failure::ConnectTimeout, 4);
}

#[test]
fn a_full_backlog_of_a_unix_listener_is_waited_for() {
    let directory = std::env::temp_dir().join(format!("pmx-load-{}-backlog", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("socket");
    let family = AddressFamily::Unix;
    let listener = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let plan = Plan { clients: 3, timeout: Duration::from_millis(50), ..Plan::new(Target::Unix(path)) };
    let report = run(plan.clone(), 3);
    assert_eq!(report.failures.of(Failure::ConnectTimeout), 2, "one client has the only place in the queue");
    assert_eq!(report.failures.of(Failure::RequestTimeout), 1);
    assert_eq!(report.requests(), 3);

    let server = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        let listener = UnixListener::from(listener);
        // The client of before is still in the queue, and gone.
        for mut stream in listener.incoming().take(4).flatten() {
            let _ = read_request(&mut stream) && stream.write_all(HELLO_CLOSE).is_ok();
        }
    });
    let report = run(Plan { timeout: Duration::from_secs(5), ..plan }, 3);
    assert_eq!((report.ok, report.failures.total()), (3, 0));
    server.join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn unix_sockets_and_ipv6_are_targets() {
    let directory = std::env::temp_dir().join(format!("pmx-load-{}-unix", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while read_request(&mut stream) {
            stream.write_all(HELLO).unwrap();
        }
    });
    let report = run(Plan { clients: 1, ..Plan::new(Target::Unix(path)) }, 50);
    assert_eq!((report.ok, report.requests()), (50, 50));
    server.join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();

    // A machine without IPv6 has nothing to test.
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let server =
            Server::on(
                listener,
                |mut stream| {
                    while read_request(&mut stream) && stream.write_all(HELLO).is_ok() {}
                },
            );
        let report = run(server.plan(), 50);
        assert_eq!((report.ok, report.requests()), (50, 50));
    }
}

#[test]
fn an_end_before_the_end_of_the_response_is_closed_early() {
    for answer in [&b""[..], b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"] {
        let server = Server::closing(answer);
        assert_only(&run(server.plan(), 3), Failure::ClosedEarly, 3);
        assert_only(&run(Plan { keep_alive: false, ..server.plan() }, 3), Failure::ClosedEarly, 3);
    }
}

#[test]
fn a_reset_is_a_reset() {
    let server = Server::start(reset);
    assert_only(&run(server.plan(), 3), Failure::Reset, 3);

    // In the middle of a body whose end only the close would tell.
    let server = Server::start(|mut stream| {
        if read_request(&mut stream) && stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").is_ok() {
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            socket::setsockopt(&stream.as_fd(), sockopt::Linger, &linger).unwrap();
        }
    });
    assert_only(&run(server.plan(), 3), Failure::Reset, 3);
}

#[test]
fn a_kept_connection_closed_under_a_request_is_a_failure() {
    // The second request of each connection is read and never answered.
    let server = Server::start(|mut stream| {
        if read_request(&mut stream) && stream.write_all(HELLO).is_ok() {
            read_request(&mut stream);
        }
    });
    let report = run(server.plan(), 20);
    assert_eq!((report.ok, report.failures.to_string().as_str()), (10, "10 closed_early"));
    assert_eq!(report.reconnects, 0, "a request that was written is never sent again in silence");
}

#[test]
fn an_idle_close_is_a_reconnect() {
    let closed = Arc::new(AtomicU64::new(0));
    let count = closed.clone();
    let server = Server::start(move |mut stream| {
        if read_request(&mut stream) && stream.write_all(HELLO).is_ok() {
            stream.shutdown(Shutdown::Both).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut load = Load::new(server.plan()).unwrap();
    for request in 1..=5 {
        load.run_requests(1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while closed.load(Ordering::SeqCst) < request {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
    }
    let report = load.take_report();
    assert_eq!((report.ok, report.failures.total(), report.connections), (5, 0, 5));
    // The end of the last connection may come with its answer.
    assert!((4..=5).contains(&report.reconnects), "{}", report.reconnects);
}

#[test]
fn no_answer_in_time_is_a_request_timeout() {
    let silent = Server::start(|mut stream| while read_request(&mut stream) {});
    let timeout = Duration::from_millis(50);
    let started = Instant::now();
    assert_only(&run(Plan { timeout, clients: 2, ..silent.plan() }, 4), Failure::RequestTimeout, 4);
    assert!(started.elapsed() >= timeout * 2);

    let dripping = Server::start(|mut stream| {
        read_request(&mut stream);
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_only(&run(Plan { timeout, ..dripping.plan() }, 1), Failure::RequestTimeout, 1);
}

#[test]
fn statuses_are_told_apart_and_the_connection_goes_on() {
    let busy = Server::keeping(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    assert_only(&run(busy.plan(), 5), Failure::ServerError, 5);
    assert_eq!(busy.accepted(), 1);
    let missing = Server::keeping(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert_only(&run(missing.plan(), 5), Failure::OtherStatus, 5);
    let moved = Server::keeping(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(run(moved.plan(), 5).ok, 5);
}

#[test]
fn garbage_is_malformed() {
    for answer in
        [&b"SSH-2.0-x\r\n"[..], b"\xff\x00\xfe\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello"]
    {
        let server = Server::start(move |mut stream| {
            if read_request(&mut stream) && stream.write_all(answer).is_ok() {
                read_request(&mut stream);
            }
        });
        assert_only(&run(server.plan(), 3), Failure::Malformed, 3);
    }
}

#[test]
fn at_a_fixed_rate_a_stall_shows_in_every_request_it_delayed() {
    let stalled = AtomicBool::new(false);
    let server = Server::start(move |mut stream| {
        while read_request(&mut stream) {
            if !stalled.swap(true, Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(200));
            }
            if stream.write_all(HELLO).is_err() {
                return;
            }
        }
    });
    let report = run(Plan { rate: Some(500.0), ..server.plan() }, 150);
    assert_eq!((report.ok, report.failures.total()), (150, 0));
    // 100 requests were due during the stall; half of them waited more than 100 ms. A closed loop would have one such.
    assert!(report.latency.quantile(0.7) > Duration::from_millis(80), "{:?}", report.latency.quantile(0.7));
    assert!(report.elapsed >= Duration::from_millis(295), "150 at 500/s, not sooner: {:?}", report.elapsed);
}

#[test]
fn what_no_client_was_free_for_is_overdue() {
    let silent = Server::start(|mut stream| while read_request(&mut stream) {});
    let mut load = Load::new(Plan { rate: Some(1000.0), clients: 2, ..silent.plan() }).unwrap();
    load.run_for(Duration::from_millis(100)).unwrap();
    let report = load.take_report();
    assert_eq!(report.requests(), 0);
    assert_eq!(report.overdue, (report.elapsed.as_secs_f64() * 1000.0) as u64 - 2);
}

#[test]
fn requests_in_flight_go_on_in_the_next_window_and_pauses_do_not_count() {
    let server = Server::start(|mut stream| {
        while read_request(&mut stream) {
            thread::sleep(Duration::from_millis(200));
            if stream.write_all(HELLO).is_err() {
                return;
            }
        }
    });
    let mut load = Load::new(Plan { timeout: Duration::from_millis(600), ..server.plan() }).unwrap();
    load.run_for(Duration::from_millis(10)).unwrap();
    let first = load.take_report();
    assert_eq!(first.requests(), 0);
    assert!(first.elapsed >= Duration::from_millis(10));
    thread::sleep(Duration::from_millis(700));
    load.run_requests(0).unwrap();
    let second = load.take_report();
    assert_eq!((second.ok, second.failures.total()), (1, 0));
    assert!(second.latency.max() < Duration::from_millis(600), "{:?}", second.latency.max());

    let mut slices = 0;
    let go_on = || {
        slices += 1;
        slices <= 3
    };
    load.run_while(go_on, Duration::from_millis(20)).unwrap();
    let third = load.take_report();
    assert!(third.elapsed >= Duration::from_millis(60));
    assert_eq!(first.elapsed + second.elapsed + third.elapsed, load.context.clock.now());
}
