//! The same build without root.

use std::process::Command;

use crate::support::stores::{fill, reference};
use crate::support::user::User;
use crate::support::{Graph, Project, tool};

#[test]
fn a_user_builds_the_same_as_root() {
    let user = User::new("s", Some("720000-785535"));
    let cache = user.place().join("cache");
    fill(&cache);
    let project = Project::within(user.place(), &cache);
    project.fill();
    user.own();
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    assert!(built.stages.contains_key("base"), "{}", built.text);
    let graph = user.run(&project, &["graph", "--format=json"]);
    assert!(graph.success, "{}", graph.text);
    let graph = Graph(serde_json::from_str(&graph.stdout).unwrap());
    let (ours, theirs) = (&reference().keys, graph.keys());
    let differing: Vec<_> = ours.keys().filter(|name| ours.get(*name) != theirs.get(*name)).collect();
    // Whether a user may label files is up to the kernel, so that alone is in a key of its own; what comes out is the same.
    let selinux = ["[\"main\"] \"selinux\""];
    assert_eq!(differing, selinux, "other keys than root");
    assert!(project.tar() == reference().tar, "another archive than root's");
    let again = user.run(&project, &[]);
    assert!(again.success && again.stages.is_empty(), "{}", again.text);
    // What is published is the user's.
    let owner = tool(Command::new("stat").args(["-c", "%U"]).arg(project.output("image.tar.zst")));
    assert_eq!(owner.trim(), user.name);
    let verified = user.run(&project, &["store", "verify"]);
    assert!(verified.success, "{}", verified.text);
    // A directory has files of the subordinate ids, in the place of the link to the archive.
    project.reconfigure("Format=tar", "Format=directory");
    user.own_configuration(&project);
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    assert_eq!(project.read("mkosi.output/image/usr/share/greeting"), "hello\n");
}

/// The members of an archive: mode, name and target, and the owner where `owners` are wanted.
fn members(archive: &std::path::Path, owners: bool) -> Vec<String> {
    let text = tool(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(archive));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let owner = if owners { fields[1] } else { "" };
        // A directory's size is no matter, and the day of a file is the same or the archive is another.
        format!("{} {owner} {}", fields[0], fields[2..].join(" "))
    };
    text.lines().map(line).collect()
}

#[test]
fn a_user_without_subordinate_ids_builds_the_same_but_for_owners() {
    let user = User::new("p", None);
    let cache = user.place().join("cache");
    fill(&cache);
    let project = Project::within(user.place(), &cache);
    project.fill();
    user.own();
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    assert!(built.text.contains("no subordinate ids"), "{}", built.text);
    // Metadata and packages are the same, trees are not: a store that both use mixes nothing up. There are no modules and
    // no microcode in either tree.
    let shared = ["sync", "resolve", "download", "microcode", "modules-initrd"];
    let graph = user.run(&project, &["graph", "--format=json"]);
    let keys = Graph(serde_json::from_str(&graph.stdout).unwrap()).keys();
    for (name, key) in &reference().keys {
        let same = shared.iter().any(|stage| name.contains(&format!("\"{stage}\"")));
        assert_eq!(keys.get(name) == Some(key), same, "{name}");
    }
    let theirs = user.place().join("root.tar.zst");
    std::fs::write(&theirs, &reference().tar).unwrap();
    let ours = project.output("image.tar.zst");
    let (plain, root) = (members(&ours, false), members(&theirs, false));
    let differing: Vec<_> = plain.iter().filter(|line| !root.contains(line)).collect();
    assert!(plain.len() == root.len() && differing.is_empty(), "{differing:?}");
    assert!(members(&ours, true).iter().all(|line| line.contains(" 0/0 ")));
    // What the documentation lists, and nothing else.
    let others: Vec<String> = members(&theirs, true).into_iter().filter(|line| !line.contains(" 0/0 ")).collect();
    let listed = ["/mail/", "/dbus-daemon-launch-helper", "/unix_chkpwd", "/systemd/network/", "/log/"];
    let unlisted: Vec<_> = others.iter().filter(|line| !listed.iter().any(|name| line.contains(name))).collect();
    assert!(!others.is_empty() && unlisted.is_empty(), "{unlisted:?}");
    let again = user.run(&project, &[]);
    assert!(again.success && again.stages.is_empty(), "{}", again.text);
}
