//! What an app may use and may do: declared limits of each process and of all of an instance together, and
//! privileges. The kernel enforces them; what it cannot here, refuses the start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::units;

/// Limits of the processes of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Of each process: soft and hard; `None` is without limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub each: BTreeMap<Resource, [Option<u64>; 2]>,
    /// How much it gives way to others, -20 to 19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// How likely the kernel ends it for want of memory, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Processor time of all together, in percent of one processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Bytes of memory of all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes of memory of all together above which they are slowed down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<u64>,
    /// Processes and threads of all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

/// What setrlimit(2) limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Bytes of address space.
    As,
    /// Bytes of a core file.
    Core,
    /// Seconds of processor time.
    CpuTime,
    /// Bytes of data.
    Data,
    /// Bytes of a file that it writes.
    Fsize,
    /// Bytes locked into memory.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Open files.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// Real-time priority.
    Rtprio,
    /// Signals that wait.
    Sigpending,
    /// Bytes of stack.
    Stack,
}

/// What an app may do beyond its user's rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// No program that it executes gives it more rights (as sudo would). Not said: yes, if it runs as somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privs: Option<bool>,
    /// All capabilities that it and what it starts can ever have, by number; a user other than root gets them too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<u32>>,
}

/// The kernel's capabilities, each at its number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

impl Resource {
    const ALL: [Resource; 12] = [
        Resource::As,
        Resource::Core,
        Resource::CpuTime,
        Resource::Data,
        Resource::Fsize,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rtprio,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Resource::As => "as",
            Resource::Core => "core",
            Resource::CpuTime => "cpu_time",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rtprio => "rtprio",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }

    fn is_bytes(self) -> bool {
        match self {
            Resource::As
            | Resource::Core
            | Resource::Data
            | Resource::Fsize
            | Resource::Memlock
            | Resource::Msgqueue
            | Resource::Stack => true,
            Resource::CpuTime
            | Resource::Nofile
            | Resource::Nproc
            | Resource::Rtprio
            | Resource::Sigpending => false,
        }
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Whether something is limited that only a control group can.
    pub fn need_group(&self) -> bool {
        self.cpu.is_some() || self.memory.is_some() || self.memory_high.is_some() || self.pids.is_some()
    }

    /// As declared: an object. The error says what is wrong with it, if it is one.
    pub fn declared(value: &Value) -> Result<Limits, String> {
        let Value::Object(map) = value else { return Err(String::new()) };
        let mut limits = Limits::default();
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let text = match value {
                Value::String(text) => text.trim().to_string(),
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            let expected = |what: &str| format!("{name} is {what}");
            match name.as_str() {
                "nice" => limits.nice = Some(within(&text, -20, 19).ok_or_else(|| expected("-20 to 19"))?),
                "oom_score_adj" => {
                    let score = within(&text, -1000, 1000);
                    limits.oom_score_adj = Some(score.ok_or_else(|| expected("-1000 to 1000"))?);
                }
                "cpu" => {
                    limits.cpu = Some(percent(&text).ok_or_else(|| {
                        expected("a percentage such as \"150%\", or a number of processors such as 1.5")
                    })?);
                }
                "memory" | "memory_high" => {
                    let bytes = bytes(&text).filter(|bytes| *bytes > 0);
                    let bytes = Some(bytes.ok_or_else(|| expected("bytes, such as \"512M\""))?);
                    match name.as_str() {
                        "memory" => limits.memory = bytes,
                        _ => limits.memory_high = bytes,
                    }
                }
                "pids" => {
                    let count = text.parse().ok().filter(|count| *count > 0);
                    limits.pids = Some(count.ok_or_else(|| expected("a number of processes and threads"))?);
                }
                other => {
                    let resource = Resource::ALL.into_iter().find(|resource| resource.word() == other);
                    let Some(resource) = resource else {
                        return Err(format!("{other} is none; there are {}", Limits::names().join(", ")));
                    };
                    let pair = pair(&text, resource).ok_or_else(|| {
                        expected("a number, \"unlimited\", or both limits as \"soft:hard\"")
                    })?;
                    limits.each.insert(resource, pair);
                }
            }
        }
        Ok(limits)
    }

    /// All names in a declaration.
    pub fn names() -> Vec<&'static str> {
        let together = ["cpu", "memory", "memory_high", "nice", "oom_score_adj", "pids"];
        let mut names: Vec<_> = Resource::ALL.into_iter().map(Resource::word).chain(together).collect();
        names.sort_unstable();
        names
    }

    /// Each as name and value, for people.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let one = |limit: Option<u64>| limit.map_or("unlimited".to_string(), |limit| limit.to_string());
        let each = self.each.iter().map(|(resource, [soft, hard])| {
            (
                resource.word(),
                if soft == hard { one(*soft) } else { format!("{}:{}", one(*soft), one(*hard)) },
            )
        });
        let mut shown: Vec<_> = each.collect();
        let mut add = |name, value: Option<String>| shown.extend(value.map(|value| (name, value)));
        add("nice", self.nice.map(|nice| nice.to_string()));
        add("oom_score_adj", self.oom_score_adj.map(|score| score.to_string()));
        add("cpu", self.cpu.map(|percent| format!("{percent}%")));
        add("memory", self.memory.map(|bytes| bytes.to_string()));
        add("memory_high", self.memory_high.map(|bytes| bytes.to_string()));
        add("pids", self.pids.map(|count| count.to_string()));
        shown
    }
}

impl Privileges {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Privileges::default()
    }

    /// Capabilities as declared: an array of names. The error says what is wrong with it, if it is one.
    pub fn capabilities_declared(value: &Value) -> Result<Vec<u32>, String> {
        let Value::Array(names) = value else { return Err(String::new()) };
        let number = |name: &Value| {
            let name = name.as_str().ok_or_else(String::new)?.to_ascii_lowercase();
            let name = name.strip_prefix("cap_").unwrap_or(&name);
            let number = CAPABILITIES.iter().position(|known| *known == name);
            number.map(|number| number as u32).ok_or_else(|| format!("{name} is none"))
        };
        names.iter().map(number).collect()
    }

    /// The capabilities as a set of bits.
    pub fn mask(&self) -> Option<u64> {
        let numbers = self.capabilities.as_ref()?;
        Some(numbers.iter().filter(|number| **number < 64).fold(0, |mask, number| mask | 1 << number))
    }

    /// The capabilities by name, for people.
    pub fn names(&self) -> Option<Vec<&'static str>> {
        let numbers = self.capabilities.as_ref()?;
        Some(numbers.iter().filter_map(|number| CAPABILITIES.get(*number as usize).copied()).collect())
    }
}

/// A file mode creation mask as declared: octal digits in a string.
pub fn umask(value: &Value) -> Option<u32> {
    value.as_str().and_then(|text| u32::from_str_radix(text, 8).ok()).filter(|mask| *mask <= 0o777)
}

fn within(text: &str, least: i32, most: i32) -> Option<i32> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

/// `150%` or `1.5`
fn percent(text: &str) -> Option<u32> {
    let percent = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()?,
        None => text.parse::<f64>().ok()? * 100.0,
    };
    // The kernel takes no less than 1 ms in 100.
    (1.0..=1e6).contains(&percent).then_some(percent.round() as u32)
}

fn bytes(text: &str) -> Option<u64> {
    match units::memory(text)? {
        units::Memory::Bytes(bytes) => Some(bytes),
        units::Memory::Percent(_) => None,
    }
}

fn pair(text: &str, resource: Resource) -> Option<[Option<u64>; 2]> {
    let one = |text: &str| match text.trim() {
        "unlimited" | "infinity" | "-1" => Some(None),
        text if resource.is_bytes() => bytes(text).map(Some),
        text => text.parse().ok().map(Some),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let pair = [one(soft)?, one(hard)?];
    match pair {
        [Some(soft), Some(hard)] if soft > hard => None,
        [None, Some(_)] => None,
        pair => Some(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let limits = Limits::declared(&json!({
            "nofile": "1024:4096", "core": "unlimited", "nproc": 100, "stack": "8M:unlimited", "cpu_time": null,
            "nice": -5, "oom_score_adj": "500", "cpu": "150%", "memory": "512M", "pids": 64,
        }))
        .unwrap();
        let shown: Vec<String> =
            limits.shown().into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(
            shown,
            [
                "core=unlimited",
                "nofile=1024:4096",
                "nproc=100",
                "stack=8388608:unlimited",
                "nice=-5",
                "oom_score_adj=500",
                "cpu=150%",
                "memory=536870912",
                "pids=64",
            ]
        );
        assert!(limits.need_group() && !limits.is_empty());
        let again: Limits = serde_json::from_value(serde_json::to_value(&limits).unwrap()).unwrap();
        assert_eq!(again, limits);
        assert_eq!(Limits::declared(&json!({"cpu": 0.5})).unwrap().cpu, Some(50));
        assert_eq!(serde_json::to_value(Limits::default()).unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_was_expected() {
        for (value, expected) in [
            (json!("1024"), ""),
            (json!({"nofiles": 1}), "nofiles is none; there are as, core, cpu, cpu_time"),
            (json!({"nofile": "many"}), "nofile is a number"),
            (json!({"nofile": "5:4"}), "nofile is a number"),
            (json!({"nofile": "unlimited:4"}), "nofile is a number"),
            (json!({"nofile": -7}), "nofile is a number"),
            (json!({"nofile": true}), "nofile is a number"),
            (json!({"nice": 20}), "nice is -20 to 19"),
            (json!({"cpu": "0%"}), "cpu is a percentage"),
            (json!({"cpu": "nan"}), "cpu is a percentage"),
            (json!({"memory": "much"}), "memory is bytes"),
            (json!({"memory": 0}), "memory is bytes"),
            (json!({"pids": 0}), "pids is a number"),
        ] {
            let error = Limits::declared(&value).unwrap_err();
            assert!(error.starts_with(expected), "{value}: {error}");
        }
    }

    #[test]
    fn capabilities_and_masks() {
        let read = Privileges::capabilities_declared;
        assert_eq!(read(&json!(["CAP_NET_BIND_SERVICE", "chown"])), Ok(vec![10, 0]));
        let privileges = Privileges { capabilities: Some(vec![10, 0]), ..Privileges::default() };
        assert_eq!(privileges.mask(), Some(1 << 10 | 1));
        assert_eq!(privileges.names(), Some(vec!["net_bind_service", "chown"]));
        assert!(read(&json!(["fly"])).unwrap_err().ends_with("fly is none"));
        assert!(read(&json!("chown")).is_err() && read(&json!([1])).is_err());
        assert_eq!(umask(&json!("027")), Some(0o27));
        for value in [json!(27), json!("8"), json!("1000"), json!("")] {
            assert_eq!(umask(&value), None, "{value}");
        }
    }
}
