//! What is here and not yet upstream: a deployment would not have it, so it is refused.

use std::process::{Command, ExitStatus, Stdio};

use crate::cli::caller::Caller;

/// Whether all that is in the working directory's repository is committed and pushed.
pub fn check(caller: &Caller) -> Result<(), String> {
    let git = Git { caller };
    let found = git.command(&["rev-parse", "--git-dir"]).output().map_err(|error| fault(&error))?;
    if !found.status.success() {
        return Err("this is no git repository, so nothing is known of local changes (--force)".to_string());
    }
    if git.differs(&["diff", "--quiet"])? {
        return Err("there are changes that are not committed (git status; --force)".to_string());
    }
    if git.differs(&["diff", "--quiet", "--cached"])? {
        return Err("there are staged changes that are not committed (git status; --force)".to_string());
    }
    // Without an upstream, as in a checkout by a machine, what any remote branch has is pushed.
    let unpushed = match git.ask(&["rev-parse", "--verify", "--quiet", "@{upstream}"]) {
        Ok(upstream) => git.ask(&["rev-list", "--max-count=1", "HEAD", &format!("^{upstream}")])?,
        Err(_) => git.ask(&["rev-list", "--max-count=1", "HEAD", "--not", "--remotes"])?,
    };
    match unpushed.get(..7) {
        None => Ok(()),
        Some(commit) => Err(format!("{commit} is not pushed yet (git push; --force)")),
    }
}

struct Git<'a> {
    caller: &'a Caller,
}

impl Git<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(args).current_dir(&self.caller.cwd).stdin(Stdio::null());
        git
    }

    fn differs(&self, args: &[&str]) -> Result<bool, String> {
        let status = self.command(args).status().map_err(|error| fault(&error))?;
        match status.code() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(failed(args, status)),
        }
    }

    /// What it prints.
    fn ask(&self, args: &[&str]) -> Result<String, String> {
        let ran = self.command(args).output().map_err(|error| fault(&error))?;
        match ran.status.success() {
            true => Ok(String::from_utf8_lossy(&ran.stdout).trim().to_string()),
            false => Err(failed(args, ran.status)),
        }
    }
}

fn failed(args: &[&str], status: ExitStatus) -> String {
    format!("git {}: {status}", args[0])
}

fn fault(error: &std::io::Error) -> String {
    format!("run git: {}", crate::sys::reason(error))
}
