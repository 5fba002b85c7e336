//! Notes what is read while a command runs, with what was shown to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Aspect, Kind, Seen, Shape, Stamp, View};
use crate::types::Digest;

/// What was shown of one path.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The digests of aspects other than a content.
    pub seen: Seen,
    /// The file that a content was read of.
    pub content: Option<Stamp>,
}

/// What is read of one source. Shared by the threads that serve it.
#[derive(Debug)]
pub struct Recorder {
    view: View,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    paths: BTreeMap<Vec<u8>, Noted>,
    /// A path that looked different at a second look.
    changed: Option<Vec<u8>>,
}

impl Recorder {
    /// Begins to note what is read of a source.
    pub fn new(view: View) -> Self {
        Self { view, notes: Mutex::default() }
    }

    /// The source.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an aspect of a path was looked at and what was shown.
    pub fn note(&self, path: &[u8], aspect: Aspect, kind: Kind, digest: Digest) {
        let mut notes = self.notes();
        let noted = noted(&mut notes.paths, path, kind);
        match noted.seen.of(aspect) {
            Some(known) if known != digest => notes.changed = Some(path.to_vec()),
            Some(_) => {}
            None => noted.seen.set(aspect, digest),
        }
    }

    /// Notes that the content of a file was read, and which file that was.
    pub fn note_content(&self, path: &[u8], stamp: Stamp) {
        let mut notes = self.notes();
        let noted = noted(&mut notes.paths, path, Kind::File);
        match noted.content {
            Some(known) if known != stamp => notes.changed = Some(path.to_vec()),
            Some(_) => {}
            None => noted.content = Some(stamp),
        }
    }
}

fn noted<'a>(paths: &'a mut BTreeMap<Vec<u8>, Noted>, path: &[u8], kind: Kind) -> &'a mut Noted {
    if !paths.contains_key(path) {
        paths.insert(path.to_vec(), Noted { seen: Seen::new(kind), content: None });
    }
    // Inserted just above.
    paths.entry(path.to_vec()).or_insert_with(|| Noted { seen: Seen::new(kind), content: None })
}

/// What the commands of one action read of all its sources.
#[derive(Debug, Default)]
pub struct Recording {
    sources: Mutex<BTreeMap<String, Arc<Recorder>>>,
    whole: Mutex<BTreeMap<String, Digest>>,
    refused: Mutex<Option<String>>,
}

impl Recording {
    /// Begins to note what is read of a source, by the input's name.
    pub fn begin(&self, name: &str, view: View) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::new(view));
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(&recorder));
        recorder
    }

    /// Notes why reading can't be noticed.
    pub fn refuse(&self, reason: &str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Why reading could not be noticed.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that all of a source counts as read; its digest is that of the tree before anything was read.
    pub fn whole(&self, name: &str, digest: Digest) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), digest);
    }

    /// What was looked at, and what was shown: for each source the notes in the order of the shape.
    ///
    /// # Errors
    /// A path that did not stay the same while it was read.
    pub fn finish(&self) -> Result<(Shape, BTreeMap<String, Vec<Noted>>), String> {
        let mut shape = Shape::default();
        let mut notes = BTreeMap::new();
        for (name, recorder) in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let found = recorder.notes();
            if let Some(path) = &found.changed {
                return Err(recorder.view.host_path(path).display().to_string());
            }
            let accesses = found.paths.iter().map(|(path, noted)| {
                let seen = Aspect::ALL.into_iter().filter(|aspect| noted.seen.of(*aspect).is_some());
                let content = noted.content.map(|_| Aspect::Content.bit()).unwrap_or(0);
                Access { path: path.clone(), aspects: seen.fold(content, |bits, aspect| bits | aspect.bit()) }
            });
            shape.0.insert(name.clone(), accesses.collect());
            notes.insert(name.clone(), found.paths.values().cloned().collect());
        }
        for (name, digest) in self.whole.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut seen = Seen::new(Kind::Directory);
            seen.set(Aspect::Whole, *digest);
            shape.0.insert(name.clone(), vec![Access { path: Vec::new(), aspects: Aspect::Whole.bit() }]);
            notes.insert(name.clone(), vec![Noted { seen, content: None }]);
        }
        Ok((shape, notes))
    }
}
