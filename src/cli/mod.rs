//! The command line: parse what was typed, work out what it means, talk to the daemon, print.

mod caller;
mod connect;
mod help;
mod home;
mod nearest;
mod options;
mod parse;
mod screen;
mod table;
#[cfg(test)]
mod testing;
