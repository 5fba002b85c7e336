//! Clean-up: removes what nothing refers to, and then what was not used for longest until the store is small enough.
//!
//! Deciding and moving away happen with the gate held alone, so that no run can begin to use what is going; what a
//! live run has used is kept whatever the limit is. The removal proper comes after, when others may go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::Context;
use super::layer::indexed_size;
use super::records::{parse_last, parse_record};
use super::root::{Gate, Use, locked};
use super::{Record, Store, StoreError};

/// How long a stat cache may go without being written before it is taken for one of a directory that is gone.
const STAT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What clean-up may remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// The size to come down to, in bytes; nothing that a record refers to goes without it.
    pub max_size: Option<u64>,
    /// What was used within this time stays, even if the store stays larger than that.
    pub keep: Duration,
}

/// What clean-up did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Records removed.
    pub records: usize,
    /// Layers removed.
    pub layers: usize,
    /// Files removed, of the store's own and of the pool.
    pub files: usize,
    /// Bytes of contents freed.
    pub freed: u64,
    /// Bytes of contents that remain.
    pub remaining: u64,
}

/// Everything in the store by what it is, with sizes in bytes.
#[derive(Default)]
pub(super) struct Inventory {
    /// Layers, files and packages of the pool.
    pub objects: BTreeMap<Use, u64>,
    /// Records that can be read, and when they were last used.
    pub records: Vec<(Record, SystemTime)>,
    /// Files in the place of records that can't.
    pub broken: Vec<PathBuf>,
    /// When packages of the pool were last used.
    pub pool: BTreeMap<Use, SystemTime>,
}

impl Store {
    /// Cleans up.
    ///
    /// # Errors
    /// When the store can't be read or something can't be moved away. What was decided before is done.
    pub fn gc(&self, policy: &GcPolicy) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        // Removed when this goes, which is after the gate has been left.
        let mut gone = Vec::new();
        {
            let _gate = Gate::alone(&self.dir)?;
            let inventory = self.inventory()?;
            let doomed = choose(&inventory, &self.in_use()?, policy);
            report.remaining = inventory.objects.values().sum();
            for path in &inventory.broken {
                fs::remove_file(path).context("remove", path)?;
            }
            // Records first: a kill in between leaves objects without a record, never the other way round.
            for what in doomed.iter().rev() {
                let size = inventory.objects.get(what).copied().unwrap_or(0);
                match what {
                    Use::Record(key) => {
                        self.drop_record(key)?;
                        report.records += 1;
                    }
                    Use::Layer(digest) => {
                        gone.push(self.move_away(&self.layer_place(digest))?);
                        locked(&self.layers).remove(digest);
                        report.layers += 1;
                    }
                    Use::File(_) | Use::Pool(_) => {
                        let path = self.place(what);
                        fs::remove_file(&path).context("remove", &path)?;
                        report.files += 1;
                    }
                }
                report.freed += size;
                report.remaining -= size;
            }
            self.drop_dangling()?;
            let kept = inventory.records.iter().filter(|(record, _)| !doomed.contains(&Use::Record(record.key)));
            self.drop_programs(&kept.clone().flat_map(|(record, _)| record.inputs.values().copied()).collect());
            let shapes = kept.filter_map(|(record, _)| record.read.as_ref().map(|read| (read.pre, read.shape)));
            self.drop_shapes(&shapes.collect())?;
            self.drop_parts();
            for (failed, path) in self.all_failed()? {
                if SystemTime::now().duration_since(failed).is_ok_and(|age| age >= policy.keep) {
                    gone.extend(self.move_failed_away(&path)?);
                }
            }
        }
        Ok(report)
    }

    /// Lists everything. Names that are not the store's are passed over.
    pub(super) fn inventory(&self) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::default();
        for entry in list(&self.dir.join("layers"))? {
            if let Ok(digest) = name(&entry).parse() {
                inventory.objects.insert(Use::Layer(digest), indexed_size(&entry.join("index")));
            }
        }
        for shard in list(&self.dir.join("files"))? {
            for entry in list(&shard)? {
                if let Ok(digest) = name(&entry).parse() {
                    inventory.objects.insert(Use::File(digest), size(&entry));
                }
            }
        }
        for entry in list(&self.dir.join("records"))? {
            let used = fs::metadata(&entry).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            match parse_record(&entry)? {
                Some(record) => inventory.records.push((record, used)),
                None => inventory.broken.push(entry),
            }
        }
        let pool = self.pool();
        let mut pending = vec![pool.clone()];
        while let Some(dir) = pending.pop() {
            for entry in list(&dir)? {
                let Ok(meta) = fs::symlink_metadata(&entry) else { continue };
                if meta.is_dir() {
                    pending.push(entry);
                } else if let Some(name) = entry.strip_prefix(&pool).ok().and_then(|path| path.to_str()) {
                    let what = Use::Pool(name.to_owned());
                    let used = meta.modified().into_iter().chain(meta.accessed()).max();
                    inventory.pool.insert(what.clone(), used.unwrap_or(SystemTime::UNIX_EPOCH));
                    inventory.objects.insert(what, taken(&meta));
                }
            }
        }
        Ok(inventory)
    }

    /// Removes pointers to records that are gone, and old stat caches.
    fn drop_dangling(&self) -> Result<(), StoreError> {
        for path in list(&self.dir.join("last"))? {
            if parse_last(&path).is_none_or(|(_, key)| !self.record_place(&key).exists()) {
                fs::remove_file(&path).context("remove", &path)?;
            }
        }
        for path in list(&self.dir.join("stat"))? {
            let written = fs::metadata(&path).and_then(|meta| meta.modified());
            if written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STAT_AGE)) {
                fs::remove_file(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }
}

/// What has to go: sorted, so that records come after their objects.
fn choose(inventory: &Inventory, in_use: &BTreeSet<Use>, policy: &GcPolicy) -> BTreeSet<Use> {
    let now = SystemTime::now();
    let young = |used: &SystemTime| now.duration_since(*used).map_or(true, |age| age <= policy.keep);
    let mut references: HashMap<Use, usize> = HashMap::new();
    for object in inventory.records.iter().flat_map(|(record, _)| record.objects()).chain(in_use.iter().cloned()) {
        *references.entry(object).or_default() += 1;
    }
    let mut doomed = BTreeSet::new();
    let mut total: u64 = inventory.objects.values().sum();
    for (object, size) in &inventory.objects {
        if !references.contains_key(object) && !inventory.pool.contains_key(object) {
            doomed.insert(object.clone());
            total -= size;
        }
    }
    // Records and packages together, the one used longest ago first.
    let records = inventory.records.iter().map(|(record, used)| (*used, Use::Record(record.key), Some(record)));
    let packages = inventory.pool.iter().map(|(what, used)| (*used, what.clone(), None));
    let mut candidates: Vec<_> = records.chain(packages).collect();
    candidates.retain(|(used, what, _)| !young(used) && !in_use.contains(what));
    candidates.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (_, what, record) in candidates {
        if policy.max_size.is_none_or(|limit| total <= limit) {
            break;
        }
        let freed = match record {
            None => vec![what.clone()],
            Some(record) => {
                let last = |object: &Use| {
                    let left = references.entry(object.clone()).or_insert(1);
                    *left -= 1;
                    *left == 0
                };
                record.objects().filter(last).collect()
            }
        };
        for object in freed {
            if doomed.insert(object.clone()) {
                total -= inventory.objects.get(&object).copied().unwrap_or(0);
            }
        }
        doomed.insert(what);
    }
    // An object that a record names and that is not there needs no removal.
    doomed.retain(|what| matches!(what, Use::Record(_)) || inventory.objects.contains_key(what));
    doomed
}

/// The paths in a directory, sorted; none where it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", dir, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.context("read", dir)?.path());
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

pub(super) fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map(|meta| taken(&meta)).unwrap_or(0)
}

/// What the contents of a file take on the disk: holes take nothing. Blocks are counted in 512 bytes (stat(3type)).
pub(super) fn taken(meta: &Metadata) -> u64 {
    meta.len().min(meta.blocks().saturating_mul(512))
}
