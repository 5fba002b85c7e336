//! The store under several users, kills, full disks and damage.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::store::testing::{change, in_mount_namespace, ingest, paths, store};
use crate::store::{Artifact, Layer, Record, Slot, Store, StoreError, probe_overlay};
use crate::types::Digest;

pub fn add(store: &Store, content: &[u8]) -> Result<Layer, StoreError> {
    let work = store.work_dir("test")?;
    let (upper, _) = work.overlay(None)?;
    for number in 0..20 {
        fs::write(upper.join(format!("f{number}")), [content, &[number]].concat()).unwrap();
    }
    store.add_layer(&upper, None, &ingest())
}

pub fn record(name: &str, layers: &[&Layer], files: &[Digest]) -> Record {
    let files = files.iter().map(|digest| (digest.short(), *digest)).collect();
    let layers = layers.iter().map(|layer| layer.digest).collect();
    Record {
        key: Digest::of(name.as_bytes()),
        kind: name.to_owned(),
        inputs: BTreeMap::from([("setting/Packages".to_owned(), Digest::of(b"p"))]),
        outputs: BTreeMap::from([
            ("tree".to_owned(), Artifact::Tree { layers }),
            ("files".to_owned(), Artifact::Files { files }),
        ]),
        duration_ms: 1,
        size: 2,
        finished: 3,
        read: None,
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_newer_store_and_other_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Store::open(&path).unwrap());
    assert!(fs::read_to_string(path.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172"));
    assert_eq!(names(&path.join("runs")), Vec::<String>::new());
    fs::write(path.join("version"), "99\n").unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::Newer { found, .. } if found == "99"), "{error}");
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert!(!dir.path().join("CACHEDIR.TAG").exists());
}

#[test]
fn work_of_the_living_stays_and_of_the_dead_goes() {
    let test = store();
    let work = test.store.work_dir("a b/c").unwrap();
    let dead = test.store.dir().join("tmp/dead.1");
    fs::create_dir_all(dead.join("work/work")).unwrap();
    fs::set_permissions(dead.join("work/work"), Permissions::from_mode(0o000)).unwrap();
    let again = Store::open(test.store.dir()).unwrap();
    assert!(work.path().exists());
    assert!(!dead.exists());
    assert!(work.path().file_name().unwrap().to_str().unwrap().starts_with("a-b-c."));
    let path = work.path().to_owned();
    fs::write(work.join("held"), "x").unwrap();
    let held = fs::File::open(work.join("held")).unwrap();
    rustix::fs::ioctl_setflags(&held, rustix::fs::IFlags::IMMUTABLE).unwrap();
    drop(work);
    assert!(!path.exists());
    drop(again);
}

#[test]
fn what_is_mounted_in_a_work_directory_is_not_removed() {
    let test = store();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    in_mount_namespace(|| {
        use nix::mount::{MsFlags, mount, umount};
        let work = test.store.work_dir("test").unwrap();
        let point = work.join("a mount");
        fs::create_dir(&point).unwrap();
        mount(Some(outside.path()), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let error = crate::store::remove_tree(work.path()).unwrap_err().to_string();
        assert!(error.contains("a mount"), "{error}");
        drop(work);
        assert!(outside.path().join("precious").exists());
        umount(&point).unwrap();
    });
    drop(Store::open(test.store.dir()).unwrap());
    assert_eq!(names(&test.store.dir().join("tmp")), Vec::<String>::new());
}

#[test]
fn a_user_without_rights_reads_and_removes_closed_directories() {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    in_mount_namespace(|| {
        // For this thread alone; takes the rights over files of others away, too.
        nix::unistd::setfsgid(NOBODY.into());
        nix::unistd::setfsuid(NOBODY.into());
        let store = Store::open(&dir.path().join("store")).unwrap();
        let work = store.work_dir("test").unwrap();
        let upper = work.join("upper");
        fs::create_dir_all(upper.join("closed/in")).unwrap();
        fs::write(upper.join("closed/in/file"), "x").unwrap();
        for name in ["closed/in/file", "closed/in", "closed"] {
            fs::set_permissions(upper.join(name), Permissions::from_mode(0o000)).unwrap();
        }
        assert!(fs::read_dir(upper.join("closed")).is_err(), "this test means nothing with such rights");
        let layer = store.add_layer(&upper, None, &ingest()).unwrap();
        assert_eq!(paths(&layer), ["", "closed", "closed/in", "closed/in/file"]);
        assert!(layer.index.entries.iter().skip(1).all(|entry| entry.meta.mode == 0));
        assert!(fs::read_dir(layer.dir.join("closed")).is_err());
        assert!(store.verify_layer(&layer.digest).unwrap());
        fs::create_dir_all(work.join("again/in")).unwrap();
        fs::set_permissions(work.join("again"), Permissions::from_mode(0o000)).unwrap();
        drop(work);
        store.discard_layer(&layer.digest).unwrap();
        assert_eq!(names(&store.dir().join("tmp")), Vec::<String>::new());
    });
}

#[test]
fn records_are_found_while_all_they_made_is_there() {
    let test = store();
    let store = &test.store;
    let layer = add(store, b"x").unwrap();
    let file = store.add_bytes(b"kernel").unwrap();
    let path = store.file(&file).unwrap();
    assert_eq!((fs::read(&path).unwrap(), path.metadata().unwrap().mode() & 0o777), (b"kernel".to_vec(), 0o444));
    assert_eq!(store.file(&Digest::of(b"none")), None);
    let made = record("base", &[&layer], &[file]);
    assert_eq!(store.record(&made.key).unwrap(), None);
    store.put_record(&made).unwrap();
    assert_eq!(store.record(&made.key).unwrap().as_ref(), Some(&made));
    let slot = Slot { project: "/p".into(), image: "main".into(), node: "base".into() };
    assert_eq!(store.last(&slot).unwrap(), None);
    store.set_last(&slot, &made.key).unwrap();
    assert_eq!(store.last(&slot).unwrap().as_ref(), Some(&made));
    assert_eq!(store.last(&Slot { node: "packages".into(), ..slot }).unwrap(), None);

    // Damage in the record itself.
    let place = store.dir().join("records").join(format!("{}.json", made.key));
    let text = fs::read_to_string(&place).unwrap();
    fs::write(&place, text.replace("\"duration_ms\":1", "\"duration_ms\":2")).unwrap();
    assert_eq!(store.record(&made.key).unwrap(), None);
    fs::write(&place, "").unwrap();
    assert_eq!(store.record(&made.key).unwrap(), None);
    store.put_record(&made).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(store.record(&made.key).unwrap(), None);
    assert!(!place.exists(), "or it would come back with the object, whoever made that");
    store.drop_record(&made.key).unwrap();
}

#[test]
fn the_second_at_a_key_waits_for_the_first() {
    let test = store();
    let (store, key) = (&test.store, Digest::of(b"k"));
    let first = store.lock_key(&key, || false).unwrap();
    assert!(matches!(store.lock_key(&key, || true), Err(StoreError::Cancelled { .. })));
    let at_work = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                use std::sync::atomic::Ordering::SeqCst;
                let _lock = store.lock_key(&key, || false).unwrap();
                assert_eq!(at_work.fetch_add(1, SeqCst), 0);
                std::thread::sleep(Duration::from_millis(3));
                at_work.fetch_sub(1, SeqCst);
            });
        }
        drop(first);
    });
    assert_eq!(names(&store.dir().join("locks")), Vec::<String>::new());
}

#[test]
fn threads_that_add_the_same_layer_share_it() {
    let test = store();
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| add(&test.store, b"same").unwrap().digest)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(names(&test.store.dir().join("layers")), [digests[0].hex()]);
    assert_eq!(names(&test.store.dir().join("tmp")), Vec::<String>::new());
    assert!(test.store.verify_layer(&digests[0]).unwrap());
}

/// Adds layers and records; without end in the process that the next test kills.
#[test]
fn a_process_adds_layers() {
    let killed = std::env::var_os("STORE_TEST_DIR");
    // One that is killed removes nothing, so it has no directory of its own.
    let own = killed.is_none().then(|| tempfile::tempdir().unwrap());
    let place = own.as_ref().map(|own| own.path().join("store"));
    let store = Store::open(&place.or(killed.clone().map(Into::into)).unwrap()).unwrap();
    let base = std::process::id().to_le_bytes();
    for number in 0u32.. {
        let layer = add(&store, &[&base[..], &number.to_le_bytes()].concat()).unwrap();
        let made = record(&format!("{}-{number}", std::process::id()), &[&layer], &[]);
        store.put_record(&made).unwrap();
        if killed.is_none() {
            assert_eq!(store.record(&made.key).unwrap(), Some(made));
            return;
        }
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_valid_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::whole::a_process_adds_layers"])
            .env("STORE_TEST_DIR", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(names(&path.join("tmp")), Vec::<String>::new());
    let report = store.verify(false).unwrap();
    assert_eq!(report.damaged, Vec::<String>::new());
    assert!(report.checked > 0, "no process came to add anything");
    for name in names(&path.join("records")) {
        let key = name.trim_end_matches(".json").parse().unwrap();
        assert!(store.record(&key).unwrap().is_some(), "{name} refers to something that is not there");
    }
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    in_mount_namespace(|| {
        use nix::mount::{MsFlags, mount};
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=512k")).unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        let before = add(&store, b"before").unwrap();
        let made = record("before", &[&before], &[]);
        store.put_record(&made).unwrap();
        let work = store.work_dir("test").unwrap();
        let (upper, _) = work.overlay(None).unwrap();
        fs::write(upper.join("f"), "x").unwrap();
        let filler = dir.path().join("filler");
        let full = fs::write(&filler, vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));

        let error = store.add_layer(&upper, None, &ingest()).unwrap_err();
        assert!(error.is_full(), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("mkosi store gc"), "{text}");
        assert!(store.add_bytes(b"kernel").unwrap_err().is_full());
        let other = record("other", &[&before], &[]);
        let error = store.put_record(&other).unwrap_err();
        assert!(error.is_full(), "{error}");
        drop(work);
        assert_eq!(names(&path.join("tmp")), Vec::<String>::new());
        assert_eq!(store.record(&made.key).unwrap().as_ref(), Some(&made));
        assert_eq!(store.record(&other.key).unwrap(), None);

        fs::remove_file(&filler).unwrap();
        assert!(store.verify(false).unwrap().damaged.is_empty());
        add(&store, b"after").unwrap();
    });
}

#[test]
fn the_probe_mounts_an_overlay_and_cleans_up() {
    let test = store();
    let tmp = test.store.dir().join("tmp");
    in_mount_namespace(|| probe_overlay(&tmp).unwrap());
    assert_eq!(names(&tmp), Vec::<String>::new());
    // An overlay is no place for another one's upper directory with whiteouts.
    let refused = change(&test.store, &[], |root| {
        let result = probe_overlay(root);
        assert!(result.is_err(), "{result:?}");
    });
    assert_eq!(refused.index.entries.len(), 1);
    let reason = "no overlay".to_owned();
    test.store.set_backend(crate::store::Backend::Copy { reason });
    assert_ne!(test.store.backend(), crate::store::Backend::Overlay);
}
