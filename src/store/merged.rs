//! One tree out of several layers, without mounting anything.
//!
//! The rules are overlayfs' (the kernel's `Documentation/filesystems/overlayfs.rst`): a non-directory or a whiteout
//! hides all that lower layers have at and below its path; a directory merges with the lower directory unless it is
//! opaque, and its own owner, mode and attributes count. A test compares the result with a real mount.

use std::collections::HashMap;
use std::path::PathBuf;

use super::index::{is_below, link, parent, path_order};
use super::walk::host_path;
use super::{Entry, Kind, Layer, Meta, TreeIndex};

/// An entry of a merged tree and the file on the host that holds its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedEntry {
    /// The entry; a directory is never opaque, and a whiteout is in a [`MergedTree::difference`] alone.
    pub entry: Entry,
    /// Where it lies on the host: below the topmost layer that has it. Nowhere for a whiteout.
    pub source: PathBuf,
}

/// A whole tree, merged from layers as overlayfs would show it. In the same order as a `TreeIndex`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedTree {
    /// The entries.
    pub entries: Vec<MergedEntry>,
}

/// An entry during the merge: the numbers of its layer and of its place there.
type Node = (usize, usize);

impl MergedTree {
    /// Merges `layers`, lowest first. Only the changed places of each layer are looked at.
    pub fn new(layers: &[Layer]) -> Self {
        let get = |node: Node| layers.get(node.0).and_then(|layer| layer.index.entries.get(node.1));
        let mut nodes: Vec<Node> = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            nodes = merge(nodes, number, &layer.index, &|node| get(node));
        }
        let groups = link_groups(&nodes, layers);
        let mut entries: Vec<Entry> = nodes
            .iter()
            .filter_map(|node| {
                let mut entry = get(*node)?.clone();
                if let Kind::Directory { opaque } = &mut entry.kind {
                    *opaque = false;
                }
                Some(entry)
            })
            .collect();
        link(&mut entries, groups);
        let source = |(number, _): &Node, entry: &Entry| {
            layers.get(*number).map_or_else(PathBuf::new, |layer| host_path(&layer.dir, &entry.path))
        };
        let entries = nodes
            .iter()
            .zip(entries)
            .map(|(node, entry)| MergedEntry { source: source(node, &entry), entry })
            .collect();
        Self { entries }
    }

    /// What `layers`, lowest first, add to `base`, the layers below them, and a whiteout for each thing of `base` that
    /// they take away. A directory that was removed and made again has one for each name of the old one that the new
    /// one lacks: laid over `base`, the difference shows the whole tree, whatever its directories say.
    pub fn difference(base: &[Layer], layers: &[Layer]) -> Self {
        let mut difference = Self::new(layers);
        if base.is_empty() {
            return difference;
        }
        let whole = Self::new(&[base, layers].concat());
        let directory =
            |path: &[u8]| whole.lookup(path).is_some_and(|merged| matches!(merged.entry.kind, Kind::Directory { .. }));
        let gone = Self::new(base).entries.into_iter().map(|merged| merged.entry.path);
        // What goes with its directory needs no word of its own.
        let gone = gone.filter(|path| whole.lookup(path).is_none() && parent(path).is_some_and(directory));
        difference.entries.extend(gone.map(|path| MergedEntry {
            entry: Entry { path, kind: Kind::Whiteout, meta: Meta::default(), hardlink: None, mtime: 0 },
            source: PathBuf::new(),
        }));
        difference.entries.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
        difference
    }

    /// The whole tree's index.
    pub fn into_index(self) -> TreeIndex {
        TreeIndex { entries: self.entries.into_iter().map(|merged| merged.entry).collect() }
    }

    /// The entry at `path` (bytes below the root without a leading slash; empty for the root).
    pub fn lookup(&self, path: &[u8]) -> Option<&MergedEntry> {
        let at = self.entries.binary_search_by(|merged| path_order(&merged.entry.path, path)).ok()?;
        self.entries.get(at)
    }

    /// What lies below the directory at `path`, at any depth, in order.
    pub fn below(&self, path: &[u8]) -> &[MergedEntry] {
        let start = self.entries.partition_point(|merged| path_order(&merged.entry.path, path).is_le());
        let rest = self.entries.get(start..).unwrap_or_default();
        let count = rest.partition_point(|merged| is_below(&merged.entry.path, path));
        rest.get(..count).unwrap_or_default()
    }

    /// A part of the tree: the entries at and below each of `paths` (without a leading slash), and the directories that
    /// lead there. A path that does not exist adds the directories that do.
    pub fn part<S: AsRef<str>>(&self, paths: &[S]) -> Self {
        let mut wanted: Vec<&MergedEntry> = Vec::new();
        for path in paths {
            let path = path.as_ref().trim_matches('/').as_bytes();
            let mut above = Some(path);
            while let Some(at) = above {
                wanted.extend(self.lookup(at));
                above = parent(at);
            }
            wanted.extend(self.below(path));
        }
        wanted.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
        wanted.dedup_by(|a, b| a.entry.path == b.entry.path);
        let mut entries: Vec<Entry> = wanted.iter().map(|merged| merged.entry.clone()).collect();
        // The first link may lie outside: what remains inside decides. A first link is its own group's mark.
        let marks: Vec<Option<Vec<u8>>> =
            entries.iter().map(|entry| Some(entry.hardlink.clone().unwrap_or_else(|| entry.path.clone()))).collect();
        link(&mut entries, marks);
        let sources = wanted.into_iter().map(|merged| merged.source.clone());
        Self {
            entries: entries.into_iter().zip(sources).map(|(entry, source)| MergedEntry { entry, source }).collect(),
        }
    }
}

/// Puts one layer over the nodes below it.
fn merge<'a>(
    lower: Vec<Node>,
    number: usize,
    upper: &'a TreeIndex,
    get: &dyn Fn(Node) -> Option<&'a Entry>,
) -> Vec<Node> {
    let path = |node: &Node| get(*node).map_or(&b""[..], |entry| &entry.path);
    let mut merged = Vec::with_capacity(lower.len() + upper.entries.len());
    let mut rest = lower.as_slice();
    for (at, entry) in upper.entries.iter().enumerate() {
        let split = rest.partition_point(|node| path_order(path(node), &entry.path).is_lt());
        let (before, after) = rest.split_at(split);
        merged.extend_from_slice(before);
        rest = after;
        let same = rest.first().filter(|node| path(node) == entry.path.as_slice());
        let merges = matches!(entry.kind, Kind::Directory { opaque: false })
            && same.is_none_or(|node| get(*node).is_some_and(|below| matches!(below.kind, Kind::Directory { .. })));
        let hidden = if merges {
            usize::from(same.is_some())
        } else {
            rest.partition_point(|node| path(node) == entry.path.as_slice() || is_below(path(node), &entry.path))
        };
        rest = rest.get(hidden..).unwrap_or_default();
        if entry.kind != Kind::Whiteout {
            merged.push((number, at));
        }
    }
    merged.extend_from_slice(rest);
    merged
}

/// For each node what tells which file it is, if it may have several links: the layer and the place of its first
/// link there. Copying up breaks a group, so links of different layers are never the same file.
fn link_groups(nodes: &[Node], layers: &[Layer]) -> Vec<Option<Node>> {
    let mut firsts: HashMap<(usize, &[u8]), Node> = HashMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let entries = &layer.index.entries;
        for first in entries.iter().filter_map(|entry| entry.hardlink.as_deref()) {
            if let Ok(at) = entries.binary_search_by(|entry| path_order(&entry.path, first)) {
                firsts.insert((number, first), (number, at));
            }
        }
    }
    nodes
        .iter()
        .map(|node| {
            let entry = layers.get(node.0)?.index.entries.get(node.1)?;
            let first = entry.hardlink.as_deref().unwrap_or(&entry.path);
            firsts.get(&(node.0, first)).copied()
        })
        .collect()
}
