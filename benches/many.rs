//! What ten thousand quiet processes without logs cost: to start them, to list them, to have them, to find them again
//! after a SIGKILL of the daemon, and to stop them.
//!
//! `cargo bench --bench many [-- --quick]`

mod support;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::fleet::{Fleet, Keeper};
use support::process::{cpu_time, held, wait_until};
use support::table::{Table, median};
use support::{Node, Outcome, Setup};

const APP: [&str; 2] = ["/bin/sleep", "100000"];
const LISTS: usize = 9;
/// After it has been busy, until it has given back what that took.
const SETTLE: Duration = Duration::from_secs(3);
/// How long its processor time is counted.
const WINDOW: Duration = Duration::from_secs(10);
const BACK_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    support::main("many", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let count = if setup.quick { 100 } else { 10_000 };
    let mut fleet = Fleet::without_logs(setup, Keeper::Pmx, &APP, count)?;
    let launch = match fleet.launch(setup) {
        Ok(launch) => launch,
        Err(error) => {
            println!("pmx: could not start {count}: {error}");
            return Ok(());
        }
    };
    let took = |fleet: &Fleet, command: &[&str]| {
        let began = Instant::now();
        setup.check_interrupt()?;
        fleet.command(setup, command).map(|()| began.elapsed().as_secs_f64())
    };
    let lists = (0..LISTS).map(|_| took(&fleet, &["list"])).collect::<Outcome<Vec<f64>>>()?;
    sleep(setup.time(SETTLE, Duration::from_millis(500)));
    let own = fleet.own();
    let rss = held(&own).rss as f64 / 1024.0;
    let cpu = || own.iter().map(|pid| cpu_time(*pid)).sum::<Duration>();
    let (before, window) = (cpu(), setup.time(WINDOW, Duration::from_secs(1)));
    sleep(window);
    let idle = (cpu() - before).as_secs_f64() * 100.0 / window.as_secs_f64();

    let apps = fleet.apps();
    let daemon = fleet.daemon().ok_or("the daemon's pid file is gone")?;
    let killed = Instant::now();
    kill(Pid::from_raw(daemon as i32), Signal::SIGKILL).map_err(|error| format!("kill {daemon}: {error}"))?;
    wait_until("another daemon", BACK_LIMIT, || fleet.command(setup, &["ping"]).is_ok())?;
    let back = killed.elapsed().as_secs_f64();
    if fleet.apps() != apps {
        return Err("the daemon that came after a SIGKILL has not the same processes".to_string());
    }
    let stopped = took(&fleet, &["stop", "all"])?;
    if !fleet.apps().is_empty() {
        return Err("processes live that were stopped".to_string());
    }

    let mut table = Table::new(&[
        "what",
        "processes",
        "started",
        "list",
        "RSS with the keeper",
        "CPU, idle",
        "back after SIGKILL",
        "stopped",
    ]);
    table.row(vec![
        "pmx".to_string(),
        count.to_string(),
        format!("{:.1} s", launch.all.as_secs_f64()),
        format!(
            "{:.2} s ({:.2}–{:.2})",
            median(&lists),
            lists.iter().copied().fold(f64::INFINITY, f64::min),
            lists.iter().copied().fold(0.0, f64::max)
        ),
        format!("{rss:.1} MB"),
        format!("{idle:.1} %"),
        format!("{back:.2} s"),
        format!("{stopped:.1} s"),
    ]);
    table.print();
    Ok(())
}
