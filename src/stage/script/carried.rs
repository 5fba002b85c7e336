//! The directories that scripts hand on to the scripts after them: `$OUTPUTDIR`, `$PACKAGEDIR` and `$ARTIFACTDIR`.
//!
//! Each stage that runs scripts has them as outputs, whole, so the last stage that ran says what is in them. Knows
//! nothing of how a script is run.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::stage::{Context, Outputs, StageError};
use crate::store::{Artifact, Materialise, materialise};
use crate::types::Digest;

/// The stages in the order in which they run.
const ORDER: [&str; 6] = ["prepare", "prepare-build", "build", "postinst", "finalize", "postoutput"];

/// An output of the last of the stages that ran.
pub fn latest<'a>(needs: &'a BTreeMap<String, Artifact>, output: &str) -> Option<&'a Artifact> {
    ORDER.iter().rev().find_map(|stage| needs.get(&format!("{stage}.{output}")))
}

/// Puts there again what earlier scripts left in `$OUTPUTDIR`.
pub fn restore_files(cx: &Context<'_>, files: &BTreeMap<String, Digest>, directory: &Path) -> Result<(), StageError> {
    for (name, digest) in files {
        let target = directory.join(name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(StageError::io("make the directory", parent))?;
        }
        let source = cx.store.need_file(digest)?;
        std::fs::copy(&source, &target).map_err(StageError::io("copy an earlier output to", &target))?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644))
            .map_err(StageError::io("set the mode of", &target))?;
    }
    Ok(())
}

/// Takes the regular files below a directory into the store, by their path.
pub fn store_files(cx: &Context<'_>, directory: &Path) -> Result<BTreeMap<String, Digest>, StageError> {
    let mut files = BTreeMap::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(current) = queue.pop() {
        let entries = std::fs::read_dir(&current).map_err(StageError::io("list", &current))?;
        for entry in entries {
            let path = entry.map_err(StageError::io("list", &current))?.path();
            let kind = path.symlink_metadata().map_err(StageError::io("look at", &path))?.file_type();
            if kind.is_dir() {
                queue.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, cx.store.add_file(&path)?);
            }
        }
    }
    Ok(files)
}

/// The directories of one stage, as the scripts before it left them.
pub struct Carried {
    /// `$OUTPUTDIR`.
    pub out: PathBuf,
    /// `$PACKAGEDIR`.
    pub packages: PathBuf,
    /// `$ARTIFACTDIR`.
    pub artifacts: PathBuf,
}

impl Carried {
    /// Makes the directories. `$PACKAGEDIR` starts with the packages of `PackageDirectories=`.
    pub fn restore(cx: &Context<'_>) -> Result<Self, StageError> {
        let tree = |name: &str| {
            let directory = cx.scratch(name)?;
            if let Some(Artifact::Tree { layers }) = latest(&cx.needs, name) {
                let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
                materialise(&layers, &directory, &Materialise { break_links: true, ..Materialise::default() })?;
            }
            Ok::<_, StageError>(directory)
        };
        let carried = Self { out: cx.scratch("out")?, packages: tree("packages")?, artifacts: tree("artifacts")? };
        if let Some(Artifact::Files { files }) = latest(&cx.needs, "out") {
            restore_files(cx, files, &carried.out)?;
        }
        let settings = ["PackageDirectories", "VolatilePackageDirectories"];
        for (_, source) in settings.iter().flat_map(|setting| cx.sources_of(setting)) {
            if let Some(directory) = Context::host_path(source) {
                copy_packages(directory, &carried.packages)?;
            }
        }
        Ok(carried)
    }

    /// Takes the directories that a stage declares as outputs into the store.
    pub fn keep(&self, cx: &Context<'_>, names: &[&str], outputs: &mut Outputs) -> Result<(), StageError> {
        for name in names {
            let artifact = match *name {
                "out" => Artifact::Files { files: store_files(cx, &self.out)? },
                "packages" => {
                    Artifact::Tree { layers: vec![cx.store.add_layer(&self.packages, None, &cx.ingest())?.digest] }
                }
                _ => Artifact::Tree { layers: vec![cx.store.add_layer(&self.artifacts, None, &cx.ingest())?.digest] },
            };
            outputs.insert((*name).to_owned(), artifact);
        }
        Ok(())
    }
}

/// Copies the packages of a directory; one that is there already stays.
fn copy_packages(from: &Path, to: &Path) -> Result<(), StageError> {
    let entries = std::fs::read_dir(from).map_err(StageError::io("list", from))?;
    for entry in entries {
        let path = entry.map_err(StageError::io("list", from))?.path();
        let (Some(name), Some("deb" | "ddeb")) = (path.file_name(), path.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let target = to.join(name);
        // A link that an earlier script left there counts as well: a copy must not go where it points.
        if target.symlink_metadata().is_err() {
            std::fs::copy(&path, &target).map_err(StageError::io("copy a package to", &target))?;
        }
    }
    Ok(())
}
