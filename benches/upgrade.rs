//! What replacing the manager itself costs: failed requests of its servers, and the time in which nobody can command it.
//!
//! `cargo bench --bench upgrade [-- --quick]`

mod support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pmx::load::{Load, Report};

use support::server::{Server, pids};
use support::table::{Table, millis, spread};
use support::{Node, Outcome, Setup, find};

const INSTANCES: usize = 2;
const CLIENTS: usize = 16;
/// How often we look whether the command has ended.
const SLICE: Duration = Duration::from_millis(5);
/// How often the manager is asked whether it is there.
const PING: Duration = Duration::from_millis(2);
/// How long the servers may take until they answer again.
const BACK_LIMIT: Duration = Duration::from_secs(20);

/// One manager in one mode, over all its updates.
#[derive(Default)]
struct Row {
    steady: Report,
    update: Report,
    command_millis: Vec<f64>,
    deaf_millis: Vec<f64>,
    replaced: usize,
    errors: Vec<String>,
}

fn main() -> ExitCode {
    support::main("upgrade", Node::Needed, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let mut servers = start(setup)?;
    let rounds = if setup.quick { 1 } else { 5 };
    let mut table = Table::new(&[
        "what",
        "mode",
        "updates",
        "requests",
        "p99.9 ms",
        "to steady",
        "max ms",
        "command ms",
        "deaf for ms",
        "workers replaced",
        "failures",
    ]);
    for keep_alive in [false, true] {
        let mut rows: Vec<Row> = servers.iter().map(|_| Row::default()).collect();
        for _ in 0..rounds {
            for (server, row) in servers.iter_mut().zip(&mut rows) {
                setup.check_interrupt()?;
                measure(setup, server, keep_alive, row)
                    .map_err(|error| format!("{}: {error}", server.name))?;
            }
        }
        let mode = if keep_alive { "keep-alive" } else { "close" };
        for (server, row) in servers.iter().zip(&rows) {
            table.row([vec![server.name.clone(), mode.to_owned()], row.cells()].concat());
            for error in &row.errors {
                println!("{} {mode}: update: {error}", server.name);
            }
        }
    }
    table.print();
    Ok(())
}

/// Starts every manager that can be replaced.
fn start(setup: &Setup) -> Outcome<Vec<Server>> {
    let mut candidates = Vec::new();
    for manager in setup.managers() {
        let name = manager.name().to_owned();
        if manager.knows(setup, "update") {
            let server = Server::managed(setup, manager, &name, INSTANCES, &[]);
            candidates.push((name, server));
        } else {
            println!("{name} update: not available");
        }
    }
    match find("supervisord") {
        Some(_) => candidates.push(("supervisord".to_owned(), Server::supervised(setup, INSTANCES))),
        None => println!("supervisord: not installed"),
    }
    if candidates.is_empty() { Ok(Vec::new()) } else { Server::ready(setup, candidates) }
}

/// Steady state, then one update with the load going on, until the servers are back.
fn measure(setup: &Setup, server: &mut Server, keep_alive: bool, row: &mut Row) -> Outcome<()> {
    let text = |error: std::io::Error| error.to_string();
    let mut load = Load::new(server.plan(CLIENTS, keep_alive)).map_err(text)?;
    let settle = setup.time(Duration::from_millis(1000), Duration::from_millis(150));
    load.run_for(settle).map_err(text)?;
    let steady = load.take_report();

    let (ping, over) = (server.pinger(), AtomicBool::new(false));
    let (update, deaf, command) = thread::scope(|scope| -> Outcome<_> {
        let pinging = scope.spawn(|| longest_silence(&ping, &over));
        let update = under_load(setup, server, &mut load, settle);
        over.store(true, Ordering::Relaxed);
        let deaf = pinging.join().map_err(|_| "the pinging thread panicked")?;
        let (update, command) = update?;
        Ok((update, deaf, command))
    })?;

    row.deaf_millis.push(deaf.as_secs_f64() * 1e3);
    match command {
        Ok(took) => row.command_millis.push(took.as_secs_f64() * 1e3),
        Err(error) => row.errors.push(error),
    }
    let old: Vec<u32> = pids(&steady).collect();
    row.replaced += pids(&update).filter(|pid| !old.contains(pid)).count();
    server.learn_workers(&update);
    row.steady.merge(&steady);
    row.update.merge(&update);
    Ok(())
}

/// The command, and what clients see until a while after it; then until all is well again.
fn under_load(
    setup: &Setup,
    server: &mut Server,
    load: &mut Load,
    settle: Duration,
) -> Outcome<(Report, Outcome<Duration>)> {
    let text = |error: std::io::Error| error.to_string();
    let mut command = server.update()?;
    load.run_while(|| command.is_running(), SLICE).map_err(text)?;
    load.run_for(settle).map_err(text)?;
    let mut update = load.take_report();
    let began = Instant::now();
    loop {
        // Whoever answers its command at once is not done with it.
        load.run_for(settle).map_err(text)?;
        let report = load.take_report();
        let is_well = report.ok > 0 && report.failures.total() == 0;
        update.merge(&report);
        setup.check_interrupt()?;
        if is_well {
            break;
        }
        if began.elapsed() > BACK_LIMIT {
            return Err(format!("no answers {} s after the update", BACK_LIMIT.as_secs()));
        }
    }
    load.run_requests(0).map_err(text)?;
    update.merge(&load.take_report());
    let ended = command.wait().map(|()| command.took.unwrap_or_default());
    Ok((update, ended))
}

/// Asks again and again, until it is over and the manager is there. The longest time from one answer to the next.
fn longest_silence(ping: &(impl Fn() -> bool + Send), over: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let mut limit = None;
    loop {
        let answered = ping();
        if answered {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if over.load(Ordering::Relaxed) {
            let limit = *limit.get_or_insert_with(|| Instant::now() + BACK_LIMIT);
            if answered || Instant::now() > limit {
                return longest.max(last.elapsed());
            }
        }
        thread::sleep(PING);
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let tail = |report: &Report| report.latency.quantile(0.999);
        let ratio = tail(&self.update).as_secs_f64() / tail(&self.steady).as_secs_f64();
        let of = |values: &[f64]| if values.is_empty() { "–".to_owned() } else { spread(values) };
        vec![
            self.deaf_millis.len().to_string(),
            self.update.requests().to_string(),
            millis(tail(&self.update)),
            format!("{ratio:.2}"),
            millis(self.update.latency.max()),
            of(&self.command_millis),
            of(&self.deaf_millis),
            self.replaced.to_string(),
            self.update.failures.to_string(),
        ]
    }
}
