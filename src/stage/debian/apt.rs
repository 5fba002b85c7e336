//! What the functions of `distro` are called with: the target, the repositories and the proxy that the settings ask for,
//! and the tools.

use std::path::Path;

use crate::config::{Value, View};
use crate::distro::{self, Cx, Distribution, Host, Proxy, Repositories, Settings, Target};
use crate::stage::{Context, StageError};
use crate::types::Architecture;

pub(super) fn target(cx: &Context<'_>) -> Result<Target, StageError> {
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
pub(in crate::stage) fn repositories(cx: &Context<'_>) -> Result<Repositories, StageError> {
    let mut host = Host::read(Path::new("/"));
    host.keyrings = distro::KEYRINGS.into_iter().filter(|path| cx.tools.has_file(Path::new(path))).collect();
    if cx.profile.network {
        host = host.with_network_settings();
    }
    repositories_for(cx, host)
}

/// What the settings say of the proxy.
pub(in crate::stage) fn proxy(view: &View) -> Proxy {
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
pub(in crate::stage) fn repositories_for(cx: &Context<'_>, host: Host) -> Result<Repositories, StageError> {
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
        for directory in distro::ETC {
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

/// Calls a function of `distro` with what it needs of the stage's context.
pub(in crate::stage) fn with_tools<T>(
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

pub(super) fn failure(error: distro::Error) -> StageError {
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
