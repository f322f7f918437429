//! The picture: the host, the processes, and of one of them the logs and the facts.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::state::{Mode, State};
use crate::cli::format::{age, bytes, percent};
use crate::cli::past::HEIGHTS;
use crate::cli::screen::escaped;
use crate::protocol::{Detail, Status, View};

/// Eighths of a column.
const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// What keys do, as the help says it.
pub const KEYS: [(&str, &str); 14] = [
    ("↑ ↓ k j", "select another process"),
    ("g G", "the first, the last"),
    ("r", "restart it"),
    ("l", "reload it: no request is lost"),
    ("s", "stop it"),
    ("+ - =", "one instance more, one less, so many"),
    ("d", "delete it, after a y"),
    ("/", "show processes by a part of their name"),
    ("o", "sort by id, name, cpu, memory, restarts"),
    ("f", "show log lines by a part of them"),
    ("PgUp PgDn", "back and forth in the logs"),
    ("Esc", "show everything again; leave"),
    ("? h", "this"),
    ("q ^C", "leave"),
];

/// Everything, in whatever room there is.
pub fn draw(frame: &mut Frame, state: &mut State) {
    let area = frame.area();
    let rows = state.shown().len() as u16 + 3;
    let most = (area.height.saturating_sub(2) / 2).max(4);
    let [top, list, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows.clamp(4, most)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let facts_width = if area.width >= 72 { 34.max(area.width / 4) } else { 0 };
    let [logs, facts] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(facts_width)]).areas(below);
    frame.render_widget(host(state, area.width), top);
    processes(frame, state, list);
    lines(frame, state, logs);
    if facts_width > 0 {
        frame.render_widget(about(state), facts);
    }
    frame.render_widget(bottom(state), foot);
    if state.mode == Mode::Help {
        help(frame, state, area);
    }
}

fn ink(state: &State, color: Color) -> Style {
    if state.color { Style::new().fg(color) } else { Style::new() }
}

fn frame_of<'a>(state: &State, title: String) -> Block<'a> {
    Block::bordered().border_type(BorderType::Rounded).border_style(ink(state, Color::DarkGray)).title(title)
}

/// A bar of so many columns, as full as `part` of 1.
fn bar(part: f64, columns: usize) -> String {
    let eighths = (part.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let mut text: String = std::iter::repeat_n(EIGHTHS[8], full).collect();
    if full < columns {
        text.push(EIGHTHS[rest]);
    }
    let blanks = columns.saturating_sub(text.chars().count());
    text.extend(std::iter::repeat_n(' ', blanks));
    text
}

/// The last values, one a column, against the highest of them and at least against `full`.
fn spark(values: impl DoubleEndedIterator<Item = f32>, columns: usize, full: f32) -> String {
    let mut last: Vec<f32> = values.rev().take(columns).collect();
    last.reverse();
    let highest = last.iter().copied().fold(full, f32::max);
    let height = |value: &f32| HEIGHTS[((value / highest * 7.0).round() as usize).min(7)];
    let text: String = last.iter().map(height).collect();
    format!("{text:>columns$}")
}

fn heat(part: f64) -> Color {
    match part {
        part if part >= 0.9 => Color::Red,
        part if part >= 0.6 => Color::Yellow,
        _ => Color::Green,
    }
}

fn host<'a>(state: &State, width: u16) -> Paragraph<'a> {
    let host = &state.host;
    let up = state.all().iter().filter(|view| view.status == Status::Online).count();
    let bad = state.all().iter().filter(|view| view.status == Status::Errored).count();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled(" pmx ", bold), format!("{up}/{} online", state.all().len()).into()];
    if bad > 0 {
        spans.push(Span::styled(format!(", {bad} errored"), ink(state, Color::Red)));
    }
    let mut gauge = |name: &str, part: Option<f64>, text: String| {
        let Some(part) = part else { return };
        spans.push(format!("  {name} ").into());
        spans.push(Span::styled(bar(part, 5), ink(state, heat(part))));
        spans.push(format!(" {text}").into());
    };
    gauge("cpu", host.cpu.map(|cpu| cpu / 100.0), host.cpu.map_or(String::new(), |cpu| format!("{cpu:.0}%")));
    if let Some((used, all)) = host.memory {
        gauge("mem", Some(used as f64 / all.max(1) as f64), format!("{}/{}", bytes(used), bytes(all)));
    }
    if let Some(load) = host.load {
        spans.push(format!("  load {load:.2}").into());
    }
    if width >= 100 {
        if let Some(disk) = host.disk {
            spans.push(format!("  disk {disk:.0}%").into());
        }
        if let Some((came, went)) = host.net {
            spans.push(format!("  net ↓{}/s ↑{}/s", bytes(came), bytes(went)).into());
        }
    }
    Paragraph::new(Line::from(spans))
}

fn status_color(status: Status) -> Color {
    match status {
        Status::Online => Color::Green,
        Status::Errored => Color::Red,
        Status::Stopped => Color::DarkGray,
        Status::Launching | Status::Stopping | Status::Waiting | Status::Scheduled | Status::Blocked => {
            Color::Yellow
        }
    }
}

fn processes(frame: &mut Frame, state: &State, area: Rect) {
    let shown = state.shown();
    let is_wide = area.width >= 110;
    let most = shown.iter().filter_map(|view| view.memory).max().unwrap_or(1).max(1);
    let columns = if is_wide { 10 } else { 5 };
    let row = |view: &&View| {
        let cpu = view.cpu.unwrap_or(0.0);
        let part = f64::from(cpu) / 100.0;
        let memory = view.memory.unwrap_or(0);
        let restarts = match view.restarts {
            0 => Style::new(),
            _ => ink(state, Color::Yellow),
        };
        let mut cells = vec![
            Cell::from(view.id.to_string()),
            Cell::from(escaped(&view.name)),
            Cell::from(view.status.word()).style(ink(state, status_color(view.status))),
            Cell::from(view.restarts.to_string()).style(restarts),
            Cell::from(Line::from(vec![
                Span::styled(bar(part, columns), ink(state, heat(part))),
                format!(" {}", percent(cpu)).into(),
            ])),
            Cell::from(Line::from(vec![
                Span::styled(bar(memory as f64 / most as f64, columns), ink(state, Color::Cyan)),
                format!(" {}", bytes(memory)).into(),
            ])),
            Cell::from(spark(state.past(view.id), if is_wide { 20 } else { 8 }, 10.0))
                .style(ink(state, Color::Blue)),
            Cell::from(view.since.map_or(String::new(), |since| age(since, state.now))),
        ];
        if is_wide {
            cells.insert(2, Cell::from(escaped(&view.namespace)));
            cells.insert(3, Cell::from(if view.cluster { "cluster" } else { "fork" }));
        }
        Row::new(cells)
    };
    let mut names = vec!["id", "name", "status", "↺", "cpu", "memory", "trend", "up"];
    let of_bar = columns as u16 + 1;
    let mut widths = vec![
        Constraint::Length(4),
        Constraint::Min(12),
        Constraint::Length(10),
        Constraint::Length(4),
        Constraint::Length(of_bar + 6),
        Constraint::Length(of_bar + 8),
        Constraint::Length(if is_wide { 20 } else { 8 }),
        Constraint::Length(5),
    ];
    if is_wide {
        names.splice(2..2, ["namespace", "mode"]);
        widths.splice(2..2, [Constraint::Length(12), Constraint::Length(7)]);
    }
    let filter = match (&state.mode, state.filter.is_empty()) {
        (Mode::Filter, _) => format!(", /{}▏", state.filter),
        (_, true) => String::new(),
        (_, false) => format!(", /{}", state.filter),
    };
    let title = format!(" processes by {}{filter} ", state.order.word());
    let at = shown.iter().position(|view| Some(view.id) == state.selected());
    let table = Table::new(shown.iter().map(row), widths)
        .header(Row::new(names).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(frame_of(state, title));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(at));
}

fn lines(frame: &mut Frame, state: &mut State, area: Rect) {
    let found = state.lines();
    let room = usize::from(area.height.saturating_sub(2));
    let most = found.len().saturating_sub(room);
    let scroll = state.scroll.min(most);
    let window = &found[most - scroll..(most - scroll + room).min(found.len())];
    let text: Vec<Line> = window
        .iter()
        .map(|(is_err, line)| {
            let style = if *is_err { ink(state, Color::Red) } else { Style::new() };
            Line::styled(line.replace('\t', "    "), style)
        })
        .collect();
    let name = state
        .facts
        .as_ref()
        .map_or(String::new(), |facts| format!(" of {}({})", escaped(&facts.view.name), facts.view.id));
    let search = match (&state.mode, state.search.is_empty()) {
        (Mode::Search, _) => format!(", with {}▏", state.search),
        (_, true) => String::new(),
        (_, false) => format!(", with {}", state.search),
    };
    let back = if scroll > 0 { format!(", {scroll} below") } else { String::new() };
    let widget = Paragraph::new(text).block(frame_of(state, format!(" logs{name}{search}{back} ")));
    frame.render_widget(widget, area);
    state.scroll = scroll;
}

fn about<'a>(state: &State) -> Paragraph<'a> {
    let mut text: Vec<Line> = Vec::new();
    if let Some(facts) = &state.facts {
        for (name, value) in facts_of(facts) {
            text.push(Line::from(vec![
                Span::styled(format!("{name} "), ink(state, Color::DarkGray)),
                escaped(&value).into(),
            ]));
        }
        for exit in facts.exits.iter().rev().take(4) {
            let ago = age(exit.at, state.now);
            let why = exit.why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            text.push(Line::styled(
                escaped(&format!("✗ {ago} ago: {}{why}", exit.text)),
                ink(state, if why.is_empty() { Color::Red } else { Color::DarkGray }),
            ));
        }
    }
    Paragraph::new(text).wrap(Wrap { trim: true }).block(frame_of(state, " facts ".to_string()))
}

fn facts_of(facts: &Detail) -> Vec<(&'static str, String)> {
    let view = &facts.view;
    let mut known = vec![
        ("script", facts.app.command.script.lossy().into_owned()),
        ("mode", if view.cluster { "cluster" } else { "fork" }.to_string()),
        ("pid", if view.pid == 0 { "none".to_string() } else { view.pid.to_string() }),
        ("processes", format!("{}, {} threads", view.processes, view.threads)),
    ];
    let causes: Vec<String> =
        facts.by_cause.iter().map(|(cause, count)| format!("{count} {}", cause.word())).collect();
    let more = [
        ("reason", view.reason.clone()),
        ("leak", view.leak.map(|leak| leak.text())),
        ("says", view.says.clone()),
        ("health", view.health.map(|health| health.word().to_string())),
        ("restarts", (!causes.is_empty()).then(|| causes.join(", "))),
        ("listens", (!facts.listens.is_empty()).then(|| facts.listens.join(", "))),
        ("queue", queue(facts)),
        ("accepted", view.accepted.map(|count| count.to_string())),
        ("files", facts.fds.map(|count| format!("{count} open"))),
        ("node", facts.node_version.clone()),
        ("beside", facts.beside.as_ref().map(|child| format!("{} {}", child.pid, child.phase))),
    ];
    known.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let metrics = facts.axm.monitor.iter().filter_map(|(name, metric)| {
        let value = metric.get("value")?;
        let unit = metric.get("unit").and_then(|unit| unit.as_str()).unwrap_or("");
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        Some(("metric", format!("{name}: {value}{unit}")))
    });
    known.extend(metrics.take(6));
    known
}

/// Where connections wait.
fn queue(facts: &Detail) -> Option<String> {
    let full = facts.queues.iter().filter(|queue| queue.waiting > 0);
    let text: Vec<String> = full.map(|queue| format!("{} of {} wait", queue.waiting, queue.most)).collect();
    (!text.is_empty()).then(|| text.join(", "))
}

fn bottom<'a>(state: &State) -> Paragraph<'a> {
    let line = match (&state.mode, &state.message) {
        (Mode::Confirm(deed), _) => Line::styled(
            format!(" {}? y: yes, any other key: no", escaped(&deed.name)),
            ink(state, Color::Yellow),
        ),
        (Mode::Scale(number), _) => Line::from(format!(" how many instances? {number}▏")),
        (Mode::Filter | Mode::Search, _) => Line::from(" Enter: keep, Esc: everything"),
        (_, Some((text, is_bad))) => {
            let color = if *is_bad { Color::Red } else { Color::Green };
            Line::styled(format!(" {}", escaped(text)), ink(state, color))
        }
        _ => Line::styled(
            " ↑↓  r restart  l reload  s stop  +- scale  / filter  f find  ? help  q quit",
            ink(state, Color::DarkGray),
        ),
    };
    Paragraph::new(line)
}

fn help(frame: &mut Frame, state: &State, area: Rect) {
    let (width, height) = (56.min(area.width), (KEYS.len() as u16 + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let line = |(keys, what): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!(" {keys:<10} "), bold), (*what).into()])
    };
    frame.render_widget(Clear, place);
    let text: Vec<Line> = KEYS.iter().map(line).collect();
    frame.render_widget(Paragraph::new(text).block(frame_of(state, " keys ".to_string())), place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sparks_have_their_columns() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.53, 4), "██▏ ");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(spark([0.0, 5.0, 10.0].into_iter(), 5, 10.0), "  ▁▅█");
        assert_eq!(spark([0.0, 50.0].into_iter(), 1, 10.0), "█");
    }
}
