//! How a daemon begins after another one: from what that one wrote down, with the fds it had. What was begun
//! and is not on record is undone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use super::event_loop::{Beginning, Daemon};
use super::home::Home;
use super::journal::Journal;
use super::manager::Manager;
use super::record::{FORMAT, Left, Unreadable};
use super::runtime::Runtime;
use crate::supervisor::ProcId;
use crate::sys::board::{Board, NOBODY, Shared, Slot};
use crate::sys::{clock, family, inherit, pidfd, proc, socket};

/// Goes on where a daemon of the same keeper, or of the program that the keeper was, ended.
pub fn resume(home: PathBuf, manager: Manager, shared: Shared) -> Result<(Daemon, Home), String> {
    let board = shared.board;
    let (journal, mut left, unreadable) = read(board)?;
    for line in &unreadable {
        quarantine(&home, line);
    }
    let mut spared = Vec::new();
    if board.safe.load(SeqCst) {
        ::log::error!("too many daemons died too soon: nothing is changed until pmx update");
        spared.extend(leave_out_culprit(board, &home, &mut left));
    }
    let home = Home::resume(home);
    let daemon = go_on(&home, shared, journal, left, spared, Above { manager, runtime: None })?;
    Ok((daemon, home))
}

/// The journal, what it says, and what of it cannot be read.
pub fn read(board: &'static Board) -> Result<(Journal, Left, Vec<Unreadable>), String> {
    let (journal, text) = Journal::resume(board)
        .map_err(|error| format!("read the journal: {}", crate::sys::reason(&error)))?;
    let (left, unreadable) = Left::read(&text);
    if left.head.format > FORMAT {
        return Err(format!(
            "the journal is of format {}, and this pmx reads up to {FORMAT}",
            left.head.format
        ));
    }
    Ok((journal, left, unreadable))
}

/// Who is above the daemon.
pub struct Above {
    /// The service manager.
    pub manager: Manager,
    /// The container.
    pub runtime: Option<Runtime>,
}

/// Takes over everything. The fds in `spared` stay as they are.
pub fn go_on(
    home: &Home,
    shared: Shared,
    journal: Journal,
    left: Left,
    mut spared: Vec<RawFd>,
    above: Above,
) -> Result<Daemon, String> {
    let Above { manager, runtime } = above;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let board = shared.board;
    let began = clock::mono();
    let control = board.fd(Slot::Control).and_then(|fd| inherit::take(fd).ok());
    spared.push(shared.fd.as_raw_fd());
    spared.extend(runtime.iter().flat_map(|runtime| runtime.sink().fds()));
    let found = sweep(board, &spared, &left);
    if !home.is_nowhere() {
        super::write_pid(home);
    }
    let count = left.children.len();
    let beginning = Beginning { shared, left, control, found, journal, manager, runtime };
    let mut daemon = Daemon::set_up(home.clone(), beginning)?;
    daemon.catch_up();
    ::log::info!("took over {count} children in {} ms", clock::mono().since(began).0);
    Ok(daemon)
}

/// Closes the fds that nothing on record names, and ends the children behind them. Connections that were
/// accepted and not handed over are handed back.
fn sweep(board: &Board, spared: &[RawFd], left: &Left) -> Vec<OwnedFd> {
    let mut known: BTreeSet<RawFd> = left.fds();
    known.extend(board.fds());
    known.extend(spared);
    let flights = board.flights.iter().filter(|flight| flight.seq.load(SeqCst) != 0);
    known.extend(flights.map(|flight| flight.fd.load(SeqCst)));
    let keeper = board.keeper.load(SeqCst);
    let mut found = Vec::new();
    for fd in family::open_fds().into_iter().filter(|fd| !known.contains(fd)) {
        let Ok(fd) = inherit::take(fd) else { continue };
        if socket::is_connection(fd.as_fd()) {
            found.push(fd);
        } else if let Some(pid) = pidfd::pid_of(fd.as_fd())
            && pid != keeper
            && proc::stat(pid).is_some_and(|stat| stat.parent == keeper)
        {
            ::log::warn!("{pid} was started and is not on record: it is ended");
            let _ = pidfd::send_group(pid, libc::SIGKILL);
            let _ = pidfd::send(Some(fd.as_fd()), pid, libc::SIGKILL);
        }
    }
    found
}

/// In safe mode: the process that the last daemon was dealing with when it died is no longer ours.
fn leave_out_culprit(board: &Board, home: &Path, left: &mut Left) -> Vec<RawFd> {
    let Some(id) = board.busy_with.swap(NOBODY, SeqCst).checked_sub(1) else { return Vec::new() };
    let Some((record, fds)) = left.leave_out(ProcId(id as u32)) else { return Vec::new() };
    let line = serde_json::to_vec(&record).unwrap_or_default();
    let reason = format!("daemons died while they dealt with process {id}");
    quarantine(home, &Unreadable { line, reason });
    fds
}

/// What a daemon wrote down that was killed together with its keeper, in this boot, as far as it can be had
/// again.
pub fn find_again(home: &Home) -> Option<Left> {
    let directory = home.state()?;
    let read = |name: &str| {
        let text = std::fs::read(directory.join(name)).ok()?;
        let (left, unreadable) = Left::read(&text);
        (left.is_whole() && unreadable.is_empty() && left.head.format <= FORMAT).then_some(left)
    };
    let left =
        super::journal::FILES.iter().filter_map(|name| read(name)).max_by_key(|left| left.head.serial)?;
    let is_ours = left.head.home.path() == home.path() && left.head.boot == proc::boot_id();
    if !is_ours || left.head.boot.is_empty() {
        return None;
    }
    Some(left)
}

/// Keeps what could not be used in a file of its own.
fn quarantine(home: &Path, what: &Unreadable) {
    let at = clock::wall().0;
    let free = (0..).map(|n| home.join(format!("quarantine-{at}-{n}.json"))).find(|path| !path.exists());
    let Some(path) = free else { return };
    ::log::error!("{}; its entry is in {}", what.reason, path.display());
    if let Err(error) = std::fs::write(&path, &what.line) {
        ::log::error!("write {}: {error}", path.display());
    }
}
