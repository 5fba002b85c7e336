//! Every operation against links that lead to the host, and copies compared with the originals.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::XattrFlags;

use super::*;

/// A directory that plays the host, with a root in it whose links all lead out.
struct Trap {
    dir: tempfile::TempDir,
    root: Root,
}

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        std::fs::create_dir_all(host.join("dir")).unwrap();
        std::fs::write(host.join("file"), "host").unwrap();
        std::fs::write(host.join("dir/inner"), "host").unwrap();
        let image = dir.path().join("image");
        std::fs::create_dir(&image).unwrap();
        symlink(host.join("dir"), image.join("absolute")).unwrap();
        symlink("../host/dir", image.join("relative")).unwrap();
        symlink("../../../../../../../..", image.join("up")).unwrap();
        symlink(host.join("file"), image.join("file")).unwrap();
        symlink(host.join("new"), image.join("dangling")).unwrap();
        symlink("loop", image.join("loop")).unwrap();
        Self { root: Root::open(&image).unwrap(), dir }
    }

    fn image(&self, path: &str) -> PathBuf {
        self.dir.path().join("image").join(path)
    }

    /// The host's files are what they were.
    fn assert_untouched(&self) {
        let host = self.dir.path().join("host");
        let mut names: Vec<_> = std::fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["dir", "file"]);
        assert_eq!(std::fs::read_dir(host.join("dir")).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(host.join("dir/inner")).unwrap(), "host");
        assert_eq!(std::fs::metadata(host.join("dir")).unwrap().permissions().mode() & 0o777, 0o755);
    }
}

#[test]
fn no_small_operation_leaves_the_root() {
    let trap = Trap::new();
    let root = &trap.root;
    for via in ["absolute", "relative", "up", "dangling", "../..", "up/../../absolute"] {
        root.write_file(format!("{via}/inner"), b"image", 0o644).unwrap();
        assert_eq!(root.read_file(format!("/{via}/inner")).unwrap(), b"image");
        root.symlink("/etc/passwd", format!("{via}/link")).unwrap();
        root.create_dir_all(format!("{via}/a/b"), 0o700).unwrap();
        root.set_mode(format!("{via}/a"), 0o711).unwrap();
        assert!(root.exists(format!("{via}/a/b")).unwrap());
        root.remove(&format!("{}/inner", via.replace("../..", "."))).map(drop).or_else(tolerate_dots).unwrap();
        root.remove_path(format!("{via}/link")).unwrap();
        trap.assert_untouched();
    }
    root.write_file("file", b"image", 0o600).unwrap();
    assert!(trap.image("file").symlink_metadata().unwrap().is_file());
    assert_eq!(trap.image("file").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(root.read_file("loop/x").is_err());
    assert!(root.write_file("loop/x", b"", 0o644).is_err());
    assert!(root.write_file("/", b"", 0o644).is_err());
    assert!(!root.exists("loop").unwrap());
    trap.assert_untouched();
}

/// A pattern with `..` is refused before anything is touched.
fn tolerate_dots(error: Error) -> Result<()> {
    if matches!(error, Error::Pattern { .. }) { Ok(()) } else { Err(error) }
}

#[test]
fn removal_takes_links_and_not_what_they_lead_to() {
    let trap = Trap::new();
    let root = &trap.root;
    // In the root, the absolute link leads to nothing, so nothing below it matches.
    assert!(root.remove("absolute/*").unwrap().is_empty());
    assert!(root.remove("relative/**").unwrap().is_empty());
    assert_eq!(root.remove("up/dangling").unwrap(), [Path::new("up/dangling")]);
    assert_eq!(root.remove("rel*").unwrap(), [Path::new("relative")]);
    root.create_dir_all("real/deep/er", 0o755).unwrap();
    root.write_file("real/deep/er/x", b"", 0o644).unwrap();
    symlink(trap.dir.path().join("host"), trap.image("real/out")).unwrap();
    root.symlink("real", "alias").unwrap();
    assert_eq!(root.remove("/alias/*/er/x").unwrap(), [Path::new("alias/deep/er/x")]);
    assert_eq!(root.remove("real/").unwrap(), [Path::new("real")]);
    assert!(!trap.image("real").exists());
    assert!(root.remove("file/").unwrap().is_empty());
    root.remove("**").unwrap();
    assert_eq!(std::fs::read_dir(trap.image("")).unwrap().count(), 0);
    trap.assert_untouched();
}

#[test]
fn a_pipe_in_the_image_does_not_hang_a_read() {
    let trap = Trap::new();
    rustix::fs::mkfifoat(&trap.root, "pipe", rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    let error = trap.root.read_file("pipe").unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(!error.is_not_found());
    assert!(trap.root.read_file("absent").unwrap_err().is_not_found());
}

#[test]
fn a_copy_follows_directory_links_inside_the_root_only() {
    let trap = Trap::new();
    let source = trap.dir.path().join("source");
    for dir in ["absolute", "relative", "up", "dangling"] {
        std::fs::create_dir_all(source.join(dir)).unwrap();
        std::fs::write(source.join(dir).join("inner"), dir).unwrap();
    }
    std::fs::write(source.join("file"), "image").unwrap();
    trap.root.copy_tree(&source, "/", &CopyOptions::default()).unwrap();
    trap.assert_untouched();
    assert_eq!(trap.root.read_file("absolute/inner").unwrap(), b"absolute");
    assert_eq!(trap.root.read_file("relative/inner").unwrap(), b"relative");
    assert_eq!(std::fs::read_to_string(trap.image("inner")).unwrap(), "up");
    assert!(trap.image("absolute").is_symlink());
    assert_eq!(std::fs::read_to_string(trap.image("file")).unwrap(), "image");
    // The target itself may lie behind a link.
    trap.root.copy_tree(&source, "/absolute/../relative", &CopyOptions::default()).unwrap();
    trap.assert_untouched();
}

#[test]
fn merged_usr_stays_merged() {
    let trap = Trap::new();
    trap.root.create_dir_all("usr/lib", 0o755).unwrap();
    trap.root.symlink("usr/lib", "lib").unwrap();
    let source = trap.dir.path().join("source");
    std::fs::create_dir_all(source.join("lib/modules")).unwrap();
    std::fs::write(source.join("lib/modules/x"), "x").unwrap();
    trap.root.copy_tree(&source, "", &CopyOptions::default()).unwrap();
    assert!(trap.image("lib").is_symlink());
    assert_eq!(std::fs::read_to_string(trap.image("usr/lib/modules/x")).unwrap(), "x");
}

fn every_kind(dir: &Path) {
    std::fs::create_dir_all(dir.join("d/empty")).unwrap();
    std::fs::write(dir.join("d/file"), "content").unwrap();
    std::fs::set_permissions(dir.join("d/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    std::fs::hard_link(dir.join("d/file"), dir.join("z-hard")).unwrap();
    symlink("d/nowhere", dir.join("link")).unwrap();
    std::os::unix::fs::chown(dir.join("d/file"), Some(12), Some(34)).unwrap();
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    std::fs::write(dir.join("capable"), "c").unwrap();
    rustix::fs::setxattr(dir.join("capable"), "security.capability", &cap, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(dir.join("capable"), "user.x", b"\0y\n=", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(dir.join("d"), "user.d", b"d", XattrFlags::empty()).unwrap();
    let big = std::fs::File::create(dir.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&big, b"data", 3 << 20).unwrap();
    big.set_len(9 << 20).unwrap();
    std::fs::set_permissions(dir.join("d"), PermissionsExt::from_mode(0o2555)).unwrap();
    let status = Command::new("sh")
        .args([
            "-ec",
            "mknod null c 1 3; mknod disk b 8 1; mkfifo pipe; chown -h 5:6 link; touch -hd @1000.5 link d/file",
        ])
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success());
}

fn describe(dir: &Path, owners: bool, times: bool) -> String {
    let format =
        format!("%P %y %m %l {} {} %n\\n", if owners { "%U:%G" } else { "-" }, if times { "%T@" } else { "-" });
    let find = Command::new("find").arg(dir).args(["-mindepth", "1", "-printf", &format]).output().unwrap();
    assert!(find.status.success());
    let text = String::from_utf8(find.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort();
    lines.join("\n")
}

fn assert_same_content(a: &Path, b: &Path) {
    let xattr = |path: &Path, name: &str| {
        let mut buffer = [0; 64];
        let length = rustix::fs::getxattr(path, name, &mut buffer).unwrap();
        buffer[..length].to_vec()
    };
    for file in ["d/file", "sparse", "capable"] {
        assert_eq!(std::fs::read(a.join(file)).unwrap(), std::fs::read(b.join(file)).unwrap(), "{file}");
    }
    for (file, name) in [("capable", "security.capability"), ("capable", "user.x"), ("d", "user.d")] {
        assert_eq!(xattr(&a.join(file), name), xattr(&b.join(file), name), "{file} {name}");
    }
    assert_eq!(b.join("d/file").metadata().unwrap().ino(), b.join("z-hard").metadata().unwrap().ino());
    assert_eq!(a.join("null").metadata().unwrap().rdev(), b.join("null").metadata().unwrap().rdev());
    assert!(b.join("sparse").metadata().unwrap().blocks() < 1000);
}

#[test]
fn a_copy_has_every_kind_of_file_and_attribute() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("source"), dir.path().join("image"));
    every_kind(&source);
    std::fs::create_dir(&image).unwrap();
    std::fs::set_permissions(&image, PermissionsExt::from_mode(0o751)).unwrap();
    let root = Root::open(&image).unwrap();
    root.copy_tree(&source, "/", &CopyOptions { owner: Ownership::Source, ..Default::default() }).unwrap();
    assert_eq!(describe(&source, true, true), describe(&image, true, true));
    assert_same_content(&source, &image);
    assert_eq!(image.metadata().unwrap().mode() & 0o7777, 0o751);

    // Once more on top of it: everything is replaced, nothing is written to what other names share.
    std::fs::hard_link(image.join("capable"), dir.path().join("kept")).unwrap();
    std::fs::write(source.join("capable"), "changed").unwrap();
    root.copy_tree(&source, "/", &CopyOptions { epoch: Some(77), ..Default::default() }).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("kept")).unwrap(), "c");
    assert_eq!(describe(&source, false, false), describe(&image, false, false));
    for path in ["", "d", "d/file", "link", "null"] {
        let metadata = image.join(path).symlink_metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (77, 0), "{path}");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{path}");
    }
}

#[test]
fn directories_keep_or_take_a_mode_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("source"), dir.path().join("image"));
    std::fs::create_dir_all(source.join("tmp")).unwrap();
    std::fs::create_dir_all(image.join("tmp")).unwrap();
    std::fs::set_permissions(image.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    let root = Root::open(&image).unwrap();
    let mode = || image.join("tmp").metadata().unwrap().mode() & 0o7777;
    root.copy_tree(&source, "/", &CopyOptions { keep_directories: true, ..Default::default() }).unwrap();
    assert_eq!(mode(), 0o1777);
    root.copy_tree(&source, "/", &CopyOptions::default()).unwrap();
    assert_eq!(mode(), 0o755);
}

#[test]
fn files_go_where_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::create_dir_all(image.join("etc")).unwrap();
    let file = dir.path().join("motd");
    std::fs::write(&file, "hello").unwrap();
    let root = Root::open(&image).unwrap();
    for target in ["/", "/etc", "etc/new/", "/usr/share/other"] {
        root.copy_tree(&file, target, &CopyOptions::default()).unwrap();
    }
    for path in ["motd", "etc/motd", "etc/new/motd", "usr/share/other"] {
        assert_eq!(std::fs::read_to_string(image.join(path)).unwrap(), "hello", "{path}");
    }
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("motd")).unwrap();
    let error = root.copy_tree(&tree, "/", &CopyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    std::fs::remove_dir(tree.join("motd")).unwrap();
    std::fs::write(tree.join("etc"), "").unwrap();
    let error = root.copy_tree(&tree, "/", &CopyOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tree/etc") && error.contains("`/etc`") && error.contains("a directory"), "{error}");
    let absent = root.copy_tree(&dir.path().join("absent"), "/", &CopyOptions::default()).unwrap_err();
    assert!(absent.to_string().contains("absent"), "{absent}");
}

#[test]
fn archives_of_gnu_tar_extract_to_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    every_kind(&source);
    std::fs::create_dir_all(source.join("x".repeat(90)).join("y".repeat(90))).unwrap();
    std::fs::write(source.join("x".repeat(90)).join("y".repeat(90)).join("long"), "").unwrap();
    for (index, options) in [
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "-cf", "a.tar"][..],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--zstd", "-cf", "a.tar.zst"],
        &["--format=posix", "--sparse-version=0.1", "--sparse", "--xattrs", "--xattrs-include=*", "-Jcf", "a.tar.xz"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "-Szcf", "a.tar.gz"],
        // The GNU format has whole seconds and no extended attributes.
        &["--format=gnu", "-Scf", "b.tar"],
    ]
    .iter()
    .enumerate()
    {
        let tar = Command::new("tar").args(*options).args(["-C", "source", "."]).current_dir(&dir).status().unwrap();
        assert!(tar.success());
        let image = dir.path().join(format!("image{index}"));
        std::fs::create_dir(&image).unwrap();
        let root = Root::open(&image).unwrap();
        root.copy_tree(&dir.path().join(options.last().unwrap()), "/", &CopyOptions::default()).unwrap();
        let times = !options.contains(&"--format=gnu");
        assert_eq!(describe(&source, true, times), describe(&image, true, times), "{options:?}");
        if times {
            assert_same_content(&source, &image);
        }
        assert_eq!(std::fs::read(source.join("sparse")).unwrap(), std::fs::read(image.join("sparse")).unwrap());
    }
}

#[test]
fn an_archive_that_reaches_for_the_host_gets_nothing() {
    let trap = Trap::new();
    let host = trap.dir.path().join("host");
    let build = |name: &str, fill: &dyn Fn(&mut tar::Builder<std::fs::File>)| {
        let path = trap.dir.path().join(name);
        let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
        fill(&mut builder);
        builder.finish().unwrap();
        path
    };
    let header = |kind: tar::EntryType, name: &str, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(if kind.is_file() { 1 } else { 0 });
        header.set_cksum();
        header
    };
    let host_text = host.to_str().unwrap();
    let links = build("links.tar", &|builder| {
        builder.append(&header(tar::EntryType::Symlink, "out", host_text), &b""[..]).unwrap();
        builder.append(&header(tar::EntryType::Regular, "out/file", ""), &b"!"[..]).unwrap();
        builder.append(&header(tar::EntryType::Directory, "out/dir", ""), &b""[..]).unwrap();
        builder.append(&header(tar::EntryType::Regular, "/absolute/inner", ""), &b"!"[..]).unwrap();
        builder.append(&header(tar::EntryType::Regular, "file", ""), &b"!"[..]).unwrap();
        builder.append(&header(tar::EntryType::Link, "out/hard", "out/file"), &b""[..]).unwrap();
    });
    trap.root.extract(&links, "/", &CopyOptions::default()).unwrap();
    trap.assert_untouched();
    assert_eq!(trap.root.read_file("out/hard").unwrap(), b"!");

    let dots = build("dots.tar", &|builder| {
        builder.append(&header(tar::EntryType::Regular, "../host/file", ""), &b"!"[..]).unwrap();
    });
    let error = trap.root.extract(&dots, "/", &CopyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
    let steal = build("steal.tar", &|builder| {
        builder.append(&header(tar::EntryType::Link, "stolen", &format!("{host_text}/file")), &b""[..]).unwrap();
    });
    // The link's other end is looked up in the root, where the earlier archive's link leads to a copy at most.
    let _ = trap.root.extract(&steal, "/", &CopyOptions::default());
    assert_eq!(host.join("file").metadata().unwrap().nlink(), 1);
    trap.assert_untouched();
}

#[test]
fn runtime_directories_of_archives_stay_empty_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("dev")).unwrap();
    std::fs::create_dir_all(source.join("development")).unwrap();
    std::fs::write(source.join("dev/x"), "").unwrap();
    std::fs::write(source.join("development/x"), "").unwrap();
    let tar = Command::new("tar").args(["-cf", "a.tar", "-C", "source", "."]).current_dir(&dir).status().unwrap();
    assert!(tar.success());
    let image = dir.path().join("image");
    std::fs::create_dir(&image).unwrap();
    let options = CopyOptions { skip_runtime: true, ..Default::default() };
    Root::open(&image).unwrap().copy_tree(&dir.path().join("a.tar"), "/", &options).unwrap();
    assert!(image.join("dev").is_dir() && !image.join("dev/x").exists());
    assert!(image.join("development/x").exists());
    std::fs::write(dir.path().join("bad.tar"), "no archive").unwrap();
    let bad = Root::open(&image).unwrap().extract(&dir.path().join("bad.tar"), "/", &options).unwrap_err();
    assert!(matches!(bad, Error::Archive { .. }), "{bad}");
}

#[test]
fn directories_that_hold_nothing_go() {
    let place = tempfile::tempdir().unwrap();
    for path in ["usr/share/a/b", "usr/share/kept", "etc/own", "opt"] {
        std::fs::create_dir_all(place.path().join(path)).unwrap();
    }
    std::fs::write(place.path().join("etc/own/file"), "").unwrap();
    std::os::unix::fs::symlink("a", place.path().join("usr/link")).unwrap();
    let root = Root::open(place.path()).unwrap();
    root.remove_empty(&[PathBuf::from("usr/share/kept")].into()).unwrap();
    let left = |path: &str| place.path().join(path).symlink_metadata().is_ok();
    assert!(left("usr/share/kept") && left("etc/own/file") && left("usr/link"));
    assert!(!left("usr/share/a") && !left("opt"));
}
