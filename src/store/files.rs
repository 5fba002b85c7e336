//! Single files named by their content: `files/<first two digits>/<digest>`, mode 0444.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::Context;
use super::root::{Gate, Use, locked};
use super::{Store, StoreError, walk, work};
use crate::types::Digest;

impl Store {
    /// Moves a finished file, which has to be on the store's file system, into the store.
    ///
    /// # Errors
    /// When it can't be read or moved. The store is valid all the same.
    pub fn add_file(&self, path: &Path) -> Result<Digest, StoreError> {
        self.enter_file(path).map_err(|error| error.in_store(&self.dir))
    }

    /// Puts bytes into the store.
    ///
    /// # Errors
    /// When they can't be written. The store is valid all the same.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let work = self.work_dir("bytes")?;
        let path = work.join("bytes");
        fs::write(&path, bytes).context("write", &path).map_err(|error| error.in_store(&self.dir))?;
        self.add_file(&path)
    }

    fn enter_file(&self, path: &Path) -> Result<Digest, StoreError> {
        let digest = walk::hash_file(path, true)?;
        let place = self.file_place(&digest);
        self.will_add()?;
        fs::set_permissions(path, Permissions::from_mode(0o444)).context("set the mode of", path)?;
        work::touch(path);
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).context("make", dir)?;
        }
        let known = {
            let _gate = self.gate()?;
            self.using(Use::File(digest))?;
            place.exists()
        };
        // One that is there may have reached the disk, which ours has not: it stays, unless it is in doubt and damaged.
        if known && self.sound(&Use::File(digest))? {
            fs::remove_file(path).context("remove", path)?;
        } else {
            if known {
                self.discard_file(&digest)?;
            }
            let _gate = self.gate()?;
            fs::rename(path, &place).context("move into the store", path)?;
        }
        locked(&self.checked).insert(Use::File(digest));
        Ok(digest)
    }

    /// The path of the file with this content, if the store has it. Never to be written.
    pub fn file(&self, digest: &Digest) -> Option<PathBuf> {
        let place = self.file_place(digest);
        let _gate = self.gate().ok()?;
        if !place.exists() {
            return None;
        }
        self.using(Use::File(*digest)).ok()?;
        Some(place)
    }

    pub(super) fn file_place(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (shard, _) = hex.split_at(2);
        self.dir.join("files").join(shard).join(&hex)
    }

    /// Removes a file that is damaged.
    pub(super) fn discard_file(&self, digest: &Digest) -> Result<(), StoreError> {
        let place = self.file_place(digest);
        self.drop_referring(&Use::File(*digest))?;
        locked(&self.checked).remove(&Use::File(*digest));
        let _gate = Gate::alone(&self.dir)?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &place, error)),
            _ => Ok(()),
        }
    }

    /// Reads a file in full and compares it with its name. `false` also where there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn verify_file(&self, digest: &Digest) -> Result<bool, StoreError> {
        let place = self.file_place(digest);
        if !place.exists() {
            return Ok(false);
        }
        Ok(walk::hash_file(&place, true)? == *digest)
    }
}
