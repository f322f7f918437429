//! One log file that is open: where it is, whether it is still that one, and what it could not take.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::rotation::{self, Global};
use crate::sys::kept::Kept;
use crate::sys::lift::lift;
use crate::sys::{failpoint, find};
use crate::time::{Millis, Mono, Wall};

/// How often it is looked whether another file stands under the name now.
const LOOK: Millis = Millis(500);
/// So many old files may have the same date.
const MOST_OF_A_NAME: u32 = 10_000;

/// An open log file.
#[derive(Debug)]
pub struct LogFile {
    /// `None`: it could not be opened yet.
    file: Option<Kept<File>>,
    /// `None`: an earlier version did not write it down.
    path: Option<PathBuf>,
    is_regular: bool,
    /// What tells it from others.
    inode: u64,
    device: u64,
    looked: Mono,
    /// Why it cannot be opened anew, which was said. (The number of the error.)
    refused: Option<i32>,
    /// What it could not take, until that is told.
    pub lost: Lost,
    /// When it is tried again.
    pub again: Mono,
    /// What it could not take, and shall.
    pub owed: Vec<u8>,
    /// When it is full however long it is.
    pub due: Option<Wall>,
    /// Until then it is not rotated, because that failed.
    pub turn_again: Wall,
    /// When it was looked last how much room there is, and what came of it.
    room: Option<(Mono, Room)>,
}

/// How much room there is on the disk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Less than is to be left to others: old files have to go.
    Little,
    /// So little that nothing more is written.
    None,
}

/// What a file could not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Lines that ended in it.
    pub lines: u64,
    /// All of it.
    pub bytes: u64,
    /// Lines that were ever lost.
    pub all: u64,
    /// Why.
    pub reason: String,
}

impl Lost {
    /// Whether anything is.
    pub fn any(&self) -> bool {
        self.bytes > 0
    }

    /// So much more is.
    pub fn add(&mut self, bytes: &[u8], error: &io::Error) {
        self.count(bytes);
        self.reason = crate::sys::reason(error);
    }

    /// The same, for the same reason.
    pub fn count(&mut self, bytes: &[u8]) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lines += lines;
        self.all += lines;
        self.bytes += bytes.len() as u64;
    }

    /// For people.
    pub fn text(&self) -> String {
        let lines = if self.lines == 1 { "line" } else { "lines" };
        format!("pmx: {} {lines} ({} bytes) lost: {}", self.lines, self.bytes, self.reason)
    }
}

impl LogFile {
    /// One that was just opened, or that a daemon before us had.
    pub fn new(file: File, path: Option<PathBuf>) -> LogFile {
        LogFile::with(Some(file), path)
    }

    /// One that cannot be opened at present, if that is known, because of this error.
    pub fn absent(path: PathBuf, refused: Option<i32>) -> LogFile {
        LogFile { refused, ..LogFile::with(None, Some(path)) }
    }

    fn with(file: Option<File>, path: Option<PathBuf>) -> LogFile {
        let mut log = LogFile {
            file: file.map(Kept::from),
            path,
            is_regular: false,
            inode: 0,
            device: 0,
            looked: Mono(0),
            refused: None,
            lost: Lost::default(),
            again: Mono(0),
            owed: Vec::new(),
            due: None,
            turn_again: Wall(0),
            room: None,
        };
        log.identify();
        log
    }

    fn identify(&mut self) {
        let found = self.metadata();
        self.is_regular = found.as_ref().is_some_and(|found| found.is_file());
        (self.device, self.inode) = found.map_or((0, 0), |found| (found.dev(), found.ino()));
        self.due = None;
        self.room = None;
    }

    fn metadata(&self) -> Option<fs::Metadata> {
        self.file.as_ref()?.metadata().ok()
    }

    /// For the journal.
    pub fn fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.as_raw_fd())
    }

    /// Its name.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What tells it from others.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// How long it is.
    pub fn len(&self) -> u64 {
        self.metadata().map_or(0, |found| found.len())
    }

    /// When it was begun, as far as its file system knows, and when it was last written. `None`: there is nothing in it
    /// that could be rotated.
    pub fn age(&self) -> Option<(Wall, Wall)> {
        let found = self.metadata().filter(|found| found.is_file() && found.len() > 0)?;
        let wall = |time: SystemTime| {
            Wall(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
        };
        let written = found.modified().map_or(Wall(0), wall);
        Some((found.created().map_or(written, wall), written))
    }

    /// Whether it can be rotated at all.
    pub fn can_turn(&self) -> bool {
        self.is_regular && self.path.is_some()
    }

    /// Gives the file another name, after `date`, and begins a new one under its own. The old name comes back; the
    /// error is one sentence.
    pub fn turn(&mut self, date: &str) -> Result<PathBuf, String> {
        let path = self.path.clone().ok_or("a log file has no name")?;
        let failed = |what: &str, error: io::Error| {
            format!("{what} {}: {}", path.display(), crate::sys::reason(&error))
        };
        // Where symlinks are followed it is what they lead to that is full.
        let real = fs::canonicalize(&path).map_err(|error| failed("rotate", error))?;
        let found = fs::metadata(&real).map_err(|error| failed("rotate", error))?;
        let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(failed("rotate", io::ErrorKind::InvalidInput.into()));
        };
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            return Err(format!("rotate {}: it is another file by now", path.display()));
        }
        let name = name.to_string_lossy();
        let is_free = |name: &String| {
            let taken = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok();
            !taken(name) && !taken(&format!("{name}.gz"))
        };
        let old = (0..MOST_OF_A_NAME).map(|again| rotation::old_name(&name, date, again)).find(is_free);
        let old = directory.join(old.ok_or_else(|| failed("rotate", io::ErrorKind::AlreadyExists.into()))?);
        failpoint::reach("rotate");
        fs::rename(&real, &old).map_err(|error| failed("rotate", error))?;
        failpoint::reach("rotate-renamed");
        if self.renew() {
            // Whoever may read the old one may read the new one.
            if let Some(file) = &self.file {
                let _ = file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o777));
                let _ = std::os::unix::fs::fchown(&**file, Some(found.uid()), Some(found.gid()));
            }
        }
        failpoint::reach("rotate-opened");
        Ok(old)
    }

    /// How much room there is, as far as that was not just looked at.
    pub fn room(&mut self, now: Mono, global: &Global) -> Room {
        let Some(file) = self.file.as_ref().filter(|_| self.is_regular) else { return Room::Enough };
        if let Some((looked, room)) = self.room
            && now.since(looked) < LOOK
        {
            return room;
        }
        let room = match nix::sys::statvfs::fstatvfs(&**file) {
            Ok(found) => {
                let unit = found.fragment_size();
                let (free, disk) = (found.blocks_available() * unit, found.blocks() * unit);
                match global.keep_free(disk) {
                    keep if free < keep / 2 => Room::None,
                    keep if free < keep => Room::Little,
                    _ => Room::Enough,
                }
            }
            Err(_) => Room::Enough,
        };
        self.room = Some((now, room));
        room
    }

    /// Opens it anew if it was renamed, deleted or replaced since, as far as that was not just looked at.
    /// True: it is another one now.
    pub fn look(&mut self, now: Mono) -> bool {
        if now.since(self.looked) < LOOK && self.looked != Mono(0) {
            return false;
        }
        self.looked = now;
        self.renew()
    }

    /// The same, whenever that was.
    pub fn renew(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let found = fs::metadata(path);
        if self.file.is_some()
            && found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
        {
            return false;
        }
        match open(path) {
            Ok(Some(file)) => {
                self.file = Some(file.into());
                self.identify();
                self.refused = None;
                true
            }
            Ok(None) => false,
            Err(error) => {
                // What it says goes on into the file that it was.
                if self.refused.is_none() {
                    log::error!("open {} anew: {}", path.display(), crate::sys::reason(&error));
                }
                self.refused = Some(error.raw_os_error().unwrap_or(libc::EIO));
                false
            }
        }
    }

    /// Appends all of it. The error comes with how many bytes were taken: whole lines, where that can be had.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let Some(file) = &mut self.file else {
            return Err((0, io::Error::from_raw_os_error(self.refused.unwrap_or(libc::ENOENT))));
        };
        let mut taken = 0;
        let error = loop {
            match file.write(&bytes[taken..]) {
                Ok(0) if taken < bytes.len() => break io::ErrorKind::WriteZero.into(),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if taken == bytes.len() {
                return Ok(());
            }
        };
        let whole = find::last(b'\n', &bytes[..taken]).map_or(0, |at| at + 1);
        if whole < taken && self.is_regular {
            let (len, surplus) = (file.metadata().map_or(0, |found| found.len()), (taken - whole) as u64);
            if len >= surplus && file.set_len(len - surplus).is_ok() {
                taken = whole;
            }
        }
        Err((taken, error))
    }

    /// Whether the last line has no end.
    pub fn is_mid_line(&self) -> bool {
        let Some(last) = self.len().checked_sub(1).filter(|_| self.is_regular) else { return false };
        let mut byte = [b'\n'];
        let read = self.reader().and_then(|file| file.read_exact_at(&mut byte, last));
        read.is_ok() && byte != [b'\n']
    }

    fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.fd().unwrap_or(-1)))
    }

    /// How many of `bytes`, which were to be appended when it was `before` long, are in it.
    pub fn already(&self, before: u64, bytes: &[u8]) -> usize {
        let len = match self.metadata() {
            // A pipe or a terminal: nobody knows.
            Some(found) if !found.is_file() => return bytes.len(),
            Some(found) => found.len(),
            None => return 0,
        };
        let reader = self.reader();
        let ends_with = |part: &[u8], at: u64| {
            let mut found = vec![0; part.len()];
            let read = reader.as_ref().is_ok_and(|reader| reader.read_exact_at(&mut found, at).is_ok());
            if reader.is_ok() { read && found == part } else { at == before }
        };
        let grown = len.saturating_sub(before);
        if len >= before && grown <= bytes.len() as u64 && ends_with(&bytes[..grown as usize], before) {
            return grown as usize;
        }
        // It was cut short or written to by others meanwhile. The whole of it at the end is no coincidence.
        let whole = len.checked_sub(bytes.len() as u64).is_some_and(|at| ends_with(bytes, at));
        if whole { bytes.len() } else { 0 }
    }
}

/// Opens a log file to append to, with its directories, private. `NULL` and `/dev/null` mean none. It never
/// blocks: a FIFO that nobody reads is an error (ENXIO), and what a full one does not take is lost. As root it follows
/// no symlink, which whoever owns the directory may have put there; those of the system are meant.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    if path.as_os_str() == "/dev/null" || path.file_name().is_some_and(|name| name == "NULL") {
        return Ok(None);
    }
    let is_trusted = path.starts_with("/dev") || path.starts_with("/proc");
    let follow = if nix::unistd::geteuid().is_root() && !is_trusted { libc::O_NOFOLLOW } else { 0 };
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | follow);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            options.open(path)?
        }
        opened => opened?,
    };
    Ok(Some(File::from(lift(file.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pmx-logfile-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn null_is_no_file() {
        assert!(open(Path::new("/dev/null")).unwrap().is_none());
        assert!(open(Path::new("/any/NULL")).unwrap().is_none());
    }

    #[test]
    fn l03_a_file_that_is_gone_or_another_one_is_opened_anew() {
        let directory = directory("anew");
        let path = directory.join("a/b.log");
        let mut log = LogFile::new(open(&path).unwrap().unwrap(), Some(path.clone()));
        let mut now = 1_000;
        let mut write = |log: &mut LogFile, text: &str| {
            now += LOOK.0;
            let is_new = log.look(Mono(now));
            log.append(text.as_bytes()).unwrap();
            is_new
        };
        assert!(!write(&mut log, "one\n"));
        fs::rename(&path, directory.join("renamed")).unwrap();
        assert!(write(&mut log, "two\n"));
        fs::remove_file(&path).unwrap();
        assert!(write(&mut log, "three\n"));
        fs::remove_dir_all(directory.join("a")).unwrap();
        assert!(write(&mut log, "four\n"));
        assert_eq!(fs::read(directory.join("renamed")).unwrap(), b"one\n");
        assert_eq!(fs::read(&path).unwrap(), b"four\n");
        fs::rename(&path, directory.join("kept")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!write(&mut log, "five\n"), "a directory");
        assert_eq!(fs::read(directory.join("kept")).unwrap(), b"four\nfive\n", "nothing is lost meanwhile");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let follows = !nix::unistd::geteuid().is_root();
        assert_eq!(write(&mut log, "six\n"), follows, "a symlink");
        assert_eq!(directory.join("a/elsewhere").exists(), follows);
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn x04_what_does_not_fit_is_cut_at_a_line() {
        crate::sys::testing::alone(
            "daemon::log::file::tests::x04_what_does_not_fit_is_cut_at_a_line",
            || {
                let directory = directory("cut");
                let path = directory.join("x.log");
                let mut log = LogFile::new(open(&path).unwrap().unwrap(), Some(path.clone()));
                // A limit instead of a full disk: the same short write, with a signal that is not for us.
                let mut signals = nix::sys::signal::SigSet::empty();
                signals.add(nix::sys::signal::Signal::SIGXFSZ);
                signals.thread_block().unwrap();
                nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, 10, 1 << 40)
                    .unwrap();
                let (taken, error) = log.append(b"one\ntwo\nthree\n").unwrap_err();
                assert_eq!((taken, error.raw_os_error()), (8, Some(libc::EFBIG)));
                assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
                log.lost.add(b"three\n", &error);
                assert_eq!(log.lost.text(), "pmx: 1 line (6 bytes) lost: file too large");
                assert!(!log.is_mid_line());
                log.append(b"3").unwrap();
                assert!(log.is_mid_line());
                fs::remove_dir_all(&directory).unwrap();
            },
        );
    }
}
