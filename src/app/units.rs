//! Numbers with units, as people write them in options and declarations.

use serde::{Deserialize, Serialize};

use super::Instances;
use crate::time::Millis;

/// The most instances that an app may be declared with; more is a typing error.
pub const INSTANCES_LIMIT: u32 = 4096;

/// A length of time: milliseconds, or a number with `ms`, `s`, `m`, `h` or `d`.
pub fn millis(text: &str) -> Option<Millis> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Millis)
}

/// A share of the memory that may be used, or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of what there is: of the limit of the control group, where there is one.
    Percent(u8),
}

impl Memory {
    /// In bytes, where `all` is what there is.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Memory::Bytes(bytes) => bytes,
            Memory::Percent(percent) => (u128::from(all) * u128::from(percent) / 100) as u64,
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Memory::Bytes(bytes) => f.write_str(&amount(*bytes)),
            Memory::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// `300 MiB`, with as much of a fraction as matters.
pub fn amount(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10 / u128::from(unit)) as u64;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// An amount of memory: bytes, or a number with `K`, `M`, `G` or `T` (powers of 1024, with or without `B` or
/// `iB`), or with `%`.
pub fn memory(text: &str) -> Option<Memory> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start().to_ascii_lowercase();
    if unit == "%" {
        let percent = u8::try_from(number).ok().filter(|percent| (1..=100).contains(percent))?;
        return Some(Memory::Percent(percent));
    }
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.ends_with("ib") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    number.checked_mul(1 << (10 * power)).map(Memory::Bytes)
}

/// A number of instances: `3`, `max` or `0` for one per CPU, `-1` for one fewer than that.
pub fn instances(text: &str) -> Option<Instances> {
    let text = text.trim();
    if text == "max" {
        return Some(Instances::CpusLess(0));
    }
    let number: i64 = text.parse().ok()?;
    let count = u32::try_from(number.unsigned_abs()).ok().filter(|&count| count <= INSTANCES_LIMIT)?;
    Some(if number <= 0 { Instances::CpusLess(count) } else { Instances::Count(count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            (" 1600 ", Some(1600)),
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5 m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("2D", Some(172_800_000)),
            ("", None),
            ("s", None),
            ("-1", None),
            ("1.5s", None),
            ("10x", None),
            ("99999999999999999999", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(millis(text), expected.map(Millis), "{text}");
        }
    }

    #[test]
    fn n09_amounts_of_memory() {
        for (text, expected) in [
            ("0", Some(Memory::Bytes(0))),
            ("1048576", Some(Memory::Bytes(1 << 20))),
            ("512b", Some(Memory::Bytes(512))),
            ("200K", Some(Memory::Bytes(200 << 10))),
            (" 300 mb ", Some(Memory::Bytes(300 << 20))),
            ("2GiB", Some(Memory::Bytes(2 << 30))),
            ("1T", Some(Memory::Bytes(1 << 40))),
            ("80%", Some(Memory::Percent(80))),
            ("100 %", Some(Memory::Percent(100))),
            ("0%", None),
            ("101%", None),
            ("", None),
            ("M", None),
            ("1iB", None),
            ("1.5G", None),
            ("-1", None),
            ("10X", None),
            ("99999999999T", None),
        ] {
            assert_eq!(memory(text), expected, "{text}");
        }
        assert_eq!(Memory::Percent(80).of(256 << 20), 214_748_364);
        assert_eq!(Memory::Percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Memory::Bytes(7).of(1), 7);
    }

    #[test]
    fn numbers_of_instances() {
        for (text, expected) in [
            ("1", Some(Instances::Count(1))),
            ("16", Some(Instances::Count(16))),
            ("+2", Some(Instances::Count(2))),
            ("max", Some(Instances::CpusLess(0))),
            ("0", Some(Instances::CpusLess(0))),
            ("-1", Some(Instances::CpusLess(1))),
            ("-9223372036854775808", None),
            ("4096", Some(Instances::Count(4096))),
            ("4097", None),
            ("two", None),
            ("", None),
            ("1.5", None),
        ] {
            assert_eq!(instances(text), expected, "{text}");
        }
    }
}
