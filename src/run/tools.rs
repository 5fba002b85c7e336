//! Where the programs that run an image come from: the one place that decides it.
//!
//! Knows nothing of what they are run for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, RunError};

/// Directories of programs that are in no search path.
const MORE: [&str; 5] = ["usr/libexec", "usr/lib", "usr/lib/systemd", "usr/lib/virtiofsd", "lib/systemd"];
const PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// The programs of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Directories that are looked at before all others (`ExtraSearchPaths=`).
    extra: Vec<PathBuf>,
}

impl Tools {
    /// The tools of the host, with more directories to look at first.
    pub fn new(extra: Vec<PathBuf>) -> Self {
        Self { extra }
    }

    /// The root directory that the tools' data files are read from.
    pub fn root(&self) -> &Path {
        Path::new("/")
    }

    /// A program under the first of several names that is there.
    pub fn find(&self, names: &[&str]) -> Option<PathBuf> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let own: Vec<PathBuf> = std::env::split_paths(&own).filter(|path| path.is_absolute()).collect();
        let standard = PATH.iter().chain(&MORE).map(|directory| self.root().join(directory));
        let directories: Vec<PathBuf> = self.extra.iter().cloned().chain(own).chain(standard).collect();
        names.iter().find_map(|name| {
            directories
                .iter()
                .map(|directory| directory.join(name))
                .find(|path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
        })
    }

    /// A program that is needed to `purpose`, which stands behind "it is needed to".
    ///
    /// # Errors
    /// When it isn't there; `hint` says what to install.
    pub fn need(&self, names: &[&str], purpose: &str, hint: &str) -> Result<PathBuf> {
        self.find(names).ok_or_else(|| RunError::Missing {
            program: names.first().copied().unwrap_or_default().to_owned(),
            purpose: purpose.to_owned(),
            hint: hint.to_owned(),
        })
    }

    /// A command that runs a program that [`Tools::find`] found.
    pub fn command(&self, program: &Path) -> Command {
        Command::new(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_directories_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("sh");
        std::fs::write(&program, "").unwrap();
        let tools = Tools::new(vec![directory.path().to_owned()]);
        assert_ne!(tools.find(&["sh"]).unwrap(), program, "it can't be executed");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(tools.find(&["nothing-like-it", "sh"]).unwrap(), program);
        let error = tools.need(&["nothing-like-it"], "test this", "there is none").unwrap_err().to_string();
        assert_eq!(error, "nothing-like-it was not found, and it is needed to test this\n  hint: there is none");
    }
}
