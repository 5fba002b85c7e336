//! What building, explaining and cleaning have in common: the store, the compiled plan, and what is asked anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::options::Invocation;
use super::verbs::Verb;
use crate::config::table::SETTINGS;
use crate::config::{Image, Loaded, Origin, Sourced, Value, expand_key};
use crate::exec::{Force, HostDigests, StoreLookup};
use crate::plan::{self, Declarations, NodeId, Plan, PlanError, Preview, ToolsTree, compile, preview};
use crate::store::{Hasher, Store};

/// A store and the plan of the images that were asked for.
pub struct Session {
    /// The store.
    pub store: Store,
    /// The plan.
    pub plan: Plan,
    /// What is ignored of the store.
    pub force: Force,
}

impl Session {
    /// Opens the store and compiles the graph.
    ///
    /// # Errors
    /// When the store can't be opened, or an input of the graph can't be read.
    pub fn open(invocation: &Invocation, loaded: &Loaded, refresh: bool) -> anyhow::Result<Self> {
        let declarations = declarations()?;
        // What runs an image needs the tools tree even where no stage does.
        let trees = match default_tools(loaded) {
            Some(tools) if invocation.verb.runs() => vec![tools.name.clone()],
            _ => Vec::new(),
        };
        let (goals, images): (Vec<String>, &[Image]) = match invocation.only_tools() {
            true => (Vec::new(), &[]),
            false => (goals(loaded), &loaded.images),
        };
        for image in goals.iter().filter_map(|name| loaded.image(name)).chain(default_tools(loaded)) {
            plan::check(image, &declarations)?;
        }
        let store = Store::open(&store_directory(loaded.image("main")))?;
        let hasher = Hasher::new(&store);
        let mut images: Vec<Image> = images.iter().chain(default_tools(loaded)).map(with_output_directory).collect();
        let outside = outside();
        for image in &mut images {
            image.take_environment_files(&outside)?;
            let modules = loaded.default_modules.get(&image.name).map(Vec::as_slice).unwrap_or_default();
            super::known_here::resolve(image, modules, Path::new("/proc"))?;
            take_arguments(image, invocation);
            take_build_key(image);
        }
        let mut plan = compile(&declarations, &images, &goals, &HostDigests::new(&hasher))?;
        plan.trees = trees;
        // Digests that could not be kept are made again next time.
        let _ = hasher.flush();
        Ok(Self { store, plan, force: force(invocation, refresh) })
    }

    /// The nodes that the goals need, with their states.
    pub fn preview(&self, skipped: bool) -> Vec<Preview> {
        // In an order of need: a node that runs ahead may need a tools tree.
        let mut nodes: BTreeSet<NodeId> = self.plan.closure(self.plan.ahead());
        nodes.extend(self.plan.wanted());
        if skipped {
            let goals = self.plan.goals.iter().filter_map(|image| self.plan.nodes.get(image));
            let more = goals.flat_map(|stages| stages.values().copied());
            nodes.extend(more.filter(|id| self.plan.graph[*id].skipped.is_some()));
        }
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        preview(&self.plan, &nodes, &StoreLookup::new(&self.store, &self.force))
    }
}

/// The default tools tree, where some image runs its programs.
fn default_tools(loaded: &Loaded) -> Option<&Image> {
    let wanted = |image: &Image| ToolsTree::of(image) == ToolsTree::Default;
    loaded.tools.as_ref().filter(|_| loaded.images.iter().any(wanted))
}

/// The declarations of the stages.
fn declarations() -> Result<Declarations, PlanError> {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    Declarations::built_in(&known)
}

/// What the images that were asked for wish and no stage does, a line for each, for people.
///
/// # Errors
/// When the declarations can't be read.
pub fn unsupported(loaded: &Loaded) -> Result<Vec<String>, PlanError> {
    let declarations = declarations()?;
    let mut lines = Vec::new();
    for image in goals(loaded).iter().filter_map(|name| loaded.image(name)).chain(default_tools(loaded)) {
        for (setting, origin) in plan::unsupported(image, &declarations) {
            let line = format!("`{setting}=` ({origin}) is not supported yet and has no effect");
            // Images share what the main image hands down to them.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// The environment of the program, as far as it is text.
pub fn outside() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What stands after `--` goes to build scripts. A look at the graph is one at what a build with these would do.
fn take_arguments(image: &mut Image, invocation: &Invocation) {
    if matches!(invocation.verb, Verb::Build | Verb::Graph) && !invocation.arguments.is_empty() {
        let value = Value::List(invocation.arguments.iter().map(Value::text).collect());
        image.values.insert(plan::ARGUMENTS, Sourced { value, origin: Origin::Default });
    }
}

/// A stage knows no name of an image.
fn take_build_key(image: &mut Image) {
    if let Some(key) = image.text("BuildKey").map(|key| expand_key(image, key))
        && let Some(sourced) = image.values.get_mut("BuildKey")
    {
        sourced.value = Value::Text(key);
    }
}

/// An image that names no output directory has its outputs in the project's.
fn with_output_directory(image: &Image) -> Image {
    let mut image = image.clone();
    if image.path("OutputDirectory").is_none() {
        let value = Value::Path(image.project.clone());
        image.values.insert("OutputDirectory", Sourced { value, origin: Origin::Default });
    }
    image
}

/// The images to bring up to date: those asked for and all that they depend on.
fn goals(loaded: &Loaded) -> Vec<String> {
    let mut goals = loaded.selected.clone();
    let mut next = 0;
    while let Some(image) = goals.get(next).and_then(|name| loaded.image(name)) {
        for dependency in image.texts("Dependencies") {
            if !goals.iter().any(|goal| goal == dependency) && loaded.image(dependency).is_some() {
                goals.push(dependency.to_owned());
            }
        }
        next += 1;
    }
    goals
}

fn force(invocation: &Invocation, refresh: bool) -> Force {
    let all = match (invocation.no_cache, invocation.force) {
        (true, _) => Some("--no-cache was given".to_owned()),
        (false, 0 | 1) => None,
        (false, _) => Some("-ff was given".to_owned()),
    };
    let volatile = match (refresh, invocation.refresh, invocation.force) {
        (true, ..) => Some("`mkosi update` was asked for".to_owned()),
        (_, true, _) => Some("--refresh was given".to_owned()),
        (_, _, 0 | 1) => None,
        _ => Some("-ff was given".to_owned()),
    };
    let build = match (invocation.rerun_build_scripts, invocation.wipe_build_dir) {
        (true, _) => Some("--rerun-build-scripts was given"),
        // They fill the directory that was emptied.
        (false, true) => Some("--wipe-build-dir was given"),
        (false, false) => None,
    };
    let stages = build.into_iter().map(|why| ("build", why.to_owned())).collect();
    Force { all, volatile, stages, outputs: invocation.force > 0 }
}

/// Where the store is: below `CacheDirectory=`, else in the user's cache directory, `/var/cache/mkosi` for root.
pub fn store_directory(main: Option<&Image>) -> PathBuf {
    if let Some(directory) = main.and_then(|image| image.path("CacheDirectory")) {
        return directory.join("store");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    match user {
        Some(directory) if !crate::sandbox::started_as_root() => directory.join("mkosi"),
        _ => PathBuf::from("/var/cache/mkosi"),
    }
}

/// Removes a file or directory tree; one that isn't there is fine.
///
/// # Errors
/// When it can't be removed.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => {
            crate::store::remove_tree(path).with_context(|| format!("can't remove {}", path.display()))
        }
        Ok(_) => std::fs::remove_file(path).with_context(|| format!("can't remove {}", path.display())),
    }
}

/// Empties a directory; one that isn't there is fine.
///
/// # Errors
/// When something in it can't be removed.
pub fn empty(directory: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    entries.flatten().try_for_each(|entry| remove(&entry.path()))
}
