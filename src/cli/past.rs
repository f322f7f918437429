//! What a process used of late, and the machine, from the files that the daemon writes: as rows of little bars, and for
//! machines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::format::{bytes, percent};
use super::home::Home;
use crate::protocol::Detail;
use crate::protocol::samples::host::{self, Host};
use crate::protocol::samples::{FOLDER, Pace, Point, SEGMENTS, name_of, parts, series};
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

/// The samples of the machine.
pub struct HostPast {
    points: Vec<(Wall, Host)>,
    now: Wall,
}

fn segments(home: &Home) -> Vec<Vec<u8>> {
    let folder = home.path.join(FOLDER);
    let files = SPANS.iter().flat_map(|(pace, ..)| (0..SEGMENTS).map(|segment| pace.file(segment)));
    files.filter_map(|file| std::fs::read(folder.join(file)).ok()).collect()
}

fn since(pace: Pace, now: Wall) -> Wall {
    Wall(now.0.saturating_sub(pace.span().0))
}

impl Past {
    /// Reads the files of a home; what is not there is no past.
    pub fn read(home: &Home, details: &[Detail], now: Wall) -> Past {
        let name = |detail: &Detail| (detail.view.id, name_of(&detail.view.namespace, &detail.view.name));
        let since = since(Pace::Minutes, now);
        Past { of: series(&segments(home), since, &details.iter().map(name).collect()), now }
    }

    /// `memory, last hour` and its bars, and the same of processor time, as far as there is anything.
    pub fn rows(&self, id: u32) -> Vec<(String, String)> {
        let points = self.of.get(&id).map_or(&[][..], Vec::as_slice);
        rows(
            points,
            self.now,
            parts,
            &[
                ("memory", |record| Some(f64::from(record.memory_kb)), GROUND, |kb| bytes(kb as u64 * 1024)),
                ("cpu", |record| record.cpu.map(f64::from), 0.0, thousandths),
            ],
        )
    }

    /// The same as numbers.
    pub fn for_machines(&self, id: u32) -> Value {
        let points = self.of.get(&id).map_or(&[][..], Vec::as_slice);
        numbers(points, self.now, parts, |record| {
            json!({
                "cpu": record.cpu.map(|cpu| f64::from(cpu) / 10.0),
                "memory": u64::from(record.memory_kb) * 1024,
                "fds": record.fds,
                "restarts": record.restarts,
            })
        })
    }
}

impl HostPast {
    /// Reads the files of a home; what is not there is no past.
    pub fn read(home: &Home, now: Wall) -> HostPast {
        HostPast { points: host::series(&segments(home), since(Pace::Minutes, now)), now }
    }

    /// `cpu, last hour` and its bars, and all else that is known of the machine.
    pub fn rows(&self) -> Vec<(String, String)> {
        let rate = |count: f64| format!("{}/s", bytes(count as u64));
        rows(
            &self.points,
            self.now,
            host::parts,
            &[
                ("cpu", |host| host.cpu.map(f64::from), 0.0, thousandths),
                (
                    "memory",
                    |host| host.memory.map(|memory| memory as f64),
                    GROUND,
                    |count| bytes(count as u64),
                ),
                (
                    "load",
                    |host| host.load.map(f64::from),
                    0.0,
                    |hundredths| format!("{:.2}", hundredths / 100.0),
                ),
                ("disk", |host| host.disk.map(f64::from), GROUND, thousandths),
                ("network in", |host| host.network.map(|(came, _)| came as f64), 0.0, rate),
                ("network out", |host| host.network.map(|(_, went)| went as f64), 0.0, rate),
            ],
        )
    }

    /// The same as numbers.
    pub fn for_machines(&self) -> Value {
        numbers(&self.points, self.now, host::parts, |host| {
            json!({
                "cpu": host.cpu.map(|cpu| f64::from(cpu) / 10.0),
                "memory": host.memory,
                "load": host.load.map(|load| f64::from(load) / 100.0),
                "disk": host.disk.map(|disk| f64::from(disk) / 10.0),
                "received": host.network.map(|(came, _)| came),
                "sent": host.network.map(|(_, went)| went),
            })
        })
    }
}

fn thousandths(value: f64) -> String {
    percent(value as f32 / 10.0)
}

/// How samples are put together to parts.
type Parts<T> = fn(&[(Wall, T)], Wall, Wall, usize) -> Vec<Option<T>>;
/// What a row is called, its value in a sample, how much of the least is left out below it, and how it is written.
type Row<T> = (&'static str, fn(&T) -> Option<f64>, f64, fn(f64) -> String);

/// The rows of the last hour and, if there is anything that is older, of the last day.
fn rows<T>(points: &[(Wall, T)], now: Wall, parts: Parts<T>, wanted: &[Row<T>]) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (pace, word, _) in SPANS {
        let begin = since(pace, now);
        let is_older = points.first().is_some_and(|(at, _)| *at < since(Pace::Seconds, now));
        if pace == Pace::Minutes && !is_older {
            continue;
        }
        let parts = parts(points, begin, now, COLUMNS);
        for (name, value, ground, text) in wanted {
            let found = || points.iter().filter(|(at, _)| *at >= begin).filter_map(|(_, one)| value(one));
            let (least, most) = (found().fold(f64::MAX, f64::min), found().fold(0.0, f64::max));
            if found().next().is_some() {
                let values = parts.iter().map(|part| part.as_ref().and_then(value));
                let bars = bars(values, least * ground, most);
                let range = format!("{bars} {} to {}", text(least), text(most));
                rows.push((format!("{name}, last {word}"), range));
            }
        }
    }
    rows
}

/// For each span its parts, with their times.
fn numbers<T>(points: &[(Wall, T)], now: Wall, parts: Parts<T>, one: impl Fn(T) -> Value) -> Value {
    let spans = SPANS.map(|(pace, word, count)| {
        let (since, step) = (since(pace, now), pace.span().0 / count as u64);
        let parts = parts(points, since, now, count).into_iter().enumerate();
        let told = |(at, part): (usize, Option<T>)| {
            let mut value = one(part?);
            value["at"] = json!(since.0 + at as u64 * step);
            Some(value)
        };
        (word.to_string(), parts.filter_map(told).collect::<Value>())
    });
    Value::Object(spans.into_iter().collect())
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
    use crate::protocol::samples::{Record, block};

    #[test]
    fn the_last_hour_and_the_last_day_are_drawn_with_their_least_and_most() {
        let home = TestHome::new("past");
        let now = Wall(1_700_000_000_000);
        let name = name_of("default", "api");
        let at = |minutes: u64, cpu: u32, megabytes: u32| {
            let record =
                Record { id: 3, name, cpu: Some(cpu), memory_kb: megabytes << 10, ..Record::default() };
            block(Wall(now.0 - minutes * 60_000), &[record], &Host::default())
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

    #[test]
    fn the_past_of_the_machine_is_drawn_as_far_as_it_is_known() {
        let home = TestHome::new("past-host");
        let now = Wall(1_700_000_000_000);
        let at = |minutes: u64, host: Host| block(Wall(now.0 - minutes * 60_000), &[], &host);
        assert!(HostPast::read(&home.home, now).rows().is_empty());
        let folder = home.home.path.join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        let used = |cpu: u16| Host { cpu: Some(cpu), load: Some(u32::from(cpu)), ..Host::default() };
        let hour: Vec<u8> =
            (0..60).rev().flat_map(|minute| at(minute, used(600 - minute as u16 * 10))).collect();
        std::fs::write(folder.join("seconds.1"), &hour).unwrap();
        let rows = HostPast::read(&home.home, now).rows();
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cpu, last hour", "load, last hour"]);
        assert!(rows[0].1.ends_with("█ 1% to 60%") && rows[1].1.ends_with("█ 0.10 to 6.00"), "{rows:?}");
        let all = Host { memory: Some(3 << 30), disk: Some(405), network: Some((2_048, 10)), ..used(10) };
        std::fs::write(folder.join("minutes.0"), at(600, all)).unwrap();
        let past = HostPast::read(&home.home, now);
        let told: Vec<(String, String)> = past
            .rows()
            .into_iter()
            .map(|(name, bars)| (name, bars.trim_start_matches(|c| c != ' ').trim().to_string()))
            .collect();
        assert_eq!(told.len(), 8, "{told:?}");
        for (name, end) in [
            ("cpu, last day", "1% to 60%"),
            ("memory, last day", "3.0gb to 3.0gb"),
            ("disk, last day", "40.5% to 40.5%"),
            ("network in, last day", "2.0kb/s to 2.0kb/s"),
            ("network out, last day", "10b/s to 10b/s"),
        ] {
            assert!(
                told.iter().any(|(found, bars)| found == name && bars.ends_with(end)),
                "{name}: {told:?}"
            );
        }
        let told = past.for_machines();
        let day = json!({"at": told["day"][0]["at"], "cpu": 1.0, "memory": 3u64 << 30, "load": 0.1, "disk": 40.5, "received": 2048, "sent": 10});
        assert_eq!(told["day"][0], day);
        assert_eq!((&told["hour"][0]["memory"], &told["hour"][0]["received"]), (&Value::Null, &Value::Null));
    }
}
