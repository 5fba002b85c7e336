//! Damage, power cuts and clean-up.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::whole::{add, names, record};
use crate::store::testing::store;
use crate::store::{GcPolicy, Record, Slot, Store};
use crate::types::Digest;

/// Flips one bit in the middle of a file and keeps its time.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn damage_is_found_and_repaired() {
    let test = store();
    let store = &test.store;
    let (bad, good, broken) = (add(store, b"bad").unwrap(), add(store, b"good").unwrap(), add(store, b"i").unwrap());
    let file = store.add_bytes(b"kernel").unwrap();
    let records = [record("bad", &[&good, &bad], &[]), record("good", &[&good], &[]), record("file", &[], &[file])];
    for record in &records {
        store.put_record(record).unwrap();
    }
    flip(&bad.dir.join("f7"));
    flip(&store.file(&file).unwrap());
    flip(&broken.dir.with_file_name("index"));
    let garbage = store.dir().join("records").join(format!("{}.json", Digest::of(b"g")));
    fs::write(&garbage, "{").unwrap();
    let mut want = vec![
        format!("layer {}", bad.digest),
        format!("layer {}", broken.digest),
        format!("file {file}"),
        format!("record {}", Digest::of(b"g")),
    ];
    want.sort();
    assert!(!store.verify_layer(&bad.digest).unwrap());
    assert_eq!(store.verify(false).unwrap().damaged, want);
    assert!(bad.dir.exists());
    // An index alone is written anew from its tree.
    let again = Store::open(store.dir()).unwrap();
    assert_eq!(again.layer(&broken.digest).unwrap().unwrap().index, broken.index);
    want.retain(|line| !line.contains(&broken.digest.hex()));
    assert_eq!(store.verify(true).unwrap().damaged, want);
    assert_eq!(store.verify(false).unwrap().damaged, Vec::<String>::new());
    assert_eq!(store.record(&records[0].key).unwrap(), None);
    assert!(store.record(&records[1].key).unwrap().is_some());
    assert_eq!(store.record(&records[2].key).unwrap(), None);
    assert_eq!(store.layer(&bad.digest).unwrap().map(|layer| layer.digest), None);
    // And made again.
    assert_eq!(add(store, b"bad").unwrap().digest, bad.digest);
}

#[test]
fn what_a_power_cut_may_have_spoiled_is_read_before_it_is_used() {
    let test = store();
    let dir = test.store.dir().to_owned();
    let (one, two) = (add(&test.store, b"one").unwrap(), add(&test.store, b"two").unwrap());
    let records = [record("one", &[&one], &[]), record("two", &[&two], &[])];
    for record in &records {
        test.store.put_record(record).unwrap();
    }
    let settled = Store::open(&dir).unwrap();
    let other = record("other", &[&one], &[]);
    settled.put_record(&other).unwrap();
    // The run becomes one of another boot, whose last writes never reached the disk.
    let run = test.store.run().to_owned();
    let old = format!("0ldb00t.{}", run.split_once('.').unwrap().1);
    fs::write(dir.join("runs").join(&old), "").unwrap();
    for name in names(&dir.join("records")) {
        let path = dir.join("records").join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(&run, &old)).unwrap();
    }
    fs::write(one.dir.join("f3"), "").unwrap();

    let store = Store::open(&dir).unwrap();
    assert_eq!(store.record(&records[0].key).unwrap(), None);
    assert!(!one.dir.exists());
    add(&store, b"one").unwrap();
    assert_eq!(store.record(&other.key).unwrap(), None, "it meant the old object");
    assert!(store.record(&records[1].key).unwrap().is_some());
    // The good one is trusted from now on; so damage would go unseen until somebody verifies.
    assert!(!fs::read_to_string(dir.join("records").join(format!("{}.json", records[1].key))).unwrap().contains(&old));
    // A layer that is made again replaces a spoiled one.
    fs::write(two.dir.join("f3"), "").unwrap();
    let later = Store::open(&dir).unwrap();
    add(&later, b"two").unwrap();
    assert!(later.verify_layer(&two.digest).unwrap());
    assert!(later.verify(true).unwrap().damaged.is_empty());
    assert!(!dir.join("runs").join(&old).exists());
}

#[test]
fn a_settled_run_leaves_no_doubt() {
    let test = store();
    let dir = test.store.dir().to_owned();
    let store = Store::open(&dir).unwrap();
    add(&store, b"x").unwrap();
    store.settle().unwrap();
    let name = store.run().to_owned();
    drop(store);
    assert!(!dir.join("runs").join(name).exists());
    let store = Store::open(&dir).unwrap();
    add(&store, b"y").unwrap();
    let name = store.run().to_owned();
    drop(store);
    assert!(dir.join("runs").join(name).exists(), "not synced, so a later boot has to know");
}

/// Makes a record look as if it was used last so many seconds ago.
fn age(store: &Store, record: &Record, seconds: u64) {
    let path = store.dir().join("records").join(format!("{}.json", record.key));
    let time = std::time::SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn clean_up_takes_what_was_not_used_for_longest() {
    let test = store();
    let dir = test.store.dir().to_owned();
    let (shared, file, records) = {
        let store = Store::open(&dir).unwrap();
        let [shared, old, new, orphan] =
            [b"shared", b"old   ", b"new   ", b"orphan"].map(|content| add(&store, content).unwrap());
        let file = store.add_bytes(b"kernel").unwrap();
        let records = [record("old", &[&shared, &old], &[]), record("new", &[&shared, &new], &[file])];
        for record in &records {
            store.put_record(record).unwrap();
        }
        let slot = Slot { project: "/p".into(), image: "main".into(), node: "old".into() };
        store.set_last(&slot, &records[0].key).unwrap();
        fs::create_dir(store.pool().join("deb")).unwrap();
        fs::write(store.pool().join("deb/a.deb"), "package").unwrap();
        age(&store, &records[0], 7200);
        age(&store, &records[1], 600);

        // All of it is in use by this very run.
        let all = GcPolicy { max_size: Some(0), keep: Duration::from_secs(60) };
        let report = test.store.gc(&all).unwrap();
        assert_eq!((report.layers, report.records, report.files), (0, 0, 0));
        let usage = store.du().unwrap();
        assert_eq!((usage.layers, usage.files, usage.pool), ((4, 4 * 140), (1, 6), (1, 7)));
        let kinds = BTreeMap::from([("".to_owned(), 140), ("new".to_owned(), 286), ("old".to_owned(), 140)]);
        assert_eq!(usage.by_kind, kinds);
        assert!(test.store.layer(&orphan.digest).unwrap().is_some());
        (shared, file, records)
    };
    let store = Store::open(&dir).unwrap();
    drop(test.store);
    // Without a limit only what nothing refers to goes.
    let report = store.gc(&GcPolicy::default()).unwrap();
    assert_eq!((report.layers, report.records, report.freed, report.remaining), (1, 0, 140, 433));
    // The older record goes, the layer that both have stays.
    let report = store.gc(&GcPolicy { max_size: Some(400), keep: Duration::from_secs(60) }).unwrap();
    assert_eq!((report.layers, report.records, report.freed), (1, 1, 140));
    assert_eq!(names(&dir.join("last")), Vec::<String>::new());
    assert!(store.layer_dir(&shared.digest).exists());
    // Whoever uses the other one keeps it.
    assert_eq!(store.record(&records[1].key).unwrap().as_ref(), Some(&records[1]));
    let touched = fs::metadata(dir.join("records").join(format!("{}.json", records[1].key))).unwrap();
    assert!(touched.modified().unwrap().elapsed().unwrap() > Duration::from_secs(300), "noted only once in an hour");
    let other = Store::open(&dir).unwrap();
    let nothing = GcPolicy { max_size: Some(0), keep: Duration::ZERO };
    other.use_pool("deb/a.deb").unwrap();
    assert_eq!(other.gc(&nothing).unwrap().freed, 0);
    drop(store);
    let report = other.gc(&nothing).unwrap();
    assert_eq!((report.layers, report.records, report.files, report.remaining), (2, 1, 1, 7));
    assert_eq!(other.file(&file), None);
    drop(other);
    let last = Store::open(&dir).unwrap();
    assert_eq!(last.gc(&nothing).unwrap().remaining, 0);
    assert_eq!(names(&dir.join("tmp")), Vec::<String>::new());
}

#[test]
fn holes_take_nothing() {
    let test = store();
    let path = test.store.dir().join("tmp/disk");
    let file = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 1 << 30).unwrap();
    drop(file);
    test.store.add_file(&path).unwrap();
    let (files, size) = test.store.du().unwrap().files;
    assert!(files == 1 && (3..1 << 20).contains(&size), "{size}");
}
