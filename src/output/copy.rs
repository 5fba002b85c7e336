//! Checks the entries of a merged tree and makes one as a file of its own below a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::rootfs::{Attributes, copy_content};
use crate::store::{Entry, Kind, MergedEntry, MergedTree};

use super::{Error, Result};

pub(super) fn path_of(entry: &Entry) -> &Path {
    Path::new(OsStr::from_bytes(&entry.path))
}

pub(super) fn is_directory(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Directory { .. })
}

/// The entries with the times they get. Errors: an entry below one that is no directory, or with a name that could
/// lead out of the destination.
pub(super) fn entries(merged: &MergedTree, epoch: Option<i64>) -> Result<Vec<Entry>> {
    let mut open: Vec<&[u8]> = Vec::new();
    let mut entries = Vec::with_capacity(merged.entries.len());
    for merged in &merged.entries {
        let entry = &merged.entry;
        let bad = |reason| Error::Tree { path: path_of(entry).to_owned(), reason };
        if open.is_empty() {
            if !entry.path.is_empty() || !is_directory(entry) {
                return Err(bad("the first entry is not the root directory"));
            }
        } else {
            let cut = entry.path.iter().rposition(|byte| *byte == b'/');
            let above = cut.and_then(|cut| entry.path.get(..cut)).unwrap_or_default();
            let name = cut.and_then(|cut| entry.path.get(cut + 1..)).unwrap_or(&entry.path);
            if [b"".as_slice(), b".", b".."].contains(&name) || name.contains(&0) {
                return Err(bad("its name is none that a file can have"));
            }
            while open.last().is_some_and(|dir| *dir != above) {
                open.pop();
            }
            if open.is_empty() {
                return Err(bad("it is not right after the directory that holds it"));
            }
        }
        if is_directory(entry) {
            open.push(&entry.path);
        }
        let mut entry = entry.clone();
        entry.mtime = epoch.map_or(entry.mtime, |epoch| entry.mtime.min(epoch));
        entries.push(entry);
    }
    match entries.is_empty() {
        true => Err(Error::Tree { path: PathBuf::new(), reason: "it has no root" }),
        false => Ok(entries),
    }
}

/// The attributes of an entry; the owner is left to the caller's if `caller_owns`.
pub(super) fn attributes(entry: &Entry, caller_owns: bool) -> Attributes {
    Attributes {
        mode: Some(entry.meta.mode),
        owner: (!caller_owns).then_some((entry.meta.uid, entry.meta.gid)),
        xattrs: entry.meta.xattrs.clone(),
        mtime: Some((entry.mtime, 0)),
    }
}

/// Makes `merged`, which is no directory, at its path below `root`; directories above it exist and nothing is there.
/// `entry` is its entry with the times that the copy gets.
pub(super) fn make(root: &OwnedFd, merged: &MergedEntry, entry: &Entry, caller_owns: bool) -> Result<()> {
    let path = path_of(entry);
    let fail = |action, error: Errno| Error::io(action, path, error);
    let attributes = attributes(entry, caller_owns);
    let node = |kind, (major, minor)| {
        fs::mknodat(root, path, kind, Mode::from_raw_mode(0o600), fs::makedev(major, minor))
            .map_err(|error| fail("make the device, pipe or socket", error))
    };
    match &entry.kind {
        Kind::File { size, .. } => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let input = fs::open(&merged.source, flags, Mode::empty())
                .map(File::from)
                .map_err(|error| Error::io("open", &merged.source, error))?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let output = fs::openat(root, path, flags, Mode::from_raw_mode(0o600))
                .map(File::from)
                .map_err(|error| fail("make the file", error))?;
            let found = copy_content(&input, &output)
                .map_err(|error| Error::io("copy to the output", &merged.source, error))?;
            if found != *size {
                return Err(Error::Damaged { path: merged.source.clone(), expected: *size, found });
            }
            return attributes.apply_to_fd(&output).map_err(|(action, error)| fail(action, error));
        }
        Kind::Symlink { target } => {
            fs::symlinkat(target.as_slice(), root, path).map_err(|error| fail("make the link", error))?;
        }
        Kind::Character { device } => node(FileType::CharacterDevice, *device)?,
        Kind::Block { device } => node(FileType::BlockDevice, *device)?,
        Kind::Fifo => node(FileType::Fifo, (0, 0))?,
        Kind::Socket => node(FileType::Socket, (0, 0))?,
        // As overlayfs has it; any user may make this one device.
        Kind::Whiteout => node(FileType::CharacterDevice, (0, 0))?,
        Kind::Directory { .. } => {
            return Err(Error::Tree { path: path.to_owned(), reason: "a directory as a file" });
        }
    }
    let is_symlink = matches!(entry.kind, Kind::Symlink { .. });
    attributes.apply_at(root.as_fd(), path.as_os_str(), is_symlink).map_err(|(action, error)| fail(action, error))
}
