//! The files of one daemon: everything below its home, private to its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::notify::Reach;
use crate::app::{App, Combined, Instances};
use crate::node;
use crate::sys::datagram::LONGEST_PATH;
use crate::sys::{family, pipe, proc};
use crate::time::Wall;

/// Where the daemon lives.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
    /// Tells what is kept elsewhere for it from what is for other homes: the numbers of its device and inode.
    identity: String,
    /// The file that Node processes preload; `None` when it could not be written.
    preload: Option<PathBuf>,
    /// The same, and a place for claims, for children that run as somebody else and cannot look into the
    /// home. Made when the first such child is started.
    public: OnceLock<Option<Public>>,
}

/// What every user may read.
#[derive(Clone, Debug)]
struct Public {
    preload: PathBuf,
    claims: PathBuf,
    sockets: PathBuf,
}

/// The memory of [`Home::keep_memory`].
const BOARD: &str = "board";
const LINES: &str = "lines";
/// Where a root daemon keeps what every user may read.
const PUBLIC: &str = "/run/pmx";

/// A stream of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// fd 1
    Stdout,
    /// fd 2
    Stderr,
}

impl Home {
    /// The home at `path`, made private.
    pub fn prepare(path: PathBuf) -> Result<Home, String> {
        Home::with(path, &["", "logs", "run"])
    }

    /// A home without log files.
    pub fn bare(path: PathBuf) -> Result<Home, String> {
        Home::with(path, &["", "run"])
    }

    /// Where nothing can be written: no control socket, and Node apps run unclustered.
    pub fn nowhere() -> Home {
        Home { path: PathBuf::new(), identity: "0".to_string(), preload: None, public: OnceLock::new() }
    }

    /// Whether there is a directory.
    pub fn is_nowhere(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// Removes what tells of a daemon.
    pub fn leave(&self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.pid_file());
    }

    fn with(path: PathBuf, directories: &[&str]) -> Result<Home, String> {
        let failed = |what: &str, path: &Path, error: io::Error| {
            format!("{what} {}: {}", path.display(), crate::sys::reason(&error))
        };
        let mut directory = fs::DirBuilder::new();
        directory.recursive(true).mode(0o700);
        for path in directories.iter().map(|name| path.join(name)) {
            directory.create(&path).map_err(|error| failed("create", &path, error))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                .map_err(|error| failed("make private", &path, error))?;
        }
        // What a daemon before us left behind.
        if let Ok(left) = fs::read_dir(path.join("run")) {
            for file in left.flatten() {
                let _ = fs::remove_file(file.path());
            }
        }
        let home = Home::resume(path)?;
        if let Ok(left) = fs::read_dir(Path::new(PUBLIC).join("claims")) {
            let ours = format!("{}-", home.identity);
            for file in left.flatten().filter(|f| f.file_name().to_string_lossy().starts_with(&ours)) {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(home)
    }

    /// The home that a daemon before us had prepared.
    pub fn resume(path: PathBuf) -> Result<Home, String> {
        let found = match fs::metadata(&path) {
            Ok(found) => (found.dev(), found.ino()),
            // Somebody removed it: what runs goes on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, 0),
            // Nothing that is kept elsewhere would be found by another identity.
            Err(error) => return Err(format!("look at {}: {}", path.display(), crate::sys::reason(&error))),
        };
        let identity = format!("{:x}.{:x}", found.0, found.1);
        let preload = path.join("run/pmx-preload.cjs");
        let preload = match replace(&preload, node::PRELOAD.as_bytes()) {
            Ok(()) => Some(preload),
            Err(_) if preload.exists() => Some(preload),
            Err(error) => {
                let reason = crate::sys::reason(&error);
                log::error!("write {}: {reason}; Node apps run unclustered", preload.display());
                None
            }
        };
        Ok(Home { path, identity, preload, public: OnceLock::new() })
    }

    /// Where the journal lives, which holds the environments of apps: in memory, and no longer than this boot.
    /// `None`: there is no such place, or somebody else was there first. An error: that cannot be told.
    pub fn state(&self) -> Result<Option<PathBuf>, String> {
        let us = nix::unistd::geteuid().as_raw();
        let path = Path::new(pipe::MEMORY).join(format!("pmx-{us}-{}", self.identity));
        // What counts is whether it is there.
        let _ = fs::DirBuilder::new().mode(0o700).create(&path);
        match fs::symlink_metadata(&path) {
            Ok(found) => {
                let is_ours = found.is_dir() && found.uid() == us && found.mode() & 0o777 == 0o700;
                Ok(is_ours.then_some(path))
            }
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)) =>
            {
                Ok(None)
            }
            Err(error) => Err(format!("look at {}: {}", path.display(), crate::sys::reason(&error))),
        }
    }

    /// Gives what outlives a daemon a name there, so that it outlives its keeper, too.
    pub fn keep_memory(&self, board: BorrowedFd, lines: Option<BorrowedFd>) {
        let Ok(Some(state)) = self.state() else { return };
        for (file, name) in [(Some(board), BOARD), (lines, LINES)] {
            if let Some(file) = file
                && let Err(error) = pipe::name(file, &state.join(name))
            {
                // A kernel or a machine without such files; what is written down is found again nevertheless.
                log::debug!("name {name}: {}", crate::sys::reason(&error));
            }
        }
    }

    /// What a daemon had so, that was killed together with its keeper: its board, and the beginnings of lines.
    pub fn memory_left(&self) -> [Option<File>; 2] {
        let state = self.state().ok().flatten();
        [BOARD, LINES].map(|name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
            options.open(state.as_ref()?.join(name)).ok()
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// By which the processes of a child are known; no other child has the same.
    pub fn mark(&self, child: u64, at: Wall) -> String {
        format!("{}-{child}-{:x}", self.identity, at.0)
    }

    /// What our directory is called among the control groups: as no other one's, and the same for the next daemon.
    pub fn group(&self) -> String {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let us = nix::unistd::geteuid();
        if self.is_nowhere() {
            let keeper = family::parent();
            let since = proc::stat(keeper).map_or(0, |stat| stat.start_ticks);
            return format!("pmx-{us}-{keeper}-{since:x}");
        }
        let path = BuildHasherDefault::<DefaultHasher>::default().hash_one(&self.path) as u32;
        format!("pmx-{us}-{}-{path:x}", self.identity)
    }

    /// What the Node processes of an app preload.
    pub fn preload(&self, app: &App) -> Option<&Path> {
        match &app.user {
            None => self.preload.as_deref(),
            Some(_) => self.public().map(|public| public.preload.as_path()),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("pmx.sock")
    }

    /// Tells the daemon's pid to people and tools, and decides nothing.
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("pmx.pid")
    }

    /// The daemon's own log.
    pub fn log(&self) -> PathBuf {
        self.path.join("pmx.log")
    }

    /// Whoever creates this file owns the channel of the child.
    pub fn claim(&self, app: &App, child: u64) -> PathBuf {
        match app.user.as_ref().and_then(|_| self.public()) {
            Some(public) => public.claims.join(format!("{}-{child}", self.identity)),
            None => self.path.join(format!("run/claim-{child}")),
        }
    }

    /// Where children tell how they are.
    pub fn notify_socket(&self, reach: Reach) -> io::Result<PathBuf> {
        let fits = |path: &PathBuf| path.as_os_str().len() <= LONGEST_PATH;
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        match reach {
            Reach::Own => {
                let path = Some(self.path.join("run/notify")).filter(fits);
                path.or_else(|| Some(self.state().ok()??.join("notify"))).ok_or_else(absent)
            }
            Reach::All => {
                let public = self.public().ok_or_else(absent)?;
                Ok(public.sockets.join(format!("notify-{}", self.identity)))
            }
        }
    }

    fn public(&self) -> Option<&Public> {
        let prepare = || {
            let made = Public::prepare(Path::new(PUBLIC));
            made.inspect_err(|error| {
                log::warn!("prepare {PUBLIC}: {error}; Node apps of other users run unclustered");
            })
            .ok()
        };
        self.public.get_or_init(prepare).as_ref()
    }

    /// Writes the pid file.
    pub fn write_pid(&self, pid: u32) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.pid_file())?;
        writeln!(file, "{pid}")
    }

    /// Where a stream of one process goes.
    pub fn log_file(&self, app: &App, id: u32, stream: Stream) -> PathBuf {
        if app.logs.disabled {
            return PathBuf::from("/dev/null");
        }
        let (declared, word) = match stream {
            Stream::Stdout => (&app.out_file, "out"),
            Stream::Stderr => (&app.error_file, "error"),
        };
        let Some(declared) = declared else {
            return self.usual_log(app, id, &format!("-{word}"));
        };
        numbered(app, id, app.cwd.path().join(declared.path()))
    }

    /// Where both streams of one process go, beside that.
    pub fn combined_file(&self, app: &App, id: u32) -> Option<PathBuf> {
        match &app.logs.combined {
            _ if app.logs.disabled => None,
            Combined::None => None,
            Combined::Usual => Some(self.usual_log(app, id, "")),
            Combined::File(path) => Some(numbered(app, id, app.cwd.path().join(path.path()))),
        }
    }

    /// All log files of one process.
    pub fn log_files(&self, app: &App, id: u32) -> impl Iterator<Item = PathBuf> {
        let streams = [Stream::Stdout, Stream::Stderr].map(|stream| self.log_file(app, id, stream));
        streams.into_iter().chain(self.combined_file(app, id))
    }

    /// `kind` comes between the name and the id.
    fn usual_log(&self, app: &App, id: u32, kind: &str) -> PathBuf {
        let name = file_name(&app.name);
        let file =
            if app.merge_logs { format!("{name}{kind}.log") } else { format!("{name}{kind}-{id}.log") };
        self.path.join("logs").join(file)
    }
}

/// A declared path; as pm2 does, the id goes before the extension, so that instances do not share a file.
fn numbered(app: &App, id: u32, path: PathBuf) -> PathBuf {
    let special = path.as_os_str() == "/dev/null" || path.file_name().is_some_and(|n| n == "NULL");
    if app.merge_logs || app.instances == Instances::Count(1) || special {
        return path;
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{id}{extension}"))
}

impl Public {
    fn prepare(path: &Path) -> io::Result<Public> {
        let (claims, sockets) = (path.join("claims"), path.join("sockets"));
        fs::create_dir_all(&claims)?;
        fs::create_dir_all(&sockets)?;
        for (path, mode) in [(path, 0o755), (claims.as_path(), 0o1733), (sockets.as_path(), 0o711)] {
            let found = fs::symlink_metadata(path)?;
            if !found.is_dir() || found.uid() != 0 {
                return Err(io::Error::other(format!("{} is not a directory of root", path.display())));
            }
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        // Renamed into place: a Node process of another daemon may be reading it.
        let preload = path.join(concat!("pmx-preload-", env!("CARGO_PKG_VERSION"), ".cjs"));
        let fresh = path.join(format!("new-{}", std::process::id()));
        fs::write(&fresh, node::PRELOAD)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644))?;
        fs::rename(&fresh, &preload)?;
        Ok(Public { preload, claims, sockets })
    }
}

/// Writes a file, by another name first: somebody may be reading the old one. One that says the same is left.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, content)?;
    fs::rename(&fresh, path)
}

/// A name as a part of a file name; pm2's rule.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Text;

    #[test]
    fn log_files_are_named_after_the_process_and_cannot_leave_the_home() {
        let home = Home {
            path: PathBuf::from("/h"),
            identity: String::new(),
            preload: None,
            public: OnceLock::new(),
        };
        let mut app = App { name: "../a b".into(), cwd: Text::from("/srv"), ..App::default() };
        let path = |app: &App| home.log_file(app, 7, Stream::Stderr).display().to_string();
        assert_eq!(path(&app), "/h/logs/..-a-b-error-7.log");
        app.merge_logs = true;
        assert_eq!(path(&app), "/h/logs/..-a-b-error.log");
        app.error_file = Some(Text::from("log/err.log"));
        assert_eq!(path(&app), "/srv/log/err.log");
        app.merge_logs = false;
        app.instances = Instances::Count(2);
        assert_eq!(path(&app), "/srv/log/err-7.log");
        app.error_file = Some(Text::from("/dev/null"));
        assert_eq!(path(&app), "/dev/null");
        let both = |app: &App| home.combined_file(app, 7).map(|path| path.display().to_string());
        assert_eq!(both(&app), None);
        app.logs.combined = Combined::Usual;
        assert_eq!(both(&app).unwrap(), "/h/logs/..-a-b-7.log");
        app.logs.combined = Combined::File(Text::from("all.txt"));
        assert_eq!(both(&app).unwrap(), "/srv/all-7.txt");
        app.merge_logs = true;
        assert_eq!(both(&app).unwrap(), "/srv/all.txt");
        app.logs.disabled = true;
        assert_eq!((both(&app), path(&app)), (None, "/dev/null".to_string()));
    }
}
