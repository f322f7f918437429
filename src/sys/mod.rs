//! The kernel, and the only `unsafe`. Thin functions with safe types out; no decision is made here.

pub mod atomic;
pub mod board;
pub mod census;
pub mod cgroup;
pub mod clock;
pub mod datagram;
pub mod failpoint;
pub mod family;
pub mod fdpass;
pub mod find;
pub mod holder;
pub mod host;
pub mod inherit;
pub mod inotify;
pub mod kept;
pub mod lift;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod reap;
pub mod secret;
pub mod shared_out;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod terminal;
pub mod users;
pub mod zone;

#[cfg(test)]
pub(crate) mod testing;

/// The reason in an `io::Error`, for the end of a message: libc's text in lower case, without the number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = match error.raw_os_error() {
        Some(number) => text.trim_end_matches(&format!(" (os error {number})")).to_string(),
        None => text,
    };
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // "RFS specific error" keeps its capitals, "No such file" does not.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text,
    }
}

/// As [`reason`], for a bare errno.
pub fn errno_reason(errno: i32) -> String {
    reason(&std::io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_lower_case_and_has_no_number() {
        assert_eq!(errno_reason(libc::ENOENT), "no such file or directory");
        assert_eq!(errno_reason(libc::EADDRINUSE), "address already in use");
        assert_eq!(reason(&std::io::Error::other("Broken")), "broken");
        assert_eq!(reason(&std::io::Error::other("EOF")), "EOF");
        assert_eq!(reason(&std::io::Error::other("")), "");
    }
}
