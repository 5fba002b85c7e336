//! The output directory, scripts that fail, and what users do to either.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::stores::{reference, shared};
use crate::support::tool;

#[test]
fn a_deleted_output_is_published_again() {
    let project = shared();
    std::fs::remove_file(project.output("image.tar.zst")).unwrap();
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&["publish"]);
    assert!(graph.reasons("publish").contains("image.tar.zst"), "{}", graph.reasons("publish"));
    assert!(project.tar() == reference().tar);
    tool(Command::new("rm").arg("-r").arg(project.path().join("mkosi.output")));
    project.build_as_foretold().0.assert(&["publish"]);
    assert!(project.tar() == reference().tar);
    // One that was written to is ours no longer as it was, and is put right.
    std::fs::write(project.output("image.manifest"), "{}").unwrap();
    project.build_as_foretold().0.assert(&["publish"]);
    assert!(project.read("mkosi.output/image.manifest").contains("systemd"));
}

#[test]
fn a_deleted_directory_is_published_again() {
    let project = shared();
    project.reconfigure("Format=tar", "Format=directory");
    project.build();
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
    tool(Command::new("rm").arg("-r").arg(project.output("image")));
    project.build_as_foretold().0.assert(&["publish"]);
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
    // A change of one file leaves the others where they are.
    let inode = |name: &str| project.output(name).metadata().unwrap().ino();
    let before = inode("image/usr/bin/dpkg");
    project.write("mkosi.extra/etc/extra", "another\n");
    project.build();
    assert_eq!(project.read("mkosi.output/image/etc/extra"), "another\n");
    assert_eq!(inode("image/usr/bin/dpkg"), before);
}

#[test]
fn what_is_not_ours_is_kept_unless_forced() {
    let project = shared();
    for name in ["image.tar.zst", "image.manifest"] {
        std::fs::remove_file(project.output(name)).unwrap();
        std::fs::write(project.output(name), "mine").unwrap();
        let ran = project.fails(&[]);
        ran.says(name);
        ran.says("-f");
        assert_eq!(std::fs::read(project.output(name)).unwrap(), b"mine");
        project.done(&["-f"]).assert(&["publish"]);
        assert!(project.tar() == reference().tar);
    }
    project.reconfigure("Format=tar", "Format=directory");
    std::fs::remove_file(project.output("image")).unwrap();
    project.write("mkosi.output/image/mine", "mine");
    project.fails(&[]).says("-f");
    assert_eq!(project.read("mkosi.output/image/mine"), "mine");
    project.done(&["-f"]);
    assert!(!project.output("image/mine").exists());
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
    project.build();
}

#[test]
fn a_failing_script_is_named_with_what_it_said() {
    let project = shared();
    project.script("mkosi.postinst.chroot", "echo the first line\necho what went wrong >&2\nexit 7");
    for script in ["mkosi.postinst.chroot", "mkosi.build"] {
        project.script(script, "echo the first line\necho what went wrong >&2\nexit 7");
        let ran = project.fails(&[]);
        for text in [script, "failed with status 7", "the first line", "what went wrong", "whole output: "] {
            ran.says(text);
        }
        let log = ran.text.lines().find_map(|line| line.trim().strip_prefix("whole output: ")).unwrap();
        assert!(std::fs::read_to_string(log).unwrap().contains("what went wrong"));
    }
    // Nothing of it is kept: the right scripts find what they made before.
    project.fill();
    project.build().assert(&[]);
    project.done(&["store", "verify"]);
    assert!(project.tar() == reference().tar);
}
