//! The kernel, in safe types: the only place for `unsafe`. A syscall makes no decision.

pub mod inotify;
pub mod lock;
pub mod poll;
pub mod terminal;
pub mod users;
