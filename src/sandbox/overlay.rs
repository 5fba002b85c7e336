//! Overlay mounts with any number of lower directories, and a probe that tells whether a directory can hold an upper
//! one. Knows nothing of where the mount goes.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use super::fault::{Fault, Result, Tried, show};

/// The directories of an overlay, opened before anything is mounted over the way to them.
pub(super) struct Overlay {
    /// Lowest first.
    lowers: Vec<OwnedFd>,
    upper: Option<Upper>,
}

/// An upper directory and its work directory.
pub(super) struct Upper(OwnedFd, OwnedFd);

impl Upper {
    pub(super) fn try_clone(&self) -> Result<Self> {
        let copy = |fd: &OwnedFd| fd.try_clone().tried(|| "duplicate a descriptor".to_owned());
        Ok(Self(copy(&self.0)?, copy(&self.1)?))
    }
}

/// The kernel's own limit (`OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;

impl Overlay {
    /// Opens the directories. The work directory is freed from the mark that an earlier volatile mount left: the
    /// upper directories used here are thrown away when the machine crashes, so the mark guards nothing.
    pub(super) fn open(lowers: &[PathBuf], upper: Option<&(PathBuf, PathBuf)>) -> Result<Self> {
        if lowers.len() > MAX_LOWERS {
            return Err(Fault::Wrong(format!(
                "could not mount an overlay of {} layers: the kernel takes {MAX_LOWERS} at most",
                lowers.len()
            )));
        }
        let lowers = lowers.iter().map(|path| open(path, "lower")).collect::<Result<Vec<_>>>()?;
        Ok(Self { lowers, upper: upper.map(Self::open_upper).transpose()? })
    }

    /// An overlay of one directory that is open already.
    pub(super) fn over(lower: OwnedFd, upper: Upper) -> Self {
        Self { lowers: vec![lower], upper: Some(upper) }
    }

    /// The same with one more directory on top of the others.
    pub(super) fn under(&self, top: OwnedFd) -> Result<Self> {
        let copy = |fd: &OwnedFd| fd.try_clone().tried(|| "duplicate a descriptor".to_owned());
        let mut lowers = self.lowers.iter().map(copy).collect::<Result<Vec<_>>>()?;
        lowers.push(top);
        Ok(Self { lowers, upper: self.upper.as_ref().map(Upper::try_clone).transpose()? })
    }

    /// Opens an upper and its work directory, and frees the latter from the mark.
    pub(super) fn open_upper((upper, work): &(PathBuf, PathBuf)) -> Result<Upper> {
        let opened = Upper(open(upper, "upper")?, open(work, "work")?);
        let mark = work.join("work/incompat");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).tried(|| format!("remove the mark {}", show(&mark)))
            }
            _ => Ok(opened),
        }
    }

    /// Mounts the overlay on a directory.
    pub(super) fn mount(&self, target: BorrowedFd<'_>) -> Result<()> {
        match self.mount_by_steps(target) {
            // Linux before 6.7 takes the layers in one string only, and before 6.5 no overlay by steps at all.
            Err(Step::Unknown) => self.mount_at_once(target),
            Err(Step::Failed(fault)) => Err(fault),
            Ok(()) => Ok(()),
        }
    }

    fn what(&self) -> String {
        let kind = if self.upper.is_some() { "writable" } else { "read-only" };
        format!("mount a {kind} overlay of {} lower directories", self.lowers.len())
    }

    /// The newer mount interface: one call per layer, so that no limit on the length of a string bites.
    fn mount_by_steps(&self, target: BorrowedFd<'_>) -> std::result::Result<(), Step> {
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .tried_or(|| "start an overlay mount".to_owned(), hint)
            .map_err(Step::Failed)?;
        for (at, lower) in self.lowers.iter().rev().enumerate() {
            match rustix::mount::fsconfig_set_string(&fs, "lowerdir+", by_number(lower)) {
                Err(Errno::INVAL | Errno::OPNOTSUPP) if at == 0 => return Err(Step::Unknown),
                Err(error) => return Err(self.failed(&fs, error)),
                Ok(()) => {}
            }
        }
        let mut settings = vec![("index", "off"), ("metacopy", "off")];
        let (upper, work);
        if let Some(Upper(upper_fd, work_fd)) = &self.upper {
            (upper, work) = (by_number(upper_fd), by_number(work_fd));
            settings.extend([("upperdir", upper.as_str()), ("workdir", work.as_str())]);
        }
        for (key, value) in settings {
            rustix::mount::fsconfig_set_string(&fs, key, value).map_err(|error| self.failed(&fs, error))?;
        }
        rustix::mount::fsconfig_set_flag(&fs, "userxattr").map_err(|error| self.failed(&fs, error))?;
        if self.upper.is_some() {
            // Before Linux 5.10 unknown; without it the mount is just slower.
            let _ = rustix::mount::fsconfig_set_flag(&fs, "volatile");
        }
        rustix::mount::fsconfig_create(&fs).map_err(|error| self.failed(&fs, error))?;
        let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes())
            .map_err(|error| self.failed(&fs, error))?;
        attach(&mount, target).tried_or(|| self.what(), hint).map_err(Step::Failed)
    }

    fn attributes(&self) -> MountAttrFlags {
        let read_only = if self.upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        read_only | MountAttrFlags::MOUNT_ATTR_NODEV
    }

    fn failed(&self, fs: &OwnedFd, error: Errno) -> Step {
        let log = kernel_log(fs);
        let what = if log.is_empty() { self.what() } else { format!("{} [kernel: {log}]", self.what()) };
        match Err::<(), _>(error).tried_or(|| what, hint) {
            Err(fault) => Step::Failed(fault),
            Ok(()) => Step::Unknown,
        }
    }

    fn mount_at_once(&self, target: BorrowedFd<'_>) -> Result<()> {
        let lowers: Vec<String> = self.lowers.iter().rev().map(by_number).collect();
        let mut options = format!("userxattr,index=off,metacopy=off,lowerdir={}", lowers.join(":"));
        if let Some(Upper(upper, work)) = &self.upper {
            options.push_str(&format!(",upperdir={},workdir={}", by_number(upper), by_number(work)));
        }
        let mut flags = MountFlags::NODEV;
        if self.upper.is_none() {
            flags |= MountFlags::RDONLY;
        }
        let target = by_number(&target);
        let mount = |options: String| {
            let options = CString::new(options).map_err(|_| Errno::INVAL)?;
            rustix::mount::mount("overlay", &target, "overlay", flags, options.as_c_str())
        };
        let volatile = if self.upper.is_some() { mount(format!("{options},volatile")) } else { Err(Errno::INVAL) };
        volatile.or_else(|_| mount(options)).tried_or(|| self.what(), hint)
    }
}

/// Why the mount by steps ended.
enum Step {
    /// This kernel doesn't know it.
    Unknown,
    /// It was refused.
    Failed(Fault),
}

fn hint(number: i32) -> &'static str {
    match number {
        libc::EINVAL => {
            "the upper and the work directory must be on one file system that takes user.* attributes and is no \
             overlay itself; Linux 5.11 or later is needed"
        }
        libc::EPERM => "overlay mounts in a user namespace need Linux 5.11 or later",
        libc::ENODEV => "the kernel lacks overlayfs: modprobe overlay",
        libc::EBUSY => "the upper or the work directory is in use by another mount",
        _ => "",
    }
}

fn open(path: &Path, role: &str) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .tried(|| format!("open the {role} directory {} of an overlay", show(path)))
}

/// A short name for an open directory. Works in every string option, whatever the real path's length and characters.
pub(super) fn by_number(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Puts a detached mount on an open mount point.
pub(super) fn attach(mount: &OwnedFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// What the kernel has to say about a mount that failed, one line.
pub(super) fn kernel_log(fs: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0_u8; 1024];
    while let Ok(length) = rustix::io::read(fs, &mut buffer) {
        if length == 0 || lines.len() > 8 {
            break;
        }
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned();
        lines.push(text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned()));
    }
    lines.join("; ")
}
