//! `list`: one line a process, in as many columns as the terminal has room for.

use super::Session;
use super::format::{age, bytes, percent};
use super::grid::{Cell, Grid, fitted};
use super::screen::{Color, Fail, Screen, escaped};
use crate::protocol::{Status, View};
use crate::time::Wall;

/// pm2's limit for names in the list, in columns.
const NAME_COLUMNS: usize = 40;

/// A column of the list.
#[derive(Clone, Copy)]
enum Column {
    Id,
    Name,
    Namespace,
    Mode,
    Pid,
    Uptime,
    Restarts,
    Status,
    Cpu,
    Memory,
    User,
}

use Column::{Cpu, Id, Memory, Mode, Name, Namespace, Pid, Restarts, Status as State, Uptime, User};

/// From the fullest to the narrowest; the first that fits is shown.
const LAYOUTS: [&[Column]; 3] = [
    &[Id, Name, Namespace, Mode, Pid, Uptime, Restarts, State, Cpu, Memory, User],
    &[Id, Name, Mode, Restarts, State, Cpu, Memory],
    &[Id, Name, State, Cpu, Memory],
];

/// `pmx list`.
pub fn list(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let views = session.views()?;
    if session.options.json {
        return session.screen.json(&views);
    }
    let table = table(&views, now(), session.screen);
    session.screen.data(table.as_bytes())
}

/// The time of day. The command line may read the clock: it decides nothing.
pub fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Wall(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

fn table(views: &[View], now: Wall, screen: &Screen<'_>) -> String {
    let mut last = None;
    for layout in LAYOUTS {
        let grid = Grid {
            header: layout.iter().map(|column| column.title()).collect(),
            rows: views
                .iter()
                .map(|view| layout.iter().map(|column| column.cell(view, now)).collect())
                .collect(),
        };
        let fits = screen.width.is_none_or(|width| grid.width() <= width);
        last = Some(grid);
        if fits {
            break;
        }
    }
    last.map(|grid| grid.draw(screen)).unwrap_or_default()
}

/// The colour of a status.
pub fn color(status: Status) -> Color {
    match status {
        Status::Online => Color::Green,
        Status::Launching | Status::Stopping | Status::Waiting => Color::Yellow,
        Status::Stopped | Status::Errored => Color::Red,
    }
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Id => "id",
            Name => "name",
            Namespace => "namespace",
            Mode => "mode",
            Pid => "pid",
            Uptime => "uptime",
            Restarts => "↺",
            State => "status",
            Cpu => "cpu",
            Memory => "mem",
            User => "user",
        }
    }

    fn cell(self, view: &View, now: Wall) -> Cell {
        let up = view.pid != 0;
        match self {
            Id => Cell { text: view.id.to_string(), color: Some(Color::Cyan) },
            Name => fitted(&escaped(&view.name), NAME_COLUMNS).into(),
            Namespace => fitted(&escaped(&view.namespace), NAME_COLUMNS).into(),
            Mode => if view.cluster { "cluster" } else { "fork" }.into(),
            Pid => view.pid.to_string().into(),
            Uptime => view.since.filter(|_| up).map_or("0".to_string(), |since| age(since, now)).into(),
            Restarts => view.restarts.to_string().into(),
            State => Cell { text: view.status.word().to_string(), color: Some(color(view.status)) },
            // What is down uses nothing; of what is up it may not be known.
            Cpu => view.cpu.map_or(if up { "-" } else { "0%" }.to_string(), percent).into(),
            Memory => view.memory.map_or(if up { "-" } else { "0b" }.to_string(), bytes).into(),
            User => escaped(&view.user).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::columns_of;
    use super::super::testing::{FakeDaemon, TestHome, run_line, run_line_in, view};
    use super::*;
    use crate::protocol::{Answer, Message};

    fn views() -> Vec<View> {
        let worker = View { cluster: true, restarts: 12, ..view(1, "worker", Status::Online) };
        let waiting = View { name: "x".repeat(50), ..view(2, "", Status::Waiting) };
        vec![view(0, "api", Status::Stopped), worker, waiting]
    }

    fn drawn(width: Option<usize>) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let screen = Screen { out: &mut out, err: &mut err, width, color: false, silent: false };
        table(&views(), Wall(121_000), &screen)
    }

    #[test]
    fn the_full_table_is_pm2s() {
        let x = "x".repeat(39);
        let rule = |left, middle, right| {
            let widths = [4, 42, 11, 9, 6, 8, 4, 17, 6, 8, 6];
            let parts: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
            format!("{left}{}{right}\n", parts.join(middle))
        };
        let expected = [
            rule("┌", "┬", "┐"),
            format!(
                "│ id │ name{:36} │ namespace │ mode    │ pid  │ uptime │ ↺  │ status          │ cpu  │ mem    │ user │\n",
                ""
            ),
            rule("├", "┼", "┤"),
            format!(
                "│ 0  │ api{:37} │ default   │ fork    │ 0    │ 0      │ 0  │ stopped         │ 0%   │ 0b     │ ann  │\n",
                ""
            ),
            format!(
                "│ 1  │ worker{:34} │ default   │ cluster │ 4001 │ 2m     │ 12 │ online          │ 0.5% │ 50.8mb │ ann  │\n",
                ""
            ),
            format!(
                "│ 2  │ {x}… │ default   │ fork    │ 0    │ 0      │ 0  │ waiting restart │ 0%   │ 0b     │ ann  │\n"
            ),
            rule("└", "┴", "┘"),
        ];
        assert_eq!(drawn(None), expected.concat());
        assert_eq!(drawn(Some(200)), expected.concat());
    }

    #[test]
    fn the_table_fits_the_terminal_as_far_as_it_can() {
        for (width, titles) in [
            (60, "│ id │ name │ status │ cpu │ mem │"),
            (80, "│ id │ name │ status │ cpu │ mem │"),
            (120, "│ id │ name │ mode │ ↺ │ status │ cpu │ mem │"),
            (200, "│ id │ name │ namespace │ mode │ pid │ uptime │ ↺ │ status │ cpu │ mem │ user │"),
        ] {
            let table = drawn(Some(width));
            let header = table.lines().nth(1).unwrap();
            assert_eq!(header.split_whitespace().collect::<Vec<_>>().join(" "), titles, "{width}");
            let widest = table.lines().map(columns_of).max().unwrap();
            assert!(widest <= width.max(86), "{width}: {widest}");
        }
    }

    #[test]
    fn the_command_prints_it_sorted() {
        let home = TestHome::new("list");
        let _daemon = FakeDaemon::start(&home.home, |request, _| {
            let views =
                [(4, "b"), (9, "a"), (2, "b")].map(|(id, name)| view(id, name, Status::Online)).to_vec();
            Message::Done { id: request.id, answer: Answer::List(views) }
        });
        let (code, out, _) = run_line_in(&home.caller, &["ls"], Some(60));
        let ids: Vec<_> = out.lines().skip(3).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!((code, ids), (0, vec!["9", "2", "4"]));
        let (_, out, _) = run_line(&home.caller, &["list", "--json"]);
        let views: Vec<View> = serde_json::from_str(&out).unwrap();
        assert_eq!(views.iter().map(|view| view.id).collect::<Vec<_>>(), [9, 2, 4]);
        assert_eq!(run_line(&home.caller, &["id", "b"]).1, "[ 2, 4 ]\n");
        assert_eq!(run_line(&home.caller, &["id", "nobody"]), (0, "[]\n".to_string(), String::new()));
        assert_eq!(run_line(&home.caller, &["pid", "b"]).1, "4002\n4004\n");
        assert_eq!(run_line(&home.caller, &["pid", "9"]).1, "4009\n");
        assert_eq!(run_line(&home.caller, &["pid"]).1, "4009\n4002\n4004\n");
        assert_eq!(run_line(&home.caller, &["pid", "nobody"]).1, "\n");
    }
}
