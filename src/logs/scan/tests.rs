use super::super::history::Links;
use super::*;
use crate::app::Logs;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pmx-scan-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A file that was last written at this second.
    fn put(&self, name: &str, text: &[u8], second: u64) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        let plain = File::options().write(true).open(&path).unwrap();
        plain.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.0.join("a.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scan(log: &Path, query: &Query, block: usize, rest: bool) -> Scan {
    let history = History::of(log, Links::Followed);
    let end = history.current.as_ref().map_or(0, |file| file.metadata().unwrap().len());
    let times = Times::new(&Logs::default(), Wall(0));
    Scan::new(parts(&history, end, &times, query), Stream::Out, times, block, rest)
}

/// All that is found, and how many bytes are left at the end.
fn found(scan: &mut Scan, query: &Query) -> Vec<(String, u64)> {
    let mut lines = Vec::new();
    while scan.next::<Infallible>(query, &mut || Ok(())).unwrap() {
        lines.push((String::from_utf8_lossy(scan.found()).into_owned(), scan.time.0 / 1_000));
    }
    lines
}

fn texts(log: &Path, query: &Query) -> Vec<String> {
    let mut scan = scan(log, query, 64, false);
    let lines = found(&mut scan, query).into_iter().map(|(text, _)| text).collect();
    assert_eq!(scan.faults, [""; 0]);
    lines
}

fn pattern(text: &str) -> Query {
    Query { pattern: Some(Pattern::fixed(text, false)), ..Query::default() }
}

#[test]
fn whatever_the_block_all_lines_are_found_and_what_has_no_end_is_kept() {
    let folder = Folder::new("blocks");
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut all = Vec::new();
    let mut write = |name: &str, second: u64, end: &str| {
        let lines: Vec<String> =
            (0..100).map(|_| "xy".repeat(random(90) as usize) + &random(9).to_string()).collect();
        folder.put(name, (lines.join("\n") + end).as_bytes(), second);
        all.extend(lines);
    };
    write("a__1.log", 10, "\n");
    write("a__2.log", 20, "");
    write("a.log", 30, "");
    for block in [1, 7, 64, 1_000, 1 << 20] {
        for rest in [false, true] {
            let query = Query::default();
            let mut scan = scan(&folder.log(), &query, block, rest);
            let lines: Vec<String> = found(&mut scan, &query).into_iter().map(|(text, _)| text).collect();
            let expected = if rest { &all[..all.len() - 1] } else { &all[..] };
            assert!(lines == expected, "{block} {rest}: {} of {}", lines.len(), expected.len());
            assert_eq!(scan.rest(), if rest { all.last().unwrap().len() } else { 0 }, "{block}");
            let query = pattern("x3");
            let mut scan = self::scan(&folder.log(), &query, block, rest);
            let lines = found(&mut scan, &query).into_iter().map(|(text, _)| text);
            let expected = expected.iter().filter(|line| line.contains("x3"));
            assert!(lines.eq(expected.cloned()), "{block} {rest}");
        }
    }
}

#[test]
fn lines_without_a_time_are_as_old_as_the_one_before() {
    let folder = Folder::new("times");
    folder.put("a__1.log", b"no time\nin here\n", 1_700_000_000);
    let text = "first of all\n2023-11-14T22:13:30Z one\n  at two\n\n2023-11-14T22:13:40Z three\n  at four\n";
    folder.put("a.log", text.as_bytes(), 1_700_000_050);
    for block in [64, 90, 1 << 20] {
        let query = Query::default();
        let lines = found(&mut scan(&folder.log(), &query, block, false), &query);
        let at: Vec<u64> = lines.iter().map(|line| line.1 - 1_700_000_000).collect();
        assert_eq!(at, [0, 0, 10, 10, 10, 10, 20, 20], "{block}: {lines:?}");
        let query = pattern("at ");
        let lines = found(&mut scan(&folder.log(), &query, block, false), &query);
        let at: Vec<u64> = lines.iter().map(|line| line.1 - 1_700_000_000).collect();
        assert_eq!(at, [10, 20], "{block}: {lines:?}");
    }
    // Also where the one that tells it lies some blocks before.
    let filler = "nothing\n".repeat(30);
    let far = format!("2023-11-14T22:13:20Z a\n{filler}2023-11-14T22:13:30Z b\n{filler}  at last\n");
    folder.put("b.log", far.as_bytes(), 1_700_000_050);
    let query = pattern("at last");
    let lines = found(&mut scan(&folder.0.join("b.log"), &query, 64, false), &query);
    assert_eq!(lines, [("  at last".to_string(), 1_700_000_010)]);
    let between = |since: Option<u64>, until: Option<u64>| {
        let wall = |second: u64| Wall((1_700_000_000 + second) * 1_000);
        let query = Query { since: since.map(wall), until: until.map(wall), ..Query::default() };
        texts(&folder.log(), &query).len()
    };
    assert_eq!([between(None, None), between(Some(0), None), between(Some(1), None)], [8, 8, 6]);
    assert_eq!([between(Some(10), Some(10)), between(Some(11), Some(20)), between(None, Some(9))], [4, 2, 2]);
    assert_eq!(between(Some(21), None), 0);
}

#[test]
fn files_that_lie_outside_are_not_read_at_all() {
    let folder = Folder::new("outside");
    // They would be told of if they were read: they are no gzip.
    folder.put("a__1.log.gz", b"old", 1_000);
    folder.put("a__2.log", b"wanted\n", 2_000);
    folder.put("a__3.log.gz", b"new", 3_000);
    folder.put("a__4.log.gz", b"newer", 4_000);
    let query = Query { since: Some(Wall(1_500_000)), until: Some(Wall(1_900_000)), ..Query::default() };
    assert_eq!(texts(&folder.log(), &query), [""; 0]);
    let query = Query { since: Some(Wall(1_500_000)), until: Some(Wall(2_000_000)), ..Query::default() };
    let mut scan = scan(&folder.log(), &query, 64, false);
    assert_eq!(found(&mut scan, &query), [("wanted".to_string(), 2_000)]);
    // What follows may hold lines of the same time.
    assert_eq!(scan.faults.len(), 1);
    assert!(
        scan.faults[0].ends_with("a__3.log.gz: not gzip") || cfg!(not(feature = "gzip")),
        "{:?}",
        scan.faults
    );
}

#[test]
fn by_level() {
    let folder = Folder::new("level");
    let text = "plain\nWARN careful\n{\"level\":50,\"msg\":\"bad\"}\n[debug] x\n{\"level\":\"fatal\"}\n";
    folder.put("a.log", text.as_bytes(), 10);
    let of = |level| texts(&folder.log(), &Query { level: Some(level), ..Query::default() }).len();
    assert_eq!(
        [of(Level::Trace), of(Level::Info), of(Level::Warn), of(Level::Error), of(Level::Fatal)],
        [5, 4, 3, 2, 1]
    );
    assert_eq!(level(b"plain", Stream::Err, false), Level::Error);
    assert_eq!(level(b"INFO plain", Stream::Err, false), Level::Info);
    let record = br#"{"message":"{\"level\":40,\"msg\":\"x\"}","timestamp":"","type":"err"}"#;
    assert_eq!(
        [level(record, Stream::Err, true), level(record, Stream::Err, false)],
        [Level::Warn, Level::Error]
    );
}

#[test]
fn a_line_that_is_too_long_comes_in_pieces_and_the_memory_is_bounded() {
    let folder = Folder::new("long");
    let long = vec![b'x'; 3 * LINE_LIMIT + 5];
    folder.put("a.log", &[&long[..], b"\nend\n"].concat(), 10);
    let query = Query::default();
    let mut scan = scan(&folder.log(), &query, 64, false);
    let lines = found(&mut scan, &query);
    assert_eq!(lines.iter().map(|line| line.0.len()).sum::<usize>(), long.len() + 3);
    assert_eq!(lines.last().unwrap().0, "end");
    assert!(scan.bytes.len() <= LINE_LIMIT);
}
