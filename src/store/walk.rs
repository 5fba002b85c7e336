//! Reads a directory tree in parallel: names and metadata, attributes, and the digests of contents.
//!
//! Knows nothing of layers or caches. Contents are read and not mapped: a file that is cut short under a mapping ends
//! the process.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{Access, AtFlags, CWD, SeekFrom, XattrFlags};
use rustix::io::Errno;

use super::error::Context;
use super::index::path_order;
use super::{Kind, StoreError};
use crate::types::Digest;

/// A file's read buffer; also the size from which BLAKE3 is worth running on several threads.
const BUFFER: usize = 1 << 20;

/// Something found in a tree.
pub(super) struct Found {
    /// The path below the root, empty for the root itself.
    pub path: Vec<u8>,
    /// Its metadata, of a symbolic link itself (but of what the root points to, if the root is a link).
    pub meta: Metadata,
}

/// A tree as found.
pub(super) struct Walked {
    /// Everything in it, in the order of a `TreeIndex`.
    pub found: Vec<Found>,
    /// Keeps directories open that were closed to us.
    pub opened: Opened,
}

/// Directories of our own that were closed to us and were opened up, with their modes; closed again when dropped.
#[derive(Default)]
pub(super) struct Opened(Vec<(PathBuf, u32)>);

impl Drop for Opened {
    fn drop(&mut self) {
        // The deepest first: they are reached through the others.
        for (path, mode) in self.0.iter().rev() {
            // One that was removed meanwhile needs nothing.
            let _ = fs::set_permissions(path, Permissions::from_mode(*mode));
        }
    }
}

/// The host's path of an entry.
pub(super) fn host_path(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

/// Lists a tree in the order of a `TreeIndex`. `skip` gets paths below the root and leaves out an entry with what is
/// below. With `force`, directories of our own that are closed to us are opened up until the answer is dropped; the
/// metadata found are those from before. Goes level by level, so that no depth exhausts the stack.
pub(super) fn walk(root: &Path, force: bool, skip: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<Walked, StoreError> {
    let meta = fs::metadata(root).context("read", root)?;
    let directory = meta.is_dir();
    let mut all = vec![Found { path: Vec::new(), meta }];
    let mut opened = Opened::default();
    let mut level: Vec<Vec<u8>> = if directory { vec![Vec::new()] } else { Vec::new() };
    while !level.is_empty() {
        if force {
            open_up(root, &level, &mut opened)?;
        }
        let lists: Vec<Vec<Found>> = level.par_iter().map(|dir| list(root, dir, skip)).collect::<Result<_, _>>()?;
        level = lists.iter().flatten().filter(|found| found.meta.is_dir()).map(|found| found.path.clone()).collect();
        all.extend(lists.into_iter().flatten());
    }
    all.par_sort_unstable_by(|a, b| path_order(&a.path, &b.path));
    Ok(Walked { found: all, opened })
}

/// Lets us list and enter directories.
fn open_up(root: &Path, level: &[Vec<u8>], opened: &mut Opened) -> Result<(), StoreError> {
    for dir in level {
        let path = host_path(root, dir);
        let rights = Access::READ_OK | Access::EXEC_OK;
        if rustix::fs::accessat(CWD, &path, rights, AtFlags::EACCESS).is_ok() {
            continue;
        }
        let mode = fs::symlink_metadata(&path).context("read", &path)?.mode() & 0o7777;
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o700)).context("open up", &path)?;
        opened.0.push((path, mode));
    }
    Ok(())
}

fn list(root: &Path, dir: &[u8], skip: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<Vec<Found>, StoreError> {
    let path = host_path(root, dir);
    let read = || {
        let mut found = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let mut path = dir.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            if skip(&path) {
                continue;
            }
            match entry.metadata() {
                Ok(meta) => found.push(Found { path, meta }),
                // Removed between listing and looking: it is not there, then.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    };
    read().context("read the directory", &path)
}

/// Opens a file for reading; with `force` also one of our own whose mode forbids it.
fn open(path: &Path, force: bool) -> io::Result<File> {
    match File::open(path) {
        Err(error) if force && error.kind() == io::ErrorKind::PermissionDenied => {
            let mode = fs::symlink_metadata(path)?.mode() & 0o7777;
            fs::set_permissions(path, Permissions::from_mode(mode | 0o400))?;
            let result = File::open(path);
            fs::set_permissions(path, Permissions::from_mode(mode))?;
            result
        }
        result => result,
    }
}

/// What an entry is, without a file's digest. `None` for a socket, which only its process can use.
pub(super) fn kind(root: &Path, found: &Found) -> Result<Option<Kind>, StoreError> {
    const ZERO: Digest = Digest::from_bytes([0; 32]);
    let device = || (rustix::fs::major(found.meta.rdev()), rustix::fs::minor(found.meta.rdev()));
    Ok(Some(match found.meta.mode() & 0o170_000 {
        0o040_000 => Kind::Directory { opaque: false },
        0o100_000 => Kind::File { digest: ZERO, size: found.meta.size() },
        0o120_000 => {
            let path = host_path(root, &found.path);
            let target = fs::read_link(&path).context("read the link", &path)?;
            Kind::Symlink { target: target.into_os_string().into_vec() }
        }
        0o020_000 => Kind::Character { device: device() },
        0o060_000 => Kind::Block { device: device() },
        0o010_000 => Kind::Fifo,
        _ => return Ok(None),
    }))
}

/// The digest of a file's content. With `force`, a file of our own that can't be read is opened up for the moment.
pub(super) fn hash_file(path: &Path, force: bool) -> Result<Digest, StoreError> {
    let file = open(path, force).context("open", path)?;
    hash_open(&file, path).map(|(digest, _)| digest)
}

/// The digest of an open file's content and the number of bytes in it.
pub(super) fn hash_open(file: &File, path: &Path) -> Result<(Digest, u64), StoreError> {
    let meta = file.metadata().context("read", path)?;
    let mut hasher = blake3::Hasher::new();
    // Allocated blocks are counted in 512 bytes by stat(2) whatever the block size is.
    let sparse = meta.len() > BUFFER as u64 && meta.blocks().saturating_mul(512) < meta.len();
    let total = match sparse {
        true => hash_sparse(file, meta.len(), &mut hasher),
        false => hash_rest(file, meta.len(), &mut hasher),
    };
    Ok((hasher.finalize().into(), total.context("read", path)?))
}

/// Takes in what is left of a file up to `limit` bytes, or to its end if it is `limit` bytes long.
fn hash_rest(file: impl Read, limit: u64, hasher: &mut blake3::Hasher) -> io::Result<u64> {
    let expected = usize::try_from(limit).unwrap_or(BUFFER);
    // One byte more, so that a file of the expected size ends with the first read that is short.
    let mut buffer = vec![0; expected.saturating_add(1).clamp(1, 4 * BUFFER)];
    let (mut file, mut total) = (file, 0);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        update(hasher, buffer.get(..count).unwrap_or_default());
        total += count as u64;
    }
}

/// Takes in a file of `size` bytes with holes, which are not read: that would fill memory with nothing.
fn hash_sparse(file: &File, size: u64, hasher: &mut blake3::Hasher) -> io::Result<u64> {
    let zeros = vec![0; 4 * BUFFER];
    let mut position = 0;
    while position < size {
        let (data, hole) = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) => (data.min(size), rustix::fs::seek(file, SeekFrom::Hole(data))?.min(size)),
            Err(Errno::NXIO) => (size, size),
            // This file system can't tell where holes are.
            Err(Errno::INVAL) => (position, size),
            Err(error) => return Err(error.into()),
        };
        while position < data {
            let count = usize::try_from(data - position).unwrap_or(usize::MAX).min(zeros.len());
            update(hasher, zeros.get(..count).unwrap_or_default());
            position += count as u64;
        }
        rustix::fs::seek(file, SeekFrom::Start(position))?;
        position += hash_rest(file.take(hole - data), hole - data, hasher)?;
        if position < hole {
            return Err(io::Error::other("it became shorter while it was read"));
        }
    }
    Ok(position)
}

fn update(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    if bytes.len() >= BUFFER {
        hasher.update_rayon(bytes);
    } else {
        hasher.update(bytes);
    }
}

/// The extended attributes of `path` itself that `wanted` asks for.
pub(super) fn xattrs(path: &Path, wanted: impl Fn(&[u8]) -> bool) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    const WHAT: &str = "read the attributes of";
    let names = grown(|buffer| rustix::fs::llistxattr(path, buffer)).context(WHAT, path)?;
    let mut all = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && wanted(name)) {
        match grown(|buffer| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), buffer)) {
            Ok(value) => {
                all.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(StoreError::io(WHAT, path, error)),
        }
    }
    Ok(all)
}

/// Calls for a list or value of unknown size. File systems without attributes have none.
fn grown(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for both a list and a value (xattr(7)).
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 8, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
}

/// Sets one attribute of `path` itself.
pub(super) fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
    rustix::fs::lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty())
        .context("set an attribute of", path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_zeros() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let at = |place: u64, text: &[u8], size: u64| {
            let file = File::create(&path).unwrap();
            file.write_all_at(text, place).unwrap();
            file.set_len(size).unwrap();
            let bytes = fs::read(&path).unwrap();
            let (digest, total) = hash_open(&File::open(&path).unwrap(), &path).unwrap();
            assert_eq!((digest, total), (Digest::of(&bytes), size), "{place} {size}");
        };
        let long = (BUFFER * 5 + 17) as u64;
        at(0, b"at the begin", long);
        at(long - 3, b"end", long);
        at(1 << 21, &vec![7; BUFFER + 5], long);
        at(0, b"", long);
        at(5, b"short", 100);
    }
}
