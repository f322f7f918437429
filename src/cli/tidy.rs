//! What the daemon's helper does with old log files: compresses them, and removes those that are too many, too old or
//! too large, each log by its own rule and all of them by a budget.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Session;
use super::screen::Fail;
use crate::app::Text;
use crate::app::rotation::{Global, Order, Rule, is_old};
#[cfg(feature = "gzip")]
use crate::logs::gzip::pack;
use crate::sys::{limits, lock};

/// An old file of a log.
#[derive(Debug)]
struct Old {
    path: PathBuf,
    written: SystemTime,
    size: u64,
    device: u64,
}

/// `pmx flush --tidy`: does what the daemon put on our stdin.
pub fn tidy(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    limits::yield_to_others();
    let mut text = Vec::new();
    io::stdin()
        .read_to_end(&mut text)
        .map_err(|error| format!("look after old logs: read what to do: {}", crate::sys::reason(&error)))?;
    let order: Order =
        serde_json::from_slice(&text).map_err(|error| format!("look after old logs: {error}"))?;
    // One that was started by a daemon before ours may be at work still: what it leaves is for the next one.
    let lock = lock::open(&session.home.path.join("logs.lock"));
    if lock.as_ref().is_ok_and(|lock| lock::try_lock(lock).is_ok_and(|locked| !locked)) {
        return Ok(());
    }
    let mut faults = Vec::new();
    for (log, rule) in &order.turned {
        if let Err(error) = retain(log.path(), rule) {
            faults.push(error);
        }
        if rule.compress
            && let Err(error) = compress(log.path())
        {
            faults.push(error);
        }
    }
    let global = Global { budget: order.budget, keep_free: order.keep_free, ..Global::default() };
    let logs = session.home.path.join("logs");
    make_room(&logs, &order.logs, &global, &mut faults);
    for fault in &faults {
        session.screen.complain(fault);
    }
    if faults.is_empty() { Ok(()) } else { Err(Fail::Said) }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {}", path.display(), crate::sys::reason(error))
}

/// The old files of a log, newest first.
fn old_files(log: &Path) -> Result<Vec<Old>, String> {
    // Where the log is a symlink that was followed they lie where it leads to.
    let log = fs::canonicalize(log).unwrap_or_else(|_| log.to_path_buf());
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let name = name.to_string_lossy();
    let mut found = entries(directory, |candidate| is_old(&name, candidate))
        .map_err(|error| failed("read", directory, &error))?;
    found.sort_by(|a, b| (b.written, &b.path).cmp(&(a.written, &a.path)));
    Ok(found)
}

/// The regular files of a directory whose names are wanted.
fn entries(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Old>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        if let Some(metadata) =
            name.to_str().filter(|name| is_wanted(name)).and_then(|_| entry.metadata().ok())
            && metadata.is_file()
        {
            found.push(old(entry.path(), &metadata));
        }
    }
    Ok(found)
}

fn old(path: PathBuf, metadata: &Metadata) -> Old {
    let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Old { path, written, size: metadata.len(), device: metadata.dev() }
}

/// Removes those that are too many, too old or too large together.
fn retain(log: &Path, rule: &Rule) -> Result<(), String> {
    let now = SystemTime::now();
    let (mut kept, mut bytes) = (0, 0);
    for file in old_files(log)? {
        let age = now.duration_since(file.written).unwrap_or_default().as_millis() as u64;
        let is_too_old = rule.retain_age.is_some_and(|most| age > most.0);
        let is_too_much = rule.retain_size.is_some_and(|most| bytes + file.size > most);
        if kept < rule.retain && !is_too_old && !is_too_much {
            kept += 1;
            bytes += file.size;
            continue;
        }
        // All that are older go as well.
        bytes = u64::MAX - file.size;
        kept = u32::MAX;
        remove(&file.path)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Compresses the old files of a log, oldest first.
fn compress(log: &Path) -> Result<(), String> {
    for file in old_files(log)?.iter().rev() {
        let path = &file.path;
        if path.extension().is_some_and(|extension| extension == "gz") {
            continue;
        }
        let with = |end: &str| {
            let mut name = path.as_os_str().to_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        let (packed, part) = (with(".gz"), with(".gz.part"));
        // A helper before us was ended when it had everything in place.
        if !packed.exists() {
            pack(path, &part).map_err(|error| failed("compress", path, &error))?;
            fs::rename(&part, &packed).map_err(|error| failed("rename", &part, &error))?;
        }
        remove(path)?;
    }
    Ok(())
}

#[cfg(not(feature = "gzip"))]
fn pack(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::other("this pmx was built without compression"))
}

/// Removes the oldest files of all logs until they are within the budget and enough is left to others.
fn make_room(directory: &Path, logs: &[Text], global: &Global, faults: &mut Vec<String>) {
    let mut files: BTreeMap<PathBuf, Old> = BTreeMap::new();
    let mut in_use: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    // What is left of apps that are gone counts as well.
    let of_home =
        entries(directory, |name| name.contains("__") && !name.ends_with(".part")).unwrap_or_default();
    files.extend(of_home.into_iter().map(|file| (file.path.clone(), file)));
    for log in
        logs.iter().map(|log| fs::canonicalize(log.path()).unwrap_or_else(|_| log.path().to_path_buf()))
    {
        if !seen.insert(log.clone()) {
            continue;
        }
        if let Ok(metadata) = fs::metadata(&log) {
            *in_use.entry(metadata.dev()).or_default() += metadata.len();
        }
        files.extend(old_files(&log).unwrap_or_default().into_iter().map(|file| (file.path.clone(), file)));
    }
    let mut oldest: Vec<Old> = files.into_values().collect();
    oldest.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
    let mut total: BTreeMap<u64, u64> = in_use;
    for file in &oldest {
        *total.entry(file.device).or_default() += file.size;
    }
    for file in oldest {
        let Ok(disk) = nix::sys::statvfs::statvfs(&file.path) else { continue };
        let unit = disk.fragment_size();
        let (free, size) = (disk.blocks_available() * unit, disk.blocks() * unit);
        let used = total.entry(file.device).or_default();
        let is_over = global.budget(size).is_some_and(|budget| *used > budget);
        if !is_over && free >= global.keep_free(size) {
            continue;
        }
        match remove(&file.path) {
            Ok(()) => *used = used.saturating_sub(file.size),
            Err(error) => faults.push(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Rotation;
    use crate::app::units::Memory;
    use crate::time::Millis;
    use std::fs::File;
    use std::time::Duration;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("pmx-tidy-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        /// A file of 1000 bytes that was written so many seconds ago.
        fn old(&self, name: &str, ago: u64) {
            let path = self.0.join(name);
            fs::write(&path, vec![b'\n'; 1_000]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().flatten();
            let mut names: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rule(rotation: Rotation) -> Rule {
        rotation.rule(&Rotation::default()).unwrap()
    }

    #[test]
    fn as_many_as_wanted_stay_the_newest_and_nothing_else_is_touched() {
        for (rotation, expected) in [
            (Rotation { retain: Some(2), ..Rotation::default() }, 2),
            (Rotation { retain_age: Some(Millis(25_000)), ..Rotation::default() }, 2),
            (Rotation { retain_size: Some(3_999), ..Rotation::default() }, 3),
            (Rotation { retain: Some(u32::MAX), ..Rotation::default() }, 5),
            (Rotation { retain: Some(0), ..Rotation::default() }, 0),
        ] {
            let folder = Folder::new("retain");
            let others = ["a-out-1.log", "a-out-1__x.log", "a-out-11__x.log", "b-out-1__x.log"];
            others
                .iter()
                .filter(|name| !name.starts_with("a-out-1__"))
                .for_each(|name| folder.old(name, 9_999));
            for n in 1..=5 {
                folder.old(&format!("a-out-1__{n}.log{}", if n % 2 == 0 { ".gz" } else { "" }), n * 10);
            }
            retain(&folder.0.join("a-out-1.log"), &rule(rotation.clone())).unwrap();
            let left = folder.names();
            let old: Vec<_> = left.iter().filter(|name| name.starts_with("a-out-1__")).collect();
            assert_eq!(old.len(), expected, "{rotation:?}: {left:?}");
            assert!(
                old.iter().enumerate().all(|(n, name)| name.contains(&format!("__{}", n + 1))),
                "{left:?}"
            );
            assert_eq!(left.len(), expected + 3, "{left:?}");
        }
    }

    #[test]
    #[cfg(feature = "gzip")]
    fn what_a_helper_left_in_the_middle_is_finished() {
        let folder = Folder::new("compress");
        let log = folder.0.join("a.log");
        folder.old("a__1.log", 10);
        folder.old("a__2.log", 5);
        // One before us had this done and not removed; that, begun.
        fs::write(folder.0.join("a__1.log.gz"), "done").unwrap();
        fs::write(folder.0.join("a__2.log.gz.part"), "begun").unwrap();
        let written = fs::metadata(folder.0.join("a__2.log")).unwrap().modified().unwrap();
        compress(&log).unwrap();
        assert_eq!(folder.names(), ["a__1.log.gz", "a__2.log.gz"]);
        assert_eq!(fs::read(folder.0.join("a__1.log.gz")).unwrap(), b"done");
        let packed = fs::metadata(folder.0.join("a__2.log.gz")).unwrap();
        assert_eq!((packed.modified().unwrap(), packed.mode() & 0o777), (written, 0o644 & packed.mode()));
        assert!(packed.len() < 100);
    }

    #[test]
    fn all_logs_together_keep_within_their_budget_and_leave_room_to_others() {
        let none = Some(Memory::Bytes(0));
        for (budget, keep_free, left) in
            [(Some(Memory::Bytes(3_500)), none, 2), (none, none, 4), (none, Some(Memory::Percent(100)), 0)]
        {
            let folder = Folder::new("budget");
            for (name, ago) in [("a__1.log", 40), ("b__1.log", 30), ("a__2.log.gz", 20), ("gone__1.log", 10)]
            {
                folder.old(name, ago);
            }
            folder.old("a.log", 0);
            let logs = ["a.log", "b.log", "a.log"].map(|name| Text::from(&folder.0.join(name)));
            let global = Global { budget, keep_free, ..Global::default() };
            let mut faults = Vec::new();
            make_room(&folder.0, &logs, &global, &mut faults);
            assert_eq!(faults, [""; 0]);
            let names = folder.names();
            assert_eq!(names.len(), left + 1, "{names:?}");
            assert!(names.contains(&"a.log".to_string()), "what is written to stays");
            assert_eq!(names.contains(&"gone__1.log".to_string()), left > 0, "the newest stay");
        }
    }
}
