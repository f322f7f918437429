//! Who typed the command, and where: everything that is read from the process once.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::app::Env;

/// The surroundings of one command.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The environment.
    pub env: Env,
    /// The current directory as the shell shows it: symlinks are kept, so that a release behind a
    /// `current` link is found again after the link was changed.
    pub cwd: PathBuf,
    /// The program that is run as the daemon.
    pub exe: PathBuf,
}

impl Caller {
    /// Of this process.
    pub fn of_process() -> Result<Caller, String> {
        let env: Env = std::env::vars_os().filter(|(name, _)| !name.is_empty()).collect();
        let real = std::env::current_dir()
            .map_err(|error| format!("find the current directory: {}", crate::sys::reason(&error)))?;
        let cwd = match env.get("PWD").map(|pwd| PathBuf::from(&pwd.0)) {
            Some(pwd) if pwd.is_absolute() && same_file(&pwd, &real) => pwd,
            _ => real,
        };
        Ok(Caller { env, cwd, exe: PathBuf::from("/proc/self/exe") })
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<OsString> {
        self.env.get(name).map(|value| value.0.clone()).filter(|value| !value.is_empty())
    }

    /// Whether pmx is to be as pm2: called by that name, or told so by `PMX_COMPAT=pm2`.
    pub fn is_pm2(&self) -> bool {
        self.var("PMX_COMPAT").is_some_and(|value| value == "pm2")
    }

    /// What apps inherit: the environment without what is meant for this very process only. A shell
    /// inside a managed app has these, and another app must not take them for its own.
    pub fn inheritable(&self) -> Env {
        const OURS: &[&str] = &[
            "LISTEN_FDNAMES",
            "LISTEN_FDS",
            "LISTEN_PID",
            "NODE_APP_INSTANCE",
            "NODE_CHANNEL_FD",
            "NODE_CHANNEL_SERIALIZATION_MODE",
            "NODE_UNIQUE_ID",
            "NOTIFY_SOCKET",
            "PMX_COMPAT",
            "pm_id",
        ];
        let mut env = self.env.clone();
        env.0.retain(|name, _| !OURS.iter().any(|ours| *ours == name.0));
        env
    }
}

/// Whether a program's name is that of pm2.
pub fn is_called_pm2(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == "pm2")
}

/// `path` made absolute against `base`, without `.` and `..` where that cannot change its meaning:
/// a `..` after a name is kept, because that name may be a symlink.
pub fn absolute(base: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if whole.parent().is_none() => {}
            Component::ParentDir if fs::symlink_metadata(&whole).is_ok_and(|found| found.is_dir()) => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_symlinks_kept() {
        let home = std::env::temp_dir().join(format!("pmx-caller-{}", std::process::id()));
        fs::create_dir_all(home.join("releases/1/bin")).unwrap();
        std::os::unix::fs::symlink("releases/1", home.join("current")).unwrap();
        for (path, expected) in [
            ("app.js", "app.js"),
            ("./app.js", "app.js"),
            ("current/./app.js", "current/app.js"),
            ("releases/../app.js", "app.js"),
            ("current/../app.js", "current/../app.js"),
            ("nowhere/../app.js", "nowhere/../app.js"),
        ] {
            assert_eq!(absolute(&home, Path::new(path)), home.join(expected), "{path}");
        }
        assert_eq!(absolute(&home, Path::new("/../etc")), Path::new("/etc"));
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn an_app_does_not_inherit_what_another_was_given() {
        let mut caller = Caller::default();
        caller.env.set("NODE_CHANNEL_FD", "3");
        caller.env.set("pm_id", "7");
        caller.env.set("PATH", "/bin");
        let inherited = caller.inheritable();
        assert_eq!(inherited.0.len(), 1);
        assert!(inherited.get("PATH").is_some());
    }
}
