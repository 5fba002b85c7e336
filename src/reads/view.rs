//! A directory of the host as a command may see it: without what is hidden, and without what enters no key (owners,
//! the number of links, sockets). Symbolic links are shown and never followed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::types::{Digest, Encoder};

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// There is nothing.
    Absent,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe or a device.
    Special,
    /// It can't be looked at.
    Closed,
}

impl Kind {
    /// The name that enters digests.
    fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Directory => "directory",
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::Special => "special",
            Self::Closed => "closed",
        }
    }

    fn of(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Self::Directory,
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => Self::Special,
            // Only its own process can use a socket.
            _ => Self::Absent,
        }
    }
}

/// What has to stay the same for a file to count as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content changed last: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
    /// When anything of it changed last.
    pub ctime: (i64, i64),
}

impl Stamp {
    /// The stamp in a file's metadata.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a look at a path shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What it is.
    pub kind: Kind,
    /// Type and permission bits, as in `stat(2)`; 0 where there is nothing.
    pub mode: u32,
    /// The size of a file or of a link's target, in bytes.
    pub size: u64,
    /// The number of a device.
    pub device: u64,
    /// Where a link points.
    pub target: Vec<u8>,
    /// Why a path can't be looked at, as an error number.
    pub error: i32,
    /// What tells a file from a changed one; no part of the digest.
    pub stamp: Option<Stamp>,
}

impl Look {
    fn nothing(kind: Kind, error: i32) -> Self {
        Self { kind, mode: 0, size: 0, device: 0, target: Vec::new(), error, stamp: None }
    }

    /// The digest of what was seen: kind, mode, size, target. Times are no part of it.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new("mkosi.seen.name", 1);
        encoder.str(self.kind.name()).number(u64::from(self.mode)).number(self.size).number(self.device);
        encoder.bytes(&self.target).number(u64::from(self.error.unsigned_abs()));
        encoder.finish()
    }
}

/// A directory of the host without what is hidden of it. Paths are relative to it, without a leading slash; the empty
/// one is the directory itself.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    path: PathBuf,
    hidden: HashSet<Vec<u8>>,
}

impl View {
    /// Opens a directory; a symbolic link at `path` itself is followed. `hidden` has absolute paths.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path, hidden: &[PathBuf]) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())?;
        let real = std::fs::canonicalize(&path)?;
        let below = |hidden: &PathBuf| {
            let below = hidden.strip_prefix(&path).or_else(|_| hidden.strip_prefix(&real)).ok()?;
            Some(below.as_os_str().as_bytes().to_vec()).filter(|below| !below.is_empty())
        };
        let hidden = hidden.iter().filter_map(below).collect();
        Ok(Self { root, path, hidden })
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a path in it is on the host.
    pub fn host_path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path)) }
    }

    fn open_in(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Looks at a path itself.
    pub fn look(&self, path: &[u8]) -> Look {
        if self.hidden.contains(path) {
            return Look::nothing(Kind::Absent, 0);
        }
        match self.try_look(path) {
            Ok(look) => look,
            // A component on the way that is now something else is told by the look at it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Look::nothing(Kind::Absent, 0),
            Err(error) => Look::nothing(Kind::Closed, error.raw_os_error()),
        }
    }

    fn try_look(&self, path: &[u8]) -> rustix::io::Result<Look> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let file = File::from(self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW)?);
        let meta = file.metadata().map_err(errno)?;
        let kind = Kind::of(meta.mode());
        let mut look = Look { mode: meta.mode(), ..Look::nothing(kind, 0) };
        match kind {
            Kind::File => {
                look.size = meta.size();
                look.stamp = Some(Stamp::of(&meta));
            }
            Kind::Symlink => {
                look.target = rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes();
                look.size = look.target.len() as u64;
                look.stamp = Some(Stamp::of(&meta));
            }
            Kind::Special => look.device = meta.rdev(),
            Kind::Directory => look.stamp = Some(Stamp::of(&meta)),
            Kind::Absent | Kind::Closed => look.mode = 0,
        }
        Ok(look)
    }

    /// The names in a directory with what they are, sorted.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Kind)>> {
        let directory = self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name);
            if self.hidden.contains(&below) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.look(&below).kind,
                known => Kind::of(known.as_raw_mode()),
            };
            if kind != Kind::Absent {
                names.push((name.to_vec(), kind));
            }
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// The digest of a directory's listing: names and what they are. One of its own for a directory that can't be
    /// listed.
    pub fn list_digest(list: &io::Result<Vec<(Vec<u8>, Kind)>>) -> Digest {
        let mut encoder = Encoder::new("mkosi.seen.list", 1);
        match list {
            Ok(names) => {
                encoder.list(names.len());
                for (name, kind) in names {
                    encoder.bytes(name).str(kind.name());
                }
            }
            Err(error) => {
                encoder.str("closed").number(u64::from(error.raw_os_error().unwrap_or(0).unsigned_abs()));
            }
        }
        encoder.finish()
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// When it can't be opened or is something else.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        // O_NONBLOCK: a pipe that has taken the file's place meanwhile must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.open_in(path, flags)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(Errno::NXIO));
        }
        Ok(file)
    }

    /// The file capabilities (`security.capability`) of a path; empty if it has none.
    pub fn capability(&self, path: &[u8]) -> Vec<u8> {
        let Ok(file) = self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW) else { return Vec::new() };
        let mut buffer = [0_u8; 64];
        // Such a descriptor takes no fgetxattr(2), its path below /proc does.
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::getxattr(by_number.as_str(), "security.capability", &mut buffer[..]) {
            Ok(size) => buffer.get(..size).unwrap_or_default().to_vec(),
            Err(_) => Vec::new(),
        }
    }

    /// The digest of file capabilities.
    pub fn capability_digest(value: &[u8]) -> Digest {
        Encoder::new("mkosi.seen.capability", 1).bytes(value).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_hidden_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "hidden", "d"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("d/secret"), "x").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let hidden = ["hidden", "d/secret"].map(|name| dir.path().join(name));
        let view = View::open(dir.path(), &hidden).unwrap();
        let names: Vec<_> = view.list(b"").unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"a", b"d"]);
        assert_eq!(view.list(b"d").unwrap(), []);
        for path in [&b"hidden"[..], b"d/secret", b"socket", b"nothing", b"a/b/c"] {
            assert_eq!(view.look(path).kind, Kind::Absent);
        }
        assert_eq!((view.look(b"a").kind, view.look(b"").kind), (Kind::Directory, Kind::Directory));
    }

    #[test]
    fn no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        symlink("..", dir.path().join("root/up")).unwrap();
        symlink("/etc/passwd", dir.path().join("root/file")).unwrap();
        let view = View::open(&dir.path().join("root"), &[]).unwrap();
        assert_eq!(view.look(b"up").target, b"..");
        assert_eq!(view.look(b"up/outside").kind, Kind::Absent);
        assert!(view.file(b"up/outside").is_err() && view.file(b"file").is_err() && view.list(b"up").is_err());
    }

    #[test]
    fn times_and_owners_are_no_part_of_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let view = View::open(dir.path(), &[]).unwrap();
        let before = view.look(b"f");
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let after = view.look(b"f");
        assert_eq!(before.digest(), after.digest());
        assert_ne!(before.stamp, after.stamp);
        std::fs::write(&path, "longer").unwrap();
        assert_ne!(before.digest(), view.look(b"f").digest());
    }
}
