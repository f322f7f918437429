//! The daemon aborts: at the n-th of the places that it passes whenever it changes something (src/sys/failpoint.rs),
//! each in turn; and so does the one that takes over from it. What was begun is finished or undone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use super::{Day, hash, is, pids, pids_of, statuses, sweep, wanted};
use crate::support::{free_port, get, node, server, signal, wait_until};

/// One death.
struct Case {
    /// Of how many daemons it is.
    generation: u32,
    step: u32,
    /// Where that is, on the day that was counted.
    place: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step:{}:{} ({})", self.generation, self.step, self.place)
    }
}

impl Case {
    /// For `PMX_FAILPOINT`.
    fn point(&self) -> String {
        format!("*:{}:{}", self.step, self.generation)
    }
}

/// A day with a cluster and a program.
struct Busy {
    day: Day,
    port: u16,
}

impl Busy {
    /// What is asked is answered, whoever dies.
    fn is_answered(&self) {
        for _ in 0..4 {
            let response = get(self.port, "/").unwrap();
            assert_eq!(response.status, 200);
        }
    }

    fn settles(&mut self, what: &str, web: usize, job: usize) {
        self.day.settles(what, |list| {
            (web == 0 || is(list, "web", "online", web))
                && (job == 0 || is(list, "job", "online", job))
                && pids(list).len() == web + job
        });
    }

    fn pids(&self, name: &str) -> Vec<i32> {
        pids_of(&self.day.home.list(), name)
    }

    /// Lives through it, with the daemon of `point` dying there. Returns what its log says, and how many fds the
    /// last daemon had when all was over.
    fn live(point: &str, fds: Option<usize>) -> (String, usize) {
        let mut busy = Busy { day: Day::new(), port: free_port() };
        // Every command is answered, on the connection on which it was given. Only a daemon that did not serve
        // yet ends for good, and says so.
        let env = [("PMX_FAILPOINT", point)];
        let ran = busy.day.home.pmx_with(&env, &["start", "job.sh", "-i", "2", "--kill-timeout", "1000"]);
        if ran.code != 0 {
            super::assert_told(&["start"], &ran);
            busy.day.home.pmx(&["start", "job.sh", "-i", "2"]).ok();
        }
        busy.settles("start", 0, 2);
        let (node, app) = (node(20), server::app("hello.cjs"));
        let start = ["start", app.to_str().unwrap(), "-n", "web", "-i", "2", "--balance", "rr"];
        let options =
            ["--interpreter", node.to_str().unwrap(), "--listen-timeout", "20000", "--bake-time", "50"];
        let port = busy.port.to_string();
        busy.day.home.pmx_with(&[("PORT", port.as_str())], &[&start[..], &options].concat()).ok();
        busy.settles("cluster", 2, 2);
        busy.is_answered();
        let old = busy.pids("web");
        busy.day.home.pmx(&["reload", "web"]).ok();
        busy.settles("reload", 2, 2);
        let new = busy.pids("web");
        assert!(old.iter().all(|pid| !new.contains(pid)), "{old:?} {new:?}");
        busy.is_answered();
        if !point.ends_with(":0") {
            signal(busy.day.family()[1], libc::SIGKILL);
        }
        busy.is_answered();
        assert_eq!(busy.pids("web"), new);
        busy.day.home.pmx(&["restart", "job"]).ok();
        busy.settles("restart", 2, 2);
        let (victim, job) = (busy.pids("web")[0], busy.pids("job")[0]);
        signal(victim, libc::SIGKILL);
        signal(job, libc::SIGKILL);
        wait_until("others", || {
            let list = busy.day.home.list();
            let pids = pids(&list);
            !pids.contains(&victim) && !pids.contains(&job) && statuses(&list).iter().all(|s| s.1 == "online")
        });
        busy.settles("crash", 2, 2);
        for (to, count) in [("3", 3), ("1", 1)] {
            busy.day.home.pmx(&["scale", "web", to]).ok();
            busy.settles(&format!("scale to {to}"), count, 2);
        }
        busy.is_answered();
        busy.day.home.pmx(&["stop", "job"]).ok();
        busy.settles("stop", 1, 0);
        busy.day.home.pmx(&["delete", "all"]).ok();
        busy.settles("delete", 0, 0);
        let fds = busy.day.end(fds);
        (std::fs::read_to_string(busy.day.home.path().join("pmx.log")).unwrap(), fds)
    }
}

/// The places that a daemon passes on a day on which it does not die, by their numbers; and how many fds it has.
fn places(generation: u32) -> (Vec<(u32, String)>, usize) {
    let (log, fds) = Busy::live(&format!("*:0:{generation}"), None);
    let places = log.lines().filter_map(|line| {
        let (step, place) = line.split_once("failpoint ")?.1.split_once(": ")?;
        Some((step.parse().ok()?, place.to_string()))
    });
    (places.collect(), fds)
}

#[test]
fn b11_2_every_step_may_be_the_last_one() {
    let began = Instant::now();
    let mut cases = Vec::new();
    let mut fds = 0;
    for generation in 0..2 {
        let (places, open) = places(generation);
        fds = open.max(fds);
        assert!(places.len() > 100, "{generation}: {places:?}");
        println!("generation {generation}: {} steps", places.len());
        cases.extend(places.into_iter().map(|(step, place)| Case { generation, step, place }));
    }
    match wanted() {
        Some(part) => cases.retain(|case| case.to_string().contains(&part)),
        None => {
            // Each place once.
            cases.sort_by_key(|case| hash(&case.to_string()));
            let mut by_place = BTreeMap::new();
            for case in cases {
                by_place.entry(case.place.clone()).or_insert(case);
            }
            cases = by_place.into_values().collect();
        }
    }
    let died = AtomicUsize::new(0);
    sweep(&cases, |case| {
        let (log, _) = Busy::live(&case.point(), Some(fds));
        died.fetch_add(usize::from(log.contains(": aborting")), Relaxed);
    });
    let died = died.into_inner();
    println!("{} steps, {died} of them the last of a daemon, in {:?}", cases.len(), began.elapsed());
    assert!(died * 10 >= cases.len() * 8, "only {died} of {}", cases.len());
}
