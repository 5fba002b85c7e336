//! Where the programs of a node come from: the host, a directory that is a tools tree, or one in the store. Knows
//! nothing of which stage runs what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::node::Job;
use crate::plan::{Programs, Source};
use crate::sandbox;
use crate::stage::{StageError, Tools, in_order};
use crate::store::{Artifact, Backend, Layer, Materialise, WorkDir, lower_dirs, materialise};
use crate::types::Digest;

/// Trees of several layers where no overlay can be mounted: copied once in a run, by their layers.
pub(super) type Trees = Mutex<BTreeMap<Vec<Digest>, WorkDir>>;

impl Job<'_> {
    fn copied(&self, layers: &[Layer]) -> Result<PathBuf, StageError> {
        let key: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        // Held while it is copied: the others wait for the same. A tree enters the map when it is whole.
        let mut trees = self.shared.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match trees.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let work = self.store.work_dir("tools")?;
                materialise(layers, &work.join("tree"), &Materialise { read_only: true, ..Materialise::default() })?;
                entry.insert(work)
            }
        };
        Ok(work.join("tree"))
    }

    /// The node's tools. A stage that runs no programs has the host's: just what this program itself needs to run in a
    /// sandbox.
    pub(super) fn tools(&self) -> Result<Tools, StageError> {
        if self.node.decl.programs() == Programs::None {
            return Ok(Tools::default());
        }
        let names = ["tools", "unkeyed/tools"];
        let mut tools = match names.iter().find_map(|name| self.needs.get(*name)) {
            Some(Artifact::Tree { layers }) => {
                let layers =
                    layers.iter().map(|digest| self.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
                let directories = match self.store.backend() {
                    Backend::Copy { .. } if layers.len() > 1 => vec![self.copied(&layers)?],
                    _ => lower_dirs(&layers),
                };
                Tools::of_layers(layers, directories)
            }
            Some(_) => return Err(StageError::Other("a tools tree has to be a directory, not an archive".to_owned())),
            None => match names.iter().find_map(|name| self.node.sources.get(*name)) {
                Some(Source::Host { path, .. }) => Tools::of_directory(path)?,
                _ => Tools::default(),
            },
        };
        let sources = self.node.sources.iter();
        let sources = sources.map(|(name, source)| (name.trim_start_matches("unkeyed/"), source));
        let search = in_order(sources, "file/ExtraSearchPaths/").into_iter();
        let search = search.filter_map(|(_, source)| match source {
            Source::Host { path, .. } => Some(path.clone()),
            Source::Image { .. } => None,
        });
        let names = ["need/sandbox-trees.tree", "unkeyed/sandbox-trees.tree"];
        let trees = match names.iter().find_map(|name| self.needs.get(*name)) {
            Some(Artifact::Tree { layers }) => {
                let layers =
                    layers.iter().map(|digest| self.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
                lower_dirs(&layers)
            }
            _ => Vec::new(),
        };
        let host_certificates = !self.node.image.bool("ToolsTreeCertificates");
        tools.sandbox = sandbox::Tools { search: search.collect(), trees, host_certificates, ..tools.sandbox };
        Ok(tools)
    }
}
