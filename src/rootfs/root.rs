//! A root directory and the lookups and small operations inside it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Error, Result};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: u32 = 40;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A root directory. Paths given to its methods are paths inside it, with or without a leading slash; links and
/// `..` are resolved as after a chroot into it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Root {
    /// Opens the directory at `path` on the host.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { dir, path }),
            Err(error) => Err(Error::At { action: "open", path: PathBuf::from("/"), root: path, source: error.into() }),
        }
    }

    /// Where the root lies on the host, as it was opened. For messages and for commands that get the whole root:
    /// joining a path to it leaves the root's protection.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::At { action, path: absolute(path), root: self.path.clone(), source: source.into() }
    }

    /// Opens `path` with the kernel keeping the lookup in the root.
    pub(super) fn open_in(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = clean(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: something was renamed meanwhile and `..` could have escaped (openat2(2)).
            match fs::openat2(&self.dir, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    pub(super) fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_in(path, DIRECTORY)
    }

    /// Makes the directory `path` and those above it that are missing, with `mode`, and opens it. One that exists is
    /// left as it is. A link that leads to nothing is followed and what it names is made, inside the root.
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.make_dirs(&clean(path), mode, 0).map_err(|error| self.error("make the directory", path, error))
    }

    fn make_dirs(&self, path: &Path, mode: u32, links: u32) -> rustix::io::Result<OwnedFd> {
        match self.open_dir(path) {
            Err(Errno::NOENT) if links < MAX_LINKS => {}
            Err(Errno::NOENT) => return Err(Errno::LOOP),
            result => return result,
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let dir = self.make_dirs(above, mode, links)?;
        let Some(name) = path.file_name() else { return self.open_dir(path) };
        match fs::mkdirat(&dir, name, Mode::from_raw_mode(mode & 0o7777)) {
            Ok(()) => {
                let made = open_child_dir(&dir, name)?;
                // The umask had a say in what mkdirat made.
                fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777))?;
                Ok(made)
            }
            Err(Errno::EXIST) => match fs::readlinkat(&dir, name, Vec::new()) {
                Ok(target) => {
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    self.make_dirs(&clean(&above.join(target)), mode, links + 1)
                }
                Err(_) => self.open_dir(path),
            },
            Err(error) => Err(error),
        }
    }

    /// The directory that `path` lies in and its last component; missing directories are made with mode 0755.
    pub(super) fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let cleaned = clean(path);
        let name = cleaned.file_name().ok_or_else(|| self.error("write", path, Errno::ISDIR))?;
        let above = cleaned.parent().unwrap_or(Path::new(""));
        let dir = self.make_dirs(above, 0o755, 0).map_err(|error| self.error("make the parent of", path, error))?;
        Ok((dir, name.to_owned()))
    }

    /// The directory that `path` lies in and its last component, if the directory exists.
    pub(super) fn existing_parent(&self, path: &Path) -> Result<Option<(OwnedFd, OsString)>> {
        let cleaned = clean(path);
        let name = cleaned.file_name().ok_or_else(|| self.error("take the last name of", path, Errno::INVAL))?;
        match self.open_dir(cleaned.parent().unwrap_or(Path::new(""))) {
            Ok(dir) => Ok(Some((dir, name.to_owned()))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(self.error("look up", path, error)),
        }
    }

    /// Writes a file with `mode`. What stands there is replaced, never written through: a link stays untouched at
    /// its other end, and so does a file with other names. A directory there is an error.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        let write = || -> io::Result<()> {
            clear(&dir, &name)?;
            let mut file = create_file(&dir, &name)?;
            file.write_all(bytes)?;
            fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
            Ok(())
        };
        write().map_err(|error| self.error("write", path, error))
    }

    /// Gives a regular file other contents; its owner, mode and attributes stay. Links are followed inside the root, and
    /// other names of the file see the contents too.
    pub fn rewrite_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let write = || -> io::Result<()> {
            let mut file = File::from(self.open_in(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            file.set_len(0)?;
            file.write_all(bytes)
        };
        write().map_err(|error| self.error("write", path, error))
    }

    /// Reads a regular file; links are followed inside the root. Anything but a regular file is an error, so that a
    /// pipe or device in the image can't hang or feed the host.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let read = || -> io::Result<Vec<u8>> {
            // O_NONBLOCK: opening a pipe would wait for its other end.
            let mut file = File::from(self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| self.error("read", path, error))
    }

    /// Makes a symbolic link to `target`, which is stored as it is. Replaces what stands there but a directory.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        clear(&dir, &name)
            .and_then(|()| fs::symlinkat(target.as_ref(), &dir, &name))
            .map_err(|error| self.error("make the link", path, error))
    }

    /// Whether `path` exists, links followed inside the root.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Whether `path` is a directory or a link to one.
    pub fn is_dir(&self, path: impl AsRef<Path>) -> Result<bool> {
        Ok(self.stat(path)?.is_some_and(|stat| file_type(&stat) == FileType::Directory))
    }

    /// Metadata of what `path` leads to; `None` if there is nothing.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Option<Stat>> {
        self.stat_with(path.as_ref(), OFlags::empty())
    }

    /// Metadata of `path` itself, a link not followed; `None` if there is nothing.
    pub fn lstat(&self, path: impl AsRef<Path>) -> Result<Option<Stat>> {
        self.stat_with(path.as_ref(), OFlags::NOFOLLOW)
    }

    fn stat_with(&self, path: &Path, flags: OFlags) -> Result<Option<Stat>> {
        match self.open_in(path, OFlags::PATH | flags).and_then(fs::fstat) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(self.error("look up", path, error)),
        }
    }

    /// The target of the symbolic link at `path`; `None` if there is no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = path.as_ref();
        let Some((dir, name)) = self.existing_parent(path)? else { return Ok(None) };
        match fs::readlinkat(&dir, &name, Vec::new()) {
            Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(self.error("read the link", path, error)),
        }
    }

    /// The names in a directory, sorted; empty if it doesn't exist.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
        let path = path.as_ref();
        let list = || entry_names(&mut Dir::new(self.open_dir(path)?)?);
        match list() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            result => result.map_err(|error| self.error("list", path, error)),
        }
    }

    /// Sets the mode of a file or directory, links followed inside the root.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .and_then(|fd| fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777)))
            .map_err(|error| self.error("set the mode of", path, error))
    }
}

/// `path` without leading slashes and `.` components; `.` for the root itself. `..` stays: what it means depends on
/// links, so the kernel resolves it.
pub(super) fn clean(path: &Path) -> PathBuf {
    let kept = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let cleaned: PathBuf = kept.collect();
    if cleaned.as_os_str().is_empty() { PathBuf::from(".") } else { cleaned }
}

/// A path inside the root as people write it, with its leading slash.
pub(super) fn absolute(path: &Path) -> PathBuf {
    Path::new("/").components().chain(path.components().filter(|part| *part != Component::CurDir)).collect()
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a directory by its name in another one; a link is not followed.
pub(super) fn open_child_dir(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Makes a new file, which must not exist, with mode 0600 until its attributes are applied.
pub(super) fn create_file(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

/// Removes a name so that something new can take its place; a directory is an error.
fn clear(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The names in an open directory but `.` and `..`, sorted.
pub(super) fn entry_names(dir: &mut Dir) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}
