//! What stands at the top of the store's directory: its format, its directories, and who may look into them.
//!
//! Knows nothing of what lies in the directories.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::StoreError;
use super::error::Context;
use super::root::write_atomically;

/// The layout's version. Raised when an older mkosi could no longer read the store.
const FORMAT: u32 = 1;

/// Programs for backups pass over a directory with this mark (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is the store of mkosi. Everything in it can be made again.\n";

const DIRECTORIES: [&str; 15] = [
    "failed", "files", "last", "layers", "locks", "logs", "outputs", "parts", "pool", "programs", "records", "runs",
    "stat", "tmp", "traces",
];
/// Those that other users can't look into: images have passwords in them, and programs that would run as root.
const PRIVATE: [&str; 4] = ["failed", "files", "layers", "tmp"];
const FILES: [&str; 3] = ["CACHEDIR.TAG", "lock", "version"];

/// Makes what is missing of a store.
///
/// # Errors
/// When it can't be made, holds something else, or has a newer format.
pub fn prepare(dir: &Path) -> Result<(), StoreError> {
    check_format(dir)?;
    DIRECTORIES.iter().try_for_each(|name| make(&dir.join(name), PRIVATE.contains(name)))
}

/// Makes a directory of the store, or closes one to other users that was open to them.
fn make(path: &Path, private: bool) -> Result<(), StoreError> {
    let mode = if private { 0o700 } else { 0o777 };
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let open = private && path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
            if open { fs::set_permissions(path, fs::Permissions::from_mode(mode)) } else { Ok(()) }
        }
        made => made,
    }
    .context("make", path)
}

/// Checks the format, or writes it in a new store.
fn check_format(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("version");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.trim();
            if found.parse::<u32>().is_ok_and(|format| (1..=FORMAT).contains(&format)) {
                return Ok(());
            }
            return Err(StoreError::Newer { path: dir.to_owned(), found: found.to_owned(), known: FORMAT });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", &path, error)),
    }
    // Names of ours are no objection: a first run may have been stopped half-way.
    for entry in fs::read_dir(dir).context("read", dir)? {
        let name = entry.context("read", dir)?.file_name().to_string_lossy().into_owned();
        if !DIRECTORIES.contains(&name.as_str()) && !FILES.contains(&name.as_str()) && !name.starts_with(".new-") {
            return Err(StoreError::NotAStore { path: dir.to_owned(), found: name });
        }
    }
    write_atomically(dir, &dir.join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())?;
    write_atomically(dir, &path, format!("{FORMAT}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_can_look_neither_into_a_new_store_nor_into_an_open_one() {
        let place = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
        prepare(place.path()).unwrap();
        assert_eq!((mode("layers"), mode("files"), mode("failed"), mode("tmp")), (0o700, 0o700, 0o700, 0o700));
        fs::set_permissions(place.path().join("layers"), fs::Permissions::from_mode(0o755)).unwrap();
        prepare(place.path()).unwrap();
        assert_eq!(mode("layers"), 0o700);
    }
}
