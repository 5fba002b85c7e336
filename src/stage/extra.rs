//! Build results and `ExtraTrees=` on the image's tree, and `SandboxTrees=`, which make a tree of their own.

use std::os::unix::fs::PermissionsExt;

use super::apply::{Step, apply};
use super::{Context, Outputs, Source, StageError};
use crate::config::Value;
use crate::sandbox::Mount;
use crate::store::{Artifact, lower_dirs};
use crate::types::Digest;

/// Copies what the build installed, then the extra trees in the user's order.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    let mut steps = Vec::new();
    if let Some(Artifact::Tree { layers }) = cx.needs.get("build.dest") {
        spec.mounts.push(layers_mount(cx, layers, "/work/dest")?);
        steps.push(Step::Copy { from: "/work/dest".into(), to: "/".to_owned(), owners: true, epoch: None });
    }
    add_trees(cx, "ExtraTrees", &mut spec.mounts, &mut steps)?;
    apply(cx, spec, &steps)?;
    cx.close_tree(tree)
}

/// Puts the sandbox trees over each other: a tree of their own, which lies over the tools.
pub fn sandbox_trees(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    let mut steps = Vec::new();
    add_trees(cx, "SandboxTrees", &mut spec.mounts, &mut steps)?;
    apply(cx, spec, &steps)?;
    cx.close_tree(tree)
}

/// Mounts every tree of a setting and adds the steps that copy them.
pub fn add_trees(
    cx: &Context<'_>,
    setting: &str,
    mounts: &mut Vec<Mount>,
    steps: &mut Vec<Step>,
) -> Result<(), StageError> {
    let items = cx.view.get(setting).items();
    for (name, source) in cx.sources_of(setting) {
        let index = name.split('/').next().unwrap_or(name);
        let target = index
            .parse::<usize>()
            .ok()
            .and_then(|index| items.get(index))
            .and_then(|item| item.field("target"))
            .and_then(Value::as_text)
            .filter(|target| !target.is_empty())
            .unwrap_or("/")
            .to_owned();
        let base = match source {
            Source::Host { path, .. } => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Source::Image(Artifact::Files { files }) => {
                files.first_key_value().and_then(|(name, _)| name.split('/').next()).map(str::to_owned)
            }
            Source::Image(_) => None,
        };
        // An archive keeps its name: that is how it is told from a plain file.
        let from = format!("/work/trees/{setting}-{index}/{}", base.unwrap_or_else(|| "tree".to_owned()));
        let Some(mount) = source_mount(cx, source, &from)? else { continue };
        mounts.push(mount);
        // What another image made has its owners; what lies in the project belongs to whoever cloned it.
        let owners = matches!(source, Source::Image(_));
        steps.push(Step::Copy { from: from.into(), to: target, owners, epoch: Some(cx.epoch()) });
    }
    Ok(())
}

/// A read-only mount of a file input. Nothing for what is no file.
///
/// # Errors
/// When the store lacks what another image made.
pub fn source_mount(cx: &Context<'_>, source: &Source, target: &str) -> Result<Option<Mount>, StageError> {
    let bind = |source| Mount::Bind { source, target: target.into(), read_only: true, optional: false };
    Ok(match source {
        Source::Host { path, .. } => Some(bind(path.clone())),
        Source::Image(Artifact::Tree { layers }) => Some(layers_mount(cx, layers, target)?),
        // A directory of files, as an OCI image is.
        Source::Image(Artifact::Files { files }) if files.keys().any(|name| name.contains('/')) => {
            let directory = cx.scratch(&format!("files{}", target.replace('/', "-")))?;
            for (name, digest) in files {
                let path = directory.join(name.trim_start_matches(|c| c != '/').trim_start_matches('/'));
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(StageError::io("make the directory", parent))?;
                }
                let source = cx.store.need_file(digest)?;
                std::fs::copy(&source, &path).map_err(StageError::io("copy an image's output to", &path))?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
                    .map_err(StageError::io("set the mode of", &path))?;
            }
            Some(bind(directory))
        }
        Source::Image(Artifact::Files { files }) => match files.first_key_value() {
            Some((_, digest)) => Some(bind(cx.store.need_file(digest)?)),
            None => None,
        },
        Source::Image(Artifact::Value { .. }) => None,
    })
}

/// A read-only mount of a tree in the store.
///
/// # Errors
/// When a layer is missing.
pub fn layers_mount(cx: &Context<'_>, layers: &[Digest], target: &str) -> Result<Mount, StageError> {
    let layers = layers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
    Ok(Mount::Overlay { lowers: lower_dirs(&layers), upper: None, target: target.into() })
}
