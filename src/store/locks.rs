//! One lock for each key, so that two builds at once don't do the same action twice.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::Context;
use super::{Store, StoreError};
use crate::types::Digest;

/// How long to sleep between two tries: short at first, then longer.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The right to make what has this key; freed when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While still locked: who waits sees that the file is another one, or none, and starts over.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Takes the lock of a key and waits while another thread or process has it. Look for the record again once it
    /// is taken: the other one may have made it. `cancelled` is asked between tries.
    ///
    /// # Errors
    /// [`StoreError::Cancelled`] when the wait was cancelled, or when the lock can't be made.
    pub fn lock_key(&self, key: &Digest, cancelled: impl Fn() -> bool) -> Result<KeyLock, StoreError> {
        let path = self.dir.join("locks").join(key.hex());
        let mut wait = FIRST_WAIT;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .context("open the lock", &path)
                .map_err(|error| error.in_store(&self.dir))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let ours = file.metadata().context("read", &path)?;
                    // The last owner may have removed the file between our opening and locking it.
                    if fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                        return Ok(KeyLock { path, _file: file });
                    }
                    continue;
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(StoreError::io("lock", &path, error)),
            }
            if cancelled() {
                return Err(StoreError::Cancelled { path });
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
