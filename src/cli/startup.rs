//! `startup` and `unstartup`: have the machine start the daemon, and with it the saved apps, at boot.

mod platform;
mod script;
pub mod sweep;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Session;
use super::caller::Caller;
use super::screen::{Fail, Screen};
use crate::sys::users::{self, Entry};
use platform::{Platform, Programs};
use script::{shell_word, write};

/// What is to be started at boot, for whom, and by whom.
struct Boot<'a> {
    caller: &'a Caller,
    platform: Platform,
    programs: Programs,
    /// What the service is called.
    service: String,
    user: Entry,
    /// The daemon's home.
    home: PathBuf,
    /// The program, by a path that outlives its next version.
    exe: PathBuf,
    path: String,
    /// Not before the network is there.
    wait_ip: bool,
    /// A restart of the service leaves the apps alone.
    keep: bool,
}

/// `pmx startup [platform]`
pub fn startup(session: &mut Session, operands: &[String]) -> Result<(), Fail> {
    let boot = Boot::of(session, operands)?;
    if boot.needs_root() {
        return boot.ask_for_root("startup", session);
    }
    boot.check()?;
    let lines = match boot.platform {
        Platform::Systemd | Platform::User => boot.set_up_systemd(session.screen)?,
        Platform::Openrc => boot.set_up_openrc()?,
        Platform::Sysv => boot.set_up_sysv()?,
    };
    for line in lines {
        session.screen.line(&format!("startup: {line}"))?;
    }
    Ok(())
}

/// `pmx unstartup [platform]`
pub fn unstartup(session: &mut Session, operands: &[String]) -> Result<(), Fail> {
    let boot = Boot::of(session, operands)?;
    if boot.needs_root() {
        return boot.ask_for_root("unstartup", session);
    }
    let file = boot.file()?;
    if !file.exists() {
        return session.screen.line(&format!("unstartup: there is no {}", file.display()));
    }
    match boot.platform {
        Platform::Systemd | Platform::User => boot.remove_systemd(&file)?,
        Platform::Openrc => {
            boot.run(&["rc-service", &boot.service, "stop"])?;
            boot.run(&["rc-update", "delete", &boot.service])?;
            remove(&file)?;
        }
        Platform::Sysv => {
            boot.run(&[&file.display().to_string(), "stop"])?;
            if boot.programs.find("chkconfig").is_some() {
                boot.run(&["chkconfig", "--del", &boot.service])?;
                remove(&file)?;
            } else {
                remove(&file)?;
                boot.run(&["update-rc.d", &boot.service, "remove"])?;
            }
        }
    }
    session.screen.line(&format!("unstartup: stopped and removed {}", file.display()))
}

impl Boot<'_> {
    fn of<'a>(session: &Session<'a, '_>, operands: &[String]) -> Result<Boot<'a>, String> {
        let (caller, options) = (session.caller, &session.options);
        let programs = Programs::of(caller);
        let platform = match operands.first() {
            Some(name) => Platform::named(name)?,
            None => Platform::detect(&programs)?,
        };
        let us = users::effective_uid().to_string();
        let name = options.boot_user.as_deref().unwrap_or(&us);
        let user = users::user(name)
            .map_err(|error| format!("look up the user {name}: {}", crate::sys::reason(&error)))?
            .ok_or_else(|| format!("there is no user {name}"))?;
        if platform == Platform::User && user.uid.to_string() != us {
            return Err(format!("a unit of {}'s own is for {0} to set up", user.name));
        }
        let home = match &options.user_home {
            Some(home) => super::caller::absolute(&caller.cwd, home.path()).join(".pmx"),
            None if caller.var("PMX_HOME").is_some() => session.home.path.clone(),
            None => user.home.join(".pmx"),
        };
        let service = match (&options.service_name, platform) {
            (Some(name), _) => name.strip_suffix(".service").unwrap_or(name).to_string(),
            (None, Platform::User) => "pmx".to_string(),
            (None, _) => format!("pmx-{}", user.name),
        };
        let exe = programs.ourselves(caller)?;
        let path = caller.var("PATH").map_or(String::new(), |path| path.to_string_lossy().into_owned());
        Ok(Boot {
            caller,
            platform,
            programs,
            service,
            user,
            home,
            exe,
            path,
            wait_ip: options.wait_ip,
            keep: options.keep,
        })
    }

    fn needs_root(&self) -> bool {
        self.platform != Platform::User && users::effective_uid() != 0
    }

    /// Prints the command that a person may copy; it is not done, so this fails.
    fn ask_for_root(&self, verb: &str, session: &mut Session) -> Result<(), Fail> {
        let mut line = "sudo env PATH=\"$PATH\"".to_string();
        let mut word = |text: &str| {
            line.push(' ');
            line.push_str(text);
        };
        let typed = session.options.user_home.is_none() && self.caller.var("PMX_HOME").is_some();
        if typed {
            word(&format!("PMX_HOME={}", shell_word(&self.home.display().to_string())));
        }
        for text in [&self.exe.display().to_string(), verb, self.platform.name(), "-u", &self.user.name] {
            word(&shell_word(text));
        }
        if let Some(home) = self.home.parent().filter(|_| !typed) {
            word("--hp");
            word(&shell_word(&home.display().to_string()));
        }
        if let Some(name) = &session.options.service_name {
            word("--service-name");
            word(&shell_word(name));
        }
        if self.wait_ip {
            word("--wait-ip");
        }
        if self.keep {
            word("--keep");
        }
        session.screen.complain(&format!("{verb} is for root; to have it done, run:"));
        session.screen.data(format!("{line}\n").as_bytes())?;
        Err(Fail::Said)
    }

    /// What would end in a service that cannot start, or in a file that says something else than is meant.
    fn check(&self) -> Result<(), String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.service.is_empty()
            || !self.service.chars().all(is_plain)
            || self.service.starts_with(['-', '.'])
        {
            return Err(format!(
                "{:?} cannot be the name of a service: letters, digits, - _ and . can (--service-name)",
                self.service
            ));
        }
        if !self.user.name.chars().all(|c| is_plain(c) || c == '@' || c == '$') {
            return Err(format!("the user {:?} cannot be named in a service", self.user.name));
        }
        for (what, text) in [("home", self.home.to_str()), ("program", self.exe.to_str())] {
            if text.is_none_or(|text| text.chars().any(char::is_control)) {
                return Err(format!("the path of the {what} cannot be written into a service: {text:?}"));
            }
        }
        if self.wait_ip && self.platform != Platform::Systemd {
            return Err(format!(
                "--wait-ip: only a unit of the system's systemd can wait for it, not {}",
                self.platform.name()
            ));
        }
        if self.keep && !matches!(self.platform, Platform::Systemd | Platform::User) {
            return Err(format!(
                "--keep: only systemd keeps apps over a restart of their service, not {}",
                self.platform.name()
            ));
        }
        if self.path.chars().any(char::is_control) {
            return Err("PATH cannot be written into a service: it has control characters".to_string());
        }
        match fs::metadata(&self.home) {
            Ok(found) if found.uid() != self.user.uid => Err(format!(
                "{}: it belongs to uid {}, and {} is uid {}: say --hp or -u",
                self.home.display(),
                found.uid(),
                self.user.name,
                self.user.uid
            )),
            _ => Ok(()),
        }
    }

    /// The file that makes the service.
    fn file(&self) -> Result<PathBuf, String> {
        Ok(match self.platform {
            Platform::Systemd => Path::new("/etc/systemd/system").join(format!("{}.service", self.service)),
            Platform::User => {
                let config = match (self.caller.var("XDG_CONFIG_HOME"), self.caller.var("HOME")) {
                    (Some(config), _) => PathBuf::from(config),
                    (None, Some(home)) => PathBuf::from(home).join(".config"),
                    (None, None) => self.user.home.join(".config"),
                };
                config.join("systemd/user").join(format!("{}.service", self.service))
            }
            Platform::Openrc | Platform::Sysv => Path::new("/etc/init.d").join(&self.service),
        })
    }

    /// Runs a program that must succeed.
    fn run(&self, line: &[&str]) -> Result<(), String> {
        self.programs.run(line)
    }

    fn set_up_openrc(&self) -> Result<Vec<String>, String> {
        let file = self.file()?;
        write(&file, &self.openrc_script(), 0o755)?;
        self.run(&["rc-update", "add", &self.service, "default"])?;
        Ok(vec![
            format!("wrote {}", file.display()),
            format!("it starts at the next boot; now: pmx kill; rc-service {} start", self.service),
        ])
    }

    fn set_up_sysv(&self) -> Result<Vec<String>, String> {
        let file = self.file()?;
        write(&file, &self.sysv_script(), 0o755)?;
        if self.programs.find("chkconfig").is_some() {
            self.run(&["chkconfig", "--add", &self.service])?;
            self.run(&["chkconfig", &self.service, "on"])?;
        } else {
            self.run(&["update-rc.d", &self.service, "defaults"])?;
        }
        Ok(vec![
            format!("wrote {}", file.display()),
            format!("it starts at the next boot; now: pmx kill; {} start", file.display()),
        ])
    }

    fn set_up_systemd(&self, screen: &mut Screen) -> Result<Vec<String>, String> {
        let file = self.file()?;
        let name = format!("{}.service", self.service);
        let verified = script::write_checked(&file, &self.unit(), |draft| self.verify(draft, &name))?;
        if !verified {
            screen.complain("systemd-analyze is not installed: the unit was not verified");
        }
        if self.keep && self.lacks_bus() {
            screen.complain(&format!(
                "--keep: without D-Bus, which does not run here, {} cannot ask systemd whether a stop is for a \
                 restart: it would stop the apps",
                self.user.name
            ));
        }
        let run = |verb: &[&str]| self.systemctl(verb);
        if self.is_booted() {
            run(&["daemon-reload"])?;
        }
        run(&["enable", &name])?;
        let mut lines = vec![
            format!("wrote{} {}", if verified { " and verified" } else { "" }, file.display()),
            "enabled it".to_string(),
        ];
        if self.platform == Platform::User {
            lines.push(format!(
                "it starts at the next login; now: pmx kill; systemctl --user start {}",
                self.service
            ));
            lines.push(format!("at boot, and beyond logout: loginctl enable-linger {}", self.user.name));
        } else {
            lines
                .push(format!("it starts at the next boot; now: pmx kill; systemctl start {}", self.service));
        }
        Ok(lines)
    }

    fn remove_systemd(&self, file: &Path) -> Result<(), String> {
        let name = format!("{}.service", self.service);
        if self.is_booted() {
            self.systemctl(&["stop", &name])?;
        }
        self.systemctl(&["disable", &name])?;
        remove(file)?;
        if self.is_booted() { self.systemctl(&["daemon-reload"]) } else { Ok(()) }
    }

    /// Whether there is a manager to talk to; in the making of an image there is none.
    fn is_booted(&self) -> bool {
        Path::new("/run/systemd/system").exists()
    }

    /// Whether the service could not talk to the machine's manager: only root can without a message bus.
    fn lacks_bus(&self) -> bool {
        self.platform == Platform::Systemd
            && self.user.uid != 0
            && self.is_booted()
            && !Path::new("/run/dbus/system_bus_socket").exists()
    }

    fn systemctl(&self, verb: &[&str]) -> Result<(), String> {
        let mut line = vec!["systemctl", "--quiet"];
        line.extend((self.platform == Platform::User).then_some("--user"));
        line.extend(verb);
        self.run(&line)
    }

    /// Has systemd read the unit: whatever it says about it is a failure, because what it does not
    /// understand it leaves out. False: there is nothing to verify with.
    fn verify(&self, draft: &Path, name: &str) -> Result<bool, String> {
        if self.programs.find("systemd-analyze").is_none() {
            return Ok(false);
        }
        let draft = draft.display().to_string();
        let mut line = vec!["systemd-analyze", "--no-pager"];
        line.extend((self.platform == Platform::User).then_some("--user"));
        line.extend(["verify", &draft]);
        let said = self.programs.output(&line)?.stderr;
        let said = String::from_utf8_lossy(&said);
        // It reads the units that ours names, too, and complains of them.
        match said.lines().find(|line| line.contains(name)) {
            Some(fault) => Err(format!("verify {name}: {}", fault.trim())),
            None => Ok(true),
        }
    }
}

fn remove(file: &Path) -> Result<(), String> {
    fs::remove_file(file)
        .map_err(|error| format!("remove {}: {}", file.display(), crate::sys::reason(&error)))
}
