//! The machine: what /proc says of it.

use std::fs;
use std::time::Instant;

use crate::cli::home::Home;

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
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = ticks(&read("/proc/stat"));
        if let (Some((idle, all)), Some((idle_before, before))) = (ticks, self.ticks)
            && all > before
        {
            self.cpu = Some(100.0 - 100.0 * idle.saturating_sub(idle_before) as f64 / (all - before) as f64);
        }
        self.ticks = ticks;
        self.memory = memory(&read("/proc/meminfo"));
        self.load = read("/proc/loadavg").split(' ').next().and_then(|word| word.parse().ok());
        let traffic = traffic(&read("/proc/net/dev"));
        let now = Instant::now();
        if let Some((came, went, at)) = self.traffic {
            let each =
                |now: u64, before: u64, seconds: f64| (now.saturating_sub(before) as f64 / seconds) as u64;
            let seconds = now.duration_since(at).as_secs_f64().max(0.001);
            self.net = Some((each(traffic.0, came, seconds), each(traffic.1, went, seconds)));
        }
        self.traffic = Some((traffic.0, traffic.1, now));
        self.disk = nix::sys::statvfs::statvfs(&home.path).ok().and_then(|fs| {
            // As df counts: what is kept for root is neither used nor to be had.
            let used = (fs.blocks() - fs.blocks_free()) as f64;
            let all = used + fs.blocks_available() as f64;
            (all > 0.0).then_some(100.0 * used / all)
        });
    }
}

/// Idle and all ticks, from /proc/stat.
fn ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // What guests use is counted in the first two as well.
    Some((fields.get(3)? + fields.get(4)?, fields.iter().take(8).sum()))
}

/// Bytes in use and in all, from /proc/meminfo.
fn memory(text: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let (all, free) = (of("MemTotal:")?, of("MemAvailable:")?);
    Some((all.saturating_sub(free), all))
}

/// Bytes in and out of all interfaces but loopback, from /proc/net/dev.
fn traffic(text: &str) -> (u64, u64) {
    let of_line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        (name.trim() != "lo").then_some((*counts.first()?, *counts.get(8)?))
    };
    text.lines().filter_map(of_line).fold((0, 0), |sum, line| (sum.0 + line.0, sum.1 + line.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        assert_eq!(ticks("cpu  10 0 5 80 5 0 0 0 3 0\ncpu0 1 2\n"), Some((85, 100)));
        assert_eq!(memory("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n"), Some((61_440, 102_400)));
        let text = "Inter-| Receive\n face |bytes\n lo: 9 0 0 0 0 0 0 0 9\neth0: 5 0 0 0 0 0 0 0 7 0\n";
        assert_eq!(traffic(text), (5, 7));
        assert!((ticks(""), memory(""), traffic("")) == (None, None, (0, 0)));
    }
}
