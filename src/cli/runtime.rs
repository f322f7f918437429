//! `runtime`: apps as the first process of a container. Everything is resolved here, in the process that will
//! run them; no daemon is asked, and none is started.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::caller::Caller;
use super::home::{self, Home};
use super::options::Options;
use super::resolve;
use super::screen::{Fail, Screen};
use super::start;
use super::{Run, RuntimeRun};
use crate::app::declaration::Declared;
use crate::app::{App, Changes, Container, ExitOn, Instances, NOT_EXECUTABLE, NOT_FOUND, SharedEnv};
use crate::time::Millis;

/// Docker's own patience; that of Kubernetes is 30 s.
const GRACE: Millis = Millis(10_000);
/// So much of it pmx needs for itself.
const MARGIN: Millis = Millis(1_000);
/// Containers are stopped by SIGTERM, and so are the apps in them.
const STOP_SIGNAL: i32 = libc::SIGTERM;

/// Other names of this program that mean this command; the last two are pm2's.
const NAMES: [&str; 3] = ["pmx-runtime", "pm2-runtime", "pm2-docker"];

/// The words of a command line, the program's own name first, without that name: where it is one of those
/// that mean `runtime`, that command is put in its place.
pub fn words(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    let is_runtime =
        Path::new(&name).file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known));
    let mut words: Vec<OsString> = args.collect();
    if is_runtime {
        // `pm2-runtime start app.js`
        if words.first().is_some_and(|word| word == OsStr::new("start")) {
            words.remove(0);
        }
        words.insert(0, OsString::from("runtime"));
    }
    words
}

/// What is to be run, completely.
pub fn runtime(
    caller: &Caller,
    options: &Options,
    operands: &[String],
    screen: &mut Screen<'_>,
) -> Result<Run, Fail> {
    let grace = options.grace.unwrap_or(GRACE);
    let drain_delay = options.drain_delay.unwrap_or(Millis(0));
    if grace <= MARGIN {
        return Err(Fail::Sentence(format!("--grace: pmx needs {} ms of it for itself", MARGIN.0)));
    }
    let budget = Millis(grace.0 - MARGIN.0);
    if drain_delay >= budget {
        return Err(Fail::Sentence(format!(
            "--drain-delay: {} ms leave nothing of --grace {} to stop in",
            drain_delay.0, grace.0
        )));
    }
    let found = declared(caller, options, operands, screen)?;
    let exit_on = match options.exit_on {
        Some(exit_on) => exit_on,
        None if found.len() == 1 => ExitOn::Any,
        None => ExitOn::All,
    };
    if exit_on == ExitOn::Critical && !found.iter().any(|(_, app)| app.critical) {
        return Err(Fail::Sentence(
            "--exit-on critical: no app is declared with \"critical\": true".to_string(),
        ));
    }
    let is_alone = matches!(&found[..], [(_, app)] if app.instances == Instances::Count(1));
    let apps = found.into_iter().map(|(changes, mut app)| {
        app.stop_signal = STOP_SIGNAL;
        let patience = Millis(budget.0 - drain_delay.0);
        app.drain_timeout = app.drain_timeout.min(Millis(patience.0 / 2));
        if changes.kill_timeout.is_none() {
            app.kill_timeout = patience;
        }
        if is_alone && !says_when_to_restart(&changes) {
            app.restart.autorestart = options.restart;
        }
        app
    });
    let container = Container {
        apps: apps.collect(),
        inherit: SharedEnv(caller.inheritable().into()),
        exit_on,
        grace,
        drain_delay,
        format: options.format,
    };
    let homes = home::of_container(caller);
    if let (Some(_), Some(path)) = (caller.var("PMX_HOME"), homes.first()) {
        // With its parents; if that fails, there are other places.
        let _ = Home { path: path.clone() }.prepare();
    }
    Ok(Run::Runtime(RuntimeRun { homes, container }))
}

/// A container that is restarted from outside has no use for a second opinion, unless somebody has one.
fn says_when_to_restart(changes: &Changes) -> bool {
    changes.autorestart.is_some()
        || changes.stop_exit_codes.is_some()
        || changes.min_uptime.is_some()
        || changes.max_restarts.is_some()
        || changes.restart_window.is_some()
        || changes.restart_delay.is_some()
        || changes.exp_backoff.is_some()
}

/// Each app, with what was said about it.
fn declared(
    caller: &Caller,
    options: &Options,
    operands: &[String],
    screen: &mut Screen<'_>,
) -> Result<Vec<(Changes, App)>, Fail> {
    let mut found = Vec::new();
    // `pmx runtime -- node app.js`: the command of an image as it is.
    if operands.is_empty() {
        let mut line = options.changes.args.clone().unwrap_or_default().into_iter();
        let Some(script) = line.next() else {
            return Err(Fail::Sentence("runtime: nothing given to run (see pmx help runtime)".to_string()));
        };
        let mut declared = start::script(options, &script.lossy());
        declared.changes.args = Some(line.collect());
        found.push(one(caller, screen, declared)?);
    }
    for operand in operands {
        if super::source::is_declaration(operand) {
            let file = start::file("runtime", caller, options, operand)?;
            for warning in &file.warnings {
                screen.complain(warning);
            }
            for declared in file.apps {
                found.push(one(caller, screen, declared)?);
            }
        } else {
            found.push(one(caller, screen, start::script(options, operand))?);
        }
    }
    Ok(found)
}

fn one(caller: &Caller, screen: &mut Screen<'_>, declared: Declared) -> Result<(Changes, App), Fail> {
    let resolved = resolve::resolve(&declared, caller).map_err(|error| {
        let code = if error == resolve::NOT_EXECUTABLE { NOT_EXECUTABLE } else { NOT_FOUND };
        Fail::Code(code, format!("runtime {}: {error}", declared.script))
    })?;
    for note in &resolved.notes {
        screen.complain(note);
    }
    resolved.app.check().map_err(|error| Fail::Sentence(format!("runtime: {error}")))?;
    Ok((declared.changes, resolved.app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Format;
    use crate::cli::testing::{TestHome, run_line, run_to};

    #[test]
    fn other_names_of_the_program_are_the_command() {
        for (line, expected) in [
            ("pmx list", "list"),
            ("/usr/bin/pm2-runtime app.js", "runtime app.js"),
            ("pm2-runtime start app.js", "runtime app.js"),
            ("pm2-docker --json start app.js", "runtime --json start app.js"),
            ("./pmx-runtime", "runtime"),
            ("pm2-runtime2 x", "x"),
            ("", ""),
        ] {
            let found = words(line.split(' ').map(OsString::from));
            let found: Vec<_> = found.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(found.join(" "), expected, "{line}");
        }
    }

    fn container(home: &TestHome, line: &[&str]) -> Container {
        match run_to(&home.caller, line) {
            Run::Runtime(run) => run.container,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn n05_everything_ends_within_the_grace_period_and_by_sigterm() {
        let home = TestHome::new("runtime-grace");
        let found = container(&home, &["runtime", "sh"]);
        let app = &found.apps[0];
        assert_eq!((found.grace, found.drain_delay, found.exit_on), (GRACE, Millis(0), ExitOn::Any));
        assert_eq!((app.stop_signal, app.kill_timeout, app.drain_timeout.0), (15, Millis(9_000), 4_500));
        assert!(!app.restart.autorestart && found.format == Format::Raw);
        let line = ["runtime", "sh", "--grace", "30s", "--drain-delay", "5s", "-k", "2s", "--json"];
        let found = container(&home, &line);
        assert_eq!((found.apps[0].kill_timeout, found.apps[0].drain_timeout.0), (Millis(2_000), 10_000));
        assert_eq!((found.drain_delay, found.format), (Millis(5_000), Format::Json));
        for (line, sentence) in [
            (&["runtime", "sh", "--grace", "1s"][..], "--grace: pmx needs 1000 ms of it for itself"),
            (
                &["runtime", "sh", "--grace", "3s", "--drain-delay", "2s"],
                "--drain-delay: 2000 ms leave nothing of --grace 3000 to stop in",
            ),
            (
                &["runtime", "sh", "--exit-on", "critical"],
                "--exit-on critical: no app is declared with \"critical\": true",
            ),
            (&["runtime", "sh", "--exit-on", "one"], "--exit-on: expected any, all or critical, got \"one\""),
            (&["runtime", "a.yml"], "runtime a.yml: no such file"),
            (&["runtime"], "runtime: nothing given to run (see pmx help runtime)"),
        ] {
            let (code, _, err) = run_line(&home.caller, line);
            assert_eq!((code, err.trim_end()), (1, sentence), "{line:?}");
        }
    }

    #[test]
    fn n03_a_single_app_is_restarted_only_if_somebody_said_so() {
        let home = TestHome::new("runtime-restart");
        for (line, restarted) in [
            (&["runtime", "sh"][..], false),
            (&["runtime", "--", "sh", "-c", "exit 3"], false),
            (&["runtime", "sh", "--restart"], true),
            (&["runtime", "sh", "--max-restarts", "3"], true),
            (&["runtime", "sh", "--restart", "--no-autorestart"], false),
            (&["runtime", "sh", "-i", "2"], true),
            (&["runtime", "sh", "cat"], true),
        ] {
            let found = container(&home, line);
            assert_eq!(found.apps[0].restart.autorestart, restarted, "{line:?}");
            assert_eq!(found.exit_on, if found.apps.len() == 1 { ExitOn::Any } else { ExitOn::All });
        }
        let found = container(&home, &["runtime", "--", "sh", "-c", "exit 3"]);
        let args: Vec<_> = found.apps[0].command.args.iter().map(|arg| arg.lossy()).collect();
        assert_eq!(args, ["-c", "exit 3"]);
    }

    #[test]
    fn n03_what_is_not_there_or_not_executable_has_a_shells_exit_code() {
        let home = TestHome::new("runtime-absent");
        std::fs::write(home.home.path.join("data.bin"), b"\x00\x01").unwrap();
        for (word, code, error) in [
            ("no-such-program", 127, "runtime no-such-program: no such file"),
            ("data.bin", 126, "runtime data.bin: not executable: chmod +x it, or give --interpreter"),
        ] {
            let (found, _, err) = run_line(&home.caller, &["runtime", word]);
            assert_eq!((found, err.trim_end()), (code, error));
        }
    }

    #[test]
    fn n10_critical_apps_are_declared() {
        let home = TestHome::new("runtime-critical");
        let text = r#"[{"script":"sh","name":"a","critical":true},{"script":"cat","autorestart":false}]"#;
        std::fs::write(home.home.path.join("apps.json"), text).unwrap();
        let found = container(&home, &["runtime", "apps.json", "--exit-on", "critical"]);
        assert_eq!(found.exit_on, ExitOn::Critical);
        let flags: Vec<_> = found.apps.iter().map(|app| (app.critical, app.restart.autorestart)).collect();
        assert_eq!(flags, [(true, true), (false, false)]);
    }
}
