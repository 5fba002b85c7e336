//! What actions looked at in their sources, by the key of all their other inputs: `traces/<that key>/<shape>`.
//!
//! A file is named by the digest of its bytes, so one that is damaged is known and passed over. Records name the shapes
//! that lead to them; clean-up removes the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::error::Context;
use super::gc::{list, name};
use super::root::write_small;
use super::{Store, StoreError, work};
use crate::reads::Shape;
use crate::types::Digest;

/// How many shapes are kept for one key. Each is asked of the sources before an action runs.
const SHAPES: usize = 32;

impl Store {
    /// The shapes that are known for a key, the one used last first. Damaged ones are passed over.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn shapes(&self, pre: &Digest) -> Result<Vec<(Digest, Shape)>, StoreError> {
        let mut shapes = Vec::new();
        for (_, digest) in self.shape_names(pre)? {
            if let Some(shape) = self.shape(pre, &digest)? {
                shapes.push((digest, shape));
            }
        }
        Ok(shapes)
    }

    /// One shape.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn shape(&self, pre: &Digest, digest: &Digest) -> Result<Option<Shape>, StoreError> {
        let path = self.shapes_place(pre).join(digest.hex());
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Shape::decode(&bytes)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// Notes that a shape led to a result.
    pub fn use_shape(&self, pre: &Digest, digest: &Digest) {
        work::touch(&self.shapes_place(pre).join(digest.hex()));
    }

    /// Keeps a shape, after the record that it leads to. The ones used longest ago go when there are too many.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put_shape(&self, pre: &Digest, shape: &Shape) -> Result<(), StoreError> {
        let dir = self.shapes_place(pre);
        let put = || {
            let bytes = self.encode_shape(shape)?;
            let path = dir.join(Digest::of(&bytes).hex());
            if fs::read(&path).is_ok_and(|known| known == bytes) {
                work::touch(&path);
                return Ok(());
            }
            fs::create_dir_all(&dir).context("make", &dir)?;
            match write_small(&self.dir, &path, &bytes) {
                // A clean-up has removed the empty directory meanwhile.
                Err(_) if !dir.exists() => {
                    fs::create_dir_all(&dir).context("make", &dir)?;
                    write_small(&self.dir, &path, &bytes)?;
                }
                other => other?,
            }
            for (_, old) in self.shape_names(pre)?.into_iter().skip(SHAPES) {
                // Another run may have removed it just now.
                let _ = fs::remove_file(dir.join(old.hex()));
            }
            Ok(())
        };
        put().map_err(|error: StoreError| error.in_store(&self.dir))
    }

    /// The digest by which a shape is kept.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn shape_digest(&self, shape: &Shape) -> Result<Digest, StoreError> {
        Ok(Digest::of(&self.encode_shape(shape)?))
    }

    fn encode_shape(&self, shape: &Shape) -> Result<Vec<u8>, StoreError> {
        let encode = |why| StoreError::Encode { what: "what was read", path: self.dir.join("traces"), why };
        shape.encode().map_err(encode)
    }

    /// Removes the shapes that no record leads to; for clean-up.
    pub(super) fn drop_shapes(&self, kept: &BTreeSet<(Digest, Digest)>) -> Result<(), StoreError> {
        for dir in list(&self.dir.join("traces"))? {
            let pre: Option<Digest> = name(&dir).parse().ok();
            for path in list(&dir)? {
                let digest: Option<Digest> = name(&path).parse().ok();
                if !pre.zip(digest).is_some_and(|place| kept.contains(&place)) {
                    fs::remove_file(&path).context("remove", &path)?;
                }
            }
            // One that still has something in it stays.
            let _ = fs::remove_dir(&dir);
        }
        Ok(())
    }

    fn shapes_place(&self, pre: &Digest) -> PathBuf {
        self.dir.join("traces").join(pre.hex())
    }

    /// The names of a key's shapes, the one used last first.
    fn shape_names(&self, pre: &Digest) -> Result<Vec<(SystemTime, Digest)>, StoreError> {
        let mut names = Vec::new();
        for path in list(&self.shapes_place(pre))? {
            let Ok(digest) = name(&path).parse() else { continue };
            let used = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            names.push((used, digest));
        }
        names.sort_by(|a: &(SystemTime, Digest), b| b.cmp(a));
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::reads::{Access, Aspect};
    use crate::store::testing::store;
    use crate::store::{GcPolicy, Read, Record};

    fn shape(path: &str) -> Shape {
        let access = Access { path: path.as_bytes().to_vec(), aspects: Aspect::Name.bit() | Aspect::Content.bit() };
        Shape(BTreeMap::from([("file/BuildSources/00".to_owned(), vec![access])]))
    }

    #[test]
    fn the_shapes_used_last_are_kept() {
        let test = store();
        let pre = Digest::of(b"pre");
        for number in 0..SHAPES + 5 {
            test.store.put_shape(&pre, &shape(&number.to_string())).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            // Used again and again, so it is never the oldest.
            test.store.use_shape(&pre, &test.store.shape_digest(&shape("0")).unwrap());
        }
        let known: Vec<Shape> = test.store.shapes(&pre).unwrap().into_iter().map(|(_, shape)| shape).collect();
        assert_eq!(known.len(), SHAPES);
        assert!(known.contains(&shape("0")) && known.contains(&shape("36")) && !known.contains(&shape("1")));
        assert_eq!(test.store.shapes(&Digest::of(b"other")).unwrap(), []);
    }

    #[test]
    fn a_damaged_shape_is_none() {
        let test = store();
        let pre = Digest::of(b"pre");
        test.store.put_shape(&pre, &shape("a")).unwrap();
        let digest = test.store.shape_digest(&shape("a")).unwrap();
        assert_eq!(test.store.shapes(&pre).unwrap(), [(digest, shape("a"))]);
        fs::write(test.store.shapes_place(&pre).join(digest.hex()), "x").unwrap();
        assert_eq!(test.store.shapes(&pre).unwrap(), []);
        test.store.put_shape(&pre, &shape("a")).unwrap();
        assert_eq!(test.store.shapes(&pre).unwrap().len(), 1, "it is written again");
    }

    #[test]
    fn clean_up_keeps_the_shapes_of_records_alone() {
        let test = store();
        let (pre, key) = (Digest::of(b"pre"), Digest::of(b"key"));
        for path in ["kept", "gone"] {
            test.store.put_shape(&pre, &shape(path)).unwrap();
        }
        test.store.put_shape(&Digest::of(b"old"), &shape("x")).unwrap();
        let read = Read {
            pre,
            shape: test.store.shape_digest(&shape("kept")).unwrap(),
            seen: test.store.add_bytes(b"seen").unwrap(),
        };
        let record = Record {
            key,
            kind: "postinst".to_owned(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            duration_ms: 0,
            size: 0,
            finished: 0,
            read: Some(Box::new(read.clone())),
        };
        test.store.put_record(&record).unwrap();
        test.store.gc(&GcPolicy::default()).unwrap();
        assert_eq!(test.store.record(&key).unwrap(), Some(record));
        assert!(test.store.file(&read.seen).is_some());
        assert_eq!(test.store.shapes(&pre).unwrap(), [(read.shape, shape("kept"))]);
        assert!(!test.store.shapes_place(&Digest::of(b"old")).exists());
    }
}
