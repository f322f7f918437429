//! Metrics as OpenMetrics writes them, and as Prometheus did before. Pure.

use std::fmt::{Display, Write};

use super::host::{Disk, Host};
use crate::protocol::{Detail, Health, Status};

const STATUSES: [Status; 8] = [
    Status::Online,
    Status::Launching,
    Status::Stopping,
    Status::Waiting,
    Status::Scheduled,
    Status::Blocked,
    Status::Stopped,
    Status::Errored,
];

/// A text that is being written, one family after the other.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, unit: &str, about: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.0, "# HELP {name} {about}.");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

/// The same in the older text format of Prometheus, version 0.0.4: it knows fewer kinds, no units and no end, and gives
/// the type of a metric under its whole name.
pub fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut suffix = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, what) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (name, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let _ = match (mark, what) {
            ("#", "TYPE") => {
                let kind;
                (kind, suffix) = match rest {
                    "counter" => ("counter", "_total"),
                    "info" => ("gauge", "_info"),
                    "unknown" => ("untyped", ""),
                    _ => ("gauge", ""),
                };
                writeln!(plain, "# TYPE {name}{suffix} {kind}")
            }
            ("#", "HELP") => writeln!(plain, "# HELP {name}{suffix} {rest}"),
            ("#", _) => Ok(()),
            _ => writeln!(plain, "{line}"),
        };
    }
    plain
}

/// All metrics.
pub fn text(details: &[Detail], host: &Host, disk: Option<Disk>) -> String {
    let labels: Vec<String> = details.iter().map(labels).collect();
    let all = || details.iter().zip(labels.iter().map(String::as_str));
    let mut text = Text(String::new());

    text.family("pmx_build", "info", "", "The version of pmx");
    text.sample("pmx_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);

    text.family("pmx_process_status", "stateset", "", "The status of a process");
    for (detail, labels) in all() {
        for status in STATUSES {
            let word = status.word();
            let is_so = u8::from(detail.view.status == status);
            text.sample("pmx_process_status", &format!("{labels},pmx_process_status=\"{word}\""), is_so);
        }
    }
    text.family("pmx_process_up", "gauge", "", "Whether a process is online");
    for (detail, labels) in all() {
        text.sample("pmx_process_up", labels, u8::from(detail.view.status == Status::Online));
    }
    text.family("pmx_process_healthy", "gauge", "", "Whether the health checks of a process pass");
    for (detail, labels) in all() {
        if let Some(health) = detail.view.health {
            text.sample("pmx_process_healthy", labels, u8::from(health == Health::Healthy));
        }
    }
    let about =
        "The processor time of a process and its descendants, as a share of one core, since the last look";
    text.family("pmx_process_cpu_ratio", "gauge", "ratio", about);
    for (detail, labels) in all() {
        if let Some(cpu) = detail.view.cpu {
            text.sample("pmx_process_cpu_ratio", labels, f64::from(cpu) / 100.0);
        }
    }
    let about = "The resident memory of a process and its descendants";
    text.family("pmx_process_resident_memory_bytes", "gauge", "bytes", about);
    for (detail, labels) in all() {
        if let Some(memory) = detail.view.memory {
            text.sample("pmx_process_resident_memory_bytes", labels, memory);
        }
    }
    text.family("pmx_process_tree_processes", "gauge", "processes", "How many processes it consists of");
    for (detail, labels) in all() {
        text.sample("pmx_process_tree_processes", labels, detail.view.processes);
    }
    text.family("pmx_process_threads", "gauge", "threads", "How many threads these have");
    for (detail, labels) in all() {
        text.sample("pmx_process_threads", labels, detail.view.threads);
    }
    text.family("pmx_process_start_time_seconds", "gauge", "seconds", "When its current child was started");
    for (detail, labels) in all() {
        if let Some(since) = detail.view.since {
            text.sample("pmx_process_start_time_seconds", labels, since.0 as f64 / 1e3);
        }
    }
    let about = "How often a child took the place of another, since the last reset, by cause";
    text.family("pmx_process_restarts", "counter", "", about);
    for (detail, labels) in all() {
        let created = detail.created.0 as f64 / 1e3;
        for (cause, count) in &detail.by_cause {
            let labels = format!("{labels},cause=\"{}\"", cause.word());
            text.sample("pmx_process_restarts_total", &labels, count);
            text.sample("pmx_process_restarts_created", &labels, created);
        }
    }
    used(&mut text, details, &labels);
    text.family("pmx_process_unstable_restarts", "gauge", "", "Unstable ends in a row");
    for (detail, labels) in all() {
        text.sample("pmx_process_unstable_restarts", labels, detail.view.unstable);
    }

    text.family("pmx_host_load", "gauge", "", "The load average");
    for (minutes, load) in [1, 5, 15].into_iter().zip(host.load) {
        text.sample("pmx_host_load", &format!("minutes=\"{minutes}\""), load);
    }
    text.family("pmx_host_memory_bytes", "gauge", "bytes", "The memory of this machine");
    text.sample("pmx_host_memory_bytes", "", host.memory);
    text.family("pmx_host_memory_available_bytes", "gauge", "bytes", "What of it could be had");
    text.sample("pmx_host_memory_available_bytes", "", host.available);
    text.family("pmx_host_processors", "gauge", "processors", "How many processors it has");
    text.sample("pmx_host_processors", "", host.processors);
    let about = "Processor time of this machine since it was booted, by what it was spent on";
    text.family("pmx_host_cpu_seconds", "counter", "seconds", about);
    for (what, time) in &host.spent {
        text.sample("pmx_host_cpu_seconds_total", &format!("mode=\"{what}\""), time);
    }
    for (name, about) in
        [("received", "Bytes that came by a network interface"), ("sent", "Bytes that went by it")]
    {
        let family = format!("pmx_host_network_{name}_bytes");
        text.family(&family, "counter", "bytes", about);
        for (interface, came, went) in &host.network {
            let labels = format!("interface=\"{}\"", escaped(interface));
            text.sample(&format!("{family}_total"), &labels, if name == "sent" { went } else { came });
        }
    }
    if let Some(disk) = disk {
        text.family("pmx_host_disk_bytes", "gauge", "bytes", "The size of the file system with pmx's home");
        text.sample("pmx_host_disk_bytes", "", disk.size);
        text.family("pmx_host_disk_available_bytes", "gauge", "bytes", "What of it we could have");
        text.sample("pmx_host_disk_available_bytes", "", disk.available);
    }
    text.0.push_str("# EOF\n");
    text.0
}

/// What processes hold, took, wrote and told.
fn used(text: &mut Text, details: &[Detail], labels: &[String]) {
    let all = || details.iter().zip(labels.iter().map(String::as_str));
    text.family(
        "pmx_process_open_fds",
        "gauge",
        "fds",
        "How many files these have open, as far as pmx may look",
    );
    for (detail, labels) in all() {
        if let Some(fds) = detail.fds {
            text.sample("pmx_process_open_fds", labels, fds);
        }
    }
    let about = "How fast its memory grows, where it grows so steadily that it looks like a leak";
    text.family("pmx_process_leak_bytes_per_hour", "gauge", "", about);
    for (detail, labels) in all() {
        if let Some(leak) = detail.view.leak {
            text.sample("pmx_process_leak_bytes_per_hour", labels, leak.rate);
        }
    }
    let about = "When its memory reaches its limit, if it goes on growing like this";
    text.family("pmx_process_leak_limit_seconds", "gauge", "seconds", about);
    for (detail, labels) in all() {
        if let Some(reached) = detail.view.leak.and_then(|leak| leak.reached_in) {
            text.sample("pmx_process_leak_limit_seconds", labels, reached.0 / 1_000);
        }
    }
    let about = "Connections that pmx handed to the current child and that it took; missing where the kernel deals them out";
    text.family("pmx_process_accepted_connections", "counter", "connections", about);
    for (detail, labels) in all() {
        if let Some(accepted) = detail.view.accepted {
            text.sample("pmx_process_accepted_connections_total", labels, accepted);
        }
    }
    let about = "Connections that wait in the queue that a process accepts from; with rr and shared it is that of all instances";
    text.family("pmx_process_listen_queue_connections", "gauge", "connections", about);
    for (detail, labels) in all() {
        for queue in &detail.queues {
            let labels = format!("{labels},address=\"{}\"", escaped(&queue.address));
            text.sample("pmx_process_listen_queue_connections", &labels, queue.waiting);
        }
    }
    text.family("pmx_process_listen_backlog_connections", "gauge", "connections", "How many may wait there");
    for (detail, labels) in all() {
        for queue in &detail.queues {
            let labels = format!("{labels},address=\"{}\"", escaped(&queue.address));
            text.sample("pmx_process_listen_backlog_connections", &labels, queue.most);
        }
    }
    text.family("pmx_process_log_bytes", "counter", "bytes", "Output of a process since the daemon began");
    for (detail, labels) in all() {
        text.sample("pmx_process_log_bytes_total", labels, detail.log_bytes);
    }
    let about = "Lines of its output that found no room in that time";
    text.family("pmx_process_log_lost_lines", "counter", "lines", about);
    for (detail, labels) in all() {
        text.sample("pmx_process_log_lost_lines_total", labels, detail.lines_lost);
    }
    for (family, unit, name, about) in TOLD {
        text.family(family, "gauge", unit, about);
        for (detail, labels) in all() {
            if let Some(value) = told(detail, name) {
                text.sample(family, labels, value);
            }
        }
    }
}

/// What Node apps tell by the library of pm2, under these names.
const TOLD: [(&str, &str, &str, &str); 5] = [
    (
        "pmx_node_event_loop_delay_seconds",
        "seconds",
        "Event Loop Latency",
        "The delay of the event loop, as the app tells",
    ),
    (
        "pmx_node_event_loop_delay_p95_seconds",
        "seconds",
        "Event Loop Latency p95",
        "95 of 100 delays are shorter",
    ),
    ("pmx_node_heap_used_bytes", "bytes", "Used Heap Size", "What of the heap is used, as the app tells"),
    ("pmx_node_heap_bytes", "bytes", "Heap Size", "The heap, as the app tells"),
    ("pmx_node_active_handles", "", "Active handles", "Handles that keep it alive, as the app tells"),
];

/// A number that an app told, in seconds or bytes.
fn told(detail: &Detail, name: &str) -> Option<f64> {
    let metric = detail.axm.monitor.get(name)?;
    let value = metric.get("value").unwrap_or(metric);
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    let unit = metric.get("unit").and_then(serde_json::Value::as_str).unwrap_or_default();
    let factor = match unit {
        "ms" => 1e-3,
        "KiB" | "KB" => 1024.0,
        "MiB" | "MB" => 1024.0 * 1024.0,
        "GiB" | "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    Some(number * factor).filter(|number| number.is_finite())
}

fn labels(detail: &Detail) -> String {
    let view = &detail.view;
    let (name, namespace) = (escaped(&view.name), escaped(&view.namespace));
    format!("id=\"{}\",name=\"{name}\",namespace=\"{namespace}\",instance_id=\"{}\"", view.id, view.instance)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_runs_is_still_a_whole_text() {
        let text = text(&[], &Host::default(), None);
        assert!(text.starts_with("# TYPE pmx_build info\n") && text.ends_with("\n# EOF\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.split(' ').count() == 2), "{text}");
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
