//! Records of actions by key, and for each place in a project the key of its last run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::Context;
use super::root::{Use, locked, write_small};
use super::{Artifact, Record, Slot, Store, StoreError, work};
use crate::types::{Digest, Encoder};

/// How old a record's last use may look before it is noted again. Clean-up needs no finer order.
const TOUCH_AFTER: Duration = Duration::from_secs(3600);

/// A record as it lies on the disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The digest of the record's JSON, so that a damaged one is not believed.
    check: Digest,
    /// The run that wrote it (see `docs/store.md` on power cuts).
    run: String,
    record: Record,
}

/// The pointer from a place in a project to the key of its last run.
#[derive(Serialize, Deserialize)]
struct Last {
    slot: Slot,
    key: Digest,
}

impl Record {
    /// The objects that the outputs refer to.
    pub(super) fn objects(&self) -> impl Iterator<Item = Use> {
        let outputs = self.outputs.values().flat_map(|artifact| match artifact {
            Artifact::Tree { layers } => layers.iter().copied().map(Use::Layer).collect::<Vec<_>>(),
            Artifact::Files { files } => files.values().copied().map(Use::File).collect(),
            Artifact::Value { .. } => Vec::new(),
        });
        outputs.chain(self.read.iter().map(|read| Use::File(read.seen)))
    }
}

impl Store {
    /// The record of the action with this key, if there is one and all that it made is there.
    ///
    /// # Errors
    /// When the store can't be read. A damaged record is no error: there is none, then.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.record_place(key);
        let stored = {
            // From the look at the objects to the note that they are used, no clean-up may come between.
            let _gate = self.gate()?;
            let Some(stored) = read_record(&path, key)? else { return Ok(None) };
            for object in stored.record.objects() {
                let place = self.place(&object);
                // What can't be looked at is not gone.
                if !place.try_exists().context("look at", &place)? {
                    // It must not come back with an object of the same name that another run makes.
                    self.drop_record(key)?;
                    return Ok(None);
                }
            }
            self.using(Use::Record(*key))?;
            stored
        };
        if locked(&self.doubtful).contains(&stored.run) {
            for object in stored.record.objects() {
                if !self.sound(&object)? {
                    self.discard(&object)?;
                    self.drop_record(key)?;
                    return Ok(None);
                }
            }
            // It was read from the disk just now: no need for the next run to doubt it.
            self.put_record(&stored.record)?;
        }
        let used = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
        if used.is_none_or(|used| SystemTime::now().duration_since(used).is_ok_and(|age| age > TOUCH_AFTER)) {
            work::touch(&path);
        }
        Ok(Some(stored.record))
    }

    /// Writes a record, after all its objects have entered.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put_record(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.record_place(&record.key);
        let put = || {
            self.will_add()?;
            let json = encode("a record", &path, record)?;
            let stored = Stored { check: Digest::of(&json), run: self.run().to_owned(), record: record.clone() };
            {
                let _gate = self.gate()?;
                self.using(Use::Record(record.key))?;
            }
            write_small(&self.dir, &path, &encode("a record", &path, &stored)?)
        };
        put().map_err(|error: StoreError| error.in_store(&self.dir))
    }

    /// Removes a record; its objects go with the next clean-up, if nothing else refers to them.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn drop_record(&self, key: &Digest) -> Result<(), StoreError> {
        let path = self.record_place(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// The record of the last run at this place, if it is still there with all that it made.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn last(&self, slot: &Slot) -> Result<Option<Record>, StoreError> {
        let path = self.last_place(slot);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        match serde_json::from_slice::<Last>(&bytes) {
            Ok(last) if last.slot == *slot => self.record(&last.key),
            _ => Ok(None),
        }
    }

    /// Every place with the key of its last run, in no order.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) fn places(&self) -> Result<Vec<(Slot, Digest)>, StoreError> {
        let dir = self.dir.join("last");
        let mut places = Vec::new();
        for entry in fs::read_dir(&dir).context("read", &dir)? {
            let path = entry.context("read", &dir)?.path();
            // One that is being replaced at this moment, or is no pointer, is no place.
            if let Ok(bytes) = fs::read(&path)
                && let Ok(last) = serde_json::from_slice::<Last>(&bytes)
            {
                places.push((last.slot, last.key));
            }
        }
        Ok(places)
    }

    /// Notes the key of the last run at this place.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_last(&self, slot: &Slot, key: &Digest) -> Result<(), StoreError> {
        let path = self.last_place(slot);
        let bytes = encode("a pointer", &path, &Last { slot: slot.clone(), key: *key })?;
        // A build that changed nothing writes nothing.
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        write_small(&self.dir, &path, &bytes).map_err(|error| error.in_store(&self.dir))
    }

    /// Whether an object that a run of an earlier boot may have made is what its name says. Read once in a run;
    /// nothing is read where no such run was cut short.
    pub(super) fn sound(&self, object: &Use) -> Result<bool, StoreError> {
        if locked(&self.doubtful).is_empty() || locked(&self.checked).contains(object) {
            return Ok(true);
        }
        let sound = match object {
            Use::Layer(digest) => self.verify_layer(digest)?,
            Use::File(digest) => self.verify_file(digest)?,
            Use::Record(_) | Use::Pool(_) => true,
        };
        if sound {
            locked(&self.checked).insert(object.clone());
        }
        Ok(sound)
    }

    /// Removes the records that refer to an object which is about to be removed as damaged. Whether an object is in
    /// doubt is known by the run of its record, so a record must not outlive the object that it means.
    pub(super) fn drop_referring(&self, object: &Use) -> Result<(), StoreError> {
        for path in super::gc::list(&self.dir.join("records"))? {
            if let Some(record) = parse_record(&path)?
                && record.objects().any(|other| other == *object)
            {
                self.drop_record(&record.key)?;
            }
        }
        Ok(())
    }

    /// Removes a damaged object and the records that refer to it.
    pub(super) fn discard(&self, object: &Use) -> Result<(), StoreError> {
        match object {
            Use::Layer(digest) => self.discard_layer(digest),
            Use::File(digest) => self.discard_file(digest),
            Use::Record(key) => self.drop_record(key),
            Use::Pool(_) => Ok(()),
        }
    }

    /// The file whose existence tells that the object is there.
    pub(super) fn place(&self, object: &Use) -> PathBuf {
        match object {
            Use::Layer(digest) => self.layer_place(digest).join("index"),
            Use::File(digest) => self.file_place(digest),
            Use::Record(key) => self.record_place(key),
            Use::Pool(name) => self.pool().join(name),
        }
    }

    pub(super) fn record_place(&self, key: &Digest) -> PathBuf {
        self.dir.join("records").join(format!("{key}.json"))
    }

    fn last_place(&self, slot: &Slot) -> PathBuf {
        let Slot { project, image, node } = slot;
        let name = Encoder::new("mkosi.slot", 1).str(project).str(image).str(node).finish();
        self.dir.join("last").join(format!("{name}.json"))
    }
}

/// Reads a record from its file; one that is damaged or has another key is none.
pub(super) fn parse_record(path: &Path) -> Result<Option<Record>, StoreError> {
    let key = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
    match key {
        Some(key) => Ok(read_record(path, &key)?.map(|stored| stored.record)),
        None => Ok(None),
    }
}

/// The key that a pointer names, and its project, if it can be read.
pub(super) fn parse_last(path: &Path) -> Option<(Slot, Digest)> {
    let last: Last = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some((last.slot, last.key))
}

fn read_record(path: &Path, key: &Digest) -> Result<Option<Stored>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", path),
    };
    let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else { return Ok(None) };
    let good = stored.record.key == *key && Digest::of(&encode("a record", path, &stored.record)?) == stored.check;
    Ok(good.then_some(stored))
}

fn encode<T: Serialize>(what: &'static str, path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Encode {
        what,
        path: path.to_owned(),
        why: error.to_string(),
    })
}
