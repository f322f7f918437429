//! Replaces a file so that whoever looks, and whenever the machine stops, finds the old content or the new
//! one under its name. The old files are kept beside it as `.bak`, `.bak2`, … One writer at a time: the
//! caller holds a lock.
//!
//! ```text
//!   write <name>.new, fsync it       what follows has its content on the disk
//!   link <name> to <name>.bak.new    the old content has a second name
//!   rename <name>.new to <name>      from here on it is the new one
//!   rename .bak2 to .bak3, .bak to .bak2, .bak.new to .bak
//!   fsync the directory
//! ```
//! Until the first rename a failure leaves every old file as it was.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How many old files are kept.
pub const KEPT: usize = 3;

/// What was attempted on which file when it failed.
#[derive(Debug)]
pub struct Failed {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.what, self.path.display(), super::reason(&self.error))
    }
}

impl std::error::Error for Failed {}

/// The name of a file so many generations ago; 0 is the file itself.
pub fn generation(path: &Path, ago: usize) -> PathBuf {
    match ago {
        0 => path.to_path_buf(),
        1 => with(path, ".bak"),
        _ => with(path, &format!(".bak{ago}")),
    }
}

/// Replaces the content of `path`, which becomes readable to its owner alone.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failed> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory_file = File::open(directory).map_err(failed("open", directory))?;
    finish_before(path)?;
    let new = with(path, ".new");
    let second_name = with(path, ".bak.new");
    let written = write_new(&new, content).and_then(|()| give_second_name(path, &second_name));
    let placed = written.and_then(|()| fs::rename(&new, path).map_err(failed("replace", path)));
    if let Err(error) = placed {
        let _ = fs::remove_file(&new);
        let _ = fs::remove_file(&second_name);
        return Err(error);
    }
    shift(path)?;
    // Not tried again when it fails: the kernel forgets what it could not write, and would say yes.
    directory_file.sync_all().map_err(failed("make the new names last in", directory))
}

/// What a writer before us did not get to. Its new file is of unknown content; the second name of an old
/// one is a generation like others, unless the file itself is still that old one.
fn finish_before(path: &Path) -> Result<(), Failed> {
    remove(&with(path, ".new"))?;
    let second_name = with(path, ".bak.new");
    let identity = |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    match (identity(&second_name), identity(path)) {
        (Err(_), _) => Ok(()),
        (Ok(second), Ok(first)) if first == second => remove(&second_name),
        (Ok(_), _) => shift(path),
    }
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Failed> {
    // As it is created by us alone, it is no link that leads elsewhere.
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
    let mut file = options.open(path).map_err(failed("create", path))?;
    // Whatever the umask took away.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("make private", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("write", path))
}

/// The file that is about to be replaced stays under a second name, if there is one.
fn give_second_name(path: &Path, second_name: &Path) -> Result<(), Failed> {
    match fs::hard_link(path, second_name) {
        Ok(()) => {
            // It may be one that pm2 wrote, for everybody to read.
            let _ = fs::set_permissions(second_name, Permissions::from_mode(0o600));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A file system without links.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK)) => {
            let old = fs::read(path).map_err(failed("read", path))?;
            write_new(second_name, &old)
        }
        Err(error) => Err(failed("keep", path)(error)),
    }
}

/// Every generation becomes one older, and the second name the youngest of them; the oldest goes.
fn shift(path: &Path) -> Result<(), Failed> {
    let second_name = with(path, ".bak.new");
    if fs::symlink_metadata(&second_name).is_err() {
        return Ok(());
    }
    let mut to = generation(path, KEPT);
    for ago in (1..KEPT).rev() {
        let from = generation(path, ago);
        rename_if_there(&from, &to)?;
        to = from;
    }
    rename_if_there(&second_name, &to)
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), Failed> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("rename", from)(error)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), Failed> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Failed + 'a {
    move |error| Failed { what, path: path.to_path_buf(), error }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("pmx-atomic-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Place(path)
        }

        fn list(&self) -> Vec<(String, String)> {
            let mut found: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    let content = fs::read_to_string(entry.path()).unwrap_or_default();
                    (entry.file_name().into_string().unwrap(), content)
                })
                .collect();
            found.sort();
            found
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn listed(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect()
    }

    #[test]
    fn generations_grow_older_and_the_oldest_goes() {
        let place = Place::new("generations");
        let path = place.0.join("f");
        for content in ["1", "2", "3", "4", "5"] {
            replace(&path, content.as_bytes()).unwrap();
        }
        assert_eq!(place.list(), listed(&[("f", "5"), ("f.bak", "4"), ("f.bak2", "3"), ("f.bak3", "2")]));
        for ago in 0..=KEPT {
            let mode = fs::metadata(generation(&path, ago)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_a_writer_left_behind_is_finished_or_removed() {
        for (names, expected) in [
            // It ended while it wrote.
            (&["f=2", "f.bak=1", "f.new=half"][..], &[("f", "x"), ("f.bak", "2"), ("f.bak2", "1")][..]),
            // It had given the old file a second name.
            (&["f=2", "f.bak.new->f", "f.bak=1"], &[("f", "x"), ("f.bak", "2"), ("f.bak2", "1")]),
            // It had replaced the file, and not shifted the old ones.
            (
                &["f=3", "f.bak.new=2", "f.bak=1"],
                &[("f", "x"), ("f.bak", "3"), ("f.bak2", "2"), ("f.bak3", "1")],
            ),
            (
                &["f=3", "f.bak.new=2", "f.bak2=1"],
                &[("f", "x"), ("f.bak", "3"), ("f.bak2", "2"), ("f.bak3", "1")],
            ),
            // There is no old file.
            (&[], &[("f", "x")]),
            (&["f.bak=1"], &[("f", "x"), ("f.bak", "1")]),
        ] {
            let place = Place::new("left");
            for name in names {
                match name.split_once("->") {
                    Some((link, to)) => fs::hard_link(place.0.join(to), place.0.join(link)).unwrap(),
                    None => {
                        let (name, content) = name.split_once('=').unwrap();
                        fs::write(place.0.join(name), content).unwrap();
                    }
                }
            }
            replace(&place.0.join("f"), b"x").unwrap();
            assert_eq!(place.list(), listed(expected), "{names:?}");
        }
    }

    #[test]
    fn a_failure_is_a_sentence_and_leaves_everything_as_it_was() {
        let place = Place::new("failure");
        let path = place.0.join("f");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"x").unwrap_err().to_string();
        assert!(error.contains(&format!("{}", path.display())), "{error}");
        assert_eq!(place.list(), listed(&[("f", "")]));
        let missing = place.0.join("no/f");
        let error = replace(&missing, b"x").unwrap_err().to_string();
        assert_eq!(error, format!("open {}: no such file or directory", missing.parent().unwrap().display()));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let place = Place::new("link");
        fs::write(place.0.join("victim"), "old").unwrap();
        std::os::unix::fs::symlink("victim", place.0.join("f.new")).unwrap();
        replace(&place.0.join("f"), b"x").unwrap();
        assert_eq!(place.list(), listed(&[("f", "x"), ("victim", "old")]));
    }
}
