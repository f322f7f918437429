//! Where the beginnings of lines lie that were taken from a pipe and are not in a file yet: a file in memory that
//! outlives us, with a place for each stream. What is put there is there as a whole or not at all, whenever we die.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;

use super::LINE;
use crate::sys::lift::lift;
use crate::sys::pipe;

/// From place to place: a page for the header, then room for one beginning and for the one that comes after it.
const PLACE: u64 = 256 << 10;
const FIRST: u64 = 64 << 10;
const SECOND: u64 = FIRST + LINE as u64;
const HEADER: usize = 16;
/// The header says in its last bytes which of the two counts, and whether it goes on with a line.
const WHICH: usize = 12;
const CONTINUED: usize = 13;

const _: () = assert!(SECOND + LINE as u64 <= PLACE);

/// The file, and which places are taken.
#[derive(Debug, Default)]
pub struct Shelf {
    file: Option<File>,
    free: BTreeSet<u32>,
    next: u32,
}

/// What lies in a place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// By which piece of work it was put there.
    pub turn: u64,
    /// The beginning of a line.
    pub rest: Vec<u8>,
    /// Something of the line is in the file already.
    pub continued: bool,
    which: u8,
}

impl Shelf {
    /// On the file that a daemon before us had, or on a new one. Without a file everything is as it is, but nothing
    /// outlives us.
    pub fn on(file: Option<File>) -> Shelf {
        let file = file.or_else(|| {
            let made = pipe::nameable("pmx-lines", 0).map(|fd| File::from(lift(fd)));
            made.inspect_err(|error| log::error!("make a place for lines: {error}")).ok()
        });
        Shelf { file, ..Shelf::default() }
    }

    /// For whoever comes after us.
    pub fn fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.as_raw_fd())
    }

    /// The file.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// A place for a new stream.
    pub fn take(&mut self) -> u32 {
        let place = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        // Whoever had it left nothing that counts.
        if let Some(file) = &self.file {
            let _ = file.write_all_at(&[0; HEADER], u64::from(place) * PLACE);
        }
        place
    }

    /// The place of a stream of a daemon before us.
    pub fn take_again(&mut self, place: u32) -> Held {
        self.free.extend(self.next..place);
        self.next = self.next.max(place.saturating_add(1));
        self.free.remove(&place);
        self.read(place).unwrap_or_default()
    }

    /// The stream is over.
    pub fn give_back(&mut self, place: u32) {
        self.free.insert(place);
    }

    /// Puts the beginning of a line where the next daemon finds it, in place of the one before.
    pub fn put(&self, place: u32, held: &mut Held) {
        let Some(file) = &self.file else { return };
        debug_assert!(held.rest.len() <= LINE);
        let at = u64::from(place) * PLACE;
        if !held.rest.is_empty() {
            held.which ^= 1;
        }
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&held.turn.to_ne_bytes());
        header[8..WHICH].copy_from_slice(&(held.rest.len() as u32).to_ne_bytes());
        header[WHICH] = held.which;
        header[CONTINUED] = u8::from(held.continued);
        let text = at + if held.which == 0 { FIRST } else { SECOND };
        // A header lies in one page and is not torn.
        let put = file.write_all_at(&held.rest, text).and_then(|()| file.write_all_at(&header, at));
        if let Err(error) = put {
            log::warn!("keep the beginning of a line: {error}");
        }
    }

    fn read(&self, place: u32) -> io::Result<Held> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let at = u64::from(place) * PLACE;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, at)?;
        let [t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3, ..] = header;
        let turn = u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        let which = header[WHICH] & 1;
        let mut rest = vec![0; (length as usize).min(LINE)];
        file.read_exact_at(&mut rest, at + if which == 0 { FIRST } else { SECOND })?;
        Ok(Held { turn, rest, continued: header[CONTINUED] != 0, which })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_finds_what_was_put_last() {
        let mut shelf = Shelf::on(None);
        let place = [shelf.take(), shelf.take()];
        let mut held = Held { turn: 3, rest: b"half a li".to_vec(), continued: false, which: 0 };
        shelf.put(place[1], &mut held);
        let whole = Held { turn: u64::MAX - 1, rest: vec![b'x'; LINE], continued: true, ..held };
        let mut whole = Held { which: held_which(&shelf, place[1]), ..whole };
        shelf.put(place[1], &mut whole);
        let mut next = Shelf::on(shelf.file.as_ref().map(|file| file.try_clone().unwrap()));
        assert_eq!(next.take_again(place[1]), whole);
        // The one below it is free, and empty.
        assert_eq!(next.take(), place[0]);
        assert_eq!(next.read(place[0]).unwrap(), Held::default());
        next.give_back(place[1]);
        assert_eq!(next.take(), place[1]);
        assert_eq!(next.read(place[1]).unwrap(), Held::default(), "nothing of whoever had it");
        assert_eq!(next.take(), 2);
    }

    fn held_which(shelf: &Shelf, place: u32) -> u8 {
        shelf.read(place).unwrap().which
    }
}
