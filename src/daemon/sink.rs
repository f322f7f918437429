//! Where output goes in a container: our own stdout and stderr. Whole lines, so that those of several apps do
//! not mix, in bounded memory, and never waiting for who reads them: what is not taken is counted and lost.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::home::Stream;
use crate::app::Format;
use crate::sys::clock;
use crate::sys::shared_out::SharedOut;

/// How much waits for a slow reader of one stream.
const BACKLOG: usize = 1 << 20;
/// A longer line is cut into pieces.
const LINE: usize = 64 << 10;
/// How long the last words wait for a slow reader.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Both streams.
#[derive(Clone, Debug)]
pub struct Sink {
    out: Outlet,
    err: Outlet,
    format: Format,
}

/// One stream. It is shared with the logger, which may write at any time.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    to: SharedOut,
    backlog: VecDeque<u8>,
    /// Bytes that were not taken in time, or by nobody.
    lost: u64,
}

impl Sink {
    /// On our own stdout and stderr.
    pub fn open(format: Format) -> io::Result<Sink> {
        Ok(Sink {
            out: Outlet::open(std::io::stdout().as_fd())?,
            err: Outlet::open(std::io::stderr().as_fd())?,
            format,
        })
    }

    /// The fds that it has of its own.
    pub fn fds(&self) -> [RawFd; 2] {
        [self.out.fd(), self.err.fd()]
    }

    /// What lines become.
    pub fn format(&self) -> Format {
        self.format
    }

    /// One stream.
    pub fn outlet(&self, stream: Stream) -> &Outlet {
        match stream {
            Stream::Stdout => &self.out,
            Stream::Stderr => &self.err,
        }
    }

    /// The way of one child's stream to ours.
    pub fn lines(&self, stream: Stream, process_id: u32, app_name: &str) -> Lines {
        let label = Label { process_id, app_name: app_name.to_string(), stream };
        Lines { to: self.outlet(stream).clone(), partial: Vec::new(), label, format: self.format }
    }

    /// Writes what waits. Says how many bytes were lost meanwhile, once it all is written.
    pub fn flush(&self, stream: Stream) -> Option<u64> {
        self.outlet(stream).lock().flush()
    }

    /// The end: waits for slow readers, a little.
    pub fn finish(&self) {
        let until = Instant::now() + LAST_WORDS;
        for outlet in [&self.out, &self.err] {
            let mut inner = outlet.lock();
            while !inner.backlog.is_empty() && Instant::now() < until {
                inner.to.wait(20);
                inner.flush();
            }
        }
    }
}

impl Outlet {
    fn open(fd: impl AsFd) -> io::Result<Outlet> {
        let to = SharedOut::of(fd.as_fd())?;
        Ok(Outlet(Arc::new(Mutex::new(Inner { to, backlog: VecDeque::new(), lost: 0 }))))
    }

    /// For the event loop.
    pub fn fd(&self) -> RawFd {
        self.lock().to.fd()
    }

    /// Writes whole lines, now or later.
    pub fn write(&self, lines: &[u8]) {
        self.lock().write(lines);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds it panics, and half a backlog would be one too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, lines: &[u8]) {
        let mut rest = lines;
        while self.backlog.is_empty() && !rest.is_empty() {
            match self.to.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Nobody reads it any more, or its disk is full.
                Err(_) => {
                    self.lost += rest.len() as u64;
                    return;
                }
            }
        }
        // What was begun must be ended, or the next line would be a part of it.
        let begun = rest.len() < lines.len();
        if begun || self.backlog.len() + rest.len() <= BACKLOG {
            self.backlog.extend(rest);
        } else {
            self.lost += rest.len() as u64;
        }
    }

    fn flush(&mut self) -> Option<u64> {
        while !self.backlog.is_empty() {
            let (first, _) = self.backlog.as_slices();
            match self.to.write(first) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {
                    self.lost += self.backlog.len() as u64;
                    self.backlog.clear();
                }
            }
        }
        Some(std::mem::take(&mut self.lost)).filter(|lost| *lost > 0)
    }
}

/// The logger writes a line at a time.
impl io::Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Outlet::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is said about each line.
#[derive(Debug)]
struct Label {
    process_id: u32,
    app_name: String,
    stream: Stream,
}

/// One line, with the fields that pm2 gives it.
#[derive(Serialize)]
struct Record<'a> {
    message: &'a str,
    timestamp: String,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<u32>,
    app_name: &'a str,
}

/// Makes whole lines of one stream of one child. What has no newline yet follows when it is dropped.
#[derive(Debug)]
pub struct Lines {
    to: Outlet,
    partial: Vec<u8>,
    label: Label,
    format: Format,
}

impl Lines {
    /// The process, and its app's name.
    pub fn whose(&self) -> (u32, &str) {
        (self.label.process_id, &self.label.app_name)
    }

    /// Takes bytes as they come.
    pub fn write(&mut self, bytes: &[u8]) {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let (lines, rest) = bytes.split_at(whole);
        if !lines.is_empty() {
            if self.partial.is_empty() {
                self.send(lines);
            } else {
                let mut begun = std::mem::take(&mut self.partial);
                begun.extend_from_slice(lines);
                self.send(&begun);
            }
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() >= LINE {
            let piece = std::mem::take(&mut self.partial);
            self.send(&piece);
        }
    }

    fn send(&self, lines: &[u8]) {
        if self.format == Format::Raw {
            return self.to.write(lines);
        }
        let label = &self.label;
        let kind = match label.stream {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
        };
        let timestamp = clock::wall().to_string();
        let mut records = Vec::with_capacity(lines.len() * 2);
        for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|&byte| byte == b'\n') {
            let message = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            records.extend(record(&message, &timestamp, kind, Some(label.process_id), &label.app_name));
        }
        self.to.write(&records);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            let mut last = std::mem::take(&mut self.partial);
            last.push(b'\n');
            self.send(&last);
        }
    }
}

/// One JSON object, and a newline.
pub fn record(
    message: &str,
    timestamp: &str,
    kind: &str,
    process_id: Option<u32>,
    app_name: &str,
) -> Vec<u8> {
    let record = Record { message, timestamp: timestamp.to_string(), kind, process_id, app_name };
    // Strings and a number: there is nothing in it that JSON cannot say.
    let mut line = serde_json::to_vec(&record).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn outlet() -> (std::io::PipeReader, Outlet) {
        let (read, write) = std::io::pipe().unwrap();
        let outlet = Outlet::open(write.as_fd()).unwrap();
        (read, outlet)
    }

    fn lines(to: Outlet) -> Lines {
        let label = Label { process_id: 7, app_name: "a\"b".into(), stream: Stream::Stderr };
        Lines { to, partial: Vec::new(), label, format: Format::Raw }
    }

    #[test]
    fn lines_stay_whole_whatever_the_pieces() {
        let (mut read, outlet) = outlet();
        let lines = || lines(outlet.clone());
        let (mut a, mut b) = (lines(), lines());
        a.write(b"one ");
        b.write(b"other\nan");
        a.write(b"two\nthree\nfo");
        b.write(b"other\n");
        a.write(b"");
        drop(a);
        drop(b);
        drop(outlet);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "other\none two\nthree\nanother\nfo\n");
    }

    #[test]
    fn a_record_has_pm2s_fields_and_the_line_as_it_was() {
        let (mut read, to) = outlet();
        let mut lines = lines(to);
        lines.format = Format::Json;
        lines.write(b"caf\xc3\xa9 \xff\x1b[31m\r\n\nlast");
        drop(lines);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        let records: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<&str> = records.iter().map(|r| r["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["caf\u{e9} \u{fffd}\u{1b}[31m", "", "last"]);
        for record in records {
            assert_eq!((&record["type"], &record["app_name"]), (&"err".into(), &"a\"b".into()));
            assert_eq!(record["process_id"], 7);
            assert!(record["timestamp"].as_str().unwrap().ends_with('Z'));
        }
    }

    #[test]
    fn l08_who_does_not_read_costs_bounded_memory_and_loses_whole_lines() {
        let (mut read, outlet) = outlet();
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        for _ in 0..30_000 {
            outlet.write(&line);
        }
        assert!(outlet.lock().backlog.len() <= BACKLOG + LINE);
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            read.read_to_end(&mut text).unwrap();
            text
        });
        let lost = loop {
            outlet.lock().to.wait(1_000);
            if let Some(lost) = outlet.lock().flush() {
                break lost;
            }
        };
        drop(outlet);
        let text = reader.join().unwrap();
        assert_eq!(text.len() as u64 + lost, 3_000_000);
        assert!(lost > 1_000_000 && text.chunks(100).all(|chunk| chunk == line));
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let (mut read, to) = outlet();
        let mut lines = lines(to);
        lines.write(&[b'y'; LINE - 1]);
        assert_eq!(lines.partial.len(), LINE - 1);
        let mut bytes = vec![0; LINE];
        // A pipe holds just as much.
        lines.write(b"y");
        read.read_exact(&mut bytes).unwrap();
        assert!(lines.partial.is_empty());
    }
}
