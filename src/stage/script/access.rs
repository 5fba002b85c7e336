//! What a sync script has of the user's access to other machines: the agent that signs for the user's keys, and the
//! settings of ssh and git that say whom to trust. Never a key, a password, or anything else of the home directory: the
//! script has the network. Knows nothing of what the script fetches.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::sandbox::{Mount, Spec};

/// The script's home directory: the one that root has in the sandbox's passwd(5), which ssh looks at.
const HOME: &str = "/root";
/// Where the agent is in the sandbox.
const AGENT: &str = "/run/mkosi/ssh-agent";
/// Files of the home directory that hold no secret (ssh_config(5), git-config(1)).
const FILES: [&str; 5] = [".ssh/config", ".ssh/known_hosts", ".gitconfig", ".config/git/config", ".config/git/ignore"];

/// Adds it to a specification.
pub fn add(spec: &mut Spec) {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    spec.mounts.push(Mount::Directory { target: HOME.into(), mode: 0o700 });
    spec.env.insert("HOME".to_owned(), HOME.to_owned());
    if let Some(home) = variable("HOME") {
        for name in FILES.iter().filter(|name| home.join(name).is_file()) {
            spec.mounts.push(bind(&home.join(name), &Path::new(HOME).join(name)));
        }
    }
    let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.file_type().is_socket());
    if let Some(agent) = variable("SSH_AUTH_SOCK").filter(is_socket) {
        spec.mounts.push(bind(&agent, Path::new(AGENT)));
        // What the user sets in `Environment=` goes before it.
        spec.env.entry("SSH_AUTH_SOCK".to_owned()).or_insert_with(|| AGENT.to_owned());
    }
}

fn bind(source: &Path, target: &Path) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.to_owned(), read_only: true, optional: true }
}
