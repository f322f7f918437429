//! The directory in which one daemon lives: `$PMX_HOME`, else `$HOME/.pmx`, and in a container the first of
//! some others that can be written to. Private to its owner.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, getegid};

use super::caller::{Caller, absolute};
use crate::sys::{socket, users};

/// The home and the files in it that daemon and clients meet at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The directory.
    pub path: PathBuf,
}

impl Home {
    /// Where the caller's daemon lives, whether or not the directory exists. Without one of its own, in a
    /// container, that of its first process.
    pub fn of(caller: &Caller) -> Result<Home, String> {
        Home::among(caller, of_container(caller))
    }

    fn among(caller: &Caller, of_container: Vec<PathBuf>) -> Result<Home, String> {
        if caller.is_pm2() {
            let usual = || caller.var("HOME").map(|home| PathBuf::from(home).join(".pm2"));
            let path = caller.var("PM2_HOME").map(PathBuf::from).or_else(usual);
            let path = path.ok_or("neither PM2_HOME nor HOME is set: where should pmx live?")?;
            return Ok(Home { path: absolute(&caller.cwd, &path) });
        }
        let usual = match (caller.var("PMX_HOME"), caller.var("HOME")) {
            (Some(home), _) => Some(PathBuf::from(home)),
            (None, Some(home)) => Some(PathBuf::from(home).join(".pmx")),
            (None, None) => None,
        };
        let usual = usual.map(|path| Home { path: absolute(&caller.cwd, &path) });
        let is_used =
            |home: &Home| home.path.exists() || caller.var("PMX_HOME").is_some() && home.is_writable();
        if let Some(home) = usual.as_ref().filter(|home| is_used(home)) {
            return Ok(home.clone());
        }
        let live = of_container.into_iter().map(|path| Home { path }).find(Home::is_live);
        live.or(usual).ok_or_else(|| "neither PMX_HOME nor HOME is set: where should pmx live?".to_string())
    }

    /// Whether it could be made.
    fn is_writable(&self) -> bool {
        let existing = self.path.ancestors().find(|path| path.exists());
        existing.is_some_and(|path| access(path, AccessFlags::W_OK).is_ok())
    }

    /// Whether a daemon of ours answers there. In a place that is open to everybody, a directory of somebody
    /// else, or a link to one, is a trap.
    fn is_live(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        let is_ours = found.is_ok_and(|found| found.is_dir() && found.uid() == users::effective_uid());
        is_ours && socket::connect_control(&self.socket()).is_ok()
    }

    /// Makes the directory if need be, and refuses one that others could tamper with.
    pub fn prepare(&self) -> Result<(), String> {
        let home = self.path.display();
        if let Some(fault) =
            self.path.ancestors().skip(1).filter_map(way_fault).last().or(link_fault(&self.path))
        {
            return Err(format!("{home}: {fault}: set PMX_HOME"));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(format!("{home}: not a directory"));
            }
            Err(error) => return Err(format!("create {home}: {}", crate::sys::reason(&error))),
        }
        let found = fs::metadata(&self.path)
            .map_err(|error| format!("look at {home}: {}", crate::sys::reason(&error)))?;
        let us = users::effective_uid();
        if found.uid() != us {
            return Err(format!(
                "{home}: it belongs to uid {}, and we are uid {us}: set PMX_HOME",
                found.uid()
            ));
        }
        if found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o777;
            return Err(format!("{home}: others may write to it (mode {mode:03o}): chmod go-w it"));
        }
        Ok(())
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("pmx.sock")
    }

    /// Whoever holds its lock is the daemon.
    pub fn lock(&self) -> PathBuf {
        self.path.join("pmx.lock")
    }

    /// Where pm2 would note the pid of a process.
    pub fn pid_file(&self, name: &str, id: u32) -> PathBuf {
        crate::pm2::pid_file(&self.path, name, id)
    }

    /// The daemon's own log.
    pub fn log(&self) -> PathBuf {
        self.path.join("pmx.log")
    }
}

/// How a user namespace shows whoever has no number in it: the root of the machine around it, for one.
const NOBODY: u32 = 65_534;

/// Who else could put another directory in the place of what is below this one, if anybody could. A directory like
/// `/tmp` is open to all and yet safe: nobody takes from it what is somebody else's.
fn way_fault(directory: &Path) -> Option<String> {
    let fault = link_fault(directory);
    let found = fs::metadata(directory).ok()?;
    let (shown, mode) = (directory.display(), found.mode());
    let is_sticky = mode & 0o1000 != 0;
    fault.or_else(|| match found.uid() {
        uid if ![0, NOBODY, users::effective_uid()].contains(&uid) => {
            Some(format!("{shown} on the way to it belongs to uid {uid}, who could put another one there"))
        }
        _ if mode & 0o002 != 0 && !is_sticky => {
            Some(format!("anybody may write to {shown} on the way to it (mode {:03o})", mode & 0o777))
        }
        // The group of our own that many systems give each user is nobody else.
        _ if mode & 0o020 != 0 && !is_sticky && found.gid() != getegid().as_raw() => Some(format!(
            "group {} may write to {shown} on the way to it (mode {:03o})",
            found.gid(),
            mode & 0o777
        )),
        _ => None,
    })
}

/// A link of somebody else leads where they want.
fn link_fault(path: &Path) -> Option<String> {
    let found = fs::symlink_metadata(path).ok().filter(|found| found.is_symlink())?;
    let uid = found.uid();
    (uid != 0 && uid != users::effective_uid())
        .then(|| format!("{} is a link that uid {uid} has made", path.display()))
}

/// Where the first process of a container may have its control socket, best first.
pub fn of_container(caller: &Caller) -> Vec<PathBuf> {
    let uid = users::effective_uid();
    let declared = caller.var("PMX_HOME").map(PathBuf::from);
    let session = caller.var("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("pmx"));
    let common = ["/run", "/dev/shm", "/tmp"].map(|base| Path::new(base).join(format!("pmx-{uid}")));
    let all = declared.into_iter().chain(session).chain(common);
    all.map(|path| absolute(&caller.cwd, &path)).collect()
}

impl AsRef<Path> for Home {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn caller(vars: &[(&str, &str)]) -> Caller {
        let mut caller = Caller { cwd: PathBuf::from("/srv"), ..Caller::default() };
        for (name, value) in vars {
            caller.env.set(*name, *value);
        }
        caller
    }

    #[test]
    fn where_it_is() {
        for (vars, expected) in [
            (&[("HOME", "/home/a")][..], Ok("/home/a/.pmx")),
            (&[("HOME", "/home/a"), ("PMX_HOME", "/srv/pmx")], Ok("/srv/pmx")),
            (&[("HOME", "/home/a"), ("PMX_HOME", "")], Ok("/home/a/.pmx")),
            (&[("PMX_HOME", "here")], Ok("/srv/here")),
            (&[], Err("neither PMX_HOME nor HOME is set")),
        ] {
            match (Home::among(&caller(vars), Vec::new()), expected) {
                (Ok(home), Ok(path)) => assert_eq!(home.path, Path::new(path)),
                (Err(error), Err(start)) => assert!(error.starts_with(start), "{error}"),
                (found, _) => panic!("{vars:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn it_is_made_private_and_refused_when_it_is_not() {
        let base = std::env::temp_dir().join(format!("pmx-home-{}", std::process::id()));
        let home = Home { path: base.join("deep/.pmx") };
        home.prepare().unwrap();
        assert_eq!(fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
        home.prepare().unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(home.prepare().unwrap_err().contains("others may write to it (mode 770)"));
        fs::remove_dir(&home).unwrap();
        fs::write(&home, "").unwrap();
        assert!(home.prepare().unwrap_err().ends_with(": not a directory"));
        fs::remove_dir_all(base).unwrap();
    }
}
