//! Deterministic archives of a merged tree.

mod cpio;
mod tar;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::rootfs::RUNTIME_DIRECTORIES;
use crate::store::{Entry, Kind, MergedEntry, MergedTree};

use super::{Error, Result};

pub use cpio::write_cpio;
pub use tar::write_tar;

/// How an archive is made.
#[derive(Clone, Debug, Default)]
pub struct ArchiveOptions {
    /// No time in the archive is later, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// Leaves out what lies below [`RUNTIME_DIRECTORIES`] and keeps the directories.
    pub skip_runtime: bool,
}

impl ArchiveOptions {
    fn mtime(&self, entry: &Entry) -> i64 {
        self.epoch.map_or(entry.mtime, |epoch| entry.mtime.min(epoch))
    }

    fn wants(&self, path: &[u8]) -> bool {
        !self.skip_runtime
            || !RUNTIME_DIRECTORIES
                .iter()
                .any(|dir| path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.starts_with(b"/")))
    }

    fn entries<'a>(&self, tree: &'a MergedTree) -> Vec<&'a MergedEntry> {
        tree.entries.iter().filter(|merged| self.wants(&merged.entry.path)).collect()
    }
}

/// What all names of one file have in common: the first name in the whole tree.
fn file_key(entry: &Entry) -> &[u8] {
    entry.hardlink.as_deref().unwrap_or(&entry.path)
}

/// How many names each file with several of them has among `entries`, and the index of the last.
fn links<'a>(entries: &[&'a MergedEntry]) -> BTreeMap<&'a [u8], (u32, usize)> {
    let mut links: BTreeMap<&[u8], (u32, usize)> = BTreeMap::new();
    for (index, merged) in entries.iter().enumerate() {
        if !matches!(merged.entry.kind, Kind::Directory { .. }) {
            let (count, last) = links.entry(file_key(&merged.entry)).or_default();
            *count += 1;
            *last = index;
        }
    }
    links.retain(|_, (count, _)| *count > 1);
    links
}

fn path_of(entry: &Entry) -> PathBuf {
    Path::new(OsStr::from_bytes(&entry.path)).to_owned()
}

/// Copies a file of `size` bytes into an archive; one of any other size is an error, since the header with the size
/// is written already.
fn copy_file(merged: &MergedEntry, size: u64, out: &mut impl Write, what: &'static str) -> Result<()> {
    let path = &merged.source;
    let mut file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let found = file.metadata().map_err(|error| Error::io("look up", path, error))?.len();
    let damaged = |found| Error::Damaged { path: path.clone(), expected: size, found };
    if found != size {
        return Err(damaged(found));
    }
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 18)];
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let window = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact(window).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(size - left),
            _ => Error::io("read", path, error),
        })?;
        out.write_all(window).map_err(|source| Error::Write { what, source })?;
        left -= wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
