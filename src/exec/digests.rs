//! Digests of host files for the compiler, through the store's stat cache.

use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Image;
use crate::plan::Digests;
use crate::programs::{Identity, Programs};
use crate::store::{Hasher, TreeOptions};
use crate::types::Digest;

/// Digests of what lies on the host.
pub struct HostDigests<'a> {
    hasher: &'a Hasher,
    programs: Programs<'a>,
}

impl<'a> HostDigests<'a> {
    /// Digests through `hasher`.
    pub fn new(hasher: &'a Hasher) -> Self {
        Self { hasher, programs: Programs::new(hasher) }
    }
}

impl Digests for HostDigests<'_> {
    fn path(&self, path: &Path, hidden: &[PathBuf]) -> Result<Digest, String> {
        let options = TreeOptions { exclude: hidden.to_vec(), ..TreeOptions::default() };
        self.hasher.tree(path, &options).map_err(|error| error.to_string())
    }

    fn owned(&self, path: &Path) -> Result<Digest, String> {
        let options = TreeOptions { owners: true, ..TreeOptions::default() };
        self.hasher.tree(path, &options).map_err(|error| error.to_string())
    }

    fn host(&self, path: &Path) -> Result<Option<Digest>, String> {
        match std::fs::File::open(path) {
            // A stage that runs as this user can't read it either.
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => Ok(None),
            _ => self.path(path, &[]).map(Some),
        }
    }

    fn signer(&self, image: &Image) -> Result<Digest, String> {
        crate::stage::sign::identity(image)
    }

    fn published(&self, directory: &Path, base: &str) -> Vec<String> {
        crate::stage::publish::published(self.hasher.store_dir(), directory, base)
    }

    fn keeps_owners(&self) -> bool {
        !crate::sandbox::has_single_id()
    }

    fn writes_labels(&self) -> bool {
        crate::sandbox::started_as_root()
    }

    fn tool(&self, name: &str, search: &[PathBuf]) -> Result<Option<Arc<Identity>>, String> {
        self.programs.identity(name, search).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_host_file_that_is_there_is_not_taken_for_one_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let path = dir.path().join("keyring");
        std::fs::write(&path, "keys").unwrap();
        let absent = dir.path().join("absent");
        let hasher = Hasher::new(&store);
        let digests = HostDigests::new(&hasher);
        let known = digests.host(&path).unwrap();
        assert!(known.is_some());
        assert_eq!(digests.host(&absent).unwrap(), None);
        // A store that can't keep what was learnt of a changed file.
        std::fs::write(&path, "other keys").unwrap();
        std::fs::remove_dir_all(store.dir().join("tmp")).unwrap();
        let fresh = Hasher::new(&store);
        assert!(HostDigests::new(&fresh).host(&path).is_err());
        assert_eq!(HostDigests::new(&fresh).host(&absent).unwrap(), None);
    }
}
