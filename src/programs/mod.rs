//! What a program of the host is: its file, and all else that decides what it does. For a program the dynamic loader
//! and the libraries that it is linked to or may load, for a script its interpreter, for one in Python the modules that
//! it imports, and what is declared to be run or loaded beside. It is what a sandbox would find: in its search path, by
//! its links, as ld.so(8) looks for libraries there.
//!
//! Only contents and names enter an identity (`docs/keys.md`), so that equal programs on two hosts are the same.
//!
//! Knows nothing of stages and keys.

mod cache;
mod closure;
mod elf;
mod facts;
mod libraries;
mod sight;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use facts::{Facts, Known};
use libraries::{Found, Wanted};
use sight::Sight;
pub use sight::{TOOL_PATH, find};
pub use table::package_of;

use crate::store::{Hasher, StoreError};
use crate::types::{Digest, Encoder};

/// The parts of a program: the digests of their contents by what they are (`program`, `library/libc.so.6`,
/// `interpreter/python3`, `module/pefile`, `runs/rm`, `plugin/gconv/IBM850.so`).
pub type Parts = BTreeMap<String, Digest>;

/// What a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The digest of its parts, which enters keys.
    pub digest: Digest,
    /// Its parts, which explain a change.
    pub parts: Parts,
}

impl Identity {
    /// A program of these parts.
    pub fn of(parts: Parts) -> Self {
        Self { digest: Encoder::new("mkosi.tool", 1).map(&parts).finish(), parts }
    }
}

/// A file that can be executed or loaded.
#[derive(Clone, Debug)]
struct Loadable {
    digest: Digest,
    facts: Arc<Facts>,
}

/// Where a program is looked for first, and its name.
type Name = (Vec<PathBuf>, String);

/// The programs of the host. What was found is kept, so that all that is asked of one is of one moment.
#[derive(Debug)]
pub struct Programs<'a> {
    hasher: &'a Hasher,
    root: PathBuf,
    facts: OnceLock<Mutex<Known>>,
    files: Mutex<HashMap<PathBuf, Option<Loadable>>>,
    libraries: OnceLock<HashMap<String, Vec<String>>>,
    found: Mutex<HashMap<Wanted, Option<Found>>>,
    /// Dynamic loaders without links: nearly all programs have the same.
    loaders: Mutex<HashMap<PathBuf, Option<PathBuf>>>,
    identities: Mutex<HashMap<Name, Option<Arc<Identity>>>>,
}

impl<'a> Programs<'a> {
    /// The programs of this host; `hasher` remembers the digests of their files.
    pub fn new(hasher: &'a Hasher) -> Self {
        Self::of_root(hasher, Path::new("/"))
    }

    fn of_root(hasher: &'a Hasher, root: &Path) -> Self {
        Self {
            hasher,
            root: root.to_owned(),
            facts: OnceLock::new(),
            files: Mutex::default(),
            libraries: OnceLock::new(),
            found: Mutex::default(),
            loaders: Mutex::default(),
            identities: Mutex::default(),
        }
    }

    /// What the program of this name, or at this path, is in a sandbox in which programs are looked for in the
    /// directories of `search` first. Nothing if there is none.
    ///
    /// # Errors
    /// When a file of it can't be read.
    pub fn identity(&self, name: &str, search: &[PathBuf]) -> Result<Option<Arc<Identity>>, StoreError> {
        let key = (search.to_vec(), name.to_owned());
        if let Some(known) = locked(&self.identities).get(&key) {
            return Ok(known.clone());
        }
        let sight = Sight::new(&self.root, search);
        let identity = match sight.find(name) {
            None => None,
            Some(path) => {
                let parts = closure::parts(self, &sight, &path, table::of(name))?;
                Some(Arc::new(Identity::of(parts)))
            }
        };
        locked(&self.identities).insert(key, identity.clone());
        Ok(identity)
    }

    /// A file of the host by its path there. Nothing if there is no regular file that may be read.
    fn file(&self, path: &Path) -> Result<Option<Loadable>, StoreError> {
        if let Some(known) = locked(&self.files).get(path) {
            return Ok(known.clone());
        }
        let file = self.look(path)?;
        locked(&self.files).insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn look(&self, path: &Path) -> Result<Option<Loadable>, StoreError> {
        let absent =
            |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied);
        match path.metadata() {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o444 != 0 => {}
            Ok(_) => return Ok(None),
            Err(error) if absent(error.kind()) => return Ok(None),
            Err(source) => return Err(StoreError::Io { what: "look at", path: path.to_owned(), source }),
        }
        let mut digest = match self.hasher.file(path) {
            // A stage that runs as this user can't read it either.
            Err(StoreError::Io { source, .. }) if absent(source.kind()) => return Ok(None),
            other => other?,
        };
        if let Some(facts) = self.facts().get(&digest) {
            return Ok(Some(Loadable { digest, facts }));
        }
        for _ in 0..3 {
            let content = std::fs::read(path);
            let content = content.map_err(|source| StoreError::Io { what: "read", path: path.to_owned(), source })?;
            // It may have been replaced since.
            if Digest::of(&content) == digest {
                let facts = Arc::new(Facts::of(&content));
                self.facts().put(&digest, &facts);
                return Ok(Some(Loadable { digest, facts }));
            }
            digest = self.hasher.file(path)?;
        }
        Err(StoreError::Changing { path: path.to_owned() })
    }

    fn facts(&self) -> MutexGuard<'_, Known> {
        locked(self.facts.get_or_init(|| Mutex::new(Known::load(self.hasher))))
    }

    /// The path of a dynamic loader in the sandbox without links.
    fn loader(&self, sight: &Sight<'_>, path: &Path) -> Option<PathBuf> {
        if let Some(known) = locked(&self.loaders).get(path) {
            return known.clone();
        }
        let real = sight.real(path);
        locked(&self.loaders).insert(path.to_owned(), real.clone());
        real
    }

    /// Where the dynamic loader's cache has the libraries of a name.
    fn cached(&self, sight: &Sight<'_>, name: &str) -> &[String] {
        let read = || {
            let path = sight.on_host(Path::new("/etc/ld.so.cache"));
            let bytes = path.and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
            cache::parse(&bytes)
        };
        self.libraries.get_or_init(read).get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        if let Some(facts) = self.facts.get() {
            locked(facts).save(self.hasher);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at any moment, whatever happened to the thread that had it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
