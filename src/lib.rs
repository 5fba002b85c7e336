//! A build-graph engine for operating-system images that reads mkosi configuration.
//!
//! `config` reads what the user wrote, `plan` compiles it to a graph of content-hashed nodes, `exec` runs the nodes
//! in sandboxes and keeps what they make in the `store`. `docs/architecture.md` has the picture.

pub mod boot;
pub mod cli;
pub mod config;
pub mod distro;
pub mod exec;
pub mod output;
pub mod plan;
pub mod reads;
pub mod rootfs;
pub mod run;
pub mod sandbox;
pub mod stage;
pub mod store;
pub mod types;
