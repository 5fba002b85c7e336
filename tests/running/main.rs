//! The verbs that run an image: their command lines, and what can be run here.

mod bios;
mod boot;
mod commands;
mod containers;
mod host;
mod tools_tree;
// Half of it is for builds.
#[path = "../support/mod.rs"]
mod support;
