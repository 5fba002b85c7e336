//! A full disk and a damaged store.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::stores::{directory, fill, fresh, reference};
use crate::support::{Project, tool};

/// A file system in memory, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn new(size: &str) -> Self {
        let place = Self(directory("small-"));
        let options = format!("size={size},mode=0755");
        tool(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place.0));
        place
    }

    fn resize(&self, size: &str) {
        tool(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_a_larger_one_is_used() {
    // Too small for the metadata; for what packages are unpacked to; and for the archive, each of which fails in
    // another way: apt, dpkg and the engine itself find the disk full.
    let disk = Small::new("30m");
    let project = Project::new(&disk.0);
    let store = disk.0.join("store");
    let fails = || {
        let ran = project.fails(&[]);
        ran.says("no space left");
        ran.says(store.to_str().unwrap());
        ran.says("mkosi store gc");
        assert!(!project.output("image.tar.zst").exists());
    };
    fails();
    disk.resize("400m");
    fill(&disk.0);
    let used = tool(Command::new("du").args(["-sm", "--apparent-size"]).arg(&disk.0));
    let used: u32 = used.split_whitespace().next().unwrap().parse().unwrap();
    for more in [40, 150] {
        disk.resize(&format!("{}m", used + more));
        fails();
    }
    disk.resize("700m");
    project.build();
    assert!(project.tar() == reference().tar);
    project.done(&["store", "verify"]);
}

/// Every regular file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let listed = tool(Command::new("find").arg(directory).args(["-type", "f"]));
    listed.lines().map(PathBuf::from).collect()
}

#[test]
fn a_flipped_byte_is_found_and_made_again() {
    let project = Project::new(&fresh());
    project.build();
    project.done(&["store", "verify"]);
    // A library in the layer of the packages.
    let layers = project.cache.join("store/layers");
    let named = |path: &PathBuf| path.ends_with("usr/lib/systemd/systemd");
    let victim = files(&layers).into_iter().find(named).unwrap();
    let meta = victim.metadata().unwrap();
    let mut bytes = std::fs::read(&victim).unwrap();
    let good = bytes.clone();
    bytes[1000] ^= 1;
    std::fs::write(&victim, &bytes).unwrap();
    // The times are as they were: nothing but the content tells.
    let file = std::fs::File::options().write(true).open(&victim).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    let ran = project.fails(&["store", "verify"]);
    ran.says("damaged: layer");
    // What is damaged is made again, what is not stays.
    std::fs::remove_file(project.output("image.tar.zst")).unwrap();
    let ran = project.done(&["--verify-cache"]);
    assert!(ran.stages.contains_key("packages") && !ran.stages.contains_key("base"), "{}", ran.text);
    ran.says("damaged");
    assert!(std::fs::read(&victim).unwrap() == good);
    project.done(&["store", "verify"]);
    project.build();
    assert!(project.tar() == reference().tar);
    // The same for the archive itself, by way of the repair.
    let archive =
        files(&project.cache.join("store/files")).into_iter().max_by_key(|path| path.metadata().unwrap().len());
    let archive = archive.unwrap();
    let mut bytes = std::fs::read(&archive).unwrap();
    bytes[1000] ^= 1;
    tool(Command::new("chmod").arg("u+w").arg(&archive));
    std::fs::write(&archive, &bytes).unwrap();
    project.fails(&["store", "verify"]).says("damaged: file");
    project.done(&["store", "verify", "--repair"]);
    std::fs::remove_file(project.output("image.tar.zst")).unwrap();
    let ran = project.build();
    ran.assert(&["tar", "publish"]);
    assert!(project.tar() == reference().tar);
}
