//! What PID 1 of a container must do: reap orphans, pass on signals from its first moment, end with the app's exit code.
//! Each in a pid namespace of its own, which takes privileges.
//!
//! `cargo bench --bench pid1 [-- --quick]`

mod support;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use pmx::sys::proc;

use support::process::{self, Home, held, program_of, wait_until};
use support::table::{Table, median};
use support::{Manager, Node, Outcome, PMX, Setup, find};

/// Orphans that one parent leaves behind.
const BATCH: usize = 100;
/// How long making all orphans may take.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a container may take to end.
const END_LIMIT: Duration = Duration::from_secs(4);
/// The same where a runtime looks for its last app only now and then.
const LAST_LIMIT: Duration = Duration::from_secs(20);
/// When an init is told to end, from the moment at which its exec is seen.
const EARLY: Duration = Duration::from_millis(1);
/// Who has heard none of so many signals is not told any more: each costs the time to wait for an end.
const DEAF: usize = 20;
/// When zombies are counted, from the moment at which the orphans are let go.
const LOOK: Duration = Duration::from_secs(1);
/// How long those that stay are waited for.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// Processes whose parents end before them, all waiting for the end of one pipe.
const ORPHANS: &str = r#"
batch=0
while [ $batch -lt $BATCHES ]; do
    (
        exec 3<"$FIFO"
        one=0
        while [ $one -lt $BATCH ]; do
            read -r _ <&3 &
            one=$((one + 1))
        done
    )
    batch=$((batch + 1))
done
: >"$READY"
exec sleep 1000
"#;

/// An init, and all that was seen of it.
struct Row {
    name: &'static str,
    /// What comes before the app; a runtime of a manager takes a script instead of a command.
    argv: Vec<String>,
    takes_script: bool,
    rss: u64,
    pss: u64,
    zombies: Vec<f64>,
    gone_millis: Vec<f64>,
    cpu_millis: Vec<f64>,
    exit_three: String,
    exit_killed: String,
    terms_sent: usize,
    terms_lost: usize,
    term_millis: Vec<f64>,
}

fn main() -> ExitCode {
    support::main("pid1", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let Some(unshare) = namespaces() else {
        println!("skipped: no pid namespaces here (unshare -pf --mount-proc)");
        return Ok(());
    };
    let mut rows = inits(setup);
    let (orphans, rounds, tries) = if setup.quick { (1_000, 1, 3) } else { (10_000, 3, 100) };
    rows.retain_mut(|row| match row.measure_once(setup, &unshare, tries) {
        Ok(()) => true,
        Err(error) => {
            println!("{}: could not start: {error}", row.name);
            false
        }
    });
    for _ in 0..rounds {
        setup.check_interrupt()?;
        rows.retain_mut(|row| match row.orphans(setup, &unshare, orphans) {
            Ok(()) => true,
            Err(error) => {
                println!("{}: could not start {orphans} orphans: {error}", row.name);
                false
            }
        });
    }
    let zombies = format!("zombies of {orphans} after 1 s");
    let mut table = Table::new(&[
        "PID 1",
        "RSS KB",
        "PSS KB",
        &zombies,
        "all gone, ms",
        "its CPU, ms",
        "app exits 3",
        "app killed by 9",
        "SIGTERM after 1 ms lost",
        "ends in ms",
    ]);
    for row in &rows {
        table.row(row.cells());
    }
    table.print();
    Ok(())
}

/// How to make a pid namespace, if we may.
fn namespaces() -> Option<PathBuf> {
    let unshare = find("unshare")?;
    let mut command = Command::new(&unshare);
    command.args(["-pf", "--mount-proc", "--kill-child", "true"]).stdin(Stdio::null());
    let works = command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    works.then_some(unshare)
}

/// Those that are there; of the others a line is printed.
fn inits(setup: &Setup) -> Vec<Row> {
    let all = [
        ("pmx runtime", Some(PathBuf::from(PMX)), vec!["runtime"], true),
        ("pmx runtime, static", of_static_build(), vec!["runtime"], true),
        ("tini", find("tini"), vec!["--"], false),
        ("dumb-init", find("dumb-init"), vec!["--"], false),
        ("catatonit", find("catatonit"), vec!["--"], false),
        ("pm2-runtime", find("pm2-runtime"), vec![], true),
    ];
    let mut rows = Vec::new();
    for (name, program, arguments, takes_script) in all {
        let Some(program) = program else {
            println!("{name}: not installed");
            continue;
        };
        if name == "pmx runtime" && !Manager::Pmx.knows(setup, "runtime") {
            println!("{name}: not available");
            continue;
        }
        let mut argv = vec![program.display().to_string()];
        argv.extend(arguments.into_iter().map(str::to_owned));
        rows.push(Row {
            name,
            argv,
            takes_script,
            rss: 0,
            pss: 0,
            zombies: Vec::new(),
            gone_millis: Vec::new(),
            cpu_millis: Vec::new(),
            exit_three: String::new(),
            exit_killed: String::new(),
            terms_sent: 0,
            terms_lost: 0,
            term_millis: Vec::new(),
        });
    }
    rows
}

/// What `cargo static` built beside the one that is measured, as it is put into images.
fn of_static_build() -> Option<PathBuf> {
    let (profile, name) = (Path::new(PMX).parent()?, Path::new(PMX).file_name()?);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let path = profile.parent()?.join(target).join(profile.file_name()?).join(name);
    path.exists().then_some(path)
}

/// A pid namespace with its init. Both end with their owner.
struct Container {
    unshare: Child,
    /// As we see it.
    init: u32,
    home: Home,
}

impl Row {
    /// Starts the init with a shell script as its app. `once`: the app is not started again.
    fn container(
        &self,
        setup: &Setup,
        unshare: &Path,
        script: &str,
        once: bool,
        orphans: usize,
    ) -> Outcome<Container> {
        let home = Home::new()?;
        let at = |name: &str| home.0.join(name);
        let text = |error: std::io::Error| error.to_string();
        fs::write(at("body"), script).map_err(text)?;
        // A runtime chooses the shell by the name of the file; this way it is the same for all.
        fs::write(at("app.sh"), format!("exec /bin/sh {}\n", at("body").display())).map_err(text)?;
        mkfifo(&at("fifo"), Mode::S_IRWXU).map_err(|error| error.to_string())?;
        let mut command = setup.command(unshare, &home.0);
        command.args(["-pf", "--mount-proc", "--kill-child"]).args(&self.argv);
        match self.takes_script {
            true => {
                command.arg(at("app.sh")).args(once.then_some("--no-autorestart"));
            }
            false => {
                command.arg("/bin/sh").arg(at("body"));
            }
        }
        command.env("FIFO", at("fifo")).env("READY", at("ready"));
        command.env("BATCH", BATCH.to_string()).env("BATCHES", (orphans / BATCH).to_string());
        command.current_dir(&home.0).stdout(Stdio::null()).stderr(Stdio::null());
        let mut unshare = command.spawn().map_err(text)?;
        let began = Instant::now();
        let init = loop {
            // As early as possible: the signal after a millisecond counts from here. The kernel shows the
            // arguments when an exec is complete; before that, no program can have seen to its signals.
            let child = children(unshare.id()).first().copied();
            if let Some(init) = child.filter(|init| executes(*init, &self.argv[0])) {
                break init;
            }
            if began.elapsed() > END_LIMIT || !matches!(unshare.try_wait(), Ok(None)) {
                // It may have ended already, as it should.
                break 0;
            }
        };
        Ok(Container { unshare, init, home })
    }

    /// What is looked at without orphans.
    fn measure_once(&mut self, setup: &Setup, unshare: &Path, tries: usize) -> Outcome<()> {
        let quiet = self.container(setup, unshare, "exec sleep 1000", false, 0)?;
        wait_until("its app", START_LIMIT.min(Duration::from_secs(10)), || quiet.runs("sleep"))?;
        sleep(setup.time(Duration::from_secs(2), Duration::from_millis(300)));
        let held = held(&quiet.own());
        (self.rss, self.pss) = (held.rss, held.pss);
        drop(quiet);

        self.exit_three = self.exit(setup, unshare, "exit 3")?;
        self.exit_killed = self.exit(setup, unshare, "kill -9 $$")?;
        for _ in 0..tries {
            setup.check_interrupt()?;
            let mut container = self.container(setup, unshare, "exec sleep 1000", false, 0)?;
            if container.init == 0 {
                // To signal it would be to signal ourselves.
                return Err("it has ended before it was told to".to_owned());
            }
            let began = Instant::now();
            while began.elapsed() < EARLY {}
            let told = Instant::now();
            let _ = kill(Pid::from_raw(container.init as i32), Signal::SIGTERM);
            self.terms_sent += 1;
            match container.ended(END_LIMIT) {
                Some(_) => self.term_millis.push(told.elapsed().as_secs_f64() * 1e3),
                None => self.terms_lost += 1,
            }
            if self.terms_lost == self.terms_sent && self.terms_sent == DEAF {
                break;
            }
        }
        Ok(())
    }

    /// What the container's exit says of the app's.
    fn exit(&self, setup: &Setup, unshare: &Path, script: &str) -> Outcome<String> {
        let mut container = self.container(setup, unshare, script, true, 0)?;
        Ok(match container.ended(setup.time(LAST_LIMIT, END_LIMIT)) {
            Some(status) => status.code().map_or_else(|| status.to_string(), |code| code.to_string()),
            None => "does not end".to_owned(),
        })
    }

    /// Many orphans exit at once.
    fn orphans(&mut self, setup: &Setup, unshare: &Path, count: usize) -> Outcome<()> {
        let container = self.container(setup, unshare, ORPHANS, false, count)?;
        let fifo = OpenOptions::new().read(true).write(true).open(container.home.0.join("fifo"));
        let fifo = fifo.map_err(|error| error.to_string())?;
        let ready = container.home.0.join("ready");
        wait_until("its orphans", START_LIMIT, || ready.exists())?;
        wait_until("its app", START_LIMIT, || container.runs("sleep"))?;
        sleep(setup.time(Duration::from_millis(500), Duration::from_millis(50)));
        let own = container.own();
        let orphans = || -> Vec<u32> {
            let all = own.iter().flat_map(|pid| children(*pid));
            all.filter(|pid| !own.contains(pid) && program_of(*pid) != "sleep").collect()
        };
        let there = orphans().len();
        if there < count {
            return Err(format!("only {there} of {count} orphans are its children"));
        }
        let cpu_before = cpu(&own);
        let began = Instant::now();
        drop(fifo);
        let (mut zombies, mut gone) = (None, None);
        while began.elapsed() < GONE_LIMIT && (gone.is_none() || zombies.is_none()) {
            sleep(Duration::from_millis(10));
            if gone.is_none() && number_of_children(&own) <= own.len() {
                gone = Some(began.elapsed());
            }
            if zombies.is_none() && began.elapsed() >= LOOK {
                let dead = |pid: &u32| proc::stat(*pid as i32).is_some_and(|stat| stat.state == 'Z');
                zombies = Some(orphans().iter().filter(|pid| dead(pid)).count());
            }
        }
        self.zombies.push(zombies.unwrap_or(0) as f64);
        self.gone_millis.push(gone.map_or(f64::INFINITY, |gone| gone.as_secs_f64() * 1e3));
        // What has ended meanwhile takes its time along.
        self.cpu_millis.push(cpu(&own).saturating_sub(cpu_before).as_secs_f64() * 1e3);
        Ok(())
    }

    fn cells(&self) -> Vec<String> {
        let whole = |values: &[f64]| match median(values) {
            value if value.is_finite() => format!("{value:.0}"),
            value if value.is_nan() => "–".to_owned(),
            _ => "never".to_owned(),
        };
        vec![
            self.name.to_owned(),
            self.rss.to_string(),
            self.pss.to_string(),
            whole(&self.zombies),
            whole(&self.gone_millis),
            whole(&self.cpu_millis),
            self.exit_three.clone(),
            self.exit_killed.clone(),
            format!("{} of {}", self.terms_lost, self.terms_sent),
            whole(&self.term_millis),
        ]
    }
}

impl Container {
    /// The init's own processes: itself, and what of it runs the same program.
    fn own(&self) -> Vec<u32> {
        let program = program_of(self.init);
        process::tree(&[self.init]).into_iter().filter(|pid| program_of(*pid) == program).collect()
    }

    fn runs(&self, program: &str) -> bool {
        children(self.init)
            .iter()
            .chain(&[self.init])
            .any(|pid| children(*pid).iter().any(|child| program_of(*child) == program))
    }

    /// How the container ended, if it does in time.
    fn ended(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let mut status = None;
        let _ = wait_until("its end", limit, || {
            status = self.unshare.try_wait().ok().flatten();
            status.is_some()
        });
        status
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The init goes with it, and everything in the namespace with the init.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        if self.init > 0 && wait_until("", END_LIMIT, || proc::stat(self.init as i32).is_none()).is_err() {
            println!("{}: outlived its container", self.init);
        }
    }
}

/// Whether a process executes this file: as its program, or as a script after the name of its interpreter. `unshare` has
/// more words before it.
fn executes(pid: u32, file: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).take(2).any(|word| word == file.as_bytes())
}

/// The children of a process's first thread, zombies too, without a look at all processes there are.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// With each process's own ones and one app.
fn number_of_children(pids: &[u32]) -> usize {
    pids.iter().map(|pid| children(*pid).len()).sum()
}

/// Time on a CPU, all threads; finer than the clock ticks of `stat`.
fn cpu(pids: &[u32]) -> Duration {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
