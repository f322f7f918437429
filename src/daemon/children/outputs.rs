//! What children write: where it leads when one is started, and from there to its end.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::start::is_transient;
use super::{Children, Refused, Request};
use crate::app::{App, Format, Instances, Text};
use crate::daemon::home::{Home, Stream};
use crate::daemon::log::{
    self as output, Counts, Desk, LogFile, Output, Plan, Shelf, Tail, To, Visit, Writer,
};
use crate::daemon::runtime::Runtime as Container;
use crate::daemon::sink::Lines;
use crate::daemon::source::{Progress, Source};
use crate::daemon::watch::{unwatch, watch};
use crate::supervisor::{ChildId, ProcId};
use crate::sys::{limits, pipe};
use crate::time::Mono;

/// Files that are open for a stream.
#[derive(Debug)]
pub(super) struct Files {
    plan: Plan,
    own: Option<LogFile>,
    combined: Option<LogFile>,
}

/// Where a stream of a child leads.
#[derive(Debug)]
pub(super) enum Way {
    /// To our own of the same number.
    Straight,
    /// By way of us: to files, or in a container to our own.
    Piped { pipe: OwnedFd, files: Result<Box<Files>, Lines>, child_end: OwnedFd },
    /// To nobody.
    Nowhere(OwnedFd),
}

impl Way {
    /// The fd that the child gets.
    pub(super) fn number(&self, own: RawFd) -> RawFd {
        match self {
            Way::Straight => own,
            Way::Piped { child_end, .. } => child_end.as_raw_fd(),
            Way::Nowhere(end) => end.as_raw_fd(),
        }
    }
}

impl Children {
    /// From now on output goes where a container's does.
    pub fn enter_container(&mut self, registry: &Registry, container: &Container) {
        let sink = container.sink().clone();
        for (number, stream) in [(1, Stream::Stdout), (2, Stream::Stderr)] {
            let fd = sink.outlet(stream).fd();
            // A regular file cannot be watched, and always has room.
            if let Err(error) =
                registry.register(&mut SourceFd(&fd), Source::Sink(number).token(), Interest::WRITABLE)
            {
                log::debug!("watch {stream:?}: {error}");
            }
        }
        self.is_single = container.is_single();
        self.sink = Some(sink);
    }

    /// Where a new child's stdout or stderr leads: to its file, or in a container, if none was asked for,
    /// to our own.
    pub(super) fn open_output(&self, request: &Request, stream: Stream) -> Result<Way, Refused> {
        let app = &request.app;
        let declared = match stream {
            Stream::Stdout => &app.out_file,
            Stream::Stderr => &app.error_file,
        };
        let sink = self.sink.as_ref().filter(|_| declared.is_none());
        if sink.is_some_and(|sink| self.is_single && sink.format() == Format::Raw) {
            return Ok(Way::Straight);
        }
        let files = match sink {
            None => {
                let plan = plan(request.home, app, request.process.0, stream);
                let open = |path: &Option<Text>| {
                    path.as_ref().map_or(Ok(None), |path| open_log(path.path(), request.unattended))
                };
                let (own, combined) = (open(&plan.path)?, open(&plan.combined)?);
                Ok(Box::new(Files { plan, own, combined }))
            }
            Some(sink) => Err(sink.lines(stream, request.process.0, &app.name)),
        };
        let (pipe, child_end) = pipe::for_output().map_err(|e| Refused::means("make a pipe", &e))?;
        let is_kept = files.as_ref().map_or(true, |files| files.own.is_some() || files.combined.is_some());
        // What nobody keeps is read only for those who look: that other processes can be started comes first.
        if !is_kept
            && limits::open_files_are_short(pipe.as_raw_fd())
            && let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null")
        {
            let (name, id) = (&app.name, request.process.0);
            log::warn!("{name}({id}): open files are short: what it writes, which has no file, is not read");
            return Ok(Way::Nowhere(null.into()));
        }
        Ok(Way::Piped { pipe, files, child_end })
    }

    /// The child is there that has the other end.
    pub(super) fn begin_output(
        &mut self,
        registry: &Registry,
        of: (ChildId, Stream),
        way: Way,
        shelf: &mut Shelf,
    ) {
        let Way::Piped { pipe, files, .. } = way else { return };
        let to = match files {
            Ok(files) => {
                let Files { plan, own, combined } = *files;
                To::Files(Box::new(Writer::new(of.1, plan, own, combined, shelf)))
            }
            Err(lines) => To::Lines(lines),
        };
        self.add_output(registry, of, pipe, to);
        self.changed_outputs.insert(of);
    }

    /// From now on a pipe is read.
    pub(super) fn add_output(&mut self, registry: &Registry, of: (ChildId, Stream), pipe: OwnedFd, to: To) {
        let output = Output::new(pipe, to);
        watch(registry, output.fd(), stream_source(of.0, of.1), Interest::READABLE);
        self.outputs.insert(of, Box::new(output));
    }

    /// All open outputs.
    pub fn output_ids(&self) -> impl Iterator<Item = (ChildId, Stream)> + '_ {
        self.outputs.keys().copied()
    }

    /// Moves output of a child. Once its pipe is closed it is gone.
    pub fn move_output(
        &mut self,
        registry: &Registry,
        id: ChildId,
        stream: Stream,
        now: Mono,
        desk: &mut Desk,
    ) -> Progress {
        let of = (id, stream);
        let Some(output) = self.outputs.get_mut(&of) else { return Progress::Drained };
        let mut nobody = Tail::default();
        let tail = self.living.get_mut(&id).map_or(&mut nobody, |child| &mut child.tail);
        let turned = desk.turned.len();
        let (visit, changed) = output.visit(now, of, desk, tail);
        if changed {
            self.changed_outputs.insert(of);
        }
        if visit == Visit::Closed {
            output.end(now, of, desk);
        }
        self.renew_turned(turned, desk);
        self.look_later(of);
        if let Visit::Open(progress) = visit {
            self.watch_output(registry, of, progress);
            return progress;
        }
        if let Some(output) = self.outputs.remove(&of) {
            if output.watched {
                unwatch(registry, output.fd());
            }
            if let Some(due) = output.due {
                self.due.remove(&(due, of));
            }
        }
        self.changed_outputs.insert(of);
        Progress::Drained
    }

    /// Nobody is told of what a resting pipe gathers. Watched again, it is told of what is there.
    fn watch_output(&mut self, registry: &Registry, of: (ChildId, Stream), progress: Progress) {
        let Some(output) = self.outputs.get_mut(&of) else { return };
        match progress {
            Progress::Rest(_) if output.watched => unwatch(registry, output.fd()),
            Progress::Drained if !output.watched => {
                watch(registry, output.fd(), stream_source(of.0, of.1), Interest::READABLE);
            }
            _ => return,
        }
        output.watched = !output.watched;
    }

    /// Writes what the daemon before us had read and not written.
    pub fn finish_output(&mut self, now: Mono, desk: &mut Desk) {
        let Some(of) = desk.left() else { return };
        match self.outputs.get_mut(&of) {
            Some(output) => {
                output.finish(now, of, desk);
                self.look_later(of);
            }
            None => desk.clear(),
        }
    }

    /// What is held on the desk is on record.
    pub fn recorded_output(&mut self, desk: &mut Desk) {
        match desk.held().and_then(|of| self.outputs.get_mut(&of)) {
            Some(output) => output.recorded(desk),
            None => desk.release(),
        }
    }

    /// Opens log files anew that are not what stands under their names.
    pub fn reopen_logs(&mut self) {
        self.renew(Writer::renew);
    }

    /// Logs were rotated, those on the desk after the first `before`: whoever writes to them goes on in the new ones. At
    /// once, since who follows them reads an old one only as far as it goes.
    fn renew_turned(&mut self, before: usize, desk: &Desk) {
        for (path, _) in desk.turned.iter().skip(before) {
            self.renew(|writer| writer.renew_if(path));
        }
    }

    fn renew(&mut self, renew: impl Fn(&mut Writer) -> bool) {
        for (of, output) in &mut self.outputs {
            if output.writer_mut().is_some_and(&renew) {
                self.changed_outputs.insert(*of);
            }
        }
    }

    /// When the first output wants to be looked at.
    pub fn log_deadline(&self) -> Option<Mono> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The outputs whose time has come.
    pub fn due_outputs(&self, now: Mono) -> Vec<(ChildId, Stream)> {
        self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, of)| *of).collect()
    }

    /// Looks at one of them.
    pub fn look_at_output(&mut self, of: (ChildId, Stream), now: Mono, desk: &mut Desk) {
        let Some(output) = self.outputs.get_mut(&of) else { return };
        let turned = desk.turned.len();
        if output.on_time(now, of, desk) {
            self.changed_outputs.insert(of);
        }
        self.renew_turned(turned, desk);
        self.look_later(of);
    }

    /// A child is gone: what it said last, it said.
    pub fn flush_output(&mut self, of: (ChildId, Stream), now: Mono, desk: &mut Desk) {
        if let Some(output) = self.outputs.get_mut(&of) {
            if output.flush(now, of, desk) {
                self.changed_outputs.insert(of);
            }
            self.look_later(of);
        }
    }

    /// The end: whatever is on its way is written.
    pub fn end_outputs(&mut self, now: Mono, desk: &mut Desk) {
        for (of, output) in &mut self.outputs {
            output.end(now, *of, desk);
        }
    }

    /// Notes when an output wants to be looked at, and what became of it.
    pub(super) fn look_later(&mut self, of: (ChildId, Stream)) {
        let Some(output) = self.outputs.get_mut(&of) else { return };
        if let Some((process, more)) = output.writer_mut().map(Writer::take_counts)
            && more != Counts::default()
        {
            let counts = self.counts.entry(ProcId(process)).or_default();
            counts.bytes += more.bytes;
            counts.lost += more.lost;
            if more.lost > 0 {
                *self.losing.entry(ProcId(process)).or_default() += more.lost;
            }
        }
        let due = output.writer().and_then(Writer::deadline);
        if due != output.due {
            if let Some(before) = std::mem::replace(&mut output.due, due) {
                self.due.remove(&(before, of));
            }
            self.due.extend(due.map(|due| (due, of)));
        }
    }

    /// What became of the output of a process, since this daemon began.
    pub fn log_counts(&self, process: ProcId) -> Counts {
        self.counts.get(&process).copied().unwrap_or_default()
    }

    /// A process is no more.
    pub fn forget_counts(&mut self, process: ProcId) {
        self.counts.remove(&process);
    }
}

/// The source of a child's stream.
pub fn stream_source(id: ChildId, stream: Stream) -> Source {
    match stream {
        Stream::Stdout => Source::Stdout(id),
        Stream::Stderr => Source::Stderr(id),
    }
}

/// What is to become of a stream.
pub(super) fn plan(home: &Home, app: &App, process: u32, stream: Stream) -> Plan {
    let other = if stream == Stream::Stdout { Stream::Stderr } else { Stream::Stdout };
    let (path, combined) = (home.log_file(app, process, stream), home.combined_file(app, process));
    let is_shared = combined.is_some()
        || (path == home.log_file(app, process, other) && path != Path::new("/dev/null"))
        || (app.merge_logs && app.instances != Instances::Count(1));
    Plan {
        process,
        name: app.name.clone(),
        path: Some(Text::from(&path)),
        combined: combined.as_ref().map(Text::from),
        logs: output::share(&app.logs),
        is_shared,
    }
}

fn open_log(path: &Path, unattended: bool) -> Result<Option<LogFile>, Refused> {
    match output::open(path) {
        Ok(file) => Ok(file),
        // An app runs without its log rather than not at all, once it was started.
        Err(error) if unattended || is_transient(error.raw_os_error().unwrap_or(0)) => {
            let reason = crate::sys::reason(&error);
            log::error!("open {}: {reason}; its bytes are lost until it can be", path.display());
            Ok(Some(LogFile::absent(path.to_path_buf(), error.raw_os_error())))
        }
        Err(error) => Err(Refused::new(&format!("open {}", path.display()), &error)),
    }
}
