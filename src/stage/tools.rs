//! Programs of the host: where they are looked for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs of the host are looked for, in the engine and in every sandbox.
const TOOL_PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The path of a program, if the host has it.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    TOOL_PATH
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}
