//! Directories for work under way, and the removal of trees of any shape.
//!
//! A work directory is locked by the process that made it; one whose lock can be taken was left by a dead process.

use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, IFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::error::Context;
use super::root::Gate;
use super::{Entry, MergedTree, Meta, Store, StoreError, walk};

/// What the names of directories start with that were kept on a user's wish.
const KEPT: &str = "kept.";

/// How long these stay.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A directory of this run's own, removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path within.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps the directory for a week, for somebody who wants to look at what failed. Its new path is the answer.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub fn keep(self) -> Result<PathBuf, StoreError> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kept = self.path.with_file_name(format!("{KEPT}{name}"));
        fs::rename(&self.path, &kept).context("rename", &self.path)?;
        Ok(kept)
    }

    /// Makes the pair of directories that an overlay mount takes, `upper` and `work`. In an overlay the upper
    /// directory's owner and mode are those of the tree's root, so they are taken from the `lower` tree; mode 0755
    /// without one.
    ///
    /// # Errors
    /// When the directories can't be made.
    pub fn overlay(&self, lower: Option<&MergedTree>) -> Result<(PathBuf, PathBuf), StoreError> {
        let (upper, work) = (self.join("upper"), self.join("work"));
        for path in [&upper, &work] {
            fs::create_dir(path).context("make", path)?;
            fs::set_permissions(path, Permissions::from_mode(0o755)).context("set the mode of", path)?;
        }
        if let Some(root) = lower.and_then(|tree| tree.lookup(b"")) {
            apply_meta(&upper, &root.entry)?;
        }
        Ok((upper, work))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What can't be removed now is tried again when the store is opened next.
        let _ = remove_tree(&self.path);
    }
}

impl Store {
    /// Makes a fresh directory under `tmp/` on the store's own file system, with `label` in its name for people.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn work_dir(&self, label: &str) -> Result<WorkDir, StoreError> {
        self.new_work_dir(label).map_err(|error| error.in_store(&self.dir))
    }

    fn new_work_dir(&self, label: &str) -> Result<WorkDir, StoreError> {
        let tmp = self.dir.join("tmp");
        let label: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        // With the gate held, so that nobody takes the new directory for a stale one before it is locked.
        let _gate = self.gate()?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{label}."))
            .rand_bytes(8)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&tmp)
            .context("make a directory in", &tmp)?;
        let path = dir.path().to_owned();
        let lock = File::open(&path).context("open", &path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock", &path)?;
        Ok(WorkDir { path: dir.keep(), _lock: lock })
    }

    /// Moves an object out of sight, to be removed when the returned directory is dropped. With the gate held alone.
    pub(super) fn move_away(&self, path: &Path) -> Result<WorkDir, StoreError> {
        let tmp = self.dir.join("tmp");
        let dir = tempfile::Builder::new().prefix("gone.").tempdir_in(&tmp).context("make a directory in", &tmp)?;
        let lock = File::open(dir.path()).context("open", dir.path())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock", dir.path())?;
        let work = WorkDir { path: dir.keep(), _lock: lock };
        fs::rename(path, work.join("object")).context("move away", path)?;
        Ok(work)
    }
}

/// Removes the work of dead processes. If somebody is at the gate just now, the next run does it.
pub(super) fn remove_stale(store: &Store) -> Result<(), StoreError> {
    let tmp = store.dir.join("tmp");
    let mut stale = Vec::new();
    {
        let Some(_gate) = Gate::try_alone(&store.dir)? else { return Ok(()) };
        for entry in fs::read_dir(&tmp).context("read", &tmp)? {
            let entry = entry.context("read", &tmp)?;
            let path = entry.path();
            let kept = entry.file_name().to_string_lossy().starts_with(KEPT);
            let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
            if kept && age.is_none_or(|age| age < KEPT_FOR) {
                continue;
            }
            let Ok(lock) = File::open(&path) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                stale.push((path, lock));
            }
        }
    }
    for (path, _lock) in stale {
        let _ = remove_tree(&path);
    }
    Ok(())
}

/// Removes a tree whatever its modes are. Nothing is removed while something is mounted in it: a bind mount would lead
/// to files that are not the tree's.
///
/// # Errors
/// The mount that is in the way, or the first thing that could not be removed; everything else is gone by then.
pub fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("remove", path, error)),
    };
    if !meta.is_dir() {
        return unlink(path, false);
    }
    if let Some(mount) = mount_below(path) {
        return Err(StoreError::io("remove what is mounted at", &mount, rustix::io::Errno::BUSY));
    }
    // The usual case, by the standard library with open directories.
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    let mut first = None;
    let mut pending = vec![path.to_owned()];
    let mut order = Vec::new();
    while let Some(dir) = pending.pop() {
        make_removable(&dir);
        if let Ok(entries) = fs::read_dir(&dir) {
            for entry in entries.flatten() {
                let path = entry.path();
                match entry.metadata() {
                    Ok(inner) if inner.is_dir() => pending.push(path),
                    _ => first = first.or(unlink(&path, false).err()),
                }
            }
        }
        order.push(dir);
    }
    for dir in order.iter().rev() {
        first = first.or(unlink(dir, true).err());
    }
    first.map_or(Ok(()), Err)
}

/// A mount point at or below `path` in this thread's mount namespace (proc_pid_mountinfo(5)). Without `/proc` none is
/// known of; the store itself mounts nothing.
fn mount_below(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let table = fs::read("/proc/thread-self/mountinfo").ok()?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescape).find(|point| point.starts_with(&real))
}

/// In that table a blank, tab, newline or backslash is a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn unlink(path: &Path, directory: bool) -> Result<(), StoreError> {
    let remove = || if directory { fs::remove_dir(path) } else { fs::remove_file(path) };
    let result = remove().or_else(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            clear_flags(path);
            return remove();
        }
        Err(error)
    });
    result.context("remove", path)
}

/// Lets us list and empty a directory of any mode.
fn make_removable(dir: &Path) {
    clear_flags(dir);
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
}

/// Takes off the immutable and append-only flags of a file or directory (never of a device, which opening may start).
fn clear_flags(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() || meta.is_file()) {
        return;
    }
    let Ok(file) = File::open(path) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
        let hard = IFlags::IMMUTABLE | IFlags::APPEND;
        if flags.intersects(hard) {
            let _ = rustix::fs::ioctl_setflags(&file, flags - hard);
        }
    }
}

/// Marks a file as used just now. Failing is no matter: it is then cleaned up a little early.
pub(super) fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let _ = rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
}

/// Sets the modification time of `path` itself, also of a symbolic link.
pub(super) fn set_mtime(path: &Path, seconds: i64) -> Result<(), StoreError> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .context("set the modification time of", path)
}

/// Gives `path` the owner, mode and attributes of `entry`. The owner first: a change of owner takes set-id bits and
/// capabilities away.
pub(super) fn apply_meta(path: &Path, entry: &Entry) -> Result<(), StoreError> {
    let Meta { mode, uid, gid, xattrs } = &entry.meta;
    let now = fs::symlink_metadata(path).context("read", path)?;
    if (now.uid(), now.gid()) != (*uid, *gid) {
        std::os::unix::fs::lchown(path, Some(*uid), Some(*gid)).context("set the owner of", path)?;
    }
    if !now.is_symlink() {
        fs::set_permissions(path, Permissions::from_mode(*mode)).context("set the mode of", path)?;
    }
    for (name, value) in xattrs {
        walk::set_xattr(path, name, value)?;
    }
    Ok(())
}

/// Makes a whiteout: a character device 0:0, which any user may make since Linux 5.8.
pub(super) fn make_whiteout(path: &Path) -> Result<(), StoreError> {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).context("make the whiteout", path)
}
