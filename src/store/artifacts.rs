//! Artifacts as a whole: are the objects there, are they sound, how large are they.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::gc::taken;
use super::root::{Use, locked};
use super::{Artifact, Layer, Slot, Store, StoreError};
use crate::types::{Digest, Encoder};

impl Store {
    /// A layer that has to be there.
    ///
    /// # Errors
    /// When it is missing or can't be read.
    pub fn need_layer(&self, digest: &Digest) -> Result<Layer, StoreError> {
        self.layer(digest)?.ok_or_else(|| self.missing("layer", digest))
    }

    /// A file that has to be there.
    ///
    /// # Errors
    /// When it is missing.
    pub fn need_file(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.file(digest).ok_or_else(|| self.missing("file", digest))
    }

    fn missing(&self, kind: &'static str, digest: &Digest) -> StoreError {
        StoreError::Missing { kind, name: digest.hex(), path: self.dir().to_path_buf() }
    }

    /// Reads every object of an artifact that was not read or made in this run, and compares it with its name. What
    /// is damaged is removed with the records that refer to it, so that it can be made again. Whether all were sound.
    ///
    /// # Errors
    /// When an object can't be read, or a damaged one can't be removed.
    pub fn check_artifact(&self, artifact: &Artifact) -> Result<bool, StoreError> {
        let objects: Vec<Use> = match artifact {
            Artifact::Tree { layers } => layers.iter().copied().map(Use::Layer).collect(),
            Artifact::Files { files } => files.values().copied().map(Use::File).collect(),
            Artifact::Value { .. } => Vec::new(),
        };
        let mut all = true;
        for object in objects {
            if locked(&self.checked).contains(&object) {
                continue;
            }
            let sound = match &object {
                Use::Layer(digest) => self.verify_layer(digest)?,
                Use::File(digest) => self.verify_file(digest)?,
                Use::Record(_) | Use::Pool(_) => true,
            };
            if sound {
                locked(&self.checked).insert(object);
            } else {
                self.discard(&object)?;
                all = false;
            }
        }
        Ok(all)
    }

    /// The size in bytes of what an action added: its files, and the topmost layer of its trees.
    pub fn artifacts_size<'a>(&self, artifacts: impl IntoIterator<Item = &'a Artifact>) -> u64 {
        let size = |artifact: &Artifact| match artifact {
            Artifact::Tree { layers } => {
                layers.last().and_then(|layer| self.layer(layer).ok().flatten()).map_or(0, |layer| layer.size)
            }
            Artifact::Files { files } => {
                files.values().filter_map(|digest| self.file(digest)?.metadata().ok()).map(|meta| taken(&meta)).sum()
            }
            Artifact::Value { .. } => 0,
        };
        artifacts.into_iter().map(size).sum()
    }

    /// Forgets the results of a project: the records that its places stand at and no other project's do (a tools tree is
    /// shared by many). What nobody uses goes with the next clean-up. Returns how many.
    ///
    /// # Errors
    /// When the store can't be read or a record can't be removed.
    pub fn forget_project(&self, project: &str) -> Result<usize, StoreError> {
        let (own, others): (Vec<_>, Vec<_>) = self.places()?.into_iter().partition(|(slot, _)| slot.project == project);
        // A project that has moved away counts for as long as its places do.
        let shared: HashSet<Digest> = others.into_iter().map(|(_, key)| key).collect();
        let mut forgotten = 0;
        for (_, key) in own.iter().filter(|(_, key)| !shared.contains(key)) {
            self.drop_record(key)?;
            forgotten += 1;
        }
        self.forget_failed_of(project)?;
        Ok(forgotten)
    }

    /// Removes every package of the pool ; a build that runs fetches what it finds missing.
    ///
    /// # Errors
    /// When the pool can't be read or a package can't be removed.
    pub fn empty_pool(&self) -> Result<(), StoreError> {
        let pool = self.pool();
        let io = |what: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source| StoreError::Io { what, path, source }
        };
        for entry in std::fs::read_dir(&pool).map_err(io("list", &pool))? {
            let path = entry.map_err(io("list", &pool))?.path();
            if path.is_file() {
                std::fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Where the last run of a place in a project keeps what its commands printed.
    pub fn log_path(&self, slot: &Slot) -> PathBuf {
        let name = Encoder::new("mkosi.log", 1).str(&slot.project).str(&slot.image).str(&slot.node).finish();
        self.dir().join("logs").join(format!("{}-{}.log", slot.node, name.short()))
    }
}

impl Layer {
    /// Whether a tree is the same with and without this layer on top.
    pub fn changes_nothing(&self) -> bool {
        self.index.entries.iter().all(|entry| entry.path.is_empty())
    }
}
