//! What runs after a change, and nothing else does; and what `mkosi graph` says of it before.

use std::process::Command;

use crate::support::stores::{fresh, reference, shared};
use crate::support::{Graph, Project, Ran, tool};

/// What follows a changed tree, where neither modules nor firmware changed.
const AFTER_EXTRA: [&str; 10] =
    ["postinst", "configure", "bootloader", "modules", "manifest", "remove", "selinux", "kernel", "tar", "publish"];

#[test]
fn nothing_runs_without_a_change() {
    // `shared` and `build` look at that as well; this is the build that made everything.
    let stages = &reference().stages;
    for stage in ["sync", "base", "packages", "build", "extra", "postinst", "configure", "tar", "publish"] {
        let expected = stage != "sync";
        assert_eq!(stages.iter().any(|ran| ran == stage), expected, "{stage}: {stages:?}");
    }
    let project = shared();
    let graph = project.graph(&[]);
    assert!(graph.foretold().is_empty(), "{graph:?}");
    assert_eq!(graph.stages("current").into_iter().collect::<Vec<_>>(), ["publish"]);
}

#[test]
fn a_project_elsewhere_with_other_times_is_the_same() {
    let project = shared();
    let copy = Project::empty(&project.cache);
    tool(Command::new("cp").arg("-r").arg(project.path().join(".")).arg(copy.path()));
    tool(Command::new("rm").arg("-r").arg(copy.path().join("mkosi.output")));
    tool(Command::new("find").arg(copy.path()).args(["-exec", "touch", "-d", "2001-02-03", "{}", ";"]));
    let (ran, _) = copy.build_as_foretold();
    ran.assert(&["publish"]);
    assert_eq!(copy.graph(&[]).keys(), project.graph(&[]).keys());
    assert!(copy.tar() == project.tar());
}

#[test]
fn an_extra_file() {
    let project = shared();
    project.write("mkosi.extra/etc/extra", "changed\n");
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&[&["extra"], &AFTER_EXTRA[..]].concat());
    assert!(graph.reasons("extra").contains("ExtraTrees"), "{}", graph.reasons("extra"));
    assert_eq!(graph.stages("run"), ["extra".to_owned()].into());
    assert!(graph.reasons("tar").contains("needs"), "{}", graph.reasons("tar"));
    assert!(project.tar() != reference().tar);
    // And back: everything is still known.
    project.write("mkosi.extra/etc/extra", "extra\n");
    project.build_as_foretold().0.assert(&["publish"]);
    assert!(project.tar() == reference().tar);
}

#[test]
fn a_comment_in_the_build_script_ends_at_the_build() {
    let project = shared();
    project.script("mkosi.build", "# Says more.\ninstall -D -m 0755 \"$SRCDIR/hello.sh\" \"$DESTDIR/usr/bin/hello\"");
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&["build"]);
    ran.says("same result as before");
    assert!(graph.reasons("build").contains("mkosi.build"), "{}", graph.reasons("build"));
    assert!(graph.stages("may run").contains("extra"), "{graph:?}");
    // A source that installs something else goes further.
    project.write("src/hello.sh", "#!/bin/sh\necho hello, world\n");
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&[&["build", "extra"], &AFTER_EXTRA[..]].concat());
    assert!(graph.reasons("build").contains("build sources"), "{}", graph.reasons("build"));
}

#[test]
fn the_script_after_the_installation() {
    let project = shared();
    project.script("mkosi.postinst.chroot", "hello > /usr/share/greeting\necho more > /usr/share/more");
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&AFTER_EXTRA);
    assert!(graph.reasons("postinst").contains("mkosi.postinst"), "{}", graph.reasons("postinst"));
    project.script("mkosi.postinst.chroot", "hello > /usr/share/greeting; echo more > /usr/share/more");
    project.build_as_foretold().0.assert(&["postinst"]);
}

#[test]
fn one_package_more() {
    let project = shared();
    project.configure("[Content]\nPackages=tree\n");
    let (ran, graph) = project.build_as_foretold();
    ran.assert(&[&["resolve", "download", "packages", "build", "hwdb", "extra"], &AFTER_EXTRA[..]].concat());
    assert!(graph.reasons("resolve").contains("Packages"), "{}", graph.reasons("resolve"));
    // The base is not settled before the packages are, but it came out the same.
    assert!(!graph.stages("run").contains("base"), "{graph:?}");
    assert!(project.read("mkosi.output/image.manifest").contains("\"tree\""));
    assert_eq!(graph.stages("cached"), ["sync".to_owned()].into());
}

#[test]
fn a_refresh_without_news_ends_at_the_resolution() {
    let project = shared();
    let ran = project.done(&["update"]);
    assert!(ran.stages.contains_key("sync"), "{}", ran.text);
    assert!(ran.names().all(|stage| ["sync", "resolve"].contains(&stage)), "{}", ran.text);
    assert!(project.tar() == reference().tar);
}

#[test]
fn another_format_runs_the_output_alone() {
    let project = shared();
    project.write("mkosi.extra/etc/extra", "in two formats\n");
    project.reconfigure("Format=tar", "Format=directory");
    let (ran, _) = project.build_as_foretold();
    assert!(!ran.stages.contains_key("tar"), "{}", ran.text);
    assert_eq!(project.read("mkosi.output/image/etc/extra"), "in two formats\n");
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
    project.reconfigure("Format=directory", "Format=tar");
    let (ran, graph) = project.build_as_foretold();
    // A directory is not labelled, so that stage has not seen this tree yet.
    ran.assert(&["selinux", "tar", "manifest", "publish"]);
    assert!(graph.reasons("manifest").contains("Format"), "{}", graph.reasons("manifest"));
    let names = tool(Command::new("tar").arg("-tf").arg(project.output("image.tar.zst")));
    assert!(names.lines().any(|name| name.trim_start_matches("./") == "usr/share/greeting"), "{names}");
}

/// Runs the program where another file lies in the place of the host's dpkg.
fn with_another_dpkg(project: &Project, dpkg: &std::path::Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /usr/bin/dpkg && exec \"$@\""]);
    command.arg(dpkg).arg(crate::support::MKOSI);
    let ran = Ran::new(project.command_by(command, arguments).output().unwrap());
    assert!(ran.success, "{}", ran.text);
    ran
}

#[test]
fn another_version_of_a_tool_runs_what_names_it() {
    // In a store of its own: others must not find what this makes.
    let project = Project::new(&fresh());
    project.build();
    let before = project.tar();
    let dpkg = project.path().join("dpkg");
    tool(Command::new("cp").args(["-p", "/usr/bin/dpkg"]).arg(&dpkg));
    let mut bytes = std::fs::read(&dpkg).unwrap();
    bytes.push(0);
    std::fs::write(&dpkg, bytes).unwrap();
    let graph = with_another_dpkg(&project, &dpkg, &["graph", "--format=json"]);
    let graph = Graph(serde_json::from_str(&graph.stdout).unwrap());
    assert_eq!(graph.stages("run"), ["base".to_owned(), "packages".to_owned()].into(), "{graph:?}");
    assert!(graph.reasons("base").contains("dpkg"), "{}", graph.reasons("base"));
    with_another_dpkg(&project, &dpkg, &[]).assert(&["base", "packages"]);
    with_another_dpkg(&project, &dpkg, &[]).assert(&[]);
    project.build().assert(&[]);
    assert!(project.tar() == before);
    // This store is a second fresh one: what it made is what the first made.
    assert!(project.tar() == reference().tar);
}

/// Without `OutputDirectory=` the outputs lie among the sources, and are none.
#[test]
fn outputs_beside_the_sources_are_no_sources() {
    let project = Project::empty(&reference().cache);
    for format in ["tar", "directory"] {
        project.write(
            "mkosi.conf",
            &format!(
                "[Distribution]\nDistribution=debian\nRelease=trixie\n\
                 [Output]\nFormat={format}\nManifestFormat=json\n[Content]\nBaseTrees=tree\n"
            ),
        );
        project.write("tree/usr/bin/program", "a program\n");
        project.script("mkosi.build", "ls >&2; test ! -e image && test ! -e image.manifest");
        project.build();
        assert!(project.path().join("image.manifest").exists());
        project.build().assert(&[]);
    }
    // Of any name that they have: what scripts leave there is told by the record of the publication.
    project.reconfigure("Format=directory", "Format=cpio\nOutputExtension=img");
    project.script(
        "mkosi.build",
        "ls >&2; test ! -e image && test ! -e image.img.zst && test ! -e own; touch $OUTPUTDIR/own",
    );
    project.build();
    assert!(project.path().join("image.img.zst").exists() && project.path().join("own").exists());
    project.build().assert(&[]);
    // A file whose name only begins like theirs is one.
    project.write("image.c", "int main;\n");
    assert!(project.done(&[]).stages.contains_key("build"));
}
