//! How much of the machine we may use: open files and processors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Raises our soft limit of open files to the hard one. Returns the soft limit we started with, which
/// children get back: programs that use select(2) break above 1024.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(soft)
}

/// How many processors' worth of time we may use, at least one: those we may run on, and no more than the
/// quota of our control group, rounded up. Weights only matter under contention and do not count.
pub fn cpus() -> u32 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let quota = cgroup_cpus(Path::new("/sys/fs/cgroup"), &own).unwrap_or(u32::MAX);
    affinity().min(quota).max(1)
}

/// The processors this thread may run on.
fn affinity() -> u32 {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).count() as u32,
        // More processors than the set has room for.
        Err(_) => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    }
}

/// The smallest quota between our control group and the root, in whole processors; `None` without one.
/// `own` is the text of /proc/self/cgroup, `mount` where the hierarchies are.
fn cgroup_cpus(mount: &Path, own: &str) -> Option<u32> {
    own.lines().filter_map(|line| hierarchy_cpus(mount, line)).min()
}

/// As [`cgroup_cpus`], for one line: `0::/path` (v2) or `4:cpu,cpuacct:/path` (v1).
fn hierarchy_cpus(mount: &Path, line: &str) -> Option<u32> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    let (top, quota): (PathBuf, fn(&Path) -> Option<u32>) = if controllers.is_empty() {
        (mount.to_path_buf(), quota_v2)
    } else if controllers.split(',').any(|name| name == "cpu") {
        // Mounted under all its names, or by a link under each of them.
        let top = [controllers, "cpu"].map(|name| mount.join(name)).into_iter().find(|top| top.is_dir())?;
        (top, quota_v1)
    } else {
        return None;
    };
    // A container may see a path that is not below its mount: then only what is there counts.
    let group = group.trim_start_matches('/');
    let below = !group.split('/').any(|part| part == "..");
    let own = if below { top.join(group) } else { top.clone() };
    own.ancestors().take_while(|dir| dir.starts_with(&top)).filter_map(quota).min()
}

/// `cpu.max`: `<quota|max> <period>`, in microseconds.
fn quota_v2(dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota, period)
}

/// `cpu.cfs_quota_us`, -1 for none, and `cpu.cfs_period_us`.
fn quota_v1(dir: &Path) -> Option<u32> {
    let read = |name| fs::read_to_string(dir.join(name)).ok();
    whole_cpus(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

fn whole_cpus(quota: &str, period: &str) -> Option<u32> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    if quota == 0 || period == 0 {
        return None;
    }
    Some(u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::alone;

    /// A fresh tree of files below a directory that stands for /sys/fs/cgroup.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let top = std::env::temp_dir().join(format!("pmx-cgroup-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        fs::create_dir(&top).unwrap();
        for (path, text) in files {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        top
    }

    #[test]
    fn n08_quotas_round_up_and_the_smallest_on_the_way_wins() {
        let top = tree(
            "v2",
            &[
                ("none/cpu.max", "max 100000\n"),
                ("half/cpu.max", "50000 100000\n"),
                ("more/cpu.max", "150000 100000\n"),
                ("more/cpu.weight", "1\n"),
                ("three/cpu.max", "300000 100000\n"),
                ("three/a/b/cpu.max", "800000 100000\n"),
                ("wide/cpu.max", "800000 100000\n"),
                ("wide/narrow/cpu.max", "max 100000\n"),
                ("wide/narrow/leaf/cpu.max", "20000 10000\n"),
                ("zero/cpu.max", "0 0\n"),
                ("odd/cpu.max", "what\n"),
                ("odder/cpu.max", "-5 x\n"),
                ("huge/cpu.max", "18446744073709551615 1\n"),
            ],
        );
        for (group, cpus) in [
            ("/", None),
            ("/none", None),
            ("/half", Some(1)),
            ("/more", Some(2)),
            ("/three", Some(3)),
            ("/three/a", Some(3)),
            ("/three/a/b", Some(3)),
            ("/three/a/b/not/mounted", Some(3)),
            ("/wide/narrow", Some(8)),
            ("/wide/narrow/leaf", Some(2)),
            ("/../half", None),
            ("/zero", None),
            ("/odd", None),
            ("/odder", None),
            ("/huge", Some(u32::MAX)),
            ("/with:colon", None),
        ] {
            assert_eq!(cgroup_cpus(&top, &format!("0::{group}\n")), cpus, "{group}");
        }
        // In a container the limit is at the root of what it sees.
        fs::write(top.join("cpu.max"), "150000 100000\n").unwrap();
        for group in ["/", "/../half", "/host/path/of/this/container", "/wide/narrow"] {
            assert_eq!(cgroup_cpus(&top, &format!("0::{group}\n")), Some(2), "{group}");
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn n08_version_1_has_two_files_and_several_names() {
        let files = |dir: &str, quota: &str| {
            [
                (format!("{dir}/cpu.cfs_quota_us"), format!("{quota}\n")),
                (format!("{dir}/cpu.cfs_period_us"), "100000\n".to_string()),
            ]
        };
        for (mounted, line) in
            [("cpu,cpuacct", "4:cpu,cpuacct:/app"), ("cpu", "4:cpu,cpuacct:/app"), ("cpu", "7:cpu:/app")]
        {
            let all = [files(mounted, "-1"), files(&format!("{mounted}/app"), "250000")].concat();
            let all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (&path[..], &text[..])).collect();
            let top = tree("v1", &all);
            let own = format!("9:cpuset:/x\n{line}\n1:name=systemd:/y\n0::/z\n");
            assert_eq!(cgroup_cpus(&top, &own), Some(3), "{line} at {mounted}");
            assert_eq!(cgroup_cpus(&top, "4:cpu,cpuacct:/\n"), None, "-1 is no quota");
            assert_eq!(cgroup_cpus(&top, "5:cpuset:/app\n"), None);
            fs::remove_dir_all(top).unwrap();
        }
    }

    #[test]
    fn n08_what_is_not_there_is_no_limit() {
        for own in ["", "\n", "garbage", "0::", "1:cpu", "0::/no/such"] {
            assert_eq!(cgroup_cpus(Path::new("/no/such/mount"), own), None, "{own}");
        }
    }

    #[test]
    fn n08_processors_we_may_not_run_on_do_not_count() {
        alone("sys::limits::tests::n08_processors_we_may_not_run_on_do_not_count", || {
            let all = affinity();
            assert!(cpus() >= 1 && cpus() <= all);
            let mut one = CpuSet::new();
            let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
            one.set(first).unwrap();
            nix::sched::sched_setaffinity(Pid::from_raw(0), &one).unwrap();
            assert_eq!((affinity(), cpus()), (1, 1));
        });
    }

    #[test]
    fn the_limit_of_open_files_is_raised_and_the_old_one_told() {
        alone("sys::limits::tests::the_limit_of_open_files_is_raised_and_the_old_one_told", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
            assert_eq!(raise_open_files().unwrap(), 100);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
            assert_eq!(raise_open_files().unwrap(), hard);
        });
    }
}
