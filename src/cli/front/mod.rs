//! `front`: serves pm2's own JavaScript client on `rpc.sock` and `pub.sock`. It is a client of the daemon in a
//! process of its own, so that nothing which reads a foreign format is the parent of anybody's app. The
//! daemon's death does not end it (its connection passes to the next daemon), the daemon's farewell does.

mod bus;
mod daemon;
mod peer;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::home::Home;
use super::jlist::element;
use super::resolve;
use crate::app::{Instances, Mode, SharedEnv, Watched, dump};
use crate::pm2::{self, Call, Plan, Reply};
use crate::protocol::{Detail, Event, EventKind, Existing, Frames, Outcome, Verb};
use crate::sys::{lock, socket, users};
use bus::Bus;
use daemon::{Many, Pending, Then, Whose};
use peer::{Heard, Peer, Side};

/// How long a front may take until it serves.
const START_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(5);
/// How long clients may take to read their last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Clients at a time; more are turned away.
const PEERS: usize = 256;
/// The longest answer of the daemon.
const ANSWER_LIMIT: usize = 64 << 20;
/// Events of the kernel in one round.
const EVENTS: usize = 64;

const CALLS: Token = Token(0);
const EVENTS_LISTENER: Token = Token(1);
const DAEMON: Token = Token(2);
const FILES: Token = Token(3);
const FIRST_PEER: usize = 16;

/// Refuses to share a home with pm2 itself: two daemons would run every app twice.
pub fn refuse_pm2(home: &Home) -> Result<(), String> {
    if StdStream::connect(home.path.join(pm2::CALLS)).is_err() || is_held(home)? {
        return Ok(());
    }
    Err(format!(
        "pm2 itself runs in {0}: pmx import pm2 takes its apps over, or pm2 kill ends it",
        home.path.display()
    ))
}

/// Whether a front of ours is there, or about to be.
fn is_held(home: &Home) -> Result<bool, String> {
    let path = home.path.join("front.lock");
    if !path.exists() {
        return Ok(false);
    }
    let failed = |error| format!("lock {}: {error}", path.display());
    let file = lock::open(&path).map_err(failed)?;
    lock::try_lock(&file).map(|ours| !ours).map_err(failed)
}

/// Starts a front for a daemon that runs, if there is none.
pub fn ensure(home: &Home, caller: &Caller) -> Result<(), String> {
    let socket = home.path.join(pm2::EVENTS);
    let serves = || StdStream::connect(&socket).is_ok();
    if is_held(home)? && serves() {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("start the front for pm2's client: {error}");
    let log = fs::OpenOptions::new().append(true).create(true).open(home.log()).map_err(failed)?;
    Command::new(&caller.exe)
        .arg0("pmx")
        .arg("front")
        .env("PMX_COMPAT", "pm2")
        .env("PM2_HOME", &home.path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + START_DEADLINE;
    while !serves() {
        if Instant::now() >= deadline {
            return Err(format!("the front for pm2's client does not serve (see {})", home.log().display()));
        }
        std::thread::sleep(RETRY);
    }
    Ok(())
}

/// `pmx front`: serves until the daemon is gone.
pub fn front(home: &Home) -> Result<(), String> {
    let path = home.path.join("front.lock");
    let failed = |error| format!("lock {}: {error}", path.display());
    let held = lock::open(&path).map_err(failed)?;
    if !lock::try_lock(&held).map_err(failed)? {
        // Another one serves.
        return Ok(());
    }
    // Not for the signals of whoever started us.
    let _ = users::new_session();
    let mut front = Front::open(home)?;
    let ended = front.run();
    for name in [pm2::CALLS, pm2::EVENTS] {
        let _ = fs::remove_file(home.path.join(name));
    }
    for name in ["pm2.pid", "pm2.log"] {
        let path = home.path.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            let _ = fs::remove_file(path);
        }
    }
    ended
}

/// What serves.
struct Front<'a> {
    home: &'a Home,
    poll: Poll,
    calls: UnixListener,
    events: UnixListener,
    daemon: UnixStream,
    answers: Frames,
    requests: Vec<u8>,
    pending: BTreeMap<u64, Pending>,
    last_id: u64,
    peers: BTreeMap<usize, Peer>,
    next_peer: usize,
    bus: Bus,
    /// The processes as they were last seen, for events about what is gone.
    seen: BTreeMap<u32, Value>,
    /// How often they had been restarted when they last came up.
    restarts: BTreeMap<u32, u64>,
}

impl<'a> Front<'a> {
    fn open(home: &'a Home) -> Result<Front<'a>, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let poll = Poll::new().map_err(|error| failed("make an epoll", error))?;
        let daemon = socket::connect_control(&home.socket());
        let daemon = daemon.map_err(|error| failed("connect to the daemon", error))?;
        daemon.set_nonblocking(true).map_err(|error| failed("connect to the daemon", error))?;
        let mut daemon = UnixStream::from_std(daemon);
        let registry = poll.registry();
        let both = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut daemon, DAEMON, both)
            .map_err(|error| failed("watch the connection to the daemon", error))?;
        // The names that people and service managers look for.
        for (name, own) in [("pm2.pid", "pmx.pid"), ("pm2.log", "pmx.log")] {
            stand_for(&home.path.join(name), own).map_err(|error| failed(&format!("make {name}"), error))?;
        }
        let pids = home.path.join("pids");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pids);
        made.map_err(|error| failed(&format!("create {}", pids.display()), error))?;
        let listen = |name: &str, token: Token| {
            let path = home.path.join(name);
            let _ = fs::remove_file(&path);
            let failed = |error| format!("listen on {}: {error}", path.display());
            let fd = socket::bind_control(&path).map_err(failed)?;
            let mut listener = UnixListener::from_std(fd.into());
            registry.register(&mut listener, token, Interest::READABLE).map_err(failed)?;
            Ok::<UnixListener, String>(listener)
        };
        let calls = listen(pm2::CALLS, CALLS)?;
        let events = listen(pm2::EVENTS, EVENTS_LISTENER)?;
        let bus = Bus::new().map_err(|error| failed("watch files", error))?;
        registry
            .register(&mut SourceFd(&bus.as_fd().as_raw_fd()), FILES, Interest::READABLE)
            .map_err(|error| failed("watch files", error))?;
        let mut front = Front {
            home,
            poll,
            calls,
            events,
            daemon,
            answers: Frames::new(ANSWER_LIMIT),
            requests: Vec::new(),
            pending: BTreeMap::new(),
            last_id: 0,
            peers: BTreeMap::new(),
            next_peer: FIRST_PEER,
            bus,
            seen: BTreeMap::new(),
            restarts: BTreeMap::new(),
        };
        front.ask(Verb::Subscribe, Then::Nothing);
        front.ask(Verb::Describe { targets: vec!["all".to_string()] }, Then::Follow);
        Ok(front)
    }

    fn run(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.bus.patience()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(format!("wait for events: {error}"));
                }
                _ => {}
            }
            let tokens: Vec<Token> = events.iter().map(|event| event.token()).collect();
            for token in tokens {
                match token {
                    CALLS => self.accept(Side::Calls),
                    EVENTS_LISTENER => self.accept(Side::Events),
                    DAEMON => {
                        if !self.hear_daemon()? {
                            self.leave();
                            return Ok(());
                        }
                    }
                    FILES => {}
                    Token(peer) => self.hear(peer),
                }
            }
            let mut lines = Vec::new();
            self.bus.read(&mut lines);
            for (name, payload) in lines {
                self.publish(&name, payload);
            }
            self.flush_requests()?;
            let poll = &self.poll;
            self.peers.retain(|_, peer| peer.flush(poll.registry()));
            if !self.peers.values().any(|peer| peer.side == Side::Events) {
                self.bus.rest();
            }
        }
    }

    /// The daemon is gone: whoever waits has lost, and what was answered is still sent.
    fn leave(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            if let Then::List(to) | Then::Look(to, _) | Then::Tell(to, _) | Then::Value(to, _) = pending.then
            {
                self.refuse(&to, "the daemon ended before it answered");
            }
        }
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.peers.values().any(|peer| !peer.is_flushed()) && Instant::now() < deadline {
            let poll = &self.poll;
            self.peers.retain(|_, peer| peer.flush(poll.registry()));
            std::thread::sleep(RETRY);
        }
    }

    fn accept(&mut self, side: Side) {
        loop {
            let listener = if side == Side::Calls { &self.calls } else { &self.events };
            let Ok((stream, _)) = listener.accept() else { return };
            let us = users::effective_uid();
            let is_welcome = socket::peer_uid(&stream).is_ok_and(|(uid, _)| uid == us || uid == 0);
            if !is_welcome || self.peers.len() >= PEERS {
                continue;
            }
            let token = self.next_peer;
            self.next_peer += 1;
            let Ok(peer) = Peer::new(stream, side, self.poll.registry(), Token(token)) else { continue };
            self.peers.insert(token, peer);
            if side == Side::Events && !self.bus.is_awake() {
                self.bus.wake();
                self.ask(Verb::Describe { targets: vec!["all".to_string()] }, Then::Follow);
            }
        }
    }

    fn hear(&mut self, token: usize) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        let mut heard = Vec::new();
        let state = peer.read(&mut heard);
        let pid = peer.pid;
        for call in heard {
            self.call(token, pid, &call);
        }
        if state == Heard::Over
            && let Some(peer) = self.peers.remove(&token)
        {
            peer.close(self.poll.registry());
        }
    }

    fn call(&mut self, peer: usize, pid: i32, call: &Call) {
        let to = Whose { peer, call: call.id.clone() };
        match pm2::plan(call) {
            Plan::Say(value) => self.reply(&to, pm2::calls(call), value),
            Plan::Refuse(sentence) => self.refuse(&to, &sentence),
            Plan::List => {
                self.ask(Verb::Describe { targets: vec!["all".to_string()] }, Then::List(to));
            }
            Plan::Start(fields) => match start(&fields) {
                Ok(verb) => self.ask(verb, Then::Look(to, Many::All)),
                Err(sentence) => self.refuse(&to, &sentence),
            },
            Plan::Duplicate(id) => {
                self.ask(Verb::Describe { targets: vec![id.to_string()] }, Then::Duplicate(to));
            }
            Plan::Watch(id) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.to_watch.insert(id);
                }
                self.reply(&to, true, json!({"success": true}));
            }
            Plan::Ask(mut verb, Reply::Process) => {
                if let (Verb::Restart { targets, changes }, Some(peer)) =
                    (&mut verb, self.peers.get_mut(&peer))
                {
                    let id = targets.first().and_then(|target| target.parse().ok());
                    if id.is_some_and(|id| peer.to_watch.remove(&id)) {
                        changes.triggers.watch = Some(Watched::Cwd);
                    }
                }
                self.ask(verb, Then::Look(to, Many::One));
            }
            Plan::Ask(verb, Reply::Value(value)) => self.ask(verb, Then::Value(to, value)),
            Plan::Ask(verb, Reply::Gone(id)) => {
                let mut last = self.seen.get(&id).cloned().unwrap_or_else(|| json!({"pm_id": id}));
                if let Some(env) = last.get_mut("pm2_env") {
                    env["status"] = json!("stopped");
                }
                self.ask(verb, Then::Value(to, last));
            }
            Plan::Signal(target, name) => match super::signal(&name) {
                Ok(signal) => {
                    let verb = Verb::Signal { targets: vec![target], signal };
                    self.ask(verb, Then::Value(to, json!([])));
                }
                Err(sentence) => self.refuse(&to, &sentence),
            },
            Plan::Farewell => {
                self.publish("pm2:kill", json!({"status": "killed", "msg": "pm2 has been killed"}));
                self.reply(&to, true, json!({}));
            }
            Plan::Kill(whom) => self.ask(Verb::Kill, Then::Killed(to, whom.filter(|whom| *whom == pid))),
        }
    }

    fn reply(&mut self, to: &Whose, is_call: bool, value: Value) {
        if let Some(peer) = self.peers.get_mut(&to.peer) {
            peer.push(&pm2::reply(&to.call, is_call, value));
        }
    }

    fn refuse(&mut self, to: &Whose, sentence: &str) {
        if let Some(peer) = self.peers.get_mut(&to.peer) {
            peer.push(&pm2::error(&to.call, sentence));
        }
    }

    fn publish(&mut self, name: &str, payload: Value) {
        let mut frame = None;
        for peer in self.peers.values_mut().filter(|peer| peer.side == Side::Events) {
            peer.offer(frame.get_or_insert_with(|| pm2::event(name, payload.clone())));
        }
    }

    fn elements(&mut self, details: &[Detail]) -> Vec<Value> {
        let mut list = Vec::new();
        for detail in details {
            let mut one = element(detail, self.home);
            one["process"] = json!({"pid": detail.view.pid});
            self.restarts.entry(detail.view.id).or_insert(detail.view.restarts.into());
            self.seen.insert(detail.view.id, one.clone());
            list.push(one);
        }
        list
    }

    fn event(&mut self, event: Event) {
        match event.kind {
            EventKind::Deleted => {
                let last = self.seen.remove(&event.id);
                self.restarts.remove(&event.id);
                let _ = fs::remove_file(self.home.pid_file(&event.name, event.id));
                self.tell(&event, last.as_ref());
            }
            EventKind::Message => {
                let process = self.seen.get(&event.id).map(brief);
                let process = process.unwrap_or_else(|| json!({"pm_id": event.id, "name": event.name}));
                let raw: Value = serde_json::from_str(&event.detail).unwrap_or(Value::Null);
                let at = event.at.0;
                match (said(&raw), raw.get("data")) {
                    // What pmx itself tells is not an app's to say.
                    (Some(kind), Some(data)) => {
                        let payload = json!({"at": at, "data": data, "process": process});
                        self.publish(kind, payload);
                    }
                    _ => self.publish("process:msg", json!({"at": at, "raw": raw, "process": process})),
                }
            }
            _ => {
                let targets = vec![event.id.to_string()];
                self.ask(Verb::Describe { targets }, Then::Publish(Box::new(event)));
            }
        }
    }

    /// An event under pm2's name for it.
    fn tell(&mut self, event: &Event, now: Option<&Value>) {
        let count = now.and_then(|now| now.pointer("/pm2_env/restart_time")?.as_u64()).unwrap_or(0);
        let was_restarted = event.kind == EventKind::Online
            && self.restarts.insert(event.id, count).is_some_and(|before| before < count);
        let names: &[&str] = match event.kind {
            EventKind::Spawned => &["start"],
            EventKind::Online if was_restarted => &["online", "restart"],
            EventKind::Online => &["online"],
            EventKind::Stopped => &["stop"],
            EventKind::Exited => &["exit"],
            EventKind::Reloaded => &["reload"],
            EventKind::Errored => &["restart overlimit"],
            EventKind::Deleted => &["delete"],
            _ => &[],
        };
        let mut env = now.and_then(|now| now.get("pm2_env").cloned()).unwrap_or_else(|| json!({}));
        if let Value::Object(env) = &mut env {
            env.remove("env");
            env.entry("name").or_insert_with(|| json!(event.name));
            env.entry("pm_id").or_insert_with(|| json!(event.id));
        }
        for name in names {
            let payload = json!({"event": name, "manually": false, "process": env, "at": event.at.0});
            self.publish("process:event", payload);
        }
    }

    /// pm2's pid files are for people and scripts; nothing is decided by them.
    fn note_pid(&self, detail: &Detail) {
        let path = self.home.pid_file(&detail.view.name, detail.view.id);
        let _ = match detail.view.pid {
            0 => fs::remove_file(path),
            pid => fs::write(path, pid.to_string()),
        };
    }
}

/// A name for a file of ours. What pm2 itself left under it is kept beside.
fn stand_for(path: &Path, own: &str) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::remove_file(path)?,
        Ok(_) => fs::rename(path, path.with_extension("of-pm2"))?,
        Err(_) => {}
    }
    std::os::unix::fs::symlink(own, path)
}

/// What pm2's client wants started, as one of our requests.
fn start(fields: &Map<String, Value>) -> Result<Verb, String> {
    let mut saved = dump::of_pm2(fields).map_err(|fault| format!("what is to be started {fault}"))?;
    let app = &mut saved.app;
    let count = match fields.get("instances") {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(1),
        Some(Value::String(text)) if text == "max" => 0,
        Some(Value::String(text)) => text.trim().parse().unwrap_or(1),
        _ => 1,
    };
    app.instances = match u32::try_from(count) {
        Ok(0) => Instances::CpusLess(0),
        Ok(count) => Instances::Count(count),
        Err(_) => Instances::CpusLess(count.unsigned_abs().try_into().unwrap_or(u32::MAX)),
    };
    if app.mode == Mode::Auto {
        app.mode = Mode::Fork;
    }
    let is_alone = app.mode == Mode::Fork && app.instances == Instances::Count(1);
    app.merge_logs = is_alone || fields.get("merge_logs").and_then(Value::as_bool).unwrap_or(false);
    app.umask = users::umask();
    app.user = resolve::user(saved.user.as_deref(), saved.group.as_deref())?;
    app.check()?;
    let inherit: SharedEnv = std::mem::take(&mut app.inherit);
    Ok(Verb::Start { apps: vec![saved.app], inherit, existing: Existing::Force })
}

fn failed(outcomes: &[Outcome]) -> Option<String> {
    let failure = |outcome: &Outcome| {
        let failure = outcome.failure.as_ref()?;
        Some(format!("{}({}): {}", outcome.name, outcome.id, failure.reason))
    };
    outcomes.iter().find_map(failure)
}

/// What an app calls its message, if that is not a name of ours.
fn said(raw: &Value) -> Option<&str> {
    let kind = raw.get("type")?.as_str()?;
    let is_ours = ["log:", "pm2:", "process:event"].iter().any(|ours| kind.starts_with(ours));
    (!is_ours).then_some(kind)
}

/// What events say of a process.
fn brief(element: &Value) -> Value {
    let of = |pointer: &str| element.pointer(pointer).cloned().unwrap_or(Value::Null);
    json!({
        "pm_id": of("/pm_id"),
        "name": of("/name"),
        "rev": Value::Null,
        "namespace": of("/pm2_env/namespace"),
    })
}
