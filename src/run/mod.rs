//! Runs an image: in a virtual machine or a container, over the network, or written to a drive.
//!
//! Command lines are functions of the settings and of what the host has, so that tests can look at them. Knows nothing
//! of stages and of how an image is built.

pub mod burn;
pub mod cmdline;
pub mod container;
pub mod credentials;
pub mod drives;
pub mod environment;
mod error;
pub mod firmware;
pub mod in_box;
pub mod journal;
pub mod kernel;
pub mod latest;
pub mod machine;
pub mod network;
pub mod notify;
pub mod nspawn;
pub mod plan;
pub mod process;
pub mod qemu;
mod register;
pub mod serve;
pub mod settings;
mod snapshot;
pub mod ssh;
pub mod state;
pub mod swtpm;
mod sys;
pub mod systemd;
pub mod terminal;
pub mod tools;
mod variables;
pub mod virtiofs;
pub mod vm;
pub mod vmspawn;
pub mod vsock;
mod watch;

pub use error::{Result, RunError};
pub use settings::Settings;
pub use tools::Tools;
