//! Speaking to the service manager above us, as sd_notify(3) and sd_watchdog_enabled(3) describe it:
//! datagrams of `NAME=value` lines to the socket that `$NOTIFY_SOCKET` names.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

use crate::time::Millis;

/// The way to a service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(OwnedFd, UnixAddr)>,
    watchdog: Option<Millis>,
}

impl Notify {
    /// From the environment of this process, which keeps it for the program that this process may become; it
    /// is not meant for children. To be called by `main`. The error says that there is a manager we cannot reach.
    pub fn of_process() -> io::Result<Notify> {
        let (us, parent) = (std::process::id(), std::os::unix::process::parent_id());
        Notify::from_env(|name| std::env::var_os(name), &[us, parent])
    }

    /// `us`: the process ids that mean this daemon, its own and that of whoever started it on our behalf.
    fn from_env(var: impl Fn(&str) -> Option<OsString>, us: &[u32]) -> io::Result<Notify> {
        let Some(name) = var("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Notify::default());
        };
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => UnixAddr::new_abstract(rest)?,
            [b'/', ..] => UnixAddr::new(name.as_bytes())?,
            _ => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        let number = |name| var(name)?.to_str()?.parse::<u64>().ok();
        let ours = var("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID").is_some_and(|pid| us.iter().any(|&us| u64::from(us) == pid));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| usec > 0 && ours);
        Ok(Notify { to: Some((socket, address)), watchdog: watchdog.map(|usec| Millis(usec / 1_000)) })
    }

    /// Our end, for the keeper's table.
    pub fn fd(&self) -> Option<RawFd> {
        self.to.as_ref().map(|(socket, _)| socket.as_raw_fd())
    }

    /// Whether there is a manager.
    pub fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// How long the manager waits for a sign of life before it gives us up; it asks for one twice in that time.
    pub fn watchdog(&self) -> Option<Millis> {
        self.watchdog
    }

    /// Sends lines. Never blocks: `WouldBlock` means that the manager is behind, and nothing was sent.
    pub fn send(&self, lines: &str) -> io::Result<()> {
        self.send_with_fds(lines, &[])
    }

    /// As [`send`](Notify::send), with file descriptors for the manager to keep (`FDSTORE=1`).
    pub fn send_with_fds(&self, lines: &str, fds: &[RawFd]) -> io::Result<()> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let bytes = [IoSlice::new(lines.as_bytes())];
        loop {
            match sendmsg(socket.as_raw_fd(), &bytes, rights, flags, Some(address)) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;
    use crate::sys::testing::alone;
    use crate::sys::{fdpass, pipe::memfd};

    fn from(vars: &[(&str, &str)], us: &[u32]) -> io::Result<Notify> {
        Notify::from_env(|name| vars.iter().find(|var| var.0 == name).map(|var| var.1.into()), us)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn lines_arrive_at_a_path_and_at_an_abstract_name() {
        let name = format!("pmx-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let abstracted = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(&by_path, path.display().to_string()), (&abstracted, format!("@{name}"))] {
            let notify = from(&[("NOTIFY_SOCKET", &address)], &[]).unwrap();
            assert!(notify.is_heard());
            notify.send("READY=1\nSTATUS=here").unwrap();
            assert_eq!(heard(socket), "READY=1\nSTATUS=here");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn file_descriptors_go_along() {
        let path = std::env::temp_dir().join(format!("pmx-fdstore-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = from(&[("NOTIFY_SOCKET", path.to_str().unwrap())], &[]).unwrap();
        let files = ["a", "b"].map(|text| memfd(text, text.as_bytes()).unwrap());
        let fds: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        notify.send_with_fds("FDSTORE=1\nFDNAME=x", &fds).unwrap();
        let mut buffer = [0; 64];
        let (count, fds) = fdpass::recv(socket.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"FDSTORE=1\nFDNAME=x");
        let texts = fds.into_iter().map(|fd| {
            let (mut file, mut text) = (File::from(fd), String::new());
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["a", "b"]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_does_not_read_never_blocks_us() {
        // Alone: a child that another test starts has the socket, too, until it executes its program.
        alone("sys::notify::tests::a_manager_that_does_not_read_never_blocks_us", || {
            let path = std::env::temp_dir().join(format!("pmx-deaf-{}", std::process::id()));
            let socket = UnixDatagram::bind(&path).unwrap();
            let notify = from(&[("NOTIFY_SOCKET", path.to_str().unwrap())], &[]).unwrap();
            let error = (0..100_000).find_map(|_| notify.send("WATCHDOG=1").err()).expect("a full queue");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            drop(socket);
            assert_eq!(notify.send("READY=1").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            std::fs::remove_file(path).unwrap();
            assert_eq!(notify.send("READY=1").unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_a_watchdog_is_for_the_process_it_names() {
        let nobody = from(&[("WATCHDOG_USEC", "1000000")], &[7]).unwrap();
        assert!(!nobody.is_heard() && nobody.watchdog().is_none());
        nobody.send("READY=1").unwrap();
        assert!(from(&[("NOTIFY_SOCKET", "vsock:2:1")], &[]).is_err());
        for (pid, usec, expected) in [
            (None, "30000000", Some(Millis(30_000))),
            (Some("7"), "30000000", Some(Millis(30_000))),
            (Some("6"), "30000000", Some(Millis(30_000))),
            (Some("8"), "30000000", None),
            (Some("x"), "30000000", None),
            (None, "0", None),
            (None, "soon", None),
        ] {
            let mut vars = vec![("NOTIFY_SOCKET", "/nowhere"), ("WATCHDOG_USEC", usec)];
            vars.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            assert_eq!(from(&vars, &[7, 6]).unwrap().watchdog(), expected, "{vars:?}");
        }
    }
}
