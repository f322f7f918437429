//! Children looked at from outside, through /proc.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use super::*;
use crate::sys::reap::{ExitStatus, reap_one};
use crate::sys::testing::{alone, c, wait_until};

const BOTH: [Features; 2] = [
    Features { pidfd: true, close_range: true, low_table: true, clone3: true },
    Features { pidfd: false, close_range: false, low_table: false, clone3: false },
];

/// `cat` on 0 and 1, to be looked at while it waits for input; killed and reaped in the end.
struct Cat {
    child: Spawned,
    to: File,
    from: File,
}

impl Cat {
    /// `wanted` is all but the program, and fds 0 and 1.
    fn start(features: Features, wanted: Spawn) -> Cat {
        let (input, to) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (from, output) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let mut fds = vec![(input.as_raw_fd(), 0), (output.as_raw_fd(), 1)];
        fds.extend(wanted.fds);
        let (programs, argv) = ([c("/bin/cat")], [c("cat")]);
        let wanted = Spawn { programs: &programs, argv: &argv, fds: &fds, ..wanted };
        let child = spawn_with(&wanted, features, || ()).0.unwrap();
        let mut cat = Cat { child, to: to.into(), from: from.into() };
        // An echo proves that it is past its dynamic loader.
        cat.to.write_all(b"x").unwrap();
        cat.from.read_exact(&mut [0]).unwrap();
        cat
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.pid))
    }

    fn status(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path("status")).unwrap();
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_string(), value.trim().to_string()))
            .collect()
    }

    fn fds(&self) -> Vec<i32> {
        let entries = fs::read_dir(self.path("fd")).unwrap();
        let mut fds: Vec<i32> =
            entries.map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        fds.sort();
        fds
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        let pidfd = self.child.pidfd.as_ref().map(AsFd::as_fd);
        crate::sys::pidfd::send(pidfd, self.child.pid, libc::SIGKILL).unwrap();
        wait_until("cat to end", || reap_one(self.child.pid));
    }
}

fn blank<'a>() -> Spawn<'a> {
    Spawn { programs: &[], argv: &[], env: &[], cwd: c"/", umask: 0o022, fds: &[], ..Spawn::default() }
}

#[test]
fn when_a_child_started_is_known_as_the_kernel_tells_it() {
    let mut known = 0;
    for features in BOTH.into_iter().cycle().take(40) {
        let cat = Cat::start(features, blank());
        let told = crate::sys::proc::stat(cat.child.pid).unwrap().start_ticks;
        assert!(cat.child.start_tick.is_none_or(|tick| tick == told), "{:?}, not {told}", cat.child);
        known += usize::from(cat.child.start_tick.is_some());
    }
    assert!(known > 10, "known of {known} of 40");
}

/// A fresh directory that everybody may enter.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pmx-spawn-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn file(path: &Path, content: &[u8], mode: u32) -> CString {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    c(path.to_str().unwrap())
}

/// `wanted` is all but the programs, and but the arguments where those do not matter.
fn fails(programs: &[&CString], wanted: Spawn) -> SpawnError {
    let programs: Vec<CString> = programs.iter().map(|&program| program.clone()).collect();
    let argv = [c("x")];
    let argv = if wanted.argv.is_empty() { &argv } else { wanted.argv };
    match spawn(&Spawn { programs: &programs, argv, ..wanted }) {
        Ok(child) => panic!("{:?}", wait_until("an end", || reap_one(child.pid))),
        Err(error) => error,
    }
}

/// What a program writes to fd 1, and how it ends.
fn output(programs: &[CString], argv: &[CString]) -> (String, ExitStatus) {
    let (from, to) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let fds = [(null.as_raw_fd(), 0), (to.as_raw_fd(), 1)];
    let child = spawn(&Spawn { programs, argv, fds: &fds, ..blank() }).unwrap();
    drop(to);
    let text = std::io::read_to_string(File::from(from)).unwrap();
    (text, wait_until("an end", || reap_one(child.pid)).status)
}

#[test]
fn p11_a_child_has_exactly_the_fds_it_was_given() {
    for features in BOTH {
        let null = File::open("/dev/null").unwrap();
        let inheritable = nix::unistd::dup(&null).unwrap();
        // An fd that is not close-on-exec, and one far above all targets.
        let far = fcntl(&inheritable, FcntlArg::F_DUPFD(900)).unwrap();
        let cat = Cat::start(features, blank());
        assert_eq!(cat.fds(), [0, 1]);
        let fds = [(null.as_raw_fd(), 3), (inheritable.as_raw_fd(), 100), (far, 7)];
        let cat = Cat::start(features, Spawn { fds: &fds, ..blank() });
        assert_eq!(cat.fds(), [0, 1, 3, 7, 100]);
        for fd in ["fd/3", "fd/7", "fd/100"] {
            assert_eq!(fs::read_link(cat.path(fd)).unwrap(), Path::new("/dev/null"));
        }
        assert_eq!(cat.child.pidfd.is_some(), features.pidfd);
        nix::unistd::close(far).unwrap();
    }
}

#[test]
fn fds_find_their_numbers_whatever_the_overlap() {
    // Three files in a ring, each wanted at the number of another, and one wanted where it is.
    let files: Vec<File> = ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"]
        .map(|path| File::open(path).unwrap())
        .into_iter()
        .collect();
    let n: Vec<i32> = files.iter().map(|file| file.as_raw_fd()).collect();
    let fds = [(n[0], n[1]), (n[1], n[2]), (n[2], n[0]), (n[3], n[3]), (n[0], 99)];
    let cat = Cat::start(BOTH[0], Spawn { fds: &fds, ..blank() });
    let link = |fd: i32| fs::read_link(cat.path(&format!("fd/{fd}"))).unwrap();
    for (fd, path) in [
        (n[1], "/dev/null"),
        (n[2], "/dev/zero"),
        (n[0], "/dev/full"),
        (n[3], "/dev/urandom"),
        (99, "/dev/null"),
    ] {
        assert_eq!(link(fd), Path::new(path));
    }
    for (file, fd) in files.iter().zip(&n) {
        assert_eq!(file.as_raw_fd(), *fd);
        assert_ne!(fcntl(file, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, 0, "ours are as they were");
    }
}

#[test]
fn p11_no_signal_is_blocked_or_ignored_in_a_child() {
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    let ignored = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_ne!(u64::from_str_radix(ignored, 16).unwrap() & (1 << (libc::SIGPIPE - 1)), 0, "Rust's doing");
    let cat = Cat::start(BOTH[0], blank());
    let status = cat.status();
    for set in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    let after = fs::read_to_string("/proc/thread-self/status").unwrap();
    for set in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(set)).map(str::to_string);
        assert_eq!(line(&own), line(&after), "ours are as they were");
    }
}

#[test]
fn p11_signals_blocked_and_ignored_by_our_own_parent_are_reset() {
    alone("sys::spawn::tests::p11_signals_blocked_and_ignored_by_our_own_parent_are_reset", || {
        for signal in (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(n)) {
            // SAFETY: nothing else runs in this process.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        child::set_signal_mask(u64::MAX, None);
        let status = Cat::start(BOTH[0], blank()).status();
        assert_eq!((&status["SigBlk"][..], &status["SigIgn"][..]), ("0000000000000000", "0000000000000000"));
    });
}

#[test]
fn a_child_leads_a_session_and_has_its_umask_directory_and_environment() {
    let env = [c("A=1"), c("B=two words")];
    let cat = Cat::start(BOTH[0], Spawn { umask: 0o137, cwd: c"/proc", env: &env, ..blank() });
    let pid = cat.child.pid.to_string();
    let stat = fs::read_to_string(cat.path("stat")).unwrap();
    // After the name: state, parent, group, session, terminal.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let own = std::process::id().to_string();
    assert_eq!(fields[1..5], [&own[..], &pid[..], &pid[..], "0"]);
    assert_eq!(cat.status()["Umask"], "0137");
    assert_eq!(fs::read_link(cat.path("cwd")).unwrap(), Path::new("/proc"));
    assert_eq!(fs::read(cat.path("environ")).unwrap(), b"A=1\0B=two words\0");
    assert_eq!(fs::read(cat.path("cmdline")).unwrap(), b"cat\0");
}

#[test]
fn p11_the_limits_of_open_files_are_restored_and_never_above_the_hard_one() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for (wanted, expected) in
        [([200, hard], [200, hard]), ([100, 300], [100, 300]), ([u64::MAX, u64::MAX], [hard, hard])]
    {
        let cat = Cat::start(BOTH[0], Spawn { nofile: Some(wanted), ..blank() });
        let limits = fs::read_to_string(cat.path("limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[3..5], expected.map(|limit| limit.to_string()));
    }
}

#[test]
fn r09_a_child_gets_its_own_inclination_to_be_killed_and_ours_stays() {
    let read = |path: &Path| fs::read_to_string(path).unwrap().trim().to_string();
    let ours = read(Path::new("/proc/self/oom_score_adj"));
    let cat = Cat::start(BOTH[0], Spawn { oom_score_adj: Some(345), ..blank() });
    assert_eq!(read(&cat.path("oom_score_adj")), "345");
    assert_eq!(read(Path::new("/proc/self/oom_score_adj")), ours);
}

#[test]
fn n06_a_child_takes_a_terminal_that_is_nobodys() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let terminal = pty.slave.as_raw_fd();
    assert!(!crate::sys::terminal::is_ours(pty.slave.as_fd()));
    let fds = [(terminal, 2)];
    let start =
        || Cat::start(BOTH[0], Spawn { fds: &fds, terminal: Some(Terminal::Taken(terminal)), ..blank() });
    let fields = |cat: &Cat| {
        let stat = fs::read_to_string(cat.path("stat")).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        // Group, session, terminal, the terminal's foreground group.
        fields.skip(2).take(4).map(|field| field.parse().unwrap()).collect::<Vec<i32>>()
    };
    let (first, second) = (start(), start());
    let pid = first.child.pid;
    let [group, session, device, foreground] = fields(&first)[..] else { panic!() };
    assert_eq!((group, session, foreground), (pid, pid, pid));
    assert_ne!(device, 0);
    let pid = second.child.pid;
    assert_eq!(fields(&second), [pid, pid, 0, -1], "it is taken");
}

#[test]
fn p08_each_failure_names_its_step_errno_and_path() {
    let dir = directory("errors");
    let path = |name: &str| dir.join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_string();
    let absent = c(&text("absent"));
    let closed = file(&path("closed"), b"#!/bin/sh\n", 0o644);
    let lost = file(&path("lost"), b"#!/no/such/interpreter\n", 0o755);
    let binary = file(&path("binary"), b"\x7fELF\x02\x01\x01\0not for this machine", 0o755);
    let true_ = c("/bin/true");
    let huge = vec![c(&"x".repeat(100_000)); 100];
    let cases = [
        (fails(&[&absent], blank()), Step::Exec, libc::ENOENT, text("absent")),
        (fails(&[&closed], blank()), Step::Exec, libc::EACCES, text("closed")),
        (fails(&[&c("/bin/true/x")], blank()), Step::Exec, libc::ENOTDIR, "/bin/true/x".to_string()),
        (fails(&[&lost], blank()), Step::Interpreter, libc::ENOENT, text("lost")),
        (fails(&[&binary], blank()), Step::Exec, libc::ENOEXEC, text("binary")),
        (
            fails(&[&true_], Spawn { argv: &huge, ..blank() }),
            Step::Exec,
            libc::E2BIG,
            "/bin/true".to_string(),
        ),
        (fails(&[&true_], Spawn { cwd: &absent, ..blank() }), Step::Chdir, libc::ENOENT, text("absent")),
        (
            fails(&[&true_], Spawn { cwd: c"/bin/true", ..blank() }),
            Step::Chdir,
            libc::ENOTDIR,
            "/bin/true".into(),
        ),
        // As execvp: what may not be executed outweighs what is not there, wherever it stands.
        (fails(&[&closed, &absent], blank()), Step::Exec, libc::EACCES, text("closed")),
        (fails(&[&absent, &closed], blank()), Step::Exec, libc::EACCES, text("closed")),
        (fails(&[&c("/bin/absent"), &absent], blank()), Step::Exec, libc::ENOENT, "absent".into()),
    ];
    for (error, step, errno, path) in cases {
        assert_eq!(error, SpawnError { step, errno, path: Some(path.into()) });
    }
    let error = fails(&[&true_], Spawn { fds: &[(9_999_999, 3)], ..blank() });
    assert_eq!(error, SpawnError { step: Step::Fds, errno: libc::EBADF, path: None });
    let error = fails(&[], blank());
    assert_eq!((error.step, error.errno, error.path), (Step::Exec, libc::ENOENT, None));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_failure_reads_as_a_sentence() {
    let text = |step, errno, path: Option<&str>| {
        SpawnError { step, errno, path: path.map(PathBuf::from) }.to_string()
    };
    assert_eq!(
        text(Step::Chdir, libc::ENOENT, Some("/x")),
        "change directory to /x: no such file or directory"
    );
    assert_eq!(
        text(Step::Exec, libc::EACCES, Some("/usr/bin/foo")),
        "execute /usr/bin/foo: permission denied"
    );
    assert_eq!(text(Step::Uid, libc::EPERM, None), "set the user: operation not permitted");
}

#[test]
fn a_failed_spawn_leaves_neither_a_process_nor_an_fd() {
    alone("sys::spawn::tests::a_failed_spawn_leaves_neither_a_process_nor_an_fd", || {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..20 {
            fails(&[&c("/no/such")], blank());
        }
        assert_eq!(open(), before);
        assert_eq!(crate::sys::reap::reap(), None);
        // SAFETY: waitpid may be given a null status.
        assert_eq!(unsafe { libc::waitpid(-1, ptr::null_mut(), 0) }, -1, "no children at all");
    });
}

#[test]
fn candidates_are_tried_in_order() {
    let programs = [c("/no/such/echo"), c("/bin/true/echo"), c("/bin/echo"), c("/bin/false")];
    let (text, status) = output(&programs, &[c("echo"), c("hello")]);
    assert_eq!((&text[..], status), ("hello\n", ExitStatus::Code(0)));
}

#[test]
fn a_script_without_an_interpreter_is_given_to_the_shell() {
    let dir = directory("script");
    let script = file(&dir.join("script"), b"echo \"$0\" \"$@\"; exit 7\n", 0o755);
    let argv = [c("name"), c("one"), c("two words")];
    let (text, status) = output(std::slice::from_ref(&script), &argv);
    assert_eq!(
        (text, status),
        (format!("{} one two words\n", script.to_str().unwrap()), ExitStatus::Code(7))
    );
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_child_runs_as_somebody_else_and_enters_its_directory_as_such() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = directory("user");
    let groups = [7, 8];
    let user = Some(Credentials { uid: 1234, gid: 2345, groups: &groups });
    let cat = Cat::start(BOTH[0], Spawn { user, ..blank() });
    let status = cat.status();
    let fields = |name: &str| status[name].split_whitespace().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(fields("Uid"), ["1234"; 4]);
    assert_eq!(fields("Gid"), ["2345"; 4]);
    assert_eq!(fields("Groups"), ["7", "8"]);
    assert_eq!(status["CapEff"], "0000000000000000");
    let cat = Cat::start(
        BOTH[0],
        Spawn { user: Some(Credentials { uid: 1234, gid: 2345, groups: &[] }), ..blank() },
    );
    assert_eq!(cat.status()["Groups"], "");
    assert!(is_dumpable(), "a child that changed its user left our memory as it was");
    // Root may enter it, the user may not.
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    let private = c(dir.to_str().unwrap());
    let error = fails(&[&c("/bin/true")], Spawn { cwd: &private, user, ..blank() });
    assert_eq!(error, SpawnError { step: Step::Chdir, errno: libc::EACCES, path: Some(dir.clone()) });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn only_root_can_make_a_child_somebody_else() {
    alone("sys::spawn::tests::only_root_can_make_a_child_somebody_else", || {
        if nix::unistd::geteuid().is_root() {
            nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
        }
        let error = fails(
            &[&c("/bin/true")],
            Spawn { user: Some(Credentials { uid: 0, gid: 0, groups: &[] }), ..blank() },
        );
        assert_eq!(error, SpawnError { step: Step::Groups, errno: libc::EPERM, path: None });
    });
}

#[test]
fn p12_a_daemon_without_fds_0_to_2_and_with_sigchld_ignored_can_spawn() {
    alone("sys::spawn::tests::p12_a_daemon_without_fds_0_to_2_and_with_sigchld_ignored_can_spawn", || {
        // SAFETY: nothing else runs in this process.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let saved = [0, 1, 2].map(|fd| {
            // SAFETY: the fds of this process, put back below.
            unsafe { (libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 50), libc::close(fd)) }.0
        });
        // Pipes that now have the numbers 0 to 2, in the wrong order.
        let (from, to) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let null = File::open("/dev/null").unwrap();
        let ours = [null.as_raw_fd(), to.as_raw_fd()];
        let argv = [c("sh"), c("-c"), c("echo hello; echo $(ls /proc/$$/fd)")];
        let spawned = spawn(&Spawn {
            programs: &[c("/bin/sh")],
            argv: &argv,
            fds: &[(ours[0], 0), (ours[1], 1)],
            ..blank()
        });
        let failed = fails(&[&c("/no/such")], blank());
        drop((to, null));
        let mut text = String::new();
        let read = File::from(from).read_to_string(&mut text);
        for (saved, fd) in saved.into_iter().zip(0..) {
            // SAFETY: as above.
            unsafe { libc::dup2(saved, fd) };
        }
        assert_eq!(ours, [2, 1]);
        assert!(spawned.is_ok() && read.is_ok(), "{spawned:?}");
        assert!(text.starts_with("hello\n0 1"), "{text}");
        assert_eq!(failed.errno, libc::ENOENT);
    });
}

#[test]
fn a_deleted_working_directory_of_ours_does_not_matter() {
    alone("sys::spawn::tests::a_deleted_working_directory_of_ours_does_not_matter", || {
        let dir = directory("deleted");
        std::env::set_current_dir(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        assert_eq!(output(&[c("/bin/pwd")], &[c("pwd")]).0, "/\n");
    });
}

#[test]
fn a_child_is_in_its_groups_from_the_beginning() {
    let tree = crate::sys::cgroup::Tree::find(&format!("pmx-spawn-{}", std::process::id()));
    if !tree.is_there() {
        return;
    }
    for (number, features) in BOTH.into_iter().enumerate() {
        let group = tree.create(&number.to_string(), &Default::default()).unwrap().unwrap();
        let directories = group.directories().unwrap();
        let groups: Vec<RawFd> = directories.iter().map(AsRawFd::as_raw_fd).collect();
        let cat = Cat::start(features, Spawn { groups: &groups, ..blank() });
        assert_eq!(group.pids(), [cat.child.pid], "{}", features.clone3);
        assert_eq!(cat.fds(), [0, 1]);
        drop(cat);
        // A directory that is none is said, whichever way was tried first.
        let stray = File::open("/").unwrap();
        let programs = [c("/bin/true")];
        let wanted = Spawn { programs: &programs, argv: &programs, groups: &[stray.as_raw_fd()], ..blank() };
        assert_eq!(spawn_with(&wanted, features, || ()).0.unwrap_err().step, Step::Group);
        wait_until("its group to go", || group.remove().then_some(()));
    }
    tree.remove();
}

/// Whoever enters a group waits for all processors; whoever is born in one does not enter it.
#[test]
fn a_birth_in_a_group_of_version_2_is_no_move() {
    let tree = crate::sys::cgroup::Tree::find(&format!("pmx-birth-{}", std::process::id()));
    let group = tree.create("0", &Default::default()).unwrap();
    let Some(group) = group.filter(|group| group.paths[0].join("cgroup.events").exists()) else { return };
    let directories = group.directories().unwrap();
    let groups: Vec<RawFd> = directories.iter().map(AsRawFd::as_raw_fd).collect();
    let programs = [c("/bin/true")];
    let wanted = Spawn { programs: &programs, argv: &programs, groups: &groups, ..blank() };
    let mut plan = Plan::new(&wanted, true, true);
    let stack = Stack::new().unwrap();
    let inside = AtomicU32::new(0);
    let (pid, _pidfd) = send_off(&stack, &mut plan, &inside).expect("this kernel knows of births");
    drop(Underway::new(pid, &inside));
    assert!(plan.failure.is_none() && plan.born_in == 1);
    wait_until("its end", || reap_one(pid));
    wait_until("its group to go", || group.remove().then_some(()));
    tree.remove();
}

/// Starts one after the other, each while the one before executes; the last first.
fn nested(programs: &[CString], features: Features, done: &mut Vec<Result<Spawned, SpawnError>>) {
    let Some((program, rest)) = programs.split_first() else { return };
    let argv = [c("sleep"), c("1000")];
    let wanted = Spawn { programs: std::slice::from_ref(program), argv: &argv, ..blank() };
    let (spawned, ()) = spawn_with(&wanted, features, || nested(rest, features, done));
    done.push(spawned);
}

#[test]
fn many_execute_at_a_time_and_each_is_what_it_was_to_be() {
    // One of three is not there.
    let programs: Vec<CString> =
        (0..24).map(|n| c(if n % 3 == 1 { "/no/such" } else { "/bin/sleep" })).collect();
    for features in BOTH {
        let mut done = Vec::new();
        nested(&programs, features, &mut done);
        done.reverse();
        let mut pids = Vec::new();
        for (program, done) in programs.iter().zip(&done) {
            match done {
                Ok(spawned) => pids.push(spawned.pid),
                Err(error) => assert_eq!((error.step, error.errno), (Step::Exec, libc::ENOENT)),
            }
            assert_eq!(done.is_ok(), program.to_bytes() == b"/bin/sleep", "{done:?}");
        }
        let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        let names: Vec<String> = pids.iter().map(name).collect();
        for pid in &pids {
            crate::sys::pidfd::send(None, *pid, libc::SIGKILL).unwrap();
            wait_until("its end", || reap_one(*pid));
        }
        assert_eq!(names, vec!["sleep\n"; 16]);
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), 16);
    }
}

#[test]
fn a_child_that_was_started_has_a_memory_of_its_own_before_long() {
    if !knows_memory() {
        return;
    }
    let cat = Cat::start(BOTH[0], blank());
    wait_for_own_memory(cat.child.pid);
    assert_eq!(compares_memory(std::process::id() as i32, cat.child.pid), Some(false));
}

/// It shares our memory, and with it what libc keeps for our thread.
#[test]
fn a_child_that_fails_leaves_our_errno_alone() {
    if !bare::IS_BARE {
        return;
    }
    let argv = [c("x")];
    let programs = vec![c("/no/such"); 200];
    let wanted = Spawn { programs: &programs, argv: &argv, ..blank() };
    for _ in 0..50 {
        let (failed, seen) = spawn_while(&wanted, || {
            nix::errno::Errno::clear();
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_millis(2) {
                std::hint::black_box(());
            }
            nix::errno::Errno::last_raw()
        });
        assert_eq!((failed.unwrap_err().errno, seen), (libc::ENOENT, 0));
    }
}

#[test]
fn who_goes_on_comes_back_when_the_child_has_been_killed() {
    // Nothing tells that it has left: as of a child that was killed, on old kernels.
    let programs = [c("/bin/true")];
    let spawned = spawn(&Spawn { programs: &programs, argv: &programs, ..blank() }).unwrap();
    let inside = AtomicU32::new(1);
    drop(Underway::new(spawned.pid, &inside));
    assert!(reap_one(spawned.pid).is_some());
}
