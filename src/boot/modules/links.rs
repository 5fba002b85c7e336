//! Symbolic links inside a merged tree, followed as the kernel would below a root.

use crate::store::{Kind, MergedEntry, MergedTree};

/// As many links as the kernel follows in one path.
const LIMIT: usize = 40;

/// Where a path leads.
#[derive(Debug, Default)]
pub struct Followed<'a> {
    /// The links on the way, each by the path where it really lies.
    pub links: Vec<&'a MergedEntry>,
    /// What is at the end; nothing where the path leads nowhere.
    pub end: Option<&'a MergedEntry>,
}

/// Follows `path` (below the root, without a leading slash) through every link on the way and at its end.
pub fn follow<'a>(tree: &'a MergedTree, path: &[u8]) -> Followed<'a> {
    let mut followed = Followed::default();
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut at: Vec<u8> = Vec::new();
    while let Some(component) = todo.pop() {
        if component == b".." {
            at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            continue;
        }
        let place = join(&at, &component);
        let Some(entry) = tree.lookup(&place) else { return followed };
        let Kind::Symlink { target } = &entry.entry.kind else {
            at = place;
            continue;
        };
        if followed.links.len() == LIMIT {
            return followed;
        }
        followed.links.push(entry);
        if target.starts_with(b"/") {
            at.clear();
        }
        todo.extend(components(target));
    }
    followed.end = tree.lookup(&at);
    followed
}

/// `path` below `dir`.
pub fn join(dir: &[u8], path: &[u8]) -> Vec<u8> {
    if dir.is_empty() { path.to_vec() } else { [dir, b"/", path].concat() }
}

/// The components of a path that mean something, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.rsplit(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

/// What leads from the directory of `from` to `to`, both below the root.
pub fn relative(from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut from, to) = (components(from), components(to));
    from.drain(..from.len().min(1));
    let shared = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(b"..".to_vec(), from.len() - shared);
    let down = to.iter().rev().skip(shared).cloned();
    up.chain(down).collect::<Vec<_>>().join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, link, tree};
    use super::*;

    fn words(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let tree = tree([
            dir("etc"),
            dir("etc/alternatives"),
            link("etc/alternatives/db", "/lib/firmware/db-debian"),
            link("lib", "usr/lib"),
            dir("usr"),
            dir("usr/lib"),
            dir("usr/lib/firmware"),
            dir("usr/lib/firmware/a"),
            file("usr/lib/firmware/a/x"),
            link("usr/lib/firmware/b", "../firmware/./a"),
            link("usr/lib/firmware/db", "/etc/alternatives/db"),
            file("usr/lib/firmware/db-debian"),
            link("usr/lib/firmware/loop", "loop"),
            link("usr/lib/firmware/up", "../../../../../usr/lib/firmware/a/x"),
        ]);
        let end = |path: &str| follow(&tree, path.as_bytes()).end.map(|entry| words(&entry.entry.path));
        let links = |path: &str| -> Vec<String> {
            follow(&tree, path.as_bytes()).links.iter().map(|link| words(&link.entry.path)).collect()
        };
        assert_eq!(end("usr/lib/firmware/b/x").as_deref(), Some("usr/lib/firmware/a/x"));
        assert_eq!(links("usr/lib/firmware/b/x"), ["usr/lib/firmware/b"]);
        assert_eq!(end("usr/lib/firmware/db").as_deref(), Some("usr/lib/firmware/db-debian"));
        assert_eq!(links("usr/lib/firmware/db"), ["usr/lib/firmware/db", "etc/alternatives/db", "lib"]);
        assert_eq!(end("usr/lib/firmware/up").as_deref(), Some("usr/lib/firmware/a/x"));
        assert_eq!((end("usr/lib/firmware/loop"), end("usr/lib/nothing")), (None, None));
        assert_eq!(links("usr/lib/firmware/loop").len(), LIMIT);
    }

    #[test]
    fn relative_paths_lead_there() {
        for (from, to, way) in
            [("a/b/c", "a/b/d", "d"), ("a/b/c", "x", "../../x"), ("c", "a/b", "a/b"), ("a/b", "a/c/d", "c/d")]
        {
            assert_eq!(words(&relative(from.as_bytes(), to.as_bytes())), way, "{from} {to}");
        }
    }
}
