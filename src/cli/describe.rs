//! `describe`: everything about a process, in pm2's rows and pmx's own.

use super::Session;
use super::act::details;
use super::format::{age, bytes, percent};
use super::grid::{Cell, Grid};
use super::jlist::joined;
use super::list::{color, now};
use super::screen::{Color, Fail, escaped};
use crate::app::Instances;
use crate::protocol::Detail;
use crate::time::Wall;

/// `pmx describe`.
pub fn describe(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let targets = super::act::targets(session, "describe", operands)?;
    let details = details(session, &targets)?;
    if session.options.json {
        return session.screen.json(&details);
    }
    if details.is_empty() {
        return Err(Fail::Sentence(format!("describe {}: no such process", operands.join(" "))));
    }
    for detail in &details {
        let text = page(session, detail, now());
        session.screen.data(text.as_bytes())?;
    }
    Ok(())
}

fn page(session: &Session<'_, '_>, detail: &Detail, now: Wall) -> String {
    let screen = &*session.screen;
    let title = format!(" {} ({}) ", escaped(&detail.view.name), detail.view.id);
    let mut text = format!("{}\n", screen.paint(Color::Cyan, &title));
    text.push_str(&rows(main_rows(detail, now)).draw(screen));
    if !detail.app.env.0.is_empty() {
        text.push_str("Declared environment\n");
        let variables = detail.app.env.0.iter();
        let rows_of = variables.map(|(name, value)| (escaped(&name.lossy()), escaped(&value.lossy()).into()));
        text.push_str(&rows(rows_of.collect()).draw(screen));
    }
    if !detail.exits.is_empty() {
        text.push_str("Last exits\n");
        let exits = detail.exits.iter().map(|exit| {
            let lived = age(Wall(0), Wall(exit.lived.0));
            let how = format!("pid {} after {lived}: {}", exit.pid, escaped(&exit.text));
            (exit.at.to_string(), how.into())
        });
        text.push_str(&rows(exits.collect()).draw(screen));
    }
    if !detail.last_lines.is_empty() {
        text.push_str("Last lines of the child that ended last\n");
        for line in &detail.last_lines {
            text.push_str(&format!("    {}\n", escaped(line)));
        }
    }
    text
}

fn rows(pairs: Vec<(String, Cell)>) -> Grid {
    let named = |(name, value): (String, Cell)| vec![Cell { text: name, color: Some(Color::Cyan) }, value];
    Grid { header: Vec::new(), rows: pairs.into_iter().map(named).collect() }
}

fn main_rows(detail: &Detail, now: Wall) -> Vec<(String, Cell)> {
    let Detail { view, app, .. } = detail;
    let mut pairs: Vec<(String, Cell)> = Vec::new();
    let mut row = |name: &str, value: Cell| pairs.push((name.to_string(), value));
    let up = view.pid != 0;
    row("status", Cell { text: view.status.word().to_string(), color: Some(color(view.status)) });
    if let Some(reason) = &view.reason {
        row("reason", escaped(reason).into());
    }
    if let Some(retry) = view.retry_in {
        row("next start in", format!("{} ms", retry.0).into());
    }
    row("name", escaped(&view.name).into());
    row("namespace", escaped(&view.namespace).into());
    row("restarts", view.restarts.to_string().into());
    row("uptime", view.since.filter(|_| up).map_or("0".to_string(), |since| age(since, now)).into());
    row("pid", view.pid.to_string().into());
    if let Some(child) = &detail.beside {
        row("beside it", format!("pid {}, {}", child.pid, escaped(&child.phase)).into());
    }
    row("cpu", view.cpu.map_or("-".to_string(), percent).into());
    row("memory", view.memory.map_or("-".to_string(), bytes).into());
    row("user", escaped(&view.user).into());
    row("script path", escaped(&app.command.script.lossy()).into());
    row("script args", or_none(joined(&app.command.args)).into());
    row("error log path", escaped(&detail.error_file).into());
    row("out log path", escaped(&detail.out_file).into());
    let interpreter = app.command.interpreter.as_ref().map_or("none".to_string(), |name| name.lossy().into());
    row("interpreter", escaped(&interpreter).into());
    row("interpreter args", or_none(joined(&app.command.interpreter_args)).into());
    row("script id", view.id.to_string().into());
    row("exec cwd", escaped(&app.cwd.lossy()).into());
    row("exec mode", if view.cluster { "cluster_mode" } else { "fork_mode" }.into());
    if view.cluster {
        row("balance", app.balance.word().into());
    }
    let instances = match app.instances {
        Instances::Count(count) => count.to_string(),
        Instances::CpusLess(0) => "one per CPU".to_string(),
        Instances::CpusLess(less) => format!("one per CPU, less {less}"),
    };
    row("instances", format!("{instances} (this is {})", view.instance).into());
    if let Some(version) = &detail.node_version {
        row("node.js version", escaped(version).into());
    }
    row("autorestart", app.restart.autorestart.to_string().into());
    row("unstable restarts", format!("{} of {}", view.unstable, app.restart.max_restarts).into());
    row("kill timeout", format!("{} ms", app.kill_timeout.0).into());
    row("created at", detail.created.to_string().into());
    for listen in &detail.listens {
        row("listens on", escaped(listen).into());
    }
    pairs
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_string() } else { escaped(&text) }
}

#[cfg(test)]
mod tests {
    use super::super::jlist::tests::detail;
    use super::super::testing::{FakeDaemon, TestHome, run_line};
    use crate::protocol::{Answer, Message, Verb};

    #[test]
    fn it_shows_what_pm2_shows_and_how_children_ended() {
        let home = TestHome::new("describe");
        let script = home.home.path.join("app.js");
        std::fs::write(&script, "").unwrap();
        let path = script.clone();
        let daemon = FakeDaemon::start(&home.home, move |request, _| {
            let mut detail = detail();
            detail.app.command.script = crate::app::Text::from(&path);
            let answer = match request.verb {
                Verb::List => Answer::List(vec![detail.view]),
                _ => Answer::Details(vec![detail]),
            };
            Message::Done { id: request.id, answer }
        });
        let (code, out, err) = run_line(&home.caller, &["describe", "api"]);
        assert_eq!((code, err.as_str()), (0, ""));
        for row in [
            " api (3) \n",
            "│ status            │ online",
            "│ script args       │ --port 'a b'",
            "│ exec mode         │ cluster_mode",
            "│ created at        │ 1970-01-01T00:00:05.000Z",
            "│ listens on        │ 0.0.0.0:3000",
            "│ TOKEN │ declared │",
            "│ 1970-01-01T00:00:09.000Z │ pid 99 after 3s: exit code 1 │",
            "    Error: \\x1b[31mboom\n",
        ] {
            assert!(out.contains(row), "{row} is missing in\n{out}");
        }
        assert!(run_line(&home.caller, &["show", "3", "--json"]).1.starts_with("[{\"id\":3,"));
        // A script's path addresses what runs it.
        assert_eq!(run_line(&home.caller, &["describe", "./app.js"]).0, 0);
        let targets = vec!["3".to_string()];
        assert_eq!(daemon.requests().pop().unwrap().verb, Verb::Describe { targets });
        let (code, _, err) = run_line(&home.caller, &["stop", "/ap.*/"]);
        assert_eq!((code, err.as_str()), (1, "stop /ap.*/: selecting by /regex/ is not built yet\n"));
    }
}
