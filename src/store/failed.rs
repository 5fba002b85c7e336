//! What a stage that failed has left in its work directory: kept for a look at it, one for each place in a project.
//!
//! Never a result: nothing here enters a key or a record. A directory takes the place of the one before in one step, so
//! that a kill leaves the old or the new one. Whoever looks at one holds its lock shared; whoever removes it alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::Context;
use super::gc::list;
use super::{Slot, Store, StoreError, WorkDir};
use crate::types::{Digest, Encoder};

/// How many are kept in a store. Those that failed longest ago go first.
const MOST: usize = 8;
/// The file that describes one, in its directory.
const ABOUT: &str = "failed.json";

/// What is written down of a failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    slot: Slot,
    layers: Vec<Digest>,
    why: String,
}

/// What a failed stage has left. It is not removed while this lives.
#[derive(Debug)]
pub struct Failed {
    /// The work directory of the stage, as it left it; its changes to the tree are in `upper`.
    pub dir: PathBuf,
    /// The layers of the tree that it worked on, lowest first.
    pub layers: Vec<Digest>,
    /// Why it failed, in words.
    pub why: String,
    _lock: File,
}

impl Store {
    /// Keeps the work directory of a stage that failed, in the place of what an earlier failure there left. `layers` are
    /// those of the tree that it worked on. False where it was not kept: the disk has too little room, or somebody looks
    /// at the earlier one just now.
    ///
    /// # Errors
    /// When the directory can't be described or moved.
    pub fn keep_failed(&self, slot: &Slot, work: WorkDir, layers: &[Digest], why: &str) -> Result<bool, StoreError> {
        if !roomy(work.path()) {
            return Ok(false);
        }
        let about = About { slot: slot.clone(), layers: layers.to_vec(), why: why.to_owned() };
        let path = work.join(ABOUT);
        let json = serde_json::to_vec(&about).map_err(|error| StoreError::Encode {
            what: "what failed",
            path: path.clone(),
            why: error.to_string(),
        })?;
        fs::write(&path, json).context("write", &path)?;
        let place = self.failed_place(slot);
        {
            // With the gate held, so that clean-up sees a directory here or there.
            let _gate = self.gate()?;
            match alone(&place)? {
                Taken::Nothing => fs::rename(work.path(), &place).context("keep", &place)?,
                Taken::Busy => return Ok(false),
                // What was there is where the work directory was, and goes with it.
                Taken::Yes(_lock) => exchange(work.path(), &place)?,
            }
        }
        drop(work);
        let mut kept = self.all_failed()?;
        kept.sort();
        let surplus = kept.len().saturating_sub(MOST);
        for (_, path) in kept.into_iter().take(surplus) {
            self.remove_failed(&path)?;
        }
        Ok(true)
    }

    /// What the last run of the stage at this place left, if it failed and that was kept.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn failed(&self, slot: &Slot) -> Result<Option<Failed>, StoreError> {
        let dir = self.failed_place(slot);
        let lock = match File::open(&dir) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &dir, error)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(StoreError::io("lock", &dir, error)),
        }
        // One that went away, or was replaced, between the two steps is described by nothing or by another.
        let about = fs::read(dir.join(ABOUT)).ok().and_then(|text| serde_json::from_slice::<About>(&text).ok());
        Ok(about.filter(|about| about.slot == *slot).map(|about| Failed {
            dir,
            layers: about.layers,
            why: about.why,
            _lock: lock,
        }))
    }

    /// Removes what a failure at this place left: its stage has succeeded.
    ///
    /// # Errors
    /// When it can't be moved away.
    pub fn forget_failed(&self, slot: &Slot) -> Result<(), StoreError> {
        let place = self.failed_place(slot);
        if place.symlink_metadata().is_err() { Ok(()) } else { self.remove_failed(&place) }
    }

    /// Forgets the failures of a project.
    pub(super) fn forget_failed_of(&self, project: &str) -> Result<(), StoreError> {
        for (_, path) in self.all_failed()? {
            let about = fs::read(path.join(ABOUT)).ok().and_then(|text| serde_json::from_slice::<About>(&text).ok());
            if about.is_none_or(|about| about.slot.project == project) {
                self.remove_failed(&path)?;
            }
        }
        Ok(())
    }

    /// Everything that is kept, with the time of its failure.
    pub(super) fn all_failed(&self) -> Result<Vec<(SystemTime, PathBuf)>, StoreError> {
        let time = |path: &Path| {
            fs::metadata(path.join(ABOUT)).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        Ok(list(&self.dir.join("failed"))?.into_iter().map(|path| (time(&path), path)).collect())
    }

    /// Moves one out of sight and removes it, unless somebody looks at it.
    fn remove_failed(&self, path: &Path) -> Result<(), StoreError> {
        let _gone = {
            let _gate = self.gate()?;
            self.move_failed_away(path)?
        };
        Ok(())
    }

    /// As [`Store::move_away`], for one that nobody looks at. With the gate held.
    pub(super) fn move_failed_away(&self, path: &Path) -> Result<Option<WorkDir>, StoreError> {
        match alone(path)? {
            Taken::Yes(_lock) => self.move_away(path).map(Some),
            Taken::Nothing | Taken::Busy => Ok(None),
        }
    }

    fn failed_place(&self, slot: &Slot) -> PathBuf {
        let Slot { project, image, node } = slot;
        let name = Encoder::new("mkosi.slot", 1).str(project).str(image).str(node).finish();
        self.dir.join("failed").join(name.hex())
    }
}

enum Taken {
    Nothing,
    Busy,
    Yes(File),
}

/// Takes a directory's lock alone.
fn alone(path: &Path) -> Result<Taken, StoreError> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Taken::Nothing),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Taken::Yes(lock)),
        Err(Errno::WOULDBLOCK) => Ok(Taken::Busy),
        Err(error) => Err(StoreError::io("lock", path, error)),
    }
}

/// Lets two directories change places.
fn exchange(new: &Path, old: &Path) -> Result<(), StoreError> {
    match rustix::fs::renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        // A file system that can't: a kill between the two leaves none, which is as good.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::rename(old, new.join("before")).context("move away", old)?;
            fs::rename(new, old).context("keep", old)
        }
        other => other.context("keep", old),
    }
}

/// Whether the disk has more room left than the directory takes.
fn roomy(dir: &Path) -> bool {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return false };
    let room = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mut size = 0_u64;
    let mut pending = vec![dir.to_owned()];
    while let Some(current) = pending.pop() {
        // What can't be listed is small, or never mind: this is an estimate.
        for entry in fs::read_dir(&current).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            size = size.saturating_add(std::os::unix::fs::MetadataExt::blocks(&meta).saturating_mul(512));
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    size < room
}
