//! The digests of parts of trees, kept so that a build with nothing to do need not read what is in each layer:
//! `parts/<digest of the tree and the paths>`. Each can be found again, so clean-up removes all of them.

use std::fs;

use super::gc::list;
use super::root::write_small;
use super::{Artifact, Layer, MergedTree, Store};
use crate::types::{Digest, Encoder};

impl Store {
    /// The digest of the part of a tree that lies at these paths; nothing where a layer can't be read.
    pub fn part_digest(&self, tree: &Artifact, paths: &[String]) -> Option<Digest> {
        let Artifact::Tree { layers } = tree else { return None };
        let mut encoder = Encoder::new("mkosi.part", 1);
        encoder.digest(&tree.digest()).list(paths.len());
        for path in paths {
            encoder.str(path);
        }
        let name = encoder.finish();
        let path = self.dir.join("parts").join(name.hex());
        // A damaged file is none: it holds what it should only together with its own digest.
        let line = |digest: &Digest| {
            let sum = Encoder::new("mkosi.part.sum", 1).digest(&name).digest(digest).finish();
            format!("{} {}\n", digest.hex(), sum.hex())
        };
        let known = fs::read_to_string(&path).ok().and_then(|text| {
            let digest = text.split(' ').next()?.parse().ok()?;
            (text == line(&digest)).then_some(digest)
        });
        if known.is_some() {
            return known;
        }
        let layers = layers.iter().map(|layer| self.layer(layer).ok().flatten()).collect::<Option<Vec<Layer>>>()?;
        let digest = MergedTree::new(&layers).part(paths).into_index().digest();
        // The next run finds it again where it can't be kept.
        let _ = write_small(&self.dir, &path, line(&digest).as_bytes());
        Some(digest)
    }

    /// Forgets all of them.
    pub(super) fn drop_parts(&self) {
        for path in list(&self.dir.join("parts")).unwrap_or_default() {
            // Another run may have removed it just now.
            let _ = fs::remove_file(path);
        }
    }
}
