//! A machine of its own: the real systemd as process 1 of new namespaces, in a cgroup of its own, with nothing of
//! this machine to start, change or stop. It shares the network and `/tmp` with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{DEADLINE, Ran, finish, wait_for, wait_until};

/// What process 1 does before it becomes systemd: its own `/etc`, `/run` and cgroups, and no units but a handful
/// of empty targets.
const PREPARE: &str = r#"
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs "$DIR"
mkdir "$DIR/up" "$DIR/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$DIR/up,workdir=$DIR/work" overlay /etc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /etc/systemd/system
units=$(readlink -f /lib/systemd)
cp "$units/system/dbus.socket" "$units/system/dbus.service" "$DIR"
mount -t tmpfs tmpfs "$units/system"
mount -t tmpfs tmpfs /usr/lib/systemd/user
if [ -d "$units/system-generators" ]; then mount -t tmpfs tmpfs "$units/system-generators"; fi
for target in sysinit basic multi-user shutdown network remote-fs nss-lookup time-sync sockets; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$units/system/$target.target"
done
for target in default basic sockets timers paths shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' >"/usr/lib/systemd/user/$target.target"
done
mount --bind "$LOG" /dev/kmsg
exec env -i container=pmx-test PATH="$PATH" "$units/systemd" --system --unit=multi-user.target \
    --log-target=kmsg --show-status=no
"#;

/// A manager of units for each user who has one, without what a log-in would add to it.
const MANAGER: &str = "[Service]
Type=notify
User=%i
Slice=user-%i.slice
Environment=XDG_RUNTIME_DIR=/run/user/%i
ExecStartPre=+install -d -o %i -m 700 /run/user/%i
ExecStart=/lib/systemd/systemd --user
Delegate=yes
";

/// The machine. Dropping it ends all that runs in it.
pub struct Machine {
    /// The user whose own units are meant, instead of the machine's.
    pub manager: Option<u32>,
    unshare: Child,
    /// Its process 1, as this machine counts.
    init: i32,
    cgroup: PathBuf,
    dir: PathBuf,
}

/// Whether there is what a machine is made of. What is missing is said, loudly.
pub fn can_boot() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "only root can boot a machine"
    } else if !Path::new("/lib/systemd/systemd").exists() {
        "systemd is not installed (.ci/run brings it)"
    } else if !Path::new("/lib/systemd/system/dbus.service").exists() {
        "dbus is not installed (.ci/run brings it)"
    } else if cgroup2().is_none() {
        "no cgroup2 is mounted"
    } else {
        return true;
    };
    eprintln!("\n!!! SKIPPED: {missing}; what systemd does with pmx is NOT tested\n");
    false
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find(|words| words[2] == "cgroup2").map(|words| PathBuf::from(words[1]))
}

impl Machine {
    /// Boots one, whose own files are below `dir`.
    pub fn boot(dir: &Path) -> Machine {
        let dir = dir.join("machine");
        let own = dir.join("own");
        fs::create_dir_all(&own).unwrap();
        let log = dir.join("kmsg");
        fs::write(&log, "").unwrap();
        let name = dir.to_str().unwrap().replace('/', "-");
        let cgroup = cgroup2().unwrap().join(format!("pmx{name}"));
        fs::create_dir(&cgroup).unwrap();
        // Into the cgroup first: it is the root of the one that the namespaces show.
        let enter = r#"echo $$ >"$CGROUP/cgroup.procs"
            exec unshare -mpfCu --propagation private --kill-child=KILL --mount-proc sh -ec "$PREPARE""#;
        let unshare = Command::new("/bin/sh")
            .args(["-ec", enter])
            .envs([("CGROUP", &cgroup), ("DIR", &own), ("LOG", &log)])
            .env("PREPARE", PREPARE)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = wait_for("process 1", || fs::read_to_string(&children).ok()?.trim().parse().ok());
        let machine = Machine { manager: None, unshare, init, cgroup, dir };
        wait_until("systemd", || machine.run(&["systemctl", "is-system-running"]).out == "running\n");
        machine
    }

    /// A command in the machine, not started yet.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, line: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-p", "-C", "-u", "--"]).args(line);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command in the machine to its end.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, line: &[S]) -> Ran {
        finish(self.command(line).spawn().unwrap())
    }

    /// Runs a shell script in the machine as root; it must succeed.
    #[track_caller]
    pub fn script(&self, text: &str, arguments: &[&str]) -> Ran {
        self.run(&[&["sh", "-ec", text, "sh"], arguments].concat()).ok()
    }

    #[track_caller]
    pub fn systemctl(&self, verb: &[&str]) -> Ran {
        let whose: &[&str] = if self.manager.is_some() { &["systemctl", "--user"] } else { &["systemctl"] };
        finish(self.command_as(self.manager, &[whose, verb].concat()).spawn().unwrap())
    }

    /// As [`Machine::command`], by a user.
    pub fn command_as(&self, uid: Option<u32>, line: &[&str]) -> Command {
        let Some(uid) = uid else { return self.command(line) };
        let become_user =
            ["setpriv", "--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"];
        let mut command = self.command(&[&become_user[..], line].concat());
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{uid}"));
        command
    }

    /// Adds a user with this home.
    pub fn add_user(&self, name: &str, uid: u32, home: &Path) {
        let line = r#"echo "$1:x:$2:$2::$3:/bin/sh" >>/etc/passwd; install -d -o "$2" -g "$2" "$3""#;
        self.script(line, &[name, &uid.to_string(), home.to_str().unwrap()]);
    }

    /// Starts a user's own manager, which is the one that is meant from now on.
    pub fn start_manager(&mut self, uid: u32) {
        self.script(r#"printf '%s' "$1" >/etc/systemd/system/user@.service"#, &[MANAGER]);
        self.systemctl(&["daemon-reload"]).ok();
        self.systemctl(&["start", &format!("user@{uid}.service")]).ok();
        self.manager = Some(uid);
    }

    /// Starts the message bus. Without it only root can talk to process 1.
    pub fn start_bus(&self) {
        self.script(r#"cp "$1"/own/dbus.* /etc/systemd/system"#, &[self.dir.to_str().unwrap()]);
        self.systemctl(&["daemon-reload"]).ok();
        self.systemctl(&["start", "dbus.service"]).ok();
    }

    /// A place where everybody finds this file, whoever may read the directory that it is in.
    pub fn public(&self, file: &Path) -> PathBuf {
        let place = Path::new("/run/public").join(file.file_name().unwrap());
        let line = r#"[ -s "$2" ] || { mkdir -p /run/public; touch "$2"; mount --bind "$1" "$2"; }"#;
        self.script(line, &[file.to_str().unwrap(), place.to_str().unwrap()]);
        place
    }

    /// A property of a unit.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "-p", property, unit]).ok().out.trim().to_string()
    }

    /// Changes a unit as an administrator would.
    pub fn drop_in(&self, unit: &str, text: &str) {
        let line = r#"mkdir -p "/etc/systemd/system/$1.d"; printf '%s\n' "$2" >"/etc/systemd/system/$1.d/test.conf""#;
        self.script(line, &[unit, text]);
        self.systemctl(&["daemon-reload"]).ok();
    }

    /// The processes of a unit, as this machine counts them, those in groups below its own included.
    pub fn processes(&self, unit: &str) -> Vec<i32> {
        let mut found = Vec::new();
        let slice = match self.manager {
            None => "system.slice".to_string(),
            Some(uid) => format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice"),
        };
        let mut groups = vec![self.cgroup.join(slice).join(unit)];
        while let Some(group) = groups.pop() {
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            let below = fs::read_dir(group).into_iter().flatten().flatten();
            groups.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        found
    }

    /// The process that systemd takes for the main one, as this machine counts.
    #[track_caller]
    pub fn main_pid(&self, unit: &str) -> i32 {
        let inside = self.show(unit, "MainPID");
        let is_it = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            ids.split_whitespace().last() == Some(&inside)
        };
        wait_for("the main process", || self.processes(unit).into_iter().find(is_it))
    }

    /// What systemd said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("kmsg")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what systemd said:\n{}", self.log());
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        super::signal(self.init, 9);
        let _ = self.unshare.wait();
        let until = std::time::Instant::now() + DEADLINE;
        while !remove_groups(&self.cgroup) && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn remove_groups(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
