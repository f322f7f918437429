//! What the primary leaves to the next daemon, and what it takes over from the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;

use mio::Registry;

use super::{InFlight, Primary, ShareId, Worker};
use crate::app::Balance;
use crate::daemon::children::Children;
use crate::daemon::share::{Share, ShareRecord};
use crate::node;
use crate::supervisor::ChildId;
use crate::sys::inherit;
use crate::sys::socket;

/// The key of a server that no worker has.
const NO_SERVER: &str = "pmx:probe";

impl Primary {
    /// The sockets that the service manager passed on, for the journal.
    pub fn adopted(&self) -> Vec<RawFd> {
        self.adopted.iter().map(|(_, fd)| fd.as_raw_fd()).collect()
    }

    /// A worker for the journal.
    pub fn worker(&self, child: ChildId) -> Option<Worker> {
        self.workers.get(&child).copied()
    }

    /// All shares, by number.
    pub fn shares(&self) -> impl Iterator<Item = u64> + '_ {
        self.shares.keys().map(|id| id.0)
    }

    /// Connections that are on their way or wait.
    pub fn connections(&self) -> impl Iterator<Item = RawFd> + '_ {
        let waiting = self.shares.values().flat_map(|share| &share.waiting);
        self.in_flight.values().map(|flight| &flight.connection).chain(waiting).map(AsRawFd::as_raw_fd)
    }

    /// A share for the journal.
    pub fn record(&self, id: u64) -> Option<ShareRecord> {
        self.shares.get(&ShareId(id)).map(Share::record)
    }

    /// The number of the next share.
    pub fn next_share(&self) -> u64 {
        self.next_share
    }

    /// Takes over what a daemon before us had: shares by number, workers, and connections that were on
    /// their way. `found` are connections of which nobody knows how far they had come: not to a worker.
    pub fn restore(
        &mut self,
        shares: BTreeMap<u64, ShareRecord>,
        workers: BTreeMap<ChildId, Worker>,
        next_share: u64,
        found: Vec<OwnedFd>,
    ) {
        self.workers = workers;
        for (id, record) in shares {
            let share = Share::restore(record, &mut self.next_listener);
            let id = ShareId(id);
            self.next_share = self.next_share.max(id.0 + 1);
            self.by_listener.extend(share.sockets.values().map(|listener| (listener.id, id)));
            self.names.insert((share.app.clone(), share.key.clone()), id);
            self.shares.insert(id, share);
        }
        self.next_share = self.next_share.max(next_share);
        let flights = self.board.iter().flat_map(|board| &board.flights);
        for flight in flights.filter(|flight| flight.seq.load(SeqCst) != 0) {
            let (seq, worker) = (flight.seq.load(SeqCst), ChildId(flight.worker.load(SeqCst)));
            let share = ShareId(flight.share.load(SeqCst));
            let Ok(connection) = inherit::take(flight.fd.load(SeqCst)) else { continue };
            if let Some(share) = self.shares.get_mut(&share) {
                share.rota.given(worker.0);
            }
            self.in_flight.insert(seq, InFlight { share, worker, connection });
        }
        for connection in found {
            let Ok(local) = socket::local_addr(connection.as_fd()) else { continue };
            if let Some(share) = self.shares.values_mut().find(|share| share.is_of(&local)) {
                share.waiting.push_back(connection);
            }
        }
    }

    /// The daemon before us may have died with a connection in its hands that it was about to send. A worker answers in
    /// the order in which it is sent things: so it is sent a connection that is nobody's, for a server that it does
    /// not have, and when it has declined that one, what it has not answered for before never came.
    fn probe(&mut self, registry: &Registry, children: &mut Children, child: ChildId) {
        let (Some(board), Ok((_, nobodys))) = (self.board, socket::pair()) else { return };
        let seq = board.last_seq.fetch_add(1, SeqCst) + 1;
        if children.send(registry, child, node::new_connection(NO_SERVER, seq), Some(nobodys.as_fd())) {
            self.probes.insert(seq, child);
        }
    }

    /// After [`Self::restore`], once the children are there: workers take their turns again.
    pub fn begin_again(&mut self, registry: &Registry, children: &mut Children) {
        let ids: Vec<ShareId> = self.shares.keys().copied().collect();
        for id in ids {
            let Some(share) = self.shares.get_mut(&id) else { continue };
            let gone: Vec<ChildId> =
                share.users.keys().filter(|child| children.get(**child).is_none()).copied().collect();
            for child in gone {
                share.users.remove(&child);
            }
            if share.policy != Balance::Rr {
                continue;
            }
            let users: Vec<ChildId> = share.users.keys().copied().collect();
            for child in users {
                if self.workers.get(&child).is_some_and(|worker| !worker.held && !worker.draining) {
                    self.serve(registry, children, id, child);
                }
            }
        }
        let workers: BTreeSet<ChildId> = self.in_flight.values().map(|flight| flight.worker).collect();
        for child in workers {
            if children.get(child).is_some() {
                self.probe(registry, children, child);
            } else {
                self.gone(registry, children, child);
            }
        }
        self.cover(registry, children);
    }
}
