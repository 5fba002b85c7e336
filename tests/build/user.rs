//! The same build without root.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::stores::{fill, reference};
use crate::support::{Graph, MKOSI, Project, Ran, tool};

/// An ordinary user with a place that it can reach, for as long as this lives.
struct User {
    name: String,
    dir: tempfile::TempDir,
}

impl User {
    fn new(ids: &str) -> Self {
        let name = format!("mke2e{}", std::process::id());
        tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &name]));
        let user = Self { name, dir: tempfile::tempdir().unwrap() };
        std::fs::set_permissions(user.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(MKOSI, user.program()).unwrap();
        // Some distributions give ids by themselves, others don't: these are added.
        tool(Command::new("usermod").args(["--add-subuids", ids, "--add-subgids", ids, &user.name]));
        user
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("mkosi")
    }

    /// Makes everything in the place the user's.
    fn own(&self) {
        tool(Command::new("chown").args(["-R", &format!("{0}:{0}", self.name)]).arg(self.dir.path()));
    }

    /// Gives what a test rewrote in a project back to the user.
    fn own_configuration(&self, project: &Project) {
        tool(Command::new("chown").arg(&self.name).arg(project.path().join("mkosi.conf")));
    }

    fn run(&self, project: &Project, arguments: &[&str]) -> Ran {
        let mut command = Command::new("runuser");
        command.args(["-u", &self.name, "--"]).arg(self.program());
        Ran::new(project.command_by(command, arguments).output().unwrap())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

#[test]
fn a_user_builds_the_same_as_root() {
    let user = User::new("720000-785535");
    let cache = user.dir.path().join("cache");
    fill(&cache);
    let project = Project::within(user.dir.path(), &cache);
    project.fill();
    user.own();
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    assert!(built.stages.contains_key("base"), "{}", built.text);
    let graph = user.run(&project, &["graph", "--format=json"]);
    assert!(graph.success, "{}", graph.text);
    let graph = Graph(serde_json::from_str(&graph.stdout).unwrap());
    let (ours, theirs) = (&reference().keys, graph.keys());
    let differing: Vec<_> = ours.keys().filter(|name| ours.get(*name) != theirs.get(*name)).collect();
    assert!(differing.is_empty(), "other keys than root: {differing:?}");
    assert!(project.tar() == reference().tar, "another archive than root's");
    let again = user.run(&project, &[]);
    assert!(again.success && again.stages.is_empty(), "{}", again.text);
    // What is published is the user's.
    let owner = tool(Command::new("stat").args(["-c", "%U"]).arg(project.output("image.tar.zst")));
    assert_eq!(owner.trim(), user.name);
    let verified = user.run(&project, &["store", "verify"]);
    assert!(verified.success, "{}", verified.text);
    // A directory has files of the subordinate ids, in the place of the link to the archive.
    project.reconfigure("Format=tar", "Format=directory");
    user.own_configuration(&project);
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
}
