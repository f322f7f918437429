//! Numbers with units, as people write them in options and declarations.

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
