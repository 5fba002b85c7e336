//! What the store's tests share: stores in temporary directories and real overlay mounts.
//!
//! The tests need root: a thread of its own enters a mount namespace of its own and mounts there.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Ingest, Layer, MergedTree, Store, WorkDir};

/// A store and its directory.
pub struct TestStore {
    pub store: Store,
    _dir: tempfile::TempDir,
}

pub const EPOCH: i64 = 1_700_000_000;

pub fn store() -> TestStore {
    let dir = tempfile::tempdir().unwrap();
    TestStore { store: Store::open(&dir.path().join("store")).unwrap(), _dir: dir }
}

pub fn ingest() -> Ingest {
    Ingest { epoch: EPOCH, started: SystemTime::now(), clamp: false, labels: false }
}

/// Runs `action` in a mount namespace of its own.
pub fn in_mount_namespace<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("the store's tests need root");
            use nix::mount::{MsFlags, mount};
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            // The usual workers are in the old namespace and don't see the mounts: this thread is its own only worker.
            let _pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
            action()
        };
        scope.spawn(run).join().unwrap()
    })
}

/// Mounts an overlay over `lowers` (lowest first) with a fresh upper directory in `work`, runs `action` on the mount
/// point, and returns the upper directory.
pub fn with_overlay<T: Send>(
    work: &WorkDir,
    lowers: &[PathBuf],
    tree: Option<&MergedTree>,
    action: impl FnOnce(&Path) -> T + Send,
) -> (PathBuf, T) {
    let (upper, workdir) = work.overlay(tree).unwrap();
    let [empty, merged] = ["empty", "merged"].map(|name| work.join(name));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&merged).unwrap();
    let mut names: Vec<String> = lowers.iter().rev().map(|path| path.display().to_string()).collect();
    if names.is_empty() {
        names.push(empty.display().to_string());
    }
    let options =
        format!("userxattr,lowerdir={},upperdir={},workdir={}", names.join(":"), upper.display(), workdir.display());
    let answer = in_mount_namespace(|| {
        use nix::mount::{MsFlags, mount};
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let answer = action(&merged);
        unmount(&merged);
        answer
    });
    (upper, answer)
}

/// Unmounts. A child that another test starts at this moment holds our files until it is another program.
fn unmount(path: &Path) {
    while let Err(error) = nix::mount::umount(path) {
        assert_eq!(error, nix::errno::Errno::EBUSY, "can't unmount {}", path.display());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Adds the layer that `action` makes on top of `layers` in an overlay.
pub fn change(store: &Store, layers: &[Layer], action: impl FnOnce(&Path) + Send) -> Layer {
    change_with(store, layers, &ingest(), action)
}

/// As [`change`], entering as `opts` say.
pub fn change_with(store: &Store, layers: &[Layer], opts: &Ingest, action: impl FnOnce(&Path) + Send) -> Layer {
    let work = store.work_dir("test").unwrap();
    let tree = MergedTree::new(layers);
    let lowers = super::lower_dirs(layers);
    let (upper, ()) = with_overlay(&work, &lowers, Some(&tree), action);
    store.add_layer(&upper, Some(&tree), opts).unwrap()
}

/// The paths of an index, whiteouts with an exclamation mark.
pub fn paths(layer: &Layer) -> Vec<String> {
    let name = |entry: &super::Entry| {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if entry.kind == super::Kind::Whiteout { format!("!{path}") } else { path }
    };
    layer.index.entries.iter().map(name).collect()
}
