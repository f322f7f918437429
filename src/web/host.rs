//! This machine, as the kernel tells it. What it does not tell is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use serde_json::{Map, Value, json};

/// How the machine is.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Bytes of memory, and those that could be had.
    pub memory: u64,
    pub available: u64,
    /// Seconds since it was booted.
    pub uptime: f64,
    pub processors: usize,
    /// Seconds of processor time since then, by what it was spent on.
    pub spent: Vec<(&'static str, f64)>,
    /// Bytes that came and went, by interface.
    pub network: Vec<(String, u64, u64)>,
}

/// What the kernel counts processor time for, in its order.
const SPENT: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// A file system.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes, and those that we could have.
    pub size: u64,
    pub available: u64,
}

impl Disk {
    /// That which holds a folder.
    pub fn of(folder: &Path) -> Option<Disk> {
        let found = nix::sys::statvfs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Some(Disk { size: bytes(found.blocks()), available: bytes(found.blocks_available()) })
    }
}

impl Host {
    /// Looks.
    pub fn look() -> Host {
        let mut host = Host::default();
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        for (place, word) in host.load.iter_mut().zip(text("/proc/loadavg").split(' ')) {
            *place = word.parse().unwrap_or_default();
        }
        for line in text("/proc/meminfo").lines() {
            let Some((name, rest)) = line.split_once(':') else { continue };
            let bytes = rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10;
            match name {
                "MemTotal" => host.memory = bytes,
                "MemAvailable" => host.available = bytes,
                _ => {}
            }
        }
        host.uptime =
            text("/proc/uptime").split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let stat = text("/proc/stat");
        host.processors = stat.lines().filter(|line| is_processor(line)).count();
        let all = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
        // In ticks of 10 ms, for programs always.
        host.spent = SPENT.into_iter().zip(all.map(|word| word.parse().unwrap_or(0.0) / 100.0)).collect();
        host.network = text("/proc/net/dev").lines().filter_map(interface).collect();
        host
    }

    /// For our own page and API.
    pub fn json(&self) -> Value {
        json!({
            "hostname": name(),
            "uptime": self.uptime,
            "load": self.load,
            "memory": self.memory,
            "memory_available": self.available,
            "processors": self.processors,
            "spent": self.spent.iter().map(|(what, time)| (*what, *time)).collect::<BTreeMap<_, _>>(),
            "network": self.network.iter().map(|(name, came, went)| json!({"name": name, "received": came, "sent": went})).collect::<Value>(),
        })
    }

    /// pm2's `system_info` and `monit`.
    pub fn pm2(&self) -> (Value, Value) {
        let info = json!({ "hostname": name(), "uptime": self.uptime });
        let monit = json!({
            "loadavg": self.load,
            "total_mem": self.memory,
            "free_mem": self.available,
            "cpu": processors(),
            "interfaces": interfaces(),
        });
        (info, monit)
    }
}

fn name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `eth0: <bytes in> and seven more, <bytes out> …`
fn interface(line: &str) -> Option<(String, u64, u64)> {
    let (name, counts) = line.split_once(':')?;
    let counts: Vec<u64> = counts.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    Some((name.trim().to_string(), *counts.first()?, *counts.get(8)?))
}

/// `cpu0 ...`, and not the sum of all.
fn is_processor(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// As Node's `os.cpus()`.
fn processors() -> Vec<Value> {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |name: &str| -> Vec<String> {
        let lines = about.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| Some(line.split_once(':')?.1.trim().to_string())).collect()
    };
    let (models, speeds) = (values("model name"), values("cpu MHz"));
    let times = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = times.lines().filter(|line| is_processor(line));
    let one = |(at, line): (usize, &str)| {
        // In ticks of 10 ms, for programs always.
        let ms: Vec<u64> =
            line.split(' ').skip(1).filter_map(|word| Some(word.parse::<u64>().ok()? * 10)).collect();
        let time = |at: usize| ms.get(at).copied().unwrap_or_default();
        let speed = speeds.get(at).and_then(|speed| speed.parse::<f64>().ok()).unwrap_or_default();
        json!({
            "model": models.get(at),
            "speed": speed.round(),
            "times": { "user": time(0), "nice": time(1), "sys": time(2), "idle": time(3), "irq": time(5) },
        })
    };
    lines.enumerate().map(one).collect()
}

/// As Node's `os.networkInterfaces()`, without hardware addresses.
fn interfaces() -> Map<String, Value> {
    let mut found = Map::new();
    for interface in getifaddrs().into_iter().flatten() {
        let (Some(address), Some(netmask)) = (interface.address, interface.netmask) else { continue };
        let pair = (address.as_sockaddr_in(), netmask.as_sockaddr_in());
        let pair6 = (address.as_sockaddr_in6(), netmask.as_sockaddr_in6());
        let (family, address, netmask) = match (pair, pair6) {
            ((Some(address), Some(mask)), _) => ("IPv4", address.ip().to_string(), mask.ip().to_string()),
            (_, (Some(address), Some(mask))) => ("IPv6", address.ip().to_string(), mask.ip().to_string()),
            _ => continue,
        };
        let internal = interface.interface_name == "lo";
        let one = json!({ "address": address, "netmask": netmask, "family": family, "internal": internal });
        let list = found.entry(interface.interface_name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let line = "  eth0: 1296 12 0 0 0 0 0 0 340 7 0 0 0 0 0 0";
        assert_eq!(interface(line), Some(("eth0".to_string(), 1296, 340)));
        for strange in ["", "Inter-|   Receive", "eth0:", "eth0: 1 2 3", "eth0: a b c d e f g h i"] {
            assert_eq!(interface(strange), None, "{strange}");
        }
        let host = Host::look();
        assert_eq!(host.spent.iter().map(|(what, _)| *what).collect::<Vec<_>>(), SPENT);
        assert!(host.spent[3].1 > 0.0 && host.network.iter().any(|(name, ..)| name == "lo"), "{host:?}");
        assert!(Disk::of(Path::new("/")).is_some_and(|disk| disk.size > disk.available));
        assert!(Disk::of(Path::new("/nowhere")).is_none());
    }
}
