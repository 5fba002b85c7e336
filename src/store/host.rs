//! Digests of files and directories of the host: what enters a key for a script, a tool or a tree of the user's.
//!
//! Knows nothing of layers: whiteouts and opaque marks mean nothing on the host.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::error::Context;
use super::index::parent;
use super::root::locked;
use super::scan::canonical_attribute;
use super::statcache::{self, Known, Stamp, StatCache};
use super::walk::{self, Found, host_path};
use super::{Entry, Kind, Meta, Store, StoreError, TreeIndex};
use crate::types::{Digest, Encoder};

/// What of a host tree counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Whether owners count. Without, all entries belong to user and group 0.
    pub owners: bool,
    /// Absolute paths that are left out with everything below.
    pub exclude: Vec<PathBuf>,
}

/// Computes the digests of host files and trees, with a cache in the store: a file that did not change is never read
/// again. Shared by reference between threads.
#[derive(Debug)]
pub struct Hasher {
    stat: PathBuf,
    caches: Mutex<HashMap<PathBuf, Arc<Mutex<StatCache>>>>,
}

impl Hasher {
    /// A hasher that keeps its cache in `store`.
    pub fn new(store: &Store) -> Self {
        Self { stat: store.dir().join("stat"), caches: Mutex::default() }
    }

    /// The digest of a file's content. A symbolic link is followed.
    ///
    /// # Errors
    /// When it can't be read, or changes whenever it is read.
    pub fn file(&self, path: &Path) -> Result<Digest, StoreError> {
        let path = std::path::absolute(path).context("find", path)?;
        let meta = fs::metadata(&path).context("read", &path)?;
        if !meta.is_file() {
            // Opening a pipe could wait for ever.
            let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(StoreError::io("read", &path, why));
        }
        let stamp = Stamp::of(&meta);
        let dir = path.parent().unwrap_or(&path);
        let name = path.file_name().unwrap_or_default().as_bytes();
        let cache = self.cache(Encoder::new("mkosi.stat.files", 1).bytes(dir.as_os_str().as_bytes()));
        if let Some(known) = locked(&cache).get(name, &stamp) {
            return Ok(known.digest());
        }
        // Not locked while reading: several threads read several files of a directory at once.
        let (known, _, settled) = statcache::read(&path)?;
        let digest = known.digest();
        if settled {
            locked(&cache).put(name.to_vec(), known);
        }
        Ok(digest)
    }

    /// The digest of a directory (or of a file with its mode): names, types, modes, contents, targets of links,
    /// capabilities, and owners if asked for; no times. If `path` itself is a symbolic link it is followed; links in
    /// the tree are not. Sockets are passed over. How many links a file has does not count.
    ///
    /// # Errors
    /// When something in it can't be read, or changes whenever it is read.
    pub fn tree(&self, path: &Path, options: &TreeOptions) -> Result<Digest, StoreError> {
        Ok(self.tree_index(path, options)?.digest())
    }

    /// The index under [`Hasher::tree`].
    ///
    /// # Errors
    /// When something in it can't be read, or changes whenever it is read.
    pub fn tree_index(&self, path: &Path, options: &TreeOptions) -> Result<TreeIndex, StoreError> {
        let root = std::path::absolute(path).context("find", path)?;
        let excluded = excluded(&root, options)?;
        if excluded.contains(&b""[..]) {
            return Ok(TreeIndex::default());
        }
        let mut id = Encoder::new("mkosi.stat.tree", 1);
        id.bytes(root.as_os_str().as_bytes()).list(excluded.len());
        let sorted: std::collections::BTreeSet<&Vec<u8>> = excluded.iter().collect();
        for path in sorted {
            id.bytes(path);
        }
        // A copy, not the lock: a worker that waits for others may take up another call for the same root.
        let shared = self.cache(&id);
        let cache = locked(&shared).clone();
        let found = walk::walk(&root, false, &|path| !excluded.is_empty() && excluded.contains(path))?;
        let read: Vec<Option<Answer>> =
            found.par_iter().map(|found| answer(&root, found, &cache, options)).collect::<Result<_, _>>()?;
        let mut entries = Vec::with_capacity(read.len());
        let mut known = Vec::new();
        let mut news = false;
        for answer in read.into_iter().flatten() {
            if let Some(remember) = answer.remember {
                known.push((answer.entry.path.clone(), remember));
            }
            news |= answer.news;
            entries.push(answer.entry);
        }
        if news || known.len() != cache.len() {
            let mut cache = locked(&shared);
            cache.replace(known);
            cache.save()?;
        }
        Ok(TreeIndex { entries })
    }

    /// Writes what was learnt of single files; also done when the hasher is dropped.
    ///
    /// # Errors
    /// When the cache can't be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        let caches: Vec<_> = locked(&self.caches).values().cloned().collect();
        caches.iter().try_for_each(|cache| locked(cache).save())
    }

    fn cache(&self, id: &Encoder) -> Arc<Mutex<StatCache>> {
        let path = self.stat.join(id.finish().hex());
        let mut caches = locked(&self.caches);
        let load = || Arc::new(Mutex::new(StatCache::load(path.clone())));
        Arc::clone(caches.entry(path.clone()).or_insert_with(load))
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        // Without it files are read again, nothing worse.
        let _ = self.flush();
    }
}

/// An entry, what to remember of its file, and whether that was not remembered before.
struct Answer {
    entry: Entry,
    remember: Option<Known>,
    news: bool,
}

fn answer(root: &Path, found: &Found, cache: &StatCache, options: &TreeOptions) -> Result<Option<Answer>, StoreError> {
    let Some(mut kind) = walk::kind(root, found)? else { return Ok(None) };
    let mut xattrs = std::collections::BTreeMap::new();
    let mut remember = None;
    let mut news = false;
    if let Kind::File { digest, size } = &mut kind {
        let known = match cache.get(&found.path, &Stamp::of(&found.meta)) {
            Some(known) => known.clone(),
            None => {
                let (known, read, settled) = statcache::read(&host_path(root, &found.path))?;
                news = true;
                *size = read;
                remember = settled.then(|| known.clone());
                known
            }
        };
        *digest = known.digest();
        if let Some(value) = &known.capability {
            let (name, value) = canonical_attribute(b"security.capability".to_vec(), value.clone());
            xattrs.insert(name, value);
        }
        if !news {
            remember = Some(known);
        }
    }
    let (uid, gid) = if options.owners { (found.meta.uid(), found.meta.gid()) } else { (0, 0) };
    let meta = Meta { mode: found.meta.mode() & 0o7777, uid, gid, xattrs };
    let entry = Entry { path: found.path.clone(), kind, meta, hardlink: None, mtime: found.meta.mtime() };
    Ok(Some(Answer { entry, remember, news }))
}

/// The paths to leave out, relative to the root: the empty path if the root itself is.
fn excluded(root: &Path, options: &TreeOptions) -> Result<HashSet<Vec<u8>>, StoreError> {
    let mut paths = HashSet::new();
    if options.exclude.is_empty() {
        return Ok(paths);
    }
    let real = fs::canonicalize(root).context("find", root)?;
    for path in &options.exclude {
        // The path to leave out need not exist, so it may be written either way.
        let path = std::path::absolute(path).context("find", path)?;
        for base in [root, &real] {
            if base.starts_with(&path) {
                paths.insert(Vec::new());
            } else if let Ok(below) = path.strip_prefix(base) {
                paths.insert(below.as_os_str().as_bytes().to_vec());
            }
        }
    }
    // What lies below another one never shows.
    let all = paths.clone();
    paths.retain(|path| {
        let mut above = parent(path);
        std::iter::from_fn(|| above.inspect(|at| above = parent(at))).all(|at| at.is_empty() || !all.contains(at))
    });
    Ok(paths)
}
