//! Firmware files of a tree: which ones a module's wish means, and the links that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::FIRMWARE;
use super::links::{follow, join, relative};
use super::pattern::{Patterns, Verdict, shell_glob};
use crate::store::{Kind, MergedEntry, MergedTree};

/// Where links that an administrator chooses between lie; nobody does in an initrd.
const ALTERNATIVES: &[u8] = b"/etc/alternatives/";

/// The firmware of a tree.
#[derive(Debug)]
pub struct Firmware<'a> {
    tree: &'a MergedTree,
    /// Files and links, by the path below `/usr/lib/firmware`.
    files: BTreeMap<String, &'a MergedEntry>,
}

/// Firmware with the links that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithLinks {
    /// The paths below the root.
    pub paths: BTreeSet<Vec<u8>>,
    /// Links whose way led through `/etc/alternatives`, and what they should say instead.
    pub direct: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Firmware<'a> {
    /// The firmware of a tree.
    pub fn new(tree: &'a MergedTree) -> Self {
        let mut files = BTreeMap::new();
        for merged in tree.below(FIRMWARE) {
            let file = matches!(merged.entry.kind, Kind::File { .. } | Kind::Symlink { .. });
            let rest = merged.entry.path.get(FIRMWARE.len() + 1..).and_then(|rest| std::str::from_utf8(rest).ok());
            if let Some(rest) = rest.filter(|_| file) {
                files.insert(rest.to_owned(), merged);
            }
        }
        Self { tree, files }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The paths below `/usr/lib/firmware`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The files that a module's `firmware=` means: of that name, of that name with something after a dot (packed), or
    /// what its wildcards match. Paths below the root, through links as they were asked for.
    pub fn wanted(&self, wish: &str) -> Vec<Vec<u8>> {
        if wish.contains(['*', '?', '[']) {
            let glob = |text: &str| shell_glob(text, false, "[^/]");
            let end = if wish.ends_with('*') { String::new() } else { r"(\.[^/]*)?".to_owned() };
            let Ok(regex) = Regex::new(&format!("^(?s:{}{end})$", glob(wish))) else { return Vec::new() };
            return self.paths().filter(|path| regex.is_match(path)).map(full).collect();
        }
        let path = full(wish);
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => return Vec::new(),
        };
        let Some(real) = follow(self.tree, dir).end else { return Vec::new() };
        let place = &real.entry.path;
        let names = self.tree.below(place).iter().filter_map(|merged| {
            let rest = merged.entry.path.get(place.len() + 1..)?;
            let after = rest.strip_prefix(name)?;
            let fits = !rest.contains(&b'/') && (after.is_empty() || after.starts_with(b"."));
            let file = !matches!(merged.entry.kind, Kind::Directory { .. });
            (fits && file).then(|| join(dir, rest))
        });
        names.collect()
    }

    /// Takes from `found` (paths below the root) what the settings leave out, and adds what they ask for.
    pub fn choose(&self, found: &mut BTreeSet<Vec<u8>>, include: &Patterns, exclude: &Patterns) {
        found.retain(|path| {
            let rest = path.strip_prefix(FIRMWARE).and_then(|rest| rest.strip_prefix(b"/"));
            let Some(rest) = rest.and_then(|rest| std::str::from_utf8(rest).ok()) else { return true };
            !exclude.regexes(rest) && include.globs(unpacked_name(rest)) != Verdict::Unwanted
        });
        if !include.is_empty() {
            let wanted = |path: &&str| include.regexes(path) || include.globs(unpacked_name(path)) == Verdict::Wanted;
            found.extend(self.paths().filter(wanted).map(full));
        }
    }

    /// The paths with every link on the way to them and what is at their end. A way through `/etc/alternatives` is
    /// made shorter.
    pub fn with_links(&self, paths: &BTreeSet<Vec<u8>>) -> WithLinks {
        let mut all = WithLinks::default();
        for path in paths {
            let followed = follow(self.tree, path);
            let end = followed.end.map(|end| &end.entry.path);
            all.paths.extend(end.cloned());
            for link in &followed.links {
                let Kind::Symlink { target } = &link.entry.kind else { continue };
                all.paths.insert(link.entry.path.clone());
                if let (Some(end), true) = (end, target.starts_with(ALTERNATIVES)) {
                    all.direct.insert(link.entry.path.clone(), relative(&link.entry.path, end));
                    break;
                }
            }
        }
        all
    }
}

/// A path of firmware below the root.
fn full(path: &str) -> Vec<u8> {
    join(FIRMWARE, path.as_bytes())
}

/// A path of firmware without the suffix of a packed file, which patterns don't have.
fn unpacked_name(path: &str) -> &str {
    [".gz", ".xz", ".zst"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, link, tree};
    use super::*;

    fn words(paths: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
        let text = |path: Vec<u8>| {
            String::from_utf8_lossy(path.strip_prefix(b"usr/lib/firmware/".as_slice()).unwrap_or(&path)).into_owned()
        };
        paths.into_iter().map(text).collect()
    }

    fn made_up() -> MergedTree {
        tree([
            dir("etc/alternatives"),
            link("etc/alternatives/db", "/usr/lib/firmware/db-debian"),
            dir("usr/lib/firmware"),
            file("usr/lib/firmware/a.bin"),
            file("usr/lib/firmware/a.bin.xz"),
            file("usr/lib/firmware/a.bin2"),
            link("usr/lib/firmware/db", "/etc/alternatives/db"),
            file("usr/lib/firmware/db-debian"),
            dir("usr/lib/firmware/nv"),
            link("usr/lib/firmware/nv/2", "1"),
            dir("usr/lib/firmware/nv/1"),
            file("usr/lib/firmware/nv/1/g.bin.zst"),
            file("usr/lib/firmware/nv/1/h.bin.zst"),
        ])
    }

    #[test]
    fn a_wish_means_packed_files_and_wildcards_too() {
        let tree = made_up();
        let firmware = Firmware::new(&tree);
        let wanted = |wish: &str| words(firmware.wanted(wish));
        assert_eq!(wanted("a.bin"), ["a.bin", "a.bin.xz"]);
        assert_eq!(wanted("nv/2/g.bin"), ["nv/2/g.bin.zst"]);
        assert_eq!(wanted("nv/1/*.bin"), ["nv/1/g.bin.zst", "nv/1/h.bin.zst"]);
        assert_eq!(wanted("a*"), ["a.bin", "a.bin.xz", "a.bin2"]);
        assert_eq!(wanted("*"), ["a.bin", "a.bin.xz", "a.bin2", "db", "db-debian"]);
        assert!(wanted("none").is_empty() && wanted("none/x").is_empty() && wanted("").is_empty());
    }

    #[test]
    fn links_come_with_what_they_lead_to() {
        let tree = made_up();
        let firmware = Firmware::new(&tree);
        let with = |path: &str| firmware.with_links(&BTreeSet::from([full(path)]));
        assert_eq!(words(with("nv/2/g.bin.zst").paths), ["nv/1/g.bin.zst", "nv/2"]);
        let db = with("db");
        assert_eq!(words(db.paths), ["db", "db-debian"]);
        assert_eq!(words(db.direct.into_values()), ["db-debian"]);
    }

    #[test]
    fn the_settings_take_and_add() {
        let tree = made_up();
        let firmware = Firmware::new(&tree);
        let list =
            |texts: &[&str]| Patterns::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), false);
        let choose = |found: &[&str], include: &[&str], exclude: &[&str]| {
            let mut found = found.iter().map(|path| full(path)).collect();
            firmware.choose(&mut found, &list(include).unwrap(), &list(exclude).unwrap());
            words(found)
        };
        assert_eq!(choose(&["a.bin", "db"], &[], &[]), ["a.bin", "db"]);
        assert_eq!(choose(&["a.bin", "db"], &["-a.bin"], &[]), ["db"]);
        assert_eq!(choose(&["db"], &["nv/1/g.bin"], &[]), ["db", "nv/1/g.bin.zst"]);
        assert_eq!(choose(&["db"], &["g.bin", "h.bin"], &["re:^d"]), ["nv/1/g.bin.zst", "nv/1/h.bin.zst"]);
        assert_eq!(choose(&[], &["re:zst$"], &[]), ["nv/1/g.bin.zst", "nv/1/h.bin.zst"]);
    }
}
