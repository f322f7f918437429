//! What the benches share: servers under their managers, each in its own home and gone afterwards; CPU time; tables.

// Each bench is its own crate and uses a part of this.
#![allow(dead_code)]

pub mod process;
pub mod server;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A bench's errors end in one line for a person.
pub type Outcome<T> = Result<T, String>;

/// What every bench needs to know at its start.
pub struct Setup {
    /// A second or two in all, to see that the bench still works.
    pub quick: bool,
    node: PathBuf,
    pm2: Option<PathBuf>,
    interrupted: Arc<AtomicBool>,
}

impl Setup {
    /// `None`, with a line that says why, if there is nothing to measure with.
    pub fn new() -> Option<Setup> {
        // Cargo adds `--bench`; all but `--quick` is ignored.
        let quick = std::env::args().any(|argument| argument == "--quick")
            || std::env::var_os("PMX_BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0");
        let named = std::env::var_os("NODE").map(PathBuf::from).filter(|path| path.is_file());
        let Some(node) = named.or_else(|| find("node")) else {
            println!("skipped: no node in PATH and none named by NODE");
            return None;
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [nix::libc::SIGINT, nix::libc::SIGTERM] {
            // Without it an interrupt just ends us sooner, and leaves managers behind.
            let _ = signal_hook::flag::register(signal, interrupted.clone());
        }
        Some(Setup { quick, node, pm2: find("pm2"), interrupted })
    }

    /// One line about what is compared and where.
    pub fn describe(&self) {
        let version = self.command(&self.node, Path::new("")).arg("--version").output();
        let version =
            version.map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stdout).into());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let pm2 = if self.pm2.is_some() { "" } else { "; no pm2 in PATH" };
        println!("node {}, {cpus} cpus, shared with the load generator{pm2}", version.trim());
    }

    /// The longer time normally, the shorter one in a quick run.
    pub fn time(&self, normal: Duration, quick: Duration) -> Duration {
        if self.quick { quick } else { normal }
    }

    /// Fails when somebody wants us to end.
    pub fn check_interrupt(&self) -> Outcome<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err("interrupted".to_owned()) } else { Ok(()) }
    }

    /// The managers that are there.
    pub fn managers(&self) -> Vec<Manager> {
        if self.pm2.is_some() { vec![Manager::Pm2, Manager::Pmx] } else { vec![Manager::Pmx] }
    }

    /// Node, in a session of its own as under any manager: where the kernel groups tasks by session to
    /// share the CPUs out, what runs in the session of the load would be at a disadvantage.
    fn node(&self, home: &Path) -> Command {
        match find("setsid") {
            Some(setsid) => {
                let mut command = self.command(&setsid, home);
                command.arg(&self.node);
                command
            }
            None => self.command(&self.node, home),
        }
    }

    fn command(&self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        // Managers are to find the same node.
        let node_folder = self.node.parent().map(Path::to_path_buf).into_iter();
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths(node_folder.chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command.env("PMX_HOME", home).env("PM2_HOME", home).current_dir(apps()).stdin(Stdio::null());
        command
    }
}

/// A manager with the commands `start`, `reload` and `kill`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The original.
    Pm2,
    /// Ours, as just built.
    Pmx,
}

impl Manager {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Manager::Pm2 => "pm2",
            Manager::Pmx => "pmx",
        }
    }

    fn program(self, setup: &Setup) -> PathBuf {
        match self {
            Manager::Pm2 => setup.pm2.clone().unwrap_or_else(|| "pm2".into()),
            Manager::Pmx => env!("CARGO_BIN_EXE_pmx").into(),
        }
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps")
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
