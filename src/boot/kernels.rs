//! The kernels of a tree: `/usr/lib/modules/VERSION/vmlinuz`.

use super::Result;
use super::look::{Look, join};
use super::pe::{Program, identify};
use crate::config::compare_versions;

const MODULES: &str = "usr/lib/modules";

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its version: the name of its directory of modules.
    pub version: String,
    /// The path of its image in the tree.
    pub image: String,
}

/// The kernels of a tree, the newest first (UAPI Group version format). Images that are unified kernel images are none:
/// some distributions call these `vmlinuz-virt.efi`.
///
/// # Errors
/// When an image can't be read.
pub fn kernels(look: &Look<'_>) -> Result<Vec<Kernel>> {
    let mut found = Vec::new();
    for version in versions(look) {
        let directory = join(MODULES, &version);
        let names = look.names(&directory);
        // The compressed image goes before the plain one, the plain name before longer ones.
        for name in
            ["vmlinuz", "vmlinux"].iter().flat_map(|prefix| names.iter().filter(|name| name.starts_with(*prefix)))
        {
            let image = join(&directory, name);
            let Some(file) = look.file(&image) else { continue };
            if identify(&file)? != Program::Uki {
                found.push(Kernel { version, image });
                break;
            }
        }
    }
    Ok(found)
}

/// The directories of kernel modules, the newest version first.
pub fn versions(look: &Look<'_>) -> Vec<String> {
    let mut versions = look.names(MODULES);
    versions.retain(|version| look.is_dir(&join(MODULES, version)));
    versions.sort_by(|a, b| compare_versions(b, a).then_with(|| b.cmp(a)));
    versions
}

/// The images in `/boot` that belong beside their kernel's modules and are not there yet: from where to where. Older
/// distributions install `/boot/vmlinuz-VERSION`.
pub fn misplaced(look: &Look<'_>) -> Vec<(String, String)> {
    let versions = versions(look);
    let has = |version: &String| {
        ["vmlinuz", "vmlinux"].iter().any(|name| look.file(&format!("{MODULES}/{version}/{name}")).is_some())
    };
    if versions.iter().all(has) {
        return Vec::new();
    }
    let mut moves: Vec<(String, String)> = Vec::new();
    for kind in ["vmlinuz", "vmlinux"] {
        for from in look.glob(&format!("boot/{kind}-*")) {
            // A link leads to one of the others.
            if look.resolve(&from).as_deref() != Some(from.as_str()) {
                continue;
            }
            let name = from.strip_prefix(&format!("boot/{kind}-")).unwrap_or_default();
            let version = match version_in(name) {
                Some(version) => version.to_owned(),
                None => match versions.as_slice() {
                    [only] => only.clone(),
                    _ => continue,
                },
            };
            let to = format!("{MODULES}/{version}/{kind}");
            if versions.contains(&version) && look.file(&to).is_none_or(|_| leads_to_boot(look, &to)) {
                moves.push((from, to));
            }
        }
    }
    moves
}

/// Whether a path is a link into `/boot`, which an image may not have when it runs.
fn leads_to_boot(look: &Look<'_>, path: &str) -> bool {
    look.resolve(path).is_some_and(|target| target != path && target.starts_with("boot/"))
}

/// The kernel's version in a file's name: from the first `NUMBER.NUMBER` on.
fn version_in(name: &str) -> Option<&str> {
    let bytes = name.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let start = (0..bytes.len()).find(|start| {
        let end = (*start..bytes.len()).find(|at| !digit(*at)).unwrap_or(bytes.len());
        end > *start && bytes.get(end) == Some(&b'.') && digit(end + 1)
    })?;
    let rest = name.get(start..)?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-.~^+".contains(c))).unwrap_or(rest.len());
    rest.get(..end)
}

#[cfg(test)]
pub mod testing {
    //! Trees for tests.

    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use crate::store::{Entry, Kind, MergedEntry, MergedTree, Meta};
    use crate::types::Digest;

    /// A directory that becomes a tree.
    pub struct Made {
        dir: tempfile::TempDir,
    }

    impl Made {
        /// With these files.
        pub fn new(files: &[(&str, &str)]) -> Self {
            let made = Self { dir: tempfile::tempdir().unwrap() };
            files.iter().for_each(|(path, text)| made.write(path, text.as_bytes()));
            made
        }

        /// Writes a file.
        pub fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }

        /// Makes a link.
        pub fn link(self, path: &str, target: &str) -> Self {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(Path::new(target), path).unwrap();
            self
        }

        /// The tree.
        pub fn tree(&self) -> MergedTree {
            let mut tree = MergedTree::default();
            self.add(self.dir.path(), &mut tree);
            tree
        }

        fn add(&self, path: &Path, tree: &mut MergedTree) {
            let kind = path.symlink_metadata().unwrap().file_type();
            let kind = if kind.is_dir() {
                Kind::Directory { opaque: false }
            } else if kind.is_symlink() {
                Kind::Symlink { target: std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec() }
            } else {
                let bytes = std::fs::read(path).unwrap();
                Kind::File { digest: Digest::of(&bytes), size: bytes.len() as u64 }
            };
            let name = path.strip_prefix(self.dir.path()).unwrap().as_os_str().as_bytes().to_vec();
            let meta = Meta { mode: 0o644, uid: 0, gid: 0, xattrs: BTreeMap::new() };
            let entry = Entry { path: name, kind, meta, hardlink: None, mtime: 0 };
            tree.entries.push(MergedEntry { entry, source: path.to_owned() });
            if path.is_dir() && !path.is_symlink() {
                let mut below: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
                below.sort();
                below.iter().for_each(|path| self.add(path, tree));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pe::testing::program;
    use super::testing::Made;
    use super::*;

    fn found(made: &Made) -> Vec<(String, String)> {
        let tree = made.tree();
        kernels(&Look::new(&tree)).unwrap().into_iter().map(|kernel| (kernel.version, kernel.image)).collect()
    }

    #[test]
    fn kernels_come_newest_first_without_unified_images() {
        let made = Made::new(&[
            ("usr/lib/modules/6.9.10-amd64/vmlinuz", "a"),
            ("usr/lib/modules/6.12.3-amd64/vmlinux", "b"),
            ("usr/lib/modules/6.12.3-amd64/vmlinuz", "b"),
            ("usr/lib/modules/6.12.3~rc1-amd64/vmlinuz-x", "c"),
            ("usr/lib/modules/7.0/modules.order", ""),
        ]);
        made.write(
            "usr/lib/modules/6.10/vmlinuz-virt.efi",
            &program(&[(".linux", b""), (".sdmagic", b""), (".osrel", b"")]),
        );
        let versions: Vec<_> = found(&made).into_iter().map(|(_, image)| image).collect();
        assert_eq!(
            versions,
            ["6.12.3-amd64/vmlinuz", "6.12.3~rc1-amd64/vmlinuz-x", "6.9.10-amd64/vmlinuz"]
                .map(|path| format!("usr/lib/modules/{path}"))
        );
    }

    #[test]
    fn images_in_boot_are_found_their_place() {
        let made = Made::new(&[
            ("usr/lib/modules/6.12.3-amd64/modules.order", ""),
            ("usr/lib/modules/6.1.0-9-amd64/vmlinuz", "there"),
            ("boot/vmlinuz-6.12.3-amd64", "a"),
            ("boot/vmlinuz-6.1.0-9-amd64", "b"),
            ("boot/vmlinuz-5.0-gone", "c"),
            ("boot/vmlinuz-rescue", "d"),
        ])
        .link("boot/vmlinuz-6.13", "vmlinuz-6.12.3-amd64");
        let tree = made.tree();
        let to = "usr/lib/modules/6.12.3-amd64/vmlinuz".to_owned();
        assert_eq!(misplaced(&Look::new(&tree)), [("boot/vmlinuz-6.12.3-amd64".to_owned(), to)]);
    }

    #[test]
    fn a_link_into_boot_gives_way() {
        let made =
            Made::new(&[("usr/lib/modules/6.12/x", ""), ("usr/lib/modules/6.13/x", ""), ("boot/vmlinuz-6.12", "a")])
                .link("usr/lib/modules/6.12/vmlinuz", "/boot/vmlinuz-6.12");
        let tree = made.tree();
        assert_eq!(misplaced(&Look::new(&tree)).len(), 1);
    }

    #[test]
    fn versions_in_names() {
        assert_eq!(version_in("6.12.3-amd64"), Some("6.12.3-amd64"));
        assert_eq!(version_in("linux-x-6.1~rc2 old"), Some("6.1~rc2"));
        assert_eq!(version_in("rescue-12"), None);
    }
}
