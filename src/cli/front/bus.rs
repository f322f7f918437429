//! Log lines as events: the files are followed while anybody listens, so that they do not pass through the
//! daemon a second time.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::list::now;
use crate::logs::follow::{self, Look};
use crate::logs::history::Links;
use crate::protocol::Detail;
use crate::sys::inotify::Watches;

/// How much of one file becomes events before the next has its turn.
const BUDGET: usize = 256 << 10;

/// The files that are followed.
pub struct Bus {
    watches: Watches,
    files: BTreeMap<PathBuf, Followed>,
    /// Since when anybody listens.
    since: Option<SystemTime>,
    has_more: bool,
}

struct Followed {
    kind: &'static str,
    process: Value,
    log: follow::Followed,
}

impl Bus {
    pub fn new() -> std::io::Result<Bus> {
        Ok(Bus { watches: Watches::new()?, files: BTreeMap::new(), since: None, has_more: false })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.watches.as_fd()
    }

    /// How long there is nothing to do.
    pub fn patience(&self) -> Option<Duration> {
        self.has_more.then_some(Duration::ZERO)
    }

    pub fn is_awake(&self) -> bool {
        self.since.is_some()
    }

    /// Somebody listens.
    pub fn wake(&mut self) {
        self.since = Some(SystemTime::now());
    }

    /// Nobody listens any more.
    pub fn rest(&mut self) {
        if self.since.take().is_some() {
            // What the kernel still tells of them finds nobody.
            self.files.clear();
            self.has_more = false;
        }
    }

    /// From now on the lines of this process are events.
    pub fn follow(&mut self, detail: &Detail) {
        let Some(since) = self.since else { return };
        let view = &detail.view;
        let process = json!({"pm_id": view.id, "name": view.name, "rev": null, "namespace": view.namespace});
        for (kind, path) in [("log:out", &detail.out_file), ("log:err", &detail.error_file)] {
            let path = PathBuf::from(path);
            if self.files.contains_key(&path) {
                continue;
            }
            let mut log = follow::Followed::new(&path, Links::Followed);
            let found = log.file.as_ref().and_then(|file| file.metadata().ok());
            // What was there before anybody listened is no event.
            if let Some(found) = found
                && !found.created().is_ok_and(|created| created > since)
            {
                log.position = found.len();
            }
            log.watch(&self.watches);
            self.files.insert(path, Followed { kind, process: process.clone(), log });
            self.has_more = true;
        }
    }

    /// Takes what was appended.
    pub fn read(&mut self, events: &mut Vec<(String, Value)>) {
        let changed = self.watches.drain().unwrap_or(true);
        if !changed && !self.has_more {
            return;
        }
        self.has_more = false;
        let Bus { watches, files, has_more, .. } = self;
        for Followed { kind, process, log } in files.values_mut() {
            let mut emit = |line: &[u8]| {
                let data = format!("{}\n", String::from_utf8_lossy(line));
                let payload = json!({"process": process, "at": now().0, "data": data});
                events.push((kind.to_string(), payload));
                Ok::<_, String>(())
            };
            // What cannot be read is no event.
            let look = log.look(BUDGET, &mut emit).unwrap_or(Look::Idle);
            *has_more |= look != Look::Idle;
            if look == Look::Moved {
                log.watch(watches);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    #[test]
    fn who_listens_hears_every_line_once_through_rotations() {
        let folder = std::env::temp_dir().join(format!("pmx-bus-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let out = folder.join("a.log");
        fs::write(&out, "before anybody listened\n").unwrap();
        let mut detail = crate::cli::jlist::tests::detail();
        detail.out_file = out.to_str().unwrap().to_string();
        detail.error_file = folder.join("none.log").to_str().unwrap().to_string();
        let (mut bus, mut events) = (Bus::new().unwrap(), Vec::new());
        bus.wake();
        bus.follow(&detail);
        for n in 0..3 {
            let mut file = OpenOptions::new().append(true).create(true).open(&out).unwrap();
            writeln!(file, "in file {n}").unwrap();
            if n < 2 {
                fs::rename(&out, folder.join(format!("a__D-{n}.log"))).unwrap();
            }
        }
        bus.read(&mut events);
        while bus.patience().is_some() {
            bus.read(&mut events);
        }
        let lines: Vec<&str> = events.iter().map(|(_, event)| event["data"].as_str().unwrap()).collect();
        assert_eq!(lines, ["in file 0\n", "in file 1\n", "in file 2\n"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
