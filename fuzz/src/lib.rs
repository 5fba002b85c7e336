//! The configuration language by itself, from the program's own sources: instrumented and built in a fraction of the
//! time that the whole program takes.

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/cli/summary.rs"]
pub mod summary;
#[path = "../../src/types/mod.rs"]
pub mod types;
