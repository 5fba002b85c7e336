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

/// All inputs of a node, once the artifacts that it needs are known: `needs` holds them by the input's name.
pub fn node_inputs(node: &Node, needs: &BTreeMap<String, Artifact>) -> BTreeMap<String, Digest> {
    let mut inputs = node.inputs.clone();
    let keyed = needs.iter().filter(|(name, _)| !name.starts_with(UNKEYED));
    inputs.extend(keyed.map(|(name, artifact)| (name.clone(), artifact.digest())));
    inputs
}
