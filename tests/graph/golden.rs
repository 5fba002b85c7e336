//! Keys that must not change unnoticed, and the graph in every form that it is printed in.

use std::collections::{BTreeMap, BTreeSet};

use mkosi::plan::{Format, NodeId, Plan, Preview, Reason, State, render};
use mkosi::types::Digest;

use super::support::{Project, four, keys, keys_by_stage, rich};

/// Every node as it is before the first run.
fn never_built(plan: &Plan, nodes: impl Iterator<Item = NodeId>) -> Vec<Preview> {
    nodes
        .map(|id| {
            let state = match &plan.graph[id].skipped {
                Some(why) => State::Skipped(why.clone()),
                None => State::Run(vec![Reason::Never]),
            };
            Preview { id, key: None, state, last: None }
        })
        .collect()
}

fn printed(project: &Project, format: Format) -> String {
    let plan = project.compile(&project.images());
    render(&plan, &never_built(&plan, plan.graph.node_indices()), format, None)
}

fn one() -> Project {
    Project::new(&[
        ("mkosi.conf", "[Distribution]\nDistribution=debian\n[Output]\nFormat=tar\n[Content]\nPackages=bash\n"),
        ("mkosi.extra/", ""),
        ("mkosi.postinst", ""),
    ])
}

/// A key that changes here without a change of the configuration is a store thrown away at each user's.
#[test]
fn keys_of_a_fixed_configuration() {
    let project = rich();
    let keys = keys_by_stage(&project.compile(&project.images()));
    let lines: Vec<String> = ["sync", "resolve", "base", "build", "postinst", "tar", "checksum"]
        .iter()
        .map(|stage| format!("{stage:<10} {}", keys[&("main".to_owned(), (*stage).to_owned())]))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// Two projects of the same content at other places have the same keys.
#[test]
fn keys_know_nothing_of_the_place() {
    let (here, there) = (rich(), rich());
    assert_ne!(here.root(), there.root());
    assert_eq!(keys_by_stage(&here.compile(&here.images())), keys_by_stage(&there.compile(&there.images())));
}

#[test]
fn inputs_of_a_node() {
    let project = rich();
    let plan = project.compile(&project.images());
    let names = |stage: &str| {
        let id = plan.nodes["main"][stage];
        let own = plan.graph[id].inputs.keys().cloned();
        own.chain(plan.needs(id).iter().map(|(_, edge)| edge.input.clone())).collect::<BTreeSet<_>>()
    };
    let text: Vec<String> = ["sync", "download", "build", "configure", "checksum"]
        .iter()
        .map(|stage| format!("{stage}\n  {}", names(stage).into_iter().collect::<Vec<_>>().join("\n  ")))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn one_image_as_text() {
    insta::assert_snapshot!(printed(&one(), Format::Text));
}

#[test]
fn one_image_with_what_is_skipped() {
    insta::assert_snapshot!(printed(&one(), Format::Full));
}

#[test]
fn four_images_as_text() {
    insta::assert_snapshot!(printed(&four(), Format::Text));
}

/// The digests of inputs are the keys' affair; here their names are enough.
fn json(project: &Project) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(&printed(project, Format::Json)).unwrap();
    for node in value["nodes"].as_array_mut().unwrap() {
        let inputs = node["inputs"].as_object().unwrap();
        for digest in inputs.values() {
            digest.as_str().unwrap().parse::<Digest>().unwrap();
        }
        node["inputs"] = inputs.keys().cloned().collect::<Vec<_>>().join(" ").into();
        node.as_object_mut().unwrap().remove("about");
    }
    value
}

#[test]
fn one_image_as_json() {
    insta::assert_snapshot!(format!("{:#}", json(&one())));
}

#[test]
fn json_has_the_whole_graph() {
    let project = four();
    let (plan, value) = (project.compile(&project.images()), json(&project));
    assert_eq!(value["version"], 1);
    let nodes = value["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), plan.graph.node_count());
    let needs: usize = nodes.iter().map(|node| node["needs"].as_array().unwrap().len()).sum();
    assert_eq!(needs, plan.graph.edge_count());
}

/// Reads Graphviz' language as far as a graph of boxes needs it: the nodes, and the edges between them.
fn read_dot(text: &str) -> (BTreeSet<String>, Vec<(String, String)>) {
    let body = text.strip_prefix("digraph mkosi {\n").and_then(|text| text.strip_suffix("}\n")).expect("a graph");
    let (mut nodes, mut edges) = (BTreeSet::new(), Vec::new());
    for statement in statements(body) {
        let (head, attributes) = statement.split_once(" [").map_or((statement.as_str(), ""), |(head, rest)| {
            (head, rest.strip_suffix(']').unwrap_or_else(|| panic!("{statement}")))
        });
        match head.split_once(" -> ") {
            Some((from, to)) => edges.push((from.to_owned(), to.to_owned())),
            None if head == "node" || head.starts_with("rankdir=") => {}
            None => assert!(nodes.insert(head.to_owned()), "{head} twice"),
        }
        assert!(attributes.is_empty() || attributes.contains('='), "{statement}");
    }
    (nodes, edges)
}

/// The statements between semicolons; those in quotes do not count.
fn statements(text: &str) -> Vec<String> {
    let (mut found, mut current, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            ';' if !quoted => found.push(std::mem::take(&mut current).trim().to_owned()),
            _ => current.push(c),
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    assert!(!quoted && current.trim().is_empty(), "left over: {current}");
    found
}

/// Reads a Mermaid flow chart of boxes.
fn read_mermaid(text: &str) -> (BTreeSet<String>, Vec<(String, String)>) {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("flowchart LR"));
    let (mut nodes, mut edges, mut used, mut classes) = (BTreeSet::new(), Vec::new(), BTreeSet::new(), BTreeSet::new());
    for line in lines {
        let line = line.strip_prefix("  ").unwrap();
        if let Some(class) = line.strip_prefix("classDef ") {
            classes.insert(class.split(' ').next().unwrap().to_owned());
        } else if let Some((from, rest)) = line.split_once(" -->|") {
            let (label, to) = rest.split_once("| ").unwrap();
            assert!(!label.is_empty() && !label.contains(['"', '|']), "{line}");
            edges.push((from.to_owned(), to.to_owned()));
        } else {
            let (id, rest) = line.split_once("[\"").unwrap();
            let (label, class) = rest.split_once("\"]:::").unwrap();
            assert!(!label.contains(['"', '\n']), "{line}");
            used.insert(class.to_owned());
            assert!(nodes.insert(id.to_owned()), "{id} twice");
        }
    }
    assert!(used.is_subset(&classes), "{used:?} {classes:?}");
    (nodes, edges)
}

/// A parsed picture shows all nodes that are part of an image, and their edges.
fn complete(plan: &Plan, (nodes, edges): (BTreeSet<String>, Vec<(String, String)>)) {
    assert_eq!(nodes.len(), keys(plan).len());
    assert_eq!(edges.len(), plan.graph.edge_count());
    for (from, to) in &edges {
        assert!(nodes.contains(from) && nodes.contains(to), "{from} -> {to}");
    }
}

#[test]
fn pictures_are_well_formed() {
    insta::assert_snapshot!("one_image_as_dot", printed(&one(), Format::Dot));
    insta::assert_snapshot!("one_image_as_mermaid", printed(&one(), Format::Mermaid));
    insta::assert_snapshot!("four_images_as_dot", printed(&four(), Format::Dot));
    insta::assert_snapshot!("four_images_as_mermaid", printed(&four(), Format::Mermaid));
    for project in [one(), four()] {
        let plan = project.compile(&project.images());
        complete(&plan, read_dot(&printed(&project, Format::Dot)));
        complete(&plan, read_mermaid(&printed(&project, Format::Mermaid)));
    }
}

/// Names of images come from names of files, which may hold anything.
#[test]
fn pictures_survive_odd_names() {
    let project = one();
    let mut image = project.image();
    image.name = "a\"b;\\ [c]|<d>\n".to_owned();
    let plan = project.compile(&[image]);
    let nodes = never_built(&plan, plan.graph.node_indices());
    complete(&plan, read_dot(&render(&plan, &nodes, Format::Dot, None)));
    complete(&plan, read_mermaid(&render(&plan, &nodes, Format::Mermaid, None)));
}

#[test]
fn the_format_has_a_name() {
    let known: BTreeMap<&str, Format> = [
        ("text", Format::Text),
        ("full", Format::Full),
        ("json", Format::Json),
        ("dot", Format::Dot),
        ("mermaid", Format::Mermaid),
    ]
    .into();
    for (name, format) in known {
        assert_eq!(name.parse(), Ok(format));
    }
    assert!("svg".parse::<Format>().unwrap_err().contains("mermaid"));
}

/// Four images on one base: what they share is there once, and the base is mounted, not copied.
#[test]
fn images_share_nodes() {
    let project = four();
    let plan = project.compile(&project.images());
    let shared = |stage: &str| plan.nodes["one"][stage] == plan.nodes["two"][stage];
    for stage in ["sync", "resolve", "download", "base", "packages", "hwdb"] {
        assert!(shared(stage), "{stage}");
    }
    for stage in ["configure", "tar", "publish"] {
        assert!(!shared(stage), "{stage}");
    }
    let same = project.images().into_iter().find(|image| image.name == "one").unwrap();
    let mut twin = same.clone();
    twin.name = "twin".to_owned();
    let plan = project.compile(&[same, twin]);
    for stage in ["tar", "configure"] {
        assert_eq!(plan.nodes["one"][stage], plan.nodes["twin"][stage], "{stage}");
    }
    assert_ne!(plan.nodes["one"]["publish"], plan.nodes["twin"]["publish"]);
}
