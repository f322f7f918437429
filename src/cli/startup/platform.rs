//! What starts services on this machine, and the programs that tell it to.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::super::caller::Caller;

/// An init system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    Systemd,
    /// systemd, the manager of one user.
    User,
    Openrc,
    /// `/etc/init.d`: upstart as well, which reads it too.
    Sysv,
}

impl Platform {
    /// By its name, or by that of a system that has it (pm2's words).
    pub fn named(name: &str) -> Result<Platform, String> {
        Ok(match name {
            "systemd" | "ubuntu" | "centos" | "arch" | "oracle" => Platform::Systemd,
            "user" => Platform::User,
            "openrc" | "gentoo" | "alpine" => Platform::Openrc,
            "sysv" | "systemv" | "upstart" | "ubuntu12" | "ubuntu14" | "amazon" | "centos6" => Platform::Sysv,
            _ => return Err(format!("unknown platform {name:?}: systemd, user, openrc and sysv are known")),
        })
    }

    /// What this machine has.
    pub fn detect(programs: &Programs) -> Result<Platform, String> {
        let has = |name| programs.find(name).is_some();
        if Path::new("/run/systemd/system").exists() || has("systemctl") {
            Ok(Platform::Systemd)
        } else if has("rc-update") {
            Ok(Platform::Openrc)
        } else if has("chkconfig") || has("update-rc.d") {
            Ok(Platform::Sysv)
        } else {
            Err("this machine has none of systemctl, rc-update, chkconfig and update-rc.d: name a platform"
                .to_string())
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Platform::Systemd => "systemd",
            Platform::User => "user",
            Platform::Openrc => "openrc",
            Platform::Sysv => "sysv",
        }
    }
}

/// Where programs are looked for.
pub struct Programs {
    path: Vec<PathBuf>,
}

impl Programs {
    /// On the caller's PATH, and where those for root are, which others often have not on theirs.
    pub fn of(caller: &Caller) -> Programs {
        let mut path: Vec<PathBuf> =
            caller.var("PATH").map_or(Vec::new(), |path| std::env::split_paths(&path).collect());
        path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
        Programs { path }
    }

    /// The program called `name`; a path is itself.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let candidates = self.path.iter().map(|directory| directory.join(name));
        candidates.into_iter().find(|path| path.is_absolute() && is_program(path))
    }

    /// This very program, by the name on the PATH that leads to it: a symlink there is led to the next
    /// version later. Else by its own path.
    pub fn ourselves(&self, caller: &Caller) -> Result<PathBuf, String> {
        let failed = |error: std::io::Error| format!("find the path of pmx: {}", crate::sys::reason(&error));
        let own = std::fs::metadata(&caller.exe).map_err(failed)?;
        let is_us = |path: &Path| {
            path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()))
        };
        if let Some(named) = self.find("pmx").filter(|path| is_us(path)) {
            return Ok(named);
        }
        let path = std::fs::canonicalize(&caller.exe).map_err(failed)?;
        if is_us(&path) {
            Ok(path)
        } else {
            Err(format!("find the path of pmx: {} is not this program any more", path.display()))
        }
    }

    /// Runs a program to its end.
    pub fn output(&self, line: &[&str]) -> Result<Output, String> {
        let (name, args) = line.split_first().ok_or("run nothing")?;
        let program = self.find(name).ok_or_else(|| format!("run {name}: it is not installed"))?;
        let output = Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output();
        output.map_err(|error| format!("run {name}: {}", crate::sys::reason(&error)))
    }

    /// Runs a program that must succeed. The failure tells what it said last.
    pub fn run(&self, line: &[&str]) -> Result<(), String> {
        let output = self.output(line)?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let last = said.iter().rev().find_map(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
        let why = last.map_or(output.status.to_string(), |line| line.trim().to_string());
        Err(format!("{}: {why}", line.join(" ")))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{TestHome, write_program};
    use super::*;

    fn on_path(home: &TestHome) -> Programs {
        Programs { path: vec![home.home.path.clone()] }
    }

    #[test]
    fn the_platform_is_told_by_its_programs() {
        let home = TestHome::new("platform");
        let programs = on_path(&home);
        let booted = Path::new("/run/systemd/system").exists();
        if !booted {
            assert!(Platform::detect(&programs).unwrap_err().contains("name a platform"));
        }
        for (program, platform) in [
            ("update-rc.d", Platform::Sysv),
            ("rc-update", Platform::Openrc),
            ("systemctl", Platform::Systemd),
        ] {
            write_program(&home.home.path.join(program), "#!/bin/sh\n");
            let expected = if booted { Platform::Systemd } else { platform };
            assert_eq!(Platform::detect(&programs), Ok(expected));
        }
        for (word, platform) in [("ubuntu14", Platform::Sysv), ("centos", Platform::Systemd)] {
            assert_eq!(Platform::named(word), Ok(platform));
        }
        for platform in [Platform::Systemd, Platform::User, Platform::Openrc, Platform::Sysv] {
            assert_eq!(Platform::named(platform.name()), Ok(platform));
        }
        assert!(Platform::named("launchd").is_err());
    }

    #[test]
    fn the_program_is_named_by_the_link_on_the_path() {
        let mut home = TestHome::new("ourselves");
        let real = home.home.path.join("pmx-1.2");
        write_program(&real, "#!/bin/sh\n");
        home.caller.exe = real.clone();
        assert_eq!(on_path(&home).ourselves(&home.caller), Ok(real.clone()));
        let link = home.home.path.join("pmx");
        std::os::unix::fs::symlink("pmx-1.2", &link).unwrap();
        assert_eq!(on_path(&home).ourselves(&home.caller), Ok(link.clone()));
        // Another pmx is not us.
        std::fs::remove_file(&link).unwrap();
        write_program(&link, "#!/bin/sh\n");
        assert_eq!(on_path(&home).ourselves(&home.caller), Ok(real));
    }

    #[test]
    fn a_program_that_fails_tells_why() {
        let home = TestHome::new("programs");
        write_program(&home.home.path.join("bad"), "#!/bin/sh\necho first >&2; echo second >&2; exit 3\n");
        let programs = on_path(&home);
        assert_eq!(programs.run(&["bad", "thing"]), Err("bad thing: second".to_string()));
        assert_eq!(programs.run(&["absent"]), Err("run absent: it is not installed".to_string()));
    }
}
