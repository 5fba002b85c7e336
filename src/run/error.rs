//! What can go wrong when an image is run.

use std::io;
use std::path::PathBuf;

/// Why an image can't be run, or what ended it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A program that is needed isn't there.
    #[error("{program} was not found, and it is needed to {purpose}\n  hint: {hint}")]
    Missing {
        /// The program.
        program: String,
        /// What for.
        purpose: String,
        /// What to do.
        hint: String,
    },
    /// Settings, an image and a verb that don't go together.
    #[error("{problem}\n  hint: {hint}")]
    Unfit {
        /// What doesn't go together.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A system call on one path failed.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("can't start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed that had to do something on the way.
    #[error("{program} {how}, and it had to {purpose}{text}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        how: String,
        /// What for.
        purpose: String,
        /// What it said, each line after a line break.
        text: String,
    },
    /// Something else; the text says what was tried and why it failed.
    #[error("{0}")]
    Other(String),
}

/// The result of something that runs an image.
pub type Result<T> = std::result::Result<T, RunError>;

impl RunError {
    /// An error that says what doesn't go together, and what to do.
    pub fn unfit(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unfit { problem: problem.into(), hint: hint.into() }
    }

    /// Turns the error of a system call on `path` into one of these.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
