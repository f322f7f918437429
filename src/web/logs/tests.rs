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

const DEADLINE: Mono = Mono(1_000);

/// All that is found, and in how many steps.
fn found(sources: Vec<Source>, wanted: Wanted, is_followed: bool) -> (Vec<Line>, Vec<Followed>, usize) {
    let mut search = Search::through(sources, wanted, is_followed, DEADLINE);
    let mut steps = 1;
    while !search.step(Mono(0)) {
        steps += 1;
    }
    let End { lines, files, read_back_to, faults } = search.end();
    assert_eq!((read_back_to, faults), (None, Vec::new()));
    (lines, files, steps)
}

/// What is found in so many steps.
fn found_until(sources: Vec<Source>, wanted: Wanted, steps: usize) -> End {
    let mut search = Search::through(sources, wanted, false, DEADLINE);
    for _ in 0..steps {
        if search.step(Mono(0)) {
            return search.end();
        }
    }
    while !search.step(DEADLINE) {}
    search.end()
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
    assert_eq!((lines.len(), (16..20).contains(&steps)), (1, true), "{steps} steps");
    let (lines, _, steps) = found(vec![folder.source("a")], wanted(2, with("needle")), false);
    assert_eq!((lines.len(), (36..46).contains(&steps)), (1, true), "{steps} steps");
    let (lines, _, steps) = found(vec![folder.source("a")], wanted(500, Query::default()), false);
    assert!(lines.len() == 500 && steps <= 3, "{steps} steps");
    for query in [Query::default(), with("x")] {
        let sources = (0..4).map(|_| folder.source("a")).collect();
        let End { lines, read_back_to, .. } = found_until(sources, wanted(9_999, query), usize::MAX);
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        assert!((KEPT - (1 << 20)..=KEPT).contains(&bytes), "{bytes}");
        assert_eq!(read_back_to, Some(lines[0].at), "it tells that there is more");
    }
    // A line that is too long comes in pieces.
    folder.put("b.log", &"y".repeat(LINE_LIMIT + 1), 1);
    let (lines, ..) = found(vec![folder.source("b")], wanted(1, Query::default()), false);
    assert_eq!(lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(), [LINE_LIMIT, 1]);
}

const SECOND: u64 = 1_767_225_600;

/// Lines of so many seconds, of a kibibyte each, with a needle each `every` of them.
fn timed(from: u64, count: u64, every: u64) -> String {
    let word = |second| if second % every == 0 { "needle" } else { "hay" };
    let line = |second| format!("{} {} {second:01000}\n", Wall((SECOND + second) * 1_000), word(second));
    (from..from + count).map(line).collect()
}

#[test]
fn a_search_that_is_late_tells_how_far_back_it_came_and_goes_on_from_there() {
    let folder = Folder::new("late");
    folder.put("a__A.log", &timed(0, 3_000, 500), SECOND + 2_999);
    let plain = folder.put("a__B.log", &timed(3_000, 3_000, 500), SECOND + 5_999);
    #[cfg(feature = "gzip")]
    {
        crate::logs::gzip::pack(&plain, &folder.0.join("a__B.log.gz")).unwrap();
        fs::remove_file(&plain).unwrap();
    }
    let _ = plain;
    // Three pieces, and another log beside.
    folder.put("a.log", &timed(6_000, 24_000, 500), SECOND + 29_999);
    folder.put("b.log", &timed(10_000, 5_000, 400), SECOND + 14_999);
    let sources = || vec![folder.source("a"), folder.source("b")];
    let text = |line: &Line| (line.at, line.name.clone(), line.text.clone());
    let (all, _, steps) = found(sources(), wanted(500, with("needle")), false);
    assert_eq!(all.len(), 60 + 13);
    for budget in [60, 80, 100, steps - 10] {
        let mut until = None;
        let mut lines = Vec::new();
        for round in 0.. {
            let query = Query { until, ..with("needle") };
            let End { lines: found, read_back_to, .. } = found_until(sources(), wanted(500, query), budget);
            let kept = found.iter().filter(|line| read_back_to.is_none_or(|time| line.at > time));
            lines.splice(0..0, kept.map(text));
            if read_back_to.is_none() {
                assert!(round > 0, "{budget} steps are not enough for all");
                break;
            }
            assert!(until.is_none() || read_back_to < until, "it goes on");
            until = read_back_to;
        }
        assert!(
            lines == all.iter().map(text).collect::<Vec<_>>(),
            "in {budget} steps: {} lines",
            lines.len()
        );
    }
    // What is older than all that is wanted, or than what is asked for, need not be looked at.
    folder.put("c.log", &timed(40_000, 10, 2), SECOND + 40_009);
    folder.put("d.log", &timed(1, 20_000, 1 << 40), SECOND + 20_000);
    let since = Some(Wall((SECOND + 19_000) * 1_000));
    for (count, since, is_all) in [(5, None, true), (6, None, false), (6, since, true)] {
        let query = Query { since, ..with("needle") };
        let sources = vec![folder.source("c"), folder.source("d")];
        let End { lines, read_back_to, .. } = found_until(sources, wanted(count, query), 25);
        assert_eq!((lines.len(), read_back_to.is_none()), (5, is_all), "{count} since {since:?}");
    }
    // No time at all: nothing is found, and nothing is said to be.
    let found = found_until(sources(), wanted(9, with("needle")), 0);
    assert!(found.lines.is_empty());
    let json = found.json();
    let newest = Wall((SECOND + 29_999) * 1_000).to_string();
    assert_eq!((&json["complete"], &json["read_back_to"]), (&json!(false), &json!(newest)));
}

#[test]
fn where_time_is_short_short_logs_come_whole_and_long_ones_share_it() {
    let folder = Folder::new("short");
    let needle = |second: u64| format!("{} needle\n", Wall((SECOND + second) * 1_000));
    for (name, count) in [("a", 20_000), ("b", 3), ("c", 30_000)] {
        folder.put(&format!("{name}.log"), &(timed(1, count, 1 << 40) + &needle(40_000)), SECOND + 40_000);
    }
    folder.put("b__A.log", &needle(1), SECOND + 1);
    let sources = ["a", "b", "c"].map(|name| folder.source(name)).into();
    // In a hundred steps each of the two long ones comes some way.
    let mut search = Search::through(sources, wanted(9, with("needle")), false, DEADLINE);
    let mut now = 0;
    while !search.step(Mono(now)) {
        now += 25;
    }
    assert!((900..1_100).contains(&now), "{now}");
    let End { lines, files, read_back_to, .. } = search.end();
    let found: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.at.0 / 1_000 - SECOND)).collect();
    assert_eq!(found, [("b", 1), ("a", 40_000), ("b", 40_000), ("c", 40_000)]);
    assert_eq!(files.iter().map(|file| file.source.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(read_back_to.is_some());
}

#[test]
fn what_cannot_be_read_is_told() {
    let folder = Folder::new("faults");
    folder.put("a.log", "1\n2\n", 3_000);
    for n in 0..2 {
        let path = folder.0.join(format!("a__{n}.log"));
        std::os::unix::fs::symlink(&path, &path).unwrap();
    }
    folder.put("a__C.log.gz", "this is not what it says", 1_000);
    let found = found_until(vec![folder.source("a")], wanted(9, Query::default()), usize::MAX);
    assert_eq!(texts(&found.lines), ["1", "2"]);
    let json = found.json();
    assert_eq!((&json["complete"], json.get("read_back_to")), (&json!(true), None));
    let [one, two, packed] = &found.faults[..] else { panic!("{:?}", found.faults) };
    let name = |name: &str| folder.0.join(name).display().to_string();
    assert!(one.starts_with(&format!("open {}: ", name("a__0.log"))), "{one}");
    assert!(two.starts_with(&format!("open {}: ", name("a__1.log"))), "{two}");
    assert!(packed.starts_with(&format!("read {}: ", name("a__C.log.gz"))), "{packed}");
    assert_eq!(json["faults"], json!(found.faults));
}
