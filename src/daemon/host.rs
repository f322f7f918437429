//! What the machine as a whole uses. It is looked at when what processes use is noted, and never for its own sake.

use std::path::Path;

use crate::protocol::samples::Pace;
use crate::protocol::samples::host::Host;
use crate::sys::host;
use crate::time::{Millis, Mono};

/// A rate that is of fewer ticks of all processors tells nothing.
const TICKS: u64 = 10;

/// What the kernel had counted at a look.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Mono,
    /// Idle, and all.
    ticks: (u64, u64),
    /// Bytes in and out.
    traffic: Option<(u64, u64)>,
}

/// The last look of each pace.
#[derive(Debug, Default)]
pub struct Looks {
    minutes: Option<Look>,
    seconds: Option<Look>,
}

impl Looks {
    /// Looks, where the home is in this folder and looks are so far apart at most.
    pub fn look(&mut self, pace: Pace, now: Mono, every: Millis, home: &Path) -> Host {
        let look = host::ticks().map(|ticks| Look { at: now, ticks, traffic: host::traffic() });
        let before = self.before(pace, now, every);
        let (cpu, network) = before.zip(look).map_or((None, None), |(before, look)| rates(&before, &look));
        match pace {
            Pace::Minutes => self.minutes = look,
            Pace::Seconds => self.seconds = look,
        }
        Host {
            cpu,
            disk: host::disk(home).map(|percent| (percent * 10.0).round() as u16),
            load: host::load().map(|load| (load * 100.0).round() as u32),
            memory: host::memory().map(|(used, _)| used),
            network,
        }
    }

    /// The look that rates are since: of minutes the one before, else the last one at all. One that is too long ago
    /// was before a pause, in which nobody looked.
    fn before(&self, pace: Pace, now: Mono, every: Millis) -> Option<Look> {
        let last = match pace {
            Pace::Minutes => self.minutes,
            Pace::Seconds => self.seconds.into_iter().chain(self.minutes).max_by_key(|look| look.at),
        };
        last.filter(|look| now.since(look.at).0 <= 2 * every.0)
    }
}

/// Processor time in thousandths of all, and bytes in and out per second.
fn rates(before: &Look, look: &Look) -> (Option<u16>, Option<(u64, u64)>) {
    let idle = look.ticks.0.saturating_sub(before.ticks.0);
    let all = look.ticks.1.saturating_sub(before.ticks.1);
    if all < TICKS {
        return (None, None);
    }
    let cpu = (all.saturating_sub(idle) * 1_000 / all) as u16;
    let ms = look.at.since(before.at).0.max(1);
    let each = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1_000) / ms;
    let network = look.traffic.zip(before.traffic);
    (Some(cpu), network.map(|(now, before)| (each(now.0, before.0), each(now.1, before.1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, ticks: (u64, u64), traffic: Option<(u64, u64)>) -> Look {
        Look { at: Mono(at), ticks, traffic }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let before = look(1_000, (50, 100), Some((1_000, 0)));
        for (after, expected) in [
            (look(3_000, (90, 260), Some((5_000, 10))), (Some(750), Some((2_000, 5)))),
            (look(3_000, (150, 200), None), (Some(0), None)),
            // Counters may go back: idle time does, and an interface may have gone.
            (look(3_000, (40, 200), Some((0, 0))), (Some(1_000), Some((0, 0)))),
            (look(1_001, (51, 101), Some((2_000, 0))), (None, None)),
        ] {
            assert_eq!(rates(&before, &after), expected, "{after:?}");
        }
    }

    #[test]
    fn rates_are_since_the_last_look_unless_nobody_looked_for_long() {
        let of = |at| Some(look(at, (0, 0), None));
        let looks = Looks { minutes: of(1_000), seconds: of(30_000) };
        let before = |pace, now| looks.before(pace, Mono(now), Millis(60_000)).map(|look| look.at.0);
        assert_eq!(before(Pace::Minutes, 61_000), Some(1_000), "the whole minute");
        assert_eq!(before(Pace::Seconds, 61_000), Some(30_000));
        assert_eq!(before(Pace::Minutes, 200_000), None);
        assert_eq!(before(Pace::Seconds, 200_000), None);
        let looks = Looks { seconds: None, ..looks };
        assert_eq!(
            looks.before(Pace::Seconds, Mono(2_000), Millis(60_000)).map(|look| look.at.0),
            Some(1_000)
        );
    }

    #[test]
    fn a_look_at_this_machine_tells_all_of_it() {
        let mut looks = Looks::default();
        let first = looks.look(Pace::Minutes, Mono(0), Millis(60_000), Path::new("/"));
        assert!(first.cpu.is_none() && first.memory.is_some_and(|memory| memory > 1 << 20), "{first:?}");
        assert!(first.load.is_some() && first.disk.is_some_and(|disk| disk <= 1_000), "{first:?}");
        crate::sys::testing::wait_until("ticks", || {
            let next = looks.look(Pace::Seconds, Mono(1_000), Millis(60_000), Path::new("/"));
            looks.seconds = None;
            (next.cpu.is_some_and(|cpu| cpu <= 1_000) && next.network.is_some()).then_some(())
        });
    }
}
