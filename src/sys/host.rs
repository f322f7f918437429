//! The machine as a whole, as the kernel counts it. `None`: it does not tell.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// What is looked for stands in so much of the beginning.
const BEGINNING: usize = 512;

/// Processor time since boot in ticks, of all processors together: idle, and all of it.
pub fn ticks() -> Option<(u64, u64)> {
    ticks_of(&beginning("/proc/stat")?)
}

/// Bytes of memory in use, which is what nobody could have, and all of it.
pub fn memory() -> Option<(u64, u64)> {
    memory_of(&beginning("/proc/meminfo")?)
}

/// Processes that run or wait, on average of a minute.
pub fn load() -> Option<f64> {
    beginning("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

/// Bytes in and out since boot, through all interfaces but loopback.
pub fn traffic() -> Option<(u64, u64)> {
    Some(traffic_of(&fs::read_to_string("/proc/net/dev").ok()?))
}

/// How much of the file system of a folder is in use, in percent.
pub fn disk(folder: &Path) -> Option<f64> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    // As df counts: what is kept for root is neither used nor to be had.
    let used = found.blocks().saturating_sub(found.blocks_free()) as f64;
    let all = used + found.blocks_available() as f64;
    (all > 0.0).then_some(100.0 * used / all)
}

/// Of a file whose lines the kernel makes when they are read.
fn beginning(path: &str) -> Option<String> {
    let mut bytes = [0; BEGINNING];
    let count = File::open(path).ok()?.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn ticks_of(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // Waiting for a disk is idle. What guests use is counted in the first two as well.
    Some((fields.get(3)? + fields.get(4)?, fields.iter().take(8).sum()))
}

fn memory_of(text: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let (all, free) = (of("MemTotal:")?, of("MemAvailable:")?);
    Some((all.saturating_sub(free), all))
}

fn traffic_of(text: &str) -> (u64, u64) {
    let of_line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let mut counts = counts.split_whitespace().map_while(|count| count.parse::<u64>().ok());
        (name.trim() != "lo").then_some((counts.next()?, counts.nth(7)?))
    };
    text.lines().filter_map(of_line).fold((0, 0), |sum, line| (sum.0 + line.0, sum.1 + line.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        assert_eq!(ticks_of("cpu  10 0 5 80 5 0 0 0 3 0\ncpu0 1 2\n"), Some((85, 100)));
        let text = "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n";
        assert_eq!(memory_of(text), Some((61_440, 102_400)));
        let text = "Inter-| Receive\n face |bytes\n lo: 9 0 0 0 0 0 0 0 9\neth0: 5 0 0 0 0 0 0 0 7 0\n";
        assert_eq!(traffic_of(text), (5, 7));
        assert!((ticks_of(""), memory_of(""), traffic_of("a: 1 2")) == (None, None, (0, 0)));
    }

    #[test]
    fn this_machine_tells_all_of_it() {
        let ((idle, ticks), (used, memory)) = (ticks().unwrap(), memory().unwrap());
        assert!(0 < idle && idle < ticks && 0 < used && used < memory);
        assert!(load().is_some_and(|load| load >= 0.0) && traffic().is_some());
        assert!(disk(Path::new("/")).is_some_and(|share| (0.0..=100.0).contains(&share)));
        assert_eq!(disk(Path::new("/nowhere")), None);
    }
}
