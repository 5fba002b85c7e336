//! Starts a sandbox and waits for it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Spec;

/// A wish to stop, shared by everything that a run has under way.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everything to stop. May be called from a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Where a sandboxed command's input comes from.
pub enum Input<'a> {
    /// Nothing: `/dev/null`.
    Null,
    /// These bytes.
    Bytes(&'a [u8]),
    /// This process's own standard input (a shell for the user).
    Inherit,
}

/// Where a sandboxed command's output goes.
pub enum Output<'a> {
    /// Standard output and error, in the order written, go to one writer.
    Merged(&'a mut (dyn Write + Send)),
    /// Standard output goes to the first writer, standard error to the second.
    Split(&'a mut (dyn Write + Send), &'a mut (dyn Write + Send)),
    /// This process's own standard output and error.
    Inherit,
}

/// How a sandboxed command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it exited with status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Why a sandbox could not be made or waited for. A command that ran and failed is an [`Exit`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox could not be set up; the text says what was tried, on what, and why it failed.
    #[error("{0}")]
    Setup(String),
    /// The run was cancelled while the command ran; everything in the sandbox has been killed.
    #[error("cancelled")]
    Cancelled,
}

impl Spec {
    /// Runs the command to its end. Everything that it left behind is dead when this returns.
    ///
    /// # Errors
    /// When the sandbox can't be made, or the run was cancelled.
    pub fn run(&self, input: Input<'_>, output: Output<'_>, cancel: &Cancel) -> Result<Exit, Error> {
        let _ = (input, output, cancel);
        Err(Error::Setup("not built yet".to_owned()))
    }
}
