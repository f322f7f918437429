//! The terminal that we are at, if we are at one.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::spawn::Terminal;

/// The width of the terminal in columns; `None` when `fd` is none.
pub fn width(fd: impl AsFd) -> Option<usize> {
    let fd = fd.as_fd();
    if !fd.is_terminal() {
        return None;
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    // Some terminals (serial lines, expect scripts) do not know their size.
    Some(if result == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 80 })
}

/// Whether `fd` is the terminal that controls our session.
pub fn is_ours(fd: BorrowedFd) -> bool {
    let session = nix::unistd::getsid(None);
    matches!((nix::sys::termios::tcgetsid(fd), session), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// How a child comes by the terminal on our stdin, if there is one.
pub fn of_input() -> Option<Terminal> {
    let stdin = std::io::stdin();
    let fd = stdin.as_fd();
    if !fd.is_terminal() {
        return None;
    }
    Some(if is_ours(fd) { Terminal::Shared(fd.as_raw_fd()) } else { Terminal::Taken(fd.as_raw_fd()) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pipe_is_no_terminal() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(super::width(reader), None);
    }

    #[test]
    fn a_terminal_has_a_width() {
        let pty = nix::pty::openpty(None, None);
        if let Ok(pty) = pty {
            assert_eq!(super::width(pty.slave), Some(80));
        }
    }
}
