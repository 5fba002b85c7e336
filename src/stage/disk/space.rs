//! Where systemd-repart puts the files of a file system before it makes that of them: in memory if they are few. A file
//! system on a disk takes several times as long for thousands of small files that are deleted a second later.

use super::super::{Context, StageError};
use crate::sandbox::{Mount, available_memory};
use crate::store::{Entry, Kind, MergedTree};

/// The part of the available memory that may be taken, so that a few disks can be made at once.
const SHARE: u64 = 8;
/// A file system is made of the files once to learn its size, and then lies beside them.
const COPIES: u64 = 2;
/// What an entry takes beside its contents, in bytes.
const ENTRY: u64 = 4096;

/// `/var/tmp` for a run of systemd-repart on the stage's tree.
///
/// # Errors
/// When its directory can't be made.
pub fn temporary(cx: &Context<'_>) -> Result<Mount, StageError> {
    let target = "/var/tmp".into();
    let tree = cx.merged();
    if takes_attributes(&kernel()) && available_memory().is_some_and(|free| fits(&tree, free)) {
        return Ok(Mount::Tmpfs { target, mode: 0o1777 });
    }
    Ok(Mount::Bind { source: cx.scratch("var-tmp")?, target, read_only: false, optional: false })
}

/// The release of the running kernel.
fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether files in memory can have users' attributes, which systemd-repart sets: since Linux 6.6.
fn takes_attributes(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Whether copies of the tree may stand in memory, of which so many bytes are free.
fn fits(tree: &MergedTree, free: u64) -> bool {
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size, .. } if entry.hardlink.is_none() => size.saturating_add(ENTRY),
        _ => ENTRY,
    };
    let taken = tree.entries.iter().fold(0, |sum: u64, merged| sum.saturating_add(size(&merged.entry)));
    taken.saturating_mul(COPIES) <= free / SHARE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{MergedEntry, Meta};
    use crate::types::Digest;

    fn file(path: &str, size: u64) -> Entry {
        let kind = Kind::File { digest: Digest::of(path.as_bytes()), size };
        let meta = Meta { mode: 0o644, uid: 0, gid: 0, xattrs: BTreeMap::new() };
        Entry { path: path.into(), kind, meta, hardlink: None, mtime: 0 }
    }

    fn tree(entries: Vec<Entry>) -> MergedTree {
        let merged = |entry| MergedEntry { entry, source: "/".into() };
        MergedTree { entries: entries.into_iter().map(merged).collect() }
    }

    #[test]
    fn few_files_stand_in_memory() {
        let files = vec![file("a", 4096), file("b", 4096)];
        let needed = 16384 * COPIES * SHARE;
        assert!(fits(&tree(files.clone()), needed));
        assert!(!fits(&tree(files.clone()), needed - 1));
        let mut linked = files;
        linked[1].hardlink = Some(b"a".to_vec());
        assert!(fits(&tree(linked), needed - 4096 * COPIES * SHARE));
        assert!(!fits(&tree(vec![file("c", u64::MAX), file("d", u64::MAX)]), u64::MAX));
    }

    #[test]
    fn old_kernels_have_no_attributes_in_memory() {
        for (release, takes) in [("5.15.0-1-amd64", false), ("6.5.9", false), ("6.6.0", true), ("6.12.1+deb13", true)] {
            assert_eq!(takes_attributes(release), takes, "{release}");
        }
        assert!(takes_attributes("7.0-rc1") && !takes_attributes("odd"));
    }
}
