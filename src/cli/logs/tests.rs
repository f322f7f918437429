use super::super::jlist::tests::detail;
use super::super::testing::{FakeDaemon, TestHome, run_line};
use crate::cli::{Run, Screen, run_with};
use crate::protocol::{Answer, Detail, Message, Verb};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Two processes, `api` (3) and `worker` (4), with files in the home.
fn daemon(home: &TestHome) -> FakeDaemon {
    let root = home.home.path.clone();
    FakeDaemon::start(&home.home, move |request, _| {
        let one = |id: u32, name: &str| {
            let mut detail = detail();
            detail.view.id = id;
            detail.view.name = name.to_string();
            let file = |stream| root.join(format!("{name}-{stream}.log")).to_string_lossy().into_owned();
            Detail { out_file: file("out"), error_file: file("error"), ..detail }
        };
        let all = vec![one(4, "worker"), one(3, "api")];
        let answer = match &request.verb {
            Verb::List => Answer::List(all.into_iter().map(|detail| detail.view).collect()),
            Verb::Describe { targets } if targets == &["api"] => Answer::Details(vec![one(3, "api")]),
            _ => Answer::Details(all),
        };
        Message::Done { id: request.id, answer }
    })
}

fn write(home: &TestHome, name: &str, text: &str) {
    std::fs::write(home.home.path.join(name), text).unwrap();
}

#[test]
fn the_last_lines_come_with_header_and_prefix() {
    let home = TestHome::new("logs-tail");
    let _daemon = daemon(&home);
    write(&home, "api-out.log", "one\ntwo\nthree \x1b[2J\n");
    write(&home, "api-error.log", "oops");
    write(&home, "pmx.log", "daemon up\n");
    write(&home, "worker-out.log", "");
    let path = home.home.path.display();
    let (code, out, err) = run_line(&home.caller, &["logs", "--nostream", "--lines", "2"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let expected = format!(
        "[TAILING] Tailing last 2 lines for [all] processes (change the value with --lines option)\n\
         {path}/pmx.log last 2 lines:\npmx        | daemon up\n\
         {path}/api-out.log last 2 lines:\n3|api      | two\n3|api      | three \\x1b[2J\n\
         {path}/api-error.log last 2 lines:\n3|api      | oops\n"
    );
    assert_eq!(out, expected);
    let (_, out, err) = run_line(&home.caller, &["logs", "api", "--nostream", "--raw"]);
    assert_eq!((out.as_str(), err.as_str()), ("one\ntwo\nthree \x1b[2J\n", "oops\n"));
    let (_, out, err) = run_line(&home.caller, &["logs", "api", "--nostream", "--raw", "--err"]);
    assert_eq!((out.as_str(), err.as_str()), ("", "oops\n"));
    let (_, out, _) = run_line(&home.caller, &["logs", "--nostream", "--raw", "--out", "--lines", "1"]);
    assert_eq!(out, "three \x1b[2J\n");
}

/// Hands on each line; a reader that is gone is a closed pipe.
struct Pipe(Sender<String>, Vec<u8>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        while let Some(at) = self.1.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.1.drain(..=at).collect();
            let line = String::from_utf8(line).unwrap().trim_end().to_string();
            self.0.send(line).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn expect(lines: &Receiver<String>, expected: &str) {
    let line = lines.recv_timeout(Duration::from_secs(10));
    assert_eq!(line.as_deref(), Ok(expected));
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn files_are_followed_through_truncation_and_replacement() {
    let home = TestHome::new("logs-follow");
    let _daemon = daemon(&home);
    write(&home, "api-out.log", "old\nbefore\n");
    let (sender, lines) = channel();
    let caller = home.caller.clone();
    let thread = std::thread::spawn(move || {
        let (mut out, mut err) = (Pipe(sender, Vec::new()), Vec::new());
        let mut screen = Screen { out: &mut out, err: &mut err, width: None, color: false, silent: false };
        run_with(["logs", "api", "--lines", "1", "-s"].map(OsString::from), &caller, &mut screen)
    });
    let (out, error) = (home.home.path.join("api-out.log"), home.home.path.join("api-error.log"));
    expect(&lines, "3|api      | before");
    append(&out, "first\nsec");
    expect(&lines, "3|api | first");
    append(&out, "ond\n");
    expect(&lines, "3|api | second");
    append(&error, "a file that was not there\n");
    expect(&lines, "3|api | a file that was not there");
    std::fs::OpenOptions::new().write(true).open(&out).unwrap().set_len(0).unwrap();
    append(&out, "emptied\n");
    expect(&lines, "3|api | emptied");
    std::fs::rename(&out, home.home.path.join("rotated.log")).unwrap();
    append(&out, "made anew\n");
    expect(&lines, "3|api | made anew");
    append(&out, "and on\n");
    expect(&lines, "3|api | and on");
    append(&out, "a question? ");
    expect(&lines, "3|api | a question?");
    // Nobody reads any more: that ends it, and is no failure.
    drop(lines);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !thread.is_finished() && Instant::now() < deadline {
        append(&out, "x\n");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(thread.join().unwrap(), Run::Exit(0));
}
