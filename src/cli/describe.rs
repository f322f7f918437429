//! `describe`: everything about a process, in pm2's rows and pmx's own.

use super::Session;
use super::act::details;
use super::format::{age, bytes, percent};
use super::grid::{Cell, Grid};
use super::jlist::joined;
use super::list::{now, state};
use super::past::Past;
use super::screen::{Color, Fail, escaped};
use crate::app::{App, Instances, Notice};
use crate::protocol::{Detail, View, Watching};
use crate::sys::census::Census;
use crate::time::Wall;

/// `pmx describe`.
pub fn describe(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let targets = super::act::targets(session, "describe", operands)?;
    let details = details(session, &targets)?;
    let census = Census::default();
    let shares: Vec<Option<u64>> = match session.options.pss {
        true => details.iter().map(|detail| proportional(&detail.view, &census)).collect(),
        false => Vec::new(),
    };
    if session.options.json && session.options.pss {
        let with = |(detail, share): (&Detail, &Option<u64>)| {
            let mut value = serde_json::to_value(detail).unwrap_or_default();
            value["pss"] = (*share).into();
            value
        };
        return session.screen.json(&details.iter().zip(&shares).map(with).collect::<Vec<_>>());
    }
    if session.options.json {
        return session.screen.json(&details);
    }
    if details.is_empty() {
        return Err(Fail::Sentence(format!("describe {}: no such process", operands.join(" "))));
    }
    let past = Past::read(&session.home, &details, now());
    for (at, detail) in details.iter().enumerate() {
        let share = shares.get(at).map(|share| share.map_or("not to be had".to_string(), bytes));
        let text = page(session, detail, &past, share);
        session.screen.data(text.as_bytes())?;
    }
    Ok(())
}

/// Dear, and so looked at here: the daemon has other things to do.
fn proportional(view: &View, census: &Census) -> Option<u64> {
    census.proportional_memory(i32::try_from(view.pid).ok().filter(|pid| *pid > 0)?)
}

fn page(session: &Session<'_, '_>, detail: &Detail, past: &Past, share: Option<String>) -> String {
    let screen = &*session.screen;
    let title = format!(" {} ({}) ", escaped(&detail.view.name), detail.view.id);
    let mut text = format!("{}\n", screen.paint(Color::Cyan, &title));
    let mut main = main_rows(detail, now());
    let after = main.iter().position(|(name, _)| name == "memory").map_or(main.len(), |at| at + 1);
    let share = share.map(|share| ("memory, shared in part".to_string(), share));
    let more = share.into_iter().chain(past.rows(detail.view.id));
    main.splice(after..after, more.map(|(name, text)| (name, text.into())));
    text.push_str(&rows(main).draw(screen));
    if !detail.app.env.0.is_empty() {
        text.push_str("Declared environment\n");
        let variables = detail.app.env.0.iter();
        let rows_of = variables.map(|(name, value)| (escaped(&name.lossy()), escaped(&value.lossy()).into()));
        text.push_str(&rows(rows_of.collect()).draw(screen));
    }
    if !detail.axm.actions.is_empty() {
        let actions: Vec<String> = detail.axm.names().map(escaped).collect();
        text.push_str(&format!("Actions (pmx trigger): {}\n", actions.join(", ")));
    }
    if !detail.axm.monitor.is_empty() {
        text.push_str("Metrics\n");
        let metrics = detail.axm.monitor.iter().map(|(name, metric)| {
            let value = metric.get("value").unwrap_or(metric);
            let value = value.as_str().map_or_else(|| value.to_string(), String::from);
            let unit = metric.get("unit").and_then(|unit| unit.as_str()).unwrap_or_default();
            (escaped(name), escaped(format!("{value} {unit}").trim_end()).into())
        });
        text.push_str(&rows(metrics.collect()).draw(screen));
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
    row("status", state(view));
    if let Some(reason) = &view.reason {
        row("reason", escaped(reason).into());
    }
    if let Some(retry) = view.retry_in {
        row("next start in", format!("{} ms", retry.0).into());
    }
    row("name", escaped(&view.name).into());
    row("namespace", escaped(&view.namespace).into());
    row("restarts", restarts(detail).into());
    if let Some(reason) = &detail.last_restart {
        row("last restart", escaped(reason).into());
    }
    row("uptime", view.since.filter(|_| up).map_or("0".to_string(), |since| age(since, now)).into());
    row("pid", view.pid.to_string().into());
    if let Some(child) = &detail.beside {
        row("beside it", format!("pid {}, {}", child.pid, escaped(&child.phase)).into());
    }
    row("cpu", view.cpu.map_or("-".to_string(), percent).into());
    row("memory", view.memory.map_or("-".to_string(), bytes).into());
    if let Some(leak) = &view.leak {
        row("leak", Cell { text: leak.text(), color: Some(Color::Yellow) });
    }
    if view.processes > 0 {
        let files = detail.fds.map_or(String::new(), |fds| format!(", {fds} open files"));
        row("processes", format!("{} with {} threads{files}", view.processes, view.threads).into());
    }
    row("user", escaped(&view.user).into());
    row("script path", escaped(&app.command.script.lossy()).into());
    row("script args", or_none(joined(&app.command.args)).into());
    row("error log path", escaped(&detail.error_file).into());
    row("out log path", escaped(&detail.out_file).into());
    if let Some(path) = &detail.log_file {
        row("entire log path", escaped(path).into());
    }
    if detail.log_bytes > 0 {
        row("logged", bytes(detail.log_bytes).into());
    }
    if detail.lines_lost > 0 {
        row("log lines lost", detail.lines_lost.to_string().into());
    }
    let interpreter = app.command.interpreter.as_ref().map_or("none".to_string(), |name| name.lossy().into());
    row("interpreter", escaped(&interpreter).into());
    row("interpreter args", or_none(joined(&app.command.interpreter_args)).into());
    row("script id", view.id.to_string().into());
    row("exec cwd", escaped(&app.cwd.lossy()).into());
    row("exec mode", if view.cluster { "cluster_mode" } else { "fork_mode" }.into());
    if view.cluster {
        row("balance", app.balance.word().into());
        let accepted =
            view.accepted.map_or("the kernel deals them out".to_string(), |count| count.to_string());
        row("accepted", accepted.into());
    }
    let instances = match app.instances {
        Instances::Count(count) => count.to_string(),
        Instances::CpusLess(0) => "one per CPU".to_string(),
        Instances::CpusLess(less) => format!("one per CPU, less {less}"),
    };
    row("instances", format!("{instances} (this is {})", view.instance).into());
    if let Some(health) = &app.health {
        let every = format!(
            "{}, every {} ms, on failure: {}",
            health.check.text(),
            health.interval.0,
            health.on_fail.word()
        );
        row("health check", escaped(&every).into());
    }
    if let Some(error) = &detail.health_error {
        row("last failed check", escaped(error).into());
    }
    if let Some(says) = &view.says {
        row("says", escaped(says).into());
    }
    if let Some(said) = &detail.said {
        row("last notified", escaped(said).into());
    }
    if let Some(watchdog) = detail.watchdog {
        row("watchdog", format!("{} ms", watchdog.0).into());
    }
    if let Some(pid) = detail.main_pid {
        row("main pid", pid.to_string().into());
    }
    if let Some(version) = &detail.node_version {
        row("node.js version", escaped(version).into());
    }
    row("autorestart", app.restart.autorestart.to_string().into());
    row("unstable restarts", view.unstable.to_string().into());
    let budget = match view.budget_left {
        Some(left) => {
            let window = age(Wall(0), Wall(app.restart.restart_window.0));
            format!("{left} of {} left within {window}", app.restart.max_restarts)
        }
        None => app.restart.max_restarts.to_string(),
    };
    row("restart budget", budget.into());
    for (name, line) in [("pre start", &app.hooks.pre_start), ("post stop", &app.hooks.post_stop)] {
        if let Some(line) = line {
            row(name, escaped(line).into());
        }
    }
    for (occasion, alerts) in &app.on.0 {
        for alert in alerts {
            row(&format!("on {}", occasion.word()), escaped(&alert.way.text()).into());
        }
    }
    row("autostart", app.autostart.to_string().into());
    let others = app.depends_on.iter().map(|on| format!("{} ({})", on.app, on.condition.word()));
    if !app.depends_on.is_empty() {
        row("depends on", escaped(&others.collect::<Vec<_>>().join(", ")).into());
    }
    row("stop", stop(app).into());
    if let Some(limit) = &app.triggers.max_memory {
        row("max memory restart", limit.to_string().into());
    }
    for (name, pattern) in [("cron restart", &app.triggers.cron), ("schedule", &app.triggers.schedule)] {
        if let Some(pattern) = pattern {
            let zone = app.triggers.zone.as_ref().map_or(String::new(), |zone| format!(" ({zone})"));
            row(name, escaped(&format!("{pattern}{zone}")).into());
        }
    }
    if app.triggers.schedule.is_some() {
        let skipped =
            if detail.skipped == 0 { String::new() } else { format!(", {} left out", detail.skipped) };
        row("overlap", format!("{}{skipped}", app.triggers.overlap.word()).into());
    }
    if app.triggers.pattern().is_some() {
        row("last run", view.last_run.map_or("-".to_string(), |at| at.to_string()).into());
        row("next run", view.next_run.map_or("-".to_string(), |at| at.to_string()).into());
    }
    let watching = match &view.watching {
        Watching::Off | Watching::On => view.watching.word().to_string(),
        Watching::Paused(why) | Watching::Failed(why) => {
            format!("{}: {}", view.watching.word(), escaped(why))
        }
    };
    row("watch & reload", watching.into());
    row("kill timeout", format!("{} ms", app.kill_timeout.0).into());
    if detail.lost > 0 {
        row("messages lost", format!("{}: it does not read its channel", detail.lost).into());
    }
    row("stdin", app.stdin.word().into());
    row("kill mode", app.kill_mode.word().into());
    for (name, limit) in app.limits.shown() {
        row(&format!("limit of {name}"), limit.into());
    }
    if app.privileges.no_new_privs.unwrap_or(app.user.is_some()) {
        row("new privileges", "never".into());
    }
    if let Some(names) = app.privileges.names() {
        row("capabilities", or_none(names.join(" ")).into());
    }
    row("created at", detail.created.to_string().into());
    for listen in &detail.listens {
        row("listens on", escaped(listen).into());
    }
    for queue in &detail.queues {
        let text = format!("{} of at most {} at {}", queue.waiting, queue.most, escaped(&queue.address));
        row("waiting connections", text.into());
    }
    pairs
}

/// `3 (2 crash, 1 memory)`
fn restarts(detail: &Detail) -> String {
    let causes = detail.by_cause.iter().map(|(cause, count)| format!("{count} {}", cause.word()));
    match causes.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => detail.view.restarts.to_string(),
        causes => format!("{} ({causes})", detail.view.restarts),
    }
}

/// `SIGTERM, after 10000 ms SIGINT, after 5000 ms SIGKILL`.
fn stop(app: &App) -> String {
    let mut text = String::new();
    for (notice, wait) in (0..).map_while(|step| app.stop_step(step)) {
        let notice = match notice {
            Notice::Signal(signal) => crate::sys::signals::name(signal),
            Notice::Message { .. } => "the message shutdown".to_string(),
        };
        text.push_str(&format!("{notice}, after {} ms ", wait.0));
    }
    text + "SIGKILL"
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
            "│ last restart      │ memory 512 MiB over the limit of 300 MiB",
            "│ TOKEN │ declared │",
            "│ 1970-01-01T00:00:09.000Z │ pid 99 after 3s: exit code 1 │",
            "    Error: \\x1b[31mboom\n",
        ] {
            assert!(out.contains(row), "{row} is missing in\n{out}");
        }
        assert!(run_line(&home.caller, &["show", "3", "--json"]).1.starts_with("[{\"id\":3,"));
        // A script's path addresses what runs it.
        assert_eq!(run_line(&home.caller, &["describe", "./app.js"]).0, 0);
        let targets = vec![crate::protocol::by_id(3)];
        assert_eq!(daemon.requests().pop().unwrap().verb, Verb::Describe { targets });
    }
}
