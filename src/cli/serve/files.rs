//! Files below a folder, and never one outside of it, whatever its links say: the kernel resolves the path.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// What is at a path.
#[derive(Debug)]
pub enum Found {
    /// A file, and its length among others.
    File(File, Metadata),
    /// A folder.
    Folder,
    /// It leads out of the root, or we may not read it.
    Forbidden,
    /// Nothing, or nothing that has bytes.
    Nothing,
}

/// Looks below `root`, which is looked up each time: it may be a link that a deployment changes.
pub fn find(root: &Path, path: &Path) -> Found {
    let file = match open(root, path) {
        Ok(file) => file,
        Err(error) => return refused(&error),
    };
    match file.metadata() {
        Ok(found) if found.is_file() => Found::File(file, found),
        Ok(found) if found.is_dir() => Found::Folder,
        _ => Found::Nothing,
    }
}

fn refused(error: &io::Error) -> Found {
    match error.raw_os_error() {
        Some(libc::EXDEV | libc::ELOOP | libc::EACCES | libc::EPERM) => Found::Forbidden,
        _ => Found::Nothing,
    }
}

fn open(root: &Path, path: &Path) -> io::Result<File> {
    // A FIFO that nobody writes would block us.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let folder = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root)?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&folder, path, how) {
        // Linux 5.5 and older, or a sandbox that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let (root, whole) = (fs::canonicalize(root)?, fs::canonicalize(root.join(path))?);
            if !whole.starts_with(root) {
                return Err(ErrorKind::PermissionDenied.into());
            }
            File::options().read(true).custom_flags(flags.bits() | libc::O_NOFOLLOW).open(whole)
        }
        opened => Ok(File::from(opened?)),
    }
}

/// By the ending of its name; pm2 says text/plain of others.
pub fn media_type(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "csv" => "text/csv; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}
