//! Publications one after the other, with users and kills in between.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::super::testing::{describe, every_kind, run, tree_of};
use super::*;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        every_kind(&dir.path().join("layer"));
        Self { dir }
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("out/image")
    }

    fn publish_with(&self, options: &DirectoryOptions) -> Result<DirectoryOutcome> {
        publish_directory(&tree_of(&self.layer()), &self.dest(), &self.dir.path().join("state/image"), options)
    }

    fn publish(&self) -> DirectoryOutcome {
        self.publish_with(&DirectoryOptions::default()).unwrap()
    }

    fn is_current(&self) -> bool {
        let state = self.dir.path().join("state/image");
        directory_is_current(&tree_of(&self.layer()), &self.dest(), &state, &DirectoryOptions::default())
    }

    fn assert_exact(&self) {
        assert_eq!(describe(&self.layer()), describe(&self.dest()));
        let diff = "for f in $(find layer -type f -printf '%P\\n'); do cmp layer/$f out/image/$f; done";
        run(self.dir.path(), diff);
        run(self.dir.path(), "cmp <(cd layer; getfattr -dm - capable) <(cd out/image; getfattr -dm - capable)");
        assert_eq!(self.layer().metadata().unwrap().mode(), self.dest().metadata().unwrap().mode());
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(self.dir.path().join("out")).unwrap().count(), 1);
        // Nothing is shared with the store.
        let layer = self.layer().join("capable").metadata().unwrap();
        assert_ne!(layer.ino(), self.dest().join("capable").metadata().unwrap().ino());
        assert_eq!(layer.nlink(), 1);
    }
}

#[test]
fn a_first_publication_and_an_unchanged_one() {
    let case = Case::new();
    assert!(!case.is_current());
    let first = case.publish();
    assert_eq!(first.kept, 0);
    case.assert_exact();
    assert!(case.is_current());
    let inode = case.dest().metadata().unwrap().ino();
    let second = case.publish();
    assert_eq!((second.made, case.dest().metadata().unwrap().ino()), (0, inode));
}

#[test]
fn only_what_changed_is_made_again() {
    let case = Case::new();
    let first = case.publish();
    let inode = |path: &str| case.dest().join(path).metadata().unwrap().ino();
    let (kept, changed) = (inode("d/file"), inode("zero"));
    std::fs::write(case.layer().join("zero"), "no more").unwrap();
    assert!(!case.is_current());
    let second = case.publish();
    assert_eq!((second.made, second.kept), (1, first.made - 1));
    assert_eq!(inode("d/file"), kept);
    assert_ne!(inode("zero"), changed);
    case.assert_exact();
    // A change of the mode alone must not reach what the old tree shares with the new one.
    let old = std::fs::File::open(case.dest().join("capable")).unwrap();
    std::fs::set_permissions(case.layer().join("capable"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(case.publish().made, 1);
    assert_eq!(old.metadata().unwrap().mode() & 0o777, 0o644);
    case.assert_exact();
    std::fs::remove_dir_all(case.layer().join("d")).unwrap();
    std::fs::write(case.layer().join("d"), "now a file").unwrap();
    case.publish();
    case.assert_exact();
}

#[test]
fn hard_links_that_part_are_parted() {
    let case = Case::new();
    case.publish();
    let text = std::fs::read(case.layer().join("z-hard")).unwrap();
    std::fs::remove_file(case.layer().join("z-hard")).unwrap();
    std::fs::write(case.layer().join("z-hard"), text).unwrap();
    run(case.dir.path(), "touch -r layer/z-hard-too layer/z-hard");
    case.publish();
    case.assert_exact();
    assert_eq!(case.dest().join("z-hard").metadata().unwrap().nlink(), 1);
}

#[test]
fn what_users_did_to_the_output_is_undone() {
    let edits = [
        "printf x > capable",
        // The same size, and the time set back: only the change time tells.
        "touch -r capable ../t; printf x > capable; touch -r ../t capable; rm ../t",
        "rm -r d/empty",
        "touch d/added",
        "mkdir -p new/dir",
        "ln -sfn /etc link",
        "chmod 777 zero",
        "chmod 700 d",
        "mv d moved; ln -s moved d",
        "setfattr -n user.x -v other capable",
        "ln z-hard extra-name",
        "mv zero zero2; mv zero2 zero",
    ];
    let case = Case::new();
    case.publish();
    for edit in edits {
        run(&case.dest(), edit);
        assert!(!case.is_current(), "{edit}");
        case.publish();
        case.assert_exact();
        assert!(case.is_current(), "{edit}");
    }
}

#[test]
fn foreign_things_are_replaced_only_by_force() {
    let case = Case::new();
    let force = DirectoryOptions { force: true, ..Default::default() };
    std::fs::create_dir_all(case.dest()).unwrap();
    // An empty directory has nothing to lose.
    case.publish();
    case.assert_exact();
    for foreign in ["mkdir image; touch image/mine", "echo > image", "ln -s ../elsewhere image"] {
        std::fs::create_dir_all(case.dir.path().join("elsewhere")).unwrap();
        std::fs::write(case.dir.path().join("elsewhere/mine"), "").unwrap();
        run(&case.dir.path().join("out"), &format!("rm -rf image; {foreign}"));
        let error = case.publish_with(&DirectoryOptions::default()).unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{foreign}: {error}");
        case.publish_with(&force).unwrap();
        case.assert_exact();
        assert!(case.dir.path().join("elsewhere/mine").exists());
    }
}

#[test]
fn only_what_is_ours_is_withdrawn() {
    let case = Case::new();
    let state = case.dir.path().join("state/image");
    case.publish();
    run(&case.dest(), "touch d/added");
    let machine = std::fs::File::open(case.dest()).unwrap();
    rustix::fs::flock(&machine, rustix::fs::FlockOperation::LockShared).unwrap();
    let publish = || case.publish_with(&DirectoryOptions::default());
    assert!(matches!(publish(), Err(Error::InUse { .. })));
    assert!(matches!(withdraw_directory(&case.dest(), &state), Err(Error::InUse { .. })));
    drop(machine);
    assert!(withdraw_directory(&case.dest(), &state).unwrap());
    assert!(!case.dest().exists());
    assert!(!withdraw_directory(&case.dest(), &state).unwrap());
    std::fs::create_dir(case.dest()).unwrap();
    std::fs::write(case.dest().join("mine"), "").unwrap();
    assert!(!withdraw_directory(&case.dest(), &state).unwrap());
    assert!(case.dest().join("mine").exists());
    assert!(case.publish_with(&DirectoryOptions::default()).is_err());
}

#[test]
fn a_killed_publication_does_no_harm() {
    let case = Case::new();
    case.publish();
    let state = case.dir.path().join("state/image");
    let before = std::fs::read(&state).unwrap();
    // Killed while the new tree was made.
    run(&case.dir.path().join("out"), "mkdir -p .image.mkosi-new/half; ln image/zero .image.mkosi-new/zero");
    std::fs::write(case.layer().join("zero"), "1").unwrap();
    case.publish();
    case.assert_exact();
    // Killed after the trees had changed places: the record of then knows both roots.
    let mut record = State::load(&state);
    record.entries = postcard::from_bytes::<State>(&before).unwrap().entries;
    record.roots.push(Identity::of(rustix::fs::CWD, case.dir.path()).unwrap());
    record.save(&state).unwrap();
    run(&case.dir.path().join("out"), "cp -a image .image.mkosi-new");
    std::fs::write(case.layer().join("zero"), "2").unwrap();
    case.publish();
    case.assert_exact();
    // Without its record the output is nobody's.
    std::fs::write(&state, "damaged").unwrap();
    let error = case.publish_with(&DirectoryOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
}

#[test]
fn a_failed_publication_leaves_the_old_output() {
    let case = Case::new();
    case.publish();
    let before = describe(&case.dest());
    let mut tree = tree_of(&case.layer());
    for merged in &mut tree.entries {
        if let Kind::File { size, .. } = &mut merged.entry.kind {
            *size += 1;
        }
    }
    let state = case.dir.path().join("state/image");
    let error = publish_directory(&tree, &case.dest(), &state, &DirectoryOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(describe(&case.dest()), before);
    case.publish();
    case.assert_exact();
}

#[test]
fn a_tree_that_reaches_out_of_itself_is_refused() {
    let case = Case::new();
    let host = case.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let good = tree_of(&case.layer());
    let link_then_file = {
        let mut tree = good.clone();
        let below = tree.entries.iter().position(|merged| merged.entry.path == b"d").unwrap();
        tree.entries[below].entry.kind = Kind::Symlink { target: host.as_os_str().as_bytes().to_vec() };
        tree
    };
    let dots = {
        let mut tree = good.clone();
        tree.entries[1].entry.path = b"..".to_vec();
        tree
    };
    for tree in [link_then_file, dots, MergedTree::default()] {
        let state = case.dir.path().join("state/x");
        let error = publish_directory(&tree, &case.dest(), &state, &DirectoryOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Tree { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 0);
}

#[test]
fn times_are_clamped_and_owners_left_on_request() {
    let case = Case::new();
    let options = DirectoryOptions { epoch: Some(1234), caller_owns: true, force: false, foreign: false };
    case.publish_with(&options).unwrap();
    let zero = case.dest().join("zero").metadata().unwrap();
    assert_eq!((zero.mtime(), zero.uid(), zero.gid()), (1000, 0, 0));
    assert_eq!(case.dest().join("capable").metadata().unwrap().mtime(), 1234);
    assert_eq!(case.dest().join("link").symlink_metadata().unwrap().mtime(), 1234);
    assert_eq!(case.publish_with(&options).unwrap().made, 0);
}

#[test]
fn of_ten_thousand_files_the_changed_one_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let layer = dir.path().join("layer");
    for index in 0..10_000 {
        let path = layer.join(format!("usr/lib/{:02}/{index}", index % 100));
        if index < 100 {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        std::fs::write(path, format!("content {index}")).unwrap();
    }
    symlink("usr/lib", layer.join("lib")).unwrap();
    let (dest, state) = (dir.path().join("image"), dir.path().join("state"));
    let options = DirectoryOptions::default();
    publish_directory(&tree_of(&layer), &dest, &state, &options).unwrap();
    std::fs::write(layer.join("usr/lib/07/7"), "changed").unwrap();
    let tree = tree_of(&layer);
    let outcome = publish_directory(&tree, &dest, &state, &options).unwrap();
    assert_eq!((outcome.made, outcome.kept), (1, 10_000));
    assert_eq!(publish_directory(&tree, &dest, &state, &options).unwrap().made, 0);
}
