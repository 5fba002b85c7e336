//! Packages of Debian and Ubuntu: metadata, resolution, download, and the layers that they are installed in.

mod apt;
mod base;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use self::apt::{failure, target};
pub(super) use self::apt::{proxy, repositories, repositories_for, with_tools};
use self::base::{base_layers, no_database, status_of_base};
use super::apply::apply;
use super::extra::add_trees;
use super::{Context, Outputs, Source, StageError, Tree};
use crate::distro::{self, Cx, InstallOptions, Local, Package, Request, Resolution};
use crate::sandbox::Mount;
use crate::store::{Artifact, Kind, Layer, MergedTree};
use crate::types::Digest;

/// Where dpkg keeps what is installed.
const STATUS: &str = "var/lib/dpkg/status";

/// Fetches and checks repository metadata: the output `lists`, and `cache`, which is what apt makes of it.
pub fn sync(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    if let Some(mode @ ("always" | "metadata")) = cx.view.text("CacheOnly") {
        return Err(StageError::Other(format!(
            "the store has no usable repository metadata, and CacheOnly={mode} forbids fetching any: \
             build once with CacheOnly=auto"
        )));
    }
    let repositories = repositories(cx)?;
    let out = cx.scratch("lists")?;
    let info = with_tools(cx, |tools| distro::sync(tools, &repositories, &out))?;
    for warning in info.warnings {
        cx.note(&warning);
    }
    let lists = cx.store.add_layer(&out, None, &cx.ingest())?;
    let cache = cx.scratch("cache")?;
    with_tools(cx, |tools| distro::prepare_cache(tools, &repositories, &lists.dir, &cache))?;
    let cache = cx.store.add_layer(&cache, None, &cx.ingest())?;
    let tree = |layer: Layer| Artifact::Tree { layers: vec![layer.digest] };
    Ok(Outputs::from([("lists".to_owned(), tree(lists)), ("cache".to_owned(), tree(cache))]))
}

/// Finds the exact packages of the base, of `Packages=` and of `BuildPackages=`. Where the mirror has them is an
/// output of its own: the lists are the same whichever mirror they came from.
pub fn resolve(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let base_trees = !cx.view.get("BaseTrees").is_empty();
    let packages: Vec<String> = cx.view.texts("Packages").into_iter().map(str::to_owned).collect();
    let build = if cx.view.get("BuildScripts").is_empty() { Vec::new() } else { cx.view.texts("BuildPackages") };
    let build_packages: Vec<String> = build.into_iter().map(str::to_owned).collect();
    // A base that nothing is added to needs no package manager.
    let adds = !(packages.is_empty() && build_packages.is_empty());
    let request = Request {
        base: !base_trees,
        status: if base_trees && adds { Some(status_of_base(cx)?) } else { None },
        packages,
        build_packages,
        recommends: cx.view.bool("WithRecommends"),
        local: Local::read(&local_packages(cx, &["PackageDirectories"])?).map_err(failure)?,
    };
    let resolution = solve(cx, &request)?;
    let lists = [("base", resolution.base), ("packages", resolution.packages), ("build", resolution.build)];
    resolved(cx, &request.local, lists)
}

/// Finds the exact packages of `VolatilePackages=` for the tree as it is by then, with what scripts have put into
/// `$PACKAGEDIR`.
pub fn resolve_volatile(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let status = cx.merged().lookup(STATUS.as_bytes()).map(|entry| entry.source.clone());
    let status = status.ok_or_else(no_database)?;
    let request = Request {
        base: false,
        status: Some(std::fs::read_to_string(&status).map_err(StageError::io("read", status))?),
        packages: cx.view.texts("VolatilePackages").into_iter().map(str::to_owned).collect(),
        build_packages: Vec::new(),
        recommends: cx.view.bool("WithRecommends"),
        local: Local::read(&local_packages(cx, &["PackageDirectories", "VolatilePackageDirectories"])?)
            .map_err(failure)?,
    };
    let resolution = solve(cx, &request)?;
    resolved(cx, &request.local, [("packages", resolution.packages)])
}

fn solve(cx: &mut Context<'_>, request: &Request) -> Result<Resolution, StageError> {
    let repositories = repositories(cx)?;
    let layer = |need: &str| match cx.needs.get(need) {
        Some(Artifact::Tree { layers }) => match layers.first() {
            Some(layer) => cx.store.need_layer(layer).map(|layer| Some(layer.dir)),
            None => Ok(None),
        },
        _ => Ok(None),
    };
    let Some(lists) = layer("sync.lists")? else {
        return Err(StageError::Other("the stage `sync` gave no metadata".to_owned()));
    };
    let cache = layer("sync.cache")?;
    with_tools(cx, |tools| distro::resolve(tools, &repositories, &lists, cache.as_deref(), request))
}

/// The outputs of a resolution: each list, and where its packages are. Those that lie at hand go into the pool at once.
fn resolved<const N: usize>(
    cx: &Context<'_>,
    local: &Local,
    lists: [(&str, Vec<Package>); N],
) -> Result<Outputs, StageError> {
    let mut uris = BTreeMap::new();
    let mut outputs = Outputs::new();
    for (name, mut list) in lists {
        for package in &mut list {
            local.into_pool(package, &cx.store.pool()).map_err(failure)?;
            uris.insert(package.sha256.clone(), std::mem::take(&mut package.uri));
        }
        outputs.insert(name.to_owned(), Artifact::Value { value: json!(list) });
    }
    outputs.insert("uris".to_owned(), Artifact::Value { value: json!(uris) });
    Ok(outputs)
}

/// The package files that lie at hand: those in the directories that the settings name, then what scripts have put into
/// `$PACKAGEDIR`.
fn local_packages(cx: &Context<'_>, settings: &[&str]) -> Result<Vec<PathBuf>, StageError> {
    let is_package = |path: &Path| path.extension().is_some_and(|end| end == "deb" || end == "ddeb");
    let layers = |digests: &[Digest]| -> Result<Vec<PathBuf>, StageError> {
        let layers = digests.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
        let merged = MergedTree::new(&layers);
        let files = merged.entries.iter().filter(|entry| {
            matches!(entry.entry.kind, Kind::File { .. })
                && !entry.entry.path.contains(&b'/')
                && is_package(&entry.source)
        });
        Ok(files.map(|entry| entry.source.clone()).collect())
    };
    let mut found = Vec::new();
    for (_, source) in settings.iter().flat_map(|setting| cx.sources_of(setting)) {
        match source {
            Source::Host { path, .. } => {
                let entries = std::fs::read_dir(path).map_err(StageError::io("list", path))?;
                let mut paths = entries
                    .map(|entry| Ok(entry.map_err(StageError::io("list", path))?.path()))
                    .collect::<Result<Vec<_>, StageError>>()?;
                paths.retain(|path| is_package(path) && path.is_file());
                paths.sort();
                found.extend(paths);
            }
            Source::Image(Artifact::Tree { layers: digests }) => found.extend(layers(digests)?),
            Source::Image(_) => {}
        }
    }
    for (_, artifact) in
        cx.needs.range("dependency.".to_owned()..).take_while(|(name, _)| name.starts_with("dependency."))
    {
        if let Artifact::Tree { layers: digests } = artifact {
            found.extend(layers(digests)?);
        }
    }
    if let Some(Artifact::Tree { layers: digests }) = super::script::latest(&cx.needs, "packages") {
        found.extend(layers(digests)?);
    }
    Ok(found)
}

/// Brings the packages of all lists into the pool. The outputs are the lists: what is installed from them depends on
/// what they name, not on when it was fetched.
pub fn download(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    fetch(cx, "resolve", &["base", "packages", "build"])
}

/// As [`download`], of `VolatilePackages=`.
pub fn download_volatile(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    fetch(cx, "resolve-volatile", &["packages"])
}

fn fetch(cx: &mut Context<'_>, resolver: &'static str, names: &[&str]) -> Result<Outputs, StageError> {
    let uris: BTreeMap<String, String> = match cx.needs.get(&format!("{resolver}.uris")) {
        Some(Artifact::Value { value }) => serde_json::from_value(value.clone()).map_err(StageError::other)?,
        _ => BTreeMap::new(),
    };
    let mut outputs = Outputs::new();
    let mut wanted: Vec<Package> = Vec::new();
    for name in names {
        let list = list(cx, &format!("{resolver}.{name}"))?;
        outputs.insert((*name).to_owned(), Artifact::Value { value: json!(list) });
        wanted.extend(list.into_iter().map(|mut package| {
            package.uri = uris.get(&package.sha256).cloned().unwrap_or_default();
            package
        }));
    }
    let pool = cx.store.pool();
    // No mirror has these: the stage that read them puts them there again.
    if let Some(lost) = wanted.iter().find(|package| distro::is_local(package) && !distro::is_in_pool(&pool, package)) {
        let why = format!("the pool no longer has {}: looking for it again", lost.filename);
        return Err(StageError::Stale { stage: resolver, why });
    }
    if cx.view.text("CacheOnly") == Some("always") {
        let missing = wanted.iter().filter(|package| !distro::pool_path(&pool, package).exists());
        let missing: Vec<&str> = missing.map(|package| package.filename.as_str()).collect();
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(StageError::Other(format!(
                "the pool lacks {names}, and CacheOnly=always forbids fetching them"
            )));
        }
    }
    let repositories = repositories(cx)?;
    with_tools(cx, |tools| distro::download(tools, &wanted, &repositories, &pool))?;
    for package in &wanted {
        use_package(cx, package)?;
    }
    Ok(outputs)
}

/// Makes the minimal tree: base trees and skeleton trees, and the distribution's essential packages unless there is a
/// base tree.
pub fn base(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let lowers = base_layers(cx)?;
    cx.layers = lowers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<_, _>>()?;
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    let mut steps = Vec::new();
    add_trees(cx, "SkeletonTrees", &mut spec.mounts, &mut steps)?;
    if !steps.is_empty() {
        apply(cx, spec, &steps)?;
    }
    // `Distribution=custom` has no packages.
    if cx.view.get("BaseTrees").is_empty() && cx.needs.contains_key("download.base") {
        install(cx, &tree, "download.base", distro::install_base)?;
    }
    let mut outputs = cx.close_tree(tree)?;
    outputs.insert("lower".to_owned(), Artifact::Tree { layers: lowers });
    Ok(outputs)
}

/// Installs `Packages=`.
pub fn packages(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    install(cx, &tree, "download.packages", distro::install)?;
    cx.close_tree(tree)
}

/// Installs `VolatilePackages=`, after the build.
pub fn volatile_packages(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    install(cx, &tree, "download-volatile.packages", distro::install)?;
    cx.close_tree(tree)
}

/// Installs `BuildPackages=` on the build overlay.
pub fn build_packages(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    install(cx, &tree, "download.build", distro::install)?;
    cx.close_tree(tree)
}

/// Purges `RemovePackages=`.
pub fn remove_packages(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let mount = cx.tree_mount(&tree);
    let names: Vec<String> = cx.view.texts("RemovePackages").into_iter().map(str::to_owned).collect();
    let mut options = InstallOptions::new(&target(cx)?);
    options.epoch = cx.view.get("SourceDateEpoch").as_number().and_then(|epoch| u64::try_from(epoch).ok());
    with_tools(cx, |tools| distro::remove(tools, mount, &names, &options))?;
    cx.close_tree(tree)
}

type Installer = fn(&mut Cx<'_>, Mount, &Path, &[Package], &InstallOptions) -> Result<(), distro::Error>;

fn install(cx: &mut Context<'_>, tree: &Tree, need: &str, installer: Installer) -> Result<(), StageError> {
    let list = list(cx, need)?;
    for package in &list {
        if !distro::pool_path(&cx.store.pool(), package).exists() {
            let why = format!("the pool no longer has {}: fetching it again", package.filename);
            let stage = if need.starts_with("download-volatile") { "download-volatile" } else { "download" };
            return Err(StageError::Stale { stage, why });
        }
        use_package(cx, package)?;
    }
    let options = install_options(cx)?;
    let mount = cx.tree_mount(tree);
    let pool = cx.store.pool();
    with_tools(cx, |tools| installer(tools, mount, &pool, &list, &options))
}

/// How the settings want packages to be installed.
pub(super) fn install_options(cx: &Context<'_>) -> Result<InstallOptions, StageError> {
    Ok(InstallOptions {
        docs: cx.view.bool("WithDocs"),
        epoch: cx.view.get("SourceDateEpoch").as_number().and_then(|epoch| u64::try_from(epoch).ok()),
        components: cx.view.texts("Repositories").into_iter().map(str::to_owned).collect(),
        ..InstallOptions::new(&target(cx)?)
    })
}

/// Tells the store that a package of the pool is used, so that clean-up keeps it.
pub(super) fn use_package(cx: &Context<'_>, package: &Package) -> Result<(), StageError> {
    let path = distro::pool_path(&cx.store.pool(), package);
    match path.file_name() {
        Some(name) => Ok(cx.store.use_pool(&name.to_string_lossy())?),
        None => Ok(()),
    }
}

/// A list of packages that another stage gave.
fn list(cx: &Context<'_>, need: &str) -> Result<Vec<Package>, StageError> {
    match cx.needs.get(need) {
        Some(Artifact::Value { value }) => serde_json::from_value(value.clone()).map_err(StageError::other),
        _ => Ok(Vec::new()),
    }
}
