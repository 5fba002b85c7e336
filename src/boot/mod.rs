//! What booting an image takes: kernel modules with their firmware, and processor microcode.
//!
//! Pure code on merged trees. Knows nothing of stages, keys and settings.

pub mod microcode;
pub mod modules;
