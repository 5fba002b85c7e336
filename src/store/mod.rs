//! The store: layers, files and action records under one directory, named by their content.
//!
//! Append-only and atomic: work happens under the store's own `tmp/` and enters by one rename after its digest is
//! known. The layout is drawn in `docs/store.md`. Knows nothing of images, stages or configuration.

mod artifact;
mod artifacts;
mod backend;
mod canon;
mod copy;
mod error;
mod failed;
mod files;
mod gc;
mod host;
mod index;
mod labels;
mod layer;
mod layout;
mod locks;
mod merged;
mod parts;
mod programs;
mod records;
mod root;
mod scan;
mod sight;
mod statcache;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod traces;
mod verify;
mod walk;
mod work;

pub use artifact::{Artifact, Read, Record, Slot};
pub use backend::{Backend, probe_overlay};
pub use copy::{Materialise, copy_tree, diff, materialise};
pub use error::StoreError;
pub use failed::Failed;
pub use gc::{GcPolicy, GcReport};
pub use host::{Hasher, TreeOptions};
pub use index::{Entry, Kind, Meta, TreeIndex, is_below, parent, path_order};
pub use labels::LABEL;
pub use layer::{Ingest, Layer, lower_dirs};
pub use locks::KeyLock;
pub use merged::{MergedEntry, MergedTree};
pub use root::Store;
pub use verify::{Usage, VerifyReport};
pub use work::{WorkDir, remove_tree};
