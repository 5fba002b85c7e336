//! Answers of the store and the output directory for previews.

use std::collections::BTreeMap;

use super::{Force, reads};
use crate::plan::{Lookup, NodeId, Plan, Reason};
use crate::programs::Parts;
use crate::stage::publish;
use crate::store::{Artifact, Hasher, Record, Slot, Store};
use crate::types::Digest;

/// Looks things up in a store.
pub struct StoreLookup<'a> {
    /// The store.
    pub store: &'a Store,
    /// What is ignored of it.
    pub force: &'a Force,
    /// Digests of host files.
    pub hasher: Hasher,
}

impl<'a> StoreLookup<'a> {
    /// Looks things up in this store.
    pub fn new(store: &'a Store, force: &'a Force) -> Self {
        Self { store, force, hasher: Hasher::new(store) }
    }
}

impl Lookup for StoreLookup<'_> {
    fn record(&self, key: &Digest) -> Option<Record> {
        // A record that can't be read is one that isn't there: the node runs and writes it again.
        self.store.record(key).ok().flatten()
    }

    fn last(&self, slot: &Slot) -> Option<Record> {
        self.store.last(slot).ok().flatten()
    }

    fn program(&self, digest: &Digest) -> Option<Parts> {
        self.store.program(digest)
    }

    fn read(&self, plan: &Plan, id: NodeId, inputs: &BTreeMap<String, Digest>) -> Option<Record> {
        reads::find(self.store, &self.hasher, &plan.graph[id], inputs, &mut |key| self.record(key))
    }

    fn read_changes(&self, plan: &Plan, id: NodeId, last: &Record) -> Vec<Reason> {
        reads::changes(self.store, &self.hasher, &plan.graph[id], last)
    }

    fn part(&self, tree: &Artifact, paths: &[String]) -> Option<Digest> {
        self.store.part_digest(tree, paths)
    }

    fn unpublished(&self, plan: &Plan, id: NodeId, needs: &BTreeMap<String, Artifact>) -> Option<String> {
        let node = &plan.graph[id];
        let view = node.decl.view(&node.stage, &node.image);
        publish::unpublished(self.store, &view, needs)
    }

    fn forced(&self, plan: &Plan, id: NodeId) -> Option<String> {
        self.force.reason(&plan.graph[id])
    }
}
