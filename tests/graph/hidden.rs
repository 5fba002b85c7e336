//! What a stage neither sees nor hashes of the sources.

use std::sync::Arc;

use mkosi::plan::Source;

use crate::support::Project;

/// What lies below the sources and is configuration or made by a build is no part of the sources.
#[test]
fn own_files_of_the_project_are_hidden_from_its_sources() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=tar\nOutputDirectory=out\n[Build]\nBuildDirectory=b\n"),
        ("mkosi.build", ""),
        ("mkosi.postinst", ""),
    ]);
    let plan = project.compile(&project.images());
    let hidden = |stage: &str| {
        let node = &plan.graph[plan.nodes["main"][stage]];
        match &node.sources["file/BuildSources/00"] {
            Source::Host { hidden, .. } => hidden.clone(),
            Source::Image { .. } => panic!("{stage} has no sources"),
        }
    };
    let has = |stage: &str, name: &str| hidden(stage).contains(&project.root().join(name));
    for name in ["mkosi.conf", "mkosi.postinst.chroot", "out", "b", "mkosi.extra"] {
        assert!(has("build", name) && has("postinst", name), "{name}");
    }
    assert!(has("postinst", ".git") && !has("build", ".git"));
    assert!(!has("build", "src"));
}

/// Outputs of all images are no sources of any, and what is hidden is there once for all of them.
#[test]
fn outputs_beside_the_sources_are_hidden_by_one_list() {
    let project = Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\n"),
        ("mkosi.images/a/mkosi.conf", "[Output]\nFormat=tar\n[Content]\nHostname=a\n"),
        ("mkosi.images/a/mkosi.postinst", ""),
        ("mkosi.images/b/mkosi.conf", "[Output]\nFormat=tar\n[Content]\nHostname=b\n"),
        ("mkosi.images/b/mkosi.postinst", ""),
    ]);
    let plan = project.compile(&project.images());
    let hidden = |image: &str| {
        let node = &plan.graph[plan.nodes[image]["postinst"]];
        match &node.sources["file/BuildSources/00"] {
            Source::Host { hidden, .. } => hidden.paths(),
            Source::Image { .. } => panic!("{image} has no sources"),
        }
    };
    let (a, b) = (hidden("a"), hidden("b"));
    for name in ["a", "a.tar.zst", "b", "b.manifest", "b.tar", ".git"] {
        assert!(a.contains(&project.root().join(name)), "{name} in {a:?}");
    }
    assert!(Arc::ptr_eq(&a, &b));
}
