//! The daemon's own log is its stderr, which mostly is a file of its home. That one is kept short: once it is long
//! it becomes `pmx.log.1`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::sys::stat::fstat;

/// So many bytes are long; at most twice as many are kept.
const LONG: u64 = 8 << 20;
/// Where that failed, it is tried again after so many more.
const MORE: u64 = 1 << 20;

/// The log of one home.
pub struct OwnLog {
    file: PathBuf,
    /// The length at which something is to be done.
    at: AtomicU64,
}

impl OwnLog {
    /// Of that file, if it is what we write to.
    pub fn new(file: PathBuf) -> OwnLog {
        OwnLog { file, at: AtomicU64::new(LONG) }
    }

    /// Looks at it before a line is written. Says why it stays long.
    pub fn look(&self) -> Option<String> {
        let ours = fstat(io::stderr()).ok()?;
        let length = u64::try_from(ours.st_size).ok()?;
        if length < self.at.load(Relaxed) {
            return None;
        }
        let is_it = fs::metadata(&self.file).is_ok_and(|found| {
            (found.dev(), found.ino(), found.is_file()) == (ours.st_dev, ours.st_ino, true)
        });
        let turned = if is_it { turn(&self.file) } else { Ok(()) };
        let is_short = is_it && turned.is_ok();
        self.at.store(if is_short { LONG } else { length + MORE }, Relaxed);
        turned.err().map(|error| format!("rotate {}: {}", self.file.display(), crate::sys::reason(&error)))
    }
}

/// By a copy, because the keeper holds the same file, and helpers do. They say little: what one of them wrote between
/// the two steps would be lost.
fn turn(file: &Path) -> io::Result<()> {
    let mut old = file.as_os_str().to_os_string();
    old.push(".1");
    fs::copy(file, old)?;
    OpenOptions::new().write(true).open(file)?.set_len(0)
}
