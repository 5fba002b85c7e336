//! A repository that changes between the run that read its lists and the one that wants its packages.

use crate::support::Project;
use crate::support::repository::Repository;
use crate::support::stores::{directory, fresh};

#[test]
fn a_repository_that_moves_on() {
    let cache = fresh();
    let repository = Repository::new(directory("repository-"), &cache.join("store/pool"));
    repository.add("local", "1");
    repository.add("other", "1");
    repository.publish();
    let project = Project::empty(&cache);
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=debian\nRelease=trixie\nLocalMirror={}\n[Output]\nFormat=directory\n\
             Output=image\nOutputDirectory=mkosi.output\n[Content]\nPackages=other\n",
            repository.serve()
        ),
    );
    project.build();
    assert_eq!(project.read("mkosi.output/image/usr/share/other"), "1\n");

    // News that don't concern the image end at the resolution.
    repository.add("unrelated", "1");
    repository.publish();
    project.build().assert(&[]);
    let ran = project.done(&["update"]);
    ran.assert(&["sync", "resolve"]);
    project.build().assert(&[]);

    // The lists that the store has name a package that is gone.
    repository.remove("local", "1");
    repository.add("local", "2");
    repository.publish();
    project.reconfigure("Packages=other", "Packages=other local");
    let ran = project.done(&[]);
    ran.says("the mirror no longer has");
    assert_eq!((ran.stages["sync"], ran.stages["resolve"], ran.stages["download"]), (1, 2, 2), "{}", ran.text);
    assert!(!ran.stages.contains_key("base"), "{}", ran.text);
    assert_eq!(project.read("mkosi.output/image/usr/share/local"), "2\n");
    project.build().assert(&[]);

    // Where the repository itself is wrong, one refresh is all that is tried.
    repository.add("broken", "1");
    repository.publish();
    repository.remove("broken", "1");
    project.reconfigure("Packages=other local", "Packages=other local broken");
    project.done(&["graph"]);
    let ran = project.fails(&["--refresh"]);
    ran.says("broken");
    assert!(ran.stages["sync"] <= 2 && ran.stages["download"] <= 2, "{}", ran.text);
    project.reconfigure("Packages=other local broken", "Packages=other local");
    project.build();
}
