//! Images that boot, looked at with the tools for that: unified kernel images, boot loaders, signatures.
//!
//! Needs root and apt. A small Debian tree with ukify, bootctl and sbsigntool is built once and kept below `target/`.
//! The trees hold systemd's own EFI programs; one of these stands for a kernel.

mod support;

#[path = "boot/equal.rs"]
mod equal;
#[path = "boot/images.rs"]
mod images;
#[path = "boot/project.rs"]
mod project;
#[path = "boot/refusals.rs"]
mod refusals;
#[path = "boot/sections.rs"]
mod sections;
#[path = "boot/tokens.rs"]
mod tokens;
