//! Several images of one project.

use std::process::Command;

use crate::support::stores::fresh;
use crate::support::{Project, tool};

const MAIN: &str = "[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nOutputDirectory=mkosi.output\n";

const IMAGES: [(&str, &str); 4] = [("one", "less"), ("two", "nano"), ("three", "tree"), ("four", "file")];

fn image(package: &str, output: &str) -> String {
    format!("[Output]\nFormat=directory\nOutput={output}\n[Content]\nPackages={package}\n")
}

fn assert_outputs(project: &Project) {
    for (name, package) in IMAGES {
        let path = format!("mkosi.output/{name}/usr/share/doc/{package}/copyright");
        assert!(project.path().join(&path).exists(), "{path}");
        let others = IMAGES.iter().filter(|(other, _)| *other != name);
        for (_, other) in others {
            let path = format!("mkosi.output/{name}/usr/bin/{other}");
            assert!(!project.path().join(&path).exists(), "{path}");
        }
    }
}

#[test]
fn four_images_on_one_base() {
    let project = Project::empty(&fresh());
    project.write("mkosi.conf", &format!("{MAIN}Format=none\n"));
    for (name, package) in IMAGES {
        project.write(&format!("mkosi.images/{name}/mkosi.conf"), &image(package, name));
    }
    let (ran, _) = project.build_as_foretold();
    for (stage, times) in [("base", 1), ("packages", 4), ("configure", 4), ("publish", 4), ("resolve", 4)] {
        assert_eq!(ran.stages.get(stage), Some(&times), "{stage}\n{}", ran.text);
    }
    assert_outputs(&project);
    // A change in one of them leaves the others.
    project.write("mkosi.images/two/mkosi.extra/etc/extra", "extra\n");
    let (ran, _) = project.build_as_foretold();
    let lines: Vec<_> = ran.text.lines().filter(|line| line.contains(" runs: ")).collect();
    assert!(lines.iter().all(|line| line.contains("two/")), "{lines:#?}");
    assert_eq!(project.read("mkosi.output/two/etc/extra"), "extra\n");
    assert!(!project.output("one/etc/extra").exists());

    // The same images in the older layout, in the same store.
    let older = Project::empty(&project.cache);
    older.write("mkosi.conf", &format!("{MAIN}Format=none\n"));
    for (index, (name, package)) in IMAGES.into_iter().enumerate() {
        older.write(&format!("mkosi.presets/{index}0-{name}/mkosi.conf"), &image(package, name));
    }
    let stages = ["sync", "packages", "configure"];
    let before = stages.map(|stage| older.records(stage));
    let ran = older.build();
    // The records tell which input differed.
    let again: Vec<_> = stages.into_iter().zip(&before).filter(|(stage, _)| ran.stages.contains_key(*stage)).collect();
    let after = || again.iter().map(|(stage, _)| older.records(stage)).collect::<Vec<_>>();
    assert!(again.is_empty(), "{}\nbefore: {again:#?}\nafter: {:#?}", ran.text, after());
    ran.assert(&["publish"]);
    assert_eq!(ran.stages["publish"], 4);
    assert_outputs(&older);
    let places = tool(Command::new("grep").args(["-rlF"]).arg(older.path()).arg(older.cache.join("store/last")));
    assert!(!places.is_empty());
    // And all of it anew: one base again.
    let ran = older.done(&["--no-cache"]);
    assert_eq!((ran.stages["base"], ran.stages["packages"]), (1, 4), "{}", ran.text);
    older.build().assert(&[]);
}
