//! The programs that stages run: those of the host, or of a tools tree.
//!
//! Knows nothing of which stage runs what.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::StageError;
use crate::rootfs::Root;
use crate::sandbox;
use crate::store::{Kind, Layer, MergedTree};

/// Where programs are looked for, in the engine and in every sandbox.
const TOOL_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

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
        let search = self.sandbox.search.iter().zip(self.sandbox.search_paths());
        let found = search.map(|(on_host, inside)| (on_host.join(name), inside.join(name)));
        if let Some((_, inside)) = found.into_iter().find(|(on_host, _)| is_program(on_host)) {
            return Some(inside);
        }
        TOOL_PATH.iter().map(|directory| Path::new(directory).join(name)).find(|path| self.has(path, true))
    }

    /// Whether a file is there, by its path in the sandbox.
    pub fn has_file(&self, path: &Path) -> bool {
        self.has(path, false)
    }

    fn has(&self, path: &Path, program: bool) -> bool {
        let mode = match &self.tree {
            Tree::Host => path.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.permissions().mode()),
            Tree::Directory(root) => {
                let stat = root.stat(path).ok().flatten();
                stat.map(|stat| stat.st_mode).filter(|mode| mode & libc::S_IFMT == libc::S_IFREG)
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
