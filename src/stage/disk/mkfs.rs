//! Programs that make file systems of directories as systemd-repart calls them, on a tree with sorted attributes.
//!
//! They take extended attributes in the order in which the file system that the tree lies on lists them, and that order is
//! in what they make. So our executable stands before them under their names: it sorts the attributes, then becomes the
//! program. Where the tree lies (`space.rs`) is not to be seen in the image.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::super::find_tool;
use crate::rootfs::order_xattrs;

/// The names under which it stands in the sandbox: those whose order is the tree's.
pub const NAMES: [&str; 5] = ["mkfs.ext2", "mkfs.ext3", "mkfs.ext4", "mkfs.erofs", "mksquashfs"];

/// Becomes the program of that name if it is one of [`NAMES`].
pub fn multi_call(name: &str) -> Option<ExitCode> {
    let name = Path::new(name).file_name()?.to_str()?.to_owned();
    NAMES.contains(&name.as_str()).then(|| {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        crate::tell!("{name}: {}", run(&name, &arguments));
        ExitCode::FAILURE
    })
}

/// Returns what went wrong, or not at all.
fn run(name: &str, arguments: &[OsString]) -> String {
    let Some(real) = find_tool(name) else { return "there is no such program".to_owned() };
    // Of what it is given only the tree is a directory, and always a copy.
    let directories = arguments.iter().map(Path::new).filter(|path| path.is_absolute() && path.is_dir());
    for directory in directories {
        if let Err(error) = order(directory) {
            return error;
        }
    }
    format!("can't start {}: {}", real.display(), Command::new(&real).args(arguments).exec())
}

/// Sorts the attributes of a directory and of all below it.
fn order(path: &Path) -> Result<(), String> {
    order_xattrs(path).map_err(|error| format!("can't sort the attributes of {}: {error}", path.display()))?;
    let fail = |error: std::io::Error| format!("can't list {}: {error}", path.display());
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        match entry.file_type().map_err(fail)?.is_dir() {
            true => order(&path)?,
            false => order_xattrs(&path)
                .map_err(|error| format!("can't sort the attributes of {}: {error}", path.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below `target/`, whose file system lists few attributes as they were set; one in memory has the order of its own.
    #[test]
    fn attributes_are_sorted_in_the_whole_tree() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let root = tempfile::tempdir_in(place).unwrap();
        let file = root.path().join("a/b/file");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("a/link")).unwrap();
        let list = |path: &Path| {
            let mut buffer = [0; 256];
            let length = rustix::fs::llistxattr(path, &mut buffer).unwrap();
            let names = buffer[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
            names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        for path in [root.path(), &root.path().join("a"), &file] {
            for name in ["user.b", "user.a", "user.c"] {
                rustix::fs::setxattr(path, name, name.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
            }
        }
        order(root.path()).unwrap();
        for path in [root.path(), &root.path().join("a"), &file] {
            assert_eq!(list(path), ["user.c", "user.b", "user.a"], "{}", path.display());
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(path, "user.b", &mut value).unwrap();
            assert_eq!(&value[..length], b"user.b");
        }
        assert!(order(&root.path().join("none")).is_err());
    }
}
