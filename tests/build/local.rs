//! Packages that lie at hand or that a script makes.

use std::path::Path;
use std::process::Command;

use crate::support::stores::reference;
use crate::support::{Project, tool};

const CONFIGURATION: &str = "\
[Distribution]
Distribution=debian
Release=trixie
[Output]
Format=directory
Output=image
OutputDirectory=mkosi.output
[Content]
Packages=nano
VolatilePackages=own
PackageDirectories=debs
[Build]
BuildSources=src
";

/// Makes a package in a directory, with the version in `/usr/share/NAME/version`.
fn package(directory: &Path, name: &str, version: &str) {
    let tree = tempfile::tempdir_in(directory).unwrap();
    let root = tree.path().join("tree");
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(root.join("usr/share").join(name)).unwrap();
    std::fs::write(root.join("usr/share").join(name).join("version"), format!("{version}\n")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.org>\nDescription: a test\n"
    );
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    let deb = directory.join(format!("{name}_{version}.deb"));
    tool(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(root).arg(deb));
}

#[test]
fn packages_at_hand_and_packages_that_a_script_makes() {
    let project = Project::empty(&reference().cache);
    project.write("mkosi.conf", CONFIGURATION);
    project.write("src/text", "one\n");
    project.write("debs/readme", "no package\n");
    project.write("volatile/readme", "no package\n");
    package(&project.path().join("debs"), "nano", "0.1");
    // A chain: one that the script makes, another one, and one of the mirror's.
    project.script(
        "mkosi.build",
        "make() {
             mkdir -p /tmp/$1/DEBIAN /tmp/$1/usr/share/$1; cp $SRCDIR/text /tmp/$1/usr/share/$1/text
             printf 'Package: %s\\nVersion: 2\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\nDepends: %s\\n' $1 $2 \
                 >/tmp/$1/DEBIAN/control
             SOURCE_DATE_EPOCH=1 dpkg-deb --root-owner-group -b /tmp/$1 $PACKAGEDIR/$1.deb
         }
         make own lib; make lib less",
    );
    let ran = project.build();
    for stage in ["resolve", "packages", "build", "resolve-volatile", "download-volatile", "volatile-packages"] {
        assert!(ran.stages.contains_key(stage), "{stage}: {}", ran.text);
    }
    assert!(!ran.stages.contains_key("base"), "{}", ran.text);
    // The package at hand, although the mirror has a newer one.
    assert_eq!(project.read("mkosi.output/image/usr/share/nano/version"), "0.1\n");
    assert_eq!(project.read("mkosi.output/image/usr/share/own/text"), "one\n");
    assert!(project.output("image/usr/bin/less").exists());

    // The same package again ends there.
    let script = project.read("mkosi.build");
    project.write("mkosi.build", &format!("{script}# Says more.\n"));
    project.build_as_foretold().0.assert(&["build"]);
    project.write("src/text", "two\n");
    let (ran, _) = project.build_as_foretold();
    let volatile = ["resolve-volatile", "download-volatile", "volatile-packages"];
    for stage in ["build", "extra"].iter().chain(&volatile) {
        assert!(ran.stages.contains_key(*stage), "{stage}: {}", ran.text);
    }
    assert!(!ran.stages.contains_key("packages"), "{}", ran.text);
    assert_eq!(project.read("mkosi.output/image/usr/share/own/text"), "two\n");

    // A volatile directory runs nothing before the build again.
    package(&project.path().join("volatile"), "own", "3");
    project.configure("[Content]\nVolatilePackageDirectories=volatile\n");
    let (ran, _) = project.build_as_foretold();
    assert!(!ran.stages.contains_key("build") && ran.stages.contains_key("volatile-packages"), "{}", ran.text);
    assert_eq!(project.read("mkosi.output/image/usr/share/own/version"), "3\n");
    package(&project.path().join("volatile"), "own", "4");
    project.build_as_foretold();
    assert_eq!(project.read("mkosi.output/image/usr/share/own/version"), "4\n");

    // Nobody else has such a package when the pool has lost it.
    let keys = project.graph(&[]).keys();
    let (_, key) = keys.iter().find(|(name, _)| name.contains("\"volatile-packages\"")).unwrap();
    let store = project.cache.join("store");
    std::fs::remove_file(store.join("records").join(format!("{}.json", key.trim_matches('"')))).unwrap();
    let deb = tool(Command::new("sha256sum").arg(project.path().join("volatile/own_4.deb")));
    std::fs::remove_file(store.join("pool").join(format!("{}.deb", deb.split(' ').next().unwrap()))).unwrap();
    let ran = project.done(&[]);
    ran.says("the pool no longer has");
    assert!(volatile.iter().all(|stage| ran.stages.contains_key(*stage)), "{}", ran.text);
    project.build().assert(&[]);

    let text = project.fails(&["--volatile-package", "ownn"]).text;
    assert!(text.contains("no repository has a package `ownn` (did you mean `own`?)"), "{text}");
}

#[test]
fn packages_on_an_archive() {
    let project = Project::empty(&reference().cache);
    std::fs::write(project.path().join("base.tar.zst"), &reference().tar).unwrap();
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=directory\nOutput=image\n\
         OutputDirectory=mkosi.output\n[Content]\nBaseTrees=base.tar.zst\nPackages=tree\n",
    );
    project.build();
    assert!(project.output("image/usr/bin/tree").exists() && project.output("image/usr/share/greeting").exists());
    let status = project.read("mkosi.output/image/var/lib/dpkg/status");
    assert!(status.contains("Package: tree\n") && status.contains("Package: systemd\n"));
}
