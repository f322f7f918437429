//! The files that make a service: their text, with whatever paths there are, and how they are written.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Boot;
use super::platform::Platform;

impl Boot<'_> {
    /// The unit for systemd.
    pub fn unit(&self) -> String {
        let of_system = format!("User={}\nOOMScoreAdjust=-500", self.user.name);
        let (system, target) = match self.platform {
            // A user's manager may neither change who we are nor put us before others.
            Platform::User => (String::new(), "default.target"),
            _ => (of_system, "multi-user.target"),
        };
        let online = match self.wait_ip {
            true => "Wants=network-online.target\nAfter=network-online.target",
            false => "",
        };
        let exe = unit_word(&self.exe.display().to_string());
        let keep = match self.keep {
            true => format!("# A restart leaves the apps alone.\nExecStop={exe} daemon --keep"),
            false => String::new(),
        };
        let home = self.home.display();
        filled(
            include_str!("systemd.service"),
            &[
                ("SERVICE", &self.service),
                ("USER", &self.user.name),
                ("ONLINE", online),
                ("KEEP", &keep),
                ("SYSTEM", &system),
                ("PATH", &unit_word(&format!("PATH={}", self.path))),
                ("HOME", &unit_word(&format!("PMX_HOME={home}"))),
                ("EXE", &exe),
                ("TARGET", target),
            ],
        )
    }

    /// The script for `/etc/init.d`.
    pub fn sysv_script(&self) -> String {
        let quoted = |text: &str| shell_word(text);
        filled(
            include_str!("sysv.sh"),
            &[
                ("SERVICE", &self.service),
                ("USER", &quoted(&self.user.name)),
                ("HOME", &quoted(&self.home.display().to_string())),
                ("EXE", &quoted(&self.exe.display().to_string())),
                ("PATH", &quoted(&self.path)),
            ],
        )
    }

    /// The script for OpenRC.
    pub fn openrc_script(&self) -> String {
        let quoted = |text: &str| shell_word(text);
        let exe = self.exe.display().to_string();
        filled(
            include_str!("openrc.sh"),
            &[
                ("SERVICE", &self.service),
                ("USER", &quoted(&self.user.name)),
                ("HOME", &quoted(&self.home.display().to_string())),
                ("LOG", &quoted(&quoted(&self.home.join("pmx.log").display().to_string()))),
                ("EXE", &quoted(&quoted(&exe))),
                ("PMX", &quoted(&exe)),
                ("PATH", &quoted(&self.path)),
            ],
        )
    }
}

/// The template with each `@NAME@` replaced. What is put in is not looked at again.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        text.push_str(before);
        let value = values.iter().find_map(|(name, value)| {
            let after = after[1..].strip_prefix(name)?.strip_prefix('@')?;
            Some((value, after))
        });
        match value {
            Some((value, after)) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                text.push('@');
                rest = &after[1..];
            }
        }
    }
    text.push_str(rest);
    text
}

/// A word of a unit file: quoted, and nothing in it is an escape or a specifier.
fn unit_word(text: &str) -> String {
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '%' => word.push_str("%%"),
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

/// A word for a shell, quoted if it must be.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Writes a file as a whole or not at all.
pub fn write(file: &Path, text: &str, mode: u32) -> Result<(), String> {
    let failed = |error: io::Error| format!("write {}: {}", file.display(), crate::sys::reason(&error));
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let written = write_new(&draft, text, mode).and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map_err(failed)
}

/// As [`write`], after `check` of a draft of the same name; gives what that gave. A file that does not pass
/// is never in place.
pub fn write_checked(
    file: &Path,
    text: &str,
    check: impl FnOnce(&Path) -> Result<bool, String>,
) -> Result<bool, String> {
    let failed = |error: io::Error| format!("write {}: {}", file.display(), crate::sys::reason(&error));
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
    };
    fs::create_dir_all(directory).map_err(failed)?;
    // Beside its place, so that it can be moved there; hidden, so that nobody takes it for a unit.
    let drafts = directory.join(format!(".pmx-startup-{}", std::process::id()));
    DirBuilder::new().mode(0o755).create(&drafts).map_err(failed)?;
    let draft = drafts.join(name);
    let checked = write_new(&draft, text, 0o644).map_err(failed).and_then(|()| check(&draft));
    let placed = checked.and_then(|verified| {
        fs::rename(&draft, file).map_err(failed)?;
        Ok(verified)
    });
    let _ = fs::remove_dir_all(&drafts);
    placed
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        let text = filled("a @X@ b@c @Y@@X@ @", &[("X", "@Y@"), ("Y", "2")]);
        assert_eq!(text, "a @Y@ b@c 2@Y@ @");
    }

    #[test]
    fn words_mean_themselves() {
        assert_eq!(unit_word(r#"/a b/50%/"x"\y$Z"#), r#""/a b/50%%/\"x\"\\y$Z""#);
        for text in ["/plain/path", "", "a b", "it's", "$HOME `x` \"y\" \\z", "50%"] {
            let said = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", shell_word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
            // What a shell reads twice is quoted twice.
            let twice = format!("x={}; eval printf %s $x", shell_word(&shell_word(text)));
            let said = std::process::Command::new("/bin/sh").args(["-c", &twice]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_does_not_pass_is_never_in_place() {
        let directory = std::env::temp_dir().join(format!("pmx-units-{}", std::process::id()));
        let file = directory.join("deep/x.service");
        let seen = |draft: &Path| {
            assert_eq!(draft.file_name(), file.file_name());
            fs::read_to_string(draft).unwrap()
        };
        let fault = write_checked(&file, "bad", |draft| Err(seen(draft)));
        assert_eq!(fault, Err("bad".to_string()));
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 0);
        assert_eq!(write_checked(&file, "good", |draft| Ok(seen(draft) == "good")), Ok(true));
        assert_eq!(write_checked(&file, "worse", |_| Err(String::new())), Err(String::new()));
        assert_eq!(fs::read_to_string(&file).unwrap(), "good");
        write(&file, "script", 0o755).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
