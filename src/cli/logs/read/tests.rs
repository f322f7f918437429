use super::super::print::Form;
use super::*;
use crate::app::Logs;
use crate::cli::screen::Screen;
use crate::logs::Stream;
use std::path::{Path, PathBuf};

fn source(folder: &Path, n: usize) -> Source {
    let times = Times::new(&Logs::default(), Wall(0));
    let name = format!("app{n}");
    let path = folder.join(format!("{name}.log"));
    Source { path, label: name.clone(), name, id: Some(n as u32), stream: Stream::Out, times }
}

/// What a search prints.
fn searched(sources: &[Source], query: &Query, count: Option<u64>) -> Vec<String> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen { out: &mut out, err: &mut err, width: None, color: false, silent: false };
    let mut printer =
        Printer { screen: &mut screen, form: Form::Usual, width: 0, date: None, highlight: None };
    search(&mut printer, sources.to_vec(), query, count, true).unwrap();
    assert_eq!(err, b"");
    String::from_utf8(out).unwrap().lines().map(String::from).collect()
}

#[test]
fn several_logs_come_in_the_order_of_their_times_and_each_in_its_own() {
    let folder: PathBuf = std::env::temp_dir().join(format!("pmx-merge-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut seed = 3u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..20 {
        let mut all: Vec<(u64, usize, String)> = Vec::new();
        let sources: Vec<Source> = (0..5).map(|n| source(&folder, n)).collect();
        for (n, source) in sources.iter().enumerate() {
            let (mut at, mut text) = (1_700_000_000_000, String::new());
            for line in 0..random(60) {
                // Many have the same time, and some tell none.
                let tells = line == 0 || random(4) > 0;
                at += if tells { random(3) * 1_000 } else { 0 };
                let line =
                    if tells { format!("{} line {line}", Wall(at)) } else { format!("  {line} goes on") };
                text += &format!("{line}\n");
                all.push((at, n, format!("app{n} | {line}")));
            }
            std::fs::write(&source.path, text).unwrap();
        }
        // A stable sort, because each log is in order by itself.
        all.sort_by_key(|line| (line.0, line.1));
        let lines = |wanted: &dyn Fn(&(u64, usize, String)) -> bool| {
            all.iter().filter(|line| wanted(line)).map(|line| line.2.clone()).collect::<Vec<_>>()
        };
        assert_eq!(searched(&sources, &Query::default(), None), lines(&|_| true));
        let since = 1_700_000_010_000 + random(20) * 1_000;
        let query = Query { since: Some(Wall(since)), ..Query::default() };
        let expected = lines(&|line| line.0 >= since);
        assert_eq!(searched(&sources, &query, None), expected);
        let last = expected.len().saturating_sub(7);
        assert_eq!(searched(&sources, &query, Some(7)), expected[last..]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn of_the_last_lines_as_many_are_kept_as_memory_allows() {
    let mut last = Last { count: Some(100), lines: VecDeque::new(), bytes: 0, lost: 0 };
    for n in 0..200 {
        last.keep(0, Wall(n), &vec![b'x'; 1 << 20]);
    }
    assert_eq!((last.lines.len(), last.bytes, last.lost), (64, KEPT, 36));
    let mut last = Last { count: Some(2), lines: VecDeque::new(), bytes: 0, lost: 0 };
    for n in 0..9 {
        last.keep(0, Wall(n), b"x");
    }
    assert_eq!((last.lines.len(), last.bytes, last.lost), (2, 2, 0));
}

#[test]
fn what_stands_out_does_so_where_there_are_colours() {
    let source = source(Path::new("/"), 7);
    for (color, expected) in
        [(true, "\x1b[32mapp7 |\x1b[39m \x1b[7ma b\x1b[27m \\x1b\n"), (false, "app7 | a b \\x1b\n")]
    {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen { out: &mut out, err: &mut err, width: None, color, silent: false };
        let highlight = Some("a b".to_string());
        let mut printer = Printer { screen: &mut screen, form: Form::Usual, width: 0, date: None, highlight };
        printer.print(&source, &source.times, b"a b \x1b", Wall(0)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
