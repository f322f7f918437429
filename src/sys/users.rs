//! The user database, and who we are. Look-ups may block (NSS, LDAP): for the command line only.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

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

/// The file mode creation mask of this process.
pub fn umask() -> u32 {
    // There is no call that only reads it; nothing else runs in between in a single thread.
    let mask = nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    nix::sys::stat::umask(mask);
    mask.bits()
}

/// The user called `name`, or with this number.
pub fn user(name: &str) -> io::Result<Option<Entry>> {
    let mut found = User::from_name(name)?;
    if found.is_none()
        && let Ok(uid) = name.parse()
    {
        found = User::from_uid(Uid::from_raw(uid))?;
    }
    Ok(found.map(|user| Entry {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
    }))
}

/// The id of the group called `name`, or with this number.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let mut found = Group::from_name(name)?;
    if found.is_none()
        && let Ok(gid) = name.parse()
    {
        found = Group::from_gid(Gid::from_raw(gid))?;
    }
    Ok(found.map(|group| group.gid.as_raw()))
}

/// All groups of a user, its primary one included.
pub fn groups(user: &str, gid: u32) -> io::Result<Vec<u32>> {
    let user = CString::new(user)?;
    Ok(getgrouplist(&user, Gid::from_raw(gid))?.into_iter().map(Gid::as_raw).collect())
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
