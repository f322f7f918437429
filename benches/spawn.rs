//! How long it takes to start many processes: a bare loop, and managers that are given one declaration of them all.
//!
//! `cargo bench --bench spawn [-- --quick]`

mod support;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pmx::sys::{pipe, reap, spawn};

use support::fleet::{Fleet, Keeper};
use support::table::{Table, median};
use support::{Node, Outcome, Setup};

const APP: [&str; 2] = ["/bin/sleep", "1000"];

/// How one row starts its processes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// posix_spawn by the standard library; the children inherit what we have.
    Inherit,
    /// The same with what a supervisor must do: /dev/null as stdin, two pipes to read.
    Pipes,
    /// pmx's own spawn: the same, and a session of its own, signals at their defaults, a pidfd.
    Own,
    /// A manager.
    Managed(Keeper),
}

/// One way of starting, over all rounds; milliseconds per process.
struct Row {
    how: How,
    count: usize,
    all: Vec<f64>,
    births: Vec<f64>,
    /// To the bare loop with pipes in the same round.
    ratios: Vec<f64>,
}

fn main() -> ExitCode {
    support::main("spawn", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let count = if setup.quick { 100 } else { 500 };
    // A start takes pm2 so long that fewer tell as much.
    let of = |how| match how {
        How::Managed(Keeper::Pm2) => count / 10,
        _ => count,
    };
    let bare = [How::Pipes, How::Inherit, How::Own];
    let managed = Keeper::installed().into_iter().map(How::Managed);
    let row = |how| Row { how, count: of(how), all: vec![], births: vec![], ratios: vec![] };
    let mut rows: Vec<Row> = bare.into_iter().chain(managed).map(row).collect();
    // The first spawns of all find cold caches.
    bare_loop(20, true)?;
    for _ in 0..if setup.quick { 1 } else { 5 } {
        let mut limit = f64::NAN;
        rows.retain_mut(|row| match row.measure(setup) {
            Ok(millis) => {
                if row.how == How::Pipes {
                    limit = millis;
                }
                row.ratios.push(millis / limit);
                true
            }
            Err(error) => {
                println!("{}: could not start {}: {error}", row.name(), row.count);
                false
            }
        });
        setup.check_interrupt()?;
    }
    let mut table =
        Table::new(&["what", "processes", "ms in all", "ms each", "ms each, first to last", "to bare"]);
    for row in &rows {
        table.row(row.cells());
    }
    table.print();
    Ok(())
}

impl Row {
    fn name(&self) -> &'static str {
        match self.how {
            How::Inherit => "bare posix_spawn, nothing else",
            How::Pipes => "bare posix_spawn, two pipes",
            How::Own => "bare loop of pmx's spawn, two pipes",
            How::Managed(keeper) => keeper.name(),
        }
    }

    /// One round. Milliseconds per process.
    fn measure(&mut self, setup: &Setup) -> Outcome<f64> {
        let each = |time: Duration, count: usize| time.as_secs_f64() * 1e3 / count as f64;
        let (all, births) = match self.how {
            How::Managed(keeper) => {
                let mut fleet = Fleet::prepare(setup, keeper, &APP, self.count)?;
                let launch = fleet.launch(setup)?;
                (launch.all, launch.births)
            }
            How::Own => own_loop(self.count).map(|time| (time, time))?,
            How::Inherit | How::Pipes => {
                bare_loop(self.count, self.how == How::Pipes).map(|time| (time, time))?
            }
        };
        self.all.push(each(all, self.count));
        self.births.push(each(births, self.count));
        Ok(each(all, self.count))
    }

    fn cells(&self) -> Vec<String> {
        let spread = |values: &[f64]| {
            let of = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(f64::NAN);
            format!("{:.2} ({:.2}–{:.2})", median(values), of(f64::min), of(f64::max))
        };
        vec![
            self.name().to_owned(),
            self.count.to_string(),
            format!("{:.0}", median(&self.all) * self.count as f64),
            spread(&self.all),
            format!("{:.2}", median(&self.births)),
            format!("{:.2}", median(&self.ratios)),
        ]
    }
}

/// Children of ours, ended with their owner.
struct Bare(Vec<Child>);

impl Drop for Bare {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn bare_loop(count: usize, pipes: bool) -> Outcome<Duration> {
    let mut children = Bare(Vec::with_capacity(count));
    let began = Instant::now();
    for _ in 0..count {
        let mut command = Command::new(APP[0]);
        command.args(&APP[1..]);
        if pipes {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        children.0.push(command.spawn().map_err(|error| error.to_string())?);
    }
    Ok(began.elapsed())
}

/// As [`Bare`].
#[derive(Default)]
struct Own(Vec<(spawn::Spawned, [OwnedFd; 2])>);

impl Drop for Own {
    fn drop(&mut self) {
        for (child, _) in &self.0 {
            let _ = pmx::sys::pidfd::send(None, child.pid, nix::libc::SIGKILL);
        }
        for (child, _) in &self.0 {
            while reap::reap_one(child.pid).is_none() {
                std::thread::yield_now();
            }
        }
    }
}

fn own_loop(count: usize) -> Outcome<Duration> {
    let text = |error: std::io::Error| error.to_string();
    let c_string = |word: &str| CString::new(word).unwrap_or_default();
    let argv = APP.map(c_string);
    let env: Vec<CString> =
        std::env::vars().map(|(name, value)| c_string(&format!("{name}={value}"))).collect();
    let mut children = Own::default();
    let began = Instant::now();
    for _ in 0..count {
        let null = File::open("/dev/null").map_err(text)?;
        let (out, theirs_out) = pipe::pipe().map_err(text)?;
        let (err, theirs_err) = pipe::pipe().map_err(text)?;
        let fds = [(null.as_raw_fd(), 0), (theirs_out.as_raw_fd(), 1), (theirs_err.as_raw_fd(), 2)];
        let child = spawn::spawn(&spawn::Spawn {
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
        children.0.push((child.map_err(|error| error.to_string())?, [out, err]));
    }
    Ok(began.elapsed())
}
