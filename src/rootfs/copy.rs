//! Copies a file or tree of the host into a root.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{set_mtime, xattrs_at, xattrs_of_fd};
use super::root::{absolute, clean, create_file, entry_names, file_type, open_child_dir};
use super::{Attributes, Error, Result, Root, copy_content, is_tar};

/// Who owns what a copy makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Root (0:0), whoever owns the files on the host. In archives owners are deliberate and kept.
    #[default]
    Root,
    /// The owner of each source.
    Source,
    /// Whoever runs this program: nothing is changed.
    Caller,
}

/// How a copy is made.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Who owns the copies.
    pub owner: Ownership,
    /// Directories that exist in the root keep their mode, owner and attributes. Otherwise the source's win, but for
    /// the directory that is the target of the whole copy, which keeps its own in any case.
    pub keep_directories: bool,
    /// The modification time of all that is copied, in seconds since 1970; the source's if `None`.
    pub epoch: Option<i64>,
    /// Leaves out what archives hold below [`super::RUNTIME_DIRECTORIES`]. Trees of the host are copied whole.
    pub skip_runtime: bool,
}

impl Root {
    /// Copies `source` on the host to `target` in the root.
    ///
    /// - A directory is merged into the directory `target`, which is made if it is missing. Where the source has a
    ///   directory and the root a link to one, the link is followed inside the root.
    /// - A tar archive (see [`is_tar`]) is extracted into the directory `target`.
    /// - Any other file becomes the file `target`, or a file in it where `target` is a directory or ends in a slash.
    ///
    /// A file replaces a file or link of its name; nothing is ever written through a link or to a file's other
    /// names. Modes, extended attributes, links, hard links, devices, pipes and sockets come along. `source` itself
    /// may be a link, links within it are copied as links. Errors: [`Error::Occupied`] where a directory would have
    /// to replace something else or the other way round.
    pub fn copy_tree(&self, source: &Path, target: &str, options: &CopyOptions) -> Result<()> {
        let mut copier = Copier { root: self, options, links: HashMap::new() };
        let metadata = std::fs::metadata(source)
            .map_err(|error| copier.error(source, Path::new(target), "look up the source", error))?;
        if metadata.is_dir() {
            copier.tree(source, &clean(Path::new(target)))
        } else if metadata.is_file() && is_tar(source) {
            self.extract(source, target, options)
        } else {
            copier.single(source, target)
        }
    }

    /// Copies one file of the host to `target` as [`Root::copy_tree`] does, even if it is a tar archive.
    pub fn copy_file(&self, source: &Path, target: &str, options: &CopyOptions) -> Result<()> {
        Copier { root: self, options, links: HashMap::new() }.single(source, target)
    }
}

/// A copy in the root that further names of the same source file can be linked to.
struct Link {
    path: PathBuf,
    device: u64,
    inode: u64,
}

pub(super) struct Copier<'a> {
    pub(super) root: &'a Root,
    pub(super) options: &'a CopyOptions,
    links: HashMap<(u64, u64), Link>,
}

impl Copier<'_> {
    fn error(&self, from: &Path, path: &Path, action: &'static str, source: impl Into<io::Error>) -> Error {
        copy_error(self.root, from, path, action, source)
    }

    fn attributes(&self, stat: &Stat, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> Attributes {
        let owner = match self.options.owner {
            Ownership::Root => Some((0, 0)),
            Ownership::Source => Some((stat.st_uid, stat.st_gid)),
            Ownership::Caller => None,
        };
        let mtime = self.options.epoch.map_or((stat.st_mtime, stat.st_mtime_nsec as u32), |epoch| (epoch, 0));
        Attributes { mode: Some(stat.st_mode & 0o7777), owner, xattrs, mtime: Some(mtime) }
    }

    fn tree(&mut self, source: &Path, target: &Path) -> Result<()> {
        let existed = self.root.is_dir(target)?;
        let to = self.root.create_dir_all(target, 0o755)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = fs::open(source, flags, Mode::empty())
            .map_err(|error| self.error(source, target, "open the source", error))?;
        self.directory(from, to, source, target, existed)
    }

    fn single(&mut self, source: &Path, target: &str) -> Result<()> {
        let mut path = clean(Path::new(target));
        if target.ends_with('/') || self.root.is_dir(&path)? {
            let name = source.file_name().ok_or_else(|| self.error(source, &path, "name the copy", Errno::INVAL))?;
            path = clean(&path.join(name));
        }
        // The source may be a link: what it leads to is copied.
        let real = source.canonicalize().map_err(|error| self.error(source, &path, "look up the source", error))?;
        let (Some(above), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(self.error(source, &path, "copy the source", Errno::ISDIR));
        };
        let from = fs::open(above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| self.error(source, &path, "open the source's directory", error))?;
        let stat = fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.error(source, &path, "look up the source", error))?;
        let (to, to_name) = self.root.parent(&path)?;
        self.entry(&from, name, &stat, &to, &to_name, source, &path)
    }

    /// Copies what the directory `from` holds into `to`, and then `from`'s attributes: a mode without write
    /// permission must not stop the copy.
    fn directory(&mut self, from: OwnedFd, to: OwnedFd, source: &Path, target: &Path, keep: bool) -> Result<()> {
        let names = Dir::read_from(&from)
            .and_then(|mut dir| entry_names(&mut dir))
            .map_err(|error| self.error(source, target, "list the source", error))?;
        for name in names {
            let (source, target) = (source.join(&name), target.join(&name));
            let stat = fs::statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.error(&source, &target, "look up the source", error))?;
            if file_type(&stat) == FileType::Directory {
                let below = open_child_dir(&from, &name)
                    .map_err(|error| self.error(&source, &target, "open the source", error))?;
                let (into, existed) = enter(self.root, &to, &name, &source, &target)?;
                self.directory(below, into, &source, &target, existed && self.options.keep_directories)?;
            } else {
                self.entry(&from, &name, &stat, &to, &name, &source, &target)?;
            }
        }
        if keep {
            return match self.options.epoch {
                Some(epoch) => {
                    set_mtime(&to, (epoch, 0)).map_err(|error| self.error(source, target, "set the time", error))
                }
                None => Ok(()),
            };
        }
        let stat = fs::fstat(&from).map_err(|error| self.error(source, target, "look up the source", error))?;
        let xattrs =
            xattrs_of_fd(&from).map_err(|error| self.error(source, target, "read extended attributes", error))?;
        self.attributes(&stat, xattrs)
            .apply_to_fd(&to)
            .map_err(|(action, error)| self.error(source, target, action, error))
    }

    /// Copies anything but a directory.
    #[allow(clippy::too_many_arguments)]
    fn entry(
        &mut self,
        from: &OwnedFd,
        from_name: &OsStr,
        stat: &Stat,
        to: &OwnedFd,
        to_name: &OsStr,
        source: &Path,
        target: &Path,
    ) -> Result<()> {
        make_way(self.root, to, to_name, source, target)?;
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(link) = self.links.get(&identity)
            && self.link(link, to, to_name)?
        {
            return Ok(());
        }
        let fail = |action, error: io::Error| copy_error(self.root, source, target, action, error);
        let kind = file_type(stat);
        if kind == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let input = fs::openat(from, from_name, flags, Mode::empty())
                .map(File::from)
                .map_err(|error| fail("open the source", error.into()))?;
            let output = create_file(to, to_name).map_err(|error| fail("make the file", error.into()))?;
            copy_content(&input, &output).map_err(|error| fail("copy the content", error))?;
            let xattrs = xattrs_of_fd(&input).map_err(|error| fail("read extended attributes", error))?;
            self.attributes(stat, xattrs).apply_to_fd(&output).map_err(|(action, error)| fail(action, error.into()))?;
        } else {
            let made = if kind == FileType::Symlink {
                fs::readlinkat(from, from_name, Vec::new()).and_then(|link| fs::symlinkat(link, to, to_name))
            } else {
                fs::mknodat(to, to_name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
            };
            made.map_err(|error| fail("make the file", error.into()))?;
            let xattrs = xattrs_at(from, from_name).map_err(|error| fail("read extended attributes", error))?;
            self.attributes(stat, xattrs)
                .apply_at(to, to_name, kind == FileType::Symlink)
                .map_err(|(action, error)| fail(action, error.into()))?;
        }
        if stat.st_nlink > 1 {
            let made = fs::statat(to, to_name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| fail("look up the copy", error.into()))?;
            let link = Link { path: target.to_owned(), device: made.st_dev, inode: made.st_ino };
            self.links.insert(identity, link);
        }
        Ok(())
    }

    /// Links to an earlier copy of the same file; false if something else has taken its place since.
    fn link(&self, link: &Link, to: &OwnedFd, name: &OsStr) -> Result<bool> {
        let Some((dir, first)) = self.root.existing_parent(&link.path)? else { return Ok(false) };
        match fs::statat(&dir, &first, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (link.device, link.inode) => {}
            _ => return Ok(false),
        }
        Ok(fs::linkat(&dir, &first, to, name, AtFlags::empty()).is_ok())
    }
}

pub(super) fn copy_error(
    root: &Root,
    from: &Path,
    path: &Path,
    action: &'static str,
    source: impl Into<io::Error>,
) -> Error {
    let (from, path, root) = (from.to_owned(), absolute(path), root.path().to_owned());
    Error::Copy { from, path, root, action, source: source.into() }
}

fn occupied(root: &Root, from: &Path, path: &Path, found: &'static str) -> Error {
    let (from, path, root) = (from.to_owned(), absolute(path), root.path().to_owned());
    Error::Occupied { from, path, root, found }
}

/// Opens the directory `name` in `dir`, made if it is missing; tells whether it was there. A link to a directory is
/// followed inside the root: `path` is where `dir` and `name` lie in it.
pub(super) fn enter(root: &Root, dir: &OwnedFd, name: &OsString, from: &Path, path: &Path) -> Result<(OwnedFd, bool)> {
    let fail = |error| copy_error(root, from, path, "open the directory", error);
    match fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => return Ok((open_child_dir(dir, name).map_err(fail)?, false)),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(copy_error(root, from, path, "make the directory", error)),
    }
    match open_child_dir(dir, name) {
        Ok(opened) => Ok((opened, true)),
        // NOTDIR or LOOP: a link, or what is no directory at all.
        Err(Errno::NOTDIR | Errno::LOOP) => match root.open_dir(path) {
            Ok(opened) => Ok((opened, true)),
            Err(Errno::NOENT) => Ok((root.create_dir_all(path, 0o755)?, true)),
            Err(Errno::NOTDIR) => Err(occupied(root, from, path, "something that is no directory")),
            Err(error) => Err(fail(error)),
        },
        Err(error) => Err(fail(error)),
    }
}

/// Removes what has the name that a new file needs; a directory is an error.
pub(super) fn make_way(root: &Root, dir: &OwnedFd, name: &OsStr, from: &Path, path: &Path) -> Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(occupied(root, from, path, "a directory")),
        Err(error) => {
            let action = "replace what stands there";
            Err(copy_error(root, from, path, action, error))
        }
    }
}

/// The path of an archive's member for messages: the archive and the member, as `archive.tar:usr/bin/ls`.
pub(super) fn member_path(archive: &Path, member: &Path) -> PathBuf {
    let mut text = archive.as_os_str().to_owned();
    text.push(":");
    text.push(OsStr::from_bytes(member.as_os_str().as_bytes()));
    PathBuf::from(text)
}
