//! File descriptors that whoever started us passed on by number.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes possession of an inherited fd; children do not inherit it in turn. To be called once per
/// number, by `main`, before anything else is open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the fd is only asked for its flags; if it is not open, that is the error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    // Whatever else is wrong, it is open, and ours.
    if let Err(error @ nix::errno::Errno::EBADF) = fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        return Err(error.into());
    }
    // SAFETY: it is open, and nobody in this process has opened it: it came from outside.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes what whoever started us left open by accident, all but 0, 1, 2 and `wanted`: a daemon would hold
/// it for years. To be called by `main`, before anything else is open.
pub fn close_others(wanted: &[RawFd]) {
    for fd in super::family::open_fds().into_iter().filter(|fd| !wanted.contains(fd)) {
        // SAFETY: nobody in this process has opened it: it came from outside.
        unsafe { libc::close(fd) };
    }
}

/// Removes variables from the environment of this process. To be called by `main`, before any thread is
/// started.
pub fn forget(names: &[&str]) {
    for name in names {
        // SAFETY: no other thread runs that could read the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// The fds that a service manager passed to this process as sd_listen_fds(3) describes it, by name: sockets,
/// and what it was given to keep. The environment loses what it says about them. To be called once, by `main`;
/// each is then to be [taken](take).
pub fn passed() -> Vec<(String, RawFd)> {
    let (us, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let passed = passed_by(|name| std::env::var_os(name), &[us, parent, 1]);
    forget(&["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]);
    passed
}

/// The first fd of those passed on.
const FIRST: RawFd = 3;
/// More than anybody passes; a number above is nonsense.
const MOST: RawFd = 1 << 16;

/// `us`: the process ids that mean this one. Some container runtimes write 1, whoever that is.
fn passed_by(var: impl Fn(&str) -> Option<OsString>, us: &[u32]) -> Vec<(String, RawFd)> {
    let number = |name| var(name)?.to_str()?.parse::<RawFd>().ok();
    let ours = number("LISTEN_PID").is_some_and(|pid| us.iter().any(|&us| i64::from(us) == i64::from(pid)));
    let count = number("LISTEN_FDS").filter(|count| ours && (1..=MOST).contains(count)).unwrap_or(0);
    let names = var("LISTEN_FDNAMES").and_then(|names| names.into_string().ok()).unwrap_or_default();
    let names = names.split(':').map(String::from).chain(std::iter::repeat(String::new()));
    names.zip(FIRST..FIRST + count).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::socket::{self, LocalAddr};
    use crate::sys::testing::alone;

    fn passed_to(vars: &[(&str, &str)]) -> Vec<(String, RawFd)> {
        passed_by(|name| vars.iter().find(|var| var.0 == name).map(|var| var.1.into()), &[7, 6, 1])
    }

    #[test]
    fn what_is_passed_has_a_number_and_perhaps_a_name_and_is_for_one_process() {
        let named = |names: &[(&str, RawFd)]| -> Vec<(String, RawFd)> {
            names.iter().map(|(name, fd)| (name.to_string(), *fd)).collect()
        };
        for pid in ["7", "6", "1"] {
            assert_eq!(passed_to(&[("LISTEN_FDS", "2"), ("LISTEN_PID", pid)]), named(&[("", 3), ("", 4)]));
        }
        let vars = [("LISTEN_FDS", "3"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "web:store")];
        assert_eq!(passed_to(&vars), named(&[("web", 3), ("store", 4), ("", 5)]));
        for (fds, pid) in [("2", "8"), ("2", ""), ("-1", "7"), ("x", "7"), ("99999999", "7"), ("0", "7")] {
            assert!(passed_to(&[("LISTEN_FDS", fds), ("LISTEN_PID", pid)]).is_empty(), "{fds} {pid}");
        }
        assert!(passed_to(&[("LISTEN_FDS", "2")]).is_empty());
    }

    #[test]
    fn a_passed_socket_is_taken_and_what_told_of_it_forgotten() {
        const TEST: &str = "sys::inherit::tests::a_passed_socket_is_taken_and_what_told_of_it_forgotten";
        if std::env::var_os("PASSED_TO_TEST").is_none() {
            return alone(TEST, || {
                // The socket as fd 3 and the parent as the one it was passed to, as behind a keeper.
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port().to_string();
                // SAFETY: this process runs nothing but this test, which owns whatever is at 3.
                assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&listener), 3) }, 3);
                // SAFETY: 3 is open until the process ends.
                let three = unsafe { BorrowedFd::borrow_raw(3) };
                fcntl(three, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
                let status = Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", TEST, "--test-threads=1"])
                    .env("PASSED_TO_TEST", port)
                    .env("LISTEN_FDS", "1")
                    .env("LISTEN_PID", std::process::id().to_string())
                    .env("LISTEN_FDNAMES", "web")
                    .stdin(Stdio::null())
                    .status();
                assert!(status.unwrap().success());
            });
        }
        let port: u16 = std::env::var("PASSED_TO_TEST").unwrap().parse().unwrap();
        let found = passed();
        assert_eq!(found, [("web".to_string(), 3)]);
        assert!(std::env::var_os("LISTEN_FDS").is_none());
        let fd = take(3).unwrap();
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
        assert_eq!(socket::local_addr(fd.as_fd()).unwrap(), LocalAddr::Inet(([127, 0, 0, 1], port).into()));
    }

    #[test]
    fn what_is_not_there_is_not_taken() {
        assert!(take(1).is_err());
        assert!(take(60_001).is_err());
    }
}
