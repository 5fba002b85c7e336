//! What it takes to boot an image: the kernels of a tree, command lines, unified kernel images, boot loader entries,
//! signatures, kernel modules with their firmware, and the microcode of processors.
//!
//! Reads trees of the store and gives names, texts and argument lists. Runs nothing, and knows nothing of stages, keys
//! and settings.

pub mod cmdline;
pub mod devicetrees;
pub mod grub;
pub mod kernels;
pub mod loader;
pub mod look;
pub mod measured;
pub mod microcode;
pub mod modules;
pub mod names;
pub mod pe;
pub mod signing;
pub mod ukify;
pub mod wanted;

use std::path::PathBuf;

/// Why something can't boot, or can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the tree could not be read.
    #[error("can't read `/{path}` of the image: {source}")]
    Read {
        /// The path in the tree.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the host or the store could not be read.
    #[error("can't read {}: {source}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The machine has no UEFI.
    #[error(
        "the architecture {architecture} has no UEFI, so that no image for it boots with {what}; \
         set Bootable=no, or Bootloader=none"
    )]
    NoEfi {
        /// The architecture.
        architecture: &'static str,
        /// What was wanted.
        what: String,
    },
    /// Something that the image must hold is not in it.
    #[error("{wanted}, but the image has no {missing}; {advice}")]
    Missing {
        /// What asked for it.
        wanted: String,
        /// What is missing.
        missing: String,
        /// What to do.
        advice: String,
    },
}

/// The result of a look at what boots.
pub type Result<T> = std::result::Result<T, Error>;
