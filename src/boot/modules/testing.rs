//! Trees and modules that tests make up.

use std::path::{Path, PathBuf};

use crate::store::{Entry, Kind, MergedEntry, MergedTree, Meta, path_order};
use crate::types::Digest;

fn entry(path: &str, kind: Kind) -> MergedEntry {
    let entry = Entry { path: path.into(), kind, meta: Meta::default(), hardlink: None, mtime: 0 };
    MergedEntry { entry, source: PathBuf::new() }
}

pub fn dir(path: &str) -> MergedEntry {
    entry(path, Kind::Directory { opaque: false })
}

pub fn file(path: &str) -> MergedEntry {
    entry(path, Kind::File { digest: Digest::of(path.as_bytes()), size: 1 })
}

pub fn link(path: &str, target: &str) -> MergedEntry {
    entry(path, Kind::Symlink { target: target.into() })
}

/// A tree of these entries, with the directories that lead to them.
pub fn tree<const N: usize>(entries: [MergedEntry; N]) -> MergedTree {
    let mut found = std::collections::BTreeMap::new();
    for one in entries {
        let path = String::from_utf8(one.entry.path.clone()).unwrap();
        for (at, _) in path.match_indices('/') {
            found.entry(path[..at].to_owned()).or_insert_with(|| dir(&path[..at]));
        }
        found.insert(path, one);
    }
    let mut entries: Vec<MergedEntry> = found.into_values().collect();
    entries.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    MergedTree { entries }
}

/// A tree of files and links in a directory of the host. A content that begins with an arrow is the target of a link.
pub fn tree_in(dir: &Path, files: &[(&str, &[u8])]) -> MergedTree {
    let mut found = std::collections::BTreeMap::new();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            found.insert(path[..at].to_owned(), self::dir(&path[..at]));
        }
        if let Some(target) = content.strip_prefix("->".as_bytes()) {
            found.insert((*path).to_owned(), link(path, std::str::from_utf8(target).unwrap()));
            continue;
        }
        let source = dir.join(path);
        std::fs::create_dir_all(source.parent().unwrap()).unwrap();
        std::fs::write(&source, content).unwrap();
        let kind = Kind::File { digest: Digest::of(content), size: content.len() as u64 };
        found.insert((*path).to_owned(), MergedEntry { source, ..entry(path, kind) });
    }
    let mut entries: Vec<MergedEntry> = found.into_values().collect();
    entries.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    MergedTree { entries }
}

/// The least ELF file (elf(5), 64 bits, little-endian, relocatable) with a section `.modinfo`.
pub fn elf(modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + modinfo.len());
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend([0_u64, 0, headers_at as u64].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 0, 0, 64, 3, 2].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(modinfo.as_bytes());
    bytes.extend(names);
    bytes.resize(headers_at, 0);
    bytes.extend([0; 64]);
    for (name, kind, at, size) in [(1_u32, 1_u32, info_at, modinfo.len()), (10, 3, names_at, names.len())] {
        bytes.extend([name, kind].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([0_u64, 0, at as u64, size as u64].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([0; 8]);
        bytes.extend([1_u64, 0].iter().flat_map(|n| n.to_le_bytes()));
    }
    bytes
}
