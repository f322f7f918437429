//! argv decides: the daemon, or the command line.

fn main() {}
