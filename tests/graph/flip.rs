//! Every setting, file, tool and host file is changed on its own, and just the stages that declare it notice.
//!
//! What is expected is read from the declarations' texts; what happens is read from the compiled graph.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mkosi::config::table::{Item, Kind, SETTINGS, Setting};
use mkosi::config::{Image, Value};
use mkosi::plan::{Declarations, Plan, Programs, StageDecl, ToolsTree, compile};
use mkosi::types::Digest;
use rayon::prelude::*;

use super::support::{
    Fake, OTHER_FORMATS, Project, declarations, edges, keys_by_stage, rich, rich_of, tools_image, with,
};

/// A path that nothing else names.
const ELSEWHERE: &str = "/elsewhere/flip";

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn path() -> Value {
    Value::Path(PathBuf::from(ELSEWHERE))
}

/// An item that a list of this kind does not hold yet.
fn new_item(item: Item) -> Value {
    match item {
        Item::Path(_) => path(),
        Item::Tree { .. } => map(&[("source", path()), ("target", Value::text("/flip"))]),
        Item::Drive => map(&[("id", Value::text("flip")), ("size", Value::Number(4096))]),
        Item::UkiProfile => map(&[("profile", map(&[("ID", Value::text("flip"))]))]),
        Item::Choice(choices) => Value::text(choices.names[choices.names.len() - 1]),
        Item::Word | Item::Text | Item::Name | Item::Regex => Value::text("flip"),
    }
}

/// Other values that a setting could have.
fn others(setting: &Setting, value: &Value) -> Vec<Value> {
    let texts = |texts: &[&'static str]| texts.iter().copied().map(Value::text).collect::<Vec<_>>();
    let longer = |item: Value| {
        let mut items = value.items().to_vec();
        items.push(item);
        vec![Value::List(items), Value::List(Vec::new())]
    };
    let mut values = match setting.kind {
        Kind::Bool => vec![Value::Bool(true), Value::Bool(false)],
        Kind::Feature => texts(&["auto", "enabled", "disabled"]),
        Kind::Text | Kind::Name | Kind::MinimumVersion => texts(&["flip"]),
        Kind::Uuid => texts(&["random", "0e8f2a2c-1b5d-4a5b-9a51-0d6a3c8a4b10"]),
        Kind::Number { .. } | Kind::Mode | Kind::Bytes | Kind::VsockCid => vec![Value::Number(0o640)],
        Kind::SectorSize => vec![Value::Number(512), Value::Number(4096)],
        Kind::Enum(choices) => texts(choices.names),
        Kind::Path(_) | Kind::KeyFile => vec![path(), Value::None],
        Kind::Source(choices) => {
            let pairs =
                choices.names.iter().map(|name| map(&[("type", Value::text(*name)), ("source", Value::text(""))]));
            pairs.collect()
        }
        Kind::Password => vec![map(&[("password", Value::text("flip")), ("hashed", Value::Bool(false))])],
        Kind::List { item, .. } => longer(new_item(item)),
        Kind::Packages => longer(Value::text("flip")),
        Kind::Scripts => longer(path()),
        Kind::Artifacts(choices) => longer(Value::text(choices.names[choices.names.len() - 1])),
        Kind::Dict { .. } => vec![map(&[("FLIP", Value::text("1"))]), map(&[])],
        Kind::Credentials => longer(map(&[("name", Value::text("flip")), ("value", Value::text("1"))])),
    };
    values.retain(|other| other != value);
    values
}

/// A value as keys see it: of a path, that there is one.
fn without_paths(value: &Value) -> Value {
    match value {
        Value::Path(_) => Value::Path(PathBuf::from("/")),
        Value::List(items) => Value::List(items.iter().map(without_paths).collect()),
        Value::Map(fields) => Value::Map(fields.iter().map(|(name, v)| (name.clone(), without_paths(v))).collect()),
        other => other.clone(),
    }
}

/// Whether the words of a condition name a setting.
fn names(condition: &str, setting: &str) -> bool {
    condition.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == setting)
}

type Inputs = BTreeMap<String, Option<BTreeMap<String, Digest>>>;

/// The own inputs of every stage; nothing for a skipped one.
fn inputs(plan: &Plan) -> Inputs {
    let stages = &plan.nodes["main"];
    let own = |id: mkosi::plan::NodeId| {
        Some(&plan.graph[id]).filter(|node| node.skipped.is_none()).map(|node| node.inputs.clone())
    };
    stages.iter().map(|(stage, id)| (stage.clone(), own(*id))).collect()
}

struct Case {
    project: Project,
    declarations: Declarations,
    image: Image,
    plan: Plan,
}

impl Case {
    fn new() -> Self {
        Self::of(rich())
    }

    /// One of each kind of format.
    fn kinds() -> [Self; 6] {
        ["tar", "cpio", "disk", "esp", "oci", "sysext"].map(|format| Self::of(rich_of(format)))
    }

    /// The settings that a stage names which only images of other formats than the archive's have.
    fn own_settings(&self) -> BTreeSet<&str> {
        let has = |stage: &str| self.plan.graph[self.plan.nodes["main"][stage]].skipped.is_none();
        let own = self.declarations.iter().filter(|(stage, _)| OTHER_FORMATS.contains(stage) && has(stage));
        own.flat_map(|(_, decl)| {
            let conditions = decl.parsed.when.iter().chain(&decl.parsed.tests);
            decl.visible().chain(conditions.flat_map(mkosi::plan::Condition::settings))
        })
        .collect()
    }

    fn of(project: Project) -> Self {
        let image = project.image();
        let plan = project.compile(std::slice::from_ref(&image));
        Self { declarations: declarations(), plan, image, project }
    }

    /// The stages whose own inputs a change of a setting must change, as the declarations say.
    fn expected(&self, setting: &str, other: &Image) -> BTreeSet<String> {
        let (old, new) = (self.image.get(setting), other.get(setting));
        let seen = without_paths(old) != without_paths(new);
        let moved = old.paths() != new.paths();
        let active = |stage: &str, image: &Image| {
            self.declarations.get(stage).unwrap().parsed.when.iter().all(|condition| condition.holds(image))
        };
        let mut stages = BTreeSet::new();
        for (stage, decl) in self.declarations.iter() {
            // Only the default tools tree, an image of its own, is ever made with a first tree.
            if setting == "ToolsTreeBootstrap" {
                continue;
            }
            let (before, after) = (active(stage, &self.image), active(stage, other));
            let lists = |list: &[String]| list.iter().any(|name| name == setting);
            let tested = decl.parsed.tests.iter().any(|test| test.holds(&self.image) != test.holds(other));
            let traced = decl.traces(&self.image) != decl.traces(other);
            let noticed = traced || (lists(&decl.settings) && seen) || (lists(&decl.files) && moved) || tested;
            let programs = decl.programs() == Programs::Keyed
                && (ToolsTree::of(&self.image) != ToolsTree::of(other) || (setting == "ExtraSearchPaths" && moved));
            if before != after || (before && (noticed || programs)) {
                stages.insert(stage.to_owned());
            }
            let conditions = decl.when.iter().chain(&decl.tests).chain(&decl.sandbox.traced);
            let mentioned = conditions.into_iter().any(|condition| names(condition, setting));
            assert!(
                mentioned || (before == after && !tested && !traced),
                "{stage} follows {setting} and does not say so"
            );
        }
        stages
    }

    /// Checks one change: `own` stages have other inputs of their own, and all that stand above them other keys.
    fn check(&self, what: &str, own: &BTreeSet<String>, edges_may_change: bool, plan: &Plan) {
        let (before, after) = (inputs(&self.plan), inputs(plan));
        let changed = |stage: &&String| before[*stage] != after[*stage];
        let noticed: BTreeSet<String> = before.keys().filter(changed).cloned().collect();
        assert_eq!(&noticed, own, "{what}: stages whose own inputs changed, against those that declare it");

        let mut affected = own.clone();
        for stage in before.keys() {
            if edges(&self.plan, "main", stage) != edges(plan, "main", stage) {
                assert!(edges_may_change, "{what} changes what {stage} needs");
                affected.insert(stage.clone());
            }
        }
        // The indices are in an order of need, so one pass carries every change up.
        for id in plan.graph.node_indices() {
            let keyed = |input: &str| !input.starts_with("unkeyed/");
            let needs = plan.needs(id).into_iter().filter(|(_, edge)| keyed(&edge.input));
            if needs.map(|(need, _)| &plan.graph[need].stage).any(|stage| affected.contains(stage)) {
                affected.insert(plan.graph[id].stage.clone());
            }
        }
        let (old, new) = (keys_by_stage(&self.plan), keys_by_stage(plan));
        let stages = before.keys().filter(|stage| {
            let place = ("main".to_owned(), (*stage).clone());
            old.get(&place) != new.get(&place)
        });
        assert_eq!(stages.cloned().collect::<BTreeSet<_>>(), affected, "{what}: stages whose keys changed");
    }
}

#[test]
fn the_rich_image_has_every_stage_of_its_format() {
    let skipped: Vec<String> =
        inputs(&Case::new().plan).into_iter().filter(|(_, inputs)| inputs.is_none()).map(|(stage, _)| stage).collect();
    assert_eq!(skipped, OTHER_FORMATS);
}

#[test]
fn each_setting_changes_just_the_stages_that_declare_it() {
    let flips: usize = Case::kinds()
        .iter()
        .enumerate()
        .map(|(index, case)| {
            let own = case.own_settings();
            assert!(index == 0 || own.len() > 1, "{own:?}");
            each_setting(case, |setting| index == 0 || own.contains(setting))
        })
        .sum();
    assert!(flips > 500, "{flips}");
}

fn each_setting(case: &Case, wanted: impl Fn(&str) -> bool) -> usize {
    let settings: Vec<&Setting> =
        SETTINGS.iter().copied().filter(|setting| setting.stores == setting.name && wanted(setting.name)).collect();
    settings
        .par_iter()
        .map(|setting| {
            let old = case.image.get(setting.name);
            let values = others(setting, old);
            assert!(!values.is_empty(), "{} has one value only", setting.name);
            let conditional = case.declarations.iter().any(|(_, decl)| {
                let needs = decl.needs.iter().chain(&decl.tree).chain(&decl.unkeyed_needs);
                decl.when.iter().chain(needs).any(|text| names(text, setting.name))
            });
            for value in &values {
                let image = with(&case.image, setting.name, value.clone());
                let what = format!("{}={value:?} instead of {old:?}", setting.name);
                let tools = (ToolsTree::of(&image) == ToolsTree::Default).then(tools_image);
                let edges = conditional || tools.is_some();
                let plan = case.project.compile(&[image.clone()].into_iter().chain(tools).collect::<Vec<_>>());
                case.check(&what, &case.expected(setting.name, &image), edges, &plan);
            }
            values.len()
        })
        .sum()
}

#[test]
fn a_setting_that_no_stage_declares_changes_no_key() {
    let case = Case::new();
    let claimed = case.declarations.claimed_settings();
    let keys = keys_by_stage(&case.plan);
    let free = SETTINGS.iter().filter(|setting| setting.stores == setting.name && !claimed.contains(setting.name));
    let mut count = 0;
    for setting in free {
        for value in others(setting, case.image.get(setting.name)) {
            let image = with(&case.image, setting.name, value);
            assert_eq!(keys_by_stage(&case.project.compile(&[image])), keys, "{}", setting.name);
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

/// The plan after something on the host has changed.
fn after(case: &Case, changed: &str, missing: bool) -> Plan {
    let mut digests: Fake = case.project.digests();
    let set = if missing { &mut digests.missing } else { &mut digests.changed };
    set.insert(changed.to_owned());
    compile(&case.declarations, std::slice::from_ref(&case.image), &["main".to_owned()], &digests).unwrap()
}

/// The stages of the rich image for which `test` holds.
fn stages_with(case: &Case, test: impl Fn(&mkosi::plan::StageDecl) -> bool) -> BTreeSet<String> {
    let inputs = inputs(&case.plan);
    let stages = case.declarations.iter().filter(|(stage, decl)| inputs[*stage].is_some() && test(decl));
    stages.map(|(stage, _)| stage.to_owned()).collect()
}

#[test]
fn each_file_changes_just_the_stages_that_declare_its_setting() {
    for case in Case::kinds() {
        each_file(&case);
    }
}

fn each_file(case: &Case) {
    let settings: BTreeSet<&String> = case.declarations.iter().flat_map(|(_, decl)| &decl.files).collect();
    for setting in &settings {
        let paths = case.image.get(setting).paths();
        assert!(!paths.is_empty(), "the rich image has no `{setting}=`");
        for path in paths {
            // What is read of these is known when the stage runs.
            let traced = |decl: &StageDecl| *setting == "BuildSources" && decl.traces(&case.image);
            let own = stages_with(case, |decl| decl.files.contains(setting) && !traced(decl));
            let name = path.strip_prefix(case.project.root()).unwrap().to_str().unwrap();
            case.check(name, &own, false, &after(case, name, false));
        }
    }
    assert!(settings.len() >= 8, "{settings:?}");
}

#[test]
fn each_tool_changes_just_the_stages_that_run_it() {
    for case in Case::kinds() {
        each_tool(&case);
    }
}

fn each_tool(case: &Case) {
    let tools: BTreeSet<&str> = case.declarations.iter().flat_map(|(_, decl)| decl.named_tools()).collect();
    for tool in &tools {
        let own = stages_with(case, |decl| decl.named_tools().any(|name| name == *tool));
        for missing in [false, true] {
            case.check(tool, &own, false, &after(case, tool, missing));
        }
    }
    assert!(tools.len() > 5, "{tools:?}");
}

#[test]
fn each_host_file_changes_just_the_stages_that_read_it() {
    let case = Case::new();
    let files: BTreeSet<&String> = case.declarations.iter().flat_map(|(_, decl)| &decl.host_files).collect();
    assert!(!files.is_empty());
    for file in files {
        let own = stages_with(&case, |decl| decl.host_files.contains(file));
        for missing in [false, true] {
            case.check(file, &own, false, &after(&case, file, missing));
        }
    }
}

/// Where the mirror has a package changes no package.
#[test]
fn unkeyed_needs_enter_no_key() {
    let case = Case::new();
    let node = &case.plan.graph[case.plan.nodes["main"]["download"]];
    let with = |input: &str, text: &[u8]| {
        let needs = [(input.to_owned(), super::support::output(&Digest::of(text), "x"))];
        mkosi::plan::node_inputs(node, &needs.into(), &|_, _| None)
    };
    let needs = edges(&case.plan, "main", "download");
    for (input, _, _) in &needs {
        let keyed = with(input, b"one") != with(input, b"two");
        assert_eq!(keyed, input.starts_with("need/resolve."), "{input}");
    }
    assert!(needs.iter().any(|(input, _, _)| input == "unkeyed/resolve.uris"), "{needs:?}");
}

/// A stage that sees a part of its tree has that part in its key, and nothing of the rest.
#[test]
fn a_part_of_a_tree_stands_for_it() {
    let case = Case::new();
    let inputs = |stage: &str, tree: &[u8], part: Option<&[u8]>| {
        let node = &case.plan.graph[case.plan.nodes["main"][stage]];
        let needs = [("tree".to_owned(), super::support::output(&Digest::of(tree), "x"))];
        mkosi::plan::node_inputs(node, &needs.into(), &|_, paths| {
            assert!(paths.contains(&"usr/lib/firmware".to_owned()), "{paths:?}");
            part.map(Digest::of)
        })
    };
    let with = |tree, part| inputs("microcode", tree, part);
    assert_eq!(with(b"one", Some(b"part")), with(b"two", Some(b"part")));
    assert_ne!(with(b"one", Some(b"part")), with(b"one", Some(b"other")));
    // Where it can't be told what the part is, all of the tree counts.
    assert_ne!(with(b"one", None), with(b"two", None));
    assert_ne!(inputs("remove", b"one", Some(b"part")), inputs("remove", b"two", Some(b"part")));
}

/// A new version of a stage's code changes its own key and those above it.
#[test]
fn a_stage_version_changes_its_key() {
    let case = Case::new();
    let mut plan = case.plan.clone();
    let id = plan.nodes["main"]["postinst"];
    let mut decl = (*plan.graph[id].decl).clone();
    decl.version += 1;
    plan.graph[id].decl = decl.into();
    let (old, new) = (keys_by_stage(&case.plan), keys_by_stage(&plan));
    let changed: Vec<&str> = old.keys().filter(|key| old[*key] != new[*key]).map(|(_, stage)| stage.as_str()).collect();
    assert!(changed.contains(&"postinst") && changed.contains(&"tar"), "{changed:?}");
    assert!(!changed.contains(&"extra") && !changed.contains(&"build"), "{changed:?}");
}
