//! The user database, and who we are. Look-ups may block (NSS, LDAP): for the command line only.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A user's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}

/// Makes this process the leader of a new session, away from the terminal it came from.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Has a command lead a session of its own when it is run, away from our terminal.
pub fn lead_session(command: &mut Command) {
    let lead = || nix::unistd::setsid().map(|_| ()).map_err(io::Error::from);
    // SAFETY: what runs between fork and exec is one system call, and it allocates nothing.
    unsafe { command.pre_exec(lead) };
}

/// The file mode creation mask of this process.
pub fn umask() -> u32 {
    // There is no call that only reads it; nothing else runs in between in a single thread.
    let mask = nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    nix::sys::stat::umask(mask);
    mask.bits()
}

/// Whether libc is linked statically: then its own look-ups would load the modules of a libc that may be
/// another one, or not be there, and only the files are asked.
const IS_STATIC: bool = cfg!(target_feature = "crt-static");

/// The user called `name`, or with this number.
pub fn user(name: &str) -> io::Result<Option<Entry>> {
    let uid = name.parse().ok();
    if IS_STATIC {
        let text = files::read(files::PASSWD)?;
        return Ok(files::user(&text, name, uid));
    }
    let mut found = User::from_name(name)?;
    if let (None, Some(uid)) = (&found, uid) {
        found = User::from_uid(Uid::from_raw(uid))?;
    }
    Ok(found.map(|user| Entry {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
    }))
}

/// What people call the user with this number: its login name, or the number.
pub fn name_of(uid: u32) -> String {
    let number = uid.to_string();
    let found = if IS_STATIC {
        let text = files::read(files::PASSWD).unwrap_or_default();
        files::user(&text, "", Some(uid)).map(|entry| entry.name)
    } else {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
    };
    found.unwrap_or(number)
}

/// The id of the group called `name`, or with this number.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let gid = name.parse().ok();
    if IS_STATIC {
        let text = files::read(files::GROUP)?;
        return Ok(files::group(&text, name, gid));
    }
    let mut found = Group::from_name(name)?;
    if let (None, Some(gid)) = (&found, gid) {
        found = Group::from_gid(Gid::from_raw(gid))?;
    }
    Ok(found.map(|group| group.gid.as_raw()))
}

/// All groups of a user, its primary one included.
pub fn groups(user: &str, gid: u32) -> io::Result<Vec<u32>> {
    if IS_STATIC {
        let text = files::read(files::GROUP)?;
        return Ok(files::groups(&text, user, gid));
    }
    let user = CString::new(user)?;
    Ok(getgrouplist(&user, Gid::from_raw(gid))?.into_iter().map(Gid::as_raw).collect())
}

/// The user database as files: `name:password:uid:gid:comment:home:shell`, `name:password:gid:members`.
mod files {
    use std::io;
    use std::path::PathBuf;

    use super::Entry;

    pub(super) const PASSWD: &str = "/etc/passwd";
    pub(super) const GROUP: &str = "/etc/group";

    /// An empty root has none, and nobody in it a name.
    pub(super) fn read(path: &str) -> io::Result<String> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => Ok(String::from_utf8_lossy(&read?).into_owned()),
        }
    }

    fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
    }

    pub(super) fn user(text: &str, name: &str, uid: Option<u32>) -> Option<Entry> {
        let entries = lines(text).filter_map(|fields| {
            let &[name, _, uid, gid, _, home, ..] = &fields[..] else { return None };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            Some(Entry { name: name.to_string(), uid, gid, home: PathBuf::from(home) })
        });
        let entries: Vec<Entry> = entries.collect();
        let by_name = entries.iter().find(|entry| entry.name == name);
        by_name.or_else(|| entries.iter().find(|entry| Some(entry.uid) == uid)).cloned()
    }

    pub(super) fn group(text: &str, name: &str, gid: Option<u32>) -> Option<u32> {
        let entries =
            || lines(text).filter_map(|fields| Some((*fields.first()?, fields.get(2)?.parse().ok()?)));
        let by_name = entries().find(|(known, _)| *known == name);
        by_name.or_else(|| entries().find(|(_, known)| Some(*known) == gid)).map(|(_, gid)| gid)
    }

    pub(super) fn groups(text: &str, user: &str, gid: u32) -> Vec<u32> {
        let mut groups = vec![gid];
        for fields in lines(text) {
            let &[_, _, id, members, ..] = &fields[..] else { continue };
            if let Ok(id) = id.parse()
                && id != gid
                && members.split(',').any(|member| member == user)
            {
                groups.push(id);
            }
        }
        groups
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_files_say_what_libc_says_and_no_line_is_too_odd() {
            let passwd = read(PASSWD).unwrap();
            for name in ["root", "nobody", "daemon", "0", "no such user"] {
                assert_eq!(
                    user(&passwd, name, name.parse().ok()),
                    super::super::user(name).unwrap(),
                    "{name}"
                );
            }
            let group_text = read(GROUP).unwrap();
            for name in ["root", "nogroup", "0", "no such group"] {
                let expected = super::super::group(name).unwrap();
                assert_eq!(group(&group_text, name, name.parse().ok()), expected, "{name}");
            }
            let odd = "#x:x:1:1\n\n:::::::\na:x:1\na:x:one:2::/:\n\u{fffd}\nb:x:7:8:c:/home/b:/bin/sh\n";
            let b = Entry { name: "b".into(), uid: 7, gid: 8, home: "/home/b".into() };
            assert_eq!(user(odd, "b", None), Some(b.clone()));
            assert_eq!(user(odd, "7", Some(7)), Some(b));
            assert_eq!(user(odd, "a", None), None);
            let odd = "g:x:5:a,b\nh:x:6:ab\n::\ni:x:8:b\n";
            assert_eq!(groups(odd, "b", 8), [8, 5]);
            assert_eq!(read("/no/such/file").unwrap(), "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number() {
        let root = user("root").unwrap().expect("there is a root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user("0").unwrap().as_ref(), Some(&root));
        assert_eq!(group("root").unwrap(), Some(0));
        assert!(groups("root", 0).unwrap().contains(&0));
        assert_eq!(user("no such user").unwrap(), None);
        assert_eq!(group("no such group").unwrap(), None);
    }

    #[test]
    fn reading_the_mask_leaves_it_as_it_is() {
        assert_eq!(umask(), umask());
    }
}
