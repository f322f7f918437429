//! One host of a deployment: where lines for a shell are run, by ssh, or right here for `localhost`.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::script;
use crate::app::declaration::Deployment;
use crate::cli::caller::Caller;

/// A host, as it is told of.
pub struct Host<'a> {
    /// What is known of it.
    pub to: &'a Deployment,
    /// One of the hosts of `to`.
    pub name: &'a str,
    /// Who asks.
    pub caller: &'a Caller,
}

impl Host<'_> {
    /// Has it run `line`. All that is printed there is seen here, and what is typed here arrives there.
    pub fn run(&self, line: &str) -> Result<(), String> {
        let mut command = self.command(line, self.to.needs_tty);
        ended(command.status().map_err(|error| self.fault(&error))?)
    }

    /// Has it run a script of ours that is a file here.
    pub fn feed(&self, file: &Path) -> Result<(), String> {
        let text = File::open(file)
            .map_err(|error| format!("{}: {}", file.display(), crate::sys::reason(&error)))?;
        // The text comes where a terminal would be.
        let mut command = self.command("bash -s", false);
        ended(command.stdin(text).status().map_err(|error| self.fault(&error))?)
    }

    /// What `line` prints there.
    pub fn ask(&self, line: &str) -> Result<String, String> {
        let mut command = self.command(line, false);
        let ran = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let ran = ran.map_err(|error| self.fault(&error))?;
        ended(ran.status)?;
        Ok(String::from_utf8_lossy(&ran.stdout).trim().to_string())
    }

    fn is_here(&self) -> bool {
        self.name == "localhost"
    }

    fn command(&self, line: &str, terminal: bool) -> Command {
        if self.is_here() {
            let mut command = shell(self.caller, line);
            if let Some(home) = self.caller.var("HOME") {
                command.current_dir(home);
            }
            return command;
        }
        let mut command = Command::new("ssh");
        for option in &self.to.ssh_options {
            command.arg("-o").arg(option);
        }
        if terminal {
            command.arg("-t");
        }
        if self.to.forward_agent {
            command.arg("-A");
        }
        if let Some(port) = self.to.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(key) = &self.to.key {
            command.arg("-i").arg(key);
        }
        let user = self.to.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        command.arg("--").arg(format!("{user}{}", self.name)).arg(line).current_dir(&self.caller.cwd);
        command
    }

    fn fault(&self, error: &std::io::Error) -> String {
        match (self.is_here(), error.kind()) {
            (false, ErrorKind::NotFound) => "ssh is not in PATH".to_string(),
            (here, _) => {
                format!("run {}: {}", if here { "a shell" } else { "ssh" }, crate::sys::reason(error))
            }
        }
    }
}

/// A shell for a line of somebody's: bash, as with pm2, where there is one.
pub fn shell(caller: &Caller, line: &str) -> Command {
    let path = caller.var("PATH").unwrap_or_default();
    let has_bash = std::env::split_paths(&path).any(|folder| folder.join("bash").is_file());
    let mut command = Command::new(if has_bash { "bash" } else { "/bin/sh" });
    command.args(["-c", line]).current_dir(&caller.cwd);
    command
}

/// How something ended that should have succeeded.
pub fn ended(status: ExitStatus) -> Result<(), String> {
    /// That of ssh itself.
    const SSH: i32 = 255;
    match status.code() {
        Some(0) => Ok(()),
        Some(SSH) => Err("ssh could not connect or log in (exit code 255)".to_string()),
        Some(code) => Err(script::end(code).map_or_else(|| format!("exit code {code}"), str::to_string)),
        None => Err(status.to_string()),
    }
}
