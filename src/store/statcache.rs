//! Remembers the digests of host files, so that an unchanged file is never read again.
//!
//! A file counts as unchanged while its device, inode, size, modification time and change time are. As in Git's index
//! (`Documentation/technical/racy-git.txt`), that is not enough for a file that was written about when it was read: a
//! second write within the grain of the clock leaves no trace. So only files are remembered whose times were older
//! than the moment of reading by more than that grain.
//!
//! One cache file for each root, `stat/<digest of what it is for>`. It is replaced as a whole; of two writers at once
//! the later one wins, and what the other one knew is read again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::Context;
use super::index::path_order;
use super::root::write_small;
use super::{StoreError, walk};
pub(super) use crate::reads::Stamp;
use crate::types::Digest;

/// What a cache file begins with; the last byte is the version of its format.
const MAGIC: &[u8; 8] = b"mkosist\x01";

/// The grain of time stamps: the kernel's tick at the slowest.
const FINE: i128 = 10_000_000;
/// The grain where stamps have no sub-second part: FAT's two seconds.
const COARSE: i128 = 2_000_000_000;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// Whether a later write to a file would show in its stamp, given that reading began at `read`.
fn is_settled(stamp: &Stamp, read: SystemTime) -> bool {
    let read = read.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    let read = i128::try_from(read).unwrap_or(i128::MAX);
    let grain = if stamp.mtime.1 == 0 || stamp.ctime.1 == 0 { COARSE } else { FINE };
    [stamp.mtime, stamp.ctime]
        .iter()
        .all(|(seconds, nanos)| i128::from(*seconds) * 1_000_000_000 + i128::from(*nanos) + grain < read)
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    stamp: Stamp,
    digest: [u8; 32],
    /// The value of `security.capability`; a change of it changes the change time.
    pub capability: Option<Vec<u8>>,
}

impl Known {
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }

    /// The state of the file that the digest is of.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// The cache of one root, sorted by path.
#[derive(Clone, Debug, Default)]
pub(super) struct StatCache {
    path: PathBuf,
    /// Shared, so that a copy for reading costs nothing.
    known: Arc<Vec<(Vec<u8>, Known)>>,
    changed: bool,
}

impl StatCache {
    /// Reads the cache at `path`. One that is absent, damaged or of another version is empty.
    pub fn load(path: PathBuf) -> Self {
        let known = fs::read(&path)
            .ok()
            .and_then(|bytes| postcard::from_bytes(bytes.strip_prefix(MAGIC)?).ok())
            .unwrap_or_default();
        Self { path, known: Arc::new(known), changed: false }
    }

    /// What is known of the file, unless it changed since.
    pub fn get(&self, name: &[u8], stamp: &Stamp) -> Option<&Known> {
        let at = self.known.binary_search_by(|(known, _)| path_order(known, name)).ok()?;
        self.known.get(at).map(|(_, known)| known).filter(|known| known.stamp == *stamp)
    }

    /// Remembers a file.
    pub fn put(&mut self, name: Vec<u8>, known: Known) {
        let all = Arc::make_mut(&mut self.known);
        match all.binary_search_by(|(other, _)| path_order(other, &name)) {
            Ok(at) => {
                if let Some(old) = all.get_mut(at) {
                    *old = (name, known);
                }
            }
            Err(at) => all.insert(at, (name, known)),
        }
        self.changed = true;
    }

    /// Replaces everything by `known`, which is sorted by path.
    pub fn replace(&mut self, known: Vec<(Vec<u8>, Known)>) {
        self.known = Arc::new(known);
        self.changed = true;
    }

    /// Remembers several files.
    pub fn extend(&mut self, known: Vec<(Vec<u8>, Known)>) {
        let mut all: std::collections::HashMap<Vec<u8>, Known> = self.known.iter().cloned().collect();
        all.extend(known);
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|a, b| path_order(&a.0, &b.0));
        self.replace(all);
    }

    /// How many files are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Writes the cache to the store at `store`, if it changed.
    pub fn save(&mut self, store: &Path) -> Result<(), StoreError> {
        if !self.changed {
            return Ok(());
        }
        let encoded = postcard::to_extend(self.known.as_slice(), MAGIC.to_vec()).map_err(|error| {
            StoreError::Encode { what: "a stat cache", path: self.path.clone(), why: error.to_string() }
        })?;
        write_small(store, &self.path, &encoded)?;
        self.changed = false;
        Ok(())
    }
}

/// Reads a file in full. The flag tells whether the answer may be remembered.
pub(super) fn read(path: &Path) -> Result<(Known, u64, bool), StoreError> {
    for _ in 0..ATTEMPTS {
        let begun = SystemTime::now();
        let file = File::open(path).context("open", path)?;
        let before = Stamp::of(&file.metadata().context("read", path)?);
        let (digest, size) = walk::hash_open(&file, path)?;
        let capability = walk::xattrs(path, |name| name == b"security.capability")?.into_values().next();
        let after = Stamp::of(&file.metadata().context("read", path)?);
        // Files of /proc and /sys say that they are empty, or a page.
        if before == after {
            let known = Known { stamp: before, digest: *digest.as_bytes(), capability };
            return Ok((known, size, size == before.size && is_settled(&before, begun)));
        }
    }
    Err(StoreError::Changing { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime: (i64, i64), ctime: (i64, i64)) -> Stamp {
        Stamp { device: 1, inode: 1, size: 1, mtime, ctime }
    }

    #[test]
    fn a_file_written_about_when_it_was_read_is_not_trusted() {
        let read = UNIX_EPOCH + Duration::new(100, 0);
        assert!(is_settled(&stamp((99, 989_999_999), (99, 1)), read));
        assert!(!is_settled(&stamp((99, 990_000_000), (99, 1)), read));
        assert!(!is_settled(&stamp((99, 1), (99, 990_000_000)), read));
        assert!(!is_settled(&stamp((101, 1), (99, 1)), read), "a time in the future tells nothing");
    }

    #[test]
    fn whole_seconds_are_coarser() {
        let read = UNIX_EPOCH + Duration::new(100, 0);
        assert!(!is_settled(&stamp((98, 0), (98, 0)), read));
        assert!(is_settled(&stamp((97, 0), (97, 0)), read));
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let test = crate::store::testing::store();
        let dir = test.store.dir();
        let path = dir.join("stat/cache");
        fs::write(dir.join("file"), "x").unwrap();
        let (known, _, _) = read(&dir.join("file")).unwrap();
        let mut cache = StatCache::load(path.clone());
        cache.put(b"file".to_vec(), known.clone());
        cache.save(dir).unwrap();
        assert_eq!(StatCache::load(path.clone()).get(b"file", &known.stamp), Some(&known));
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, bytes).unwrap();
        assert_eq!(StatCache::load(path).len(), 0);
    }
}
