//! How much of the machine we may use: open files, processors and memory; and who dies first for want of it.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// What we raise the hard limit of open files to where we may: each process takes some.
const OPEN_FILES: u64 = 1 << 20;
/// Where the kernel says what it allows at most.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
/// How likely a process is the one that dies when memory is short, from -1000 (never) to 1000.
pub const OOM_SCORE_ADJ: &std::ffi::CStr = c"/proc/self/oom_score_adj";
/// Ours: all others go first.
const OOM_LAST: i32 = -900;

/// Raises our limit of open files: the hard one as far as we are privileged to, the soft one to the hard
/// one. Returns the limits we started with, soft and hard, which children get back: programs that use
/// select(2) break above 1024, and others allocate for each fd there could be.
pub fn raise_open_files() -> io::Result<[u64; 2]> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = fs::read_to_string(NR_OPEN).ok().and_then(|text| text.trim().parse().ok());
    let wanted = hard.max(OPEN_FILES.min(most.unwrap_or(hard)));
    if wanted > hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok([soft, hard]);
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok([soft, hard])
}

/// Whether more than half of the files that we may open are, as far as the number tells that one has got which was
/// just opened: it is the lowest that was free.
pub fn open_files_are_short(latest: RawFd) -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| latest as u64 > soft / 2)
}

/// Lets others have the processor and the disk first, for what is not urgent.
pub fn yield_to_others() {
    /// `IOPRIO_WHO_PROCESS`
    const WHO: libc::c_int = 1;
    /// `IOPRIO_CLASS_IDLE`, in its place.
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: setpriority and ioprio_set take integers; process 0 is this one.
    unsafe {
        libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, WHO, 0, IDLE);
    }
}

/// Has the kernel choose others before us when memory is short, if we are privileged to ask for that.
/// Returns what held before, which children get back; `None`: nothing was changed.
pub fn outlive_others() -> Option<i32> {
    let before = oom_score()?;
    if before <= OOM_LAST {
        return None;
    }
    match set_oom_score(OOM_LAST) {
        Ok(()) => Some(before),
        Err(error) => {
            log::debug!("ask to be spared when memory is short: {error}");
            None
        }
    }
}

/// How likely we are to die when memory is short.
pub fn oom_score() -> Option<i32> {
    fs::read_to_string(OOM_SCORE_ADJ.to_str().ok()?).ok()?.trim().parse().ok()
}

/// Sets it. What was lowered by who is privileged may be lowered as far again.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    fs::write(OOM_SCORE_ADJ.to_str().map_err(io::Error::other)?, score.to_string())
}

/// How many bytes of memory we may use: the limit of our control group, or what the machine has.
pub fn memory() -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup_memory(Path::new("/sys/fs/cgroup"), &own).unwrap_or(u64::MAX);
    machine_memory().min(limit)
}

fn machine_memory() -> u64 {
    // SAFETY: sysinfo is a struct of integers, for which zero is a value.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one sysinfo, which `info` is.
    if unsafe { libc::sysinfo(&mut info) } < 0 {
        return u64::MAX;
    }
    // On 32-bit machines the first is narrower.
    #[allow(clippy::unnecessary_cast)]
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// The smallest memory limit between our control group and the root; `None` without one.
fn cgroup_memory(mount: &Path, own: &str) -> Option<u64> {
    let v2 = |dir: &Path| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok();
    // Without a limit it says a number near 2^63, which the machine's memory is below.
    let v1 = |dir: &Path| fs::read_to_string(dir.join("memory.limit_in_bytes")).ok()?.trim().parse().ok();
    own.lines().filter_map(|line| smallest(mount, line, "memory", v2, v1)).min()
}

/// Whether the kernel, out of memory, would rather choose another process than us.
pub fn is_oom_protected() -> bool {
    oom_score().is_some_and(|score| score < 0)
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
    own.lines().filter_map(|line| smallest(mount, line, "cpu", quota_v2, quota_v1)).min()
}

/// The smallest number that is read on the way from our own group to the root of one hierarchy, which is
/// given as a line `0::/path` (version 2) or `4:cpu,cpuacct:/path` (version 1).
fn smallest<T: Ord>(
    mount: &Path,
    line: &str,
    controller: &str,
    v2: impl Fn(&Path) -> Option<T>,
    v1: impl Fn(&Path) -> Option<T>,
) -> Option<T> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    let is_v2 = controllers.is_empty();
    let top = if is_v2 {
        mount.to_path_buf()
    } else if controllers.split(',').any(|name| name == controller) {
        // Mounted under all its names, or by a link under each of them.
        [controllers, controller].map(|name| mount.join(name)).into_iter().find(|top| top.is_dir())?
    } else {
        return None;
    };
    // A container may see a path that is not below its mount: then only what is there counts.
    let group = group.trim_start_matches('/');
    let below = !group.split('/').any(|part| part == "..");
    let own: PathBuf = if below { top.join(group) } else { top.clone() };
    let groups = own.ancestors().take_while(|dir| dir.starts_with(&top));
    groups.filter_map(|dir| if is_v2 { v2(dir) } else { v1(dir) }).min()
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
    fn n09_the_smallest_memory_limit_on_the_way_wins() {
        let limit = "268435456\n";
        let top = tree(
            "memory",
            &[
                ("none/memory.max", "max\n"),
                ("half/memory.max", limit),
                ("half/a/memory.max", "max\n"),
                ("half/a/b/memory.max", "536870912\n"),
                ("odd/memory.max", "what\n"),
                ("memory/old/memory.limit_in_bytes", limit),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        for (own, expected) in [
            ("0::/none", None),
            ("0::/half", Some(256 << 20)),
            ("0::/half/a/b", Some(256 << 20)),
            ("0::/odd", None),
            ("0::/no/such", None),
            ("7:memory:/old\n0::/", Some(256 << 20)),
            ("7:memory:/", Some(9_223_372_036_854_771_712)),
            ("7:cpu:/old", None),
            ("", None),
        ] {
            assert_eq!(cgroup_memory(&top, own), expected, "{own}");
        }
        let machine = machine_memory();
        assert!((64 << 20..1 << 50).contains(&machine), "{machine}");
        assert!(memory() <= machine);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn the_limit_of_open_files_is_raised_and_the_old_one_told() {
        alone("sys::limits::tests::the_limit_of_open_files_is_raised_and_the_old_one_told", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard.min(2_000)).unwrap();
            assert_eq!(raise_open_files().unwrap(), [100, hard.min(2_000)]);
            let (soft, raised) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            assert_eq!(soft, raised);
            assert_eq!(raised > hard.min(2_000), is_privileged(), "{raised}");
            assert_eq!(raise_open_files().unwrap(), [raised, raised]);
        });
    }

    /// CAP_SYS_RESOURCE, which root in a container often lacks.
    fn is_privileged() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 1 << 24 != 0
    }

    #[test]
    fn r09_whoever_may_is_spared_and_knows_what_held_before() {
        alone("sys::limits::tests::r09_whoever_may_is_spared_and_knows_what_held_before", || {
            let read =
                || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
            fs::write("/proc/self/oom_score_adj", "100").unwrap();
            let before = is_privileged().then_some(100);
            assert_eq!(outlive_others(), before);
            assert_eq!(read(), if before.is_some() { OOM_LAST } else { 100 });
            assert_eq!(outlive_others(), None, "nothing to change, or no right to");
        });
    }
}
