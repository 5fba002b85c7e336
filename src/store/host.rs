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
use super::root::{locked, write_small};
use super::scan::canonical_attribute;
use super::statcache::{self, Known, Stamp, StatCache};
use super::walk::{self, Found, host_path};
use super::{Entry, Kind, Meta, Store, StoreError, TreeIndex};
use crate::types::{Digest, Encoder};

/// How long a digest is, in bytes.
const DIGEST_SIZE: usize = 32;

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
    /// The store's directory.
    pub(super) store: PathBuf,
    caches: Mutex<HashMap<PathBuf, Arc<Mutex<StatCache>>>>,
}

impl Hasher {
    /// A hasher that keeps its cache in `store`.
    pub fn new(store: &Store) -> Self {
        Self { store: store.dir().to_owned(), caches: Mutex::default() }
    }

    /// The directory of the store that it belongs to.
    pub fn store_dir(&self) -> &Path {
        &self.store
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
        let skip = |path: &[u8]| !excluded.is_empty() && excluded.contains(path);
        let found = walk::walk(&root, false, &skip)?.found;
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
            cache.save(&self.store)?;
        }
        Ok(TreeIndex { entries })
    }

    /// Writes what was learnt of single files; also done when the hasher is dropped.
    ///
    /// # Errors
    /// When the cache can't be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        let caches: Vec<_> = locked(&self.caches).values().cloned().collect();
        caches.iter().try_for_each(|cache| locked(cache).save(&self.store))
    }

    /// What was remembered under a name that says what it is and in which form. Nothing where it is not there or damaged.
    pub fn recall(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.recalled(name)).ok()?;
        let content = bytes.split_off(bytes.len().min(DIGEST_SIZE));
        (Digest::of(&content).as_bytes() == bytes.as_slice()).then_some(content)
    }

    /// Remembers something that can be found again; a few names in all.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn remember(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let bytes = [Digest::of(content).as_bytes().as_slice(), content].concat();
        write_small(&self.store, &self.recalled(name), &bytes)
    }

    fn recalled(&self, name: &str) -> PathBuf {
        self.store.join("stat").join(Encoder::new("mkosi.stat.found", 1).str(name).finish().hex())
    }

    pub(super) fn cache(&self, id: &Encoder) -> Arc<Mutex<StatCache>> {
        let path = self.store.join("stat").join(id.finish().hex());
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::testing::store;

    /// Long enough ago for the cache to trust.
    fn write(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - HOUR).unwrap();
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const GRAIN: Duration = Duration::from_millis(25);

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for (name, content) in [("d/a", "a"), ("d/b", "b"), ("script", "#!/bin/sh")] {
            write(&dir.path().join(name), content);
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o644)).unwrap();
        }
        symlink("d/a", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn everything_but_times_and_links_counts() {
        let test = store();
        let plain = TreeOptions::default();
        let digest = |dir: &Path, options: &TreeOptions| Hasher::new(&test.store).tree(dir, options).unwrap();
        let (one, two) = (tree(), tree());
        let want = digest(one.path(), &plain);
        assert_eq!(digest(two.path(), &plain), want);
        symlink(one.path(), two.path().join("to")).unwrap();
        assert_eq!(digest(&two.path().join("to"), &plain), want, "the path itself is followed");
        let changed = |action: &dyn Fn(&Path), options: &TreeOptions| {
            let dir = tree();
            action(dir.path());
            digest(dir.path(), options)
        };
        let owners = TreeOptions { owners: true, ..TreeOptions::default() };
        let chowned = |dir: &Path| chown(dir.join("d/a"), Some(7), None).unwrap();
        assert_eq!(changed(&chowned, &plain), want);
        assert_ne!(changed(&chowned, &owners), digest(one.path(), &owners));
        let same: [&dyn Fn(&Path); 3] = [
            &|dir| fs::File::open(dir.join("d/a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
            &|dir| walk::set_xattr(&dir.join("d/a"), b"user.note", b"n").unwrap(),
            &|dir| drop(std::os::unix::net::UnixListener::bind(dir.join("sock")).unwrap()),
        ];
        for action in same {
            assert_eq!(changed(action, &plain), want);
        }
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let other: [&dyn Fn(&Path); 7] = [
            &|dir| fs::write(dir.join("d/a"), "A").unwrap(),
            &|dir| fs::rename(dir.join("d/a"), dir.join("d/c")).unwrap(),
            &|dir| fs::set_permissions(dir.join("script"), Permissions::from_mode(0o755)).unwrap(),
            &|dir| fs::remove_file(dir.join("link")).and_then(|()| symlink("d/b", dir.join("link"))).unwrap(),
            &|dir| fs::create_dir(dir.join("empty")).unwrap(),
            &|dir| fs::set_permissions(dir.join("d"), Permissions::from_mode(0o700)).unwrap(),
            &|dir| walk::set_xattr(&dir.join("script"), b"security.capability", &capability).unwrap(),
        ];
        for action in other {
            assert_ne!(changed(action, &plain), want);
        }
    }

    #[test]
    fn what_is_left_out_does_not_count() {
        let test = store();
        let hasher = Hasher::new(&test.store);
        let dir = tree();
        let exclude = |paths: &[&str]| TreeOptions {
            owners: false,
            exclude: paths.iter().map(|path| dir.path().join(path)).collect(),
        };
        let names = |options: &TreeOptions| -> Vec<String> {
            let index = hasher.tree_index(dir.path(), options).unwrap();
            index.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
        };
        assert_eq!(names(&exclude(&[])), ["", "d", "d/a", "d/b", "link", "script"]);
        assert_eq!(names(&exclude(&["d", "d/a", "absent"])), ["", "link", "script"]);
        assert_eq!(names(&exclude(&[""])), [""; 0]);
    }

    #[test]
    fn an_unchanged_file_is_never_read_again() {
        let test = store();
        let dir = tree();
        let path = dir.path().join("script");
        std::thread::sleep(GRAIN);
        let plain = TreeOptions::default();
        let (file, all) = {
            let hasher = Hasher::new(&test.store);
            (hasher.file(&path).unwrap(), hasher.tree(dir.path(), &plain).unwrap())
        };
        assert_eq!(file, Digest::of(b"#!/bin/sh"));
        // A changed cache shows whether the file or the cache was asked.
        let stat = test.store.dir().join("stat");
        for entry in fs::read_dir(&stat).unwrap() {
            let cache = entry.unwrap().path();
            let mut bytes = fs::read(&cache).unwrap();
            let at = bytes.windows(32).position(|window| window == file.as_bytes()).unwrap();
            bytes[at] ^= 1;
            fs::write(&cache, bytes).unwrap();
        }
        let hasher = Hasher::new(&test.store);
        assert_ne!(hasher.file(&path).unwrap(), file);
        assert_ne!(hasher.tree(dir.path(), &plain).unwrap(), all);
        // And a change is seen, even one that keeps the size and puts the old time back.
        write(&path, "#!/bin/SH");
        assert_eq!(hasher.file(&path).unwrap(), Digest::of(b"#!/bin/SH"));
        let index = hasher.tree_index(dir.path(), &plain).unwrap();
        let want = Kind::File { digest: Digest::of(b"#!/bin/SH"), size: 9 };
        assert_eq!(index.lookup(b"script").unwrap().kind, want);
    }

    #[test]
    fn a_file_written_just_now_is_read_again() {
        let test = store();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let hasher = Hasher::new(&test.store);
        // The same size each time and often within one tick of the clock.
        for number in 100..400 {
            fs::write(&path, number.to_string()).unwrap();
            let want = Digest::of(number.to_string().as_bytes());
            assert_eq!(hasher.file(&path).unwrap(), want);
            let index = hasher.tree_index(dir.path(), &TreeOptions::default()).unwrap();
            assert_eq!(index.lookup(b"f").unwrap().kind, Kind::File { digest: want, size: 3 });
        }
    }

    #[test]
    fn pipes_and_absent_files_are_errors_and_stop_nothing() {
        let test = store();
        let hasher = Hasher::new(&test.store);
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = hasher.file(&pipe).unwrap_err().to_string();
        assert!(error.contains("no regular file") && error.contains("pipe"), "{error}");
        assert!(hasher.file(&dir.path().join("absent")).is_err());
        let index = hasher.tree_index(dir.path(), &TreeOptions::default()).unwrap();
        assert_eq!(index.lookup(b"pipe").unwrap().kind, Kind::Fifo);
    }
}
