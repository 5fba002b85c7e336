//! Labels of SELinux in a layer: the tree's own, never those that the host's policy gives to every file.
//!
//! A label belongs to the tree where a stage that labels wrote it. Any other stage leaves labels alone: what it makes or
//! copies up has the label of that path in the tree below, or none, whatever the host says of the file.

use std::collections::HashMap;
use std::path::Path;

use super::scan::{Raw, Scanned};
use super::walk::{host_path, set_xattr};
use super::{Kind, MergedTree, Meta, StoreError, TreeIndex};

/// The attribute with a file's label.
pub const LABEL: &[u8] = b"security.selinux";

/// Gives what was found the labels of the tree below.
pub(super) fn settle(raws: &mut [Raw], lower: Option<&MergedTree>) {
    let mut links: HashMap<(u64, u64), Option<Vec<u8>>> = HashMap::new();
    for raw in raws.iter_mut().filter(|raw| raw.entry.kind != Kind::Whiteout) {
        let below = || label(&lower?.lookup(&raw.entry.path)?.entry.meta);
        let wanted = match raw.link {
            // All names of a file have one label.
            Some(link) => links.entry(link).or_insert_with(below).clone(),
            None => below(),
        };
        raw.relabel = wanted.is_some() && wanted != label(&raw.entry.meta);
        match wanted {
            Some(wanted) => raw.entry.meta.xattrs.insert(LABEL.to_vec(), wanted),
            None => raw.entry.meta.xattrs.remove(LABEL),
        };
    }
}

/// Writes the labels that files lack: what a stage made anew where the tree below had a file with a label.
///
/// # Errors
/// When a file can't be labelled.
pub(super) fn write(root: &Path, raws: &[Raw]) -> Result<(), StoreError> {
    for raw in raws.iter().filter(|raw| raw.relabel) {
        if let Some(wanted) = raw.entry.meta.xattrs.get(LABEL) {
            set_xattr(&host_path(root, &raw.entry.path), LABEL, wanted)?;
        }
    }
    Ok(())
}

/// Takes away what the host says of files that have no label by the index.
pub(super) fn as_indexed(scanned: &mut Scanned, index: &TreeIndex) {
    for raw in &mut scanned.raws {
        let labelled = index.lookup(&raw.entry.path).is_some_and(|entry| entry.meta.xattrs.contains_key(LABEL));
        if !labelled {
            raw.entry.meta.xattrs.remove(LABEL);
        }
    }
}

fn label(meta: &Meta) -> Option<Vec<u8>> {
    meta.xattrs.get(LABEL).cloned()
}
