//! The directories of partition definitions (repart.d(5)) that systemd-repart reads, and their files where they are split off.
//!
//! Knows nothing of what stands in them, but for a partition with a signature.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::links;
use crate::sandbox::Mount;
use crate::stage::{Context, Source, StageError};
use crate::store::{Artifact, Kind, MergedTree};
use crate::types::Digest;

/// Directories of definitions, in the user's order.
#[derive(Default)]
pub struct Definitions {
    /// How they come into the sandbox.
    pub mounts: Vec<Mount>,
    /// Where they are there.
    pub targets: Vec<String>,
}

impl Definitions {
    fn add(&mut self, make: impl FnOnce(&str) -> Result<Vec<Mount>, StageError>) -> Result<(), StageError> {
        let target = format!("/work/repart/{:02}", self.targets.len());
        self.mounts.extend(make(&target)?);
        self.targets.push(target);
        Ok(())
    }

    /// Those with these texts.
    pub fn of_texts(texts: &BTreeMap<String, String>) -> Self {
        let mut definitions = Self::default();
        let files = |target: &str| {
            let file = |(name, text): (&String, &String)| Mount::File {
                target: Path::new(target).join(name),
                contents: text.as_bytes().to_vec(),
                mode: 0o644,
            };
            Ok(texts.iter().map(file).collect())
        };
        // Making mounts of texts can't fail.
        let _ = definitions.add(files);
        definitions
    }

    /// Whether one makes a partition for a signature, as far as that can be seen.
    pub fn want_signature(&self) -> bool {
        let has = |text: &[u8]| String::from_utf8_lossy(text).lines().any(|line| line.trim() == "Verity=signature");
        self.mounts.iter().any(|mount| match mount {
            Mount::File { contents, .. } => has(contents),
            Mount::Bind { source, .. } => {
                let mut found = Vec::new();
                list(source, "", &mut found).is_ok()
                    && found.iter().any(|(_, path)| std::fs::read(path).is_ok_and(|text| has(&text)))
            }
            // Those that another image made.
            _ => true,
        })
    }

    /// The directories of `RepartDirectories=`.
    ///
    /// # Errors
    /// When one can't be read, or has a link that leads out of it.
    pub fn of_project(cx: &Context<'_>) -> Result<Self, StageError> {
        let mut definitions = Self::default();
        for (_, source) in cx.sources_of("RepartDirectories") {
            if let Some(path) = Context::host_path(source) {
                links::check(path)?;
            }
            definitions
                .add(|target| Ok(super::super::extra::source_mount(cx, source, target)?.into_iter().collect()))?;
        }
        Ok(definitions)
    }
}

/// The definitions as files of the output directory, where they are split off: those of later directories replace those
/// of earlier ones.
///
/// # Errors
/// As [`Definitions::of_project`], or when one can't be stored.
pub fn split_definitions(
    cx: &Context<'_>,
    texts: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Digest>, StageError> {
    let mut files = BTreeMap::new();
    if !cx.view.test("SplitArtifacts=repart-definitions") {
        return Ok(files);
    }
    let name = |path: &str| format!(".repart.d/{path}");
    for (path, text) in texts {
        files.insert(name(path), cx.store.add_bytes(text.as_bytes())?);
    }
    if !texts.is_empty() {
        return Ok(files);
    }
    for (_, source) in cx.sources_of("RepartDirectories") {
        match source {
            Source::Host { path, .. } => {
                links::check(path)?;
                let mut found = Vec::new();
                list(path, "", &mut found)?;
                for (below, path) in found {
                    let text = std::fs::read(&path).map_err(StageError::io("read", &path))?;
                    files.insert(name(&below), cx.store.add_bytes(&text)?);
                }
            }
            Source::Image(Artifact::Tree { layers }) => {
                let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
                for merged in MergedTree::new(&layers).entries {
                    if let Kind::File { .. } = merged.entry.kind {
                        let text = std::fs::read(&merged.source).map_err(StageError::io("read", &merged.source))?;
                        let below = String::from_utf8_lossy(&merged.entry.path).into_owned();
                        files.insert(name(&below), cx.store.add_bytes(&text)?);
                    }
                }
            }
            Source::Image(_) => {}
        }
    }
    Ok(files)
}

/// The files below a directory, by their path in it. Links are followed to files alone.
fn list(directory: &Path, below: &str, found: &mut Vec<(String, PathBuf)>) -> Result<(), StageError> {
    for entry in std::fs::read_dir(directory).map_err(StageError::io("list", directory))? {
        let entry = entry.map_err(StageError::io("list", directory))?;
        let (path, name) = (entry.path(), format!("{below}{}", entry.file_name().to_string_lossy()));
        let kind = entry.file_type().map_err(StageError::io("look at", &path))?;
        if kind.is_dir() {
            list(&path, &format!("{name}/"), found)?;
        } else if path.is_file() {
            found.push((name, path));
        }
    }
    Ok(())
}
