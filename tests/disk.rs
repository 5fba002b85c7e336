//! Disk images, opened by the tools that they are made for.
//!
//! Needs root and apt. A small Debian tree with systemd-repart and the programs of each file system is built once and
//! kept below `target/`; the checks run in `mkosi.postoutput`, with the programs of that tree.

mod support;

#[path = "disk/bios.rs"]
mod bios;
#[path = "disk/equal.rs"]
mod equal;
#[path = "disk/extensions.rs"]
mod extensions;
#[path = "disk/images.rs"]
mod images;
#[path = "disk/labels.rs"]
mod labels;
#[path = "disk/project.rs"]
mod project;
