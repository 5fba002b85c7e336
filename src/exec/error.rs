//! How a run can fail.

use std::path::PathBuf;

use crate::stage::StageError;

/// Why a run did not reach its goals.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A node failed.
    #[error("{node}: {error}")]
    Node {
        /// The node, `image/stage`.
        node: String,
        /// Whether what it left of its tree was kept for a look at it.
        left: bool,
        /// Why.
        error: Box<StageError>,
        /// The last lines that its commands printed.
        tail: Vec<String>,
        /// The file with everything that they printed.
        log: PathBuf,
    },
    /// A node's code panicked.
    #[error("{node}: mkosi itself failed: {what}\nThis is a bug in mkosi; please report it")]
    Broken {
        /// The node, `image/stage`.
        node: String,
        /// What it said.
        what: String,
    },
    /// The user stopped the run.
    #[error("interrupted; what was finished is kept, and the next build goes on from there")]
    Cancelled,
    /// A declaration has no code. A test holds the two equal.
    #[error("stage `{0}` is declared in graphs/ and has no code")]
    NoCode(String),
}
