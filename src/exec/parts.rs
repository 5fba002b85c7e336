//! The digests of parts of trees, which enter the keys of stages that see no more of their tree. Knows nothing of what is
//! in them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::store::{Artifact, Layer, MergedTree, Store};
use crate::types::Digest;

/// The digests that one run has found, by the tree and the paths.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<HashMap<(Digest, Vec<String>), Digest>>);

impl Parts {
    /// The digest of the part of a tree at these paths; nothing where a layer can't be read.
    pub fn digest(&self, store: &Store, tree: &Artifact, paths: &[String]) -> Option<Digest> {
        let Artifact::Tree { layers } = tree else { return None };
        let key = (tree.digest(), paths.to_vec());
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(&key) {
            return Some(*digest);
        }
        let layers = layers.iter().map(|layer| store.layer(layer).ok().flatten()).collect::<Option<Vec<Layer>>>()?;
        let digest = MergedTree::new(&layers).part(paths).into_index().digest();
        known().insert(key, digest);
        Some(digest)
    }
}
