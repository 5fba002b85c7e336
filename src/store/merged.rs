//! One tree out of several layers, without mounting anything.

use std::path::PathBuf;

use super::Entry;

/// An entry of a merged tree and the file on the host that holds its content.
#[derive(Clone, Debug)]
pub struct MergedEntry {
    /// The entry; never a whiteout, and a directory is never opaque.
    pub entry: Entry,
    /// Where it lies on the host: below the topmost layer that has it.
    pub source: PathBuf,
}

/// A whole tree, merged from layers as overlayfs would show it. In the same order as a `TreeIndex`.
#[derive(Clone, Debug, Default)]
pub struct MergedTree {
    /// The entries.
    pub entries: Vec<MergedEntry>,
}
