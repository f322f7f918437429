//! What clients notice of a reload: failed requests by kind, and latencies against the steady state of the same run.
//!
//! `cargo bench --bench reload [-- --quick]`

mod support;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use pmx::load::{Load, Report};

use support::server::{Server, pids};
use support::table::{Table, millis, spread};
use support::{Node, Outcome, Setup};

const CLIENTS: usize = 16;
/// How often we look whether the command has ended.
const SLICE: Duration = Duration::from_millis(5);

/// One server in one mode, over all its reloads.
#[derive(Default)]
struct Row {
    steady: Report,
    reload: Report,
    command_millis: Vec<f64>,
    new_workers: usize,
    errors: Vec<String>,
}

fn main() -> ExitCode {
    support::main("reload", Node::Needed, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let mut servers = start(setup)?;
    let rounds = if setup.quick { 1 } else { 5 };
    let mut table = Table::new(&[
        "what",
        "mode",
        "window",
        "requests",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "p99.9 to steady",
        "command ms",
        "new workers",
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
        for (server, row) in servers.iter().zip(&rows) {
            let mode = if keep_alive { "keep-alive" } else { "close" };
            for cells in row.cells(rounds * server.instances) {
                table.row([vec![server.name.clone(), mode.to_owned()], cells].concat());
            }
            for error in &row.errors {
                println!("{} {mode}: reload: {error}", server.name);
            }
        }
    }
    table.print();
    Ok(())
}

/// Starts everything there is.
fn start(setup: &Setup) -> Outcome<Vec<Server>> {
    let mut candidates = Vec::new();
    for manager in setup.managers() {
        for instances in [1, 2] {
            let name = format!("{} -i {instances}", manager.name());
            let server = Server::managed(setup, manager, &name, instances, &[]);
            candidates.push((name, server));
        }
    }
    Server::ready(setup, candidates)
}

/// Steady state, then one reload with the load going on, and a while after it: workers may still be on their way out.
fn measure(setup: &Setup, server: &mut Server, keep_alive: bool, row: &mut Row) -> Outcome<()> {
    let text = |error: std::io::Error| error.to_string();
    let mut load = Load::new(server.plan(CLIENTS, keep_alive)).map_err(text)?;
    let settle = setup.time(Duration::from_millis(1000), Duration::from_millis(150));
    load.run_for(settle).map_err(text)?;
    let steady = load.take_report();

    let mut command = server.reload()?;
    load.run_while(|| command.is_running(), SLICE).map_err(text)?;
    load.run_for(settle).map_err(text)?;
    load.run_requests(0).map_err(text)?;
    let reload = load.take_report();

    row.errors.extend(command.wait().err());
    row.command_millis.extend(command.took.map(|took| took.as_secs_f64() * 1e3));
    let old: BTreeSet<u32> = pids(&steady).collect();
    row.new_workers += pids(&reload).filter(|pid| !old.contains(pid)).count();
    server.learn_workers(&reload);
    row.steady.merge(&steady);
    row.reload.merge(&reload);
    Ok(())
}

impl Row {
    fn cells(&self, expected_workers: usize) -> [Vec<String>; 2] {
        let tail = |report: &Report| report.latency.quantile(0.999).as_secs_f64();
        let window = |name: &str, report: &Report, more: [String; 3]| {
            let mut cells = vec![name.to_owned(), report.requests().to_string()];
            cells.extend([0.5, 0.99, 0.999].map(|share| millis(report.latency.quantile(share))));
            cells.push(millis(report.latency.max()));
            cells.extend(more);
            cells.push(report.failures.to_string());
            cells
        };
        let ratio = format!("{:.2}", tail(&self.reload) / tail(&self.steady));
        let command =
            if self.command_millis.is_empty() { "–".to_owned() } else { spread(&self.command_millis) };
        let workers = format!("{}/{expected_workers}", self.new_workers);
        let none = || "–".to_owned();
        [
            window("steady", &self.steady, [none(), none(), none()]),
            window("reload", &self.reload, [ratio, command, workers]),
        ]
    }
}
