//! The machine, from one look to the next.

use std::time::Instant;

use crate::cli::home::Home;
use crate::sys::host;

/// What was seen at the last look; `None`: it cannot be told, or not yet.
#[derive(Default)]
pub struct Host {
    /// Processor time in use, in percent of all processors.
    pub cpu: Option<f64>,
    /// Memory in use, and all of it, in bytes.
    pub memory: Option<(u64, u64)>,
    /// Processes that run or wait, on average of a minute.
    pub load: Option<f64>,
    /// Of the file system of the home, in percent.
    pub disk: Option<f64>,
    /// Bytes per second in and out, but for loopback.
    pub net: Option<(u64, u64)>,
    /// Of the look before: idle and all ticks.
    ticks: Option<(u64, u64)>,
    /// The same: bytes in and out, and when.
    traffic: Option<(u64, u64, Instant)>,
}

impl Host {
    /// Looks again.
    pub fn look(&mut self, home: &Home) {
        let ticks = host::ticks();
        if let (Some((idle, all)), Some((idle_before, before))) = (ticks, self.ticks)
            && all > before
        {
            self.cpu = Some(100.0 - 100.0 * idle.saturating_sub(idle_before) as f64 / (all - before) as f64);
        }
        self.ticks = ticks;
        self.memory = host::memory();
        self.load = host::load();
        let traffic = host::traffic().unwrap_or_default();
        let now = Instant::now();
        if let Some((came, went, at)) = self.traffic {
            let each =
                |now: u64, before: u64, seconds: f64| (now.saturating_sub(before) as f64 / seconds) as u64;
            let seconds = now.duration_since(at).as_secs_f64().max(0.001);
            self.net = Some((each(traffic.0, came, seconds), each(traffic.1, went, seconds)));
        }
        self.traffic = Some((traffic.0, traffic.1, now));
        self.disk = host::disk(&home.path);
    }
}
