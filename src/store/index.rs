//! The index of a tree: every entry with its metadata and content digest, sorted by path.
//!
//! An index describes one layer (with whiteouts and opaque directories), or a whole tree after merging. Its digest
//! is the tree's digest. Modification times are kept for archives and copies and are no part of the digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Digest, Encoder};

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
    /// The path of the first entry (in the order of paths) that is the same file, where it has several links.
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
