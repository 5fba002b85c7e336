//! Where the programs that run an image come from: the one place that decides it.
//!
//! Knows nothing of what they are run for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, RunError};
use crate::rootfs::Layers;
use crate::sandbox::{OVER_EXECUTABLE, Over};

/// Directories of programs that are in no search path.
const MORE: [&str; 5] = ["/usr/libexec", "/usr/lib", "/usr/lib/systemd", "/usr/lib/virtiofsd", "/lib/systemd"];
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The programs of the host, or of a tools tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The directories that a tools tree is made of, lowest first; none for the host's programs.
    lowers: Vec<PathBuf>,
    tree: Layers,
    /// Directories of the host that are looked at before all others (`ExtraSearchPaths=`).
    extra: Vec<PathBuf>,
    /// Variables that programs get beside the user's own.
    environment: BTreeMap<String, String>,
}

impl Tools {
    /// The tools of the host, with more directories to look at first.
    pub fn new(extra: Vec<PathBuf>) -> Self {
        Self { lowers: Vec::new(), tree: Layers::new(&[]), extra, environment: BTreeMap::new() }
    }

    /// The tools of a tree that these directories make, lowest first.
    pub fn of_tree(self, lowers: Vec<PathBuf>) -> Self {
        Self { tree: Layers::new(&lowers), lowers, ..self }
    }

    /// The same, where programs get these variables too, except for what the user runs in a box.
    pub fn with_environment(self, environment: BTreeMap<String, String>) -> Self {
        Self { environment, ..self }
    }

    /// The value of one of these variables.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Whether they are the host's.
    pub fn are_of_host(&self) -> bool {
        self.lowers.is_empty()
    }

    /// Directories of the host that are looked at before all others.
    pub fn extra(&self) -> &[PathBuf] {
        &self.extra
    }

    /// Where a file of the tools lies, for this program to read it: their programs see it at `path`.
    pub fn file(&self, path: &Path) -> Option<PathBuf> {
        match self.are_of_host() {
            true => path.exists().then(|| path.to_owned()),
            false => self.tree.find(path),
        }
    }

    /// The files in a directory of the tools, by the paths where this program can read them, in the order of their
    /// names.
    pub fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let names = match self.are_of_host() {
            true => {
                let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
                let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
                names.sort();
                names
            }
            false => self.tree.names(directory),
        };
        let files = names.into_iter().filter_map(|name| self.file(&directory.join(name)));
        files.filter(|path| path.is_file()).collect()
    }

    /// A program under the first of several names that is there, by the path that it runs under.
    pub fn find(&self, names: &[&str]) -> Option<PathBuf> {
        let own = if self.are_of_host() { std::env::var_os("PATH").unwrap_or_default() } else { OsString::new() };
        let own: Vec<PathBuf> = std::env::split_paths(&own).filter(|path| path.is_absolute()).collect();
        let of_tools = own.iter().map(PathBuf::as_path).chain(PATH.iter().chain(&MORE).map(Path::new));
        let of_tools: Vec<&Path> = of_tools.collect();
        names.iter().find_map(|name| {
            let extra = self.extra.iter().map(|directory| directory.join(name)).find(|path| is_program(path));
            extra.or_else(|| {
                let mut paths = of_tools.iter().map(|directory| directory.join(name));
                paths.find(|path| self.file(path).is_some_and(|file| is_program(&file)))
            })
        })
    }

    /// A program that is needed to `purpose`, which stands behind "it is needed to".
    ///
    /// # Errors
    /// When it isn't there; `hint` says what to install.
    pub fn need(&self, names: &[&str], purpose: &str, hint: &str) -> Result<PathBuf> {
        self.find(names).ok_or_else(|| self.missing(names.first().copied().unwrap_or_default(), purpose, hint))
    }

    /// The error for a program that isn't there.
    pub fn missing(&self, program: &str, purpose: &str, hint: &str) -> RunError {
        let hint = match self.are_of_host() {
            true => hint.to_owned(),
            false => format!(
                "{hint}; that is for the tools tree: the profile `runtime` of ToolsTreeProfiles= has what runs images, \
                 ToolsTreePackages= adds packages, and --tools-tree=no takes the host's programs"
            ),
        };
        RunError::Missing { program: program.to_owned(), purpose: purpose.to_owned(), hint }
    }

    /// A command that runs a program that [`Tools::find`] found.
    pub fn command(&self, program: &Path) -> Command {
        self.command_as(program, None)
    }

    /// The same as another user and group, for root.
    pub fn command_as(&self, program: &Path, owner: Option<(u32, u32)>) -> Command {
        self.command_seeing(program, owner, Vec::new())
    }

    /// The same, for a program that sees files and directories of the host at other places too, where there is something
    /// without them: `binds` are pairs of these.
    pub fn command_seeing(
        &self,
        program: &Path,
        owner: Option<(u32, u32)>,
        mut binds: Vec<(PathBuf, PathBuf)>,
    ) -> Command {
        // Nothing is made on the host to mount them on.
        binds.retain(
            |(_, target)| if target.starts_with("/usr") { self.file(target).is_some() } else { target.exists() },
        );
        let mut command = if self.are_of_host() && binds.is_empty() {
            let mut command = Command::new(program);
            if let Some((uid, gid)) = owner {
                command.uid(uid).gid(gid);
            }
            command
        } else {
            self.over(&Over { lowers: self.lowers.clone(), etc: false, owner, binds }, program)
        };
        command.envs(&self.environment);
        command
    }

    /// A command with the tree's configuration too: a program by its path, or by a name to look for in `PATH`.
    pub fn command_with_etc(&self, program: &Path) -> Command {
        if self.are_of_host() {
            return Command::new(program);
        }
        self.over(&Over { lowers: self.lowers.clone(), etc: true, ..Over::default() }, program)
    }

    fn over(&self, over: &Over, program: &Path) -> Command {
        let mut command = Command::new(OWN);
        command.arg0("mkosi").args(over.arguments(program));
        command
    }

    /// Where the programs find this one.
    pub fn executable(&self) -> PathBuf {
        match self.are_of_host() {
            true => std::env::current_exe().unwrap_or_else(|_| "mkosi".into()),
            false => OVER_EXECUTABLE.into(),
        }
    }
}

/// This executable.
const OWN: &str = "/proc/self/exe";

/// The program that a command runs, for messages.
pub(super) fn program_of(command: &Command) -> String {
    let arguments: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
    let program = match command.get_program() {
        program if program == OWN => Over::program_of(&arguments).unwrap_or(program),
        program => program,
    };
    program.to_string_lossy().into_owned()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn programs_of_a_tree_of_layers() {
        let place = tempfile::tempdir().unwrap();
        let lowers = ["low", "high"].map(|name| place.path().join(name));
        program(&lowers[0].join("usr/libexec/there"));
        program(&lowers[0].join("usr/bin/both"));
        program(&lowers[1].join("usr/bin/both"));
        std::fs::write(lowers[1].join("usr/bin/text"), "").unwrap();
        std::os::unix::fs::symlink("/usr/libexec/there", lowers[1].join("usr/bin/link")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", lowers[1].join("usr/bin/of-the-host")).unwrap();
        let tools = Tools::new(Vec::new()).of_tree(lowers.to_vec());
        assert_eq!(tools.find(&["link"]), Some("/usr/bin/link".into()));
        assert_eq!(tools.find(&["nothing", "there"]), Some("/usr/libexec/there".into()));
        for name in ["sh", "of-the-host", "text"] {
            assert_eq!(tools.find(&[name]), None, "{name}");
        }
        assert_eq!(tools.file(Path::new("/usr/bin/both")), Some(lowers[1].join("usr/bin/both")));
        assert_eq!(tools.files(Path::new("/usr/bin")).len(), 3, "a link to nothing is no file");
        let command = tools.command(Path::new("/usr/bin/link"));
        assert_eq!(program_of(&command), "/usr/bin/link");
        assert_eq!(program_of(&Command::new("/bin/sh")), "/bin/sh");
        let error = tools.need(&["qemu"], "test this", "install it").unwrap_err().to_string();
        assert!(error.contains("ToolsTreeProfiles=") && error.contains("--tools-tree=no"), "{error}");
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
