//! The Node cluster primary: binds what workers want to listen on, keeps the sockets for the life of the
//! app, and deals connections out where the kernel does not.
//!
//! Sockets belong to the app and its slots, never to a child: across reload, restart and crash nobody
//! closes a listener, so no connection in its queue is lost.

mod handover;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

use mio::Registry;
use serde::{Deserialize, Serialize};

use super::children::Children;
use super::share::{AppKey, Listener, Share, User, is_at};
use super::source::Progress;
use crate::app::{App, Balance};
use crate::node::{self, Handle, Place, Query};
use crate::protocol::Queue;
use crate::supervisor::ChildId;
use crate::sys::board::{ARRIVED, Board, FLIGHTS};
use crate::sys::holder::{self, Bound, Transport};
use crate::sys::kept::Kept;
use crate::sys::socket::{self, LocalAddr};
use crate::sys::{failpoint, pipe};
use crate::time::{Millis, Mono};

/// Connections accepted in one visit.
const ACCEPTS: usize = 64;
/// Addresses of one app: each costs us an fd per slot.
const ADDRESSES: usize = 1_024;
/// An address that nobody has had open for so long, while workers of its app serve others, is given up: a
/// new version has moved to another port.
const UNUSED: Millis = Millis(5_000);

/// All that the apps listen on.
#[derive(Debug, Default)]
pub struct Primary {
    shares: BTreeMap<ShareId, Share>,
    /// Listening sockets that the service manager passed on, whether or not an app has asked for them.
    adopted: Vec<(LocalAddr, Kept<OwnedFd>)>,
    /// There are more of them than the journal says.
    pub changed_adopted: bool,
    /// By app and what its workers call it.
    names: BTreeMap<(AppKey, String), ShareId>,
    by_listener: BTreeMap<u64, ShareId>,
    workers: BTreeMap<ChildId, Worker>,
    /// Handed over, not yet acknowledged.
    in_flight: HashMap<u64, InFlight>,
    /// Workers that were asked how far connections had come that a daemon before us handed over.
    probes: HashMap<u64, ChildId>,
    /// Addresses that nobody has open, and when they are given up, once that is known.
    unused: BTreeMap<ShareId, Option<Mono>>,
    next_share: u64,
    next_listener: u64,
    /// The socket that was in the way last, and whose it is, if that can be seen.
    found: Option<(u64, Option<i32>)>,
    /// What outlives us about connections that are handed over.
    board: Option<&'static Board>,
    /// Shares that changed since the journal was last told.
    pub changed: BTreeSet<u64>,
    /// The same of workers.
    pub changed_workers: BTreeSet<ChildId>,
}

/// One share, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ShareId(u64);

/// A connection on its way to a worker.
#[derive(Debug)]
struct InFlight {
    share: ShareId,
    worker: ChildId,
    connection: OwnedFd,
}

/// The way to a server of a child.
#[derive(Debug, PartialEq, Eq)]
pub enum Door {
    /// By a connection for this key, handed to it.
    Own(String),
    /// Its app shares that port, and it has not opened it.
    Closed,
    /// The port is not ours.
    Elsewhere,
}

/// A child in its part as a worker.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// It must not accept yet.
    held: bool,
    /// It was told to accept no more.
    draining: bool,
    /// So many connections it was handed and took.
    #[serde(skip)]
    accepted: u64,
}

impl Primary {
    /// With a board for what must outlive us.
    pub fn new(board: &'static Board) -> Primary {
        Primary { board: Some(board), ..Primary::default() }
    }

    /// Takes a listening socket into its care: the app that asks for its address gets it.
    pub fn adopt(&mut self, address: LocalAddr, fd: OwnedFd) {
        self.adopted.push((address, fd.into()));
        self.changed_adopted = true;
    }

    /// A child that may become a worker.
    pub fn join(&mut self, child: ChildId, held: bool) {
        self.changed_workers.insert(child);
        self.workers.insert(child, Worker { held, ..Worker::default() });
    }

    /// A connection goes to a worker, and the next daemon shall know.
    fn take_off(&mut self, share: ShareId, worker: ChildId, connection: &OwnedFd) -> u64 {
        let Some(board) = self.board else { return 0 };
        let seq = board.last_seq.fetch_add(1, SeqCst) + 1;
        let flight = &board.flights[seq as usize % FLIGHTS];
        if flight.seq.load(SeqCst) == 0 {
            flight.fd.store(connection.as_raw_fd(), SeqCst);
            flight.worker.store(worker.0, SeqCst);
            flight.share.store(share.0, SeqCst);
            flight.seq.store(seq, SeqCst);
        }
        seq
    }

    /// The worker has it.
    fn arrived(&self, seq: u64) {
        let flights = self.board.map(|board| &board.flights[seq as usize % FLIGHTS]);
        if let Some(flight) = flights.filter(|flight| flight.seq.load(SeqCst) == seq) {
            flight.share.store(ARRIVED, SeqCst);
        }
    }

    /// It is no longer on its way.
    fn landed(&self, seq: u64) {
        if let Some(board) = self.board {
            let flight = &board.flights[seq as usize % FLIGHTS];
            let _ = flight.seq.compare_exchange(seq, 0, SeqCst, SeqCst);
        }
    }

    /// A server of `child` wants to listen: answers it.
    pub fn query_server(
        &mut self,
        registry: &Registry,
        children: &mut Children,
        child: ChildId,
        seq: u64,
        query: &Query,
    ) {
        let Some(living) = children.get(child) else { return };
        // Node's primary ignores workers that are on their way out.
        if self.workers.get(&child).is_none_or(|worker| worker.draining) {
            return;
        }
        let (app, instance) = (living.app.clone(), living.instance);
        let id = match self.share(&app, instance, query) {
            Ok(id) => id,
            Err(error) => return self.refuse(registry, children, child, seq, query, &error),
        };
        failpoint::reach("bound");
        let Some(share) = self.shares.get_mut(&id) else { return };
        let slot = share.slot(instance);
        self.changed.insert(id.0);
        let Some(listener) = share.sockets.get_mut(&slot) else { return };
        if share.policy == Balance::Rr && !listener.listens {
            if let Err(error) = socket::listen(listener.fd.as_fd(), share.backlog) {
                if share.users.is_empty() {
                    self.give_up(registry, id);
                }
                return self.refuse(registry, children, child, seq, query, &error);
            }
            listener.listens = true;
        }
        share.users.insert(child, User { slot, listens: false });
        if share.policy == Balance::Rr {
            let faux = node::faux_handle(seq, &share.key, &share.data, share.addr);
            children.send(registry, child, faux, None);
            if !self.workers.get(&child).is_some_and(|worker| worker.held) {
                self.serve(registry, children, id, child);
            }
        } else {
            let handle =
                if matches!(share.place, Place::Udp { .. }) { Handle::Datagram } else { Handle::Stream };
            let shared = node::shared_handle(handle, seq, &share.key, &share.data);
            children.send(registry, child, shared, Some(listener.fd.as_fd()));
        }
        failpoint::reach("handed-over");
    }

    /// Tells a child that it cannot listen there, as Node's primary would, and people why.
    fn refuse(
        &mut self,
        registry: &Registry,
        children: &mut Children,
        child: ChildId,
        seq: u64,
        query: &Query,
        error: &io::Error,
    ) {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        let by = if errno == libc::EADDRINUSE { self.holder(&query.place) } else { String::new() };
        let why = format!("listen on {}: {}{by}", query.place, crate::sys::reason(error));
        if let Some(living) = children.get_mut(child) {
            log::warn!("{}({}): {why}", living.app.name, living.process.0);
            living.refused = Some(why);
        }
        let answer = node::listen_error(seq, &query.key, &query.data, errno);
        children.send(registry, child, answer, None);
    }

    /// Who has an address, as the end of a sentence; empty if that cannot be told.
    fn holder(&mut self, place: &Place) -> String {
        let (transport, ip, port) = match place {
            Place::Tcp { ip, port, .. } => (Transport::Tcp, *ip, *port),
            Place::Udp { ip, port, .. } => (Transport::Udp, *ip, *port),
            Place::Unix { .. } | Place::Unavailable => return String::new(),
        };
        let Some(Bound { inode, uid }) = holder::bound(transport, ip, port) else { return String::new() };
        let sockets = |share: &Share| share.sockets.values().any(|l| pipe::inode(l.fd.as_fd()) == inode);
        if let Some(share) = self.shares.values().find(|share| sockets(share)) {
            return format!(" by the app {}", share.app.name);
        }
        // A crash loop asks again and again, and to look at everybody is dear.
        let pid = match self.found {
            Some((known, None)) if known == inode => None,
            Some((known, Some(pid))) if known == inode && holder::has(pid, inode) => Some(pid),
            _ => holder::process(inode),
        };
        self.found = Some((inode, pid));
        match pid.and_then(|pid| Some((pid, holder::name(pid)?))) {
            Some((pid, name)) => format!(" by process {pid} ({name})"),
            None => format!(" by a process of user {uid}"),
        }
    }

    /// The share of `query`, bound if it is new, with a socket for the slot.
    fn share(&mut self, app: &App, instance: u32, query: &Query) -> io::Result<ShareId> {
        let name = (AppKey::of(app), query.key.clone());
        let id = match self.names.get(&name) {
            Some(id) => *id,
            None => {
                if self.names.keys().filter(|(app, _)| *app == name.0).count() >= ADDRESSES {
                    return Err(io::Error::from_raw_os_error(libc::EMFILE));
                }
                let adopted = self.adopted.iter().find(|(address, _)| is_at(app, &query.place, address));
                let share = match adopted {
                    Some((address, _)) if self.shares.values().any(|share| share.is_adopted(address)) => {
                        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
                    }
                    Some((address, fd)) => {
                        let fd = fd.try_clone()?;
                        Share::adopt(app, query, &mut self.next_listener, address.clone(), fd)
                    }
                    None => Share::bind(app, query, &mut self.next_listener, instance)?,
                };
                let id = ShareId(self.next_share);
                self.next_share += 1;
                self.by_listener.extend(share.sockets.values().map(|listener| (listener.id, id)));
                self.names.insert(name, id);
                self.changed.insert(id.0);
                self.shares.insert(id, share);
                id
            }
        };
        if let Some(share) = self.shares.get_mut(&id) {
            let slot = share.slot(instance);
            if !share.sockets.contains_key(&slot)
                && let Some(addr) = share.addr
            {
                let v6only = matches!(share.place, Place::Tcp { v6only: true, .. });
                let fd = socket::bind_tcp(addr, addr.is_ipv6().then_some(v6only), true)?;
                let listener = Listener::new(&mut self.next_listener, fd);
                self.by_listener.insert(listener.id, id);
                self.changed.insert(id.0);
                share.sockets.insert(slot, listener);
            }
        }
        Ok(id)
    }

    /// A server of `child` listens.
    pub fn listening(&mut self, registry: &Registry, children: &mut Children, child: ChildId) {
        for (id, share) in &mut self.shares {
            if let Some(user) = share.users.get_mut(&child) {
                self.changed.insert(id.0);
                user.listens = true;
                if let Some(listener) = share.sockets.get_mut(&user.slot) {
                    listener.listens |= share.policy != Balance::Rr;
                }
            }
        }
        if let Some(living) = children.get_mut(child) {
            living.refused = None;
            self.note_unused(&AppKey::of(&living.app));
        }
        self.cover(registry, children);
    }

    /// The candidate of a reload takes over: it may accept.
    pub fn promote(&mut self, registry: &Registry, children: &mut Children, child: ChildId) {
        let Some(worker) = self.workers.get_mut(&child) else { return };
        worker.held = false;
        self.changed_workers.insert(child);
        children.send(registry, child, node::go(), None);
        let deals = |share: &Share| share.policy == Balance::Rr && share.users.contains_key(&child);
        let dealt: Vec<ShareId> =
            self.shares.iter().filter(|(_, share)| deals(share)).map(|(id, _)| *id).collect();
        for id in dealt {
            self.serve(registry, children, id, child);
        }
        self.cover(registry, children);
    }

    /// Tells a worker to accept no more and to finish what it has. False: it is no worker.
    pub fn drain(
        &mut self,
        registry: &Registry,
        children: &mut Children,
        child: ChildId,
        grace: u64,
    ) -> bool {
        let Some(worker) = self.workers.get_mut(&child) else { return false };
        worker.draining = true;
        self.changed_workers.insert(child);
        for share in self.shares.values_mut() {
            share.rota.leave(child.0);
        }
        self.cover(registry, children);
        let seq = self.next_seq();
        let disconnect = node::disconnect(seq);
        children.send(registry, child, node::drain(grace), None)
            && children.send(registry, child, disconnect, None)
    }

    /// A server of `child` was closed by its app. When nobody has it open, the address is given up.
    pub fn close(&mut self, registry: &Registry, children: &mut Children, child: ChildId, key: &str) {
        // One that drains closes its servers because it was told to; its app still wants them.
        if self.workers.get(&child).is_none_or(|worker| worker.draining) {
            return;
        }
        let Some(living) = children.get(child) else { return };
        let Some(&id) = self.names.get(&(AppKey::of(&living.app), key.to_string())) else { return };
        let Some(share) = self.shares.get_mut(&id) else { return };
        // Only who had it open can close it.
        if share.users.remove(&child).is_none() {
            return;
        }
        self.changed.insert(id.0);
        share.rota.leave(child.0);
        if share.users.is_empty() {
            self.give_up(registry, id);
        }
        self.cover(registry, children);
    }

    /// A worker answered for a connection, which must be one that it was handed.
    pub fn acknowledged(
        &mut self,
        registry: &Registry,
        children: &mut Children,
        child: ChildId,
        seq: u64,
        accepted: bool,
    ) {
        if self.probes.get(&seq) == Some(&child) {
            self.probes.remove(&seq);
            return self.never_arrived(registry, children, child, seq);
        }
        let Entry::Occupied(entry) = self.in_flight.entry(seq) else { return };
        if entry.get().worker != child {
            return;
        }
        let InFlight { share: id, connection, .. } = entry.remove();
        failpoint::reach("acknowledged");
        let back = if accepted {
            // A duplicate of which nothing is known would be handed over once more by the next daemon.
            self.arrived(seq);
            failpoint::reach("arrived");
            drop(connection);
            if let Some(worker) = self.workers.get_mut(&child) {
                worker.accepted += 1;
            }
            None
        } else {
            Some(connection)
        };
        failpoint::reach("let-go");
        self.landed(seq);
        failpoint::reach("landed");
        let Some(share) = self.shares.get_mut(&id) else { return };
        share.rota.done(child.0);
        share.waiting.extend(back);
        if !share.rota.is_on(child.0) {
            self.rejoin(child);
        }
        let _ = self.deal(registry, children, id);
    }

    /// A worker answered what was sent to it after its connections: those before `seq` that it has not answered
    /// for were never sent.
    fn never_arrived(&mut self, registry: &Registry, children: &mut Children, child: ChildId, seq: u64) {
        for id in self.take_back(|at, flight| flight.worker == child && at < seq) {
            let _ = self.deal(registry, children, id);
        }
    }

    /// Connections in flight wait again, in the order in which they came. Returns where they do.
    fn take_back(&mut self, mut is_lost: impl FnMut(u64, &InFlight) -> bool) -> BTreeSet<ShareId> {
        let mut lost: Vec<(u64, InFlight)> =
            self.in_flight.extract_if(|seq, flight| is_lost(*seq, flight)).collect();
        lost.sort_by_key(|(seq, _)| *seq);
        let mut concerned = BTreeSet::new();
        for (seq, InFlight { share: id, worker, connection }) in lost {
            self.landed(seq);
            if let Some(share) = self.shares.get_mut(&id) {
                share.rota.done(worker.0);
                share.waiting.push_back(connection);
                concerned.insert(id);
            }
        }
        concerned
    }

    /// A worker that was passed over because it was behind takes its turns again.
    pub fn caught_up(&mut self, registry: &Registry, children: &mut Children, child: ChildId) {
        for id in self.rejoin(child) {
            let _ = self.deal(registry, children, id);
        }
    }

    /// Puts a worker back on every rota it belongs to, and tells which.
    fn rejoin(&mut self, child: ChildId) -> Vec<ShareId> {
        if self.workers.get(&child).is_none_or(|worker| worker.held || worker.draining) {
            return Vec::new();
        }
        let mut rejoined = Vec::new();
        for (id, share) in &mut self.shares {
            let deals = share.policy == Balance::Rr || share.sockets.values().any(|l| l.watched);
            if deals && share.users.contains_key(&child) {
                share.rota.join(child.0);
                rejoined.push(*id);
            }
        }
        rejoined
    }

    /// A child is gone: what it was handed and did not take goes to others, and its queues too.
    pub fn gone(&mut self, registry: &Registry, children: &mut Children, child: ChildId) {
        self.workers.remove(&child);
        self.probes.retain(|_, worker| *worker != child);
        self.take_back(|_, flight| flight.worker == child);
        let mut concerned = Vec::new();
        for (id, share) in &mut self.shares {
            let used = share.users.remove(&child).is_some();
            share.rota.leave(child.0);
            if used {
                self.changed.insert(id.0);
            }
            if used || !share.waiting.is_empty() {
                concerned.push((*id, share.app.clone()));
            }
        }
        for (id, app) in concerned {
            self.note_unused(&app);
            let _ = self.deal(registry, children, id);
        }
        self.cover(registry, children);
    }

    /// Those addresses of an app that nobody has open may have been left for good.
    fn note_unused(&mut self, app: &AppKey) {
        let left = self.shares.iter().filter(|(_, share)| share.users.is_empty() && share.app == *app);
        for (id, _) in left {
            self.unused.entry(*id).or_insert(None);
        }
    }

    /// When [`Self::tidy`] wants to be called next.
    pub fn deadline(&self) -> Option<Mono> {
        self.unused.values().copied().flatten().min()
    }

    /// Gives up the addresses that were left for good. As long as nothing of the app serves, none is: it will
    /// come back, and connections wait for it.
    pub fn tidy(&mut self, registry: &Registry, now: Mono) {
        if self.unused.is_empty() {
            return;
        }
        let shares = &self.shares;
        self.unused.retain(|id, _| shares.get(id).is_some_and(|share| share.users.is_empty()));
        let mut due = Vec::new();
        for (id, until) in &mut self.unused {
            if *until.get_or_insert(now + UNUSED) <= now {
                due.push(*id);
            }
        }
        for id in due {
            self.unused.remove(&id);
            let Some(share) = self.shares.get(&id) else { continue };
            if self.shares.values().any(|other| other.app == share.app && !other.users.is_empty()) {
                log::info!("{}: nobody listens on {} any more", share.app.name, share.key);
                self.give_up(registry, id);
            }
        }
    }

    /// Where the socket of a slot has nobody who accepts from it, we do, and give what arrives there to
    /// the workers of the other slots. If there is none either, it waits in the queue.
    fn cover(&mut self, registry: &Registry, children: &mut Children) {
        let mut uncovered = Vec::new();
        for (id, share) in &mut self.shares {
            if share.policy != Balance::Reuseport {
                continue;
            }
            let workers = &self.workers;
            let accepts = |(child, user): &(&ChildId, &User)| {
                user.listens && workers.get(child).is_some_and(|w| !w.held && !w.draining)
            };
            let covered: Vec<u32> = share.users.iter().filter(accepts).map(|(_, user)| user.slot).collect();
            for (slot, listener) in &mut share.sockets {
                if covered.contains(slot) || covered.is_empty() || !listener.listens {
                    listener.unwatch(registry);
                } else {
                    listener.watch(registry);
                }
            }
            if share.sockets.values().any(|listener| listener.watched) || !share.waiting.is_empty() {
                for (child, _) in share.users.iter().filter(accepts) {
                    share.rota.join(child.0);
                }
                uncovered.push(*id);
            }
        }
        for id in uncovered {
            let _ = self.deal(registry, children, id);
        }
    }

    /// A worker takes its turns from now on.
    fn serve(&mut self, registry: &Registry, children: &mut Children, id: ShareId, child: ChildId) {
        let Some(share) = self.shares.get_mut(&id) else { return };
        share.rota.join(child.0);
        if let Some(listener) = share.sockets.get_mut(&0) {
            listener.watch(registry);
        }
        let _ = self.deal(registry, children, id);
    }

    /// A listener that we accept from has something.
    pub fn visit(&mut self, registry: &Registry, children: &mut Children, listener: u64) -> Progress {
        let Some(&id) = self.by_listener.get(&listener) else { return Progress::Drained };
        let sockets = self.shares.get_mut(&id).into_iter().flat_map(|share| share.sockets.values_mut());
        for socket in sockets.filter(|socket| socket.id == listener) {
            socket.ready = true;
        }
        self.deal(registry, children, id)
    }

    /// Hands connections to workers: first those that came back, then those that wait in our listeners.
    /// What nobody can take now stays in the kernel's queue.
    fn deal(&mut self, registry: &Registry, children: &mut Children, id: ShareId) -> Progress {
        for _ in 0..ACCEPTS {
            let Some(share) = self.shares.get_mut(&id) else { return Progress::Drained };
            let Some(worker) = share.next_worker(children) else { return Progress::Drained };
            let Some(connection) = share.waiting.pop_front().or_else(|| share.accept(registry)) else {
                share.rota.put_back(worker.0);
                return Progress::Drained;
            };
            let key = share.key.clone();
            failpoint::reach("accepted");
            let seq = self.take_off(id, worker, &connection);
            failpoint::reach("taken-off");
            let message = node::new_connection(&key, seq);
            if children.send(registry, worker, message, Some(connection.as_fd())) {
                failpoint::reach("in-flight");
                self.in_flight.insert(seq, InFlight { share: id, worker, connection });
            } else {
                self.landed(seq);
                let Some(share) = self.shares.get_mut(&id) else { return Progress::Drained };
                share.rota.done(worker.0);
                share.rota.leave(worker.0);
                share.waiting.push_front(connection);
            }
        }
        Progress::More
    }

    /// Nobody of the app is up or wanted up: its addresses are given up.
    pub fn release(&mut self, registry: &Registry, app: &App) {
        let app = AppKey::of(app);
        let ids: Vec<ShareId> =
            self.shares.iter().filter(|(_, share)| share.app == app).map(|(id, _)| *id).collect();
        for id in ids {
            self.give_up(registry, id);
        }
    }

    fn give_up(&mut self, registry: &Registry, id: ShareId) {
        let Some(mut share) = self.shares.remove(&id) else { return };
        self.changed.insert(id.0);
        self.names.remove(&(share.app.clone(), share.key.clone()));
        let is_tcp_of_ours = share.is_tcp_of_ours();
        for listener in share.sockets.values_mut() {
            listener.unwatch(registry);
            self.by_listener.remove(&listener.id);
            // A worker tells us before it closes its own copy, and another may want the address at once.
            if is_tcp_of_ours {
                socket::end_listening(listener.fd.as_fd());
            }
        }
        if let Some(path) = &share.path
            && let Err(error) = std::fs::remove_file(path)
        {
            log::debug!("remove {}: {error}", path.display());
        }
        failpoint::reach("given-up");
    }

    /// The way to the server of a child on this port, or on its first.
    pub fn door(&self, app: &App, child: ChildId, port: Option<u16>) -> Door {
        let key = AppKey::of(app);
        let is_it = |share: &&Share| {
            let stream = matches!(share.place, Place::Tcp { .. } | Place::Unix { .. });
            share.app == key
                && stream
                && port.is_none_or(|port| share.addr.is_some_and(|addr| addr.port() == port))
        };
        let mut shares = self.shares.values().filter(is_it).peekable();
        if shares.peek().is_none() {
            return Door::Elsewhere;
        }
        // By any other way its siblings may answer.
        let own = shares.find(|share| share.users.get(&child).is_some_and(|user| user.listens));
        own.map_or(Door::Closed, |share| Door::Own(share.key.clone()))
    }

    /// The number of the next connection or command that a worker answers for.
    pub fn next_seq(&self) -> u64 {
        self.board.map_or(0, |board| board.last_seq.fetch_add(1, SeqCst) + 1)
    }

    /// The addresses that a child has open, for people.
    pub fn addresses(&self, child: ChildId) -> Vec<String> {
        let used = self.shares.values().filter(|share| share.users.contains_key(&child));
        used.map(|share| match (&share.place, share.addr) {
            (Place::Udp { .. }, Some(addr)) => format!("udp {addr}"),
            (_, Some(addr)) => format!("tcp {addr}"),
            (Place::Unix { path, .. }, None) => format!("unix {path}"),
            (_, None) => share.key.clone(),
        })
        .collect()
    }

    /// So many connections a child was handed and took, since it was started or we were; `None`: the kernel deals
    /// them out.
    pub fn accepted(&self, child: ChildId) -> Option<u64> {
        let deals = |share: &Share| share.policy == Balance::Rr && share.users.contains_key(&child);
        self.shares.values().any(deals).then(|| self.workers.get(&child).map_or(0, |worker| worker.accepted))
    }

    /// The queues that a child accepts from.
    pub fn queues(&self, child: ChildId) -> Vec<Queue> {
        let queue = |share: &Share| {
            let listener = share.sockets.get(&share.users.get(&child)?.slot)?;
            let (waiting, most) = socket::accept_queue(listener.fd.as_fd())?;
            Some(Queue { address: share.addr?.to_string(), waiting, most })
        };
        self.shares.values().filter_map(queue).collect()
    }

    /// Whether the child has anything open.
    pub fn is_serving(&self, child: ChildId) -> bool {
        self.shares.values().any(|share| share.users.contains_key(&child))
    }
}
