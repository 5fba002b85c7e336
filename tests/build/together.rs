//! Builds at the same time, and builds that have nothing in common but their inputs.

use std::process::Stdio;

use crate::support::stores::{fresh, reference};
use crate::support::{Project, Ran};

/// Builds all at once.
fn build_together(projects: &[&Project]) -> Vec<Ran> {
    let none: [&str; 0] = [];
    let start =
        |project: &&Project| project.command(&none).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = projects.iter().map(start).collect();
    let runs: Vec<_> = children.into_iter().map(|child| Ran::new(child.wait_with_output().unwrap())).collect();
    for ran in &runs {
        assert!(ran.success, "{}", ran.text);
    }
    runs
}

#[test]
fn builds_at_the_same_time_share_the_work() {
    let cache = fresh();
    let (one, other) = (Project::new(&cache), Project::new(&cache));
    // Two in one project, and a third in another that shares the store.
    let runs = build_together(&[&one, &one, &other]);
    for stage in ["base", "packages", "extra", "tar"] {
        let times: usize = runs.iter().filter_map(|ran| ran.stages.get(stage)).sum();
        assert_eq!(times, 1, "{stage}: {runs:#?}");
    }
    for project in [&one, &other] {
        // A store that shares nothing with the reference's gives the same bytes.
        assert!(project.tar() == reference().tar);
        project.build().assert(&[]);
    }
    one.done(&["store", "verify"]);
    // Again where the work is in the stages after the base, and differs.
    one.write("mkosi.extra/etc/extra", "one\n");
    other.write("mkosi.extra/etc/extra", "other\n");
    build_together(&[&one, &other, &one, &other]);
    assert!(one.tar() != other.tar());
    let alone = Project::new(&reference().cache);
    for (project, text) in [(&one, "one\n"), (&other, "other\n")] {
        project.build().assert(&[]);
        alone.write("mkosi.extra/etc/extra", text);
        alone.build();
        assert!(alone.tar() == project.tar(), "{text}");
    }
}
