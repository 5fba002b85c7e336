//! The programs that stages run: those of the host, or of a tools tree.
//!
//! Knows nothing of which stage runs what.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::StageError;
use crate::programs::{self, TOOL_PATH};
use crate::rootfs::Root;
use crate::sandbox;
use crate::store::{Kind, Layer, MergedTree};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;

/// The path of a program of the system that this process runs on: the host's, or a sandbox's.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let search = std::env::split_paths(&search).filter(|path| path.starts_with(sandbox::SEARCH));
    let all = search.chain(TOOL_PATH.iter().map(PathBuf::from));
    all.map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Where a node's programs come from.
#[derive(Debug, Default)]
pub struct Tools {
    /// What its sandbox shows.
    pub sandbox: sandbox::Tools,
    tree: Tree,
}

#[derive(Debug, Default)]
enum Tree {
    #[default]
    Host,
    /// A directory of the host.
    Directory(Root),
    /// Layers of the store.
    Layers { layers: Vec<Layer>, merged: OnceLock<MergedTree> },
}

impl Tools {
    /// The programs of a directory of the host.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn of_directory(path: &Path) -> Result<Self, StageError> {
        let root = Root::open(path).map_err(StageError::other)?;
        let sandbox = sandbox::Tools { layers: vec![path.to_owned()], ..sandbox::Tools::default() };
        Ok(Self { sandbox, tree: Tree::Directory(root) })
    }

    /// The programs of a tree in the store; `directories` is what the sandbox makes it of.
    pub fn of_layers(layers: Vec<Layer>, directories: Vec<PathBuf>) -> Self {
        let sandbox = sandbox::Tools { layers: directories, ..sandbox::Tools::default() };
        Self { sandbox, tree: Tree::Layers { layers, merged: OnceLock::new() } }
    }

    /// The path that a program has in the sandbox, if it is there.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        if matches!(self.tree, Tree::Host) && self.sandbox.trees.is_empty() {
            return programs::find(name, &self.sandbox.search);
        }
        let search = self.sandbox.search.iter().zip(self.sandbox.search_paths());
        let found = search.map(|(on_host, inside)| (on_host.join(name), inside.join(name)));
        if let Some((_, inside)) = found.into_iter().find(|(on_host, _)| is_program(on_host)) {
            return Some(inside);
        }
        TOOL_PATH.iter().map(|directory| Path::new(directory).join(name)).find(|path| self.has(path, true))
    }

    /// The path that a program has in the sandbox. `purpose` says what it is needed for, in words that begin a
    /// sentence (`Format=disk`).
    ///
    /// # Errors
    /// When it isn't there: what needs it, and how to get it.
    pub fn need(&self, name: &str, purpose: &str) -> Result<PathBuf, StageError> {
        self.find(name).ok_or_else(|| StageError::NoProgram { program: name.to_owned(), purpose: purpose.to_owned() })
    }

    /// Whether a file is there, by its path in the sandbox.
    pub fn has_file(&self, path: &Path) -> bool {
        self.has(path, false)
    }

    fn has(&self, path: &Path, program: bool) -> bool {
        let over = self.sandbox.trees.iter().rev().filter_map(|tree| Root::open(tree).ok()?.stat(path).ok()?);
        let regular = |mode: &u32| mode & libc::S_IFMT == libc::S_IFREG;
        if let Some(mode) = over.map(|stat| stat.st_mode).find(regular) {
            return !program || mode & 0o111 != 0;
        }
        let mode = match &self.tree {
            Tree::Host => path.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.permissions().mode()),
            Tree::Directory(root) => {
                let stat = root.stat(path).ok().flatten();
                stat.map(|stat| stat.st_mode).filter(regular)
            }
            Tree::Layers { layers, merged } => file_mode(merged.get_or_init(|| MergedTree::new(layers)), path),
        };
        mode.is_some_and(|mode| !program || mode & 0o111 != 0)
    }
}

/// The mode of the regular file that `path` leads to in a tree; links are followed within it.
fn file_mode(tree: &MergedTree, path: &Path) -> Option<u32> {
    use std::os::unix::ffi::OsStrExt;
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    let mut at = PathBuf::new();
    let mut links = 0;
    let mut mode = None;
    while let Some(next) = rest.pop() {
        let mut components = next.components();
        let Some(component) = components.next() else { continue };
        if !components.as_path().as_os_str().is_empty() {
            rest.push(components.as_path().to_owned());
        }
        match component {
            Component::RootDir => at = PathBuf::new(),
            Component::ParentDir => drop(at.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let below = at.join(name);
                let entry = &tree.lookup(below.as_os_str().as_bytes())?.entry;
                mode = None;
                match &entry.kind {
                    Kind::Symlink { target } => {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        rest.push(PathBuf::from(std::ffi::OsStr::from_bytes(target)));
                    }
                    Kind::File { .. } => {
                        mode = Some(entry.meta.mode);
                        at = below;
                    }
                    _ => at = below,
                }
            }
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn program(root: &Path, path: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn links_of_a_tree_are_resolved_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        program(root, "usr/bin/real");
        program(root, "usr/lib/x/hidden");
        std::fs::write(root.join("usr/bin/text"), "").unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/usr/lib/x/hidden", root.join("usr/bin/absolute")).unwrap();
        symlink("../../../../../usr/bin/real", root.join("usr/bin/far")).unwrap();
        symlink("/bin/sh", root.join("usr/bin/of-the-host")).unwrap();
        symlink("loop", root.join("usr/bin/loop")).unwrap();
        let place = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(&place.path().join("store")).unwrap();
        let layer = {
            let tree = store.work_dir("tree").unwrap();
            let copy = std::process::Command::new("cp").arg("-a").arg(root.join(".")).arg(tree.join("t")).status();
            assert!(copy.unwrap().success());
            let ingest =
                crate::store::Ingest { epoch: 0, started: std::time::SystemTime::now(), clamp: false, labels: false };
            store.add_layer(&tree.join("t"), None, &ingest).unwrap()
        };
        let directory = Tools::of_directory(root).unwrap();
        let layers = Tools::of_layers(vec![layer.clone()], vec![layer.dir]);
        for tools in [directory, layers] {
            for name in ["real", "absolute", "far"] {
                assert_eq!(tools.find(name), Some(Path::new("/usr/bin").join(name)), "{name}");
            }
            for name in ["text", "of-the-host", "loop", "sh", "nothing"] {
                assert_eq!(tools.find(name), None, "{name}");
            }
            assert!(tools.has_file(Path::new("/bin/text")));
        }
    }

    #[test]
    fn a_missing_program_is_told_with_what_needs_it_and_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tools::of_directory(dir.path()).unwrap().need("mkfs.erofs", "A partition of erofs").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("A partition of erofs needs the program `mkfs.erofs`"), "{text}");
        assert!(text.contains("`erofs-utils`") && text.contains("ToolsTree=default"), "{text}");
    }

    #[test]
    fn extra_directories_come_first() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "sh");
        let sandbox = sandbox::Tools { search: vec![dir.path().to_owned()], ..sandbox::Tools::default() };
        let tools = Tools { sandbox, tree: Tree::Host };
        assert_eq!(tools.find("sh"), Some("/run/mkosi/search/0/sh".into()));
        assert!(tools.find("ls").is_some());
    }
}
