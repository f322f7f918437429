//! Secrets: random bytes, and files that nobody but their owner can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::users;

/// The longest secret that is read.
const LIMIT: u64 = 4 << 10;

/// Bytes that nobody can guess.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // SAFETY: it writes at most so many bytes to a local array of that size.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match count {
        32 => Ok(bytes),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads a secret; one that others could have read or written, or that a link leads to, is none.
pub fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    let is_ours = found.uid() == users::effective_uid();
    if !found.is_file() || !is_ours || found.mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not private to us (mode 0600)"));
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a new secret, in a file that was not there before.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_secret_is_private_or_none() {
        let dir = std::env::temp_dir().join(format!("pmx-secret-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (path, link) = (dir.join("secret"), dir.join("link"));
        create(&path, "text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), "text");
        assert!(create(&path, "other").is_err(), "what is there stays");
        symlink(&path, &link).unwrap();
        assert!(read(&link).is_err());
        symlink(dir.join("elsewhere"), dir.join("planted")).unwrap();
        assert!(create(&dir.join("planted"), "text").is_err());
        assert!(!dir.join("elsewhere").exists(), "it is not written through a link");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
