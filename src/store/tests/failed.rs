//! What failed stages leave.

use std::time::Duration;

use super::super::{GcPolicy, Slot, Store};
use crate::types::Digest;

fn slot(node: &str) -> Slot {
    Slot { project: "/p".to_owned(), image: "main".to_owned(), node: node.to_owned() }
}

fn fail(store: &Store, node: &str, text: &str) -> bool {
    let work = store.work_dir(node).unwrap();
    let (upper, _) = work.overlay(None).unwrap();
    std::fs::write(upper.join("left"), text).unwrap();
    store.keep_failed(&slot(node), work, &[Digest::of(b"layer")], "it failed").unwrap()
}

fn left(store: &Store, node: &str) -> Option<String> {
    let failed = store.failed(&slot(node)).unwrap()?;
    assert_eq!((failed.layers.as_slice(), failed.why.as_str()), ([Digest::of(b"layer")].as_slice(), "it failed"));
    Some(std::fs::read_to_string(failed.dir.join("upper/left")).unwrap())
}

#[test]
fn the_last_failure_of_a_place_is_kept_until_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(left(&store, "a"), None);
    assert!(fail(&store, "a", "one"));
    assert!(fail(&store, "a", "two"));
    assert!(fail(&store, "b", "other"));
    assert_eq!(left(&store, "a").as_deref(), Some("two"));
    let usage = store.du().unwrap();
    assert!(usage.failed.0 == 2 && usage.failed.1 > 8 && usage.total() >= usage.failed.1, "{usage:?}");
    // Nothing of the first is left, here or under way.
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    // Another process sees it too, and takes it for no stale work.
    assert_eq!(left(&Store::open(dir.path()).unwrap(), "a").as_deref(), Some("two"));
    store.forget_failed(&slot("a")).unwrap();
    assert_eq!(left(&store, "a"), None);
    assert_eq!(left(&store, "b").as_deref(), Some("other"));
}

#[test]
fn what_is_looked_at_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(fail(&store, "a", "one"));
    let looked_at = store.failed(&slot("a")).unwrap().unwrap();
    assert!(!fail(&store, "a", "two"));
    store.forget_failed(&slot("a")).unwrap();
    store.gc(&GcPolicy::default()).unwrap();
    assert!(looked_at.dir.join("upper/left").exists());
    drop(looked_at);
    assert!(fail(&store, "a", "two"));
    assert_eq!(left(&store, "a").as_deref(), Some("two"));
}

#[test]
fn clean_up_and_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..20 {
        assert!(fail(&store, &number.to_string(), "x"));
    }
    assert_eq!(std::fs::read_dir(dir.path().join("failed")).unwrap().count(), 8);
    store.gc(&GcPolicy { max_size: None, keep: Duration::from_secs(3600) }).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("failed")).unwrap().count(), 8);
    store.forget_project("/other").unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("failed")).unwrap().count(), 8);
    store.gc(&GcPolicy::default()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("failed")).unwrap().count(), 0);
    assert!(fail(&store, "a", "x"));
    store.forget_project("/p").unwrap();
    assert_eq!(left(&store, "a"), None);
}
