//! Runs one command in namespaces of its own, with just the files that its specification names.
//!
//! The parent never enters a namespace: it starts its own executable again as `sandbox-init`, hands it the
//! specification in a file in memory, and that single-threaded child does the rest. Knows nothing of images, stages
//! or the store.

mod command;
mod fault;
mod harden;
mod init;
mod overlay;
mod pump;
mod reap;
mod root;
mod run;
mod spec;
mod sys;
mod tree;
mod userns;
mod wire;

pub use run::{Cancel, Error, Exit, Input, Output, set_executable};
pub use spec::{Mount, Spec};

/// Handles the hidden entries of the executable. To be called first thing in `main`, before any thread is started
/// and before the arguments are looked at; returns when this is no hidden entry.
pub fn hidden_entry() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let arg = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    if arg(1) == wire::INIT {
        init::main(arg(2), arg(3));
    }
}
