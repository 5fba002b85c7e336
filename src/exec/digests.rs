//! Digests of host files for the compiler, through the store's stat cache.

use std::path::{Path, PathBuf};

use crate::plan::Digests;
use crate::stage::find_tool;
use crate::store::{Hasher, TreeOptions};
use crate::types::Digest;

/// Digests of what lies on the host.
pub struct HostDigests<'a> {
    hasher: &'a Hasher,
}

impl<'a> HostDigests<'a> {
    /// Digests through `hasher`.
    pub fn new(hasher: &'a Hasher) -> Self {
        Self { hasher }
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

    fn keeps_owners(&self) -> bool {
        !crate::sandbox::has_single_id()
    }

    fn tool(&self, name: &str) -> Result<Option<Digest>, String> {
        match find_tool(name) {
            Some(path) => self.hasher.file(&path).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }
}
