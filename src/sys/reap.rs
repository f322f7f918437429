//! Taking the exits of children. Signals coalesce, so nobody counts them: whoever sees SIGCHLD calls
//! [`reap`] until it has no more.

use std::io;
use std::mem::MaybeUninit;

/// The end of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its process id, which the kernel may give to another process from now on.
    pub pid: i32,
    /// How it ended.
    pub status: ExitStatus,
    /// Processor time it and the children it waited for spent in user mode, in ms.
    pub user_ms: u64,
    /// The same in the kernel, in ms.
    pub system_ms: u64,
    /// The most memory it had resident, in KiB.
    pub max_rss_kb: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal.
        number: i32,
        /// It left a core.
        core: bool,
    },
    /// Nobody knows: its parent died, and the kernel told nobody else.
    Unknown,
}

impl ExitStatus {
    /// As shells say it in one number: the code, or 128 and the signal.
    pub fn number(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal { number, .. } => 128 + number,
            ExitStatus::Unknown => 255,
        }
    }

    pub(super) fn from_wait(status: i32) -> Option<ExitStatus> {
        if libc::WIFEXITED(status) {
            Some(ExitStatus::Code(libc::WEXITSTATUS(status)))
        } else if libc::WIFSIGNALED(status) {
            Some(ExitStatus::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) })
        } else {
            None
        }
    }
}

/// The next child that has ended, our own or one that was left to us; `None` if there is none at present.
/// Afterwards its pid means nothing any more.
pub fn reap() -> Option<Reaped> {
    wait(-1)
}

/// As [`reap`], for one child: used by callers that are not the daemon, and may not take others' exits.
pub fn reap_one(pid: i32) -> Option<Reaped> {
    debug_assert!(pid > 0);
    wait(pid)
}

fn wait(which: i32) -> Option<Reaped> {
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to locals of the right type, which the kernel writes if it returns a pid.
        let pid = unsafe { libc::wait4(which, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
            continue;
        }
        if pid <= 0 {
            return None;
        }
        // Without WUNTRACED only ends are reported; a stop, if one came all the same, is not an end.
        let Some(status) = ExitStatus::from_wait(status) else { continue };
        // SAFETY: a rusage is all integers, for which the zeroes it began with are valid values.
        let usage = unsafe { usage.assume_init() };
        let ms = |time: libc::timeval| time.tv_sec as u64 * 1_000 + time.tv_usec as u64 / 1_000;
        return Some(Reaped {
            pid,
            status,
            user_ms: ms(usage.ru_utime),
            system_ms: ms(usage.ru_stime),
            max_rss_kb: usage.ru_maxrss as u64,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::clock::mono;
    use crate::sys::testing::alone;

    fn shell(script: &str) -> i32 {
        // Whatever those who run the tests ignore.
        let mut command = Command::new("env");
        command.args(["--default-signal", "/bin/sh", "-c", script]).stdin(Stdio::null());
        command.process_group(0).spawn().expect("spawn sh").id() as i32
    }

    /// Reaps until all of `pids` have ended; the only loop of its kind in the process.
    fn reap_all(mut pids: Vec<i32>) -> BTreeMap<i32, Reaped> {
        let deadline = mono().0 + 20_000;
        let mut seen = BTreeMap::new();
        while !pids.is_empty() {
            assert!(mono().0 < deadline, "still running: {pids:?}");
            match reap() {
                Some(reaped) => {
                    pids.retain(|&pid| pid != reaped.pid);
                    assert!(seen.insert(reaped.pid, reaped).is_none());
                }
                None => std::thread::yield_now(),
            }
        }
        seen
    }

    #[test]
    fn p07_every_exit_code_is_shown_exactly() {
        alone("sys::reap::tests::p07_every_exit_code_is_shown_exactly", || {
            let pids: Vec<i32> = (0..=255).map(|code| shell(&format!("exit {code}"))).collect();
            let seen = reap_all(pids.clone());
            for (code, pid) in (0..).zip(pids) {
                assert_eq!(seen[&pid].status, ExitStatus::Code(code));
                assert_eq!(seen[&pid].status.number(), code);
            }
            assert_eq!(reap(), None, "nothing left, and no error from having no children");
        });
    }

    #[test]
    fn p07_every_deadly_signal_is_shown_with_its_core_flag() {
        alone("sys::reap::tests::p07_every_deadly_signal_is_shown_with_its_core_flag", || {
            let dir = std::env::temp_dir().join(format!("pmx-core-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            let harmless =
                [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH, libc::SIGSTOP, libc::SIGTSTP];
            let deadly = (1..=libc::SIGRTMAX()).filter(|n| {
                !(harmless.contains(n) || [libc::SIGTTIN, libc::SIGTTOU, 32, 33, 34].contains(n))
            });
            let pids: Vec<(i32, i32)> = deadly
                .map(|n| {
                    // Without a core, whatever the limit of this process is.
                    (n, shell(&format!("cd {}; ulimit -c 0; kill -{n} $$; sleep 9", dir.display())))
                })
                .collect();
            let seen = reap_all(pids.iter().map(|&(_, pid)| pid).collect());
            for (number, pid) in pids {
                assert_eq!(seen[&pid].status, ExitStatus::Signal { number, core: false });
                assert_eq!(seen[&pid].status.number(), 128 + number);
            }
            let _ = std::fs::remove_dir_all(dir);
        });
    }

    #[test]
    fn p07_the_core_flag_is_read_from_its_bit() {
        assert_eq!(ExitStatus::from_wait(0x8b), Some(ExitStatus::Signal { number: 11, core: true }));
        assert_eq!(ExitStatus::from_wait(0x0b), Some(ExitStatus::Signal { number: 11, core: false }));
        assert_eq!(ExitStatus::from_wait(0x0300), Some(ExitStatus::Code(3)));
        assert_eq!(ExitStatus::from_wait(0x137f), None, "stopped");
        assert_eq!(ExitStatus::from_wait(0xffff), None, "continued");
    }

    #[test]
    fn what_a_child_used_comes_with_its_exit() {
        let pid = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
        let deadline = mono().0 + 20_000;
        let reaped = loop {
            match reap_one(pid) {
                Some(reaped) => break reaped,
                None => assert!(mono().0 < deadline),
            }
        };
        assert_eq!((reaped.pid, reaped.status), (pid, ExitStatus::Code(0)));
        assert!((5..10_000).contains(&reaped.user_ms), "{reaped:?}");
        // What we had ourselves when it was forked counts as its own.
        assert!((200..10_000_000).contains(&reaped.max_rss_kb), "{reaped:?}");
        assert_eq!(reap_one(pid), None);
    }
}
