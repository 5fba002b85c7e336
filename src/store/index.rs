//! The index of a tree: every entry with its metadata and content digest, sorted by path.
//!
//! An index describes one layer (with whiteouts and opaque directories), or a whole tree after merging. Its digest
//! is the tree's digest. Modification times are kept for archives and copies and are no part of the digest.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::types::{Digest, Encoder};

/// The order of an index: paths compared component by component, so that a directory is followed by all that it
/// holds. The same as comparing bytes with the slash below every other byte.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match a.iter().zip(b).find(|(x, y)| x != y) {
        Some((x, y)) => rank(x).cmp(&rank(y)),
        None => a.len().cmp(&b.len()),
    }
}

/// Whether `path` lies below the directory `dir` (and is not `dir` itself).
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) if dir.is_empty() => !rest.is_empty(),
        Some(rest) => rest.first() == Some(&b'/'),
        None => false,
    }
}

/// The path of the directory that holds `path`; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    Some(path.get(..end).unwrap_or_default())
}

/// Sets `hardlink` of all entries from what tells which file each is. Entries without a mark have one link.
pub(super) fn link<K: Hash + Eq>(entries: &mut [Entry], marks: impl IntoIterator<Item = Option<K>>) {
    let mut first: HashMap<K, Vec<u8>> = HashMap::new();
    for (entry, mark) in entries.iter_mut().zip(marks) {
        entry.hardlink = mark.and_then(|mark| match first.entry(mark) {
            std::collections::hash_map::Entry::Occupied(known) => Some(known.get().clone()),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(entry.path.clone());
                None
            }
        });
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory; opaque if it hides the directory of the same name in lower layers.
    Directory {
        /// Hides what lower layers have below this path.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// The content's digest.
        digest: Digest,
        /// The content's size in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The target's bytes.
        target: Vec<u8>,
    },
    /// A character device.
    Character {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    Block {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Hides the entry of the same path in lower layers.
    Whiteout,
}

/// Owner, mode and attributes of an entry. A whiteout's is all zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits with set-id and sticky bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes without overlayfs' own, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path below the root without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, mode and attributes.
    pub meta: Meta,
    /// For a further link of a file: the path of the first entry (in the order of paths) that is the same file. The
    /// first entry itself has none.
    pub hardlink: Option<Vec<u8>>,
    /// Modification time in seconds since 1970; no part of the digest.
    pub mtime: i64,
}

/// The entries of a tree, sorted by path bytes component by component, the root first. A directory comes right
/// before what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeIndex {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl TreeIndex {
    /// The entry at `path` (bytes below the root without a leading slash).
    pub fn lookup(&self, path: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| path_order(&entry.path, path)).ok()?;
        self.entries.get(at)
    }

    /// The sum of the sizes of all files, a file with several links counted once, in bytes.
    pub fn content_size(&self) -> u64 {
        self.entries
            .iter()
            .filter(|entry| entry.hardlink.is_none())
            .map(|entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 })
            .sum()
    }

    /// The tree's digest over everything but times.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new("mkosi.tree", 1);
        encoder.list(self.entries.len());
        for entry in &self.entries {
            encoder.bytes(&entry.path);
            match &entry.kind {
                Kind::Directory { opaque } => encoder.str("directory").number(u64::from(*opaque)),
                Kind::File { digest, size } => encoder.str("file").number(*size).digest(digest),
                Kind::Symlink { target } => encoder.str("symlink").bytes(target),
                Kind::Character { device: (major, minor) } => {
                    encoder.str("character").number(u64::from(*major)).number(u64::from(*minor))
                }
                Kind::Block { device: (major, minor) } => {
                    encoder.str("block").number(u64::from(*major)).number(u64::from(*minor))
                }
                Kind::Fifo => encoder.str("fifo"),
                Kind::Socket => encoder.str("socket"),
                Kind::Whiteout => encoder.str("whiteout"),
            };
            let meta = &entry.meta;
            encoder.number(u64::from(meta.mode)).number(u64::from(meta.uid)).number(u64::from(meta.gid));
            encoder.list(meta.xattrs.len());
            for (name, value) in &meta.xattrs {
                encoder.bytes(name).bytes(value);
            }
            encoder.bytes(entry.hardlink.as_deref().unwrap_or_default());
        }
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path.into(), kind, meta: Meta::default(), hardlink: None, mtime: 0 }
    }

    #[test]
    fn a_directory_comes_right_before_what_it_holds() {
        let mut paths: Vec<&[u8]> = vec![b"a.b", b"a/z", b"a", b"", b"a/b/c", b"a/b", b"ab", b"a-b"];
        paths.sort_by(|a, b| path_order(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c", b"a/z", b"a-b", b"a.b", b"ab"]);
        assert!(is_below(b"a/b", b"a") && !is_below(b"ab", b"a") && !is_below(b"a", b"a") && is_below(b"a", b""));
        assert_eq!(parent(b"a/b"), Some(&b"a"[..]));
        assert_eq!(parent(b"a"), Some(&b""[..]));
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn every_property_but_time_is_in_the_digest() {
        let file = Kind::File { digest: Digest::of(b"x"), size: 1 };
        let base = entry("f", file.clone());
        let digest = |entry: &Entry| TreeIndex { entries: vec![entry.clone()] }.digest();
        let mut later = base.clone();
        later.mtime = 7;
        assert_eq!(digest(&base), digest(&later));
        let mut others = vec![base.clone()];
        for kind in [
            Kind::File { digest: Digest::of(b"y"), size: 1 },
            Kind::File { digest: Digest::of(b"x"), size: 2 },
            Kind::Symlink { target: b"x".to_vec() },
            Kind::Symlink { target: b"y".to_vec() },
            Kind::Character { device: (1, 3) },
            Kind::Character { device: (1, 5) },
            Kind::Block { device: (1, 3) },
            Kind::Directory { opaque: false },
            Kind::Directory { opaque: true },
            Kind::Fifo,
            Kind::Socket,
            Kind::Whiteout,
        ] {
            others.push(entry("f", kind));
        }
        others.push(entry("g", file.clone()));
        for change in [
            |entry: &mut Entry| entry.meta.mode = 0o644,
            |entry: &mut Entry| entry.meta.uid = 1,
            |entry: &mut Entry| entry.meta.gid = 1,
            |entry: &mut Entry| entry.hardlink = Some(b"a".to_vec()),
            |entry: &mut Entry| drop(entry.meta.xattrs.insert(b"user.a".to_vec(), b"1".to_vec())),
            |entry: &mut Entry| drop(entry.meta.xattrs.insert(b"user.a".to_vec(), b"2".to_vec())),
        ] {
            let mut other = base.clone();
            change(&mut other);
            others.push(other);
        }
        let digests: std::collections::BTreeSet<_> = others.iter().map(digest).collect();
        assert_eq!(digests.len(), others.len());
    }
}
