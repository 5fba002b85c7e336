//! The store's directory: its layout, its format, and the register of the runs that use it.
//!
//! Two kinds of locks make clean-up safe (drawn in `docs/store.md`):
//! - `lock`: held shared for the moment in which an object enters or is looked up, exclusive for the moment in which
//!   clean-up decides and moves things away;
//! - `runs/<boot>.<run>`: every open store holds its own file locked and writes in it what it uses. A file whose lock
//!   can be taken belongs to a dead run.
//!
//! The name of a run holds the boot's id. Objects are not synced one by one, so after a power cut they may be empty
//! or short. A dead run's file with another boot's id tells that its objects have to be read before they are trusted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::Context;
use super::{Backend, Layer, StoreError, layout, work};
use crate::types::Digest;

/// Something in the store that a run uses, so that clean-up leaves it alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Use {
    /// A layer.
    Layer(Digest),
    /// A file.
    File(Digest),
    /// A record, and so all its objects.
    Record(Digest),
    /// A file of the pool by its path below `pool/`.
    Pool(String),
}

impl Use {
    fn line(&self) -> String {
        match self {
            Self::Layer(digest) => format!("layer {digest}\n"),
            Self::File(digest) => format!("file {digest}\n"),
            Self::Record(digest) => format!("record {digest}\n"),
            Self::Pool(name) => format!("pool {name}\n"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, name) = line.split_once(' ')?;
        Some(match kind {
            "layer" => Self::Layer(name.parse().ok()?),
            "file" => Self::File(name.parse().ok()?),
            "record" => Self::Record(name.parse().ok()?),
            "pool" => Self::Pool(name.to_owned()),
            _ => return None,
        })
    }
}

/// The store. Shared by reference between the threads of a run; several processes may have it open at once.
#[derive(Debug)]
pub struct Store {
    pub(super) dir: PathBuf,
    run: Run,
    pub(super) layers: Mutex<HashMap<Digest, Layer>>,
    /// Runs of an earlier boot whose objects may not have reached the disk.
    pub(super) doubtful: Mutex<BTreeSet<String>>,
    /// Objects that were read in full and found good in this run.
    pub(super) checked: Mutex<HashSet<Use>>,
    pub(super) backend: Mutex<Option<Backend>>,
}

/// This run's entry in the register.
#[derive(Debug)]
struct Run {
    name: String,
    path: PathBuf,
    file: File,
    used: Mutex<HashSet<Use>>,
    /// Whether the file is known to be on the disk; done before the first object enters.
    durable: AtomicBool,
}

/// The short lock over looking up, entering and cleaning; freed when dropped.
#[derive(Debug)]
pub(super) struct Gate {
    _file: File,
}

/// Locks a mutex. A thread that panicked can't have left these maps half-changed, so poison is passed over.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the store at `dir` and makes it if there is none, registers this run, and removes what dead processes
    /// left under `tmp/`.
    ///
    /// # Errors
    /// When the directory can't be made or written, holds something else, or has a newer format.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let dir = std::path::absolute(dir).context("find", dir)?;
        Self::open_absolute(&dir).map_err(|error| error.in_store(&dir))
    }

    fn open_absolute(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).context("make the store's directory", dir)?;
        layout::prepare(dir)?;
        let boot = boot_id();
        let (run, dead) = {
            // Alone, so that nobody takes the new file for a dead run's before it is locked.
            let _gate = Gate::alone(dir)?;
            let run = Run::register(dir, &boot)?;
            let dead = dead_runs(dir, &run.name)?;
            (run, dead)
        };
        let (same_boot, doubtful): (Vec<_>, Vec<_>) =
            dead.into_iter().partition(|name| name.split('.').next() == Some(boot.as_str()));
        if !same_boot.is_empty() {
            settle_in_background(dir, same_boot);
        }
        let store = Self {
            dir: dir.to_owned(),
            run,
            layers: Mutex::default(),
            doubtful: Mutex::new(doubtful.into_iter().collect()),
            checked: Mutex::default(),
            backend: Mutex::default(),
        };
        work::remove_stale(&store)?;
        Ok(store)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of downloaded packages, shared by all images and projects. Call [`Store::use_pool`] for a file
    /// that is used, so that clean-up keeps it.
    pub fn pool(&self) -> PathBuf {
        self.dir.join("pool")
    }

    /// Tells that this run uses the file at `name` below the pool, and that it was used just now.
    ///
    /// # Errors
    /// When the register can't be written.
    pub fn use_pool(&self, name: &str) -> Result<(), StoreError> {
        let _gate = self.gate()?;
        self.using(Use::Pool(name.to_owned()))?;
        work::touch(&self.pool().join(name));
        Ok(())
    }

    /// This run's name in the register.
    pub(super) fn run(&self) -> &str {
        &self.run.name
    }

    /// Takes the gate shared.
    pub(super) fn gate(&self) -> Result<Gate, StoreError> {
        Gate::shared(&self.dir)
    }

    /// Notes that this run uses something. Done with the gate held, so that clean-up sees either the note or no use.
    pub(super) fn using(&self, what: Use) -> Result<(), StoreError> {
        let mut used = locked(&self.run.used);
        if !used.contains(&what) {
            (&self.run.file).write_all(what.line().as_bytes()).context("write", &self.run.path)?;
            used.insert(what);
        }
        Ok(())
    }

    /// Makes sure that this run's file is on the disk before its first object enters: it is what makes a later boot
    /// doubt objects that a power cut may have spoiled. One sync in a run.
    pub(super) fn will_add(&self) -> Result<(), StoreError> {
        if !self.run.durable.load(Ordering::Acquire) {
            self.run.file.sync_all().context("sync", &self.run.path)?;
            let runs = self.dir.join("runs");
            File::open(&runs).and_then(|dir| dir.sync_all()).context("sync", &runs)?;
            self.run.durable.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Brings everything that this run made to the disk, so that a later boot trusts it without reading it. Worth
    /// calling at the end of a build; without it the next run does so in the background.
    ///
    /// # Errors
    /// When the file system can't be synced.
    pub fn settle(&self) -> Result<(), StoreError> {
        // First, so that an object which enters meanwhile is not taken for one that was synced.
        if self.run.durable.swap(false, Ordering::AcqRel) {
            sync_file_system(&self.dir).inspect_err(|_| self.run.durable.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// What all live runs use; for clean-up, with the gate held alone. A register that can't be read is an error,
    /// since guessing would remove what a build needs.
    pub(super) fn in_use(&self) -> Result<BTreeSet<Use>, StoreError> {
        let runs = self.dir.join("runs");
        let dead: BTreeSet<_> = dead_runs(&self.dir, &self.run.name)?.into_iter().collect();
        let mut uses = BTreeSet::new();
        for entry in fs::read_dir(&runs).context("read", &runs)? {
            let entry = entry.context("read", &runs)?;
            if dead.contains(&*entry.file_name().to_string_lossy()) {
                continue;
            }
            let text = fs::read_to_string(entry.path()).context("read", &entry.path())?;
            uses.extend(text.lines().filter_map(Use::parse));
        }
        Ok(uses)
    }

    /// Forgets the runs whose objects were doubtful, once all have been read.
    pub(super) fn clear_doubt(&self) {
        for name in std::mem::take(&mut *locked(&self.doubtful)) {
            // Staying is harmless: its records are read again.
            let _ = fs::remove_file(self.dir.join("runs").join(name));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A run that added nothing, or whose objects are on the disk, leaves no trace.
        if !*self.run.durable.get_mut() {
            let _ = fs::remove_file(&self.run.path);
        }
    }
}

impl Gate {
    fn take(dir: &Path, operation: FlockOperation) -> Result<Option<Self>, StoreError> {
        let path = dir.join("lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).context("open the lock", &path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(StoreError::io("lock", &path, error)),
            }
        }
    }

    fn shared(dir: &Path) -> Result<Self, StoreError> {
        Self::expect(dir, FlockOperation::LockShared)
    }

    /// Waits until nobody looks up or enters anything.
    pub(super) fn alone(dir: &Path) -> Result<Self, StoreError> {
        Self::expect(dir, FlockOperation::LockExclusive)
    }

    /// As [`Gate::alone`], or nothing where somebody is at it.
    pub(super) fn try_alone(dir: &Path) -> Result<Option<Self>, StoreError> {
        Self::take(dir, FlockOperation::NonBlockingLockExclusive)
    }

    fn expect(dir: &Path, operation: FlockOperation) -> Result<Self, StoreError> {
        Self::take(dir, operation)?
            .ok_or_else(|| StoreError::io("lock", &dir.join("lock"), std::io::Error::from(Errno::WOULDBLOCK)))
    }
}

impl Run {
    fn register(dir: &Path, boot: &str) -> Result<Self, StoreError> {
        let runs = dir.join("runs");
        let unique = tempfile::Builder::new()
            .prefix(&format!("{boot}."))
            .rand_bytes(12)
            .make_in(&runs, |path| OpenOptions::new().append(true).create_new(true).open(path))
            .context("register this run in", &runs)?;
        let (file, path) = unique.keep().map_err(|error| StoreError::io("register this run in", &runs, error.error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).context("lock", &path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, path, file, used: Mutex::default(), durable: AtomicBool::new(false) })
    }
}

/// The names of the registered runs whose process is gone.
fn dead_runs(dir: &Path, own: &str) -> Result<Vec<String>, StoreError> {
    let runs = dir.join("runs");
    let mut dead = Vec::new();
    for entry in fs::read_dir(&runs).context("read", &runs)? {
        let entry = entry.context("read", &runs)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own {
            continue;
        }
        // A file that has just vanished belonged to a run that ended.
        let Ok(file) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            dead.push(name);
        }
    }
    dead.sort();
    Ok(dead)
}

/// Syncs what earlier runs of this boot made, and takes them off the register. Most of it has long been written by
/// then. If the process ends before, the next one does it.
fn settle_in_background(dir: &Path, runs: Vec<String>) {
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        if sync_file_system(&dir).is_ok() {
            for name in runs {
                let _ = fs::remove_file(dir.join("runs").join(name));
            }
        }
    });
}

fn sync_file_system(dir: &Path) -> Result<(), StoreError> {
    let file = File::open(dir).context("open", dir)?;
    rustix::fs::syncfs(&file).context("sync the file system of", dir)
}

/// Writes a small file of the store at `dir` as a whole. It waits in `tmp/` with the gate held: what lies there while
/// nobody is at the gate was left by a kill.
pub(super) fn write_small(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let _gate = Gate::shared(dir)?;
    write_atomically(&dir.join("tmp"), path, bytes)
}

/// Writes a small file in `staging`, which is on the same file system, and renames it to `path`.
pub(super) fn write_atomically(staging: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(staging).context("make a file in", staging)?;
    file.write_all(bytes).context("write", path)?;
    file.persist(path).map(drop).map_err(|error| StoreError::io("write", path, error.error))
}

/// The kernel's id of this boot. Without `/proc` a fresh one: what was made before is then read before it is used.
fn boot_id() -> String {
    let mut text = String::new();
    let read = File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read_to_string(&mut text));
    let id: String = text.trim().chars().filter(|c| c.is_ascii_hexdigit()).collect();
    if read.is_ok() && !id.is_empty() {
        return id;
    }
    let nanos = std::time::UNIX_EPOCH.elapsed().map(|age| age.as_nanos()).unwrap_or_default();
    format!("unknown-{nanos:x}-{:x}", std::process::id())
}
