//! What processes used in the last hour or day, and the machine: read from the files of the home, without the daemon.

use std::path::Path;

use serde_json::{Value, json};

use super::http::Head;
use crate::protocol::Detail;
use crate::protocol::samples::host::{self, Host};
use crate::protocol::samples::{FOLDER, Pace, Record, SEGMENTS, name_of, parts, series};
use crate::time::Wall;

/// Into how many parts an hour and a day are cut.
const HOUR_PARTS: usize = 360;
const DAY_PARTS: usize = 480;
/// Of all processes together; where there are many, each has fewer.
const ALL_PARTS: usize = 200_000;
const FEWEST: usize = 24;

/// How far back is asked for.
pub fn span(head: &Head) -> Result<Pace, String> {
    match head.query("span") {
        None | Some("hour") => Ok(Pace::Seconds),
        Some("day") => Ok(Pace::Minutes),
        Some(other) => Err(format!("span: expected hour or day, got {other:?}")),
    }
}

/// The past of these processes.
pub fn of(home: &Path, details: &[Detail], span: Pace, now: Wall) -> Value {
    let name = |detail: &Detail| (detail.view.id, name_of(&detail.view.namespace, &detail.view.name));
    let since = Wall(now.0.saturating_sub(span.span().0));
    let series = series(&segments(home), since, &details.iter().map(name).collect());
    let count = count(span).min((ALL_PARTS / details.len().max(1)).max(FEWEST));
    let step = span.span().0 / count as u64;
    let processes = details.iter().map(|detail| {
        let points = series.get(&detail.view.id).map_or(&[][..], Vec::as_slice);
        let parts = parts(points, since, now, count).into_iter().enumerate();
        let found: Vec<(u64, Record)> =
            parts.filter_map(|(at, part)| Some((since.0 + at as u64 * step, part?))).collect();
        let column = |value: fn(&(u64, Record)) -> Value| found.iter().map(value).collect::<Value>();
        json!({
            "id": detail.view.id,
            "name": detail.view.name,
            "namespace": detail.view.namespace,
            "at": column(|(at, _)| json!(at)),
            "cpu": column(|(_, record)| json!(record.cpu.map(|cpu| f64::from(cpu) / 10.0))),
            "memory": column(|(_, record)| json!(u64::from(record.memory_kb) * 1024)),
            "fds": column(|(_, record)| json!(record.fds)),
            "threads": column(|(_, record)| json!(record.threads)),
            "restarts": column(|(_, record)| json!(record.restarts)),
        })
    });
    json!({"since": since, "until": now, "step": step, "processes": processes.collect::<Value>()})
}

/// The past of the machine.
pub fn of_host(home: &Path, span: Pace, now: Wall) -> Value {
    let since = Wall(now.0.saturating_sub(span.span().0));
    let points = host::series(&segments(home), since);
    let step = span.span().0 / count(span) as u64;
    let parts = host::parts(&points, since, now, count(span)).into_iter().enumerate();
    let found: Vec<(u64, Host)> =
        parts.filter_map(|(at, part)| Some((since.0 + at as u64 * step, part?))).collect();
    let column = |value: fn(&(u64, Host)) -> Value| found.iter().map(value).collect::<Value>();
    json!({
        "since": since,
        "until": now,
        "step": step,
        "at": column(|(at, _)| json!(at)),
        "cpu": column(|(_, host)| json!(host.cpu.map(|cpu| f64::from(cpu) / 10.0))),
        "memory": column(|(_, host)| json!(host.memory)),
        "load": column(|(_, host)| json!(host.load.map(|load| f64::from(load) / 100.0))),
        "disk": column(|(_, host)| json!(host.disk.map(|disk| f64::from(disk) / 10.0))),
        "received": column(|(_, host)| json!(host.network.map(|(came, _)| came))),
        "sent": column(|(_, host)| json!(host.network.map(|(_, went)| went))),
    })
}

fn segments(home: &Path) -> Vec<Vec<u8>> {
    let folder = home.join(FOLDER);
    let paces = [Pace::Seconds, Pace::Minutes].into_iter();
    let files = paces.flat_map(|pace| (0..SEGMENTS).map(move |segment| pace.file(segment)));
    files.filter_map(|file| std::fs::read(folder.join(file)).ok()).collect()
}

fn count(span: Pace) -> usize {
    if span == Pace::Seconds { HOUR_PARTS } else { DAY_PARTS }
}
