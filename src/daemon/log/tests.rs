use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;
use crate::app::{Format, Logs, Rotation, Text};
use crate::sys::board;
use crate::time::Wall;

const OF: (ChildId, Stream) = (ChildId(3), Stream::Stdout);

/// What outlives a daemon.
struct Board {
    copy: &'static board::Copy,
    work: &'static board::Work,
    lines: File,
}

impl Board {
    fn new() -> Board {
        Board {
            copy: Box::leak(Box::default()),
            work: Box::leak(Box::default()),
            lines: File::from(pipe::memory("lines").unwrap()),
        }
    }
}

fn desk() -> Desk {
    let bytes = Box::leak(vec![0; COPY].into_boxed_slice());
    Desk::of(Box::leak(Box::default()), Box::leak(Box::default()), bytes, Shelf::on(None), rules())
}

fn rules() -> Rules {
    Rules::of(Path::new(""))
}

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pmx-log-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn output(pipe: OwnedFd, path: &Path, logs: Logs, desk: &mut Desk) -> Output {
    let plan =
        Plan { path: Some(Text::from(path)), logs: logs.into(), name: "api".into(), ..Plan::default() };
    let file = open(path).unwrap();
    Output::new(pipe, To::Files(Box::new(Writer::new(OF.1, plan, file, None, &mut desk.shelf))))
}

fn dated() -> Logs {
    let rotation = Rotation { enabled: Some(false), ..Rotation::default() };
    Logs { date: Some("[t]".to_string()), rotation, ..Logs::default() }
}

#[test]
fn a_flood_is_moved_in_budgets_and_a_quiet_pipe_is_not_kept_waiting() {
    let (read, write) = pipe::pipe().unwrap();
    let path = path("flood");
    let mut desk = desk();
    let mut output = output(read, &path, Logs::default(), &mut desk);
    let mut tail = Tail::default();
    let mut visit = |output: &mut Output, now| output.visit(Mono(now), OF, &mut desk, &mut tail).0;
    let mut writer = File::from(write);
    writer.write_all(b"quiet\n").unwrap();
    assert_eq!(visit(&mut output, 10), Visit::Open(Progress::Drained));
    assert_eq!(fs::read(&path).unwrap(), b"quiet\n", "written within the same visit");
    writer.write_all(&[b'x'; 40 << 10]).unwrap();
    assert_eq!(visit(&mut output, 1_000), Visit::Open(Progress::Rest(Mono(1_000) + pace::GATHER)));
    writer.write_all(b"\nlast\n").unwrap();
    drop(writer);
    assert_eq!(visit(&mut output, 2_000), Visit::Closed);
    assert_eq!(fs::metadata(&path).unwrap().len(), 6 + (40 << 10) + 6);
    assert_eq!(tail.lines().last().unwrap(), "last");
    assert_eq!(desk.left(), None);
    fs::remove_file(&path).unwrap();
}

#[test]
fn l07_the_beginning_of_a_line_waits_for_its_end_and_not_for_ever() {
    let (read, write) = pipe::pipe().unwrap();
    let path = path("unfinished");
    let mut desk = desk();
    let mut output = output(read, &path, dated(), &mut desk);
    let mut writer = File::from(write);
    let mut say = |output: &mut Output, text: &str, now| {
        writer.write_all(text.as_bytes()).unwrap();
        let _ = output.visit(Mono(now), OF, &mut desk, &mut Tail::default());
        output.writer().unwrap().deadline()
    };
    let text = || fs::read_to_string(&path).unwrap();
    assert_eq!(say(&mut output, "whole\nna", 1_000), Some(Mono(1_500)));
    assert_eq!(text(), "t: whole\n");
    assert_eq!(say(&mut output, "me? ", 1_200), Some(Mono(1_700)));
    assert_eq!(say(&mut output, "yes\nname? ", 1_300), Some(Mono(1_800)));
    assert_eq!(text(), "t: whole\nt: name? yes\n");
    let mut desk = self::desk();
    assert!(!output.on_time(Mono(1_800), OF, &mut desk));
    assert_eq!(output.writer().unwrap().deadline(), None);
    assert_eq!(text(), "t: whole\nt: name? yes\nt: name? \n");
    writer.write_all(b"joe\nlast").unwrap();
    drop(writer);
    assert_eq!(output.visit(Mono(3_000), OF, &mut desk, &mut Tail::default()).0, Visit::Closed);
    output.end(Mono(3_000), OF, &mut desk);
    assert_eq!(text(), "t: whole\nt: name? yes\nt: name? \nt: ... joe\nt: last\n");
    fs::remove_file(&path).unwrap();
}

/// A daemon dies at every point between the read and the end of the write; the next one finishes it.
#[test]
fn what_a_dead_daemon_had_read_is_in_the_file_once() {
    let path = path("finish");
    let line = b"a line that was on its way\nand ano";
    let json = Logs { format: Format::Json, ..Logs::default() };
    for logs in [Logs::default(), dated(), json] {
        for before in [&b""[..], b"earlier\n", b"a line that was on its way\n"] {
            let expected = {
                fs::write(&path, before).unwrap();
                let (read, write) = pipe::pipe().unwrap();
                let mut desk = desk();
                let mut output = output(read, &path, logs.clone(), &mut desk);
                File::from(write).write_all(line).unwrap();
                let work = output.writer_mut().unwrap().plan_work(Kind::Write, Mono(1), &mut desk).0;
                desk.clock.set(Wall(5_000));
                desk.begin(OF, &work, line.len());
                desk.read(output.pipe.as_fd(), line.len()).unwrap();
                output.writer_mut().unwrap().write(&work, line.len(), Mono(1), &mut desk);
                fs::read(&path).unwrap()
            };
            for written in before.len()..=expected.len() {
                for shelved in [false, true] {
                    if shelved && (written < expected.len() || logs == Logs::default()) {
                        continue;
                    }
                    fs::write(&path, before).unwrap();
                    let board = Board::new();
                    let shelf = || Shelf::on(Some(board.lines.try_clone().unwrap()));
                    let (read, write) = pipe::pipe().unwrap();
                    File::from(write).write_all(line).unwrap();
                    let bytes = Box::leak(vec![0; COPY].into_boxed_slice());
                    let mut desk = Desk::of(board.copy, board.work, bytes, shelf(), rules());
                    let mut first = output(read, &path, logs.clone(), &mut desk);
                    let work = first.writer_mut().unwrap().plan_work(Kind::Write, Mono(1), &mut desk).0;
                    desk.clock.set(Wall(5_000));
                    desk.begin(OF, &work, line.len());
                    assert_eq!(desk.read(first.pipe.as_fd(), line.len()).unwrap(), line.len());
                    if shelved {
                        let writer = first.writer_mut().unwrap();
                        writer.write(&work, line.len(), Mono(1), &mut desk);
                    } else {
                        let mut file = File::options().append(true).open(&path).unwrap();
                        file.write_all(&expected[before.len()..written]).unwrap();
                    }
                    // The next daemon: other values, the same file and the same board.
                    let (pipe, record) = (first.pipe.try_clone().unwrap(), first.writer().unwrap().record());
                    let fd = open_fd(&path);
                    let bytes = desk.bytes.to_vec();
                    let mut next = Desk::of(
                        board.copy,
                        board.work,
                        Box::leak(bytes.into_boxed_slice()),
                        shelf(),
                        rules(),
                    );
                    let writer = Writer::restore(OF.1, fd, record, &mut next.shelf, Mono(2));
                    let mut second = Output::new(pipe, To::Files(Box::new(writer)));
                    assert_eq!(next.left(), Some(OF));
                    second.finish(Mono(2), OF, &mut next);
                    assert_eq!(next.left(), None);
                    let found = fs::read(&path).unwrap();
                    assert_eq!(found, expected, "{logs:?} {written} {}", String::from_utf8_lossy(&found));
                    // What is no whole line is there as well.
                    second.end(Mono(3), OF, &mut next);
                    let text = fs::read_to_string(&path).unwrap();
                    assert_eq!(text.matches("and ano").count(), 1, "{text}");
                }
            }
        }
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_was_not_read_is_in_the_pipe_still() {
    let path = path("unread");
    let (read, write) = pipe::pipe().unwrap();
    let mut desk = desk();
    let mut output = output(read, &path, Logs::default(), &mut desk);
    File::from(write).write_all(b"a line\n").unwrap();
    let work = output.writer_mut().unwrap().plan_work(Kind::Write, Mono(1), &mut desk).0;
    desk.begin(OF, &work, 7);
    output.finish(Mono(2), OF, &mut desk);
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(output.visit(Mono(9), OF, &mut desk, &mut Tail::default()).0, Visit::Closed);
    assert_eq!(fs::read(&path).unwrap(), b"a line\n");
    fs::remove_file(&path).unwrap();
}

/// What is due and cannot be rotated, or need not be, is due another time: nobody is kept busy by it.
#[test]
fn l06_what_is_not_rotated_now_has_its_turn_later() {
    let path = path("later");
    let every = Rotation { every: Some("1s".to_string()), ..Rotation::default() };
    let logs = Logs { rotation: every, ..Logs::default() };
    let (read, write) = pipe::pipe().unwrap();
    let mut desk = desk();
    let mut output = output(read, &path, logs, &mut desk);
    let mut writer = File::from(write);
    let visit = |output: &mut Output, desk: &mut Desk, now| {
        let _ = output.visit(Mono(now), OF, desk, &mut Tail::default());
        output.writer().unwrap().deadline().unwrap().0
    };
    writer.write_all(b"no end").unwrap();
    // Nobody reads a clock here but the desk: each look comes as late as it likes.
    let look = |output: &mut Output, desk: &mut Desk, after: u64, now: u64| {
        desk.clock.set(Wall(desk.clock.wall.0 + after));
        let writer = output.writer_mut().unwrap();
        writer.turn(Mono(now), desk);
        writer.deadline().unwrap().0
    };
    let first = visit(&mut output, &mut desk, 1_000);
    assert!((1_001..=2_000).contains(&first), "{first}");
    let later = look(&mut output, &mut desk, 2_000, 10_000);
    assert!(later > 60_000, "a line without an end is not cut: {later}");
    assert!(desk.turned.is_empty());
    writer.write_all(b"\n").unwrap();
    visit(&mut output, &mut desk, 70_000);
    let next = look(&mut output, &mut desk, 120_000, 140_000);
    assert_eq!(desk.turned.len(), 1);
    assert!((140_001..=141_000).contains(&next), "{next}");
    // It is empty now.
    for now in [150_000, 160_000] {
        let next = look(&mut output, &mut desk, 2_000, now);
        assert!((now + 1..=now + 1_000).contains(&next), "{next}");
    }
    assert_eq!(desk.turned.len(), 1);
    let (name, folder) = (path.file_name().unwrap().to_string_lossy().into_owned(), path.parent().unwrap());
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
