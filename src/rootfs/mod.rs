//! Operations inside a root directory that never leave it.
//!
//! A tree that is to become an image may hold symbolic links to `/etc` or `../../..`. On the host these point to the
//! host's files, in the image to the image's. Every lookup here goes through openat2(2) with `RESOLVE_IN_ROOT`, so
//! that a link is followed as it would be after a chroot and no write ever reaches the host through one.
//! Knows nothing of images, stages or the store.

mod attributes;
mod content;
mod copy;
mod extract;
mod glob;
mod layers;
mod members;
mod remove;
mod root;
mod sparse;

use std::io;
use std::path::PathBuf;

pub use attributes::{Attributes, is_portable_xattr, order_xattrs};
pub use content::copy_content;
pub use copy::{CopyOptions, Ownership};
pub use extract::{file_in_archive, is_tar};
pub use glob::Pattern;
pub use layers::Layers;
pub use remove::{remove_children, remove_entry};
pub use root::Root;

/// Directories of which an image's archives never hold the content: they are mounted when the image runs.
pub const RUNTIME_DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "tmp", "run", "var/tmp"];

/// What can go wrong inside a root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on one path failed.
    #[error("can't {action} `{path}` inside the root `{root}`: {source}")]
    At {
        /// What was tried.
        action: &'static str,
        /// The path inside the root.
        path: PathBuf,
        /// The root.
        root: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A copy from the host failed.
    #[error("can't copy `{from}` to `{path}` inside the root `{root}`: can't {action}: {source}")]
    Copy {
        /// The source on the host, or the archive and its member.
        from: PathBuf,
        /// The path inside the root.
        path: PathBuf,
        /// The root.
        root: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Something of another kind stands where a copy should go.
    #[error(
        "can't copy `{from}` to `{path}` inside the root `{root}`: {found} stands there already; \
         remove it from the image first or rename the source"
    )]
    Occupied {
        /// The source on the host, or the archive and its member.
        from: PathBuf,
        /// The path inside the root.
        path: PathBuf,
        /// The root.
        root: PathBuf,
        /// What stands there.
        found: &'static str,
    },
    /// A glob pattern that can't be used.
    #[error("the pattern `{pattern}` can't be used: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An archive that can't be read or extracted.
    #[error("can't extract `{archive}`: {reason}")]
    Archive {
        /// The archive on the host.
        archive: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether the reason is that a path doesn't exist in the root.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::At { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The result of an operation inside a root.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests;
