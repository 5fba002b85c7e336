//! An ordinary user for the time of a test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{MKOSI, Project, Ran, tool};

/// An ordinary user with a place that it can reach, for as long as this lives.
pub struct User {
    /// Its name.
    pub name: String,
    dir: tempfile::TempDir,
}

impl User {
    /// One with these subordinate ids, or with none.
    pub fn new(tag: &str, ids: Option<&str>) -> Self {
        let name = format!("mke{tag}{}", std::process::id());
        tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &name]));
        let user = Self { name, dir: tempfile::tempdir().unwrap() };
        std::fs::set_permissions(user.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(MKOSI, user.program()).unwrap();
        // Some distributions give ids by themselves, others don't: these are added.
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let others = text.lines().filter(|line| !line.starts_with(&format!("{}:", user.name)));
            std::fs::write(file, others.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        }
        if let Some(ids) = ids {
            tool(Command::new("usermod").args(["--add-subuids", ids, "--add-subgids", ids, &user.name]));
        }
        user
    }

    /// A directory that is its own.
    pub fn place(&self) -> &Path {
        self.dir.path()
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("mkosi")
    }

    /// Makes everything in the place the user's.
    pub fn own(&self) {
        tool(Command::new("chown").args(["-R", &format!("{0}:{0}", self.name)]).arg(self.dir.path()));
    }

    /// Gives what a test rewrote in a project back to the user.
    pub fn own_configuration(&self, project: &Project) {
        tool(Command::new("chown").arg(&self.name).arg(project.path().join("mkosi.conf")));
    }

    /// The command as this user, not started yet.
    pub fn command(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", &self.name, "--"]).arg(self.program());
        project.command_by(command, arguments)
    }

    /// Runs it as this user.
    pub fn run(&self, project: &Project, arguments: &[&str]) -> Ran {
        Ran::new(self.command(project, arguments).output().unwrap())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}
