//! Where the programs of a node come from: the host, a directory that is a tools tree, or one in the store. Knows
//! nothing of which stage runs what.

use super::node::Job;
use crate::plan::{Programs, Source};
use crate::sandbox;
use crate::stage::{StageError, Tools};
use crate::store::{Artifact, lower_dirs};

impl Job<'_> {
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
                let directories = lower_dirs(&layers);
                Tools::of_layers(layers, directories)
            }
            Some(_) => return Err(StageError::Other("a tools tree has to be a directory, not an archive".to_owned())),
            None => match names.iter().find_map(|name| self.node.sources.get(*name)) {
                Some(Source::Host { path, .. }) => Tools::of_directory(path)?,
                _ => Tools::default(),
            },
        };
        let sources = self.node.sources.iter();
        let search =
            sources.filter(|(name, _)| name.trim_start_matches("unkeyed/").starts_with("file/ExtraSearchPaths/"));
        let search = search.filter_map(|(_, source)| match source {
            Source::Host { path, .. } => Some(path.clone()),
            Source::Image => None,
        });
        let host_certificates = !self.node.image.bool("ToolsTreeCertificates");
        tools.sandbox = sandbox::Tools { search: search.collect(), host_certificates, ..tools.sandbox };
        Ok(tools)
    }
}
