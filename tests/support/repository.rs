//! A repository in a directory: packages of the pool, and some that tests make.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;

/// A repository of one suite, without signatures.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// One with every package of a pool.
    pub fn new(root: PathBuf, pool: &Path) -> Self {
        std::fs::create_dir_all(root.join("pool")).unwrap();
        for entry in std::fs::read_dir(pool).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                std::fs::copy(entry.path(), root.join("pool").join(entry.file_name())).unwrap();
            }
        }
        Self { root }
    }

    /// The value of `LocalMirror=`.
    pub fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// Makes a package with one file, `/usr/share/NAME`, that holds the version.
    pub fn add(&self, name: &str, version: &str) {
        let tree = tempfile::tempdir_in(&self.root).unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join("tree").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.org>\n\
             Description: a test\n"
        );
        write("DEBIAN/control", &control);
        write(&format!("usr/share/{name}"), &format!("{version}\n"));
        let deb = self.package(name, version);
        tool(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(tree.path().join("tree")).arg(deb));
    }

    /// Removes a package's file.
    pub fn remove(&self, name: &str, version: &str) {
        std::fs::remove_file(self.package(name, version)).unwrap();
    }

    fn package(&self, name: &str, version: &str) -> PathBuf {
        self.root.join(format!("pool/{name}_{version}_all.deb"))
    }

    /// Writes the lists of what is there now.
    pub fn publish(&self) {
        let machine = tool(Command::new("dpkg").arg("--print-architecture"));
        let name = format!("main/binary-{}/Packages", machine.trim());
        let dists = self.root.join("dists/trixie");
        let list = dists.join(&name);
        std::fs::create_dir_all(list.parent().unwrap()).unwrap();
        let packages = tool(Command::new("apt-ftparchive").args(["packages", "pool"]).current_dir(&self.root));
        std::fs::write(&list, &packages).unwrap();
        let hash = tool(Command::new("sha256sum").arg(&list));
        let mut release = format!(
            "Origin: Test\nSuite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: {}\n\
             Components: main\n",
            machine.trim()
        );
        writeln!(release, "SHA256:\n {} {} {name}", hash.split(' ').next().unwrap(), packages.len()).unwrap();
        std::fs::write(dists.join("Release"), release).unwrap();
    }
}
