//! Runs that are asked not to use what earlier ones made: `-f`, `-ff`, `--no-cache`, `Incremental=no`.

use crate::support::Project;
use crate::support::stores::{fresh, reference};

/// A project whose base is a directory, so that building all of it takes a second.
fn small() -> Project {
    let project = Project::empty(&reference().cache);
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=debian\nRelease=trixie\n\
         [Output]\nOutput=image\nOutputDirectory=mkosi.output\nFormat=tar\nCompressOutput=zstd\n\
         [Content]\nBaseTrees=tree\nExtraTrees=extra\n",
    );
    project.write("tree/usr/bin/program", "a program\n");
    project.write("extra/etc/file", "a file\n");
    project
}

/// What is made of it, beside the metadata and the publication.
const STAGES: [&str; 14] = [
    "resolve",
    "download",
    "base",
    "hwdb",
    "extra",
    "configure",
    "bootloader",
    "modules",
    "microcode",
    "remove",
    "modules-initrd",
    "selinux",
    "kernel",
    "tar",
];

#[test]
fn force_alone_is_harmless() {
    let project = small();
    project.build();
    let before = project.output("image.tar.zst").metadata().unwrap();
    let ran = project.done(&["-f"]);
    ran.assert(&[]);
    ran.says("up to date");
    let after = project.output("image.tar.zst").metadata().unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
}

#[test]
fn twice_forced_runs_all() {
    let project = small();
    project.build();
    let tar = project.tar();
    for (arguments, sync) in [(&["-ff"], true), (&["--no-cache"], false)] {
        let graph = project.graph(arguments);
        let ran = project.done(arguments);
        let expected: Vec<&str> = STAGES.into_iter().chain(sync.then_some("sync")).collect();
        ran.assert(&expected);
        ran.says("was given");
        assert_eq!(graph.stages("run"), expected.iter().map(|stage| (*stage).to_owned()).collect(), "{arguments:?}");
        assert!(project.tar() == tar);
        project.build().assert(&[]);
    }
}

#[test]
fn thrice_forced_fetches_packages_again() {
    // The base needs no package, so that those of one image are few.
    let project = Project::empty(&fresh());
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nOutputDirectory=mkosi.output\nFormat=tar\n\
         [Content]\nBaseTrees=tree\nPackages=tree\n",
    );
    // A package database without packages: tree and what it depends on is fetched, and can't be installed there.
    project.write("tree/var/lib/dpkg/status", "");
    let pool = project.cache.join("store/pool");
    let packages = || std::fs::read_dir(&pool).unwrap().count();
    let before = packages();
    let ran = project.run(&["-fff"]);
    assert!(ran.stages.contains_key("download") && ran.stages.contains_key("sync"), "{}", ran.text);
    assert!(packages() > 0 && packages() < before, "{} of {before}\n{}", packages(), ran.text);
}

#[test]
fn without_increments_all_images_run_every_time() {
    let project = small();
    project.configure("[Config]\nDependencies=other\n");
    project.write(
        "mkosi.images/other/mkosi.conf",
        "[Output]\nOutput=other\nFormat=directory\n[Content]\nBaseTrees=../../tree\n",
    );
    project.build();
    let tar = project.tar();
    project.configure("[Build]\nIncremental=no\n");
    for _ in 0..2 {
        let ran = project.done(&[]);
        ran.assert(&STAGES);
        // What the two images have in common is made once.
        assert_eq!((ran.stages["base"], ran.stages["resolve"]), (1, 1), "{}", ran.text);
        ran.says("Incremental");
        assert!(project.tar() == tar);
    }
}
