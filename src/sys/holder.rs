//! Who has an address that cannot be bound, for people: what the kernel tells of sockets and of open fds.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How much is read of the kernel's table of sockets. Those that listen come first in it.
const TABLE: u64 = 1 << 20;
/// So many open fds are looked at: as many as take some tens of milliseconds.
const LOOKS: usize = 20_000;

/// A socket that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its number among all sockets.
    pub inode: u64,
    /// Whose it is.
    pub uid: u32,
}

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The socket on this port that is in the way of `ip`, or of every address. One that listens, if it is TCP.
pub fn bound(transport: Transport, ip: Option<IpAddr>, port: u16) -> Option<Bound> {
    // As in the kernel's enum: TCP_LISTEN, and TCP_CLOSE for a UDP socket without a peer.
    let (tables, state) = match transport {
        Transport::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
        Transport::Udp => (["/proc/net/udp", "/proc/net/udp6"], "07"),
    };
    tables.into_iter().find_map(|table| {
        let mut text = String::new();
        fs::File::open(table).ok()?.take(TABLE).read_to_string(&mut text).ok()?;
        text.lines().find_map(|line| line_of(line, state, ip, port))
    })
}

fn line_of(line: &str, state: &str, ip: Option<IpAddr>, port: u16) -> Option<Bound> {
    let mut fields = line.split_ascii_whitespace();
    let (address, found_port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != state || u16::from_str_radix(found_port, 16) != Ok(port) {
        return None;
    }
    let found = address_of(address)?;
    let is_in_the_way = ip.is_none_or(|ip| ip.is_unspecified() || found.is_unspecified() || ip == found);
    let (uid, inode) = (fields.nth(3)?, fields.nth(1)?);
    is_in_the_way.then_some(Bound { inode: inode.parse().ok()?, uid: uid.parse().ok()? })
}

/// Words of 32 bits, each in the machine's order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?);
            }
            let ip = Ipv6Addr::from(bytes);
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => None,
    }
}

/// A process that has the socket open, if it is one whose fds we may see.
pub fn process(inode: u64) -> Option<i32> {
    let entries = fs::read_dir("/proc").ok()?;
    let mut left = LOOKS;
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| left > 0 && looks_until(*pid, inode, &mut left))
}

/// Whether a process has the socket open.
pub fn has(pid: i32, inode: u64) -> bool {
    looks_until(pid, inode, &mut { LOOKS })
}

fn looks_until(pid: i32, inode: u64, left: &mut usize) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .take_while(|_| left.checked_sub(1).inspect(|less| *left = *less).is_some())
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}

/// The name of a process, as `ps` shows it.
pub fn name(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::time::{Duration, Instant};

    #[test]
    fn p17_who_has_an_address_is_found() {
        let us = std::process::id() as i32;
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            for ip in [Some(local.ip()), None, Some(Ipv4Addr::UNSPECIFIED.into())] {
                let bound = bound(Transport::Tcp, ip, local.port()).unwrap();
                assert_eq!(bound.uid, crate::sys::users::effective_uid());
                assert!(has(us, bound.inode), "{address} {ip:?}");
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = Some(Ipv4Addr::new(127, 0, 0, 9).into());
        assert_eq!(bound(Transport::Tcp, other, port), None, "another address is free");
        let inode = bound(Transport::Tcp, None, port).unwrap().inode;
        assert_eq!(process(inode), Some(us));
        drop(listener);
        // A child that another test starts has it open until its exec.
        let until = Instant::now() + Duration::from_secs(30);
        while bound(Transport::Tcp, None, port).is_some() {
            assert!(Instant::now() < until, "nobody has it any more");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let bound = bound(Transport::Udp, None, port).unwrap();
        assert!(has(us, bound.inode) && !has(1, u64::MAX));
        assert!(name(us).is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn what_makes_no_sense_is_nobody() {
        for line in
            ["", "  sl  local_address rem_address   st", "0: x:y z 0A", "0: 0100007F:0050 0:0 0A a b c d e"]
        {
            assert_eq!(line_of(line, "0A", None, 80), None, "{line}");
        }
        assert_eq!(address_of("0100007"), None);
    }
}
