//! The graph: keys, conditions, what changes what, and how it is printed.
//!
//! Nothing here runs a stage or depends on the host: digests are made up, and a run is one whose outputs are
//! named by the keys.

mod claim;
mod errors;
mod flip;
mod golden;
mod hidden;
mod preview;
mod property;
mod support;
mod tools;
