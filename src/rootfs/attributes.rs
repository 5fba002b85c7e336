//! Owner, mode, extended attributes and times of a file, read from and applied to descriptors.
//!
//! Knows nothing of roots; a caller hands in the directory that a name lies in, and the name is never followed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

/// What is applied to a file after its content is there. `None` leaves things as the kernel made them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-id and sticky bits (`07777`).
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes to set, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Modification (and access) time: seconds since 1970 and nanoseconds.
    pub mtime: Option<(i64, u32)>,
}

/// Whether an extended attribute belongs to the file rather than to the machine it lies on: file capabilities, ACLs
/// and `user.*`. Security labels come from the host's policy, and `user.overlay.*` is overlayfs' own.
pub fn is_portable_xattr(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
}

fn ids(owner: (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    // The all-ones id means "leave it" to chown(2) and is not a valid owner.
    let valid = |raw: u32| (raw != u32::MAX).then_some(raw);
    (valid(owner.0).map(Uid::from_raw), valid(owner.1).map(Gid::from_raw))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) as _ };
    Timestamps { last_access: time, last_modification: time }
}

impl Attributes {
    /// Applies to an open file or directory. The order matters: chown(2) clears set-id bits and capabilities, and
    /// everything may change the times. On failure tells which step failed.
    pub fn apply_to_fd(&self, fd: impl AsFd) -> Result<(), (&'static str, Errno)> {
        let fd = fd.as_fd();
        if let Some(owner) = self.owner {
            let (uid, gid) = ids(owner);
            fs::fchown(fd, uid, gid).map_err(|e| ("set the owner", e))?;
        }
        if let Some(mode) = self.mode {
            fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777)).map_err(|e| ("set the mode", e))?;
        }
        for (name, value) in &self.xattrs {
            fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())
                .map_err(|e| ("set an extended attribute", e))?;
        }
        if let Some(mtime) = self.mtime {
            fs::futimens(fd, &times(mtime)).map_err(|e| ("set the time", e))?;
        }
        Ok(())
    }

    /// Applies to `name` in the directory `dir`: a symbolic link, device, pipe or socket that the caller just made.
    /// A link has no mode of its own.
    pub fn apply_at(&self, dir: impl AsFd, name: &OsStr, is_symlink: bool) -> Result<(), (&'static str, Errno)> {
        let dir = dir.as_fd();
        if let Some(owner) = self.owner {
            let (uid, gid) = ids(owner);
            fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| ("set the owner", e))?;
        }
        if let (Some(mode), false) = (self.mode, is_symlink) {
            fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
                .map_err(|e| ("set the mode", e))?;
        }
        for (attribute, value) in &self.xattrs {
            fs::lsetxattr(proc_path(dir, name), attribute.as_slice(), value, XattrFlags::empty())
                .map_err(|e| ("set an extended attribute", e))?;
        }
        if let Some(mtime) = self.mtime {
            fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| ("set the time", e))?;
        }
        Ok(())
    }
}

/// Sets the modification time of an open directory and leaves its access time.
pub(super) fn set_mtime(fd: impl AsFd, (seconds, nanoseconds): (i64, u32)) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) as _ };
    fs::futimens(fd, &Timestamps { last_access: omit, last_modification: time })
}

/// The calls for extended attributes take no directory descriptor; the magic link of one leads to the same place.
fn proc_path(dir: impl AsFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name)
}

/// The portable extended attributes of an open file or directory.
pub(super) fn xattrs_of_fd(fd: impl AsFd) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let fd = fd.as_fd();
    collect(|buffer| fs::flistxattr(fd, buffer), |name, buffer| fs::fgetxattr(fd, name, buffer))
}

/// The portable extended attributes of `name` in `dir`, which is not followed.
pub(super) fn xattrs_at(dir: impl AsFd, name: &OsStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = proc_path(dir, name);
    collect(|buffer| fs::llistxattr(&path, buffer), |name, buffer| fs::lgetxattr(&path, name, buffer))
}

/// Sets the extended attributes of a file anew if they are listed in another order than that of a file system in memory:
/// ACLs, then the others by name, the last first (Linux, `simple_xattr_list`). Where the file system lists them as they
/// were set, as ext4 does with few, the order is the same then; some have an order of their own. A link is not followed.
///
/// # Errors
/// When an attribute can't be read, removed or set.
pub fn order_xattrs(path: &Path) -> io::Result<()> {
    let names = match filled(|buffer| fs::llistxattr(path, buffer)) {
        Err(Errno::NOTSUP) => return Ok(()),
        names => names?,
    };
    let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let place = |name: &&[u8]| match *name {
        b"system.posix_acl_access" => (0, Reverse(Vec::new())),
        b"system.posix_acl_default" => (1, Reverse(Vec::new())),
        other => (2, Reverse(other.to_vec())),
    };
    if names.is_sorted_by_key(place) {
        return Ok(());
    }
    names.sort_by_key(place);
    let mut removed = Vec::new();
    for name in names {
        let value = filled(|buffer| fs::lgetxattr(path, name, buffer))?;
        match fs::lremovexattr(path, name) {
            // Where the host has SELinux each file has a label, and keeps it.
            Err(Errno::ACCESS) if name == b"security.selinux" => {}
            result => {
                result?;
                removed.push((name, value));
            }
        }
    }
    for (name, value) in &removed {
        fs::lsetxattr(path, *name, value, XattrFlags::empty())?;
    }
    Ok(())
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = match filled(&list) {
        // A file system without extended attributes has none to copy.
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        names => names?,
    };
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_portable_xattr(name)) {
        let value = filled(|buffer| get(OsStr::from_bytes(name), buffer))?;
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Calls `read` with buffers that grow up to the kernel's limit (64 KiB) until the answer fits.
fn filled(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 16 => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}
