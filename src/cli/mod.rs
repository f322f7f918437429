//! The command line: parse what was typed, work out what it means, talk to the daemon, print.

mod help;
mod nearest;
mod parse;
mod table;
