//! How a daemon begins after another one: from what that one wrote down, with the fds it had. What was begun
//! and is not on record is undone.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use super::control::Control;
use super::event_loop::{Beginning, Daemon, Instruments};
use super::home::Home;
use super::journal::Journal;
use super::manager::Manager;
use super::record::{FORMAT, Left, Unreadable};
use super::runtime::Runtime;
use crate::supervisor::ProcId;
use crate::sys::board::{ARRIVED, Board, NOBODY, Shared, Slot};
use crate::sys::{clock, failpoint, family, inherit, lift, pidfd, proc, socket};

/// Goes on where a daemon of the same keeper, or of the program that the keeper was, ended.
pub fn resume(home: PathBuf, manager: Manager, shared: Shared) -> Result<(Daemon, Home), String> {
    let board = shared.board;
    let looked = Home::resume(home.clone()).and_then(|home| Ok((home, Found::look(board, false)?)));
    let (is_at, mut found) = match looked {
        Ok(looked) => looked,
        Err(reason) => {
            // It is the next one's as well.
            std::mem::forget((manager, shared));
            return Err(reason);
        }
    };
    for line in &found.unreadable {
        quarantine(&home, line);
    }
    if board.safe.load(SeqCst) {
        ::log::error!("too many daemons died too soon: nothing is changed until pmx update");
        leave_out_culprit(board, &home, &mut found.left);
    }
    let daemon = go_on(found, &is_at, shared, Above { manager, runtime: None });
    Ok((daemon, is_at))
}

/// What a daemon finds, and what it needs to take it over. Until it has both nothing is touched: where this fails, the
/// next one finds everything as we did.
pub struct Found {
    instruments: Instruments,
    /// All fds that were left.
    open: Vec<RawFd>,
    journal: Journal,
    /// What the journal says.
    pub left: Left,
    /// What of it cannot be read.
    pub unreadable: Vec<Unreadable>,
}

impl Found {
    /// Looks at what a daemon before us left.
    pub fn look(board: &'static Board, in_container: bool) -> Result<Found, String> {
        let open = family::open_fds();
        let instruments = Instruments::new(in_container)?;
        let (journal, text) = Journal::resume(board)
            .map_err(|error| format!("read the journal: {}", crate::sys::reason(&error)))?;
        let (left, unreadable) = Left::read(&text);
        if left.head.format > FORMAT {
            std::mem::forget(journal);
            return Err(format!(
                "the journal is of format {}, and this pmx reads up to {FORMAT}",
                left.head.format
            ));
        }
        Ok(Found { instruments, open, journal, left, unreadable })
    }
}

/// Who is above the daemon.
pub struct Above {
    /// The service manager.
    pub manager: Manager,
    /// The container.
    pub runtime: Option<Runtime>,
}

/// Takes over everything.
pub fn go_on(found: Found, home: &Home, shared: Shared, above: Above) -> Daemon {
    let Found { instruments, open, journal, left, .. } = found;
    let Above { manager, runtime } = above;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let board = shared.board;
    let began = clock::mono();
    let control = match board.fd(Slot::Control).and_then(|fd| inherit::take(fd).ok()) {
        None if !home.is_nowhere() => Control::open(&home.socket())
            .inspect_err(|error| ::log::error!("{error}; nobody can talk to pmx until it is updated"))
            .ok(),
        control => control,
    };
    let mut known: BTreeSet<RawFd> = left.fds();
    known.insert(shared.fd.as_raw_fd());
    known.extend(runtime.iter().flat_map(|runtime| runtime.sink().fds()));
    failpoint::reach("before-sweep");
    let found = sweep(board, open, known);
    failpoint::reach("after-sweep");
    if !home.is_nowhere() {
        super::write_pid(home);
    }
    let count = left.children.len();
    let beginning = Beginning { instruments, shared, left, control, found, journal, manager, runtime };
    let mut daemon = Daemon::begin_with(home.clone(), beginning);
    daemon.catch_up();
    ::log::info!("took over {count} children in {} ms", clock::mono().since(began).0);
    daemon
}

/// Closes those of the `open` fds that nothing on record names, and ends the children behind them. Connections
/// that were accepted and not handed over are handed back.
fn sweep(board: &Board, mut open: Vec<RawFd>, mut known: BTreeSet<RawFd>) -> Vec<OwnedFd> {
    known.extend(board.fds());
    for flight in board.flights.iter().filter(|flight| flight.share.load(SeqCst) == ARRIVED) {
        // If it is closed already, what has its number now is ours.
        let number = flight.fd.load(SeqCst);
        if flight.seq.load(SeqCst) != 0
            && let Some(at) = open.iter().position(|fd| *fd == number)
        {
            drop(inherit::take(open.swap_remove(at)));
        }
        flight.seq.store(0, SeqCst);
    }
    let flights = board.flights.iter().filter(|flight| flight.seq.load(SeqCst) != 0);
    known.extend(flights.map(|flight| flight.fd.load(SeqCst)));
    let keeper = board.keeper.load(SeqCst);
    let mut found = Vec::new();
    for fd in open.into_iter().filter(|fd| !known.contains(fd)) {
        let Ok(fd) = inherit::take(fd) else { continue };
        if socket::is_connection(fd.as_fd()) {
            found.push(fd);
        } else if let Some(pid) = pidfd::pid_of(fd.as_fd())
            && pid != keeper
            && proc::stat(pid).is_some_and(|stat| stat.parent == keeper)
        {
            ::log::warn!("{pid} was started and is not on record: it is ended");
            failpoint::reach("stray");
            let _ = pidfd::send_group(pid, libc::SIGKILL);
            let _ = pidfd::send(Some(fd.as_fd()), pid, libc::SIGKILL);
        }
    }
    found
}

/// In safe mode: the process that the last daemon was dealing with when it died is no longer ours.
fn leave_out_culprit(board: &Board, home: &Path, left: &mut Left) {
    let Some(id) = board.busy_with.swap(NOBODY, SeqCst).checked_sub(1) else { return };
    let Some(record) = left.leave_out(ProcId(id as u32)) else { return };
    let line = serde_json::to_vec(&record).unwrap_or_default();
    let reason = format!("daemons died while they dealt with process {id}");
    quarantine(home, &Unreadable { line, reason });
}

/// What a daemon wrote down below `state` that was killed together with its keeper, in this boot, as far as it can be
/// had again. An error: it cannot be told, and who went on without it would start everything a second time.
pub fn find_again(home: &Home, state: &Path) -> Result<Option<Left>, String> {
    let mut found: Option<Left> = None;
    for path in super::journal::FILES.map(|name| state.join(name)) {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let reason = crate::sys::reason(&error);
                return Err(format!("read what an earlier daemon left in {}: {reason}", path.display()));
            }
        };
        let (left, unreadable) = Left::read(&text);
        let is_whole = left.is_whole() && unreadable.is_empty() && left.head.format <= FORMAT;
        if is_whole && found.as_ref().is_none_or(|other| left.head.serial >= other.head.serial) {
            found = Some(left);
        }
    }
    let is_ours = |left: &Left| left.head.home.path() == home.path() && !left.head.boot.is_empty();
    let Some(left) = found.filter(is_ours) else { return Ok(None) };
    let boot = proc::boot_id().map_err(|error| {
        format!("tell whether what an earlier daemon left is of this boot: {}", crate::sys::reason(&error))
    })?;
    Ok((left.head.boot == boot).then_some(left))
}

/// What of the output of those children it had taken from their pipes, and not written yet.
pub fn find_output_again(home: &Home, shared: &mut Shared) {
    let [board, lines] = home.memory_left();
    if let Some(Err(error)) = board.map(|board| shared.take_output(&board)) {
        ::log::error!("find again what was on its way to log files: {}", crate::sys::reason(&error));
    }
    if let Some(lines) = lines {
        shared.board.set_fd(Slot::Lines, lift::lift(lines.into()).into_raw_fd());
    }
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
