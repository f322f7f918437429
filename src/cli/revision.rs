//! `pull`, `forward`, `backward`: another commit of the repository that an app runs from, then its reload. Git is
//! run as the person who typed the command, and nothing that is not upstream is ever given up.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Session;
use super::act::{self, details};
use super::screen::Fail;
use crate::protocol::Verb;

/// Which commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The newest one upstream, or a named one.
    Pull,
    /// The next one towards upstream.
    Forward,
    /// The one before.
    Backward,
}

/// pm2's files for `post_update`.
const FILES: [&str; 3] = ["ecosystem.json", "process.json", "package.json"];

/// `pmx pull <name> [commit]` and its relatives.
pub fn update(session: &mut Session<'_, '_>, which: Move, operands: &[String]) -> Result<(), Fail> {
    let verb = match which {
        Move::Pull => "pull",
        Move::Forward => "forward",
        Move::Backward => "backward",
    };
    let name = &operands[0];
    let targets = act::targets(session, verb, std::slice::from_ref(name))?;
    let found = details(session, &targets)?;
    let Some(first) = found.first() else {
        return Err(Fail::Sentence(format!("{verb} {name}: no such process")));
    };
    let folder = first.app.cwd.path().to_path_buf();
    if let Some(other) = found.iter().find(|detail| detail.app.cwd.path() != folder) {
        let (a, b) = (folder.display(), other.app.cwd.path().display());
        return Err(Fail::Sentence(format!("{verb} {name}: it runs in {a} and in {b}: name one of them")));
    }
    let (app, declared) = (first.app.name.clone(), first.app.post_update.clone());
    let git = Git { verb, name, folder: &folder };
    let before = git.run(&["rev-parse", "--verify", "HEAD"])?;
    if !git.run(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        return Err(git.failed("it has local changes (git status shows them)"));
    }
    git.go(which, operands.get(1))?;
    let after = git.run(&["rev-parse", "--verify", "HEAD"])?;
    if before == after {
        return session.screen.line(&format!("{verb} {name}: {} is the newest", short(&after)));
    }
    session.screen.line(&format!("{verb} {name}: {} became {}", short(&before), short(&after)))?;
    // What the commit at hand says comes before what was declared when the app was started.
    for line in post_update(&folder, &app).unwrap_or(declared) {
        session.screen.line(&format!("{verb} {name}: {line}"))?;
        session.screen.flush()?;
        let ran =
            Command::new("/bin/sh").args(["-c", &line]).current_dir(&folder).stdin(Stdio::null()).status();
        let reason = match ran {
            Ok(status) if status.success() => continue,
            Ok(status) => status.to_string(),
            Err(error) => crate::sys::reason(&error),
        };
        return Err(git.failed(&format!("{line:?}: {reason}; {} is there, and not reloaded", short(&after))));
    }
    let verb = Verb::Reload { targets, changes: Box::default(), parallel: session.options.parallel };
    let outcomes = act::perform(session, act::RELOAD, verb)?;
    act::finish(session, act::RELOAD, &outcomes)
}

/// Git in the folder of an app.
struct Git<'a> {
    verb: &'a str,
    name: &'a str,
    folder: &'a Path,
}

impl Git<'_> {
    fn go(&self, which: Move, commit: Option<&String>) -> Result<(), Fail> {
        const UPSTREAM: &str = "@{upstream}";
        match which {
            Move::Pull => {
                self.run(&["fetch", "--quiet"])?;
                let to = commit.map_or(UPSTREAM, String::as_str);
                let to =
                    self.run(&["rev-parse", "--verify", "--end-of-options", &format!("{to}^{{commit}}")])?;
                match commit {
                    // Forward only, and whatever is ours alone stays.
                    None => self.run(&["merge", "--ff-only", "--quiet", &to])?,
                    Some(_) => {
                        self.must_be_upstream()?;
                        self.run(&["reset", "--keep", "--quiet", &to])?
                    }
                };
            }
            Move::Forward => {
                let range = format!("HEAD..{UPSTREAM}");
                let path =
                    self.run(&["rev-list", "--first-parent", "--reverse", "--ancestry-path", &range])?;
                if let Some(next) = path.lines().next() {
                    self.run(&["merge", "--ff-only", "--quiet", next])?;
                }
            }
            Move::Backward => {
                self.must_be_upstream()?;
                if self.run(&["rev-parse", "--verify", "--quiet", "HEAD^"]).is_err() {
                    return Err(self.failed("there is no commit before this one"));
                }
                self.run(&["reset", "--keep", "--quiet", "HEAD^"])?;
            }
        }
        Ok(())
    }

    /// Else it would be lost.
    fn must_be_upstream(&self) -> Result<(), Fail> {
        let ours = self.run(&["rev-list", "--max-count=1", "@{upstream}..HEAD"])?;
        match ours.is_empty() {
            true => Ok(()),
            false => Err(self.failed(&format!("{} is not upstream: push it first", short(&ours)))),
        }
    }

    /// What it prints, or its last word.
    fn run(&self, args: &[&str]) -> Result<String, Fail> {
        let mut git = Command::new("git");
        git.args(args).current_dir(self.folder).stdin(Stdio::null()).env("GIT_TERMINAL_PROMPT", "0");
        let ran = git.output().map_err(|e| self.failed(&format!("run git: {}", crate::sys::reason(&e))))?;
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_string());
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let last = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
        Err(self.failed(&format!("git {}: {last}", args[0])))
    }

    fn failed(&self, why: &str) -> Fail {
        Fail::Sentence(format!("{} {}: {}: {why}", self.verb, self.name, self.folder.display()))
    }
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// The commands of the first of pm2's files that knows the app.
fn post_update(folder: &Path, app: &str) -> Option<Vec<String>> {
    let of = |file: &&str| {
        let value: Value = serde_json::from_slice(&fs::read(folder.join(file)).ok()?).ok()?;
        let apps = value.get("apps").cloned().unwrap_or(value);
        let apps = apps.as_array().cloned().unwrap_or_else(|| vec![apps]);
        let ours = apps.into_iter().find(|found| found.get("name").is_some_and(|name| name == app))?;
        let lines = ours.get("post_update")?.as_array()?.iter().filter_map(Value::as_str);
        Some(lines.map(String::from).collect())
    };
    FILES.iter().find_map(of)
}
