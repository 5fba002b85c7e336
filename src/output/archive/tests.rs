//! Archives read back with the tools that people use.

use std::os::unix::fs::MetadataExt;

use super::super::testing::{describe, every_kind, run, tree_of};
use super::*;

fn source() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    every_kind(&source);
    (dir, source)
}

fn same_xattrs(source: &Path, copy: &Path) {
    for name in ["user.x", "security.capability"] {
        let read = |dir: &Path| {
            let mut buffer = [0; 64];
            let length = rustix::fs::getxattr(dir.join("capable"), name, &mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        assert_eq!(read(source), read(copy), "{name}");
    }
}

#[test]
fn tar_opens_everywhere() {
    let (dir, source) = source();
    let bytes = write_tar(&tree_of(&source), &ArchiveOptions::default(), Vec::new()).unwrap();
    std::fs::write(dir.path().join("a.tar"), bytes).unwrap();
    for (name, command) in [
        ("gnu", "tar --xattrs --xattrs-include='*' --numeric-owner -xpf ../a.tar"),
        ("bsd", "bsdtar --numeric-owner -xpf ../a.tar"),
        ("python", "python3 -c 'import tarfile; tarfile.open(\"../a.tar\").extractall(\".\", numeric_owner=True)'"),
    ] {
        let copy = dir.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        run(&copy, command);
        if name == "python" {
            // Python's module doesn't set the times of links.
            run(&copy, "touch -hd @2000 link long-link");
        }
        assert_eq!(describe(&source), describe(&copy), "{name}");
        let text = std::fs::read(copy.join("d/äöü")).unwrap();
        assert_eq!(text, std::fs::read(source.join("d/äöü")).unwrap());
        if name != "python" {
            same_xattrs(&source, &copy);
        }
    }
}

/// What a difference takes away is a device 0:0 in every form that isn't OCI's.
#[test]
fn whiteouts_are_what_overlayfs_has() {
    let (dir, source) = source();
    let mut tree = tree_of(&source);
    tree.entries.retain(|merged| merged.entry.path.is_empty() || merged.entry.path == b"zero");
    tree.entries[1].entry = Entry {
        path: b"gone".to_vec(),
        kind: Kind::Whiteout,
        meta: crate::store::Meta::default(),
        hardlink: None,
        mtime: 0,
    };
    tree.entries[1].source = PathBuf::new();
    let options = ArchiveOptions::default();
    std::fs::write(dir.path().join("a.tar"), write_tar(&tree, &options, Vec::new()).unwrap()).unwrap();
    std::fs::write(dir.path().join("a.cpio"), write_cpio(&tree, &options, Vec::new()).unwrap()).unwrap();
    for command in ["tar -xpf ../a.tar", "bsdtar -xpf ../a.tar", "cpio --quiet -i < ../a.cpio"] {
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        run(&copy, command);
        assert_eq!(run(&copy, "stat -c '%F %t:%T %a' gone"), "character special file 0:0 0\n", "{command}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    let state = dir.path().join("state/image");
    let publish = super::super::directory::publish_directory;
    for made in [1, 0] {
        let outcome = publish(&tree, &dir.path().join("image"), &state, &Default::default()).unwrap();
        assert_eq!(outcome.made, made);
        assert_eq!(run(&dir.path().join("image"), "stat -c '%F %t:%T' gone"), "character special file 0:0\n");
    }
}

#[test]
fn our_own_extraction_reads_our_own_archive() {
    let (dir, source) = source();
    let bytes = write_tar(&tree_of(&source), &ArchiveOptions::default(), Vec::new()).unwrap();
    let archive = dir.path().join("a.tar");
    std::fs::write(&archive, bytes).unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    crate::rootfs::Root::open(&copy).unwrap().copy_tree(&archive, "/", &Default::default()).unwrap();
    assert_eq!(describe(&source), describe(&copy));
    same_xattrs(&source, &copy);
}

#[test]
fn sizes_and_times_that_ustar_has_no_room_for() {
    let (dir, source) = source();
    let big = std::fs::File::create(source.join("big")).unwrap();
    big.set_len((8 << 30) + 5).unwrap();
    let mut tree = tree_of_sparse(&source);
    tree.entries.retain(|merged| merged.entry.path.is_empty() || merged.entry.path == b"big");
    tree.entries[1].entry.mtime = -5;
    // The start will do: the rest is 8 GiB of zeros.
    let mut start = vec![0; 1 << 16];
    let full = write_tar(&tree, &ArchiveOptions::default(), start.as_mut_slice());
    assert!(matches!(full, Err(Error::Write { .. })));
    std::fs::write(dir.path().join("start.tar"), start).unwrap();
    let listing = run(dir.path(), "tar --numeric-owner --utc --full-time -tvf start.tar 2>/dev/null || true");
    assert!(listing.contains("8589934597 1969-12-31 23:59:55 ./big"), "{listing}");
    let cpio = write_cpio(&tree, &ArchiveOptions::default(), std::io::sink());
    assert!(matches!(cpio, Err(Error::Unfit { .. })));
}

/// As `tree_of`, but a large sparse file isn't read for its digest.
fn tree_of_sparse(source: &Path) -> MergedTree {
    let big = source.join("big");
    let size = std::fs::metadata(&big).unwrap().len();
    std::fs::rename(&big, source.join("../big")).unwrap();
    std::fs::write(&big, "").unwrap();
    let mut tree = tree_of(source);
    std::fs::rename(source.join("../big"), &big).unwrap();
    for merged in &mut tree.entries {
        if let (Kind::File { size: recorded, .. }, b"big") = (&mut merged.entry.kind, merged.entry.path.as_slice()) {
            *recorded = size;
        }
    }
    tree
}

#[test]
fn cpio_opens_with_gnu_cpio_and_bsdtar() {
    let (dir, source) = source();
    let bytes = write_cpio(&tree_of(&source), &ArchiveOptions::default(), Vec::new()).unwrap();
    std::fs::write(dir.path().join("a.cpio"), bytes).unwrap();
    for (name, command) in [
        ("gnu", "cpio --quiet -idmu --no-absolute-filenames < ../a.cpio"),
        ("bsd", "bsdtar --numeric-owner -xpf ../a.cpio"),
    ] {
        let copy = dir.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        run(&copy, command);
        // GNU cpio sets a directory's time before what it holds, and bsdtar a link's not at all.
        let plain = |dir: &Path| {
            run(
                dir,
                "find . -mindepth 1 \\( -type f -printf '%P %m %U:%G %s %n %Ts\\n' -o -type d -printf '%P %m %U:%G\\n' -o -printf '%P %y %m %U:%G %n %l\\n' \\) | LC_ALL=C sort",
            )
        };
        assert_eq!(plain(&source), plain(&copy), "{name}");
        assert_eq!(std::fs::read_to_string(copy.join("z-hard")).unwrap(), "long");
        assert_eq!(copy.join("disk").metadata().unwrap().rdev(), source.join("disk").metadata().unwrap().rdev());
    }
}

#[test]
fn archives_depend_on_the_tree_alone() {
    let (_a, first) = source();
    let (_b, second) = source();
    for options in [
        ArchiveOptions { epoch: Some(1234), skip_runtime: true },
        ArchiveOptions { epoch: Some(0), skip_runtime: false },
    ] {
        let tar = |path: &Path| write_tar(&tree_of(path), &options, Vec::new()).unwrap();
        assert!(tar(&first) == tar(&second));
        let cpio = |path: &Path| write_cpio(&tree_of(path), &options, Vec::new()).unwrap();
        assert!(cpio(&first) == cpio(&second));
    }
}

#[test]
fn runtime_content_stays_out_and_links_to_it_become_files() {
    let (dir, source) = source();
    std::fs::hard_link(source.join("dev/leftover"), source.join("other-name")).unwrap();
    let options = ArchiveOptions { epoch: Some(1234), skip_runtime: true };
    let tree = tree_of(&source);
    std::fs::write(dir.path().join("a.tar"), write_tar(&tree, &options, Vec::new()).unwrap()).unwrap();
    std::fs::write(dir.path().join("a.cpio"), write_cpio(&tree, &options, Vec::new()).unwrap()).unwrap();
    for command in ["tar -xf ../a.tar", "cpio --quiet -idm < ../a.cpio"] {
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        run(&copy, command);
        assert!(copy.join("dev").is_dir() && !copy.join("dev/leftover").exists());
        assert_eq!(std::fs::read_to_string(copy.join("other-name")).unwrap(), "x");
        assert_eq!(copy.join("capable").metadata().unwrap().mtime(), 1234);
        assert_eq!(copy.join("d/file").metadata().unwrap().mtime(), 1000);
        std::fs::remove_dir_all(copy).unwrap();
    }
}

#[test]
fn a_damaged_layer_is_an_error() {
    let (_dir, source) = source();
    let tree = tree_of(&source);
    std::fs::write(source.join("capable"), "longer than it was").unwrap();
    let error = write_tar(&tree, &ArchiveOptions::default(), std::io::sink()).unwrap_err();
    assert!(matches!(error, Error::Damaged { expected: 1, found: 18, .. }), "{error}");
    std::fs::remove_file(source.join("capable")).unwrap();
    let error = write_cpio(&tree, &ArchiveOptions::default(), std::io::sink()).unwrap_err();
    assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
}
