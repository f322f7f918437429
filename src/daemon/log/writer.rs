//! From the bytes of one stream to its files: as they are, or one record a line. The beginning of a line that is not
//! whole is kept for a while, where the next daemon finds it. What does not fit is counted, or waits.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::LINE;
use super::desk::{Desk, Kind, Work};
use super::file::{self, LogFile, Lost, Room};
use super::form::{Clock, Form, Label};
use super::shelf::{Held, Shelf};
use crate::app::rotation::{Every, Global, Rule};
use crate::app::{Format, Full, Logs, Text};
use crate::daemon::home::Stream;
use crate::sys::{failpoint, find, inherit};
use crate::time::{Millis, Mono, Wall};

/// How long the beginning of a line is kept: it may be a question.
const UNFINISHED: Millis = Millis(500);
/// How often it is tried again whether there is room.
const AGAIN: Millis = Millis(1_000);
/// What cannot be rotated now is tried again so much later.
const LATER: Millis = Millis(60_000);
/// A file that is so much too long is rotated in the middle of a line.
const TOO_LONG: u64 = 4 << 20;

/// What is to become of a stream, for whoever goes on with it. What an earlier version did not say is the usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The process,
    pub process: u32,
    /// and what its app is called.
    pub name: String,
    /// The file of the stream.
    pub path: Option<Text>,
    /// The one for both streams.
    pub combined: Option<Text>,
    /// What was declared; see [`share`].
    pub logs: Arc<Logs>,
    /// Others write to one of the files, too: only whole lines at a time.
    pub is_shared: bool,
}

/// The usual is there once, for all who declared nothing.
pub fn share(logs: &Logs) -> Arc<Logs> {
    static USUAL: LazyLock<Arc<Logs>> = LazyLock::new(Arc::default);
    if *logs == **USUAL { USUAL.clone() } else { Arc::new(logs.clone()) }
}

/// A writer for the journal.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WriterRecord {
    plan: Plan,
    /// The file for both streams.
    pub combined: Option<RawFd>,
    place: Option<u32>,
    owed: [Option<Text>; 2],
    /// The work after which it owed this.
    owed_by: u64,
    lost: [(u64, u64); 2],
}

impl WriterRecord {
    /// Nothing is on its way. The file of the stream is open.
    pub fn new(plan: Plan) -> WriterRecord {
        let combined = plan.combined.as_ref().and_then(|path| open_fd(path.path()));
        WriterRecord { plan, combined, ..WriterRecord::default() }
    }
}

/// What a piece of work came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// All of it is where it belongs, or lost.
    All,
    /// Some waits for room.
    Owes,
}

/// How a piece of work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// For the first time.
    First,
    /// A daemon before us may have done it in part.
    Again,
    /// It has done all but to keep what is left over.
    RestOnly,
}

/// Writes one stream.
#[derive(Debug)]
pub struct Writer {
    plan: Plan,
    /// Boxed, as all that most writers do without.
    own: Option<Box<LogFile>>,
    combined: Option<Box<LogFile>>,
    /// `None`: bytes as they are.
    form: Option<Box<Form>>,
    held: Held,
    place: Option<u32>,
    /// When the beginning of a line is given up waiting for its end.
    until: Option<Mono>,
    /// When it is tried again whether there is room.
    again: Option<Mono>,
    /// When a file is full however long it is.
    turns: Option<Mono>,
    /// How its files are rotated, and by which version of the rules.
    rule: Option<Box<Rule>>,
    version: u64,
    counts: Counts,
    /// The work by which what its files owe has become what it is.
    owed_by: u64,
    /// The beginning of a line comes on the shelf when what is owed is on record: a shelf that knows of a piece of work
    /// says that all of it is done.
    is_unshelved: bool,
}

/// What became of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// So many bytes came.
    pub bytes: u64,
    /// So many lines of them found no room in the file of their stream.
    pub lost: u64,
}

impl Writer {
    /// A new one. The files are open.
    pub fn new(
        stream: Stream,
        plan: Plan,
        own: Option<LogFile>,
        combined: Option<LogFile>,
        shelf: &mut Shelf,
    ) -> Writer {
        let place = Some(shelf.take());
        let form = form(stream, &plan);
        Writer::with(plan, own, combined, form, Held::default(), place)
    }

    /// What a daemon before us had. `file`: that of the stream.
    pub fn restore(
        stream: Stream,
        file: Option<RawFd>,
        record: WriterRecord,
        shelf: &mut Shelf,
        now: Mono,
    ) -> Writer {
        let open = |fd: Option<RawFd>, path: &Option<Text>, owed: Option<Text>, lost: (u64, u64)| {
            let path = path.as_ref().map(|path| path.path().to_path_buf());
            let file = fd.and_then(|fd| inherit::take(fd).ok()).map(std::fs::File::from);
            let mut file = match (file, path) {
                (Some(file), path) => LogFile::new(file, path),
                (None, path) => LogFile::absent(path.filter(|path| path != Path::new("/dev/null"))?, None),
            };
            file.owed = owed.map_or(Vec::new(), |owed| owed.bytes().to_vec());
            file.lost = Lost { lines: lost.0, bytes: lost.1, ..Lost::default() };
            Some(file)
        };
        let WriterRecord { mut plan, combined, place, owed: [owed, owed_combined], owed_by, lost } = record;
        plan.logs = share(&plan.logs);
        let own = open(file, &plan.path, owed, lost[0]);
        let combined = open(combined, &plan.combined, owed_combined, lost[1]);
        let held = place.map_or(Held::default(), |place| shelf.take_again(place));
        let until = Some(now + UNFINISHED).filter(|_| !held.rest.is_empty());
        let form = form(stream, &plan);
        let mut writer = Writer { until, owed_by, ..Writer::with(plan, own, combined, form, held, place) };
        writer.again = Some(now + AGAIN).filter(|_| writer.lacks_room());
        writer
    }

    fn with(
        plan: Plan,
        own: Option<LogFile>,
        combined: Option<LogFile>,
        form: Option<Form>,
        held: Held,
        place: Option<u32>,
    ) -> Writer {
        let (until, again, turns, counts) = (None, None, None, Counts::default());
        let (rule, version, owed_by, is_unshelved) = (None, 0, 0, false);
        let (own, combined, form) = (own.map(Box::new), combined.map(Box::new), form.map(Box::new));
        Writer {
            plan,
            own,
            combined,
            form,
            held,
            place,
            until,
            again,
            turns,
            rule,
            version,
            counts,
            owed_by,
            is_unshelved,
        }
    }

    /// For the journal.
    pub fn record(&self) -> WriterRecord {
        let owed = |file: &Option<Box<LogFile>>| {
            let owed = file.as_ref().map(|file| &file.owed).filter(|owed| !owed.is_empty())?;
            Some(Text::from(owed.clone()))
        };
        let lost = |file: &Option<Box<LogFile>>| {
            file.as_ref().map_or((0, 0), |file| (file.lost.lines, file.lost.bytes))
        };
        WriterRecord {
            plan: self.plan.clone(),
            combined: self.combined.as_ref().and_then(|file| file.fd()),
            place: self.place,
            owed: [owed(&self.own), owed(&self.combined)],
            owed_by: self.owed_by,
            lost: [lost(&self.own), lost(&self.combined)],
        }
    }

    /// The file of the stream, for the journal.
    pub fn fd(&self) -> Option<RawFd> {
        self.own.as_ref().and_then(|file| file.fd())
    }

    /// Of which process it has written how many bytes since it was last asked, and how many lines were lost of them.
    pub fn take_counts(&mut self) -> (u32, Counts) {
        (self.plan.process, std::mem::take(&mut self.counts))
    }

    fn files(&mut self) -> impl Iterator<Item = &mut LogFile> {
        self.own.iter_mut().chain(&mut self.combined).map(Box::as_mut)
    }

    /// When it wants to be looked at, whatever happens.
    pub fn deadline(&self) -> Option<Mono> {
        let until = self.until.filter(|_| !self.owes());
        until.into_iter().chain(self.again).chain(self.turns).min()
    }

    /// Whether something waits for room.
    pub fn owes(&self) -> bool {
        self.own.iter().chain(&self.combined).any(|file| !file.owed.is_empty())
    }

    fn lacks_room(&self) -> bool {
        self.own.iter().chain(&self.combined).any(|file| !file.owed.is_empty() || file.lost.any())
    }

    /// Opens files anew that are not what stands under their names. True: there was one.
    pub fn renew(&mut self) -> bool {
        let mut renewed = false;
        self.files().for_each(|file| renewed |= file.renew());
        renewed
    }

    /// The same, of those under this name.
    pub fn renew_if(&mut self, path: &Path) -> bool {
        let files = self.files().filter(|file| file.path() == Some(path));
        let mut renewed = false;
        files.for_each(|file| renewed |= file.renew());
        renewed
    }

    /// What is to be done next, and on what it depends. True: a file is another one now.
    pub fn plan_work(&mut self, kind: Kind, now: Mono, desk: &mut Desk) -> (Work, bool) {
        let mut renewed = false;
        self.files().for_each(|file| renewed |= file.look(now));
        desk.rules.look(now);
        self.follow_rules(now, desk);
        let is_full = kind == Kind::Write && self.files_to_turn(desk.clock.wall).any(|_| true);
        let kind = if is_full { Kind::Lines } else { kind };
        let of =
            |file: &Option<Box<LogFile>>| file.as_ref().map_or((0, 0), |file| (file.len(), file.inode()));
        let (own, combined) = (of(&self.own), of(&self.combined));
        let work =
            Work { turn: desk.next_turn(), kind, before: [own.0, combined.0], inodes: [own.1, combined.1] };
        (work, renewed)
    }

    /// Takes in the rules as they are now.
    fn follow_rules(&mut self, now: Mono, desk: &mut Desk) {
        let Desk { rules, clock, .. } = desk;
        if self.version != rules.version {
            self.version = rules.version;
            self.rule = self.plan.logs.rotation.rule(&rules.global.rotation).map(Box::new);
            self.files().for_each(|file| file.due = None);
        }
        let Some(rule) = &self.rule else {
            self.turns = None;
            return;
        };
        if rule.every == Every::Never {
            self.turns = None;
            return;
        }
        let mut first = None;
        for file in self.own.iter_mut().chain(&mut self.combined).filter(|file| file.can_turn()) {
            if file.due.is_none() {
                let (begun, written) = file.age().unwrap_or((clock.wall, clock.wall));
                file.due = rules.due(rule, begun, written);
            }
            first = first.into_iter().chain(file.due).min();
        }
        let turns = first.map(|due| now + Millis(due.0.saturating_sub(clock.wall.0)));
        // Both clocks are looked at one after the other: what is the same date differs by a little each time.
        let is_same = |(before, after): (Mono, Mono)| before > now && before.0.abs_diff(after.0) < 100;
        if !self.turns.zip(turns).is_some_and(is_same) {
            self.turns = turns;
        }
    }

    /// Those of its files that are full.
    fn files_to_turn(&mut self, wall: Wall) -> impl Iterator<Item = &mut LogFile> {
        let rule = self.rule.as_ref();
        self.own.iter_mut().chain(&mut self.combined).map(Box::as_mut).filter(move |file| {
            let Some(rule) = rule.filter(|_| file.can_turn()) else { return false };
            if wall < file.turn_again {
                return false;
            }
            let len = file.len();
            let is_due = file.due.is_some_and(|due| due <= wall);
            len > 0 && (is_due || rule.max_size.is_some_and(|most| len >= most))
        })
    }

    /// Rotates the files that are full, at the end of a line. They are left on the desk for others who write to them.
    pub fn turn(&mut self, now: Mono, desk: &mut Desk) {
        let Some(rule) = self.rule.clone() else { return };
        let wall = desk.clock.wall;
        for file in self.files_to_turn(wall) {
            let is_far_over = rule.max_size.is_some_and(|most| file.len() >= most.saturating_add(TOO_LONG));
            if file.is_mid_line() && !is_far_over {
                if file.due.is_some_and(|due| due <= wall) {
                    file.due = Some(Wall(wall.0 + LATER.0));
                }
                continue;
            }
            let date = desk.rules.date(&rule, wall);
            match file.turn(&date) {
                Ok(_) => {
                    let path = file.path().map(Path::to_path_buf).unwrap_or_default();
                    desk.turned.push((path, (*rule).clone()));
                }
                Err(error) => {
                    log::error!("{error}");
                    file.turn_again = Wall(wall.0 + LATER.0);
                }
            }
            // Whatever came of it: not before the next date.
            file.due = desk.rules.due(&rule, wall, wall);
        }
        // An empty one has its next date, too.
        for file in self.files().filter(|file| file.due.is_some_and(|due| due <= wall)) {
            file.due = desk.rules.due(&rule, wall, wall);
        }
        self.follow_rules(now, desk);
    }

    /// Whether it is time for another file.
    pub fn is_to_turn(&self, now: Mono) -> bool {
        self.turns.is_some_and(|turns| turns <= now)
    }

    /// Does a piece of work, on the first `len` bytes of the desk.
    pub fn write(&mut self, work: &Work, len: usize, now: Mono, desk: &mut Desk) -> Wrote {
        self.take(work, len, now, desk, How::First)
    }

    /// Does what a daemon before us may have done in part.
    pub fn finish(&mut self, work: &Work, len: usize, now: Mono, desk: &mut Desk) -> Wrote {
        if work.turn > 0 && self.held.turn == work.turn {
            // What was left over is on the shelf already, and that comes last.
            return Wrote::All;
        }
        if work.turn > 0 && self.owed_by == work.turn {
            // The files have it, and what they do not have is on record: what is left over is not on the shelf.
            if work.kind != Kind::Pay {
                self.take(work, len, now, desk, How::RestOnly);
            }
            return Wrote::All;
        }
        for (file, inode) in
            self.own.iter_mut().zip([work.inodes[0]]).chain(self.combined.iter_mut().zip([work.inodes[1]]))
        {
            if inode != 0 && file.inode() != inode {
                file.renew();
            }
        }
        if work.kind == Kind::Pay {
            for (file, before) in self
                .own
                .iter_mut()
                .zip([work.before[0]])
                .chain(self.combined.iter_mut().zip([work.before[1]]))
            {
                let paid = file.already(before, &file.owed);
                file.owed.drain(..paid);
            }
            return self.pay(work, now, desk);
        }
        self.take(work, len, now, desk, How::Again)
    }

    fn take(&mut self, work: &Work, len: usize, now: Mono, desk: &mut Desk, how: How) -> Wrote {
        if self.own.is_none() && self.combined.is_none() {
            return Wrote::All;
        }
        let Desk { bytes, shelf, clock, joined, records, rules, short, .. } = desk;
        let chunk = &bytes[..len];
        let input = if self.held.rest.is_empty() {
            chunk
        } else {
            joined.clear();
            joined.extend_from_slice(&self.held.rest);
            joined.extend_from_slice(chunk);
            &joined[..]
        };
        records.clear();
        let mut continued = self.held.continued;
        let (done, output) = match &mut self.form {
            Some(form) => {
                let mut done = form.write(input, &mut continued, clock, records);
                if work.kind == Kind::Flush {
                    form.flush(&input[done..], &mut continued, clock, records);
                    done = input.len();
                }
                (done, &records[..])
            }
            None => {
                let whole = find::last(b'\n', input).map_or(0, |at| at + 1);
                let keeps = work.kind == Kind::Lines && input.len() - whole <= LINE;
                let done = if keeps { whole } else { input.len() };
                (done, &input[..done])
            }
        };
        let mut wrote = Wrote::All;
        let form = &mut self.form;
        let full = self.plan.logs.full;
        self.counts.bytes += chunk.len() as u64;
        let lost = |file: &Option<Box<LogFile>>| file.as_ref().map_or(0, |file| file.lost.all);
        let lost_before = lost(&self.own);
        for (file, before) in [(&mut self.own, work.before[0]), (&mut self.combined, work.before[1])] {
            let Some(file) = file.as_mut().filter(|_| how != How::RestOnly) else { continue };
            let skip = if how == How::Again { file.already(before, output) } else { 0 };
            if put(file, &output[skip..], full, form, &mut At { clock, now, global: &rules.global, short })
                == Wrote::Owes
            {
                wrote = Wrote::Owes;
            }
        }
        self.counts.lost += lost(&self.own) - lost_before;
        if wrote == Wrote::Owes {
            self.owed_by = work.turn;
        }
        failpoint::reach("output-put");
        let rest = &input[done..];
        if !self.held.rest.is_empty() || !rest.is_empty() || continued != self.held.continued {
            let rest = rest.to_vec();
            (self.held.turn, self.held.rest, self.held.continued) = (work.turn, rest, continued);
            self.is_unshelved = true;
            if wrote == Wrote::All {
                self.shelve(shelf);
            }
            self.until = Some(now + UNFINISHED).filter(|_| !self.held.rest.is_empty());
        }
        joined.shrink_to(LINE * 4);
        records.shrink_to(LINE * 8);
        self.again = Some(now + AGAIN).filter(|_| self.lacks_room());
        wrote
    }

    /// Lays the beginning of a line on the shelf, if it is not there.
    pub fn shelve(&mut self, shelf: &mut Shelf) {
        if std::mem::take(&mut self.is_unshelved)
            && let Some(place) = self.place
        {
            shelf.put(place, &mut self.held);
        }
    }

    /// Whether the beginning of a line has waited long enough.
    pub fn is_overdue(&self, now: Mono) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether there is a beginning of a line.
    pub fn holds(&self) -> bool {
        !self.held.rest.is_empty()
    }

    /// Tries again to write what waits for room.
    pub fn pay(&mut self, work: &Work, now: Mono, desk: &mut Desk) -> Wrote {
        self.owed_by = work.turn;
        let wrote = self.put_nothing(now, desk);
        // The end of the line waits in the pipe: nobody has looked there meanwhile.
        self.until = self.until.map(|_| now + UNFINISHED);
        wrote
    }

    /// Tells what was lost, if there is room again.
    pub fn tell_lost(&mut self, now: Mono, desk: &mut Desk) {
        self.files().for_each(|file| {
            file.look(now);
        });
        self.put_nothing(now, desk);
    }

    fn put_nothing(&mut self, now: Mono, desk: &mut Desk) -> Wrote {
        let Desk { clock, rules, short, .. } = desk;
        let mut wrote = Wrote::All;
        let (form, full) = (&mut self.form, self.plan.logs.full);
        for file in self.own.iter_mut().chain(&mut self.combined) {
            if put(file, b"", full, form, &mut At { clock, now, global: &rules.global, short }) == Wrote::Owes
            {
                wrote = Wrote::Owes;
            }
        }
        self.again = Some(now + AGAIN).filter(|_| self.lacks_room());
        wrote
    }

    /// The stream is over.
    pub fn end(&mut self, shelf: &mut Shelf) {
        for file in self.files() {
            if !file.owed.is_empty() {
                let owed = std::mem::take(&mut file.owed);
                file.lost.add(&owed, &io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        let name = self.plan.name.clone();
        for file in self.files().filter(|file| file.lost.any()) {
            log::error!("{name}: {}", file.lost.text());
        }
        if let Some(place) = self.place.take() {
            shelf.give_back(place);
        }
    }
}

/// What becomes of lines; `None`: they stay as they are.
fn form(stream: Stream, plan: &Plan) -> Option<Form> {
    let is_json = plan.logs.format == Format::Json;
    if !is_json && !plan.is_shared && plan.logs.date.is_none() {
        return None;
    }
    let kind = if stream == Stream::Stderr { "err" } else { "out" };
    let label = Label { kind, process: plan.process, name: plan.name.clone() };
    Some(Form::new(plan.logs.date.as_deref(), is_json.then_some(label)))
}

/// When something is written, and by which rules.
struct At<'a> {
    clock: &'a Clock,
    now: Mono,
    global: &'a Global,
    /// Files on whose disks there is little room.
    short: &'a mut Vec<PathBuf>,
}

/// Appends to a file: what it owes first, then what is to be told about losses, then `output`.
fn put(
    file: &mut LogFile,
    output: &[u8],
    full: Full,
    form: &mut Option<Box<Form>>,
    at: &mut At<'_>,
) -> Wrote {
    let room = file.room(at.now, at.global);
    if room != Room::Enough {
        at.short.extend(file.path().map(Path::to_path_buf));
    }
    let (clock, now) = (at.clock, at.now);
    let append = |file: &mut LogFile, bytes: &[u8]| match room {
        Room::None if !bytes.is_empty() => Err((0, io::Error::other("the disk is almost full"))),
        _ => file.append(bytes),
    };
    if !file.owed.is_empty() {
        let owed = std::mem::take(&mut file.owed);
        if let Err((taken, _)) = append(file, &owed) {
            file.owed = owed[taken..].to_vec();
            file.owed.extend_from_slice(output);
            return Wrote::Owes;
        }
    }
    if file.lost.any() {
        if now < file.again {
            file.lost.count(output);
            return Wrote::All;
        }
        let mut told = Vec::new();
        if file.is_mid_line() {
            told.push(b'\n');
        }
        let text = [file.lost.text().as_bytes(), b"\n"].concat();
        match form {
            Some(form) => {
                form.write(&text, &mut false, clock, &mut told);
            }
            None => told.extend_from_slice(&text),
        }
        if let Err((_, error)) = append(file, &told) {
            file.lost.add(output, &error);
            file.again = now + AGAIN;
            return Wrote::All;
        }
        log::warn!("{}", file.lost.text());
        file.lost = Lost { all: file.lost.all, ..Lost::default() };
    }
    let Err((taken, error)) = append(file, output) else { return Wrote::All };
    let path = file.path().map_or("a log file".to_string(), |path| path.display().to_string());
    let reason = crate::sys::reason(&error);
    match full {
        Full::Drop => {
            log::error!("write {path}: {reason}; what does not fit is counted and lost");
            file.lost.add(&output[taken..], &error);
            file.again = now + AGAIN;
            Wrote::All
        }
        Full::Block => {
            log::error!("write {path}: {reason}; it waits for room");
            file.owed = output[taken..].to_vec();
            Wrote::Owes
        }
    }
}

/// Opens the file at `path` for a writer.
pub fn open(path: &std::path::Path) -> io::Result<Option<LogFile>> {
    Ok(file::open(path)?.map(|file| LogFile::new(file, Some(PathBuf::from(path)))))
}

/// The same for a record: its fd.
pub fn open_fd(path: &std::path::Path) -> Option<RawFd> {
    let file = file::open(path)
        .inspect_err(|error| log::error!("open {}: {}", path.display(), crate::sys::reason(error)))
        .ok()??;
    debug_assert!(file.as_raw_fd() > 2);
    Some(file.into_raw_fd())
}
