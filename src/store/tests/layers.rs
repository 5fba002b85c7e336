//! Layers from real overlay mounts.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::store::testing::{EPOCH, change, ingest, paths, store};
use crate::store::{Kind, Layer, MergedTree, Store};

fn base(store: &Store) -> Layer {
    change(store, &[], |root| {
        fs::create_dir_all(root.join("etc/conf.d")).unwrap();
        fs::write(root.join("etc/hosts"), "localhost").unwrap();
        fs::write(root.join("etc/conf.d/a"), "a").unwrap();
        fs::write(root.join("etc/conf.d/b"), "b").unwrap();
        fs::hard_link(root.join("etc/conf.d/b"), root.join("etc/conf.d/c")).unwrap();
        symlink("hosts", root.join("etc/link")).unwrap();
    })
}

#[test]
fn the_digest_depends_on_neither_time_nor_place() {
    let (one, two) = (store(), store());
    let first = base(&one.store);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let second = base(&two.store);
    assert_eq!(first.digest, second.digest);
    assert_ne!(first.dir, second.dir);
    assert_eq!(fs::metadata(first.dir.join("etc")).unwrap().mtime(), EPOCH);
    assert_eq!(fs::metadata(first.dir.join("etc/hosts")).unwrap().mtime(), EPOCH);
    assert_eq!(first.size, 9 + 1 + 1);
    // Another process finds it and reads the same index.
    let again = Store::open(one.store.dir()).unwrap();
    let found = again.layer(&first.digest).unwrap().unwrap();
    assert_eq!((found.index, found.size), (first.index, first.size));
    assert!(again.layer(&crate::types::Digest::of(b"none")).unwrap().is_none());
}

#[test]
fn every_property_of_a_file_counts() {
    let test = store();
    let with = |action: &(dyn Fn(&Path) + Sync)| {
        change(&test.store, &[], |root| {
            fs::write(root.join("f"), "content").unwrap();
            fs::write(root.join("g"), "content").unwrap();
            symlink("f", root.join("s")).unwrap();
            action(root);
        })
        .digest
    };
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let device = |root: &Path, minor| {
        mknod(&root.join("n"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, minor)).unwrap();
    };
    let digests = [
        with(&|_| {}),
        with(&|root| fs::set_permissions(root.join("f"), Permissions::from_mode(0o755)).unwrap()),
        with(&|root| std::os::unix::fs::chown(root.join("f"), Some(5), None).unwrap()),
        with(&|root| std::os::unix::fs::chown(root.join("f"), None, Some(5)).unwrap()),
        with(&|root| crate::store::walk::set_xattr(&root.join("f"), b"user.a", b"1").unwrap()),
        with(&|root| crate::store::walk::set_xattr(&root.join("f"), b"user.a", b"2").unwrap()),
        with(&|root| fs::write(root.join("f"), "Content").unwrap()),
        with(&|root| {
            fs::remove_file(root.join("s")).unwrap();
            symlink("g", root.join("s")).unwrap();
        }),
        with(&|root| {
            fs::remove_file(root.join("g")).unwrap();
            fs::hard_link(root.join("f"), root.join("g")).unwrap();
        }),
        with(&|root| device(root, 3)),
        with(&|root| device(root, 5)),
        with(&|root| fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap()),
    ];
    let set: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(set.len(), digests.len());
    // Sockets are no part of a layer.
    let socket = with(&|root| drop(std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap()));
    assert_eq!(socket, digests[0]);
}

#[test]
fn what_is_written_again_without_a_change_makes_an_empty_layer() {
    let test = store();
    let base = base(&test.store);
    let empty = change(&test.store, std::slice::from_ref(&base), |_| {});
    assert_eq!(paths(&empty), [""]);
    let same = change(&test.store, std::slice::from_ref(&base), |root| {
        fs::write(root.join("etc/hosts"), "localhost").unwrap();
        fs::set_permissions(root.join("etc"), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(root.join("etc"), Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("etc/new"), "").unwrap();
        fs::remove_file(root.join("etc/new")).unwrap();
        fs::remove_dir_all(root.join("etc/conf.d")).unwrap();
        fs::create_dir(root.join("etc/conf.d")).unwrap();
        fs::write(root.join("etc/conf.d/a"), "a").unwrap();
        fs::write(root.join("etc/conf.d/b"), "b").unwrap();
        fs::hard_link(root.join("etc/conf.d/b"), root.join("etc/conf.d/c")).unwrap();
    });
    assert_eq!(same.digest, empty.digest);
    assert_eq!(fs::read_dir(&same.dir).unwrap().count(), 0);
}

#[test]
fn an_opaque_directory_becomes_single_whiteouts() {
    let test = store();
    let base = base(&test.store);
    let layer = change(&test.store, std::slice::from_ref(&base), |root| {
        fs::remove_dir_all(root.join("etc")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "changed").unwrap();
    });
    assert_eq!(paths(&layer), ["", "etc", "!etc/conf.d", "etc/hosts", "!etc/link"]);
    assert!(test.store.verify_layer(&layer.digest).unwrap());
    let tree = MergedTree::new(&[base, layer]);
    let names: Vec<_> = tree.entries.iter().map(|merged| String::from_utf8_lossy(&merged.entry.path)).collect();
    assert_eq!(names, ["", "etc", "etc/hosts"]);
    assert_eq!(fs::read(&tree.lookup(b"etc/hosts").unwrap().source).unwrap(), b"changed");
}

#[test]
fn a_new_link_to_an_old_file_stays_a_link() {
    let test = store();
    let base = base(&test.store);
    let layer = change(&test.store, std::slice::from_ref(&base), |root| {
        fs::hard_link(root.join("etc/hosts"), root.join("etc/hosts2")).unwrap();
        // Breaks the group of b and c.
        fs::write(root.join("etc/conf.d/b"), "B").unwrap();
    });
    assert_eq!(paths(&layer), ["", "etc", "etc/conf.d", "etc/conf.d/b", "etc/hosts", "etc/hosts2"]);
    let tree = MergedTree::new(&[base, layer]);
    let hardlink = |path: &[u8]| tree.lookup(path).unwrap().entry.hardlink.clone();
    assert_eq!(hardlink(b"etc/hosts2").as_deref(), Some(&b"etc/hosts"[..]));
    assert_eq!((hardlink(b"etc/conf.d/b"), hardlink(b"etc/conf.d/c")), (None, None));
}

#[test]
fn without_a_lower_tree_marks_are_kept_and_old_times_too() {
    let test = store();
    let work = test.store.work_dir("test").unwrap();
    let (upper, _) = work.overlay(None).unwrap();
    crate::store::work::make_whiteout(&upper.join("gone")).unwrap();
    fs::create_dir(upper.join("d")).unwrap();
    crate::store::walk::set_xattr(&upper.join("d"), b"user.overlay.opaque", b"y").unwrap();
    fs::write(upper.join("old"), "").unwrap();
    crate::store::work::set_mtime(&upper.join("old"), 1000).unwrap();
    let layer = test.store.add_layer(&upper, None, &ingest()).unwrap();
    assert_eq!(paths(&layer), ["", "d", "!gone", "old"]);
    assert_eq!(layer.index.lookup(b"d").unwrap().kind, Kind::Directory { opaque: true });
    assert_eq!(fs::metadata(layer.dir.join("old")).unwrap().mtime(), 1000);
    assert!(!upper.exists());
    assert!(test.store.verify_layer(&layer.digest).unwrap());
}
