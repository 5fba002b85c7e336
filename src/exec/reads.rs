//! What earlier runs of a node looked at in its traced sources, asked of the sources as they are now. Knows nothing of
//! how reading is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::plan::{self, Node, ReadChange, Reason};
use crate::reads::{Aspect, Difference, Kind, Recording, Shape, Sighting};
use crate::store::{Hasher, Read, Record, Store, StoreError};
use crate::types::Digest;

/// The inputs of an action by name.
pub type Inputs = BTreeMap<String, Digest>;

/// What was read during a run, once it is over.
pub enum Settled {
    /// The sources stayed as they were; the inputs with what was read of each, and the notes to keep.
    Same {
        /// All inputs.
        inputs: Inputs,
        /// What was looked at.
        shape: Shape,
        /// The note for the record.
        read: Read,
    },
    /// This path changed while it was read, so the result belongs to no key.
    Changed(String),
}

/// Where a traced source of a node is, and what is hidden of it.
fn place<'a>(node: &'a Node, name: &str) -> Option<(&'a Path, &'a [PathBuf])> {
    match node.sources.get(name) {
        Some(plan::Source::Host { path, hidden }) if node.traced.contains(name) => Some((path, hidden)),
        _ => None,
    }
}

/// Looks again at all of a shape. Nothing where the node has other sources, or one can't be read.
fn sight(hasher: &Hasher, node: &Node, shape: &Shape) -> Option<Sighting> {
    if !shape.0.keys().eq(&node.traced) {
        return None;
    }
    let mut sighting = Sighting::default();
    for (name, accesses) in &shape.0 {
        let (path, hidden) = place(node, name)?;
        // A source that can't be read is told by the script that fails, if it still wants to.
        let seen = hasher.sight(path, hidden, accesses).ok()?;
        sighting.0.insert(name.clone(), seen.into_iter().map(|(seen, _)| seen).collect());
    }
    Some(sighting)
}

/// The first record that an earlier run with the same other inputs leads to: one that saw in the sources what is there
/// now. `usable` looks a key's record up.
pub fn find(
    store: &Store,
    hasher: &Hasher,
    node: &Node,
    inputs: &Inputs,
    usable: &mut dyn FnMut(&Digest) -> Option<Record>,
) -> Option<Record> {
    let pre = plan::pre_key_of(node, inputs);
    // A store that can't be read here is told when the result is to be written.
    let shapes = store.shapes(&pre).unwrap_or_default();
    for (at, (digest, shape)) in shapes.iter().enumerate() {
        let Some(sighting) = sight(hasher, node, shape) else { continue };
        let key = key(node, inputs, shape, &sighting).0;
        if let Some(record) = usable(&key) {
            if at > 0 {
                store.use_shape(&pre, digest);
            }
            return Some(record);
        }
    }
    None
}

fn key(node: &Node, inputs: &Inputs, shape: &Shape, sighting: &Sighting) -> (Digest, Inputs) {
    let mut all = inputs.clone();
    all.extend(sighting.digests(shape));
    (plan::key_of(&node.stage, &node.decl, &all), all)
}

/// What differs now of what a run read.
pub fn changes(store: &Store, hasher: &Hasher, node: &Node, last: &Record) -> Vec<Reason> {
    let changes = || {
        let read = last.read.as_ref()?;
        let shape = store.shape(&read.pre, &read.shape).ok().flatten()?;
        let earlier = std::fs::read(store.file(&read.seen)?).ok()?;
        let sighting = sight(hasher, node, &shape)?;
        Some(sighting.differences(&shape, &earlier).iter().map(|difference| reason(node, difference)).collect())
    };
    changes().unwrap_or_default()
}

fn reason(node: &Node, difference: &Difference<'_>) -> Reason {
    use std::os::unix::ffi::OsStrExt;
    let source = place(node, difference.source).map(|(path, _)| path).unwrap_or(Path::new(""));
    let path = match difference.path {
        [] => source.to_path_buf(),
        below => source.join(std::ffi::OsStr::from_bytes(below)),
    };
    let shown = path.strip_prefix(&node.image.project).unwrap_or(&path);
    let shown = if shown.as_os_str().is_empty() { Path::new(".") } else { shown };
    let has = |aspect| difference.aspects.contains(&aspect);
    let change = match (difference.was, difference.is) {
        (Kind::Absent, _) => ReadChange::Appeared,
        (_, Kind::Absent) => ReadChange::Gone,
        (was, is) if was != is => ReadChange::Replaced,
        _ if has(Aspect::Content) || has(Aspect::Whole) => ReadChange::Content,
        _ if has(Aspect::List) => ReadChange::Names,
        (_, Kind::Symlink) => ReadChange::Target,
        _ => ReadChange::Attributes,
    };
    Reason::Read { path: shown.display().to_string(), change }
}

/// Ends a recording: what was read has to be there still.
///
/// # Errors
/// When a source or the store can't be read or written.
pub fn settle(
    store: &Store,
    hasher: &Hasher,
    node: &Node,
    inputs: &Inputs,
    recording: &Recording,
) -> Result<Settled, StoreError> {
    let (mut shape, notes) = match recording.finish() {
        Ok(found) => found,
        Err(path) => return Ok(Settled::Changed(path)),
    };
    let mut sighting = Sighting::default();
    for name in &node.traced {
        // A source that no script was given was not read.
        let accesses = shape.0.entry(name.clone()).or_default();
        let Some((path, hidden)) = place(node, name) else { continue };
        let seen = match hasher.sight(path, hidden, accesses) {
            Err(StoreError::Changing { path }) => return Ok(Settled::Changed(path.display().to_string())),
            other => other?,
        };
        let noted = notes.get(name).map(Vec::as_slice).unwrap_or_default();
        for ((access, noted), (seen, stamp)) in accesses.iter().zip(noted).zip(&seen) {
            let same = |aspect| noted.seen.of(aspect).is_none_or(|shown| seen.of(aspect) == Some(shown));
            let content = noted.content.is_none_or(|read| *stamp == Some(read));
            if !content || !Aspect::ALL.into_iter().all(same) {
                use std::os::unix::ffi::OsStrExt;
                return Ok(Settled::Changed(
                    path.join(std::ffi::OsStr::from_bytes(&access.path)).display().to_string(),
                ));
            }
        }
        sighting.0.insert(name.clone(), seen.into_iter().map(|(seen, _)| seen).collect());
    }
    let encode = |why| StoreError::Encode { what: "what was read", path: store.dir().to_path_buf(), why };
    let read = Read {
        pre: plan::pre_key_of(node, inputs),
        shape: store.shape_digest(&shape)?,
        seen: store.add_bytes(&sighting.encode().map_err(encode)?)?,
    };
    let (_, inputs) = key(node, inputs, &shape, &sighting);
    Ok(Settled::Same { inputs, shape, read })
}

/// Tells once in a run of the program that reading can't be noticed here.
pub fn refusal(recording: &Recording) -> Option<String> {
    static TOLD: Mutex<bool> = Mutex::new(false);
    let reason = recording.refused()?;
    let mut told = TOLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = !std::mem::replace(&mut *told, true);
    first.then(|| format!("what scripts read can't be noted, so all of the sources counts: {reason}"))
}
