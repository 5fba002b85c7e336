//! Runs one command in namespaces of its own, with just the files that its specification names.
//!
//! The parent never enters a namespace: it starts its own executable again as `sandbox-init`, hands it the
//! specification on a pipe, and that single-threaded child does the rest. Knows nothing of images, stages or the
//! store.

mod run;
mod spec;

pub use run::{Cancel, Error, Exit, Input, Output};
pub use spec::{Mount, Spec};
