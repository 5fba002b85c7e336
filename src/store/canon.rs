//! The canonical form of a layer: the difference between the tree below and the tree that the layer makes of it, and
//! nothing else.
//!
//! The same change can leave different upper directories: a file may be copied up and not changed, a directory
//! removed and made again with the same files. In the canonical form
//! - a file or directory that equals the lower one is left out, unless a directory leads to a change;
//! - a whiteout stands only where the lower tree has something;
//! - no directory is opaque: what it hid is whited out name by name.
//!
//! So the digest tells what changed, whichever way it was done and on whichever backend.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::error::Context;
use super::index::{parent, path_order};
use super::scan::{self, Raw, Scanned, index_of};
use super::walk::{Opened, host_path};
use super::{Entry, Kind, MergedTree, Meta, StoreError, TreeIndex, work};

/// What has to be done to an upper directory, and what remains of it.
#[derive(Default)]
pub(super) struct Plan {
    /// What remains, in the order of an index.
    pub kept: Vec<Raw>,
    /// Paths of non-directories to remove.
    files: Vec<Vec<u8>>,
    /// Paths of directories to remove, parents first.
    directories: Vec<Vec<u8>>,
    /// Directories that are opaque and shall not be.
    opaque: Vec<Vec<u8>>,
    /// Whiteouts to make.
    whiteouts: Vec<Vec<u8>>,
    /// Keeps closed directories open until all is done.
    _opened: Opened,
}

/// Compares what was found in an upper directory with the tree below.
pub(super) fn plan(lower: &MergedTree, scanned: Scanned) -> Plan {
    let changed = changes(lower, &scanned.raws);
    let hidden = hidden_by_opaque(lower, &scanned.raws);
    let mut leading: HashSet<Vec<u8>> = HashSet::from([Vec::new()]);
    let paths = scanned.raws.iter().zip(&changed).filter(|(_, changed)| **changed).map(|(raw, _)| &raw.entry.path);
    for path in paths.chain(&hidden) {
        let mut dir = parent(path);
        while let Some(at) = dir {
            if !leading.insert(at.to_vec()) {
                break;
            }
            dir = parent(at);
        }
    }
    let mut plan = Plan { files: scanned.sockets, _opened: scanned.opened, ..Plan::default() };
    for (mut raw, changed) in scanned.raws.into_iter().zip(changed) {
        let directory = matches!(raw.entry.kind, Kind::Directory { .. });
        let leads = directory && leading.contains(&raw.entry.path);
        if !changed && !leads {
            if directory { &mut plan.directories } else { &mut plan.files }.push(raw.entry.path);
            continue;
        }
        if let Kind::Directory { opaque } = &mut raw.entry.kind
            && std::mem::take(opaque)
        {
            plan.opaque.push(raw.entry.path.clone());
        }
        if raw.by_attribute {
            plan.files.push(raw.entry.path.clone());
            plan.whiteouts.push(raw.entry.path.clone());
        }
        plan.kept.push(raw);
    }
    plan.kept.extend(hidden.iter().map(|path| Raw {
        entry: Entry { path: path.clone(), kind: Kind::Whiteout, meta: Meta::default(), hardlink: None, mtime: 0 },
        link: None,
        mtime: (0, 0),
        by_attribute: false,
        relabel: false,
    }));
    plan.kept.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    plan.whiteouts.extend(hidden);
    plan
}

/// For each entry whether it differs from the lower tree.
fn changes(lower: &MergedTree, raws: &[Raw]) -> Vec<bool> {
    let mut changed: Vec<bool> = raws
        .iter()
        .map(|raw| match (&raw.entry.kind, lower.lookup(&raw.entry.path)) {
            (Kind::Whiteout, below) => below.is_some(),
            (_, None) => true,
            (Kind::Directory { .. }, Some(below)) => {
                !matches!(below.entry.kind, Kind::Directory { .. }) || below.entry.meta != raw.entry.meta
            }
            (kind, Some(below)) => below.entry.kind != *kind || below.entry.meta != raw.entry.meta,
        })
        .collect();
    // The links of one file stay together: all are as in the lower tree, and links of one file there too, or none.
    let mut groups: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (at, raw) in raws.iter().enumerate() {
        if let Some(link) = raw.link {
            groups.entry(link).or_default().push(at);
        }
    }
    for members in groups.into_values() {
        let first_below = |at: &usize| -> Option<&[u8]> {
            let below = &lower.lookup(&raws.get(*at)?.entry.path)?.entry;
            Some(below.hardlink.as_deref().unwrap_or(&below.path))
        };
        let firsts: HashSet<Option<&[u8]>> = members.iter().map(first_below).collect();
        if firsts.len() > 1 || members.iter().any(|at| changed.get(*at) == Some(&true)) {
            for at in members {
                if let Some(changed) = changed.get_mut(at) {
                    *changed = true;
                }
            }
        }
    }
    changed
}

/// The paths, each the topmost, that opaque directories hide and that are not there in the upper directory.
fn hidden_by_opaque(lower: &MergedTree, raws: &[Raw]) -> Vec<Vec<u8>> {
    let present = |path: &[u8]| raws.binary_search_by(|raw| path_order(&raw.entry.path, path)).is_ok();
    let mut opaque: HashSet<&[u8]> = HashSet::new();
    let mut hidden = Vec::new();
    for raw in raws {
        let Kind::Directory { opaque: own } = raw.entry.kind else { continue };
        let path = raw.entry.path.as_slice();
        // What lies in an opaque directory merges with nothing either.
        if !own && !parent(path).is_some_and(|dir| opaque.contains(dir)) {
            continue;
        }
        opaque.insert(path);
        let children = lower.below(path).iter().filter(|merged| parent(&merged.entry.path) == Some(path));
        hidden.extend(children.map(|merged| merged.entry.path.clone()).filter(|path| !present(path)));
    }
    hidden
}

impl Plan {
    /// Without a lower tree everything stays as it is, apart from sockets.
    pub fn keep_all(scanned: Scanned) -> Self {
        Self { kept: scanned.raws, files: scanned.sockets, _opened: scanned.opened, ..Self::default() }
    }

    /// Brings the upper directory to the canonical form.
    pub fn apply(&self, upper: &Path) -> Result<(), StoreError> {
        for path in &self.files {
            let path = host_path(upper, path);
            std::fs::remove_file(&path).context("remove", &path)?;
        }
        for path in self.directories.iter().rev() {
            let path = host_path(upper, path);
            std::fs::remove_dir(&path).context("remove", &path)?;
        }
        for path in &self.opaque {
            scan::clear_opaque(&host_path(upper, path))?;
        }
        for path in &self.whiteouts {
            work::make_whiteout(&host_path(upper, path))?;
        }
        Ok(())
    }

    /// The index of what remains.
    pub fn into_index(self) -> TreeIndex {
        index_of(self.kept)
    }
}

/// The difference from the whole tree `lower` to the whole tree `scanned`; what is kept is the canonical layer.
pub(super) fn difference(lower: &MergedTree, mut scanned: Scanned) -> Plan {
    // A whole tree is an upper directory whose root is opaque.
    if let Some(root) = scanned.raws.first_mut() {
        root.entry.kind = Kind::Directory { opaque: true };
    }
    plan(lower, scanned)
}
