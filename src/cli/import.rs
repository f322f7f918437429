//! `import pm2`: what pm2 has saved is started here. While pm2's daemon runs, its apps would run twice: it has to
//! save its list and end first, and it is told so only when asked for, once its list is known to be readable.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Session;
use super::caller::absolute;
use super::screen::Fail;
use super::{resurrect, store};
use crate::pm2;

/// How long pm2's daemon may take to be gone once `pm2 kill` has ended.
const GONE_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(10);

/// `pmx import pm2`.
pub fn import(session: &mut Session<'_, '_>, from: &str) -> Result<(), Fail> {
    if from != "pm2" {
        return Err(Fail::Sentence(format!("import {from}: only pm2 can be imported from")));
    }
    let home = pm2_home(session)?;
    if home == session.home.path {
        let sentence = "import pm2: pmx lives in pm2's home here: pm2 kill, then pmx resurrect";
        return Err(Fail::Sentence(sentence.to_string()));
    }
    let runs = || UnixStream::connect(home.join(pm2::CALLS)).is_ok();
    let dump = home.join("dump.pm2");
    if runs() {
        if !session.options.take_over {
            return Err(Fail::Sentence(format!(
                "import pm2: pm2 runs in {}, and its apps would run twice: with --take-over it saves its list and ends first",
                home.display()
            )));
        }
        run_pm2(session, &home, &["save", "--force"])?;
        readable(&dump)?;
        run_pm2(session, &home, &["kill"])?;
        let deadline = Instant::now() + GONE_DEADLINE;
        while runs() {
            if Instant::now() >= deadline {
                return Err(Fail::Sentence(format!("import pm2: pm2 in {} does not end", home.display())));
            }
            std::thread::sleep(RETRY);
        }
        session.screen.line(&format!("import: pm2 in {} has saved its list and ended", home.display()))?;
    } else {
        readable(&dump)?;
    }
    resurrect::resurrect(session, Some(&dump.to_string_lossy().into_owned()))
}

fn pm2_home(session: &Session<'_, '_>) -> Result<PathBuf, String> {
    let usual = || session.caller.var("HOME").map(|home| PathBuf::from(home).join(".pm2"));
    let home = session.caller.var("PM2_HOME").map(PathBuf::from).or_else(usual);
    let home = home.ok_or("import pm2: neither PM2_HOME nor HOME is set: where does pm2 live?")?;
    Ok(absolute(&session.caller.cwd, &home))
}

fn readable(dump: &Path) -> Result<(), Fail> {
    match store::read(dump) {
        Some(Ok(_)) => Ok(()),
        Some(Err(fault)) => Err(Fail::Sentence(format!("import pm2: {}: {fault}", dump.display()))),
        None => {
            Err(Fail::Sentence(format!("import pm2: {}: no such file (pm2 save writes it)", dump.display())))
        }
    }
}

/// Has pm2 do something. Its own words are shown when it fails.
fn run_pm2(session: &Session<'_, '_>, home: &Path, args: &[&str]) -> Result<(), Fail> {
    let mut command = Command::new("pm2");
    command.args(args).env("PM2_HOME", home).env("PATH", session.caller.var("PATH").unwrap_or_default());
    let ran = command.env_remove("PMX_COMPAT").stdin(Stdio::null()).output();
    let line = args.join(" ");
    match ran {
        Err(error) => Err(Fail::Sentence(format!("import pm2: run pm2 {line}: {error}"))),
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => {
            let said = String::from_utf8_lossy(&ran.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
            Err(Fail::Sentence(format!("import pm2: pm2 {line}: {}", last.trim())))
        }
    }
}
