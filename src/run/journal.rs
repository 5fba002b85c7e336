//! `ForwardJournal=`: systemd-journal-remote takes the machine's journal on the host.
//!
//! Knows nothing of the machine.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, RunError};
use super::process::Helper;
use super::tools::Tools;

/// The credential that tells the system where its journal goes.
pub const CREDENTIAL: &str = "journal.forward_to_socket";

/// Whether the journal goes into one file.
fn one_file(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension == "journal")
}

/// The options of systemd's own tools for the same.
pub fn options(target: &Path) -> Vec<String> {
    let files = if one_file(target) { 1 } else { 100 };
    vec![
        format!("--forward-journal={}", target.display()),
        "--forward-journal-max-use=1T".to_owned(),
        "--forward-journal-keep-free=1G".to_owned(),
        "--forward-journal-max-file-size=4G".to_owned(),
        format!("--forward-journal-max-files={files}"),
    ]
}

fn program(tools: &Tools) -> Result<PathBuf> {
    let hint = "install it (package systemd-journal-remote), or leave out ForwardJournal=";
    tools.need(&["systemd-journal-remote"], "take the machine's journal", hint)
}

/// Takes the journal that comes over a listening socket, as long as the helper lives.
///
/// # Errors
/// When systemd-journal-remote is missing or can't be started, or there is no place for the journal.
pub fn start(target: &Path, socket: OwnedFd, tools: &Tools) -> Result<Helper> {
    let program = program(tools)?;
    let directory = if one_file(target) { target.parent().unwrap_or(Path::new("/")) } else { target };
    std::fs::create_dir_all(directory).map_err(RunError::io("make the directory for the journal", directory))?;
    let mut command = through_activation(tools, &program)?;
    command.arg("--output").arg(target);
    command.arg(format!("--split-mode={}", if one_file(target) { "none" } else { "host" }));
    Helper::start_with_socket(&mut command, socket)
}

/// It takes sockets as systemd hands them over (sd_listen_fds(3)): from number three on, and with its own process id in
/// `$LISTEN_PID`, which only a shell that becomes it can know.
fn through_activation(tools: &Tools, program: &Path) -> Result<Command> {
    let sh = tools.need(&["sh"], "start systemd-journal-remote", "install a shell")?;
    let mut command = tools.command(&sh);
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\""]).arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_directory() {
        assert!(options(Path::new("/a.journal")).contains(&"--forward-journal-max-files=1".to_owned()));
        assert!(options(Path::new("/a")).contains(&"--forward-journal-max-files=100".to_owned()));
    }
}
