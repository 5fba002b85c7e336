//! A store on a file system that takes no overlay: a container's own overlay.

use std::path::PathBuf;
use std::process::Command;

use crate::support::stores::{directory, fill, reference};
use crate::support::{Project, tool};

/// An overlay mount, unmounted at the end.
struct Overlay(PathBuf);

impl Overlay {
    fn new() -> Self {
        let place = directory("overlay-");
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| place.join(name));
        for path in [&lower, &upper, &work, &merged] {
            std::fs::create_dir(path).unwrap();
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        tool(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&merged));
        Self(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn trees_are_copied_where_no_overlay_can_be_mounted_and_come_out_the_same() {
    let overlay = Overlay::new();
    let project = Project::new(&overlay.0);
    fill(&overlay.0);
    let ran = project.build();
    ran.says("trees are copied");
    assert!(project.tar() == reference().tar);
}
