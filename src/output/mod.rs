//! Makes outputs of finished trees and brings them to the user's directory: archives, compression, directory trees,
//! manifests and checksums.
//!
//! Everything here is a function of its arguments: no clock, no locale, no host path enters an output. Knows the
//! store's entries, and nothing of stages, keys or configuration.

pub mod archive;
pub mod checksum;
mod compress;
mod copy;
pub mod directory;
pub mod foreign;
pub mod manifest;
mod names;
pub mod oci;
pub mod openpgp;
pub mod publish;
pub mod repart;
mod state;

use std::io;
use std::path::PathBuf;

pub use compress::{Compression, CompressionError, Compressor};
pub use names::OutputNames;

/// What can go wrong with an output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on one path failed.
    #[error("can't {action} `{path}`: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("can't write the {what}: {source}")]
    Write {
        /// What was written.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file in the store is not what its index says.
    #[error(
        "`{path}` has {found} bytes where its index has {expected}: the store is damaged there; \
         remove that layer and build again"
    )]
    Damaged {
        /// The file in the store.
        path: PathBuf,
        /// Its size by the index.
        expected: u64,
        /// Its real size.
        found: u64,
    },
    /// An id that the foreign range has no place for.
    #[error(
        "`{path}` belongs to the id {id}, and ForeignUIDRange= has room for the ids 0 to 65535 alone; change its owner in a \
         script"
    )]
    Foreign {
        /// The file in the tree.
        path: PathBuf,
        /// The id.
        id: u32,
    },
    /// A tree that no file system could hold.
    #[error("the merged tree is not a tree at `{path}`: {reason}; this is a bug in mkosi, please report it")]
    Tree {
        /// The entry.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that the format has no way to hold.
    #[error("`{path}` does not fit into a {format} archive: {reason}; use another Format=")]
    Unfit {
        /// The entry.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A format that has no way to say what an image is.
    #[error("this can't be made an {format}: {reason}")]
    Format {
        /// The format.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// A machine runs on the directory that should be replaced or removed.
    #[error("`{path}` is in use by a machine: end it first; with Ephemeral=yes a machine runs on a copy")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something stands where an output should go that was not put there by an earlier run.
    #[error("`{path}` exists and was not made by mkosi, or was replaced since; -f replaces it")]
    NotOurs {
        /// Where the output should go.
        path: PathBuf,
    },
    /// A name that can't be the name of a file in the output directory.
    #[error("`{name}` can't be the name of an output: a file name is needed, or a path in the output directory")]
    Name {
        /// The name.
        name: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }
}

/// The result of making or publishing an output.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod testing;
