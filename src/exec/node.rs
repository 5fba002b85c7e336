//! Brings one node up to date: its key, the record in the store, or the stage's code.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::given;
use super::log::Log;
use super::reads::{self, Inputs, Settled};
use super::{Event, ExecError, Observer, Options, Outcome, Shared};
use crate::config::{Origin, View};
use crate::plan::{self, Node, NodeId, Reason};
use crate::reads::Recording;
use crate::sandbox::Cancel;
use crate::stage::{self, Context, Outputs, StageError, Tools};
use crate::store::{Artifact, Hasher, Layer, MergedTree, Record, Slot, Store, WorkDir};
use crate::types::Digest;

/// How programs and the operating system say that a disk or a quota is full.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Everything that bringing a node up to date takes.
pub struct Job<'a> {
    /// The store.
    pub store: &'a Store,
    /// Digests of host files.
    pub hasher: &'a Hasher,
    /// The run's options.
    pub options: &'a Options,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// The wish to stop.
    pub cancel: &'a Cancel,
    /// The node's place.
    pub id: NodeId,
    /// The node.
    pub node: &'a Node,
    /// The artifacts that it needs, by the input's name.
    pub needs: BTreeMap<String, Artifact>,
    /// Why it runs whatever the store has.
    pub forced: Option<String>,
    /// What all nodes of the run have in common.
    pub shared: &'a Shared,
    /// The keys whose actions have run in this very run: their results are as good as forced ones.
    pub made: &'a Made,
}

/// The keys of actions that one run has run.
pub type Made = Mutex<HashSet<Digest>>;

/// A node brought up to date.
pub struct Done {
    /// Its outputs.
    pub outputs: Outputs,
    /// How.
    pub outcome: Outcome,
}

impl Job<'_> {
    /// The inputs that are known before the stage runs, and the digest that stands for them: the node's key, or with
    /// traced sources the key of all else.
    fn key(&self) -> (Digest, Inputs) {
        let part = |tree: &Artifact, paths: &[String]| {
            let part = self.store.part_digest(tree, paths);
            if part.is_none() {
                let text = "a layer of its tree can't be read, so all of the tree is in the key";
                self.observer.event(Event::Note { id: self.id, text });
            }
            part
        };
        let inputs = plan::node_inputs(self.node, &self.needs, &part);
        let key = match self.node.traced.is_empty() {
            true => plan::key_of(&self.node.stage, &self.node.decl, &inputs),
            false => plan::pre_key_of(self.node, &inputs),
        };
        (key, inputs)
    }

    /// The record that can stand for a run.
    fn found(&self) -> Option<Record> {
        let (key, inputs) = self.key();
        let mut usable = |key: &Digest| if self.ignores(key) { None } else { self.usable_record(key) };
        if self.node.traced.is_empty() {
            return usable(&key);
        }
        reads::find(self.store, self.hasher, self.node, &inputs, &mut usable)
    }

    pub(super) fn view(&self) -> View {
        self.node.decl.view(&self.node.stage, &self.node.image)
    }

    /// The outputs, if nothing has to run for them.
    pub fn cached(&self) -> Option<Done> {
        if self.node.decl.publishes {
            return match stage::publish::unpublished(self.store, &self.view(), &self.needs) {
                None => Some(Done { outputs: Outputs::new(), outcome: Outcome::Current }),
                Some(_) => None,
            };
        }
        let record = self.found()?;
        self.remember(&record.key);
        // Explanations only, as above: what failed here once does no longer.
        let _ = self.store.forget_failed(&self.node.slot());
        Some(Done { outputs: record.outputs, outcome: Outcome::Cached })
    }

    /// Whether the node runs although the store may have its result. Four images that come to the same base install it
    /// once with `--no-cache` too.
    fn ignores(&self, key: &Digest) -> bool {
        self.forced.is_some() && !made(self.made).contains(key)
    }

    fn usable_record(&self, key: &Digest) -> Option<Record> {
        let record = match self.store.record(key) {
            Ok(record) => record?,
            Err(error) => {
                let text = format!("the stored result can't be read and is made again: {error}");
                self.observer.event(Event::Note { id: self.id, text: &text });
                return None;
            }
        };
        if self.options.verify_cache {
            for artifact in record.outputs.values() {
                let text = match self.store.check_artifact(artifact) {
                    Ok(true) => continue,
                    Ok(false) => "the stored result is damaged and is made again".to_owned(),
                    Err(error) => format!("the stored result can't be read and is made again: {error}"),
                };
                self.observer.event(Event::Note { id: self.id, text: &text });
                return None;
            }
        }
        Some(record)
    }

    /// Notes which record this place in the project stands at, for the next explanation.
    fn remember(&self, key: &Digest) {
        let slot = self.node.slot();
        let known = self.store.last(&slot).ok().flatten().is_some_and(|last| last.key == *key);
        // Explanations only: a build does not fail over them.
        if !known && let Err(error) = self.store.set_last(&slot, key) {
            self.observer.event(Event::Note { id: self.id, text: &error.to_string() });
        }
    }

    /// Runs the stage, unless another process does so at this moment: then its result is taken.
    ///
    /// # Errors
    /// As the stage tells.
    pub fn run(self) -> Result<Done, ExecError> {
        let code = stage::find(&self.node.stage).ok_or_else(|| ExecError::NoCode(self.node.stage.clone()))?;
        let log_path = self.store.log_path(&self.node.slot());
        let mut log = Log::new(&log_path, self.id, self.observer);
        let result = self.locked(code, &mut log);
        result.map_err(|error| match self.with_place(error) {
            StageError::Cancelled => ExecError::Cancelled,
            error => ExecError::Node {
                node: self.node.name(),
                left: self.store.failed(&self.node.slot()).ok().flatten().is_some(),
                error: Box::new(if self.node.decl.publishes { error } else { self.with_cause(error, &log.tail) }),
                tail: std::mem::take(&mut log.tail).into(),
                log: log_path,
            },
        })
    }

    /// Adds where a setting was set whose value doesn't do.
    fn with_place(&self, error: StageError) -> StageError {
        match error {
            StageError::Setting { setting, text } => match self.node.image.values.get(setting.as_str()) {
                Some(sourced) if sourced.origin != Origin::Default => {
                    StageError::Other(format!("{}: {text}", sourced.origin))
                }
                _ => StageError::Other(text),
            },
            other => other,
        }
    }

    /// Names the store where a command of the stage found the disk full: only its words tell.
    fn with_cause(&self, error: StageError, tail: &VecDeque<String>) -> StageError {
        let full = |text: &str| FULL.iter().any(|words| text.contains(words));
        let text = error.to_string();
        let told = matches!(&error, StageError::Store(error) if error.is_full());
        if told || !(full(&text) || tail.iter().any(|line| full(line))) {
            return error;
        }
        StageError::Full { store: self.store.dir().to_path_buf(), text }
    }

    fn locked(&self, code: stage::StageFn, log: &mut Log<'_>) -> Result<Done, StageError> {
        if self.node.decl.publishes {
            let why = stage::publish::unpublished(self.store, &self.view(), &self.needs).map(Reason::Output);
            self.observer.event(Event::Started { id: self.id, reasons: why.as_slice() });
            let begun = Instant::now();
            let outputs = self.call(code, log, None)?;
            return Ok(Done { outputs, outcome: Outcome::Ran { duration: begun.elapsed(), same: false } });
        }
        let (key, inputs) = self.key();
        let _lock = self.store.lock_key(&key, || self.cancel.is_cancelled())?;
        if self.cancel.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        if let Some(record) = self.found() {
            self.remember(&record.key);
            return Ok(Done { outputs: record.outputs, outcome: Outcome::Cached });
        }
        let last = self.store.last(&self.node.slot()).ok().flatten();
        let reasons = match &self.forced {
            Some(why) => vec![Reason::Asked(why.clone())],
            None if self.node.traced.is_empty() => plan::explain(&key, &inputs, last.as_ref()),
            None => {
                let changes = last.as_ref().map(|last| reads::changes(self.store, self.hasher, self.node, last));
                plan::explain_read(&key, &inputs, changes.unwrap_or_default(), last.as_ref())
            }
        };
        let reasons = plan::in_detail(reasons, self.node, last.as_ref(), &|digest| self.store.program(digest));
        self.observer.event(Event::Started { id: self.id, reasons: &reasons });
        let begun = Instant::now();
        let recording = (!self.node.traced.is_empty()).then(Recording::default);
        let outputs = self.call(code, log, recording.as_ref())?;
        let duration = begun.elapsed();
        // A tree that it left as it was is not its own.
        let own = outputs.values().filter(|output| !self.needs.values().any(|need| need == *output));
        let size = self.store.artifacts_size(own);
        let same = last.is_some_and(|last| last.outputs == outputs);
        let finished = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let (mut key, mut inputs, mut traced) = (key, inputs, None);
        if let Some(recording) = &recording {
            if let Some(text) = reads::refusal(recording) {
                self.observer.event(Event::Note { id: self.id, text: &text });
            }
            match reads::settle(self.store, self.hasher, self.node, &inputs, recording)? {
                Settled::Same { inputs: all, shape, read } => {
                    key = plan::key_of(&self.node.stage, &self.node.decl, &all);
                    inputs = all;
                    traced = Some((shape, read));
                }
                Settled::Changed(path) => {
                    let text = format!("`{path}` changed while it was read: the result is not kept for the next time");
                    self.observer.event(Event::Note { id: self.id, text: &text });
                    return Ok(Done { outputs, outcome: Outcome::Ran { duration, same } });
                }
            }
        }
        for identity in self.node.programs.values() {
            // Explanations only, as above.
            if let Err(error) = self.store.put_program(&identity.digest, &identity.parts) {
                self.observer.event(Event::Note { id: self.id, text: &error.to_string() });
            }
        }
        self.store.put_record(&Record {
            key,
            kind: self.node.stage.clone(),
            inputs,
            outputs: outputs.clone(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            size,
            finished,
            read: traced.as_ref().map(|(_, read)| Box::new(read.clone())),
        })?;
        // Afterwards, so that no clean-up finds it without its record.
        if let Some((shape, read)) = &traced {
            self.store.put_shape(&read.pre, shape)?;
        }
        self.store.set_last(&self.node.slot(), &key)?;
        made(self.made).insert(key);
        Ok(Done { outputs, outcome: Outcome::Ran { duration, same } })
    }

    fn call(
        &self,
        code: stage::StageFn,
        log: &mut Log<'_>,
        recording: Option<&Recording>,
    ) -> Result<Outputs, StageError> {
        let view = self.view();
        let work = self.store.work_dir(&self.node.stage)?;
        let tools = self.tools()?;
        let mut layers = match self.needs.get(plan::TREE) {
            Some(Artifact::Tree { layers }) => {
                layers.iter().map(|digest| self.store.need_layer(digest)).collect::<Result<Vec<Layer>, _>>()?
            }
            _ => Vec::new(),
        };
        let paths = &self.node.decl.part;
        // The layers are kept from it: through them it could see what its key doesn't have.
        let part = (!paths.is_empty()).then(|| MergedTree::new(&std::mem::take(&mut layers)).part(paths));
        let mut context = self.context(&view, &tools, &work, layers, recording, log)?;
        context.part = part;
        let outputs = code(&mut context);
        let opened = context.opened.take();
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                if let Some(layers) = opened.filter(|_| worth_a_look(&error, &log.tail)) {
                    // The failure is the news, and not that there is nothing to look at.
                    if let Err(error) = self.store.keep_failed(&self.node.slot(), work, &layers, &error.to_string()) {
                        self.observer.event(Event::Note { id: self.id, text: &error.to_string() });
                    }
                } else if self.options.debug_workspace && !matches!(error, StageError::Cancelled) {
                    let text = match work.keep() {
                        Ok(path) => format!("the working files are kept for a week: {}", path.display()),
                        Err(error) => format!("the working files could not be kept: {error}"),
                    };
                    self.observer.event(Event::Note { id: self.id, text: &text });
                }
                return Err(error);
            }
        };
        // A setting outside the view would be missing from the key.
        view.check()?;
        self.store.forget_failed(&self.node.slot())?;
        Ok(outputs)
    }

    /// What the stage's code is given.
    pub(super) fn context<'c>(
        &'c self,
        view: &'c View,
        tools: &'c Tools,
        work: &'c WorkDir,
        layers: Vec<Layer>,
        recording: Option<&'c Recording>,
        log: &'c mut (dyn Write + Send),
    ) -> Result<Context<'c>, StageError> {
        Ok(Context {
            stage: &self.node.stage,
            view,
            needs: given::needs(&self.needs),
            sources: given::sources(self.node, &self.needs)?,
            recording,
            layers,
            part: None,
            profile: given::profile(self.node),
            tools,
            store: self.store,
            work,
            cached: self.built_before(),
            started: SystemTime::now(),
            log,
            cancel: self.cancel,
            force: self.options.force.outputs,
            debug_shell: self.options.debug_shell,
            debug_sandbox: self.options.debug_sandbox,
            opened: Cell::new(None),
        })
    }

    /// Whether the image's minimal tree was made before.
    fn built_before(&self) -> bool {
        let base = Slot { node: "base".to_owned(), ..self.node.slot() };
        self.store.last(&base).ok().flatten().is_some()
    }
}

/// Whether what a failed stage left tells anything. On a full disk it would only take the room.
fn worth_a_look(error: &StageError, tail: &VecDeque<String>) -> bool {
    let full = |text: &str| FULL.iter().any(|words| text.contains(words));
    let told = matches!(
        error,
        StageError::Command { .. } | StageError::Sandbox(_) | StageError::Io { .. } | StageError::Other(_)
    );
    told && !full(&error.to_string()) && !tail.iter().any(|line| full(line))
}

fn made(keys: &Made) -> MutexGuard<'_, HashSet<Digest>> {
    // A set is whole at any moment, whatever happened to the thread that had it.
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}
