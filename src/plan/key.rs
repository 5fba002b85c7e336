//! The key of a node: everything that its outputs depend on, by name (specified in `docs/keys.md`).

use std::collections::BTreeMap;

use super::compile::UNKEYED;
use super::{Node, StageDecl};
use crate::store::Artifact;
use crate::types::{Digest, Encoder};

/// The key of an action of `stage` with these inputs.
pub fn key_of(stage: &str, decl: &StageDecl, inputs: &BTreeMap<String, Digest>) -> Digest {
    Encoder::new("mkosi.key", 1).str(stage).number(decl.version).map(inputs).finish()
}

/// The key of all inputs of a node but its traced sources: what it looked at in earlier runs is kept under it.
pub fn pre_key_of(node: &Node, inputs: &BTreeMap<String, Digest>) -> Digest {
    let mut encoder = Encoder::new("mkosi.prekey", 1);
    encoder.str(&node.stage).number(node.decl.version).map(inputs).list(node.traced.len());
    for name in &node.traced {
        encoder.str(name);
    }
    encoder.finish()
}

/// The name of the input that is a stage's tree.
pub const TREE: &str = "tree";

/// The name of the input that is the part of a tree which a stage sees.
pub const PART: &str = "part";

/// All inputs of a node but its traced sources, once the artifacts that it needs are known: `needs` holds them by the
/// input's name. `part` gives the digest of the part of a tree at these paths; where it can't, the whole tree counts.
pub fn node_inputs(
    node: &Node,
    needs: &BTreeMap<String, Artifact>,
    part: &dyn Fn(&Artifact, &[String]) -> Option<Digest>,
) -> BTreeMap<String, Digest> {
    let mut inputs = node.inputs.clone();
    for (name, artifact) in needs.iter().filter(|(name, _)| !name.starts_with(UNKEYED)) {
        let seen = (name == TREE && !node.decl.part.is_empty()).then(|| part(artifact, &node.decl.part)).flatten();
        match seen {
            Some(digest) => inputs.insert(PART.to_owned(), digest),
            None => inputs.insert(name.clone(), artifact.digest()),
        };
    }
    inputs
}
