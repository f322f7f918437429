//! `why`: how the last children of a process ended, and what comes next. `history`: what happened of late.

use std::path::Path;

use super::Session;
use super::act::{self, details};
use super::format::{age, bytes};
use super::grid::{Cell, Grid};
use super::list::{now, state};
use super::past::{HostPast, Past};
use super::report::last_lines;
use super::screen::{Color, Fail, escaped};
use crate::protocol::{Answer, Detail, EventKind, Exit, Verb};
use crate::time::{Millis, Wall};

/// Lines of the error log.
const ERROR_LINES: u64 = 15;

/// `pmx why`.
pub fn why(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let targets = act::targets(session, "why", operands)?;
    let details = details(session, &targets)?;
    if details.is_empty() {
        return Err(Fail::Sentence(format!("why {}: no such process", operands.join(" "))));
    }
    let past = Past::read(&session.home, &details, now());
    if session.options.json {
        let all: Vec<_> = details.iter().map(|detail| for_machines(detail, &past)).collect();
        return session.screen.json(&all);
    }
    for detail in &details {
        let text = page(session, detail, &past);
        session.screen.data(text.as_bytes())?;
    }
    Ok(())
}

fn for_machines(detail: &Detail, past: &Past) -> serde_json::Value {
    let view = &detail.view;
    serde_json::json!({
        "id": view.id,
        "name": view.name,
        "status": view.status,
        "reason": view.reason,
        "retry_in": view.retry_in,
        "budget_left": view.budget_left,
        "last_restart": detail.last_restart,
        "leak": view.leak,
        "past": past.for_machines(view.id),
        "exits": detail.exits,
        "error_lines": last_lines(Path::new(&detail.error_file), ERROR_LINES),
    })
}

fn page(session: &Session<'_, '_>, detail: &Detail, past: &Past) -> String {
    let screen = &*session.screen;
    let view = &detail.view;
    let painted = |cell: Cell| cell.color.map_or(cell.text.clone(), |color| screen.paint(color, &cell.text));
    let mut text = format!("{}({}): {}", escaped(&view.name), view.id, painted(state(view)));
    if let Some(since) = view.since.filter(|_| view.pid != 0) {
        text.push_str(&format!(" for {}, pid {}", age(since, now()), view.pid));
    }
    if let Some(reason) = &view.reason {
        text.push_str(&format!("; {}", escaped(reason)));
    }
    text.push('\n');
    if let Some(retry) = view.retry_in {
        text.push_str(&format!("next start in {} ms", retry.0));
        if let Some(left) = view.budget_left {
            text.push_str(&format!(", {left} of its budget left"));
        }
        text.push('\n');
    }
    if let Some(leak) = &view.leak {
        text.push_str(&format!("{}\n", screen.paint(Color::Yellow, &leak.text())));
    }
    for (name, bars) in past.rows(view.id) {
        text.push_str(&format!("{name:<17} {bars}\n"));
    }
    if detail.exits.is_empty() {
        text.push_str("none of its processes has ended so far\n");
    } else {
        let header = vec!["ended at", "pid", "lived", "how", "why", "cpu user", "cpu system", "max memory"];
        let grid = Grid { header, rows: detail.exits.iter().map(row).collect() };
        text.push_str(&grid.draw(screen));
    }
    let lines = last_lines(Path::new(&detail.error_file), ERROR_LINES);
    if !lines.is_empty() {
        text.push_str(&format!("last lines of {}\n", escaped(&detail.error_file)));
        for line in lines {
            text.push_str(&format!("    {}\n", escaped(&line)));
        }
    }
    text
}

fn row(exit: &Exit) -> Vec<Cell> {
    let is_failure = exit.why.is_none() && exit.code != Some(0);
    let how = Cell { text: escaped(&exit.text), color: is_failure.then_some(Color::Red) };
    // A job's end is not told from another one's: nobody asked for either.
    let why = exit.why.as_deref().map_or("by itself".to_string(), escaped);
    let used = |text: fn(&crate::protocol::Used) -> String| exit.used.as_ref().map_or("-".to_string(), text);
    vec![
        exit.at.to_string().into(),
        exit.pid.to_string().into(),
        lived(exit.lived).into(),
        how,
        why.into(),
        used(|used| format!("{} ms", used.user_ms)).into(),
        used(|used| format!("{} ms", used.system_ms)).into(),
        used(|used| bytes(used.max_rss_kb << 10)).into(),
    ]
}

/// Below a minute it matters how much.
fn lived(time: Millis) -> String {
    if time.0 < 60_000 { format!("{} ms", time.0) } else { age(Wall(0), Wall(time.0)) }
}

/// `pmx history --host`: from the files, so that no daemon is needed.
fn host(session: &mut Session<'_, '_>, name: Option<&String>) -> Result<(), Fail> {
    if let Some(name) = name {
        return Err(Fail::Sentence(format!("history {name}: --host is of the machine, and takes no name")));
    }
    let past = HostPast::read(&session.home, now());
    if session.options.json {
        return session.screen.json(&past.for_machines());
    }
    let rows = past.rows();
    if rows.is_empty() {
        let why = "nothing was noted in the last day; it is while apps run";
        return Err(Fail::Sentence(format!("history --host: {why}")));
    }
    for (name, bars) in rows {
        session.screen.line(&format!("{name:<22} {bars}"))?;
    }
    Ok(())
}

/// `pmx history`.
pub fn history(session: &mut Session<'_, '_>, name: Option<&String>) -> Result<(), Fail> {
    if session.options.host {
        return host(session, name);
    }
    let mut name = name.cloned();
    if let Some(id) = name.as_ref().and_then(|name| name.parse::<u32>().ok()) {
        let views = session.views()?;
        let is_name = views.iter().any(|view| Some(&view.name) == name.as_ref());
        if let Some(view) = views.iter().find(|view| view.id == id && !is_name) {
            name = Some(view.name.clone());
        }
    }
    let json = session.options.json;
    let (connection, screen) = session.connected()?;
    let verb = Verb::History { name: name.clone() };
    let events = match connection.request(verb, &mut |_| {}).map_err(String::from)? {
        Answer::History(events) => events,
        other => return Err(Fail::Sentence(act::unexpected(&other))),
    };
    if json {
        return screen.json(&events);
    }
    if let Some(name) = name.filter(|_| events.is_empty()) {
        return Err(Fail::Sentence(format!("history {name}: nothing is remembered of such a process")));
    }
    for event in events {
        let color = match event.kind {
            EventKind::Exited
            | EventKind::Waiting
            | EventKind::Evicted
            | EventKind::Stopping
            | EventKind::Leak => Color::Yellow,
            EventKind::Errored | EventKind::Unhealthy | EventKind::ReloadFailed => Color::Red,
            EventKind::Online | EventKind::Reloaded | EventKind::Healthy => Color::Green,
            EventKind::Added | EventKind::Spawned | EventKind::Stopped => Color::Gray,
            EventKind::Deleted | EventKind::Message => Color::Gray,
        };
        let what = screen.paint(color, event.kind.word());
        let detail = if event.detail.is_empty() { String::new() } else { format!(": {}", event.detail) };
        let who = format!("{}({})", escaped(&event.name), event.id);
        screen.data(format!("{}  {who} {what}{}\n", event.at, escaped(&detail)).as_bytes())?;
    }
    Ok(())
}
