//! The original, in a home of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Home, Ran, finish, node_modules};

/// The real pm2. Its daemon ends with this.
pub struct Pm2 {
    program: PathBuf,
    pub home: PathBuf,
    dir: PathBuf,
}

impl Pm2 {
    /// As `tests/run` installs it, else from the `PATH`.
    pub fn of(home: &Home) -> Option<Pm2> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [node_modules().join(".bin")].into_iter().chain(std::env::split_paths(&path));
        let program = folders.map(|folder| folder.join("pm2")).find(|program| program.exists());
        let Some(program) = program else {
            println!("skipped: there is no pm2 (tests/run brings it)");
            return None;
        };
        let pm2_home = home.dir().join("pm2-home");
        fs::create_dir_all(&pm2_home).unwrap();
        Some(Pm2 { program, home: pm2_home, dir: home.dir().to_path_buf() })
    }

    /// A command of it, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("PM2_HOME", &self.home).env_remove("PMX_HOME").current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    pub fn list(&self) -> Vec<Value> {
        let out = self.run(&["jlist"]).ok().out;
        serde_json::from_str(&out[out.find('[').unwrap()..]).unwrap()
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let _ = self.run(&["kill"]);
    }
}
