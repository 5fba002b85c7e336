//! Kernel modules and firmware of a tree: which there are, what they need of each other, which ones the settings keep.
//!
//! Reads what depmod(8) and the kernel's build leave in `/usr/lib/modules/VERSION` and the `.modinfo` of modules, and
//! changes nothing.

mod entries;
mod firmware;
mod info;
mod kernel;
mod links;
mod pattern;
mod select;
#[cfg(test)]
pub(super) mod testing;

use std::path::PathBuf;

pub use entries::{initrd_entries, leftovers};
pub use info::{Packed, unpacked};
pub use kernel::{Kernel, versions};
pub use links::follow;
pub use pattern::PatternError;
pub use select::{Selection, Wishes, select};

/// Where kernels keep their modules, one directory for each version.
pub const MODULES: &[u8] = b"usr/lib/modules";

/// Where drivers find firmware.
pub const FIRMWARE: &[u8] = b"usr/lib/firmware";

/// Why modules could not be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A pattern of a setting.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A file of the tree that can't be read.
    #[error("can't read {}: {source}", .path.display())]
    Read {
        /// Where it lies on the host.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no kernel module.
    #[error(
        "/{path} is no kernel module that can be read: {reason}. Reinstall the package that it is from, or remove it"
    )]
    Module {
        /// The path in the image.
        path: String,
        /// Why.
        reason: String,
    },
}
