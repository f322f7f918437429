//! The last words of a child.

use std::collections::VecDeque;

/// How much of a child's last words is kept.
const TAIL: usize = 2 << 10;
/// How many lines of it are shown.
const LINES: usize = 10;

/// The last words of a child.
#[derive(Debug, Default)]
pub struct Tail(VecDeque<u8>);

impl Tail {
    /// It said more.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(TAIL);
        self.0.drain(..surplus);
        self.0.extend(bytes);
    }

    /// The last lines, oldest first; the first one may have lost its beginning.
    pub fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        lines[from..].iter().map(|line| line.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_lines_in_bounded_memory() {
        let mut tail = Tail::default();
        for n in 0..1_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        assert_eq!(tail.lines().len(), LINES);
        assert_eq!(tail.lines().last().unwrap(), "line 999");
        tail.push(&[b'y'; 100_000]);
        assert_eq!(tail.0.len(), TAIL);
    }
}
