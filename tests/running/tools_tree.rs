//! Verbs with the programs of the default tools tree, whose layers are in the store.

use std::path::Path;
use std::process::Output;

use crate::support::{Project, tools};

/// A project that uses the shared tree, with an image that was not built.
fn project() -> Project {
    let project = Project::empty(tools::cache());
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=custom\n[Output]\nFormat=directory\nOutputDirectory=mkosi.output\n{}",
            tools::CONFIGURATION
        ),
    );
    std::fs::create_dir_all(project.output("image/etc")).unwrap();
    project
}

fn in_box(project: &Project, script: &str) -> (Output, String) {
    let output = project.command(&["box", "--", "sh", "-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn a_box_has_the_programs_of_the_tree_and_the_files_of_the_host() {
    let project = project();
    project.done(&["-f", "box", "--", "true"]);
    assert!(!project.output("image/usr").exists(), "the image was built");
    project.write("file", "from the host\n");
    let (output, text) = in_box(
        &project,
        "stat -f -c %T /usr; . /etc/os-release; echo $VERSION_CODENAME; systemd-repart --version >/dev/null && echo repart
         cat file; echo made > made; touch /usr/made 2>/dev/null || echo read-only; echo $MKOSI_IN_BOX
         cmp /etc/passwd /etc/../etc/passwd; ls /usr/.. | grep -c '^mkosi$'; exit 7",
    );
    assert_eq!(text, "overlayfs\ntrixie\nrepart\nfrom the host\nread-only\n1\n1\n", "{output:?}");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(project.read("made"), "made\n");
    // The host's users, and this program, which takes the programs that are there for its tools.
    let me = "id -un; mkosi --version >/dev/null && mkosi box -- sh -c 'echo $SHELL_PROMPT_PREFIX'";
    let (output, text) = in_box(&project, me);
    assert_eq!(text, "root\n(box:2)\n", "{output:?}");
    let output = project.command(&["box", "--", "no-such-program"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(127) && said.contains("no-such-program") && said.contains("/mkosi"), "{said}");
    // A verb that hands over to a program of the tree, and one for which the tree has none.
    let version = project.done(&["journalctl", "--", "--version"]);
    assert!(version.stdout.starts_with("systemd 257 "), "{}", version.stdout);
    let text = project.fails(&["shell"]).text;
    assert!(text.contains("systemd-nspawn") && text.contains("ToolsTreeProfiles="), "{text}");
}

#[test]
fn a_tree_that_is_not_built_is_told() {
    let project = project();
    project.configure("ToolsTreePackages=hello\n");
    for verb in ["box", "shell", "ssh"] {
        let text = project.fails(&[verb]).text;
        assert!(text.contains("tools tree is not built") && text.contains("add -f"), "{verb}: {text}");
    }
    let output = project.command(&["--tools-tree=no", "box", "--", "sh", "-c", "pwd; exit 3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(Path::new(String::from_utf8_lossy(&output.stdout).trim()), project.path());
}
