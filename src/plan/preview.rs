//! What a run would do, without running anything: the state of each node and the reasons.

use std::collections::{BTreeMap, HashMap};

use super::inputs::TOOLS;
use super::{NodeId, Plan, Reason, explain, explain_read, in_detail, key_of, node_inputs, pre_key_of};
use crate::programs::Parts;
use crate::store::{Artifact, Record, Slot};
use crate::types::Digest;

/// The state of a node before a run.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its key is known and its result is in the store.
    Cached(Record),
    /// It writes to the output directory, and what lies there is right.
    Current,
    /// It runs.
    Run(Vec<Reason>),
    /// A node that it needs runs; it runs too unless that one gives the same result as before.
    MayRun(Vec<Reason>),
    /// It is no part of the image; why.
    Skipped(String),
}

/// The state of a node with its key, where that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The node.
    pub id: NodeId,
    /// Its key; unknown while a node that it needs has to run.
    pub key: Option<Digest>,
    /// Its state.
    pub state: State,
    /// Its last record, for durations and sizes.
    pub last: Option<Record>,
}

/// What a preview asks of the store and of the output directory.
pub trait Lookup {
    /// The record of an action whose outputs are all there.
    fn record(&self, key: &Digest) -> Option<Record>;
    /// The last record of a place in a project, whether or not its outputs are still there.
    fn last(&self, slot: &Slot) -> Option<Record>;
    /// The record of a node whose earlier runs read what its traced sources hold now. `inputs` are all others.
    fn read(&self, _: &Plan, _: NodeId, _inputs: &BTreeMap<String, Digest>) -> Option<Record> {
        None
    }
    /// The parts of a program that an earlier run had, by its digest.
    fn program(&self, _: &Digest) -> Option<Parts> {
        None
    }
    /// What differs of what a run read of a node's traced sources.
    fn read_changes(&self, _: &Plan, _: NodeId, _last: &Record) -> Vec<Reason> {
        Vec::new()
    }
    /// The digest of the part of a tree that lies at these paths; nothing where its layers can't be read.
    fn part(&self, _tree: &Artifact, _paths: &[String]) -> Option<Digest> {
        None
    }
    /// Why a publishing node has to run, `None` if what lies in the output directory is right.
    fn unpublished(&self, plan: &Plan, id: NodeId, needs: &BTreeMap<String, Artifact>) -> Option<String>;
    /// Why a node runs whatever the store has, in words.
    fn forced(&self, plan: &Plan, id: NodeId) -> Option<String>;
}

/// The states of `nodes`, which must come in an order of need.
pub fn preview(plan: &Plan, nodes: &[NodeId], lookup: &dyn Lookup) -> Vec<Preview> {
    let mut outputs: HashMap<NodeId, BTreeMap<String, Artifact>> = HashMap::new();
    let mut states = Vec::with_capacity(nodes.len());
    for &id in nodes {
        let node = &plan.graph[id];
        if let Some(why) = &node.skipped {
            states.push(Preview { id, key: None, state: State::Skipped(why.clone()), last: None });
            continue;
        }
        let mut needs = BTreeMap::new();
        let mut runs: Vec<Reason> = Vec::new();
        for (need, edge) in plan.needs(id) {
            match outputs.get(&need).and_then(|outputs| outputs.get(&edge.output)) {
                Some(artifact) => {
                    needs.insert(edge.input.clone(), artifact.clone());
                }
                None => {
                    let reason = match edge.input.rsplit('/').next() {
                        Some(TOOLS) => Reason::Tools,
                        _ => Reason::Needs { stage: plan.graph[need].stage.clone() },
                    };
                    if !runs.contains(&reason) {
                        runs.push(reason);
                    }
                }
            }
        }
        let forced = lookup.forced(plan, id).map(Reason::Asked);
        if node.decl.publishes {
            let state = match (runs.is_empty(), forced) {
                (false, _) => State::MayRun(runs),
                (true, Some(reason)) => State::Run(vec![reason]),
                (true, None) => match lookup.unpublished(plan, id, &needs) {
                    Some(why) => State::Run(vec![Reason::Output(why)]),
                    None => State::Current,
                },
            };
            states.push(Preview { id, key: None, state, last: None });
            continue;
        }
        let last = lookup.last(&node.slot());
        let detailed = |state| match state {
            State::Run(why) => State::Run(in_detail(why, node, last.as_ref(), &|digest| lookup.program(digest))),
            other => other,
        };
        let known = node_inputs(node, &needs, &|tree, paths| lookup.part(tree, paths));
        if !node.traced.is_empty() {
            let hit = runs.is_empty().then(|| lookup.read(plan, id, &known)).flatten();
            let key = hit.as_ref().map(|record| record.key);
            let changes = || last.as_ref().map(|last| lookup.read_changes(plan, id, last)).unwrap_or_default();
            let state = match (forced, hit) {
                (Some(reason), _) => State::Run(vec![reason]),
                (None, Some(record)) => State::Cached(record),
                (None, None) if runs.is_empty() => {
                    State::Run(explain_read(&pre_key_of(node, &known), &known, changes(), last.as_ref()))
                }
                (None, None) => known_changes(&known, last.as_ref(), changes(), runs),
            };
            if let State::Cached(record) = &state {
                outputs.insert(id, record.outputs.clone());
            }
            states.push(Preview { id, key, state: detailed(state), last });
            continue;
        }
        let key = runs.is_empty().then(|| key_of(&node.stage, &node.decl, &known));
        let state = match (key, forced) {
            (_, Some(reason)) => State::Run(vec![reason]),
            (Some(key), None) => match lookup.record(&key) {
                Some(record) => State::Cached(record),
                None => State::Run(explain(&key, &known, last.as_ref())),
            },
            (None, None) => known_changes(&known, last.as_ref(), Vec::new(), runs),
        };
        if let State::Cached(record) = &state {
            outputs.insert(id, record.outputs.clone());
        }
        states.push(Preview { id, key, state: detailed(state), last });
    }
    states
}

/// The state of a node some of whose needs run: it runs for sure if an input that is known has changed.
fn known_changes(
    known: &BTreeMap<String, Digest>,
    last: Option<&Record>,
    changes: Vec<Reason>,
    runs: Vec<Reason>,
) -> State {
    let Some(last) = last else {
        return State::Run(vec![Reason::Never]);
    };
    let mut reasons = changes;
    for (name, digest) in known {
        match last.inputs.get(name) {
            Some(old) if old == digest => {}
            Some(_) => reasons.push(Reason::Input { name: name.clone(), change: super::explain::Change::Changed }),
            None => reasons.push(Reason::Input { name: name.clone(), change: super::explain::Change::Added }),
        }
    }
    if reasons.is_empty() {
        State::MayRun(runs)
    } else {
        reasons.extend(runs);
        State::Run(reasons)
    }
}
