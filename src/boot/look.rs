//! Looks into a merged tree as a program in the image would: links are followed inside it.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::store::{Kind, MergedEntry, MergedTree};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;

/// No text file that is read of a tree is larger, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// A tree to look into. Paths have no leading slash.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    tree: &'a MergedTree,
}

impl<'a> Look<'a> {
    /// Looks into `tree`.
    pub fn new(tree: &'a MergedTree) -> Self {
        Self { tree }
    }

    /// The path that `path` leads to when all links in it are followed, if there is something.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut rest: Vec<Vec<u8>> = parts(path.as_bytes()).rev().collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let entry = self.tree.lookup(&done.join(&b'/'))?;
            if let Kind::Symlink { target } = &entry.entry.kind {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                done.pop();
                if target.first() == Some(&b'/') {
                    done.clear();
                }
                rest.extend(parts(target).rev());
            }
        }
        String::from_utf8(done.join(&b'/')).ok()
    }

    /// What `path` leads to.
    pub fn entry(&self, path: &str) -> Option<&'a MergedEntry> {
        self.tree.lookup(self.resolve(path)?.as_bytes())
    }

    /// Whether `path` leads to something.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// Whether `path` leads to a directory.
    pub fn is_dir(&self, path: &str) -> bool {
        self.entry(path).is_some_and(|entry| matches!(entry.entry.kind, Kind::Directory { .. }))
    }

    /// Where the regular file that `path` leads to lies on the host.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        let entry = self.entry(path)?;
        matches!(entry.entry.kind, Kind::File { .. }).then(|| entry.source.clone())
    }

    /// Whether `path` itself is a link that starts at the root: one that a program outside the image follows astray.
    pub fn is_absolute_link(&self, path: &str) -> bool {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(directory) = self.resolve(directory) else { return false };
        let entry = self.tree.lookup(join(&directory, name).as_bytes());
        entry.is_some_and(|found| matches!(&found.entry.kind, Kind::Symlink { target } if target.starts_with(b"/")))
    }

    /// The names in a directory, sorted. Names that are no UTF-8 are left out.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let Some(directory) = self.resolve(directory) else { return Vec::new() };
        let skip = if directory.is_empty() { 0 } else { directory.len() + 1 };
        let below = self.tree.below(directory.as_bytes()).iter();
        let names = below.filter_map(|found| found.entry.path.get(skip..)).filter(|name| !name.contains(&b'/'));
        let mut names: Vec<String> = names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }

    /// The regular files below a directory at any depth, as paths below it, sorted. Links to files count, links to
    /// directories are not followed.
    pub fn files_below(&self, directory: &str) -> Vec<String> {
        let Some(resolved) = self.resolve(directory) else { return Vec::new() };
        let below = self.tree.below(resolved.as_bytes()).iter();
        let mut found: Vec<String> = below
            .filter(|found| !matches!(found.entry.kind, Kind::Directory { .. }))
            .filter_map(|found| String::from_utf8(found.entry.path.get(resolved.len() + 1..)?.to_vec()).ok())
            .filter(|name| self.file(&join(&resolved, name)).is_some())
            .collect();
        found.sort();
        found
    }

    /// The paths that match a pattern with `*` and `?` in its names, sorted.
    pub fn glob(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let Ok(wanted) = glob::Pattern::new(part) else { return Vec::new() };
            let mut next = Vec::new();
            for base in found {
                if part.contains(['*', '?', '[']) {
                    next.extend(
                        self.names(&base).iter().filter(|name| wanted.matches(name)).map(|name| join(&base, name)),
                    );
                } else if self.exists(&join(&base, part)) {
                    next.push(join(&base, part));
                }
            }
            found = next;
        }
        found
    }

    /// The text of a file; nothing where there is none.
    ///
    /// # Errors
    /// When it can't be read, or is far too large for what it should be.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        let Some(file) = self.file(path) else { return Ok(None) };
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let mut reader = std::fs::File::open(file).map_err(failed)?.take(MAX_TEXT + 1);
        reader.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_TEXT {
            return Err(failed(std::io::Error::other("it is larger than a mebibyte")));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The variables of the image's os-release file (os-release(5)); nothing where there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn os_release(&self) -> Result<Vec<(String, String)>> {
        let path = [OS_RELEASE, "etc/os-release"].into_iter().find(|path| self.exists(path));
        let text = path.map(|path| self.text(path)).transpose()?.flatten().unwrap_or_default();
        let pair = |line: &str| {
            let (name, value) = line.trim().split_once('=')?;
            (!name.starts_with('#')).then(|| (name.to_owned(), unquoted(value)))
        };
        Ok(text.lines().filter_map(pair).collect())
    }
}

/// Where an image describes itself.
pub const OS_RELEASE: &str = "usr/lib/os-release";

/// The value of a variable in a file of the shell's syntax, as os-release files have it.
fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text.chars().next() {
        Some('\'') => text.trim_matches('\'').to_owned(),
        Some('"') => {
            let inner = text.strip_prefix('"').unwrap_or(text);
            let inner = inner.strip_suffix('"').unwrap_or(inner);
            let mut value = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                value.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
            value
        }
        _ => text.to_owned(),
    }
}

/// A path of a directory and a name in it.
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    Path::new(OsStr::from_bytes(path))
        .components()
        .filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name.as_bytes().to_vec()),
            std::path::Component::ParentDir => Some(b"..".to_vec()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::kernels::testing::Made;
    use super::*;

    #[test]
    fn links_are_followed_inside() {
        let made = Made::new(&[("usr/lib/os-release", "ID=debian\nNAME=\"A \\\"b\\\"\"\n# X=1\nV='1 2'\n")])
            .link("lib", "usr/lib")
            .link("etc/os-release", "../../../usr/lib/os-release")
            .link("away", "/lib/os-release")
            .link("loop", "loop");
        let tree = made.tree();
        let look = Look::new(&tree);
        for path in ["etc/os-release", "away", "lib/os-release", "/usr/lib/os-release"] {
            assert_eq!(look.resolve(path).as_deref(), Some("usr/lib/os-release"), "{path}");
        }
        assert!(!look.exists("loop") && !look.exists("usr/lib/none"));
        assert!(look.is_absolute_link("away") && !look.is_absolute_link("etc/os-release"));
        let pairs = look.os_release().unwrap();
        assert_eq!(pairs, [("ID", "debian"), ("NAME", "A \"b\""), ("V", "1 2")].map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn patterns() {
        let made = Made::new(&[("a/x-signed/g.efi", ""), ("a/y-signed/g.efi", ""), ("a/z/g.efi", ""), ("a/b/c/d", "")])
            .link("a/z/link", "g.efi");
        let tree = made.tree();
        let look = Look::new(&tree);
        assert_eq!(look.glob("a/*-signed/g.efi"), ["a/x-signed/g.efi", "a/y-signed/g.efi"]);
        assert_eq!(look.glob("a/q/*"), Vec::<String>::new());
        assert_eq!(look.names("a"), ["b", "x-signed", "y-signed", "z"]);
        assert_eq!(look.files_below("a/b"), ["c/d"]);
        assert_eq!(look.files_below("a/z"), ["g.efi", "link"]);
    }
}
