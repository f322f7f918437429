//! From the death of a process to the first instruction of its replacement: under a parent that does nothing but wait and
//! start the next one, and under managers.
//!
//! `cargo bench --bench restart [-- --quick]`

mod support;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, mkfifo};
use pmx::sys::{pipe, poll, spawn};

use support::fleet::{Fleet, Keeper};
use support::process::{self, Home};
use support::table::{Table, median};
use support::{Node, Outcome, Setup};

/// How long a replacement may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a process lives at least, so that its manager has gone back to sleep.
const LIFE: Duration = Duration::from_millis(5);
/// The same where a process that lives for less than a second waits for the rest of it.
const LONG_LIFE: Duration = Duration::from_millis(1_100);

/// The process that is killed: tells when it began, and waits.
const APP: &str = "--app";
/// The bare parents: by the standard library, and by pmx's own spawn.
const PARENT: &str = "--parent";
const OWN_PARENT: &str = "--own-parent";

/// One parent with its one process.
struct Row {
    name: String,
    life: Duration,
    /// It takes about a second.
    slow: bool,
    /// Milliseconds from death to life.
    times: Vec<f64>,
    /// The median to that of the bare parent, in each round.
    ratios: Vec<f64>,
    parent: Parent,
    signs: Signs,
    pid: Option<i32>,
    failure: Option<String>,
}

enum Parent {
    Bare(Child),
    Managed { _fleet: Fleet },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, fifo] = arguments.as_slice() {
        match role.as_str() {
            APP => live(fifo),
            PARENT => raise(fifo),
            OWN_PARENT => raise_by_own_spawn(fifo),
            _ => {}
        }
    }
    support::main("restart", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let mut rows = start(setup)?;
    let rounds = if setup.quick { 2 } else { 10 };
    for _ in 0..rounds {
        let mut limit = f64::NAN;
        for (at, row) in rows.iter_mut().enumerate() {
            let mut round = Vec::new();
            let few = if setup.quick { 1 } else { 3 };
            for _ in 0..if row.slow { few } else { 20 } {
                setup.check_interrupt()?;
                if row.failure.is_none() {
                    match row.kill_once() {
                        Ok(time) => round.push(time),
                        Err(error) => row.failure = Some(error),
                    }
                }
            }
            limit = if at == 0 { median(&round) } else { limit };
            if !round.is_empty() {
                row.ratios.push(median(&round) / limit);
            }
            row.times.extend(round);
        }
    }
    let mut table = Table::new(&["what", "kills", "median ms", "p99 ms", "max ms", "to bare"]);
    for row in &mut rows {
        if let Some(failure) = &row.failure {
            println!("{}: could not start again: {failure}", row.name);
        }
        row.times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (row.times.len() as f64 * share).ceil() as usize;
            row.times.get(index.max(1) - 1).map_or("–".to_owned(), |time| format!("{time:.2}"))
        };
        let (count, ratio) = (row.times.len().to_string(), format!("{:.2}", median(&row.ratios)));
        table.row(vec![row.name.clone(), count, at(0.5), at(0.99), at(1.0), ratio]);
    }
    table.print();
    Ok(())
}

/// The bare parents, the first of them first, and the managers that are there.
fn start(setup: &Setup) -> Outcome<Vec<Row>> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for (name, role) in [("bare", PARENT), ("bare, pmx's spawn", OWN_PARENT)] {
        let signs = Signs::new()?;
        let child = Command::new(&own).arg(role).arg(&signs.path).stdin(Stdio::null()).spawn();
        let parent = Parent::Bare(child.map_err(|error| error.to_string())?);
        rows.push(Row::new(name, LIFE, false, parent, signs));
    }
    for keeper in Keeper::installed() {
        let signs = Signs::new()?;
        let argv = [&*own.to_string_lossy(), APP, &*signs.path.to_string_lossy()];
        let fleet = Fleet::prepare(setup, keeper, &argv, 1)
            .and_then(|mut fleet| fleet.launch(setup).map(|_| Parent::Managed { _fleet: fleet }));
        let (name, life, slow) = match keeper {
            Keeper::S6 => ("s6, which pauses for 1 s", LIFE, true),
            Keeper::Runit => ("runit, after a life of 1.1 s", LONG_LIFE, true),
            Keeper::Supervisord => ("supervisord", LIFE, true),
            other => (other.name(), LIFE, false),
        };
        match fleet {
            Ok(parent) => rows.push(Row::new(name, life, slow, parent, signs)),
            Err(error) => println!("{name}: could not start: {error}"),
        }
    }
    for row in &mut rows {
        row.pid = Some(row.signs.next()?.0);
    }
    Ok(rows)
}

impl Row {
    fn new(name: &str, life: Duration, slow: bool, parent: Parent, signs: Signs) -> Row {
        let (name, times, ratios) = (name.to_owned(), Vec::new(), Vec::new());
        Row { name, life, slow, times, ratios, parent, signs, pid: None, failure: None }
    }

    /// Kills the process and returns how many milliseconds passed until the next one began.
    fn kill_once(&mut self) -> Outcome<f64> {
        sleep(self.life);
        let pid = self.pid.take().ok_or("no process")?;
        let began = nanos();
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
        let (pid, at) = self.signs.next()?;
        self.pid = Some(pid);
        Ok(at.saturating_sub(began) as f64 / 1e6)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let Parent::Bare(parent) = &mut self.parent else { return };
        let _ = parent.kill();
        let _ = parent.wait();
        // Its last process is nobody's child any more.
        let last = self.pid.map(|pid| pid as u32);
        process::end_all(
            &last.and_then(|pid| Some((pid, process::started(pid)?))).into_iter().collect::<Vec<_>>(),
        );
    }
}

/// Where processes tell that they live.
struct Signs {
    path: PathBuf,
    fifo: File,
    unread: String,
    _home: Home,
}

impl Signs {
    fn new() -> Outcome<Signs> {
        let home = Home::new()?;
        let path = home.0.join("signs");
        mkfifo(&path, Mode::S_IRWXU).map_err(|error| format!("make {}: {error}", path.display()))?;
        // Open to write too, so that it never ends.
        let fifo =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|error| error.to_string())?;
        Ok(Signs { path, fifo, unread: String::new(), _home: home })
    }

    /// The next process: its pid, and when it began.
    fn next(&mut self) -> Outcome<(i32, u64)> {
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let (pid, at) = line.split_once(' ').ok_or("a sign that is none")?;
                let sign = pid.parse().ok().zip(at.parse().ok()).ok_or("a sign that is none")?;
                self.unread = rest.to_owned();
                return Ok(sign);
            }
            let ready = poll::wait(&[(self.fifo.as_fd(), poll::Until::Readable)], Some(LIMIT));
            if !ready.map_err(|error| error.to_string())?[0] {
                return Err(format!("no replacement within {} s", LIMIT.as_secs()));
            }
            let mut buffer = [0; 512];
            let count = self.fifo.read(&mut buffer).map_err(|error| error.to_string())?;
            self.unread.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

fn nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

fn live(fifo: &str) -> ! {
    let began = nanos();
    if let Ok(mut fifo) = OpenOptions::new().write(true).open(fifo) {
        let _ = fifo.write_all(format!("{} {began}\n", std::process::id()).as_bytes());
    }
    loop {
        sleep(Duration::from_secs(1_000));
    }
}

/// What every parent must do, and nothing else.
fn raise(fifo: &str) -> ! {
    let own = std::env::current_exe().unwrap_or_default();
    loop {
        let mut command = Command::new(&own);
        command.args([APP, fifo]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(mut child) => drop(child.wait()),
            Err(_) => std::process::exit(1),
        }
    }
}

fn raise_by_own_spawn(fifo: &str) -> ! {
    let own = std::env::current_exe().unwrap_or_default();
    let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    let argv = [Path::as_os_str(&own).as_bytes(), APP.as_bytes(), fifo.as_bytes()].map(c_string);
    let env: Vec<CString> =
        std::env::vars().map(|(name, value)| c_string(format!("{name}={value}").as_bytes())).collect();
    loop {
        let (Ok(null), Ok(out), Ok(err)) = (File::open("/dev/null"), pipe::pipe(), pipe::pipe()) else {
            std::process::exit(1);
        };
        let fds = [(null.as_raw_fd(), 0), (out.1.as_raw_fd(), 1), (err.1.as_raw_fd(), 2)];
        let spawned = spawn::spawn(&spawn::Spawn {
            programs: &argv[..1],
            argv: &argv,
            env: &env,
            env_pid: None,
            cwd: c"/",
            umask: 0o022,
            fds: &fds,
            user: None,
            nofile: None,
            oom_score_adj: None,
            terminal: None,
            ..Default::default()
        });
        match spawned {
            Ok(child) => drop(waitpid(Pid::from_raw(child.pid), None)),
            Err(_) => std::process::exit(1),
        }
    }
}
