//! Where a test of packages works, and how it calls what is tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::distro::{Cx, Error, Package, Repositories, Request, Resolution, resolve, sync};
use mkosi::sandbox::{Cancel, HostRoot, Input, Mount, Output, Spec, Tools, host_root, set_executable};

/// Where one test works: its files, its log, and what the functions need.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub log: Vec<u8>,
    pub cancel: Cancel,
}

impl Bench {
    pub fn new() -> Self {
        set_executable(PathBuf::from(env!("CARGO_BIN_EXE_mkosi")));
        Self { dir: tempfile::tempdir().unwrap(), log: Vec::new(), cancel: Cancel::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn cx(&mut self) -> Cx<'_> {
        let work = self.path("work");
        Cx { cancel: &self.cancel, log: &mut self.log, tools: Tools::default(), work, parallel: true }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    pub fn sync(&mut self, repositories: &Repositories) -> Result<Vec<String>, Error> {
        let out = self.path("synced");
        std::fs::remove_dir_all(&out).unwrap();
        sync(&mut self.cx(), repositories, &out).map(|info| info.warnings)
    }

    pub fn resolve(&mut self, repositories: &Repositories, request: &Request) -> Result<Resolution, Error> {
        let synced = self.path("synced");
        resolve(&mut self.cx(), repositories, &synced, None, request)
    }

    pub fn packages(&mut self, repositories: &Repositories, packages: &[&str]) -> Result<Vec<Package>, Error> {
        let packages = packages.iter().map(|p| (*p).to_owned()).collect();
        self.resolve(repositories, &Request { packages, ..Request::default() }).map(|r| r.packages)
    }

    /// A layer on others, lowest first: its upper directory, and the mount.
    pub fn layer(&self, name: &str, lowers: &[&str]) -> (PathBuf, Mount) {
        let (upper, work) = (self.path(name), self.path(&format!("{name}.work")));
        let lowers = lowers.iter().map(|lower| self.path(lower)).collect();
        (upper.clone(), Mount::Overlay { lowers, upper: Some((upper, work)), target: "/buildroot".into() })
    }

    /// Runs a script in the tree that the mount shows.
    pub fn chroot(&self, root: Mount, script: &str) -> (bool, String) {
        let mut mounts = host_root(&HostRoot::default());
        mounts.push(root);
        mounts.push(Mount::Proc { target: "/buildroot/proc".into() });
        let argv = ["chroot", "/buildroot", "sh", "-c", script].map(str::to_owned).to_vec();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]);
        let spec = Spec { argv, env, mounts, ..Spec::default() };
        let mut text = Vec::new();
        let exit = spec.run(Input::Null, Output::Merged(&mut text), &self.cancel).unwrap();
        (exit.success(), String::from_utf8(text).unwrap())
    }
}

pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every entry below a directory: what it is, owner, mode, and the digest of what it holds. No times.
fn listing(root: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let data = path.symlink_metadata().unwrap();
        let content = if data.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if data.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else if data.is_file() {
            mkosi::types::Digest::of(&std::fs::read(&path).unwrap()).to_string()
        } else {
            "special".to_owned()
        };
        let links = if data.is_file() { data.nlink() } else { 0 };
        let text = format!("{:o} {}:{} {links} {content}", data.mode(), data.uid(), data.gid());
        found.insert(path.strip_prefix(root).unwrap().display().to_string(), text);
    }
    found
}

/// Asserts that two trees, each of layers from the lowest to the topmost, are equal, and names what differs.
pub fn assert_same(one: &[&Path], other: &[&Path]) {
    let tree = |layers: &[&Path]| layers.iter().flat_map(|layer| listing(layer)).collect::<BTreeMap<_, _>>();
    let (one, other) = (tree(one), tree(other));
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {:?} != {:?}", one.get(name), other.get(name)))
        .collect();
    assert!(differ.is_empty(), "{} entries differ:\n{}", differ.len(), differ.join("\n"));
}
