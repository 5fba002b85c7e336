//! `BaseTrees=`: their layers, and what is installed in them.

use std::path::{Path, PathBuf};

use super::STATUS;
use crate::rootfs::{file_in_archive, is_tar};
use crate::sandbox::Mount;
use crate::stage::apply::{Step, apply};
use crate::stage::context::BUILDROOT;
use crate::stage::{Context, Source, StageError};
use crate::store::{Artifact, MergedTree};
use crate::types::Digest;

/// The layers of all base trees, lowest first. One that another image made has its layers in the store; one of the
/// host enters the store.
pub(super) fn base_layers(cx: &mut Context<'_>) -> Result<Vec<Digest>, StageError> {
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
pub(super) fn status_of_base(cx: &Context<'_>) -> Result<String, StageError> {
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

pub(super) fn no_database() -> StageError {
    StageError::Other(
        "the tree that packages are to be added to has no dpkg database, so that apt can't tell what is installed: \
         build the base with CleanPackageMetadata=no, or take `Packages=` and `VolatilePackages=` away"
            .to_owned(),
    )
}
