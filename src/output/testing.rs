//! What the tests of this module share: merged trees made of real directories.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::store::{Entry, Kind, MergedEntry, MergedTree, Meta};
use crate::types::Digest;

/// The directory at `path` as a merged tree of one layer.
pub(super) fn tree_of(path: &Path) -> MergedTree {
    let mut tree = MergedTree::default();
    add(path, path, &mut tree, &mut BTreeMap::new());
    tree
}

fn add(root: &Path, path: &Path, tree: &mut MergedTree, links: &mut BTreeMap<u64, Vec<u8>>) {
    let metadata = path.symlink_metadata().unwrap();
    let kind = metadata.file_type();
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let mut hardlink = None;
    if !kind.is_dir() && metadata.nlink() > 1 {
        hardlink = links.get(&metadata.ino()).cloned();
        links.entry(metadata.ino()).or_insert_with(|| name.clone());
    }
    let mut xattrs = BTreeMap::new();
    for attribute in ["user.x", "security.capability"] {
        let mut buffer = [0; 256];
        if let Ok(length) = rustix::fs::lgetxattr(path, attribute, &mut buffer) {
            xattrs.insert(attribute.as_bytes().to_vec(), buffer[..length].to_vec());
        }
    }
    let entry = Entry {
        path: name,
        kind: if kind.is_dir() {
            Kind::Directory { opaque: false }
        } else if kind.is_file() {
            Kind::File { digest: Digest::of(&std::fs::read(path).unwrap()), size: metadata.len() }
        } else if kind.is_symlink() {
            Kind::Symlink { target: std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec() }
        } else if kind.is_char_device() {
            Kind::Character { device }
        } else if kind.is_block_device() {
            Kind::Block { device }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            Kind::Socket
        },
        meta: Meta { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), xattrs },
        hardlink,
        mtime: metadata.mtime(),
    };
    tree.entries.push(MergedEntry { entry, source: path.to_owned() });
    if kind.is_dir() {
        let mut children: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        for child in children {
            add(root, &child, tree, links);
        }
    }
}

/// Fills a directory with every kind of file.
pub(super) fn every_kind(dir: &Path) {
    std::fs::create_dir_all(dir.join("d/empty")).unwrap();
    std::fs::create_dir_all(dir.join("dev")).unwrap();
    std::fs::write(dir.join("dev/leftover"), "x").unwrap();
    std::fs::write(dir.join("d/file"), "content").unwrap();
    std::fs::set_permissions(dir.join("d/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    std::fs::write(dir.join("d/äöü"), vec![b'x'; 70_001]).unwrap();
    std::fs::write(dir.join("zero"), "").unwrap();
    let long = dir.join("l".repeat(120)).join("m".repeat(130));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::write(long.join("file"), "long").unwrap();
    std::fs::hard_link(long.join("file"), dir.join("z-hard")).unwrap();
    std::fs::hard_link(long.join("file"), dir.join("z-hard-too")).unwrap();
    symlink("d/nowhere", dir.join("link")).unwrap();
    symlink("t".repeat(150), dir.join("long-link")).unwrap();
    std::fs::write(dir.join("capable"), "c").unwrap();
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("capable"), "user.x", b"\0y\n=", flags).unwrap();
    run(
        dir,
        "mknod null c 1 3; mknod disk b 259 70000; mkfifo pipe; chown -h 5:6 link; chown 3000000:4000000 zero; \
         touch -d @1000 d/file zero; touch -hd @2000 link long-link; chmod 2755 d; touch -d @1500000000 d .",
    );
    rustix::fs::setxattr(dir.join("capable"), "security.capability", &cap, flags).unwrap();
}

/// Runs a shell script, which must succeed, and gives its output.
pub(super) fn run(dir: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `find` says of every file in a directory: kind, mode, owner, size, links, time and target.
pub(super) fn describe(dir: &Path) -> String {
    run(
        dir,
        "find . -mindepth 1 \\( -type d -printf '%P %y %m %U:%G %Ts\\n' -o -printf '%P %y %m %U:%G %s %n %Ts %l\\n' \\) | LC_ALL=C sort",
    )
}
