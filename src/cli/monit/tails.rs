//! The last lines of one process's log files, and what is appended to them.

use std::collections::VecDeque;
use std::path::Path;

use crate::cli::screen::escaped;
use crate::logs::follow::{Followed, Look};
use crate::logs::history::Links;

/// How many lines are kept.
const KEPT: usize = 1_000;
/// How many there are at first.
const FIRST: u64 = 100;
/// How much of a file is looked through for them.
const BEFORE: u64 = 64 << 10;
/// How much of a file is read at a time; what a flood leaves behind is skipped.
const FLOOD: u64 = 4 << 20;

/// How often each file is looked at for one picture; what is left comes with the next.
const LOOKS: usize = 8;

/// The logs of the process that is looked at.
#[derive(Default)]
pub struct Tails {
    of: Option<u32>,
    /// Each, and whether it is stderr's.
    files: Vec<(Followed, bool)>,
    /// Whether it is from stderr, and the line.
    lines: VecDeque<(bool, String)>,
}

impl Tails {
    /// From now on these files of this process.
    pub fn follow(&mut self, of: Option<(u32, &str, &str)>) {
        let Some((id, out, err)) = of else {
            *self = Tails::default();
            return;
        };
        let is_followed = |files: &[(Followed, bool)], path: &str| {
            files.iter().any(|(log, _)| log.path().as_os_str() == path)
        };
        if self.of == Some(id) && [err, out].iter().all(|path| is_followed(&self.files, path)) {
            return;
        }
        *self = Tails { of: Some(id), ..Tails::default() };
        // What went wrong stands above what goes on.
        for (path, is_err) in [(err, true), (out, false)] {
            if !is_followed(&self.files, path) {
                let mut log = Followed::new(Path::new(path), Links::Followed);
                log.skip_to_last(FIRST, BEFORE);
                self.files.push((log, is_err));
            }
        }
        self.read();
    }

    /// Takes in what is new.
    pub fn read(&mut self) {
        for (log, is_err) in &mut self.files {
            if log.behind() > FLOOD {
                log.skip_to_last(KEPT as u64, FLOOD);
            }
            // The picture shows what can be read; what cannot is for `logs` to tell.
            log.faults.clear();
            let lines = &mut self.lines;
            let mut emit = |line: &[u8]| {
                lines.push_back((*is_err, escaped(&String::from_utf8_lossy(line))));
                if lines.len() > KEPT {
                    lines.pop_front();
                }
                Ok::<_, String>(())
            };
            for _ in 0..LOOKS {
                if log.look(FLOOD as usize, &mut emit).unwrap_or(Look::Idle) == Look::Idle {
                    break;
                }
            }
        }
    }

    /// Oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &(bool, String)> {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn logs_that_are_rotated_between_two_pictures_are_whole() {
        let folder = std::env::temp_dir().join(format!("pmx-tails-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (out, err) = (folder.join("a-out.log"), folder.join("a-error.log"));
        let lines = |tails: &Tails| tails.lines().map(|(_, line)| line.clone()).collect::<Vec<_>>();
        let old: Vec<String> = (0..500).map(|n| format!("old {n}")).collect();
        fs::write(&out, old.join("\n") + "\n").unwrap();
        let mut tails = Tails::default();
        let show = |tails: &mut Tails| tails.follow(Some((0, out.to_str().unwrap(), err.to_str().unwrap())));
        show(&mut tails);
        assert_eq!(lines(&tails), old[400..]);
        // A picture sees none of the two files between.
        let mut expected = old[400..].to_vec();
        for n in 0..3 {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&out).unwrap();
            std::io::Write::write_all(&mut file, format!("new {n}\n").as_bytes()).unwrap();
            expected.push(format!("new {n}"));
            if n < 2 {
                fs::rename(&out, folder.join(format!("a-out__D-{n}.log"))).unwrap();
            }
        }
        tails.read();
        assert_eq!(lines(&tails), expected);
        tails.read();
        show(&mut tails);
        assert_eq!(lines(&tails), expected);
        // Of a flood the last lines are shown, and each is whole.
        let flood = format!("{}\n", "x".repeat(99)).repeat(FLOOD as usize / 100 + 9);
        fs::write(&out, flood).unwrap();
        tails.read();
        let shown = lines(&tails);
        assert!(shown.len() == KEPT && shown.iter().all(|line| line.len() == 99), "{}", shown.len());
        fs::remove_dir_all(folder).unwrap();
    }
}
