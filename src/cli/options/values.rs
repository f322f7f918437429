//! The value of one option, as its text says it. The error is what was expected, to go behind `expected`.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::str::FromStr;

use crate::app::{Text, pattern, units};
use crate::time::Millis;

pub(super) fn text(value: &OsStr) -> Result<String, String> {
    match value.to_str() {
        Some("") => Err("something that is not empty".to_string()),
        Some(text) => Ok(text.to_string()),
        None => Err("UTF-8".to_string()),
    }
}

pub(super) fn path(value: &OsStr) -> Result<Text, String> {
    if value.is_empty() { Err("a path".to_string()) } else { Ok(Text::from(value)) }
}

pub(super) fn number<T: FromStr>(value: &OsStr, expected: &str) -> Result<T, String> {
    value.to_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| expected.to_string())
}

/// What has a notation of its own.
pub(super) fn read<T>(
    value: &OsStr,
    read: impl FnOnce(&str) -> Option<T>,
    expected: &str,
) -> Result<T, String> {
    read(&text(value)?).ok_or_else(|| expected.to_string())
}

pub(super) fn millis(value: &OsStr) -> Result<Millis, String> {
    let length = value.to_str().and_then(units::millis);
    length.ok_or_else(|| "milliseconds, or a length of time such as 10s".to_string())
}

pub(super) fn cron(value: &OsStr) -> Result<String, String> {
    pattern(&text(value)?).map_err(|expected| format!("a cron pattern with {expected}"))
}

/// Beyond the three that are stdin, stdout and stderr.
pub(super) fn fd(value: &OsStr) -> Result<RawFd, String> {
    let fd = number(value, "an fd above 2")?;
    Some(fd).filter(|&fd| fd > 2).ok_or_else(|| "an fd above 2".to_string())
}

/// Separated by commas or blanks.
pub(super) fn list(value: &OsStr) -> Result<Vec<String>, String> {
    let text = text(value)?;
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    Ok(words.map(String::from).collect())
}
