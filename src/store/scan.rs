//! Reads an overlay's upper directory, or a layer, into an index: what overlayfs' marks mean, and which attributes
//! belong to the tree.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rayon::prelude::*;

use super::index::link;
use super::walk::{self, Found, Opened, Walked, host_path};
use super::{Entry, Kind, Meta, StoreError, TreeIndex};
use crate::types::Digest;

/// overlayfs' own attributes with the `userxattr` mount option.
const OVERLAY: &[u8] = b"user.overlay.";
/// How overlayfs stores attributes of the above name that a user sets in the mount (an overlay within an overlay).
const ESCAPED: &[u8] = b"user.overlay.overlay.";
const OPAQUE: &[u8] = b"user.overlay.opaque";
const WHITEOUT: &[u8] = b"user.overlay.whiteout";

/// One entry as found.
pub(super) struct Raw {
    pub entry: Entry,
    /// Device and inode of a file with several links.
    pub link: Option<(u64, u64)>,
    /// Modification time in seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// A whiteout that is an attribute on an empty file and not a device.
    pub by_attribute: bool,
    /// A file that lacks the label that it has in `entry`.
    pub relabel: bool,
}

/// An upper directory as found, in the order of an index. Hard links are not yet resolved.
pub(super) struct Scanned {
    pub raws: Vec<Raw>,
    /// The sockets, which belong to no layer.
    pub sockets: Vec<Vec<u8>>,
    /// Keeps closed directories open while the tree is worked on.
    pub opened: Opened,
}

impl Scanned {
    /// The index of everything found.
    pub fn into_index(self) -> TreeIndex {
        index_of(self.raws)
    }
}

/// The index of entries as found, which are in its order.
pub(super) fn index_of(raws: Vec<Raw>) -> TreeIndex {
    let links: Vec<_> = raws.iter().map(|raw| raw.link).collect();
    let mut entries: Vec<Entry> = raws.into_iter().map(|raw| raw.entry).collect();
    link(&mut entries, links);
    TreeIndex { entries }
}

/// Reads the layer or upper directory at `root` with all contents.
pub(super) fn scan(root: &Path) -> Result<Scanned, StoreError> {
    scan_as(root, true)
}

/// Reads a tree that is no part of an overlay: marks of overlays in it are the tree's own attributes.
pub(super) fn scan_plain(root: &Path) -> Result<Scanned, StoreError> {
    scan_as(root, false)
}

fn scan_as(root: &Path, overlay: bool) -> Result<Scanned, StoreError> {
    let Walked { found, opened } = walk::walk(root, true, &|_| false)?;
    let read: Vec<Option<Raw>> =
        found.par_iter().map(|found| describe(root, found, overlay)).collect::<Result<_, _>>()?;
    let mut sockets = Vec::new();
    let mut raws = Vec::with_capacity(read.len());
    for (found, raw) in found.into_iter().zip(read) {
        match raw {
            Some(raw) => raws.push(raw),
            None => sockets.push(found.path),
        }
    }
    hash(root, &mut raws)?;
    Ok(Scanned { raws, sockets, opened })
}

fn describe(root: &Path, found: &Found, overlay: bool) -> Result<Option<Raw>, StoreError> {
    let Some(mut kind) = walk::kind(root, found)? else { return Ok(None) };
    let path = host_path(root, &found.path);
    let stat = &found.meta;
    let mut xattrs = walk::xattrs(&path, belongs)?;
    let opaque_mark = if overlay { xattrs.remove(OPAQUE) } else { None };
    let whiteout_mark = if overlay { xattrs.remove(WHITEOUT) } else { None };
    let mut by_attribute = false;
    match &mut kind {
        Kind::Directory { opaque } => *opaque = opaque_mark.as_deref() == Some(b"y"),
        Kind::Character { device: (0, 0) } => kind = Kind::Whiteout,
        Kind::File { size: 0, .. } if whiteout_mark.is_some() => {
            kind = Kind::Whiteout;
            by_attribute = true;
        }
        _ => {}
    }
    let meta = if kind == Kind::Whiteout {
        Meta::default()
    } else {
        let xattrs = xattrs
            .into_iter()
            .filter_map(|(name, value)| Some((if overlay { from_layer(&name)? } else { name }, value)));
        Meta {
            mode: stat.mode() & 0o7777,
            uid: stat.uid(),
            gid: stat.gid(),
            xattrs: xattrs.map(|(name, value)| canonical_attribute(name, value)).collect(),
        }
    };
    let linked = matches!(kind, Kind::File { .. } | Kind::Symlink { .. } | Kind::Fifo) && stat.nlink() > 1;
    Ok(Some(Raw {
        entry: Entry { path: found.path.clone(), kind, meta, hardlink: None, mtime: stat.mtime() },
        link: linked.then(|| (stat.dev(), stat.ino())),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        by_attribute,
        relabel: false,
    }))
}

/// Fills in the digests of all files; a file with several links is read once.
fn hash(root: &Path, raws: &mut [Raw]) -> Result<(), StoreError> {
    let mut links: HashMap<(u64, u64), usize> = HashMap::new();
    let mut files = Vec::new();
    for (at, raw) in raws.iter().enumerate() {
        if let Kind::File { .. } = raw.entry.kind {
            let first = raw.link.is_none_or(|link| *links.entry(link).or_insert(at) == at);
            if first {
                files.push(at);
            }
        }
    }
    let digests: Vec<(usize, Digest)> = files
        .into_par_iter()
        .filter_map(|at| Some((at, raws.get(at)?)))
        .map(|(at, raw)| Ok((at, walk::hash_file(&host_path(root, &raw.entry.path), true)?)))
        .collect::<Result<_, StoreError>>()?;
    let digests: HashMap<usize, Digest> = digests.into_iter().collect();
    for (at, raw) in raws.iter_mut().enumerate() {
        if let Kind::File { digest, .. } = &mut raw.entry.kind {
            let first = raw.link.and_then(|link| links.get(&link).copied()).unwrap_or(at);
            if let Some(known) = digests.get(&first) {
                *digest = *known;
            }
        }
    }
    Ok(())
}

/// Whether an attribute is read at all. `system.` holds what the file system computes, apart from the access lists.
fn belongs(name: &[u8]) -> bool {
    !name.starts_with(b"system.") || name.starts_with(b"system.posix_acl_")
}

/// An attribute's name in the tree from its name in a layer; `None` for overlayfs' own.
fn from_layer(name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(ESCAPED) {
        return Some([OVERLAY, name.get(ESCAPED.len()..)?].concat());
    }
    (!name.starts_with(OVERLAY)).then(|| name.to_vec())
}

/// An attribute's name in a layer from its name in the tree.
pub(super) fn to_layer(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY) {
        Some(rest) => [ESCAPED, rest].concat(),
        None => name.to_vec(),
    }
}

/// File capabilities set in a user namespace carry the host's id of its root (revision 3 of `vfs_cap_data` in
/// `linux/capability.h`). In the tree they are those of its own root, which revision 2 means, so that both are equal.
pub(super) fn canonical_attribute(name: Vec<u8>, value: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    if name == b"security.capability" && value.len() == 24 && value.get(3) == Some(&REVISION_3) {
        let mut short: Vec<u8> = value.into_iter().take(20).collect();
        if let Some(revision) = short.get_mut(3) {
            *revision = REVISION_2;
        }
        return (name, short);
    }
    (name, value)
}

/// Removes the mark of an opaque directory.
pub(super) fn clear_opaque(path: &Path) -> Result<(), StoreError> {
    match rustix::fs::lremovexattr(path, "user.overlay.opaque") {
        Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
        Err(error) => Err(StoreError::io("clear the opaque mark of", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_an_inner_overlay_survive_and_our_own_do_not() {
        assert_eq!(from_layer(b"user.overlay.origin"), None);
        assert_eq!(from_layer(b"user.overlay.overlay.opaque").as_deref(), Some(&b"user.overlay.opaque"[..]));
        assert_eq!(to_layer(b"user.overlay.opaque"), b"user.overlay.overlay.opaque");
        assert_eq!(to_layer(b"user.mime"), b"user.mime");
    }

    #[test]
    fn capabilities_of_a_user_namespace_are_those_of_its_root() {
        let short = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        let mut long = short.clone();
        long[3] = 3;
        long.extend(100_000u32.to_le_bytes());
        let name = b"security.capability".to_vec();
        assert_eq!(canonical_attribute(name.clone(), long).1, short);
        assert_eq!(canonical_attribute(name, short.clone()).1, short);
    }
}
