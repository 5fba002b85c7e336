//! Answers of the store and the output directory for previews.

use std::collections::BTreeMap;

use super::Force;
use crate::plan::{Lookup, NodeId, Plan};
use crate::stage::publish;
use crate::store::{Artifact, Record, Slot, Store};
use crate::types::Digest;

/// Looks things up in a store.
pub struct StoreLookup<'a> {
    /// The store.
    pub store: &'a Store,
    /// What is ignored of it.
    pub force: &'a Force,
}

impl Lookup for StoreLookup<'_> {
    fn record(&self, key: &Digest) -> Option<Record> {
        // A record that can't be read is one that isn't there: the node runs and writes it again.
        self.store.record(key).ok().flatten()
    }

    fn last(&self, slot: &Slot) -> Option<Record> {
        self.store.last(slot).ok().flatten()
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
