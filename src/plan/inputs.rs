//! What stages read of the host and of other images' outputs: the paths, and the digests of what lies there.
//!
//! Knows nothing of nodes and edges.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::compile::UNKEYED;
use super::outputs::Outputs;
use super::{Declarations, Hidden, PlanError, Programs, StageDecl, hidden_paths};
use crate::config::{DEFAULT_INITRD, Image, Value};
use crate::programs::Identity;
use crate::types::{Digest, Encoder};

/// Digests of what lies on the host. The store's stat cache is behind it.
pub trait Digests: Sync {
    /// The digest of a file or directory without the paths in `hidden`.
    ///
    /// # Errors
    /// Why it can't be read.
    fn path(&self, path: &Path, hidden: &[PathBuf]) -> Result<Digest, String>;

    /// The digest of a whole tree, with the owners of its files.
    ///
    /// # Errors
    /// Why it can't be read.
    fn owned(&self, path: &Path) -> Result<Digest, String> {
        self.path(path, &[])
    }

    /// The digest of a file of the host, `None` if there is none that can be read.
    ///
    /// # Errors
    /// Why it can't be read for another reason: one that is there must not be taken for one that is not, since that
    /// would be another key.
    fn host(&self, path: &Path) -> Result<Option<Digest>, String> {
        Ok(self.path(path, &[]).ok())
    }

    /// The identity of a program of the host, `None` if there is none of that name. It is looked for in `search` first.
    ///
    /// # Errors
    /// Why it can't be read.
    fn tool(&self, name: &str, search: &[PathBuf]) -> Result<Option<Arc<Identity>>, String>;

    /// Whose OpenPGP key signs an image: nothing that is secret.
    ///
    /// # Errors
    /// Why that can't be found out.
    fn signer(&self, image: &Image) -> Result<Digest, String> {
        let _ = image;
        Ok(missing_tool())
    }

    /// The names of the files that were published in an output directory for an output with this base name.
    fn published(&self, directory: &Path, base: &str) -> Vec<String> {
        let _ = (directory, base);
        Vec::new()
    }

    /// Whether files keep their owners in what is built. Without, everything belongs to root, and a tree is another one.
    fn keeps_owners(&self) -> bool {
        true
    }

    /// Whether files can get security labels.
    fn writes_labels(&self) -> bool {
        true
    }
}

/// The digest that stands for a program that the host does not have.
pub(super) fn missing_tool() -> Digest {
    Encoder::new("mkosi.tool.missing", 1).finish()
}

/// The name of the default tools tree among the images.
pub const TOOLS_IMAGE: &str = "tools";

/// The name of the input that is the tools tree.
pub(super) const TOOLS: &str = "tools";

/// What the names of the inputs for `ExtraSearchPaths=` begin with.
pub(super) const SEARCH: &str = "file/ExtraSearchPaths/";

/// Where an image's programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolsTree<'a> {
    /// The host.
    Host,
    /// A directory, or what another image makes of it.
    Path(&'a Path),
    /// The default tools tree, an image of its own.
    Default,
    /// A first tree, which is made by stages of the image itself.
    Seed,
}

impl<'a> ToolsTree<'a> {
    /// What `ToolsTree=` says.
    pub fn of(image: &'a Image) -> Self {
        match image.get("ToolsTree") {
            _ if bootstraps(image) => Self::Seed,
            Value::Path(path) if path != Path::new("/") => Self::Path(path),
            Value::Text(word) if word == "default" || word == "yes" => Self::Default,
            _ => Self::Host,
        }
    }
}

/// The stages that make a first tree, where there is nothing yet to make it with.
pub(super) const SEED_STAGES: [&str; 2] = ["seed-packages", "seed"];

/// The setting that says whether a first tree is made.
const BOOTSTRAP: &str = "ToolsTreeBootstrap";

/// What a host has to have for the tools tree to be made with its own programs.
const PACKAGE_MANAGER: [&str; 2] = ["apt-get", "dpkg"];

fn bootstraps(image: &Image) -> bool {
    image.name == TOOLS_IMAGE && image.text(BOOTSTRAP) == Some("enabled")
}

/// Decides whether a first tree is made, where that is left to us: for the default tools tree, of Debian, on a host
/// without apt or dpkg. No other image has one.
pub(super) fn settle_bootstrap(images: &[Image], digests: &dyn Digests) -> Vec<Image> {
    let lacks = |tool: &&str| matches!(digests.tool(tool, &[]), Ok(None));
    let settle = |image: &Image| {
        let mut image = image.clone();
        let tools = image.name == TOOLS_IMAGE && image.text("Distribution") == Some("debian");
        let wanted = match image.text(BOOTSTRAP) {
            Some("enabled") => tools,
            Some("auto") => tools && PACKAGE_MANAGER.iter().any(lacks),
            _ => false,
        };
        if let Some(sourced) = image.values.get_mut(BOOTSTRAP) {
            sourced.value = Value::text(if wanted { "enabled" } else { "disabled" });
        }
        image
    };
    images.iter().map(settle).collect()
}

/// The images in an order in which each comes after those whose outputs it uses.
pub(super) fn by_need(declarations: &Declarations, images: &[Image]) -> Result<Vec<Arc<Image>>, PlanError> {
    let images: Vec<Arc<Image>> = images.iter().cloned().map(Arc::new).collect();
    let outputs = Outputs::of(&images);
    let mut graph = petgraph::graphmap::DiGraphMap::<usize, ()>::new();
    for (index, image) in images.iter().enumerate() {
        graph.add_node(index);
        // A path in a setting that no stage reads (`RuntimeTrees=%O/other`) needs nothing of the other image.
        let stages = || declarations.iter().filter(|(_, decl)| unmet(image, decl).is_none());
        if stages().any(|(_, decl)| !decl.dependency_needs.is_empty()) {
            for name in image.texts("Dependencies") {
                if let Some(other) = images.iter().position(|other| other.name == name).filter(|at| *at != index) {
                    graph.add_edge(other, index, ());
                }
            }
        }
        for input in stages().flat_map(|(_, decl)| file_inputs(image, decl)) {
            if let Some(other) = outputs.around(&input.path, index).filter(|_| input.image.is_none()) {
                return Err(PlanError::InsideOutput {
                    image: image.name.clone(),
                    setting: input.setting,
                    path: input.path,
                    other: images[other].name.clone(),
                });
            }
            if let Some(other) = outputs.producer_of(&input, index) {
                graph.add_edge(other, index, ());
            }
        }
        if ToolsTree::of(image) == ToolsTree::Default
            && let Some(tools) = images.iter().position(|other| other.name == TOOLS_IMAGE)
        {
            graph.add_edge(tools, index, ());
        }
    }
    match petgraph::algo::toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(|index| Arc::clone(&images[index])).collect()),
        Err(cycle) => {
            let ring = petgraph::algo::tarjan_scc(&graph).into_iter().find(|c| c.contains(&cycle.node_id()));
            let ring = ring.unwrap_or_else(|| vec![cycle.node_id()]);
            let mut images: Vec<String> = ring.iter().map(|index| images[*index].name.clone()).collect();
            images.extend(images.first().cloned());
            Err(PlanError::ImageCycle { images })
        }
    }
}

/// One file input of a stage.
pub(super) struct FileInput {
    /// The input's name: `file/ExtraTrees/00`.
    pub name: String,
    /// The setting that names the path.
    pub setting: String,
    /// The path.
    pub path: PathBuf,
    /// What is no part of it.
    pub hidden: Hidden,
    /// The image whose output it is, where the setting says so by a word and not by a path.
    pub image: Option<&'static str>,
    /// Whether the owners of files count: a base is a whole tree, and what else lies in a project belongs to whoever
    /// cloned it.
    pub owners: bool,
    /// Whether what is read of it is found out when the stage runs, so that it is not hashed before.
    pub traced: bool,
    /// Whether it is in the key.
    pub keyed: bool,
}

/// The file inputs of a stage for an image.
pub(super) fn file_inputs(image: &Image, decl: &StageDecl) -> Vec<FileInput> {
    let mut inputs = Vec::new();
    let none = Hidden::new(Vec::new());
    let traces = decl.traces(image);
    for setting in &decl.files {
        let value = image.get(setting);
        let items = match value {
            Value::List(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for (index, item) in items.iter().enumerate() {
            if setting == "Initrds" && item.as_text() == Some("default") {
                inputs.push(FileInput {
                    name: format!("file/{setting}/{index:02}"),
                    setting: setting.clone(),
                    path: PathBuf::from("default"),
                    hidden: none.clone(),
                    image: Some(DEFAULT_INITRD),
                    owners: false,
                    traced: false,
                    keyed: true,
                });
            }
            for path in item.paths() {
                // Scripts keep their own name: it tells whether they run in the image, and they can read it.
                let base = match item {
                    Value::Path(path) => path.file_name().map(|n| format!("/{}", n.to_string_lossy())),
                    _ => None,
                };
                let hidden = match setting.as_str() {
                    "BuildSources" => hidden_paths(image, path, decl.sandbox.sources),
                    _ => none.clone(),
                };
                inputs.push(FileInput {
                    name: format!("file/{setting}/{index:02}{}", base.unwrap_or_default()),
                    setting: setting.clone(),
                    path: path.to_path_buf(),
                    hidden,
                    image: None,
                    owners: setting == "BaseTrees",
                    traced: traces && setting == "BuildSources",
                    keyed: true,
                });
            }
        }
    }
    inputs.extend(tool_inputs(image, decl));
    inputs
}

/// The files that a stage's programs are: the tools tree, where that is a path, and the directories of
/// `ExtraSearchPaths=`.
fn tool_inputs(image: &Image, decl: &StageDecl) -> Vec<FileInput> {
    let keyed = match decl.programs() {
        Programs::None => return Vec::new(),
        Programs::Unkeyed => false,
        Programs::Keyed => true,
    };
    let none = Hidden::new(Vec::new());
    let input = |name: &str, setting: &str, path: &Path, owners| FileInput {
        name: if keyed { name.to_owned() } else { format!("{UNKEYED}/{name}") },
        setting: setting.to_owned(),
        path: path.to_path_buf(),
        hidden: none.clone(),
        image: None,
        owners,
        traced: false,
        keyed,
    };
    let search = search_paths(image).into_iter().enumerate();
    let search = search.map(|(index, path)| input(&format!("{SEARCH}{index:02}"), "ExtraSearchPaths", &path, false));
    let tree = match ToolsTree::of(image) {
        ToolsTree::Path(path) => Some(input(TOOLS, "ToolsTree", path, true)),
        ToolsTree::Host | ToolsTree::Default | ToolsTree::Seed => None,
    };
    search.chain(tree).collect()
}

/// The directories in which an image's programs are looked for first.
pub(super) fn search_paths(image: &Image) -> Vec<PathBuf> {
    image.get("ExtraSearchPaths").paths().into_iter().map(Path::to_path_buf).collect()
}

/// Digests of everything on the host that some node of the graph hashes, each path once.
pub(super) struct Hashed {
    /// By path and what is hidden of it.
    pub paths: HashMap<(PathBuf, Hidden, bool), Digest>,
    /// By where programs are looked for first, and the program's name.
    pub tools: HashMap<(Vec<PathBuf>, String), Arc<Identity>>,
    /// By path.
    pub host: HashMap<String, Digest>,
    /// By image.
    pub signers: HashMap<String, Digest>,
}

/// Hashes what the stages of all images read of the host.
pub(super) fn hash_inputs(
    declarations: &Declarations,
    images: &[Arc<Image>],
    outputs: &Outputs,
    digests: &dyn Digests,
) -> Result<Hashed, PlanError> {
    let mut wanted = HashMap::new();
    let mut tools = BTreeSet::new();
    let mut host = BTreeSet::new();
    let mut signers = HashMap::new();
    for (own, image) in images.iter().enumerate() {
        for (stage, decl) in declarations.iter() {
            if unmet(image, decl).is_some() {
                continue;
            }
            if ToolsTree::of(image) == ToolsTree::Host || SEED_STAGES.contains(&stage) {
                let search = search_paths(image);
                tools.extend(decl.named_tools().map(|name| (search.clone(), name.to_owned())));
            }
            if decl.signer && !signers.contains_key(&image.name) {
                let signer = digests.signer(image).map_err(|message| PlanError::Input {
                    image: image.name.clone(),
                    setting: "Key".to_owned(),
                    path: image.path("Key").map(Path::to_path_buf).unwrap_or_default(),
                    message,
                })?;
                signers.insert(image.name.clone(), signer);
            }
            host.extend(decl.host_files.iter().map(String::as_str));
            let hashed = |input: &FileInput| input.keyed && !input.traced;
            for input in outputs.file_inputs(image, decl).into_iter().filter(hashed) {
                if input.image.is_none() && outputs.producer(&input.path, own).is_none() {
                    let place = (input.path, input.hidden, input.owners);
                    wanted.entry(place).or_insert((image.name.clone(), input.setting));
                }
            }
        }
    }
    let paths = wanted
        .into_par_iter()
        .map(|((path, hidden, owners), (image, setting))| {
            let digest = if owners { digests.owned(&path) } else { digests.path(&path, &hidden) };
            match digest {
                Ok(digest) => Ok(((path, hidden, owners), digest)),
                Err(message) => Err(PlanError::Input { image, setting, path, message }),
            }
        })
        .collect::<Result<HashMap<_, _>, _>>()?;
    let tools = tools
        .into_par_iter()
        .filter_map(|(search, name)| match digests.tool(&name, &search) {
            Ok(identity) => Some(Ok(((search, name), identity?))),
            Err(message) => Some(Err(PlanError::Input {
                image: String::new(),
                setting: "tools".to_owned(),
                path: PathBuf::from(name),
                message,
            })),
        })
        .collect::<Result<HashMap<_, _>, _>>()?;
    let host = host
        .into_iter()
        .map(|path| match digests.host(Path::new(path)) {
            Ok(digest) => Ok((path.to_owned(), digest.unwrap_or_else(missing_tool))),
            Err(message) => Err(PlanError::Input {
                image: String::new(),
                setting: "host-files".to_owned(),
                path: PathBuf::from(path),
                message,
            }),
        })
        .collect::<Result<HashMap<_, _>, _>>()?;
    Ok(Hashed { paths, tools, host, signers })
}

/// Why a stage is no part of an image.
pub(super) fn unmet(image: &Image, decl: &StageDecl) -> Option<String> {
    decl.parsed.when.iter().find(|condition| !condition.holds(image)).map(super::Condition::unmet)
}
