//! Which nodes run when: each as soon as what it needs is there and its pool has room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::{self, Sender};
use std::thread::Scope;

use super::node::{Done, Job, Made};
use super::{Event, ExecError, Force, Observer, Outcome, Shared};
use crate::plan::{NodeId, Plan, Pool};
use crate::sandbox::Cancel;
use crate::stage::{Outputs, StageError};
use crate::store::{Artifact, Hasher, Store};

/// How a run goes about it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What is ignored of the store.
    pub force: Force,
    /// Whether stored results are hashed again before they are used.
    pub verify_cache: bool,
    /// How many nodes of the processor's pool run at once; 0 for one per processor.
    pub jobs: usize,
    /// Whether the user gets a shell in the sandbox of a script that fails.
    pub debug_shell: bool,
    /// Whether the log says what each sandbox consists of.
    pub debug_sandbox: bool,
    /// Whether the working files of a stage that fails are kept.
    pub debug_workspace: bool,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Nodes that ran.
    pub ran: Vec<NodeId>,
    /// Nodes whose result was there.
    pub cached: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Waits for what it needs.
    Waiting,
    /// Runs.
    Running,
    /// Runs, and has to be looked at again afterwards: something it needs has run again meanwhile.
    Again,
    /// Is up to date.
    Done,
}

type Message = (NodeId, Result<Done, ExecError>);

struct Run<'a> {
    plan: &'a Plan,
    store: &'a Store,
    hasher: &'a Hasher,
    options: &'a Options,
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
    wanted: BTreeSet<NodeId>,
    progress: BTreeMap<NodeId, Progress>,
    outputs: HashMap<NodeId, Outputs>,
    running: BTreeMap<Pool, usize>,
    /// Stages that have run again because their result was stale: once each in a run.
    again: BTreeSet<NodeId>,
    forced: HashMap<NodeId, String>,
    shared: &'a Shared,
    /// For a node that runs again because its result was stale: what this run made counts no more than the rest.
    nothing_made: &'a Made,
    summary: Summary,
    failure: Option<ExecError>,
}

/// Runs what the plan's goals need.
///
/// # Errors
/// The first node that failed. Nodes that ran at that moment are finished and kept; no others are started.
pub fn execute(
    plan: &Plan,
    store: &Store,
    options: &Options,
    observer: &dyn Observer,
    cancel: &Cancel,
    shared: &Shared,
) -> Result<Summary, ExecError> {
    execute_nodes(plan, plan.wanted(), store, options, observer, cancel, shared)
}

/// Runs these nodes, among which is all that they need.
pub(super) fn execute_nodes(
    plan: &Plan,
    wanted: impl IntoIterator<Item = NodeId>,
    store: &Store,
    options: &Options,
    observer: &dyn Observer,
    cancel: &Cancel,
    shared: &Shared,
) -> Result<Summary, ExecError> {
    let wanted: BTreeSet<NodeId> = wanted.into_iter().filter(|id| plan.graph[*id].skipped.is_none()).collect();
    observer.event(Event::Begin { nodes: wanted.len() });
    let forced = wanted.iter().filter_map(|id| options.force.reason(&plan.graph[*id]).map(|why| (*id, why))).collect();
    let (nothing_made, hasher) = (Made::default(), Hasher::new(store));
    let mut run = Run {
        shared,
        nothing_made: &nothing_made,
        plan,
        store,
        hasher: &hasher,
        options,
        observer,
        cancel,
        progress: wanted.iter().map(|id| (*id, Progress::Waiting)).collect(),
        wanted,
        outputs: HashMap::new(),
        running: BTreeMap::new(),
        again: BTreeSet::new(),
        forced,
        summary: Summary::default(),
        failure: None,
    };
    std::thread::scope(|scope| run.run_all(scope));
    match run.failure {
        Some(error) => Err(error),
        None if cancel.is_cancelled() => Err(ExecError::Cancelled),
        None => Ok(run.summary),
    }
}

/// Runs a node's code. Whoever waits for it would wait forever if a panic ended its thread.
fn caught<T>(node: &str, code: impl FnOnce() -> Result<T, ExecError>) -> Result<T, ExecError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned();
        Err(ExecError::Broken { node: node.to_owned(), what })
    })
}

impl<'a> Run<'a> {
    fn run_all<'scope>(&mut self, scope: &'scope Scope<'scope, '_>)
    where
        'a: 'scope,
    {
        let (sender, receiver) = mpsc::channel();
        loop {
            self.start_ready(scope, &sender);
            if self.running.values().sum::<usize>() == 0 {
                return;
            }
            // The sender lives in this function, so an error can't come before every message has.
            let Ok((id, result)) = receiver.recv() else { return };
            *self.running.entry(self.plan.graph[id].decl.pool).or_default() -= 1;
            self.finish(id, result);
        }
    }

    /// Starts every node that can start; those whose result is there are done at once, and may make others ready.
    fn start_ready<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, sender: &Sender<Message>)
    where
        'a: 'scope,
    {
        loop {
            let mut advanced = false;
            for id in self.wanted.clone() {
                if self.failure.is_some() || self.cancel.is_cancelled() {
                    return;
                }
                if self.progress[&id] != Progress::Waiting {
                    continue;
                }
                let Some(needs) = self.needs(id) else { continue };
                let node = &self.plan.graph[id];
                let job = Job {
                    store: self.store,
                    hasher: self.hasher,
                    options: self.options,
                    observer: self.observer,
                    cancel: self.cancel,
                    id,
                    node,
                    needs,
                    forced: self.forced.get(&id).cloned(),
                    shared: self.shared,
                    made: if self.again.contains(&id) { self.nothing_made } else { &self.shared.made },
                };
                if let Some(done) = job.cached() {
                    self.done(id, done);
                    advanced = true;
                    continue;
                }
                let running = self.running.entry(node.decl.pool).or_default();
                if *running >= room(node.decl.pool, self.options.jobs) {
                    continue;
                }
                *running += 1;
                self.progress.insert(id, Progress::Running);
                let sender = sender.clone();
                scope.spawn(move || {
                    // The receiver outlives every node, so there is always someone to tell.
                    let _ = sender.send((id, caught(&node.name(), || job.run())));
                });
            }
            if !advanced {
                return;
            }
        }
    }

    /// What a node needs, if all of it is there.
    fn needs(&self, id: NodeId) -> Option<BTreeMap<String, Artifact>> {
        let mut needs = BTreeMap::new();
        for (need, edge) in self.plan.needs(id) {
            if self.progress.get(&need) != Some(&Progress::Done) {
                return None;
            }
            if let Some(artifact) = self.outputs.get(&need).and_then(|outputs| outputs.get(&edge.output)) {
                needs.insert(edge.input.clone(), artifact.clone());
            }
        }
        Some(needs)
    }

    fn finish(&mut self, id: NodeId, result: Result<Done, ExecError>) {
        if self.progress.get(&id) == Some(&Progress::Again) {
            self.progress.insert(id, Progress::Waiting);
            return;
        }
        match result {
            Ok(done) => self.done(id, done),
            Err(error) if stale(&error).is_some_and(|(stage, why)| self.run_again(id, stage, why)) => {}
            Err(error) => {
                let stopped = matches!(error, ExecError::Cancelled);
                let outcome = if stopped { Outcome::Stopped } else { Outcome::Failed };
                self.observer.event(Event::Finished { id, outcome });
                // The first failure is the cause; what follows it are its effects.
                self.failure.get_or_insert(error);
            }
        }
    }

    fn done(&mut self, id: NodeId, done: Done) {
        match done.outcome {
            Outcome::Ran { .. } => self.summary.ran.push(id),
            _ => self.summary.cached += 1,
        }
        self.progress.insert(id, Progress::Done);
        // What was forced has happened; a second look uses the result.
        self.forced.remove(&id);
        self.outputs.insert(id, done.outputs);
        self.observer.event(Event::Finished { id, outcome: done.outcome });
    }

    /// Runs an ancestor's stage again, and what depends on it; false if that was tried before.
    fn run_again(&mut self, id: NodeId, stage: &str, why: &str) -> bool {
        let mut ancestors = BTreeSet::new();
        let mut queue = vec![id];
        while let Some(next) = queue.pop() {
            for (need, _) in self.plan.needs(next) {
                if ancestors.insert(need) {
                    queue.push(need);
                }
            }
        }
        let Some(source) = ancestors.into_iter().find(|need| self.plan.graph[*need].stage == stage) else {
            return false;
        };
        if !self.again.insert(source) {
            return false;
        }
        self.observer.event(Event::Note { id, text: why });
        self.forced.insert(source, why.to_owned());
        let mut queue = vec![source];
        let mut seen = BTreeSet::new();
        while let Some(next) = queue.pop() {
            if !self.wanted.contains(&next) || !seen.insert(next) {
                continue;
            }
            match self.progress.get(&next) {
                Some(Progress::Running) if next != id => self.progress.insert(next, Progress::Again),
                _ => self.progress.insert(next, Progress::Waiting),
            };
            queue.extend(self.plan.dependents(next));
        }
        true
    }
}

/// The stage whose result a failure found to be no longer true, and why.
fn stale(error: &ExecError) -> Option<(&'static str, &str)> {
    match error {
        ExecError::Node { error, .. } => match error.as_ref() {
            StageError::Stale { stage, why } => Some((*stage, why)),
            _ => None,
        },
        _ => None,
    }
}

/// How many nodes of a pool run at once.
fn room(pool: Pool, jobs: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if jobs == 0 { processors } else { jobs };
    match pool {
        Pool::Cpu => jobs,
        // Unpacking keeps a processor busy too, and gains from a neighbour while it waits for the disk.
        Pool::Disk => jobs,
        Pool::Network => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_node() {
        let error = caught("main/base", || -> Result<(), _> { panic!("no {}", "way") }).unwrap_err();
        assert!(error.to_string().starts_with("main/base: mkosi itself failed: no way\n"), "{error}");
    }
}
