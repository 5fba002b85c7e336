//! Why the store could not do something. Knows nothing of how the store works.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("could not {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "could not ...".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk or the user's quota is full.
    #[error(
        "no space left to {what} {}; what the store had is unharmed. Make room with `mkosi store gc`, or put the store at {} on a larger disk", path.display(), store.display()
    )]
    Full {
        /// What was tried, as in "no space left to ...".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The store's directory, or the path again where no store is known.
        store: PathBuf,
    },
    /// The store was made by a later version of this program.
    #[error(
        "the store at {} has format {found}, and this mkosi knows formats up to {known}: use a newer mkosi, or another directory", path.display()
    )]
    Newer {
        /// The store's directory.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The latest format known here.
        known: u32,
    },
    /// The directory holds something else.
    #[error("{} is no store and holds `{found}`: give an empty or a new directory for the store", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the names in it that no store has.
        found: String,
    },
    /// A file or directory kept changing while it was read.
    #[error("{} changed while it was read: try again when nothing writes to it", path.display())]
    Changing {
        /// The path.
        path: PathBuf,
    },
    /// An object that was to be there is not, or is not what its name says.
    #[error("{kind} {name} is missing from the store at {} or damaged: run `mkosi store verify --repair` and build again", path.display())]
    Missing {
        /// `layer`, `file`, ...
        kind: &'static str,
        /// Its name.
        name: String,
        /// The store's directory.
        path: PathBuf,
    },
    /// Something could not be encoded.
    #[error("could not encode {what} for {}: {why}", path.display())]
    Encode {
        /// What was to be encoded.
        what: &'static str,
        /// The file it was for.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The wait for a lock was cancelled.
    #[error("cancelled while waiting for another mkosi that makes {}", path.display())]
    Cancelled {
        /// The lock's file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Wraps the error of trying to `what` on `path`.
    pub(super) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full { what, path: path.to_owned(), store: path.to_owned() };
        }
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Names the store in an error that was met below it.
    pub(super) fn in_store(self, dir: &Path) -> Self {
        match self {
            Self::Full { what, path, .. } => Self::Full { what, path, store: dir.to_owned() },
            other => other,
        }
    }

    /// Whether a full disk or quota was the cause.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Adds what was tried and on what to the error of a system call.
pub(super) trait Context<T> {
    /// "could not `what` `path`".
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(what, path, error))
    }
}
