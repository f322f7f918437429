use super::*;
use std::fs;
use std::io::Write;

struct Log {
    folder: PathBuf,
    rotated: u32,
}

impl Log {
    fn new(name: &str) -> Log {
        let folder = std::env::temp_dir().join(format!("pmx-follow-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Log { folder, rotated: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("a.log")
    }

    fn append(&self, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(&mut self) -> PathBuf {
        self.rotated += 1;
        let old = self.folder.join(format!("a__2026-01-01_00-00-{:02}.log", self.rotated));
        fs::rename(self.path(), &old).unwrap();
        old
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All that comes now, and in how many looks.
fn comes(followed: &mut Followed, budget: usize) -> (Vec<String>, usize) {
    let (mut lines, mut looks) = (Vec::new(), 0);
    loop {
        looks += 1;
        let mut emit = |line: &[u8]| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok::<_, String>(())
        };
        if followed.look(budget, &mut emit).unwrap() == Look::Idle {
            return (lines, looks);
        }
    }
}

#[test]
fn files_that_came_and_went_unseen_are_read_once_and_in_their_order() {
    let mut log = Log::new("unseen");
    log.append("before\n");
    let mut followed = Followed::new(&log.path(), Links::Followed);
    assert_eq!(comes(&mut followed, CHUNK).0, ["before"]);
    let mut expected = Vec::new();
    for round in 0..20 {
        // None to three rotations between two looks, of which some are compressed at once.
        for part in 0..round % 4 {
            log.append(&format!("{round} {part} end\n"));
            expected.push(format!("{round} {part} end"));
            let old = log.rotate();
            if cfg!(feature = "gzip") && part == 1 {
                #[cfg(feature = "gzip")]
                crate::logs::gzip::pack(&old, &old.with_extension("log.gz")).unwrap();
                fs::remove_file(old).unwrap();
            }
        }
        log.append(&format!("{round} goes on\n"));
        expected.push(format!("{round} goes on"));
        assert_eq!(comes(&mut followed, CHUNK).0, expected, "round {round}");
        expected.clear();
    }
    assert!(followed.faults.is_empty(), "{:?}", followed.faults);
}

#[test]
fn a_look_reads_no_more_than_its_budget_wherever_the_lines_are() {
    let mut log = Log::new("budget");
    log.append("0\n");
    let mut followed = Followed::new(&log.path(), Links::Followed);
    let text: Vec<String> = (1..=3 * CHUNK / 8).map(|n| format!("{n:07}")).collect();
    log.append(&format!("{}\n", text.join("\n")));
    log.rotate();
    log.append(&format!("{}\n", text.join("\n")));
    log.rotate();
    log.append("last\n");
    let (lines, looks) = comes(&mut followed, CHUNK);
    assert!(lines[0] == "0" && lines[1..=text.len()] == text[..] && lines[lines.len() - 1] == "last");
    assert_eq!(lines[1 + text.len()..lines.len() - 1], text[..]);
    assert!(looks >= 7, "{looks} looks");
}

#[test]
fn who_still_writes_to_the_file_before_is_heard_and_keeps_nobody_waiting() {
    let mut log = Log::new("left");
    log.append("one\nbegun");
    let mut followed = Followed::new(&log.path(), Links::Followed);
    assert_eq!(comes(&mut followed, CHUNK).0, ["one"]);
    let old = log.rotate();
    log.append("new\n");
    assert_eq!(comes(&mut followed, CHUNK).0, ["new"]);
    fs::OpenOptions::new().append(true).open(&old).unwrap().write_all(b" and ended\nlate\n").unwrap();
    assert_eq!(comes(&mut followed, CHUNK).0, ["begun and ended", "late"]);
    log.append("newer\n");
    assert_eq!(comes(&mut followed, CHUNK).0, ["newer"]);
}

#[test]
fn a_link_leads_nowhere_where_that_is_not_wanted() {
    let log = Log::new("links");
    let elsewhere = log.folder.join("secret");
    fs::write(&elsewhere, "secret\n").unwrap();
    std::os::unix::fs::symlink(&elsewhere, log.path()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, log.folder.join("a__D.log")).unwrap();
    assert_eq!(comes(&mut Followed::new(&log.path(), Links::Followed), CHUNK).0, ["secret"]);
    let mut followed = Followed::new(&log.path(), Links::Refused);
    assert!(comes(&mut followed, CHUNK).0.is_empty());
    let history = History::of(&log.path(), Links::Refused);
    assert!(history.current.is_none() && history.old.is_empty() && history.faults.len() == 1);
    fs::remove_file(log.path()).unwrap();
    log.append("a log\n");
    assert_eq!(comes(&mut followed, CHUNK).0, ["a log"]);
}
