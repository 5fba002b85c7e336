//! Removes what a pattern matches, and whole directories, without following a link.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::{entry_names, open_child_dir};
use super::{Pattern, Result, Root};

impl Root {
    /// Removes every file, link and whole directory that `pattern` matches (see [`Pattern`]), and returns the paths
    /// that were removed, sorted. A pattern that matches nothing is no error. The root itself stays.
    pub fn remove(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for path in Pattern::new(pattern)?.find(self)? {
            // What a match lay in may have gone with an earlier one.
            let Some((dir, name)) = self.existing_parent(&path)? else { continue };
            match remove_entry(&dir, &name) {
                Ok(()) => removed.push(path),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.error("remove", &path, error)),
            }
        }
        Ok(removed)
    }

    /// Removes every directory that holds nothing, or nothing but such directories; those in `keep`, by their path in the
    /// root, stay, and so does the root itself.
    pub fn remove_empty(&self, keep: &BTreeSet<PathBuf>) -> Result<()> {
        let at = Path::new("");
        let root = self.open_dir(at).map_err(|error| self.error("open", at, error))?;
        prune(root, at, keep).map(drop).map_err(|(path, error)| self.error("remove", &path, error))
    }

    /// Removes one path with all that it holds, taken literally; nothing if it doesn't exist.
    pub fn remove_path(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let Some((dir, name)) = self.existing_parent(path)? else { return Ok(()) };
        match remove_entry(&dir, &name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("remove", path, error)),
        }
    }
}

/// Removes `name` in `dir`: a file, a link (not what it leads to), or a directory with all that it holds.
pub fn remove_entry(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let child = match open_child_dir(dir, name) {
        // Not a directory after all, so the answer of unlinkat was about permission.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
        child => child?,
    };
    remove_children(&child)?;
    drop(child);
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Whether nothing is left in a directory after those that hold nothing have gone.
fn prune(dir: OwnedFd, at: &Path, keep: &BTreeSet<PathBuf>) -> std::result::Result<bool, (PathBuf, Errno)> {
    let failed = |error: Errno| (at.to_owned(), error);
    let mut empty = true;
    let listing = fs::openat(&dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    for name in listing.and_then(Dir::new).and_then(|mut listing| entry_names(&mut listing)).map_err(failed)? {
        let path = at.join(&name);
        let stat = fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| (path.clone(), error))?;
        let below = (FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            .then(|| open_child_dir(&dir, &name))
            .transpose()
            .map_err(|error| (path.clone(), error))?;
        match below {
            Some(below) => {
                if prune(below, &path, keep)? && !keep.contains(&path) {
                    fs::unlinkat(&dir, &name, AtFlags::REMOVEDIR).map_err(|error| (path, error))?;
                } else {
                    empty = false;
                }
            }
            None => empty = false,
        }
    }
    Ok(empty)
}

/// Removes all that an open directory holds and leaves the directory.
pub fn remove_children(dir: impl AsFd) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    let listing = fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in entry_names(&mut Dir::new(listing)?)? {
        match remove_entry(dir, &name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
