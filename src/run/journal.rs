//! `ForwardJournal=`: systemd-journal-remote takes the machine's journal on the host.
//!
//! Knows nothing of the machine.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, RunError};
use super::process::Helper;
use super::tools::{Tools, systemd_version};

/// The credential that tells the system where its journal goes.
pub const CREDENTIAL: &str = "journal.forward_to_socket";

/// systemd-journal-remote takes limits as options from this version on; an older one has those of journal-remote.conf(5).
const TAKES_LIMITS: u32 = 261;

/// Whether the journal goes into one file.
fn one_file(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension == "journal")
}

/// The options of systemd's own tools for the same.
pub fn options(target: &Path) -> Vec<String> {
    let limits = limits(target).into_iter().map(|limit| format!("--forward-journal-{limit}"));
    std::iter::once(format!("--forward-journal={}", target.display())).chain(limits).collect()
}

/// Limits that let all of it be kept. A file can't grow larger than 4 GB.
fn limits(target: &Path) -> [String; 4] {
    let files = if one_file(target) { 1 } else { 100 };
    let fixed = ["max-use=1T", "keep-free=1G", "max-file-size=4G"].map(str::to_owned);
    let [size, free, file] = fixed;
    [size, free, file, format!("max-files={files}")]
}

/// The arguments of systemd-journal-remote of a version.
fn arguments(target: &Path, version: u32) -> Vec<String> {
    let split = if one_file(target) { "none" } else { "host" };
    let limits = limits(target).into_iter().filter(|_| version >= TAKES_LIMITS).map(|limit| format!("--{limit}"));
    [format!("--output={}", target.display()), format!("--split-mode={split}")].into_iter().chain(limits).collect()
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
    let owner = make_directory(directory)?;
    let mut command = through_activation(tools, &program, owner)?;
    command.args(arguments(target, systemd_version(&program, tools)?));
    Helper::start_with_socket(&mut command, socket)
}

/// Makes the directory where it isn't there, for whose directory it is in. Gives the owner, where root is to write as
/// another user.
fn make_directory(directory: &Path) -> Result<Option<(u32, u32)>> {
    let failed = || RunError::io("make the directory for the journal", directory);
    let root = rustix::process::geteuid().is_root();
    if !directory.exists() {
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let meta = there.metadata().map_err(failed())?;
        std::fs::create_dir_all(directory).map_err(failed())?;
        for made in directory.ancestors().take_while(|path| root && *path != there) {
            std::os::unix::fs::chown(made, Some(meta.uid()), Some(meta.gid())).map_err(failed())?;
        }
    }
    let meta = directory.metadata().map_err(failed())?;
    Ok(Some((meta.uid(), meta.gid())).filter(|(uid, _)| root && *uid != 0))
}

/// It takes sockets as systemd hands them over (sd_listen_fds(3)): from number three on, and with its own process id in
/// `$LISTEN_PID`, which only a shell that becomes it can know.
fn through_activation(tools: &Tools, program: &Path, owner: Option<(u32, u32)>) -> Result<Command> {
    let sh = tools.need(&["sh"], "start systemd-journal-remote", "install a shell")?;
    let mut command = tools.command_as(&sh, owner);
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
        assert_eq!(arguments(Path::new("/a"), 257), ["--output=/a", "--split-mode=host"]);
        assert_eq!(
            arguments(Path::new("/a.journal"), 261).join(" "),
            "--output=/a.journal --split-mode=none --max-use=1T --keep-free=1G --max-file-size=4G --max-files=1"
        );
    }
}
