//! Log files, read: the current one and the old ones that rotation left, compressed or not. `history` is the files of
//! a log, `scan` looks through them for lines, by a `pattern` and by `times`, and `follow` takes in what is appended,
//! rotation or not. What becomes of the lines is the business of others.

pub mod follow;
#[cfg(feature = "gzip")]
mod gunzip;
#[cfg(feature = "gzip")]
pub mod gzip;
pub mod history;
pub mod moment;
mod order;
pub mod pattern;
pub mod pieces;
pub mod scan;
pub mod tail;
pub mod times;

/// What a log is the log of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What a process writes to its stdout.
    Out,
    /// To its stderr.
    Err,
    /// The daemon's own.
    Daemon,
}
