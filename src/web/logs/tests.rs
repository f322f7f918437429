use super::*;
use crate::app::Logs;
use crate::logs::pattern::Pattern;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pmx-web-logs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A file that was last written at this second.
    fn put(&self, name: &str, text: &str, second: u64) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        path
    }

    fn source(&self, name: &str) -> Source {
        let (path, times) = (self.0.join(format!("{name}.log")), Times::new(&Logs::default(), Wall(0)));
        Source { ids: vec![1], name: name.to_string(), stream: Stream::Out, path, times }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wanted(count: u64, query: Query) -> Wanted {
    Wanted { count, stream: None, query }
}

fn with(text: &str) -> Query {
    Query { pattern: Some(Pattern::fixed(text, true)), ..Query::default() }
}

/// All that is found, and in how many steps.
fn found(sources: Vec<Source>, wanted: Wanted, is_followed: bool) -> (Vec<Line>, Vec<Followed>, usize) {
    let mut search = Search::through(sources, wanted, is_followed);
    let mut steps = 1;
    while !search.step() {
        steps += 1;
    }
    assert_eq!(search.fault, None);
    let (lines, files) = search.end();
    (lines, files, steps)
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn the_last_lines_come_from_as_many_files_as_they_are_in() {
    let folder = Folder::new("last");
    folder.put("a__A.log", "1\n2\n", 1_000);
    let plain = folder.put("a__B.log", "3\n4\r\n", 2_000);
    if cfg!(feature = "gzip") {
        #[cfg(feature = "gzip")]
        crate::logs::gzip::pack(&plain, &folder.0.join("a__B.log.gz")).unwrap();
        fs::remove_file(&plain).unwrap();
    }
    folder.put("a.log", "5\n\n7", 3_000);
    let all = ["1", "2", "3", "4", "5", "", "7"];
    for count in 1..9 {
        let (lines, ..) = found(vec![folder.source("a")], wanted(count, Query::default()), false);
        assert_eq!(texts(&lines), all[all.len().saturating_sub(count as usize)..], "{count}");
    }
    // Of each log so many, one after the other.
    folder.put("b.log", "x\ny\n", 1);
    let sources = vec![folder.source("a"), folder.source("b")];
    let (lines, ..) = found(sources, wanted(2, Query::default()), false);
    assert_eq!(texts(&lines), ["", "7", "x", "y"]);
    // What is not ended yet comes when it is, if the log is followed.
    let (mut lines, mut files, _) = found(vec![folder.source("a")], wanted(3, Query::default()), true);
    assert_eq!(texts(&lines), ["4", "5", ""]);
    let path = folder.0.join("a.log");
    let append = |path: &Path, text: &str| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(&path, " is over\n8\n");
    // Two files come and go between two looks.
    for n in 0..2 {
        fs::rename(&path, folder.0.join(format!("a__C-{n}.log"))).unwrap();
        append(&path, &format!("in {n}\n"));
    }
    lines.clear();
    while files[0].look(&mut lines, Wall(0)) != Look::Idle {}
    assert_eq!(texts(&lines), ["7 is over", "8", "in 0", "in 1"]);
}

#[test]
fn lines_that_are_asked_for_come_in_the_order_of_their_times() {
    let folder = Folder::new("search");
    let at = |second: u64| format!("2026-01-01T00:00:{second:02}Z");
    folder.put("a__A.log", &format!("{} Needle a\n{} hay\n", at(1), at(2)), 1_767_225_602);
    folder.put("a.log", &format!("{} needle c\n  needle of c\n{} needle e\n", at(5), at(9)), 1_767_225_609);
    folder.put("b.log", &format!("{} needle b\n{} needle d\n", at(3), at(7)), 1_767_225_607);
    let ask = |count, query| {
        let (lines, ..) = found(vec![folder.source("a"), folder.source("b")], wanted(count, query), false);
        lines.iter().map(|line| line.text.rsplit(' ').next().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ask(9, with("NEEDLE")), ["a", "b", "c", "c", "d", "e"]);
    assert_eq!(ask(3, with("NEEDLE")), ["c", "d", "e"]);
    let second = |second: u64| Some(Wall(1_767_225_600_000 + second * 1_000));
    assert_eq!(ask(9, Query { since: second(3), until: second(5), ..Query::default() }), ["b", "c", "c"]);
    let (lines, ..) = found(vec![folder.source("b")], wanted(1, with("d")), false);
    assert_eq!(Some(lines[0].at), second(7));
}

#[test]
fn however_long_logs_are_a_step_is_short_and_what_is_kept_is_little() {
    let folder = Folder::new("long");
    let line = format!("{}\n", "x".repeat(1_023));
    let mib = line.repeat(1_024);
    folder.put("a__A.log", &mib.repeat(4), 1_000);
    folder.put("a.log", &format!("{}needle\n{mib}", mib.repeat(4)), 2_000);
    // It looks no further back than it has to.
    let (lines, _, steps) = found(vec![folder.source("a")], wanted(1, with("needle")), false);
    assert_eq!((lines.len(), (20..26).contains(&steps)), (1, true), "{steps} steps");
    let (lines, _, steps) = found(vec![folder.source("a")], wanted(2, with("needle")), false);
    assert_eq!((lines.len(), (36..46).contains(&steps)), (1, true), "{steps} steps");
    let (lines, _, steps) = found(vec![folder.source("a")], wanted(500, Query::default()), false);
    assert!(lines.len() == 500 && steps <= 3, "{steps} steps");
    let (lines, ..) =
        found((0..4).map(|_| folder.source("a")).collect(), wanted(9_999, Query::default()), false);
    let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
    assert!((KEPT - (1 << 20)..=KEPT).contains(&bytes), "{bytes}");
    // A line that is too long comes in pieces.
    folder.put("b.log", &"y".repeat(LINE_LIMIT + 1), 1);
    let (lines, ..) = found(vec![folder.source("b")], wanted(1, Query::default()), false);
    assert_eq!(lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(), [LINE_LIMIT, 1]);
}
