//! An image's tree for who uses it outside of a build, as long as the store is open. Knows nothing of what it is used
//! for.

use std::path::PathBuf;

use super::look::Known;
use crate::plan::Plan;
use crate::store::{Artifact, Backend, Hasher, Materialise, Store, StoreError, WorkDir, lower_dirs, materialise};

/// The directories that make a tree, by overlayfs' rules.
#[derive(Debug)]
pub struct ShownTree {
    /// The directories, lowest first.
    pub directories: Vec<PathBuf>,
    /// The tree as one directory, where no overlay can be mounted.
    _copy: Option<WorkDir>,
}

/// Shows an image's tree as a build would make it now. Nothing where that was not built yet, or of something else.
///
/// # Errors
/// When the store fails.
pub fn show_tree(plan: &Plan, store: &Store, image: &str) -> Result<Option<ShownTree>, StoreError> {
    let hasher = Hasher::new(store);
    let mut known = Known::new(plan, store, &hasher);
    let outputs = plan.tree(image).and_then(|id| known.outputs(id));
    let layers = match outputs.as_ref().and_then(|outputs| outputs.get("tree")) {
        Some(Artifact::Tree { layers }) if !known.old => layers,
        _ => return Ok(None),
    };
    let layers = layers.iter().map(|digest| store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
    if !matches!(store.backend(), Backend::Copy { .. }) || layers.len() == 1 {
        return Ok(Some(ShownTree { directories: lower_dirs(&layers), _copy: None }));
    }
    let work = store.work_dir("tools")?;
    let place = work.join("tree");
    materialise(&layers, &place, &Materialise { read_only: true, ..Materialise::default() })?;
    Ok(Some(ShownTree { directories: vec![place], _copy: Some(work) }))
}
