//! Files in a directory that users work in too.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::testing::run;
use super::*;

struct Case {
    dir: tempfile::TempDir,
    wanted: BTreeMap<String, Content>,
}

impl Case {
    fn new() -> Self {
        let mut case = Self { dir: tempfile::tempdir().unwrap(), wanted: BTreeMap::new() };
        case.want("image.tar", "tar");
        case.want("image.manifest", "{}");
        case.wanted.insert("image".into(), Content::Link { target: "image.tar".into() });
        case
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state/main.json")
    }

    fn want(&mut self, name: &str, text: &str) {
        let digest = Digest::of(text.as_bytes());
        let source = self.dir.path().join(digest.hex());
        std::fs::write(&source, text).unwrap();
        self.wanted.insert(name.into(), Content::File { source, digest, mode: 0o640 });
    }

    fn publish(&self) -> Result<Outcome> {
        publish(&self.out(), &self.state(), &self.wanted, &PublishOptions::default())
    }

    fn force(&self) -> Outcome {
        publish(&self.out(), &self.state(), &self.wanted, &PublishOptions { force: true, owner: None }).unwrap()
    }

    fn is_current(&self) -> bool {
        is_current(&self.out(), &self.state(), &self.wanted)
    }

    fn assert_exact(&self) {
        for (name, content) in &self.wanted {
            let path = self.out().join(name);
            match content {
                Content::File { source, mode, .. } => {
                    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(source).unwrap(), "{name}");
                    let metadata = path.symlink_metadata().unwrap();
                    assert!(metadata.is_file());
                    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (*mode, 1), "{name}");
                }
                Content::Link { target } => assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(target)),
            }
        }
        let hidden = run(&self.out(), "find . -name '.*.mkosi-new'");
        assert_eq!(hidden, "");
    }
}

#[test]
fn files_come_once_and_stay_while_they_are_current() {
    let mut case = Case::new();
    assert!(!case.is_current());
    assert_eq!(case.publish().unwrap().written, ["image", "image.manifest", "image.tar"]);
    case.assert_exact();
    assert!(case.is_current());
    let again = case.publish().unwrap();
    assert_eq!((again.written.len(), again.kept.len()), (0, 3));
    case.want("image.tar", "another");
    assert!(!case.is_current());
    assert_eq!(case.publish().unwrap().written, ["image.tar"]);
    case.assert_exact();
    if let Some(Content::File { mode, .. }) = case.wanted.get_mut("image.tar") {
        *mode = 0o600;
    }
    assert_eq!(case.publish().unwrap().written, ["image.tar"]);
    case.assert_exact();
}

#[test]
fn what_users_edit_or_delete_is_put_back() {
    let case = Case::new();
    case.publish().unwrap();
    for edit in [
        "printf bar > image.tar",
        "touch -r image.tar t; printf BAR > image.tar; touch -r t image.tar; rm t",
        "rm image.tar",
        "rm image",
        "chmod 777 image.manifest",
    ] {
        run(&case.out(), edit);
        assert!(!case.is_current(), "{edit}");
        assert_eq!(case.publish().unwrap().written.len(), 1, "{edit}");
        case.assert_exact();
    }
}

#[test]
fn what_is_not_ours_is_kept_unless_forced() {
    let case = Case::new();
    std::fs::create_dir(case.out()).unwrap();
    std::fs::write(case.out().join("image.tar"), "mine").unwrap();
    let error = case.publish().unwrap_err();
    assert!(matches!(&error, Error::NotOurs { path } if path.ends_with("image.tar")), "{error}");
    assert_eq!(std::fs::read_dir(case.out()).unwrap().count(), 1);
    case.force();
    case.assert_exact();
    // Replaced by the user, not edited.
    run(&case.out(), "rm image.tar; echo mine > image.tar");
    assert!(matches!(case.publish(), Err(Error::NotOurs { .. })));
    run(&case.out(), "rm image.tar; mkdir image.tar; touch image.tar/x");
    assert!(matches!(case.publish(), Err(Error::NotOurs { .. })));
    case.force();
    case.assert_exact();
    // A link of the user's is replaced and not followed.
    run(&case.out(), "rm image.tar; echo mine > ../mine; ln -s ../mine image.tar");
    case.force();
    case.assert_exact();
    assert_eq!(std::fs::read_to_string(case.dir.path().join("mine")).unwrap(), "mine\n");
}

#[test]
fn a_killed_publication_is_continued() {
    let mut case = Case::new();
    case.publish().unwrap();
    // Killed while copying.
    run(&case.out(), "echo half > .image.tar.mkosi-new");
    case.want("image.tar", "second");
    case.want("image.manifest", "{2}");
    // Killed between the first and the second rename: the record is the one before the renames.
    let opened = open(&case.out()).unwrap();
    let mut record = State::load(&case.state());
    for (name, content) in &case.wanted {
        make(&opened, &case.out(), name, content, &PublishOptions::default()).unwrap();
        let known = record.files.get_mut(name).unwrap();
        known.ours.insert(0, Identity::of(&opened, Path::new(&temporary_name(name))).unwrap());
        known.stamp = None;
        known.content = content.published();
    }
    record.save(&case.state()).unwrap();
    place(&opened, "image.manifest").unwrap();
    assert!(!case.is_current());
    case.publish().unwrap();
    case.assert_exact();
    assert!(case.is_current());
    std::fs::write(case.state(), "damaged").unwrap();
    assert!(matches!(case.publish(), Err(Error::NotOurs { .. })));
}

#[test]
fn a_failed_publication_leaves_the_old_files() {
    let mut case = Case::new();
    case.publish().unwrap();
    let old = std::fs::read(case.out().join("image.manifest")).unwrap();
    case.want("image.manifest", "{new}");
    let digest = Digest::of(b"gone");
    case.wanted.insert("image.tar".into(), Content::File { source: "/nonexistent".into(), digest, mode: 0o644 });
    assert!(matches!(case.publish(), Err(Error::Io { action: "open", .. })));
    assert_eq!(std::fs::read(case.out().join("image.manifest")).unwrap(), old);
    assert_eq!(run(&case.out(), "find . -name '.*'"), ".\n");
    for name in ["../b", "a//b", "/b", "a/.."] {
        let mut wanted = case.wanted.clone();
        wanted.insert(name.into(), Content::Link { target: "x".into() });
        let published = publish(&case.out(), &case.state(), &wanted, &PublishOptions::default());
        assert!(matches!(published, Err(Error::Name { .. })), "{name}");
    }
}

#[test]
fn stale_files_are_named_and_withdrawn_if_ours() {
    let mut case = Case::new();
    case.publish().unwrap();
    case.wanted.remove("image.tar");
    case.want("image.tar.zst", "zst");
    let outcome = case.publish().unwrap();
    assert_eq!(outcome.stale, ["image.tar"]);
    assert!(case.out().join("image.tar").exists());
    run(&case.out(), "rm image.manifest; echo mine > image.manifest");
    let removed = withdraw(&case.out(), &case.state(), ["image.tar", "image.manifest", "never"]).unwrap();
    assert_eq!(removed, ["image.tar"]);
    assert!(case.out().join("image.manifest").exists());
    assert_eq!(published(&case.state()), ["image", "image.tar.zst"]);
}

#[test]
fn files_in_directories_are_put_and_withdrawn() {
    let mut case = Case::new();
    case.want("image.repart.d/10-root.conf", "[Partition]");
    case.want("image.repart.d/10-root.conf.d/more.conf", "[Partition]");
    case.publish().unwrap();
    assert!(case.is_current());
    assert_eq!(std::fs::read(case.out().join("image.repart.d/10-root.conf")).unwrap(), b"[Partition]");
    run(&case.out(), "touch image.repart.d/mine");
    let names = ["image.repart.d/10-root.conf", "image.repart.d/10-root.conf.d/more.conf"];
    assert_eq!(withdraw(&case.out(), &case.state(), names).unwrap(), names);
    assert_eq!(run(&case.out(), "find image.repart.d | sort"), "image.repart.d\nimage.repart.d/mine\n");
    // A file or a link of the user's in the place of a directory is not followed.
    run(&case.out(), "rm -r image.repart.d; mkdir ../elsewhere; ln -s ../elsewhere image.repart.d");
    assert!(matches!(case.publish(), Err(Error::NotOurs { .. })));
}

#[test]
fn the_store_never_shares_its_files() {
    let case = Case::new();
    let options = PublishOptions { force: false, owner: Some((12, 34)) };
    publish(&case.out(), &case.state(), &case.wanted, &options).unwrap();
    for (name, content) in &case.wanted {
        let metadata = case.out().join(name).symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
        if let Content::File { source, .. } = content {
            assert_ne!(source.metadata().unwrap().ino(), metadata.ino());
            assert_eq!(source.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        }
    }
}

#[test]
fn clean_up_leaves_what_is_not_ours_and_no_record() {
    let mut case = Case::new();
    case.want("named-by-a-script", "x");
    case.publish().unwrap();
    std::fs::remove_file(case.out().join("image.manifest")).unwrap();
    std::fs::write(case.out().join("image.manifest"), "mine").unwrap();
    // Whoever waits for the lock meanwhile must not get one that is gone.
    let held = state::lock(&case.state()).unwrap();
    let removed = std::thread::scope(|scope| {
        let cleaning = scope.spawn(|| clean(&case.out(), &case.state()).unwrap());
        let waiting = scope.spawn(|| state::lock(&case.state()).map(drop).unwrap());
        drop(held);
        waiting.join().unwrap();
        cleaning.join().unwrap()
    });
    assert_eq!(removed, ["image", "image.tar", "named-by-a-script"]);
    state::forget(&case.state()).unwrap();
    assert_eq!(std::fs::read_dir(case.dir.path().join("state")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(case.out()).unwrap().count(), 1);
    // There is nothing left to remove.
    assert_eq!(clean(&case.out(), &case.state()).unwrap(), [""; 0]);
}
