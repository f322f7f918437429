//! The files that one log is: the one under its name, and the old ones that rotation left. They are opened before
//! anything is read, so that who compresses or removes them meanwhile takes nothing away.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Take};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(feature = "gzip")]
use super::gunzip::Gunzip;
use super::{order, tail};
use crate::app::rotation::is_old;

/// So often it is looked again if the files change while we look.
const TRIES: usize = 50;
/// So much of the beginning tells a file from others.
const HEAD: u64 = 1_024;
/// A compressed byte takes about as long to be looked through as so many others.
const PACKED: u64 = 10;

/// Whether what stands under the name of a log may be a link to another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It may.
    Followed,
    /// It may not: who shows a log to others goes nowhere that was not meant.
    Refused,
}

/// The files of a log as they were at one moment.
pub struct History {
    /// The log's name.
    pub path: PathBuf,
    /// Whether it may be a link.
    pub links: Links,
    /// The one under the log's name.
    pub current: Option<File>,
    /// Those before it, oldest first.
    pub old: Vec<Old>,
    /// What could not be opened, and why.
    pub faults: Vec<String>,
}

/// An old file.
pub struct Old {
    /// Its name; a compressed one's is longer.
    pub path: PathBuf,
    /// Open.
    pub file: File,
    /// As it was when it was opened.
    pub metadata: Metadata,
    is_packed: bool,
}

/// What tells a file from others, compressed or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    written: SystemTime,
    length: u32,
    head: Vec<u8>,
}

impl Identity {
    /// Whether the file was written to at that time or later.
    pub fn is_since(&self, time: SystemTime) -> bool {
        self.written >= time
    }
}

/// What is in a file.
pub enum Content {
    /// As it is, to some length.
    Plain(Take<File>),
    /// Compressed.
    #[cfg(feature = "gzip")]
    Packed(Box<Gunzip<File>>),
}

impl History {
    /// Looks until nothing has changed while we looked.
    pub fn of(path: &Path, links: Links) -> History {
        let real = real(path, links);
        let mut tries = 0;
        loop {
            tries += 1;
            let current = open(path, links);
            let names = names(&real);
            let (old, faults) = open_all(&real, &names, current.as_ref(), links);
            let is_same = !is_another(path, current.as_ref(), links) && self::names(&real) == names;
            if is_same || tries == TRIES {
                return History { path: path.to_path_buf(), links, current, old, faults };
            }
        }
    }
}

/// About how long each of these logs is, with its old files: so many bytes as take about as long to be read.
pub fn lengths(logs: &[&Path], links: Links) -> Vec<u64> {
    let real: Vec<PathBuf> = logs.iter().map(|log| real(log, links)).collect();
    let split =
        |path: &'_ PathBuf| Some((path.parent()?.to_path_buf(), path.file_name()?.to_str()?.to_string()));
    let names: Vec<Option<(PathBuf, String)>> = real.iter().map(split).collect();
    let mut lengths = vec![0; logs.len()];
    for folder in names.iter().flatten().map(|(folder, _)| folder).collect::<BTreeSet<_>>() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.file_name().into_string() else { continue };
            let is_of = |log: &Option<(PathBuf, String)>| {
                log.as_ref()
                    .is_some_and(|(of, name)| of == folder && (*name == found || is_old(name, &found)))
            };
            if let Some(place) = names.iter().position(is_of) {
                let times = if found.ends_with(".gz") { PACKED } else { 1 };
                lengths[place] += entry.metadata().map_or(0, |found| found.len()).saturating_mul(times);
            }
        }
    }
    lengths
}

/// A sentence about a file. Its name may hold what a terminal would obey.
pub fn fault(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {}", path.to_string_lossy(), crate::sys::reason(error))
}

/// Where the log is a symlink, the old ones lie where it leads to.
fn real(path: &Path, links: Links) -> PathBuf {
    match links {
        Links::Followed => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        Links::Refused => path.to_path_buf(),
    }
}

/// Opens a log. Looked at first: opening a FIFO would block, and what is no regular file is no log.
pub fn open(path: &Path, links: Links) -> Option<File> {
    let is_file = look(path, links).is_some_and(|found| found.is_file());
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags(links));
    if is_file { options.open(path).ok() } else { None }
}

/// Whether another file than this one stands under the name now.
pub fn is_another(path: &Path, file: Option<&File>, links: Links) -> bool {
    let Some(now) = look(path, links) else { return false };
    let known = file.and_then(|file| file.metadata().ok());
    now.is_file() && known.is_none_or(|known| (known.dev(), known.ino()) != (now.dev(), now.ino()))
}

fn look(path: &Path, links: Links) -> Option<Metadata> {
    match links {
        Links::Followed => fs::metadata(path).ok(),
        Links::Refused => fs::symlink_metadata(path).ok(),
    }
}

fn flags(links: Links) -> i32 {
    let usual = libc::O_NONBLOCK | libc::O_NOCTTY;
    if links == Links::Refused { usual | libc::O_NOFOLLOW } else { usual }
}

/// The names of the old files, whether they are compressed or not.
fn names(log: &Path) -> BTreeSet<String> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return BTreeSet::new() };
    let name = name.to_string_lossy();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let old = names.filter(|found| is_old(&name, found) && !found.ends_with(".part"));
    old.map(|found| found.strip_suffix(".gz").map(String::from).unwrap_or(found)).collect()
}

fn open_all(
    log: &Path,
    names: &BTreeSet<String>,
    current: Option<&File>,
    links: Links,
) -> (Vec<Old>, Vec<String>) {
    let directory = log.parent().unwrap_or(log);
    let (mut old, mut faults) = (Vec::new(), Vec::new());
    let current = current.and_then(|file| file.metadata().ok()).map(|found| (found.dev(), found.ino()));
    for name in names {
        // Where both are there, the compressed one is of the other, and perhaps not on disk yet.
        let mut found = open_old(&directory.join(name), false, links);
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            found = open_old(&directory.join(format!("{name}.gz")), true, links);
        }
        match found {
            Ok(Some(found)) if current != Some((found.metadata.dev(), found.metadata.ino())) => {
                old.push(found)
            }
            Ok(_) => {}
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                faults.push(fault("open", &directory.join(name), &error));
            }
        }
    }
    old.sort_by(|a, b| {
        let written = |old: &Old| old.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        written(a).cmp(&written(b)).then_with(|| order::by_number(a.stem(), b.stem()))
    });
    (old, faults)
}

fn open_old(path: &Path, is_packed: bool, links: Links) -> io::Result<Option<Old>> {
    let file = OpenOptions::new().read(true).custom_flags(flags(links)).open(path)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| Old { path: path.to_path_buf(), file, metadata, is_packed }))
}

impl Old {
    /// When it was last written to.
    pub fn written(&self) -> SystemTime {
        self.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Its name without what tells that it is compressed, and without the extension.
    pub fn stem(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(name);
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// What is in it.
    pub fn content(&self) -> io::Result<Content> {
        let file = self.file.try_clone()?;
        io::Seek::seek(&mut &file, io::SeekFrom::Start(0))?;
        if !self.is_packed {
            return Ok(Content::Plain(file.take(u64::MAX)));
        }
        #[cfg(feature = "gzip")]
        return Ok(Content::Packed(Box::new(Gunzip::new(file))));
        #[cfg(not(feature = "gzip"))]
        Err(io::Error::other("this pmx was built without compression"))
    }

    /// What tells it from others.
    pub fn identity(&self) -> Option<Identity> {
        if !self.is_packed {
            return identity(&self.file);
        }
        // The last four bytes tell how long it is.
        let mut length = [0; 4];
        let end = self.metadata.len().checked_sub(4)?;
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut length, end).ok()?;
        let mut head = Vec::new();
        self.content().ok()?.take(HEAD).read_to_end(&mut head).ok()?;
        Some(Identity { written: self.written(), length: u32::from_le_bytes(length), head })
    }
}

/// What tells a file that is not compressed from others.
pub fn identity(file: &File) -> Option<Identity> {
    let metadata = file.metadata().ok()?;
    let mut head = vec![0; metadata.len().min(HEAD) as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0).ok()?;
    Some(Identity { written: metadata.modified().ok()?, length: metadata.len() as u32, head })
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Content::Plain(file) => file.read(buffer),
            #[cfg(feature = "gzip")]
            Content::Packed(file) => file.read(buffer),
        }
    }
}

impl Content {
    /// Goes to where the last lines begin, of what so many bytes at the end hold, and tells where that is. What is
    /// compressed can only be read from its beginning.
    pub fn skip_to_last(&mut self, count: u64, most: u64) -> io::Result<u64> {
        match self {
            Content::Plain(file) => {
                let end = file.get_ref().metadata()?.len().min(file.limit());
                let start = tail::start_of_last(file.get_ref(), end, count, end.saturating_sub(most))?;
                io::Seek::seek(file.get_mut(), io::SeekFrom::Start(start))?;
                file.set_limit(end - start);
                Ok(start)
            }
            #[cfg(feature = "gzip")]
            Content::Packed(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pmx-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn old_files_come_in_their_order_and_each_once() {
        let folder = folder("order");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let put = |name: &str, seconds: u64| {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(at + Duration::from_secs(seconds)).unwrap();
        };
        // Three of one moment, of which the second is being compressed, and two others.
        for (name, seconds) in [
            ("a__D.log", 5),
            ("a__D-2.log", 5),
            ("a__D-10.log.gz", 5),
            ("a__D-2.log.gz", 5),
            ("a__D-2.log.gz.part", 5),
            ("a__Z.log", 1),
            ("a__A.log.gz", 9),
            ("a.log", 10),
            ("ab__D.log", 0),
        ] {
            put(name, seconds);
        }
        std::os::unix::fs::symlink("nowhere", folder.join("a__L.log")).unwrap();
        fs::create_dir(folder.join("a__M.log")).unwrap();
        let history = History::of(&folder.join("a.log"), Links::Followed);
        let names: Vec<_> =
            history.old.iter().map(|old| old.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a__Z.log", "a__D.log", "a__D-2.log", "a__D-10.log.gz", "a__A.log.gz"]);
        assert!(history.current.is_some() && history.faults.is_empty(), "{:?}", history.faults);
        let none = History::of(&folder.join("none.log"), Links::Followed);
        assert!(none.current.is_none() && none.old.is_empty());
        fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn a_file_is_known_again_when_it_is_compressed() {
        let folder = folder("identity");
        let (plain, packed) = (folder.join("a__D.log"), folder.join("a__D.log.gz"));
        fs::write(&plain, "one\ntwo\n").unwrap();
        let before = History::of(&folder.join("a.log"), Links::Followed).old.remove(0);
        crate::logs::gzip::pack(&plain, &packed).unwrap();
        fs::remove_file(&plain).unwrap();
        let after = History::of(&folder.join("a.log"), Links::Followed).old.remove(0);
        assert!(after.is_packed && !before.is_packed);
        assert_eq!(before.identity().unwrap(), after.identity().unwrap());
        assert_eq!(identity(&before.file), after.identity());
        let mut text = String::new();
        after.content().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        let other = folder.join("a__E.log");
        fs::write(&other, "one\ntoo\n").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(before.written()).unwrap();
        assert_ne!(identity(&File::open(&other).unwrap()), before.identity());
        fs::remove_dir_all(folder).unwrap();
    }
}
