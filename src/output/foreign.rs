//! The foreign range of user ids: trees that belong to nobody on this machine, to be mapped to a range of a container or a
//! virtual machine when they are used (<https://systemd.io/UIDS-GIDS>).

use crate::store::Entry;

use super::copy::path_of;
use super::{Error, Result};

/// The first id of the range: root's in the tree.
pub const FIRST: u32 = 0x7ffe_0000;

/// How many ids the range has.
pub const COUNT: u32 = 0x1_0000;

/// The version of an access list, and the tags of those of its entries that name an id (`linux/posix_acl_xattr.h`).
const ACL_VERSION: [u8; 4] = [2, 0, 0, 0];
const ACL_TAGS: [[u8; 2]; 2] = [[2, 0], [8, 0]];

/// Moves the ids of entries into the range: owners, groups, and those in access lists.
///
/// # Errors
/// An id that has no place there.
pub(super) fn shift(entries: &mut [Entry]) -> Result<()> {
    for entry in entries {
        let shifted = |id: u32| {
            let shifted = FIRST.checked_add(id).filter(|_| id < COUNT);
            shifted.ok_or_else(|| Error::Foreign { path: path_of(entry).to_owned(), id })
        };
        let (uid, gid) = (shifted(entry.meta.uid)?, shifted(entry.meta.gid)?);
        let mut xattrs = entry.meta.xattrs.clone();
        for (_, list) in xattrs.iter_mut().filter(|(name, _)| name.starts_with(b"system.posix_acl_")) {
            let Some(rest) = list.strip_prefix(&ACL_VERSION) else { continue };
            let mut moved = ACL_VERSION.to_vec();
            for part in rest.chunks(8) {
                match *part {
                    [t0, t1, p0, p1, ref id @ ..] if ACL_TAGS.contains(&[t0, t1]) && id.len() == 4 => {
                        let id = id.iter().rev().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
                        moved.extend([t0, t1, p0, p1]);
                        moved.extend(shifted(id)?.to_le_bytes());
                    }
                    _ => moved.extend(part),
                }
            }
            *list = moved;
        }
        entry.meta.xattrs = xattrs;
        (entry.meta.uid, entry.meta.gid) = (uid, gid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{every_kind, tree_of};

    #[test]
    fn ids_are_moved_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        every_kind(dir.path());
        let mut entries: Vec<Entry> = tree_of(dir.path()).entries.into_iter().map(|merged| merged.entry).collect();
        assert!(shift(&mut entries.clone()).is_err(), "one has an id beyond the range");
        entries.retain(|entry| entry.meta.uid < COUNT);
        let before = entries.clone();
        let list = |user: u32| {
            let mut list = ACL_VERSION.to_vec();
            for (tag, id) in [(1_u16, u32::MAX), (2, user), (4, u32::MAX), (8, 7), (16, u32::MAX), (32, u32::MAX)] {
                list.extend([tag.to_le_bytes(), 6_u16.to_le_bytes()].concat());
                list.extend(id.to_le_bytes());
            }
            list
        };
        let name = b"system.posix_acl_access".to_vec();
        entries[0].meta.xattrs.insert(name.clone(), list(1000));
        shift(&mut entries).unwrap();
        for (entry, before) in entries.iter().zip(&before) {
            assert_eq!((entry.meta.uid, entry.meta.gid), (FIRST + before.meta.uid, FIRST + before.meta.gid));
        }
        let moved = &entries[0].meta.xattrs[&name];
        assert_eq!(moved.len(), list(0).len());
        assert_eq!(moved[12..20], [[2, 0, 6, 0], (FIRST + 1000).to_le_bytes()].concat());
        assert_eq!(moved[28..36], [[8, 0, 6, 0], (FIRST + 7).to_le_bytes()].concat());
        assert_eq!(moved[20..28], [[4, 0, 6, 0], [0xff; 4]].concat());
        // They are there already.
        let told = shift(&mut entries).unwrap_err().to_string();
        assert!(told.contains(&FIRST.to_string()) && told.contains("ForeignUIDRange="), "{told}");
    }
}
