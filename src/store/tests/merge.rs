//! The merge of layers against the kernel's own view of an overlay mount.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use crate::store::testing::{TestStore, change, ingest, store, with_overlay};
use crate::store::{Artifact, Entry, GcPolicy, Kind, Layer, MergedTree, Store, lower_dirs, scan};

/// A step of a random script. Steps that can't be done just now (a parent is missing) do nothing.
#[derive(Clone, Debug)]
pub enum Step {
    Write(String, u8),
    Mkdir(String, u16),
    Remove(String),
    Replace(String),
    Symlink(String, u8),
    Link(String, String),
    Chmod(String, u16),
    Attribute(String, u8),
    Rename(String, String),
}

pub fn step() -> impl Strategy<Value = Step> {
    // Few names, so that the steps meet.
    let path = || proptest::string::string_regex("[ab](/[ab](/[abc])?)?").unwrap();
    let mode = || prop::sample::select(vec![0o755u16, 0o700, 0o1777]);
    prop_oneof![
        3 => (path(), 0u8..3).prop_map(|(path, content)| Step::Write(path, content)),
        3 => (path(), mode()).prop_map(|(path, mode)| Step::Mkdir(path, mode)),
        3 => path().prop_map(Step::Remove),
        2 => path().prop_map(Step::Replace),
        1 => (path(), 0u8..2).prop_map(|(path, target)| Step::Symlink(path, target)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => (path(), mode()).prop_map(|(path, mode)| Step::Chmod(path, mode)),
        1 => (path(), 0u8..2).prop_map(|(path, value)| Step::Attribute(path, value)),
        1 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
    ]
}

/// Runs a script. The same calls have the same success on every tree with the same content.
pub fn run(root: &Path, steps: &[Step]) {
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    for step in steps {
        let _ = match step {
            // Not in place: a copy has no copy-up that would break a hard link.
            Step::Write(path, content) => match fs::symlink_metadata(root.join(path)) {
                Ok(meta) if meta.is_file() => {
                    fs::write(root.join("tmp"), [*content]).and_then(|()| fs::rename(root.join("tmp"), root.join(path)))
                }
                Ok(_) => Ok(()),
                Err(_) => fs::write(root.join(path), [*content]),
            },
            Step::Mkdir(path, mode) => fs::create_dir(root.join(path))
                .and_then(|()| fs::set_permissions(root.join(path), Permissions::from_mode(u32::from(*mode)))),
            Step::Remove(path) => remove(&root.join(path)),
            Step::Replace(path) => remove(&root.join(path)).and_then(|()| fs::create_dir(root.join(path))),
            Step::Symlink(path, target) => symlink(format!("t{target}"), root.join(path)),
            Step::Link(from, to) => fs::hard_link(root.join(from), root.join(to)),
            Step::Chmod(path, mode) if !is_link(&root.join(path)) && root.join(path).is_dir() => {
                fs::set_permissions(root.join(path), Permissions::from_mode(u32::from(*mode)))
            }
            Step::Attribute(path, value) if root.join(path).is_dir() => {
                crate::store::walk::set_xattr(&root.join(path), b"user.test", &[*value])
                    .map_err(|_| std::io::ErrorKind::Other.into())
            }
            // A directory of a lower layer can't be renamed in an overlay without redirects.
            Step::Rename(from, to) if !root.join(from).is_dir() || is_link(&root.join(from)) => {
                fs::rename(root.join(from), root.join(to))
            }
            _ => Ok(()),
        };
    }
}

/// What the kernel shows of `layers` in a fresh mount. (In the mount where a link to a lower file was made, the two
/// names may have different inode numbers until it is gone.)
fn shown(store: &Store, layers: &[Layer]) -> Vec<Entry> {
    let work = store.work_dir("view").unwrap();
    let tree = MergedTree::new(layers);
    let (_, index) =
        with_overlay(&work, &lower_dirs(layers), Some(&tree), |root| scan::scan(root).unwrap().into_index());
    without_times(index.entries)
}

/// Times are no part of a digest, and a directory's is the topmost layer's.
fn without_times(mut entries: Vec<Entry>) -> Vec<Entry> {
    for entry in &mut entries {
        entry.mtime = 0;
    }
    entries
}

/// Makes a layer of each script, either in canonical form or as the kernel left it, and compares each merge.
fn stack(test: &TestStore, scripts: &[Vec<Step>], canonical: bool) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for steps in scripts {
        let work = test.store.work_dir("test").unwrap();
        let tree = MergedTree::new(&layers);
        let opts = ingest();
        let (upper, ()) = with_overlay(&work, &lower_dirs(&layers), Some(&tree), |root| run(root, steps));
        layers.push(test.store.add_layer(&upper, canonical.then_some(&tree), &opts).unwrap());
        let merged = without_times(MergedTree::new(&layers).into_index().entries);
        assert_eq!(merged, shown(&test.store, &layers));
    }
    layers
}

/// The tree without what tells links from files: the canonical form gives an unchanged link back to its old group,
/// which the mount had broken.
fn without_links(layers: &[Layer]) -> Vec<Entry> {
    let entries = without_times(MergedTree::new(layers).into_index().entries);
    entries.into_iter().map(|entry| Entry { hardlink: None, ..entry }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn merging_gives_what_the_kernel_shows(
        scripts in prop::collection::vec(prop::collection::vec(step(), 1..14), 3),
    ) {
        let test = store();
        let raw = stack(&test, &scripts, false);
        let layers = stack(&test, &scripts, true);
        prop_assert_eq!(without_links(&layers), without_links(&raw));
        for layer in &layers {
            prop_assert!(test.store.verify_layer(&layer.digest).unwrap());
            let opaque = Kind::Directory { opaque: true };
            prop_assert!(layer.index.entries.iter().all(|entry| entry.kind != opaque));
        }
    }
}

#[test]
fn the_digest_of_a_part_knows_nothing_of_the_rest() {
    let test = store();
    let make = |other: &'static str, content: &'static str| {
        let layer = change(&test.store, &[], move |root| {
            fs::create_dir_all(root.join("usr/lib/kernel")).unwrap();
            fs::write(root.join("usr/lib/kernel/a"), content).unwrap();
            fs::hard_link(root.join("usr/lib/kernel/a"), root.join("usr/lib/kernel/b")).unwrap();
            fs::write(root.join(other), "").unwrap();
            fs::hard_link(root.join("usr/lib/kernel/a"), root.join(other).with_extension("link")).unwrap();
        });
        MergedTree::new(&[layer])
    };
    let (one, two, three) = (make("a", "x"), make("usr/z", "x"), make("a", "y"));
    let digest = |tree: &MergedTree, paths: &[&str]| tree.part(paths).into_index().digest();
    let part = ["usr/lib"];
    assert_eq!(digest(&one, &part), digest(&two, &part));
    assert_ne!(digest(&one, &part), digest(&three, &part));
    assert_ne!(digest(&one, &["usr"]), digest(&two, &["usr"]));
    assert_eq!(digest(&one, &["/usr/lib/kernel/a", "usr/lib"]), digest(&one, &part));
    assert_ne!(digest(&one, &["usr/absent"]), digest(&one, &part));
    let source = |tree: &MergedTree| tree.lookup(b"usr/lib/kernel/b").unwrap().source.clone();
    assert_eq!(source(&one.part(&part)), source(&one));
}

#[test]
fn the_digest_of_a_part_is_kept_and_never_believed_when_damaged() {
    let test = store();
    let make = |name: &'static str, content: &'static str| {
        let layer = change(&test.store, &[], move |root| {
            fs::create_dir_all(root.join("usr/lib")).unwrap();
            fs::write(root.join("usr/lib/a"), content).unwrap();
            fs::write(root.join(name), "").unwrap();
        });
        Artifact::Tree { layers: vec![layer.digest] }
    };
    let (one, two, three) = (make("x", "1"), make("y", "1"), make("x", "2"));
    let paths = ["usr/lib".to_owned()];
    let digest = |tree: &Artifact| test.store.part_digest(tree, &paths).unwrap();
    let first = digest(&one);
    assert_eq!((digest(&one), digest(&two)), (first, first));
    assert_ne!(digest(&three), first);
    assert_ne!(test.store.part_digest(&one, &["usr".to_owned(), "x".to_owned()]), Some(first));
    let kept = || fs::read_dir(test.store.dir().join("parts")).unwrap().flatten().map(|entry| entry.path());
    assert_eq!(kept().count(), 4);
    // Those of others, and nonsense.
    let other = fs::read(kept().last().unwrap()).unwrap();
    for text in [other.as_slice(), b"", b"x y\n"] {
        kept().for_each(|path| fs::write(path, text).unwrap());
        assert_eq!((digest(&one), digest(&two)), (first, first));
        assert_ne!(digest(&three), first);
    }
    test.store.gc(&GcPolicy::default()).unwrap();
    assert_eq!(kept().count(), 0);
    assert_eq!(test.store.part_digest(&Artifact::Tree { layers: vec![first] }, &paths), None);
}
