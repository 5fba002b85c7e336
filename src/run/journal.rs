//! `ForwardJournal=`: systemd-journal-remote takes the machine's journal on the host.
//!
//! Knows nothing of the machine.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::{Result, RunError};
use super::process::{self, Helper};
use super::tools::Tools;

/// The credential that tells the system where its journal goes.
pub const CREDENTIAL: &str = "journal.forward_to_socket";

/// Whether the journal goes into one file.
fn one_file(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension == "journal")
}

/// How much of a journal is kept, whatever the file system has left: a name of systemd's own tools and the one of
/// journal-remote.conf(5), and the value. A file can't have more.
const LIMITS: [(&str, &str, &str); 3] =
    [("max-use", "MaxUse", "1T"), ("keep-free", "KeepFree", "1G"), ("max-file-size", "MaxFileSize", "4G")];

/// journal-remote.conf(5) has them from this version on.
const HAS_LIMITS: u32 = 253;

/// How long it may take at the end to write what came to a slow disk.
const FLUSH: Duration = Duration::from_secs(60);

/// How many files there may be.
fn files(target: &Path) -> u32 {
    if one_file(target) { 1 } else { 100 }
}

/// The options of systemd's own tools for the same.
pub fn options(target: &Path) -> Vec<String> {
    let mut options = vec![format!("--forward-journal={}", target.display())];
    options.extend(LIMITS.iter().map(|(option, _, value)| format!("--forward-journal-{option}={value}")));
    options.push(format!("--forward-journal-max-files={}", files(target)));
    options
}

/// The same for systemd-journal-remote, which has no options for it.
fn configuration(target: &Path) -> String {
    let limits: String = LIMITS.iter().map(|(_, name, value)| format!("{name}={value}\n")).collect();
    format!("[Remote]\n{limits}MaxFiles={}\n", files(target))
}

fn program(tools: &Tools) -> Result<PathBuf> {
    let hint = "install it (package systemd-journal-remote), or leave out ForwardJournal=";
    tools.need(&["systemd-journal-remote"], "take the machine's journal", hint)
}

/// Who takes the journal, as long as this lives.
pub struct Taken {
    _helper: Helper,
    /// Its configuration.
    _directory: tempfile::TempDir,
}

/// Takes the journal that comes over a listening socket.
///
/// # Errors
/// When systemd-journal-remote is missing or can't be started, or there is no place for the journal.
pub fn start(target: &Path, socket: OwnedFd, tools: &Tools) -> Result<Taken> {
    let program = program(tools)?;
    let directory = if one_file(target) { target.parent().unwrap_or(Path::new("/")) } else { target };
    let owner = make(directory)?;
    let place = tempfile::Builder::new().prefix("mkosi-journal-").tempdir();
    let place = place.map_err(RunError::io("make a directory in", std::env::temp_dir()))?;
    // Another user may have to read it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), mode).map_err(RunError::io("make readable", place.path()))?;
    let file = place.path().join("journal-remote.conf.d/mkosi.conf");
    std::fs::create_dir_all(file.parent().unwrap_or(place.path()))
        .and_then(|()| std::fs::write(&file, configuration(target)))
        .map_err(RunError::io("write", &file))?;
    // It looks there for its configuration. A user would need a namespace for that alone.
    let can = owner.is_some() || !tools.are_of_host();
    let shown = match can && process::systemd_version(&program, tools)? >= HAS_LIMITS {
        true => vec![(place.path().to_owned(), PathBuf::from("/run/systemd"))],
        false => Vec::new(),
    };
    let mut command = through_activation(tools, &program, owner, shown)?;
    // At the end it tells how many entries there were.
    let level = "SYSTEMD_LOG_LEVEL";
    if std::env::var_os(level).is_none() && command.get_envs().all(|(name, _)| name != level) {
        command.env(level, "notice");
    }
    command.arg("--output").arg(target);
    command.arg(format!("--split-mode={}", if one_file(target) { "none" } else { "host" }));
    Ok(Taken { _helper: Helper::start_with_socket(&mut command, socket)?.with_patience(FLUSH), _directory: place })
}

/// Makes the directory for the journal. Root makes it for the owner of the directory that it lies in; gives the owner
/// then, who writes the journal.
fn make(directory: &Path) -> Result<Option<(u32, u32)>> {
    let failed = || RunError::io("make the directory for the journal", directory);
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::create_dir_all(directory).map_err(failed())?;
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let above = missing.last().and_then(|path| path.parent()).unwrap_or(directory);
    let above = above.metadata().map_err(failed())?;
    for path in missing {
        std::os::unix::fs::chown(path, Some(above.uid()), Some(above.gid())).map_err(failed())?;
    }
    let meta = directory.metadata().map_err(failed())?;
    Ok(Some((meta.uid(), meta.gid())))
}

/// It takes sockets as systemd hands them over (sd_listen_fds(3)): from number three on, and with its own process id in
/// `$LISTEN_PID`, which only a shell that becomes it can know.
fn through_activation(
    tools: &Tools,
    program: &Path,
    owner: Option<(u32, u32)>,
    shown: Vec<(PathBuf, PathBuf)>,
) -> Result<Command> {
    let sh = tools.need(&["sh"], "start systemd-journal-remote", "install a shell")?;
    let mut command = tools.command_seeing(&sh, owner, shown);
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
        assert_eq!(
            configuration(Path::new("/a.journal")),
            "[Remote]\nMaxUse=1T\nKeepFree=1G\nMaxFileSize=4G\nMaxFiles=1\n"
        );
    }
}
