//! Has old log files compressed and removed, by a helper (`pmx flush --tidy`) of low priority, so that neither ever
//! holds up the loop. The daemon says which logs there are and what the rules are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::event_loop::Daemon;
use super::helper;
use crate::app::Text;
use crate::app::rotation::{Global, Order, Rule};
use crate::sys::failpoint;
use crate::sys::reap::{ExitStatus, Reaped};
use crate::time::{Millis, Mono};

/// From one helper to the next, where a disk has little room.
const PACE: Millis = Millis(5_000);

/// Which logs have to be looked after, and who does.
#[derive(Debug, Default)]
pub struct Tidy {
    /// Logs that were rotated.
    turned: BTreeMap<PathBuf, Rule>,
    /// Logs on disks with little room.
    short: Vec<PathBuf>,
    /// When a helper was last started for that.
    begun: Option<Mono>,
    helper: Option<i32>,
}

impl Tidy {
    /// A process that belongs to no app has ended. True: it was the helper.
    pub fn reaped(&mut self, reaped: &Reaped) -> bool {
        if self.helper != Some(reaped.pid) {
            return false;
        }
        self.helper = None;
        if !matches!(reaped.status, ExitStatus::Code(0)) {
            // It has told why in our log. The next rotation tries again.
            log::warn!("old logs were not looked after");
        }
        true
    }

    /// Whether a helper is wanted now.
    fn is_due(&self, now: Mono) -> bool {
        let is_short = !self.short.is_empty() && self.begun.is_none_or(|begun| now.since(begun) >= PACE);
        self.helper.is_none() && (!self.turned.is_empty() || is_short)
    }
}

impl Daemon {
    /// Looks after logs that were rotated in this round, and those whose disks have little room.
    pub(super) fn look_after_logs(&mut self) {
        for (path, rule) in std::mem::take(&mut self.desk.turned) {
            log::info!("rotated {}", path.display());
            self.tidy.turned.insert(path, rule);
        }
        self.tidy.short.append(&mut self.desk.short);
        self.tidy.short.sort();
        self.tidy.short.dedup();
        self.alert_of_room(&[]);
        if !self.tidy.is_due(self.now) {
            return;
        }
        let short = std::mem::take(&mut self.tidy.short);
        if !short.is_empty() {
            self.tidy.begun = Some(self.now);
            self.alert_of_room(&short);
        }
        let turned = std::mem::take(&mut self.tidy.turned);
        let files = self.supervisor.processes().flat_map(|process| {
            self.home.log_files(&process.app, process.id.0).map(|path| Text::from(&path))
        });
        let Global { budget, keep_free, .. } = self.desk.rules.global;
        let order = Order {
            turned: turned.iter().map(|(path, rule)| (Text::from(path), rule.clone())).collect(),
            logs: files.filter(|path| path.bytes() != b"/dev/null").collect(),
            budget,
            keep_free,
        };
        failpoint::reach("before-tidy");
        match start(self.home.path(), &order) {
            Ok(pid) => self.tidy.helper = Some(pid),
            Err(error) => {
                log::warn!("look after old logs: start a helper: {error}");
                self.tidy.turned = turned;
            }
        }
    }
}

/// Starts a helper. The order lies in memory until it has read it, whatever becomes of us.
fn start(home: &Path, order: &Order) -> Result<i32, String> {
    let text = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    helper::start(home, [c"flush", c"--tidy"], "pmx-logs", &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Rotation;

    #[test]
    fn one_helper_at_a_time_and_at_a_pace_where_room_is_short() {
        let mut tidy = Tidy::default();
        assert!(!tidy.is_due(Mono(0)));
        tidy.short.push(PathBuf::from("/b"));
        assert!(tidy.is_due(Mono(10_000)));
        tidy.begun = Some(Mono(10_000));
        assert!(!tidy.is_due(Mono(14_999)) && tidy.is_due(Mono(15_000)));
        let rule = Rotation::default().rule(&Rotation::default()).unwrap();
        tidy.turned.insert(PathBuf::from("/a"), rule);
        assert!(tidy.is_due(Mono(10_001)), "what was rotated does not wait");
        tidy.helper = Some(7);
        assert!(!tidy.is_due(Mono(20_000)));
        let reaped =
            |pid| Reaped { pid, status: ExitStatus::Code(1), user_ms: 0, system_ms: 0, max_rss_kb: 0 };
        assert!(!tidy.reaped(&reaped(8)) && tidy.reaped(&reaped(7)) && tidy.is_due(Mono(20_000)));
    }
}
