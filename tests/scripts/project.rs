//! Projects without packages whose image is a tree of the host's shell and a few tools.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TOOLS: [&str; 14] =
    ["sh", "cat", "env", "ls", "sleep", "touch", "id", "stat", "readlink", "mkdir", "grep", "pwd", "cp", "rm"];

const CONFIGURATION: &str = "\
[Distribution]
Distribution=custom

[Output]
Format=directory
Output=image
OutputDirectory=mkosi.output

[Content]
BaseTrees=mkosi.base
CleanPackageMetadata=no

[Build]
BuildSources=src
";

/// Copies these programs of the host and the libraries that they need.
fn make_image(root: &Path) {
    let mut files = BTreeSet::new();
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    for name in TOOLS {
        let path = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name)).into_iter().find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("{name} is missing on this host"));
        let ldd = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8(ldd.stdout).unwrap();
        files.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        std::fs::copy(path, root.join("usr/bin").join(name)).unwrap();
    }
    for file in files {
        let target = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
    for directory in ["etc", "var/lib", "tmp", "proc", "sys", "dev", "run"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
}

/// A directory with a project and its store, removed at the end.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub fn new() -> Self {
        Self::new_in(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    pub fn new_in(place: &Path) -> Self {
        let project = Self { dir: tempfile::Builder::new().prefix("scripts-").tempdir_in(place).unwrap() };
        project.write("mkosi.conf", CONFIGURATION);
        project.write("src/code", "the code\n");
        make_image(&project.path().join("mkosi.base"));
        project
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn configure(&self, text: &str) {
        let old = self.read("mkosi.conf");
        self.write("mkosi.conf", &format!("{old}\n{text}\n"));
    }

    /// Writes a shell script that stops at the first error.
    pub fn script(&self, name: &str, text: &str) {
        self.write(name, &format!("#!/bin/sh\nset -eu\n{text}\n"));
        std::fs::set_permissions(self.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path().join(name).symlink_metadata().is_ok()
    }

    /// A file of the output directory.
    pub fn output(&self, name: &str) -> String {
        self.read(&format!("mkosi.output/{name}"))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkosi"));
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path())
            .arg("-C")
            .arg(self.path())
            .arg("--cache-directory")
            .arg(self.path().join("mkosi.cache"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> (bool, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }

    /// Runs mkosi; it has to succeed. Gives what it said.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments);
        assert!(success, "mkosi {arguments:?}: {text}");
        text
    }

    /// Runs mkosi; it has to fail. Gives what it said.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments);
        assert!(!success, "mkosi {arguments:?}: {text}");
        text
    }
}
