//! The store: layers, files and action records under one directory, named by their content.
//!
//! Append-only and atomic: work happens under the store's own `tmp/` and enters by one rename after its digest is
//! known. The layout is drawn in `docs/store.md`. Knows nothing of images, stages or configuration.

mod artifact;
mod index;
mod merged;

pub use artifact::{Artifact, Record, Slot};
pub use index::{Entry, Kind, Meta, TreeIndex};
pub use merged::{MergedEntry, MergedTree};
