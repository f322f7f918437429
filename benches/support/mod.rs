//! What the benches share: servers under their managers, each in its own home and gone afterwards; CPU time; tables.

// Each bench is its own crate and uses a part of this.
#![allow(dead_code)]

pub mod fleet;
mod nest;
pub mod process;
#[cfg(feature = "load")]
pub mod server;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ours, as just built.
pub const PMX: &str = env!("CARGO_BIN_EXE_pmx");

/// A bench's errors end in one line for a person.
pub type Outcome<T> = Result<T, String>;

/// What every bench needs to know at its start.
pub struct Setup {
    /// A second or two in all, to see that the bench still works.
    pub quick: bool,
    node: Option<PathBuf>,
    pm2: Option<PathBuf>,
    interrupted: Arc<AtomicBool>,
}

/// Runs a bench, within a process that ends what it leaves behind.
pub fn main(name: &str, node: Node, bench: impl FnOnce(&Setup) -> Outcome<()>) -> ExitCode {
    if let Some(code) = nest::enter() {
        return code;
    }
    let setup = Setup::new();
    if node == Node::Needed && setup.node.is_none() {
        println!("skipped: no node in PATH and none named by NODE");
        return ExitCode::SUCCESS;
    }
    setup.describe();
    match bench(&setup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is anything to measure without Node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// No: the servers are Node's.
    Needed,
    /// Yes.
    Optional,
}

impl Setup {
    fn new() -> Setup {
        // Cargo adds `--bench`; all but `--quick` is ignored.
        let quick = std::env::args().any(|argument| argument == "--quick")
            || std::env::var_os("PMX_BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0");
        let named = std::env::var_os("NODE").map(PathBuf::from).filter(|path| path.is_file());
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [nix::libc::SIGINT, nix::libc::SIGTERM] {
            // Without it an interrupt just ends us sooner, and leaves managers behind.
            let _ = signal_hook::flag::register(signal, interrupted.clone());
        }
        Setup { quick, node: named.or_else(|| find("node")), pm2: find("pm2"), interrupted }
    }

    /// One line about where it is measured.
    fn describe(&self) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let node = match &self.node {
            Some(node) => match self.command(node, Path::new("")).arg("--version").output() {
                Ok(out) => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
                Err(error) => error.to_string(),
            },
            None => "none".to_owned(),
        };
        let pm2 = if self.pm2.is_some() { "" } else { "; no pm2 in PATH" };
        println!("linux {}, {cpus} cpus, shared with the bench itself; node {node}{pm2}", kernel.trim());
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
        let node = self.node.as_deref().unwrap_or(Path::new("node"));
        match find("setsid") {
            Some(setsid) => {
                let mut command = self.command(&setsid, home);
                command.arg(node);
                command
            }
            None => self.command(node, home),
        }
    }

    /// A program that takes `home` for its own.
    pub fn command(&self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        // Managers are to find the same node.
        let node_folder = self.node.as_deref().and_then(Path::parent).map(Path::to_path_buf).into_iter();
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

    /// Whether it has such a command.
    pub fn knows(self, setup: &Setup, command: &str) -> bool {
        // pm2 has every command that is measured, and takes long to say so.
        self == Manager::Pm2
            || setup
                .command(&self.program(setup), Path::new("/nonexistent"))
                .args(["help", command])
                .output()
                .is_ok_and(|out| out.status.success())
    }

    fn program(self, setup: &Setup) -> PathBuf {
        match self {
            Manager::Pm2 => setup.pm2.clone().unwrap_or_else(|| "pm2".into()),
            Manager::Pmx => PMX.into(),
        }
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps")
}

/// The file that `program` is on the PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
