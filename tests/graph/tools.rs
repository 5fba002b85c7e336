//! The tools tree as a part of the graph.

use std::collections::BTreeSet;

use mkosi::config::Value;
use mkosi::plan::{Plan, Programs, compile};

use super::support::{Project, declarations, edges, four, keys_by_stage, rich, tools_image, with};

/// The stages of an image that run programs, keyed or not.
fn stages(plan: &Plan, programs: Programs) -> BTreeSet<&str> {
    let runs = |id: mkosi::plan::NodeId| plan.graph[id].skipped.is_none() && plan.graph[id].decl.programs() == programs;
    plan.nodes["main"].iter().filter(|(_, id)| runs(**id)).map(|(stage, _)| stage.as_str()).collect()
}

#[test]
fn what_a_tools_tree_holds_is_in_the_keys_of_the_stages_that_run_programs() {
    let project = rich();
    let tree = project.root().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let image = with(&project.image(), "ToolsTree", Value::Path(tree));
    let compiled = |changed: &str| {
        let mut digests = project.digests();
        digests.changed.insert(changed.to_owned());
        compile(&declarations(), std::slice::from_ref(&image), &["main".to_owned()], &digests).unwrap()
    };
    let (before, after) = (compiled(""), compiled("tree"));
    let own = |plan: &Plan, stage: &str| plan.graph[plan.nodes["main"][stage]].inputs.clone();
    let changed: BTreeSet<&str> = before.nodes["main"]
        .keys()
        .map(String::as_str)
        .filter(|stage| own(&before, stage) != own(&after, stage))
        .collect();
    assert_eq!(changed, stages(&before, Programs::Keyed));
    for stage in ["extra", "remove", "tar", "manifest", "checksum", "publish"] {
        assert!(!changed.contains(stage), "{stage} is made by this program alone");
    }
    // What is in it stands for all: a program of the host no longer counts.
    let after = compiled("dpkg");
    assert_eq!(keys_by_stage(&before), keys_by_stage(&after));
    assert!(before.graph.node_weights().all(|node| !node.inputs.keys().any(|name| name.starts_with("tool/"))));
}

#[test]
fn the_default_tools_tree_is_an_edge_to_the_last_tree_of_its_image() {
    let project = rich();
    let image = with(&project.image(), "ToolsTree", Value::text("default"));
    // The order of the images does not matter.
    let goals = ["main".to_owned()];
    let plan = compile(&declarations(), &[image, tools_image()], &goals, &project.digests()).unwrap();
    let tools = |stage: &str| -> Vec<(String, String)> {
        let edges = edges(&plan, "main", stage).into_iter().filter(|(_, node, _)| node.starts_with("tools/"));
        edges.map(|(input, node, output)| (input, format!("{node}.{output}"))).collect()
    };
    let expected = |input: &str| vec![(input.to_owned(), "tools/kernel.tree".to_owned())];
    for stage in stages(&plan, Programs::Keyed) {
        assert_eq!(tools(stage), expected("tools"), "{stage}");
    }
    for stage in stages(&plan, Programs::Unkeyed) {
        assert_eq!(tools(stage), expected("unkeyed/tools"), "{stage}");
    }
    for stage in stages(&plan, Programs::None) {
        assert_eq!(tools(stage), [], "{stage}");
    }
    // Its own stages run the host's programs, and nobody publishes it.
    let wanted: BTreeSet<String> = plan.wanted().into_iter().map(|id| plan.graph[id].name()).collect();
    assert!(wanted.contains("tools/remove") && !wanted.contains("tools/publish"), "{wanted:?}");
    let resolve = &plan.graph[plan.nodes["tools"]["resolve"]];
    assert!(resolve.inputs.contains_key("tool/apt-get") && !resolve.images.contains("main"));
}

#[test]
fn images_share_a_base_that_was_made_with_one_tools_tree() {
    let project: Project = four();
    let mut images: Vec<_> =
        project.images().iter().map(|image| with(image, "ToolsTree", Value::text("default"))).collect();
    images.push(tools_image());
    let plan = project.compile(&images);
    assert_eq!(plan.nodes["one"]["base"], plan.nodes["two"]["base"]);
    assert_ne!(plan.nodes["one"]["base"], plan.nodes["tools"]["base"]);
}

#[test]
fn a_default_tools_tree_that_is_not_there_is_an_error() {
    let project = rich();
    let image = with(&project.image(), "ToolsTree", Value::text("default"));
    let error = compile(&declarations(), &[image], &["main".to_owned()], &project.digests()).unwrap_err().to_string();
    assert!(error.contains("`main`") && error.contains("`tools`"), "{error}");
}
