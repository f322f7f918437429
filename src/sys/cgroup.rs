//! Control groups: where we may make our own, one per child, who is in one, and how all in it come to an end.
//! Version 2 where it is delegated to us; else any hierarchy of version 1 serves to know who belongs together.
//! Nothing above our own group is ever changed, and nothing is removed but what lies below our own directory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{AccessFlags, access};

use super::pidfd;

/// The group of the keeper and the daemon, where theirs may hold no process because groups below it are limited.
const OURS: &str = "supervisor";
/// The controller of memory.
const MEMORY: &str = "memory";
/// How often a group that cannot be ended as one is gone through, for processes that appear meanwhile.
const PASSES: usize = 16;
/// The file that names the processes of a group.
const PROCESSES: &str = "cgroup.procs";
/// So many links a group has that has none below it: its name and its own.
const ALONE: u64 = 2;
/// How deep groups that a child made itself are followed.
const DEPTH: usize = 8;

/// What may be limited for all processes of a group together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time: so many microseconds in each 100 ms.
    pub cpu_us: Option<u64>,
    /// Bytes of memory, above which the kernel ends a process.
    pub memory: Option<u64>,
    /// Bytes of memory, above which the kernel slows the processes down and takes memory back.
    pub memory_high: Option<u64>,
    /// How many processes and threads.
    pub pids: Option<u64>,
}

/// The period that [`Limits::cpu_us`] is counted in.
pub const CPU_PERIOD_US: u64 = 100_000;

impl Limits {
    /// As files of either version: the controller, the file and its text.
    fn files(&self, is_v2: bool) -> Vec<(&'static str, &'static str, String)> {
        let mut files = Vec::new();
        if let Some(quota) = self.cpu_us {
            if is_v2 {
                files.push(("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}")));
            } else {
                files.push(("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
        }
        if let Some(bytes) = self.memory_high {
            let file = if is_v2 { "memory.high" } else { "memory.soft_limit_in_bytes" };
            files.push(("memory", file, bytes.to_string()));
        }
        if let Some(bytes) = self.memory {
            let file = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
            files.push(("memory", file, bytes.to_string()));
        }
        if let Some(count) = self.pids {
            files.push(("pids", "pids.max", count.to_string()));
        }
        files
    }
}

/// A mounted hierarchy, as far as it is below our own group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// The directory of our own group.
    own: PathBuf,
    /// Of version 1; version 2 says in a file what it has.
    controllers: Vec<String>,
    is_v2: bool,
}

/// Where we make groups.
#[derive(Debug, Default)]
pub struct Tree {
    /// The name of our directory in each hierarchy.
    name: String,
    /// The one by which it is known who belongs to whom comes first.
    usable: Vec<Hierarchy>,
    /// Groups of version 2 count who was killed for want of memory.
    counts_memory: Cell<bool>,
    /// Our directory in the first: from here it is not far to its groups.
    base: Option<OwnedFd>,
}

/// The groups of one child: one that tells who is in it, and others that only limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The directories, first the one that tells.
    pub paths: Vec<PathBuf>,
}

impl Tree {
    /// The hierarchies that are ours to use. `name` is that of our directory in each; no other daemon has the same.
    pub fn find(name: &str) -> Tree {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut usable = hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        for found in &mut usable {
            // Whoever came here by way of our own group stands in it.
            if found.own.ends_with(Path::new(name).join(OURS))
                && let Some(own) = found.own.ancestors().nth(2)
            {
                found.own = own.to_path_buf();
            }
        }
        usable.retain(|found| {
            let may = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
            may(&found.own) && may(&found.own.join("cgroup.procs"))
        });
        // Version 2 ends all at once; a freezer holds still what is being ended.
        usable.sort_by_key(|found| match () {
            () if found.is_v2 => 0,
            () if found.has("freezer") => 1,
            () if found.has("pids") => 2,
            () => 3,
        });
        let mut tree = Tree { name: name.to_string(), usable, counts_memory: Cell::new(false), base: None };
        while let Some(first) = tree.usable.first()
            && let Err(error) = make(&tree.directory(first))
        {
            log::debug!("make a group in {}: {error}", first.own.display());
            tree.usable.remove(0);
        }
        let v2 = tree.usable.iter().find(|found| found.is_v2);
        let counts = v2.is_some_and(|v2| is_enabled(&tree.directory(v2), MEMORY));
        tree.counts_memory.set(counts);
        tree.base = tree.usable.first().and_then(|first| directory(&tree.directory(first)).ok());
        tree
    }

    /// Whether children can have groups of their own.
    pub fn is_there(&self) -> bool {
        !self.usable.is_empty()
    }

    /// [`Group::pids`], for a list of thousands.
    pub fn pids(&self, group: &Group) -> Vec<i32> {
        let near = || {
            let (base, path) = (self.base.as_ref()?, group.paths.first()?);
            let name = path.strip_prefix(self.directory(self.usable.first()?)).ok()?;
            let found = fstatat(base, name, AtFlags::empty()).ok()?;
            (found.st_nlink as u64 == ALONE).then_some(())?;
            let how = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let file = openat(base, &name.join(PROCESSES), how, Mode::empty()).ok()?;
            Some(pids(&read(file.into()).ok()?))
        };
        near().unwrap_or_else(|| group.pids())
    }

    fn directory(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.own.join(&self.name)
    }

    /// Makes the groups of a child. The error is one sentence about a limit that cannot be had.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Option<Group>, String> {
        let mut group = Group::default();
        let made = self.fill(&mut group, name, limits);
        if made.is_err() {
            group.remove();
        }
        made?;
        Ok((!group.paths.is_empty()).then_some(group))
    }

    fn fill(&self, group: &mut Group, name: &str, limits: &Limits) -> Result<(), String> {
        let failed = |what: &str, path: &Path, error: io::Error| {
            format!("{what} {}: {}", path.display(), super::reason(&error))
        };
        let mut add = |hierarchy: &Hierarchy| {
            let path = self.directory(hierarchy).join(name);
            if !group.paths.contains(&path) {
                let made = match make(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        make(&self.directory(hierarchy)).and_then(|()| make(&path))
                    }
                    made => made,
                };
                made.map_err(|error| failed("make the group", &path, error))?;
                group.paths.push(path.clone());
            }
            Ok::<PathBuf, String>(path)
        };
        if let Some(first) = self.usable.first() {
            match add(first) {
                Err(reason) if *limits == Limits::default() => log::warn!("{reason}"),
                made => drop(made?),
            }
        }
        for (controller, file, text) in limits.files(true) {
            let Some(hierarchy) = self.usable.iter().find(|found| found.controls(controller)) else {
                return Err(format!(
                    "limit the {controller} of its processes: no {controller} controller of control groups is ours \
                     to use here"
                ));
            };
            if hierarchy.is_v2 {
                self.enable(hierarchy, controller)?;
                let path = add(hierarchy)?.join(file);
                fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
                continue;
            }
            let path = add(hierarchy)?;
            let of_file = limits.files(false);
            for (_, file, text) in of_file.iter().filter(|(found, ..)| *found == controller) {
                let path = path.join(file);
                fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
            }
        }
        Ok(())
    }

    /// Has the groups of children be limited by a controller of version 2. Processes may then be in them only, so
    /// those of pmx get a group too.
    fn enable(&self, hierarchy: &Hierarchy, controller: &str) -> Result<(), String> {
        let directory = self.directory(hierarchy);
        for group in [&hierarchy.own, &directory] {
            if is_enabled(group, controller) {
                continue;
            }
            let path = group.join("cgroup.subtree_control");
            let mut enabled = fs::write(&path, format!("+{controller}"));
            if matches!(&enabled, Err(error) if error.raw_os_error() == Some(libc::EBUSY)) {
                let ours = directory.join(OURS);
                let moved = make(&ours).and_then(|()| {
                    for pid in [super::family::parent(), std::process::id() as i32] {
                        fs::write(ours.join("cgroup.procs"), pid.to_string())?;
                    }
                    Ok(())
                });
                enabled = moved.and_then(|()| fs::write(&path, format!("+{controller}")));
            }
            enabled.map_err(|error| match error.raw_os_error() {
                Some(libc::EBUSY) => format!(
                    "limit the {controller} of its processes: others than pmx are in {}",
                    group.display()
                ),
                _ => format!("limit by {controller} in {}: {}", group.display(), super::reason(&error)),
            })?;
        }
        if controller == MEMORY {
            self.counts_memory.set(true);
        }
        Ok(())
    }

    /// The groups that a daemon before us made, but those that are known. Those that are to be left alone are only
    /// removed if they are empty.
    pub fn left(&self, known: &BTreeSet<PathBuf>) -> Vec<Group> {
        let mut found = Vec::new();
        for hierarchy in &self.usable {
            let below = fs::read_dir(self.directory(hierarchy)).into_iter().flatten().flatten();
            let groups = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let groups = groups.filter(|entry| entry.file_name() != OURS);
            let paths = groups.map(|entry| entry.path()).filter(|path| !known.contains(path));
            found.extend(paths.map(|path| Group { paths: vec![path] }));
        }
        found
    }

    /// Whether a directory is one of ours: what is written down may be of another time.
    pub fn owns(&self, path: &Path) -> bool {
        self.usable.iter().any(|hierarchy| path.parent() == Some(&self.directory(hierarchy)))
    }

    /// Whether the kernel has killed anybody in a group for want of memory.
    pub fn has_lacked_memory(&self, group: &Group) -> bool {
        let mut places: Vec<(&PathBuf, &str)> = Vec::new();
        for path in &group.paths {
            let of_path = self.usable.iter().find(|found| path.parent() == Some(&self.directory(found)));
            match of_path {
                Some(v2) if v2.is_v2 => {
                    places.extend(self.counts_memory.get().then_some((path, "memory.events")))
                }
                Some(v1) if v1.has(MEMORY) => places.push((path, "memory.oom_control")),
                _ => {}
            }
        }
        let is_told = |(path, file): &(&PathBuf, &str)| {
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
            counts.any(|count| count.trim() != "0")
        };
        places.iter().any(is_told)
    }

    /// Removes our directories, if nothing is in them.
    pub fn remove(&self) {
        for hierarchy in &self.usable {
            let _ = fs::remove_dir(self.directory(hierarchy));
        }
    }
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|found| found == controller)
    }

    fn controls(&self, controller: &str) -> bool {
        if !self.is_v2 {
            return self.has(controller);
        }
        let text = fs::read_to_string(self.own.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().any(|found| found == controller)
    }
}

impl Group {
    /// Their directories: what a process needs to be born in them, or to enter them.
    pub fn directories(&self) -> io::Result<Vec<OwnedFd>> {
        self.paths.iter().map(|path| directory(path)).collect()
    }

    /// Who is in it, in groups below it too.
    pub fn pids(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for path in self.paths.first().into_iter().flat_map(|path| below(path)) {
            let text = fs::File::open(path.join(PROCESSES)).and_then(read);
            found.extend(pids(&text.unwrap_or_default()));
        }
        found
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        let Some(path) = self.paths.first() else { return true };
        // As few calls as can be: a restart waits for this.
        let mut text = [0; 64];
        let read = fs::File::open(path.join("cgroup.events")).and_then(|mut file| file.read(&mut text));
        match read {
            Ok(count) => text[..count].split(|byte| *byte == b'\n').any(|line| line == b"populated 0"),
            Err(_) => self.pids().is_empty(),
        }
    }

    /// Sends a signal to everybody in it who is not in `but`. It reaches nobody else, whoever gets a number of theirs.
    pub fn signal(&self, number: i32, but: impl Fn(i32) -> bool) {
        let held: BTreeMap<i32, OwnedFd> = self
            .pids()
            .into_iter()
            .filter(|pid| !but(*pid))
            .filter_map(|pid| Some((pid, pidfd::open(pid).ok()?)))
            .collect();
        // Who is in it now was, if it is the same, in it when it was taken hold of; if it is not, nobody is held.
        for pid in self.pids() {
            if let Some(held) = held.get(&pid) {
                let _ = pidfd::send_held(held.as_fd(), number);
            }
        }
    }

    /// Ends everybody in it. Ending takes the kernel a moment.
    pub fn kill(&self) {
        let Some(path) = self.paths.first() else { return };
        if fs::write(path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Without that (before 5.14, or version 1): hold them still, so that nobody makes new ones.
        let freezer = path.join("freezer.state");
        let _ = fs::write(&freezer, "FROZEN");
        for _ in 0..PASSES {
            let before = self.pids();
            if before.is_empty() {
                break;
            }
            self.signal(libc::SIGKILL, |_| false);
            if freezer.exists() || self.pids() == before {
                break;
            }
        }
        let _ = fs::write(&freezer, "THAWED");
    }

    /// Removes it, with what its processes made below it. False: somebody is in it yet.
    pub fn remove(&self) -> bool {
        let remove = |path: &Path| match fs::remove_dir(path) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        let mut gone = true;
        for path in &self.paths {
            if !remove(path) {
                gone &= below(path).iter().rev().all(|path| remove(path));
            }
        }
        gone
    }
}

/// Whether the groups below a group of version 2 are limited by a controller.
fn is_enabled(group: &Path, controller: &str) -> bool {
    let text = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
    text.split_whitespace().any(|found| found == controller)
}

/// A file of the kernel's, with as few calls as can be: thousands are read for a list.
fn read(mut file: fs::File) -> io::Result<Vec<u8>> {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = file.read(&mut piece)?;
        text.extend_from_slice(&piece[..count]);
        // While there is more, the kernel fills a page but for less than a line (seq_file).
        if count < piece.len() / 2 {
            return Ok(text);
        }
    }
}

/// The processes that a group names. 0 is one of another pid namespace.
fn pids(text: &[u8]) -> Vec<i32> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect()
}

/// A directory, held.
fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

/// A group and those below it, each after the one that it is in.
fn below(path: &Path) -> Vec<PathBuf> {
    fn walk(path: PathBuf, depth: usize, found: &mut Vec<PathBuf>) {
        if fs::metadata(&path).is_ok_and(|group| group.nlink() == ALONE) {
            return found.push(path);
        }
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let inner: Vec<PathBuf> = entries.filter(is_group).map(|entry| entry.path()).collect();
        found.push(path);
        if depth > 0 {
            inner.into_iter().for_each(|path| walk(path, depth - 1, found));
        }
    }
    let mut found = Vec::new();
    walk(path.to_path_buf(), DEPTH, &mut found);
    found
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Our own group in each mounted hierarchy: `own` is the text of /proc/self/cgroup, `mounts` that of mountinfo.
fn hierarchies(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_v2 = controllers.is_empty();
        let names: Vec<String> = controllers.split(',').map(String::from).collect();
        let is_it = |mount: &Mount| match mount.kind.as_str() {
            "cgroup2" => is_v2,
            "cgroup" => !is_v2 && names.iter().all(|name| mount.options.split(',').any(|o| o == name)),
            _ => false,
        };
        let directory = |mount: Mount| {
            // What is mounted may be a part of the hierarchy, as in a container.
            let below = Path::new(path).strip_prefix(&mount.root).ok()?;
            below.components().all(|part| matches!(part, std::path::Component::Normal(_))).then_some(())?;
            Some(mount.point.join(below))
        };
        let mounts = mounts.lines().filter_map(mount).filter(is_it);
        if let Some(own) = mounts.filter_map(directory).next_back() {
            found.push(Hierarchy { own, controllers: if is_v2 { Vec::new() } else { names }, is_v2 });
        }
    }
    found
}

struct Mount {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: String,
}

/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup2 cgroup2 rw,nsdelegate`
fn mount(line: &str) -> Option<Mount> {
    let (place, source) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let mut source = source.split(' ');
    Some(Mount {
        root: unescaped(place.next()?),
        point: unescaped(place.next()?),
        kind: source.next()?.to_string(),
        options: source.nth(1)?.to_string(),
    })
}

/// Spaces and their like are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_whatever_is_mounted_where() {
        let found = |own: &str, mounts: &str| -> Vec<String> {
            hierarchies(own, mounts).into_iter().map(|found| found.own.display().to_string()).collect()
        };
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw master:1 - cgroup cgroup rw,xattr,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let unit = "/system.slice/pmx-a.service";
        assert_eq!(found(&format!("0::{unit}\n"), v2), [format!("/sys/fs/cgroup{unit}")]);
        assert_eq!(
            found(&format!("3:cpuset:/\n2:cpu,cpuacct:/x\n1:name=systemd:{unit}\n0::{unit}\n"), hybrid),
            [
                "/sys/fs/cgroup/cpu,cpuacct/x".to_string(),
                format!("/sys/fs/cgroup/systemd{unit}"),
                format!("/sys/fs/cgroup/unified{unit}")
            ],
            "what is not mounted is not there"
        );
        let bound = "50 49 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(found("0::/docker/abc/in\n", bound), ["/sys/fs/cgroup/in"]);
        assert_eq!(found("0::/docker/abcd\n", bound), [""; 0], "another one");
        assert_eq!(found("0::/../elsewhere\n", v2), [""; 0], "above what we see");
        let odd = "30 23 0:26 / /a\\040b\\134 rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found("0::/c:d\n", odd), ["/a b\\/c:d"]);
        assert_eq!(found("0::/x\n", &format!("{v2}{odd}")), ["/a b\\/x"], "the last one lies on top");
        for (own, mounts) in [("", v2), ("0::/", ""), ("0:", v2), ("\n::", "garbage - - -"), ("0::/", "1 2")]
        {
            assert_eq!(found(own, mounts), [""; 0], "{own} {mounts}");
        }
    }

    #[test]
    fn a_limit_is_a_file_of_either_version() {
        let limits = Limits { cpu_us: Some(150_000), memory: Some(4096), memory_high: None, pids: Some(7) };
        let text = |is_v2| -> Vec<String> {
            limits.files(is_v2).into_iter().map(|(_, file, text)| format!("{file}={text}")).collect()
        };
        assert_eq!(text(true), ["cpu.max=150000 100000", "memory.max=4096", "pids.max=7"]);
        assert_eq!(
            text(false),
            [
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "memory.limit_in_bytes=4096",
                "pids.max=7"
            ]
        );
    }
}
