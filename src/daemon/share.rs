//! One address that the workers of an app share: how it is bound, its sockets by slot, and who has it open.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use mio::{Interest, Registry};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::children::Children;
use super::source::Source;
use super::watch::{unwatch, watch};
use crate::app::{App, Balance, Text};
use crate::cluster::Rota;
use crate::node::{Family, Place, Query};
use crate::supervisor::ChildId;
use crate::sys::inherit;
use crate::sys::kept::Kept;
use crate::sys::pipe;
use crate::sys::socket::{self, LocalAddr};

/// Connections a worker may have been handed and not yet taken. Deep enough to keep a busy worker busy, shallow
/// enough that few wait behind one that blocks.
const DEPTH: u32 = 8;
/// The accept queue when the app asks for nothing: Node's default.
const BACKLOG: u32 = 511;

/// What an app is known by: its listeners belong to all its instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct AppKey {
    namespace: String,
    pub(super) name: String,
    script: Text,
}

impl AppKey {
    pub(super) fn of(app: &App) -> AppKey {
        AppKey {
            namespace: app.namespace.clone(),
            name: app.name.clone(),
            script: app.command.script.clone(),
        }
    }
}

/// One address that the workers of an app share.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) app: AppKey,
    /// What the workers call it.
    pub(super) key: String,
    pub(super) place: Place,
    /// What it is bound to, for TCP and UDP.
    pub(super) addr: Option<SocketAddr>,
    /// To be removed when the app lets go of it.
    pub(super) path: Option<PathBuf>,
    /// Where its socket listens, if that is one that the service manager passed on.
    adopted: Option<LocalAddr>,
    pub(super) policy: Balance,
    /// What the first worker sent along and all must get.
    pub(super) data: Value,
    pub(super) backlog: u32,
    /// By slot; those of all slots are one where there is only one.
    pub(super) sockets: BTreeMap<u32, Listener>,
    /// Workers that have it open.
    pub(super) users: BTreeMap<ChildId, User>,
    pub(super) rota: Rota,
    /// To be handed over before any other.
    pub(super) waiting: VecDeque<OwnedFd>,
}

/// A worker that has a share open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) slot: u32,
    /// Its server said so.
    pub(super) listens: bool,
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: u64,
    pub(super) fd: Kept<OwnedFd>,
    /// Somebody has called listen(2) on it.
    pub(super) listens: bool,
    /// We accept from it.
    pub(super) watched: bool,
    /// It may have a connection for us; the kernel tells only once.
    pub(super) ready: bool,
}

/// A share for the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShareRecord {
    app: AppKey,
    key: String,
    place: Place,
    addr: Option<SocketAddr>,
    path: Option<Text>,
    policy: Balance,
    #[serde(default)]
    data: Value,
    backlog: u32,
    /// Slot, fd, and whether it listens.
    pub(super) sockets: Vec<(u32, RawFd, bool)>,
    /// The same, for when the numbers have lost their meaning.
    #[serde(default)]
    inodes: Vec<u64>,
    users: Vec<(ChildId, User)>,
    #[serde(default)]
    adopted: bool,
}

impl ShareRecord {
    /// Its sockets, by inode and fd.
    pub fn sockets(&self) -> impl Iterator<Item = (u64, RawFd)> + '_ {
        self.inodes.iter().copied().zip(self.sockets.iter().map(|(_, fd, _)| *fd))
    }

    /// After the daemon and its keeper died together: what was stored of it, and of its workers those that
    /// can still be reached. False: nothing.
    pub fn find_again(
        &mut self,
        stored: &mut BTreeMap<u64, OwnedFd>,
        is_there: impl Fn(ChildId) -> bool,
    ) -> bool {
        let found =
            self.inodes.drain(..).zip(self.sockets.drain(..)).filter_map(|(inode, (slot, _, listens))| {
                Some((inode, (slot, stored.remove(&inode)?.into_raw_fd(), listens)))
            });
        (self.inodes, self.sockets) = found.unzip();
        self.users.retain(|(child, _)| is_there(*child));
        !self.sockets.is_empty()
    }
}

impl Listener {
    pub(super) fn new(next: &mut u64, fd: OwnedFd) -> Listener {
        let id = *next;
        *next += 1;
        Listener { id, fd: fd.into(), listens: false, watched: false, ready: false }
    }

    pub(super) fn watch(&mut self, registry: &Registry) {
        if !self.watched {
            self.watched = true;
            self.ready = true;
            watch(registry, self.fd.as_raw_fd(), Source::Listener(self.id), Interest::READABLE);
        }
    }

    pub(super) fn unwatch(&mut self, registry: &Registry) {
        if self.watched {
            self.watched = false;
            unwatch(registry, self.fd.as_raw_fd());
        }
    }
}

impl Share {
    fn new(app: &App, query: &Query) -> Share {
        Share {
            app: AppKey::of(app),
            key: query.key.clone(),
            place: query.place.clone(),
            addr: None,
            path: None,
            adopted: None,
            policy: app.balance,
            data: query.data.clone(),
            backlog: query.backlog.unwrap_or(BACKLOG),
            sockets: BTreeMap::new(),
            users: BTreeMap::new(),
            rota: Rota::default(),
            waiting: VecDeque::new(),
        }
    }

    /// An address whose socket the service manager passed on. There is this one only, and others like it
    /// could not be bound by somebody else than it; so we deal its connections out.
    pub(super) fn adopt(app: &App, query: &Query, next: &mut u64, address: LocalAddr, fd: OwnedFd) -> Share {
        let mut share = Share::new(app, query);
        if share.policy == Balance::Reuseport {
            share.policy = Balance::Rr;
        }
        if let LocalAddr::Inet(addr) = address {
            share.addr = Some(addr);
        }
        share.adopted = Some(address);
        share.sockets.insert(0, Listener::new(next, fd));
        share
    }

    /// Whether it is a TCP address whose sockets nobody but our workers has copies of: a service manager keeps those
    /// that it passed on.
    pub(super) fn is_tcp_of_ours(&self) -> bool {
        self.adopted.is_none() && matches!(self.place, Place::Tcp { .. })
    }

    /// Whether its socket is the one passed on for `address`.
    pub(super) fn is_adopted(&self, address: &LocalAddr) -> bool {
        self.adopted.as_ref() == Some(address)
    }

    /// Binds the first socket of an address. Without SO_REUSEPORT at first, so that a stranger on it
    /// is noticed; the option comes after, for the sockets of the other slots.
    pub(super) fn bind(app: &App, query: &Query, next: &mut u64, instance: u32) -> io::Result<Share> {
        let mut share = Share::new(app, query);
        let fd = match &query.place {
            Place::Tcp { ip, port, v6only } => {
                let fd = bind_tcp(*ip, *port, *v6only)?;
                if share.policy == Balance::Reuseport {
                    socket::allow_reuseport(fd.as_fd())?;
                }
                fd
            }
            Place::Udp { ip, family, port, v6only, reuse_addr } => {
                // One socket for all is Node's meaning; datagrams cannot be dealt out.
                share.policy = Balance::Shared;
                let any = match family {
                    Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                };
                let addr = SocketAddr::new(ip.unwrap_or(any), *port);
                socket::bind_udp(addr, addr.is_ipv6().then_some(*v6only), *reuse_addr)?
            }
            Place::Unix { path, readable_all, writable_all } => {
                if share.policy == Balance::Reuseport {
                    share.policy = Balance::Shared;
                }
                let path = app.cwd.path().join(path);
                let fd = bind_unix(&path, *readable_all, *writable_all)?;
                share.path = Some(path).filter(|path| !path.as_os_str().as_encoded_bytes().starts_with(&[0]));
                fd
            }
            Place::Unavailable => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        if let LocalAddr::Inet(addr) = socket::local_addr(fd.as_fd())? {
            share.addr = Some(addr);
        }
        let slot = share.slot(instance);
        share.sockets.insert(slot, Listener::new(next, fd));
        Ok(share)
    }

    /// For the journal.
    pub(super) fn record(&self) -> ShareRecord {
        ShareRecord {
            app: self.app.clone(),
            key: self.key.clone(),
            place: self.place.clone(),
            addr: self.addr,
            path: self.path.as_deref().map(Text::from),
            policy: self.policy,
            data: self.data.clone(),
            backlog: self.backlog,
            sockets: self.sockets.iter().map(|(slot, l)| (*slot, l.fd.as_raw_fd(), l.listens)).collect(),
            inodes: self.sockets.values().map(|listener| pipe::inode(listener.fd.as_fd())).collect(),
            users: self.users.iter().map(|(child, user)| (*child, user.clone())).collect(),
            adopted: self.adopted.is_some(),
        }
    }

    /// What a daemon before us had bound. Sockets that are gone are bound again when they are asked for.
    pub(super) fn restore(record: ShareRecord, next: &mut u64) -> Share {
        let mut sockets = BTreeMap::new();
        for (slot, fd, listens) in record.sockets {
            match inherit::take(fd) {
                Ok(fd) => {
                    let mut listener = Listener::new(next, fd);
                    listener.listens = listens;
                    sockets.insert(slot, listener);
                }
                Err(error) => log::error!("take over a socket of {}: {error}", record.key),
            }
        }
        let local = |listener: &Listener| socket::local_addr(listener.fd.as_fd()).ok();
        Share {
            app: record.app,
            key: record.key,
            place: record.place,
            addr: record.addr,
            path: record.path.map(|path| path.path().to_path_buf()),
            adopted: sockets.values().next().filter(|_| record.adopted).and_then(local),
            policy: record.policy,
            data: record.data,
            backlog: record.backlog,
            sockets,
            users: record.users.into_iter().collect(),
            rota: Rota::default(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether a connection with this local address came in by one of its sockets.
    pub(super) fn is_of(&self, local: &LocalAddr) -> bool {
        match (local, self.addr, &self.path) {
            (LocalAddr::Inet(local), Some(addr), _) => {
                local.port() == addr.port() && (addr.ip().is_unspecified() || addr.ip() == local.ip())
            }
            (LocalAddr::Unix(local), None, Some(path)) => local == path,
            _ => false,
        }
    }

    /// The slot whose socket a worker of this instance gets.
    pub(super) fn slot(&self, instance: u32) -> u32 {
        match self.policy {
            Balance::Reuseport => instance,
            Balance::Rr | Balance::Shared => 0,
        }
    }

    pub(super) fn accept(&mut self, registry: &Registry) -> Option<OwnedFd> {
        for listener in self.sockets.values_mut().filter(|listener| listener.watched && listener.ready) {
            match socket::accept(listener.fd.as_fd()) {
                Ok(Some(connection)) => return Some(connection),
                Ok(None) => listener.ready = false,
                // Nobody has called listen(2) on it after all.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => listener.unwatch(registry),
                Err(error) => log::warn!("accept on {}: {error}", self.key),
            }
        }
        None
    }

    /// The next worker that can take a connection.
    pub(super) fn next_worker(&mut self, children: &mut Children) -> Option<ChildId> {
        loop {
            let worker = ChildId(self.rota.take(DEPTH)?);
            if children.channel(worker).is_some_and(|channel| channel.is_clear()) {
                return Some(worker);
            }
            // Behind with its channel, or gone: it comes back when it answers.
            self.rota.done(worker.0);
            self.rota.leave(worker.0);
        }
    }
}

/// Whether a worker that wants to listen at `place` means `address`.
pub(super) fn is_at(app: &App, place: &Place, address: &LocalAddr) -> bool {
    match (place, address) {
        (Place::Tcp { ip: Some(ip), port, .. }, LocalAddr::Inet(addr)) => {
            *addr == SocketAddr::new(*ip, *port)
        }
        (Place::Tcp { ip: None, port, .. }, LocalAddr::Inet(addr)) => {
            addr.ip().is_unspecified() && addr.port() == *port
        }
        (Place::Unix { path, .. }, LocalAddr::Unix(bound)) => app.cwd.path().join(path) == *bound,
        _ => false,
    }
}

/// Binds as Node's primary does: no address means any, of both families where there are both.
fn bind_tcp(ip: Option<IpAddr>, port: u16, v6only: bool) -> io::Result<OwnedFd> {
    match ip {
        Some(ip) => socket::bind_tcp(SocketAddr::new(ip, port), ip.is_ipv6().then_some(v6only), false),
        None => {
            let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            match socket::bind_tcp(both, Some(v6only), false) {
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINVAL | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                    ) =>
                {
                    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
                    socket::bind_tcp(any, None, false)
                }
                bound => bound,
            }
        }
    }
}

/// Binds a unix socket as libuv does: a missing directory is EACCES.
fn bind_unix(path: &Path, readable_all: bool, writable_all: bool) -> io::Result<OwnedFd> {
    let fd = socket::bind_unix(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => io::Error::from_raw_os_error(libc::EACCES),
        _ => error,
    })?;
    if readable_all || writable_all {
        use std::os::unix::fs::PermissionsExt;
        let mut mode = std::fs::metadata(path)?.permissions().mode();
        if readable_all {
            mode |= 0o444;
        }
        if writable_all {
            mode |= 0o222;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(fd)
}
