//! The files that hold a saved list: which of them to read, and what is done about damaged ones. The
//! format is `app::dump`'s.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::home::Home;
use crate::app::dump::{self, Fault, List};
use crate::sys::{atomic, lock, reason};

/// The longest list that is read.
const LIST_LIMIT: u64 = 64 << 20;
/// How long another writer is waited for.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const RETRY: Duration = Duration::from_millis(3);
/// So many damaged files are kept beside each other.
const BAD_FILES: u32 = 100;

/// One of the two lists of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that `pmx save` writes.
    Dump,
    /// The one that is kept by itself.
    Autosave,
}

/// A list that could be read.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub list: List,
    /// Where it stands.
    pub file: PathBuf,
}

/// A file that could not be read, and why.
#[derive(Debug, PartialEq)]
pub struct Bad {
    pub file: PathBuf,
    pub fault: Fault,
}

/// Where a list is.
pub fn path(home: &Home, which: Which) -> PathBuf {
    home.path.join(match which {
        Which::Dump => "dump.pm2",
        Which::Autosave => "autosave.json",
    })
}

/// Waits until nobody else writes lists in this home, and keeps others from it.
pub fn lock(home: &Home) -> Result<File, String> {
    let path = home.path.join("save.lock");
    let file = lock::open(&path).map_err(|error| format!("open {}: {}", path.display(), reason(&error)))?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        match lock::try_lock(&file) {
            Ok(true) => return Ok(file),
            Ok(false) if Instant::now() < deadline => std::thread::sleep(RETRY),
            Ok(false) => return Err(format!("lock {}: somebody else holds it", path.display())),
            Err(error) => return Err(format!("lock {}: {}", path.display(), reason(&error))),
        }
    }
}

/// The list in one file; `None`: there is none.
pub fn read(file: &Path) -> Option<Result<List, Fault>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(LIST_LIMIT + 1).read_to_end(&mut bytes));
    Some(match read {
        Ok(_) if bytes.len() as u64 > LIST_LIMIT => {
            Err(Fault::Damaged(format!("it is longer than {} MiB", LIST_LIMIT >> 20)))
        }
        Ok(_) => dump::read(&bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => Err(Fault::Damaged(format!("it cannot be read: {}", reason(&error)))),
    })
}

/// The newest generation that can be read, and those before it that cannot.
pub fn newest(path: &Path) -> (Option<Found>, Vec<Bad>) {
    let mut bad = Vec::new();
    for ago in 0..=atomic::KEPT {
        let file = atomic::generation(path, ago);
        match read(&file) {
            None => {}
            Some(Ok(list)) => return (Some(Found { list, file }), bad),
            Some(Err(fault)) => bad.push(Bad { file, fault }),
        }
    }
    (None, bad)
}

/// Gives a damaged file a name under which nobody overwrites it: it may hold more than what comes next.
pub fn keep_aside(bad: &Path) -> Result<PathBuf, String> {
    let failed = |error| format!("keep {} aside: {}", bad.display(), reason(&error));
    for n in 1..=BAD_FILES {
        let mut name = bad.as_os_str().to_os_string();
        name.push(format!(".bad-{n}"));
        let aside = PathBuf::from(name);
        if fs::symlink_metadata(&aside).is_ok() {
            continue;
        }
        fs::rename(bad, &aside).map_err(failed)?;
        return Ok(aside);
    }
    Err(format!("keep {} aside: there are {BAD_FILES} such files already", bad.display()))
}

/// A file's name without its folder, for messages.
pub fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestHome;
    use super::*;
    use crate::app::App;
    use crate::app::dump::Saved;

    fn list(name: &str) -> Vec<u8> {
        let app = App { name: name.to_string(), ..App::default() };
        let saved = Saved {
            app,
            instance: 0,
            up: true,
            out_file: Default::default(),
            error_file: Default::default(),
            pid_file: Default::default(),
            user: None,
            group: None,
        };
        dump::write(&[saved])
    }

    #[test]
    fn the_newest_good_one_is_taken_and_bad_ones_are_named() {
        let home = TestHome::new("store-newest");
        let path = path(&home.home, Which::Dump);
        assert_eq!(newest(&path), (None, Vec::new()));
        fs::write(atomic::generation(&path, 2), list("second")).unwrap();
        let found = |(found, bad): (Option<Found>, Vec<Bad>)| {
            let name = found.map(|found| found.list.saved[0].app.name.clone());
            (name, bad.iter().map(|bad| self::name(&bad.file)).collect::<Vec<_>>())
        };
        assert_eq!(found(newest(&path)), (Some("second".to_string()), vec![]));
        let whole = list("newest");
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        fs::write(atomic::generation(&path, 1), b"").unwrap();
        let bad = vec!["dump.pm2".to_string(), "dump.pm2.bak".to_string()];
        assert_eq!(found(newest(&path)), (Some("second".to_string()), bad));
    }

    #[test]
    fn s02_bad_files_do_not_replace_each_other() {
        let home = TestHome::new("store-bad");
        let path = path(&home.home, Which::Dump);
        for n in 1..=BAD_FILES {
            fs::write(&path, n.to_string()).unwrap();
            let aside = keep_aside(&path).unwrap();
            assert_eq!(name(&aside), format!("dump.pm2.bad-{n}"));
            assert_eq!(fs::read_to_string(aside).unwrap(), n.to_string());
        }
        fs::write(&path, "one more").unwrap();
        assert!(keep_aside(&path).unwrap_err().ends_with("there are 100 such files already"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one more");
    }
}
