//! Records of what was published: how a file looked when it was put there, and files that such records are kept in.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Stat, StatxFlags, flock, statx};
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// What stat(2) says of a file that any change to it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Modification time: seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Change time, which no program can set back.
    pub(super) ctime: (i64, u32),
}

impl From<&Stat> for Stamp {
    // The widths of these fields differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }
}

/// Which file or directory it is, whatever happens to its content. An inode's number alone is soon given to
/// another file, so the time of birth belongs to it, where the file system has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Identity {
    /// The identity of `path` in `dir`, a link not followed; of `dir` itself if `path` is empty.
    pub(super) fn of(dir: impl AsFd, path: &Path) -> rustix::io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let found = statx(dir, path, flags, StatxFlags::INO | StatxFlags::BTIME)?;
        let born = if found.stx_mask & StatxFlags::BTIME.bits() != 0 {
            (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)
        } else {
            (0, 0)
        };
        Ok(Self { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino, born })
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    PathBuf::from(name)
}

/// Waits until no other process publishes with the record at `path`; ends when the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File> {
    let lock = beside(path, ".lock");
    if let Some(above) = lock.parent() {
        std::fs::create_dir_all(above).map_err(|error| Error::io("make the directory", above, error))?;
    }
    loop {
        let file = File::create(&lock).map_err(|error| Error::io("make the lock", &lock, error))?;
        while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
            if error != rustix::io::Errno::INTR {
                return Err(Error::io("lock", &lock, error));
            }
        }
        // Who had it may have removed the file: then another process can have a new one.
        let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        if file.metadata().map(identity).ok() == lock.symlink_metadata().map(identity).ok() {
            return Ok(file);
        }
    }
}

/// Removes the record at `path`, and its lock.
pub(super) fn forget(path: &Path) -> Result<()> {
    if !path.exists() && !beside(path, ".lock").exists() {
        return Ok(());
    }
    let _lock = lock(path)?;
    for file in [path.to_owned(), beside(path, ".new"), beside(path, ".lock")] {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove the record", file, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of a record; `None` if there is none that can be read.
pub(super) fn load(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

/// Replaces a record in one step.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = beside(path, ".new");
    let write = || -> std::io::Result<()> {
        File::create(&new)?.write_all(bytes)?;
        std::fs::rename(&new, path)
    };
    write().map_err(|error| Error::io("write the record", path, error))
}
