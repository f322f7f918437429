//! Tells somebody what happened to an app: what the daemon's helper does (`pmx alert --deliver`), and `pmx alert`, which
//! tries by hand what is declared.

mod post;

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Session;
use super::screen::{Fail, escaped};
use super::{act, conf, save};
use crate::app::{self, Alert, Alerts, App, Delivery, Identity, Occasion, Way, variables_of_alert};
use crate::protocol::Detail;
use crate::sys::poll::{self, Until};
use crate::sys::{clock, family, pidfd, pipe, proc, signals, users};
use crate::time::Wall;

/// So much of what a command says is kept.
const WORDS: usize = 4 << 10;
/// How often it is looked whether a command has ended, where the kernel does not tell.
const LOOK: Duration = Duration::from_millis(50);
/// So often whoever a command left is ended.
const PASSES: usize = 100;

/// What came of an alert: what its command said, and the reason if it failed.
type Told = (String, Result<(), String>);

/// `pmx alert --deliver`: does what the daemon put on our stdin.
pub fn deliver() -> Result<(), Fail> {
    let mut text = Vec::new();
    io::stdin()
        .read_to_end(&mut text)
        .map_err(|error| format!("alert: read what to do: {}", crate::sys::reason(&error)))?;
    let delivery: Delivery = serde_json::from_slice(&text).map_err(|error| format!("alert: {error}"))?;
    adopt()?;
    let (_, result) = tell(&delivery.alert, &delivery.event, |command| command);
    end_descendants(std::process::id() as i32);
    Ok(result
        .map_err(|reason| format!("alert {}: {}: {reason}", delivery.about, delivery.alert.way.text()))?)
}

/// `pmx alert <name> <event>`.
pub fn alert(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let [name, event] = operands else {
        return Err(Fail::Sentence("alert needs <name|id> <event> (see pmx help alert)".to_string()));
    };
    let occasion = Occasion::named(event).map_err(|fault| format!("alert {name}: {fault}"))?;
    let details = act::details(session, std::slice::from_ref(name))?;
    let detail = details.first().ok_or_else(|| format!("alert {name}: no such process"))?;
    let app = declared(session, &detail.app)?;
    let (of_all, fault) = Alerts::of_settings(&conf::settings(session, "alert")?);
    if let Some(fault) = fault {
        session.screen.complain(&format!("pmx conf: {fault}"));
    }
    let alerts: Vec<&Alert> = app.on.of(occasion).iter().chain(of_all.of(occasion)).collect();
    if alerts.is_empty() {
        return Err(Fail::Sentence(format!(
            "alert {name} {event}: nothing is declared for it (on: {{{event}: ...}})"
        )));
    }
    let event = sample(detail, occasion);
    let env = environment(session, detail, &app, &event);
    adopt()?;
    let mut failed = false;
    for alert in alerts {
        let is_command = !matches!(alert.way, Way::Url { .. });
        let user = app.user.as_ref().filter(|_| users::effective_uid() == 0);
        let (said, result) = tell(alert, &event, |command| {
            if is_command {
                command.env_clear().envs(env.clone()).current_dir(app.cwd.path());
                user.map(|user| command.uid(user.uid).gid(user.gid));
            }
            command
        });
        end_descendants(std::process::id() as i32);
        session.screen.data(said.as_bytes())?;
        let way = escaped(&alert.way.text());
        match result {
            Ok(()) => session.screen.line(&format!("alert {name} {}: {way}: done", occasion.word()))?,
            Err(reason) => {
                failed = true;
                let reason = escaped(&reason);
                session.screen.complain(&format!("alert {name} {}: {way}: {reason}", occasion.word()));
            }
        }
    }
    if failed { Err(Fail::Said) } else { Ok(()) }
}

/// An app with what the daemon shows nobody.
fn declared(session: &mut Session<'_, '_>, shown: &App) -> Result<App, Fail> {
    let (connection, _) = session.connected()?;
    let mut all = save::list(connection)?.into_iter().map(|saved| saved.app);
    let found = all.find(|app| app.name == shown.name && app.namespace == shown.namespace);
    Ok(found.ok_or_else(|| format!("alert {}: it was deleted meanwhile", shown.name))?)
}

/// What is told when nothing has happened.
fn sample(detail: &Detail, occasion: Occasion) -> serde_json::Value {
    let view = &detail.view;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    json!({
        "version": 1, "event": occasion.word(), "test": true, "time": clock::wall().to_string(),
        "host": host.trim_end(), "app": view.name, "namespace": view.namespace, "id": view.id,
        "instance": view.instance, "pid": Some(view.pid).filter(|pid| *pid > 0), "status": view.status.word(),
        "reason": "a test by pmx alert", "cause": null, "exit_code": null, "signal": null,
        "restarts": view.restarts, "numbers": null, "lines": detail.last_lines, "suppressed": 0,
    })
}

fn environment(
    session: &Session<'_, '_>,
    detail: &Detail,
    app: &App,
    event: &serde_json::Value,
) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let identity = Identity {
        id: detail.view.id,
        instance: detail.view.instance,
        created: Wall(detail.created.0),
        home: &session.home.path,
        notify: None,
        cluster: detail.view.cluster,
        mark: "",
    };
    let mut env = app::environment(app, &identity, None);
    env.0.remove(&app::Text::from("PMX_INSTANCE"));
    for (name, value) in variables_of_alert(event) {
        env.set(name, value);
    }
    env.0.iter().map(|(name, value)| (name.path().into(), value.path().into())).collect()
}

/// Tells somebody. `prepare`: how a command is run, beyond as we are.
fn tell(alert: &Alert, event: &serde_json::Value, prepare: impl Fn(&mut Command) -> &mut Command) -> Told {
    let timeout = Duration::from_millis(alert.timeout.0);
    let event = format!("{event}\n");
    let mut command = match &alert.way {
        Way::Line(line) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(line);
            command
        }
        Way::Words(words) => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        }
        Way::Url { url, headers } => return post::post(url, headers, event.trim_end(), timeout),
    };
    prepare(&mut command);
    run(command, event.as_bytes(), timeout)
}

/// Runs a command with `input` on its stdin, and ends it, and whatever it started, when its time is over.
fn run(mut command: Command, input: &[u8], timeout: Duration) -> Told {
    let deadline = Instant::now() + timeout;
    let mut words = Vec::new();
    let result = begin(&mut command, input).and_then(|(mut child, output)| {
        // Its ends of the pipe are its own from now on.
        drop(command);
        let ended = wait(&mut child, output.as_fd(), &mut words, deadline);
        if matches!(ended, Ok(None) | Err(_)) {
            end_descendants(child.id() as i32);
            let _ = child.kill();
            let _ = child.wait();
        }
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(describe(status)),
            Ok(None) => Err(format!("not done within {} ms", timeout.as_millis())),
            Err(error) => Err(crate::sys::reason(&error)),
        }
    });
    let said = String::from_utf8_lossy(&words).into_owned();
    let last = said.lines().rfind(|line| !line.trim().is_empty()).map(str::trim);
    let result = result.map_err(|reason| last.map_or(reason.clone(), |last| format!("{reason}: {last}")));
    (said, result)
}

fn begin(command: &mut Command, input: &[u8]) -> Result<(std::process::Child, std::os::fd::OwnedFd), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("run {program}: {}", crate::sys::reason(&error));
    let input = pipe::memfd("pmx-event", input).map_err(failed)?;
    let (ours, theirs) = pipe::pipe().map_err(failed)?;
    let both = theirs.try_clone().map_err(failed)?;
    let child = command.stdin(input).stdout(theirs).stderr(both).spawn().map_err(failed)?;
    Ok((child, ours))
}

/// Waits for the end of a child, and keeps its last words. `None`: its time is over.
fn wait(
    child: &mut std::process::Child,
    output: BorrowedFd,
    words: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let pidfd = pidfd::open(child.id() as i32).ok();
    let mut is_open = true;
    loop {
        let ended = child.try_wait()?;
        is_open = is_open && read(output, words)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if ended.is_some() || left.is_zero() {
            return Ok(ended);
        }
        let mut sources: Vec<(BorrowedFd, Until)> = Vec::new();
        sources.extend(is_open.then_some((output, Until::Readable)));
        sources.extend(pidfd.as_ref().map(|pidfd| (pidfd.as_fd(), Until::Readable)));
        poll::wait(&sources, Some(if pidfd.is_some() { left } else { left.min(LOOK) }))?;
    }
}

/// Reads what is there, within bounds: time goes on. False: there will be no more.
fn read(output: BorrowedFd, words: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        match pipe::read(output, &mut buffer)? {
            pipe::Read::Bytes(count) => {
                words.extend_from_slice(&buffer[..count]);
                let surplus = words.len().saturating_sub(WORDS);
                words.drain(..surplus);
            }
            pipe::Read::Empty => return Ok(true),
            pipe::Read::Closed => return Ok(false),
        }
    }
    Ok(true)
}

/// Whoever loses a parent below us is ours from now on: so all of them are found.
fn adopt() -> Result<(), String> {
    family::adopt_orphans()
        .map_err(|error| format!("alert: become a subreaper: {}", crate::sys::reason(&error)))
}

/// Ends all that a process started.
fn end_descendants(of: i32) {
    for _ in 0..PASSES {
        let mut left = proc::descendants(of).unwrap_or_default();
        left.retain(|pid| *pid != of && proc::stat(*pid).is_some_and(|stat| stat.state != 'Z'));
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = pidfd::send(None, pid, libc::SIGKILL);
        }
        // Ending takes the kernel a moment.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `exit code 1`, `killed by SIGSEGV`.
fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by {}", signals::name(signal)),
        None => format!("exit code {}", status.code().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str, timeout: u64) -> Told {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        run(command, b"{\"a\":1}", Duration::from_millis(timeout))
    }

    #[test]
    fn a_command_has_the_event_on_its_stdin_and_fails_with_its_last_words() {
        assert_eq!(shell("cat", 10_000), ("{\"a\":1}".to_string(), Ok(())));
        // Who does not read it is none the worse.
        assert_eq!(shell("exit 0", 10_000).1, Ok(()));
        assert_eq!(shell("echo a; echo b >&2; exit 3", 10_000).1, Err("exit code 3: b".to_string()));
        assert_eq!(shell("kill -9 $$", 10_000).1, Err("killed by SIGKILL".to_string()));
        let (said, result) = shell("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end", 10_000);
        assert!(said.len() <= WORDS && said.ends_with("x\nend\n") && result.is_ok(), "{result:?}");
        let none = run(Command::new("/nowhere/at/all"), b"", Duration::from_secs(1)).1.unwrap_err();
        assert!(none.starts_with("run /nowhere/at/all: "), "{none}");
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let begun = Instant::now();
        let (said, result) =
            shell("trap '' TERM INT; echo hangs; exec >&- 2>&-; sleep 1000; sleep 1000", 200);
        assert_eq!((said.as_str(), result), ("hangs\n", Err("not done within 200 ms: hangs".to_string())));
        assert!(begun.elapsed() < Duration::from_secs(20));
        // Nor does one hold it up that says too much.
        assert!(shell("yes", 200).1.unwrap_err().starts_with("not done within 200 ms: y"));
    }
}
