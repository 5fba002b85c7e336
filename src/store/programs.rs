//! What the programs of the host were made of that actions ran, `programs/<digest of the program>`: to say which part of
//! one has changed since. For explanations only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::gc::{list, name};
use super::root::write_small;
use super::{Store, StoreError};
use crate::types::Digest;

impl Store {
    /// The parts of a program, if they are known.
    pub fn program(&self, digest: &Digest) -> Option<BTreeMap<String, Digest>> {
        let bytes = fs::read(self.dir.join("programs").join(digest.hex())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps the parts of a program.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn put_program(&self, digest: &Digest, parts: &BTreeMap<String, Digest>) -> Result<(), StoreError> {
        let path = self.dir.join("programs").join(digest.hex());
        if path.exists() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(parts).map_err(|error| StoreError::Encode {
            what: "a program's parts",
            path: path.clone(),
            why: error.to_string(),
        })?;
        write_small(&self.dir, &path, &bytes).map_err(|error| error.in_store(&self.dir))
    }

    /// Removes all that are none of these; for clean-up.
    pub(super) fn drop_programs(&self, kept: &BTreeSet<Digest>) {
        for path in list(&self.dir.join("programs")).unwrap_or_default() {
            if !name(&path).parse().is_ok_and(|digest| kept.contains(&digest)) {
                // Another run may have removed it just now.
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::store;
    use crate::store::{GcPolicy, Record};

    #[test]
    fn parts_are_kept_as_long_as_a_record_has_the_program() {
        let test = store();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let parts = BTreeMap::from([("program".to_owned(), Digest::of(b"p"))]);
        test.store.put_program(&one, &parts).unwrap();
        test.store.put_program(&two, &parts).unwrap();
        let record = Record {
            key: Digest::of(b"key"),
            kind: "x".to_owned(),
            inputs: BTreeMap::from([("tool/x".to_owned(), one)]),
            outputs: BTreeMap::new(),
            duration_ms: 0,
            size: 0,
            finished: 0,
            read: None,
        };
        test.store.put_record(&record).unwrap();
        test.store.gc(&GcPolicy::default()).unwrap();
        assert_eq!(test.store.program(&one), Some(parts));
        assert_eq!(test.store.program(&two), None);
        fs::write(test.store.dir().join("programs").join(one.hex()), "{").unwrap();
        assert_eq!(test.store.program(&one), None);
    }
}
