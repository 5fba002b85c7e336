//! A first tree of the tools image's distribution, made by this program alone where the host has no package manager.
//! The tools image is then installed with the apt and dpkg that are in it.

use std::collections::BTreeMap;

use serde_json::json;

use super::debian::{install_options, repositories_for, use_package, with_tools};
use super::{Context, Outputs, StageError};
use crate::distro::{self, Host, Package};
use crate::store::Artifact;

/// Finds the packages of the tree: the output `list`, and where the mirror has them as `uris`.
pub fn packages(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    if let Some(mode @ ("always" | "metadata")) = cx.view.text("CacheOnly") {
        return Err(StageError::Other(format!(
            "the host has no package manager, the store has none either, and CacheOnly={mode} forbids fetching one: \
             build once with CacheOnly=auto"
        )));
    }
    let repositories = repositories_for(cx, host())?;
    let packages = with_tools(cx, |tools| distro::seed_packages(tools, &repositories))?;
    let mut uris = BTreeMap::new();
    let list: Vec<Package> = packages
        .into_iter()
        .map(|mut package| {
            uris.insert(package.sha256.clone(), std::mem::take(&mut package.uri));
            package
        })
        .collect();
    let value = |value| Artifact::Value { value };
    Ok(Outputs::from([("list".to_owned(), value(json!(list))), ("uris".to_owned(), value(json!(uris)))]))
}

/// Fetches, unpacks and configures them.
pub fn tree(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let value = |need: &str| match cx.needs.get(need) {
        Some(Artifact::Value { value }) => value.clone(),
        _ => serde_json::Value::Null,
    };
    let uris: BTreeMap<String, String> =
        serde_json::from_value(value("seed-packages.uris")).map_err(StageError::other)?;
    let mut packages: Vec<Package> = serde_json::from_value(value("seed-packages.list")).map_err(StageError::other)?;
    for package in &mut packages {
        package.uri = uris.get(&package.sha256).cloned().unwrap_or_default();
    }
    let repositories = repositories_for(cx, host())?;
    let pool = cx.store.pool();
    with_tools(cx, |tools| distro::seed_download(tools, &packages, &repositories, &pool))?;
    for package in &packages {
        use_package(cx, package)?;
    }
    let tree = cx.open_tree()?;
    let (mount, options) = (cx.tree_mount(&tree), install_options(cx)?);
    with_tools(cx, |tools| distro::install_seed(tools, mount, &pool, &packages, &options))?;
    cx.close_tree(tree)
}

/// What is known of the host's mirrors. Its keyring need not be there: one is built in.
fn host() -> Host {
    Host { keyrings: distro::KEYRINGS.to_vec(), ..Host::read(std::path::Path::new("/")) }
}
