//! A manager with many small processes, from start to end. Nothing of it is left after its drop.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::mem::ManuallyDrop;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::process::{self, Home, Running, program_of, started, wait_until};
use super::{Outcome, PMX, Setup, find};

/// How long all processes may take until they run.
const START_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(20);
/// Services that s6-svscan is to expect.
const S6_SERVICES: &str = "2000";

/// Who keeps processes alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Ours, as just built.
    Pmx,
    /// The original.
    Pm2,
    /// In Python; its own processes hold pipes.
    Supervisord,
    /// A process per service; output goes where the manager's goes.
    S6,
    /// A process per service; output goes where the manager's goes.
    Runit,
}

impl Keeper {
    /// All, ours first.
    pub const ALL: [Keeper; 5] = [Keeper::Pmx, Keeper::Supervisord, Keeper::S6, Keeper::Runit, Keeper::Pm2];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Keeper::Pmx => "pmx",
            Keeper::Pm2 => "pm2",
            Keeper::Supervisord => "supervisord",
            Keeper::S6 => "s6",
            Keeper::Runit => "runit",
        }
    }

    /// Those that are installed; of the others a line is printed.
    pub fn installed() -> Vec<Keeper> {
        let (there, missing): (Vec<_>, Vec<_>) = Keeper::ALL.into_iter().partition(|k| k.program().is_some());
        for keeper in missing {
            println!("{}: not installed", keeper.name());
        }
        there
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Keeper::Pmx => Some(PMX.into()),
            Keeper::Pm2 => find("pm2"),
            Keeper::Supervisord => find("supervisord"),
            Keeper::S6 => find("s6-svscan").filter(|_| find("s6-supervise").is_some()),
            Keeper::Runit => find("runsvdir").filter(|_| find("runsv").is_some()),
        }
    }
}

/// How long a fleet took to come up.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// From the command until all processes ran, as well as can be told.
    pub all: Duration,
    /// From the first process to the last; the kernel tells this in hundredths of a second.
    pub births: Duration,
}

/// A manager in a home of its own. Its drop ends it and all that it started.
pub struct Fleet {
    /// Whose.
    pub keeper: Keeper,
    program: PathBuf,
    /// What the processes run, as the name of a program file.
    app: String,
    count: usize,
    /// Whether what the processes write goes to files, where the manager has any.
    has_logs: bool,
    /// The manager, where it is a child of ours.
    child: Option<Child>,
    /// All processes that were ever seen, with their start times.
    known: BTreeSet<(u32, u64)>,
    /// Stays until the bench ends: ext4 is slow to make files for minutes after thousands were removed, and the next
    /// manager would pay for it.
    home: ManuallyDrop<Home>,
}

impl Fleet {
    /// Gets everything ready for `count` processes that run `argv`. A manager that takes its orders later runs already.
    pub fn prepare(setup: &Setup, keeper: Keeper, argv: &[&str], count: usize) -> Outcome<Fleet> {
        Fleet::make(setup, keeper, argv, count, true)
    }

    /// The same, where nothing that they write is kept. (Of ours.)
    pub fn without_logs(setup: &Setup, keeper: Keeper, argv: &[&str], count: usize) -> Outcome<Fleet> {
        Fleet::make(setup, keeper, argv, count, false)
    }

    fn make(setup: &Setup, keeper: Keeper, argv: &[&str], count: usize, has_logs: bool) -> Outcome<Fleet> {
        let program = keeper.program().ok_or("not installed")?;
        let app = fs::canonicalize(argv[0]).map_err(|error| format!("{}: {error}", argv[0]))?;
        let app = app.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut fleet = Fleet {
            keeper,
            program,
            app,
            count,
            has_logs,
            child: None,
            known: BTreeSet::new(),
            home: ManuallyDrop::new(Home::new()?),
        };
        fleet.declare(argv).map_err(|error| format!("declare {count} processes: {error}"))?;
        if matches!(keeper, Keeper::Pmx | Keeper::Pm2) {
            // Both start their daemon with the first command.
            fleet.command(setup, &["list"])?;
            wait_until("the daemon's pid file", START_LIMIT, || !fleet.roots().is_empty())?;
        }
        fleet.note();
        Ok(fleet)
    }

    /// Starts the processes and waits until all of them run.
    pub fn launch(&mut self, setup: &Setup) -> Outcome<Launch> {
        let (began, began_boot) = (Instant::now(), since_boot());
        let told = match self.keeper {
            Keeper::Pmx | Keeper::Pm2 if self.count > 0 => {
                self.command(setup, &["start", "apps.json"])?;
                Some(began.elapsed())
            }
            Keeper::Pmx | Keeper::Pm2 => Some(Duration::ZERO),
            Keeper::Supervisord => self.root(setup, &["-n", "-c", "supervisord.conf"])?,
            Keeper::S6 => self.root(setup, &["-c", S6_SERVICES, "services"])?,
            Keeper::Runit => self.root(setup, &["services"])?,
        };
        let end = began + START_LIMIT;
        while self.apps().len() < self.count {
            setup.check_interrupt()?;
            if Instant::now() > end {
                return Err(format!(
                    "{} of {} processes run after {START_LIMIT:?}",
                    self.apps().len(),
                    self.count
                ));
            }
            // Seldom: to look costs time of the CPUs that they start on.
            std::thread::sleep(Duration::from_millis(100));
        }
        self.note();
        let births: Vec<u64> = self.apps().into_iter().filter_map(started).collect();
        let at = |ticks: Option<&u64>| Duration::from_millis(ticks.map_or(0, |ticks| ticks * 10));
        let (first, last) = (at(births.iter().min()), at(births.iter().max()));
        Ok(Launch { all: told.unwrap_or(last.saturating_sub(began_boot)), births: last - first })
    }

    /// The manager's own processes.
    pub fn own(&self) -> Vec<u32> {
        process::tree(&self.roots()).into_iter().filter(|pid| program_of(*pid) != self.app).collect()
    }

    /// The processes it keeps alive.
    pub fn apps(&self) -> Vec<u32> {
        process::tree(&self.roots()).into_iter().filter(|pid| program_of(*pid) == self.app).collect()
    }

    /// The daemon, where the manager has one.
    pub fn daemon(&self) -> Option<u32> {
        let file = match self.keeper {
            Keeper::Pmx => "pmx.pid",
            Keeper::Pm2 => "pm2.pid",
            Keeper::Supervisord | Keeper::S6 | Keeper::Runit => return None,
        };
        fs::read_to_string(self.home.0.join(file)).ok()?.trim().parse().ok()
    }

    /// At the top of the manager's processes. pmx may be two of them: a keeper, and the daemon below it.
    fn roots(&self) -> Vec<u32> {
        let above = |pid: u32| {
            let parent = process::parent_of(pid)?;
            Some(if program_of(parent) == program_of(pid) { parent } else { pid })
        };
        match self.keeper {
            Keeper::Pmx => self.daemon().and_then(above).into_iter().collect(),
            Keeper::Pm2 => self.daemon().into_iter().collect(),
            Keeper::Supervisord | Keeper::S6 | Keeper::Runit => self.child.iter().map(Child::id).collect(),
        }
    }

    fn note(&mut self) {
        let tree = process::tree(&self.roots());
        self.known.extend(tree.into_iter().filter_map(|pid| Some((pid, started(pid)?))));
    }

    /// A command of the manager's, to its end.
    pub fn command(&self, setup: &Setup, arguments: &[&str]) -> Outcome<()> {
        let mut command = setup.command(&self.program, &self.home.0);
        command.args(arguments).current_dir(&self.home.0);
        Running::spawn(&mut command, &self.home.0)?.wait()
    }

    /// Starts the manager as a child of ours.
    fn root(&mut self, setup: &Setup, arguments: &[&str]) -> Outcome<Option<Duration>> {
        let mut command = setup.command(&self.program, &self.home.0);
        command.args(arguments).current_dir(&self.home.0).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().map_err(|error| error.to_string())?);
        Ok(None)
    }

    fn declare(&self, argv: &[&str]) -> std::io::Result<()> {
        let home = &self.home.0;
        let words = argv.join(" ");
        match self.keeper {
            Keeper::Pmx | Keeper::Pm2 => {
                let app = |number| {
                    let mut app = serde_json::json!({
                        "name": format!("app{number}"), "script": argv[0], "args": &argv[1..],
                        "interpreter": "none", "exec_mode": "fork", "max_restarts": 1_000_000,
                    });
                    if self.keeper == Keeper::Pmx {
                        // Whoever dies sooner, again and again, is started later and later, by design.
                        app["min_uptime"] = 1.into();
                        if !self.has_logs {
                            app["out_file"] = "NULL".into();
                            app["error_file"] = "NULL".into();
                        }
                    }
                    app
                };
                let apps: Vec<_> = (0..self.count).map(app).collect();
                fs::write(home.join("apps.json"), serde_json::json!({ "apps": apps }).to_string())
            }
            Keeper::Supervisord => {
                let mut text = format!(
                    "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\nchildlogdir={0}\nminfds=10000\n",
                    home.display()
                );
                if self.count > 0 {
                    let _ = write!(
                        text,
                        "[program:app]\ncommand={words}\nnumprocs={}\nprocess_name=app%(process_num)d\n\
                         startsecs=0\nautorestart=true\n",
                        self.count
                    );
                }
                fs::write(home.join("supervisord.conf"), text)
            }
            Keeper::S6 | Keeper::Runit => {
                let services = home.join("services");
                fs::create_dir(&services)?;
                for number in 0..self.count {
                    write_run(&services.join(format!("app{number}")), &words)?;
                }
                Ok(())
            }
        }
    }

    /// Asks the manager to end in its own way.
    fn ask_to_end(&mut self) -> Outcome<()> {
        let Some(child) = &mut self.child else {
            let setup = Setup::new();
            return self.command(&setup, &["kill"]);
        };
        // runsvdir ends what it started on SIGHUP only.
        let signal = if self.keeper == Keeper::Runit { Signal::SIGHUP } else { Signal::SIGTERM };
        let _ = kill(Pid::from_raw(child.id() as i32), signal);
        wait_until("its end", END_LIMIT, || !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.note();
        if let Err(error) = self.ask_to_end() {
            println!("{}: could not stop: {error}", self.keeper.name());
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Those of s6 and runit may still be on their way out.
        let known: Vec<_> = self.known.iter().copied().collect();
        let gone = || known.iter().all(|(pid, start)| started(*pid) != Some(*start));
        if wait_until("its processes' end", END_LIMIT, gone).is_err() {
            println!("{}: processes outlived it", self.keeper.name());
        }
        process::end_all(&known);
    }
}

fn write_run(service: &Path, words: &str) -> std::io::Result<()> {
    fs::create_dir(service)?;
    let run = service.join("run");
    fs::write(&run, format!("#!/bin/sh\nexec {words}\n"))?;
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755))
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
