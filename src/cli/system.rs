//! Facts about this machine, for people: what `slist` and `report` show. What the kernel does not tell is left
//! out.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::sys::limits;

/// How long the processors are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A file of one line, without the newline.
pub fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_string())
}

/// The distribution's name for itself.
pub fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_string())
}

/// Memory in bytes, by the kernel's name for it: `MemTotal`, `MemAvailable`, `SwapFree`.
pub fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The three load averages.
pub fn load() -> Option<[f64; 3]> {
    let text = line("/proc/loadavg")?;
    let mut words = text.split(' ').map_while(|word| word.parse().ok());
    Some([words.next()?, words.next()?, words.next()?])
}

/// How long the machine runs, in seconds.
pub fn uptime() -> Option<f64> {
    line("/proc/uptime")?.split(' ').next()?.parse().ok()
}

/// What is free for us and what there is, in bytes, where `path` is stored.
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let found = statvfs(path).ok()?;
    let unit = found.fragment_size() as u64;
    Some((found.blocks_available() as u64 * unit, found.blocks() as u64 * unit))
}

/// Bytes received and sent since boot, but for those to ourselves.
pub fn network() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/net/dev").ok()?;
    let mut sum = (0, 0);
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if name.trim() != "lo" && numbers.len() > 8 {
            sum = (sum.0 + numbers[0], sum.1 + numbers[8]);
        }
    }
    Some(sum)
}

/// The share of time that the processors were not idle, in percent, over a short while.
pub fn busy() -> Option<f64> {
    let before = ticks()?;
    thread::sleep(LOOK);
    let after = ticks()?;
    let all = after.0.saturating_sub(before.0).max(1);
    Some(after.1.saturating_sub(before.1) as f64 * 100.0 / all as f64)
}

/// All time of all processors since boot, and that in which they were not idle.
fn ticks() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let numbers: Vec<u64> = text.lines().next()?.split(' ').filter_map(|word| word.parse().ok()).collect();
    // What guests used is counted under user time already.
    let all: u64 = numbers.iter().take(8).sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some((all, all - idle))
}

/// How many processors may be used, and how many there are.
pub fn processors() -> (u32, usize) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    (limits::cpus(), text.lines().filter(|line| line.starts_with("processor")).count())
}
