//! What the event loop watches. When the kernel has no room for one more fd, which passes, nothing but we would ever
//! ask again: until then whoever is behind the fd would wait in vain.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::sync::Mutex;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::source::Source;
use crate::time::Millis;

/// When the kernel is asked again.
pub const AGAIN: Millis = Millis(100);

/// Those that it had no room for.
static LEFT_OUT: Mutex<BTreeMap<RawFd, (Source, Interest)>> = Mutex::new(BTreeMap::new());

/// Has the event loop watch an fd, at once or as soon as there is room.
pub fn watch(registry: &Registry, fd: RawFd, source: Source, interest: Interest) {
    let done = registry.register(&mut SourceFd(&fd), source.token(), interest);
    remember(fd, source, interest, done);
}

/// Has it watch for something else.
pub fn rewatch(registry: &Registry, fd: RawFd, source: Source, interest: Interest) {
    if LEFT_OUT.lock().is_ok_and(|left_out| left_out.contains_key(&fd)) {
        return watch(registry, fd, source, interest);
    }
    let done = registry.reregister(&mut SourceFd(&fd), source.token(), interest);
    remember(fd, source, interest, done);
}

/// Has the event loop forget an fd. Before its close: a duplicate elsewhere would keep its events coming.
pub fn unwatch(registry: &Registry, fd: RawFd) {
    if let Ok(mut left_out) = LEFT_OUT.lock() {
        left_out.remove(&fd);
    }
    if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
        log::debug!("forget an fd: {error}");
    }
}

/// Whether any fd waits for room.
pub fn leaves_out() -> bool {
    LEFT_OUT.lock().is_ok_and(|left_out| !left_out.is_empty())
}

/// Asks again for those that wait.
pub fn catch_up(registry: &Registry) {
    let left_out =
        LEFT_OUT.lock().map_or_else(|_| BTreeMap::new(), |mut left_out| std::mem::take(&mut *left_out));
    for (fd, (source, interest)) in left_out {
        let done = registry.register(&mut SourceFd(&fd), source.token(), interest);
        let done = match done {
            // It was to be watched for something else.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                registry.reregister(&mut SourceFd(&fd), source.token(), interest)
            }
            done => done,
        };
        remember(fd, source, interest, done);
    }
}

fn remember(fd: RawFd, source: Source, interest: Interest, done: io::Result<()>) {
    let Ok(mut left_out) = LEFT_OUT.lock() else { return };
    match done {
        Ok(()) => drop(left_out.remove(&fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOSPC)) => {
            if left_out.insert(fd, (source, interest)).is_none() {
                log::warn!("watch {source:?}: {}; it is tried again", crate::sys::reason(&error));
            }
        }
        // An fd that cannot be watched.
        Err(error) => log::error!("watch {source:?}: {}", crate::sys::reason(&error)),
    }
}
