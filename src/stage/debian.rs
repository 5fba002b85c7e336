//! Packages of Debian and Ubuntu: metadata, resolution, download, and the layers that they are installed in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::apply::{Step, apply};
use super::context::BUILDROOT;
use super::extra::add_trees;
use super::{Context, Outputs, Source, StageError, Tree};
use crate::config::{Value, View};
use crate::distro::{
    self, Cx, Distribution, Host, InstallOptions, Local, Package, Proxy, Repositories, Request, Resolution, Settings,
    Target,
};
use crate::rootfs::{file_in_archive, is_tar};
use crate::sandbox::Mount;
use crate::store::{Artifact, Kind, Layer, MergedTree};
use crate::types::{Architecture, Digest};

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

fn target(cx: &Context<'_>) -> Result<Target, StageError> {
    let distribution = match cx.view.text("Distribution") {
        Some("ubuntu") => Distribution::Ubuntu,
        _ => Distribution::Debian,
    };
    let architecture = match cx.view.text("Architecture") {
        Some(name) => name.parse().map_err(StageError::Other)?,
        None => Architecture::host(),
    };
    let release = cx.view.text("Release").unwrap_or_default().to_owned();
    Ok(Target { distribution, release, architecture })
}

/// The repositories that the settings ask for.
pub(super) fn repositories(cx: &Context<'_>) -> Result<Repositories, StageError> {
    let mut host = Host::read(Path::new("/"));
    host.keyrings = distro::KEYRINGS.into_iter().filter(|path| cx.tools.has_file(Path::new(path))).collect();
    if cx.profile.network {
        host = host.with_network_settings();
    }
    repositories_for(cx, host)
}

/// What the settings say of the proxy.
pub(super) fn proxy(view: &View) -> Proxy {
    let path = |setting| view.path(setting).map(Path::to_path_buf);
    Proxy {
        url: view.text("ProxyUrl").filter(|url| !url.is_empty()).map(str::to_owned),
        exclude: view.texts("ProxyExclude").into_iter().map(str::to_owned).collect(),
        peer_certificate: path("ProxyPeerCertificate"),
        client_certificate: path("ProxyClientCertificate"),
        client_key: path("ProxyClientKey"),
    }
}

/// The repositories that the settings ask for on a host.
pub(super) fn repositories_for(cx: &Context<'_>, host: Host) -> Result<Repositories, StageError> {
    let text = |setting: &str| cx.view.text(setting).map(str::to_owned);
    let local = match cx.view.get("LocalMirror") {
        Value::Path(path) => Some(path.to_string_lossy().into_owned()),
        other => other.as_text().map(str::to_owned),
    };
    let settings = Settings {
        mirror: text("Mirror"),
        local_mirror: local,
        components: cx.view.texts("Repositories").into_iter().map(str::to_owned).collect(),
        snapshot: text("Snapshot"),
        key_check: cx.view.get("RepositoryKeyCheck").as_bool().unwrap_or(true),
        debug: false,
        proxy: if cx.profile.network { proxy(cx.view) } else { Proxy::default() },
    };
    let mut repositories = Repositories::new(&target(cx)?, &settings, &host).map_err(failure)?;
    for tree in &cx.tools.sandbox.trees {
        for directory in APT_DIRECTORIES {
            let path = tree.join("etc/apt").join(directory);
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
                let contents = std::fs::read(entry.path()).map_err(StageError::io("read", entry.path()))?;
                let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
                repositories.files.insert(name, contents);
            }
        }
    }
    Ok(repositories)
}

/// Directories of apt's configuration whose files a sandbox tree can add to.
const APT_DIRECTORIES: [&str; 5] = ["apt.conf.d", "auth.conf.d", "preferences.d", "sources.list.d", "trusted.gpg.d"];

/// Calls a function of `distro` with what it needs of the stage's context.
pub(super) fn with_tools<T>(
    cx: &mut Context<'_>,
    action: impl FnOnce(&mut Cx<'_>) -> Result<T, distro::Error>,
) -> Result<T, StageError> {
    let mut tools = Cx {
        cancel: cx.cancel,
        log: cx.log,
        tools: cx.tools.sandbox.clone(),
        parallel: true,
        work: cx.work.path().to_path_buf(),
    };
    action(&mut tools).map_err(failure)
}

fn failure(error: distro::Error) -> StageError {
    match error {
        distro::Error::Sandbox(error) => error.into(),
        distro::Error::Gone { files } => StageError::Stale {
            stage: "sync",
            why: format!("the mirror no longer has {}: refreshing the metadata", files.join(", ")),
        },
        distro::Error::Pool { path, package, why } => StageError::Stale {
            stage: "download",
            why: format!("{} is not the package {package} ({why}): fetching it again", path.display()),
        },
        error => StageError::other(error),
    }
}

/// The layers of all base trees, lowest first. One that another image made has its layers in the store; one of the
/// host enters the store.
fn base_layers(cx: &mut Context<'_>) -> Result<Vec<Digest>, StageError> {
    let sources: Vec<Source> = cx.sources_of("BaseTrees").into_iter().map(|(_, source)| source.clone()).collect();
    let mut layers = Vec::new();
    for (index, source) in sources.into_iter().enumerate() {
        let (path, owners) = match source {
            Source::Image(Artifact::Tree { layers: theirs }) => {
                layers.extend(theirs);
                continue;
            }
            Source::Image(Artifact::Files { files }) => match files.first_key_value() {
                Some((name, digest)) => (named(cx, index, name, &cx.store.need_file(digest)?)?, true),
                None => continue,
            },
            Source::Image(Artifact::Value { .. }) => continue,
            Source::Host { path, .. } => (path, true),
        };
        let upper = cx.scratch(&format!("base-{index}"))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let inside = format!("/work/base/{name}");
        let mut spec = cx.spec(&[]);
        spec.mounts.push(Mount::Bind {
            source: upper.clone(),
            target: BUILDROOT.into(),
            read_only: false,
            optional: false,
        });
        let path_is_directory = path.is_dir();
        if !path_is_directory && !is_tar(Path::new(&name)) {
            return Err(StageError::Other(format!(
                "BaseTrees= names {name}, which is neither a directory nor a tar archive; `systemd-dissect --copy-from` takes \
                 a disk image apart"
            )));
        }
        spec.mounts.push(Mount::Bind { source: path, target: inside.clone().into(), read_only: true, optional: false });
        // The times of a directory are in no key, so they must not be in the layer.
        let epoch = path_is_directory.then(|| cx.epoch());
        let step = Step::Copy { from: inside.into(), to: "/".to_owned(), owners, epoch };
        apply(cx, spec, &[step])?;
        layers.push(cx.store.add_layer(&upper, None, &cx.ingest())?.digest);
    }
    Ok(layers)
}

/// A link with a name of its own to a file of the store: an archive is told by its name.
fn named(cx: &Context<'_>, index: usize, name: &str, file: &Path) -> Result<PathBuf, StageError> {
    let link = cx.scratch(&format!("named-{index}"))?.join(name);
    std::fs::hard_link(file, &link).map_err(StageError::io("link", &link))?;
    Ok(link)
}

/// dpkg's status file of the base trees; the topmost that has one counts.
fn status_of_base(cx: &Context<'_>) -> Result<String, StageError> {
    let read = |path: &Path| std::fs::read(path).map_err(StageError::io("read", path));
    let of_archive = |path: &Path| file_in_archive(path, STATUS).map_err(StageError::other);
    for (_, source) in cx.sources_of("BaseTrees").into_iter().rev() {
        let status = match source {
            Source::Image(Artifact::Tree { layers }) => {
                let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
                let merged = MergedTree::new(&layers);
                merged.lookup(STATUS.as_bytes()).map(|entry| read(&entry.source)).transpose()?
            }
            Source::Image(Artifact::Files { files }) => match files.first_key_value() {
                Some((name, digest)) if is_tar(Path::new(name)) => of_archive(&cx.store.need_file(digest)?)?,
                _ => None,
            },
            Source::Image(Artifact::Value { .. }) => None,
            Source::Host { path, .. } if path.is_file() && is_tar(path) => of_archive(path)?,
            Source::Host { path, .. } => {
                let path = path.join(STATUS);
                if path.is_file() { Some(read(&path)?) } else { None }
            }
        };
        if let Some(status) = status {
            return Ok(String::from_utf8_lossy(&status).into_owned());
        }
    }
    Err(no_database())
}

fn no_database() -> StageError {
    StageError::Other(
        "the tree that packages are to be added to has no dpkg database, so that apt can't tell what is installed: \
         build the base with CleanPackageMetadata=no, or take `Packages=` and `VolatilePackages=` away"
            .to_owned(),
    )
}
