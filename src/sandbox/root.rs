//! Builds a sandbox's root file system from mount steps and moves the process into it. Runs in the sandbox's own
//! mount namespace, in a process with a single thread. Knows nothing of commands.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::Mount;
use super::fault::{Fault, Result, Tried, show};
use super::open::{Step, Whole, attributes, bind, clone, filesystem, open};
use super::overlay::{Overlay, attach, by_number};
use super::sys;
use super::tree::{Kind, Links, Tree};

/// What a root file system starts from.
pub(super) enum Base<'a> {
    /// An empty file system in memory; made read-only at the end unless it stays writable.
    Empty { writable: bool },
    /// The same, read-only, for a view of the host: what the host mounts later below its mounts shows there too.
    OfHost,
    /// This directory of the caller's view, with what is mounted below it.
    Directory(&'a Path),
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// More mounts than this don't lie over a new root.
const STACKED: usize = 16;

/// Where a tree is mounted while parts are taken from it: they can only be copied from a mount of this namespace.
const WHOLE: &str = "/.parts";

/// Builds the root in the current mount namespace and makes it this process's root and working directory.
pub(super) fn enter(base: &Base<'_>, mounts: &[Mount], links: Links) -> Result<()> {
    let propagation = match base {
        Base::OfHost => MountPropagationFlags::DOWNSTREAM,
        Base::Empty { .. } | Base::Directory(_) => MountPropagationFlags::PRIVATE,
    };
    rustix::mount::mount_change("/", MountPropagationFlags::REC | propagation)
        .tried(|| "make the mounts of the new namespace private".to_owned())?;
    let steps = mounts.iter().filter_map(|mount| open(mount).transpose()).collect::<Result<Vec<_>>>()?;
    // Mounted over the old root, where no path of this process leads: `/` means the old root until pivot_root.
    let files = filesystem("tmpfs", &[("mode", "0700")], attributes())?;
    put_over_root(&files)?;
    let root = match base {
        Base::Empty { .. } | Base::OfHost => filesystem("tmpfs", &[("mode", "0755")], attributes())?,
        Base::Directory(path) => {
            clone(CWD, path, OpenTreeFlags::empty()).tried(|| format!("open {} as the root directory", show(path)))?
        }
    };
    put_over_root(&root)?;
    let root = rustix::fs::openat(&root, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .tried(|| "open the new root directory".to_owned())?;
    let mut build = Build { tree: Tree::new(root), files, count: 0, links };
    for step in &steps {
        build.step(step)?;
    }
    build.leave_old_root()?;
    if matches!(base, Base::Empty { writable: false } | Base::OfHost) {
        sys::set_mount_attributes(build.tree.root().as_fd(), sys::ATTR_RDONLY, false)
            .tried(|| "make the sandbox's root read-only".to_owned())?;
    }
    Ok(())
}

fn put_over_root(mount: &OwnedFd) -> Result<()> {
    rustix::mount::move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).tried_or(
        || "attach the new root file system".to_owned(),
        |number| match number {
            libc::EINVAL => "mkosi can't run in a chroot, where / is no mount point",
            _ => "",
        },
    )
}

struct Build {
    tree: Tree,
    /// Holds the contents of the small files.
    files: OwnedFd,
    count: usize,
    links: Links,
}

impl Build {
    fn step(&mut self, step: &Step<'_>) -> Result<()> {
        match step {
            Step::Tree { mount, kind, target } => self.put(mount, target, *kind),
            Step::Overlay { overlay, target } => self.overlay(overlay, target),
            Step::Served { mount, upper, target } => {
                let lower = self.attach_apart(mount)?;
                self.overlay(&Overlay::over(lower, upper.try_clone()?), target)
            }
            Step::Parts { whole, parts, points } => self.parts(whole, parts, points),
            Step::Link { points_to, target } => self.tree.symlink(target, points_to),
            Step::Own(Mount::Tmpfs { target, mode }) => {
                let mount = filesystem("tmpfs", &[("mode", &format!("{mode:o}"))], attributes())?;
                self.put(&mount, target, Kind::Directory)
            }
            Step::Own(Mount::Proc { target }) => self.proc(target),
            Step::Own(Mount::Dev { target }) => self.dev(target),
            Step::Own(Mount::Symlink { target, points_to }) => self.tree.symlink(target, points_to),
            Step::Own(Mount::Directory { target, mode }) => self.tree.empty_directory(target, *mode),
            Step::Own(Mount::File { target, contents, mode }) => self.file(target, contents, *mode),
            Step::Own(
                Mount::Bind { .. }
                | Mount::Same { .. }
                | Mount::Overlay { .. }
                | Mount::Parts { .. }
                | Mount::Served { .. },
            ) => Ok(()),
        }
    }

    fn overlay(&mut self, overlay: &Overlay, target: &Path) -> Result<()> {
        let point = self.point(target, Kind::Directory)?;
        overlay.mount(point.as_fd()).map_err(|fault| match fault {
            Fault::Refused { what, error, hint } => {
                Fault::Refused { what: format!("{what} on {}", show(target)), error, hint }
            }
            other => other,
        })
    }

    /// A new directory where no command finds it.
    fn apart(&mut self) -> rustix::io::Result<OwnedFd> {
        let name = self.count.to_string();
        self.count += 1;
        rustix::fs::mkdirat(&self.files, &name, Mode::from_raw_mode(0o755))?;
        rustix::fs::openat(&self.files, &name, DIRECTORY, Mode::empty())
    }

    /// Puts a detached file system where no command finds it: overlayfs takes a lower directory of this namespace only.
    fn attach_apart(&mut self, mount: &OwnedFd) -> Result<OwnedFd> {
        let what = || "mount a file system that the caller serves".to_owned();
        let point = self.apart().tried(what)?;
        attach(mount, point.as_fd()).tried(what)?;
        rustix::fs::openat(mount, ".", DIRECTORY, Mode::empty()).tried(what)
    }

    /// A directory with empty files at these places, and the directories that lead there.
    fn empty_files(&mut self, paths: &[PathBuf]) -> Result<OwnedFd> {
        let mut tree = Tree::new(self.apart().tried(|| "make a directory for mount points".to_owned())?);
        for path in paths {
            tree.mount_point(path, Kind::File, Links::Follow)?;
        }
        tree.root().try_clone().tried(|| "duplicate a descriptor".to_owned())
    }

    /// Mounts the whole tree, copies the mounts of its parts, and takes the whole away again.
    fn parts(&mut self, whole: &Whole, parts: &[PathBuf], points: &[PathBuf]) -> Result<()> {
        let place = Path::new(WHOLE);
        let point = self.point(place, Kind::Directory)?;
        match whole {
            Whole::Directory(mount) => attach(mount, point.as_fd()).tried(|| "mount a tree of tools".to_owned())?,
            Whole::Overlay(overlay) if points.is_empty() => overlay.mount(point.as_fd())?,
            Whole::Overlay(overlay) => {
                let top = self.empty_files(points)?;
                overlay.under(top)?.mount(point.as_fd())?;
            }
        }
        let what = |part: &Path| format!("show {} of the tools tree in the sandbox", show(part));
        let tree = Tree::new(self.tree.open(place).tried(|| "open the tree of tools".to_owned())?);
        for part in parts {
            let part = part.as_path();
            let fd = match tree.open_nofollow(part) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error).tried(|| what(part)),
            };
            let stat = rustix::fs::fstat(&fd).tried(|| what(part))?;
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    let text = rustix::fs::readlinkat(&fd, "", Vec::new()).tried(|| what(part))?;
                    self.tree.symlink(part, Path::new(OsStr::from_bytes(text.as_bytes())))?;
                    continue;
                }
                FileType::Directory => Kind::Directory,
                _ => Kind::File,
            };
            let mount = clone(&fd, Path::new(""), OpenTreeFlags::AT_EMPTY_PATH).tried(|| what(part))?;
            let attributes = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV;
            sys::set_mount_attributes(mount.as_fd(), attributes, true).tried(|| what(part))?;
            self.put(&mount, part, kind)?;
        }
        let gone = || "take the whole tree of tools away".to_owned();
        rustix::mount::unmount(by_number(tree.root()), UnmountFlags::DETACH).tried(gone)?;
        let name = WHOLE.trim_start_matches('/');
        rustix::fs::unlinkat(self.tree.root(), name, AtFlags::REMOVEDIR).tried(gone)
    }

    fn point(&mut self, target: &Path, kind: Kind) -> Result<OwnedFd> {
        self.tree.mount_point(target, kind, self.links)
    }

    fn put(&mut self, mount: &OwnedFd, target: &Path, kind: Kind) -> Result<()> {
        let point = self.point(target, kind)?;
        attach(mount, point.as_fd()).tried(|| format!("mount on {} in the sandbox", show(target)))
    }

    fn file(&mut self, target: &Path, contents: &[u8], mode: u32) -> Result<()> {
        let what = || format!("write the file {} in the sandbox", show(target));
        let name = self.count.to_string();
        self.count += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.files, &name, flags, Mode::from_raw_mode(0o600)).tried(what)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).tried(what)?;
        std::io::Write::write_all(&mut std::fs::File::from(fd), contents).tried(what)?;
        let mount = clone(&self.files, Path::new(&name), OpenTreeFlags::empty()).tried(what)?;
        sys::set_mount_attributes(mount.as_fd(), sys::ATTR_RDONLY, false).tried(what)?;
        self.put(&mount, target, Kind::File)
    }

    fn proc(&mut self, target: &Path) -> Result<()> {
        let attributes = attributes() | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = filesystem("proc", &[], attributes)?;
        self.put(&mount, target, Kind::Directory)?;
        // The real root could change the kernel's settings here. In a user namespace the kernel refuses that by
        // itself, and a /proc with parts mounted over would forbid nested sandboxes.
        if super::userns::is_initial() {
            for name in ["sys", "sysrq-trigger", "irq", "bus"] {
                let path = target.join(name);
                let what = || format!("make {} read-only in the sandbox", show(&path));
                let Ok(point) = self.tree.open(&path) else { continue };
                let mount = clone(&point, Path::new(""), OpenTreeFlags::AT_EMPTY_PATH).tried(what)?;
                sys::set_mount_attributes(mount.as_fd(), sys::ATTR_RDONLY, true).tried(what)?;
                attach(&mount, point.as_fd()).tried(what)?;
            }
        }
        Ok(())
    }

    fn dev(&mut self, target: &Path) -> Result<()> {
        let mount = filesystem("tmpfs", &[("mode", "0755")], attributes() | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        self.put(&mount, target, Kind::Directory)?;
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            let (mount, kind) = bind(&Path::new("/dev").join(name), false)?;
            self.put(&mount, &target.join(name), kind)?;
        }
        for (name, points_to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            self.tree.symlink(&target.join(name), Path::new(points_to))?;
        }
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        // The group of terminals may have no number in a small user namespace.
        let mount = filesystem("devpts", &options, attributes)
            .or_else(|_| filesystem("devpts", options.get(..3).unwrap_or_default(), attributes))?;
        self.put(&mount, &target.join("pts"), Kind::Directory)?;
        let mount = filesystem("tmpfs", &[("mode", "1777")], self::attributes())?;
        self.put(&mount, &target.join("shm"), Kind::Directory)
    }

    /// Makes the new root the root of the namespace and drops everything else (see `pivot_root(2)`, `"."` twice).
    fn leave_old_root(&self) -> Result<()> {
        rustix::process::fchdir(self.tree.root()).tried(|| "enter the new root directory".to_owned())?;
        rustix::process::pivot_root(".", ".").tried_or(
            || "make the new root file system the root".to_owned(),
            |number| match number {
                libc::EINVAL => "mkosi can't run in a chroot or from an initial RAM file system",
                _ => "",
            },
        )?;
        // It lies over the new root now, and the file system with the small files over it. Each call takes the topmost
        // away; what stayed could be reached by the `..` of any mount.
        let id = |path: &str| -> rustix::io::Result<u64> {
            Ok(rustix::fs::statx(self.tree.root(), path, AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
        };
        let what = || "detach the old root".to_owned();
        let own = id("").tried(what)?;
        let mut left = STACKED;
        while id("..").tried(what)? != own {
            if left == 0 {
                return Err(Fault::Wrong("could not detach the old root: there is no end of it".to_owned()));
            }
            left -= 1;
            rustix::mount::unmount(".", UnmountFlags::DETACH).tried(what)?;
        }
        rustix::process::chdir("/").tried(|| "enter the new root directory".to_owned())
    }
}
