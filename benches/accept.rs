//! What a manager costs per request: short and kept-alive connections to two workers under each manager, against the
//! same two workers without any. CPU time per request is the number to trust, because the load shares the machine.
//!
//! `cargo bench --bench accept [-- --quick]`

mod support;

use std::process::ExitCode;
use std::time::Duration;

use pmx::load::{Failures, Load, Report};

use support::server::Server;
use support::table::{Table, median, spread};
use support::{Manager, Node, Outcome, Setup};

const INSTANCES: usize = 2;
const CLIENTS: usize = 64;
const POLICIES: [&str; 3] = ["reuseport", "rr", "shared"];

/// One server in one mode, over all rounds.
#[derive(Default)]
struct Row {
    rates: Vec<f64>,
    /// To the rate of the first server in the same round.
    ratios: Vec<f64>,
    worker_cpu: Duration,
    supervisor_cpu: Duration,
    total: Report,
    failures: Failures,
}

fn main() -> ExitCode {
    support::main("accept", Node::Needed, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let mut servers = start(setup)?;
    let rounds = if setup.quick { 1 } else { 5 };
    let mut table = Table::new(&[
        "what",
        "mode",
        "req/s",
        "to bare",
        "worker µs/req",
        "manager µs/req",
        "balance",
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
            let limit = servers[0].name == "bare";
            let bare = if limit { rows[0].rates.last().copied().unwrap_or(f64::NAN) } else { f64::NAN };
            for row in &mut rows {
                row.ratios.extend(row.rates.last().map(|rate| rate / bare));
            }
        }
        for (server, row) in servers.iter().zip(&rows) {
            table.row(row.cells(&server.name, keep_alive));
        }
    }
    table.print();
    Ok(())
}

/// Starts everything there is.
fn start(setup: &Setup) -> Outcome<Vec<Server>> {
    let mut candidates = vec![
        ("bare".to_owned(), Server::bare(setup, INSTANCES)),
        ("node cluster".to_owned(), Server::node_cluster(setup, INSTANCES)),
    ];
    for manager in setup.managers() {
        match manager {
            Manager::Pm2 => {
                let name = "pm2".to_owned();
                let server = Server::managed(setup, manager, &name, INSTANCES, &[]);
                candidates.push((name, server));
            }
            Manager::Pmx => {
                for policy in POLICIES {
                    let name = format!("pmx {policy}");
                    let server = Server::managed(setup, manager, &name, INSTANCES, &["--balance", policy]);
                    candidates.push((name, server));
                }
            }
        }
    }
    Server::ready(setup, candidates)
}

fn measure(setup: &Setup, server: &Server, keep_alive: bool, row: &mut Row) -> Outcome<()> {
    let mut load = Load::new(server.plan(CLIENTS, keep_alive)).map_err(|error| error.to_string())?;
    let run = |load: &mut Load, length: Duration| load.run_for(length).map_err(|error| error.to_string());
    run(&mut load, setup.time(Duration::from_millis(200), Duration::from_millis(20)))?;
    row.failures.merge(&load.take_report().failures);

    let before = server.cpu_times();
    run(&mut load, setup.time(Duration::from_millis(1500), Duration::from_millis(100)))?;
    let after = server.cpu_times();
    let report = load.take_report();
    row.rates.push(report.rate());
    row.worker_cpu += after.0.saturating_sub(before.0);
    row.supervisor_cpu += after.1.saturating_sub(before.1);
    row.failures.merge(&report.failures);
    row.total.merge(&report);

    load.run_requests(0).map_err(|error| error.to_string())?;
    row.failures.merge(&load.take_report().failures);
    Ok(())
}

impl Row {
    fn cells(&self, name: &str, keep_alive: bool) -> Vec<String> {
        let per_request =
            |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / self.total.requests() as f64);
        let mut shares: Vec<u64> = self.total.tally.iter().map(|(_, count)| *count).collect();
        shares.sort_unstable();
        let percent = |share: &u64| format!("{:.0}", *share as f64 * 100.0 / self.total.ok.max(1) as f64);
        vec![
            name.to_owned(),
            if keep_alive { "keep-alive" } else { "close" }.to_owned(),
            spread(&self.rates),
            format!("{:.2}", median(&self.ratios)),
            per_request(self.worker_cpu),
            per_request(self.supervisor_cpu),
            shares.iter().map(percent).collect::<Vec<_>>().join("/"),
            self.failures.to_string(),
        ]
    }
}
