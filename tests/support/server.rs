//! Servers under test: starting them, asking them, and putting them under load.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pmx::load::{Load, Plan, Report, Target};

use super::{DEADLINE, Home, Ran, free_port, get, node, wait_until};

/// One of the apps in `tests/apps`.
pub fn app(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// An app called `app` that was started with a port of its own.
pub struct Server<'a> {
    pub home: &'a Home,
    pub port: u16,
}

impl<'a> Server<'a> {
    /// Starts `script` on a Node of this version and waits until it answers.
    #[track_caller]
    pub fn start(home: &'a Home, major: u32, script: &Path, options: &[&str]) -> Server<'a> {
        let server = Server { home, port: free_port() };
        server.launch(major, script, options).ok();
        wait_until("an answer", || server.answers());
        server
    }

    /// The start command alone.
    #[track_caller]
    pub fn launch(&self, major: u32, script: &Path, options: &[&str]) -> Ran {
        let node = node(major);
        let mut args = vec!["start", script.to_str().unwrap(), "-n", "app"];
        args.extend(["--interpreter", node.to_str().unwrap()]);
        args.extend(["--listen-timeout", "20000", "--bake-time", "50"]);
        args.extend(options);
        self.home.pmx_with(&[("PORT", &self.port.to_string())], &args)
    }

    pub fn answers(&self) -> bool {
        get(self.port, "/").is_ok_and(|response| response.status == 200)
    }

    /// Asks until so many workers have answered, and says who.
    #[track_caller]
    pub fn answering(&self, count: usize) -> BTreeSet<i32> {
        let mut load = Load::new(Plan { rate: None, ..self.plan(false) }).unwrap();
        let mut seen = Report::default();
        let until = Instant::now() + DEADLINE;
        loop {
            load.run_requests(64).unwrap();
            seen.merge(&load.take_report());
            assert_eq!(seen.failures.total(), 0, "{}", seen.failures);
            if seen.tally.len() >= count {
                return pids(&seen);
            }
            assert!(Instant::now() < until, "only {:?} of {count} workers answer", seen.tally);
        }
    }

    /// 16 clients, and not more requests than the machine can share with other tests.
    pub fn plan(&self, keep_alive: bool) -> Plan {
        let target = Target::Tcp(([127, 0, 0, 1], self.port).into());
        let tally_header = Some("x-worker".into());
        // Those that take longer wait for a processor: nothing here fails by being slow.
        let timeout = DEADLINE;
        Plan { keep_alive, tally_header, timeout, rate: Some(300.0), ..Plan::new(target) }
    }

    /// Load in the background while `work` is done, and a moment before and after it.
    #[track_caller]
    pub fn under_load<T>(&self, plan: Plan, work: impl FnOnce() -> T) -> (T, Report) {
        let load = Background::start(plan);
        let done = work();
        (done, load.stop())
    }

    /// The pids that the list shows, by id.
    #[track_caller]
    pub fn listed(&self) -> Vec<i32> {
        self.home.list().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect()
    }

    #[track_caller]
    pub fn statuses(&self) -> Vec<String> {
        let status = |process: &serde_json::Value| process["pm2_env"]["status"].as_str().unwrap().to_string();
        self.home.list().iter().map(status).collect()
    }
}

/// The workers that answered.
pub fn pids(report: &Report) -> BTreeSet<i32> {
    report.tally.iter().filter_map(|(pid, _)| pid.parse().ok()).collect()
}

/// A load in its own thread. It ends by itself after the deadline.
pub struct Background {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: JoinHandle<Report>,
}

/// How long load goes on after the work is done: workers may still be on their way out.
const AFTER: Duration = Duration::from_millis(300);

impl Background {
    /// Starts, and returns once the first requests were answered.
    pub fn start(plan: Plan) -> Background {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = stop.clone();
        let (first, answered) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut load = Load::new(plan).unwrap();
            load.run_requests(64).unwrap();
            let _ = first.send(());
            let until = Instant::now() + 2 * DEADLINE;
            let go_on = || !told.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < until;
            load.run_while(go_on, Duration::from_millis(10)).unwrap();
            load.run_for(AFTER).unwrap();
            load.run_requests(0).unwrap();
            load.take_report()
        });
        let _ = answered.recv_timeout(DEADLINE);
        Background { stop, thread }
    }

    pub fn stop(self) -> Report {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
