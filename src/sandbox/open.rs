//! Opens what mount steps show: directories and files of the caller's view, layers, new file systems. Nothing is put
//! anywhere yet.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::Mount;
use super::fault::{Fault, Result, Tried, show};
use super::overlay::{Overlay, Upper, kernel_log};
use super::sys;
use super::tree::Kind;

/// A mount step whose source has been opened. All sources are opened before the first mount of the new root, so
/// that nothing can lie over the way to them.
pub(super) enum Step<'a> {
    Tree { mount: OwnedFd, kind: Kind, target: &'a Path },
    Overlay { overlay: Overlay, target: &'a Path },
    Served { mount: OwnedFd, upper: Upper, target: &'a Path },
    Parts { whole: Whole, parts: &'a [PathBuf], points: &'a [PathBuf] },
    Link { points_to: PathBuf, target: &'a Path },
    Own(&'a Mount),
}

/// A tree that parts are taken from.
pub(super) enum Whole {
    Directory(OwnedFd),
    Overlay(Overlay),
}

/// Attributes of every file system made here: device nodes made in it can't be opened.
pub(super) fn attributes() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID
}

/// Opens a step's sources. Nothing for an optional one that is missing.
pub(super) fn open(mount: &Mount) -> Result<Option<Step<'_>>> {
    Ok(Some(match mount {
        Mount::Bind { source, target, read_only, optional } => match bind(source, *read_only) {
            Ok((mount, kind)) => Step::Tree { mount, kind, target },
            Err(Fault::Refused { error, .. })
                if *optional && matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) =>
            {
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        },
        Mount::Overlay { lowers, upper, target } => match (lowers.as_slice(), upper) {
            // One layer needs no overlay, and an upper directory on nothing is just itself.
            ([lower], None) => layer(lower, true, target)?,
            ([], Some((upper, _))) => layer(upper, false, target)?,
            ([], None) => {
                return Err(Fault::Wrong(format!("could not mount an overlay of no directories on {}", show(target))));
            }
            (lowers, upper) => Step::Overlay { overlay: Overlay::open(lowers, upper.as_ref())?, target },
        },
        Mount::Served { mount, upper, target } => Step::Served {
            mount: sys::take_fd(*mount).tried(|| format!("take over the file system for {}", show(target)))?,
            upper: Overlay::open_upper(upper)?,
            target,
        },
        Mount::Parts { lowers, parts, points } => Step::Parts {
            whole: match lowers.as_slice() {
                [lower] if points.is_empty() => Whole::Directory(bind(lower, true)?.0),
                lowers => Whole::Overlay(Overlay::open(lowers, None)?),
            },
            parts,
            points,
        },
        Mount::Same { path } => same(path)?,
        own => Step::Own(own),
    }))
}

fn layer<'a>(path: &Path, read_only: bool, target: &'a Path) -> Result<Step<'a>> {
    let (mount, kind) = bind(path, read_only)?;
    Ok(Step::Tree { mount, kind, target })
}

/// A path of the host for the same place in the new root.
fn same(path: &Path) -> Result<Step<'_>> {
    let what = || format!("show {} as it is", show(path));
    let meta = path.symlink_metadata().tried(what)?;
    if meta.is_symlink() {
        return Ok(Step::Link { points_to: std::fs::read_link(path).tried(what)?, target: path });
    }
    let kind = if meta.is_dir() { Kind::Directory } else { Kind::File };
    Ok(Step::Tree { mount: clone(CWD, path, OpenTreeFlags::empty()).tried(what)?, kind, target: path })
}

/// A detached copy of the mounts at a path.
pub(super) fn clone(at: impl AsFd, path: &Path, more: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    rustix::mount::open_tree(at, path, flags | more)
}

pub(super) fn bind(source: &Path, read_only: bool) -> Result<(OwnedFd, Kind)> {
    let what = || format!("open {} to bind it into the sandbox", show(source));
    let mount = clone(CWD, source, OpenTreeFlags::empty()).tried_or(what, |number| match number {
        libc::EINVAL => "it is on a mount of another mount namespace, or has mounts that may not be copied",
        _ => "",
    })?;
    let stat = rustix::fs::statat(&mount, "", AtFlags::EMPTY_PATH).tried(what)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let kind = if file_type == FileType::Directory { Kind::Directory } else { Kind::File };
    let device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice) || source.starts_with("/dev");
    let mut attributes = sys::ATTR_NOSUID;
    if !device {
        attributes |= sys::ATTR_NODEV;
    }
    if read_only {
        attributes |= sys::ATTR_RDONLY;
    }
    sys::set_mount_attributes(mount.as_fd(), attributes, true)
        .tried(|| format!("set the mount attributes of {}", show(source)))?;
    Ok((mount, kind))
}

/// A new file system, mounted nowhere yet.
pub(super) fn filesystem(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let fs =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).tried(|| format!("start a mount of type {kind}"))?;
    let made = options
        .iter()
        .try_for_each(|(key, value)| match *value {
            "" => rustix::mount::fsconfig_set_flag(&fs, *key),
            value => rustix::mount::fsconfig_set_string(&fs, *key, value),
        })
        .and_then(|()| rustix::mount::fsconfig_create(&fs))
        .and_then(|()| rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes));
    made.tried_or(
        || match kernel_log(&fs) {
            log if log.is_empty() => format!("mount a file system of type {kind}"),
            log => format!("mount a file system of type {kind} [kernel: {log}]"),
        },
        |number| match (kind, number) {
            ("proc", libc::EPERM) => {
                "parts of this /proc are hidden, as in a container: run the container privileged or with \
                 --security-opt systempaths=unconfined"
            }
            _ => "",
        },
    )
}
