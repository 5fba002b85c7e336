//! The compiler: every image's stages as nodes of one graph.
//!
//! Nodes of different images that would have equal keys whatever happens (the same stage, settings, files and tools,
//! and needs that are themselves one node) become one node. Nodes that turn out equal only later, because the
//! things that they need came out equal, meet in the store by their key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};

use super::decl::ARGUMENTS;
use super::inputs::{
    Digests, Hashed, SEED_STAGES, TOOLS, TOOLS_IMAGE, ToolsTree, by_need, hash_inputs, missing_tool, search_paths,
    settle_bootstrap, unmet,
};
use super::need::Need;
use super::outputs::{OutputPart, Outputs};
use super::{Declarations, Edge, Hidden, Node, Plan, PlanError, Programs, RootAccess, StageDecl};
use crate::config::{Image, Origin, Value};
use crate::types::{Digest, Encoder, key_of_uri, sha512_crypt};

/// What the names of needs that enter no key begin with.
pub(super) const UNKEYED: &str = "unkeyed";

/// What the names of the inputs that are programs of the host begin with.
pub(super) const TOOL: &str = "tool/";

/// The setting that says whose certificates a tools tree is shown with.
const CERTIFICATES: &str = "ToolsTreeCertificates";

/// The last stage that changes an image's tree.
pub(super) const LAST: &str = "kernel";

/// What stands before an image's name in the name of a need of that image.
pub const DEPENDENCY: &str = "dependency.";

/// A node's place in the graph.
pub type NodeId = NodeIndex<u32>;

/// What a node gets for one of its file inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host, without the hidden paths below it.
    Host {
        /// Where it is.
        path: PathBuf,
        /// What is not seen of it.
        hidden: Hidden,
    },
    /// An output of another image in this graph; the artifact comes with the node's needs under the same name.
    Image {
        /// The image's output name.
        output: String,
        /// What of it.
        part: OutputPart,
    },
}

/// Compiles `images` to one graph. `goals` names the images that were asked for.
///
/// # Errors
/// A host file that can't be read; images whose outputs need each other in a circle.
pub fn compile(
    declarations: &Declarations,
    images: &[Image],
    goals: &[String],
    digests: &dyn Digests,
) -> Result<Plan, PlanError> {
    let images: Vec<Arc<Image>> = by_need(declarations, &settle_bootstrap(images, digests))?;
    let mut outputs = Outputs::of(&images);
    outputs.look_up(&images, digests);
    let hashed = hash_inputs(declarations, &images, &outputs, digests)?;
    let mut builder = Builder {
        plan: Plan { graph: DiGraph::new(), nodes: BTreeMap::new(), goals: goals.to_vec(), trees: Vec::new() },
        identities: HashMap::new(),
        identity_of: HashMap::new(),
        hashed: &hashed,
        images: &images,
        outputs: &outputs,
        keeps_owners: digests.keeps_owners(),
        writes_labels: digests.writes_labels(),
        passwords: RefCell::default(),
    };
    for index in 0..images.len() {
        // What all others of an image may be run with comes first.
        let (first, rest): (Vec<_>, Vec<_>) = declarations.iter().partition(|(stage, _)| SEED_STAGES.contains(stage));
        for (stage, decl) in first.into_iter().chain(rest) {
            builder.add(index, stage, decl)?;
        }
    }
    Ok(builder.plan)
}

struct Builder<'a> {
    plan: Plan,
    identities: HashMap<Digest, NodeId>,
    identity_of: HashMap<NodeId, Digest>,
    hashed: &'a Hashed,
    images: &'a [Arc<Image>],
    outputs: &'a Outputs,
    keeps_owners: bool,
    writes_labels: bool,
    /// Slow hashes of passwords, each made once.
    passwords: RefCell<HashMap<String, String>>,
}

impl Builder<'_> {
    fn add(&mut self, index: usize, stage: &str, decl: &Arc<StageDecl>) -> Result<(), PlanError> {
        let image = &self.images[index];
        let incremental = image.values.get("Incremental");
        let mut node = Node {
            stage: stage.to_owned(),
            decl: Arc::clone(decl),
            image: Arc::clone(image),
            images: BTreeSet::from([image.name.clone()]),
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            traced: BTreeSet::new(),
            programs: BTreeMap::new(),
            skipped: unmet(image, decl),
            fresh: incremental.is_some_and(|s| s.origin != Origin::Default && s.value.is_empty_or_no()),
        };
        let mut edges: BTreeMap<String, (NodeId, String)> = BTreeMap::new();
        if node.skipped.is_none() {
            self.settings_and_tools(&mut node);
            self.files(index, &mut node, &mut edges)?;
            self.default_tools(&node, &mut edges)?;
            self.stages(&node, &mut edges);
            self.dependencies(&node, &mut edges);
        }
        let id = match self.identity(&node, &edges) {
            Some(identity) => match self.identities.get(&identity) {
                Some(&id) => {
                    self.plan.graph[id].images.insert(image.name.clone());
                    id
                }
                None => {
                    let id = self.plan.graph.add_node(node);
                    self.identities.insert(identity, id);
                    self.identity_of.insert(id, identity);
                    for (input, (need, output)) in edges {
                        self.plan.graph.add_edge(need, id, Edge { input, output });
                    }
                    id
                }
            },
            None => self.plan.graph.add_node(node),
        };
        self.plan.nodes.entry(image.name.clone()).or_default().insert(stage.to_owned(), id);
        Ok(())
    }

    /// A password with its slow hash in its place. That in the image is no faster, so whoever has the digest of this has
    /// nothing better to try guesses on.
    fn dear(&self, value: &Value) -> Option<Value> {
        const SALT: &str = "mkosi.key";
        let Value::Map(map) = value else { return None };
        let (password, hashed) = (map.get("password")?.as_text()?, map.get("hashed")?.as_bool()?);
        if hashed || password.is_empty() {
            return None;
        }
        let mut known = self.passwords.borrow_mut();
        let hash = known.entry(password.to_owned()).or_insert_with(|| sha512_crypt(password, SALT)).clone();
        let mut map = map.clone();
        map.insert("password".to_owned(), Value::Text(hash));
        Some(Value::Map(map))
    }

    fn settings_and_tools(&self, node: &mut Node) {
        for setting in &node.decl.settings {
            let mut encoder = Encoder::new("mkosi.setting", 1);
            let value = node.image.get(setting);
            // Nothing depends on how a key is unlocked, and nobody is to guess a password by its digest.
            match value.as_text().and_then(key_of_uri).map(Value::Text).or_else(|| self.dear(value)) {
                Some(value) => value.encode(&mut encoder),
                None => value.encode(&mut encoder),
            }
            node.inputs.insert(format!("setting/{setting}"), encoder.finish());
        }
        // Without arguments nothing is added, so that there is one key for all who give none.
        let arguments = node.image.get(ARGUMENTS);
        if node.decl.arguments && !arguments.is_empty() {
            let mut encoder = Encoder::new("mkosi.setting", 1);
            arguments.encode(&mut encoder);
            node.inputs.insert(ARGUMENTS.to_owned(), encoder.finish());
        }
        if !self.keeps_owners && (node.decl.changes || node.decl.sandbox.root != RootAccess::None) {
            node.inputs.insert("owners".to_owned(), Encoder::new("mkosi.owners", 1).str("single").finish());
        }
        if !self.writes_labels && node.decl.sandbox.labels && node.decl.changes {
            node.inputs.insert("labels".to_owned(), Encoder::new("mkosi.labels", 1).str("user").finish());
        }
        if let Some(signer) = self.hashed.signers.get(&node.image.name).filter(|_| node.decl.signer) {
            node.inputs.insert("signer".to_owned(), *signer);
        }
        for (test, outcome) in node.decl.outcomes(&node.image) {
            let digest = Encoder::new("mkosi.test", 1).number(u64::from(outcome)).finish();
            node.inputs.insert(format!("test/{test}"), digest);
        }
        if ToolsTree::of(&node.image) != ToolsTree::Host && node.decl.programs() == Programs::Keyed {
            // The digest of the whole tree stands for all that is in it.
            if !node.image.bool(CERTIFICATES) {
                let mut encoder = Encoder::new("mkosi.setting", 1);
                node.image.get(CERTIFICATES).encode(&mut encoder);
                node.inputs.insert(format!("setting/{CERTIFICATES}"), encoder.finish());
            }
            return;
        }
        let search = search_paths(&node.image);
        for tool in node.decl.named_tools() {
            let (name, place) = (format!("{TOOL}{tool}"), (search.clone(), tool.to_owned()));
            match self.hashed.tools.get(&place) {
                Some(identity) => {
                    node.inputs.insert(name.clone(), identity.digest);
                    node.programs.insert(name, Arc::clone(identity));
                }
                None => drop(node.inputs.insert(name, missing_tool())),
            }
        }
        for path in &node.decl.host_files {
            let digest = self.hashed.host.get(path).copied().unwrap_or_else(missing_tool);
            node.inputs.insert(format!("host{path}"), digest);
        }
    }

    fn files(
        &self,
        own: usize,
        node: &mut Node,
        edges: &mut BTreeMap<String, (NodeId, String)>,
    ) -> Result<(), PlanError> {
        for input in self.outputs.file_inputs(&node.image, &node.decl) {
            if let Some(other) = self.outputs.producer_of(&input, own).map(|index| &self.images[index]) {
                let part = self.outputs.part_of(&input, other);
                let edge = match input.setting.as_str() {
                    "BaseTrees" => self.base_of(other, &part),
                    _ => self.output_of(other, &part),
                };
                let edge = edge.ok_or_else(|| PlanError::NoOutput {
                    image: node.image.name.clone(),
                    setting: input.setting.clone(),
                    path: input.path.clone(),
                    other: other.name.clone(),
                    format: other.text("Format").unwrap_or("directory").into(),
                })?;
                let output = other.text("Output").unwrap_or(&other.name).to_owned();
                // Which file it is, and its name. A tree has none, and what a setting names by a word is known by it.
                if input.keyed && input.image.is_none() && edge.1 != "tree" {
                    let name = Encoder::new("mkosi.name", 1).str(&part.of(&output)).finish();
                    node.inputs.insert(format!("name/{}", input.name), name);
                }
                node.sources.insert(input.name.clone(), Source::Image { output, part });
                edges.insert(input.name, edge);
                continue;
            }
            if input.image.is_some() {
                return Err(PlanError::Input {
                    image: node.image.name.clone(),
                    setting: input.setting,
                    path: input.path,
                    message: "the built-in configuration of the default initrd is missing".to_owned(),
                });
            }
            let place = (input.path.clone(), input.hidden.clone(), input.owners);
            if input.traced {
                node.traced.insert(input.name.clone());
            } else if let Some(digest) = self.hashed.paths.get(&place).filter(|_| input.keyed) {
                node.inputs.insert(input.name.clone(), *digest);
            }
            node.sources.insert(input.name, Source::Host { path: input.path, hidden: input.hidden });
        }
        Ok(())
    }

    /// The edge from the default tools tree, or a first tree, to a stage that runs programs of it.
    fn default_tools(&self, node: &Node, edges: &mut BTreeMap<String, (NodeId, String)>) -> Result<(), PlanError> {
        let from = ToolsTree::of(&node.image);
        if !matches!(from, ToolsTree::Default | ToolsTree::Seed) {
            return Ok(());
        }
        let input = match node.decl.programs() {
            Programs::None => return Ok(()),
            Programs::Unkeyed => format!("{UNKEYED}/{TOOLS}"),
            Programs::Keyed => TOOLS.to_owned(),
        };
        let edge = match from {
            ToolsTree::Seed => self.plan.tree_after(&node.image.name, "seed").map(|id| (id, "tree".to_owned())),
            _ => {
                let tools = self.images.iter().find(|image| image.name == TOOLS_IMAGE);
                tools.and_then(|tools| self.output_of(tools, &OutputPart::Image(String::new())))
            }
        };
        let edge = edge.ok_or_else(|| PlanError::NoToolsTree { image: node.image.name.clone() })?;
        edges.insert(input, edge);
        Ok(())
    }

    /// As [`Self::output_of`], for a base tree: that of a disk is the tree that the disk was made of, which nobody has to take
    /// apart again.
    fn base_of(&self, image: &Image, part: &OutputPart) -> Option<(NodeId, String)> {
        match (part, image.text("Format")) {
            (OutputPart::Image(_), Some("disk" | "portable")) => {
                self.plan.tree(&image.name).map(|id| (id, "tree".to_owned()))
            }
            _ => self.output_of(image, part),
        }
    }

    /// The node and output that another image's file in the output directory comes from.
    fn output_of(&self, image: &Image, part: &OutputPart) -> Option<(NodeId, String)> {
        let format = image.text("Format").unwrap_or("directory");
        let stage = |stage: &str| {
            let id = *self.plan.nodes.get(&image.name)?.get(stage)?;
            self.plan.graph[id].skipped.is_none().then_some(id)
        };
        let made = part.makers().iter().find_map(|(maker, output)| Some((stage(maker)?, (*output).to_owned())));
        match format {
            _ if made.is_some() => made,
            "directory" if matches!(part, OutputPart::Beside(_)) => None,
            "directory" => self.plan.tree(&image.name).map(|id| (id, "tree".to_owned())),
            format => stage(format).map(|id| (id, "files".to_owned())),
        }
    }

    fn stages(&self, node: &Node, edges: &mut BTreeMap<String, (NodeId, String)>) {
        let parsed = &node.decl.parsed;
        if let Some(tree) = parsed.tree.as_ref().filter(|tree| tree.holds(&node.image))
            && let Some(id) = self.plan.tree_after(&node.image.name, &tree.stage)
        {
            edges.insert("tree".to_owned(), (id, "tree".to_owned()));
        }
        let keyed = parsed.needs.iter().map(|need| (need, "need"));
        let unkeyed = parsed.unkeyed_needs.iter().map(|need| (need, UNKEYED));
        for (need, prefix) in keyed.chain(unkeyed).filter(|(need, _)| need.holds(&node.image)) {
            let id = self.plan.nodes.get(&node.image.name).and_then(|stages| stages.get(&need.stage)).copied();
            if let Some(id) = id.filter(|id| self.plan.graph[*id].skipped.is_none()) {
                edges.insert(format!("{prefix}/{}", need.name()), (id, need.output.clone()));
            }
        }
    }

    /// What an image needs of those that it depends on, which stand before it.
    fn dependencies(&self, node: &Node, edges: &mut BTreeMap<String, (NodeId, String)>) {
        for image in node.image.texts("Dependencies") {
            let Some(stages) = self.plan.nodes.get(image) else { continue };
            let part = |need: &&Need| stages.get(&need.stage).is_some_and(|id| self.plan.graph[*id].skipped.is_none());
            if let Some(need) = node.decl.parsed.dependency_needs.iter().rev().find(part)
                && let Some(id) = stages.get(&need.stage)
            {
                edges.insert(format!("need/{DEPENDENCY}{image}"), (*id, need.output.clone()));
            }
        }
    }

    /// What makes two nodes one. A skipped node and one that publishes are never shared.
    fn identity(&self, node: &Node, edges: &BTreeMap<String, (NodeId, String)>) -> Option<Digest> {
        if node.skipped.is_some() {
            return None;
        }
        let mut encoder = Encoder::new("mkosi.node", 1);
        encoder.str(&node.stage).number(node.decl.version).number(u64::from(node.fresh)).map(&node.inputs);
        if node.decl.publishes {
            encoder.str(&node.image.name);
        }
        // What is read of these is not known yet, so they have to be the very same.
        encoder.list(node.traced.len());
        for name in &node.traced {
            encoder.str(name);
            if let Some(Source::Host { path, hidden }) = node.sources.get(name) {
                encoder.bytes(path.as_os_str().as_bytes()).digest(&hidden.digest());
            }
        }
        encoder.list(edges.len());
        for (input, (need, output)) in edges {
            let need = self.identity_of.get(need).copied().unwrap_or_else(|| Digest::of(b""));
            encoder.str(input).digest(&need).str(output);
        }
        Some(encoder.finish())
    }
}
