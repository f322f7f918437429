//! Memory that a keeper and the daemons it starts have in common, and that outlives each of them: a file in
//! memory, mapped by all. What one writes the next one finds, whatever it died of; so every field is an
//! atomic or belongs to one side at a time, and every value is valid at every moment.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::reap::{ExitStatus, Reaped};
use super::{lift, pipe};

/// "pmxboard".
const MAGIC: u64 = 0x706d_7862_6f61_7264;
/// Raised whenever anything after the prefix moves.
const LAYOUT: u32 = 1;
/// How many bytes of a child's output can be on their way to a file.
pub const COPY: usize = 128 << 10;
/// Where the bytes begin: behind the board, at a page.
const COPY_AT: usize = 64 << 10;
/// Exits that one side may leave to the other.
const EXITS: usize = 256;
/// Connections handed to workers and not acknowledged that are remembered.
pub const FLIGHTS: usize = 512;
/// The longest path of a program to become, its NUL included.
const PATH: usize = 4096;

const _: () = assert!(size_of::<Board>() <= COPY_AT);

/// What has become of the daemon, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// It does not serve yet.
    Starting = 0,
    /// It serves: whatever ends it now is an accident.
    Serving = 1,
    /// It ends because it was told to; its exit code is the keeper's.
    Ending = 2,
    /// It ends so that the keeper may become another program, [`Board::program`].
    Updating = 3,
}

/// Fds that every daemon of a home needs, by number: the keeper has the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The keeper wakes the daemon by it (an eventfd).
    Wake = 0,
    /// The locked lock file of the home.
    Lock = 1,
    /// The two files of the journal.
    JournalA = 2,
    /// See `JournalA`.
    JournalB = 3,
    /// The control socket.
    Control = 4,
    /// The program that the daemon was, to go back to it.
    Program = 5,
    /// The way to the service manager.
    Notify = 6,
    /// The beginnings of lines that are in no file yet.
    Lines = 7,
}

/// How many fds have a slot, those of later versions included.
const SLOTS: usize = 16;

/// The memory itself.
#[repr(C)]
#[derive(Debug)]
pub struct Board {
    // The prefix, which is the same in every version of pmx.
    magic: AtomicU64,
    layout: AtomicU32,
    phase: AtomicU32,
    /// Where the journal stands: the file in the top bit, its committed length in the others. Zero: there
    /// is none.
    pub journal: AtomicU64,
    fds: [AtomicI32; SLOTS],
    // What may change.
    /// How many daemons there were before this one.
    pub generation: AtomicU32,
    /// Too many daemons died too soon.
    pub safe: AtomicBool,
    /// Signals that the keeper was sent, by number.
    signals: AtomicU64,
    /// What the daemon is dealing with; [`NOBODY`] for nothing in particular.
    pub busy_with: AtomicU64,
    /// The program is new, and no daemon of it has served yet.
    pub unproven: AtomicBool,
    /// Why the keeper could not become another program.
    pub update_errno: AtomicI32,
    /// The number of the last connection that was handed over.
    pub last_seq: AtomicU64,
    /// The keeper's pid.
    pub keeper: AtomicI32,
    /// Children that ended and were the keeper's.
    pub left: Ring,
    /// Children that ended, were reaped by the daemon and are not in the journal yet.
    pub reaped: Ring,
    /// Connections on their way to workers.
    pub flights: [Flight; FLIGHTS],
    /// Output on its way to a file.
    pub copy: Copy,
    program: [AtomicU8; PATH],
    /// Signals that the daemon has begun to act on, and that is not on record yet.
    heeding: AtomicU64,
    // Behind what an earlier version of this layout has, where there are zeroes.
    /// What else there is to say about [`Board::copy`].
    pub work: Work,
}

/// [`Board::busy_with`] when it is about nobody.
pub const NOBODY: u64 = 0;

/// [`Board::update_errno`] when the new program started, and its daemon died.
pub const CRASHED: i32 = -1;

/// The exit code of a daemon that could not take over for want of something that may be there soon.
pub const NOT_NOW: i32 = 75;

/// A connection that was handed to a worker and is not acknowledged.
#[derive(Debug, Default)]
pub struct Flight {
    /// Its number, from 1; 0: the place is free.
    pub seq: AtomicU64,
    /// Our duplicate.
    pub fd: AtomicI32,
    /// The worker.
    pub worker: AtomicU64,
    /// The address it came in by; [`ARRIVED`]: the worker has it, and our duplicate is being closed, or is closed.
    pub share: AtomicU64,
}

/// See [`Flight::share`].
pub const ARRIVED: u64 = u64::MAX;

/// A piece of output on its way to a file. From before the read to after the write `child` says whose it is.
#[derive(Debug, Default)]
pub struct Copy {
    /// The child's number, from 1; 0: nothing is on its way.
    pub child: AtomicU64,
    /// 1 or 2.
    pub stream: AtomicU32,
    /// How many bytes are taken from the pipe.
    pub len: AtomicU32,
    /// How long the file was before.
    pub file: AtomicU64,
    /// What stood in the buffer before the read: as long as it stands there, nothing was read.
    pub mark: AtomicU64,
}

/// What becomes of a piece of output, so that the next daemon makes the same of it. It is written before
/// [`Copy::child`].
#[derive(Debug, Default)]
pub struct Work {
    /// Counts up, from 1. 0: an earlier version wrote this, or nobody.
    pub turn: AtomicU64,
    /// What a daemon makes of it, in its own numbers.
    pub kind: AtomicU32,
    /// When, in milliseconds since 1970.
    pub wall: AtomicU64,
    /// The inodes of the files, the first of which [`Copy::file`] is about.
    pub inodes: [AtomicU64; 2],
    /// How long the second was before.
    pub second: AtomicU64,
}

/// Exits, from one writer to one reader.
#[derive(Debug)]
pub struct Ring {
    written: AtomicU32,
    taken: AtomicU32,
    entries: [Entry; EXITS],
}

#[derive(Debug, Default)]
struct Entry {
    /// The pid, and the status as a number: codes from 0, signals from 256, cores from 512.
    who: AtomicU64,
    user_ms: AtomicU64,
    system_ms: AtomicU64,
    max_rss_kb: AtomicU64,
}

impl Ring {
    /// Whether another exit has room. It is asked before a child is reaped: a zombie keeps.
    pub fn has_room(&self) -> bool {
        (self.written.load(SeqCst).wrapping_sub(self.taken.load(SeqCst)) as usize) < EXITS
    }

    /// Adds an exit; the caller has asked for room.
    pub fn push(&self, reaped: &Reaped) {
        let written = self.written.load(SeqCst);
        let entry = &self.entries[written as usize % EXITS];
        let status = match reaped.status {
            ExitStatus::Code(code) => code as u32 & 0xff,
            ExitStatus::Signal { number, core } => number as u32 & 0xff | if core { 0x300 } else { 0x100 },
            ExitStatus::Unknown => 0x1000,
        };
        entry.who.store((reaped.pid as u32 as u64) << 32 | u64::from(status), SeqCst);
        entry.user_ms.store(reaped.user_ms, SeqCst);
        entry.system_ms.store(reaped.system_ms, SeqCst);
        entry.max_rss_kb.store(reaped.max_rss_kb, SeqCst);
        self.written.store(written.wrapping_add(1), SeqCst);
    }

    /// Those that were not forgotten yet, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = Reaped> + '_ {
        let (mut at, end) = (self.taken.load(SeqCst), self.written.load(SeqCst));
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let entry = &self.entries[at as usize % EXITS];
            at = at.wrapping_add(1);
            let who = entry.who.load(SeqCst);
            let number = (who & 0xff) as i32;
            let status = match who & 0xff00 {
                0 => ExitStatus::Code(number),
                0x100 => ExitStatus::Signal { number, core: false },
                0x300 => ExitStatus::Signal { number, core: true },
                _ => ExitStatus::Unknown,
            };
            Some(Reaped {
                pid: (who >> 32) as u32 as i32,
                status,
                user_ms: entry.user_ms.load(SeqCst),
                system_ms: entry.system_ms.load(SeqCst),
                max_rss_kb: entry.max_rss_kb.load(SeqCst),
            })
        })
    }

    /// Forgets the first `count` of those that wait: they are dealt with, and that is on record.
    pub fn forget(&self, count: usize) {
        self.taken.fetch_add(count as u32, SeqCst);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.written.load(SeqCst).wrapping_sub(self.taken.load(SeqCst)) as usize
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Board {
    /// What has become of the daemon.
    pub fn phase(&self) -> Phase {
        match self.phase.load(SeqCst) {
            1 => Phase::Serving,
            2 => Phase::Ending,
            3 => Phase::Updating,
            _ => Phase::Starting,
        }
    }

    /// The daemon tells what becomes of it.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, SeqCst);
    }

    /// The fd in a slot.
    pub fn fd(&self, slot: Slot) -> Option<RawFd> {
        Some(self.fds[slot as usize].load(SeqCst)).filter(|fd| *fd > 2)
    }

    /// Puts an fd into a slot.
    pub fn set_fd(&self, slot: Slot, fd: RawFd) {
        self.fds[slot as usize].store(fd, SeqCst);
    }

    /// All fds that have a slot.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.fds.iter().map(|fd| fd.load(SeqCst)).filter(|fd| *fd > 2)
    }

    /// The keeper was sent a signal, 1 to 64.
    pub fn note_signal(&self, number: i32) {
        self.signals.fetch_or(bit(number), SeqCst);
    }

    /// Takes the signals that the keeper was sent, lowest first. One that comes from now on counts anew.
    pub fn take_signals(&self) -> impl Iterator<Item = i32> + use<> {
        let bits = self.signals.load(SeqCst);
        // In this order: whoever dies in between has them heeded by the next one.
        self.heeding.fetch_or(bits, SeqCst);
        self.signals.fetch_and(!bits, SeqCst);
        (1..=64).filter(move |number| bits & bit(*number) != 0)
    }

    /// That the daemon acted on a signal is on record.
    pub fn clear_signal(&self, number: i32) {
        self.heeding.fetch_and(!bit(number), SeqCst);
    }

    /// A daemon begins: what the one before it took and did not record counts again.
    pub fn recall_signals(&self) {
        self.signals.fetch_or(self.heeding.load(SeqCst), SeqCst);
        self.heeding.store(0, SeqCst);
    }

    /// The program that the keeper shall become, NUL at its end. False: the path is too long.
    pub fn set_program(&self, path: &[u8]) -> bool {
        if path.len() >= PATH || path.contains(&0) {
            return false;
        }
        for (to, byte) in self.program.iter().zip(path.iter().chain([&0])) {
            to.store(*byte, SeqCst);
        }
        true
    }

    /// The same, for [`super::family::become_program`].
    pub fn program(&'static self) -> &'static CStr {
        // SAFETY: the bytes are as many as PATH and never go away; whoever wrote them has ended, and nobody
        // writes while we read. Without a NUL among them it is no path.
        let bytes = unsafe { std::slice::from_raw_parts(self.program.as_ptr().cast::<u8>(), PATH) };
        CStr::from_bytes_until_nul(bytes).unwrap_or(c"")
    }
}

/// A signal's place: that of 64 is the one that no signal has.
fn bit(number: i32) -> u64 {
    1 << (number as u32 & 63)
}

/// A mapped board.
#[derive(Debug)]
pub struct Shared {
    /// The board. It is never unmapped.
    pub board: &'static Board,
    /// The bytes on their way to a file, [`COPY`] of them.
    pub bytes: &'static mut [u8],
    /// The file in memory, for whoever this process becomes.
    pub fd: OwnedFd,
}

static MAPPED: AtomicBool = AtomicBool::new(false);

impl Shared {
    /// A fresh board.
    pub fn create() -> io::Result<Shared> {
        let fd = pipe::nameable("pmx-board", COPY_AT + COPY)?;
        // Never below: a low number may be wanted by somebody who closes 0 to 2.
        let fd = lift::duplicate(fd.as_fd(), 3)?;
        let shared = map(fd)?;
        shared.board.magic.store(MAGIC, SeqCst);
        shared.board.layout.store(LAYOUT, SeqCst);
        Ok(shared)
    }

    /// The board that a process before us left. If that was another version, only the prefix is taken over.
    pub fn adopt(fd: OwnedFd) -> io::Result<Shared> {
        let size = nix::sys::stat::fstat(&fd)?.st_size;
        if size < size_of::<Board>() as i64 {
            return Err(io::Error::other("the board is too small"));
        }
        let theirs = map_at(fd.as_fd())?;
        if theirs.magic.load(SeqCst) != MAGIC {
            return Err(io::Error::other("this is no board"));
        }
        if theirs.layout.load(SeqCst) == LAYOUT && size == (COPY_AT + COPY) as i64 {
            return map(fd);
        }
        let fresh = Shared::create()?;
        fresh.board.journal.store(theirs.journal.load(SeqCst), SeqCst);
        fresh.board.phase.store(theirs.phase.load(SeqCst), SeqCst);
        for (to, from) in fresh.board.fds.iter().zip(&theirs.fds) {
            to.store(from.load(SeqCst), SeqCst);
        }
        Ok(fresh)
    }

    /// Output that was on its way when the daemon of another board was killed, and its keeper with it: it is on its way
    /// on this one from now on.
    pub fn take_output(&mut self, left: &File) -> io::Result<()> {
        if left.metadata()?.len() != (COPY_AT + COPY) as u64 {
            return Err(io::Error::other("a board of another size"));
        }
        let theirs = map_at(left.as_fd())?;
        if theirs.magic.load(SeqCst) != MAGIC || theirs.layout.load(SeqCst) != LAYOUT {
            return Err(io::Error::other("a board of another version"));
        }
        left.read_exact_at(self.bytes, COPY_AT as u64)?;
        self.board.work.take_over(&theirs.work);
        self.board.copy.take_over(&theirs.copy);
        Ok(())
    }
}

impl Copy {
    fn take_over(&self, from: &Copy) {
        let Copy { child, stream, len, file, mark } = self;
        stream.store(from.stream.load(SeqCst), SeqCst);
        len.store(from.len.load(SeqCst), SeqCst);
        file.store(from.file.load(SeqCst), SeqCst);
        mark.store(from.mark.load(SeqCst), SeqCst);
        // The last, because it says that all of it counts.
        child.store(from.child.load(SeqCst), SeqCst);
    }
}

impl Work {
    fn take_over(&self, from: &Work) {
        let Work { turn, kind, wall, inodes, second } = self;
        turn.store(from.turn.load(SeqCst), SeqCst);
        kind.store(from.kind.load(SeqCst), SeqCst);
        wall.store(from.wall.load(SeqCst), SeqCst);
        for (to, from) in inodes.iter().zip(&from.inodes) {
            to.store(from.load(SeqCst), SeqCst);
        }
        second.store(from.second.load(SeqCst), SeqCst);
    }
}

fn map(fd: OwnedFd) -> io::Result<Shared> {
    if MAPPED.swap(true, SeqCst) {
        return Err(io::Error::other("a process has one board"));
    }
    let board = map_at(fd.as_fd())?;
    let at = ptr::from_ref(board).cast::<u8>().cast_mut();
    // SAFETY: the mapping is COPY_AT + COPY bytes long and stays for the life of the process. MAPPED lets one
    // caller in, so this is the only reference to these bytes in the process; other processes that map them
    // (the keeper and dead daemons) do not touch them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(at.add(COPY_AT), COPY) };
    Ok(Shared { board, bytes, fd })
}

fn map_at(fd: BorrowedFd) -> io::Result<&'static Board> {
    let (size, access) = (COPY_AT + COPY, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, longer than a Board and never unmapped; the file behind it has been
    // made that long. A Board is made of atomics only, for which every bit pattern but a bool's other than 0
    // and 1 is valid, and bools are only written as such.
    Ok(unsafe { &*at.cast::<Board>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::alone;

    #[test]
    fn a_board_outlives_its_mapping_and_knows_its_own() {
        alone("sys::board::tests::a_board_outlives_its_mapping_and_knows_its_own", || {
            let shared = Shared::create().unwrap();
            shared.board.set_fd(Slot::Lock, 77);
            shared.board.journal.store(1234, SeqCst);
            shared.board.note_signal(libc::SIGTERM);
            shared.board.note_signal(libc::SIGHUP);
            let fd = shared.fd.try_clone().unwrap();
            assert!(Shared::create().is_err(), "one for a process");
            MAPPED.store(false, SeqCst);
            let again = Shared::adopt(fd).unwrap();
            assert_eq!(again.board.fd(Slot::Lock), Some(77));
            assert_eq!(again.board.fd(Slot::Wake), None);
            again.board.note_signal(64);
            let all = [libc::SIGHUP, libc::SIGTERM, 64];
            assert_eq!(again.board.take_signals().collect::<Vec<_>>(), all);
            // One that comes while another of its kind is acted on is another one.
            again.board.note_signal(libc::SIGHUP);
            again.board.clear_signal(libc::SIGHUP);
            again.board.clear_signal(64);
            again.board.recall_signals();
            assert_eq!(shared.board.take_signals().collect::<Vec<_>>(), [libc::SIGHUP, libc::SIGTERM]);
            // Another layout: what every version has in common is taken over, the rest is new.
            again.board.layout.store(99, SeqCst);
            MAPPED.store(false, SeqCst);
            let fd = again.fd.try_clone().unwrap();
            let mut other = Shared::adopt(fd).unwrap();
            assert_eq!(other.board.journal.load(SeqCst), 1234);
            assert_eq!(other.board.fd(Slot::Lock), Some(77));
            assert_eq!(other.board.take_signals().count(), 0);
            // Output is taken over from a board of this layout.
            let left = File::from(again.fd.try_clone().unwrap());
            again.bytes[COPY - 1] = 7;
            again.board.copy.child.store(5, SeqCst);
            again.board.work.second.store(6, SeqCst);
            assert!(other.take_output(&left).is_err());
            assert_eq!(other.board.copy.child.load(SeqCst), 0);
            again.board.layout.store(LAYOUT, SeqCst);
            other.take_output(&left).unwrap();
            assert_eq!(other.board.copy.child.load(SeqCst), 5);
            assert_eq!((other.board.work.second.load(SeqCst), other.bytes[COPY - 1]), (6, 7));
        });
    }

    #[test]
    fn exits_go_through_a_ring_unchanged_and_wait_until_they_are_forgotten() {
        alone(
            "sys::board::tests::exits_go_through_a_ring_unchanged_and_wait_until_they_are_forgotten",
            || {
                let ring = &Shared::create().unwrap().board.left;
                let exit = |pid, status| Reaped { pid, status, user_ms: 1, system_ms: 2, max_rss_kb: 3 };
                let all = [
                    exit(7, ExitStatus::Code(255)),
                    exit(i32::MAX, ExitStatus::Signal { number: 64, core: false }),
                    exit(8, ExitStatus::Signal { number: 11, core: true }),
                    exit(9, ExitStatus::Unknown),
                ];
                for round in 0..EXITS {
                    for exit in &all {
                        assert!(ring.has_room());
                        ring.push(exit);
                    }
                    assert_eq!(ring.waiting().collect::<Vec<_>>(), all, "round {round}");
                    ring.forget(1);
                    assert_eq!(ring.waiting().collect::<Vec<_>>(), all[1..]);
                    ring.forget(3);
                    assert!(ring.is_empty());
                }
                for _ in 0..EXITS {
                    ring.push(&all[0]);
                }
                assert!(!ring.has_room());
                ring.forget(1);
                assert!(ring.has_room());
            },
        );
    }
}
