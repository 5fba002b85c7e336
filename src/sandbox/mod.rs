//! Runs one command in namespaces of its own, with just the files that its specification names.
//!
//! The parent never enters a namespace: it starts its own executable again as `sandbox-init`, hands it the
//! specification in a file in memory, and that single-threaded child does the rest. `docs/sandbox.md` tells how.
//! Knows nothing of images, stages or the store.

mod broker;
mod chroot;
mod command;
mod fault;
mod harden;
mod host;
mod init;
mod interrupt;
mod loops;
mod memory;
mod open;
mod over;
mod overlay;
mod probe;
mod pump;
mod reap;
mod root;
mod run;
mod serve;
mod spec;
mod sys;
mod tree;
mod userns;
mod verb;
mod warden;
mod wire;

pub use host::{BIN, EXECUTABLE, HostRoot, PATH, SEARCH, Tools, host_root};
pub use interrupt::{end_if_interrupted, on_interrupt};
pub use loops::loop_devices;
pub use memory::available as available_memory;
pub use over::{OVER_EXECUTABLE, Over};
pub use probe::{probe_overlay, probe_served};
pub use run::{Cancel, Error, Exit, Input, Output, set_executable};
pub use serve::serve;
pub use spec::{Mount, Rights, Spec};
pub use sys::own_name_services;
pub use userns::{Error as UserNamespaceError, enter_user_namespace, has_ids, has_single_id};

/// Whether the user who started this program is root, and not only within a user namespace.
pub fn started_as_root() -> bool {
    rustix::process::geteuid().is_root() && userns::is_initial()
}

/// Handles the hidden entries of the executable. To be called first thing in `main`, before any thread is started
/// and before the arguments are looked at; returns when this is no hidden entry.
pub fn hidden_entry() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let arg = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    match arg(1) {
        wire::INIT => init::main(arg(2), arg(3)),
        userns::INIT => userns::main(&args),
        over::ENTRY => over::main(&args),
        probe::ENTRY => {
            let place = args.get(2).map_or("", |arg| arg.to_str().unwrap_or_default());
            probe::main(std::path::Path::new(place), args.get(3).map(|arg| arg.to_str().unwrap_or_default()))
        }
        verb::ENTRY => verb::main(),
        _ => {}
    }
    let name = std::path::Path::new(arg(0)).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name == chroot::NAME || name == chroot::WITHIN {
        let rest = args.iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        chroot::main(rest, name == chroot::WITHIN);
    }
}
