//! What a process used of late, from the files that the daemon writes: as rows of little bars, and for machines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::format::{bytes, percent};
use super::home::Home;
use crate::protocol::Detail;
use crate::protocol::samples::{FOLDER, Pace, Point, Record, SEGMENTS, name_of, parts, series};
use crate::time::Wall;

/// Bars from the lowest to the highest.
pub const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const COLUMNS: usize = 48;
/// How far back, how that is called, and into how many parts it is cut for machines.
const SPANS: [(Pace, &str, usize); 2] = [(Pace::Seconds, "hour", 60), (Pace::Minutes, "day", 144)];
/// Memory hardly ever comes near nothing: what changes is shown.
const GROUND: f64 = 0.7;

/// The samples of some processes.
pub struct Past {
    of: BTreeMap<u32, Vec<Point>>,
    now: Wall,
}

impl Past {
    /// Reads the files of a home; what is not there is no past.
    pub fn read(home: &Home, details: &[Detail], now: Wall) -> Past {
        let name = |detail: &Detail| (detail.view.id, name_of(&detail.view.namespace, &detail.view.name));
        let folder = home.path.join(FOLDER);
        let files = SPANS.iter().flat_map(|(pace, ..)| (0..SEGMENTS).map(|segment| pace.file(segment)));
        let segments: Vec<Vec<u8>> = files.filter_map(|file| std::fs::read(folder.join(file)).ok()).collect();
        let since = Wall(now.0.saturating_sub(Pace::Minutes.span().0));
        Past { of: series(&segments, since, &details.iter().map(name).collect()), now }
    }

    fn since(&self, pace: Pace) -> Wall {
        Wall(self.now.0.saturating_sub(pace.span().0))
    }

    /// `memory, last hour` and its bars, and the same of processor time, as far as there is anything.
    pub fn rows(&self, id: u32) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let points = self.of.get(&id).map_or(&[][..], Vec::as_slice);
        for (pace, word, _) in SPANS {
            let since = self.since(pace);
            let is_older = points.first().is_some_and(|(at, _)| *at < self.since(Pace::Seconds));
            if pace == Pace::Minutes && !is_older {
                continue;
            }
            let parts = parts(points, since, self.now, COLUMNS);
            let within = || points.iter().filter(|(at, _)| *at >= since).map(|(_, record)| record);
            let memory = |record: &Record| Some(f64::from(record.memory_kb));
            let cpu = |record: &Record| record.cpu.map(f64::from);
            let mut row =
                |name: &str, value: fn(&Record) -> Option<f64>, ground: f64, text: fn(f64) -> String| {
                    let found = || within().filter_map(value);
                    let (least, most) = (found().fold(f64::MAX, f64::min), found().fold(0.0, f64::max));
                    if found().next().is_some() {
                        let values = parts.iter().map(|part| part.as_ref().and_then(value));
                        let bars = bars(values, least * ground, most);
                        rows.push((
                            format!("{name}, last {word}"),
                            format!("{bars} {} to {}", text(least), text(most)),
                        ));
                    }
                };
            row("memory", memory, GROUND, |kb| bytes(kb as u64 * 1024));
            row("cpu", cpu, 0.0, |thousandths| percent(thousandths as f32 / 10.0));
        }
        rows
    }

    /// The same as numbers.
    pub fn for_machines(&self, id: u32) -> Value {
        let points = self.of.get(&id).map_or(&[][..], Vec::as_slice);
        let spans = SPANS.map(|(pace, word, count)| {
            let (since, step) = (self.since(pace), pace.span().0 / count as u64);
            let parts = parts(points, since, self.now, count).into_iter().enumerate();
            let one = |(at, record): (usize, Record)| {
                json!({
                    "at": since.0 + at as u64 * step,
                    "cpu": record.cpu.map(|cpu| f64::from(cpu) / 10.0),
                    "memory": u64::from(record.memory_kb) * 1024,
                    "fds": record.fds,
                    "restarts": record.restarts,
                })
            };
            let found: Vec<Value> = parts.filter_map(|(at, part)| Some((at, part?))).map(one).collect();
            (word.to_string(), Value::from(found))
        });
        Value::Object(spans.into_iter().collect())
    }
}

/// A bar for each value between these two.
fn bars(values: impl Iterator<Item = Option<f64>>, low: f64, high: f64) -> String {
    let height =
        |value: f64| HEIGHTS[((value - low) / (high - low).max(1e-9) * 7.0).round().clamp(0.0, 7.0) as usize];
    values.map(|value| value.map_or(' ', height)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::jlist::tests::detail;
    use super::super::testing::TestHome;
    use super::*;
    use crate::protocol::samples::block;

    #[test]
    fn the_last_hour_and_the_last_day_are_drawn_with_their_least_and_most() {
        let home = TestHome::new("past");
        let now = Wall(1_700_000_000_000);
        let name = name_of("default", "api");
        let at = |minutes: u64, cpu: u32, megabytes: u32| {
            let record =
                Record { id: 3, name, cpu: Some(cpu), memory_kb: megabytes << 10, ..Record::default() };
            block(Wall(now.0 - minutes * 60_000), &[record])
        };
        assert!(Past::read(&home.home, &[detail()], now).rows(3).is_empty());
        let folder = home.home.path.join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        let hour: Vec<u8> = (0..60).rev().flat_map(|minute| at(minute, 10, 200 - minute as u32)).collect();
        std::fs::write(folder.join("minutes.0"), &hour).unwrap();
        let rows = Past::read(&home.home, &[detail()], now).rows(3);
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["memory, last hour", "cpu, last hour"]);
        assert!(rows[0].1.ends_with("█ 141.0mb to 200.0mb"), "{rows:?}");
        assert_eq!(rows[1].1, format!("{} 1% to 1%", "█".repeat(COLUMNS)));
        std::fs::write(folder.join("minutes.1"), at(600, 4_000, 900)).unwrap();
        std::fs::write(folder.join("seconds.0"), &at(1, 2_000, 300)[..40]).unwrap();
        let past = Past::read(&home.home, &[detail()], now);
        let rows = past.rows(3);
        assert_eq!(rows.len(), 4);
        assert!(rows[2].1.ends_with(" 141.0mb to 900.0mb") && rows[2].1.starts_with("    "), "{rows:?}");
        assert!(rows[3].1.ends_with(" 1% to 400%"), "{rows:?}");
        let told = past.for_machines(3);
        assert_eq!((told["hour"].as_array().unwrap().len(), told["day"].as_array().unwrap().len()), (59, 7));
        assert_eq!(told["day"][0]["memory"], 900 << 20);
        assert!(past.rows(4).is_empty());
    }
}
