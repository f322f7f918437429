//! `list`: one line a process, in as many columns as the terminal has room for.

use std::io::IsTerminal;
use std::time::Duration;

use super::Session;
use super::act::details;
use super::format::{age, bytes, percent};
use super::grid::{Cell, Grid, fitted};
use super::options::{Sort, SortBy};
use super::screen::{Color, Fail, Screen, escaped};
use crate::app::Watched;
use crate::protocol::{Detail, Health, Status, View};
use crate::time::Wall;

/// pm2's limit for names in the list, in columns.
const NAME_COLUMNS: usize = 40;

/// How often a list that is watched is drawn: as often as pm2's.
const AGAIN: Duration = Duration::from_millis(900);

/// So many processes are explained below it.
const NOTES: usize = 10;

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
    Watching,
    Next,
}

use Column::{
    Cpu, Id, Memory, Mode, Name, Namespace, Next, Pid, Restarts, Status as State, Uptime, User, Watching,
};

/// From the fullest to the narrowest; the first that fits is shown.
const LAYOUTS: [&[Column]; 3] = [
    &[Id, Name, Namespace, Mode, Pid, Uptime, Restarts, State, Cpu, Memory, User],
    &[Id, Name, Mode, Restarts, State, Cpu, Memory],
    &[Id, Name, State, Cpu, Memory],
];

/// `pmx list`.
pub fn list(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let is_watched = match &session.options.changes.triggers.watch {
        None => false,
        Some(Watched::Paths(_)) => {
            return Err(Fail::Sentence("list --watch: it draws the list again and again, of no path".into()));
        }
        Some(_) => true,
    };
    loop {
        // Drawn over the last one, and over what was there before that.
        if is_watched && std::io::stdout().is_terminal() {
            session.screen.data(b"\x1b[H\x1b[2J")?;
        }
        once(session)?;
        if !is_watched {
            return Ok(());
        }
        session.screen.flush()?;
        std::thread::sleep(AGAIN);
    }
}

fn once(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    if session.options.mini_list {
        return mini(session);
    }
    let mut views = session.views()?;
    if let Some(order) = session.options.sort {
        sort(&mut views, order);
    }
    if session.options.json {
        return session.screen.json(&views);
    }
    let table = table(&views, now(), session.screen);
    session.screen.data(table.as_bytes())?;
    for line in notes(&views) {
        session.screen.line(&line)?;
    }
    Ok(())
}

/// pm2's small list: a few lines for each process.
pub fn mini(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let mut found = details(session, &["all".to_string()])?;
    if let Some(order) = session.options.sort {
        let mut views: Vec<View> = found.iter().map(|detail| detail.view.clone()).collect();
        sort(&mut views, order);
        found.sort_by_key(|detail| views.iter().position(|view| view.id == detail.view.id));
    }
    let text: String = found.iter().map(|detail| few_lines(detail, now())).collect();
    session.screen.data(text.as_bytes())
}

fn few_lines(detail: &Detail, now: Wall) -> String {
    let view = &detail.view;
    let cell = |column: Column| column.cell(view, now).text;
    format!(
        "+--- {}\nnamespace : {}\npid : {}\npm2 id : {}\nstatus : {}\nmode : {}\nrestarted : {}\nuptime : {}\n\
         memory usage : {}\nerror log : {}\nwatching : {}\n\n",
        escaped(&view.name),
        escaped(&view.namespace),
        view.pid,
        view.id,
        view.status.word(),
        cell(Mode),
        view.restarts,
        cell(Uptime),
        cell(Memory),
        escaped(&detail.error_file),
        view.watching.word(),
    )
}

/// Puts them in order; those that are equal in it stay in theirs.
fn sort(views: &mut [View], order: Sort) {
    views.sort_by(|a, b| {
        let ordering = match order.by {
            SortBy::Name => a.name.cmp(&b.name),
            SortBy::Namespace => a.namespace.cmp(&b.namespace),
            SortBy::Pid => a.pid.cmp(&b.pid),
            SortBy::Id => a.id.cmp(&b.id),
            SortBy::Cpu => a.cpu.unwrap_or(0.0).total_cmp(&b.cpu.unwrap_or(0.0)),
            SortBy::Memory => a.memory.cmp(&b.memory),
            // Who came later is up for less long.
            SortBy::Uptime => b.since.cmp(&a.since),
            SortBy::Status => a.status.word().cmp(b.status.word()),
        };
        if order.descending { ordering.reverse() } else { ordering }
    });
}

/// Below the table: why something is not up, and what comes next.
fn notes(views: &[View]) -> Vec<String> {
    let is_up = |view: &View| matches!(view.status, Status::Online | Status::Stopped | Status::Stopping);
    let mut of = views.iter().filter(|view| !is_up(view) || view.leak.is_some()).filter_map(note);
    let mut lines: Vec<String> = of.by_ref().take(NOTES).collect();
    let more = of.count();
    if more > 0 {
        lines.push(format!("and {more} more (pmx describe tells why)"));
    }
    lines
}

/// `api(3): exit code 1; next start in 1200 ms, 14 of its budget left`.
fn note(view: &View) -> Option<String> {
    let next = match (view.retry_in, view.budget_left) {
        (None, _) => None,
        (Some(retry), Some(left)) => Some(format!("next start in {} ms, {left} of its budget left", retry.0)),
        (Some(retry), None) => Some(format!("next start in {} ms", retry.0)),
    };
    let leak = view.leak.map(|leak| leak.text());
    let said: Vec<String> = view.reason.as_deref().map(escaped).into_iter().chain(next).chain(leak).collect();
    let who = format!("{}({})", fitted(&escaped(&view.name), NAME_COLUMNS), view.id);
    (!said.is_empty()).then(|| format!("{who}: {}", said.join("; ")))
}

/// The time of day. The command line may read the clock: it decides nothing.
pub fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Wall(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

fn table(views: &[View], now: Wall, screen: &Screen<'_>) -> String {
    let mut last = None;
    // Only where there is something to see.
    let more = [
        (Watching, views.iter().any(|view| view.watching != crate::protocol::Watching::Off)),
        (Next, views.iter().any(|view| view.next_run.is_some())),
    ];
    let columns = |layout: &'static [Column]| {
        let more = more.into_iter().filter(|(_, is)| *is).map(|(column, _)| column);
        layout.iter().copied().chain(more)
    };
    for layout in LAYOUTS {
        let grid = Grid {
            header: columns(layout).map(|column| column.title()).collect(),
            rows: views
                .iter()
                .map(|view| columns(layout).map(|column| column.cell(view, now)).collect())
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
        Status::Launching | Status::Stopping | Status::Waiting | Status::Scheduled | Status::Blocked => {
            Color::Yellow
        }
        Status::Stopped | Status::Errored => Color::Red,
    }
}

/// A status, and the health of what has checks.
pub fn state(view: &View) -> Cell {
    let word = view.status.word();
    let (text, worse) = match view.health.filter(|_| view.pid != 0) {
        None => (word.to_string(), None),
        Some(Health::Healthy) => (format!("{word} (healthy)"), None),
        Some(Health::Starting) => (format!("{word} (starting)"), Some(Color::Yellow)),
        Some(Health::Unhealthy) => (format!("{word} (unhealthy)"), Some(Color::Red)),
    };
    Cell { text, color: Some(worse.unwrap_or(color(view.status))) }
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
            Watching => "watching",
            Next => "next run",
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
            State => state(view),
            // What is down uses nothing; of what is up it may not be known.
            Cpu => view.cpu.map_or(if up { "-" } else { "0%" }.to_string(), percent).into(),
            Memory => Cell {
                text: view.memory.map_or(if up { "-" } else { "0b" }.to_string(), bytes),
                color: view.leak.and(Some(Color::Yellow)),
            },
            User => escaped(&view.user).into(),
            Watching => view.watching.word().into(),
            Next => view.next_run.map_or("-".to_string(), |at| format!("in {}", age(now, at))).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::columns_of;
    use super::super::testing::{FakeDaemon, TestHome, run_line, run_line_in, view};
    use super::*;
    use crate::protocol::{Answer, Leak, Message};
    use crate::time::Millis;

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
    fn the_list_is_put_in_order() {
        let one = |id, name: &str, cpu, since| View {
            cpu: Some(cpu),
            since: Some(Wall(since)),
            ..view(id, name, Status::Online)
        };
        let views = [one(3, "a", 2.0, 10), one(1, "b", 9.0, 30), View { cpu: None, ..one(2, "c", 0.0, 20) }];
        for (by, expected) in [
            (SortBy::Name, [3, 1, 2]),
            (SortBy::Id, [1, 2, 3]),
            (SortBy::Pid, [1, 2, 3]),
            (SortBy::Cpu, [2, 3, 1]),
            (SortBy::Uptime, [1, 2, 3]),
            (SortBy::Namespace, [3, 1, 2]),
        ] {
            let mut sorted = views.to_vec();
            sort(&mut sorted, Sort { by, descending: false });
            assert_eq!(sorted.iter().map(|view| view.id).collect::<Vec<_>>(), expected, "{by:?}");
        }
        let mut sorted = views.to_vec();
        sort(&mut sorted, Sort { by: SortBy::Cpu, descending: true });
        assert_eq!(sorted.iter().map(|view| view.id).collect::<Vec<_>>(), [1, 3, 2]);
    }

    #[test]
    fn what_is_not_up_is_explained_below() {
        let said = |reason: &str| Some(reason.to_string());
        let waiting = View {
            reason: said("exit code 1"),
            retry_in: Some(Millis(1_200)),
            budget_left: Some(14),
            ..view(1, "api", Status::Waiting)
        };
        let unlimited = View { budget_left: None, ..waiting.clone() };
        let errored = View { reason: said("too many\nof them"), ..view(2, "job", Status::Errored) };
        let fine = View { reason: said("not of interest"), ..view(3, "web", Status::Online) };
        assert_eq!(
            notes(&[waiting, unlimited, errored.clone(), fine]),
            [
                "api(1): exit code 1; next start in 1200 ms, 14 of its budget left",
                "api(1): exit code 1; next start in 1200 ms",
                "job(2): too many\\x0aof them",
            ]
        );
        let leak = Leak { rate: 12 << 20, limit: Some(300 << 20), reached_in: Some(Millis(5 * 3_600_000)) };
        let grows = View { leak: Some(leak), ..view(4, "web", Status::Online) };
        let endless = Leak { limit: None, reached_in: None, ..leak };
        let grows_on = View { leak: Some(endless), ..view(5, "job", Status::Online) };
        assert_eq!(
            notes(&[grows, grows_on]),
            [
                "web(4): memory grows by 12 MiB per hour, and reaches its limit of 300 MiB in 5 h",
                "job(5): memory grows by 12 MiB per hour",
            ],
            "who is up and leaks is told of, too"
        );
        let many = notes(&vec![errored; 25]);
        assert_eq!((many.len(), many[10].as_str()), (11, "and 15 more (pmx describe tells why)"));
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
