//! What a stage is given of its node: artifacts, sources and the rights of its sandbox, in the stage's terms.
//!
//! Knows nothing of keys and records.

use std::collections::BTreeMap;

use crate::plan::{self, Node, OutputPart, RootAccess, Sources};
use crate::stage::{Profile, Root, Source, StageError};
use crate::store::Artifact;
use crate::types::Digest;

/// The artifacts that a stage needs, by the names that its declaration has for them.
pub fn needs(all: &BTreeMap<String, Artifact>) -> BTreeMap<String, Artifact> {
    let stripped = |(name, artifact): (&String, &Artifact)| {
        let rest = name.strip_prefix("need/").or(name.strip_prefix("unkeyed/"))?;
        Some((rest.to_owned(), artifact.clone()))
    };
    all.iter().filter_map(stripped).collect()
}

/// The file inputs of a node, by setting and place in it. `needs` has the outputs of other images among them.
///
/// # Errors
/// When a setting names a file that the other image doesn't make.
pub fn sources(node: &Node, needs: &BTreeMap<String, Artifact>) -> Result<BTreeMap<String, Source>, StageError> {
    let mut sources = BTreeMap::new();
    for (name, source) in &node.sources {
        let short = name.strip_prefix("file/").unwrap_or(name).to_owned();
        match source {
            plan::Source::Host { path, hidden } => {
                sources.insert(short, Source::Host { path: path.clone(), hidden: hidden.paths() });
            }
            plan::Source::Image { output, part } => {
                if let Some(artifact) = needs.get(name) {
                    sources.insert(short, Source::Image(select(output, part, artifact)?));
                }
            }
        }
    }
    Ok(sources)
}

/// What a stage gets of an image's output that its setting names a part of: files have the names that they are published
/// with, for an archive is told by its name.
fn select(output: &str, part: &OutputPart, artifact: &Artifact) -> Result<Artifact, StageError> {
    let Artifact::Files { files } = artifact else { return Ok(artifact.clone()) };
    let published = |files: BTreeMap<String, Digest>| -> BTreeMap<String, Digest> {
        files.into_iter().map(|(name, digest)| (format!("{output}{name}"), digest)).collect()
    };
    let selected = part.select(files);
    if selected.is_empty() && !files.is_empty() {
        let made: Vec<String> = published(files.clone()).into_keys().collect();
        return Err(StageError::Other(format!(
            "a setting names {}, an output of another image, which makes only {}: correct the name, or set SplitArtifacts= \
             in that image",
            part.of(output),
            made.join(", ")
        )));
    }
    Ok(Artifact::Files { files: published(selected) })
}

/// The rights of a stage's sandbox.
pub fn profile(node: &Node) -> Profile {
    let declared = &node.decl.sandbox;
    Profile {
        root: match declared.root {
            RootAccess::None => Root::None,
            RootAccess::ReadOnly => Root::ReadOnly,
            RootAccess::ReadWrite => Root::ReadWrite,
            RootAccess::Scratch => Root::Scratch,
        },
        sources: declared.sources != Sources::No,
        network: match &declared.network {
            plan::Network::No => false,
            plan::Network::Yes => true,
            plan::Network::Setting(setting) => node.image.bool(setting),
        },
        labels: declared.labels,
        loop_devices: node.decl.uses_loop_devices(&node.image),
    }
}
