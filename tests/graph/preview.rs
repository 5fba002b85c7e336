//! What a run would do, as a preview tells it, against a made-up store.

use std::collections::BTreeMap;

use mkosi::config::{Image, Value};
use mkosi::plan::{Format, Lookup, NodeId, Plan, Preview, State, key_of, node_inputs, pre_key_of, preview, render};
use mkosi::store::{Artifact, Read, Record, Slot};
use mkosi::types::Digest;

use super::support::{OTHER_FORMATS, Project, keys, outputs, rich, with};

/// A store that is a map, and an output directory that is a word.
#[derive(Default)]
struct Memory {
    records: BTreeMap<Digest, Record>,
    last: BTreeMap<Slot, Digest>,
    forgotten: Vec<Digest>,
    published: Option<BTreeMap<String, Artifact>>,
    forced: BTreeMap<String, String>,
}

impl Lookup for Memory {
    fn record(&self, key: &Digest) -> Option<Record> {
        self.records.get(key).filter(|_| !self.forgotten.contains(key)).cloned()
    }

    fn read(&self, plan: &Plan, id: NodeId, inputs: &BTreeMap<String, Digest>) -> Option<Record> {
        self.record(&key_of(&plan.graph[id].stage, &plan.graph[id].decl, inputs))
    }

    fn last(&self, slot: &Slot) -> Option<Record> {
        self.last.get(slot).and_then(|key| self.records.get(key)).cloned()
    }

    fn unpublished(&self, _: &Plan, _: NodeId, needs: &BTreeMap<String, Artifact>) -> Option<String> {
        match &self.published {
            None => Some("rich.tar.zst is not there".to_owned()),
            Some(published) if published != needs => Some("rich.tar.zst is another one".to_owned()),
            Some(_) => None,
        }
    }

    fn forced(&self, plan: &Plan, id: NodeId) -> Option<String> {
        self.forced.get(&plan.graph[id].stage).cloned()
    }
}

impl Memory {
    /// Runs everything that is not there yet. `same` names stages that give the outputs of their last run again.
    fn run(&mut self, plan: &Plan, same: &[&str]) {
        let mut made: BTreeMap<NodeId, BTreeMap<String, Artifact>> = BTreeMap::new();
        for id in plan.closure(plan.ahead()).into_iter().chain(plan.wanted()) {
            let node = &plan.graph[id];
            let needs: BTreeMap<String, Artifact> = plan
                .needs(id)
                .into_iter()
                .map(|(need, edge)| (edge.input.clone(), made[&need][&edge.output].clone()))
                .collect();
            if node.decl.publishes {
                self.published = Some(needs);
                continue;
            }
            let inputs = node_inputs(node, &needs, &|_, _| None);
            let key = key_of(&node.stage, &node.decl, &inputs);
            let pre = pre_key_of(node, &inputs);
            let record = self.record(&key).unwrap_or_else(|| Record {
                key,
                kind: node.stage.clone(),
                inputs,
                outputs: match self.last(&node.slot()) {
                    Some(last) if same.contains(&node.stage.as_str()) => last.outputs,
                    _ => outputs(plan, id, &key),
                },
                duration_ms: 1500,
                size: 4096,
                finished: 1,
                read: (!node.traced.is_empty()).then(|| Box::new(Read { pre, shape: pre, seen: pre })),
            });
            made.insert(id, record.outputs.clone());
            self.records.insert(key, record);
            self.last.insert(node.slot(), key);
        }
    }

    fn preview(&self, plan: &Plan) -> BTreeMap<String, Preview> {
        let nodes: Vec<NodeId> = plan.graph.node_indices().collect();
        let previews = preview(plan, &nodes, self);
        previews.into_iter().map(|preview| (plan.graph[preview.id].stage.clone(), preview)).collect()
    }

    /// `state: reasons` of each stage.
    fn words(&self, plan: &Plan) -> BTreeMap<String, String> {
        let reasons =
            |reasons: &[mkosi::plan::Reason]| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let words = |state: &State| match state {
            State::Cached(_) => "cached".to_owned(),
            State::Current => "current".to_owned(),
            State::Run(why) => format!("run: {}", reasons(why)),
            State::MayRun(why) => format!("may run: {}", reasons(why)),
            State::Skipped(why) => format!("skipped: {why}"),
        };
        self.preview(plan).into_iter().map(|(stage, preview)| (stage, words(&preview.state))).collect()
    }
}

struct Case {
    project: Project,
    image: Image,
    memory: Memory,
}

impl Case {
    /// The rich image after a build.
    fn built() -> Self {
        let project = rich();
        let image = project.image();
        let mut memory = Memory::default();
        memory.run(&project.compile(std::slice::from_ref(&image)), &[]);
        Self { project, image, memory }
    }

    fn plan(&self) -> Plan {
        self.project.compile(std::slice::from_ref(&self.image))
    }

    fn set(&mut self, setting: &'static str, value: &str) {
        self.image = with(&self.image, setting, Value::text(value));
    }
}

#[test]
fn before_the_first_run_everything_runs() {
    let project = rich();
    let words = Memory::default().words(&project.compile(&project.images()));
    assert_eq!(words["sync"], "run: never built");
    assert_eq!(words["tar"], "run: never built");
    assert_eq!(words["cpio"], "skipped: `Format=` is not cpio");
    assert!(
        words["publish"].starts_with("may run: needs `build`, which runs; needs `checksum`, which runs"),
        "{}",
        words["publish"]
    );
}

#[test]
fn after_a_run_nothing_runs() {
    let case = Case::built();
    let plan = case.plan();
    let expected = keys(&plan);
    let wanted = plan.wanted();
    for (stage, preview) in case.memory.preview(&plan) {
        match stage.as_str() {
            stage if OTHER_FORMATS.contains(&stage) => assert!(matches!(preview.state, State::Skipped(_))),
            "publish" => assert_eq!(preview.state, State::Current),
            _ if !wanted.contains(&preview.id) => {}
            _ => {
                assert!(matches!(preview.state, State::Cached(_)), "{stage}: {:?}", preview.state);
                assert_eq!(preview.key, Some(expected[&preview.id]), "{stage}");
                assert!(preview.last.is_some(), "{stage}");
            }
        }
    }
}

#[test]
fn a_changed_setting_runs_what_sees_it_and_may_run_what_stands_above() {
    let mut case = Case::built();
    case.set("Hostname", "other");
    let words = case.memory.words(&case.plan());
    assert_eq!(words["postinst"], "cached");
    assert_eq!(words["configure"], "run: `Hostname=` changed");
    assert_eq!(words["bootloader"], "may run: needs `configure`, which runs");
    assert_eq!(words["remove-packages"], "may run: needs `modules`, which runs");
    assert_eq!(words["modules"], "may run: needs `bootloader`, which runs");
    assert_eq!(words["finalize"], "may run: needs `remove`, which runs");
    assert_eq!(words["tar"], "may run: needs `kernel`, which runs");
}

/// A stage that gives the same as before ends the rebuild there.
#[test]
fn an_equal_result_ends_the_rebuild() {
    let mut case = Case::built();
    case.set("Hostname", "other");
    let plan = case.plan();
    case.memory.run(&plan, &["configure"]);
    let words = case.memory.words(&plan);
    assert_eq!(words["configure"], "cached");
    assert_eq!(words["tar"], "cached");
    assert_eq!(words["publish"], "current");
    let records = case.memory.records.len();
    let wanted = plan.ahead().len() + plan.wanted().len();
    assert_eq!(records, wanted, "one more than the first run made, less the one that publishes");
}

/// What waits for another stage but has a changed input of its own runs whatever that one gives.
#[test]
fn an_own_change_is_told_before_the_needs_are_known() {
    let mut case = Case::built();
    case.set("Hostname", "other");
    case.set("CompressOutput", "xz");
    let words = case.memory.words(&case.plan());
    assert_eq!(words["tar"], "run: `CompressOutput=` changed; needs `kernel`, which runs");
}

/// A result that is known and another one makes the node run, whatever comes of the needs that are not known.
#[test]
fn a_need_that_is_known_to_differ_makes_it_run() {
    let mut case = Case::built();
    let first = case.image.clone();
    // `build` has made something else since `finalize` last ran, and `configure` runs.
    case.set("BuildSourcesEphemeral", "yes");
    let plan = case.plan();
    let id = plan.nodes["main"]["finalize"];
    let before = case.memory.last[&plan.graph[id].slot()];
    case.memory.run(&plan, &[]);
    case.memory.last.insert(plan.graph[id].slot(), before);
    case.set("Hostname", "other");
    let words = case.memory.words(&case.plan());
    assert_eq!(words["build"], "cached");
    assert_eq!(
        words["finalize"],
        "run: `build`'s artifacts changed; `build`'s out changed; `build`'s packages changed; \
         `postinst`'s artifacts changed; `postinst`'s out changed; `postinst`'s packages changed; \
         needs `remove`, which runs"
    );
    case.image = first;
    assert_eq!(case.memory.words(&case.plan())["finalize"], "cached");
}

#[test]
fn a_result_that_is_gone_is_made_again() {
    let mut case = Case::built();
    let plan = case.plan();
    let key = keys(&plan)[&plan.nodes["main"]["extra"]];
    case.memory.forgotten.push(key);
    let words = case.memory.words(&plan);
    assert_eq!(words["extra"], "run: its result is no longer in the store");
    assert_eq!(words["postinst"], "may run: needs `extra`, which runs");
    assert_eq!(words["build"], "cached");
}

#[test]
fn what_is_asked_for_runs() {
    let mut case = Case::built();
    case.memory.forced.insert("sync".to_owned(), "--refresh was given".to_owned());
    let words = case.memory.words(&case.plan());
    assert_eq!(words["sync"], "run: --refresh was given");
    assert_eq!(words["resolve"], "may run: needs `sync`, which runs");
}

#[test]
fn what_was_touched_in_the_output_directory_is_published_again() {
    let mut case = Case::built();
    case.memory.published = None;
    let words = case.memory.words(&case.plan());
    assert_eq!(words["publish"], "run: rich.tar.zst is not there");
    assert_eq!(words["tar"], "cached");
}

#[test]
fn going_back_to_an_older_configuration_runs_nothing() {
    let mut case = Case::built();
    let first = case.image.clone();
    case.set("Hostname", "other");
    case.memory.run(&case.plan(), &[]);
    case.image = first;
    let words = case.memory.words(&case.plan());
    assert_eq!(words["configure"], "cached");
    assert_eq!(words["tar"], "cached");
    assert_eq!(words["publish"], "run: rich.tar.zst is another one");
}

#[test]
fn a_newer_stage_is_told_as_such() {
    let case = Case::built();
    let mut plan = case.plan();
    let id = plan.nodes["main"]["hwdb"];
    let mut decl = (*plan.graph[id].decl).clone();
    decl.version += 1;
    plan.graph[id].decl = decl.into();
    assert_eq!(case.memory.words(&plan)["hwdb"], "run: mkosi itself makes it another way now");
}

#[test]
fn states_are_printed_with_cost_and_reasons() {
    let mut case = Case::built();
    case.set("Hostname", "other");
    let plan = case.plan();
    let nodes: Vec<NodeId> = plan.graph.node_indices().collect();
    // The keys are the golden test's affair.
    let digits = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let masked = |width| {
        let text = render(&plan, &preview(&plan, &nodes, &case.memory), Format::Text, width);
        let lines = text.lines().map(|line| match line.split_whitespace().find(|word| digits(word)) {
            Some(key) => line.replace(key, "------------"),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(masked(None));
    insta::assert_snapshot!("folded_to_100_columns", masked(Some(100)));
    for width in [44, 64, 80, 100, 120] {
        assert!(masked(Some(width)).lines().all(|line| line.chars().count() <= width), "{}", masked(Some(width)));
    }
}
