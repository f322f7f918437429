//! Output from a process to its log file: by loops that do nothing else, and by managers. What it costs them per
//! gigabyte, whether every line arrives, and what memory ten floods at once take.
//!
//! `cargo bench --bench logs [-- --quick]`

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::process::{self, Home, Running, cpu_time, parent_of, program_of, tree, wait_until};
use support::table::{Table, median};
use support::{Node, Outcome, PMX, Setup, find};

/// What floods: `--writer <kind> <bytes> <go>`; it waits for the file `go`.
const WRITER: &str = "--writer";
/// The bare loops: `--copy <how> <file>`, from stdin.
const COPY: &str = "--copy";
const LINE: usize = 100;
const BLOCK: usize = 64 << 10;
/// For so long nothing must come any more.
const SILENCE: Duration = Duration::from_millis(400);
const LIMIT: Duration = Duration::from_secs(120);

/// What is written at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Blocks,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Lines => "100-byte lines",
            Kind::Blocks => "64 KiB writes",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Kind::Lines => "lines",
            Kind::Blocks => "blocks",
        }
    }

    /// What is written at once, and how many lines that is.
    fn piece(self) -> (Vec<u8>, usize) {
        let line = [[b'x'; LINE - 1].as_slice(), b"\n"].concat();
        match self {
            Kind::Lines => (line, 1),
            // The last one is shorter.
            Kind::Blocks => {
                let mut block = line.repeat(BLOCK / LINE);
                block.resize(BLOCK - 1, b'y');
                block.push(b'\n');
                (block, BLOCK / LINE + 1)
            }
        }
    }
}

/// Who brings it to the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mover {
    ReadWrite,
    Splice,
    Cat,
    Pmx(&'static str, &'static str),
    Pm2,
    Supervisord,
    S6Log,
    Svlogd,
}

const MOVERS: [Mover; 11] = [
    Mover::ReadWrite,
    Mover::Splice,
    Mover::Cat,
    Mover::Pmx("pmx", r#"{"log_rotate": false}"#),
    Mover::Pmx("pmx, rotating", "{}"),
    Mover::Pmx("pmx, dates", r#"{"log_rotate": false, "log_date_format": "YYYY-MM-DD HH:mm:ss.SSS"}"#),
    Mover::Pmx("pmx, json", r#"{"log_rotate": false, "log_type": "json"}"#),
    Mover::S6Log,
    Mover::Svlogd,
    Mover::Supervisord,
    Mover::Pm2,
];

impl Mover {
    fn name(self) -> &'static str {
        match self {
            Mover::ReadWrite => "bare read/write",
            Mover::Splice => "bare splice",
            Mover::Cat => "cat",
            Mover::Pmx(name, _) => name,
            Mover::Pm2 => "pm2",
            Mover::Supervisord => "supervisord",
            Mover::S6Log => "s6-log",
            Mover::Svlogd => "svlogd",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Mover::ReadWrite | Mover::Splice => std::env::current_exe().ok(),
            Mover::Cat => find("cat"),
            Mover::Pmx(..) => Some(PMX.into()),
            Mover::Pm2 => find("pm2"),
            Mover::Supervisord => find("supervisord"),
            Mover::S6Log => find("s6-log"),
            Mover::Svlogd => find("svlogd"),
        }
    }

    fn is_bare(self) -> bool {
        matches!(self, Mover::ReadWrite | Mover::Splice | Mover::Cat)
    }
}

/// One run.
struct Run {
    bytes_per_second: f64,
    cpu_per_gb: f64,
    lost: i64,
    /// The most memory that its own processes had, in KB.
    rss: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(WRITER) => return write(&arguments[1..]),
        Some(COPY) => return copy(&arguments[1..]),
        _ => {}
    }
    support::main("logs", Node::Optional, run)
}

fn run(setup: &Setup) -> Outcome<()> {
    let bytes = if setup.quick { 16 << 20 } else { 256 << 20 };
    let rounds = if setup.quick { 1 } else { 5 };
    let movers: Vec<Mover> = MOVERS.into_iter().filter(|mover| mover.program().is_some()).collect();
    for missing in MOVERS.iter().filter(|mover| mover.program().is_none()) {
        println!("{}: not installed", missing.name());
    }
    for kind in [Kind::Blocks, Kind::Lines] {
        let mut found: Vec<Vec<Run>> = movers.iter().map(|_| Vec::new()).collect();
        // Of each round by the best bare loop of that round: the machine is not the same for long.
        let mut ratios: Vec<Vec<f64>> = movers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (at, mover) in movers.iter().enumerate() {
                setup.check_interrupt()?;
                // The slow ones are known to be slow after less.
                let bytes = if matches!(mover, Mover::Pm2 | Mover::Supervisord) { bytes / 8 } else { bytes };
                match Bench::prepare(setup, *mover, kind, bytes, 1).and_then(|mut bench| bench.run(setup)) {
                    Ok(run) => found[at].push(run),
                    Err(error) => println!("{}: {error}", mover.name()),
                }
            }
            let last = |at: usize| found[at].last().map_or(0.0, |run| run.bytes_per_second);
            let bare = (0..movers.len()).filter(|at| movers[*at].is_bare());
            let best = bare.map(last).fold(0.0, f64::max);
            ratios.iter_mut().enumerate().for_each(|(at, ratios)| ratios.push(last(at) / best));
        }
        let mut table =
            Table::new(&["what", "by", "MB/s", "to the best bare loop", "CPU s/GB", "lines lost", "RSS KB"]);
        for ((mover, runs), ratios) in movers.iter().zip(&found).zip(&ratios) {
            let of = |number: fn(&Run) -> f64| median(&runs.iter().map(number).collect::<Vec<_>>());
            table.row(vec![
                kind.word().to_owned(),
                mover.name().to_owned(),
                format!("{:.0}", of(|run| run.bytes_per_second) / 1e6),
                format!("{:.2}", median(ratios)),
                format!("{:.2}", of(|run| run.cpu_per_gb)),
                runs.iter().map(|run| run.lost).sum::<i64>().to_string(),
                runs.iter().map(|run| run.rss).max().unwrap_or(0).to_string(),
            ]);
        }
        table.print();
    }
    let mut table = Table::new(&["what", "by", "MB/s", "CPU s/GB", "lines lost", "most RSS KB"]);
    for mover in movers.iter().filter(|mover| matches!(mover, Mover::Pmx(..))) {
        let run = Bench::prepare(setup, *mover, Kind::Lines, bytes / 8, 10)?.run(setup)?;
        table.row(vec![
            "ten floods of lines".to_owned(),
            mover.name().to_owned(),
            format!("{:.0}", run.bytes_per_second / 1e6),
            format!("{:.2}", run.cpu_per_gb),
            run.lost.to_string(),
            run.rss.to_string(),
        ]);
    }
    table.print();
    Ok(())
}

/// A mover with its writers, which wait.
struct Bench {
    mover: Mover,
    kind: Kind,
    bytes: usize,
    count: usize,
    /// Where the logs are.
    logs: PathBuf,
    /// What was started by us: the mover, or a manager.
    child: Option<Child>,
    writer: Option<Child>,
    home: Home,
}

impl Bench {
    fn prepare(setup: &Setup, mover: Mover, kind: Kind, bytes: usize, count: usize) -> Outcome<Bench> {
        let home = Home::new()?;
        let logs = home.0.join("logs");
        fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
        let mut bench = Bench { mover, kind, bytes, count, logs, child: None, writer: None, home };
        bench.start(setup)?;
        Ok(bench)
    }

    fn writer(&self) -> (PathBuf, Vec<String>) {
        let go = self.home.0.join("go").display().to_string();
        let arguments = [WRITER, self.kind.argument(), &self.bytes.to_string(), &go].map(String::from);
        (std::env::current_exe().unwrap_or_default(), arguments.to_vec())
    }

    fn start(&mut self, setup: &Setup) -> Outcome<()> {
        let failed = |error: std::io::Error| error.to_string();
        let program = self.mover.program().ok_or("not installed")?;
        let (writer, arguments) = self.writer();
        let home = self.home.0.clone();
        let file = self.logs.join("current").display().to_string();
        match self.mover {
            Mover::Pmx(..) | Mover::Pm2 => {
                let mut app = serde_json::json!({
                    "name": "flood", "script": writer, "args": arguments, "interpreter": "none",
                    "exec_mode": "fork", "autorestart": false, "instances": self.count,
                });
                if let Mover::Pmx(_, more) = self.mover {
                    let more: serde_json::Value = serde_json::from_str(more).map_err(|e| e.to_string())?;
                    app.as_object_mut()
                        .ok_or("no object")?
                        .extend(more.as_object().cloned().unwrap_or_default());
                }
                let file = home.join("apps.json");
                fs::write(&file, serde_json::json!({"apps": [app]}).to_string()).map_err(failed)?;
                let mut command = setup.command(&program, &home);
                command.arg("start").arg(&file);
                Running::spawn(&mut command, &home)?.wait()
            }
            Mover::Supervisord => {
                let conf = home.join("supervisord.conf");
                let words = arguments.join(" ");
                let text = format!(
                    "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\nchildlogdir={0}\n\
                     [program:flood]\ncommand={1} {words}\nautorestart=false\nstartsecs=0\n\
                     stdout_logfile={file}\nstdout_logfile_maxbytes=0\n",
                    home.display(),
                    writer.display()
                );
                fs::write(&conf, text).map_err(failed)?;
                let mut command = setup.command(&program, &home);
                command.arg("-n").arg("-c").arg(&conf).stdout(Stdio::null()).stderr(Stdio::null());
                self.child = Some(command.spawn().map_err(failed)?);
                wait_until("its process", LIMIT, || !self.writers().is_empty())
            }
            _ => {
                let mut command = Command::new(&writer);
                command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped());
                let mut child = command.spawn().map_err(failed)?;
                let pipe = child.stdout.take().ok_or("no pipe")?;
                self.writer = Some(child);
                let mut command = Command::new(&program);
                command.stdin(pipe).stdout(Stdio::null()).stderr(Stdio::null());
                match self.mover {
                    Mover::ReadWrite => command.args([COPY, "read-write", &file]),
                    Mover::Splice => command.args([COPY, "splice", &file]),
                    Mover::Cat => command.stdout(File::create(&file).map_err(failed)?),
                    Mover::S6Log => command.args(["s268435455", "n1000"]).arg(&self.logs),
                    _ => {
                        fs::write(self.logs.join("config"), "s0\n").map_err(failed)?;
                        command.args(["-b", "65536"]).arg(&self.logs)
                    }
                };
                self.child = Some(command.spawn().map_err(failed)?);
                Ok(())
            }
        }
    }

    /// The processes of the mover alone.
    fn own(&self) -> Vec<u32> {
        let writer = self.writer().0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self.mover {
            Mover::Pmx(..) | Mover::Pm2 | Mover::Supervisord => {
                tree(&self.roots()).into_iter().filter(|pid| program_of(*pid) != writer).collect()
            }
            _ => self.roots(),
        }
    }

    /// The floods below a manager.
    fn writers(&self) -> Vec<u32> {
        let own = self.own();
        tree(&self.roots()).into_iter().filter(|pid| !own.contains(pid)).collect()
    }

    fn roots(&self) -> Vec<u32> {
        let daemon = |file: &str| -> Option<u32> {
            fs::read_to_string(self.home.0.join(file)).ok()?.trim().parse().ok()
        };
        match self.mover {
            Mover::Pmx(..) => {
                let pid = daemon("pmx.pid");
                let above =
                    pid.and_then(parent_of).filter(|parent| Some(program_of(*parent)) == pid.map(program_of));
                above.or(pid).into_iter().collect()
            }
            Mover::Pm2 => daemon("pm2.pid").into_iter().collect(),
            _ => self.child.iter().map(Child::id).collect(),
        }
    }

    /// All that was written so far.
    fn written(&self) -> u64 {
        files(&self.logs).iter().filter_map(|path| fs::metadata(path).ok()).map(|found| found.len()).sum()
    }

    fn run(&mut self, setup: &Setup) -> Outcome<Run> {
        let own = self.own();
        let cpu = |own: &[u32]| own.iter().map(|pid| cpu_time(*pid)).sum::<Duration>();
        let before = cpu(&own);
        fs::write(self.home.0.join("go"), "").map_err(|error| error.to_string())?;
        let began = Instant::now();
        let (mut seen, mut last, mut rss, mut used) = (0, began, 0, before);
        let expected = (self.bytes * self.count) as u64;
        while last.elapsed() < SILENCE || seen < expected / 2 {
            setup.check_interrupt()?;
            if began.elapsed() > LIMIT {
                return Err(format!("{seen} of {expected} bytes after {LIMIT:?}"));
            }
            let written = self.written();
            if written != seen {
                (seen, last) = (written, Instant::now());
                // A bare loop is gone at its end, and what it used with it.
                used = used.max(cpu(&own));
            }
            rss = rss.max(held_rss(&own));
            sleep(Duration::from_millis(2));
        }
        used = used.max(cpu(&own));
        if let (Some(child), true) = (&mut self.child, self.mover.is_bare()) {
            // Exact, where it ended: it is ours.
            let ended = usage_of(child);
            used = ended.unwrap_or(used);
        }
        let (piece, lines) = self.kind.piece();
        let pieces = self.bytes / piece.len() * self.count;
        let found: usize = files(&self.logs).iter().map(|path| count_lines(path)).sum();
        let gigabytes = expected as f64 / 1e9;
        Ok(Run {
            bytes_per_second: expected as f64 / (last - began).as_secs_f64(),
            cpu_per_gb: used.saturating_sub(before).as_secs_f64() / gigabytes,
            lost: (pieces * lines) as i64 - found as i64,
            rss,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let known: Vec<(u32, u64)> =
            tree(&self.roots()).into_iter().filter_map(|pid| Some((pid, process::started(pid)?))).collect();
        if matches!(self.mover, Mover::Pmx(..) | Mover::Pm2)
            && let Some(program) = self.mover.program()
        {
            let mut command = Command::new(program);
            let home = &self.home.0;
            command.arg("kill").env("PMX_HOME", home).env("PM2_HOME", home).stdin(Stdio::null());
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        for child in [&mut self.writer, &mut self.child].into_iter().flatten() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.kill();
            let _ = child.wait();
        }
        process::end_all(&known);
    }
}

/// Processor time of a child that has ended, or is ended now.
fn usage_of(child: &mut Child) -> Option<Duration> {
    // Zombies keep their times.
    let end = Instant::now() + Duration::from_secs(5);
    let stat = || fs::read_to_string(format!("/proc/{}/stat", child.id())).ok();
    loop {
        let text = stat()?;
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        if fields.first() == Some(&"Z") || Instant::now() > end {
            return Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10));
        }
        sleep(Duration::from_millis(2));
    }
}

fn held_rss(own: &[u32]) -> u64 {
    let rss = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
    };
    own.iter().map(rss).sum()
}

/// The log files in a directory.
fn files(logs: &Path) -> Vec<PathBuf> {
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !["config", "lock", "state", "previous"].contains(&name.as_str()) && !name.contains("error")
    };
    fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_log).collect()
}

fn count_lines(path: &Path) -> usize {
    let Ok(file) = File::open(path) else { return 0 };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut lines = 0;
    loop {
        let Ok(chunk) = reader.fill_buf() else { return lines };
        if chunk.is_empty() {
            return lines;
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count();
        let length = chunk.len();
        reader.consume(length);
    }
}

/// Floods, once it may.
fn write(arguments: &[String]) -> ExitCode {
    let [kind, bytes, go] = arguments else { return ExitCode::FAILURE };
    let kind = if kind == Kind::Blocks.argument() { Kind::Blocks } else { Kind::Lines };
    let (piece, _) = kind.piece();
    let mut left = bytes.parse::<usize>().unwrap_or(0) / piece.len();
    while !Path::new(go).exists() {
        sleep(Duration::from_millis(1));
    }
    // Without the buffer of the library: one write each.
    let Ok(stdout) = std::io::stdout().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut stdout = File::from(stdout);
    while left > 0 && stdout.write_all(&piece).is_ok() {
        left -= 1;
    }
    ExitCode::SUCCESS
}

/// The loops that do nothing else.
fn copy(arguments: &[String]) -> ExitCode {
    let [how, file] = arguments else { return ExitCode::FAILURE };
    let Ok(mut to) = OpenOptions::new().create(true).append(how != "splice").write(true).open(file) else {
        return ExitCode::FAILURE;
    };
    if how == "splice" {
        loop {
            match splice(std::io::stdin(), None, &to, None, 1 << 20, SpliceFFlags::SPLICE_F_MOVE) {
                Ok(0) => return ExitCode::SUCCESS,
                Ok(_) => {}
                Err(_) => return ExitCode::FAILURE,
            }
        }
    }
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let (mut pipe, mut buffer) = (File::from(stdin), vec![0; 64 << 10]);
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
            _ => return ExitCode::FAILURE,
        }
    }
}
