//! Where the programs that run an image come from: the one place that decides it.
//!
//! Knows nothing of what they are run for.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, RunError};
use crate::sandbox::tools_arguments;

/// Directories of programs that are in no search path.
const MORE: [&str; 5] = ["usr/libexec", "usr/lib", "usr/lib/systemd", "usr/lib/virtiofsd", "lib/systemd"];
const PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// The programs of the host, or of a tools tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Where their `/usr` is: `/`, or a tools tree.
    root: PathBuf,
    /// Directories of the host that are looked at before all others (`ExtraSearchPaths=`).
    extra: Vec<PathBuf>,
}

impl Tools {
    /// The tools of the host, with more directories to look at first.
    pub fn new(extra: Vec<PathBuf>) -> Self {
        Self { root: PathBuf::from("/"), extra }
    }

    /// The tools of a tree.
    pub fn of_tree(self, root: PathBuf) -> Self {
        Self { root, ..self }
    }

    /// The root directory that the tools' data files are read from.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A program under the first of several names that is there, by the path that it runs under.
    pub fn find(&self, names: &[&str]) -> Option<PathBuf> {
        let own = if self.is_host() { std::env::var_os("PATH").unwrap_or_default() } else { OsString::new() };
        let own = std::env::split_paths(&own).filter(|path| path.is_absolute());
        let standard = PATH.iter().chain(&MORE).map(|directory| Path::new("/").join(directory));
        // The places where it is looked for, and where those are seen.
        let of_host = self.extra.iter().cloned().map(|directory| (directory.clone(), directory));
        let of_tree = own.chain(standard).map(|directory| {
            let place = self.root.join(directory.strip_prefix("/").unwrap_or(&directory));
            (place, directory)
        });
        let directories: Vec<(PathBuf, PathBuf)> = of_host.chain(of_tree).collect();
        names.iter().find_map(|name| {
            let found = directories.iter().find(|(place, _)| is_program(&place.join(name), &self.root));
            found.map(|(_, directory)| directory.join(name))
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
        if self.is_host() {
            return Command::new(program);
        }
        let mut command = Command::new(OWN);
        command.arg0("mkosi").args(tools_arguments(&self.root, program));
        command
    }
}

/// This executable.
const OWN: &str = "/proc/self/exe";

/// The program that a command runs, for messages.
pub(super) fn program_of(command: &Command) -> String {
    let program = match command.get_program() {
        program if program == OWN => command.get_args().nth(2).unwrap_or(program),
        program => program,
    };
    program.to_string_lossy().into_owned()
}

/// Whether a file of the tree can be executed. A link is one in the tree, so it may lead to nothing on the host.
fn is_program(path: &Path, root: &Path) -> bool {
    let Ok(meta) = path.symlink_metadata() else { return false };
    if meta.is_symlink() && root != Path::new("/") {
        return true;
    }
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_tree() {
        let tree = tempfile::tempdir().unwrap();
        let bin = tree.path().join("usr/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink("/usr/libexec/there", bin.join("link")).unwrap();
        let tools = Tools::new(Vec::new()).of_tree(tree.path().to_owned());
        assert_eq!(tools.find(&["link"]), Some("/usr/bin/link".into()));
        assert_eq!(tools.find(&["sh"]), None, "the host's");
        let command = tools.command(Path::new("/usr/bin/link"));
        assert_eq!(program_of(&command), "/usr/bin/link");
        assert_eq!(program_of(&Command::new("/bin/sh")), "/bin/sh");
    }

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
