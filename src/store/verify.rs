//! Reads the whole store against its names, and tells what is in it.

use std::collections::{BTreeMap, BTreeSet};

use super::gc::{list, size};
use super::root::Use;
use super::{Store, StoreError};

/// What a check of the whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many layers, files and records were read.
    pub checked: usize,
    /// What is not what its name says, sorted: `layer 01ab...`, `file ...`, `record ...`. With repair these were
    /// removed, and so were the records that refer to them, so that the next build makes them again.
    pub damaged: Vec<String>,
}

/// What is in the store, in bytes of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Layers: their number and size.
    pub layers: (usize, u64),
    /// Files: their number and size.
    pub files: (usize, u64),
    /// Downloaded packages: their number and size.
    pub pool: (usize, u64),
    /// Records: their number and size.
    pub records: (usize, u64),
    /// What stages that failed have left: the number of stages and the size.
    pub failed: (usize, u64),
    /// Stat caches: their number and size.
    pub stat: (usize, u64),
    /// The size of the layers and files by the kind of stage that made them. One that several kinds share counts for
    /// the first by name; one that no record refers to, for the empty kind.
    pub by_kind: BTreeMap<String, u64>,
}

impl Usage {
    /// The size of everything.
    pub fn total(&self) -> u64 {
        [self.layers, self.files, self.pool, self.records, self.failed, self.stat].iter().map(|(_, size)| size).sum()
    }
}

impl Store {
    /// Reads every layer, file and record and compares it with its name. With `repair`, what is damaged is removed.
    ///
    /// # Errors
    /// When this user has no right to read something, or a damaged object can't be removed.
    pub fn verify(&self, repair: bool) -> Result<VerifyReport, StoreError> {
        let inventory = {
            let _gate = self.gate()?;
            self.inventory()?
        };
        let mut report = VerifyReport::default();
        let mut bad = BTreeSet::new();
        for object in inventory.objects.keys() {
            let (result, name) = match object {
                Use::Layer(digest) => (self.verify_layer(digest), format!("layer {digest}")),
                Use::File(digest) => (self.verify_file(digest), format!("file {digest}")),
                // Packages have no name of ours; who downloads them knows their hashes.
                Use::Record(_) | Use::Pool(_) => continue,
            };
            let sound = match result {
                // It may well be good, so repair must not take it away.
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(StoreError::io("read", &self.place(object), source));
                }
                // Names that are missing, blocks that can't be read: damage like any other.
                result => result.unwrap_or(false),
            };
            report.checked += 1;
            // Clean-up may have removed it meanwhile.
            if !sound && self.place(object).parent().is_some_and(|dir| dir.exists()) {
                report.damaged.push(name);
                bad.insert(object.clone());
            }
        }
        report.checked += inventory.records.len() + inventory.broken.len();
        for path in &inventory.broken {
            report.damaged.push(format!("record {}", super::gc::name(path).trim_end_matches(".json")));
            if repair {
                let _ = std::fs::remove_file(path);
            }
        }
        if repair {
            for object in &bad {
                self.discard(object)?;
            }
        }
        if repair || bad.is_empty() {
            self.clear_doubt();
        }
        report.damaged.sort();
        Ok(report)
    }

    /// How much the store holds of what.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn du(&self) -> Result<Usage, StoreError> {
        let inventory = self.inventory()?;
        let mut usage = Usage::default();
        for (_, path) in self.all_failed()? {
            usage.failed.0 += 1;
            usage.failed.1 += size_below(&path);
        }
        let mut kinds: BTreeMap<Use, &str> = BTreeMap::new();
        for (record, _) in &inventory.records {
            for object in record.objects() {
                let kind = kinds.entry(object).or_insert(&record.kind);
                *kind = (*kind).min(&record.kind);
            }
        }
        let add = |sum: &mut (usize, u64), size: u64| *sum = (sum.0 + 1, sum.1 + size);
        for (object, size) in &inventory.objects {
            match object {
                Use::Layer(_) => add(&mut usage.layers, *size),
                Use::File(_) => add(&mut usage.files, *size),
                Use::Record(_) | Use::Pool(_) => {
                    add(&mut usage.pool, *size);
                    continue;
                }
            }
            let kind = kinds.get(object).copied().unwrap_or_default();
            *usage.by_kind.entry(kind.to_owned()).or_default() += size;
        }
        for path in list(&self.dir.join("records"))? {
            add(&mut usage.records, size(&path));
        }
        for path in list(&self.dir.join("stat"))? {
            add(&mut usage.stat, size(&path));
        }
        Ok(usage)
    }
}
/// The size of the files at and below a path. What can't be read, or goes meanwhile, has none.
fn size_below(path: &std::path::Path) -> u64 {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| size_below(&entry.path())).sum()
        }
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    }
}
