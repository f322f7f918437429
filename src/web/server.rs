//! The server: one thread, one poll, and a limit for everything that a client can make long.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use super::Options;
use super::connection::{Asked, Connection, HEARTBEAT, Phase, REQUEST_TIME, STALL};
use super::control::{Asker, Control, Failed, Heard};
use super::gate::Gate;
use super::host::Host;
use super::http::{self, Head, Method, Refused};
use super::logs::{self, End, Followed};
use super::reply::{self, Reply};
use super::routes::{self, Kind, Missing, Name};
use super::work::Work;
use crate::logs::follow::Look;
use crate::protocol::{Answer, EventKind, Verb, matches};
use crate::sys::inotify::Watches;
use crate::sys::{clock, reason};
use crate::time::{Millis, Mono};

/// Connections at a time. When there are so many, the one goes that has waited longest without a request.
const CONNECTIONS: usize = 512;
/// Those of them whose answers have no end.
const STREAMS: usize = 64;
/// Connections taken in one round: what has come on those before is read first.
const ACCEPTS: usize = 64;
/// How long the daemon may take when it is only looked at, and when it has to act.
const LOOK_TIME: Millis = Millis(10_000);
const READY_TIME: Millis = Millis(2_000);
const ACT_TIME: Millis = Millis(3_600_000);
/// How long may be worked on an answer ([`VARIABLE`] sets another time, in ms), and on how many at a time.
const WORK_TIME: Millis = Millis(20_000);
const VARIABLE: &str = "PMX_WEB_WORK_TIME";
const WORKS: usize = 16;
const TOO_MANY: &str = "these processes are too many to be looked at at once: ask for fewer";
/// How long what a client still sends is thrown away, so that it can read why.
const FAREWELL: Millis = Millis(2_000);
/// How often viewers are shown the processes.
const TICK: Millis = Millis(2_000);
/// How long changes of files are gathered.
const GATHER: Millis = Millis(50);
/// A viewer to whom so much is unsent is shown nothing more; log files wait for it.
const UNSENT: usize = 1 << 20;
/// How soon it is tried again to accept when there was no room for another fd.
const REST: Millis = Millis(100);

const LISTENER: Token = Token(usize::MAX);
const DAEMON: Token = Token(usize::MAX - 1);
const FILES: Token = Token(usize::MAX - 2);

/// What becomes of a connection after a visit.
#[derive(Debug, PartialEq)]
enum Visit {
    Waits,
    More,
    Over,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    control: Control,
    gate: Gate,
    home: PathBuf,
    work_time: Millis,
    connections: BTreeMap<usize, Connection>,
    ready: BTreeSet<usize>,
    next: usize,
    /// Told once, so whoever could not be accepted is remembered.
    waiting: bool,
    rest: Option<Mono>,
    /// When viewers are shown the processes again.
    tick: Option<Mono>,
    watches: Option<Watches>,
    /// When files that have changed are looked at.
    look: Option<Mono>,
    now: Mono,
}

/// Serves until the process is ended.
pub fn serve(options: Options) -> io::Result<Infallible> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(options.address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let address = listener.local_addr()?;
    println!("serving on http://{address}");
    let work_time = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let mut server = Server {
        poll,
        listener,
        control: Control::new(options.socket, DAEMON),
        gate: Gate { address, hosts: options.hosts, token: options.token },
        home: options.home,
        work_time: work_time.map_or(WORK_TIME, Millis),
        connections: BTreeMap::new(),
        ready: BTreeSet::new(),
        next: 0,
        waiting: false,
        rest: None,
        tick: None,
        watches: None,
        look: None,
        now: clock::mono(),
    };
    let mut events = Events::with_capacity(256);
    loop {
        server.round(&mut events)?;
    }
}

impl Server {
    fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.now = clock::mono();
        let (mut daemon, mut files) = (false, false);
        for event in events.iter() {
            match event.token() {
                LISTENER => self.waiting = true,
                DAEMON => daemon = true,
                FILES => files = true,
                Token(number) => {
                    self.ready.insert(number);
                }
            }
        }
        if daemon {
            for heard in self.control.visit() {
                self.hear(heard);
            }
        }
        if files {
            self.look.get_or_insert(self.now + GATHER);
        }
        if self.look.is_some_and(|look| look <= self.now) {
            self.look_at_files();
        }
        for id in std::mem::take(&mut self.ready) {
            self.visit(id);
        }
        self.accept();
        self.timers();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || (self.waiting && self.rest.is_none()) {
            return Some(Duration::ZERO);
        }
        let of_connections = self.connections.values().map(|connection| match connection.phase {
            Phase::Views | Phase::Follows(..) | Phase::Listens(_) | Phase::Steps => {
                connection.deadline.min(connection.heartbeat)
            }
            _ => connection.deadline,
        });
        let due = of_connections.chain(self.tick).chain(self.rest).chain(self.look).min()?;
        Some(Duration::from_millis(due.since(clock::mono()).0 + 1))
    }

    fn accept(&mut self) {
        if self.rest.is_some_and(|rest| rest > self.now) {
            return;
        }
        self.rest = None;
        for _ in 0..ACCEPTS {
            if !self.waiting {
                return;
            }
            if self.connections.len() >= CONNECTIONS && !self.make_room() {
                self.rest = Some(self.now + REST);
                return;
            }
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let _ = stream.set_nodelay(true);
                    if self.poll.registry().register(&mut stream, Token(self.next), interest).is_ok() {
                        self.connections.insert(self.next, Connection::new(stream, self.now));
                        self.next += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.waiting = false,
                // Gone before we came, which is no reason to stop.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    eprintln!("accept: {}", reason(&error));
                    self.rest = Some(self.now + REST);
                    return;
                }
            }
        }
    }

    /// Closes the connection that has waited longest without a request; false: all are busy.
    fn make_room(&mut self) -> bool {
        let idle = |connection: &Connection| match connection.phase {
            Phase::Head | Phase::Body(_) => connection.unsent() == 0,
            Phase::Farewell => true,
            Phase::Waits(_) | Phase::Works(..) | Phase::Steps => false,
            Phase::Views | Phase::Follows(..) | Phase::Listens(_) => false,
        };
        let oldest = self.connections.iter().find(|(_, connection)| idle(connection)).map(|(id, _)| *id);
        oldest.is_some_and(|id| self.connections.remove(&id).is_some())
    }

    fn timers(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        let mut over = Vec::new();
        for (id, connection) in &mut self.connections {
            let is_endless = matches!(
                connection.phase,
                Phase::Views | Phase::Follows(..) | Phase::Listens(_) | Phase::Steps
            );
            if is_endless && connection.heartbeat <= now {
                connection.heartbeat = now + HEARTBEAT;
                if connection.unsent() < UNSENT {
                    connection.say(b":\n\n");
                    self.ready.insert(*id);
                }
            }
            if connection.deadline > now {
                continue;
            }
            match &connection.phase {
                Phase::Head if connection.input.is_empty() || !connection.output.is_empty() => over.push(*id),
                Phase::Head | Phase::Body(_) => late.push((*id, Refused(408, "the request took too long"))),
                Phase::Waits(_) => late.push((*id, Refused(503, "the daemon does not answer"))),
                // It comes to an end by itself, with what it has found.
                Phase::Works(_, Work::Logs(_)) => {}
                Phase::Works(_, Work::Shares { .. }) => late.push((*id, Refused(503, TOO_MANY))),
                Phase::Steps | Phase::Views | Phase::Follows(..) | Phase::Listens(_) | Phase::Farewell => {
                    over.push(*id)
                }
            }
        }
        for (id, refused) in late {
            self.control.forget(Asker::Connection(id));
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.refuse(refused, now);
                self.ready.insert(id);
            }
        }
        for id in over {
            self.close(id);
        }
        if self.tick.is_some_and(|tick| tick <= now) {
            self.show_viewers();
        }
    }

    fn close(&mut self, id: usize) {
        let Some(connection) = self.connections.remove(&id) else { return };
        match connection.phase {
            Phase::Waits(_) | Phase::Steps => self.control.forget(Asker::Connection(id)),
            Phase::Listens(_) => {
                let verb = Verb::Listen { patterns: self.patterns() };
                // If the daemon is gone, so is what it was to tell.
                let _ = self.control.ask(self.poll.registry(), verb, Asker::Nobody);
            }
            Phase::Views | Phase::Follows(..) => {
                if !self.connections.values().any(Connection::follows) {
                    self.watches = None;
                }
                if !self.connections.values().any(|other| matches!(other.phase, Phase::Views)) {
                    self.tick = None;
                }
                if !self.connections.values().any(Connection::is_endless) {
                    self.control.unsubscribe();
                }
            }
            Phase::Head | Phase::Body(_) | Phase::Works(..) | Phase::Farewell => {}
        }
    }

    /// All topics that somebody listens to, or is about to.
    fn patterns(&self) -> Vec<String> {
        let of = |connection: &Connection| match &connection.phase {
            Phase::Listens(pattern) => Some(pattern.clone()),
            Phase::Waits(asked) if asked.route.name == Name::Listen => {
                Some(routes::pattern(&asked.head).to_string())
            }
            _ => None,
        };
        let patterns: BTreeSet<String> = self.connections.values().filter_map(of).collect();
        patterns.into_iter().collect()
    }

    fn visit(&mut self, id: usize) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let visit = self.serve(id, &mut connection);
        self.connections.insert(id, connection);
        match visit {
            Visit::Waits => {}
            Visit::More => {
                self.ready.insert(id);
            }
            Visit::Over => self.close(id),
        }
    }

    fn serve(&mut self, id: usize, connection: &mut Connection) -> Visit {
        if !connection.flush(self.now) {
            return Visit::Over;
        }
        let more = match connection.read() {
            Ok(more) => more,
            Err(_) => return Visit::Over,
        };
        if let Phase::Works(_, work) = &mut connection.phase {
            if work.step(self.now) {
                self.worked(id, connection);
            }
            return Visit::More;
        }
        if let Phase::Follows(_, files) = &mut connection.phase
            && connection.output.len() - connection.sent < UNSENT
        {
            let (mut lines, mut faults) = (Vec::new(), Vec::new());
            let mut is_read = true;
            for file in files {
                let look = file.look(&mut lines, clock::wall());
                is_read &= look == Look::Idle;
                if look == Look::Moved {
                    self.watches.iter().for_each(|watches| file.watch(watches));
                }
                faults.extend(file.faults());
            }
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            if !faults.is_empty() {
                connection.say(&reply::event("faults", &faults));
            }
            if !lines.is_empty() {
                connection.say(&reply::event("lines", &lines));
            }
            let is_idle = is_read && lines.is_empty() && faults.is_empty();
            return if is_idle && !more { Visit::Waits } else { Visit::More };
        }
        if connection.unsent() > 0 {
            return Visit::Waits;
        }
        if connection.closing && !matches!(connection.phase, Phase::Farewell) {
            let _ = connection.stream.shutdown(std::net::Shutdown::Write);
            connection.phase = Phase::Farewell;
            connection.deadline = self.now + FAREWELL;
        }
        let visit = match &connection.phase {
            Phase::Head if connection.input.is_empty() && connection.ended => Visit::Over,
            Phase::Head if connection.input.is_empty() => Visit::Waits,
            Phase::Head => match http::read(&connection.input) {
                Ok(None) if connection.ended => Visit::Over,
                Ok(None) => {
                    connection.deadline = connection.deadline.min(self.now + REQUEST_TIME);
                    Visit::Waits
                }
                Ok(Some((head, end))) => {
                    connection.input.drain(..end);
                    self.take(id, connection, head);
                    Visit::More
                }
                Err(refused) => {
                    connection.refuse(refused, self.now);
                    Visit::More
                }
            },
            Phase::Body(asked) if connection.input.len() >= asked.head.length => {
                let Phase::Body(asked) = std::mem::replace(&mut connection.phase, Phase::Head) else {
                    return Visit::Over;
                };
                let body: Vec<u8> = connection.input.drain(..asked.head.length).collect();
                self.answer(id, connection, asked, &body);
                Visit::More
            }
            Phase::Body(_) if connection.ended => Visit::Over,
            Phase::Body(_)
            | Phase::Waits(_)
            | Phase::Works(..)
            | Phase::Steps
            | Phase::Views
            | Phase::Follows(..)
            | Phase::Listens(_) => Visit::Waits,
            Phase::Farewell => Visit::Waits,
        };
        // What was not read yet is not told again.
        if more && visit == Visit::Waits { Visit::More } else { visit }
    }

    /// A head: whether it may come in, and where it leads.
    fn take(&mut self, id: usize, connection: &mut Connection, head: Head) {
        let passed = self.gate.lets_pass(&head).map_err(|(status, why)| Reply::error(status, why));
        let found = passed.and_then(|()| match routes::find(&head) {
            Ok((route, target)) => Ok((route, target.unwrap_or_default().to_string())),
            Err(Missing::Path) => Err(Reply::error(404, "there is nothing at this address")),
            Err(Missing::Method(methods)) => {
                let mut reply = Reply::error(405, &format!("only {methods} can be done here"));
                reply.lines = format!("Allow: {methods}\r\n");
                Err(reply)
            }
        });
        let admitted = found.and_then(|(route, target)| {
            match self.gate.admits(&head, route.access, clock::wall()) {
                Ok(()) => Ok((route, target)),
                // The page is for everybody: it asks for the token by itself.
                Err(_) if route.name == Name::Front && head.accepts("text/html") => Ok((route, target)),
                Err((status, why)) => Err(Reply::error(status, why)),
            }
        });
        let admitted = admitted.and_then(|(route, target)| {
            let takes_body = routes::body(route.name).is_some();
            match takes_body && !head.is_json {
                true => Err(Reply::error(415, "a body of application/json is needed")),
                false => Ok((route, target)),
            }
        });
        match admitted {
            Err(reply) => {
                // What follows is a body that nobody has looked at.
                let goes_on = head.keep_alive && head.length == 0;
                connection.reply(&reply, head.head_only, goes_on, self.now);
            }
            Ok((route, target)) => {
                let asked = Box::new(Asked { route, target, head });
                if asked.head.length == 0 {
                    return self.answer(id, connection, asked, &[]);
                }
                connection.phase = Phase::Body(asked);
                connection.deadline = self.now + REQUEST_TIME;
            }
        }
    }

    /// A whole request: answered at once, or asked of the daemon.
    fn answer(&mut self, id: usize, connection: &mut Connection, asked: Box<Asked>, body: &[u8]) {
        let Asked { route, target, head } = &*asked;
        let (head_only, keep_alive) = (head.head_only, head.keep_alive);
        let mut say = |reply: Reply| connection.reply(&reply, head_only, keep_alive, self.now);
        if let Some(reply) = reply::alone(route.name, head, &self.home) {
            return say(reply);
        }
        let is_endless = route.kind == Kind::Events;
        if is_endless && head_only {
            return say(Reply::error(405, "there is no end to this, and so no head"));
        }
        let streams = self.connections.values().filter(|other| other.is_endless()).count();
        if is_endless && streams >= STREAMS {
            return say(Reply::error(503, "too many are looking already"));
        }
        let verb = match routes::verb(route.name, target, head, body) {
            // The daemon knows us as one listener.
            Ok(Verb::Listen { patterns }) => {
                let others = self.patterns().into_iter().filter(|other| !patterns.contains(other));
                Verb::Listen { patterns: others.chain(patterns.iter().cloned()).collect() }
            }
            Ok(verb) => verb,
            Err(sentence) => return say(Reply::error(422, &sentence)),
        };
        if let Err(error) = self.control.ask(self.poll.registry(), verb, Asker::Connection(id)) {
            return say(reply::of(route.name, head, &self.home, Err(error)));
        }
        let time = match (route.method, route.name) {
            (_, Name::Ready) => READY_TIME,
            (Method::Get, _) => LOOK_TIME,
            (Method::Post | Method::Delete, _) => ACT_TIME,
        };
        connection.deadline = self.now + time;
        if route.kind == Kind::Outcomes && head.accepts("text/event-stream") {
            connection.output.extend(reply::stream_head());
            connection.heartbeat = self.now + HEARTBEAT;
            connection.phase = Phase::Steps;
            return;
        }
        connection.phase = Phase::Waits(asked);
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Progress(Asker::Connection(id), progress) => {
                if let Some(connection) = self.connections.get_mut(&id)
                    && matches!(connection.phase, Phase::Steps)
                {
                    connection.say(&reply::event("progress", &progress));
                    self.ready.insert(id);
                }
            }
            Heard::Progress(Asker::Follower(_) | Asker::Viewers | Asker::Nobody, _) => {}
            Heard::Answered(Asker::Connection(id), said) => {
                if let Some(mut connection) = self.connections.remove(&id) {
                    self.answered(&mut connection, said);
                    self.connections.insert(id, connection);
                    self.ready.insert(id);
                }
            }
            Heard::Answered(Asker::Viewers, Ok(Answer::List(views))) => {
                let all = json!({ "at": clock::wall(), "host": Host::look().json(), "processes": views });
                self.show(&reply::event("processes", &all));
            }
            Heard::Answered(Asker::Follower(id), Ok(Answer::Details(details))) => {
                if let Some(Connection { phase: Phase::Follows(_, files), .. }) =
                    self.connections.get_mut(&id)
                {
                    logs::join(files, &details, clock::wall());
                    self.watches.iter().for_each(|watches| files.iter().for_each(|file| file.watch(watches)));
                    self.ready.insert(id);
                }
            }
            Heard::Answered(Asker::Follower(_) | Asker::Viewers | Asker::Nobody, _) => {}
            // What an app told in confidence is not for everybody who looks.
            Heard::Event(event) if event.kind == EventKind::Message => {}
            Heard::Message(message) => {
                let event = reply::event("message", &message);
                for (id, connection) in &mut self.connections {
                    let Phase::Listens(pattern) = &connection.phase else { continue };
                    if matches(pattern, &message.topic) && connection.unsent() < UNSENT {
                        connection.say(&event);
                        self.ready.insert(*id);
                    }
                }
            }
            Heard::Gone => {
                for (id, connection) in &mut self.connections {
                    if matches!(connection.phase, Phase::Listens(_)) {
                        connection.closing = true;
                        self.ready.insert(*id);
                    }
                }
            }
            Heard::Event(event) => {
                if event.kind == EventKind::Added {
                    self.follow_more();
                }
                self.show(&reply::event("process", &event));
            }
        }
    }

    fn answered(&mut self, connection: &mut Connection, said: Result<Answer, Failed>) {
        match std::mem::replace(&mut connection.phase, Phase::Head) {
            Phase::Waits(asked) => self.conclude(connection, asked, said),
            Phase::Steps => {
                let last = match said {
                    Ok(Answer::Outcomes(outcomes)) => reply::event("done", &json!({ "outcomes": outcomes })),
                    Ok(_) => reply::event("done", &json!({ "outcomes": [] })),
                    Err(Failed::Refused(error) | Failed::Lost(error)) => {
                        reply::event("failed", &json!({ "error": error }))
                    }
                };
                connection.output.extend(last);
                connection.closing = true;
                connection.deadline = self.now + STALL;
            }
            phase => connection.phase = phase,
        }
    }

    fn conclude(&mut self, connection: &mut Connection, asked: Box<Asked>, said: Result<Answer, Failed>) {
        let Asked { route, head, .. } = &*asked;
        match (route.name, said) {
            (Name::Events, Ok(Answer::List(views))) => {
                let all = json!({ "at": clock::wall(), "host": Host::look().json(), "processes": views });
                connection.output.extend(reply::stream_head());
                connection.output.extend(reply::event("processes", &all));
                connection.views(Phase::Views, self.now);
                // A failure shows with the next tick.
                let _ = self.control.subscribe(self.poll.registry());
                self.tick.get_or_insert(self.now + TICK);
            }
            (Name::Listen, Ok(_)) => {
                connection.output.extend(reply::stream_head());
                connection.views(Phase::Listens(routes::pattern(head).to_string()), self.now);
            }
            (name, Ok(Answer::Details(details))) if Work::is_needed(name, head) => {
                let is_at_work = |other: &&Connection| matches!(other.phase, Phase::Works(..));
                if self.connections.values().filter(is_at_work).count() >= WORKS {
                    let reply = Reply::error(503, "too many are answered already that take long: ask again");
                    return connection.reply(&reply, head.head_only, head.keep_alive, self.now);
                }
                let deadline = self.now + self.work_time;
                let work = match Work::new(name, head, details, clock::wall(), deadline) {
                    Ok(work) => work,
                    Err(sentence) => {
                        let reply = Reply::error(422, &sentence);
                        return connection.reply(&reply, head.head_only, head.keep_alive, self.now);
                    }
                };
                connection.phase = Phase::Works(asked, work);
                connection.deadline = deadline;
            }
            (name, said) => {
                let reply = reply::of(name, head, &self.home, said);
                connection.reply(&reply, head.head_only, head.keep_alive, self.now);
            }
        }
    }

    /// What was worked on is done.
    fn worked(&mut self, id: usize, connection: &mut Connection) {
        let Phase::Works(asked, work) = std::mem::replace(&mut connection.phase, Phase::Head) else { return };
        let Asked { route, head, .. } = &*asked;
        let search = match work {
            Work::Logs(search) => search,
            Work::Shares { details, shares, .. } => {
                let reply = reply::of_details(&details, &shares);
                return connection.reply(&reply, head.head_only, head.keep_alive, self.now);
            }
        };
        let found = search.end();
        found.faults.iter().for_each(|fault| eprintln!("{fault}"));
        if route.name != Name::FollowLogs {
            let reply = Reply::json(200, &found.json());
            return connection.reply(&reply, head.head_only, head.keep_alive, self.now);
        }
        let End { lines, files, read_back_to, mut faults } = found;
        if read_back_to.is_some() {
            faults.push("read old lines: it takes too long; some are left out".to_string());
        }
        self.watch(&files);
        connection.output.extend(reply::stream_head());
        if !lines.is_empty() {
            connection.output.extend(reply::event("lines", &lines));
        }
        if !faults.is_empty() {
            connection.output.extend(reply::event("faults", &faults));
        }
        let targets = routes::followed(head);
        connection.views(Phase::Follows(targets.clone(), files), self.now);
        let registry = self.poll.registry();
        let _ = self.control.subscribe(registry);
        // Those that were added meanwhile.
        let _ = self.control.ask(registry, Verb::Describe { targets }, Asker::Follower(id));
    }

    /// Asks what viewers are to be shown.
    fn show_viewers(&mut self) {
        self.tick = Some(self.now + TICK);
        let registry = self.poll.registry();
        let asked = match self.control.is_asked(Asker::Viewers) {
            true => Err(Failed::Lost("the daemon does not answer".to_string())),
            false => self.control.subscribe(registry),
        };
        let asked = asked.and_then(|()| self.control.ask(registry, Verb::List, Asker::Viewers));
        if let Err(Failed::Lost(error) | Failed::Refused(error)) = asked {
            self.show(&reply::event("lost", &json!({ "error": error })));
        }
    }

    fn show(&mut self, event: &[u8]) {
        for (id, connection) in &mut self.connections {
            if matches!(connection.phase, Phase::Views) && connection.unsent() < UNSENT {
                connection.say(event);
                self.ready.insert(*id);
            }
        }
    }

    /// A process was added: whoever follows log files may want its own too.
    fn follow_more(&mut self) {
        for (id, connection) in &self.connections {
            let Phase::Follows(targets, _) = &connection.phase else { continue };
            let verb = Verb::Describe { targets: targets.clone() };
            // A daemon that is gone has added nothing.
            let _ = self.control.ask(self.poll.registry(), verb, Asker::Follower(*id));
        }
    }

    fn watch(&mut self, files: &[Followed]) {
        if self.watches.is_none() {
            let made = Watches::new().and_then(|watches| {
                let fd = watches.as_fd().as_raw_fd();
                self.poll.registry().register(&mut SourceFd(&fd), FILES, Interest::READABLE)?;
                Ok(watches)
            });
            match made {
                Ok(watches) => self.watches = Some(watches),
                Err(error) => eprintln!("watch log files: {}", reason(&error)),
            }
        }
        if let Some(watches) = &self.watches {
            files.iter().for_each(|file| file.watch(watches));
        }
    }

    /// Has whoever follows files look at them. What has changed since the last look is all one.
    fn look_at_files(&mut self) {
        self.look = None;
        let Some(watches) = &self.watches else { return };
        let _ = watches.drain();
        let followers = self.connections.iter().filter(|(_, connection)| connection.follows());
        self.ready.extend(followers.map(|(id, _)| *id));
    }
}
