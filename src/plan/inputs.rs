//! What stages read of the host and of other images' outputs: the paths, and the digests of what lies there.
//!
//! Knows nothing of nodes and edges.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Declarations, PlanError, StageDecl, hidden_paths};
use crate::config::{Image, Value};
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

    /// The identity of a program of the host, `None` if there is none of that name.
    ///
    /// # Errors
    /// Why it can't be read.
    fn tool(&self, name: &str) -> Result<Option<Digest>, String>;
}

/// The digest that stands for a program that the host does not have.
pub(super) fn missing_tool() -> Digest {
    Encoder::new("mkosi.tool.missing", 1).finish()
}

/// The images in an order in which each comes after those whose outputs it uses.
pub(super) fn by_need(declarations: &Declarations, images: &[Image]) -> Result<Vec<Arc<Image>>, PlanError> {
    let images: Vec<Arc<Image>> = images.iter().cloned().map(Arc::new).collect();
    let outputs = Outputs::of(&images);
    let mut graph = petgraph::graphmap::DiGraphMap::<usize, ()>::new();
    for (index, image) in images.iter().enumerate() {
        graph.add_node(index);
        // A path in a setting that no stage reads (`RuntimeTrees=%O/other`) needs nothing of the other image.
        let stages = declarations.iter().filter(|(_, decl)| unmet(image, decl).is_none());
        for input in stages.flat_map(|(_, decl)| file_inputs(image, decl)) {
            if let Some(other) = outputs.around(&input.path, index) {
                return Err(PlanError::InsideOutput {
                    image: image.name.clone(),
                    setting: input.setting,
                    path: input.path,
                    other: images[other].name.clone(),
                });
            }
            if let Some(other) = outputs.producer(&input.path, index) {
                graph.add_edge(other, index, ());
            }
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

/// Where each image's outputs lie: a thousand images ask for every path that they read.
pub(super) struct Outputs {
    /// By the path of the output without an extension: the images, in their order.
    images: HashMap<PathBuf, Vec<usize>>,
    /// The paths that are directories.
    directories: BTreeSet<PathBuf>,
}

impl Outputs {
    /// The outputs of `images`.
    pub fn of(images: &[Arc<Image>]) -> Self {
        let mut outputs = Self { images: HashMap::new(), directories: BTreeSet::new() };
        for (index, image) in images.iter().enumerate() {
            let directory = image.path("OutputDirectory").unwrap_or(&image.project);
            let path = directory.join(image.text("Output").unwrap_or(&image.name));
            if image.text("Format").unwrap_or("directory") == "directory" {
                outputs.directories.insert(path.clone());
            }
            outputs.images.entry(path).or_default().push(index);
        }
        outputs
    }

    /// The image, other than image `own`, whose output lies at `path`.
    pub fn producer(&self, path: &Path, own: usize) -> Option<usize> {
        let name = path.file_name()?.to_str()?;
        let dots = name.match_indices('.').map(|(at, _)| at);
        let mut ends: Vec<usize> = dots.chain([name.len()]).collect();
        // `base.v2` is the output of that name before it is a file of `base`.
        ends.reverse();
        let images = ends.into_iter().find_map(|end| self.images.get(&path.with_file_name(&name[..end])))?;
        // Of images that share an output name the first counts, unless one of them asks.
        if images.contains(&own) { None } else { images.first().copied() }
    }

    /// The image, other than image `own`, inside whose output directory tree `path` lies. What is there now is from
    /// an earlier run, so that it must not be hashed.
    fn around(&self, path: &Path, own: usize) -> Option<usize> {
        let whole = path.ancestors().skip(1).find(|above| self.directories.contains(*above))?;
        self.producer(whole, own)
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
    pub hidden: Vec<PathBuf>,
    /// Whether the owners of files count: a base is a whole tree, and what else lies in a project belongs to whoever
    /// cloned it.
    pub owners: bool,
    /// Whether what is read of it is found out when the stage runs, so that it is not hashed before.
    pub traced: bool,
}

/// The file inputs of a stage for an image.
pub(super) fn file_inputs(image: &Image, decl: &StageDecl) -> Vec<FileInput> {
    let mut inputs = Vec::new();
    let traces = decl.traces(image);
    for setting in &decl.files {
        let value = image.get(setting);
        let items = match value {
            Value::List(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for (index, item) in items.iter().enumerate() {
            for path in item.paths() {
                // Scripts keep their own name: it tells whether they run in the image, and they can read it.
                let base = match item {
                    Value::Path(path) => path.file_name().map(|n| format!("/{}", n.to_string_lossy())),
                    _ => None,
                };
                let hidden = match setting.as_str() {
                    "BuildSources" => hidden_paths(image, path, decl.sandbox.sources),
                    _ => Vec::new(),
                };
                inputs.push(FileInput {
                    name: format!("file/{setting}/{index:02}{}", base.unwrap_or_default()),
                    setting: setting.clone(),
                    path: path.to_path_buf(),
                    hidden,
                    owners: setting == "BaseTrees",
                    traced: traces && setting == "BuildSources",
                });
            }
        }
    }
    inputs
}

/// Digests of everything on the host that some node of the graph hashes, each path once.
pub(super) struct Hashed {
    /// By path and what is hidden of it.
    pub paths: HashMap<(PathBuf, Vec<PathBuf>, bool), Digest>,
    /// By the program's name.
    pub tools: HashMap<String, Digest>,
    /// By path.
    pub host: HashMap<String, Digest>,
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
    for (own, image) in images.iter().enumerate() {
        for (_, decl) in declarations.iter() {
            if unmet(image, decl).is_some() {
                continue;
            }
            tools.extend(decl.tools.iter().map(String::as_str));
            host.extend(decl.host_files.iter().map(String::as_str));
            for input in file_inputs(image, decl) {
                if !input.traced && outputs.producer(&input.path, own).is_none() {
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
        .map(|name| match digests.tool(name) {
            Ok(digest) => Ok((name.to_owned(), digest.unwrap_or_else(missing_tool))),
            Err(message) => Err(PlanError::Input {
                image: String::new(),
                setting: "tools".to_owned(),
                path: PathBuf::from(name),
                message,
            }),
        })
        .collect::<Result<HashMap<_, _>, _>>()?;
    let host = host
        .into_iter()
        .map(|path| (path.to_owned(), digests.path(Path::new(path), &[]).unwrap_or_else(|_| missing_tool())))
        .collect();
    Ok(Hashed { paths, tools, host })
}

/// Why a stage is no part of an image.
pub(super) fn unmet(image: &Image, decl: &StageDecl) -> Option<String> {
    decl.parsed.when.iter().find(|condition| !condition.holds(image)).map(super::Condition::unmet)
}
