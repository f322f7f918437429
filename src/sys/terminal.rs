//! The terminal that output goes to, if it goes to one.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};

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
