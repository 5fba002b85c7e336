//! Opening and making paths below a root without ever leaving it, whatever symbolic links lie in the way. Knows
//! nothing of mounts.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::fault::{Fault, Result, Tried, show};

/// What a path is to be when it has to be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// What symbolic links at the end of a mount point's path mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are followed, within the root; one that points to nothing is an error.
    Follow,
    /// What an image's links say is not to matter: a file is mounted on the link itself, and where a directory's
    /// link points to nothing, that directory is made.
    Cope,
}

/// How many links that point to nothing are followed one after the other, as in the kernel.
const MAX_LINKS: usize = 40;

/// A root directory that paths are resolved in.
pub(super) struct Tree {
    root: OwnedFd,
    /// Paths that were made, in order, when somebody wants to know.
    pub(super) made: Vec<(PathBuf, Kind)>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, made: Vec::new() }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens an existing path, following symbolic links within the root.
    pub(super) fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH)
    }

    /// Opens an existing path, but the last component's symbolic link itself.
    pub(super) fn open_nofollow(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    pub(super) fn open_with(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        // The kernel gives EAGAIN when something was renamed meanwhile and it can't tell whether a `..` left the root.
        let mut tries = 0;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.root, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Err(Errno::AGAIN) if tries < 100 => tries += 1,
                other => return other,
            }
        }
    }

    /// The directory that a path lies in and the path's last name. Missing directories are made with mode 0755.
    pub(super) fn parent(&mut self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let name = path
            .file_name()
            .ok_or_else(|| Fault::Wrong(format!("{} can't be made: it has no last name", show(path))))?
            .to_owned();
        let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
        Ok((parent, name))
    }

    /// Opens a directory; it and its parents are made with mode 0755 when they are missing.
    pub(super) fn directory(&mut self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("open the directory {} in the sandbox", show(path));
        match self.open_with(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).tried(what),
        }
        let mut at = self.open(Path::new("/")).tried(what)?;
        let mut sofar = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => sofar.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Fault::Wrong(format!("{} can't be made: it has a `..`", show(path))));
                }
            }
            at = match self.open_with(&sofar, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => self.make_directory(&at, &sofar, 0o755)?,
                Err(error) => return Err(error).tried(what),
            };
        }
        Ok(at)
    }

    fn make_directory(&mut self, parent: impl AsFd, path: &Path, mode: u32) -> Result<OwnedFd> {
        let what = || format!("make the directory {} in the sandbox", show(path));
        let name = path.file_name().unwrap_or(OsStr::new("."));
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            // Somebody else made it meanwhile, or it is a symbolic link that points to nothing.
            Err(Errno::EXIST) => {
                let found = self.open_with(path, OFlags::PATH | OFlags::DIRECTORY);
                return found.map_err(|_| Errno::EXIST).tried_or(what, in_the_way);
            }
            other => other.tried(what)?,
        }
        self.made.push((path.to_owned(), Kind::Directory));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty()).tried(what)
    }

    /// Opens a path as a mount point of this kind, and makes an empty one when it is missing.
    pub(super) fn mount_point(&mut self, path: &Path, kind: Kind, links: Links) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        if links == Links::Cope && kind == Kind::Directory {
            for _ in 0..MAX_LINKS {
                match self.dangling(&path) {
                    Some(points_to) => path = points_to,
                    None => break,
                }
            }
        }
        let path = path.as_path();
        let nofollow = links == Links::Cope && kind == Kind::File;
        let found = if nofollow { self.open_nofollow(path) } else { self.open(path) };
        match found {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).tried(|| format!("look at {} in the sandbox", show(path)))?;
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if is_directory == (kind == Kind::Directory) {
                    return Ok(fd);
                }
                let (is, wanted) =
                    if is_directory { ("a directory", "a file") } else { ("not a directory", "a directory") };
                Err(Fault::Wrong(format!(
                    "could not mount on {} in the sandbox: it is {is}, and what is to be mounted is {wanted}",
                    show(path)
                )))
            }
            Err(Errno::NOENT) => {
                let (parent, name) = self.parent(path)?;
                match kind {
                    Kind::Directory => self.make_directory(parent, path, 0o755),
                    Kind::File => self.make_file(parent, path, &name),
                }
            }
            Err(error) => Err(error).tried(|| format!("open the mount point {} in the sandbox", show(path))),
        }
    }

    /// Where a symbolic link that points to nothing points, as a path from the root; nothing for any other path.
    fn dangling(&self, path: &Path) -> Option<PathBuf> {
        if !matches!(self.open(path), Err(Errno::NOENT)) {
            return None;
        }
        let link = self.open_nofollow(path).ok()?;
        let text = rustix::fs::readlinkat(&link, "", Vec::new()).ok()?;
        let text = Path::new(OsStr::from_bytes(text.as_bytes()));
        let mut points_to = PathBuf::from("/");
        // Cutting `..` by the text alone may miss the place when links are involved, but never leaves the root.
        for component in path.parent().unwrap_or(Path::new("/")).join(text).components() {
            match component {
                Component::Normal(name) => points_to.push(name),
                Component::ParentDir => drop(points_to.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(points_to)
    }

    fn make_file(&mut self, parent: OwnedFd, path: &Path, name: &OsStr) -> Result<OwnedFd> {
        let what = || format!("make the mount point {} in the sandbox", show(path));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Err(Errno::EXIST) => return self.open(path).map_err(|_| Errno::EXIST).tried_or(what, in_the_way),
            other => drop(other.tried(what)?),
        }
        self.made.push((path.to_owned(), Kind::File));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty()).tried(what)
    }

    /// Makes a directory with this mode, or gives an existing one this mode.
    pub(super) fn empty_directory(&mut self, path: &Path, mode: u32) -> Result<()> {
        let what = || format!("set the mode of {} in the sandbox", show(path));
        self.directory(path)?;
        let fd = self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY).tried(what)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).tried(what)
    }

    /// Makes a symbolic link. One that is there already with the same text is right.
    pub(super) fn symlink(&mut self, path: &Path, points_to: &Path) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::symlinkat(points_to, &parent, &name) {
            Err(Errno::EXIST)
                if rustix::fs::readlinkat(&parent, &name, Vec::new())
                    .is_ok_and(|text| text.as_bytes() == points_to.as_os_str().as_encoded_bytes()) =>
            {
                Ok(())
            }
            other => other.tried_or(
                || format!("make the symbolic link {} -> {} in the sandbox", show(path), show(points_to)),
                |number| if number == libc::EEXIST { "something else is in its place" } else { "" },
            ),
        }
    }

    /// Removes what was made, the deepest first, whoever made what when. What is no longer empty stays.
    pub(super) fn remove_made(&mut self) {
        let mut made = std::mem::take(&mut self.made);
        made.sort_by(|(one, _), (other, _)| other.cmp(one));
        for (path, kind) in made {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Ok(parent) = self.open_with(parent, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let _ = match kind {
                Kind::Directory => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
                Kind::File => match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if stat.st_size == 0 => rustix::fs::unlinkat(&parent, name, AtFlags::empty()),
                    _ => Ok(()),
                },
            };
        }
    }
}

fn in_the_way(number: i32) -> &'static str {
    match number {
        libc::EEXIST => "a symbolic link that points to nothing is in its place",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn tree(path: &Path) -> Tree {
        Tree::new(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap())
    }

    #[test]
    fn links_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("inside")).unwrap();
        symlink("/inside", root.join("absolute")).unwrap();
        symlink("../../../../inside", root.join("relative")).unwrap();
        let mut tree = tree(&root);
        tree.mount_point(Path::new("/absolute/a/b"), Kind::Directory, Links::Follow).unwrap();
        tree.mount_point(Path::new("/relative/c"), Kind::File, Links::Follow).unwrap();
        assert!(root.join("inside/a/b").is_dir());
        assert!(root.join("inside/c").is_file());
        tree.remove_made();
        assert_eq!(std::fs::read_dir(root.join("inside")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_to_nothing_is_an_error_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/nowhere", dir.path().join("link")).unwrap();
        let mut tree = tree(dir.path());
        let error = tree.mount_point(Path::new("/link/x"), Kind::Directory, Links::Follow).err().unwrap().to_string();
        assert!(error.contains("/link") && error.contains("points to nothing"), "{error}");
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn links_of_an_image_can_be_coped_with() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/host/work", root.join("work")).unwrap();
        symlink("../../../../run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        let mut tree = tree(&root);
        tree.mount_point(Path::new("/work"), Kind::Directory, Links::Cope).unwrap();
        assert!(root.join("host/work").is_dir());
        tree.mount_point(Path::new("/etc/resolv.conf"), Kind::File, Links::Cope).unwrap();
        assert!(root.join("etc/resolv.conf").is_symlink());
        assert!(!root.join("run").exists());
        tree.remove_made();
        assert!(!root.join("host").exists());
    }

    #[test]
    fn what_is_no_longer_empty_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = tree(dir.path());
        tree.mount_point(Path::new("/a/b"), Kind::Directory, Links::Follow).unwrap();
        std::fs::write(dir.path().join("a/kept"), "x").unwrap();
        tree.remove_made();
        assert!(dir.path().join("a/kept").exists());
        assert!(!dir.path().join("a/b").exists());
    }

    #[test]
    fn modes_and_links_are_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = tree(dir.path());
        tree.empty_directory(Path::new("/t"), 0o1777).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("t")).unwrap().mode() & 0o7777, 0o1777);
        tree.symlink(Path::new("/l"), Path::new("t")).unwrap();
        tree.symlink(Path::new("/l"), Path::new("t")).unwrap();
        assert!(tree.symlink(Path::new("/l"), Path::new("other")).is_err());
    }
}
