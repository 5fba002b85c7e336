//! The copying backend makes the same layers as overlayfs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::merge::{Step, run, step};
use crate::store::testing::{change, ingest, store, with_overlay};
use crate::store::{
    Entry, Ingest, Kind, Layer, Materialise, MergedTree, Store, copy_tree, lower_dirs, materialise, scan,
};

fn change_copy(store: &Store, layers: &[Layer], action: impl Fn(&Path)) -> Layer {
    change_copy_with(store, layers, &ingest(), action)
}

/// The layer of a change to a copy, entering as `opts` say.
pub fn change_copy_with(store: &Store, layers: &[Layer], opts: &Ingest, action: impl Fn(&Path)) -> Layer {
    let work = store.work_dir("copy").unwrap();
    let dest = work.join("root");
    fs::create_dir(&dest).unwrap();
    fs::set_permissions(&dest, Permissions::from_mode(0o755)).unwrap();
    let options = Materialise { break_links: true, ..Materialise::default() };
    if !layers.is_empty() {
        materialise(layers, &dest, &options).unwrap();
    }
    action(&dest);
    store.add_layer_from_diff(&dest, &MergedTree::new(layers), opts).unwrap()
}

fn rich(root: &Path) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("var/empty")).unwrap();
    fs::set_permissions(root.join("var/empty"), Permissions::from_mode(0o000)).unwrap();
    fs::write(root.join("usr/bin/su"), "su").unwrap();
    chown(root.join("usr/bin/su"), Some(3), Some(4)).unwrap();
    fs::set_permissions(root.join("usr/bin/su"), Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(root.join("usr/bin/su"), root.join("usr/bin/su2")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    std::os::unix::fs::lchown(root.join("bin"), Some(7), Some(7)).unwrap();
    crate::store::walk::set_xattr(&root.join("usr"), b"user.note", b"n").unwrap();
    // cap_net_raw=ep
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(root.join("usr/bin/ping"), "ping").unwrap();
    crate::store::walk::set_xattr(&root.join("usr/bin/ping"), b"security.capability", &capability).unwrap();
    for (name, kind, minor) in [("null", SFlag::S_IFCHR, 3), ("ram", SFlag::S_IFBLK, 0), ("pipe", SFlag::S_IFIFO, 0)] {
        mknod(&root.join(name), kind, Mode::from_bits_truncate(0o640), makedev(1, minor)).unwrap();
    }
    fs::set_permissions(root, Permissions::from_mode(0o711)).unwrap();
}

#[test]
fn a_copy_is_the_whole_tree() {
    let test = store();
    let base = change(&test.store, &[], rich);
    let want = MergedTree::new(std::slice::from_ref(&base)).into_index();
    for read_only in [false, true] {
        let work = test.store.work_dir("copy").unwrap();
        let dest = work.join("root");
        materialise(std::slice::from_ref(&base), &dest, &Materialise { read_only, break_links: false }).unwrap();
        // Times too.
        assert_eq!(scan::scan_plain(&dest).unwrap().into_index(), want);
    }
    let su = base.dir.join("usr/bin/su");
    assert_eq!((fs::metadata(&su).unwrap().uid(), fs::read(&su).unwrap()), (3, b"su".to_vec()));
    assert!(test.store.verify_layer(&base.digest).unwrap());
}

#[test]
fn both_backends_make_the_same_layers() {
    let scripts: [&(dyn Fn(&Path) + Sync); 8] = [
        &|_| {},
        &|root| fs::write(root.join("usr/bin/su2"), "changed").unwrap(),
        &|root| fs::remove_dir_all(root.join("usr")).unwrap(),
        &|root| {
            fs::remove_dir_all(root.join("usr")).unwrap();
            fs::write(root.join("usr"), "a file").unwrap();
        },
        &|root| {
            fs::remove_file(root.join("bin")).unwrap();
            fs::create_dir(root.join("bin")).unwrap();
            fs::write(root.join("bin/su"), "").unwrap();
        },
        &|root| fs::hard_link(root.join("usr/bin/ping"), root.join("usr/bin/ping4")).unwrap(),
        &|root| chown(root.join("null"), Some(9), Some(9)).unwrap(),
        &|root| {
            fs::remove_file(root.join("usr/bin/su")).unwrap();
            fs::write(root.join("var/empty/f"), "").unwrap();
            crate::store::walk::set_xattr(&root.join("usr"), b"user.note", b"m").unwrap();
            crate::store::walk::set_xattr(&root.join("usr/bin"), b"user.overlay.opaque", b"y").unwrap();
            drop(std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap());
        },
    ];
    let test = store();
    let base = change(&test.store, &[], rich);
    assert_eq!(change_copy(&test.store, &[], rich).digest, base.digest);
    for (number, script) in scripts.into_iter().enumerate() {
        let layers = [base.clone()];
        let overlay = change(&test.store, &layers, script);
        // A store of its own, so that the layer is not taken from the first one.
        let other = store();
        let copy = change_copy(&other.store, &layers, script);
        assert_eq!(copy.index.entries, overlay.index.entries, "script {number}");
        assert_eq!(copy.digest, overlay.digest, "script {number}");
        assert!(other.store.verify_layer(&copy.digest).unwrap(), "script {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn both_backends_agree_on_any_script(scripts in prop::collection::vec(prop::collection::vec(step(), 1..14), 3)) {
        let (test, other) = (store(), store());
        let mut layers: Vec<Layer> = Vec::new();
        for steps in &scripts {
            let steps: &Vec<Step> = steps;
            let overlay = change(&test.store, &layers, |root| run(root, steps));
            let copy = change_copy(&other.store, &layers, |root| run(root, steps));
            prop_assert_eq!(&copy.index.entries, &overlay.index.entries);
            layers.push(overlay);
        }
    }
}

/// Lays the difference between `base` and `base` with `layers` over `base`, in a mount of the kernel's.
fn laid_over(store: &Store, base: &[Layer], layers: &[Layer]) -> Vec<Entry> {
    let work = store.work_dir("difference").unwrap();
    let dest = work.join("root");
    let difference = MergedTree::difference(base, layers);
    copy_tree(&difference, &dest, &Materialise { read_only: true, ..Materialise::default() }).unwrap();
    let mut lowers = lower_dirs(base);
    lowers.push(dest);
    let tree = MergedTree::new(layers);
    let (_, index) = with_overlay(&work, &lowers, Some(&tree), |root| scan::scan(root).unwrap().into_index());
    // Copying up breaks links, and the time of a directory is the topmost layer's.
    index.entries.into_iter().map(|entry| Entry { hardlink: None, mtime: 0, ..entry }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_laid_over_its_base_is_the_whole(
        scripts in prop::collection::vec(prop::collection::vec(step(), 1..14), 4),
        split in 1usize..3,
    ) {
        let test = store();
        let mut layers: Vec<Layer> = Vec::new();
        for steps in &scripts {
            let steps: &Vec<Step> = steps;
            layers.push(change(&test.store, &layers, |root| run(root, steps)));
        }
        let (base, upper) = layers.split_at(split);
        let whole = MergedTree::new(&layers).into_index().entries.into_iter();
        let whole: Vec<Entry> = whole.map(|entry| Entry { hardlink: None, mtime: 0, ..entry }).collect();
        prop_assert_eq!(laid_over(&test.store, base, upper), whole);
    }
}

#[test]
fn a_difference_keeps_what_it_takes_away() {
    let test = store();
    let base = change(&test.store, &[], |root| {
        fs::create_dir_all(root.join("usr/share/gone")).unwrap();
        fs::create_dir_all(root.join("usr/again/old/deep")).unwrap();
        for name in ["usr/one", "usr/two", "usr/share/gone/file", "usr/again/kept", "usr/again/old/file"] {
            fs::write(root.join(name), name).unwrap();
        }
    });
    let mut layers = vec![base];
    for action in [
        (|root| {
            fs::remove_file(root.join("usr/one")).unwrap();
            fs::remove_file(root.join("usr/two")).unwrap();
            fs::remove_dir_all(root.join("usr/share/gone")).unwrap();
            fs::write(root.join("usr/new"), "new").unwrap();
        }) as fn(&Path),
        |root| fs::remove_dir_all(root.join("usr/again")).unwrap(),
        |root| fs::write(root.join("usr/two"), "again").unwrap(),
        // Made again in another layer than it was removed in: no layer says that it hides the old one.
        |root| {
            fs::create_dir(root.join("usr/again")).unwrap();
            fs::write(root.join("usr/again/kept"), "new").unwrap();
        },
    ] {
        layers.push(change(&test.store, &layers, action));
    }
    let (base, upper) = layers.split_at(1);
    let difference = MergedTree::difference(base, upper);
    let names = difference.entries.iter().map(|merged| {
        let mark = if merged.entry.kind == Kind::Whiteout { "!" } else { "" };
        format!("{mark}{}", String::from_utf8_lossy(&merged.entry.path))
    });
    let want = ["", "usr", "usr/again", "usr/again/kept", "!usr/again/old", "usr/new", "!usr/one", "usr/share"];
    assert_eq!(names.collect::<Vec<_>>(), [&want[..], &["!usr/share/gone", "usr/two"]].concat());
    let whole = MergedTree::new(&layers).into_index().entries.into_iter();
    let whole: Vec<Entry> = whole.map(|entry| Entry { mtime: 0, ..entry }).collect();
    assert_eq!(laid_over(&test.store, base, upper), whole);
    // Without a base there is nothing to take away.
    assert_eq!(MergedTree::difference(&[], upper), MergedTree::new(upper));
}
