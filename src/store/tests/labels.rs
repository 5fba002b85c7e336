//! Labels of SELinux: those that a stage writes are the tree's, those that the host gives are not. Root may write the
//! attribute on a kernel without SELinux too.

use std::fs;
use std::path::Path;

use super::copying::change_copy_with;
use crate::store::LABEL;
use crate::store::testing::{change, change_with, ingest, paths, store};
use crate::store::{Ingest, Layer, MergedTree, Store};

fn label(path: &Path, text: &str) {
    crate::store::walk::set_xattr(path, LABEL, text.as_bytes()).unwrap();
}

fn files(root: &Path) {
    fs::create_dir(root.join("etc")).unwrap();
    for name in ["etc/a", "etc/b", "c"] {
        fs::write(root.join(name), name).unwrap();
    }
}

fn labelling() -> Ingest {
    Ingest { labels: true, ..ingest() }
}

fn labelled(store: &Store, base: &Layer) -> Layer {
    change_with(store, std::slice::from_ref(base), &labelling(), |root| {
        for name in ["", "etc", "etc/a", "etc/b", "c"] {
            label(&root.join(name), &format!("label of {name}"));
        }
    })
}

/// Paths with what the index says of their labels.
fn labels(layers: &[Layer]) -> Vec<String> {
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    let entries = MergedTree::new(layers).into_index().entries.into_iter();
    let found = |entry: crate::store::Entry| entry.meta.xattrs.get(LABEL).map(text).unwrap_or_default();
    entries.map(|entry| format!("{}: {}", String::from_utf8_lossy(&entry.path), found(entry.clone()))).collect()
}

#[test]
fn the_hosts_labels_are_in_no_layer() {
    let (test, other) = (store(), store());
    let plain = change(&test.store, &[], files);
    let hosts = |root: &Path| {
        files(root);
        for name in ["etc", "etc/a", "c"] {
            label(&root.join(name), "the host's");
        }
    };
    let marked = change(&other.store, &[], hosts);
    assert_eq!((marked.digest, marked.index.clone()), (plain.digest, plain.index.clone()));
    assert!(other.store.verify_layer(&marked.digest).unwrap());
    // A file that the host labels when it is copied up has not changed.
    let touched = change(&other.store, std::slice::from_ref(&marked), |root| label(&root.join("etc/b"), "the host's"));
    assert_eq!(paths(&touched), [""]);
    let copied = change_copy_with(&other.store, std::slice::from_ref(&marked), &ingest(), |root| {
        label(&root.join("etc/b"), "the host's");
    });
    assert_eq!(copied.digest, touched.digest);
}

#[test]
fn labels_of_the_tree_stay_where_a_later_stage_works() {
    let test = store();
    let base = change(&test.store, &[], files);
    let layer = labelled(&test.store, &base);
    let want = [": label of ", "c: label of c", "etc: label of etc", "etc/a: label of etc/a", "etc/b: label of etc/b"];
    let mut layers = vec![base, layer.clone()];
    assert_eq!(labels(&layers), want);
    assert!(test.store.verify_layer(&layer.digest).unwrap());
    let later = |root: &Path| {
        fs::write(root.join("etc/new"), "new").unwrap();
        // Made anew, and labelled by the host.
        fs::remove_file(root.join("etc/a")).unwrap();
        fs::write(root.join("etc/a"), "another").unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
        fs::write(root.join("etc/b"), "another").unwrap();
        label(&root.join("etc/b"), "the host's");
    };
    let other = store();
    let copied = change_copy_with(&other.store, &layers, &ingest(), later);
    layers.push(change(&test.store, &layers, later));
    let top = &layers[2];
    assert_eq!(copied.digest, top.digest);
    assert_eq!(labels(&layers), [&want[..], &["etc/new: "]].concat());
    let mut value = [0; 64];
    for name in ["etc", "etc/a", "etc/b"] {
        let length = rustix::fs::lgetxattr(top.dir.join(name), LABEL, &mut value).unwrap();
        assert_eq!(value[..length], *format!("label of {name}").as_bytes(), "what is mounted has it too");
    }
    assert!(test.store.verify_layer(&top.digest).unwrap() && other.store.verify_layer(&copied.digest).unwrap());
    label(&top.dir.join("etc/a"), "damage");
    assert!(!test.store.verify_layer(&top.digest).unwrap());
}

#[test]
fn an_index_is_made_again_with_its_labels() {
    let test = store();
    let base = change(&test.store, &[], files);
    label(&base.dir.join("c"), "the host's");
    let layer = labelled(&test.store, &base);
    for layer in [&base, &layer] {
        fs::write(layer.dir.parent().unwrap().join("index"), "damaged").unwrap();
        let again = Store::open(test.store.dir()).unwrap();
        assert_eq!(again.layer(&layer.digest).unwrap().unwrap().index.entries.len(), layer.index.entries.len());
        assert!(again.verify_layer(&layer.digest).unwrap());
    }
}
