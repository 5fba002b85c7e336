//! Finds the tree as it stood before or after a node, without running anything, and opens a shell there. Knows nothing
//! of what a stage does.

use std::collections::{BTreeMap, HashMap};

use super::node::{Job, Made};
use super::{Options, Shared, reads};
use crate::plan::{self, NodeId, Plan};
use crate::sandbox::{Cancel, Exit};
use crate::stage::{Left, Outputs, StageError, shell};
use crate::store::{Artifact, Failed, Hasher, Store, StoreError};
use crate::types::Digest;
use crate::types::suggest::nearest;

/// A place in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The image.
    pub image: String,
    /// The stage.
    pub stage: String,
    /// Whether it is the tree before the stage, and not the one after it.
    pub before: bool,
}

/// Why a place can't be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is no such stage.
    #[error("there is no stage `{stage}`{} (`mkosi graph` lists them)", .near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownStage {
        /// What was asked for.
        stage: String,
        /// The stage with the most similar name.
        near: Option<String>,
    },
    /// The stage is no part of the image.
    #[error("`{stage}` is no part of the image {image}: {why}")]
    Skipped {
        /// The stage.
        stage: String,
        /// The image.
        image: String,
        /// Why.
        why: String,
    },
    /// The stage works on no tree.
    #[error(
        "`{stage}` works on no tree, so there is nothing to enter; look at a stage that does, `finalize` for instance"
    )]
    NoTree {
        /// The stage.
        stage: String,
    },
    /// Nothing was built there yet.
    #[error("{image}/{stage} was not built yet, and `mkosi shell --at` builds nothing: run `mkosi build` first")]
    NotBuilt {
        /// The image.
        image: String,
        /// The stage.
        stage: String,
    },
    /// The stage's sandbox could not be made.
    #[error("{0}")]
    Stage(#[from] StageError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Opens a shell, or runs a command, in the tree at a place. What the user should know goes to `say`.
///
/// # Errors
/// When there is no such place, or nothing was built there.
pub fn look(
    plan: &Plan,
    store: &Store,
    place: &Place,
    command: &[String],
    say: &mut dyn FnMut(&str),
) -> Result<Exit, LookError> {
    let id = find(plan, place)?;
    let node = &plan.graph[id];
    let hasher = Hasher::new(store);
    let mut known = Known::new(plan, store, &hasher);
    let mut needs = known.needs(id);
    let failed = if place.before { None } else { store.failed(&node.slot())? };
    let layers = match &failed {
        Some(failed) => {
            say(&format!("This is what `{}` left when it failed: {}", place.stage, failed.why));
            failed.layers.clone()
        }
        None => known.layers(place, id, &mut needs)?,
    };
    if known.old {
        say("The configuration or its files have changed since: this is what the last build made.");
    }
    let (options, cancel, shared, made) = (Options::default(), Cancel::default(), Shared::default(), Made::default());
    let job = Job {
        store,
        hasher: &hasher,
        options: &options,
        observer: &(),
        cancel: &cancel,
        id,
        node,
        needs,
        forced: None,
        shared: &shared,
        made: &made,
    };
    let (view, tools) = (job.view(), job.tools()?);
    let work = store.work_dir("shell")?;
    let layers = layers.iter().map(|digest| store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
    let mut log = std::io::sink();
    let mut context = job.context(&view, &tools, &work, layers, None, &mut log)?;
    let left = failed.as_ref().map(|failed: &Failed| Left(failed.dir.clone()));
    Ok(shell(&mut context, left.as_ref(), command)?)
}

fn find(plan: &Plan, place: &Place) -> Result<NodeId, LookError> {
    let stages = plan.nodes.get(&place.image);
    let id = stages.and_then(|stages| stages.get(&place.stage)).copied().ok_or_else(|| LookError::UnknownStage {
        stage: place.stage.clone(),
        near: stages.and_then(|all| nearest(&place.stage, all.keys().map(String::as_str))).map(str::to_owned),
    })?;
    match &plan.graph[id].skipped {
        None => Ok(id),
        Some(why) => {
            let (stage, image) = (place.stage.clone(), place.image.clone());
            Err(LookError::Skipped { stage, image, why: why.clone() })
        }
    }
}

/// What the store has of the nodes: as they are configured now, or else as the last build made them.
pub(super) struct Known<'a> {
    plan: &'a Plan,
    store: &'a Store,
    hasher: &'a Hasher,
    outputs: HashMap<NodeId, Option<Outputs>>,
    /// Whether something was taken from a build of another configuration.
    pub(super) old: bool,
}

impl<'a> Known<'a> {
    pub(super) fn new(plan: &'a Plan, store: &'a Store, hasher: &'a Hasher) -> Self {
        Self { plan, store, hasher, outputs: HashMap::new(), old: false }
    }

    /// The layers of the tree before a node, or after it: then its own outputs become needs too, which is how scripts
    /// find what is handed on.
    fn layers(
        &mut self,
        place: &Place,
        id: NodeId,
        needs: &mut BTreeMap<String, Artifact>,
    ) -> Result<Vec<Digest>, LookError> {
        let not_built = |of: NodeId| {
            let node = &self.plan.graph[of];
            LookError::NotBuilt { image: node.image.name.clone(), stage: node.stage.clone() }
        };
        let below = self.plan.needs(id).into_iter().find(|(_, edge)| edge.input == "tree").map(|(need, _)| need);
        let node = &self.plan.graph[id];
        if place.before || !node.decl.changes {
            let below_missing = below.map(not_built);
            let no_tree = || LookError::NoTree { stage: place.stage.clone() };
            let missing = below_missing.unwrap_or_else(no_tree);
            if !place.before
                && let Some(own) = self.outputs(id)
            {
                needs.extend(own.into_iter().map(|(name, out)| (format!("need/{}.{name}", place.stage), out)));
            }
            return match needs.get("tree") {
                Some(Artifact::Tree { layers }) => Ok(layers.clone()),
                _ => Err(missing),
            };
        }
        let missing = not_built(id);
        let own = self.outputs(id).ok_or(missing)?;
        let tree = own.get("tree").cloned();
        needs.extend(own.into_iter().map(|(name, out)| (format!("need/{}.{name}", place.stage), out)));
        match tree {
            Some(Artifact::Tree { layers }) => Ok(layers),
            _ => Err(LookError::NoTree { stage: place.stage.clone() }),
        }
    }

    /// What a node needs, as far as it was built.
    fn needs(&mut self, id: NodeId) -> BTreeMap<String, Artifact> {
        let mut needs = BTreeMap::new();
        for (need, edge) in self.plan.needs(id) {
            if let Some(artifact) = self.outputs(need).and_then(|outputs| outputs.get(&edge.output).cloned()) {
                needs.insert(edge.input.clone(), artifact);
            }
        }
        needs
    }

    /// The outputs of a node, if it was built.
    pub(super) fn outputs(&mut self, id: NodeId) -> Option<Outputs> {
        if let Some(known) = self.outputs.get(&id) {
            return known.clone();
        }
        let node = &self.plan.graph[id];
        let needs = self.needs(id);
        let part = |tree: &Artifact, paths: &[String]| self.store.part_digest(tree, paths);
        let inputs = plan::node_inputs(node, &needs, &part);
        // A record that can't be read is as good as none.
        let mut record = |key: &Digest| self.store.record(key).ok().flatten();
        let current = match node.traced.is_empty() {
            true => record(&plan::key_of(&node.stage, &node.decl, &inputs)),
            false => reads::find(self.store, self.hasher, node, &inputs, &mut record),
        };
        let record = current.or_else(|| {
            let last = self.store.last(&node.slot()).ok().flatten();
            self.old |= last.is_some();
            last
        });
        let outputs = record.map(|record| record.outputs);
        self.outputs.insert(id, outputs.clone());
        outputs
    }
}
