//! Random declarations over random images: no panic, an order of need, one node for equals only, the same every time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mkosi::config::{Image, Origin, Sourced, Value};
use mkosi::plan::{Declarations, Format, Lookup, NodeId, Plan, PlanError, compile, preview, render};
use mkosi::store::{Artifact, Record, Slot};
use mkosi::types::Digest;
use proptest::prelude::*;

use super::support::{Fake, edges, keys, keys_by_stage};

const SETTINGS: &[&str] =
    &["BaseTrees", "Checksum", "ExtraTrees", "Format", "Hostname", "Output", "OutputDirectory", "Packages"];

/// The stages' names; they are put in a random order, so that the names' order is not one of need.
const STAGES: &[&str] = &["finalize", "tar", "alpha", "beta", "gamma", "delta", "omega"];

/// What one stage declares, with places of other stages that are still to be cut to those before it.
#[derive(Clone, Debug)]
struct Stage {
    tree: Option<usize>,
    needs: Vec<usize>,
    unkeyed: bool,
    changes: bool,
    settings: BTreeSet<usize>,
    files: bool,
    when: Option<usize>,
    test: Option<usize>,
    need_condition: Option<usize>,
    publishes: bool,
    version: u64,
    tools: bool,
}

const CONDITIONS: &[&str] =
    &["Packages", "!Packages", "Format=tar", "Format!=tar,none", "Checksum | Hostname", "Checksum=true", "Hostname=x"];

fn stage() -> impl Strategy<Value = Stage> {
    let place = || proptest::option::of(0..STAGES.len());
    let condition = || proptest::option::weighted(0.3, 0..CONDITIONS.len());
    (
        (place(), proptest::collection::vec(0..STAGES.len(), 0..3), any::<bool>(), any::<bool>()),
        (proptest::collection::btree_set(0..SETTINGS.len(), 0..6), proptest::bool::weighted(0.8)),
        (condition(), condition(), condition()),
        (proptest::bool::weighted(0.2), 1..3_u64, any::<bool>()),
    )
        .prop_map(
            |((tree, needs, unkeyed, changes), (settings, files), conditions, (publishes, version, tools))| {
                let (when, test, need_condition) = conditions;
                Stage {
                    tree,
                    needs,
                    unkeyed,
                    changes,
                    settings,
                    files,
                    when,
                    test,
                    need_condition,
                    publishes,
                    version,
                    tools,
                }
            },
        )
}

/// The stages as a declaration file. `strict` cuts what a stage needs to stages before it and to outputs they have,
/// and lets the stages that make what other images use be part of every image.
fn write(stages: &[(usize, Stage)], strict: bool) -> String {
    let mut text = String::new();
    let name = |at: usize| STAGES[stages[at % stages.len()].0];
    for (index, (own, stage)) in stages.iter().enumerate() {
        let usable = |at: &usize| !strict || at % stages.len() < index;
        let condition = stage.need_condition.map(|at| format!(" if {}", CONDITIONS[at])).unwrap_or_default();
        let makes = strict && ["finalize", "tar"].contains(&STAGES[*own]);
        let needs: BTreeSet<String> = (stage.needs.iter().filter(|at| usable(at)))
            .map(|at| format!("\"{}.out{condition}\"", name(*at)))
            .collect();
        let needs = needs.into_iter().collect::<Vec<_>>().join(", ");
        let list = |names: Vec<&str>| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let settings: Vec<&str> = stage.settings.iter().map(|at| SETTINGS[*at]).collect();
        let files: Vec<&str> = settings.iter().copied().filter(|name| stage.files && name.ends_with("Trees")).collect();
        text += &format!(
            "[stage.{}]\nabout = \"x\"\nversion = {}\npool = \"cpu\"\nsandbox = {{}}\nchanges = {}\n\
             publishes = {}\noutputs = [\"out\", \"files\"]\n{} = [{needs}]\nsettings = [{}]\nfiles = [{}]\n",
            STAGES[*own],
            stage.version,
            stage.changes || makes,
            stage.publishes && !makes,
            if stage.unkeyed { "unkeyed-needs" } else { "needs" },
            list(settings),
            list(files),
        );
        if let Some(tree) = stage.tree.filter(usable) {
            text += &format!("tree = \"{}{condition}\"\n", name(tree));
        }
        if stage.tools {
            text += "tools = [\"tool\"]\nhost-files = [\"/etc/file\"]\n";
        }
        for (field, condition) in [("when", stage.when), ("tests", stage.test)] {
            if let Some(at) = condition.filter(|_| !makes || field != "when") {
                text += &format!("{field} = [\"{}\"]\n", CONDITIONS[at]);
            }
        }
    }
    text
}

fn stages() -> impl Strategy<Value = Vec<(usize, Stage)>> {
    let order = Just((0..STAGES.len()).collect::<Vec<_>>()).prop_shuffle();
    (order, proptest::collection::vec(stage(), 3..=STAGES.len()))
        .prop_map(|(order, stages)| order.into_iter().zip(stages).collect())
}

/// A tree that may be another image's output, a file of the host, or nothing.
fn trees() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        3 => Just(None),
        2 => (0..2_usize).prop_map(|n| Some(format!("/host/{n}"))),
        1 => (0..4_usize).prop_map(|n| Some(format!("/out/i{n}"))),
        1 => (0..4_usize).prop_map(|n| Some(format!("/out/i{n}.tar"))),
    ];
    path.prop_map(|path| Value::List(path.into_iter().map(|path| Value::Path(PathBuf::from(path))).collect()))
}

fn image(index: usize) -> impl Strategy<Value = Image> {
    let format = prop_oneof![4 => Just("tar"), 4 => Just("directory"), 1 => Just("none")];
    let host = prop_oneof![Just(Value::None), Just(Value::text("x")), Just(Value::text("y"))];
    let packages = prop_oneof![Just(Value::List(vec![])), Just(Value::List(vec![Value::text("bash")]))];
    (format, host, packages, any::<bool>(), trees(), trees()).prop_map(
        move |(format, host, packages, sum, base, extra)| {
            let name = format!("i{index}");
            let values = [
                ("BaseTrees", base),
                ("Checksum", Value::Bool(sum)),
                ("ExtraTrees", extra),
                ("Format", Value::text(format)),
                ("Hostname", host),
                ("Output", Value::text(&name)),
                ("OutputDirectory", Value::Path(PathBuf::from("/out"))),
                ("Packages", packages),
            ];
            let values = values.into_iter().map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
            Image { name, project: PathBuf::from("/p"), values: values.collect() }
        },
    )
}

fn images() -> impl Strategy<Value = Vec<Image>> {
    (1..5_usize).prop_flat_map(|count| (0..count).map(image).collect::<Vec<_>>())
}

fn compiled(declarations: &Declarations, images: &[Image]) -> Result<Plan, PlanError> {
    let goals: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
    compile(declarations, images, &goals, &Fake::default())
}

/// An image that uses no other's output.
fn alone(image: &Image) -> bool {
    image.values.iter().all(|(name, sourced)| {
        *name == "OutputDirectory" || sourced.value.paths().iter().all(|path| !path.starts_with("/out"))
    })
}

/// A store that has nothing.
struct Nothing;

impl Lookup for Nothing {
    fn record(&self, _: &Digest) -> Option<Record> {
        None
    }
    fn last(&self, _: &Slot) -> Option<Record> {
        None
    }
    fn unpublished(&self, _: &Plan, _: NodeId, _: &BTreeMap<String, Artifact>) -> Option<String> {
        None
    }
    fn forced(&self, _: &Plan, _: NodeId) -> Option<String> {
        None
    }
}

/// The whole graph in words, without the nodes' numbers.
fn words(plan: &Plan) -> Vec<String> {
    let stages = plan.nodes.iter().flat_map(|(image, stages)| stages.iter().map(move |(stage, id)| (image, stage, id)));
    stages
        .map(|(image, stage, id)| {
            let node = &plan.graph[*id];
            format!("{image}/{stage} {:?} {:?} {:?} {:?}", node.skipped, node.inputs, node.sources, node.images)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also what makes no sense is answered, and not with a panic.
    #[test]
    fn declarations_of_any_kind_are_answered(stages in stages(), images in images()) {
        if let Ok(declarations) = Declarations::parse(&[("x.toml", &write(&stages, false))], SETTINGS) {
            let _ = compiled(&declarations, &images);
        }
    }

    #[test]
    fn text_of_any_kind_is_answered(text in "(\\[stage\\.[a-c]\\]\n|(tree|needs|when|about|version) = (\"[a-c.]{0,4}\"|[0-9]|\\[\"[a-c|!=. if]{0,9}\"\\])\n){0,12}") {
        let _ = Declarations::parse(&[("x.toml", &text)], SETTINGS);
    }

    #[test]
    fn graphs_hold_what_they_promise(stages in stages(), images in images()) {
        let declarations = Declarations::parse(&[("x.toml", &write(&stages, true))], SETTINGS).unwrap();
        let plan = match compiled(&declarations, &images) {
            Ok(plan) => plan,
            Err(PlanError::ImageCycle { images: ring }) => {
                prop_assert!(ring.len() >= 3 && ring.first() == ring.last(), "{ring:?}");
                return Ok(());
            }
            Err(PlanError::NoOutput { other, .. }) => {
                prop_assert!(images.iter().any(|image| image.name == other));
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        // Every stage of every image has a node, and each node comes after what it needs, all of which are not skipped.
        for image in &images {
            prop_assert_eq!(plan.nodes[&image.name].len(), stages.len());
        }
        for edge in plan.graph.edge_indices() {
            let (need, node) = plan.graph.edge_endpoints(edge).unwrap();
            prop_assert!(need < node);
            prop_assert!(plan.graph[need].skipped.is_none() && plan.graph[node].skipped.is_none());
            prop_assert!(plan.graph[need].decl.all_outputs().contains(&plan.graph[edge].output.as_str()));
        }
        let wanted = plan.wanted();
        for (at, id) in wanted.iter().enumerate() {
            for (need, _) in plan.needs(*id) {
                prop_assert!(wanted[..at].contains(&need));
            }
        }
        // The same again, and the same keys in any order of the images.
        let again = compiled(&declarations, &images).unwrap();
        prop_assert_eq!(words(&plan), words(&again));
        let mut reversed = images.clone();
        reversed.reverse();
        let reversed = compiled(&declarations, &reversed).unwrap();
        let by_stage = keys_by_stage(&plan);
        prop_assert_eq!(&by_stage, &keys_by_stage(&reversed));
        // What an image shares with others is what it would have had on its own.
        for image in images.iter().filter(|image| alone(image)) {
            let own = compiled(&declarations, std::slice::from_ref(image)).unwrap();
            for (place, key) in keys_by_stage(&own) {
                prop_assert_eq!(by_stage[&place], key, "{:?}", place);
                prop_assert_eq!(edges(&own, &place.0, &place.1).len(), edges(&plan, &place.0, &place.1).len());
            }
        }
        // Equal nodes are one, but for those that publish and those whose unkeyed needs differ.
        let publishes = |id: &NodeId| plan.graph[*id].decl.publishes;
        let plain = !stages.iter().any(|(_, stage)| stage.unkeyed);
        let nodes: Vec<(NodeId, Digest)> = keys(&plan).into_iter().filter(|(id, _)| !publishes(id)).collect();
        let distinct: BTreeSet<Digest> = nodes.iter().map(|(_, key)| *key).collect();
        let needs_published = plan.graph.edge_indices().any(|e| publishes(&plan.graph.edge_endpoints(e).unwrap().0));
        prop_assert!(!plain || needs_published || distinct.len() == nodes.len(), "two nodes have one key");
        // It can be shown.
        let all: Vec<NodeId> = plan.graph.node_indices().collect();
        let previews = preview(&plan, &all, &Nothing);
        for format in [Format::Text, Format::Full, Format::Json, Format::Dot, Format::Mermaid] {
            prop_assert!(!render(&plan, &previews, format, Some(7)).is_empty());
        }
    }
}
