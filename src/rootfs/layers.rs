//! A tree that several directories make, as overlayfs shows it (the kernel's
//! `Documentation/filesystems/overlayfs.rst`), looked at without a mount. Knows nothing of where they come from.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;
/// The attribute of a directory that hides those below it, in mounts with `userxattr`.
const OPAQUE: &str = "user.overlay.opaque";

/// A tree of directories that lie over each other. Links and `..` are resolved as after a chroot into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Topmost first.
    directories: Vec<PathBuf>,
}

/// What a name is in a tree.
enum Found {
    Directory(Vec<PathBuf>),
    Link(PathBuf),
    Other(PathBuf),
}

impl Layers {
    /// The tree of these directories, lowest first. One directory is a tree too.
    pub fn new(lowers: &[PathBuf]) -> Self {
        Self { directories: lowers.iter().rev().cloned().collect() }
    }

    /// Where the file that a path of the tree leads to lies on the host; of a directory the topmost that it is made of.
    pub fn find(&self, path: &Path) -> Option<PathBuf> {
        match self.resolve(path)? {
            Found::Directory(directories) => directories.into_iter().next(),
            Found::Link(path) | Found::Other(path) => Some(path),
        }
    }

    /// The names in a directory of the tree, sorted; none where there is no such directory.
    pub fn names(&self, path: &Path) -> Vec<OsString> {
        let Some(Found::Directory(directories)) = self.resolve(path) else { return Vec::new() };
        let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok());
        let names: BTreeSet<OsString> = entries.flatten().flatten().map(|entry| entry.file_name()).collect();
        names.into_iter().filter(|name| look(&directories, name).is_some()).collect()
    }

    fn resolve(&self, path: &Path) -> Option<Found> {
        let mut rest: Vec<PathBuf> = vec![path.to_owned()];
        // The directories on the way, the root first: what `..` goes back to.
        let mut way = vec![self.directories.clone()];
        let mut links = 0;
        while let Some(next) = rest.pop() {
            let mut components = next.components();
            let Some(component) = components.next() else { continue };
            if !components.as_path().as_os_str().is_empty() {
                rest.push(components.as_path().to_owned());
            }
            match component {
                Component::RootDir => way.truncate(1),
                Component::ParentDir if way.len() > 1 => drop(way.pop()),
                Component::ParentDir | Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(name) => match look(way.last()?, name)? {
                    Found::Directory(directories) => way.push(directories),
                    Found::Link(path) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        rest.push(std::fs::read_link(path).ok()?);
                    }
                    other if rest.is_empty() => return Some(other),
                    // A file is no directory.
                    Found::Other(_) => return None,
                },
            }
        }
        way.pop().map(Found::Directory)
    }
}

/// What a name is in a directory that is made of these, topmost first.
fn look(directories: &[PathBuf], name: &OsStr) -> Option<Found> {
    let mut found = Vec::new();
    for path in directories.iter().map(|directory| directory.join(name)) {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            let opaque = is_opaque(&path);
            found.push(path);
            if opaque {
                break;
            }
            continue;
        }
        // Below a directory it is hidden, and it hides what is below itself.
        let whiteout = kind.is_char_device() && meta.rdev() == 0;
        return match (found.is_empty(), whiteout, kind.is_symlink()) {
            (false, ..) => Some(Found::Directory(found)),
            (true, true, _) => None,
            (true, false, true) => Some(Found::Link(path)),
            (true, false, false) => Some(Found::Other(path)),
        };
    }
    (!found.is_empty()).then_some(Found::Directory(found))
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::lgetxattr(path, OPAQUE, &mut value).is_ok_and(|length| length == 1 && value == *b"y")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn whiteout(path: &Path) {
        let mode = rustix::fs::Mode::empty();
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, mode, 0)
            .expect("a whiteout needs root, or Linux 5.8");
    }

    /// The directories `low` and `high` with these files, of which a name with `/` at its end is a directory.
    fn layers(low: &[&str], high: &[&str]) -> (tempfile::TempDir, Layers) {
        let dir = tempfile::tempdir().unwrap();
        for (name, files) in [("low", low), ("high", high)] {
            for file in files {
                let path = dir.path().join(name).join(file);
                std::fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
                if !file.ends_with('/') {
                    std::fs::write(path, name).unwrap();
                }
            }
        }
        let layers = Layers::new(&["low", "high"].map(|name| dir.path().join(name)));
        (dir, layers)
    }

    fn names(layers: &Layers, path: &str) -> String {
        layers.names(Path::new(path)).into_iter().map(|name| name.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_upper_hides_the_lower() {
        let (dir, layers) = layers(&["usr/a", "usr/b", "usr/d/x", "usr/e/x", "usr/f"], &["usr/b", "usr/c", "usr/f/y"]);
        for name in ["a", "d"] {
            let path = dir.path().join("high/usr").join(name);
            whiteout(&path);
        }
        std::fs::write(dir.path().join("high/usr/e"), "a file").unwrap();
        let found =
            |path: &str| layers.find(Path::new(path)).map(|path| path.strip_prefix(dir.path()).unwrap().to_owned());
        assert_eq!(found("/usr/b"), Some("high/usr/b".into()));
        assert_eq!(found("usr/c"), Some("high/usr/c".into()));
        assert_eq!(found("/usr/f/y"), Some("high/usr/f/y".into()));
        for gone in ["/usr/a", "/usr/d", "/usr/d/x", "/usr/e/x", "/usr/nothing", "/usr/b/x"] {
            assert_eq!(found(gone), None, "{gone}");
        }
        assert_eq!(names(&layers, "/usr"), "b c e f");
        assert_eq!(names(&layers, "/usr/f"), "y", "a directory over a file hides it");
        assert_eq!(names(&layers, "/usr/e"), "");
    }

    #[test]
    fn directories_merge_unless_one_is_opaque() {
        let (dir, layers) = layers(&["a/low", "b/low"], &["a/high", "b/high"]);
        let value = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.path().join("high/b"), OPAQUE, b"y", value)
            .expect("a file system with user attributes for $TMPDIR");
        assert_eq!((names(&layers, "a"), names(&layers, "/b")), ("high low".to_owned(), "high".to_owned()));
    }

    #[test]
    fn links_stay_in_the_tree() {
        let (dir, layers) = layers(&["usr/bin/real", "etc/"], &["usr/lib/"]);
        symlink("usr/bin", dir.path().join("high/bin")).unwrap();
        symlink("/usr/bin/real", dir.path().join("high/usr/lib/absolute")).unwrap();
        symlink("../../../../../bin/real", dir.path().join("high/usr/lib/far")).unwrap();
        symlink("/etc/hostname", dir.path().join("low/usr/bin/of-the-host")).unwrap();
        symlink("loop", dir.path().join("low/usr/bin/loop")).unwrap();
        let real = dir.path().join("low/usr/bin/real");
        for path in ["/bin/real", "/usr/lib/absolute", "/usr/lib/far", "/usr/lib/../bin/./real"] {
            assert_eq!(layers.find(Path::new(path)).as_ref(), Some(&real), "{path}");
        }
        for path in ["/bin/of-the-host", "/bin/loop", "/bin/real/x"] {
            assert_eq!(layers.find(Path::new(path)), None, "{path}");
        }
    }
}
