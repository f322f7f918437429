//! Helpers: this program again, for what would hold up the loop.

use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::children::c_string;
use crate::sys::pipe;
use crate::sys::spawn::{self, Spawn};

/// Starts `pmx` with these words for a home, and returns its pid. What it reads lies in memory, under this name, until it
/// has read it, whatever becomes of us.
pub fn start(home: &Path, words: [&CStr; 2], name: &str, content: &[u8]) -> Result<i32, String> {
    let input = pipe::memfd(name, content).map_err(|error| crate::sys::reason(&error))?;
    let spawned = spawn::spawn(&Spawn {
        programs: &[c"/proc/self/exe".to_owned()],
        argv: &[c"pmx", words[0], words[1]].map(CStr::to_owned),
        env: &[c_string([b"PMX_HOME=", home.as_os_str().as_bytes()].concat())?],
        cwd: c"/",
        umask: 0o077,
        // What it has to complain about is for our log.
        fds: &[(input.as_raw_fd(), 0), (2, 1), (2, 2)],
        ..Spawn::default()
    })
    .map_err(|error| error.to_string())?;
    Ok(spawned.pid)
}
