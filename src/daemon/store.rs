//! What the service manager keeps for us (sd_notify(3), `FDSTORE=1`): the sockets that nobody could open again
//! if the daemon and its keeper were killed together. It hands them to the next daemon it starts; everything
//! else is found by the journal (`Left::find_again`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use crate::supervisor::ChildId;
use crate::sys::notify::Notify;
use crate::sys::pipe;

/// As many as the unit says (`FileDescriptorStoreMax`). What is beyond that is not kept.
const MOST: usize = 4_096;
/// What the names of stored fds begin with; the inode follows.
const PREFIX: &str = "pmx-";

/// Whose sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The channel of a child.
    Child(ChildId),
    /// The listeners of a share.
    Share(u64),
}

/// What is stored, and what the manager does not know yet.
#[derive(Debug, Default)]
pub struct Store {
    of: BTreeMap<Owner, BTreeSet<u64>>,
    count: usize,
    /// By inode; with an fd to be stored, without one to be given up.
    queue: VecDeque<(u64, Option<RawFd>)>,
}

impl Store {
    /// What an owner has from now on, as inodes and fds.
    pub fn keep(&mut self, owner: Owner, sockets: impl IntoIterator<Item = (u64, RawFd)>) {
        let before = self.of.remove(&owner).unwrap_or_default();
        let mut now = BTreeSet::new();
        for (inode, fd) in sockets {
            if before.contains(&inode) {
                now.insert(inode);
            } else if self.count < MOST && now.insert(inode) {
                self.count += 1;
                self.queue.push_back((inode, Some(fd)));
            }
        }
        for inode in before.difference(&now) {
            self.count -= 1;
            // In front of all that is to be stored: the other end shall see that it is closed.
            self.queue.retain(|(queued, _)| queued != inode);
            self.queue.push_front((*inode, None));
        }
        if !now.is_empty() {
            self.of.insert(owner, now);
        }
    }

    /// Gives up what was stored by somebody before us.
    pub fn give_up(&mut self, inode: u64) {
        self.queue.push_back((inode, None));
    }

    /// Tells the manager that sockets were given up. To be called before that is on record: the next daemon
    /// would not know of them.
    pub fn tell_given_up(&mut self, notify: &Notify) -> io::Result<()> {
        while let Some((inode, None)) = self.queue.front() {
            notify.send(&format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{inode}"))?;
            self.queue.pop_front();
        }
        Ok(())
    }

    /// Tells the manager all that it does not know.
    pub fn tell(&mut self, notify: &Notify) -> io::Result<()> {
        loop {
            self.tell_given_up(notify)?;
            let Some((inode, Some(fd))) = self.queue.front() else { return Ok(()) };
            // It is open: whoever gives it up says so before.
            let line = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{inode}");
            notify.send_with_fds(&line, &[*fd])?;
            self.queue.pop_front();
        }
    }

    /// Whether there is something to tell.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// Those among the fds passed on that are ours, by inode.
pub fn stored(passed: &mut Vec<(String, OwnedFd)>) -> BTreeMap<u64, OwnedFd> {
    let is_stored = |(name, fd): &(String, OwnedFd)| {
        name.strip_prefix(PREFIX).is_some_and(|inode| inode == pipe::inode(fd.as_fd()).to_string())
    };
    let (ours, rest) = std::mem::take(passed).into_iter().partition(is_stored);
    *passed = rest;
    let ours: Vec<(String, OwnedFd)> = ours;
    ours.into_iter().map(|(_, fd)| (pipe::inode(fd.as_fd()), fd)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_and_the_end_of_a_socket_comes_first() {
        let mut store = Store::default();
        let (one, two) = (Owner::Child(ChildId(1)), Owner::Share(2));
        store.keep(one, [(10, 3)]);
        store.keep(two, [(20, 4), (21, 5)]);
        assert_eq!(store.queue, [(10, Some(3)), (20, Some(4)), (21, Some(5))]);
        store.keep(two, [(20, 4), (22, 6)]);
        assert_eq!(store.queue, [(21, None), (10, Some(3)), (20, Some(4)), (22, Some(6))]);
        store.keep(one, []);
        assert_eq!((store.count, store.of.len()), (2, 1));
        // Nobody listens: all is told, nothing is sent.
        store.tell(&Notify::default()).unwrap();
        assert!(!store.is_behind());
        store.keep(one, (0..MOST as u64).map(|n| (100 + n, 3)));
        assert_eq!(store.queue.len(), MOST - 2);
    }
}
