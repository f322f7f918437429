//! What a manager costs while nothing happens: memory, descriptors and wake-ups, with no process and with many quiet ones.
//! Only the manager's own processes count, all of them.
//!
//! `cargo bench --bench footprint [-- --quick]`

mod support;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::fleet::{Fleet, Keeper};
use support::process::{Held, held};
use support::table::Table;
use support::{Node, Outcome, Setup};

const APP: [&str; 2] = ["/bin/sleep", "1000"];
/// From the start of the last process until the first look.
const SETTLE: Duration = Duration::from_secs(3);
/// How long wake-ups are counted.
const WINDOW: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    support::main("footprint", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let keepers = Keeper::installed();
    let counts: &[usize] = if setup.quick { &[0, 50] } else { &[0, 100, 1000] };
    let mut table = Table::new(&[
        "what",
        "processes",
        "its own",
        "RSS KB",
        "PSS KB",
        "RSS KB each more",
        "PSS KB each more",
        "fds",
        "wake-ups in 10 s",
    ]);
    let mut empty: Vec<(Keeper, Held)> = Vec::new();
    for &count in counts {
        // All at the same time: they are to do nothing, and the wait is long.
        let mut fleets = Vec::new();
        for &keeper in &keepers {
            setup.check_interrupt()?;
            let fleet = Fleet::prepare(setup, keeper, &APP, count)
                .and_then(|mut fleet| fleet.launch(setup).map(|_| fleet));
            match fleet {
                Ok(fleet) => fleets.push(fleet),
                Err(error) => println!("{}: could not start {count}: {error}", keeper.name()),
            }
        }
        rest(setup, setup.time(SETTLE, Duration::from_millis(500)))?;
        let before: Vec<(Vec<u32>, Held)> = fleets
            .iter()
            .map(|fleet| {
                let own = fleet.own();
                let held = held(&own);
                (own, held)
            })
            .collect();
        let window = setup.time(WINDOW, Duration::from_secs(1));
        rest(setup, window)?;
        for (fleet, (own, before)) in fleets.iter().zip(before) {
            let after = held(&own);
            let keeper = fleet.keeper;
            let base = empty.iter().find(|(other, _)| *other == keeper).map(|(_, held)| *held);
            if count == 0 {
                empty.push((keeper, before));
            }
            let more = |now: u64, then: fn(&Held) -> u64| match base {
                Some(base) if count > 0 => {
                    format!("{:.1}", (now as f64 - then(&base) as f64) / count as f64)
                }
                _ => "–".to_owned(),
            };
            let wakes = (after.sleeps - before.sleeps) as f64 * WINDOW.as_secs_f64() / window.as_secs_f64();
            table.row(vec![
                keeper.name().to_owned(),
                count.to_string(),
                own.len().to_string(),
                before.rss.to_string(),
                before.pss.to_string(),
                more(before.rss, |held| held.rss),
                more(before.pss, |held| held.pss),
                before.fds.to_string(),
                format!("{wakes:.0}"),
            ]);
        }
    }
    table.print();
    Ok(())
}

fn rest(setup: &Setup, length: Duration) -> Outcome<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        setup.check_interrupt()?;
        sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
