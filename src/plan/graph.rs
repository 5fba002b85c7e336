//! The compiled graph: its nodes, its edges, and what is asked of it. Knows nothing of how it is compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::DiGraph;
use petgraph::visit::EdgeRef;

use super::compile::LAST;
use super::{NodeId, Source, StageDecl};
use crate::config::Image;
use crate::programs::Identity;
use crate::store::Slot;
use crate::types::Digest;

/// One stage of one image, or of several that share it.
#[derive(Clone, Debug)]
pub struct Node {
    /// The stage's name.
    pub stage: String,
    /// Its declaration.
    pub decl: Arc<StageDecl>,
    /// The image that it was made from first; images that share the node have equal settings in its view.
    pub image: Arc<Image>,
    /// The names of all images that share it, sorted.
    pub images: BTreeSet<String>,
    /// The digests of settings, files and tools by the input's name.
    pub inputs: BTreeMap<String, Digest>,
    /// Where each file input comes from, by the input's name.
    pub sources: BTreeMap<String, Source>,
    /// The file inputs of which just what is read enters the key; none of them is in `inputs`.
    pub traced: BTreeSet<String>,
    /// The programs of the host among its inputs, by the input's name.
    pub programs: BTreeMap<String, Arc<Identity>>,
    /// Why the stage is not part of the image.
    pub skipped: Option<String>,
    /// Whether cached results are not to be used for it (`Incremental=no`).
    pub fresh: bool,
}

impl Node {
    /// `image/stage`, with the first image's name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.image.name, self.stage)
    }

    /// The place whose last record tells what changed since.
    pub fn slot(&self) -> Slot {
        Slot {
            project: self.image.project.to_string_lossy().into_owned(),
            image: self.image.name.clone(),
            node: self.stage.clone(),
        }
    }
}

/// What a node needs of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The name of the input that it fills: `tree`, `need/resolve.base`, `file/BaseTrees/00`.
    pub input: String,
    /// The output of the other node.
    pub output: String,
}

/// The graph of a run. Edges go from the node that is needed to the node that needs it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph.
    pub graph: DiGraph<Node, Edge>,
    /// By image: the node of each stage.
    pub nodes: BTreeMap<String, BTreeMap<String, NodeId>>,
    /// The images that were asked for.
    pub goals: Vec<String>,
    /// Images of which just the tree is asked for: nothing of them is published.
    pub trees: Vec<String>,
}

impl Plan {
    /// The nodes that `id` needs, with the edges, in the order of the inputs' names.
    pub fn needs(&self, id: NodeId) -> Vec<(NodeId, &Edge)> {
        let mut needs: Vec<_> =
            self.graph.edges_directed(id, Direction::Incoming).map(|edge| (edge.source(), edge.weight())).collect();
        needs.sort_by(|a, b| a.1.input.cmp(&b.1.input));
        needs
    }

    /// The nodes that need `id`, sorted.
    pub fn dependents(&self, id: NodeId) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.graph.neighbors_directed(id, Direction::Outgoing).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// The nodes that run before a graph is compiled, of the images asked for and those that they are made of, sorted.
    pub fn ahead(&self) -> Vec<NodeId> {
        let wanted = self.wanted();
        let images: BTreeSet<&String> = wanted.iter().flat_map(|id| &self.graph[*id].images).collect();
        let nodes = images.into_iter().filter_map(|image| self.nodes.get(image)).flat_map(|stages| stages.values());
        let ahead = |id: &&NodeId| self.graph[**id].decl.ahead && self.graph[**id].skipped.is_none();
        nodes.filter(ahead).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// These nodes and all that they need.
    pub fn closure(&self, nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut all = BTreeSet::new();
        let mut queue: Vec<NodeId> = nodes.into_iter().collect();
        while let Some(id) = queue.pop() {
            if all.insert(id) {
                queue.extend(self.needs(id).into_iter().map(|(need, _)| need));
            }
        }
        all
    }

    /// The nodes that the images asked for need, each after what it needs, the order being the same every time.
    pub fn wanted(&self) -> Vec<NodeId> {
        let publishes = |id: &&NodeId| self.graph[**id].decl.publishes;
        let goals = self.goals.iter().filter_map(|image| self.nodes.get(image));
        let trees = self.trees.iter().filter_map(|image| self.tree(image));
        // Nodes are added after what they need, so the order of the indices is one.
        self.closure(goals.flat_map(|stages| stages.values().filter(publishes).copied()).chain(trees))
            .into_iter()
            .collect()
    }

    /// The node that makes an image's whole tree, with its output `tree`.
    pub fn tree(&self, image: &str) -> Option<NodeId> {
        self.tree_after(image, LAST)
    }

    /// The node that makes the tree which stands after `stage`: the stage itself, or what it works on when skipped.
    pub(super) fn tree_after(&self, image: &str, stage: &str) -> Option<NodeId> {
        let id = *self.nodes.get(image)?.get(stage)?;
        let node = &self.graph[id];
        if node.skipped.is_none() && node.decl.changes {
            return Some(id);
        }
        self.tree_after(image, &node.decl.parsed.tree.as_ref()?.stage)
    }
}
