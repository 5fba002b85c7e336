//! Runs an image: in a virtual machine or a container, over the network, or written to a drive.
//!
//! Command lines are functions of the settings and of what the host has, so that tests can look at them. Knows nothing
//! of stages and of how an image is built.

pub mod cmdline;
pub mod credentials;
pub mod drives;
mod error;
pub mod firmware;
pub mod journal;
pub mod kernel;
pub mod machine;
pub mod network;
pub mod notify;
pub mod plan;
pub mod process;
pub mod qemu;
mod register;
pub mod settings;
mod snapshot;
pub mod state;
pub mod swtpm;
mod sys;
pub mod terminal;
pub mod tools;
mod variables;
pub mod virtiofs;
pub mod vm;
pub mod vsock;
mod watch;

pub use error::{Result, RunError};
pub use settings::Settings;
pub use tools::Tools;
