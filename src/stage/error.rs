//! How a stage can fail.

use std::path::PathBuf;

use crate::config::ViewError;
use crate::sandbox::{self, Exit};
use crate::store::StoreError;

/// Why a stage gave no outputs.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A command in a sandbox ended badly. Its output is in the node's log.
    #[error("`{command}` {}", exit_in_words(.exit))]
    Command {
        /// The command for people.
        command: String,
        /// How it ended.
        exit: Exit,
    },
    /// A program that a stage runs is not there.
    #[error(
        "{purpose} needs the program `{program}`, which was not found among the tools: {} on the host, or set \
         ToolsTree=default; a tools tree of your own has to have it", install(.program)
    )]
    NoProgram {
        /// The program.
        program: String,
        /// What it is needed for, in words that begin a sentence.
        purpose: String,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// What another stage gave is no longer true (a package has gone from the mirror, or from the pool): that stage
    /// has to run again.
    #[error("{why}")]
    Stale {
        /// The stage to run again.
        stage: &'static str,
        /// What was found.
        why: String,
    },
    /// The stage asked for a setting that it does not declare.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The store failed.
    #[error("{0}")]
    Store(#[source] StoreError),
    /// A command found the disk full.
    #[error(
        "no space left on the disk of the store; what the store had is unharmed. Make room with `mkosi store gc`, or \
         set CacheDirectory= to a directory on a larger disk than that of {}: {text}", .store.display()
    )]
    Full {
        /// The store's directory.
        store: PathBuf,
        /// The error without this explanation.
        text: String,
    },
    /// A sandbox could not be made.
    #[error("{0}")]
    Sandbox(String),
    /// A file operation failed.
    #[error("can't {action} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A setting has a value that doesn't do; whoever knows the image adds where it was set.
    #[error("{text}")]
    Setting {
        /// The setting.
        setting: String,
        /// What is wrong with it, and what to do.
        text: String,
    },
    /// Anything else, told in full.
    #[error("{0}")]
    Other(String),
}

impl StageError {
    /// Wraps an error of the operating system.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { action, path, error }
    }

    /// Wraps the text of an error that tells everything itself.
    pub fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<StoreError> for StageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cancelled { .. } => Self::Cancelled,
            other => Self::Store(other),
        }
    }
}

impl From<sandbox::Error> for StageError {
    fn from(error: sandbox::Error) -> Self {
        match error {
            sandbox::Error::Cancelled => Self::Cancelled,
            other => Self::Sandbox(other.to_string()),
        }
    }
}

/// How to get a program, on Debian.
fn install(program: &str) -> String {
    match crate::programs::package_of(program) {
        Some(package) => format!("install the package `{package}` (Debian's name)"),
        None => "install it".to_owned(),
    }
}

fn exit_in_words(exit: &Exit) -> String {
    match exit {
        Exit::Code(127) => "was not found (status 127)".to_owned(),
        Exit::Code(code) => format!("failed with status {code}"),
        Exit::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
            Ok(name) => format!("was ended by {name}"),
            Err(_) => format!("was ended by signal {signal}"),
        },
    }
}
