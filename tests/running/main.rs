//! The verbs that run an image: their command lines, and what can be run here.

mod boot;
mod commands;
mod containers;
mod host;
// Half of it is for builds.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;
